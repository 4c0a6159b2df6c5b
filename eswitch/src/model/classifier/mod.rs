//! The rules of one group: tuple-space search, one hash table per mask, visited in priority order.
//!
//! A [matcher](Classifier::matcher) is a priority and a mask; its rules are values under that mask. A packet
//! visits the matchers one after another and takes the first rule that matches, so what comes first is what
//! wins: lower priority numbers first, and among equal ones as [`Order`] has it.
//!
//! 1. [`chunked`]: memory that grows and shrinks without stalls.
//! 2. [`buckets`]: from a hash to an entry.
//! 3. [`projection`]: what a mask leaves of a key, and its hash.
//! 4. [`table`]: the rules of one matcher.
//!
//! **Work is bounded.** No operation on a rule splits or joins more than four buckets or moves more than some
//! 60 pairs, of 8 bytes; none copies or frees a big table, and a table shrinks with its rules. Only adding
//! and removing a matcher takes time proportional to the number of matchers, which is small since each
//! packet has to visit them. Dropping a classifier that has rules frees all at once: remove them first.
//!
//! **Where it differs from mlx5:** there, a packet also visits matchers without rules. Here it does not, and
//! a matcher without rules that nobody holds is gone.

mod buckets;
mod chunked;
mod projection;
mod table;
#[cfg(test)]
mod tests;

use super::key::Key;
use super::refusal::{Cause, Errno, Refusal};
use super::types::RuleId;
use projection::{Secrets, secrets};
use table::{Pending, Rules, STAGE};

/// Which of two matchers of the same priority a packet visits first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// The one added last: SWS (rdma-core, `providers/mlx5/dr_matcher.c`, `dr_matcher_add_to_tbl`: before the
    /// first whose priority is not lower).
    NewestFirst,
    /// The one added first: HWS (DPDK 22.11, `drivers/net/mlx5/hws/mlx5dr_matcher.c`,
    /// `mlx5dr_matcher_connect`: before the first whose priority is higher).
    OldestFirst,
}

/// What happens to a rule whose matcher has one with the same value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Duplicates {
    /// It takes effect when all older ones are gone: SWS.
    OldWins,
    /// It takes effect at once, and the newest of the others when it is gone: HWS.
    NewWins,
    /// It is refused with EEXIST: SWS with `allow_duplicate_pattern=0`.
    Refuse,
}

/// A matcher. One that is gone is recognised, so holding on to one too long does no harm.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct MatcherId {
    slot: u32,
    generation: u32,
}

/// What there is to know of a matcher.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MatcherInfo<'a> {
    /// Its name.
    pub id: MatcherId,
    /// Its priority; 0 wins.
    pub priority: u32,
    /// The bits it compares.
    pub mask: &'a Key,
    /// Rules, duplicates included.
    pub rules: u32,
    /// Whether it stays when its last rule goes.
    pub held: bool,
}

/// The rules of one group. See the module.
#[derive(Debug)]
pub struct Classifier {
    order: Order,
    duplicates: Duplicates,
    secrets: Secrets,
    slots: Vec<Slot>,
    /// Slots without a matcher.
    vacant: Vec<u32>,
    /// All matchers, sorted: the order of visits.
    ranks: Vec<Rank>,
    /// All matchers that anyone can find, by hash, sorted.
    shared: Vec<(u64, u32)>,
    /// Matchers added so far.
    added: i64,
    rules: usize,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    matcher: Option<Matcher>,
}

#[derive(Debug)]
struct Matcher {
    table: Box<dyn Rules>,
    rank: Rank,
    /// `None` if only its owner knows it.
    hash: Option<u64>,
    mask: Key,
}

/// A matcher's place in the order of visits. The fields' order is the criteria's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Rank {
    priority: u32,
    /// The number added before it, negative if newer ones go first.
    age: i64,
    slot: u32,
}

impl Classifier {
    /// An empty one. The seed must be unknown to those who send packets.
    #[must_use]
    pub fn new(seed: u64, order: Order, duplicates: Duplicates) -> Classifier {
        Classifier {
            order,
            duplicates,
            secrets: secrets(seed),
            slots: Vec::new(),
            vacant: Vec::new(),
            ranks: Vec::new(),
            shared: Vec::new(),
            added: 0,
            rules: 0,
        }
    }

    /// The matcher of this priority and mask, added if there is none. It goes with its last rule, so a rule
    /// is to be inserted next.
    pub fn matcher(&mut self, priority: u32, mask: &Key) -> MatcherId {
        let hash = projection::hash(&mask.words, &self.secrets) ^ u64::from(priority);
        let first = self.shared.partition_point(|&(other, _)| other < hash);
        let found =
            self.shared[first..].iter().take_while(|&&(other, _)| other == hash).map(|&(_, slot)| slot).find(
                |&slot| {
                    let matcher = &self.slots[slot as usize].matcher;
                    matcher.as_ref().is_some_and(|m| m.rank.priority == priority && m.mask == *mask)
                },
            );
        match found {
            Some(slot) => MatcherId { slot, generation: self.slots[slot as usize].generation },
            None => {
                let id = self.add(priority, mask, Some(hash));
                self.shared.insert(first, (hash, id.slot));
                id
            }
        }
    }

    /// A matcher of its own, whatever others there are, as a template table has: it keeps its place without
    /// rules, until it is [released](Self::release). It has memory for so many.
    pub fn hold(&mut self, priority: u32, mask: &Key, rules: u32) -> MatcherId {
        let id = self.add(priority, mask, None);
        if let Some(matcher) = self.get_mut(id) {
            matcher.table.reserve(rules);
        }
        id
    }

    /// Gives a held matcher back. Returns false, and does nothing, if it is not held or has rules.
    pub fn release(&mut self, id: MatcherId) -> bool {
        let unused = self.get(id).is_some_and(|matcher| matcher.hash.is_none() && matcher.table.len() == 0);
        if unused {
            self.drop_matcher(id.slot);
        }
        unused
    }

    /// Adds a rule to a matcher. Bits of `value` outside the mask do not count. The rule must not be in this
    /// matcher with this value already.
    ///
    /// # Errors
    /// ENOENT if the matcher is gone, EEXIST for a duplicate under [`Duplicates::Refuse`], ENOMEM at 2^32 - 2
    /// rules.
    pub fn insert(&mut self, id: MatcherId, value: &Key, rule: RuleId) -> Result<(), Refusal> {
        let duplicates = self.duplicates;
        let Some(matcher) = self.get_mut(id) else {
            return Err(Refusal::new(Errno::Noent, Cause::Unspecified, "there is no such matcher"));
        };
        matcher.table.insert(value, rule, duplicates)?;
        self.rules += 1;
        Ok(())
    }

    /// Removes a rule. The duplicate that comes next, if any, takes its place. Returns whether it was there.
    pub fn remove(&mut self, id: MatcherId, value: &Key, rule: RuleId) -> bool {
        let Some(matcher) = self.get_mut(id) else { return false };
        if !matcher.table.remove(value, rule) {
            return false;
        }
        if matcher.table.len() == 0 && matcher.hash.is_some() {
            self.drop_matcher(id.slot);
        }
        self.rules -= 1;
        true
    }

    /// The bits that a matcher compares; `None` if it is gone.
    #[must_use]
    pub fn mask(&self, id: MatcherId) -> Option<&Key> {
        self.get(id).map(|matcher| &matcher.mask)
    }

    /// The rule that a packet takes.
    #[must_use]
    pub fn lookup(&self, key: &Key) -> Option<RuleId> {
        self.tables().find_map(|table| table.find(key))
    }

    /// The rules that packets take: the same as [`lookup`](Self::lookup) of each, in a fraction of the time.
    /// If the slices' lengths differ, what is beyond the shorter one is ignored.
    pub fn lookup_burst(&self, keys: &[&Key], hits: &mut [Option<RuleId>]) {
        for (keys, hits) in keys.chunks(STAGE).zip(hits.chunks_mut(STAGE)) {
            let number = keys.len().min(hits.len());
            hits[..number].fill(None);
            let mut pending: Pending = (0..number as u8).collect();
            for table in self.tables() {
                if pending.is_empty() {
                    break;
                }
                table.find_burst(keys, &mut pending, hits);
            }
        }
    }

    /// The number of rules, duplicates included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rules
    }

    /// Whether there are no rules.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules == 0
    }

    /// All matchers, in the order of visits, held ones without rules included.
    pub fn matchers(&self) -> impl Iterator<Item = MatcherInfo<'_>> {
        self.ranks.iter().filter_map(|rank| {
            let slot = &self.slots[rank.slot as usize];
            let matcher = slot.matcher.as_ref()?;
            Some(MatcherInfo {
                id: MatcherId { slot: rank.slot, generation: slot.generation },
                priority: rank.priority,
                mask: &matcher.mask,
                rules: matcher.table.len(),
                held: matcher.hash.is_none(),
            })
        })
    }

    /// The tables that have rules, in the order of visits.
    #[inline]
    fn tables(&self) -> impl Iterator<Item = &dyn Rules> {
        let matchers = self.ranks.iter().filter_map(|rank| self.slots[rank.slot as usize].matcher.as_ref());
        matchers.map(|matcher| &*matcher.table).filter(|table| table.len() != 0)
    }

    fn get(&self, id: MatcherId) -> Option<&Matcher> {
        let slot = self.slots.get(id.slot as usize)?;
        slot.matcher.as_ref().filter(|_| slot.generation == id.generation)
    }

    fn get_mut(&mut self, id: MatcherId) -> Option<&mut Matcher> {
        let slot = self.slots.get_mut(id.slot as usize)?;
        slot.matcher.as_mut().filter(|_| slot.generation == id.generation)
    }

    fn add(&mut self, priority: u32, mask: &Key, hash: Option<u64>) -> MatcherId {
        let slot = self.vacant.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, matcher: None });
            (self.slots.len() - 1) as u32
        });
        self.added += 1;
        let age = match self.order {
            Order::NewestFirst => -self.added,
            Order::OldestFirst => self.added,
        };
        let rank = Rank { priority, age, slot };
        let place = self.ranks.partition_point(|other| *other < rank);
        self.ranks.insert(place, rank);
        let table = table::table(mask, &self.secrets);
        let home = &mut self.slots[slot as usize];
        home.matcher = Some(Matcher { table, rank, hash, mask: *mask });
        MatcherId { slot, generation: home.generation }
    }

    fn drop_matcher(&mut self, slot: u32) {
        let home = &mut self.slots[slot as usize];
        let Some(matcher) = home.matcher.take() else { return };
        home.generation = home.generation.wrapping_add(1);
        self.vacant.push(slot);
        if let Ok(place) = self.ranks.binary_search(&matcher.rank) {
            self.ranks.remove(place);
        }
        if let Some(hash) = matcher.hash {
            let first = self.shared.partition_point(|&(other, _)| other < hash);
            if let Some(place) = self.shared[first..].iter().position(|&(_, other)| other == slot) {
                self.shared.remove(first + place);
            }
        }
    }
}
