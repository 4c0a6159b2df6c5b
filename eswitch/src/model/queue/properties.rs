//! Random sequences of operations, against what a flow queue promises.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use super::super::faults::Faults;
use super::super::template::Occupancy;
use super::super::timing::Spread;
use super::tests::Device;
use super::*;

const SIZE: u32 = 8;
const PLACES: u32 = 16;
const COUNTERS: u32 = 5;

#[derive(Clone, Debug)]
enum Step {
    Create {
        counter: bool,
        postpone: bool,
    },
    Destroy {
        nth: usize,
        postpone: bool,
    },
    Act {
        later: bool,
        postpone: bool,
    },
    Push,
    Pull(usize),
    /// Time passes, then the device gets so much work done.
    Device {
        ns: u64,
        budget: usize,
    },
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (any::<bool>(), any::<bool>()).prop_map(|(counter, postpone)| Step::Create { counter, postpone }),
        6 => (any::<usize>(), any::<bool>()).prop_map(|(nth, postpone)| Step::Destroy { nth, postpone }),
        2 => (any::<bool>(), any::<bool>()).prop_map(|(later, postpone)| Step::Act { later, postpone }),
        2 => Just(Step::Push),
        6 => (0..10usize).prop_map(Step::Pull),
        8 => (0..3000u64, 0..20usize).prop_map(|(ns, budget)| Step::Device { ns, budget }),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 0..300)
}

fn profiles() -> impl Strategy<Value = Profile> {
    let spread = || (0..400u64).prop_map(|median| Spread { median, p99: median * 3 });
    prop::array::uniform6(spread()).prop_map(|spreads| {
        let mut profile = Profile::named("ideal").unwrap();
        [profile.create_cost_ns, profile.create_latency_ns, profile.create_completion_ns, ..] = spreads;
        [.., profile.destroy_cost_ns, profile.destroy_latency_ns, profile.destroy_completion_ns] = spreads;
        profile
    })
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Life {
    Creating,
    Live,
    Failed,
    Destroying,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Create(RuleHandle),
    Destroy(RuleHandle),
    Other,
}

/// Everything that has been asked for, in order, beside the real thing.
struct Reference {
    front: FlowQueue<u64>,
    engine: QueueEngine<u64>,
    table: Arc<Occupancy>,
    credits: Arc<Credits>,
    device: Device,
    faults: Faults,
    now: u64,
    next: u64,
    /// Enqueued and not pulled, in order.
    outstanding: VecDeque<(u64, Kind)>,
    rules: BTreeMap<RuleHandle, (Life, bool)>,
    stale: Vec<RuleHandle>,
}

impl Reference {
    fn new(profile: &Profile, faults: Faults, seed: u64) -> Reference {
        let attr = QueueAttr { port: Vport(1), queue: 0, size: SIZE, full_errno: Errno::Nomem };
        let credits = Arc::new(Credits::new(COUNTERS, 0, 0));
        let (front, engine) = pair(attr, profile, &credits, seed).unwrap();
        Reference {
            front,
            engine,
            table: Arc::new(Occupancy::new(PLACES).unwrap()),
            credits,
            device: Device::default(),
            faults,
            now: 0,
            next: 0,
            outstanding: VecDeque::new(),
            rules: BTreeMap::new(),
            stale: Vec::new(),
        }
    }

    fn run(&mut self, step: &Step) {
        self.next += 1;
        let now = Tick(self.now);
        match *step {
            Step::Create { counter, postpone } => self.create(counter, postpone),
            Step::Destroy { nth, postpone } => self.destroy(nth, postpone),
            Step::Act { later, postpone } => {
                let touch = ActionUpdate::Age { timeout_s: None, touch: true };
                let update = ActionOp::Update(Shared::Rss(0), touch);
                let done = if later {
                    self.front.act_later(now, update, self.next, postpone)
                } else {
                    self.front.act_now(now, self.next, postpone, || Ok(()))
                };
                assert_eq!(done.is_ok(), self.outstanding.len() < SIZE as usize);
                if done.is_ok() {
                    self.outstanding.push_back((self.next, Kind::Other));
                }
            }
            Step::Push => self.front.push(now),
            Step::Pull(most) => self.pull(most),
            Step::Device { ns, budget } => {
                self.now += ns;
                self.engine.step(Tick(self.now), budget, &mut self.device, &mut self.faults);
                self.credits.recycle();
            }
            Step::Restart => {
                self.engine.invalidate(now);
                self.device.forget();
                self.outstanding.clear();
                self.stale.extend(self.rules.keys());
                self.rules.clear();
            }
        }
        self.check();
    }

    fn create(&mut self, counter: bool, postpone: bool) {
        let needs = Needs { counter, ..Needs::default() };
        // As the ends see it: a restart gives back what was taken.
        self.front.notice_restart();
        let free = self.credits.left()[0];
        let made = self.front.enqueue(Tick(self.now), &self.table, needs, self.next, self.next, postpone);
        let expected = if self.outstanding.len() == SIZE as usize || self.rules.len() == PLACES as usize {
            Err(Errno::Nomem)
        } else if counter && free == 0 {
            Err(Errno::Noent)
        } else {
            Ok(())
        };
        match made {
            Ok(handle) => {
                assert_eq!(expected, Ok(()));
                assert!(!self.stale.contains(&handle), "a stale handle is given out again");
                assert_eq!(self.rules.insert(handle, (Life::Creating, counter)), None);
                self.outstanding.push_back((self.next, Kind::Create(handle)));
            }
            Err(refusal) => assert_eq!(expected, Err(refusal.errno)),
        }
    }

    fn destroy(&mut self, nth: usize, postpone: bool) {
        let known = self.rules.keys().chain(&self.stale).copied();
        let Some(handle) = known.clone().nth(nth % known.count().max(1)) else { return };
        let life = self.rules.get(&handle).map(|(life, _)| *life);
        let expected = match life {
            _ if self.outstanding.len() == SIZE as usize => Err(Errno::Nomem),
            None | Some(Life::Destroying) => Err(Errno::Noent),
            Some(Life::Creating) => Err(Errno::Busy),
            Some(Life::Live | Life::Failed) => Ok(()),
        };
        let done = self.front.destroy(Tick(self.now), handle, self.next, postpone);
        assert_eq!(done.map_err(|refusal| refusal.errno), expected);
        if done.is_ok() {
            self.rules.get_mut(&handle).unwrap().0 = Life::Destroying;
            self.outstanding.push_back((self.next, Kind::Destroy(handle)));
        }
    }

    fn pull(&mut self, most: usize) {
        let mut out = vec![Completion::default(); most];
        let pulled = self.front.pull(&mut out);
        for completion in &out[..pulled] {
            let at = self.outstanding.iter().position(|(user_data, _)| *user_data == completion.user_data);
            let at = at.expect("a completion of what is outstanding, and the first of it");
            assert!(at == 0 || self.faults.reorder.parts() > 0, "out of order");
            let (_, kind) = self.outstanding.remove(at).unwrap();
            match kind {
                Kind::Create(handle) => {
                    let life = if completion.ok { Life::Live } else { Life::Failed };
                    assert!(completion.ok || self.faults.fail.parts() > 0);
                    self.rules.get_mut(&handle).unwrap().0 = life;
                }
                Kind::Destroy(handle) => {
                    assert!(completion.ok);
                    self.rules.remove(&handle).unwrap();
                    self.stale.push(handle);
                }
                Kind::Other => assert!(completion.ok),
            }
        }
    }

    fn check(&mut self) {
        self.front.notice_restart();
        assert_eq!(self.front.outstanding() as usize, self.outstanding.len());
        assert_eq!(self.front.rules() as usize, self.rules.len());
        assert_eq!(self.table.used() as usize, self.rules.len());
        let counters = self.rules.values().filter(|(_, counter)| *counter).count() as u32;
        assert!(self.credits.left()[0] <= COUNTERS - counters);
        for (handle, (life, _)) in &self.rules {
            let installed = self.engine.rule(*handle);
            match life {
                Life::Live => assert!(self.device.active[&installed.unwrap()].1.handle == *handle),
                Life::Failed => assert_eq!(installed, None),
                Life::Creating | Life::Destroying => {}
            }
        }
        assert!(self.stale.iter().all(|handle| self.engine.rule(*handle).is_none()));
    }

    /// Everything that was asked for completes.
    fn drain(&mut self) {
        self.front.push(Tick(self.now));
        self.pull(SIZE as usize);
        while !self.outstanding.is_empty() {
            let due = self.engine.next_due().expect("something is outstanding");
            self.now = self.now.max(due.0);
            self.engine.step(Tick(self.now), 100, &mut self.device, &mut self.faults);
            self.credits.recycle();
            self.pull(SIZE as usize);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_operation_completes_once_and_everything_comes_back(
        steps in steps(),
        profile in profiles(),
        reorder in prop_oneof![Just("reorder=0"), Just("reorder=0.5")],
        fail in prop_oneof![Just("fail=0"), Just("fail=0.3")],
        seed: u64,
    ) {
        let faults = Faults::parse(&format!("{reorder},{fail},seed={seed}")).unwrap();
        let mut reference = Reference::new(&profile, faults, seed);
        for step in &steps {
            reference.run(step);
        }
        reference.drain();
        reference.check();
        // No handle was lost: each can be destroyed.
        while let Some((handle, _)) = reference.rules.first_key_value() {
            let handle = *handle;
            reference.next += 1;
            reference.front.destroy(Tick(reference.now), handle, reference.next, false).unwrap();
            reference.outstanding.push_back((reference.next, Kind::Destroy(handle)));
            reference.drain();
        }
        reference.engine.step(Tick(reference.now), 100, &mut reference.device, &mut reference.faults);
        reference.credits.recycle();
        prop_assert!(reference.device.active.is_empty() && reference.device.held.is_empty());
        prop_assert_eq!(reference.credits.left(), [COUNTERS, 0, 0]);
        prop_assert_eq!(reference.table.used(), 0);
        prop_assert_eq!(reference.engine.next_due(), None);
    }

    #[test]
    fn equal_seeds_have_equal_courses(steps in steps(), profile in profiles(), seed: u64) {
        let course = || {
            let faults = Faults::parse(&format!("reorder=0.5,fail=0.3,delay_us=1,seed={seed}")).unwrap();
            let mut reference = Reference::new(&profile, faults, seed);
            for step in &steps {
                reference.run(step);
            }
            (reference.outstanding.len(), reference.engine.next_due(), reference.engine.statistics())
        };
        prop_assert_eq!(course(), course());
    }
}
