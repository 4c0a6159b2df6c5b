//! Frames for tests: each function puts a header before what follows it.

pub(in crate::model) const DST: [u8; 6] = [2, 0, 0, 0, 0, 0xd];
pub(in crate::model) const SRC: [u8; 6] = [2, 0, 0, 0, 0, 0x5];

pub(in crate::model) fn join(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

pub(in crate::model) fn eth(ethertype: u16, rest: &[u8]) -> Vec<u8> {
    join(&[&DST, &SRC, &ethertype.to_be_bytes(), rest])
}

/// Follows an EtherType that announces a tag.
pub(in crate::model) fn vlan(tci: u16, ethertype: u16, rest: &[u8]) -> Vec<u8> {
    join(&[&tci.to_be_bytes(), &ethertype.to_be_bytes(), rest])
}

/// 10.0.0.1 to 192.0.2.2, TTL 63, TOS 0x2c.
pub(in crate::model) fn ipv4(protocol: u8, fragment: u16, options: &[u8], rest: &[u8]) -> Vec<u8> {
    let words = 5 + options.len() / 4;
    let total = ((words * 4 + rest.len()) as u16).to_be_bytes();
    let fragment = fragment.to_be_bytes();
    let start = [0x40 | words as u8, 0x2c, total[0], total[1], 0, 1];
    let header = join(&[&start, &fragment, &[63, protocol, 0, 0, 10, 0, 0, 1, 192, 0, 2, 2]]);
    join(&[&header, options, rest])
}

/// 2001:db8::1 to 2001:db8::2, hop limit 62, traffic class 0x2c, flow label 0x12345.
pub(in crate::model) fn ipv6(protocol: u8, rest: &[u8]) -> Vec<u8> {
    let len = (rest.len() as u16).to_be_bytes();
    let address = |last| [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
    let start = [0x62, 0xc1, 0x23, 0x45, len[0], len[1], protocol, 62];
    join(&[&start, &address(1), &address(2), rest])
}

/// From port 1024 to port 80, sequence number 1, ACK.
pub(in crate::model) fn tcp() -> Vec<u8> {
    vec![4, 0, 0, 80, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 0x20, 0, 0x12, 0x34, 0, 0]
}

pub(in crate::model) fn udp(destination: u16, rest: &[u8]) -> Vec<u8> {
    let len = ((8 + rest.len()) as u16).to_be_bytes();
    join(&[&[4, 0], &destination.to_be_bytes(), &len, &[0, 0], rest])
}

/// An echo request, identifier 0x0102, sequence number 0x0304.
pub(in crate::model) fn icmp() -> Vec<u8> {
    vec![8, 0, 0xab, 0xcd, 1, 2, 3, 4]
}

pub(in crate::model) fn icmp6() -> Vec<u8> {
    vec![128, 0, 0xab, 0xcd, 1, 2, 3, 4]
}

/// VNI 0x0a0b0c.
pub(in crate::model) fn vxlan(rest: &[u8]) -> Vec<u8> {
    join(&[&[8, 0, 0, 0, 0x0a, 0x0b, 0x0c, 0], rest])
}

/// VNI 0x0a0b0c, two words of options.
pub(in crate::model) fn geneve(protocol: u16, rest: &[u8]) -> Vec<u8> {
    join(&[&[2, 0], &protocol.to_be_bytes(), &[0x0a, 0x0b, 0x0c, 0], &[1; 8], rest])
}

/// With a checksum, a key (0x0a0b0c0d) and a sequence number.
pub(in crate::model) fn gre_cks(protocol: u16, rest: &[u8]) -> Vec<u8> {
    let words = [0, 0, 0, 0, 0x0a, 0x0b, 0x0c, 0x0d, 0, 0, 0, 9];
    join(&[&[0xb0, 0], &protocol.to_be_bytes(), &words, rest])
}

pub(in crate::model) fn gre(protocol: u16, rest: &[u8]) -> Vec<u8> {
    join(&[&[0, 0], &protocol.to_be_bytes(), rest])
}

/// One of each kind that the parser knows.
pub(in crate::model) fn all() -> Vec<(&'static str, Vec<u8>)> {
    let tcp4 = ipv4(6, 0, &[], &tcp());
    let inner = eth(0x0800, &tcp4);
    let tagged = vlan(0x6123, 0x0800, &tcp4);
    let fragment6 = [6, 0, 0, 9, 0, 0, 0, 7];
    let extensions = join(&[&[60, 0, 1, 4, 0, 0, 0, 0], &[17, 1], &[0; 14], &udp(53, &[])]);
    vec![
        ("ipv4 tcp", inner.clone()),
        ("ipv4 udp", eth(0x0800, &ipv4(17, 0x4000, &[], &udp(53, b"abc")))),
        ("ipv4 icmp", eth(0x0800, &ipv4(1, 0, &[], &icmp()))),
        ("ipv4 options", eth(0x0800, &ipv4(6, 0, &[1; 12], &tcp()))),
        ("ipv4 first fragment", eth(0x0800, &ipv4(6, 0x2000, &[], &tcp()))),
        ("ipv4 later fragment", eth(0x0800, &ipv4(6, 3, &[], &tcp()))),
        ("ipv4 esp", eth(0x0800, &ipv4(50, 0, &[], &[7; 16]))),
        ("ipv6 tcp", eth(0x86dd, &ipv6(6, &tcp()))),
        ("ipv6 icmp6", eth(0x86dd, &ipv6(58, &icmp6()))),
        ("ipv6 extensions udp", eth(0x86dd, &ipv6(0, &extensions))),
        ("ipv6 later fragment", eth(0x86dd, &ipv6(44, &join(&[&fragment6, &tcp()])))),
        ("arp", eth(0x0806, &[0; 28])),
        ("vlan", eth(0x8100, &tagged)),
        ("qinq", eth(0x88a8, &vlan(7, 0x8100, &tagged))),
        ("vxlan", eth(0x0800, &ipv4(17, 0, &[], &udp(4789, &vxlan(&inner))))),
        ("vxlan ipv6 vlan", eth(0x86dd, &ipv6(17, &udp(4789, &vxlan(&eth(0x8100, &tagged)))))),
        ("geneve", eth(0x0800, &ipv4(17, 0, &[], &udp(6081, &geneve(0x6558, &inner))))),
        ("geneve ip", eth(0x0800, &ipv4(17, 0, &[], &udp(6081, &geneve(0x86dd, &ipv6(6, &tcp())))))),
        ("gre ip", eth(0x0800, &ipv4(47, 0, &[], &gre(0x0800, &tcp4)))),
        ("gre cks eth", eth(0x0800, &ipv4(47, 0, &[], &gre_cks(0x6558, &inner)))),
    ]
}
