//! Numbers, generations, and what rules mean.

use super::*;
use crate::addr::{Ip, Prefix};

fn subject(src: u32, dst_port: u16) -> Subject {
    Subject {
        tenant: TenantId(0),
        way: Way::Ingress,
        src: Ip::v4(src),
        dst: Ip::v4(0xc000_0250),
        src_port: 40_000,
        dst_port,
        protocol: 6,
        icmp: None,
        state: Standing::New,
    }
}

fn rule(action: Action, matches: Matches) -> Statement {
    Statement { name: None, line: 1, action, log: false, matches }
}

fn to_port(action: Action, port: u16) -> Statement {
    rule(action, Matches { ports: vec![port..=port], ..Matches::default() })
}

fn named(name: &str, statement: Statement) -> Statement {
    Statement { name: Some(name.to_owned()), ..statement }
}

fn build(rules: &[Statement], previous: Option<&Arc<Policy>>) -> Arc<Policy> {
    let source = Source { rules: rules.to_vec(), defaults: Defaults::default() };
    Policy::build(&source, previous).expect("policy")
}

fn numbers(policy: &Policy) -> Vec<u16> {
    policy.rules().iter().map(|rule| rule.number.0).collect()
}

#[test]
fn the_first_rule_that_matches_decides() {
    let ten = Prefix { address: Ip::v4(0x0a00_0000), length: 8 };
    let from = Some(Arc::from([ten]));
    let refused = Statement { log: true, ..rule(Action::Reject, Matches { from, ..Matches::default() }) };
    let policy = build(&[to_port(Action::Allow, 80), refused], None);
    let verdict = |src, port| policy.judge(&subject(src, port));
    let rule = |number| Some(RuleNumber(number));
    assert_eq!(verdict(0x0a01_0203, 80), Verdict { action: Action::Allow, rule: rule(0), log: false });
    assert_eq!(verdict(0x0a01_0203, 81), Verdict { action: Action::Reject, rule: rule(1), log: true });
    assert_eq!(verdict(0x0b01_0203, 81), Verdict { action: Action::Allow, rule: None, log: false });
    assert!(!policy.allows_all() && build(&[], None).allows_all());
}

#[test]
fn defaults_are_by_tenant_and_direction() {
    let own = vec![(TenantId(2), [Action::Allow, Action::Reject])];
    let defaults = Defaults { all: [Action::Deny, Action::Allow], tenants: own };
    let policy = Policy::build(&Source { rules: Vec::new(), defaults }, None).expect("policy");
    let action =
        |tenant, way| policy.judge(&Subject { tenant: TenantId(tenant), way, ..subject(1, 1) }).action;
    assert_eq!([action(0, Way::Ingress), action(0, Way::Egress)], [Action::Deny, Action::Allow]);
    assert_eq!([action(2, Way::Ingress), action(2, Way::Egress)], [Action::Allow, Action::Reject]);
    assert!(policy.concerns(TenantId(0)) && policy.concerns(TenantId(2)) && !policy.allows_all());
}

/// A rule about openings never ends what was let in, and never keeps out what it let in.
#[test]
fn what_was_let_in_stays_in() {
    let opened = |opening| Matches { opening: Some(opening), ..Matches::default() };
    let allow = [
        rule(Action::Allow, opened(Opening::Midstream)),
        rule(Action::Deny, opened(Opening::New)),
        rule(Action::Reject, Matches::default()),
    ];
    let policy = build(&allow, None);
    let action = |state| policy.judge(&Subject { state, ..subject(1, 1) }).action;
    assert_eq!(action(Standing::Midstream), Action::Allow);
    assert_eq!(action(Standing::New), Action::Deny);
    assert_eq!(action(Standing::Established), Action::Allow);
}

#[test]
fn generations_tell_judgements_apart() {
    let first = build(&[to_port(Action::Deny, 80), to_port(Action::Deny, 81)], None);
    let same = build(&[to_port(Action::Deny, 80), to_port(Action::Deny, 81)], Some(&first));
    assert!(Arc::ptr_eq(&first, &same));
    let moved = Statement { line: 9, log: true, ..to_port(Action::Deny, 80) };
    let moved = build(&[named("web", moved), to_port(Action::Deny, 81)], Some(&first));
    assert_eq!(moved.generation(), first.generation());
    let swapped = build(&[to_port(Action::Deny, 81), to_port(Action::Deny, 80)], Some(&first));
    assert_eq!(swapped.generation(), first.generation().wrapping_add(1));
    assert_eq!(numbers(&swapped), [1, 0]);
}

#[test]
fn numbers_are_kept_and_not_given_again_at_once() {
    let first = build(&[named("a", to_port(Action::Deny, 1)), to_port(Action::Deny, 2)], None);
    assert_eq!(numbers(&first), [0, 1]);
    // Named rules keep theirs whatever they say, others while they say the same.
    let second = build(&[to_port(Action::Deny, 3), named("a", to_port(Action::Allow, 9))], Some(&first));
    assert_eq!(numbers(&second), [2, 0]);
    assert!(second.rule(RuleNumber(1)).is_none());
    // The second's rules all have their number from before; 1 is free again now.
    let third = build(&[to_port(Action::Deny, 4), to_port(Action::Deny, 3)], Some(&second));
    assert_eq!(numbers(&third), [1, 2]);
    let twins = build(&[to_port(Action::Deny, 4), to_port(Action::Deny, 4)], Some(&third));
    assert_eq!(numbers(&twins), [1, 0]);
    for policy in [&first, &second, &third, &twins] {
        for rule in policy.rules() {
            assert_eq!(policy.rule(rule.number), Some(rule));
        }
    }
}
