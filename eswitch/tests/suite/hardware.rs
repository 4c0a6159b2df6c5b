//! Hardware steering as an application meets it: when rules take effect, what they take, how they end.

use crate::common::queues::{Queued, SMALL, ideal};
use crate::common::{Door, HOST, WIRE, WIRE2, ether, tcp4};
use eswitch::model::action::Action;
use eswitch::model::refusal::Errno;
use eswitch::model::switch::{ConfigureAttr, Event, PROXY, RxConfig, RxMeta};
use eswitch::model::timing::Spread;
use eswitch::model::types::{Tick, Vport};

const VIP: [u8; 4] = [192, 0, 2, 80];

fn request() -> Vec<u8> {
    ether(1, 2, 0x0800, &tcp4(([10, 0, 0, 1], 40_000), (VIP, 80), 64, 0x10, b"hello"))
}

fn to_port(port_id: u16) -> Action<'static> {
    Action::RepresentedPort(Some(port_id))
}

fn sent(to: Vport) -> Vec<Door> {
    vec![Door::Wire(to, request())]
}

fn missed(at: Vport) -> Vec<Door> {
    vec![Door::Rx(at, RxMeta { queue: 0, mark: None, meta: 0 }, request())]
}

#[test]
fn a_rule_takes_effect_late_and_goes_late() {
    let mut profile = ideal();
    profile.create_latency_ns = Spread::always(1_000);
    profile.create_completion_ns = Spread::always(500);
    profile.destroy_latency_ns = Spread::always(2_000);
    profile.destroy_completion_ns = Spread::always(700);
    let mut hws = Queued::new(profile, &SMALL);
    let table = hws.table_to_port(4, &[]);
    let rule = hws.create(&table, VIP, &[to_port(1)], true).unwrap();
    hws.pass(1_000_000);
    assert_eq!(hws.bench.wire(WIRE, &request()), missed(WIRE), "postponed");
    hws.queue.push(hws.bench.now);
    hws.pass(999);
    assert_eq!(hws.bench.wire(WIRE, &request()), missed(WIRE), "pushed, not in force");
    assert_eq!(hws.destroy(rule), Err(Errno::Busy), "before its completion");
    hws.pass(1);
    assert_eq!(hws.bench.wire(WIRE, &request()), sent(HOST));
    hws.pass(499);
    assert_eq!(hws.pull(), [], "in force, and its completion on the way");
    hws.pass(1);
    assert_eq!(hws.pull(), [(7, true)]);
    hws.destroy(rule).unwrap();
    hws.pass(1_999);
    assert_eq!(hws.bench.wire(WIRE, &request()), sent(HOST), "packets go on hitting it");
    hws.pass(1);
    assert_eq!(hws.bench.wire(WIRE, &request()), missed(WIRE));
    assert_eq!(hws.pull(), [], "gone, and not said so yet");
    assert_eq!(table.occupancy().used(), 1);
    hws.pass(700);
    assert_eq!(hws.pull(), [(8, true)]);
    assert_eq!(table.occupancy().used(), 0);
    assert_eq!(hws.destroy(rule), Err(Errno::Noent));
}

#[test]
fn rules_match_every_source_and_the_newer_of_two_wins() {
    let mut hws = Queued::new(ideal(), &SMALL);
    let table = hws.table_to_port(4, &[]);
    hws.rule(&table, VIP, &[to_port(1)]);
    assert_eq!(hws.bench.wire(WIRE, &request()), sent(HOST));
    assert_eq!(hws.bench.wire(WIRE2, &request()), sent(HOST));
    assert_eq!(hws.bench.manager(WIRE, &request()), sent(HOST), "what the application sends, too");
    let newer = hws.rule(&table, VIP, &[to_port(2)]);
    assert_eq!(hws.bench.wire(WIRE, &request()), sent(WIRE2));
    hws.end(newer);
    assert_eq!(hws.bench.wire(WIRE, &request()), sent(HOST), "the older is still there");
}

#[test]
fn an_age_takes_a_counter_of_its_own_and_is_reported_once() {
    let attr = ConfigureAttr { counters: 1, ages: 2, ..SMALL };
    let mut hws = Queued::new(ideal(), &attr);
    let age = Action::Age { timeout_s: 2, context: 77 };
    let aging = hws.table_to_port(4, &[age]);
    let counting = hws.table_to_port(4, &[Action::Count]);
    let rule = hws.rule(&aging, VIP, &[age, to_port(1)]);
    assert_eq!(hws.create(&counting, VIP, &[Action::Count, to_port(1)], false), Err(Errno::Noent));
    hws.bench.wire(WIRE, &request());
    let counted = hws.bench.device.query_count(hws.bench.now, PROXY, rule, false).unwrap();
    assert_eq!((counted.hits, counted.bytes), (1, request().len() as u64));
    let mut out = [0; 4];
    hws.pass(2 * Tick::SECOND);
    assert_eq!(hws.bench.device.aged(PROXY, None, &mut out), Ok(0));
    hws.pass(2 * Tick::SECOND);
    assert_eq!(hws.bench.device.take_events(), [Event::FlowAged(PROXY)]);
    assert_eq!(hws.bench.device.aged(PROXY, None, &mut out), Ok(1));
    assert_eq!(out[0], 77);
    hws.bench.wire(WIRE, &request());
    hws.pass(5 * Tick::SECOND);
    assert_eq!(hws.bench.device.aged(PROXY, None, &mut out), Ok(0), "reported once");
    assert!(hws.bench.device.query_age(hws.bench.now, PROXY, rule).unwrap().aged, "a hit revives nothing");
    hws.end(rule);
    hws.rule(&counting, VIP, &[Action::Count, to_port(1)]);
}

#[test]
fn an_age_of_zero_never_comes() {
    let mut hws = Queued::new(ideal(), &SMALL);
    let age = |timeout_s| Action::Age { timeout_s, context: 5 };
    let table = hws.table_to_port(4, &[age(0)]);
    hws.rule(&table, VIP, &[age(0), to_port(1)]);
    hws.pass(100 * Tick::SECOND);
    assert_eq!(hws.bench.device.aged(PROXY, None, &mut [0; 4]), Ok(0));
}

#[test]
fn a_counter_is_used_again_after_a_refresh() {
    let mut profile = ideal();
    profile.counter_refresh_ns = 500_000_000;
    let mut hws = Queued::new(profile, &ConfigureAttr { counters: 1, ..SMALL });
    let table = hws.table_to_port(4, &[Action::Count]);
    let actions = [Action::Count, to_port(1)];
    let rule = hws.rule(&table, VIP, &actions);
    assert_eq!(hws.create(&table, VIP, &actions, false), Err(Errno::Noent));
    hws.end(rule);
    assert_eq!(hws.create(&table, VIP, &actions, false), Err(Errno::Again));
    hws.pass(500_000_000);
    let rule = hws.rule(&table, VIP, &actions);
    // Indirect counters come out of the same pool.
    assert!(hws.bench.device.indirect_create(hws.bench.now, PROXY, &Action::Count).is_err());
    hws.end(rule);
    hws.pass(500_000_000);
    let shared = hws.bench.device.indirect_create(hws.bench.now, PROXY, &Action::Count).unwrap();
    assert_eq!(hws.create(&table, VIP, &actions, false), Err(Errno::Noent));
    hws.bench.device.indirect_destroy(hws.bench.now, shared).unwrap();
    let again = hws.bench.device.indirect_destroy(hws.bench.now, shared).unwrap_err();
    assert_eq!(again.errno, Errno::Inval);
    hws.pass(500_000_000);
    hws.rule(&table, VIP, &actions);
}

#[test]
fn whatever_runs_out_software_goes_on() {
    let mut profile = ideal();
    (profile.rules_max, profile.tables_max) = (3, 2);
    let mut hws = Queued::new(profile, &ConfigureAttr { ages: 0, meters: 0, size: 4, ..SMALL });
    let table = hws.table_to_port(4, &[]);
    for n in 0..3 {
        hws.rule(&table, [10, 0, 0, n], &[to_port(1)]);
    }
    let failed = hws.create(&table, VIP, &[to_port(1)], false).unwrap();
    hws.pass(1_000);
    assert_eq!(hws.pull(), [(7, false)], "the device is full: the completion says so");
    assert_eq!(hws.bench.wire(WIRE, &request()), missed(WIRE));
    assert_eq!(
        hws.create(&table, VIP, &[to_port(1)], false),
        Err(Errno::Nomem),
        "the table, by the failed one"
    );
    hws.end(failed);
    let age = Action::Age { timeout_s: 1, context: 1 };
    let aging = hws.table_to_port(4, &[age]);
    assert_eq!(hws.create(&aging, VIP, &[age, to_port(1)], false), Err(Errno::Nomem), "no age contexts");
    let third = hws.table(0, 1, &[Action::Drop], &[Action::Drop]).unwrap_err();
    assert_eq!(third.errno, Errno::Nomem, "no more tables");
    hws.bench.device.destroy_table(&aging).unwrap();
    let dropping = hws.table(0, 64, &[Action::Drop], &[Action::Drop]).unwrap();
    for n in 0..4 {
        hws.create(&dropping, [10, 0, 1, n], &[Action::Drop], true).unwrap();
    }
    let full = hws.create(&dropping, VIP, &[Action::Drop], true);
    assert_eq!(full, Err(Errno::Nomem), "the flow queue");
    assert_eq!(hws.bench.wire(WIRE, &request()), missed(WIRE));
}

#[test]
fn what_a_rule_brings_is_judged() {
    let mut hws = Queued::new(ideal(), &SMALL);
    let table = hws.table_to_port(4, &[]);
    assert_eq!(hws.create(&table, VIP, &[to_port(9)], false), Err(Errno::Inval), "a port of elsewhere");
    assert_eq!(hws.create(&table, VIP, &[Action::Drop], false), Err(Errno::Inval), "another action");
    let open = [Action::Jump(Some(0))];
    let jumping = hws.table(1, 4, &open, &open).unwrap();
    let beyond = hws.create(&jumping, VIP, &[Action::Jump(Some(u32::MAX))], false);
    assert_eq!(beyond, Err(Errno::Inval), "no such group");
    hws.rule(&jumping, VIP, &[Action::Jump(Some(2))]);
    assert_eq!(table.occupancy().used(), 0, "what is refused takes no place");
}

#[test]
fn queues_are_configured_anew_only_when_nothing_is_left() {
    let mut hws = Queued::new(ideal(), &SMALL);
    let table = hws.table_to_port(4, &[]);
    let configure = |hws: &mut Queued| {
        let Queued { bench, profile, .. } = hws;
        bench
            .device
            .configure(bench.now, PROXY, &SMALL, profile, 1)
            .map(drop)
            .map_err(|refusal| refusal.errno)
    };
    let rule = hws.create(&table, VIP, &[to_port(1)], true).unwrap();
    assert_eq!(configure(&mut hws), Err(Errno::Busy), "postponed");
    hws.queue.push(hws.bench.now);
    hws.pass(1_000);
    assert_eq!(configure(&mut hws), Err(Errno::Busy), "not pulled");
    hws.pull();
    assert_eq!(configure(&mut hws), Err(Errno::Busy), "a rule");
    hws.destroy(rule).unwrap();
    hws.pass(1_000);
    hws.pull();
    assert_eq!(configure(&mut hws), Ok(()), "although the device has not heard of the pull yet");
    assert_eq!(hws.bench.device.statistics().rules, 0);
}

#[test]
fn a_stopped_proxy_takes_all_rules_along_and_leaves_the_tables() {
    let mut hws = Queued::new(ideal(), &SMALL);
    let table = hws.table_to_port(4, &[Action::Count]);
    let actions = [Action::Count, to_port(1)];
    let rule = hws.rule(&table, VIP, &actions);
    assert_eq!(hws.bench.device.stop(hws.bench.now, PROXY).unwrap_err().errno, Errno::Busy, "not last");
    for vport in [WIRE2, HOST, PROXY] {
        hws.bench.device.stop(hws.bench.now, vport).unwrap();
        let mut from = 0;
        while hws.bench.device.flush(hws.bench.now, vport, &mut from) {}
    }
    assert_eq!(hws.bench.device.statistics().rules, 0);
    assert_eq!(hws.destroy(rule), Err(Errno::Noent), "its handle is stale");
    assert_eq!(table.occupancy().used(), 0);
    let late = hws.bench.device.start(HOST, RxConfig::default()).unwrap_err();
    assert_eq!(late.errno, Errno::Again, "the proxy comes first");
    for vport in [PROXY, HOST, WIRE2] {
        let config = RxConfig { promiscuous: true, queues: 1, ..RxConfig::default() };
        hws.bench.device.start(vport, config).unwrap();
    }
    assert_eq!(hws.bench.wire(WIRE, &request()), missed(WIRE));
    hws.rule(&table, VIP, &actions);
    assert_eq!(hws.bench.wire(WIRE, &request()), sent(HOST));
}
