//! The device, pure. In reading order:
//!
//! 1. [`types`], [`item`], [`action`], [`refusal`]: the vocabulary; what an application asks for and how it
//!    is turned down.
//! 2. [`validate`]: what mlx5 would refuse, and with which errno.
//! 3. [`key`], [`pattern`]: a packet, and a pattern, as words that can be masked and compared.
//! 4. [`classifier`]: the rules of one group, found by tuple-space search.
//! 5. [`program`]: what a rule does to a packet that it matches.
//! 6. [`objects`]: counters, age contexts, meters, and indirect handles to them.
//! 7. [`switch`]: the device itself; the walk of a packet through groups and domains.
//! 8. [`profile`], [`timing`], [`faults`], [`queue`]: how big, how late, how unreliable.

pub mod action;
pub mod classifier;
pub mod faults;
pub mod item;
pub mod key;
pub mod objects;
pub mod pattern;
pub mod profile;
pub mod program;
pub mod queue;
pub mod refusal;
pub mod switch;
pub mod template;
pub mod timing;
pub mod types;
pub mod validate;
mod warm;
