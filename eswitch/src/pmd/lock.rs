//! A lock for few cores: who waits goes before who only tries; waiting spins briefly, then yields the core.
//!
//! Packet threads only try. Since that fails while anyone waits, a control thread gets in between two bursts;
//! a packet thread that has been turned away too often waits as well. Those who wait are in no order: there
//! may be more of them than cores, and a turn of one that does not run would keep all others out.

use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// Looks at the lock before a waiting thread gives up its core: the holder may need it.
const SPINS: u32 = 64;

/// Values behind a lock.
pub(super) struct Fair<T> {
    held: AtomicBool,
    /// Threads that wait.
    waiting: AtomicU32,
    /// Times that someone found it taken.
    contended: AtomicU64,
    value: UnsafeCell<T>,
}

// SAFETY: only who set `held` reaches the value, and it is set and cleared with acquire and release; so a
// `Fair<T>` moves `T` between threads, no more.
unsafe impl<T: Send> Sync for Fair<T> {}

/// The right to use the value, until dropped.
pub(super) struct Guard<'a, T> {
    lock: &'a Fair<T>,
}

impl<T> Fair<T> {
    pub(super) const fn new(value: T) -> Fair<T> {
        Fair {
            held: AtomicBool::new(false),
            waiting: AtomicU32::new(0),
            contended: AtomicU64::new(0),
            value: UnsafeCell::new(value),
        }
    }

    /// Enters if nobody is in or waits.
    #[inline]
    pub(super) fn try_lock(&self) -> Option<Guard<'_, T>> {
        let entered = if self.waiting.load(Ordering::Relaxed) == 0 { self.enter() } else { None };
        if entered.is_none() {
            self.contended.fetch_add(1, Ordering::Relaxed);
        }
        entered
    }

    /// Waits until it can enter.
    #[inline]
    pub(super) fn lock(&self) -> Guard<'_, T> {
        match self.enter() {
            Some(guard) => guard,
            None => self.wait(),
        }
    }

    #[inline]
    fn enter(&self) -> Option<Guard<'_, T>> {
        let free = !self.held.load(Ordering::Relaxed) && !self.held.swap(true, Ordering::Acquire);
        // Not `then_some`: a guard made in vain would open the lock when dropped.
        free.then(|| Guard { lock: self })
    }

    #[cold]
    fn wait(&self) -> Guard<'_, T> {
        self.contended.fetch_add(1, Ordering::Relaxed);
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let mut spins = 0;
        let guard = loop {
            if let Some(guard) = self.enter() {
                break guard;
            }
            spins += 1;
            if spins % SPINS == 0 {
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        };
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        guard
    }

    /// Times that someone found it taken.
    pub(super) fn contended(&self) -> u64 {
        self.contended.load(Ordering::Relaxed)
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: who has a guard is alone.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: who has a guard is alone, and borrows it mutably.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for Guard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.lock.held.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_update_is_lost() {
        let lock = Fair::new(0_u64);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..5000).for_each(|_| *lock.lock() += 1));
            }
            scope.spawn(|| {
                let mut done = 0;
                while done < 1000 {
                    match lock.try_lock() {
                        Some(mut value) => (*value, done) = (*value + 1, done + 1),
                        None => std::thread::yield_now(),
                    }
                }
            });
        });
        assert_eq!(*lock.lock(), 21_000);
    }

    #[test]
    fn trying_does_not_overtake_who_waits() {
        let lock = Fair::new(());
        let held = lock.lock();
        assert!(lock.try_lock().is_none());
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| drop(lock.lock()));
            while lock.waiting.load(Ordering::Relaxed) == 0 {
                std::thread::yield_now();
            }
            assert!(lock.try_lock().is_none());
            drop(held);
            waiter.join().unwrap();
        });
        assert!(lock.try_lock().is_some());
        assert!(lock.contended() >= 2);
    }

    #[test]
    fn a_panic_in_the_holder_lets_the_next_one_in() {
        let lock = Fair::new(1);
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _held = lock.lock();
            panic!("on purpose");
        }));
        assert!(result.is_err());
        assert_eq!(lock.try_lock().map(|value| *value), Some(1));
    }
}
