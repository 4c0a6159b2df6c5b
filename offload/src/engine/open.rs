//! Which engine it is to be: found out by asking the ports, before and after they start.
//!
//! ```text
//! ports configured ─▶ prepare: may the proxy have a flow queue?  ─▶ ports started, the proxy first
//!                  ─▶ open:    it has one: templates; a port takes a rule: one by one; else none, and why
//! ```

use super::sync::SyncEngine;
use super::{Completion, Count, EngineError, FlowEngine, LegId, Traits};
use crate::rule::Rule;
use dataplane::config::EngineChoice;
use dpdk::Port;
use dpdk::flow::{Actions, Attr, FlowError, Flows, Pattern};

/// Why nothing is offloaded.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NoEngine {
    /// The configuration says so.
    #[error("the configuration asks for none")]
    NotWanted,
    /// There are no ports.
    #[error("there are no ports")]
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
}

/// Finds an engine for ports that have started, and puts `base` in force: the rules that lead to those of
/// connections. Room for `rules_max` rules of connections.
///
/// # Errors
/// Nothing can be offloaded.
pub fn open<'port>(
    choice: EngineChoice,
    rules_max: u32,
    ports: &[&'port Port<'port>],
    base: Vec<Rule>,
) -> Result<Engine<'port>, NoEngine> {
    match choice {
        EngineChoice::None => Err(NoEngine::NotWanted),
        EngineChoice::Auto | EngineChoice::Sync | EngineChoice::Template => {
            let ports = one_by_one(ports)?;
            SyncEngine::new(ports, base, rules_max).map(Engine::Sync).map_err(NoEngine::Base)
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

/// Tries a rule of the eSwitch, and without one a rule of the receive side.
fn takes_rules(flows: &Flows<'_>, port: u16) -> Result<(), FlowError> {
    let (mut pattern, mut actions) = (Pattern::new(), Actions::new());
    pattern.represented_port(port);
    pattern.eth(None);
    pattern.ipv4(None, None, None);
    actions.represented_port(port);
    let attr = Attr { transfer: true, group: 1, priority: 0 };
    let Err(refused) = flows.validate(attr, &pattern, &actions) else { return Ok(()) };
    let (mut pattern, mut actions) = (Pattern::new(), Actions::new());
    pattern.eth(None);
    pattern.ipv4(None, None, None);
    actions.queue(0);
    let attr = Attr { transfer: false, group: 0, priority: 0 };
    flows.validate(attr, &pattern, &actions).map_err(|_| refused)
}

/// Calls a method of whichever engine it is.
macro_rules! whichever {
    ($self:ident, $engine:ident => $call:expr) => {
        match $self {
            Engine::Sync($engine) => $call,
        }
    };
}

impl Engine<'_> {
    /// What the driver said when it last refused something.
    #[must_use]
    pub fn last_error(&self) -> Option<&FlowError> {
        whichever!(self, engine => engine.last_error())
    }
}

impl FlowEngine for Engine<'_> {
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

    fn flush(&mut self) -> Result<(), EngineError> {
        whichever!(self, engine => engine.flush())
    }
}
