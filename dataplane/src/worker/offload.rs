//! What hardware takes over from the walk, and gives back: the worker's half of [`crate::offload`].
//!
//! Nothing here waits. A connection that has proven itself is asked for while one of its packets is at
//! hand; answers come when they come, and change the state of an entry that still is what was asked for.
//! A message may be lost on either side, so every state but `Software` is confirmed from time to time by
//! [`Answer::Counted`], and given up when it no longer is.

mod frames;

use super::{Env, Hardware, Note, State, Walk, Worker};
use crate::addr::MacAddr;
use crate::conntrack::{Count, Gone, Slot};
use crate::counters::{PccCause, WorkerCounters};
use crate::flow::Direction;
use crate::ids::{BackendId, PortId};
use crate::offload::{
    Answer, Ask, Declined, FlowRef, Leg, OffloadState, Removal, Revocation, Revoke, RuleId, Token,
};
use crate::packet::PacketBuf;
use crate::rewrite::{self, Outer};
use crate::snapshot::Hop;
use crate::time::Tick;
use crate::wire::{FragmentRole, Parsed};

/// Connections asked for per burst, so that a burst of newly proven ones does not hold up the rest.
pub(super) const ASKS_PER_BURST: u8 = 4;
/// Packets under way when a rule comes into force have reached software by then.
const SETTLE_MS: u32 = 2_000;
/// A removal is asked for again if hardware still counts for the connection after so long.
const REMOVAL_MS: u32 = 2_000;
/// When to look again for a way that hardware can take.
const PATH_RETRY_MS: u32 = 30_000;
/// Without a word from the engine for so long, its messages were lost, or it was.
const UNCONFIRMED_MS: u32 = 60_000;
/// A review of the whole table takes so long,
const REVIEW_MS: u32 = 4_096;
/// and a call of it looks at so many slots at most.
const REVIEW_BUDGET: u32 = 1_024;

/// What is known of the market for rules, and how far the review of offload states has come.
pub(super) struct Bargain {
    /// Packets that a connection must have carried to be asked for.
    pub(super) price: u32,
    /// Whether packets are kept from rules that are in force.
    pub(super) fenced: bool,
    /// The next request's token.
    pub(super) token: u32,
    /// The next slot to review, and when the last ones were.
    next: u32,
    reviewed: Tick,
}

impl Bargain {
    pub(super) fn new(now: Tick) -> Bargain {
        Bargain { price: u32::MAX, fenced: false, token: 0, next: 0, reviewed: now }
    }
}

impl<B: PacketBuf> Worker<B> {
    /// Sets how many packets, of both directions, a connection must have carried before hardware is asked
    /// to take it; `u32::MAX` is never. At first, never.
    pub fn set_price(&mut self, price: u32) {
        self.state.offload.price = price;
    }

    /// Sets whether hardware leaves packets of connections that it has to us, on purpose: there is a fence
    /// before their rules while a new policy is enforced. At first, not.
    pub fn set_fenced(&mut self, fenced: bool) {
        self.state.offload.fenced = fenced;
    }

    /// Takes what the offload engine says about a connection.
    pub fn on_answer<E: Env<Buf = B>>(&mut self, now: Tick, answer: &Answer, env: &mut E) {
        self.walk(now, env).hear_engine(answer);
        self.state.count_offload();
    }
}

/// What hardware's rules see of a packet.
#[derive(Clone, Copy)]
pub(super) struct Sight {
    /// Where it came in.
    pub(super) port: PortId,
    /// Whether the rules of a connection match such a packet, its traffic class apart.
    pub(super) fits: bool,
    /// Its traffic class, which only rules compare that put packets into tunnels.
    pub(super) class: u8,
}

impl Sight {
    pub(super) fn of<B: PacketBuf>(packet: &B, parsed: &Parsed) -> Sight {
        let flags = parsed.tcp_flags;
        let opens_or_closes = flags.syn() || flags.fin() || flags.rst();
        let fits = parsed.ttl > 1 && parsed.fragment == FragmentRole::Whole && !opens_or_closes;
        let class = rewrite::class(packet.data(), parsed.l3.into()).unwrap_or_default();
        Sight { port: packet.port(), fits, class }
    }
}

/// Packets.
impl<E: Env> Walk<'_, E> {
    /// A packet of a connection that hardware has, or may be asked to take.
    #[inline(never)] // The packets of all other connections are not to pay for it.
    pub(super) fn tend_hardware(&mut self, mut sight: Sight, slot: Slot, direction: Direction) {
        let entry = self.state.table.entry(slot);
        let tunnelled = !entry.has_reply_key() && self.snapshot.tunnel(entry.backend()).is_some();
        sight.fits &= !(tunnelled && rewrite::carries_ecn(sight.class));
        sight.fits &= self.fits_ports(sight, slot, direction);
        if !entry.is_installed() {
            return self.propose(sight, slot, direction);
        }
        if !entry.may_be_offloaded() {
            return self.take_back(slot, Revocation::Closing);
        }
        if !sight.fits {
            return self.env.note(Note::Hardware(Hardware::NotSuch));
        }
        if self.state.offload.fenced {
            self.env.note(Note::Hardware(Hardware::Fenced));
        } else if entry.is_in_hardware(direction) {
            self.env.note(Note::Hardware(Hardware::Missed));
            self.state.counters.offload_miss.add(1);
        } else if !entry.is_settled() {
            self.env.note(Note::Hardware(Hardware::Late));
            self.state.counters.offload_late.add(1);
        }
    }

    /// Asks for a connection, if hardware may and can take it.
    fn propose(&mut self, sight: Sight, slot: Slot, direction: Direction) {
        let table = &self.state.table;
        let entry = table.entry(slot);
        if let OffloadState::Declined(why) = table.offload(slot) {
            if !self.now.reached(table.offload_tick(slot)) {
                return self.env.note(Note::Hardware(Hardware::Waits(why)));
            }
        }
        if self.snapshot.hardware_meter(entry.service()).is_err() {
            let retry = self.now.after_ms(PATH_RETRY_MS);
            return self.state.table.set_offload(slot, OffloadState::Declined(Declined::Metered), retry);
        }
        let allowed = self.snapshot.allows_offload(entry.service(), entry.backend());
        let why_not = match () {
            () if self.state.offload.price == u32::MAX => return,
            () if !allowed => Some(Hardware::Barred),
            () if self.is_captured(slot) => Some(Hardware::Captured),
            () if !sight.fits => Some(Hardware::NoOccasion),
            () if self.asks_left == 0 => Some(Hardware::NextBurst),
            () => None,
        };
        if let Some(why) = why_not {
            return self.env.note(Note::Hardware(why));
        }
        self.asks_left -= 1;
        let ask = match self.ask(sight, slot, direction) {
            Ok(ask) => ask,
            Err(NoWay::Unknown) => return self.env.note(Note::Hardware(Hardware::WayUnknown)),
            Err(NoWay::Cannot(why)) => {
                self.env.note(Note::Hardware(Hardware::Cannot(why)));
                let retry = self.now.after_ms(PATH_RETRY_MS);
                return self.state.table.set_offload(slot, OffloadState::Declined(why), retry);
            }
        };
        if self.env.ask(&ask) {
            self.env.note(Note::Hardware(Hardware::Asked));
            self.state.offload.token = ask.token.0.wrapping_add(1);
            self.state.table.set_offload(slot, OffloadState::Requested(ask.token), self.now);
            self.state.counters.offload_asked.add(1);
        } else {
            self.env.note(Note::Hardware(Hardware::AskRefused));
            self.asks_left = 0;
            self.state.counters.offload_ask_refused.add(1);
        }
    }

    fn ask(&mut self, sight: Sight, slot: Slot, direction: Direction) -> Result<Ask, NoWay> {
        let ends = self.state.table.ends(slot);
        let key = self.state.table.key(slot, Direction::Original);
        let outer = self.snapshot.tunnel(ends.backend_id).filter(|_| !ends.nat);
        let around = |outer: &Outer| outer.around(sight.class, rewrite::entropy(&key));
        let tunnel = outer.map(|outer| around(outer).ok_or(NoWay::Cannot(Declined::Tunnel))).transpose()?;
        let added = outer.map_or(0, Outer::overhead);
        let legs = self.legs(sight.port, slot, direction, added)?;
        let State { table, offload, .. } = &*self.state;
        let totals = table.totals(slot);
        let ask = Ask {
            flow: table.flow_ref(slot),
            token: Token(offload.token),
            key,
            backend_end: ends.backend,
            nat: ends.nat,
            tunnel,
            service: table.entry(slot).service(),
            backend: ends.backend_id,
            legs,
            packets: totals.original.packets + totals.reply.packets,
            age_ms: table.age_ms(slot, self.now),
        };
        self.with_frames(ask, sight, direction)
    }

    /// The ways of a connection's packets that hardware can take, at least one, given that a packet of
    /// `direction` has come in by `port`. Packets of the other direction come in where those of this one
    /// leave. `added`: bytes of a tunnel's headers.
    fn legs(
        &mut self,
        port: PortId,
        slot: Slot,
        direction: Direction,
        added: u16,
    ) -> Result<[Option<Leg>; 2], NoWay> {
        let forward = self.way(slot, direction)?;
        let there = self.leg(port, forward, added);
        let back = if self.state.table.ends(slot).nat {
            let back = self.way(slot, direction.reversed())?;
            self.leg(forward.port, back, 0)
        } else {
            Err(NoWay::Cannot(Declined::Path))
        };
        let mut legs = [None, None];
        legs[direction as usize] = able(there)?;
        legs[direction.reversed() as usize] = able(back)?;
        if legs == [None, None] { there.map(|_| legs) } else { Ok(legs) }
    }

    /// Where software would send a packet of this direction.
    fn way(&self, slot: Slot, direction: Direction) -> Result<Hop, NoWay> {
        let tenant = self.state.table.entry(slot).tenant();
        let (hop, _) = self.hop(tenant, self.translation(slot, direction).target).ok_or(NoWay::Unknown)?;
        Ok(hop)
    }

    /// One direction. Hardware does not compare lengths, and so must not meet a packet that is too big.
    fn leg(&mut self, ingress: PortId, to: Hop, added: u16) -> Result<Leg, NoWay> {
        let behind = [ingress, to.port].map(|port| self.snapshot.is_behind_tunnel(port));
        // Nothing is taken out of one tunnel and put into another (mlx5_flow_dv.c, `encap and decap
        // combination aren't supported`), or put into two.
        if behind.into_iter().filter(|behind| *behind).count() + usize::from(added > 0) > 1 {
            return Err(NoWay::Cannot(Declined::Tunnel));
        }
        let mtu = |port| self.snapshot.port(port).map(|port| port.mtu).ok_or(NoWay::Unknown);
        if mtu(to.port)? < mtu(ingress)?.saturating_add(added) {
            return Err(NoWay::Cannot(Declined::Mtu));
        }
        let next_hop = self.state.neighbours.find(self.now, to.port, to.next_hop).ok_or(NoWay::Unknown)?;
        Ok(Leg { ingress, egress: to.port, next_hop })
    }

    /// Hardware is to give a connection back, if it has it. Without room for the message the state stays,
    /// and the next packet or the next report tries again.
    pub(super) fn take_back(&mut self, slot: Slot, why: Revocation) {
        let OffloadState::Installed(rule) = self.state.table.offload(slot) else { return };
        if self.revoke(self.state.table.flow_ref(slot), rule, why) {
            self.env.note(Note::Hardware(Hardware::TakenBack(why)));
            self.state.table.set_offload(slot, OffloadState::Removing(rule), self.now);
        }
    }

    fn revoke(&mut self, flow: FlowRef, rule: RuleId, why: Revocation) -> bool {
        revoke(self.env, &self.state.counters, &Revoke { flow, rule, why })
    }
}

/// Whom rules send to: by direction, and of the one that leaves by a port behind a tunnel, outside of that.
type Stations = ([Option<MacAddr>; 2], Option<MacAddr>);

/// Why hardware is not asked.
#[derive(Clone, Copy)]
enum NoWay {
    /// The way, or who takes packets at its next hop, is not known now.
    Unknown,
    /// It could not.
    Cannot(Declined),
}

/// The leg, if hardware can take it.
fn able(leg: Result<Leg, NoWay>) -> Result<Option<Leg>, NoWay> {
    match leg {
        Ok(leg) => Ok(Some(leg)),
        Err(NoWay::Cannot(_)) => Ok(None),
        Err(NoWay::Unknown) => Err(NoWay::Unknown),
    }
}

fn revoke<E: Env>(env: &mut E, counters: &WorkerCounters, revoke: &Revoke) -> bool {
    let taken = env.revoke(revoke);
    if taken {
        counters.offload_revoked[revoke.why as usize].add(1);
    } else {
        counters.offload_revoke_refused.add(1);
    }
    taken
}

/// Tells hardware of a connection that has left the table. Should the message find no room, then the next
/// report about the rules finds no connection.
pub(super) fn revoke_gone<E: Env>(env: &mut E, counters: &WorkerCounters, gone: &Gone) {
    if let OffloadState::Installed(rule) = gone.offload {
        revoke(env, counters, &Revoke { flow: gone.flow, rule, why: Revocation::Gone });
    }
}

/// Answers.
impl<E: Env> Walk<'_, E> {
    fn hear_engine(&mut self, answer: &Answer) {
        let slot = self.state.table.resolve(answer.flow());
        match (*answer, slot) {
            (Answer::Counted { flow, rule, backend, counts, next_hops, below }, _) => {
                self.count_hardware(backend, counts);
                match slot {
                    Some(slot) => self.counted(slot, rule, counts, (next_hops, below)),
                    None => self.counted_unknown(flow, rule, counts),
                }
            }
            (Answer::Installed { token, rule, .. }, Some(slot)) => self.installed(slot, token, rule),
            (Answer::Installed { flow, rule, .. }, None) => {
                self.revoke(flow, rule, Revocation::Orphan);
            }
            (Answer::Declined { token, reason, retry_ms, .. }, Some(slot)) => {
                if self.state.table.offload(slot) == OffloadState::Requested(token) {
                    self.decline(slot, reason, retry_ms);
                    self.end_if_refused(slot);
                }
            }
            (Answer::Removed { rule, why, retry_ms, .. }, Some(slot)) => {
                let state = self.state.table.offload(slot);
                if [OffloadState::Installed(rule), OffloadState::Removing(rule)].contains(&state) {
                    self.decline(slot, stays_out(why), retry_ms);
                    self.end_if_refused(slot);
                }
            }
            (Answer::Declined { .. } | Answer::Removed { .. }, None) => {}
        }
    }

    fn count_hardware(&self, backend: BackendId, counts: [Count; 2]) {
        self.count_green(backend, counts);
        let Some(counters) = self.state.counters.backend(backend) else { return };
        for (traffic, count) in counters.hardware.iter().zip(counts) {
            traffic.count_all(count);
        }
    }

    fn installed(&mut self, slot: Slot, token: Token, rule: RuleId) {
        match self.state.table.offload(slot) {
            OffloadState::Requested(asked) if asked == token => {
                self.state.table.set_offload(slot, OffloadState::Installed(rule), self.now);
                if let Some(why) = self.unfit(slot) {
                    self.take_back(slot, why);
                }
            }
            OffloadState::Installed(known) | OffloadState::Removing(known) if known == rule => {}
            _ => {
                self.revoke(self.state.table.flow_ref(slot), rule, Revocation::Orphan);
            }
        }
    }

    /// A connection is in software, for so long at least.
    fn decline(&mut self, slot: Slot, reason: Declined, retry_ms: u32) {
        let state = if retry_ms == 0 { OffloadState::Software } else { OffloadState::Declined(reason) };
        self.state.table.set_offload(slot, state, self.now.after_ms(retry_ms));
    }

    fn counted_unknown(&mut self, flow: FlowRef, rule: Option<RuleId>, counts: [Count; 2]) {
        let Some(rule) = rule else { return };
        if counts.iter().any(|count| count.packets > 0) {
            self.state.counters.pcc(PccCause::StaleRule).add(1);
        }
        self.revoke(flow, rule, Revocation::Orphan);
    }

    fn counted(&mut self, slot: Slot, rule: Option<RuleId>, counts: [Count; 2], stations: Stations) {
        for direction in [Direction::Original, Direction::Reply] {
            self.state.table.add_hardware(slot, direction, self.now, counts[direction as usize]);
        }
        let Some(rule) = rule else { return };
        match self.state.table.offload(slot) {
            OffloadState::Requested(_) => {
                // The answer that said so was lost.
                self.state.table.set_offload(slot, OffloadState::Installed(rule), self.now);
                self.review_installed(slot, stations);
            }
            OffloadState::Installed(known) if known == rule => self.review_installed(slot, stations),
            OffloadState::Removing(known) if known == rule => self.review_removing(slot, rule),
            _ => {
                self.revoke(self.state.table.flow_ref(slot), rule, Revocation::Orphan);
            }
        }
    }

    fn review_installed(&mut self, slot: Slot, (next_hops, below): Stations) {
        let table = &mut self.state.table;
        table.confirm_offload(slot, self.now);
        if !table.entry(slot).is_settled() && self.now.since(table.offload_tick(slot)) >= SETTLE_MS {
            table.settle_offload(slot, next_hops.map(|next_hop| next_hop.is_some()));
        }
        let still_right = self.sends_right(slot, (next_hops, below));
        let why = self.unfit(slot).or((!still_right).then_some(Revocation::Moved));
        if let Some(why) = why {
            self.take_back(slot, why);
        }
    }

    fn review_removing(&mut self, slot: Slot, rule: RuleId) {
        self.state.table.confirm_offload(slot, self.now);
        if self.now.since(self.state.table.offload_tick(slot)) < REMOVAL_MS {
            return;
        }
        let why = self.unfit(slot).unwrap_or(Revocation::Orphan);
        if self.revoke(self.state.table.flow_ref(slot), rule, why) {
            self.state.table.set_offload(slot, OffloadState::Removing(rule), self.now);
        }
    }

    /// Why hardware may not forward for a connection, if it may not.
    fn unfit(&mut self, slot: Slot) -> Option<Revocation> {
        let entry = self.state.table.entry(slot);
        if !entry.may_be_offloaded() {
            return Some(Revocation::Closing);
        }
        let allowed = self.snapshot.allows_offload(entry.service(), entry.backend());
        if !allowed || self.is_refused(slot) {
            return Some(Revocation::Policy);
        }
        self.is_captured(slot).then_some(Revocation::Captured)
    }

    /// Whether rules send to whom software would send. Looking counts as use, so that neighbours are
    /// probed whose packets never come here. A gateway that is slow to answer has not moved: were it taken
    /// for that, all connections behind it would leave hardware at once.
    fn sends_right(&mut self, slot: Slot, (next_hops, below): Stations) -> bool {
        [Direction::Original, Direction::Reply].into_iter().zip(next_hops).all(|(direction, next_hop)| {
            let Some(next_hop) = next_hop else { return true };
            let Ok(hop) = self.way(slot, direction) else { return false };
            let outside = match (below, self.snapshot.into_tunnel(hop.port)) {
                (Some(below), Some(way)) => {
                    self.state.neighbours.is_at(self.now, way.hop.port, way.hop.next_hop, below)
                }
                _ => true,
            };
            outside && self.state.neighbours.is_at(self.now, hop.port, hop.next_hop, next_hop)
        })
    }
}

/// What a connection that has left hardware waits for before it is asked for again.
const fn stays_out(why: Removal) -> Declined {
    match why {
        Removal::Evicted => Declined::TableFull,
        Removal::Lost => Declined::Failed,
        Removal::Idle | Removal::Revoked(_) => Declined::Budget,
    }
}

/// Upkeep.
impl<E: Env> Walk<'_, E> {
    /// Looks at some of the connections that are not simply in software: refusals whose time is up, and
    /// states that the engine has not confirmed for too long. By time and not by turns, so that the cost
    /// is the same however fast the worker spins.
    pub(super) fn review_offload(&mut self) {
        let elapsed_ms = self.now.since(self.state.offload.reviewed);
        if elapsed_ms == 0 {
            return;
        }
        self.state.offload.reviewed = self.now;
        let [_, kinds @ ..] = self.state.table.by_offload();
        if kinds == [0; 4] {
            return;
        }
        let slots = self.state.table.slots_taken();
        let per_ms = slots.div_ceil(REVIEW_MS);
        let begin = if self.state.offload.next < slots { self.state.offload.next } else { 0 };
        let end = slots.min(begin + elapsed_ms.saturating_mul(per_ms).min(REVIEW_BUDGET));
        for number in begin..end {
            if let Some(slot) = self.state.table.offloaded_at(number) {
                self.review(slot);
            }
        }
        self.state.offload.next = end;
    }

    fn review(&mut self, slot: Slot) {
        let table = &mut self.state.table;
        let over = match table.offload(slot) {
            OffloadState::Software => return,
            OffloadState::Declined(_) => self.now.reached(table.offload_tick(slot)),
            OffloadState::Requested(_) | OffloadState::Installed(_) | OffloadState::Removing(_) => {
                self.now.since(table.offload_confirmed(slot)) >= UNCONFIRMED_MS
            }
        };
        if over {
            table.set_offload(slot, OffloadState::Software, self.now);
        }
    }
}
