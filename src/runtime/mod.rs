//! The packet threads.
//!
//! ```text
//!             ┌── mailbox: snapshots, questions ──▶┐
//! manager ────┤                                    ├──── worker: rx ▶ the walk ▶ tx
//!             └◀─ mailbox: old snapshots, answers ─┘        ▲  │
//!                                                 rings: packets and neighbours
//!                                                           │  ▼
//!                                                     other workers
//! ```
//!
//! Beside them, the offload thread has hardware forward what workers ask for.
//!
//! A worker owns its queues, its tables and its counters, and shares nothing but bounded rings. [`worker`]
//! is its loop, [`env`] what the walk sees of the outside, [`rings`] the way between workers, [`mailbox`]
//! the way to and from the manager; [`crew`] starts and stops them all. [`offload`] is the loop of the
//! offload thread, [`offload_rings`] the way between it and the workers.

pub(crate) mod crew;
pub(crate) mod env;
pub(crate) mod idle;
pub(crate) mod mailbox;
pub(crate) mod offload;
pub(crate) mod offload_rings;
pub(crate) mod probe_rings;
pub(crate) mod rings;
pub(crate) mod worker;
