//! A [`Rule`] in `dpdk::flow`'s words.

use super::{Direction, EngineError, LegId, RuleId};
use crate::rule::{ACTIONS_MAX, Action, Domain, HEADERS_MAX, ITEMS_MAX, Item, Masked, Rule, Tunnel};
use dataplane::addr::Ip;
use dpdk::flow::spec::{self, MaskedByte, Transport};
use dpdk::flow::{Actions, Attr, CounterKey, FlowError, MeterKey, Pattern};

const _: () = assert!(ITEMS_MAX <= dpdk::flow::ITEMS_MAX && ACTIONS_MAX <= dpdk::flow::ACTIONS_MAX);
const _: () = assert!(HEADERS_MAX <= dpdk::flow::HEADERS_MAX);

/// Where the rule lives.
pub(super) fn attr(rule: &Rule) -> Attr {
    let transfer = rule.attr.domain == Domain::Transfer;
    Attr { transfer, group: rule.attr.group, priority: rule.attr.priority }
}

fn byte(masked: Option<Masked<u8>>) -> Option<MaskedByte> {
    masked.map(|masked| (masked.value, masked.mask))
}

fn tunnel(kind: Tunnel) -> spec::Tunnel {
    match kind {
        Tunnel::Vxlan => spec::Tunnel::Vxlan,
        Tunnel::Geneve => spec::Tunnel::Geneve,
    }
}

/// What a packet must be like.
pub(super) fn pattern(rule: &Rule) -> Pattern {
    let mut pattern = Pattern::new();
    for item in &rule.items {
        match *item {
            Item::RepresentedPort(port) => pattern.represented_port(port),
            Item::Eth { dst } => pattern.eth(dst.map(|mac| mac.0)),
            Item::Vlan(vid) => pattern.vlan(vid),
            Item::Ipv4 { src, dst, class, ttl } => pattern.ipv4(src, dst, byte(class), byte(ttl)),
            Item::Ipv6 { src, dst, class, hop_limit } => {
                let octets = |ip: Option<Ip>| ip.map(Ip::octets);
                pattern.ipv6(octets(src), octets(dst), byte(class), byte(hop_limit));
            }
            Item::Ipv4From { src, dst } => pattern.ipv4_from((src.value, src.mask), dst),
            Item::Ipv6From { src, dst } => pattern.ipv6_from((src.value, src.mask), dst.octets()),
            Item::Tcp { src, dst, flags } => pattern.tcp(src, dst, byte(flags)),
            Item::Udp { src, dst } => pattern.udp(src, dst),
            Item::Tag(Masked { value, mask }) => pattern.tag(value, mask),
            Item::Red => pattern.red(),
            Item::Tunnel(kind, vni) => pattern.tunnel(tunnel(kind), vni),
        }
    }
    pattern
}

/// What a rule's actions are said of.
#[derive(Clone, Copy, Default)]
pub(super) struct Objects {
    /// It is counted by this.
    pub(super) counter: Option<CounterKey>,
    /// It is coloured by this.
    pub(super) meter: Option<MeterKey>,
    /// It is reported as aged under this.
    pub(super) context: u64,
}

/// What happens to it, in the order of `ordered`: the rule's actions as the steering wants them.
pub(super) fn actions(rule: &Rule, ordered: &[Action], objects: Objects) -> Actions {
    let Objects { counter, meter: mark, context } = objects;
    let is_v4 = |item: &Item| matches!(item, Item::Ipv4 { .. } | Item::Ipv4From { .. });
    let v4 = rule.innermost().iter().any(is_v4);
    let udp = rule.innermost().iter().any(|item| matches!(item, Item::Udp { .. }));
    let transport = if udp { Transport::Udp } else { Transport::Tcp };
    let mut actions = Actions::new();
    for action in ordered {
        match *action {
            Action::Meter(meter) => actions.meter(meter),
            Action::MeterMark(_) => actions.meter_mark(mark),
            Action::SetTag(tag) => actions.set_tag(tag),
            Action::Drop => actions.discard(),
            Action::Count => actions.count(counter),
            Action::Age { timeout_s } => actions.age(timeout_s, context),
            Action::Decap(kind) => actions.decap(tunnel(kind)),
            Action::PopVlan => actions.pop_vlan(),
            Action::PushVlan => actions.push_vlan(),
            Action::SetVlanVid(vid) => actions.set_vlan(vid),
            Action::SetMacSrc(mac) => actions.set_mac_src(mac.0),
            Action::SetMacDst(mac) => actions.set_mac_dst(mac.0),
            Action::SetIpSrc(ip) if ip.is_v4() => actions.set_ipv4_src(ip.low32()),
            Action::SetIpSrc(ip) => actions.set_ipv6_src(ip.octets()),
            Action::SetIpDst(ip) if ip.is_v4() => actions.set_ipv4_dst(ip.low32()),
            Action::SetIpDst(ip) => actions.set_ipv6_dst(ip.octets()),
            Action::SetPortSrc(port) => actions.set_port_src(transport, port),
            Action::SetPortDst(port) => actions.set_port_dst(transport, port),
            Action::DecTtl if v4 => actions.dec_ttl(),
            Action::DecTtl => actions.dec_hop_limit(),
            Action::RawDecap => actions.raw_decap(),
            Action::RawEncap => actions.raw_encap(&rule.headers),
            Action::Jump(group) => actions.jump(group),
            Action::ToPort(port) => actions.represented_port(port),
            Action::Queue(queue) => actions.queue(queue),
        }
    }
    actions
}

/// Whether it counts.
pub(super) fn counts(rule: &Rule) -> bool {
    rule.actions.contains(&Action::Count)
}

/// A leg as a rule's age context: a number, never 0, never a pointer.
pub(super) fn context(leg: LegId) -> u64 {
    (u64::from(leg.rule.0) << 1 | leg.direction as u64) + 1
}

/// The reverse of [`context`]; `None` for what is none.
pub(super) fn leg(context: u64) -> Option<LegId> {
    let bits = context.checked_sub(1)?;
    let direction = if bits & 1 == 0 { Direction::Original } else { Direction::Reply };
    Some(LegId { rule: RuleId(u32::try_from(bits >> 1).ok()?), direction })
}

const ENOENT: i32 = 2;
const EIO: i32 = 5;
const ENXIO: i32 = 6;
const EAGAIN: i32 = 11;
const ENOMEM: i32 = 12;
const EBUSY: i32 = 16;
const ENODEV: i32 = 19;
const ENOSPC: i32 = 28;
const ETIMEDOUT: i32 = 110;

/// Why a rule was not created. A driver that gives no reason has no room: mlx5 22.11 forgets to say so.
pub(super) fn of_creation(error: &FlowError) -> EngineError {
    match error.errno.0 {
        0 | ENOMEM | ENOSPC => EngineError::TableFull,
        ENOENT | EAGAIN => EngineError::NoCounter,
        EBUSY => EngineError::QueueFull,
        errno @ (ENODEV | EIO | ENXIO | ETIMEDOUT) => EngineError::Lost(errno),
        errno => EngineError::Refused(errno),
    }
}

/// Why a counter was not created.
pub(super) fn of_counter(error: &FlowError) -> EngineError {
    match error.errno.0 {
        0 | ENOMEM | ENOSPC | ENOENT | EAGAIN => EngineError::NoCounter,
        errno @ (ENODEV | EIO | ENXIO | ETIMEDOUT) => EngineError::Lost(errno),
        errno => EngineError::Refused(errno),
    }
}

/// Why something that was there could not be asked or removed.
pub(super) fn of_existing(error: &FlowError) -> EngineError {
    match error.errno.0 {
        EBUSY | EAGAIN => EngineError::QueueFull,
        errno => EngineError::Lost(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_names_a_leg_and_is_never_null() {
        for rule in [0, 1, 77, u32::MAX] {
            for direction in [Direction::Original, Direction::Reply] {
                let id = LegId { rule: RuleId(rule), direction };
                assert_ne!(context(id), 0);
                assert_eq!(leg(context(id)), Some(id));
            }
        }
        assert_eq!(leg(0), None);
        assert_eq!(leg(u64::MAX), None);
    }
}
