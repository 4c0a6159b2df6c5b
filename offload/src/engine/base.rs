//! The base rules of an engine whose rules come into force some time after they are begun, if they do.
//!
//! Those that keep packets for software have precedence over those that lead to connections, and must be
//! there before them: else hardware would forward what it must not. So rules of one priority are begun once
//! all with a higher one, which is a smaller number, are in force.

use crate::rule::Rule;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Laid {
    /// To be begun.
    Due,
    /// Its end is to come.
    UnderWay,
    InForce,
}

/// The base rules, and what is known of each.
#[derive(Debug)]
pub(super) struct Base {
    /// By priority.
    rules: Vec<(Rule, Laid)>,
}

impl Base {
    /// All of them are due.
    pub(super) fn new(mut rules: Vec<Rule>) -> Base {
        rules.sort_by_key(|rule| rule.attr.priority);
        Base { rules: rules.into_iter().map(|rule| (rule, Laid::Due)).collect() }
    }

    /// A rule that may be begun now, and its number.
    pub(super) fn next(&self) -> Option<(usize, &Rule)> {
        let (first, _) = self.rules.iter().find(|(_, laid)| *laid != Laid::InForce)?;
        let may =
            |(rule, laid): &(Rule, Laid)| *laid == Laid::Due && rule.attr.priority == first.attr.priority;
        let number = self.rules.iter().position(may)?;
        Some((number, &self.rules[number].0))
    }

    /// A rule is on its way.
    pub(super) fn begun(&mut self, number: usize) {
        self.set(number, Laid::UnderWay);
    }

    /// It is in force, or has failed and is due again.
    pub(super) fn ended(&mut self, number: usize, in_force: bool) {
        self.set(number, if in_force { Laid::InForce } else { Laid::Due });
    }

    fn set(&mut self, number: usize, now: Laid) {
        if let Some((_, laid)) = self.rules.get_mut(number) {
            *laid = now;
        }
    }

    /// None is in force any more.
    pub(super) fn forget(&mut self) {
        self.rules.iter_mut().for_each(|(_, laid)| *laid = Laid::Due);
    }

    /// Whether all are in force.
    pub(super) fn is_laid(&self) -> bool {
        self.rules.iter().all(|(_, laid)| *laid == Laid::InForce)
    }

    /// Those in force.
    #[cfg(feature = "sim")]
    pub(super) fn in_force(&self) -> usize {
        self.rules.iter().filter(|(_, laid)| *laid == Laid::InForce).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::{Attr, Domain};
    use arrayvec::ArrayVec;

    fn base(priorities: &[u32]) -> Base {
        let rule = |priority: &u32| Rule {
            port: 0,
            attr: Attr { domain: Domain::Transfer, group: 0, priority: *priority },
            items: ArrayVec::new(),
            actions: ArrayVec::new(),
        };
        Base::new(priorities.iter().map(rule).collect())
    }

    /// Begins all that may be; their numbers.
    fn begin(base: &mut Base) -> Vec<usize> {
        let mut begun = Vec::new();
        while let Some((number, _)) = base.next() {
            base.begun(number);
            begun.push(number);
        }
        begun
    }

    #[test]
    fn what_keeps_packets_for_software_comes_first() {
        let mut base = base(&[0, 1, 0, 1]);
        assert_eq!(begin(&mut base), [0, 1]);
        base.ended(0, true);
        assert_eq!(begin(&mut base), [], "one of them is not there yet");
        base.ended(1, false);
        assert_eq!(begin(&mut base), [1], "and is tried again");
        base.ended(1, true);
        assert_eq!(begin(&mut base), [2, 3]);
        base.ended(3, true);
        assert!(!base.is_laid());
        base.ended(2, true);
        assert!(base.is_laid());
        base.forget();
        assert_eq!(begin(&mut base), [0, 1], "nothing is there any more");
    }
}
