//! The table against RFC 4861's rules one by one, against a model that keeps no lists, and under random
//! operations in a table too small for them.

use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const HASHER: FlowHasher = FlowHasher::new([1, 2, 3, 4]);
const PORT: PortId = PortId(0);
const LIMITS: NeighbourLimits = NeighbourLimits {
    neighbours_max: 64,
    unresolved_max: 16,
    queue_per_neighbour: 3,
    queue_total: 20,
    reachable_ms: 30_000,
    retries: 3,
    retry_ms: 1_000,
    failed_hold_ms: 1_000,
    stale_max_ms: 60_000,
};

/// A packet that is only a number.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Tagged(u32);

impl PacketBuf for Tagged {
    fn port(&self) -> PortId {
        PORT
    }
    fn set_port(&mut self, _: PortId) {}
    fn is_contiguous(&self) -> bool {
        true
    }
    fn data(&self) -> &[u8] {
        &[]
    }
    fn data_mut(&mut self) -> &mut [u8] {
        &mut []
    }
    fn grow_front(&mut self, _: usize) -> bool {
        false
    }
    fn trim_front(&mut self, _: usize) -> bool {
        false
    }
    fn set_len(&mut self, _: usize) -> bool {
        false
    }
}

fn table(limits: NeighbourLimits) -> Neighbours<Tagged> {
    Neighbours::new(&limits, HASHER)
}

fn ip(host: u32) -> Ip {
    Ip::v4(0x0a00_0000 + host)
}

fn mac(last: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, last])
}

fn answer(host: u32, last: u8) -> NeighbourUpdate {
    NeighbourUpdate { port: PORT, ip: ip(host), mac: mac(last), solicited: true, overrides: true }
}

fn gratuitous(host: u32, last: u8) -> NeighbourUpdate {
    NeighbourUpdate { solicited: false, ..answer(host, last) }
}

fn learn(table: &mut Neighbours<Tagged>, now: Tick, update: NeighbourUpdate, create: bool) -> LearnOutcome {
    table.learn(now, &update, create, |packet, _| panic!("{packet:?} released"))
}

/// What a tick asked for: questions, and the tags of expired packets.
#[derive(Default, Debug, PartialEq, Eq)]
struct Asked {
    questions: Vec<(Ip, Option<MacAddr>)>,
    expired: Vec<u32>,
}

fn tick(table: &mut Neighbours<Tagged>, now: Tick) -> Asked {
    let mut asked = Asked::default();
    table.tick(now, 10_000, |action| match action {
        Action::Solicit { ip, unicast_to, .. } => asked.questions.push((ip, unicast_to)),
        Action::Expired(packet) => asked.expired.push(packet.0),
    });
    asked
}

fn state(table: &Neighbours<Tagged>, host: u32) -> Option<NeighbourState> {
    table.iter().find(|view| view.ip == ip(host)).map(|view| view.state)
}

/// Runs the clock from `from` for `ms`, a tick every 100 ms; `each` uses the table in between.
fn run(
    table: &mut Neighbours<Tagged>,
    from: Tick,
    ms: u32,
    mut each: impl FnMut(&mut Neighbours<Tagged>, Tick),
) -> (Tick, Asked) {
    let mut all = Asked::default();
    for step in 1..=ms / 100 {
        let now = from.after_ms(step * 100);
        each(table, now);
        let asked = tick(table, now);
        all.questions.extend(asked.questions);
        all.expired.extend(asked.expired);
    }
    (from.after_ms(ms), all)
}

/// A tick shortly before the wrap, so that every test crosses it.
const START: Tick = Tick(u32::MAX - 2_000);

#[test]
fn one_address_on_two_ports_is_two_neighbours() {
    // So many that some are remembered in the same place.
    const PORTS: u16 = 200;
    let mut table = table(NeighbourLimits { neighbours_max: PORTS.into(), ..LIMITS });
    let now = Tick(0);
    let on_port = |port: u16| NeighbourUpdate { port: PortId(port), ..answer(1, port as u8 + 1) };
    for round in 0..2 {
        for port in 0..PORTS {
            learn(&mut table, now, on_port(port), true);
            for other in 0..PORTS {
                let expected = (round > 0 || other <= port).then_some(mac(other as u8 + 1));
                assert_eq!(table.find(now, PortId(other), ip(1)), expected, "port {other}");
            }
        }
    }
}

#[test]
fn a_slot_that_changes_hands_is_not_taken_for_its_former_neighbour() {
    let mut table = table(NeighbourLimits { neighbours_max: 1, ..LIMITS });
    let mut now = Tick(0);
    for round in 0..4 {
        for host in [1, 2] {
            table.add_static(now, PORT, ip(host), mac(host as u8), |packet, _| panic!("{packet:?}")).unwrap();
            assert_eq!(table.find(now, PORT, ip(host)), Some(mac(host as u8)), "round {round}");
            assert_eq!(table.find(now, PORT, ip(3 - host)), None);
            assert!(table.remove_static(PORT, ip(host)));
            assert_eq!(table.find(now, PORT, ip(host)), None, "forgotten");
            now = now.after_ms(1);
        }
    }
}

#[test]
fn packets_wait_and_are_released_in_order() {
    let mut table = table(LIMITS);
    for tag in 0..3 {
        assert!(matches!(table.hold(START, PORT, ip(1), Tagged(tag)), Hold::Held));
    }
    assert_eq!(tick(&mut table, START).questions, [(ip(1), None)], "one question, not three");
    assert_eq!(table.held(), 3);
    let mut released = Vec::new();
    let outcome = table.learn(START, &answer(1, 7), false, |packet, to| released.push((packet.0, to)));
    assert_eq!(outcome, LearnOutcome::Resolved);
    assert_eq!(released, [(0, mac(7)), (1, mac(7)), (2, mac(7))]);
    assert_eq!((table.held(), table.find(START, PORT, ip(1))), (0, Some(mac(7))));
    assert!(matches!(table.hold(START, PORT, ip(1), Tagged(9)), Hold::Send(Tagged(9), to) if to == mac(7)));
}

#[test]
fn the_oldest_packet_makes_way() {
    let mut table = table(LIMITS);
    for tag in 0..3 {
        assert!(matches!(table.hold(START, PORT, ip(1), Tagged(tag)), Hold::Held));
    }
    let full = DropReason::NeighbourQueueFull;
    assert!(
        matches!(table.hold(START, PORT, ip(1), Tagged(3)), Hold::Drop(Tagged(0), reason) if reason == full)
    );
    assert_eq!(table.held(), 3);
}

#[test]
fn a_full_waiting_room_refuses_newcomers_only() {
    let mut table = table(NeighbourLimits { queue_total: 2, ..LIMITS });
    assert!(matches!(table.hold(START, PORT, ip(1), Tagged(0)), Hold::Held));
    assert!(matches!(table.hold(START, PORT, ip(2), Tagged(1)), Hold::Held));
    assert!(matches!(table.hold(START, PORT, ip(3), Tagged(2)), Hold::Drop(Tagged(2), _)));
    assert!(matches!(table.hold(START, PORT, ip(1), Tagged(3)), Hold::Drop(Tagged(0), _)));
    assert_eq!(table.held(), 2);
}

#[test]
fn silence_fails_after_the_retries_and_backs_off() {
    let mut table = table(LIMITS);
    let mut now = START;
    for hold_ms in [1_000, 2_000, 4_000, 8_000, 16_000, 16_000] {
        assert!(matches!(table.hold(now, PORT, ip(1), Tagged(1)), Hold::Held));
        tick(&mut table, now);
        let (end, asked) = run(&mut table, now, 3_000, |_, _| {});
        assert_eq!((asked.questions.len(), asked.expired), (2, vec![1]), "and one in the first tick");
        assert_eq!(state(&table, 1), Some(NeighbourState::Failed));
        let early = table.hold(end.after_ms(hold_ms - 1), PORT, ip(1), Tagged(2));
        assert!(matches!(early, Hold::Drop(Tagged(2), DropReason::NeighbourUnreachable)), "{hold_ms}");
        now = end.after_ms(hold_ms);
    }
    // An answer, however late, ends it.
    assert!(matches!(table.hold(now, PORT, ip(1), Tagged(1)), Hold::Held));
    assert_eq!(table.learn(now, &answer(1, 1), false, |_, _| {}), LearnOutcome::Resolved);
    assert_eq!(state(&table, 1), Some(NeighbourState::Reachable));
}

#[test]
fn failed_neighbours_are_forgotten() {
    let mut table = table(LIMITS);
    assert!(matches!(table.hold(START, PORT, ip(1), Tagged(1)), Hold::Held));
    let (_, asked) = run(&mut table, START, 40_000, |_, _| {});
    assert_eq!((asked.questions.len(), asked.expired.len(), table.len()), (3, 1, 0));
}

/// The promise of the module: whoever is in use keeps its MAC through every refresh.
#[test]
fn a_neighbour_in_use_is_refreshed_without_a_gap() {
    let mut table = table(LIMITS);
    let id = table.id_of(START, PORT, ip(1)).expect("room");
    tick(&mut table, START);
    learn(&mut table, START, answer(1, 1), false);
    let mut now = START;
    for _ in 0..50 {
        let (end, asked) = run(&mut table, now, 27_000, |table, now| {
            assert_eq!(table.mac(id, now), Some(mac(1)));
        });
        assert_eq!(asked.questions, [(ip(1), Some(mac(1)))], "one unicast probe a round");
        assert_eq!(learn(&mut table, end, answer(1, 1), false), LearnOutcome::Confirmed);
        now = end;
    }
}

#[test]
fn a_neighbour_in_use_that_falls_silent_is_probed_then_asked_of_all_then_failed() {
    let mut table = table(LIMITS);
    let id = table.id_of(START, PORT, ip(1)).expect("room");
    learn(&mut table, START, answer(1, 1), false);
    let mut known_ms = 0;
    let (_, asked) = run(&mut table, START, 34_000, |table, now| {
        if table.mac(id, now).is_some() {
            known_ms = now.since(START);
        }
    });
    let probe = (ip(1), Some(mac(1)));
    assert_eq!(asked.questions, [probe, probe, probe, (ip(1), None), (ip(1), None), (ip(1), None)]);
    assert_eq!(known_ms, 30_000, "as long as an answer is trusted");
    assert_eq!(state(&table, 1), Some(NeighbourState::Failed));
}

#[test]
fn an_unused_neighbour_goes_stale_unprobed_and_is_dropped() {
    let mut table = table(LIMITS);
    let id = table.id_of(START, PORT, ip(1)).expect("room");
    tick(&mut table, START);
    learn(&mut table, START, answer(1, 1), false);
    let (now, asked) = run(&mut table, START, 27_000, |_, _| {});
    assert_eq!((asked, state(&table, 1)), (Asked::default(), Some(NeighbourState::Stale)));
    run(&mut table, now, 60_000, |_, _| {});
    assert_eq!((table.len(), table.mac(id, now)), (0, None));
    let again = table.id_of(now, PORT, ip(1)).expect("room");
    assert_ne!(id, again);
}

#[test]
fn a_stale_neighbour_is_used_at_once_and_probed_after_the_delay() {
    let mut table = table(LIMITS);
    assert_eq!(learn(&mut table, START, gratuitous(1, 1), true), LearnOutcome::Created);
    assert_eq!(state(&table, 1), Some(NeighbourState::Stale));
    assert_eq!(table.find(START, PORT, ip(1)), Some(mac(1)));
    assert_eq!(state(&table, 1), Some(NeighbourState::Delay));
    let (now, asked) = run(&mut table, START, 4_900, |_, _| {});
    assert_eq!(asked, Asked::default());
    assert_eq!(tick(&mut table, now.after_ms(100)).questions, [(ip(1), Some(mac(1)))]);
}

#[test]
fn unsolicited_news_updates_but_creates_nothing() {
    let mut table = table(LIMITS);
    assert_eq!(learn(&mut table, START, gratuitous(1, 1), false), LearnOutcome::Unknown);
    assert_eq!(learn(&mut table, START, answer(1, 1), false), LearnOutcome::Unknown);
    assert!(table.is_empty());
    let id = table.id_of(START, PORT, ip(1)).expect("room");
    learn(&mut table, START, answer(1, 1), false);
    assert_eq!(learn(&mut table, START, gratuitous(1, 1), false), LearnOutcome::Unchanged);
    // Failover: the address moves to another MAC, which counts from the next packet on.
    assert_eq!(learn(&mut table, START, gratuitous(1, 2), false), LearnOutcome::Moved);
    assert_eq!(table.mac(id, START), Some(mac(2)));
    assert_eq!(state(&table, 1), Some(NeighbourState::Delay), "used, and not proven yet");
}

#[test]
fn an_advertisement_without_override_only_sows_doubt() {
    let mut table = table(LIMITS);
    let id = table.id_of(START, PORT, ip(1)).expect("room");
    learn(&mut table, START, answer(1, 1), false);
    let rival = NeighbourUpdate { overrides: false, ..answer(1, 2) };
    assert_eq!(learn(&mut table, START, rival, false), LearnOutcome::Unchanged);
    assert_eq!(state(&table, 1), Some(NeighbourState::Stale));
    assert_eq!(table.mac(id, START), Some(mac(1)));
}

#[test]
fn macs_no_station_has_are_refused() {
    let mut table = table(LIMITS);
    for bad in [MacAddr::BROADCAST, MacAddr([1, 0, 0x5e, 0, 0, 1]), MacAddr::default()] {
        let update = NeighbourUpdate { mac: bad, ..answer(1, 1) };
        assert_eq!(learn(&mut table, START, update, true), LearnOutcome::Refused);
    }
    assert!(table.is_empty());
}

#[test]
fn static_entries_never_change() {
    let mut table = table(LIMITS);
    assert!(matches!(table.hold(START, PORT, ip(1), Tagged(5)), Hold::Held));
    let mut released = Vec::new();
    let added = table.add_static(START, PORT, ip(1), mac(1), |packet, to| released.push((packet.0, to)));
    assert_eq!((added, released), (Ok(()), vec![(5, mac(1))]));
    assert_eq!(learn(&mut table, START, answer(1, 2), true), LearnOutcome::Refused);
    let (now, asked) = run(&mut table, START, 100_000, |table, now| {
        assert_eq!(table.find(now, PORT, ip(1)), Some(mac(1)));
    });
    assert_eq!(asked, Asked::default());
    assert!(table.remove_static(PORT, ip(1)) && !table.remove_static(PORT, ip(1)));
    assert_eq!(table.find(now, PORT, ip(1)), None);
}

#[test]
fn a_new_configuration_replaces_the_static_entries() {
    let mut table = table(LIMITS);
    let entry = |host, last| StaticNeighbour { port: PORT, address: ip(host), mac: mac(last) };
    assert_eq!(table.set_statics(START, &[entry(1, 1), entry(2, 2)], |_, _, _| {}), 0);
    learn(&mut table, START, gratuitous(9, 9), true);
    assert!(matches!(table.hold(START, PORT, ip(3), Tagged(5)), Hold::Held));
    let mut released = Vec::new();
    let refused =
        table.set_statics(START, &[entry(2, 7), entry(3, 3)], |_, packet, to| released.push((packet.0, to)));
    assert_eq!((refused, released), (0, vec![(5, mac(3))]));
    let macs = [1, 2, 3, 9].map(|host| table.find(START, PORT, ip(host)));
    assert_eq!(macs, [None, Some(mac(7)), Some(mac(3)), Some(mac(9))]);
}

#[test]
fn a_table_full_of_idle_neighbours_still_resolves_a_new_one() {
    let mut table = table(NeighbourLimits { stale_max_ms: 30_000_000, ..LIMITS });
    let mut now = START;
    for host in 0..200 {
        assert!(matches!(table.hold(now, PORT, ip(host), Tagged(host)), Hold::Held), "{host}");
        assert_eq!(table.learn(now, &answer(host, 1), false, |_, _| {}), LearnOutcome::Resolved);
        // One probe follows, since a packet was sent; then it is idle.
        for _ in 0..60 {
            now = now.after_ms(1_000);
            if !tick(&mut table, now).questions.is_empty() {
                learn(&mut table, now, answer(host, 1), false);
            }
        }
        assert_eq!(state(&table, host), Some(NeighbourState::Stale));
    }
    assert_eq!(table.len(), LIMITS.neighbours_max - LIMITS.unresolved_max);
}

/// RFC 6583: a scan of a large on-link prefix, with a table whose other entries are all idle.
#[test]
fn a_scan_evicts_nothing_resolved_and_next_hops_resolve_during_it() {
    let mut table = table(LIMITS);
    for host in 0..48 {
        assert_eq!(learn(&mut table, START, gratuitous(host, 1), true), LearnOutcome::Created);
    }
    let mut refused = 0;
    for host in 1_000..21_000 {
        let now = START.after_ms(host - 1_000);
        match table.hold(now, PORT, ip(host), Tagged(host)) {
            Hold::Held => {}
            Hold::Drop(_, DropReason::NeighbourTableFull | DropReason::NeighbourQueueFull) => refused += 1,
            other => panic!("{other:?}"),
        }
        tick(&mut table, now);
        assert!(table.unresolved <= LIMITS.unresolved_max);
        assert!((0..48).all(|host| state(&table, host).is_some()));
    }
    assert!(refused > 19_000, "{refused}");
    let now = START.after_ms(20_000);
    let gateway = table.id_of(now, PORT, ip(99)).expect("next hops do not compete with the scan");
    assert!(tick(&mut table, now).questions.contains(&(ip(99), None)));
    assert_eq!(learn(&mut table, now, answer(99, 9), false), LearnOutcome::Resolved);
    assert_eq!(table.mac(gateway, now), Some(mac(9)));
}

#[test]
fn spoofed_requests_evict_idle_entries_only() {
    let mut table = table(LIMITS);
    let used: Vec<_> = (0..20).map(|host| table.id_of(START, PORT, ip(host)).expect("room")).collect();
    for host in 0..20 {
        learn(&mut table, START, answer(host, 1), false);
    }
    for host in 1_000..9_000 {
        learn(&mut table, START, gratuitous(host, 2), true);
    }
    assert!(used.iter().all(|id| table.mac(*id, START) == Some(mac(1))));
    assert!(table.resolved + LIMITS.unresolved_max <= LIMITS.neighbours_max);
}

#[test]
fn a_table_of_configured_neighbours_in_use_is_full() {
    let mut table = table(NeighbourLimits { neighbours_max: 2, ..LIMITS });
    for host in 0..2 {
        table.id_of(START, PORT, ip(host)).expect("room");
    }
    assert_eq!(table.id_of(START, PORT, ip(2)), Err(DropReason::NeighbourTableFull));
    assert!(matches!(
        table.hold(START, PORT, ip(2), Tagged(1)),
        Hold::Drop(Tagged(1), DropReason::NeighbourTableFull)
    ));
    assert!(table.add_static(START, PORT, ip(2), mac(1), |_, _| {}).is_err());
    table.id_of(START, PORT, ip(0)).expect("known");
}

#[test]
fn ports_are_apart_and_forgotten_apart() {
    let mut table = table(LIMITS);
    let other = PortId(1);
    assert!(matches!(table.hold(START, PORT, ip(1), Tagged(1)), Hold::Held));
    assert!(matches!(table.hold(START, other, ip(1), Tagged(2)), Hold::Held));
    assert_eq!(table.len(), 2);
    let mut dropped = Vec::new();
    table.forget_port(PORT, |packet| dropped.push(packet.0));
    assert_eq!((dropped, table.len(), table.held()), (vec![1], 1, 1));
}

/// The state machine once more, with a deadline in every entry and no lists, evictions or bounds.
#[derive(Default)]
struct Model {
    entries: BTreeMap<u32, ModelEntry>,
}

struct ModelEntry {
    state: NeighbourState,
    /// Milliseconds since the start of the test: a model needs no wrapping clock.
    deadline: u64,
    failed_at: u64,
    mac: Option<MacAddr>,
    attempts: u8,
    failures: u32,
    touched: bool,
    queue: Vec<u32>,
}

impl ModelEntry {
    fn enter(&mut self, state: NeighbourState, deadline: u64) {
        (self.state, self.deadline) = (state, deadline);
    }

    fn settle(&mut self, now: u64, update: &NeighbourUpdate) -> Vec<u32> {
        let used = self.touched || !self.queue.is_empty();
        (self.mac, self.attempts, self.failures) = (Some(update.mac), 0, 0);
        self.touched = !self.queue.is_empty();
        match (update.solicited, used) {
            (true, _) => self.enter(NeighbourState::Reachable, now + 27_000),
            (_, true) => self.enter(NeighbourState::Delay, now + 5_000),
            _ => self.enter(NeighbourState::Stale, now + 60_000),
        }
        std::mem::take(&mut self.queue)
    }

    /// One step of an entry that is due; `false` if it is to be forgotten.
    fn step(&mut self, now: u64, host: u32, asked: &mut Asked) -> bool {
        match self.state {
            NeighbourState::Incomplete | NeighbourState::Probe if self.attempts < 3 => {
                self.attempts += 1;
                let unicast = self.mac.filter(|_| self.state == NeighbourState::Probe);
                asked.questions.push((ip(host), unicast));
                self.deadline = now + 1_000;
            }
            NeighbourState::Probe => {
                (self.attempts, self.mac) = (0, None);
                self.enter(NeighbourState::Incomplete, now);
            }
            NeighbourState::Incomplete => {
                (self.attempts, self.failures, self.failed_at) = (0, self.failures + 1, now);
                asked.expired.append(&mut self.queue);
                self.enter(NeighbourState::Failed, now + 32_000);
            }
            NeighbourState::Reachable if !self.touched => self.enter(NeighbourState::Stale, now + 60_000),
            NeighbourState::Reachable | NeighbourState::Delay => {
                self.attempts = 0;
                self.enter(NeighbourState::Probe, now);
            }
            _ => return false,
        }
        true
    }
}

impl Model {
    fn find(&mut self, now: u64, host: u32) -> Option<MacAddr> {
        let entry = self.entries.get_mut(&host)?;
        let mac = entry.mac?;
        entry.touched = true;
        if entry.state == NeighbourState::Stale {
            entry.enter(NeighbourState::Delay, now + 5_000);
        }
        Some(mac)
    }

    /// What comes back of the packet: nothing, or a tag.
    fn hold(&mut self, now: u64, host: u32, tag: u32) -> Option<u32> {
        if self.find(now, host).is_some() {
            return Some(tag);
        }
        let entry = self.entries.entry(host).or_insert(ModelEntry {
            state: NeighbourState::Incomplete,
            deadline: now,
            failed_at: 0,
            mac: None,
            attempts: 0,
            failures: 0,
            touched: false,
            queue: Vec::new(),
        });
        if entry.state == NeighbourState::Failed {
            if now < entry.failed_at + (1_000 << (entry.failures - 1).min(4)) {
                return Some(tag);
            }
            entry.enter(NeighbourState::Incomplete, now);
        }
        entry.queue.push(tag);
        (entry.queue.len() > 3).then(|| entry.queue.remove(0))
    }

    fn learn(&mut self, now: u64, host: u32, update: &NeighbourUpdate, create: bool) -> Vec<u32> {
        let Some(entry) = self.entries.get_mut(&host) else {
            if create {
                self.hold(now, host, 0);
                let entry = self.entries.get_mut(&host).expect("just made");
                entry.queue.clear();
                entry.settle(now, update);
            }
            return Vec::new();
        };
        match entry.mac {
            Some(known) if known != update.mac && !update.overrides => {
                if entry.state == NeighbourState::Reachable {
                    entry.enter(NeighbourState::Stale, now + 60_000);
                }
                Vec::new()
            }
            Some(known) if known == update.mac && !update.solicited => Vec::new(),
            _ => entry.settle(now, update),
        }
    }

    fn tick(&mut self, now: u64) -> Asked {
        let mut asked = Asked::default();
        self.entries.retain(|host, entry| {
            while entry.deadline <= now {
                if !entry.step(now, *host, &mut asked) {
                    return false;
                }
            }
            true
        });
        asked
    }
}

#[derive(Clone, Debug)]
enum Op {
    Pass(u32),
    Find(u32),
    Hold(u32),
    Learn { host: u32, mac: u8, solicited: bool, overrides: bool, create: bool },
    IdOf(u32),
    Static(u32, bool),
    ForgetPort,
}

fn learn_op(hosts: u32) -> impl Strategy<Value = Op> {
    (0..hosts, 1..4_u8, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(host, mac, solicited, overrides, create)| Op::Learn { host, mac, solicited, overrides, create },
    )
}

fn usual_ops(hosts: u32) -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => prop_oneof![0..300_u32, 0..3_000_u32, 0..70_000_u32].prop_map(Op::Pass),
        2 => (0..hosts).prop_map(Op::Find),
        3 => (0..hosts).prop_map(Op::Hold),
        3 => learn_op(hosts),
    ]
}

fn any_ops(hosts: u32) -> impl Strategy<Value = Op> {
    prop_oneof![
        20 => usual_ops(hosts),
        2 => (0..hosts).prop_map(Op::IdOf),
        1 => (0..hosts, any::<bool>()).prop_map(|(host, set)| Op::Static(host, set)),
        1 => Just(Op::ForgetPort),
    ]
}

/// Counts, lists and index agree with the entries, and bounds hold.
fn check(table: &Neighbours<Tagged>, limits: &NeighbourLimits) {
    let views: Vec<_> = table.iter().collect();
    let weights = (0..table.slots.capacity()).map(|slot| table.slots[slot].weight());
    let sum = weights.fold((0, 0), |sum, weight| (sum.0 + weight.0, sum.1 + weight.1));
    assert_eq!((table.resolved, table.unresolved), sum);
    assert_eq!(views.len(), table.len());
    assert!(table.len() <= limits.neighbours_max && table.held() <= limits.queue_total);
    assert_eq!(views.iter().map(|view| usize::from(view.held)).sum::<usize>(), table.held());
    let unique: BTreeSet<_> = views.iter().map(|view| (view.port, view.ip)).collect();
    assert_eq!(unique.len(), views.len());
    for view in &views {
        assert!(view.held <= limits.queue_per_neighbour);
        assert!(view.held == 0 || view.state == NeighbourState::Incomplete, "{view:?}");
        let slot = table.slots.find(view.port, view.ip).expect("the index finds every entry");
        assert_eq!(table.slots[slot].state, view.state);
    }
    table.slots.check_lists();
}

proptest! {
    /// With room enough, the table and the model do the same.
    #[test]
    fn the_table_follows_the_model(
        ops in prop::collection::vec(usual_ops(6), 1..200),
        start in prop_oneof![Just(0), Just(u32::MAX - 50_000), any::<u32>()],
    ) {
        let mut table = table(LIMITS);
        let mut model = Model::default();
        let mut ms = 0_u64;
        for (tag, op) in ops.into_iter().enumerate() {
            let tag = tag as u32;
            let now = Tick(start.wrapping_add(ms as u32));
            match op {
                Op::Pass(step) => {
                    ms += u64::from(step);
                    let now = Tick(start.wrapping_add(ms as u32));
                    let (mut got, mut expected) = (tick(&mut table, now), model.tick(ms));
                    for asked in [&mut got, &mut expected] {
                        asked.questions.sort();
                        asked.expired.sort();
                    }
                    prop_assert_eq!(got, expected);
                }
                Op::Find(host) => {
                    prop_assert_eq!(table.find(now, PORT, ip(host)), model.find(ms, host));
                }
                Op::Hold(host) => {
                    let out = match table.hold(now, PORT, ip(host), Tagged(tag)) {
                        Hold::Held => None,
                        Hold::Send(packet, _) | Hold::Drop(packet, _) => Some(packet.0),
                    };
                    prop_assert_eq!(out, model.hold(ms, host, tag));
                }
                Op::Learn { host, mac: last, solicited, overrides, create } => {
                    let update = NeighbourUpdate { solicited, overrides, ..answer(host, last) };
                    let mut released = Vec::new();
                    table.learn(now, &update, create, |packet, _| released.push(packet.0));
                    prop_assert_eq!(released, model.learn(ms, host, &update, create));
                }
                Op::IdOf(_) | Op::Static(..) | Op::ForgetPort => {}
            }
            let states: BTreeMap<_, _> = table.iter().map(|view| (view.ip, (view.state, view.mac))).collect();
            let expected: BTreeMap<_, _> =
                model.entries.iter().map(|(host, entry)| (ip(*host), (entry.state, entry.mac))).collect();
            prop_assert_eq!(states, expected);
        }
    }

    /// In a table far too small, whatever is done: nothing is lost, nothing is sent twice, every bound
    /// holds, and nothing panics.
    #[test]
    fn packets_are_conserved_under_pressure(
        ops in prop::collection::vec(any_ops(40), 1..300),
        sizes in (1..12_usize, 1..8_usize, 1..4_u16, 1..10_usize),
        budget in 0..8_usize,
        start: u32,
    ) {
        let (neighbours_max, unresolved_max, queue_per_neighbour, queue_total) = sizes;
        let limits =
            NeighbourLimits { neighbours_max, unresolved_max, queue_per_neighbour, queue_total, ..LIMITS };
        let mut table = table(limits);
        let mut now = Tick(start);
        let mut inside = BTreeSet::new();
        let leave = |inside: &mut BTreeSet<u32>, packet: Tagged| assert!(inside.remove(&packet.0), "{packet:?}");
        for (tag, op) in ops.into_iter().enumerate() {
            match op {
                Op::Pass(step) => {
                    now = now.after_ms(step);
                    table.tick(now, budget, |action| {
                        if let Action::Expired(packet) = action {
                            leave(&mut inside, packet);
                        }
                    });
                }
                Op::Find(host) => _ = table.find(now, PORT, ip(host)),
                Op::IdOf(host) => {
                    if let Ok(id) = table.id_of(now, PORT, ip(host)) {
                        prop_assert_eq!(table.mac(id, now), table.find(now, PORT, ip(host)));
                    }
                }
                Op::Hold(host) => {
                    inside.insert(tag as u32);
                    match table.hold(now, PORT, ip(host), Tagged(tag as u32)) {
                        Hold::Held => {}
                        Hold::Send(packet, _) | Hold::Drop(packet, _) => leave(&mut inside, packet),
                    }
                }
                Op::Learn { host, mac: last, solicited, overrides, create } => {
                    let update = NeighbourUpdate { solicited, overrides, ..answer(host, last) };
                    table.learn(now, &update, create, |packet, _| leave(&mut inside, packet));
                }
                Op::Static(host, true) => {
                    _ = table.add_static(now, PORT, ip(host), mac(9), |packet, _| leave(&mut inside, packet));
                }
                Op::Static(host, false) => _ = table.remove_static(PORT, ip(host)),
                Op::ForgetPort => table.forget_port(PORT, |packet| leave(&mut inside, packet)),
            }
            prop_assert_eq!(table.held(), inside.len());
            check(&table, &limits);
        }
        table.drain(|packet| leave(&mut inside, packet));
        prop_assert!(inside.is_empty() && table.held() == 0);
    }

    /// A name never means another neighbour than the one it was given for.
    #[test]
    fn stale_names_are_recognised(hosts in prop::collection::vec(0..20_u32, 1..200)) {
        let mut table = table(NeighbourLimits { neighbours_max: 4, ..LIMITS });
        let mut names: Vec<(u32, NeighbourId)> = Vec::new();
        for (step, host) in hosts.into_iter().enumerate() {
            let now = START.after_ms(step as u32 * 100_000);
            tick(&mut table, now);
            if let Ok(id) = table.id_of(now, PORT, ip(host)) {
                learn(&mut table, now, answer(host, host as u8 + 1), false);
                names.push((host, id));
            }
            for (host, id) in &names {
                let found = table.mac(*id, now);
                prop_assert!(found.is_none() || found == Some(mac(*host as u8 + 1)));
            }
        }
    }
}
