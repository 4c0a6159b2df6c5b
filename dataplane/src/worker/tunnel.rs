//! Packets for backends behind tunnels: the way out, and its shortcut.

use super::egress::{Target, Translation};
use super::notes::Note;
use super::offload::Sight;
use super::{Env, Walk};
use crate::addr::MacAddr;
use crate::conntrack::Slot;
use crate::drops::DropReason;
use crate::flow::{Direction, FlowKey};
use crate::ids::{BackendId, ServiceId};
use crate::packet::PacketBuf;
use crate::rewrite::{self, Forward, ORIGINATED_L3, Outer};
use crate::snapshot::{Hop, VlanTags};
use crate::wire::Parsed;
use crate::wire::plain::{L3, Plain};

/// Tunnels are one-way: what comes back does not come by us.
const WAY: Direction = Direction::Original;

/// How a plain packet leaves through a tunnel.
struct PlainWay<'a> {
    outer: &'a Outer,
    hop: Hop,
    /// The largest packet that fits.
    mtu: u16,
    from: MacAddr,
    to: MacAddr,
}

impl<'a, E: Env> Walk<'a, E> {
    /// What becomes of a packet to a backend that keeps its addresses: it goes through the backend's tunnel,
    /// if there is one. `key`: of its flow, from the client.
    pub(super) fn unchanged(&self, backend: BackendId, key: impl FnOnce() -> FlowKey) -> Translation {
        let target = match self.snapshot.tunnel(backend) {
            Some(_) => Target::Tunnel(backend, rewrite::entropy(&key())),
            None => Target::Backend(backend),
        };
        let service =
            self.snapshot.backend(backend).map_or_else(ServiceId::default, |backend| backend.service);
        Translation { rewrite: None, target, service }
    }

    /// Puts a packet that fits into its tunnel and sends it.
    pub(super) fn send_through(
        &mut self,
        mut packet: E::Buf,
        parsed: &Parsed,
        (backend, entropy): (BackendId, u16),
        hop: Hop,
    ) {
        let Some(outer) = self.snapshot.tunnel(backend) else {
            return self.drop(packet, DropReason::NoRoute);
        };
        rewrite::decrement_ttl(packet.data_mut(), parsed);
        match rewrite::encapsulate(&mut packet, (parsed.l3, parsed.end), outer, entropy) {
            Ok(()) => self.transmit(packet, ORIGINATED_L3, hop),
            Err(reason) => self.drop(packet, reason),
        }
    }

    /// The shortcut (see `express`) for a packet of a connection whose backend is behind a tunnel. Gives the
    /// packet back, and nothing has happened, if it takes more than that.
    pub(super) fn express_through<A: Forward>(
        &mut self,
        mut packet: E::Buf,
        plain: &Plain<A>,
        slot: Slot,
    ) -> Option<E::Buf> {
        let Some(PlainWay { outer, hop, mtu, from, to }) = self.plain_way(plain, slot) else {
            return Some(packet);
        };
        let entry = self.state.table.entry_mut(slot);
        if !entry.pass(WAY, plain.packet_len, self.now) {
            return Some(packet);
        }
        let (state, service, backend) = (entry.state(), entry.service(), entry.backend());
        let concerns_hardware = entry.concerns_hardware(self.state.offload.price);
        self.env.note(Note::Known { slot, direction: WAY, state, service, backend });
        self.env.note(Note::Plain);
        self.count_traffic(backend, WAY, plain.packet_len);
        if concerns_hardware {
            let class = rewrite::class(packet.data(), L3).unwrap_or_default();
            let sight = Sight { port: packet.port(), fits: true, class };
            self.tend_hardware(sight, slot, WAY);
        }
        self.env.note(Note::Leaves { hop, mtu });
        self.env.note(Note::NextHop(Some(to)));
        self.env.note(Note::Wrapped(backend));
        // This takes one from the hop count; the link header that it writes gives way to the tunnel's.
        A::forward(packet.data_mut(), plain, None, to, from.to_word());
        let place = (L3 as u16, L3 as u16 + plain.packet_len);
        let sent = rewrite::encapsulate(&mut packet, place, outer, rewrite::entropy(&plain.key()))
            .and_then(|()| rewrite::set_link(&mut packet, ORIGINATED_L3, to, from, VlanTags::default()));
        match sent {
            Ok(()) => self.env.send(hop.port, packet),
            Err(reason) => self.drop(packet, reason),
        }
        None
    }

    /// The way of a plain packet from the client, if all of it is known and it changes nothing but counters.
    fn plain_way<A: Forward>(&mut self, plain: &Plain<A>, slot: Slot) -> Option<PlainWay<'a>> {
        let snapshot = self.snapshot;
        let entry = self.state.table.entry(slot);
        let outer = snapshot.tunnel(entry.backend()).filter(|_| !entry.has_reply_key())?;
        let unjudged = entry.judged() != self.judged_by;
        if unjudged || !entry.stays(WAY, plain.tcp_flags) || !snapshot.keeps_connections(entry.backend()) {
            return None;
        }
        if snapshot.has_meters() && snapshot.meters_packets(entry.service()) {
            return None;
        }
        let hop = snapshot.backend(entry.backend())?.hop?;
        let port = snapshot
            .port(hop.port)
            .filter(|port| port.vlan == VlanTags::default() && port.tunnel.is_none())?;
        let mtu = port.mtu.saturating_sub(outer.overhead());
        if plain.ttl <= 1 || plain.packet_len > mtu {
            return None;
        }
        let to = self.state.neighbours.find(self.now, hop.port, hop.next_hop)?;
        Some(PlainWay { outer, hop, mtu, from: port.mac, to })
    }
}
