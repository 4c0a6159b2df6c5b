//! Frames through a device whose rules do all there is to do to a frame.

use std::sync::Arc;

use dataplane::ids::PortId;
use dataplane::packet::{Burst, PacketBuf, TestPacket};
use eswitch::model::action::{Action, Field, FieldRef, FieldSource, ModifyOp};
use eswitch::model::item::{Header, Item, Layer};
use eswitch::model::profile::Profile;
use eswitch::model::switch::{DropReason, Eswitch, Fabric, RxConfig, RxMeta};
use eswitch::model::types::{Attr, Role, Steering, Tick, Topology, Vport, VportInfo};
use eswitch::model::validate::Port;

/// VXLAN over IPv6.
const OUTER: [u8; 70] = {
    let mut outer = [0x20; 70];
    let head: [u8; 22] = [2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 8, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, 17, 64];
    let tail: [u8; 16] = [0, 0, 18, 181, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 7, 0];
    let mut at = 0;
    while at < 22 {
        outer[at] = head[at];
        at += 1;
    }
    while at < 38 {
        outer[at + 32] = 0;
        at += 1;
    }
    at = 0;
    while at < 16 {
        outer[54 + at] = tail[at];
        at += 1;
    }
    outer
};
const L2: [u8; 14] = [2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 8, 8, 0];

const MIRROR: [Action<'static>; 2] = [Action::RawEncap(&OUTER), Action::RepresentedPort(Some(2))];

type Rule = (u32, u32, &'static [Layer], Vec<Action<'static>>);

fn copy(dst: Field, src: Field, width: u32) -> Action<'static> {
    let place = |field| FieldRef { field, level: 0, offset: 0 };
    Action::ModifyField {
        op: ModifyOp::Set,
        dst: place(dst),
        src: Some(FieldSource::Field(place(src))),
        width,
    }
}

/// Group, priority, headers, actions. From group 0 each kind of packet goes its way through the others.
fn rules() -> Vec<Rule> {
    use Layer::{Eth, Geneve, Gre, GreKey, Icmp, Icmp6, Ipv4, Ipv6, Tcp, Udp, Vlan, Vxlan};
    let (jump, to) = (|group| Action::Jump(Some(group)), |port| Action::RepresentedPort(Some(port)));
    let sample = Action::Sample { ratio: 1, actions: &MIRROR };
    vec![
        (
            0,
            0,
            &[Eth, Ipv4, Udp, Vxlan, Eth, Ipv4],
            vec![Action::RawDecap(&[0; 50]), Action::RawEncap(&L2), jump(1)],
        ),
        (0, 0, &[Eth, Ipv6, Udp, Vxlan], vec![Action::VxlanDecap, Action::Count, jump(1)]),
        (0, 1, &[Eth, Ipv4, Udp, Geneve, Eth], vec![Action::RawDecap(&[0; 50]), jump(1)]),
        (0, 1, &[Eth, Ipv4, Gre, GreKey], vec![Action::RawDecap(&[0; 42]), jump(2)]),
        (0, 2, &[Eth, Vlan], vec![Action::PopVlan, jump(1)]),
        (
            0,
            3,
            &[Eth, Ipv4, Tcp],
            vec![
                Action::SetIpv4Src([10, 9, 8, 7]),
                Action::SetIpv4Dst([1, 2, 3, 4]),
                Action::SetTpDst(8080),
                Action::DecTtl,
                Action::AddTcpSeq(-1),
                sample,
                jump(1),
            ],
        ),
        (0, 3, &[Eth, Ipv4, Udp], vec![Action::SetIpv4Dst([1, 2, 3, 4]), Action::SetTpSrc(1), jump(2)]),
        (
            0,
            3,
            &[Eth, Ipv6, Tcp],
            vec![Action::SetIpv6Src([7; 16]), Action::SetTpSrc(9), Action::DecTtl, jump(2)],
        ),
        (0, 3, &[Eth, Ipv6, Udp], vec![Action::SetIpv6Dst([7; 16]), Action::SetTtl(3), jump(3)]),
        (0, 3, &[Eth, Ipv4, Icmp], vec![Action::SetIpv4Src([9; 4]), jump(3)]),
        (0, 3, &[Eth, Ipv6, Icmp6], vec![Action::DecTtl, jump(3)]),
        (0, 4, &[Eth], vec![Action::SetTag { index: 0, data: 3, mask: 3 }, jump(1)]),
        (
            1,
            0,
            &[Eth, Ipv4],
            vec![
                copy(Field::Ipv4Src, Field::Ipv4Dst, 32),
                copy(Field::MacDst, Field::Ipv4Src, 32),
                Action::SetIpv4Dscp(4),
                jump(2),
            ],
        ),
        (1, 1, &[Eth, Ipv6], vec![Action::RawDecap(&[0; 14]), Action::RawEncap(&OUTER), jump(3)]),
        (
            1,
            2,
            &[Eth],
            vec![Action::SetMacDst([3; 6]), Action::PushVlan(0x88a8), Action::SetVlanVid(5), jump(2)],
        ),
        (2, 0, &[Eth, Vlan], vec![Action::SetVlanVid(6), Action::PushVlan(0x8100), jump(3)]),
        (2, 1, &[Eth, Ipv4], vec![Action::DecTtl, Action::VxlanEncap(&OUTER), jump(3)]),
        (2, 2, &[Eth], vec![Action::SetMacSrc([5; 6]), jump(0)]),
        (3, 0, &[Eth, Ipv6, Udp, Vxlan], vec![Action::SetTtl(9), Action::SetTpDst(1), to(1)]),
        (3, 1, &[Eth, Vlan], vec![Action::PopVlan, jump(1)]),
        (3, 2, &[Eth, Ipv6], vec![Action::SetIpv6Dscp(9), to(0)]),
    ]
}

/// A device with all these rules, for every source.
fn device() -> Eswitch {
    let roles = [(Role::Uplink(0), 0), (Role::Host(0), 1), (Role::Uplink(1), 2)];
    let vports = roles.map(|(role, port_id)| VportInfo { role, port_id }).to_vec();
    let profile = Profile::named("ideal").expect("a built-in profile");
    let mut context = profile.context(Topology::new(vports));
    context.steering = Steering::Software;
    let context = Arc::new(context);
    let mut device = Eswitch::new(Arc::clone(&context), &profile, 1);
    for port in 0..3 {
        let config = RxConfig { promiscuous: port > 0, queues: 3, ..RxConfig::default() };
        device.start(Vport(port), config).expect("starts");
    }
    for (group, priority, layers, actions) in rules() {
        let mut items: Vec<Item<'_>> = layers.iter().map(|layer| Item::Header(Header::any(*layer))).collect();
        // Packets from the wire only where the rules take tunnels off.
        let decaps = actions.iter().any(|action| matches!(action, Action::RawDecap(_) | Action::VxlanDecap));
        let port_id = if decaps && group == 0 { Some(0) } else { None };
        items.insert(0, Item::RepresentedPort { port_id, mask: u16::MAX });
        let attr = Attr { group, priority, transfer: true, ..Attr::default() };
        let made = context.prepare(&Port::new(Vport(0), true), &attr, &items, &actions);
        let made = made.and_then(|prepared| device.install(Tick(1), prepared));
        if let Err(refusal) = made {
            panic!("{layers:?} {actions:?}: {refusal:?}");
        }
    }
    device
}

#[derive(Default)]
struct Doors {
    left: usize,
    copies: usize,
    longest: usize,
}

impl Doors {
    fn take(&mut self, packet: &TestPacket) {
        self.left += 1;
        self.longest = self.longest.max(packet.data().len());
    }
}

impl Fabric<TestPacket> for Doors {
    fn transmit(&mut self, _to: Vport, packet: TestPacket) {
        self.take(&packet);
    }

    fn receive(&mut self, _at: Vport, _meta: RxMeta, packet: TestPacket) {
        self.take(&packet);
    }

    fn copy(&mut self, packet: &TestPacket) -> Option<TestPacket> {
        self.copies += 1;
        Some(packet.clone())
    }

    fn discard(&mut self, _reason: DropReason, packet: TestPacket) {
        self.take(&packet);
    }
}

/// The input: who sends, then frames, each after its length. All leave, none much longer than it came. Their
/// doors: left by a rule or a miss, dropped by reason.
pub(crate) fn forward(input: &[u8]) -> (usize, [u64; DropReason::ALL.len()]) {
    let mut device = device();
    let Some((choice, mut rest)) = input.split_first() else { return (0, [0; DropReason::ALL.len()]) };
    let mut burst: Burst<TestPacket> = Burst::new();
    while let Some((len, more)) = rest.split_first() {
        let (frame, more) = more.split_at(usize::from(*len).min(more.len()));
        rest = more;
        if burst.try_push(TestPacket::new(PortId(0), frame)).is_err() {
            break;
        }
    }
    let (number, longest) = (burst.len(), burst.iter().map(|packet| packet.data().len()).max().unwrap_or(0));
    let mut doors = Doors::default();
    device.forward(Tick(2), Vport(u16::from(choice % 3)), choice & 128 != 0, &mut burst, &mut doors);
    assert_eq!(doors.left, number + doors.copies, "every packet leaves by one door");
    // A packet's room in front.
    assert!(doors.longest <= longest + 128);
    (doors.left, device.statistics().drops)
}
