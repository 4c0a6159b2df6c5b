//! What all originated packets have in common: a fresh IP header, and a checksum over the whole message.

use super::ORIGINATED_L3;
use crate::addr::Ip;
use crate::drops::DropReason;
use crate::packet::PacketBuf;
use crate::wire::checksum::Sum;
use crate::wire::{Parsed, field_mut, icmp, ipv4, ipv6};

/// TTL and hop limit of originated packets, neighbour discovery excepted.
pub(super) const HOPS: u8 = 64;

/// The IP header of an originated packet, at [`ORIGINATED_L3`]. Everything behind it is its payload.
#[derive(Clone, Copy)]
pub(super) struct Network {
    pub(super) src: Ip,
    pub(super) dst: Ip,
    pub(super) protocol: u8,
    pub(super) hops: u8,
    /// IPv4 only.
    pub(super) traffic_class: u8,
}

impl Network {
    pub(super) const fn new(src: Ip, dst: Ip, protocol: u8) -> Network {
        Network { src, dst, protocol, hops: HOPS, traffic_class: 0 }
    }

    pub(super) const fn header_len(&self) -> usize {
        if self.dst.is_v4() { ipv4::LEN } else { ipv6::LEN }
    }

    /// Offset of the payload.
    pub(super) const fn l4(&self) -> usize {
        ORIGINATED_L3 as usize + self.header_len()
    }

    /// Writes the header in front of a payload that is complete but for its checksum, whose field is 0
    /// and `checksum` bytes into it, and fills that in.
    pub(super) fn emit(&self, frame: &mut [u8], checksum: usize) -> Option<()> {
        let payload = frame.get_mut(self.l4()..)?;
        let len = payload.len();
        let sum = match self.protocol {
            icmp::PROTOCOL => Sum::default(),
            _ => Sum::default().pseudo_header(self.src, self.dst, self.protocol, len),
        };
        *field_mut(payload, checksum)? = sum.bytes(payload).finish().to_be_bytes();
        self.emit_header(frame, u16::try_from(len).ok()?)
    }

    fn emit_header(&self, frame: &mut [u8], payload_len: u16) -> Option<()> {
        let Network { src, dst, protocol, hops, traffic_class } = *self;
        let l3 = ORIGINATED_L3.into();
        if dst.is_v4() {
            let header = ipv4::Repr { src, dst, protocol, traffic_class, ttl: hops, payload_len };
            header.emit(field_mut(frame, l3)?);
        } else {
            let header = ipv6::Repr { src, dst, next_header: protocol, hop_limit: hops, payload_len };
            header.emit(field_mut(frame, l3)?);
        }
        Some(())
    }
}

/// Cuts the frame to the IP packet that `parsed` found, which then begins at offset 0.
pub(super) fn to_bare_packet<B: PacketBuf>(buf: &mut B, parsed: &Parsed) -> Result<(), DropReason> {
    let fits = buf.set_len(parsed.end.into()) && buf.trim_front(parsed.l3.into());
    fits.then_some(()).ok_or(DropReason::NoHeadroom)
}

/// Whether a packet can be sent from, and answered to, this address: that of one station.
pub(crate) fn is_station(ip: Ip) -> bool {
    if ip.is_v4() {
        ipv4::is_valid_source(ip.low32())
    } else {
        !(ipv6::is_multicast(ip) || ip == ipv6::UNSPECIFIED || ip == ipv6::LOOPBACK)
    }
}
