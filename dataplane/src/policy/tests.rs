//! Numbers, generations, and what rules mean.

use super::*;
use crate::addr::{Ip, Prefix};
use proptest::prelude::*;

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

/// Few values, so that everything meets everything.
fn any_ip() -> impl Strategy<Value = Ip> {
    prop_oneof![
        (0u32..4, prop::sample::select(vec![0u32, 1, 2, 0x7f, 0x80, 0xff]))
            .prop_map(|(a, b)| Ip::v4(a << 30 | b)),
        (0u8..3, 0u8..4).prop_map(|(a, b)| {
            let mut octets = [0; 16];
            (octets[0], octets[15]) = (a << 6, b << 6);
            Ip::v6(octets)
        }),
        Just(Ip::v4(u32::MAX)),
        Just(Ip::v6([0xff; 16])),
    ]
}

fn any_prefix() -> impl Strategy<Value = Prefix> {
    (any_ip(), prop::sample::select(vec![0u8, 1, 2, 8, 24, 25, 31, 32])).prop_map(|(address, length)| {
        let length = if address.is_v4() { length } else { length * 4 };
        Prefix { address, length }
    })
}

fn any_ports() -> impl Strategy<Value = Vec<PortRange>> {
    let port = || prop::sample::select(vec![1u16, 2, 79, 80, 81, 443, 1024, 65534, 65535]);
    let range = (port(), port()).prop_map(|(a, b)| a.min(b)..=a.max(b));
    prop_oneof![3 => Just(Vec::new()), 2 => prop::collection::vec(range, 1..4)]
}

fn any_prefixes() -> impl Strategy<Value = Option<Arc<[Prefix]>>> {
    prop::option::of(prop::collection::vec(any_prefix(), 0..4).prop_map(Arc::from))
}

fn any_matches() -> impl Strategy<Value = Matches> {
    let icmp = (0u8..3, prop::option::of(prop::sample::select(vec![0, 1, 255])));
    let icmp = icmp.prop_map(|(kind, code)| IcmpTypes { kind: kind * 127, code });
    let fields = (
        prop::option::of((0u16..3).prop_map(TenantId)),
        prop::option::of(prop::sample::select(vec![Way::Ingress, Way::Egress])),
        prop::option::of(prop::sample::select(vec![1u8, 6, 17, 58, 255])),
        prop::option::of(prop::sample::select(vec![Opening::New, Opening::Midstream])),
        prop_oneof![4 => Just(Vec::new()), 1 => prop::collection::vec(icmp, 1..3)],
    );
    (fields, any_prefixes(), any_prefixes(), any_ports(), any_ports()).prop_map(
        |((tenant, way, protocol, opening, icmp), from, to, from_ports, ports)| Matches {
            tenant,
            way,
            from,
            to,
            protocol,
            from_ports,
            ports,
            icmp,
            opening,
        },
    )
}

fn any_rules() -> impl Strategy<Value = Vec<Statement>> {
    let pair = (any_matches(), prop::sample::select(Action::ALL.to_vec()));
    let rules = prop::collection::vec(pair, 0..12);
    // Of some there are many, so that sets have more than one word and head.
    (rules, prop::sample::select(vec![1usize, 1, 1, 70, 500])).prop_map(|(rules, times)| {
        let all = rules.iter().flat_map(|rule| core::iter::repeat_n(rule, times));
        all.map(|(matches, action)| rule(*action, matches.clone())).collect()
    })
}

fn any_subject() -> impl Strategy<Value = Subject> {
    let port = || prop::sample::select(vec![0u16, 1, 2, 79, 80, 82, 1024, 65535]);
    let icmp =
        prop_oneof![4 => Just(None), 1 => (0u8..3, prop::sample::select(vec![0, 1, 2, 255])).prop_map(Some)];
    let standing = vec![Standing::New, Standing::Midstream, Standing::Established];
    let rest = (
        (0u16..4).prop_map(TenantId),
        prop::sample::select(vec![Way::Ingress, Way::Egress]),
        prop::sample::select(vec![0u8, 1, 6, 17, 58, 255]),
        icmp,
        prop::sample::select(standing),
    );
    (rest, any_ip(), any_ip(), port(), port()).prop_map(
        |((tenant, way, protocol, icmp, state), src, dst, src_port, dst_port)| Subject {
            tenant,
            way,
            src,
            dst,
            src_port,
            dst_port,
            protocol,
            icmp: icmp.map(|(kind, code)| (kind * 127, code)),
            state,
        },
    )
}

fn linear(policy: &Policy, subject: &Subject) -> Option<RuleNumber> {
    policy.rules().iter().find(|rule| rule.statement.decides(subject)).map(|rule| rule.number)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    /// The compiled form finds what asking one rule after another finds.
    #[test]
    fn look_ups_agree_with_the_rules(
        rules in any_rules(),
        subjects in prop::collection::vec(any_subject(), 1..200),
        defaults in prop::collection::vec((0u16..3, prop::sample::select(Action::ALL.to_vec())), 0..2),
    ) {
        let tenants = defaults.iter().map(|&(id, action)| (TenantId(id), [action, Action::Deny])).collect();
        let defaults = Defaults { all: [Action::Allow, Action::Reject], tenants };
        let policy = Policy::build(&Source { rules, defaults: defaults.clone() }, None).expect("policy");
        for subject in &subjects {
            let (verdict, expected) = (policy.judge(subject), linear(&policy, subject));
            prop_assert_eq!(verdict.rule, expected, "{:?}", subject);
            let action = match expected.and_then(|number| policy.rule(number)) {
                Some(rule) => rule.statement.action,
                None => defaults.of(subject.tenant, subject.way),
            };
            prop_assert_eq!(verdict.action, action);
        }
    }

    /// Whoever was let in is let in again while the policy stays.
    #[test]
    fn being_judged_again_changes_nothing(rules in any_rules(), subject in any_subject()) {
        let policy = Policy::build(&Source { rules, defaults: Defaults::default() }, None).expect("policy");
        if policy.judge(&subject).action == Action::Allow {
            let again = policy.judge(&Subject { state: Standing::Established, ..subject });
            prop_assert_eq!(again.action, Action::Allow);
        }
    }
}

/// Ranges that all overlap in ways of their own are the worst there is for memory.
#[test]
fn what_would_take_too_much_memory_is_refused() {
    let nested = |n: u16, of: fn(Vec<PortRange>) -> Matches| {
        let ranges = (0..n).map(|at| rule(Action::Deny, of(vec![1 + at..=u16::MAX - at])));
        let source = Source { rules: ranges.collect(), defaults: Defaults::default() };
        Policy::build(&source, None).map(drop)
    };
    assert_eq!(nested(4000, |ports| Matches { ports, ..Matches::default() }), Ok(()));
    let error = nested(16384, |from_ports| Matches { from_ports, ..Matches::default() });
    assert_eq!(error, Err(PolicyError::TooLarge { field: "from_ports" }));
    let prefixes: Arc<[Prefix]> =
        (0..65536).map(|n| Prefix { address: Ip::v4(n << 8), length: 28 }).collect();
    let to = |n| {
        rule(
            Action::Deny,
            Matches { to: Some(Arc::clone(&prefixes)), tenant: Some(TenantId(n)), ..Matches::default() },
        )
    };
    let source = Source { rules: (0..9).map(to).collect(), defaults: Defaults::default() };
    assert_eq!(Policy::build(&source, None).map(drop), Err(PolicyError::TooManyPrefixes { field: "to" }));
}
