//! The rules of all domains: where they are kept, how they come and go.

use std::collections::BTreeMap;

use super::super::classifier::{Classifier, Duplicates, MatcherId, Order};
use super::super::key::{Key, Match};
use super::super::program::Edits;
use super::super::types::{AgeId, CounterId, Domain, MeterId, RuleHandle, RuleId, Steering, Vport};
use super::slab::Slab;

/// A group's place in [`Groups`], resolved when a rule is installed, so that a jump is an index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct GroupIndex(pub(super) u32);

/// One group of one domain.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) domain: Domain,
    pub(super) number: u32,
    pub(super) classifier: Classifier,
}

/// All groups that a rule is in or jumps to. They stay: an empty one is a miss.
#[derive(Debug)]
pub(super) struct Groups {
    by_name: BTreeMap<(u32, u32), GroupIndex>,
    list: Vec<Group>,
    order: Order,
    duplicates: Duplicates,
    seed: u64,
}

impl Groups {
    pub(super) fn new(steering: Steering, allow_duplicates: bool, seed: u64) -> Groups {
        let (order, duplicates) = match (steering, allow_duplicates) {
            (Steering::Software, true) => (Order::NewestFirst, Duplicates::OldWins),
            (Steering::Software, false) => (Order::NewestFirst, Duplicates::Refuse),
            (Steering::Hardware, _) => (Order::OldestFirst, Duplicates::NewWins),
        };
        Groups { by_name: BTreeMap::new(), list: Vec::new(), order, duplicates, seed }
    }

    /// Sorts the FDB before the representors.
    fn name(domain: Domain, number: u32) -> (u32, u32) {
        match domain {
            Domain::Fdb => (0, number),
            Domain::NicRx(vport) => (u32::from(vport.0) + 1, number),
        }
    }

    #[inline]
    pub(super) fn find(&self, domain: Domain, number: u32) -> Option<GroupIndex> {
        self.by_name.get(&Self::name(domain, number)).copied()
    }

    pub(super) fn find_or_add(&mut self, domain: Domain, number: u32) -> GroupIndex {
        if let Some(index) = self.find(domain, number) {
            return index;
        }
        let index = GroupIndex(self.list.len() as u32);
        let seed = self.seed.wrapping_add(u64::from(index.0));
        let classifier = Classifier::new(seed, self.order, self.duplicates);
        self.list.push(Group { domain, number, classifier });
        self.by_name.insert(Self::name(domain, number), index);
        index
    }

    #[inline]
    pub(super) fn get(&self, index: GroupIndex) -> &Group {
        &self.list[index.0 as usize]
    }

    #[inline]
    pub(super) fn get_mut(&mut self, index: GroupIndex) -> &mut Group {
        &mut self.list[index.0 as usize]
    }

    /// In the order people expect: the FDB, then the representors; groups by number.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Group> {
        self.by_name.values().map(|index| self.get(*index))
    }
}

/// Where a match goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Target {
    Vport(Vport),
    Group(GroupIndex),
    Drop,
    Queue(u16),
    /// One of these, by [`RssSets`].
    Queues(u32),
    /// No fate: as if nothing had matched (mark, then the default).
    Default,
}

/// Which meter a rule asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Metering {
    None,
    /// `rte_mtr`, with a policy.
    Policy(MeterId),
    /// The same with the default policy, in a rule that a shared counter counts: that comes after the meter,
    /// and so does the age, wherever the list has them (`flow_meter_split_prep`: only COUNT itself stays
    /// before the meter, and an indirect one has become another action by then).
    First(MeterId),
    /// `METER_MARK`.
    Mark(MeterId),
}

/// What a meter's policy does with a colour.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) edits: Edits,
    pub(super) target: Target,
}

/// A mirror and where it is in its ratio.
#[derive(Debug)]
pub(super) struct Mirroring {
    pub(super) ratio: u32,
    pub(super) seen: u32,
    pub(super) edits: Edits,
    pub(super) to: Vport,
}

/// A rule as it is installed. What every packet that hits it needs comes first, in one cache line.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Rule {
    pub(super) edits: Edits,
    pub(super) target: Target,
    pub(super) counter: Option<CounterId>,
    pub(super) age: Option<AgeId>,
    pub(super) metering: Metering,
    /// What a meter's policy does with green and with yellow packets, if it decides their fate.
    pub(super) policy: Option<Box<[Outcome]>>,
    pub(super) mirror: Option<Box<Mirroring>>,
    pub(super) port: Vport,
    pub(super) group: GroupIndex,
    /// Set when the classifier has it.
    pub(super) matcher: Option<MatcherId>,
    pub(super) generation: u32,
    /// The value's words that the matcher's mask uses.
    pub(super) value: Box<[u64]>,
}

const _: () = assert!(size_of::<Rule>() <= 128, "two cache lines");
const _: () = assert!(std::mem::offset_of!(Rule, metering) + size_of::<Metering>() <= 72);

/// All rules, by [`RuleId`].
pub(super) type Rules = Slab<Rule>;

/// The words of a value that its mask uses.
pub(super) fn squeeze(matching: &Match) -> Box<[u64]> {
    let used = matching.mask.words.iter().zip(&matching.value.words).filter(|(mask, _)| **mask != 0);
    used.map(|(_, value)| *value).collect()
}

/// The value that [`squeeze`] made these words of.
pub(super) fn expand(mask: &Key, words: &[u64]) -> Key {
    let mut words = words.iter();
    let mut value = Key::default();
    for (to, mask) in value.words.iter_mut().zip(&mask.words) {
        if *mask != 0 {
            *to = words.next().copied().unwrap_or_default();
        }
    }
    value
}

/// Bits of a handle's generation.
const GENERATION_BITS: u32 = 24;

/// The handle of a rule that the synchronous API made.
pub(super) fn handle_of(id: RuleId, generation: u32) -> Option<RuleHandle> {
    let generation = u64::from(generation % (1 << GENERATION_BITS));
    std::num::NonZeroU64::new(generation << 32 | (u64::from(id.0) + 1)).map(RuleHandle)
}

/// What a handle of the synchronous API says: slot and generation.
pub(super) fn parse_handle(handle: RuleHandle) -> Option<(RuleId, u32)> {
    let bits = handle.0.get();
    let id = ((bits & 0xffff_ffff) as u32).checked_sub(1)?;
    let (queue, generation) = (bits >> 56, (bits >> 32) as u32 % (1 << GENERATION_BITS));
    (queue == 0).then_some((RuleId(id), generation))
}

/// Sets of receive queues: a rule's own, or shared through an indirect handle.
#[derive(Debug)]
pub(super) struct RssSets {
    sets: Slab<RssSet>,
}

#[derive(Debug)]
struct RssSet {
    queues: Box<[u16]>,
    users: u32,
}

impl RssSets {
    pub(super) const fn new() -> RssSets {
        RssSets { sets: Slab::new() }
    }

    /// A new set with one user: its maker.
    pub(super) fn add(&mut self, queues: &[u16]) -> Option<u32> {
        self.sets.insert(RssSet { queues: queues.into(), users: 1 })
    }

    #[inline]
    pub(super) fn queues(&self, set: u32) -> &[u16] {
        self.sets.get(set).map_or(&[], |set| &set.queues)
    }

    /// Other queues for the rules that use a set; whether there is such a set.
    pub(super) fn change(&mut self, set: u32, queues: &[u16]) -> bool {
        self.sets.get_mut(set).map(|set| set.queues = queues.into()).is_some()
    }

    /// One user more; whether there is such a set.
    pub(super) fn hold(&mut self, set: u32) -> bool {
        self.sets.get_mut(set).map(|set| set.users += 1).is_some()
    }

    /// One user less; the last one takes the set with it.
    pub(super) fn release(&mut self, set: u32) {
        if let Some(found) = self.sets.get_mut(set) {
            found.users -= 1;
            if found.users == 0 {
                self.sets.remove(set);
            }
        }
    }

    /// Users besides the maker of an indirect handle.
    pub(super) fn users(&self, set: u32) -> Option<u32> {
        self.sets.get(set).map(|set| set.users)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_tell_slot_and_generation() {
        for (id, generation) in [(0, 0), (7, 3), (u32::MAX - 1, 0x00ff_ffff)] {
            let handle = handle_of(RuleId(id), generation).unwrap();
            assert_eq!(parse_handle(handle), Some((RuleId(id), generation)));
        }
        assert_eq!(handle_of(RuleId(1), 1 << 24), handle_of(RuleId(1), 0), "24 bits");
        let queued = RuleHandle(std::num::NonZeroU64::new(1 << 56 | 1).unwrap());
        assert_eq!(parse_handle(queued), None);
    }

    #[test]
    fn values_survive_squeezing() {
        let mut matching = Match::default();
        for (at, mask) in [(0, 0xff), (3, u64::MAX), (9, 1)] {
            matching.mask.words[at] = mask;
            matching.value.words[at] = 0x1234_5678_9abc_def1 & mask;
        }
        // A word that counts and is zero.
        matching.mask.words[11] = 0xf0;
        let words = squeeze(&matching);
        assert_eq!(words.len(), 4);
        assert_eq!(expand(&matching.mask, &words), matching.value);
    }
}
