//! What rules refer to: counters, age contexts, meters.
//!
//! All three are told the time and never read a clock, cost O(1) per packet, and take no more than a stated
//! number of steps in any call, so that the device's lock is never held long. None of them knows rules: the
//! device keeps their identifiers in its rules and in indirect handles, and counts references with `retain`
//! and `free`.
//!
//! * [`counters`]: hits and bytes, read through a cache that is refreshed now and then.

pub mod counters;

pub use counters::{CountValue, CounterTiming, Counters};
