//! What the device has done, in numbers. Every packet that enters leaves under exactly one of them.

use super::super::types::Vport;

/// Why the device dropped a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum DropReason {
    /// A rule said so.
    Rule,
    /// From an uplink to the same uplink.
    WireToSameWire,
    /// A meter's policy drops this colour.
    Meter,
    /// More jumps than the device follows.
    Loop,
    /// No room before or behind the frame for what an action adds.
    Headroom,
    /// An action needs a header that this packet lacks.
    Malformed,
    /// The representor does not take it: not its address and not promiscuous, isolated and no rule, or no
    /// rule in a group that it jumped to.
    RxFilter,
    /// The representor is stopped, or has no such queue.
    RxStopped,
    /// The frame is scattered over buffers.
    Scattered,
    /// The wire is gone, down, or did not take it.
    Wire,
    /// The receive queue is full.
    RxFull,
}

impl DropReason {
    /// All of them, by their number.
    pub const ALL: [DropReason; 11] = [
        DropReason::Rule,
        DropReason::WireToSameWire,
        DropReason::Meter,
        DropReason::Loop,
        DropReason::Headroom,
        DropReason::Malformed,
        DropReason::RxFilter,
        DropReason::RxStopped,
        DropReason::Scattered,
        DropReason::Wire,
        DropReason::RxFull,
    ];

    /// A short name, for statistics and traces.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            DropReason::Rule => "rule",
            DropReason::WireToSameWire => "wire_to_same_wire",
            DropReason::Meter => "meter",
            DropReason::Loop => "loop",
            DropReason::Headroom => "headroom",
            DropReason::Malformed => "malformed",
            DropReason::RxFilter => "rx_filter",
            DropReason::RxStopped => "rx_stopped",
            DropReason::Scattered => "scattered",
            DropReason::Wire => "wire",
            DropReason::RxFull => "rx_full",
        }
    }
}

/// Of one vport. Bytes are of whole frames without FCS, as they entered or left.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct VportStatistics {
    /// Packets that came from its wire.
    pub in_packets: u64,
    /// Their bytes.
    pub in_bytes: u64,
    /// Packets that the application sent on its representor.
    pub manager_packets: u64,
    /// Their bytes.
    pub manager_bytes: u64,
    /// Packets that a rule sent to its wire.
    pub out_packets: u64,
    /// Their bytes.
    pub out_bytes: u64,
    /// Packets of the manager that no rule caught and that went to its wire.
    pub manager_default_packets: u64,
    /// Packets that no FDB rule decided and that went to its representor.
    pub miss_packets: u64,
    /// Packets delivered to a receive queue of its representor.
    pub received_packets: u64,
    /// Packets that left a hairpin queue to this port.
    pub hairpin_packets: u64,
}

/// Of the device.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Statistics {
    /// By vport.
    pub vports: Vec<VportStatistics>,
    /// Packets dropped, by [`DropReason`].
    pub drops: [u64; DropReason::ALL.len()],
    /// Mirror copies made.
    pub mirrored: u64,
    /// Mirror copies that could not be made for want of a buffer.
    pub mirror_failed: u64,
    /// Rules that exist.
    pub rules: u64,
    /// Rules ever installed.
    pub installed: u64,
    /// Rules ever removed.
    pub removed: u64,
    /// Installations refused or failed by the device.
    pub refused: u64,
    /// Jumps taken.
    pub jumps: u64,
}

impl Statistics {
    /// Nothing done yet by a device with so many vports.
    #[must_use]
    pub fn new(vports: usize) -> Statistics {
        Statistics { vports: vec![VportStatistics::default(); vports], ..Statistics::default() }
    }

    /// Counts a packet onto a wire.
    #[inline]
    pub(super) fn sent(&mut self, to: Vport, bytes: usize) {
        if let Some(vport) = self.vports.get_mut(usize::from(to.0)) {
            vport.out_packets += 1;
            vport.out_bytes += bytes as u64;
        }
    }

    /// Counts a dropped packet.
    #[inline]
    pub fn dropped(&mut self, reason: DropReason) {
        self.drops[reason as usize] += 1;
    }

    /// Packets dropped for this reason.
    #[must_use]
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize]
    }
}
