//! A flow's packet: a template, written as a whole, then the client's address and port, and the checksums by
//! what these add to the template's.

use std::net::IpAddr;

use crate::args::{Args, Protocol, low_half, size_min};
use crate::check::{TCP, UDP, fold, sum};

/// Who sends: the host, or the router, at the other end of the wire.
pub const FAR_MAC: [u8; 6] = [2, 0, 0, 0, 0xfe, 1];

/// Flows of one client: so many ports, from [`PORT_FIRST`] on.
pub const PORTS: u32 = 32_768;
/// A client's first port.
pub const PORT_FIRST: u16 = 1024;

/// All that differs is in so many bytes of a frame, which are written at once.
const HEAD_V4: usize = 64;
/// As above.
const HEAD_V6: usize = 128;

/// The client's and the server's first sequence numbers.
const CLIENT_SEQUENCE: u32 = 0x1000_0000;
/// As above.
pub const SERVER_SEQUENCE: u32 = 0x2000_0000;

pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
const PSH: u8 = 0x08;
pub(crate) const ACK: u8 = 0x10;

/// What a client sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A datagram, with payload if there is room.
    Datagram,
    /// The first segment of a connection.
    Syn,
    /// The one that answers the server's first; later ones that only acknowledge.
    Ack,
    /// Data, as much as there is room for.
    Data,
    /// The last one with a number, and what acknowledges the server's.
    Fin,
    /// What acknowledges the server's end.
    LastAck,
}

impl Kind {
    /// Sequence number, acknowledgement number, flags.
    fn numbers(self) -> (u32, u32, u8) {
        let (sent, received) = (CLIENT_SEQUENCE + 1, SERVER_SEQUENCE + 1);
        match self {
            Kind::Datagram => (0, 0, 0),
            Kind::Syn => (CLIENT_SEQUENCE, 0, SYN),
            Kind::Ack => (sent, received, ACK),
            Kind::Data => (sent, received, PSH | ACK),
            Kind::Fin => (sent, received, FIN | ACK),
            Kind::LastAck => (sent + 1, received + 1, ACK),
        }
    }

    /// Whether it fills the frame with payload.
    fn has_payload(self) -> bool {
        matches!(self, Kind::Datagram | Kind::Data)
    }
}

/// The packets of all flows, but for what differs.
#[derive(Clone, Debug)]
pub struct Template {
    /// The frame's beginning, filled up with zeros.
    head: [u8; HEAD_V6],
    /// What follows [`HEAD_V4`] or [`HEAD_V6`] bytes of it.
    rest: Vec<u8>,
    size: u16,
    ipv6: bool,
    /// Offset of the TCP or UDP checksum.
    checksum_at: usize,
    /// Those bits of the first client.
    client: u32,
    /// The sum of the IPv4 header without them, as it is in memory.
    header_sum: u32,
    /// The sum of the pseudo-header, the header and the payload without them, as it is in memory.
    packet_sum: u32,
}

impl Template {
    /// Frames of `size` bytes (raised to what the headers need), to the MAC address `to`.
    pub fn new(args: &Args, kind: Kind, size: u16, to: [u8; 6]) -> Template {
        let ipv6 = args.vip.is_ipv6();
        let size = size.max(size_min(ipv6, args.protocol));
        let (l3, l4) = (14, if ipv6 { 54 } else { 34 });
        let udp = args.protocol == Protocol::Udp;
        let l4_header = if udp { 8 } else { 20 };
        let end = if kind.has_payload() { usize::from(size) } else { l4 + l4_header };
        let head = if ipv6 { HEAD_V6 } else { HEAD_V4 };
        let mut frame = vec![0; usize::from(size).max(HEAD_V6)];
        frame[..6].copy_from_slice(&to);
        frame[6..12].copy_from_slice(&FAR_MAC);
        let addresses = write_ip(&mut frame[12..], args, end - l3);
        let (protocol, checksum_at) = if udp { (UDP, l4 + 6) } else { (TCP, l4 + 16) };
        frame[l4 + 2..l4 + 4].copy_from_slice(&args.port.to_be_bytes());
        if udp {
            frame[l4 + 4..l4 + 6].copy_from_slice(&((end - l4) as u16).to_be_bytes());
        } else {
            write_tcp(&mut frame[l4..], kind);
        }
        let addresses = l3 + addresses.start..l3 + addresses.end;
        let packet_sum =
            sum(&frame[addresses.clone()]) + (end - l4) as u32 + u32::from(protocol) + sum(&frame[l4..end]);
        let in_memory = |sum| u32::from(fold(sum).to_be());
        Template {
            head: std::array::from_fn(|at| frame[at]),
            rest: frame.get(head..usize::from(size)).unwrap_or_default().to_vec(),
            size,
            ipv6,
            checksum_at,
            client: low_half(args.client),
            header_sum: in_memory(sum(&frame[l3..l4])),
            packet_sum: in_memory(packet_sum),
        }
    }

    /// Bytes of a frame.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// Bytes that [`Template::write`] needs: the frame's, and those that it writes anyway.
    pub fn room(&self) -> usize {
        self.rest.len() + if self.ipv6 { HEAD_V6 } else { HEAD_V4 }
    }

    /// Writes the packet of a flow. With less than [`Template::room`], there is none.
    #[inline]
    pub fn write(&self, flow: u32, out: &mut [u8]) {
        if self.ipv6 {
            self.write_as::<HEAD_V6, 34, 54>(flow, out);
        } else {
            self.write_as::<HEAD_V4, 26, 34>(flow, out);
        }
    }

    /// With so many bytes at once, and offsets of the low 32 bits of the client's address and of its port.
    #[inline]
    fn write_as<const HEAD: usize, const ADDRESS: usize, const PORT: usize>(
        &self,
        flow: u32,
        out: &mut [u8],
    ) {
        let (Some((head, rest)), Some(from)) = (out.split_first_chunk_mut(), self.head.first_chunk::<HEAD>())
        else {
            return;
        };
        *head = *from;
        if !self.rest.is_empty() {
            let Some(rest) = rest.get_mut(..self.rest.len()) else { return };
            rest.copy_from_slice(&self.rest);
        }
        // Checksums are the same whatever the order of bytes, so all is summed as it is in memory.
        let address = self.client.wrapping_add(flow / PORTS).to_be();
        let port = (PORT_FIRST + (flow % PORTS) as u16).to_be();
        head[ADDRESS..ADDRESS + 4].copy_from_slice(&address.to_ne_bytes());
        head[PORT..PORT + 2].copy_from_slice(&port.to_ne_bytes());
        if HEAD == HEAD_V4 {
            head[24..26].copy_from_slice(&(!fold(add(address, self.header_sum))).to_ne_bytes());
        }
        let checksum = match !fold(add(address, self.packet_sum + u32::from(port))) {
            // In UDP this would mean that there is none; in TCP both mean the same.
            0 => 0xffff,
            checksum => checksum,
        };
        // It is even, and within the head anyway; this way the compiler knows.
        let at = self.checksum_at & (HEAD - 2);
        head[at..at + 2].copy_from_slice(&checksum.to_ne_bytes());
    }
}

/// The sum of words, two at a time: what is carried out comes in again.
#[inline]
fn add(a: u32, b: u32) -> u32 {
    let (sum, carry) = a.overflowing_add(b);
    sum + u32::from(carry)
}

/// Writes what is from the Ethernet type to the end of the IP header, for `length` bytes of packet; where its
/// addresses are in the header. The low 32 bits of the source's stay 0.
fn write_ip(out: &mut [u8], args: &Args, length: usize) -> std::ops::Range<usize> {
    let protocol = if args.protocol == Protocol::Udp { UDP } else { TCP };
    let (kind, ip) = out.split_at_mut(2);
    match (args.client, args.vip) {
        (IpAddr::V6(client), IpAddr::V6(vip)) => {
            kind.copy_from_slice(&[0x86, 0xdd]);
            ip[0] = 0x60;
            ip[4..6].copy_from_slice(&((length - 40) as u16).to_be_bytes());
            ip[6] = protocol;
            ip[7] = 64;
            ip[8..20].copy_from_slice(&client.octets()[..12]);
            ip[24..40].copy_from_slice(&vip.octets());
            8..40
        }
        (_, vip) => {
            kind.copy_from_slice(&[0x08, 0x00]);
            ip[0] = 0x45;
            ip[2..4].copy_from_slice(&(length as u16).to_be_bytes());
            // Don't fragment.
            ip[6] = 0x40;
            ip[8] = 64;
            ip[9] = protocol;
            ip[16..20].copy_from_slice(&low_half(vip).to_be_bytes());
            12..20
        }
    }
}

/// Writes a TCP header but for its ports and checksum.
fn write_tcp(out: &mut [u8], kind: Kind) {
    let (sequence, acknowledged, flags) = kind.numbers();
    out[4..8].copy_from_slice(&sequence.to_be_bytes());
    out[8..12].copy_from_slice(&acknowledged.to_be_bytes());
    out[12] = 5 << 4;
    out[13] = flags;
    out[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};
    use proptest::prelude::*;

    use super::*;
    use crate::check::checksums_are_right;

    const TO: [u8; 6] = [2, 1, 2, 3, 4, 5];
    const KINDS: [Kind; 5] = [Kind::Syn, Kind::Ack, Kind::Data, Kind::Fin, Kind::LastAck];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn frames_are_what_they_should_be(
            ipv6: bool, udp: bool, kind in 0..5_usize, size in 60..2000_u16, flow: u32, port in 1..=u16::MAX,
        ) {
            let protocol = if udp { "udp" } else { "tcp" };
            let args = format!("protocol={protocol},ipv6={},port={port}", u8::from(ipv6));
            let args = Args::parse(&args).unwrap();
            let kind = if udp { Kind::Datagram } else { KINDS[kind] };
            let template = Template::new(&args, kind, size, TO);
            let mut frame = vec![0xaa; template.room()];
            template.write(flow, &mut frame);
            let (frame, padding) = frame.split_at(usize::from(template.size()));
            prop_assert!(padding.iter().all(|byte| *byte == 0));
            prop_assert_eq!(template.size(), size.max(size_min(ipv6, args.protocol)));
            prop_assert_eq!(checksums_are_right(frame), Some(true));
            let sliced = SlicedPacket::from_ethernet(frame).unwrap();
            prop_assert_eq!(&frame[..12], [TO, FAR_MAC].concat());
            let (source, destination) = match sliced.net.unwrap() {
                NetSlice::Ipv4(ip) => {
                    prop_assert_eq!(ip.header().header_checksum(), ip.header().to_header().calc_header_checksum());
                    (ip.header().source_addr().into(), ip.header().destination_addr().into())
                }
                NetSlice::Ipv6(ip) => {
                    (IpAddr::from(ip.header().source_addr()), IpAddr::from(ip.header().destination_addr()))
                }
                NetSlice::Arp(_) => unreachable!("asked for IP"),
            };
            prop_assert_eq!(destination, args.vip);
            prop_assert_eq!(low_half(source), low_half(args.client) + flow / PORTS);
            let from = PORT_FIRST + (flow % PORTS) as u16;
            match sliced.transport.unwrap() {
                TransportSlice::Udp(udp) => {
                    prop_assert_eq!((udp.source_port(), udp.destination_port()), (from, port));
                    prop_assert!(udp.checksum() != 0);
                }
                TransportSlice::Tcp(tcp) => {
                    prop_assert_eq!((tcp.source_port(), tcp.destination_port()), (from, port));
                    let (sequence, acknowledged, _) = kind.numbers();
                    prop_assert_eq!((tcp.sequence_number(), tcp.acknowledgment_number()), (sequence, acknowledged));
                    prop_assert_eq!(tcp.syn(), kind == Kind::Syn);
                    prop_assert_eq!(tcp.fin(), kind == Kind::Fin);
                    prop_assert_eq!(tcp.ack(), kind != Kind::Syn);
                    let payload = if kind == Kind::Data { frame.len() - if ipv6 { 74 } else { 54 } } else { 0 };
                    prop_assert_eq!(tcp.payload().len(), payload);
                }
                _ => unreachable!("asked for TCP or UDP"),
            }
        }
    }

    #[test]
    fn a_buffer_that_is_too_short_is_no_reason_to_stop() {
        let template = Template::new(&Args::parse("size=200").unwrap(), Kind::Data, 200, TO);
        for length in 0..template.room() {
            template.write(5, &mut vec![0; length]);
        }
    }
}
