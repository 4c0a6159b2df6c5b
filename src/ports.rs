//! Ports: from the devices that were found to started DPDK ports whose queues workers can take.

use crate::api::PortRow;
use crate::{eal, hairpins};
use dataplane::addr::MacAddr;
use dataplane::config::{self, Config, Faces};
use dataplane::ids::PortId;
use dataplane::owner::{self, Owners, OwnersError};
use dataplane::snapshot::{PortFacts, Snapshot, TunnelEnd};
use dpdk::{Device, Eal, Mempool, PoolConfig, Port, PortConfig, Rss};
use offload::engine::open::Prepared;

/// Buffers a packet thread keeps to itself, so that it rarely touches the shared pool.
const POOL_CACHE: u32 = 256;
/// Link header, two VLAN tags and whatever a driver rounds up to.
const LINK_BYTES: u16 = 64;
/// What an MTU is where neither the configuration nor anyone else says.
const MTU_USUAL: u16 = 1500;
/// Entries of the table that spreads clients over workers where no port brings one.
const RETA_ENTRIES: u16 = 128;

/// Why ports could not be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PortsError {
    /// A worker would have no queue to send by.
    #[error(
        "port \"{port}\": {workers} workers need as many transmit queues, the device has {queues}; ask the \
         driver for more (net_af_packet: `qpairs={workers}`) or list fewer cores in [workers]"
    )]
    TooFewQueues {
        /// Its name.
        port: String,
        /// Workers.
        workers: u16,
        /// Its transmit queues.
        queues: u16,
    },
    /// No packet buffers.
    #[error("{0}; see [dpdk] mbufs, hugepages and memory_mb")]
    Pool(#[from] dpdk::MempoolError),
    /// The device refused.
    #[error("port \"{port}\": {source}")]
    Configure {
        /// Its name.
        port: String,
        /// Why.
        source: dpdk::ConfigureError,
    },
    /// The device refused.
    #[error("port \"{port}\": {source}")]
    Start {
        /// Its name.
        port: String,
        /// Why.
        source: dpdk::StartError,
    },
    /// The device would not say what it is.
    #[error("port \"{port}\": {source}")]
    Control {
        /// Its name.
        port: String,
        /// Why.
        source: dpdk::ControlError,
    },
    /// The ports' redirection tables do not fit the workers.
    #[error(transparent)]
    Owners(#[from] OwnersError),
}

/// A port and what the configuration calls it.
pub(crate) struct OpenPort<'a> {
    pub(crate) port: Port<'a>,
    pub(crate) name: String,
    device: String,
    facts: PortFacts,
    /// Receive queues; workers beyond them get their packets from the others.
    pub(crate) rx_queues: u16,
    /// Which of the pools its buffers come from.
    pub(crate) pool: usize,
    /// Its hairpin queues, as far as they are used.
    pub(crate) hairpins: hairpins::Queues,
    steering: Steering,
    /// Whether it is the port of an eSwitch on which rules are made: the first to start, the last to stop.
    is_proxy: bool,
}

/// How a packet gets to the worker that owns its client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Steering {
    /// There is one worker.
    Single,
    /// The device delivers it there.
    Rss,
    /// The worker that receives it hands it over.
    HandOff,
}

/// Bytes per packet buffer, for the largest MTU in the configuration.
pub(crate) fn data_room_bytes(config: &Config) -> u16 {
    let mtu = config.ports.iter().filter_map(|port| port.mtu).chain([MTU_USUAL]).max().unwrap_or(MTU_USUAL);
    (PoolConfig::HEADROOM_BYTES + LINK_BYTES + mtu).next_multiple_of(64).max(PoolConfig::DATA_ROOM_BYTES)
}

/// Bytes that packet buffers take on a machine with one NUMA socket.
pub(crate) fn pools_bytes(config: &Config) -> usize {
    eal::pool_bytes(config.dpdk.mbufs, data_room_bytes(config))
}

/// A pool of packet buffers.
pub(crate) struct Pool<'eal> {
    pub(crate) name: String,
    pub(crate) size: u32,
    pub(crate) mempool: Mempool<'eal>,
    socket: Option<u32>,
}

/// A pool for each NUMA socket that has one of the devices.
pub(crate) fn pools<'eal>(
    eal: &'eal Eal,
    config: &Config,
    devices: &[Device<'_>],
) -> Result<Vec<Pool<'eal>>, PortsError> {
    let mut sockets: Vec<Option<u32>> = devices.iter().map(Device::socket).collect();
    sockets.sort_unstable();
    sockets.dedup();
    let count = config.dpdk.mbufs;
    let pool = |socket: Option<u32>| {
        let name = socket.map_or_else(|| "packets".to_owned(), |socket| format!("packets_socket{socket}"));
        let mempool = Mempool::create(
            eal,
            &PoolConfig {
                name: &name,
                count,
                cache: POOL_CACHE.min(count / 8),
                data_room_bytes: data_room_bytes(config),
                socket,
            },
        )?;
        Ok(Pool { name, size: count, mempool, socket })
    };
    sockets.into_iter().map(pool).collect()
}

/// Configures every port; none is started.
pub(crate) fn open<'a>(
    config: &Config,
    devices: Vec<Device<'a>>,
    pools: &'a [Pool<'a>],
) -> Result<Vec<OpenPort<'a>>, PortsError> {
    let workers = config.workers.cores.len() as u16;
    let hairpins = hairpins::plan(config, &devices);
    let ports = config.ports.iter().zip(devices).zip(hairpins).enumerate();
    ports
        .map(|(index, ((port, device), hairpins))| {
            open_one(PortId(index as u16), port, device, pools, workers, hairpins)
        })
        .collect()
}

fn open_one<'a>(
    id: PortId,
    port: &config::Port,
    device: Device<'a>,
    pools: &'a [Pool<'a>],
    workers: u16,
    hairpins: hairpins::Queues,
) -> Result<OpenPort<'a>, PortsError> {
    let name = || port.name.clone();
    let configure = |source| PortsError::Configure { port: name(), source };
    let (rx_max, tx_max) = device.queues_max().map_err(configure)?;
    if tx_max < workers {
        return Err(PortsError::TooFewQueues { port: name(), workers, queues: tx_max });
    }
    let pool = pools.iter().position(|pool| pool.socket == device.socket()).unwrap_or(0);
    let mut wanted = PortConfig {
        id,
        rx_queues: workers.min(rx_max),
        tx_queues: workers,
        rx_descriptors: port.rx_descriptors,
        tx_descriptors: port.tx_descriptors,
        mtu: port.mtu,
        rss: if workers == 1 { Rss::None } else { hashed(port.faces) },
        rss_key: owner::DEFAULT_KEY,
        promiscuous: port.promiscuous,
        fast_free: pools.len() == 1,
        ..PortConfig::default()
    };
    hairpins.ask_for(&mut wanted);
    let open = device.configure(&wanted, &pools[pool].mempool).map_err(configure)?;
    let control = |source| PortsError::Control { port: name(), source };
    let facts = PortFacts { mac: MacAddr(open.mac().map_err(control)?), mtu: open.mtu().map_err(control)? };
    let steering = if workers == 1 { Steering::Single } else { Steering::HandOff };
    let (name, device) = (name(), port.device().unwrap_or_default().to_owned());
    let is_proxy = open.transfer_proxy().is_ok_and(|proxy| proxy == open.number());
    let rx_queues = wanted.rx_queues;
    Ok(OpenPort { port: open, name, device, facts, rx_queues, pool, hairpins, steering, is_proxy })
}

/// Starts every port, now that all are configured: those first on which rules for others are made.
pub(crate) fn start(ports: &mut [OpenPort<'_>], prepared: &Prepared) -> Result<(), PortsError> {
    for proxies in [true, false] {
        for open in ports.iter_mut().filter(|open| open.is_proxy == proxies) {
            open.port.start().map_err(|source| PortsError::Start { port: open.name.clone(), source })?;
        }
    }
    hairpins::bind(ports, prepared.proxy().is_some());
    Ok(())
}

/// What is known of every port, those on the devices of others included.
pub(crate) fn facts(config: &Config, ports: &[OpenPort<'_>]) -> Vec<PortFacts> {
    let of_device = |port: &config::Port, on: PortFacts| {
        let most = on.mtu.saturating_sub(port.tunnel().map_or(0, |end| end.overhead()));
        let mtu = port.mtu.map_or(most, |mtu| mtu.min(most));
        if port.mtu.is_some_and(|wanted| wanted > mtu) {
            tracing::warn!(port = port.name, mtu, "the device takes no larger packets");
        }
        PortFacts { mtu, ..on }
    };
    let fact = |(index, port): (usize, &config::Port)| {
        let on = ports[config.device_port(port).map_or(index, PortId::index)].facts;
        if port.parent().is_some() { of_device(port, on) } else { on }
    };
    config.ports.iter().enumerate().map(fact).collect()
}

/// For `show ports` and the metrics: what the devices say, then the ports that are on them.
pub(crate) fn rows(ports: &[OpenPort<'_>], snapshot: &Snapshot) -> Vec<PortRow> {
    let name = |port: PortId| ports[port.index()].name.clone();
    let row = |open: &OpenPort<'_>| {
        let hairpins = open.hairpins.egresses().map(name).collect();
        PortRow { hairpins, ..open.row() }
    };
    let mut rows: Vec<PortRow> = ports.iter().map(row).collect();
    let on_others = snapshot.ports.iter().filter_map(|port| Some((port, rows.get(port.parent?.index())?)));
    let on_others: Vec<PortRow> = on_others.map(|(port, parent)| on_another(port, parent)).collect();
    rows.extend(on_others);
    rows
}

/// The row of a port on another's device, which counts for all of its ports together.
fn on_another(port: &dataplane::snapshot::Port, parent: &PortRow) -> PortRow {
    let vids = [port.vlan.outer, port.vlan.inner];
    let vids: Vec<String> = vids.iter().flatten().map(u16::to_string).collect();
    PortRow {
        name: port.name.clone(),
        parent: parent.name.clone(),
        vlan: vids.join("."),
        tunnel: port.tunnel.map_or_else(String::new, |end| tunnel(&end)),
        mac: port.mac.to_string(),
        mtu: port.mtu,
        link_up: parent.link_up,
        speed_mbps: parent.speed_mbps,
        steering: parent.steering.clone(),
        ..PortRow::default()
    }
}

/// A tunnel in words: `vxlan 100 to 10.0.0.9`.
fn tunnel(end: &TunnelEnd) -> String {
    let network = format!("{} {}", end.encapsulation.name(), end.vni);
    end.remote.map_or_else(|| network.clone(), |remote| format!("{network} to {remote}"))
}

/// Stops every port, in the reverse of the order in which they were started, and then closes them likewise.
pub(crate) fn stop(mut ports: Vec<OpenPort<'_>>) {
    ports.sort_by_key(|open| !open.is_proxy);
    for open in ports.iter_mut().rev() {
        if let Err(error) = open.port.stop() {
            tracing::warn!(port = open.name, %error, "port not stopped cleanly");
        }
    }
    while ports.pop().is_some() {}
}

/// What a port should hash: the client's address alone, wherever it stands. Where it may stand on either
/// side, both, so that load spreads at least.
fn hashed(faces: Faces) -> Rss {
    match faces {
        Faces::Clients => Rss::L3SrcOnly,
        Faces::Backends => Rss::L3DstOnly,
        Faces::Both => Rss::L3,
    }
}

/// Who owns which client, agreed upon by all workers and, where they can, by the ports.
pub(crate) fn steer(ports: &mut [OpenPort<'_>], workers: u16) -> Result<Owners, PortsError> {
    let able = |port: &OpenPort<'_>| {
        let granted = port.port.granted();
        let hashes_client = matches!(granted.rss, Rss::L3SrcOnly | Rss::L3DstOnly) && granted.rss_key;
        let fits = granted.reta_entries.is_power_of_two() && granted.reta_entries >= workers;
        hashes_client && fits && port.rx_queues == workers
    };
    let smallest = ports.iter().filter(|port| able(port)).map(|port| port.port.granted().reta_entries).min();
    let entries = smallest.unwrap_or(RETA_ENTRIES.max(workers.next_power_of_two()));
    let owners = Owners::new(&owner::DEFAULT_KEY, workers, entries)?;
    for port in ports.iter_mut().filter(|port| workers > 1 && able(port)) {
        let Some(reta) = owners.reta(usize::from(port.port.granted().reta_entries)) else { continue };
        let queues: Vec<u16> = reta.iter().map(|worker| worker.0).collect();
        match port.port.set_reta(&queues) {
            Ok(()) => port.steering = Steering::Rss,
            Err(error) => tracing::warn!(port = port.name, %error, "workers hand packets over instead"),
        }
    }
    Ok(owners)
}

impl OpenPort<'_> {
    /// Everything about it alone. A device that does not answer shows zeros, and why in the log.
    fn row(&self) -> PortRow {
        let silent = |error: &dpdk::ControlError| tracing::warn!(port = self.name, %error);
        let stats = self.port.stats().inspect_err(silent).unwrap_or_default();
        let link = self.port.link().inspect_err(silent).ok();
        let steering = match self.steering {
            Steering::Single => "single",
            Steering::Rss => "rss",
            Steering::HandOff => "hand-off",
        };
        PortRow {
            name: self.name.clone(),
            device: self.device.clone(),
            driver: self.port.driver_name().to_owned(),
            mac: self.facts.mac.to_string(),
            mtu: self.facts.mtu,
            link_up: link.is_some_and(|link| link.up),
            speed_mbps: link.and_then(|link| link.speed_mbps).unwrap_or(0),
            steering: steering.to_owned(),
            rx_packets: stats.rx_packets,
            rx_bytes: stats.rx_bytes,
            rx_missed: stats.rx_missed,
            rx_errors: stats.rx_errors,
            rx_no_buffer: stats.rx_no_buffers,
            tx_packets: stats.tx_packets,
            tx_bytes: stats.tx_bytes,
            tx_errors: stats.tx_errors,
            ..PortRow::default()
        }
    }

    /// A line for the log, once, at start.
    pub(crate) fn log(&self) {
        let row = self.row();
        tracing::info!(
            port = row.name,
            device = row.device,
            driver = row.driver,
            mac = row.mac,
            mtu = row.mtu,
            link = if row.link_up { "up" } else { "down" },
            steering = row.steering,
            "port open"
        );
    }
}
