//! What an operation costs on its way through a flow queue and back, without the device's own work.

#![allow(missing_docs)] // Of the function that criterion_group! makes.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use eswitch::model::faults::Faults;
use eswitch::model::profile::Profile;
use eswitch::model::queue::{ActionOp, Completion, Credits, Installer, Needs, Owner, QueueAttr, pair};
use eswitch::model::refusal::{Errno, Refusal};
use eswitch::model::template::Occupancy;
use eswitch::model::types::{RuleId, Tick, Vport};
use std::hint::black_box;
use std::sync::Arc;

/// Rules per iteration, in one push.
const COUNT: usize = 32;

/// As large as a prepared rule: a mask, a value and a program.
type Rule = [u64; 72];

struct Nothing(u32);

impl Installer<Rule> for Nothing {
    fn install(&mut self, _now: Tick, rule: Rule, _owner: Owner) -> Result<RuleId, Refusal> {
        black_box(&rule);
        self.0 = self.0.wrapping_add(1);
        Ok(RuleId(self.0))
    }

    fn remove(&mut self, _now: Tick, rule: RuleId) {
        black_box(rule);
    }

    fn release(&mut self, _now: Tick, rule: RuleId) {
        black_box(rule);
    }

    fn act(&mut self, _now: Tick, _operation: ActionOp) -> Result<(), Refusal> {
        Ok(())
    }
}

/// Creates, pulls, destroys and pulls `COUNT` rules over and over; time is per operation and its completion.
fn operations(c: &mut Criterion) {
    let mut group = c.benchmark_group("queue");
    group.throughput(Throughput::Elements(2 * COUNT as u64));
    for name in ["ideal", "bf3-hws"] {
        let mut profile = Profile::named(name).expect("it is built in");
        profile.collide_full_percent = 0;
        let credits = Arc::new(Credits::new(1024, 0, 0));
        let attr = QueueAttr { port: Vport(0), queue: 0, size: 64, full_errno: Errno::Nomem };
        let (mut front, mut engine) = pair::<Rule>(attr, &profile, &credits, 1).expect("within bounds");
        let table = Arc::new(Occupancy::new(1024).expect("within bounds"));
        let (mut device, mut faults) = (Nothing(0), Faults::default());
        let needs = Needs { counter: true, ..Needs::default() };
        let (mut now, mut handles) = (0, Vec::with_capacity(COUNT));
        let mut out = [Completion::default(); COUNT];
        let mut rule = [0; 72];
        group.bench_function(name, |b| {
            b.iter(|| {
                now += 1_000_000;
                for number in 0..COUNT as u64 {
                    rule[7] = number;
                    let made = front.enqueue(Tick(now), &table, needs, black_box(rule), number, true);
                    handles.push(made.expect("there is room"));
                }
                front.push(Tick(now));
                now += 1_000_000;
                while engine.step(Tick(now), 64, &mut device, &mut faults) {}
                assert_eq!(front.pull(&mut out), COUNT);
                for handle in handles.drain(..) {
                    front.destroy(Tick(now), handle, 0, true).expect("it is live");
                }
                front.push(Tick(now));
                now += 1_000_000;
                while engine.step(Tick(now), 64, &mut device, &mut faults) {}
                assert_eq!(front.pull(&mut out), COUNT);
                credits.recycle();
            });
        });
    }
    group.finish();
}

criterion_group!(benches, operations);
criterion_main!(benches);
