//! Where to look for a hash: linear hashing (W. Litwin, "Linear Hashing: A New Tool for File and Table
//! Addressing", VLDB 1980) over buckets of one cache line.
//!
//! A bucket holds seven pairs of a tag and the number of an entry. The tag is all of the hash there is, so
//! that growing reads no entry. There are always `level + split` buckets, `split < level`, `level` a power
//! of two: the first `split` have been split in two, the second half of each being `level` further on.
//! Growing by a bucket splits the next one and appends its second half; shrinking undoes it. A tag's bucket
//! is thus always exactly one, whatever the state of growth, and no operation handles more than
//! [`BUCKETS_PER_STEP`] of them.
//!
//! A full bucket overflows into a chain of further ones. All room is in the chain's first overflow bucket, or
//! in the home bucket if there is none.

use super::chunked::Chunked;
use dataplane::prefetch::prefetch;

/// Pairs a bucket holds; what is left of the cache line links the chain.
const SLOTS: usize = 7;
/// Entries a bucket from which on buckets are split. At 4, one in 20 overflows (Poisson); splitting all takes
/// a quarter as many insertions as there are buckets, so it never gets far beyond.
const LOAD_MAX: u32 = 4;
/// Buckets split by an insertion, or joined by a removal.
const BUCKETS_PER_STEP: u32 = 4;
/// Pairs moved by a step after which it ends before its number of buckets.
const MOVES_PER_STEP: usize = 32;
/// The highest `level`.
const LEVEL_MAX: u32 = 1 << 29;
/// Overflow buckets given back per operation once none is used.
const TRIM_PER_STEP: u32 = 16;

/// A hash: its low bits choose the bucket. 0 is kept for "no pair here".
pub(super) type Tag = u32;

/// A cache line of pairs.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Bucket {
    /// 0 where there is none; the pairs come first. The last is never used: eight make two vectors.
    tags: [Tag; SLOTS + 1],
    entries: [u32; SLOTS],
    /// The next in the chain: its place in the overflow + 1, or 0.
    more: u32,
}

const _: () = assert!(size_of::<Bucket>() == 64);

impl Bucket {
    const EMPTY: Bucket = Bucket { tags: [0; SLOTS + 1], entries: [0; SLOTS], more: 0 };

    /// Which slots hold the tag, as bits.
    #[inline(always)]
    fn holding(&self, tag: Tag) -> u32 {
        let mut bits = 0;
        for (slot, &held) in self.tags.iter().enumerate() {
            bits |= u32::from(held == tag) << slot;
        }
        bits
    }

    /// The number of pairs.
    #[inline]
    fn len(&self) -> usize {
        self.holding(0).trailing_zeros() as usize
    }

    fn pairs(&self) -> impl Iterator<Item = (Tag, u32)> + use<> {
        self.tags.into_iter().zip(self.entries).take(self.len())
    }

    /// Adds a pair, if there is room.
    #[inline]
    fn push(&mut self, tag: Tag, entry: u32) -> bool {
        let len = self.len();
        if len < SLOTS {
            self.tags[len] = tag;
            self.entries[len] = entry;
        }
        len < SLOTS
    }

    /// Takes the last pair away.
    fn pop(&mut self) -> Option<(Tag, u32)> {
        let last = self.len().checked_sub(1)?;
        let pair = (self.tags[last], self.entries[last]);
        self.tags[last] = 0;
        Some(pair)
    }
}

/// A bucket, wherever it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Home(u32),
    Overflow(u32),
}

/// What a look at a tag's home bucket alone says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Glance {
    /// No pair has this tag.
    Nothing,
    /// The first pair with this tag leads to this entry.
    Entry(u32),
    /// Only the rest of the chain can tell.
    Further,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Buckets {
    home: Chunked<Bucket>,
    level: u32,
    split: u32,
    overflow: Chunked<Bucket>,
    /// Overflow buckets that are on no chain, linked by `more`: the first's place + 1, or 0.
    free: u32,
    /// Overflow buckets below this have been used since all were free; those at and above it are not linked.
    fresh: u32,
    /// Overflow buckets on chains.
    used: u32,
}

impl Buckets {
    pub(super) fn new() -> Buckets {
        let mut home = Chunked::new();
        home.push(Bucket::EMPTY);
        Buckets { home, level: 1, split: 0, overflow: Chunked::new(), free: 0, fresh: 0, used: 0 }
    }

    /// Has memory ready for so many pairs: as many buckets as [`Buckets::grow`] makes of them.
    pub(super) fn reserve(&mut self, pairs: u32) {
        self.home.reserve((pairs / LOAD_MAX).next_power_of_two(), Bucket::EMPTY);
    }

    /// The bucket a tag is in, unless that has overflown.
    #[inline(always)]
    fn home_of(&self, tag: Tag) -> u32 {
        let fine = 2 * self.level - 1;
        let missing = tag & fine >= self.level + self.split;
        // Half of the tags would take a branch; a shift is none.
        tag & (fine >> u32::from(missing))
    }

    /// Asks for the cache line that [`glance`](Self::glance) will read.
    #[inline(always)]
    pub(super) fn prefetch(&self, tag: Tag) {
        prefetch(&self.home[self.home_of(tag)]);
    }

    /// What the home bucket says of a tag.
    #[inline(always)]
    pub(super) fn glance(&self, tag: Tag) -> Glance {
        let bucket = &self.home[self.home_of(tag)];
        let holding = bucket.holding(tag);
        if holding != 0 {
            Glance::Entry(bucket.entries[holding.trailing_zeros() as usize % SLOTS])
        } else if bucket.more != 0 {
            Glance::Further
        } else {
            Glance::Nothing
        }
    }

    /// The entry of a pair with this tag that is `wanted`.
    #[inline]
    pub(super) fn find(&self, tag: Tag, mut wanted: impl FnMut(u32) -> bool) -> Option<u32> {
        let mut bucket = &self.home[self.home_of(tag)];
        loop {
            let mut holding = bucket.holding(tag);
            while holding != 0 {
                let entry = bucket.entries[holding.trailing_zeros() as usize % SLOTS];
                if wanted(entry) {
                    return Some(entry);
                }
                holding &= holding - 1;
            }
            bucket = &self.overflow[bucket.more.checked_sub(1)?];
        }
    }

    /// Adds a pair.
    pub(super) fn insert(&mut self, tag: Tag, entry: u32) {
        debug_assert_ne!(tag, 0);
        let home = self.home_of(tag);
        let more = self.home[home].more;
        let open = if more == 0 { Place::Home(home) } else { Place::Overflow(more - 1) };
        if self.at_mut(open).push(tag, entry) {
            return;
        }
        let mut bucket = Bucket { more, ..Bucket::EMPTY };
        bucket.push(tag, entry);
        self.home[home].more = self.take_overflow(bucket) + 1;
    }

    /// Takes a pair away. Returns whether it was there.
    pub(super) fn remove(&mut self, tag: Tag, entry: u32) -> bool {
        let Some((hole, slot)) = self.locate(tag, entry) else { return false };
        let home = self.home_of(tag);
        let more = self.home[home].more;
        let donor = if more == 0 { Place::Home(home) } else { Place::Overflow(more - 1) };
        if let Some((tag, entry)) = self.at_mut(donor).pop() {
            // The pair itself may have been the donor's last.
            if hole != donor || slot < self.at(donor).len() {
                let hole = self.at_mut(hole);
                hole.tags[slot] = tag;
                hole.entries[slot] = entry;
            }
        }
        if more != 0 && self.at(donor).len() == 0 {
            self.home[home].more = self.at(donor).more;
            self.free_overflow(more - 1);
        }
        true
    }

    /// Leads a pair to another entry.
    pub(super) fn redirect(&mut self, tag: Tag, from: u32, to: u32) {
        if let Some((place, slot)) = self.locate(tag, from) {
            self.at_mut(place).entries[slot] = to;
        }
    }

    /// Splits some buckets if they are too full on average, for this many pairs. To be called once per
    /// insertion. Returns the pairs moved.
    pub(super) fn grow(&mut self, pairs: u32) -> usize {
        let mut moved = 0;
        for _ in 0..BUCKETS_PER_STEP {
            if pairs / LOAD_MAX < self.level || self.level >= LEVEL_MAX || moved >= MOVES_PER_STEP {
                break;
            }
            let halved = std::mem::replace(&mut self.home[self.split], Bucket::EMPTY);
            self.home.push(Bucket::EMPTY);
            self.split += 1;
            if self.split == self.level {
                self.level *= 2;
                self.split = 0;
            }
            moved += self.rehome(&halved);
        }
        moved
    }

    /// Joins some buckets if there are too many, for this many pairs. To be called once per removal. Returns
    /// the pairs moved.
    pub(super) fn shrink(&mut self, pairs: u32) -> usize {
        let mut moved = 0;
        for _ in 0..BUCKETS_PER_STEP {
            let finest = if self.split == 0 { self.level } else { 2 * self.level };
            if finest == 1 || pairs >= finest || moved >= MOVES_PER_STEP {
                break;
            }
            if self.split == 0 {
                self.level /= 2;
                self.split = self.level;
            }
            self.split -= 1;
            if let Some(joined) = self.home.pop() {
                moved += self.rehome(&joined);
            }
        }
        for _ in 0..TRIM_PER_STEP {
            if self.fresh >= self.overflow.len() {
                break;
            }
            self.overflow.pop();
        }
        moved
    }

    /// Inserts the pairs of a chain, whose first bucket has been taken out, where they now belong.
    fn rehome(&mut self, first: &Bucket) -> usize {
        let mut bucket = *first;
        let mut moved = 0;
        loop {
            for (tag, entry) in bucket.pairs() {
                self.insert(tag, entry);
                moved += 1;
            }
            let Some(next) = bucket.more.checked_sub(1) else { return moved };
            bucket = self.overflow[next];
            self.free_overflow(next);
        }
    }

    fn locate(&self, tag: Tag, entry: u32) -> Option<(Place, usize)> {
        let mut place = Place::Home(self.home_of(tag));
        loop {
            let bucket = self.at(place);
            let mut holding = bucket.holding(tag);
            while holding != 0 {
                let slot = holding.trailing_zeros() as usize % SLOTS;
                if bucket.entries[slot] == entry {
                    return Some((place, slot));
                }
                holding &= holding - 1;
            }
            place = Place::Overflow(bucket.more.checked_sub(1)?);
        }
    }

    fn at(&self, place: Place) -> &Bucket {
        match place {
            Place::Home(at) => &self.home[at],
            Place::Overflow(at) => &self.overflow[at],
        }
    }

    fn at_mut(&mut self, place: Place) -> &mut Bucket {
        match place {
            Place::Home(at) => &mut self.home[at],
            Place::Overflow(at) => &mut self.overflow[at],
        }
    }

    fn take_overflow(&mut self, bucket: Bucket) -> u32 {
        self.used += 1;
        let at = if let Some(free) = self.free.checked_sub(1) {
            self.free = self.overflow[free].more;
            free
        } else {
            if self.fresh == self.overflow.len() {
                self.overflow.push(Bucket::EMPTY);
            }
            self.fresh += 1;
            self.fresh - 1
        };
        self.overflow[at] = bucket;
        at
    }

    fn free_overflow(&mut self, at: u32) {
        self.overflow[at] = Bucket { more: self.free, ..Bucket::EMPTY };
        self.free = at + 1;
        self.used -= 1;
        if self.used == 0 {
            self.free = 0;
            self.fresh = 0;
        }
    }
}

#[cfg(test)]
impl Buckets {
    /// How many pairs the longest chain has.
    pub(super) fn longest(&self) -> usize {
        let length = |home| {
            let mut bucket = &self.home[home];
            let mut pairs = bucket.len();
            while let Some(next) = bucket.more.checked_sub(1) {
                bucket = &self.overflow[next];
                pairs += bucket.len();
            }
            pairs
        };
        (0..self.home.len()).map(length).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::classifier::projection::{hash, secrets};

    fn tag(n: u32) -> Tag {
        (hash(&[n.into()], &secrets(1)) >> 33) as Tag | 1 << 30
    }

    /// Nobody waits for a table to grow: this is the module's promise.
    #[test]
    fn no_operation_moves_much() {
        let mut buckets = Buckets::new();
        let mut most = 0;
        let mut buckets_before = 1;
        for n in 0..200_000 {
            buckets.insert(tag(n), n);
            most = most.max(buckets.grow(n + 1));
            assert!(buckets.home.len() - buckets_before <= BUCKETS_PER_STEP);
            buckets_before = buckets.home.len();
        }
        assert!(most <= 64, "{most} pairs moved by one insertion");
        assert!((0..200_000).all(|n| buckets.find(tag(n), |entry| entry == n) == Some(n)));
        for n in 0..200_000 {
            assert!(buckets.remove(tag(n), n));
            most = most.max(buckets.shrink(200_000 - n - 1));
            assert!(buckets_before - buckets.home.len() <= BUCKETS_PER_STEP);
            buckets_before = buckets.home.len();
        }
        assert!(most <= 64, "{most} pairs moved by one removal");
        assert_eq!(buckets.home.len(), 1);
        assert_eq!(buckets.used, 0);
        for _ in 0..buckets.overflow.len() {
            buckets.shrink(0);
        }
        assert_eq!(buckets.overflow.len(), 0, "what is not used is given back");
    }

    #[test]
    fn stays_as_full_as_it_should() {
        let mut buckets = Buckets::new();
        for n in 0..100_000 {
            buckets.insert(tag(n), n);
            buckets.grow(n + 1);
            let (homes, overflows) = (buckets.home.len(), buckets.overflow.len());
            assert!(n < 100 || n < homes * (LOAD_MAX + 1), "{homes} buckets for {n}");
            assert!(n < 100 || homes <= n, "{homes} buckets for {n}");
            assert!(n < 1000 || overflows * 8 < homes, "{overflows} of {homes} overflow");
        }
    }

    /// Whatever the chain's length and the place within it.
    #[test]
    fn chains_lose_and_gain_pairs_anywhere() {
        for removed in 0..40 {
            let mut buckets = Buckets::new();
            for n in 0..40 {
                buckets.insert(77, n);
            }
            assert!(!buckets.remove(77, 40));
            assert!(!buckets.remove(78, 0));
            assert!(buckets.remove(77, removed));
            assert!(!buckets.remove(77, removed));
            for n in 0..40 {
                assert_eq!(buckets.find(77, |entry| entry == n).is_some(), n != removed);
            }
            assert_eq!(buckets.used, 5, "39 pairs: one home and five overflow buckets");
            buckets.insert(77, removed);
            buckets.redirect(77, removed, 100);
            assert_eq!(buckets.find(77, |entry| entry == 100), Some(100));
            assert_eq!(buckets.find(77, |entry| entry == removed), None);
        }
    }
}
