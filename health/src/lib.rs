//! Whether backends are well.
//!
//! ```text
//! snapshot ──▶ machine ── whom to probe ──▶ prober ── IP packets ──▶ a worker, and back
//!                │  ▲                         │
//!                │  └── how that went ────────┘
//!                └── who takes new connections, and how many ──▶ the next snapshot
//! ```
//!
//! [`machine`] decides: when a backend is probed, and what follows from the answers. Time comes in as an
//! argument; there is no thread, no clock and no I/O here.

pub mod machine;

pub use machine::{Cause, Machine, Outcome, State, TargetId, Transition};
