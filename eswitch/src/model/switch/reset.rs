//! What faults do to the device as a whole: it forgets everything, or answers nothing for a while.

use super::super::action::Shared;
use super::super::refusal::{Cause, Errno, Refusal};
use super::super::types::{RuleId, Tick};
use super::Eswitch;

const HUNG: Refusal =
    Refusal::new(Errno::Timedout, Cause::Unspecified, "the device does not answer (injected fault)");

impl Eswitch {
    /// Whether the device answers no flow operation now.
    #[inline]
    pub(super) fn hangs(&self, now: Tick) -> bool {
        now < self.hangs_until
    }

    /// Turns a synchronous call down that the device does not answer. Packets are forwarded as before.
    ///
    /// # Errors
    /// ETIMEDOUT.
    pub fn answers(&self, now: Tick) -> Result<(), Refusal> {
        if self.hangs(now) { Err(HUNG) } else { Ok(()) }
    }

    /// The device answers nothing until then: operations of flow queues wait, counters stand still.
    pub(super) fn hang(&mut self, until: Tick) {
        self.hangs_until = until;
        self.queues.iter_mut().for_each(|queue| queue.stall(until));
    }

    /// The device forgets all that was put into it, as by a reset of its firmware, and nobody is told:
    /// rules, operations under way, indirect counters and ages, all at once. What `stop` leaves stays:
    /// started ports, flow queues, templates and tables, which are empty; and meters and sets of queues.
    /// Old handles are stale. Packets that come next match nothing.
    pub(super) fn reset(&mut self, now: Tick) {
        self.refresh(now);
        for queue in &mut self.queues {
            queue.invalidate(now);
        }
        for slot in 0..self.core.rules.end() {
            self.core.remove(now, RuleId(slot));
        }
        // Without rules, only indirect handles hold these.
        let counters = self.core.counters.in_use().map(Shared::Counter);
        let ages = self.core.ages.in_use().map(Shared::Age);
        for shared in counters.chain(ages).collect::<Vec<_>>() {
            // Held by a handle alone, so that this cannot be refused.
            let _ = self.core.indirect_destroy(now, shared);
        }
    }
}
