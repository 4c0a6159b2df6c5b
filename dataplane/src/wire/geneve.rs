//! GENEVE (RFC 8926), without options: Ethernet frames of a numbered network inside UDP.

/// Bytes of a header without options.
pub const LEN: usize = 8;
/// The port that IANA assigned.
pub const PORT: u16 = 6081;

/// What follows the header: an Ethernet frame (Transparent Ethernet Bridging).
const ETHERNET: u16 = 0x6558;

/// Writes the header of a frame of network `vni`: version 0, no options, not a control packet.
#[inline]
pub const fn emit(header: &mut [u8; LEN], vni: u32) {
    let ([_, a, b, c], [p, q]) = (vni.to_be_bytes(), ETHERNET.to_be_bytes());
    *header = [0, 0, p, q, a, b, c, 0];
}
