use std::collections::BTreeMap;

use super::super::faults::Faults;
use super::super::template::Occupancy;
use super::super::timing::Spread;
use super::super::types::{CounterId, MeterId};
use super::*;

/// A device that keeps rules by number, and a log of what it was told.
#[derive(Debug, Default)]
pub(super) struct Device {
    next: u32,
    pub(super) active: BTreeMap<RuleId, (u64, Owner)>,
    /// Removed, but not released.
    pub(super) held: BTreeMap<RuleId, u64>,
    pub(super) full: bool,
    acts: Vec<ActionOp>,
}

impl Device {
    pub(super) fn forget(&mut self) {
        self.active.clear();
        self.held.clear();
    }

    fn payloads(&self) -> Vec<u64> {
        self.active.values().map(|(payload, _)| *payload).collect()
    }
}

impl Installer<u64> for Device {
    fn install(&mut self, _now: Tick, rule: u64, owner: Owner) -> Result<RuleId, Refusal> {
        if self.full {
            return Err(Refusal::new(Errno::Nomem, Cause::Unspecified, "full"));
        }
        self.next += 1;
        assert_eq!(self.active.insert(RuleId(self.next), (rule, owner)), None);
        Ok(RuleId(self.next))
    }

    fn remove(&mut self, _now: Tick, rule: RuleId) {
        let (payload, _) = self.active.remove(&rule).expect("only what is installed is removed");
        self.held.insert(rule, payload);
    }

    fn release(&mut self, _now: Tick, rule: RuleId) {
        assert!(self.held.remove(&rule).is_some(), "only what was removed is released");
    }

    fn act(&mut self, _now: Tick, operation: ActionOp) -> Result<(), Refusal> {
        self.acts.push(operation);
        match operation {
            ActionOp::Destroy(Shared::Meter(_)) => Err(Refusal::new(Errno::Busy, Cause::Handle, "in use")),
            _ => Ok(()),
        }
    }
}

/// Both ends, a table and a device.
struct Rig {
    front: FlowQueue<u64>,
    engine: QueueEngine<u64>,
    table: Arc<Occupancy>,
    credits: Arc<Credits>,
    device: Device,
    faults: Faults,
}

const ATTR: QueueAttr = QueueAttr { port: Vport(0), queue: 3, size: 4, full_errno: Errno::Nomem };

/// Creation: 100 ns each, in force 10 ns later, reported 1000 ns after that; destruction half of each.
fn profile() -> Profile {
    let mut profile = Profile::named("ideal").unwrap();
    profile.create_cost_ns = Spread::always(100);
    profile.create_latency_ns = Spread::always(10);
    profile.create_completion_ns = Spread::always(1000);
    profile.destroy_cost_ns = Spread::always(50);
    profile.destroy_latency_ns = Spread::always(5);
    profile.destroy_completion_ns = Spread::always(500);
    profile
}

impl Rig {
    fn new(profile: &Profile, attr: QueueAttr, rules: u32) -> Rig {
        let credits = Arc::new(Credits::new(2, 1, 1));
        let (front, engine) = pair(attr, profile, &credits, 1).unwrap();
        let table = Arc::new(Occupancy::new(rules).unwrap());
        Rig { front, engine, table, credits, device: Device::default(), faults: Faults::default() }
    }

    fn create(&mut self, now: u64, payload: u64, postpone: bool) -> Result<RuleHandle, Refusal> {
        self.front.enqueue(Tick(now), &self.table, Needs::default(), payload, payload, postpone)
    }

    fn destroy(&mut self, now: u64, handle: RuleHandle) -> Result<(), Errno> {
        self.front.destroy(Tick(now), handle, 99, false).map_err(|refusal| refusal.errno)
    }

    fn step(&mut self, now: u64) {
        while self.engine.step(Tick(now), 8, &mut self.device, &mut self.faults) {}
    }

    fn pull(&mut self) -> Vec<(u64, bool)> {
        let mut out = [Completion::default(); 8];
        let pulled = self.front.pull(&mut out);
        out[..pulled].iter().map(|completion| (completion.user_data, completion.ok)).collect()
    }

    fn done(&mut self, now: u64) -> Vec<(u64, bool)> {
        self.step(now);
        self.pull()
    }
}

fn errno<T: std::fmt::Debug>(result: Result<T, Refusal>) -> Errno {
    result.unwrap_err().errno
}

#[test]
fn what_is_postponed_is_invisible_until_pushed() {
    let mut rig = Rig::new(&profile(), ATTR, 8);
    rig.create(0, 1, true).unwrap();
    rig.create(0, 2, true).unwrap();
    assert_eq!(rig.done(1_000_000), []);
    assert!(rig.device.active.is_empty());
    assert_eq!(rig.engine.next_due(), None);
    rig.front.push(Tick(2_000_000));
    // Its time counts from the push.
    rig.step(2_000_109);
    assert!(rig.device.active.is_empty());
    assert_eq!(rig.engine.next_due(), Some(Tick(2_000_110)));
    rig.step(2_000_110);
    assert_eq!(rig.device.payloads(), [1]);
    // One that is not postponed takes the others along.
    rig.create(3_000_000, 3, true).unwrap();
    rig.create(3_000_000, 4, false).unwrap();
    rig.step(3_000_210);
    assert_eq!(rig.device.payloads(), [1, 2, 3, 4]);
}

#[test]
fn a_queue_works_one_operation_after_the_other() {
    let mut rig = Rig::new(&profile(), ATTR, 8);
    for payload in 1..=3 {
        rig.create(1000, payload, false).unwrap();
    }
    for (now, active, reported) in
        [(1109, 0, 0), (1110, 1, 0), (1209, 1, 0), (1210, 2, 0), (1310, 3, 0), (2109, 3, 0), (2110, 3, 1)]
    {
        let pulled = rig.done(now).len();
        assert_eq!((rig.device.active.len(), pulled), (active, reported), "at {now}");
    }
    assert_eq!(rig.done(2310), [(2, true), (3, true)]);
    assert_eq!(rig.engine.next_due(), None);
    // However late the device looks, the times are those of the operations.
    rig.create(5000, 4, false).unwrap();
    rig.create(5000, 5, false).unwrap();
    assert_eq!(rig.done(6210), [(4, true), (5, true)]);
}

#[test]
fn packets_hit_until_the_destruction_is_carried_out() {
    let mut rig = Rig::new(&profile(), ATTR, 8);
    let handle = rig.create(0, 1, false).unwrap();
    assert_eq!(rig.done(2000), [(1, true)]);
    let rule = rig.engine.rule(handle).unwrap();
    assert_eq!(rig.device.active[&rule], (1, Owner { port: Vport(0), queue: 3, handle }));
    rig.destroy(2000, handle).unwrap();
    rig.step(2054);
    assert_eq!(rig.device.payloads(), [1]);
    rig.step(2055);
    assert!(rig.device.active.is_empty());
    assert_eq!(rig.engine.rule(handle), None);
    // Reported, but what it held is held until the application pulls.
    rig.step(10_000);
    assert_eq!((rig.device.held.len(), rig.table.used(), rig.front.rules()), (1, 1, 1));
    assert_eq!(rig.pull(), [(99, true)]);
    assert_eq!((rig.table.used(), rig.front.rules()), (0, 0));
    assert_eq!(rig.engine.next_due(), Some(Tick(0)));
    rig.step(10_000);
    assert_eq!(rig.device.held.len(), 0);
}

#[test]
fn a_full_queue_refuses_until_completions_are_pulled() {
    for full_errno in [Errno::Nomem, Errno::Busy] {
        let mut rig = Rig::new(&profile(), QueueAttr { full_errno, ..ATTR }, 8);
        let handles: Vec<RuleHandle> = (0..4).map(|payload| rig.create(0, payload, true).unwrap()).collect();
        assert_eq!(errno(rig.create(0, 5, true)), full_errno);
        assert_eq!(rig.destroy(0, handles[0]), Err(full_errno));
        let meter = Shared::Meter(MeterId(1));
        assert_eq!(errno(rig.front.act_later(Tick(0), ActionOp::Destroy(meter), 0, false)), full_errno);
        assert_eq!(
            errno(rig.front.act_now(Tick(0), 0, false, || -> Result<(), Refusal> { panic!() })),
            full_errno
        );
        rig.front.push(Tick(0));
        rig.step(10_000);
        // Done, but not pulled.
        assert_eq!((errno(rig.create(10_000, 5, true)), rig.front.outstanding()), (full_errno, 4));
        assert_eq!(rig.front.pull(&mut [Completion::default(); 1]), 1);
        rig.create(10_000, 5, true).unwrap();
        assert_eq!(errno(rig.create(10_000, 6, true)), full_errno);
    }
}

#[test]
fn a_rule_is_not_destroyed_before_its_creation_is_pulled() {
    let mut rig = Rig::new(&profile(), ATTR, 8);
    let handle = rig.create(0, 1, true).unwrap();
    assert_eq!(rig.destroy(0, handle), Err(Errno::Busy));
    rig.front.push(Tick(0));
    rig.step(10_000);
    assert_eq!(rig.destroy(10_000, handle), Err(Errno::Busy));
    assert_eq!(rig.pull(), [(1, true)]);
    assert_eq!(rig.destroy(10_000, handle), Ok(()));
    assert_eq!(rig.destroy(10_000, handle), Err(Errno::Noent));
    assert_eq!(rig.done(20_000), [(99, true)]);
    assert_eq!(rig.destroy(20_000, handle), Err(Errno::Noent));
    // The slot's next rule has another handle.
    let next = rig.create(20_000, 2, false).unwrap();
    assert_eq!((next.slot(), next == handle), (handle.slot(), false));
    assert_eq!(rig.done(30_000), [(2, true)]);
    assert_eq!(rig.destroy(30_000, handle), Err(Errno::Noent));
    assert_eq!((rig.engine.rule(handle), rig.engine.rule(next).is_some()), (None, true));
}

#[test]
fn a_failed_rule_keeps_its_place_until_it_is_destroyed() {
    let mut rig = Rig::new(&profile(), ATTR, 1);
    rig.device.full = true;
    let handle = rig.create(0, 1, false).unwrap();
    assert_eq!(rig.done(10_000), [(1, false)]);
    assert_eq!(rig.engine.rule(handle), None);
    rig.device.full = false;
    assert_eq!(errno(rig.create(10_000, 2, false)), Errno::Nomem);
    rig.destroy(10_000, handle).unwrap();
    assert_eq!(rig.done(20_000), [(99, true)]);
    assert_eq!(rig.engine.statistics(), QueueStatistics { refused: 1, ..QueueStatistics::default() });
    rig.create(20_000, 2, false).unwrap();
    assert_eq!(rig.done(30_000), [(2, true)]);
}

#[test]
fn handles_of_others_and_inventions_are_refused() {
    let mut rig = Rig::new(&profile(), ATTR, 8);
    let mut destroy = |queue, generation, slot| {
        rig.front
            .destroy(Tick(0), RuleHandle::new(queue, generation, slot).unwrap(), 0, false)
            .unwrap_err()
            .errno
    };
    assert_eq!(destroy(Some(2), 0, 0), Errno::Inval);
    assert_eq!(destroy(None, 0, 0), Errno::Inval);
    assert_eq!(destroy(Some(3), 0, 0), Errno::Noent);
    assert_eq!(destroy(Some(3), 0, u32::MAX - 1), Errno::Noent);
    let nobody = RuleHandle(std::num::NonZeroU64::new(4 << 56).unwrap());
    assert_eq!(rig.destroy(0, nobody), Err(Errno::Noent));
}

#[test]
fn what_rules_need_is_bounded_and_comes_free_after_the_pull() {
    let mut rig = Rig::new(&profile(), ATTR, 8);
    let create = |rig: &mut Rig, counter, age, meter| {
        let needs = Needs { counter, age, meter };
        rig.front.enqueue(Tick(0), &rig.table, needs, 7, 7, false).map_err(|refusal| refusal.errno)
    };
    let first = create(&mut rig, true, true, true).unwrap();
    assert_eq!(create(&mut rig, true, true, false), Err(Errno::Nomem));
    assert_eq!(create(&mut rig, true, false, true), Err(Errno::Nomem));
    assert_eq!(rig.credits.left(), [1, 0, 0]);
    create(&mut rig, true, false, false).unwrap();
    assert_eq!(create(&mut rig, true, false, false), Err(Errno::Noent));
    assert_eq!((rig.table.used(), rig.front.outstanding()), (2, 2));
    assert_eq!(rig.done(10_000).len(), 2);
    rig.destroy(10_000, first).unwrap();
    rig.step(20_000);
    assert_eq!(rig.credits.left(), [0, 0, 0]);
    assert_eq!(rig.pull(), [(99, true)]);
    rig.step(20_000);
    // The counter may still be counting what is in flight: not before the next refresh.
    assert_eq!(rig.credits.left(), [0, 1, 1]);
    assert_eq!(create(&mut rig, true, false, false), Err(Errno::Again));
    rig.credits.recycle();
    assert_eq!(rig.credits.left(), [1, 1, 1]);
    rig.credits.recycle();
    create(&mut rig, true, false, false).unwrap();
    assert_eq!(create(&mut rig, true, false, false), Err(Errno::Noent));
}

#[test]
fn a_queue_is_idle_when_nothing_is_left_of_it() {
    let mut rig = Rig::new(&profile(), ATTR, 8);
    let idle = |rig: &mut Rig, now| rig.engine.is_idle(Tick(now), &mut rig.device);
    assert!(idle(&mut rig, 0));
    let rule = rig.create(0, 1, true).unwrap();
    assert!(!idle(&mut rig, 0), "postponed");
    rig.front.push(Tick(0));
    assert!(!idle(&mut rig, 0), "pushed");
    rig.step(50);
    assert!(!idle(&mut rig, 50), "in flight");
    rig.step(10_000);
    assert!(!idle(&mut rig, 10_000), "not pulled");
    assert_eq!(rig.pull().len(), 1);
    assert!(!idle(&mut rig, 10_000), "a rule");
    rig.destroy(10_000, rule).unwrap();
    rig.step(20_000);
    assert!(!idle(&mut rig, 20_000), "not pulled");
    assert_eq!(rig.pull().len(), 1);
    assert!(idle(&mut rig, 20_000), "and released by the way");
    assert!(rig.device.held.is_empty());
    rig.create(20_000, 2, false).unwrap();
    rig.step(30_000);
    rig.engine.invalidate(Tick(30_000));
    rig.front.notice_restart();
    assert!(idle(&mut rig, 30_000), "the port was stopped");
}

#[test]
fn a_stopped_port_takes_its_rules_and_operations_along() {
    let mut rig = Rig::new(&profile(), QueueAttr { size: 8, ..ATTR }, 8);
    let needs = Needs { counter: true, ..Needs::default() };
    let old = rig.front.enqueue(Tick(0), &rig.table, needs, 1, 1, false).unwrap();
    let pulled = rig.front.enqueue(Tick(0), &rig.table, needs, 2, 2, false).unwrap();
    assert_eq!(rig.done(10_000).len(), 2);
    // One is destroyed and pulled, but not released; one in flight, one in the ring, one postponed.
    rig.destroy(10_000, pulled).unwrap();
    assert_eq!(rig.done(20_000).len(), 1);
    rig.create(20_000, 3, false).unwrap();
    rig.step(20_050);
    rig.create(20_060, 4, false).unwrap();
    rig.create(20_060, 5, true).unwrap();
    rig.engine.invalidate(Tick(20_070));
    rig.device.forget();
    assert_eq!(rig.engine.rule(old), None);
    assert_eq!(rig.destroy(20_080, old), Err(Errno::Noent));
    assert_eq!((rig.front.outstanding(), rig.front.rules(), rig.table.used()), (0, 0, 0));
    rig.credits.recycle();
    assert_eq!(rig.credits.left(), [2, 1, 1]);
    // The new life begins with a queue as long as ever, although the ring is not empty yet.
    let handles: Vec<RuleHandle> =
        (10..18).map(|payload| rig.create(30_000, payload, false).unwrap()).collect();
    assert!(!handles.contains(&old));
    rig.step(60_000);
    rig.front.push(Tick(60_000));
    rig.step(60_000);
    rig.step(70_000);
    let expected: Vec<(u64, bool)> = (10..18).map(|payload| (payload, true)).collect();
    assert_eq!(rig.pull(), expected);
    assert_eq!(rig.device.payloads(), (10..18).collect::<Vec<u64>>());
}

#[test]
fn a_restart_is_noticed_without_another_call() {
    let mut rig = Rig::new(&profile(), ATTR, 8);
    rig.create(0, 1, false).unwrap();
    rig.step(10_000);
    rig.engine.invalidate(Tick(10_000));
    assert_eq!(rig.table.used(), 1);
    rig.front.notice_restart();
    assert_eq!((rig.table.used(), rig.pull()), (0, Vec::new()));
}

#[test]
fn indirect_actions_keep_the_queues_order() {
    let mut rig = Rig::new(&profile(), QueueAttr { size: 8, ..ATTR }, 8);
    let counter = Shared::Counter(CounterId(5));
    let made = rig.front.act_now(Tick(0), 1, true, || Ok(counter)).unwrap();
    assert_eq!(made, counter);
    let refused: Result<(), Refusal> = rig
        .front
        .act_now(Tick(0), 2, true, || Err(Refusal::new(Errno::Noent, Cause::Unspecified, "none left")));
    assert_eq!((errno(refused), rig.front.outstanding()), (Errno::Noent, 1));
    rig.create(0, 3, true).unwrap();
    let touch = ActionUpdate::Age { timeout_s: None, touch: true };
    let update = ActionOp::Update(counter, touch);
    rig.front.act_later(Tick(0), update, 4, true).unwrap();
    let destroy = ActionOp::Destroy(Shared::Meter(MeterId(1)));
    rig.front.act_later(Tick(0), destroy, 5, true).unwrap();
    assert_eq!(rig.done(1000), []);
    assert!(rig.device.acts.is_empty());
    rig.front.push(Tick(1000));
    assert_eq!(rig.done(10_000), [(1, true), (3, true), (4, true), (5, false)]);
    assert_eq!(rig.device.acts, [update, destroy]);
}

#[test]
fn faults_refuse_fail_delay_and_lose() {
    let mut rig = Rig::new(&profile(), ATTR, 8);
    let mut with = |text: &str, now: u64| {
        rig.faults = Faults::parse(text).unwrap();
        rig.step(now);
        let created = rig.create(now, now, false).map_err(|refusal| refusal.errno).map(drop);
        let early = rig.done(now + 1110);
        let late = rig.done(now + 1_001_110);
        (created, early, late)
    };
    assert_eq!(with("refuse=1", 0), (Err(Errno::Nomem), vec![], vec![]));
    assert_eq!(with("fail=1", 2_000_000), (Ok(()), vec![(2_000_000, false)], vec![]));
    assert_eq!(with("delay_us=1000", 4_000_000), (Ok(()), vec![], vec![(4_000_000, true)]));
    assert_eq!(with("lose_completions=1", 6_000_000), (Ok(()), vec![], vec![]));
    assert_eq!(with("", 8_000_000), (Ok(()), vec![(8_000_000, true)], vec![]));
    assert_eq!(rig.front.outstanding(), 1);
    let expected = QueueStatistics { created: 3, failed: 1, lost: 1, ..QueueStatistics::default() };
    assert_eq!(rig.engine.statistics(), expected);
}

#[test]
fn completions_overtake_within_the_window() {
    let mut rig = Rig::new(&profile(), QueueAttr { size: 64, ..ATTR }, 64);
    rig.faults = Faults::parse("reorder=0.5,seed=5").unwrap();
    for payload in 0..64 {
        rig.create(0, payload, true).unwrap();
    }
    rig.front.push(Tick(0));
    let mut order = Vec::new();
    for now in (0..10_000).step_by(100) {
        order.extend(rig.done(now).into_iter().map(|(payload, _)| payload));
    }
    let mut sorted = order.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (0..64).collect::<Vec<u64>>());
    assert_ne!(order, sorted);
    // The rules themselves were installed in order.
    assert_eq!(rig.device.payloads(), sorted);
}

#[test]
fn collisions_come_with_the_fill_of_large_tables() {
    let mut profile = Profile::named("ideal").unwrap();
    (profile.collide_from_percent, profile.collide_full_percent) = (80, 40);
    let collided = |rules: u32| {
        let mut rig = Rig::new(&profile, QueueAttr { size: 64, ..ATTR }, rules);
        let mut at = Vec::new();
        for number in 1..=u64::from(rules) {
            rig.create(0, number, false).unwrap();
            at.extend(rig.done(0).iter().filter(|(_, ok)| !ok).map(|(number, _)| *number));
        }
        assert_eq!(errno(rig.create(0, 0, false)), Errno::Nomem);
        at
    };
    assert_eq!(collided(1024), []);
    let at = collided(8192);
    // A third of 40 % of the last fifth: the mean of a square.
    assert!((150..=290).contains(&at.len()), "{}", at.len());
    assert!(at[0] > 8192 * 80 / 100);
    let half = at.iter().filter(|number| **number > 8192 * 90 / 100).count();
    assert!(half * 4 > at.len() * 3, "more and more of them: {half} of {}", at.len());
}

/// What is measured from outside is the profile's mean cost.
#[test]
fn a_saturated_queue_runs_at_the_profiles_rate() {
    for name in ["bf3-hws", "bf3-xenoflow"] {
        let mut profile = Profile::named(name).unwrap();
        profile.collide_full_percent = 0;
        let mut rig = Rig::new(&profile, QueueAttr { size: 1024, ..ATTR }, 65_536);
        let (mut now, mut enqueued, mut done, mut out) = (0, 0, 0, [Completion::default(); 256]);
        while done < 20_000 {
            while enqueued < 20_000 && rig.create(now, enqueued, false).is_ok() {
                enqueued += 1;
            }
            now = rig.engine.next_due().unwrap().0.max(now);
            rig.step(now);
            done += rig.front.pull(&mut out);
        }
        let expected = profile.create_cost_ns.mean_ns() * 20_000;
        assert!(now.abs_diff(expected) * 10 < expected, "{name}: {now} ns, {expected} expected");
    }
}

#[test]
fn sizes_and_numbers_are_checked() {
    let profile = Profile::named("bf3-hws").unwrap();
    let credits = Arc::new(Credits::new(0, 0, 0));
    let make = |queue, size| pair::<u64>(QueueAttr { queue, size, ..ATTR }, &profile, &credits, 0).map(drop);
    assert_eq!(errno(make(0, 0)), Errno::Inval);
    assert_eq!(errno(make(0, profile.queue_depth_max + 1)), Errno::Inval);
    assert_eq!(errno(make(64, 1)), Errno::Inval);
    make(63, 1).unwrap();
}

/// Both ends on threads of their own: everything completes once, nothing is left.
#[test]
fn the_ends_may_be_on_two_threads() {
    const RULES: u64 = 20_000;
    let mut rig = Rig::new(&Profile::named("ideal").unwrap(), QueueAttr { size: 32, ..ATTR }, 64);
    let finished = std::sync::atomic::AtomicBool::new(false);
    let Rig { front, engine, table, device, faults, .. } = &mut rig;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !finished.load(Ordering::Acquire) {
                if !engine.step(Tick(1), 64, device, faults) {
                    std::thread::yield_now();
                }
            }
        });
        let (mut created, mut destroyed, mut live) = (0, 0, BTreeMap::new());
        let mut out = [Completion::default(); 16];
        while destroyed < RULES {
            if created < RULES {
                if let Ok(handle) = front.enqueue(Tick(1), table, Needs::default(), created, created, true) {
                    live.insert(created, handle);
                    created += 1;
                }
            }
            front.push(Tick(1));
            let pulled = front.pull(&mut out);
            for completion in &out[..pulled] {
                assert!(completion.ok);
                match completion.user_data.checked_sub(RULES) {
                    None => {
                        let handle = live[&completion.user_data];
                        let end = completion.user_data + RULES;
                        // As many as were pulled have room.
                        front.destroy(Tick(1), handle, end, false).unwrap();
                    }
                    Some(number) => {
                        assert!(live.remove(&number).is_some());
                        destroyed += 1;
                    }
                }
            }
        }
        finished.store(true, Ordering::Release);
    });
    rig.step(1);
    assert_eq!((rig.front.rules(), rig.table.used(), rig.device.active.len()), (0, 0, 0));
    assert!(rig.device.held.is_empty());
}
