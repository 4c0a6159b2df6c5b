//! Parsing: against `etherparse`, against a table of malformations, and against arbitrary bytes.

use crate::frames;
use crate::frames::{Spec, Transport, damaged, error_about, ip, repair_ipv4, spec, v4, v6};
use dataplane::addr::{Ip, MacAddr};
use dataplane::drops::DropReason;
use dataplane::flow::{FlowKey, Protocol};
use dataplane::ids::TenantId;
use dataplane::snapshot::VlanTags;
use dataplane::wire::plain::{Address, Family, Link, Plain, V4, V6, family};
use dataplane::wire::{
    FragmentRole, IcmpMessage, Kind, Parsed, TcpFlags, arp, ether, icmp_message, ipv4, ipv6, nd, parse,
    parse_quoted, tcp,
};
use etherparse::{SlicedPacket, TransportSlice};
use proptest::prelude::*;

const TENANT: TenantId = TenantId(7);

fn parsed(frame: &[u8]) -> Parsed {
    parse(frame, TENANT).expect("valid frame")
}

fn reason(frame: &[u8]) -> DropReason {
    parse(frame, TENANT).expect_err("malformed frame")
}

/// A frame with some of its bytes changed and the IPv4 checksum made right again.
fn patched(spec: &Spec, patches: &[(usize, u8)]) -> Vec<u8> {
    let mut frame = spec.build();
    for &(at, byte) in patches {
        frame[at] = byte;
    }
    if spec.dst.is_v4() {
        repair_ipv4(&mut frame);
    }
    frame
}

const A4: &str = "10.0.0.1";
const B4: &str = "192.0.2.1";
const A6: &str = "2001:db8::1";
const B6: &str = "2001:db8:1::2";

proptest! {
    /// Everything `parse` says about a valid packet is what the packet was built from, and what
    /// `etherparse` says.
    #[test]
    fn valid_packets_are_understood(spec in spec()) {
        let frame = spec.build();
        let parsed = parse(&frame, TENANT).expect("valid");
        let protocol = match spec.transport {
            Transport::Tcp { .. } => Protocol::Tcp,
            _ => Protocol::Udp,
        };
        prop_assert_eq!(parsed.key, FlowKey {
            src: spec.src,
            dst: spec.dst,
            src_port: spec.src_port,
            dst_port: spec.dst_port,
            tenant: TENANT,
            protocol,
        });
        prop_assert_eq!(parsed.vlan, spec.tags);
        prop_assert_eq!(parsed.ttl, spec.ttl);
        prop_assert_eq!(parsed.fragment, FragmentRole::Whole);
        prop_assert_eq!(parsed.protocol, protocol as u8);
        prop_assert_eq!(usize::from(parsed.end), frame.len() - spec.padding);
        prop_assert_eq!(parsed.transport(&frame), &spec.segment()[..]);

        let sliced = SlicedPacket::from_ethernet(&frame).expect("etherparse agrees");
        match sliced.transport.expect("transport") {
            TransportSlice::Tcp(tcp) => {
                prop_assert_eq!(parsed.kind, Kind::Tcp);
                prop_assert_eq!(tcp.slice(), parsed.transport(&frame));
                prop_assert_eq!(tcp.source_port(), parsed.key.src_port);
                prop_assert_eq!(
                    (tcp.syn(), tcp.ack(), tcp.fin(), tcp.rst()),
                    (parsed.tcp_flags.syn(), parsed.tcp_flags.ack(), parsed.tcp_flags.fin(), parsed.tcp_flags.rst())
                );
            }
            TransportSlice::Udp(udp) => {
                prop_assert_eq!(parsed.kind, Kind::Udp);
                prop_assert_eq!(udp.slice(), parsed.transport(&frame));
                prop_assert_eq!(udp.destination_port(), parsed.key.dst_port);
            }
            other => prop_assert!(false, "{other:?}"),
        }
    }

    #[test]
    fn fragments_are_told_apart(spec in spec(), units in 8usize..20) {
        prop_assume!(spec.segment().len() > units * 8);
        let (first, later) = spec.build_fragments(units);
        let (first, later) = (parsed(&first), parsed(&later));
        prop_assert_eq!(first.fragment, FragmentRole::First);
        prop_assert_eq!((first.key.src_port, first.key.dst_port), (spec.src_port, spec.dst_port));
        prop_assert_eq!((later.fragment, later.kind), (FragmentRole::Later, Kind::Fragment));
        prop_assert_eq!((later.key.src_port, later.key.dst_port), (0, 0));
        prop_assert_eq!(later.key.protocol, first.key.protocol);
        prop_assert_eq!((first.fragment_id, later.fragment_id), (spec.id.into(), spec.id.into()));
    }

    /// No cut makes a packet of another, and none panics.
    #[test]
    fn truncations_are_refused(spec in spec()) {
        let spec = Spec { padding: 0, ..spec };
        let frame = spec.build();
        for len in 0..frame.len() {
            prop_assert!(parse(&frame[..len], TENANT).is_err(), "{len} of {} bytes", frame.len());
        }
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(frame in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(parsed) = parse(&frame, TENANT) {
            let _ = icmp_message(&frame, &parsed);
        }
    }

    /// What is accepted is coherent: offsets in order and inside the frame.
    #[test]
    fn damaged_packets_do_not_panic_and_offsets_hold(frame in damaged()) {
        if let Ok(parsed) = parse(&frame, TENANT) {
            prop_assert!(parsed.l3 <= parsed.l4 && parsed.l4 <= parsed.end);
            prop_assert!(usize::from(parsed.end) <= frame.len());
            let _ = icmp_message(&frame, &parsed);
        }
    }

    #[test]
    fn quotes_are_found_however_short(spec in spec(), keep in 8usize..60, damage in any::<(u8, u8)>()) {
        let mut inner = Spec { tags: VlanTags::default(), padding: 0, ..spec.clone() }.build();
        let network_len = inner.len() - 14 - spec.segment().len();
        inner.truncate(14 + network_len + keep);
        let error = error_about(&spec, &inner[14..]);
        let frame = error.build();
        let parsed = parsed(&frame);
        let quoted = parse_quoted(&frame, &parsed).expect("an error about a flow");
        prop_assert_eq!((quoted.key.src, quoted.key.dst), (spec.src, spec.dst));
        prop_assert_eq!((quoted.key.src_port, quoted.key.dst_port), (spec.src_port, spec.dst_port));
        prop_assert_eq!(quoted.l3, parsed.l4 + 8);
        prop_assert_eq!(usize::from(quoted.l4), usize::from(quoted.l3) + network_len);
        let checksum_end = if quoted.key.protocol == Protocol::Tcp { 18 } else { 8 };
        let segment = spec.segment().len().min(keep);
        prop_assert_eq!(quoted.has_checksum, segment >= checksum_end);

        // A quote damaged anywhere is refused or understood, and never panics.
        let (at, byte) = damage;
        let mut payload = inner[14..].to_vec();
        let at = usize::from(at) % payload.len();
        payload[at] = byte;
        let frame = error_about(&spec, &payload).build();
        let _ = parse_quoted(&frame, &parse(&frame, TENANT).expect("still an ICMP message"));
    }

    #[test]
    fn emitted_arp_parses(sender in v4(), target in v4(), macs in any::<([u8; 6], [u8; 6])>(), reply in any::<bool>()) {
        let operation = if reply { arp::Operation::Reply } else { arp::Operation::Request };
        let (sender_mac, target_mac) = (MacAddr(macs.0), MacAddr(macs.1));
        let packet = arp::Packet { operation, sender_mac, sender, target_mac, target };
        let mut bytes = [0xff; arp::LEN];
        packet.emit(&mut bytes);
        prop_assert_eq!(arp::Packet::parse(&bytes), Some(packet));
    }

    #[test]
    fn emitted_neighbour_discovery_parses(src in v6(), target in v6(), mac in any::<[u8; 6]>(), flags in any::<[bool; 3]>()) {
        let network = nd::Network { src, dst: ipv6::solicited_node(target), hop_limit: 255 };
        let mac = MacAddr(mac);
        let mut bytes = [0xff; nd::LEN];
        nd::Solicitation::emit(target, mac, &mut bytes);
        let solicitation = nd::Solicitation { target, source_mac: Some(mac) };
        prop_assert_eq!(nd::Solicitation::parse(&bytes, network), Some(solicitation));
        let [router, solicited, overrides] = flags;
        let advertisement = nd::Advertisement { target, target_mac: Some(mac), router, solicited, overrides };
        advertisement.emit(mac, &mut bytes);
        let unicast = nd::Network { dst: src, ..network };
        prop_assert_eq!(nd::Advertisement::parse(&bytes, unicast), Some(advertisement));
        prop_assert_eq!(nd::Advertisement::parse(&bytes, network).is_none(), solicited);
    }

    #[test]
    fn emitted_headers_parse(ends in (v4(), v4(), v6(), v6()), numbers in any::<(u8, u8, u8, u16)>(), ports in any::<(u16, u16, u32, u32, u8)>()) {
        let (protocol, traffic_class, hops, payload_len) = numbers;
        let payload_len = payload_len.min(u16::MAX - 20);
        let mut bytes = [0xff; ipv4::LEN];
        ipv4::Repr { src: ends.0, dst: ends.1, protocol, traffic_class, ttl: hops, payload_len }.emit(&mut bytes);
        let header = ipv4::Header::new(&bytes).expect("whole");
        prop_assert_eq!((Ip::v4(header.src()), Ip::v4(header.dst())), (ends.0, ends.1));
        prop_assert_eq!((header.protocol(), header.ttl(), header.version()), (protocol, hops, 4));
        prop_assert_eq!((header.header_len(), header.total_len()), (20, 20 + usize::from(payload_len)));
        prop_assert!(header.checksum_is_valid() && header.dont_fragment() && !header.is_fragment());

        let mut bytes = [0xff; ipv6::LEN];
        ipv6::Repr { src: ends.2, dst: ends.3, next_header: protocol, hop_limit: hops, payload_len }.emit(&mut bytes);
        let header = ipv6::Header::new(&bytes).expect("whole");
        prop_assert_eq!((header.src(), header.dst()), (ends.2, ends.3));
        prop_assert_eq!((header.next_header(), header.hop_limit(), header.version()), (protocol, hops, 6));
        prop_assert_eq!(header.payload_len(), usize::from(payload_len));

        let (src_port, dst_port, seq, ack, flags) = ports;
        let mut bytes = [0xff; tcp::LEN];
        tcp::Repr { src_port, dst_port, seq, ack, flags: TcpFlags(flags) }.emit(&mut bytes);
        let header = tcp::Header::new(&bytes).expect("whole");
        prop_assert_eq!((header.src_port(), header.dst_port()), (src_port, dst_port));
        prop_assert_eq!((header.seq(), header.ack(), header.flags()), (seq, ack, TcpFlags(flags)));
        prop_assert_eq!((header.header_len(), header.window()), (20, 0));
    }

    #[test]
    fn emitted_links_parse(spec in spec(), dst in any::<[u8; 6]>(), src in any::<[u8; 6]>()) {
        let mut frame = spec.build();
        let ether_type = if spec.dst.is_v4() { ether::IPV4 } else { ether::IPV6 };
        ether::emit(&mut frame, MacAddr(dst), MacAddr(src), spec.tags, ether_type).expect("fits");
        let header = ether::Header::new(&frame).expect("whole");
        prop_assert_eq!((header.dst(), header.src()), (MacAddr(dst), MacAddr(src)));
        prop_assert_eq!(parsed(&frame).vlan, spec.tags);
        prop_assert_eq!(usize::from(parsed(&frame).l3), ether::len(spec.tags));
    }
}

#[test]
fn tags_of_all_kinds() {
    let tagged = |tags: &[(u16, u16)]| {
        let frame = Spec::tcp(A4, B4).build();
        let tags: Vec<u8> =
            tags.iter().flat_map(|&(a, b)| [a.to_be_bytes(), b.to_be_bytes()].concat()).collect();
        [&frame[..12], &tags, &frame[12..]].concat()
    };
    let tags = |outer, inner| VlanTags { outer, inner };
    assert_eq!(parsed(&tagged(&[(0x8100, 5)])).vlan, tags(None, Some(5)));
    assert_eq!(parsed(&tagged(&[(0x8100, 0xf005)])).vlan, tags(None, Some(5)), "priority is ignored");
    assert_eq!(parsed(&tagged(&[(0x8100, 0xe000)])).vlan, tags(None, None), "priority tag");
    assert_eq!(parsed(&tagged(&[(0x88a8, 9), (0x8100, 5)])).vlan, tags(Some(9), Some(5)));
    assert_eq!(parsed(&tagged(&[(0x88a8, 9)])).vlan, tags(Some(9), None));
    assert_eq!(reason(&tagged(&[(0x8100, 9), (0x8100, 5)])), DropReason::VlanMismatch);
    assert_eq!(reason(&tagged(&[(0x88a8, 9), (0x88a8, 5)])), DropReason::VlanMismatch);
    assert_eq!(reason(&tagged(&[(0x88a8, 9), (0x8100, 5), (0x8100, 6)])), DropReason::VlanTooDeep);
    let cut = tagged(&[(0x88a8, 9), (0x8100, 5)]);
    for len in 14..22 {
        assert_eq!(reason(&cut[..len]), DropReason::EthernetTruncated);
    }
}

#[test]
fn malformed_links_and_arp() {
    assert_eq!(reason(&[]), DropReason::EthernetTruncated);
    assert_eq!(reason(&[0; 13]), DropReason::EthernetTruncated);
    let with_type = |ether_type: u16| {
        let mut frame = [0; 60];
        frame[12..14].copy_from_slice(&ether_type.to_be_bytes());
        frame
    };
    assert_eq!(reason(&with_type(0x88cc)), DropReason::EtherTypeUnknown);
    assert_eq!(reason(&with_type(46)), DropReason::EtherTypeUnknown, "802.3 length");
    assert_eq!(reason(&with_type(0x0806)), DropReason::ArpMalformed);

    let (sender, target) = (ip(A4), ip(B4));
    let (sender_mac, target_mac) = (MacAddr([2, 0, 0, 0, 0, 9]), MacAddr::default());
    let operation = arp::Operation::Request;
    let mut frame = with_type(0x0806);
    let packet = arp::Packet { operation, sender_mac, sender, target_mac, target };
    packet.emit(frame[14..].first_chunk_mut().expect("room"));
    let arp = parsed(&frame);
    assert_eq!((arp.kind, arp.key.src, arp.key.dst), (Kind::Arp, sender, target));
    assert_eq!(arp::Packet::parse(arp.transport(&frame)), Some(packet));
    assert_eq!(reason(&frame[..41]), DropReason::ArpMalformed);
    for (at, byte) in [(15, 6), (16, 0x86), (18, 8), (19, 16), (21, 3)] {
        let mut frame = frame;
        frame[at] = byte;
        assert_eq!(reason(&frame), DropReason::ArpMalformed, "byte {at}");
    }
}

/// A name, bytes to change, and what comes of it.
type Case<'a> = (&'a str, &'a [(usize, u8)], DropReason);

#[test]
fn malformed_ipv4() {
    let tcp = Spec::tcp(A4, B4);
    let len = tcp.build().len() as u8 - 14;
    let cases: &[Case] = &[
        ("version", &[(14, 0x65)], DropReason::Ipv4HeaderInvalid),
        ("header length below 20", &[(14, 0x44)], DropReason::Ipv4HeaderInvalid),
        ("total length above frame", &[(17, len + 1)], DropReason::Ipv4LengthInvalid),
        ("total length below header", &[(17, 19)], DropReason::Ipv4LengthInvalid),
        ("total length zero", &[(17, 0)], DropReason::Ipv4LengthInvalid),
        ("from this network", &[(26, 0)], DropReason::SourceAddressInvalid),
        ("from loopback", &[(26, 127)], DropReason::SourceAddressInvalid),
        ("from multicast", &[(26, 224)], DropReason::SourceAddressInvalid),
        ("from multicast, last", &[(26, 239)], DropReason::SourceAddressInvalid),
        ("from broadcast", &[(26, 255), (27, 255), (28, 255), (29, 255)], DropReason::SourceAddressInvalid),
        ("GRE", &[(23, 47)], DropReason::ProtocolUnsupported),
        ("ICMPv6 in IPv4", &[(23, 58)], DropReason::ProtocolUnsupported),
        ("ends inside TCP", &[(17, 39)], DropReason::TcpTruncated),
        ("data offset below 5", &[(46, 0x40)], DropReason::TcpTruncated),
        ("data offset past the end", &[(46, 0xf0)], DropReason::TcpTruncated),
        ("no flags", &[(47, 0)], DropReason::TcpFlagsInvalid),
        ("no flags but ECN", &[(47, 0xc0)], DropReason::TcpFlagsInvalid),
        ("SYN and FIN", &[(47, 0x03)], DropReason::TcpFlagsInvalid),
        ("SYN and RST", &[(47, 0x06)], DropReason::TcpFlagsInvalid),
        ("first fragment without TCP header", &[(20, 0x20), (17, 36)], DropReason::FragmentInvalid),
        (
            "first fragment without TCP options",
            &[(20, 0x20), (17, 44), (46, 0xf0)],
            DropReason::FragmentInvalid,
        ),
        ("first fragment of uneven length", &[(20, 0x20)], DropReason::FragmentInvalid),
        ("empty fragment", &[(20, 0x20), (17, 20)], DropReason::FragmentInvalid),
        ("fragment over TCP flags", &[(21, 1)], DropReason::FragmentInvalid),
        ("fragment over TCP checksum", &[(21, 2)], DropReason::FragmentInvalid),
        ("fragment past 64 KiB", &[(20, 0x1f), (21, 0xff)], DropReason::FragmentInvalid),
        ("fragment of GRE", &[(21, 9), (23, 47)], DropReason::ProtocolUnsupported),
    ];
    for (name, patches, expected) in cases {
        assert_eq!(reason(&patched(&tcp, patches)), *expected, "{name}");
    }
    let mut frame = tcp.build();
    frame[24] ^= 1;
    assert_eq!(reason(&frame), DropReason::Ipv4Checksum);
    assert_eq!(reason(&tcp.build()[..33]), DropReason::Ipv4Truncated);
    let options = Spec { option_words: 3, ..tcp };
    assert_eq!(reason(&options.build()[..40]), DropReason::Ipv4Truncated);
    let mut frame = options.build();
    frame[40] ^= 1;
    assert_eq!(reason(&frame), DropReason::Ipv4Checksum, "options are covered");
    let class_e = Spec::tcp("240.0.0.1", B4).build();
    assert_eq!(parsed(&class_e).kind, Kind::Tcp);
}

#[test]
fn malformed_udp() {
    let udp = Spec::udp(A4, B4);
    let cases: &[Case] = &[
        ("length above packet", &[(39, 14)], DropReason::UdpTruncated),
        ("length below header", &[(39, 7)], DropReason::UdpTruncated),
        ("length zero", &[(39, 0)], DropReason::UdpTruncated),
        ("ends inside header", &[(17, 27)], DropReason::UdpTruncated),
        (
            "first fragment longer than datagram",
            &[(20, 0x20), (17, 28), (39, 7)],
            DropReason::FragmentInvalid,
        ),
    ];
    for (name, patches, expected) in cases {
        assert_eq!(reason(&patched(&udp, patches)), *expected, "{name}");
    }
    let surplus = patched(&udp, &[(39, 12)]);
    assert_eq!(parsed(&surplus).kind, Kind::Udp, "surplus area, RFC 9868");
    let first_units = patched(&udp, &[(21, 1)]);
    assert_eq!(parsed(&first_units).fragment, FragmentRole::Later, "may follow the UDP header directly");
}

#[test]
fn malformed_ipv6() {
    let tcp = Spec::tcp(A6, B6);
    let frame = tcp.build();
    assert_eq!(reason(&frame[..53]), DropReason::Ipv6Truncated);
    assert_eq!(reason(&frame[..frame.len() - 1]), DropReason::Ipv6Truncated);
    assert_eq!(reason(&patched(&tcp, &[(14, 0x40)])), DropReason::Ipv6HeaderInvalid);
    assert_eq!(reason(&patched(&tcp, &[(20, 50)])), DropReason::ProtocolUnsupported, "ESP");
    assert_eq!(reason(&patched(&tcp, &[(20, 59)])), DropReason::ProtocolUnsupported, "no next header");
    assert_eq!(reason(&patched(&tcp, &[(20, 1)])), DropReason::ProtocolUnsupported, "ICMP in IPv6");
    assert_eq!(reason(&patched(&tcp, &[(19, 19)])), DropReason::TcpTruncated);
    let from = |src| reason(&Spec::tcp(src, B6).build());
    assert_eq!(from("::1"), DropReason::SourceAddressInvalid);
    assert_eq!(from("ff02::1"), DropReason::SourceAddressInvalid);
    assert_eq!(from("::"), DropReason::SourceAddressInvalid);
    for at in [22, 38] {
        let mut mapped = frame.clone();
        mapped[at..at + 12].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]);
        assert_eq!(reason(&mapped), DropReason::Ipv6HeaderInvalid, "mapped address at {at}");
    }
}

#[test]
fn malformed_extension_headers() {
    let with = |extensions: &[u8]| Spec { extensions: extensions.to_vec(), ..Spec::tcp(A6, B6) };
    let invalid = DropReason::Ipv6ExtensionInvalid;
    assert_eq!(parsed(&with(&[0, 60, 43, 51, 60]).build()).kind, Kind::Tcp);
    assert_eq!(parsed(&with(&[60; 8]).build()).kind, Kind::Tcp);
    assert_eq!(reason(&with(&[60; 9]).build()), invalid, "too many");
    assert_eq!(reason(&with(&[60, 0]).build()), invalid, "hop-by-hop not first");
    assert_eq!(reason(&with(&[44, 44]).build()), invalid, "two fragment headers");
    assert_eq!(reason(&patched(&with(&[43]), &[(57, 1)])), invalid, "segments left");
    assert_eq!(reason(&patched(&with(&[60]), &[(55, 200)])), invalid, "longer than the packet");
    assert_eq!(reason(&patched(&with(&[60]), &[(19, 4)])), invalid, "packet ends inside");
    assert_eq!(reason(&patched(&with(&[0]), &[(18, 0), (19, 0)])), invalid, "jumbogram");
    let atomic = parsed(&with(&[44]).build());
    assert_eq!((atomic.kind, atomic.fragment), (Kind::Tcp, FragmentRole::Whole));
    let fragment = |patches: &[(usize, u8)]| reason(&patched(&with(&[44]), patches));
    assert_eq!(fragment(&[(57, 8)]), DropReason::FragmentInvalid, "over the TCP header");
    assert_eq!(fragment(&[(57, 1), (19, 8 + 16)]), DropReason::FragmentInvalid, "tiny");
    assert_eq!(fragment(&[(57, 1)]), DropReason::FragmentInvalid, "uneven");
    let options_inside = patched(&with(&[44]), &[(54, 60), (57, 64)]);
    assert_eq!(parsed(&options_inside).fragment, FragmentRole::Later);
}

#[test]
fn malformed_icmp() {
    let ping = Spec::icmp(A4, B4, 8, 0);
    let message = |frame: &[u8]| icmp_message(frame, &parsed(frame));
    assert_eq!(message(&ping.build()), Ok(IcmpMessage::EchoRequest));
    assert_eq!(message(&Spec::icmp(A4, B4, 0, 0).build()), Ok(IcmpMessage::EchoReply));
    assert_eq!(message(&Spec::icmp(A6, B6, 128, 0).build()), Ok(IcmpMessage::EchoRequest));
    assert_eq!(message(&Spec::icmp(A6, B6, 129, 0).build()), Ok(IcmpMessage::EchoReply));
    assert_eq!(message(&Spec::icmp(A4, B4, 13, 0).build()), Ok(IcmpMessage::Other));
    assert_eq!(message(&Spec::icmp("::", "ff02::2", 133, 0).build()), Ok(IcmpMessage::Other));
    assert_eq!(reason(&patched(&ping, &[(17, 27)])), DropReason::IcmpTruncated);
    for spec in [&ping, &Spec::icmp(A6, B6, 128, 0)] {
        let mut frame = spec.build();
        let last = frame.len() - 1;
        frame[last] ^= 1;
        assert_eq!(message(&frame), Err(DropReason::IcmpChecksum));
    }
    let fragment = patched(&Spec { payload: vec![0; 16], ..ping }, &[(20, 0x20)]);
    assert_eq!(message(&fragment), Err(DropReason::IcmpUnhandled), "a fragment cannot be verified");
    let tcp = Spec::tcp(A4, B4).build();
    assert_eq!(message(&tcp), Err(DropReason::IcmpUnhandled));
}

#[test]
fn quotes_that_name_no_flow() {
    let outcome = |spec: &Spec, quote: &[u8]| {
        let frame = error_about(spec, quote).build();
        parse_quoted(&frame, &parsed(&frame))
    };
    let tcp = Spec::tcp(A4, B4);
    let quote = tcp.build()[14..].to_vec();
    assert!(outcome(&tcp, &quote).is_ok());
    assert_eq!(outcome(&tcp, &quote[..27]), Err(DropReason::IcmpTruncated));
    assert_eq!(outcome(&tcp, &quote[..19]), Err(DropReason::IcmpTruncated));
    assert_eq!(outcome(&tcp, &[]), Err(DropReason::IcmpTruncated));
    let ping = Spec::icmp(A4, B4, 8, 0);
    assert_eq!(outcome(&ping, &ping.build()[14..]), Err(DropReason::IcmpUnhandled));
    let long = Spec { payload: vec![0; 64], ..Spec::tcp(A4, B4) };
    let (first, later) = long.build_fragments(8);
    assert!(outcome(&long, &first[14..]).is_ok());
    assert_eq!(outcome(&long, &later[14..]), Err(DropReason::IcmpUnhandled));
    let six = Spec::tcp(A6, B6);
    assert_eq!(outcome(&tcp, &six.build()[14..]), Err(DropReason::IcmpUnhandled), "other family");
    let source_quench = Spec { payload: quote, ..Spec::icmp(B4, A4, 4, 0) }.build();
    assert_eq!(parse_quoted(&source_quench, &parsed(&source_quench)), Err(DropReason::IcmpUnhandled));
}

/// RFC 4884: what follows the padded quote is extensions and none of the packet.
#[test]
fn extensions_end_a_quote() {
    let tcp = Spec::tcp(A4, B4);
    let mut quote = tcp.build()[14..].to_vec();
    quote.resize(128, 0);
    quote.extend([0x20, 0, 0, 0, 0, 8, 1, 1, 0, 0, 0, 0]);
    let transport = Transport::Icmp { kind: 11, code: 0, rest: 32 << 16 };
    let frame = Spec { transport, ..error_about(&tcp, &quote) }.build();
    let quoted = parse_quoted(&frame, &parsed(&frame)).expect("quote");
    assert_eq!(usize::from(quoted.end), 14 + 20 + 8 + 128);
}

#[test]
fn neighbour_discovery_checks() {
    let solicit = |src: &str, dst: &str, ttl: u8, code: u8, message: &[u8]| {
        let transport = Transport::Icmp { kind: 135, code, rest: 0 };
        let spec = Spec { ttl, transport, payload: message.to_vec(), ..Spec::icmp(src, dst, 135, 0) };
        let frame = spec.build();
        icmp_message(&frame, &parsed(&frame))
    };
    let target = ip("2001:db8::abcd");
    let message = [&target.octets()[..], &[1, 1, 2, 0, 0, 0, 0, 9]].concat();
    let found = nd::Solicitation { target, source_mac: Some(MacAddr([2, 0, 0, 0, 0, 9])) };
    let ok = Ok(IcmpMessage::NeighbourSolicitation(found));
    let group = "ff02::1:ff00:abcd";
    let invalid = Err(DropReason::NdInvalid);
    assert_eq!(solicit(A6, group, 255, 0, &message), ok);
    assert_eq!(solicit(A6, "2001:db8::abcd", 255, 0, &message), ok);
    assert_eq!(solicit(A6, group, 254, 0, &message), invalid, "crossed a router");
    assert_eq!(solicit(A6, group, 255, 1, &message), invalid, "code");
    assert_eq!(solicit(A6, group, 255, 0, &message[..15]), invalid, "truncated");
    assert_eq!(solicit(A6, group, 255, 0, &message[..20]), invalid, "option truncated");
    assert_eq!(solicit(A6, group, 255, 0, &message[..17]), invalid, "option without length");
    let zero = [&message[..16], &[1, 0, 2, 0, 0, 0, 0, 9]].concat();
    assert_eq!(solicit(A6, group, 255, 0, &zero), invalid, "option of length 0");
    let multicast = [&ip("ff02::1").octets()[..], &message[16..]].concat();
    assert_eq!(solicit(A6, group, 255, 0, &multicast), invalid, "target is a group");
    assert_eq!(solicit("::", group, 255, 0, &message), invalid, "unspecified with address");
    let bare = nd::Solicitation { target, source_mac: None };
    assert_eq!(
        solicit("::", group, 255, 0, &message[..16]),
        Ok(IcmpMessage::NeighbourSolicitation(bare)),
        "duplicate address detection"
    );
    assert_eq!(solicit("::", "2001:db8::abcd", 255, 0, &message[..16]), invalid, "to no group");
    let nonce = [&message[..16], &[14, 1, 0, 0, 0, 0, 0, 0], &message[16..]].concat();
    assert_eq!(solicit(A6, group, 255, 0, &nonce), ok, "other options are skipped");
}

/// A frame larger than any offset can say is looked at up to there only.
#[test]
fn enormous_frames() {
    let mut frame = Spec::tcp(A4, B4).build();
    frame.resize(100_000, 0);
    assert_eq!(parsed(&frame).packet_len(), 45);
    let mut frame = patched(&Spec::tcp(A4, B4), &[(16, 0xff), (17, 0xff)]);
    frame.resize(100_000, 0);
    assert_eq!(reason(&frame), DropReason::Ipv4LengthInvalid);
}

const LINK_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xaa]);

/// A frame for us from somebody else.
fn addressed(mut frame: Vec<u8>) -> Vec<u8> {
    if frame.len() >= 12 {
        frame[..6].copy_from_slice(&LINK_MAC.0);
        frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 0xbb]);
    }
    frame
}

/// What a glance sees in a frame, and what its parse says then; `None` if it is not for a glance.
fn seen<A: Address>(frame: &[u8], link: &Link) -> Option<Result<Parsed, DropReason>> {
    let plain = A::glance(frame, link)?;
    let parsed = plain.parsed();
    if let Ok(parsed) = &parsed {
        assert_eq!(Plain::of(parsed, frame).map(|plain: Plain<A>| plain.key()), Some(plain.key()));
    }
    Some(parsed)
}

fn glance(frame: &[u8]) -> Option<Result<Parsed, DropReason>> {
    let link = Link::new(LINK_MAC, VlanTags::default(), 1500, TENANT);
    match family(frame, &link)? {
        Family::V4 => seen::<V4>(frame, &link),
        Family::V6 => seen::<V6>(frame, &link),
    }
}

/// A glance sees what a parse sees, or nothing.
fn assert_glance_is_parse(frame: &[u8]) {
    if let Some(seen) = glance(frame) {
        assert_eq!(seen, parse(frame, TENANT));
    }
}

proptest! {
    #[test]
    fn glance_is_parse_of_valid_packets(spec in prop_oneof![spec(), frames::plain()]) {
        let frame = addressed(spec.build());
        assert_glance_is_parse(&frame);
        let parsed = parsed(&frame);
        let header = if spec.dst.is_v4() { ipv4::LEN } else { ipv6::LEN };
        let plain = parsed.vlan == VlanTags::default()
            && parsed.fragment == FragmentRole::Whole
            && usize::from(parsed.l4 - parsed.l3) == header
            && frame.len() >= usize::from(parsed.l4) + tcp::LEN;
        // Nothing plain is overlooked, or it would be slow.
        prop_assert_eq!(glance(&frame).is_some(), plain);
    }

    #[test]
    fn glance_is_parse_of_damaged_packets(
        spec in frames::plain(),
        patches in proptest::collection::vec((12usize..60, any::<u8>()), 1..4),
    ) {
        let len = spec.build().len();
        let patches: Vec<(usize, u8)> = patches.into_iter().filter(|(at, _)| *at < len).collect();
        let frame = addressed(patched(&spec, &patches));
        assert_glance_is_parse(&frame);
        for len in [frame.len() - 1, 60, 54, 53] {
            assert_glance_is_parse(&frame[..len.min(frame.len())]);
        }
    }
}

/// Every value of every byte of the headers, of packets so short that no length is by chance right.
#[test]
fn glance_is_parse_whatever_a_byte_says() {
    for spec in [Spec::tcp(A4, B4), Spec::udp(A4, B4), Spec::tcp(A6, B6), Spec::udp(A6, B6)] {
        let frame = addressed(Spec { payload: b"12345678".to_vec(), padding: 20, ..spec }.build());
        assert!(glance(&frame).is_some());
        for at in 12..frame.len() {
            for value in 0..=u8::MAX {
                let mut changed = frame.clone();
                changed[at] = value;
                if changed[12..14] == [8, 0] && !(24..26).contains(&at) {
                    repair_ipv4(&mut changed);
                }
                assert_glance_is_parse(&changed);
            }
        }
    }
}

#[test]
fn frames_of_others_are_not_plain() {
    let frame = addressed(patched(&Spec::tcp(A4, B4), &[]));
    assert!(glance(&frame).is_some());
    for at in 0..6 {
        let mut other = frame.clone();
        other[at] ^= 0x10;
        assert!(glance(&other).is_none(), "to another");
    }
    let mut own = frame.clone();
    own[6..12].copy_from_slice(&LINK_MAC.0);
    assert!(glance(&own).is_none(), "from ourselves");
    let tagged = VlanTags { outer: None, inner: Some(5) };
    assert!(
        family(&frame, &Link::new(LINK_MAC, tagged, 1500, TENANT)).is_none(),
        "untagged where tags are due"
    );
}
