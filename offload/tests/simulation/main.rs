//! The whole system under one seed: real workers, wires, clients, backends, an operator and misfortune, one
//! thread, virtual time. A `u64` chooses everything; the same one does the same again.
//!
//! * [`scenario`]: what a seed means. [`world`], [`play`]: what happens. [`hosts`], [`tcp`], [`frames`]: who
//!   speaks and what.
//! * [`oracle`], [`check`]: what should have happened; written without Millrace's code. [`trace`]: what did.
//!
//! * [`policy`]: who may talk, and whether workers and rules keep to it. [`hitters`]: whom rules drop.
//! * [`nic`]: the offload machine, and the eSwitch that executes its rules. [`audit`]: whether they agree.
//! * [`canary`]: what is broken on purpose, for the checkers to notice.
//!
//! `SIM_SEEDS=100000` runs as many seeds from `SIM_FIRST` (0) on; `SIM_SEED=7` runs one; `SIM_TRACE=1`
//! prints every event. Many seeds are best run optimised, by adding `--profile simulation` after `test`:
//!
//! ```text
//! SIM_SEEDS=1000 cargo test --profile simulation -p offload --features sim --test simulation -- --nocapture
//! ```

mod audit;
mod canary;
mod check;
mod env;
mod frames;
mod hitters;
mod hosts;
mod nic;
mod oracle;
mod packet;
mod play;
mod policy;
mod report;
mod rng;
mod scenario;
mod tcp;
mod trace;
mod world;

use canary::Canary;
use report::Totals;
use scenario::Scenario;
use trace::{Checker, Failure};
use world::World;

/// Seeds within which a canary must be caught.
const CANARY_SEEDS: u64 = 80;
/// Seeds of an ordinary test run.
const SEEDS: u64 = 3;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// What a run came to.
struct Outcome {
    hash: u64,
    failure: Option<Failure>,
    tail: String,
    totals: Totals,
}

fn run(seed: u64, canary: Option<Canary>) -> Outcome {
    let mut world = World::new(Scenario::of(seed), canary);
    world.run();
    Outcome {
        hash: world.trace.hash(),
        failure: world.trace.failure().cloned(),
        tail: world.trace.tail(),
        totals: Totals::of(&world),
    }
}

/// Runs a seed; explains and panics if a checker complains.
fn must_pass(seed: u64) -> Outcome {
    let outcome = std::panic::catch_unwind(|| run(seed, None)).unwrap_or_else(|panic| {
        eprintln!("{}", report::repro(seed));
        std::panic::resume_unwind(panic)
    });
    if let Some(failure) = &outcome.failure {
        panic!(
            "\n{}\nlast events:\n{}{failure}\n{}",
            Scenario::of(seed).summary(),
            outcome.tail,
            report::repro(seed)
        );
    }
    outcome
}

#[test]
fn one_seed() {
    let seed = number("SIM_SEED").unwrap_or(1);
    println!("{}", Scenario::of(seed).summary());
    println!("{}", must_pass(seed).totals);
}

#[test]
fn many_seeds() {
    let first = number("SIM_FIRST").unwrap_or(0);
    let seeds = number("SIM_SEEDS").unwrap_or(SEEDS);
    let mut totals = Totals::default();
    for seed in first..first + seeds {
        totals.add(&must_pass(seed).totals);
    }
    println!("{totals}");
}

/// Each broken part is noticed, by a checker whose business it is.
fn must_be_caught(canary: Canary, by: &[Checker]) {
    for seed in 0..CANARY_SEEDS {
        let caught = std::panic::catch_unwind(|| run(seed, Some(canary)));
        let Ok(outcome) = caught else {
            println!("{canary:?}: an assertion of Millrace's own failed with seed {seed}");
            continue;
        };
        let Some(failure) = outcome.failure else { continue };
        let text = failure.text.lines().next().unwrap_or_default().chars().take(160).collect::<String>();
        println!("{canary:?}: seed {seed}, {:?}: {text}", failure.checker);
        assert!(by.contains(&failure.checker), "{canary:?} was taken for {failure}");
        return;
    }
    panic!("{canary:?} lives after {CANARY_SEEDS} seeds");
}

macro_rules! canaries {
    ($($name:ident: $canary:ident by $($checker:ident)|+;)+) => {
        $(#[test]
        #[ignore = "takes long unless optimised; scripts/test.sh runs it"]
        fn $name() {
            must_be_caught(Canary::$canary, &[$(Checker::$checker),+]);
        })+
    };
}

canaries! {
    canary_drops_revocations: DropsRevocations by Liveness | Orphans;
    canary_wrong_reply_port: WrongReplyPort by Agreement;
    canary_wrong_backend: WrongBackend by Affinity | Agreement;
    canary_keeps_ttl: KeepsTtl by Agreement;
    canary_takes_fin: TakesFin by Agreement;
    canary_failed_is_installed: FailedIsInstalled by Orphans;
    canary_leaks_rule: LeaksRule by Orphans | Affinity;
    canary_forgets_last_counts: ForgetsLastCounts by Accounting;
    canary_counts_twice: CountsTwice by Accounting;
    canary_loses_packet: LosesPacket by Conservation;
    canary_ignores_generation: IgnoresGeneration by Orphans | Accounting | Liveness | Affinity;
    canary_ignores_policy: IgnoresPolicy by Policy;
    canary_removes_late: RemovesLate by Policy;
    canary_keeps_drops: KeepsDrops by Policy | Orphans;
    canary_forgets_drops: ForgetsDrops by Accounting;
    canary_stops: Stops by Liveness | Orphans;
}

#[test]
fn the_same_seed_does_the_same() {
    for seed in [3, 33] {
        assert_eq!(must_pass(seed).hash, must_pass(seed).hash, "seed {seed}");
    }
    assert_ne!(must_pass(3).hash, must_pass(4).hash);
}
