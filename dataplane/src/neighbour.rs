//! Who has the next hop: one table per worker, for ARP (RFC 826) and neighbour discovery (RFC 4861) alike.
//!
//! What lives here is the state machine, the packets that wait for an answer, and the bounds of both.
//! Building and parsing messages does not: the caller turns [`Action::Solicit`] into an ARP request or a
//! neighbour solicitation, and what it hears into a [`NeighbourUpdate`].
//!
//! Rules the table keeps:
//!
//! * An entry in use keeps its MAC while it is being probed, so refreshing never interrupts traffic.
//! * Only somebody who asks for us, or an answer to our own question, creates or completes an entry;
//!   gratuitous ARP and unsolicited advertisements update entries that exist already.
//! * A scan of an on-link prefix is confined to [`NeighbourLimits::unresolved_max`] entries and evicts
//!   nothing that is resolved (RFC 6583 §7). Next hops named by the configuration do not compete with it.
//! * Every packet that waits comes out exactly once: released, displaced, expired or drained.
//!
//! Every entry sits on exactly one list, whose members all wait equally long; each list is therefore
//! sorted by deadline, and [`Neighbours::tick`] looks at their heads only.

mod copy;
mod queue;
mod slots;
#[cfg(test)]
mod tests;
mod types;

use crate::addr::{Ip, MacAddr};
use crate::drops::DropReason;
use crate::flow::FlowHasher;
use crate::ids::PortId;
use crate::packet::PacketBuf;
use crate::snapshot::StaticNeighbour;
use crate::time::Tick;
pub(crate) use copy::NeighbourCopy;
use queue::WaitingRoom;
use slots::{List, Slots};
use types::BACK_OFF_MAX;
pub use types::{
    Action, Hold, LearnOutcome, NeighbourId, NeighbourLimits, NeighbourState, NeighbourUpdate, NeighbourView,
};

/// How long a stale entry that is used again waits for other evidence before it is probed
/// (`DELAY_FIRST_PROBE_TIME`, RFC 4861 §10).
const DELAY_FIRST_PROBE_MS: u32 = 5_000;

/// Why an entry is wanted, which decides what may be evicted for it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// A packet is to go there: anybody can cause this for any on-link address.
    Traffic,
    /// It spoke to us.
    Heard,
    /// The configuration names it.
    Configured,
}

/// The neighbours of one worker and the packets that wait for them.
pub struct Neighbours<B: PacketBuf> {
    slots: Slots,
    waiting: WaitingRoom<B>,
    limits: NeighbourLimits,
    /// How long a member of each list waits, by `List`.
    waits_ms: [u32; List::COUNT],
    /// Entries without MAC that are not configured; bounded by `unresolved_max` when one is made.
    unresolved: usize,
    /// Entries with a MAC, static ones included.
    resolved: usize,
}

impl<B: PacketBuf> Neighbours<B> {
    /// An empty table. Values of `limits` out of range are moved into it. The only allocation.
    #[must_use]
    pub fn new(limits: &NeighbourLimits, seed: FlowHasher) -> Neighbours<B> {
        let limits = limits.clamped();
        let mut waits_ms = [0; List::COUNT];
        waits_ms[List::Retry as usize] = limits.retry_ms;
        waits_ms[List::Delay as usize] = DELAY_FIRST_PROBE_MS;
        waits_ms[List::Refresh as usize] = limits.refresh_ms();
        waits_ms[List::Stale as usize] = limits.stale_max_ms;
        // Kept once more as long as the longest hold, so that back-off has a memory.
        let failed_ms = limits.hold_ms(BACK_OFF_MAX + 1) * 2;
        waits_ms[List::Failed as usize] = failed_ms;
        waits_ms[List::FailedConfigured as usize] = failed_ms;
        Neighbours {
            slots: Slots::new(limits.neighbours_max, seed),
            waiting: WaitingRoom::new(limits.queue_total),
            limits,
            waits_ms,
            unresolved: 0,
            resolved: 0,
        }
    }

    /// The name of a neighbour that the configuration calls for (a gateway, an on-link backend), which
    /// is asked for at the next [`Neighbours::tick`] if it is new. For addresses that packets choose use
    /// [`Neighbours::find`] and [`Neighbours::hold`]: those are confined.
    ///
    /// # Errors
    /// [`DropReason::NeighbourTableFull`] if every entry is in use.
    pub fn id_of(&mut self, now: Tick, port: PortId, ip: Ip) -> Result<NeighbourId, DropReason> {
        let slot = match self.slots.find(port, ip) {
            Some(slot) => slot,
            None => self.ask_for(now, port, ip, Origin::Configured)?,
        };
        if !self.slots[slot].configured {
            self.uncount(slot);
            self.slots[slot].configured = true;
            self.count(slot);
            if self.slots[slot].state == NeighbourState::Failed {
                let since = self.slots[slot].since;
                self.slots.link(slot, List::FailedConfigured, since);
            }
        }
        Ok(NeighbourId::new(slot, self.slots[slot].generation))
    }

    /// The neighbour's MAC; `None` if it is not known now or `id` is out of date. Counts as use.
    #[inline]
    pub fn mac(&mut self, id: NeighbourId, now: Tick) -> Option<MacAddr> {
        let entry = self.slots.get_mut(id.slot())?;
        if entry.generation != id.generation() || !entry.state.has_mac() {
            return None;
        }
        Some(self.use_entry(id.slot(), now))
    }

    /// As [`Neighbours::mac`], by address. Never makes an entry.
    #[inline(always)] // As every packet comes here.
    pub fn find(&mut self, now: Tick, port: PortId, ip: Ip) -> Option<MacAddr> {
        match self.slots.recent(port, ip) {
            // Nearly always; a stale one starts to be asked for by its use.
            Some(entry) if entry.state.has_mac() && entry.state != NeighbourState::Stale => {
                entry.touched = true;
                Some(entry.mac)
            }
            _ => self.search(now, port, ip),
        }
    }

    #[inline(never)]
    fn search(&mut self, now: Tick, port: PortId, ip: Ip) -> Option<MacAddr> {
        let slot = self.slots.find(port, ip)?;
        self.slots.note_recent(slot);
        if !self.slots[slot].state.has_mac() {
            return None;
        }
        Some(self.use_entry(slot, now))
    }

    /// Whether packets for a neighbour may go on to this MAC without us: it is the neighbour's, or was until
    /// the neighbour was asked again, which it has yet to answer or fail to. Counts as use.
    pub fn is_at(&mut self, now: Tick, port: PortId, ip: Ip, mac: MacAddr) -> bool {
        let Some(slot) = self.slots.find(port, ip) else { return false };
        match self.slots[slot].state {
            NeighbourState::Incomplete => self.slots[slot].mac == mac,
            state => state.has_mac() && self.use_entry(slot, now) == mac,
        }
    }

    /// Keeps a packet, complete except for its destination MAC, until the neighbour answers. The first
    /// one makes the neighbour be asked for at the next [`Neighbours::tick`].
    pub fn hold(&mut self, now: Tick, port: PortId, ip: Ip, packet: B) -> Hold<B> {
        let slot = match self.slots.find(port, ip) {
            Some(slot) => slot,
            None => match self.ask_for(now, port, ip, Origin::Traffic) {
                Ok(slot) => slot,
                Err(reason) => return Hold::Drop(packet, reason),
            },
        };
        let entry = &mut self.slots[slot];
        if entry.state.has_mac() {
            let mac = self.use_entry(slot, now);
            return Hold::Send(packet, mac);
        }
        if entry.state == NeighbourState::Failed {
            if !now.reached(entry.since.after_ms(self.limits.hold_ms(entry.failures))) {
                return Hold::Drop(packet, DropReason::NeighbourUnreachable);
            }
            self.enter(slot, NeighbourState::Incomplete, List::Due, now);
        }
        let queue = &mut self.slots[slot].queue;
        match self.waiting.push(queue, self.limits.queue_per_neighbour, packet) {
            None => Hold::Held,
            Some(displaced) => Hold::Drop(displaced, DropReason::NeighbourQueueFull),
        }
    }

    /// Takes in what was heard (RFC 4861 §7.2.3 and §7.2.5; ARP likewise). `create` makes an entry if
    /// there is none; see [`NeighbourUpdate`] for when. Packets that waited come out through `released`,
    /// in the order they came in.
    pub fn learn(
        &mut self,
        now: Tick,
        update: &NeighbourUpdate,
        create: bool,
        released: impl FnMut(B, MacAddr),
    ) -> LearnOutcome {
        if update.mac.is_multicast() || update.mac == MacAddr::default() {
            return LearnOutcome::Refused;
        }
        let Some(slot) = self.slots.find(update.port, update.ip) else {
            return if create { self.meet(now, update) } else { LearnOutcome::Unknown };
        };
        let entry = &self.slots[slot];
        let same = entry.mac == update.mac;
        match entry.state {
            NeighbourState::Static | NeighbourState::Free => LearnOutcome::Refused,
            NeighbourState::Incomplete | NeighbourState::Failed => {
                self.trim_resolved();
                self.settle(slot, update, now);
                self.release(slot, released);
                LearnOutcome::Resolved
            }
            _ if !same && !update.overrides => {
                // Somebody else claims the address too: keep ours, but do not trust it for longer.
                if entry.state == NeighbourState::Reachable {
                    self.enter(slot, NeighbourState::Stale, List::Stale, now);
                }
                LearnOutcome::Unchanged
            }
            _ if same && !update.solicited => LearnOutcome::Unchanged,
            _ => {
                self.settle(slot, update, now);
                if same { LearnOutcome::Confirmed } else { LearnOutcome::Moved }
            }
        }
    }

    /// Does what is due, at most `budget` entries. Call it often: new questions are asked here.
    pub fn tick(&mut self, now: Tick, budget: usize, mut action: impl FnMut(Action<B>)) {
        for _ in 0..budget {
            let Some((list, slot)) = self.next_due(now) else { return };
            match list {
                List::Due | List::Retry => self.solicit(slot, now, &mut action),
                List::Delay => self.start_probing(slot, now),
                List::Refresh if self.slots[slot].touched => self.start_probing(slot, now),
                List::Refresh => self.enter(slot, NeighbourState::Stale, List::Stale, now),
                List::Stale | List::Failed | List::FailedConfigured => self.forget(slot),
                List::Free | List::Static => return,
            }
        }
    }

    /// Sets a static entry; an entry learned before becomes static, and packets that wait for it are
    /// released.
    ///
    /// # Errors
    /// [`DropReason::NeighbourTableFull`] if every entry is in use.
    pub fn add_static(
        &mut self,
        now: Tick,
        port: PortId,
        ip: Ip,
        mac: MacAddr,
        released: impl FnMut(B, MacAddr),
    ) -> Result<(), DropReason> {
        let slot = match self.slots.find(port, ip) {
            Some(slot) => slot,
            None => self.make(port, ip, Origin::Configured)?,
        };
        self.slots[slot].mac = mac;
        self.enter(slot, NeighbourState::Static, List::Static, now);
        self.release(slot, released);
        Ok(())
    }

    /// Removes a static entry; the address is asked for when it is next needed. Whether there was one.
    pub fn remove_static(&mut self, port: PortId, ip: Ip) -> bool {
        match self.slots.find(port, ip) {
            Some(slot) if self.slots[slot].state == NeighbourState::Static => {
                self.forget(slot);
                true
            }
            _ => false,
        }
    }

    /// Makes the static entries those of a new configuration: sets these, removes all others. Returns how
    /// many found no room; these are asked for like other neighbours.
    pub fn set_statics(
        &mut self,
        now: Tick,
        wanted: &[StaticNeighbour],
        mut released: impl FnMut(PortId, B, MacAddr),
    ) -> usize {
        let mut following = self.slots.first(List::Static);
        while let Some(slot) = following {
            following = self.slots.after(slot);
            let entry = &self.slots[slot];
            if !wanted.iter().any(|one| one.port == entry.port && one.address == entry.ip) {
                self.forget(slot);
            }
        }
        let mut add = |one: &StaticNeighbour| {
            let released = |packet, mac| released(one.port, packet, mac);
            self.add_static(now, one.port, one.address, one.mac, released)
        };
        wanted.iter().filter(|one| add(one).is_err()).count()
    }

    /// Forgets all neighbours on a port, static ones included; packets that wait come out through
    /// `dropped`.
    pub fn forget_port(&mut self, port: PortId, mut dropped: impl FnMut(B)) {
        for slot in 0..self.slots.capacity() {
            let entry = &mut self.slots[slot];
            if entry.state != NeighbourState::Free && entry.port == port {
                while let Some(packet) = self.waiting.pop(&mut entry.queue) {
                    dropped(packet);
                }
                self.forget(slot);
            }
        }
    }

    /// Takes out every packet that waits, at shutdown. Entries stay.
    pub fn drain(&mut self, mut dropped: impl FnMut(B)) {
        for slot in 0..self.slots.capacity() {
            while let Some(packet) = self.waiting.pop(&mut self.slots[slot].queue) {
                dropped(packet);
            }
        }
    }

    /// Packets that wait now.
    #[must_use]
    pub fn held(&self) -> usize {
        self.waiting.len()
    }

    /// Entries, static ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All entries, for `show neighbours`.
    pub fn iter(&self) -> impl Iterator<Item = NeighbourView> + '_ {
        self.slots.iter().map(|entry| NeighbourView {
            port: entry.port,
            ip: entry.ip,
            mac: entry.state.has_mac().then_some(entry.mac),
            state: entry.state,
            held: entry.queue.len(),
        })
    }
}

/// Transitions.
impl<B: PacketBuf> Neighbours<B> {
    /// Marks an entry that has a MAC as used, and returns it.
    #[inline]
    fn use_entry(&mut self, slot: u32, now: Tick) -> MacAddr {
        let entry = &mut self.slots[slot];
        entry.touched = true;
        let mac = entry.mac;
        if entry.state == NeighbourState::Stale {
            self.enter(slot, NeighbourState::Delay, List::Delay, now);
        }
        mac
    }

    /// A new entry that is asked for at the next tick.
    fn ask_for(&mut self, now: Tick, port: PortId, ip: Ip, origin: Origin) -> Result<u32, DropReason> {
        let slot = self.make(port, ip, origin)?;
        self.enter(slot, NeighbourState::Incomplete, List::Due, now);
        Ok(slot)
    }

    /// A new entry for somebody who spoke to us.
    fn meet(&mut self, now: Tick, update: &NeighbourUpdate) -> LearnOutcome {
        match self.make(update.port, update.ip, Origin::Heard) {
            Ok(slot) => {
                self.settle(slot, update, now);
                LearnOutcome::Created
            }
            Err(_) => LearnOutcome::Refused,
        }
    }

    /// Takes the update's MAC as the entry's.
    fn settle(&mut self, slot: u32, update: &NeighbourUpdate, now: Tick) {
        let entry = &mut self.slots[slot];
        let unused = !entry.touched && entry.queue.len() == 0;
        (entry.mac, entry.attempts, entry.failures, entry.touched) = (update.mac, 0, 0, false);
        match (update.solicited, unused) {
            (true, _) => self.enter(slot, NeighbourState::Reachable, List::Refresh, now),
            (false, true) => self.enter(slot, NeighbourState::Stale, List::Stale, now),
            (false, false) => self.enter(slot, NeighbourState::Delay, List::Delay, now),
        }
    }

    /// Sends the next question of an entry that has one open, or gives up.
    fn solicit(&mut self, slot: u32, now: Tick, action: &mut impl FnMut(Action<B>)) {
        let entry = &mut self.slots[slot];
        let probing = entry.state == NeighbourState::Probe;
        if entry.attempts < self.limits.retries {
            entry.attempts += 1;
            let unicast_to = probing.then_some(entry.mac);
            action(Action::Solicit { port: entry.port, ip: entry.ip, unicast_to });
            self.slots.link(slot, List::Retry, now);
        } else if probing {
            // It may have moved to another MAC without saying so: ask everybody.
            entry.attempts = 0;
            self.enter(slot, NeighbourState::Incomplete, List::Due, now);
        } else {
            self.give_up(slot, now, action);
        }
    }

    fn give_up(&mut self, slot: u32, now: Tick, action: &mut impl FnMut(Action<B>)) {
        let entry = &mut self.slots[slot];
        entry.attempts = 0;
        entry.failures = entry.failures.saturating_add(1).min(BACK_OFF_MAX + 1);
        while let Some(packet) = self.waiting.pop(&mut entry.queue) {
            action(Action::Expired(packet));
        }
        let list = if entry.configured { List::FailedConfigured } else { List::Failed };
        self.enter(slot, NeighbourState::Failed, list, now);
    }

    fn start_probing(&mut self, slot: u32, now: Tick) {
        self.slots[slot].attempts = 0;
        self.enter(slot, NeighbourState::Probe, List::Due, now);
    }

    fn release(&mut self, slot: u32, mut released: impl FnMut(B, MacAddr)) {
        let entry = &mut self.slots[slot];
        while let Some(packet) = self.waiting.pop(&mut entry.queue) {
            entry.touched = true;
            released(packet, entry.mac);
        }
    }

    /// Every change of state goes through here, so that the counts and the lists agree with it.
    fn enter(&mut self, slot: u32, state: NeighbourState, list: List, now: Tick) {
        self.uncount(slot);
        self.slots[slot].state = state;
        self.count(slot);
        self.slots.link(slot, list, now);
    }

    fn uncount(&mut self, slot: u32) {
        let (resolved, unresolved) = self.slots[slot].weight();
        self.resolved -= resolved;
        self.unresolved -= unresolved;
    }

    fn count(&mut self, slot: u32) {
        let (resolved, unresolved) = self.slots[slot].weight();
        self.resolved += resolved;
        self.unresolved += unresolved;
    }

    /// The first entry whose time has come, most urgent list first.
    fn next_due(&self, now: Tick) -> Option<(List, u32)> {
        const ORDER: [List; 7] = [
            List::Due,
            List::Retry,
            List::Delay,
            List::Refresh,
            List::Failed,
            List::FailedConfigured,
            List::Stale,
        ];
        ORDER.into_iter().find_map(|list| {
            let slot = self.slots.first(list)?;
            let deadline = self.slots[slot].since.after_ms(self.waits_ms[list as usize]);
            now.reached(deadline).then_some((list, slot))
        })
    }
}

/// Room.
impl<B: PacketBuf> Neighbours<B> {
    /// Takes a slot for a new entry, evicting what may be evicted for its sake. Its state is still
    /// `Free`: the caller enters it into another.
    fn make(&mut self, port: PortId, ip: Ip, origin: Origin) -> Result<u32, DropReason> {
        let confined = origin == Origin::Traffic && self.unresolved >= self.limits.unresolved_max;
        if confined || self.slots.is_full() {
            let victim = self.victim_for(origin).ok_or(DropReason::NeighbourTableFull)?;
            self.forget(victim);
        } else if origin == Origin::Heard {
            self.trim_resolved();
        }
        self.slots.insert(port, ip).ok_or(DropReason::NeighbourTableFull)
    }

    /// The entry that has been without an answer for longest, else the one unused for longest. Neither
    /// has packets waiting; entries in use are on other lists and never evicted.
    fn victim_for(&self, origin: Origin) -> Option<u32> {
        let failed = self.slots.first(List::Failed);
        match origin {
            Origin::Traffic => failed,
            Origin::Heard => failed.or_else(|| self.slots.first(List::Stale)),
            Origin::Configured => failed
                .or_else(|| self.slots.first(List::Stale))
                .or_else(|| self.slots.first(List::FailedConfigured)),
        }
    }

    /// Before one more entry is resolved: keeps the share that is reserved for unresolved entries free of
    /// unused resolved ones, so that a table full of yesterday's clients can still resolve a new one.
    fn trim_resolved(&mut self) {
        if self.resolved + self.limits.unresolved_max >= self.slots.capacity() as usize {
            if let Some(slot) = self.slots.first(List::Stale) {
                self.forget(slot);
            }
        }
    }

    /// Frees a slot. Its queue is empty: `Failed`, `Stale` and `Static` entries have none.
    fn forget(&mut self, slot: u32) {
        debug_assert_eq!(self.slots[slot].queue.len(), 0);
        self.uncount(slot);
        self.slots.remove(slot);
    }
}
