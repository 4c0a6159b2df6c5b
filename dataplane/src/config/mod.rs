//! The configuration: one TOML file, parsed strictly into an immutable [`Config`].
//!
//! [`Config::parse`] takes text and gives either a `Config` in which every cross-reference holds, or
//! [`Faults`]: everything that is wrong, at once, each with its line, its key and a remedy. In reading
//! order: the types below; `reader` (which keys there are, and strict reading that goes on after a
//! fault) with `values` (one value); `raw` (the file as read); `network` and `services` (what must hold
//! between ports, and between services and all else); `policy` (what is let through); [`fault`] (how it
//! is told).
//!
//! What the types mean to a worker is [`crate::snapshot`]'s business; no I/O happens here.

pub mod fault;
mod health;
mod lans;
mod meters;
mod network;
mod policy;
mod raw;
mod reader;
mod schedule;
mod services;
mod suggest;
#[cfg(test)]
mod tests;
mod tunnel_ports;
mod tunnels;
mod values;

use crate::addr::{Ip, MacAddr, Prefix};
use crate::flow::Protocol;
use crate::ids::{PortId, TenantId};
use crate::meter::Limit;
use crate::policy::Source;
use crate::snapshot::{self, Affinity, Draining, Mode, OnRemove, Timeouts, TunnelEnd, VlanTags};
use core::net::SocketAddr;
use core::ops::RangeInclusive;
use std::path::PathBuf;

use fault::{Place, Sink};
use raw::RawConfig;
use reader::Section;
use toml::de::{DeTable, Error as TomlError};

pub use fault::{Fault, Faults, Severity};
pub use health::{Health, Http, Probe};

/// A valid configuration, defaults filled in.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct Config {
    /// DPDK's environment abstraction layer and its pools.
    pub dpdk: Dpdk,
    /// The worker threads.
    pub workers: Workers,
    /// The process's own log.
    pub log: Log,
    /// The Prometheus endpoint; `None` is off.
    pub metrics: Option<Metrics>,
    /// The control API.
    pub control: Control,
    /// Capacities fixed at start.
    pub limits: Limits,
    /// Maglev tables.
    pub maglev: Maglev,
    /// Forwarding by hardware.
    pub offload: Offload,
    /// What is let through: `[[policy]]`, `[[set]]` and `[[policy_default]]`.
    pub policy: Source,
    /// Tenants by [`TenantId`]; the first is [`DEFAULT_TENANT`].
    pub tenants: Vec<Tenant>,
    /// Ports by [`PortId`]: those with devices first, each kind in the file's order.
    pub ports: Vec<Port>,
    /// Services, in the file's order.
    pub services: Vec<Service>,
    /// What is odd but works.
    pub warnings: Faults,
}

impl Config {
    /// The port whose device `port` is on, if it has none of its own.
    #[must_use]
    pub fn device_port(&self, port: &Port) -> Option<PortId> {
        let parent = port.parent()?;
        let below = self.ports.get(parent.index()).and_then(Port::parent);
        Some(below.unwrap_or(parent))
    }

    /// Reads and validates `text`; `file_name` is what faults call it.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, warnings included.
    pub fn parse(file_name: &str, text: &str) -> Result<Config, Faults> {
        let sink = Sink::new(text);
        let config = match DeTable::parse(text) {
            Ok(document) => build(&raw::read(&Section::root(document.get_ref(), &sink), &sink), &sink),
            Err(error) => {
                report_syntax(&error, text, &sink);
                None
            }
        };
        let warnings = sink.into_faults(file_name);
        match config {
            Some(config) if warnings.count(Severity::Error) == 0 => Ok(Config { warnings, ..config }),
            _ => Err(warnings),
        }
    }
}

/// Checks everything and puts together what is complete; `None` only after an error.
fn build(raw: &RawConfig, sink: &Sink<'_>) -> Option<Config> {
    let tenants = network::tenants(&raw.tenants, sink);
    let ports = network::ports(&raw.ports, &tenants, &raw.limits, sink);
    network::check_buffers(raw, sink);
    let policy = policy::source(&raw.policy, &tenants, sink);
    let services = services::services(raw, &tenants, &ports, &policy, sink);
    (!sink.has_errors()).then(|| Config {
        dpdk: raw.dpdk.clone(),
        workers: raw.workers.clone(),
        log: raw.log,
        metrics: raw.metrics,
        control: raw.control.clone(),
        limits: raw.limits.clone(),
        maglev: raw.maglev,
        offload: raw.offload,
        policy,
        tenants,
        ports,
        services,
        warnings: Faults::default(),
    })
}

fn report_syntax(error: &TomlError, text: &str, sink: &Sink<'_>) {
    let span = error.span().unwrap_or(0..0);
    let found = text.get(span.clone()).unwrap_or("");
    let remedy = if error.message().contains("duplicate key") {
        "keep one of the two; of ports, services and backends there may be several, in double brackets"
            .to_owned()
    } else if found.starts_with(|c: char| c.is_ascii_alphabetic()) && !found.contains(['"', '\n', '=']) {
        format!("text stands in quotes: \"{found}\"")
    } else {
        "correct the line: text stands in quotes, tables in [brackets], and a key has one value".to_owned()
    };
    sink.error(&Place::new("", span), format!("not TOML: {}", error.message()), remedy);
}

/// The tenant of ports and services that name none.
pub const DEFAULT_TENANT: &str = "default";

/// `[dpdk]`: how DPDK is started.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dpdk {
    /// Arguments for the EAL, verbatim, after ours.
    pub eal_args: Vec<String>,
    /// Names this process's runtime files, so that several can share a machine (`--file-prefix`).
    pub file_prefix: String,
    /// Whether packet memory comes from huge pages; otherwise `--no-huge`.
    pub hugepages: bool,
    /// Memory for the EAL in MiB; `None` leaves it to the EAL.
    pub memory_mb: Option<u32>,
    /// Packet buffers in each pool.
    pub mbufs: u32,
}

impl Default for Dpdk {
    fn default() -> Dpdk {
        Dpdk {
            eal_args: Vec::new(),
            file_prefix: "millrace".to_owned(),
            hugepages: true,
            memory_mb: None,
            mbufs: 16384,
        }
    }
}

/// `[workers]`: the packet threads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Workers {
    /// One worker is pinned to each of these cores, distinct, in this order.
    pub cores: Vec<u16>,
    /// What a worker does when no packet came.
    pub idle: Idle,
    /// Entries of each ring by which a worker hands packets to another, a power of two.
    pub hand_off_ring: u32,
}

impl Default for Workers {
    fn default() -> Workers {
        Workers { cores: vec![0], idle: Idle::Poll, hand_off_ring: 1024 }
    }
}

/// What a worker does when its queues are empty.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Idle {
    /// Poll again at once: lowest latency, a whole core.
    Poll,
    /// Sleep between polls of empty queues, so that an idle process leaves its core to others.
    Backoff {
        /// Longest sleep, microseconds.
        sleep_us: u32,
    },
}

impl Idle {
    /// The sleep of [`Idle::Backoff`] unless the file says otherwise, microseconds.
    pub const SLEEP_US: u32 = 50;
}

/// `[log]`: the process's log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Log {
    /// The least severe level that is written.
    pub level: LogLevel,
    /// How lines look.
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Log {
        Log { level: LogLevel::Info, format: LogFormat::Text }
    }
}

/// Severity of log lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogLevel {
    /// Something failed.
    Error,
    /// Something may fail.
    Warn,
    /// What an operator wants to know.
    Info,
    /// What a developer wants to know.
    Debug,
    /// Everything.
    Trace,
}

/// Form of log lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `[metrics]`: the Prometheus endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Metrics {
    /// Where `/metrics` is served.
    pub listen: SocketAddr,
}

/// `[control]`: where the control API is, and for whom.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Control {
    /// Path of the socket, absolute.
    pub socket: PathBuf,
    /// Permission bits of the socket.
    pub mode: u32,
    /// The group that may use it besides root and the process's own user, by name or number.
    pub group: Option<String>,
    /// Where the API can be read over TCP, if anywhere.
    pub reader: Option<Reader>,
}

/// `[control] listen` and `token_file`: the API over TCP, without what changes anything.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reader {
    /// Where.
    pub listen: SocketAddr,
    /// The file with the token that requests must have, absolute.
    pub token_file: PathBuf,
}

impl Default for Control {
    fn default() -> Control {
        Control {
            socket: PathBuf::from("/run/millrace/millrace.sock"),
            mode: 0o600,
            group: None,
            reader: None,
        }
    }
}

/// `[limits]`: capacities, allocated at start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Connections of each worker.
    pub connections: u32,
    /// Largest share of them that half-open connections may hold, percent.
    pub half_open_percent: u8,
    /// Neighbours (ARP, ND) of each worker.
    pub neighbours: u32,
    /// Packets held for each next hop while it is being resolved.
    pub neighbour_queue: u16,
    /// Fragmented datagrams of each worker whose first fragment is remembered.
    pub fragments: u32,
    /// ICMP errors each worker originates, as many echo replies, and as many resets, per second.
    pub icmp_per_second: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 1_000_000,
            half_open_percent: 10,
            neighbours: 4096,
            neighbour_queue: 16,
            fragments: 4096,
            icmp_per_second: 1000,
        }
    }
}

/// `[maglev]`: the services' lookup tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Maglev {
    /// Entries of each table, a prime.
    pub table_size: u32,
}

impl Default for Maglev {
    fn default() -> Maglev {
        Maglev { table_size: 65537 }
    }
}

/// `[offload]`: which connections hardware forwards, and by what means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offload {
    /// How the NIC is spoken to.
    pub engine: EngineChoice,
    /// Rules in hardware at most, one per direction of a connection.
    pub rules_max: u32,
    /// Of these, so many may drop what the policy denies, as long as connections leave room; 0 is none.
    pub deny_rules: u32,
    /// Rules put into hardware per second at most; 0 is as many as it takes in half of its time.
    pub insertions_per_second: u32,
    /// Packets, of both directions, that a connection must have carried to be worth a rule, when rules
    /// are plenty. The price rises when they are not.
    pub price_min: u32,
    /// A connection leaves hardware after being silent for so long, seconds.
    pub idle_s: u32,
    /// Share of the rules that one tenant may hold, percent.
    pub tenant_share_percent: u8,
    /// How often each rule's counters are read, milliseconds.
    pub poll_ms: u32,
    /// The CPU that the offload thread is pinned to; `None` is where the process was started.
    pub core: Option<u16>,
    /// Where the connections of draining backends are forwarded.
    pub draining: Draining,
}

impl Default for Offload {
    fn default() -> Offload {
        Offload {
            engine: EngineChoice::Auto,
            rules_max: 65536,
            deny_rules: 1024,
            insertions_per_second: 0,
            price_min: 8,
            idle_s: 30,
            tenant_share_percent: 100,
            poll_ms: 500,
            core: None,
            draining: Draining::Software,
        }
    }
}

/// How the NIC is told what to forward.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EngineChoice {
    /// What the ports turn out to be able to; none if they are able to nothing.
    Auto,
    /// Nothing is offloaded.
    None,
    /// Rule by rule (software steering, `dv_flow_en=1`).
    Sync,
    /// By templates and queues (hardware steering, `dv_flow_en=2`).
    Template,
}

/// `[[tenant]]`: an address space of its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tenant {
    /// Unique name.
    pub name: String,
    /// What it may hold of the connection tables.
    pub limits: snapshot::Tenant,
    /// How much all of its services may carry together.
    pub limit: Option<Limit>,
}

/// What a port's frames travel by.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Attachment {
    /// A device of its own, as DPDK probes it: a PCI address or a virtual device, with its arguments.
    Device(String),
    /// The device of this other port, told apart by VLAN tags.
    Vlan(PortId),
    /// Packets of another port, which carry them.
    Tunnel {
        /// The tunnel.
        end: TunnelEnd,
        /// Its MAC address; `None` derives one.
        mac: Option<MacAddr>,
    },
}

/// `[[port]]`: a link and our presence on it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Port {
    /// Unique name.
    pub name: String,
    /// What its frames travel by.
    pub attachment: Attachment,
    /// Whose packets arrive here.
    pub tenant: TenantId,
    /// Our addresses, each with its on-link prefix.
    pub addresses: Vec<Prefix>,
    /// IPv4 default gateway, on-link.
    pub gateway: Option<Ip>,
    /// IPv6 default gateway, on-link or link-local.
    pub gateway6: Option<Ip>,
    /// Largest IP packet, bytes; `None` keeps the device's.
    pub mtu: Option<u16>,
    /// The tags our frames carry.
    pub vlan: VlanTags,
    /// Where frames go that are not ours, if anywhere.
    pub pass_to: Option<PortId>,
    /// Entries of each receive queue.
    pub rx_descriptors: u16,
    /// Entries of each transmit queue.
    pub tx_descriptors: u16,
    /// Receive frames for other MAC addresses too; always set on a port with `pass_to`.
    pub promiscuous: bool,
    /// Whether it may have hairpin queues; `None`: unless it is the port of an eSwitch.
    pub hairpin: Option<bool>,
    /// Who is reached through this port; decides which address RSS hashes.
    pub faces: Faces,
    /// Neighbours that are not asked for.
    pub neighbours: Vec<Neighbour>,
    /// Routes beside the on-link prefixes and the default gateways.
    pub routes: Vec<Route>,
}

impl Port {
    /// What DPDK probes, if it has a device of its own.
    #[must_use]
    pub fn device(&self) -> Option<&str> {
        match &self.attachment {
            Attachment::Device(device) => Some(device),
            Attachment::Vlan(_) | Attachment::Tunnel { .. } => None,
        }
    }

    /// The port that its frames go by, if it has no device of its own.
    #[must_use]
    pub fn parent(&self) -> Option<PortId> {
        match self.attachment {
            Attachment::Device(_) => None,
            Attachment::Vlan(parent) => Some(parent),
            Attachment::Tunnel { end, .. } => Some(end.link),
        }
    }

    /// The tunnel that it is behind, if it is.
    #[must_use]
    pub fn tunnel(&self) -> Option<TunnelEnd> {
        match self.attachment {
            Attachment::Tunnel { end, .. } => Some(end),
            Attachment::Device(_) | Attachment::Vlan(_) => None,
        }
    }

    /// Its MAC address, given that of the device.
    #[must_use]
    pub fn mac(&self, of_device: MacAddr) -> MacAddr {
        match self.attachment {
            Attachment::Tunnel { end, mac } => mac.unwrap_or_else(|| end.derived_mac(of_device)),
            Attachment::Device(_) | Attachment::Vlan(_) => of_device,
        }
    }
}

/// Entries of a receive or transmit queue unless the file says otherwise.
pub const DESCRIPTORS: u16 = 1024;

/// Who is reached through a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Faces {
    /// Clients only: RSS hashes the source address.
    Clients,
    /// Backends only: RSS hashes the destination address.
    Backends,
    /// Both: a packet may have to be handed to another worker.
    Both,
}

/// `[[port.neighbour]]`: a neighbour that is not asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Neighbour {
    /// This address
    pub address: Ip,
    /// is at this MAC.
    pub mac: MacAddr,
}

/// `[[port.route]]`: a route out of its port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Route {
    /// Destinations, host bits zero.
    pub to: Prefix,
    /// The gateway, on-link; `None` when the destinations themselves are on the link.
    pub via: Option<Ip>,
}

/// `[[service]]`: a virtual address and who stands behind it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Service {
    /// Unique name.
    pub name: String,
    /// Whose.
    pub tenant: TenantId,
    /// The virtual address.
    pub vip: Ip,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Ports in ascending order, disjoint, not empty.
    pub ports: Vec<RangeInclusive<u16>>,
    /// Forwarding mode.
    pub mode: Mode,
    /// Affinity.
    pub affinity: Affinity,
    /// Refuse TCP segments without SYN that belong to no connection.
    pub strict: bool,
    /// For the connections of backends that a reload removes.
    pub on_remove: OnRemove,
    /// Whether its connections may be forwarded by hardware.
    pub offload: bool,
    /// How its backends are checked; `None`: not at all.
    pub health: Option<Health>,
    /// How much it may carry.
    pub limit: Option<Limit>,
    /// Idle timeouts: the service's own where given, `[timeouts]` elsewhere.
    pub timeouts: Timeouts,
    /// Backends in the file's order, of the VIP's family, no address and port twice. May be empty.
    pub backends: Vec<Backend>,
}

/// `[[service.backend]]`: one server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Backend {
    /// Address.
    pub address: Ip,
    /// Port; `None` keeps the VIP's (always under `dsr`).
    pub port: Option<u16>,
    /// Share of new connections relative to the service's other backends; 0 drains.
    pub weight: u32,
}
