//! Starting the checker afresh when it has panicked: after a while, and after a longer one if it goes on so.

use crate::panics::{Panicked, catch};
use std::time::Duration;

/// Before it is started again for the first time,
const FIRST: Duration = Duration::from_secs(1);
/// and at most.
const MOST: Duration = Duration::from_secs(60);

/// Does `work` until it comes to its end without a panic. `steady` says whether it was begun long ago.
/// `fallen` is told of each panic and how long it is until the next start; it waits so long, and says whether
/// there is to be one.
pub(super) fn again(
    mut work: impl FnMut(),
    steady: impl Fn() -> bool,
    mut fallen: impl FnMut(&Panicked, Duration) -> bool,
) {
    let mut wait = FIRST;
    while let Err(panicked) = catch(&mut work) {
        if steady() {
            wait = FIRST;
        }
        if !fallen(&panicked, wait) {
            return;
        }
        wait = (wait * 2).min(MOST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn it_waits_longer_each_time_until_it_was_steady_or_is_to_stop() {
        let (starts, mut waits) = (Cell::new(0), Vec::new());
        let work = || {
            starts.set(starts.get() + 1);
            assert!(starts.get() > 10, "start {}", starts.get());
        };
        again(
            work,
            || starts.get() == 8,
            |panicked, wait| {
                assert_eq!(panicked.to_string(), format!("start {}", starts.get()));
                waits.push(wait.as_secs());
                true
            },
        );
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 1, 2, 4]);
        let mut told = 0;
        again(
            || panic!("always"),
            || false,
            |_, _| {
                told += 1;
                told < 3
            },
        );
        assert_eq!(told, 3);
    }
}
