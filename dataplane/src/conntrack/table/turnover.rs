//! Opening and ending connections.
//!
//! Both need lines of the index and of entries that nothing else has asked for. So both begin by working
//! out which, and ask for all of them before they read the first.

use arrayvec::ArrayVec;

use super::{Account, COLD_OFFLOAD, Cold, Gone, InsertError, Inserted, New, Prepared, Table, late_max_ms};
use crate::conntrack::entry::{NIL, Opening, Slot};
use crate::conntrack::index::Reference;
use crate::conntrack::tcp::State;
use crate::flow::Direction;
use crate::ids::{ServiceId, TenantId};
use crate::limits::HARDWARE_STALE_MS;
use crate::prefetch::prefetch;
use crate::time::Tick;

/// Entries that the hand of the clock offers for eviction at a time.
const SAMPLE: usize = 16;
/// Half-open connections that a full table keeps rather than evict an established one: this fraction of
/// their share.
const HALF_OPEN_FLOOR: u32 = 8;
/// Connections that [`Table::expire`] takes out of the index together.
const EXPIRE_BATCH: usize = 16;

/// Where a connection to go was looked for, so that others are next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Looked {
    Nowhere,
    /// Under the hand that goes round the table.
    Around,
    /// In a tenant's ring.
    Among(TenantId),
}

/// A connection on its way out, and the hashes of its keys.
#[derive(Clone, Copy)]
struct Leaving {
    slot: Slot,
    original: u64,
    reply: Option<u64>,
}

/// Opening.
impl Table {
    /// Opens a connection. Its first packet is not counted: [`Table::account`] does that.
    ///
    /// Whoever has just looked for its key saves work with [`Table::prepare`] and
    /// [`Table::insert_prepared`].
    ///
    /// # Errors
    /// See [`InsertError`]; the table is unchanged then.
    pub fn insert(
        &mut self,
        now: Tick,
        new: &New,
        timeout_of: impl Fn(ServiceId, State) -> u32,
    ) -> Result<Inserted, InsertError> {
        if let Some(error) = self.refuses_newcomers(now, new.key.tenant) {
            return Err(error);
        }
        let prepared = self.prepare(new, self.hash(&new.key));
        // Nobody has looked for it.
        let prepared = Prepared { missed_at: prepared.missed_at.wrapping_sub(1), ..prepared };
        self.insert_prepared(now, new, &prepared, timeout_of)
    }

    /// Why every newcomer of a tenant is refused for now, if so: the half-open share is used up by
    /// connections that are within their grace. Costs next to nothing to ask, so that a flood can be answered
    /// before anything is chosen, hashed or looked for; [`Table::insert`] asks it first.
    #[inline]
    #[must_use]
    pub fn refuses_newcomers(&self, now: Tick, tenant: TenantId) -> Option<InsertError> {
        if let Some(shut) = self.shut.filter(|shut| shut.at_once) {
            return Some(shut.error);
        }
        let Some(account) = self.accounts.get(tenant.index()) else { return Some(InsertError::TenantLimit) };
        let own_is_full = self.half_open.len_of(tenant) >= account.share.half_open;
        if !own_is_full && (!self.half_open.is_full() || self.half_open.richest(tenant) != tenant) {
            return None;
        }
        let (_, born) = self.half_open.oldest(tenant)?;
        (now.since(born) < self.shape.half_open_grace_ms).then_some(InsertError::HalfOpenLimit)
    }

    /// Asks for the lines that opening a connection will need. `hash` is that of its key, for which
    /// [`Table::find`] has just found nothing. A burst prepares all of its newcomers before it opens the
    /// first; preparing is void as soon as anything is wrong with it, so it binds to nothing.
    #[must_use]
    pub fn prepare(&self, new: &New, hash: u64) -> Prepared {
        let reply = new.nat.then(|| self.hash(&new.reply_key()));
        if let Some(reply) = reply {
            self.index.prefetch(reply);
        }
        prefetch(&self.entries[self.vacant() as usize]);
        Prepared { original: hash, reply, missed_at: self.opened }
    }

    /// What was prepared for a key for which [`Table::find`] has found nothing once more, just now.
    #[must_use]
    pub fn confirm(&self, prepared: &Prepared) -> Prepared {
        Prepared { missed_at: self.opened, ..*prepared }
    }

    /// Asks for the lines of the connections that so many newcomers of a tenant will evict, if they will: the
    /// half-open ones that are oldest. To be followed, when those have come, by [`Table::prefetch_leaving`].
    pub fn prefetch_oldest(&self, tenant: TenantId, newcomers: usize) {
        self.oldest_to_leave(tenant, newcomers).for_each(|slot| prefetch(&self.entries[slot.index()]));
    }

    /// Asks for the lines of the index that evicting those will read.
    pub fn prefetch_leaving(&self, tenant: TenantId, newcomers: usize) {
        self.oldest_to_leave(tenant, newcomers).for_each(|slot| _ = self.leaving(slot));
    }

    fn oldest_to_leave(&self, tenant: TenantId, newcomers: usize) -> impl Iterator<Item = Slot> + '_ {
        let full = self.half_open.is_full() || self.len >= self.shape.connections as usize;
        let own_is_full = self.accounts.get(tenant.index()).is_some_and(|account| {
            account.live >= account.share.connections
                || self.half_open.len_of(tenant) >= account.share.half_open
        });
        let whose = if full && !own_is_full { self.half_open.richest(tenant) } else { tenant };
        let leaving = if full || own_is_full { newcomers } else { 0 };
        self.half_open.iter(whose).take(leaving).map(|(slot, _)| Slot(slot))
    }

    /// [`Table::insert`] for a connection that was prepared with the same `new`.
    ///
    /// # Errors
    /// See [`InsertError`]; the table is unchanged then.
    pub fn insert_prepared(
        &mut self,
        now: Tick,
        new: &New,
        prepared: &Prepared,
        timeout_of: impl Fn(ServiceId, State) -> u32,
    ) -> Result<Inserted, InsertError> {
        let tenant = new.key.tenant;
        let (victim, looked) = self.victim(now, tenant);
        match looked {
            Looked::Nowhere => {}
            Looked::Around => self.hand = (self.hand + SAMPLE) % self.entries.len(),
            Looked::Among(whose) => self.rings.advance(whose, SAMPLE),
        }
        let leaving = victim?.map(|slot| self.leaving(slot));
        self.check(new, prepared)?;
        let slot = self.vacant();
        if !self.enter_index(slot, prepared) {
            return Err(InsertError::Full);
        }
        self.take_vacant(slot);
        let evicted = leaving.map(|leaving| self.retire(&leaving));
        let state = State::opening(new.key.protocol, new.flags);
        self.fill(slot, new, state, now);
        let timeout_ms = timeout_of(new.service, state);
        let deadline = now.after_ms(timeout_ms);
        self.wheel.schedule(&mut self.entries, slot, deadline, late_max_ms(timeout_ms));
        Ok(Inserted { slot: Slot(slot), evicted })
    }

    /// Opens a connection in the place of one that has ended, between the same ends. Its name and its
    /// hardware half stay: what the offload engine says of the one holds for the other.
    ///
    /// # Errors
    /// [`InsertError::HalfOpenLimit`] or [`InsertError::Full`]; the table is unchanged then.
    pub fn reopen(&mut self, now: Tick, slot: Slot, timeout_ms: u32) -> Result<Option<Gone>, InsertError> {
        let entry = &self.entries[slot.index()];
        let (was_half_open, node, tenant) = (entry.is_half_open(), entry.born_or_node, entry.tenant());
        let victim = if was_half_open { None } else { self.half_open_victim(now, tenant)? };
        let evicted = victim.and_then(|slot| self.remove(slot));
        if was_half_open {
            self.half_open.remove(node, tenant);
        } else {
            self.rings.unlink(slot.0, tenant);
        }
        let entry = &mut self.entries[slot.index()];
        entry.reopen(now);
        entry.set_half_open(false);
        if let Some(node) = self.half_open.push(slot.0, tenant, now) {
            entry.set_half_open(true);
            entry.born_or_node = node;
        } else {
            self.rings.link(slot.0, tenant);
        }
        self.cold[slot.index()][..COLD_OFFLOAD].fill(0);
        self.wheel.schedule(&mut self.entries, slot.0, now.after_ms(timeout_ms), 0);
        Ok(evicted)
    }

    /// Whether a connection may be opened with these keys.
    fn check(&self, new: &New, prepared: &Prepared) -> Result<(), InsertError> {
        if !new.is_one_family() {
            return Err(InsertError::MixedFamilies);
        }
        if prepared.missed_at != self.opened {
            match self.find(&new.key, prepared.original, Default::default()) {
                Some((slot, Direction::Original)) => return Err(InsertError::Duplicate(slot)),
                Some((_, Direction::Reply)) => return Err(InsertError::ReplyCollision),
                None => {}
            }
        }
        let Some(hash) = prepared.reply else { return Ok(()) };
        let reply = new.reply_key();
        if reply == new.key || self.find(&reply, hash, Default::default()).is_some() {
            return Err(InsertError::ReplyCollision);
        }
        Ok(())
    }

    /// Who has to go for a newcomer, which is half-open as all newcomers are; and whether one was looked for
    /// under the hand, which is to move on then. A tenant at its limits has to make do with its own; where
    /// all have taken up everything, it is the one that holds most that yields.
    fn victim(&self, now: Tick, tenant: TenantId) -> (Result<Option<Slot>, InsertError>, Looked) {
        if let Some(shut) = self.shut {
            return (Err(shut.error), Looked::Nowhere);
        }
        match self.half_open_victim(now, tenant) {
            Ok(None) => {}
            found => return (found, Looked::Nowhere),
        }
        let Account { share, live, .. } = self.accounts[tenant.index()];
        let own_only = live >= share.connections;
        if !own_only && self.len < self.shape.connections as usize {
            return (Ok(None), Looked::Nowhere);
        }
        let (half_open, room, whose) = if own_only {
            let room = share.half_open.min(self.shape.half_open_max);
            (self.half_open.len_of(tenant), room, tenant)
        } else {
            (self.half_open.len() as u32, self.shape.half_open_max, self.weights.richest(tenant))
        };
        let mut looked = Looked::Nowhere;
        if half_open < (room / HALF_OPEN_FLOOR).max(1) {
            let (found, place) = self.established_victim(now, whose, own_only);
            if found.is_some() {
                return (Ok(found), place);
            }
            looked = place;
        }
        let whose = if own_only { tenant } else { self.half_open.richest(tenant) };
        let oldest = self.oldest_half_open(now, whose, whose == tenant);
        let limit = |error| if own_only { InsertError::TenantLimit } else { error };
        (oldest.map(Some).map_err(limit), looked)
    }

    /// Why no newcomer of a tenant would find room, if none would: what [`Table::insert`] would say, and
    /// change nothing.
    pub(super) fn lacks_room(&self, now: Tick, tenant: TenantId) -> Option<InsertError> {
        self.victim(now, tenant).0.err()
    }

    /// Which half-open connection has to go for another one, if any: of the tenant's own where it has as many
    /// as it may, or as any other has; else, of the tenant that has most, whatever their age.
    pub(super) fn half_open_victim(&self, now: Tick, tenant: TenantId) -> Result<Option<Slot>, InsertError> {
        if let Some(shut) = self.shut.filter(|shut| shut.at_once) {
            return Err(shut.error);
        }
        let share = self.accounts.get(tenant.index()).ok_or(InsertError::TenantLimit)?.share;
        if self.half_open.len_of(tenant) >= share.half_open {
            return self.oldest_half_open(now, tenant, true).map(Some);
        }
        if !self.half_open.is_full() {
            return Ok(None);
        }
        let richest = self.half_open.richest(tenant);
        self.oldest_half_open(now, richest, richest == tenant).map(Some)
    }

    /// The half-open connection of a tenant to go first, not within its grace if that counts. Those that
    /// hardware may forward for come last, as far as one looks: they use their client's port again, and a
    /// third one on it would meet the rules of the first.
    fn oldest_half_open(&self, now: Tick, tenant: TenantId, grace: bool) -> Result<Slot, InsertError> {
        let mut oldest = self.half_open.iter(tenant).take(SAMPLE);
        let free = oldest.find(|(slot, _)| !self.entries[*slot as usize].is_pending());
        match free.or(self.half_open.oldest(tenant)) {
            None => Err(InsertError::Full),
            Some((_, born)) if grace && now.since(born) < self.shape.half_open_grace_ms => {
                Err(InsertError::HalfOpenLimit)
            }
            Some((slot, _)) => Ok(Slot(slot)),
        }
    }

    /// An established connection of a tenant to go. Where there are no rings, or it is not in one yet, the
    /// hand goes round the whole table: to any tenant's, unless it has to be this one's.
    fn established_victim(&self, now: Tick, whose: TenantId, own: bool) -> (Option<Slot>, Looked) {
        if self.rings.is_whole() {
            let offered = self.rings.offered(whose, SAMPLE).map(|slot| slot as usize);
            return (self.first_to_go(now, offered), Looked::Among(whose));
        }
        let slots = self.entries.len();
        let under_hand = (0..SAMPLE.min(slots)).map(|step| (self.hand + step) % slots);
        let may_go = |slot: &usize| {
            let entry = &self.entries[*slot];
            entry.is_live() && !entry.is_half_open() && (!own || entry.tenant() == whose)
        };
        (self.first_to_go(now, under_hand.filter(may_go)), Looked::Around)
    }

    /// Of some established connections: one that has ended, else the one silent for longest. One in hardware
    /// counts as heard of now if that is all that can be known. Those that hardware has yet to let go of, or
    /// to answer for, come last: a client that used its port again would meet their rules.
    fn first_to_go(&self, now: Tick, some: impl Iterator<Item = usize>) -> Option<Slot> {
        let victim = some.max_by_key(|&slot| {
            let entry = &self.entries[slot];
            let late = if entry.is_pending() { HARDWARE_STALE_MS } else { 0 };
            let closed = entry.state().is_closed();
            let held = entry.is_pending() && (closed || !entry.is_installed());
            (!held, closed, now.since(entry.last_seen()).saturating_sub(late))
        });
        victim.map(|slot| Slot(slot as u32))
    }

    /// The slot that a newcomer will get. There always is one: the table holds one slot to spare.
    pub(super) fn vacant(&self) -> u32 {
        if self.free == NIL { self.fresh } else { self.free }
    }

    /// Takes it, and asks for the line of the one that will be next.
    pub(super) fn take_vacant(&mut self, slot: u32) {
        if self.free == NIL {
            self.fresh += 1;
        } else {
            self.free = self.entries[slot as usize].next_free();
        }
        self.entries.get(self.vacant() as usize).into_iter().for_each(prefetch);
    }

    pub(super) fn enter_index(&mut self, slot: u32, prepared: &Prepared) -> bool {
        let there = Reference::new(slot, Direction::Original);
        if !self.index.insert(prepared.original, there) {
            return false;
        }
        let Some(reply) = prepared.reply else { return true };
        let entered = self.index.insert(reply, Reference::new(slot, Direction::Reply));
        if !entered {
            self.index.remove(prepared.original, there);
        }
        entered
    }

    fn fill(&mut self, slot: u32, new: &New, state: State, now: Tick) {
        let backend = (new.backend, new.backend_ip, new.backend_port);
        let New { ref key, judged, service, nat: reply_key, .. } = *new;
        let opening = Opening { key, judged, service, backend, reply_key, state };
        let entry = &mut self.entries[slot as usize];
        entry.open(&opening, now);
        if entry.is_v6() {
            let ([c_hi, c_lo], [v_hi, v_lo]) = (new.key.src.words(), new.key.dst.words());
            let [b_hi, b_lo] = new.backend_ip.words();
            self.v6[slot as usize] = [c_hi, c_lo, v_hi, v_lo, b_hi, b_lo];
        }
        if let Some(node) = self.half_open.push(slot, new.key.tenant, now) {
            entry.set_half_open(true);
            entry.born_or_node = node;
        } else {
            self.rings.link(slot, new.key.tenant);
        }
        self.by_offload[0] += 1;
        self.set_live(new.key.tenant, |live| live + 1);
        self.len += 1;
        self.opened = self.opened.wrapping_add(1);
    }
}

/// Ending.
impl Table {
    /// Ends a connection; `None` if the slot holds none.
    pub fn remove(&mut self, slot: Slot) -> Option<Gone> {
        if !self.entries.get(slot.index())?.is_live() {
            return None;
        }
        let leaving = self.leaving(slot);
        Some(self.retire(&leaving))
    }

    /// Looks at connections whose time for it has come, at most `budget` of them, and ends those that
    /// have been silent for their timeout. Returns how many it looked at; at `budget`, there may be more.
    ///
    /// One that hardware may forward for, now or soon, is not ended but named to `on_held`, to be taken back,
    /// and looked at again after [`HARDWARE_STALE_MS`]: a client that comes back meets its entry for as long
    /// as hardware may act on it. It may be silent for that much longer, too, as hardware is heard of late.
    pub fn expire(
        &mut self,
        now: Tick,
        budget: usize,
        timeout_of: impl Fn(ServiceId, State) -> u32,
        mut on_gone: impl FnMut(Gone),
        mut on_held: impl FnMut(Slot),
    ) -> usize {
        if self.rings.is_behind() {
            self.catch_up();
        }
        let mut silent = ArrayVec::<Leaving, EXPIRE_BATCH>::new();
        let mut looked_at = 0;
        while looked_at < budget {
            let Some(slot) = self.wheel.due(now) else { break };
            looked_at += 1;
            self.wheel.unlink(&mut self.entries, slot);
            let entry = &self.entries[slot as usize];
            if !entry.is_live() {
                continue;
            }
            let silence_ms = entry.silence_ms(timeout_of(entry.service(), entry.state()));
            let deadline = entry.last_seen().after_ms(silence_ms);
            if !now.reached(deadline) {
                self.wheel.link(&mut self.entries, slot, deadline);
                continue;
            }
            if entry.is_pending() {
                self.wheel.link(&mut self.entries, slot, now.after_ms(HARDWARE_STALE_MS));
                on_held(Slot(slot));
                continue;
            }
            silent.push(self.leaving(Slot(slot)));
            if silent.is_full() {
                silent.drain(..).for_each(|leaving| on_gone(self.retire(&leaving)));
            }
        }
        silent.drain(..).for_each(|leaving| on_gone(self.retire(&leaving)));
        looked_at
    }

    /// What ending a connection needs; asks for the lines of the index that it will read.
    fn leaving(&self, slot: Slot) -> Leaving {
        let original = self.hash(&self.key(slot, Direction::Original));
        self.index.prefetch(original);
        let reply = self.entries[slot.index()].has_reply_key().then(|| {
            let reply = self.hash(&self.key(slot, Direction::Reply));
            self.index.prefetch(reply);
            reply
        });
        Leaving { slot, original, reply }
    }

    /// Ends a connection. Its slot stays in the wheel if it is there.
    fn retire(&mut self, leaving: &Leaving) -> Gone {
        let &Leaving { slot, original, reply } = leaving;
        let gone = self.obituary(slot);
        let mut removed = self.index.remove(original, Reference::new(slot.0, Direction::Original));
        if let Some(reply) = reply {
            removed &= self.index.remove(reply, Reference::new(slot.0, Direction::Reply));
        }
        debug_assert!(removed, "a live connection is in the index");
        let entry = &self.entries[slot.index()];
        let tenant = entry.tenant();
        if entry.is_half_open() {
            self.half_open.remove(entry.born_or_node, tenant);
        } else {
            self.rings.unlink(slot.0, tenant);
        }
        self.set_live(tenant, |live| live.saturating_sub(1));
        let entry = &mut self.entries[slot.index()];
        if entry.is_cold() {
            self.cold[slot.index()] = Cold::default();
        }
        self.by_offload[entry.offload_kind()] -= 1;
        let half_open = entry.is_half_open();
        entry.close(self.free);
        self.free = slot.0;
        self.len -= 1;
        if self.shut.is_some() {
            self.open_up(half_open);
        }
        gone
    }

    fn obituary(&self, slot: Slot) -> Gone {
        let entry = &self.entries[slot.index()];
        Gone {
            flow: self.flow_ref(slot),
            service: entry.service(),
            backend: entry.backend(),
            state: entry.state(),
            half_open: entry.is_half_open(),
            totals: self.totals(slot),
            offload: self.offload(slot),
        }
    }
}
