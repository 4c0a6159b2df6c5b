//! The same seed and the same operations give the same history, to the last byte and nanosecond; another seed
//! gives another timing.

use crate::support::machine::{Trace, run};
use proptest::prelude::*;

/// Operations from a number (SplitMix64). The first byte: steering and profile; `faults`: they come first.
fn operations(first: u8, faults: bool, seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    let mut word = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 32
    };
    let mut bytes = vec![first, 8];
    if faults {
        // Operation 10 with the last of the faults.
        bytes.extend([10, 8]);
    }
    bytes.extend((0..len).map(|_| word() as u8));
    bytes
}

fn twice(input: &[u8], seed: u64) -> (Trace, u64) {
    let (one, other) = (run(input, seed), run(input, seed));
    assert_eq!(one, other, "the same seed, the same operations");
    one
}

/// Profiles with times that vary, in each steering mode: as `machine::PROFILES` has them.
const VARYING: [u8; 4] = [3 << 1, 2 << 1, 1 << 1 | 1, 2 << 1 | 1];

#[test]
fn the_same_seed_gives_the_same_history() {
    let mut rules = 0;
    for first in 0..10 {
        for faults in [false, true] {
            rules += twice(&operations(first, faults, u64::from(first), 6000), 7).1;
        }
    }
    assert!(rules > 200, "most of it was refused: {rules} rules");
}

#[test]
fn another_seed_gives_other_times() {
    for first in VARYING {
        for faults in [false, true] {
            let input = operations(first, faults, 5, 6000);
            assert_ne!(twice(&input, 1).0, twice(&input, 2).0, "profile and steering {first}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// What the fuzzer does for longer.
    #[test]
    fn whatever_is_asked_of_a_device_it_holds_together(
        input in proptest::collection::vec(any::<u8>(), 0..2000),
        seed in any::<u64>(),
    ) {
        twice(&input, seed);
    }
}
