//! Tags and tunnels on and off.

use dataplane::ids::PortId;
use dataplane::packet::{PacketBuf, TestPacket};

use super::oracle::{Addresses, Spec, Transport, geneve, gre, verdicts, vxlan};
use super::{applied, compiled, registers};
use crate::model::action::Action;
use crate::model::key::parse;
use crate::model::switch::DropReason;

/// Everything in this packet up to the frame that it carries; lengths and checksums are wrong.
fn template(outer: &Spec) -> Vec<u8> {
    let mut bytes = vxlan(outer, 77, &[]).frame();
    let at = bytes.len() - 16;
    // Length and checksum of UDP; the device is to know better.
    bytes[at + 4..at + 8].fill(0xaa);
    if matches!(outer.addresses, Addresses::V4(..)) {
        let ip = at - 20;
        bytes[ip + 2..ip + 4].fill(0xbb);
        bytes[ip + 10..ip + 12].fill(0xcc);
    } else {
        let ip = at - 40;
        bytes[ip + 4..ip + 6].fill(0xdd);
    }
    bytes
}

fn outer() -> Spec {
    Spec { transport: Transport::Udp { sum: false }, ..Spec::udp() }
}

#[test]
fn encapsulation_fills_in_what_depends_on_the_frame() {
    let inner = Spec::tcp();
    let tagged = Spec { vlans: vec![5], ..outer() };
    for outer in [outer(), tagged, outer().v6(), Spec { tos: 1, ttl: 9, ..outer() }] {
        let encapsulated =
            applied(&[Action::VxlanEncap(&template(&outer))], &inner.frame()).expect("has room");
        let mut expected = vxlan(&outer, 77, &inner.frame());
        let at = usize::from(parse(&encapsulated).outer.l4_at);
        let source = u16::from_be_bytes([encapsulated[at], encapsulated[at + 1]]);
        assert!(source >= 0xc000, "the device chooses: {source}");
        expected.ports.0 = source;
        assert_eq!(encapsulated, expected.frame());
        assert_eq!(applied(&[Action::VxlanDecap], &encapsulated), Ok(inner.frame()));
    }
}

#[test]
fn a_source_port_is_the_flows() {
    let source = |spec: &Spec| {
        let frame = applied(&[Action::VxlanEncap(&template(&outer()))], &spec.frame()).expect("has room");
        u16::from_be_bytes([frame[34], frame[35]])
    };
    let other_payload = Spec { payload: vec![1, 2, 3], ttl: 3, ..Spec::tcp() };
    let other_flow = Spec { ports: (1025, 80), ..Spec::tcp() };
    assert_eq!(source(&Spec::tcp()), source(&other_payload));
    assert_ne!(source(&Spec::tcp()), source(&other_flow));
}

#[test]
fn unknown_tunnels_keep_their_source_port() {
    let mut bytes = template(&outer());
    let at = bytes.len() - 16;
    bytes[at + 2..at + 4].copy_from_slice(&[1, 1]);
    let frame = applied(&[Action::RawEncap(&bytes)], &Spec::tcp().frame()).expect("has room");
    assert_eq!(frame[at..at + 4], [0, 53, 1, 1]);
    assert_eq!(frame[at + 6..at + 8], [0, 0], "no checksum");
    assert_eq!(verdicts(&frame)[0], Some(true));
}

#[test]
fn every_tunnel_with_ethernet_inside_is_taken_off() {
    let inner = Spec { vlans: vec![3], ..Spec::udp() };
    let tunnels = [
        vxlan(&Spec { vlans: vec![9], ..outer() }, 1, &inner.frame()),
        geneve(&outer(), &inner.frame()),
        geneve(&outer().v6(), &inner.frame()),
        gre(&outer(), 0x6558, &inner.frame()),
    ];
    for tunnel in tunnels {
        assert_eq!(applied(&[Action::VxlanDecap], &tunnel.frame()), Ok(inner.frame()));
        assert_eq!(applied(&[Action::RawDecap(&[0; 50])], &tunnel.frame()), Ok(inner.frame()));
    }
    let without = [inner.frame(), gre(&outer(), 0x0800, &Spec::tcp().packet()).frame()];
    for frame in without {
        assert_eq!(applied(&[Action::VxlanDecap], &frame), Err(DropReason::Malformed));
    }
}

#[test]
fn a_tunnel_becomes_another() {
    let inner = Spec { ttl: 9, ..Spec::tcp() };
    let headers = template(&outer());
    let actions = [Action::RawDecap(&[0; 50]), Action::SetTtl(9), Action::RawEncap(&headers)];
    let frame = applied(&actions, &geneve(&outer(), &Spec::tcp().frame()).frame()).expect("has room");
    assert_eq!(frame, applied(&actions[2..], &inner.frame()).expect("has room"));
}

#[test]
fn layer_3_tunnels() {
    let (inner, ethernet) = (Spec { vlans: vec![8], ..Spec::tcp() }, [7; 6]);
    let bare = Spec { vlans: vec![], dst: ethernet, src: ethernet, ..inner.clone() };
    let l2 = &bare.frame()[..14];
    let off = [Action::RawDecap(&[0; 42]), Action::RawEncap(l2), Action::SetTtl(9)];
    let expected = Spec { ttl: 9, ..bare.clone() }.frame();
    assert_eq!(applied(&off, &gre(&outer(), 0x0800, &inner.packet()).frame()), Ok(expected.clone()));
    // The inner Ethernet header goes as well.
    assert_eq!(applied(&off, &vxlan(&outer(), 1, &inner.frame()).frame()), Ok(expected));
    assert_eq!(applied(&off, &inner.frame()), Err(DropReason::Malformed));

    let mut header = gre(&outer(), 0x0800, &[]).frame();
    header[16..18].fill(0x11);
    header[24..26].fill(0x11);
    let on = [Action::RawDecap(l2), Action::SetTtl(9), Action::RawEncap(&header)];
    let expected = gre(&outer(), 0x0800, &Spec { ttl: 9, ..inner.clone() }.packet()).frame();
    assert_eq!(applied(&on, &inner.frame()), Ok(expected));
    assert_eq!(applied(&on[..1], &inner.frame()), Err(DropReason::Malformed), "no tunnel to take off");
    // IP in IP, under hardware steering: an Ethernet and an IPv4 header are all there is.
    let mut header = outer().frame()[..34].to_vec();
    header[23] = 4;
    let in_ip = applied(&[on[0], Action::RawEncap(&header)], &inner.frame()).expect("has room");
    assert_eq!((in_ip[..14].to_vec(), in_ip[34..].to_vec()), (header[..14].to_vec(), inner.packet()));
    assert_eq!(usize::from(u16::from_be_bytes([in_ip[16], in_ip[17]])), in_ip.len() - 14);
    let arp = [&[0xff; 12][..], &[8, 6], &[0; 28]].concat();
    assert_eq!(applied(&[on[0], on[2]], &arp), Err(DropReason::Malformed), "no network layer to put inside");
}

#[test]
fn tags() {
    let with = |vlans: &[u16]| Spec { vlans: vlans.to_vec(), ..Spec::tcp() }.frame();
    let push = [Action::PushVlan(0x88a8), Action::SetVlanVid(9), Action::SetVlanPcp(5)];
    assert_eq!(applied(&push, &with(&[3])), Ok(with(&[0xa009, 3])));
    let push = [Action::PushVlan(0x8100), Action::SetVlanVid(9)];
    assert_eq!(applied(&push, &with(&[])), Ok(with(&[9])));
    assert_eq!(applied(&[Action::PopVlan], &with(&[3])), Ok(with(&[])));
    assert_eq!(applied(&[Action::PopVlan], &with(&[4, 3])), Ok(with(&[3])));
    assert_eq!(applied(&[Action::PopVlan; 2], &with(&[4, 3])), Ok(with(&[])));
    assert_eq!(applied(&[Action::PopVlan], &with(&[])), Err(DropReason::Malformed));
    // Before a push, the packet's own tag is meant.
    let own = [Action::SetVlanVid(8), Action::PushVlan(0x88a8), Action::SetVlanVid(9)];
    assert_eq!(applied(&own, &with(&[3])), Ok(with(&[9, 8])));
    let swapped = [Action::PopVlan, Action::PushVlan(0x8100), Action::SetVlanVid(7), Action::DecTtl];
    let expected = Spec { vlans: vec![7], ttl: 63, ..Spec::tcp() }.frame();
    assert_eq!(applied(&swapped, &with(&[3])), Ok(expected));
}

#[test]
fn headroom_is_finite() {
    let frame = Spec::tcp().frame();
    let bytes = [0x55; 132];
    assert_eq!(applied(&[Action::RawEncap(&bytes)], &frame), Err(DropReason::Headroom));
    let mut packet = TestPacket::new(PortId(0), &frame);
    assert!(packet.grow_front(126));
    let mut headers = parse(packet.data());
    let edits = compiled(&[Action::PushVlan(0x8100)]).edits;
    assert_eq!(edits.apply(&mut packet, &mut headers, &mut registers()), Err(DropReason::Headroom));
}

#[test]
fn headers_are_kept_right() {
    let tunnel = template(&outer());
    let actions = [Action::PushVlan(0x8100), Action::DecTtl, Action::VxlanEncap(&tunnel)];
    let mut packet = TestPacket::new(PortId(0), &Spec::udp().frame());
    let mut headers = parse(packet.data());
    let changed = compiled(&actions).edits.apply(&mut packet, &mut headers, &mut registers());
    assert_eq!(changed, Ok(true));
    assert_eq!(headers, parse(packet.data()));
    assert!(headers.tunnel.is_some());
    let nothing = compiled(&[Action::Count]).edits;
    assert_eq!(nothing.apply(&mut packet, &mut headers, &mut registers()), Ok(false));
}
