//! Meters: how many packets, bits and new connections a second a service or a tenant may have, and how many
//! connections at a time.
//!
//! In reading order: [`bucket`] (tokens, shared by workers without a lock), [`marker`] (colours of RFC 2697
//! and RFC 2698), [`hardware`] (a meter that is in part a device's), and here the [`Meter`] of one service or
//! tenant, with the [`Account`] that a worker has there. Nothing here knows packets: `worker/meter.rs` does.

mod bucket;
mod hardware;
mod marker;
#[cfg(test)]
mod tests;

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::Arc;

pub use bucket::{Bucket, Drawn, Excess, Nanos};
pub use hardware::{InHardware, Tokens};
pub use marker::{Beyond, Colour, Marker, Purse, Rate};

/// Packets that a worker takes from a meter at a time,
const LEASE_PACKETS: u32 = 64;
/// and bytes.
const LEASE_BYTES: u32 = 65_536;
/// Bursts are at least this many packets or connections: as many as may be received at once.
pub const BURST_PACKETS_MIN: u64 = 32;
/// Bursts are at least this many bytes: several of the largest packets.
pub const BURST_BYTES_MIN: u64 = 65_536;

/// What a meter limits; `None` is not limited.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Limit {
    /// Packets a second that are green.
    pub packets_per_second: Option<u64>,
    /// Bits of IP packet a second that are green.
    pub bits_per_second: Option<u64>,
    /// New connections a second.
    pub new_connections_per_second: Option<u64>,
    /// Connections at a time.
    pub connections: Option<u64>,
    /// How much may come at once: what the rates bring in so many milliseconds.
    pub burst_ms: u32,
    /// RFC 2697: yellow is what was left unused, up to what the rates bring in so many milliseconds.
    pub excess_ms: Option<u32>,
    /// RFC 2698: up to so many packets a second are yellow.
    pub peak_packets_per_second: Option<u64>,
    /// RFC 2698: up to so many bits a second are yellow.
    pub peak_bits_per_second: Option<u64>,
    /// The DSCP that yellow packets are marked with; `None` leaves them as they are.
    pub yellow_dscp: Option<u8>,
}

impl Limit {
    /// How much may come at once unless the configuration says otherwise, milliseconds.
    pub const BURST_MS: u32 = 100;

    /// Whether every packet is metered.
    #[must_use]
    pub fn has_rates(&self) -> bool {
        self.packets_per_second.is_some() || self.bits_per_second.is_some()
    }

    /// What the tokens of packets are, or of bytes.
    fn marker(&self, kind: Kind, workers: usize) -> Option<Marker> {
        let (committed, peak, lease) = match kind {
            Kind::Packets => (self.packets_per_second, self.peak_packets_per_second, LEASE_PACKETS),
            Kind::Bytes => (self.bits_per_second, self.peak_bits_per_second, LEASE_BYTES),
        };
        let committed = kind.rate(committed?, self.burst_ms);
        let beyond = match (peak, self.excess_ms) {
            (Some(peak), _) => Beyond::Peak(kind.rate(peak, self.burst_ms)),
            (None, Some(ms)) => Beyond::Excess(kind.burst(committed.per_second, ms)),
            (None, None) => Beyond::Red,
        };
        Some(Marker::new(committed, beyond, workers, lease))
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Packets,
    Bytes,
}

impl Kind {
    /// Of packets or bits a second, tokens.
    fn rate(self, per_second: u64, burst_ms: u32) -> Rate {
        let per_second = match self {
            Kind::Packets => per_second,
            Kind::Bytes => per_second / 8,
        };
        Rate { per_second, burst: self.burst(per_second, burst_ms) }
    }

    fn burst(self, per_second: u64, ms: u32) -> u64 {
        let least = match self {
            Kind::Packets => BURST_PACKETS_MIN,
            Kind::Bytes => BURST_BYTES_MIN,
        };
        (per_second.saturating_mul(ms.into()) / 1000).max(least)
    }
}

/// The meter of a service or a tenant, shared by all workers.
#[derive(Debug)]
pub struct Meter {
    /// What it limits.
    pub limit: Limit,
    /// Tells it from every other one, so that no worker spends here what it took elsewhere.
    serial: u32,
    packets: Option<Marker>,
    bytes: Option<Marker>,
    opening: Option<Bucket>,
    live: Arc<AtomicU64>,
    hardware: Arc<InHardware>,
}

/// What one worker holds of a meter's tokens.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Account {
    serial: u32,
    packets: Purse,
    bytes: Purse,
}

/// What a packet was charged for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Charge {
    packets: Colour,
    bytes: Colour,
}

impl Charge {
    /// The packet's colour: the worse of the two.
    #[must_use]
    pub fn colour(self) -> Colour {
        self.packets.max(self.bytes)
    }
}

/// Serial number of the next meter. 0 is no meter's.
static SERIAL: AtomicU32 = AtomicU32::new(1);

impl Meter {
    /// A meter with full buckets, for so many workers.
    #[must_use]
    pub fn new(limit: Limit, workers: usize) -> Meter {
        let opening = limit.new_connections_per_second.map(|per_second| {
            let rate = Kind::Packets.rate(per_second, limit.burst_ms);
            Bucket::new(rate.per_second, rate.burst)
        });
        Meter {
            limit,
            serial: SERIAL.fetch_add(1, Relaxed),
            packets: limit.marker(Kind::Packets, workers),
            bytes: limit.marker(Kind::Bytes, workers),
            opening,
            live: Arc::new(AtomicU64::new(0)),
            hardware: Arc::default(),
        }
    }

    /// The same with other limits: its buckets are full, its connections are those of the one before.
    #[must_use]
    pub fn changed(&self, limit: Limit, workers: usize) -> Meter {
        let (live, hardware) = (Arc::clone(&self.live), Arc::clone(&self.hardware));
        Meter { live, hardware, ..Meter::new(limit, workers) }
    }

    /// Charges for a packet; nothing, if it is red.
    #[inline]
    pub fn charge(&self, now: Nanos, account: &mut Account, bytes: u32) -> Charge {
        if account.serial != self.serial {
            *account = Account { serial: self.serial, ..Account::default() };
        }
        let mut charge = Charge::default();
        if let Some(packets) = &self.packets {
            charge.packets = packets.colour(now, &mut account.packets, 1);
            if charge.packets == Colour::Red {
                self.hardware.note_short();
                return charge;
            }
        }
        if let Some(marker) = &self.bytes {
            charge.bytes = marker.colour(now, &mut account.bytes, bytes);
            if charge.bytes == Colour::Red {
                self.hardware.note_short();
                self.refund(account, bytes, charge);
            }
        }
        charge
    }

    /// What a packet's colour would be if workers held no tokens; it is charged for nothing.
    #[must_use]
    pub fn foretell(&self, now: Nanos, bytes: u32) -> Colour {
        let packets = self.packets.as_ref().map(|marker| marker.foretell(now, 1));
        let bytes = self.bytes.as_ref().map(|marker| marker.foretell(now, bytes));
        packets.unwrap_or_default().max(bytes.unwrap_or_default())
    }

    /// Takes back what a packet was charged, which another meter stops.
    pub fn refund(&self, account: &mut Account, bytes: u32, charge: Charge) {
        if let Some(packets) = &self.packets {
            packets.refund(&mut account.packets, 1, charge.packets);
        }
        if let Some(marker) = &self.bytes {
            marker.refund(&mut account.bytes, bytes, charge.bytes);
        }
    }

    /// Its number: no other meter has it, also of those that are gone.
    #[must_use]
    pub fn serial(&self) -> u32 {
        self.serial
    }

    /// The bucket that hardware may have a part of, and what it holds: there is one, and packets are green or
    /// red.
    #[must_use]
    pub fn for_hardware(&self) -> Option<(Tokens, &Bucket)> {
        match (&self.packets, &self.bytes) {
            (Some(packets), None) => Some((Tokens::Packets, packets.only_bucket()?)),
            (None, Some(bytes)) => Some((Tokens::Bytes, bytes.only_bucket()?)),
            _ => None,
        }
    }

    /// What is known of its part in hardware.
    #[must_use]
    pub fn in_hardware(&self) -> &InHardware {
        &self.hardware
    }

    /// Whether one more connection may be opened now; if so, it is charged for.
    pub fn admits(&self, now: Nanos) -> bool {
        self.has_room() && self.admits_instead(now)
    }

    /// Whether a connection may be opened now in place of one that is counted; if so, it is charged for.
    pub fn admits_instead(&self, now: Nanos) -> bool {
        self.opening.as_ref().is_none_or(|bucket| bucket.draw(now, 1, 1).tokens > 0)
    }

    /// Takes back what was charged for a connection that was not opened after all.
    pub fn not_opened(&self) {
        if let Some(bucket) = &self.opening {
            bucket.give_back(1);
        }
    }

    fn has_room(&self) -> bool {
        self.limit.connections.is_none_or(|most| self.live() < most)
    }

    /// Connections now, as far as they are counted: only if they are limited.
    #[must_use]
    pub fn live(&self) -> u64 {
        self.live.load(Relaxed)
    }

    /// Sets how many connections there are. What workers count from then on comes on top.
    pub fn set_live(&self, live: u64) {
        self.live.store(live, Relaxed);
    }

    /// A connection was opened.
    #[inline]
    pub fn opened(&self) {
        if self.limit.connections.is_some() {
            self.live.fetch_add(1, Relaxed);
        }
    }

    /// A connection has ended.
    #[inline]
    pub fn closed(&self) {
        if self.limit.connections.is_some() {
            // One that was open before anybody counted must not take the count below nothing.
            let _ = self.live.fetch_update(Relaxed, Relaxed, |live| live.checked_sub(1));
        }
    }
}
