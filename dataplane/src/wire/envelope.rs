//! Who speaks to whom, and by which protocol, whatever that is.

use super::{ether, ipv4, ipv6, vlan};
use crate::addr::Ip;

/// The outside of an IP packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Envelope {
    /// From this address.
    pub src: Ip,
    /// To this one.
    pub dst: Ip,
    /// The IANA number; of a later IPv6 fragment possibly that of an extension header.
    pub protocol: u8,
}

/// The EtherType behind a frame's tags, and where its payload is; `None` if the tags are no port's.
fn behind_tags(frame: &[u8]) -> Option<(u16, usize)> {
    let first = ether::Header::new(frame)?.ether_type();
    match vlan::is_tpid(first) {
        true => vlan::parse(frame, first).ok().map(|(_, ether_type, l3)| (ether_type, l3)),
        false => Some((first, ether::LEN)),
    }
}

/// Where a frame's IP packet is, behind whatever tags a port may have.
#[must_use]
pub fn ip_at(frame: &[u8]) -> Option<usize> {
    let (ether_type, l3) = behind_tags(frame)?;
    matches!(ether_type, ether::IPV4 | ether::IPV6).then_some(l3)
}

/// Reads the outside of a frame's IP packet. Nothing is verified but that it is there: [`super::parse`] has
/// been through with it, and found a protocol that it does not read.
#[must_use]
pub fn envelope(frame: &[u8]) -> Option<Envelope> {
    let (ether_type, l3) = behind_tags(frame)?;
    let packet = frame.get(l3..)?;
    match ether_type {
        ether::IPV4 => {
            let header = ipv4::Header::new(packet)?;
            let (src, dst) = (Ip::v4(header.src()), Ip::v4(header.dst()));
            Some(Envelope { src, dst, protocol: header.protocol() })
        }
        ether::IPV6 => {
            let header = ipv6::Header::new(packet)?;
            let upper = ipv6::upper_layer(packet, header.next_header()).ok()?;
            Some(Envelope { src: header.src(), dst: header.dst(), protocol: upper.protocol })
        }
        _ => None,
    }
}

/// Lengths of IEEE 802.3 end here, and EtherTypes begin.
const ETHER_TYPES: u16 = 0x0600;

/// Whether a frame may carry an IP packet behind something that is not read here: other tags, labels, or a
/// header of another link layer. What [`super::parse`] reads is none.
#[must_use]
pub fn may_hide_ip(frame: &[u8]) -> bool {
    let Some((ether_type, at)) = behind_tags(frame) else { return true };
    match ether_type {
        // Tags from before 802.1ad; bridges in bridges (802.1ah).
        0x9100 | 0x9200 | 0x9300 | 0x88e7 => true,
        // MPLS (RFC 3032, RFC 5332); PPPoE sessions (RFC 2516); NSH (RFC 8300); TRILL (RFC 6325).
        0x8847 | 0x8848 | 0x8864 | 0x894f | 0x22f3 => true,
        // Frames in frames (RFC 1701); what is encrypted by MACsec (802.1AE).
        0x6558 | 0x88e5 => true,
        ..ETHER_TYPES => match frame.get(at..) {
            // SNAP (RFC 1042), and IP's own service access point.
            Some([0xaa, 0xaa, ..] | [0x06, 0x06, ..]) => true,
            _ => false,
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(behind: &[u8]) -> Vec<u8> {
        [&[0; 12], behind, &[0; 40]].concat()
    }

    #[test]
    fn what_may_carry_ip_is_told_from_what_does_not() {
        let tagged = [0x81, 0, 0, 7];
        for behind in [&[0x91, 0, 0, 1][..], &[0x88, 0x47], &[0x88, 0x64], &[0, 46, 0xaa, 0xaa, 3]] {
            assert!(may_hide_ip(&frame(behind)), "{behind:02x?}");
            assert!(may_hide_ip(&frame(&[&tagged, behind].concat())), "tagged {behind:02x?}");
        }
        assert!(may_hide_ip(&frame(&[0x88, 0xa8, 0, 1, 0x88, 0xa8, 0, 2])), "tags that are no port's");
        // LLDP, PPPoE's discovery, LACP, spanning tree.
        for behind in [&[0x88, 0xcc][..], &[0x88, 0x63], &[0x88, 0x09], &[0, 38, 0x42, 0x42, 3]] {
            assert!(!may_hide_ip(&frame(behind)), "{behind:02x?}");
            assert!(!may_hide_ip(&frame(&[&tagged, behind].concat())), "tagged {behind:02x?}");
        }
        assert_eq!(ip_at(&frame(&[&tagged[..], &[0x08, 0]].concat())), Some(18));
        assert_eq!(ip_at(&frame(&[0x08, 6])), None);
    }
}
