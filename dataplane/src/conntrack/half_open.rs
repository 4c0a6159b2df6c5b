//! The half-open connections of each tenant, oldest first: doubly linked lists in nodes of one pool.
//!
//! The nodes are as many as half-open connections are allowed, so the bound needs no other counter, and
//! leaving a list is exact and O(1): there are no stale items to skip.

use super::entry::NIL;
use super::leader::Leader;
use crate::ids::TenantId;
use crate::limits::TENANTS_MAX;
use crate::time::Tick;

#[derive(Clone, Copy)]
struct Node {
    slot: u32,
    prev: u32,
    next: u32,
    born: Tick,
}

/// The ends of a tenant's list.
#[derive(Clone, Copy)]
struct List {
    oldest: u32,
    youngest: u32,
}

/// The lists and their pool of nodes.
pub(super) struct HalfOpen {
    nodes: Box<[Node]>,
    free: u32,
    len: u32,
    lists: Box<[List]>,
    /// How many each has.
    lens: Leader,
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
            len: 0,
            lists: vec![List { oldest: NIL, youngest: NIL }; TENANTS_MAX].into(),
            lens: Leader::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len as usize
    }

    pub(super) fn is_full(&self) -> bool {
        self.free == NIL
    }

    /// How many a tenant has.
    pub(super) fn len_of(&self, tenant: TenantId) -> u32 {
        self.lens.score(tenant) as u32
    }

    /// The tenant that has most of them; `tenant` if none has more.
    pub(super) fn richest(&self, tenant: TenantId) -> TenantId {
        self.lens.richest(tenant)
    }

    /// A tenant's oldest one's slot and when it was opened.
    pub(super) fn oldest(&self, tenant: TenantId) -> Option<(u32, Tick)> {
        self.iter(tenant).next()
    }

    /// Slots and when their connections were opened, oldest first.
    pub(super) fn iter(&self, tenant: TenantId) -> impl Iterator<Item = (u32, Tick)> + '_ {
        let first = self.lists.get(tenant.index()).and_then(|list| self.nodes.get(list.oldest as usize));
        std::iter::successors(first, |node| self.nodes.get(node.next as usize))
            .map(|node| (node.slot, node.born))
    }

    /// When the connection of this node was opened.
    pub(super) fn born(&self, node: u32) -> Tick {
        self.nodes.get(node as usize).map_or(Tick(0), |node| node.born)
    }

    /// Adds a tenant's youngest; returns its node, or `None` if there is no room.
    pub(super) fn push(&mut self, slot: u32, tenant: TenantId, born: Tick) -> Option<u32> {
        let id = self.free;
        let list = self.lists.get_mut(tenant.index())?;
        let node = self.nodes.get_mut(id as usize)?;
        self.free = node.next;
        *node = Node { slot, prev: list.youngest, next: NIL, born };
        match self.nodes.get_mut(list.youngest as usize) {
            Some(youngest) => youngest.next = id,
            None => list.oldest = id,
        }
        list.youngest = id;
        self.len += 1;
        self.lens.set(tenant, self.lens.score(tenant) + 1);
        Some(id)
    }

    /// Takes a node out of its tenant's list; returns when its connection was opened.
    pub(super) fn remove(&mut self, id: u32, tenant: TenantId) -> Tick {
        let Node { prev, next, born, .. } = self.nodes[id as usize];
        let list = &mut self.lists[tenant.index()];
        match self.nodes.get_mut(prev as usize) {
            Some(node) => node.next = next,
            None => list.oldest = next,
        }
        match self.nodes.get_mut(next as usize) {
            Some(node) => node.prev = prev,
            None => list.youngest = prev,
        }
        self.nodes[id as usize].next = self.free;
        self.free = id;
        self.len -= 1;
        self.lens.set(tenant, self.lens.score(tenant).saturating_sub(1));
        born
    }

    /// Bytes held.
    pub(super) fn memory_bytes(&self) -> usize {
        core::mem::size_of_val::<[Node]>(&self.nodes)
    }
}
