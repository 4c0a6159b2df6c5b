//! The manager's side: who captures, and that it ends.

use super::tape::{Reel, Tape};
use super::{Caller, Capture, CaptureQuery, CaptureRow, End, Filter, Reading};
use crate::api::{Refusal, RefusalKind};
use crate::clock;
use crate::manager::{Running, WorkerHandle};
use crate::runtime::mailbox::{Command, Report};
use dataplane::ids::WorkerId;
use dataplane::offload::Revocation;
use std::sync::atomic::AtomicU8;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Unless something else is asked for.
const COUNT: u64 = 10_000;
const COUNT_MAX: u64 = 100_000_000;
const SECONDS: u32 = 30;
const SECONDS_MAX: u32 = 3600;
/// Bytes of a frame: no more than an Ethernet header of it makes no sense, nor does more than there can be.
const SNAPLEN_MIN: u32 = 14;
const SNAPLEN_MAX: u32 = 65_535;
/// What frames may have beyond a port's MTU: headers of links, and of tunnels.
const BEYOND_MTU: u32 = 114;
/// Bytes of frames that may wait to be read, of all workers together,
const WAITING_BYTES: usize = 32 << 20;
/// and frames of each.
const WAITING_MIN: usize = 64;
const WAITING_MAX: usize = 16_384;
/// How long workers may take to hear of an end while the main thread waits,
const ANSWER_MAX: Duration = Duration::from_millis(50);
/// and how often it looks.
const ANSWER_LOOK: Duration = Duration::from_micros(50);

/// See the module's header.
#[derive(Default)]
pub(crate) struct Desk {
    /// The one that goes on, or has yet to be read to its end.
    current: Option<Arc<Capture>>,
    /// The one before.
    last: CaptureRow,
    /// By worker: whether it has been told of the end.
    told: Vec<bool>,
    last_id: u32,
    /// Connections that had been taken back for captures before.
    recalled_before: u64,
}

impl Desk {
    /// Begins a capture.
    ///
    /// # Errors
    ///
    /// What is asked for makes no sense, one is going on, or a worker does not answer.
    pub(crate) fn start(
        &mut self,
        by: &Caller,
        query: &CaptureQuery,
        running: &Running<'_>,
    ) -> Result<CaptureRow, Refusal> {
        let now = clock::monotonic();
        self.tend(running);
        // One that is over has to be read to its end first, or left.
        if let Some(busy) = &self.current {
            if let (true, Some(worker)) = (busy.is_over() && busy.is_read(now), busy.lingers()) {
                let error = format!("worker {worker} has yet to hear of the end of the capture before");
                return Err(Refusal::new(RefusalKind::Failed, error));
            }
            let left = busy.until.saturating_duration_since(now).as_secs() + 1;
            let error = format!("{} captures; that ends within {left} s, or `stop` it", busy.by);
            return Err(Refusal::new(RefusalKind::Conflict, error));
        }
        let capture = Arc::new(self.prepare(by, query, running, now)?);
        self.recalled_before = recalled(&running.workers);
        self.last_id = capture.id;
        self.current = Some(Arc::clone(&capture));
        self.told = vec![false; running.workers.len()];
        let id = |number: usize| WorkerId(number as u16);
        let tape = |number| Tape::new(Arc::clone(&capture), id(number), Arc::clone(&running.snapshot));
        // All are made before the first is given away: those that nobody gets are given back at once.
        let tapes: Vec<_> = (0..running.workers.len()).map(|number| Box::new(tape(number))).collect();
        for ((number, worker), tape) in running.workers.iter().enumerate().zip(tapes) {
            if let Err(refusal) = begin(worker, number, tape) {
                capture.end(End::Stopped);
                self.tend(running);
                return Err(refusal);
            }
        }
        tracing::info!(by = %by, filter = capture.text, seconds = capture.seconds, "capture begins");
        Ok(capture.row(0))
    }

    fn prepare(
        &self,
        by: &Caller,
        query: &CaptureQuery,
        running: &Running<'_>,
        now: Instant,
    ) -> Result<Capture, Refusal> {
        let snapshot = &running.snapshot;
        let filter = Filter::parse(&query.filter, snapshot, &running.config.tenants)?;
        let longest = snapshot.ports.iter().map(|port| u32::from(port.mtu)).max().unwrap_or_default();
        let whole = (longest + BEYOND_MTU).min(SNAPLEN_MAX);
        let count = within("count", query.count.unwrap_or(COUNT), 1, COUNT_MAX)?;
        let seconds = query.seconds.map(u64::from).unwrap_or(u64::from(SECONDS));
        let seconds = within("seconds", seconds, 1, SECONDS_MAX.into())? as u32;
        let snaplen = query.snaplen.map_or(u64::from(whole), u64::from);
        let snaplen = within("snaplen", snaplen, SNAPLEN_MIN.into(), SNAPLEN_MAX.into())? as u32;
        let leave = query.leave_offloaded.unwrap_or(false);
        let workers = running.workers.len().max(1);
        let frames = (WAITING_BYTES / workers / snaplen as usize).clamp(WAITING_MIN, WAITING_MAX);
        let reel = |_| Reel::new(frames, snaplen as usize, snapshot.ports.len());
        let device = |number: usize| running.config.ports.get(number).and_then(|port| port.device());
        let ports = snapshot.ports.iter().enumerate();
        let ports = ports.map(|(at, port)| (port.name.clone(), device(at).unwrap_or_default().to_owned()));
        Ok(Capture {
            id: self.last_id.wrapping_add(1),
            by: by.to_string(),
            text: query.filter.clone(),
            // Nothing in particular is no reason to take everything from hardware, nor do drops happen there.
            recalls: !leave && !filter.choice.is_any() && filter.dropped.is_none(),
            filter,
            count,
            seconds,
            snaplen,
            reels: (0..running.workers.len()).map(reel).collect(),
            ports: ports.collect(),
            clock: running.clock,
            epoch_ns: clock::unix_nanoseconds()
                .saturating_sub(running.clock.nanoseconds(dpdk::clock::rdtsc())),
            until: now + Duration::from_secs(seconds.into()),
            ended: AtomicU8::new(0),
            reading: Mutex::new(Reading::new(now, snapshot.ports.len())),
        })
    }

    /// The capture of this number, to be read.
    ///
    /// # Errors
    ///
    /// It is not the last one.
    pub(crate) fn find(&self, id: u32) -> Result<Arc<Capture>, Refusal> {
        let found = self.current.as_ref().filter(|capture| capture.id == id).map(Arc::clone);
        found.ok_or_else(|| Refusal::new(RefusalKind::NotFound, format!("there is no capture {id}")))
    }

    /// Ends the capture of this number, if it has not, and tells what has come of it.
    ///
    /// # Errors
    ///
    /// It is not the last one.
    pub(crate) fn stop(&mut self, id: u32, running: &Running<'_>) -> Result<CaptureRow, Refusal> {
        if self.last.id == id && id > 0 {
            return Ok(self.last.clone());
        }
        let capture = self.find(id)?;
        capture.end(End::Stopped);
        self.tend(running);
        Ok(capture.row(self.recalled(running)))
    }

    /// Ends the capture if it is over: workers forget it, and so do we when they have, and it has been read.
    pub(crate) fn tend(&mut self, running: &Running<'_>) {
        let now = clock::monotonic();
        let Some(capture) = self.current.clone() else { return };
        capture.look(now);
        if !capture.is_over() {
            return;
        }
        self.tell(&capture, running);
        if capture.lingers().is_none() && capture.is_read(now) {
            self.last = capture.row(self.recalled(running));
            self.current = None;
        }
    }

    /// Tells each worker once, as soon as there is room in its mailbox, and frees what they give back. They
    /// are waited for when they have just been told, and not for long: one may hang.
    fn tell(&mut self, capture: &Capture, running: &Running<'_>) {
        let mut news = false;
        for (worker, told) in running.workers.iter().zip(&mut self.told) {
            if !*told {
                *told = worker.mailbox.send(Command::Capture(None));
                news |= *told;
            }
        }
        let deadline = clock::monotonic() + if news { ANSWER_MAX } else { Duration::ZERO };
        loop {
            running.workers.iter().for_each(|worker| worker.mailbox.discard_reports());
            if capture.lingers().is_none() || clock::monotonic() >= deadline {
                return;
            }
            std::thread::sleep(ANSWER_LOOK);
        }
    }

    /// Connections that were taken back for this capture.
    fn recalled(&self, running: &Running<'_>) -> u64 {
        recalled(&running.workers).saturating_sub(self.recalled_before)
    }
}

fn recalled(workers: &[WorkerHandle]) -> u64 {
    workers.iter().map(|worker| worker.counters.offload_revoked[Revocation::Captured as usize].get()).sum()
}

fn within(key: &str, value: u64, least: u64, most: u64) -> Result<u64, Refusal> {
    if (least..=most).contains(&value) {
        return Ok(value);
    }
    Err(Refusal::new(RefusalKind::Malformed, format!("{key} is {value}; give {least} to {most}")))
}

fn begin(worker: &WorkerHandle, number: usize, tape: Box<Tape>) -> Result<(), Refusal> {
    let answer = worker.mailbox.ask(number, Command::Capture(Some(tape)), |report| match report {
        Report::Capture(..) => Some(()),
        _ => None,
    });
    answer.map_err(|silent| Refusal::new(RefusalKind::Failed, silent.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Caller;
    use crate::runtime::mailbox::Mailbox;

    /// A worker that has taken its tape, if there is one for it.
    fn take(mailbox: &Mailbox) -> Option<Box<Tape>> {
        match mailbox.command()? {
            Command::Capture(tape) => tape,
            _ => None,
        }
    }

    /// Begins a capture of workers that take their tapes, and do nothing else.
    fn begun(desk: &mut Desk, running: &Running<'_>) -> (CaptureRow, Vec<Tape>) {
        std::thread::scope(|scope| {
            let work = |mailbox: Arc<Mailbox>| loop {
                if let Some(tape) = take(&mailbox) {
                    mailbox.report(Report::Capture(None, None));
                    return *tape;
                }
                std::thread::yield_now();
            };
            let mailboxes = running.workers.iter().map(|worker| Arc::clone(&worker.mailbox));
            let workers: Vec<_> = mailboxes.map(|mailbox| scope.spawn(move || work(mailbox))).collect();
            let row = desk.start(&Caller::nobody(), &CaptureQuery::default(), running).expect("begun");
            (row, workers.into_iter().map(|worker| worker.join().expect("a tape")).collect())
        })
    }

    #[test]
    fn a_worker_that_hangs_is_told_of_the_end_once_and_waited_for_by_nobody() {
        let mailboxes = [1, 1].map(|generation| Arc::new(Mailbox::new(generation)));
        let running = Running::alone(mailboxes.iter().map(WorkerHandle::of).collect());
        let mut desk = Desk::default();
        let (row, mut tapes) = begun(&mut desk, &running);
        // Both hang: neither reads its mail.
        for _ in 0..3 {
            let ended = desk.stop(row.id, &running).expect("the capture").ended;
            assert_eq!(ended.as_deref(), Some("stopped"));
            desk.tend(&running);
        }
        for mailbox in &mailboxes {
            assert!(matches!(mailbox.command(), Some(Command::Capture(None))));
            assert!(mailbox.command().is_none(), "told again");
        }
        // The first one comes round.
        mailboxes[0].report(Report::Capture(Some(Box::new(tapes.remove(0))), None));
        desk.tend(&running);
        let capture = desk.find(row.id).expect("it is kept for the other worker");
        let page = capture.page(clock::monotonic()).expect("a page");
        assert!(!page.is_empty());
        let again = |desk: &mut Desk| {
            desk.start(&Caller::nobody(), &CaptureQuery::default(), &running).expect_err("refused").error
        };
        assert!(again(&mut desk).contains("captures; that ends"), "it has yet to be read");
        capture.page(clock::monotonic() + super::super::CLOSING_MAX).expect("the last page");
        assert_eq!(again(&mut desk), "worker 1 has yet to hear of the end of the capture before");
        // And so does the other one.
        mailboxes[1].report(Report::Capture(Some(Box::new(tapes.remove(0))), None));
        desk.tend(&running);
        assert!(desk.find(row.id).is_err());
        assert_eq!(desk.stop(row.id, &running).expect("remembered").id, row.id);
        begun(&mut desk, &running);
    }
}
