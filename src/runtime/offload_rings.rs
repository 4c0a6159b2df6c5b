//! Bounded rings between the workers and the offload thread, the price it asks of them, and whether there is
//! a fence before rules.
//!
//! ```text
//! worker ── asks, revocations, what is denied ──▶ offload thread
//!   ▲                                                │
//!   └────── answers, price, fence ───────────────────┘
//! ```
//!
//! Asks and revocations have rings of their own, so that what must leave hardware never waits behind what
//! would like to enter it.

use crossbeam::queue::ArrayQueue;
use crossbeam::utils::CachePadded;
use dataplane::ids::WorkerId;
use dataplane::offload::{Answer, Ask, Denied, Reached, Revoke};
use offload::machine::Outbox;
use std::sync::atomic::{
    AtomicBool, AtomicU32,
    Ordering::{Acquire, Relaxed, Release},
};

/// Requests of one worker that may wait. One that finds no room is made again by a later packet.
const ASKS_MAX: usize = 1024;
/// Revocations of one worker that may wait. One that finds no room is told again when the connection is
/// counted next.
const REVOCATIONS_MAX: usize = 8192;
/// Answers that may wait for one worker. The offload thread keeps the others, and tries again.
const ANSWERS_MAX: usize = 8192;

/// Tuples that one worker drops and that may wait. One that finds no room is told again a second later.
const DENIED_MAX: usize = 256;
/// Next hops of one worker that may wait. One that finds no room is told again soon.
const REACHED_MAX: usize = 64;

/// The price while nothing is to be asked for.
const NEVER: u32 = u32::MAX;

/// The rings of all workers.
pub(crate) struct OffloadRings {
    /// Packets that a connection must have carried to be asked for.
    price: CachePadded<AtomicU32>,
    /// Whether packets are kept from rules that are in force.
    fenced: CachePadded<AtomicBool>,
    workers: Box<[CachePadded<Channel>]>,
}

struct Channel {
    asks: ArrayQueue<Ask>,
    revocations: ArrayQueue<Revoke>,
    answers: ArrayQueue<Answer>,
    denied: ArrayQueue<Denied>,
    reached: ArrayQueue<Reached>,
}

impl OffloadRings {
    /// Empty rings for so many workers.
    pub(crate) fn new(workers: usize) -> OffloadRings {
        let channel = || {
            CachePadded::new(Channel {
                asks: ArrayQueue::new(ASKS_MAX),
                revocations: ArrayQueue::new(REVOCATIONS_MAX),
                answers: ArrayQueue::new(ANSWERS_MAX),
                denied: ArrayQueue::new(DENIED_MAX),
                reached: ArrayQueue::new(REACHED_MAX),
            })
        };
        OffloadRings {
            price: CachePadded::new(AtomicU32::new(NEVER)),
            fenced: CachePadded::new(AtomicBool::new(false)),
            workers: std::iter::repeat_with(channel).take(workers).collect(),
        }
    }

    /// The end of worker `id`; `None` if there is no such worker.
    pub(crate) fn worker(&self, id: WorkerId) -> Option<WorkerEnd<'_>> {
        Some(WorkerEnd { price: &self.price, fenced: &self.fenced, channel: self.workers.get(id.index())? })
    }

    /// What workers are to ask for from now on.
    pub(crate) fn set_price(&self, price: u32) {
        self.price.store(price, Relaxed);
    }

    /// Whether workers are to expect packets of connections that hardware has. Known before the device is
    /// told anything that follows.
    pub(crate) fn set_fenced(&self, fenced: bool) {
        self.fenced.store(fenced, Release);
    }

    /// Nothing is to be asked for until [`OffloadRings::set_price`].
    pub(crate) fn refuse(&self) {
        self.set_price(NEVER);
    }

    /// Hands on every revocation there is.
    pub(crate) fn take_revocations(&self, mut revoke: impl FnMut(&Revoke)) {
        for channel in &self.workers {
            // No more than were there at first, so that a busy worker does not keep us.
            for _ in 0..channel.revocations.len() {
                let Some(wish) = channel.revocations.pop() else { break };
                revoke(&wish);
            }
        }
    }

    /// Hands on every tuple that workers were told to drop.
    pub(crate) fn take_denied(&self, mut deny: impl FnMut(&Denied)) {
        for channel in &self.workers {
            for _ in 0..channel.denied.len() {
                let Some(denied) = channel.denied.pop() else { break };
                deny(&denied);
            }
        }
    }

    /// Hands on what was told of next hops.
    pub(crate) fn take_reached(&self, mut reached: impl FnMut(&Reached)) {
        for channel in &self.workers {
            for _ in 0..channel.reached.len() {
                let Some(told) = channel.reached.pop() else { break };
                reached(&told);
            }
        }
    }

    /// Hands on requests, `max` at most, of every worker its share.
    pub(crate) fn take_asks(&self, max: usize, mut ask: impl FnMut(&Ask)) {
        for channel in &self.workers {
            for _ in 0..channel.asks.len().min(max / self.workers.len()) {
                let Some(wish) = channel.asks.pop() else { break };
                ask(&wish);
            }
        }
    }
}

impl Outbox for &OffloadRings {
    fn answer(&mut self, answer: Answer) -> Result<(), Answer> {
        match self.workers.get(answer.flow().worker.index()) {
            Some(channel) => channel.answers.push(answer),
            // Nobody to tell; kept, it would be tried for ever.
            None => Ok(()),
        }
    }
}

/// One worker's end.
#[derive(Clone, Copy)]
pub(crate) struct WorkerEnd<'a> {
    price: &'a AtomicU32,
    fenced: &'a AtomicBool,
    channel: &'a Channel,
}

impl WorkerEnd<'_> {
    /// Packets that a connection must have carried to be asked for.
    #[inline]
    pub(crate) fn price(&self) -> u32 {
        self.price.load(Relaxed)
    }

    /// Whether packets of connections in hardware come here for a reason.
    #[inline]
    pub(crate) fn is_fenced(&self) -> bool {
        self.fenced.load(Acquire)
    }

    /// Tells who is at a next hop; `false` if there is no room.
    pub(crate) fn reached(&self, reached: &Reached) -> bool {
        self.channel.reached.push(*reached).is_ok()
    }

    /// Asks; `false` if there is no room.
    #[inline]
    pub(crate) fn ask(&self, ask: &Ask) -> bool {
        self.channel.asks.push(*ask).is_ok()
    }

    /// Revokes; `false` if there is no room.
    #[inline]
    pub(crate) fn revoke(&self, revoke: &Revoke) -> bool {
        self.channel.revocations.push(*revoke).is_ok()
    }

    /// Tells of a tuple that hardware had better drop; `false` if there is no room.
    pub(crate) fn deny(&self, denied: &Denied) -> bool {
        self.channel.denied.push(*denied).is_ok()
    }

    /// The next answer. Two loads when there is none.
    #[inline]
    pub(crate) fn take_answer(&self) -> Option<Answer> {
        let answers = &self.channel.answers;
        if answers.is_empty() { None } else { answers.pop() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataplane::offload::{FlowRef, Revocation, RuleId, Token};

    fn flow(worker: u16, slot: u32) -> FlowRef {
        FlowRef { worker: WorkerId(worker), slot, generation: 1 }
    }

    fn declined(worker: u16) -> Answer {
        let reason = dataplane::offload::Declined::Budget;
        Answer::Declined { flow: flow(worker, 0), token: Token(7), reason, retry_ms: 100 }
    }

    #[test]
    fn every_revocation_that_found_room_is_handed_on() {
        let rings = OffloadRings::new(2);
        let worker = rings.worker(WorkerId(1)).expect("there");
        let revoke = |slot| Revoke { flow: flow(1, slot), rule: RuleId(slot), why: Revocation::Gone };
        let taken = (0..).take_while(|slot| worker.revoke(&revoke(*slot))).count();
        assert_eq!(taken, REVOCATIONS_MAX);
        let mut seen = Vec::new();
        rings.take_revocations(|wish| seen.push(wish.rule.0));
        assert!(seen.len() == REVOCATIONS_MAX && seen.is_sorted());
        assert!(worker.revoke(&revoke(0)), "there is room again");
    }

    #[test]
    fn answers_reach_their_worker_or_come_back() {
        let rings = OffloadRings::new(2);
        let mut outbox = &rings;
        let given = (0..).take_while(|_| outbox.answer(declined(1)).is_ok()).count();
        assert_eq!(given, ANSWERS_MAX);
        assert_eq!(outbox.answer(declined(1)), Err(declined(1)));
        assert_eq!(outbox.answer(declined(2)), Ok(()), "nobody there: forgotten");
        let [first, second] = [0, 1].map(|id| rings.worker(WorkerId(id)).expect("there"));
        assert_eq!((first.take_answer(), second.take_answer()), (None, Some(declined(1))));
        assert!(rings.worker(WorkerId(2)).is_none());
    }

    #[test]
    fn nothing_is_asked_for_until_there_is_a_price() {
        let rings = OffloadRings::new(1);
        let worker = rings.worker(WorkerId(0)).expect("there");
        assert_eq!(worker.price(), u32::MAX);
        rings.set_price(8);
        assert_eq!(worker.price(), 8);
        rings.refuse();
        assert_eq!(worker.price(), u32::MAX);
    }
}
