use super::frames::*;
use super::*;
use proptest::prelude::*;

fn named(name: &str) -> Vec<u8> {
    all().into_iter().find(|(kind, _)| *kind == name).unwrap().1
}

fn key(frame: &[u8]) -> Key {
    Key::extract(frame, &parse(frame), &Registers::from(Vport(3), false))
}

fn outer(name: &str) -> Stack {
    parse(&named(name)).outer
}

#[test]
fn ipv4_tcp_is_found_and_gathered_into_three_words() {
    let frame = named("ipv4 tcp");
    let headers = parse(&frame);
    let expected = Stack {
        has_l2: true,
        l3: L3::Ipv4,
        l3_at: 14,
        protocol: 6,
        l4: L4::Tcp,
        l4_at: 34,
        ..Stack::default()
    };
    assert_eq!(headers, Headers { outer: expected, tunnel: None, inner: Stack::default() });
    let key = key(&frame);
    assert_eq!(key.words[0] & 0xffff, 3);
    assert_eq!(key.words[1], 0x0400_0050_1006_3f2c);
    assert_eq!(key.words[2], 0x0a00_0001_c000_0202);
    assert_eq!(key.words[3..6], [0; 3]);
    assert_eq!(key.words[6], 0x0200_0000_000d_0800);
    assert_eq!(key.words[7], 0x0200_0000_0005_0000);
}

#[test]
fn options_and_extension_headers_are_walked_over() {
    assert_eq!(outer("ipv4 options").l4_at, 14 + 32);
    let stack = outer("ipv6 extensions udp");
    assert_eq!((stack.l4, stack.protocol, stack.l4_at), (L4::Udp, 17, 14 + 40 + 8 + 16));
}

#[test]
fn fragments_keep_their_protocol_but_show_no_ports() {
    let first = outer("ipv4 first fragment");
    assert_eq!((first.fragment, first.l4, first.l4_at), (Fragment::First, L4::Tcp, 34));
    let later = outer("ipv4 later fragment");
    assert_eq!((later.fragment, later.l4, later.protocol), (Fragment::Later, L4::None, 6));
    let later6 = outer("ipv6 later fragment");
    assert_eq!(
        (later6.fragment, later6.l4, later6.protocol, later6.l4_at),
        (Fragment::Later, L4::None, 6, 62)
    );
    for name in ["ipv4 first fragment", "ipv4 later fragment", "ipv6 later fragment"] {
        let key = key(&named(name));
        let shape = key.words[0] >> layout::OUTER_SHIFT;
        assert_eq!(key.words[1] >> 16, 6, "{name}: only the protocol");
        assert_eq!(
            shape & (layout::stack::FRAGMENT | 7 << layout::stack::L4_SHIFT),
            layout::stack::FRAGMENT,
            "{name}"
        );
    }
}

#[test]
fn an_ipv6_fragment_header_alone_makes_a_fragment() {
    let atomic = eth(0x86dd, &ipv6(44, &join(&[&[6, 0, 0, 0, 0, 0, 0, 7], &tcp()])));
    let stack = parse(&atomic).outer;
    assert_eq!((stack.fragment, stack.l4), (Fragment::First, L4::Tcp));
}

#[test]
fn two_tags_are_read_and_a_third_ends_parsing() {
    let stack = outer("qinq");
    assert_eq!((stack.vlans, stack.l3, stack.l3_at), (2, L3::Ipv4, 22));
    let key = key(&named("qinq"));
    assert_eq!(key.words[6] & 0xffff, 0x0800);
    assert_eq!((key.words[7] & 0xffff, key.words[8] >> 48), (7, 0x6123));
    let third = eth(0x8100, &vlan(1, 0x8100, &vlan(2, 0x8100, &vlan(3, 0x0800, &ipv4(6, 0, &[], &tcp())))));
    let stack = parse(&third).outer;
    assert_eq!((stack.vlans, stack.l3), (2, L3::None));
}

#[test]
fn tunnels_show_their_inner_stack() {
    for (name, kind, at, l2, l3_at, tunnel) in [
        ("vxlan", TunnelKind::Vxlan, 42, Some(50), 64, 0x0800_0000_0a0b_0c00),
        ("geneve", TunnelKind::Geneve, 42, Some(58), 72, 0x0200_6558_0a0b_0c00),
        ("gre ip", TunnelKind::Gre, 34, None, 38, 0x0000_0800_0000_0000),
        ("gre cks eth", TunnelKind::Gre, 34, Some(50), 64, 0xb000_6558_0a0b_0c0d),
    ] {
        let headers = parse(&named(name));
        assert_eq!(headers.tunnel, Some((kind, at)), "{name}");
        assert_eq!((headers.inner.has_l2, headers.inner.l2), (l2.is_some(), l2.unwrap_or(0)), "{name}");
        assert_eq!(
            (headers.inner.l3, headers.inner.l3_at, headers.inner.l4),
            (L3::Ipv4, l3_at, L4::Tcp),
            "{name}"
        );
        let key = key(&named(name));
        assert_eq!(key.words[layout::TUNNEL], tunnel, "{name}");
        assert_eq!(key.words[layout::INNER], 0x0400_0050_1006_3f2c, "{name}");
    }
}

#[test]
fn a_tunnel_within_a_fragment_is_not_looked_into() {
    let inner = eth(0x0800, &ipv4(6, 0, &[], &tcp()));
    let frame = eth(0x0800, &ipv4(17, 0x2000, &[], &udp(4789, &vxlan(&inner))));
    assert_eq!(parse(&frame).tunnel, None);
}

#[test]
fn registers_are_words_too() {
    let registers = Registers {
        tags: [1, 2, 3, 4, 5, 6, 7, 8],
        meta: 9,
        mark: Some(10),
        colour: Colour::Red,
        ..Registers::from(Vport(0x1234), true)
    };
    let key = Key::extract(&[], &parse(&[]), &registers);
    assert_eq!(key.words[0], 0x1234 | layout::MANAGER | 2 << layout::COLOUR_SHIFT);
    assert_eq!(key.words[9..14], [9 << 32 | 10, 1 << 32 | 2, 3 << 32 | 4, 5 << 32 | 6, 7 << 32 | 8]);
}

#[test]
fn what_is_cut_off_is_not_there() {
    for (name, frame) in all() {
        let whole = parse(&frame);
        for len in 0..frame.len() {
            let headers = parse(&frame[..len]);
            let (outer, inner) = (headers.outer, headers.inner);
            assert!(outer.vlans <= whole.outer.vlans, "{name} cut to {len}");
            assert!(outer.l3 == L3::None || outer.l3 == whole.outer.l3, "{name} cut to {len}");
            assert!(outer.l4 == L4::None || outer.l4 == whole.outer.l4, "{name} cut to {len}");
            assert!(inner.l4 == L4::None || inner.l4 == whole.inner.l4, "{name} cut to {len}");
            let ends = [outer.l2, outer.l3_at, outer.l4_at, inner.l2, inner.l3_at, inner.l4_at];
            assert!(ends.iter().all(|&end| usize::from(end) <= len), "{name} cut to {len}: {headers:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_bytes_are_parsed_and_extracted(frame in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = key(&frame);
    }

    #[test]
    fn any_damage_to_a_frame_is_survived(
        which in any::<prop::sample::Index>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let frames = all();
        let mut frame = which.get(&frames).1.clone();
        for (at, byte) in damage {
            let at = at.index(frame.len());
            frame[at] = byte;
        }
        frame.truncate(cut.index(frame.len() + 1));
        let _ = key(&frame);
    }

    /// Headers of one frame and bytes of another: as after a careless edit.
    #[test]
    fn extraction_believes_no_header(one in any::<prop::sample::Index>(), len in 0usize..120) {
        let frames = all();
        let headers = parse(&one.get(&frames).1);
        let _ = Key::extract(&vec![0xff; len], &headers, &Registers::from(Vport(0), false));
    }
}
