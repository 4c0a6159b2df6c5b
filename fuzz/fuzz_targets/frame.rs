//! Any frame: it is refused, or every operation leaves it as sound as it was.
//!
//! A fuzzer does not guess checksums, so those of an untagged IPv4 header and of ICMP messages are
//! made right before the frame is parsed; whether that happens is up to the input's first bit.

#![no_main]

use dataplane::addr::{Ip, MacAddr};
use dataplane::ids::{PortId, TenantId};
use dataplane::packet::{PacketBuf, TestPacket};
use dataplane::rewrite::{self, End, IcmpError, ORIGINATED_L3};
use dataplane::snapshot::VlanTags;
use dataplane::wire::checksum::Sum;
use dataplane::wire::{FragmentRole, IcmpMessage, Kind, Parsed, icmp_message, ipv4, parse};
use libfuzzer_sys::fuzz_target;

const TENANT: TenantId = TenantId(1);
const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const TAGS: VlanTags = VlanTags { outer: Some(7), inner: Some(8) };

fuzz_target!(|input: &[u8]| {
    let Some((&options, frame)) = input.split_first() else { return };
    let mut frame = frame.to_vec();
    if options & 1 != 0 {
        repair(&mut frame);
    }
    let Ok(parsed) = parse(&frame, TENANT) else { return };
    assert!(parsed.l3 <= parsed.l4 && parsed.l4 <= parsed.end);
    assert!(usize::from(parsed.end) <= frame.len());
    let other = if parsed.key.src.is_v4() { Ip::v4(0xc633_6401) } else { Ip::v6([0x20; 16]) };
    forward(&frame, &parsed, other, options);
    translate_error(&frame, &parsed, other, options);
    answer(&frame, &parsed, other, options);
});

/// Makes the checksum of an untagged IPv4 header right, and that of an ICMP or ICMPv6 message.
fn repair(frame: &mut [u8]) {
    let Some(len) = frame.get(14).map(|first| usize::from(first & 0x0f) * 4) else { return };
    if frame[12..14] == [8, 0] && len >= ipv4::LEN && frame.len() >= 14 + len {
        frame[24..26].fill(0);
        let checksum = Sum::default().bytes(&frame[14..14 + len]).finish();
        frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    }
    let Ok(parsed) = parse(frame, TENANT) else { return };
    if matches!(parsed.kind, Kind::Icmp | Kind::Icmpv6) {
        let at = usize::from(parsed.l4) + 2;
        frame[at..at + 2].fill(0);
        let checksum = transport_sum(frame, &parsed).finish();
        frame[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    }
}

fn transport_sum(frame: &[u8], parsed: &Parsed) -> Sum {
    let segment = parsed.transport(frame);
    let sum = match parsed.kind {
        Kind::Icmp => Sum::default(),
        _ => Sum::default().pseudo_header(parsed.key.src, parsed.key.dst, parsed.protocol, segment.len()),
    };
    sum.bytes(segment)
}

/// Whether the transport checksum is right; `None` where there is none to verify.
fn is_sound(frame: &[u8], parsed: &Parsed) -> Option<bool> {
    let segment = parsed.transport(frame);
    match parsed.kind {
        _ if parsed.fragment != FragmentRole::Whole => None,
        Kind::Arp | Kind::Fragment => None,
        // The checksum covers the datagram only, which the surplus area follows.
        Kind::Udp if u16::from_be_bytes([segment[4], segment[5]]) as usize != segment.len() => None,
        Kind::Udp if segment[6..8] == [0, 0] => None,
        _ => Some(transport_sum(frame, parsed).is_valid()),
    }
}

#[track_caller]
fn reparse(frame: &[u8]) -> Parsed {
    parse(frame, TENANT).expect("what was parsed and rewritten parses")
}

/// Translation and TTL as for a forwarded packet, then any link header.
fn forward(frame: &[u8], parsed: &Parsed, other: Ip, options: u8) {
    let end = if options & 2 != 0 { End::Source } else { End::Destination };
    let mut buf = TestPacket::new(PortId(0), frame);
    rewrite::translate(buf.data_mut(), parsed, end, other, 4242);
    rewrite::decrement_ttl(buf.data_mut(), parsed);
    let tags = if options & 4 != 0 { TAGS } else { VlanTags::default() };
    rewrite::set_link(&mut buf, parsed.l3, MAC, MAC, tags).expect("headroom");
    let after = reparse(buf.data());
    assert_eq!(is_sound(buf.data(), &after), is_sound(frame, parsed));
    assert_eq!((after.kind, after.vlan), (parsed.kind, tags));
    assert_eq!(after.ttl, parsed.ttl.saturating_sub(1));
    if parsed.kind != Kind::Arp {
        let translated = if end == End::Source { after.key.src } else { after.key.dst };
        assert_eq!(translated, other);
    }
}

fn translate_error(frame: &[u8], parsed: &Parsed, other: Ip, options: u8) {
    let Ok(IcmpMessage::Error(quoted)) = icmp_message(frame, parsed) else { return };
    let end = if options & 2 != 0 { End::Source } else { End::Destination };
    let mut frame = frame.to_vec();
    rewrite::translate_quoted(&mut frame, parsed, &quoted, end, other, 4242);
    let after = reparse(&frame);
    let Ok(IcmpMessage::Error(quoted)) = icmp_message(&frame, &after) else {
        panic!("a translated error is an error, its checksum right");
    };
    let translated = match end {
        End::Source => (quoted.key.src, quoted.key.src_port),
        End::Destination => (quoted.key.dst, quoted.key.dst_port),
    };
    assert_eq!(translated, (other, 4242));
}

/// Whatever we answer is a valid packet to whom the frame came from.
fn answer(frame: &[u8], parsed: &Parsed, from: Ip, options: u8) {
    let error = match options >> 3 & 3 {
        0 => IcmpError::TtlExceeded,
        1 => IcmpError::FragmentationNeeded { mtu: 1300 },
        2 => IcmpError::PacketTooBig { mtu: 1300 },
        _ => IcmpError::Unreachable { code: 1 },
    };
    let packet = || TestPacket::new(PortId(0), frame);
    let check = |mut buf: TestPacket| {
        rewrite::set_link(&mut buf, ORIGINATED_L3, MAC, MAC, TAGS).expect("headroom");
        let answer = reparse(buf.data());
        assert_eq!(answer.key.dst, parsed.key.src);
        assert_eq!(is_sound(buf.data(), &answer), Some(true));
    };
    let mut buf = packet();
    if rewrite::into_icmp_error(&mut buf, parsed, error, from).is_ok() {
        check(buf);
    }
    let mut buf = packet();
    if rewrite::into_tcp_reset(&mut buf, parsed).is_ok() {
        check(buf);
    }
    let mut buf = packet();
    let message = icmp_message(frame, parsed);
    if message == Ok(IcmpMessage::EchoRequest) && rewrite::into_echo_reply(&mut buf, parsed).is_ok() {
        check(buf);
    }
    let mut buf = packet();
    if rewrite::into_arp_reply(&mut buf, parsed, MAC, TAGS).is_ok() {
        assert_eq!(reparse(buf.data()).key.src, parsed.key.dst);
    }
    let mut buf = packet();
    if let Ok(IcmpMessage::NeighbourSolicitation(solicitation)) = message {
        rewrite::into_neighbour_advertisement(&mut buf, parsed, &solicitation, MAC, TAGS).expect("room");
        let answer = icmp_message(buf.data(), &reparse(buf.data()));
        assert!(matches!(answer, Ok(IcmpMessage::NeighbourAdvertisement(_))), "{answer:?}");
    }
}
