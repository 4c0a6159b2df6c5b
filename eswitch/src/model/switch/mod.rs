//! The device: vports, domains, rules, and the walk of a packet through them.
//!
//! ```text
//!              wire of vport v                     application transmits on representor v
//!                    │                                            │ (as eSwitch manager)
//!                    ▼                                            ▼
//!           ┌─ FDB group 0 ── jump ── group n ── … ──┐   the same group 0
//!           │        hit: represented_port, drop     │
//!           │        miss in any group               │
//!           ▼                  ▼                     ▼
//!    wire of another    representor of v:      no rule caught it: wire of v
//!    vport, or drop     NIC receive domain
//!                         │ ingress rules, groups of that representor
//!                         ▼
//!                  a receive queue, a hairpin queue (back into the FDB as its port's transmission), or drop
//! ```
//!
//! Nothing waits for software here: a miss is delivered, and later packets of the same connection may pass
//! it through a rule that was installed meanwhile.

mod statistics;

pub use statistics::{DropReason, Statistics, VportStatistics};
