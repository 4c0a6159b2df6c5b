//! The model against a naive reference of the eSwitch that shares none of its code: a parser, matching on
//! bytes by a search through all rules, actions that rebuild frames and compute checksums from scratch.
//!
//! Random rules come and go, random packets pass, and both must agree about every packet (door, bytes, marks)
//! and every counter and age. `ESWITCH_CASES` is the number of packets in each steering mode, 20,000 unless
//! given; `ESWITCH_SEED` the first seed. Each world lives for [`LIFE`] packets.

mod anatomy;
mod dice;
mod edit;
mod frames;
mod hardware;
mod pattern;
mod rules;
mod software;
mod templates;
mod trial;
mod world;

use edit::Sums;
use trial::{Difference, Report};
use world::Canary;

/// Packets of one world.
const LIFE: u64 = 400;

type Run = fn(u64, u64, Canary) -> Result<Report, Difference>;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn compare(run: Run) -> Report {
    let (cases, first) = (number("ESWITCH_CASES", 20_000), number("ESWITCH_SEED", 1));
    let mut total = Report::default();
    for world in 0..cases.div_ceil(LIFE) {
        let seed = first.wrapping_add(world);
        match run(seed, LIFE, Canary::default()) {
            Ok(report) => total.add(&report),
            Err(difference) => panic!("ESWITCH_SEED={seed} ESWITCH_CASES={LIFE}: {difference}"),
        }
    }
    println!("{total:?}");
    total
}

/// The packets it takes to find out that the reference is wrong on purpose, in worlds.
fn worlds_until_caught(run: Run, canary: Canary) -> u64 {
    (1..=50).find(|seed| run(*seed, LIFE, canary).is_err()).unwrap_or(u64::MAX)
}

/// That the comparison was about something.
fn is_rich(report: &Report) {
    let Report { packets, hits, contests, forwarded, rewritten, received, accepted, .. } = *report;
    assert!(packets >= 1000);
    assert!(hits * 2 > packets, "packets hit rules: {report:?}");
    assert!(contests * 8 > packets, "rules overlap: {report:?}");
    assert!(forwarded * 8 > packets && received * 8 > packets, "all doors are used: {report:?}");
    assert!(rewritten * 20 > packets, "bytes change: {report:?}");
    assert!(accepted > report.refused, "most rules are accepted: {report:?}");
    assert!(report.counters > 0 && report.aged > 0, "rules count and age: {report:?}");
}

#[test]
fn software_steering_does_what_the_reference_does() {
    is_rich(&compare(software::run));
}

#[test]
fn hardware_steering_does_what_the_reference_does() {
    is_rich(&compare(hardware::run));
}

#[test]
fn a_wrong_reference_is_caught() {
    let canaries = [
        Canary { swapped_priority: true, ..Canary::default() },
        Canary { swapped_age: true, ..Canary::default() },
        Canary { swapped_duplicates: true, ..Canary::default() },
        Canary { fragments_match: true, ..Canary::default() },
        Canary { sums: Sums { ignore_pseudo_header: true, ..Sums::default() }, ..Canary::default() },
        Canary { sums: Sums { fill_absent_udp: true, ..Sums::default() }, ..Canary::default() },
    ];
    for canary in canaries {
        for (mode, run) in [("software", software::run as Run), ("hardware", hardware::run)] {
            let worlds = worlds_until_caught(run, canary);
            println!("{mode}: caught in world {worlds}: {canary:?}");
            assert!(worlds <= 10, "{mode}: caught after {worlds} worlds: {canary:?}");
        }
    }
}
