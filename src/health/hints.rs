//! What clients' connections tell of backends, as workers count it.

use dataplane::counters::{BackendCounters, WorkerCounters};
use dataplane::ids::BackendId;
use health::TargetId;
use std::collections::HashMap;
use std::sync::Arc;

/// Between two looks.
const LOOK_MS: u64 = 100;

/// See the module's header.
pub(super) struct Hints {
    workers: Vec<Arc<WorkerCounters>>,
    followed: HashMap<TargetId, Followed>,
    looked_ms: u64,
}

/// A backend, and what was counted for its slot when it was last looked at.
struct Followed {
    backend: BackendId,
    seen: Seen,
}

/// All workers' sums. Of a slot's counters only differences mean something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Seen {
    opened: u64,
    refused: u64,
    asked_again: u64,
    unanswered: u64,
}

/// Something is wrong with a backend.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Hint {
    pub(super) target: TargetId,
    /// Connections that it refused, or left without an answer, if as many as half of those that it was given
    /// since the last look: a few may be what their clients deserve.
    pub(super) failures: u64,
}

impl Hints {
    /// Hints by what these workers count.
    pub(super) fn new(workers: Vec<Arc<WorkerCounters>>) -> Hints {
        Hints { workers, followed: HashMap::new(), looked_ms: 0 }
    }

    /// Looks after these from now on.
    pub(super) fn follow(&mut self, backends: impl Iterator<Item = (TargetId, BackendId)>) {
        let mut before = std::mem::take(&mut self.followed);
        for (target, backend) in backends {
            let same = before.remove(&target).filter(|followed| followed.backend == backend);
            let followed = same.unwrap_or_else(|| Followed { backend, seen: seen(&self.workers, backend) });
            self.followed.insert(target, followed);
        }
    }

    /// What is new; nothing if it is too soon to look.
    pub(super) fn take(&mut self, now_ms: u64) -> Vec<Hint> {
        if now_ms < self.looked_ms + LOOK_MS {
            return Vec::new();
        }
        self.looked_ms = now_ms;
        let mut hints = Vec::new();
        for (&target, followed) in &mut self.followed {
            let now = seen(&self.workers, followed.backend);
            let before = std::mem::replace(&mut followed.seen, now);
            let since = |count: fn(&Seen) -> u64| count(&now).wrapping_sub(count(&before));
            let failures = since(|seen| seen.refused) + since(|seen| seen.unanswered);
            if failures + since(|seen| seen.asked_again) == 0 {
                continue;
            }
            let many = failures.saturating_mul(2) >= since(|seen| seen.opened);
            hints.push(Hint { target, failures: if many { failures } else { 0 } });
        }
        hints
    }
}

fn seen(workers: &[Arc<WorkerCounters>], id: BackendId) -> Seen {
    let backends: Vec<&BackendCounters> = workers.iter().filter_map(|worker| worker.backend(id)).collect();
    let sum = |count: fn(&BackendCounters) -> u64| {
        backends.iter().fold(0, |sum: u64, backend| sum.wrapping_add(count(backend)))
    };
    Seen {
        opened: sum(|backend| backend.connections.get()),
        refused: sum(|backend| backend.refused.get()),
        asked_again: sum(|backend| backend.asked_again.get()),
        unanswered: sum(|backend| backend.unanswered.get()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_count_if_they_are_many_and_hint_if_they_are_few() {
        let workers: Vec<_> = (0..2).map(|_| Arc::new(WorkerCounters::new(1, 4))).collect();
        workers[0].backends[2].refused.add(7);
        let mut hints = Hints::new(workers.clone());
        let (one, two) = (TargetId(1), TargetId(2));
        hints.follow([(one, BackendId(2)), (two, BackendId(3))].into_iter());
        assert_eq!(hints.take(100), [], "that was somebody else's");
        workers[0].backends[2].connections.add(5);
        workers[0].backends[2].refused.add(1);
        assert_eq!(hints.take(150), [], "too soon");
        assert_eq!(hints.take(200), [Hint { target: one, failures: 0 }]);
        workers[0].backends[2].connections.add(3);
        workers[0].backends[2].refused.add(1);
        workers[1].backends[2].unanswered.add(1);
        assert_eq!(hints.take(300), [Hint { target: one, failures: 2 }]);
        workers[1].backends[3].asked_again.add(1);
        hints.follow([(one, BackendId(0)), (two, BackendId(3))].into_iter());
        assert_eq!(hints.take(400), [Hint { target: two, failures: 0 }]);
        assert_eq!(hints.take(500), []);
    }
}
