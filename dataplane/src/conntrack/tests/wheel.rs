//! The wheel against a sorted map.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::conntrack::entry::Entry;
use crate::conntrack::wheel::Wheel;
use crate::limits::TIMEOUT_MAX_MS;
use crate::time::Tick;

const SLOTS: u32 = 16;

/// The wheel, and what it should know: slot to (deadline, latest look), in milliseconds since the start.
struct World {
    wheel: Wheel,
    entries: Vec<Entry>,
    start: Tick,
    elapsed: u64,
    linked: BTreeMap<u32, (u64, u64)>,
}

impl World {
    fn new(start: Tick) -> World {
        let entries = vec![Entry::default(); SLOTS as usize];
        World { wheel: Wheel::new(start), entries, start, elapsed: 0, linked: BTreeMap::new() }
    }

    fn now(&self) -> Tick {
        self.start.after_ms(self.elapsed as u32)
    }

    fn link(&mut self, slot: u32, delay: u32) {
        if let std::collections::btree_map::Entry::Vacant(vacant) = self.linked.entry(slot) {
            let deadline = self.elapsed + u64::from(delay);
            vacant.insert((deadline, deadline + u64::from(delay / 20).max(1_000)));
            self.wheel.link(&mut self.entries, slot, self.start.after_ms(deadline as u32));
            let visit = self.wheel.visit(self.entries[slot as usize].wheel_bucket);
            assert!(
                visit.since(self.now()) >= delay
                    && u64::from(visit.since(self.now()))
                        <= u64::from(delay) + u64::from(delay / 20).max(1_000)
            );
        }
    }

    fn unlink(&mut self, slot: u32) {
        if self.linked.remove(&slot).is_some() {
            self.wheel.unlink(&mut self.entries, slot);
        }
    }

    /// Everything that comes is due, and everything that is overdue comes.
    fn pass(&mut self, ms: u32) {
        self.elapsed += u64::from(ms);
        while let Some(slot) = self.wheel.due(self.now()) {
            let (deadline, _) = self.linked.remove(&slot).expect("only linked entries come");
            assert!(deadline <= self.elapsed, "slot {slot} came early");
            self.wheel.unlink(&mut self.entries, slot);
        }
        for (slot, (_, latest)) in &self.linked {
            assert!(*latest > self.elapsed, "slot {slot} is late");
        }
    }
}

/// A delay or a step of time of any magnitude.
fn span() -> impl Strategy<Value = u32> {
    (0u32..31, any::<u32>()).prop_map(|(bits, n)| (n >> (31 - bits)).min(TIMEOUT_MAX_MS))
}

proptest! {
    #[test]
    fn agrees_with_a_sorted_map(
        start in prop_oneof![Just(0), Just(u32::MAX - 5_000), any::<u32>()],
        operations in prop::collection::vec((0u8..4, 0..SLOTS, span()), 1..300),
    ) {
        let mut world = World::new(Tick(start));
        for (kind, slot, ms) in operations {
            match kind {
                0 | 1 => world.link(slot, ms),
                2 => world.unlink(slot),
                _ => world.pass(ms),
            }
        }
        for _ in 0..4 {
            world.pass(TIMEOUT_MAX_MS / 2);
        }
        prop_assert!(world.linked.is_empty());
    }
}

/// While a wheel is behind, what is linked goes to buckets that it has yet to reach, so emptying a bucket
/// ends.
#[test]
fn linking_while_behind_does_not_feed_the_bucket_being_emptied() {
    let mut wheel = Wheel::new(Tick(0));
    let mut entries = vec![Entry::default(); 4];
    for slot in 0..4 {
        wheel.link(&mut entries, slot, Tick(100));
    }
    let now = Tick(256 * 256);
    for delay in [1, 255, 256, 65_280, 65_281, 65_536, 70_000] {
        let slot = wheel.due(now).expect("four are due");
        wheel.unlink(&mut entries, slot);
        wheel.link(&mut entries, slot, now.after_ms(delay));
        let visit = wheel.visit(entries[slot as usize].wheel_bucket);
        assert!(visit.reached(now.after_ms(delay)), "{delay}");
        if slot == 0 {
            break;
        }
    }
    assert_eq!(wheel.due(now), None);
}
