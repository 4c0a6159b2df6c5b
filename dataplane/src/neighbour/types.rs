//! The words spoken with the neighbour table: its limits, names, updates, outcomes and states.

use crate::addr::{Ip, MacAddr};
use crate::drops::DropReason;
use crate::ids::PortId;
use crate::limits::{NEIGHBOURS_MAX, TIMEOUT_MAX_MS};

/// The hold of a failed neighbour doubles this often at most.
pub(super) const BACK_OFF_MAX: u8 = 4;

/// Bounds and timers of a [`super::Neighbours`] table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NeighbourLimits {
    /// Entries, static ones included; at most [`NEIGHBOURS_MAX`].
    pub neighbours_max: usize,
    /// Entries that traffic alone brought about and that have no MAC (unanswered or failed); at most half
    /// of all.
    pub unresolved_max: usize,
    /// Packets that wait for one neighbour.
    pub queue_per_neighbour: u16,
    /// Packets that wait for any neighbour.
    pub queue_total: usize,
    /// How long an answer is trusted (`REACHABLE_TIME`).
    pub reachable_ms: u32,
    /// Solicitations sent before giving up (`MAX_MULTICAST_SOLICIT`, `MAX_UNICAST_SOLICIT`).
    pub retries: u8,
    /// Between solicitations (`RETRANS_TIMER`).
    pub retry_ms: u32,
    /// How long a neighbour that did not answer is not asked again; doubles with each failure, up to 16
    /// times this.
    pub failed_hold_ms: u32,
    /// How long an entry is kept that nobody uses.
    pub stale_max_ms: u32,
}

impl Default for NeighbourLimits {
    /// RFC 4861 §10 where it names a value; sizes for a rack of backends and a few thousand clients.
    fn default() -> NeighbourLimits {
        NeighbourLimits {
            neighbours_max: 4096,
            unresolved_max: 512,
            queue_per_neighbour: 16,
            queue_total: 512,
            reachable_ms: 30_000,
            retries: 3,
            retry_ms: 1_000,
            failed_hold_ms: 1_000,
            stale_max_ms: 600_000,
        }
    }
}

impl NeighbourLimits {
    /// These limits with every value inside the range the table can work with.
    pub(super) fn clamped(self) -> NeighbourLimits {
        let neighbours_max = self.neighbours_max.clamp(1, NEIGHBOURS_MAX);
        let timer = |ms: u32| ms.clamp(1, TIMEOUT_MAX_MS >> (BACK_OFF_MAX + 1));
        NeighbourLimits {
            neighbours_max,
            unresolved_max: self.unresolved_max.clamp(1, (neighbours_max / 2).max(1)),
            queue_per_neighbour: self.queue_per_neighbour.max(1),
            queue_total: self.queue_total.clamp(1, u32::MAX as usize - 1),
            reachable_ms: timer(self.reachable_ms),
            retries: self.retries.max(1),
            retry_ms: timer(self.retry_ms),
            failed_hold_ms: timer(self.failed_hold_ms),
            stale_max_ms: timer(self.stale_max_ms),
        }
    }

    /// How long after an answer an entry in use is probed: early enough for all probes to fail before
    /// the answer is too old.
    pub(super) fn refresh_ms(&self) -> u32 {
        let probing_ms = self.retry_ms.saturating_mul(u32::from(self.retries));
        self.reachable_ms.saturating_sub(probing_ms).max(self.reachable_ms / 2).max(1)
    }

    /// How long a neighbour that failed `failures` times in a row is not asked again.
    pub(super) fn hold_ms(&self, failures: u8) -> u32 {
        self.failed_hold_ms << failures.saturating_sub(1).min(BACK_OFF_MAX)
    }
}

/// A neighbour's name while it exists. A name whose neighbour was forgotten is recognised: the slot's
/// generation has moved on (65 536 generations per slot, and slots are reused oldest first).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(transparent)]
pub struct NeighbourId(u32);

impl NeighbourId {
    pub(super) fn new(slot: u32, generation: u16) -> NeighbourId {
        NeighbourId(slot | u32::from(generation) << 16)
    }

    pub(super) fn slot(self) -> u32 {
        self.0 & 0xffff
    }

    pub(super) fn generation(self) -> u16 {
        (self.0 >> 16) as u16
    }
}

const _: () = assert!(NEIGHBOURS_MAX <= 1 << 16, "slots are numbered with 16 bits");

/// What was heard about a neighbour; workers tell one another.
///
/// | message                                   | `solicited` | `overrides` | `create` |
/// |-------------------------------------------|-------------|-------------|----------|
/// | ARP reply to us                           | yes         | yes         | no       |
/// | ARP request for one of our addresses      | no          | yes         | yes      |
/// | gratuitous or any other ARP               | no          | yes         | no       |
/// | neighbour solicitation for us, with SLLAO | no          | yes         | yes      |
/// | neighbour advertisement                   | its S flag  | its O flag  | no       |
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NeighbourUpdate {
    /// Heard on this port,
    pub port: PortId,
    /// about this address:
    pub ip: Ip,
    /// it is at this MAC.
    pub mac: MacAddr,
    /// It answers a question of ours, which proves that the neighbour is reachable both ways.
    pub solicited: bool,
    /// It replaces a different MAC that is known already.
    pub overrides: bool,
}

/// What [`super::Neighbours::learn`] made of an update.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LearnOutcome {
    /// An entry was made.
    Created,
    /// An entry without MAC has one now.
    Resolved,
    /// The MAC was another one before.
    Moved,
    /// The MAC is as known, and was confirmed.
    Confirmed,
    /// Nothing changed.
    Unchanged,
    /// Nobody here asked for this address.
    Unknown,
    /// A MAC no station can have, a static entry, or no room.
    Refused,
}

impl LearnOutcome {
    /// Whether other workers should hear of the update. They must also when this worker did not care,
    /// since the question may have been theirs.
    #[must_use]
    pub fn worth_telling(self) -> bool {
        !matches!(self, LearnOutcome::Unchanged | LearnOutcome::Refused)
    }
}

/// What became of a packet given to [`super::Neighbours::hold`].
#[derive(Debug)]
#[must_use]
pub enum Hold<B> {
    /// It waits for the neighbour's answer.
    Held,
    /// The neighbour is known: send it there now.
    Send(B, MacAddr),
    /// Drop this packet. With [`DropReason::NeighbourQueueFull`] it may be an older one, displaced by
    /// the one given (RFC 4861 §7.2.2).
    Drop(B, DropReason),
}

/// What [`super::Neighbours::tick`] asks its caller to do.
#[derive(Debug)]
pub enum Action<B> {
    /// Ask who has `ip`.
    Solicit {
        /// On this port,
        port: PortId,
        /// for this address;
        ip: Ip,
        /// a probe to this MAC, or, if `None`, a question to all (ARP broadcast, or the
        /// solicited-node multicast group).
        unicast_to: Option<MacAddr>,
    },
    /// The neighbour this packet waited for did not answer: [`DropReason::NeighbourUnreachable`].
    Expired(B),
}

/// Where an entry stands (RFC 4861 §7.3.2, and two states of our own).
///
/// ```text
///              answer                refresh due, used            no answer
/// Incomplete ---------> Reachable ----------------------> Probe -----------> Incomplete
///     |  ^                  |  ^                            |  ^
///     |  | packet, after    |  |          answer            |  | 5 s
///     |  | its hold         |  +----------------------------+  |
///     |  |                  | refresh due, unused              |
///     v  |                  v             used                 |
///    Failed               Stale -----------------------------Delay
///     | forgotten           | unused for `stale_max_ms`
///     v                     v
///    Free                  Free                     Static: set and removed by the configuration only
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum NeighbourState {
    /// The slot is empty.
    Free,
    /// Asked for, no answer yet; packets wait.
    Incomplete,
    /// Answered recently.
    Reachable,
    /// Known, not confirmed recently, not in use.
    Stale,
    /// Stale and in use: probed shortly unless it is confirmed first.
    Delay,
    /// In use and being probed.
    Probe,
    /// Did not answer; not asked again for a while.
    Failed,
    /// From the configuration; never changes.
    Static,
}

impl NeighbourState {
    /// The name in `show neighbours` and in metric labels.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            NeighbourState::Free => "free",
            NeighbourState::Incomplete => "incomplete",
            NeighbourState::Reachable => "reachable",
            NeighbourState::Stale => "stale",
            NeighbourState::Delay => "delay",
            NeighbourState::Probe => "probe",
            NeighbourState::Failed => "failed",
            NeighbourState::Static => "static",
        }
    }

    pub(super) fn has_mac(self) -> bool {
        use NeighbourState::{Delay, Probe, Reachable, Stale, Static};
        matches!(self, Reachable | Stale | Delay | Probe | Static)
    }
}

/// One entry, for `show neighbours`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NeighbourView {
    /// The port it is on.
    pub port: PortId,
    /// Its address.
    pub ip: Ip,
    /// Its MAC, if known.
    pub mac: Option<MacAddr>,
    /// Where it stands.
    pub state: NeighbourState,
    /// Packets that wait for it.
    pub held: u16,
}
