//! The index against a set, and how full it gets.

use std::collections::HashMap;

use proptest::prelude::*;

use crate::conntrack::index::{Index, Reference};
use crate::conntrack::tags::{WAYS, ways_one_by_one, ways_with};
use crate::flow::Direction;

fn mix(n: u64) -> u64 {
    let product = u128::from(n ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93_u128;
    (product ^ (product >> 64)) as u64
}

fn reference(n: u32) -> Reference {
    Reference::new(n / 2, if n % 2 == 0 { Direction::Original } else { Direction::Reply })
}

fn holds(index: &Index, hash: u64, reference: Reference) -> bool {
    index
        .find(hash, |found| found.slot() == reference.slot() && found.direction() == reference.direction())
        .is_some()
}

#[test]
fn takes_every_reference_it_was_made_for() {
    for references in [1, 7, 100, 1_000, if cfg!(miri) { 2_000 } else { 300_000 }] {
        for seed in 0..8 {
            let mut index = Index::new(references as usize);
            let hash = |n: u32| mix(u64::from(n) << 8 | seed);
            for n in 0..references {
                assert!(index.insert(hash(n), reference(n)), "{n} of {references}");
            }
            assert!((0..references).all(|n| holds(&index, hash(n), reference(n))));
            for n in 0..references {
                assert!(index.remove(hash(n), reference(n)));
                assert!(!holds(&index, hash(n), reference(n)));
            }
            assert_eq!(index.away_total(), 0);
        }
    }
}

/// The smaller a table, the likelier that many references have but one bucket to go to.
#[test]
fn small_ones_refuse_nothing_either() {
    for seed in 0..if cfg!(miri) { 4 } else { 4_000 } {
        let references = 2 + seed % 63;
        let mut index = Index::new(references);
        let hash = |n: usize| mix((n as u64) << 32 | seed as u64);
        assert!((0..references).all(|n| index.insert(hash(n), reference(n as u32))), "{references}, {seed}");
    }
}

#[test]
fn load_factor_reaches_98_percent() {
    let ways = 100_000usize;
    let mut index = Index::new(ways * 90 / 100);
    let taken = (0..).take_while(|&n| index.insert(mix(u64::from(n)), reference(n))).count();
    let load = taken as f64 / (index.memory_bytes() / 64 * WAYS) as f64;
    println!("index of {WAYS}-way buckets refused its first reference at load {load:.4}");
    assert!(load >= 0.98, "{load}");
}

#[test]
fn one_hash_fills_two_buckets_and_no_more() {
    let mut index = Index::new(1_000);
    let hash = mix(42);
    let taken = (0..100).take_while(|&n| index.insert(hash, reference(n))).count();
    assert!(taken == WAYS || taken == 2 * WAYS, "{taken}");
    assert!((0..taken as u32).all(|n| holds(&index, hash, reference(n))));
    assert!(index.insert(mix(7), reference(200)), "others are not disturbed");
}

proptest! {
    /// Few values, so that tags repeat; among them that of free ways.
    #[test]
    fn tags_are_compared_as_one_by_one(tags in prop::array::uniform10(0u16..4), tag in 0u16..4, high in any::<u16>()) {
        prop_assert_eq!(ways_with(&tags, tag), ways_one_by_one(&tags, tag));
        let (tags, tag) = (tags.map(|tag| tag << 14 | high >> 2), tag << 14 | high >> 2);
        prop_assert_eq!(ways_with(&tags, tag), ways_one_by_one(&tags, tag));
    }

    /// Few hashes over few buckets: full buckets, chains of moves and moves back all happen.
    #[test]
    fn agrees_with_a_map(operations in prop::collection::vec((0u32..80, any::<bool>()), 1..600)) {
        let mut index = Index::of_buckets(7);
        let mut model = HashMap::new();
        for (n, insert) in operations {
            let hash = mix(u64::from(n % 50));
            if !insert {
                prop_assert_eq!(index.remove(hash, reference(n)), model.remove(&n).is_some());
            } else if !model.contains_key(&n) && index.insert(hash, reference(n)) {
                model.insert(n, hash);
            }
            prop_assert!((0..80).all(|n| holds(&index, mix(u64::from(n % 50)), reference(n)) == model.contains_key(&n)));
        }
        for (n, hash) in model {
            prop_assert!(index.remove(hash, reference(n)));
        }
        prop_assert_eq!(index.away_total(), 0);
    }

    #[test]
    fn the_other_bucket_of_the_other_bucket_is_the_first(
        references in 1usize..100_000,
        bucket in any::<u32>(),
        tag in 1u16..,
    ) {
        let index = Index::new(references);
        let buckets = (index.memory_bytes() / 64) as u32;
        let bucket = bucket % buckets;
        let other = index.alternate(bucket, tag);
        prop_assert!(other < buckets);
        prop_assert_eq!(index.alternate(other, tag), bucket);
    }
}
