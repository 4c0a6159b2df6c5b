//! What is told of verdicts that are to be logged.

use super::{Subject, Verdict};
use crate::ids::WorkerId;
use crate::time::Tick;

/// A verdict to be logged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogEvent {
    /// Who judged,
    pub worker: WorkerId,
    /// and when.
    pub at: Tick,
    /// What was judged.
    pub subject: Subject,
    /// What was decided.
    pub verdict: Verdict,
}
