//! From a key's hash to a slot: a cuckoo table of cache-line buckets.
//!
//! A reference (slot and direction) may stand in one of two buckets. The first is its home, chosen by
//! the hash; the second is reached from the first by the reference's 16-bit tag alone, so that a
//! reference can be moved without reading the connection it belongs to. The step is an involution for
//! any number of buckets: `alternate(b) = (g(tag) - b) mod n`.
//!
//! New references go home while there is room, and each bucket counts how many of its own live in their
//! alternate, in eight classes by their tags. While the count of a tag's class is 0, a search that finds
//! nothing at home is over after one cache line: nearly always in a table filled to three quarters, and
//! seven times in ten in a full one.

use super::tags::{WAYS, ways_with};
use crate::flow::Direction;
use crate::prefetch::prefetch;

/// Buckets that an insertion looks at to find a way out of two full ones.
const SEARCH_MAX: usize = 256;
/// Share of the ways that capacity fills at most, percent. Ten ways and two choices go to 99, but at 95 an
/// insertion into a table that has seen some turnover reads three buckets on average, at 90 two.
const LOAD_MAX_PERCENT: usize = 90;
/// The least an index has (4 KiB). Of few buckets, the two that a tag leads to are often one and the same:
/// of two buckets, for every second tag, and eleven such references would be refused by an index with room.
const BUCKETS_MIN: usize = 64;

const DIRECTION_BIT: u32 = 1 << 31;
/// The reference stands in its alternate bucket.
const AWAY_BIT: u32 = 1 << 30;
const SLOT_BITS: u32 = AWAY_BIT - 1;

const _: () = assert!(crate::limits::CONNECTIONS_MAX <= AWAY_BIT as usize);

/// What the index finds: a slot and which of its keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Reference(u32);

impl Reference {
    /// None: no table has so many slots.
    pub(super) const NONE: Reference = Reference(SLOT_BITS);

    #[inline]
    pub(super) fn new(slot: u32, direction: Direction) -> Reference {
        Reference(slot | if direction == Direction::Reply { DIRECTION_BIT } else { 0 })
    }

    #[inline]
    pub(super) fn slot(self) -> u32 {
        self.0 & SLOT_BITS
    }

    #[inline]
    pub(super) fn direction(self) -> Direction {
        if self.0 & DIRECTION_BIT != 0 { Direction::Reply } else { Direction::Original }
    }

    #[inline]
    fn is_away(self) -> bool {
        self.0 & AWAY_BIT != 0
    }

    #[inline]
    fn moved(self) -> Reference {
        Reference(self.0 ^ AWAY_BIT)
    }

    #[inline]
    fn same(self, other: Reference) -> bool {
        (self.0 ^ other.0) & !AWAY_BIT == 0
    }
}

/// One cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Bucket {
    /// 0: the way is free.
    tags: [u16; WAYS],
    /// References whose home is here and that stand in their alternate.
    away: Away,
    references: [u32; WAYS],
}

const _: () = assert!(core::mem::size_of::<Bucket>() == 64);

impl Bucket {
    const EMPTY: Bucket = Bucket { tags: [0; WAYS], away: Away(0), references: [0; WAYS] };

    #[inline]
    fn search(&self, tag: u16, accept: &mut impl FnMut(Reference) -> bool) -> Option<Reference> {
        let mut ways = ways_with(&self.tags, tag);
        while ways != 0 {
            let reference = Reference(self.references[ways.trailing_zeros() as usize % WAYS]);
            if accept(reference) {
                return Some(reference);
            }
            ways &= ways - 1;
        }
        None
    }

    #[inline]
    fn free_way(&self) -> Option<usize> {
        let ways = ways_with(&self.tags, 0);
        (ways != 0).then(|| ways.trailing_zeros() as usize)
    }
}

/// Counts of tags, in eight classes of four bits each. A count that reaches 15 stays there, as it is no
/// longer known; that takes sixteen references of one class away from one home.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
struct Away(u32);

impl Away {
    const LOST_COUNT: u32 = 15;

    #[inline]
    const fn shift(tag: u16) -> u32 {
        (tag as u32 & 7) * 4
    }

    #[inline]
    const fn count(self, tag: u16) -> u32 {
        self.0 >> Away::shift(tag) & Away::LOST_COUNT
    }

    fn add(&mut self, tag: u16) {
        if self.count(tag) != Away::LOST_COUNT {
            self.0 += 1 << Away::shift(tag);
        }
    }

    fn subtract(&mut self, tag: u16) {
        if self.count(tag) != Away::LOST_COUNT {
            self.0 -= 1 << Away::shift(tag);
        }
    }
}

/// A bucket reached by a search for room, and from where.
#[derive(Clone, Copy)]
struct Step {
    bucket: u32,
    /// The step before, and the way there whose reference could move here.
    from: u16,
    way: u8,
}

const ROOT: u16 = u16::MAX;

/// The two-choice index.
pub(super) struct Index {
    buckets: Box<[Bucket]>,
}

impl Index {
    /// An index with room for this many references.
    pub(super) fn new(references: usize) -> Index {
        let ways = references * 100 / LOAD_MAX_PERCENT;
        Index::of_buckets(ways.div_ceil(WAYS).max(BUCKETS_MIN))
    }

    /// One of a given size; of less than two buckets there is none.
    pub(super) fn of_buckets(buckets: usize) -> Index {
        debug_assert!(buckets >= 2);
        Index { buckets: vec![Bucket::EMPTY; buckets].into_boxed_slice() }
    }

    #[inline]
    fn home(&self, hash: u64) -> u32 {
        scale((hash >> 32) as u32, self.buckets.len())
    }

    #[inline]
    pub(super) fn alternate(&self, bucket: u32, tag: u16) -> u32 {
        let sum = scale(u32::from(tag).wrapping_mul(0x9e37_79b1), self.buckets.len());
        let (difference, below) = sum.overflowing_sub(bucket);
        if below { difference.wrapping_add(self.buckets.len() as u32) } else { difference }
    }

    /// Asks for the line that a search for `hash` reads first.
    #[inline]
    pub(super) fn prefetch(&self, hash: u64) {
        prefetch(&self.buckets[self.home(hash) as usize]);
    }

    /// The first reference, home bucket first, whose tag fits and that `accept` takes.
    #[inline]
    pub(super) fn find(&self, hash: u64, mut accept: impl FnMut(Reference) -> bool) -> Option<Reference> {
        let (home, tag) = (self.home(hash), tag(hash));
        let bucket = &self.buckets[home as usize];
        let found = bucket.search(tag, &mut accept);
        if found.is_some() || bucket.away.count(tag) == 0 {
            return found;
        }
        self.find_away(home, tag, &mut accept)
    }

    #[inline(never)]
    fn find_away(
        &self,
        home: u32,
        tag: u16,
        accept: &mut impl FnMut(Reference) -> bool,
    ) -> Option<Reference> {
        self.buckets[self.alternate(home, tag) as usize].search(tag, accept)
    }

    /// Adds a reference; `false` if no room was found within a bounded search.
    pub(super) fn insert(&mut self, hash: u64, reference: Reference) -> bool {
        let (home, tag) = (self.home(hash), tag(hash));
        if self.put(home, tag, reference) {
            return true;
        }
        let alternate = self.alternate(home, tag);
        if self.put_away(home, alternate, tag, reference) {
            return true;
        }
        self.make_room(home, alternate)
            && (self.put(home, tag, reference) || self.put_away(home, alternate, tag, reference))
    }

    /// Takes a reference out; `false` if it was not there.
    pub(super) fn remove(&mut self, hash: u64, reference: Reference) -> bool {
        let (home, tag) = (self.home(hash), tag(hash));
        if self.take(home, tag, reference).is_some() {
            return true;
        }
        let alternate = self.alternate(home, tag);
        let taken = self.take(alternate, tag, reference);
        if taken.is_some() {
            self.buckets[home as usize].away.subtract(tag);
        }
        taken.is_some()
    }

    /// Bytes held.
    pub(super) fn memory_bytes(&self) -> usize {
        core::mem::size_of_val::<[Bucket]>(&self.buckets)
    }

    /// References that stand away from home.
    #[cfg(test)]
    pub(super) fn away_total(&self) -> usize {
        let counts = |away: Away| (0..8).map(|class| away.count(class) as usize).sum::<usize>();
        self.buckets.iter().map(|bucket| counts(bucket.away)).sum()
    }

    fn put(&mut self, bucket: u32, tag: u16, reference: Reference) -> bool {
        let bucket = &mut self.buckets[bucket as usize];
        let Some(way) = bucket.free_way() else { return false };
        bucket.tags[way] = tag;
        bucket.references[way] = reference.0;
        true
    }

    fn put_away(&mut self, home: u32, alternate: u32, tag: u16, reference: Reference) -> bool {
        let put = self.put(alternate, tag, reference.moved());
        if put {
            self.buckets[home as usize].away.add(tag);
        }
        put
    }

    fn take(&mut self, bucket: u32, tag: u16, reference: Reference) -> Option<Reference> {
        let bucket = &mut self.buckets[bucket as usize];
        let mut ways = ways_with(&bucket.tags, tag);
        while ways != 0 {
            let way = ways.trailing_zeros() as usize;
            if Reference(bucket.references[way]).same(reference) {
                bucket.tags[way] = 0;
                return Some(Reference(bucket.references[way]));
            }
            ways &= ways - 1;
        }
        None
    }

    /// Frees a way in one of two full buckets: a breadth-first search for the shortest chain of
    /// references that can each move to their other bucket.
    fn make_room(&mut self, home: u32, alternate: u32) -> bool {
        let mut steps = [Step { bucket: home, from: ROOT, way: 0 }; SEARCH_MAX];
        steps[1].bucket = alternate;
        let (mut next, mut end) = (0, 2);
        while next < end {
            let from = steps[next].bucket;
            // All the buckets that are one move away at once, or their lines would come one by one.
            for tag in self.buckets[from as usize].tags {
                prefetch(&self.buckets[self.alternate(from, tag) as usize]);
            }
            for way in 0..WAYS {
                let tag = self.buckets[from as usize].tags[way];
                let bucket = self.alternate(from, tag);
                let step = Step { bucket, from: next as u16, way: way as u8 };
                if self.buckets[bucket as usize].free_way().is_some() {
                    return self.shift(&steps, step);
                }
                if end < SEARCH_MAX {
                    steps[end] = step;
                    end += 1;
                }
            }
            next += 1;
        }
        false
    }

    /// Carries out a chain of moves, from its free end back to where room is wanted. Every single move
    /// is sound on its own, so a chain that crosses itself and stops half way leaves a sound table.
    fn shift(&mut self, steps: &[Step; SEARCH_MAX], last: Step) -> bool {
        let mut step = last;
        loop {
            let from = steps[usize::from(step.from)];
            if !self.relocate(from.bucket, usize::from(step.way), step.bucket) {
                return false;
            }
            if from.from == ROOT {
                return true;
            }
            step = from;
        }
    }

    fn relocate(&mut self, from: u32, way: usize, to: u32) -> bool {
        let bucket = &self.buckets[from as usize];
        let (tag, reference) = (bucket.tags[way], Reference(bucket.references[way]));
        if tag == 0 || self.alternate(from, tag) != to || !self.put(to, tag, reference.moved()) {
            return false;
        }
        self.buckets[from as usize].tags[way] = 0;
        if reference.is_away() {
            self.buckets[to as usize].away.subtract(tag);
        } else {
            self.buckets[from as usize].away.add(tag);
        }
        true
    }
}

/// A number below `n` in proportion to `value`, without a division.
#[inline]
fn scale(value: u32, n: usize) -> u32 {
    ((u64::from(value) * n as u64) >> 32) as u32
}

/// The tag of a hash: its low bits, never 0.
#[inline]
fn tag(hash: u64) -> u16 {
    (hash as u16).max(1)
}
