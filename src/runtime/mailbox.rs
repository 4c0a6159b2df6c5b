//! Between the manager and one worker: bounded, and free of allocation on the worker's side. The offload
//! thread has one, too, with commands and reports of its own.
//!
//! The manager sends everything the worker needs to answer, room for rows included, and takes everything
//! back, old snapshots included: memory is allocated and freed on the manager's thread only.

use crate::capture::Tape;
use crate::clock;
use crossbeam::queue::ArrayQueue;
use dataplane::capture::Choice;
use dataplane::conntrack::ConnectionRow;
use dataplane::neighbour::NeighbourView;
use dataplane::snapshot::Snapshot;
use dataplane::worker::Excerpt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Release};
use std::time::{Duration, Instant};

/// How long the manager waits for a worker. A healthy one answers within microseconds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// How often the manager looks for an answer.
const POLL: Duration = Duration::from_micros(50);

/// Commands that may wait for a worker; the manager sends one at a time.
const COMMANDS_MAX: usize = 8;

/// What a worker is told.
pub(crate) enum Command {
    /// Forward by this from now on; answered by [`Mailbox::adopted`].
    Adopt(Arc<Snapshot>),
    /// Copy connections; answered by [`Report::Connections`].
    Connections(ConnectionPage),
    /// Copy the neighbour table, as far as there is room; answered by [`Report::Neighbours`].
    Neighbours(Vec<NeighbourView>),
    /// Fill an excerpt; answered by [`Report::Excerpt`].
    Excerpt(Box<Excerpt>),
    /// Take down what is sent and received, or no longer; answered by [`Report::Capture`].
    Capture(Option<Box<Tape>>),
}

/// What a worker answers.
pub(crate) enum Report {
    /// Done; the snapshot before, to be freed here.
    Adopted(#[expect(dead_code, reason = "carried to be freed by the receiver")] Arc<Snapshot>),
    /// The rows.
    Connections(ConnectionPage),
    /// The rows.
    Neighbours(Vec<NeighbourView>),
    /// The excerpt, complete.
    Excerpt(Box<Excerpt>),
    /// Done; what there was before, to be freed here.
    Capture(
        #[expect(dead_code, reason = "carried to be freed by the receiver")] Option<Box<Tape>>,
        #[expect(dead_code, reason = "carried to be freed by the receiver")] Option<Arc<Choice>>,
    ),
}

impl From<Arc<Snapshot>> for Command {
    fn from(next: Arc<Snapshot>) -> Command {
        Command::Adopt(next)
    }
}

impl From<Arc<Snapshot>> for Report {
    fn from(old: Arc<Snapshot>) -> Report {
        Report::Adopted(old)
    }
}

/// A part of a worker's connection table.
#[derive(Debug)]
pub(crate) struct ConnectionPage {
    /// Where the next part starts; `None` at the end of the table.
    pub(crate) cursor: Option<u32>,
    /// As many as fit its capacity.
    pub(crate) rows: Vec<ConnectionRow>,
}

/// A worker that does not answer.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("worker {0} does not answer")]
pub(crate) struct Silent(pub(crate) usize);

/// Commands `C` one way, reports `R` the other. Both have one for snapshots.
pub(crate) struct Mailbox<C = Command, R = Report> {
    commands: ArrayQueue<C>,
    reports: ArrayQueue<R>,
    /// Of the snapshot the worker forwards by.
    generation: AtomicU64,
}

impl<C: From<Arc<Snapshot>>, R: From<Arc<Snapshot>>> Mailbox<C, R> {
    /// An empty mailbox of a worker that starts with this generation.
    pub(crate) fn new(generation: u64) -> Mailbox<C, R> {
        Mailbox {
            commands: ArrayQueue::new(COMMANDS_MAX),
            // Twice the commands, for answers that nobody waited for.
            reports: ArrayQueue::new(2 * COMMANDS_MAX),
            generation: AtomicU64::new(generation),
        }
    }

    /// The generation of the snapshot the worker forwards by.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Acquire)
    }

    /// The worker has adopted another snapshot and hands back the one before.
    pub(crate) fn adopted(&self, generation: u64, old: Arc<Snapshot>) {
        self.report(old.into());
        self.generation.store(generation, Release);
    }

    /// The worker looks for a command. Two loads when there is none.
    #[inline]
    pub(crate) fn command(&self) -> Option<C> {
        if self.commands.is_empty() { None } else { self.commands.pop() }
    }

    /// The worker answers.
    pub(crate) fn report(&self, report: R) {
        // Nobody collects after the manager gave up on this worker more often than there is room for; then
        // the oldest answer is of no use to anyone.
        let _ = self.reports.force_push(report);
    }

    /// The manager sends; `false` if the worker has not read what it was sent before.
    pub(crate) fn send(&self, command: C) -> bool {
        self.commands.push(command).is_ok()
    }

    /// The manager waits until `deadline` for a report that `wanted` accepts; others are late answers to
    /// questions that were given up, and are freed.
    fn wait<T>(&self, deadline: Instant, wanted: impl Fn(R) -> Option<T>) -> Option<T> {
        loop {
            while let Some(report) = self.reports.pop() {
                if let Some(answer) = wanted(report) {
                    return Some(answer);
                }
            }
            if clock::monotonic() >= deadline {
                return None;
            }
            std::thread::sleep(POLL);
        }
    }

    /// Frees answers to questions that were given up.
    pub(crate) fn discard_reports(&self) {
        while self.reports.pop().is_some() {}
    }

    /// Sends a command and waits for its answer. `worker` is for the error.
    pub(crate) fn ask<T>(
        &self,
        worker: usize,
        command: C,
        wanted: impl Fn(R) -> Option<T>,
    ) -> Result<T, Silent> {
        self.discard_reports();
        let deadline = clock::monotonic() + PATIENCE;
        let answer = if self.send(command) { self.wait(deadline, wanted) } else { None };
        answer.ok_or(Silent(worker))
    }
}

/// Gives every worker a snapshot and waits until all forward by it. The old ones are freed here.
///
/// All are told before any is waited for, so that they change at about the same moment. A worker that is
/// late is an error, but adopts the snapshot when it comes round: nothing is taken back. Publishing the same
/// snapshot again reaches those that were too busy to be told.
pub(crate) fn publish<C: From<Arc<Snapshot>>, R: From<Arc<Snapshot>>>(
    mailboxes: &[Arc<Mailbox<C, R>>],
    snapshot: &Arc<Snapshot>,
) -> Result<(), Silent> {
    let deadline = clock::monotonic() + PATIENCE;
    let has_it = |mailbox: &Mailbox<C, R>| mailbox.generation() == snapshot.generation;
    let tell = |mailbox: &Mailbox<C, R>| has_it(mailbox) || mailbox.send(Arc::clone(snapshot).into());
    let told: Vec<bool> = mailboxes.iter().map(|mailbox| tell(mailbox)).collect();
    for (worker, (mailbox, told)) in mailboxes.iter().zip(told).enumerate() {
        let adopted = || has_it(mailbox);
        while told && !adopted() && clock::monotonic() < deadline {
            std::thread::sleep(POLL);
        }
        mailbox.discard_reports();
        if !adopted() {
            return Err(Silent(worker));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataplane::snapshot::Parts;
    use std::sync::atomic::AtomicBool;

    fn snapshot(generation: u64) -> Arc<Snapshot> {
        Arc::new(Snapshot::assemble(Parts { generation, ..Parts::default() }).expect("empty"))
    }

    /// A worker without packets: adopts what it is given, on its own thread.
    fn worker(mailbox: &Mailbox, mut current: Arc<Snapshot>, stop: &AtomicBool) {
        while !stop.load(Acquire) {
            match mailbox.command() {
                Some(Command::Adopt(next)) => {
                    let generation = next.generation;
                    mailbox.adopted(generation, std::mem::replace(&mut current, next));
                }
                Some(Command::Connections(mut page)) => {
                    page.cursor = None;
                    mailbox.report(Report::Connections(page));
                }
                Some(Command::Neighbours(views)) => mailbox.report(Report::Neighbours(views)),
                Some(Command::Excerpt(excerpt)) => mailbox.report(Report::Excerpt(excerpt)),
                Some(Command::Capture(tape)) => mailbox.report(Report::Capture(tape, None)),
                None => std::thread::yield_now(),
            }
        }
    }

    /// Runs `manager` against this many workers.
    fn with_workers(count: usize, first: &Arc<Snapshot>, manager: impl FnOnce(&[Arc<Mailbox>])) {
        let mailboxes: Vec<Arc<Mailbox>> =
            (0..count).map(|_| Arc::new(Mailbox::new(first.generation))).collect();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for mailbox in &mailboxes {
                let (first, stop) = (Arc::clone(first), &stop);
                scope.spawn(move || worker(mailbox, first, stop));
            }
            manager(&mailboxes);
            stop.store(true, Release);
        });
    }

    #[test]
    fn snapshots_are_adopted_by_all_and_freed_by_the_publisher() {
        let first = snapshot(1);
        let mut held = Vec::new();
        with_workers(3, &first, |mailboxes| {
            for generation in 2..200 {
                let next = snapshot(generation);
                assert_eq!(publish(mailboxes, &next), Ok(()));
                assert!(mailboxes.iter().all(|mailbox| mailbox.generation() == generation));
                held.push(Arc::downgrade(&next));
                drop(next);
                // Only the newest is alive: all older ones have come back and are gone.
                let alive = held.iter().filter(|snapshot| snapshot.strong_count() > 0).count();
                assert_eq!(alive, 1, "generation {generation}");
            }
        });
        assert_eq!(Arc::strong_count(&first), 1);
    }

    #[test]
    fn questions_are_answered_after_a_publication() {
        let first = snapshot(1);
        with_workers(2, &first, |mailboxes| {
            publish(mailboxes, &snapshot(2)).expect("adopted");
            let page = ConnectionPage { cursor: Some(0), rows: Vec::with_capacity(8) };
            let answer = mailboxes[1].ask(1, Command::Connections(page), |report| match report {
                Report::Connections(page) => Some(page),
                _ => None,
            });
            let page = answer.expect("answered");
            assert_eq!((page.cursor, page.rows.capacity()), (None, 8));
        });
    }

    #[test]
    fn a_worker_that_does_not_answer_is_named() {
        let mailboxes: [Arc<Mailbox>; 2] = [2, 1].map(|generation| Arc::new(Mailbox::new(generation)));
        let second = snapshot(2);
        assert_eq!(publish(&mailboxes, &second), Err(Silent(1)));
        // It comes round at last, and is not told what it knows.
        let Some(Command::Adopt(next)) = mailboxes[1].command() else { panic!("not told") };
        mailboxes[1].adopted(next.generation, snapshot(1));
        assert_eq!(publish(&mailboxes, &second), Ok(()));
        assert!(mailboxes.iter().all(|mailbox| mailbox.command().is_none()));
    }
}
