//! From bytes to [`Parsed`]: one pass over the headers, verifying everything that later stages rely on.
//!
//! What is verified: all lengths against one another and against the frame, the IPv4 header checksum,
//! addresses that no packet may come from, combinations of TCP flags that no stack sends, and fragments
//! made to overlap a transport header. What is not: TCP and UDP checksums, which are kept right but are
//! the receiver's to check. ICMP checksums are verified where messages are acted on, by
//! [`icmp_message`] and [`parse_quoted`].

use crate::addr::Ip;
use crate::drops::DropReason;
use crate::flow::{FlowKey, Protocol};
use crate::ids::TenantId;
use crate::snapshot::VlanTags;
use crate::wire::checksum::Sum;
use crate::wire::{arp, ether, field, icmp, icmpv6, ipv4, ipv6, nd, tcp, udp, vlan};

/// What a frame carries.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Kind {
    /// TCP, its header complete.
    Tcp,
    /// UDP, its header complete.
    Udp,
    /// ICMP, at least its first eight bytes.
    Icmp,
    /// ICMPv6, at least its first eight bytes.
    Icmpv6,
    /// ARP for IPv4 on Ethernet.
    Arp,
    /// A fragment other than the first: no transport header.
    Fragment,
}

impl Kind {
    /// A whole packet of this protocol.
    #[inline]
    #[must_use]
    pub const fn of(protocol: Protocol) -> Kind {
        match protocol {
            Protocol::Tcp => Kind::Tcp,
            Protocol::Udp => Kind::Udp,
        }
    }
}

/// Which part of a packet a packet is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum FragmentRole {
    /// All of it. An atomic IPv6 fragment (RFC 6946) counts as whole.
    Whole,
    /// Its beginning, with the whole transport header.
    First,
    /// A piece without a transport header: [`Kind::Fragment`].
    Later,
}

/// The control bits of a TCP header.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(transparent)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// FIN.
    pub const FIN: TcpFlags = TcpFlags(0x01);
    /// SYN.
    pub const SYN: TcpFlags = TcpFlags(0x02);
    /// RST.
    pub const RST: TcpFlags = TcpFlags(0x04);
    /// PSH.
    pub const PSH: TcpFlags = TcpFlags(0x08);
    /// ACK.
    pub const ACK: TcpFlags = TcpFlags(0x10);
    /// URG.
    pub const URG: TcpFlags = TcpFlags(0x20);

    /// Whether all of `flags` are set.
    #[inline]
    #[must_use]
    pub const fn contains(self, flags: TcpFlags) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// These flags and those.
    #[inline]
    #[must_use]
    pub const fn with(self, flags: TcpFlags) -> TcpFlags {
        TcpFlags(self.0 | flags.0)
    }

    /// FIN is set.
    #[inline]
    #[must_use]
    pub const fn fin(self) -> bool {
        self.contains(TcpFlags::FIN)
    }

    /// SYN is set.
    #[inline]
    #[must_use]
    pub const fn syn(self) -> bool {
        self.contains(TcpFlags::SYN)
    }

    /// RST is set.
    #[inline]
    #[must_use]
    pub const fn rst(self) -> bool {
        self.contains(TcpFlags::RST)
    }

    /// ACK is set.
    #[inline]
    #[must_use]
    pub const fn ack(self) -> bool {
        self.contains(TcpFlags::ACK)
    }

    /// None at all of the six of RFC 793, SYN with FIN, or SYN with RST.
    #[inline]
    #[must_use]
    pub const fn is_invalid(self) -> bool {
        self.0 & 0x3f == 0 || (self.syn() && (self.fin() || self.rst()))
    }
}

/// Where everything is in a frame, and the key of its flow. Offsets are from the start of the frame
/// and within it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Parsed {
    /// Addresses always (for ARP the sender's and the target's), ports of [`Kind::Tcp`] and
    /// [`Kind::Udp`] only, else 0. `protocol` is that of the packet for these two kinds and for
    /// fragments of them; otherwise it says nothing and the key names no flow.
    pub key: FlowKey,
    /// What ties fragments of one packet together, with the addresses and, in IPv4, the protocol; 0 if this
    /// is none.
    pub fragment_id: u32,
    /// The IP or ARP header.
    pub l3: u16,
    /// The transport header, or a later fragment's payload; for ARP the same as `l3`.
    pub l4: u16,
    /// The end of the IP or ARP packet. What lies behind is Ethernet padding.
    pub end: u16,
    /// The frame's VLAN tags.
    pub vlan: VlanTags,
    /// See [`Kind`].
    pub kind: Kind,
    /// Control bits of a TCP segment, else none.
    pub tcp_flags: TcpFlags,
    /// TTL or hop limit; 0 for ARP.
    pub ttl: u8,
    /// See [`FragmentRole`].
    pub fragment: FragmentRole,
    /// The IP protocol number; for a later IPv6 fragment possibly that of an extension header, and 0
    /// for ARP.
    pub protocol: u8,
}

const _: () = assert!(core::mem::size_of::<Parsed>() == 64);

impl Parsed {
    /// Bytes of IP packet, header included: what is compared with an MTU.
    #[inline]
    #[must_use]
    pub const fn packet_len(&self) -> u16 {
        self.end.saturating_sub(self.l3)
    }

    /// Bytes behind the transport header's start: the segment, datagram or message.
    #[inline]
    #[must_use]
    pub fn transport<'a>(&self, frame: &'a [u8]) -> &'a [u8] {
        frame.get(usize::from(self.l4)..usize::from(self.end)).unwrap_or_default()
    }
}

/// Parses and verifies a whole Ethernet frame.
#[inline]
pub fn parse(frame: &[u8], tenant: TenantId) -> Result<Parsed, DropReason> {
    let header = ether::Header::new(frame).ok_or(DropReason::EthernetTruncated)?;
    let (frame, _) = frame.split_at_checked(usize::from(u16::MAX)).unwrap_or((frame, &[]));
    match header.ether_type() {
        ether::IPV4 => parse_ipv4(frame, ether::LEN, VlanTags::default(), tenant),
        ether::IPV6 => parse_ipv6(frame, ether::LEN, VlanTags::default(), tenant),
        other => parse_other(frame, other, tenant),
    }
}

/// Tagged frames, and ARP.
#[cold]
fn parse_other(frame: &[u8], ether_type: u16, tenant: TenantId) -> Result<Parsed, DropReason> {
    let (tags, ether_type, l3) = if vlan::is_tpid(ether_type) {
        vlan::parse(frame, ether_type)?
    } else {
        (VlanTags::default(), ether_type, ether::LEN)
    };
    match ether_type {
        ether::IPV4 => parse_ipv4(frame, l3, tags, tenant),
        ether::IPV6 => parse_ipv6(frame, l3, tags, tenant),
        ether::ARP => parse_arp(frame, l3, tags, tenant),
        _ => Err(DropReason::EtherTypeUnknown),
    }
}

/// A key with addresses only.
#[inline]
const fn addresses(src: Ip, dst: Ip, tenant: TenantId) -> FlowKey {
    FlowKey { src, dst, src_port: 0, dst_port: 0, tenant, protocol: Protocol::Tcp }
}

fn parse_arp(frame: &[u8], l3: usize, vlan: VlanTags, tenant: TenantId) -> Result<Parsed, DropReason> {
    let packet = frame.get(l3..).and_then(arp::Packet::parse).ok_or(DropReason::ArpMalformed)?;
    Ok(Parsed {
        key: addresses(packet.sender, packet.target, tenant),
        fragment_id: 0,
        l3: l3 as u16,
        l4: l3 as u16,
        end: (l3 + arp::LEN) as u16,
        vlan,
        kind: Kind::Arp,
        tcp_flags: TcpFlags::default(),
        ttl: 0,
        fragment: FragmentRole::Whole,
        protocol: 0,
    })
}

#[inline]
fn parse_ipv4(frame: &[u8], l3: usize, vlan: VlanTags, tenant: TenantId) -> Result<Parsed, DropReason> {
    let packet = frame.get(l3..).unwrap_or_default();
    let header = ipv4::Header::new(packet).ok_or(DropReason::Ipv4Truncated)?;
    let (header_len, total_len) = (header.header_len(), header.total_len());
    if header.version() != 4 || header_len < ipv4::LEN {
        return Err(DropReason::Ipv4HeaderInvalid);
    }
    let intact = if header_len == ipv4::LEN {
        header.checksum_is_valid()
    } else {
        let whole = packet.get(..header_len).ok_or(DropReason::Ipv4Truncated)?;
        Sum::default().bytes(whole).is_valid()
    };
    if !intact {
        return Err(DropReason::Ipv4Checksum);
    }
    if total_len < header_len || total_len > packet.len() {
        return Err(DropReason::Ipv4LengthInvalid);
    }
    if !ipv4::is_valid_source(header.src()) {
        return Err(DropReason::SourceAddressInvalid);
    }
    let mut parsed = Parsed {
        key: addresses(Ip::v4(header.src()), Ip::v4(header.dst()), tenant),
        fragment_id: 0,
        l3: l3 as u16,
        l4: (l3 + header_len) as u16,
        end: (l3 + total_len) as u16,
        vlan,
        kind: Kind::Fragment,
        tcp_flags: TcpFlags::default(),
        ttl: header.ttl(),
        fragment: FragmentRole::Whole,
        protocol: header.protocol(),
    };
    if header.is_fragment() {
        let piece = Piece { offset: header.fragment_offset(), more: header.more_fragments() };
        parsed.fragment_id = u32::from(header.id());
        parsed.fragment = piece.role(total_len - header_len, header.protocol())?;
    }
    parse_transport(frame, parsed, icmp::PROTOCOL)
}

#[inline]
fn parse_ipv6(frame: &[u8], l3: usize, vlan: VlanTags, tenant: TenantId) -> Result<Parsed, DropReason> {
    let packet = frame.get(l3..).unwrap_or_default();
    let header = ipv6::Header::new(packet).ok_or(DropReason::Ipv6Truncated)?;
    let (src, dst) = (header.src(), header.dst());
    if header.version() != 6 || src.is_v4() || dst.is_v4() {
        return Err(DropReason::Ipv6HeaderInvalid);
    }
    let total_len = ipv6::LEN + header.payload_len();
    let packet = packet.get(..total_len).ok_or(DropReason::Ipv6Truncated)?;
    if src == ipv6::LOOPBACK || ipv6::is_multicast(src) {
        return Err(DropReason::SourceAddressInvalid);
    }
    let upper = ipv6::upper_layer(packet, header.next_header())?;
    // Duplicate address detection and router discovery have no address to speak from yet.
    if src == ipv6::UNSPECIFIED && upper.protocol != icmpv6::PROTOCOL {
        return Err(DropReason::SourceAddressInvalid);
    }
    let mut parsed = Parsed {
        key: addresses(src, dst, tenant),
        fragment_id: 0,
        l3: l3 as u16,
        l4: (l3 + upper.offset) as u16,
        end: (l3 + total_len) as u16,
        vlan,
        kind: Kind::Fragment,
        tcp_flags: TcpFlags::default(),
        ttl: header.hop_limit(),
        fragment: FragmentRole::Whole,
        protocol: upper.protocol,
    };
    if let Some(fragment) = upper.fragment {
        let piece = Piece { offset: fragment.offset, more: fragment.more };
        parsed.fragment_id = fragment.id;
        parsed.fragment = piece.role(total_len - upper.offset, upper.protocol)?;
    }
    parse_transport(frame, parsed, icmpv6::PROTOCOL)
}

/// A fragment's place in its packet.
#[derive(Clone, Copy)]
struct Piece {
    /// In bytes.
    offset: usize,
    more: bool,
}

impl Piece {
    /// The role of a fragment with `len` bytes of payload, once it is found to be one that a sender
    /// may have cut: not empty, of whole units unless last, not past the largest packet, and not
    /// overlapping the fixed part of a TCP header, which the first fragment must hold (RFC 1858,
    /// RFC 3128). Overlap beyond that (RFC 5722) takes reassembly to see and is the receiver's to
    /// refuse.
    #[cold]
    fn role(self, len: usize, protocol: u8) -> Result<FragmentRole, DropReason> {
        let Piece { offset, more } = self;
        if offset == 0 && !more {
            return Ok(FragmentRole::Whole);
        }
        let uneven = more && len % 8 != 0;
        let overlaps = protocol == tcp::PROTOCOL && offset != 0 && offset < tcp::LEN;
        if len == 0 || uneven || overlaps || offset + len > usize::from(u16::MAX) {
            return Err(DropReason::FragmentInvalid);
        }
        Ok(if offset == 0 { FragmentRole::First } else { FragmentRole::Later })
    }
}

/// Completes a packet whose network layer is parsed; `icmp_protocol` is that of its family.
#[inline]
fn parse_transport(frame: &[u8], mut parsed: Parsed, icmp_protocol: u8) -> Result<Parsed, DropReason> {
    let payload = parsed.transport(frame);
    if parsed.fragment == FragmentRole::Later {
        return later_fragment(parsed, icmp_protocol);
    }
    let result = match parsed.protocol {
        tcp::PROTOCOL => parse_tcp(payload, &mut parsed),
        udp::PROTOCOL => parse_udp(payload, &mut parsed),
        protocol if protocol == icmp_protocol => parse_icmp(payload, &mut parsed),
        _ => Err(DropReason::ProtocolUnsupported),
    };
    match result {
        Ok(()) => Ok(parsed),
        Err(reason) => Err(first_fragment_reason(parsed.fragment, reason)),
    }
}

/// A first fragment too small for its transport header is a tiny fragment (RFC 1858 §3).
#[cold]
fn first_fragment_reason(fragment: FragmentRole, reason: DropReason) -> DropReason {
    use DropReason::{FragmentInvalid, IcmpTruncated, TcpTruncated, UdpTruncated};
    match (fragment, reason) {
        (FragmentRole::First, TcpTruncated | UdpTruncated | IcmpTruncated) => FragmentInvalid,
        _ => reason,
    }
}

#[cold]
fn later_fragment(mut parsed: Parsed, icmp_protocol: u8) -> Result<Parsed, DropReason> {
    match parsed.protocol {
        tcp::PROTOCOL => parsed.key.protocol = Protocol::Tcp,
        udp::PROTOCOL => parsed.key.protocol = Protocol::Udp,
        protocol if protocol == icmp_protocol => {}
        // The rest of the extension headers is in the first fragment or in this one.
        protocol if icmp_protocol == icmpv6::PROTOCOL && ipv6::is_extension(protocol) => {}
        _ => return Err(DropReason::ProtocolUnsupported),
    }
    Ok(parsed)
}

#[inline]
fn parse_tcp(segment: &[u8], parsed: &mut Parsed) -> Result<(), DropReason> {
    let header = tcp::Header::new(segment).ok_or(DropReason::TcpTruncated)?;
    let header_len = header.header_len();
    if header_len < tcp::LEN || header_len > segment.len() {
        return Err(DropReason::TcpTruncated);
    }
    if header.flags().is_invalid() {
        return Err(DropReason::TcpFlagsInvalid);
    }
    parsed.kind = Kind::Tcp;
    parsed.tcp_flags = header.flags();
    parsed.key.src_port = header.src_port();
    parsed.key.dst_port = header.dst_port();
    Ok(())
}

#[inline]
fn parse_udp(datagram: &[u8], parsed: &mut Parsed) -> Result<(), DropReason> {
    let header = udp::Header::new(datagram).ok_or(DropReason::UdpTruncated)?;
    let len = header.datagram_len();
    // Bytes between the end of the datagram and that of the packet are allowed (RFC 9868); a first
    // fragment on the other hand holds less than the datagram.
    let lies = match parsed.fragment {
        FragmentRole::First => len < datagram.len(),
        _ => len < udp::LEN || len > datagram.len(),
    };
    if lies {
        return Err(DropReason::UdpTruncated);
    }
    parsed.kind = Kind::Udp;
    parsed.key.protocol = Protocol::Udp;
    parsed.key.src_port = header.src_port();
    parsed.key.dst_port = header.dst_port();
    Ok(())
}

fn parse_icmp(message: &[u8], parsed: &mut Parsed) -> Result<(), DropReason> {
    if message.len() < icmp::LEN {
        return Err(DropReason::IcmpTruncated);
    }
    parsed.kind = if parsed.key.dst.is_v4() { Kind::Icmp } else { Kind::Icmpv6 };
    Ok(())
}

/// The packet an ICMP error is about, as far as it is quoted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quoted {
    /// Its flow, in the direction it travelled: the error goes towards `key.src`.
    pub key: FlowKey,
    /// Offset of its IP header from the start of the frame that carries the error.
    pub l3: u16,
    /// Offset of its transport header, of which at least the first eight bytes are quoted.
    pub l4: u16,
    /// The end of what is quoted.
    pub end: u16,
    /// Whether the quote reaches as far as the transport checksum.
    pub has_checksum: bool,
}

/// An ICMP or ICMPv6 message that means something to Millrace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IcmpMessage {
    /// Echo request.
    EchoRequest,
    /// Echo reply.
    EchoReply,
    /// Destination unreachable, time exceeded, parameter problem or packet too big about a packet of
    /// a TCP or UDP flow.
    Error(Quoted),
    /// Neighbour solicitation.
    NeighbourSolicitation(nd::Solicitation),
    /// Neighbour advertisement.
    NeighbourAdvertisement(nd::Advertisement),
    /// Anything else.
    Other,
}

/// Classifies a packet of [`Kind::Icmp`] or [`Kind::Icmpv6`], once its checksum is found right. The
/// checksum of a fragmented message cannot be verified, so a fragment is never acted on.
pub fn icmp_message(frame: &[u8], parsed: &Parsed) -> Result<IcmpMessage, DropReason> {
    let message = verified_message(frame, parsed)?;
    let [kind, code, ..] = *message else { return Err(DropReason::IcmpTruncated) };
    match (parsed.kind, kind) {
        (Kind::Icmp, kind) if icmp::is_error(kind) => quoted(message, parsed).map(IcmpMessage::Error),
        (Kind::Icmpv6, kind) if icmpv6::is_error(kind) => quoted(message, parsed).map(IcmpMessage::Error),
        (Kind::Icmp, icmp::ECHO_REQUEST) | (Kind::Icmpv6, icmpv6::ECHO_REQUEST) if code == 0 => {
            Ok(IcmpMessage::EchoRequest)
        }
        (Kind::Icmp, icmp::ECHO_REPLY) | (Kind::Icmpv6, icmpv6::ECHO_REPLY) if code == 0 => {
            Ok(IcmpMessage::EchoReply)
        }
        (Kind::Icmpv6, nd::SOLICITATION) => nd::Solicitation::parse(message, nd_network(parsed))
            .map(IcmpMessage::NeighbourSolicitation)
            .ok_or(DropReason::NdInvalid),
        (Kind::Icmpv6, nd::ADVERTISEMENT) => nd::Advertisement::parse(message, nd_network(parsed))
            .map(IcmpMessage::NeighbourAdvertisement)
            .ok_or(DropReason::NdInvalid),
        _ => Ok(IcmpMessage::Other),
    }
}

/// Whether a packet is a message of neighbour discovery, of whichever type, that its receiver will not throw
/// away: from this link, whole, and in order (RFC 4861 §6.1, §7.1, §8.1).
#[must_use]
pub fn is_discovery(frame: &[u8], parsed: &Parsed) -> bool {
    let valid = |message: &[u8]| nd::is_valid(message, nd_network(parsed));
    parsed.kind == Kind::Icmpv6 && verified_message(frame, parsed).is_ok_and(valid)
}

/// The packet quoted by an ICMP or ICMPv6 error, once the error's checksum is found right.
/// [`DropReason::IcmpUnhandled`] if this is no such error or is not about a packet of a TCP or UDP
/// flow.
pub fn parse_quoted(frame: &[u8], parsed: &Parsed) -> Result<Quoted, DropReason> {
    match icmp_message(frame, parsed)? {
        IcmpMessage::Error(quoted) => Ok(quoted),
        _ => Err(DropReason::IcmpUnhandled),
    }
}

fn nd_network(parsed: &Parsed) -> nd::Network {
    nd::Network { src: parsed.key.src, dst: parsed.key.dst, hop_limit: parsed.ttl }
}

fn verified_message<'a>(frame: &'a [u8], parsed: &Parsed) -> Result<&'a [u8], DropReason> {
    let message = parsed.transport(frame);
    let sum = match parsed.kind {
        _ if parsed.fragment != FragmentRole::Whole => return Err(DropReason::IcmpUnhandled),
        Kind::Icmp => Sum::default(),
        Kind::Icmpv6 => {
            Sum::default().pseudo_header(parsed.key.src, parsed.key.dst, icmpv6::PROTOCOL, message.len())
        }
        _ => return Err(DropReason::IcmpUnhandled),
    };
    if sum.bytes(message).is_valid() { Ok(message) } else { Err(DropReason::IcmpChecksum) }
}

/// Finds the flow of the packet quoted in an error message. The quote is cut wherever the error's
/// sender cut it, and may have been changed on its way: its own lengths and checksums are not judged.
fn quoted(message: &[u8], parsed: &Parsed) -> Result<Quoted, DropReason> {
    let end = quote_end(message, parsed.kind);
    let quote = message.get(icmp::LEN..end).ok_or(DropReason::IcmpTruncated)?;
    let (src, dst, upper) = if parsed.kind == Kind::Icmp { quoted_ipv4(quote) } else { quoted_ipv6(quote) }?;
    if upper.fragment.is_some_and(|fragment| fragment.offset != 0) {
        return Err(DropReason::IcmpUnhandled);
    }
    let (protocol, checksum) = match upper.protocol {
        tcp::PROTOCOL => (Protocol::Tcp, tcp::CHECKSUM),
        udp::PROTOCOL => (Protocol::Udp, udp::CHECKSUM),
        _ => return Err(DropReason::IcmpUnhandled),
    };
    let [a, b, c, d, ..] = *field::<8>(quote, upper.offset).ok_or(DropReason::IcmpTruncated)?;
    let l3 = parsed.l4 + icmp::LEN as u16;
    Ok(Quoted {
        key: FlowKey {
            src,
            dst,
            src_port: u16::from_be_bytes([a, b]),
            dst_port: u16::from_be_bytes([c, d]),
            tenant: parsed.key.tenant,
            protocol,
        },
        l3,
        l4: l3 + upper.offset as u16,
        end: parsed.l4 + end as u16,
        has_checksum: quote.len() >= upper.offset + checksum + 2,
    })
}

/// Where the quote ends within a message. A length field other than 0 says that extensions follow it
/// (RFC 4884 §4), in units of four bytes in ICMP and of eight in ICMPv6.
fn quote_end(message: &[u8], kind: Kind) -> usize {
    let len = match (kind, message) {
        (Kind::Icmp, [_, _, _, _, _, units, ..]) => usize::from(*units) * 4,
        (Kind::Icmpv6, [icmpv6::UNREACHABLE | icmpv6::TIME_EXCEEDED, _, _, _, units, ..]) => {
            usize::from(*units) * 8
        }
        _ => 0,
    };
    if len == 0 { message.len() } else { message.len().min(icmp::LEN + len) }
}

fn quoted_ipv4(quote: &[u8]) -> Result<(Ip, Ip, ipv6::Upper), DropReason> {
    let header = ipv4::Header::new(quote).ok_or(DropReason::IcmpTruncated)?;
    if header.version() != 4 || header.header_len() < ipv4::LEN {
        return Err(DropReason::IcmpUnhandled);
    }
    let fragment = ipv6::Fragment {
        id: u32::from(header.id()),
        offset: header.fragment_offset(),
        more: header.more_fragments(),
    };
    let upper = ipv6::Upper {
        protocol: header.protocol(),
        offset: header.header_len(),
        fragment: header.is_fragment().then_some(fragment),
    };
    Ok((Ip::v4(header.src()), Ip::v4(header.dst()), upper))
}

fn quoted_ipv6(quote: &[u8]) -> Result<(Ip, Ip, ipv6::Upper), DropReason> {
    let header = ipv6::Header::new(quote).ok_or(DropReason::IcmpTruncated)?;
    let (src, dst) = (header.src(), header.dst());
    if header.version() != 6 || src.is_v4() || dst.is_v4() {
        return Err(DropReason::IcmpUnhandled);
    }
    let upper = ipv6::upper_layer(quote, header.next_header()).map_err(|_| DropReason::IcmpTruncated)?;
    Ok((src, dst, upper))
}
