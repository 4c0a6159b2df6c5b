//! Frames taken out of tunnels.
//!
//! What the network said to the packet outside, it said to the packet inside: a mark of congestion is carried
//! over (RFC 6040 §4.2), unless the ends of what is inside could not understand it. Then the packet is
//! dropped, which they do understand.

use super::{adjust, replaced};
use crate::drops::DropReason;
use crate::packet::PacketBuf;
use crate::wire::checksum::Sum;
use crate::wire::{self, Parsed, field, field_mut, ipv4, ipv6, udp, word};

/// Whether the checksum of the UDP datagram that `parsed` found is right, if it has one. What has none is
/// fine: tunnels may do without, over IPv6 too (RFC 6935).
#[must_use]
pub fn udp_is_intact(frame: &[u8], parsed: &Parsed) -> bool {
    let datagram = datagram(frame, parsed);
    let Some(header) = udp::Header::new(datagram) else { return false };
    let key = &parsed.key;
    let sum = || Sum::default().pseudo_header(key.src, key.dst, udp::PROTOCOL, datagram.len());
    header.checksum() == 0 || sum().bytes(datagram).is_valid()
}

/// The UDP datagram that `parsed` found, header included.
#[must_use]
pub fn datagram<'a>(frame: &'a [u8], parsed: &Parsed) -> &'a [u8] {
    let rest = parsed.transport(frame);
    let len = udp::Header::new(rest).map_or(0, udp::Header::datagram_len);
    rest.get(..len).unwrap_or_default()
}

/// Leaves of a frame what is at `start..end` of it, the frame inside, and gives the packet in that the mark
/// of the outer IP header at `l3`.
///
/// # Errors
/// [`DropReason::TunnelEcn`] if the mark must not be lost, and cannot be given.
pub fn decapsulate<B: PacketBuf>(
    buf: &mut B,
    l3: u16,
    (start, end): (usize, usize),
) -> Result<(), DropReason> {
    let outer = super::class(buf.data(), l3.into()).unwrap_or_default();
    if !(buf.set_len(end) && buf.trim_front(start)) {
        return Err(DropReason::TunnelMalformed);
    }
    let Some(l3) = wire::ip_at(buf.data()) else { return Ok(()) };
    let Some(inner) = super::class(buf.data(), l3) else { return Ok(()) };
    let mark = mark(inner & ECN, outer & ECN).ok_or(DropReason::TunnelEcn)?;
    if mark != inner & ECN {
        // A header that is cut short stays as it is, and is found out by who reads it.
        let _ = set_mark(buf.data_mut(), l3, mark);
    }
    Ok(())
}

/// The ECN field of a traffic class (RFC 3168 §5),
const ECN: u8 = 0x03;
/// and what it may say: not of such a transport,
const NOT_ECT: u8 = 0;
/// of such a transport, in two ways,
const ECT_1: u8 = 1;
const ECT_0: u8 = 2;
/// or congestion was met.
const CE: u8 = 3;

/// The mark that a packet leaves a tunnel with; `None` if it must not (RFC 6040, figure 4).
const fn mark(inner: u8, outer: u8) -> Option<u8> {
    match (inner, outer) {
        (NOT_ECT, CE) => None,
        (ECT_0 | ECT_1, CE) => Some(CE),
        (ECT_0, ECT_1) => Some(ECT_1),
        _ => Some(inner),
    }
}

/// Sets the mark of the IP packet at `l3` of a frame.
fn set_mark(frame: &mut [u8], l3: usize, mark: u8) -> Option<()> {
    let packet = frame.get_mut(l3..)?;
    let &[first] = field(packet, 0)?;
    if first >> 4 == 4 {
        let header: &mut [u8; ipv4::LEN] = field_mut(packet, 0)?;
        let old = word(header, 0)?;
        header[ipv4::TRAFFIC_CLASS] = header[ipv4::TRAFFIC_CLASS] & !ECN | mark;
        let new = word(header, 0)?;
        adjust(header, ipv4::CHECKSUM, replaced(old, new)).map(|_| ())
    } else {
        let header: &mut [u8; ipv6::LEN] = field_mut(packet, 0)?;
        header[1] = header[1] & !(ECN << 4) | mark << 4;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Row by row, as the RFC has it.
    #[test]
    fn marks_are_those_of_the_rfc() {
        let columns = [NOT_ECT, ECT_0, ECT_1, CE];
        for (inner, leaves) in [
            (NOT_ECT, [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None]),
            (ECT_0, [Some(ECT_0), Some(ECT_0), Some(ECT_1), Some(CE)]),
            (ECT_1, [Some(ECT_1), Some(ECT_1), Some(ECT_1), Some(CE)]),
            (CE, [Some(CE), Some(CE), Some(CE), Some(CE)]),
        ] {
            assert_eq!(columns.map(|outer| mark(inner, outer)), leaves, "{inner}");
        }
    }
}
