//! The half-open connections, oldest first: a doubly linked list in nodes of its own.
//!
//! The nodes are as many as half-open connections are allowed, so the bound needs no other counter, and
//! leaving the list is exact and O(1): there are no stale items to skip.

use super::entry::NIL;
use crate::time::Tick;

#[derive(Clone, Copy)]
struct Node {
    slot: u32,
    prev: u32,
    next: u32,
    born: Tick,
}

/// The list and its pool of nodes.
pub(super) struct HalfOpen {
    nodes: Box<[Node]>,
    free: u32,
    oldest: u32,
    youngest: u32,
    len: u32,
}

impl HalfOpen {
    pub(super) fn new(max: u32) -> HalfOpen {
        let node = |i: u32| Node {
            slot: NIL,
            prev: NIL,
            next: if i + 1 < max { i + 1 } else { NIL },
            born: Tick(0),
        };
        HalfOpen {
            nodes: (0..max).map(node).collect(),
            free: if max == 0 { NIL } else { 0 },
            oldest: NIL,
            youngest: NIL,
            len: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len as usize
    }

    pub(super) fn is_full(&self) -> bool {
        self.free == NIL
    }

    /// The oldest one's slot and when it was opened.
    pub(super) fn oldest(&self) -> Option<(u32, Tick)> {
        self.iter().next()
    }

    /// Slots and when their connections were opened, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, Tick)> + '_ {
        let first = self.nodes.get(self.oldest as usize);
        std::iter::successors(first, |node| self.nodes.get(node.next as usize))
            .map(|node| (node.slot, node.born))
    }

    /// When the connection of this node was opened.
    pub(super) fn born(&self, node: u32) -> Tick {
        self.nodes.get(node as usize).map_or(Tick(0), |node| node.born)
    }

    /// Adds the youngest; returns its node, or `None` if there is no room.
    pub(super) fn push(&mut self, slot: u32, born: Tick) -> Option<u32> {
        let id = self.free;
        let node = self.nodes.get_mut(id as usize)?;
        self.free = node.next;
        *node = Node { slot, prev: self.youngest, next: NIL, born };
        match self.nodes.get_mut(self.youngest as usize) {
            Some(youngest) => youngest.next = id,
            None => self.oldest = id,
        }
        self.youngest = id;
        self.len += 1;
        Some(id)
    }

    /// Takes a node out; returns when its connection was opened.
    pub(super) fn remove(&mut self, id: u32) -> Tick {
        let Node { prev, next, born, .. } = self.nodes[id as usize];
        match self.nodes.get_mut(prev as usize) {
            Some(node) => node.next = next,
            None => self.oldest = next,
        }
        match self.nodes.get_mut(next as usize) {
            Some(node) => node.prev = prev,
            None => self.youngest = prev,
        }
        self.nodes[id as usize].next = self.free;
        self.free = id;
        self.len -= 1;
        born
    }

    /// Bytes held.
    pub(super) fn memory_bytes(&self) -> usize {
        core::mem::size_of_val::<[Node]>(&self.nodes)
    }
}
