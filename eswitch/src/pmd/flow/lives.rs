//! Which indirect actions exist. Their numbers are used again, so a handle also tells which life of its
//! number it means: one that has ended names nothing, not whatever has the number now.
//!
//! Read by every rule that uses such an action, on any thread, without a lock.

use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::model::action::Shared;
use crate::model::refusal::{Cause, Errno, Refusal};
use crate::model::types::{AgeId, CounterId, MeterId};
use crate::pmd::ffi;

// A handle is as wide as a pointer: 32 bits number, 16 bits life, 8 bits kind.
const _: () = assert!(size_of::<usize>() == size_of::<u64>());
const LIFE_SHIFT: u32 = 32;
const KIND_SHIFT: u32 = 48;
/// The first kind, a counter; the others follow.
const KIND_BASE: u64 = 0xc1;
const KINDS: usize = 4;

/// Numbers whose lives are kept together.
const CHUNK: usize = 4096;

/// Numbers are below 2^24: mlx5 has as many counters, ages and meters.
const CHUNKS: usize = 4096;

/// By number: odd while it is alive; every birth and every end adds one.
type Chunk = Box<[AtomicU16]>;

/// The lives of a device's indirect actions.
pub(super) struct Lives {
    kinds: [Box<[OnceLock<Chunk>]>; KINDS],
}

/// Kind and number.
fn parts(shared: Shared) -> (usize, u32) {
    match shared {
        Shared::Counter(CounterId(id)) => (0, id),
        Shared::Age(AgeId(id)) => (1, id),
        Shared::Meter(MeterId(id)) => (2, id),
        Shared::Rss(id) => (3, id),
    }
}

/// The reverse of [`parts`].
fn assembled(kind: usize, id: u32) -> Option<Shared> {
    Some(match kind {
        0 => Shared::Counter(CounterId(id)),
        1 => Shared::Age(AgeId(id)),
        2 => Shared::Meter(MeterId(id)),
        3 => Shared::Rss(id),
        _ => return None,
    })
}

impl Lives {
    pub(super) fn new() -> Lives {
        Lives { kinds: std::array::from_fn(|_| (0..CHUNKS).map(|_| OnceLock::new()).collect()) }
    }

    /// The handle of an action that was just made; never null.
    ///
    /// # Errors
    /// ENOMEM: more of them than can be told apart.
    pub(super) fn begin(&self, shared: Shared) -> Result<*mut ffi::rte_flow_action_handle, Refusal> {
        let (kind, id) = parts(shared);
        let chunk = self.kinds[kind].get(id as usize / CHUNK);
        let none = Refusal::new(Errno::Nomem, Cause::Unspecified, "out of handles for indirect actions");
        let chunk = chunk.ok_or(none)?.get_or_init(|| (0..CHUNK).map(|_| AtomicU16::new(0)).collect());
        let life = &chunk[id as usize % CHUNK];
        // Nobody else has this number: it was free a moment ago.
        let born = (life.load(Ordering::Relaxed) | 1).wrapping_add(2);
        life.store(born, Ordering::Relaxed);
        let bits = (KIND_BASE + kind as u64) << KIND_SHIFT | u64::from(born) << LIFE_SHIFT | u64::from(id);
        Ok(ptr::without_provenance_mut(bits as usize))
    }

    /// What a handle means; `None` if that exists no more, or never did.
    pub(super) fn find(&self, handle: *const ffi::rte_flow_action_handle) -> Option<Shared> {
        let bits = handle.addr() as u64;
        let kind = usize::try_from((bits >> KIND_SHIFT).checked_sub(KIND_BASE)?).ok()?;
        let shared = assembled(kind, bits as u32)?;
        let life = self.life(shared)?.load(Ordering::Relaxed);
        (life & 1 == 1 && life == (bits >> LIFE_SHIFT) as u16).then_some(shared)
    }

    /// The action exists no more.
    pub(super) fn end(&self, shared: Shared) {
        if let Some(life) = self.life(shared) {
            // Twice at once ends it once.
            let life_now = life.load(Ordering::Relaxed);
            if life_now & 1 == 1 {
                let _ = life.compare_exchange(
                    life_now,
                    life_now.wrapping_add(1),
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                );
            }
        }
    }

    /// The device has forgotten its counters and ages.
    pub(super) fn end_counters_and_ages(&self) {
        for kind in &self.kinds[..2] {
            for life in kind.iter().filter_map(OnceLock::get).flatten() {
                life.fetch_add(life.load(Ordering::Relaxed) & 1, Ordering::Relaxed);
            }
        }
    }

    fn life(&self, shared: Shared) -> Option<&AtomicU16> {
        let (kind, id) = parts(shared);
        Some(&self.kinds[kind].get(id as usize / CHUNK)?.get()?[id as usize % CHUNK])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Shared; 5] = [
        Shared::Counter(CounterId(0)),
        Shared::Counter(CounterId((CHUNK * CHUNKS - 1) as u32)),
        Shared::Age(AgeId(7)),
        Shared::Meter(MeterId(0)),
        Shared::Rss(3),
    ];

    #[test]
    fn a_handle_means_one_life_of_one_number() {
        let lives = Lives::new();
        for shared in ALL {
            let first = lives.begin(shared).unwrap();
            assert_eq!(lives.find(first), Some(shared));
            lives.end(shared);
            assert_eq!(lives.find(first), None, "ended");
            lives.end(shared);
            let second = lives.begin(shared).unwrap();
            assert_eq!((lives.find(first), lives.find(second)), (None, Some(shared)), "used again");
        }
        let handles = ALL.map(|shared| lives.begin(shared).unwrap());
        lives.end_counters_and_ages();
        let left = handles.map(|handle| lives.find(handle));
        assert_eq!(left, [None, None, None, Some(ALL[3]), Some(ALL[4])]);
        let handles = ALL.map(|shared| lives.begin(shared).unwrap());
        assert!((1..handles.len()).all(|at| !handles[..at].contains(&handles[at])), "all distinct");
    }

    #[test]
    fn what_was_never_given_out_means_nothing() {
        let lives = Lives::new();
        let handle = lives.begin(Shared::Rss(5)).unwrap();
        for stranger in [0, 1, 5, usize::MAX, handle.addr() + 1, handle.addr() ^ 1 << LIFE_SHIFT] {
            assert_eq!(lives.find(ptr::without_provenance(stranger)), None, "{stranger:#x}");
        }
        let too_many = Shared::Rss((CHUNK * CHUNKS) as u32);
        assert_eq!(lives.begin(too_many).map_err(|refusal| refusal.errno), Err(Errno::Nomem));
        assert_eq!(Lives::new().find(handle), None, "another device's");
    }
}
