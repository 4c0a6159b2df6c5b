//! Meters on a driver: what passes, what is dropped, and what is left of them.

use dataplane::flow::Direction;
use offload::engine::{Completion, EngineError, FlowEngine, Kind, Meter};
use offload::lower;

use crate::bed::{self, Bed, Seen, UPLINK, frame, legs};

/// Packets offered to a meter of [`BURST`] and one a second.
const OFFERED: usize = 60;
const BURST: u64 = 8;
/// What comes to it while they are.
const SLACK: usize = 20;

/// All that is said of them, by both engines.
pub(crate) fn limit_what_passes(bed: &mut Bed<'_>) {
    let base = lower::base_rules(&bed.topology).len();
    let traits = bed.engine.traits();
    let metering = traits.meters.expect("it has meters");
    // Hardware steering: a rule for each port, and one for each meter.
    let (ports, each) = if traits.kind == Kind::Template { (2, 1) } else { (0, 0) };
    a_rule_waits_for_its_meter(bed);
    bed.expect_device_rules(base);

    let slow = Meter { packets: true, per_second: 1, burst: BURST };
    bed.set_meter(1, &slow);
    bed.set_meter(2, &Meter { packets: false, per_second: 1_000_000_000, burst: 1_000_000 });
    install(bed, 0, 1);
    install(bed, 1, 2);
    bed.expect_device_rules(base + ports + 2 * each + 4);
    let passed = what_is_red_is_dropped(bed);
    let counted = if metering.counts_red { OFFERED } else { passed };
    let count = bed.engine.count(legs(0)[0]).expect("it has a counter");
    let bytes = frame(0, Direction::Original).len() * counted;
    assert_eq!((count.packets, count.bytes), (counted as u64, bytes as u64));
    others_pass(bed, 1, 2);
    a_change_is_noticed(bed);

    for n in [0, 1] {
        bed.remove(n);
        bed.finish();
        legs(n).into_iter().for_each(|leg| bed.engine.release(leg));
    }
    let proxy = bed.topology.ports[0].proxy;
    // One that comes again at once is another one.
    bed.engine.unset_meter(proxy, 1);
    bed.set_meter(1, &slow);
    assert_eq!(bed.engine.meter_drops(proxy, 1).map(|drops| drops.packets), Ok(0));
    [1, 2, 3].into_iter().for_each(|number| bed.engine.unset_meter(proxy, number));
    bed.expect_device_rules(base + ports);
    assert!(matches!(bed.engine.meter_drops(proxy, 2), Err(EngineError::Lost(_))), "it is gone");
    bed.engine.flush().expect("the device answers");
    bed.give_up();
    bed.expect_device_rules(base);
}

/// Else it would not be limited.
fn a_rule_waits_for_its_meter(bed: &mut Bed<'_>) {
    let [(leg, rule), _] = bed::rules(&bed.topology, 0, None);
    let rule = rule.metered(Some(9)).expect("room for it");
    let said = bed.retried(|engine| engine.install(leg, &rule));
    assert!(matches!(said, Err(EngineError::Refused(_))), "{said:?}");
}

fn install(bed: &mut Bed<'_>, n: u32, meter: u32) {
    for (leg, rule) in bed::rules(&bed.topology, n, None) {
        let rule = rule.metered(Some(meter)).expect("room for it");
        bed.retried(|engine| engine.install(leg, &rule)).expect("a good rule");
    }
    let ended = bed.finish();
    assert!(ended.iter().all(|ended| matches!(ended, Completion::Installed(_))), "{ended:?}");
}

/// How many passed.
fn what_is_red_is_dropped(bed: &mut Bed<'_>) -> usize {
    let frames = vec![frame(0, Direction::Original); OFFERED];
    let ([software, hardware], drops) = bed.offer(UPLINK, &frames, 1);
    assert_eq!(software, Vec::<Vec<u8>>::new(), "what is dropped does not come to software");
    let burst = BURST as usize;
    assert!((burst..burst + SLACK).contains(&hardware.len()), "{}", hardware.len());
    let translated = Seen::translated(&bed.topology, 0, Direction::Original);
    hardware.iter().for_each(|frame| assert_eq!(Seen::of(frame), translated));
    let dropped = OFFERED - hardware.len();
    assert_eq!(drops.packets, dropped as u64);
    assert_eq!(drops.bytes, (dropped * frames[0].len()) as u64);
    hardware.len()
}

/// Each meter for itself.
fn others_pass(bed: &mut Bed<'_>, n: u32, meter: u32) {
    let frames = vec![frame(n, Direction::Original); OFFERED];
    let ([_, hardware], drops) = bed.offer(UPLINK, &frames, meter);
    assert_eq!((hardware.len(), drops.packets), (OFFERED, 0));
}

/// The rules stay, and more passes.
fn a_change_is_noticed(bed: &mut Bed<'_>) {
    bed.set_meter(1, &Meter { packets: true, per_second: 1_000_000_000, burst: 1_000 });
    let frames = vec![frame(0, Direction::Original); OFFERED];
    for _ in 0..1000 {
        bed.pump();
        if bed.offer(UPLINK, &frames, 1).0[1].len() == OFFERED {
            return;
        }
    }
    panic!("it goes on as before");
}
