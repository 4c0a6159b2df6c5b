//! What the policy lets through, as the walk asks it.
//!
//! * A newcomer is judged before anything is chosen for it.
//! * A connection remembers the generation of the policy that let it in. Once there is another, it is judged
//!   again: when its next packet comes, or by a sweep through the table, whichever is first. So every packet
//!   is judged by the snapshot that it is forwarded by, and by no other.
//! * One that is refused ends. While hardware may still forward for it, it stays to be taken back, and what
//!   comes to software of it is refused.
//! * A rejected TCP connection stays for a while, too, for its next segment: only from its entry is it known
//!   which client is to be told, and in whose name, where a backend serves more than one service.
//!
//! Nothing here is asked where the policy lets everything through; the shortcut compares one byte.

use super::transit;
use super::upkeep::SWEEP_AFTER_MS;
use super::{Env, Note, State, Walk, Worker};
use crate::addr::Ip;
use crate::conntrack::Slot;
use crate::drops::DropReason;
use crate::flow::{Direction, FlowKey, Protocol};
use crate::offload::Revocation;
use crate::packet::{BURST, PacketBuf};
use crate::policy::{Action, LogEvent, Policy, Standing, Subject, Verdict};
use crate::rate::RateLimit;
use crate::rewrite::{self, IcmpError};
use crate::time::Tick;
use crate::wire::{Kind, Parsed};

/// Slots that a call of a sweep looks at while bursts are full,
const LOOKS: u32 = 256;
/// and connections that it judges: less work than the burst.
const JUDGEMENTS: u32 = 16;
/// How much more it does in a turn with some packets, which keeps those that come meanwhile from half a
/// descriptor ring,
const SOME_PACKETS: u32 = 4;
/// and in one without: some ten microseconds.
const NO_PACKETS: u32 = 16;
/// Verdicts told for the log, per second, and at once.
const LOG_PER_SECOND: u32 = 200;
/// ICMP's word for a policy: communication administratively prohibited (RFC 1812 §5.2.7.1),
const PROHIBITED: u8 = 13;
/// and ICMPv6's (RFC 4443 §3.1).
const PROHIBITED_V6: u8 = 1;

/// What a worker keeps for judging.
pub(super) struct Judging {
    /// Through all connections that hardware may forward for: of some, no packet ever comes here.
    hardware: Option<Sweep>,
    /// Through all connections.
    all: Option<Sweep>,
    /// Through those that a sweep has rejected and left for their next segment.
    parting: Option<Parting>,
    log: RateLimit,
    /// The largest burst since the last upkeep.
    burst: usize,
}

/// A walk through the table for connections that the present policy has not judged.
#[derive(Clone, Copy, Debug)]
struct Sweep {
    /// The policy when it began: once it is through, this one or a later one has judged everything.
    generation: u8,
    /// The next slot to look at.
    next: u32,
}

/// A sweep that ends rejected connections of which nothing was heard.
#[derive(Clone, Copy, Debug)]
struct Parting {
    begins: Tick,
    /// The next slot to look at.
    next: u32,
    /// Whether another one has to follow, as more were rejected since.
    again: bool,
}

/// What became of a connection that was judged again.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It goes on.
    Stays,
    /// It has ended, or hardware is being told to let go of it.
    Leaves,
    /// Hardware could not be told.
    Waits,
}

impl Parting {
    fn after(now: Tick) -> Parting {
        Parting { begins: now.after_ms(SWEEP_AFTER_MS), next: 0, again: false }
    }
}

impl Judging {
    pub(super) fn new() -> Judging {
        let log = RateLimit::new(LOG_PER_SECOND, LOG_PER_SECOND);
        Judging { hardware: None, all: None, parting: None, log, burst: 0 }
    }

    /// Packets have come, which take precedence.
    #[inline]
    pub(super) fn note_burst(&mut self, packets: usize) {
        self.burst = self.burst.max(packets);
    }

    fn is_sweeping(&self) -> bool {
        self.hardware.is_some() || self.all.is_some()
    }

    /// By how much a sweep may exceed what it does beside full bursts, in this turn.
    fn leisure(&mut self) -> u32 {
        match std::mem::take(&mut self.burst) {
            0 => NO_PACKETS,
            BURST.. => 1,
            _ => SOME_PACKETS,
        }
    }
}

impl<B: PacketBuf> Worker<B> {
    /// Whether connections wait to be judged by a new policy: there is work in a turn without packets.
    #[must_use]
    pub fn is_sweeping(&self) -> bool {
        self.state.judging.is_sweeping()
    }
}

impl<B: PacketBuf> State<B> {
    /// Another snapshot comes into force: if it judges differently, every connection is to be judged again.
    /// Sweeps under way are not put off, or they would never end where changes are frequent; another one
    /// follows.
    pub(super) fn meet_policy(&mut self, before: &Policy, next: &Policy) {
        let generation = next.generation();
        if before.generation() == generation {
            return;
        }
        for sweep in [&mut self.judging.hardware, &mut self.judging.all] {
            sweep.get_or_insert(Sweep { generation, next: 0 });
        }
    }
}

/// Packets.
impl<E: Env> Walk<'_, E> {
    /// Gives back a packet that may open a connection, or pass without one; any other is refused. `key` is
    /// that of a client's packet.
    #[inline]
    pub(super) fn admit(&mut self, packet: E::Buf, parsed: &Parsed, key: &FlowKey) -> Option<E::Buf> {
        if self.snapshot.policy().allows_all() {
            return Some(packet);
        }
        self.admit_subject(packet, parsed, &Subject::connection(key, standing(parsed, key.protocol)))
    }

    /// Likewise of a segment from a backend, whose client is told, too.
    pub(super) fn admit_reply(&mut self, packet: E::Buf, parsed: &Parsed, key: &FlowKey) -> Option<E::Buf> {
        let subject = Subject::connection(key, standing(parsed, key.protocol));
        match self.judge(&subject) {
            Action::Allow => return Some(packet),
            Action::Deny => self.drop(packet, DropReason::PolicyDenied),
            Action::Reject => {
                let vip = (key.dst, key.dst_port);
                self.answer_resets(packet, parsed, vip, DropReason::PolicyRejected);
            }
        }
        None
    }

    /// Likewise of a ping for a VIP.
    pub(super) fn admit_echo(&mut self, packet: E::Buf, parsed: &Parsed) -> Option<E::Buf> {
        let message = parsed.transport(packet.data()).first_chunk::<2>();
        let (protocol, icmp) = (parsed.protocol, message.map(|&[kind, code]| (kind, code)));
        let subject = Subject { protocol, icmp, ..Subject::connection(&parsed.key, Standing::New) };
        self.admit_subject(packet, parsed, &subject)
    }

    fn admit_subject(&mut self, packet: E::Buf, parsed: &Parsed, subject: &Subject) -> Option<E::Buf> {
        match self.judge(subject) {
            Action::Allow => return Some(packet),
            Action::Deny => self.drop(packet, DropReason::PolicyDenied),
            Action::Reject => self.reject(packet, parsed),
        }
        None
    }

    /// The verdict on a newcomer.
    pub(super) fn judge(&mut self, subject: &Subject) -> Action {
        if self.snapshot.policy().allows_all() {
            return Action::Allow;
        }
        let verdict = self.snapshot.policy().judge(subject);
        self.env.note(Note::Judged(verdict));
        self.note_verdict(subject, verdict);
        verdict.action
    }

    /// Drops a packet and, within the rate, tells its sender.
    fn reject(&mut self, packet: E::Buf, parsed: &Parsed) {
        match parsed.kind {
            Kind::Tcp => self.answer_reset(packet, parsed, DropReason::PolicyRejected),
            _ => {
                let error = prohibited(parsed.key.src);
                self.answer_error(packet, parsed, error, DropReason::PolicyRejected);
            }
        }
    }

    /// Whether the present policy has let a connection in.
    #[inline(always)]
    pub(super) fn is_judged(&self, slot: Slot) -> bool {
        self.state.table.entry(slot).judged() == self.judged_by
    }

    /// Gives back a packet of a connection that the present policy has not judged yet, if it goes on.
    #[inline(never)] // Once for each connection after a change.
    pub(super) fn readmit(
        &mut self,
        packet: E::Buf,
        parsed: &Parsed,
        slot: Slot,
        direction: Direction,
    ) -> Option<E::Buf> {
        let verdict = self.judge_again(slot);
        self.env.note(Note::Judged(verdict));
        match verdict.action {
            Action::Allow => return Some(packet),
            Action::Deny => {
                self.end_refused(slot);
                self.drop(packet, DropReason::PolicyDenied);
            }
            Action::Reject => self.reject_known(packet, parsed, slot, direction),
        }
        None
    }

    /// Ends a connection, and tells whoever can be told by this packet.
    fn reject_known(&mut self, packet: E::Buf, parsed: &Parsed, slot: Slot, direction: Direction) {
        let ends = self.state.table.ends(slot);
        let resets = self.state.table.entry(slot).protocol() == Protocol::Tcp;
        if resets && !(rewrite::may_be_reset(parsed) && self.state.rates.resets.allow(self.now)) {
            // The entry stays for the next segment, which may get its reset.
            self.leave_for_segment();
            return self.drop(packet, DropReason::PolicyRejected);
        }
        self.end_refused(slot);
        match (parsed.kind, direction) {
            (Kind::Tcp, Direction::Original) => {
                self.reset_sender(packet, parsed, DropReason::PolicyRejected);
            }
            (Kind::Tcp, Direction::Reply) => {
                self.reset_ends(packet, parsed, ends.vip, DropReason::PolicyRejected);
            }
            (Kind::Icmp | Kind::Icmpv6, _) => self.drop(packet, DropReason::PolicyRejected),
            _ => self.reject(packet, parsed),
        }
    }

    /// Judges a connection by the present policy, and remembers it if that lets it go on. That it goes on is
    /// no news.
    pub(super) fn judge_again(&mut self, slot: Slot) -> Verdict {
        let (subject, verdict) = self.judge_entry(slot);
        if verdict.action != Action::Allow {
            self.note_verdict(&subject, verdict);
        }
        verdict
    }

    /// Likewise, without a word of what is refused.
    fn judge_entry(&mut self, slot: Slot) -> (Subject, Verdict) {
        let key = self.state.table.key(slot, Direction::Original);
        let way = transit::way(self.state.table.entry(slot).service());
        let subject = Subject { way, ..Subject::connection(&key, Standing::Established) };
        let verdict = self.snapshot.policy().judge(&subject);
        let allowed = verdict.action == Action::Allow;
        // What is refused is never taken for judged, however long it stays.
        let judged = if allowed { self.judged_by } else { self.judged_by.wrapping_sub(1) };
        self.state.table.entry_mut(slot).set_judged(judged);
        (subject, verdict)
    }

    /// Ends a connection, now or as soon as hardware has let go of it.
    pub(super) fn end_refused(&mut self, slot: Slot) -> Outcome {
        if !self.state.table.entry(slot).is_pending() {
            self.state.counters.policy_ended.add(1);
            self.end(slot);
            return Outcome::Leaves;
        }
        self.take_back(slot, Revocation::Policy);
        if self.state.table.entry(slot).is_installed() { Outcome::Waits } else { Outcome::Leaves }
    }

    /// Whether the policy has refused a connection that is in the table all the same.
    pub(super) fn is_refused(&mut self, slot: Slot) -> bool {
        !self.is_judged(slot) && self.judge_again(slot).action != Action::Allow
    }

    /// Hardware has let go of a connection: the end of it, if it was taken back for the policy.
    pub(super) fn end_if_refused(&mut self, slot: Slot) {
        if !self.is_judged(slot) {
            self.sweep_one(slot);
        }
    }

    /// A rejected connection is still in the table: it will leave it some time.
    fn leave_for_segment(&mut self) {
        let now = self.now;
        match &mut self.state.judging.parting {
            Some(parting) => parting.again |= now.reached(parting.begins),
            none => *none = Some(Parting::after(now)),
        }
    }

    /// Counts a verdict, and tells it if it is to be told.
    fn note_verdict(&mut self, subject: &Subject, verdict: Verdict) {
        self.state.counters.policy.count(verdict, subject.way);
        if !verdict.log {
            return;
        }
        let event = LogEvent { worker: self.state.id, at: self.now, subject: *subject, verdict };
        let told = self.state.judging.log.allow(self.now) && self.env.log(&event);
        if !told {
            self.state.counters.policy_log_lost.add(1);
        }
    }
}

/// Upkeep.
impl<E: Env> Walk<'_, E> {
    /// Judges some connections that the present policy has not.
    pub(super) fn sweep_policy(&mut self) {
        let leisure = self.state.judging.leisure();
        if let Some(sweep) = self.state.judging.hardware {
            self.state.judging.hardware = self.sweep_on(sweep, true, leisure);
        }
        if let Some(sweep) = self.state.judging.all {
            self.state.judging.all = self.sweep_on(sweep, false, leisure);
        }
        if let Some(parting) = self.state.judging.parting.filter(|parting| self.now.reached(parting.begins)) {
            self.state.judging.parting = self.part(parting);
        }
    }

    fn sweep_on(&mut self, mut sweep: Sweep, hardware: bool, leisure: u32) -> Option<Sweep> {
        let slots = self.state.table.slots_taken();
        let [_, requested, installed, removing, _] = self.state.table.by_offload();
        let end = if hardware && requested + installed + removing == 0 { 0 } else { slots };
        let stop = end.min(sweep.next.saturating_add(leisure * LOOKS));
        let mut judged = 0;
        while sweep.next < stop && judged < leisure * JUDGEMENTS {
            if let Some(slot) = self.state.table.unjudged_at(sweep.next, self.judged_by, hardware) {
                judged += 1;
                if self.sweep_one(slot) == Outcome::Waits && hardware {
                    return Some(sweep);
                }
            }
            sweep.next += 1;
        }
        if sweep.next < end {
            return Some(sweep);
        }
        if !hardware {
            self.state.counters.policy_swept.set(sweep.generation.into());
        }
        (sweep.generation != self.judged_by).then_some(Sweep { generation: self.judged_by, next: 0 })
    }

    fn sweep_one(&mut self, slot: Slot) -> Outcome {
        let (subject, verdict) = self.judge_entry(slot);
        if verdict.action == Action::Allow {
            return Outcome::Stays;
        }
        if verdict.action == Action::Reject && self.state.table.entry(slot).waits_for_segment() {
            self.leave_for_segment();
            return Outcome::Stays;
        }
        self.note_verdict(&subject, verdict);
        self.end_refused(slot)
    }

    /// Ends some of the rejected connections that nothing was heard of.
    fn part(&mut self, mut parting: Parting) -> Option<Parting> {
        let slots = self.state.table.slots_taken();
        let stop = slots.min(parting.next.saturating_add(LOOKS));
        let mut judged = 0;
        while parting.next < stop && judged < JUDGEMENTS {
            if let Some(slot) = self.state.table.unjudged_at(parting.next, self.judged_by, false) {
                judged += 1;
                if self.is_refused(slot) {
                    self.end_refused(slot);
                }
            }
            parting.next += 1;
        }
        if parting.next < slots {
            return Some(parting);
        }
        parting.again.then(|| Parting::after(self.now))
    }
}

/// What the sender of something hears that is rejected, unless a reset.
pub(super) fn prohibited(src: Ip) -> IcmpError {
    IcmpError::Unreachable { code: if src.is_v4() { PROHIBITED } else { PROHIBITED_V6 } }
}

/// The standing of a packet that concerns a connection without an entry.
pub(super) fn standing(parsed: &Parsed, protocol: Protocol) -> Standing {
    let flags = parsed.tcp_flags;
    match protocol {
        Protocol::Udp => Standing::New,
        Protocol::Tcp if parsed.kind == Kind::Tcp && flags.syn() && !flags.ack() => Standing::New,
        Protocol::Tcp => Standing::Midstream,
    }
}
