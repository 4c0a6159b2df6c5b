//! The driver, `net_eswitch`: ports, wires and flow operations around the model.
//!
//! In reading order:
//!
//! 1. [`devargs`]: what the user writes. [`device`]: the device, how it comes and goes.
//! 2. [`port`]: the operations of its ethdevs, the representors. [`queues`],
//!    [`rxtx`], [`hairpin`]: their queues.
//! 3. [`wire`]: the other drivers' ethdevs behind the vports. [`drive`]: what moves packets between wires,
//!    model and queues; [`service`]: the core that may do it;
//!    [`pulse`]: what goes on without either.
//! 4. [`stats`]: what was counted. [`mbuf`], [`clock`], [`lock`], [`requests`], [`log`]: what all this
//!    stands on.
//! 5. [`flow`]: flow operations; [`mtr`]: meters. [`show`], [`telemetry`]: what a person can ask.
//! 6. [`border`]: every function that C calls goes through it, so that nothing unwinds into C.

mod border;
mod clock;
mod devargs;
mod device;
mod drive;
mod ffi;
mod flow;
mod hairpin;
mod lock;
mod log;
mod mbuf;
mod mtr;
mod port;
mod pulse;
mod queues;
mod requests;
mod rxtx;
mod service;
mod show;
mod stats;
mod telemetry;
#[cfg(test)]
mod tests;
mod wire;

use std::cell::UnsafeCell;
use std::ffi::{CStr, c_char};

/// Linux's ENOTSUP.
const ENOTSUP: i32 = 95;

/// Writes a name into a fixed array of C, cut to fit, terminated.
fn copy_name(to: &mut [c_char], name: &str) {
    let Some(end) = to.len().checked_sub(1) else { return };
    to.fill(0);
    for (to, from) in to[..end].iter_mut().zip(name.bytes()) {
        *to = from as c_char;
    }
}

/// The driver, as the vdev bus links it into its list.
struct Driver(UnsafeCell<ffi::rte_vdev_driver>);

// SAFETY: written by DPDK only, under its own rules, once registered.
unsafe impl Sync for Driver {}

static DRIVER: Driver = Driver(UnsafeCell::new(ffi::rte_vdev_driver {
    next: ffi::rte_vdev_driver__bindgen_ty_1 {
        tqe_next: std::ptr::null_mut(),
        tqe_prev: std::ptr::null_mut(),
    },
    driver: ffi::rte_driver {
        next: ffi::rte_driver__bindgen_ty_1 {
            tqe_next: std::ptr::null_mut(),
            tqe_prev: std::ptr::null_mut(),
        },
        name: c"net_eswitch".as_ptr(),
        alias: std::ptr::null(),
    },
    probe: Some(probe),
    remove: Some(remove),
    dma_map: None,
    dma_unmap: None,
    drv_flags: 0,
}));

/// Runs when the plugin is loaded, like the constructors that DPDK's own drivers register with.
#[used]
#[unsafe(link_section = ".init_array")]
static REGISTER: extern "C" fn() = {
    extern "C" fn register() {
        // SAFETY: a driver that lives as long as the process, registered once.
        unsafe { ffi::rte_vdev_register(DRIVER.0.get()) };
    }
    register
};

/// What pmdinfogen and tools look for in a driver.
#[used]
#[unsafe(no_mangle)]
static this_pmd_name_net_eswitch: [u8; 12] = *b"net_eswitch\0";

unsafe extern "C" fn probe(device: *mut ffi::rte_vdev_device) -> i32 {
    border::status("probe", || {
        // SAFETY: the bus passes a device with a name; both strings are terminated and outlive the call.
        let (name, arguments) = unsafe {
            (CStr::from_ptr(ffi::eswitch_vdev_name(device)), CStr::from_ptr(ffi::eswitch_vdev_args(device)))
        };
        let (name, arguments) = (name.to_string_lossy(), arguments.to_string_lossy());
        // SAFETY: reads the EAL's configuration.
        if unsafe { ffi::rte_eal_process_type() } != ffi::RTE_PROC_PRIMARY {
            log::error(&format!(
                "{name}: secondary processes are not served; use its ports in the primary one"
            ));
            return Err(ENOTSUP);
        }
        device::probe(device, &name, &arguments)
    })
}

unsafe extern "C" fn remove(device: *mut ffi::rte_vdev_device) -> i32 {
    border::status("remove", || {
        // SAFETY: as in `probe`.
        let name = unsafe { CStr::from_ptr(ffi::eswitch_vdev_name(device)) };
        device::remove(&name.to_string_lossy())
    })
}
