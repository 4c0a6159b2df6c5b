//! Ten thousand backends under virtual time: who is probed when, how much is under way, how much a turn does,
//! and how much memory that takes.

use dataplane::addr::Ip;
use dataplane::config::{Health, Probe};
use dataplane::ids::BackendId;
use dataplane::snapshot::OnRemove;
use health::machine::{BackendSpec, ServiceSpec, State};
use health::rounds::{BEGUN_PER_TURN, FLIGHTS_MAX, HEARD_PER_TURN};
use health::{Fate, Job, Rounds, TargetId, Wire};
use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex};

const BACKENDS: u32 = 10_000;
const FIRST: u32 = 0x0a01_0000;
const INTERVAL_MS: u64 = 250;
/// One at a time, as memory is measured.
static ALONE: Mutex<()> = Mutex::new(());

/// Backends that answer each datagram a millisecond later, or never.
#[derive(Default)]
struct Net {
    now_ms: u64,
    silent: bool,
    answers: VecDeque<(u64, Vec<u8>)>,
    expected: HashSet<u16>,
    sent: u64,
    /// When each backend was asked.
    asked_ms: Vec<Vec<u64>>,
}

impl Wire for Net {
    fn expect(&mut self, port: u16, to: Option<Ip>) {
        let changed = if to.is_some() { self.expected.insert(port) } else { self.expected.remove(&port) };
        assert!(changed);
    }

    fn send(&mut self, backend: BackendId, _: u16, packet: &[u8]) -> Option<u64> {
        self.asked_ms[backend.index()].push(self.now_ms);
        if !self.silent {
            let mut answer = packet.to_vec();
            answer[12..20].rotate_left(4);
            answer[20..24].rotate_left(2);
            self.answers.push_back((self.now_ms + 1, answer));
        }
        self.sent += 1;
        Some(self.sent)
    }

    fn losses(&mut self, _: BackendId, _: bool) -> u64 {
        0
    }

    fn fate(&self, _: BackendId, _: u16, _: u64) -> Fate {
        Fate::Left
    }
}

struct Bench {
    rounds: Rounds,
    net: Net,
    health: Arc<Health>,
    /// Probes begun in each millisecond.
    begun: Vec<u64>,
    under_way_max: usize,
}

impl Bench {
    fn new(probe: Probe, silent: bool) -> Bench {
        let health = Arc::new(Health {
            probe,
            port: None,
            interval_ms: INTERVAL_MS as u32,
            timeout_ms: 200,
            rise: 2,
            fall: 3,
            initially_up: true,
            passive: false,
            panic_percent: 0,
            slow_start_s: 0,
            on_down: OnRemove::Drain,
        });
        let backend = |n| BackendSpec { address: Ip::v4(FIRST + n), port: Some(53), counts: true };
        let spec = ServiceSpec {
            name: "many".into(),
            health: Arc::clone(&health),
            backends: (0..BACKENDS).map(backend).collect(),
        };
        let mut rounds = Rounds::new(7);
        rounds.machine.configure(0, vec![spec]);
        let asked_ms = vec![Vec::new(); BACKENDS as usize];
        let net = Net { silent, asked_ms, ..Net::default() };
        Bench { rounds, net, health, begun: Vec::new(), under_way_max: 0 }
    }

    fn run_ms(&mut self, ms: u64) {
        for _ in 0..ms {
            let now_ms = self.net.now_ms;
            let due = self.net.answers.iter().take_while(|(at, _)| *at <= now_ms).count();
            let mut answers = self.net.answers.drain(..due).collect::<VecDeque<_>>();
            self.rounds.hear(now_ms, || answers.pop_front().map(|(_, packet)| packet), &mut self.net);
            assert!(answers.is_empty(), "more than a turn hears");
            let before = self.net.sent;
            let health = &self.health;
            // Targets are numbered as the backends are.
            let job = |target: TargetId| {
                let (backend, remote) = (BackendId(target.0 as u16), Ip::v4(FIRST + target.0 as u32));
                let (local, health) = (Ip::v4(0x0a00_0001), Arc::clone(health));
                Some(Job { target, backend, local, remote, port: 53, health })
            };
            self.rounds.ask(now_ms, job, &mut self.net);
            self.begun.push(self.net.sent - before);
            self.rounds.machine.tick(now_ms);
            self.rounds.machine.take_transitions();
            self.under_way_max = self.under_way_max.max(self.rounds.under_way());
            self.net.now_ms += 1;
        }
    }

    fn states(&self) -> Vec<State> {
        let views = self.rounds.machine.views().flat_map(|(_, _, views)| views);
        views.map(|(_, view)| view.memory.state).collect()
    }
}

#[test]
fn each_is_probed_at_its_interval_and_all_of_them_evenly() {
    let _alone = ALONE.lock();
    let mut bench = Bench::new(Probe::Udp(b"ping".to_vec()), false);
    bench.run_ms(3000);
    assert_eq!(bench.begun[0], BEGUN_PER_TURN as u64, "all at once, but for what a turn may do");
    assert!(bench.begun.iter().all(|&begun| begun <= BEGUN_PER_TURN as u64));
    assert_eq!(bench.net.asked_ms.iter().filter_map(|asked| asked.first()).max(), Some(&39));
    assert!(bench.states().iter().all(|state| *state == State::Up));
    for asked in &bench.net.asked_ms {
        // At the second its place in the interval is drawn.
        for pair in asked[1..].windows(2) {
            let gap = pair[1] - pair[0];
            assert!((INTERVAL_MS * 9 / 10..=INTERVAL_MS + 2).contains(&gap), "{gap} ms between two probes");
        }
    }
    // 10,000 in 237.5 milliseconds are 42 in each; by chance it is now more, now less.
    for part in bench.begun[500..].chunks(10) {
        let begun = part.iter().sum::<u64>();
        assert!((250..=650).contains(&begun), "{begun} probes begun in ten milliseconds");
    }
    assert!(bench.under_way_max <= 2 * BEGUN_PER_TURN, "{} under way", bench.under_way_max);
}

/// Memory of this process, bytes.
fn memory() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
    pages.expect("a number") * 4096
}

/// The worst: none answers, and each probe is a TCP connection that lasts until its time is up.
#[test]
fn where_all_are_silent_what_is_under_way_and_its_memory_are_bounded() {
    let _alone = ALONE.lock();
    let mut bench = Bench::new(Probe::Tcp, true);
    let before = memory();
    bench.run_ms(1000);
    let first = memory().saturating_sub(before);
    bench.run_ms(1000);
    let second = memory().saturating_sub(before);
    println!("{first} bytes more after a second, {second} after two");
    assert!(second < first + (8 << 20), "it grows: {first} bytes, then {second}");
    assert!(second < 64 << 20, "{second} bytes");
    assert_eq!(bench.under_way_max, FLIGHTS_MAX);
    assert_eq!(bench.net.expected.len(), bench.rounds.under_way());
    // Later than they should be, but nobody is forgotten.
    let least = bench.net.asked_ms.iter().map(Vec::len).min();
    assert!(least >= Some(3), "{least:?} probes in two seconds");
    assert!(bench.states().iter().all(|state| *state == State::Down));
}

#[test]
fn a_flood_does_not_keep_a_turn_from_its_end() {
    let mut heard = 0;
    let flood = || {
        heard += 1;
        Some([0x45; 40])
    };
    Rounds::new(7).hear(0, flood, &mut Net::default());
    assert_eq!(heard, HEARD_PER_TURN);
}
