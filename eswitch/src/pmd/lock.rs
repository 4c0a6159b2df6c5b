//! A fair lock for few cores: first come, first served; waiting spins briefly, then yields the core.
//!
//! Packet threads only try. Since everyone else queues up with a ticket, a waiting control thread gets in
//! between two bursts, and a packet thread that has been turned away too often may queue up as well.

use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Looks at the lock before a waiting thread gives up its core: the holder may need it.
const SPINS: u32 = 64;

/// Values behind a lock.
pub(super) struct Fair<T> {
    /// The next ticket.
    next: AtomicU32,
    /// The ticket that may enter.
    serving: AtomicU32,
    /// Times that someone found it taken.
    contended: AtomicU64,
    value: UnsafeCell<T>,
}

// SAFETY: only the holder of the served ticket reaches the value, and tickets are handed on with
// release/acquire; so a `Fair<T>` moves `T` between threads, no more.
unsafe impl<T: Send> Sync for Fair<T> {}

/// The right to use the value, until dropped.
pub(super) struct Guard<'a, T> {
    lock: &'a Fair<T>,
}

impl<T> Fair<T> {
    pub(super) const fn new(value: T) -> Fair<T> {
        Fair {
            next: AtomicU32::new(0),
            serving: AtomicU32::new(0),
            contended: AtomicU64::new(0),
            value: UnsafeCell::new(value),
        }
    }

    /// Enters if nobody is in or waits.
    #[inline]
    pub(super) fn try_lock(&self) -> Option<Guard<'_, T>> {
        let serving = self.serving.load(Ordering::Acquire);
        let entered = self.next.compare_exchange(
            serving,
            serving.wrapping_add(1),
            Ordering::Acquire,
            Ordering::Relaxed,
        );
        if entered.is_err() {
            self.contended.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(Guard { lock: self })
    }

    /// Waits for its turn.
    pub(super) fn lock(&self) -> Guard<'_, T> {
        let ticket = self.next.fetch_add(1, Ordering::Relaxed);
        let mut spins = 0;
        while self.serving.load(Ordering::Acquire) != ticket {
            if spins == 0 {
                self.contended.fetch_add(1, Ordering::Relaxed);
            }
            spins += 1;
            if spins % SPINS == 0 {
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
        Guard { lock: self }
    }

    /// Times that someone found it taken.
    pub(super) fn contended(&self) -> u64 {
        self.contended.load(Ordering::Relaxed)
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: this guard's ticket is the one served.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: this guard's ticket is the one served, and the guard is borrowed mutably.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for Guard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // Only the holder writes it.
        let serving = self.lock.serving.load(Ordering::Relaxed);
        self.lock.serving.store(serving.wrapping_add(1), Ordering::Release);
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
            while lock.next.load(Ordering::Relaxed) < 2 {
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

    #[test]
    fn tickets_wrap() {
        let lock = Fair::new(0);
        lock.next.store(u32::MAX, Ordering::Relaxed);
        lock.serving.store(u32::MAX, Ordering::Relaxed);
        for _ in 0..3 {
            *lock.lock() += 1;
        }
        *lock.try_lock().unwrap() += 1;
        assert_eq!(*lock.lock(), 4);
    }
}
