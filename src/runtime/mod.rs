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
//! A worker owns its queues, its tables and its counters, and shares nothing but bounded rings. [`worker`]
//! is its loop, [`env`] what the walk sees of the outside, [`rings`] the way between workers, [`mailbox`]
//! the way to and from the manager; [`crew`] starts and stops them all.

pub(crate) mod crew;
pub(crate) mod env;
pub(crate) mod idle;
pub(crate) mod mailbox;
pub(crate) mod rings;
pub(crate) mod worker;
