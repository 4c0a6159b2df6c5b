//! Which tenant has most of something, known at all times: asked for each newcomer in a flood.

use crate::ids::TenantId;
use crate::limits::TENANTS_MAX;

/// Scores by tenant, and who leads.
pub(super) struct Leader {
    scores: Box<[u64]>,
    leader: usize,
    /// No other has more than this.
    others: u64,
    /// One more than the highest tenant that ever had a score.
    tenants: usize,
}

impl Leader {
    pub(super) fn new() -> Leader {
        Leader { scores: vec![0; TENANTS_MAX].into(), leader: 0, others: 0, tenants: 0 }
    }

    pub(super) fn score(&self, tenant: TenantId) -> u64 {
        self.scores.get(tenant.index()).copied().unwrap_or(0)
    }

    /// The tenant that has most; `tenant` if none has more.
    pub(super) fn richest(&self, tenant: TenantId) -> TenantId {
        let leads = self.scores.get(self.leader).is_some_and(|score| *score > self.score(tenant));
        if leads { TenantId(self.leader as u16) } else { tenant }
    }

    /// Gives a tenant another score. The others are looked through only where the leader comes down to what
    /// one of them may have.
    #[inline]
    pub(super) fn set(&mut self, tenant: TenantId, score: u64) {
        let at = tenant.index();
        let Some(place) = self.scores.get_mut(at) else { return };
        *place = score;
        self.tenants = self.tenants.max(at + 1);
        if at == self.leader {
            if score < self.others {
                self.look_again();
            }
        } else if score > self.scores[self.leader] {
            self.others = self.scores[self.leader];
            self.leader = at;
        } else {
            self.others = self.others.max(score);
        }
    }

    #[inline(never)]
    fn look_again(&mut self) {
        let (mut leader, mut others) = (0, 0);
        for (at, score) in self.scores.iter().enumerate().take(self.tenants).skip(1) {
            if *score > self.scores[leader] {
                (leader, others) = (at, self.scores[leader]);
            } else {
                others = others.max(*score);
            }
        }
        (self.leader, self.others) = (leader, others);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn nobody_has_more_than_the_richest(sets in prop::collection::vec((0u16..6, 0u64..9), 1..200)) {
            let mut leader = Leader::new();
            let mut scores = [0u64; 6];
            for (tenant, score) in sets {
                leader.set(TenantId(tenant), score);
                scores[usize::from(tenant)] = score;
                for asking in 0..6u16 {
                    let richest = leader.richest(TenantId(asking));
                    let most = scores.iter().max().copied().unwrap_or(0);
                    prop_assert_eq!(scores[richest.index()], most);
                    prop_assert!(scores[usize::from(asking)] < most || richest == TenantId(asking));
                }
            }
        }
    }
}
