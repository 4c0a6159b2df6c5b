//! The file as it was read: every value well-formed by itself, nothing checked against anything else.
//!
//! Sections whose values do not depend on one another are read into their final types at once. Ports,
//! tenants and services keep the place of each value, for [`super::network`] and [`super::services`] to
//! point at; a value that was refused is `None` there, its fault already reported.

use super::fault::{At, Place, Sink};
use super::health;
use super::meters;
use super::policy::{self, RawPolicy};
use super::reader::Section;
use super::schedule::{self, RawSchedule};
use super::tunnel_ports::{self, RawTunnelEnd};
use super::tunnels::{self, RawTunnel};
use super::values::{
    absolute_path, boolean, choice, destination, endpoint, file_mode, host, integer, interface, listen, mac,
    name, port_range, power_of_two, prime, socket_path, verbatim,
};
use super::{
    Control, Dpdk, EngineChoice, Faces, Health, Idle, Limits, Log, LogFormat, LogLevel, Maglev, Metrics,
    Offload, Reader, Workers,
};
use crate::addr::{Ip, MacAddr, Prefix};
use crate::flow::Protocol;
use crate::limits;
use crate::meter::Limit;
use crate::snapshot::{self, Affinity, Draining, Mode, OnRemove, Timeouts};
use core::ops::RangeInclusive;

/// The whole file.
pub(super) struct RawConfig {
    pub(super) dpdk: Dpdk,
    pub(super) mbufs: Place,
    pub(super) workers: Workers,
    pub(super) log: Log,
    pub(super) metrics: Option<Metrics>,
    pub(super) control: Control,
    pub(super) limits: Limits,
    pub(super) timeouts: RawTimeouts,
    pub(super) maglev: Maglev,
    pub(super) offload: Offload,
    pub(super) policy: RawPolicy,
    pub(super) tenants: Vec<RawTenant>,
    pub(super) ports: Vec<RawPort>,
    pub(super) services: Vec<RawService>,
}

/// `[[tenant]]`.
pub(super) struct RawTenant {
    pub(super) name: Option<At<String>>,
    pub(super) limits: snapshot::Tenant,
    pub(super) limit: Option<Limit>,
}

/// `[[port]]`.
pub(super) struct RawPort {
    pub(super) place: Place,
    pub(super) name: Option<At<String>>,
    pub(super) device: Option<At<String>>,
    pub(super) parent: Option<At<String>>,
    /// Whether it is one on the device of another, whatever its name is.
    pub(super) has_parent: bool,
    /// The keys given of those that are about a device.
    pub(super) of_device: Vec<(&'static str, Place)>,
    pub(super) tenant: Option<At<String>>,
    pub(super) addresses: Vec<At<Prefix>>,
    pub(super) gateway: Option<At<Ip>>,
    pub(super) gateway6: Option<At<Ip>>,
    pub(super) mtu: Option<At<u16>>,
    pub(super) has_vlan: bool,
    pub(super) vlan: Option<At<u16>>,
    pub(super) outer_vlan: Option<At<u16>>,
    /// Whether it is one behind a tunnel, whatever is said of that.
    pub(super) has_tunnel: bool,
    pub(super) tunnel: Option<RawTunnelEnd>,
    pub(super) mac: Option<At<MacAddr>>,
    pub(super) pass_to: Option<At<String>>,
    pub(super) rx_descriptors: u16,
    pub(super) tx_descriptors: u16,
    pub(super) promiscuous: bool,
    pub(super) hairpin: Option<bool>,
    pub(super) faces: Faces,
    pub(super) neighbours: Vec<RawNeighbour>,
    pub(super) routes: Vec<RawRoute>,
}

/// `[[port.neighbour]]`.
pub(super) struct RawNeighbour {
    pub(super) address: Option<At<Ip>>,
    pub(super) mac: Option<At<MacAddr>>,
}

/// `[[port.route]]`.
pub(super) struct RawRoute {
    pub(super) to: Option<At<Prefix>>,
    pub(super) has_via: bool,
    pub(super) via: Option<At<Ip>>,
}

/// `[[service]]`.
pub(super) struct RawService {
    pub(super) place: Place,
    pub(super) name: Option<At<String>>,
    pub(super) tenant: Option<At<String>>,
    pub(super) vip: Option<At<Ip>>,
    pub(super) protocol: Option<At<Protocol>>,
    pub(super) ports: Option<Vec<At<RangeInclusive<u16>>>>,
    pub(super) mode: Option<At<Mode>>,
    pub(super) affinity: Option<At<Affinity>>,
    pub(super) schedule: RawSchedule,
    pub(super) strict: Option<At<bool>>,
    pub(super) on_remove: OnRemove,
    pub(super) offload: bool,
    pub(super) health: Option<Health>,
    pub(super) limit: Option<Limit>,
    pub(super) timeouts: RawTimeouts,
    pub(super) tunnel: RawTunnel,
    pub(super) backends: Vec<RawBackend>,
}

/// `[[service.backend]]`.
pub(super) struct RawBackend {
    pub(super) endpoint: Option<At<(Ip, Option<u16>)>>,
    pub(super) weight: Option<At<u32>>,
}

/// The timeouts that a section sets.
#[derive(Default)]
pub(super) struct RawTimeouts {
    pub(super) set: Vec<(Timeout, At<u32>)>,
}

/// A key of `[timeouts]` and the field it sets.
#[derive(Clone, Copy)]
pub(super) struct Timeout {
    key: &'static str,
    pub(super) protocol: Protocol,
    field: fn(&mut Timeouts) -> &mut u32,
}

const TIMEOUTS: [Timeout; 7] = [
    Timeout { key: "tcp_half_open_s", protocol: Protocol::Tcp, field: |all| &mut all.tcp_half_open_ms },
    Timeout { key: "tcp_established_s", protocol: Protocol::Tcp, field: |all| &mut all.tcp_established_ms },
    Timeout { key: "tcp_closing_s", protocol: Protocol::Tcp, field: |all| &mut all.tcp_closing_ms },
    Timeout { key: "tcp_time_wait_s", protocol: Protocol::Tcp, field: |all| &mut all.tcp_time_wait_ms },
    Timeout { key: "tcp_reset_s", protocol: Protocol::Tcp, field: |all| &mut all.tcp_reset_ms },
    Timeout { key: "udp_unreplied_s", protocol: Protocol::Udp, field: |all| &mut all.udp_unreplied_ms },
    Timeout { key: "udp_replied_s", protocol: Protocol::Udp, field: |all| &mut all.udp_replied_ms },
];

impl RawTimeouts {
    /// `base` with what is set here.
    pub(super) fn over(&self, base: Timeouts) -> Timeouts {
        let mut timeouts = base;
        for (timeout, seconds) in &self.set {
            *(timeout.field)(&mut timeouts) = seconds.value * 1000;
        }
        timeouts
    }
}

/// Reads the whole file.
pub(super) fn read(root: &Section<'_>, sink: &Sink<'_>) -> RawConfig {
    let dpdk = root.table("dpdk", "dpdk");
    let metrics = root.table("metrics", "metrics");
    let workers = read_workers(&root.table("workers", "workers"), sink);
    RawConfig {
        dpdk: read_dpdk(&dpdk),
        mbufs: dpdk.place_of("mbufs"),
        log: read_log(&root.table("log", "log")),
        metrics: metrics.is_present().then(|| read_metrics(&metrics)).flatten(),
        control: read_control(&root.table("control", "control"), sink),
        limits: read_limits(&root.table("limits", "limits")),
        timeouts: read_timeouts(&root.table("timeouts", "timeouts")),
        maglev: read_maglev(&root.table("maglev", "maglev")),
        offload: read_offload(&root.table("offload", "offload"), &workers, sink),
        workers,
        policy: policy::read(root),
        tenants: root.tables("tenant", "tenant").iter().map(|tenant| read_tenant(tenant, sink)).collect(),
        ports: root.tables("port", "port").iter().map(read_port).collect(),
        services: root
            .tables("service", "service")
            .iter()
            .map(|section| read_service(section, sink))
            .collect(),
    }
}

fn read_dpdk(section: &Section<'_>) -> Dpdk {
    let default = Dpdk::default();
    let eal_args = section.list("eal_args", verbatim).unwrap_or_default();
    Dpdk {
        eal_args: eal_args.into_iter().map(|argument| argument.value).collect(),
        file_prefix: section.default("file_prefix", default.file_prefix, name),
        hugepages: section.default("hugepages", default.hugepages, boolean),
        memory_mb: section.optional("memory_mb", integer(64..=1 << 20)).map(|at| at.value),
        mbufs: section.default("mbufs", default.mbufs, integer(512..=1 << 24)),
    }
}

fn read_workers(section: &Section<'_>, sink: &Sink<'_>) -> Workers {
    let default = Workers::default();
    let cores = section.list("cores", integer(0..=i64::from(limits::CORE_MAX)));
    check_cores(section, cores.as_deref(), sink);
    let idle = section.default_at("idle", false, choice(&[("poll", false), ("backoff", true)]));
    let sleep = section.optional("idle_sleep_us", integer(1..=100_000));
    let backoff = idle.is_none_or(|idle| idle.value);
    if let Some(sleep) = sleep.as_ref().filter(|_| !backoff) {
        sink.warning(
            &sleep.place,
            "has no effect while idle = \"poll\"",
            "set idle = \"backoff\" or remove it",
        );
    }
    Workers {
        cores: cores.map_or(default.cores, |cores| cores.into_iter().map(|core| core.value).collect()),
        idle: if backoff {
            Idle::Backoff { sleep_us: sleep.map_or(Idle::SLEEP_US, |at| at.value) }
        } else {
            Idle::Poll
        },
        hand_off_ring: section.default("hand_off_ring", default.hand_off_ring, power_of_two(64..=65536)),
    }
}

fn check_cores(section: &Section<'_>, cores: Option<&[At<u16>]>, sink: &Sink<'_>) {
    let Some(cores) = cores else { return };
    for (index, core) in cores.iter().enumerate() {
        if cores[..index].iter().any(|other| other.value == core.value) {
            let message = format!("core {} is listed twice", core.value);
            sink.error(&core.place, message, "give each worker a core of its own");
        }
    }
    let place = section.place_of("cores");
    if cores.is_empty() && !sink.has_errors_in("workers.cores") {
        sink.error(&place, "no cores", "name at least one core, or remove the key for core 0");
    }
    if cores.len() > limits::WORKERS_MAX {
        let message = format!("{} workers are too many", cores.len());
        sink.error(&place, message, format!("name at most {} cores", limits::WORKERS_MAX));
    }
}

fn read_log(section: &Section<'_>) -> Log {
    let default = Log::default();
    let levels = [
        ("error", LogLevel::Error),
        ("warn", LogLevel::Warn),
        ("info", LogLevel::Info),
        ("debug", LogLevel::Debug),
        ("trace", LogLevel::Trace),
    ];
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    Log {
        level: section.default("level", default.level, choice(&levels)),
        format: section.default("format", default.format, choice(&formats)),
    }
}

fn read_metrics(section: &Section<'_>) -> Option<Metrics> {
    let listen = section.required("listen", "\"127.0.0.1:9095\"", listen)?;
    Some(Metrics { listen: listen.value })
}

fn read_control(section: &Section<'_>, sink: &Sink<'_>) -> Control {
    let default = Control::default();
    let mode = section.default_at("mode", default.mode, file_mode);
    let group = section.optional("group", name);
    if let Some(mode) = mode.as_ref().filter(|mode| group.is_none() && mode.value & 0o077 != 0) {
        let message = "lets users connect who are refused then: only root and the process's own user may ask";
        sink.warning(&mode.place, message, "name the group that may as well, with group = \"…\"");
    }
    let listen = section.optional("listen", listen);
    let token_file = section.optional("token_file", absolute_path);
    match (&listen, section.has("token_file")) {
        (Some(listen), false) => {
            let remedy = "add token_file = \"/etc/millrace/token\", or remove listen";
            sink.error(&listen.place, "anybody could read what Millrace knows", remedy);
        }
        (None, true) if !section.has("listen") => {
            let place = section.place_of("token_file");
            sink.warning(
                &place,
                "has no effect without listen",
                "remove it, or add listen = \"127.0.0.1:9096\"",
            );
        }
        _ => {}
    }
    let reader = listen.zip(token_file);
    Control {
        socket: section.default("socket", default.socket, socket_path),
        mode: mode.map_or(default.mode, |at| at.value),
        group: group.map(|at| at.value),
        reader: reader.map(|(listen, file)| Reader { listen: listen.value, token_file: file.value }),
    }
}

fn read_limits(section: &Section<'_>) -> Limits {
    let default = Limits::default();
    let up_to = |max: u32| 16..=i64::from(max);
    Limits {
        connections: section.default(
            "connections",
            default.connections,
            integer(64..=limits::CONNECTIONS_MAX as i64),
        ),
        half_open_percent: section.default("half_open_percent", default.half_open_percent, integer(1..=100)),
        neighbours: section.default(
            "neighbours",
            default.neighbours,
            integer(up_to(limits::NEIGHBOURS_MAX as u32)),
        ),
        neighbour_queue: section.default(
            "neighbour_queue",
            default.neighbour_queue,
            integer(1..=i64::from(limits::NEIGHBOUR_QUEUE_MAX)),
        ),
        fragments: section.default("fragments", default.fragments, integer(up_to(limits::FRAGMENTS_MAX))),
        icmp_per_second: section.default("icmp_per_second", default.icmp_per_second, integer(0..=1_000_000)),
    }
}

fn read_timeouts(section: &Section<'_>) -> RawTimeouts {
    let seconds_max = i64::from(limits::TIMEOUT_MAX_MS / 1000);
    let read = |timeout: Timeout| Some((timeout, section.optional(timeout.key, integer(1..=seconds_max))?));
    RawTimeouts { set: TIMEOUTS.into_iter().filter_map(read).collect() }
}

fn read_maglev(section: &Section<'_>) -> Maglev {
    let range = 2..=i64::from(limits::MAGLEV_TABLE_MAX);
    Maglev { table_size: section.default("table_size", Maglev::default().table_size, prime(range)) }
}

fn read_offload(section: &Section<'_>, workers: &Workers, sink: &Sink<'_>) -> Offload {
    let default = Offload::default();
    let engines = [
        ("auto", EngineChoice::Auto),
        ("none", EngineChoice::None),
        ("sync", EngineChoice::Sync),
        ("template", EngineChoice::Template),
    ];
    let places = [("software", Draining::Software), ("hardware", Draining::Hardware)];
    let core = section.optional("core", integer(0..=i64::from(limits::CORE_MAX)));
    if let Some(core) = core.as_ref().filter(|core| workers.cores.contains(&core.value)) {
        let message = format!("core {} is a worker's", core.value);
        sink.warning(
            &core.place,
            message,
            "name another core, or leave the key out; the two slow each other down",
        );
    }
    Offload {
        engine: section.default("engine", default.engine, choice(&engines)),
        rules_max: section.default(
            "rules_max",
            default.rules_max,
            integer(2..=i64::from(limits::OFFLOAD_RULES_MAX)),
        ),
        deny_rules: section.default(
            "deny_rules",
            default.deny_rules,
            integer(0..=i64::from(limits::DENY_RULES_MAX)),
        ),
        insertions_per_second: section.default(
            "insertions_per_second",
            default.insertions_per_second,
            integer(0..=10_000_000),
        ),
        price_min: section.default("price_min", default.price_min, integer(1..=1_000_000)),
        idle_s: section.default("idle_s", default.idle_s, integer(1..=3600)),
        tenant_share_percent: section.default(
            "tenant_share_percent",
            default.tenant_share_percent,
            integer(1..=100),
        ),
        poll_ms: section.default(
            "poll_ms",
            default.poll_ms,
            integer(10..=i64::from(limits::OFFLOAD_POLL_MS_MAX)),
        ),
        core: core.map(|at| at.value),
        draining: section.default("draining", default.draining, choice(&places)),
    }
}

fn read_tenant(section: &Section<'_>, sink: &Sink<'_>) -> RawTenant {
    let most = limits::CONNECTIONS_MAX as i64 * limits::WORKERS_MAX as i64;
    let connections = section.optional("connections", integer(1..=most.min(i64::from(u32::MAX))));
    let half_open_percent = section.optional("half_open_percent", integer(1..=100));
    let offload_share_percent = section.optional("offload_share_percent", integer(1..=100));
    RawTenant {
        name: section.required("name", "\"blue\"", name),
        limits: snapshot::Tenant {
            connections: connections.map(|at| at.value),
            half_open_percent: half_open_percent.map(|at| at.value),
            offload_share_percent: offload_share_percent.map(|at| at.value),
        },
        limit: meters::of_tenant(&section.table("limit", "tenant.limit"), sink),
    }
}

/// The keys of `[[port]]` that are about a device, and so not for a port on the device of another.
const DEVICE_KEYS: [&str; 6] =
    ["device", "rx_descriptors", "tx_descriptors", "promiscuous", "hairpin", "faces"];

fn read_port(section: &Section<'_>) -> RawPort {
    let vlan_ids = || integer(1..=4094);
    let mtus = i64::from(limits::MTU_MIN)..=i64::from(limits::MTU_MAX);
    let descriptors = || integer(32..=16384);
    let faces = [("clients", Faces::Clients), ("backends", Faces::Backends), ("both", Faces::Both)];
    let has_parent = section.has("parent");
    let of_device = DEVICE_KEYS.into_iter().filter(|key| section.has(key));
    RawPort {
        place: section.place.clone(),
        name: section.required("name", "\"front\"", name),
        device: if has_parent { None } else { section.required("device", "\"0000:03:00.0\"", verbatim) },
        parent: section.optional("parent", name),
        has_parent,
        of_device: of_device.map(|key| (key, section.place_of(key))).collect(),
        tenant: section.optional("tenant", name),
        addresses: section.list("addresses", interface).unwrap_or_default(),
        gateway: section.optional("gateway", host),
        gateway6: section.optional("gateway6", host),
        mtu: section.optional("mtu", integer(mtus)),
        has_vlan: section.has("vlan"),
        vlan: section.optional("vlan", vlan_ids()),
        outer_vlan: section.optional("outer_vlan", vlan_ids()),
        has_tunnel: section.has("tunnel"),
        tunnel: tunnel_ports::read(&section.table("tunnel", "port.tunnel")),
        mac: section.optional("mac", mac),
        pass_to: section.optional("pass_to", name),
        rx_descriptors: section.default("rx_descriptors", super::DESCRIPTORS, descriptors()),
        tx_descriptors: section.default("tx_descriptors", super::DESCRIPTORS, descriptors()),
        promiscuous: section.default("promiscuous", false, boolean),
        hairpin: section.optional("hairpin", boolean).map(|at| at.value),
        faces: section.default("faces", Faces::Both, choice(&faces)),
        neighbours: section.tables("neighbour", "port.neighbour").iter().map(read_neighbour).collect(),
        routes: section.tables("route", "port.route").iter().map(read_route).collect(),
    }
}

fn read_neighbour(section: &Section<'_>) -> RawNeighbour {
    RawNeighbour {
        address: section.required("address", "\"10.0.0.254\"", host),
        mac: section.required("mac", "\"02:00:00:00:00:01\"", mac),
    }
}

fn read_route(section: &Section<'_>) -> RawRoute {
    RawRoute {
        to: section.required("to", "\"10.9.0.0/16\"", destination),
        has_via: section.has("via"),
        via: section.optional("via", host),
    }
}

fn read_service(section: &Section<'_>, sink: &Sink<'_>) -> RawService {
    let protocols = [("tcp", Protocol::Tcp), ("udp", Protocol::Udp)];
    let modes = [("nat", Mode::Nat), ("dsr", Mode::Dsr)].into_iter().chain(tunnels::modes());
    let modes: Vec<_> = modes.collect();
    let affinities =
        [("connection", Affinity::Connection), ("client", Affinity::Client), ("none", Affinity::None)];
    let removals = [("drain", OnRemove::Drain), ("reset", OnRemove::Reset)];
    RawService {
        place: section.place.clone(),
        schedule: schedule::read(section),
        name: section.required("name", "\"web\"", name),
        tenant: section.optional("tenant", name),
        vip: section.required("vip", "\"192.0.2.80\"", host),
        protocol: section.required("protocol", "\"tcp\"", choice(&protocols)),
        ports: section.required_list("ports", "[80]", port_range),
        mode: section.default_at("mode", Mode::Nat, choice(&modes)),
        affinity: section.default_at("affinity", Affinity::Connection, choice(&affinities)),
        strict: section.default_at("strict", false, boolean),
        on_remove: section.default("on_remove", OnRemove::Drain, choice(&removals)),
        offload: section.default("offload", true, boolean),
        health: health::read(&section.table("health", "service.health"), sink),
        limit: meters::of_service(&section.table("limit", "service.limit"), sink),
        timeouts: read_timeouts(&section.table("timeouts", "service.timeouts")),
        tunnel: tunnels::read(&section.table("tunnel", "service.tunnel")),
        backends: section.tables("backend", "service.backend").iter().map(read_backend).collect(),
    }
}

fn read_backend(section: &Section<'_>) -> RawBackend {
    RawBackend {
        endpoint: section.required("address", "\"10.0.1.11:8080\"", endpoint),
        weight: section.default_at("weight", 1, integer(0..=i64::from(limits::WEIGHT_MAX))),
    }
}
