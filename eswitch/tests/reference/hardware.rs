//! HWS: rules come and go through flow queues, each operation at its time.
//!
//! Costs and delays are constants here, so that the reference knows to the nanosecond when a rule begins and
//! ceases to be hit. The queues' times differ in their last bit: no two operations take effect at once.

use std::collections::VecDeque;

use eswitch::model::profile::Profile;
use eswitch::model::queue::Completion;
use eswitch::model::refusal::Errno;
use eswitch::model::switch::{ConfigureAttr, FlowQueue};
use eswitch::model::timing::Spread;
use eswitch::model::types::{RuleHandle, Steering, Tick, Vport};

use crate::rules::Thing;
use crate::templates::{Entry, Sheet};
use crate::trial::{Difference, Report, Trial, VPORTS, with};
use crate::world::{Canary, Order};

const RULES_MAX: usize = 60;
const QUEUES: usize = 2;
const SIZE: u32 = 32;

/// Cost, latency, completion's delay of a creation and a destruction, in nanoseconds.
const CREATE: [u64; 3] = [300, 1000, 600];
const DESTROY: [u64; 3] = [200, 1400, 400];

enum Deed {
    Create(Order, RuleHandle),
    Destroy(RuleHandle),
}

/// A flow queue as the reference sees it.
#[derive(Default)]
struct Pipe {
    postponed: VecDeque<(u64, Deed)>,
    free_at: u64,
    /// When each takes effect, and when it is reported.
    pending: VecDeque<(u64, u64, u64, Deed)>,
    /// When to report what.
    done: VecDeque<(u64, u64, RuleHandle, bool)>,
    /// The latest of either.
    last: (u64, u64),
}

impl Pipe {
    fn push(&mut self, now: u64) {
        for (user_data, deed) in self.postponed.drain(..) {
            let [cost, latency, completion] = match deed {
                Deed::Create(..) => CREATE,
                Deed::Destroy(_) => DESTROY,
            };
            self.free_at = self.free_at.max(now) + cost;
            let active_at = (self.free_at + latency).max(self.last.0);
            let visible_at = (active_at + completion).max(self.last.1);
            self.last = (active_at, visible_at);
            self.pending.push_back((active_at, visible_at, user_data, deed));
        }
    }
}

struct Bench {
    trial: Trial,
    queues: Vec<FlowQueue>,
    pipes: Vec<Pipe>,
    sheets: Vec<Sheet>,
    /// Created, and the completion pulled: can be destroyed.
    settled: Vec<RuleHandle>,
    /// Values of earlier rules, by table.
    past: Vec<Vec<(usize, Vec<Thing>)>>,
    operations: u64,
}

/// One world's life: so many packets, with rules changing between them.
pub(crate) fn run(seed: u64, packets: u64, canary: Canary) -> Result<Report, Difference> {
    let mut bench = Bench::new(seed, canary);
    for _ in 0..RULES_MAX / 3 {
        bench.create()?;
    }
    bench.settle(1_000_000)?;
    while bench.trial.report.packets < packets {
        match bench.trial.dice.below(100) {
            0..14 => bench.create()?,
            14..22 => bench.destroy()?,
            22..26 => bench.push(),
            26..36 => {
                let ns = bench.trial.dice.below(2000) as u64;
                bench.settle(ns)?;
            }
            36 => {
                let ns = bench.trial.dice.below(2_500_000_000) as u64;
                bench.settle(ns)?;
            }
            37 if bench.trial.dice.percent(30) => bench.trial.compare_all()?,
            _ => bench.trial.send()?,
        }
    }
    bench.push();
    bench.settle(1_000_000)?;
    bench.trial.compare_all()?;
    bench.finish()
}

impl Bench {
    fn new(seed: u64, canary: Canary) -> Bench {
        let mut profile = Profile::named("ideal").expect("a built-in profile");
        let times = |ns: [u64; 3]| ns.map(Spread::always);
        [profile.create_cost_ns, profile.create_latency_ns, profile.create_completion_ns] = times(CREATE);
        [profile.destroy_cost_ns, profile.destroy_latency_ns, profile.destroy_completion_ns] = times(DESTROY);
        let mut trial = Trial::new(seed, Steering::Hardware, &profile, canary);
        let attr = ConfigureAttr {
            // A hundredth of them is how many aged flows the device remembers.
            counters: 100_000,
            ages: 1000,
            queues: QUEUES as u16,
            size: SIZE,
            ..ConfigureAttr::default()
        };
        let queues = trial.device.configure(Tick(0), Vport(0), &attr, &profile, seed).expect("configures");
        let mut sheets = Vec::new();
        while sheets.len() < 7 {
            match Sheet::new(&mut trial) {
                Ok(sheet) => sheets.push(sheet),
                Err(_) => trial.report.refused += 1,
            }
        }
        for at in 0..VPORTS {
            let config = trial.world.rx[at].1.clone();
            trial.device.start(Vport(at as u16), config).expect("starts");
        }
        let pipes = (0..QUEUES).map(|_| Pipe::default()).collect();
        let past = vec![Vec::new(); sheets.len()];
        Bench { trial, queues, pipes, sheets, settled: Vec::new(), past, operations: 0 }
    }

    /// A moment in which this queue may be used.
    fn turn(&mut self, queue: usize) -> Result<(), Difference> {
        let ns = if self.trial.now as usize % QUEUES == queue { 2 } else { 1 };
        self.settle(ns)
    }

    fn create(&mut self) -> Result<(), Difference> {
        if self.trial.live.len() >= RULES_MAX {
            return Ok(());
        }
        let queue = self.trial.dice.below(QUEUES);
        self.turn(queue)?;
        let at = self.trial.dice.below(self.sheets.len());
        let past = &self.past[at];
        let again = !past.is_empty() && self.trial.dice.percent(40);
        let like = again.then(|| &past[past.len() - 1 - self.trial.dice.below(past.len().min(5))]);
        let sheet = &self.sheets[at];
        let Entry { pattern, actions, things, acts, order } = sheet.entry(&mut self.trial, like);
        let postpone = self.trial.dice.percent(30);
        self.operations += 1;
        let (now, user_data) = (Tick(self.trial.now), self.operations);
        let full = self.queues[queue].outstanding() >= SIZE;
        let made = with(&acts, |list| {
            let items = crate::rules::items(&things);
            let (items, list) = ((pattern as u8, &*items), (actions as u8, list));
            let topology = &self.trial.world.topology;
            sheet.table.enqueue(now, &mut self.queues[queue], topology, items, list, user_data, postpone)
        });
        match made {
            Err(refusal) if full && refusal.errno == Errno::Nomem => Ok(()),
            Err(_) if sheet.table.occupancy().used() == sheet.table.occupancy().capacity() => Ok(()),
            Err(refusal) => Err(format!("enqueue {things:?} {acts:?}: {refusal:?}")),
            Ok(_) if full => Err("a full queue took an operation".to_owned()),
            Ok(handle) => {
                self.trial.report.accepted += 1;
                self.past[at].push((pattern, things));
                self.pipes[queue].postponed.push_back((user_data, Deed::Create(order, handle)));
                if !postpone {
                    self.pipes[queue].push(now.0);
                }
                Ok(())
            }
        }
    }

    fn destroy(&mut self) -> Result<(), Difference> {
        if self.settled.is_empty() {
            return Ok(());
        }
        let at = self.trial.dice.below(self.settled.len());
        let handle = self.settled[at];
        let queue = usize::from(handle.queue().expect("a flow queue's"));
        self.turn(queue)?;
        let postpone = self.trial.dice.percent(30);
        self.operations += 1;
        let (now, user_data) = (Tick(self.trial.now), self.operations);
        let full = self.queues[queue].outstanding() >= SIZE;
        match self.queues[queue].destroy(now, handle, user_data, postpone) {
            Err(_) if full => return Ok(()),
            Err(refusal) => return Err(format!("destroy {handle:?}: {refusal:?}")),
            Ok(()) => {}
        }
        self.settled.swap_remove(at);
        self.pipes[queue].postponed.push_back((user_data, Deed::Destroy(handle)));
        if !postpone {
            self.pipes[queue].push(now.0);
        }
        Ok(())
    }

    fn push(&mut self) {
        let queue = self.trial.now as usize % QUEUES;
        self.queues[queue].push(Tick(self.trial.now));
        self.pipes[queue].push(self.trial.now);
    }

    /// Time passes, from event to event; then the application pulls.
    fn settle(&mut self, ns: u64) -> Result<(), Difference> {
        let end = self.trial.now + ns;
        loop {
            let due =
                self.pipes.iter().enumerate().filter_map(|(at, pipe)| Some((pipe.pending.front()?.0, at)));
            let Some((when, at)) = due.min().filter(|(when, _)| *when <= end) else { break };
            self.trial.now = when;
            while self.trial.device.advance(Tick(when)) {}
            self.take_effect(at)?;
        }
        self.trial.now = end;
        self.trial.advance();
        for queue in 0..QUEUES {
            self.pull(queue)?;
        }
        Ok(())
    }

    fn take_effect(&mut self, at: usize) -> Result<(), Difference> {
        let now = self.trial.now;
        let (_, visible_at, user_data, deed) = self.pipes[at].pending.pop_front().expect("one is due");
        let (handle, created) = match deed {
            Deed::Create(order, handle) => {
                let number = self.trial.world.install(now, order).expect("HWS has duplicates");
                self.trial.live.push((number, handle));
                (handle, true)
            }
            Deed::Destroy(handle) => {
                let place = self.trial.live.iter().position(|(_, live)| *live == handle).expect("it lives");
                let (number, _) = self.trial.live.swap_remove(place);
                self.trial.world.remove(number);
                self.trial.report.removed += 1;
                (handle, false)
            }
        };
        self.pipes[at].done.push_back((visible_at, user_data, handle, created));
        Ok(())
    }

    /// What is to be reported by now is reported, in order, and nothing else.
    fn pull(&mut self, queue: usize) -> Result<(), Difference> {
        let mut out = [Completion::default(); 8];
        loop {
            let got = self.queues[queue].pull(&mut out);
            for completion in &out[..got] {
                let expected = self.pipes[queue].done.pop_front();
                let Some((visible_at, user_data, handle, created)) = expected else {
                    return Err(format!("{completion:?} of queue {queue}, reference none"));
                };
                if visible_at > self.trial.now || user_data != completion.user_data || !completion.ok {
                    return Err(format!(
                        "{completion:?} of queue {queue}, reference {user_data} at {visible_at}"
                    ));
                }
                if created {
                    self.settled.push(handle);
                }
            }
            if got < out.len() {
                break;
            }
        }
        match self.pipes[queue].done.front() {
            Some((visible_at, user_data, ..)) if *visible_at <= self.trial.now => {
                Err(format!("queue {queue} owes {user_data} since {visible_at}"))
            }
            _ => Ok(()),
        }
    }

    /// Everything goes; nothing is left behind.
    fn finish(mut self) -> Result<Report, Difference> {
        while !self.settled.is_empty() {
            self.destroy()?;
            self.push();
            self.settle(10_001)?;
        }
        self.push();
        self.settle(1_000_000)?;
        self.push();
        self.settle(1_000_001)?;
        let used: u32 = self.sheets.iter().map(|sheet| sheet.table.occupancy().used()).sum();
        let rules = self.trial.device.statistics().rules;
        if (used, rules, self.trial.world.rules.len()) != (0, 0, 0) {
            return Err(format!("{used} places and {rules} rules remain, {:?}", self.trial.world.rules));
        }
        Ok(self.trial.report)
    }
}
