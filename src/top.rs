//! `top`: what flows right now. Two samples of the control API, some time apart, make a view; a terminal
//! shows one after the other, a file or a pipe gets one.

mod screen;
#[cfg(test)]
mod tests;

use crate::api::{BackendRow, DropRow, OffloadRow, ServiceRow, Share, TrafficRow, WorkerRow};
use crate::cli::{Cli, TopArgs};
use crate::client::{Client, ClientError};
use crate::clock;
use crate::output::{self, Table};
use crate::{Failure, commands};
use serde::Serialize;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// What there is to see, at one moment.
#[derive(Clone, Debug, Default)]
struct Sample {
    services: Vec<ServiceRow>,
    backends: Vec<BackendRow>,
    workers: Vec<WorkerRow>,
    drops: Vec<DropRow>,
    offload: OffloadRow,
}

impl Sample {
    fn take(client: &Client<'_>) -> Result<(Instant, Sample), ClientError> {
        let at = clock::monotonic();
        let sample = Sample {
            services: client.get("/v1/services")?,
            backends: client.get("/v1/backends")?,
            workers: client.get("/v1/workers")?,
            drops: client.get("/v1/drops")?,
            offload: client.get("/v1/offload")?,
        };
        Ok((at, sample))
    }
}

/// Per second, both directions together.
#[derive(Serialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Rate {
    packets_per_second: u64,
    /// Of IP packets.
    bits_per_second: u64,
    /// The share of the packets that hardware forwarded.
    hardware_share: Share,
}

#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
struct ServiceView {
    service: String,
    tenant: String,
    backends: usize,
    backends_active: usize,
    connections: u64,
    opened_per_second: u64,
    /// By source partition: packets of the busiest backend since the start, percent of what its weight says.
    #[serde(skip_serializing_if = "Option::is_none")]
    imbalance_percent: Option<u64>,
    #[serde(flatten)]
    rate: Rate,
}

#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
struct BackendView {
    service: String,
    backend: String,
    state: String,
    connections: u64,
    opened_per_second: u64,
    #[serde(flatten)]
    rate: Rate,
}

#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
struct DropView {
    reason: String,
    packets: u64,
    packets_per_second: u64,
}

#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
struct WorkerView {
    worker: u16,
    core: usize,
    received_per_second: u64,
    sent_per_second: u64,
    dropped_per_second: u64,
    /// The share of polls that found packets.
    busy_polls: Share,
    entries: u64,
    capacity: u64,
}

/// What flows, between two samples. The busiest come first.
#[derive(Serialize, Clone, Debug, Default, PartialEq, Eq)]
struct View {
    /// The time between the samples.
    interval_ms: u64,
    connections: u64,
    opened_per_second: u64,
    dropped_per_second: u64,
    #[serde(flatten)]
    rate: Rate,
    engine: String,
    engine_state: String,
    rules: u64,
    rules_max: u64,
    /// Rules of source partitions, by what became of them; none where no service has any.
    #[serde(skip_serializing_if = "Option::is_none")]
    partitions: Option<BTreeMap<String, u64>>,
    services: Vec<ServiceView>,
    backends: Vec<BackendView>,
    drops: Vec<DropView>,
    workers: Vec<WorkerView>,
}

/// So much time between two samples.
#[derive(Clone, Copy)]
struct Between(Duration);

impl Between {
    /// What a counter grew by, per second. One that shrank belongs to a Millrace that was restarted.
    fn rate(self, before: Option<u64>, after: u64) -> u64 {
        let grown = after.saturating_sub(before.unwrap_or(after));
        let ms = self.0.as_millis().max(1);
        u64::try_from(u128::from(grown) * 1000 / ms).unwrap_or(u64::MAX)
    }

    /// Of both directions together, with what of it was hardware's.
    fn traffic(self, before: Option<Carried>, after: Carried) -> Rate {
        let was = before.unwrap_or(after);
        let grown = after.all.packets.saturating_sub(was.all.packets) as usize;
        let hardware = after.hardware.packets.saturating_sub(was.hardware.packets) as usize;
        Rate {
            packets_per_second: self.rate(Some(was.all.packets), after.all.packets),
            bits_per_second: self.rate(Some(was.all.bytes), after.all.bytes).saturating_mul(8),
            hardware_share: Share::of(hardware, grown),
        }
    }
}

/// What was carried so far, in all and in hardware.
#[derive(Clone, Copy, Default)]
struct Carried {
    all: TrafficRow,
    hardware: TrafficRow,
}

impl Carried {
    fn by_service(row: &ServiceRow) -> Carried {
        Carried { all: row.original + row.reply, hardware: row.hardware.original + row.hardware.reply }
    }

    fn by_backend(row: &BackendRow) -> Carried {
        Carried { all: row.original + row.reply, hardware: row.hardware.original + row.hardware.reply }
    }

    fn by_all(rows: &[ServiceRow]) -> Carried {
        rows.iter().map(Carried::by_service).fold(Carried::default(), |sum, one| Carried {
            all: sum.all + one.all,
            hardware: sum.hardware + one.hardware,
        })
    }
}

impl View {
    fn new(before: &Sample, after: &Sample, time: Duration) -> View {
        let between = Between(time);
        let dropped = |sample: &Sample| sample.drops.iter().map(|row| row.packets).sum::<u64>();
        let opened = |sample: &Sample| sample.services.iter().map(|row| row.opened + row.picked_up).sum();
        let carried = [before, after].map(|sample| Carried::by_all(&sample.services));
        let parted = after.services.iter().any(|row| row.affinity == "partition");
        View {
            interval_ms: u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
            connections: after.services.iter().map(|row| row.connections).sum(),
            opened_per_second: between.rate(Some(opened(before)), opened(after)),
            dropped_per_second: between.rate(Some(dropped(before)), dropped(after)),
            rate: between.traffic(Some(carried[0]), carried[1]),
            engine: after.offload.engine.clone(),
            engine_state: after.offload.state.clone(),
            rules: after.offload.rules,
            rules_max: after.offload.capacity,
            partitions: parted.then(|| after.offload.partitions.clone()),
            services: services(before, after, between),
            backends: backends(before, after, between),
            drops: drops(before, after, between),
            workers: workers(before, after, between),
        }
    }

    /// The first lines.
    fn head(&self) -> Vec<String> {
        let Rate { packets_per_second, bits_per_second, hardware_share } = self.rate;
        let mut head = vec![
            format!(
                "{} packets/s, {} bit/s, {} connections, {} new/s, {} dropped/s",
                output::scaled(packets_per_second),
                output::scaled(bits_per_second),
                self.connections,
                output::scaled(self.opened_per_second),
                output::scaled(self.dropped_per_second)
            ),
            format!(
                "offload: {} of the packets by hardware, {} of {} rules, engine {} ({})",
                percent(hardware_share),
                self.rules,
                self.rules_max,
                self.engine,
                self.engine_state
            ),
        ];
        head.extend(self.partitions.as_ref().map(|rules| self.parted(rules)));
        head
    }

    /// Where the rules of source partitions are, and how even their services are.
    fn parted(&self, rules: &BTreeMap<String, u64>) -> String {
        let of = |state: &str| rules.get(state).copied().unwrap_or_default();
        let declined = rules.iter().filter(|(state, _)| state.starts_with("declined"));
        let elsewhere: u64 = declined.map(|(_, count)| count).sum();
        let uneven = |row: &ServiceView| Some(format!(", {} {} %", row.service, row.imbalance_percent?));
        let busiest: String = self.services.iter().filter_map(uneven).collect();
        format!(
            "partitions: {} rules in hardware, {} moving, {elsewhere} left to software; busiest backend against its \
             weight{}",
            of("installed"),
            of("moving"),
            if busiest.is_empty() { ": no packets yet".to_owned() } else { busiest.replacen(',', ":", 1) },
        )
    }

    /// The tables, and what stands there instead of an empty one.
    fn tables(&self) -> [(Table, &'static str); 4] {
        let mut services =
            Table::new(&["SERVICE", "TENANT", ">UP", ">CONNS", ">NEW/S", ">PACKETS/S", ">BITS/S", ">HW"]);
        for row in &self.services {
            let [packets, bits, hardware] = rate_cells(row.rate);
            let up = format!("{}/{}", row.backends_active, row.backends);
            let (name, tenant) = (row.service.clone(), row.tenant.clone());
            let (connections, opened) = (row.connections.to_string(), output::scaled(row.opened_per_second));
            services.row([name, tenant, up, connections, opened, packets, bits, hardware]);
        }
        let mut backends =
            Table::new(&["BACKEND", "SERVICE", "STATE", ">CONNS", ">NEW/S", ">PACKETS/S", ">BITS/S", ">HW"]);
        for row in &self.backends {
            let [packets, bits, hardware] = rate_cells(row.rate);
            let names = [&row.backend, &row.service, &row.state].map(String::clone);
            let [backend, service, state] = names;
            let (connections, opened) = (row.connections.to_string(), output::scaled(row.opened_per_second));
            backends.row([backend, service, state, connections, opened, packets, bits, hardware]);
        }
        let mut drops = Table::new(&["DROPPED", ">PACKETS", ">PACKETS/S"]);
        for row in &self.drops {
            let rate = output::scaled(row.packets_per_second);
            drops.row([row.reason.clone(), row.packets.to_string(), rate]);
        }
        let mut workers =
            Table::new(&["WORKER", ">CORE", ">RECEIVED/S", ">SENT/S", ">DROPPED/S", ">BUSY POLLS", ">TABLE"]);
        for row in &self.workers {
            workers.row([
                row.worker.to_string(),
                row.core.to_string(),
                output::scaled(row.received_per_second),
                output::scaled(row.sent_per_second),
                output::scaled(row.dropped_per_second),
                percent(row.busy_polls),
                output::percent(row.entries, row.capacity),
            ]);
        }
        [
            (workers, "no workers"),
            (services, "no services"),
            (backends, "no backends"),
            (drops, "nothing was dropped"),
        ]
    }

    /// All of it as text.
    fn text(&self) -> String {
        let head = self.head().join("\n") + "\n";
        self.tables().iter().fold(head, |text, (table, nothing)| text + "\n" + &table.render(nothing))
    }
}

fn rate_cells(rate: Rate) -> [String; 3] {
    let Rate { packets_per_second, bits_per_second, hardware_share } = rate;
    [output::scaled(packets_per_second), output::scaled(bits_per_second), percent(hardware_share)]
}

fn percent(share: Share) -> String {
    output::percent(share.parts_per_million.into(), 1_000_000)
}

fn services(before: &Sample, after: &Sample, between: Between) -> Vec<ServiceView> {
    let view = |row: &ServiceRow| {
        let was = before.services.iter().find(|was| was.name == row.name);
        let opened = |row: &ServiceRow| row.opened + row.picked_up;
        ServiceView {
            service: row.name.clone(),
            tenant: row.tenant.clone(),
            backends: row.backends,
            backends_active: row.backends_active,
            connections: row.connections,
            opened_per_second: between.rate(was.map(opened), opened(row)),
            imbalance_percent: row.imbalance_percent,
            rate: between.traffic(was.map(Carried::by_service), Carried::by_service(row)),
        }
    };
    let mut views: Vec<_> = after.services.iter().map(view).collect();
    views.sort_by_key(|view| Reverse((view.rate.packets_per_second, view.connections)));
    views
}

fn backends(before: &Sample, after: &Sample, between: Between) -> Vec<BackendView> {
    let was: std::collections::HashMap<_, _> =
        before.backends.iter().map(|row| ((&row.service, &row.backend), row)).collect();
    let view = |row: &BackendRow| {
        let was = was.get(&(&row.service, &row.backend)).copied();
        BackendView {
            service: row.service.clone(),
            backend: row.backend.clone(),
            state: row.state.clone(),
            connections: row.connections,
            opened_per_second: between.rate(was.map(|was| was.opened), row.opened),
            rate: between.traffic(was.map(Carried::by_backend), Carried::by_backend(row)),
        }
    };
    let mut views: Vec<_> = after.backends.iter().map(view).collect();
    views.sort_by_key(|view| Reverse((view.rate.packets_per_second, view.connections)));
    views
}

fn drops(before: &Sample, after: &Sample, between: Between) -> Vec<DropView> {
    let happened = after.drops.iter().filter(|row| row.packets > 0);
    let view = |row: &DropRow| {
        let was = before.drops.iter().find(|was| was.reason == row.reason).map(|was| was.packets);
        let packets_per_second = between.rate(was, row.packets);
        DropView { reason: row.reason.clone(), packets: row.packets, packets_per_second }
    };
    let mut views: Vec<_> = happened.map(view).collect();
    views.sort_by_key(|view| Reverse((view.packets_per_second, view.packets)));
    views
}

fn workers(before: &Sample, after: &Sample, between: Between) -> Vec<WorkerView> {
    let view = |row: &WorkerRow| {
        let was = before.workers.iter().find(|was| was.worker == row.worker).unwrap_or(row);
        let polls = row.polls.saturating_sub(was.polls) as usize;
        let empty = row.polls_empty.saturating_sub(was.polls_empty) as usize;
        WorkerView {
            worker: row.worker,
            core: row.core,
            received_per_second: between.rate(Some(was.received), row.received),
            sent_per_second: between.rate(Some(was.sent), row.sent),
            dropped_per_second: between.rate(Some(was.dropped), row.dropped),
            busy_polls: Share::of(polls.saturating_sub(empty), polls),
            entries: row.entries,
            capacity: row.capacity,
        }
    };
    after.workers.iter().map(view).collect()
}

/// `top`: on a terminal until it is told to quit; once with `--once`, `--json`, or where there is none.
pub(crate) fn top(cli: &Cli, args: &TopArgs) -> Result<(), Failure> {
    let client = Client::new(cli.socket());
    let interval = Duration::from_millis(args.interval_ms);
    let first = Sample::take(&client)?;
    if !args.once && !cli.json && std::io::stdout().is_terminal() && std::io::stdin().is_terminal() {
        return screen::show(&client, first, interval);
    }
    std::thread::sleep(interval);
    let second = Sample::take(&client)?;
    let view = View::new(&first.1, &second.1, second.0.saturating_duration_since(first.0));
    commands::table(cli, view, View::text);
    Ok(())
}
