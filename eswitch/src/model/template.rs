//! Templates and the tables made of them: what HWS rules share.

use std::sync::atomic::{AtomicU32, Ordering};

/// How full a template table is. A rule takes its place when its creation is enqueued and gives it back when
/// its destruction's completion is pulled.
#[derive(Debug)]
pub struct Occupancy {
    capacity: u32,
    used: AtomicU32,
}

impl Occupancy {
    /// An empty table for so many rules, rounded up to a power of two as mlx5 does (`flow_hw_table_create`).
    /// `None` for more than 2^31.
    #[must_use]
    pub fn new(rules: u32) -> Option<Occupancy> {
        let capacity = rules.max(1).checked_next_power_of_two()?;
        Some(Occupancy { capacity, used: AtomicU32::new(0) })
    }

    /// Rules that it is made for.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Rules that occupy a place.
    #[must_use]
    pub fn used(&self) -> u32 {
        self.used.load(Ordering::Acquire)
    }

    /// Takes a place: how many are taken with it; `None` if there is none left.
    pub(crate) fn take(&self) -> Option<u32> {
        let more = |used| (used < self.capacity).then_some(used + 1);
        self.used.fetch_update(Ordering::AcqRel, Ordering::Relaxed, more).ok().map(|before| before + 1)
    }

    /// Gives a place back.
    pub(crate) fn give(&self) {
        self.used.fetch_sub(1, Ordering::AcqRel);
    }
}
