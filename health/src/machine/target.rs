//! One backend's state.

use super::random::Random;
use super::{BackendSpec, Cause, Memory, RAMP_STEPS, State};
use dataplane::config::Health;

/// A backend that has been steady for so long is forgiven one of its failures.
const FORGIVEN_AFTER_MS: u64 = 60_000;
/// Answers asked of a backend that flaps, at most, as a power of two times `rise`.
const DAMPING_MAX: u32 = 3;
/// Probes of a backend of which nothing is known yet follow each other so quickly.
const FIRST_INTERVAL_MS: u64 = 50;

pub(super) struct Target {
    pub(super) service: usize,
    pub(super) spec: BackendSpec,
    pub(super) memory: Memory,
    /// When it is to be probed; `None` while it is being probed.
    pub(super) due_ms: Option<u64>,
    pub(super) started_ms: u64,
    /// Since when it is known of.
    pub(super) born_ms: u64,
    /// Its probes no longer come together with those of all others.
    spread: bool,
    successes: u32,
    failures: u32,
    /// Unclear probes since it last answered, as far as they say nothing.
    pub(super) unclear: u32,
    /// How often it went down, less what has been forgiven since; and when that was last reckoned.
    falls: u32,
    reckoned_ms: u64,
}

impl Target {
    pub(super) fn new(now_ms: u64, service: usize, spec: BackendSpec) -> Target {
        Target {
            service,
            spec,
            memory: Memory {
                state: State::Unknown,
                since_ms: now_ms,
                last_error: None,
                transitions: [0; Cause::ALL.len()],
                share: 100,
            },
            due_ms: Some(now_ms),
            started_ms: now_ms,
            born_ms: now_ms,
            spread: false,
            successes: 0,
            failures: 0,
            unclear: 0,
            falls: 0,
            reckoned_ms: now_ms,
        }
    }

    /// Whether it would take new connections.
    pub(super) fn is_up(&self, health: &Health) -> bool {
        match self.memory.state {
            State::Unknown => health.initially_up,
            State::Up => true,
            State::Down => false,
        }
    }

    pub(super) fn succeed(&mut self, now_ms: u64, health: &Health) -> Option<(State, Cause)> {
        self.failures = 0;
        self.successes = self.successes.saturating_add(1);
        self.forgive(now_ms);
        let damping = self.falls.saturating_sub(1).min(DAMPING_MAX);
        let rises = match self.memory.state {
            State::Up => false,
            State::Unknown => true,
            State::Down => self.successes >= u32::from(health.rise) << damping,
        };
        if !rises {
            return None;
        }
        if self.memory.state == State::Down && health.slow_start_s > 0 {
            self.memory.share = (100 / RAMP_STEPS) as u8;
        }
        Some(self.turn(now_ms, State::Up, Cause::Answered))
    }

    pub(super) fn fail(&mut self, now_ms: u64, health: &Health, cause: Cause) -> Option<(State, Cause)> {
        self.successes = 0;
        self.failures = self.failures.saturating_add(1);
        self.memory.last_error = Some(cause);
        self.forgive(now_ms);
        if self.memory.state == State::Down || self.failures < u32::from(health.fall) {
            return None;
        }
        self.falls = self.falls.saturating_add(1);
        self.memory.share = 100;
        Some(self.turn(now_ms, State::Down, cause))
    }

    fn turn(&mut self, now_ms: u64, to: State, cause: Cause) -> (State, Cause) {
        self.memory.state = to;
        self.memory.since_ms = now_ms;
        self.reckoned_ms = now_ms;
        self.memory.transitions[cause as usize] += 1;
        (to, cause)
    }

    fn forgive(&mut self, now_ms: u64) {
        let steady = now_ms.saturating_sub(self.reckoned_ms) / FORGIVEN_AFTER_MS;
        self.falls = self.falls.saturating_sub(u32::try_from(steady).unwrap_or(u32::MAX));
        self.reckoned_ms += steady * FORGIVEN_AFTER_MS;
    }

    /// When to probe again, after a probe that began at `started_ms`. Up to a tenth early, so that probes
    /// of many backends, or by many nodes, drift apart. One that begins to fail is looked at more closely.
    pub(super) fn next_ms(&mut self, now_ms: u64, health: &Health, random: &mut Random) -> u64 {
        let interval = u64::from(health.interval_ms);
        let wait = match self.memory.state {
            State::Unknown => interval.min(FIRST_INTERVAL_MS),
            // All were probed at once at first; from here on they are spread over the interval.
            _ if !std::mem::replace(&mut self.spread, true) => 1 + random.next() % interval.max(1),
            State::Up if self.failures > 0 => interval / 2,
            _ => interval - random.next() % (interval / 10 + 1),
        };
        (self.started_ms + wait).max(now_ms)
    }

    /// The next step of a slow start; whether there was one.
    pub(super) fn ramp(&mut self, now_ms: u64, health: &Health) -> bool {
        let whole = u64::from(health.slow_start_s) * 1000;
        let elapsed = now_ms.saturating_sub(self.memory.since_ms);
        let steps = match whole {
            0 => RAMP_STEPS,
            _ => (elapsed * RAMP_STEPS / whole + 1).min(RAMP_STEPS),
        };
        let before = self.memory.share;
        self.memory.share = (steps * 100 / RAMP_STEPS) as u8;
        self.memory.share != before
    }
}
