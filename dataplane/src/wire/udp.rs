//! UDP (RFC 768).

/// Bytes of a header.
pub const LEN: usize = 8;
/// Protocol number.
pub const PROTOCOL: u8 = 17;
/// Offset of the datagram's length.
pub const DATAGRAM_LEN: usize = 4;
/// Offset of the checksum.
pub const CHECKSUM: usize = 6;

/// A header.
#[derive(Clone, Copy, Debug)]
pub struct Header<'a>(&'a [u8; LEN]);

impl<'a> Header<'a> {
    /// The header at the start of `datagram`; `None` if the datagram ends inside it.
    #[inline]
    #[must_use]
    pub fn new(datagram: &'a [u8]) -> Option<Header<'a>> {
        datagram.first_chunk().map(Header)
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

    /// Bytes of datagram, header included, as the header says.
    #[inline]
    #[must_use]
    pub const fn datagram_len(self) -> usize {
        u16::from_be_bytes([self.0[4], self.0[5]]) as usize
    }

    /// The checksum; 0 when the sender computed none.
    #[inline]
    #[must_use]
    pub const fn checksum(self) -> u16 {
        u16::from_be_bytes([self.0[6], self.0[7]])
    }
}

/// A checksum in the form UDP sends it: a computed 0 goes out as 0xffff, since 0 says "none".
#[inline]
#[must_use]
pub const fn nonzero(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}
