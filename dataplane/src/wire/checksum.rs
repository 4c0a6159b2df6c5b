//! The Internet checksum (RFC 1071), in full and incrementally (RFC 1624).
//!
//! Sums are kept in 64 bits and folded once at the end: one's complement addition does not care when
//! the carries are brought around.

use crate::addr::Ip;

/// A one's complement sum of big-endian 16-bit words under way.
#[derive(Clone, Copy, Default, Debug)]
pub struct Sum(u64);

impl Sum {
    /// Adds `bytes`, the last of an odd number padded with zero. Must begin at an even offset of what
    /// is summed.
    #[inline]
    #[must_use]
    pub fn bytes(self, bytes: &[u8]) -> Sum {
        let chunks = bytes.chunks_exact(4);
        let rest = match *chunks.remainder() {
            [a, b, c] => u64::from(u16::from_be_bytes([a, b])) + u64::from(u16::from_be_bytes([c, 0])),
            [a, b] => u64::from(u16::from_be_bytes([a, b])),
            [a] => u64::from(u16::from_be_bytes([a, 0])),
            _ => 0,
        };
        let whole = chunks.fold(0u64, |sum, chunk| match *chunk {
            [a, b, c, d] => sum + u64::from(u32::from_be_bytes([a, b, c, d])),
            _ => sum,
        });
        Sum(self.0 + whole + rest)
    }

    /// Adds one word.
    #[inline]
    #[must_use]
    pub const fn word(self, word: u16) -> Sum {
        Sum(self.0 + word as u64)
    }

    /// Adds the pseudo-header of RFC 9293 §3.1 (IPv4) or RFC 8200 §8.1 (IPv6): `len` bytes of
    /// `protocol` between these addresses.
    #[inline]
    #[must_use]
    pub fn pseudo_header(self, src: Ip, dst: Ip, protocol: u8, len: usize) -> Sum {
        let sum = self.address(src).address(dst).word(u16::from(protocol));
        Sum(sum.0 + (len as u64 & 0xffff_ffff))
    }

    fn address(self, ip: Ip) -> Sum {
        if ip.is_v4() { Sum(self.0 + u64::from(ip.low32())) } else { self.bytes(&ip.octets()) }
    }

    /// The checksum: the complement of the folded sum. Zero over data that includes a right checksum.
    #[inline]
    #[must_use]
    pub const fn finish(self) -> u16 {
        !fold(self.0)
    }

    /// Whether data that includes its checksum is intact.
    #[inline]
    #[must_use]
    pub const fn is_valid(self) -> bool {
        self.finish() == 0
    }
}

/// What a change of covered bytes does to a checksum: `~m + m'` of RFC 1624 equation 3, accumulated.
#[derive(Clone, Copy, Default, Debug)]
pub struct Delta(u64);

impl Delta {
    /// A word changes.
    #[inline]
    pub fn replace16(&mut self, old: u16, new: u16) {
        self.0 += u64::from(!old) + u64::from(new);
    }

    /// Two adjacent words change.
    #[inline]
    pub fn replace32(&mut self, old: u32, new: u32) {
        self.0 += u64::from(!old) + u64::from(new);
    }

    /// Eight adjacent words change.
    #[inline]
    pub fn replace128(&mut self, old: u128, new: u128) {
        for shift in [0, 32, 64, 96] {
            self.replace32((old >> shift) as u32, (new >> shift) as u32);
        }
    }

    /// Another change on top of this one.
    #[inline]
    pub fn add(&mut self, other: Delta) {
        self.0 += other.0;
    }

    /// The checksum after the change.
    #[inline]
    #[must_use]
    pub const fn apply(self, checksum: u16) -> u16 {
        !fold(self.0 + !checksum as u64)
    }
}

#[inline]
const fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition, word by word.
    fn slow(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn example_of_rfc_1071() {
        let data = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::default().bytes(&data).finish(), !0xddf2);
    }

    /// The example of RFC 1624 §4, where equation 2 fails: 0x5555 becomes 0x3285, HC is 0xdd2f.
    #[test]
    fn example_of_rfc_1624() {
        let mut delta = Delta::default();
        delta.replace16(0x5555, 0x3285);
        assert_eq!(delta.apply(0xdd2f), 0x0000);
    }

    proptest! {
        #[test]
        fn sum_is_the_definition(data in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(Sum::default().bytes(&data).finish(), slow(&data));
        }

        #[test]
        fn incremental_is_full(
            mut data in proptest::collection::vec(any::<u8>(), 20..80),
            at in 0usize..8,
            new in any::<u32>(),
        ) {
            prop_assume!(data.iter().any(|&byte| byte != 0));
            let before = slow(&data);
            let field = field(&data, at * 2);
            let mut delta = Delta::default();
            delta.replace32(field, new);
            data[at * 2..at * 2 + 4].copy_from_slice(&new.to_be_bytes());
            prop_assume!(data.iter().any(|&byte| byte != 0));
            prop_assert_eq!(delta.apply(before), slow(&data));
        }
    }

    fn field(data: &[u8], at: usize) -> u32 {
        u32::from_be_bytes([data[at], data[at + 1], data[at + 2], data[at + 3]])
    }
}
