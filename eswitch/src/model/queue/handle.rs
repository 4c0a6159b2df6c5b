//! What a rule's handle is made of.

use std::num::NonZeroU64;

use super::super::types::RuleHandle;

/// Bits of a generation.
const GENERATION_BITS: u32 = 24;

impl RuleHandle {
    /// Generations are counted modulo this.
    pub const GENERATIONS: u32 = 1 << GENERATION_BITS;

    /// The handle of a slot: of a flow queue, or (`None`) of the synchronous API. `None` for queue 255 and
    /// for slot 2^32 - 1, which have no handle.
    #[must_use]
    pub fn new(queue: Option<u8>, generation: u32, slot: u32) -> Option<RuleHandle> {
        let queue = match queue {
            None => 0,
            Some(number) => u64::from(number.checked_add(1)?),
        };
        let slot = u64::from(slot.checked_add(1)?);
        let generation = u64::from(generation % Self::GENERATIONS);
        NonZeroU64::new(queue << 56 | generation << 32 | slot).map(RuleHandle)
    }

    /// The flow queue it was created through; `None`: the synchronous API.
    #[must_use]
    pub fn queue(self) -> Option<u8> {
        ((self.0.get() >> 56) as u8).checked_sub(1)
    }

    /// Which life of the slot it means.
    #[must_use]
    pub fn generation(self) -> u32 {
        (self.0.get() >> 32) as u32 % Self::GENERATIONS
    }

    /// The slot; `None` for a handle that nobody gave out.
    #[must_use]
    pub fn slot(self) -> Option<u32> {
        (self.0.get() as u32).checked_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_handle_says_what_it_was_made_of(
            queue in prop::option::of(0u8..255),
            generation in 0..RuleHandle::GENERATIONS,
            slot in 0..u32::MAX,
        ) {
            let handle = RuleHandle::new(queue, generation, slot).unwrap();
            prop_assert_eq!((handle.queue(), handle.generation(), handle.slot()), (queue, generation, Some(slot)));
        }
    }

    #[test]
    fn what_has_no_handle() {
        assert_eq!(RuleHandle::new(Some(255), 0, 0), None);
        assert_eq!(RuleHandle::new(None, 0, u32::MAX), None);
        assert_eq!(RuleHandle(NonZeroU64::new(1 << 56).unwrap()).slot(), None);
    }
}
