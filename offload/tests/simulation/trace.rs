//! What happened, as a hash of everything and the last few events in words; and the first thing that a
//! checker did not like.

use std::collections::VecDeque;
use std::fmt;

/// Who watches.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Checker {
    /// Every packet ends in exactly one place.
    Conservation,
    /// A live flow keeps its backend until policy says otherwise.
    Affinity,
    /// What comes out is what the translation makes of what came in, whoever does it.
    Agreement,
    /// At rest, rules = entries in hardware = the machine's pairs; at the end none.
    Orphans,
    /// Nothing is larger than it may be.
    Bounds,
    /// What has begun ends, what may be in hardware gets there, what must not be there leaves in time.
    Liveness,
    /// Packets and bytes counted are those seen.
    Accounting,
    /// Nobody forwards what the policy denies.
    Policy,
}

/// A checker's complaint.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) checker: Checker,
    pub(crate) text: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.checker, self.text)
    }
}

/// One thing that happened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    at_ns: u64,
    what: &'static str,
    numbers: [u64; 3],
}

const LAST: usize = 60;

/// The record of a run.
#[derive(Debug)]
pub(crate) struct Trace {
    now: u64,
    hash: u64,
    events: u64,
    last: VecDeque<Event>,
    failure: Option<Failure>,
    echo: bool,
}

impl Trace {
    pub(crate) fn new() -> Trace {
        Trace {
            now: 0,
            hash: 0xcbf2_9ce4_8422_2325,
            events: 0,
            last: VecDeque::new(),
            failure: None,
            echo: std::env::var_os("SIM_TRACE").is_some(),
        }
    }

    pub(crate) fn set_now(&mut self, now: u64) {
        self.now = now;
    }

    /// Something happened.
    pub(crate) fn note(&mut self, what: &'static str, numbers: [u64; 3]) {
        self.events += 1;
        let event = Event { at_ns: self.now, what, numbers };
        self.mix(self.now);
        self.mix_bytes(what.as_bytes());
        numbers.iter().for_each(|number| self.mix(*number));
        if self.failure.is_some() {
            return;
        }
        if self.echo {
            eprintln!("{event}");
        }
        if self.last.len() == LAST {
            self.last.pop_front();
        }
        self.last.push_back(event);
    }

    /// Bytes that left.
    pub(crate) fn mix_bytes(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
    }

    fn mix(&mut self, word: u64) {
        self.hash = (self.hash ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    }

    /// A complaint; the first one counts.
    pub(crate) fn fail(&mut self, checker: Checker, text: impl FnOnce() -> String) {
        if self.failure.is_none() {
            self.failure = Some(Failure { checker, text: text() });
        }
    }

    pub(crate) fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash ^ self.events
    }

    /// The last events, one a line.
    pub(crate) fn tail(&self) -> String {
        self.last.iter().map(|event| format!("  {event}\n")).collect()
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c] = self.numbers;
        write!(f, "{:>12.6} s  {} {a} {b} {c}", self.at_ns as f64 / 1e9, self.what)
    }
}
