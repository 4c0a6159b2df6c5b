//! What control threads have done in the model: by the packet thread that drives the device, if one does.
//!
//! A control thread that held the model's lock itself could be kept from running in the middle, by whatever
//! else its core has to do, and packets would wait for as long: milliseconds, where the operation takes one
//! microsecond. A device has no such thing: its operations go on by themselves. So they are handed over, and
//! only the one who asked waits. If nobody has driven the device lately, it enters by itself.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};

use super::clock::Clock;
use super::lock::{Fair, Guard};
use crate::model::types::Tick;

/// Nanoseconds after which who drove the device last is not expected back: a packet thread that polls is back
/// within a microsecond, or a burst; one that sleeps between polls may not be for long.
const LATELY_NS: u64 = 100_000;

/// Nanoseconds for which who asked keeps its core, which may be another's for milliseconds once it is given
/// up. After them who drives may need that very core.
const SPIN_NS: u64 = 100_000;

/// Nanoseconds after which who drives the device is no longer waited for: it is kept from running.
const PATIENCE_NS: u64 = 1_000_000;

/// Nanoseconds after which the device's own work is anybody's: nobody waits for it as for a request, and who
/// does it may be kept from running with the model's lock.
const ABSENCE_NS: u64 = 5_000_000;

/// Who drives the device.
pub(super) struct Presence {
    /// When it began or ended a round last; 0: never.
    seen: AtomicU64,
    /// It is in a round.
    inside: AtomicBool,
    /// Which thread.
    who: AtomicUsize,
}

impl Presence {
    pub(super) const fn new() -> Presence {
        Presence { seen: AtomicU64::new(0), inside: AtomicBool::new(false), who: AtomicUsize::new(0) }
    }

    /// The caller begins a round, which nobody else is in.
    #[inline]
    pub(super) fn enter(&self, now: Tick) {
        self.who.store(this_thread(), Ordering::Relaxed);
        self.seen.store(now.0.max(1), Ordering::Relaxed);
        self.inside.store(true, Ordering::Relaxed);
    }

    /// The round ends.
    #[inline]
    pub(super) fn leave(&self, now: Tick) {
        self.seen.store(now.0.max(1), Ordering::Relaxed);
        self.inside.store(false, Ordering::Relaxed);
    }

    /// Whether another thread than the caller drives: then things go on without the caller.
    pub(super) fn is_felt(&self, now: Tick) -> bool {
        self.was_here(now, if self.inside.load(Ordering::Relaxed) { PATIENCE_NS } else { LATELY_NS })
    }

    /// Whether the caller may leave to another thread what is not urgent.
    pub(super) fn is_remembered(&self, now: Tick) -> bool {
        self.was_here(now, ABSENCE_NS)
    }

    fn was_here(&self, now: Tick, lately: u64) -> bool {
        let seen = self.seen.load(Ordering::Relaxed);
        seen != 0 && now.since(Tick(seen)) < lately && self.who.load(Ordering::Relaxed) != this_thread()
    }
}

/// Requests that wait for who drives the device.
pub(super) struct Requests<T> {
    /// The latest one, which links to those before it.
    latest: AtomicPtr<Request<T>>,
}

/// One request, in the frame of who waits for it.
struct Request<T> {
    /// Does `what`.
    run: unsafe fn(*mut (), &mut T),
    what: *mut (),
    earlier: *mut Request<T>,
    done: AtomicBool,
}

/// What is to be done, then what came of it.
enum Work<F, R> {
    Asked(F),
    Running,
    Done(Result<R, Box<dyn Any + Send>>),
}

impl<T> Requests<T> {
    pub(super) const fn new() -> Requests<T> {
        Requests { latest: AtomicPtr::new(ptr::null_mut()) }
    }

    /// Who drives comes by: does what was asked for.
    #[inline]
    pub(super) fn visit(&self, value: &mut Guard<'_, T>) {
        if !self.latest.load(Ordering::Relaxed).is_null() {
            self.serve(value);
        }
    }

    /// Has something done with the value, and waits for it.
    pub(super) fn ask<R: Send>(
        &self,
        lock: &Fair<T>,
        presence: &Presence,
        clock: &Clock,
        body: impl FnOnce(&mut T) -> R + Send,
    ) -> R {
        let begin = clock.now();
        if !presence.is_felt(begin) {
            return body(&mut lock.lock());
        }
        let mut work: Work<_, R> = Work::Asked(body);
        let mut request = Request {
            run: run_of(&work),
            what: (&raw mut work).cast(),
            earlier: self.latest.load(Ordering::Relaxed),
            done: AtomicBool::new(false),
        };
        let request = &raw mut request;
        // SAFETY: until it is in the list nobody else has it; from then on it is only read. It stays where it
        // is until it is done.
        unsafe {
            while let Err(latest) = self.latest.compare_exchange_weak(
                (*request).earlier,
                request,
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                (*request).earlier = latest;
            }
        }
        // SAFETY: as above.
        while !unsafe { &*request }.done.load(Ordering::Acquire) {
            let now = clock.now();
            let waited = now.since(begin);
            if !presence.is_felt(now) || waited >= PATIENCE_NS {
                // Whoever serves keeps the lock until all is done that it took on; so this one is done then.
                self.serve(&mut lock.lock());
            } else if waited < SPIN_NS {
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
        match work {
            Work::Done(Ok(result)) => result,
            Work::Done(Err(panic)) => resume_unwind(panic),
            Work::Asked(_) | Work::Running => unreachable!("a request that is done has a result"),
        }
    }

    #[cold]
    fn serve(&self, value: &mut Guard<'_, T>) {
        let mut at = self.latest.swap(ptr::null_mut(), Ordering::Acquire);
        while !at.is_null() {
            // SAFETY: who asked waits until it is done, so that the request and its work are there; it was
            // taken off the list by one thread, which is alone with it. Once it is done it is not looked at.
            unsafe {
                let request = &*at;
                at = request.earlier;
                (request.run)(request.what, value);
                request.done.store(true, Ordering::Release);
            }
        }
    }
}

/// What does this work.
fn run_of<T, R, F: FnOnce(&mut T) -> R>(_: &Work<F, R>) -> unsafe fn(*mut (), &mut T) {
    run::<T, R, F>
}

/// Does what was asked, and keeps a panic for who did.
///
/// # Safety
/// `work` points to a `Work<F, R>` that nobody else uses meanwhile; `F` and `R` may be moved between threads.
unsafe fn run<T, R, F: FnOnce(&mut T) -> R>(work: *mut (), value: &mut T) {
    // SAFETY: the caller's promise.
    let work = unsafe { &mut *work.cast::<Work<F, R>>() };
    if let Work::Asked(body) = std::mem::replace(work, Work::Running) {
        *work = Work::Done(catch_unwind(AssertUnwindSafe(|| body(value))));
    }
}

/// A number that no other thread has which lives now.
#[inline]
fn this_thread() -> usize {
    thread_local!(static HERE: Cell<u8> = const { Cell::new(0) });
    HERE.with(|here| ptr::from_ref(here).addr())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a device has.
    struct Device<T> {
        requests: Requests<T>,
        lock: Fair<T>,
        presence: Presence,
        clock: Clock,
    }

    impl<T> Device<T> {
        fn new(value: T) -> Device<T> {
            let (requests, presence, clock) = (Requests::new(), Presence::new(), Clock::counting());
            Device { requests, lock: Fair::new(value), presence, clock }
        }

        /// One round.
        fn drive(&self) {
            self.presence.enter(self.clock.now());
            if let Some(mut value) = self.lock.try_lock() {
                self.requests.visit(&mut value);
            }
            self.presence.leave(self.clock.now());
        }

        fn ask<R: Send>(&self, body: impl FnOnce(&mut T) -> R + Send) -> R {
            self.requests.ask(&self.lock, &self.presence, &self.clock, body)
        }
    }

    /// Whether drivers are to end.
    struct End(AtomicBool);

    impl End {
        fn until_then(&self, round: impl Fn()) {
            while !self.0.load(Ordering::Acquire) {
                round();
            }
        }
    }

    /// Has them end, whatever comes of the test.
    struct EndOnDrop<'a>(&'a End);

    impl Drop for EndOnDrop<'_> {
        fn drop(&mut self) {
            self.0.0.store(true, Ordering::Release);
        }
    }

    #[test]
    fn all_is_done_once_by_whoever_drives() {
        let device = Device::new(Vec::new());
        let (end, handed_over) = (End(AtomicBool::new(false)), AtomicBool::new(false));
        let asked: u32 = std::thread::scope(|scope| {
            let _end = EndOnDrop(&end);
            scope.spawn(|| end.until_then(|| device.drive()));
            // While the machine keeps the driver from running, who asks does it; so until both were seen.
            let ask = |asker: u32| {
                let mut asked = 0;
                while asked < 1000 || !handed_over.load(Ordering::Relaxed) {
                    let here = this_thread();
                    let there = device.ask(|value: &mut Vec<u32>| {
                        value.push(asker + asked);
                        this_thread()
                    });
                    handed_over.fetch_or(there != here, Ordering::Relaxed);
                    asked += 1;
                }
                asked
            };
            let askers: Vec<_> = (0..3).map(|asker| scope.spawn(move || ask(asker << 24))).collect();
            askers.into_iter().map(|asker| asker.join().unwrap()).sum()
        });
        let mut value = std::mem::take(&mut *device.lock.lock());
        value.sort_unstable();
        value.dedup();
        assert_eq!(value.len(), asked as usize);
    }

    #[test]
    fn without_a_driver_it_is_done_by_who_asks() {
        let device = Device::new(1);
        let me = this_thread();
        let asked = || device.ask(|value| (*value, this_thread()));
        assert_eq!(asked(), (1, me));
        // A driver that came by and does not come again, and one that is not done: waited for, not for ever.
        std::thread::scope(|scope| {
            scope.spawn(|| device.drive());
        });
        assert_eq!(asked(), (1, me));
        std::thread::scope(|scope| {
            scope.spawn(|| device.presence.enter(device.clock.now()));
        });
        assert_eq!(asked(), (1, me));
        // The driver itself asks.
        device.drive();
        assert_eq!(asked(), (1, me));
    }

    #[test]
    fn who_drives_is_felt_for_a_while() {
        let presence = Presence::new();
        assert!(!presence.is_felt(Tick(0)));
        std::thread::scope(|scope| {
            scope.spawn(|| presence.enter(Tick(1000)));
        });
        assert!(presence.is_felt(Tick(1000 + LATELY_NS)) && !presence.is_felt(Tick(1000 + PATIENCE_NS)));
        assert!(presence.is_remembered(Tick(1000 + PATIENCE_NS)));
        assert!(!presence.is_remembered(Tick(1000 + ABSENCE_NS)));
        presence.leave(Tick(2000));
        assert!(presence.is_felt(Tick(1999 + LATELY_NS)) && !presence.is_felt(Tick(2000 + LATELY_NS)));
        presence.enter(Tick(3000));
        assert!(!presence.is_felt(Tick(3000)) && !presence.is_remembered(Tick(3000)), "by itself");
    }

    #[test]
    fn a_panic_is_of_who_asked() {
        let (device, end) = (Device::new(Vec::new()), End(AtomicBool::new(false)));
        std::thread::scope(|scope| {
            let _end = EndOnDrop(&end);
            scope.spawn(|| end.until_then(|| device.drive()));
            while !device.presence.is_felt(device.clock.now()) {
                std::thread::yield_now();
            }
            let asked = catch_unwind(AssertUnwindSafe(|| {
                device.ask(|value: &mut Vec<u32>| {
                    value.push(1);
                    panic!("on purpose");
                })
            }));
            assert_eq!(asked.unwrap_err().downcast_ref(), Some(&"on purpose"));
            assert_eq!(device.ask(|value| value.len()), 1);
        });
    }
}
