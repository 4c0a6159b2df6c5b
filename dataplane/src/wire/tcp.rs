//! TCP (RFC 9293).

use crate::wire::parse::TcpFlags;

/// Bytes of a header without options.
pub const LEN: usize = 20;
/// Protocol number.
pub const PROTOCOL: u8 = 6;
/// Offset of the checksum.
pub const CHECKSUM: usize = 16;

/// The fixed part of a header.
#[derive(Clone, Copy, Debug)]
pub struct Header<'a>(&'a [u8; LEN]);

impl<'a> Header<'a> {
    /// The header at the start of `segment`; `None` if the segment ends inside its fixed part.
    #[inline]
    #[must_use]
    pub fn new(segment: &'a [u8]) -> Option<Header<'a>> {
        segment.first_chunk().map(Header)
    }

    /// Source port.
    #[inline]
    #[must_use]
    pub const fn src_port(self) -> u16 {
        u16::from_be_bytes([self.0[0], self.0[1]])
    }

    /// Destination port.
    #[inline]
    #[must_use]
    pub const fn dst_port(self) -> u16 {
        u16::from_be_bytes([self.0[2], self.0[3]])
    }

    /// Sequence number.
    #[inline]
    #[must_use]
    pub const fn seq(self) -> u32 {
        u32::from_be_bytes([self.0[4], self.0[5], self.0[6], self.0[7]])
    }

    /// Acknowledgement number, meaningful with ACK.
    #[inline]
    #[must_use]
    pub const fn ack(self) -> u32 {
        u32::from_be_bytes([self.0[8], self.0[9], self.0[10], self.0[11]])
    }

    /// Bytes of header, options included, as the header says: up to 60, and under 20 if it lies.
    #[inline]
    #[must_use]
    pub const fn header_len(self) -> usize {
        (self.0[12] >> 4) as usize * 4
    }

    /// Control bits.
    #[inline]
    #[must_use]
    pub const fn flags(self) -> TcpFlags {
        TcpFlags(self.0[13])
    }

    /// Receive window, unscaled.
    #[inline]
    #[must_use]
    pub const fn window(self) -> u16 {
        u16::from_be_bytes([self.0[14], self.0[15]])
    }
}

/// A header without options, window 0: what a reset looks like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Repr {
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Control bits.
    pub flags: TcpFlags,
}

impl Repr {
    /// Writes the header with checksum 0; the caller knows the pseudo-header.
    pub fn emit(&self, header: &mut [u8; LEN]) {
        *header = [0; LEN];
        header[..2].copy_from_slice(&self.src_port.to_be_bytes());
        header[2..4].copy_from_slice(&self.dst_port.to_be_bytes());
        header[4..8].copy_from_slice(&self.seq.to_be_bytes());
        header[8..12].copy_from_slice(&self.ack.to_be_bytes());
        header[12] = (LEN as u8 / 4) << 4;
        header[13] = self.flags.0;
    }
}
