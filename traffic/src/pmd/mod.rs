//! The driver, `net_traffic`.
//!
//! In reading order: [`port`], the operations of its ethdev; [`queues`], its queues and their bursts;
//! [`stats`], what was counted. A panic would be a fault of this driver; it ends the process at the border
//! with C.

mod ffi;
mod port;
mod queues;
mod stats;

use std::cell::UnsafeCell;
use std::ffi::{CStr, CString};

/// Linux's errnos.
const ENOMEM: i32 = 12;
const EINVAL: i32 = 22;
const ENOTSUP: i32 = 95;

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
        name: c"net_traffic".as_ptr(),
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
static this_pmd_name_net_traffic: [u8; 12] = *b"net_traffic\0";

unsafe extern "C" fn probe(device: *mut ffi::rte_vdev_device) -> i32 {
    // SAFETY: the bus passes a device with a name; both strings are terminated and outlive the call.
    let (name, arguments) = unsafe {
        (CStr::from_ptr(ffi::traffic_vdev_name(device)), CStr::from_ptr(ffi::traffic_vdev_args(device)))
    };
    // SAFETY: reads the EAL's configuration.
    if unsafe { ffi::rte_eal_process_type() } != ffi::RTE_PROC_PRIMARY {
        let name = name.to_string_lossy();
        log(
            ffi::TRAFFIC_LOG_ERR,
            &format!("{name}: secondary processes are not served; use the primary one"),
        );
        return -ENOTSUP;
    }
    status(port::probe(device, name, &arguments.to_string_lossy()))
}

unsafe extern "C" fn remove(device: *mut ffi::rte_vdev_device) -> i32 {
    // SAFETY: as in `probe`.
    port::remove(unsafe { CStr::from_ptr(ffi::traffic_vdev_name(device)) });
    0
}

/// 0, or a negative errno.
fn status(result: Result<(), i32>) -> i32 {
    result.map_or_else(|errno| -errno, |()| 0)
}

/// A line in the application's log, of type `pmd.net.traffic`.
fn log(level: u32, text: &str) {
    let bytes: Vec<u8> = text.bytes().filter(|byte| *byte != 0).collect();
    if let Ok(text) = CString::new(bytes) {
        // SAFETY: the text is terminated and outlives the call, which copies it.
        unsafe { ffi::traffic_log(level, text.as_ptr()) };
    }
}
