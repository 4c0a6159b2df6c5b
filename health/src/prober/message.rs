//! Probes of one packet, and what comes in: which probe it belongs to, and what it says.

use super::Job;
use crate::machine::{Cause, Outcome};
use dataplane::addr::Ip;
use dataplane::config::Probe;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    Icmpv4Message, Icmpv4Packet, Icmpv4Repr, Icmpv6Message, Icmpv6Packet, Icmpv6Repr, IpAddress, IpProtocol,
    IpRepr, Ipv4Packet, Ipv6Packet, TcpPacket, UdpPacket, UdpRepr,
};
use std::net::IpAddr;

/// As of any host's packets (RFC 1700).
const HOP_LIMIT: u8 = 64;
const ECHO_DATA: &[u8] = b"millrace";
/// Bytes of a DNS header (RFC 1035 §4.1.1).
const DNS_HEADER: usize = 12;

/// What a packet is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// A TCP segment.
    Segment,
    /// The end of a probe.
    Answer(Outcome),
}

/// A probe under way.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) job: &'a Job,
    /// The sequence number of its SYN, which has not been answered yet.
    pub(super) syn: Option<u32>,
}

/// The packet of a probe other than a TCP connection.
pub(super) fn question(job: &Job, local_port: u16) -> Option<Vec<u8>> {
    match &job.health.probe {
        Probe::Udp(payload) => Some(datagram(job, local_port, payload)),
        Probe::Dns(name) => Some(datagram(job, local_port, &dns_question(name, local_port, job.remote))),
        Probe::Icmp => Some(echo(job, local_port)),
        Probe::Tcp | Probe::Http(_) => None,
    }
}

fn ends(job: &Job) -> (IpAddress, IpAddress) {
    (IpAddr::from(job.local).into(), IpAddr::from(job.remote).into())
}

/// An IP packet, its payload yet to be written: the packet, and where that begins.
fn packet(job: &Job, protocol: IpProtocol, payload: usize) -> (Vec<u8>, usize) {
    let (local, remote) = ends(job);
    let repr = IpRepr::new(local, remote, protocol, payload, HOP_LIMIT);
    let mut bytes = vec![0; repr.buffer_len()];
    repr.emit(&mut bytes[..], &ChecksumCapabilities::default());
    (bytes, repr.header_len())
}

fn datagram(job: &Job, local_port: u16, payload: &[u8]) -> Vec<u8> {
    let (local, remote) = ends(job);
    let repr = UdpRepr { src_port: local_port, dst_port: job.port };
    let (mut bytes, at) = packet(job, IpProtocol::Udp, repr.header_len() + payload.len());
    let mut udp = UdpPacket::new_unchecked(&mut bytes[at..]);
    let write = |room: &mut [u8]| room.copy_from_slice(payload);
    repr.emit(&mut udp, &local, &remote, payload.len(), write, &ChecksumCapabilities::default());
    bytes
}

fn echo(job: &Job, ident: u16) -> Vec<u8> {
    let checksums = ChecksumCapabilities::default();
    match (IpAddr::from(job.local), IpAddr::from(job.remote)) {
        (IpAddr::V6(local), IpAddr::V6(remote)) => {
            let repr = Icmpv6Repr::EchoRequest { ident, seq_no: 0, data: ECHO_DATA };
            let (mut bytes, at) = packet(job, IpProtocol::Icmpv6, repr.buffer_len());
            repr.emit(&local, &remote, &mut Icmpv6Packet::new_unchecked(&mut bytes[at..]), &checksums);
            bytes
        }
        _ => {
            let repr = Icmpv4Repr::EchoRequest { ident, seq_no: 0, data: ECHO_DATA };
            let (mut bytes, at) = packet(job, IpProtocol::Icmp, repr.buffer_len());
            repr.emit(&mut Icmpv4Packet::new_unchecked(&mut bytes[at..]), &checksums);
            bytes
        }
    }
}

/// A question for the addresses of a name, of the family that it is asked over (RFC 1035 §4).
fn dns_question(name: &str, id: u16, remote: Ip) -> Vec<u8> {
    let mut message = Vec::with_capacity(DNS_HEADER + name.len() + 6);
    message.extend(id.to_be_bytes());
    // Recursion desired; one question.
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.strip_suffix('.').unwrap_or(name).split('.') {
        message.push(label.len() as u8);
        message.extend(label.bytes());
    }
    let kind = if remote.is_v4() { 1 } else { 28 };
    message.extend([0, 0, kind, 0, 1]);
    message
}

/// Good if a server knows, or knows that there is no such name.
fn dns_answer(message: &[u8], id: u16) -> Option<Outcome> {
    let [a, b, flags, code, ..] = *message.get(..DNS_HEADER)? else { return None };
    let is_answer = u16::from_be_bytes([a, b]) == id && flags & 0x80 != 0;
    let good = matches!(code & 0x0f, 0 | 3);
    is_answer.then_some(if good { Outcome::Good } else { Outcome::Bad(Cause::WrongAnswer) })
}

/// Which probe a packet belongs to, by its port, and what it says. `probe` knows those under way.
pub(super) fn read<'a>(bytes: &[u8], probe: impl Fn(u16) -> Option<Asked<'a>>) -> Option<(u16, Heard)> {
    let (from, to, protocol, payload) = open(bytes)?;
    let of =
        |port: u16, from: Ip| probe(port).filter(|Asked { job, .. }| (job.local, job.remote) == (to, from));
    match protocol {
        IpProtocol::Tcp => {
            let tcp = TcpPacket::new_checked(payload).ok()?;
            let port = tcp.dst_port();
            of(port, from).filter(|probe| probe.job.port == tcp.src_port())?;
            Some((port, Heard::Segment))
        }
        IpProtocol::Udp => {
            let udp = UdpPacket::new_checked(payload).ok()?;
            let port = udp.dst_port();
            let Asked { job, .. } = of(port, from).filter(|probe| probe.job.port == udp.src_port())?;
            if !udp.verify_checksum(&IpAddr::from(from).into(), &IpAddr::from(to).into()) {
                return None;
            }
            let outcome = match &job.health.probe {
                Probe::Udp(_) => Outcome::Good,
                Probe::Dns(_) => dns_answer(udp.payload(), port)?,
                _ => return None,
            };
            Some((port, Heard::Answer(outcome)))
        }
        IpProtocol::Icmp => {
            let icmp = Icmpv4Packet::new_checked(payload).ok().filter(Icmpv4Packet::verify_checksum)?;
            match icmp.msg_type() {
                Icmpv4Message::EchoReply => echoed(icmp.echo_ident(), icmp.data(), from, of),
                // "Fragmentation needed" is none of these: probes are small.
                Icmpv4Message::DstUnreachable if icmp.msg_code() != 4 => {
                    unreachable(payload.get(8..)?, icmp.msg_code() == 3, to, of)
                }
                _ => None,
            }
        }
        IpProtocol::Icmpv6 => {
            let icmp = Icmpv6Packet::new_checked(payload).ok()?;
            match icmp.msg_type() {
                Icmpv6Message::EchoReply => echoed(icmp.echo_ident(), icmp.payload(), from, of),
                Icmpv6Message::DstUnreachable => unreachable(payload.get(8..)?, icmp.msg_code() == 4, to, of),
                _ => None,
            }
        }
        _ => None,
    }
}

/// Addresses, protocol and payload of an IP packet.
fn open(bytes: &[u8]) -> Option<(Ip, Ip, IpProtocol, &[u8])> {
    match bytes.first()? >> 4 {
        4 => {
            let packet = Ipv4Packet::new_checked(bytes).ok()?;
            let (from, to) = (IpAddr::V4(packet.src_addr()), IpAddr::V4(packet.dst_addr()));
            Some((from.into(), to.into(), packet.next_header(), packet.payload()))
        }
        6 => {
            let packet = Ipv6Packet::new_checked(bytes).ok()?;
            let (from, to) = (IpAddr::V6(packet.src_addr()), IpAddr::V6(packet.dst_addr()));
            Some((from.into(), to.into(), packet.next_header(), packet.payload()))
        }
        _ => None,
    }
}

fn echoed<'a>(
    ident: u16,
    data: &[u8],
    from: Ip,
    of: impl Fn(u16, Ip) -> Option<Asked<'a>>,
) -> Option<(u16, Heard)> {
    of(ident, from).filter(|probe| probe.job.health.probe == Probe::Icmp && data == ECHO_DATA)?;
    Some((ident, Heard::Answer(Outcome::Good)))
}

/// An ICMP error about a packet of ours, which it quotes: of the probe's protocol, and, of TCP, the SYN while
/// that has not been answered. Anything else is a guess, or says nothing any more (RFC 5927 §4.1, §5.2).
fn unreachable<'a>(
    quote: &[u8],
    port_closed: bool,
    to: Ip,
    of: impl Fn(u16, Ip) -> Option<Asked<'a>>,
) -> Option<(u16, Heard)> {
    // Not the whole packet need be quoted: `open` would find it too short.
    let (from, remote, protocol, transport) = match quote.first()? >> 4 {
        4 => {
            let header = Ipv4Packet::new_unchecked(quote.get(..20)?);
            let at = usize::from(header.header_len());
            let ends = (IpAddr::V4(header.src_addr()), IpAddr::V4(header.dst_addr()));
            (Ip::from(ends.0), Ip::from(ends.1), header.next_header(), quote.get(at..)?)
        }
        _ => {
            let header = Ipv6Packet::new_unchecked(quote.get(..40)?);
            let ends = (IpAddr::V6(header.src_addr()), IpAddr::V6(header.dst_addr()));
            (Ip::from(ends.0), Ip::from(ends.1), header.next_header(), quote.get(40..)?)
        }
    };
    let [a, b, c, d, rest @ ..] = transport else { return None };
    let (port, asked) = (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]));
    let Asked { job, syn } = of(port, remote).filter(|probe| from == to && probe.job.port == asked)?;
    let ours = match (&job.health.probe, protocol) {
        (Probe::Tcp | Probe::Http(_), IpProtocol::Tcp) => syn?.to_be_bytes() == *rest.first_chunk()?,
        (Probe::Udp(_) | Probe::Dns(_), IpProtocol::Udp) => true,
        _ => false,
    };
    if !ours {
        return None;
    }
    let cause = if port_closed { Cause::Refused } else { Cause::Unreachable };
    Some((port, Heard::Answer(Outcome::Bad(cause))))
}
