//! The reference's own matching: a pattern is a list of named questions, each about some bits.
//!
//! Names that exclude each other in a packet are one name here (TCP's and UDP's ports, addresses of IPv4 and
//! IPv6), as documented for the model's keys: whether two rules have the same matcher depends on it, and that
//! is what decides between overlapping rules of one priority.

use std::collections::BTreeMap;

use eswitch::model::item::{Header, Item, Layer};
use eswitch::model::types::{Topology, Vport};

use crate::anatomy::{Anatomy, Piece, Side, Tunnel, number};

/// What goes with a packet besides its bytes.
#[derive(Clone, Debug)]
pub(crate) struct Luggage {
    pub(crate) source: Vport,
    pub(crate) manager: bool,
    pub(crate) tags: [u32; 8],
    pub(crate) meta: u32,
    pub(crate) mark: Option<u32>,
}

impl Luggage {
    pub(crate) fn new(source: Vport, manager: bool) -> Luggage {
        Luggage { source, manager, tags: [0; 8], meta: 0, mark: None }
    }
}

/// Something to ask about a packet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Name {
    Source,
    Manager,
    Tag(u8),
    Meta,
    Mark,
    Tunnel,
    TunnelHead,
    /// Of the inner side?
    Of(bool, Part),
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Part {
    Ethernet,
    Destination,
    Source,
    /// Behind the tags.
    Type,
    /// There is a tag; it is a service tag.
    Tagged,
    Service,
    Tci,
    /// 4, 6 or 0.
    Version,
    Tos,
    Ttl,
    Protocol,
    /// Flags and offset of IPv4, payload length of IPv6.
    Word,
    FlowLabel,
    IsFragment,
    /// IPv4: source, destination from the top. IPv6: source.
    Address,
    /// IPv6: destination.
    Address2,
    /// TCP, UDP, ICMP, ICMPv6 by number, not in fragments.
    Transport,
    /// Its first four bytes.
    Ports,
    Flags,
    IcmpRest,
}

/// Questions, with the bits that count and what they have to be.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Pattern(pub(crate) BTreeMap<Name, (u128, u128)>);

impl Pattern {
    fn set(&mut self, name: Name, mask: u128, value: u128) {
        let entry = self.0.entry(name).or_default();
        entry.0 |= mask;
        entry.1 = entry.1 & !mask | value & mask;
        if entry.0 == 0 {
            self.0.remove(&name);
        }
    }

    fn forget(&mut self, name: Name) {
        self.0.remove(&name);
    }

    pub(crate) fn matches(&self, frame: &[u8], anatomy: &Anatomy, luggage: &Luggage) -> bool {
        self.0.iter().all(|(name, (mask, value))| ask(*name, frame, anatomy, luggage) & mask == *value)
    }

    /// What a matcher of this pattern compares.
    pub(crate) fn bits(&self) -> Vec<(Name, u128)> {
        self.0.iter().map(|(name, (mask, _))| (*name, *mask)).collect()
    }
}

fn ask(name: Name, frame: &[u8], anatomy: &Anatomy, luggage: &Luggage) -> u128 {
    match name {
        Name::Source => luggage.source.0.into(),
        Name::Manager => luggage.manager.into(),
        Name::Tag(index) => luggage.tags[usize::from(index)].into(),
        Name::Meta => luggage.meta.into(),
        Name::Mark => luggage.mark.unwrap_or(0).into(),
        Name::Tunnel => anatomy.tunnel.map_or(0, |(kind, _)| kind as u128),
        Name::TunnelHead => anatomy.tunnel.map_or(0, |(kind, at)| tunnel_head(frame, kind, at)),
        Name::Of(false, part) => part_of(part, frame, &anatomy.outer).unwrap_or(0),
        Name::Of(true, part) => part_of(part, frame, &anatomy.inner).unwrap_or(0),
    }
}

/// VXLAN, GENEVE: 8 bytes. GRE: 4 bytes, and 4 of its key or 0.
fn tunnel_head(frame: &[u8], kind: Tunnel, at: usize) -> u128 {
    if kind != Tunnel::Gre {
        return number(frame, at, 8).unwrap_or(0);
    }
    let head = number(frame, at, 4).unwrap_or(0);
    let key_at = if head >> 31 & 1 == 1 { at + 8 } else { at + 4 };
    let key = if head >> 29 & 1 == 1 { number(frame, key_at, 4).unwrap_or(0) } else { 0 };
    head << 32 | key
}

fn part_of(part: Part, frame: &[u8], side: &Side) -> Option<u128> {
    let service = |at| Some(u128::from(number(frame, at, 2)? != 0x8100));
    match part {
        Part::Ethernet => Some(side.eth.is_some().into()),
        Part::Destination => number(frame, side.eth?, 6),
        Part::Source => number(frame, side.eth? + 6, 6),
        Part::Type => number(frame, side.eth? + 12 + 4 * side.tags, 2),
        Part::Tagged => Some((side.tags > 0).into()),

        Part::Service if side.tags > 0 => service(side.eth? + 12),
        Part::Tci if side.tags > 0 => number(frame, side.eth? + 14, 2),

        Part::IsFragment => Some((side.piece != Piece::Whole).into()),
        Part::Transport | Part::Ports | Part::Flags | Part::IcmpRest => transport(part, frame, side),
        Part::Service | Part::Tci => None,
        _ => internet(part, frame, side),
    }
}

fn internet(part: Part, frame: &[u8], side: &Side) -> Option<u128> {
    let (version, at) = side.ip?;
    let six = version == 6;
    match part {
        Part::Version => Some(version.into()),
        Part::Tos if six => Some(number(frame, at, 2)? >> 4 & 0xff),
        Part::Tos => number(frame, at + 1, 1),
        Part::Ttl => number(frame, at + if six { 7 } else { 8 }, 1),
        Part::Protocol => Some(side.protocol.into()),
        Part::Word => number(frame, at + if six { 4 } else { 6 }, 2),
        Part::FlowLabel if six => Some(number(frame, at, 4)? & 0xf_ffff),
        Part::Address if six => number(frame, at + 8, 16),
        Part::Address => Some(number(frame, at + 12, 8)? << 64),
        Part::Address2 if six => number(frame, at + 24, 16),
        _ => None,
    }
}

fn transport(part: Part, frame: &[u8], side: &Side) -> Option<u128> {
    let kind = side.transport.filter(|_| side.piece == Piece::Whole)?;
    match part {
        Part::Transport => Some(kind.into()),
        Part::Ports => number(frame, side.payload, 4),
        Part::Flags if kind == 6 => number(frame, side.payload + 13, 1),
        Part::IcmpRest if kind == 1 => number(frame, side.payload + 4, 4),
        _ => None,
    }
}

/// Where in a pattern an item is.
#[derive(Default)]
struct Walk {
    tags: usize,
    inner: bool,
}

/// A rule of the synchronous API.
pub(crate) fn software(items: &[Item<'_>], topology: &Topology, implicit: Option<Vport>) -> Pattern {
    let mut pattern = Pattern::default();
    let mut walk = Walk::default();
    let mut said = false;
    for item in items {
        match *item {
            Item::RepresentedPort { port_id, .. } => {
                said = true;
                source(&mut pattern, port_id, topology);
            }
            Item::PortId { port_id, .. } => {
                said = true;
                source(&mut pattern, port_id.map(|id| id as u16), topology);
            }
            Item::PortRepresentor { .. } => {
                said = true;
                pattern.set(Name::Manager, 1, 1);
            }
            Item::Header(header) => {
                presence(&mut pattern, &mut walk, header.layer, false);
                if let Some(spec) = header.spec {
                    let mask = header.effective_mask();
                    software_header(&mut pattern, &walk, &header, spec, mask);
                }
                enter(&mut walk, header.layer);
            }
            _ => register(&mut pattern, item),
        }
    }
    if let (Some(vport), false) = (implicit, said) {
        from_vport(&mut pattern, vport);
    }
    pattern
}

fn from_vport(pattern: &mut Pattern, vport: Vport) {
    pattern.set(Name::Source, 0xffff, vport.0.into());
    pattern.set(Name::Manager, 1, 0);
}

fn source(pattern: &mut Pattern, port_id: Option<u16>, topology: &Topology) {
    match port_id {
        None => {}
        Some(u16::MAX) => pattern.set(Name::Manager, 1, 1),
        Some(id) => from_vport(pattern, topology.vport_of(id).expect("a port that validation let through")),
    }
}

fn register(pattern: &mut Pattern, item: &Item<'_>) {
    match *item {
        Item::Tag { index, data, mask } => pattern.set(Name::Tag(index), mask.into(), data.into()),
        Item::Meta { data, mask } => pattern.set(Name::Meta, mask.into(), data.into()),
        Item::Mark { id, mask } => pattern.set(Name::Mark, mask.into(), id.into()),
        _ => panic!("an item that the generator does not make: {item:?}"),
    }
}

fn enter(walk: &mut Walk, layer: Layer) {
    if matches!(layer, Layer::Vxlan | Layer::Geneve | Layer::Gre) {
        *walk = Walk { tags: 0, inner: true };
    }
}

/// What a header's being in a pattern says.
fn presence(pattern: &mut Pattern, walk: &mut Walk, layer: Layer, hardware: bool) {
    let of = |part| Name::Of(walk.inner, part);
    match layer {
        // Every frame has an outer one.
        Layer::Eth if walk.inner => pattern.set(of(Part::Ethernet), 1, 1),
        Layer::Eth => {}
        Layer::Vlan if walk.tags == 0 => {
            let service_asked = pattern.0.get(&of(Part::Service)).is_some_and(|(_, value)| *value == 1);
            // A customer tag, unless eth's type asked for a service tag.
            if hardware || !service_asked {
                pattern.set(of(Part::Tagged), 1, 1);
                pattern.set(of(Part::Service), 1, 0);
            }
            walk.tags = 1;
        }
        Layer::Vlan => panic!("the generator makes one vlan item a side"),
        Layer::Ipv4 | Layer::Ipv6 => {
            pattern.set(of(Part::Version), 15, if layer == Layer::Ipv4 { 4 } else { 6 });
            // The version says it all.
            pattern.forget(of(Part::Type));
        }
        Layer::Tcp => pattern.set(of(Part::Transport), 0xff, 6),
        Layer::Udp => pattern.set(of(Part::Transport), 0xff, 17),
        Layer::Icmp => pattern.set(of(Part::Transport), 0xff, 1),
        Layer::Icmp6 => pattern.set(of(Part::Transport), 0xff, 58),
        Layer::Vxlan => pattern.set(Name::Tunnel, 3, Tunnel::Vxlan as u128),
        Layer::Geneve => pattern.set(Name::Tunnel, 3, Tunnel::Geneve as u128),
        Layer::Gre => pattern.set(Name::Tunnel, 3, Tunnel::Gre as u128),
        Layer::GreKey => pattern.set(Name::TunnelHead, 1 << 61, 1 << 61),
    }
}

fn whole(bytes: &[u8], at: usize, len: usize) -> u128 {
    number(bytes, at, len).expect("headers have their length")
}

/// The header's fields except types, tags and fragments, which the two engines see differently.
fn fields(layer: Layer, bytes: &[u8], inner: bool) -> Vec<(Name, u128)> {
    let of = |part| Name::Of(inner, part);
    let at = |at, len| whole(bytes, at, len);
    match layer {
        Layer::Eth => vec![(of(Part::Destination), at(0, 6)), (of(Part::Source), at(6, 6))],
        Layer::Vlan => vec![(of(Part::Tci), at(0, 2))],
        Layer::Ipv4 => vec![
            (of(Part::Tos), at(1, 1)),
            (of(Part::Ttl), at(8, 1)),
            (of(Part::Protocol), at(9, 1)),
            (of(Part::Address), at(12, 8) << 64),
        ],
        Layer::Ipv6 => vec![
            (of(Part::Tos), at(0, 2) >> 4 & 0xff),
            (of(Part::FlowLabel), at(0, 4) & 0xf_ffff),
            (of(Part::Word), at(4, 2)),
            (of(Part::Protocol), at(6, 1)),
            (of(Part::Ttl), at(7, 1)),
            (of(Part::Address), at(8, 16)),
            (of(Part::Address2), at(24, 16)),
        ],
        Layer::Tcp => vec![(of(Part::Ports), at(0, 4)), (of(Part::Flags), at(13, 1))],
        Layer::Udp | Layer::Icmp6 => vec![(of(Part::Ports), at(0, 4))],
        Layer::Icmp => vec![(of(Part::Ports), at(0, 4)), (of(Part::IcmpRest), at(4, 4))],
        Layer::Vxlan | Layer::Geneve => vec![(Name::TunnelHead, at(0, 8))],
        Layer::Gre => vec![(Name::TunnelHead, at(0, 4) << 32)],
        Layer::GreKey => vec![(Name::TunnelHead, at(0, 4))],
    }
}

fn software_header(pattern: &mut Pattern, walk: &Walk, header: &Header<'_>, spec: &[u8], mask: &[u8]) {
    let of = |part| Name::Of(walk.inner, part);
    match header.layer {
        Layer::Eth => {
            let (kind, bits) = (whole(spec, 12, 2), whole(mask, 12, 2));
            ether_type(pattern, walk.inner, kind, bits, header.followed);
        }
        Layer::Vlan => {
            let (kind, bits) = (whole(spec, 2, 2), whole(mask, 2, 2));
            if bits == 0xffff && matches!(kind, 0x0800 | 0x86dd) {
                // Nothing more is asked, not even `has_more_vlan` (`flow_dv_translate_item_vlan`).
                pattern.set(of(Part::Version), 15, if kind == 0x0800 { 4 } else { 6 });
                pattern.forget(of(Part::Type));
            } else if bits == 0xffff && kind == 0x8100 || header.followed == Some(true) {
                // Another tag follows: the first is the service tag.
                pattern.set(of(Part::Tagged), 1, 1);
                pattern.set(of(Part::Service), 1, 1);
            } else {
                pattern.forget(of(Part::Type));
                pattern.set(of(Part::Type), bits, kind);
            }
        }
        Layer::Ipv4 => {
            let bits = whole(mask, 6, 2);
            if bits != 0 {
                pattern.set(of(Part::IsFragment), 1, u128::from(whole(spec, 6, 2) & bits != 0));
            }
        }
        Layer::Ipv6 => {
            if let Some(fragment) = header.followed {
                pattern.set(of(Part::IsFragment), 1, fragment.into());
            }
        }
        _ => {}
    }
    let masks = fields(header.layer, mask, walk.inner);
    for ((name, bits), (_, value)) in masks.into_iter().zip(fields(header.layer, spec, walk.inner)) {
        pattern.set(name, bits, value);
    }
}

/// The type under an eth item: wholly masked, it also says which tags there are.
fn ether_type(pattern: &mut Pattern, inner: bool, kind: u128, bits: u128, has_vlan: Option<bool>) {
    let of = |part| Name::Of(inner, part);
    if bits == 0xffff {
        pattern.set(of(Part::Tagged), 1, u128::from(matches!(kind, 0x8100 | 0x88a8)));
        pattern.set(of(Part::Service), 1, u128::from(kind == 0x88a8));
        match kind {
            0x8100 | 0x88a8 => return,
            0x0800 | 0x86dd => {
                return pattern.set(of(Part::Version), 15, if kind == 0x0800 { 4 } else { 6 });
            }
            _ => {}
        }
    }
    if let Some(tagged) = has_vlan {
        pattern.set(of(Part::Tagged), 1, tagged.into());
        pattern.set(of(Part::Service), 1, 0);
    }
    if has_vlan != Some(true) {
        pattern.set(of(Part::Type), bits, kind);
    }
}

/// A rule of a template table: masks are the template's, values the rule's.
pub(crate) fn hardware(
    template: &[Item<'_>],
    rule: &[Item<'_>],
    topology: &Topology,
    implicit: Option<Vport>,
) -> Pattern {
    let mut pattern = Pattern::default();
    let mut walk = Walk::default();
    for (item, value) in template.iter().zip(rule) {
        match (*item, *value) {
            (Item::RepresentedPort { mask, .. }, Item::RepresentedPort { port_id, .. }) => {
                if mask != 0 {
                    from_vport(
                        &mut pattern,
                        topology.vport_of(port_id.expect("a port")).expect("of this switch"),
                    );
                }
            }
            (Item::Tag { index, mask, .. }, Item::Tag { data, .. }) => {
                pattern.set(Name::Tag(index), mask.into(), data.into());
            }
            (Item::Meta { mask, .. }, Item::Meta { data, .. }) => {
                pattern.set(Name::Meta, mask.into(), data.into());
            }
            (Item::Header(header), Item::Header(value)) => {
                presence(&mut pattern, &mut walk, header.layer, true);
                if matches!(header.layer, Layer::Tcp | Layer::Udp | Layer::Icmp | Layer::Icmp6 | Layer::Gre) {
                    // The kind of transport says it all.
                    pattern.forget(Name::Of(walk.inner, Part::Protocol));
                }
                if let (Some(mask), Some(spec)) = (header.mask, value.spec) {
                    hardware_header(&mut pattern, &walk, &header, spec, mask, value.followed);
                }
                enter(&mut walk, header.layer);
            }
            _ => panic!("an item that the generator does not make: {item:?}"),
        }
    }
    let said = template.iter().any(|item| matches!(item, Item::RepresentedPort { .. }));
    if let (Some(vport), false) = (implicit, said) {
        from_vport(&mut pattern, vport);
    }
    pattern
}

fn hardware_header(
    pattern: &mut Pattern,
    walk: &Walk,
    header: &Header<'_>,
    spec: &[u8],
    mask: &[u8],
    followed: Option<bool>,
) {
    let of = |part| Name::Of(walk.inner, part);
    match header.layer {
        Layer::Eth => pattern.set(of(Part::Type), whole(mask, 12, 2), whole(spec, 12, 2)),
        Layer::Vlan => {
            // Two items about one field: the later one has it.
            if whole(mask, 2, 2) != 0 {
                pattern.forget(of(Part::Type));
            }
            pattern.set(of(Part::Type), whole(mask, 2, 2), whole(spec, 2, 2));
        }
        Layer::Ipv4 if whole(mask, 6, 2) == 0x3fff => {
            pattern.set(of(Part::IsFragment), 1, u128::from(whole(spec, 6, 2) & 0x3fff != 0));
        }
        Layer::Ipv4 => pattern.set(of(Part::Word), whole(mask, 6, 2), whole(spec, 6, 2)),
        _ => {}
    }
    if header.layer == Layer::Eth && header.followed.is_some() {
        pattern.set(of(Part::Tagged), 1, u128::from(followed == Some(true)));
        pattern.set(of(Part::Service), 1, 0);
    }
    if header.layer == Layer::Ipv6 && header.followed.is_some() {
        pattern.set(of(Part::IsFragment), 1, u128::from(followed == Some(true)));
    }
    let masks = fields(header.layer, mask, walk.inner);
    for ((name, bits), (_, value)) in masks.into_iter().zip(fields(header.layer, spec, walk.inner)) {
        pattern.set(name, bits, value);
    }
}
