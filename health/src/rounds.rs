//! The checker's turns: what has come is heard, what is due is asked, and no more of either than a turn is to
//! take. The rest waits for the next one.

use crate::machine::{Machine, Outcome, TargetId};
use crate::prober::{Job, Prober, Wire};

/// Probes under way at most: a TCP connection to probe takes some kilobytes.
pub const FLIGHTS_MAX: usize = 4096;
/// Probes begun per turn at most: about a millisecond's work.
pub const BEGUN_PER_TURN: usize = 256;
/// Packets heard per turn at most, so that there is an end to it whatever comes.
pub const HEARD_PER_TURN: usize = 1024;

/// A machine, and the prober that does what it says.
pub struct Rounds {
    /// Whom to probe, and what follows.
    pub machine: Machine,
    prober: Prober,
    /// Probes that went well, went badly, and of which nothing is known.
    pub probes: [u64; 3],
}

impl Rounds {
    /// Of a machine without services.
    #[must_use]
    pub fn new(seed: u64) -> Rounds {
        let (machine, prober) = (Machine::new(seed), Prober::new(seed, FLIGHTS_MAX));
        Rounds { machine, prober, probes: [0; 3] }
    }

    /// Probes under way.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.prober.under_way()
    }

    /// Hears what has come, of which `next` gives one after the other, and ends the probes whose time is up.
    pub fn hear<P: AsRef<[u8]>>(
        &mut self,
        now_ms: u64,
        mut next: impl FnMut() -> Option<P>,
        wire: &mut impl Wire,
    ) {
        for _ in 0..HEARD_PER_TURN {
            let Some(packet) = next() else { break };
            if let Some((target, outcome)) = self.prober.on_packet(now_ms, packet.as_ref(), wire) {
                self.conclude(now_ms, target, outcome);
            }
        }
        while let Some((target, outcome)) = self.prober.poll(now_ms, wire) {
            self.conclude(now_ms, target, outcome);
        }
    }

    /// Begins the probes that are due, if there is room for more. Without a `job` there is no way to the
    /// backend, or no address to ask from.
    pub fn ask(&mut self, now_ms: u64, job: impl Fn(TargetId) -> Option<Job>, wire: &mut impl Wire) {
        for _ in 0..BEGUN_PER_TURN {
            if !self.prober.has_room() {
                return;
            }
            let Some(target) = self.machine.take_due(now_ms) else { return };
            let ended = match job(target) {
                Some(job) => self.prober.begin(now_ms, job, wire),
                None => Some((target, Outcome::Void)),
            };
            if let Some((target, outcome)) = ended {
                self.conclude(now_ms, target, outcome);
            }
        }
    }

    /// Nothing is known of the probes under way: the checker was not there when answers may have come.
    pub fn give_up_all(&mut self, now_ms: u64, wire: &mut impl Wire) {
        for target in self.prober.give_up_all(wire) {
            self.conclude(now_ms, target, Outcome::Void);
        }
    }

    fn conclude(&mut self, now_ms: u64, target: TargetId, outcome: Outcome) {
        let [good, bad, void] = &mut self.probes;
        *match self.machine.on_outcome(now_ms, target, outcome) {
            Outcome::Good => good,
            Outcome::Bad(_) => bad,
            Outcome::Void | Outcome::Unclear | Outcome::Unfound => void,
        } += 1;
    }
}
