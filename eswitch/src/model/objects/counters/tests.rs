use proptest::prelude::*;

use super::*;

const MS: u64 = 1_000_000;

fn hardware(capacity: u32) -> Counters {
    Counters::new(capacity, CounterTiming::hardware(500 * MS), Steering::Hardware)
}

fn value(hits: u64, bytes: u64) -> CountValue {
    CountValue { hits, bytes }
}

#[test]
fn layout() {
    assert_eq!((size_of::<Slot>(), align_of::<Slot>()), (32, 32), "a packet touches one cache line");
    assert_eq!(size_of::<Slot>() + size_of::<Link>(), 40, "bytes a counter");
    let idle = Counters::new(1 << 24, CounterTiming::software(Tick::SECOND), Steering::Software);
    assert_eq!(idle.pools.len(), 0, "an idle device holds no counters");
    assert!(size_of::<Counters>() < 4096);
}

#[test]
fn the_first_read_is_zero_and_the_next_refresh_shows_all() {
    let mut counters = hardware(10);
    let id = counters.alloc(Tick(0)).unwrap();
    counters.hit(Tick(1), id, 100);
    counters.hit(Tick(2), id, 60);
    assert_eq!(counters.query(Tick(500 * MS - 1), id, false), Ok(value(0, 0)));
    assert_eq!(counters.query(Tick(500 * MS), id, false), Ok(value(2, 160)));
    counters.hit(Tick(500 * MS), id, 1);
    assert_eq!(counters.query(Tick(999 * MS), id, false), Ok(value(2, 160)));
    counters.hit(Tick(1000 * MS), id, 1);
    assert_eq!(counters.query(Tick(1000 * MS), id, false), Ok(value(3, 161)));
    assert_eq!(counters.query(Tick(9000 * MS), id, false), Ok(value(4, 162)));
}

#[test]
fn a_reset_loses_nothing() {
    let mut counters = hardware(10);
    let id = counters.alloc(Tick(0)).unwrap();
    counters.hit(Tick(0), id, 7);
    counters.hit(Tick(600 * MS), id, 9);
    assert_eq!(counters.query(Tick(700 * MS), id, true), Ok(value(1, 7)));
    assert_eq!(counters.query(Tick(800 * MS), id, true), Ok(value(0, 0)));
    assert_eq!(counters.query(Tick(1000 * MS), id, true), Ok(value(1, 9)));
}

#[test]
fn exact_without_a_refresh_period() {
    let mut counters = Counters::new(1, CounterTiming::hardware(0), Steering::Hardware);
    let id = counters.alloc(Tick(0)).unwrap();
    counters.hit(Tick(0), id, 7);
    assert_eq!(counters.query(Tick(0), id, true), Ok(value(1, 7)));
    counters.free(Tick(0), id);
    assert_eq!(counters.alloc(Tick(0)), Ok(id), "reuse is immediate");
    assert_eq!(counters.query(Tick(0), id, false), Ok(value(0, 0)));
}

#[test]
fn hardware_steering_tells_none_from_none_yet() {
    let errno = |answer: Result<CounterId, Refusal>| answer.unwrap_err().errno;
    let mut counters = hardware(2);
    let first = counters.alloc(Tick(0)).unwrap();
    counters.alloc(Tick(0)).unwrap();
    assert_eq!(errno(counters.alloc(Tick(0))), Errno::Noent);
    counters.free(Tick(1), first);
    assert_eq!((counters.live(), counters.waiting()), (1, 1));
    assert_eq!(errno(counters.alloc(Tick(2))), Errno::Again);
    assert_eq!(counters.alloc(Tick(500 * MS)), Ok(first));
    assert_eq!(errno(counters.alloc(Tick(500 * MS))), Errno::Noent);
}

#[test]
fn software_steering_always_says_later() {
    let mut counters = Counters::new(1, CounterTiming::software(Tick::SECOND), Steering::Software);
    counters.alloc(Tick(0)).unwrap();
    assert_eq!(counters.alloc(Tick(0)).unwrap_err().errno, Errno::Again);
}

#[test]
fn software_pools_are_refreshed_at_different_times() {
    let mut counters = Counters::new(1 << 16, CounterTiming::software(Tick::SECOND), Steering::Software);
    let ids: Vec<CounterId> = (0..4 * POOL).map(|_| counters.alloc(Tick(0)).unwrap()).collect();
    let refresh = |pool: usize| counters.last_refresh(Tick(5 * Tick::SECOND - 1), ids[pool * POOL]).0 / MS;
    assert_eq!([refresh(0), refresh(1), refresh(2), refresh(3)], [4000, 4500, 4250, 4750]);
}

#[test]
fn shared_counters_live_as_long_as_their_rules() {
    for (steering, answer) in [(Steering::Software, Some(Errno::Busy)), (Steering::Hardware, None)] {
        let mut counters = Counters::new(8, CounterTiming::hardware(0), steering);
        let id = counters.alloc(Tick(0)).unwrap();
        assert!(counters.retain(id));
        assert_eq!(counters.destroy(Tick(0), id).err().map(|refusal| refusal.errno), answer);
        if answer.is_some() {
            counters.free(Tick(0), id);
        }
        assert_eq!(counters.live(), 1);
        counters.free(Tick(0), id);
        assert_eq!(counters.live(), 0);
        counters.free(Tick(0), id);
        assert_eq!((counters.live(), counters.waiting()), (0, 1), "freeing twice does nothing");
        assert!(counters.query(Tick(0), id, false).is_err());
        counters.hit(Tick(0), CounterId(u32::MAX), 1);
        counters.free(Tick(0), CounterId(u32::MAX));
    }
}

#[test]
fn a_lost_refresh_shows_a_period_later() {
    let mut counters = hardware(1);
    let id = counters.alloc(Tick(0)).unwrap();
    counters.hit(Tick(0), id, 7);
    counters.lose_updates(Tick(0), 1);
    assert_eq!(counters.query(Tick(500 * MS), id, false), Ok(value(0, 0)));
    counters.hit(Tick(600 * MS), id, 7);
    assert_eq!(counters.query(Tick(1000 * MS), id, false), Ok(value(2, 14)));
}

#[test]
fn refreshes_are_lost_at_random() {
    let mut counters = hardware(1);
    let id = counters.alloc(Tick(0)).unwrap();
    counters.hit(Tick(0), id, 7);
    for period in 1..=3 {
        let now = Tick(500 * MS * period);
        let mut asked = 0;
        counters.refresh_with(now, || {
            asked += 1;
            period < 3
        });
        counters.refresh_with(now, || unreachable!("done already"));
        assert_eq!((asked, counters.query(now, id, false).unwrap().hits), (1, period / 3));
    }
    counters.hit(Tick(1600 * MS), id, 7);
    counters.refresh_with(Tick(u64::MAX / 2), || true);
    assert_eq!(counters.query(Tick(u64::MAX / 2), id, false).unwrap().hits, 2);
}

/// What a counter should say, from the whole history.
#[derive(Default)]
struct Naive {
    hits: Vec<(u64, u64)>,
    baseline: CountValue,
}

impl Naive {
    fn at(&self, refresh: u64) -> CountValue {
        let seen = self.hits.iter().filter(|(at, _)| *at < refresh);
        seen.fold(CountValue::default(), |sum, (_, bytes)| value(sum.hits + 1, sum.bytes + bytes))
    }

    fn query(&mut self, refresh: u64, reset: bool) -> CountValue {
        let (raw, base) = (self.at(refresh), self.baseline);
        if reset {
            self.baseline = raw;
        }
        value(raw.hits - base.hits, raw.bytes - base.bytes)
    }
}

#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Alloc,
    Free(usize),
    Hit(usize, u32),
    Query(usize, bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..400 * MS).prop_map(Step::Wait),
        Just(Step::Wait(0)),
        (0u64..4).prop_map(|periods| Step::Wait(periods * 125 * MS)),
        Just(Step::Alloc),
        Just(Step::Alloc),
        any::<usize>().prop_map(Step::Free),
        (any::<usize>(), 60u32..9000).prop_map(|(at, bytes)| Step::Hit(at, bytes)),
        (any::<usize>(), 60u32..9000).prop_map(|(at, bytes)| Step::Hit(at, bytes)),
        (any::<usize>(), any::<bool>()).prop_map(|(at, reset)| Step::Query(at, reset)),
    ]
}

/// The last refresh by the definition, one period after the other.
fn refreshes(now: u64, class: u32, timing: CounterTiming) -> impl Iterator<Item = u64> {
    let first = first_refresh(class, timing.phases, timing.refresh_ns);
    (0..).map(move |k| first + k * timing.refresh_ns).take_while(move |at| *at <= now)
}

fn check(steps: &[Step], timing: CounterTiming, steering: Steering, spare: u32) {
    // Few are left, but from different pools.
    let capacity = 3 * POOL as u32;
    let mut counters = Counters::new(capacity, timing, steering);
    let mut now = 0;
    let fillers: Vec<CounterId> = (0..capacity).map(|_| counters.alloc(Tick(0)).unwrap()).collect();
    let mut freed: Vec<(u64, CounterId)> = Vec::new();
    for at in 0..spare {
        let id = fillers[(at * 509 % capacity) as usize];
        counters.free(Tick(0), id);
        freed.push((0, id));
    }
    let class = |id: CounterId| id.0 / POOL as u32 % timing.phases;
    let mut live: Vec<(CounterId, Naive)> = Vec::new();
    for step in steps {
        match *step {
            Step::Wait(ns) => now += ns,
            Step::Alloc => {
                let usable = |&(at, id): &(u64, CounterId)| {
                    refreshes(now, class(id), timing).any(|refresh| refresh > at)
                };
                match counters.alloc(Tick(now)) {
                    Ok(id) => {
                        let at = freed.iter().position(|entry| entry.1 == id).expect("it was free");
                        assert!(usable(&freed[at]), "used again before a refresh");
                        freed.remove(at);
                        live.push((id, Naive::default()));
                    }
                    Err(refusal) => {
                        assert!(!freed.iter().any(usable), "one was usable");
                        let none = freed.is_empty() && steering == Steering::Hardware;
                        assert_eq!(refusal.errno, if none { Errno::Noent } else { Errno::Again });
                    }
                }
            }
            Step::Free(at) if !live.is_empty() => {
                let (id, _) = live.remove(at % live.len());
                counters.free(Tick(now), id);
                freed.push((now, id));
            }
            Step::Hit(at, bytes) if !live.is_empty() => {
                let index = at % live.len();
                let (id, naive) = &mut live[index];
                counters.hit(Tick(now), *id, bytes);
                naive.hits.push((now, u64::from(bytes)));
            }
            Step::Query(at, reset) if !live.is_empty() => {
                let index = at % live.len();
                let (id, naive) = &mut live[index];
                let refresh = refreshes(now, class(*id), timing).last().unwrap_or(0);
                assert_eq!(counters.last_refresh(Tick(now), *id), Tick(refresh));
                let expected = naive.query(refresh, reset);
                assert_eq!(counters.query(Tick(now), *id, reset), Ok(expected));
            }
            _ => {}
        }
        assert_eq!(counters.waiting() as usize, freed.len());
        assert_eq!(counters.live(), capacity - spare + live.len() as u32);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn agrees_with_the_whole_history_in_software(steps in prop::collection::vec(step(), 1..300)) {
        check(&steps, CounterTiming::software(Tick::SECOND), Steering::Software, 6);
    }

    #[test]
    fn agrees_with_the_whole_history_in_hardware(steps in prop::collection::vec(step(), 1..300)) {
        check(&steps, CounterTiming::hardware(500 * MS), Steering::Hardware, 6);
    }
}
