//! The outside world as the walk sees it: transmit queues, other workers, fresh buffers.

use crate::clock::Clock;
use crate::runtime::offload_rings::WorkerEnd;
use crate::runtime::probe_rings::ProbeRings;
use crate::runtime::rings::Rings;
use crate::verdicts::Verdicts;
use arrayvec::ArrayVec;
use dataplane::addr::Ip;
use dataplane::counters::WorkerCounters;
use dataplane::drops::DropReason;
use dataplane::ids::{PortId, WorkerId};
use dataplane::limits::DEVICES_MAX;
use dataplane::meter::Nanos;
use dataplane::neighbour::NeighbourUpdate;
use dataplane::offload::{Ask, Denied, Reached, Revoke};
use dataplane::packet::{Burst, PacketBuf};
use dataplane::policy::LogEvent;
use dataplane::worker::Env;
use dpdk::{Mbuf, Mempool, TxQueue};
use std::sync::Arc;

/// How often a full transmit queue is tried again before its packets are dropped: long enough for a device
/// to fetch some descriptors, short against the time in which the receive queue fills up.
const TX_ATTEMPTS: usize = 16;

/// One worker's way out.
pub(crate) struct Outside<'a> {
    pub(crate) id: WorkerId,
    pub(crate) counters: Arc<WorkerCounters>,
    /// By the [`PortId`] of ports with devices of their own, which are the first.
    pub(crate) outlets: ArrayVec<Outlet<'a>, DEVICES_MAX>,
    /// The ports on the devices of others: whose, in the order of their numbers, which come behind.
    pub(crate) parents: Box<[PortId]>,
    pub(crate) rings: &'a Rings<Mbuf>,
    /// The way to the offload thread, if there is one.
    pub(crate) offload: Option<WorkerEnd<'a>>,
    pub(crate) verdicts: Arc<Verdicts>,
    /// The way to the health checker.
    pub(crate) probes: &'a ProbeRings,
    pub(crate) clock: Clock,
    /// What the time-stamp counter showed when this turn began.
    pub(crate) cycles: u64,
}

/// A transmit queue, the packets that wait for the end of the burst, and where new packets come from.
pub(crate) struct Outlet<'a> {
    pub(crate) queue: TxQueue<'a>,
    pub(crate) waiting: Burst<Mbuf>,
    pub(crate) pool: &'a Mempool<'a>,
}

impl<'a> Outside<'a> {
    /// Which outlet is a port's. The configuration names only ports that exist.
    #[inline(always)] // As every packet comes here, nearly always for a port with a device.
    fn outlet(&self, port: PortId) -> usize {
        match port.index().checked_sub(self.outlets.len()) {
            None => port.index(),
            Some(behind) => self.parents.get(behind).map_or(usize::MAX, |parent| parent.index()),
        }
    }

    /// Gives what waits to the devices.
    #[inline]
    pub(crate) fn flush(&mut self) {
        for outlet in &mut self.outlets {
            if !outlet.waiting.is_empty() {
                outlet.flush(&self.counters);
            }
        }
    }
}

impl Outlet<'_> {
    fn flush(&mut self, counters: &WorkerCounters) {
        let queue = &mut self.queue;
        transmit(&mut self.waiting, counters, |packets| {
            queue.burst(packets);
        });
    }
}

/// Gives packets to a device until it has taken all of them or was tried often enough. `send` removes from
/// the burst what the device takes; what it never takes is dropped and counted.
fn transmit<B>(packets: &mut Burst<B>, counters: &WorkerCounters, mut send: impl FnMut(&mut Burst<B>)) {
    let offered = packets.len();
    for _ in 0..TX_ATTEMPTS {
        send(packets);
        if packets.is_empty() {
            break;
        }
        std::hint::spin_loop();
    }
    counters.sent.add((offered - packets.len()) as u64);
    for packet in packets.drain(..) {
        drop(packet);
        counters.drop_packet(DropReason::TxRingFull);
    }
}

impl Env for Outside<'_> {
    type Buf = Mbuf;

    #[inline]
    fn alloc(&mut self, port: PortId) -> Option<Mbuf> {
        let mut packet = self.outlets.get(self.outlet(port))?.pool.alloc()?;
        packet.set_port(port);
        Some(packet)
    }

    #[inline]
    fn send(&mut self, port: PortId, packet: Mbuf) {
        // The configuration names only ports that exist, so `get_mut` cannot fail; if it did, the packet
        // would count as refused.
        let outlet = self.outlet(port);
        let Some(outlet) = self.outlets.get_mut(outlet) else {
            return self.counters.drop_packet(DropReason::TxRingFull);
        };
        if outlet.waiting.is_full() {
            outlet.flush(&self.counters);
        }
        outlet.waiting.push(packet);
    }

    #[inline]
    fn hand_off(&mut self, to: WorkerId, packet: Mbuf) -> Result<(), Mbuf> {
        self.rings.hand_off(to, packet)
    }

    fn announce(&mut self, update: &NeighbourUpdate) {
        self.rings.announce(self.id, update);
    }

    #[inline]
    fn ask(&mut self, ask: &Ask) -> bool {
        self.offload.is_some_and(|offload| offload.ask(ask))
    }

    fn deliver_local(&mut self, from: u16, to: Ip, packet: &[u8]) -> bool {
        self.probes.deliver(from, to, packet)
    }

    fn nanos(&self) -> Option<Nanos> {
        Some(Nanos(self.clock.nanoseconds(self.cycles)))
    }

    #[inline]
    fn revoke(&mut self, revoke: &Revoke) -> bool {
        self.offload.is_some_and(|offload| offload.revoke(revoke))
    }

    fn denied(&mut self, denied: &Denied) -> bool {
        self.offload.is_some_and(|offload| offload.deny(denied))
    }

    fn reached(&mut self, reached: &Reached) -> bool {
        self.offload.is_some_and(|offload| offload.reached(reached))
    }

    fn log(&mut self, event: &LogEvent) -> bool {
        self.verdicts.push(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters() -> WorkerCounters {
        WorkerCounters::new(0, 0)
    }

    fn refused(counters: &WorkerCounters) -> u64 {
        counters.dropped[DropReason::TxRingFull as usize].get()
    }

    #[test]
    fn a_device_that_takes_some_at_a_time_gets_all() {
        let counters = counters();
        let mut packets: Burst<u32> = (0..20).collect();
        let mut taken = Vec::new();
        transmit(&mut packets, &counters, |packets| taken.extend(packets.drain(..packets.len().min(3))));
        assert_eq!(taken, (0..20).collect::<Vec<_>>());
        assert_eq!((counters.sent.get(), refused(&counters)), (20, 0));
    }

    #[test]
    fn a_device_that_is_stuck_costs_its_packets_and_no_more() {
        let counters = counters();
        let mut packets: Burst<u32> = (0..20).collect();
        let mut attempts = 0;
        transmit(&mut packets, &counters, |packets| {
            attempts += 1;
            if attempts == 2 {
                packets.drain(..5);
            }
        });
        assert!(packets.is_empty());
        assert_eq!((attempts, counters.sent.get(), refused(&counters)), (TX_ATTEMPTS, 5, 15));
    }
}
