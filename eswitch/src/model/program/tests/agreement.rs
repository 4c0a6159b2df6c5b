//! Properties over random frames and action lists.

use proptest::prelude::*;

use super::oracle::{Addresses, Spec, Transport, frames, plain, verdicts};
use super::{applied, edited, registers, topology};
use crate::model::action::{Action, Field, FieldRef, FieldSource, ModifyOp};
use crate::model::key::{L4, parse};
use crate::model::program::Program;
use crate::model::switch::DropReason;
use dataplane::ids::PortId;
use dataplane::packet::{PacketBuf, TestPacket};

const FIELDS: [Field; 26] = [
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
    Field::VxlanVni,
    Field::Tag,
    Field::Mark,
    Field::Meta,
    Field::Ipv4Ecn,
    Field::Ipv6Ecn,
    Field::MeterColour,
];

fn place() -> impl Strategy<Value = FieldRef> {
    let offset = prop_oneof![3 => Just(0), 1 => 0..40u32];
    (prop::sample::select(FIELDS.to_vec()), 0..3u32, offset).prop_map(|(field, level, offset)| FieldRef {
        field,
        level,
        offset,
    })
}

fn modify() -> impl Strategy<Value = Action<'static>> {
    let src = prop_oneof![
        3 => any::<[u8; 16]>().prop_map(FieldSource::Value),
        1 => place().prop_map(FieldSource::Field),
    ];
    let op = prop_oneof![3 => Just(ModifyOp::Set), 1 => Just(ModifyOp::Add)];
    let width = prop_oneof![Just(1), Just(8), Just(16), Just(32), Just(48), Just(128), 1..33u32];
    (op, place(), src, width).prop_map(|(op, dst, src, width)| Action::ModifyField {
        op,
        dst,
        src: Some(src),
        width,
    })
}

const TUNNEL: [u8; 50] = {
    let mut bytes = [7; 50];
    (bytes[12], bytes[13], bytes[14]) = (8, 0, 0x45);
    (bytes[23], bytes[36], bytes[37]) = (17, 0x12, 0xb5);
    bytes
};

fn action() -> impl Strategy<Value = Action<'static>> {
    prop_oneof![
        6 => modify(),
        1 => any::<[u8; 6]>().prop_map(Action::SetMacDst),
        1 => any::<[u8; 4]>().prop_map(Action::SetIpv4Src),
        1 => any::<[u8; 4]>().prop_map(Action::SetIpv4Dst),
        1 => any::<[u8; 16]>().prop_map(Action::SetIpv6Dst),
        1 => any::<u16>().prop_map(Action::SetTpSrc),
        1 => any::<u16>().prop_map(Action::SetTpDst),
        1 => any::<u8>().prop_map(Action::SetTtl),
        1 => Just(Action::DecTtl),
        1 => any::<i64>().prop_map(Action::AddTcpSeq),
        1 => any::<u8>().prop_map(Action::SetIpv6Dscp),
        1 => any::<u16>().prop_map(Action::SetVlanVid),
        1 => Just(Action::PopVlan),
        1 => Just(Action::PushVlan(0x8100)),
        1 => Just(Action::VxlanDecap),
        1 => Just(Action::VxlanEncap(&TUNNEL)),
        1 => any::<(u32, u32)>().prop_map(|(data, mask)| Action::SetTag { index: 1, data, mask }),
    ]
}

/// What a NAT rule does.
#[derive(Clone, Copy, Debug)]
struct Nat {
    macs: ([u8; 6], [u8; 6]),
    addresses: ([u8; 16], [u8; 16]),
    ports: (u16, u16),
}

fn first<const N: usize>(address: &[u8; 16]) -> [u8; N] {
    std::array::from_fn(|index| address[index])
}

impl Nat {
    fn on(&self, spec: &Spec) -> Spec {
        let mut spec = spec.clone();
        (spec.dst, spec.src) = self.macs;
        spec.addresses = match spec.addresses {
            Addresses::V4(..) => Addresses::V4(first(&self.addresses.0), first(&self.addresses.1)),
            Addresses::V6(..) => Addresses::V6(self.addresses.0, self.addresses.1),
        };
        spec.ports = self.ports;
        spec.ttl = spec.ttl.wrapping_sub(1);
        spec
    }

    fn legacy(&self, spec: &Spec) -> Vec<Action<'static>> {
        let (src, dst) = self.addresses;
        let addresses = match spec.addresses {
            Addresses::V4(..) => [Action::SetIpv4Src(first(&src)), Action::SetIpv4Dst(first(&dst))],
            Addresses::V6(..) => [Action::SetIpv6Src(src), Action::SetIpv6Dst(dst)],
        };
        let macs = [Action::SetMacDst(self.macs.0), Action::SetMacSrc(self.macs.1)];
        let rest = [Action::SetTpSrc(self.ports.0), Action::SetTpDst(self.ports.1), Action::DecTtl];
        [&macs[..], &addresses, &rest].concat()
    }
}

prop_compose! {
    fn nat()(macs: ([u8; 6], [u8; 6]), addresses: ([u8; 16], [u8; 16]), ports: (u16, u16)) -> Nat {
        Nat { macs, addresses, ports: (ports.0, ports.1 | 0x8000) }
    }
}

/// Before this, nothing goes into the fast block.
const SEAL: Action<'static> = Action::ModifyField {
    op: ModifyOp::Set,
    dst: FieldRef { field: Field::Meta, level: 0, offset: 0 },
    src: Some(FieldSource::Field(FieldRef { field: Field::Tag, level: 0, offset: 0 })),
    width: 32,
};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_nat_rule_yields_the_packet_with_other_fields(spec in plain(), nat in nat()) {
        let (frame, actions) = (spec.frame(), nat.legacy(&spec));
        let has_ports = matches!(parse(&frame).outer.l4, L4::Tcp | L4::Udp);
        let expected = if has_ports { Ok(nat.on(&spec).frame()) } else { Err(DropReason::Malformed) };
        // A first fragment's checksum is of bytes that are elsewhere too; the oracle takes it as whole.
        prop_assert_eq!(&applied(&actions, &frame), &expected);
        let slow = [&[SEAL], &actions[..]].concat();
        prop_assert_eq!(&applied(&slow, &frame), &expected, "command by command");
    }

    #[test]
    fn addresses_alone_are_rewritten_in_fragments(spec in plain(), nat in nat()) {
        // mlx5 leaves ICMPv6's checksum wrong; the oracle would not.
        prop_assume!(!(spec.transport == Transport::Icmp && matches!(spec.addresses, Addresses::V6(..))));
        let mut expected = nat.on(&spec);
        (expected.dst, expected.src) = (spec.dst, spec.src);
        (expected.ports, expected.ttl) = (spec.ports, spec.ttl);
        let actions = &nat.legacy(&spec)[2..4];
        prop_assert_eq!(applied(actions, &spec.frame()), Ok(expected.frame()));
    }

    #[test]
    fn two_oracles_agree(frame in frames()) {
        prop_assert!(verdicts(&frame).iter().all(|verdict| *verdict != Some(false)));
    }

    #[test]
    fn right_checksums_stay_right(frame in frames(), actions in prop::collection::vec(action(), 1..6)) {
        let actions: Vec<_> = actions.into_iter().filter(keeps_shape).collect();
        let Ok(program) = Program::compile(&actions, &topology()) else { return Ok(()) };
        let mut headers = parse(&frame);
        let mut packet = TestPacket::new(PortId(0), &frame);
        let before = verdicts(&frame);
        if program.edits.apply(&mut packet, &mut headers, &mut registers()).is_ok() {
            prop_assert_eq!(verdicts(packet.data()), before, "{:?}", actions);
        }
    }

    #[test]
    fn nothing_panics(
        frame in frames(),
        cut in 0..200usize,
        noise in prop::collection::vec((0..200usize, any::<u8>()), 0..4),
        actions in prop::collection::vec(action(), 1..6),
    ) {
        let mut frame = frame;
        frame.truncate(cut);
        for (at, byte) in noise {
            if let Some(place) = frame.get_mut(at) {
                *place = byte;
            }
        }
        if let Ok(program) = Program::compile(&actions, &topology()) {
            let _ = program.describe(&topology()).to_string();
            let _ = edited(&program.edits, &frame);
        }
    }

    #[test]
    fn fast_and_general_agree(frame in frames(), actions in prop::collection::vec(action(), 1..6)) {
        // Behind a third tag no header is found, so that it matters what comes before the push.
        let pushes = actions.iter().filter(|action| matches!(action, Action::PushVlan(_))).count();
        prop_assume!(usize::from(parse(&frame).outer.vlans) + pushes <= 2);
        let slow = [&[SEAL], &actions[..]].concat();
        let fast = Program::compile(&actions, &topology()).map(|program| edited(&program.edits, &frame));
        let slow = Program::compile(&slow, &topology()).map(|program| edited(&program.edits, &frame));
        match (fast, slow) {
            (Ok(fast), Ok(slow)) => prop_assert_eq!(fast.map(|(frame, _)| frame), slow.map(|(frame, _)| frame)),
            (fast, slow) => prop_assert_eq!(fast.is_ok(), slow.is_ok()),
        }
    }
}

/// Whether the frame keeps its layers, so that its checksums can be compared: no tags, no tunnels, and no
/// field that says what follows.
fn keeps_shape(action: &Action<'_>) -> bool {
    let field = |field| matches!(field, Field::MacType | Field::UdpPortDst | Field::TcpPortDst);
    match action {
        Action::ModifyField { dst, .. } => !field(dst.field),
        Action::PopVlan | Action::PushVlan(_) | Action::VxlanDecap | Action::VxlanEncap(_) => false,
        Action::SetTpDst(_) => false,
        _ => true,
    }
}
