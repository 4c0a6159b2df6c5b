//! Where owners keep what they own: in numbered places, named by keys that tell which life of a place they
//! mean.

/// Generations are counted modulo this, so that a key fits into a word of user data beside a bit or two.
const GENERATIONS: u32 = 1 << 30;

/// Names something in a [`Store`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Key {
    at: u32,
    generation: u32,
}

impl Key {
    /// As a number of 62 bits.
    pub(super) fn bits(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.at)
    }

    /// The reverse of [`Key::bits`].
    pub(super) fn from_bits(bits: u64) -> Key {
        Key { at: bits as u32, generation: (bits >> 32) as u32 % GENERATIONS }
    }
}

#[derive(Debug)]
struct Place<T> {
    generation: u32,
    held: Option<T>,
}

/// Things by key.
#[derive(Debug)]
pub(super) struct Store<T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
}

impl<T> Store<T> {
    pub(super) const fn new() -> Store<T> {
        Store { places: Vec::new(), free: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    pub(super) fn insert(&mut self, thing: T) -> Key {
        let at = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place { generation: 0, held: None });
            (self.places.len() - 1) as u32
        });
        let place = &mut self.places[at as usize];
        place.held = Some(thing);
        Key { at, generation: place.generation }
    }

    pub(super) fn get(&self, key: Key) -> Option<&T> {
        self.places.get(key.at as usize).filter(|place| place.generation == key.generation)?.held.as_ref()
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let place = self.places.get_mut(key.at as usize)?;
        if place.generation == key.generation { place.held.as_mut() } else { None }
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<T> {
        let place =
            self.places.get_mut(key.at as usize).filter(|place| place.generation == key.generation)?;
        let thing = place.held.take()?;
        place.generation = (place.generation + 1) % GENERATIONS;
        self.free.push(key.at);
        Some(thing)
    }

    /// The keys of everything in it.
    pub(super) fn keys(&self) -> Vec<Key> {
        let held = self.places.iter().enumerate().filter(|(_, place)| place.held.is_some());
        held.map(|(at, place)| Key { at: at as u32, generation: place.generation }).collect()
    }

    /// Forgets everything. Keys given out before name nothing from now on.
    pub(super) fn clear(&mut self) {
        for key in self.keys() {
            self.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_names_one_life_of_a_place() {
        let mut store = Store::new();
        let (first, second) = (store.insert(1), store.insert(2));
        assert_eq!((store.get(first), store.get(second), store.len()), (Some(&1), Some(&2), 2));
        assert_eq!(store.remove(first), Some(1));
        assert_eq!((store.remove(first), store.get(first)), (None, None));
        assert_eq!(store.get_mut(first), None);
        let third = store.insert(3);
        assert_eq!((store.get(first), store.get(third)), (None, Some(&3)), "the place is used again");
        assert_eq!(Key::from_bits(third.bits()), third);
        store.clear();
        assert_eq!((store.len(), store.get(second), store.get(third)), (0, None, None));
        let fourth = store.insert(4);
        assert!(fourth != second && fourth != third);
    }
}
