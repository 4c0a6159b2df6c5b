//! The base rules of an engine whose rules come into force some time after they are begun, if they do.
//!
//! Those that keep packets for software have precedence over those that lead to connections, and must be
//! there before them: else hardware would forward what it must not. So rules of one priority are begun once
//! all with a higher one, which is a smaller number, are in force.
//!
//! Where groups are *fenced*, the rules that lead to them are taken out again.

use crate::rule::{Action, Item, Rule};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Laid<K> {
    /// To be begun.
    Due,
    /// Its end is to come.
    UnderWay,
    /// Its name in the engine.
    InForce(K),
    /// The end of its removal is to come.
    Leaving(K),
    /// The driver does not take it, and the engine does without.
    Refused,
}

/// The base rules, and what is known of each. `K`: what the engine calls a rule.
#[derive(Debug)]
pub(super) struct Base<K> {
    /// By priority.
    rules: Vec<(Rule, Laid<K>)>,
    /// Groups that no rule is to lead to, a bit each.
    fenced: u8,
    /// What could not be done, since it was last told.
    failures: u32,
}

impl<K: Copy + PartialEq> Base<K> {
    /// All of them are due.
    pub(super) fn new(mut rules: Vec<Rule>) -> Base<K> {
        rules.sort_by_key(|rule| rule.attr.priority);
        Base { rules: rules.into_iter().map(|rule| (rule, Laid::Due)).collect(), fenced: 0, failures: 0 }
    }

    /// A rule that may be begun now, and its number.
    pub(super) fn next(&self) -> Option<(usize, &Rule)> {
        let wanted = |rule: &Rule| groups(rule) & self.fenced == 0;
        let missing = |(rule, laid): &&(Rule, Laid<K>)| {
            wanted(rule) && !matches!(laid, Laid::InForce(_) | Laid::Refused)
        };
        let (first, _) = self.rules.iter().find(missing)?;
        let may = |(rule, laid): &(Rule, Laid<K>)| {
            wanted(rule) && *laid == Laid::Due && rule.attr.priority == first.attr.priority
        };
        let number = self.rules.iter().position(may)?;
        Some((number, &self.rules[number].0))
    }

    /// A rule is on its way.
    pub(super) fn begun(&mut self, number: usize) {
        self.set(number, Laid::UnderWay);
    }

    /// It is in force, by this name, or has failed and is due again.
    pub(super) fn ended(&mut self, number: usize, in_force: Option<K>) {
        self.failures += u32::from(in_force.is_none());
        self.set(number, in_force.map_or(Laid::Due, Laid::InForce));
    }

    /// The driver refuses a rule. `true`: it is one about tunnels, which not all devices know, and the engine
    /// does without: none of those that are still due will be begun, and software takes packets out of
    /// tunnels.
    pub(super) fn refused(&mut self, number: usize) -> bool {
        let about_tunnel = |rule: &Rule| rule.items.iter().any(|item| matches!(item, Item::Tunnel(..)));
        let optional = self.rules.get(number).is_some_and(|(rule, _)| about_tunnel(rule));
        if optional {
            let due = self.rules.iter_mut().filter(|(rule, laid)| about_tunnel(rule) && *laid == Laid::Due);
            due.for_each(|(_, laid)| *laid = Laid::Refused);
        }
        optional
    }

    /// Something could not be done with a rule, which is as it was.
    pub(super) fn failed(&mut self) {
        self.failures += 1;
    }

    /// A rule that was in force is out.
    pub(super) fn out(&mut self, number: usize) {
        self.set(number, Laid::Due);
    }

    /// How often something could not be done since the last call.
    pub(super) fn take_failures(&mut self) -> u32 {
        std::mem::take(&mut self.failures)
    }

    /// Lets no rule lead to these groups, a bit each, and to all others.
    pub(super) fn fence(&mut self, groups: u8) {
        self.fenced = groups;
    }

    /// A rule to be taken out for the fence: its number and name.
    pub(super) fn next_out(&self) -> Option<(usize, &Rule, K)> {
        self.rules.iter().enumerate().find_map(|(number, (rule, laid))| match laid {
            Laid::InForce(key) if groups(rule) & self.fenced != 0 => Some((number, rule, *key)),
            _ => None,
        })
    }

    /// It is on its way out.
    pub(super) fn leaving(&mut self, number: usize) {
        if let Some((_, Laid::InForce(key))) = self.rules.get(number) {
            self.set(number, Laid::Leaving(*key));
        }
    }

    /// The removal of a rule of this name has ended; `false`: it is still there. That of a rule that was not
    /// on its way out says nothing.
    pub(super) fn left(&mut self, number: usize, key: K, out: bool) {
        if self.rules.get(number).is_some_and(|(_, laid)| *laid == Laid::Leaving(key)) {
            self.failures += u32::from(!out);
            self.set(number, if out { Laid::Due } else { Laid::InForce(key) });
        }
    }

    fn set(&mut self, number: usize, now: Laid<K>) {
        if let Some((_, laid)) = self.rules.get_mut(number) {
            *laid = now;
        }
    }

    /// None is in force any more, nor is there a fence.
    pub(super) fn forget(&mut self) {
        self.rules.iter_mut().for_each(|(_, laid)| *laid = Laid::Due);
        self.fenced = 0;
    }

    /// Whether all are in force, but those that a fence wants out, which are.
    pub(super) fn is_laid(&self) -> bool {
        self.rules.iter().all(|(rule, laid)| match laid {
            Laid::InForce(_) => groups(rule) & self.fenced == 0,
            Laid::Due => groups(rule) & self.fenced != 0,
            Laid::Refused => true,
            Laid::UnderWay | Laid::Leaving(_) => false,
        })
    }

    /// Groups that no rule leads to because of the fence, a bit each.
    pub(super) fn fenced(&self) -> u8 {
        let leads = |(rule, laid): &(Rule, Laid<K>)| match laid {
            Laid::Due | Laid::Refused => 0,
            _ => groups(rule),
        };
        self.fenced & !self.rules.iter().map(leads).fold(0, std::ops::BitOr::bitor)
    }

    /// Those in force.
    #[cfg(feature = "sim")]
    pub(super) fn in_force(&self) -> usize {
        self.rules.iter().filter(|(_, laid)| matches!(laid, Laid::InForce(_))).count()
    }
}

/// The groups that a rule leads to, a bit each.
fn groups(rule: &Rule) -> u8 {
    rule.actions.iter().fold(0, |groups, action| match action {
        Action::Jump(group) => groups | 1u8.checked_shl(*group).unwrap_or(0),
        _ => groups,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::{Attr, Domain};
    use arrayvec::ArrayVec;

    fn base(priorities: &[u32]) -> Base<usize> {
        let rule = |priority: &u32| Rule {
            port: 0,
            attr: Attr { domain: Domain::Transfer, group: 0, priority: *priority },
            items: ArrayVec::new(),
            headers: ArrayVec::new(),
            actions: [Action::Jump(*priority)].into_iter().collect(),
        };
        Base::new(priorities.iter().map(rule).collect())
    }

    /// Begins all that may be; their numbers.
    fn begin(base: &mut Base<usize>) -> Vec<usize> {
        let mut begun = Vec::new();
        while let Some((number, _)) = base.next() {
            base.begun(number);
            begun.push(number);
        }
        begun
    }

    fn end(base: &mut Base<usize>, number: usize) {
        base.ended(number, Some(number));
    }

    #[test]
    fn what_keeps_packets_for_software_comes_first() {
        let mut base = base(&[0, 1, 0, 1]);
        assert_eq!(begin(&mut base), [0, 1]);
        end(&mut base, 0);
        assert_eq!(begin(&mut base), [], "one of them is not there yet");
        base.ended(1, None);
        assert_eq!(begin(&mut base), [1], "and is tried again");
        end(&mut base, 1);
        assert_eq!(begin(&mut base), [2, 3]);
        end(&mut base, 3);
        assert!(!base.is_laid());
        end(&mut base, 2);
        assert!(base.is_laid());
        base.forget();
        assert_eq!(begin(&mut base), [0, 1], "nothing is there any more");
    }

    #[test]
    fn a_fence_takes_out_what_leads_there_and_nothing_else() {
        let mut base = base(&[0, 1, 2, 1]);
        while let Some(&number) = begin(&mut base).first() {
            end(&mut base, number);
            // Those of one priority, one after the other.
            (0..4).for_each(|number| end(&mut base, number));
        }
        assert!(base.is_laid());
        base.fence(1 << 1);
        assert!(!base.is_laid());
        assert_eq!(base.fenced(), 0, "both are still there");
        for number in [1, 2] {
            assert_eq!(base.next_out().map(|(number, _, key)| (number, key)), Some((number, number)));
            base.leaving(number);
        }
        assert!(base.next_out().is_none());
        base.left(1, 1, true);
        base.left(2, 7, true);
        assert_eq!(base.fenced(), 0, "that was another one's");
        base.left(2, 2, false);
        assert_eq!((base.take_failures(), base.take_failures()), (1, 0), "told once");
        assert_eq!(base.fenced(), 0, "it is still there");
        assert_eq!(base.next_out().map(|(number, _, _)| number), Some(2), "tried again");
        base.leaving(2);
        // Changed its mind meanwhile: what is on its way out is begun again once it is out.
        base.fence(0);
        assert_eq!(begin(&mut base), [1]);
        base.fence(1 << 1);
        base.left(2, 2, true);
        assert_eq!((base.fenced(), base.is_laid()), (0, false), "one is on its way in again");
        end(&mut base, 1);
        base.leaving(1);
        base.left(1, 1, true);
        assert_eq!((base.fenced(), base.is_laid()), (1 << 1, true));
        base.fence(0);
        assert_eq!(begin(&mut base), [1, 2]);
    }
}
