//! `show policy`: the rules in force, and how often each has decided.

use crate::totals::Ledger;
use dataplane::counters::{Counter, WorkerCounters};
use dataplane::limits::RULE_NUMBERS_MAX;
use dataplane::policy::{Policy, Rule, Way};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// A policy rule, or the default of a direction, in the order they are asked.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PolicyRow {
    /// Its name; for a rule without, its action and a digest of what it says.
    pub(crate) rule: String,
    /// The line of the configuration where it begins; 0 for a default.
    pub(crate) line: usize,
    /// allow, deny or reject.
    pub(crate) action: String,
    pub(crate) log: bool,
    /// Connections, and packets that belong to none, that it decided.
    pub(crate) matched: u64,
}

/// What was counted under each rule, by its label.
#[derive(Debug)]
pub(crate) struct PolicyBooks {
    rules: Ledger<String, 1>,
}

impl PolicyBooks {
    pub(crate) fn new() -> PolicyBooks {
        PolicyBooks { rules: Ledger::new(RULE_NUMBERS_MAX) }
    }

    /// Numbers belong to the rules of `policy`, from now on.
    pub(crate) fn assign(&mut self, policy: &Policy, workers: &[Arc<WorkerCounters>]) {
        let labels = labels(policy.rules());
        let numbered = policy.rules().iter().zip(labels).map(|(rule, label)| (rule.number.index(), label));
        self.rules.assign(numbered, |number| raw(workers, number));
    }

    /// The rows of `policy`, to which the numbers belong.
    pub(crate) fn rows(&self, policy: &Policy, workers: &[Arc<WorkerCounters>]) -> Vec<PolicyRow> {
        let row = |(rule, label): (&Rule, String)| {
            let number = rule.number.index();
            let [matched] = self.rules.totals(number, raw(workers, number));
            let statement = &rule.statement;
            let action = statement.action.name().to_owned();
            PolicyRow { rule: label, line: statement.line, action, log: statement.log, matched }
        };
        let default = |(way, rule): (Way, &str)| PolicyRow {
            // No rule can have such a name.
            rule: rule.to_owned(),
            action: policy.defaults().all[way as usize].name().to_owned(),
            matched: sum(workers, |worker| worker.policy.defaults.get(way as usize)),
            ..PolicyRow::default()
        };
        let defaults = [(Way::Ingress, "(default ingress)"), (Way::Egress, "(default egress)")];
        policy.rules().iter().zip(labels(policy.rules())).map(row).chain(defaults.map(default)).collect()
    }
}

/// A label for each rule, the same for as long as its counters are.
fn labels(rules: &[Rule]) -> Vec<String> {
    let mut twins: HashMap<String, u32> = HashMap::new();
    let label = |rule: &Rule| {
        let statement = &rule.statement;
        if let Some(name) = &statement.name {
            return name.clone();
        }
        let mut hasher = DefaultHasher::new();
        statement.matches.hash(&mut hasher);
        let label = format!("({} {:08x})", statement.action.name(), hasher.finish() >> 32);
        let twin = twins.entry(label.clone()).or_default();
        *twin += 1;
        if *twin == 1 { label } else { format!("{label}-{twin}") }
    };
    rules.iter().map(label).collect()
}

fn raw(workers: &[Arc<WorkerCounters>], number: usize) -> [u64; 1] {
    [sum(workers, |worker| worker.policy.rules.get(number))]
}

fn sum<'a>(
    workers: &'a [Arc<WorkerCounters>],
    counter: impl Fn(&'a WorkerCounters) -> Option<&'a Counter>,
) -> u64 {
    workers.iter().filter_map(|worker| counter(worker)).fold(0, |sum, it| sum.wrapping_add(it.get()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataplane::policy::{Action, Matches, Source, Statement};

    fn rule(name: Option<&str>, action: Action) -> Statement {
        let name = name.map(str::to_owned);
        Statement { name, line: 7, action, log: false, matches: Matches::default() }
    }

    fn build(rules: &[Statement], previous: Option<&Arc<Policy>>) -> Arc<Policy> {
        let source = Source { rules: rules.to_vec(), ..Source::default() };
        Policy::build(&source, previous).expect("policy")
    }

    #[test]
    fn counts_follow_their_rule() {
        let workers: Vec<_> = (0..2).map(|_| Arc::new(WorkerCounters::new(1, 1).with_rules(8))).collect();
        let mut books = PolicyBooks::new();
        let first = build(&[rule(Some("a"), Action::Deny), rule(None, Action::Allow)], None);
        books.assign(&first, &workers);
        workers[0].policy.rules[0].add(3);
        workers[1].policy.rules[0].add(4);
        workers[1].policy.rules[1].add(5);
        workers[1].policy.defaults[Way::Egress as usize].add(6);
        let matched = |books: &PolicyBooks, policy: &Policy| -> Vec<(String, u64)> {
            books.rows(policy, &workers).into_iter().map(|row| (row.rule, row.matched)).collect()
        };
        let rows = matched(&books, &first);
        assert_eq!((rows[0].clone(), rows[1].1), (("a".to_owned(), 7), 5));
        assert_eq!(rows[2..], [("(default ingress)".to_owned(), 0), ("(default egress)".to_owned(), 6)]);
        let second = build(&[rule(None, Action::Reject), rule(Some("a"), Action::Reject)], Some(&first));
        books.assign(&second, &workers);
        let rows = matched(&books, &second);
        assert_eq!((rows[0].1, rows[1].clone()), (0, ("a".to_owned(), 7)));
        let twins = build(&[rule(None, Action::Deny), rule(None, Action::Deny)], Some(&second));
        let labels = labels(twins.rules());
        assert_eq!(labels[1], format!("{}-2", labels[0]));
    }
}
