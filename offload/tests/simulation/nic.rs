//! The NIC and the offload thread: rules that really forward bytes, and the machine that has them made.

use crate::canary::{Canary, Device};
use crate::env::SimEnv;
use crate::packet::{Pool, SimPacket};
use crate::rng::Rng;
use crate::scenario::{MS, Scenario, port_mac};
use crate::world::Seat;
use dataplane::ids::PortId;
use dataplane::offload::{Answer, Denied, RuleId};
use dataplane::packet::{Burst, PacketBuf};
use dataplane::snapshot::{Snapshot, VlanTags};
use eswitch::model::faults::Faults;
use eswitch::model::profile::Profile;
use eswitch::model::switch::{DropReason, Fabric, RxMeta};
use eswitch::model::types::{Role, Steering, Tick, Vport, VportInfo};
use offload::engine::FlowEngine;
use offload::engine::sim::{SimEngine, SimSetup};
use offload::lower::{Hairpin, PortFacts, Topology};
use offload::machine::{Machine, Outbox, RuleRow, Settings};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

/// What became of a packet that came in by a wire.
pub(crate) enum Fate {
    /// A rule sent it out of a port.
    Out(usize, SimPacket),
    /// Software gets it.
    Up(SimPacket),
    /// The device dropped it.
    Lost(DropReason),
}

/// The hardware and the thread that tends it.
pub(crate) struct Nic {
    pub(crate) device: Device,
    pub(crate) machine: Machine,
    /// Buffers inside the device; packets that rules forward need no others.
    pool: Rc<Pool>,
    /// The thread waits for a blocking call until then.
    pub(crate) busy_until: u64,
    /// Turns of the thread so far.
    pub(crate) turns: u64,
    /// Rules seen that their connection does not want any more, and since when.
    pub(crate) unwanted: BTreeMap<(u32, u32, u32), u64>,
    /// Tuples that workers have told of.
    pub(crate) denied: Vec<Denied>,
    /// The snapshot to be taken up.
    pub(crate) next: Option<Arc<Snapshot>>,
    pub(crate) lost: BTreeMap<&'static str, u64>,
    /// When the device last did not answer, and flushes that had failed by then.
    pub(crate) silent_at: Option<u64>,
    flush_failures: u64,
}

/// Where packets leave the device.
struct Doors<'a> {
    fate: Option<Fate>,
    scenario: &'a Scenario,
}

impl Fabric<SimPacket> for Doors<'_> {
    fn transmit(&mut self, to: Vport, packet: SimPacket) {
        debug_assert!(usize::from(to.0) < self.scenario.ports);
        self.fate = Some(Fate::Out(usize::from(to.0), packet));
    }

    fn receive(&mut self, _at: Vport, _meta: RxMeta, packet: SimPacket) {
        self.fate = Some(Fate::Up(packet));
    }

    fn copy(&mut self, _packet: &SimPacket) -> Option<SimPacket> {
        None
    }

    fn discard(&mut self, reason: DropReason, mut packet: SimPacket) {
        packet.take_origin();
        self.fate = Some(Fate::Lost(reason));
    }
}

/// The workers' answer rings.
struct Rings<'a> {
    seats: &'a mut [Seat],
    canary: Option<Canary>,
    answers: &'a mut Vec<Answer>,
}

impl Outbox for Rings<'_> {
    fn answer(&mut self, answer: Answer) -> Result<(), Answer> {
        let env: &mut SimEnv = &mut self.seats[answer.flow().worker.index()].env;
        if env.refuses_answer() {
            return Err(answer);
        }
        self.answers.push(answer);
        match (self.canary, &answer) {
            (Some(Canary::ForgetsLastCounts), Answer::Counted { rule: None, .. }) => {}
            (Some(Canary::CountsTwice), Answer::Counted { .. }) => {
                env.answers.extend([answer, answer]);
            }
            _ => env.answers.push_back(answer),
        }
        Ok(())
    }
}

/// The ports as the lowering sees them: of one switch, or joined by hairpins.
fn topology(scenario: &Scenario) -> Topology {
    let port = |port: usize| PortFacts {
        ethdev: port as u16,
        proxy: 0,
        domain: (!scenario.hairpins).then_some(0),
        mac: port_mac(port),
        any_mac: false,
        mtu: 1500,
        vlan: VlanTags { outer: None, inner: scenario.vlans[port] },
        tunnel: None,
        hairpins: if scenario.hairpins {
            let egress = PortId((scenario.ports - 1 - port) as u16);
            vec![Hairpin { egress, queue: scenario.workers as u16 }]
        } else {
            Vec::new()
        },
    };
    Topology { ports: (0..scenario.ports).map(port).collect() }
}

impl Nic {
    pub(crate) fn new(scenario: &Scenario, snapshot: Arc<Snapshot>, canary: Option<Canary>) -> Nic {
        let topology = Arc::new(topology(scenario));
        let steering = if scenario.hardware_steering { Steering::Hardware } else { Steering::Software };
        let vport = |port: usize| VportInfo { role: Role::Uplink(port as u16), port_id: port as u16 };
        let setup = SimSetup {
            profile: Profile::named(scenario.profile).expect("a built-in profile"),
            steering,
            vports: (0..scenario.ports).map(vport).collect(),
            topology: Arc::clone(&topology),
            rx_queues: scenario.workers as u16,
            rules_max: scenario.rules_max,
            operations_max: scenario.operations_max,
            seed: scenario.seed,
        };
        let device = Device::new(SimEngine::new(0, setup), canary);
        let settings = Settings {
            rules_max: scenario.rules_max,
            insertions_per_second: scenario.insertions_per_second,
            price_min: scenario.price_min,
            idle_ms: scenario.idle_ms,
            poll_ms: scenario.poll_ms,
            ..Settings::default()
        };
        let machine = Machine::new(0, &settings, device.traits(), topology, snapshot);
        Nic {
            device,
            machine,
            pool: Pool::new(usize::MAX),
            busy_until: 0,
            turns: 0,
            unwanted: BTreeMap::new(),
            denied: Vec::new(),
            next: None,
            lost: BTreeMap::new(),
            silent_at: None,
            flush_failures: 0,
        }
    }

    /// The device forwards a packet that came in by a port.
    pub(crate) fn forward(&mut self, scenario: &Scenario, origin: &Rc<crate::packet::Origin>) -> Fate {
        let packet = SimPacket::arrived(&self.pool, Rc::clone(origin)).expect("there are enough");
        let ethdev = packet.port().0;
        let mut burst: Burst<SimPacket> = [packet].into_iter().collect();
        let mut doors = Doors { fate: None, scenario };
        self.device.engine.forward(ethdev, false, &mut burst, &mut doors);
        let fate = doors.fate.unwrap_or(Fate::Lost(DropReason::Wire));
        if let Fate::Lost(reason) = &fate {
            *self.lost.entry(reason.name()).or_default() += 1;
        }
        fate
    }

    /// Buffers inside the device.
    pub(crate) fn live(&self) -> usize {
        self.pool.live()
    }

    /// Notes whether the device answers.
    pub(crate) fn listen(&mut self, now: u64) {
        let failures = self.machine.counters().flush_failures.get();
        let hangs = self.device.engine.device().answers(Tick(now)).is_err();
        if hangs || failures > self.flush_failures {
            self.silent_at = Some(now);
        }
        self.flush_failures = failures;
    }

    /// A turn of the offload thread.
    pub(crate) fn turn(&mut self, now: u64, rng: &mut Rng, seats: &mut [Seat], answers: &mut Vec<Answer>) {
        self.device.engine.set_now(now);
        self.device.now = now;
        if now < self.busy_until {
            return;
        }
        self.turns += 1;
        if self.next.is_some() && rng.percent(30) {
            if let Some(next) = self.next.take() {
                self.machine.adopt(now, next);
            }
        }
        self.denied.drain(..).for_each(|denied| self.machine.deny(now, &denied));
        let (first, many) = (rng.index(seats.len()), seats.len());
        for turn in 0..many {
            let env = &mut seats[(first + turn) % many].env;
            while let Some(revoke) = env.revokes.pop_front() {
                self.machine.revoke(now, &revoke);
            }
            let room = self.machine.room();
            for ask in env.asks.drain(..env.asks.len().min(room).min(64)) {
                self.machine.ask(now, &ask);
            }
        }
        let mut rings = Rings { seats, canary: self.device.canary(), answers };
        self.machine.step(now, &mut self.device, &mut rings);
        self.busy_until = now + self.device.engine.take_spent_ns();
    }

    /// The faults of the device begin, or end.
    pub(crate) fn set_faults(&mut self, text: &str) {
        let faults = Faults::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        self.device.engine.set_faults(faults);
    }

    /// The device forgets everything, or says nothing for a while.
    pub(crate) fn break_down(&mut self, rng: &mut Rng, faults: &str) {
        match rng.below(3) {
            0 => self.device.engine.reset(rng.between(0, 2_000 * MS)),
            1 => {
                self.device.engine.fail_flushes(rng.between(1, 3) as u32);
                self.device.engine.reset(rng.between(0, 200 * MS));
            }
            _ => {
                let hang = rng.between(100, 5_000);
                self.set_faults(&format!("hang_ms={hang},{faults}"));
            }
        }
    }

    /// Rules of connections in the device, as far as that is known: while base rules are under way, there
    /// are none.
    pub(crate) fn rules(&self) -> u64 {
        if self.device.engine.is_ready() { self.device.engine.connection_rules() } else { 0 }
    }

    /// All pairs of the machine's.
    pub(crate) fn rows(&self) -> Vec<RuleRow> {
        self.machine.rows(0, usize::MAX).0
    }
}

/// Names a pair of rules and its owner.
pub(crate) fn pair_name(row: &RuleRow) -> (u32, u32, u32) {
    let RuleId(rule) = row.rule;
    (rule, u32::from(row.ask.flow.worker.0) << 24 | row.ask.flow.slot, row.ask.flow.generation)
}
