//! Where fields are: which bits of which header, or of which register.

use crate::model::action::{Field, FieldRef};
use crate::model::key::{Fragment, Headers, L3, L4, Stack, TAGS, TunnelKind};
use crate::model::refusal::{Cause, Errno, Refusal};

/// What a place is relative to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Home {
    /// The Ethernet header.
    Ethernet,
    /// The EtherType before the network layer, behind any tags.
    EtherType,
    /// The first tag's TCI.
    Vlan,
    /// The IPv4 header.
    Ipv4,
    /// The IPv6 header.
    Ipv6,
    /// IPv4's TTL or IPv6's hop limit.
    Ttl,
    /// The TCP header.
    Tcp,
    /// The UDP header.
    Udp,
    /// The TCP or UDP header.
    Ports,
    /// The VXLAN header; of the outer stack only.
    Vxlan,
    /// A register of `set_tag`.
    Tag(u8),
    /// The register of `set_meta`.
    Meta,
    /// The mark.
    Mark,
    /// The colour.
    Colour,
}

impl Home {
    /// Whether it is no header.
    pub(super) const fn is_register(self) -> bool {
        matches!(self, Home::Tag(_) | Home::Meta | Home::Mark | Home::Colour)
    }
}

/// Some bits of a header or register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    pub(super) home: Home,
    /// Whether of the stack behind a tunnel, if there is one.
    pub(super) innermost: bool,
    /// Bytes from the home's start.
    pub(super) at: u8,
    /// Bytes, big-endian, that hold the field: at most 16.
    pub(super) bytes: u8,
    /// The lowest bit's position in them.
    pub(super) shift: u8,
    /// Bits.
    pub(super) width: u8,
}

/// A field's home, offset there, bytes, lowest bit, and width: `mlx5_flow_field_id_to_modify_info` of DPDK
/// 22.11, `drivers/net/mlx5/mlx5_flow_dv.c`, and the headers' RFCs. `None`: mlx5 cannot edit it.
const fn layout(field: Field, level: u32) -> Option<(Home, u8, u8, u8, u8)> {
    Some(match field {
        Field::MacDst => (Home::Ethernet, 0, 6, 0, 48),
        Field::MacSrc => (Home::Ethernet, 6, 6, 0, 48),
        Field::VlanId => (Home::Vlan, 0, 2, 0, 12),
        Field::MacType => (Home::EtherType, 0, 2, 0, 16),
        Field::Ipv4Dscp => (Home::Ipv4, 1, 1, 2, 6),
        Field::Ipv4Ecn => (Home::Ipv4, 1, 1, 0, 2),
        Field::Ipv4Ttl => (Home::Ipv4, 8, 1, 0, 8),
        Field::Ipv4Src => (Home::Ipv4, 12, 4, 0, 32),
        Field::Ipv4Dst => (Home::Ipv4, 16, 4, 0, 32),
        Field::Ipv6Dscp => (Home::Ipv6, 0, 2, 6, 6),
        Field::Ipv6Ecn => (Home::Ipv6, 0, 2, 4, 2),
        Field::Ipv6HopLimit => (Home::Ipv6, 7, 1, 0, 8),
        Field::Ipv6Src => (Home::Ipv6, 8, 16, 0, 128),
        Field::Ipv6Dst => (Home::Ipv6, 24, 16, 0, 128),
        Field::TcpPortSrc => (Home::Tcp, 0, 2, 0, 16),
        Field::TcpPortDst => (Home::Tcp, 2, 2, 0, 16),
        Field::TcpSeqNum => (Home::Tcp, 4, 4, 0, 32),
        Field::TcpAckNum => (Home::Tcp, 8, 4, 0, 32),
        Field::TcpFlags => (Home::Tcp, 12, 2, 0, 9),
        Field::UdpPortSrc => (Home::Udp, 0, 2, 0, 16),
        Field::UdpPortDst => (Home::Udp, 2, 2, 0, 16),
        Field::VxlanVni => (Home::Vxlan, 4, 3, 0, 24),
        Field::Tag if level < TAGS as u32 => (Home::Tag(level as u8), 0, 4, 0, 32),
        Field::Meta => (Home::Meta, 0, 4, 0, 32),
        Field::Mark => (Home::Mark, 0, 4, 0, 32),
        Field::MeterColour => (Home::Colour, 0, 4, 0, 2),
        Field::Tag | Field::Start | Field::VlanType | Field::GeneveVni | Field::Other(_) => return None,
    })
}

impl Place {
    /// The whole of a field of the outermost headers.
    pub(super) const fn of(home: Home, at: u8, bytes: u8) -> Place {
        Place { home, innermost: false, at, bytes, shift: 0, width: bytes * 8 }
    }

    /// A whole field of the outermost headers.
    pub(super) const fn whole(field: Field) -> Option<Place> {
        match layout(field, 0) {
            Some((home, at, bytes, shift, width)) => {
                Some(Place { home, innermost: false, at, bytes, shift, width })
            }
            None => None,
        }
    }

    /// These `width` bits of that field. Offsets count from a header field's most significant bit, but from a
    /// register's least significant one, as mlx5 has it.
    ///
    /// # Errors
    /// ENOTSUP for a field that mlx5 cannot edit, EINVAL for bits that it does not have.
    pub(super) fn named(field: FieldRef, width: u32, index: usize) -> Result<Place, Refusal> {
        let refuse = |errno, message| Err(Refusal::new(errno, Cause::Action(index), message));
        let Some((home, at, bytes, lowest, bits)) = layout(field.field, field.level) else {
            return refuse(Errno::Notsup, "this field cannot be edited");
        };
        let end = field.offset.checked_add(width);
        let Some(end) = end.filter(|&end| width != 0 && end <= u32::from(bits)) else {
            return refuse(Errno::Inval, "no such bits in this field");
        };
        let skipped = if home.is_register() { field.offset } else { u32::from(bits) - end };
        let innermost = field.level > 1 && !home.is_register();
        // Both are at most 128.
        Ok(Place { home, innermost, at, bytes, shift: lowest + skipped as u8, width: width as u8 })
    }

    /// This field's bits out of an immediate value: the field as on the wire, a register as a big-endian
    /// number of 32 bits. The bits at the same offset count. The result is in place: to be put under the
    /// mask.
    pub(super) fn wire_bits(&self, field: Field, value: &[u8; 16]) -> u128 {
        if self.home.is_register() {
            return u128::from(u32::from_be_bytes([value[0], value[1], value[2], value[3]])) & self.mask();
        }
        let bytes = usize::from(self.bytes);
        let number = value[..bytes.min(16)].iter().fold(0, |number, &byte| number << 8 | u128::from(byte));
        let number = match field {
            // Numbers of their own, not as they lie in the header.
            Field::Ipv4Dscp => u128::from(value[0]) << 2,
            Field::Ipv6Dscp => u128::from(value[0]) << 6,
            Field::Ipv6Ecn => u128::from(value[0]) << 4,
            _ => number,
        };
        number & self.mask()
    }

    /// Its bits.
    pub(super) const fn mask(&self) -> u128 {
        let ones = if self.width >= 128 { u128::MAX } else { (1 << self.width) - 1 };
        ones << self.shift
    }

    /// Where in the frame it is; `None` if the packet has no such header, whole. Not for registers.
    pub(super) fn find(&self, headers: &Headers, len: usize) -> Option<usize> {
        let stack = self.stack(headers);
        let later = stack.fragment == Fragment::Later;
        let home = match self.home {
            Home::Ethernet if stack.has_l2 => stack.l2,
            Home::EtherType if stack.has_l2 => stack.l2 + 12 + 4 * u16::from(stack.vlans),
            Home::Vlan if stack.has_l2 && stack.vlans > 0 => stack.l2 + 14,
            Home::Ipv4 if stack.l3 == L3::Ipv4 => stack.l3_at,
            Home::Ipv6 if stack.l3 == L3::Ipv6 => stack.l3_at,
            Home::Ttl if stack.l3 == L3::Ipv4 => stack.l3_at + 8,
            Home::Ttl if stack.l3 == L3::Ipv6 => stack.l3_at + 7,
            Home::Tcp if stack.l4 == L4::Tcp && !later => stack.l4_at,
            Home::Udp if stack.l4 == L4::Udp && !later => stack.l4_at,
            Home::Ports if matches!(stack.l4, L4::Tcp | L4::Udp) && !later => stack.l4_at,
            Home::Vxlan => match headers.tunnel {
                Some((TunnelKind::Vxlan, at)) => at,
                _ => return None,
            },
            _ => return None,
        };
        let at = usize::from(home) + usize::from(self.at);
        (at + usize::from(self.bytes) <= len).then_some(at)
    }

    /// The stack that it is of.
    pub(super) fn stack<'a>(&self, headers: &'a Headers) -> &'a Stack {
        if self.is_inside(headers) { &headers.inner } else { &headers.outer }
    }

    /// Whether it is behind a tunnel's header.
    pub(super) fn is_inside(&self, headers: &Headers) -> bool {
        self.innermost && headers.tunnel.is_some() && self.home != Home::Vxlan
    }
}
