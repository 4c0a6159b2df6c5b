//! What hardware has to know for partitions: who is at the next hops. The table says which backend has one;
//! only workers know by which MAC address it is reached.

use super::upkeep::ANNOUNCER;
use super::{Env, Walk};
use crate::offload::Reached;
use crate::time::Tick;

/// How often all next hops are told: it costs less to say it again than to know what was heard.
const ROUND_MS: u32 = 250;
/// Next hops told in one call.
const BUDGET: usize = 16;

/// How far the telling has come.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Told {
    /// The next hop to be told next.
    next: usize,
    /// When the last round began.
    began: Option<Tick>,
}

impl<E: Env> Walk<'_, E> {
    /// Tells the engine who is at the next few next hops; one worker does. Looking counts as use, so that
    /// neighbours are probed whose packets never come here. Of one that does not answer nothing is said:
    /// while it is slow, it has not moved.
    pub(super) fn tell_reached(&mut self) {
        let hops = self.snapshot.parted_hops();
        if hops.is_empty() || self.state.id != ANNOUNCER {
            return;
        }
        let mut told = self.state.upkeep.told;
        if told.next >= hops.len() {
            if told.began.is_some_and(|began| self.now.since(began) < ROUND_MS) {
                return;
            }
            told = Told { next: 0, began: Some(self.now) };
        }
        for hop in hops.iter().skip(told.next).take(BUDGET) {
            let mac = self.state.neighbours.find(self.now, hop.port, hop.next_hop);
            if mac.is_none() {
                // Perhaps it was forgotten: nobody else asks for it.
                let _ = self.state.neighbours.id_of(self.now, hop.port, hop.next_hop);
            }
            if mac.is_some_and(|mac| !self.env.reached(&Reached { hop: *hop, mac })) {
                // There may be room later, or there is nobody to listen.
                told.next = hops.len();
                break;
            }
            told.next += 1;
        }
        self.state.upkeep.told = told;
    }
}
