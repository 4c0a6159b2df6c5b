//! The simulated engine keeps the engines' promises, under both steerings, and breaks them on request.

use super::*;
use crate::lower::PortFacts;
use crate::rule::{Action, Attr, Item};
use arrayvec::ArrayVec;
use dataplane::addr::{Ip, MacAddr};
use dataplane::ids::PortId;
use dataplane::packet::TestPacket;
use dataplane::snapshot::VlanTags;
use eswitch::model::switch::{DropReason, RxMeta};
use eswitch::model::types::Role;
use proptest::prelude::*;

const MS: u64 = 1_000_000;
const LEG: LegId = LegId { rule: RuleId(7), direction: Direction::Reply };
/// There is no such meter.
const GONE: EngineError = EngineError::Lost(2);
const BOTH: [Steering; 2] = [Steering::Software, Steering::Hardware];

/// How many frames left by a wire, how many came to software, and how many a meter has dropped.
#[derive(Default, PartialEq, Eq, Debug)]
struct Tally {
    wire: u32,
    software: u32,
    /// Red.
    dropped: u32,
}

impl Fabric<TestPacket> for Tally {
    fn transmit(&mut self, _: Vport, _: TestPacket) {
        self.wire += 1;
    }

    fn receive(&mut self, _: Vport, _: RxMeta, _: TestPacket) {
        self.software += 1;
    }

    fn copy(&mut self, _: &TestPacket) -> Option<TestPacket> {
        None
    }

    fn discard(&mut self, reason: DropReason, _: TestPacket) {
        assert!(matches!(reason, DropReason::Meter | DropReason::Rule), "{reason:?}");
        self.dropped += 1;
    }
}

/// An engine, and the clock.
struct Sim {
    engine: SimEngine,
    now: u64,
}

impl Sim {
    fn new(steering: Steering, profile: &str) -> Sim {
        Sim::of(steering, Profile::named(profile).expect("a built-in profile"))
    }

    fn of(steering: Steering, profile: Profile) -> Sim {
        let vports = vec![
            VportInfo { role: Role::Uplink(0), port_id: 0 },
            VportInfo { role: Role::Host(0), port_id: 1 },
        ];
        let port = |ethdev| PortFacts {
            ethdev,
            proxy: 0,
            domain: Some(0),
            mac: MacAddr([2, 0, 0, 0, 0, ethdev as u8]),
            any_mac: false,
            mtu: 1500,
            vlan: VlanTags::default(),
            tunnel: None,
            hairpins: Vec::new(),
        };
        let setup = SimSetup {
            profile,
            steering,
            vports,
            topology: Arc::new(Topology { ports: vec![port(0), port(1)] }),
            rx_queues: 1,
            rules_max: 64,
            operations_max: 8,
            seed: 1,
        };
        let mut sim = Sim { engine: SimEngine::new(0, setup), now: 0 };
        sim.settle();
        assert!(sim.engine.is_ready());
        sim
    }

    /// A second passes, and completions are pulled.
    fn settle(&mut self) -> Vec<Completion> {
        let mut completions = Vec::with_capacity(64);
        for _ in 0..10 {
            completions.append(&mut self.step());
        }
        completions
    }

    /// A tenth of it.
    fn step(&mut self) -> Vec<Completion> {
        let mut completions = Vec::with_capacity(64);
        self.engine.push();
        self.now += 100 * MS;
        self.engine.set_now(self.now);
        self.engine.pull(&mut completions);
        completions
    }

    fn installed(&mut self) {
        self.engine.install(LEG, &rule()).expect("a good rule");
        assert_eq!(self.settle(), [Completion::Installed(LEG)]);
    }

    /// What becomes of one segment.
    fn segment(&mut self) -> Tally {
        self.pass(&segment())
    }

    fn pass(&mut self, frame: &[u8]) -> Tally {
        let mut burst: Burst<TestPacket> = [TestPacket::new(PortId(0), frame)].into_iter().collect();
        let mut tally = Tally::default();
        self.engine.forward(0, false, &mut burst, &mut tally);
        tally
    }

    fn faults(&mut self, text: &str) {
        self.engine.set_faults(Faults::parse(text).expect("faults"));
    }
}

const OFFLOADED: Tally = Tally { wire: 1, software: 0, dropped: 0 };
const MISSED: Tally = Tally { wire: 0, software: 1, dropped: 0 };

fn rule() -> Rule {
    let mut items = ArrayVec::new();
    items.extend([
        Item::RepresentedPort(0),
        Item::Eth { dst: None },
        Item::Ipv4 { src: Some(0x0a00_0001), dst: Some(0xc000_0250), class: None, ttl: None },
        Item::Udp { src: Some(4000), dst: Some(53) },
    ]);
    let mut actions = ArrayVec::new();
    actions.extend([
        Action::Count,
        Action::Age { timeout_s: 30 },
        Action::SetIpDst(Ip::v4(0x0a01_0007)),
        Action::SetPortDst(5353),
        Action::DecTtl,
        Action::ToPort(1),
    ]);
    let attr = Attr { domain: Domain::Transfer, group: lower::CONNECTIONS_V4_UDP, priority: 0 };
    Rule { port: 0, attr, items, actions, headers: ArrayVec::new() }
}

fn segment() -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 0, 2, 0, 0, 0, 9, 9, 8, 0];
    frame.extend([0x45, 0, 0, 30, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 192, 0, 2, 80]);
    frame.extend([0x0f, 0xa0, 0, 53, 0, 10, 0, 0, 1, 2]);
    frame
}

/// The same with a TTL of 1.
fn expiring() -> Vec<u8> {
    let mut frame = segment();
    frame[22] = 1;
    frame
}

#[test]
fn a_rule_lives_and_its_counter_outlives_it() {
    for (steering, profile) in BOTH.into_iter().zip(["bf2-sws", "bf3-hws"]) {
        let mut sim = Sim::new(steering, profile);
        assert_eq!(sim.segment(), MISSED);
        sim.installed();
        assert_eq!(sim.engine.connection_rules(), 1);
        assert_eq!(sim.segment(), OFFLOADED);
        sim.engine.remove(LEG).expect("in force");
        assert_eq!(sim.settle(), [Completion::Removed(LEG)]);
        assert_eq!(sim.segment(), MISSED);
        let settled = u64::from(sim.engine.traits().settle_ms);
        assert!(settled <= 3_000);
        sim.now += settled * MS;
        sim.engine.set_now(sim.now);
        let bytes = segment().len() as u64;
        assert_eq!(sim.engine.count(LEG), Ok(Count { packets: 1, bytes }), "{steering:?}");
        sim.engine.release(LEG);
        assert_eq!(sim.engine.count(LEG), Err(EngineError::Lost(2)));
        assert_eq!(sim.engine.connection_rules(), 0);
        assert_eq!(sim.engine.device().objects_in_use(), [0; 3]);
        sim.installed();
    }
}

const RED: Tally = Tally { wire: 0, software: 0, dropped: 1 };

/// Rules that name a meter share its rate. What they count is what passes, as on mlx5: their counters are
/// shared ones.
#[test]
fn a_meter_drops_what_is_too_much_and_rules_count_the_rest() {
    let mut sim = Sim::new(Steering::Software, "bf2-sws");
    let meter = Meter { packets: true, per_second: 10, burst: 5 };
    assert_eq!(sim.engine.meter_drops(0, 3), Err(GONE));
    sim.engine.set_meter(0, 3, &meter).expect("a meter");
    sim.engine.install(LEG, &rule().metered(Some(3)).expect("room for it")).expect("a good rule");
    assert_eq!(sim.settle(), [Completion::Installed(LEG)]);
    let passes: Vec<_> = (0..20).map(|_| sim.segment()).collect();
    assert!(passes[..5].iter().all(|pass| *pass == OFFLOADED) && passes[5..].iter().all(|p| *p == RED));
    let bytes = segment().len() as u64;
    assert_eq!(sim.engine.meter_drops(0, 3), Ok(Count { packets: 15, bytes: 15 * bytes }));
    // Another rate begins with a burst.
    sim.engine.set_meter(0, 3, &Meter { per_second: 2, burst: 3, ..meter }).expect("a meter");
    let passed = (0..20).filter(|_| sim.segment() == OFFLOADED).count();
    assert_eq!(passed, 3, "a burst");
    sim.settle();
    let passed = (0..20).filter(|_| sim.segment() == OFFLOADED).count();
    assert_eq!(passed, 2, "those of a second");
    sim.settle();
    sim.settle();
    assert_eq!(sim.engine.count(LEG), Ok(Count { packets: 10, bytes: 10 * bytes }));
    sim.engine.remove(LEG).expect("in force");
    sim.settle();
    sim.engine.release(LEG);
    sim.engine.unset_meter(0, 3);
    assert_eq!(sim.engine.meter_drops(0, 3), Err(GONE));
    assert_eq!(sim.engine.device().objects_in_use(), [0; 3]);
}

/// Under hardware steering it takes rules of its own, and a connection's counts what is dropped, too.
#[test]
fn a_meter_s_colours_are_acted_on() {
    let mut sim = Sim::new(Steering::Hardware, "bf3-hws");
    let meter = Meter { packets: true, per_second: 10, burst: 5 };
    let named = rule().metered(Some(3)).expect("room for it");
    assert!(sim.engine.install(LEG, &named).is_err(), "it has no meter");
    assert_eq!(sim.engine.set_meter(0, 3, &meter), Err(EngineError::QueueFull), "it is being made");
    sim.settle();
    sim.engine.set_meter(0, 3, &meter).expect("a meter");
    sim.engine.install(LEG, &named).expect("a good rule");
    assert_eq!(sim.settle(), [Completion::Installed(LEG)]);
    let passes: Vec<_> = (0..20).map(|_| sim.segment()).collect();
    assert!(passes[..5].iter().all(|pass| *pass == OFFLOADED) && passes[5..].iter().all(|p| *p == RED));
    sim.engine.set_meter(0, 3, &Meter { burst: 2, ..meter }).expect("another rate");
    assert_eq!([sim.segment(), sim.segment(), sim.segment()], [OFFLOADED, OFFLOADED, RED]);
    sim.settle();
    sim.settle();
    let bytes = segment().len() as u64;
    assert_eq!(sim.engine.meter_drops(0, 3), Ok(Count { packets: 16, bytes: 16 * bytes }));
    assert_eq!(sim.engine.count(LEG), Ok(Count { packets: 23, bytes: 23 * bytes }));
    sim.engine.remove(LEG).expect("in force");
    sim.settle();
    sim.engine.release(LEG);
    sim.engine.unset_meter(0, 3);
    sim.settle();
    assert_eq!(sim.engine.meter_drops(0, 3), Err(GONE));
    assert_eq!(sim.engine.device().objects_in_use(), [0; 3]);
}

#[test]
fn blocking_calls_keep_their_caller() {
    let mut sim = Sim::new(Steering::Software, "bf2-sws");
    sim.engine.take_spent_ns();
    sim.installed();
    let spent = sim.engine.take_spent_ns();
    assert!((100_000..3_000_000).contains(&spent), "about 305 us, not {spent} ns");
    assert_eq!(sim.engine.take_spent_ns(), 0);
}

#[test]
fn one_operation_at_a_time_under_software_steering() {
    let mut sim = Sim::new(Steering::Software, "ideal");
    let other = LegId { direction: Direction::Original, ..LEG };
    sim.engine.install(LEG, &rule()).expect("a good rule");
    assert_eq!(sim.engine.install(other, &rule()), Err(EngineError::QueueFull));
    sim.settle();
    sim.engine.install(other, &rule()).expect("there is room again");
}

#[test]
fn a_full_queue_has_to_be_pulled() {
    let mut sim = Sim::new(Steering::Hardware, "bf3-hws");
    let leg = |number| LegId { rule: RuleId(number), ..LEG };
    let outcomes: Vec<_> = (0..9).map(|number| sim.engine.install(leg(number), &rule())).collect();
    assert_eq!(outcomes[8], Err(EngineError::QueueFull));
    assert!(outcomes[..8].iter().all(Result::is_ok));
    assert_eq!(sim.settle().len(), 8);
}

#[test]
fn what_is_refused_leaves_nothing() {
    for steering in BOTH {
        let mut sim = Sim::new(steering, "ideal");
        sim.faults("refuse=1");
        assert_eq!(sim.engine.install(LEG, &rule()), Err(EngineError::TableFull), "{steering:?}");
        sim.faults("");
        let nowhere = Rule { actions: [Action::Count, Action::ToPort(9)].into_iter().collect(), ..rule() };
        let refused = sim.engine.install(LEG, &nowhere);
        assert!(matches!(refused, Err(EngineError::Refused(_))), "{refused:?}");
        assert_eq!(sim.engine.device().objects_in_use(), [0; 3]);
        sim.installed();
    }
}

#[test]
fn what_fails_late_leaves_nothing() {
    let mut sim = Sim::new(Steering::Hardware, "bf3-hws");
    sim.faults("fail=1");
    sim.engine.install(LEG, &rule()).expect("enqueued");
    assert_eq!(sim.settle(), [Completion::Failed(LEG, EngineError::Failed)]);
    assert_eq!(sim.engine.device().objects_in_use(), [0; 3]);
    sim.faults("");
    sim.installed();
}

#[test]
fn aged_rules_are_told_by_name() {
    for steering in BOTH {
        let mut sim = Sim::new(steering, "ideal");
        sim.installed();
        let mut aged = Vec::with_capacity(4);
        sim.engine.aged(&mut aged);
        assert_eq!(aged, []);
        (0..40).for_each(|_| drop(sim.settle()));
        sim.engine.aged(&mut aged);
        assert_eq!(aged, [LEG], "{steering:?}");
    }
}

#[test]
fn a_lost_completion_is_mended_by_a_flush() {
    let mut sim = Sim::new(Steering::Hardware, "bf3-hws");
    sim.faults("lose_completions=1");
    sim.engine.install(LEG, &rule()).expect("enqueued");
    assert_eq!(sim.settle(), []);
    assert_eq!(sim.segment(), OFFLOADED, "although nobody was told");
    sim.faults("");
    sim.engine.flush().expect("it answers");
    assert_eq!(sim.segment(), MISSED);
    assert_eq!(sim.settle(), []);
    assert!(sim.engine.is_ready());
    assert_eq!(sim.engine.device().objects_in_use(), [0; 3]);
    sim.installed();
    assert_eq!(sim.segment(), OFFLOADED, "the base rules are back, too");
}

#[test]
fn a_base_rule_of_which_nobody_hears_is_mended_by_a_flush() {
    let mut sim = Sim::new(Steering::Hardware, "bf3-hws");
    sim.faults("lose_completions=1");
    sim.engine.flush().expect("it answers");
    sim.settle();
    assert!(!sim.engine.is_ready(), "they may have failed");
    sim.faults("");
    sim.engine.flush().expect("it answers");
    sim.settle();
    assert!(sim.engine.is_ready());
    assert_eq!(sim.engine.connection_rules(), 0);
}

/// Whatever becomes of the base rules, none leads to a connection's rule before those are in force that keep
/// what expires for software.
#[test]
fn what_expires_comes_to_software_however_few_base_rules_there_are() {
    let (mut led, mut waited) = (0, 0);
    for seed in 0..60 {
        for (steering, profile) in BOTH.into_iter().zip(["bf2-sws", "bf3-hws"]) {
            let mut sim = Sim::new(steering, profile);
            sim.faults(&format!("refuse=0.3,fail=0.3,lose_completions=0.2,reorder=0.5,seed={seed}"));
            sim.engine.flush().expect("it answers");
            while sim.engine.install(LEG, &rule()).is_err() {}
            for _ in 0..10 {
                sim.step();
                assert_eq!(sim.pass(&expiring()), MISSED, "{steering:?}, seed {seed}");
            }
            led += sim.segment().wire;
            waited += u32::from(!sim.engine.is_ready());
        }
    }
    assert!(led > 20 && waited > 20, "{led} {waited}");
}

#[test]
fn a_reset_loses_everything_until_the_flush() {
    for (steering, profile) in BOTH.into_iter().zip(["bf2-sws", "bf3-hws"]) {
        let mut sim = Sim::new(steering, profile);
        sim.installed();
        sim.engine.reset(500 * MS);
        assert_eq!(sim.segment(), MISSED, "software goes on");
        assert!(matches!(sim.engine.count(LEG), Err(EngineError::Lost(_))));
        assert!(matches!(sim.engine.remove(LEG), Err(EngineError::Lost(_))));
        assert!(sim.engine.flush().is_err(), "it does not answer");
        sim.settle();
        sim.engine.fail_flushes(1);
        assert!(sim.engine.flush().is_err());
        assert!(matches!(sim.engine.install(LEG, &rule()), Err(EngineError::Lost(_))), "not flushed");
        sim.engine.flush().expect("it answers again");
        sim.settle();
        sim.installed();
        assert_eq!(sim.segment(), OFFLOADED, "{steering:?}");
    }
}

#[test]
fn a_device_that_hangs_is_waited_for() {
    let mut sim = Sim::new(Steering::Software, "bf2-sws");
    sim.faults("hang_ms=500");
    assert_eq!(sim.engine.install(LEG, &rule()), Err(EngineError::Lost(110)));
    assert!(sim.engine.flush().is_err());
    sim.settle();
    sim.installed();

    let mut sim = Sim::new(Steering::Hardware, "bf3-hws");
    sim.engine.install(LEG, &rule()).expect("enqueued");
    sim.faults("hang_ms=1500");
    assert_eq!(sim.settle(), []);
    assert_eq!(sim.settle(), [Completion::Installed(LEG)]);
}

#[test]
fn a_narrower_chip_takes_ipv4_and_declines_ipv6() {
    let mut profile = Profile::named("bf3-hws").expect("a built-in profile");
    (profile.match_dwords_max, profile.match_dwords_near_max) = (8, 3);
    (profile.ipv6_five_tuple, profile.ipv4_ihl) = (false, false);
    let mut sim = Sim::of(Steering::Hardware, profile);
    sim.installed();
    let ip = |last| Some(Ip::v6([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]));
    let mut wide = rule();
    wide.items[2] = Item::Ipv6 { src: ip(1), dst: ip(2), class: None, hop_limit: None };
    wide.actions[2] = Action::SetPortSrc(7);
    let other = LegId { rule: RuleId(8), ..LEG };
    assert_eq!(sim.engine.install(other, &wide), Err(EngineError::Refused(95)));
}

/// What an engine promised about a leg.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Promise {
    #[default]
    Nothing,
    Creating,
    Live,
    Removing,
    Out,
}

#[derive(Clone, Debug)]
enum Op {
    Install(usize),
    Remove(usize),
    Release(usize),
    Segment,
    Pass(u64),
    Faults(&'static str),
    Reset(u64),
    Flush,
}

const LEGS: usize = 6;

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let faults = prop::sample::select(vec![
        "",
        "refuse=0.5",
        "fail=0.5",
        "delay_us=50000",
        "reorder=0.5",
        "lose_completions=0.3",
        "lose_counters=0.5",
        "age_early=0.3",
        "full_at=14",
        "counters_at=3",
        "hang_ms=200",
        "reset",
    ]);
    let op = prop_oneof![
        6 => (0..LEGS).prop_map(Op::Install),
        4 => (0..LEGS).prop_map(Op::Remove),
        4 => (0..LEGS).prop_map(Op::Release),
        4 => Just(Op::Segment),
        6 => (0..700_u64).prop_map(Op::Pass),
        1 => faults.prop_map(Op::Faults),
        1 => (0..300_u64).prop_map(Op::Reset),
        1 => Just(Op::Flush),
    ];
    prop::collection::vec(op, 1..80)
}

/// An engine, and what it has promised.
struct Watched {
    sim: Sim,
    promises: [Promise; LEGS],
    counts: [Count; LEGS],
    lost: bool,
}

impl Watched {
    fn leg(at: usize) -> LegId {
        LegId { rule: RuleId(at as u32), direction: Direction::Original }
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Install(at) if self.promises[at] == Promise::Nothing => self.install(at),
            Op::Remove(at) if self.promises[at] == Promise::Live => self.remove(at),
            Op::Release(at) if self.promises[at] == Promise::Out => {
                self.sim.engine.release(Watched::leg(at));
                self.promises[at] = Promise::Nothing;
            }
            Op::Segment => assert!([OFFLOADED, MISSED].contains(&self.sim.segment())),
            Op::Pass(ms) => self.pass(ms),
            Op::Faults(text) => {
                self.sim.faults(text);
                self.lost |= text == "reset";
            }
            Op::Reset(ms) => {
                self.sim.engine.reset(ms * MS);
                self.lost = true;
            }
            Op::Flush => drop(self.flush()),
            _ => {}
        }
    }

    fn install(&mut self, at: usize) {
        if self.sim.engine.install(Watched::leg(at), &rule()).is_ok() {
            assert!(!self.lost, "installed while lost");
            self.promises[at] = Promise::Creating;
            self.counts[at] = Count::default();
        }
    }

    fn remove(&mut self, at: usize) {
        if self.sim.engine.remove(Watched::leg(at)).is_ok() {
            assert!(!self.lost, "removed while lost");
            self.promises[at] = Promise::Removing;
        }
    }

    fn pass(&mut self, ms: u64) {
        self.sim.now += ms * MS;
        self.sim.engine.push();
        self.sim.engine.set_now(self.sim.now);
        let mut completions = Vec::with_capacity(3);
        self.sim.engine.pull(&mut completions);
        assert!(completions.len() <= 3 && completions.capacity() == 3);
        for completion in completions {
            assert!(!self.lost, "{completion:?} while lost");
            let (leg, from, to) = match completion {
                Completion::Installed(leg) => (leg, Promise::Creating, Promise::Live),
                Completion::Failed(leg, _) => (leg, Promise::Creating, Promise::Nothing),
                Completion::Removed(leg) => (leg, Promise::Removing, Promise::Out),
                Completion::Stuck(leg, _) => (leg, Promise::Removing, Promise::Live),
            };
            let promise = &mut self.promises[leg.rule.0 as usize];
            assert_eq!(*promise, from, "{completion:?}");
            *promise = to;
        }
        self.read();
    }

    /// Counters of rules that are or were in force answer, and never go back.
    fn read(&mut self) {
        for at in 0..LEGS {
            let count = self.sim.engine.count(Watched::leg(at));
            match self.promises[at] {
                Promise::Live | Promise::Removing | Promise::Out if !self.lost => {
                    let count = count.expect("a counter");
                    let before = std::mem::replace(&mut self.counts[at], count);
                    assert!(count.packets >= before.packets && count.bytes >= before.bytes);
                }
                Promise::Nothing => assert!(count.is_err()),
                _ => {}
            }
        }
    }

    fn flush(&mut self) -> Result<(), EngineError> {
        self.sim.engine.flush()?;
        (self.promises, self.lost) = ([Promise::Nothing; LEGS], false);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn promises_are_kept_whatever_goes_wrong(hardware in any::<bool>(), ops in ops()) {
        let (steering, profile) = if hardware {
            (Steering::Hardware, "bf3-hws")
        } else {
            (Steering::Software, "bf2-sws")
        };
        let sim = Sim::new(steering, profile);
        let nothing = ([Promise::Nothing; LEGS], [Count::default(); LEGS]);
        let mut watched = Watched { sim, promises: nothing.0, counts: nothing.1, lost: false };
        for op in &ops {
            watched.apply(op);
        }
        watched.sim.faults("");
        watched.pass(1_000);
        watched.flush().expect("it answers");
        watched.sim.settle();
        prop_assert!(watched.sim.engine.is_ready());
        prop_assert_eq!(watched.sim.engine.connection_rules(), 0);
        prop_assert_eq!(watched.sim.segment(), MISSED);
        prop_assert_eq!(watched.sim.engine.device().objects_in_use(), [0; 3]);
        watched.sim.installed();
        prop_assert_eq!(watched.sim.segment(), OFFLOADED);
    }
}
