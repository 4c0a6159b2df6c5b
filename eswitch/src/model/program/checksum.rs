//! The Internet checksum (RFC 1071), brought up to date from what changed (RFC 1624), not from the rest.

/// What changed under a checksum: the ones' complement sum of `new - old`, not yet folded to 16 bits. It has
/// room for thousands of changes.
#[derive(Clone, Copy, Default)]
pub(super) struct Delta(u64);

impl Delta {
    /// Two aligned 16-bit words that were `old` and are `new`. All words of a checksum weigh the same, so
    /// that they may be summed two at a time.
    #[inline]
    pub(super) fn change32(&mut self, old: u32, new: u32) {
        self.0 += u64::from(!old) + u64::from(new);
    }

    /// One aligned 16-bit word that was `old` and is `new`.
    #[inline]
    pub(super) fn change16(&mut self, old: u16, new: u16) {
        self.0 += u64::from(!old) + u64::from(new);
    }

    /// Bytes that were `old` and are `new`; `odd`: the first is the low half of its word.
    pub(super) fn change(&mut self, old: &[u8], new: &[u8], odd: bool) {
        for (index, (&old, &new)) in old.iter().zip(new).enumerate() {
            let shift = if (index % 2 == 0) == odd { 0 } else { 8 };
            self.change16(u16::from(old) << shift, u16::from(new) << shift);
        }
    }

    /// The checksum that was `checksum`: RFC 1624, equation 3.
    #[inline]
    pub(super) fn onto(self, checksum: u16) -> u16 {
        !fold(self.0 + u64::from(!checksum))
    }

    /// [`Delta::onto`] for UDP: 0 says that there is no checksum, and stays; one that comes out as 0 is sent
    /// as 0xffff, which means the same sum.
    #[inline]
    pub(super) fn onto_udp(self, checksum: u16) -> u16 {
        match (checksum, self.onto(checksum)) {
            (0, _) => 0,
            (_, 0) => 0xffff,
            (_, new) => new,
        }
    }
}

/// The sum of these bytes as big-endian words, not yet folded; an odd last byte counts as a high half.
pub(super) fn sum(bytes: &[u8]) -> u64 {
    bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| u64::from(low))).sum()
}

/// A sum as 16 bits, carries added back in.
#[inline]
pub(super) fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    sum as u16
}
