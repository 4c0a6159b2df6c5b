//! `millrace partitions`: who has which partition of a service, and how even that is for a list of addresses.

use crate::cli::{Cli, PartitionsArgs};
use crate::output::{Table, percent};
use crate::{Failure, commands};
use dataplane::addr::{Ip, MacAddr};
use dataplane::flow::FlowKey;
use dataplane::maglev::{self, Identity};
use dataplane::partition;
use dataplane::snapshot::{Affinity, Backend, BackendState, Overrides, PortFacts, Service, Snapshot};
use serde::Serialize;
use std::net::IpAddr;

/// Connections that stand for those of one address, at most,
const FLOWS_MAX: u64 = 64;
/// and the port of the first.
const FIRST_PORT: u16 = 40_000;

/// One backend's part of a service.
#[derive(Serialize)]
struct BackendPart {
    backend: String,
    weight: u32,
    partitions: u32,
    /// Of the addresses.
    packets: u64,
}

/// One service by source partition.
#[derive(Serialize)]
struct ServicePart {
    service: String,
    partitions: usize,
    backends: Vec<BackendPart>,
    /// The busiest backend's packets against what its weight says, percent; `None` without addresses.
    worst_percent: Option<f64>,
    /// The same if connections were scheduled by `maglev`, for each address as many as it has packets, 64 at
    /// most.
    worst_by_flow_percent: Option<f64>,
    /// The backend of each partition.
    table: Vec<String>,
    /// Packets of the addresses, by partition; empty without addresses.
    by_partition: Vec<u64>,
}

/// Reads the configuration and the addresses, and prints what follows from them. Nothing is started.
pub(crate) fn partitions(cli: &Cli, args: &PartitionsArgs) -> Result<(), Failure> {
    let (config, _) = commands::read(&args.config)?;
    let addresses = match &args.addresses {
        Some(file) => {
            let name = file.display();
            let text = commands::text_of(file).map_err(|error| Failure::Other(format!("{name}: {error}")))?;
            Some(parse(&text).map_err(|error| Failure::Other(format!("{name}: {error}")))?)
        }
        None => None,
    };
    // Of the ports only routes matter, which nothing here asks for.
    let facts = vec![PortFacts { mac: MacAddr::default(), mtu: 1500 }; config.ports.len()];
    let snapshot = Snapshot::build(&config, &facts, &Overrides::default(), None, &|_| 0)?;
    let services = snapshot.services.iter().flatten();
    let size = config.maglev.table_size;
    let parted = services.filter_map(|service| part(&snapshot, service, addresses.as_deref(), size));
    let parted: Vec<ServicePart> = parted.collect();
    if parted.is_empty() {
        let remedy = "set scheduler = \"source-partition\" on one to have it in partitions";
        return Err(Failure::Other(format!("no service has partitions: {remedy}")));
    }
    if cli.json {
        commands::print_json(&parted);
    } else {
        parted.iter().for_each(|service| commands::print(&text(service)));
    }
    Ok(())
}

/// Addresses and how many packets each has sent: one a line, a count behind it if it is not 1.
fn parse(text: &str) -> Result<Vec<(Ip, u64)>, String> {
    let meant = |(number, line): (usize, &str)| {
        let line = line.split('#').next().unwrap_or_default().trim();
        (!line.is_empty()).then(|| (number + 1, line.to_owned()))
    };
    let read = |(number, line): (usize, String)| {
        let mut words = line.split_whitespace();
        let address = words.next().and_then(|word| word.parse::<IpAddr>().ok());
        let count = words.next().map_or(Some(1), |word| word.parse::<u64>().ok());
        match (address, count, words.next()) {
            (Some(address), Some(count), None) => Ok((Ip::from(address), count)),
            _ => Err(format!("line {number}: `{line}` is not an address, or an address and a count")),
        }
    };
    text.lines().enumerate().filter_map(meant).map(read).collect()
}

fn part(
    snapshot: &Snapshot,
    service: &Service,
    addresses: Option<&[(Ip, u64)]>,
    size: u32,
) -> Option<ServicePart> {
    let Affinity::Partition { bits } = service.affinity else { return None };
    let mut by_partition = vec![0u64; if addresses.is_some() { service.lookup.len() } else { 0 }];
    let of_family = |address: &&(Ip, u64)| address.0.is_v4() == service.vip.is_v4();
    for (client, count) in addresses.unwrap_or_default().iter().filter(of_family) {
        if let Some(packets) = by_partition.get_mut(partition::of(*client, bits) as usize) {
            *packets = packets.saturating_add(*count);
        }
    }
    let backends = snapshot.backends.iter().flatten().filter(|backend| backend.service == service.id);
    let backends: Vec<BackendPart> = backends
        .map(|backend| {
            let own = |at: &usize| service.lookup.get(*at) == Some(&backend.id);
            let sum = |packets: u64, at: usize| packets.saturating_add(*by_partition.get(at).unwrap_or(&0));
            BackendPart {
                backend: backend.address.to_string(),
                weight: backend.weight,
                partitions: (0..service.lookup.len()).filter(own).count() as u32,
                packets: (0..service.lookup.len()).filter(own).fold(0, sum),
            }
        })
        .collect();
    let by_flow = addresses.and_then(|addresses| worst(&by_flow(snapshot, service, addresses, size)?));
    let name = |id| snapshot.backend(id).map_or_else(String::new, |backend| backend.address.to_string());
    Some(ServicePart {
        service: service.name.clone(),
        partitions: 1 << bits,
        worst_percent: worst(&backends),
        worst_by_flow_percent: by_flow,
        backends,
        table: service.lookup.iter().map(|id| name(*id)).collect(),
        by_partition,
    })
}

/// What backends would get of the addresses if connections were scheduled by a Maglev table of this size.
fn by_flow(
    snapshot: &Snapshot,
    service: &Service,
    addresses: &[(Ip, u64)],
    size: u32,
) -> Option<Vec<BackendPart>> {
    let takes = |backend: &&Backend| {
        backend.service == service.id && backend.state == BackendState::Active && backend.weight > 0
    };
    let backends: Vec<&Backend> = snapshot.backends.iter().flatten().filter(takes).collect();
    let weighted = |b: &&Backend| (Identity { address: b.address, port: b.port }, b.weight);
    let weighted: Vec<(Identity, u32)> = backends.iter().map(weighted).collect();
    let places: Vec<usize> = (0..backends.len()).collect();
    let table = maglev::build_named(size, &weighted, &places).ok()?;
    let mut packets = vec![0u64; backends.len()];
    let dst_port = *service.ports.first()?.start();
    for (src, count) in addresses.iter().filter(|address| address.0.is_v4() == service.vip.is_v4()) {
        let flows = (*count).clamp(1, FLOWS_MAX);
        for flow in 0..flows {
            let (tenant, protocol) = (service.tenant, service.protocol);
            let src_port = FIRST_PORT + flow as u16;
            let key = FlowKey { src: *src, dst: service.vip, src_port, dst_port, tenant, protocol };
            let place = *table.get((maglev::flow_hash(&key) % table.len() as u64) as usize)?;
            let share = count / flows + u64::from(flow < count % flows);
            packets[place] = packets[place].saturating_add(share);
        }
    }
    let part = |(backend, packets): (&&Backend, u64)| BackendPart {
        backend: backend.address.to_string(),
        weight: backend.weight,
        partitions: 0,
        packets,
    };
    Some(backends.iter().zip(packets).map(part).collect())
}

/// The largest share of packets of a backend, against the share that its weight says.
fn worst(backends: &[BackendPart]) -> Option<f64> {
    let packets: f64 = backends.iter().map(|backend| backend.packets as f64).sum();
    let weights: f64 = backends.iter().map(|backend| f64::from(backend.weight)).sum();
    let loaded = backends.iter().filter(|backend| backend.weight > 0);
    let ratios = loaded.map(|b| 100.0 * b.packets as f64 * weights / (packets * f64::from(b.weight)));
    (packets > 0.0).then(|| ratios.fold(0.0, f64::max))
}

fn text(service: &ServicePart) -> String {
    let all: u64 = service.backends.iter().fold(0, |sum, backend| sum.saturating_add(backend.packets));
    let weights: u64 = service.backends.iter().map(|backend| u64::from(backend.weight)).sum();
    let mut table = Table::new(&["BACKEND", ">WEIGHT", ">DUE", ">PARTITIONS", ">SHARE", ">PACKETS", ">LOAD"]);
    for backend in &service.backends {
        let load = if all > 0 { percent(backend.packets, all) } else { "-".to_owned() };
        table.row([
            backend.backend.clone(),
            backend.weight.to_string(),
            percent(u64::from(backend.weight), weights),
            backend.partitions.to_string(),
            percent(u64::from(backend.partitions), service.partitions as u64),
            backend.packets.to_string(),
            load,
        ]);
    }
    let mut text =
        format!("{}: {} partitions\n{}", service.service, service.partitions, table.render("no backends"));
    if let Some(worst) = service.worst_percent {
        let empty = service.by_partition.iter().filter(|packets| **packets == 0).count();
        text += &format!(
            "the busiest backend has {worst:.1} % of what it is due; {empty} partitions are empty\n"
        );
    }
    if let Some(worst) = service.worst_by_flow_percent {
        text += &format!("scheduled by flows (maglev), the busiest would have {worst:.1} %\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_addresses_are_read_or_refused() {
        let read = parse("# clients\n198.51.100.1\n\n2001:db8::1 20 # busy\n").expect("good");
        assert_eq!(read.iter().map(|(_, count)| *count).collect::<Vec<_>>(), [1, 20]);
        assert!(parse("198.51.100.1\nhost").expect_err("a name").starts_with("line 2"));
        assert!(parse("198.51.100.1 1 2").is_err());
    }
}
