//! The application's queues on a representor: rings to and from whoever drives the device.

use std::ffi::c_void;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use super::border;
use super::device::Switch;
use super::ffi;
use crate::model::types::Vport;

/// Polls of a queue without a sign of life from the service core before the poller drives again.
const SERVICE_PATIENCE: u32 = 64;

/// Counters of one queue. One thread writes them.
#[derive(Default)]
pub(super) struct QueueStats {
    pub(super) packets: AtomicU64,
    pub(super) bytes: AtomicU64,
    /// Receive: no buffer for a copy into the application's pool. Transmit: none to make it one piece.
    pub(super) failed: AtomicU64,
}

impl QueueStats {
    /// Not an atomic addition: only one thread writes.
    fn add(counter: &AtomicU64, n: u64) {
        counter.store(counter.load(Ordering::Relaxed) + n, Ordering::Relaxed);
    }
}

/// A receive queue.
pub(super) struct RxQueue {
    pub(super) switch: Arc<Switch>,
    /// Null for a hairpin queue.
    pub(super) ring: *mut ffi::rte_ring,
    /// The peer of a hairpin queue: its vport and its transmit queue.
    pub(super) hairpin: Option<(Vport, u16)>,
    /// A hairpin queue that carries something: see `hairpin`.
    pub(super) bound: AtomicBool,
    pub(super) pool: *mut ffi::rte_mempool,
    /// The application keeps data of its own beside its mbufs, so it gets copies in its own.
    pub(super) copies: bool,
    pub(super) descriptors: u16,
    pub(super) stats: QueueStats,
    pub(super) heard: Heartbeat,
}

/// A transmit queue.
pub(super) struct TxQueue {
    pub(super) switch: Arc<Switch>,
    /// Null for a hairpin queue.
    pub(super) ring: *mut ffi::rte_ring,
    /// The peer of a hairpin queue: its vport and its receive queue.
    pub(super) hairpin: Option<(Vport, u16)>,
    pub(super) descriptors: u16,
    pub(super) stats: QueueStats,
    pub(super) heard: Heartbeat,
}

/// What a queue last heard of the service core.
#[derive(Default)]
pub(super) struct Heartbeat {
    beat: AtomicU64,
    silent: AtomicU32,
}

impl Heartbeat {
    /// Whether a service core drives the device, so that the poller need not.
    #[inline]
    fn is_alive(&self, switch: &Switch) -> bool {
        let beat = switch.beats.load(Ordering::Relaxed);
        if beat == 0 {
            return false;
        }
        if beat != self.beat.load(Ordering::Relaxed) {
            self.beat.store(beat, Ordering::Relaxed);
            self.silent.store(0, Ordering::Relaxed);
            return true;
        }
        let silent = self.silent.load(Ordering::Relaxed).saturating_add(1);
        self.silent.store(silent, Ordering::Relaxed);
        silent < SERVICE_PATIENCE
    }
}

/// `rte_ring`s hold one less than a power of two.
fn ring_size(descriptors: u16) -> u32 {
    (u32::from(descriptors) + 1).next_power_of_two()
}

/// A ring for so many packets; null without memory.
pub(super) fn new_ring(descriptors: u16, socket: u32) -> *mut ffi::rte_ring {
    // SAFETY: a terminated name that outlives the call.
    unsafe { ffi::eswitch_ring_new(c"eswitch".as_ptr(), ring_size(descriptors), socket as i32) }
}

/// Frees a ring and what is in it.
fn free_ring(ring: *mut ffi::rte_ring) {
    if ring.is_null() {
        return;
    }
    let mut mbuf = std::ptr::null_mut();
    // SAFETY: the queue's owner is its last user, and what is in its ring is the driver's.
    unsafe {
        while ffi::eswitch_ring_dequeue(ring, &raw mut mbuf, 1) == 1 {
            ffi::eswitch_mbuf_free(mbuf);
        }
        ffi::eswitch_ring_free(ring);
    }
}

impl Drop for RxQueue {
    fn drop(&mut self) {
        free_ring(self.ring);
    }
}

impl Drop for TxQueue {
    fn drop(&mut self) {
        free_ring(self.ring);
    }
}

impl RxQueue {
    /// Drives the device, unless a service core does, and takes what is there for this queue.
    #[inline]
    fn receive(&self, out: &mut [*mut ffi::rte_mbuf]) -> u16 {
        if self.ring.is_null() {
            return 0;
        }
        if !self.heard.is_alive(&self.switch) {
            self.switch.drive();
        }
        // SAFETY: the application polls a queue from one thread at a time, so this is the one consumer.
        let count =
            unsafe { ffi::eswitch_ring_dequeue(self.ring, out.as_mut_ptr(), out.len() as u32) } as usize;
        if count == 0 {
            return 0;
        }
        let count = if self.copies { self.copy(&mut out[..count]) } else { count };
        let mut bytes = 0;
        for mbuf in &out[..count] {
            // SAFETY: they came out of the ring or are copies: valid, and ours until we return.
            unsafe {
                (**mbuf).__bindgen_anon_1.packet_type = ffi::eswitch_mbuf_type(*mbuf);
                bytes += u64::from((**mbuf).pkt_len);
            }
        }
        QueueStats::add(&self.stats.packets, count as u64);
        QueueStats::add(&self.stats.bytes, bytes);
        count as u16
    }

    /// Replaces packets with copies in the application's pool; returns how many there are.
    #[cold]
    fn copy(&self, packets: &mut [*mut ffi::rte_mbuf]) -> usize {
        let mut kept = 0;
        for at in 0..packets.len() {
            let original = packets[at];
            // SAFETY: the original is valid and ours; the pool is the application's, given for this. A copy
            // has no port and no packet type of its own.
            unsafe {
                let copy = ffi::rte_pktmbuf_copy(original, self.pool, 0, u32::MAX);
                if !copy.is_null() {
                    (*copy).port = (*original).port;
                    packets[kept] = copy;
                    kept += 1;
                }
                ffi::eswitch_mbuf_free(original);
            }
        }
        QueueStats::add(&self.stats.failed, (packets.len() - kept) as u64);
        kept
    }
}

impl TxQueue {
    /// Takes as many packets as there is room for, and drives the device unless a service core does.
    #[inline]
    fn send(&self, packets: &mut [*mut ffi::rte_mbuf]) -> u16 {
        if self.ring.is_null() {
            return 0;
        }
        let mut accepted = self.accept(packets);
        if !self.heard.is_alive(&self.switch) {
            self.switch.drive();
            if accepted < packets.len() {
                accepted += self.accept(&mut packets[accepted..]);
                self.switch.drive();
            }
        }
        accepted as u16
    }

    fn accept(&self, packets: &mut [*mut ffi::rte_mbuf]) -> usize {
        // SAFETY: the application sends on a queue from one thread at a time: this is the one producer, so
        // the room can only grow.
        let room = unsafe { ffi::eswitch_ring_room(self.ring) } as usize;
        let count = room.min(packets.len());
        let packets = &mut packets[..count];
        let pool = self.switch.pool();
        let (mut ready, mut bytes) = (0, 0);
        for at in 0..packets.len() {
            // SAFETY: the application gives its mbufs up; the function returns it or another, or frees it.
            unsafe {
                let mbuf = ffi::eswitch_mbuf_prepare(packets[at], pool);
                if !mbuf.is_null() {
                    bytes += u64::from((*mbuf).pkt_len);
                    packets[ready] = mbuf;
                    ready += 1;
                }
            }
        }
        // SAFETY: the one producer; there is room for all of them.
        unsafe { ffi::eswitch_ring_enqueue(self.ring, packets.as_mut_ptr(), ready as u32) };
        QueueStats::add(&self.stats.packets, ready as u64);
        QueueStats::add(&self.stats.bytes, bytes);
        QueueStats::add(&self.stats.failed, (packets.len() - ready) as u64);
        packets.len()
    }
}

/// The application's array of a burst. One of none may be null: some call so only to get things going.
///
/// # Safety
/// An array of `count` pointers, which nobody else uses for `'a`.
#[inline]
unsafe fn array<'a>(packets: *mut *mut ffi::rte_mbuf, count: u16) -> &'a mut [*mut ffi::rte_mbuf] {
    if count == 0 {
        return &mut [];
    }
    // SAFETY: not empty, so it is there (the caller's promise).
    unsafe { std::slice::from_raw_parts_mut(packets, usize::from(count)) }
}

/// `rx_pkt_burst`
pub(super) unsafe extern "C" fn rx_burst(
    queue: *mut c_void,
    packets: *mut *mut ffi::rte_mbuf,
    count: u16,
) -> u16 {
    border::guard("rx_burst", 0, || {
        // SAFETY: ethdev passes what the set-up of the queue stored, and an array of so many pointers.
        let (queue, packets) = unsafe { (&*queue.cast::<RxQueue>(), array(packets, count)) };
        queue.receive(packets)
    })
}

/// `tx_pkt_burst`
pub(super) unsafe extern "C" fn tx_burst(
    queue: *mut c_void,
    packets: *mut *mut ffi::rte_mbuf,
    count: u16,
) -> u16 {
    border::guard("tx_burst", 0, || {
        // SAFETY: as in `rx_burst`.
        let (queue, packets) = unsafe { (&*queue.cast::<TxQueue>(), array(packets, count)) };
        queue.send(packets)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_hold_what_was_asked_for() {
        for (descriptors, size) in [(1, 2), (63, 64), (64, 128), (512, 1024), (u16::MAX, 65_536)] {
            assert_eq!(ring_size(descriptors), size);
        }
    }
}
