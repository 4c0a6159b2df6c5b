//! Rewriting: every changed packet is, byte for byte, the packet that would have been built that way.

use crate::frames;
use crate::frames::{Spec, Transport, assert_checksums, damaged, error_about, ip, spec, v4, v6};
use dataplane::addr::{Ip, MacAddr};
use dataplane::drops::DropReason;
use dataplane::ids::{PortId, TenantId};
use dataplane::packet::{PacketBuf, TestPacket};
use dataplane::rewrite::{
    End, Forward, IcmpError, ORIGINATED_L3, Station, decrement_ttl, into_arp_reply, into_echo_reply,
    into_icmp_error, into_neighbour_advertisement, into_tcp_reset, set_link, translate, translate_quoted,
    write_arp_request, write_gratuitous_arp, write_neighbour_solicitation, write_unsolicited_advertisement,
};
use dataplane::snapshot::VlanTags;
use dataplane::wire::plain::{Family, Link, V4, V6, family};
use dataplane::wire::{
    FragmentRole, IcmpMessage, Kind, Parsed, TcpFlags, arp, ether, icmp_message, nd, parse, parse_quoted, tcp,
};
use proptest::prelude::*;

const TENANT: TenantId = TenantId(7);
const A4: &str = "10.0.0.1";
const B4: &str = "192.0.2.1";
const R4: &str = "198.51.100.1";
const A6: &str = "2001:db8::1";
const B6: &str = "2001:db8:1::2";
const R6: &str = "2001:db8:2::3";
const OURS: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xaa]);
const THEIRS: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xbb]);
const UNTAGGED: VlanTags = VlanTags { outer: None, inner: None };
const TAGGED: VlanTags = VlanTags { outer: None, inner: Some(100) };
const DOUBLE: VlanTags = VlanTags { outer: Some(200), inner: Some(100) };

fn parsed(frame: &[u8]) -> Parsed {
    parse(frame, TENANT).expect("valid frame")
}

fn packet(frame: &[u8]) -> TestPacket {
    TestPacket::new(PortId(0), frame)
}

/// With one end changed.
fn with_end(spec: &Spec, end: End, ip: Ip, port: u16) -> Spec {
    match end {
        End::Source => Spec { src: ip, src_port: port, ..spec.clone() },
        End::Destination => Spec { dst: ip, dst_port: port, ..spec.clone() },
    }
}

/// A packet and another address of its family, an end and a port to change.
fn translation() -> impl Strategy<Value = (Spec, End, Ip, u16)> {
    translation_of(spec())
}

fn translation_of(spec: impl Strategy<Value = Spec>) -> impl Strategy<Value = (Spec, End, Ip, u16)> {
    let end = prop_oneof![Just(End::Source), Just(End::Destination)];
    (spec, end, v4(), v6(), any::<u16>())
        .prop_map(|(spec, end, a, b, port)| (spec.clone(), end, if spec.dst.is_v4() { a } else { b }, port))
}

proptest! {
    #[test]
    fn translation_is_building_anew((spec, end, ip, port) in translation()) {
        let mut frame = spec.build();
        let parsed = parsed(&frame);
        translate(&mut frame, &parsed, end, ip, port);
        prop_assert_eq!(&frame, &with_end(&spec, end, ip, port).build());
        assert_checksums(&frame, true);
    }

    #[test]
    fn translation_undoes_itself((spec, end, ip, port) in translation()) {
        let original = spec.build();
        let mut frame = original.clone();
        let parsed = parsed(&frame);
        let (old_ip, old_port) = match end {
            End::Source => (spec.src, spec.src_port),
            End::Destination => (spec.dst, spec.dst_port),
        };
        translate(&mut frame, &parsed, end, ip, port);
        translate(&mut frame, &parsed, end, old_ip, old_port);
        prop_assert_eq!(frame, original);
    }

    #[test]
    fn fragments_are_translated_as_one((spec, end, ip, port) in translation(), units in 8usize..20) {
        prop_assume!(spec.segment().len() > units * 8);
        let (mut first, mut later) = spec.build_fragments(units);
        for frame in [&mut first, &mut later] {
            let parsed = parsed(frame);
            translate(frame, &parsed, end, ip, port);
            assert_checksums(frame, false);
        }
        prop_assert_eq!((first, later), with_end(&spec, end, ip, port).build_fragments(units));
    }

    /// A packet of the other family is not touched.
    #[test]
    fn translation_between_families_is_none(spec in spec(), a in v4(), b in v6()) {
        let original = spec.build();
        let mut frame = original.clone();
        let parsed = parsed(&frame);
        translate(&mut frame, &parsed, End::Source, if spec.dst.is_v4() { b } else { a }, 1);
        prop_assert_eq!(frame, original);
    }

    #[test]
    fn hops_are_counted_down(spec in spec()) {
        let mut frame = spec.build();
        let parsed = parsed(&frame);
        decrement_ttl(&mut frame, &parsed);
        prop_assert_eq!(frame, Spec { ttl: spec.ttl - 1, ..spec }.build());
    }

    /// An error about a packet translated is the error about the translated packet, wherever the
    /// quote is cut, and whether it comes from the packet's end or from a router on its way.
    #[test]
    fn errors_are_translated_inside_and_out(
        (spec, end, ip, port) in translation(),
        keep in 8usize..300,
        from_router in any::<bool>(),
    ) {
        // A checksum that is cut in half cannot be updated.
        prop_assume!(keep != 17 || !matches!(spec.transport, Transport::Tcp { .. }));
        let spec = Spec { tags: UNTAGGED, padding: 0, ..spec };
        let router = if spec.dst.is_v4() { self::ip(R4) } else { self::ip(R6) };
        let build = |spec: &Spec| {
            let inner = spec.build();
            let network_len = inner.len() - 14 - spec.segment().len();
            let quote = &inner[14..inner.len().min(14 + network_len + keep)];
            let error = error_about(spec, quote);
            let src = if from_router { router } else { error.src };
            Spec { src, ..error }.build()
        };
        let mut frame = build(&spec);
        let parsed = parsed(&frame);
        let quoted = parse_quoted(&frame, &parsed).expect("quote");
        translate_quoted(&mut frame, &parsed, &quoted, end, ip, port);
        prop_assert_eq!(&frame, &build(&with_end(&spec, end, ip, port)));
        assert_checksums(&frame, true);
    }

    #[test]
    fn links_grow_and_shrink(spec in spec(), to in prop_oneof![Just(UNTAGGED), Just(TAGGED), Just(DOUBLE)]) {
        let mut buf = packet(&spec.build());
        let parsed = parsed(buf.data());
        prop_assert_eq!(set_link(&mut buf, parsed.l3, THEIRS, OURS, to), Ok(()));
        let mut expected = Spec { tags: to, ..spec }.build();
        let ether_type = u16::from_be_bytes([expected[ether::len(to) - 2], expected[ether::len(to) - 1]]);
        ether::emit(&mut expected, THEIRS, OURS, to, ether_type).expect("fits");
        prop_assert_eq!(buf.data(), &expected[..]);
    }

    /// Whatever parses can be given to every operation; nothing panics, and nothing leaves a frame
    /// that does not parse where the operation said it succeeded.
    #[test]
    fn nothing_panics(frame in damaged(), big in any::<bool>()) {
        let Ok(parsed) = parse(&frame, TENANT) else { return Ok(()) };
        let from = if parsed.key.src.is_v4() { ip(R4) } else { ip(R6) };
        for end in [End::Source, End::Destination] {
            let mut frame = frame.clone();
            translate(&mut frame, &parsed, end, from, 9);
            decrement_ttl(&mut frame, &parsed);
            prop_assert!(parse(&frame, TENANT).is_ok());
        }
        let error = if big { IcmpError::PacketTooBig { mtu: 1280 } } else { IcmpError::TtlExceeded };
        let made = [
            made(&frame, |buf| into_icmp_error(buf, &parsed, error, from)),
            made(&frame, |buf| into_tcp_reset(buf, &parsed)),
            made(&frame, |buf| into_echo_reply(buf, &parsed)),
        ];
        for answer in made.into_iter().flatten() {
            prop_assert!(parse(answer.data(), TENANT).is_ok());
        }
        let _ = into_arp_reply(&mut packet(&frame), &parsed, OURS, DOUBLE);
    }

    #[test]
    fn pings_are_answered(spec in spec(), rest in any::<u32>()) {
        let (request, reply) = if spec.dst.is_v4() { (8, 0) } else { (128, 129) };
        let ping = Spec { transport: Transport::Icmp { kind: request, code: 0, rest }, ..spec };
        let pong = Spec {
            transport: Transport::Icmp { kind: reply, code: 0, rest },
            tags: TAGGED,
            src: ping.dst,
            dst: ping.src,
            ttl: 64,
            padding: 0,
            ..ping.clone()
        };
        let answer = made(&ping.build(), |buf| into_echo_reply(buf, &parsed(&ping.build()))).expect("answered");
        prop_assert_eq!(&answer.data()[18..], &pong.build()[18..]);
    }

    /// RFC 9293 §3.10.7.1, for every segment but a reset.
    #[test]
    fn resets_are_those_of_a_closed_port(spec in spec()) {
        let Transport::Tcp { flags, seq, ack, .. } = spec.transport else { return Ok(()) };
        let frame = spec.build();
        let answer = made(&frame, |buf| into_tcp_reset(buf, &parsed(&frame)));
        if flags & 0x04 != 0 {
            prop_assert_eq!(answer, Err(DropReason::NoConnection));
            return Ok(());
        }
        let answer = answer.expect("answered");
        let reset = parsed(answer.data());
        prop_assert_eq!(reset.key, parsed(&frame).key.reversed());
        prop_assert_eq!(usize::from(reset.end), answer.data().len());
        let header = tcp::Header::new(reset.transport(answer.data())).expect("whole");
        let (syn, fin) = (u32::from(flags >> 1 & 1), u32::from(flags & 1));
        let len = spec.payload.len() as u32 + syn + fin;
        if flags & 0x10 != 0 {
            prop_assert_eq!((header.seq(), header.flags()), (ack, TcpFlags::RST));
        } else {
            let flags = TcpFlags::RST.with(TcpFlags::ACK);
            let expected = (0, seq.wrapping_add(len), flags);
            prop_assert_eq!((header.seq(), header.ack(), header.flags()), expected);
        }
    }

    /// RFC 1812 §4.3.2.3 and RFC 4443 §2.4 c: as much of the packet as fits, unchanged.
    #[test]
    fn errors_quote_what_they_may(spec in spec(), extra in 0usize..1000) {
        let payload = [&spec.payload[..], &vec![7; extra]].concat();
        let frame = Spec { payload, ..spec }.build();
        let offender = parsed(&frame);
        let (is_v4, mtu) = (spec.dst.is_v4(), 1400);
        let (from, max, header, error) = if is_v4 {
            (ip(R4), 576, 20, IcmpError::FragmentationNeeded { mtu })
        } else {
            (ip(R6), 1280, 40, IcmpError::PacketTooBig { mtu })
        };
        let answer = made(&frame, |buf| into_icmp_error(buf, &offender, error, from)).expect("allowed");
        let answer = answer.data();
        let parsed = parsed(answer);
        prop_assert_eq!((parsed.key.src, parsed.key.dst), (from, spec.src));
        prop_assert_eq!((parsed.ttl, parsed.fragment), (64, FragmentRole::Whole));
        prop_assert_eq!(usize::from(parsed.end), answer.len());
        let whole = &frame[usize::from(offender.l3)..usize::from(offender.end)];
        let quote = &whole[..whole.len().min(max - header - 8)];
        prop_assert_eq!(usize::from(parsed.packet_len()), header + 8 + quote.len());
        let message = parsed.transport(answer);
        prop_assert_eq!(&message[8..], quote);
        let expected = if is_v4 { [3, 4] } else { [2, 0] };
        prop_assert_eq!(&message[..2], &expected);
        prop_assert_eq!(&message[4..8], &1400u32.to_be_bytes());
        // The connection is recognised by what we quote.
        prop_assert_eq!(parse_quoted(answer, &parsed).expect("quote").key, offender.key);
    }
}

/// What an operation makes of a frame, link header written, checksums verified.
fn made(
    frame: &[u8],
    make: impl FnOnce(&mut TestPacket) -> Result<(), DropReason>,
) -> Result<TestPacket, DropReason> {
    let mut buf = packet(frame);
    make(&mut buf)?;
    set_link(&mut buf, ORIGINATED_L3, THEIRS, OURS, TAGGED)?;
    assert_checksums(buf.data(), true);
    Ok(buf)
}

/// An IPv4 UDP datagram without checksum keeps none, and a computed 0 is sent as 0xffff.
#[test]
fn udp_checksum_zero_is_none() {
    let none = Spec { transport: Transport::Udp { checksum: false }, ..Spec::udp(A4, B4) };
    let mut frame = none.build();
    let parse = parsed(&frame);
    translate(&mut frame, &parse, End::Destination, ip(R4), 5353);
    assert_eq!(&frame[40..42], &[0, 0]);

    // Find the port that makes the checksum 0 by trying them all.
    let some = Spec::udp(A4, B4);
    let zero = (0..=u16::MAX)
        .find(|&port| with_end(&some, End::Destination, ip(B4), port).build()[40..42] == [0xff, 0xff])
        .expect("one port does");
    let mut frame = some.build();
    let parse = parsed(&frame);
    translate(&mut frame, &parse, End::Destination, ip(B4), zero);
    assert_eq!(&frame[40..42], &[0xff, 0xff]);
    assert_checksums(&frame, true);
    translate(&mut frame, &parse, End::Destination, ip(B4), some.dst_port);
    assert_eq!(frame, some.build());
}

/// A packet with a wrong checksum stays wrong: nothing is recomputed.
#[test]
fn damage_stays_visible() {
    for spec in [Spec::tcp(A4, B4), Spec::udp(A6, B6)] {
        let mut frame = spec.build();
        let last = frame.len() - 1;
        frame[last] ^= 0x10;
        let parsed = parsed(&frame);
        let to = if spec.dst.is_v4() { ip(R4) } else { ip(R6) };
        translate(&mut frame, &parsed, End::Destination, to, 8080);
        let mut expected = with_end(&spec, End::Destination, to, 8080).build();
        expected[last] ^= 0x10;
        assert_eq!(frame, expected);
    }
}

/// Both directions by name, as the walk uses them.
#[test]
fn errors_reach_the_backend_and_the_client() {
    let (client, vip, backend, router) = (ip(A4), ip("203.0.113.80"), ip(B4), ip(R4));
    // The VIP sent to the client; a router there says "too big" to the VIP.
    let sent = Spec { src: vip, src_port: 80, dst: client, dst_port: 40_000, ..Spec::tcp(A4, A4) };
    let error = Spec { src: router, ..error_about(&sent, &sent.build()[14..14 + 28]) };
    let mut frame = error.build();
    let parse = parsed(&frame);
    let quoted = parse_quoted(&frame, &parse).expect("quote");
    assert!(!quoted.has_checksum);
    translate_quoted(&mut frame, &parse, &quoted, End::Source, backend, 8080);
    let parse = parsed(&frame);
    let quoted = parse_quoted(&frame, &parse).expect("quote");
    assert_eq!((parse.key.src, parse.key.dst), (router, backend));
    assert_eq!((quoted.key.src, quoted.key.src_port, quoted.key.dst), (backend, 8080, client));
    assert_eq!(&frame[42..42 + 20][12..16], &backend.low32().to_be_bytes());

    // The client sent to the VIP, hence we to the backend; the backend itself, or a router, objects.
    let sent = Spec { src: client, dst: backend, dst_port: 8080, ..Spec::udp(A4, A4) };
    for (objector, seen) in [(backend, vip), (router, router)] {
        let mut frame = Spec { src: objector, ..error_about(&sent, &sent.build()[14..]) }.build();
        let parse = parsed(&frame);
        let quoted = parse_quoted(&frame, &parse).expect("quote");
        assert!(quoted.has_checksum);
        translate_quoted(&mut frame, &parse, &quoted, End::Destination, vip, 80);
        let parse = parsed(&frame);
        let quoted = parse_quoted(&frame, &parse).expect("quote");
        assert_eq!((parse.key.src, parse.key.dst), (seen, client));
        assert_eq!((quoted.key.src, quoted.key.dst, quoted.key.dst_port), (client, vip, 80));
    }
}

#[test]
fn no_error_about_these() {
    let refused = |frame: &[u8], error, from: &str| {
        let parsed = parsed(frame);
        let mut buf = packet(frame);
        let result = into_icmp_error(&mut buf, &parsed, error, ip(from));
        assert_eq!((result, buf.data()), (Err(DropReason::IcmpUnhandled), frame));
    };
    let expired = IcmpError::TtlExceeded;
    let long = Spec { payload: vec![0; 100], ..Spec::udp(A4, B4) };
    refused(&long.build_fragments(4).1, expired, R4);
    refused(&error_about(&long, &long.build()[14..]).build(), expired, R4);
    refused(&Spec::icmp(A4, B4, 5, 0).build(), expired, R4);
    refused(&Spec::icmp(A6, B6, 137, 0).build(), expired, R6);
    refused(&Spec::icmp(A6, B6, 100, 0).build(), expired, R6);
    refused(&Spec::icmp("::", B6, 135, 0).build(), expired, R6);
    refused(&Spec::udp(A4, "224.0.0.251").build(), expired, R4);
    refused(&Spec::udp(A4, "255.255.255.255").build(), expired, R4);
    refused(&Spec::udp(A6, "ff02::fb").build(), expired, R6);
    let mut broadcast = long.build();
    broadcast[..6].fill(0xff);
    refused(&broadcast, expired, R4);
    refused(&long.build(), expired, R6);
    refused(&long.build(), IcmpError::PacketTooBig { mtu: 1300 }, R4);
    refused(&Spec::udp(A6, B6).build(), IcmpError::FragmentationNeeded { mtu: 1300 }, R6);
    // A first fragment and a ping do get one.
    let ping = Spec::icmp(A4, B4, 8, 0).build();
    for frame in [&long.build_fragments(4).0, &ping] {
        let unreachable = IcmpError::Unreachable { code: 1 };
        let answer = made(frame, |buf| into_icmp_error(buf, &parsed(frame), unreachable, ip(R4)));
        let answer = answer.expect("allowed");
        assert_eq!(parsed(answer.data()).transport(answer.data())[..2], [3, 1]);
        assert_eq!(answer.data()[19], 0xc0, "precedence");
    }
}

#[test]
fn only_pings_to_one_station_are_answered() {
    for frame in [
        Spec::icmp(A4, B4, 0, 0).build(),
        Spec::icmp(A4, "224.0.0.1", 8, 0).build(),
        Spec::icmp(A6, "ff02::1", 128, 0).build(),
        Spec::icmp("::", B6, 128, 0).build(),
        Spec::tcp(A4, B4).build(),
    ] {
        let answer = made(&frame, |buf| into_echo_reply(buf, &parsed(&frame)));
        assert_eq!(answer, Err(DropReason::IcmpUnhandled));
    }
}

/// The sum over the answer to a ping of zeros is zero, over which the checksum is 0xffff.
#[test]
fn a_ping_of_zeros_is_answered() {
    let ping = Spec { payload: vec![0; 9], ..Spec::icmp(A4, B4, 8, 0) }.build();
    let answer = made(&ping, |buf| into_echo_reply(buf, &parsed(&ping))).expect("answered");
    assert_eq!(parsed(answer.data()).transport(answer.data())[..4], [0, 0, 0xff, 0xff]);
}

#[test]
fn arp_is_asked_and_answered() {
    let asker = Station { mac: THEIRS, ip: ip(A4), vlan: DOUBLE };
    for (to, seen) in [(None, MacAddr::BROADCAST), (Some(OURS), OURS)] {
        let mut buf = packet(&[]);
        assert_eq!(write_arp_request(&mut buf, &asker, ip(B4), to), Ok(()));
        let parse = parsed(buf.data());
        let header = ether::Header::new(buf.data()).expect("whole");
        assert_eq!((header.dst(), header.src(), parse.vlan), (seen, THEIRS, DOUBLE));
        assert_eq!((parse.kind, parse.key.src, parse.key.dst), (Kind::Arp, ip(A4), ip(B4)));

        assert_eq!(into_arp_reply(&mut buf, &parse, OURS, TAGGED), Ok(()));
        let parse = parsed(buf.data());
        let header = ether::Header::new(buf.data()).expect("whole");
        assert_eq!((header.dst(), header.src(), parse.vlan), (THEIRS, OURS, TAGGED));
        let reply = arp::Packet::parse(parse.transport(buf.data())).expect("ARP");
        let expected = arp::Packet {
            operation: arp::Operation::Reply,
            sender_mac: OURS,
            sender: ip(B4),
            target_mac: THEIRS,
            target: ip(A4),
        };
        assert_eq!(reply, expected);
        assert_eq!(into_arp_reply(&mut buf, &parse, OURS, TAGGED), Err(DropReason::ArpMalformed));
    }
    let mut buf = packet(&[]);
    assert_eq!(write_gratuitous_arp(&mut buf, &asker), Ok(()));
    let parse = parsed(buf.data());
    assert_eq!((parse.key.src, parse.key.dst), (ip(A4), ip(A4)));
}

#[test]
fn neighbours_are_asked_and_answered() {
    let asker = Station { mac: THEIRS, ip: ip(A6), vlan: TAGGED };
    let group = (ip("ff02::1:ff00:2"), MacAddr([0x33, 0x33, 0xff, 0, 0, 2]));
    for (to, seen) in [(None, group), (Some(OURS), (ip(B6), OURS))] {
        let mut buf = packet(&[]);
        assert_eq!(write_neighbour_solicitation(&mut buf, &asker, ip(B6), to), Ok(()));
        assert_checksums(buf.data(), true);
        let parse = parsed(buf.data());
        let header = ether::Header::new(buf.data()).expect("whole");
        assert_eq!((parse.key.dst, header.dst(), header.src()), (seen.0, seen.1, THEIRS));
        let solicitation = nd::Solicitation { target: ip(B6), source_mac: Some(THEIRS) };
        let message = icmp_message(buf.data(), &parse);
        assert_eq!(message, Ok(IcmpMessage::NeighbourSolicitation(solicitation)));

        assert_eq!(into_neighbour_advertisement(&mut buf, &parse, &solicitation, OURS, DOUBLE), Ok(()));
        let solicited = nd::Advertisement {
            target: ip(B6),
            target_mac: Some(OURS),
            router: true,
            solicited: true,
            overrides: true,
        };
        assert_advertises(&buf, solicited, (ip(A6), THEIRS));
    }
}

/// Duplicate address detection is answered to everybody.
#[test]
fn the_nameless_are_answered_too() {
    let target = ip("2001:db8:1::2");
    let probe =
        Spec { ttl: 255, payload: target.octets().to_vec(), ..Spec::icmp("::", "ff02::1:ff00:2", 135, 0) };
    let mut buf = packet(&probe.build());
    let parse = parsed(buf.data());
    let Ok(IcmpMessage::NeighbourSolicitation(solicitation)) = icmp_message(buf.data(), &parse) else {
        panic!("no solicitation")
    };
    assert_eq!(into_neighbour_advertisement(&mut buf, &parse, &solicitation, OURS, DOUBLE), Ok(()));
    let advertisement =
        nd::Advertisement { target, target_mac: Some(OURS), router: true, solicited: false, overrides: true };
    let everybody = (ip("ff02::1"), MacAddr([0x33, 0x33, 0, 0, 0, 1]));
    assert_advertises(&buf, advertisement, everybody);

    let mut buf = packet(&[]);
    let station = Station { mac: OURS, ip: target, vlan: DOUBLE };
    assert_eq!(write_unsolicited_advertisement(&mut buf, &station), Ok(()));
    assert_advertises(&buf, advertisement, everybody);
}

#[track_caller]
fn assert_advertises(buf: &TestPacket, advertisement: nd::Advertisement, to: (Ip, MacAddr)) {
    assert_checksums(buf.data(), true);
    let parse = parsed(buf.data());
    let header = ether::Header::new(buf.data()).expect("whole");
    assert_eq!((parse.key.dst, header.dst()), to);
    assert_eq!((parse.key.src, parse.ttl, parse.vlan), (advertisement.target, 255, DOUBLE));
    let message = icmp_message(buf.data(), &parse);
    assert_eq!(message, Ok(IcmpMessage::NeighbourAdvertisement(advertisement)));
}

/// A buffer that is full at both ends.
struct Tight(Vec<u8>);

impl PacketBuf for Tight {
    fn port(&self) -> PortId {
        PortId(0)
    }
    fn set_port(&mut self, _: PortId) {}
    fn is_contiguous(&self) -> bool {
        true
    }
    fn data(&self) -> &[u8] {
        &self.0
    }
    fn data_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
    fn grow_front(&mut self, n: usize) -> bool {
        n == 0
    }
    fn trim_front(&mut self, n: usize) -> bool {
        let fits = n <= self.0.len();
        if fits {
            self.0.drain(..n);
        }
        fits
    }
    fn set_len(&mut self, len: usize) -> bool {
        let fits = len <= self.0.len();
        if fits {
            self.0.truncate(len);
        }
        fits
    }
}

#[test]
fn a_buffer_without_room_is_an_error() {
    let frame = Spec::tcp(A4, B4).build();
    let parsed = parsed(&frame);
    let no_room = Err(DropReason::NoHeadroom);
    let mut buf = Tight(frame.clone());
    assert_eq!(set_link(&mut buf, 14, THEIRS, OURS, TAGGED), no_room);
    assert_eq!(buf.0, frame, "unchanged");
    assert_eq!(set_link(&mut buf, 14, THEIRS, OURS, UNTAGGED), Ok(()));
    assert_eq!(into_icmp_error(&mut Tight(frame.clone()), &parsed, IcmpError::TtlExceeded, ip(R4)), no_room);
    let station = Station { mac: OURS, ip: ip(A4), vlan: UNTAGGED };
    assert_eq!(write_arp_request(&mut Tight(vec![]), &station, ip(B4), None), no_room);
    assert_eq!(write_neighbour_solicitation(&mut Tight(vec![]), &station, ip(B6), None), no_room);
}

/// A frame's MAC addresses are other than [`OURS`] and [`THEIRS`].
const NEXT: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xcc]);

/// What the shortcut makes of a frame; `None` if it is not for it.
fn expressed<A: Forward>(frame: &[u8], link: &Link, end: Option<(End, Ip, u16)>) -> Option<Vec<u8>> {
    let plain = A::glance(frame, link)?;
    let mut frame = frame.to_vec();
    A::forward(&mut frame, &plain, end, NEXT, OURS.to_word());
    Some(frame)
}

proptest! {
    /// The shortcut does what the functions that it stands for do one after the other.
    #[test]
    fn shortcut_is_the_long_way(
        (spec, end, ip, port) in translation_of(frames::plain()),
        changes in any::<bool>(),
    ) {
        let mut original = spec.build();
        original[..12].copy_from_slice(&[OURS.0, THEIRS.0].concat());
        let link = Link::new(OURS, UNTAGGED, 1500, TENANT);
        let change = changes.then_some((end, ip, port));
        let expressed = match family(&original, &link) {
            Some(Family::V4) => expressed::<V4>(&original, &link, change),
            Some(Family::V6) => expressed::<V6>(&original, &link, change),
            None => None,
        };
        prop_assume!(expressed.is_some());
        let mut packet = packet(&original);
        let parsed = parsed(packet.data());
        if changes {
            translate(packet.data_mut(), &parsed, end, ip, port);
        }
        decrement_ttl(packet.data_mut(), &parsed);
        set_link(&mut packet, parsed.l3, NEXT, OURS, UNTAGGED).expect("there is room");
        prop_assert_eq!(expressed.as_deref(), Some(packet.data()));
    }
}
