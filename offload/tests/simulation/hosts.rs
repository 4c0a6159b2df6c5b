//! Who is at the other ends of the wires, and what they say.

use crate::frames::{self, End, Link, Segment, Transport};
use crate::rng::Rng;
use crate::scenario::{self, MS, SECOND, Scenario, v4, v6};
use crate::tcp::{Leave, Plan, Tcp};
use dataplane::addr::{Ip, MacAddr};
use std::collections::BTreeMap;

/// The gateway that clients behind it are reached through.
const GATEWAY: MacAddr = MacAddr([2, 0, 0, 1, 0, 0xfe]);

/// How long a connection takes at most, if nothing is lost.
const LONGEST_NS: u64 = 8 * SECOND;

/// Who a station is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Who {
    Gateway,
    Client,
    Backend(usize),
}

/// Something with a MAC address on a link.
#[derive(Clone, Debug)]
pub(crate) struct Station {
    pub(crate) link: usize,
    pub(crate) who: Who,
    pub(crate) ips: Vec<Ip>,
    pub(crate) mac: MacAddr,
    /// Until when its MAC address before this one may still be believed in, and that address.
    pub(crate) before: Option<(MacAddr, u64)>,
}

/// All stations.
#[derive(Clone, Debug)]
pub(crate) struct Stations(pub(crate) Vec<Station>);

/// Clients' addresses: even numbers are on the link, odd ones behind the gateway.
pub(crate) fn client_ip(six: bool, number: usize) -> Ip {
    match (six, number % 2 == 0) {
        (false, true) => v4(10, 0, 0, 100 + number as u8),
        (false, false) => v4(198, 51, 100, number as u8),
        (true, true) => v6(1, 0x100 + number as u16),
        (true, false) => v6(0x77, number as u16),
    }
}

impl Stations {
    pub(crate) fn of(scenario: &Scenario) -> Stations {
        let back = scenario.ports - 1;
        let station = |link, who, ips, mac| Station { link, who, ips, mac, before: None };
        let mut all = vec![station(0, Who::Gateway, vec![v4(10, 0, 0, 254), v6(1, 0xfe)], GATEWAY)];
        for number in (0..scenario.clients).step_by(2) {
            let ips = vec![client_ip(false, number), client_ip(true, number)];
            all.push(station(0, Who::Client, ips, MacAddr([2, 0, 0, 1, 1, number as u8])));
        }
        for host in 0..scenario.hosts {
            let ips = [false, true].map(|six| scenario::host_ip(scenario.ports, six, host)).to_vec();
            all.push(station(back, Who::Backend(host), ips, MacAddr([2, 0, 0, 2, 0, host as u8])));
        }
        Stations(all)
    }

    /// Who listens to this MAC address on a link.
    pub(crate) fn by_mac(&self, link: usize, mac: MacAddr) -> Option<&Station> {
        self.0.iter().find(|station| station.link == link && station.mac == mac)
    }

    /// Who has this address.
    pub(crate) fn by_ip(&self, ip: Ip) -> Option<&Station> {
        self.0.iter().find(|station| station.ips.contains(&ip))
    }

    /// Who takes packets to a client.
    pub(crate) fn towards_client(&self, ip: Ip) -> &Station {
        self.by_ip(ip).unwrap_or(&self.0[0])
    }
}

/// What a client does.
#[derive(Clone, Debug)]
pub(crate) enum Client {
    Tcp(Tcp),
    Udp { left: u32, gap_ns: u64, next_at: u64, payload: u16 },
}

/// One connection, as both ends know it.
#[derive(Clone, Debug)]
pub(crate) struct Conn {
    pub(crate) service: usize,
    pub(crate) client: End,
    pub(crate) vip: End,
    pub(crate) side: Client,
    pub(crate) server: Plan,
    /// When the client's next wake-up is due.
    pub(crate) timer_at: Option<u64>,
    /// The backend that the first packet went to, by its number in the service.
    pub(crate) owner: Option<usize>,
    pub(crate) owned_since: u64,
    /// Something happened to it that may break it, and by right.
    pub(crate) excused: bool,
    /// Millrace has reset it, because its backend was gone, and nobody has taken it up since.
    pub(crate) reset: bool,
    /// Packets that left by a worker.
    pub(crate) software: u64,
    /// Packets that its client sent.
    pub(crate) sent: u64,
    /// Its client's end was used before.
    pub(crate) reused: bool,
}

impl Conn {
    /// When its client wants to be woken.
    pub(crate) fn wake_at(&self) -> Option<u64> {
        match &self.side {
            Client::Tcp(tcp) => tcp.wake_at(),
            Client::Udp { left, next_at, .. } => (*left > 0).then_some(*next_at),
        }
    }

    /// Whether the client knows it to be over.
    pub(crate) fn is_ended(&self) -> bool {
        matches!(&self.side, Client::Tcp(tcp) if tcp.over().is_some())
    }

    /// Whether the client has nothing more to do.
    pub(crate) fn is_over(&self) -> bool {
        match &self.side {
            Client::Tcp(tcp) => tcp.over().is_some() || !tcp.is_alive(),
            Client::Udp { left, .. } => *left == 0,
        }
    }
}

/// A server's end: which host, its own end, the client's.
pub(crate) type ServerKey = (usize, End, End);

/// A server's half of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) conn: u32,
    pub(crate) tcp: Tcp,
    pub(crate) timer_at: Option<u64>,
}

/// All ends.
#[derive(Default, Debug)]
pub(crate) struct Ends {
    pub(crate) conns: Vec<Conn>,
    /// The latest connection of each client's end and protocol.
    pub(crate) by_client: BTreeMap<(End, bool), u32>,
    pub(crate) servers: BTreeMap<ServerKey, Server>,
    pub(crate) next_port: u16,
}

/// How two ends of a TCP connection are going to behave.
fn tcp_plans(rng: &mut Rng, scenario: &Scenario) -> [Plan; 2] {
    let segment = rng.pick(&[64, 200, 1000]);
    let gap_ns = rng.heavy(scenario.gap_max_ns / 50, scenario.gap_max_ns);
    let window = rng.between(1, 8) as u32;
    let most = scenario.segments_max.min(LONGEST_NS / gap_ns).max(2);
    let up = rng.heavy(1, 1 + most / 10) as u32 * u32::from(segment);
    let down = rng.heavy(1 + most / 20, most) as u32 * u32::from(segment);
    let (first, second) = match rng.below(20) {
        0..=8 => (Leave::First, Leave::Second),
        9..=15 => (Leave::Second, Leave::First),
        16 => (Leave::First, Leave::First),
        17 => (Leave::Reset, Leave::Second),
        18 => (Leave::Second, Leave::Reset),
        _ => (Leave::Vanish, Leave::Vanish),
    };
    let plan = |sends, expects, leave| Plan { sends, expects, leave, segment, window, gap_ns };
    [plan(up, down, first), plan(down, up, second)]
}

impl Ends {
    /// A new connection of some client to some service; its first packets.
    pub(crate) fn open(
        &mut self,
        now: u64,
        rng: &mut Rng,
        scenario: &Scenario,
        out: &mut Vec<Segment>,
    ) -> u32 {
        let service = rng.index(scenario.services.len());
        let plan = &scenario.services[service];
        let vip = (plan.vip, plan.port);
        let client = self.client_end(rng, scenario, service);
        let [mine, server] = tcp_plans(rng, scenario);
        let (side, server) = if plan.tcp {
            (Client::Tcp(Tcp::connect(now, (client, vip), mine, rng.next() as u32, out)), server)
        } else {
            let dns = rng.percent(40);
            let gap_ns = mine.gap_ns.max(MS / 4);
            let most = scenario.segments_max.min(LONGEST_NS / gap_ns).max(3);
            let left = if dns { 1 } else { rng.heavy(2 + most / 20, most) as u32 };
            (Client::Udp { left, gap_ns, next_at: now, payload: mine.segment }, server)
        };
        let id = self.conns.len() as u32;
        self.conns.push(Conn {
            service,
            client,
            vip,
            side,
            server,
            timer_at: None,
            owner: None,
            owned_since: 0,
            excused: false,
            reset: false,
            software: 0,
            sent: 0,
            reused: self.by_client.insert((client, plan.tcp), id).is_some(),
        });
        id
    }

    /// A fresh port of a client, or one of a connection that is over, to the same service.
    fn client_end(&mut self, rng: &mut Rng, scenario: &Scenario, service: usize) -> End {
        let plan = &scenario.services[service];
        if !self.conns.is_empty() && rng.percent(scenario.port_reuse_percent) {
            let old = &self.conns[rng.index(self.conns.len())];
            let latest = self.by_client.get(&(old.client, plan.tcp)).map(|id| &self.conns[*id as usize]);
            if let Some(latest) = latest.filter(|conn| conn.service == service && conn.is_over()) {
                return latest.client;
            }
        }
        self.next_port = self.next_port.wrapping_add(1).max(1024);
        (client_ip(!plan.vip.is_v4(), rng.index(scenario.clients)), self.next_port)
    }

    /// Whether nobody has anything more to say.
    pub(crate) fn are_silent(&self) -> bool {
        let clients = self.conns.iter().all(|conn| conn.is_over() || conn.wake_at().is_none());
        clients && self.servers.values().all(|server| server.tcp.wake_at().is_none())
    }

    /// The latest connection that these two ends are of, whichever is the source.
    pub(crate) fn find(&self, client: End, tcp: bool) -> Option<u32> {
        self.by_client.get(&(client, tcp)).copied()
    }
}

/// A datagram of a client's, and the answer to one.
pub(crate) fn datagram(from: End, to: End, payload_len: u16) -> Segment {
    Segment { from, to, transport: Transport::Udp, payload_len, ttl: 64 }
}

/// A frame in which a client's side speaks to Millrace.
pub(crate) fn client_link(scenario: &Scenario, stations: &Stations, client: Ip) -> Link {
    let src = stations.towards_client(client).mac;
    Link { dst: scenario::port_mac(0), src, vlan: scenario.vlans[0] }
}

/// A frame in which a station speaks to Millrace.
pub(crate) fn station_link(scenario: &Scenario, station: &Station) -> Link {
    Link { dst: scenario::port_mac(station.link), src: station.mac, vlan: scenario.vlans[station.link] }
}

/// A frame with some bytes changed, or cut short.
pub(crate) fn mutate(rng: &mut Rng, frame: &mut Vec<u8>) {
    if rng.percent(20) {
        let len = rng.index(frame.len());
        frame.truncate(len);
        return;
    }
    for _ in 0..rng.between(1, 4) {
        let reach = if rng.percent(90) { frame.len().min(60) } else { frame.len() };
        let at = 12 + rng.index(reach.saturating_sub(12).max(1));
        if let Some(byte) = frame.get_mut(at) {
            *byte = rng.next() as u8;
        }
    }
}

/// What a station says when it is asked for its address.
pub(crate) fn answer_neighbour(link: &Link, what: &frames::What, link_mac: MacAddr) -> Option<Vec<u8>> {
    match *what {
        frames::What::ArpRequest { sender, target } => Some(frames::arp(link, 2, target, link_mac, sender)),
        frames::What::Solicitation { sender, target } => {
            Some(frames::advertisement(link, target, sender, true))
        }
        _ => None,
    }
}
