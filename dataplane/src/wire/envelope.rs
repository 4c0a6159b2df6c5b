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

/// Reads the outside of a frame's IP packet. Nothing is verified but that it is there: [`super::parse`] has
/// been through with it, and found a protocol that it does not read.
#[must_use]
pub fn envelope(frame: &[u8]) -> Option<Envelope> {
    let first = ether::Header::new(frame)?.ether_type();
    let (ether_type, l3) = match vlan::is_tpid(first) {
        true => vlan::parse(frame, first).ok().map(|(_, ether_type, l3)| (ether_type, l3))?,
        false => (first, ether::LEN),
    };
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
