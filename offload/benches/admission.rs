//! What a rule is spent on: packets that software is spared per insertion, and the share of packets in
//! hardware, for each policy under three mixes of traffic, in virtual time; then what a round over all
//! counters costs per connection, in real time.
//!
//! Both columns have to be read together: a high threshold saves much per insertion because it lets most of
//! its budget go unused, and much goes on in software that hardware could have taken.
//!
//! `cargo bench -p offload --bench admission` prints the table at full size, `cargo test --benches` a
//! small one.

use criterion::{Criterion, Throughput};
use dataplane::conntrack::Count;
use dataplane::offload::{Answer, Ask, OffloadState, Removal, Revocation, Revoke};
use offload::admission::Policy;
use offload::engine::{Completion, EngineError, FlowEngine, Kind, LegId, Traits};
use offload::machine::{Machine, Outbox, Settings};
use offload::rule::Rule;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

#[allow(dead_code)] // The tests use more of it.
#[path = "../tests/suite/support/device.rs"]
mod device;
#[allow(dead_code)]
#[path = "../tests/suite/support/world.rs"]
mod world;

use device::Random;
use world::{MS, SECOND};

/// Rules and insertions per second there are, and how long it goes on.
#[derive(Clone, Copy)]
struct Scale {
    rules_max: u32,
    insertions_per_second: u32,
    seconds: u64,
    /// Connections per second and packets per second are multiplied by this.
    load: f64,
}

const FULL: Scale = Scale { rules_max: 2000, insertions_per_second: 200, seconds: 60, load: 1.0 };
const SMALL: Scale = Scale { rules_max: 100, insertions_per_second: 10, seconds: 8, load: 0.05 };

/// An engine that does what it is told at once.
#[derive(Default)]
struct Ideal {
    rules_max: u32,
    /// By rule and direction.
    counts: Vec<[Count; 2]>,
    done: Vec<Completion>,
}

impl FlowEngine for Ideal {
    fn traits(&self) -> Traits {
        let kind = Kind::Simulated;
        Traits {
            kind,
            rules_max: self.rules_max,
            operations_max: 256,
            settle_ms: 10,
            ages: false,
            meters: None,
        }
    }
    fn install(&mut self, leg: LegId, _: &Rule) -> Result<(), EngineError> {
        let index = leg.rule.0 as usize;
        self.counts.resize(self.counts.len().max(index + 1), [Count::default(); 2]);
        self.counts[index][leg.direction as usize] = Count::default();
        self.done.push(Completion::Installed(leg));
        Ok(())
    }
    fn remove(&mut self, leg: LegId) -> Result<(), EngineError> {
        self.done.push(Completion::Removed(leg));
        Ok(())
    }
    fn push(&mut self) {}
    fn pull(&mut self, completions: &mut Vec<Completion>) {
        completions.append(&mut self.done);
    }
    fn count(&mut self, leg: LegId) -> Result<Count, EngineError> {
        let counts = self.counts.get(leg.rule.0 as usize).ok_or(EngineError::Lost(0))?;
        Ok(counts[leg.direction as usize])
    }
    fn release(&mut self, _: LegId) {}
    fn aged(&mut self, _: &mut Vec<LegId>) {}
    fn flush(&mut self) -> Result<(), EngineError> {
        self.counts.clear();
        Ok(())
    }
}

/// A connection, from its first packet after establishment.
#[derive(Clone)]
struct Flow {
    born_ns: u64,
    gap_ns: u64,
    left: u64,
    carried: u64,
    state: OffloadState,
    retry_ns: u64,
}

/// Where a mix takes its connections from.
#[derive(Clone, Copy)]
struct Source {
    /// Connections per second; at the start, so many at once.
    arrivals: f64,
    at_start: u32,
    /// Packets: Pareto with this exponent from the first number on, at most the second.
    tail: f64,
    packets: (f64, f64),
    /// Time between packets, milliseconds: evenly between these.
    gap_ms: (u64, u64),
}

/// Web-like: most connections are short, most packets are in long ones.
const ZIPF: &[Source] =
    &[Source { arrivals: 1500.0, at_start: 0, tail: 1.1, packets: (2.0, 200_000.0), gap_ms: (1, 40) }];
/// A flood of questions and answers beside a few streams.
const DNS: &[Source] = &[
    Source { arrivals: 8000.0, at_start: 0, tail: 4.0, packets: (2.0, 12.0), gap_ms: (1, 10) },
    Source { arrivals: 20.0, at_start: 400, tail: 1.2, packets: (500.0, 1e6), gap_ms: (5, 20) },
];
/// Many connections that hardly speak, beside some that do.
const LONG_POLL: &[Source] = &[
    Source { arrivals: 150.0, at_start: 9000, tail: 9.0, packets: (100.0, 400.0), gap_ms: (500, 4000) },
    Source { arrivals: 40.0, at_start: 500, tail: 1.2, packets: (200.0, 1e6), gap_ms: (5, 50) },
];

impl Source {
    fn flow(&self, now_ns: u64, random: &mut Random) -> Flow {
        let unit = (random.below(1 << 53) as f64 + 1.0) / (1u64 << 53) as f64;
        let packets = (self.packets.0 * unit.powf(-1.0 / self.tail)).min(self.packets.1);
        let (least, most) = self.gap_ms;
        Flow {
            born_ns: now_ns,
            gap_ns: (least * MS) + random.below((most - least) * MS + 1),
            left: packets as u64,
            carried: 0,
            state: OffloadState::Software,
            retry_ns: 0,
        }
    }
}

#[derive(Default)]
struct Inbox(Vec<Answer>);

impl Outbox for Inbox {
    fn answer(&mut self, answer: Answer) -> Result<(), Answer> {
        self.0.push(answer);
        Ok(())
    }
}

struct Mix {
    now_ns: u64,
    random: Random,
    flows: Vec<Flow>,
    /// When the next packet of which flow comes.
    next: BinaryHeap<Reverse<(u64, u32)>>,
    machine: Machine,
    engine: Ideal,
    inbox: Inbox,
    software: u64,
    hardware: u64,
}

impl Mix {
    fn run(sources: &[Source], policy: Policy, scale: Scale) -> Mix {
        let engine = Ideal { rules_max: scale.rules_max, ..Ideal::default() };
        let settings = Settings {
            rules_max: scale.rules_max,
            insertions_per_second: scale.insertions_per_second,
            policy,
            ..Settings::default()
        };
        let machine = Machine::new(0, &settings, engine.traits(), world::topology(), world::snapshot(&[]));
        let mut mix = Mix {
            now_ns: 0,
            random: Random(4),
            flows: Vec::new(),
            next: BinaryHeap::new(),
            machine,
            engine,
            inbox: Inbox::default(),
            software: 0,
            hardware: 0,
        };
        for source in sources {
            for _ in 0..(f64::from(source.at_start) * scale.load) as u32 {
                mix.open(source);
            }
        }
        let mut owed = vec![0.0; sources.len()];
        while mix.now_ns < scale.seconds * SECOND {
            for (source, owed) in sources.iter().zip(&mut owed) {
                *owed += source.arrivals * scale.load / 1000.0;
                while *owed >= 1.0 {
                    *owed -= 1.0;
                    mix.open(source);
                }
            }
            mix.millisecond();
        }
        mix
    }

    fn open(&mut self, source: &Source) {
        let flow = source.flow(self.now_ns, &mut self.random);
        // Those that are there at the start are in the middle of their gaps.
        let first_ns = self.now_ns + self.random.below(flow.gap_ns + 1);
        self.next.push(Reverse((first_ns, self.flows.len() as u32)));
        self.flows.push(flow);
    }

    fn millisecond(&mut self) {
        self.now_ns += MS;
        while let Some(&Reverse((at_ns, index))) = self.next.peek() {
            if at_ns > self.now_ns {
                break;
            }
            self.next.pop();
            self.packet(at_ns, index);
        }
        self.machine.step(self.now_ns, &mut self.engine, &mut self.inbox);
        for answer in std::mem::take(&mut self.inbox.0) {
            self.hear(&answer);
        }
    }

    fn packet(&mut self, at_ns: u64, index: u32) {
        let flow = &mut self.flows[index as usize];
        flow.left -= 1;
        flow.carried += 1;
        let rule = match flow.state {
            OffloadState::Installed(rule) => Some(rule),
            _ => None,
        };
        match rule.and_then(|rule| self.engine.counts.get_mut(rule.0 as usize)) {
            Some([count, _]) => {
                count.packets += 1;
                count.bytes += 114;
                self.hardware += 1;
            }
            None => self.software += 1,
        }
        if flow.left > 0 {
            self.next.push(Reverse((at_ns + flow.gap_ns, index)));
            self.consider(index);
        } else if let Some(rule) = rule {
            // The end of a connection is seen by software.
            let revoke = Revoke { flow: ask(index, flow).flow, rule, why: Revocation::Closing };
            self.machine.revoke(self.now_ns, &revoke);
        }
    }

    fn consider(&mut self, index: u32) {
        let flow = &mut self.flows[index as usize];
        let free = match flow.state {
            OffloadState::Software => true,
            OffloadState::Declined(_) => self.now_ns >= flow.retry_ns,
            _ => false,
        };
        if !free || flow.carried < u64::from(self.machine.price()) || self.machine.room() == 0 {
            return;
        }
        let mut ask = ask(index, flow);
        ask.age_ms = ((self.now_ns - flow.born_ns) / MS) as u32;
        flow.state = OffloadState::Requested(ask.token);
        self.machine.ask(self.now_ns, &ask);
    }

    fn hear(&mut self, answer: &Answer) {
        let index = answer.flow().slot;
        let flow = &mut self.flows[index as usize];
        match *answer {
            Answer::Installed { rule, .. } => {
                flow.state = OffloadState::Installed(rule);
                if flow.left == 0 {
                    let revoke = Revoke { flow: answer.flow(), rule, why: Revocation::Orphan };
                    self.machine.revoke(self.now_ns, &revoke);
                }
            }
            Answer::Declined { reason, retry_ms, .. } => {
                flow.state = OffloadState::Declined(reason);
                flow.retry_ns = self.now_ns + u64::from(retry_ms) * MS;
            }
            Answer::Removed { why, retry_ms, .. } => {
                assert_ne!(why, Removal::Lost);
                flow.state = OffloadState::Declined(offload::Declined::Budget);
                flow.retry_ns = self.now_ns + u64::from(retry_ms) * MS;
            }
            Answer::Counted { .. } => {}
        }
    }
}

fn ask(index: u32, flow: &Flow) -> Ask {
    let mut ask = world::ask(index, 1, index);
    // 16 bits of `index` would do for the address; the port has the rest.
    ask.key.src_port = 1 + (index >> 16) as u16;
    ask.legs[1] = None;
    ask.packets = flow.carried;
    ask
}

fn table(scale: Scale) {
    println!(
        "{} rules, {} insertions/s, {} s\n{:<10} {:<14} {:>10} {:>12} {:>10} {:>9} {:>7}",
        scale.rules_max,
        scale.insertions_per_second,
        scale.seconds,
        "mix",
        "policy",
        "insertions",
        "saved",
        "saved/ins",
        "hardware",
        "price",
    );
    let policies =
        [Policy::Earned, Policy::FirstPacket, Policy::Threshold(10), Policy::Threshold(100), Policy::Lru];
    for (name, sources) in [("zipf", ZIPF), ("dns", DNS), ("long-poll", LONG_POLL)] {
        for policy in policies {
            let mix = Mix::run(sources, policy, scale);
            let insertions = mix.machine.counters().insertions.get();
            let share = 100.0 * mix.hardware as f64 / (mix.hardware + mix.software).max(1) as f64;
            println!(
                "{name:<10} {:<14} {insertions:>10} {:>12} {:>10.1} {share:>8.1}% {:>7}",
                format!("{policy:?}"),
                mix.hardware,
                mix.hardware as f64 / insertions.max(1) as f64,
                mix.machine.price(),
            );
        }
    }
}

/// Time per connection of a round over the counters of many.
fn rounds(criterion: &mut Criterion, connections: u32) {
    let mut engine = Ideal { rules_max: 2 * connections, ..Ideal::default() };
    let settings = Settings {
        rules_max: 2 * connections,
        insertions_per_second: u32::MAX,
        idle_ms: u32::MAX,
        ..Settings::default()
    };
    let (topology, snapshot) = (world::topology(), world::snapshot(&[]));
    let mut machine = Machine::new(0, &settings, engine.traits(), topology, snapshot);
    let (mut now_ns, mut asked, mut inbox) = (0, 0, Inbox::default());
    while machine.counters().pairs.get() < u64::from(connections) {
        while asked < connections && machine.room() > 0 {
            machine.ask(now_ns, &world::ask(asked, 1, asked));
            asked += 1;
        }
        now_ns += MS / 10;
        machine.step(now_ns, &mut engine, &mut inbox);
        inbox.0.clear();
    }
    let mut group = criterion.benchmark_group("round");
    group.throughput(Throughput::Elements(u64::from(connections)));
    group.bench_function(format!("{connections} connections"), |bencher| {
        bencher.iter(|| {
            // 100 steps, as often as a thread would come by.
            for _ in 0..100 {
                now_ns += 5 * MS;
                machine.step(now_ns, &mut engine, &mut inbox);
                inbox.0.clear();
            }
        });
    });
    group.finish();
}

fn main() {
    let full = std::env::args().any(|argument| argument == "--bench");
    table(if full { FULL } else { SMALL });
    let mut criterion = Criterion::default().configure_from_args();
    rounds(&mut criterion, if full { 32_000 } else { 500 });
    criterion.final_summary();
}
