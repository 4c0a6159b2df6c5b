//! How many rules a second go in and out of an engine.

use dpdk::{Eal, clock};
use offload::engine::{Completion, FlowEngine};

use crate::bed::{self, Bed, RULES_MAX, legs};

/// Connections: as many as there is room for.
const PAIRS: u32 = RULES_MAX / 2;

/// Rounds, of which the first warms up.
const ROUNDS: u32 = 20;

/// Prints installations and removals a second, by the cycle counter.
pub(crate) fn is_printed(mut bed: Bed<'_>, eal: &Eal, what: &str) {
    let rules: Vec<_> = (0..PAIRS).flat_map(|n| bed::rules(&bed.topology, n, Some(30))).collect();
    let (mut installing, mut removing) = (0, 0);
    for round in 0..ROUNDS {
        let begin = clock::rdtsc();
        for (leg, rule) in &rules {
            bed.retried(|engine| engine.install(*leg, rule)).expect("there is room");
        }
        assert!(bed.finish().iter().all(|ended| matches!(ended, Completion::Installed(_))));
        let between = clock::rdtsc();
        (0..PAIRS).for_each(|n| bed.remove(n));
        bed.finish();
        let end = clock::rdtsc();
        (0..PAIRS).flat_map(legs).for_each(|leg| bed.engine.release(leg));
        if round > 0 {
            (installing, removing) = (installing + between - begin, removing + end - between);
        }
    }
    let rate = |cycles: u64| {
        let rules = f64::from(ROUNDS - 1) * rules.len() as f64;
        rules * clock::tsc_hz(eal) as f64 / cycles as f64
    };
    println!(
        "{what}: {:.0} installations a second, {:.0} removals, of {} rules each",
        rate(installing),
        rate(removing),
        rules.len()
    );
}
