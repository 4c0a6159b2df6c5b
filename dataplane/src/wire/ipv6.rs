//! IPv6 (RFC 8200) and its extension headers.

use crate::addr::Ip;
use crate::drops::DropReason;
use crate::limits::IPV6_EXTENSIONS_MAX;
use crate::wire::field;

/// Bytes of the fixed header.
pub const LEN: usize = 40;

/// Protocol number of an IPv6 packet inside another packet (RFC 2473).
pub const PROTOCOL: u8 = 41;

/// Offset of the payload's length.
pub const PAYLOAD_LEN: usize = 4;
/// Offset of the hop limit.
pub const HOP_LIMIT: usize = 7;
/// Offset of the source address.
pub const SRC: usize = 8;
/// Offset of the destination address.
pub const DST: usize = 24;

/// Next header: hop-by-hop options.
pub const HOP_BY_HOP: u8 = 0;
/// Next header: routing.
pub const ROUTING: u8 = 43;
/// Next header: fragment.
pub const FRAGMENT: u8 = 44;
/// Next header: authentication (RFC 4302).
pub const AUTHENTICATION: u8 = 51;
/// Next header: destination options.
pub const DESTINATION: u8 = 60;

/// The fixed header.
#[derive(Clone, Copy, Debug)]
pub struct Header<'a>(&'a [u8; LEN]);

impl<'a> Header<'a> {
    /// The header at the start of `packet`; `None` if the packet ends inside it.
    #[inline]
    #[must_use]
    pub fn new(packet: &'a [u8]) -> Option<Header<'a>> {
        packet.first_chunk().map(Header)
    }

    /// The version field: 6, unless this is no IPv6 header.
    #[inline]
    #[must_use]
    pub const fn version(self) -> u8 {
        self.0[0] >> 4
    }

    /// Bytes behind the fixed header, as the header says.
    #[inline]
    #[must_use]
    pub const fn payload_len(self) -> usize {
        u16::from_be_bytes([self.0[4], self.0[5]]) as usize
    }

    /// Type of what follows.
    #[inline]
    #[must_use]
    pub const fn next_header(self) -> u8 {
        self.0[6]
    }

    /// Hop limit.
    #[inline]
    #[must_use]
    pub const fn hop_limit(self) -> u8 {
        self.0[HOP_LIMIT]
    }

    /// Source address.
    #[inline]
    #[must_use]
    pub fn src(self) -> Ip {
        let [_, _, _, _, _, _, _, _, src @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = *self.0;
        Ip::v6(src)
    }

    /// Destination address.
    #[inline]
    #[must_use]
    pub fn dst(self) -> Ip {
        self.0.last_chunk().map_or_else(Ip::default, |dst| Ip::v6(*dst))
    }
}

/// `::`.
pub const UNSPECIFIED: Ip = Ip::v6([0; 16]);
/// `::1`.
pub const LOOPBACK: Ip = Ip::from_words([0, 1]);
/// `ff02::1`, all nodes of the link.
pub const ALL_NODES: Ip = Ip::from_words([0xff02 << 48, 1]);

/// Whether this is a multicast group.
#[inline]
#[must_use]
pub const fn is_multicast(ip: Ip) -> bool {
    ip.words()[0] >> 56 == 0xff
}

/// The group a neighbour solicitation for `ip` is sent to (RFC 4291 §2.7.1).
#[must_use]
pub const fn solicited_node(ip: Ip) -> Ip {
    Ip::from_words([0xff02 << 48, 0x1_ff00_0000 | ip.words()[1] & 0x00ff_ffff])
}

/// A fragment header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fragment {
    /// Identification.
    pub id: u32,
    /// Fragment offset in bytes.
    pub offset: usize,
    /// Whether more fragments follow.
    pub more: bool,
}

/// Where the extension headers end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Upper {
    /// Type of what is there: an upper-layer protocol, or in a later fragment whatever the fragment
    /// header says comes first in the whole packet.
    pub protocol: u8,
    /// Its offset from the start of the packet.
    pub offset: usize,
    /// The fragment header, if the packet has one.
    pub fragment: Option<Fragment>,
}

/// Follows the extension headers of `packet`, which begins with the fixed header, until something that
/// is none, or until the payload of a later fragment.
#[inline]
pub fn upper_layer(packet: &[u8], next_header: u8) -> Result<Upper, DropReason> {
    let upper = Upper { protocol: next_header, offset: LEN, fragment: None };
    if is_extension(next_header) { follow(packet, upper) } else { Ok(upper) }
}

/// Whether [`upper_layer`] goes past this.
#[inline]
#[must_use]
pub const fn is_extension(next_header: u8) -> bool {
    matches!(next_header, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION)
}

#[cold]
fn follow(packet: &[u8], mut upper: Upper) -> Result<Upper, DropReason> {
    const INVALID: DropReason = DropReason::Ipv6ExtensionInvalid;
    for _ in 0..IPV6_EXTENSIONS_MAX {
        let header = *field::<8>(packet, upper.offset).ok_or(INVALID)?;
        let len = match upper.protocol {
            // RFC 8200 §4.1: only directly behind the fixed header.
            HOP_BY_HOP if upper.offset != LEN => return Err(INVALID),
            HOP_BY_HOP | DESTINATION => usize::from(header[1]) * 8 + 8,
            // With segments left the destination is not the final one: not ours to forward (RFC 8200
            // §4.4), deprecated in type 0 (RFC 5095), and no checksum could be kept right.
            ROUTING if header[3] != 0 => return Err(INVALID),
            ROUTING => usize::from(header[1]) * 8 + 8,
            AUTHENTICATION => usize::from(header[1]) * 4 + 8,
            FRAGMENT if upper.fragment.is_some() => return Err(INVALID),
            FRAGMENT => {
                upper.fragment = Some(fragment(header));
                8
            }
            _ => return Ok(upper),
        };
        upper.protocol = header[0];
        upper.offset += len;
        if upper.offset > packet.len() {
            return Err(INVALID);
        }
        if !is_extension(upper.protocol) || upper.fragment.is_some_and(|fragment| fragment.offset != 0) {
            return Ok(upper);
        }
    }
    Err(INVALID)
}

fn fragment(header: [u8; 8]) -> Fragment {
    let [_, _, a, b, id @ ..] = header;
    let offset_and_more = u16::from_be_bytes([a, b]);
    Fragment {
        id: u32::from_be_bytes(id),
        offset: usize::from(offset_and_more & 0xfff8),
        more: offset_and_more & 1 != 0,
    }
}

/// The header of a packet that Millrace originates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Repr {
    /// Source address.
    pub src: Ip,
    /// Destination address.
    pub dst: Ip,
    /// Type of what follows.
    pub next_header: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Bytes behind the header.
    pub payload_len: u16,
}

impl Repr {
    /// Writes the header, traffic class and flow label 0.
    pub fn emit(&self, header: &mut [u8; LEN]) {
        *header = [0; LEN];
        header[0] = 0x60;
        header[4..6].copy_from_slice(&self.payload_len.to_be_bytes());
        header[6] = self.next_header;
        header[HOP_LIMIT] = self.hop_limit;
        header[SRC..DST].copy_from_slice(&self.src.octets());
        header[DST..].copy_from_slice(&self.dst.octets());
    }
}
