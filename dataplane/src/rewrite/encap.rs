//! Packets put into tunnels.
//!
//! All of the outer header that does not depend on the packet is made when the configuration is taken up. The
//! outer packet is never fragmented on its way (DF), and its hop count begins anew: the tunnel is one hop.
//! Its ECN field is the packet's, so that a mark made inside the tunnel can be brought out of it (RFC 6040
//! §4.1, normal mode). Its UDP source port tells flows apart for whoever spreads packets over several ways
//! (RFC 7348 §5, RFC 8926 §3.3); over IPv6 so does its flow label (RFC 6438).

use super::ORIGINATED_L3;
use super::originate::HOPS;
use crate::addr::{Ip, MacAddr};
use crate::drops::DropReason;
use crate::flow::FlowKey;
use crate::ids::TenantId;
use crate::maglev;
use crate::packet::PacketBuf;
use crate::snapshot::{Encapsulation, Tunnel, VlanTags};
use crate::wire::checksum::Sum;
use crate::wire::{self, FragmentRole, Parsed};
use crate::wire::{ether, field, field_mut, geneve, gue, ipv4, ipv6, udp, vxlan};

/// Bytes of an outer header at most: IPv6, UDP, VXLAN or GENEVE, and the inner Ethernet header.
pub const OUTER_MAX: usize = ipv6::LEN + udp::LEN + vxlan::LEN + ether::LEN;

/// The first of the ports that outer headers come from (RFC 7348 §5): the dynamic ones.
const SOURCE_PORTS: u16 = 0xc000;
/// A flow label that is not 0, and so says something.
const FLOW_LABEL: u8 = 0x01;

/// Everything between the outer link header and the inner IP header, but for what depends on the packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outer {
    bytes: [u8; OUTER_MAX],
    len: u8,
    is_v4: bool,
    has_udp: bool,
    /// Whether it ends with the header of an inner Ethernet frame.
    has_ethernet: bool,
    /// Whether the UDP checksum is worked out.
    has_checksum: bool,
    copies_dscp: bool,
    /// Traffic class, but for what is copied.
    traffic_class: u8,
    /// Of IPv4: the sum over the header without traffic class, length and checksum.
    sum: u16,
}

impl Outer {
    /// The header of packets from our address `from` to `to`, of the same family, around IPv4 or IPv6.
    /// `inner_src`: the source of the inner Ethernet header, if there is one.
    #[must_use]
    pub fn new(tunnel: &Tunnel, from: Ip, to: Ip, inner_v4: bool, inner_src: MacAddr) -> Outer {
        let (is_v4, has_udp) = (to.is_v4(), tunnel.encapsulation != Encapsulation::Ipip);
        let inner_protocol = if inner_v4 { ipv4::PROTOCOL } else { ipv6::PROTOCOL };
        let protocol = if has_udp { udp::PROTOCOL } else { inner_protocol };
        let (mut bytes, mut sum) = ([0; OUTER_MAX], 0);
        let mut at = if is_v4 {
            let header =
                ipv4::Repr { src: from, dst: to, protocol, traffic_class: 0, ttl: HOPS, payload_len: 0 };
            let mut head = [0; ipv4::LEN];
            header.emit(&mut head);
            head[ipv4::TOTAL_LEN..][..2].fill(0);
            head[ipv4::CHECKSUM..][..2].fill(0);
            sum = !Sum::default().bytes(&head).finish();
            put(&mut bytes, 0, &head)
        } else {
            let header =
                ipv6::Repr { src: from, dst: to, next_header: protocol, hop_limit: HOPS, payload_len: 0 };
            let mut head = [0; ipv6::LEN];
            header.emit(&mut head);
            put(&mut bytes, 0, &head)
        };
        if has_udp {
            at = put(&mut bytes, at + 2, &tunnel.port.to_be_bytes()) + 4;
        }
        at = put_shim(&mut bytes, at, tunnel, inner_protocol);
        if tunnel.encapsulation.has_ethernet() {
            let mut head = [0; ether::LEN];
            let ether_type = if inner_v4 { ether::IPV4 } else { ether::IPV6 };
            // It has room.
            let _ = ether::emit(&mut head, tunnel.inner_mac, inner_src, VlanTags::default(), ether_type);
            at = put(&mut bytes, at, &head);
        }
        Outer {
            bytes,
            len: at as u8,
            is_v4,
            has_udp,
            has_ethernet: tunnel.encapsulation.has_ethernet(),
            has_checksum: has_udp && !is_v4 && tunnel.udp6_checksum,
            copies_dscp: tunnel.dscp.is_none(),
            traffic_class: tunnel.dscp.unwrap_or(0) << 2,
            sum,
        }
    }

    /// The header of frames, which bring an Ethernet header of their own. The encapsulation must be one of
    /// frames.
    #[must_use]
    pub fn of_frames(tunnel: &Tunnel, from: Ip, to: Ip) -> Outer {
        let whole = Outer::new(tunnel, from, to, true, MacAddr::default());
        Outer { len: whole.len.saturating_sub(ether::LEN as u8), has_ethernet: false, ..whole }
    }

    /// Bytes that it adds to an IP packet.
    #[inline]
    #[must_use]
    pub const fn overhead(&self) -> u16 {
        self.len as u16
    }

    /// The bytes, in which length, checksum, source port and what is copied from the packet are 0.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len.into()).unwrap_or_default()
    }

    /// Whether its UDP header has a checksum.
    #[must_use]
    pub const fn has_checksum(&self) -> bool {
        self.has_checksum
    }

    /// What hardware, which knows of packets what it compares, puts around those of one connection that have
    /// this traffic class. `None` if that cannot be: it works out no checksum of UDP, and copies no
    /// field, so that each mark of congestion (RFC 3168) is for software to bring into the outer header.
    #[must_use]
    pub fn around(&self, inner_class: u8, entropy: u16) -> Option<Around> {
        if self.has_checksum || carries_ecn(inner_class) {
            return None;
        }
        let mut bytes = [0; OUTER_MAX];
        self.fill(bytes.get_mut(..self.len.into())?, inner_class, entropy)?;
        // What depends on a packet's length is hardware's business.
        let shim_at = if self.is_v4 {
            field_mut::<2>(&mut bytes, ipv4::TOTAL_LEN)?.fill(0);
            field_mut::<2>(&mut bytes, ipv4::CHECKSUM)?.fill(0);
            ipv4::LEN
        } else {
            field_mut::<2>(&mut bytes, ipv6::PAYLOAD_LEN)?.fill(0);
            ipv6::LEN
        };
        if self.has_udp {
            field_mut::<2>(&mut bytes, shim_at + udp::DATAGRAM_LEN)?.fill(0);
        }
        let mask = if self.copies_dscp { u8::MAX } else { ECN };
        let Outer { len, has_ethernet, .. } = *self;
        Some(Around { bytes, len, has_ethernet, class: inner_class & mask, class_mask: mask, below: None })
    }

    /// Fills in the header at the start of `packet`, the outer IP packet. `None` if that is too long or too
    /// short.
    #[inline]
    fn fill(&self, packet: &mut [u8], inner_class: u8, entropy: u16) -> Option<()> {
        packet.get_mut(..self.len.into())?.copy_from_slice(self.bytes());
        let len = u16::try_from(packet.len()).ok()?;
        let copied = if self.copies_dscp { inner_class } else { inner_class & ECN };
        let class = self.traffic_class | copied;
        let udp_at = if self.is_v4 {
            let header: &mut [u8; ipv4::LEN] = field_mut(packet, 0)?;
            header[ipv4::TRAFFIC_CLASS] = class;
            *field_mut(header, ipv4::TOTAL_LEN)? = len.to_be_bytes();
            let checksum = Sum::default().word(self.sum).word(class.into()).word(len).finish();
            *field_mut(header, ipv4::CHECKSUM)? = checksum.to_be_bytes();
            ipv4::LEN
        } else {
            let header: &mut [u8; ipv6::LEN] = field_mut(packet, 0)?;
            header[0] |= class >> 4;
            header[1] = class << 4 | FLOW_LABEL;
            *field_mut(header, 2)? = entropy.to_be_bytes();
            *field_mut(header, ipv6::PAYLOAD_LEN)? = (len - ipv6::LEN as u16).to_be_bytes();
            ipv6::LEN
        };
        if self.has_udp { self.fill_udp(packet, udp_at, entropy) } else { Some(()) }
    }

    #[inline]
    fn fill_udp(&self, packet: &mut [u8], at: usize, entropy: u16) -> Option<()> {
        let (head, datagram) = packet.split_at_mut_checked(at)?;
        let len = datagram.len();
        *field_mut(datagram, 0)? = (SOURCE_PORTS | entropy).to_be_bytes();
        *field_mut(datagram, udp::DATAGRAM_LEN)? = (len as u16).to_be_bytes();
        if self.has_checksum {
            let addresses: &[u8; 32] = field(head, ipv6::SRC)?;
            let sum = Sum::default().bytes(addresses).word(udp::PROTOCOL.into()).word(len as u16);
            let checksum = udp::nonzero(sum.bytes(datagram).finish());
            *field_mut(datagram, udp::CHECKSUM)? = checksum.to_be_bytes();
        }
        Some(())
    }
}

/// The ECN field of a traffic class (RFC 3168 §5).
pub const ECN: u8 = 0x03;

/// Whether packets of this traffic class may be, or are, marked by congestion: the mark must not be lost.
#[inline]
#[must_use]
pub const fn carries_ecn(class: u8) -> bool {
    class & ECN != 0
}

/// What is around all packets of a connection that have the same traffic class: an [`Outer`], but for
/// lengths, and checksums over these.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Around {
    bytes: [u8; OUTER_MAX],
    len: u8,
    has_ethernet: bool,
    class: u8,
    class_mask: u8,
    below: Option<MacAddr>,
}

impl Around {
    /// The same around frames of a port behind a tunnel: what goes out by the port below is for this station.
    #[must_use]
    pub const fn sent_to(self, below: MacAddr) -> Around {
        Around { below: Some(below), ..self }
    }

    /// The station that the outer packets are for, where that is not the leg's next hop: around frames.
    #[must_use]
    pub const fn below(&self) -> Option<MacAddr> {
        self.below
    }

    /// From the outer IP header on, up to the inner IP header, or to the inner Ethernet header if there is
    /// one. Lengths, and IPv4's checksum, are 0.
    #[must_use]
    pub fn headers(&self) -> &[u8] {
        let inner = if self.has_ethernet { ether::LEN } else { 0 };
        self.bytes.get(..usize::from(self.len).saturating_sub(inner)).unwrap_or_default()
    }

    /// Destination and source of the inner Ethernet header, if there is one.
    #[must_use]
    pub fn inner_link(&self) -> Option<[MacAddr; 2]> {
        let at = usize::from(self.len).checked_sub(ether::LEN).filter(|_| self.has_ethernet)?;
        let mac = |at| field(&self.bytes, at).copied().map(MacAddr);
        Some([mac(at)?, mac(at + 6)?])
    }

    /// Whether the outer IP header is IPv4's.
    #[must_use]
    pub fn is_v4(&self) -> bool {
        self.bytes[0] >> 4 == 4
    }

    /// Traffic class of the packets that it is for, and which of its bits count; the rest are 0.
    #[must_use]
    pub const fn class(&self) -> (u8, u8) {
        (self.class, self.class_mask)
    }
}

/// Writes `part` at `at`; says where it ends.
fn put(bytes: &mut [u8; OUTER_MAX], at: usize, part: &[u8]) -> usize {
    let end = at + part.len();
    if let Some(room) = bytes.get_mut(at..end) {
        room.copy_from_slice(part);
    }
    end
}

/// What stands between UDP and what is inside.
fn put_shim(bytes: &mut [u8; OUTER_MAX], at: usize, tunnel: &Tunnel, inner_protocol: u8) -> usize {
    match tunnel.encapsulation {
        Encapsulation::Ipip => at,
        Encapsulation::Gue => {
            let mut head = [0; gue::LEN];
            gue::emit(&mut head, inner_protocol);
            put(bytes, at, &head)
        }
        Encapsulation::Vxlan => {
            let mut head = [0; vxlan::LEN];
            vxlan::emit(&mut head, tunnel.vni);
            put(bytes, at, &head)
        }
        Encapsulation::Geneve => {
            let mut head = [0; geneve::LEN];
            geneve::emit(&mut head, tunnel.vni);
            put(bytes, at, &head)
        }
    }
}

/// What tells a connection's outer packets from those of others: the same in every node and for every packet
/// of it, later fragments included.
#[inline]
#[must_use]
pub fn entropy(key: &FlowKey) -> u16 {
    (maglev::flow_hash(key) >> 40) as u16
}

/// Puts a packet, which is at `l3..end` of the frame, into a tunnel. Afterwards the outer IP header is at
/// [`ORIGINATED_L3`], and nothing is behind the packet.
///
/// # Errors
/// [`DropReason::NoHeadroom`] if the buffer has no room for the header, and then nothing has changed;
/// [`DropReason::TooBig`] for what no IP packet can hold.
#[inline]
pub fn encapsulate<B: PacketBuf>(
    buf: &mut B,
    (l3, end): (u16, u16),
    outer: &Outer,
    entropy: u16,
) -> Result<(), DropReason> {
    let inner_class = class(buf.data(), l3.into()).ok_or(DropReason::TooBig)?;
    let (old, new) = (usize::from(l3), usize::from(ORIGINATED_L3 + outer.overhead()));
    let len = buf.data().len();
    if !buf.set_len(end.into()) {
        return Err(DropReason::NoHeadroom);
    }
    if !(new <= old && buf.trim_front(old - new) || new > old && buf.grow_front(new - old)) {
        // It was as long before.
        let _ = buf.set_len(len);
        return Err(DropReason::NoHeadroom);
    }
    let packet = buf.data_mut().get_mut(ORIGINATED_L3.into()..).unwrap_or_default();
    outer.fill(packet, inner_class, entropy).ok_or(DropReason::TooBig)
}

/// Puts a frame, link header and all, into a tunnel. Afterwards the outer IP header is at [`ORIGINATED_L3`].
///
/// # Errors
/// [`DropReason::NoHeadroom`] if the buffer has no room for the header, [`DropReason::TooBig`] for what no IP
/// packet can hold.
pub fn wrap<B: PacketBuf>(buf: &mut B, outer: &Outer) -> Result<(), DropReason> {
    // Of packets whose protocol is not read, too.
    let inner_class = wire::ip_at(buf.data()).and_then(|l3| class(buf.data(), l3)).unwrap_or_default();
    let entropy = match wire::parse(buf.data(), TenantId(0)) {
        Ok(parsed) => {
            // Behind the packet is what filled a frame up on another link.
            let _ = buf.set_len(parsed.end.into());
            entropy_within(&parsed)
        }
        Err(_) => 0,
    };
    let room = usize::from(ORIGINATED_L3) + usize::from(outer.overhead());
    if !buf.grow_front(room) {
        return Err(DropReason::NoHeadroom);
    }
    let packet = buf.data_mut().get_mut(ORIGINATED_L3.into()..).unwrap_or_default();
    outer.fill(packet, inner_class, entropy).ok_or(DropReason::TooBig)
}

/// As [`entropy`]; of fragments, among which only the first has ports, by their addresses alone.
fn entropy_within(parsed: &Parsed) -> u16 {
    match parsed.fragment {
        FragmentRole::Whole => entropy(&parsed.key),
        _ => entropy(&FlowKey { src_port: 0, dst_port: 0, ..parsed.key }),
    }
}

/// The traffic class of the IP packet at `l3`.
#[inline]
pub(crate) fn class(frame: &[u8], l3: usize) -> Option<u8> {
    let &[first, second] = field(frame, l3)?;
    Some(if first >> 4 == 4 { second } else { first << 4 | second >> 4 })
}
