//! How long packets wait for rules: the time between two polls of a packet thread while others insert.

use super::rules::{FRAME, Rule, Tables, frame};
use super::{BURST, Lab, Registered, Shuffle, say, setting};
use crate::model::profile::Profile;

/// Rules that are there before.
const OLD: u32 = 1000;

/// Operations that a queue holds.
const DEPTH: u32 = 4096;

const SWS: &str = "profile=ideal,dv_flow_en=1";
const HWS: &str = "profile=ideal,dv_flow_en=2";

/// Polls, offering packets all the time, until `done`; nanoseconds from one poll to the next, sorted.
fn polls(lab: &mut Lab, frames: &[[u8; FRAME]], done: impl Fn() -> bool) -> Vec<u64> {
    let clock = lab.switch.clock;
    let mut shuffle = Shuffle(5);
    let mut times = Vec::with_capacity(1 << 22);
    let (mut offered, mut seen) = (0, [0; 2]);
    let mut last = clock.now();
    while !done() {
        offered +=
            lab.offer((0..BURST).map(|_| frames[shuffle.below(frames.len() as u32) as usize].as_slice()));
        seen[1] += lab.poll(0);
        seen[0] += lab.collect();
        let now = clock.now();
        if times.len() < times.capacity() {
            times.push(now.since(last));
        }
        last = now;
    }
    lab.drain(offered, &mut seen);
    assert_eq!(offered, seen[0] + seen[1], "no packet is lost");
    times.sort_unstable();
    times
}

fn describe(times: &[u64]) -> String {
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize] as f64 / 1e3;
    format!(
        "{} polls; from one to the next p50 {:.1}, p99 {:.1}, p99.9 {:.1}, max {:.1} us",
        times.len(),
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0)
    )
}

/// Creates the rules of these connections on a flow queue, and waits for all to complete.
fn create_all(tables: &Tables, queue: u32, to: u16, connections: impl Iterator<Item = u32>) {
    let (mut enqueued, mut completed, mut since) = (0_usize, 0, 0);
    let mut pull = |enqueued: usize| {
        let count = tables.pull(queue, |_, ok| assert!(ok));
        completed += count;
        (count, completed == enqueued)
    };
    for n in connections {
        let rule = Rule::new(n, to);
        while tables.create(queue, &rule, n as usize, true).is_none() {
            tables.push(queue);
            if pull(enqueued).0 == 0 {
                std::thread::yield_now();
            }
        }
        enqueued += 1;
        since += 1;
        if since == BURST {
            since = 0;
            tables.push(queue);
            pull(enqueued);
        }
    }
    tables.push(queue);
    loop {
        match pull(enqueued) {
            (_, true) => return,
            (0, false) => std::thread::yield_now(),
            _ => {}
        }
    }
}

/// Creates the rules of these connections through the synchronous API.
fn insert(connections: std::ops::Range<u32>, port: u16, to: u16) {
    for n in connections {
        if let Err(message) = Rule::new(n, to).create(port) {
            panic!("rule {n}: {message}");
        }
    }
}

/// Packets flow while so many rules are inserted through the synchronous API; what to say of it.
fn synchronous(rules: u32, idle_ms: u64) {
    let mut lab = Lab::new(SWS);
    lab.start();
    let [port, to] = lab.ports;
    insert(0..OLD, port, to);
    let frames: Vec<[u8; FRAME]> = (0..OLD).map(frame).collect();
    let clock = lab.switch.clock;
    let until = clock.now().after(idle_ms * 1_000_000);
    let idle = polls(&mut lab, &frames, || clock.now().0 >= until.0);
    let begin = clock.now();
    let busy = std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            let _registered = Registered::new();
            insert(OLD..OLD + rules, port, to);
        });
        polls(&mut lab, &frames, || thread.is_finished())
    });
    let rate = f64::from(rules) / (clock.now().since(begin) as f64 / 1e3);
    assert_eq!(lab.switch.eswitch.lock().statistics().rules, u64::from(OLD + rules));
    say(&format!("stall, SWS, idle: {}", describe(&idle)));
    say(&format!("stall, SWS, {rules} inserts at {rate:.2} M/s: {}", describe(&busy)));
}

/// The same through two flow queues, each of a thread.
fn queued(rules: u32, idle_ms: u64) {
    let mut lab = Lab::new(HWS);
    let [port, to] = lab.ports;
    Tables::configure(port, 2, DEPTH, rules + OLD + 1);
    lab.start();
    let tables = &Tables::new(port, to, rules + OLD);
    create_all(tables, 0, to, 0..OLD);
    let frames: Vec<[u8; FRAME]> = (0..OLD).map(frame).collect();
    let clock = lab.switch.clock;
    let until = clock.now().after(idle_ms * 1_000_000);
    let idle = polls(&mut lab, &frames, || clock.now().0 >= until.0);
    let begin = clock.now();
    let busy = std::thread::scope(|scope| {
        let threads = [0, 1].map(|queue| {
            scope.spawn(move || {
                let _registered = Registered::new();
                let connections = (OLD..OLD + rules).filter(|n| n % 2 == queue);
                create_all(tables, queue, to, connections);
            })
        });
        polls(&mut lab, &frames, || threads.iter().all(std::thread::ScopedJoinHandle::is_finished))
    });
    let rate = f64::from(rules) / (clock.now().since(begin) as f64 / 1e3);
    assert_eq!(lab.switch.eswitch.lock().statistics().rules, u64::from(OLD + rules));
    say(&format!("stall, HWS, idle: {}", describe(&idle)));
    say(&format!("stall, HWS, {rules} inserts at {rate:.2} M/s on two queues: {}", describe(&busy)));
}

#[test]
fn packets_flow_while_rules_are_inserted() {
    synchronous(5_000, 20);
    queued(20_000, 20);
}

#[test]
#[ignore = "a bench"]
fn bench_stall() {
    let _registered = Registered::new();
    let rules = setting("ESWITCH_BENCH_RULES", 1_000_000);
    synchronous(rules, 2000);
    queued(rules, 2000);
}

/// Operations a second on one queue, whose thread also does the device's part; and what a profile promises.
#[test]
#[ignore = "a bench"]
fn bench_queue() {
    let _registered = Registered::new();
    let rules = setting("ESWITCH_BENCH_RULES", 1_000_000);
    for name in ["ideal", "bf3-hws", "bf3-xenoflow"] {
        let profile = Profile::named(name).expect("it is built in");
        let mean = profile.create_cost_ns.mean_ns();
        // Some seconds at most, and what fits into a table without collisions.
        let rules = if mean > 1000 { (5_000_000_000 / mean) as u32 } else { rules };
        let table_max = if profile.table_rules_max == 0 { 2 * rules } else { profile.table_rules_max };
        let rules = rules.min(table_max / 2);
        let lab = Lab::new(&format!("profile={name},dv_flow_en=2"));
        let [port, to] = lab.ports;
        Tables::configure(port, 1, DEPTH, rules + 1);
        lab.start();
        let tables = Tables::new(port, to, table_max);
        let begin = lab.switch.clock.now();
        create_all(&tables, 0, to, 0..rules);
        let each = lab.switch.clock.now().since(begin) as f64 / f64::from(rules);
        say(&format!(
            "one flow queue, {name}: {rules} creations, {each:.0} ns each, {:.3} M/s; the profile's mean is \
             {mean} ns",
            1e3 / each
        ));
    }
}

/// Rules that come into force by one poll, of those that are asked for, while this frame comes in, or none.
fn made_by_a_poll(
    lab: &mut Lab,
    tables: &Tables,
    wanted: std::ops::Range<u32>,
    frame: Option<&[u8; FRAME]>,
) -> u64 {
    let rules = |lab: &Lab| lab.switch.eswitch.lock().statistics().rules;
    let before = rules(lab);
    for n in wanted.clone() {
        assert!(tables.create(0, &Rule::new(n, lab.ports[1]), n as usize, true).is_some());
    }
    tables.push(0);
    let offered = lab.offer(frame.into_iter().map(|frame| frame.as_slice()));
    let mut seen = [0, lab.poll(0)];
    let made = rules(lab) - before;
    lab.drain(offered, &mut seen);
    let mut completed = 0;
    while completed < wanted.len() {
        completed += tables.pull(0, |_, ok| assert!(ok));
    }
    made
}

#[test]
fn a_poll_goes_on_with_operations_while_no_packet_comes() {
    const EACH: u32 = 256;
    let mut lab = Lab::new(HWS);
    let [port, to] = lab.ports;
    Tables::configure(port, 1, DEPTH, 32 * EACH);
    lab.start();
    let tables = Tables::new(port, to, 32 * EACH);
    let mut next = 0;
    let mut made = |frame: Option<&[u8; FRAME]>| {
        next += EACH;
        made_by_a_poll(&mut lab, &tables, next - EACH..next, frame)
    };
    // Others may have the model in the middle, and do some of it: so the most, or the least, of several.
    let silence = (0..8).map(|_| made(None)).max();
    let traffic = (0..8).map(|_| made(Some(&frame(1_000_000)))).min();
    assert!(silence > Some(16) && traffic <= Some(8), "{silence:?} and {traffic:?}");
}
