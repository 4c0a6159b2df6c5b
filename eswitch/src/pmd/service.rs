//! Service cores: if the application gives the EAL some (`-s`, `-S`), one drives the device.

use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::border;
use super::device::Switch;
use super::log;
use super::{copy_name, ffi};

/// Linux's EAGAIN: the run found nothing to do.
const IDLE: i32 = -11;

/// A device's service, if it has one.
#[derive(Default)]
pub(super) struct Service {
    id: AtomicU32,
    registered: AtomicBool,
}

unsafe extern "C" fn run(argument: *mut c_void) -> i32 {
    border::guard("service", 0, || {
        // SAFETY: the switch outlives its service, see `stop`.
        let switch = unsafe { &*argument.cast::<Switch>() };
        switch.beats.fetch_add(1, Ordering::Relaxed);
        if switch.drive() { 0 } else { IDLE }
    })
}

impl Service {
    /// Registers it; service cores that run already are given it, others get it from the EAL's defaults.
    pub(super) fn start(&self, switch: &Switch) {
        if switch.args.service == Some(false) {
            return;
        }
        let mut spec = ffi::rte_service_spec { callback: Some(run), ..Default::default() };
        copy_name(&mut spec.name, &switch.name);
        spec.callback_userdata = std::ptr::from_ref(switch).cast_mut().cast();
        let mut id = 0;
        // SAFETY: the specification is copied; the switch, its argument, outlives the service.
        unsafe {
            let status = ffi::rte_service_component_register(&raw const spec, &raw mut id);
            if status != 0 {
                log::warning(&format!("{}: no service ({status}): packet threads drive it", switch.name));
                return;
            }
            ffi::rte_service_component_runstate_set(id, 1);
            let mut cores = [0; 128];
            let count = ffi::rte_service_lcore_list(cores.as_mut_ptr(), cores.len() as u32);
            if count > 0 {
                ffi::rte_service_map_lcore_set(id, cores[0], 1);
                ffi::rte_service_runstate_set(id, 1);
            } else if switch.args.service == Some(true) {
                let name = &switch.name;
                log::warning(&format!(
                    "{name}: service=1 but no service cores: give the EAL some with -s or -S"
                ));
            }
        }
        self.id.store(id, Ordering::Relaxed);
        self.registered.store(true, Ordering::Release);
    }

    /// Takes it off its core and unregisters it.
    pub(super) fn stop(&self, switch: &Switch) {
        if !self.registered.swap(false, Ordering::AcqRel) {
            return;
        }
        let id = self.id.load(Ordering::Relaxed);
        // SAFETY: our own service; every function checks the number.
        unsafe {
            ffi::rte_service_component_runstate_set(id, 0);
            ffi::rte_service_runstate_set(id, 0);
            // A run is short, and a core that is stopped runs none: this ends.
            while ffi::rte_service_may_be_active(id) == 1 {
                std::thread::yield_now();
            }
            ffi::rte_service_component_unregister(id);
        }
        switch.beats.store(0, Ordering::Relaxed);
    }
}
