//! The way out: what is rewritten, where the packet goes next, and who on that link takes it.

use super::{Env, Note, Walk};
use crate::addr::Ip;
use crate::conntrack::Slot;
use crate::drops::DropReason;
use crate::flow::{Direction, FlowKey};
use crate::fragments::FragmentKey;
use crate::ids::{BackendId, PortId, ServiceId, TenantId};
use crate::neighbour::Hold;
use crate::packet::PacketBuf;
use crate::rewrite::{self, End, IcmpError, ORIGINATED_L3};
use crate::snapshot::Hop;
use crate::wire::plain::{V4, V6};
use crate::wire::{self, FragmentRole, Parsed};

/// What happens to a packet between lookup and transmission. Kept for later fragments too.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Translation {
    /// The end of the flow that gets another address and port; `None` leaves the packet as it is (DSR).
    pub(super) rewrite: Option<(End, Ip, u16)>,
    /// Where it goes.
    pub(super) target: Target,
    /// Whose packet it is.
    pub(super) service: ServiceId,
}

/// Where a packet goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Target {
    /// To a backend, whose hop the snapshot knows.
    Backend(BackendId),
    /// To a backend through its tunnel, with what tells the flow from others on the way.
    Tunnel(BackendId, u16),
    /// To an address, by the routes.
    Address(Ip),
    /// Out of this port as it is, being none of our business for this reason.
    Wire(PortId, DropReason),
}

impl<E: Env> Walk<'_, E> {
    /// The translation of one direction of a connection.
    pub(super) fn translation(&self, slot: Slot, direction: Direction) -> Translation {
        let view = self.state.table.ends(slot);
        let service = self.state.table.entry(slot).service();
        match direction {
            Direction::Original if !view.nat => {
                self.unchanged(view.backend_id, || self.state.table.key(slot, direction))
            }
            Direction::Original => Translation {
                rewrite: Some((End::Destination, view.backend.0, view.backend.1)),
                target: Target::Backend(view.backend_id),
                service,
            },
            Direction::Reply => Translation {
                rewrite: view.nat.then_some((End::Source, view.vip.0, view.vip.1)),
                target: Target::Address(view.client.0),
                service,
            },
        }
    }

    /// Translates a packet and sends it; later fragments of it will follow, and those that overtook it
    /// leave now.
    pub(super) fn deliver(&mut self, packet: E::Buf, parsed: &Parsed, translation: &Translation) {
        self.deliver_one(packet, parsed, translation);
        if parsed.fragment != FragmentRole::First {
            return;
        }
        let key = fragment_key(parsed);
        self.state.fragments.insert(self.now, &key, (self.judged_by, *translation));
        while let Some(later) = self.state.fragments.take_released(&key) {
            match wire::parse(later.data(), parsed.key.tenant) {
                Ok(parsed) => self.deliver_later(later, &parsed, translation),
                Err(reason) => self.drop(later, reason),
            }
        }
    }

    /// Translates one packet and sends it. Errors are judged before anything is changed, so that an
    /// ICMP error quotes what its receiver sent.
    pub(super) fn deliver_one(&mut self, packet: E::Buf, parsed: &Parsed, translation: &Translation) {
        if let Target::Wire(port, why) = translation.target {
            if let Some(packet) = self.metered_in_passing(packet, parsed.packet_len()) {
                self.pass(packet, port, why);
            }
            return;
        }
        let Some((hop, mtu)) = self.hop(parsed.key.tenant, translation.target) else {
            return self.drop(packet, DropReason::NoRoute);
        };
        self.env.note(Note::Leaves { hop, mtu });
        if parsed.ttl <= 1 {
            return self.answer_error(packet, parsed, IcmpError::TtlExceeded, DropReason::TtlExpired);
        }
        if parsed.packet_len() > mtu {
            return self.too_big(packet, parsed, mtu);
        }
        if let Target::Tunnel(backend, entropy) = translation.target {
            self.env.note(Note::Wrapped(backend));
            return self.send_through(packet, parsed, (backend, entropy), hop);
        }
        if let Some((end, ip, port)) = translation.rewrite {
            self.env.note(Note::Rewritten { end, ip, port });
        }
        let given_back = match parsed.key.dst.is_v4() {
            true => self.send_plain::<V4>(packet, parsed, translation.rewrite, hop),
            false => self.send_plain::<V6>(packet, parsed, translation.rewrite, hop),
        };
        let Some(mut packet) = given_back else { return };
        if let Some((end, ip, port)) = translation.rewrite {
            rewrite::translate(packet.data_mut(), parsed, end, ip, port);
        }
        rewrite::decrement_ttl(packet.data_mut(), parsed);
        self.transmit(packet, parsed.l3, hop);
    }

    /// Where a target is reached, and the largest packet that gets there: the MTU of the link to it, less
    /// what a tunnel puts around it.
    // Every packet comes here: a call that returns this in memory costs more than the body.
    #[inline(always)]
    pub(super) fn hop(&self, tenant: TenantId, target: Target) -> Option<(Hop, u16)> {
        let (hop, around) = match target {
            Target::Backend(id) => (self.snapshot.backend(id)?.hop?, 0),
            Target::Address(ip) => (self.snapshot.route(tenant, ip)?, 0),
            Target::Tunnel(id, _) => (self.snapshot.backend(id)?.hop?, self.snapshot.tunnel(id)?.overhead()),
            Target::Wire(..) => return None,
        };
        Some((hop, self.snapshot.port(hop.port)?.mtu.saturating_sub(around)))
    }

    /// Puts the link header on and hands the packet to the port, or lets it wait for its neighbour.
    pub(super) fn transmit(&mut self, mut packet: E::Buf, l3: u16, hop: Hop) {
        let Some(port) = self.snapshot.port(hop.port) else {
            return self.drop(packet, DropReason::NoRoute);
        };
        let known = self.state.neighbours.find(self.now, hop.port, hop.next_hop);
        self.env.note(Note::NextHop(known));
        let to = known.unwrap_or_default();
        if let Err(reason) = rewrite::set_link(&mut packet, l3, to, port.mac, port.vlan) {
            return self.drop(packet, reason);
        }
        if known.is_some() {
            return self.emit(hop.port, packet);
        }
        if self.snapshot.names(hop) {
            // Forgotten while nobody needed it, perhaps. It must not compete with what a scan asks for; if
            // even so there is no room, `hold` says so.
            let _ = self.state.neighbours.id_of(self.now, hop.port, hop.next_hop);
        }
        match self.state.neighbours.hold(self.now, hop.port, hop.next_hop, packet) {
            Hold::Held => self.env.note(Note::Waits),
            Hold::Send(mut packet, mac) => {
                rewrite::set_destination(packet.data_mut(), mac);
                self.emit(hop.port, packet);
            }
            Hold::Drop(packet, reason) => self.drop(packet, reason),
        }
    }

    /// A packet larger than the next link. Millrace never fragments, so its sender is told the MTU even
    /// if it left fragmenting to routers (DF clear): the alternative is a black hole.
    fn too_big(&mut self, packet: E::Buf, parsed: &Parsed, mtu: u16) {
        let error = if parsed.key.src.is_v4() {
            IcmpError::FragmentationNeeded { mtu }
        } else {
            IcmpError::PacketTooBig { mtu }
        };
        self.answer_error(packet, parsed, error, DropReason::TooBig);
    }

    /// Drops a packet and, in its buffer, sends its source an ICMP error about it.
    pub(super) fn answer_error(
        &mut self,
        mut packet: E::Buf,
        parsed: &Parsed,
        error: IcmpError,
        reason: DropReason,
    ) {
        let written = match self.snapshot.source_for(packet.port(), parsed.key.src) {
            Some(from) if self.state.rates.errors.allow(self.now) => {
                rewrite::into_icmp_error(&mut packet, parsed, error, from).is_ok()
            }
            _ => false,
        };
        if !written {
            return self.drop(packet, reason);
        }
        self.count_answered(&packet, Note::AnsweredError(error), reason);
        self.originate(packet, parsed);
    }

    /// A packet is dropped, and what its sender hears of that goes out in its buffer.
    pub(super) fn count_answered(&mut self, packet: &E::Buf, answer: Note, reason: DropReason) {
        self.env.note(Note::Dropped(reason));
        self.env.note(answer);
        self.count_drop(packet, reason);
    }

    /// Sends what has become of a packet in its own buffer (an ICMP error, an echo reply, a reset) to
    /// the source of that packet.
    pub(super) fn originate(&mut self, packet: E::Buf, about: &Parsed) {
        let hop = self.route_back(&packet, about);
        self.originate_to(packet, hop);
    }

    /// Sends what has become of a packet in its own buffer.
    pub(super) fn originate_to(&mut self, packet: E::Buf, hop: Option<Hop>) {
        self.state.counters.generated.add(1);
        match hop {
            Some(hop) => self.transmit(packet, ORIGINATED_L3, hop),
            None => self.drop(packet, DropReason::NoRoute),
        }
    }

    /// The way to a packet's source: the port it came in by if the source is on that link (link-local
    /// addresses have no other route), else by the routes.
    fn route_back(&self, packet: &E::Buf, about: &Parsed) -> Option<Hop> {
        let source = about.key.src;
        if self.snapshot.is_on_link(packet.port(), source) {
            return Some(Hop { port: packet.port(), next_hop: source });
        }
        self.snapshot.route(about.key.tenant, source)
    }
}

/// What all fragments of a packet have in common.
pub(super) fn fragment_key(parsed: &Parsed) -> FragmentKey {
    let FlowKey { src, dst, tenant, .. } = parsed.key;
    let protocol = if src.is_v4() { parsed.protocol } else { 0 };
    FragmentKey { src, dst, id: parsed.fragment_id, tenant, protocol }
}
