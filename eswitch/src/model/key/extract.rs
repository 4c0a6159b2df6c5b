//! A packet's key. Whatever `headers` claim, nothing is read beyond the frame: what is not there is 0.

use super::layout::{self, stack};
use super::{Fragment, Headers, Key, L3, L4, Registers, Stack, TunnelKind};

impl Key {
    /// Gathers what a pattern can ask about this frame. `headers` are [`parse`](super::parse)'s of it.
    #[inline]
    #[must_use]
    pub fn extract(frame: &[u8], headers: &Headers, registers: &Registers) -> Key {
        let mut key = Key::default();
        let outer = fields(frame, &headers.outer, &mut key, layout::OUTER) << layout::OUTER_SHIFT;
        key.words[layout::SHAPE] = outer | shape(registers);
        key.words[layout::META] = u64::from(registers.meta) << 32 | u64::from(registers.mark.unwrap_or(0));
        for (word, pair) in key.words[layout::TAG..].iter_mut().zip(registers.tags.chunks_exact(2)) {
            *word = u64::from(pair[0]) << 32 | u64::from(pair[1]);
        }
        if let Some((kind, at)) = headers.tunnel {
            key.words[layout::TUNNEL] = tunnel(frame, kind, usize::from(at));
            let inner = fields(frame, &headers.inner, &mut key, layout::INNER);
            key.words[layout::SHAPE] |=
                layout::tunnel_code(kind) << layout::TUNNEL_SHIFT | inner << layout::INNER_SHIFT;
        }
        key
    }
}

#[inline]
fn shape(registers: &Registers) -> u64 {
    let manager = if registers.from_manager { layout::MANAGER } else { 0 };
    u64::from(registers.source.0) | manager | (registers.colour as u64) << layout::COLOUR_SHIFT
}

#[inline]
fn be64(frame: &[u8], at: usize) -> u64 {
    frame.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

#[inline]
fn be32(frame: &[u8], at: usize) -> u64 {
    let bytes = frame.get(at..).and_then(|rest| rest.first_chunk());
    bytes.map_or(0, |bytes| u64::from(u32::from_be_bytes(*bytes)))
}

#[inline]
fn be16(frame: &[u8], at: usize) -> u64 {
    let bytes = frame.get(at..).and_then(|rest| rest.first_chunk());
    bytes.map_or(0, |bytes| u64::from(u16::from_be_bytes(*bytes)))
}

/// Fills a stack's words; its shape.
#[inline]
fn fields(frame: &[u8], headers: &Stack, key: &mut Key, base: usize) -> u64 {
    let Some(words) = key.words.get_mut(base..base + 8) else { return 0 };
    let mut shape = 0;
    if headers.has_l2 {
        shape |= ethernet(frame, headers, words);
    }
    shape |= match headers.l3 {
        L3::None => 0,
        L3::Ipv4 => ipv4(frame, headers, words),
        L3::Ipv6 => ipv6(frame, headers, words),
    };
    match headers.fragment {
        Fragment::Whole => shape | transport(frame, headers, words),
        Fragment::First | Fragment::Later => shape | stack::FRAGMENT,
    }
}

#[inline]
fn ethernet(frame: &[u8], headers: &Stack, words: &mut [u64]) -> u64 {
    let at = usize::from(headers.l2);
    let ethertype = be16(frame, at + 12 + usize::from(headers.vlans) * 4);
    words[layout::ETH_DST] = be64(frame, at) & !0xffff | ethertype;
    words[layout::ETH_SRC] = be64(frame, at + 6) & !0xffff;
    if headers.vlans == 0 {
        return stack::ETHERNET;
    }
    words[layout::ETH_SRC] |= be16(frame, at + 14);
    let service = |at, bit| if be16(frame, at) == 0x8100 { 0 } else { bit };
    let mut shape = stack::ETHERNET | stack::TAGGED | service(at + 12, stack::SERVICE);
    if headers.vlans > 1 {
        words[layout::REST] |= be16(frame, at + 18) << 48;
        shape |= stack::TAGGED2 | service(at + 16, stack::SERVICE2);
    }
    shape
}

#[inline]
fn ipv4(frame: &[u8], headers: &Stack, words: &mut [u64]) -> u64 {
    let at = usize::from(headers.l3_at);
    let Some(header) = frame.get(at..).and_then(|rest| rest.first_chunk::<20>()) else { return 0 };
    words[layout::PORTS] =
        u64::from(headers.protocol) << 16 | u64::from(header[8]) << 8 | u64::from(header[1]);
    words[layout::ADDRESSES] = be64(header, 12);
    words[layout::REST] |= be16(header, 6) << 32;
    layout::l3_bits(L3::Ipv4) | u64::from(header[0] & 15) << stack::IHL_SHIFT
}

#[inline]
fn ipv6(frame: &[u8], headers: &Stack, words: &mut [u64]) -> u64 {
    let at = usize::from(headers.l3_at);
    let Some(header) = frame.get(at..).and_then(|rest| rest.first_chunk::<40>()) else { return 0 };
    let first = be32(header, 0);
    words[layout::PORTS] = u64::from(headers.protocol) << 16 | u64::from(header[7]) << 8 | first >> 20 & 0xff;
    for (index, word) in words[layout::ADDRESSES..layout::ADDRESSES + 4].iter_mut().enumerate() {
        *word = be64(header, 8 + index * 8);
    }
    words[layout::REST] |= be16(header, 4) << 32 | first & 0xf_ffff;
    layout::l3_bits(L3::Ipv6)
}

#[inline]
fn transport(frame: &[u8], headers: &Stack, words: &mut [u64]) -> u64 {
    let at = usize::from(headers.l4_at);
    if headers.l4 == L4::None {
        return 0;
    }
    words[layout::PORTS] |= be32(frame, at) << 32;
    match headers.l4 {
        L4::Tcp => words[layout::PORTS] |= u64::from(frame.get(at + 13).copied().unwrap_or(0)) << 24,
        L4::Icmp => words[layout::REST] |= be32(frame, at + 4),
        L4::None | L4::Udp | L4::Icmp6 => {}
    }
    layout::l4_bits(headers.l4)
}

/// VXLAN and GENEVE: their 8 bytes. GRE: its first 4, and its key if it has one.
fn tunnel(frame: &[u8], kind: TunnelKind, at: usize) -> u64 {
    if kind != TunnelKind::Gre {
        return be64(frame, at);
    }
    let flags = be16(frame, at);
    let key_at = if flags & 0x8000 != 0 { at + 8 } else { at + 4 };
    let key = if flags & 0x2000 != 0 { be32(frame, key_at) } else { 0 };
    be32(frame, at) << 32 | key
}
