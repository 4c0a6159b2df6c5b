//! A vector that neither moves what it holds nor frees much at a time: it grows and shrinks at its end, by
//! chunks of at most [`CHUNK_BYTES`].
//!
//! A `Vec` of a million rules would stall one insertion by copying them all, and its owner by unmapping them
//! all; here an operation costs at most one allocation or one deallocation of a chunk.

use std::ops::{Index, IndexMut};

use super::super::warm;

/// The most that one chunk holds. Below the size from which glibc's `malloc` maps and unmaps each block.
const CHUNK_BYTES: usize = 64 * 1024;

/// See the module.
#[derive(Debug)]
pub(super) struct Chunked<T> {
    /// All but the last are full; none is empty.
    chunks: Vec<Vec<T>>,
    /// Chunks for later: empty, in memory that has been touched.
    spare: Vec<Vec<T>>,
    /// Chunks that are kept, used or not.
    kept: usize,
    len: u32,
}

impl<T> Chunked<T> {
    const SHIFT: u32 = (CHUNK_BYTES / size_of::<T>()).ilog2();
    const CHUNK: usize = 1 << Self::SHIFT;

    pub(super) const fn new() -> Self {
        Chunked { chunks: Vec::new(), spare: Vec::new(), kept: 0, len: 0 }
    }

    #[inline]
    pub(super) fn len(&self) -> u32 {
        self.len
    }

    /// Has memory ready for so many values in all, also after they have come and gone; what holds `value` is
    /// only touched.
    pub(super) fn reserve(&mut self, values: u32, value: T)
    where
        T: Copy,
    {
        let values = values as usize;
        self.kept = self.kept.max(values.div_ceil(Self::CHUNK));
        let first = values.min(Self::CHUNK);
        if let Some(small) = self.chunks.first_mut().filter(|chunk| chunk.capacity() < first) {
            let mut large = warm::touched(first, || value);
            large.append(small);
            *small = large;
        }
        for chunk in self.chunks.len() + self.spare.len()..self.kept {
            let room = (values - chunk * Self::CHUNK).min(Self::CHUNK);
            // The last one is used last.
            self.spare.insert(0, warm::touched(room, || value));
        }
    }

    /// Appends. Only the first chunk, and one that was reserved for less than it may hold, grow by copying,
    /// so that a small table is small.
    #[inline]
    pub(super) fn push(&mut self, value: T) {
        match self.chunks.last_mut() {
            Some(last) if last.len() < Self::CHUNK => last.push(value),
            _ => self.push_chunk(value),
        }
        self.len += 1;
    }

    #[cold]
    fn push_chunk(&mut self, value: T) {
        let first = self.chunks.is_empty();
        let new = || if first { Vec::new() } else { Vec::with_capacity(Self::CHUNK) };
        let mut chunk = self.spare.pop().unwrap_or_else(new);
        chunk.push(value);
        self.chunks.push(chunk);
    }

    /// Takes the last one away.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<T> {
        let last = self.chunks.last_mut()?;
        let value = last.pop()?;
        if last.is_empty() {
            self.pop_chunk();
        }
        self.len -= 1;
        Some(value)
    }

    #[cold]
    fn pop_chunk(&mut self) {
        let within = self.chunks.len() + self.spare.len() <= self.kept;
        self.spare.extend(self.chunks.pop().filter(|_| within));
    }
}

impl<T> Index<u32> for Chunked<T> {
    type Output = T;

    #[inline(always)]
    fn index(&self, at: u32) -> &T {
        &self.chunks[at as usize >> Self::SHIFT][at as usize & (Self::CHUNK - 1)]
    }
}

impl<T> IndexMut<u32> for Chunked<T> {
    #[inline(always)]
    fn index_mut(&mut self, at: u32) -> &mut T {
        &mut self.chunks[at as usize >> Self::SHIFT][at as usize & (Self::CHUNK - 1)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_what_was_pushed_across_chunks() {
        let mut chunked = Chunked::<u64>::new();
        let many = 3 * Chunked::<u64>::CHUNK as u32 + 5;
        for n in 0..many {
            chunked.push(u64::from(n));
        }
        chunked[7] = 70;
        assert_eq!(chunked.len(), many);
        assert!((0..many).all(|n| chunked[n] == if n == 7 { 70 } else { u64::from(n) }));
        for n in (0..many).rev() {
            assert_eq!(chunked.pop(), Some(if n == 7 { 70 } else { u64::from(n) }));
            assert_eq!(chunked.len(), n);
        }
        assert_eq!(chunked.pop(), None);
        assert!(chunked.chunks.is_empty(), "an empty one holds on to no chunk");
    }

    #[test]
    fn what_is_reserved_is_used_first() {
        let mut chunked = Chunked::<u64>::new();
        let chunk = Chunked::<u64>::CHUNK as u32;
        chunked.push(0);
        chunked.reserve(3 * chunk, 0);
        let mut reserved: Vec<_> = chunked.spare.iter().map(Vec::as_ptr).collect();
        reserved.push(chunked.chunks[0].as_ptr());
        assert_eq!((reserved.len(), chunked.len()), (3, 1));
        // As often as they come and go.
        for _ in 0..2 {
            (1..4 * chunk).for_each(|n| chunked.push(u64::from(n)));
            assert!(chunked.chunks[..3].iter().all(|chunk| reserved.contains(&chunk.as_ptr())));
            assert!((0..4 * chunk).all(|n| chunked[n] == u64::from(n)));
            (1..4 * chunk).for_each(|_| _ = chunked.pop());
            assert_eq!((chunked.chunks.len(), chunked.spare.len()), (1, 2));
        }
        chunked.pop();
        assert_eq!((chunked.chunks.len(), chunked.spare.len()), (0, 3));
    }

    #[test]
    fn no_more_is_reserved_than_asked_for() {
        let mut chunked = Chunked::<u64>::new();
        let chunk = Chunked::<u64>::CHUNK;
        chunked.reserve(chunk as u32 + 3, 0);
        let rooms = |chunked: &Chunked<u64>| chunked.spare.iter().map(Vec::capacity).collect::<Vec<_>>();
        assert_eq!(rooms(&chunked), [3, chunk]);
        chunked.reserve(1, 0);
        assert_eq!(rooms(&chunked), [3, chunk], "there is room for more already");
        (0..2 * chunk as u64).for_each(|n| chunked.push(n));
        assert!((0..2 * chunk as u32).all(|n| chunked[n] == u64::from(n)), "and for more than that");
    }
}
