//! Frames made and read by `etherparse`, so that Millrace's own wire code is not its own witness.

use dataplane::addr::MacAddr;
use etherparse::{
    IcmpEchoHeader, Icmpv4Type, Icmpv6Type, NetHeaders, PacketBuilder, PacketHeaders, TransportHeader,
};
use std::net::{IpAddr, SocketAddr};

/// A host on the front link that talks to VIPs through Millrace.
pub(crate) const CLIENT_MAC: MacAddr = MacAddr([2, 0, 0, 0, 1, 1]);

pub(crate) fn tcp(mac: MacAddr, from: &str, to: &str, flags: &str, payload: &[u8]) -> Vec<u8> {
    let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
    let mut step = ip(PacketBuilder::ethernet2(CLIENT_MAC.0, mac.0), from.ip(), to.ip(), 64).tcp(
        from.port(),
        to.port(),
        1000,
        64240,
    );
    for flag in flags.chars() {
        step = match flag {
            'S' => step.syn(),
            'A' => step.ack(2000),
            'F' => step.fin(),
            'R' => step.rst(),
            'P' => step.psh(),
            other => panic!("no TCP flag {other}"),
        };
    }
    write(|out| step.write(out, payload).unwrap())
}

pub(crate) fn udp(mac: MacAddr, from: &str, to: &str, payload: &[u8]) -> Vec<u8> {
    udp_ttl(mac, from, to, payload, 64)
}

pub(crate) fn udp_ttl(mac: MacAddr, from: &str, to: &str, payload: &[u8], ttl: u8) -> Vec<u8> {
    let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
    let step = ip(PacketBuilder::ethernet2(CLIENT_MAC.0, mac.0), from.ip(), to.ip(), ttl);
    write(|out| step.udp(from.port(), to.port()).write(out, payload).unwrap())
}

pub(crate) fn ping(mac: MacAddr, from: &str, to: &str) -> Vec<u8> {
    let (from, to): (IpAddr, IpAddr) = (from.parse().unwrap(), to.parse().unwrap());
    let step = ip(PacketBuilder::ethernet2(CLIENT_MAC.0, mac.0), from, to, 64);
    write(|out| match from {
        IpAddr::V4(_) => step.icmpv4_echo_request(7, 9).write(out, b"millrace").unwrap(),
        IpAddr::V6(_) => step.icmpv6_echo_request(7, 9).write(out, b"millrace").unwrap(),
    })
}

/// The answer to a ping with this identifier.
pub(crate) fn pong(mac: MacAddr, from: &str, to: &str, id: u16) -> Vec<u8> {
    let (from, to): (IpAddr, IpAddr) = (from.parse().unwrap(), to.parse().unwrap());
    let step = ip(PacketBuilder::ethernet2(CLIENT_MAC.0, mac.0), from, to, 64);
    write(|out| step.icmpv4_echo_reply(id, 0).write(out, b"millrace").unwrap())
}

/// An ICMP error: frag-needed (v4) or packet too big (v6) with this MTU, quoting a frame's IP packet.
pub(crate) fn too_big(
    mac: MacAddr,
    from: &str,
    to: &str,
    mtu: u16,
    quoted_frame: &[u8],
    quote: usize,
) -> Vec<u8> {
    let (from, to): (IpAddr, IpAddr) = (from.parse().unwrap(), to.parse().unwrap());
    let step = ip(PacketBuilder::ethernet2(CLIENT_MAC.0, mac.0), from, to, 64);
    let quoted = &quoted_frame[14..quoted_frame.len().min(14 + quote)];
    write(|out| match from {
        IpAddr::V4(_) => step
            .icmpv4(Icmpv4Type::DestinationUnreachable(
                etherparse::icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: mtu },
            ))
            .write(out, quoted)
            .unwrap(),
        IpAddr::V6(_) => {
            step.icmpv6(Icmpv6Type::PacketTooBig { mtu: u32::from(mtu) }).write(out, quoted).unwrap()
        }
    })
}

fn ip(
    step: etherparse::PacketBuilderStep<etherparse::Ethernet2Header>,
    from: IpAddr,
    to: IpAddr,
    ttl: u8,
) -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => step.ipv4(from.octets(), to.octets(), ttl),
        (IpAddr::V6(from), IpAddr::V6(to)) => step.ipv6(from.octets(), to.octets(), ttl),
        _ => panic!("families differ"),
    }
}

fn write(build: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut frame = Vec::new();
    build(&mut frame);
    frame
}

/// What a frame says, checksums verified: `dst-mac 10.0.0.1:5555 > 10.0.1.11:80 ttl 63 tcp SA "payload"`.
pub(crate) fn read(frame: &[u8]) -> String {
    let headers = PacketHeaders::from_ethernet_slice(frame).expect("a well-formed frame");
    let mac = match &headers.link {
        Some(etherparse::LinkHeader::Ethernet2(ether)) => MacAddr(ether.destination),
        other => panic!("no Ethernet header: {other:?}"),
    };
    let payload = headers.payload.slice();
    let (source, destination, ttl) = match headers.net.as_ref().expect("a network header") {
        NetHeaders::Ipv4(ip, _) => {
            assert_eq!(ip.header_checksum, ip.calc_header_checksum(), "IPv4 checksum");
            (IpAddr::from(ip.source), IpAddr::from(ip.destination), ip.time_to_live)
        }
        NetHeaders::Ipv6(ip, _) => (IpAddr::from(ip.source), IpAddr::from(ip.destination), ip.hop_limit),
        other => return format!("{mac} {other:?}"),
    };
    let transport = headers.transport.as_ref().map_or_else(
        || format!("{source} > {destination} ttl {ttl} fragment {} bytes", payload.len()),
        |transport| {
            read_transport(headers.net.as_ref().unwrap(), transport, payload, source, destination, ttl)
        },
    );
    format!("{mac} {transport}")
}

fn read_transport(
    net: &NetHeaders,
    transport: &TransportHeader,
    payload: &[u8],
    source: IpAddr,
    destination: IpAddr,
    ttl: u8,
) -> String {
    let fragmented = matches!(net, NetHeaders::Ipv4(ip, _) if ip.is_fragmenting_payload());
    let check = |stored: u16, computed: Result<u16, etherparse::err::ValueTooBigError<usize>>| {
        assert!(fragmented || stored == computed.unwrap(), "transport checksum of {transport:?}");
    };
    let text = String::from_utf8_lossy(payload);
    match (transport, net) {
        (TransportHeader::Tcp(tcp), _) => {
            match net {
                NetHeaders::Ipv4(ip, _) => check(tcp.checksum, tcp.calc_checksum_ipv4(ip, payload)),
                NetHeaders::Ipv6(ip, _) => check(tcp.checksum, tcp.calc_checksum_ipv6(ip, payload)),
                _ => unreachable!(),
            }
            let flags: String =
                [(tcp.syn, 'S'), (tcp.fin, 'F'), (tcp.rst, 'R'), (tcp.psh, 'P'), (tcp.ack, 'A')]
                    .into_iter()
                    .filter_map(|(set, name)| set.then_some(name))
                    .collect();
            let (from, to) = (
                SocketAddr::new(source, tcp.source_port),
                SocketAddr::new(destination, tcp.destination_port),
            );
            format!("{from} > {to} ttl {ttl} tcp {flags} {text:?}")
        }
        (TransportHeader::Udp(udp), _) => {
            match net {
                NetHeaders::Ipv4(ip, _) => check(udp.checksum, udp.calc_checksum_ipv4(ip, payload)),
                NetHeaders::Ipv6(ip, _) => check(udp.checksum, udp.calc_checksum_ipv6(ip, payload)),
                _ => unreachable!(),
            }
            let (from, to) = (
                SocketAddr::new(source, udp.source_port),
                SocketAddr::new(destination, udp.destination_port),
            );
            format!("{from} > {to} ttl {ttl} udp {text:?}")
        }
        (TransportHeader::Icmpv4(icmp), _) => {
            assert_eq!(icmp.checksum, icmp.icmp_type.calc_checksum(payload), "ICMP checksum");
            let what = match &icmp.icmp_type {
                Icmpv4Type::EchoReply(IcmpEchoHeader { id, seq }) => {
                    format!("echo reply {id} {seq} {text:?}")
                }
                Icmpv4Type::TimeExceeded(_) => format!("time exceeded [{}]", read_quoted(payload)),
                Icmpv4Type::DestinationUnreachable(what) => {
                    format!("unreachable {what:?} [{}]", read_quoted(payload))
                }
                other => format!("{other:?}"),
            };
            format!("{source} > {destination} ttl {ttl} icmp {what}")
        }
        (TransportHeader::Icmpv6(icmp), NetHeaders::Ipv6(ip, _)) => {
            let computed = icmp.icmp_type.calc_checksum(ip.source, ip.destination, payload).unwrap();
            assert_eq!(icmp.checksum, computed, "ICMPv6 checksum");
            let what = match &icmp.icmp_type {
                Icmpv6Type::EchoReply(IcmpEchoHeader { id, seq }) => {
                    format!("echo reply {id} {seq} {text:?}")
                }
                Icmpv6Type::TimeExceeded(_) => format!("time exceeded [{}]", read_quoted(payload)),
                Icmpv6Type::PacketTooBig { mtu } => format!("too big {mtu} [{}]", read_quoted(payload)),
                other => format!("{other:?}"),
            };
            format!("{source} > {destination} ttl {ttl} icmp6 {what}")
        }
        (other, _) => panic!("unexpected transport {other:?}"),
    }
}

/// The flow a quoted packet belongs to: `10.0.0.1:5555 > 192.0.2.80:80`.
fn read_quoted(quoted: &[u8]) -> String {
    let (source, destination, l4) = match quoted[0] >> 4 {
        4 => {
            let header = etherparse::Ipv4HeaderSlice::from_slice(quoted).expect("a quoted IPv4 header");
            let copy = header.to_header();
            assert_eq!(copy.header_checksum, copy.calc_header_checksum(), "quoted IPv4 checksum");
            let (source, destination) = (header.source_addr().into(), header.destination_addr().into());
            (source, destination, header.slice().len())
        }
        _ => {
            let header = etherparse::Ipv6HeaderSlice::from_slice(quoted).expect("a quoted IPv6 header");
            (IpAddr::V6(header.source_addr()), IpAddr::V6(header.destination_addr()), 40)
        }
    };
    let port = |at: usize| u16::from_be_bytes([quoted[l4 + at], quoted[l4 + at + 1]]);
    format!("{} > {}", SocketAddr::new(source, port(0)), SocketAddr::new(destination, port(2)))
}

/// Splits an IPv4 frame in two after `at` bytes of payload.
pub(crate) fn fragment_ipv4(frame: &[u8], at: usize) -> (Vec<u8>, Vec<u8>) {
    let piece = |payload: &[u8], field: u16| {
        let mut piece = frame[..34].to_vec();
        piece.extend_from_slice(payload);
        piece[16..18].copy_from_slice(&((20 + payload.len()) as u16).to_be_bytes());
        piece[20..22].copy_from_slice(&field.to_be_bytes());
        fix_ipv4_checksum(&mut piece);
        piece
    };
    (piece(&frame[34..34 + at], 0x2000), piece(&frame[34 + at..], (at / 8) as u16))
}

pub(crate) fn fix_ipv4_checksum(frame: &mut [u8]) {
    let header = etherparse::Ipv4HeaderSlice::from_slice(&frame[14..]).expect("an IPv4 header").to_header();
    frame[24..26].copy_from_slice(&header.calc_header_checksum().to_be_bytes());
}

/// For a message that follows the IPv6 header, to the end of the frame.
pub(crate) fn fix_icmpv6_checksum(frame: &mut [u8]) {
    let header = etherparse::Ipv6HeaderSlice::from_slice(&frame[14..]).expect("an IPv6 header").to_header();
    let message = etherparse::Icmpv6Slice::from_slice(&frame[54..]).expect("a message");
    let (kind, payload) = (message.icmp_type(), message.payload().to_vec());
    let checksum = kind.calc_checksum(header.source, header.destination, &payload).expect("a short message");
    frame[56..58].copy_from_slice(&checksum.to_be_bytes());
}
