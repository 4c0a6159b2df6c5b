//! VXLAN (RFC 7348): Ethernet frames of a numbered segment inside UDP.

use super::field;
use crate::drops::DropReason;

/// Bytes of a header.
pub const LEN: usize = 8;
/// The port that IANA assigned.
pub const PORT: u16 = 4789;
/// The largest number of a segment (VNI): 24 bits.
pub const VNI_MAX: u32 = (1 << 24) - 1;

/// The header says to which segment the frame belongs.
const FLAG_VNI: u8 = 0x08;

/// Writes the header of a frame of segment `vni`.
#[inline]
pub const fn emit(header: &mut [u8; LEN], vni: u32) {
    let [_, a, b, c] = vni.to_be_bytes();
    *header = [FLAG_VNI, 0, 0, 0, a, b, c, 0];
}

/// The number of the segment that a frame belongs to. Bits that are reserved are of no account.
///
/// # Errors
/// [`DropReason::TunnelMalformed`] for a header that is cut short, or names no segment.
#[inline]
pub fn parse(payload: &[u8]) -> Result<u32, DropReason> {
    match field(payload, 0) {
        Some(&[flags, _, _, _, a, b, c, _]) if flags & FLAG_VNI != 0 => Ok(u32::from_be_bytes([0, a, b, c])),
        _ => Err(DropReason::TunnelMalformed),
    }
}
