//! The application's side of its rules: numbered slots in pieces of a fixed size, so that growing copies
//! nothing.

use std::sync::Arc;

use super::super::template::Occupancy;
use super::super::types::RuleHandle;
use super::Needs;

/// Slots in a piece.
const PIECE: usize = 1024;

/// Where a rule is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// There is none. The next free slot.
    Free(Option<u32>),
    /// Its creation is outstanding.
    Creating,
    /// It is there.
    Live,
    /// Its creation completed with an error; it must be destroyed all the same.
    Failed,
    /// Its destruction is outstanding.
    Destroying,
}

#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) generation: u32,
    pub(super) state: State,
    pub(super) needs: Needs,
    /// The table whose place it occupies; `None` while free.
    table: Option<Arc<Occupancy>>,
}

#[derive(Debug, Default)]
pub(super) struct Slots {
    pieces: Vec<Box<[Slot]>>,
    free: Option<u32>,
    used: u32,
}

impl Slots {
    /// Rules that have not been freed yet.
    pub(super) fn used(&self) -> u32 {
        self.used
    }

    #[inline]
    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut Slot> {
        self.pieces.get_mut(slot as usize / PIECE)?.get_mut(slot as usize % PIECE)
    }

    /// A slot for a rule whose creation is about to be enqueued: its number and generation. The place in the
    /// table has been taken. `None` if 2^32 are in use.
    pub(super) fn allocate(&mut self, table: &Arc<Occupancy>, needs: Needs) -> Option<(u32, u32)> {
        let at = match self.free {
            Some(at) => at,
            None => self.grow()?,
        };
        let slot = self.get_mut(at)?;
        let State::Free(next) = slot.state else { return None };
        slot.state = State::Creating;
        slot.needs = needs;
        slot.table = Some(Arc::clone(table));
        let generation = slot.generation;
        self.free = next;
        self.used += 1;
        Some((at, generation))
    }

    /// Frees a slot and its place in the table; its handle is stale from now on. What the rule needed.
    pub(super) fn free(&mut self, at: u32) -> Needs {
        let free = self.free;
        let Some(slot) = self.get_mut(at) else { return Needs::default() };
        if matches!(slot.state, State::Free(_)) {
            return Needs::default();
        }
        slot.state = State::Free(free);
        slot.generation = (slot.generation + 1) % RuleHandle::GENERATIONS;
        if let Some(table) = slot.table.take() {
            table.give();
        }
        let needs = std::mem::take(&mut slot.needs);
        self.free = Some(at);
        self.used -= 1;
        needs
    }

    /// One more than the highest slot there has ever been.
    pub(super) fn end(&self) -> u32 {
        (self.pieces.len() * PIECE) as u32
    }

    fn grow(&mut self) -> Option<u32> {
        let first = u32::try_from(self.pieces.len() * PIECE).ok()?;
        let last = first.checked_add(PIECE as u32 - 1)?;
        let slot = |at| Slot {
            generation: 0,
            state: State::Free((at < last).then_some(at + 1)),
            needs: Needs::default(),
            table: None,
        };
        self.pieces.push((first..=last).map(slot).collect());
        Some(first)
    }
}
