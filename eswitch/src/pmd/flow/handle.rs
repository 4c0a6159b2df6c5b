//! What applications hold as pointers: integers, so that a stale or invented one is recognised, never
//! followed. Those of indirect actions are [`super::lives`]'s.

use std::num::NonZeroU64;
use std::ptr;

use crate::model::types::RuleHandle;
use crate::pmd::ffi;

// A handle is as wide as a pointer.
const _: () = assert!(size_of::<usize>() == size_of::<u64>());

/// A rule's handle; `None` for null.
pub(super) fn rule(handle: *const ffi::rte_flow) -> Option<RuleHandle> {
    NonZeroU64::new(handle.addr() as u64).map(RuleHandle)
}

/// A rule's handle, as the application holds it.
pub(super) fn of_rule(handle: RuleHandle) -> *mut ffi::rte_flow {
    ptr::without_provenance_mut(handle.0.get() as usize)
}

/// A meter profile: its number; 0 for null, and a number that none has for what is no profile.
pub(super) fn meter_profile(profile: *const ffi::rte_flow_meter_profile) -> u32 {
    u32::try_from(profile.addr()).unwrap_or(u32::MAX)
}

/// A meter profile, as the application holds it.
pub(in crate::pmd) fn of_meter_profile(number: u32) -> *mut ffi::rte_flow_meter_profile {
    ptr::without_provenance_mut(number as usize)
}
