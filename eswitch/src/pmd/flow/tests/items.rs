//! Patterns.

use std::ffi::c_void;
use std::ptr;

use super::super::Form;
use super::super::items::{ELEMENTS_MAX, ITEMS_MAX, Items, translate};
use crate::model::item::{Header, Item, Layer};
use crate::model::refusal::{Cause, Errno, Refusal};
use crate::pmd::ffi;

/// An element; `None`s are null.
fn element<T>(
    kind: ffi::rte_flow_item_type,
    spec: Option<&T>,
    last: Option<&T>,
    mask: Option<&T>,
) -> ffi::rte_flow_item {
    let raw = |part: Option<&T>| part.map_or(ptr::null(), |part| ptr::from_ref(part).cast::<c_void>());
    ffi::rte_flow_item { type_: kind, spec: raw(spec), last: raw(last), mask: raw(mask) }
}

fn bare(kind: ffi::rte_flow_item_type) -> ffi::rte_flow_item {
    element::<u8>(kind, None, None, None)
}

const END: ffi::rte_flow_item_type = ffi::RTE_FLOW_ITEM_TYPE_END;
const VOID: ffi::rte_flow_item_type = ffi::RTE_FLOW_ITEM_TYPE_VOID;

fn run(list: &[ffi::rte_flow_item], form: Form) -> Result<Items<'_>, Refusal> {
    let mut items = Items::new();
    // SAFETY: the tests' lists end, or are as long as the translation looks.
    unsafe { translate(list.as_ptr(), form, &mut items) }.map(|()| items)
}

fn refused(list: &[ffi::rte_flow_item], form: Form) -> (Errno, Cause) {
    let refusal = run(list, form).expect_err("it is wrong");
    (refusal.errno, refusal.cause)
}

#[test]
fn headers_are_their_bytes() {
    let mut spec = ffi::rte_flow_item_ipv4::default();
    spec.hdr.src_addr = u32::from_ne_bytes([10, 0, 0, 1]);
    spec.hdr.next_proto_id = 6;
    let mut mask = ffi::rte_flow_item_ipv4::default();
    mask.hdr.src_addr = u32::MAX;
    let mut tcp = ffi::rte_flow_item_tcp::default();
    tcp.hdr.dst_port = 443_u16.to_be();
    let list = [
        bare(ffi::RTE_FLOW_ITEM_TYPE_ETH),
        bare(VOID),
        element(ffi::RTE_FLOW_ITEM_TYPE_IPV4, Some(&spec), None, Some(&mask)),
        element(ffi::RTE_FLOW_ITEM_TYPE_TCP, Some(&tcp), None, None),
        bare(END),
    ];
    let items = run(&list, Form::Rule).unwrap();
    assert_eq!(items.len(), 3);
    assert_eq!(items[0], Item::Header(Header::any(Layer::Eth)));
    let Item::Header(ip) = items[1] else { panic!("a header") };
    assert_eq!(ip.layer, Layer::Ipv4);
    assert_eq!(ip.spec.unwrap()[12..16], [10, 0, 0, 1]);
    assert_eq!(ip.spec.unwrap()[9], 6);
    assert_eq!(ip.mask.unwrap()[12..20], [255, 255, 255, 255, 0, 0, 0, 0]);
    let Item::Header(tcp) = items[2] else { panic!("a header") };
    assert_eq!((tcp.spec.unwrap().len(), tcp.spec.unwrap()[2..4].to_vec()), (20, vec![0x01, 0xbb]));
    assert_eq!((tcp.mask, tcp.last, tcp.followed), (None, None, None));
}

/// Every structure is at least as long as what is read of it.
#[test]
fn structures_hold_their_headers() {
    let sizes = [
        (Layer::Eth, size_of::<ffi::rte_flow_item_eth>()),
        (Layer::Vlan, size_of::<ffi::rte_flow_item_vlan>()),
        (Layer::Ipv4, size_of::<ffi::rte_flow_item_ipv4>()),
        (Layer::Ipv6, size_of::<ffi::rte_flow_item_ipv6>()),
        (Layer::Tcp, size_of::<ffi::rte_flow_item_tcp>()),
        (Layer::Udp, size_of::<ffi::rte_flow_item_udp>()),
        (Layer::Icmp, size_of::<ffi::rte_flow_item_icmp>()),
        (Layer::Icmp6, size_of::<ffi::rte_flow_item_icmp6>()),
        (Layer::Vxlan, size_of::<ffi::rte_flow_item_vxlan>()),
        (Layer::Geneve, size_of::<ffi::rte_flow_item_geneve>()),
        (Layer::Gre, size_of::<ffi::rte_flow_item_gre>()),
        (Layer::GreKey, size_of::<u32>()),
    ];
    for (layer, size) in sizes {
        assert!(size >= layer.bytes(), "{layer:?}");
    }
}

#[test]
fn what_follows_is_asked_by_the_mask() {
    let (mut spec, mut mask) = (ffi::rte_flow_item_eth::default(), ffi::rte_flow_item_eth::default());
    spec.set_has_vlan(1);
    let followed = |spec: &ffi::rte_flow_item_eth, mask: Option<&ffi::rte_flow_item_eth>, form| {
        let list = [element(ffi::RTE_FLOW_ITEM_TYPE_ETH, Some(spec), None, mask), bare(END)];
        let items = run(&list, form).unwrap();
        let Item::Header(header) = items[0] else { panic!("a header") };
        header.followed
    };
    assert_eq!(followed(&spec, Some(&mask), Form::Rule), None);
    assert_eq!(followed(&spec, None, Form::Rule), None);
    mask.set_has_vlan(1);
    assert_eq!(followed(&spec, Some(&mask), Form::Rule), Some(true));
    spec.set_has_vlan(0);
    assert_eq!(followed(&spec, Some(&mask), Form::Rule), Some(false));
    // A rule of a table has no mask of its own.
    assert_eq!(followed(&spec, None, Form::Insertion), Some(false));
    mask.set_reserved(1);
    let list = [element(ffi::RTE_FLOW_ITEM_TYPE_ETH, Some(&spec), None, Some(&mask)), bare(END)];
    assert_eq!(refused(&list, Form::Rule), (Errno::Notsup, Cause::Item(0)));

    let mut frag = ffi::rte_flow_item_ipv6::default();
    frag.set_has_frag_ext(1);
    let list = [element(ffi::RTE_FLOW_ITEM_TYPE_IPV6, Some(&frag), None, Some(&frag)), bare(END)];
    let items = run(&list, Form::Rule).unwrap();
    assert!(matches!(items[0], Item::Header(Header { followed: Some(true), .. })));
    frag.set_has_hop_ext(1);
    let list = [element(ffi::RTE_FLOW_ITEM_TYPE_IPV6, Some(&frag), None, Some(&frag)), bare(END)];
    assert_eq!(refused(&list, Form::Rule), (Errno::Notsup, Cause::Item(0)));
}

#[test]
fn ports_and_registers() {
    let port = ffi::rte_flow_item_ethdev { port_id: 3 };
    let partly = ffi::rte_flow_item_ethdev { port_id: 1 };
    let (old, old_mask) = (7_u32, u32::MAX);
    let tag = ffi::rte_flow_item_tag { data: 5, index: 2 };
    let colour = 1_u32;
    let list = [
        element(ffi::RTE_FLOW_ITEM_TYPE_REPRESENTED_PORT, Some(&port), None, None),
        element(ffi::RTE_FLOW_ITEM_TYPE_PORT_REPRESENTOR, Some(&port), None, Some(&partly)),
        bare(ffi::RTE_FLOW_ITEM_TYPE_REPRESENTED_PORT),
        element(ffi::RTE_FLOW_ITEM_TYPE_PORT_ID, Some(&old), None, Some(&old_mask)),
        element(ffi::RTE_FLOW_ITEM_TYPE_TAG, Some(&tag), None, None),
        element(ffi::RTE_FLOW_ITEM_TYPE_META, Some(&old), None, Some(&15_u32)),
        element(ffi::RTE_FLOW_ITEM_TYPE_MARK, Some(&old), None, None),
        element(ffi::RTE_FLOW_ITEM_TYPE_METER_COLOR, Some(&colour), None, None),
        bare(ffi::RTE_FLOW_ITEM_TYPE_GTP),
        bare(END),
    ];
    assert_eq!(
        run(&list, Form::Rule).unwrap()[..],
        [
            Item::RepresentedPort { port_id: Some(3), mask: u16::MAX },
            Item::PortRepresentor { port_id: Some(3), mask: 1 },
            Item::RepresentedPort { port_id: None, mask: u16::MAX },
            Item::PortId { port_id: Some(7), mask: u32::MAX },
            Item::Tag { index: 2, data: 5, mask: u32::MAX },
            Item::Meta { data: 7, mask: 15 },
            Item::Mark { id: 7, mask: u32::MAX },
            Item::MeterColour { colour: 1, mask: 3 },
            Item::Other(ffi::RTE_FLOW_ITEM_TYPE_GTP as i32),
        ]
    );
}

#[test]
fn half_items_are_refused_in_rules_only() {
    let mask = 15_u32;
    let list =
        [bare(ffi::RTE_FLOW_ITEM_TYPE_ETH), element(ffi::RTE_FLOW_ITEM_TYPE_META, None, None, Some(&mask))];
    let list = [list[0], bare(VOID), list[1], bare(END)];
    assert_eq!(refused(&list, Form::Rule), (Errno::Inval, Cause::Item(1)));
    assert_eq!(run(&list, Form::Template).unwrap()[1], Item::Meta { data: 0, mask: 15 });
    let list = [bare(ffi::RTE_FLOW_ITEM_TYPE_MARK), bare(END)];
    assert_eq!(refused(&list, Form::Rule), (Errno::Inval, Cause::ItemSpec(0)));
    assert_eq!(run(&list, Form::Template).unwrap()[0], Item::Mark { id: 0, mask: 0 });
    let (spec, last) = (1_u32, 2_u32);
    let list = [element(ffi::RTE_FLOW_ITEM_TYPE_META, Some(&spec), Some(&last), None), bare(END)];
    assert_eq!(refused(&list, Form::Rule), (Errno::Inval, Cause::ItemLast(0)));
    let list = [element(ffi::RTE_FLOW_ITEM_TYPE_META, Some(&spec), Some(&spec), None), bare(END)];
    assert!(run(&list, Form::Rule).is_ok());
}

#[test]
fn lengths_are_bounded() {
    let mut list = vec![bare(ffi::RTE_FLOW_ITEM_TYPE_ETH); ITEMS_MAX];
    list.push(bare(END));
    assert_eq!(run(&list, Form::Rule).unwrap().len(), ITEMS_MAX);
    list.insert(0, bare(ffi::RTE_FLOW_ITEM_TYPE_ETH));
    assert_eq!(refused(&list, Form::Rule), (Errno::Notsup, Cause::ItemNum));
    assert_eq!(refused(&vec![bare(VOID); ELEMENTS_MAX], Form::Rule), (Errno::Notsup, Cause::ItemNum));
    let mut items = Items::new();
    // SAFETY: null is legal.
    let nothing = unsafe { translate(ptr::null(), Form::Rule, &mut items) };
    assert_eq!(nothing.unwrap_err().cause, Cause::ItemNum);
}
