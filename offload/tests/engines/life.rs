//! The life of rules on a device that does what it is told.

use std::collections::HashSet;

use dataplane::flow::Direction;
use offload::engine::{Completion, EngineError, FlowEngine};
use offload::lower;
use offload::rule::Action;

use crate::bed::{self, Bed, HOST, Seen, UPLINK, frame, legs};

/// Connections.
const PAIRS: u32 = 1000;

const DIRECTIONS: [Direction; 2] = [Direction::Original, Direction::Reply];

/// All promises, one after the other.
pub(crate) fn keeps_its_promises(bed: &mut Bed<'_>) {
    let base = lower::base_rules(&bed.topology).len();
    bed.expect_device_rules(base);
    assert!(takes_software(bed, 0..8), "nothing is in hardware yet");

    rules_carry_and_count(bed, base);
    opening_and_closing_stay_in_software(bed);
    removed_rules_leave_their_counters(bed, base);
    what_cannot_be_is_refused(bed, base);
    a_fence_keeps_packets_from_rules(bed, base);
    crate::tunnels::are_taken_off_and_put_on(bed, base);
    idle_rules_are_reported(bed, base);
    a_flush_leaves_the_base(bed, base);
    for round in 0..4 {
        a_round_leaves_nothing(bed, base, round);
    }
}

fn install_all(bed: &mut Bed<'_>, age_s: Option<u32>) {
    for n in 0..PAIRS {
        assert_eq!(bed.install(n, age_s), []);
    }
    let installed: HashSet<_> = bed.finish().into_iter().map(installed).collect();
    assert_eq!(installed.len(), 2 * PAIRS as usize, "each leg once");
}

fn installed(completion: Completion) -> offload::engine::LegId {
    match completion {
        Completion::Installed(leg) => leg,
        other => panic!("{other:?}"),
    }
}

fn remove_all(bed: &mut Bed<'_>) {
    (0..PAIRS).for_each(|n| bed.remove(n));
    let removed = bed.finish();
    let mut legs: HashSet<_> = (0..PAIRS).flat_map(legs).collect();
    for completion in removed {
        match completion {
            Completion::Removed(leg) => assert!(legs.remove(&leg), "{leg:?} twice"),
            other => panic!("{other:?}"),
        }
    }
    assert!(legs.is_empty());
}

fn release_all(bed: &mut Bed<'_>) {
    for leg in (0..PAIRS).flat_map(legs) {
        bed.engine.release(leg);
        assert!(matches!(bed.engine.count(leg), Err(EngineError::Lost(_))), "its counter is given back");
    }
}

/// Where packets of a direction come in, and where they go out.
fn way(direction: Direction) -> (dataplane::ids::PortId, usize, usize) {
    match direction {
        Direction::Original => (UPLINK, 0, 1),
        Direction::Reply => (HOST, 1, 0),
    }
}

/// Whether packets of these connections come to the port they come in by, as they are.
pub(crate) fn takes_software(bed: &mut Bed<'_>, connections: std::ops::Range<u32>) -> bool {
    DIRECTIONS.into_iter().all(|direction| {
        let (ingress, software, _) = way(direction);
        let frames: Vec<_> = connections.clone().map(|n| frame(n, direction)).collect();
        let seen = bed.pass(ingress, &frames);
        sorted(&seen[software]) == sorted(&frames)
    })
}

/// A burst's packets that take different ways overtake one another.
fn sorted(frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut frames = frames.to_vec();
    frames.sort();
    frames
}

/// Passes a packet of each connection; hardware translates them all.
fn takes_hardware(bed: &mut Bed<'_>) {
    for direction in DIRECTIONS {
        let (ingress, software, hardware) = way(direction);
        let frames: Vec<_> = (0..PAIRS).map(|n| frame(n, direction)).collect();
        let seen = bed.pass(ingress, &frames);
        assert_eq!(seen[software], Vec::<Vec<u8>>::new(), "no packet misses");
        let mut expected: HashSet<_> =
            (0..PAIRS).map(|n| Seen::translated(&bed.topology, n, direction)).collect();
        for frame in &seen[hardware] {
            assert!(expected.remove(&Seen::of(frame)), "{direction:?}: {:?}", Seen::of(frame));
        }
    }
}

fn rules_carry_and_count(bed: &mut Bed<'_>, base: usize) {
    install_all(bed, None);
    bed.expect_device_rules(base + 2 * PAIRS as usize);
    for _ in 0..3 {
        takes_hardware(bed);
    }
    expect_counts(bed, 3);
}

fn expect_counts(bed: &mut Bed<'_>, packets: u64) {
    for leg in (0..PAIRS).flat_map(legs) {
        let count = bed.engine.count(leg).expect("it has a counter");
        let bytes = packets * frame(leg.rule.0, leg.direction).len() as u64;
        assert_eq!((count.packets, count.bytes), (packets, bytes), "{leg:?}");
    }
}

/// FIN, SYN, RST and a TTL that runs out; connections 0 and 1 are TCP, over IPv4 and IPv6.
fn opening_and_closing_stay_in_software(bed: &mut Bed<'_>) {
    let mut frames = Vec::new();
    for (n, flags_at, ttl_at) in [(0, 47, 22), (1, 67, 21)] {
        for flag in [1, 2, 4] {
            let mut frame = frame(n, Direction::Original);
            frame[flags_at] |= flag;
            frames.push(frame);
        }
        for ttl in [0, 1] {
            let mut frame = frame(n, Direction::Original);
            frame[ttl_at] = ttl;
            frames.push(frame);
        }
    }
    let seen = bed.pass(UPLINK, &frames);
    assert_eq!(sorted(&seen[0]), sorted(&frames));
    expect_counts(bed, 3);
}

fn removed_rules_leave_their_counters(bed: &mut Bed<'_>, base: usize) {
    remove_all(bed);
    bed.expect_device_rules(base);
    assert!(takes_software(bed, 0..PAIRS));
    expect_counts(bed, 3);
    for leg in legs(0) {
        assert!(matches!(bed.engine.remove(leg), Err(EngineError::Lost(_))), "it is out already");
    }
    release_all(bed);
}

fn what_cannot_be_is_refused(bed: &mut Bed<'_>, base: usize) {
    let [(leg, rule), _] = bed::rules(&bed.topology, 0, None);
    let mut nowhere = rule.clone();
    nowhere.actions.pop();
    nowhere.actions.push(Action::ToPort(999));
    let refused = bed.retried(|engine| engine.install(leg, &nowhere));
    assert!(matches!(refused, Err(EngineError::Refused(_))), "{refused:?}");
    assert!(bed.engine.complaint().is_some());
    let mut elsewhere = rule.clone();
    elsewhere.port = 999;
    assert!(matches!(bed.engine.install(leg, &elsewhere), Err(EngineError::Refused(_))));
    assert!(matches!(bed.engine.count(leg), Err(EngineError::Lost(_))), "nothing is held");

    bed.retried(|engine| engine.install(leg, &rule)).expect("it is free");
    assert_eq!(bed.finish(), [Completion::Installed(leg)]);
    let twice = bed.retried(|engine| engine.install(leg, &rule));
    assert!(matches!(twice, Err(EngineError::Refused(_))), "{twice:?}");
    bed.retried(|engine| engine.remove(leg)).expect("it is in force");
    assert_eq!(bed.finish(), [Completion::Removed(leg)]);
    bed.engine.release(leg);
    bed.expect_device_rules(base);
}

/// A fence falls and comes back while packets pass: while it is up none comes to a rule, and the rules stay.
fn a_fence_keeps_packets_from_rules(bed: &mut Bed<'_>, base: usize) {
    install_all(bed, None);
    for round in 0..3 {
        takes_hardware(bed);
        bed.fence(bed::GROUPS);
        assert!(takes_software(bed, 0..PAIRS), "no packet comes to a rule");
        // Of the first connection there were packets while it went up and down.
        let counted = bed.engine.count(legs(1)[0]).map(|count| count.packets);
        assert_eq!(counted, Ok(round + 1), "and none is counted there");
        bed.fence(0);
    }
    takes_hardware(bed);
    assert_eq!(bed.engine.take_base_failures(), 0);
    bed.expect_device_rules(base + 2 * PAIRS as usize);
    // Rules leave behind it, too.
    bed.fence(bed::GROUPS);
    remove_all(bed);
    bed.fence(0);
    assert!(takes_software(bed, 0..PAIRS));
    release_all(bed);
    bed.expect_device_rules(base);
}

fn idle_rules_are_reported(bed: &mut Bed<'_>, base: usize) {
    let mut silent: HashSet<_> = legs(7).into_iter().collect();
    assert_eq!(bed.install(7, Some(1)), []);
    assert_eq!(bed.finish().len(), 2);
    for _ in 0..200 {
        let mut aged = Vec::with_capacity(16);
        bed.engine.aged(&mut aged);
        aged.iter().for_each(|leg| assert!(legs(7).contains(leg), "{leg:?}"));
        silent.retain(|leg| !aged.contains(leg));
        if silent.is_empty() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert!(silent.is_empty(), "both are told: {silent:?}");
    bed.remove(7);
    assert_eq!(bed.finish().len(), 2);
    legs(7).into_iter().for_each(|leg| bed.engine.release(leg));
    bed.expect_device_rules(base);
}

fn a_flush_leaves_the_base(bed: &mut Bed<'_>, base: usize) {
    install_all(bed, Some(30));
    for n in 0..PAIRS / 2 {
        bed.remove(n);
    }
    bed.engine.flush().expect("the device answers");
    assert_eq!(bed.give_up().iter().filter(|ended| matches!(ended, Completion::Installed(_))).count(), 0);
    bed.expect_device_rules(base);
    assert!(takes_software(bed, 0..PAIRS));
    assert!(matches!(bed.engine.count(legs(0)[0]), Err(EngineError::Lost(_))), "no counter is held");
    bed.engine.flush().expect("it can be done again");
    bed.expect_device_rules(base);
}

fn a_round_leaves_nothing(bed: &mut Bed<'_>, base: usize, round: u32) {
    install_all(bed, (round % 2 == 0).then_some(30));
    takes_hardware(bed);
    remove_all(bed);
    expect_counts(bed, 1);
    release_all(bed);
    bed.expect_device_rules(base);
}
