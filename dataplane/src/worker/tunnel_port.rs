//! Ports behind tunnels: their frames are taken out of other packets before anything else is done with them,
//! and put into such packets after everything else was.

use super::upkeep::count_drop;
use super::{Addressee, Env, Headers, Lanes, Note, Steering, Walk, check_link};
use crate::counters::WorkerCounters;
use crate::drops::DropReason;
use crate::ids::PortId;
use crate::packet::PacketBuf;
use crate::rewrite::{self, ORIGINATED_L3};
use crate::snapshot::{Encapsulation, Snapshot};
use crate::wire::plain::{self, Address, Family, V4, V6};
use crate::wire::{self, FragmentRole, Kind, Parsed, geneve, udp, vxlan};
use arrayvec::ArrayVec;

/// Frames for tunnels that are set aside while the walk is about something else. A neighbour that answers may
/// have so many waiting for it.
const ASIDE_MAX: usize = 256;

/// Frames that are yet to be put into tunnels, and by which port they leave.
pub(super) type Aside<B> = ArrayVec<(PortId, B), ASIDE_MAX>;

/// The way in.
impl<E: Env> Walk<'_, E> {
    /// A packet of a port that tunnels end at: it is what is inside, from the port behind the tunnel, if it
    /// came through one. It is looked at as any packet then; what needs a closer look is returned.
    pub(super) fn take_out(
        &mut self,
        packet: E::Buf,
        steering: Steering,
        lanes: &mut Lanes<E::Buf>,
    ) -> Option<E::Buf> {
        let packet = match self.unwrap_packet(packet) {
            Ok(packet) => packet,
            Err((packet, reason)) => {
                self.drop(packet, reason);
                return None;
            }
        };
        let Some(link) = self.snapshot.link(packet.port()).filter(|_| packet.is_contiguous()) else {
            return Some(packet);
        };
        let link = link.without_tunnels();
        match plain::family(packet.data(), &link) {
            Some(Family::V4) => {
                if let Some(plain) = V4::glance(packet.data(), &link) {
                    self.line_up_plain(packet, steering, plain, Headers::V4, lanes);
                    return None;
                }
            }
            Some(Family::V6) => {
                if let Some(plain) = V6::glance(packet.data(), &link) {
                    self.line_up_plain(packet, steering, plain, Headers::V6, lanes);
                    return None;
                }
            }
            None => {}
        }
        Some(packet)
    }

    /// Strips what is around the frame inside, if the packet came through a tunnel that ends here.
    fn unwrap_packet(&mut self, mut packet: E::Buf) -> Result<E::Buf, (E::Buf, DropReason)> {
        let Some((parsed, kind)) = self.tunnelled(&packet) else { return Ok(packet) };
        let inside = self.inside(packet.data(), packet.port(), &parsed, kind);
        let (port, start, end) = match inside {
            Ok(inside) => inside,
            Err(reason) => return Err((packet, reason)),
        };
        match rewrite::decapsulate(&mut packet, parsed.l3, (start, end)) {
            Ok(()) => {
                packet.set_port(port);
                self.env.note(Note::Unwrapped { port });
                Ok(packet)
            }
            Err(reason) => Err((packet, reason)),
        }
    }

    /// The headers of a packet to an end of a tunnel, and the kind of that. Whatever is wrong with any other
    /// packet is found by who looks at it next.
    fn tunnelled(&self, packet: &E::Buf) -> Option<(Parsed, Encapsulation)> {
        let port = self.snapshot.port(packet.port()).filter(|_| packet.is_contiguous())?;
        let parsed = wire::parse(packet.data(), port.tenant).ok()?;
        let to_us = parsed.kind == Kind::Udp
            && port.addresses.iter().any(|own| own.address == parsed.key.dst)
            && check_link(packet.data(), &parsed, port).ok()? == Addressee::Us;
        let kind = self.snapshot.tunnel_at(packet.port(), parsed.key.dst_port).filter(|_| to_us)?;
        Some((parsed, kind))
    }

    /// The port that a frame is for, and where it is in the packet around it.
    fn inside(
        &self,
        frame: &[u8],
        link: PortId,
        parsed: &Parsed,
        kind: Encapsulation,
    ) -> Result<(PortId, usize, usize), DropReason> {
        if parsed.fragment != FragmentRole::Whole {
            return Err(DropReason::TunnelMalformed);
        }
        if !rewrite::udp_is_intact(frame, parsed) {
            return Err(DropReason::TunnelChecksum);
        }
        let datagram = rewrite::datagram(frame, parsed);
        let payload = datagram.get(udp::LEN..).ok_or(DropReason::TunnelMalformed)?;
        let (vni, shim) = match kind {
            Encapsulation::Geneve => geneve::parse(payload)?,
            _ => (vxlan::parse(payload)?, vxlan::LEN),
        };
        let port = self.snapshot.tunnel_port(link, parsed.key.dst_port, vni, parsed.key.src)?;
        let start = usize::from(parsed.l4);
        Ok((port, start + udp::LEN + shim, start + datagram.len()))
    }
}

/// The way out.
impl<E: Env> Walk<'_, E> {
    /// Gives a frame, complete with its link header, to its port.
    pub(super) fn emit(&mut self, port: PortId, packet: E::Buf) {
        if self.snapshot.is_behind_tunnel(port) {
            self.put_in(port, packet);
        } else {
            self.env.send(port, packet);
        }
    }

    /// Puts a frame into the tunnel of its port, and sends what that makes of it.
    fn put_in(&mut self, port: PortId, mut packet: E::Buf) {
        let Some(way) = self.snapshot.into_tunnel(port) else {
            return self.drop(packet, DropReason::NoRoute);
        };
        match rewrite::wrap(&mut packet, &way.outer) {
            Ok(()) => self.transmit(packet, ORIGINATED_L3, way.hop),
            Err(reason) => self.drop(packet, reason),
        }
    }

    /// Sends what was set aside.
    pub(super) fn put_in_aside(&mut self) {
        if self.state.aside.is_empty() {
            return;
        }
        for (port, packet) in core::mem::take(&mut self.state.aside) {
            self.emit(port, packet);
        }
    }
}

/// Sends a frame; one for a tunnel is set aside, for [`Walk::put_in_aside`].
pub(super) fn send_or_set_aside<E: Env>(
    env: &mut E,
    (snapshot, counters): (&Snapshot, &WorkerCounters),
    aside: &mut Aside<E::Buf>,
    (port, packet): (PortId, E::Buf),
) {
    if !snapshot.is_behind_tunnel(port) {
        env.send(port, packet);
    } else if let Err(full) = aside.try_push((port, packet)) {
        let (_, packet) = full.element();
        count_drop(snapshot, counters, &packet, DropReason::NeighbourQueueFull);
    }
}
