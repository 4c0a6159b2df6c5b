//! Long work on a thread of its own, while this one goes on with something else.

use crate::panics::{self, Panicked};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

/// The nice value of what packets wait for: nine tenths of a CPU that it shares with one other thread,
const URGENT: i32 = -10;
/// and of what may take its time: one tenth.
const LEISURELY: i32 = 10;
/// Whether control threads have a CPU to themselves that no worker has.
static APART: AtomicBool = AtomicBool::new(false);

/// Control threads are kept from workers' CPUs from now on, so that some of them may go before others.
pub(crate) fn apart() {
    APART.store(true, Relaxed);
}

/// Does `work` on another thread and `meanwhile` on this one, again and again until `work` is done. It is
/// `meanwhile` that waits, for as long as the result may come too late. Where the system has no thread to
/// give, nothing happens meanwhile, and that is all that is lost.
///
/// The other thread runs where this one may, and goes before other programs there if that is no worker's CPU
/// and the system allows it: until it is done, packets are forwarded that somebody has denied.
///
/// # Errors
///
/// What `work` said when it panicked; nothing else has suffered by that.
pub(crate) fn urgently<T: Send>(work: impl Fn() -> T + Sync, meanwhile: impl FnMut()) -> Result<T, Panicked> {
    let nice = APART.load(Relaxed).then_some(URGENT);
    on(thread::Builder::new().name("builder".into()), nice, work, meanwhile)
}

/// As [`urgently`], but after everything else that wants the same CPU, such as the offload thread with what
/// was put in force a moment ago.
///
/// # Errors
///
/// As [`urgently`].
pub(crate) fn leisurely<T: Send>(
    work: impl Fn() -> T + Sync,
    meanwhile: impl FnMut(),
) -> Result<T, Panicked> {
    on(thread::Builder::new().name("teller".into()), Some(LEISURELY), work, meanwhile)
}

/// Has this thread go before others, or after them; Linux has a nice value for each thread.
fn nice(value: i32) {
    if let Err(error) = rustix::process::setpriority_process(None, value) {
        tracing::debug!(%error, value, "a thread stays at the same priority as everything else");
    }
}

fn on<T: Send>(
    builder: thread::Builder,
    priority: Option<i32>,
    work: impl Fn() -> T + Sync,
    mut meanwhile: impl FnMut(),
) -> Result<T, Panicked> {
    let work = &work;
    let begin = move || {
        priority.into_iter().for_each(nice);
        work()
    };
    thread::scope(|scope| match builder.spawn_scoped(scope, begin) {
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
    use super::{LEISURELY, URGENT, leisurely, on, urgently};
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
        let done = urgently(work, || {
            turns.fetch_add(1, SeqCst);
        });
        assert_eq!(done, Ok("done"));
        assert!(turns.load(SeqCst) >= 3);
    }

    #[test]
    fn what_is_urgent_goes_before_others_and_nothing_else_does() {
        let nice = || rustix::process::getpriority_process(None).expect("Linux has one");
        let own = nice();
        let builder = || std::thread::Builder::new();
        assert_eq!(on(builder(), None, nice, || {}), Ok(own));
        assert_eq!(on(builder(), Some(LEISURELY), nice, || {}), Ok(LEISURELY.max(own)));
        let hurried = on(builder(), Some(URGENT), nice, || {}).expect("no panic");
        // Without CAP_SYS_NICE it stays as it was, and is built all the same.
        assert!(hurried == URGENT || hurried == own, "{hurried}");
        assert_eq!(nice(), own, "this thread is no other's");
    }

    #[test]
    fn a_panic_is_told_and_no_more() {
        let work = || -> u32 { panic!("too much") };
        let told = leisurely(work, || {}).expect_err("a panic").to_string();
        assert_eq!(told, "too much");
    }

    #[test]
    fn it_is_done_here_where_there_is_no_thread() {
        // More than there is memory for its stack.
        let none = || std::thread::Builder::new().stack_size(1 << 60);
        let here = std::thread::current().id();
        let done = on(
            none(),
            Some(URGENT),
            || std::thread::current().id(),
            || panic!("there is nobody to wait for"),
        );
        assert_eq!(done, Ok(here));
        let told = on(none(), Some(URGENT), || -> u32 { panic!("too much") }, || {})
            .expect_err("a panic")
            .to_string();
        assert_eq!(told, "too much");
    }
}
