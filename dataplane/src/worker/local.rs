//! Health checks on the data path: the checker's packets leave as a service's packets do, and what answers
//! them is taken out of the walk.
//!
//! Probes come from our own addresses and from [`PROBE_PORTS`]. No client has such an address, so their
//! answers belong to no connection; nothing of them is remembered here.

use super::{Env, State, Walk, Worker};
use crate::addr::Ip;
use crate::conntrack::{self, Gone, Outcome};
use crate::drops::DropReason;
use crate::flow::{FlowKey, Protocol};
use crate::ids::{BackendId, TenantId};
use crate::packet::PacketBuf;
use crate::rewrite::{self, ORIGINATED_L3};
use crate::snapshot::{Mode, Snapshot};
use crate::time::Tick;
use crate::wire::{FragmentRole, IcmpMessage, Parsed, field};
use core::ops::RangeInclusive;

/// The ports that probes come from: the dynamic ones (RFC 6335 §6).
pub const PROBE_PORTS: RangeInclusive<u16> = 49152..=65535;

/// What became of a probe's packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sent {
    /// It is on its way.
    Left,
    /// It waits for the next hop to be found, and is lost if that is not.
    Waits,
    /// There was no buffer: that says nothing of the backend.
    Lost,
}

impl<B: PacketBuf> Worker<B> {
    /// Sends the checker's IP packet by the way of a backend's packets.
    pub fn send_probe<E: Env<Buf = B>>(
        &mut self,
        now: Tick,
        backend: BackendId,
        packet: &[u8],
        env: &mut E,
    ) -> Sent {
        let sent = self.walk(now, env).send_probe(backend, packet);
        self.state.count_held();
        sent
    }
}

/// The flow of a packet of the checker's, which has no options in front of its ports.
fn key(packet: &[u8]) -> Option<FlowKey> {
    let (protocol, src, dst, at) = if packet.first()? >> 4 == 4 {
        let address = |at: usize| field(packet, at).map(|bytes| Ip::v4(u32::from_be_bytes(*bytes)));
        (*packet.get(9)?, address(12)?, address(16)?, 20)
    } else {
        let address = |at: usize| field(packet, at).map(|bytes| Ip::v6(*bytes));
        (*packet.get(6)?, address(8)?, address(24)?, 40)
    };
    let protocol = if protocol == Protocol::Tcp as u8 { Protocol::Tcp } else { Protocol::Udp };
    let [a, b, c, d] = *field::<4>(packet, at)?;
    let (src_port, dst_port) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    Some(FlowKey { src, dst, src_port, dst_port, protocol, tenant: TenantId::default() })
}

impl<B: PacketBuf> State<B> {
    /// A packet of a connection whose SYN the backend has not answered: what its `outcome` says of the
    /// backend, and whether it is that SYN `again`.
    pub(super) fn count_hint(&self, backend: BackendId, outcome: Outcome, again: bool) {
        let Some(counters) = self.counters.backend(backend) else { return };
        match outcome {
            Outcome::Changed(conntrack::State::ResetBackend) => counters.refused.add(1),
            Outcome::Unchanged if again => counters.asked_again.add(1),
            _ => {}
        }
    }
}

/// Whether a connection has ended without a word of its backend's. Where answers pass us by, nobody knows.
pub(super) fn went_unanswered(snapshot: &Snapshot, gone: &Gone) -> bool {
    gone.state == conntrack::State::SynSent
        && snapshot.service(gone.service).is_some_and(|service| service.mode == Mode::Nat)
}

impl<E: Env> Walk<'_, E> {
    fn send_probe(&mut self, backend: BackendId, bytes: &[u8]) -> Sent {
        // It was removed meanwhile, or has no route: as if the packet were lost on the way.
        let Some(hop) = self.snapshot.backend(backend).and_then(|b| b.hop) else { return Sent::Left };
        let Some(mut packet) = self.env.alloc(hop.port) else { return Sent::Lost };
        let l3 = usize::from(ORIGINATED_L3);
        if !packet.set_len(l3 + bytes.len()) {
            return Sent::Lost;
        }
        let known = self.state.neighbours.find(self.now, hop.port, hop.next_hop).is_some();
        let end = ORIGINATED_L3 + bytes.len() as u16;
        self.state.counters.generated.add(1);
        match packet.data_mut().get_mut(l3..) {
            Some(room) => room.copy_from_slice(bytes),
            None => return Sent::Lost,
        }
        if let Some(outer) = self.snapshot.tunnel(backend) {
            let entropy = key(bytes).map_or(0, |key| rewrite::entropy(&key));
            if let Err(reason) = rewrite::encapsulate(&mut packet, (ORIGINATED_L3, end), outer, entropy) {
                self.drop(packet, reason);
                return Sent::Lost;
            }
        }
        self.transmit(packet, ORIGINATED_L3, hop);
        if known { Sent::Left } else { Sent::Waits }
    }

    /// Which probe a packet with this key, towards no service, may answer: from which port of ours, and to
    /// whom.
    pub(super) fn answers_probe(&self, key: &FlowKey) -> Option<(u16, Ip)> {
        let may =
            PROBE_PORTS.contains(&key.dst_port) && self.snapshot.answers_probes(key.tenant, key.src, key.dst);
        may.then_some((key.dst_port, key.src))
    }

    /// Which probe an ICMP message may be about; an echo request's port is its identifier.
    pub(super) fn concerns_probe(
        &self,
        packet: &E::Buf,
        parsed: &Parsed,
        message: &IcmpMessage,
    ) -> Option<(u16, Ip)> {
        match message {
            IcmpMessage::EchoReply => {
                let [_, _, _, _, a, b, ..] = *parsed.transport(packet.data()) else { return None };
                let dst_port = u16::from_be_bytes([a, b]);
                self.answers_probe(&FlowKey { dst_port, ..parsed.key })
            }
            IcmpMessage::Error(quoted) if quoted.key.src == parsed.key.dst => {
                self.answers_probe(&quoted.key.reversed())
            }
            _ => None,
        }
    }

    /// Gives a packet to the checker. `probe`: which one it is about.
    pub(super) fn deliver_locally(&mut self, packet: E::Buf, parsed: &Parsed, probe: (u16, Ip)) {
        if parsed.fragment != FragmentRole::Whole {
            return self.drop(packet, DropReason::FragmentUnknown);
        }
        let whole = packet.data().get(usize::from(parsed.l3)..usize::from(parsed.end));
        if whole.is_some_and(|bytes| self.env.deliver_local(probe.0, probe.1, bytes)) {
            self.consume(packet);
        } else {
            self.drop(packet, DropReason::CheckerBusy);
        }
    }
}
