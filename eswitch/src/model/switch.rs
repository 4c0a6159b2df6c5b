//! The device.

/// Why the device, not the application, did not forward a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum DropReason {
    /// A rule said so.
    Rule,
    /// From an uplink to the same uplink.
    WireToSameWire,
    /// A meter without a policy for this colour but dropping.
    Meter,
    /// Too many jumps.
    Loop,
    /// No room before the frame for an encapsulation.
    Headroom,
    /// An action needs a header that this packet lacks.
    Malformed,
    /// The representor does not take it: not its address and not promiscuous, or no default rule (isolated).
    RxFilter,
    /// The representor is stopped, or has no queues.
    RxStopped,
    /// The frame is scattered over buffers.
    Scattered,
    /// The vport's wire is gone or down.
    WireDown,
}
