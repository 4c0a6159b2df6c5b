//! The rules of one matcher: a hash table over the words its mask uses.
//!
//! [`Buckets`] leads from a hash to an entry; entries are dense, in a [`Chunked`] of their own, so that a
//! miss reads one cache line and a hit two or three. No operation moves more than a constant number of pairs
//! (see [`Buckets`]) or allocates or frees more than a few chunks.
//!
//! A table remembers in which bits all its rules agree ([`Common`]). A packet that differs in one of them is
//! turned away before anything is hashed or read: IPv4's rules cost IPv6 packets nothing.
//!
//! **Duplicates** are entries with the same words. One is found, the winner; the others are its shadows. All
//! are on one ring, the winner first, then in the order in which they would take over. A shadow has a tag of
//! its own, made from its rule as well and never equal to a winner's: any number of duplicates costs as
//! little to insert, remove and uncover as one.

use super::Duplicates;
use super::buckets::{Buckets, Glance, Tag};
use super::chunked::Chunked;
use super::projection::{Projection, Secrets, fold, words_of};
use crate::model::key::Key;
use crate::model::refusal::{Cause, Errno, Refusal};
use crate::model::types::RuleId;
use arrayvec::ArrayVec;
use dataplane::prefetch::prefetch;

/// Packets looked up at a time: enough to keep the memory busy, few enough for what is known of them to stay
/// in the first-level cache.
pub(super) const STAGE: usize = 32;

/// In a shadow's tag, and in no winner's.
const SHADOW: Tag = 1 << 31;

/// The most rules of one matcher.
const RULES_MAX: u32 = u32::MAX - 1;

/// Packets that no rule has matched yet, by their index.
pub(super) type Pending = ArrayVec<u8, STAGE>;

/// A [`Table`] of any width. The width is a constant of each so that the loops over it unroll; choosing among
/// them costs one indirect call for a burst.
pub(super) trait Rules: std::fmt::Debug + Send + Sync {
    /// Has memory ready for so many rules.
    fn reserve(&mut self, rules: u32);

    /// Adds a rule for a value, of which only the mask's bits count.
    fn insert(&mut self, value: &Key, rule: RuleId, duplicates: Duplicates) -> Result<(), Refusal>;

    /// Removes it. Returns whether it was there.
    fn remove(&mut self, value: &Key, rule: RuleId) -> bool;

    /// The rule that matches.
    fn find(&self, key: &Key) -> Option<RuleId>;

    /// Looks those keys up whose index is pending. Those found get their rule in `hits` and are pending no
    /// longer.
    fn find_burst(&self, keys: &[&Key], pending: &mut Pending, hits: &mut [Option<RuleId>]);

    /// The number of rules.
    fn len(&self) -> u32;
}

/// A table for this mask: the narrowest that holds it.
pub(super) fn table(mask: &Key, secrets: &Secrets) -> Box<dyn Rules> {
    match words_of(mask).count() {
        0..=1 => Box::new(Table::<1>::new(mask, secrets)),
        2 => Box::new(Table::<2>::new(mask, secrets)),
        3 => Box::new(Table::<3>::new(mask, secrets)),
        4 => Box::new(Table::<4>::new(mask, secrets)),
        5 => Box::new(Table::<5>::new(mask, secrets)),
        6 => Box::new(Table::<6>::new(mask, secrets)),
        7..=8 => Box::new(Table::<8>::new(mask, secrets)),
        9..=12 => Box::new(Table::<12>::new(mask, secrets)),
        _ => Box::new(Table::<{ crate::model::key::KEY_WORDS }>::new(mask, secrets)),
    }
}

/// A rule; up to six words fit into one cache line, and none begins in the middle of one.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Entry<const W: usize> {
    words: [u64; W],
    rule: RuleId,
    tag: Tag,
    /// Its neighbours on the ring of duplicates; itself, if it is alone.
    next: u32,
    previous: u32,
}

/// Bits in which all rules of a table agree; once two differ, that bit does not count until the table has
/// been empty.
#[derive(Debug)]
struct Common<const W: usize> {
    agreed: [u64; W],
    words: [u64; W],
}

impl<const W: usize> Common<W> {
    /// Of a table without rules: whatever comes first will do.
    const NONE: Common<W> = Common { agreed: [0; W], words: [0; W] };

    /// Takes a rule into account; `first`: the table is empty.
    fn add(&mut self, words: &[u64; W], first: bool) {
        if first {
            *self = Common { agreed: [u64::MAX; W], words: *words };
        }
        for ((agreed, common), word) in self.agreed.iter_mut().zip(&self.words).zip(words) {
            *agreed &= !(common ^ word);
        }
    }

    /// Whether a rule may have these words.
    #[inline(always)]
    fn admits(&self, words: &[u64; W]) -> bool {
        let differences = self.agreed.iter().zip(&self.words).zip(words);
        differences.fold(0, |sum, ((agreed, common), word)| sum | ((common ^ word) & agreed)) == 0
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Table<const W: usize> {
    projection: Projection<W>,
    common: Common<W>,
    buckets: Buckets,
    entries: Chunked<Entry<W>>,
}

/// What is known of a packet between two stages.
#[derive(Clone, Copy)]
struct Probe<const W: usize> {
    packet: u8,
    words: [u64; W],
    tag: Tag,
    glance: Glance,
}

impl<const W: usize> Table<W> {
    fn new(mask: &Key, secrets: &Secrets) -> Self {
        Table {
            projection: Projection::new(mask, secrets),
            common: Common::NONE,
            buckets: Buckets::new(),
            entries: Chunked::new(),
        }
    }

    /// The tag under which a winner is found.
    #[inline(always)]
    fn tag(&self, words: &[u64; W]) -> Tag {
        let tag = (self.projection.hash(words) >> 33) as Tag;
        // 0 is not a tag.
        if tag == 0 { 1 } else { tag }
    }

    #[inline(always)]
    fn winner(&self, tag: Tag, words: &[u64; W]) -> Option<u32> {
        self.buckets.find(tag, |entry| self.entries[entry].words == *words)
    }

    /// Adds an entry that is alone on its ring.
    fn push(&mut self, words: [u64; W], rule: RuleId, tag: Tag) -> u32 {
        let at = self.entries.len();
        self.common.add(&words, at == 0);
        self.entries.push(Entry { words, rule, tag, next: at, previous: at });
        self.buckets.insert(tag, at);
        self.buckets.grow(at + 1);
        at
    }

    /// Puts an entry that is alone before another on its ring.
    fn link(&mut self, at: u32, next: u32) {
        let previous = self.entries[next].previous;
        self.entries[at].next = next;
        self.entries[at].previous = previous;
        self.entries[previous].next = at;
        self.entries[next].previous = at;
    }

    /// Gives an entry another tag.
    fn retag(&mut self, at: u32, tag: Tag) {
        let old = std::mem::replace(&mut self.entries[at].tag, tag);
        self.buckets.remove(old, at);
        self.buckets.insert(tag, at);
    }

    /// Removes an entry, whatever its tag, and moves the last one into its place.
    fn extract(&mut self, at: u32) {
        let Entry { tag, next, previous, .. } = self.entries[at];
        self.buckets.remove(tag, at);
        self.entries[previous].next = next;
        self.entries[next].previous = previous;
        let Some(last) = self.entries.pop() else { return };
        let vacated = self.entries.len();
        if vacated != at {
            self.buckets.redirect(last.tag, vacated, at);
            self.entries[at] = last;
            if last.next == vacated {
                self.entries[at].next = at;
                self.entries[at].previous = at;
            } else {
                self.entries[last.next].previous = at;
                self.entries[last.previous].next = at;
            }
        }
        self.buckets.shrink(vacated);
    }
}

/// The tag under which a shadow is found.
fn shadow(winner: Tag, rule: RuleId) -> Tag {
    fold(u64::from(winner) << 32 | u64::from(rule.0), 0x9e37_79b9_7f4a_7c15) as Tag | SHADOW
}

impl<const W: usize> Rules for Table<W> {
    fn reserve(&mut self, rules: u32) {
        let none = Entry { words: [0; W], rule: RuleId(0), tag: 0, next: 0, previous: 0 };
        self.entries.reserve(rules, none);
        self.buckets.reserve(rules);
    }

    fn insert(&mut self, value: &Key, rule: RuleId, duplicates: Duplicates) -> Result<(), Refusal> {
        if self.entries.len() >= RULES_MAX {
            return Err(Refusal::new(Errno::Nomem, Cause::Unspecified, "the matcher is full"));
        }
        let words = self.projection.gather(value);
        let tag = self.tag(&words);
        let Some(winner) = self.winner(tag, &words) else {
            self.push(words, rule, tag);
            return Ok(());
        };
        match duplicates {
            Duplicates::Refuse => {
                return Err(Refusal::new(
                    Errno::Exist,
                    Cause::Unspecified,
                    "a rule matches the same already",
                ));
            }
            Duplicates::OldWins => {
                let at = self.push(words, rule, shadow(tag, rule));
                self.link(at, winner);
            }
            Duplicates::NewWins => {
                self.retag(winner, shadow(tag, self.entries[winner].rule));
                let at = self.push(words, rule, tag);
                self.link(at, winner);
            }
        }
        Ok(())
    }

    fn remove(&mut self, value: &Key, rule: RuleId) -> bool {
        let words = self.projection.gather(value);
        let tag = self.tag(&words);
        let Some(winner) = self.winner(tag, &words) else { return false };
        if self.entries[winner].rule == rule {
            let next = self.entries[winner].next;
            if next != winner {
                self.retag(next, tag);
            }
            self.extract(winner);
            return true;
        }
        let shadow = self.buckets.find(shadow(tag, rule), |entry| {
            let entry = &self.entries[entry];
            entry.rule == rule && entry.words == words
        });
        shadow.map(|shadow| self.extract(shadow)).is_some()
    }

    #[inline]
    fn find(&self, key: &Key) -> Option<RuleId> {
        let words = self.projection.gather(key);
        if !self.common.admits(&words) {
            return None;
        }
        self.winner(self.tag(&words), &words).map(|winner| self.entries[winner].rule)
    }

    fn find_burst(&self, keys: &[&Key], pending: &mut Pending, hits: &mut [Option<RuleId>]) {
        let mut probes = [Probe { packet: 0, words: [0; W], tag: 0, glance: Glance::Nothing }; STAGE];
        let mut number = 0;
        // Those that cannot match stay pending, before those that turn out not to.
        let mut missed = 0;
        for n in 0..pending.len() {
            let packet = pending[n];
            let words = self.projection.gather(keys[usize::from(packet)]);
            if self.common.admits(&words) {
                let tag = self.tag(&words);
                self.buckets.prefetch(tag);
                probes[number] = Probe { packet, words, tag, glance: Glance::Nothing };
                number += 1;
            } else {
                pending[missed] = packet;
                missed += 1;
            }
        }
        let probes = &mut probes[..number];
        for probe in probes.iter_mut() {
            probe.glance = self.buckets.glance(probe.tag);
            if let Glance::Entry(entry) = probe.glance {
                let entry = &self.entries[entry];
                prefetch(entry);
                if size_of::<Entry<W>>() > 64 {
                    prefetch(&entry.rule);
                    prefetch(&entry.words[W - 1]);
                }
            }
        }
        for probe in probes {
            let hit = match probe.glance {
                Glance::Nothing => None,
                Glance::Entry(entry) if self.entries[entry].words == probe.words => {
                    Some(self.entries[entry].rule)
                }
                _ => self.winner(probe.tag, &probe.words).map(|winner| self.entries[winner].rule),
            };
            hits[usize::from(probe.packet)] = hit;
            pending[missed] = probe.packet;
            missed += usize::from(hit.is_none());
        }
        pending.truncate(missed);
    }

    #[inline]
    fn len(&self) -> u32 {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::classifier::projection::secrets;

    /// If duplicates were all in one chain, each would cost a walk along it.
    #[test]
    fn duplicates_spread_over_the_buckets() {
        let mask = Key { words: [1; crate::model::key::KEY_WORDS] };
        for duplicates in [Duplicates::OldWins, Duplicates::NewWins] {
            let mut table = Table::<24>::new(&mask, &secrets(1));
            for n in 0..10_000 {
                assert_eq!(table.insert(&Key::default(), RuleId(n), duplicates), Ok(()));
            }
            assert!(table.buckets.longest() < 25, "{}", table.buckets.longest());
            let winners = (0..10_000).filter(|&at| table.entries[at].tag & SHADOW == 0);
            assert_eq!(winners.count(), 1);
        }
    }
}
