//! Long work on a thread of its own, while this one goes on with something else.

use crate::panics::{self, Panicked};
use std::thread;

/// Does `work` on another thread and `meanwhile` on this one, again and again until `work` is done. It is
/// `meanwhile` that waits, for as long as the result may come too late. Where the system has no thread to
/// give, nothing happens meanwhile, and that is all that is lost.
///
/// # Errors
///
/// What `work` said when it panicked; nothing else has suffered by that.
pub(crate) fn beside<T: Send>(work: impl Fn() -> T + Sync, meanwhile: impl FnMut()) -> Result<T, Panicked> {
    // It runs where this thread may: not on the workers' CPUs.
    on(thread::Builder::new().name("builder".into()), work, meanwhile)
}

fn on<T: Send>(
    builder: thread::Builder,
    work: impl Fn() -> T + Sync,
    mut meanwhile: impl FnMut(),
) -> Result<T, Panicked> {
    let work = &work;
    thread::scope(|scope| match builder.spawn_scoped(scope, work) {
        Ok(thread) => {
            while !thread.is_finished() {
                meanwhile();
            }
            thread.join().map_err(|payload| Panicked::of(&*payload))
        }
        Err(error) => {
            let remedy = "nobody is answered meanwhile: allow more tasks (TasksMax=, pids.max, ulimit -u)";
            tracing::warn!(%error, "no thread to build a configuration on; {remedy}");
            panics::catch(work)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::{beside, on};
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

    #[test]
    fn it_is_done_here_where_there_is_no_thread() {
        // More than there is memory for its stack.
        let none = || std::thread::Builder::new().stack_size(1 << 60);
        let here = std::thread::current().id();
        let done = on(none(), || std::thread::current().id(), || panic!("there is nobody to wait for"));
        assert_eq!(done, Ok(here));
        let told = on(none(), || -> u32 { panic!("too much") }, || {}).expect_err("a panic").to_string();
        assert_eq!(told, "too much");
    }
}
