//! The walk: a burst enters, every packet leaves by exactly one door of the [`Fabric`].

use arrayvec::ArrayVec;
use dataplane::packet::{BURST, Burst, PacketBuf};

use super::super::key::{Headers, KEY_WORDS, Key, Registers, parse};
use super::super::types::{Colour, Domain, RuleId, Tick, Vport};
use super::nic::{QueueKind, Rx, spread};
use super::rules::{GroupIndex, Metering, Mirroring, Target};
use super::statistics::{DropReason, Statistics};
use super::{Core, Eswitch};

/// Jumps, and passages from one domain to another, that a packet may take. Nothing in hardware is known to
/// end a loop; here it ends.
pub const HOPS_MAX: u8 = 64;

/// What comes with a packet to a receive queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RxMeta {
    /// The queue.
    pub queue: u16,
    /// The mark a rule gave it.
    pub mark: Option<u32>,
    /// The metadata a rule gave it; 0: none.
    pub meta: u32,
}

/// Where packets leave the device.
pub trait Fabric<B> {
    /// Onto a vport's wire.
    fn transmit(&mut self, to: Vport, packet: B);
    /// To a receive queue of a vport's representor.
    fn receive(&mut self, at: Vport, meta: RxMeta, packet: B);
    /// A copy, for a mirror; `None` without a buffer for it.
    fn copy(&mut self, packet: &B) -> Option<B>;
    /// Nowhere; the device has counted it.
    fn discard(&mut self, reason: DropReason, packet: B);
}

/// A packet on its way.
struct Flight<B> {
    packet: Option<B>,
    headers: Headers,
    registers: Registers,
    domain: Domain,
    /// The group to look in next; `None`: one without rules.
    group: Option<GroupIndex>,
    hops: u8,
    /// In group 0 of its domain, and has not left it: where the default rules apply, of transmit queues (FDB)
    /// or of reception.
    at_root: bool,
}

type Flights<B> = ArrayVec<Flight<B>, BURST>;

/// Packets of a burst, one bit each.
type Set = u32;
const _: () = assert!(BURST <= Set::BITS as usize);

impl Eswitch {
    /// Forwards a burst that came from a vport's wire, or, `from_manager`, that the application transmitted
    /// on its representor. Takes all of it.
    pub fn forward<B: PacketBuf, F: Fabric<B>>(
        &mut self,
        now: Tick,
        source: Vport,
        from_manager: bool,
        packets: &mut Burst<B>,
        fabric: &mut F,
    ) {
        self.refresh(now);
        self.timing.shorten(packets.iter().map(|packet| packet.data().len()));
        let core = &mut self.core;
        let mut keys = [const { Key { words: [0; KEY_WORDS] } }; BURST];
        let mut flights = Flights::new();
        for packet in packets.drain(..) {
            let Some(packet) = core.arrive(source, from_manager, packet, fabric) else { continue };
            let registers = Registers::from(source, from_manager);
            let headers = parse(packet.data());
            keys[flights.len()] = Key::extract(packet.data(), &headers, &registers);
            let passes_by = !from_manager && self.faults.misses();
            let group = core.fdb_root.filter(|_| !passes_by);
            let packet = Some(packet);
            flights.push(Flight {
                packet,
                headers,
                registers,
                domain: Domain::Fdb,
                group,
                hops: 0,
                at_root: true,
            });
        }
        let mut live = (1_u64 << flights.len()).wrapping_sub(1) as Set;
        while live != 0 {
            live = core.round(now, live, &mut flights, &mut keys, fabric);
        }
    }
}

impl Core {
    /// Counts a packet in; one from a wire without link, and a scattered one, go no further.
    #[inline]
    fn arrive<B: PacketBuf, F: Fabric<B>>(
        &mut self,
        source: Vport,
        from_manager: bool,
        packet: B,
        fabric: &mut F,
    ) -> Option<B> {
        let no_link = self.rx.get(usize::from(source.0)).is_none_or(|rx| rx.cut && !from_manager);
        let vport = self.statistics.vports.get_mut(usize::from(source.0)).filter(|_| !no_link);
        let Some(vport) = vport else {
            self.discard(DropReason::Wire, packet, fabric);
            return None;
        };
        let bytes = packet.data().len() as u64;
        if from_manager {
            vport.manager_packets += 1;
            vport.manager_bytes += bytes;
        } else {
            vport.in_packets += 1;
            vport.in_bytes += bytes;
        }
        if packet.is_contiguous() {
            return Some(packet);
        }
        self.discard(DropReason::Scattered, packet, fabric);
        None
    }

    /// One lookup for all packets that are in the same group as the first; returns who is still under way.
    fn round<B: PacketBuf, F: Fabric<B>>(
        &mut self,
        now: Tick,
        live: Set,
        flights: &mut Flights<B>,
        keys: &mut [Key; BURST],
        fabric: &mut F,
    ) -> Set {
        let group = flights[live.trailing_zeros() as usize].group;
        let mut members = ArrayVec::<u8, BURST>::new();
        let mut hits = [None; BURST];
        for at in bits(live) {
            if flights[at].group == group {
                members.push(at as u8);
            }
        }
        if let Some(group) = group {
            let wanted: ArrayVec<&Key, BURST> = members.iter().map(|at| &keys[usize::from(*at)]).collect();
            self.groups.get(group).classifier.lookup_burst(&wanted, &mut hits[..members.len()]);
            self.prefetch(&hits[..members.len()]);
        }
        let mut live = live;
        for (at, hit) in members.iter().map(|at| usize::from(*at)).zip(hits) {
            let flight = &mut flights[at];
            let goes_on = match hit {
                Some(rule) => self.hit(now, rule, flight, fabric),
                None => self.miss(flight, fabric),
            };
            match goes_on {
                Next::Gone => live &= !(1 << at),
                Next::Look { again: true } => {
                    if let Some(packet) = &flight.packet {
                        keys[at] = Key::extract(packet.data(), &flight.headers, &flight.registers);
                    }
                }
                Next::Look { again: false } => {}
            }
        }
        live
    }

    /// Asks for what the rules that were hit will touch.
    #[inline]
    fn prefetch(&self, hits: &[Option<RuleId>]) {
        for rule in hits.iter().flatten() {
            self.rules.prefetch(rule.0);
        }
        for rule in hits.iter().flatten() {
            let Some(rule) = self.rules.get(rule.0) else { continue };
            rule.edits.prefetch();
            if let Some(counter) = rule.counter {
                self.counters.prefetch(counter);
            }
            if let Some(age) = rule.age {
                self.ages.prefetch(age);
            }
            if let Metering::Policy(meter) | Metering::First(meter) | Metering::Mark(meter) = rule.metering {
                self.meters.prefetch(meter);
            }
        }
    }

    /// A rule matched.
    fn hit<B: PacketBuf, F: Fabric<B>>(
        &mut self,
        now: Tick,
        rule: RuleId,
        flight: &mut Flight<B>,
        fabric: &mut F,
    ) -> Next {
        let Some(mut packet) = flight.packet.take() else { return Next::Gone };
        match self.act(now, rule, &mut packet, flight, fabric) {
            Ok((target, again)) => {
                flight.packet = Some(packet);
                self.dispatch(target, again, flight, fabric)
            }
            Err(reason) => {
                self.discard(reason, packet, fabric);
                Next::Gone
            }
        }
    }

    /// What a rule does before its fate, in the order of the hardware: count, age, mirror, meter, edit;
    /// for some rules ([`Metering::First`]) the meter comes first.
    /// Returns the fate, and whether the key is out of date.
    fn act<B: PacketBuf, F: Fabric<B>>(
        &mut self,
        now: Tick,
        rule: RuleId,
        packet: &mut B,
        flight: &mut Flight<B>,
        fabric: &mut F,
    ) -> Result<(Target, bool), DropReason> {
        let Some(rule) = self.rules.get_mut(rule.0) else { return Ok((Target::Default, false)) };
        let bytes = packet.data().len() as u32;
        if let Metering::First(meter) = rule.metering {
            if self.meters.colour(now, meter, bytes, Colour::Green) == Colour::Red {
                return Err(DropReason::Meter);
            }
        }
        if let Some(counter) = rule.counter {
            self.counters.hit(now, counter, bytes);
        }
        if let Some(age) = rule.age {
            self.ages.hit(now, age);
        }
        if let Some(mirror) = &mut rule.mirror {
            mirror.copy(packet, flight, &self.rx, &mut self.statistics, fabric);
        }
        let mut again = false;
        let mut colour = Colour::Green;
        match rule.metering {
            Metering::None | Metering::First(_) => {}
            Metering::Mark(meter) => {
                flight.registers.colour = self.meters.colour(now, meter, bytes, flight.registers.colour);
                again = true;
            }
            Metering::Policy(meter) => colour = self.meters.colour(now, meter, bytes, Colour::Green),
        }
        if colour == Colour::Red {
            return Err(DropReason::Meter);
        }
        again |= rule.edits.apply(packet, &mut flight.headers, &mut flight.registers)?;
        let Some(outcome) = rule.policy.as_ref().and_then(|policy| policy.get(colour as usize)) else {
            return Ok((rule.target, again));
        };
        again |= outcome.edits.apply(packet, &mut flight.headers, &mut flight.registers)?;
        Ok((outcome.target, again))
    }

    /// Where a match sends its packet.
    #[inline]
    fn dispatch<B: PacketBuf, F: Fabric<B>>(
        &mut self,
        target: Target,
        again: bool,
        flight: &mut Flight<B>,
        fabric: &mut F,
    ) -> Next {
        match target {
            Target::Vport(to) => self.leave_by(to, flight, fabric),
            Target::Group(group) => {
                self.statistics.jumps += 1;
                flight.group = Some(group);
                flight.at_root = false;
                self.hop(again, flight, fabric)
            }
            Target::Drop => self.drop_flight(DropReason::Rule, flight, fabric),
            Target::Queue(queue) => self.enqueue(queue, flight, fabric),
            Target::Queues(set) => {
                let Some(packet) = &flight.packet else { return Next::Gone };
                let queues = self.rss.queues(set);
                let hash = spread(packet.data(), &flight.headers) as usize;
                match queues.get(hash % queues.len().max(1)) {
                    Some(queue) => self.enqueue(*queue, flight, fabric),
                    None => self.drop_flight(DropReason::RxStopped, flight, fabric),
                }
            }
            Target::Default => self.miss(flight, fabric),
        }
    }

    /// Out of the eSwitch, unless it is back onto the wire it came from: that the hardware drops silently
    /// (rdma-core dr_action.c; mlx5dr_action.c up to 24.07).
    fn leave_by<B: PacketBuf, F: Fabric<B>>(
        &mut self,
        to: Vport,
        flight: &mut Flight<B>,
        fabric: &mut F,
    ) -> Next {
        let from_wire = !flight.registers.from_manager && self.context.topology.is_uplink(to);
        if from_wire && to == flight.registers.source && !self.context.options.wire_to_wire {
            return self.drop_flight(DropReason::WireToSameWire, flight, fabric);
        }
        self.transmit(to, flight, fabric)
    }

    /// Onto a wire, if it has its link.
    #[inline]
    fn transmit<B: PacketBuf, F: Fabric<B>>(
        &mut self,
        to: Vport,
        flight: &mut Flight<B>,
        fabric: &mut F,
    ) -> Next {
        if self.rx.get(usize::from(to.0)).is_none_or(|rx| rx.cut) {
            return self.drop_flight(DropReason::Wire, flight, fabric);
        }
        if let Some(packet) = flight.packet.take() {
            self.statistics.sent(to, packet.data().len());
            fabric.transmit(to, packet);
        }
        Next::Gone
    }

    /// To a receive queue of the representor in whose domain the packet is.
    fn enqueue<B: PacketBuf, F: Fabric<B>>(
        &mut self,
        queue: u16,
        flight: &mut Flight<B>,
        fabric: &mut F,
    ) -> Next {
        let Domain::NicRx(at) = flight.domain else {
            return self.drop_flight(DropReason::RxStopped, flight, fabric);
        };
        match self.rx[usize::from(at.0)].kind(queue) {
            QueueKind::Application => {
                if let Some(packet) = flight.packet.take() {
                    self.statistics.vports[usize::from(at.0)].received_packets += 1;
                    let Registers { mark, meta, .. } = flight.registers;
                    fabric.receive(at, RxMeta { queue, mark, meta }, packet);
                }
                Next::Gone
            }
            QueueKind::Hairpin(peer) => {
                let Some(vport) = self.statistics.vports.get_mut(usize::from(peer.0)) else {
                    return self.drop_flight(DropReason::RxStopped, flight, fabric);
                };
                vport.hairpin_packets += 1;
                flight.registers = Registers::from(peer, true);
                flight.domain = Domain::Fdb;
                flight.group = self.fdb_root;
                flight.at_root = true;
                self.hop(true, flight, fabric)
            }
            QueueKind::None => self.drop_flight(DropReason::RxStopped, flight, fabric),
        }
    }

    /// No rule in this group. In the FDB: to the representor of the source, but what the application sent
    /// and no rule of the first group caught follows the default rule of its transmit queue. In a
    /// representor: its default rules, unless a jump has led away from them.
    fn miss<B: PacketBuf, F: Fabric<B>>(&mut self, flight: &mut Flight<B>, fabric: &mut F) -> Next {
        let source = flight.registers.source;
        match flight.domain {
            Domain::Fdb if flight.registers.from_manager && flight.at_root => {
                self.statistics.vports[usize::from(source.0)].manager_default_packets += 1;
                self.transmit(source, flight, fabric)
            }
            Domain::Fdb => self.enter_representor(source, flight, fabric),
            // What a receive domain's tables do by default is to drop (rdma-core, dr_domain.c): the rules
            // that take a frame in are in its root.
            Domain::NicRx(_) if !flight.at_root => self.drop_flight(DropReason::RxFilter, flight, fabric),
            Domain::NicRx(at) => {
                let rx = &self.rx[usize::from(at.0)];
                let Some(packet) = &flight.packet else { return Next::Gone };
                if !rx.accepts(packet.data()) {
                    return self.drop_flight(DropReason::RxFilter, flight, fabric);
                }
                let queues = rx.config.queues;
                let queue = match queues {
                    0 | 1 => 0,
                    _ => (spread(packet.data(), &flight.headers) % u32::from(queues)) as u16,
                };
                self.enqueue(queue, flight, fabric)
            }
        }
    }

    /// Into the receive domain of a representor. MARK and META cross only with `dv_xmeta_en`.
    fn enter_representor<B: PacketBuf, F: Fabric<B>>(
        &mut self,
        at: Vport,
        flight: &mut Flight<B>,
        fabric: &mut F,
    ) -> Next {
        self.statistics.vports[usize::from(at.0)].miss_packets += 1;
        if !self.rx[usize::from(at.0)].started {
            return self.drop_flight(DropReason::RxStopped, flight, fabric);
        }
        if self.context.options.xmeta == 0 {
            flight.registers.mark = None;
            flight.registers.meta = 0;
        }
        flight.domain = Domain::NicRx(at);
        flight.at_root = true;
        flight.group = self.nic_roots[usize::from(at.0)];
        if flight.group.is_none() {
            return self.miss(flight, fabric);
        }
        self.hop(true, flight, fabric)
    }

    /// One more lookup, unless it goes on for ever.
    #[inline]
    fn hop<B: PacketBuf, F: Fabric<B>>(
        &mut self,
        again: bool,
        flight: &mut Flight<B>,
        fabric: &mut F,
    ) -> Next {
        flight.hops += 1;
        if flight.hops > HOPS_MAX {
            return self.drop_flight(DropReason::Loop, flight, fabric);
        }
        Next::Look { again }
    }

    #[inline]
    fn drop_flight<B: PacketBuf, F: Fabric<B>>(
        &mut self,
        reason: DropReason,
        flight: &mut Flight<B>,
        fabric: &mut F,
    ) -> Next {
        if let Some(packet) = flight.packet.take() {
            self.discard(reason, packet, fabric);
        }
        Next::Gone
    }

    #[inline]
    fn discard<B: PacketBuf, F: Fabric<B>>(&mut self, reason: DropReason, packet: B, fabric: &mut F) {
        self.statistics.dropped(reason);
        fabric.discard(reason, packet);
    }
}

/// What becomes of a packet after a lookup.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    /// It has left.
    Gone,
    /// It is looked up in its flight's group; `again`: its key must be extracted anew.
    Look { again: bool },
}

impl Mirroring {
    /// Sends a copy if this packet is one that the ratio takes. The copy goes through the mirror's own edits.
    fn copy<B: PacketBuf, F: Fabric<B>>(
        &mut self,
        packet: &B,
        flight: &Flight<B>,
        rx: &[Rx],
        statistics: &mut Statistics,
        fabric: &mut F,
    ) {
        self.seen += 1;
        if self.seen < self.ratio {
            return;
        }
        self.seen = 0;
        let Some(mut copy) = fabric.copy(packet) else {
            statistics.mirror_failed += 1;
            return;
        };
        let (mut headers, mut registers) = (flight.headers, flight.registers);
        if let Err(reason) = self.edits.apply(&mut copy, &mut headers, &mut registers) {
            statistics.dropped(reason);
            fabric.discard(reason, copy);
            return;
        }
        if rx.get(usize::from(self.to.0)).is_none_or(|rx| rx.cut) {
            statistics.dropped(DropReason::Wire);
            fabric.discard(DropReason::Wire, copy);
            return;
        }
        statistics.mirrored += 1;
        statistics.sent(self.to, copy.data().len());
        fabric.transmit(self.to, copy);
    }
}

/// The places of a set's packets, ascending.
#[inline]
fn bits(mut set: Set) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        if set == 0 {
            return None;
        }
        let at = set.trailing_zeros() as usize;
        set &= set - 1;
        Some(at)
    })
}
