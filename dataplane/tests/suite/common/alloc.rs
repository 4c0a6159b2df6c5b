//! An allocator that knows what each thread did, to prove that the packet path does not allocate.
//!
//! A program that uses it declares, in its root file,
//!
//! ```text
//! #[global_allocator]
//! static ALLOCATOR: common::alloc::Watched = common::alloc::Watched(std::alloc::System);
//! ```
//!
//! and wraps what must not allocate in [`forbidden`]. Only the calling thread is watched, so tests may
//! run side by side.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// What this thread did while it was watched. `const` and without `Drop`: reading it never allocates.
    static SEEN: Cell<Seen> = const { Cell::new(Seen { watched: false, taken: 0, given_back: 0 }) };
}

#[derive(Clone, Copy)]
struct Seen {
    watched: bool,
    taken: u64,
    given_back: u64,
}

/// What a closure did with the heap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Heap {
    /// Allocations and reallocations.
    pub(crate) taken: u64,
    /// Deallocations.
    pub(crate) given_back: u64,
}

/// Runs `run` and tells what it did with the heap. Not to be nested.
pub(crate) fn watched<R>(run: impl FnOnce() -> R) -> (R, Heap) {
    /// Ends the watch also when `run` panics, so that the message can be formatted in peace.
    struct Watch;
    impl Drop for Watch {
        fn drop(&mut self) {
            SEEN.set(Seen { watched: false, ..SEEN.get() });
        }
    }
    assert!(!SEEN.get().watched, "watches do not nest");
    SEEN.set(Seen { watched: true, taken: 0, given_back: 0 });
    let watch = Watch;
    let result = run();
    drop(watch);
    let Seen { taken, given_back, .. } = SEEN.get();
    (result, Heap { taken, given_back })
}

/// Runs `run`.
///
/// # Panics
/// If it allocated. Giving memory back is allowed: it is how a test's packets end.
#[track_caller]
pub(crate) fn forbidden<R>(run: impl FnOnce() -> R) -> R {
    let (result, heap) = watched(run);
    assert_eq!(heap.taken, 0, "allocations where none are allowed");
    result
}

/// An allocator, watched.
pub(crate) struct Watched<A = System>(pub(crate) A);

impl Watched {
    fn count(taken: u64, given_back: u64) {
        // A thread that is ending may have no `SEEN` any more; nobody watches it then.
        let _ = SEEN.try_with(|cell| {
            let seen = cell.get();
            if seen.watched {
                let (taken, given_back) = (seen.taken + taken, seen.given_back + given_back);
                cell.set(Seen { taken, given_back, ..seen });
            }
        });
    }
}

// SAFETY: every method passes its arguments on to the inner allocator and returns what that returned;
// counting touches a thread-local `Cell` that needs no allocation and cannot panic.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Watched<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Watched::count(1, 0);
        // SAFETY: the caller keeps `GlobalAlloc::alloc`'s contract, which is the inner one's.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Watched::count(1, 0);
        // SAFETY: as for `alloc`.
        unsafe { self.0.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Watched::count(1, 0);
        // SAFETY: `block` came from this allocator, hence from the inner one, with this layout.
        unsafe { self.0.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        Watched::count(0, 1);
        // SAFETY: `block` came from this allocator, hence from the inner one, with this layout.
        unsafe { self.0.dealloc(block, layout) }
    }
}
