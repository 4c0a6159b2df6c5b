//! Which rules have aged. The event, `RTE_ETH_EVENT_FLOW_AGED`, is raised by the EAL's interrupt thread; see
//! the device.

use std::ffi::{c_int, c_void};
use std::slice;

use super::entry::Call;
use crate::model::objects::AgedCursor;
use crate::model::refusal::{Cause, Errno, Refusal};
use crate::pmd::device::PortPrivate;
use crate::pmd::ffi;

/// Contexts fetched at once, while packets wait.
const SLICE: usize = 256;

pub(super) unsafe extern "C" fn get_aged_flows(
    device: *mut ffi::rte_eth_dev,
    contexts: *mut *mut c_void,
    count: u32,
    error: *mut ffi::rte_flow_error,
) -> c_int {
    // SAFETY: as `rte_flow_get_aged_flows` is called.
    unsafe {
        Call::new("flow get_aged_flows", device, error).number(|port| aged(port, None, contexts, count))
    }
}

pub(super) unsafe extern "C" fn get_q_aged_flows(
    device: *mut ffi::rte_eth_dev,
    queue: u32,
    contexts: *mut *mut c_void,
    count: u32,
    error: *mut ffi::rte_flow_error,
) -> c_int {
    // SAFETY: as `rte_flow_get_q_aged_flows` is called.
    unsafe {
        Call::new("flow get_q_aged_flows", device, error)
            .number(|port| aged(port, Some(queue), contexts, count))
    }
}

/// Fills in what the application gave as contexts; without room, only counts.
///
/// # Safety
/// `contexts` is null or has room for `count`.
unsafe fn aged(
    port: &PortPrivate,
    queue: Option<u32>,
    contexts: *mut *mut c_void,
    count: u32,
) -> Result<usize, Refusal> {
    let out = match count {
        0 => &mut [],
        _ if contexts.is_null() => {
            return Err(Refusal::new(Errno::Inval, Cause::Unspecified, "empty context"));
        }
        // SAFETY: not null, so there is room for `count` (the caller's promise); a context is an integer in a
        // pointer's clothing, and as wide.
        _ => unsafe { slice::from_raw_parts_mut(contexts.cast::<u64>(), count as usize) },
    };
    let queue = match queue.map(u16::try_from) {
        None => None,
        Some(Ok(queue)) => Some(queue),
        Some(Err(_)) => return Err(Refusal::new(Errno::Inval, Cause::Unspecified, "invalid queue id")),
    };
    let switch = &port.switch;
    // Without traffic nobody else may have looked at the ages.
    if !switch.presence.is_remembered(switch.clock.now()) {
        switch.eswitch.lock().advance(switch.clock.now());
    }
    let vport = port.vport;
    if out.is_empty() {
        return switch.ask(|eswitch| eswitch.aged(vport, queue, out));
    }
    let (room, mut written, mut from) = (out.len(), 0, AgedCursor::default());
    for slice in out.chunks_mut(SLICE) {
        let fetched = switch.ask(|eswitch| eswitch.aged_slice(vport, queue, &mut from, slice))?;
        written += fetched;
        if fetched < slice.len() {
            break;
        }
    }
    Ok(switch.ask(|eswitch| eswitch.aged_answer(vport, room, written)))
}
