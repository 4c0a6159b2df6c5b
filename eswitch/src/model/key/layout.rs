//! Which bit of a [`Key`](super::Key) is what.
//!
//! | word | contents, from the most significant bit |
//! |---|---|
//! | 0 | inner stack's shape, outer stack's shape ([`stack`]), tunnel, colour, manager, source vport |
//! | 1-8 | the outer stack's fields, see below |
//! | 9 | meta 32, mark 32 |
//! | 10-13 | tags, two a word |
//! | 14 | tunnel header: VXLAN's or GENEVE's 8 bytes; GRE's first 4 and its key |
//! | 15-22 | the inner stack's fields |
//! | 23 | nothing |
//!
//! In each stack, in words:
//!
//! * [`PORTS`]: source port 16, destination port 16 (ICMP: type 8, code 8, checksum 16), TCP flags 8,
//!   protocol 8, TTL or hop limit 8, TOS or traffic class 8;
//! * [`ADDRESSES`], 4 words: IPv4: source 32, destination 32; IPv6: source 128, destination 128;
//! * [`ETH_DST`]: destination 48, EtherType behind the tags 16;
//! * [`ETH_SRC`]: source 48, first tag's TCI 16;
//! * [`REST`]: second tag's TCI 16; IPv4: flags and fragment offset 16, IPv6: payload length 16; ICMP:
//!   identifier 16, sequence 16, IPv6: flow label 20.
//!
//! So a rule about a source, IPv4 addresses, ports, and TCP flags is about words 0, 1 and 2 only.

/// The shape.
pub(in crate::model) const SHAPE: usize = 0;
/// Metadata and mark.
pub(in crate::model) const META: usize = 9;
/// The first of four words of tags.
pub(in crate::model) const TAG: usize = 10;
/// The tunnel's header.
pub(in crate::model) const TUNNEL: usize = 14;

/// First word of the outer stack's fields.
pub(in crate::model) const OUTER: usize = 1;
/// First word of the inner stack's fields.
pub(in crate::model) const INNER: usize = 15;

/// In a stack: ports, TCP flags, protocol, TTL, TOS.
pub(in crate::model) const PORTS: usize = 0;
/// In a stack: addresses.
pub(in crate::model) const ADDRESSES: usize = 1;
/// In a stack: destination MAC address and EtherType.
pub(in crate::model) const ETH_DST: usize = 5;
/// In a stack: source MAC address and TCI.
pub(in crate::model) const ETH_SRC: usize = 6;
/// In a stack: all else.
pub(in crate::model) const REST: usize = 7;

/// In word 0: the source vport.
pub(in crate::model) const SOURCE_MASK: u64 = 0xffff;
/// In word 0: sent by the eSwitch manager.
pub(in crate::model) const MANAGER: u64 = 1 << 16;
/// Where in word 0 the colour is (2 bits).
pub(in crate::model) const COLOUR_SHIFT: u32 = 17;
/// Where in word 0 the tunnel is (2 bits; 0: none).
pub(in crate::model) const TUNNEL_SHIFT: u32 = 19;
/// In word 0: the tunnel.
pub(in crate::model) const TUNNEL_MASK: u64 = 3 << TUNNEL_SHIFT;
/// Where in word 0 the outer stack's shape is.
pub(in crate::model) const OUTER_SHIFT: u32 = 24;
/// Where in word 0 the inner stack's shape is.
pub(in crate::model) const INNER_SHIFT: u32 = 40;

/// The shape of one stack: 16 bits of word 0.
pub(in crate::model) mod stack {
    /// There is a tag.
    pub(in crate::model) const TAGGED: u64 = 1;
    /// The first tag is a service tag (0x88a8, 0x9100).
    pub(in crate::model) const SERVICE: u64 = 1 << 1;
    /// There is a second tag.
    pub(in crate::model) const TAGGED2: u64 = 1 << 2;
    /// The second tag is a service tag.
    pub(in crate::model) const SERVICE2: u64 = 1 << 3;
    /// Where the network layer is (2 bits).
    pub(in crate::model) const L3_SHIFT: u32 = 4;
    /// The network layer.
    pub(in crate::model) const L3_MASK: u64 = 3 << L3_SHIFT;
    /// Where the transport is (3 bits); 0 in fragments.
    pub(in crate::model) const L4_SHIFT: u32 = 6;
    /// The transport.
    pub(in crate::model) const L4_MASK: u64 = 7 << L4_SHIFT;
    /// It is a fragment.
    pub(in crate::model) const FRAGMENT: u64 = 1 << 9;
    /// There is an Ethernet header.
    pub(in crate::model) const ETHERNET: u64 = 1 << 10;
    /// Where IPv4's header length in words is (4 bits).
    pub(in crate::model) const IHL_SHIFT: u32 = 11;
}

use super::{L3, L4, TunnelKind};

/// A tunnel's number in word 0.
#[inline]
pub(in crate::model) const fn tunnel_code(kind: TunnelKind) -> u64 {
    match kind {
        TunnelKind::Vxlan => 1,
        TunnelKind::Geneve => 2,
        TunnelKind::Gre => 3,
    }
}

/// A network layer's bits in a stack's shape.
#[inline]
pub(in crate::model) const fn l3_bits(l3: L3) -> u64 {
    (match l3 {
        L3::None => 0,
        L3::Ipv4 => 1,
        L3::Ipv6 => 2,
    }) << stack::L3_SHIFT
}

/// A transport's bits in a stack's shape.
#[inline]
pub(in crate::model) const fn l4_bits(l4: L4) -> u64 {
    (match l4 {
        L4::None => 0,
        L4::Tcp => 1,
        L4::Udp => 2,
        L4::Icmp => 3,
        L4::Icmp6 => 4,
    }) << stack::L4_SHIFT
}
