//! What becomes of panics. None should ever happen; one that does costs as little as it can.
//!
//! Threads without which nothing works call [`vital`]: the process ends with a panic of theirs, at once, for
//! half a dataplane is worse than none. What others do is tried by [`catch`], and they say what follows.

use std::any::Any;
use std::cell::Cell;
use std::panic::AssertUnwindSafe;

/// What a panic said.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Panicked(String);

impl Panicked {
    /// Of what a thread left behind.
    pub(crate) fn of(payload: &(dyn Any + Send)) -> Panicked {
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        Panicked(text.unwrap_or("a panic without words").to_owned())
    }
}

thread_local! {
    static VITAL: Cell<bool> = const { Cell::new(false) };
}

/// Ends the process where a vital thread panics, before anything is unwound: that would wait for others. This
/// thread is the first one.
pub(crate) fn install() {
    vital();
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tell(panic);
        if VITAL.get() {
            std::process::abort();
        }
    }));
}

/// This thread is one without which nothing works.
pub(crate) fn vital() {
    VITAL.set(true);
}

/// Does `work`, whose panic ends nothing else, on a vital thread neither. What it was changing when it
/// panicked may be half changed: use no more of that than is sound.
pub(crate) fn catch<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    let vital = VITAL.replace(false);
    let done = std::panic::catch_unwind(AssertUnwindSafe(work));
    VITAL.set(vital);
    done.map_err(|payload| Panicked::of(&*payload))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn what_a_panic_says_is_kept() {
        assert_eq!(catch(|| 7), Ok(7));
        assert_eq!(catch(|| panic!("in words")), Err::<(), _>(Panicked("in words".to_owned())));
        let number = 7;
        assert_eq!(catch(|| panic!("number {number}")), Err::<(), _>(Panicked("number 7".to_owned())));
        let wordless = catch(|| std::panic::panic_any(7)).expect_err("a panic");
        assert_eq!(wordless.to_string(), "a panic without words");
    }

    /// Set in a process of its own, which is to end by its panic.
    const CHILD: &str = "MILLRACE_TEST_PANICS";

    #[test]
    fn a_vital_thread_takes_the_process_with_it_and_others_do_not() {
        if let Some(which) = std::env::var_os(CHILD) {
            // As the main thread does.
            std::thread::spawn(install).join().expect("a hook");
            let work = move || {
                if which != "other" {
                    vital();
                }
                if which == "tried" {
                    assert!(catch(|| panic!("on purpose")).is_err());
                    assert!(VITAL.get(), "what comes after is as vital as before");
                    std::process::exit(42);
                }
                panic!("on purpose");
            };
            assert!(std::thread::spawn(work).join().is_err());
            std::process::exit(42);
        }
        let myself = std::env::current_exe().expect("a name");
        let name = "panics::tests::a_vital_thread_takes_the_process_with_it_and_others_do_not";
        let ends = |which: &str| {
            let mut child = Command::new(&myself);
            child.args(["--exact", name, "--nocapture"]).env(CHILD, which);
            child.output().expect("a child").status.code()
        };
        assert_eq!(ends("vital"), None, "killed by a signal");
        assert_eq!(ends("other"), Some(42));
        assert_eq!(ends("tried"), Some(42));
    }
}
