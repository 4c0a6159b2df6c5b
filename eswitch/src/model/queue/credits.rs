//! Counters, age contexts and meters that a port's rules may still take: known at once, on any thread,
//! without asking the device.

use std::sync::atomic::{AtomicU32, Ordering};

use super::{Cause, Errno, Refusal};

/// What a rule takes for itself when it is created.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Needs {
    /// A counter.
    pub counter: bool,
    /// An age context.
    pub age: bool,
    /// A meter.
    pub meter: bool,
}

/// How many objects rules may still take. Shared by the queues of a port and the device.
#[derive(Debug)]
pub struct Credits {
    counters: AtomicU32,
    /// Counters given back that count for other rules only after the next refresh.
    waiting: AtomicU32,
    ages: AtomicU32,
    meters: AtomicU32,
}

impl Credits {
    /// So many of each.
    #[must_use]
    pub const fn new(counters: u32, ages: u32, meters: u32) -> Credits {
        Credits {
            counters: AtomicU32::new(counters),
            waiting: AtomicU32::new(0),
            ages: AtomicU32::new(ages),
            meters: AtomicU32::new(meters),
        }
    }

    /// What is left: counters, age contexts, meters. Counters that wait for a refresh are not.
    #[must_use]
    pub fn left(&self) -> [u32; 3] {
        [&self.counters, &self.ages, &self.meters].map(|credit| credit.load(Ordering::Relaxed))
    }

    /// Takes what a rule needs: all of it or nothing.
    ///
    /// # Errors
    /// Without a counter ENOENT, or EAGAIN if there will be one after the next refresh
    /// (`mlx5_hws_cnt_pool_get`); ENOMEM without an age context or a meter; all as mlx5 22.11 under HWS.
    pub fn take(&self, needs: Needs) -> Result<(), Refusal> {
        if needs.counter && !take(&self.counters) {
            let later = self.waiting.load(Ordering::Acquire) > 0;
            let errno = if later { Errno::Again } else { Errno::Noent };
            return Err(Refusal::new(errno, Cause::Unspecified, "no counter is left"));
        }
        if needs.age && !take(&self.ages) {
            self.give(Needs { counter: needs.counter, ..Needs::default() });
            return Err(Refusal::new(Errno::Nomem, Cause::Unspecified, "no age context is left"));
        }
        if needs.meter && !take(&self.meters) {
            self.give(Needs { meter: false, ..needs });
            return Err(Refusal::new(Errno::Nomem, Cause::Unspecified, "no meter is left"));
        }
        Ok(())
    }

    /// Gives back what a rule has used: a counter for use after the next refresh.
    pub fn retire(&self, needs: Needs) {
        if needs.counter {
            self.waiting.fetch_add(1, Ordering::Release);
        }
        self.give(Needs { counter: false, ..needs });
    }

    /// The counters have been refreshed: those that waited for it can be taken.
    pub fn recycle(&self) {
        let waiting = self.waiting.swap(0, Ordering::AcqRel);
        self.counters.fetch_add(waiting, Ordering::Release);
    }

    /// Gives back what was taken and not used.
    pub fn give(&self, needs: Needs) {
        for (given, credit) in
            [(needs.counter, &self.counters), (needs.age, &self.ages), (needs.meter, &self.meters)]
        {
            if given {
                credit.fetch_add(1, Ordering::Release);
            }
        }
    }
}

fn take(credit: &AtomicU32) -> bool {
    credit.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
}
