//! Totals that stay true when slots change hands.
//!
//! Workers count by slot, and a slot serves one service or backend after another as the configuration
//! changes. A [`Ledger`] remembers what a slot's counters showed when its present owner moved in, and what
//! an owner had counted in a slot it has left, so that the totals of a name neither jump nor go back.

use std::collections::HashMap;
use std::hash::Hash;

/// The slots of one kind, with `N` counters each, and who owns them.
#[derive(Debug)]
pub(crate) struct Ledger<K, const N: usize> {
    slots: Vec<Slot<K, N>>,
    past: HashMap<K, [u64; N]>,
}

#[derive(Debug)]
struct Slot<K, const N: usize> {
    owner: Option<K>,
    /// What the counters showed when the owner moved in.
    base: [u64; N],
}

impl<K: Hash + Eq + Clone, const N: usize> Ledger<K, N> {
    /// Slots that nobody owns.
    pub(crate) fn new(slots: usize) -> Ledger<K, N> {
        let vacant = || Slot { owner: None, base: [0; N] };
        Ledger { slots: std::iter::repeat_with(vacant).take(slots).collect(), past: HashMap::new() }
    }

    /// From now on the slots belong to `owners`; a slot not among them is vacant. `raw` tells what a slot's
    /// counters show now.
    pub(crate) fn assign(
        &mut self,
        owners: impl IntoIterator<Item = (usize, K)>,
        raw: impl Fn(usize) -> [u64; N],
    ) {
        let mut next: Vec<Option<K>> = vec![None; self.slots.len()];
        for (slot, owner) in owners {
            if let Some(next) = next.get_mut(slot) {
                *next = Some(owner);
            }
        }
        let past_max = self.slots.len() * 2;
        for (index, (slot, next)) in self.slots.iter_mut().zip(next).enumerate() {
            if slot.owner == next {
                continue;
            }
            let now = raw(index);
            if let Some(gone) = slot.owner.take() {
                // Names that never come back must not pile up; counters of the rest restart, which
                // Prometheus takes for a restart.
                if self.past.len() >= past_max {
                    self.past.clear();
                }
                let past = self.past.entry(gone).or_insert([0; N]);
                *past = sum(*past, difference(now, slot.base));
            }
            *slot = Slot { owner: next, base: now };
        }
    }

    /// The totals of a slot's owner, given what the slot's counters show now.
    pub(crate) fn totals(&self, slot: usize, raw: [u64; N]) -> [u64; N] {
        let Some(slot) = self.slots.get(slot) else { return [0; N] };
        let past = slot.owner.as_ref().and_then(|owner| self.past.get(owner)).copied();
        sum(past.unwrap_or([0; N]), difference(raw, slot.base))
    }

    /// The totals of each owner: of all slots it has and had.
    pub(crate) fn by_owner(&self, raw: impl Fn(usize) -> [u64; N]) -> HashMap<K, [u64; N]> {
        let mut totals = self.past.clone();
        for (index, slot) in self.slots.iter().enumerate() {
            let Some(owner) = &slot.owner else { continue };
            let total = totals.entry(owner.clone()).or_insert([0; N]);
            *total = sum(*total, difference(raw(index), slot.base));
        }
        totals
    }
}

fn sum<const N: usize>(a: [u64; N], b: [u64; N]) -> [u64; N] {
    std::array::from_fn(|i| a[i].wrapping_add(b[i]))
}

fn difference<const N: usize>(a: [u64; N], b: [u64; N]) -> [u64; N] {
    std::array::from_fn(|i| a[i].saturating_sub(b[i]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_total_wherever_it_lives() {
        let mut ledger: Ledger<&str, 1> = Ledger::new(2);
        ledger.assign([(0, "a"), (1, "b")], |_| [0]);
        assert_eq!((ledger.totals(0, [10]), ledger.totals(1, [20])), ([10], [20]));

        // "a" leaves, "c" takes its slot and starts from nothing; "b" is not disturbed.
        ledger.assign([(0, "c"), (1, "b")], |slot| [[10], [25]][slot]);
        assert_eq!((ledger.totals(0, [13]), ledger.totals(1, [26])), ([3], [26]));

        // "a" comes back elsewhere and goes on from where it was.
        ledger.assign([(0, "c"), (1, "a")], |slot| [[13], [26]][slot]);
        assert_eq!((ledger.totals(0, [14]), ledger.totals(1, [27])), ([4], [11]));
    }

    #[test]
    fn a_vacant_slot_keeps_nothing_back() {
        let mut ledger: Ledger<&str, 1> = Ledger::new(1);
        ledger.assign([(0, "a")], |_| [0]);
        ledger.assign([], |_| [5]);
        ledger.assign([(0, "a")], |_| [5]);
        assert_eq!(ledger.totals(0, [6]), [6]);
    }

    #[test]
    fn names_that_are_gone_do_not_pile_up() {
        let mut ledger: Ledger<u32, 1> = Ledger::new(4);
        for name in 0..1000 {
            ledger.assign([(0, name)], |_| [u64::from(name)]);
            assert!(ledger.past.len() <= 8);
        }
    }

    proptest::proptest! {
        /// Whatever moves where, a name's total is what was counted while it owned a slot.
        #[test]
        fn totals_follow_a_model(steps in proptest::collection::vec((0usize..4, 0u8..6, 0u64..100), 1..200)) {
            let mut ledger: Ledger<u8, 1> = Ledger::new(4);
            let (mut owners, mut raw) = ([None; 4], [0u64; 4]);
            let mut model = [0u64; 6];
            for (slot, name, counted) in steps {
                // A name lives in one slot at a time; moving it vacates the one before.
                owners.iter_mut().filter(|owner| **owner == Some(name)).for_each(|owner| *owner = None);
                owners[slot] = Some(name);
                let named = owners.iter().enumerate().filter_map(|(slot, owner)| Some((slot, (*owner)?)));
                ledger.assign(named, |slot| [raw[slot]]);
                raw[slot] += counted;
                model[usize::from(name)] += counted;
                for (slot, owner) in owners.iter().enumerate() {
                    let expected = owner.map_or(0, |name| model[usize::from(name)]);
                    let total = owner.map_or([0], |_| ledger.totals(slot, [raw[slot]]));
                    proptest::prop_assert_eq!(total, [expected]);
                }
            }
        }
    }
}
