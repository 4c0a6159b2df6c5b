//! Rules that drop, beside those of connections.

use dataplane::flow::{Direction, FlowKey, Protocol};
use dataplane::offload::RuleId;
use offload::engine::{Completion, EngineError, FlowEngine, LegId};
use offload::lower::{self, Topology};
use offload::machine::numbers_max;

use crate::bed::{self, Bed, RULES_MAX, UPLINK, ask, frame, legs};
use crate::life::takes_software;

/// Tuples, of all kinds; the first one is used while a fence goes up.
const TUPLES: std::ops::Range<u32> = 4..44;

/// The names of rules that drop come behind those of connections; this is among the last.
fn leg(n: u32) -> LegId {
    LegId { rule: RuleId(numbers_max(RULES_MAX) - 1 - n), direction: Direction::Original }
}

/// A SYN, or a datagram, of the `n`th connection.
fn opening(n: u32) -> Vec<u8> {
    let mut frame = frame(n, Direction::Original);
    if ask(n).key.protocol == Protocol::Tcp {
        let flags = if ask(n).key.src.is_v4() { 47 } else { 67 };
        frame[flags] = 2;
    }
    frame
}

fn install(bed: &mut Bed<'_>, topology: &Topology, n: u32, key: &FlowKey) {
    let rule = lower::denial(topology, UPLINK, key).expect("hardware can");
    bed.retried(|engine| engine.install(leg(n), &rule)).expect("the driver takes it");
}

fn remove_all(bed: &mut Bed<'_>) {
    for n in TUPLES {
        bed.retried(|engine| engine.remove(leg(n))).expect("it is in force");
    }
    assert!(bed.finish().iter().all(|ended| matches!(ended, Completion::Removed(_))));
}

/// What is denied is dropped, whatever its flags, and counted to the byte; nothing else is; and a fence keeps
/// it from the rules as it does what is forwarded.
pub(crate) fn are_dropped_and_counted(bed: &mut Bed<'_>) {
    let base = lower::base_rules(&bed.topology).len();
    bed.expect_device_rules(base);
    let mut topology = bed.topology.clone();
    topology.ports.iter_mut().for_each(|port| port.any_mac = false);
    TUPLES.for_each(|n| install(bed, &topology, n, &ask(n).key));
    assert!(bed.finish().iter().all(|ended| matches!(ended, Completion::Installed(_))));
    bed.expect_device_rules(base + TUPLES.len());

    let frames: Vec<_> = TUPLES.flat_map(|n| [opening(n), frame(n, Direction::Original)]).collect();
    for _ in 0..3 {
        bed.lose(UPLINK, &frames);
    }
    assert!(takes_software(bed, 44..84), "other tuples' packets");
    let replies: Vec<_> = TUPLES.map(|n| frame(n, Direction::Reply)).collect();
    assert_eq!(bed.pass(bed::HOST, &replies)[1].len(), replies.len(), "what comes in by another port");
    expect_counts(bed, 6);
    bed.fence(bed::GROUPS);
    bed.pass(UPLINK, &frames);
    bed.fence(0);
    expect_counts(bed, 6);
    remove_all(bed);
    bed.expect_device_rules(base);
    assert!(takes_software(bed, TUPLES));
    expect_counts(bed, 6);
    for n in TUPLES {
        bed.engine.release(leg(n));
        assert!(matches!(bed.engine.count(leg(n)), Err(EngineError::Lost(_))), "its counter is given back");
    }
    leave_other_stations_alone(bed, base);
    yield_to_connections(bed, &topology, base);
}

fn expect_counts(bed: &mut Bed<'_>, packets: u64) {
    for n in TUPLES {
        let count = bed.engine.count(leg(n)).expect("it has a counter");
        let bytes = packets * opening(n).len() as u64;
        assert_eq!((count.packets, count.bytes), (packets, bytes), "{n}");
    }
}

/// Where the port is a bump in the wire.
fn leave_other_stations_alone(bed: &mut Bed<'_>, base: usize) {
    let topology = bed.topology.clone();
    install(bed, &topology, 0, &ask(0).key);
    assert_eq!(bed.finish(), [Completion::Installed(leg(0))]);
    assert!(takes_software(bed, 0..1), "it is for another station");
    let mut ours = opening(0);
    ours[..6].copy_from_slice(&topology.ports[0].mac.0);
    bed.lose(UPLINK, &[ours]);
    bed.retried(|engine| engine.remove(leg(0))).expect("it is in force");
    assert_eq!(bed.finish(), [Completion::Removed(leg(0))]);
    bed.engine.release(leg(0));
    bed.expect_device_rules(base);
}

/// Should both be in force, for a moment: the connection's comes first, whichever came in first.
fn yield_to_connections(bed: &mut Bed<'_>, topology: &Topology, base: usize) {
    for first in [true, false] {
        for n in 0..4 {
            if first {
                install(bed, topology, n, &ask(n).key);
                bed.finish();
            }
            assert_eq!(bed.install(n, None), []);
            bed.finish();
            if !first {
                install(bed, topology, n, &ask(n).key);
                bed.finish();
            }
            let seen = bed.pass(UPLINK, &[frame(n, Direction::Original)]);
            assert_eq!((seen[0].len(), seen[1].len()), (0, 1), "forwarded");
            bed.remove(n);
            bed.retried(|engine| engine.remove(leg(n))).expect("it is in force");
            bed.finish();
            legs(n).into_iter().chain([leg(n)]).for_each(|leg| bed.engine.release(leg));
        }
    }
    bed.expect_device_rules(base);
}
