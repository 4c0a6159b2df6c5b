//! The offload thread: takes what workers ask for and revoke, lets the machine decide, and has the engine
//! carry it out.
//!
//! ```text
//! workers ── rings ──▶ machine ── rules ──▶ engine ──▶ hardware
//!    ▲                  │  ▲
//!    └── answers, price ┘  └── mailbox: snapshots, questions ── manager
//! ```
//!
//! Nothing waits for it: without it, or when it hangs or panics, workers forward everything themselves.

use crate::Failure;
use crate::clock::Clock;
use crate::panics;
use crate::runtime::mailbox::Mailbox;
use crate::runtime::offload_rings::OffloadRings;
use core_affinity::CoreId;
use dataplane::counters::{Counter, WorkerCounters};
use dataplane::snapshot::Snapshot;
use dpdk::Eal;
use offload::counters::OffloadCounters;
use offload::engine::{FlowEngine, Kind};
use offload::machine::{DenialRow, Machine, PartitionRow, RuleRow};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// Requests taken per turn.
const ASKS_PER_TURN: usize = 256;
/// How long it sleeps when there is nothing to do: long enough to leave its core to others, short against
/// what a rule takes.
const REST: Duration = Duration::from_micros(50);
/// The log is told at most so often what the driver refuses.
const COMPLAINTS_NS: u64 = 10_000_000_000;
/// How often emptying the engine is tried at the end.
const FLUSHES_MAX: usize = 3;

/// What the offload thread is told.
pub(crate) enum OffloadCommand {
    /// Judge by this from now on; answered by [`Mailbox::adopted`].
    Adopt(Arc<Snapshot>),
    /// Copy rules from here on, so many connections' at most; answered by [`OffloadReport::Rules`].
    Rules(u32, usize),
    /// Copy the rules that drop; answered by [`OffloadReport::Denials`].
    Denials,
    /// Copy the rules of partitions; answered by [`OffloadReport::Partitions`].
    Partitions,
}

/// What the offload thread answers.
pub(crate) enum OffloadReport {
    /// Done; the snapshot before, to be freed here.
    Adopted(#[expect(dead_code, reason = "carried to be freed by the receiver")] Arc<Snapshot>),
    /// The rows, and where the next part begins.
    Rules(Vec<RuleRow>, Option<u32>),
    /// All of them.
    Denials(Vec<DenialRow>),
    /// The rows.
    Partitions(Vec<PartitionRow>),
}

impl From<Arc<Snapshot>> for OffloadCommand {
    fn from(next: Arc<Snapshot>) -> OffloadCommand {
        OffloadCommand::Adopt(next)
    }
}

impl From<Arc<Snapshot>> for OffloadReport {
    fn from(old: Arc<Snapshot>) -> OffloadReport {
        OffloadReport::Adopted(old)
    }
}

/// The offload thread's mailbox.
pub(crate) type OffloadMailbox = Mailbox<OffloadCommand, OffloadReport>;

/// What the offload thread shares with the manager.
pub(crate) struct Shared {
    pub(crate) kind: Kind,
    pub(crate) mailbox: Arc<OffloadMailbox>,
    pub(crate) counters: Arc<OffloadCounters>,
    /// What rules have dropped, as workers count it.
    pub(crate) denials: Arc<WorkerCounters>,
    pub(crate) rings: Arc<OffloadRings>,
    /// Turns of its loop.
    turns: Counter,
    ended: AtomicBool,
}

impl Shared {
    /// Turns of the thread's loop so far.
    pub(crate) fn turns(&self) -> u64 {
        self.turns.get()
    }

    /// Whether the thread has come to its end.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Relaxed)
    }
}

/// An engine, and who decides what it does.
pub(crate) struct Unit<E> {
    engine: E,
    machine: Machine,
    clock: Clock,
    core: usize,
    shared: Arc<Shared>,
    /// When the log may next be told what the driver said.
    complain_at_ns: u64,
}

/// Says that the thread has ended, however it does: workers stop asking.
struct Ending<'a>(&'a Shared);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.ended.store(true, Relaxed);
        self.0.rings.refuse();
    }
}

/// Calls `meanwhile` while the unit's thread runs, if there is a unit.
pub(crate) fn beside<E: FlowEngine + Send>(
    unit: Option<Unit<E>>,
    eal: &Eal,
    meanwhile: impl FnOnce() -> Result<(), Failure>,
) -> Result<(), Failure> {
    match unit {
        Some(unit) => unit.run(eal, meanwhile),
        None => meanwhile(),
    }
}

impl<E: FlowEngine + Send> Unit<E> {
    /// A unit of an engine that works, and a machine that has decided nothing yet.
    pub(crate) fn new(
        engine: E,
        machine: Machine,
        clock: Clock,
        core: usize,
        rings: Arc<OffloadRings>,
        generation: u64,
    ) -> Unit<E> {
        let shared = Arc::new(Shared {
            kind: engine.traits().kind,
            mailbox: Arc::new(Mailbox::new(generation)),
            counters: Arc::clone(machine.counters()),
            denials: Arc::clone(machine.denials()),
            rings,
            turns: Counter::default(),
            ended: AtomicBool::new(false),
        });
        Unit { engine, machine, clock, core, shared, complain_at_ns: 0 }
    }

    /// What the manager sees of it.
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Starts the thread, calls `meanwhile`, and stops the thread when that returns: rules are taken out
    /// before.
    fn run(self, eal: &Eal, meanwhile: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let builder = std::thread::Builder::new().name("offload".to_owned());
            let work = || self.work(eal, &stop);
            let system = |source| Failure::System { what: "starting the offload thread", source };
            let thread = builder.spawn_scoped(scope, work).map_err(system)?;
            let result = meanwhile();
            stop.store(true, Relaxed);
            if thread.join().is_err() {
                tracing::error!("the offload thread has panicked; its rules go when the ports stop");
            }
            result
        })
    }

    fn work(mut self, eal: &Eal, stop: &AtomicBool) {
        let shared = Arc::clone(&self.shared);
        let _ending = Ending(&shared);
        if !core_affinity::set_for_current(CoreId { id: self.core }) {
            tracing::warn!(core = self.core, "the offload thread could not be bound to its core");
        }
        // Without it everything works, only slower: drivers keep some caches per registered thread.
        let registration = eal.register_thread();
        if let Err(error) = &registration {
            tracing::warn!(%error, "the offload thread is not known to DPDK");
        }
        self.turn_until(stop);
    }

    /// Turns, and takes everything out of hardware at the end, also if that is a panic.
    fn turn_until(&mut self, stop: &AtomicBool) {
        let turned = panics::catch(|| {
            while !stop.load(Relaxed) {
                let busy = self.turn();
                self.shared.turns.add(1);
                if !busy {
                    std::thread::sleep(REST);
                }
            }
        });
        if let Err(panicked) = turned {
            tracing::error!(%panicked, "the offload thread has ended; its rules are taken out, workers go on");
        }
        self.shared.rings.refuse();
        self.empty();
    }

    /// One turn; whether there is more to do.
    fn turn(&mut self) -> bool {
        let now_ns = self.clock.nanoseconds(dpdk::clock::rdtsc());
        self.obey(now_ns);
        let rings = &*self.shared.rings;
        rings.take_reached(|told| self.machine.reached(told));
        rings.take_revocations(|wish| self.machine.revoke(now_ns, wish));
        rings.take_denied(|denied| self.machine.deny(now_ns, denied));
        let asks_max = self.machine.room().min(ASKS_PER_TURN);
        rings.take_asks(asks_max, |wish| self.machine.ask(now_ns, wish));
        let mut outbox = rings;
        let work = self.machine.step(now_ns, &mut self.engine, &mut outbox);
        rings.set_price(self.machine.price());
        rings.set_fenced(self.machine.diverts());
        if now_ns >= self.complain_at_ns {
            self.log_complaint(now_ns);
        }
        work.busy
    }

    /// What the driver refuses, in its own words: counters say how often.
    fn log_complaint(&mut self, now_ns: u64) {
        if let Some(complaint) = self.engine.complaint() {
            tracing::warn!("hardware did not do as it was told: {complaint}");
            self.complain_at_ns = now_ns + COMPLAINTS_NS;
        }
    }

    fn obey(&mut self, now_ns: u64) {
        match self.shared.mailbox.command() {
            None => {}
            Some(OffloadCommand::Adopt(snapshot)) => {
                let generation = snapshot.generation;
                let old = self.machine.adopt(now_ns, snapshot);
                self.shared.mailbox.adopted(generation, old);
            }
            Some(OffloadCommand::Partitions) => {
                let rows = self.machine.partition_rows();
                self.shared.mailbox.report(OffloadReport::Partitions(rows));
            }
            Some(OffloadCommand::Rules(from, max)) => {
                let (rows, next) = self.machine.rows(from, max);
                self.shared.mailbox.report(OffloadReport::Rules(rows, next));
            }
            Some(OffloadCommand::Denials) => {
                self.shared.mailbox.report(OffloadReport::Denials(self.machine.denial_rows()));
            }
        }
    }

    /// Takes everything out of hardware, at the end: what it would forward from here on nobody counts.
    fn empty(&mut self) {
        for _ in 0..FLUSHES_MAX {
            match self.engine.flush() {
                Ok(()) => return,
                Err(error) => tracing::warn!(%error, "rules not taken out; they go when the ports stop"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataplane::conntrack::Count;
    use dataplane::ids::WorkerId;
    use dataplane::offload::{Answer, Ask, Declined, FlowRef, Token};
    use dataplane::snapshot::Parts;
    use offload::engine::{Completion, EngineError, LegId, Traits};
    use offload::lower::Topology;
    use offload::machine::Settings;
    use offload::rule::Rule;

    /// Takes every rule at once, and counts nothing.
    #[derive(Default)]
    struct Obliging {
        done: Vec<Completion>,
        flushed: u32,
        panics: bool,
    }

    impl FlowEngine for Obliging {
        fn traits(&self) -> Traits {
            Traits {
                kind: Kind::Simulated,
                rules_max: 64,
                operations_max: 64,
                settle_ms: 0,
                ages: false,
                meters: None,
            }
        }

        fn install(&mut self, leg: LegId, _: &Rule) -> Result<(), EngineError> {
            self.done.push(Completion::Installed(leg));
            Ok(())
        }

        fn remove(&mut self, leg: LegId) -> Result<(), EngineError> {
            self.done.push(Completion::Removed(leg));
            Ok(())
        }

        fn push(&mut self) {}

        fn pull(&mut self, completions: &mut Vec<Completion>) {
            assert!(!self.panics, "an engine's fault");
            completions.append(&mut self.done);
        }

        fn count(&mut self, _: LegId) -> Result<Count, EngineError> {
            Ok(Count::default())
        }

        fn release(&mut self, _: LegId) {}

        fn aged(&mut self, _: &mut Vec<LegId>) {}

        fn flush(&mut self) -> Result<(), EngineError> {
            self.flushed += 1;
            if self.flushed < 2 { Err(EngineError::Failed) } else { Ok(()) }
        }
    }

    #[test]
    fn a_panic_takes_the_rules_out_and_nothing_more_is_asked_for() {
        let mut unit = unit();
        unit.engine.panics = true;
        unit.shared.rings.set_price(1);
        unit.turn_until(&AtomicBool::new(false));
        assert_eq!(unit.engine.flushed, 2);
        assert!(unit.shared.rings.worker(WorkerId(0)).is_some_and(|worker| worker.price() > 1));
    }

    fn snapshot(generation: u64) -> Arc<Snapshot> {
        Arc::new(Snapshot::assemble(Parts { generation, ..Parts::default() }).expect("empty"))
    }

    fn unit() -> Unit<Obliging> {
        let (engine, clock) = (Obliging::default(), Clock::new(dpdk::clock::rdtsc(), 1_000_000_000));
        let topology = Arc::new(Topology::default());
        let machine = Machine::new(0, &Settings::default(), engine.traits(), topology, snapshot(1));
        Unit::new(engine, machine, clock, 0, Arc::new(OffloadRings::new(1)), 1)
    }

    /// A connection of which nothing is known to the configuration.
    fn stranger() -> Ask {
        use dataplane::addr::Ip;
        use dataplane::flow::{FlowKey, Protocol};
        use dataplane::ids::{BackendId, ServiceId, TenantId};
        let (src, dst) = (Ip::v4(1), Ip::v4(2));
        let (tenant, protocol) = (TenantId(0), Protocol::Udp);
        Ask {
            flow: FlowRef { worker: WorkerId(0), slot: 3, generation: 1 },
            token: Token(5),
            key: FlowKey { src, dst, src_port: 1000, dst_port: 53, tenant, protocol },
            backend_end: (Ip::v4(3), 53),
            nat: true,
            tunnel: None,
            service: ServiceId(0),
            backend: BackendId(0),
            legs: [None; 2],
            packets: 100,
            age_ms: 1000,
        }
    }

    #[test]
    fn requests_are_answered_and_workers_learn_the_price() {
        let mut unit = unit();
        let rings = Arc::clone(&unit.shared().rings);
        let worker = rings.worker(WorkerId(0)).expect("there");
        assert_eq!(worker.price(), u32::MAX);
        assert!(worker.ask(&stranger()));
        unit.turn();
        assert_eq!(worker.price(), Settings::default().price_min);
        let answer = worker.take_answer().expect("answered");
        assert!(
            matches!(answer, Answer::Declined { token: Token(5), reason: Declined::Path, .. }),
            "{answer:?}"
        );
    }

    #[test]
    fn the_manager_is_answered() {
        let mut unit = unit();
        let shared = Arc::clone(unit.shared());
        let next = snapshot(2);
        std::thread::scope(|scope| {
            let published = scope.spawn(|| {
                let published =
                    crate::runtime::mailbox::publish(std::slice::from_ref(&shared.mailbox), &next);
                let rules = shared.mailbox.ask(0, OffloadCommand::Rules(0, 8), |report| match report {
                    OffloadReport::Rules(rows, next) => Some((rows.len(), next)),
                    OffloadReport::Adopted(_) | OffloadReport::Denials(_) | OffloadReport::Partitions(_) => {
                        None
                    }
                });
                (published, rules)
            });
            while !published.is_finished() {
                unit.turn();
            }
            assert_eq!(published.join().expect("no panic"), (Ok(()), Ok((0, None))));
        });
        assert_eq!(shared.mailbox.generation(), 2);
    }

    #[test]
    fn at_the_end_nothing_is_left_nor_asked_for() {
        let mut unit = unit();
        unit.turn();
        unit.empty();
        assert_eq!(unit.engine.flushed, 2, "tried again");
        drop(Ending(&unit.shared));
        assert!(unit.shared.has_ended());
        assert_eq!(unit.shared.rings.worker(WorkerId(0)).expect("there").price(), u32::MAX);
    }
}
