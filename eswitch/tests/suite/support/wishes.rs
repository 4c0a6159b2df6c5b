//! Patterns, action lists and frames out of bytes: some that mlx5 accepts, and any others.

use eswitch::model::action::{Action, Field, FieldRef, FieldSource, ModifyOp, Shared};
use eswitch::model::item::{Header, Item, Layer};
use eswitch::model::types::{AgeId, CounterId, MeterId};

use super::bytes::Bytes;

const LAYERS: [Layer; 12] = [
    Layer::Eth,
    Layer::Vlan,
    Layer::Ipv4,
    Layer::Ipv6,
    Layer::Tcp,
    Layer::Udp,
    Layer::Icmp,
    Layer::Icmp6,
    Layer::Vxlan,
    Layer::Geneve,
    Layer::Gre,
    Layer::GreKey,
];

/// Chains of headers that a packet can have.
const CHAINS: [&[Layer]; 10] = [
    &[Layer::Eth],
    &[Layer::Eth, Layer::Ipv4],
    &[Layer::Eth, Layer::Ipv4, Layer::Tcp],
    &[Layer::Eth, Layer::Ipv4, Layer::Udp],
    &[Layer::Eth, Layer::Ipv6, Layer::Tcp],
    &[Layer::Eth, Layer::Vlan, Layer::Ipv4, Layer::Tcp],
    &[Layer::Eth, Layer::Ipv4, Layer::Udp, Layer::Vxlan, Layer::Eth, Layer::Ipv4, Layer::Tcp],
    &[Layer::Eth, Layer::Ipv4, Layer::Gre, Layer::Ipv4],
    &[Layer::Eth, Layer::Ipv6, Layer::Udp, Layer::Geneve],
    &[Layer::Eth, Layer::Ipv6, Layer::Icmp6],
];

/// Values that the frames below have, and masks over them.
fn likely(layer: Layer, narrow: bool) -> (&'static [u8], &'static [u8]) {
    const ETH: [u8; 14] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    const ETH_MASK: [u8; 14] = [255, 255, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0];
    const IP: [u8; 20] = [0x45, 0, 0, 0, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    const IP_MASK: [u8; 20] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255];
    const TCP: [u8; 20] = [4, 210, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 2, 0, 0, 0, 0, 0, 0];
    const TCP_MASK: [u8; 20] = [0, 0, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    const NONE: [u8; 40] = [0; 40];
    match (layer, narrow) {
        (Layer::Eth, true) => (&ETH, &ETH_MASK),
        (Layer::Ipv4, true) => (&IP, &IP_MASK),
        (Layer::Tcp, true) => (&TCP, &TCP_MASK),
        _ => (&NONE[..layer.bytes()], &NONE[..layer.bytes()]),
    }
}

fn header<'a>(bytes: &mut Bytes<'a>, layer: Layer) -> Item<'a> {
    let len = layer.bytes();
    let choice = bytes.byte();
    Item::Header(match choice % 16 {
        0..9 => Header::any(layer),
        9..13 => {
            let (spec, mask) = likely(layer, choice >= 64);
            Header::masked(layer, spec, mask)
        }
        13 => Header { spec: Some(bytes.take(len)), ..Header::any(layer) },
        14 if choice < 64 => {
            let followed = Some(choice >= 32);
            Header { followed, ..Header::masked(layer, bytes.take(len), bytes.take(len)) }
        }
        14 => {
            Header { last: Some(bytes.take(len)), ..Header::masked(layer, bytes.take(len), bytes.take(len)) }
        }
        _ => Header::masked(layer, bytes.take(len), bytes.take(len)),
    })
}

fn other<'a>(bytes: &mut Bytes<'a>) -> Item<'a> {
    let port = Some(bytes.pick(&[0, 1, 2, 7, 0, 1, 2, 3]));
    match bytes.below(10) {
        0..4 => Item::RepresentedPort { port_id: port, mask: u16::MAX },
        4 => Item::PortRepresentor { port_id: port, mask: u16::MAX },
        5 => Item::PortId { port_id: port.map(u32::from), mask: bytes.pick(&[u32::MAX, 1]) },
        6 => Item::Tag { index: bytes.byte() % 9, data: 1, mask: bytes.pick(&[u32::MAX, 3, 0]) },
        7 => Item::Meta { data: bytes.word(), mask: bytes.pick(&[0xffff, u32::MAX]) },
        8 => Item::Mark { id: bytes.word(), mask: bytes.pick(&[0xff_ffff, 0xffff, 0]) },
        _ => Item::MeterColour { colour: bytes.byte() & 3, mask: bytes.pick(&[3, 255]) },
    }
}

/// A pattern.
pub(crate) fn pattern<'a>(bytes: &mut Bytes<'a>) -> Vec<Item<'a>> {
    let choice = bytes.byte();
    let mut items = Vec::new();
    if choice % 4 == 0 {
        items.push(other(bytes));
    }
    if choice % 16 == 15 {
        for _ in 0..bytes.below(10) {
            let layer = bytes.byte();
            items.push(if layer >= 200 {
                Item::Other(i32::from(layer))
            } else {
                header(bytes, LAYERS[usize::from(layer) % 12])
            });
        }
    } else {
        let chain = bytes.pick(&CHAINS);
        items.extend(chain.iter().map(|layer| header(bytes, *layer)));
    }
    items
}

const FIELDS: [Field; 29] = [
    Field::Start,
    Field::MacDst,
    Field::MacSrc,
    Field::VlanType,
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
    Field::VxlanVni,
    Field::GeneveVni,
    Field::Tag,
    Field::Mark,
    Field::Meta,
    Field::Ipv4Ecn,
    Field::MeterColour,
    Field::Other(99),
];

fn place(bytes: &mut Bytes<'_>) -> FieldRef {
    let (field, choice) = (bytes.pick(&FIELDS), bytes.byte());
    let level = u32::from(choice % 4).saturating_sub(1);
    FieldRef { field, level, offset: if choice >= 64 { 0 } else { u32::from(bytes.byte()) } }
}

/// A `modify_field`; without a value half the time where `open`.
pub(crate) fn modify(bytes: &mut Bytes<'_>) -> Action<'static> {
    let op = bytes.pick(&[ModifyOp::Set, ModifyOp::Set, ModifyOp::Add, ModifyOp::Sub]);
    let mut value = [0; 16];
    value.copy_from_slice(bytes.take(16));
    let src = match bytes.below(8) {
        0 => None,
        1 | 2 => Some(FieldSource::Field(place(bytes))),
        _ => Some(FieldSource::Value(value)),
    };
    let width = bytes.pick(&[32, 8, 16, 48, 128, 6, 12, 1, 9, 2, 0, 200]);
    Action::ModifyField { op, dst: place(bytes), src, width }
}

/// VXLAN over IPv4.
pub(crate) const VXLAN: [u8; 50] = [
    2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 8, 8, 0, 0x45, 0, 0, 50, 0, 0, 0x40, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192,
    0, 2, 2, 0xc0, 0, 18, 181, 0, 30, 0, 0, 8, 0, 0, 0, 0, 0, 7, 0,
];

const TO_SECOND: [Action<'static>; 1] = [Action::RepresentedPort(Some(2))];
const ENCAP_TO_SECOND: [Action<'static>; 2] = [Action::RawEncap(&VXLAN), Action::RepresentedPort(Some(2))];
const NONSENSE: [Action<'static>; 2] = [Action::Count, Action::Jump(Some(1))];

fn shared(bytes: &mut Bytes<'_>) -> Shared {
    let id = u32::from(bytes.byte());
    match bytes.below(4) {
        0 | 1 => Shared::Counter(CounterId(id % 70)),
        2 => Shared::Age(AgeId(id % 40)),
        _ if id % 2 == 0 => Shared::Meter(MeterId(id % 10)),
        _ => Shared::Rss(id % 5),
    }
}

fn action<'a>(bytes: &mut Bytes<'a>, known: &[Shared]) -> Action<'a> {
    let choice = bytes.byte();
    let byte = bytes.byte();
    match choice % 36 {
        0..6 => Action::Count,
        6 => Action::Age { timeout_s: u32::from(byte % 8), context: u64::from(byte) },
        7 => Action::SetTag { index: byte % 7, data: 1, mask: bytes.pick(&[u32::MAX, 3]) },
        8 => Action::SetMeta { data: bytes.word(), mask: bytes.pick(&[0xffff, u32::MAX]) },
        9 => Action::SetMacDst([2, 0, 0, 0, 0, byte]),
        10 => Action::SetIpv4Src([10, 0, 0, byte]),
        11 => Action::SetIpv4Dst([10, 0, 0, byte]),
        12 => Action::SetIpv6Dst([byte; 16]),
        13 => Action::SetTpDst(u16::from(byte)),
        14 => Action::SetTtl(byte),
        15 => Action::DecTtl,
        16 => Action::AddTcpSeq(i64::from(bytes.word() as i32)),
        17..20 => modify(bytes),
        20 => Action::PopVlan,
        21 => Action::PushVlan(bytes.pick(&[0x8100, 0x88a8, 1])),
        22 => Action::SetVlanVid(u16::from(byte)),
        23 => Action::SetVlanPcp(byte & 7),
        24 => Action::VxlanEncap(&VXLAN),
        25 => Action::VxlanDecap,
        26 => Action::RawEncap(if byte % 2 == 0 { &VXLAN } else { bytes.take(usize::from(byte)) }),
        27 => Action::RawDecap(if byte % 2 == 0 { &VXLAN } else { &VXLAN[..14] }),
        28 => Action::Meter(u32::from(byte % 4)),
        29 => Action::MeterMark { profile: u32::from(byte % 4), colour_aware: byte >= 128 },
        30 => Action::Indirect(if byte == 255 { None } else { Some(shared(bytes)) }),
        31 => Action::Indirect(if known.is_empty() { None } else { Some(bytes.pick(known)) }),
        32 => Action::Sample {
            ratio: u32::from(byte % 3),
            actions: bytes.pick(&[&TO_SECOND[..], &ENCAP_TO_SECOND, &NONSENSE, &[]]),
        },
        33 => Action::Mark(Some(bytes.word())),
        34 => Action::Flag,
        _ => Action::Other(i32::from(byte)),
    }
}

fn fate(bytes: &mut Bytes<'_>, transfer: bool) -> Action<'static> {
    let byte = bytes.byte();
    let port = [0, 1, 2, 7, 0, 1, 2, 3][usize::from(byte >> 5)];
    match (byte % 8, transfer) {
        (0..3, _) => Action::Jump(Some(u32::from(byte >> 3) % 5)),
        (3, _) => Action::Drop,
        (4, true) if byte >= 128 => Action::PortId(Some(u32::from(port))),
        (_, true) => Action::RepresentedPort(Some(port)),
        (4, false) => Action::Rss { queues: &[0, 1] },
        (_, false) => Action::Queue(Some(u16::from(byte >> 3) % 5)),
    }
}

/// What goes with nearly every pattern.
fn plain<'a>(bytes: &mut Bytes<'a>, hardware: bool, list: &mut Vec<Action<'a>>) {
    let (choice, byte) = (bytes.byte(), bytes.byte());
    if choice & 1 != 0 {
        list.push(Action::Count);
    }
    if choice & 6 == 6 {
        list.push(Action::Age { timeout_s: 1 + u32::from(byte % 8), context: u64::from(byte) });
    }
    let set = |field, value: [u8; 6], width| {
        let mut wide = [0; 16];
        wide[..6].copy_from_slice(&value);
        let dst = FieldRef { field, level: 0, offset: 0 };
        Action::ModifyField { op: ModifyOp::Set, dst, src: Some(FieldSource::Value(wide)), width }
    };
    match (choice >> 3 & 7, hardware) {
        (0, false) => list.push(Action::SetMacDst([2, 0, 0, 0, 0, byte])),
        (0, true) => list.push(set(Field::MacDst, [2, 0, 0, 0, 0, byte], 48)),
        (1, false) => list.push(Action::SetTag { index: byte & 1, data: 1, mask: u32::MAX }),
        (1, true) => list.push(set(Field::Tag, [1, 0, 0, 0, 0, 0], 32)),
        (2, false) => list.push(Action::DecTtl),
        (2, true) => list.push(set(Field::Ipv4Ttl, [byte; 6], 8)),
        (3, false) => list.push(Action::Sample { ratio: 1, actions: &TO_SECOND }),
        (3, true) => list.push(Action::RawEncap(&VXLAN)),
        (4, false) => list.push(Action::Meter(u32::from(byte % 4))),
        (4, true) => list.push(Action::MeterMark { profile: u32::from(byte % 4), colour_aware: false }),
        _ => {}
    }
}

/// An action list; `known`: indirect objects that exist.
pub(crate) fn actions<'a>(
    bytes: &mut Bytes<'a>,
    transfer: bool,
    hardware: bool,
    known: &[Shared],
) -> Vec<Action<'a>> {
    let choice = bytes.byte();
    let mut list: Vec<Action<'a>> = Vec::new();
    if choice < 160 {
        plain(bytes, hardware, &mut list);
    } else {
        list.extend((0..choice % 4).map(|_| action(bytes, known)));
    }
    if choice < 250 {
        list.push(fate(bytes, transfer));
    }
    list
}

/// An Ethernet frame, with IP and transport mostly, its checksums not minded.
pub(crate) fn frame(bytes: &mut Bytes<'_>) -> Vec<u8> {
    let (choice, byte) = (bytes.byte(), bytes.byte());
    let mut frame = vec![2, 0, 0, 0, 0, 1 + byte % 2, 2, 0, 0, 0, 0, 2];
    let tcp = [4, 210, 0, 80 + byte % 2, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 16, 0x10, 0, 0, 0, 0, 0];
    let ip = |protocol: u8, len: u8| {
        [0x45, 0, 0, 20 + len, 0, 1, 0, 0, byte, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]
    };
    match choice % 8 {
        0 | 1 => {
            frame.extend([8, 0]);
            frame.extend(ip(6, 20));
            frame.extend(tcp);
        }
        2 => {
            frame.extend([8, 0]);
            frame.extend(ip(17, 8));
            frame.extend([4, 210, 0, 53, 0, 8, byte, byte]);
        }
        3 => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, 6, byte]);
            frame.extend([0x20; 32]);
            frame.extend(tcp);
        }
        4 => {
            frame.extend([0x81, 0, 0, byte, 8, 0]);
            frame.extend(ip(6, 20));
            frame.extend(tcp);
        }
        5 => {
            frame.extend(&VXLAN[12..]);
            frame.extend([2, 0, 0, 0, 0, 7, 2, 0, 0, 0, 0, 6, 8, 0]);
            frame.extend(ip(6, 20));
            frame.extend(tcp);
        }
        6 => frame.extend(bytes.take(usize::from(byte % 64))),
        _ => frame = bytes.take(usize::from(byte % 64)).to_vec(),
    }
    if choice >= 224 && !frame.is_empty() {
        let at = bytes.below(frame.len().min(256));
        frame[at] ^= bytes.byte();
    }
    frame
}
