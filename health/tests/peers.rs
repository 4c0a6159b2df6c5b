//! Probes against peers: a server on a TCP/IP stack of its own that does as it is told, and DNS servers that
//! know the protocol more or less.

use dataplane::addr::Ip;
use dataplane::config::{Health, Http, Probe};
use dataplane::ids::BackendId;
use dataplane::snapshot::OnRemove;
use health::{Cause, Fate, Job, Outcome, Prober, TargetId, Wire};
use proptest::prelude::*;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpCidr, Ipv4Packet, UdpPacket};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

const PORT: u16 = 8080;
const TIMEOUT_MS: u64 = 200;
const GOOD: Outcome = Outcome::Good;

const fn bad(cause: Cause) -> Outcome {
    Outcome::Bad(cause)
}

fn ends(v6: bool) -> (IpAddr, IpAddr) {
    let (local, remote) = if v6 { ("fd00::1", "fd00::2") } else { ("10.0.1.1", "10.0.1.11") };
    (local.parse().expect("an address"), remote.parse().expect("an address"))
}

fn job(probe: Probe, v6: bool) -> Job {
    let health = Health {
        probe,
        port: None,
        interval_ms: 250,
        timeout_ms: TIMEOUT_MS as u32,
        rise: 2,
        fall: 3,
        initially_up: true,
        passive: false,
        panic_percent: 0,
        slow_start_s: 0,
        on_down: OnRemove::Drain,
    };
    let (local, remote) = ends(v6);
    let (local, remote) = (Ip::from(local), Ip::from(remote));
    Job { target: TargetId(5), backend: BackendId(3), local, remote, port: PORT, health: Arc::new(health) }
}

fn http() -> Probe {
    Probe::Http(Http { path: "/healthz".into(), host: None, expect: 200..=299 })
}

/// The checker's side of the link.
#[derive(Default)]
struct Line {
    sent: VecDeque<Vec<u8>>,
    number: u64,
}

impl Wire for Line {
    fn expect(&mut self, _: u16, _: Option<Ip>) {}

    fn send(&mut self, _: BackendId, _: u16, packet: &[u8]) -> Option<u64> {
        self.sent.push_back(packet.to_vec());
        self.number += 1;
        Some(self.number)
    }

    fn losses(&mut self, _: BackendId, _: bool) -> u64 {
        0
    }

    fn fate(&self, _: BackendId, _: u16, _: u64) -> Fate {
        Fate::Left
    }
}

/// The server's.
#[derive(Default)]
struct Link {
    inward: VecDeque<Vec<u8>>,
    outward: VecDeque<Vec<u8>>,
}

struct Inward(Vec<u8>);

struct Outward<'a>(&'a mut VecDeque<Vec<u8>>);

impl RxToken for Inward {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Outward<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut packet = vec![0; len];
        let result = f(&mut packet);
        self.0.push_back(packet);
        result
    }
}

impl Device for Link {
    type RxToken<'a> = Inward;
    type TxToken<'a> = Outward<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Inward, Outward<'_>)> {
        let packet = self.inward.pop_front()?;
        Some((Inward(packet), Outward(&mut self.outward)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Outward<'_>> {
        Some(Outward(&mut self.outward))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = 1500;
        capabilities
    }
}

/// What a server does, so many milliseconds after it was connected to.
#[derive(Clone, Debug)]
enum Act {
    Say(Vec<u8>),
    Close,
    Reset,
}

fn say(after_ms: u64, what: &str) -> (u64, Act) {
    (after_ms, Act::Say(what.as_bytes().to_vec()))
}

/// One byte every so many milliseconds.
fn trickle(every_ms: u64, what: &str) -> Vec<(u64, Act)> {
    what.bytes().enumerate().map(|(n, byte)| (n as u64 * every_ms, Act::Say(vec![byte]))).collect()
}

struct Server {
    interface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    link: Link,
    script: VecDeque<(u64, Act)>,
    connected_ms: Option<u64>,
    heard: Vec<u8>,
    unsaid: VecDeque<u8>,
}

impl Server {
    fn new(v6: bool, listens: bool, script: Vec<(u64, Act)>) -> Server {
        let mut link = Link::default();
        let mut interface = Interface::new(Config::new(HardwareAddress::Ip), &mut link, Instant::ZERO);
        let (client, own) = ends(v6);
        let length = if v6 { 64 } else { 24 };
        interface.update_ip_addrs(|addresses| addresses.push(IpCidr::new(own.into(), length)).expect("room"));
        match client {
            IpAddr::V4(via) => _ = interface.routes_mut().add_default_ipv4_route(via),
            IpAddr::V6(via) => _ = interface.routes_mut().add_default_ipv6_route(via),
        }
        let buffer = || SocketBuffer::new(vec![0; 4096]);
        let mut socket = Socket::new(buffer(), buffer());
        // Or it would wait for us between two bytes.
        socket.set_nagle_enabled(false);
        if listens {
            socket.listen(PORT).expect("a free port");
        }
        let mut sockets = SocketSet::new(Vec::new());
        let handle = sockets.add(socket);
        let (script, heard, unsaid) = (script.into(), Vec::new(), VecDeque::new());
        Server { interface, sockets, handle, link, script, connected_ms: None, heard, unsaid }
    }

    fn step(&mut self, now_ms: u64) {
        let now = Instant::from_millis(now_ms as i64);
        self.interface.poll(now, &mut self.link, &mut self.sockets);
        let socket = self.sockets.get_mut::<Socket<'_>>(self.handle);
        if socket.state() == State::Established {
            self.connected_ms.get_or_insert(now_ms);
        }
        let mut bytes = [0; 1024];
        while let Ok(count @ 1..) = socket.recv_slice(&mut bytes) {
            self.heard.extend(&bytes[..count]);
        }
        while let Some((after_ms, _)) = self.script.front() {
            if self.connected_ms.is_none_or(|at| now_ms < at + after_ms) {
                break;
            }
            match self.script.pop_front() {
                Some((_, Act::Say(what))) => {
                    let said = if self.unsaid.is_empty() { socket.send_slice(&what) } else { Ok(0) };
                    self.unsaid.extend(&what[said.unwrap_or(0)..]);
                }
                Some((_, Act::Close)) => socket.close(),
                Some((_, Act::Reset)) => socket.abort(),
                None => {}
            }
        }
        let said = socket.send_slice(self.unsaid.make_contiguous()).unwrap_or(0);
        self.unsaid.drain(..said);
        self.interface.poll(now, &mut self.link, &mut self.sockets);
    }

    fn state(&mut self) -> State {
        self.sockets.get_mut::<Socket<'_>>(self.handle).state()
    }
}

/// How a probe of a server ends, and when; `pass` says what becomes of each packet on the way to the checker.
fn outcome(job: Job, server: &mut Server, mut pass: impl FnMut(Vec<u8>) -> Vec<Vec<u8>>) -> (Outcome, u64) {
    let (mut prober, mut line) = (Prober::new(1, 10), Line::default());
    let mut ended = prober.begin(0, job, &mut line);
    for now_ms in 0..=2 * TIMEOUT_MS {
        server.link.inward.extend(line.sent.drain(..));
        server.step(now_ms);
        if let Some((target, outcome)) = ended {
            assert_eq!((target, prober.under_way()), (TargetId(5), 0));
            return (outcome, now_ms);
        }
        for packet in server.link.outward.drain(..).flat_map(&mut pass) {
            ended = ended.or(prober.on_packet(now_ms, &packet, &mut line));
        }
        ended = ended.or(prober.poll(now_ms, &mut line));
    }
    panic!("it never ends");
}

fn all(packet: Vec<u8>) -> Vec<Vec<u8>> {
    vec![packet]
}

#[test]
fn a_server_is_taken_for_what_it_does() {
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let (closed, wrong, late) = (bad(Cause::Closed), bad(Cause::WrongAnswer), bad(Cause::Timeout));
    let much = format!("{ok}{}", "x".repeat(200_000));
    let cases = [
        ("says nothing", Probe::Tcp, vec![], GOOD),
        ("closes at once", Probe::Tcp, vec![(0, Act::Close)], GOOD),
        ("serves", http(), vec![say(0, ok)], GOOD),
        ("serves and closes", http(), vec![say(0, ok), (0, Act::Close)], GOOD),
        ("an old one", http(), vec![say(0, "HTTP/1.0 204 No Content\r\n\r\n")], GOOD),
        ("says more than anybody reads", http(), vec![say(0, &much)], GOOD),
        ("is slow", http(), vec![say(TIMEOUT_MS - 20, ok)], GOOD),
        ("is too slow", http(), vec![say(TIMEOUT_MS + 20, ok)], late),
        ("accepts, and that is all", http(), vec![], late),
        ("says it byte by byte", http(), trickle(5, ok), GOOD),
        ("takes too long for that", http(), trickle(50, ok), late),
        ("says half of it", http(), vec![say(0, "HTTP/1.1 2")], late),
        ("says half of it and closes", http(), vec![say(0, "HTTP/1.1 2"), (10, Act::Close)], closed),
        ("closes", http(), vec![(10, Act::Close)], closed),
        ("resets", http(), vec![(10, Act::Reset)], closed),
        ("says half of it and resets", http(), vec![say(0, "HTTP/1.1"), (20, Act::Reset)], closed),
        ("fails", http(), vec![say(0, "HTTP/1.1 503 Service Unavailable\r\n\r\n")], wrong),
        ("sends elsewhere", http(), vec![say(0, "HTTP/1.1 301 Moved\r\n\r\n")], wrong),
        ("speaks something else", http(), vec![say(0, "SSH-2.0-OpenSSH_9.2\r\n")], wrong),
        ("speaks nonsense", http(), vec![(0, Act::Say(vec![0xff; 600]))], wrong),
        ("has no code", http(), vec![say(0, "HTTP/1.1 OK!!!!!\r\n")], wrong),
        ("has a code too long", http(), vec![say(0, "HTTP/1.1  200\r\n")], wrong),
    ];
    for (what, probe, script, expected) in cases {
        for v6 in [false, true] {
            let mut server = Server::new(v6, true, script.clone());
            let (outcome, at_ms) = outcome(job(probe.clone(), v6), &mut server, all);
            assert_eq!(outcome, expected, "a server that {what}");
            assert!(outcome != late || at_ms >= TIMEOUT_MS, "{what}: ended at {at_ms}");
            if outcome == GOOD {
                assert!(matches!(server.state(), State::Closed), "{what}: it is left {}", server.state());
            }
        }
    }
}

#[test]
fn a_closed_port_refuses_and_a_dead_host_is_silent() {
    for probe in [Probe::Tcp, http()] {
        for v6 in [false, true] {
            let mut server = Server::new(v6, false, Vec::new());
            let (refused, at_ms) = outcome(job(probe.clone(), v6), &mut server, all);
            assert_eq!(refused, bad(Cause::Refused));
            assert!(at_ms < 10, "at once, not at {at_ms}");
            let mut server = Server::new(v6, true, Vec::new());
            let (silent, at_ms) = outcome(job(probe.clone(), v6), &mut server, |_| Vec::new());
            assert_eq!((silent, at_ms), (bad(Cause::Timeout), TIMEOUT_MS + 1));
        }
    }
}

#[test]
fn the_request_is_as_any_server_wants_it() {
    let ok = vec![say(20, "HTTP/1.1 200 OK\r\n\r\n")];
    for (v6, host) in [(false, "10.0.1.11:8080"), (true, "[fd00::2]:8080")] {
        let mut server = Server::new(v6, true, ok.clone());
        assert_eq!(outcome(job(http(), v6), &mut server, all).0, GOOD);
        let heard = String::from_utf8(server.heard).expect("text");
        let mut lines = heard.split("\r\n");
        assert_eq!(lines.next(), Some("GET /healthz HTTP/1.1"));
        assert!(lines.any(|line| line == format!("Host: {host}")), "{heard}");
        assert!(heard.ends_with("\r\n\r\n"));
    }
}

#[test]
fn what_comes_twice_or_in_disorder_or_broken_changes_nothing() {
    let script = || trickle(3, "HTTP/1.1 200 OK\r\n\r\n");
    let twice = |packet: Vec<u8>| vec![packet.clone(), packet];
    assert_eq!(outcome(job(http(), false), &mut Server::new(false, true, script()), twice).0, GOOD);
    let mut kept: Option<Vec<u8>> = None;
    let mut count = 0;
    let swapped = |packet: Vec<u8>| {
        count += 1;
        // Behind the handshake, every other one comes after the next.
        match kept.take() {
            Some(before) => vec![packet, before],
            None if count > 2 => {
                kept = Some(packet);
                Vec::new()
            }
            None => vec![packet],
        }
    };
    assert_eq!(outcome(job(http(), false), &mut Server::new(false, true, script()), swapped).0, GOOD);
    let broken = |packet: Vec<u8>| {
        let mut copy = packet.clone();
        let last = copy.len() - 1;
        copy[last] ^= 0x40;
        vec![copy, packet[..packet.len() / 2].to_vec(), packet]
    };
    assert_eq!(outcome(job(http(), false), &mut Server::new(false, true, script()), broken).0, GOOD);
}

/// A DNS server's answer to a question, from its address and port to the asker's.
fn dns(question: &[u8], change: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
    let asked = Ipv4Packet::new_checked(question).expect("IPv4");
    let datagram = UdpPacket::new_checked(asked.payload()).expect("UDP");
    let mut message = datagram.payload().to_vec();
    // An answer, recursion available.
    (message[2], message[3]) = (0x81, 0x80);
    change(&mut message);
    let mut answer = question[..28].to_vec();
    answer[12..20].rotate_left(4);
    answer[20..24].rotate_left(2);
    answer[2..4].copy_from_slice(&(28 + message.len() as u16).to_be_bytes());
    answer[24..26].copy_from_slice(&(8 + message.len() as u16).to_be_bytes());
    // Without a checksum (RFC 768).
    answer[26..28].fill(0);
    answer.extend(message);
    let mut header = Ipv4Packet::new_unchecked(&mut answer[..]);
    header.fill_checksum();
    answer
}

#[test]
fn a_dns_server_is_taken_for_what_it_says() {
    type Change = fn(&mut Vec<u8>);
    let (wrong, ignored) = (Some(bad(Cause::WrongAnswer)), None);
    let cases: [(&str, Change, Option<Outcome>); 12] = [
        ("knows", |_| {}, Some(GOOD)),
        ("knows that there is none", |m| m[3] |= 3, Some(GOOD)),
        ("knows more than fits", |m| m[2] |= 2, Some(GOOD)),
        ("finds the question malformed", |m| m[3] |= 1, wrong),
        ("fails", |m| m[3] |= 2, wrong),
        ("does not do that", |m| m[3] |= 4, wrong),
        ("refuses", |m| m[3] |= 5, wrong),
        ("answers another's question", |m| m[0] ^= 1, ignored),
        ("or that of another", |m| m[1] ^= 1, ignored),
        ("asks back", |m| m[2] = 1, ignored),
        ("says a part of a header", |m| m.truncate(11), ignored),
        ("says nothing", |m| m.clear(), ignored),
    ];
    for (what, change, expected) in cases {
        let (mut prober, mut line) = (Prober::new(1, 10), Line::default());
        assert_eq!(prober.begin(0, job(Probe::Dns("www.example.org".into()), false), &mut line), None);
        let question = line.sent.pop_front().expect("a question");
        let answer = dns(&question, change);
        let said = prober.on_packet(1, &answer, &mut line).map(|(_, outcome)| outcome);
        assert_eq!(said, expected, "a server that {what}");
        if said.is_none() {
            let late = prober.poll(TIMEOUT_MS, &mut line).map(|(_, outcome)| outcome);
            assert_eq!(late, Some(bad(Cause::Timeout)));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is mixed into a conversation, it panics at nothing, and a server that serves is up.
    #[test]
    fn nonsense_in_between_does_no_harm(
        junk in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..80), 0usize..60, any::<u8>()), 1..20),
        v6: bool,
    ) {
        let mut junk = junk.into_iter().cycle();
        let mix = |packet: Vec<u8>| {
            let (bytes, at, change) = junk.next().expect("without end");
            let mut altered = packet.clone();
            if let Some(byte) = altered.get_mut(at) {
                *byte ^= change;
            }
            // One that is changed in nothing that is checked may do what it says: it is the packet itself.
            let told_apart = altered.len() > 40 && at >= 20;
            if told_apart { vec![bytes, altered, packet] } else { vec![bytes, packet] }
        };
        let script = vec![say(1, "HTTP/1.1 200 OK\r\n\r\n")];
        let mut server = Server::new(v6, true, script);
        prop_assert_eq!(outcome(job(http(), v6), &mut server, mix).0, GOOD);
    }
}
