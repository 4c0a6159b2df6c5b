//! When to look at which connection again: a hierarchical timer wheel, lazy in two ways.
//!
//! Packets do not touch it. A connection is linked where it would expire if no packet came; when that
//! time comes, [`super::Table::expire`] compares `last_seen` and links it anew if it has lived on. And
//! nothing cascades: a connection stays in the bucket it was put in, and each level is finer than the
//! shortest delay it is used for by a factor of 32, so that it is late by 256 ms or by 3.2 % of its
//! timeout, whichever is more.
//!
//! The links are in the entries. An entry stays where it is linked when its connection ends and another one
//! takes the slot, unless that one has to be looked at sooner: whoever comes and goes does not touch the
//! neighbours' lines. Six levels of 256 buckets reach from 256 ms to 24 days.

use super::entry::{Entry, NIL};
use crate::prefetch::prefetch;
use crate::time::Tick;

const LEVELS: usize = 6;
const BUCKETS: u32 = 256;
/// Lists in a bucket. They are emptied by turns, and taking an entry out asks for the line of the next in
/// its list, so that this many lines are under way at a time.
const LISTS: usize = 4;
/// The bucket of an entry that is in none.
const UNLINKED: u16 = 0;
/// A bucket of level 0 spans `1 << SHIFT` milliseconds,
const SHIFT: u32 = 8;
/// and one of each further level eight times as many.
const LEVEL_SHIFT: u32 = 3;

const fn shift(level: usize) -> u32 {
    SHIFT + LEVEL_SHIFT * level as u32
}

const _: () = assert!(
    ((BUCKETS - 1) as u64) << shift(LEVELS - 1) > crate::limits::TIMEOUT_MAX_MS as u64,
    "the last level reaches the longest timeout"
);
const _: () = assert!(LEVELS as u32 * BUCKETS < u16::MAX as u32);

/// The wheel. All methods take the entries that it links.
pub(super) struct Wheel {
    heads: Box<[[u32; LISTS]]>,
    /// The list that the last entry was taken from.
    list: usize,
    /// Per level, the last point in time, in buckets, up to which all connections have been looked at.
    done: [u32; LEVELS],
}

impl Wheel {
    pub(super) fn new(now: Tick) -> Wheel {
        Wheel {
            heads: vec![[NIL; LISTS]; LEVELS * BUCKETS as usize].into_boxed_slice(),
            list: 0,
            done: core::array::from_fn(|level| now.0 >> shift(level)),
        }
    }

    /// Sees to it that an entry, linked or not, is looked at by `late_max_ms` after `deadline`.
    pub(super) fn schedule(&mut self, entries: &mut [Entry], slot: u32, deadline: Tick, late_max_ms: u32) {
        let bucket = entries[slot as usize].wheel_bucket;
        if bucket != UNLINKED {
            if self.visit(bucket).since(deadline) <= late_max_ms {
                return;
            }
            self.unlink(entries, slot);
        }
        self.link(entries, slot, deadline);
    }

    /// Links an entry to be looked at soon after `deadline`.
    pub(super) fn link(&mut self, entries: &mut [Entry], slot: u32, deadline: Tick) {
        let bucket = self.bucket_for(deadline);
        let next = core::mem::replace(self.head(bucket, slot), slot);
        if next != NIL {
            entries[next as usize].prev = slot;
        }
        let entry = &mut entries[slot as usize];
        entry.wheel_bucket = bucket;
        entry.next = next;
    }

    /// Takes a linked entry out.
    pub(super) fn unlink(&mut self, entries: &mut [Entry], slot: u32) {
        let entry = &mut entries[slot as usize];
        let (bucket, next, prev) = (entry.wheel_bucket, entry.next, entry.prev);
        entry.wheel_bucket = UNLINKED;
        let head = self.head(bucket, slot);
        if *head == slot {
            // Only asked for, not written to: what the first of a list has for `prev` says nothing.
            *head = next;
            entries.get(next as usize).into_iter().for_each(prefetch);
            return;
        }
        entries[prev as usize].next = next;
        if next != NIL {
            entries[next as usize].prev = prev;
        }
    }

    fn head(&mut self, bucket: u16, slot: u32) -> &mut u32 {
        &mut self.heads[usize::from(bucket) - 1][slot as usize % LISTS]
    }

    /// When the entries of a bucket will be looked at.
    pub(super) fn visit(&self, bucket: u16) -> Tick {
        let number = u32::from(bucket).saturating_sub(1);
        let (level, index) = ((number / BUCKETS) as usize, number % BUCKETS);
        let done = self.done[level];
        let steps = (index.wrapping_sub(done).wrapping_sub(1) % BUCKETS) + 1;
        Tick(done.wrapping_add(steps) << shift(level))
    }

    /// An entry whose time for a look has come. The caller unlinks it before it asks for another.
    pub(super) fn due(&mut self, now: Tick) -> Option<u32> {
        (0..LEVELS).find_map(|level| self.due_in(level, now))
    }

    fn due_in(&mut self, level: usize, now: Tick) -> Option<u32> {
        let reached = Tick(self.done[level] << shift(level));
        let mut lag = now.since(reached) >> shift(level);
        if lag > BUCKETS {
            // Time leapt by more than a turn: every bucket is due, once.
            self.done[level] = (now.0 >> shift(level)).wrapping_sub(BUCKETS) & mask(level);
            lag = BUCKETS;
        }
        for _ in 0..lag {
            let number = self.done[level].wrapping_add(1) & mask(level);
            let heads = &self.heads[level * BUCKETS as usize + (number % BUCKETS) as usize];
            let mut by_turns = (1..=LISTS).map(|step| (self.list + step) % LISTS);
            if let Some(list) = by_turns.find(|&list| heads[list] != NIL) {
                self.list = list;
                return Some(heads[list]);
            }
            self.done[level] = number;
        }
        None
    }

    /// The finest bucket, counted from 1, whose turn comes at or after `deadline` and within one turn.
    ///
    /// Distances are taken from where the level has got to, not from the present, so that a wheel that
    /// is behind with its work never files an entry into a bucket it has yet to empty.
    fn bucket_for(&self, deadline: Tick) -> u16 {
        let steps_at = |level: usize| {
            let reached = Tick(self.done[level] << shift(level));
            deadline.since(reached).div_ceil(1 << shift(level)).max(1)
        };
        let level = (0..LEVELS - 1).find(|&level| steps_at(level) < BUCKETS).unwrap_or(LEVELS - 1);
        let steps = steps_at(level).min(BUCKETS - 1);
        let index = self.done[level].wrapping_add(steps) % BUCKETS;
        (level as u32 * BUCKETS + index + 1) as u16
    }

    /// Bytes held.
    pub(super) fn memory_bytes(&self) -> usize {
        core::mem::size_of_val::<[[u32; LISTS]]>(&self.heads)
    }
}

/// Bucket numbers of a level wrap where ticks do.
const fn mask(level: usize) -> u32 {
    u32::MAX >> shift(level)
}
