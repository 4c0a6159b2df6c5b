//! The pure room: everything Millrace knows about packets, connections and backends.
//!
//! No FFI, no clock, no threads, no I/O, and no allocation after start: time, randomness and packets
//! come in as arguments. In reading order:
//!
//! 1. [`packet`]: what a packet buffer can do; [`wire`]: header formats; [`wire::parse`] joins them.
//! 2. [`flow`]: the key of a connection, its direction and its hash.
//! 3. [`snapshot`]: the immutable configuration a worker forwards by; [`config`] is where it comes from;
//!    [`maglev`] picks backends in it, or [`partition`]; [`owner`] says which worker has a client.
//!    [`policy`] says in it what is let through.
//! 4. [`conntrack`]: the connection table.
//! 5. [`neighbour`], [`fragments`], [`rewrite`], [`rate`]: next hops, fragments, header rewriting, and how
//!    often Millrace speaks itself.
//! 6. [`worker`]: the walk, which puts all of these together.
//! 7. [`counters`], [`drops`]: what happened; [`offload`]: the vocabulary spoken with the offload engine;
//!    [`capture`]: which connections are watched.

#![deny(unsafe_code)]

pub mod addr;
pub mod capture;
pub mod config;
pub mod conntrack;
pub mod counters;
pub mod drops;
pub mod flow;
pub mod fragments;
pub mod ids;
pub mod limits;
pub mod maglev;
pub mod meter;
pub mod neighbour;
pub mod offload;
pub mod owner;
pub mod packet;
pub mod partition;
pub mod policy;
pub mod prefetch;
pub mod rate;
pub mod rewrite;
pub mod snapshot;
pub mod time;
pub mod wire;
pub mod worker;
