//! Each tenant's established connections, in a ring of its own: where room has to be made by a tenant's own,
//! they are at hand however many there are of others.
//!
//! Two links a slot, in memory that is not touched before there are tenants to tell apart. Connections that
//! were opened before are taken in later, some at a time.

use super::entry::NIL;
use crate::ids::TenantId;
use crate::limits::TENANTS_MAX;

/// The slots before and after, each one more than its number; 0, 0: in no ring.
type Links = [u32; 2];

pub(super) struct Rings {
    links: Box<[Links]>,
    /// By tenant: the slot to be offered next.
    hands: Box<[u32]>,
    on: bool,
    /// Slots from this one up to the second may be in no ring though they should be.
    behind: (u32, u32),
}

impl Rings {
    pub(super) fn new(slots: usize) -> Rings {
        let hands = vec![NIL; TENANTS_MAX].into();
        Rings { links: vec![[0; 2]; slots].into(), hands, on: false, behind: (0, 0) }
    }

    /// From now on there are rings; the slots below `taken` are yet to be taken in.
    pub(super) fn begin(&mut self, taken: u32) {
        if !self.on {
            (self.on, self.behind) = (true, (0, taken));
        }
    }

    /// The next slots that may have to be taken in, so many at most.
    pub(super) fn next_behind(&mut self, most: u32) -> std::ops::Range<u32> {
        let (from, to) = self.behind;
        let end = to.min(from.saturating_add(most));
        self.behind.0 = end;
        from..end
    }

    /// Whether every established connection is in a ring.
    pub(super) fn is_whole(&self) -> bool {
        self.on && !self.is_behind()
    }

    pub(super) fn is_behind(&self) -> bool {
        self.behind.0 < self.behind.1
    }

    /// Puts a slot into a tenant's ring, to be offered last, if there are rings and it is in none.
    #[inline]
    pub(super) fn link(&mut self, slot: u32, tenant: TenantId) {
        if self.on {
            self.link_on(slot, tenant);
        }
    }

    fn link_on(&mut self, slot: u32, tenant: TenantId) {
        let Some(hand) = self.hands.get_mut(tenant.index()) else { return };
        if self.links[slot as usize] != [0; 2] {
            return;
        }
        if *hand == NIL {
            *hand = slot;
            self.links[slot as usize] = [slot + 1; 2];
            return;
        }
        let next = *hand;
        let [prev, _] = self.links[next as usize];
        self.links[slot as usize] = [prev, next + 1];
        self.links[prev as usize - 1][1] = slot + 1;
        self.links[next as usize][0] = slot + 1;
    }

    /// Takes a slot out of its tenant's ring, if it is in it.
    #[inline]
    pub(super) fn unlink(&mut self, slot: u32, tenant: TenantId) {
        if self.on {
            self.unlink_on(slot, tenant);
        }
    }

    fn unlink_on(&mut self, slot: u32, tenant: TenantId) {
        let [prev, next] = std::mem::take(&mut self.links[slot as usize]);
        let Some(hand) = self.hands.get_mut(tenant.index()).filter(|_| next != 0) else { return };
        if next == slot + 1 {
            *hand = NIL;
            return;
        }
        self.links[prev as usize - 1][1] = next;
        self.links[next as usize - 1][0] = prev;
        if *hand == slot {
            *hand = next - 1;
        }
    }

    /// A tenant's next few slots, each once.
    pub(super) fn offered(&self, tenant: TenantId, most: usize) -> impl Iterator<Item = u32> + '_ {
        let first = self.hands.get(tenant.index()).copied().filter(|hand| *hand != NIL);
        let next = move |slot: &u32| {
            let next = self.links[*slot as usize][1] - 1;
            (Some(next) != first).then_some(next)
        };
        std::iter::successors(first, next).take(most)
    }

    /// Those were offered: others are next.
    pub(super) fn advance(&mut self, tenant: TenantId, by: usize) {
        let Some(&hand) = self.hands.get(tenant.index()).filter(|hand| **hand != NIL) else { return };
        let next = (0..by).fold(hand, |slot, _| self.links[slot as usize][1] - 1);
        self.hands[tenant.index()] = next;
    }

    /// Writes to every page of the links what is there: for a start, when no packet waits.
    pub(super) fn settle(&mut self) {
        const STRIDE: usize = 4096 / size_of::<Links>();
        let touch = |links: &mut Links| links[0] = core::hint::black_box(links[0]);
        self.links.iter_mut().step_by(STRIDE).for_each(touch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        /// Rings beside sets: the same slots, each offered once in a round.
        #[test]
        fn rings_hold_what_they_should(steps in prop::collection::vec((0u8..3, 0u32..12, 0u16..3), 1..200)) {
            let mut rings = Rings::new(12);
            rings.begin(0);
            let mut sets = [const { BTreeSet::new() }; 3];
            for (step, slot, tenant) in steps {
                let elsewhere = sets.iter().position(|set: &BTreeSet<u32>| set.contains(&slot));
                match step {
                    0 if elsewhere.is_none_or(|at| at == usize::from(tenant)) => {
                        rings.link(slot, TenantId(tenant));
                        sets[usize::from(tenant)].insert(slot);
                    }
                    1 => {
                        let whose = elsewhere.unwrap_or(usize::from(tenant));
                        rings.unlink(slot, TenantId(whose as u16));
                        sets[whose].remove(&slot);
                    }
                    _ => rings.advance(TenantId(tenant), slot as usize),
                }
                for (tenant, set) in (0u16..).zip(&sets) {
                    let offered: Vec<u32> = rings.offered(TenantId(tenant), 100).collect();
                    prop_assert_eq!(offered.len(), set.len(), "each once");
                    prop_assert_eq!(&offered.into_iter().collect::<BTreeSet<_>>(), set);
                }
            }
        }
    }
}
