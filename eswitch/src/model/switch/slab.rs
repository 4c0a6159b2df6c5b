//! Numbered slots that never move: storage in pieces of a fixed size, so that growing never copies.

/// Slots in a piece: small enough that making one is no pause, large enough that the directory stays short.
const PIECE: usize = 1024;

/// A growing array of optional values with a free list.
#[derive(Debug)]
pub(super) struct Slab<T> {
    pieces: Vec<Box<[Slot<T>]>>,
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
        Slab { pieces: Vec::new(), free: None, len: 0 }
    }

    /// How many values there are.
    pub(super) const fn len(&self) -> u32 {
        self.len
    }

    /// One more than the highest slot there has ever been.
    pub(super) fn end(&self) -> u32 {
        (self.pieces.len() * PIECE) as u32
    }

    /// Stores a value; `None` (and the value is dropped) when all 2^32 slots are taken.
    pub(super) fn insert(&mut self, value: T) -> Option<u32> {
        let index = match self.free {
            Some(index) => index,
            None => self.grow()?,
        };
        let slot = self.slot_mut(index)?;
        let Slot::Free(next) = std::mem::replace(slot, Slot::Used(value)) else { return None };
        self.free = next;
        self.len += 1;
        Some(index)
    }

    /// Adds a piece; returns its first slot. The others follow it in the free list.
    fn grow(&mut self) -> Option<u32> {
        let first =
            u32::try_from(self.pieces.len() * PIECE).ok().filter(|first| *first < u32::MAX - PIECE as u32)?;
        let last = first + PIECE as u32 - 1;
        let piece = (first..=last).map(|index| Slot::Free((index < last).then_some(index + 1)));
        self.pieces.push(piece.collect());
        self.free = Some(first);
        Some(first)
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
        assert_eq!(slab.end(), 3072);
    }
}
