//! The device: vports, domains, rules, and the walk of a packet through them.
//!
//! ```text
//!              wire of vport v                     application transmits on representor v
//!                    │                                            │ (as eSwitch manager)
//!                    ▼                                            ▼
//!           ┌─ FDB group 0 ── jump ── group n ── … ──┐   the same group 0
//!           │        hit: represented_port, drop     │
//!           │        miss in any group               │
//!           ▼                  ▼                     ▼
//!    wire of another    representor of v:      no rule caught it: wire of v
//!    vport, or drop     NIC receive domain
//!                         │ ingress rules, groups of that representor
//!                         ▼
//!                  a receive queue, a hairpin queue (back into the FDB as its port's transmission), or drop
//! ```
//!
//! Nothing waits for software here: a miss is delivered, and later packets of the same connection may pass
//! it through a rule that was installed meanwhile.

mod dump;
mod hardware;
mod install;
mod nic;
mod prepare;
mod query;
mod reset;
mod rules;
mod slab;
mod statistics;
mod walk;

use std::sync::Arc;

use super::faults::Faults;
use super::objects::{AgeTiming, Ages, CounterTiming, Counters, Meters};
use super::profile::Profile;
use super::queue::{Credits, QueueEngine};
use super::refusal::{Cause, Errno, Refusal};
use super::timing::Timing;
use super::types::{Domain, Steering, Tick, Vport};
use super::validate::Context;
use nic::Rx;
use rules::{GroupIndex, Groups, RssSets, Rules};

pub use hardware::{ConfigureAttr, FlowQueue, Table};
pub use install::Prepared;
pub use nic::RxConfig;
pub use statistics::{DropReason, Statistics, VportStatistics};
pub use walk::{Fabric, HOPS_MAX, RxMeta};

/// An eSwitch.
#[derive(Debug)]
pub struct Eswitch {
    core: Core,
    timing: Timing,
    faults: Faults,
    /// The device's ends of the flow queues, by number.
    queues: Vec<QueueEngine<Prepared>>,
    /// Where the next [`Eswitch::advance`] begins.
    next_queue: usize,
    /// The counters' refresh that [`Credits::recycle`] was last called after.
    recycled: u32,
    /// Template tables there are, and may be (0: any number).
    tables: u32,
    tables_max: u32,
    /// Whether counters are never stale.
    exact_counters: bool,
    /// Fault: no flow operation is answered before then.
    hangs_until: Tick,
    events: Vec<Event>,
}

/// What the flow queues, the synchronous API and the walk all work on.
#[derive(Debug)]
struct Core {
    context: Arc<Context>,
    groups: Groups,
    /// FDB group 0, once it has been named.
    fdb_root: Option<GroupIndex>,
    /// Group 0 of each representor's receive domain.
    nic_roots: Vec<Option<GroupIndex>>,
    rules: Rules,
    rules_max: u64,
    /// Rules for which there is memory: see [`Eswitch::reserve`].
    reserved: u32,
    /// Fault: be full at so many rules.
    full_at: Option<u64>,
    rss: RssSets,
    counters: Counters,
    ages: Ages,
    meters: Meters,
    /// HWS: what rules and indirect actions may still take of them.
    credits: Option<Arc<Credits>>,
    rx: Vec<Rx>,
    statistics: Statistics,
    /// Goes up with every rule, so that a stale handle is recognised.
    generation: u32,
}

/// Something that the application is to hear of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// Flows of this port have aged: `RTE_ETH_EVENT_FLOW_AGED`.
    FlowAged(Vport),
    /// A fault stops this port: `RTE_ETH_EVENT_INTR_LSC`, down.
    LinkDown(Vport),
}

/// Rules that one call removes at most, when many go.
const REMOVALS: usize = 256;

/// Places for rules that one call looks at, at most.
const SLOTS: u32 = 4096;

/// Age contexts that one call examines at most.
const AGES: usize = 256;

/// Pieces of work that one call does for a flow queue at most.
const PIECES: usize = 64;

/// And for all of them together.
const PIECES_OF_ALL: usize = 512;

impl Eswitch {
    /// A device with nothing configured and no port started. The seed decides everything random.
    #[must_use]
    pub fn new(context: Arc<Context>, profile: &Profile, seed: u64) -> Eswitch {
        let vports = context.topology.iter().len();
        let steering = context.steering;
        let core = Core {
            groups: Groups::new(steering, context.options.allow_duplicate_pattern, seed),
            fdb_root: None,
            nic_roots: vec![None; vports],
            rules: Rules::new(),
            rules_max: profile.rules_max,
            reserved: 0,
            full_at: None,
            rss: RssSets::new(),
            counters: counters(profile, steering),
            ages: ages(profile, steering),
            meters: Meters::new(profile.meters_max, steering),
            credits: None,
            rx: vec![Rx::default(); vports],
            statistics: Statistics::new(vports),
            generation: 0,
            context,
        };
        let timing = Timing::new(profile, seed);
        Eswitch {
            core,
            timing,
            faults: Faults::default(),
            queues: Vec::new(),
            next_queue: 0,
            recycled: 0,
            tables: 0,
            tables_max: profile.tables_max,
            exact_counters: profile.counter_refresh_ns == 0,
            hangs_until: Tick(0),
            events: Vec::new(),
        }
    }

    /// Has memory for so many rules from now on, and for some in every table and flow queue made later: so
    /// that packets do not wait for the kernel to find it.
    pub fn reserve(&mut self, rules: u32) {
        let core = &mut self.core;
        core.reserved = u32::try_from(core.rules_max).map_or(rules, |most| rules.min(most));
        core.rules.reserve(core.reserved);
        core.counters.reserve(core.reserved);
        core.ages.reserve(core.reserved);
    }

    /// What requests are judged by.
    #[must_use]
    pub fn context(&self) -> &Arc<Context> {
        &self.core.context
    }

    /// What it has done.
    #[must_use]
    pub fn statistics(&self) -> &Statistics {
        &self.core.statistics
    }

    /// The meters, and the profiles and policies they are made of.
    pub fn meters(&mut self) -> &mut Meters {
        &mut self.core.meters
    }

    /// Whether a representor is started.
    #[must_use]
    pub fn is_started(&self, port: Vport) -> bool {
        self.core.rx.get(usize::from(port.0)).is_some_and(|rx| rx.started)
    }

    /// Starts a representor. A link that a fault has cut is whole again.
    ///
    /// # Errors
    /// EAGAIN under HWS if the proxy is not started yet (`mlx5_dev_start`, mlx5_trigger.c); EINVAL if there
    /// is no such port.
    pub fn start(&mut self, port: Vport, config: RxConfig) -> Result<(), Refusal> {
        let proxy_first = self.core.context.steering == Steering::Hardware && port != PROXY;
        if proxy_first && !self.is_started(PROXY) {
            let why = "start the transfer proxy first: under HWS representors depend on it";
            return Err(Refusal::new(Errno::Again, Cause::Unspecified, why));
        }
        let rx = self.core.rx.get_mut(usize::from(port.0)).ok_or(NO_SUCH_PORT)?;
        *rx = Rx { started: true, cut: false, config };
        Ok(())
    }

    /// Changes how a representor receives; it stays started or stopped.
    ///
    /// # Errors
    /// EINVAL if there is no such port.
    pub fn configure_rx(&mut self, port: Vport, config: RxConfig) -> Result<(), Refusal> {
        self.core.rx.get_mut(usize::from(port.0)).ok_or(NO_SUCH_PORT)?.config = config;
        Ok(())
    }

    /// Stops a representor. Its rules must go too: call [`Eswitch::flush`] until it is done.
    ///
    /// # Errors
    /// EBUSY under HWS if it is the proxy and another one is started; EINVAL if there is no such port.
    pub fn stop(&mut self, now: Tick, port: Vport) -> Result<(), Refusal> {
        let others = (0..self.core.rx.len()).any(|at| at != usize::from(port.0) && self.core.rx[at].started);
        if self.core.context.steering == Steering::Hardware && port == PROXY && others {
            let why = "stop the transfer proxy last: under HWS representors depend on it";
            return Err(Refusal::new(Errno::Busy, Cause::Unspecified, why));
        }
        self.core.rx.get_mut(usize::from(port.0)).ok_or(NO_SUCH_PORT)?.started = false;
        self.invalidate_queues(now, port);
        Ok(())
    }

    /// How many packets of `want` the device has time for: its packet-rate ceiling. The others stay where
    /// they are, in the wire's own queue.
    pub fn admit(&mut self, now: Tick, want: usize) -> usize {
        self.timing.admit(now, want)
    }

    /// Nanoseconds that the caller of a synchronous creation is kept.
    pub fn create_cost(&mut self) -> u64 {
        self.timing.create_cost() + self.faults.delay_ns()
    }

    /// Nanoseconds that the caller of a synchronous destruction is kept.
    pub fn destroy_cost(&mut self) -> u64 {
        self.timing.destroy_cost() + self.faults.delay_ns()
    }

    /// The faults in force.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Changes the faults in force. A port to stop loses its link now, in both directions, until it is
    /// started again; its rules and queues are the application's business. A reset and a silence begin now.
    pub fn set_faults(&mut self, now: Tick, faults: Faults) {
        self.faults = faults;
        self.core.full_at = self.faults.full_at;
        self.core.counters.set_limit(self.faults.counters_at);
        self.core.ages.set_limit(self.faults.ages_at);
        self.core.meters.set_limit(self.faults.meters_at);
        if let Some(vport) = self.faults.take_stop_port() {
            if let Some(rx) = self.core.rx.get_mut(usize::from(vport)) {
                rx.cut = true;
                self.events.push(Event::LinkDown(Vport(vport)));
            }
        }
        if self.faults.take_reset() {
            self.reset(now);
        }
        match self.faults.take_hang_ns() {
            0 => {}
            ns => self.hang(now.after(ns)),
        }
    }

    /// Does a bounded slice of what is due: operations of flow queues, ageing. True: there is more.
    pub fn advance(&mut self, now: Tick) -> bool {
        self.advance_by(now, PIECES_OF_ALL)
    }

    /// As [`Eswitch::advance`], with so many pieces of work for flow queues at most: packets may be waiting.
    pub fn advance_by(&mut self, now: Tick, pieces: usize) -> bool {
        self.refresh(now);
        let mut more = self.step_queues(now, pieces);
        let cycle = self.core.counters.cycle();
        if self.recycled != cycle || self.exact_counters {
            self.recycled = cycle;
            self.core.credits.iter().for_each(|credits| credits.recycle());
        }
        let faults = &mut self.faults;
        more |= self.core.ages.advance_with(now, AGES, |_| faults.ages_early());
        let ports = self.core.ages.take_events();
        self.events.extend(ports.into_iter().map(Event::FlowAged));
        more
    }

    /// Lets each flow queue have its turn, as far as the budget for all of them goes.
    fn step_queues(&mut self, now: Tick, mut budget: usize) -> bool {
        let mut more = false;
        for _ in 0..self.queues.len() {
            if budget == 0 {
                return true;
            }
            self.next_queue = (self.next_queue + 1) % self.queues.len();
            let queue = &mut self.queues[self.next_queue];
            let (worked, unfinished) = queue.work(now, PIECES.min(budget), &mut self.core, &mut self.faults);
            budget -= worked;
            more |= unfinished;
        }
        more
    }

    /// Does the counters' refreshes that are due. Before anything else that looks at the time: a refresh that
    /// is to be lost must not have been done already.
    #[inline]
    fn refresh(&mut self, now: Tick) {
        let hangs = self.hangs(now);
        let faults = &mut self.faults;
        self.core.counters.refresh_with(now, || hangs || faults.loses_counter());
    }

    /// What has happened since the last call.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }
}

/// The transfer proxy.
pub const PROXY: Vport = Vport(0);

const NO_SUCH_PORT: Refusal = Refusal::new(Errno::Inval, Cause::Unspecified, "no such port in this eSwitch");

fn counters(profile: &Profile, steering: Steering) -> Counters {
    let timing = match steering {
        Steering::Software => CounterTiming::software(profile.counter_refresh_ns),
        Steering::Hardware => CounterTiming::hardware(profile.counter_refresh_ns),
    };
    Counters::new(profile.counters_max, timing, steering)
}

fn ages(profile: &Profile, steering: Steering) -> Ages {
    let overlong_return = profile.aged_overlong;
    let timing = AgeTiming { tick_ns: profile.age_tick_ns, list_max: 0, overlong_return };
    Ages::new(profile.ages_max, timing, steering)
}

impl Core {
    /// The groups that packets enter, once rules named them.
    fn note_root(&mut self, domain: Domain, number: u32, index: GroupIndex) {
        match domain {
            Domain::Fdb if number == 0 => self.fdb_root = Some(index),
            Domain::NicRx(vport) if number == 0 => {
                if let Some(root) = self.nic_roots.get_mut(usize::from(vport.0)) {
                    *root = Some(index);
                }
            }
            Domain::Fdb | Domain::NicRx(_) => {}
        }
    }
}
