use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const MS: u64 = 1_000_000;
const PORT: Vport = Vport(1);
const ALL: usize = usize::MAX;

const SECONDS: AgeTiming = AgeTiming { tick_ns: Tick::SECOND, list_max: 0, overlong_return: false };
const CYCLES: AgeTiming = AgeTiming { tick_ns: 500 * MS, ..SECONDS };

fn ms(at: u64) -> Tick {
    Tick(at * MS)
}

fn software(timing: AgeTiming) -> Ages {
    Ages::new(10_000, timing, Steering::Software)
}

fn hardware(timing: AgeTiming) -> Ages {
    Ages::new(10_000, timing, Steering::Hardware)
}

fn add(ages: &mut Ages, now: Tick, timeout_s: u32, context: u64) -> AgeId {
    ages.alloc(now, timeout_s, context, PORT, None, HitSource::Bit).unwrap()
}

fn aged(ages: &mut Ages) -> Vec<u64> {
    let mut out = [0; 64];
    let count = ages.aged(PORT, None, &mut out).unwrap();
    out[..count].to_vec()
}

fn walk(ages: &mut Ages, now: Tick) -> Vec<u64> {
    ages.advance(now, ALL);
    aged(ages)
}

#[test]
fn layout() {
    assert_eq!(size_of::<Slot>(), 40);
    let idle = Ages::new(1 << 24, SECONDS, Steering::Software);
    assert_eq!(idle.chunks.len(), 0, "an idle device holds no contexts");
}

#[test]
fn strictly_more_than_the_timeout() {
    let mut ages = software(SECONDS);
    let id = add(&mut ages, ms(0), 3, 7);
    assert_eq!(walk(&mut ages, ms(1000)), []);
    ages.hit(ms(1500), id);
    for second in 2..=5 {
        assert_eq!(walk(&mut ages, ms(1000 * second)), [], "second {second}");
    }
    let value = AgeValue { aged: false, sec_since_last_hit: Some(3) };
    assert_eq!(ages.query(ms(5999), id), Ok(value));
    assert_eq!(walk(&mut ages, ms(6000)), [7]);
    assert_eq!(ages.query(ms(6000), id), Ok(AgeValue { aged: true, sec_since_last_hit: None }));
}

#[test]
fn sticky_and_reported_again_until_freed() {
    let mut ages = software(SECONDS);
    let id = add(&mut ages, ms(0), 1, 7);
    assert_eq!(walk(&mut ages, ms(2000)), [7]);
    ages.hit(ms(2500), id);
    assert_eq!(walk(&mut ages, ms(3000)), [7]);
    assert_eq!(ages.aged(PORT, None, &mut []), Ok(1), "no array: the number");
    ages.free(id);
    assert_eq!(walk(&mut ages, ms(4000)), []);
    assert_eq!((ages.live(), ages.query(ms(4000), id).is_err()), (0, true));
    ages.free(id);
    assert_eq!(ages.live(), 0);
}

#[test]
fn hardware_reports_once_in_order() {
    let mut ages = hardware(CYCLES);
    for context in 0..5 {
        add(&mut ages, ms(0), 1 + context % 2, u64::from(context));
    }
    ages.advance(ms(2000), ALL);
    ages.advance(ms(3000), ALL);
    assert_eq!(ages.aged(PORT, None, &mut []), Ok(5));
    let mut two = [0; 2];
    assert_eq!(ages.aged(PORT, Some(3), &mut two), Ok(2), "the queue does not matter");
    assert_eq!(two, [0, 2]);
    assert_eq!(aged(&mut ages), [4, 1, 3]);
    assert_eq!(aged(&mut ages), []);
}

#[test]
fn software_has_two_lists() {
    let mut ages = software(SECONDS);
    for context in 0..4 {
        let source = if context < 2 { HitSource::Bit } else { HitSource::Counter };
        ages.alloc(ms(0), 1, context, PORT, None, source).unwrap();
    }
    assert_eq!(walk(&mut ages, ms(2000)), [1, 0, 2, 3]);
    let mut out = [9; 2];
    assert_eq!((ages.aged(PORT, None, &mut out), out), (Ok(2), [1, 0]));
    let mut out = [9; 3];
    assert_eq!((ages.aged(PORT, None, &mut out), out), (Ok(3), [1, 0, 2]));
    assert_eq!(ages.aged(PORT, Some(0), &mut out).unwrap_err().errno, Errno::Notsup);
}

#[test]
fn software_may_return_more_than_fits() {
    let mut ages = software(AgeTiming { overlong_return: true, ..SECONDS });
    for context in 0..5 {
        let source = if context < 2 { HitSource::Bit } else { HitSource::Counter };
        ages.alloc(ms(0), 1, context, PORT, None, source).unwrap();
    }
    ages.advance(ms(2000), ALL);
    let answers = [1, 2, 3, 9].map(|len| ages.aged(PORT, None, &mut vec![0; len]));
    assert_eq!(answers, [Ok(4), Ok(5), Ok(3), Ok(5)]);
}

#[test]
fn events_are_armed_by_asking() {
    let mut ages = software(SECONDS);
    add(&mut ages, ms(0), 1, 1);
    add(&mut ages, ms(0), 2, 2);
    add(&mut ages, ms(0), 3, 3);
    ages.advance(ms(2000), ALL);
    assert_eq!(ages.take_events(), [PORT]);
    ages.advance(ms(3000), ALL);
    assert_eq!(ages.take_events(), [], "not before the application has asked");
    assert_eq!(aged(&mut ages).len(), 2);
    assert_eq!(ages.take_events(), []);
    ages.advance(ms(4000), ALL);
    assert_eq!(ages.take_events(), [PORT]);
}

#[test]
fn strict_queues() {
    let mut ages = hardware(CYCLES);
    ages.configure(PORT, Some(2), 0);
    for queue in 0..2 {
        ages.alloc(ms(0), 1, u64::from(queue) + 1, PORT, Some(queue), HitSource::Counter).unwrap();
    }
    ages.advance(ms(2000), ALL);
    assert_eq!(ages.take_events(), [], "no events");
    let mut out = [0; 4];
    assert_eq!(ages.aged(PORT, None, &mut out).unwrap_err().errno, Errno::Inval);
    assert_eq!(ages.aged(PORT, Some(2), &mut out).unwrap_err().errno, Errno::Inval);
    assert_eq!((ages.aged(PORT, Some(1), &mut out), out[0]), (Ok(1), 2));
    assert_eq!((ages.aged(PORT, Some(0), &mut out), out[0]), (Ok(1), 1));
    assert_eq!(ages.aged(PORT, Some(0), &mut []), Ok(0));
    let mut none = Ages::new(0, CYCLES, Steering::Hardware);
    assert_eq!(none.aged(PORT, None, &mut out).unwrap_err().errno, Errno::Noent);
    assert_eq!(none.alloc(ms(0), 1, 0, PORT, None, HitSource::Counter).unwrap_err().errno, Errno::Nomem);
}

#[test]
fn a_full_list_makes_wait() {
    let mut ages = hardware(AgeTiming { list_max: 2, ..CYCLES });
    let ids = [1, 2, 3, 4].map(|context| add(&mut ages, ms(0), 1, context));
    assert_eq!(walk(&mut ages, ms(2000)), [1, 2]);
    ages.hit(ms(2100), ids[2]);
    assert_eq!(walk(&mut ages, ms(2500)), [4], "the third was saved by a hit");
}

#[test]
fn updates() {
    let mut ages = hardware(CYCLES);
    let id = add(&mut ages, ms(0), 1, 7);
    let shown = |ages: &mut Ages, at| ages.query(ms(at), id).unwrap();
    ages.update(ms(1000), id, Some(2), false).unwrap();
    assert_eq!(walk(&mut ages, ms(2500)), []);
    assert_eq!(walk(&mut ages, ms(3000)), [7]);
    ages.update(ms(9000), id, Some(4), false).unwrap();
    let revived = AgeValue { aged: false, sec_since_last_hit: Some(3) };
    assert_eq!(shown(&mut ages, 9000), revived, "the idle time stood still");
    assert_eq!(walk(&mut ages, ms(11_000)), [7]);
    ages.update(ms(11_000), id, None, true).unwrap();
    assert_eq!(shown(&mut ages, 12_000).sec_since_last_hit, Some(1));
    ages.update(ms(12_000), id, Some(0), false).unwrap();
    assert_eq!(walk(&mut ages, ms(99_000)), []);
    assert_eq!(ages.query(ms(99_000), id).unwrap_err().errno, Errno::Inval);
    ages.update(ms(99_000), id, Some(1), false).unwrap();
    assert_eq!(shown(&mut ages, 99_000).sec_since_last_hit, Some(0));
    // Revived before it was reported.
    ages.advance(ms(101_000), ALL);
    ages.update(ms(101_000), id, None, true).unwrap();
    assert_eq!(walk(&mut ages, ms(101_500)), []);
    ages.free(id);
    assert_eq!(ages.update(ms(102_000), id, None, true).unwrap_err().errno, Errno::Inval);
    let mut ages = software(SECONDS);
    let id = add(&mut ages, ms(0), 1, 7);
    assert_eq!(ages.update(ms(0), id, Some(2), false).unwrap_err().errno, Errno::Notsup);
}

#[test]
fn slices_say_what_the_whole_says() {
    let mut ages = software(AgeTiming { overlong_return: true, ..SECONDS });
    let mut ids = Vec::new();
    for context in 1..=7 {
        let source = if context % 2 == 0 { HitSource::Bit } else { HitSource::Counter };
        ids.push(ages.alloc(ms(0), 1, context, PORT, None, source).unwrap());
    }
    while ages.advance(ms(9000), 3) {}
    let mut whole = [0; 9];
    assert_eq!(ages.aged(PORT, None, &mut whole), Ok(7));
    let (mut cursor, mut slices) = (AgedCursor::default(), [0; 9]);
    let fetched = |ages: &mut Ages, cursor: &mut AgedCursor, out: &mut [u64]| {
        ages.aged_slice(PORT, None, cursor, out).unwrap()
    };
    for (slice, answer) in slices.chunks_mut(2).zip([2, 2, 2, 1]) {
        assert_eq!(fetched(&mut ages, &mut cursor, slice), answer);
    }
    assert_eq!(slices, whole);
    assert_eq!(fetched(&mut ages, &mut cursor, &mut [0; 2]), 0, "no more");
    // As of the whole: three that packets mark fill the room, and there are four others.
    assert_eq!((ages.aged_answer(PORT, 3, 3), ages.aged_answer(PORT, 4, 4)), (7, 4));
    // What is freed where the cursor is ends the answer.
    let mut cursor = AgedCursor::default();
    assert_eq!(fetched(&mut ages, &mut cursor, &mut [0; 1]), 1);
    ages.free(ids[3]);
    assert_eq!(fetched(&mut ages, &mut cursor, &mut [0; 8]), 0);
    assert_eq!(ages.aged(PORT, None, &mut []), Ok(6));
}

#[test]
fn a_shared_context_outlives_its_handle() {
    for (steering, reported) in [(Steering::Software, 1), (Steering::Hardware, 0)] {
        let mut ages = Ages::new(4, SECONDS, steering);
        let id = add(&mut ages, ms(0), 1, 7);
        assert!(ages.retain(id));
        ages.destroy(id).unwrap();
        ages.hit(ms(10), id);
        assert_eq!(ages.live(), 1);
        assert_eq!(walk(&mut ages, ms(9000)).len(), reported);
        ages.free(id);
        assert_eq!((ages.live(), walk(&mut ages, ms(10_000)).len()), (0, 0));
    }
}

#[test]
fn faults_age_early() {
    let mut ages = software(SECONDS);
    let ids = [1, 2, 3].map(|context| add(&mut ages, ms(0), 100, context));
    ages.advance_with(ms(1000), ALL, |id| id == ids[1]);
    assert_eq!(aged(&mut ages), [2]);
    ages.expire(ids[0]);
    assert_eq!(aged(&mut ages), [1, 2]);
    assert_eq!(ages.take_events().len(), 1);
}

#[test]
fn a_slow_walk_visits_all_and_says_when_it_is_done() {
    let mut ages = hardware(CYCLES);
    for context in 0..5000 {
        let id = add(&mut ages, ms(0), 1, context);
        if context % 3 == 0 {
            ages.free(id);
        }
    }
    let mut calls = 0;
    while ages.advance(ms(2000), 100) {
        calls += 1;
        assert!(calls < 60, "each call does its share");
    }
    assert_eq!(ages.aged(PORT, None, &mut []), Ok(ages.live() as usize));
    assert!(!ages.advance(ms(2400), 1), "nothing to do before the next check");
    assert!(ages.advance(ms(2500), 1));
}

#[test]
fn constant_traffic_keeps_it_young_whenever_the_walk_comes() {
    let mut ages = software(SECONDS);
    let id = add(&mut ages, ms(0), 1, 7);
    for at in (0..20_000).step_by(100) {
        ages.hit(ms(at), id);
        if at % 700 == 0 {
            assert_eq!(walk(&mut ages, ms(at)), []);
        }
        let idle = ages.query(ms(at), id).unwrap().sec_since_last_hit.unwrap();
        assert!(idle <= 1, "{idle} at {at}");
    }
}

/// What mlx5's check does, over a sorted map and the history of hits.
struct Naive {
    timeout_s: u32,
    /// Checks are numbered; this one began the idle time.
    since: u64,
    hits: Vec<u64>,
    aged: bool,
}

#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Alloc(u32),
    Free(usize),
    Hit(usize),
    Query(usize),
    Walk,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1..900 * MS).prop_map(Step::Wait),
        (1u64..5).prop_map(|ticks| Step::Wait(ticks * 500 * MS)),
        (1u32..5).prop_map(Step::Alloc),
        any::<usize>().prop_map(Step::Free),
        any::<usize>().prop_map(Step::Hit),
        any::<usize>().prop_map(Step::Hit),
        any::<usize>().prop_map(Step::Query),
        Just(Step::Walk),
        Just(Step::Walk),
    ]
}

fn visit(naive: &mut Naive, check: u64, tick_ns: u64) {
    if naive.aged {
        return;
    }
    if let Some(last) = naive.hits.drain(..).next_back() {
        naive.since = (last / tick_ns + 1).min(check);
    }
    let second = |check: u64| check * tick_ns / Tick::SECOND;
    naive.aged = second(check) - second(naive.since) > u64::from(naive.timeout_s);
}

fn check(steps: &[Step], timing: AgeTiming, steering: Steering) {
    let mut ages = Ages::new(1000, timing, steering);
    let mut naive: BTreeMap<u64, (AgeId, Naive)> = BTreeMap::new();
    let (mut now, mut walked, mut context, mut reported) = (0u64, 0, 0u64, Vec::new());
    for step in steps {
        let number = now / timing.tick_ns;
        let pick = |at: usize, naive: &BTreeMap<u64, _>| {
            naive.keys().nth(at % naive.len().max(1)).copied().unwrap_or_default()
        };
        match *step {
            Step::Wait(ns) => now += ns,
            Step::Alloc(timeout_s) => {
                let id = add(&mut ages, Tick(now), timeout_s, context);
                let fresh = Naive { timeout_s, since: number, hits: Vec::new(), aged: false };
                naive.insert(context, (id, fresh));
                context += 1;
            }
            Step::Free(at) => {
                if let Some((id, _)) = naive.remove(&pick(at, &naive)) {
                    ages.free(id);
                }
            }
            Step::Hit(at) => {
                if let Some((id, age)) = naive.get_mut(&pick(at, &naive)) {
                    ages.hit(Tick(now), *id);
                    age.hits.push(now);
                }
            }
            Step::Query(at) => {
                if let Some((id, age)) = naive.get_mut(&pick(at, &naive)) {
                    if walked < number {
                        visit(age, number, timing.tick_ns);
                    }
                    let value = ages.query(Tick(now), *id).unwrap();
                    assert_eq!(value.aged, age.aged);
                    let second = |check: u64| (check * timing.tick_ns / Tick::SECOND) as u32;
                    let idle = second(number) - second(age.since);
                    assert_eq!(value.sec_since_last_hit, (!age.aged).then_some(idle));
                }
            }
            Step::Walk => {
                ages.advance(Tick(now), ALL);
                if walked < number {
                    naive.values_mut().for_each(|(_, age)| visit(age, number, timing.tick_ns));
                    walked = number;
                }
                let mut out = aged(&mut ages);
                out.sort_unstable();
                let expected = naive.iter().filter(|(context, (_, age))| {
                    age.aged && !(steering == Steering::Hardware && reported.contains(*context))
                });
                assert_eq!(out, expected.map(|(context, _)| *context).take(64).collect::<Vec<_>>());
                reported.extend(out);
            }
        }
    }
    assert_eq!(ages.live() as usize, naive.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn agrees_with_a_sorted_map_in_software(steps in prop::collection::vec(step(), 1..300)) {
        check(&steps, SECONDS, Steering::Software);
    }

    #[test]
    fn agrees_with_a_sorted_map_in_hardware(steps in prop::collection::vec(step(), 1..300)) {
        check(&steps, CYCLES, Steering::Hardware);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// With any budget that suffices: not within the timeout, and surely three seconds after it.
    #[test]
    fn ages_in_time(
        hits in prop::collection::vec((0usize..600, 0u64..20_000), 0..600),
        timeout_s in 1u32..6,
        budget in 100usize..2000,
    ) {
        let mut ages = software(SECONDS);
        let ids: Vec<AgeId> = (0..600).map(|context| add(&mut ages, ms(0), timeout_s, context)).collect();
        let mut last = vec![0u64; ids.len()];
        let mut done = vec![false; ids.len()];
        let mut hits = hits;
        hits.sort_unstable_by_key(|hit| hit.1);
        let mut hits = hits.into_iter().peekable();
        for at in (0..30_000).step_by(50) {
            while let Some((which, when)) = hits.next_if(|hit| hit.1 <= at) {
                ages.hit(ms(when), ids[which]);
                if !done[which] {
                    last[which] = when;
                }
            }
            ages.advance(ms(at), budget);
            let timeout = u64::from(timeout_s) * 1000;
            for (which, id) in ids.iter().enumerate() {
                let aged = matches!(ages.slot(id.0), Some(Slot { state: State::Aged, .. }));
                prop_assert!(!aged || done[which] || at > last[which] + timeout || last[which] == 0);
                prop_assert!(!aged || at >= timeout);
                prop_assert!(aged || at < last[which] + timeout + 3000);
                done[which] |= aged;
            }
        }
    }
}
