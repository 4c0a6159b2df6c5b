//! Packets through many rules, in no order.

use super::rules::{FRAME, Rule, frame, hits};
use super::{BURST, Lab, Registered, Shuffle, ffi, say, setting};

/// Software steering at no cost: what remains is the driver's own.
const FREE: &str = "profile=ideal,dv_flow_en=1";

/// Installs the rules of the first connections; their handles.
fn install(lab: &Lab, count: u32) -> Vec<*mut ffi::rte_flow> {
    (0..count).map(|n| Rule::new(n, lab.ports[1]).create(lab.ports[0]).expect("legal")).collect()
}

#[test]
fn every_packet_takes_its_rule_and_is_counted_there() {
    const RULES: u32 = 3000;
    const PACKETS: usize = 20_000;
    let mut lab = Lab::new(FREE);
    lab.start();
    let flows = install(&lab, RULES);
    let frames: Vec<[u8; FRAME]> = (0..RULES).map(frame).collect();
    let mut shuffle = Shuffle(1);
    let order: Vec<u32> = (0..PACKETS).map(|_| shuffle.below(RULES)).collect();
    let seen = lab.pass(order.iter().map(|n| frames[*n as usize].as_slice()));
    assert_eq!(seen, [PACKETS, 0], "all leave by the other wire");
    let mut expected = vec![0_u64; RULES as usize];
    order.iter().for_each(|n| expected[*n as usize] += 1);
    let counted: Vec<u64> = flows.iter().map(|flow| hits(lab.ports[0], *flow)).collect();
    assert_eq!(counted, expected);
    let misses = [frame(RULES), frame(RULES + 1), frame(RULES + 2)];
    assert_eq!(lab.pass(misses.iter().map(<[u8; FRAME]>::as_slice)), [0, 3], "no rule, no translation");
}

/// Offers a burst of frames in no order.
fn offer(lab: &mut Lab, frames: &[[u8; FRAME]], shuffle: &mut Shuffle) -> usize {
    lab.offer((0..BURST).map(|_| frames[shuffle.below(frames.len() as u32) as usize].as_slice()))
}

/// Nanoseconds per packet of `body`, which returns how many it moved: the median of some rounds.
fn measure(lab: &mut Lab, mut body: impl FnMut(&mut Lab) -> usize) -> f64 {
    const ROUNDS: usize = 15;
    const PACKETS: usize = 400_000;
    let clock = lab.switch.clock;
    let mut rounds = [0.0; ROUNDS];
    for round in &mut rounds {
        let (begin, mut moved) = (clock.now(), 0);
        while moved < PACKETS {
            moved += body(lab);
        }
        *round = clock.now().since(begin) as f64 / moved as f64;
    }
    rounds.sort_by(f64::total_cmp);
    rounds[ROUNDS / 2]
}

/// Prints what a packet costs, through rings and driver, and what rings and frames alone cost.
#[test]
#[ignore = "a bench"]
fn bench_forward() {
    let _registered = Registered::new();
    for size in [1_000, setting("ESWITCH_BENCH_RULES", 1_000_000)] {
        let mut lab = Lab::new(FREE);
        lab.start();
        let begin = lab.switch.clock.now();
        install(&lab, size);
        let rule = lab.switch.clock.now().since(begin) as f64 / f64::from(size);
        let frames: Vec<[u8; FRAME]> = (0..size).map(frame).collect();
        let mut shuffle = Shuffle(1);
        let whole = measure(&mut lab, |lab| {
            offer(lab, &frames, &mut shuffle);
            lab.poll(0);
            lab.collect()
        });
        let floor = measure(&mut lab, |lab| {
            offer(lab, &frames, &mut shuffle);
            lab.bypass();
            lab.collect()
        });
        say(&format!(
            "forward, {size} rules of 3 masks, hit in no order: {whole:.1} ns a packet, {:.2} Mpps; of these \
             {floor:.1} ns are the far ends' own; driver and wires {:.1} ns, {:.2} Mpps; to make a rule took \
             {rule:.0} ns",
            1e3 / whole,
            whole - floor,
            1e3 / (whole - floor),
        ));
    }
}
