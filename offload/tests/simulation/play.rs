//! What happens when it is due: frames reach their links, ends speak, the operator acts.

use crate::frames::{self, Link, Segment, What};
use crate::hosts::{self, Client, Server, ServerKey, Station, Who};
use crate::packet::Way;
use crate::scenario::{MS, Mode, SECOND, ServicePlan, port_mac, v4};
use crate::tcp::{self, Tcp};
use crate::world::{Item, Phase, World};
use dataplane::addr::{Ip, MacAddr};

/// How long a MAC address that is given up may still be used: if its successor is heard, and nothing fails;
const MOVE_HEARD_NS: u64 = 2 * SECOND;
/// and else: what a worker believes without asking, and what taking a rule out may take at the worst, while
/// the device answers.
const MOVE_GRACE_NS: u64 = 10 * SECOND;

impl World {
    /// Something is due.
    pub(crate) fn happen(&mut self, item: Item) {
        match item {
            Item::Arrive(origin) => self.receive(origin),
            Item::Land(link, frame, conn) => self.land(link, &frame, conn),
            Item::Direct(segment) => self.client_gets(&segment),
            Item::Client(conn) => self.wake_client(conn),
            Item::Server(key) => self.wake_server(key),
            Item::Open if self.phase < Phase::Drain => {
                let mut out = Vec::new();
                let conn = self.ends.open(self.now, &mut self.rng, &self.scenario, &mut out);
                self.client_says(conn, &out);
                let mean = self.scenario.arrival_ns * if self.phase == Phase::Load { 1 } else { 3 };
                let next = self.rng.between(mean / 2, mean * 2);
                self.later(next, Item::Open);
            }
            Item::Flood if self.phase == Phase::Load => self.flood(),
            Item::Operate if self.phase == Phase::Load => self.operate(),
            Item::Govern if self.phase == Phase::Load => {
                let gap = self.scenario.policy_ns.unwrap_or(SECOND);
                let next = self.rng.between(gap / 2, gap * 2);
                self.later(next, Item::Govern);
                self.change_policy();
            }
            Item::Gratuitous(station) => self.speak_up(station),
            Item::DeviceFaults if self.phase == Phase::Load => {
                let faults = self.scenario.faults.device.clone();
                self.nic.iter_mut().for_each(|nic| nic.set_faults(&faults));
            }
            Item::BreakDown if self.phase == Phase::Load => {
                self.trace.note("the device breaks down", [0; 3]);
                self.happened.device += 1;
                let faults = self.scenario.faults.device.clone();
                let rng = &mut self.rng;
                self.nic.iter_mut().for_each(|nic| nic.break_down(rng, &faults));
            }
            Item::Open
            | Item::Flood
            | Item::Operate
            | Item::Govern
            | Item::DeviceFaults
            | Item::BreakDown => {}
        }
    }

    /// A frame reaches a link.
    fn land(&mut self, link: usize, frame: &[u8], conn: Option<u32>) {
        let Some(read) = frames::read(frame) else { return };
        if let What::ArpRequest { target, .. } | What::Solicitation { target, .. } = read.what {
            let asked = self.stations.by_ip(target).filter(|station| station.link == link);
            let to_it = |s: &&Station| read.link.dst.is_multicast() || read.link.dst == s.mac;
            let Some(station) = asked.filter(to_it) else { return };
            let to_us = Link { src: station.mac, dst: port_mac(link), vlan: read.link.vlan };
            if let Some(answer) = hosts::answer_neighbour(&to_us, &read.what, port_mac(link)) {
                self.arrive(None, Way::Back, false, link, answer);
            }
            return;
        }
        let Some(station) = self.stations.by_mac(link, read.link.dst) else { return };
        let What::Segment(segment) = read.what else { return };
        if !read.sound {
            return;
        }
        match station.who {
            Who::Gateway | Who::Client => self.client_gets(&segment),
            Who::Backend(host) => self.backend_gets(host, &segment, conn),
        }
    }

    fn client_gets(&mut self, segment: &Segment) {
        let tcp = segment.protocol() == frames::TCP;
        let Some(id) = self.ends.find(segment.to, tcp) else { return };
        let now = self.now;
        let conn = &mut self.ends.conns[id as usize];
        let mut out = Vec::new();
        match &mut conn.side {
            Client::Tcp(tcp) if conn.vip == segment.from => tcp.on_segment(now, segment, &mut out),
            _ => {}
        }
        self.client_says(id, &out);
    }

    fn wake_client(&mut self, id: u32) {
        let now = self.now;
        let conn = &mut self.ends.conns[id as usize];
        conn.timer_at = None;
        let latest =
            self.ends.by_client.get(&(conn.client, matches!(conn.side, Client::Tcp(_)))) == Some(&id);
        let mut out = Vec::new();
        match &mut conn.side {
            _ if !latest => return,
            Client::Tcp(tcp) => tcp.on_timer(now, &mut out),
            Client::Udp { left, gap_ns, next_at, payload } if *left > 0 && *next_at <= now => {
                *left -= 1;
                *next_at = now + *gap_ns;
                out.push(hosts::datagram(conn.client, conn.vip, *payload));
            }
            Client::Udp { .. } => {}
        }
        self.client_says(id, &out);
    }

    /// A client's segments go to Millrace; some twice, and strangely.
    fn client_says(&mut self, id: u32, segments: &[Segment]) {
        let client = self.ends.conns[id as usize].client.0;
        let link = hosts::client_link(&self.scenario, &self.stations, client);
        for segment in segments {
            if self.rng.percent(self.scenario.ttl_one_percent) {
                let dying = Segment { ttl: self.rng.below(2) as u8, ..*segment };
                self.arrive(Some(id), Way::There, false, 0, frames::segment(&link, &dying, id));
            }
            self.strange_copy(id, Way::There, &link, 0, segment);
            let whole = segment.protocol() == frames::TCP || !client.is_v4() || segment.payload_len < 64;
            if whole || !self.rng.percent(self.scenario.fragment_percent) {
                self.arrive(Some(id), Way::There, false, 0, frames::segment(&link, segment, id));
                continue;
            }
            let tag = self.rng.next() as u32;
            let mut pieces = frames::fragments(&link, segment, tag, 32);
            if self.rng.percent(20) {
                pieces.reverse();
            }
            for piece in pieces {
                self.arrive(Some(id), Way::There, false, 0, piece);
            }
        }
        self.arm_client(id);
    }

    fn strange_copy(&mut self, id: u32, way: Way, link: &Link, port: usize, segment: &Segment) {
        if self.rng.percent(self.scenario.malformed_percent) && self.phase == Phase::Load {
            let mut frame = frames::segment(link, segment, id);
            hosts::mutate(&mut self.rng, &mut frame);
            self.arrive(Some(id), way, true, port, frame);
        }
    }

    fn arm_client(&mut self, id: u32) {
        let conn = &mut self.ends.conns[id as usize];
        let Some(at) = conn.wake_at() else { return };
        if conn.timer_at.is_none_or(|armed| at < armed) {
            conn.timer_at = Some(at);
            self.later(at.saturating_sub(self.now), Item::Client(id));
        }
    }

    /// A backend host gets a segment.
    fn backend_gets(&mut self, host: usize, segment: &Segment, conn: Option<u32>) {
        let direct = self.services.iter().any(|service| {
            let here = service.backends.iter().any(|backend| backend.host == host);
            service.mode == Mode::Dsr && (service.vip, service.port) == segment.to && here
        });
        let own = self.stations.by_ip(segment.to.0).is_some_and(|station| station.who == Who::Backend(host));
        if !direct && !own {
            return;
        }
        if segment.protocol() == frames::UDP {
            let answer = hosts::datagram(segment.to, segment.from, segment.payload_len);
            return self.server_says(host, conn, direct, &[answer]);
        }
        let key = (host, segment.to, segment.from);
        let mut out = Vec::new();
        let opens = segment.flags() & (frames::SYN | frames::ACK) == frames::SYN;
        let over = self
            .ends
            .servers
            .get(&key)
            .is_none_or(|server| server.tcp.over().is_some() || !server.tcp.is_alive());
        if opens && over {
            let Some(plan) = conn.and_then(|id| self.ends.conns.get(id as usize)).map(|conn| conn.server)
            else {
                // A spoofed SYN; nobody will ever complete this handshake.
                return self.server_says(host, None, direct, &[syn_ack(segment)]);
            };
            let tcp = Tcp::accept(self.now, segment, plan, self.rng.next() as u32, &mut out);
            self.ends.servers.insert(key, Server { conn: conn.unwrap_or(0), tcp, timer_at: None });
        } else if let Some(server) = self.ends.servers.get_mut(&key) {
            server.tcp.on_segment(self.now, segment, &mut out);
        } else {
            out.extend(tcp::refusal(segment));
        }
        self.server_says(host, conn, direct, &out);
        self.arm_server(key);
    }

    fn wake_server(&mut self, key: ServerKey) {
        let Some(server) = self.ends.servers.get_mut(&key) else { return };
        server.timer_at = None;
        let mut out = Vec::new();
        server.tcp.on_timer(self.now, &mut out);
        let conn = server.conn;
        let direct = self.services.iter().any(|service| (service.vip, service.port) == key.1);
        self.server_says(key.0, Some(conn), direct, &out);
        self.arm_server(key);
    }

    fn arm_server(&mut self, key: ServerKey) {
        let now = self.now;
        let Some(server) = self.ends.servers.get_mut(&key) else { return };
        let Some(at) = server.tcp.wake_at() else { return };
        if server.timer_at.is_none_or(|armed| at < armed) {
            server.timer_at = Some(at);
            self.later(at.saturating_sub(now), Item::Server(key));
        }
    }

    /// A backend answers: through Millrace, or straight to the client.
    fn server_says(&mut self, host: usize, conn: Option<u32>, direct: bool, segments: &[Segment]) {
        if direct {
            let latency: u64 = self.scenario.latency_ns.iter().sum();
            for segment in segments {
                self.later(latency, Item::Direct(*segment));
            }
            return;
        }
        let stations = &self.stations.0;
        let Some(station) = stations.iter().find(|station| station.who == Who::Backend(host)) else { return };
        let (link, port) = (hosts::station_link(&self.scenario, station), station.link);
        for segment in segments {
            if let Some(id) = conn {
                self.strange_copy(id, Way::Back, &link, port, segment);
            }
            let frame = frames::segment(&link, segment, conn.unwrap_or(0));
            self.arrive(conn, Way::Back, false, port, frame);
        }
    }

    /// A SYN from nowhere.
    fn flood(&mut self) {
        let tcp: Vec<usize> = (0..self.services.len())
            .filter(|n| self.services[*n].tcp && self.services[*n].vip.is_v4())
            .collect();
        if let Some(service) = tcp.first().map(|_| self.rng.pick(&tcp)) {
            let plan = &self.services[service];
            let from = (v4(203, 0, self.rng.next() as u8, self.rng.next() as u8), self.rng.next() as u16 | 1);
            let transport =
                frames::Transport::Tcp { seq: self.rng.next() as u32, ack: 0, flags: frames::SYN };
            let segment = Segment { from, to: (plan.vip, plan.port), transport, payload_len: 0, ttl: 50 };
            let link = hosts::client_link(&self.scenario, &self.stations, from.0);
            self.arrive(None, Way::There, false, 0, frames::segment(&link, &segment, 0));
        }
        let gap = self.scenario.flood_ns.unwrap_or(SECOND);
        self.later(gap, Item::Flood);
    }

    /// The operator, or the network's, does something.
    fn operate(&mut self) {
        let gap = self.scenario.operator_ns.unwrap_or(SECOND);
        let next = self.rng.between(gap / 2, gap * 2);
        self.later(next, Item::Operate);
        if self.rng.percent(25) {
            return self.move_station();
        }
        let mut services = self.services.clone();
        let number = self.rng.index(services.len());
        let service = &mut services[number];
        let place = self.rng.index(service.backends.len());
        let others = service.backends.iter().filter(|backend| backend.configured).count();
        let backend = &mut service.backends[place];
        let what = match self.rng.below(4) {
            0 if backend.configured && others > 1 => {
                backend.configured = false;
                "backend removed: service, place"
            }
            1 => {
                backend.drained = !backend.drained;
                "backend drained or not: service, place"
            }
            2 => {
                backend.weight = self.rng.between(1, 5) as u32;
                "weight changed: service, place"
            }
            _ => {
                backend.back_at = if backend.configured { backend.back_at } else { Some(self.now) };
                backend.configured = true;
                "backend added: service, place"
            }
        };
        for ServicePlan { resets, backends, .. } in &mut services {
            for backend in backends {
                let removed = !backend.configured;
                let in_software = !self.scenario.draining_in_hardware || (removed && *resets);
                let barred = (removed || backend.drained) && in_software;
                backend.barred_at = barred.then(|| backend.barred_at.unwrap_or(self.now));
            }
        }
        if self.reconfigure(services) {
            self.trace.note(what, [number as u64, place as u64, 0]);
        }
    }

    /// Another machine takes over a station's addresses.
    fn move_station(&mut self) {
        let number = self.rng.index(self.stations.0.len());
        let (now, octet) = (self.now, self.rng.next() as u8);
        let station = &mut self.stations.0[number];
        if station.before.is_some_and(|(_, until)| now < until + SECOND) {
            return;
        }
        let MacAddr([a, b, c, d, _, f]) = station.mac;
        let mac = MacAddr([a, b, c, d ^ 0x40, octet, f]);
        let grace_ns = if self.scenario.faults.are_none() { MOVE_HEARD_NS } else { MOVE_GRACE_NS };
        station.before = Some((station.mac, now + grace_ns));
        station.mac = mac;
        self.trace.note("station moved", [number as u64, 0, 0]);
        for times in 0..3 {
            self.later(times * 50 * MS, Item::Gratuitous(number));
        }
    }

    /// A station tells everybody where it is.
    fn speak_up(&mut self, number: usize) {
        let Station { link, mac, ref ips, .. } = self.stations.0[number];
        let vlan = self.scenario.vlans[link];
        for ip in ips.clone() {
            let frame = if ip.is_v4() {
                let to = Link { dst: MacAddr::BROADCAST, src: mac, vlan };
                frames::arp(&to, 1, ip, MacAddr::default(), ip)
            } else {
                let to = Link { dst: MacAddr([0x33, 0x33, 0, 0, 0, 1]), src: mac, vlan };
                let all_nodes = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
                frames::advertisement(&to, ip, Ip::v6(all_nodes), false)
            };
            self.arrive(None, Way::Back, false, link, frame);
        }
    }
}

fn syn_ack(syn: &Segment) -> Segment {
    let ack = match syn.transport {
        frames::Transport::Tcp { seq, .. } => seq.wrapping_add(1),
        frames::Transport::Udp => 0,
    };
    let transport = frames::Transport::Tcp { seq: 1, ack, flags: frames::SYN | frames::ACK };
    Segment { from: syn.to, to: syn.from, transport, payload_len: 0, ttl: 64 }
}
