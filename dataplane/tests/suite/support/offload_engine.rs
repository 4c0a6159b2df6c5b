//! A worker against a simple offload engine that is slow, full, forgetful and repeats itself: whatever
//! happens, once the faults are over the two agree about what is in hardware.

use crate::common::frames::{tcp, udp};
use crate::common::world::{BACK, FRONT, PORT_MACS, World};
use dataplane::addr::MacAddr;
use dataplane::conntrack::Count;
use dataplane::ids::BackendId;
use dataplane::offload::{Answer, Ask, Declined, FlowRef, OffloadState, Removal, RuleId};
use proptest::prelude::*;
use std::collections::{BTreeMap, VecDeque};

const BACKENDS: usize = 2;
/// Slots of backends: more than two services with their present and former backends need.
const SLOTS: usize = 8;
/// Client ports in use: few, so that they are used again and slots are recycled.
const CLIENTS: u8 = 12;

/// A configuration: weights of the backends (`None` is absent), whose MAC it is, and the policy.
fn config(weights: [Option<u8>; BACKENDS], mac: u8, more: &str) -> String {
    let backends = |port: u16| {
        let one = move |(n, weight): (usize, Option<u8>)| {
            let weight = weight?;
            Some(format!("[[service.backend]]\naddress = \"10.0.1.{}:{port}\"\nweight = {weight}\n", 11 + n))
        };
        weights.into_iter().enumerate().filter_map(one).collect::<String>()
    };
    let neighbour = |ip: &str, mac: u8| {
        format!("[[port.neighbour]]\naddress = \"{ip}\"\nmac = \"02:00:00:00:07:{mac:02x}\"\n")
    };
    format!(
        "[limits]\nconnections = 64\nhalf_open_percent = 40\n\
         [timeouts]\ntcp_established_s = 8\nudp_replied_s = 4\n\
         [[port]]\nname = \"front\"\ndevice = \"d0\"\naddresses = [\"10.0.0.1/24\"]\ngateway = \"10.0.0.254\"\n{}\
         [[port]]\nname = \"back\"\ndevice = \"d1\"\naddresses = [\"10.0.1.1/24\"]\n{}{}\
         [[service]]\nname = \"web\"\nvip = \"192.0.2.80\"\nprotocol = \"tcp\"\nports = [80]\n{more}\n{}\
         [[service]]\nname = \"dns\"\nvip = \"192.0.2.53\"\nprotocol = \"udp\"\nports = [53]\n{more}\n{}",
        neighbour("10.0.0.254", 254),
        neighbour("10.0.1.11", mac),
        neighbour("10.0.1.12", 12),
        backends(8080),
        backends(5353),
    )
}

fn configs() -> [String; 6] {
    [
        config([Some(1), Some(1)], 11, ""),
        config([Some(0), Some(1)], 11, ""),
        config([Some(1), None], 11, "on_remove = \"reset\""),
        config([None, Some(1)], 11, "on_remove = \"reset\""),
        config([Some(1), Some(1)], 99, ""),
        config([Some(1), Some(1)], 11, "offload = false"),
    ]
}

struct Rule {
    ask: Ask,
    unread: [u64; 2],
}

/// What is in hardware, and what has been said about it.
#[derive(Default)]
struct Engine {
    rules: BTreeMap<u32, Rule>,
    next: u32,
    answers: VecDeque<Answer>,
    said: Vec<Answer>,
    /// Packets told to the worker, by backend and direction.
    reported: [[u64; 2]; SLOTS],
}

impl Engine {
    /// Takes what the worker has asked for; `luck` decides how it ends.
    fn take_asks(&mut self, world: &mut World, luck: u8) {
        for (ask, luck) in world.envs[0].asks.drain(..).zip((luck..=u8::MAX).cycle()) {
            let (flow, token) = (ask.flow, ask.token);
            match luck % 8 {
                0 => {
                    let retry_ms = u32::from(luck) * 10;
                    self.answers.push_back(Answer::Declined {
                        flow,
                        token,
                        reason: Declined::Budget,
                        retry_ms,
                    });
                }
                1 => {} // A request, or its refusal, was lost.
                luck => {
                    let rule = RuleId(self.next);
                    self.next += 1;
                    self.rules.insert(rule.0, Rule { ask, unread: [0; 2] });
                    if luck != 2 {
                        self.answers.push_back(Answer::Installed { flow, token, rule });
                    }
                }
            }
        }
    }

    fn take_revokes(&mut self, world: &mut World, lose: bool) {
        for revoke in world.envs[0].revokes.drain(..) {
            let known = self.rules.get(&revoke.rule.0).is_some_and(|rule| rule.ask.flow == revoke.flow);
            if known {
                self.remove(revoke.rule.0, Removal::Revoked(revoke.why), 0, lose);
            }
        }
    }

    /// Takes a rule out; the last counts follow.
    fn remove(&mut self, rule: u32, why: Removal, retry_ms: u32, lose: bool) {
        let Some(gone) = self.rules.remove(&rule) else { return };
        if !lose {
            self.answers.push_back(Answer::Removed {
                flow: gone.ask.flow,
                rule: RuleId(rule),
                why,
                retry_ms,
            });
        }
        self.answers.push_back(counted(&gone.ask, None, gone.unread));
    }

    fn audit(&mut self) {
        for (number, rule) in &mut self.rules {
            let counts = std::mem::take(&mut rule.unread);
            self.answers.push_back(counted(&rule.ask, Some(RuleId(*number)), counts));
        }
    }

    fn deliver(&mut self, world: &mut World, many: usize) {
        for _ in 0..many {
            let Some(answer) = self.answers.pop_front() else { return };
            self.say(world, &answer);
            self.said.push(answer);
        }
    }

    fn say(&mut self, world: &mut World, answer: &Answer) {
        if let Answer::Counted { backend, counts, .. } = answer {
            for (sum, count) in self.reported[backend.index()].iter_mut().zip(counts) {
                *sum += count.packets;
            }
        }
        world.answer(answer);
    }

    /// Says again what was said of a connection that is gone.
    fn repeat(&mut self, world: &mut World, which: u8) {
        let rows = world.rows();
        let gone = |answer: &&Answer| !rows.iter().any(|row| row.flow == answer.flow());
        let candidates: Vec<Answer> = self.said.iter().filter(gone).copied().collect();
        if let Some(answer) = candidates.get(usize::from(which) % candidates.len().max(1)) {
            self.say(world, answer);
        }
    }
}

fn counted(ask: &Ask, rule: Option<RuleId>, packets: [u64; 2]) -> Answer {
    Answer::Counted {
        flow: ask.flow,
        rule,
        backend: ask.backend,
        counts: packets.map(|packets| Count { packets, bytes: packets * 60 }),
        next_hops: ask.legs.map(|leg| leg.map(|leg| leg.next_hop)),
        below: ask.tunnel.and_then(|around| around.below()),
    }
}

fn packet(world: &mut World, who: u8, what: u8) {
    let client = format!("198.51.100.7:{}", 5000 + u16::from(who % CLIENTS));
    let server = |port: u16| format!("10.0.1.{}:{port}", 11 + (what >> 6) % 2);
    let (front, back) = (PORT_MACS[0], PORT_MACS[1]);
    let flags = ["S", "A", "PA", "A", "FA", "R"][usize::from(what >> 3) % 6];
    match what % 8 {
        0 => world.receive(FRONT, &udp(front, &client, "192.0.2.53:53", b"?")),
        1 => world.receive(BACK, &udp(back, &server(5353), &client, b"!")),
        2 => world.receive(FRONT, &tcp(front, &client, "192.0.2.80:80", flags, b"")),
        3 => world.receive(BACK, &tcp(back, &server(8080), &client, "FA", b"")),
        // Mostly whole conversations: the client, both possible servers, the client.
        _ => {
            world.receive(FRONT, &tcp(front, &client, "192.0.2.80:80", "S", b""));
            for host in ["10.0.1.11:8080", "10.0.1.12:8080"] {
                world.receive(BACK, &tcp(back, host, &client, "SA", b""));
            }
            world.receive(FRONT, &tcp(front, &client, "192.0.2.80:80", "A", b""))
        }
    };
}

/// Gauges say what a scan of the table says.
fn check_gauges(world: &mut World) {
    world.settle();
    let rows = world.rows();
    let scan = |is: fn(&OffloadState) -> bool| rows.iter().filter(|row| is(&row.offload)).count() as u64;
    let counters = &world.envs[0].counters;
    let gauges = [
        &counters.offload_requested,
        &counters.offload_installed,
        &counters.offload_removing,
        &counters.offload_declined_now,
    ];
    let scanned = [
        scan(|state| matches!(state, OffloadState::Requested(_))),
        scan(|state| matches!(state, OffloadState::Installed(_))),
        scan(|state| matches!(state, OffloadState::Removing(_))),
        scan(|state| matches!(state, OffloadState::Declined(_))),
    ];
    assert_eq!(gauges.map(|gauge| gauge.get()), scanned);
    let live: u64 = (0..SLOTS as u16).map(|id| world.live(id)).sum();
    assert_eq!(live, rows.len() as u64);
}

/// The faults are over. What was lost is noticed within a minute and a review of the table.
fn settle(world: &mut World, engine: &mut Engine) {
    (world.envs[0].asks_full, world.envs[0].revokes_full) = (false, false);
    for _ in 0..80 {
        world.envs[0].asks.clear();
        engine.take_revokes(world, false);
        // Connections live on in hardware.
        engine.rules.values_mut().for_each(|rule| rule.unread[0] += 1);
        engine.audit();
        engine.deliver(world, usize::MAX);
        world.pass_ms(1_000, 500);
    }
}

fn check_agreement(world: &World, engine: &Engine) {
    let rows = world.rows();
    let believed: BTreeMap<u32, FlowRef> = rows
        .iter()
        .filter_map(|row| match row.offload {
            OffloadState::Software => None,
            OffloadState::Installed(rule) => Some((rule.0, row.flow)),
            other => panic!("{other:?} is not at rest"),
        })
        .collect();
    let real: BTreeMap<u32, FlowRef> = engine.rules.iter().map(|(rule, of)| (*rule, of.ask.flow)).collect();
    assert_eq!(believed, real);
    for (id, reported) in (0..).zip(engine.reported) {
        let backend = world.envs[0].counters.backend(BackendId(id)).expect("a backend");
        let counted = [0, 1].map(|way| backend.hardware[way].packets.get());
        let bytes = [0, 1].map(|way| backend.hardware[way].bytes.get());
        assert_eq!((counted, bytes), (reported, reported.map(|packets| packets * 60)));
    }
}

fn step(world: &mut World, engine: &mut Engine, (op, a, b): (u8, u8, u8)) {
    match op % 16 {
        0..=4 => packet(world, a, b),
        5 | 6 => engine.take_asks(world, a),
        7 => engine.take_revokes(world, a % 8 == 0),
        8 | 9 => engine.deliver(world, usize::from(a % 8)),
        10 => engine.audit(),
        11 => drop(world.pass_ms(u32::from(a) * 20, 100)),
        12 => {
            let rules: Vec<u32> = engine.rules.keys().copied().collect();
            if let Some(rule) = rules.get(usize::from(a) % rules.len().max(1)) {
                engine.remove(*rule, Removal::Idle, u32::from(b) * 10, b % 8 == 0);
            }
        }
        13 => engine.repeat(world, a),
        14 => (world.envs[0].asks_full, world.envs[0].revokes_full) = (a % 4 == 0, b % 4 == 0),
        _ if a % 4 == 0 => world.reload(&configs()[usize::from(b) % 6]),
        _ => engine.rules.values_mut().for_each(|rule| rule.unread[1] += u64::from(a)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn worker_and_engine_agree_once_faults_are_over(
        steps in prop::collection::vec(any::<(u8, u8, u8)>(), 1..200),
        price in 1u32..5,
    ) {
        let mut world = World::new(&configs()[0], 1);
        world.workers[0].set_price(price);
        let mut engine = Engine::default();
        for one in steps {
            step(&mut world, &mut engine, one);
            check_gauges(&mut world);
        }
        settle(&mut world, &mut engine);
        check_gauges(&mut world);
        check_agreement(&world, &engine);
    }
}

/// The canary: an engine that forgets a rule without a word, and is then silent, is found out; here
/// by the check above, as long as the worker has had no time to notice.
#[test]
#[should_panic(expected = "assertion")]
fn a_rule_that_vanishes_is_seen() {
    let mut world = World::new(&configs()[0], 1);
    world.workers[0].set_price(1);
    let mut engine = Engine::default();
    packet(&mut world, 0, 4);
    engine.take_asks(&mut world, 3);
    engine.deliver(&mut world, 9);
    check_agreement(&world, &engine);
    let macs: Vec<MacAddr> =
        engine.rules.values().flat_map(|rule| rule.ask.legs).flatten().map(|leg| leg.next_hop).collect();
    assert!(macs.len() == 2, "one connection in hardware");
    engine.rules.clear();
    check_agreement(&world, &engine);
}
