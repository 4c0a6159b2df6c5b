//! A port's queues: the packet path's two calls.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, Ordering};

use arrayvec::ArrayVec;
use dataplane::ids::PortId;
use dataplane::packet::PacketBuf;

use crate::mbuf::Mbuf;

/// Why a queue cannot be had.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum QueueError {
    /// The port is not started.
    #[error("port {port} is not started")]
    NotStarted {
        /// The port.
        port: String,
    },
    /// The port was configured with fewer queues.
    #[error("port {port} has no queue {queue}")]
    NoSuchQueue {
        /// The port.
        port: String,
        /// What was asked for.
        queue: u16,
    },
    /// Somebody has it.
    #[error("queue {queue} of port {port} is taken already")]
    Taken {
        /// The port.
        port: String,
        /// What was asked for.
        queue: u16,
    },
}

/// The right to poll one queue of a started port, which exists once, and returns when dropped.
#[derive(Debug)]
pub(crate) struct Claim<'port> {
    taken: &'port AtomicBool,
    /// DPDK's port and queue numbers.
    pub(crate) port: u16,
    pub(crate) queue: u16,
    /// Not `Sync`: queues are single-threaded, even for somebody with a shared reference.
    unshared: PhantomData<Cell<()>>,
}

impl<'port> Claim<'port> {
    /// Takes the queue, unless somebody has it.
    pub(crate) fn take(taken: &'port AtomicBool, port: u16, queue: u16) -> Option<Claim<'port>> {
        let was_taken = taken.swap(true, Ordering::Acquire);
        (!was_taken).then_some(Claim { taken, port, queue, unshared: PhantomData })
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.taken.store(false, Ordering::Release);
    }
}

/// A receive queue. Goes where its worker goes; one at a time.
#[derive(Debug)]
pub struct RxQueue<'port> {
    pub(crate) claim: Claim<'port>,
    pub(crate) id: PortId,
}

impl RxQueue<'_> {
    /// Appends what has arrived, up to the remaining capacity. Returns how many packets that were.
    #[inline]
    pub fn burst<const N: usize>(&mut self, packets: &mut ArrayVec<Mbuf, N>) -> usize {
        let len = packets.len();
        let room = packets.remaining_capacity().min(usize::from(u16::MAX)) as u16;
        // SAFETY: the port is started and stays so while the claim borrows it, the queue exists and the
        // claim makes us its only poller. Behind `len` there is room for `room` pointers; the driver
        // writes `received` of them, each an unshared buffer that becomes ours.
        let received = unsafe {
            let tail = packets.as_mut_ptr().add(len).cast();
            let received = dpdk_sys::millrace_rx_burst(self.claim.port, self.claim.queue, tail, room);
            let received = usize::from(received);
            packets.set_len(len + received);
            received
        };
        for packet in &mut packets[len..] {
            packet.set_port(self.id);
        }
        received
    }
}

/// A transmit queue. Goes where its worker goes; one at a time.
#[derive(Debug)]
pub struct TxQueue<'port> {
    pub(crate) claim: Claim<'port>,
    /// With fast free, the pool that every packet must be from.
    pub(crate) only_from: Option<OnlyFrom>,
}

/// A pool's identity, never followed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OnlyFrom(pub(crate) *const dpdk_sys::rte_mempool);

// SAFETY: the pointer is compared and never dereferenced.
unsafe impl Send for OnlyFrom {}

impl TxQueue<'_> {
    /// Sends from the front; what the NIC refuses stays in `packets`, in order and owned by the caller,
    /// who retries, or drops it for a counted reason. Returns how many were sent.
    ///
    /// With fast free granted, a packet that is not plainly one of the port's pool counts as refused:
    /// returning it there unseen would corrupt the pool.
    #[inline]
    pub fn burst<const N: usize>(&mut self, packets: &mut ArrayVec<Mbuf, N>) -> usize {
        let len = packets.len();
        let offered = match self.only_from {
            None => len,
            Some(OnlyFrom(pool)) => packets.iter().take_while(|packet| packet.is_plainly_from(pool)).count(),
        };
        let offered = offered.min(usize::from(u16::MAX));
        // SAFETY: the port is started and stays so while the claim borrows it; the claim makes us the
        // queue's only sender. The first `sent` buffers now belong to the driver and the vector forgets
        // them: its length is 0 until the rest has moved to the front, and nothing between can panic.
        unsafe {
            let first = packets.as_mut_ptr();
            packets.set_len(0);
            let sent =
                dpdk_sys::millrace_tx_burst(self.claim.port, self.claim.queue, first.cast(), offered as u16);
            let sent = usize::from(sent);
            core::ptr::copy(first.add(sent), first, len - sent);
            packets.set_len(len - sent);
            sent
        }
    }
}

#[cfg(test)]
mod tests {
    use dataplane::packet::{Burst, PacketBuf};

    use super::*;
    use crate::{Eal, Mempool, PoolConfig, PortConfig};

    /// None of the software devices offers fast free, so the queue is told of it here.
    #[test]
    fn fast_free_refuses_packets_of_other_pools() {
        let args = ["--no-huge", "--no-shconf", "-m", "64", "--no-pci", "--no-telemetry", "-l", "0"];
        let eal = Eal::init(&args).expect("the EAL starts");
        let data_room_bytes = PoolConfig::DATA_ROOM_BYTES;
        let pool = |name| {
            let config = PoolConfig { name, count: 1023, cache: 0, data_room_bytes, socket: None };
            Mempool::create(&eal, &config).expect("there is memory for a pool")
        };
        let (own, other) = (pool("own"), pool("other"));
        let device = eal.probe("net_ring_ff").expect("probes").remove(0);
        let mut port = device.configure(&PortConfig::default(), &own).expect("configures");
        port.start().expect("starts");
        let (mut rx, mut tx) = (port.rx_queue(0).expect("rx"), port.tx_queue(0).expect("tx"));
        tx.only_from = Some(OnlyFrom(own.as_ptr()));

        let mut burst = Burst::<Mbuf>::new();
        for (pool, len) in [(&own, 60), (&own, 61), (&other, 62), (&own, 63)] {
            let mut packet = pool.alloc().expect("the pool has buffers");
            assert!(packet.set_len(len));
            burst.push(packet);
        }
        assert_eq!(tx.burst(&mut burst), 2);
        assert_eq!(tx.burst(&mut burst), 0);
        assert_eq!(burst.iter().map(|packet| packet.data().len()).collect::<Vec<_>>(), [62, 63]);
        burst.remove(0);
        assert_eq!(tx.burst(&mut burst), 1);
        assert_eq!(rx.burst(&mut burst), 3);
        burst.clear();
        assert_eq!((own.in_use(), other.in_use()), (0, 0));
    }
}
