//! Whether backends are well.
//!
//! ```text
//! snapshot ──▶ machine ── whom to probe ──▶ prober ── IP packets ──▶ a worker, and back
//!                │  ▲                         │
//!                │  └── how that went ────────┘
//!                └── who takes new connections, and how many ──▶ the next snapshot
//! ```
//!
//! [`machine`] decides: when a backend is probed, and what follows from the answers. [`prober`] makes the
//! probes' packets and reads the answers; [`rounds`] has them take turns. Time and packets come in as
//! arguments; there is no thread, no clock and no I/O here.

pub mod machine;
pub mod prober;
pub mod rounds;

pub use machine::{Cause, Machine, Memory, Outcome, State, TargetId, Transition};
pub use prober::{Fate, Job, Prober, Wire};
pub use rounds::Rounds;
