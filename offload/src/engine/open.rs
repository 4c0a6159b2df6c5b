//! Which engine it is to be: found out by asking the ports, before and after they start.
//!
//! ```text
//! ports configured ─▶ prepare: may the proxy have a flow queue?  ─▶ ports started, the proxy first
//!                  ─▶ open:    it has one: templates; a port takes a rule: one by one; else none, and why
//! ```

use super::sync::SyncEngine;
use super::template::{QUEUE_SIZE, TemplateEngine};
use super::{Completion, Count, EngineError, FlowEngine, LegId, Meter, Traits};
use crate::rule::Rule;
use dataplane::config::EngineChoice;
use dpdk::Port;
use dpdk::flow::{Actions, Attr, FlowError, FlowQueueConfig, Flows, Pattern};

/// Meters that a flow queue is given, if there are as many.
pub(super) const METERS_MAX: u32 = 1024;

/// Operations that the flow queue of a port holds which is given none.
const UNUSED_QUEUE_SIZE: u32 = 32;

/// Why nothing is offloaded.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NoEngine {
    /// The configuration says so.
    #[error("the configuration asks for none")]
    NotWanted,
    /// There is no port to speak of: none at all, or none whose transfer proxy is ours.
    #[error("there is no port that could")]
    NoPorts,
    /// No port takes rules one by one.
    #[error("no port takes flow rules: {0}")]
    Sync(FlowError),
    /// The proxy takes no templates.
    #[error("no port takes flow templates: {0}")]
    Template(FlowError),
    /// It has a way to take rules, and refuses those that lead to connections.
    #[error("the first rules are refused: {0}")]
    Base(FlowError),
}

/// The engine of real ports.
#[derive(Debug)]
pub enum Engine<'port> {
    /// One by one.
    Sync(SyncEngine<'port>),
    /// By templates and a queue.
    Template(Box<TemplateEngine<'port>>),
}

/// What was found out, and set aside, before the ports started.
#[derive(Clone, Debug)]
pub struct Prepared {
    choice: EngineChoice,
    rules_max: u32,
    /// The port that has a flow queue, by DPDK's number.
    proxy: Option<u16>,
    /// Why there is none.
    refused: Option<FlowError>,
}

/// Asks ports that are configured and not started, and sets aside what templates need, if templates it will
/// be: a flow queue, and counters and ages for `rules_max` rules of connections. The port of a flow queue,
/// [`Prepared::proxy`], starts first and stops last.
pub fn prepare(choice: EngineChoice, rules_max: u32, ports: &mut [&mut Port<'_>]) -> Prepared {
    let (proxy, refused) = match choice {
        EngineChoice::Auto | EngineChoice::Template => find_proxy(rules_max, ports),
        EngineChoice::None | EngineChoice::Sync => (None, None),
    };
    give_company(ports, proxy);
    Prepared { choice, rules_max, proxy, refused }
}

/// The proxy that has been given a flow queue; if there is none, why the first one that could be asked has
/// none.
fn find_proxy(rules_max: u32, ports: &mut [&mut Port<'_>]) -> (Option<u16>, Option<FlowError>) {
    let mut refused = None;
    for at in 0..ports.len() {
        let tried = ports[at].transfer_proxy().and_then(|proxy| {
            let port = ports.iter_mut().find(|port| port.number() == proxy);
            port.map(|port| give_queue(port, rules_max).map(|()| proxy)).transpose()
        });
        match tried {
            Ok(Some(proxy)) => return (Some(proxy), None),
            // A switch whose proxy is not ours.
            Ok(None) => {}
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    (None, refused)
}

/// Counters and ages of removed rules come back late, so there are two for each rule. A device that has too
/// little for meters does without.
fn give_queue(port: &mut Port<'_>, rules_max: u32) -> Result<(), FlowError> {
    let limits = port.flow_queue_limits()?;
    let within = |wanted: u32, limit: u32| if limit == 0 { wanted } else { wanted.min(limit) };
    let objects = rules_max.saturating_mul(2);
    let meters = METERS_MAX.min(dpdk::flow::mark::METERS_MAX).min(limits.meters);
    let config = FlowQueueConfig {
        size: within(QUEUE_SIZE, limits.queue_size),
        counters: within(objects.saturating_add(meters), limits.counters),
        ages: within(objects, limits.ages),
        meters,
    };
    let configured = port.configure_flow_queue(&config);
    if configured.is_err() && meters > 0 {
        return port.configure_flow_queue(&FlowQueueConfig { meters: 0, ..config });
    }
    configured
}

/// Under hardware steering mlx5 gives a port its default rules, those that receive included, only if it has a
/// flow queue, and starts no representor without one (mlx5_trigger.c, `port must be configured for HWS`). So
/// ports other than `served`, whatever engine is wanted, get one that stays unused: those first on which
/// rules for others are made. Drivers that need none refuse, which is as good.
fn give_company(ports: &mut [&mut Port<'_>], served: Option<u16>) {
    let unused = FlowQueueConfig { size: UNUSED_QUEUE_SIZE, counters: 0, ages: 0, meters: 0 };
    for proxies in [true, false] {
        for port in ports.iter_mut().filter(|port| Some(port.number()) != served) {
            if port.transfer_proxy().is_ok_and(|proxy| proxy == port.number()) == proxies {
                let _ = port.configure_flow_queue(&unused);
            }
        }
    }
}

impl Prepared {
    /// The port that must start first and stop last, by DPDK's number, if there is one.
    #[must_use]
    pub fn proxy(&self) -> Option<u16> {
        self.proxy
    }
}

/// Finds an engine for the ports, which have started, and puts `base` in force: the rules that lead to those
/// of connections.
///
/// # Errors
/// Nothing can be offloaded.
pub fn open<'port>(
    prepared: &Prepared,
    ports: &[&'port Port<'port>],
    base: Vec<Rule>,
) -> Result<Engine<'port>, NoEngine> {
    let proxy = ports.iter().find(|port| Some(port.number()) == prepared.proxy);
    match (prepared.choice, proxy, &prepared.refused) {
        (EngineChoice::None, ..) => Err(NoEngine::NotWanted),
        (_, Some(proxy), _) => {
            let queue = proxy.flow_queue().map_err(NoEngine::Template)?;
            let engine = TemplateEngine::new(queue, base, prepared.rules_max);
            engine.map(|engine| Engine::Template(Box::new(engine))).map_err(NoEngine::Base)
        }
        (EngineChoice::Template, None, Some(refused)) => Err(NoEngine::Template(refused.clone())),
        (EngineChoice::Template, None, None) => Err(NoEngine::NoPorts),
        (EngineChoice::Auto | EngineChoice::Sync, None, refused) => {
            let able = one_by_one(ports).map_err(|why| root_cause(why, refused.as_ref(), ports))?;
            SyncEngine::new(able, base, prepared.rules_max).map(Engine::Sync).map_err(NoEngine::Base)
        }
    }
}

/// The rules of those ports that take any.
fn one_by_one<'port>(ports: &[&'port Port<'port>]) -> Result<Vec<Flows<'port>>, NoEngine> {
    let (mut able, mut refused) = (Vec::new(), None);
    for port in ports {
        let tried = port.flows().and_then(|flows| takes_rules(&flows, port.number()).map(|()| flows));
        match tried {
            Ok(flows) => able.push(flows),
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    match refused {
        Some(error) if able.is_empty() => Err(NoEngine::Sync(error)),
        None if able.is_empty() => Err(NoEngine::NoPorts),
        _ => Ok(able),
    }
}

/// Under hardware steering no port takes rules one by one: that one could have had a flow queue and was given
/// none is the reason.
fn root_cause(why: NoEngine, refused: Option<&FlowError>, ports: &[&Port<'_>]) -> NoEngine {
    let by_hardware = || ports.iter().any(|port| port.flow_queue_limits().is_ok());
    refused.filter(|_| by_hardware()).map_or(why, |refused| NoEngine::Template(refused.clone()))
}

/// Tries a rule of the eSwitch, and without one a rule of the receive side.
fn takes_rules(flows: &Flows<'_>, port: u16) -> Result<(), FlowError> {
    let (mut pattern, mut actions) = (Pattern::new(), Actions::new());
    pattern.represented_port(port);
    pattern.eth(None);
    pattern.ipv4(None, None, None, None);
    actions.represented_port(port);
    let attr = Attr { transfer: true, group: 1, priority: 0 };
    let Err(refused) = flows.validate(attr, &pattern, &actions) else { return Ok(()) };
    let (mut pattern, mut actions) = (Pattern::new(), Actions::new());
    pattern.eth(None);
    pattern.ipv4(None, None, None, None);
    actions.queue(0);
    let attr = Attr { transfer: false, group: 0, priority: 0 };
    flows.validate(attr, &pattern, &actions).map_err(|_| refused)
}

/// Calls a method of whichever engine it is.
macro_rules! whichever {
    ($self:ident, $engine:ident => $call:expr) => {
        match $self {
            Engine::Sync($engine) => $call,
            Engine::Template($engine) => $call,
        }
    };
}

impl FlowEngine for Engine<'_> {
    fn complaint(&mut self) -> Option<String> {
        whichever!(self, engine => engine.complaint())
    }

    fn traits(&self) -> Traits {
        whichever!(self, engine => engine.traits())
    }

    fn install(&mut self, leg: LegId, rule: &Rule) -> Result<(), EngineError> {
        whichever!(self, engine => engine.install(leg, rule))
    }

    fn remove(&mut self, leg: LegId) -> Result<(), EngineError> {
        whichever!(self, engine => engine.remove(leg))
    }

    fn push(&mut self) {
        whichever!(self, engine => engine.push());
    }

    fn pull(&mut self, completions: &mut Vec<Completion>) {
        whichever!(self, engine => engine.pull(completions));
    }

    fn count(&mut self, leg: LegId) -> Result<Count, EngineError> {
        whichever!(self, engine => engine.count(leg))
    }

    fn release(&mut self, leg: LegId) {
        whichever!(self, engine => engine.release(leg));
    }

    fn aged(&mut self, aged: &mut Vec<LegId>) {
        whichever!(self, engine => engine.aged(aged));
    }

    fn is_ready(&self) -> bool {
        whichever!(self, engine => engine.is_ready())
    }

    fn fence(&mut self, groups: u8) -> bool {
        whichever!(self, engine => engine.fence(groups))
    }

    fn fenced(&self) -> u8 {
        whichever!(self, engine => engine.fenced())
    }

    fn take_base_failures(&mut self) -> u32 {
        whichever!(self, engine => engine.take_base_failures())
    }

    fn set_meter(&mut self, port: u16, number: u32, meter: &Meter) -> Result<(), EngineError> {
        whichever!(self, engine => engine.set_meter(port, number, meter))
    }

    fn meter_drops(&mut self, port: u16, number: u32) -> Result<Count, EngineError> {
        whichever!(self, engine => engine.meter_drops(port, number))
    }

    fn unset_meter(&mut self, port: u16, number: u32) {
        whichever!(self, engine => engine.unset_meter(port, number));
    }

    fn flush(&mut self) -> Result<(), EngineError> {
        whichever!(self, engine => engine.flush())
    }
}
