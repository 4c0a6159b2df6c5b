//! What the dataplane needs from a packet buffer.
//!
//! Two implementations: `dpdk::Mbuf` on real ports, [`TestPacket`] under simulation, tests and benches.

use crate::ids::PortId;

/// Packets per burst, everywhere.
pub const BURST: usize = 32;

/// A burst of owned packets.
pub type Burst<B> = arrayvec::ArrayVec<B, BURST>;

/// An owned packet in one contiguous piece. Dropping it frees it.
///
/// Bytes are the whole Ethernet frame, without FCS.
pub trait PacketBuf: Sized {
    /// The port it was received on.
    fn port(&self) -> PortId;

    /// Says which port it counts as received on, where that is not the one whose device received it.
    fn set_port(&mut self, port: PortId);

    /// Whether the whole frame is in [`PacketBuf::data`]; a scattered frame is dropped by the walk.
    fn is_contiguous(&self) -> bool;

    /// The frame.
    fn data(&self) -> &[u8];

    /// The frame, to be changed in place.
    fn data_mut(&mut self) -> &mut [u8];

    /// Grows the frame by `n` bytes at its front; `false` (and no change) without headroom.
    #[must_use]
    fn grow_front(&mut self, n: usize) -> bool;

    /// Removes `n` bytes at the front; `false` (and no change) if the frame is shorter.
    #[must_use]
    fn trim_front(&mut self, n: usize) -> bool;

    /// Sets the frame's length, growing or cutting at its end; `false` (and no change) without tailroom.
    /// New bytes have unspecified contents and must be written.
    #[must_use]
    fn set_len(&mut self, len: usize) -> bool;

    /// Asks for the frame's first cache line. A hint only.
    fn prefetch(&self) {}
}

/// A packet on the heap: for the walk of [`crate::worker::Shadow`], simulation, tests and benches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestPacket {
    /// The port it counts as received on.
    pub port: PortId,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl TestPacket {
    const HEADROOM: usize = 128;
    const ROOM: usize = 2048;

    /// A packet with this frame, headroom as an mbuf has it, and tailroom up to 2 KiB.
    #[must_use]
    pub fn new(port: PortId, frame: &[u8]) -> TestPacket {
        let mut buffer = vec![0; Self::HEADROOM + frame.len().max(Self::ROOM)];
        let (start, end) = (Self::HEADROOM, Self::HEADROOM + frame.len());
        buffer[start..end].copy_from_slice(frame);
        TestPacket { port, buffer, start, end }
    }
}

impl PacketBuf for TestPacket {
    fn port(&self) -> PortId {
        self.port
    }

    fn set_port(&mut self, port: PortId) {
        self.port = port;
    }

    fn is_contiguous(&self) -> bool {
        true
    }

    fn data(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    fn data_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[self.start..self.end]
    }

    fn grow_front(&mut self, n: usize) -> bool {
        let fits = n <= self.start;
        if fits {
            self.start -= n;
        }
        fits
    }

    fn trim_front(&mut self, n: usize) -> bool {
        let fits = n <= self.end - self.start;
        if fits {
            self.start += n;
        }
        fits
    }

    fn set_len(&mut self, len: usize) -> bool {
        let fits = self.start + len <= self.buffer.len();
        if fits {
            self.end = self.start + len;
        }
        fits
    }
}
