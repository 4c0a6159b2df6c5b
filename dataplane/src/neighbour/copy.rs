//! Copies of entries, for a table that stands in for another.

use super::slots::Entry;
use super::{NeighbourState, Neighbours};
use crate::packet::PacketBuf;

/// All that a table knows of one neighbour, but for the packets that wait for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NeighbourCopy(Entry);

impl<B: PacketBuf> Neighbours<B> {
    /// Copies of all entries.
    pub(crate) fn copies(&self) -> impl Iterator<Item = NeighbourCopy> + '_ {
        self.slots.iter().copied().map(NeighbourCopy)
    }

    /// Takes in a copy of an entry that this table does not have; one without room is left out. Packets
    /// that wait there are stood in for by those that `wait` makes.
    pub(crate) fn imitate(&mut self, copy: &NeighbourCopy, mut wait: impl FnMut() -> B) {
        let entry = &copy.0;
        let Some(slot) = self.slots.insert(entry.port, entry.ip) else { return };
        self.slots[slot].imitate(entry);
        self.count(slot);
        self.slots.link(slot, entry.list(), entry.since);
        if entry.state != NeighbourState::Incomplete {
            return;
        }
        for _ in 0..entry.queue.len() {
            let queue = &mut self.slots[slot].queue;
            let displaced = self.waiting.push(queue, u16::MAX, wait());
            debug_assert!(displaced.is_none(), "the other table had room for as many");
        }
    }
}
