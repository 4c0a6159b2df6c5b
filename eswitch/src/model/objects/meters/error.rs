//! How `rte_mtr` turns a request down: `rte_mtr_error`.

use crate::model::refusal::Errno;

/// What was at fault: `rte_mtr_error_type`, same values.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(i32)]
#[allow(missing_docs, reason = "the names are rte_mtr's")]
pub enum Cause {
    Unspecified = 1,
    MeterProfileId,
    MeterProfile,
    MeterProfilePacketMode,
    MtrId,
    MtrParams,
    PolicerActionGreen,
    PolicerActionYellow,
    PolicerActionRed,
    StatsMask,
    Stats,
    Shared,
    MeterPolicyId,
    MeterPolicy,
}

/// A request of `rte_mtr` refused. Positive errno.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message} (errno {errno})")]
pub struct MtrRefusal {
    /// The errno.
    pub errno: Errno,
    /// What was at fault.
    pub cause: Cause,
    /// Why, for a person.
    pub message: &'static str,
}

pub(super) const fn refuse(errno: Errno, cause: Cause, message: &'static str) -> MtrRefusal {
    MtrRefusal { errno, cause, message }
}
