//! What an engine holds for each leg, found by its number: a connection's rules are numbered densely.

use super::LegId;

/// Things by leg.
#[derive(Debug)]
pub(super) struct Legs<T> {
    places: Vec<Option<T>>,
    /// One more than the highest number that is served.
    end: usize,
}

impl<T> Legs<T> {
    /// For connections numbered below `connections_max`.
    pub(super) fn new(connections_max: u32) -> Legs<T> {
        Legs { places: Vec::new(), end: 2 * connections_max as usize }
    }

    fn at(leg: LegId) -> usize {
        2 * leg.rule.0 as usize + leg.direction as usize
    }

    pub(super) fn get(&self, leg: LegId) -> Option<&T> {
        self.places.get(Self::at(leg))?.as_ref()
    }

    pub(super) fn get_mut(&mut self, leg: LegId) -> Option<&mut T> {
        self.places.get_mut(Self::at(leg))?.as_mut()
    }

    /// Whether something can be put there: the number is not too high, and its place is free.
    pub(super) fn is_free(&self, leg: LegId) -> bool {
        Self::at(leg) < self.end && self.get(leg).is_none()
    }

    /// Puts something where [`Legs::is_free`].
    pub(super) fn put(&mut self, leg: LegId, thing: T) {
        let at = Self::at(leg);
        if at >= self.places.len() {
            self.places.resize_with((at + 1).next_power_of_two().min(self.end.max(at + 1)), || None);
        }
        self.places[at] = Some(thing);
    }

    pub(super) fn take(&mut self, leg: LegId) -> Option<T> {
        self.places.get_mut(Self::at(leg))?.take()
    }

    pub(super) fn clear(&mut self) {
        self.places.iter_mut().for_each(|place| *place = None);
    }
}
