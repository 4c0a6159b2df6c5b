//! Ethernet II.

use crate::addr::MacAddr;
use crate::snapshot::VlanTags;
use crate::wire::{field_mut, vlan};

/// Bytes of an untagged Ethernet header.
pub const LEN: usize = 14;

/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of ARP.
pub const ARP: u16 = 0x0806;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;

/// The first 14 bytes of a frame.
#[derive(Clone, Copy, Debug)]
pub struct Header<'a>(&'a [u8; LEN]);

impl<'a> Header<'a> {
    /// The header at the start of `frame`; `None` if the frame ends inside it.
    #[inline]
    #[must_use]
    pub fn new(frame: &'a [u8]) -> Option<Header<'a>> {
        frame.first_chunk().map(Header)
    }

    /// Destination station or group.
    #[inline]
    #[must_use]
    pub const fn dst(self) -> MacAddr {
        let [a, b, c, d, e, f, ..] = *self.0;
        MacAddr([a, b, c, d, e, f])
    }

    /// Sending station.
    #[inline]
    #[must_use]
    pub const fn src(self) -> MacAddr {
        let [_, _, _, _, _, _, a, b, c, d, e, f, ..] = *self.0;
        MacAddr([a, b, c, d, e, f])
    }

    /// EtherType, or the TPID of the first tag.
    #[inline]
    #[must_use]
    pub const fn ether_type(self) -> u16 {
        u16::from_be_bytes([self.0[12], self.0[13]])
    }
}

/// Bytes of a header with these tags.
#[inline]
#[must_use]
pub const fn len(tags: VlanTags) -> usize {
    LEN + vlan::LEN * (tags.outer.is_some() as usize + tags.inner.is_some() as usize)
}

/// Writes a whole Ethernet header, tags included, at the start of `frame`; `None` if it does not fit.
#[inline]
pub fn emit(frame: &mut [u8], dst: MacAddr, src: MacAddr, tags: VlanTags, ether_type: u16) -> Option<()> {
    let addresses: &mut [u8; 12] = field_mut(frame, 0)?;
    let ([d0, d1, d2, d3, d4, d5], [s0, s1, s2, s3, s4, s5]) = (dst.0, src.0);
    *addresses = [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5];
    let mut at = 12;
    for (tpid, tag) in [(vlan::TPID_OUTER, tags.outer), (vlan::TPID, tags.inner)] {
        if let Some(vid) = tag {
            vlan::emit(field_mut(frame, at)?, tpid, vid);
            at += vlan::LEN;
        }
    }
    *field_mut(frame, at)? = ether_type.to_be_bytes();
    Some(())
}
