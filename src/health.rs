//! The checker: a thread that probes backends by way of the workers, and tells the manager who takes new
//! connections.
//!
//! What to probe follows from each snapshot; what was found is on the [`Board`]. The thread decides nothing
//! by itself ([`health::Machine`] does) and waits for nobody. Without it, or when it hangs, backends stay as
//! they are.

mod afresh;
mod hints;
#[cfg(test)]
mod tests;

use crate::api::{BackendRow, HealthRow};
use crate::clock::Clock;
use crate::control::{Event, Events};
use crate::ports::OpenPort;
use crate::runtime::probe_rings::{ProbeRings, SENDER};
use dataplane::addr::Ip;
use dataplane::counters::WorkerCounters;
use dataplane::drops::DropReason;
use dataplane::ids::BackendId;
use dataplane::snapshot::{Backend, BackendState, Service, Snapshot, Standings};
use health::machine::{BackendSpec, ServiceSpec, View};
use health::{Cause, Fate, Job, Memory, Rounds, State, TargetId, Wire};
use hints::{Hint, Hints};
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How old what devices have lost may be when a probe begins: what came before counts as lost meanwhile.
const SAMPLE_MS: u64 = 20;
/// Least time between two changes of the snapshot.
const BATCH_MS: u64 = 50;
/// How old what is shown may be where nothing has changed.
const REFRESH_MS: u64 = 1000;
/// A thread that was away for so long cannot tell who was silent meanwhile.
const STALL_MS: u64 = 100;
/// A thread that has run for so long is not thought of as one that panics again and again.
const STEADY_MS: u64 = 60_000;
/// Between two looks while answers may come.
const PAUSE: Duration = Duration::from_millis(1);
/// Between two looks otherwise.
const REST: Duration = Duration::from_millis(5);

/// What the checker and the manager tell each other.
#[derive(Default)]
pub(crate) struct Board {
    /// The manager's latest snapshot, and whether the checker has yet to see it.
    snapshot: Option<Arc<Snapshot>>,
    unseen: bool,
    findings: Arc<Findings>,
}

/// What the checker has found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Findings {
    /// For the next snapshot.
    pub(crate) standings: Standings,
    /// Services whose health is ignored, as too few of their backends are up.
    pub(crate) panics: Vec<String>,
    /// Probes that went well, went badly, and of which nothing is known.
    pub(crate) probes: [u64; 3],
    /// How often the checker was started afresh.
    pub(crate) restarts: u64,
    /// What is known of backends, by service and the backend's name.
    backends: HashMap<Arc<str>, HashMap<String, Memory>>,
}

impl Findings {
    /// Adds what was found to the backends' rows.
    pub(crate) fn annotate(&self, now_ms: u64, rows: &mut [BackendRow]) {
        for row in rows {
            let of_service = self.backends.get(row.service.as_str());
            row.health =
                of_service.and_then(|of| of.get(&row.backend)).map(|memory| health_row(memory, now_ms));
        }
    }

    /// A service of which nothing was found yet.
    #[cfg(test)]
    pub(crate) fn checked(service: &str) -> Findings {
        let backends = [(service.into(), HashMap::new())].into_iter().collect();
        Findings { backends, panics: vec![service.to_owned()], ..Findings::default() }
    }

    /// Services that are checked, and whether their health is ignored.
    pub(crate) fn services(&self) -> impl Iterator<Item = (&str, bool)> {
        let ignored = |name: &str| self.panics.iter().any(|panic| panic == name);
        self.backends.keys().map(move |name| (&**name, ignored(name)))
    }
}

fn health_row(memory: &Memory, now_ms: u64) -> HealthRow {
    let transitions = Cause::ALL.iter().zip(memory.transitions).filter(|(_, count)| *count > 0);
    HealthRow {
        state: memory.state.name().to_owned(),
        age_ms: now_ms.saturating_sub(memory.since_ms),
        last_error: memory.last_error.map_or_else(String::new, |cause| cause.name().to_owned()),
        transitions: transitions.map(|(cause, count)| (cause.name().to_owned(), count)).collect(),
    }
}

/// Between the checker and the manager.
#[derive(Clone, Default)]
pub(crate) struct Shared(Arc<Mutex<Board>>);

impl Shared {
    fn with<T>(&self, f: impl FnOnce(&mut Board) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The manager tells what is in force.
    pub(crate) fn publish(&self, snapshot: &Arc<Snapshot>) {
        let old = self.with(|board| {
            board.unseen = true;
            board.snapshot.replace(Arc::clone(snapshot))
        });
        drop(old);
    }

    /// What the checker has yet to see.
    fn news(&self) -> Option<Arc<Snapshot>> {
        self.with(|board| board.snapshot.clone().filter(|_| std::mem::take(&mut board.unseen)))
    }

    /// Another checker takes over: it is told all of it again.
    fn start_afresh(&self) {
        self.with(|board| {
            board.unseen = true;
            let restarts = board.findings.restarts + 1;
            board.findings = Arc::new(Findings { restarts, ..Findings::clone(&board.findings) });
        });
    }

    /// What was found.
    pub(crate) fn findings(&self) -> Arc<Findings> {
        self.with(|board| Arc::clone(&board.findings))
    }
}

/// The thread's own.
pub(crate) struct Checker<'a> {
    shared: Shared,
    rings: Arc<ProbeRings>,
    ports: &'a [OpenPort<'a>],
    workers: Vec<Arc<WorkerCounters>>,
    clock: Clock,
    events: Events,
    /// Makes the thread panic, once.
    #[cfg(test)]
    fault: AtomicBool,
}

impl<'a> Checker<'a> {
    /// A checker that asks by way of these ports, takes hints from what these workers count, and tells its
    /// news as events.
    pub(crate) fn new(
        ports: &'a [OpenPort<'a>],
        workers: Vec<Arc<WorkerCounters>>,
        clock: Clock,
        events: Events,
    ) -> Checker<'a> {
        let rings = Arc::new(ProbeRings::new());
        Checker {
            shared: Shared::default(),
            rings,
            ports,
            workers,
            clock,
            events,
            #[cfg(test)]
            fault: AtomicBool::new(false),
        }
    }

    /// The manager's side.
    pub(crate) fn shared(&self) -> Shared {
        self.shared.clone()
    }

    /// The workers' side.
    pub(crate) fn rings(&self) -> Arc<ProbeRings> {
        Arc::clone(&self.rings)
    }

    fn now_ms(&self) -> u64 {
        self.clock.milliseconds(dpdk::clock::rdtsc())
    }

    /// Checks until `stop`, whatever happens to those that do it: what they have found stays.
    fn run(&self, stop: &AtomicBool) {
        let started_ms = Cell::new(self.now_ms());
        let work = || {
            started_ms.set(self.now_ms());
            Work::new(self).run(stop);
        };
        let steady = || self.now_ms() > started_ms.get() + STEADY_MS;
        afresh::again(work, steady, |panicked, wait| {
            tracing::error!(%panicked, "the health checker is started afresh in {wait:?}; backends stay as they are");
            self.rings.forget();
            self.shared.start_afresh();
            let until_ms = self.now_ms() + wait.as_millis() as u64;
            while !stop.load(Relaxed) && self.now_ms() < until_ms {
                std::thread::sleep(REST);
            }
            !stop.load(Relaxed)
        });
    }
}

/// Runs `body` with the checker beside it.
pub(crate) fn beside<T>(checker: Checker<'_>, body: impl FnOnce() -> T) -> T {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let work = || checker.run(&stop);
        if let Err(error) = std::thread::Builder::new().name("health".to_owned()).spawn_scoped(scope, work) {
            tracing::error!(%error, "no thread for health checks; backends stay as they are at first");
        }
        let result = body();
        stop.store(true, Relaxed);
        result
    })
}

struct Work<'a> {
    checker: &'a Checker<'a>,
    rounds: Rounds,
    line: Line<'a>,
    jobs: HashMap<TargetId, Job>,
    hints: Hints,
    /// What the one before has found, until there are backends to know it of.
    recall: Option<Arc<Findings>>,
    panics: Vec<String>,
    restarts: u64,
    published_ms: u64,
    changed: bool,
}

/// The probes' way out.
struct Line<'a> {
    checker: &'a Checker<'a>,
    /// By [`BackendId`]: the device of the port that leads there.
    devices: Vec<Option<usize>>,
    /// By device.
    samples: Vec<Sample>,
    /// When this turn began.
    now_ms: u64,
}

impl Wire for Line<'_> {
    fn expect(&mut self, port: u16, to: Option<Ip>) {
        self.checker.rings.expect(port, to);
    }

    fn send(&mut self, backend: BackendId, port: u16, packet: &[u8]) -> Option<u64> {
        self.checker.rings.push(backend, port, packet)
    }

    fn losses(&mut self, backend: BackendId, exact: bool) -> u64 {
        let counted = |worker: &WorkerCounters, reason: DropReason| worker.dropped[reason as usize].get();
        let workers = &self.checker.workers;
        let sender = workers.get(SENDER.index()).map_or(0, |worker| counted(worker, DropReason::TxRingFull));
        let handed = workers.iter().map(|worker| counted(worker, DropReason::HandOffRingFull)).sum::<u64>();
        let missed = self.device(backend).map_or(0, |device| self.missed(device, exact));
        self.checker.rings.losses() + sender + handed + missed
    }

    fn fate(&self, backend: BackendId, port: u16, number: u64) -> Fate {
        let device = self.device(backend).and_then(|device| self.checker.ports.get(device));
        let link_up = device.is_some_and(|device| device.port.link().is_ok_and(|link| link.up));
        match self.checker.rings.taken() >= number {
            true if link_up && self.checker.rings.waits(port) => Fate::Waits,
            true if link_up => Fate::Left,
            _ => Fate::Stuck,
        }
    }
}

impl Line<'_> {
    fn device(&self, backend: BackendId) -> Option<usize> {
        self.devices.get(backend.index()).copied().flatten()
    }

    /// What a device has lost. Drivers may take long to say, so they are asked as seldom as will do.
    fn missed(&mut self, device: usize, exact: bool) -> u64 {
        let (Some(port), Some(sample)) = (self.checker.ports.get(device), self.samples.get_mut(device))
        else {
            return 0;
        };
        let old_ms = self.now_ms.saturating_sub(sample.at_ms);
        if old_ms >= SAMPLE_MS || exact && old_ms > 0 {
            // One that does not say has lost nothing that it knows of.
            if let Ok(stats) = port.port.stats() {
                sample.missed = stats.rx_missed + stats.rx_no_buffers + stats.tx_errors;
            }
            sample.at_ms = self.now_ms;
        }
        sample.missed
    }
}

/// What a device had lost at some time.
#[derive(Clone, Copy, Default)]
struct Sample {
    at_ms: u64,
    missed: u64,
}

impl<'a> Work<'a> {
    fn new(checker: &'a Checker<'a>) -> Work<'a> {
        let before = checker.shared.findings();
        let mut rounds = Rounds::new(dpdk::clock::rdtsc());
        rounds.probes = before.probes;
        let samples = vec![Sample::default(); checker.ports.len()];
        Work {
            checker,
            rounds,
            line: Line { checker, devices: Vec::new(), samples, now_ms: 0 },
            jobs: HashMap::new(),
            hints: Hints::new(checker.workers.clone()),
            panics: before.panics.clone(),
            restarts: before.restarts,
            recall: Some(before),
            published_ms: 0,
            changed: false,
        }
    }

    fn run(mut self, stop: &AtomicBool) {
        let mut last_ms = self.checker.now_ms();
        while !stop.load(Relaxed) {
            let now_ms = self.checker.now_ms();
            if now_ms > last_ms + STALL_MS {
                self.rounds.give_up_all(now_ms, &mut self.line);
            }
            last_ms = now_ms;
            self.line.now_ms = now_ms;
            if let Some(snapshot) = self.checker.shared.news() {
                self.adopt(now_ms, &snapshot);
            }
            #[cfg(test)]
            assert!(!self.checker.fault.swap(false, Relaxed), "a fault for a test");
            self.turn(now_ms);
            std::thread::sleep(if self.rounds.under_way() > 0 { PAUSE } else { REST });
        }
    }

    fn turn(&mut self, now_ms: u64) {
        let rings = &self.checker.rings;
        self.rounds.hear(now_ms, || rings.answer(), &mut self.line);
        for Hint { target, failures } in self.hints.take(now_ms) {
            self.rounds.machine.on_hint(now_ms, target, failures);
        }
        let jobs = &self.jobs;
        self.rounds.ask(now_ms, |target| jobs.get(&target).cloned(), &mut self.line);
        self.rounds.machine.tick(now_ms);
        self.tell(now_ms);
    }

    /// Probes what a snapshot names.
    fn adopt(&mut self, now_ms: u64, snapshot: &Snapshot) {
        let device = |backend: &Backend| {
            let hop = backend.hop?;
            let port = snapshot.port(hop.port)?;
            Some(port.parent.unwrap_or(hop.port).index())
        };
        self.line.devices = snapshot.backends.iter().map(|slot| slot.as_ref().and_then(device)).collect();
        let mut backends: HashMap<_, Vec<&Backend>> = HashMap::new();
        for backend in snapshot.backends.iter().flatten() {
            if !matches!(backend.state, BackendState::Removed(_)) {
                backends.entry(backend.service).or_default().push(backend);
            }
        }
        let checked = snapshot.services.iter().flatten().filter(|service| !service.removed);
        let (mut specs, mut jobs) = (Vec::new(), Vec::new());
        for service in checked {
            let Some(health) = &service.health else { continue };
            let of_service = backends.remove(&service.id).unwrap_or_default();
            let spec = |backend: &&Backend| BackendSpec {
                address: backend.address,
                port: backend.port,
                counts: backend.weight > 0 && backend.state != BackendState::Draining,
            };
            specs.push(ServiceSpec {
                name: service.name.as_str().into(),
                health: Arc::clone(health),
                backends: of_service.iter().map(spec).collect(),
            });
            jobs.extend(of_service.iter().map(|backend| job(snapshot, service, backend)));
        }
        self.rounds.machine.configure(now_ms, specs);
        if let Some(before) = self.recall.take() {
            self.remember(&before);
        }
        let targets = self.rounds.machine.views().flat_map(|(_, _, views)| views).map(|(target, _)| target);
        let jobs = targets.collect::<Vec<_>>().into_iter().zip(jobs);
        self.jobs = jobs.filter_map(|(target, job)| Some((target, Job { target, ..job? }))).collect();
        self.hints.follow(self.jobs.iter().map(|(target, job)| (*target, job.backend)));
    }

    /// Takes over what was found before.
    fn remember(&mut self, before: &Findings) {
        let mut known = Vec::new();
        for (spec, _, views) in self.rounds.machine.views() {
            let Some(backends) = before.backends.get(&spec.name) else { continue };
            for (target, View { spec, .. }) in views {
                let name = crate::rows::backend_name(spec.address, spec.port);
                known.extend(backends.get(&name).map(|memory| (target, memory)));
            }
        }
        for (target, memory) in known {
            self.rounds.machine.recall(target, memory);
        }
    }

    /// Tells the log and the manager what has changed.
    fn tell(&mut self, now_ms: u64) {
        for change in self.rounds.machine.take_transitions() {
            let (service, backend) =
                (&change.service, crate::rows::backend_name(change.address, change.port));
            match change.to {
                State::Down => {
                    tracing::warn!(%service, backend, cause = change.cause.name(), "backend is down")
                }
                State::Up | State::Unknown => tracing::info!(%service, backend, "backend is up"),
            }
        }
        self.changed |= self.rounds.machine.take_changed();
        let wait_ms = if self.changed { BATCH_MS } else { REFRESH_MS };
        if now_ms < self.published_ms + wait_ms {
            return;
        }
        (self.changed, self.published_ms) = (false, now_ms);
        let (probes, restarts) = (self.rounds.probes, self.restarts);
        let mut findings = Findings { probes, restarts, ..Findings::default() };
        for (spec, panics, views) in self.rounds.machine.views() {
            let service = &spec.name;
            let standing =
                |(_, view): (TargetId, View<'_>)| ((view.spec.address, view.spec.port), view.standing);
            let named = |(_, view): &(TargetId, View<'_>)| {
                (crate::rows::backend_name(view.spec.address, view.spec.port), view.memory.clone())
            };
            findings.backends.insert(Arc::clone(service), views.iter().map(named).collect());
            findings.standings.set(service, &spec.health, views.into_iter().map(standing));
            if panics {
                findings.panics.push(service.to_string());
            }
        }
        self.shout(&findings.panics);
        let findings = Arc::new(findings);
        let before =
            self.checker.shared.with(|board| std::mem::replace(&mut board.findings, Arc::clone(&findings)));
        if before.standings != findings.standings {
            // A manager that is gone needs to know nothing.
            let _ = self.checker.events.send(Event::Health);
        }
    }

    fn shout(&mut self, panics: &[String]) {
        for service in panics.iter().filter(|service| !self.panics.contains(service)) {
            tracing::error!(service, "too few backends are up: health is ignored, all get new connections");
        }
        for service in self.panics.iter().filter(|service| !panics.contains(service)) {
            tracing::warn!(service, "enough backends are up again: health counts");
        }
        self.panics = panics.to_vec();
    }
}

/// How a backend is asked; `None` without a way to it, or an address of ours to ask from.
fn job(snapshot: &Snapshot, service: &Service, backend: &Backend) -> Option<Job> {
    let health = Arc::clone(service.health.as_ref()?);
    let hop = backend.hop?;
    let remote = service.probed(backend);
    let port = health.port.or(backend.port).or_else(|| service.ports.first().map(|ports| *ports.start()))?;
    let local = snapshot.probe_source(service, hop, remote)?;
    // The target is filled in by the caller, who knows it.
    Some(Job { target: TargetId(0), backend: backend.id, local, remote, port, health })
}
