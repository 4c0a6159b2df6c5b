//! From what the dataplane knows to the rows of the control API: snapshots name things, counters tell
//! what happened to them.

use crate::api::{
    BackendRow, ConnectionQuery, ConnectionRow, DropRow, HardwareRow, NeighbourRow, ServiceRow,
};
use crate::api::{RuleQuery, Share, TrafficRow, Transport, WorkerRow};
use crate::metrics::TableEvents;
use crate::policy::{PolicyBooks, PolicyRow};
use crate::tenants::{TenantBooks, TenantRow};
use crate::totals::Ledger;
use dataplane::addr::Ip;
use dataplane::config::{Config, Tenant};
use dataplane::conntrack;
use dataplane::counters::{Counter, PccCause, WorkerCounters};
use dataplane::drops::DropReason;
use dataplane::flow::{FlowKey, Protocol};
use dataplane::ids::{BackendId, ServiceId};
use dataplane::limits::{BACKEND_SLOTS_MAX, SERVICES_MAX};
use dataplane::neighbour::NeighbourView;
use dataplane::offload::OffloadState;
use dataplane::snapshot::{Affinity, Backend, BackendState, Mode, Service, Snapshot};
use std::net::SocketAddr;
use std::sync::Arc;

/// What is counted for a backend: packets and bytes to it and from it by software, the same by hardware,
/// connections.
type BackendTotals = [u64; 9];
/// What is counted for a service: opened, picked up, dropped.
type ServiceTotals = [u64; 3];

/// A backend's name, stable across slots.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct BackendKey {
    service: String,
    address: Ip,
    port: Option<u16>,
}

/// All workers' counters together, by the names of services and backends.
#[derive(Debug)]
pub(crate) struct Books {
    workers: Vec<Arc<WorkerCounters>>,
    services: Ledger<String, 3>,
    backends: Ledger<BackendKey, 9>,
    policy: PolicyBooks,
    tenants: TenantBooks,
}

impl Books {
    /// Books of these workers, in which nobody owns a slot yet.
    pub(crate) fn new(workers: Vec<Arc<WorkerCounters>>) -> Books {
        Books {
            workers,
            services: Ledger::new(SERVICES_MAX),
            backends: Ledger::new(BACKEND_SLOTS_MAX),
            policy: PolicyBooks::new(),
            tenants: TenantBooks::new(),
        }
    }

    /// Slots belong to whom `snapshot` says, from now on. Before workers forward by it.
    pub(crate) fn assign(&mut self, snapshot: &Snapshot) {
        let workers = &self.workers;
        let services = snapshot.services.iter().flatten();
        let named = services.map(|service| (service.id.index(), service.name.clone()));
        self.services.assign(named, |slot| raw_service(workers, slot));
        let backends = snapshot.backends.iter().flatten();
        let named = backends.map(|backend| (backend.id.index(), backend_key(snapshot, backend)));
        self.backends.assign(named, |slot| raw_backend(workers, slot));
        self.policy.assign(snapshot.policy(), workers);
        self.tenants.assign(snapshot, workers);
    }

    /// `show policy`.
    pub(crate) fn policy(&self, snapshot: &Snapshot) -> Vec<PolicyRow> {
        self.policy.rows(snapshot.policy(), &self.workers)
    }

    /// `show tenants`.
    pub(crate) fn tenants(&self, config: &Config) -> Vec<TenantRow> {
        self.tenants.rows(&config.tenants, config.offload.tenant_share_percent, &self.workers)
    }

    /// Live connections of a backend's slot.
    pub(crate) fn live(&self, id: BackendId) -> u64 {
        // Gauges of single workers may wrap when connections move; their sum does not.
        self.sum(|worker| worker.backend(id).map(|backend| &backend.live))
    }

    /// Connections opened or picked up so far, for services that are gone too.
    pub(crate) fn opened(&self) -> u64 {
        let services = self.workers.iter().flat_map(|worker| worker.services.iter());
        services.map(|service| service.opened.get() + service.picked_up.get()).sum()
    }

    fn sum<'a>(&'a self, counter: impl Fn(&'a WorkerCounters) -> Option<&'a Counter>) -> u64 {
        sum(&self.workers, counter)
    }

    fn service(&self, id: ServiceId) -> ServiceTotals {
        self.services.totals(id.index(), raw_service(&self.workers, id.index()))
    }

    fn backend(&self, id: BackendId) -> BackendTotals {
        self.backends.totals(id.index(), raw_backend(&self.workers, id.index()))
    }
}

fn sum<'a>(
    workers: &'a [Arc<WorkerCounters>],
    counter: impl Fn(&'a WorkerCounters) -> Option<&'a Counter>,
) -> u64 {
    workers
        .iter()
        .filter_map(|worker| counter(worker))
        .fold(0, |sum, counter| sum.wrapping_add(counter.get()))
}

fn raw_service(workers: &[Arc<WorkerCounters>], slot: usize) -> ServiceTotals {
    [
        sum(workers, |worker| worker.services.get(slot).map(|service| &service.opened)),
        sum(workers, |worker| worker.services.get(slot).map(|service| &service.picked_up)),
        sum(workers, |worker| worker.services.get(slot).map(|service| &service.dropped)),
    ]
}

fn raw_backend(workers: &[Arc<WorkerCounters>], slot: usize) -> BackendTotals {
    let mut totals: BackendTotals = [0; 9];
    for backend in workers.iter().filter_map(|worker| worker.backends.get(slot)) {
        let [to, from] = &backend.hardware;
        let traffic = [&backend.original, &backend.reply, to, from];
        let traffic = traffic.into_iter().flat_map(|traffic| [&traffic.packets, &traffic.bytes]);
        for (total, counter) in totals.iter_mut().zip(traffic.chain([&backend.connections])) {
            *total = total.wrapping_add(counter.get());
        }
    }
    totals
}

pub(crate) fn service_name(snapshot: &Snapshot, id: ServiceId) -> String {
    snapshot.service(id).map_or_else(String::new, |service| service.name.clone())
}

fn backend_key(snapshot: &Snapshot, backend: &Backend) -> BackendKey {
    let service = service_name(snapshot, backend.service);
    BackendKey { service, address: backend.address, port: backend.port }
}

/// `10.0.0.1`, `10.0.0.1:80`, `2001:db8::1`, `[2001:db8::1]:80`: as configurations write backends.
pub(crate) fn backend_name(address: Ip, port: Option<u16>) -> String {
    port.map_or_else(|| address.to_string(), |port| endpoint(address, port))
}

pub(crate) fn endpoint(address: Ip, port: u16) -> String {
    SocketAddr::new(address.into(), port).to_string()
}

/// Both directions, software and hardware together, and what hardware has of it.
fn traffic(totals: &BackendTotals) -> (TrafficRow, TrafficRow, HardwareRow) {
    let row = |at: usize| TrafficRow { packets: totals[at], bytes: totals[at + 1] };
    let hardware = HardwareRow { original: row(4), reply: row(6) };
    (row(0) + hardware.original, row(2) + hardware.reply, hardware)
}

/// `show services`: configured ones, and removed ones whose connections go on.
pub(crate) fn services(snapshot: &Snapshot, tenants: &[Tenant], books: &Books) -> Vec<ServiceRow> {
    let mut rows: Vec<ServiceRow> = Vec::new();
    let mut row_of = vec![None; snapshot.services.len()];
    for service in snapshot.services.iter().flatten() {
        row_of[service.id.index()] = Some(rows.len());
        let tenant = tenants.get(service.tenant.index()).map_or("", |tenant| tenant.name.as_str());
        rows.push(ServiceRow { tenant: tenant.to_owned(), ..service_row(service, books) });
    }
    for backend in snapshot.backends.iter().flatten() {
        let row = row_of.get(backend.service.index()).copied().flatten();
        let Some(row) = row.and_then(|row| rows.get_mut(row)) else { continue };
        let (original, reply, hardware) = traffic(&books.backend(backend.id));
        row.backends += usize::from(!matches!(backend.state, BackendState::Removed(_)));
        row.backends_active += usize::from(backend.state == BackendState::Active);
        row.connections += books.live(backend.id);
        row.original += original;
        row.reply += reply;
        row.hardware.original += hardware.original;
        row.hardware.reply += hardware.reply;
    }
    for service in snapshot.services.iter().flatten() {
        let row = row_of.get(service.id.index()).copied().flatten();
        if let Some(row) = row.and_then(|row| rows.get_mut(row)) {
            row.imbalance_percent = imbalance(snapshot, books, service);
        }
    }
    rows
}

/// How far the busiest backend of a service by source partition is from its weight's share of the packets, of
/// all so far that backends which take traffic now were given.
fn imbalance(snapshot: &Snapshot, books: &Books, service: &Service) -> Option<u64> {
    let Affinity::Partition { .. } = service.affinity else { return None };
    let takes = |backend: &&Backend| {
        backend.service == service.id && backend.state == BackendState::Active && backend.weight > 0
    };
    let part = |backend: &Backend| (traffic(&books.backend(backend.id)).0.packets, backend.weight);
    busiest(&snapshot.backends.iter().flatten().filter(takes).map(part).collect::<Vec<_>>())
}

/// The largest of packets by weight, percent of the mean.
fn busiest(parts: &[(u64, u32)]) -> Option<u64> {
    let packets: u128 = parts.iter().map(|(packets, _)| u128::from(*packets)).sum();
    let weights: u128 = parts.iter().map(|(_, weight)| u128::from(*weight)).sum();
    let percent = |&(own, weight): &(u64, u32)| {
        (100 * u128::from(own) * weights).checked_div(packets * u128::from(weight))
    };
    parts.iter().filter_map(percent).max().map(|percent| percent.min(u128::from(u64::MAX)) as u64)
}

/// A mode as the configuration writes it.
pub(crate) fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Dsr => "dsr",
        Mode::Nat => "nat",
        Mode::Tunnel(tunnel) => tunnel.encapsulation.name(),
    }
}

fn service_row(service: &Service, books: &Books) -> ServiceRow {
    let [opened, picked_up, dropped] = books.service(service.id);
    let mode = mode_name(service.mode);
    let affinity = match service.affinity {
        Affinity::Connection => "connection",
        Affinity::Client => "client",
        Affinity::None => "none",
        Affinity::Partition { .. } => "partition",
    };
    let range = |(first, last): (&u16, &u16)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    ServiceRow {
        name: service.name.clone(),
        vip: service.vip.to_string(),
        protocol: service.protocol.name().to_owned(),
        ports: service.ports.iter().map(|ports| range((ports.start(), ports.end()))).collect(),
        mode: mode.to_owned(),
        affinity: affinity.to_owned(),
        opened,
        picked_up,
        dropped,
        ..ServiceRow::default()
    }
}

/// `show backends`, service by service.
pub(crate) fn backends(snapshot: &Snapshot, books: &Books) -> Vec<BackendRow> {
    let slots = snapshot.table_slots();
    let mut backends: Vec<&Backend> = snapshot.backends.iter().flatten().collect();
    backends.sort_by_key(|backend| (backend.service, backend.id));
    backends.into_iter().map(|backend| backend_row(snapshot, books, backend, &slots)).collect()
}

fn backend_row(snapshot: &Snapshot, books: &Books, backend: &Backend, slots: &[u32]) -> BackendRow {
    let totals = books.backend(backend.id);
    let (original, reply, hardware) = traffic(&totals);
    let table = snapshot.service(backend.service).map_or(0, |service| service.lookup.len());
    let state = match backend.state {
        BackendState::Active => "active",
        BackendState::Draining => "draining",
        BackendState::Down(_) => "down",
        BackendState::Removed(_) => "removed",
    };
    let next_hop = backend.hop.map_or_else(String::new, |hop| {
        let port = snapshot.ports.get(hop.port.index()).map_or("", |port| port.name.as_str());
        format!("{port} via {}", hop.next_hop)
    });
    BackendRow {
        service: service_name(snapshot, backend.service),
        backend: backend_name(backend.address, backend.port),
        weight: backend.weight,
        state: state.to_owned(),
        share: Share::of(slots[backend.id.index()] as usize, table),
        health: None,
        next_hop,
        connections: books.live(backend.id),
        opened: totals[8],
        original,
        reply,
        hardware,
    }
}

/// One connection, for whoever asks.
pub(crate) fn connection(snapshot: &Snapshot, row: &conntrack::ConnectionRow) -> ConnectionRow {
    let count = |count: conntrack::Count| TrafficRow { packets: count.packets, bytes: count.bytes };
    let path = match row.offload {
        OffloadState::Software => "software".to_owned(),
        OffloadState::Requested(_) => "requested".to_owned(),
        OffloadState::Installed(_) => "hardware".to_owned(),
        OffloadState::Removing(_) => "removing".to_owned(),
        OffloadState::Declined(reason) => format!("declined:{}", reason.name()),
    };
    let timeout_ms = snapshot.timeouts(row.service).timeout_ms(row.state);
    ConnectionRow {
        worker: row.flow.worker.0,
        service: service_name(snapshot, row.service),
        protocol: row.key.protocol.name().to_owned(),
        client: endpoint(row.key.src, row.key.src_port),
        vip: endpoint(row.key.dst, row.key.dst_port),
        backend: endpoint(row.backend_ip, row.backend_port),
        state: row.state.name().to_owned(),
        path,
        age_ms: row.age_ms.into(),
        idle_ms: row.idle_ms.into(),
        expires_ms: timeout_ms.saturating_sub(row.idle_ms).into(),
        original: count(row.totals.original),
        reply: count(row.totals.reply),
    }
}

/// Which connections a query means, in the dataplane's terms.
#[derive(Debug, Default)]
pub(crate) struct ConnectionFilter {
    service: Option<ServiceId>,
    client: Option<Ip>,
    backend: Option<Ip>,
    protocol: Option<Protocol>,
}

impl ConnectionFilter {
    /// The filter that a query asks for; an error names what does not exist.
    pub(crate) fn new(query: &ConnectionQuery, snapshot: &Snapshot) -> Result<ConnectionFilter, String> {
        let service = match &query.service {
            None => None,
            Some(name) => {
                let mut services = snapshot.services.iter().flatten();
                let found = services.find(|service| service.name == *name);
                Some(found.ok_or_else(|| format!("there is no service `{name}`"))?.id)
            }
        };
        Ok(ConnectionFilter {
            service,
            client: query.client.map(Ip::from),
            backend: query.backend.map(Ip::from),
            protocol: query.protocol.map(|transport| match transport {
                Transport::Tcp => Protocol::Tcp,
                Transport::Udp => Protocol::Udp,
            }),
        })
    }

    /// The filter that a query for rules asks for.
    pub(crate) fn of_rules(query: &RuleQuery, snapshot: &Snapshot) -> Result<ConnectionFilter, String> {
        let RuleQuery { service, client, backend, limit } = query.clone();
        ConnectionFilter::new(&ConnectionQuery { service, client, backend, protocol: None, limit }, snapshot)
    }

    /// Whether `row` is meant.
    pub(crate) fn matches(&self, row: &conntrack::ConnectionRow) -> bool {
        self.means(row.service, &row.key, row.backend_ip)
    }

    /// Whether the partition of this service and backend is meant, which has the clients that `has` says.
    pub(crate) fn means_partition(&self, service: ServiceId, backend: Ip, has: impl Fn(Ip) -> bool) -> bool {
        self.service.is_none_or(|wanted| wanted == service)
            && self.client.is_none_or(has)
            && self.backend.is_none_or(|wanted| wanted == backend)
    }

    /// Whether the connection with this key, service and backend is meant.
    pub(crate) fn means(&self, service: ServiceId, key: &FlowKey, backend: Ip) -> bool {
        self.service.is_none_or(|wanted| wanted == service)
            && self.client.is_none_or(|client| client == key.src)
            && self.backend.is_none_or(|wanted| wanted == backend)
            && self.protocol.is_none_or(|protocol| protocol == key.protocol)
    }
}

/// `show drops`: every reason.
pub(crate) fn drops(workers: &[Arc<WorkerCounters>]) -> Vec<DropRow> {
    let row = |reason: &DropReason| DropRow {
        reason: reason.label().to_owned(),
        packets: sum(workers, |worker| worker.dropped.get(*reason as usize)),
        description: reason.description().trim().to_owned(),
    };
    DropReason::ALL.iter().map(row).collect()
}

/// One worker's row; the manager knows its number, core, table and generation.
pub(crate) fn worker(
    worker: u16,
    core: usize,
    capacity: u64,
    generation: u64,
    c: &WorkerCounters,
) -> WorkerRow {
    let (received, handed_in, busy_cycles) = (c.received.get(), c.handed_in.get(), c.busy_cycles.get());
    WorkerRow {
        worker,
        core,
        generation,
        entries: c.entries.get(),
        half_open: c.half_open.get(),
        capacity,
        received,
        sent: c.sent.get(),
        generated: c.generated.get(),
        consumed: c.consumed.get(),
        dropped: c.dropped.iter().map(Counter::get).sum(),
        held: c.held.get(),
        handed_out: c.handed_out.get(),
        handed_in,
        polls: c.polls.get(),
        polls_empty: c.polls_empty.get(),
        busy_cycles,
        cycles_per_packet: busy_cycles.checked_div(received + handed_in).unwrap_or(0),
    }
}

/// What metrics show of a worker's table beside its row.
pub(crate) fn table_events(counters: &WorkerCounters) -> TableEvents {
    TableEvents {
        expired: counters.expired.get(),
        evicted_half_open: counters.evicted_half_open.get(),
        evicted_idle: counters.evicted_idle.get(),
        policy_ended: counters.policy_ended.get(),
        policy_log_lost: counters.policy_log_lost.get(),
        pcc: PccCause::ALL.map(|cause| counters.pcc(cause).get()),
    }
}

/// One neighbour as one worker knows it.
pub(crate) fn neighbour(snapshot: &Snapshot, worker: u16, view: &NeighbourView) -> NeighbourRow {
    let port = snapshot.ports.get(view.port.index()).map_or_else(String::new, |port| port.name.clone());
    NeighbourRow {
        worker,
        port,
        address: view.ip.to_string(),
        mac: view.mac.map_or_else(String::new, |mac| mac.to_string()),
        state: view.state.name().to_owned(),
        held: view.held.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataplane::addr::MacAddr;
    use dataplane::config::Config;
    use dataplane::snapshot::{Overrides, PortFacts};
    use std::net::IpAddr;

    #[test]
    fn backends_are_named_as_configurations_write_them() {
        let ip = |text: &str| Ip::from(text.parse::<IpAddr>().expect("address"));
        assert_eq!(backend_name(ip("10.0.0.1"), None), "10.0.0.1");
        assert_eq!(backend_name(ip("10.0.0.1"), Some(80)), "10.0.0.1:80");
        assert_eq!(backend_name(ip("2001:db8::1"), None), "2001:db8::1");
        assert_eq!(backend_name(ip("2001:db8::1"), Some(80)), "[2001:db8::1]:80");
    }

    #[test]
    fn the_busiest_is_measured_by_its_weight() {
        assert_eq!(busiest(&[]), None);
        assert_eq!(busiest(&[(0, 1), (0, 2)]), None);
        assert_eq!(busiest(&[(10, 1), (20, 2)]), Some(100));
        assert_eq!(busiest(&[(30, 1), (30, 2)]), Some(150));
        assert_eq!(busiest(&[(7, 1), (0, 1), (0, 1)]), Some(300));
    }

    #[test]
    fn workers_counters_are_added_up() {
        let workers: Vec<_> = (0..2).map(|_| Arc::new(WorkerCounters::new(1, 1))).collect();
        workers[0].drop_packet(DropReason::NoRoute);
        workers[1].drop_packet(DropReason::NoRoute);
        let rows = drops(&workers);
        assert_eq!(rows.len(), DropReason::ALL.len());
        assert_eq!(rows.iter().map(|row| row.packets).sum::<u64>(), 2);
        assert!(rows.iter().any(|row| row.reason == "no_route" && row.packets == 2));
        // A connection opened at one worker and ended at another leaves one gauge below zero.
        workers[0].backends[0].live.add(1);
        workers[1].backends[0].live.sub(1);
        assert_eq!(Books::new(workers).live(BackendId(0)), 0);
    }

    fn snapshot(backends: &[&str], previous: Option<&Snapshot>, books: &Books) -> Snapshot {
        let port = "[[port]]\nname = \"lan\"\ndevice = \"net_null0\"\naddresses = [\"10.0.0.1/24\"]\n";
        let service = "[[service]]\nname = \"web\"\nvip = \"192.0.2.1\"\nprotocol = \"tcp\"\nports = [80]\n";
        let backend = |address: &&str| format!("[[service.backend]]\naddress = \"{address}\"\n");
        let text = format!("{port}{service}{}", backends.iter().map(backend).collect::<String>());
        let config = Config::parse("test", &text).unwrap_or_else(|faults| panic!("{faults}"));
        let facts = [PortFacts { mac: MacAddr([2, 0, 0, 0, 0, 1]), mtu: 1500 }];
        let live = |id| books.live(id);
        Snapshot::build(&config, &facts, &Overrides::default(), previous, &live).expect("fits")
    }

    /// A slot that served one backend and then another counts for each what was its.
    #[test]
    fn traffic_is_shown_under_the_name_it_was_for() {
        let counters = Arc::new(WorkerCounters::new(1, 4));
        let mut books = Books::new(vec![Arc::clone(&counters)]);
        let carry = |slot: usize, packets: u64| {
            (0..packets).for_each(|_| counters.backends[slot].original.count(100));
            counters.backends[slot].connections.add(1);
        };
        let shown = |snapshot: &Snapshot, books: &Books| -> Vec<(String, String, u64)> {
            let row = |row: BackendRow| (row.backend, row.state, row.original.packets);
            backends(snapshot, books).into_iter().map(row).collect()
        };
        let expect = |rows: &[(&str, &str, u64)]| -> Vec<(String, String, u64)> {
            rows.iter()
                .map(|(name, state, packets)| (name.to_string(), state.to_string(), *packets))
                .collect()
        };

        let first = snapshot(&["10.0.0.2", "10.0.0.3"], None, &books);
        books.assign(&first);
        carry(0, 5);
        carry(1, 7);
        assert_eq!(shown(&first, &books), expect(&[("10.0.0.2", "active", 5), ("10.0.0.3", "active", 7)]));

        // One leaves: shown for as long as workers may still know it, then its slot is given away.
        let second = snapshot(&["10.0.0.3"], Some(&first), &books);
        books.assign(&second);
        assert_eq!(shown(&second, &books), expect(&[("10.0.0.2", "removed", 5), ("10.0.0.3", "active", 7)]));
        let third = snapshot(&["10.0.0.3", "10.0.0.4"], Some(&second), &books);
        books.assign(&third);
        carry(0, 2);
        assert_eq!(shown(&third, &books), expect(&[("10.0.0.4", "active", 2), ("10.0.0.3", "active", 7)]));

        // It comes back, to another slot, and goes on counting from where it was.
        let fourth = snapshot(&["10.0.0.2", "10.0.0.3", "10.0.0.4"], Some(&third), &books);
        books.assign(&fourth);
        carry(2, 1);
        let rows = [("10.0.0.4", "active", 2), ("10.0.0.3", "active", 7), ("10.0.0.2", "active", 6)];
        assert_eq!(shown(&fourth, &books), expect(&rows));
        let limits = dataplane::snapshot::Tenant::default();
        let tenants = [Tenant { name: "default".to_owned(), limits, limit: None }];
        let service = &services(&fourth, &tenants, &books)[0];
        assert_eq!((service.tenant.as_str(), service.backends, service.backends_active), ("default", 3, 3));
        assert_eq!((service.original.packets, service.original.bytes), (15, 1500));
    }

    #[test]
    fn a_query_that_names_what_is_not_there_is_refused() {
        let books = Books::new(Vec::new());
        let snapshot = snapshot(&["10.0.0.2"], None, &books);
        let error = |query| ConnectionFilter::new(&query, &snapshot).expect_err("refused");
        let service = ConnectionQuery { service: Some("wob".into()), ..ConnectionQuery::default() };
        assert_eq!(error(service), "there is no service `wob`");
        assert!(ConnectionFilter::new(&ConnectionQuery::default(), &snapshot).is_ok());
    }
}
