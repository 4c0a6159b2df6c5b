//! Numbered slots that never move: storage in pieces of a fixed size, so that growing never copies.

use super::super::warm;

/// Slots in a piece: so many that the directory stays short. Its memory is touched slot by slot.
const PIECE: usize = 1024;

/// A growing array of optional values with a free list.
#[derive(Debug)]
pub(super) struct Slab<T> {
    /// All but the last are full, of values and of free slots.
    pieces: Vec<Vec<Slot<T>>>,
    /// Pieces for later.
    spare: Vec<Vec<Slot<T>>>,
    free: Option<u32>,
    len: u32,
}

#[derive(Debug)]
enum Slot<T> {
    Used(T),
    /// The next free slot.
    Free(Option<u32>),
}

impl<T> Slab<T> {
    pub(super) const fn new() -> Slab<T> {
        Slab { pieces: Vec::new(), spare: Vec::new(), free: None, len: 0 }
    }

    /// How many values there are.
    pub(super) const fn len(&self) -> u32 {
        self.len
    }

    /// Has memory ready for so many slots.
    pub(super) fn reserve(&mut self, slots: u32) {
        let pieces = (slots as usize).div_ceil(PIECE);
        while self.pieces.len() + self.spare.len() < pieces {
            self.spare.push(warm::touched(PIECE, || Slot::Free(None)));
        }
    }

    /// One more than the highest slot there has ever been.
    pub(super) fn end(&self) -> u32 {
        let last = self.pieces.last().map_or(0, |last| last.len());
        ((self.pieces.len().max(1) - 1) * PIECE + last) as u32
    }

    /// Stores a value; `None` (and the value is dropped) when all 2^32 slots are taken.
    pub(super) fn insert(&mut self, value: T) -> Option<u32> {
        let Some(index) = self.free else { return self.push(value) };
        let slot = self.slot_mut(index)?;
        let Slot::Free(next) = std::mem::replace(slot, Slot::Used(value)) else { return None };
        self.free = next;
        self.len += 1;
        Some(index)
    }

    /// Adds a slot.
    fn push(&mut self, value: T) -> Option<u32> {
        let index = Some(self.end()).filter(|&end| end < u32::MAX - PIECE as u32)?;
        match self.pieces.last_mut() {
            Some(last) if last.len() < PIECE => last.push(Slot::Used(value)),
            _ => {
                let mut piece = self.spare.pop().unwrap_or_else(|| Vec::with_capacity(PIECE));
                piece.push(Slot::Used(value));
                self.pieces.push(piece);
            }
        }
        self.len += 1;
        Some(index)
    }

    pub(super) fn remove(&mut self, index: u32) -> Option<T> {
        let free = self.free;
        let slot = self.slot_mut(index)?;
        if matches!(slot, Slot::Free(_)) {
            return None;
        }
        let Slot::Used(value) = std::mem::replace(slot, Slot::Free(free)) else { return None };
        self.free = Some(index);
        self.len -= 1;
        Some(value)
    }

    #[inline]
    pub(super) fn get(&self, index: u32) -> Option<&T> {
        match self.pieces.get(index as usize / PIECE)?.get(index as usize % PIECE)? {
            Slot::Used(value) => Some(value),
            Slot::Free(_) => None,
        }
    }

    #[inline]
    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        match self.slot_mut(index)? {
            Slot::Used(value) => Some(value),
            Slot::Free(_) => None,
        }
    }

    #[inline]
    fn slot_mut(&mut self, index: u32) -> Option<&mut Slot<T>> {
        self.pieces.get_mut(index as usize / PIECE)?.get_mut(index as usize % PIECE)
    }

    /// Asks for the first cache lines of a slot that will be read soon.
    #[inline]
    pub(super) fn prefetch(&self, index: u32) {
        if let Some(slot) =
            self.pieces.get(index as usize / PIECE).and_then(|piece| piece.get(index as usize % PIECE))
        {
            dataplane::prefetch::prefetch(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_reused_and_never_move() {
        let mut slab = Slab::new();
        let first: Vec<u32> = (0..3000).map(|value| slab.insert(value).unwrap()).collect();
        assert_eq!(first, (0..3000).collect::<Vec<u32>>());
        let address = std::ptr::from_ref(slab.get(7).unwrap());
        assert_eq!(slab.remove(7), Some(7));
        assert_eq!(slab.remove(7), None);
        assert_eq!(slab.get(7), None);
        assert_eq!(slab.len(), 2999);
        assert_eq!(slab.insert(1_000_000), Some(7));
        assert_eq!(std::ptr::from_ref(slab.get(7).unwrap()), address);
        assert_eq!(slab.get(7), Some(&1_000_000));
        assert_eq!(slab.get(5000), None);
        assert_eq!(slab.end(), 3000);
    }

    #[test]
    fn what_is_reserved_is_used_first() {
        let mut slab = Slab::new();
        slab.insert(1).unwrap();
        slab.reserve(2 * PIECE as u32 + 1);
        assert_eq!((slab.pieces.len(), slab.spare.len(), slab.end()), (1, 2, 1));
        let reserved: Vec<_> = slab.spare.iter().map(Vec::as_ptr).collect();
        (1..3 * PIECE).for_each(|value| assert_eq!(slab.insert(value), Some(value as u32)));
        assert_eq!((slab.pieces.len(), slab.spare.len(), slab.end()), (3, 0, 3 * PIECE as u32));
        assert!(slab.pieces[1..].iter().all(|piece| reserved.contains(&piece.as_ptr())));
        assert!((1..3 * PIECE).all(|value| slab.get(value as u32) == Some(&value)));
    }
}
