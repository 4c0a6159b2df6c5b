//! The device and the reference side by side, and what both steering modes have in common.

use std::sync::Arc;

use dataplane::ids::PortId;
use dataplane::packet::{BURST, Burst, PacketBuf, TestPacket};
use eswitch::model::action::Action;
use eswitch::model::profile::Profile;
use eswitch::model::switch::{DropReason, Eswitch, Fabric, RxConfig, RxMeta, VportStatistics};
use eswitch::model::types::{Role, RuleHandle, Steering, Tick, Topology, Vport, VportInfo};

use crate::dice::Dice;
use crate::edit::{Act, Parcel, lend};
use crate::frames;
use crate::pattern::{Luggage, Name};
use crate::rules::SHARED_COUNTERS;
use crate::world::{Canary, Exit, Idle, World};

pub(crate) const VPORTS: usize = 3;

/// What the device did with a packet.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Door {
    Wire(Vport, Vec<u8>),
    Rx(Vport, RxMeta, Vec<u8>),
    Drop(DropReason),
}

/// Sorts what leaves by the packet it was: a packet carries its place in the burst as its port.
struct Doors(Vec<Vec<Door>>);

impl Doors {
    fn add(&mut self, packet: &TestPacket, door: Door) {
        self.0[usize::from(packet.port.0)].push(door);
    }
}

impl Fabric<TestPacket> for Doors {
    fn transmit(&mut self, to: Vport, packet: TestPacket) {
        self.add(&packet, Door::Wire(to, packet.data().to_vec()));
    }

    fn receive(&mut self, at: Vport, meta: RxMeta, packet: TestPacket) {
        self.add(&packet, Door::Rx(at, meta, packet.data().to_vec()));
    }

    fn copy(&mut self, packet: &TestPacket) -> Option<TestPacket> {
        Some(packet.clone())
    }

    fn discard(&mut self, reason: DropReason, packet: TestPacket) {
        self.add(&packet, Door::Drop(reason));
    }
}

/// What has been compared, and how interesting it was.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Report {
    pub(crate) packets: u64,
    pub(crate) copies: u64,
    pub(crate) rewritten: u64,
    pub(crate) forwarded: u64,
    pub(crate) received: u64,
    pub(crate) dropped: [u64; DropReason::ALL.len()],
    pub(crate) hits: u64,
    pub(crate) contests: u64,
    pub(crate) accepted: u64,
    pub(crate) refused: u64,
    pub(crate) removed: u64,
    pub(crate) counters: u64,
    pub(crate) aged: u64,
}

impl Report {
    pub(crate) fn add(&mut self, other: &Report) {
        let Report { packets, copies, rewritten, forwarded, received, dropped, .. } = other;
        self.packets += packets;
        self.copies += copies;
        self.rewritten += rewritten;
        self.forwarded += forwarded;
        self.received += received;
        self.dropped.iter_mut().zip(dropped).for_each(|(sum, more)| *sum += more);
        self.hits += other.hits;
        self.contests += other.contests;
        self.accepted += other.accepted;
        self.refused += other.refused;
        self.removed += other.removed;
        self.counters += other.counters;
        self.aged += other.aged;
    }
}

/// What differed. The text says all there is to know.
pub(crate) type Difference = String;

pub(crate) struct Trial {
    pub(crate) device: Eswitch,
    pub(crate) world: World,
    pub(crate) now: u64,
    pub(crate) dice: Dice,
    pub(crate) report: Report,
    /// Rules of the reference and what the device calls them.
    pub(crate) live: Vec<(usize, RuleHandle)>,
    /// HWS reports what has aged once.
    reported: Vec<u64>,
}

pub(crate) fn topology() -> Topology {
    let roles = [(Role::Uplink(0), 0), (Role::Host(0), 1), (Role::Uplink(1), 2)];
    Topology::new(roles.map(|(role, port_id)| VportInfo { role, port_id }).to_vec())
}

fn receivers(dice: &mut Dice) -> Vec<RxConfig> {
    let one = |dice: &mut Dice| RxConfig {
        mac: dice.pick(&frames::MACS),
        promiscuous: dice.percent(60),
        all_multicast: dice.percent(30),
        isolated: dice.percent(10),
        queues: 3,
        hairpin: vec![(3, Vport(dice.below(VPORTS) as u16))],
    };
    (0..VPORTS).map(|_| one(dice)).collect()
}

impl Trial {
    pub(crate) fn new(seed: u64, steering: Steering, profile: &Profile, canary: Canary) -> Trial {
        let mut dice = Dice::new(seed);
        let topology = topology();
        let rx = receivers(&mut dice);
        let mut context = profile.context(topology.clone());
        context.steering = steering;
        context.options.xmeta = dice.pick(&[0, 1]);
        context.options.wire_to_wire = dice.percent(20);
        context.options.allow_duplicate_pattern = dice.percent(80);
        let mut world = World::new(steering, topology, rx.clone());
        world.canary = canary;
        world.crossing = context.options.xmeta != 0;
        world.wire_to_wire = context.options.wire_to_wire;
        world.duplicates = context.options.allow_duplicate_pattern || steering == Steering::Hardware;
        let device = Eswitch::new(Arc::new(context), profile, seed);
        let mut trial = Trial {
            device,
            world,
            now: 1_000_000_007,
            dice,
            report: Report::default(),
            live: Vec::new(),
            reported: Vec::new(),
        };
        trial.share();
        for (at, config) in rx.into_iter().enumerate() {
            if steering == Steering::Software {
                trial.device.start(Vport(at as u16), config).expect("starts");
            }
        }
        trial
    }

    /// The indirect objects that all rules can use.
    fn share(&mut self) {
        let now = Tick(self.now);
        for _ in 0..SHARED_COUNTERS {
            self.device.indirect_create(now, Vport(0), &Action::Count).expect("a counter");
            self.world.tallies.push(Default::default());
        }
        let (timeout_s, context) = (3, 77);
        self.device.indirect_create(now, Vport(0), &Action::Age { timeout_s, context }).expect("an age");
        let last = self.now;
        let port = Vport(0);
        self.world.idles.push(Idle { port, timeout_s: 3, context, last, may: false, must: false });
    }

    /// Time passes, and the device does what is due.
    pub(crate) fn advance(&mut self) {
        while self.device.advance(Tick(self.now)) {}
        self.world.look(self.now);
    }

    /// A burst of packets through both.
    pub(crate) fn send(&mut self) -> Result<(), Difference> {
        let number = if self.dice.percent(8) { 1 + self.dice.below(BURST) } else { 1 };
        let source = Vport(self.source());
        let manager = self.dice.percent(12);
        let frames: Vec<Vec<u8>> = (0..number).map(|_| self.frame(source, manager)).collect();
        let packets = frames.iter().enumerate();
        let mut burst: Burst<TestPacket> =
            packets.map(|(at, frame)| TestPacket::new(PortId(at as u16), frame)).collect();
        let mut doors = Doors(vec![Vec::new(); number]);
        self.device.forward(Tick(self.now), source, manager, &mut burst, &mut doors);
        for (frame, doors) in frames.iter().zip(doors.0) {
            let exits = self.world.send(self.now, source, manager, frame);
            self.note(frame, &exits);
            if !agree(&exits, &doors) {
                return Err(self.describe(source, manager, frame, &exits, &doors));
            }
        }
        Ok(())
    }

    /// A vport that, more often than not, some rule names.
    fn source(&mut self) -> u16 {
        if !self.world.rules.is_empty() && self.dice.percent(70) {
            let rule = &self.world.rules[self.dice.below(self.world.rules.len())];
            if let Some((_, value)) = rule.pattern.0.get(&Name::Source) {
                return *value as u16;
            }
        }
        self.dice.below(VPORTS) as u16
    }

    /// A frame that, more often than not, some rule of the first group matches.
    fn frame(&mut self, source: Vport, manager: bool) -> Vec<u8> {
        let mut frame = frames::frame(&mut self.dice);
        for _ in 0..self.dice.pick(&[0, 10, 40]) {
            let parcel = Parcel::new(&frame, Luggage::new(source, manager), 0);
            let (hits, contests) = (self.world.hits, self.world.contests);
            let found = self.world.lookup(eswitch::model::types::Domain::Fdb, 0, &parcel).is_some();
            (self.world.hits, self.world.contests) = (hits, contests);
            if found {
                break;
            }
            frame = frames::frame(&mut self.dice);
        }
        frame
    }

    fn note(&mut self, frame: &[u8], exits: &[Exit]) {
        self.report.packets += 1;
        self.report.copies += exits.len() as u64 - 1;
        for exit in exits {
            match exit {
                Exit::Wire(_, bytes) => {
                    self.report.forwarded += 1;
                    self.report.rewritten += u64::from(bytes != frame);
                }
                Exit::Rx(..) => self.report.received += 1,
                Exit::Drop(reason) => self.report.dropped[*reason as usize] += 1,
            }
        }
        self.report.hits = self.world.hits;
        self.report.contests = self.world.contests;
    }

    fn describe(
        &mut self,
        from: Vport,
        manager: bool,
        frame: &[u8],
        exits: &[Exit],
        doors: &[Door],
    ) -> String {
        let mut text = format!("from {from:?}, manager {manager}: {frame:02x?}\n");
        text += &format!("  anatomy {:?}\n", crate::anatomy::dissect(frame));
        text += &format!("  reference {exits:02x?}\n  device    {doors:02x?}\n");
        text + &self.rules()
    }

    /// All rules, as both see them.
    fn rules(&mut self) -> String {
        let mut text = String::new();
        for rule in &self.world.rules {
            text += &format!("  {rule:?}\n");
        }
        let _ = self.device.dump_tables(&mut text);
        let mut from = 0;
        while self.device.dump_rules(Tick(self.now), &mut from, usize::MAX, &mut text) {}
        text
    }

    /// What a rule has counted, and whether it has aged.
    pub(crate) fn compare_rule(&mut self, number: usize, handle: RuleHandle) -> Result<(), Difference> {
        let now = Tick(self.now);
        let rule = self.world.rule(number).expect("a live rule").clone();
        if let Some(tally) = rule.tally {
            let expected = self.world.tallies[tally];
            let counted = self.device.query_count(now, rule.port, handle, false);
            let counted = counted.map_err(|refusal| format!("rule {number}: {refusal:?}"))?;
            if (counted.hits, counted.bytes) != (expected.hits, expected.bytes) {
                let rules = self.rules();
                return Err(format!("rule {number} counted {counted:?}, reference {expected:?}\n{rules}"));
            }
            self.report.counters += 1;
        }
        if let Some(idle) = rule.idle {
            self.world.look(self.now);
            let expected = self.world.idles[idle];
            let value = self.device.query_age(now, rule.port, handle);
            let value = value.map_err(|refusal| format!("rule {number}: {refusal:?}"))?;
            let idle_ns = self.now - expected.last;
            // The device looks every tenth of a second, and has not noticed what came since.
            let near = idle_ns < 200_000_000
                || value
                    .sec_since_last_hit
                    .is_none_or(|s| u64::from(s).abs_diff(idle_ns / 1_000_000_000) <= 1);
            if value.aged && !expected.may || !value.aged && expected.must || !near {
                return Err(format!("rule {number}: {value:?}, reference {expected:?} at {}", self.now));
            }
            self.report.aged += u64::from(value.aged);
        }
        Ok(())
    }

    /// All rules, the lists of aged ones, and the device's books.
    pub(crate) fn compare_all(&mut self) -> Result<(), Difference> {
        self.advance();
        for (number, handle) in self.live.clone() {
            self.compare_rule(number, handle)?;
        }
        self.compare_aged()?;
        let statistics = self.device.statistics();
        let sum = |of: fn(&VportStatistics) -> u64| statistics.vports.iter().map(of).sum::<u64>();
        let entered = sum(|vport| vport.in_packets + vport.manager_packets);
        let left = sum(|vport| vport.out_packets + vport.received_packets);
        let dropped: u64 = statistics.drops.iter().sum();
        if (entered, entered + self.report.copies) != (self.report.packets, left + dropped) {
            return Err(format!("{entered} in, {left} out, {dropped} dropped: {statistics:?}"));
        }
        if statistics.rules != self.world.rules.len() as u64 && self.world.steering == Steering::Software {
            return Err(format!("{} rules, reference {}", statistics.rules, self.world.rules.len()));
        }
        Ok(())
    }

    fn compare_aged(&mut self) -> Result<(), Difference> {
        let mut contexts = vec![0; 512];
        for port in 0..VPORTS {
            let port = Vport(port as u16);
            let aged = self.device.aged(port, None, &mut contexts).map_err(|e| format!("aged: {e:?}"))?;
            let software = self.world.steering == Steering::Software;
            let mut listed = contexts[..aged].to_vec();
            let rules = self.world.rules.iter().filter_map(|rule| rule.idle);
            let live: Vec<&Idle> =
                rules.chain([0]).map(|at| &self.world.idles[at]).filter(|idle| idle.port == port).collect();
            if listed.iter().any(|context| software && !live.iter().any(|i| i.context == *context && i.may)) {
                return Err(format!("{port:?} lists {listed:?}, reference {live:?}"));
            }
            if !software {
                if listed.iter().any(|context| self.reported.contains(context)) {
                    return Err(format!("{port:?} lists {listed:?} again"));
                }
                self.reported.append(&mut listed);
                listed.clone_from(&self.reported);
            }
            if live.iter().any(|idle| idle.must && !listed.contains(&idle.context)) {
                return Err(format!("{port:?} lists {listed:?}, reference {live:?}"));
            }
        }
        Ok(())
    }
}

fn agree(exits: &[Exit], doors: &[Door]) -> bool {
    exits.len() == doors.len() && exits.iter().zip(doors).all(|(exit, door)| agree_one(exit, door))
}

fn agree_one(exit: &Exit, door: &Door) -> bool {
    match (exit, door) {
        (Exit::Wire(to, bytes), Door::Wire(out, frame)) => to == out && bytes == frame,
        (Exit::Rx(at, queues, mark, meta, bytes), Door::Rx(out, rx, frame)) => {
            at == out && queues.contains(&rx.queue) && (*mark, *meta) == (rx.mark, rx.meta) && bytes == frame
        }
        (Exit::Drop(reason), Door::Drop(out)) => reason == out,
        _ => false,
    }
}

/// Lends a list to a closure that makes something of it.
pub(crate) fn with<R>(acts: &[Act], use_them: impl FnOnce(&[Action<'_>]) -> R) -> R {
    lend(acts, use_them)
}
