//! Every fault takes effect, under both kinds of steering where there are both, and the packets go on.

use crate::common;
use crate::common::queues::{Queued, SMALL, ideal};
use crate::common::{Bench, Door, HOST, WIRE, any, ether, tcp4, transfer};
use eswitch::model::action::{Action, Shared};
use eswitch::model::faults::Faults;
use eswitch::model::item::Layer;
use eswitch::model::profile::Profile;
use eswitch::model::refusal::{Errno, Refusal};
use eswitch::model::switch::{ConfigureAttr, DropReason, Eswitch, Event, PROXY, RxConfig, RxMeta};
use eswitch::model::timing::Spread;
use eswitch::model::types::{RuleHandle, Steering, Tick, Topology, Vport};

const VIP: [u8; 4] = [192, 0, 2, 80];

fn request() -> Vec<u8> {
    ether(1, 2, 0x0800, &tcp4(([10, 0, 0, 1], 40_000), (VIP, 80), 64, 0x10, b"hello"))
}

fn to_port(port_id: u16) -> Action<'static> {
    Action::RepresentedPort(Some(port_id))
}

fn missed(at: Vport) -> Vec<Door> {
    vec![Door::Rx(at, RxMeta { queue: 0, mark: None, meta: 0 }, request())]
}

fn faults(text: &str) -> Faults {
    Faults::parse(text).expect("a good list")
}

/// A synchronous rule for everything from the wire.
fn create(bench: &mut Bench, actions: &[Action<'_>]) -> Result<RuleHandle, Errno> {
    bench.rule(WIRE, transfer(0, 0), &[any(Layer::Eth)], actions).map_err(|refusal| refusal.errno)
}

/// A synchronous bench whose device is of this profile.
fn synchronous(profile: &Profile) -> Bench {
    let mut bench = Bench::new(Steering::Software);
    let mut context = profile.context(Topology::new(common::vports()));
    context.steering = Steering::Software;
    bench.device = Eswitch::new(std::sync::Arc::new(context), profile, 1);
    for vport in [WIRE, HOST] {
        let config = RxConfig { promiscuous: true, queues: 1, ..RxConfig::default() };
        bench.device.start(vport, config).expect("starts");
    }
    bench
}

#[test]
fn refuse() {
    let mut bench = Bench::new(Steering::Software);
    bench.device.set_faults(bench.now, faults("refuse=1"));
    assert_eq!(create(&mut bench, &[to_port(1)]), Err(Errno::Nomem));
    assert_eq!(bench.wire(WIRE, &request()), missed(WIRE));
    bench.device.set_faults(bench.now, faults(""));
    create(&mut bench, &[to_port(1)]).unwrap();

    let mut hws = Queued::new(ideal(), &SMALL);
    let table = hws.table_to_port(4, &[]);
    hws.bench.device.set_faults(hws.bench.now, faults("refuse=1"));
    hws.pass(0);
    assert_eq!(hws.create(&table, VIP, &[to_port(1)], false), Err(Errno::Nomem));
    hws.bench.device.set_faults(hws.bench.now, faults(""));
    hws.pass(0);
    hws.rule(&table, VIP, &[to_port(1)]);
}

#[test]
fn fail_on_completion() {
    let mut hws = Queued::new(ideal(), &SMALL);
    let table = hws.table_to_port(1, &[]);
    hws.bench.device.set_faults(hws.bench.now, faults("fail=1"));
    let rule = hws.create(&table, VIP, &[to_port(1)], false).unwrap();
    hws.pass(1_000);
    assert_eq!(hws.pull(), [(7, false)]);
    assert_eq!(hws.bench.wire(WIRE, &request()), missed(WIRE));
    hws.bench.device.set_faults(hws.bench.now, faults(""));
    assert_eq!(hws.create(&table, VIP, &[to_port(1)], false), Err(Errno::Nomem), "it holds its place");
    hws.end(rule);
    hws.rule(&table, VIP, &[to_port(1)]);
}

#[test]
fn delay() {
    let mut bench = Bench::new(Steering::Software);
    bench.device.set_faults(bench.now, faults("delay_us=500"));
    assert_eq!((bench.device.create_cost(), bench.device.destroy_cost()), (500_000, 500_000));

    let mut hws = Queued::new(ideal(), &SMALL);
    let table = hws.table_to_port(4, &[]);
    hws.bench.device.set_faults(hws.bench.now, faults("delay_us=500"));
    hws.create(&table, VIP, &[to_port(1)], false).unwrap();
    hws.pass(499_999);
    assert_eq!(hws.bench.wire(WIRE, &request()), missed(WIRE));
    assert_eq!(hws.pull(), []);
    hws.pass(1);
    assert_eq!(hws.bench.wire(WIRE, &request()), vec![Door::Wire(HOST, request())]);
    assert_eq!(hws.pull(), [(7, true)]);
}

#[test]
fn reorder() {
    let mut profile = ideal();
    profile.create_completion_ns = Spread::always(1_000);
    let mut hws = Queued::new(profile, &SMALL);
    let table = hws.table_to_port(4, &[]);
    hws.bench.device.set_faults(hws.bench.now, faults("reorder=1"));
    let first = hws.rule(&table, [10, 0, 0, 1], &[to_port(1)]);
    hws.destroy(first).unwrap();
    hws.create(&table, [10, 0, 0, 2], &[to_port(1)], false).unwrap();
    hws.pass(1_000);
    assert_eq!(hws.pull(), [(7, true), (8, true)], "the later one first");
    assert_eq!(table.occupancy().used(), 1);
}

#[test]
fn lose_completions() {
    let mut hws = Queued::new(ideal(), &SMALL);
    let table = hws.table_to_port(4, &[]);
    hws.bench.device.set_faults(hws.bench.now, faults("lose_completions=1"));
    let rule = hws.create(&table, VIP, &[to_port(1)], false).unwrap();
    hws.pass(Tick::SECOND);
    assert_eq!(hws.pull(), []);
    assert_eq!(hws.destroy(rule), Err(Errno::Busy));
    assert_eq!(hws.bench.wire(WIRE, &request()), vec![Door::Wire(HOST, request())]);
}

#[test]
fn lose_counters() {
    for profile in ["cx6dx", "bf3-hws"] {
        let mut bench = synchronous(&Profile::named(profile).unwrap());
        let rule = create(&mut bench, &[Action::Count, to_port(1)]).unwrap();
        bench.device.set_faults(bench.now, faults("lose_counters=1"));
        bench.wire(WIRE, &request());
        bench.now = bench.now.after(5 * Tick::SECOND);
        let hits = |bench: &mut Bench| {
            bench.device.query_count(bench.now, WIRE, rule, false).expect("it counts").hits
        };
        // The query is the first to notice that time has passed.
        assert_eq!(hits(&mut bench), 0, "{profile}");
        bench.device.set_faults(bench.now, faults(""));
        bench.now = bench.now.after(Tick::SECOND);
        assert_eq!(hits(&mut bench), 1, "{profile}: shown late");
    }
}

#[test]
fn age_early() {
    let age = Action::Age { timeout_s: 1_000, context: 5 };
    let mut bench = synchronous(&Profile::named("cx6dx").unwrap());
    create(&mut bench, &[age, to_port(1)]).unwrap();
    let mut hws = Queued::new(ideal(), &SMALL);
    let table = hws.table_to_port(4, &[age]);
    hws.rule(&table, VIP, &[age, to_port(1)]);
    for device in [&mut bench.device, &mut hws.bench.device] {
        let mut out = [0; 2];
        while device.advance(Tick(10 * Tick::SECOND)) {}
        assert_eq!(device.aged(PROXY, None, &mut out), Ok(0));
        device.set_faults(Tick(10 * Tick::SECOND), faults("age_early=1"));
        while device.advance(Tick(12 * Tick::SECOND)) {}
        assert_eq!(device.take_events(), [Event::FlowAged(PROXY)]);
        assert_eq!((device.aged(PROXY, None, &mut out), out[0]), (Ok(1), 5));
    }
}

#[test]
fn miss() {
    let mut bench = Bench::new(Steering::Software);
    create(&mut bench, &[to_port(1)]).unwrap();
    bench.device.set_faults(bench.now, faults("miss=1"));
    assert_eq!(bench.wire(WIRE, &request()), missed(WIRE));
    bench.device.set_faults(bench.now, faults("miss=0.5"));
    let hits = (0..1000).filter(|_| bench.wire(WIRE, &request()) != missed(WIRE)).count();
    assert!((400..600).contains(&hits), "{hits}");
    bench.device.set_faults(bench.now, faults(""));
    assert_eq!(bench.wire(WIRE, &request()), vec![Door::Wire(HOST, request())]);
}

#[test]
fn fill_up() {
    let age = Action::Age { timeout_s: 9, context: 5 };
    let mut bench = synchronous(&Profile::named("cx6dx").unwrap());
    create(&mut bench, &[Action::Count, age, to_port(1)]).unwrap();
    bench.device.set_faults(bench.now, faults("full_at=1"));
    assert_eq!(create(&mut bench, &[to_port(1)]), Err(Errno::Nomem));
    bench.device.set_faults(bench.now, faults("counters_at=1,ages_at=1"));
    assert_eq!(create(&mut bench, &[Action::Count, to_port(1)]), Err(Errno::Again));
    assert_eq!(create(&mut bench, &[age, to_port(1)]), Err(Errno::Nomem));
    create(&mut bench, &[to_port(1)]).unwrap();
    assert_eq!(bench.device.statistics().rules, 2, "what failed has left nothing");

    let mut hws = Queued::new(ideal(), &SMALL);
    let aging = [age];
    let tables = [&[][..], &[Action::Count], &aging].map(|before| (hws.table_to_port(4, before), before));
    for (list, table) in [("full_at=0", 0), ("counters_at=0", 1), ("ages_at=0", 2)] {
        hws.bench.device.set_faults(hws.bench.now, faults(list));
        let (table, before) = &tables[table];
        let rule = hws.create(table, VIP, &[before, &[to_port(1)][..]].concat(), false).unwrap();
        hws.pass(1_000);
        assert_eq!(hws.pull(), [(7, false)], "{list}");
        assert_eq!(hws.bench.wire(WIRE, &request()), missed(WIRE));
        hws.bench.device.set_faults(hws.bench.now, faults(""));
        hws.end(rule);
    }
    hws.bench.device.set_faults(hws.bench.now, faults("counters_at=0,ages_at=0"));
    // Counters have been freed since, so there may be one later.
    for (action, errno) in [(Action::Count, Errno::Again), (age, Errno::Nomem)] {
        let refused = hws.bench.device.indirect_create(hws.bench.now, PROXY, &action).unwrap_err();
        assert_eq!(refused.errno, errno, "indirect");
    }
    hws.bench.device.set_faults(hws.bench.now, faults(""));
    for (table, before) in &tables {
        hws.rule(table, VIP, &[before, &[to_port(1)][..]].concat());
    }
}

#[test]
fn stop_the_port() {
    let mut bench = Bench::new(Steering::Software);
    create(&mut bench, &[to_port(1)]).unwrap();
    bench.device.set_faults(bench.now, faults("stop_port=1"));
    assert_eq!(bench.device.take_events(), [Event::LinkDown(HOST)]);
    let lost = vec![Door::Drop(DropReason::Wire)];
    assert_eq!(bench.wire(HOST, &request()), lost);
    assert_eq!(bench.wire(WIRE, &request()), lost, "a rule sends it there");
    assert_eq!(bench.manager(HOST, &request()), lost, "its default rule does");
    assert_eq!(bench.manager(WIRE, &request()), vec![Door::Wire(WIRE, request())], "others are well");
    bench.device.stop(bench.now, HOST).unwrap();
    let config = RxConfig { promiscuous: true, queues: 1, ..RxConfig::default() };
    bench.device.start(HOST, config).unwrap();
    assert_eq!(bench.wire(WIRE, &request()), vec![Door::Wire(HOST, request())]);
    // There is no such port: nothing happens.
    bench.device.set_faults(bench.now, faults("stop_port=99"));
    assert_eq!(bench.device.take_events(), []);
}

#[test]
fn reset() {
    let age = Action::Age { timeout_s: 9, context: 5 };
    let mut bench = Bench::new(Steering::Software);
    let rule = create(&mut bench, &[Action::Count, age, to_port(1)]).unwrap();
    let device = &mut bench.device;
    let shared = [Action::Count, age].map(|action| device.indirect_create(bench.now, WIRE, &action).unwrap());
    let [counter, _] = shared;
    let with = [Action::Indirect(Some(counter)), to_port(1)];
    bench.rule(HOST, transfer(0, 0), &[any(Layer::Eth)], &with).unwrap();
    bench.device.set_faults(bench.now, faults("reset"));
    assert!(bench.device.faults().is_clear(), "it happens once");
    assert_eq!(bench.device.objects_in_use(), [0; 3]);
    assert_eq!(bench.device.statistics().rules, 0);
    assert_eq!(bench.wire(WIRE, &request()), missed(WIRE));
    let errno = |done: Result<(), Refusal>| done.map_err(|refusal| refusal.errno);
    assert_eq!(errno(bench.device.destroy(bench.now, WIRE, rule)), Err(Errno::Noent));
    for shared in shared {
        assert_eq!(errno(bench.device.indirect_destroy(bench.now, shared)), Err(Errno::Inval));
    }
    let again = create(&mut bench, &[Action::Count, to_port(1)]).unwrap();
    assert_ne!(again, rule, "a handle of another generation");
    assert_eq!(bench.wire(WIRE, &request()), vec![Door::Wire(HOST, request())]);
}

#[test]
fn reset_of_flow_queues() {
    let mut profile = ideal();
    profile.create_latency_ns = Spread::always(1_000);
    let mut hws = Queued::new(profile, &SMALL);
    let table = hws.table_to_port(4, &[Action::Count]);
    let actions = [Action::Count, to_port(1)];
    let rule = hws.rule(&table, VIP, &actions);
    let shared = hws.bench.device.indirect_create(hws.bench.now, PROXY, &Action::Count).unwrap();
    let under_way = hws.create(&table, [10, 0, 0, 1], &actions, false).unwrap();
    let before = hws.queue.credits();
    hws.bench.device.set_faults(hws.bench.now, faults("reset"));
    assert_eq!(hws.bench.wire(WIRE, &request()), missed(WIRE));
    hws.pass(Tick::SECOND);
    assert_eq!(hws.pull(), [], "what was under way never completes");
    for stale in [rule, under_way] {
        assert_eq!(hws.destroy(stale), Err(Errno::Noent));
        assert!(hws.bench.device.query_count(hws.bench.now, PROXY, stale, false).is_err());
    }
    let Shared::Counter(counter) = shared else { panic!("a counter") };
    assert!(hws.bench.device.indirect_count(hws.bench.now, counter, false).is_err());
    assert_eq!(table.occupancy().used(), 0, "the table is there, and empty");
    hws.pass(Tick::SECOND);
    assert_eq!((before[0], hws.queue.credits()[0]), (13, 16), "all counters can be had again");
    for last in 1..=4 {
        hws.rule(&table, [192, 0, 2, 76 + last], &actions);
    }
    assert_eq!(hws.bench.wire(WIRE, &request()), vec![Door::Wire(HOST, request())]);
}

#[test]
fn hang() {
    let mut bench = Bench::new(Steering::Software);
    let rule = create(&mut bench, &[Action::Count, to_port(1)]).unwrap();
    bench.device.set_faults(bench.now, faults("hang_ms=2"));
    assert!(bench.device.faults().is_clear(), "it happens once");
    let destroyed =
        |bench: &mut Bench| bench.device.destroy(bench.now, WIRE, rule).map_err(|refusal| refusal.errno);
    assert_eq!(create(&mut bench, &[to_port(1)]), Err(Errno::Timedout));
    assert_eq!(destroyed(&mut bench), Err(Errno::Timedout));
    assert_eq!(bench.wire(WIRE, &request()), vec![Door::Wire(HOST, request())], "packets are forwarded");
    bench.now = bench.now.after(2_000_000);
    assert_eq!(destroyed(&mut bench), Ok(()));

    let mut hws = Queued::new(ideal(), &SMALL);
    let table = hws.table_to_port(4, &[]);
    hws.create(&table, [10, 0, 0, 1], &[to_port(1)], false).unwrap();
    hws.bench.device.set_faults(hws.bench.now, faults("hang_ms=2"));
    hws.create(&table, VIP, &[to_port(1)], false).unwrap();
    hws.pass(1_999_999);
    assert_eq!(hws.pull(), []);
    assert_eq!(hws.bench.wire(WIRE, &request()), missed(WIRE));
    hws.pass(1);
    assert_eq!(hws.pull(), [(7, true), (7, true)]);
    assert_eq!(hws.bench.wire(WIRE, &request()), vec![Door::Wire(HOST, request())]);
}

/// `rte_flow_get_aged_flows` of mlx5 answers with more than it has written.
#[test]
fn the_overlong_answer_is_the_profiles() {
    for (profile, answer) in [("cx6dx", 3), ("ideal", 2)] {
        let mut bench = synchronous(&Profile::named(profile).unwrap());
        let age = Action::Age { timeout_s: 1, context: 5 };
        create(&mut bench, &[age, to_port(1)]).unwrap();
        create(&mut bench, &[age, to_port(1)]).unwrap();
        create(&mut bench, &[Action::Count, age, to_port(1)]).unwrap();
        while bench.device.advance(bench.now.after(9 * Tick::SECOND)) {}
        assert_eq!(bench.device.aged(WIRE, None, &mut [0; 2]), Ok(answer), "{profile}");
    }
}

#[test]
fn no_call_works_on_for_ever() {
    let mut bench = Bench::new(Steering::Software);
    for _ in 0..10_000 {
        create(&mut bench, &[to_port(1)]).unwrap();
    }
    bench.rule(HOST, transfer(0, 0), &[any(Layer::Eth)], &[to_port(0)]).unwrap();
    let (mut from, mut calls) = (0, 1);
    while bench.device.flush(bench.now, HOST, &mut from) {
        calls += 1;
    }
    assert!(calls > 2, "looking at 10,000 rules of another port takes several calls: {calls}");
    assert_eq!(bench.device.statistics().rules, 10_000);
    let (mut from, mut calls) = (0, 1);
    while bench.device.flush(bench.now, WIRE, &mut from) {
        calls += 1;
    }
    assert!(calls >= 10_000 / 256, "{calls}");
    assert_eq!(bench.device.statistics().rules, 0);

    // All queues together have a budget.
    let attr = ConfigureAttr { queues: 64, size: 64, ..SMALL };
    let mut hws = Queued::new(ideal(), &attr);
    let profile = hws.profile.clone();
    hws.bench.device.stop(hws.bench.now, HOST).unwrap();
    let mut queues = hws.bench.device.configure(hws.bench.now, PROXY, &attr, &profile, 1).unwrap();
    for queue in &mut queues {
        for operation in 0..64 {
            queue.act_now(hws.bench.now, operation, false, || Ok(())).unwrap();
        }
    }
    let mut calls = 1;
    while hws.bench.device.advance(hws.bench.now) {
        calls += 1;
    }
    assert!(calls > 64 * 64 * 3 / 1024, "{calls}");
}
