//! The manager's side of the offload thread: its figures as rows, its rules, and what is wrong with it.

use crate::api::{
    BackendRow, HardwareRow, OffloadRow, Refusal, RefusalKind, RuleQuery, RuleRow, Rules, TrafficRow,
};
use crate::rows::{self, ConnectionFilter};
use crate::runtime::mailbox::{self, Silent};
use crate::runtime::offload::{OffloadCommand, OffloadReport, Shared};
use crate::watch::{Sample, Watch};
use dataplane::config::EngineChoice;
use dataplane::counters::{Counter, WorkerCounters};
use dataplane::flow::{Direction, FlowKey};
use dataplane::ids::PortId;
use dataplane::offload::Revocation;
use dataplane::partition;
use dataplane::snapshot::{Affinity, Snapshot};
use offload::colours;
use offload::counters::{EngineState, Eviction, OffloadCounters, REMOVALS, RequestResult};
use offload::engine::Kind;
use offload::lower::{self, Topology};
use offload::machine;
use offload::testpmd::Dialect;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Connections whose rules are copied per question: some hundred microseconds of the thread's time.
const PAGE: usize = 1024;
/// How much longer than the counters of rules that are out a backend's slot stays its own: reports of such
/// counters may be on their way to workers.
const LINGER_MS: u64 = 2000;

/// An engine that was started.
pub(crate) struct Engine {
    pub(crate) shared: Arc<Shared>,
    pub(crate) topology: Arc<Topology>,
    /// Seconds without a packet after which a rule is reported, where rules can do that.
    pub(crate) age_s: Option<u32>,
    /// How long the counter of a rule that is out may still grow, milliseconds.
    pub(crate) settle_ms: u32,
}

/// See the module's header.
pub(crate) struct Offloading {
    /// Or why there is none.
    engine: Result<Engine, String>,
    watch: Watch,
    /// Recoveries that the log knows of.
    recoveries: u64,
    /// Whether there should be one: it was asked for by name.
    wanted: bool,
}

impl Offloading {
    /// Of the engine that was chosen, or why none could be.
    pub(crate) fn new(engine: Result<Engine, String>, choice: EngineChoice) -> Offloading {
        let wanted = matches!(choice, EngineChoice::Sync | EngineChoice::Template);
        match &engine {
            Ok(engine) => tracing::info!(engine = engine.shared.kind.name(), "hardware takes flow rules"),
            Err(why) if wanted => tracing::warn!("everything is forwarded by software: {why}"),
            Err(why) => tracing::info!("everything is forwarded by software: {why}"),
        }
        Offloading { engine, watch: Watch::default(), recoveries: 0, wanted }
    }

    pub(crate) fn engine(&self) -> Option<&Engine> {
        self.engine.as_ref().ok()
    }

    fn shared(&self) -> Option<&Shared> {
        self.engine().map(|engine| &*engine.shared)
    }

    /// The engine's own counters.
    pub(crate) fn counters(&self) -> Option<&Arc<OffloadCounters>> {
        self.shared().map(|shared| &shared.counters)
    }

    /// How long reports about a backend may still come once its last connection has ended, milliseconds.
    pub(crate) fn linger_ms(&self) -> u64 {
        self.engine.as_ref().map_or(0, |engine| u64::from(engine.settle_ms) + LINGER_MS)
    }

    /// Whether rules of partitions are on their way, or out with counts to come, of whichever backend.
    pub(crate) fn moves_partitions(&self) -> bool {
        let moves = |counters: &Arc<OffloadCounters>| {
            counters.partitions_moving.get() + counters.partitions_settling.get() > 0
        };
        self.counters().is_some_and(moves)
    }

    /// Looks whether all is well: to be called once a second. A thread that hangs is not asked for more.
    pub(crate) fn look(&mut self, now_ms: u64, workers: &[Arc<WorkerCounters>]) {
        let Ok(engine) = &self.engine else { return };
        let shared = &engine.shared;
        let was_stuck = self.watch.is_stuck();
        let recoveries = shared.counters.recoveries.get();
        if recoveries != self.recoveries {
            tracing::warn!(recoveries, "what hardware holds is not certain; all rules are being taken out");
            self.recoveries = recoveries;
        }
        self.watch.look(Sample {
            now_ms,
            turns: shared.turns(),
            ended: shared.has_ended(),
            state: shared.counters.engine_state(),
            misses: sum(workers, |worker| &worker.offload_miss),
            packets: shared.counters.packets.get(),
        });
        if self.watch.is_stuck() {
            shared.rings.refuse();
            if !was_stuck {
                tracing::error!("the offload thread does not turn; new connections stay in software");
            }
        } else if was_stuck {
            tracing::info!("the offload thread turns again");
        }
    }

    /// Tells the thread to judge by `snapshot`, and waits until it does. `Ok` if there is none.
    pub(crate) fn publish(&self, snapshot: &Arc<Snapshot>) -> Result<(), Silent> {
        match self.shared() {
            Some(shared) if self.watch.is_stuck() => {
                let current = shared.mailbox.generation() == snapshot.generation;
                if current { Ok(()) } else { Err(Silent(0)) }
            }
            Some(shared) => mailbox::publish(std::slice::from_ref(&shared.mailbox), snapshot),
            None => Ok(()),
        }
    }

    /// Whether the thread judges by another configuration than the one of this generation.
    pub(crate) fn is_late(&self, generation: u64) -> bool {
        self.shared().is_some_and(|shared| shared.mailbox.generation() != generation)
    }

    /// What is wrong.
    pub(crate) fn problems(&self) -> Vec<String> {
        match &self.engine {
            Ok(_) => self.watch.problems(),
            Err(why) if self.wanted => vec![format!("the offload engine is missing: {why}")],
            Err(_) => Vec::new(),
        }
    }

    /// `show offload`.
    pub(crate) fn row(&self, backends: &[BackendRow], workers: &[Arc<WorkerCounters>]) -> OffloadRow {
        let (mut all, mut hardware) = (TrafficRow::default(), TrafficRow::default());
        for BackendRow { original, reply, hardware: HardwareRow { original: to, reply: from }, .. } in
            backends
        {
            all += *original + *reply;
            hardware += *to + *from;
        }
        let software = TrafficRow {
            packets: all.packets.saturating_sub(hardware.packets),
            bytes: all.bytes.saturating_sub(hardware.bytes),
        };
        let none = OffloadCounters::default();
        let counters = self.counters().map_or(&none, |counters| counters);
        let (engine, state, problems) = match &self.engine {
            Ok(engine) => (engine.shared.kind.name(), self.state(counters), self.problems()),
            Err(why) => ("none", "off", vec![why.clone()]),
        };
        let figures = OffloadRow { hardware, software, ..figures(counters, workers) };
        OffloadRow { engine: engine.to_owned(), state: state.to_owned(), problems, ..figures }
    }

    fn state(&self, counters: &OffloadCounters) -> &'static str {
        if self.watch.is_stuck() { "stuck" } else { counters.engine_state().name() }
    }

    /// The rule in force of the partition that packets with these ends are of, which come in by this port.
    pub(crate) fn partition_of(&self, port: PortId, ends: &FlowKey, snapshot: &Snapshot) -> Option<RuleRow> {
        let service = snapshot.classify(ends.tenant, ends.dst, ends.protocol, ends.dst_port)?;
        let Affinity::Partition { bits } = service.affinity else { return None };
        let engine = self.engine()?;
        let forwards = |row: &&machine::PartitionRow| {
            (row.service, row.ingress, row.port) == (service.id, port, ends.dst_port)
                && row.partition == partition::of(ends.src, bits)
                && row.state == "installed"
        };
        let rows = engine.partition_rows().ok()?;
        engine.partition_row(snapshot, rows.iter().find(forwards)?)
    }

    /// `show rules`.
    pub(crate) fn rules(&self, query: &RuleQuery, snapshot: &Snapshot) -> Result<Rules, Refusal> {
        let filter = ConnectionFilter::of_rules(query, snapshot)
            .map_err(|error| Refusal::new(RefusalKind::NotFound, error))?;
        let limit = query.limit.unwrap_or_default().rows();
        let Ok(engine) = &self.engine else { return Ok(Rules::default()) };
        let mut found = Rules { total: engine.shared.counters.rules.get(), ..Rules::default() };
        found.rules = engine.denial_rows(query, &filter, snapshot).map_err(|_| silent())?;
        found.truncated = found.rules.len() > limit;
        found.rules.truncate(limit);
        let mut from = (!found.truncated).then_some(0);
        for rule in if found.truncated { Vec::new() } else { engine.partitions(snapshot, &filter)? } {
            if found.rules.len() == limit {
                found.truncated = true;
                return Ok(found);
            }
            found.rules.push(rule);
        }
        while let Some(start) = from {
            let (rows, next) = engine.page(start)?;
            for row in
                rows.iter().filter(|row| filter.means(row.ask.service, &row.ask.key, row.ask.backend_end.0))
            {
                for rule in engine.rules_of(snapshot, row) {
                    if found.rules.len() == limit {
                        found.truncated = true;
                        return Ok(found);
                    }
                    found.rules.push(rule);
                }
            }
            from = next;
        }
        Ok(found)
    }
}

impl Engine {
    /// Rows from `from` on, and where the next ones begin.
    fn page(&self, from: u32) -> Result<(Vec<machine::RuleRow>, Option<u32>), Refusal> {
        let answer = self.shared.mailbox.ask(0, OffloadCommand::Rules(from, PAGE), |report| match report {
            OffloadReport::Rules(rows, next) => Some((rows, next)),
            OffloadReport::Adopted(_) | OffloadReport::Denials(_) | OffloadReport::Partitions(_) => None,
        });
        answer.map_err(|_| silent())
    }

    /// The rules of partitions that the filter means.
    fn partitions(&self, snapshot: &Snapshot, filter: &ConnectionFilter) -> Result<Vec<RuleRow>, Refusal> {
        let told = |row: machine::PartitionRow| {
            let service = snapshot.service(row.service)?;
            let backend = snapshot.backend(row.backend)?;
            let Affinity::Partition { bits } = service.affinity else { return None };
            let meant = filter.means_partition(row.service, backend.address, |client| {
                client.is_v4() == service.vip.is_v4() && partition::of(client, bits) == row.partition
            });
            if meant { self.partition_row(snapshot, &row) } else { None }
        };
        Ok(self.partition_rows()?.into_iter().filter_map(told).collect())
    }

    fn partition_rows(&self) -> Result<Vec<machine::PartitionRow>, Refusal> {
        let answer = self.shared.mailbox.ask(0, OffloadCommand::Partitions, |report| match report {
            OffloadReport::Partitions(rows) => Some(rows),
            OffloadReport::Adopted(_) | OffloadReport::Rules(..) | OffloadReport::Denials(_) => None,
        });
        answer.map_err(|_| silent())
    }

    fn partition_row(&self, snapshot: &Snapshot, row: &machine::PartitionRow) -> Option<RuleRow> {
        let service = snapshot.service(row.service)?;
        let Affinity::Partition { bits } = service.affinity else { return None };
        Some(RuleRow {
            id: row.rule_id.0,
            direction: "original".to_owned(),
            service: service.name.clone(),
            client: format!("partition {} of {}", row.partition, 1u32 << bits),
            backend: snapshot.backend(row.backend)?.address.to_string(),
            state: row.state.to_owned(),
            age_ms: row.installed_ms,
            packets: row.count.packets,
            bytes: row.count.bytes,
            rule: row.rule.testpmd(self.dialect()).to_string(),
        })
    }

    /// The rules of one connection that are in hardware, or on their way in or out.
    fn rules_of(&self, snapshot: &Snapshot, row: &machine::RuleRow) -> Vec<RuleRow> {
        let ask = &row.ask;
        let rule = |direction: Direction| {
            let leg = row.legs[direction as usize].filter(|leg| leg.state != "out" && leg.state != "none")?;
            let rule = lower::leg(&self.topology, ask, direction, self.age_s).ok()?.metered(row.meter)?;
            let marked = colours::marked(&rule).filter(|_| self.shared.kind == Kind::Template);
            let rule = marked.unwrap_or(rule);
            Some(RuleRow {
                id: row.rule.0,
                direction: match direction {
                    Direction::Original => "original".to_owned(),
                    Direction::Reply => "reply".to_owned(),
                },
                service: rows::service_name(snapshot, ask.service),
                client: rows::endpoint(ask.key.src, ask.key.src_port),
                backend: rows::endpoint(ask.backend_end.0, ask.backend_end.1),
                state: leg.state.to_owned(),
                age_ms: row.installed_ms,
                packets: leg.packets,
                bytes: leg.bytes,
                rule: rule.testpmd(self.dialect()).to_string(),
            })
        };
        [Direction::Original, Direction::Reply].into_iter().filter_map(rule).collect()
    }

    /// How its rules are told testpmd.
    pub(crate) fn dialect(&self) -> Dialect {
        match self.shared.kind {
            Kind::Template => Dialect::Template,
            Kind::Sync | Kind::Simulated => Dialect::Sync,
        }
    }
}

fn silent() -> Refusal {
    Refusal::new(RefusalKind::Failed, "the offload thread does not answer")
}

fn sum(workers: &[Arc<WorkerCounters>], counter: impl Fn(&WorkerCounters) -> &Counter) -> u64 {
    // Gauges of single workers may wrap; their sum does not.
    workers.iter().fold(0, |sum, worker| sum.wrapping_add(counter(worker).get()))
}

/// What is counted by name.
fn tally<'a>(counts: impl IntoIterator<Item = (&'a str, u64)>) -> BTreeMap<String, u64> {
    counts.into_iter().map(|(name, count)| (name.to_owned(), count)).collect()
}

/// Everything that is counted, by whoever counts it.
fn figures(counters: &OffloadCounters, workers: &[Arc<WorkerCounters>]) -> OffloadRow {
    let dropped = counters.requests_dropped.get() + sum(workers, |worker| &worker.offload_ask_refused);
    let requests = RequestResult::ALL.iter().zip(&counters.requests);
    let requests = requests.map(|(result, counter)| (result.name(), counter.get()));
    let revocations = Revocation::ALL
        .iter()
        .map(|why| (why.name(), sum(workers, |worker| &worker.offload_revoked[*why as usize])));
    let evictions = Eviction::ALL.iter().zip(&counters.evictions);
    OffloadRow {
        rules: counters.rules.get(),
        capacity: counters.capacity.get(),
        connections: tally([
            ("installed", sum(workers, |worker| &worker.offload_installed)),
            ("requested", sum(workers, |worker| &worker.offload_requested)),
            ("removing", sum(workers, |worker| &worker.offload_removing)),
            ("declined", sum(workers, |worker| &worker.offload_declined_now)),
        ]),
        denials: counters.denials.get(),
        denials_installed: counters.denials_installed.get(),
        denials_failed: counters.denials_failed.get(),
        denied_packets: counters.denied_packets.get(),
        price_packets: price(counters),
        insertions_per_second: counters.insertions_per_second.get(),
        insertions: counters.insertions.get(),
        partitions: tally(partitions(counters)),
        queues: tally([
            ("waiting", counters.waiting.get()),
            ("in_flight", counters.in_flight.get()),
            ("leaving", counters.leaving.get()),
            ("owing", counters.owing.get()),
            ("settling", counters.settling.get()),
        ]),
        stats_age_ms: counters.stats_age_ms.get(),
        misses: sum(workers, |worker| &worker.offload_miss),
        late: sum(workers, |worker| &worker.offload_late),
        requests: tally(requests.chain([("dropped", dropped)])),
        removals: tally(REMOVALS.into_iter().zip(counters.removals.iter().map(Counter::get))),
        evictions: tally(evictions.map(|(why, counter)| (why.name(), counter.get()))),
        revocations: tally(revocations),
        recoveries: counters.recoveries.get(),
        lost: counters.lost.get(),
        orphans: counters.orphans.get(),
        fenced: counters.fenced.get() > 0,
        fences: counters.fences.get(),
        base_failures: counters.base_failures.get(),
        ..OffloadRow::default()
    }
}

/// Rules of source partitions, by where they are.
fn partitions(counters: &OffloadCounters) -> Vec<(&'static str, u64)> {
    let absent = machine::Absent::ALL.iter().zip(&counters.partitions_absent);
    let present = [("installed", counters.partitions.get()), ("moving", counters.partitions_moving.get())];
    present.into_iter().chain(absent.map(|(why, counter)| (why.name(), counter.get()))).collect()
}

/// What a connection must have carried to be asked for; `None`: none is.
fn price(counters: &OffloadCounters) -> Option<u64> {
    let running = counters.engine_state() == EngineState::Running && counters.capacity.get() > 0;
    Some(counters.price.get()).filter(|price| running && *price < u64::from(u32::MAX))
}
