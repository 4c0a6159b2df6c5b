//! A SWS rule's pattern: which header may follow which, and what of each can be matched.

use super::layers::{
    ANY_INNER, GENEVE, GRE, GRE_KEY, ICMP, ICMP6, INNER, OUTER_IPV4, OUTER_IPV6, OUTER_L2, OUTER_L3,
    OUTER_L4, OUTER_TCP, OUTER_UDP, OUTER_VLAN, TUNNEL, VXLAN,
};
use super::{Request, invalid, registers, unsupported};
use crate::model::item::{Header, Item, Layer};
use crate::model::refusal::{Cause, Refusal};
use crate::model::types::Vport;

/// Where a rule's packets come from: which halves of the FDB it goes into.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Source {
    /// Anywhere.
    Any,
    /// One vport.
    Vport(Vport),
    /// The eSwitch manager: what the CPUs of the card transmit.
    Manager,
}

/// What the pattern says, as far as actions care.
#[derive(Clone, Copy, Debug)]
pub(super) struct Walk<'a> {
    /// Layers seen; see `layers`.
    pub seen: u32,
    /// The source.
    pub source: Source,
    /// The outer VLAN item's mask.
    pub vlan_mask: Option<&'a [u8]>,
    /// Tag indices seen.
    pub tags: u32,
    ether_type: u16,
    /// The last item was Ethernet or VLAN.
    after_l2: bool,
    /// What the IP header says follows; `ANY`: nothing.
    protocol: u8,
    gre: Option<Header<'a>>,
}

const ANY: u8 = 0xff;

/// Offset of IPv4's fragment word.
const FRAGMENT: usize = 6;
/// More-fragments flag and offset.
const FRAGMENT_BITS: u16 = 0x3fff;
const MORE_FRAGMENTS: u16 = 0x2000;

/// Walks the pattern in mlx5's order.
pub(super) fn check<'a>(request: &Request<'_>, items: &[Item<'a>]) -> Result<Walk<'a>, Refusal> {
    let mut walk = Walk {
        seen: 0,
        source: Source::Vport(request.port.vport),
        vlan_mask: None,
        tags: 0,
        ether_type: 0,
        after_l2: false,
        protocol: ANY,
        gre: None,
    };
    for (at, item) in items.iter().enumerate() {
        let after_l2 = match item {
            Item::Header(header) => {
                walk.header(request, header, at)?;
                matches!(header.layer, Layer::Eth | Layer::Vlan)
            }
            item => {
                registers::item(request, &mut walk, item, at)?;
                false
            }
        };
        walk.after_l2 = after_l2;
    }
    Ok(walk)
}

impl<'a> Walk<'a> {
    /// Whether a tunnel has been passed.
    fn inside(&self) -> bool {
        self.seen & TUNNEL != 0
    }

    /// The outer layers' bits, or their inner counterparts behind a tunnel.
    fn here(&self, outer: u32) -> u32 {
        if self.inside() { outer << INNER } else { outer }
    }

    fn has(&self, outer: u32) -> bool {
        self.seen & self.here(outer) != 0
    }

    fn header(&mut self, request: &Request<'_>, header: &Header<'a>, at: usize) -> Result<(), Refusal> {
        let limits = &request.context.limits;
        match header.layer {
            Layer::Eth => self.eth(header, at),
            Layer::Vlan => self.vlan(header, at),
            Layer::Ipv4 => self.ipv4(header, at, limits.ipv4_ihl),
            Layer::Ipv6 => self.ipv6(header, at),
            Layer::Tcp => self.transport(header, at, 6, OUTER_TCP),
            Layer::Udp => self.transport(header, at, 17, OUTER_UDP),
            Layer::Icmp => self.icmp(header, at, 1, OUTER_IPV4, ICMP),
            Layer::Icmp6 => self.icmp(header, at, 58, OUTER_IPV6, ICMP6),
            Layer::Vxlan => self.vxlan(header, at, request.root),
            Layer::Geneve => self.geneve(header, at, limits.geneve_options),
            Layer::Gre => self.gre(header, at),
            Layer::GreKey => self.gre_key(header, at),
        }
    }

    fn eth(&mut self, header: &Header<'a>, at: usize) -> Result<(), Refusal> {
        if self.has(OUTER_L2) {
            return Err(unsupported(Cause::Item(at), "only one eth item on each side of a tunnel"));
        }
        if self.has(OUTER_L3) {
            return Err(invalid(Cause::Item(at), "an eth item cannot follow IP: put it first"));
        }
        if self.has(OUTER_VLAN) {
            return Err(invalid(Cause::Item(at), "an eth item cannot follow a vlan item: put it first"));
        }
        acceptable(header, at, &[0xff; 14])?;
        self.ether_type = demanded(header, 12);
        self.seen |= self.here(OUTER_L2);
        Ok(())
    }

    fn vlan(&mut self, header: &Header<'a>, at: usize) -> Result<(), Refusal> {
        if self.has(OUTER_VLAN) {
            return Err(invalid(Cause::Item(at), "only one vlan item on each side of a tunnel"));
        }
        if self.has(OUTER_L3 | OUTER_L4) {
            return Err(invalid(Cause::Item(at), "a vlan item cannot follow IP or a transport"));
        }
        acceptable(header, at, &[0xff; 4])?;
        self.ether_type = demanded(header, 2);
        if !self.inside() {
            self.vlan_mask = header.mask;
        }
        self.seen |= self.here(OUTER_VLAN);
        Ok(())
    }

    /// What holds for both IP items: what may come before them.
    fn network(&self, at: usize, ether_type: u16) -> Result<(), Refusal> {
        if self.after_l2 && self.ether_type != 0 && self.ether_type != ether_type {
            return Err(invalid(Cause::Item(at), "the EtherType asked for before is another protocol's"));
        }
        if self.has(OUTER_L3) {
            return Err(unsupported(Cause::Item(at), "only one IP item on each side of a tunnel"));
        }
        if self.has(OUTER_L4) {
            return Err(invalid(Cause::Item(at), "an IP item cannot follow a transport"));
        }
        Ok(())
    }

    fn ipv4(&mut self, header: &Header<'a>, at: usize, length: bool) -> Result<(), Refusal> {
        let mut able: [u8; 20] =
            [0, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255];
        let version = header.mask.and_then(|mask| mask.first()).copied().unwrap_or(0);
        if version & 0x0f != 0 {
            if !length {
                return Err(unsupported(Cause::Item(at), "this device cannot match IPv4's header length"));
            }
            able[0] = version;
        }
        self.network(at, 0x0800)?;
        let protocol = header.mask.and_then(|mask| mask.get(9));
        if protocol.is_some_and(|protocol| !matches!(protocol, 0 | 0xff)) {
            return Err(invalid(Cause::ItemMask(at), "mask IPv4's protocol wholly or not at all"));
        }
        // Ranges are looked into by `fragment`; mlx5 lets others through and ignores their upper ends.
        unranged(header, at, &able)?;
        fragment(header, at)?;
        self.protocol = next_protocol(header, 9);
        self.seen |= self.here(OUTER_IPV4);
        Ok(())
    }

    fn ipv6(&mut self, header: &Header<'a>, at: usize) -> Result<(), Refusal> {
        const ABLE: [u8; 40] = {
            let mut able = [0xff; 40];
            // The payload's length cannot be matched.
            able[4] = 0;
            able[5] = 0;
            able
        };
        let whole = header.mask.and_then(|mask| mask.get(6)) == Some(&0xff);
        let next = header.spec.and_then(|spec| spec.get(6));
        if whole && matches!(next, Some(0 | 43 | 44 | 50 | 51 | 60)) {
            return Err(invalid(
                Cause::Item(at),
                "IPv6's next header cannot be matched as an extension header",
            ));
        }
        self.network(at, 0x86dd)?;
        acceptable(header, at, &ABLE)?;
        self.protocol = next_protocol(header, 6);
        self.seen |= self.here(OUTER_IPV6);
        Ok(())
    }

    fn expects(&self, at: usize, protocol: u8) -> Result<(), Refusal> {
        if self.protocol != ANY && self.protocol != protocol {
            return Err(invalid(Cause::Item(at), "the protocol asked for in the IP item is another one"));
        }
        Ok(())
    }

    fn transport(&mut self, header: &Header<'a>, at: usize, protocol: u8, bit: u32) -> Result<(), Refusal> {
        const TCP: [u8; 20] = [255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 0, 0, 0, 0, 0, 0];
        const UDP: [u8; 8] = [255, 255, 255, 255, 0, 0, 0, 0];
        self.expects(at, protocol)?;
        if !self.has(OUTER_L3) {
            return Err(invalid(Cause::Item(at), "a transport needs an ipv4 or ipv6 item before it"));
        }
        if self.has(OUTER_L4) {
            return Err(invalid(Cause::Item(at), "only one transport on each side of a tunnel"));
        }
        acceptable(header, at, if bit == OUTER_TCP { &TCP } else { &UDP })?;
        self.seen |= self.here(bit);
        Ok(())
    }

    fn icmp(
        &mut self,
        header: &Header<'a>,
        at: usize,
        protocol: u8,
        under: u32,
        bit: u32,
    ) -> Result<(), Refusal> {
        const ICMP_ABLE: [u8; 8] = [255, 255, 0, 0, 255, 255, 255, 255];
        self.expects(at, protocol)?;
        if !self.has(under) {
            return Err(invalid(Cause::Item(at), "icmp needs an ipv4 item before it, icmp6 an ipv6 item"));
        }
        if self.has(OUTER_L4) {
            return Err(invalid(Cause::Item(at), "only one transport on each side of a tunnel"));
        }
        acceptable(header, at, if bit == ICMP { &ICMP_ABLE } else { &ICMP_ABLE[..4] })?;
        self.seen |= bit;
        Ok(())
    }

    fn untunnelled(&self, at: usize) -> Result<(), Refusal> {
        if self.inside() {
            return Err(unsupported(Cause::Item(at), "only one tunnel can be matched"));
        }
        Ok(())
    }

    fn over_udp(&self, at: usize) -> Result<(), Refusal> {
        self.untunnelled(at)?;
        if self.seen & OUTER_UDP == 0 {
            return Err(invalid(Cause::Item(at), "this tunnel needs a udp item before it"));
        }
        Ok(())
    }

    fn vxlan(&mut self, header: &Header<'a>, at: usize, root: bool) -> Result<(), Refusal> {
        self.over_udp(at)?;
        acceptable(header, at, &[0, 0, 0, 0, 255, 255, 255, if root { 0 } else { 255 }])?;
        self.enter(VXLAN);
        Ok(())
    }

    fn geneve(&mut self, header: &Header<'a>, at: usize, options: u8) -> Result<(), Refusal> {
        self.over_udp(at)?;
        acceptable(header, at, &[0x3f, 0x80, 255, 255, 255, 255, 255, 0])?;
        if let Some(&[first, second, .., reserved]) = header.spec {
            if first >> 6 != 0 || second & 0x7f != 0 || reserved != 0 {
                return Err(unsupported(
                    Cause::Item(at),
                    "geneve's version, critical flag and reserved bits must be 0",
                ));
            }
            if first & 0x3f > options {
                return Err(unsupported(Cause::Item(at), "geneve options of this length cannot be matched"));
            }
        }
        self.enter(GENEVE);
        Ok(())
    }

    fn gre(&mut self, header: &Header<'a>, at: usize) -> Result<(), Refusal> {
        self.expects(at, 47)?;
        self.untunnelled(at)?;
        if self.seen & OUTER_L3 == 0 {
            return Err(unsupported(Cause::Item(at), "gre needs an ipv4 or ipv6 item before it"));
        }
        acceptable(header, at, &[0xb0, 0, 255, 255])?;
        self.gre = Some(*header);
        self.enter(GRE);
        Ok(())
    }

    fn gre_key(&mut self, header: &Header<'a>, at: usize) -> Result<(), Refusal> {
        if self.seen & GRE_KEY != 0 {
            return Err(unsupported(Cause::Item(at), "only one gre_key item"));
        }
        if self.seen & GRE == 0 {
            return Err(unsupported(Cause::Item(at), "gre_key needs a gre item before it"));
        }
        if self.seen & ANY_INNER != 0 {
            return Err(unsupported(Cause::Item(at), "gre_key comes right after gre"));
        }
        // The default mask of gre leaves its flags out, so only an explicit one can forbid the key.
        let denies_key = |gre: &Header<'_>| match (gre.spec, gre.mask) {
            (Some([flags, ..]), Some([mask, ..])) => mask & 0x20 != 0 && flags & 0x20 == 0,
            _ => false,
        };
        if self.gre.as_ref().is_some_and(denies_key) {
            return Err(invalid(Cause::Item(at), "the gre item asks for the absence of the key"));
        }
        acceptable(header, at, &[0xff; 4])?;
        self.seen |= GRE_KEY;
        Ok(())
    }

    /// What follows is behind a tunnel; nothing is known of it.
    fn enter(&mut self, tunnel: u32) {
        self.seen |= tunnel;
        self.protocol = ANY;
        self.ether_type = 0;
    }
}

/// `mlx5_flow_item_acceptable`, ranges excluded.
fn acceptable(header: &Header<'_>, at: usize, able: &[u8]) -> Result<(), Refusal> {
    unranged(header, at, able)?;
    if let (Some(spec), Some(last)) = (header.spec, header.last) {
        let mask = header.effective_mask();
        let same = spec.iter().zip(last).zip(mask).all(|((from, to), mask)| (from ^ to) & mask == 0);
        if !same {
            return Err(invalid(
                Cause::Item(at),
                "ranges (last) cannot be matched: use a mask, or several rules",
            ));
        }
    }
    Ok(())
}

/// The mask asks for no more than the device can match, and comes with values. An absent mask is the
/// layer's default one, which always can be.
fn unranged(header: &Header<'_>, at: usize, able: &[u8]) -> Result<(), Refusal> {
    let parts = [header.spec, header.last, header.mask];
    if parts.into_iter().flatten().any(|part| part.len() != able.len()) {
        return Err(invalid(Cause::Item(at), "the item's length is not its layer's"));
    }
    let Some(mask) = header.mask else {
        return match (header.spec, header.last) {
            (None, Some(_)) => Err(no_spec(at)),
            _ => Ok(()),
        };
    };
    if mask.iter().zip(able).fold(0, |over, (mask, able)| over | (mask & !able)) != 0 {
        return Err(unsupported(Cause::Item(at), "the mask covers fields that this device cannot match"));
    }
    if header.spec.is_none() { Err(no_spec(at)) } else { Ok(()) }
}

fn no_spec(at: usize) -> Refusal {
    invalid(Cause::Item(at), "a mask or last without a spec: give all, or none for any such header")
}

/// The 16 bits at `offset` under an explicit mask; 0 if there is none.
fn demanded(header: &Header<'_>, offset: usize) -> u16 {
    match (header.spec, header.mask) {
        (Some(spec), Some(mask)) => word(spec, offset) & word(mask, offset),
        _ => 0,
    }
}

fn word(bytes: &[u8], offset: usize) -> u16 {
    match bytes.get(offset..offset + 2) {
        Some(&[high, low]) => u16::from_be_bytes([high, low]),
        _ => 0,
    }
}

/// What must follow an IP header, by an explicit mask.
fn next_protocol(header: &Header<'_>, offset: usize) -> u8 {
    match (header.spec.and_then(|spec| spec.get(offset)), header.mask.and_then(|mask| mask.get(offset))) {
        (Some(_), Some(0)) | (None, _) | (_, None) => ANY,
        (Some(spec), Some(mask)) => spec & mask,
    }
}

/// What of IPv4's fragment word can be asked: whether the packet is a fragment, no more.
fn fragment(header: &Header<'_>, at: usize) -> Result<(), Refusal> {
    let spec = demanded(header, FRAGMENT);
    let (Some(mask), true) = (header.mask, spec != 0) else {
        return Ok(());
    };
    if word(mask, FRAGMENT) & FRAGMENT_BITS != FRAGMENT_BITS {
        return Err(invalid(Cause::ItemMask(at), "mask IPv4's fragment word wholly (0x3fff)"));
    }
    if spec == MORE_FRAGMENTS {
        return Err(unsupported(Cause::Item(at), "first fragments cannot be told apart"));
    }
    let Some(last) = header.last else {
        return Err(unsupported(Cause::Item(at), "any fragment is spec 0x0001, last 0x3fff; none is spec 0"));
    };
    match (spec, word(last, FRAGMENT) & word(mask, FRAGMENT)) {
        (1, FRAGMENT_BITS) => Ok(()),
        _ => Err(unsupported(
            Cause::ItemLast(at),
            "only any fragment (0x0001 to 0x3fff) can be matched, not first, later or last ones",
        )),
    }
}
