//! Where a header's fields go in a key, and what its mere presence in a pattern says.

use super::super::key::{L3, L4, TunnelKind};
use super::*;

/// The longest [`Layer::bytes`].
pub(super) const HEADER_MAX: usize = 40;

/// Every bit of every header.
pub(super) const ALL: [u8; HEADER_MAX] = [0xff; HEADER_MAX];

/// The stack that a header of a pattern belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    /// The stack's first word.
    pub(super) base: usize,
    /// Where in word 0 its shape is.
    pub(super) shift: u32,
    /// It is the stack's second tag.
    pub(super) second_tag: bool,
}

impl Place {
    pub(super) const fn inner(self) -> bool {
        self.base == layout::INNER
    }

    /// Makes these bits of the stack's shape count.
    pub(super) fn shape(self, rule: &mut Match, mask: u64, value: u64) {
        set(rule, layout::SHAPE, mask << self.shift, value << self.shift);
    }
}

/// How far into a packet a pattern has come.
#[derive(Default)]
pub(super) struct Walk {
    tunnel: Option<TunnelKind>,
    /// Of the current stack: 0 nothing, 1 Ethernet, 2 and 3 tags, 4 network layer, 5 transport.
    depth: u8,
    gre_key: bool,
}

const OUT_OF_ORDER: &str = "item twice or in no possible order";
const NO_SUCH_TUNNEL: &str = "tunnel within a tunnel, or a tunnel that is not modelled";

impl Walk {
    /// Takes the next header; where its fields go.
    pub(super) fn enter(&mut self, layer: Layer, index: usize) -> Result<Place, Refusal> {
        let out_of_order = Refusal::new(Errno::Inval, Cause::Item(index), OUT_OF_ORDER);
        let no_such_tunnel = Refusal::new(Errno::Notsup, Cause::Item(index), NO_SUCH_TUNNEL);
        let mut place = match self.tunnel {
            None => Place { base: layout::OUTER, shift: layout::OUTER_SHIFT, second_tag: false },
            Some(_) => Place { base: layout::INNER, shift: layout::INNER_SHIFT, second_tag: false },
        };
        match layer {
            Layer::Eth if self.depth == 0 => self.depth = 1,
            Layer::Vlan if self.depth < 3 => {
                place.second_tag = self.depth == 2;
                self.depth = self.depth.max(1) + 1;
            }
            Layer::Ipv4 | Layer::Ipv6 if self.depth < 4 => self.depth = 4,
            Layer::Ipv4 | Layer::Ipv6 if self.depth == 4 => return Err(no_such_tunnel),
            Layer::Tcp | Layer::Udp | Layer::Icmp | Layer::Icmp6 if self.depth < 5 => self.depth = 5,
            Layer::GreKey if self.tunnel == Some(TunnelKind::Gre) && self.depth == 0 && !self.gre_key => {
                self.gre_key = true;
            }
            Layer::Vxlan | Layer::Geneve | Layer::Gre => {
                if self.tunnel.is_some() {
                    return Err(no_such_tunnel);
                }
                self.tunnel = tunnel_of(layer);
                self.depth = 0;
            }
            _ => return Err(out_of_order),
        }
        Ok(place)
    }
}

const fn tunnel_of(layer: Layer) -> Option<TunnelKind> {
    match layer {
        Layer::Vxlan => Some(TunnelKind::Vxlan),
        Layer::Geneve => Some(TunnelKind::Geneve),
        Layer::Gre => Some(TunnelKind::Gre),
        _ => None,
    }
}

/// Makes the header's presence count. Tags are their callers' business.
pub(super) fn present(rule: &mut Match, layer: Layer, place: Place) {
    let l4 = match layer {
        Layer::Eth if place.inner() => return place.shape(rule, stack::ETHERNET, stack::ETHERNET),
        Layer::Eth | Layer::Vlan => return,
        Layer::Ipv4 => return place.shape(rule, stack::L3_MASK, layout::l3_bits(L3::Ipv4)),
        Layer::Ipv6 => return place.shape(rule, stack::L3_MASK, layout::l3_bits(L3::Ipv6)),
        Layer::Tcp => L4::Tcp,
        Layer::Udp => L4::Udp,
        Layer::Icmp => L4::Icmp,
        Layer::Icmp6 => L4::Icmp6,
        Layer::Vxlan => return tunnel(rule, TunnelKind::Vxlan),
        Layer::Geneve => return tunnel(rule, TunnelKind::Geneve),
        Layer::Gre => return tunnel(rule, TunnelKind::Gre),
        Layer::GreKey => return set(rule, layout::TUNNEL, GRE_KEY_PRESENT, GRE_KEY_PRESENT),
    };
    place.shape(rule, stack::L4_MASK, layout::l4_bits(l4));
}

/// The K flag in the tunnel's word.
pub(super) const GRE_KEY_PRESENT: u64 = 0x2000 << 48;

fn tunnel(rule: &mut Match, kind: TunnelKind) {
    set(rule, layout::SHAPE, layout::TUNNEL_MASK, layout::tunnel_code(kind) << layout::TUNNEL_SHIFT);
}

/// Whether the mask has bits of fields that no key has. Version nibbles are of no account.
pub(super) fn masked_elsewhere(layer: Layer, mask: &[u8]) -> bool {
    let unknown = |at: usize| match layer {
        // Total length, identification; checksum.
        Layer::Ipv4 => (2..6).contains(&at) || (10..12).contains(&at),
        // Sequence, acknowledgement, data offset; window, checksum, urgent pointer.
        Layer::Tcp => (4..13).contains(&at) || (14..20).contains(&at),
        // Length, checksum.
        Layer::Udp => (4..8).contains(&at),
        _ => false,
    };
    mask.iter().enumerate().any(|(at, &bits)| bits != 0 && unknown(at))
}

/// A header's bytes as far as a mask lets them through.
struct Masked<'a, const N: usize> {
    bytes: &'a [u8; N],
    mask: &'a [u8; HEADER_MAX],
}

impl<'a, const N: usize> Masked<'a, N> {
    #[inline]
    fn of(bytes: &'a [u8], mask: &'a [u8; HEADER_MAX]) -> Option<Self> {
        Some(Masked { bytes: bytes.first_chunk()?, mask })
    }

    /// `LEN` bytes from `at`, as a number.
    #[inline]
    fn be<const LEN: usize>(&self, at: usize) -> u64 {
        number(&self.bytes[at..at + LEN]) & number(&self.mask[at..at + LEN])
    }
}

#[inline]
fn number(bytes: &[u8]) -> u64 {
    let mut wide = [0; 8];
    wide[8 - bytes.len()..].copy_from_slice(bytes);
    u64::from_be_bytes(wide)
}

/// Puts a header's bytes, as far as `mask` lets them through, to the bits of `key` where a packet would have
/// them. `false` if there are not enough bytes.
#[inline]
pub(super) fn scatter(layer: Layer, bytes: &[u8], mask: &[u8; HEADER_MAX], at: Place, key: &mut Key) -> bool {
    match layer {
        Layer::Eth => ethernet(bytes, mask, at, key),
        Layer::Vlan => vlan(bytes, mask, at, key),
        Layer::Ipv4 => ipv4(bytes, mask, at, key),
        Layer::Ipv6 => ipv6(bytes, mask, at, key),
        Layer::Tcp | Layer::Udp | Layer::Icmp | Layer::Icmp6 => transport(layer, bytes, mask, at, key),
        Layer::Vxlan | Layer::Geneve | Layer::Gre | Layer::GreKey => tunnel_header(layer, bytes, mask, key),
    }
    .is_some()
}

#[inline]
fn ethernet(bytes: &[u8], mask: &[u8; HEADER_MAX], at: Place, key: &mut Key) -> Option<()> {
    let header = Masked::<14>::of(bytes, mask)?;
    key.words[at.base + layout::ETH_DST] |= header.be::<6>(0) << 16 | header.be::<2>(12);
    key.words[at.base + layout::ETH_SRC] |= header.be::<6>(6) << 16;
    Some(())
}

#[inline]
fn vlan(bytes: &[u8], mask: &[u8; HEADER_MAX], at: Place, key: &mut Key) -> Option<()> {
    let header = Masked::<4>::of(bytes, mask)?;
    key.words[at.base + layout::ETH_DST] |= header.be::<2>(2);
    if at.second_tag {
        key.words[at.base + layout::REST] |= header.be::<2>(0) << 48;
    } else {
        key.words[at.base + layout::ETH_SRC] |= header.be::<2>(0);
    }
    Some(())
}

#[inline]
fn ipv4(bytes: &[u8], mask: &[u8; HEADER_MAX], at: Place, key: &mut Key) -> Option<()> {
    let header = Masked::<20>::of(bytes, mask)?;
    key.words[layout::SHAPE] |= (header.be::<1>(0) & 15) << stack::IHL_SHIFT << at.shift;
    key.words[at.base + layout::PORTS] |=
        header.be::<1>(9) << 16 | header.be::<1>(8) << 8 | header.be::<1>(1);
    key.words[at.base + layout::ADDRESSES] |= header.be::<8>(12);
    key.words[at.base + layout::REST] |= header.be::<2>(6) << 32;
    Some(())
}

#[inline]
fn ipv6(bytes: &[u8], mask: &[u8; HEADER_MAX], at: Place, key: &mut Key) -> Option<()> {
    let header = Masked::<40>::of(bytes, mask)?;
    let first = header.be::<4>(0);
    key.words[at.base + layout::PORTS] |=
        header.be::<1>(6) << 16 | header.be::<1>(7) << 8 | first >> 20 & 0xff;
    for word in 0..4 {
        key.words[at.base + layout::ADDRESSES + word] |= header.be::<8>(8 + word * 8);
    }
    key.words[at.base + layout::REST] |= header.be::<2>(4) << 32 | first & 0xf_ffff;
    Some(())
}

#[inline]
fn transport(layer: Layer, bytes: &[u8], mask: &[u8; HEADER_MAX], at: Place, key: &mut Key) -> Option<()> {
    key.words[at.base + layout::PORTS] |= Masked::<4>::of(bytes, mask)?.be::<4>(0) << 32;
    match layer {
        Layer::Tcp => {
            key.words[at.base + layout::PORTS] |= Masked::<20>::of(bytes, mask)?.be::<1>(13) << 24;
        }
        Layer::Icmp => key.words[at.base + layout::REST] |= Masked::<8>::of(bytes, mask)?.be::<4>(4),
        _ => {}
    }
    Some(())
}

#[inline]
fn tunnel_header(layer: Layer, bytes: &[u8], mask: &[u8; HEADER_MAX], key: &mut Key) -> Option<()> {
    key.words[layout::TUNNEL] |= match layer {
        Layer::Gre => Masked::<4>::of(bytes, mask)?.be::<4>(0) << 32,
        Layer::GreKey => Masked::<4>::of(bytes, mask)?.be::<4>(0),
        _ => Masked::<8>::of(bytes, mask)?.be::<8>(0),
    };
    Some(())
}
