//! Random patterns and action lists, mostly such as mlx5 accepts.

use eswitch::model::action::{Action, Field, FieldRef, FieldSource, ModifyOp, Shared};
use eswitch::model::item::{Header, Item, Layer};
use eswitch::model::types::{AgeId, CounterId};

use crate::dice::Dice;
use crate::edit::{Act, width_of};
use crate::frames::{ADDRESSES4, ADDRESSES6, FLAGS, MACS, PORTS, TCIS, TOSES, TTLS, VNIS};

/// An item that borrows nothing.
#[derive(Clone, Debug)]
pub(crate) enum Thing {
    Plain(Item<'static>),
    Head(Head),
}

#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) layer: Layer,
    pub(crate) spec: Option<Vec<u8>>,
    pub(crate) last: Option<Vec<u8>>,
    pub(crate) mask: Option<Vec<u8>>,
    pub(crate) followed: Option<bool>,
}

impl Thing {
    pub(crate) fn item(&self) -> Item<'_> {
        match self {
            Thing::Plain(item) => *item,
            Thing::Head(head) => Item::Header(Header {
                layer: head.layer,
                spec: head.spec.as_deref(),
                last: head.last.as_deref(),
                mask: head.mask.as_deref(),
                followed: head.followed,
            }),
        }
    }
}

pub(crate) fn items(things: &[Thing]) -> Vec<Item<'_>> {
    things.iter().map(Thing::item).collect()
}

/// The outermost layers that a pattern names, for actions to go with it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Shape {
    pub(crate) eth: bool,
    pub(crate) vlan: bool,
    pub(crate) ip: Option<u8>,
    pub(crate) transport: Option<Layer>,
    pub(crate) tunnel: Option<Layer>,
    pub(crate) inner_ip: Option<u8>,
}

/// The headers of a pattern. `hardware`: of a template, so that values do not matter.
pub(crate) fn headers(dice: &mut Dice, hardware: bool) -> (Vec<Thing>, Shape) {
    let mut things = Vec::new();
    let mut shape = Shape::default();
    link(dice, hardware, &mut things, &mut shape);
    if dice.percent(85) {
        let version = if dice.percent(60) { 4 } else { 6 };
        shape.ip = Some(version);
        things.push(head(dice, if version == 4 { Layer::Ipv4 } else { Layer::Ipv6 }, hardware));
        if dice.percent(65) {
            let layer = match dice.below(10) {
                0..4 => Layer::Tcp,
                4..8 => Layer::Udp,
                8 if version == 4 => Layer::Icmp,
                8 => Layer::Icmp6,
                _ => Layer::Gre,
            };
            if layer == Layer::Gre {
                things.push(head(dice, layer, hardware));
                if !hardware && dice.percent(40) {
                    things.push(head(dice, Layer::GreKey, hardware));
                }
                shape.tunnel = Some(layer);
            } else {
                things.push(head(dice, layer, hardware));
                shape.transport = Some(layer);
            }
            if layer == Layer::Udp && dice.percent(35) {
                let tunnel = if hardware || dice.percent(70) { Layer::Vxlan } else { Layer::Geneve };
                things.push(head(dice, tunnel, hardware));
                shape.tunnel = Some(tunnel);
            }
        }
    }
    if shape.tunnel.is_some() && dice.percent(60) {
        inside(dice, hardware, &mut things, &mut shape);
    }
    (things, shape)
}

fn link(dice: &mut Dice, hardware: bool, things: &mut Vec<Thing>, shape: &mut Shape) {
    if dice.percent(90) {
        shape.eth = true;
        things.push(head(dice, Layer::Eth, hardware));
    }
    if dice.percent(20) {
        shape.vlan = true;
        things.push(head(dice, Layer::Vlan, hardware));
    }
}

fn inside(dice: &mut Dice, hardware: bool, things: &mut Vec<Thing>, shape: &mut Shape) {
    let mut inner = Shape::default();
    if dice.percent(70) {
        link(dice, hardware, things, &mut inner);
    }
    let version = if dice.percent(60) { 4 } else { 6 };
    shape.inner_ip = Some(version);
    things.push(head(dice, if version == 4 { Layer::Ipv4 } else { Layer::Ipv6 }, hardware));
    if dice.percent(50) {
        let layer = if dice.percent(60) { Layer::Tcp } else { Layer::Udp };
        things.push(head(dice, layer, hardware));
    }
}

/// One header with a random mask over what can be matched.
fn head(dice: &mut Dice, layer: Layer, hardware: bool) -> Thing {
    let mut mask = vec![0; layer.bytes()];
    for (at, len, chance) in ranges(layer) {
        if dice.percent(*chance) {
            let full = dice.percent(85);
            for (offset, byte) in mask[*at..at + len].iter_mut().enumerate() {
                // A prefix, else.
                *byte = if full || offset * 2 < *len { 0xff } else { 0 };
            }
        }
    }
    if layer == Layer::Ipv4 && dice.percent(15) {
        mask[6..8].copy_from_slice(&[0x3f, 0xff]);
    }
    if layer == Layer::Eth && mask[12] != mask[13] {
        mask[13] = 0xff;
    }
    let followed = match layer {
        Layer::Eth | Layer::Ipv6 if dice.percent(5) => Some(dice.percent(50)),
        Layer::Vlan if dice.percent(5) && !hardware => Some(dice.percent(50)),
        _ => None,
    };
    let (spec, last) = values(dice, layer, &mask, hardware);
    let nothing = mask.iter().all(|byte| *byte == 0) && followed.is_none();
    if nothing && dice.percent(70) {
        return Thing::Head(Head { layer, spec: None, last: None, mask: None, followed: None });
    }
    let mask =
        if !hardware && dice.percent(5) && followed.is_none() && last.is_none() { None } else { Some(mask) };
    Thing::Head(Head { layer, spec: Some(spec), last, mask, followed })
}

/// Fields: where, how long, and how often they are matched (in a hundred).
fn ranges(layer: Layer) -> &'static [(usize, usize, usize)] {
    match layer {
        Layer::Eth => &[(0, 6, 20), (6, 6, 10), (12, 2, 12)],
        Layer::Vlan => &[(0, 2, 50), (2, 2, 10)],
        Layer::Ipv4 => &[(1, 1, 5), (8, 1, 8), (9, 1, 5), (12, 4, 30), (16, 4, 40)],
        Layer::Ipv6 => &[(6, 1, 5), (7, 1, 8), (8, 16, 20), (24, 16, 35)],
        Layer::Tcp => &[(0, 2, 20), (2, 2, 45), (13, 1, 20)],
        Layer::Udp => &[(0, 2, 20), (2, 2, 40)],
        Layer::Icmp => &[(0, 1, 50), (1, 1, 30), (4, 2, 20)],
        Layer::Icmp6 => &[(0, 1, 50), (1, 1, 30)],
        Layer::Vxlan | Layer::Geneve => &[(4, 3, 60)],
        Layer::Gre => &[(2, 2, 40)],
        Layer::GreKey => &[(0, 4, 80)],
    }
}

/// Values from the pools that frames come from, and the end of a range where mlx5 wants one.
fn values(dice: &mut Dice, layer: Layer, mask: &[u8], hardware: bool) -> (Vec<u8>, Option<Vec<u8>>) {
    let mut spec = vec![0; layer.bytes()];
    let mut last = None;
    match layer {
        Layer::Eth => {
            spec[..6].copy_from_slice(&dice.pick(&MACS));
            spec[6..12].copy_from_slice(&dice.pick(&MACS));
            let kind = dice.pick(&[0x0800_u16, 0x86dd, 0x0806, 0x8100, 0x88a8]);
            spec[12..].copy_from_slice(&kind.to_be_bytes());
        }
        Layer::Vlan => {
            spec[..2].copy_from_slice(&dice.pick(&TCIS).to_be_bytes());
            spec[2..].copy_from_slice(&dice.pick(&[0x0800_u16, 0x86dd, 0x8100]).to_be_bytes());
        }
        Layer::Ipv4 => {
            (spec[1], spec[8], spec[9]) = (dice.pick(&TOSES), dice.pick(&TTLS), dice.pick(&[6, 17]));
            spec[12..16].copy_from_slice(&dice.pick(&ADDRESSES4));
            spec[16..].copy_from_slice(&dice.pick(&ADDRESSES4));
            if mask[6..8] == [0x3f, 0xff] && dice.percent(50) {
                spec[7] = 1;
                let mut end = spec.clone();
                end[6..8].copy_from_slice(&[0x3f, 0xff]);
                last = (!hardware).then_some(end);
            }
        }
        Layer::Ipv6 => {
            (spec[6], spec[7]) = (dice.pick(&[6, 17]), dice.pick(&TTLS));
            spec[8..24].copy_from_slice(&dice.pick(&ADDRESSES6));
            spec[24..].copy_from_slice(&dice.pick(&ADDRESSES6));
        }
        Layer::Tcp | Layer::Udp => {
            spec[..2].copy_from_slice(&dice.pick(&PORTS).to_be_bytes());
            spec[2..4].copy_from_slice(&dice.pick(&PORTS).to_be_bytes());
            if layer == Layer::Tcp {
                spec[13] = dice.pick(&FLAGS);
            }
        }
        Layer::Icmp => (spec[0], spec[5]) = (dice.pick(&[8, 0]), dice.pick(&[1, 2])),
        Layer::Icmp6 => spec[0] = dice.pick(&[128, 129]),
        Layer::Vxlan | Layer::Geneve => spec[4..8].copy_from_slice(&(dice.pick(&VNIS) << 8).to_be_bytes()),
        Layer::Gre => spec[2..].copy_from_slice(&dice.pick(&[0x6558_u16, 0x0800, 0x86dd]).to_be_bytes()),
        Layer::GreKey => spec.copy_from_slice(&dice.pick(&VNIS).to_be_bytes()),
    }
    (spec, last)
}

/// New values for a template's items.
pub(crate) fn fill(dice: &mut Dice, template: &[Thing]) -> Vec<Thing> {
    let fill_one = |thing: &Thing| match thing {
        Thing::Head(head) => {
            let none = vec![0; head.layer.bytes()];
            let (spec, _) = values(dice, head.layer, head.mask.as_ref().unwrap_or(&none), true);
            let followed = head.followed.map(|_| dice.percent(50));
            Thing::Head(Head { spec: Some(spec), followed, ..head.clone() })
        }
        Thing::Plain(Item::Tag { index, mask, .. }) => {
            Thing::Plain(Item::Tag { index: *index, data: dice.pick(&[1, 2]), mask: *mask })
        }
        Thing::Plain(Item::RepresentedPort { mask, .. }) => {
            Thing::Plain(Item::RepresentedPort { port_id: Some(dice.below(3) as u16), mask: *mask })
        }
        Thing::Plain(other) => Thing::Plain(*other),
    };
    template.iter().map(fill_one).collect()
}

/// Headers to put before a frame: VXLAN over IPv4 or IPv6, GENEVE, or GRE.
pub(crate) fn tunnel_headers(dice: &mut Dice) -> Vec<u8> {
    let mut headers = [dice.pick(&MACS), dice.pick(&MACS)].concat();
    if dice.percent(15) {
        headers.extend([0x81, 0, 0, 7]);
    }
    let gre = dice.percent(20);
    let protocol = if gre { 47 } else { 17 };
    if dice.percent(60) {
        headers.extend([8, 0, 0x45, 0, 0xff, 0xff, 0, 0, 0x40, 0, 64, protocol, 0xab, 0xcd]);
        headers.extend([dice.pick(&ADDRESSES4), dice.pick(&ADDRESSES4)].concat());
    } else {
        headers.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0xff, 0xff, protocol, 64]);
        headers.extend([dice.pick(&ADDRESSES6), dice.pick(&ADDRESSES6)].concat());
    }
    if gre {
        headers.extend([0, 0, 0x65, 0x58]);
        return headers;
    }
    let to = dice.pick(&[4789_u16, 4789, 6081, 5000]);
    headers.extend([0xde, 0xad]);
    headers.extend(to.to_be_bytes());
    headers.extend([0, 0, 0xbe, 0xef]);
    match to {
        4789 => headers.extend([8, 0, 0, 0, 0, 0, 7, 0]),
        6081 => headers.extend([0, 0, 0x65, 0x58, 0, 0, 7, 0]),
        _ => {}
    }
    headers
}

/// An Ethernet header, perhaps with a tag.
pub(crate) fn ethernet_header(dice: &mut Dice, version: u8) -> Vec<u8> {
    let mut header = [dice.pick(&MACS), dice.pick(&MACS)].concat();
    if dice.percent(20) {
        header.extend([0x81, 0, 0, 7]);
    }
    header.extend(if version == 4 { [8, 0] } else { [0x86, 0xdd] });
    header
}

/// Header edits by the legacy actions, for a pattern of this shape.
fn legacy_edits(dice: &mut Dice, shape: &Shape, acts: &mut Vec<Act>) {
    let mut add = |action| acts.push(Act::Plain(action));
    if shape.eth && dice.percent(20) {
        add(Action::SetMacDst(dice.pick(&MACS)));
    }
    if shape.eth && dice.percent(10) {
        add(Action::SetMacSrc(dice.pick(&MACS)));
    }
    match shape.ip {
        Some(4) => {
            if dice.percent(30) {
                add(Action::SetIpv4Src(dice.pick(&ADDRESSES4)));
            }
            if dice.percent(30) {
                add(Action::SetIpv4Dst(dice.pick(&ADDRESSES4)));
            }
            if dice.percent(8) {
                add(Action::SetIpv4Dscp(dice.pick(&[0, 46])));
            }
        }
        Some(_) if shape.transport != Some(Layer::Icmp6) => {
            if dice.percent(30) {
                add(Action::SetIpv6Src(dice.pick(&ADDRESSES6)));
            }
            if dice.percent(30) {
                add(Action::SetIpv6Dst(dice.pick(&ADDRESSES6)));
            }
            if dice.percent(8) {
                add(Action::SetIpv6Dscp(dice.pick(&[0, 46])));
            }
        }
        _ => {}
    }
    if shape.ip.is_some() {
        match dice.below(6) {
            0 => add(Action::DecTtl),
            1 => add(Action::SetTtl(dice.pick(&TTLS))),
            _ => {}
        }
    }
    if matches!(shape.transport, Some(Layer::Tcp | Layer::Udp)) {
        if dice.percent(30) {
            add(Action::SetTpSrc(dice.pick(&PORTS)));
        }
        if dice.percent(30) {
            add(Action::SetTpDst(dice.pick(&PORTS)));
        }
    }
    if shape.transport == Some(Layer::Tcp) && dice.percent(8) {
        add(Action::AddTcpSeq(dice.pick(&[1, -1, 0x7fff_ffff])));
        add(Action::AddTcpAck(dice.pick(&[5, -70000])));
    }
    if dice.percent(25) {
        add(set_tag(dice));
    }
    for _ in 0..dice.pick(&[0, 0, 0, 1, 2]) {
        add(modify_field(dice, false));
    }
}

fn set_tag(dice: &mut Dice) -> Action<'static> {
    Action::SetTag { index: dice.below(2) as u8, data: dice.pick(&[1, 2]), mask: dice.pick(&[u32::MAX, 3]) }
}

/// Bits of a field become a value, more by a value, or another field's.
pub(crate) fn modify_field(dice: &mut Dice, hardware: bool) -> Action<'static> {
    const FIELDS: [Field; 21] = [
        Field::MacDst,
        Field::MacSrc,
        Field::VlanId,
        Field::MacType,
        Field::Ipv4Dscp,
        Field::Ipv4Ttl,
        Field::Ipv4Src,
        Field::Ipv4Dst,
        Field::Ipv6Dscp,
        Field::Ipv6HopLimit,
        Field::Ipv6Src,
        Field::Ipv6Dst,
        Field::TcpPortSrc,
        Field::TcpPortDst,
        Field::TcpSeqNum,
        Field::TcpAckNum,
        Field::TcpFlags,
        Field::UdpPortSrc,
        Field::UdpPortDst,
        Field::Tag,
        Field::Ipv4Ecn,
    ];
    let place = |dice: &mut Dice| {
        let field = dice.pick(&FIELDS);
        let level = if field == Field::Tag { dice.below(2) as u32 } else { 0 };
        FieldRef { field, level, offset: 0 }
    };
    let mut dst = place(dice);
    let mut width = width_of(dst.field);
    let small = matches!(dst.field, Field::Ipv4Dscp | Field::Ipv6Dscp | Field::Ipv4Ecn);
    if !small && dice.percent(30) {
        width = 1 + dice.below(width as usize) as u32;
        dst.offset = dice.below((width_of(dst.field) - width + 1) as usize) as u32;
    }
    if dice.percent(20) {
        let mut src = place(dice);
        while src.field == dst.field {
            src = place(dice);
        }
        let both = width.min(width_of(src.field));
        let op = if hardware && dice.percent(30) { ModifyOp::Add } else { ModifyOp::Set };
        return Action::ModifyField { op, dst, src: Some(FieldSource::Field(src)), width: both };
    }
    let op = if dice.percent(25) { ModifyOp::Add } else { ModifyOp::Set };
    let src = Some(FieldSource::Value(immediate(dice, dst.field)));
    Action::ModifyField { op, dst, src, width }
}

/// A value for a field, often one that frames have.
pub(crate) fn immediate(dice: &mut Dice, field: Field) -> [u8; 16] {
    let mut value = [0; 16];
    let bytes: Vec<u8> = match field {
        Field::MacDst | Field::MacSrc => dice.pick(&MACS).to_vec(),
        Field::Ipv4Src | Field::Ipv4Dst => dice.pick(&ADDRESSES4).to_vec(),
        Field::Ipv6Src | Field::Ipv6Dst => dice.pick(&ADDRESSES6).to_vec(),
        Field::Tag => dice.pick(&[1_u32, 2, 0xdead_beef]).to_be_bytes().to_vec(),
        Field::Ipv4Ttl | Field::Ipv6HopLimit => vec![dice.pick(&[0xff, 1, 64])],
        Field::TcpPortDst | Field::UdpPortDst => dice.pick(&PORTS).to_be_bytes().to_vec(),
        _ => dice.word().to_be_bytes().to_vec(),
    };
    value[..bytes.len()].copy_from_slice(&bytes);
    value
}

/// Indirect objects that every world has: two counters and an age context.
pub(crate) const SHARED_COUNTERS: u32 = 2;

/// What a SWS rule does. `transfer`, or on a receive side with so many queues.
pub(crate) fn software_acts(dice: &mut Dice, transfer: bool, group: u32, shape: &Shape) -> Vec<Act> {
    let mut acts = Vec::new();
    let decap = shape.tunnel == Some(Layer::Vxlan) && dice.percent(25);
    if decap {
        match (shape.inner_ip, dice.percent(40)) {
            (Some(version), true) => {
                acts.push(Act::RawDecap(vec![0; 50]));
                acts.push(Act::RawEncap(ethernet_header(dice, version)));
            }
            (_, false) if dice.percent(50) => acts.push(Act::RawDecap(vec![0; 50])),
            _ => acts.push(Act::Plain(Action::VxlanDecap)),
        }
    }
    if shape.vlan && !decap && dice.percent(30) {
        acts.push(Act::Plain(Action::PopVlan));
    }
    counting(dice, &mut acts);
    let drop = dice.percent(12);
    if drop {
        acts.retain(is_counting);
        acts.push(Act::Plain(Action::Drop));
        return acts;
    }
    if decap {
        if dice.percent(25) {
            acts.push(Act::Plain(set_tag(dice)));
        }
    } else if dice.percent(70) {
        legacy_edits(dice, shape, &mut acts);
    }
    if transfer && dice.percent(6) {
        let mut copies = vec![];
        let mut to = dice.below(3) as u16;
        if dice.percent(40) {
            copies.push(Act::RawEncap(tunnel_headers(dice)));
            to = dice.pick(&[0, 2]);
        }
        copies.push(Act::Plain(Action::RepresentedPort(Some(to))));
        acts.push(Act::Sample(copies));
    }
    if transfer && dice.percent(8) {
        push_vlan(dice, &mut acts);
        if dice.percent(20) {
            acts.push(Act::Plain(modify_field(dice, false)));
        }
    }
    if transfer && !decap && dice.percent(10) {
        encap(dice, shape, &mut acts);
    }
    acts.push(fate(dice, transfer, group));
    acts
}

fn encap(dice: &mut Dice, shape: &Shape, acts: &mut Vec<Act>) {
    match dice.below(3) {
        0 => acts.push(Act::VxlanEncap(tunnel_headers(dice))),
        1 => acts.push(Act::RawEncap(tunnel_headers(dice))),
        _ if shape.ip.is_some() => {
            acts.push(Act::RawDecap(vec![0; 14]));
            acts.push(Act::RawEncap(tunnel_headers(dice)));
        }
        _ => {}
    }
}

fn push_vlan(dice: &mut Dice, acts: &mut Vec<Act>) {
    acts.push(Act::Plain(Action::PushVlan(dice.pick(&[0x8100, 0x88a8]))));
    if dice.percent(80) {
        acts.push(Act::Plain(Action::SetVlanVid(dice.pick(&[7, 100]))));
    }
    if dice.percent(40) {
        acts.push(Act::Plain(Action::SetVlanPcp(dice.pick(&[1, 7]))));
    }
}

pub(crate) fn counting(dice: &mut Dice, acts: &mut Vec<Act>) {
    match dice.below(10) {
        0..6 => acts.push(Act::Plain(Action::Count)),
        6 => {
            let id = CounterId(dice.below(SHARED_COUNTERS as usize) as u32);
            acts.push(Act::Plain(Action::Indirect(Some(Shared::Counter(id)))));
        }
        _ => {}
    }
    match dice.below(10) {
        0..3 => {
            let (timeout_s, context) = (1 + dice.below(4) as u32, dice.word() | 1);
            acts.push(Act::Plain(Action::Age { timeout_s, context }));
        }
        3 => acts.push(Act::Plain(Action::Indirect(Some(Shared::Age(AgeId(0)))))),
        _ => {}
    }
}

pub(crate) fn is_counting(act: &Act) -> bool {
    matches!(act, Act::Plain(Action::Count | Action::Age { .. } | Action::Indirect(_)))
}

pub(crate) fn fate(dice: &mut Dice, transfer: bool, group: u32) -> Act {
    if dice.percent(35) {
        // Mostly forwards, so that loops stay the exception.
        let to = if dice.percent(90) { group + 1 + dice.below(2) as u32 } else { 1 + dice.below(3) as u32 };
        return Act::Plain(Action::Jump(Some(to)));
    }
    match (transfer, dice.below(4)) {
        (true, _) => Act::Plain(Action::RepresentedPort(Some(dice.below(3) as u16))),
        (false, 0) => Act::Rss(vec![0, 2, 1]),
        (false, _) => Act::Plain(Action::Queue(Some(dice.pick(&[0, 1, 2, 3, 3, 9])))),
    }
}
