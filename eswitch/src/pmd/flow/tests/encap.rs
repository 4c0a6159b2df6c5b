//! `vxlan_encap`'s headers.

use std::ptr;

use super::super::encap::build;
use crate::pmd::ffi;

fn item<T>(kind: ffi::rte_flow_item_type, spec: &T) -> ffi::rte_flow_item {
    ffi::rte_flow_item { type_: kind, spec: ptr::from_ref(spec).cast(), ..Default::default() }
}

/// Builds a list to which `END` is added.
fn run(items: &[ffi::rte_flow_item]) -> Result<Vec<u8>, &'static str> {
    let mut list = items.to_vec();
    list.push(ffi::rte_flow_item::default());
    // SAFETY: the list ends, and every `spec` is of its item's type.
    unsafe { build(list.as_ptr()) }.map(|headers| headers.to_vec())
}

#[test]
fn zeroes_become_what_makes_a_vxlan_packet() {
    let eth = ffi::rte_flow_item_eth::default();
    let mut ip = ffi::rte_flow_item_ipv4::default();
    ip.hdr.dst_addr = u32::from_ne_bytes([192, 0, 2, 7]);
    let udp = ffi::rte_flow_item_udp::default();
    // VNI 0x112233.
    let vxlan: [u8; 8] = [0, 0, 0, 0, 0x11, 0x22, 0x33, 0];
    let bytes = run(&[
        item(ffi::RTE_FLOW_ITEM_TYPE_ETH, &eth),
        item(ffi::RTE_FLOW_ITEM_TYPE_IPV4, &ip),
        ffi::rte_flow_item { type_: ffi::RTE_FLOW_ITEM_TYPE_VOID, ..Default::default() },
        item(ffi::RTE_FLOW_ITEM_TYPE_UDP, &udp),
        item(ffi::RTE_FLOW_ITEM_TYPE_VXLAN, &vxlan),
    ])
    .unwrap();
    assert_eq!(bytes.len(), 50);
    assert_eq!(bytes[12..14], [0x08, 0x00]);
    assert_eq!((bytes[14], bytes[22], bytes[23]), (0x45, 64, 17));
    assert_eq!(bytes[30..34], [192, 0, 2, 7]);
    assert_eq!(bytes[36..38], [0x12, 0xb5]);
    assert_eq!(bytes[42..50], [0x08, 0, 0, 0, 0x11, 0x22, 0x33, 0]);
}

#[test]
fn what_is_set_stays() {
    let mut eth = ffi::rte_flow_item_eth::default();
    eth.__bindgen_anon_1.hdr.ether_type = 0x88a8_u16.to_be();
    let vlan = ffi::rte_flow_item_vlan::default();
    let mut ip = ffi::rte_flow_item_ipv6::default();
    ip.hdr.hop_limits = 3;
    let mut udp = ffi::rte_flow_item_udp::default();
    udp.hdr.dst_port = 5_u16.to_be();
    let bytes = run(&[
        item(ffi::RTE_FLOW_ITEM_TYPE_ETH, &eth),
        item(ffi::RTE_FLOW_ITEM_TYPE_VLAN, &vlan),
        item(ffi::RTE_FLOW_ITEM_TYPE_IPV6, &ip),
        item(ffi::RTE_FLOW_ITEM_TYPE_UDP, &udp),
        item(ffi::RTE_FLOW_ITEM_TYPE_VXLAN, &[0xff_u8; 8]),
    ])
    .unwrap();
    assert_eq!(bytes.len(), 14 + 4 + 40 + 8 + 8);
    assert_eq!((&bytes[12..14], &bytes[16..18]), (&[0x88, 0xa8][..], &[0x86, 0xdd][..]));
    assert_eq!((bytes[18], bytes[24], bytes[25]), (0x60, 17, 3));
    assert_eq!((&bytes[60..62], bytes[66]), (&[0, 5][..], 0xff));
}

#[test]
fn lists_that_make_no_packet() {
    let (eth, ip, udp) = (
        ffi::rte_flow_item_eth::default(),
        ffi::rte_flow_item_ipv6::default(),
        ffi::rte_flow_item_udp::default(),
    );
    let eth = item(ffi::RTE_FLOW_ITEM_TYPE_ETH, &eth);
    let ip = item(ffi::RTE_FLOW_ITEM_TYPE_IPV6, &ip);
    let udp = item(ffi::RTE_FLOW_ITEM_TYPE_UDP, &udp);
    let vxlan = item(ffi::RTE_FLOW_ITEM_TYPE_VXLAN, &[0_u8; 8]);
    let gre = item(ffi::RTE_FLOW_ITEM_TYPE_GRE, &[0_u8; 4]);
    assert_eq!(run(&[]), Err("invalid empty data"));
    assert_eq!(run(&[ip]), Err("neither eth nor vlan header found"));
    assert_eq!(run(&[eth, udp]), Err("ip header not found"));
    assert_eq!(run(&[eth, ip, vxlan]), Err("udp header not found"));
    assert_eq!(run(&[eth, ip, gre]), Err("next protocol not found"));
    assert_eq!(run(&[eth, ip, ip, ip, ip]), Err("items total size is too big for encap action"));
    let bare = ffi::rte_flow_item { type_: ffi::RTE_FLOW_ITEM_TYPE_ETH, ..Default::default() };
    assert_eq!(run(&[bare]), Err("encap header without a spec"));
    let other = ffi::rte_flow_item { type_: ffi::RTE_FLOW_ITEM_TYPE_TAG, ..Default::default() };
    assert_eq!(run(&[eth, other]), Err("unsupported item type"));
    // SAFETY: null is legal.
    assert_eq!(unsafe { build(ptr::null()) }.unwrap_err(), "invalid empty data");
}
