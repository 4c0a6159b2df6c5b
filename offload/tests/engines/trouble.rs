//! Engines on devices that misbehave.

use std::collections::HashSet;

use offload::engine::{Completion, EngineError, FlowEngine, LegId, Meter};
use offload::lower;

use crate::bed::{self, Bed, legs};
use crate::life;

/// Connections.
const PAIRS: u32 = 300;

/// Tries to install connections; the legs that are in force, and how many the device would not have.
fn install(bed: &mut Bed<'_>, connections: std::ops::Range<u32>) -> (HashSet<LegId>, usize) {
    let mut refused = Vec::new();
    for n in connections {
        refused.extend(bed.install(n, Some(30)));
    }
    let mut in_force = HashSet::new();
    for completion in bed.finish() {
        match completion {
            Completion::Installed(leg) => assert!(in_force.insert(leg)),
            Completion::Failed(leg, error) => refused.push((leg, error)),
            other => panic!("{other:?}"),
        }
    }
    for (leg, error) in &refused {
        let full = matches!(error, EngineError::TableFull | EngineError::NoCounter | EngineError::Failed);
        assert!(full, "{leg:?}: {error}");
        assert!(!in_force.contains(leg));
        assert!(matches!(bed.engine.count(*leg), Err(EngineError::Lost(_))), "nothing of it is left");
    }
    (in_force, refused.len())
}

fn remove(bed: &mut Bed<'_>, in_force: &HashSet<LegId>) {
    for leg in in_force {
        bed.retried(|engine| engine.remove(*leg)).expect("it is in force");
    }
    for completion in bed.finish() {
        match completion {
            Completion::Removed(leg) => assert!(in_force.contains(&leg)),
            other => panic!("{other:?}"),
        }
    }
    in_force.iter().for_each(|leg| bed.engine.release(*leg));
}

/// Refuses some rules, and fails some: what is in force is what the engine says, and it all goes.
pub(crate) fn refusals_leave_nothing(mut bed: Bed<'_>) {
    let base = lower::base_rules(&bed.topology).len();
    bed.expect_device_rules(base);
    for round in 0..3 {
        let (in_force, refused) = install(&mut bed, 0..PAIRS);
        assert!(refused > 0 && !in_force.is_empty(), "{refused} in round {round}");
        bed.expect_device_rules(base + in_force.len());
        remove(&mut bed, &in_force);
        bed.expect_device_rules(base);
    }
    install(&mut bed, 0..PAIRS);
    bed.engine.flush().expect("the device answers");
    bed.expect_device_rules(base);
}

/// Has too little room for all: what goes makes room.
pub(crate) fn a_full_device_takes_again(mut bed: Bed<'_>) {
    bed.make_ready();
    let (mut in_force, refused) = install(&mut bed, 0..PAIRS);
    assert!(refused > 0, "it is too small for all");
    for _ in 0..3 {
        let some: HashSet<LegId> = in_force.iter().take(20).copied().collect();
        remove(&mut bed, &some);
        in_force.retain(|leg| !some.contains(leg));
        let (more, refused) = install(&mut bed, PAIRS..PAIRS + 10);
        assert_eq!((more.len(), refused), (20, 0), "there was room for as many");
        remove(&mut bed, &more);
        let (again, refused) = install(&mut bed, PAIRS + 10..PAIRS + 20);
        assert_eq!((again.len(), refused), (20, 0));
        in_force.extend(again.iter());
        remove(&mut bed, &again);
        in_force.retain(|leg| !again.contains(leg));
    }
    remove(&mut bed, &in_force);
}

/// Completions that never come: a flush ends the waiting, and everything works again.
pub(crate) fn a_flush_ends_the_waiting(mut bed: Bed<'_>) {
    let base = lower::base_rules(&bed.topology).len();
    bed.make_ready();
    for _ in 0..3 {
        for n in 0..PAIRS {
            for leg in legs(n) {
                assert!(bed.engine.count(leg).is_err(), "nothing is left of the round before");
            }
            assert_eq!(bed.install(n, None), []);
        }
        let told = bed.give_up().len();
        assert!(told < 2 * PAIRS as usize, "some completions are lost");
        bed.engine.flush().expect("the device answers");
        assert_eq!(bed.give_up(), [], "what was under way is over");
        bed.make_ready();
        bed.expect_device_rules(base);
    }
}

/// Forgets everything, and then says nothing for a while: both are told as a loss, and a flush puts
/// everything right as soon as the device answers.
pub(crate) fn a_flush_puts_right(bed: &mut Bed<'_>, number: usize) {
    let base = lower::base_rules(&bed.topology).len();
    for faults in ["reset", "hang_ms=300"] {
        let (in_force, refused) = install(bed, 0..PAIRS);
        assert_eq!((in_force.len(), refused), (2 * PAIRS as usize, 0));
        if bed.engine.traits().meters.is_some() {
            install_metered(bed, PAIRS);
        }
        bed::inject(number, faults);
        bed.give_up();
        assert!(is_lost(bed), "{faults} is noticed");
        let mut flushed = bed.engine.flush();
        for _ in 0..100 {
            if flushed.is_ok() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
            flushed = bed.engine.flush();
        }
        assert_eq!(flushed, Ok(()), "after {faults}");
        bed.expect_device_rules(base);
    }
    let (in_force, refused) = install(bed, 0..PAIRS);
    assert_eq!((in_force.len(), refused), (2 * PAIRS as usize, 0));
    bed.expect_device_rules(base + in_force.len());
    if bed.engine.traits().meters.is_some() {
        install_metered(bed, PAIRS);
    }
}

/// A connection whose rules name a meter: one that a flush has left behind could not be made again.
fn install_metered(bed: &mut Bed<'_>, n: u32) {
    let rate = Meter { packets: true, per_second: 1_000, burst: 100 };
    for (leg, rule) in bed::rules(&bed.topology, n, None) {
        bed.set_meter(1, &rate);
        let rule = rule.metered(Some(1)).expect("room for it");
        bed.retried(|engine| engine.install(leg, &rule)).expect("a good rule");
    }
    bed.give_up();
}

/// The device says nothing for a while, just when a fence is to be raised: as long as rules lead packets to
/// those of connections there is none, and no trouble is made of what is tried again.
pub(crate) fn a_fence_is_up_when_its_rules_are_out(bed: &mut Bed<'_>, number: usize) {
    let (in_force, _) = install(bed, 0..PAIRS);
    bed::inject(number, "hang_ms=200");
    assert!(bed.engine.fence(bed::GROUPS));
    let mut claims = 0;
    for _ in 0..1000 {
        let up = bed.engine.fenced() == bed::GROUPS;
        if up {
            assert!(life::takes_software(bed, 0..8), "packets come to rules although it is up");
            claims += 1;
        }
        if claims == 3 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
        bed.pump();
    }
    assert_eq!(claims, 3, "it is up at last; {} failures", bed.engine.take_base_failures());
    bed.fence(0);
    remove(bed, &in_force);
}

/// Whether some operation tells that the device is not as it was, or none of some ends.
fn is_lost(bed: &mut Bed<'_>) -> bool {
    let mut begun = 0;
    for leg in (0..10).flat_map(legs) {
        match bed.engine.remove(leg) {
            Err(EngineError::Lost(_)) => return true,
            Err(EngineError::QueueFull) => {}
            other => {
                assert_eq!(other, Ok(()));
                begun += 1;
            }
        }
        bed.pump();
    }
    bed.give_up().len() < begun
}
