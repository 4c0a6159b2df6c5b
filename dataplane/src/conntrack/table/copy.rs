//! Copies of connections, for a table that stands in for another.

use super::{Cold, InsertError, Prepared, Slot, Table, V6};
use crate::addr::Ip;
use crate::conntrack::entry::Entry;
use crate::flow::Direction;
use crate::ids::TenantId;
use crate::offload::FlowRef;
use crate::time::Tick;

/// All that a table knows of one connection.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionCopy {
    /// Its name there.
    pub(crate) flow: FlowRef,
    entry: Entry,
    born: Tick,
    v6: V6,
    cold: Cold,
}

/// A table that takes no newcomers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Shut {
    pub(super) error: InsertError,
    /// Whether [`Table::refuses_newcomers`] says so, or only whoever tries hears of it.
    pub(super) at_once: bool,
    /// Whether it takes the end of a half-open connection to make room, not that of any.
    pub(super) half_open: bool,
}

impl Table {
    /// Copies connections of these clients into `copies`, up to its capacity, until `slots` slots were
    /// looked at. `cursor` is as for [`Table::dump`].
    pub(crate) fn copy_clients(
        &self,
        tenant: TenantId,
        clients: &[Ip],
        cursor: &mut Option<u32>,
        slots: usize,
        copies: &mut Vec<ConnectionCopy>,
    ) {
        let Some(start) = *cursor else { return };
        let end = (start as usize).saturating_add(slots).min(self.fresh as usize);
        for number in start..end as u32 {
            let (slot, entry) = (Slot(number), &self.entries[number as usize]);
            let is_wanted = || clients.contains(&self.ends(slot).client.0);
            let wanted = entry.is_live() && entry.tenant() == tenant && is_wanted();
            if wanted && copies.len() < copies.capacity() {
                copies.push(self.copy(slot));
            }
        }
        *cursor = (end < self.fresh as usize).then_some(end as u32);
    }

    fn copy(&self, slot: Slot) -> ConnectionCopy {
        let at = slot.index();
        ConnectionCopy {
            flow: self.flow_ref(slot),
            entry: self.entries[at].clone(),
            born: self.born(slot),
            v6: self.v6[at],
            cold: self.cold[at],
        }
    }

    /// Takes in a copy of another table's connection; `None` without room. It does not age here.
    pub(crate) fn imitate(&mut self, copy: &ConnectionCopy) -> Option<Slot> {
        if self.len >= self.shape.connections as usize {
            return None;
        }
        let (number, slot) = (self.vacant(), Slot(self.vacant()));
        self.take_vacant(number);
        let entry = &mut self.entries[slot.index()];
        entry.imitate(&copy.entry);
        entry.born_or_node = copy.born.0;
        if entry.is_half_open() {
            let node = self.half_open.push(number, entry.tenant(), copy.born);
            entry.set_half_open(node.is_some());
            entry.born_or_node = node.unwrap_or(copy.born.0);
        }
        let (kind, replies, tenant) = (entry.offload_kind(), entry.has_reply_key(), entry.tenant());
        if !entry.is_half_open() {
            self.rings.link(number, tenant);
        }
        self.set_live(tenant, |live| live + 1);
        (self.v6[slot.index()], self.cold[slot.index()]) = (copy.v6, copy.cold);
        self.by_offload[kind] += 1;
        self.len += 1;
        self.opened = self.opened.wrapping_add(1);
        let hash = |direction| self.hash(&self.key(slot, direction));
        let original = hash(Direction::Original);
        let reply = replies.then(|| hash(Direction::Reply));
        let entered = self.enter_index(number, &Prepared { original, reply, missed_at: 0 });
        debug_assert!(entered, "there is room for twice as many");
        Some(slot)
    }

    /// Whether the table takes newcomers of a tenant, in words that another one can be given.
    pub(crate) fn shut(&self, now: Tick, tenant: TenantId) -> Option<Shut> {
        let half_open = self.half_open_victim(now, tenant).is_err();
        let shut = |error, at_once| Shut { error, at_once, half_open };
        let refused = self.refuses_newcomers(now, tenant).map(|error| shut(error, true));
        refused.or_else(|| self.lacks_room(now, tenant).map(|error| shut(error, false)))
    }

    /// Makes the table refuse newcomers as another one does.
    pub(crate) fn set_shut(&mut self, shut: Shut) {
        self.shut = Some(shut);
    }

    /// A connection has ended, which makes room where there was none.
    #[cold]
    pub(super) fn open_up(&mut self, half_open: bool) {
        self.shut = self.shut.filter(|shut| shut.half_open && !half_open);
    }
}
