//! How packets walk: default rules, jumps, priorities, ports, duplicates, crossing into a representor.

use crate::common;
use crate::common::{Bench, Door, HOST, WIRE, WIRE2, any, ether, from, ingress, tcp4, transfer};
use eswitch::model::action::Action;
use eswitch::model::item::{Header, Item, Layer};
use eswitch::model::refusal::Errno;
use eswitch::model::switch::{DropReason, RxConfig, RxMeta};
use eswitch::model::types::{Attr, Steering};

const CLIENT: ([u8; 4], u16) = ([10, 0, 0, 1], 40_000);
const VIP: ([u8; 4], u16) = ([192, 0, 2, 80], 80);
const BACKEND: ([u8; 4], u16) = ([10, 1, 0, 7], 8080);

fn request() -> Vec<u8> {
    ether(1, 2, 0x0800, &tcp4(CLIENT, VIP, 64, 0x10, b"hello"))
}

fn to_port(port_id: u16) -> Action<'static> {
    Action::RepresentedPort(Some(port_id))
}

fn received(at: eswitch::model::types::Vport, frame: &[u8]) -> Vec<Door> {
    vec![Door::Rx(at, RxMeta { queue: 0, mark: None, meta: 0 }, frame.to_vec())]
}

/// The bytes that a 5-tuple's destination is matched by.
fn destination_items<'a>(
    ip: &'a [u8; 20],
    tcp: &'a [u8; 20],
    masks: &'a ([u8; 20], [u8; 20]),
) -> [Item<'a>; 3] {
    [
        any(Layer::Eth),
        Item::Header(Header::masked(Layer::Ipv4, ip, &masks.0)),
        Item::Header(Header::masked(Layer::Tcp, tcp, &masks.1)),
    ]
}

/// What is matched of an IPv4 and a TCP header, and the masks.
type Masked = ([u8; 20], [u8; 20], ([u8; 20], [u8; 20]));

fn vip_headers() -> Masked {
    let (mut ip, mut tcp, mut masks) = ([0; 20], [0; 20], ([0; 20], [0; 20]));
    ip[16..].copy_from_slice(&VIP.0);
    tcp[2..4].copy_from_slice(&VIP.1.to_be_bytes());
    masks.0[16..].fill(0xff);
    masks.1[2..4].fill(0xff);
    (ip, tcp, masks)
}

#[test]
fn without_rules_everything_reaches_its_representor() {
    let mut bench = Bench::new(Steering::Software);
    let frame = request();
    assert_eq!(bench.wire(WIRE, &frame), received(WIRE, &frame));
    assert_eq!(bench.wire(HOST, &frame), received(HOST, &frame));
    // What the application sends on a representor leaves by the port it represents.
    assert_eq!(bench.manager(HOST, &frame), vec![Door::Wire(HOST, frame.clone())]);
    assert_eq!(bench.manager(WIRE, &frame), vec![Door::Wire(WIRE, frame)]);
}

#[test]
fn a_translation_leaves_by_the_other_wire_with_right_checksums() {
    let mut bench = Bench::new(Steering::Software);
    let (ip, tcp, masks) = vip_headers();
    let actions = [
        Action::SetMacDst([2, 0, 0, 0, 0, 9]),
        Action::SetIpv4Dst(BACKEND.0),
        Action::SetTpDst(BACKEND.1),
        Action::DecTtl,
        Action::Count,
        to_port(1),
    ];
    let rule = bench.rule(WIRE, transfer(0, 0), &destination_items(&ip, &tcp, &masks), &actions).unwrap();
    let expected = ether(9, 2, 0x0800, &tcp4(CLIENT, BACKEND, 63, 0x10, b"hello"));
    assert_eq!(bench.wire(WIRE, &request()), vec![Door::Wire(HOST, expected)]);
    bench.now = bench.now.after(3_000_000_000);
    let count = bench.device.query_count(bench.now, WIRE, rule, false).unwrap();
    assert_eq!((count.hits, count.bytes), (1, request().len() as u64));
    bench.device.destroy(bench.now, WIRE, rule).unwrap();
    assert_eq!(bench.wire(WIRE, &request()), received(WIRE, &request()), "gone");
    assert!(bench.device.destroy(bench.now, WIRE, rule).is_err(), "a stale handle is recognised");
}

#[test]
fn sws_restricts_a_rule_to_the_port_it_is_made_on() {
    let mut bench = Bench::new(Steering::Software);
    bench.rule(WIRE, transfer(0, 0), &[any(Layer::Eth)], &[to_port(1)]).unwrap();
    let frame = request();
    assert_eq!(bench.wire(WIRE, &frame), vec![Door::Wire(HOST, frame.clone())]);
    assert_eq!(bench.wire(HOST, &frame), received(HOST, &frame), "another source");
    bench.rule(WIRE, transfer(0, 1), &[from(1), any(Layer::Eth)], &[to_port(0)]).unwrap();
    assert_eq!(bench.wire(HOST, &frame), vec![Door::Wire(WIRE, frame)]);
}

#[test]
fn a_wire_does_not_get_back_what_came_from_it() {
    let mut bench = Bench::new(Steering::Software);
    let frame = request();
    for port in [0, 1] {
        bench.rule(WIRE, transfer(0, 0), &[from(port), any(Layer::Eth)], &[to_port(0)]).unwrap();
    }
    assert_eq!(bench.wire(WIRE, &frame), vec![Door::Drop(DropReason::WireToSameWire)]);
    assert_eq!(bench.wire(HOST, &frame), vec![Door::Wire(WIRE, frame.clone())]);
    assert_eq!(bench.device.statistics().drops(DropReason::WireToSameWire), 1);
    // Another uplink is another wire; newer firmware forwards to the same one, too.
    bench.rule(WIRE2, transfer(0, 0), &[any(Layer::Eth)], &[to_port(0)]).unwrap();
    assert_eq!(bench.wire(WIRE2, &frame), vec![Door::Wire(WIRE, frame.clone())]);
    let mut newer = Bench::with(Steering::Software, |context| context.options.wire_to_wire = true);
    newer.rule(WIRE, transfer(0, 0), &[any(Layer::Eth)], &[to_port(0)]).unwrap();
    assert_eq!(newer.wire(WIRE, &frame), vec![Door::Wire(WIRE, frame)]);
}

#[test]
fn jumps_follow_groups_and_a_miss_anywhere_is_software() {
    let mut bench = Bench::new(Steering::Software);
    let frame = request();
    bench.rule(WIRE, transfer(0, 0), &[any(Layer::Eth)], &[Action::Jump(Some(5))]).unwrap();
    assert_eq!(bench.wire(WIRE, &frame), received(WIRE, &frame), "group 5 is empty");
    let tag = Action::SetTag { index: 0, data: 7, mask: u32::MAX };
    bench
        .rule(WIRE, transfer(5, 0), &[any(Layer::Eth), any(Layer::Ipv4)], &[tag, Action::Jump(Some(6))])
        .unwrap();
    let tagged = Item::Tag { index: 0, data: 7, mask: u32::MAX };
    bench.rule(WIRE, transfer(6, 0), &[tagged, any(Layer::Eth)], &[to_port(1)]).unwrap();
    assert_eq!(bench.wire(WIRE, &frame), vec![Door::Wire(HOST, frame.clone())]);
    let arp = ether(0xff, 2, 0x0806, &[0; 28]);
    assert_eq!(bench.wire(WIRE, &arp), received(WIRE, &arp), "not IPv4: a miss in group 5");
}

#[test]
fn a_loop_ends() {
    let mut bench = Bench::new(Steering::Software);
    bench.rule(WIRE, transfer(0, 0), &[any(Layer::Eth)], &[Action::Jump(Some(1))]).unwrap();
    bench.rule(WIRE, transfer(1, 0), &[any(Layer::Eth)], &[Action::Jump(Some(2))]).unwrap();
    bench.rule(WIRE, transfer(2, 0), &[any(Layer::Eth)], &[Action::Jump(Some(1))]).unwrap();
    assert_eq!(bench.wire(WIRE, &request()), vec![Door::Drop(DropReason::Loop)]);
}

#[test]
fn the_lower_priority_number_wins_and_drop_drops() {
    let mut bench = Bench::new(Steering::Software);
    let frame = request();
    let all = [any(Layer::Eth), any(Layer::Ipv4), any(Layer::Tcp)];
    bench.rule(WIRE, transfer(0, 3), &all, &[to_port(1)]).unwrap();
    let (ip, tcp, masks) = vip_headers();
    let drop =
        bench.rule(WIRE, transfer(0, 2), &destination_items(&ip, &tcp, &masks), &[Action::Drop]).unwrap();
    assert_eq!(bench.wire(WIRE, &frame), vec![Door::Drop(DropReason::Rule)]);
    bench.device.destroy(bench.now, WIRE, drop).unwrap();
    assert_eq!(bench.wire(WIRE, &frame), vec![Door::Wire(HOST, frame)]);
}

#[test]
fn of_two_equal_rules_sws_keeps_to_the_older() {
    let mut bench = Bench::new(Steering::Software);
    let frame = request();
    let old = bench.rule(WIRE, transfer(0, 0), &[any(Layer::Eth)], &[to_port(1)]).unwrap();
    bench.rule(WIRE, transfer(0, 0), &[any(Layer::Eth)], &[Action::Drop]).unwrap();
    assert_eq!(bench.wire(WIRE, &frame), vec![Door::Wire(HOST, frame.clone())]);
    bench.device.destroy(bench.now, WIRE, old).unwrap();
    assert_eq!(bench.wire(WIRE, &frame), vec![Door::Drop(DropReason::Rule)]);
}

#[test]
fn a_representor_has_rules_of_its_own() {
    let mut bench = Bench::with(Steering::Software, |context| context.options.xmeta = 1);
    let frame = request();
    let tcp = [any(Layer::Eth), any(Layer::Ipv4), any(Layer::Tcp)];
    bench.rule(WIRE, ingress(0), &tcp, &[Action::Mark(Some(42)), Action::Queue(Some(0))]).unwrap();
    let marked = RxMeta { queue: 0, mark: Some(42), meta: 0 };
    assert_eq!(bench.wire(WIRE, &frame), vec![Door::Rx(WIRE, marked, frame.clone())]);
    assert_eq!(bench.wire(HOST, &frame), received(HOST, &frame), "another representor's");
    bench.rule(HOST, ingress(0), &tcp, &[Action::Drop]).unwrap();
    assert_eq!(bench.wire(HOST, &frame), vec![Door::Drop(DropReason::Rule)]);
}

#[test]
fn a_representors_default_rules_are_in_its_first_group() {
    let mut bench = Bench::new(Steering::Software);
    let frame = request();
    let tcp = [any(Layer::Eth), any(Layer::Ipv4), any(Layer::Tcp)];
    bench.rule(WIRE, ingress(0), &tcp, &[Action::Jump(Some(1))]).unwrap();
    assert_eq!(bench.wire(WIRE, &frame), vec![Door::Drop(DropReason::RxFilter)], "nothing in group 1");
    let udp = ether(1, 2, 0x0800, &common::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64, 17, &[0; 8]));
    assert_eq!(bench.wire(WIRE, &udp), received(WIRE, &udp), "still in group 0");
    bench.rule(WIRE, ingress(1), &tcp, &[Action::Queue(Some(0))]).unwrap();
    assert_eq!(bench.wire(WIRE, &frame), received(WIRE, &frame));
}

#[test]
fn a_hairpin_queue_sends_on_as_its_port_does() {
    let mut bench = Bench::new(Steering::Software);
    let frame = request();
    let hairpin = vec![(1, HOST), (2, eswitch::model::types::Vport(9))];
    let config = RxConfig { promiscuous: true, queues: 1, hairpin, ..RxConfig::default() };
    bench.device.configure_rx(WIRE, config).unwrap();
    let tcp = [any(Layer::Eth), any(Layer::Ipv4), any(Layer::Tcp)];
    let first = bench.rule(WIRE, ingress(0), &tcp, &[Action::Queue(Some(1))]).unwrap();
    assert_eq!(bench.wire(WIRE, &frame), vec![Door::Wire(HOST, frame.clone())]);
    assert_eq!(bench.device.statistics().vports[1].hairpin_packets, 1);
    bench.device.destroy(bench.now, WIRE, first).unwrap();
    bench.rule(WIRE, ingress(0), &tcp, &[Action::Queue(Some(2))]).unwrap();
    assert_eq!(bench.wire(WIRE, &frame), vec![Door::Drop(DropReason::RxStopped)], "its peer does not exist");
}

#[test]
fn an_isolated_representor_gets_what_its_rules_name() {
    let mut bench = Bench::new(Steering::Software);
    let frame = request();
    let config = RxConfig { promiscuous: true, isolated: true, queues: 1, ..RxConfig::default() };
    bench.device.configure_rx(WIRE, config).unwrap();
    assert_eq!(bench.wire(WIRE, &frame), vec![Door::Drop(DropReason::RxFilter)]);
    let tcp = [any(Layer::Eth), any(Layer::Ipv4), any(Layer::Tcp)];
    bench.rule(WIRE, ingress(0), &tcp, &[Action::Queue(Some(0))]).unwrap();
    assert_eq!(bench.wire(WIRE, &frame), received(WIRE, &frame));
}

#[test]
fn a_mirror_sends_a_copy_and_the_packet_goes_on() {
    let mut bench = Bench::new(Steering::Software);
    let frame = request();
    let to_second = [to_port(2)];
    let actions = [Action::Sample { ratio: 1, actions: &to_second }, to_port(1)];
    bench.rule(WIRE, transfer(0, 0), &[any(Layer::Eth)], &actions).unwrap();
    assert_eq!(bench.wire(WIRE, &frame), vec![Door::Wire(WIRE2, frame.clone()), Door::Wire(HOST, frame)]);
}

#[test]
fn what_the_application_sends_walks_the_same_rules() {
    let mut bench = Bench::new(Steering::Software);
    let frame = request();
    let sent_by_manager = Item::PortRepresentor { port_id: Some(0), mask: u16::MAX };
    let attr = Attr { transfer: true, ..Attr::default() };
    bench.rule(WIRE, attr, &[sent_by_manager, any(Layer::Eth)], &[Action::Drop]).unwrap();
    assert_eq!(bench.manager(HOST, &frame), vec![Door::Drop(DropReason::Rule)]);
    assert_eq!(bench.wire(WIRE, &frame), received(WIRE, &frame), "from the wire: not the manager");
}

#[test]
fn every_packet_of_a_burst_leaves_by_one_door() {
    let mut bench = Bench::new(Steering::Software);
    let (ip, tcp, masks) = vip_headers();
    bench
        .rule(WIRE, transfer(0, 0), &destination_items(&ip, &tcp, &masks), &[Action::Jump(Some(1))])
        .unwrap();
    bench.rule(WIRE, transfer(1, 0), &[any(Layer::Eth)], &[to_port(1)]).unwrap();
    bench.rule(WIRE, transfer(0, 9), &[any(Layer::Eth), any(Layer::Ipv6)], &[Action::Drop]).unwrap();
    let kinds = [
        request(),
        ether(1, 2, 0x0806, &[0; 28]),
        ether(1, 2, 0x86dd, &[&[0x60, 0, 0, 0, 0, 0, 59, 64][..], &[0; 32]].concat()),
        vec![1, 2, 3],
        Vec::new(),
    ];
    let frames: Vec<&[u8]> = (0..32).map(|n| kinds[n % kinds.len()].as_slice()).collect();
    let doors = bench.send(WIRE, false, &frames);
    assert_eq!(doors.len(), 32);
    let wires = doors.iter().filter(|door| matches!(door, Door::Wire(HOST, _))).count();
    let drops = doors.iter().filter(|door| matches!(door, Door::Drop(DropReason::Rule))).count();
    let misses = doors.iter().filter(|door| matches!(door, Door::Rx(WIRE, ..))).count();
    // A frame too short for an address is nobody's.
    let runts = doors.iter().filter(|door| matches!(door, Door::Drop(DropReason::RxFilter))).count();
    assert_eq!((wires, drops, misses, runts), (7, 6, 7, 12));
}

#[test]
fn a_rule_cannot_use_an_indirect_action_that_is_gone() {
    let mut bench = Bench::new(Steering::Software);
    let now = bench.now;
    let objects = [Action::Count, Action::Age { timeout_s: 9, context: 1 }, Action::Rss { queues: &[0] }];
    for object in objects {
        let shared = bench.device.indirect_create(now, WIRE, &object).unwrap();
        bench.device.indirect_destroy(now, shared).unwrap();
        let rss = matches!(object, Action::Rss { .. });
        let attr = if rss { ingress(1) } else { transfer(1, 0) };
        let mut actions = vec![Action::Indirect(Some(shared))];
        actions.extend((!rss).then_some(to_port(1)));
        let refused = bench.rule(WIRE, attr, &[any(Layer::Eth)], &actions);
        assert_eq!(refused.unwrap_err().errno, Errno::Inval, "{object:?}");
        // Nor does the attempt take from the next of that name.
        assert_eq!(bench.device.indirect_create(now, WIRE, &object).unwrap(), shared);
        assert!(bench.device.indirect_destroy(now, shared).is_ok());
    }
    assert_eq!(bench.device.objects_in_use(), [0; 3]);
}
