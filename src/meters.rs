//! Meters as an operator sees them: whose they are, what they let through, and what they did not.

use crate::api::{MeterRow, TrafficRow};
use crate::rows::Books;
use crate::totals::Ledger;
use dataplane::config::Tenant;
use dataplane::counters::{MeterCounters, WorkerCounters};
use dataplane::ids::TenantId;
use dataplane::limits::SERVICES_MAX;
use dataplane::meter::Meter;
use dataplane::snapshot::{Service, Snapshot};
use std::sync::Arc;

/// Packets and bytes by colour, and connections that were refused.
type Totals = [u64; 7];

/// What all workers' meters have counted, by the names of services. Tenants keep their numbers.
#[derive(Debug)]
pub(crate) struct MeterBooks {
    workers: Vec<Arc<WorkerCounters>>,
    services: Ledger<String, 7>,
}

impl MeterBooks {
    /// Books of these workers, in which nobody owns a slot yet.
    pub(crate) fn new(workers: Vec<Arc<WorkerCounters>>) -> MeterBooks {
        MeterBooks { workers, services: Ledger::new(SERVICES_MAX) }
    }

    /// Slots belong to whom `snapshot` says, from now on. Before workers forward by it.
    pub(crate) fn assign(&mut self, snapshot: &Snapshot) {
        let named = snapshot.services.iter().flatten().map(|s| (s.id.index(), s.name.clone()));
        let workers = &self.workers;
        self.services.assign(named, |slot| sum(workers, |worker| worker.service_meters.get(slot)));
    }

    /// `show meters`: services first.
    pub(crate) fn rows(&self, snapshot: &Snapshot, tenants: &[Tenant]) -> Vec<MeterRow> {
        let service = |service: &Service| {
            let meter = snapshot.metered(service.id)?.service.as_deref()?;
            let raw = sum(&self.workers, |worker| worker.service_meters.get(service.id.index()));
            Some(row("service", &service.name, meter, self.services.totals(service.id.index(), raw)))
        };
        let tenant = |(index, tenant): (usize, &Tenant)| {
            let meter = snapshot.tenant_meter(TenantId(index as u16))?;
            let totals = sum(&self.workers, |worker| worker.tenant_meters.get(index));
            Some(row("tenant", &tenant.name, meter, totals))
        };
        let services = snapshot.services.iter().flatten().filter_map(service);
        services.chain(tenants.iter().enumerate().filter_map(tenant)).collect()
    }
}

/// Puts right how many connections the meters believe there are: the count begins at some moment, and the
/// workers take part a little later.
pub(crate) fn recount(snapshot: &Snapshot, books: &Books) {
    for service in snapshot.services.iter().flatten() {
        let meter = snapshot.metered(service.id).and_then(|metered| metered.service.as_deref());
        let Some(meter) = meter.filter(|meter| meter.limit.connections.is_some()) else { continue };
        let of_service = snapshot.backends.iter().flatten().filter(|b| b.service == service.id);
        meter.set_live(of_service.map(|backend| books.live(backend.id)).sum());
    }
}

fn sum<'a>(
    workers: &'a [Arc<WorkerCounters>],
    meter: impl Fn(&'a WorkerCounters) -> Option<&'a MeterCounters>,
) -> Totals {
    let mut totals = Totals::default();
    for counters in workers.iter().filter_map(|worker| meter(worker)) {
        let traffic = counters.colours.iter().flat_map(|traffic| [&traffic.packets, &traffic.bytes]);
        for (total, counter) in totals.iter_mut().zip(traffic.chain([&counters.refused])) {
            *total = total.wrapping_add(counter.get());
        }
    }
    totals
}

fn row(scope: &str, name: &str, meter: &Meter, totals: Totals) -> MeterRow {
    let limit = &meter.limit;
    let hardware = meter.in_hardware();
    let share = |rate: u64| (hardware.rate().saturating_mul(100) / rate.max(1)).min(100) as u8;
    let rate = meter.for_hardware().map(|(_, bucket)| bucket.per_second());
    let red = hardware.red();
    let traffic = |at: usize| TrafficRow { packets: totals[at], bytes: totals[at + 1] };
    MeterRow {
        scope: scope.to_owned(),
        name: name.to_owned(),
        packets_per_second: limit.packets_per_second,
        bits_per_second: limit.bits_per_second,
        new_connections_per_second: limit.new_connections_per_second,
        connections_max: limit.connections,
        connections: limit.connections.map(|_| meter.live()),
        burst_ms: limit.burst_ms,
        hardware_percent: rate.filter(|_| hardware.rate() > 0).map(share),
        green: traffic(0),
        yellow: traffic(2),
        red: TrafficRow { packets: totals[4] + red.0, bytes: totals[5] + red.1 },
        refused: totals[6],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataplane::addr::MacAddr;
    use dataplane::config::Config;
    use dataplane::ids::{BackendId, ServiceId};
    use dataplane::meter::Colour;
    use dataplane::snapshot::{Overrides, PortFacts};

    const TEXT: &str = r#"
[[tenant]]
name = "blue"
limit = { new_connections_per_second = 5 }
[[port]]
name = "lan"
device = "net_null0"
tenant = "blue"
addresses = ["10.0.0.1/24"]
[[service]]
name = "web"
tenant = "blue"
vip = "192.0.2.1"
protocol = "tcp"
ports = [80]
limit = { packets_per_second = 1000, connections = 7 }
[[service.backend]]
address = "10.0.0.2"
"#;

    #[test]
    fn rows_tell_limits_and_what_became_of_packets() {
        let config = Config::parse("test", TEXT).unwrap_or_else(|faults| panic!("{faults}"));
        let facts = [PortFacts { mac: MacAddr([2, 0, 0, 0, 0, 1]), mtu: 1500 }];
        let build = Snapshot::build(&config, &facts, &Overrides::default(), None, &|_| 0);
        let snapshot = build.expect("a snapshot");
        let workers: Vec<_> = (0..2).map(|_| Arc::new(WorkerCounters::new(1, 1))).collect();
        let mut meters = MeterBooks::new(workers.clone());
        meters.assign(&snapshot);
        for worker in &workers {
            worker.service_meter(ServiceId(0), Colour::Green, 100);
            worker.service_meter(ServiceId(0), Colour::Red, 40);
            worker.tenant_refusal(TenantId(1));
            worker.backends[BackendId(0).index()].live.add(2);
        }
        let mut books = Books::new(workers);
        books.assign(&snapshot);
        recount(&snapshot, &books);
        let meter = snapshot.metered(ServiceId(0)).and_then(|metered| metered.service.as_deref());
        let hardware = meter.expect("a meter").in_hardware();
        hardware.set_rate(250);
        hardware.count_red(3, 300);
        let rows = meters.rows(&snapshot, &config.tenants);
        let [web, blue] = &rows[..] else { panic!("two meters: {rows:?}") };
        assert_eq!((web.scope.as_str(), web.name.as_str(), web.burst_ms), ("service", "web", 100));
        assert_eq!((web.connections_max, web.connections), (Some(7), Some(4)));
        assert_eq!(web.green, TrafficRow { packets: 2, bytes: 200 });
        assert_eq!((web.red, web.refused), (TrafficRow { packets: 5, bytes: 380 }, 0));
        assert_eq!((web.hardware_percent, blue.hardware_percent), (Some(25), None));
        assert_eq!((blue.scope.as_str(), blue.name.as_str()), ("tenant", "blue"));
        assert_eq!((blue.connections, blue.refused), (None, 2));
    }
}
