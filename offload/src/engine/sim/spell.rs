//! A rule in the model's words, which are `rte_flow`'s without pointers: both dialects.

use crate::rule::{Action, Attr, Domain, Item, Masked, Rule, Tunnel};
use dataplane::addr::Ip;
use eswitch::model::action::{self, Field, FieldRef, FieldSource, ModifyOp, Shared};
use eswitch::model::item::{self, Header, Layer};
use eswitch::model::types;

/// The longest header that is matched, IPv6's.
const HEADER_MAX: usize = 40;

/// The tag protocol identifier of 802.1Q.
const TPID: u16 = 0x8100;

/// An Ethernet header, of which only the length counts.
const ETHERNET: &[u8] = &[0; 14];

/// As much as is around a frame in GENEVE.
const TUNNEL: &[u8] = &[0; 14 + 20 + 8 + 8];

/// A header to be matched, with the bytes that the model's item borrows; or a port.
pub(super) enum Spelt {
    Port(u16),
    Tag(Masked<u32>),
    Red,
    Header { layer: Layer, spec: [u8; HEADER_MAX], mask: [u8; HEADER_MAX], followed: Option<bool> },
}

impl Spelt {
    fn new(layer: Layer) -> Spelt {
        Spelt::Header { layer, spec: [0; HEADER_MAX], mask: [0; HEADER_MAX], followed: None }
    }

    /// Matches `value` at this offset, whole.
    fn exactly(self, at: usize, value: &[u8]) -> Spelt {
        value.iter().enumerate().fold(self, |spelt, (offset, &byte)| {
            spelt.masked(at + offset, Some(Masked { value: byte, mask: 0xff }))
        })
    }

    fn masked(mut self, at: usize, byte: Option<Masked<u8>>) -> Spelt {
        if let (Spelt::Header { spec, mask, .. }, Some(byte)) = (&mut self, byte) {
            if let (Some(spec), Some(mask)) = (spec.get_mut(at), mask.get_mut(at)) {
                (*spec, *mask) = (byte.value, byte.mask);
            }
        }
        self
    }

    fn bits(self, at: usize, word: Masked<u32>) -> Spelt {
        let bytes = word.value.to_be_bytes().into_iter().zip(word.mask.to_be_bytes());
        bytes.enumerate().fold(self, |spelt, (offset, (value, mask))| {
            spelt.masked(at + offset, Some(Masked { value, mask }))
        })
    }

    fn maybe<const N: usize>(self, at: usize, value: Option<[u8; N]>) -> Spelt {
        match value {
            Some(value) => self.exactly(at, &value),
            None => self,
        }
    }

    /// Whether another tag follows.
    fn followed_by_tag(mut self, tag: bool) -> Spelt {
        if let Spelt::Header { followed, .. } = &mut self {
            *followed = Some(tag);
        }
        self
    }

    /// The model's item.
    pub(super) fn item(&self) -> item::Item<'_> {
        match self {
            Spelt::Port(port_id) => item::Item::RepresentedPort { port_id: Some(*port_id), mask: u16::MAX },
            Spelt::Tag(Masked { value, mask }) => item::Item::Tag { index: 0, data: *value, mask: *mask },
            Spelt::Red => item::Item::MeterColour { colour: types::Colour::Red as u8, mask: 3 },
            Spelt::Header { layer, spec, mask, followed } => {
                let (spec, mask) = (&spec[..layer.bytes()], &mask[..layer.bytes()]);
                item::Item::Header(Header { followed: *followed, ..Header::masked(*layer, spec, mask) })
            }
        }
    }
}

/// A rule's pattern.
pub(super) fn items(rule: &Rule) -> Vec<Spelt> {
    let spell = |(at, item): (usize, &Item)| match *item {
        Item::RepresentedPort(port) => Spelt::Port(port),
        Item::Eth { dst } => {
            let eth = Spelt::new(Layer::Eth).maybe(0, dst.map(|mac| mac.0));
            let tagged = matches!(rule.items.get(at + 1), Some(Item::Vlan(_)));
            if tagged { eth } else { eth.followed_by_tag(false) }
        }
        Item::Vlan(vid) => Spelt::new(Layer::Vlan)
            .masked(0, Some(Masked { value: (vid >> 8) as u8, mask: 0x0f }))
            .exactly(1, &[vid as u8])
            .followed_by_tag(false),
        Item::Ipv4 { src, dst, class, ttl } => Spelt::new(Layer::Ipv4)
            .maybe(12, src.map(u32::to_be_bytes))
            .maybe(16, dst.map(u32::to_be_bytes))
            .masked(1, class)
            .masked(8, ttl),
        Item::Ipv6 { src, dst, class, hop_limit } => Spelt::new(Layer::Ipv6)
            .maybe(8, src.map(Ip::octets))
            .maybe(24, dst.map(Ip::octets))
            .masked(0, class.map(|Masked { value, mask }| Masked { value: value >> 4, mask: mask >> 4 }))
            .masked(1, class.map(|Masked { value, mask }| Masked { value: value << 4, mask: mask << 4 }))
            .masked(7, hop_limit),
        Item::Ipv4From { src, dst } => Spelt::new(Layer::Ipv4).bits(12, src).exactly(16, &dst.to_be_bytes()),
        Item::Ipv6From { src, dst } => Spelt::new(Layer::Ipv6).bits(20, src).exactly(24, &dst.octets()),
        Item::Tcp { src, dst, flags } => Spelt::new(Layer::Tcp)
            .maybe(0, src.map(u16::to_be_bytes))
            .maybe(2, dst.map(u16::to_be_bytes))
            .masked(13, flags),
        Item::Udp { src, dst } => {
            Spelt::new(Layer::Udp).maybe(0, src.map(u16::to_be_bytes)).maybe(2, dst.map(u16::to_be_bytes))
        }
        Item::Tag(tag) => Spelt::Tag(tag),
        Item::Red => Spelt::Red,
        Item::Tunnel(Tunnel::Vxlan, vni) => Spelt::new(Layer::Vxlan).maybe(4, vni.map(network)),
        Item::Tunnel(Tunnel::Geneve, vni) => Spelt::new(Layer::Geneve)
            .masked(0, Some(Masked { value: 0, mask: 0x3f }))
            .exactly(2, &[0x65, 0x58])
            .maybe(4, vni.map(network)),
    };
    rule.items.iter().enumerate().map(spell).collect()
}

fn network(vni: u32) -> [u8; 3] {
    let [_, bytes @ ..] = vni.to_be_bytes();
    bytes
}

/// A rule's attributes.
pub(super) fn attr(rule: &Rule) -> types::Attr {
    let Attr { domain, group, priority } = rule.attr;
    let transfer = domain == Domain::Transfer;
    types::Attr { group, priority, transfer, ingress: !transfer, egress: false }
}

/// A rule's actions as software steering takes them. `counter`: in place of a count; `context`: the age's.
pub(super) fn set_actions(rule: &Rule, counter: Option<Shared>, context: u64) -> Vec<action::Action<'_>> {
    use action::Action as Out;
    let spell = |action: &Action| match *action {
        Action::SetMacSrc(mac) => Out::SetMacSrc(mac.0),
        Action::SetMacDst(mac) => Out::SetMacDst(mac.0),
        Action::SetIpSrc(ip) if ip.is_v4() => Out::SetIpv4Src(ip.low32().to_be_bytes()),
        Action::SetIpSrc(ip) => Out::SetIpv6Src(ip.octets()),
        Action::SetIpDst(ip) if ip.is_v4() => Out::SetIpv4Dst(ip.low32().to_be_bytes()),
        Action::SetIpDst(ip) => Out::SetIpv6Dst(ip.octets()),
        Action::SetPortSrc(port) => Out::SetTpSrc(port),
        Action::SetPortDst(port) => Out::SetTpDst(port),
        Action::DecTtl => Out::DecTtl,
        ref other => plain(other, &rule.headers, counter, context),
    };
    rule.actions.iter().map(spell).collect()
}

/// What both dialects say alike.
fn plain<'a>(
    action: &Action,
    headers: &'a [u8],
    counter: Option<Shared>,
    context: u64,
) -> action::Action<'a> {
    use action::Action as Out;
    match *action {
        Action::Age { timeout_s } => Out::Age { timeout_s, context },
        Action::Meter(meter) => Out::Meter(meter),
        Action::Decap(Tunnel::Vxlan) => Out::VxlanDecap,
        Action::Decap(Tunnel::Geneve) => Out::RawDecap(TUNNEL),
        Action::PopVlan => Out::PopVlan,
        Action::PushVlan => Out::PushVlan(TPID),
        Action::SetVlanVid(vid) => Out::SetVlanVid(vid),
        Action::Jump(group) => Out::Jump(Some(group)),
        Action::ToPort(port) => Out::RepresentedPort(Some(port)),
        Action::Queue(queue) => Out::Queue(Some(queue)),
        Action::Drop => Out::Drop,
        Action::RawDecap => Out::RawDecap(ETHERNET),
        Action::RawEncap => Out::RawEncap(headers),
        _ => counter.map_or(Out::Count, |shared| Out::Indirect(Some(shared))),
    }
}

/// What a rule's actions are said of: a counter in place of a count, a meter, the age's context.
#[derive(Clone, Copy, Default)]
pub(super) struct Objects {
    pub(super) counter: Option<Shared>,
    pub(super) meter: Option<Shared>,
    pub(super) context: u64,
}

/// A rule's actions as hardware steering takes them.
pub(super) fn modify_actions(rule: &Rule, objects: Objects) -> Vec<action::Action<'_>> {
    let Objects { counter, meter, context } = objects;
    let transport = Transport::of(rule);
    let spell = |action: &Action| match edit(action, transport) {
        Some(Edit { op, field, value, bytes }) => action::Action::ModifyField {
            op,
            dst: FieldRef { field, level: 0, offset: 0 },
            src: Some(FieldSource::Value(value)),
            width: 8 * bytes,
        },
        None if matches!(action, Action::MeterMark(_)) => {
            let stands_for = action::Action::MeterMark { profile: 0, colour_aware: false };
            meter.map_or(stands_for, |shared| action::Action::Indirect(Some(shared)))
        }
        None => plain(action, &rule.headers, counter, context),
    };
    rule.with_tags_first().iter().map(spell).collect()
}

/// The actions of the template for such rules, and their masks: each rule brings its values.
pub(super) fn template_actions(shape: &Rule) -> (Vec<action::Action<'_>>, Vec<action::Action<'_>>) {
    use action::Action as Out;
    let actions = modify_actions(shape, Objects::default()).into_iter();
    let pair = |action| match action {
        Out::ModifyField { op, dst, width, .. } => {
            let all = FieldRef { level: u32::MAX, offset: u32::MAX, ..dst };
            let open = |dst, width| Out::ModifyField { op, dst, src: None, width };
            (open(dst, width), open(all, u32::MAX))
        }
        Out::Count => (Out::Indirect(None), Out::Count),
        Out::MeterMark { .. } => (Out::Indirect(None), action),
        Out::Jump(group) => (Out::Jump(group), Out::Jump(Some(u32::MAX))),
        Out::RepresentedPort(_) => (Out::RepresentedPort(None), Out::RepresentedPort(None)),
        Out::PushVlan(_) => (Out::PushVlan(0), Out::PushVlan(0)),
        Out::RawEncap(_) => (action, Out::RawEncap(&[])),
        other => (other, other),
    };
    actions.map(pair).unzip()
}

/// Which transport's ports are edited: `modify_field` tells them apart.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Transport {
    udp: bool,
    v6: bool,
}

impl Transport {
    fn of(rule: &Rule) -> Transport {
        let has = |wanted: fn(&Item) -> bool| rule.innermost().iter().any(wanted);
        Transport {
            udp: has(|item| matches!(item, Item::Udp { .. })),
            v6: has(|item| matches!(item, Item::Ipv6 { .. } | Item::Ipv6From { .. })),
        }
    }
}

/// A `modify_field`.
struct Edit {
    op: ModifyOp,
    field: Field,
    value: [u8; 16],
    bytes: u32,
}

/// The edit that an action is, if it is one.
fn edit(action: &Action, transport: Transport) -> Option<Edit> {
    let set = |field, from: &[u8]| {
        let mut value = [0; 16];
        value.iter_mut().zip(from).for_each(|(to, byte)| *to = *byte);
        Some(Edit { op: ModifyOp::Set, field, value, bytes: from.len() as u32 })
    };
    let address = |v4, v6, ip: Ip| {
        if ip.is_v4() { set(v4, &ip.low32().to_be_bytes()) } else { set(v6, &ip.octets()) }
    };
    let port = |tcp, udp, port: u16| set(if transport.udp { udp } else { tcp }, &port.to_be_bytes());
    match *action {
        Action::SetMacSrc(mac) => set(Field::MacSrc, &mac.0),
        Action::SetMacDst(mac) => set(Field::MacDst, &mac.0),
        Action::SetIpSrc(ip) => address(Field::Ipv4Src, Field::Ipv6Src, ip),
        Action::SetIpDst(ip) => address(Field::Ipv4Dst, Field::Ipv6Dst, ip),
        Action::SetPortSrc(number) => port(Field::TcpPortSrc, Field::UdpPortSrc, number),
        Action::SetPortDst(number) => port(Field::TcpPortDst, Field::UdpPortDst, number),
        Action::SetTag(tag) => set(Field::Tag, &tag.to_be_bytes()),
        Action::DecTtl => {
            let field = if transport.v6 { Field::Ipv6HopLimit } else { Field::Ipv4Ttl };
            set(field, &[0xff]).map(|edit| Edit { op: ModifyOp::Add, ..edit })
        }
        _ => None,
    }
}
