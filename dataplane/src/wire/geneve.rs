//! GENEVE (RFC 8926), of which no options are known: Ethernet frames of a numbered network inside UDP.

use super::field;
use crate::drops::DropReason;

/// Bytes of a header without options.
pub const LEN: usize = 8;
/// The port that IANA assigned.
pub const PORT: u16 = 6081;

/// What follows the header: an Ethernet frame (Transparent Ethernet Bridging).
const ETHERNET: u16 = 0x6558;

const VERSION: u8 = 0xc0;
const OPTION_WORDS: u8 = 0x3f;
/// A packet for whoever is at the end of the tunnel, with no frame to be passed on.
const CONTROL: u8 = 0x80;
/// Who does not understand the options may not have the frame.
const CRITICAL: u8 = 0x40;

/// Writes the header of a frame of network `vni`: version 0, no options, not a control packet.
#[inline]
pub const fn emit(header: &mut [u8; LEN], vni: u32) {
    let ([_, a, b, c], [p, q]) = (vni.to_be_bytes(), ETHERNET.to_be_bytes());
    *header = [0, 0, p, q, a, b, c, 0];
}

/// The number of the network that a frame belongs to, and the bytes in front of the frame. Options that need
/// not be understood are passed over.
///
/// # Errors
/// [`DropReason::TunnelOption`] for options that must be understood; [`DropReason::TunnelMalformed`] for a
/// header that is cut short or of another version, or in front of something else than a frame.
#[inline]
pub fn parse(payload: &[u8]) -> Result<(u32, usize), DropReason> {
    let Some(&[first, second, p, q, a, b, c, _]) = field(payload, 0) else {
        return Err(DropReason::TunnelMalformed);
    };
    let len = LEN + 4 * usize::from(first & OPTION_WORDS);
    let of_frame = first & VERSION == 0 && second & CONTROL == 0 && u16::from_be_bytes([p, q]) == ETHERNET;
    if !of_frame || len > payload.len() {
        return Err(DropReason::TunnelMalformed);
    }
    if second & CRITICAL != 0 {
        return Err(DropReason::TunnelOption);
    }
    Ok((u32::from_be_bytes([0, a, b, c]), len))
}
