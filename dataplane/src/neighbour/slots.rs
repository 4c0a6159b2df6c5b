//! The entries: fixed slots, an index by address, and the lists that order them by deadline.

use super::NeighbourState;
use super::queue::Queue;
use crate::addr::{Ip, MacAddr};
use crate::flow::FlowHasher;
use crate::ids::PortId;
use crate::time::Tick;
use core::ops::{Index, IndexMut};

/// Neighbours that are found again without a search.
const RECENT: usize = 256;
/// No slot.
const NONE: u32 = u32::MAX;

/// Every slot is on exactly one of these, in the order it was put there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum List {
    /// Free slots, reused oldest first.
    Free,
    /// A question is to be sent now.
    Due,
    /// A question was sent.
    Retry,
    /// `Delay`.
    Delay,
    /// `Reachable`.
    Refresh,
    /// `Stale`.
    Stale,
    /// `Failed`, brought about by traffic.
    Failed,
    /// `Failed`, named by the configuration.
    FailedConfigured,
    /// `Static`: waits for nothing.
    Static,
}

impl List {
    pub(super) const COUNT: usize = 9;
}

/// One neighbour; a cache line.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) struct Entry {
    pub(super) ip: Ip,
    pub(super) port: PortId,
    pub(super) mac: MacAddr,
    /// When it was put on its list.
    pub(super) since: Tick,
    pub(super) queue: Queue,
    /// Moves on when the slot is freed.
    pub(super) generation: u16,
    pub(super) state: NeighbourState,
    list: List,
    /// Questions sent since the last answer, of the current kind.
    pub(super) attempts: u8,
    /// Times in a row it was given up.
    pub(super) failures: u8,
    /// Used since it was last confirmed.
    pub(super) touched: bool,
    /// Named by the configuration, not brought about by traffic.
    pub(super) configured: bool,
    /// Neighbours on the list.
    previous: u32,
    next: u32,
    /// The next slot of the same hash.
    chain: u32,
}

const _: () = assert!(core::mem::size_of::<Entry>() == 64);

impl Entry {
    const FREE: Entry = Entry {
        ip: Ip::v4(0),
        port: PortId(0),
        mac: MacAddr([0; 6]),
        since: Tick(0),
        queue: Queue::EMPTY,
        generation: 0,
        state: NeighbourState::Free,
        list: List::Free,
        attempts: 0,
        failures: 0,
        touched: false,
        configured: false,
        previous: NONE,
        next: NONE,
        chain: NONE,
    };

    pub(super) fn list(&self) -> List {
        self.list
    }

    /// Takes the likeness of another table's entry. Its name, and its places on lists, stay its own.
    pub(super) fn imitate(&mut self, other: &Entry) {
        let &mut Entry { generation, list, previous, next, chain, .. } = self;
        *self = Entry { queue: Queue::EMPTY, generation, list, previous, next, chain, ..*other };
    }

    /// What it adds to the counts of resolved and of confined unresolved entries.
    pub(super) fn weight(&self) -> (usize, usize) {
        let unresolved = matches!(self.state, NeighbourState::Incomplete | NeighbourState::Failed);
        (usize::from(self.state.has_mac()), usize::from(unresolved && !self.configured))
    }
}

#[derive(Clone, Copy)]
struct Ends {
    first: u32,
    last: u32,
}

/// Slots, found by address, ordered by lists. Slot numbers it hands out are always in range.
pub(super) struct Slots {
    entries: Box<[Entry]>,
    /// First slot of each hash; a power of two of them.
    buckets: Box<[u32]>,
    lists: [Ends; List::COUNT],
    hasher: FlowHasher,
    /// Where addresses were found the last time, by [`recent`]. Only a hint, as slots change hands.
    recent: Box<[u32; RECENT]>,
    len: usize,
}

impl Index<u32> for Slots {
    type Output = Entry;

    #[inline]
    fn index(&self, slot: u32) -> &Entry {
        &self.entries[slot as usize]
    }
}

impl IndexMut<u32> for Slots {
    #[inline]
    fn index_mut(&mut self, slot: u32) -> &mut Entry {
        &mut self.entries[slot as usize]
    }
}

impl Slots {
    pub(super) fn new(capacity: usize, hasher: FlowHasher) -> Slots {
        let mut slots = Slots {
            entries: vec![Entry::FREE; capacity].into(),
            buckets: vec![NONE; (capacity * 2).next_power_of_two()].into(),
            lists: [Ends { first: NONE, last: NONE }; List::COUNT],
            hasher,
            recent: Box::new([NONE; RECENT]),
            len: 0,
        };
        for slot in 0..capacity as u32 {
            slots.append(slot, List::Free);
        }
        slots
    }

    pub(super) fn capacity(&self) -> u32 {
        self.entries.len() as u32
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_full(&self) -> bool {
        self.len == self.entries.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.state != NeighbourState::Free)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut Entry> {
        self.entries.get_mut(slot as usize)
    }

    #[inline]
    pub(super) fn find(&self, port: PortId, ip: Ip) -> Option<u32> {
        let mut slot = self.buckets[self.bucket(port, ip)];
        while let Some(entry) = self.entries.get(slot as usize) {
            if entry.ip == ip && entry.port == port {
                return Some(slot);
            }
            slot = entry.chain;
        }
        None
    }

    /// As [`Slots::find`], for addresses that are looked up again and again: those of
    /// [`Slots::note_recent`]. `None` says nothing.
    #[inline(always)] // As every packet comes here.
    pub(super) fn recent(&mut self, port: PortId, ip: Ip) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(self.recent[recent(port, ip)] as usize)?;
        (entry.ip == ip && entry.port == port).then_some(entry)
    }

    pub(super) fn note_recent(&mut self, slot: u32) {
        let Entry { port, ip, .. } = self[slot];
        self.recent[recent(port, ip)] = slot;
    }

    /// Takes the slot that has been free for longest; `None` if there is none. It stays on the free list
    /// until the caller links it elsewhere, which it does at once.
    pub(super) fn insert(&mut self, port: PortId, ip: Ip) -> Option<u32> {
        let slot = self.first(List::Free)?;
        let bucket = self.bucket(port, ip);
        let chain = core::mem::replace(&mut self.buckets[bucket], slot);
        let entry = &mut self[slot];
        *entry = Entry {
            ip,
            port,
            chain,
            generation: entry.generation,
            previous: entry.previous,
            next: entry.next,
            ..Entry::FREE
        };
        self.len += 1;
        Some(slot)
    }

    /// Frees a slot.
    pub(super) fn remove(&mut self, slot: u32) {
        let Entry { port, ip, chain, .. } = self[slot];
        let bucket = self.bucket(port, ip);
        let mut before = self.buckets[bucket];
        if before == slot {
            self.buckets[bucket] = chain;
        } else {
            while self[before].chain != slot {
                before = self[before].chain;
            }
            self[before].chain = chain;
        }
        let entry = &mut self[slot];
        entry.state = NeighbourState::Free;
        entry.generation = entry.generation.wrapping_add(1);
        self.len -= 1;
        self.link(slot, List::Free, Tick(0));
    }

    /// The slot that has been on a list for longest.
    #[inline]
    pub(super) fn first(&self, list: List) -> Option<u32> {
        let first = self.lists[list as usize].first;
        (first != NONE).then_some(first)
    }

    /// The slot that follows on the same list.
    pub(super) fn after(&self, slot: u32) -> Option<u32> {
        let next = self[slot].next;
        (next != NONE).then_some(next)
    }

    /// Moves a slot from its list to the end of another (or of the same).
    pub(super) fn link(&mut self, slot: u32, list: List, since: Tick) {
        let Entry { list: from, previous, next, .. } = self[slot];
        match previous {
            NONE => self.lists[from as usize].first = next,
            _ => self[previous].next = next,
        }
        match next {
            NONE => self.lists[from as usize].last = previous,
            _ => self[next].previous = previous,
        }
        self[slot].since = since;
        self.append(slot, list);
    }

    fn append(&mut self, slot: u32, list: List) {
        let last = core::mem::replace(&mut self.lists[list as usize].last, slot);
        match last {
            NONE => self.lists[list as usize].first = slot,
            _ => self[last].next = slot,
        }
        let entry = &mut self[slot];
        (entry.list, entry.previous, entry.next) = (list, last, NONE);
    }

    #[inline]
    fn bucket(&self, port: PortId, ip: Ip) -> usize {
        let hash = self.hasher.ip(ip).wrapping_add(u64::from(port.0).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        (hash >> 32) as usize & (self.buckets.len() - 1)
    }
}

/// A place in [`Slots::recent`]. Whoever chooses addresses so that they collide makes them be searched for.
#[inline(always)]
fn recent(port: PortId, ip: Ip) -> usize {
    let low = ip.low32() ^ u32::from(port.0) << 16;
    (low.wrapping_mul(0x9e37_79b1) >> (u32::BITS - RECENT.ilog2())) as usize
}

#[cfg(test)]
impl Slots {
    /// Every slot is on exactly one list, the one it believes to be on, and links agree both ways.
    pub(super) fn check_lists(&self) {
        let mut seen = 0;
        for (list, ends) in self.lists.iter().enumerate() {
            let (mut previous, mut slot) = (NONE, ends.first);
            while slot != NONE {
                let entry = &self[slot];
                assert_eq!((entry.list as usize, entry.previous), (list, previous));
                (previous, slot) = (slot, entry.next);
                seen += 1;
            }
            assert_eq!(ends.last, previous);
        }
        assert_eq!(seen, self.entries.len());
    }
}
