//! The packet that nearly every packet is, read at one glance: untagged, to our MAC address, IPv4 without
//! options or IPv6 without extension headers, not a fragment, TCP or UDP.
//!
//! [`Address::glance`] sees in such a frame what [`super::parse`] sees, and takes none that `parse` would not
//! take but for its source address and its TCP flags, which [`Plain::parsed`] looks at; a test holds them to
//! that. A packet of a known connection has a source that was looked at before, and flags that say no more
//! than "data" need no second look. Whatever else comes (and whatever is wrong with a frame, so that it is
//! dropped for the right reason) is for `parse`. Headers of fixed size at fixed places need one comparison of
//! lengths, and no branches on what the frame might be.

use crate::addr::{Ip, MacAddr};
use crate::drops::DropReason;
use crate::flow::{FlowKey, Protocol};
use crate::ids::TenantId;
use crate::snapshot::VlanTags;
use crate::wire::{FragmentRole, Kind, Parsed, TcpFlags, ether, ipv4, ipv6, tcp, udp};

/// Where the IP header is.
pub const L3: usize = ether::LEN;
/// Where the transport header of IPv4 is.
pub const L4_OF_IPV4: usize = L3 + ipv4::LEN;
/// Where the transport header of IPv6 is.
pub const L4_OF_IPV6: usize = L3 + ipv6::LEN;
/// Bytes that a plain IPv4 frame has at least: up to the end of a TCP header. (Shorter frames of UDP come
/// without Ethernet's padding, from virtual links only.)
pub const IPV4_MIN: usize = L4_OF_IPV4 + tcp::LEN;
/// Bytes that a plain IPv6 frame has at least.
pub const IPV6_MIN: usize = L4_OF_IPV6 + tcp::LEN;

/// Six bytes of eight, as loaded from a frame.
const MAC_BITS: u64 = 0x0000_ffff_ffff_ffff;
const ETHER_TYPE_SHIFT: u32 = 48;
/// EtherTypes as they are in the top bits of such a load.
const IPV4_LOADED: u64 = ether::IPV4.swap_bytes() as u64;
const IPV6_LOADED: u64 = ether::IPV6.swap_bytes() as u64;

/// What of a port decides whether a frame is plain there, and how one leaves by it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Link {
    /// The port's MAC address as the low six bytes of a load; no frame's if frames are tagged there.
    mac: u64,
    /// Largest IP packet that fits, bytes; 0 if none leaves as a plain frame.
    pub mtu: u16,
    /// The tenant of everything received.
    pub tenant: TenantId,
    /// Longest frame that is plain: none is until it was seen whether there is another one inside.
    longest: u16,
}

impl Link {
    /// The link of a port.
    #[must_use]
    pub fn new(mac: MacAddr, vlan: VlanTags, mtu: u16, tenant: TenantId) -> Link {
        let mac = if vlan == VlanTags::default() { mac.to_word() } else { u64::MAX };
        Link { mac, mtu, tenant, longest: u16::MAX }
    }

    /// The same, where frames may have others inside, which are for ports behind tunnels.
    #[must_use]
    pub const fn with_tunnels(self) -> Link {
        Link { longest: 0, ..self }
    }

    /// The same, for frames that have none inside.
    #[must_use]
    pub const fn without_tunnels(self) -> Link {
        Link { longest: u16::MAX, ..self }
    }

    /// Whether frames may have others inside.
    #[inline]
    #[must_use]
    pub const fn has_tunnels(&self) -> bool {
        self.longest == 0
    }

    /// The same, where frames are put into a tunnel when they leave: no plain way.
    #[must_use]
    pub const fn into_tunnel(self) -> Link {
        Link { mtu: 0, ..self }
    }

    /// Whether frames leave as plain ones.
    #[inline]
    #[must_use]
    pub const fn leaves_plainly(&self) -> bool {
        !self.is_tagged() && self.mtu > 0
    }

    /// The MAC address that frames leave from, as [`MacAddr::to_word`].
    #[inline]
    #[must_use]
    pub const fn mac(&self) -> u64 {
        self.mac
    }

    /// Whether frames carry VLAN tags: none is plain then.
    #[inline]
    #[must_use]
    pub const fn is_tagged(&self) -> bool {
        self.mac == u64::MAX
    }
}

/// The address of a family. Plain packets of either family are types of their own, so that nothing on their
/// way asks again which one it is.
pub trait Address: Copy {
    /// Offset of the transport header.
    const L4: usize;
    /// Bytes that a frame has at least.
    const FRAME_MIN: usize;
    /// Whether it is IPv6.
    const IS_V6: bool;

    /// The address in the form that serves both families.
    fn ip(self) -> Ip;

    /// The address, if it is of this family.
    fn of(ip: Ip) -> Option<Self>;

    /// Whether no packet may come from this address.
    fn is_no_source(self) -> bool;

    /// Reads a frame received on `link`, whose EtherType is this family's, if it is a plain one.
    fn glance(frame: &[u8], link: &Link) -> Option<Plain<Self>>;
}

/// An IPv4 address in host order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct V4(pub u32);

/// An IPv6 address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct V6(pub Ip);

/// The families of plain packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// A plain packet: all that is needed of it to forward it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plain<A> {
    /// Source address.
    pub src: A,
    /// Destination address.
    pub dst: A,
    /// Source port, host order.
    pub src_port: u16,
    /// Destination port, host order.
    pub dst_port: u16,
    /// Whose address space the addresses are of.
    pub tenant: TenantId,
    /// Bytes of IP packet, header included.
    pub packet_len: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Control bits of a TCP segment, else none.
    pub tcp_flags: TcpFlags,
    /// TTL or hop limit.
    pub ttl: u8,
}

impl<A: Address> Plain<A> {
    /// Its flow.
    #[inline(always)]
    #[must_use]
    pub fn key(&self) -> FlowKey {
        let &Plain { src, dst, src_port, dst_port, tenant, protocol, .. } = self;
        FlowKey { src: src.ip(), dst: dst.ip(), src_port, dst_port, tenant, protocol }
    }

    /// What [`super::parse`] says of the same frame: the rest of its checks are made here.
    ///
    /// # Errors
    /// Those of `parse`.
    pub fn parsed(&self) -> Result<Parsed, DropReason> {
        if self.src.is_no_source() {
            return Err(DropReason::SourceAddressInvalid);
        }
        let (kind, protocol) = match self.protocol {
            Protocol::Tcp if self.tcp_flags.is_invalid() => return Err(DropReason::TcpFlagsInvalid),
            Protocol::Tcp => (Kind::Tcp, tcp::PROTOCOL),
            Protocol::Udp => (Kind::Udp, udp::PROTOCOL),
        };
        Ok(Parsed {
            key: self.key(),
            fragment_id: 0,
            l3: L3 as u16,
            l4: A::L4 as u16,
            end: L3 as u16 + self.packet_len,
            vlan: VlanTags::default(),
            kind,
            tcp_flags: self.tcp_flags,
            ttl: self.ttl,
            fragment: FragmentRole::Whole,
            protocol,
        })
    }

    /// The plain packet that a frame was parsed to be, if it is one.
    #[inline]
    #[must_use]
    pub fn of(parsed: &Parsed, frame: &[u8]) -> Option<Plain<A>> {
        let &Parsed { key, l3, l4, vlan, kind, tcp_flags, ttl, fragment, .. } = parsed;
        let plain = (usize::from(l3), usize::from(l4)) == (L3, A::L4)
            && vlan == VlanTags::default()
            && fragment == FragmentRole::Whole
            && matches!(kind, Kind::Tcp | Kind::Udp)
            && frame.len() >= A::FRAME_MIN;
        if !plain {
            return None;
        }
        let FlowKey { src, dst, src_port, dst_port, tenant, protocol } = key;
        let (src, dst, packet_len) = (A::of(src)?, A::of(dst)?, parsed.packet_len());
        Some(Plain { src, dst, src_port, dst_port, tenant, packet_len, protocol, tcp_flags, ttl })
    }
}

/// The family of a frame received on `link` that may be plain: untagged, from somebody else, to us.
#[inline(always)]
#[must_use]
pub fn family(frame: &[u8], link: &Link) -> Option<Family> {
    let head: &[u8; IPV4_MIN] = frame.first_chunk()?;
    let to = load64(head, 0) & MAC_BITS;
    let from_and_type = load64(head, 6);
    if to != link.mac || from_and_type & MAC_BITS == link.mac || frame.len() > usize::from(link.longest) {
        return None;
    }
    match from_and_type >> ETHER_TYPE_SHIFT {
        IPV4_LOADED => Some(Family::V4),
        IPV6_LOADED => Some(Family::V6),
        _ => None,
    }
}

impl Address for V4 {
    const L4: usize = L4_OF_IPV4;
    const FRAME_MIN: usize = IPV4_MIN;
    const IS_V6: bool = false;

    #[inline(always)]
    fn ip(self) -> Ip {
        Ip::v4(self.0)
    }

    #[inline]
    fn of(ip: Ip) -> Option<V4> {
        ip.is_v4().then_some(V4(ip.low32()))
    }

    #[inline]
    fn is_no_source(self) -> bool {
        !ipv4::is_valid_source(self.0)
    }

    #[inline(always)] // As nearly every packet comes here.
    fn glance(frame: &[u8], link: &Link) -> Option<Plain<V4>> {
        const VERSION_AND_HEADER_LEN: u32 = 0x45;
        const MF_AND_OFFSET: u32 = 0x3fff;
        let head: &[u8; IPV4_MIN] = frame.first_chunk()?;
        // Written out: as a `map` and a `sum` over five words it is not always inlined.
        let (lengths, fragment, protocol) = (load32(head, L3), load32(head, L3 + 4), load32(head, L3 + 8));
        let (src, dst) = (load32(head, L3 + 12), load32(head, L3 + 16));
        let sum = u64::from(lengths)
            + u64::from(fragment)
            + u64::from(protocol)
            + (u64::from(src) + u64::from(dst));
        let packet_len = lengths & 0xffff;
        if lengths >> 24 != VERSION_AND_HEADER_LEN
            || fragment & MF_AND_OFFSET != 0
            || fold(sum) != 0xffff
            || packet_len as usize > frame.len() - L3
        {
            return None;
        }
        let payload_len = packet_len.checked_sub(ipv4::LEN as u32)?;
        let transport = Transport::glance(head.last_chunk()?, (protocol >> 16) as u8, payload_len)?;
        Some(Plain {
            src: V4(src),
            dst: V4(dst),
            src_port: transport.src_port,
            dst_port: transport.dst_port,
            tenant: link.tenant,
            packet_len: packet_len as u16,
            protocol: transport.protocol,
            tcp_flags: transport.tcp_flags,
            ttl: (protocol >> 24) as u8,
        })
    }
}

impl Address for V6 {
    const L4: usize = L4_OF_IPV6;
    const FRAME_MIN: usize = IPV6_MIN;
    const IS_V6: bool = true;

    #[inline(always)]
    fn ip(self) -> Ip {
        self.0
    }

    #[inline]
    fn of(ip: Ip) -> Option<V6> {
        (!ip.is_v4()).then_some(V6(ip))
    }

    #[inline]
    fn is_no_source(self) -> bool {
        self.0 == ipv6::LOOPBACK || self.0 == ipv6::UNSPECIFIED || ipv6::is_multicast(self.0)
    }

    #[inline] // Not always: IPv4 is not to share its registers.
    fn glance(frame: &[u8], link: &Link) -> Option<Plain<V6>> {
        let head: &[u8; IPV6_MIN] = frame.first_chunk()?;
        let header = ipv6::Header::new(&head[L3..])?;
        let (src, dst) = (header.src(), header.dst());
        let packet_len = ipv6::LEN + header.payload_len();
        let from_nobody = src == ipv6::LOOPBACK || src == ipv6::UNSPECIFIED || ipv6::is_multicast(src);
        if header.version() != 6 || src.is_v4() || dst.is_v4() || from_nobody || packet_len > frame.len() - L3
        {
            return None;
        }
        let payload_len = header.payload_len() as u32;
        let transport = Transport::glance(head.last_chunk()?, header.next_header(), payload_len)?;
        Some(Plain {
            src: V6(src),
            dst: V6(dst),
            src_port: transport.src_port,
            dst_port: transport.dst_port,
            tenant: link.tenant,
            packet_len: packet_len as u16,
            protocol: transport.protocol,
            tcp_flags: transport.tcp_flags,
            ttl: header.hop_limit(),
        })
    }
}

struct Transport {
    protocol: Protocol,
    tcp_flags: TcpFlags,
    src_port: u16,
    dst_port: u16,
}

impl Transport {
    /// The transport header of a packet with `len` bytes of segment or datagram, all of them in the frame.
    #[inline(always)]
    fn glance(header: &[u8; tcp::LEN], protocol: u8, len: u32) -> Option<Transport> {
        let ports = load32(header, 0);
        let (src_port, dst_port) = ((ports >> 16) as u16, ports as u16);
        if protocol == tcp::PROTOCOL {
            let header_len = u32::from(header[12] >> 4) * 4;
            let tcp_flags = TcpFlags(header[13]);
            let right = header_len >= tcp::LEN as u32 && header_len <= len && tcp_flags.0 & 0x3f != 0;
            return right.then_some(Transport { protocol: Protocol::Tcp, tcp_flags, src_port, dst_port });
        }
        let datagram_len = load32(header, 4) >> 16;
        let right = protocol == udp::PROTOCOL && datagram_len >= udp::LEN as u32 && datagram_len <= len;
        let tcp_flags = TcpFlags::default();
        right.then_some(Transport { protocol: Protocol::Udp, tcp_flags, src_port, dst_port })
    }
}

/// A one's complement sum of up to 2^16 words of 32 bits, folded to 16.
#[inline(always)]
pub(crate) const fn fold(sum: u64) -> u16 {
    // Both halves at once, twice: the carry of the low one goes into the high one.
    let sum = (sum.wrapping_add(sum.rotate_left(32)) >> 32) as u32;
    (sum.wrapping_add(sum.rotate_left(16)) >> 16) as u16
}

/// Big-endian, as headers are.
#[inline(always)]
const fn load32<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Little-endian: the first byte of the frame is the lowest.
#[inline(always)]
const fn load64<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
    let low = u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let high = u32::from_le_bytes([bytes[at + 4], bytes[at + 5], bytes[at + 6], bytes[at + 7]]);
    low as u64 | (high as u64) << 32
}
