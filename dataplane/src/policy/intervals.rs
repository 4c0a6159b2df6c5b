//! Which rules cover a value of one field: the values fall into intervals between the rules' bounds, and
//! all values of an interval are covered by the same rules.
//!
//! [`Intervals`] finds a value's interval and with it the number of a set of rules; [`Sets`] has the sets,
//! each of them once. A set is stored as the words of a bitmap that are not zero, with a head that says
//! which those are: most values are covered by few rules.

use core::hash::{BuildHasher, Hasher};
use core::ops::Range;
use foldhash::fast::FixedState;
use hashbrown::HashTable;

/// Bits of a word, and words that one word of a head describes.
pub(super) const WORD: usize = 64;

/// A set of rules, by its place in its field's [`Sets`].
pub(super) type SetId = u32;

/// The set that no rule is in.
pub(super) const NONE: SetId = 0;

/// 64 words of a set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Head {
    /// Which of them are not zero.
    pub(super) bits: u64,
    /// Where in [`Sets::words`] these are, in a row.
    start: u32,
}

/// The sets of one field.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Sets {
    /// Heads of one set.
    stride: usize,
    heads: Vec<Head>,
    words: Vec<u64>,
}

impl Sets {
    /// The heads of set `id`: each describes 64 words.
    #[inline]
    pub(super) fn heads(&self, id: SetId) -> &[Head] {
        let first = id as usize * self.stride;
        self.heads.get(first..first + self.stride).unwrap_or_default()
    }

    /// One of a head's words, which must be one that is not zero.
    #[inline]
    pub(super) fn word(&self, head: Head, bit: u32) -> u64 {
        let before = (head.bits & ((1 << bit) - 1)).count_ones();
        self.words.get((head.start + before) as usize).copied().unwrap_or(0)
    }

    /// Some of a head's words in a row, from `bit` on, all of which must be ones that are not zero.
    #[inline]
    pub(super) fn words(&self, head: Head, bit: u32, count: usize) -> &[u64] {
        let start = (head.start + (head.bits & ((1 << bit) - 1)).count_ones()) as usize;
        self.words.get(start..start + count).unwrap_or_default()
    }

    /// Bytes that the sets take.
    fn size(&self) -> usize {
        self.heads.len() * size_of::<Head>() + self.words.len() * size_of::<u64>()
    }
}

/// A field's sets take more memory than they may.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct TooLarge;

/// Collects the sets of one field.
pub(super) struct Builder {
    sets: Sets,
    known: HashTable<SetId>,
    /// The set being made: which rules are in it,
    current: Vec<u64>,
    /// and which words of that are not zero.
    marks: Vec<u64>,
    /// Bytes that the sets may take.
    size_max: usize,
}

impl Builder {
    /// For sets of rules below `bits`, which may take `size_max` bytes.
    pub(super) fn new(bits: usize, size_max: usize) -> Builder {
        let words = bits.div_ceil(WORD);
        let stride = words.div_ceil(WORD).max(1);
        let mut builder = Builder {
            sets: Sets { stride, heads: Vec::new(), words: Vec::new() },
            known: HashTable::new(),
            current: vec![0; words],
            marks: vec![0; stride],
            size_max,
        };
        // The empty set is the first, so that it is `NONE`.
        builder.append();
        builder.known.insert_unique(builder.hash(NONE), NONE, |_| 0);
        builder
    }

    /// Takes a rule into the set, or out of it.
    pub(super) fn toggle(&mut self, rule: u16) {
        let word = usize::from(rule) / WORD;
        self.current[word] ^= 1 << (usize::from(rule) % WORD);
        let mark = 1 << (word % WORD);
        match self.current[word] {
            0 => self.marks[word / WORD] &= !mark,
            _ => self.marks[word / WORD] |= mark,
        }
    }

    /// The number of the set as it is now.
    pub(super) fn intern(&mut self) -> Result<SetId, TooLarge> {
        let id = self.append();
        let hash = self.hash(id);
        let (sets, known) = (&self.sets, &mut self.known);
        if let Some(&same) = known.find(hash, |&other| equal(sets, id, other)) {
            let heads = id as usize * self.sets.stride;
            self.sets.words.truncate(self.sets.heads[heads].start as usize);
            self.sets.heads.truncate(heads);
            return Ok(same);
        }
        if self.sets.size() > self.size_max {
            return Err(TooLarge);
        }
        let Builder { sets, known, .. } = self;
        known.insert_unique(hash, id, |&other| hash_of(sets, other));
        Ok(id)
    }

    pub(super) fn finish(mut self) -> Sets {
        self.sets.heads.shrink_to_fit();
        self.sets.words.shrink_to_fit();
        self.sets
    }

    fn append(&mut self) -> SetId {
        let Builder { sets, current, marks, .. } = self;
        let id = (sets.heads.len() / sets.stride) as SetId;
        for (at, &bits) in marks.iter().enumerate() {
            sets.heads.push(Head { bits, start: sets.words.len() as u32 });
            let mut left = bits;
            while left != 0 {
                sets.words.push(current[at * WORD + left.trailing_zeros() as usize]);
                left &= left - 1;
            }
        }
        id
    }

    fn hash(&self, id: SetId) -> u64 {
        hash_of(&self.sets, id)
    }
}

/// The heads of a set, and its words.
fn parts(sets: &Sets, id: SetId) -> (&[Head], &[u64]) {
    let heads = id as usize * sets.stride;
    let heads = &sets.heads[heads..heads + sets.stride];
    let (Some(first), Some(last)) = (heads.first(), heads.last()) else { return (heads, &[]) };
    (heads, &sets.words[first.start as usize..(last.start + last.bits.count_ones()) as usize])
}

fn hash_of(sets: &Sets, id: SetId) -> u64 {
    let (heads, words) = parts(sets, id);
    let mut hasher = FixedState::default().build_hasher();
    heads.iter().for_each(|head| hasher.write_u64(head.bits));
    words.iter().for_each(|word| hasher.write_u64(*word));
    hasher.finish()
}

fn equal(sets: &Sets, a: SetId, b: SetId) -> bool {
    let ((a, a_words), (b, b_words)) = (parts(sets, a), parts(sets, b));
    let bits = |head: &Head| head.bits;
    a.iter().map(bits).eq(b.iter().map(bits)) && a_words == b_words
}

/// Where the rules' ranges of one field begin and end.
pub(super) struct Bounds<K>(Vec<(K, u16)>);

/// A value of a field.
pub(super) trait Value: Copy + Ord + Default {
    /// The one after it; `None` behind the last.
    fn next(self) -> Option<Self>;

    /// How many bits it takes to write how far it is behind `base`.
    fn bits_from(self, base: Self) -> u32;

    /// How far it is behind `base`, which is no larger, in steps of 2 to the power of `shift`.
    fn steps_from(self, base: Self, shift: u32) -> usize;
}

impl Value for u32 {
    fn next(self) -> Option<u32> {
        self.checked_add(1)
    }

    fn bits_from(self, base: u32) -> u32 {
        u32::BITS - (self - base).leading_zeros()
    }

    #[inline]
    fn steps_from(self, base: u32, shift: u32) -> usize {
        (self.wrapping_sub(base) >> shift) as usize
    }
}

impl Value for u128 {
    fn next(self) -> Option<u128> {
        self.checked_add(1)
    }

    fn bits_from(self, base: u128) -> u32 {
        u128::BITS - (self - base).leading_zeros()
    }

    #[inline]
    fn steps_from(self, base: u128, shift: u32) -> usize {
        usize::try_from(self.wrapping_sub(base) >> shift).unwrap_or(usize::MAX)
    }
}

impl<K: Value> Bounds<K> {
    pub(super) fn new() -> Bounds<K> {
        Bounds(Vec::new())
    }

    /// A rule covers all of `ranges`, first and last values, which may overlap.
    pub(super) fn add(&mut self, rule: u16, mut ranges: Vec<(K, K)>) {
        ranges.sort_unstable();
        let mut merged: Vec<(K, K)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match merged.last_mut() {
                // Those that touch are one, or their bounds would cancel each other out of order.
                Some((_, end)) if end.next().is_none_or(|next| first <= next) => *end = last.max(*end),
                _ => merged.push((first, last)),
            }
        }
        for (first, last) in merged {
            self.0.push((first, rule));
            self.0.extend(last.next().map(|next| (next, rule)));
        }
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The intervals between all bounds. `sets` holds no rule before and after.
    pub(super) fn intervals(mut self, sets: &mut Builder) -> Result<Intervals<K>, TooLarge> {
        self.0.sort_unstable();
        let (mut starts, mut ids) = (vec![K::default()], vec![NONE]);
        for bounds in self.0.chunk_by(|a, b| a.0 == b.0) {
            bounds.iter().for_each(|&(_, rule)| sets.toggle(rule));
            let (start, id) = (bounds[0].0, sets.intern()?);
            if start == K::default() {
                ids[0] = id;
            } else if ids.last() != Some(&id) {
                starts.push(start);
                ids.push(id);
            }
        }
        // What reaches up to the last value has no bound there.
        sets.clear();
        Ok(Intervals { steps: Steps::new(&starts), starts, ids })
    }
}

impl Builder {
    fn clear(&mut self) {
        self.current.fill(0);
        self.marks.fill(0);
    }
}

/// Finds the interval of a value.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Intervals<K> {
    /// The first value of each, in order; the first of them is the least there is.
    starts: Vec<K>,
    ids: Vec<SetId>,
    steps: Steps<K>,
}

impl<K: Value> Intervals<K> {
    /// The rules that cover `value`.
    #[inline]
    pub(super) fn find(&self, value: K) -> SetId {
        let near = self.steps.near(value);
        let among = self.starts.get(near.clone()).unwrap_or_default();
        let behind = near.start + among.partition_point(|start| *start <= value);
        self.ids.get(behind.wrapping_sub(1)).copied().unwrap_or(NONE)
    }
}

/// Steps that a table has at most, as a power of two: 256 KiB.
const STEPS_MAX_LOG2: u32 = 16;

/// Which intervals begin where, roughly: the values between the first bound and the last in equal steps,
/// about two of them for each interval. What is left to be searched is a step, mostly one interval or two;
/// if all bounds crowd into few steps it is a binary search among those, as it would be without.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Steps<K> {
    /// The first bound, and how large a step is: 2 to the power of `shift`.
    base: K,
    shift: u32,
    /// How many intervals begin before each step, and before the end of the last.
    before: Vec<u32>,
}

impl<K: Value> Steps<K> {
    fn new(starts: &[K]) -> Steps<K> {
        // What lies before the first bound is no step's.
        let (Some(&base), Some(&last)) = (starts.get(1), starts.last()) else { return Steps::default() };
        let log2 = (2 * starts.len()).next_power_of_two().ilog2().min(STEPS_MAX_LOG2);
        let shift = last.bits_from(base).saturating_sub(log2);
        let mut before = Vec::with_capacity(last.steps_from(base, shift) + 2);
        before.push(1);
        for (start, number) in starts.iter().zip(0u32..).skip(1) {
            let step = start.steps_from(base, shift);
            before.resize(before.len().max(step + 1), number);
        }
        before.push(starts.len() as u32);
        Steps { base, shift, before }
    }

    /// Where the intervals stand that begin in the step of `value`.
    #[inline]
    fn near(&self, value: K) -> Range<usize> {
        if value < self.base || self.before.is_empty() {
            return 1..1;
        }
        let step = value.steps_from(self.base, self.shift).min(self.before.len() - 2);
        match self.before.get(step..) {
            Some(&[from, to, ..]) => from as usize..to as usize,
            _ => 1..1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(mut bounds: Vec<u32>, values: &[u32]) -> Result<(), TestCaseError> {
        bounds.push(0);
        bounds.sort_unstable();
        bounds.dedup();
        let ids = (1..=bounds.len() as SetId).collect();
        let intervals = Intervals { steps: Steps::new(&bounds), starts: bounds.clone(), ids };
        prop_assert!(intervals.steps.before.len() <= (1 << STEPS_MAX_LOG2) + 1);
        let near = bounds.iter().flat_map(|bound| [bound.wrapping_sub(1), *bound, bound.wrapping_add(1)]);
        for value in near.chain(values.iter().copied()) {
            let expected = bounds.iter().filter(|bound| **bound <= value).count() as SetId;
            prop_assert_eq!(intervals.find(value), expected, "{} in {:?}", value, bounds);
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn a_value_is_found_among_any_bounds(
            scattered in prop::collection::vec(any::<u32>(), 0..40),
            crowded in prop::collection::vec(0x0a00_0000u32..0x0a00_0100, 0..40),
            values in prop::collection::vec(any::<u32>(), 20),
        ) {
            check(scattered.clone(), &values)?;
            check(crowded.clone(), &values)?;
            check([scattered, crowded].concat(), &values)?;
        }
    }

    #[test]
    fn nothing_has_no_rules_and_one_interval_has_the_same_everywhere() {
        assert_eq!(Intervals::<u32>::default().find(7), NONE);
        let starts = vec![0u128];
        let one = Intervals { steps: Steps::new(&starts), starts, ids: vec![5] };
        assert_eq!((one.find(0), one.find(u128::MAX)), (5, 5));
    }
}
