//! Header formats, one file each, and [`parse`], which joins them.
//!
//! Headers stay in place: a `Header` here is a reference to exactly the bytes of the fixed part of a
//! header, so reading a field needs no bounds check and cannot panic. `emit` functions write the
//! headers of the packets Millrace originates. What to do with a packet is decided elsewhere; how a
//! forwarded packet is changed is in [`crate::rewrite`].

pub mod arp;
pub mod checksum;
mod envelope;
pub mod ether;
pub mod geneve;
pub mod gue;
pub mod icmp;
pub mod icmpv6;
pub mod ipv4;
pub mod ipv6;
pub mod nd;
pub mod parse;
pub mod plain;
pub mod tcp;
pub mod udp;
pub mod vlan;
pub mod vxlan;

pub use envelope::{Envelope, envelope, ip_at, may_hide_ip};
pub use parse::{
    FragmentRole, IcmpMessage, Kind, Parsed, Quoted, TcpFlags, icmp_message, parse, parse_quoted,
};

/// `N` bytes at `at`, or `None` where the slice ends first.
#[inline(always)]
pub(crate) fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<&[u8; N]> {
    bytes.get(at..)?.first_chunk()
}

/// `N` bytes at `at`, to be changed, or `None` where the slice ends first.
#[inline(always)]
pub(crate) fn field_mut<const N: usize>(bytes: &mut [u8], at: usize) -> Option<&mut [u8; N]> {
    bytes.get_mut(at..)?.first_chunk_mut()
}

/// The big-endian word at `at`.
#[inline(always)]
pub(crate) fn word(bytes: &[u8], at: usize) -> Option<u16> {
    field(bytes, at).map(|bytes| u16::from_be_bytes(*bytes))
}
