//! Which traffic is let through: ordered rules, of which the first that matches decides.
//!
//! A [`Policy`] is part of a [`crate::snapshot::Snapshot`], immutable like it. [`Policy::judge`] is asked
//! once for each connection (and for each packet that belongs to none); the connection remembers the
//! [`Policy::generation`] that it was judged under, and is judged again once that differs.
//!
//! * `rule`: what a rule says, and whether a [`Subject`] matches it: the meaning of a policy.
//! * `classifier`, on `intervals`: the same, compiled to be found quickly.
//! * `log`: what is told of verdicts that are to be logged.
//! * `denial`: what is denied whatever is known of its connection.
//! * this page: the rules of one generation, their numbers, and how they follow those before.

mod classifier;
mod denial;
mod intervals;
mod log;
mod rule;
#[cfg(test)]
mod tests;

use crate::ids::TenantId;
use crate::limits::{POLICY_BOUNDS_MAX, RULE_NUMBERS_MAX, RULES_MAX};
use classifier::Classifier;
use core::fmt;
use foldhash::fast::FixedState;
use std::collections::HashMap;
use std::sync::Arc;

pub use log::LogEvent;
pub use rule::{IcmpTypes, Matches, Opening, PortRange, Standing, Statement, Subject, Way};

/// What happens to what a rule matches.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Action {
    /// It passes.
    #[default]
    Allow,
    /// It is dropped in silence.
    Deny,
    /// It is dropped, and its sender told: a TCP RST, or ICMP "administratively prohibited".
    Reject,
}

impl Action {
    /// All actions, in declaration order.
    pub const ALL: [Action; 3] = [Action::Allow, Action::Deny, Action::Reject];

    /// The name used in configuration, labels and output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Action::Allow => "allow",
            Action::Deny => "deny",
            Action::Reject => "reject",
        }
    }
}

/// A rule, by its slot: what it is counted under. Stable across reloads for a rule of the same name, or,
/// for one without, that says the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[repr(transparent)]
pub struct RuleNumber(pub u16);

impl RuleNumber {
    /// The number as an array index.
    #[inline]
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for RuleNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What was decided about a [`Subject`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Verdict {
    /// What happens to it.
    pub action: Action,
    /// The rule that said so; `None`: no rule matched, and the default of the tenant and direction holds.
    pub rule: Option<RuleNumber>,
    /// Whether it is to be logged.
    pub log: bool,
}

/// What holds where no rule matches, by [`Way`].
pub type ByWay = [Action; 2];

/// What holds where no rule matches.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Defaults {
    /// For tenants that have none of their own.
    pub all: ByWay,
    /// For these tenants.
    pub tenants: Vec<(TenantId, ByWay)>,
}

impl Defaults {
    /// The default for this tenant and direction.
    #[must_use]
    pub fn of(&self, tenant: TenantId, way: Way) -> Action {
        let own = self.tenants.iter().find(|(id, _)| *id == tenant);
        own.map_or(self.all, |(_, by_way)| *by_way)[way as usize]
    }

    fn allow_all(&self) -> bool {
        let allows = |by_way: &ByWay| *by_way == [Action::Allow; 2];
        allows(&self.all) && self.tenants.iter().all(|(_, by_way)| allows(by_way))
    }
}

/// What a policy is made of: the rules in their order, and the defaults.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Source {
    /// The first that matches decides.
    pub rules: Vec<Statement>,
    /// Where none does.
    pub defaults: Defaults,
}

impl Source {
    /// Whether there is anything to ask for traffic of this tenant.
    #[must_use]
    pub fn concerns(&self, tenant: TenantId) -> bool {
        Tenants::of(self).get(tenant).concerned
    }
}

/// One rule of a [`Policy`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rule {
    /// What it is counted under.
    pub number: RuleNumber,
    /// What it says.
    pub statement: Statement,
}

/// Why there is no policy of these rules.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PolicyError {
    /// More rules than can be numbered, those of the policy before included.
    #[error("no free number for a policy rule: have at most {RULES_MAX} rules, or change fewer at a time")]
    TooManyRules,
    /// The rules' lists name too many prefixes in all.
    #[error(
        "the `{field}` lists of policy rules have more than {most} prefixes in all: name a set in fewer \
         rules, or join its prefixes", most = POLICY_BOUNDS_MAX / 2
    )]
    TooManyPrefixes {
        /// The key of the rules.
        field: &'static str,
    },
    /// They overlap so much that finding them takes too much memory.
    #[error(
        "policy rules overlap in too many ways by `{field}`: write fewer rules, or ranges that are the \
         same or apart"
    )]
    TooLarge {
        /// The key of the rules.
        field: &'static str,
    },
}

/// The rules that hold.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Policy {
    generation: u8,
    defaults: Defaults,
    /// In the order they are asked.
    rules: Vec<Rule>,
    /// By [`RuleNumber`]: the rule's position, if it is one of this policy's.
    positions: Vec<Slot>,
    /// Whether there is anything to ask at all.
    asks: bool,
    /// What `rules` and `defaults` say, to be looked up: the position of the first rule that matches,
    classifier: Arc<Classifier>,
    /// the verdict of each rule,
    verdicts: Vec<Verdict>,
    /// and what holds for each tenant beside them.
    tenants: Tenants,
}

/// What is known of each tenant.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Tenants {
    /// Those of which something is said by name, by [`TenantId`].
    named: Vec<Tenant>,
    others: Tenant,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Tenant {
    defaults: ByWay,
    /// Whether there is anything to ask for its traffic.
    concerned: bool,
}

impl Tenants {
    fn of(source: &Source) -> Tenants {
        let named = source.rules.iter().filter_map(|rule| rule.matches.tenant);
        let named = named.chain(source.defaults.tenants.iter().map(|(tenant, _)| *tenant));
        let count = named.map(|tenant| tenant.index() + 1).max().unwrap_or(0);
        let ruled = source.rules.iter().any(|rule| rule.matches.tenant.is_none());
        let tenant = |defaults: ByWay| Tenant { defaults, concerned: ruled || defaults != ByWay::default() };
        let others = tenant(source.defaults.all);
        let mut named = vec![others; count];
        for &(id, defaults) in &source.defaults.tenants {
            named[id.index()] = tenant(defaults);
        }
        for id in source.rules.iter().filter_map(|rule| rule.matches.tenant) {
            named[id.index()].concerned = true;
        }
        Tenants { named, others }
    }

    #[inline]
    fn get(&self, tenant: TenantId) -> Tenant {
        self.named.get(tenant.index()).copied().unwrap_or(self.others)
    }
}

/// Who has a [`RuleNumber`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Slot {
    Free,
    /// The rule at this position.
    Rule(u16),
    /// A rule of the policy before: some worker may still count under it.
    Left,
}

impl Policy {
    /// The policy that says `source` and follows `previous`; `previous` itself if it says the same.
    /// All workers must have taken up `previous` before.
    ///
    /// # Errors
    ///
    /// See [`PolicyError`].
    pub fn build(source: &Source, previous: Option<&Arc<Policy>>) -> Result<Arc<Policy>, PolicyError> {
        let settled = |policy: &&Arc<Policy>| policy.says(source) && !policy.positions.contains(&Slot::Left);
        if let Some(same) = previous.filter(settled) {
            return Ok(Arc::clone(same));
        }
        let alike = previous.filter(|previous| previous.judges_like(source));
        let generation = previous.map_or(0, |it| it.generation.wrapping_add(u8::from(alike.is_none())));
        let classifier = match alike {
            Some(alike) => Arc::clone(&alike.classifier),
            None => Arc::new(Classifier::new(&source.rules)?),
        };
        let (rules, positions) = number(&source.rules, previous.map(|previous| &**previous))?;
        let verdict = |Rule { number, statement }: &Rule| Verdict {
            action: statement.action,
            rule: Some(*number),
            log: statement.log,
        };
        Ok(Arc::new(Policy {
            generation,
            defaults: source.defaults.clone(),
            verdicts: rules.iter().map(verdict).collect(),
            asks: !rules.is_empty() || !source.defaults.allow_all(),
            rules,
            positions,
            classifier,
            tenants: Tenants::of(source),
        }))
    }

    /// What is to happen to `subject`.
    #[must_use]
    pub fn judge(&self, subject: &Subject) -> Verdict {
        let found = self.classifier.find(subject).and_then(|at| self.verdicts.get(usize::from(at)));
        found.copied().unwrap_or_else(|| Verdict {
            action: self.tenants.get(subject.tenant).defaults[subject.way as usize],
            rule: None,
            log: false,
        })
    }

    /// Whether everything is let through and nothing counted, so that there is nothing to ask.
    #[inline]
    #[must_use]
    pub fn allows_all(&self) -> bool {
        !self.asks
    }

    /// Whether there is anything to ask for traffic of this tenant.
    #[must_use]
    pub fn concerns(&self, tenant: TenantId) -> bool {
        self.tenants.get(tenant).concerned
    }

    /// Differs from that of the policy before if anything may be judged differently. Wraps around.
    #[inline]
    #[must_use]
    pub fn generation(&self) -> u8 {
        self.generation
    }

    /// The rules, in the order they are asked.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// What holds where no rule matches.
    #[must_use]
    pub fn defaults(&self) -> &Defaults {
        &self.defaults
    }

    /// The rule with this number; `None` for one of another policy.
    #[must_use]
    pub fn rule(&self, number: RuleNumber) -> Option<&Rule> {
        match *self.positions.get(number.index())? {
            Slot::Rule(position) => self.rules.get(usize::from(position)),
            Slot::Free | Slot::Left => None,
        }
    }

    fn says(&self, source: &Source) -> bool {
        self.defaults == source.defaults && self.rules.iter().map(|rule| &rule.statement).eq(&source.rules)
    }

    /// Whether `source` would decide everything alike. Names, lines and logging do not matter to that.
    fn judges_like(&self, source: &Source) -> bool {
        let own = self.rules.iter().map(|rule| rule.statement.judgement());
        self.defaults == source.defaults && own.eq(source.rules.iter().map(Statement::judgement))
    }
}

/// What a rule keeps its number by.
#[derive(PartialEq, Eq, Hash)]
enum Identity<'a> {
    Name(&'a str),
    Content(Action, &'a Matches),
}

impl<'a> Identity<'a> {
    fn of(statement: &'a Statement) -> Identity<'a> {
        match &statement.name {
            Some(name) => Identity::Name(name),
            None => Identity::Content(statement.action, &statement.matches),
        }
    }
}

/// Gives each rule the number that it had in `previous`, or one that nobody has had since the policy
/// before that.
fn number(
    statements: &[Statement],
    previous: Option<&Policy>,
) -> Result<(Vec<Rule>, Vec<Slot>), PolicyError> {
    let mut slots = previous.map_or_else(Vec::new, |previous| previous.positions.clone());
    for slot in &mut slots {
        *slot = if matches!(slot, Slot::Rule(_)) { Slot::Left } else { Slot::Free };
    }
    let before = previous.map_or(&[][..], |previous| &previous.rules);
    // Several rules without a name may say the same: they keep their order. Each knows the next like it.
    let mut first = HashMap::with_capacity_and_hasher(before.len(), FixedState::default());
    let mut next: Vec<Option<usize>> = vec![None; before.len()];
    for (at, rule) in before.iter().enumerate().rev() {
        next[at] = first.insert(Identity::of(&rule.statement), Some(at)).flatten();
    }
    let kept = |statement| {
        let first = first.get_mut(&Identity::of(statement))?;
        let at = (*first)?;
        *first = next[at];
        Some(before[at].number)
    };
    let kept: Vec<Option<RuleNumber>> = statements.iter().map(kept).collect();
    let mut free =
        (0..).filter(|&index| slots.get(usize::from(index)).is_none_or(|slot| *slot == Slot::Free));
    let mut rules = Vec::with_capacity(statements.len());
    for (statement, kept) in statements.iter().zip(kept) {
        let fresh = || free.next().filter(|index| usize::from(*index) < RULE_NUMBERS_MAX).map(RuleNumber);
        let number = kept.or_else(fresh).ok_or(PolicyError::TooManyRules)?;
        rules.push(Rule { number, statement: statement.clone() });
    }
    for (rule, position) in rules.iter().zip(0u16..) {
        let needed = rule.number.index() + 1;
        slots.resize(slots.len().max(needed), Slot::Free);
        slots[rule.number.index()] = Slot::Rule(position);
    }
    Ok((rules, slots))
}
