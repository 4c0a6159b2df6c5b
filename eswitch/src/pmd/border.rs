//! The border with C: nothing unwinds across it.
//!
//! A panic is a fault of this driver. It is caught, counted, logged (ever more rarely), and answered with
//! what the caller takes for an error; the application goes on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use super::log;

/// Panics caught so far, in the whole process.
static CAUGHT: AtomicU64 = AtomicU64::new(0);

/// Linux's EIO, which a caller sees after a panic.
pub(super) const EIO: i32 = 5;

/// Runs `body`; if it panics, the answer is `fallback`.
#[inline]
pub(super) fn guard<T>(name: &'static str, fallback: T, body: impl FnOnce() -> T) -> T {
    // What `body` left half done is the device's state behind its locks, which do not poison: counters may be
    // off by a packet, memory is never shared without its lock.
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(value) => value,
        Err(payload) => {
            report(name, payload.as_ref());
            fallback
        }
    }
}

/// [`guard`] for callbacks that return 0 or a negative errno.
#[inline]
pub(super) fn status(name: &'static str, body: impl FnOnce() -> Result<(), i32>) -> i32 {
    guard(name, -EIO, || body().map_or_else(|errno| -errno.abs(), |()| 0))
}

/// Panics caught so far.
pub(super) fn caught() -> u64 {
    CAUGHT.load(Ordering::Relaxed)
}

#[cold]
fn report(name: &'static str, payload: &(dyn std::any::Any + Send)) {
    let nth = CAUGHT.fetch_add(1, Ordering::Relaxed) + 1;
    let why = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    // A fault on the packet path would repeat with every burst.
    if nth.is_power_of_two() {
        log::error(&format!("internal error in {name} (number {nth}): {why}; please report it"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    extern "C" fn entry(fail: bool) -> i32 {
        status("entry", || if fail { panic!("on purpose") } else { Err(22) })
    }

    #[test]
    fn a_panic_becomes_an_error_and_is_counted() {
        let before = caught();
        assert_eq!(entry(false), -22);
        assert_eq!(caught(), before);
        assert_eq!(entry(true), -EIO);
        assert_eq!(guard("null", std::ptr::null::<u8>(), || panic!("{}", 1)), std::ptr::null());
        assert!(caught() >= before + 2);
        assert_eq!(status("fine", || Ok(())), 0);
    }
}
