//! Bounded rings between workers: packets that belong to another worker, and what was learnt about
//! neighbours. One of each per receiver; any worker may write to it, its owner reads.

use crossbeam::queue::ArrayQueue;
use crossbeam::utils::CachePadded;
use dataplane::counters::WorkerCounters;
use dataplane::drops::DropReason;
use dataplane::ids::WorkerId;
use dataplane::neighbour::NeighbourUpdate;
use dataplane::packet::Burst;

/// Neighbour updates that may wait for a worker. One that is lost costs the receiver a question of its own.
const UPDATES_MAX: usize = 256;

/// The rings of all workers.
pub(crate) struct Rings<B> {
    inboxes: Box<[CachePadded<Inbox<B>>]>,
}

struct Inbox<B> {
    packets: ArrayQueue<B>,
    updates: ArrayQueue<NeighbourUpdate>,
}

impl<B> Rings<B> {
    /// Rings for so many workers, each for `packets_max` packets.
    pub(crate) fn new(workers: usize, packets_max: usize) -> Rings<B> {
        let inbox = || {
            let (packets, updates) = (ArrayQueue::new(packets_max), ArrayQueue::new(UPDATES_MAX));
            CachePadded::new(Inbox { packets, updates })
        };
        Rings { inboxes: std::iter::repeat_with(inbox).take(workers).collect() }
    }

    /// Gives a packet to its owner; it comes back if there is no room.
    #[inline]
    pub(crate) fn hand_off(&self, to: WorkerId, packet: B) -> Result<(), B> {
        match self.inboxes.get(to.index()) {
            Some(inbox) => inbox.packets.push(packet),
            None => Err(packet),
        }
    }

    /// Tells every worker but `from`. A full ring loses the update.
    pub(crate) fn announce(&self, from: WorkerId, update: &NeighbourUpdate) {
        for (index, inbox) in self.inboxes.iter().enumerate() {
            if index != from.index() {
                let _ = inbox.updates.push(*update);
            }
        }
    }

    /// Moves packets for worker `id` to `burst`, as many as are there and fit.
    #[inline]
    pub(crate) fn take_packets(&self, id: WorkerId, burst: &mut Burst<B>) {
        // Looking costs two loads; an unsuccessful pop would cost a fence.
        let packets = &self.inboxes[id.index()].packets;
        while !burst.is_full() && !packets.is_empty() {
            match packets.pop() {
                Some(packet) => burst.push(packet),
                None => break,
            }
        }
    }

    /// The next update for worker `id`.
    #[inline]
    pub(crate) fn take_update(&self, id: WorkerId) -> Option<NeighbourUpdate> {
        let updates = &self.inboxes[id.index()].updates;
        if updates.is_empty() { None } else { updates.pop() }
    }

    /// Drops what is still under way to worker `id` and counts it as its own. Only once all workers have
    /// ended: before, more could follow, and the counters are theirs.
    pub(crate) fn discard(&self, id: WorkerId, counters: &WorkerCounters) {
        while let Some(packet) = self.inboxes[id.index()].packets.pop() {
            drop(packet);
            counters.handed_in.add(1);
            counters.drop_packet(DropReason::Shutdown);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataplane::addr::{Ip, MacAddr};
    use dataplane::ids::PortId;

    const A: WorkerId = WorkerId(0);
    const B: WorkerId = WorkerId(1);

    #[test]
    fn packets_reach_their_owner_in_order_and_no_further() {
        let rings = Rings::new(2, 2);
        assert_eq!(rings.hand_off(B, 1), Ok(()));
        assert_eq!(rings.hand_off(B, 2), Ok(()));
        assert_eq!(rings.hand_off(B, 3), Err(3), "the ring is full");
        assert_eq!(rings.hand_off(WorkerId(2), 4), Err(4), "nobody there");
        let mut burst = Burst::new();
        rings.take_packets(A, &mut burst);
        assert!(burst.is_empty());
        rings.take_packets(B, &mut burst);
        assert_eq!(burst.as_slice(), [1, 2]);
    }

    #[test]
    fn updates_go_to_all_others_and_are_bounded() {
        let rings: Rings<()> = Rings::new(3, 1);
        let update = NeighbourUpdate {
            port: PortId(0),
            ip: Ip::v4(1),
            mac: MacAddr([2, 0, 0, 0, 0, 1]),
            solicited: true,
            overrides: true,
        };
        for _ in 0..UPDATES_MAX + 10 {
            rings.announce(A, &update);
        }
        assert_eq!(rings.take_update(A), None);
        for other in [B, WorkerId(2)] {
            let count = std::iter::from_fn(|| rings.take_update(other)).count();
            assert_eq!(count, UPDATES_MAX);
        }
    }

    #[test]
    fn what_is_under_way_at_the_end_is_accounted_for() {
        let rings = Rings::new(2, 8);
        let counters = WorkerCounters::new(0, 0);
        assert!((0..5).all(|packet| rings.hand_off(A, packet).is_ok()));
        rings.discard(A, &counters);
        assert_eq!((counters.handed_in.get(), counters.imbalance()), (5, 0));
        assert_eq!(counters.dropped[DropReason::Shutdown as usize].get(), 5);
    }
}
