//! A device with an uplink and a host, its two ports started, an engine, and connections to carry.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use dataplane::addr::{Ip, MacAddr};
use dataplane::conntrack::Count;
use dataplane::flow::{Direction, FlowKey, Protocol};
use dataplane::ids::{BackendId, PortId, ServiceId, TenantId, WorkerId};
use dataplane::packet::{Burst, PacketBuf};
use dataplane::snapshot::VlanTags;
use dpdk::{Device, Eal, HairpinPeer, Mbuf, Mempool, PoolConfig, Port, PortConfig, RxQueue, TxQueue};
use offload::engine::open::{self, Engine, Prepared};
use offload::engine::{Completion, EngineError, FlowEngine, LegId, Meter};
use offload::lower::{self, PortFacts, Topology};
use offload::rule::Rule;
use offload::{Ask, FlowRef, Leg, RuleId, Token};

/// Polls after which what should have come will not.
const PATIENCE: usize = 1_000_000;

/// Rules that engines are to have room for.
pub(crate) const RULES_MAX: u32 = 4096;

/// Where the driver is built to.
const DRIVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/driver/libeswitch.so");

/// The EAL with the driver and these devices, each with two wires that return what they are given.
pub(crate) fn eal(devices: &[&str]) -> Eal {
    assert!(
        Path::new(DRIVER).is_file(),
        "{DRIVER} is not there: cargo build --profile driver -p eswitch --features pmd"
    );
    let fixed = "--no-huge --no-shconf -m 768 --no-pci -l 0 --log-level=*:error";
    let mut args: Vec<String> = fixed.split(' ').map(str::to_owned).collect();
    args.push(format!("--file-prefix={}", prefix()));
    args.extend(["-d".to_owned(), DRIVER.to_owned()]);
    for (number, devargs) in devices.iter().enumerate() {
        let wires = format!("uplink=net_ring_u{number},host=net_ring_h{number},mbufs=2048");
        args.push(format!("--vdev=net_eswitch{number},{wires},{devargs}"));
        args.extend(["u", "h"].map(|end| format!("--vdev=net_ring_{end}{number}")));
    }
    Eal::init(&args).expect("the EAL starts")
}

/// What tells this process's telemetry from others'.
fn prefix() -> String {
    format!("engines{}", std::process::id())
}

/// Removes what the telemetry has left: a directory where DPDK has its sockets.
pub(crate) fn leave_nothing() {
    let own = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    for directory in [Some("/var/run".into()), own, Some("/tmp".into())].into_iter().flatten() {
        // It is in one of them.
        let _ = std::fs::remove_dir_all(directory.join("dpdk").join(prefix()));
    }
}

/// Lets a device do this from now on, or once.
pub(crate) fn inject(number: usize, faults: &str) {
    let mut client = Command::new("dpdk-telemetry.py")
        .args(["-f", &prefix()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("DPDK's telemetry client is installed");
    let mut command = client.stdin.take().expect("it listens");
    writeln!(command, "/eswitch/faults,net_eswitch{number},{faults}").expect("it listens");
    drop(command);
    let said = client.wait_with_output().expect("it ends").stdout;
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(said.contains("\"faults\""), "{faults}: {said}");
}

/// Buffers for all ports.
pub(crate) fn pool(eal: &Eal) -> Mempool<'_> {
    let config = PoolConfig {
        name: "packets",
        count: 8191,
        cache: 64,
        data_room_bytes: PoolConfig::DATA_ROOM_BYTES,
        socket: None,
    };
    Mempool::create(eal, &config).expect("there is memory for a pool")
}

/// The uplink's and the host's port of a device, configured. The uplink's gets a hairpin queue without its
/// other end, by which the driver does not let it start: it does without, and keeps all else.
pub(crate) fn ports<'a>(
    devices: &mut Vec<Device<'a>>,
    number: usize,
    pool: &'a Mempool<'a>,
) -> [Port<'a>; 2] {
    ["", "_representor_vf65535"].map(|suffix| {
        let name = format!("net_eswitch{number}{suffix}");
        let at = devices.iter().position(|device| device.name() == name).expect("the device is there");
        let device = devices.remove(at);
        let nobody = HairpinPeer { port: device.number(), queue: 1 };
        let hairpin_rx = if suffix.is_empty() { vec![nobody] } else { Vec::new() };
        let config = PortConfig { promiscuous: true, hairpin_rx, ..PortConfig::default() };
        device.configure(&config, pool).expect("the port is configured")
    })
}

/// Clients are at the uplink, backends at the host.
pub(crate) const UPLINK: PortId = PortId(0);
/// See [`UPLINK`].
pub(crate) const HOST: PortId = PortId(1);

/// What rules are made for.
pub(crate) fn topology(ports: &[Port<'_>; 2]) -> Topology {
    let facts = |port: &Port<'_>| PortFacts {
        ethdev: port.number(),
        proxy: port.transfer_proxy().expect("an eSwitch has a proxy"),
        domain: port.switch_domain(),
        mac: MacAddr(port.mac().expect("a port has an address")),
        any_mac: true,
        mtu: 1500,
        vlan: VlanTags::default(),
        tunnel: None,
        hairpins: Vec::new(),
    };
    Topology { ports: ports.iter().map(facts).collect() }
}

/// Next hops.
const CLIENT: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xc]);
const BACKEND: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xb]);

/// The `n`th connection: TCP or UDP, over IPv4 or IPv6.
pub(crate) fn ask(n: u32) -> Ask {
    let v4 = n & 1 == 0;
    let ip = |low: u32| {
        let [a, b, c, d] = low.to_be_bytes();
        let v6 = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d];
        if v4 { Ip::v4(low) } else { Ip::v6(v6) }
    };
    Ask {
        flow: FlowRef { worker: WorkerId(0), slot: n, generation: 1 },
        token: Token(n),
        key: FlowKey {
            src: ip(0x0a00_0000 | n >> 12),
            dst: ip(0xc000_0250),
            src_port: 1024 + (n & 0xfff) as u16,
            dst_port: 80,
            tenant: TenantId(0),
            protocol: if n & 2 == 0 { Protocol::Tcp } else { Protocol::Udp },
        },
        backend_end: (ip(0x0a01_0007), 8080),
        nat: true,
        tunnel: None,
        service: ServiceId(0),
        backend: BackendId(0),
        legs: [
            Some(Leg { ingress: UPLINK, egress: HOST, next_hop: BACKEND }),
            Some(Leg { ingress: HOST, egress: UPLINK, next_hop: CLIENT }),
        ],
        packets: 10,
        age_ms: 100,
    }
}

/// The names of the `n`th connection's legs, and its directions.
pub(crate) fn legs(n: u32) -> [LegId; 2] {
    [Direction::Original, Direction::Reply].map(|direction| LegId { rule: RuleId(n), direction })
}

/// Both rules of the `n`th connection.
pub(crate) fn rules(topology: &Topology, n: u32, age_s: Option<u32>) -> [(LegId, Rule); 2] {
    legs(n).map(|leg| {
        let rule = lower::leg(topology, &ask(n), leg.direction, age_s).expect("a connection has rules");
        (leg, rule)
    })
}

/// A packet of one direction of the `n`th connection, as it comes in: 20 bytes of payload, no checksums.
pub(crate) fn frame(n: u32, direction: Direction) -> Vec<u8> {
    let key = ask(n).incoming(direction);
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    let transport = if key.protocol == Protocol::Tcp { 20 } else { 8 };
    let number = if key.protocol == Protocol::Tcp { 6 } else { 17 };
    let len = transport as u16 + 20;
    if key.src.is_v4() {
        frame.extend([8, 0, 0x45, 0]);
        frame.extend((20 + len).to_be_bytes());
        frame.extend([0, 0, 0, 0, 64, number, 0, 0]);
        frame.extend(key.src.low32().to_be_bytes());
        frame.extend(key.dst.low32().to_be_bytes());
    } else {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend(len.to_be_bytes());
        frame.extend([number, 64]);
        frame.extend(key.src.octets());
        frame.extend(key.dst.octets());
    }
    frame.extend(key.src_port.to_be_bytes());
    frame.extend(key.dst_port.to_be_bytes());
    match key.protocol {
        Protocol::Tcp => frame.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]),
        Protocol::Udp => frame.extend([0, 28, 0, 0]),
    }
    frame.extend([0x5a; 20]);
    frame
}

/// What of a frame a rule changes, and what tells connections apart: MAC addresses, TTL, addresses, ports.
#[derive(PartialEq, Eq, Hash, Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) macs: [u8; 12],
    pub(crate) ttl: u8,
    pub(crate) addresses: Vec<u8>,
    pub(crate) ports: [u8; 4],
}

impl Seen {
    pub(crate) fn of(frame: &[u8]) -> Seen {
        let v4 = frame[12] == 8;
        let (ttl, addresses, transport) = if v4 { (22, 26..34, 34) } else { (21, 22..54, 54) };
        let part = |from: usize| <[u8; 4]>::try_from(&frame[from..from + 4]).expect("four bytes");
        Seen {
            macs: frame[..12].try_into().expect("twelve bytes"),
            ttl: frame[ttl],
            addresses: frame[addresses].to_vec(),
            ports: part(transport),
        }
    }

    /// What becomes of a packet of the `n`th connection in hardware.
    pub(crate) fn translated(topology: &Topology, n: u32, direction: Direction) -> Seen {
        let ask = ask(n);
        let octets =
            |ip: Ip| if ip.is_v4() { ip.low32().to_be_bytes().to_vec() } else { ip.octets().to_vec() };
        let (src, dst) = match direction {
            Direction::Original => ((ask.key.src, ask.key.src_port), ask.backend_end),
            Direction::Reply => ((ask.key.dst, ask.key.dst_port), (ask.key.src, ask.key.src_port)),
        };
        let leg = ask.legs[direction as usize].expect("both directions pass");
        let egress = &topology.ports[leg.egress.index()];
        let mut macs = [0; 12];
        macs[..6].copy_from_slice(&leg.next_hop.0);
        macs[6..].copy_from_slice(&egress.mac.0);
        let mut ports = [0; 4];
        ports[..2].copy_from_slice(&src.1.to_be_bytes());
        ports[2..].copy_from_slice(&dst.1.to_be_bytes());
        Seen { macs, ttl: 63, addresses: [octets(src.0), octets(dst.0)].concat(), ports }
    }
}

/// Rules that the device has.
pub(crate) fn device_rules(ports: &[Port<'_>; 2]) -> u64 {
    let xstats: HashMap<String, u64> = ports[0].xstats().expect("statistics").into_iter().collect();
    xstats["rules_installed"] - xstats["rules_removed"]
}

/// All groups that a fence can stand before.
pub(crate) const GROUPS: u8 = 0b1_1110;

/// Two started ports, their queues, and an engine for them.
pub(crate) struct Bed<'a> {
    pub(crate) topology: Topology,
    pub(crate) engine: Engine<'a>,
    ports: &'a [Port<'a>; 2],
    pool: &'a Mempool<'a>,
    rx: [RxQueue<'a>; 2],
    tx: [TxQueue<'a>; 2],
    /// Operations begun whose completions have not been looked at.
    begun: usize,
    ended: Vec<Completion>,
}

impl<'a> Bed<'a> {
    pub(crate) fn new(prepared: &Prepared, ports: &'a [Port<'a>; 2], pool: &'a Mempool<'a>) -> Bed<'a> {
        let topology = topology(ports);
        let both: Vec<&Port<'_>> = ports.iter().collect();
        let engine = open::open(prepared, &both, lower::base_rules(&topology)).expect("an engine");
        let rx = [0, 1].map(|at: usize| ports[at].rx_queue(0).expect("a queue"));
        let tx = [0, 1].map(|at: usize| ports[at].tx_queue(0).expect("a queue"));
        Bed { topology, engine, ports, pool, rx, tx, begun: 0, ended: Vec::new() }
    }

    /// Begins to put both rules of a connection in force; what the engine says to those it does not take.
    pub(crate) fn install(&mut self, n: u32, age_s: Option<u32>) -> Vec<(LegId, EngineError)> {
        let mut refused = Vec::new();
        for (leg, rule) in rules(&self.topology, n, age_s) {
            let said = self.retried(|engine| engine.install(leg, &rule));
            refused.extend(said.err().map(|error| (leg, error)));
        }
        refused
    }

    /// Begins to take both out.
    pub(crate) fn remove(&mut self, n: u32) {
        for leg in legs(n) {
            self.retried(|engine| engine.remove(leg)).expect("what is in force can be removed");
        }
    }

    /// Begins something, making room in the queue as long as there is none.
    pub(crate) fn retried(
        &mut self,
        mut act: impl FnMut(&mut Engine<'a>) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        for _ in 0..PATIENCE {
            match act(&mut self.engine) {
                Err(EngineError::QueueFull) => self.pump(),
                Ok(()) => {
                    self.begun += 1;
                    return Ok(());
                }
                refused => return refused,
            }
        }
        panic!("the queue stays full");
    }

    /// Lets the engine do what it can, and the device.
    pub(crate) fn pump(&mut self) {
        self.engine.push();
        let mut completions = Vec::with_capacity(64);
        self.engine.pull(&mut completions);
        self.ended.extend(completions);
    }

    /// The completions of everything begun.
    pub(crate) fn finish(&mut self) -> Vec<Completion> {
        for _ in 0..PATIENCE {
            if self.ended.len() == self.begun {
                break;
            }
            self.pump();
        }
        assert_eq!(self.ended.len(), self.begun, "each operation has one completion");
        self.begun = 0;
        std::mem::take(&mut self.ended)
    }

    /// The completions that there are, and that no more are expected.
    pub(crate) fn give_up(&mut self) -> Vec<Completion> {
        for _ in 0..1000 {
            self.pump();
        }
        self.begun = 0;
        std::mem::take(&mut self.ended)
    }

    /// Waits for the base rules. The completion of one may be lost; then others wait for it, and only a flush
    /// helps.
    pub(crate) fn make_ready(&mut self) {
        for _ in 0..100 {
            self.give_up();
            if self.engine.is_ready() {
                return;
            }
            self.engine.flush().expect("the device answers");
        }
        panic!("the base rules do not come");
    }

    /// Fences these groups, a bit each, and no others. On the way there packets pass, one way or the other.
    pub(crate) fn fence(&mut self, groups: u8) {
        assert!(self.engine.fence(groups), "it can");
        let frames = [frame(0, Direction::Original)];
        for _ in 0..PATIENCE {
            if self.engine.is_ready() && self.engine.fenced() == groups {
                return;
            }
            self.pass(UPLINK, &frames);
            self.pump();
        }
        panic!("fenced: {:#b}", self.engine.fenced());
    }

    /// Waits until the device has so many rules.
    pub(crate) fn expect_device_rules(&mut self, rules: usize) {
        for _ in 0..1000 {
            if device_rules(self.ports) == rules as u64 {
                break;
            }
            self.pump();
        }
        assert_eq!(device_rules(self.ports), rules as u64);
    }

    /// Passes frames in by the wire of this port; what is received on each of the two ports.
    pub(crate) fn pass(&mut self, ingress: PortId, frames: &[Vec<u8>]) -> [Vec<Vec<u8>>; 2] {
        let mut seen = [Vec::new(), Vec::new()];
        for frames in frames.chunks(32) {
            let expected = seen[0].len() + seen[1].len() + frames.len();
            let mut burst: Burst<Mbuf> = frames.iter().map(|frame| self.packet(frame)).collect();
            for _ in 0..PATIENCE {
                self.tx[ingress.index()].burst(&mut burst);
                self.receive(&mut seen);
                if seen[0].len() + seen[1].len() >= expected {
                    break;
                }
            }
        }
        assert_eq!(seen[0].len() + seen[1].len(), frames.len(), "no packet is lost, and none comes twice");
        seen
    }

    /// Passes frames in by the wire of this port, some of which a meter drops; what is received on each of
    /// the two ports, and what has been dropped since the meter was made.
    pub(crate) fn offer(
        &mut self,
        ingress: PortId,
        frames: &[Vec<u8>],
        meter: u32,
    ) -> ([Vec<Vec<u8>>; 2], Count) {
        let proxy = self.topology.ports[0].proxy;
        let drops = |bed: &mut Bed<'a>| bed.engine.meter_drops(proxy, meter).expect("there is a meter");
        let mut seen = [Vec::new(), Vec::new()];
        let before = drops(self).packets;
        for (sent, frames) in frames.chunks(32).enumerate() {
            let expected = 32 * sent + frames.len();
            let mut burst: Burst<Mbuf> = frames.iter().map(|frame| self.packet(frame)).collect();
            for _ in 0..PATIENCE {
                self.tx[ingress.index()].burst(&mut burst);
                self.receive(&mut seen);
                let dropped = (drops(self).packets - before) as usize;
                if seen[0].len() + seen[1].len() + dropped >= expected {
                    break;
                }
            }
        }
        (seen, drops(self))
    }

    /// Makes a meter, or changes it.
    pub(crate) fn set_meter(&mut self, number: u32, meter: &Meter) {
        let proxy = self.topology.ports[0].proxy;
        for _ in 0..PATIENCE {
            match self.engine.set_meter(proxy, number, meter) {
                Err(EngineError::QueueFull) => self.pump(),
                set => return set.expect("a good meter"),
            }
        }
        panic!("there will be no meter");
    }

    /// Passes frames in by the wire of this port, of which none comes out again.
    pub(crate) fn lose(&mut self, ingress: PortId, frames: &[Vec<u8>]) {
        for frames in frames.chunks(32) {
            let mut burst: Burst<Mbuf> = frames.iter().map(|frame| self.packet(frame)).collect();
            for _ in 0..PATIENCE {
                self.tx[ingress.index()].burst(&mut burst);
                if burst.is_empty() {
                    break;
                }
            }
            assert!(burst.is_empty(), "the wire takes them");
        }
        // One that nobody has a rule for comes behind them.
        let last = frame(u32::from(u16::MAX), Direction::Original);
        let seen = self.pass(ingress, std::slice::from_ref(&last));
        assert_eq!(seen[ingress.index()], [last], "and nothing else");
    }

    fn packet(&self, frame: &[u8]) -> Mbuf {
        let mut packet = self.pool.alloc().expect("the pool has buffers");
        assert!(packet.set_len(frame.len()));
        packet.data_mut().copy_from_slice(frame);
        packet
    }

    fn receive(&mut self, seen: &mut [Vec<Vec<u8>>; 2]) {
        for (rx, seen) in self.rx.iter_mut().zip(seen) {
            let mut burst = Burst::<Mbuf>::new();
            rx.burst(&mut burst);
            seen.extend(burst.iter().map(|packet| packet.data().to_vec()));
        }
    }
}
