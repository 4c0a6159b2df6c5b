//! Pings answered, and errors about packets that cannot be forwarded.

use super::originate::{HOPS, Network, is_station, to_bare_packet};
use super::{End, ORIGINATED_L3, adjust, replaced};
use crate::addr::Ip;
use crate::drops::DropReason;
use crate::packet::PacketBuf;
use crate::wire::{FragmentRole, Kind, Parsed, ether, field_mut, icmp, icmpv6, ipv4, ipv6};

/// An error about a packet that cannot be forwarded.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum IcmpError {
    /// TTL or hop limit ran out.
    TtlExceeded,
    /// IPv4: the packet does not fit the next link, has DF set, and this would fit.
    FragmentationNeeded {
        /// MTU of the next link.
        mtu: u16,
    },
    /// IPv6: the packet does not fit the next link, and this would fit.
    PacketTooBig {
        /// MTU of the next link.
        mtu: u16,
    },
    /// Destination unreachable, with the code of the packet's own family.
    Unreachable {
        /// The code: of RFC 792 for IPv4, of RFC 4443 §3.1 for IPv6.
        code: u8,
    },
}

impl IcmpError {
    /// Type, code and the second word of the header for ICMP; `None` if it is an error of IPv6 only.
    const fn icmp(self) -> Option<(u8, u8, u32)> {
        match self {
            IcmpError::TtlExceeded => Some((icmp::TIME_EXCEEDED, 0, 0)),
            IcmpError::FragmentationNeeded { mtu } => {
                Some((icmp::UNREACHABLE, icmp::FRAGMENTATION_NEEDED, mtu as u32))
            }
            IcmpError::Unreachable { code } => Some((icmp::UNREACHABLE, code, 0)),
            IcmpError::PacketTooBig { .. } => None,
        }
    }

    /// The same for ICMPv6.
    const fn icmpv6(self) -> Option<(u8, u8, u32)> {
        match self {
            IcmpError::TtlExceeded => Some((icmpv6::TIME_EXCEEDED, 0, 0)),
            IcmpError::PacketTooBig { mtu } => Some((icmpv6::PACKET_TOO_BIG, 0, mtu as u32)),
            IcmpError::Unreachable { code } => Some((icmpv6::UNREACHABLE, code, 0)),
            IcmpError::FragmentationNeeded { .. } => None,
        }
    }
}

/// Largest ICMP error, IP header included (RFC 1812 §4.3.2.3).
const ICMP_MAX: usize = 576;
/// Largest ICMPv6 error, IP header included: the minimum MTU (RFC 4443 §2.4 c).
const ICMPV6_MAX: usize = 1280;
/// Precedence of an ICMP error: internetwork control (RFC 1812 §4.3.2.5).
const INTERNETWORK_CONTROL: u8 = 0xc0;

/// Turns a packet that cannot be forwarded into the error about it, from `from` to the packet's
/// source, quoting as much of the packet as may be. The packet must still be as it came: translate
/// it after this was decided, or not at all.
///
/// [`DropReason::IcmpUnhandled`] for packets that must not get an error (RFC 1812 §4.3.2.7, RFC 4443
/// §2.4 e: errors, redirects, later fragments, anything sent to or from a group of stations) and for
/// an error or a `from` that is not of the packet's family. Afterwards the IP header is at
/// [`ORIGINATED_L3`].
pub fn into_icmp_error<B: PacketBuf>(
    buf: &mut B,
    parsed: &Parsed,
    error: IcmpError,
    from: Ip,
) -> Result<(), DropReason> {
    let dst = parsed.key.src;
    let is_v4 = dst.is_v4();
    let header = if is_v4 { error.icmp() } else { error.icmpv6() };
    let (true, true, Some(header)) = (may_get_error(buf.data(), parsed), from.is_v4() == is_v4, header)
    else {
        return Err(DropReason::IcmpUnhandled);
    };
    let (network, max) = if is_v4 {
        let network = Network::new(from, dst, icmp::PROTOCOL);
        (Network { traffic_class: INTERNETWORK_CONTROL, ..network }, ICMP_MAX)
    } else {
        (Network::new(from, dst, icmpv6::PROTOCOL), ICMPV6_MAX)
    };
    to_bare_packet(buf, parsed)?;
    let quote_len = buf.data().len().min(max - network.header_len() - icmp::LEN);
    if !(buf.set_len(quote_len) && buf.grow_front(network.l4() + icmp::LEN)) {
        return Err(DropReason::NoHeadroom);
    }
    emit_error(buf.data_mut(), network, header).ok_or(DropReason::NoHeadroom)
}

fn may_get_error(frame: &[u8], parsed: &Parsed) -> bool {
    let (src, dst) = (parsed.key.src, parsed.key.dst);
    let to_group = if dst.is_v4() { ipv4::is_group(dst.low32()) } else { ipv6::is_multicast(dst) };
    let link_group = ether::Header::new(frame).is_none_or(|header| header.dst().is_multicast());
    let provokes_none = match (parsed.kind, parsed.transport(frame).first()) {
        (Kind::Icmp, Some(&kind)) => icmp::provokes_no_error(kind),
        (Kind::Icmpv6, Some(&kind)) => icmpv6::provokes_no_error(kind),
        (Kind::Arp, _) => true,
        _ => false,
    };
    let later = parsed.fragment == FragmentRole::Later;
    is_station(src) && !(to_group || link_group || provokes_none || later)
}

fn emit_error(frame: &mut [u8], network: Network, (kind, code, rest): (u8, u8, u32)) -> Option<()> {
    icmp::emit(field_mut(frame, network.l4())?, kind, code, rest);
    network.emit(frame, icmp::CHECKSUM)
}

/// Turns an echo request into its reply; the request's checksum has been verified
/// ([`crate::wire::icmp_message`]). [`DropReason::IcmpUnhandled`] if it is no request or was not
/// sent from one station to another.
///
/// Afterwards the IP header is at [`ORIGINATED_L3`]. IPv4 options and IPv6 extension headers stay.
pub fn into_echo_reply<B: PacketBuf>(buf: &mut B, parsed: &Parsed) -> Result<(), DropReason> {
    let reply = match (parsed.kind, parsed.transport(buf.data()).first()) {
        (Kind::Icmp, Some(&icmp::ECHO_REQUEST)) => icmp::ECHO_REPLY,
        (Kind::Icmpv6, Some(&icmpv6::ECHO_REQUEST)) => icmpv6::ECHO_REPLY,
        _ => return Err(DropReason::IcmpUnhandled),
    };
    if !(is_station(parsed.key.dst) && is_station(parsed.key.src)) {
        return Err(DropReason::IcmpUnhandled);
    }
    to_bare_packet(buf, parsed)?;
    if !buf.grow_front(ORIGINATED_L3.into()) {
        return Err(DropReason::NoHeadroom);
    }
    let message = usize::from(ORIGINATED_L3 + (parsed.l4 - parsed.l3));
    turn_around(buf.data_mut(), parsed, message, reply).ok_or(DropReason::NoHeadroom)
}

/// Swaps the addresses, which changes no checksum by itself, and sets type and hops.
fn turn_around(frame: &mut [u8], parsed: &Parsed, message: usize, reply: u8) -> Option<()> {
    let l3 = usize::from(ORIGINATED_L3);
    super::set_address(frame, l3, End::Source, parsed.key.dst)?;
    super::set_address(frame, l3, End::Destination, parsed.key.src)?;
    super::set_hops(frame, l3, parsed.key.dst.is_v4(), HOPS)?;
    let message = frame.get_mut(message..)?;
    let kind = message.first_mut()?;
    let old = u16::from_be_bytes([*kind, 0]);
    *kind = reply;
    adjust(message, icmp::CHECKSUM, replaced(old, u16::from_be_bytes([reply, 0])))?;
    // The one sum that is +0 and not -0, which RFC 1624 cannot tell apart: a ping of nothing but zeros.
    if message.iter().all(|&byte| byte == 0) {
        *field_mut(message, icmp::CHECKSUM)? = [0xff; 2];
    }
    Some(())
}
