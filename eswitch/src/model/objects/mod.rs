//! What rules refer to: counters, age contexts, meters.
//!
//! All three are told the time and never read a clock, cost O(1) per packet, and take no more than a stated
//! number of steps in any call, so that the device's lock is never held long. None of them knows rules: the
//! device keeps their identifiers in its rules and in indirect handles, and counts references with `retain`
//! and `free`.
//!
//! * [`counters`]: hits and bytes, read through a cache that is refreshed now and then.
//! * [`ages`]: how long something has not been hit; a slow scan finds what is idle for too long.
//! * [`meters`]: token buckets, and the objects of `rte_mtr` around them.

pub mod ages;
pub mod counters;
pub mod meters;

pub use ages::{AgeTiming, AgeValue, AgedCursor, Ages, HitSource};
pub use counters::{CountValue, CounterTiming, Counters};
pub use meters::Meters;

use super::refusal::{Cause, Errno, Refusal};

/// A refusal of the flow API without an action to blame.
const fn refuse_flow(errno: Errno, message: &'static str) -> Refusal {
    Refusal::new(errno, Cause::Unspecified, message)
}
