//! What control threads have done in the model: by the packet thread that drives the device, if one does.
//!
//! A control thread that held the model's lock itself could be kept from running in the middle, by whatever
//! else its core has to do, and packets would wait for as long: milliseconds, where the operation takes one
//! microsecond. A device has no such thing: its operations go on by themselves. So they are handed over, and
//! only the one who asked waits. If nobody has driven the device lately, it enters by itself.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};

use super::clock::Clock;
use super::lock::{Fair, Guard};
use crate::model::types::Tick;

/// Nanoseconds without a visit after which nobody is thought to drive the device: a packet thread that polls
/// comes by each microsecond, or after a burst; one that sleeps between polls may not come for long.
const LATELY_NS: u64 = 50_000;

/// Nanoseconds after which who asked no longer waits for a visit.
const PATIENCE_NS: u64 = 200_000;

/// Looks before a waiting thread gives up its core: who drives may need it.
const SPINS: u32 = 64;

/// Requests that wait for a packet thread to come by.
pub(super) struct Requests<T> {
    /// The latest one, which links to those before it.
    latest: AtomicPtr<Request<T>>,
    /// When a packet thread came by last; 0: never.
    visited: AtomicU64,
    /// Which thread.
    visitor: AtomicUsize,
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
        Requests {
            latest: AtomicPtr::new(ptr::null_mut()),
            visited: AtomicU64::new(0),
            visitor: AtomicUsize::new(0),
        }
    }

    /// A packet thread comes by: does what was asked for.
    #[inline]
    pub(super) fn visit(&self, now: Tick, value: &mut Guard<'_, T>) {
        self.visited.store(now.0.max(1), Ordering::Relaxed);
        self.visitor.store(this_thread(), Ordering::Relaxed);
        if !self.latest.load(Ordering::Relaxed).is_null() {
            self.serve(value);
        }
    }

    /// Whether a packet thread, not the caller, has come by lately: then things go on without the caller.
    pub(super) fn is_driven(&self, now: Tick) -> bool {
        let visited = self.visited.load(Ordering::Relaxed);
        visited != 0
            && now.since(Tick(visited)) < LATELY_NS
            && self.visitor.load(Ordering::Relaxed) != this_thread()
    }

    /// Has something done with the value, and waits for it.
    pub(super) fn ask<R: Send>(
        &self,
        lock: &Fair<T>,
        clock: &Clock,
        body: impl FnOnce(&mut T) -> R + Send,
    ) -> R {
        let begin = clock.now();
        if !self.is_driven(begin) {
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
        let mut spins = 0;
        // SAFETY: as above.
        while !unsafe { &*request }.done.load(Ordering::Acquire) {
            spins += 1;
            if spins % SPINS != 0 {
                std::hint::spin_loop();
            } else if clock.now().since(begin) < PATIENCE_NS {
                std::thread::yield_now();
            } else {
                // Whoever serves keeps the lock until all is done that it took on; so this one is done then.
                self.serve(&mut lock.lock());
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
    thread_local!(static HERE: u8 = const { 0 });
    HERE.with(|here| ptr::from_ref(here).addr())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Tick = Tick(Tick::SECOND);

    /// Whether drivers are to end.
    struct End(AtomicBool);

    impl End {
        fn has_come(&self) -> bool {
            self.0.load(Ordering::Acquire)
        }
    }

    /// A packet thread that comes by until its end.
    fn drive(requests: &Requests<Vec<u32>>, lock: &Fair<Vec<u32>>, clock: &Clock, end: &End) {
        while !end.has_come() {
            if let Some(mut value) = lock.try_lock() {
                requests.visit(clock.now(), &mut value);
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
        let (requests, lock, clock) = (Requests::new(), Fair::new(Vec::new()), Clock::counting());
        let (end, handed_over) = (End(AtomicBool::new(false)), AtomicBool::new(false));
        let asked: u32 = std::thread::scope(|scope| {
            let _end = EndOnDrop(&end);
            scope.spawn(|| drive(&requests, &lock, &clock, &end));
            // While the machine keeps the driver from running, who asks does it; so until both were seen.
            let ask = |asker: u32| {
                let mut asked = 0;
                while asked < 1000 || !handed_over.load(Ordering::Relaxed) {
                    let here = this_thread();
                    let there = requests.ask(&lock, &clock, |value: &mut Vec<u32>| {
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
        let mut value = std::mem::take(&mut *lock.lock());
        value.sort_unstable();
        value.dedup();
        assert_eq!(value.len(), asked as usize);
    }

    #[test]
    fn without_a_driver_it_is_done_by_who_asks() {
        let (requests, lock, clock) = (Requests::new(), Fair::new(1), Clock::counting());
        let me = this_thread();
        assert_eq!(requests.ask(&lock, &clock, |value| (*value, this_thread())), (1, me));
        // A driver that came by and does not come again: it is waited for, not for ever.
        std::thread::scope(|scope| {
            scope.spawn(|| requests.visit(clock.now(), &mut lock.lock()));
        });
        assert!(requests.is_driven(Tick(requests.visited.load(Ordering::Relaxed))));
        assert_eq!(requests.ask(&lock, &clock, |value| (*value, this_thread())), (1, me));
        assert!(!requests.is_driven(clock.now().after(SECOND.0)));
        // The driver itself asks.
        requests.visit(clock.now(), &mut lock.lock());
        assert!(!requests.is_driven(clock.now()));
    }

    #[test]
    fn a_panic_is_of_who_asked() {
        let (requests, lock, clock) = (Requests::new(), Fair::new(Vec::new()), Clock::counting());
        let end = End(AtomicBool::new(false));
        std::thread::scope(|scope| {
            let _end = EndOnDrop(&end);
            scope.spawn(|| drive(&requests, &lock, &clock, &end));
            while !requests.is_driven(clock.now()) {
                std::thread::yield_now();
            }
            let asked = catch_unwind(AssertUnwindSafe(|| {
                requests.ask(&lock, &clock, |value: &mut Vec<u32>| {
                    value.push(1);
                    panic!("on purpose");
                })
            }));
            assert_eq!(asked.unwrap_err().downcast_ref(), Some(&"on purpose"));
            assert_eq!(requests.ask(&lock, &clock, |value| value.len()), 1);
        });
    }
}
