//! The simulated engine: a model of the device in place of a device, in virtual time.
//!
//! ```text
//! the machine ── install, remove, push, pull, count ──▶ SimEngine ──▶ eswitch::model ◀── the test's packets
//!                                                           ▲
//!                       the test: set_now, set_faults, reset, fail_flushes
//! ```
//!
//! It speaks to the model as the real engines speak to DPDK, call for call: under software steering a
//! blocking creation per rule ([`SimEngine::take_spent_ns`] says how long the caller was kept), under
//! hardware steering templates, tables and one flow queue. So what the model refuses, delays, loses or
//! reorders, by its profile and by its faults, comes to the machine as it would from a device.
//!
//! Hairpin rules exist under software steering only: they are in a root table, where hardware steering
//! does not count.

mod marks;
mod meters;
mod queued;
mod spell;
#[cfg(test)]
mod tests;

use super::base::Base;
use super::{Completion, EngineError, FlowEngine, Kind, LegId, Meter, Metering, Traits};
use crate::colours;
use crate::lower::{self, Topology};
use crate::rule::{Domain, Rule};
use dataplane::conntrack::Count;
use dataplane::flow::Direction;
use dataplane::offload::RuleId;
use dataplane::packet::{Burst, PacketBuf};
use eswitch::model::action::{Action, Shared};
use eswitch::model::faults::Faults;
use eswitch::model::profile::Profile;
use eswitch::model::refusal::{Errno, Refusal};
use eswitch::model::switch::{Eswitch, Fabric, PROXY, RxConfig};
use eswitch::model::types::{CounterId, RuleHandle, Steering, Tick, Topology as Vports, Vport, VportInfo};
use eswitch::model::validate::Port;
use queued::Queued;
use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;

/// What makes a simulated engine.
#[derive(Clone, Debug)]
pub struct SimSetup {
    /// How big, how late and how unreliable the device is.
    pub profile: Profile,
    /// Which engine of mlx5 it is driven as.
    pub steering: Steering,
    /// Its ports; the first is the first uplink, and the transfer proxy.
    pub vports: Vec<VportInfo>,
    /// What the rules are lowered for: hairpins, MAC addresses, and the base rules that follow from it.
    pub topology: Arc<Topology>,
    /// Receive queues of a port that the application polls.
    pub rx_queues: u16,
    /// Rules of connections that the engine says it has room for.
    pub rules_max: u32,
    /// Operations that may be under way, under hardware steering.
    pub operations_max: u32,
    /// Decides everything random.
    pub seed: u64,
}

/// A rule of a connection, from its installation to its release.
struct Held {
    counter: Option<CounterId>,
    /// While the device has the rule.
    handle: Option<RuleHandle>,
    port: Vport,
    state: Life,
}

/// What is happening to a rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Life {
    /// Its creation is under way.
    Creating,
    /// It is in force.
    Live,
    /// Its creation has failed; what the device still has of it is going.
    Burying,
    /// Its destruction is under way.
    Removing,
    /// It is out.
    Out,
}

/// An engine without a device.
pub struct SimEngine {
    setup: SimSetup,
    device: Eswitch,
    now: Tick,
    /// Hardware steering only.
    queued: Option<Queued>,
    held: HashMap<LegId, Held>,
    /// Operations that ended at once.
    done: VecDeque<Completion>,
    base: Base<RuleHandle>,
    profiles: meters::Profiles,
    marks: marks::Marks,
    /// Since when it does not answer: it was reset.
    down_until: Option<Tick>,
    fail_flushes: u32,
    spent_ns: u64,
}

impl SimEngine {
    /// A device with its ports started, and the base rules on their way.
    ///
    /// # Panics
    /// If the setup cannot be: no uplink first, or sizes that the profile does not have. It is a test's.
    #[must_use]
    pub fn new(now_ns: u64, setup: SimSetup) -> SimEngine {
        match SimEngine::open(now_ns, setup) {
            Ok(engine) => engine,
            Err(refusal) => panic!("no such device: {refusal}"),
        }
    }

    /// The same, where the setup is somebody else's.
    ///
    /// # Errors
    /// It cannot be: sizes that the profile does not have, or no port to begin with.
    pub fn open(now_ns: u64, setup: SimSetup) -> Result<SimEngine, Refusal> {
        let now = Tick(now_ns);
        let (device, queued) = build(now, &setup)?;
        let transfer_only = setup.steering == Steering::Hardware;
        let mut base = lower::base_rules(&setup.topology);
        base.retain(|rule| rule.attr.domain == Domain::Transfer || !transfer_only);
        let kind = if transfer_only { Kind::Template } else { Kind::Sync };
        base.retain(|rule| lower::suits(kind, rule));
        let marks = marks::Marks::new(&base);
        let mut engine = SimEngine {
            setup,
            device,
            now,
            queued,
            held: HashMap::new(),
            done: VecDeque::new(),
            base: Base::new(base),
            profiles: meters::Profiles::new(),
            marks,
            down_until: None,
            fail_flushes: 0,
            spent_ns: 0,
        };
        engine.lay_base();
        Ok(engine)
    }

    /// Time passes: the device does what is due.
    pub fn set_now(&mut self, now_ns: u64) {
        self.now = self.now.max(Tick(now_ns));
        while self.device.advance(self.now) {}
        // Nobody listens: the machine asks for aged rules itself.
        self.device.take_events();
    }

    /// Nanoseconds that the calls since the last time have kept their caller: blocking ones, of software
    /// steering. The simulation lets that much pass before the caller does anything else.
    pub fn take_spent_ns(&mut self) -> u64 {
        std::mem::take(&mut self.spent_ns)
    }

    /// The device.
    pub fn device(&mut self) -> &mut Eswitch {
        &mut self.device
    }

    /// The port of the device whose representor is this ethdev.
    #[must_use]
    pub fn vport(&self, ethdev: u16) -> Option<Vport> {
        self.device.context().topology.vport_of(ethdev)
    }

    /// Lets the device forward a burst now: from the wire of an ethdev's port or, `from_manager`, transmitted
    /// by the application on that ethdev. An ethdev that the device does not have takes nothing.
    pub fn forward<B: PacketBuf, F: Fabric<B>>(
        &mut self,
        ethdev: u16,
        from_manager: bool,
        packets: &mut Burst<B>,
        fabric: &mut F,
    ) {
        if let Some(vport) = self.vport(ethdev) {
            self.device.forward(self.now, vport, from_manager, packets, fabric);
        }
    }

    /// Changes the device's faults. A reset among them is [`SimEngine::reset`] without a pause.
    pub fn set_faults(&mut self, mut faults: Faults) {
        if faults.take_reset() {
            self.reset(0);
        }
        self.device.set_faults(self.now, faults);
        // Flow queues hear of them in the device's turn.
        while self.device.advance(self.now) {}
    }

    /// The device resets: rules, counters and everything under way are lost without a word. Until
    /// `down_ns` later it answers nothing, and afterwards [`EngineError::Lost`] until it has been flushed.
    pub fn reset(&mut self, down_ns: u64) {
        let mut faults = self.device.faults().clone();
        faults.reset = true;
        self.device.set_faults(self.now, faults);
        self.done.clear();
        self.down_until = Some(self.now.after(down_ns));
        self.base.forget();
    }

    /// So many flushes will fail, as on a device that does not answer.
    pub fn fail_flushes(&mut self, flushes: u32) {
        self.fail_flushes = flushes;
    }

    /// Rules in the device that are not base rules. Exact once [`FlowEngine::is_ready`].
    #[must_use]
    pub fn connection_rules(&self) -> u64 {
        self.device.statistics().rules.saturating_sub(self.base.in_force() as u64)
    }

    /// Begins to install the base rules whose turn it is. What is refused is tried again next time.
    fn lay_base(&mut self) {
        while let Some((number, rule)) = self.base.next() {
            let laid = match &mut self.queued {
                Some(queued) => queued.lay(&mut self.device, self.now, number, rule).map(|()| None),
                None => {
                    self.spent_ns = self.spent_ns.saturating_add(self.device.create_cost());
                    create(&mut self.device, self.now, rule, None, 0).map(Some)
                }
            };
            match laid {
                Ok(Some(handle)) => self.base.ended(number, Some(handle)),
                Ok(None) => self.base.begun(number),
                Err(EngineError::Refused(_)) if self.base.refused(number) => {}
                Err(_) => return,
            }
        }
    }

    /// Begins to take out those that a fence wants out.
    fn take_base_out(&mut self) {
        while let Some((number, rule, handle)) = self.base.next_out() {
            match &mut self.queued {
                Some(queued) => {
                    if queued.take_out(self.now, number, handle).is_err() {
                        return;
                    }
                    self.base.leaving(number);
                }
                None => {
                    let port = self.device.context().topology.vport_of(rule.port).unwrap_or(PROXY);
                    self.spent_ns = self.spent_ns.saturating_add(self.device.destroy_cost());
                    if self.device.destroy(self.now, port, handle).is_err() {
                        self.base.failed();
                        return;
                    }
                    self.base.out(number);
                }
            }
        }
    }

    fn is_down(&self) -> bool {
        self.down_until.is_some()
    }

    fn create_leg(&mut self, leg: LegId, rule: &Rule) -> Result<Held, EngineError> {
        let port = self.vport(rule.port).ok_or(EngineError::Refused(Errno::Inval as i32))?;
        let (meter, marked) = self.marked(rule)?;
        let rule = marked.as_ref().unwrap_or(rule);
        let shared = self.device.indirect_create(self.now, port, &Action::Count).map_err(refused)?;
        let Shared::Counter(counter) = shared else { return Err(EngineError::NoCounter) };
        let created = match &mut self.queued {
            Some(queued) => {
                let objects = spell::Objects { counter: Some(shared), meter, context: context_of(leg) };
                queued.create(&mut self.device, self.now, leg, rule, objects)
            }
            None => {
                self.spent_ns = self.spent_ns.saturating_add(self.device.create_cost());
                create(&mut self.device, self.now, rule, Some(shared), context_of(leg))
            }
        };
        match created {
            Ok(handle) => {
                Ok(Held { counter: Some(counter), handle: Some(handle), port, state: Life::Creating })
            }
            Err(error) => {
                // It is nobody's yet; that it is gone already would be no loss.
                let _ = self.device.indirect_destroy(self.now, shared);
                Err(error)
            }
        }
    }

    /// A rule with a meter as hardware steering carries it out, and the meter.
    fn marked(&self, rule: &Rule) -> Result<(Option<Shared>, Option<Rule>), EngineError> {
        if self.queued.is_none() || colours::meter_of(rule).is_none() {
            return Ok((None, None));
        }
        let meter = self.marks.of(rule).ok_or(EngineError::Refused(Errno::Noent as i32))?;
        let marked = colours::marked(rule).ok_or(EngineError::Refused(Errno::Notsup as i32))?;
        Ok((Some(meter), Some(marked)))
    }

    fn destroy_leg(&mut self, leg: LegId) -> Result<(), EngineError> {
        const UNKNOWN: EngineError = EngineError::Lost(Errno::Noent as i32);
        let held = self.held.get_mut(&leg).filter(|held| held.state == Life::Live).ok_or(UNKNOWN)?;
        let handle = held.handle.ok_or(UNKNOWN)?;
        match &mut self.queued {
            Some(queued) => queued.destroy(self.now, leg, handle, false)?,
            None => {
                self.spent_ns = self.spent_ns.saturating_add(self.device.destroy_cost());
                self.device.answers(self.now).map_err(lost)?;
                self.device.destroy(self.now, held.port, handle).map_err(lost)?;
                self.done.push_back(Completion::Removed(leg));
            }
        }
        held.state = Life::Removing;
        Ok(())
    }

    /// What an ended operation means for its rule, and what the machine is told of it.
    fn settle(&mut self, completion: Completion) -> Option<Completion> {
        let (Completion::Installed(leg)
        | Completion::Failed(leg, _)
        | Completion::Removed(leg)
        | Completion::Stuck(leg, _)) = completion;
        let held = self.held.get_mut(&leg)?;
        match (completion, held.state) {
            (Completion::Installed(_), Life::Creating) => held.state = Life::Live,
            (Completion::Failed(..), Life::Creating) => {
                // A failed rule has a handle all the same, which must be destroyed.
                held.state = Life::Burying;
                let (queued, handle) = (self.queued.as_mut()?, held.handle?);
                queued.bury(leg, handle);
                return None;
            }
            (Completion::Removed(_), Life::Burying) => {
                self.release(leg);
                return Some(Completion::Failed(leg, EngineError::Failed));
            }
            (Completion::Removed(_), Life::Removing) => {
                held.state = Life::Out;
                held.handle = None;
            }
            (Completion::Stuck(..), Life::Removing) => held.state = Life::Live,
            _ => return None,
        }
        Some(completion)
    }
}

impl FlowEngine for SimEngine {
    fn traits(&self) -> Traits {
        let blocking = self.queued.is_none();
        Traits {
            kind: Kind::Simulated,
            rules_max: self.setup.rules_max,
            operations_max: if blocking { 1 } else { self.setup.operations_max },
            settle_ms: (self.setup.profile.counter_refresh_ns.saturating_mul(2) / 1_000_000) as u32 + 1,
            ages: true,
            meters: Some(Metering {
                meters_max: self.queued.as_ref().map_or(self.setup.profile.meters_max, Queued::meters_max),
                rules_max: u32::MAX,
                counts_red: self.queued.is_some(),
            })
            .filter(|metering| metering.meters_max > 0),
        }
    }

    fn install(&mut self, leg: LegId, rule: &Rule) -> Result<(), EngineError> {
        if self.is_down() {
            return Err(EngineError::Lost(Errno::Nodev as i32));
        }
        debug_assert!(!self.held.contains_key(&leg), "one rule at a time: {leg:?}");
        if self.queued.is_none() && !self.done.is_empty() {
            return Err(EngineError::QueueFull);
        }
        let held = self.create_leg(leg, rule)?;
        if self.queued.is_none() {
            self.done.push_back(Completion::Installed(leg));
        }
        self.held.insert(leg, held);
        Ok(())
    }

    fn remove(&mut self, leg: LegId) -> Result<(), EngineError> {
        if self.is_down() {
            return Err(EngineError::Lost(Errno::Nodev as i32));
        }
        if self.queued.is_none() && !self.done.is_empty() {
            return Err(EngineError::QueueFull);
        }
        self.destroy_leg(leg)
    }

    fn push(&mut self) {
        if let Some(queued) = &mut self.queued {
            queued.push(self.now);
        }
    }

    fn pull(&mut self, completions: &mut Vec<Completion>) {
        if self.is_down() {
            return;
        }
        self.take_base_out();
        self.lay_base();
        self.tend_marks();
        let mut room = completions.capacity() - completions.len();
        while room > 0 {
            let ended = match &mut self.queued {
                Some(queued) => queued.pull(self.now, &mut self.base, &mut self.marks),
                None => self.done.pop_front(),
            };
            let Some(ended) = ended else { return };
            if let Some(completion) = self.settle(ended) {
                completions.push(completion);
                room -= 1;
            }
        }
    }

    fn count(&mut self, leg: LegId) -> Result<Count, EngineError> {
        let counter = self.held.get(&leg).and_then(|held| held.counter);
        let counter = counter.filter(|_| !self.is_down()).ok_or(EngineError::Lost(Errno::Noent as i32))?;
        let value = self.device.indirect_count(self.now, counter, false).map_err(lost)?;
        Ok(Count { packets: value.hits, bytes: value.bytes })
    }

    fn release(&mut self, leg: LegId) {
        let counter = self.held.remove(&leg).and_then(|held| held.counter);
        if let Some(counter) = counter.filter(|_| !self.is_down()) {
            // Nothing refers to it any more, so that it can only be gone already.
            let _ = self.device.indirect_destroy(self.now, Shared::Counter(counter));
        }
    }

    fn aged(&mut self, aged: &mut Vec<LegId>) {
        if self.is_down() {
            return;
        }
        let vports: Vec<Vport> = self.device.context().topology.iter().map(|(vport, _)| vport).collect();
        for vport in vports {
            let mut contexts = [0; 64];
            let room = contexts.len().min(aged.capacity() - aged.len());
            let told = self.device.aged(vport, None, &mut contexts[..room]).unwrap_or(0);
            // As mlx5's, the model's may tell more than there was room for.
            let legs = contexts.iter().take(told.min(room)).filter_map(|context| leg_of(*context));
            aged.extend(legs);
        }
    }

    fn is_ready(&self) -> bool {
        self.base.is_laid()
    }

    fn fence(&mut self, groups: u8) -> bool {
        self.base.fence(groups);
        if !self.is_down() {
            self.take_base_out();
            self.lay_base();
            self.push();
        }
        true
    }

    fn fenced(&self) -> u8 {
        self.base.fenced()
    }

    fn take_base_failures(&mut self) -> u32 {
        self.base.take_failures()
    }

    fn set_meter(&mut self, port: u16, number: u32, meter: &Meter) -> Result<(), EngineError> {
        if self.is_down() {
            return Err(EngineError::Refused(Errno::Nodev as i32));
        }
        if self.queued.is_some() { self.set_mark(port, number, meter) } else { self.set(port, number, meter) }
    }

    fn meter_drops(&mut self, port: u16, number: u32) -> Result<Count, EngineError> {
        if self.is_down() {
            return Err(EngineError::Lost(Errno::Nodev as i32));
        }
        if self.queued.is_some() { self.red_count(number) } else { self.drops(port, number) }
    }

    fn unset_meter(&mut self, port: u16, number: u32) {
        if self.queued.is_some() {
            self.unset_mark(number);
        } else {
            self.unset(port, number);
        }
    }

    fn flush(&mut self) -> Result<(), EngineError> {
        let down =
            self.down_until.is_some_and(|until| self.now < until) || self.device.answers(self.now).is_err();
        if down || self.fail_flushes > 0 {
            self.fail_flushes = self.fail_flushes.saturating_sub(u32::from(!down));
            return Err(EngineError::Lost(Errno::Nodev as i32));
        }
        self.down_until = None;
        for (vport, _) in self.device.context().clone().topology.iter() {
            let mut from = 0;
            while self.device.flush(self.now, vport, &mut from) {}
        }
        for counter in self.held.values().filter_map(|held| held.counter) {
            // The rules that used it are gone; after a reset so is the counter.
            let _ = self.device.indirect_destroy(self.now, Shared::Counter(counter));
        }
        self.held.clear();
        self.unset_all();
        self.unset_marks();
        self.done.clear();
        if let Some(queued) = &mut self.queued {
            queued.forget();
        }
        self.base.forget();
        self.lay_base();
        self.push();
        Ok(())
    }
}

/// A fresh device, its ports started.
fn build(now: Tick, setup: &SimSetup) -> Result<(Eswitch, Option<Queued>), Refusal> {
    let mut context = setup.profile.context(Vports::new(setup.vports.clone()));
    context.steering = setup.steering;
    let context = Arc::new(context);
    let mut device = Eswitch::new(Arc::clone(&context), &setup.profile, setup.seed);
    let queued = match setup.steering {
        Steering::Hardware => Some(Queued::new(&mut device, now, setup)?),
        Steering::Software => None,
    };
    for (vport, info) in context.topology.iter() {
        device.start(vport, rx_config(setup, &context.topology, info.port_id))?;
    }
    Ok((device, queued))
}

/// How a port receives: promiscuous, as Millrace's do, with its hairpins.
fn rx_config(setup: &SimSetup, vports: &Vports, ethdev: u16) -> RxConfig {
    let mut config = RxConfig { promiscuous: true, queues: setup.rx_queues, ..RxConfig::default() };
    if let Some(port) = setup.topology.ports.iter().find(|port| port.ethdev == ethdev) {
        config.mac = port.mac.0;
        config.hairpin = port
            .hairpins
            .iter()
            .filter_map(|hairpin| {
                let peer = setup.topology.ports.get(hairpin.egress.index())?;
                Some((hairpin.queue, vports.vport_of(peer.ethdev)?))
            })
            .collect();
    }
    config
}

/// One blocking creation.
fn create(
    device: &mut Eswitch,
    now: Tick,
    rule: &Rule,
    counter: Option<Shared>,
    context: u64,
) -> Result<RuleHandle, EngineError> {
    let judge = Arc::clone(device.context());
    let vport = judge.topology.vport_of(rule.port).ok_or(EngineError::Refused(Errno::Inval as i32))?;
    let items = spell::items(rule);
    let items: Vec<_> = items.iter().map(spell::Spelt::item).collect();
    let actions = spell::set_actions(rule, counter, context);
    let attr = spell::attr(rule);
    device.answers(now).map_err(lost)?;
    let prepared = judge.prepare(&Port::new(vport, true), &attr, &items, &actions).map_err(refused)?;
    device.install(now, prepared).map_err(refused)
}

/// What the model's refusal of something new means.
fn refused(refusal: Refusal) -> EngineError {
    match refusal.errno {
        Errno::Nomem => EngineError::TableFull,
        Errno::Again | Errno::Noent => EngineError::NoCounter,
        Errno::Timedout => lost(refusal),
        errno => EngineError::Refused(errno as i32),
    }
}

/// What its refusal means of something that should be there.
fn lost(refusal: Refusal) -> EngineError {
    EngineError::Lost(refusal.errno as i32)
}

/// A leg as an age's context: never 0, which would stand for none.
fn context_of(leg: LegId) -> u64 {
    (u64::from(leg.rule.0) + 1) << 1 | leg.direction as u64
}

fn leg_of(context: u64) -> Option<LegId> {
    let rule = u32::try_from((context >> 1).checked_sub(1)?).ok()?;
    let direction = if context & 1 == 0 { Direction::Original } else { Direction::Reply };
    Some(LegId { rule: RuleId(rule), direction })
}
