//! What a seed means: topology, sizes, workload, what operators do, and what goes wrong.

use crate::rng::Rng;
use dataplane::addr::{Ip, MacAddr};
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(crate) const MS: u64 = 1_000_000;
pub(crate) const SECOND: u64 = 1_000 * MS;

/// How packets get a backend's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    Nat,
    Dsr,
}

/// A place where a service can run.
#[derive(Clone, Debug)]
pub(crate) struct BackendPlan {
    pub(crate) host: usize,
    pub(crate) ip: Ip,
    /// `None`: the VIP's.
    pub(crate) port: Option<u16>,
    pub(crate) weight: u32,
    pub(crate) configured: bool,
    pub(crate) drained: bool,
    /// Since when hardware may not have its connections.
    pub(crate) barred_at: Option<u64>,
    /// When it was configured again.
    pub(crate) back_at: Option<u64>,
}

/// A service and all places where it can run.
#[derive(Clone, Debug)]
pub(crate) struct ServicePlan {
    pub(crate) name: String,
    pub(crate) vip: Ip,
    pub(crate) port: u16,
    pub(crate) tcp: bool,
    pub(crate) mode: Mode,
    pub(crate) resets: bool,
    pub(crate) backends: Vec<BackendPlan>,
}

/// How often what goes wrong, in a million; 0: never.
#[derive(Clone, Debug, Default)]
pub(crate) struct FaultPlan {
    pub(crate) ask_full: u32,
    pub(crate) revoke_full: u32,
    pub(crate) answer_full: u32,
    pub(crate) hand_off_full: u32,
    pub(crate) announce_lost: u32,
    pub(crate) tx_refused: u32,
    pub(crate) pool_exhausted: u32,
    pub(crate) wire_lost: u32,
    /// In the words of the eSwitch.
    pub(crate) device: String,
    /// The device forgets everything, or hangs, so often.
    pub(crate) breakdowns: u64,
    /// The offload thread stands still for a while.
    pub(crate) stalls: u32,
}

impl FaultPlan {
    /// Whether nothing is going to fail.
    pub(crate) fn are_none(&self) -> bool {
        self.device.is_empty()
    }
}

/// Turns that the offload thread needs to take out what a policy denies, besides those in which all places of
/// a queue are used: to judge, to see rules come into force that were on their way in, and to have them out.
const ENFORCING_TURNS: u64 = 6;
/// Connections that leave in one turn where calls block.
const LEAVING_PER_TURN: u64 = 16;

/// Everything a seed chooses before the first packet.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) seed: u64,
    pub(crate) workers: usize,
    /// Ports: 2 in line, or 1.
    pub(crate) ports: usize,
    /// Without, everything stays in software.
    pub(crate) engine: bool,
    pub(crate) hardware_steering: bool,
    pub(crate) profile: &'static str,
    /// The ports are of different switches, or are one: hairpin queues join them.
    pub(crate) hairpins: bool,
    pub(crate) operations_max: u32,
    pub(crate) vlans: [Option<u16>; 2],
    pub(crate) services: Vec<ServicePlan>,
    pub(crate) hosts: usize,
    /// Clients on the link, and behind the gateway.
    pub(crate) clients: usize,
    pub(crate) connections_max: u32,
    pub(crate) half_open_percent: u32,
    pub(crate) ring: usize,
    pub(crate) pool: usize,
    pub(crate) rx_queue: usize,
    pub(crate) rules_max: u32,
    pub(crate) insertions_per_second: u32,
    pub(crate) price_min: u32,
    pub(crate) idle_ms: u32,
    pub(crate) poll_ms: u32,
    pub(crate) draining_in_hardware: bool,
    /// Mean time between new connections, and how long they last.
    pub(crate) arrival_ns: u64,
    pub(crate) segments_max: u64,
    pub(crate) gap_max_ns: u64,
    pub(crate) latency_ns: [u64; 2],
    pub(crate) flood_ns: Option<u64>,
    pub(crate) malformed_percent: u32,
    pub(crate) ttl_one_percent: u32,
    pub(crate) fragment_percent: u32,
    pub(crate) port_reuse_percent: u32,
    pub(crate) operator_ns: Option<u64>,
    /// Mean time between changes of the policy.
    pub(crate) policy_ns: Option<u64>,
    pub(crate) faults: FaultPlan,
    pub(crate) load_ns: u64,
    pub(crate) calm_ns: u64,
}

/// Timeouts of all services, seconds.
pub(crate) const HALF_OPEN_S: u64 = 3;
pub(crate) const ESTABLISHED_S: u64 = 12;
pub(crate) const CLOSING_S: u64 = 4;
pub(crate) const UDP_UNREPLIED_S: u64 = 3;
pub(crate) const UDP_REPLIED_S: u64 = 6;

pub(crate) fn v4(a: u8, b: u8, c: u8, d: u8) -> Ip {
    IpAddr::from(Ipv4Addr::new(a, b, c, d)).into()
}

pub(crate) fn v6(net: u16, host: u16) -> Ip {
    IpAddr::from(Ipv6Addr::new(0xfd00, net, 0, 0, 0, 0, 0, host)).into()
}

/// A backend host's address on its link.
pub(crate) fn host_ip(ports: usize, six: bool, host: usize) -> Ip {
    match (ports, six) {
        (1, false) => v4(10, 0, 0, 11 + host as u8),
        (_, false) => v4(10, 0, 1, 11 + host as u8),
        (1, true) => v6(1, 11 + host as u16),
        (_, true) => v6(2, 11 + host as u16),
    }
}

/// Millrace's own MAC address on a port.
pub(crate) fn port_mac(port: usize) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, 1 + port as u8])
}

fn sometimes(rng: &mut Rng, percent: u32, low: u64, high: u64) -> u32 {
    if rng.percent(percent) { rng.between(low, high) as u32 } else { 0 }
}

impl Scenario {
    /// Turns within which the offload thread takes out all that a policy denies, were it everything.
    pub(crate) fn turns_to_enforce(&self) -> u64 {
        let rules = u64::from(self.rules_max);
        let per_turn =
            if self.hardware_steering { u64::from(self.operations_max) } else { 2 * LEAVING_PER_TURN };
        ENFORCING_TURNS + rules.div_ceil(per_turn)
    }

    pub(crate) fn of(seed: u64) -> Scenario {
        let mut rng = Rng::new(seed);
        let rng = &mut rng;
        let mut policed = Rng::new(!seed);
        let ports = if rng.percent(85) { 2 } else { 1 };
        let hosts = rng.between(1, 5) as usize;
        let hardware_steering = rng.percent(50);
        let services = services(rng, ports, hosts);
        let vlan = |rng: &mut Rng| rng.percent(25).then(|| rng.between(2, 4000) as u16);
        Scenario {
            seed,
            workers: rng.between(1, 3) as usize,
            ports,
            engine: rng.percent(92),
            hardware_steering,
            profile: rng.pick(if hardware_steering { &["bf3-hws", "ideal"] } else { &["bf2-sws", "ideal"] }),
            hairpins: !hardware_steering && rng.percent(if ports == 1 { 70 } else { 10 }),
            operations_max: rng.pick(&[2, 16, 256]),
            vlans: [vlan(rng), vlan(rng)],
            services,
            hosts,
            clients: rng.between(2, 12) as usize,
            connections_max: rng.pick(&[64, 128, 512, 2048]),
            half_open_percent: rng.pick(&[10, 25, 50]),
            ring: rng.pick(&[4, 16, 64, 1024]),
            pool: rng.pick(&[256, 1024, 4096]),
            rx_queue: rng.pick(&[64, 256, 1024]),
            rules_max: rng.pick(&[4, 16, 64, 512]),
            insertions_per_second: rng.pick(&[0, 0, 10, 100, 1000]),
            price_min: rng.pick(&[1, 3, 8, 20]),
            idle_ms: rng.pick(&[400, 1000, 3000]),
            poll_ms: rng.pick(&[20, 100, 500]),
            draining_in_hardware: rng.percent(50),
            arrival_ns: rng.pick(&[10, 25, 60, 150]) * MS,
            segments_max: rng.pick(&[30, 100, 300]),
            gap_max_ns: rng.pick(&[1, 20, 100, 400]) * MS,
            latency_ns: [rng.between(20_000, 800_000), rng.between(20_000, 800_000)],
            flood_ns: rng.percent(15).then(|| rng.between(MS / 2, 5 * MS)),
            malformed_percent: sometimes(rng, 30, 1, 5),
            ttl_one_percent: sometimes(rng, 25, 1, 5),
            fragment_percent: sometimes(rng, 25, 1, 20),
            port_reuse_percent: rng.pick(&[0, 20, 80]),
            operator_ns: rng.percent(60).then(|| rng.between(100 * MS, 1500 * MS)),
            policy_ns: policed.percent(40).then(|| policed.between(50 * MS, 1000 * MS)),
            faults: faults(rng),
            load_ns: rng.between(2, 5) * SECOND,
            calm_ns: 5 * SECOND,
        }
    }

    /// Whether anything but time can keep a connection from being forwarded as it should.
    pub(crate) fn is_lossless(&self) -> bool {
        let FaultPlan { hand_off_full, announce_lost, tx_refused, pool_exhausted, wire_lost, .. } =
            self.faults;
        hand_off_full + announce_lost + tx_refused + pool_exhausted + wire_lost == 0
    }

    /// The configuration file.
    pub(crate) fn config(&self, services: &[ServicePlan]) -> String {
        let mut text = format!(
            "[offload]\ndraining = \"{}\"\n[limits]\nconnections = {}\nhalf_open_percent = {}\n[maglev]\ntable_size = 251\n[timeouts]\n\
             tcp_half_open_s = {HALF_OPEN_S}\ntcp_established_s = {ESTABLISHED_S}\ntcp_closing_s = {CLOSING_S}\n\
             tcp_time_wait_s = 2\ntcp_reset_s = 2\nudp_unreplied_s = {UDP_UNREPLIED_S}\n\
             udp_replied_s = {UDP_REPLIED_S}\n",
            if self.draining_in_hardware { "hardware" } else { "software" },
            self.connections_max,
            self.half_open_percent
        );
        for port in 0..self.ports {
            let name = ["front", "back"][port];
            let vlan = self.vlans[port].map_or(String::new(), |vid| format!("vlan = {vid}\n"));
            let gateway = "gateway = \"10.0.0.254\"\ngateway6 = \"fd00:1::fe\"\n";
            let gateway = if port == 0 { gateway } else { "" };
            let net = port + 1;
            let _ = writeln!(
                text,
                "[[port]]\nname = \"{name}\"\ndevice = \"net_null{port}\"\n{vlan}{gateway}\
                 addresses = [\"10.0.{port}.1/24\", \"fd00:{net}::1/64\"]"
            );
        }
        for service in services {
            let _ = writeln!(
                text,
                "[[service]]\nname = \"{}\"\nvip = \"{}\"\nprotocol = \"{}\"\nports = [{}]\nmode = \"{}\"\n\
                 on_remove = \"{}\"",
                service.name,
                service.vip,
                if service.tcp { "tcp" } else { "udp" },
                service.port,
                if service.mode == Mode::Nat { "nat" } else { "dsr" },
                if service.resets { "reset" } else { "drain" },
            );
            for backend in service.backends.iter().filter(|backend| backend.configured) {
                let ip = backend.ip;
                let address = match backend.port {
                    Some(port) if ip.is_v4() => format!("{ip}:{port}"),
                    Some(port) => format!("[{ip}]:{port}"),
                    None => ip.to_string(),
                };
                let weight = backend.weight;
                let _ = writeln!(text, "[[service.backend]]\naddress = \"{address}\"\nweight = {weight}");
            }
        }
        text
    }
}

fn services(rng: &mut Rng, ports: usize, hosts: usize) -> Vec<ServicePlan> {
    let count = rng.between(1, 4);
    (0..count)
        .map(|n| {
            let (six, tcp) = (rng.percent(35), n == 0 || rng.percent(50));
            let mode = if rng.percent(75) { Mode::Nat } else { Mode::Dsr };
            let vip = if six { v6(0x80, 80 + n as u16) } else { v4(192, 0, 2, 80 + n as u8) };
            let own_port = mode == Mode::Nat && rng.percent(70);
            let mut backends: Vec<BackendPlan> = (0..hosts)
                .map(|host| BackendPlan {
                    host,
                    ip: host_ip(ports, six, host),
                    port: own_port.then_some(8000 + n as u16),
                    weight: rng.pick(&[1, 1, 1, 3]),
                    configured: rng.percent(70),
                    drained: false,
                    barred_at: None,
                    back_at: None,
                })
                .collect();
            backends[0].configured = true;
            backends[0].weight = 1;
            ServicePlan {
                name: format!("service{n}"),
                vip,
                port: 80 + n as u16,
                tcp,
                mode,
                resets: rng.percent(50),
                backends,
            }
        })
        .collect()
}

fn faults(rng: &mut Rng) -> FaultPlan {
    if rng.percent(30) {
        return FaultPlan::default();
    }
    let mut device = String::new();
    for (percent, fault, values) in [
        (25, "refuse", ["0.01", "0.3"]),
        (40, "fail", ["0.01", "0.3"]),
        (20, "delay_us", ["500", "20000"]),
        (30, "reorder", ["0.1", "0.9"]),
        (15, "lose_completions", ["0.005", "0.05"]),
        (10, "lose_counters", ["0.1", "0.9"]),
        (30, "age_early", ["0.01", "0.3"]),
        (15, "full_at", ["16", "60"]),
        (15, "counters_at", ["10", "40"]),
        (10, "ages_at", ["10", "40"]),
    ] {
        let value = rng.pick(&values);
        if rng.percent(percent) {
            let _ = write!(device, "{fault}={value},");
        }
    }
    let _ = write!(device, "seed={}", rng.between(1, 1 << 40));
    FaultPlan {
        ask_full: sometimes(rng, 25, 10_000, 500_000),
        revoke_full: sometimes(rng, 25, 10_000, 700_000),
        answer_full: sometimes(rng, 25, 10_000, 700_000),
        hand_off_full: sometimes(rng, 15, 1_000, 50_000),
        announce_lost: sometimes(rng, 15, 10_000, 300_000),
        tx_refused: sometimes(rng, 20, 1_000, 50_000),
        pool_exhausted: sometimes(rng, 20, 1_000, 50_000),
        wire_lost: sometimes(rng, 25, 1_000, 30_000),
        device,
        breakdowns: if rng.percent(15) { rng.between(1, 3) } else { 0 },
        stalls: sometimes(rng, 15, 100, 2_000),
    }
}

impl Scenario {
    /// All of it, and each service in a few words.
    pub(crate) fn summary(&self) -> String {
        let services: Vec<String> = self.services.iter().map(|service| format!("  {service:?}\n")).collect();
        let rest = Scenario { services: Vec::new(), ..self.clone() };
        format!("{rest:?}\n{}", services.concat())
    }
}
