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

/// A template is written in pieces of so many bytes: the widest stores there are.
pub const PIECE: usize = 64;

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
    /// The frame, filled up with zeros.
    pieces: Vec<[u8; PIECE]>,
    size: u16,
    /// Offset of the low 32 bits of the client's address.
    address_at: usize,
    /// Offset of the client's port.
    port_at: usize,
    /// Offset of the TCP or UDP checksum.
    checksum_at: usize,
    /// Those bits of the first client.
    client: u32,
    /// The IP header's sum without them; `None` with IPv6.
    header_sum: Option<u32>,
    /// The sum of the pseudo-header, the header and the payload without them.
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
        let mut frame = vec![0; usize::from(size).next_multiple_of(PIECE)];
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
        Template {
            header_sum: (!ipv6).then(|| sum(&frame[l3..l4])),
            packet_sum,
            size,
            // The source comes first; its last four bytes.
            address_at: addresses.start + addresses.len() / 2 - 4,
            port_at: l4,
            checksum_at,
            client: low_half(args.client),
            pieces: frame.chunks_exact(PIECE).filter_map(|piece| piece.try_into().ok()).collect(),
        }
    }

    /// Bytes of a frame.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// Bytes that [`Template::write`] needs: the frame's, filled up to a whole piece.
    pub fn room(&self) -> usize {
        self.pieces.len() * PIECE
    }

    /// Writes the packet of a flow. Nothing beyond a whole number of pieces is touched; with less than
    /// [`Template::room`], there is no packet.
    #[inline]
    pub fn write(&self, flow: u32, out: &mut [u8]) {
        for (to, from) in out.chunks_exact_mut(PIECE).zip(&self.pieces) {
            to.copy_from_slice(from);
        }
        let address = self.client.wrapping_add(flow / PORTS);
        let port = PORT_FIRST + (flow % PORTS) as u16;
        put(out, self.address_at, address.to_be_bytes());
        put(out, self.port_at, port.to_be_bytes());
        let address_sum = (address >> 16) + (address & 0xffff);
        if let Some(sum) = self.header_sum {
            put(out, 24, (!fold(sum + address_sum)).to_be_bytes());
        }
        let checksum = match !fold(self.packet_sum + address_sum + u32::from(port)) {
            // In UDP this would mean that there is none; in TCP both mean the same.
            0 => 0xffff,
            checksum => checksum,
        };
        put(out, self.checksum_at, checksum.to_be_bytes());
    }
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

#[inline]
fn put<const N: usize>(out: &mut [u8], at: usize, bytes: [u8; N]) {
    if let Some(to) = out.get_mut(at..at + N) {
        to.copy_from_slice(&bytes);
    }
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
