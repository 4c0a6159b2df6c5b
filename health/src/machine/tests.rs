//! The machine under virtual time, with backends that answer or do not.

use super::*;
use dataplane::config::Probe;
use dataplane::snapshot::OnRemove;
use proptest::prelude::*;

fn health() -> Health {
    Health {
        probe: Probe::Tcp,
        port: None,
        interval_ms: 250,
        timeout_ms: 200,
        rise: 2,
        fall: 3,
        initially_up: true,
        passive: false,
        panic_percent: 0,
        slow_start_s: 0,
        on_down: OnRemove::Drain,
    }
}

fn spec(health: Health, backends: u32) -> ServiceSpec {
    let backend = |n| BackendSpec { address: Ip::v4(0x0a00_0000 + n), port: None, counts: true };
    ServiceSpec {
        name: "web".into(),
        health: Arc::new(health),
        backends: (0..backends).map(backend).collect(),
    }
}

/// What a backend's probes meet.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Fate {
    Answers,
    Silent,
    Refuses,
    /// The checker itself fails.
    Blind,
    /// It is silent, and our own side loses packets.
    Drowned,
    /// Nobody knows where it is.
    Unfound,
}

struct Bench {
    now: u64,
    machine: Machine,
    fates: Vec<Fate>,
    probes: Vec<u64>,
    /// Probes under way: when they end, whose, and how.
    under_way: Vec<(u64, TargetId, Outcome)>,
}

impl Bench {
    fn new(health: Health, backends: usize) -> Bench {
        let mut machine = Machine::new(7);
        machine.configure(0, vec![spec(health, backends as u32)]);
        let (fates, probes) = (vec![Fate::Answers; backends], vec![0; backends]);
        Bench { now: 0, machine, fates, probes, under_way: Vec::new() }
    }

    fn run_ms(&mut self, ms: u64) {
        for _ in 0..ms {
            let (ended, rest) = self.under_way.iter().partition(|(at, ..)| *at <= self.now);
            self.under_way = rest;
            let ended: Vec<(u64, TargetId, Outcome)> = ended;
            for (_, id, outcome) in ended {
                self.machine.on_outcome(self.now, id, outcome);
            }
            while let Some(id) = self.machine.take_due(self.now) {
                let index = id.0 as usize;
                self.probes[index] += 1;
                let (after, outcome) = match self.fates[index] {
                    Fate::Answers => (1, Outcome::Good),
                    Fate::Refuses => (1, Outcome::Bad(Cause::Refused)),
                    Fate::Silent => (200, Outcome::Bad(Cause::Timeout)),
                    Fate::Blind => (200, Outcome::Void),
                    Fate::Drowned => (200, Outcome::Unclear),
                    Fate::Unfound => (200, Outcome::Unfound),
                };
                self.under_way.push((self.now + after, id, outcome));
            }
            self.machine.tick(self.now);
            self.now += 1;
        }
    }

    fn standings(&self) -> Vec<Standing> {
        let views = self.machine.views().flat_map(|(_, _, views)| views);
        views.map(|(_, view)| view.standing).collect()
    }

    fn up(&self) -> Vec<bool> {
        self.standings().iter().map(|standing| standing.up).collect()
    }

    fn panics(&self) -> bool {
        self.machine.views().any(|(_, panic, _)| panic)
    }
}

#[test]
fn at_defaults_a_dead_backend_is_out_within_a_second_whenever_it_dies() {
    for dies_at in 0..300 {
        for fate in [Fate::Silent, Fate::Refuses] {
            let mut bench = Bench::new(health(), 2);
            bench.run_ms(1000 + dies_at);
            assert_eq!(bench.up(), [true, true]);
            bench.fates[0] = fate;
            bench.run_ms(920);
            assert_eq!(bench.up(), [false, true], "{fate:?} from {dies_at}");
            bench.fates[0] = Fate::Answers;
            bench.run_ms(760);
            assert_eq!(bench.up(), [true, true]);
            let causes: Vec<_> = bench.machine.take_transitions().iter().map(|t| (t.to, t.cause)).collect();
            let cause = if fate == Fate::Silent { Cause::Timeout } else { Cause::Refused };
            let expected = [
                (State::Up, Cause::Answered),
                (State::Up, Cause::Answered),
                (State::Down, cause),
                (State::Up, Cause::Answered),
            ];
            assert_eq!(causes, expected);
        }
    }
}

#[test]
fn all_are_probed_at_once_and_then_evenly() {
    let mut bench = Bench::new(health(), 50);
    bench.run_ms(1);
    assert!(bench.probes.iter().all(|&probes| probes == 1));
    bench.run_ms(10_000);
    assert!(bench.probes.iter().all(|&probes| (38..=48).contains(&probes)), "{:?}", bench.probes);
    // Jitter has driven them apart.
    let before: u64 = bench.probes.iter().sum();
    bench.run_ms(25);
    let within = bench.probes.iter().sum::<u64>() - before;
    assert!((1..=20).contains(&within), "{within} of 50 within a tenth of the interval");
}

#[test]
fn an_unknown_backend_counts_as_configured_until_it_answers() {
    let mut bench = Bench::new(Health { initially_up: false, ..health() }, 2);
    assert_eq!(bench.up(), [false, false]);
    bench.fates[1] = Fate::Silent;
    bench.run_ms(10);
    assert_eq!(bench.up(), [true, false]);
    bench.run_ms(1000);
    assert_eq!((bench.up(), bench.panics()), (vec![true, false], false));
}

#[test]
fn when_none_is_up_health_is_ignored() {
    let mut bench = Bench::new(health(), 4);
    bench.run_ms(500);
    bench.fates.fill(Fate::Silent);
    bench.fates[3] = Fate::Answers;
    bench.run_ms(1000);
    assert_eq!((bench.up(), bench.panics()), (vec![false, false, false, true], false));
    bench.fates[3] = Fate::Refuses;
    bench.run_ms(1000);
    assert_eq!((bench.up(), bench.panics()), (vec![true; 4], true));
    bench.fates[0] = Fate::Answers;
    bench.run_ms(1000);
    assert_eq!((bench.up(), bench.panics()), (vec![true, false, false, false], false));
}

#[test]
fn below_the_threshold_health_is_ignored() {
    let mut bench = Bench::new(Health { panic_percent: 50, ..health() }, 4);
    bench.run_ms(500);
    bench.fates[..2].fill(Fate::Silent);
    bench.run_ms(1000);
    assert_eq!((bench.up(), bench.panics()), (vec![false, false, true, true], false));
    bench.fates[2] = Fate::Silent;
    bench.run_ms(1000);
    assert_eq!((bench.up(), bench.panics()), (vec![true; 4], true));
}

#[test]
fn a_drained_backend_neither_saves_nor_endangers_the_others() {
    let mut bench = Bench::new(health(), 2);
    let mut drained = spec(health(), 2);
    drained.backends[0].counts = false;
    bench.machine.configure(0, vec![drained]);
    bench.fates[1] = Fate::Silent;
    bench.run_ms(2000);
    assert!(bench.panics(), "the only one that would take connections is down");
}

#[test]
fn a_blind_checker_marks_nothing_down() {
    let mut bench = Bench::new(health(), 3);
    bench.run_ms(500);
    bench.fates.fill(Fate::Blind);
    bench.run_ms(60_000);
    assert_eq!(bench.up(), [true; 3]);
    assert_eq!(bench.machine.take_transitions().len(), 3, "those of the start");
}

#[test]
fn a_flood_does_not_keep_a_dead_backend_in_service() {
    let mut bench = Bench::new(health(), 3);
    bench.run_ms(1000);
    // Two probes that may have been lost say nothing,
    bench.fates[0] = Fate::Drowned;
    let before = bench.probes[0];
    while bench.probes[0] < before + 2 {
        bench.run_ms(1);
    }
    bench.run_ms(201);
    bench.fates[0] = Fate::Answers;
    bench.run_ms(2000);
    assert_eq!(bench.machine.take_transitions().len(), 3, "those of the start");
    // nor do they when a good one comes in between; but not one after the other for ever.
    bench.fates[0] = Fate::Drowned;
    bench.run_ms(1500);
    assert_eq!(bench.up(), [false, true, true]);
    // If nobody is heard, that is no reason to give nobody anything.
    bench.fates.fill(Fate::Drowned);
    bench.run_ms(2000);
    assert!(bench.panics());
    assert_eq!(bench.up(), [true; 3]);
}

#[test]
fn a_checker_blind_from_the_start_stops_no_traffic() {
    let mut bench = Bench::new(Health { initially_up: false, ..health() }, 2);
    bench.fates.fill(Fate::Blind);
    bench.run_ms(4900);
    assert!(!bench.panics());
    bench.run_ms(200);
    assert!(bench.panics());
    assert_eq!(bench.up(), [true; 2]);
    // It sees at last.
    bench.fates.fill(Fate::Answers);
    bench.run_ms(3000);
    assert!(!bench.panics());
    assert_eq!(bench.up(), [true; 2]);
}

#[test]
fn who_has_yet_to_be_found_is_not_down_at_once() {
    let mut bench = Bench::new(health(), 3);
    bench.fates = vec![Fate::Unfound, Fate::Unfound, Fate::Answers];
    bench.run_ms(2000);
    assert_eq!((bench.up(), bench.panics()), (vec![true; 3], false));
    bench.fates[1] = Fate::Answers;
    bench.run_ms(1500);
    assert_eq!(bench.up(), [false, true, true]);
    let changes = bench.machine.take_transitions();
    assert_eq!(changes.iter().find(|t| t.to == State::Down).map(|t| t.cause), Some(Cause::Unreachable));
    bench.fates[2] = Fate::Unfound;
    bench.run_ms(1000);
    assert_eq!(bench.up(), [false, true, false], "who was there and is not any more is down");
}

/// Of backends that count as down at first, one says soon that it is down, others need longer to answer.
#[test]
fn nobody_panics_before_all_had_their_chance() {
    let mut bench = Bench::new(Health { initially_up: false, fall: 1, ..health() }, 3);
    bench.fates = vec![Fate::Refuses, Fate::Blind, Fate::Blind];
    bench.run_ms(1000);
    assert_eq!((bench.up(), bench.panics()), (vec![false; 3], false));
    bench.fates[2] = Fate::Answers;
    bench.run_ms(1000);
    assert_eq!((bench.up(), bench.panics()), (vec![false, false, true], false));
    bench.fates[2] = Fate::Refuses;
    bench.run_ms(5000);
    assert_eq!((bench.up(), bench.panics()), (vec![true; 3], true), "not for ever");
    let mut all = Bench::new(Health { initially_up: false, ..health() }, 3);
    all.fates.fill(Fate::Refuses);
    all.run_ms(1000);
    assert!(all.panics(), "all have said so");
}

#[test]
fn who_comes_back_slowly_gets_more_and_more() {
    let mut bench = Bench::new(Health { slow_start_s: 10, ..health() }, 2);
    bench.run_ms(1000);
    assert_eq!(bench.standings(), [Standing::default(); 2], "nobody starts slowly at the start");
    bench.fates[0] = Fate::Silent;
    bench.run_ms(1000);
    bench.fates[0] = Fate::Answers;
    let mut shares = Vec::new();
    for _ in 0..12_000 {
        bench.run_ms(1);
        let standing = bench.standings()[0];
        if standing.up && shares.last() != Some(&standing.share_percent) {
            shares.push(standing.share_percent);
        }
    }
    assert_eq!(shares, [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]);
}

#[test]
fn who_flaps_has_to_prove_itself_longer_each_time() {
    let mut bench = Bench::new(health(), 2);
    bench.run_ms(500);
    let mut took = Vec::new();
    for _ in 0..6 {
        bench.fates[0] = Fate::Refuses;
        bench.run_ms(2000);
        assert_eq!(bench.up(), [false, true]);
        bench.fates[0] = Fate::Answers;
        let from = bench.probes[0];
        while !bench.up()[0] {
            bench.run_ms(1);
        }
        took.push(bench.probes[0] - from);
    }
    assert_eq!(took, [2, 4, 8, 16, 16, 16]);
    bench.run_ms(10 * 60_000);
    bench.fates[0] = Fate::Refuses;
    bench.run_ms(2000);
    bench.fates[0] = Fate::Answers;
    bench.run_ms(760);
    assert_eq!(bench.up(), [true, true], "steadiness is rewarded");
}

#[test]
fn hints_bring_the_next_probe_forward_and_count_where_they_are_to() {
    let mut bench = Bench::new(health(), 2);
    bench.run_ms(600);
    let before = bench.probes[0];
    for _ in 0..60 {
        bench.machine.on_hint(bench.now, TargetId(0), 9);
        bench.run_ms(1);
    }
    assert!((before + 1..=before + 2).contains(&bench.probes[0]), "they are no way to have it flooded");
    assert_eq!(bench.up(), [true, true]);
    let mut passive = Bench::new(Health { passive: true, interval_ms: 60_000, ..health() }, 2);
    passive.run_ms(600);
    passive.machine.on_hint(passive.now, TargetId(0), 2);
    assert_eq!(passive.up(), [true, true]);
    passive.run_ms(60);
    passive.machine.on_hint(passive.now, TargetId(0), 2);
    passive.machine.on_hint(passive.now, TargetId(1), 1_000_000);
    assert_eq!(passive.up(), [true, false], "the first has answered a probe meanwhile");
    passive.machine.on_hint(passive.now, TargetId(99), 1);
}

#[test]
fn what_is_known_outlives_a_reload() {
    let mut bench = Bench::new(health(), 3);
    bench.run_ms(500);
    bench.fates[1] = Fate::Silent;
    bench.run_ms(1000);
    let mut next = spec(Health { fall: 5, ..health() }, 3);
    next.backends.swap(0, 2);
    next.backends.push(BackendSpec { address: Ip::v4(9), port: Some(80), counts: true });
    bench.machine.configure(bench.now, vec![next]);
    assert_eq!(bench.up(), [true, false, true, true]);
    bench.machine.configure(bench.now, Vec::new());
    bench.run_ms(500);
    assert!(bench.machine.views().next().is_none() && bench.machine.next_due_ms().is_none());
}

proptest! {
    /// Whatever happens: nobody is marked down without `fall` failures, while somebody is up those that are
    /// down get nothing, while nobody is everybody does, and nobody is forgotten.
    #[test]
    fn the_rules_hold(
        seed: u64,
        fall in 1u8..5,
        rise in 1u8..4,
        panic_percent in 0u8..=100,
        steps in prop::collection::vec((0usize..4, 0u8..5, 1u64..900), 1..40),
    ) {
        let health = Health { fall, rise, panic_percent, ..health() };
        let mut bench = Bench::new(health, 4);
        bench.machine.random = Random(seed);
        for (who, fate, ms) in steps {
            let fates = [Fate::Answers, Fate::Silent, Fate::Refuses, Fate::Blind, Fate::Drowned];
            bench.fates[who] = fates[usize::from(fate)];
            let before = bench.probes.clone();
            bench.run_ms(ms);
            let states: Vec<State> =
                bench.machine.views().flat_map(|(_, _, views)| views).map(|(_, view)| view.memory.state).collect();
            let well = states.iter().filter(|state| **state != State::Down).count();
            let panic = well < 4 && (well == 0 || well * 100 < usize::from(panic_percent) * 4);
            prop_assert_eq!(bench.panics(), panic);
            for (index, standing) in bench.standings().into_iter().enumerate() {
                prop_assert_eq!(standing.up, panic || states[index] != State::Down);
            }
            prop_assert!(ms < 500 || bench.probes.iter().zip(&before).all(|(now, before)| now > before));
            for transition in bench.machine.take_transitions() {
                prop_assert_eq!(transition.to == State::Up, transition.cause == Cause::Answered);
            }
        }
    }
}
