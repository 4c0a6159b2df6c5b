//! How a forwarded packet is changed, and the packets that Millrace answers with or originates.
//!
//! Forwarded packets are changed in place and their checksums updated incrementally (RFC 1624), never
//! recomputed: a packet that was damaged on its way stays recognisably damaged. For the same reason a
//! packet whose sender left the checksum to its NIC ("partial": only the pseudo-header is summed, as
//! between two ends of a virtual link) cannot be translated; such links must have transmit checksum
//! offload switched off, as `docs/` says. The checksum of a later fragment is in the first one, whose
//! update covers the address change of the whole packet.
//!
//! Functions here take the [`Parsed`] of the frame as it was parsed. They may follow one another as
//! long as the link header stays: [`set_link`] comes last. What an offset outside the frame would
//! change, stays unchanged: nothing here panics.
//!
//! The originated ones (`into_…`, `write_…`) are in submodules by protocol.

mod decap;
mod encap;
mod icmp;
mod neighbour;
mod originate;
mod plain;
mod reset;

pub use decap::{datagram, decapsulate, udp_is_intact};
pub(crate) use encap::class;
pub use encap::{Around, ECN, OUTER_MAX, Outer, carries_ecn, encapsulate, entropy, wrap};
pub use icmp::{IcmpError, into_echo_reply, into_icmp_error};
pub use neighbour::{
    Station, into_arp_reply, into_neighbour_advertisement, write_arp_request, write_gratuitous_arp,
    write_neighbour_solicitation, write_unsolicited_advertisement,
};
pub(crate) use originate::is_station;
pub use plain::Forward;
pub use reset::{into_reset_of_receiver, into_tcp_reset, may_be_reset};

use crate::addr::{Ip, MacAddr};
use crate::drops::DropReason;
use crate::flow::Protocol;
use crate::packet::PacketBuf;
use crate::snapshot::VlanTags;
use crate::wire::checksum::Delta;
use crate::wire::{Kind, Parsed, Quoted, ether, field_mut, icmp as icmp_header, ipv4, ipv6, tcp, udp, word};

/// Offset of the IP header in every packet made by [`into_echo_reply`], [`into_icmp_error`] and
/// [`into_tcp_reset`], to be given to [`set_link`]: behind an untagged Ethernet header, which is not
/// yet written.
pub const ORIGINATED_L3: u16 = ether::LEN as u16;

/// Which end of a packet is rewritten.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum End {
    /// Source address and port.
    Source,
    /// Destination address and port.
    Destination,
}

impl End {
    /// The other end.
    #[inline]
    #[must_use]
    pub const fn opposite(self) -> End {
        match self {
            End::Source => End::Destination,
            End::Destination => End::Source,
        }
    }

    /// Offset of this end's port in a TCP or UDP header.
    #[inline]
    const fn port_offset(self) -> usize {
        match self {
            End::Source => 0,
            End::Destination => 2,
        }
    }
}

/// Gives one end of a packet another address and port.
///
/// TCP, UDP and their first fragments get both; later fragments and ICMP, which have no ports, get the
/// address only. `ip` must be of the packet's own family, else nothing changes.
#[inline]
pub fn translate(frame: &mut [u8], parsed: &Parsed, end: End, ip: Ip, port: u16) {
    let Some(delta) = set_address(frame, parsed.l3.into(), end, ip) else { return };
    let l4 = usize::from(parsed.l4);
    // `None` only for offsets outside the frame, which the parse excludes.
    let _ = match parsed.kind {
        Kind::Tcp => set_port(frame, l4, Protocol::Tcp, end, port, delta.pseudo_header),
        Kind::Udp => set_port(frame, l4, Protocol::Udp, end, port, delta.pseudo_header),
        Kind::Icmpv6 => {
            adjust(frame, l4 + icmp_header::CHECKSUM, delta.pseudo_header).map(|_| Delta::default())
        }
        Kind::Icmp | Kind::Arp | Kind::Fragment => None,
    };
}

/// What an address change does to the checksums around it.
#[derive(Clone, Copy)]
struct AddressDelta {
    /// To checksums with a pseudo-header.
    pseudo_header: Delta,
    /// To a sum over the IP header itself, its own checksum included.
    header: Delta,
}

/// Sets an address of the IP header at `l3` and the header's own checksum. `None`, and no change, if
/// the header is of another family than `ip`.
#[inline]
fn set_address(frame: &mut [u8], l3: usize, end: End, ip: Ip) -> Option<AddressDelta> {
    match (frame.get(l3)? >> 4, ip.is_v4()) {
        (4, true) => set_ipv4_address(field_mut(frame, l3)?, end, ip.low32()),
        (6, false) => set_ipv6_address(field_mut(frame, l3)?, end, ip),
        _ => None,
    }
}

#[inline]
fn set_ipv4_address(header: &mut [u8; ipv4::LEN], end: End, new: u32) -> Option<AddressDelta> {
    let at = match end {
        End::Source => ipv4::SRC,
        End::Destination => ipv4::DST,
    };
    let address: &mut [u8; 4] = field_mut(header, at)?;
    let mut delta = Delta::default();
    delta.replace32(u32::from_be_bytes(*address), new);
    *address = new.to_be_bytes();
    let mut over_header = delta;
    over_header.add(adjust(header, ipv4::CHECKSUM, delta)?);
    Some(AddressDelta { pseudo_header: delta, header: over_header })
}

#[inline]
fn set_ipv6_address(header: &mut [u8; ipv6::LEN], end: End, new: Ip) -> Option<AddressDelta> {
    let at = match end {
        End::Source => ipv6::SRC,
        End::Destination => ipv6::DST,
    };
    let address: &mut [u8; 16] = field_mut(header, at)?;
    let mut delta = Delta::default();
    delta.replace128(u128::from_be_bytes(*address), u128::from_be_bytes(new.octets()));
    *address = new.octets();
    Some(AddressDelta { pseudo_header: delta, header: delta })
}

/// Updates the checksum at `at` by `delta`, and says what that does to a sum that covers it.
#[inline]
fn adjust(bytes: &mut [u8], at: usize, delta: Delta) -> Option<Delta> {
    let checksum: &mut [u8; 2] = field_mut(bytes, at)?;
    let old = u16::from_be_bytes(*checksum);
    let new = delta.apply(old);
    *checksum = new.to_be_bytes();
    Some(replaced(old, new))
}

/// As [`adjust`], for UDP: 0 means that there is no checksum, and stays.
#[inline]
fn adjust_udp(bytes: &mut [u8], at: usize, delta: Delta) -> Option<Delta> {
    let checksum: &mut [u8; 2] = field_mut(bytes, at)?;
    let old = u16::from_be_bytes(*checksum);
    if old == 0 {
        return Some(Delta::default());
    }
    let new = udp::nonzero(delta.apply(old));
    *checksum = new.to_be_bytes();
    Some(replaced(old, new))
}

#[inline]
fn replaced(old: u16, new: u16) -> Delta {
    let mut delta = Delta::default();
    delta.replace16(old, new);
    delta
}

/// Sets a port of the transport header at `l4`, and its checksum if that is there, on top of what
/// `pseudo_header` already does to it. Says what all of it does to a sum that covers the header.
#[inline]
fn set_port(
    bytes: &mut [u8],
    l4: usize,
    protocol: Protocol,
    end: End,
    port: u16,
    pseudo_header: Delta,
) -> Option<Delta> {
    let field: &mut [u8; 2] = field_mut(bytes, l4 + end.port_offset())?;
    let mut covered = replaced(u16::from_be_bytes(*field), port);
    *field = port.to_be_bytes();
    let mut delta = pseudo_header;
    delta.add(covered);
    let checksum = match protocol {
        Protocol::Tcp => adjust(bytes, l4 + tcp::CHECKSUM, delta),
        Protocol::Udp => adjust_udp(bytes, l4 + udp::CHECKSUM, delta),
    };
    covered.add(checksum.unwrap_or_default());
    Some(covered)
}

/// Translates an ICMP error, inside and out, so that its receiver recognises the packet it is about.
///
/// `end` is the end of the *quoted* packet that gets `ip` and `port`:
///
/// * an error about what a VIP sent to a client: [`End::Source`] with the backend's address and port,
///   so that the backend sees its own packet quoted. The error's own destination follows;
/// * an error about what a client sent to a VIP, raised behind us: [`End::Destination`] with the VIP's.
///   The error's own source follows if it is the backend itself; a router's stays.
///
/// The rule for both is that the error's opposite address is replaced exactly if it equals the quoted
/// one. The quoted transport checksum is kept right only if it is quoted.
pub fn translate_quoted(frame: &mut [u8], parsed: &Parsed, quoted: &Quoted, end: End, ip: Ip, port: u16) {
    let _ = try_translate_quoted(frame, parsed, quoted, end, ip, port);
}

fn try_translate_quoted(
    frame: &mut [u8],
    parsed: &Parsed,
    quoted: &Quoted,
    end: End,
    ip: Ip,
    port: u16,
) -> Option<()> {
    let (outer, inner) = match end {
        End::Source => (parsed.key.dst, quoted.key.src),
        End::Destination => (parsed.key.src, quoted.key.dst),
    };
    // The quote alone: its transport header may be cut short of the checksum.
    let message = frame.get_mut(..usize::from(quoted.end))?;
    let address = set_address(message, quoted.l3.into(), end, ip)?;
    let ports = set_port(message, quoted.l4.into(), quoted.key.protocol, end, port, address.pseudo_header)?;
    let mut covered = address.header;
    covered.add(ports);
    if outer == inner {
        let outer = set_address(frame, parsed.l3.into(), end.opposite(), ip)?;
        if parsed.kind == Kind::Icmpv6 {
            covered.add(outer.pseudo_header);
        }
    }
    adjust(frame, usize::from(parsed.l4) + icmp_header::CHECKSUM, covered)?;
    Some(())
}

/// Takes one from the TTL or hop limit. The caller has seen to it that [`Parsed::ttl`] is above 1; a
/// TTL of 0 stays.
#[inline]
pub fn decrement_ttl(frame: &mut [u8], parsed: &Parsed) {
    let _ = set_hops(frame, parsed.l3.into(), parsed.key.dst.is_v4(), parsed.ttl.saturating_sub(1));
}

/// Sets the DSCP (RFC 2474); what congestion notification says of the packet (RFC 3168) stays.
pub fn set_dscp(frame: &mut [u8], parsed: &Parsed, dscp: u8) {
    // In IPv4 it is the upper six bits of the second byte; in IPv6 it begins in the middle of the first.
    let (l3, value) = (usize::from(parsed.l3), u16::from(dscp & 0x3f));
    let Some(old) = word(frame, l3) else { return };
    if parsed.key.dst.is_v4() {
        let new = old & !0x00fc | value << 2;
        let Some(header) = field_mut::<{ ipv4::LEN }>(frame, l3) else { return };
        header[..2].copy_from_slice(&new.to_be_bytes());
        let _ = adjust(header, ipv4::CHECKSUM, replaced(old, new));
    } else if let Some(field) = field_mut::<2>(frame, l3) {
        *field = (old & !0x0fc0 | value << 6).to_be_bytes();
    }
}

/// Writes the destination MAC address of a frame whose link header is otherwise complete.
#[inline]
pub fn set_destination(frame: &mut [u8], mac: MacAddr) {
    if let Some(destination) = frame.first_chunk_mut() {
        *destination = mac.0;
    }
}

/// Sets the TTL or hop limit.
#[inline]
fn set_hops(frame: &mut [u8], l3: usize, is_v4: bool, hops: u8) -> Option<()> {
    if is_v4 {
        let header: &mut [u8; ipv4::LEN] = field_mut(frame, l3)?;
        let old = word(header, ipv4::TTL)?;
        header[ipv4::TTL] = hops;
        let new = word(header, ipv4::TTL)?;
        adjust(header, ipv4::CHECKSUM, replaced(old, new))?;
    } else {
        let header: &mut [u8; ipv6::LEN] = field_mut(frame, l3)?;
        header[ipv6::HOP_LIMIT] = hops;
    }
    Some(())
}

/// Replaces everything in front of `l3` by a new link header with these tags; the EtherType follows
/// from the packet. [`DropReason::NoHeadroom`], and no change, if more tags do not fit.
#[inline]
pub fn set_link<B: PacketBuf>(
    buf: &mut B,
    l3: u16,
    dst: MacAddr,
    src: MacAddr,
    vlan: VlanTags,
) -> Result<(), DropReason> {
    let (old, new) = (usize::from(l3), ether::len(vlan));
    let ether_type = match buf.data().get(old).map(|first| first >> 4) {
        Some(4) => ether::IPV4,
        Some(6) => ether::IPV6,
        _ => ether::ARP,
    };
    if !(new <= old && buf.trim_front(old - new) || new > old && buf.grow_front(new - old)) {
        return Err(DropReason::NoHeadroom);
    }
    ether::emit(buf.data_mut(), dst, src, vlan, ether_type).ok_or(DropReason::NoHeadroom)
}
