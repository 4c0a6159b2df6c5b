//! Generic UDP encapsulation (draft-ietf-intarea-gue), variant 0 without extensions: an IP packet, named by
//! its protocol number, inside UDP. Linux takes it by `ip fou add port PORT gue`.

/// Bytes of a header without extensions.
pub const LEN: usize = 4;
/// The port that IANA assigned.
pub const PORT: u16 = 6080;

/// Writes the header of a data message: `protocol` is what follows.
#[inline]
pub const fn emit(header: &mut [u8; LEN], protocol: u8) {
    *header = [0, protocol, 0, 0];
}
