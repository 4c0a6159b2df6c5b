//! What the chip can match at once in HWS.
//!
//! Hardware steering compares one tag per rule, gathered from the packet's *header layout* by selectors. Up
//! to 9 selectors take a dword from anywhere (6 on older chips, with 3 more for the layout's first 256
//! bytes), 8 take a byte from the first 256 bytes. Addresses, registers and tunnel headers lie beyond, so
//! each of their dwords needs a dword selector: two IPv6 addresses need 8. As `mlx5dr_definer.c`.

use super::{Limits, TemplateAttr, unsupported};
use crate::model::item::{Header, Item, Layer};
use crate::model::refusal::{Cause, Refusal};

/// Byte selectors (`BYTE_SELECTORS`).
const BYTES: u32 = 8;
/// What they count for among a chip's dwords.
const BYTES_AS_DWORDS: u32 = BYTES / 4;

/// What a pattern needs.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Budget {
    /// Dwords beyond the first 256 bytes, one bit each.
    far: u64,
    /// Dwords within them: one bit for each byte that counts. Outer headers, then inner ones.
    near: [u8; 2 * SIDE],
    /// Both IPv6 addresses of one header are wanted.
    both_ipv6: bool,
    /// What cannot be matched at all.
    refusal: Option<Refusal>,
}

/// Dwords of one side in the first 256 bytes: 4 Ethernet, 2 source MAC, 4 IP, 2 transport.
const SIDE: usize = 12;
const ETH: usize = 0;
const ETH_SOURCE: usize = 4;
const IP: usize = 6;
const TRANSPORT: usize = 10;

// Bits of `far`: 10 per side, then what there is once.
const FAR_SIDE: u32 = 10;
const SOURCE: u32 = 20;
const META: u32 = 21;
const COLOUR: u32 = 22;
const ICMP: u32 = 23;
const TUNNEL: u32 = 25;
const TAGS: u32 = 32;

impl Budget {
    /// What these items need, by their masks.
    pub(super) fn of(items: &[Item<'_>], attr: &TemplateAttr) -> Budget {
        let mut budget = Budget::default();
        // Ingress templates are given their own port.
        budget.take_far(SOURCE, attr.ingress);
        let mut inner = false;
        for (at, item) in items.iter().enumerate() {
            match *item {
                Item::Header(header) => {
                    budget.header(&header, inner, attr.relaxed, at);
                    inner |= matches!(header.layer, Layer::Vxlan | Layer::Geneve | Layer::Gre);
                }
                Item::RepresentedPort { mask, .. } => budget.take_far(SOURCE, mask != 0),
                Item::Tag { index, mask, .. } => budget.take_far(TAGS + u32::from(index & 7), mask != 0),
                Item::Meta { mask, .. } => budget.take_far(META, mask != 0),
                Item::MeterColour { mask, .. } => budget.take_far(COLOUR, mask != 0),
                _ => {}
            }
        }
        budget
    }

    /// Whether the chip has it.
    pub(super) fn check(&self, limits: &Limits) -> Result<(), Refusal> {
        self.refusal.map_or(Ok(()), Err)?;
        if self.both_ipv6 && !limits.ipv6_5tuple {
            return Err(unsupported(
                Cause::Unspecified,
                "this chip cannot match both IPv6 addresses in one rule: match one, or spread over two groups",
            ));
        }
        if limits.match_dwords == 0 {
            return Ok(());
        }
        let too_wide = unsupported(
            Cause::Unspecified,
            "the pattern is wider than the chip can match: drop fields, or spread over two groups",
        );
        let anywhere = limits.match_dwords.saturating_sub(BYTES_AS_DWORDS);
        let spare = anywhere.checked_sub(self.far.count_ones()).ok_or(too_wide)?;
        if self.bytes_left(spare.saturating_add(limits.match_dwords_near)) > BYTES {
            Err(too_wide)
        } else {
            Ok(())
        }
    }

    /// Bytes without a selector once `dwords` have taken the fullest dwords.
    fn bytes_left(&self, dwords: u32) -> u32 {
        let mut near = self.near.map(u8::count_ones);
        near.sort_unstable_by(|one, other| other.cmp(one));
        near.iter().skip(dwords as usize).sum()
    }

    fn take_far(&mut self, bit: u32, wanted: bool) {
        self.far |= u64::from(wanted) << bit;
    }

    /// Four bytes of a mask are one dword beyond the first 256 bytes.
    fn take_dword(&mut self, bit: u32, mask: &[u8], offset: usize) {
        let wanted = mask.get(offset..offset + 4).is_some_and(|bytes| bytes.iter().any(|&byte| byte != 0));
        self.take_far(bit, wanted);
    }

    /// Bytes of a mask are bytes of a dword within them, from `place` on.
    fn take_bytes(&mut self, dword: usize, place: usize, mask: &[u8], offset: usize, length: usize) {
        for byte in 0..length {
            if mask.get(offset + byte).is_some_and(|&bits| bits != 0) {
                self.near[dword] |= 1 << (place + byte);
            }
        }
    }

    fn cannot(&mut self, message: &'static str) {
        self.refusal.get_or_insert(unsupported(Cause::Unspecified, message));
    }

    fn header(&mut self, header: &Header<'_>, inner: bool, relaxed: bool, at: usize) {
        let mask = header.mask.unwrap_or(&[]);
        let near = if inner { SIDE } else { 0 };
        let far = if inner { FAR_SIDE } else { 0 };
        self.range(header, at);
        if header.followed.is_some() {
            self.near[near + ETH + 2] |= 2;
        }
        match header.layer {
            Layer::Eth => {
                self.take_bytes(near + ETH, 0, mask, 0, 4);
                self.take_bytes(near + ETH + 1, 0, mask, 4, 2);
                self.take_bytes(near + ETH_SOURCE, 0, mask, 6, 4);
                self.take_bytes(near + ETH_SOURCE + 1, 0, mask, 10, 2);
                self.take_bytes(near + ETH + 1, 2, mask, 12, 2);
            }
            Layer::Vlan => {
                self.present(near, relaxed);
                self.take_bytes(near + ETH + 2, 2, mask, 0, 2);
                self.take_bytes(near + ETH + 1, 2, mask, 2, 2);
            }
            Layer::Ipv4 => self.ipv4(mask, near, far, relaxed),
            Layer::Ipv6 => self.ipv6(mask, near, far, relaxed),
            Layer::Tcp | Layer::Udp => {
                self.present(near, relaxed);
                self.only(mask, if header.layer == Layer::Tcp { &[0..4, 13..14] } else { &[0..4, 0..0] });
                self.take_bytes(near + TRANSPORT, 0, mask, 0, 4);
                self.take_bytes(near + TRANSPORT + 1, 1, mask, 13, 1);
            }
            Layer::Icmp | Layer::Icmp6 => {
                if !relaxed {
                    self.near[near + ETH + 3] |= 1;
                }
                self.take_dword(ICMP, mask, 0);
                self.take_dword(ICMP + 1, mask, 4);
            }
            Layer::Vxlan | Layer::Gre | Layer::GreKey | Layer::Geneve => {
                self.tunnel(header.layer, mask, inner, relaxed)
            }
        }
    }

    /// Presence of a VLAN tag, an IP header or a transport is told by one byte.
    fn present(&mut self, near: usize, relaxed: bool) {
        if !relaxed {
            self.near[near + ETH + 2] |= 2;
        }
    }

    /// Refuses masks outside these bytes.
    fn only(&mut self, mask: &[u8], able: &[std::ops::Range<usize>; 2]) {
        let beyond = |(at, bits): (usize, &u8)| *bits != 0 && !able.iter().any(|range| range.contains(&at));
        if mask.iter().enumerate().any(beyond) {
            self.cannot("the mask covers fields of the transport that the chip cannot match");
        }
    }

    fn ipv4(&mut self, mask: &[u8], near: usize, far: u32, relaxed: bool) {
        self.present(near, relaxed);
        if [2, 3, 4, 5, 10, 11].iter().any(|&at| mask.get(at).is_some_and(|&bits| bits != 0)) {
            self.cannot("IPv4's length, identification and checksum cannot be matched");
        }
        if !relaxed {
            // The presence of IPv4 takes the EtherType's place.
            self.near[near + ETH + 1] &= 0b0011;
        }
        self.take_bytes(near + IP, 0, mask, 0, 2);
        self.take_bytes(near + IP, 2, mask, 8, 2);
        if let Some(&[high, low]) = mask.get(6..8) {
            match u16::from_be_bytes([high, low]) {
                0 => {}
                0x3fff => self.near[near + ETH + 2] |= 1,
                _ => self.take_bytes(near + IP + 1, 2, mask, 6, 2),
            }
        }
        self.take_dword(far, mask, 12);
        self.take_dword(far + 1, mask, 16);
    }

    fn ipv6(&mut self, mask: &[u8], near: usize, far: u32, relaxed: bool) {
        self.present(near, relaxed);
        if !relaxed {
            self.near[near + ETH + 1] &= 0b0011;
        }
        // Version and the class's first half share a byte with its second half's neighbour.
        self.take_bytes(near + IP, 1, mask, 0, 1);
        self.take_bytes(near + IP + 3, 1, mask, 1, 3);
        self.take_bytes(near + IP + 2, 0, mask, 4, 2);
        self.take_bytes(near + IP, 3, mask, 6, 1);
        self.take_bytes(near + IP, 2, mask, 7, 1);
        for dword in 0..8_u32 {
            self.take_dword(far + 2 + dword, mask, 8 + 4 * dword as usize);
        }
        let addressed = |range: std::ops::Range<usize>| {
            mask.get(range).is_some_and(|bytes| bytes.iter().any(|&byte| byte != 0))
        };
        self.both_ipv6 |= addressed(8..24) && addressed(24..40);
    }

    fn tunnel(&mut self, layer: Layer, mask: &[u8], inner: bool, relaxed: bool) {
        if inner && layer != Layer::GreKey {
            self.cannot("only one tunnel can be matched");
        }
        match layer {
            Layer::Vxlan => {
                if [1, 2, 3, 7].iter().any(|&at| mask.get(at).is_some_and(|&bits| bits != 0)) {
                    self.cannot("VXLAN's reserved bits cannot be matched");
                }
                if !relaxed {
                    self.present(0, false);
                    self.near[TRANSPORT] |= 0b1100;
                }
                self.take_dword(TUNNEL, mask, 0);
                self.take_dword(TUNNEL + 1, mask, 4);
            }
            Layer::GreKey => {
                self.take_far(TUNNEL, !relaxed);
                self.take_dword(TUNNEL + 2, mask, 0);
            }
            _ => {
                if !relaxed {
                    self.near[IP] |= 0b1000;
                }
                self.take_dword(TUNNEL, mask, 0);
            }
        }
    }

    /// Templates have no ranges. mlx5 ignores `last`; a rule that then matches something else than was
    /// asked for is worse than none. IPv4's fragment word is the exception: there, `last` says nothing new.
    fn range(&mut self, header: &Header<'_>, at: usize) {
        let (Some(spec), Some(last)) = (header.spec, header.last) else {
            return;
        };
        let mask = header.mask.unwrap_or(&[]);
        let fragment = |byte: usize| header.layer == Layer::Ipv4 && matches!(byte, 6 | 7);
        let differs = spec
            .iter()
            .zip(last)
            .zip(mask)
            .enumerate()
            .any(|(byte, ((from, to), mask))| (from ^ to) & mask != 0 && !fragment(byte));
        if differs {
            self.refusal.get_or_insert(unsupported(
                Cause::ItemLast(at),
                "templates have no ranges: use masks, or several rules",
            ));
        }
    }
}
