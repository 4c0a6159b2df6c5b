//! Prometheus: which metrics exist, and how the figures at hand become their samples.
//!
//! Packet threads know nothing of this: they add to [`dataplane::counters`], and a scrape turns those
//! totals into samples. `docs/metrics.md` lists [`METRICS`]; a test compares.
//!
//! Samples are written as the exposition format has them, metric by metric: with 10,000 backends there are
//! more than 100,000, and to enter each into a registry for a single page would take the main thread seconds.

use crate::api::{BackendRow, DropRow, MeterRow, OffloadRow, PortRow, ServiceRow, TrafficRow, WorkerRow};
use crate::health::Findings;
use crate::policy::PolicyRow;
use crate::tenants::TenantRow;
use crate::version;
use dataplane::counters::PccCause;
use health::{Cause, State};
use offload::counters::{BOUNDS_NS, EngineState, Histogram, OffloadCounters};
use std::collections::HashMap;
use std::fmt::{Display, Write as _};
use std::sync::Arc;

/// What a metric's samples are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    /// Counted in buckets elsewhere; written by [`histogram`].
    Histogram,
}

impl Kind {
    /// As the exposition format calls it.
    fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// What a metric is called and means.
#[derive(Debug)]
pub(crate) struct Metric {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) labels: &'static [&'static str],
    pub(crate) help: &'static str,
}

macro_rules! metrics {
    ($($kind:ident $name:ident [$($label:ident),*] $help:literal;)+) => {
        /// A name for each metric.
        #[allow(non_camel_case_types, reason = "the names are those that Prometheus shows")]
        #[derive(Clone, Copy, Debug)]
        enum Name { $($name,)+ }

        /// Every metric Millrace exports.
        pub(crate) const METRICS: &[Metric] = &[$(Metric {
            name: stringify!($name),
            kind: Kind::$kind,
            labels: &[$(stringify!($label)),*],
            help: $help,
        },)+];
    };
}

metrics! {
    Counter lb_packets_total [vip, service, backend, direction, path] "Packets forwarded for a backend. direction: original (client to backend) or reply; path: sw (workers) or hw (hardware, as of its last counts).";
    Counter lb_bytes_total [vip, service, backend, direction, path] "Bytes of IP packet forwarded for a backend, labelled like lb_packets_total.";
    Counter lb_connections_total [service, backend] "Connections given to a backend.";
    Gauge lb_connections [service, backend] "Connections of a backend in the tables now.";
    Gauge lb_backend_weight [service, backend] "Weight of a backend as configured.";
    Gauge lb_backend_state [service, backend, state] "1 for what health checks say of a backend, 0 for what they do not; only where there are some. state: unknown (not decided yet), up or down.";
    Counter lb_backend_transitions_total [service, backend, to, cause] "Changes of lb_backend_state, each shown once it has occurred. to: up or down; cause: answered, timeout, refused (the port is closed), closed (before it had answered), unreachable, wrong_answer or passive (clients' connections).";
    Gauge lb_health_ignored [service] "1 if too few backends of a service with health checks are up, so that all of them get connections as if they were.";
    Counter health_probes_total [result] "Health checks made. result: good, bad or void (nothing is known, as our own side may have failed).";
    Counter health_checker_restarts_total [] "How often the health checker was started afresh after a panic. Not 0: a fault of Millrace's own, see the log.";
    Gauge lb_backends [service, state] "Backends of a service. state: active, down (by its health checks), draining or removed (unconfigured, but still with connections).";
    Gauge lb_partition_imbalance_ratio [service] "Services by source partition: packets of the busiest backend against what its weight says, of those that take traffic, since the start. 1: even.";
    Counter lb_opened_total [service] "Connections opened by a SYN or a first datagram.";
    Counter lb_picked_up_total [service] "TCP connections picked up in the middle: a segment without SYN and without an entry.";
    Counter lb_dropped_total [service] "Packets dropped after they were known to be for this service; drops_total has the reasons.";
    Counter lb_pcc_violations_total [cause] "Live connections whose packets went to another backend. cause: backend_gone, or stale_rule (at most so many: a rule forwarded for a connection that had gone).";
    Counter meter_packets_total [scope, name, colour] "Packets by what a meter said of them. scope: service or tenant; colour: green, yellow, or red, which was dropped.";
    Counter meter_bytes_total [scope, name, colour] "Bytes of IP packet, labelled like meter_packets_total.";
    Counter meter_refused_connections_total [scope, name] "New connections that a meter did not admit.";
    Gauge ct_entries [worker] "Connections in the worker's table now.";
    Gauge ct_half_open [worker] "Of ct_entries, the half-open ones.";
    Gauge ct_capacity [worker] "Connections the worker's table can hold.";
    Counter ct_new_total [] "Connections entered into a table.";
    Counter ct_insert_failures_total [reason] "Connections refused for want of room. reason: table_full, half_open_limit or tenant_limit.";
    Counter ct_expired_total [worker] "Connections that ran out their idle timeout.";
    Counter ct_evicted_total [worker, kind] "Connections evicted for a newer one. kind: half_open or idle.";
    Counter policy_ended_connections_total [] "Connections that ended because the policy had changed.";
    Counter policy_log_lost_total [] "Verdicts that were to be logged and were too many.";
    Counter drops_total [reason] "Packets not sent, by reason; docs/drops.md explains each. Those that hardware dropped because the policy denies them are among them, as of its last counts.";
    Counter worker_received_packets_total [worker] "Packets taken from ports.";
    Counter worker_sent_packets_total [worker] "Packets accepted by ports' transmit queues.";
    Counter worker_generated_packets_total [worker] "Packets Millrace made itself (ARP, ND, ICMP errors, RST).";
    Counter worker_consumed_packets_total [worker] "Packets for Millrace itself (answers to ARP, ND and health checks).";
    Counter worker_dropped_packets_total [worker] "Packets not sent, all reasons together.";
    Counter worker_handed_out_packets_total [worker] "Packets given to the worker that owns their client.";
    Counter worker_handed_in_packets_total [worker] "Packets taken over from other workers.";
    Gauge worker_held_packets [worker] "Packets waiting for a neighbour now.";
    Counter worker_polls_total [worker] "Turns of the worker's loop; each polls all its receive queues.";
    Counter worker_polls_empty_total [worker] "Turns in which no packet came.";
    Counter worker_busy_cycles_total [worker] "Time-stamp counter cycles spent on turns in which packets came; tsc_frequency_hertz converts them.";
    Gauge worker_cycles_per_packet [worker] "Busy cycles per packet received or taken over, since the last scrape.";
    Gauge tsc_frequency_hertz [] "Frequency of the time-stamp counter.";
    Counter port_rx_packets_total [port] "Packets received, as the device counts them.";
    Counter port_rx_bytes_total [port] "Bytes received, as the device counts them.";
    Counter port_rx_missed_total [port] "Packets the device dropped because no descriptor was free.";
    Counter port_rx_errors_total [port] "Erroneous packets received.";
    Counter port_rx_nombuf_total [port] "Receive buffer allocation failures.";
    Counter port_tx_packets_total [port] "Packets transmitted, as the device counts them.";
    Counter port_tx_bytes_total [port] "Bytes transmitted, as the device counts them.";
    Counter port_tx_errors_total [port] "Packets the device failed to transmit.";
    Gauge port_link_up [port] "1 if the port has link.";
    Gauge offload_info [engine] "Always 1; engine: sync, template or none.";
    Gauge offload_up [] "1 if the offload engine is running; 0 if there is none, it is being recovered, or its thread hangs.";
    Gauge offload_rules [] "Rules in hardware: one per direction of a connection, and those that drop.";
    Gauge offload_deny_rules [] "Of offload_rules, those that drop what the policy denies.";
    Counter offload_deny_rules_total [result] "Rules that were to drop what the policy denies. result: ok, or failed (no room in the device, or refused).";
    Counter offload_denied_packets_total [] "Packets that hardware dropped because the policy denies them, as of its last counts; they are in drops_total, too.";
    Gauge offload_rule_capacity [] "Rules there may be in hardware.";
    Gauge offload_connections [state] "Connections by what hardware has to do with them. state: requested, installed, removing or declined (not asked for again before some time has passed); all others are in software.";
    Counter offload_requests_total [result] "Requests to have a connection forwarded by hardware. result: ok, full, rejected (by the driver), timeout, budget, tenant_share, path, failed (in the device), or dropped (more than there was room for).";
    Counter offload_insertions_total [] "Rules that the engine was told to put in force.";
    Histogram offload_insert_seconds [] "From telling the engine a rule until it is in force.";
    Gauge offload_insertions_per_second [] "Rules per second that the budget allows now.";
    Gauge offload_price_packets [] "Packets a connection must have carried to be asked for; 4294967295: none is.";
    Counter offload_revocations_total [reason] "Connections that workers wanted back from hardware. reason: closing (FIN or RST), gone (expired or evicted), policy, moved (next hop), orphan (no such connection) or captured.";
    Counter offload_removals_total [reason] "Connections taken out of hardware. reason: those of offload_revocations_total, idle, evicted (for one that saves more) or lost (by the device).";
    Counter offload_evictions_total [reason] "Connections that had to make room in hardware. reason: full (the table), or tenant_share.";
    Counter offload_miss_packets_total [] "Packets that came to a worker though hardware has had their connection \
        for two seconds. Towards a tunnel that copies the DSCP, those with another DSCP than the rule's are among \
        them.";
    Counter offload_late_packets_total [] "Packets that came to a worker just after their connection went to hardware.";
    Gauge offload_stats_age_seconds [] "Age of the oldest count of a rule that the figures rest on.";
    Gauge offload_partitions [state] "Rules of services by source partition. state: installed, moving (on their way in or out), or why software forwards the packets: declined:policy, declined:metered, declined:path, declined:mtu, declined:neighbour, declined:full, declined:refused.";
    Gauge offload_queue [queue] "What the offload thread has to do. queue: waiting (requests), in_flight (operations), leaving (connections to be taken out), owing (answers), settling (counters of rules that are out).";
    Counter offload_recoveries_total [] "Times all rules were taken out because what hardware held was no longer certain.";
    Counter offload_lost_total [] "Connections that the device lost.";
    Counter offload_orphans_total [] "Rules found without a connection that wants them.";
    Gauge tenant_connections [tenant] "Connections in the workers' tables now.";
    Gauge tenant_half_open [tenant] "Of tenant_connections, the half-open ones.";
    Counter tenant_opened_total [tenant] "Connections opened by a SYN or a first datagram.";
    Counter tenant_picked_up_total [tenant] "TCP connections picked up in the middle.";
    Counter tenant_packets_total [tenant, direction, path] "Packets forwarded between clients and backends. direction: original (from clients) or reply; path: sw (software) or hw (hardware).";
    Counter tenant_bytes_total [tenant, direction, path] "Bytes of IP packets forwarded between clients and backends, labels as for tenant_packets_total.";
    Counter tenant_drops_total [tenant, reason] "Packets dropped on their way that arrived on the tenant's ports, by reason; reasons for which none was are left out.";
    Gauge offload_fenced [] "1 while all packets of some kind of connection are kept from hardware, as rules that a new policy denies take long to remove.";
    Counter offload_fences_total [] "Times that began.";
    Counter offload_base_failures_total [] "Times a rule that leads packets to those of connections could not be put in, or taken out for a fence; each is tried again.";
    Counter policy_rule_matched_total [rule, action] "Connections, and packets that belong to none, that a policy rule decided. rule: its name, its action and a digest of what it says, or the default of a direction.";
    Histogram policy_time_to_enforce_seconds [] "From a new configuration until a connection that it does not allow was out of hardware, or fenced off.";
    Gauge mempool_available [pool] "Free packet buffers.";
    Gauge mempool_size [pool] "Packet buffers in the pool.";
    Gauge policy_generation [] "Generation of the configuration in force; it grows with every reload, drain and undrain.";
    Counter config_reload_total [result] "Reloads. result: success or failure (refused, the old configuration stays).";
    Gauge config_last_reload_success_timestamp_seconds [] "When the configuration in force was read, Unix time.";
    Gauge build_info [version, commit, dpdk] "Always 1; the labels name the build.";
    Gauge process_start_time_seconds [] "When the process started, Unix time.";
}

/// A pool of packet buffers.
#[derive(Clone, Debug, Default)]
pub(crate) struct PoolRow {
    pub(crate) name: String,
    pub(crate) available: u64,
    pub(crate) size: u64,
}

/// Per-worker figures that no table shows.
#[derive(Clone, Debug, Default)]
pub(crate) struct TableEvents {
    pub(crate) expired: u64,
    pub(crate) evicted_half_open: u64,
    pub(crate) evicted_idle: u64,
    pub(crate) policy_ended: u64,
    pub(crate) policy_log_lost: u64,
    /// Connections that changed their backend, by [`PccCause`].
    pub(crate) pcc: [u64; PccCause::ALL.len()],
}

/// Everything a scrape shows, at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) services: Vec<ServiceRow>,
    pub(crate) policy: Vec<PolicyRow>,
    pub(crate) tenants: Vec<TenantRow>,
    pub(crate) backends: Vec<BackendRow>,
    pub(crate) health: Arc<Findings>,
    pub(crate) workers: Vec<WorkerRow>,
    /// By position in `workers`.
    pub(crate) tables: Vec<TableEvents>,
    pub(crate) ports: Vec<PortRow>,
    pub(crate) drops: Vec<DropRow>,
    pub(crate) meters: Vec<MeterRow>,
    pub(crate) pools: Vec<PoolRow>,
    pub(crate) offload: OffloadRow,
    /// The engine's own counters; `None` without an engine.
    pub(crate) engine: Option<Arc<OffloadCounters>>,
    /// Connections entered into a table, for services that are gone too.
    pub(crate) opened: u64,
    pub(crate) generation: u64,
    pub(crate) reloads: u64,
    pub(crate) reloads_failed: u64,
    /// Unix time.
    pub(crate) reloaded_at_s: u64,
    /// Unix time.
    pub(crate) started_at_s: u64,
    pub(crate) tsc_hz: u64,
    pub(crate) dpdk: String,
}

/// Renders the page.
pub(crate) struct Exporter {
    /// The samples of one page, a line each, by [`Name`].
    samples: Vec<String>,
    /// Busy cycles and packets of each worker at the last scrape.
    last_busy: Vec<(u64, u64)>,
}

/// What software and what hardware forwarded of it all.
fn by_path(all: TrafficRow, hardware: TrafficRow) -> [(&'static str, TrafficRow); 2] {
    let software = TrafficRow {
        packets: all.packets.saturating_sub(hardware.packets),
        bytes: all.bytes.saturating_sub(hardware.bytes),
    };
    [("sw", software), ("hw", hardware)]
}

impl Exporter {
    /// An exporter that has rendered no page yet.
    pub(crate) fn new() -> Exporter {
        Exporter { samples: vec![String::new(); METRICS.len()], last_busy: Vec::new() }
    }

    /// The page that shows these figures, and nothing of the pages before: a gauge of a backend that is
    /// gone would stay at its last value.
    pub(crate) fn render(&mut self, figures: &Figures) -> String {
        self.samples.iter_mut().for_each(String::clear);
        self.services(figures);
        self.tenants(figures);
        self.health(figures);
        self.workers(figures);
        self.ports(figures);
        self.offload(&figures.offload);
        self.process(figures);
        let mut page = String::with_capacity(self.samples.iter().map(|lines| lines.len() + 512).sum());
        for (metric, lines) in METRICS.iter().zip(&self.samples).filter(|(_, lines)| !lines.is_empty()) {
            head(&mut page, metric);
            page += lines;
            page.push('\n');
        }
        page + &histograms(figures.engine.as_deref().unwrap_or(&OffloadCounters::default()))
    }

    fn services(&mut self, figures: &Figures) {
        let vips: HashMap<&str, &str> =
            figures.services.iter().map(|row| (row.name.as_str(), row.vip.as_str())).collect();
        let mut states: HashMap<(&str, &str), u32> = HashMap::new();
        for row in &figures.backends {
            *states.entry((&row.service, &row.state)).or_default() += 1;
        }
        for row in &figures.services {
            let service = [row.name.as_str()];
            self.total(Name::lb_opened_total, service, row.opened);
            self.total(Name::lb_picked_up_total, service, row.picked_up);
            self.total(Name::lb_dropped_total, service, row.dropped);
            if let Some(percent) = row.imbalance_percent {
                self.value(Name::lb_partition_imbalance_ratio, service, percent as f64 / 100.0);
            }
            for state in ["active", "down", "draining", "removed"] {
                let count = states.get(&(row.name.as_str(), state)).copied().unwrap_or(0);
                self.value(Name::lb_backends, [row.name.as_str(), state], f64::from(count));
            }
        }
        self.total(Name::ct_new_total, [], figures.opened);
        for row in &figures.policy {
            let rule = [row.rule.as_str(), row.action.as_str()];
            self.total(Name::policy_rule_matched_total, rule, row.matched);
        }
        for row in &figures.meters {
            let [scope, name] = [row.scope.as_str(), row.name.as_str()];
            for (colour, traffic) in [("green", row.green), ("yellow", row.yellow), ("red", row.red)] {
                self.total(Name::meter_packets_total, [scope, name, colour], traffic.packets);
                self.total(Name::meter_bytes_total, [scope, name, colour], traffic.bytes);
            }
            self.total(Name::meter_refused_connections_total, [scope, name], row.refused);
        }
        for row in &figures.backends {
            let vip = vips.get(row.service.as_str()).copied().unwrap_or_default();
            self.traffic(vip, row, "original", row.original, row.hardware.original);
            self.traffic(vip, row, "reply", row.reply, row.hardware.reply);
            let backend = [row.service.as_str(), row.backend.as_str()];
            self.total(Name::lb_connections_total, backend, row.opened);
            self.value(Name::lb_connections, backend, row.connections as f64);
            self.value(Name::lb_backend_weight, backend, f64::from(row.weight));
        }
    }

    fn tenants(&mut self, figures: &Figures) {
        for row in &figures.tenants {
            let tenant = row.name.as_str();
            self.value(Name::tenant_connections, [tenant], row.connections as f64);
            self.value(Name::tenant_half_open, [tenant], row.half_open as f64);
            self.total(Name::tenant_opened_total, [tenant], row.opened);
            self.total(Name::tenant_picked_up_total, [tenant], row.picked_up);
            let both =
                [("original", row.original, row.hardware.original), ("reply", row.reply, row.hardware.reply)];
            for (direction, all, hardware) in both {
                for (path, traffic) in by_path(all, hardware) {
                    self.total(Name::tenant_packets_total, [tenant, direction, path], traffic.packets);
                    self.total(Name::tenant_bytes_total, [tenant, direction, path], traffic.bytes);
                }
            }
            for (reason, packets) in &row.drops {
                self.total(Name::tenant_drops_total, [tenant, reason.as_str()], *packets);
            }
        }
    }

    fn health(&mut self, figures: &Figures) {
        for row in &figures.backends {
            let Some(health) = &row.health else { continue };
            let (service, backend) = (row.service.as_str(), row.backend.as_str());
            for state in State::ALL.map(State::name) {
                let is = f64::from(u8::from(state == health.state));
                self.value(Name::lb_backend_state, [service, backend, state], is);
            }
            for (cause, count) in &health.transitions {
                let to = if cause == Cause::Answered.name() { State::Up } else { State::Down };
                let labels = [service, backend, to.name(), cause.as_str()];
                self.total(Name::lb_backend_transitions_total, labels, *count);
            }
        }
        for (service, ignored) in figures.health.services() {
            self.value(Name::lb_health_ignored, [service], f64::from(u8::from(ignored)));
        }
        self.total(Name::health_checker_restarts_total, [], figures.health.restarts);
        for (result, count) in ["good", "bad", "void"].into_iter().zip(figures.health.probes) {
            self.total(Name::health_probes_total, [result], count);
        }
    }

    fn traffic(
        &mut self,
        vip: &str,
        row: &BackendRow,
        direction: &str,
        all: TrafficRow,
        hardware: TrafficRow,
    ) {
        for (path, traffic) in by_path(all, hardware) {
            let labels = [vip, row.service.as_str(), row.backend.as_str(), direction, path];
            self.total(Name::lb_packets_total, labels, traffic.packets);
            self.total(Name::lb_bytes_total, labels, traffic.bytes);
        }
    }

    fn workers(&mut self, figures: &Figures) {
        self.last_busy.resize(figures.workers.len(), (0, 0));
        for (index, row) in figures.workers.iter().enumerate() {
            let name = row.worker.to_string();
            let worker = [name.as_str()];
            self.value(Name::ct_entries, worker, row.entries as f64);
            self.value(Name::ct_half_open, worker, row.half_open as f64);
            self.value(Name::ct_capacity, worker, row.capacity as f64);
            self.total(Name::worker_received_packets_total, worker, row.received);
            self.total(Name::worker_sent_packets_total, worker, row.sent);
            self.total(Name::worker_generated_packets_total, worker, row.generated);
            self.total(Name::worker_consumed_packets_total, worker, row.consumed);
            self.total(Name::worker_dropped_packets_total, worker, row.dropped);
            self.total(Name::worker_handed_out_packets_total, worker, row.handed_out);
            self.total(Name::worker_handed_in_packets_total, worker, row.handed_in);
            self.value(Name::worker_held_packets, worker, row.held as f64);
            self.total(Name::worker_polls_total, worker, row.polls);
            self.total(Name::worker_polls_empty_total, worker, row.polls_empty);
            self.total(Name::worker_busy_cycles_total, worker, row.busy_cycles);
            let busy = (row.busy_cycles, row.received + row.handed_in);
            let last = std::mem::replace(&mut self.last_busy[index], busy);
            let (cycles, packets) = (busy.0.saturating_sub(last.0), busy.1.saturating_sub(last.1));
            let per_packet = if packets == 0 { 0.0 } else { cycles as f64 / packets as f64 };
            self.value(Name::worker_cycles_per_packet, worker, per_packet);
        }
        for (row, table) in figures.workers.iter().zip(&figures.tables) {
            let worker = row.worker.to_string();
            self.total(Name::ct_expired_total, [worker.as_str()], table.expired);
            self.total(Name::ct_evicted_total, [worker.as_str(), "half_open"], table.evicted_half_open);
            self.total(Name::ct_evicted_total, [worker.as_str(), "idle"], table.evicted_idle);
        }
        let sum = |get: fn(&TableEvents) -> u64| figures.tables.iter().map(get).sum();
        self.total(Name::policy_ended_connections_total, [], sum(|table| table.policy_ended));
        self.total(Name::policy_log_lost_total, [], sum(|table| table.policy_log_lost));
        for cause in PccCause::ALL {
            let violations = figures.tables.iter().map(|table| table.pcc[cause as usize]).sum();
            self.total(Name::lb_pcc_violations_total, [cause.name()], violations);
        }
        for row in &figures.drops {
            self.total(Name::drops_total, [row.reason.as_str()], row.packets);
            if ["table_full", "half_open_limit", "tenant_limit"].contains(&row.reason.as_str()) {
                self.total(Name::ct_insert_failures_total, [row.reason.as_str()], row.packets);
            }
        }
    }

    fn ports(&mut self, figures: &Figures) {
        for row in figures.ports.iter().filter(|row| row.parent.is_empty()) {
            let port = [row.name.as_str()];
            self.total(Name::port_rx_packets_total, port, row.rx_packets);
            self.total(Name::port_rx_bytes_total, port, row.rx_bytes);
            self.total(Name::port_rx_missed_total, port, row.rx_missed);
            self.total(Name::port_rx_errors_total, port, row.rx_errors);
            self.total(Name::port_rx_nombuf_total, port, row.rx_no_buffer);
            self.total(Name::port_tx_packets_total, port, row.tx_packets);
            self.total(Name::port_tx_bytes_total, port, row.tx_bytes);
            self.total(Name::port_tx_errors_total, port, row.tx_errors);
            self.value(Name::port_link_up, port, f64::from(u8::from(row.link_up)));
        }
        for pool in &figures.pools {
            self.value(Name::mempool_available, [pool.name.as_str()], pool.available as f64);
            self.value(Name::mempool_size, [pool.name.as_str()], pool.size as f64);
        }
    }

    fn offload(&mut self, row: &OffloadRow) {
        self.value(Name::offload_info, [&row.engine], 1.0);
        self.value(Name::offload_up, [], f64::from(u8::from(row.state == EngineState::Running.name())));
        self.value(Name::offload_rules, [], row.rules as f64);
        self.value(Name::offload_rule_capacity, [], row.capacity as f64);
        self.value(Name::offload_deny_rules, [], row.denials as f64);
        self.total(Name::offload_deny_rules_total, ["ok"], row.denials_installed);
        self.total(Name::offload_deny_rules_total, ["failed"], row.denials_failed);
        self.total(Name::offload_denied_packets_total, [], row.denied_packets);
        self.value(Name::offload_insertions_per_second, [], row.insertions_per_second as f64);
        self.value(Name::offload_price_packets, [], row.price_packets.unwrap_or(u32::MAX.into()) as f64);
        self.value(Name::offload_stats_age_seconds, [], row.stats_age_ms as f64 / 1e3);
        self.total(Name::offload_insertions_total, [], row.insertions);
        self.total(Name::offload_miss_packets_total, [], row.misses);
        self.total(Name::offload_late_packets_total, [], row.late);
        self.total(Name::offload_recoveries_total, [], row.recoveries);
        self.total(Name::offload_lost_total, [], row.lost);
        self.total(Name::offload_orphans_total, [], row.orphans);
        self.value(Name::offload_fenced, [], f64::from(u8::from(row.fenced)));
        self.total(Name::offload_fences_total, [], row.fences);
        self.total(Name::offload_base_failures_total, [], row.base_failures);
        let gauges = [
            (Name::offload_connections, &row.connections),
            (Name::offload_partitions, &row.partitions),
            (Name::offload_queue, &row.queues),
        ];
        for (name, counts) in gauges {
            counts.iter().for_each(|(label, count)| self.value(name, [label.as_str()], *count as f64));
        }
        let totals = [
            (Name::offload_requests_total, &row.requests),
            (Name::offload_revocations_total, &row.revocations),
            (Name::offload_removals_total, &row.removals),
            (Name::offload_evictions_total, &row.evictions),
        ];
        for (name, counts) in totals {
            counts.iter().for_each(|(label, count)| self.total(name, [label.as_str()], *count));
        }
    }

    fn process(&mut self, figures: &Figures) {
        self.value(Name::policy_generation, [], figures.generation as f64);
        self.total(Name::config_reload_total, ["success"], figures.reloads);
        self.total(Name::config_reload_total, ["failure"], figures.reloads_failed);
        self.value(Name::config_last_reload_success_timestamp_seconds, [], figures.reloaded_at_s as f64);
        self.value(Name::process_start_time_seconds, [], figures.started_at_s as f64);
        self.value(Name::tsc_frequency_hertz, [], figures.tsc_hz as f64);
        self.value(Name::build_info, [version::VERSION, version::COMMIT, &figures.dpdk], 1.0);
    }

    /// A counter's total.
    fn total<const N: usize>(&mut self, name: Name, labels: [&str; N], total: u64) {
        self.sample(name, Kind::Counter, labels, total);
    }

    /// A gauge's value.
    fn value<const N: usize>(&mut self, name: Name, labels: [&str; N], value: f64) {
        self.sample(name, Kind::Gauge, labels, value);
    }

    /// The sample of a metric with these label values, in the order the metric declares its labels. None
    /// may come twice.
    fn sample<const N: usize>(&mut self, name: Name, kind: Kind, labels: [&str; N], value: impl Display) {
        let metric = &METRICS[name as usize];
        debug_assert_eq!((metric.kind, metric.labels.len()), (kind, N), "{}", metric.name);
        let lines = &mut self.samples[name as usize];
        *lines += metric.name;
        for (at, (label, value)) in metric.labels.iter().zip(labels).enumerate() {
            lines.push(if at == 0 { '{' } else { ',' });
            *lines += label;
            *lines += "=\"";
            push_escaped(lines, value);
            lines.push('"');
        }
        *lines += if N == 0 { " " } else { "} " };
        let _ = writeln!(lines, "{value}");
    }
}

/// A label's value as the exposition format writes it.
fn push_escaped(line: &mut String, value: &str) {
    let mut rest = value;
    while let Some(at) = rest.find(['\\', '"', '\n']) {
        *line += &rest[..at];
        *line += match rest.as_bytes()[at] {
            b'\n' => "\\n",
            b'"' => "\\\"",
            _ => "\\\\",
        };
        rest = &rest[at + 1..];
    }
    *line += rest;
}

/// What stands before a metric's samples.
fn head(page: &mut String, metric: &Metric) {
    let Metric { name, kind, help, .. } = metric;
    let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} {}", kind.name());
}

/// The histograms, which come in buckets already.
fn histograms(counters: &OffloadCounters) -> String {
    let insert = histogram(Name::offload_insert_seconds, &counters.insert_seconds);
    insert + &histogram(Name::policy_time_to_enforce_seconds, &counters.time_to_enforce)
}

fn histogram(name: Name, histogram: &Histogram) -> String {
    let metric = &METRICS[name as usize];
    let (name, mut seen, mut text) = (metric.name, 0, String::new());
    head(&mut text, metric);
    let bounds = BOUNDS_NS.iter().map(|ns| (*ns as f64 / 1e9).to_string()).chain(["+Inf".to_owned()]);
    for (bound, bucket) in bounds.zip(&histogram.buckets) {
        seen += bucket.get();
        let _ = writeln!(text, "{name}_bucket{{le=\"{bound}\"}} {seen}");
    }
    // Of the buckets just read, not of a later moment: a scrape must agree with itself.
    let _ = writeln!(text, "{name}_sum {}\n{name}_count {seen}\n", histogram.sum_ns.get() as f64 / 1e9);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{HardwareRow, HealthRow};

    fn checked(row: BackendRow) -> BackendRow {
        let transitions = [("timeout".to_owned(), 1)].into_iter().collect();
        BackendRow {
            health: Some(HealthRow { state: "up".into(), transitions, ..HealthRow::default() }),
            ..row
        }
    }

    fn blue_meter() -> MeterRow {
        let red = TrafficRow { packets: 6, bytes: 600 };
        MeterRow { scope: "tenant".into(), name: "blue".into(), red, ..MeterRow::default() }
    }

    fn figures() -> Figures {
        let backend = |backend: &str, state: &str| BackendRow {
            service: "web".into(),
            backend: backend.into(),
            state: state.into(),
            weight: 10,
            connections: 4,
            opened: 5,
            original: TrafficRow { packets: 10, bytes: 1000 },
            reply: TrafficRow { packets: 8, bytes: 8000 },
            hardware: HardwareRow { original: TrafficRow { packets: 3, bytes: 300 }, ..Default::default() },
            ..BackendRow::default()
        };
        let one = |name: &str, count| [(name.to_owned(), count)].into_iter().collect();
        let action = "deny".into();
        let rule = PolicyRow { rule: "web".into(), action, matched: 4, ..PolicyRow::default() };
        let workers =
            vec![WorkerRow { received: 100, busy_cycles: 5000, capacity: 1024, ..WorkerRow::default() }];
        Figures {
            services: vec![ServiceRow {
                name: "web".into(),
                vip: "192.0.2.1".into(),
                opened: 9,
                picked_up: 1,
                imbalance_percent: Some(125),
                ..ServiceRow::default()
            }],
            policy: vec![rule],
            tenants: vec![TenantRow {
                name: "blue".into(),
                connections: 6,
                original: TrafficRow { packets: 10, bytes: 1000 },
                hardware: HardwareRow {
                    original: TrafficRow { packets: 4, bytes: 400 },
                    ..Default::default()
                },
                drops: one("tenant_limit", 2),
                ..TenantRow::default()
            }],
            backends: vec![
                checked(backend("10.0.0.3:80", "active")),
                backend("[2001:db8::3]:80", "draining"),
            ],
            health: Arc::new(Findings::checked("web")),
            workers,
            tables: vec![TableEvents { expired: 2, ..TableEvents::default() }],
            ports: vec![PortRow { name: "wan".into(), link_up: true, rx_packets: 101, ..PortRow::default() }],
            drops: vec![DropRow { reason: "table_full".into(), packets: 3, ..DropRow::default() }],
            meters: vec![blue_meter()],
            offload: OffloadRow {
                engine: "sync".into(),
                state: "running".into(),
                connections: one("installed", 5),
                partitions: one("installed", 0),
                queues: one("waiting", 0),
                requests: one("ok", 12),
                removals: one("idle", 1),
                evictions: one("full", 1),
                revocations: one("gone", 1),
                stats_age_ms: 250,
                ..OffloadRow::default()
            },
            pools: vec![PoolRow { name: "packets".into(), available: 10, size: 20 }],
            opened: 10,
            generation: 2,
            dpdk: "DPDK 22.11.11".into(),
            ..Figures::default()
        }
    }

    #[test]
    fn samples_carry_their_labels() {
        let page = Exporter::new().render(&figures());
        for line in [
            "lb_packets_total{vip=\"192.0.2.1\",service=\"web\",backend=\"10.0.0.3:80\",direction=\"original\",path=\"sw\"} 7",
            "lb_packets_total{vip=\"192.0.2.1\",service=\"web\",backend=\"10.0.0.3:80\",direction=\"original\",path=\"hw\"} 3",
            "lb_bytes_total{vip=\"192.0.2.1\",service=\"web\",backend=\"[2001:db8::3]:80\",direction=\"reply\",path=\"sw\"} 8000",
            "lb_backends{service=\"web\",state=\"draining\"} 1",
            "policy_rule_matched_total{rule=\"web\",action=\"deny\"} 4",
            "tenant_connections{tenant=\"blue\"} 6",
            "tenant_packets_total{tenant=\"blue\",direction=\"original\",path=\"sw\"} 6",
            "tenant_drops_total{tenant=\"blue\",reason=\"tenant_limit\"} 2",
            "meter_packets_total{scope=\"tenant\",name=\"blue\",colour=\"red\"} 6",
            "ct_new_total 10",
            "ct_insert_failures_total{reason=\"table_full\"} 3",
            "worker_cycles_per_packet{worker=\"0\"} 50",
            "port_link_up{port=\"wan\"} 1",
            "lb_pcc_violations_total{cause=\"stale_rule\"} 0",
            "offload_info{engine=\"sync\"} 1",
            "offload_up 1",
            "offload_price_packets 4294967295",
            "offload_requests_total{result=\"ok\"} 12",
            "offload_connections{state=\"installed\"} 5",
            "offload_stats_age_seconds 0.25",
            "mempool_available{pool=\"packets\"} 10",
            "config_reload_total{result=\"failure\"} 0",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
        }
    }

    #[test]
    fn histograms_are_cumulative_and_agree_with_themselves() {
        let counters = OffloadCounters::default();
        for ns in [15_000, 15_000, 400_000_000, 60_000_000_000] {
            counters.insert_seconds.observe(ns);
        }
        let figures = Figures { engine: Some(Arc::new(counters)), ..figures() };
        let page = Exporter::new().render(&figures);
        for line in [
            "offload_insert_seconds_bucket{le=\"0.00001\"} 0",
            "offload_insert_seconds_bucket{le=\"0.00002\"} 2",
            "offload_insert_seconds_bucket{le=\"0.5\"} 3",
            "offload_insert_seconds_bucket{le=\"5\"} 3",
            "offload_insert_seconds_bucket{le=\"+Inf\"} 4",
            "offload_insert_seconds_sum 60.40003",
            "offload_insert_seconds_count 4",
            "policy_time_to_enforce_seconds_count 0",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
        }
    }

    #[test]
    fn every_metric_is_exported_with_help_and_type() {
        let page = Exporter::new().render(&figures());
        for metric in METRICS {
            let kind = metric.kind.name();
            let help = format!("# HELP {} {}", metric.name, metric.help);
            assert!(page.lines().any(|line| line == help), "{help}");
            let kind = format!("# TYPE {} {kind}", metric.name);
            assert!(page.lines().any(|line| line == kind), "{kind}");
        }
        let described = page.lines().filter(|line| line.starts_with("# HELP")).count();
        assert_eq!(described, METRICS.len());
    }

    #[test]
    fn samples_follow_their_figures_and_go_with_what_they_are_about() {
        let mut exporter = Exporter::new();
        let mut figures = figures();
        assert!(
            exporter.render(&figures).contains("lb_connections{service=\"web\",backend=\"10.0.0.3:80\"} 4")
        );
        figures.backends[1].opened = 6;
        figures.backends.remove(0);
        let page = exporter.render(&figures);
        assert!(
            page.contains("lb_connections_total{service=\"web\",backend=\"[2001:db8::3]:80\"} 6"),
            "{page}"
        );
        assert!(!page.contains("10.0.0.3:80"), "{page}");
    }

    #[test]
    fn names_follow_the_conventions() {
        for metric in METRICS {
            assert_eq!(metric.kind == Kind::Counter, metric.name.ends_with("_total"), "{}", metric.name);
            assert!(metric.help.ends_with('.'), "{}", metric.name);
        }
    }

    /// `docs/metrics.md` lists exactly these metrics, in this order.
    #[test]
    fn the_page_for_operators_is_complete() {
        let page = include_str!("../docs/metrics.md");
        let table = page.lines().skip_while(|line| *line != "| Metric | Type | Labels | Meaning |").skip(2);
        let listed: Vec<&str> = table.take_while(|line| line.starts_with('|')).collect();
        let line = |metric: &Metric| {
            let kind = metric.kind.name();
            let labels = metric.labels.join(", ");
            format!("| `{}` | {kind} | {labels} | {} |", metric.name, metric.help)
        };
        let expected: Vec<String> = METRICS.iter().map(line).collect();
        assert_eq!(listed, expected, "the table in docs/metrics.md should read:\n{}", expected.join("\n"));
    }
}
