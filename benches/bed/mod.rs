//! What the benches of the walk share: a worker with connections, and packets in memory for it. Ports are
//! replaced by a copy of each frame into a recycled buffer.

#![allow(dead_code, reason = "each bench uses its part")]

use dataplane::addr::{Ip, MacAddr};
use dataplane::config::Config;
use dataplane::counters::WorkerCounters;
use dataplane::ids::{PortId, WorkerId};
use dataplane::neighbour::NeighbourUpdate;
use dataplane::offload::{Answer, Ask, Revoke, RuleId};
use dataplane::owner::{DEFAULT_KEY, Owners};
use dataplane::packet::{BURST, Burst, PacketBuf};
use dataplane::snapshot::{Overrides, PortFacts, Snapshot};
use dataplane::time::Tick;
use dataplane::worker::{Env, Sizes, Worker, WorkerSetup};
use std::sync::Arc;

const HEADROOM: usize = 128;
const MACS: [MacAddr; 2] = [MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2])];
/// Where clients are, and where backends are.
pub(crate) const FRONT: PortId = PortId(0);
pub(crate) const BACK: PortId = PortId(1);

pub(crate) const SYN: u8 = 0x02;
pub(crate) const SYN_ACK: u8 = 0x12;
pub(crate) const ACK: u8 = 0x10;
pub(crate) const RST: u8 = 0x04;

/// Bytes of a frame without payload, padded as on the wire.
pub(crate) const V4: usize = 60;
pub(crate) const V6: usize = 74;

/// Backends of each service.
const BACKENDS: u8 = 8;

const PORTS: &str = r#"
[timeouts]
tcp_half_open_s = 1
tcp_reset_s = 1
[[port]]
name = "front"
device = "net_null0"
addresses = ["10.0.0.1/24", "2001:db8::1/64"]
gateway = "10.0.0.254"
gateway6 = "2001:db8::fe"
[[port]]
name = "back"
device = "net_null1"
addresses = ["10.0.1.1/24", "2001:db8:0:1::1/64", "10.1.255.254/16"]
"#;

/// What connections are made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Traffic {
    Tcp,
    Udp,
    Tcp6,
}

impl Traffic {
    fn protocol(self) -> u8 {
        if self == Traffic::Udp { 17 } else { 6 }
    }

    fn ip(self, v4: u32, subnet: u8) -> Ip {
        if self != Traffic::Tcp6 {
            return Ip::v4(v4);
        }
        let [a, b, c, d] = v4.to_be_bytes();
        Ip::v6([0x20, 1, 0x0d, 0xb8, 0, 0, 0, subnet, 0, 0, 0, 0, a, b, c, d])
    }

    fn vip(self) -> (Ip, u16) {
        (self.ip(0xc000_0250, 2), 80)
    }

    fn backend(self, number: u8) -> Ip {
        self.ip(0x0a00_0100 + u32::from(number), 1)
    }

    /// The client of a flow: of a few hundred addresses, with as many ports as it takes.
    fn client(self, flow: u32) -> (Ip, u16) {
        (self.ip(0x6440_0000 + flow / 32_768, 3), 1024 + (flow % 32_768) as u16)
    }

    fn service(self) -> String {
        let ip = |ip: Ip| ip.to_string();
        let (vip, protocol) = (ip(self.vip().0), if self == Traffic::Udp { "udp" } else { "tcp" });
        let mut text = format!(
            "[[service]]\nname = \"{self:?}\"\nvip = \"{vip}\"\nprotocol = \"{protocol}\"\nports = [80]\n"
        );
        for number in 11..11 + BACKENDS {
            let address = ip(self.backend(number));
            let address = if self == Traffic::Tcp6 { format!("[{address}]") } else { address };
            text += &format!("[[service.backend]]\naddress = \"{address}:8080\"\n");
        }
        text
    }
}

/// A configuration with a service for each kind of traffic.
pub(crate) fn config(connections: u32) -> Config {
    config_with(connections, "")
}

/// A configuration with further services, behind the same port.
pub(crate) fn config_with(connections: u32, more: &str) -> Config {
    let services = [Traffic::Tcp, Traffic::Udp, Traffic::Tcp6].map(Traffic::service).concat();
    let text = format!("[limits]\nconnections = {connections}\nneighbours = 65536\n{PORTS}{services}{more}");
    Config::parse("bench.toml", &text).unwrap_or_else(|faults| panic!("{faults}"))
}

/// A snapshot of it.
pub(crate) fn snapshot(config: &Config, previous: Option<&Snapshot>) -> Snapshot {
    let facts = MACS.map(|mac| PortFacts { mac, mtu: 1500 });
    Snapshot::build(config, &facts, &Overrides::default(), previous, &|_| 0).expect("builds")
}

/// A buffer that goes round: received, forwarded, received again.
pub(crate) struct Recycled {
    port: PortId,
    bytes: Box<[u8; 256]>,
    start: usize,
    len: usize,
}

impl Recycled {
    fn new() -> Recycled {
        Recycled { port: FRONT, bytes: Box::new([0; 256]), start: HEADROOM, len: 0 }
    }
}

impl PacketBuf for Recycled {
    fn port(&self) -> PortId {
        self.port
    }
    fn set_port(&mut self, port: PortId) {
        self.port = port;
    }
    fn is_contiguous(&self) -> bool {
        true
    }
    fn data(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.len]
    }
    fn data_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.len]
    }
    fn grow_front(&mut self, n: usize) -> bool {
        let fits = n <= self.start;
        if fits {
            (self.start, self.len) = (self.start - n, self.len + n);
        }
        fits
    }
    fn trim_front(&mut self, n: usize) -> bool {
        let fits = n <= self.len;
        if fits {
            (self.start, self.len) = (self.start + n, self.len - n);
        }
        fits
    }
    fn set_len(&mut self, len: usize) -> bool {
        let fits = self.start + len <= self.bytes.len();
        if fits {
            self.len = len;
        }
        fits
    }
}

/// Ports that take everything and give the buffers back.
pub(crate) struct Ports {
    pub(crate) free: Vec<Recycled>,
    asks: Vec<Ask>,
}

impl Ports {
    fn new() -> Ports {
        let free = (0..4 * BURST).map(|_| Recycled::new()).collect();
        Ports { free, asks: Vec::with_capacity(BURST) }
    }

    pub(crate) fn receive<const N: usize>(&mut self, port: PortId, frames: &[[u8; N]]) -> Burst<Recycled> {
        let mut burst = Burst::new();
        for frame in frames {
            // Those of dropped packets do not come back.
            let mut packet = self.free.pop().unwrap_or_else(Recycled::new);
            (packet.port, packet.start, packet.len) = (port, HEADROOM, N);
            packet.bytes[HEADROOM..HEADROOM + N].copy_from_slice(frame);
            burst.push(packet);
        }
        burst
    }
}

impl Env for Ports {
    type Buf = Recycled;
    fn alloc(&mut self, _: PortId) -> Option<Recycled> {
        self.free.pop().map(|packet| Recycled { start: HEADROOM, len: 0, ..packet })
    }
    fn send(&mut self, _: PortId, packet: Recycled) {
        self.free.push(packet);
    }
    fn hand_off(&mut self, _: WorkerId, packet: Recycled) -> Result<(), Recycled> {
        Err(packet)
    }
    fn announce(&mut self, _: &NeighbourUpdate) {}
    fn ask(&mut self, ask: &Ask) -> bool {
        self.asks.push(*ask);
        true
    }
    fn revoke(&mut self, _: &Revoke) -> bool {
        false
    }
}

/// A segment or datagram without payload; its checksum is not right, which only its receiver would see.
fn frame<const N: usize>(
    traffic: Traffic,
    mac: MacAddr,
    (src, sport): (Ip, u16),
    (dst, dport): (Ip, u16),
    flags: u8,
) -> [u8; N] {
    let mut frame = [0; N];
    frame[..6].copy_from_slice(&mac.0);
    frame[6..12].copy_from_slice(&[2, 9, 9, 9, 9, 9]);
    let transport = if traffic == Traffic::Tcp6 {
        frame[12..22].copy_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, 6, 64]);
        frame[22..38].copy_from_slice(&src.octets());
        frame[38..54].copy_from_slice(&dst.octets());
        54
    } else {
        frame[12..24].copy_from_slice(&[8, 0, 0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, traffic.protocol()]);
        frame[26..30].copy_from_slice(&src.low32().to_be_bytes());
        frame[30..34].copy_from_slice(&dst.low32().to_be_bytes());
        let words = frame[14..34].chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
        let sum: u32 = words.sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        frame[24..26].copy_from_slice(&(!((folded & 0xffff) + (folded >> 16)) as u16).to_be_bytes());
        34
    };
    frame[transport..transport + 2].copy_from_slice(&sport.to_be_bytes());
    frame[transport + 2..transport + 4].copy_from_slice(&dport.to_be_bytes());
    match traffic {
        Traffic::Udp => frame[transport + 4..transport + 8].copy_from_slice(&[0, 20, 0x12, 0x34]),
        _ => frame[transport + 12..transport + 14].copy_from_slice(&[0x50, flags]),
    }
    frame
}

/// A worker with established connections, and a packet of each.
pub(crate) struct Bed<const N: usize> {
    pub(crate) worker: Worker<Recycled>,
    pub(crate) ports: Ports,
    pub(crate) counters: Arc<WorkerCounters>,
    /// From clients,
    pub(crate) frames: Vec<[u8; N]>,
    /// and from backends, in the same order.
    pub(crate) replies: Vec<[u8; N]>,
    pub(crate) traffic: Traffic,
    /// How many connections may be half-open.
    pub(crate) half_open_max: u32,
    next: usize,
}

impl<const N: usize> Bed<N> {
    /// A worker with this many established connections in random order, and room for a tenth more.
    pub(crate) fn new(traffic: Traffic, flows: u32) -> Bed<N> {
        Bed::with_config(traffic, flows, &config((flows + flows / 10).max(100_000)))
    }

    pub(crate) fn with_config(traffic: Traffic, flows: u32, config: &Config) -> Bed<N> {
        let counters = Arc::new(WorkerCounters::new(4096, 16384));
        let setup = WorkerSetup {
            id: WorkerId(0),
            owners: Owners::new(&DEFAULT_KEY, 1, 128).expect("a worker"),
            seed: [1, 2, 3, 4],
            sizes: Sizes::of(&config.limits),
        };
        let snapshot = Arc::new(snapshot(config, None));
        let mut bed = Bed {
            worker: Worker::new(Tick(1), &setup, snapshot, Arc::clone(&counters)),
            ports: Ports::new(),
            counters,
            frames: Vec::with_capacity(flows as usize),
            replies: Vec::with_capacity(flows as usize),
            traffic,
            half_open_max: setup.sizes.connections.half_open_max,
            next: 0,
        };
        let gateway = if traffic == Traffic::Tcp6 { v6_gateway() } else { Ip::v4(0x0a00_00fe) };
        let backends = (11..11 + BACKENDS).map(|number| (BACK, traffic.backend(number)));
        for (port, ip) in backends.chain([(FRONT, gateway)]) {
            let mac = MacAddr([2, 0, 0, 0, 2, ip.octets()[15]]);
            let update = NeighbourUpdate { port, ip, mac, solicited: true, overrides: true };
            bed.worker.introduce(Tick(1), &update, &mut bed.ports);
        }
        bed.establish(flows);
        bed
    }

    fn establish(&mut self, flows: u32) {
        for flow in 0..flows {
            self.forward(FRONT, &self.client_frame(flow, SYN));
            let sent = self.ports.free.last().expect("just sent").data();
            let backend = self.traffic.backend(if N == V6 { sent[53] } else { sent[33] });
            let client = self.traffic.client(flow);
            let reply = |flags| frame(self.traffic, MACS[1], (backend, 8080), client, flags);
            let (answer, reply) = (reply(SYN_ACK), reply(ACK));
            self.forward(BACK, &answer);
            let data = self.client_frame(flow, ACK);
            self.forward(FRONT, &data);
            self.frames.push(data);
            self.replies.push(reply);
        }
        assert_eq!(self.counters.sent.get() + u64::from(flows) * 3, self.counters.received.get());
        assert_eq!(self.counters.entries.get(), u64::from(flows));
        let mut random = 0x9e37_79b9_7f4a_7c15u64;
        for index in (1..self.frames.len()).rev() {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let other = (random % (index as u64 + 1)) as usize;
            self.frames.swap(index, other);
            self.replies.swap(index, other);
        }
    }

    /// A packet from the client of a flow, which may be none of the established ones.
    pub(crate) fn client_frame(&self, flow: u32, flags: u8) -> [u8; N] {
        frame(self.traffic, MACS[0], self.traffic.client(flow), self.traffic.vip(), flags)
    }

    /// Hardware takes every connection.
    pub(crate) fn install(&mut self) {
        self.worker.set_price(1);
        let mut rule = 0;
        for index in 0..self.frames.len() {
            let frame = self.frames[index];
            self.forward(FRONT, &frame);
            for Ask { flow, token, .. } in std::mem::take(&mut self.ports.asks) {
                rule += 1;
                let installed = Answer::Installed { flow, token, rule: RuleId(rule) };
                self.worker.on_answer(Tick(1), &installed, &mut self.ports);
            }
        }
        assert_eq!(self.counters.offload_installed.get(), self.frames.len() as u64);
    }

    fn forward(&mut self, port: PortId, frame: &[u8; N]) {
        let mut burst = self.ports.receive(port, std::slice::from_ref(frame));
        let sent = self.ports.free.len() + burst.len();
        self.worker.on_burst(Tick(1), &mut burst, &mut self.ports);
        assert_eq!(self.ports.free.len(), sent, "dropped: {:?}", self.counters.dropped);
    }

    /// The next burst of one direction, not yet walked.
    pub(crate) fn receive(&mut self, port: PortId) -> Burst<Recycled> {
        let frames = if port == FRONT { &self.frames } else { &self.replies };
        let start = if self.next + BURST > frames.len() { 0 } else { self.next };
        self.next = start + BURST;
        self.ports.receive(port, &frames[start..start + BURST])
    }
}

fn v6_gateway() -> Ip {
    let mut octets = [0; 16];
    octets[..4].copy_from_slice(&[0x20, 1, 0x0d, 0xb8]);
    octets[15] = 0xfe;
    Ip::v6(octets)
}
