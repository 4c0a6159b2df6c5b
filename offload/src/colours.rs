//! Meters as hardware steering has them: they colour packets, and drop none. So a rule with a meter is
//! carried out as three.
//!
//! ```text
//! groups 1 to 4: the connection's             group 6: one rule per meter, one per port
//! ┌───────────────────────────────────────┐  ┌──────────────────────────────────────────────────┐
//! │ count, meter, tag: meter and way out, │  │ first:  red, tag: meter ─▶ count, drop           │
//! │ edits, tunnel ────────────────────────┼─▶│ second: tag: way out    ─▶ out of that port      │
//! └───────────────────────────────────────┘  └──────────────────────────────────────────────────┘
//! ```
//!
//! The tag is what the later rules know a packet by, whose headers may be a tunnel's by then. Only packets
//! that a meter has seen come to group 6: of others the colour means nothing. A red packet is counted
//! twice, by its connection's rule and by its meter's: what passes is the difference.

use arrayvec::ArrayVec;

use crate::rule::{Action, Attr, Domain, Headers, Item, Masked, Rule};

/// The group that decides by colour.
pub const COLOURS: u32 = 6;
/// The largest number of a meter.
pub const METER_MAX: u32 = 0xffff;

/// Bits of the tag that are the way out; the others are the meter.
const WAY_OUT: u32 = 0xffff;

/// A rule with a meter as hardware steering takes it. `None`: it does not cross the eSwitch, it has too many
/// actions, or its meter's number is too large.
#[must_use]
pub fn marked(rule: &Rule) -> Option<Rule> {
    let meter = meter_of(rule).filter(|meter| *meter <= METER_MAX)?;
    let port = way_out(rule).filter(|_| rule.attr.domain == Domain::Transfer)?;
    let mut marked = Rule { actions: ArrayVec::new(), ..rule.clone() };
    for action in &rule.actions {
        match *action {
            Action::Meter(_) | Action::ToPort(_) => {}
            // In this order, wherever they are named; and edits come after it.
            Action::Count => {
                let tag = meter << 16 | u32::from(port);
                marked
                    .actions
                    .try_extend_from_slice(&[Action::Count, Action::MeterMark(meter), Action::SetTag(tag)])
                    .ok()?;
            }
            other => marked.actions.try_push(other).ok()?,
        }
    }
    marked.actions.try_push(Action::Jump(COLOURS)).ok()?;
    meter_mark(&marked).map(|_| marked)
}

/// The meter that a rule names.
#[must_use]
pub fn meter_of(rule: &Rule) -> Option<u32> {
    rule.actions.iter().find_map(|action| match action {
        Action::Meter(meter) => Some(*meter),
        _ => None,
    })
}

/// Likewise, of one that is [`marked`].
fn meter_mark(rule: &Rule) -> Option<u32> {
    rule.actions.iter().find_map(|action| match action {
        Action::MeterMark(meter) => Some(*meter),
        _ => None,
    })
}

/// The ethdev of the port by which a rule's packets leave.
#[must_use]
pub fn way_out(rule: &Rule) -> Option<u16> {
    match rule.actions.last() {
        Some(Action::ToPort(port)) => Some(*port),
        _ => None,
    }
}

/// The rule, made on this proxy, that drops what a meter has found red.
#[must_use]
pub fn red(proxy: u16, meter: u32) -> Rule {
    let tag = Item::Tag(Masked { value: meter << 16, mask: !WAY_OUT });
    decide(proxy, 0, &[tag, Item::Red], &[Action::Count, Action::Drop])
}

/// The rule that lets all others leave by this ethdev's port.
#[must_use]
pub fn onward(proxy: u16, port: u16) -> Rule {
    let tag = Item::Tag(Masked { value: u32::from(port), mask: WAY_OUT });
    decide(proxy, 1, &[tag], &[Action::ToPort(port)])
}

fn decide(port: u16, priority: u32, items: &[Item], actions: &[Action]) -> Rule {
    Rule {
        port,
        attr: Attr { domain: Domain::Transfer, group: COLOURS, priority },
        items: items.iter().copied().collect(),
        actions: actions.iter().copied().collect(),
        headers: Headers::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(actions: &[Action]) -> Rule {
        let attr = Attr { domain: Domain::Transfer, group: 1, priority: 0 };
        Rule {
            port: 0,
            attr,
            items: ArrayVec::new(),
            actions: actions.iter().copied().collect(),
            headers: Headers::new(),
        }
    }

    #[test]
    fn a_meter_comes_after_the_count_and_before_edits() {
        let plain = [Action::PopVlan, Action::Count, Action::DecTtl, Action::ToPort(3)];
        let metered = rule(&plain).metered(Some(7)).expect("there is room");
        let marked = marked(&metered).expect("it crosses");
        let tag = Action::SetTag(7 << 16 | 3);
        let [pop, count, edit, _] = plain;
        let expected = [pop, count, Action::MeterMark(7), tag, edit, Action::Jump(COLOURS)];
        assert_eq!(marked.actions[..], expected);
    }

    #[test]
    fn what_cannot_be_marked_is_not() {
        let plain = rule(&[Action::Count, Action::ToPort(3)]);
        assert_eq!(marked(&plain), None, "it has no meter");
        assert_eq!(marked(&plain.clone().metered(Some(METER_MAX + 1)).expect("room")), None);
        let queue = rule(&[Action::Meter(1), Action::Count, Action::Queue(1)]);
        assert_eq!(marked(&queue), None, "it does not leave");
        assert_eq!(marked(&rule(&[Action::Meter(1), Action::ToPort(1)])), None, "it would not be counted");
        let mut full = plain.metered(Some(1)).expect("room");
        while full.actions.try_insert(0, Action::PopVlan).is_ok() {}
        assert_eq!(marked(&full), None);
    }
}
