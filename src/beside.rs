//! Long work on a thread of its own, while this one goes on with something else.

use crate::panics::{self, Panicked};
use std::thread;

/// Does `work` on another thread and `meanwhile` on this one, again and again until `work` is done. It is
/// `meanwhile` that waits, for as long as the result may come too late.
///
/// # Errors
///
/// What `work` said when it panicked; nothing else has suffered by that.
pub(crate) fn beside<T: Send>(
    work: impl Fn() -> T + Sync,
    mut meanwhile: impl FnMut(),
) -> Result<T, Panicked> {
    let work = &work;
    thread::scope(|scope| {
        // It runs where this thread may: not on the workers' CPUs.
        match thread::Builder::new().name("builder".into()).spawn_scoped(scope, work) {
            Ok(thread) => {
                while !thread.is_finished() {
                    meanwhile();
                }
                thread.join().map_err(|payload| Panicked::of(&*payload))
            }
            // The system has no thread to give.
            Err(_) => panics::catch(work),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::beside;
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

    #[test]
    fn both_are_done_at_once() {
        let turns = AtomicU32::new(0);
        // Ends only because the other goes on.
        let work = || {
            while turns.load(SeqCst) < 3 {
                std::thread::yield_now();
            }
            "done"
        };
        let done = beside(work, || {
            turns.fetch_add(1, SeqCst);
        });
        assert_eq!(done, Ok("done"));
        assert!(turns.load(SeqCst) >= 3);
    }

    #[test]
    fn a_panic_is_told_and_no_more() {
        let work = || -> u32 { panic!("too much") };
        let told = beside(work, || {}).expect_err("a panic").to_string();
        assert_eq!(told, "too much");
    }
}
