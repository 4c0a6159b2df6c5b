//! The manager: the main thread while packets flow. It owns everything but the packets.
//!
//! It waits for events (requests from the control API, signals) and handles one after the other, so that
//! nothing here is shared or locked. Workers are told through their mailboxes. What takes long, which is to
//! read a configuration and to build its tables, is done beside: questions are answered meanwhile, and what
//! would change anything waits.

use crate::access::Caller;
use crate::api::{
    BackendName, ChangeRow, Changed, ConnectionQuery, Connections, NeighbourRow, PortRow, Refusal,
    ReloadQuery,
};
use crate::api::{BackendRow, Limit, OffloadRow, RefusalKind, Reloaded, RuleQuery, VersionInfo, WorkerRow};
use crate::beside::{leisurely, urgently};
use crate::capture::Desk;
use crate::clock::{self, Clock};
use crate::control::{Event, Readiness, Request};
use crate::history::History;
use crate::inbox::Inbox;
use crate::meters::{self, MeterBooks};
use crate::metrics::{Exporter, Figures, PoolRow};
use crate::offloading::Offloading;
use crate::ports::{self, OpenPort, Pool};
use crate::reload::{self, Source};
use crate::rows::{self, Books, ConnectionFilter};
use crate::runtime::mailbox::{self, Command, ConnectionPage, Mailbox, Report, Silent};
use crate::trace::{Arrival, Lines, TraceQuery, TraceRow};
use crate::verdicts::Verdicts;
use crate::{Failure, commands, health, plan, version};
use dataplane::config::{self, Config};
use dataplane::counters::WorkerCounters;
use dataplane::ids::BackendId;
use dataplane::owner::Owners;
use dataplane::snapshot::{Backend, BackendState, OnRemove, Overrides, PortFacts, Snapshot};
use dataplane::worker::{Shadow, Sizes};
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

/// Connections a worker copies per question.
const PAGE_ROWS: usize = 4096;
/// How often backends that are gone for good are looked for.
const UPKEEP: Duration = Duration::from_secs(1);
/// By how many policies connections may be behind. Generations of policies come round after 256.
const POLICIES_AHEAD_MAX: u8 = 100;
/// How long to wait for a question while something is being built.
const GLANCE: Duration = Duration::from_millis(1);
/// How long a worker may take for a turn before it counts as stuck.
const TURN_MAX: Duration = Duration::from_secs(1);

/// A worker, as the manager sees it.
pub(crate) struct WorkerHandle {
    pub(crate) core: usize,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) counters: Arc<WorkerCounters>,
    /// Connections its table can hold.
    pub(crate) capacity: u64,
    /// Neighbours its table can hold.
    pub(crate) neighbours_max: usize,
}

/// What is said of a reload.
struct Told {
    generation: u64,
    summary: String,
    changes: Vec<ChangeRow>,
    effects: Vec<String>,
}

/// What is running, given to the manager at start.
pub(crate) struct Running<'a> {
    pub(crate) file: PathBuf,
    pub(crate) config: Config,
    /// The text that it comes from.
    pub(crate) text: String,
    pub(crate) facts: Vec<PortFacts>,
    pub(crate) snapshot: Arc<Snapshot>,
    /// Which worker owns which client.
    pub(crate) owners: Owners,
    pub(crate) ports: &'a [OpenPort<'a>],
    pub(crate) pools: &'a [Pool<'a>],
    pub(crate) workers: Vec<WorkerHandle>,
    pub(crate) verdicts: Arc<Verdicts>,
    pub(crate) offloading: Offloading,
    pub(crate) health: health::Shared,
    pub(crate) clock: Clock,
    pub(crate) dpdk: String,
}

/// See the module's header.
pub(crate) struct Manager<'a> {
    running: Running<'a>,
    inbox: Inbox,
    mailboxes: Vec<Arc<Mailbox>>,
    counters: Vec<Arc<WorkerCounters>>,
    /// Likewise, and of what hardware drops.
    everybody: Vec<Arc<WorkerCounters>>,
    overrides: Overrides,
    books: Books,
    meters: MeterBooks,
    /// When a removed backend was last seen to have connections.
    removed: HashMap<BackendId, u64>,
    exporter: Exporter,
    history: History,
    captures: Desk,
    started_at_s: u64,
    reloaded_at_s: u64,
    reloads: u64,
    reloads_failed: u64,
    /// Whoever builds a snapshot panics.
    #[cfg(test)]
    sabotage: bool,
    /// Whoever tells what a reload has changed panics.
    #[cfg(test)]
    sabotage_telling: bool,
}

impl<'a> Manager<'a> {
    /// A manager of what has just been started, which will handle these events.
    pub(crate) fn new(running: Running<'a>, events: Receiver<Event>) -> Manager<'a> {
        let mailboxes = running.workers.iter().map(|worker| Arc::clone(&worker.mailbox)).collect();
        let counters: Vec<_> = running.workers.iter().map(|worker| Arc::clone(&worker.counters)).collect();
        let everybody: Vec<_> = counters.iter().cloned().chain(running.offloading.dropped()).collect();
        let mut books = Books::new(everybody.clone());
        books.assign(&running.snapshot);
        let mut meters = MeterBooks::new(counters.clone());
        meters.assign(&running.snapshot);
        let now = clock::unix_seconds();
        let mut history = History::default();
        let (by, generation) = (format!("process {}", std::process::id()), running.snapshot.generation);
        history.note("start", &by, Some(generation), format!("{} services", running.config.services.len()));
        Manager {
            running,
            inbox: Inbox::new(events),
            mailboxes,
            counters,
            everybody,
            overrides: Overrides::default(),
            books,
            meters,
            removed: HashMap::new(),
            exporter: Exporter::new(),
            history,
            captures: Desk::default(),
            started_at_s: now,
            reloaded_at_s: now,
            reloads: 0,
            reloads_failed: 0,
            #[cfg(test)]
            sabotage: false,
            #[cfg(test)]
            sabotage_telling: false,
        }
    }

    /// Handles events until told to stop.
    pub(crate) fn run(&mut self) {
        self.log_ready();
        self.running.health.publish(&self.running.snapshot);
        let mut upkeep_at = clock::monotonic() + UPKEEP;
        loop {
            match self.inbox.next(upkeep_at.saturating_duration_since(clock::monotonic())) {
                Ok(Event::Request(request, _)) => self.handle(request),
                Ok(Event::Reload) => self.follow_signal(),
                Ok(Event::Health) => self.follow_health(),
                Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.running.verdicts.print(&self.running.snapshot);
            if clock::monotonic() >= upkeep_at {
                self.tend_offload();
                meters::recount(&self.running.snapshot, &self.books);
                self.forget_removed();
                self.follow_health();
                self.captures.tend(&self.running);
                upkeep_at = clock::monotonic() + UPKEEP;
            }
        }
    }

    /// Answers a question if there is one. What would change anything waits for the change that is being
    /// made.
    fn attend(&mut self) {
        match self.inbox.next_question(GLANCE) {
            Ok(request) => self.handle(request),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(GLANCE),
        }
    }

    /// Answers; whoever asked may have left meanwhile, which is nobody's fault.
    fn handle(&mut self, request: Request) {
        let snapshot = &self.running.snapshot;
        match request {
            Request::Policy(reply) => drop(reply.send(self.books.policy(&self.running.snapshot))),
            Request::Tenants(reply) => drop(reply.send(self.books.tenants(&self.running.config))),
            Request::Services(reply) => {
                let tenants = &self.running.config.tenants;
                drop(reply.send(rows::services(snapshot, tenants, &self.books)));
            }
            Request::Backends(reply) => drop(reply.send(self.backends())),
            Request::Connections(query, reply) => drop(reply.send(self.connections(&query))),
            Request::Ports(reply) => drop(reply.send(self.ports())),
            Request::Workers(reply) => drop(reply.send(self.workers())),
            Request::Meters(reply) => {
                drop(reply.send(self.meters.rows(snapshot, &self.running.config.tenants)))
            }
            Request::Drops(reply) => drop(reply.send(rows::drops(&self.everybody))),
            Request::Neighbours(reply) => drop(reply.send(self.neighbours())),
            Request::Offload(reply) => drop(reply.send(self.offload())),
            Request::Rules(query, reply) => {
                drop(reply.send(self.running.offloading.rules(&query, snapshot)));
            }
            Request::Trace(query, reply) => drop(reply.send(self.trace(&query))),
            Request::Version(reply) => drop(reply.send(self.version())),
            Request::Capture(by, query, reply) => {
                drop(reply.send(self.captures.start(&by, &query, &self.running)));
            }
            Request::CaptureStop(id, reply) => drop(reply.send(self.captures.stop(id.id, &self.running))),
            Request::CapturePage(id, reply) => drop(reply.send(self.captures.find(id.id))),
            Request::Drain(caller, name, reply) => drop(reply.send(self.drain(&caller, &name, true))),
            Request::Undrain(caller, name, reply) => drop(reply.send(self.drain(&caller, &name, false))),
            Request::Reload(caller, query, reply) => {
                let file = Source::File(self.running.file.clone());
                drop(reply.send(self.reload(&caller.to_string(), &file, &query)));
            }
            Request::Config(caller, query, text, reply) => {
                drop(reply.send(self.reload(&caller.to_string(), &Source::Upload(text), &query)));
            }
            Request::History(reply) => drop(reply.send(self.history.rows())),
            Request::Metrics(reply) => drop(reply.send(self.metrics())),
            Request::Health(reply) => drop(reply.send(self.stuck_workers())),
            Request::Readiness(reply) => drop(reply.send(self.readiness())),
        }
    }

    fn follow_signal(&mut self) {
        let file = Source::File(self.running.file.clone());
        // The log and history have what became of it.
        let _ = self.reload("SIGHUP", &file, &ReloadQuery::default());
    }

    /// Reads a configuration and puts it in force, or refuses it as a whole. A dry run does all of it but
    /// that, and leaves no trace.
    fn reload(&mut self, by: &str, source: &Source, query: &ReloadQuery) -> Result<Reloaded, Refusal> {
        let dry_run = query.dry_run.unwrap_or(false);
        let (result, cause) = (self.try_reload(source, dry_run), source.cause());
        match &result {
            _ if dry_run => {}
            Ok((reloaded, late)) => {
                let generation = reloaded.generation;
                let summary = remembered(reloaded.summary.clone(), late);
                self.history.note(cause, by, Some(generation), summary);
                tracing::info!(generation, by, "configuration {cause}ed");
                late.iter().for_each(|late| tracing::error!(by, "{}", late.error));
            }
            Err(refusal) => {
                self.reloads_failed += 1;
                self.history.note(cause, by, None, not_done(cause, refusal));
                tracing::error!(by, "{}", not_done(cause, refusal));
            }
        }
        let (told, late) = result?;
        let message = format!("{}: {}", source.done(dry_run), told.summary);
        let Told { generation, changes, effects, .. } = told;
        late.map_or(Ok(Reloaded { generation, dry_run, message, changes, effects }), Err)
    }

    /// What has been done, and what is late of it.
    fn try_reload(&mut self, source: &Source, dry_run: bool) -> Result<(Told, Option<Refusal>), Refusal> {
        let (config, text) = self.read(source).map_err(|failure| match failure {
            Failure::Faulty(faults) if !dry_run => {
                commands::log_faults(&faults);
                refusal_of(Failure::Faulty(faults))
            }
            other => refusal_of(other),
        })?;
        if !dry_run {
            commands::log_faults(&config.warnings);
        }
        let mut fixed = reload::fixed_keys_changed(&self.running.config, &config);
        if self.running.offloading.counters().is_some() {
            fixed.extend(reload::rule_keys_changed(&self.running.config, &config));
        }
        if !fixed.is_empty() {
            let error = format!(
                "these keys cannot change while Millrace runs; restart it, or take the changes back: {}",
                fixed.join(", ")
            );
            return Err(Refusal::new(RefusalKind::Faulty, error));
        }
        let mut overrides = self.overrides.clone();
        overrides.drained.retain(|(service, address, port)| {
            let configured = |found: &config::Service| {
                found.name == *service && backends_of(found).any(|backend| backend == (*address, *port))
            };
            config.services.iter().any(configured)
        });
        let effects = self.effects(&config);
        // Whoever denies something waits for that to be in force, and not for what is said about it: how the
        // texts differ is told afterwards.
        let (before, late) = if dry_run {
            // Built as it would be, for it can be refused for lack of slots.
            self.next(&config, &overrides)?;
            (self.running.text.clone(), None)
        } else {
            let late = self.change(config, overrides)?;
            self.reloads += 1;
            self.reloaded_at_s = clock::unix_seconds();
            (std::mem::replace(&mut self.running.text, text.clone()), late)
        };
        let (summary, changes) = match self.differences(&before, &text) {
            Ok(changes) => (plan::summary(&changes), changes),
            // There is nothing else to a dry run.
            Err(refusal) if dry_run => return Err(refusal),
            Err(refusal) => {
                let summary = format!("what has changed cannot be told: {}", refusal.error);
                tracing::error!("{summary}");
                (summary, Vec::new())
            }
        };
        let generation = self.running.snapshot.generation;
        Ok((Told { generation, summary, changes, effects }, late))
    }

    /// The configuration that is there now, and its text.
    fn read(&mut self, source: &Source) -> Result<(Config, String), Failure> {
        urgently(|| source.read(), || self.attend())?
    }

    /// How one text differs from another.
    fn differences(&mut self, before: &str, after: &str) -> Result<Vec<ChangeRow>, Refusal> {
        #[cfg(test)]
        let sabotage = self.sabotage_telling;
        let tell = || {
            #[cfg(test)]
            assert!(!sabotage, "no words");
            plan::changes(before, after)
        };
        let told = leisurely(tell, || self.attend()).map_err(|panicked| refusal_of(panicked.into()))?;
        told.map_err(|error| Refusal::new(RefusalKind::Failed, error.to_string()))
    }

    /// What becomes of the connections of backends that `config` does not have any more.
    fn effects(&self, config: &Config) -> Vec<String> {
        let services: HashMap<&str, &config::Service> =
            config.services.iter().map(|service| (service.name.as_str(), service)).collect();
        let effect = |backend: &Backend| {
            let was = self.running.snapshot.service(backend.service)?;
            let service = services.get(was.name.as_str());
            let key = (backend.address, backend.port);
            let stays = service.is_some_and(|service| backends_of(service).any(|backend| backend == key));
            let live = self.books.live(backend.id);
            if stays || live == 0 || matches!(backend.state, BackendState::Removed(_)) {
                return None;
            }
            let fate = match service.map_or(was.on_remove, |service| service.on_remove) {
                OnRemove::Drain => "go on until they end",
                OnRemove::Reset => "are reset",
            };
            let name = rows::backend_name(key.0, key.1);
            Some(format!("the {live} connections of {name} of {} {fate}", was.name))
        };
        self.running.snapshot.backends.iter().flatten().filter_map(effect).collect()
    }

    /// The snapshot that would follow.
    fn next(&mut self, config: &Config, overrides: &Overrides) -> Result<Snapshot, Refusal> {
        let now_ms = self.now_ms();
        // A removed backend gets no new connections, so what is free now stays so.
        let removed = self
            .running
            .snapshot
            .backends
            .iter()
            .flatten()
            .filter(|backend| matches!(backend.state, BackendState::Removed(_)));
        let in_use: HashSet<BackendId> =
            removed.map(|backend| backend.id).filter(|&id| self.in_use(id, now_ms) > 0).collect();
        let live = |id| u64::from(in_use.contains(&id));
        let (facts, current) = (self.running.facts.clone(), Arc::clone(&self.running.snapshot));
        #[cfg(test)]
        let sabotage = self.sabotage;
        let build = || {
            #[cfg(test)]
            assert!(!sabotage, "a table has lost a leg");
            Snapshot::build(config, &facts, overrides, Some(&current), &live)
        };
        let built = urgently(build, || self.attend()).map_err(|panicked| refusal_of(panicked.into()))?;
        built.map_err(|error| Refusal::new(RefusalKind::Faulty, error.to_string()))
    }

    /// Drains a backend, or ends that.
    fn drain(&mut self, caller: &Caller, name: &BackendName, drain: bool) -> Result<Changed, Refusal> {
        let key = find_backend(&self.running.config, name)
            .map_err(|error| Refusal::new(RefusalKind::NotFound, error))?;
        let mut overrides = self.overrides.clone();
        let changes = if drain { overrides.drained.insert(key) } else { overrides.drained.remove(&key) };
        let BackendName { service, backend } = name;
        let message = match (drain, changes) {
            (true, true) => format!("{backend} of {service} is draining"),
            (true, false) => format!("{backend} of {service} was draining already"),
            (false, true) => format!("{backend} of {service} takes connections by its weight again"),
            (false, false) => format!("{backend} of {service} was not drained"),
        };
        if !changes {
            return Ok(Changed { generation: self.running.snapshot.generation, message });
        }
        let late = self.change(self.running.config.clone(), overrides)?;
        let generation = self.running.snapshot.generation;
        tracing::info!(generation, by = %caller, "{message}");
        let cause = if drain { "drain" } else { "undrain" };
        self.history.note(cause, &caller.to_string(), Some(generation), remembered(message.clone(), &late));
        late.map_or(Ok(Changed { generation, message }), Err)
    }

    /// Builds the next snapshot, puts it in force and waits until every worker forwards by it. An error
    /// changes nothing. That a worker is late changes nothing about what is in force, so it is told beside.
    fn change(&mut self, config: Config, overrides: Overrides) -> Result<Option<Refusal>, Refusal> {
        let failed = |error: String| Refusal::new(RefusalKind::Failed, error);
        // Slots may only be given away once all workers have stopped using them.
        mailbox::publish(&self.mailboxes, &self.running.snapshot)
            .map_err(|late| failed(format!("{late}: it has not taken up the configuration before")))?;
        let next = Arc::new(self.next(&config, &overrides)?);
        if let Some(worker) = self.behind(next.policy().generation()) {
            let error = "has yet to judge its connections by the policies before; try again in a moment";
            return Err(failed(format!("worker {worker} {error}")));
        }
        self.books.assign(&next);
        self.meters.assign(&next);
        let generation = next.generation;
        let published = mailbox::publish(&self.mailboxes, &next);
        // A late worker adopts it when it comes round, so this is in force either way: all of it, or the
        // next change would start from a configuration that nobody forwards by.
        self.running.snapshot = next;
        self.running.config = config;
        self.overrides = overrides;
        self.running.health.publish(&self.running.snapshot);
        self.note_removed();
        // Hardware follows; what it still forwards by the old configuration, workers know of and revoke.
        if self.running.offloading.publish(&self.running.snapshot).is_err() {
            tracing::warn!(generation, "the offload thread is late to take up the configuration");
        }
        let late = |late| failed(format!("{late}; the change is in force and reaches it later"));
        Ok(published.err().map(late))
    }

    /// A worker with connections that no policy of the last ones before this generation has judged.
    fn behind(&self, generation: u8) -> Option<usize> {
        let behind = |worker: &Arc<WorkerCounters>| {
            generation.wrapping_sub(worker.policy_swept.get() as u8) > POLICIES_AHEAD_MAX
        };
        self.counters.iter().position(behind)
    }

    /// Gives new connections to those whose health checks succeed.
    fn follow_health(&mut self) {
        let findings = self.running.health.findings();
        if findings.standings == self.overrides.health {
            return;
        }
        let overrides = Overrides { health: findings.standings.clone(), ..self.overrides.clone() };
        // What cannot be done now is tried again a second later.
        match self.change(self.running.config.clone(), overrides) {
            Ok(late) => late.iter().for_each(|late| tracing::warn!("backends' health: {}", late.error)),
            Err(refusal) => tracing::warn!("backends stay as they are: {}", refusal.error),
        }
    }

    /// A worker that does not forward by the current snapshot yet.
    fn late_worker(&self) -> Option<Silent> {
        let current = self.running.snapshot.generation;
        self.mailboxes.iter().position(|mailbox| mailbox.generation() != current).map(Silent)
    }

    fn now_ms(&self) -> u64 {
        self.running.clock.milliseconds(dpdk::clock::rdtsc())
    }

    /// How many connections may still use a backend's slot. A removed one's slot is its own for a while
    /// longer, as hardware's last counts for it come late; those of partitions are no connection's.
    fn in_use(&self, id: BackendId, now_ms: u64) -> u64 {
        let offloading = &self.running.offloading;
        let lingers = |last: &u64| now_ms < last + offloading.linger_ms() || offloading.moves_partitions();
        self.books.live(id).max(u64::from(self.removed.get(&id).is_some_and(lingers)))
    }

    /// Remembers which removed backends have connections, and since when the others have none.
    fn note_removed(&mut self) {
        let now_ms = self.now_ms();
        let before = std::mem::take(&mut self.removed);
        for backend in self.running.snapshot.backends.iter().flatten() {
            if !matches!(backend.state, BackendState::Removed(_)) {
                continue;
            }
            let seen = before.get(&backend.id).copied().filter(|_| self.books.live(backend.id) == 0);
            self.removed.insert(backend.id, seen.unwrap_or(now_ms));
        }
    }

    /// Looks whether the offload thread is well, and tells it what it has missed.
    fn tend_offload(&mut self) {
        let now_ms = self.now_ms();
        let Running { offloading, snapshot, .. } = &mut self.running;
        offloading.look(now_ms, &self.counters);
        if offloading.is_late(snapshot.generation) {
            // It is told again in a second if it is still late.
            let _ = offloading.publish(snapshot);
        }
    }

    /// Removed backends that nobody uses any more leave the snapshot.
    fn forget_removed(&mut self) {
        self.note_removed();
        let now_ms = self.now_ms();
        let gone = |(id, _): (&BackendId, &u64)| self.in_use(*id, now_ms) == 0;
        if !self.removed.iter().any(gone) || self.late_worker().is_some() {
            return;
        }
        let (config, overrides) = (self.running.config.clone(), self.overrides.clone());
        if let Err(refusal) = self.change(config, overrides) {
            tracing::warn!("removed backends stay in the tables: {}", refusal.error);
        }
    }

    fn backends(&self) -> Vec<BackendRow> {
        let mut rows = rows::backends(&self.running.snapshot, &self.books);
        self.running.health.findings().annotate(self.now_ms(), &mut rows);
        rows
    }

    fn offload(&self) -> OffloadRow {
        let backends = self.backends();
        self.running.offloading.row(&backends, &self.counters)
    }

    fn connections(&self, query: &ConnectionQuery) -> Result<Connections, Refusal> {
        let snapshot = &self.running.snapshot;
        let filter = ConnectionFilter::new(query, snapshot)
            .map_err(|error| Refusal::new(RefusalKind::NotFound, error))?;
        let limit = query.limit.unwrap_or_default().rows();
        let entries = self.counters.iter().map(|worker| worker.entries.get()).sum();
        let mut found = Connections { entries, ..Connections::default() };
        for worker in 0..self.mailboxes.len() {
            let mut page = ConnectionPage { cursor: Some(0), rows: Vec::with_capacity(PAGE_ROWS) };
            while page.cursor.is_some() {
                page.rows.clear();
                page = self.ask_connections(worker, page)?;
                for row in page.rows.iter().filter(|row| filter.matches(row)) {
                    if found.connections.len() == limit {
                        found.truncated = true;
                        return Ok(found);
                    }
                    found.connections.push(rows::connection(snapshot, row));
                }
            }
        }
        Ok(found)
    }

    fn ask_connections(&self, worker: usize, page: ConnectionPage) -> Result<ConnectionPage, Refusal> {
        let answer = self.mailboxes[worker].ask(worker, Command::Connections(page), |report| match report {
            Report::Connections(page) => Some(page),
            _ => None,
        });
        answer.map_err(|silent| Refusal::new(RefusalKind::Failed, silent.to_string()))
    }

    /// What becomes of a packet: a shadow of the worker that owns its client says so.
    fn trace(&self, query: &TraceQuery) -> Result<TraceRow, Refusal> {
        let failed = |error: String| Refusal::new(RefusalKind::Failed, error);
        let Running { snapshot, owners, workers, config, .. } = &self.running;
        let arrival = Arrival::new(query, snapshot)?;
        let number = owners.owner(arrival.client(snapshot)).index();
        let worker = workers.get(number).ok_or_else(|| failed(Silent(number).to_string()))?;
        let excerpt = Box::new(arrival.excerpt(worker.neighbours_max));
        let answer = worker.mailbox.ask(number, Command::Excerpt(excerpt), |report| match report {
            Report::Excerpt(excerpt) => Some(excerpt),
            _ => None,
        });
        let excerpt = answer.map_err(|silent| failed(silent.to_string()))?;
        if excerpt.generation() != snapshot.generation {
            return Err(failed(format!("worker {number} forwards by an older configuration; ask again")));
        }
        let sizes = Sizes::of(&config.limits);
        let mut shadow = Shadow::new(Arc::clone(snapshot), owners.clone(), &sizes, &excerpt);
        let mut row = arrival.walk(snapshot, &Lines::new(&self.running.text), &mut shadow);
        if let Some(connection) = &row.connection {
            let client = connection.client.parse::<std::net::SocketAddr>().ok().map(|client| client.ip());
            // What is merely passed on has no service.
            let service = Some(connection.service.clone()).filter(|service| !service.is_empty());
            let query = RuleQuery { service, client, limit: Some(Limit::most()), ..RuleQuery::default() };
            let mut rules = self.running.offloading.rules(&query, snapshot)?.rules;
            rules.retain(|rule| rule.client == connection.client && rule.backend == connection.backend);
            row.rules = rules;
        }
        if let Some(rule) = arrival.dropped_by(&row, &self.running.offloading, snapshot) {
            row.hardware = "hardware drops it, and no worker sees it".to_owned();
            row.rules = vec![rule];
        } else if let Some(rule) = arrival.parted_by(&self.running.offloading, snapshot) {
            let partition = &rule.client;
            row.hardware =
                format!("hardware forwards it by {partition}, rule {}: no worker sees it", rule.id);
            row.rules.push(rule);
        }
        Ok(row)
    }

    fn neighbours(&self) -> Result<Vec<NeighbourRow>, Refusal> {
        let mut all = Vec::new();
        for (number, worker) in self.running.workers.iter().enumerate() {
            let room = Vec::with_capacity(worker.neighbours_max);
            let answer = worker.mailbox.ask(number, Command::Neighbours(room), |report| match report {
                Report::Neighbours(views) => Some(views),
                _ => None,
            });
            let views = answer.map_err(|silent| Refusal::new(RefusalKind::Failed, silent.to_string()))?;
            let row = |view| rows::neighbour(&self.running.snapshot, number as u16, view);
            all.extend(views.iter().map(row));
        }
        all.sort_by(|a, b| (&a.port, &a.address, a.worker).cmp(&(&b.port, &b.address, b.worker)));
        Ok(all)
    }

    fn ports(&self) -> Vec<PortRow> {
        ports::rows(self.running.ports, &self.running.snapshot)
    }

    fn workers(&self) -> Vec<WorkerRow> {
        let row = |(number, worker): (usize, &WorkerHandle)| {
            let generation = worker.mailbox.generation();
            rows::worker(number as u16, worker.core, worker.capacity, generation, &worker.counters)
        };
        self.running.workers.iter().enumerate().map(row).collect()
    }

    fn version(&self) -> VersionInfo {
        VersionInfo {
            version: version::VERSION.to_owned(),
            commit: version::COMMIT.to_owned(),
            dpdk: self.running.dpdk.clone(),
            generation: self.running.snapshot.generation,
            config: self.running.file.display().to_string(),
            uptime_ms: self.running.clock.milliseconds(dpdk::clock::rdtsc()),
        }
    }

    fn metrics(&mut self) -> String {
        let snapshot = &self.running.snapshot;
        let pool = |pool: &Pool<'_>| PoolRow {
            name: pool.name.clone(),
            available: pool.mempool.available().into(),
            size: pool.size.into(),
        };
        let backends = self.backends();
        let offloading = &self.running.offloading;
        let figures = Figures {
            services: rows::services(snapshot, &self.running.config.tenants, &self.books),
            policy: self.books.policy(snapshot),
            tenants: self.books.tenants(&self.running.config),
            offload: offloading.row(&backends, &self.counters),
            engine: offloading.counters().map(Arc::clone),
            backends,
            health: self.running.health.findings(),
            workers: self.workers(),
            tables: self.counters.iter().map(|counters| rows::table_events(counters)).collect(),
            ports: self.ports(),
            drops: rows::drops(&self.everybody),
            meters: self.meters.rows(snapshot, &self.running.config.tenants),
            pools: self.running.pools.iter().map(pool).collect(),
            opened: self.books.opened(),
            generation: snapshot.generation,
            reloads: self.reloads,
            reloads_failed: self.reloads_failed,
            reloaded_at_s: self.reloaded_at_s,
            started_at_s: self.started_at_s,
            tsc_hz: self.running.clock.hz(),
            dpdk: self.running.dpdk.clone(),
        };
        self.exporter.render(&figures)
    }

    /// Workers that do not come round their loop.
    fn stuck_workers(&self) -> Vec<String> {
        let before: Vec<u64> = self.counters.iter().map(|worker| worker.polls.get()).collect();
        let deadline = clock::monotonic() + TURN_MAX;
        loop {
            let turning = |(worker, before): (&Arc<WorkerCounters>, &u64)| worker.polls.get() != *before;
            let stuck: Vec<usize> = (0..before.len())
                .filter(|&index| !turning((&self.counters[index], &before[index])))
                .collect();
            if stuck.is_empty() || clock::monotonic() >= deadline {
                let message = |worker| format!("worker {worker} is stuck");
                return stuck.into_iter().map(message).collect();
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// What keeps traffic from being served.
    fn readiness(&self) -> Readiness {
        let ignored = |service: &String| format!("health of {service} is ignored: too few backends are up");
        let notes = self.running.health.findings().panics.iter().map(ignored).collect();
        Readiness { problems: self.not_ready(), notes }
    }

    fn not_ready(&self) -> Vec<String> {
        let mut problems: Vec<String> = self
            .ports()
            .iter()
            .filter(|port| port.parent.is_empty() && !port.link_up)
            .map(|port| format!("port {} has no link", port.name))
            .collect();
        if let Some(late) = self.late_worker() {
            problems.push(format!("worker {} forwards by an older configuration", late.0));
        }
        problems.extend(self.running.offloading.problems());
        if self.running.offloading.is_late(self.running.snapshot.generation) {
            problems.push("the offload thread judges by an older configuration".to_owned());
        }
        let mut services = self.running.snapshot.services.iter().flatten().peekable();
        if services.peek().is_some() && services.all(|service| service.lookup.is_empty()) {
            problems.push("no service has a backend that takes connections".to_owned());
        }
        problems
    }

    /// The first words: what is served.
    fn log_ready(&self) {
        let config = &self.running.config;
        tracing::info!(
            services = config.services.len(),
            backends = config.services.iter().map(|service| service.backends.len()).sum::<usize>(),
            workers = self.running.workers.len(),
            offload = self.offload().engine,
            metrics = %config.metrics.map_or_else(|| "off".to_owned(), |metrics| metrics.listen.to_string()),
            "ready"
        );
    }

    /// The last words: what became of the packets.
    pub(crate) fn log_totals(&self) {
        for row in self.workers() {
            let counters = &self.counters[usize::from(row.worker)];
            tracing::info!(
                worker = row.worker,
                received = row.received,
                sent = row.sent,
                generated = row.generated,
                consumed = row.consumed,
                dropped = row.dropped,
                handed_out = row.handed_out,
                handed_in = row.handed_in,
                held = row.held,
                unaccounted = %counters.imbalance(),
                "worker stopped"
            );
        }
        let offload = self.offload();
        if offload.engine != "none" {
            tracing::info!(
                packets = offload.hardware.packets,
                bytes = offload.hardware.bytes,
                insertions = offload.insertions,
                "offload stopped"
            );
        }
        for row in rows::drops(&self.everybody).iter().filter(|row| row.packets > 0) {
            tracing::info!(reason = row.reason, packets = row.packets, "dropped");
        }
    }
}

fn backends_of(service: &config::Service) -> impl Iterator<Item = (dataplane::addr::Ip, Option<u16>)> {
    service.backends.iter().map(|backend| (backend.address, backend.port))
}

/// The configured backend that is meant: by its name, or by its address if only one has it.
fn find_backend(
    config: &Config,
    name: &BackendName,
) -> Result<(String, dataplane::addr::Ip, Option<u16>), String> {
    let BackendName { service, backend } = name;
    let Some(found) = config.services.iter().find(|candidate| candidate.name == *service) else {
        let names: Vec<&str> = config.services.iter().map(|service| service.name.as_str()).collect();
        return Err(format!("there is no service `{service}`; there are: {}", names.join(", ")));
    };
    let full = |(address, port): &(_, _)| rows::backend_name(*address, *port);
    let exact: Vec<_> = backends_of(found).filter(|key| full(key) == *backend).collect();
    let by_address: Vec<_> = backends_of(found).filter(|(ip, _)| ip.to_string() == *backend).collect();
    match (exact.as_slice(), by_address.as_slice()) {
        ([(address, port)], _) | ([], [(address, port)]) => Ok((service.clone(), *address, *port)),
        ([], []) => {
            let names: Vec<String> = backends_of(found).map(|key| full(&key)).collect();
            Err(format!("service `{service}` has no backend `{backend}`; it has: {}", names.join(", ")))
        }
        _ => Err(format!("service `{service}` has several backends `{backend}`; name the port too")),
    }
}

/// A reload's failure, for the log: whether the file was refused, or a worker has yet to follow it.
fn not_done(cause: &str, refusal: &Refusal) -> String {
    let what = match refusal.kind {
        RefusalKind::Failed => "not completed",
        _ => "refused, the running configuration stays",
    };
    format!("{cause} {what}: {}", refusal.error)
}

/// A change as history tells of it.
fn remembered(summary: String, late: &Option<Refusal>) -> String {
    late.as_ref().map_or(summary.clone(), |late| format!("{summary} ({})", late.error))
}

fn refusal_of(failure: Failure) -> Refusal {
    match failure {
        Failure::Faulty(faults) => {
            let error = format!("{} has faults", faults.file);
            Refusal { faults: vec![faults.to_string()], ..Refusal::new(RefusalKind::Faulty, error) }
        }
        ours @ Failure::Panicked(_) => Refusal::new(RefusalKind::Failed, ours.to_string()),
        other => Refusal::new(RefusalKind::Faulty, other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    const ONE_BACKEND: &str = r#"
[[port]]
name = "lan"
device = "net_null0"
addresses = ["10.0.0.1/24"]
[[service]]
name = "web"
vip = "192.0.2.1"
protocol = "tcp"
ports = [80]
[[service.backend]]
address = "10.0.0.2"
"#;

    fn config(text: &str) -> Config {
        Config::parse("test", text).unwrap_or_else(|faults| panic!("{faults}"))
    }

    /// What a late worker is told of is in force as a whole, configuration included.
    #[test]
    fn a_late_worker_does_not_tear_a_change_apart() {
        let late = WorkerHandle::of(&Arc::new(Mailbox::new(1)));
        let (mut manager, after) = (manager(vec![late]), config(&other_backend()));
        let late = manager.change(after.clone(), Overrides::default()).expect("in force");
        assert_eq!(
            late.expect("nobody reads the mail").error,
            "worker 0 does not answer; the change is in force and reaches it later"
        );
        assert_eq!(manager.running.snapshot.generation, 2);
        assert_eq!(manager.running.config, after);
        assert_eq!(
            manager.not_ready().first().map(String::as_str),
            Some("worker 0 forwards by an older configuration")
        );
    }

    /// A fault of our own while a configuration is being built costs that change, and nothing else.
    #[test]
    fn a_builder_that_panics_leaves_everything_as_it_is() {
        let (mut manager, after) = (manager(Vec::new()), config(&other_backend()));
        let before = (manager.running.config.clone(), Arc::clone(&manager.running.snapshot));
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), other_backend()).expect("room");
        let (source, query) = (Source::File(file.path().to_owned()), ReloadQuery::default());
        manager.sabotage = true;
        let refusal = manager.reload("a test", &source, &query).expect_err("sabotage");
        let said = "a fault of Millrace's own, which has stopped what was begun: a table has lost a leg; please report it \
                    with the configuration";
        assert_eq!((refusal.kind, refusal.error.as_str()), (RefusalKind::Failed, said));
        assert_eq!((&manager.running.config, manager.reloads_failed), (&before.0, 1));
        assert!(Arc::ptr_eq(&manager.running.snapshot, &before.1));
        manager.sabotage = false;
        manager.reload("a test", &source, &query).expect("a reload");
        assert_eq!((manager.running.config.services, manager.reloads), (after.services, 1));
    }

    /// It is in force all the same; only a dry run has nothing else to give.
    #[test]
    fn a_reload_that_cannot_be_told_is_no_unchanged_configuration() {
        let mut manager = manager(Vec::new());
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), other_backend()).expect("room");
        let source = Source::File(file.path().to_owned());
        manager.sabotage_telling = true;
        let dry = ReloadQuery { dry_run: Some(true) };
        let refusal = manager.reload("a test", &source, &dry).expect_err("nothing to tell");
        assert_eq!((refusal.kind, manager.reloads), (RefusalKind::Failed, 0));
        let done = manager.reload("a test", &source, &ReloadQuery::default()).expect("a reload");
        assert!(done.message.contains(": what has changed cannot be told: "), "{}", done.message);
        assert_eq!((manager.reloads, done.generation), (1, manager.running.snapshot.generation));
        assert_eq!(manager.running.text, other_backend());
    }

    fn other_backend() -> String {
        ONE_BACKEND.replace("10.0.0.2", "10.0.0.3")
    }

    impl Running<'static> {
        /// With these workers, and nothing else that would do anything.
        pub(crate) fn alone(workers: Vec<WorkerHandle>) -> Running<'static> {
            running(workers)
        }
    }

    impl WorkerHandle {
        /// Of a worker whose mail somebody else reads.
        pub(crate) fn of(mailbox: &Arc<Mailbox>) -> WorkerHandle {
            let counters = Arc::new(WorkerCounters::new(1, 2));
            WorkerHandle { core: 0, mailbox: Arc::clone(mailbox), counters, capacity: 0, neighbours_max: 0 }
        }
    }

    fn manager(workers: Vec<WorkerHandle>) -> Manager<'static> {
        Manager::new(running(workers), mpsc::channel().1)
    }

    fn running(workers: Vec<WorkerHandle>) -> Running<'static> {
        let before = config(ONE_BACKEND);
        let facts = vec![PortFacts { mac: dataplane::addr::MacAddr([2, 0, 0, 0, 0, 1]), mtu: 1500 }];
        let snapshot = Snapshot::build(&before, &facts, &Overrides::default(), None, &|_| 0);
        let snapshot = Arc::new(snapshot.expect("a snapshot"));
        Running {
            file: PathBuf::new(),
            config: before,
            text: String::new(),
            facts,
            snapshot,
            owners: Owners::new(&dataplane::owner::DEFAULT_KEY, 1, 1).expect("owners"),
            ports: &[],
            pools: &[],
            workers,
            verdicts: Arc::new(Verdicts::new()),
            health: health::Shared::default(),
            offloading: Offloading::new(Err("none here".to_owned()), config::EngineChoice::Auto),
            clock: Clock::new(0, 1_000_000_000),
            dpdk: String::new(),
        }
    }

    fn find(service: &str, backend: &str) -> Result<String, String> {
        let text = r#"
[[port]]
name = "lan"
device = "net_null0"
addresses = ["10.0.0.1/24", "2001:db8::1/64"]
[[service]]
name = "web"
vip = "192.0.2.1"
protocol = "tcp"
ports = [80]
[[service.backend]]
address = "10.0.0.2:8080"
[[service.backend]]
address = "10.0.0.2:8081"
[[service.backend]]
address = "10.0.0.3:8080"
[[service]]
name = "web6"
vip = "2001:db8:1::1"
protocol = "tcp"
ports = [80]
[[service.backend]]
address = "[2001:db8::2]:8080"
"#;
        let config = Config::parse("test", text).unwrap_or_else(|faults| panic!("{faults}"));
        let name = BackendName { service: service.into(), backend: backend.into() };
        find_backend(&config, &name).map(|(_, address, port)| rows::backend_name(address, port))
    }

    #[test]
    fn backends_are_found_by_name_and_by_address_where_that_is_clear() {
        assert_eq!(find("web", "10.0.0.2:8081"), Ok("10.0.0.2:8081".into()));
        assert_eq!(find("web", "10.0.0.3"), Ok("10.0.0.3:8080".into()));
        assert_eq!(find("web6", "2001:db8::2"), Ok("[2001:db8::2]:8080".into()));
        assert_eq!(find("web6", "[2001:db8::2]:8080"), Ok("[2001:db8::2]:8080".into()));
    }

    #[test]
    fn what_is_not_found_is_answered_with_what_there_is() {
        let several = find("web", "10.0.0.2").expect_err("ambiguous");
        assert_eq!(several, "service `web` has several backends `10.0.0.2`; name the port too");
        let none = find("web6", "10.0.0.3").expect_err("missing");
        assert_eq!(none, "service `web6` has no backend `10.0.0.3`; it has: [2001:db8::2]:8080");
        let service = find("wob", "10.0.0.3").expect_err("missing");
        assert_eq!(service, "there is no service `wob`; there are: web, web6");
    }
}
