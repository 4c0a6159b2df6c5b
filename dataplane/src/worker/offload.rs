//! The offload engine's side of a connection.

use super::{Env, Walk, Worker};
use crate::conntrack::Count;
use crate::flow::Direction;
use crate::ids::BackendId;
use crate::offload::{Answer, FlowRef, Revocation, Revoke, RuleId};
use crate::packet::PacketBuf;
use crate::time::Tick;

impl<B: PacketBuf> Worker<B> {
    /// Sets how many packets, of both directions, a connection must have carried before hardware is asked
    /// to take it; `u32::MAX` is never. At first, never.
    pub fn set_price(&mut self, price: u32) {
        self.state.price = price;
    }

    /// The price set last.
    #[must_use]
    pub fn price(&self) -> u32 {
        self.state.price
    }

    /// Takes what the offload engine says about a connection.
    pub fn on_answer<E: Env<Buf = B>>(&mut self, now: Tick, answer: &Answer, env: &mut E) {
        self.walk(now, env).hear_engine(answer);
        self.state.count_held();
    }
}

impl<E: Env> Walk<'_, E> {
    fn hear_engine(&mut self, answer: &Answer) {
        match *answer {
            Answer::Installed { flow, rule, .. } => self.revoke(flow, rule, Revocation::Orphan),
            Answer::Counted { flow, rule, backend, counts, .. } => {
                self.count_hardware(backend, counts);
                if let Some(rule) = rule {
                    self.revoke(flow, rule, Revocation::Orphan);
                }
            }
            Answer::Declined { .. } | Answer::Removed { .. } => {}
        }
    }

    fn count_hardware(&self, backend: BackendId, counts: [Count; 2]) {
        let Some(counters) = self.state.counters.backend(backend) else { return };
        for direction in [Direction::Original, Direction::Reply] {
            counters.hardware[direction as usize].count_all(counts[direction as usize]);
        }
    }

    fn revoke(&mut self, flow: FlowRef, rule: RuleId, why: Revocation) {
        let counters = &self.state.counters;
        if self.env.revoke(&Revoke { flow, rule, why }) {
            counters.offload_revoked[why as usize].add(1);
        } else {
            counters.offload_revoke_refused.add(1);
        }
    }
}
