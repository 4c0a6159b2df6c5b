//! The shortcut: a plain packet of a connection whose state it does not change, to a neighbour that is known.
//!
//! It does what the rest of the walk would do with the same packet, and nothing else: whatever is not as it
//! nearly always is, is left to the rest. Nothing is counted or changed before that is decided.

use super::offload::Sight;
use super::open::Foreseen;
use super::{Addressee, Context, Env, Lane, Note, Walk};
use crate::addr::Ip;
use crate::conntrack::Slot;
use crate::flow::Direction;
use crate::ids::PortId;
use crate::packet::PacketBuf;
use crate::rewrite::{self, End, Forward};
use crate::snapshot::Hop;
use crate::wire::Parsed;
use crate::wire::plain::{self, Family, Link, Plain};

impl<'a, E: Env> Walk<'a, E> {
    /// The packet's family if it may be a plain one, and the link that it came by.
    #[inline(always)]
    pub(super) fn family(&self, packet: &E::Buf) -> Option<(Family, &'a Link)> {
        if !packet.is_contiguous() {
            return None;
        }
        let snapshot = self.snapshot;
        let link = snapshot.link(packet.port())?;
        Some((plain::family(packet.data(), link)?, link))
    }

    /// Forwards a packet of a connection; any other is looked at closely.
    #[inline(always)]
    pub(super) fn forward_plain<A: Forward>(
        &mut self,
        mut packet: E::Buf,
        plain: &Plain<A>,
        lane: &Lane,
        context: &Context<'_, 'a>,
    ) {
        let found = self.state.table.recognise(plain, lane.hash, lane.candidates);
        if let Some((slot, direction)) = found {
            if let Some(port) = self.express(&mut packet, plain, slot, direction) {
                return self.env.send(port, packet);
            }
        }
        let foreseen = context.foreseen.get(usize::from(lane.foreseen));
        self.forward_closely(packet, plain, found, foreseen);
    }

    /// A plain packet that is the first of its connection, or changes it, or is on no plain way.
    #[inline(never)] // The others are not to pay for it.
    fn forward_closely<A: Forward>(
        &mut self,
        packet: E::Buf,
        plain: &Plain<A>,
        found: Option<(Slot, Direction)>,
        foreseen: Option<&Foreseen<'a>>,
    ) {
        let given_back = match found {
            Some((slot, Direction::Original)) => self.express_through(packet, plain, slot),
            _ => Some(packet),
        };
        let Some(packet) = given_back else { return };
        match plain.parsed() {
            Ok(parsed) => self.forward_parsed(packet, &parsed, Addressee::Us, found, foreseen),
            Err(reason) => self.refuse(packet, reason),
        }
    }

    /// Sends a plain packet, changed as it has to be; gives it back if its way is not plain.
    pub(super) fn send_plain<A: Forward>(
        &mut self,
        mut packet: E::Buf,
        parsed: &Parsed,
        end: Option<(End, Ip, u16)>,
        hop: Hop,
    ) -> Option<E::Buf> {
        let plain = Plain::<A>::of(parsed, packet.data());
        let link = self.snapshot.link(hop.port).filter(|link| link.leaves_plainly());
        let (Some(plain), Some(link)) = (plain, link) else { return Some(packet) };
        let Some(mac) = self.state.neighbours.find(self.now, hop.port, hop.next_hop) else {
            return Some(packet);
        };
        self.env.note(Note::NextHop(Some(mac)));
        A::forward(packet.data_mut(), &plain, end, mac, link.mac());
        self.env.send(hop.port, packet);
        None
    }

    /// Accounts for the packet and rewrites it; returns the port it leaves by. `None`, and nothing has
    /// happened, if it takes more than that.
    #[inline(always)]
    fn express<A: Forward>(
        &mut self,
        packet: &mut E::Buf,
        plain: &Plain<A>,
        slot: Slot,
        direction: Direction,
    ) -> Option<PortId> {
        let entry = self.state.table.entry_mut(slot);
        if !entry.stays(direction, plain.tcp_flags) || entry.judged() != self.judged_by {
            return None;
        }
        let backend = entry.backend();
        if self.snapshot.has_meters() && self.snapshot.meters_packets(entry.service()) {
            return None;
        }
        let hop = self.snapshot.way(plain.tenant, backend, direction, plain.dst.ip())?;
        let link = self.snapshot.link(hop.port)?;
        if plain.ttl <= 1 || plain.packet_len > link.mtu || link.is_tagged() {
            return None;
        }
        let mac = self.state.neighbours.find(self.now, hop.port, hop.next_hop)?;
        if !entry.pass(direction, plain.packet_len, self.now) {
            return None;
        }
        let (state, service) = (entry.state(), entry.service());
        self.env.note(Note::Known { slot, direction, state, service, backend });
        self.env.note(Note::Plain);
        let concerns_hardware = entry.concerns_hardware(self.state.offload.price);
        self.count_traffic(backend, direction, plain.packet_len);
        if concerns_hardware {
            // No packet for a tunnel comes this way, but some that were in one do.
            let class = rewrite::class(packet.data(), plain::L3).unwrap_or_default();
            let sight = Sight { port: packet.port(), fits: true, class };
            self.tend_hardware(sight, slot, direction);
        }
        let ends = self.state.table.ends(slot);
        self.env.note(Note::Leaves { hop, mtu: link.mtu });
        self.env.note(Note::NextHop(Some(mac)));
        let frame = packet.data_mut();
        // Each direction has a call of its own, in which the places that it changes are constants.
        match direction {
            _ if !ends.nat => A::forward(frame, plain, None, mac, link.mac()),
            Direction::Original => {
                let (ip, port) = ends.backend;
                self.env.note(Note::Rewritten { end: End::Destination, ip, port });
                A::forward(frame, plain, Some((End::Destination, ip, port)), mac, link.mac());
            }
            Direction::Reply => {
                let (ip, port) = ends.vip;
                self.env.note(Note::Rewritten { end: End::Source, ip, port });
                A::forward(frame, plain, Some((End::Source, ip, port)), mac, link.mac());
            }
        }
        Some(hop.port)
    }
}
