//! What carries rules out: the wall between the decisions and `rte_flow`.
//!
//! ```text
//! install ──▶ (push) ──▶ pull: Installed            the rule is in force
//!     │                   pull: Failed              it is not, and nothing of it is left
//!     └─▶ Err             refused at once, likewise
//! remove ───▶ (push) ──▶ pull: Removed              packets miss it; its counter still answers
//! release                                           its counter is given back
//! ```
//!
//! An engine has no opinions and no clock. One thread drives it.

#[cfg(any(feature = "dpdk", feature = "sim"))]
mod base;
#[cfg(feature = "dpdk")]
mod legs;
#[cfg(feature = "dpdk")]
mod marks;
#[cfg(feature = "dpdk")]
pub mod open;
#[cfg(feature = "sim")]
pub mod sim;
#[cfg(feature = "dpdk")]
mod spell;
#[cfg(feature = "dpdk")]
pub mod sync;
#[cfg(feature = "dpdk")]
mod tables;
#[cfg(feature = "dpdk")]
pub mod template;

use crate::rule::Rule;
use dataplane::conntrack::Count;
use dataplane::flow::Direction;
use dataplane::offload::RuleId;

/// One rule of a connection's: the one for this direction.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct LegId {
    /// The connection's rules.
    pub rule: RuleId,
    /// Which.
    pub direction: Direction,
}

/// Room that a template table of connections is made with, for so many rules, all of which may be in one: a
/// table's last places are hard to fill, for rules collide before.
#[must_use]
pub const fn table_rules(rules_max: u32) -> u32 {
    rules_max.saturating_add(rules_max / 4)
}

/// Room of tables whose rules lead to others, of which there are so many: a few for each port.
#[cfg(any(feature = "dpdk", feature = "sim"))]
fn base_table_rules(rules: usize) -> u32 {
    u32::try_from(rules).unwrap_or(u32::MAX).max(64)
}

/// Which engine it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// Software steering (`dv_flow_en=1`): `rte_flow_create`, one blocking call per rule.
    Sync,
    /// Hardware steering (`dv_flow_en=2`): templates and asynchronous flow queues.
    Template,
    /// A simulated device, for tests.
    Simulated,
}

impl Kind {
    /// The name used in labels and output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Sync => "sync",
            Kind::Template => "template",
            Kind::Simulated => "simulated",
        }
    }
}

/// What an engine can do, and how it behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Traits {
    /// Which engine.
    pub kind: Kind,
    /// Rules it has room for, one per direction; more may fit, or fewer.
    pub rules_max: u32,
    /// Operations it takes before it must be pulled. 1 for an engine whose calls block.
    pub operations_max: u32,
    /// How long after a rule's removal its counter may still grow, milliseconds.
    pub settle_ms: u32,
    /// Whether rules may have [`crate::rule::Action::Age`],
    pub ages: bool,
    /// and [`crate::rule::Action::Meter`].
    pub meters: Option<Metering>,
}

/// What an engine's meters are like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Metering {
    /// Meters there may be.
    pub meters_max: u32,
    /// Rules that may name one.
    pub rules_max: u32,
    /// Whether a rule counts what its meter finds red, too; or else what goes on.
    pub counts_red: bool,
}

/// A meter in hardware.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Meter {
    /// Whether it counts packets; or else bytes of whole frames, without FCS.
    pub packets: bool,
    /// How many a second are green.
    pub per_second: u64,
    /// How many at once. It begins with so many.
    pub burst: u64,
}

/// Why an engine did not do something.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum EngineError {
    /// Pull first: as many operations are under way as the queue takes.
    #[error("the queue is full")]
    QueueFull,
    /// No room for another rule.
    #[error("the table is full")]
    TableFull,
    /// No counter is free now; one may be later.
    #[error("no counter is free")]
    NoCounter,
    /// The driver refuses such a rule.
    #[error("the driver refuses it, errno {0}")]
    Refused(i32),
    /// The driver took the rule and the device did not.
    #[error("the device reported an error")]
    Failed,
    /// The device knows nothing of this rule, or answers nothing: it was stopped or reset.
    #[error("the device has lost it, errno {0}")]
    Lost(i32),
}

/// An operation that has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Completion {
    /// The rule is in force.
    Installed(LegId),
    /// The rule is not in force, and nothing of it is left.
    Failed(LegId, EngineError),
    /// The rule is out. Its counter answers until [`FlowEngine::release`].
    Removed(LegId),
    /// The rule could not be taken out.
    Stuck(LegId, EngineError),
}

/// Carries rules out.
///
/// Each [`LegId`] is used for one rule at a time: from [`FlowEngine::install`] until its failure, or
/// until [`FlowEngine::release`].
pub trait FlowEngine {
    /// What it can do.
    fn traits(&self) -> Traits;

    /// Begins to put a rule in force.
    ///
    /// # Errors
    /// Then nothing has begun and nothing is held.
    fn install(&mut self, leg: LegId, rule: &Rule) -> Result<(), EngineError>;

    /// Begins to take a rule out that is in force.
    ///
    /// # Errors
    /// Then nothing has begun.
    fn remove(&mut self, leg: LegId) -> Result<(), EngineError>;

    /// Lets the device begin with everything begun so far.
    fn push(&mut self);

    /// Takes operations that have ended, as many as there are and fit into `completions`' capacity.
    fn pull(&mut self, completions: &mut Vec<Completion>);

    /// What a rule has counted since it was installed, as far as is known by now; after its removal, too.
    /// Bytes are those of whole frames, without FCS.
    ///
    /// # Errors
    /// [`EngineError::Lost`] if the device knows no such counter.
    fn count(&mut self, leg: LegId) -> Result<Count, EngineError>;

    /// Gives up the counter of a rule that is out.
    fn release(&mut self, leg: LegId);

    /// Rules that have aged since the last call, as many as there are and fit into `aged`'s capacity. A
    /// rule may be told again, or have been used since, or be gone.
    fn aged(&mut self, aged: &mut Vec<LegId>);

    /// Whether the base rules are in force, but those that [`FlowEngine::fence`] wants out, which are. They
    /// are on their way from the beginning and after each flush, and without them no packet comes to the
    /// rules of connections. What became of one may be lost: if it takes too long, only a flush helps.
    fn is_ready(&self) -> bool {
        true
    }

    /// Begins to keep all packets from the rules of these groups (a bit each, see [`crate::lower`]), which
    /// stay where they are, and lets them through to all others: what does not get there goes to software.
    /// That takes a few operations, however many rules there are. Returns whether it can.
    fn fence(&mut self, groups: u8) -> bool {
        let _ = groups;
        false
    }

    /// Groups of the fence by now: not a packet comes to their rules.
    fn fenced(&self) -> u8 {
        0
    }

    /// How often a base rule could not be put in force, or taken out for a fence, since the last call. Each
    /// is tried again, and counts as what it was until then.
    fn take_base_failures(&mut self) -> u32 {
        0
    }

    /// Makes the meter with this number for the rules of a port (an ethdev), or changes it; whether it keeps
    /// what it has of its burst then depends on the device.
    ///
    /// # Errors
    /// It is as it was. [`EngineError::QueueFull`]: push, pull and ask again, it is being made. An engine
    /// without [`Traits::meters`] has none.
    fn set_meter(&mut self, port: u16, number: u32, meter: &Meter) -> Result<(), EngineError> {
        const ENOTSUP: i32 = 95;
        let _ = (port, number, meter);
        Err(EngineError::Refused(ENOTSUP))
    }

    /// What a meter has dropped since it was made, as far as is known by now; bytes of whole frames.
    ///
    /// # Errors
    /// [`EngineError::Lost`] if there is no such meter.
    fn meter_drops(&mut self, port: u16, number: u32) -> Result<Count, EngineError> {
        const ENOENT: i32 = 2;
        let _ = (port, number);
        Err(EngineError::Lost(ENOENT))
    }

    /// Gives up a meter that no rule names, if there is one.
    fn unset_meter(&mut self, port: u16, number: u32) {
        let _ = (port, number);
    }

    /// Takes out everything at once, whatever its state, and starts anew: afterwards no rule is in force,
    /// no operation on one is under way and no counter or meter is held. The base rules are on their way, and
    /// there is no fence.
    ///
    /// # Errors
    /// The device does not answer; there may be rules left, and it has to be tried again.
    fn flush(&mut self) -> Result<(), EngineError>;

    /// What the driver said when it last refused something, in its own words, for people to read; told
    /// once.
    fn complaint(&mut self) -> Option<String> {
        None
    }
}
