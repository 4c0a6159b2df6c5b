//! What people read.

use super::*;

/// A 5-tuple with flags, as a load balancer writes it.
fn connection(spec: &mut ([u8; 20], [u8; 20]), mask: &mut ([u8; 20], [u8; 20])) {
    spec.0[12..].copy_from_slice(&[10, 0, 0, 1, 192, 0, 2, 2]);
    mask.0[12..].fill(0xff);
    spec.1[..4].copy_from_slice(&[4, 0, 0, 80]);
    mask.1[..4].fill(0xff);
    mask.1[13] = 7;
}

#[test]
fn a_connection_is_three_words_and_reads_as_testpmd() {
    let (mut spec, mut mask) = (([0; 20], [0; 20]), ([0; 20], [0; 20]));
    connection(&mut spec, &mut mask);
    let items = [
        Item::RepresentedPort { port_id: Some(11), mask: u16::MAX },
        bare(Layer::Eth),
        masked(Layer::Ipv4, &spec.0, &mask.0),
        masked(Layer::Tcp, &spec.1, &mask.1),
    ];
    let expected = "eth / ipv4 src is 10.0.0.1 dst is 192.0.2.2 \
                    / tcp src is 1024 dst is 80 flags spec 0x0 flags mask 0x7 / end";
    for lowered in [rule(&items), template(&items, false)] {
        assert_eq!(lowered.mask.words.iter().filter(|&&word| word != 0).count(), 3);
        assert_eq!(lowered.to_string(), format!("represented_port vport is 1 / {expected}"));
        let shown = lowered.with_ports(&topology()).to_string();
        assert_eq!(shown, format!("represented_port ethdev_port_id is 11 / {expected}"));
        assert!(lowered.matches(&key(&frame("ipv4 options"))) && !lowered.matches(&key(&frame("ipv4 udp"))));
    }
}

#[test]
fn every_kind_of_item_is_shown() {
    let (mut v6, mut v6_mask) = ([0; 40], [0; 40]);
    v6[8..10].copy_from_slice(&[0x20, 1]);
    v6_mask[8..12].fill(0xff);
    v6_mask[24..40].fill(0xff);
    let ip6 = masked(Layer::Ipv6, &v6, &v6_mask);
    let (eth, ip4) = (bare(Layer::Eth), bare(Layer::Ipv4));
    let vni = masked(Layer::Vxlan, &[0, 0, 0, 0, 0, 0, 42, 0], Layer::Vxlan.default_mask());
    let mac = masked(Layer::Eth, &[2, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0], &[0xff; 6]);
    let echo = masked(Layer::Icmp, &[8, 0, 0, 0, 0, 1, 0, 2], &[255, 0, 0, 0, 255, 255, 255, 255]);
    let (arp, mask) = (eth_type(0x0806), eth_type(0xffff));
    let cases: &[(&[Item<'_>], &str)] = &[
        (&[], "eth / end"),
        (&[masked(Layer::Eth, &arp, &mask)], "eth type is 0x806 has_vlan is 0 / end"),
        (
            &[eth, masked(Layer::Vlan, &[0, 7, 0, 0], &[0x0f, 255, 0, 0]), ip4],
            "eth / vlan tci spec 0x7 tci mask 0xfff has_more_vlan is 0 / ipv4 / end",
        ),
        (
            &[mac, ip6],
            "eth dst is 02:00:00:00:00:01 / ipv6 src spec 2001:: src mask ffff:ffff:: dst is :: / end",
        ),
        (&[eth, ip4, echo], "eth / ipv4 / icmp type is 8 ident is 1 seq is 2 / end"),
        (
            &[eth, ip4, bare(Layer::Udp), vni, eth, ip4, bare(Layer::Tcp)],
            "eth / ipv4 / udp / vxlan vni is 42 / eth / ipv4 / tcp / end",
        ),
        (
            &[eth, ip4, bare(Layer::Gre), bare(Layer::GreKey)],
            "eth / ipv4 / gre c_rsvd0_ver spec 0x2000 \
          c_rsvd0_ver mask 0x2000 / gre_key / end",
        ),
        (&[Item::PortRepresentor { port_id: None, mask: 0 }], "port_representor / eth / end"),
        (
            &[Item::Tag { index: 2, data: 5, mask: u32::MAX }, Item::Mark { id: 3, mask: u32::MAX }],
            "tag data is 0x5 index is 2 / mark id is 3 / eth / end",
        ),
    ];
    for (items, expected) in cases {
        assert_eq!(rule(items).to_string(), *expected);
    }
}
