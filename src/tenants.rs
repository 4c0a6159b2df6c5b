//! `show tenants`: what each holds, and what became of its packets.

use crate::api::{HardwareRow, TrafficRow};
use crate::totals::Ledger;
use dataplane::config::Tenant;
use dataplane::counters::{Counter, WorkerCounters};
use dataplane::drops::DropReason;
use dataplane::ids::TenantId;
use dataplane::limits::{BACKEND_SLOTS_MAX, SERVICES_MAX};
use dataplane::snapshot::Snapshot;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Reasons for which newcomers are refused for want of room.
pub(crate) const REFUSALS: [DropReason; 3] =
    [DropReason::TableFull, DropReason::HalfOpenLimit, DropReason::TenantLimit];

/// A tenant. What its services count includes those that are gone.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TenantRow {
    pub(crate) name: String,
    /// Live ones, of all workers,
    pub(crate) connections: u64,
    /// of these, half-open ones,
    pub(crate) half_open: u64,
    /// and how many there may be; absent: as many as there is room for.
    pub(crate) connections_max: Option<u32>,
    /// Share of the rules in hardware that it may hold, percent.
    pub(crate) offload_share_percent: u8,
    /// Connections opened by a SYN or a first datagram,
    pub(crate) opened: u64,
    /// picked up in the middle,
    pub(crate) picked_up: u64,
    /// and refused for want of room.
    pub(crate) refused: u64,
    pub(crate) original: TrafficRow,
    pub(crate) reply: TrafficRow,
    /// Of these two, what hardware forwarded.
    pub(crate) hardware: HardwareRow,
    /// Packets dropped that arrived on its ports, by reason, without zeros. Not those that waited for
    /// something and were given up, which only `drops` has.
    pub(crate) drops: BTreeMap<String, u64>,
}

/// What slots have counted, by the tenants they belong to.
#[derive(Debug)]
pub(crate) struct TenantBooks {
    services: Ledger<TenantId, 2>,
    backends: Ledger<TenantId, 8>,
}

impl TenantBooks {
    pub(crate) fn new() -> TenantBooks {
        TenantBooks { services: Ledger::new(SERVICES_MAX), backends: Ledger::new(BACKEND_SLOTS_MAX) }
    }

    /// Slots belong to whom `snapshot` says, from now on.
    pub(crate) fn assign(&mut self, snapshot: &Snapshot, workers: &[Arc<WorkerCounters>]) {
        let services = snapshot.services.iter().flatten();
        let owned = services.map(|service| (service.id.index(), service.tenant));
        self.services.assign(owned, |slot| raw_service(workers, slot));
        let backends = snapshot.backends.iter().flatten();
        let owned = backends.filter_map(|backend| {
            let service = snapshot.service(backend.service)?;
            Some((backend.id.index(), service.tenant))
        });
        self.backends.assign(owned, |slot| raw_backend(workers, slot));
    }

    /// The rows of these tenants. `share_percent` is for those that have no share of their own.
    pub(crate) fn rows(
        &self,
        tenants: &[Tenant],
        share_percent: u8,
        workers: &[Arc<WorkerCounters>],
    ) -> Vec<TenantRow> {
        let services = self.services.by_owner(|slot| raw_service(workers, slot));
        let backends = self.backends.by_owner(|slot| raw_backend(workers, slot));
        let row = |(tenant, number): (&Tenant, u16)| {
            let id = TenantId(number);
            let [opened, picked_up] = services.get(&id).copied().unwrap_or_default();
            let traffic = backends.get(&id).copied().unwrap_or_default();
            let row = |at: usize| TrafficRow { packets: traffic[at], bytes: traffic[at + 1] };
            let hardware = HardwareRow { original: row(4), reply: row(6) };
            let drops = drops(workers, id);
            let refused = REFUSALS.iter().filter_map(|reason| drops.get(reason.label())).sum();
            TenantRow {
                name: tenant.name.clone(),
                connections: sum(workers, |worker| Some(&worker.tenants.get(id.index())?.live)),
                half_open: sum(workers, |worker| Some(&worker.tenants.get(id.index())?.half_open)),
                connections_max: tenant.limits.connections,
                offload_share_percent: tenant.limits.offload_share_percent.unwrap_or(share_percent),
                opened,
                picked_up,
                refused,
                original: row(0) + hardware.original,
                reply: row(2) + hardware.reply,
                hardware,
                drops,
            }
        };
        tenants.iter().zip(0u16..).map(row).collect()
    }
}

fn drops(workers: &[Arc<WorkerCounters>], id: TenantId) -> BTreeMap<String, u64> {
    let count = |reason: &DropReason| {
        let packets = sum(workers, |worker| worker.tenants.get(id.index())?.dropped.get(*reason as usize));
        (reason.label().to_owned(), packets)
    };
    DropReason::ALL.iter().map(count).filter(|(_, packets)| *packets > 0).collect()
}

fn sum<'a>(
    workers: &'a [Arc<WorkerCounters>],
    counter: impl Fn(&'a WorkerCounters) -> Option<&'a Counter>,
) -> u64 {
    workers.iter().filter_map(|worker| counter(worker)).map(Counter::get).sum()
}

/// Opened, picked up.
fn raw_service(workers: &[Arc<WorkerCounters>], slot: usize) -> [u64; 2] {
    [
        sum(workers, |worker| Some(&worker.services.get(slot)?.opened)),
        sum(workers, |worker| Some(&worker.services.get(slot)?.picked_up)),
    ]
}

/// Packets and bytes to the backend and from it by software, and the same by hardware.
fn raw_backend(workers: &[Arc<WorkerCounters>], slot: usize) -> [u64; 8] {
    let mut totals = [0u64; 8];
    for backend in workers.iter().filter_map(|worker| worker.backends.get(slot)) {
        let [to, from] = &backend.hardware;
        let traffic = [&backend.original, &backend.reply, to, from];
        let traffic = traffic.into_iter().flat_map(|traffic| [&traffic.packets, &traffic.bytes]);
        for (total, counter) in totals.iter_mut().zip(traffic) {
            *total = total.wrapping_add(counter.get());
        }
    }
    totals
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataplane::addr::MacAddr;
    use dataplane::config::Config;
    use dataplane::snapshot::{Overrides, PortFacts};

    /// Two tenants with a service each; blue's has these backends.
    fn config(backends: &[&str]) -> Config {
        let mut text = "[[tenant]]\nname = \"blue\"\nconnections = 100\n".to_owned();
        text += "[[port]]\nname = \"lan\"\ndevice = \"net_null0\"\naddresses = [\"10.0.0.1/24\"]\n";
        text += "[[port]]\nname = \"blue\"\nparent = \"lan\"\nvlan = 10\ntenant = \"blue\"\n\
                 addresses = [\"10.0.0.1/24\"]\n";
        for (tenant, backends) in [("default", &["10.0.0.9"][..]), ("blue", backends)] {
            text += &format!("[[service]]\nname = \"web-{tenant}\"\ntenant = \"{tenant}\"\n");
            text += "vip = \"192.0.2.1\"\nprotocol = \"tcp\"\nports = [80]\n";
            for backend in backends {
                text += &format!("[[service.backend]]\naddress = \"{backend}\"\n");
            }
        }
        Config::parse("test", &text).unwrap_or_else(|faults| panic!("{faults}"))
    }

    fn snapshot(config: &Config, previous: Option<&Snapshot>) -> Snapshot {
        let facts = [PortFacts { mac: MacAddr([2, 0, 0, 0, 0, 1]), mtu: 1500 }; 2];
        Snapshot::build(config, &facts, &Overrides::default(), previous, &|_| 0).expect("fits")
    }

    /// What a tenant's backends carried is its own, also when they have left and their slots are others'.
    #[test]
    fn a_tenant_s_traffic_outlives_its_backends() {
        let counters = Arc::new(WorkerCounters::new(4, 8).with_tenants(2));
        let workers = [Arc::clone(&counters)];
        let mut books = TenantBooks::new();
        let carry = |snapshot: &Snapshot, packets: u64| {
            for backend in snapshot.backends.iter().flatten() {
                (0..packets).for_each(|_| counters.backends[backend.id.index()].reply.count(100));
            }
        };
        let shown = |books: &TenantBooks, config: &Config| -> Vec<u64> {
            books.rows(&config.tenants, 100, &workers).iter().map(|row| row.reply.packets).collect()
        };
        let both = config(&["10.0.0.2", "10.0.0.3"]);
        let first = snapshot(&both, None);
        books.assign(&first, &workers);
        carry(&first, 5);
        assert_eq!(shown(&books, &both), [5, 10]);

        let one = config(&["10.0.0.3"]);
        let second = snapshot(&one, Some(&first));
        books.assign(&second, &workers);
        let third = snapshot(&one, Some(&second));
        books.assign(&third, &workers);
        carry(&third, 1);
        assert_eq!(shown(&books, &one), [6, 11]);

        let fourth = snapshot(&both, Some(&third));
        books.assign(&fourth, &workers);
        carry(&fourth, 1);
        assert_eq!(shown(&books, &both), [7, 13]);
    }

    #[test]
    fn what_is_refused_is_told_from_other_drops() {
        let workers: Vec<_> = (0..2).map(|_| Arc::new(WorkerCounters::new(4, 8).with_tenants(2))).collect();
        for (worker, reason) in
            [(0, DropReason::TenantLimit), (1, DropReason::TenantLimit), (1, DropReason::NoRoute)]
        {
            workers[worker].drop_packet_of(TenantId(1), reason);
        }
        workers[0].tenants[1].live.set(3);
        workers[1].tenants[1].live.set(4);
        let config = config(&["10.0.0.2"]);
        let rows = TenantBooks::new().rows(&config.tenants, 60, &workers);
        assert_eq!((rows[0].refused, rows[0].drops.len(), rows[0].offload_share_percent), (0, 0, 60));
        assert_eq!((rows[1].refused, rows[1].connections, rows[1].connections_max), (2, 7, Some(100)));
        assert_eq!(rows[1].drops.get("no_route"), Some(&1));
    }
}
