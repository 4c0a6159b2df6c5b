//! IPv4 (RFC 791).

use crate::addr::Ip;
use crate::wire::checksum::Sum;

/// Bytes of a header without options.
pub const LEN: usize = 20;

/// Protocol number of an IPv4 packet inside another packet (RFC 2003).
pub const PROTOCOL: u8 = 4;

/// Offset of DSCP and ECN.
pub const TRAFFIC_CLASS: usize = 1;
/// Offset of the packet's length.
pub const TOTAL_LEN: usize = 2;
/// Offset of the TTL.
pub const TTL: usize = 8;
/// Offset of the header checksum.
pub const CHECKSUM: usize = 10;
/// Offset of the source address.
pub const SRC: usize = 12;
/// Offset of the destination address.
pub const DST: usize = 16;

/// The fixed part of a header.
#[derive(Clone, Copy, Debug)]
pub struct Header<'a>(&'a [u8; LEN]);

impl<'a> Header<'a> {
    /// The header at the start of `packet`; `None` if the packet ends inside its fixed part.
    #[inline]
    #[must_use]
    pub fn new(packet: &'a [u8]) -> Option<Header<'a>> {
        packet.first_chunk().map(Header)
    }

    /// The version field: 4, unless this is no IPv4 header.
    #[inline]
    #[must_use]
    pub const fn version(self) -> u8 {
        self.0[0] >> 4
    }

    /// Bytes of header, options included, as the header says: up to 60, and under 20 if it lies.
    #[inline]
    #[must_use]
    pub const fn header_len(self) -> usize {
        (self.0[0] & 0x0f) as usize * 4
    }

    /// Bytes of packet, as the header says.
    #[inline]
    #[must_use]
    pub const fn total_len(self) -> usize {
        u16::from_be_bytes([self.0[2], self.0[3]]) as usize
    }

    /// Identification.
    #[inline]
    #[must_use]
    pub const fn id(self) -> u16 {
        u16::from_be_bytes([self.0[4], self.0[5]])
    }

    #[inline]
    const fn flags_and_offset(self) -> u16 {
        u16::from_be_bytes([self.0[6], self.0[7]])
    }

    /// The DF flag.
    #[inline]
    #[must_use]
    pub const fn dont_fragment(self) -> bool {
        self.flags_and_offset() & 0x4000 != 0
    }

    /// The MF flag.
    #[inline]
    #[must_use]
    pub const fn more_fragments(self) -> bool {
        self.flags_and_offset() & 0x2000 != 0
    }

    /// Fragment offset in bytes.
    #[inline]
    #[must_use]
    pub const fn fragment_offset(self) -> usize {
        (self.flags_and_offset() & 0x1fff) as usize * 8
    }

    /// Whether this is a fragment, the first one included.
    #[inline]
    #[must_use]
    pub const fn is_fragment(self) -> bool {
        self.flags_and_offset() & 0x3fff != 0
    }

    /// Time to live.
    #[inline]
    #[must_use]
    pub const fn ttl(self) -> u8 {
        self.0[TTL]
    }

    /// Protocol number.
    #[inline]
    #[must_use]
    pub const fn protocol(self) -> u8 {
        self.0[9]
    }

    /// Source address in host order.
    #[inline]
    #[must_use]
    pub const fn src(self) -> u32 {
        u32::from_be_bytes([self.0[12], self.0[13], self.0[14], self.0[15]])
    }

    /// Destination address in host order.
    #[inline]
    #[must_use]
    pub const fn dst(self) -> u32 {
        u32::from_be_bytes([self.0[16], self.0[17], self.0[18], self.0[19]])
    }

    /// Whether the checksum of a header without options is right.
    #[inline]
    #[must_use]
    pub fn checksum_is_valid(self) -> bool {
        Sum::default().bytes(self.0).is_valid()
    }
}

/// Whether a packet may come from this address: not "this network", loopback, a multicast group or the
/// limited broadcast (RFC 1122 §3.2.1.3). 240/4 is let through: it is in private use.
#[inline]
#[must_use]
pub const fn is_valid_source(src: u32) -> bool {
    // 1 to 223 at one comparison: nearly every source.
    let network = src >> 24;
    (network.wrapping_sub(1) < 223 && network != 127) || (network >= 240 && src != u32::MAX)
}

/// Whether a packet to this address goes to more than one station.
#[inline]
#[must_use]
pub const fn is_group(dst: u32) -> bool {
    dst >> 28 == 0xe || dst == u32::MAX
}

/// A header without options of a packet that Millrace originates: atomic in the sense of RFC 6864 (DF
/// set, identification 0).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Repr {
    /// Source address.
    pub src: Ip,
    /// Destination address.
    pub dst: Ip,
    /// Protocol number.
    pub protocol: u8,
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// Time to live.
    pub ttl: u8,
    /// Bytes behind the header.
    pub payload_len: u16,
}

impl Repr {
    /// Writes the header, checksum included.
    pub fn emit(&self, header: &mut [u8; LEN]) {
        let total = (LEN as u16).saturating_add(self.payload_len).to_be_bytes();
        *header = [0; LEN];
        header[0] = 0x45;
        header[1] = self.traffic_class;
        header[2..4].copy_from_slice(&total);
        header[6] = 0x40;
        header[TTL] = self.ttl;
        header[9] = self.protocol;
        header[SRC..DST].copy_from_slice(&self.src.low32().to_be_bytes());
        header[DST..].copy_from_slice(&self.dst.low32().to_be_bytes());
        let checksum = Sum::default().bytes(header).finish();
        header[CHECKSUM..SRC].copy_from_slice(&checksum.to_be_bytes());
    }
}
