//! Where a packet's headers are, and whether its checksums are right.

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_QINQ: u16 = 0x88a8;
const ETHERTYPE_IPV6: u16 = 0x86dd;

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;

/// A TCP segment or UDP datagram in a frame: offsets from its start, all within it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Headers {
    pub(crate) ipv6: bool,
    pub(crate) udp: bool,
    /// Of the IP header.
    pub(crate) l3: usize,
    /// Of the TCP or UDP header, which is there as a whole, without its options.
    pub(crate) l4: usize,
    /// Of what follows the packet: Ethernet's padding, or nothing.
    pub(crate) end: usize,
}

impl Headers {
    /// Finds them. `None`: not TCP or UDP, a fragment, with extension headers, or cut short.
    #[inline]
    pub(crate) fn find(frame: &[u8]) -> Option<Headers> {
        let mut l3 = 14;
        let mut kind = word(frame, 12)?;
        while matches!(kind, ETHERTYPE_VLAN | ETHERTYPE_QINQ) && l3 < 22 {
            kind = word(frame, l3 + 2)?;
            l3 += 4;
        }
        let ip = frame.get(l3..)?;
        let (ipv6, protocol, header, length) = match kind {
            ETHERTYPE_IPV4 => {
                let ip = ip.get(..20)?;
                // Neither a first fragment nor a later one.
                if ip[0] >> 4 != 4 || word(ip, 6)? & 0x3fff != 0 {
                    return None;
                }
                (false, ip[9], usize::from(ip[0] & 15) * 4, usize::from(word(ip, 2)?))
            }
            ETHERTYPE_IPV6 => {
                let ip = ip.get(..40)?;
                (true, ip[6], 40, 40 + usize::from(word(ip, 4)?))
            }
            _ => return None,
        };
        let least = match protocol {
            TCP => 20,
            UDP => 8,
            _ => return None,
        };
        if header < 20 || length < header + least || length > ip.len() {
            return None;
        }
        Some(Headers { ipv6, udp: protocol == UDP, l3, l4: l3 + header, end: l3 + length })
    }

    /// Offset of the TCP or UDP checksum.
    pub(crate) fn checksum(&self) -> usize {
        self.l4 + if self.udp { 6 } else { 16 }
    }

    /// Offset and length of the addresses, source first.
    pub(crate) fn addresses(&self) -> (usize, usize) {
        if self.ipv6 { (self.l3 + 8, 16) } else { (self.l3 + 12, 4) }
    }
}

/// Whether the checksums of a TCP segment or UDP datagram are right; `None` for any other frame.
pub fn checksums_are_right(frame: &[u8]) -> Option<bool> {
    let headers = Headers::find(frame)?;
    if !headers.ipv6 && fold(sum(&frame[headers.l3..headers.l4])) != 0xffff {
        return Some(false);
    }
    let packet = &frame[headers.l4..headers.end];
    if headers.udp && packet[6..8] == [0, 0] {
        // None, which only IPv4 allows.
        return Some(!headers.ipv6);
    }
    let (addresses, size) = headers.addresses();
    let protocol = if headers.udp { UDP } else { TCP };
    let pseudo = sum(&frame[addresses..addresses + 2 * size]) + packet.len() as u32 + u32::from(protocol);
    Some(fold(pseudo + sum(packet)) == 0xffff)
}

/// The sum of 16-bit words, the last one filled up with zero. At most 64 KiB, so it cannot overflow.
pub(crate) fn sum(bytes: &[u8]) -> u32 {
    let words = bytes.chunks(2);
    words.map(|word| u32::from(word[0]) << 8 | word.get(1).map_or(0, |low| u32::from(*low))).sum()
}

/// A sum as 16 bits: its halves, and what is carried out of them.
#[inline]
pub(crate) fn fold(sum: u32) -> u16 {
    (sum.wrapping_add(sum.rotate_left(16)) >> 16) as u16
}

#[inline]
pub(crate) fn word(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

/// What a packet is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layers {
    /// VLAN tags.
    pub vlan: bool,
    /// IPv6, not IPv4.
    pub ipv6: bool,
    /// UDP, not TCP.
    pub udp: bool,
}

/// The layers of a packet whose headers can be found: those that can be answered.
pub fn layers(frame: &[u8]) -> Option<Layers> {
    let Headers { ipv6, udp, l3, .. } = Headers::find(frame)?;
    Some(Layers { vlan: l3 > 14, ipv6, udp })
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_flipped_bit_is_noticed(
            payload in prop::collection::vec(any::<u8>(), 0..100), udp: bool, ipv6: bool, bit in 0..8_u32,
            at: prop::sample::Index,
        ) {
            let link = PacketBuilder::ethernet2([2; 6], [4; 6]);
            let ip = if ipv6 { link.ipv6([1; 16], [9; 16], 64) } else { link.ipv4([10, 0, 0, 1], [10, 9, 8, 7], 64) };
            let mut frame = Vec::new();
            match udp {
                true => ip.udp(7, 9).write(&mut frame, &payload).unwrap(),
                false => ip.tcp(7, 9, 1000, 2000).ack(3).write(&mut frame, &payload).unwrap(),
            }
            prop_assert_eq!(checksums_are_right(&frame), Some(true));
            prop_assert_eq!(layers(&frame), Some(Layers { vlan: false, ipv6, udp }));
            let tagged = [&frame[..12], &[0x81, 0, 0, 5], &frame[12..]].concat();
            prop_assert_eq!(layers(&tagged), Some(Layers { vlan: true, ipv6, udp }));
            // Bytes of the addresses, the ports, the payload.
            let from = if ipv6 { 22 } else { 26 };
            let at = from + at.index(frame.len() - from);
            frame[at] ^= 1 << bit;
            prop_assert_ne!(checksums_are_right(&frame), Some(true));
        }

        #[test]
        fn any_bytes_are_safe(mut frame in prop::collection::vec(any::<u8>(), 0..120), kind in 0..4_usize) {
            if frame.len() > 24 {
                let kind = [0x0800_u16, 0x86dd, 0x8100, 0x1234][kind];
                frame[12..14].copy_from_slice(&kind.to_be_bytes());
                frame[14] = frame[14] & 15 | 0x40;
            }
            let _ = checksums_are_right(&frame);
            let _ = crate::answer::answer(&mut frame, ([10, 0, 0, 1].into(), 80), true);
        }
    }
}
