//! VLAN tags: one 802.1Q tag, or an 802.1ad service tag with an 802.1Q tag inside.

use crate::drops::DropReason;
use crate::snapshot::VlanTags;
use crate::wire::{ether, field};

/// Bytes a tag adds to a frame.
pub const LEN: usize = 4;
/// TPID of an 802.1Q customer tag.
pub const TPID: u16 = 0x8100;
/// TPID of an 802.1ad service tag.
pub const TPID_OUTER: u16 = 0x88a8;

const VID: u16 = 0x0fff;

/// Whether an EtherType announces a tag.
#[inline]
#[must_use]
pub const fn is_tpid(ether_type: u16) -> bool {
    matches!(ether_type, TPID | TPID_OUTER)
}

/// Reads the tags of a frame whose first EtherType is `first`: the VIDs, the EtherType behind them and
/// its payload's offset.
///
/// A sole 802.1Q tag with VID 0 carries a priority only, and counts as untagged. Tags stacked
/// otherwise than 802.1Q inside 802.1ad are no port's tags.
pub fn parse(frame: &[u8], first: u16) -> Result<(VlanTags, u16, usize), DropReason> {
    let (vid, next) = tag(frame, ether::LEN)?;
    let at = ether::LEN + LEN;
    if !is_tpid(next) {
        let tags = match first {
            TPID => VlanTags { outer: None, inner: (vid != 0).then_some(vid) },
            _ => VlanTags { outer: Some(vid), inner: None },
        };
        return Ok((tags, next, at));
    }
    let (inner, ether_type) = tag(frame, at)?;
    if is_tpid(ether_type) {
        return Err(DropReason::VlanTooDeep);
    }
    if (first, next) != (TPID_OUTER, TPID) {
        return Err(DropReason::VlanMismatch);
    }
    Ok((VlanTags { outer: Some(vid), inner: Some(inner) }, ether_type, at + LEN))
}

fn tag(frame: &[u8], at: usize) -> Result<(u16, u16), DropReason> {
    let [a, b, c, d] = *field(frame, at).ok_or(DropReason::EthernetTruncated)?;
    Ok((u16::from_be_bytes([a, b]) & VID, u16::from_be_bytes([c, d])))
}

/// Writes a tag with priority 0.
#[inline]
pub fn emit(tag: &mut [u8; LEN], tpid: u16, vid: u16) {
    let ([a, b], [c, d]) = (tpid.to_be_bytes(), (vid & VID).to_be_bytes());
    *tag = [a, b, c, d];
}
