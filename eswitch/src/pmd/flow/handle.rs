//! What applications hold as pointers: integers, so that a stale or invented one is recognised, never
//! followed.

use std::num::NonZeroU64;
use std::ptr;

use crate::model::action::Shared;
use crate::model::types::{AgeId, CounterId, MeterId, RuleHandle};
use crate::pmd::ffi;

// A handle is as wide as a pointer.
const _: () = assert!(size_of::<usize>() == size_of::<u64>());

/// Kinds of indirect actions, above the object's number. A rule's handle has no such bits set together with
/// these.
const KIND_SHIFT: u32 = 32;
const KIND_COUNTER: u64 = 0xc0_0001;
const KIND_AGE: u64 = 0xc0_0002;
const KIND_METER: u64 = 0xc0_0003;
const KIND_RSS: u64 = 0xc0_0004;

/// What an indirect handle refers to; `None` for what is none of ours.
pub(super) fn shared(handle: *const ffi::rte_flow_action_handle) -> Option<Shared> {
    let bits = handle.addr() as u64;
    let id = bits as u32;
    match bits >> KIND_SHIFT {
        KIND_COUNTER => Some(Shared::Counter(CounterId(id))),
        KIND_AGE => Some(Shared::Age(AgeId(id))),
        KIND_METER => Some(Shared::Meter(MeterId(id))),
        KIND_RSS => Some(Shared::Rss(id)),
        _ => None,
    }
}

/// The handle of an indirect action; never null.
pub(super) fn of_shared(shared: Shared) -> *mut ffi::rte_flow_action_handle {
    let (kind, id) = match shared {
        Shared::Counter(CounterId(id)) => (KIND_COUNTER, id),
        Shared::Age(AgeId(id)) => (KIND_AGE, id),
        Shared::Meter(MeterId(id)) => (KIND_METER, id),
        Shared::Rss(id) => (KIND_RSS, id),
    };
    ptr::without_provenance_mut((kind << KIND_SHIFT | u64::from(id)) as usize)
}

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
