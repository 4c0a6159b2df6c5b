//! What a worker has around it: queues that fill up, a pool that runs dry, rings to the offload thread.

use crate::canary::Canary;
use crate::packet::{Pool, SimPacket};
use crate::rng::Rng;
use crate::scenario::FaultPlan;
use dataplane::counters::WorkerCounters;
use dataplane::drops::DropReason;
use dataplane::ids::{PortId, WorkerId};
use dataplane::neighbour::NeighbourUpdate;
use dataplane::offload::{Answer, Ask, Revoke};
use dataplane::worker::Env;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

/// How often each software fault happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct FaultCounts {
    pub(crate) ask_full: u64,
    pub(crate) revoke_full: u64,
    pub(crate) answer_full: u64,
    pub(crate) hand_off_full: u64,
    pub(crate) announce_lost: u64,
    pub(crate) tx_refused: u64,
    pub(crate) pool_exhausted: u64,
    pub(crate) wire_lost: u64,
    pub(crate) rx_full: u64,
    pub(crate) device: u64,
}

/// One worker's surroundings.
pub(crate) struct SimEnv {
    pub(crate) counters: Arc<WorkerCounters>,
    pub(crate) pool: Rc<Pool>,
    pub(crate) rng: Rng,
    pub(crate) faults: FaultPlan,
    pub(crate) happened: FaultCounts,
    /// Entries of each ring.
    pub(crate) ring: usize,
    pub(crate) canary: Option<Canary>,
    /// Whether there is an offload thread.
    pub(crate) engine: bool,
    pub(crate) sent: Vec<(PortId, SimPacket)>,
    pub(crate) handed: Vec<(WorkerId, SimPacket)>,
    /// Free places in the other workers' rings, as of the beginning of the turn.
    pub(crate) hand_off_room: Vec<usize>,
    pub(crate) announced: Vec<NeighbourUpdate>,
    pub(crate) asks: VecDeque<Ask>,
    pub(crate) revokes: VecDeque<Revoke>,
    pub(crate) answers: VecDeque<Answer>,
}

impl SimEnv {
    /// Whether an answer finds no room.
    pub(crate) fn refuses_answer(&mut self) -> bool {
        let refuses = self.answers.len() >= self.ring || self.rng.chance(self.faults.answer_full);
        self.happened.answer_full += u64::from(refuses);
        refuses
    }
}

impl Env for SimEnv {
    type Buf = SimPacket;

    fn alloc(&mut self, port: PortId) -> Option<SimPacket> {
        let packet = if self.rng.chance(self.faults.pool_exhausted) {
            None
        } else {
            SimPacket::empty(&self.pool, port)
        };
        self.happened.pool_exhausted += u64::from(packet.is_none());
        packet
    }

    fn send(&mut self, port: PortId, packet: SimPacket) {
        if self.rng.chance(self.faults.tx_refused) {
            self.happened.tx_refused += 1;
            self.counters.drop_packet(DropReason::TxRingFull);
            return;
        }
        self.counters.sent.add(1);
        if self.canary == Some(Canary::LosesPacket) && self.counters.sent.get() % 1000 == 0 {
            std::mem::forget(packet);
            return;
        }
        self.sent.push((port, packet));
    }

    fn hand_off(&mut self, to: WorkerId, packet: SimPacket) -> Result<(), SimPacket> {
        if self.hand_off_room[to.index()] == 0 || self.rng.chance(self.faults.hand_off_full) {
            self.happened.hand_off_full += 1;
            return Err(packet);
        }
        self.hand_off_room[to.index()] -= 1;
        self.handed.push((to, packet));
        Ok(())
    }

    fn announce(&mut self, update: &NeighbourUpdate) {
        if self.rng.chance(self.faults.announce_lost) {
            self.happened.announce_lost += 1;
        } else {
            self.announced.push(*update);
        }
    }

    fn ask(&mut self, ask: &Ask) -> bool {
        let full = self.asks.len() >= self.ring || self.rng.chance(self.faults.ask_full);
        if !self.engine || full {
            self.happened.ask_full += u64::from(self.engine);
            return false;
        }
        self.asks.push_back(*ask);
        true
    }

    fn revoke(&mut self, revoke: &Revoke) -> bool {
        let full = self.revokes.len() >= self.ring || self.rng.chance(self.faults.revoke_full);
        if !self.engine || full {
            self.happened.revoke_full += u64::from(self.engine);
            return false;
        }
        if self.canary != Some(Canary::DropsRevocations) {
            self.revokes.push_back(*revoke);
        }
        true
    }
}
