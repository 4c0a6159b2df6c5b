//! A meter that is in part a device's: what the two halves know of each other.
//!
//! Whoever drives the device reserves the device's part of the rate in the meter's bucket as time passes, so
//! that both together never have more than the meter's rate. Workers say when they had too little.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// What a bucket holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Tokens {
    /// One for each packet.
    Packets,
    /// One for each byte of IP packet.
    Bytes,
}

/// See the module's header. It outlives changes of the limit.
#[derive(Debug, Default)]
pub struct InHardware {
    short: AtomicBool,
    rate: AtomicU64,
    red_packets: AtomicU64,
    red_bytes: AtomicU64,
}

impl InHardware {
    /// A worker had no token for a packet.
    #[inline]
    pub(super) fn note_short(&self) {
        // Most often somebody has said so already, and the line stays with everybody.
        if !self.short.load(Relaxed) {
            self.short.store(true, Relaxed);
        }
    }

    /// Whether a worker had no token for a packet since this was asked last.
    pub fn take_short(&self) -> bool {
        self.short.swap(false, Relaxed)
    }

    /// Sets the device's part of the rate, tokens a second.
    pub fn set_rate(&self, per_second: u64) {
        self.rate.store(per_second, Relaxed);
    }

    /// The device's part of the rate, tokens a second.
    #[must_use]
    pub fn rate(&self) -> u64 {
        self.rate.load(Relaxed)
    }

    /// Counts packets that the device has dropped, and their bytes of IP packet.
    pub fn count_red(&self, packets: u64, bytes: u64) {
        self.red_packets.fetch_add(packets, Relaxed);
        self.red_bytes.fetch_add(bytes, Relaxed);
    }

    /// Packets that the device has dropped, and their bytes of IP packet.
    #[must_use]
    pub fn red(&self) -> (u64, u64) {
        (self.red_packets.load(Relaxed), self.red_bytes.load(Relaxed))
    }
}
