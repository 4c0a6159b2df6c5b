//! Probes against servers that are another smoltcp, or written out.

use super::*;
use dataplane::config::Http;
use dataplane::snapshot::OnRemove;

/// Collects what is sent.
#[derive(Default)]
struct Line {
    sent: Vec<Vec<u8>>,
    lost: u64,
    /// Who may answer, by our port.
    expected: HashMap<u16, Ip>,
    /// As if the ring were full.
    full: bool,
    fate: Option<Fate>,
}

impl Wire for Line {
    fn expect(&mut self, port: u16, to: Option<Ip>) {
        match to {
            Some(to) => _ = self.expected.insert(port, to),
            None => _ = self.expected.remove(&port),
        }
    }

    fn send(&mut self, _: BackendId, port: u16, packet: &[u8]) -> Option<u64> {
        assert!(self.expected.contains_key(&port), "an answer would be lost");
        if self.full {
            return None;
        }
        self.sent.push(packet.to_vec());
        Some(self.sent.len() as u64)
    }

    fn losses(&mut self, _: BackendId, _: bool) -> u64 {
        self.lost
    }

    fn fate(&self, _: BackendId, port: u16, number: u64) -> Fate {
        assert!(self.expected.contains_key(&port) && number <= self.sent.len() as u64);
        self.fate.unwrap_or(Fate::Left)
    }
}

fn job(probe: Probe, v6: bool) -> Job {
    let (local, remote) = if v6 { ("fd00::1", "fd00::2") } else { ("10.0.1.1", "10.0.1.11") };
    let ip = |text: &str| Ip::from(text.parse::<std::net::IpAddr>().expect("an address"));
    let health = Health {
        probe,
        port: None,
        interval_ms: 250,
        timeout_ms: 200,
        rise: 2,
        fall: 3,
        initially_up: true,
        passive: false,
        panic_percent: 0,
        slow_start_s: 0,
        on_down: OnRemove::Drain,
    };
    Job {
        target: TargetId(5),
        backend: BackendId(3),
        local: ip(local),
        remote: ip(remote),
        port: 8080,
        health: Arc::new(health),
    }
}

fn http() -> Probe {
    Probe::Http(Http { path: "/healthz".into(), host: None, expect: 200..=399 })
}

/// The probes there are, with the time-out's verdict on silence.
fn every_probe() -> Vec<(Probe, Outcome)> {
    let timeout = Outcome::Bad(Cause::Timeout);
    vec![
        (Probe::Tcp, timeout),
        (http(), timeout),
        (Probe::Udp(Vec::new()), Outcome::Good),
        (Probe::Udp(b"ping".to_vec()), timeout),
        (Probe::Dns("example.org".into()), timeout),
        (Probe::Icmp, timeout),
    ]
}

#[test]
fn silence_is_a_verdict_only_if_our_own_side_is_well() {
    for (probe, verdict) in every_probe() {
        for v6 in [false, true] {
            let after = |change: fn(&mut Line)| {
                let (mut prober, mut line) = (Prober::new(1, 10), Line::default());
                assert_eq!(prober.begin(1000, job(probe.clone(), v6), &mut line), None);
                assert_eq!(line.sent.len(), 1);
                change(&mut line);
                assert_eq!(prober.poll(1199, &mut line), None);
                prober.poll(1200, &mut line).map(|(_, outcome)| outcome)
            };
            assert_eq!(after(|_| {}), Some(verdict), "{probe:?}");
            assert_eq!(after(|line| line.lost += 1), Some(Outcome::Unclear));
            assert_eq!(after(|line| line.fate = Some(Fate::Stuck)), Some(Outcome::Void));
            assert_eq!(after(|line| line.fate = Some(Fate::Waits)), Some(Outcome::Unfound));
            let lost_too = |line: &mut Line| (line.fate, line.lost) = (Some(Fate::Waits), 1);
            assert_eq!(after(lost_too), Some(Outcome::Unclear));
            let (mut prober, mut line) = (Prober::new(1, 10), Line { full: true, ..Line::default() });
            let ended = prober.begin(1000, job(probe.clone(), v6), &mut line);
            assert_eq!(ended, Some((TargetId(5), Outcome::Void)));
            assert_eq!((prober.under_way(), line.expected.len()), (0, 0));
        }
    }
}

/// The same packet on its way back: addresses and ports change places. Checksums stay right.
fn returned(packet: &[u8]) -> Vec<u8> {
    let mut back = packet.to_vec();
    let (addresses, half, ports) = if packet[0] >> 4 == 4 { (12, 4, 20) } else { (8, 16, 40) };
    let swap = |bytes: &mut [u8], at: usize, half: usize| bytes[at..at + 2 * half].rotate_left(half);
    swap(&mut back, addresses, half);
    swap(&mut back, ports, 2);
    back
}

#[test]
fn datagrams_are_answered_by_datagrams_from_where_they_went() {
    for v6 in [false, true] {
        let (mut prober, mut line) = (Prober::new(1, 10), Line::default());
        prober.begin(0, job(Probe::Udp(b"ping".to_vec()), v6), &mut line);
        let back = returned(&line.sent[0]);
        let mut forged = back.clone();
        forged[if v6 { 23 } else { 15 }] ^= 1;
        assert_eq!(prober.on_packet(1, &forged, &mut line), None);
        for length in 0..back.len() {
            assert_eq!(prober.on_packet(1, &back[..length], &mut line), None, "cut at {length}");
        }
        let ended = prober.on_packet(1, &back, &mut line);
        assert_eq!(ended, Some((TargetId(5), Outcome::Good)));
        assert_eq!(prober.on_packet(1, &back, &mut line), None, "it is over");
        assert!(line.expected.is_empty());
    }
}

/// ICMP "port unreachable" about this packet, from its destination.
fn refusal(packet: &[u8]) -> Vec<u8> {
    assert_eq!(packet[0], 0x45);
    let quote = packet;
    let mut message = vec![3, 3, 0, 0, 0, 0, 0, 0];
    message.extend(quote);
    let check = !sum(&message);
    message[2..4].copy_from_slice(&check.to_be_bytes());
    let mut bytes = vec![0x45, 0, 0, 20 + message.len() as u8, 0, 0, 0, 0, 64, 1, 0, 0];
    bytes.extend(&packet[16..20]);
    bytes.extend(&packet[12..16]);
    let header = !sum(&bytes);
    bytes[10..12].copy_from_slice(&header.to_be_bytes());
    bytes.extend(message);
    bytes
}

#[test]
fn icmp_that_quotes_what_was_not_sent_is_a_guess() {
    for probe in [Probe::Udp(Vec::new()), Probe::Dns("a.b".into()), Probe::Tcp, http(), Probe::Icmp] {
        let (mut prober, mut line) = (Prober::new(1, 10), Line::default());
        prober.begin(0, job(probe.clone(), false), &mut line);
        let sent = line.sent[0].clone();
        let is_tcp = sent[9] == 6;
        // Source and destination, protocol, ports; of TCP, the sequence number too.
        let fixed = [9, 12, 16, 20, 22].into_iter().chain(if is_tcp { 24..28 } else { 0..0 });
        for at in fixed {
            let mut guess = sent.clone();
            guess[at] ^= if at == 9 { 6 ^ 17 } else { 1 };
            assert_eq!(prober.on_packet(1, &refusal(&guess), &mut line), None, "{probe:?}, byte {at}");
        }
        if probe != Probe::Icmp {
            assert!(prober.on_packet(1, &refusal(&sent), &mut line).is_some(), "{probe:?}");
        }
    }
}

/// A segment from the other end of this one's connection, with an acknowledgement of all of it.
fn segment(of: &[u8], flags: u8, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let mut back = returned(&of[..40]);
    let asked = u32::from_be_bytes([of[24], of[25], of[26], of[27]]);
    back[2..4].copy_from_slice(&(40 + payload.len() as u16).to_be_bytes());
    back[24..28].copy_from_slice(&sequence.to_be_bytes());
    back[28..32].copy_from_slice(&asked.wrapping_add(1).to_be_bytes());
    (back[32], back[33]) = (5 << 4, flags);
    back.extend(payload);
    back[10..12].fill(0);
    let header = !sum(&back[..20]);
    back[10..12].copy_from_slice(&header.to_be_bytes());
    back[36..38].fill(0);
    let length = (back.len() - 20) as u8;
    let pseudo: Vec<u8> = [&back[12..20], &[0, 6, 0, length], &back[20..]].concat();
    let check = !sum(&pseudo);
    back[36..38].copy_from_slice(&check.to_be_bytes());
    back
}

#[test]
fn a_connection_that_stands_is_not_ended_by_icmp_nor_fed_by_a_flood() {
    let (mut prober, mut line) = (Prober::new(1, 10), Line::default());
    prober.begin(0, job(http(), false), &mut line);
    let syn = line.sent[0].clone();
    assert_eq!(prober.on_packet(1, &segment(&syn, 0x12, 5000, &[]), &mut line), None);
    assert!(line.sent.len() >= 2, "the request");
    assert_eq!(prober.on_packet(2, &refusal(&syn), &mut line), None);
    for _ in 0..10_000 {
        assert_eq!(prober.on_packet(3, &segment(&syn, 0x10, 9000, b"nonsense"), &mut line), None);
    }
    assert!(prober.alarms.len() < 10, "{} alarms", prober.alarms.len());
    let (_, outcome) =
        prober.on_packet(4, &segment(&syn, 0x18, 5001, b"HTTP/1.1 200"), &mut line).expect("an end");
    assert_eq!(outcome, Outcome::Good);
}

/// The one's complement sum of all of it (RFC 1071).
fn sum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low)))
        .sum();
    (sum % 0xffff) as u16
}

#[test]
fn a_closed_port_is_told_by_icmp() {
    for probe in [Probe::Udp(Vec::new()), Probe::Dns("a.b".into()), Probe::Tcp] {
        let (mut prober, mut line) = (Prober::new(1, 10), Line::default());
        prober.begin(0, job(probe, false), &mut line);
        let ended = prober.on_packet(1, &refusal(&line.sent[0]), &mut line);
        assert_eq!(ended, Some((TargetId(5), Outcome::Bad(Cause::Refused))));
    }
}
