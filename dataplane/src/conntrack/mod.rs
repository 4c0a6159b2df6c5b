//! The connection table: who was given which backend, in both directions, and until when.
//!
//! One [`Table`] per worker, used by that worker alone. Everything is allocated by [`Table::new`].
//!
//! * [`State`] says what is believed of a connection, and draws how that changes.
//! * [`Entry`] is a connection, one cache line; what most connections never need is kept elsewhere.
//! * The index finds a connection by either of its keys, at one cache line a look.
//! * The wheel says which connection to look at when; the half-open list which to give up first.
//!
//! A burst looks its packets up in stages, so that memory answers for all of them at once:
//! [`Table::hash`] and [`Table::prefetch_index`] for every packet, then [`Table::probe`] for every
//! packet, then [`Table::find`] and [`Table::account`] packet by packet. Newcomers likewise:
//! [`Table::prepare`] for each, then [`Table::insert_prepared`].
//!
//! # Under pressure
//!
//! Opening a connection costs a sender one spoofed packet, so connections that only one side has been
//! heard of are *half-open*: TCP before the handshake is complete, a connection picked up in its middle,
//! UDP without an answer. They hold a bounded share of the table. At the bound a newcomer takes the place
//! of the oldest of them, unless even that one is younger than a configured grace (give it the round
//! trip it needs); then the newcomer is refused. In a full table half-open connections go first too,
//! down to an eighth of their share: so many a flood can take from the established ones and no more.
//! Below that, a connection that has ended, or else one that has been silent longest, goes; both as found
//! among a few that a hand going round the table points at.
//!
//! Tenants share a table. One that holds all it may ([`Share`]) makes room for its newcomers by its own
//! connections alone, found among them however few they are: each tenant's established ones are in a ring
//! with a hand of its own. Where the half-open share of the whole table is used up, it is the tenant with
//! the most of them that gives one up, grace or not, to one that has fewer. And where the table is full, it
//! is the tenant that holds most in proportion to what it may, or to an equal part where nothing was said:
//! one tenant's flood ends none of another's connections as long as that one keeps to its part.

mod entry;
mod half_open;
mod index;
mod leader;
mod rings;
mod table;
mod tags;
mod tcp;
mod wheel;

#[cfg(test)]
mod tests;

pub use entry::{Entry, Slot};
pub use table::{
    Candidates, ConnectionRow, Count, Ends, Gone, InsertError, Inserted, New, Prepared, Shape, Share, Table,
    Totals,
};
pub(crate) use table::{ConnectionCopy, Shut};
pub use tcp::{Outcome, Segment, State};
