//! The tables as a person reads them.

use crate::common::queues::{Queued, SMALL, ideal};
use crate::common::{Bench, WIRE, any, ether, from, ingress, tcp4, transfer};
use eswitch::model::action::Action;
use eswitch::model::item::Layer;
use eswitch::model::switch::Eswitch;
use eswitch::model::types::{Steering, Tick};

fn rules(device: &mut Eswitch, now: Tick) -> String {
    let (mut text, mut from) = (String::new(), 0);
    while device.dump_rules(now, &mut from, 2, &mut text) {}
    text
}

#[test]
fn software_steering() {
    let mut bench = Bench::new(Steering::Software);
    let to_host = Action::RepresentedPort(Some(1));
    let age = Action::Age { timeout_s: 30, context: 1 };
    let tcp = [any(Layer::Eth), any(Layer::Ipv4), any(Layer::Tcp)];
    bench.rule(WIRE, transfer(0, 0), &[any(Layer::Eth)], &[Action::Jump(Some(1))]).unwrap();
    bench.rule(WIRE, transfer(1, 4), &tcp, &[Action::DecTtl, Action::Count, age, to_host]).unwrap();
    bench.rule(WIRE, transfer(1, 5), &[from(2), any(Layer::Eth)], &[Action::Drop]).unwrap();
    bench.rule(WIRE, ingress(0), &tcp, &[Action::Rss { queues: &[0, 0] }]).unwrap();
    let frame = ether(1, 2, 0x0800, &tcp4(([10, 0, 0, 1], 40_000), ([192, 0, 2, 80], 80), 64, 0x10, b""));
    bench.wire(WIRE, &frame);
    let mut text = String::new();
    bench.device.dump_tables(&mut text).unwrap();
    insta::assert_snapshot!("software", text + &rules(&mut bench.device, bench.now));
}

#[test]
fn hardware_steering() {
    let mut hws = Queued::new(ideal(), &SMALL);
    let table = hws.table_to_port(4, &[Action::Count]);
    let rule = hws.rule(&table, [192, 0, 2, 80], &[Action::Count, Action::RepresentedPort(Some(1))]);
    let mut text = String::new();
    hws.bench.device.dump_tables(&mut text).unwrap();
    text += &rules(&mut hws.bench.device, hws.bench.now);
    text += "-- one\n";
    hws.bench.device.dump_handle(hws.bench.now, WIRE, rule, &mut text).unwrap();
    insta::assert_snapshot!("hardware", text);
    hws.end(rule);
    assert!(hws.bench.device.dump_handle(hws.bench.now, WIRE, rule, &mut String::new()).is_err());
}
