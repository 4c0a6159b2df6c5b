//! SWS: `flow_dv_translate_item_*`.

use super::super::key::L3;
use super::place::{HEADER_MAX, Place, present};
use super::*;

const VLAN: u16 = 0x8100;
const QINQ: u16 = 0x88a8;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;

pub(super) fn lower(
    items: &[Item<'_>],
    topology: &Topology,
    implicit_source: Option<Vport>,
) -> Result<Match, Refusal> {
    let mut rule = Match::default();
    let mut walk = Walk::default();
    let mut source_said = false;
    for (index, item) in items.iter().enumerate() {
        match item {
            Item::Header(item) => header(&mut rule, &mut walk, index, item)?,
            Item::RepresentedPort { .. } | Item::PortRepresentor { .. } | Item::PortId { .. } => {
                source_said = true;
                source(&mut rule, index, item, topology, implicit_source)?;
            }
            _ => register(&mut rule, index, item)?,
        }
    }
    if let (Some(vport), false) = (implicit_source, source_said) {
        set_source(&mut rule, vport);
    }
    Ok(rule)
}

fn source(
    rule: &mut Match,
    index: usize,
    item: &Item<'_>,
    topology: &Topology,
    implicit_source: Option<Vport>,
) -> Result<(), Refusal> {
    let port_id = match *item {
        Item::RepresentedPort { port_id: None, .. } | Item::RepresentedPort { mask: 0, .. } => return Ok(()),
        // The id is looked at by validation only.
        Item::PortRepresentor { .. }
        | Item::RepresentedPort { port_id: Some(MANAGER_ID), .. }
        | Item::PortId { port_id: Some(u32::MAX), .. } => {
            set_manager(rule);
            return Ok(());
        }
        Item::RepresentedPort { port_id: Some(port_id), .. } => port_id,
        Item::PortId { port_id: Some(port_id), .. } => port_id as u16,
        _ => {
            implicit_source.into_iter().for_each(|vport| set_source(rule, vport));
            return Ok(());
        }
    };
    let unknown = Refusal::new(Errno::Inval, Cause::ItemSpec(index), "no port of this switch");
    set_source(rule, topology.vport_of(port_id).ok_or(unknown)?);
    Ok(())
}

fn register(rule: &mut Match, index: usize, item: &Item<'_>) -> Result<(), Refusal> {
    match *item {
        Item::Tag { index: tag, data, mask } => {
            let (word, shift) = tag_at(tag, index)?;
            set(rule, word, u64::from(mask) << shift, u64::from(data) << shift);
        }
        Item::Meta { data, mask } => set(rule, layout::META, u64::from(mask) << 32, u64::from(data) << 32),
        Item::Mark { id, mask } => set(rule, layout::META, u64::from(mask), u64::from(id)),
        Item::MeterColour { colour, mask } => {
            let (colour, mask) = (u64::from(colour), u64::from(mask & 3));
            set(rule, layout::SHAPE, mask << layout::COLOUR_SHIFT, colour << layout::COLOUR_SHIFT);
        }
        _ => return Err(Refusal::new(Errno::Notsup, Cause::Item(index), "item not supported")),
    }
    Ok(())
}

/// A tag register's word and shift.
pub(super) fn tag_at(tag: u8, index: usize) -> Result<(usize, u32), Refusal> {
    if usize::from(tag) >= TAGS {
        return Err(Refusal::new(Errno::Inval, Cause::ItemSpec(index), "no such tag register"));
    }
    Ok((layout::TAG + usize::from(tag) / 2, if tag % 2 == 0 { 32 } else { 0 }))
}

fn header(rule: &mut Match, walk: &mut Walk, index: usize, header: &Header<'_>) -> Result<(), Refusal> {
    let at = walk.enter(header.layer, index)?;
    present(rule, header.layer, at);
    match header.layer {
        Layer::Vlan => tagged(rule, at),
        Layer::Ipv4 | Layer::Ipv6 => free(rule, at.base + layout::ETH_DST, 0xffff),
        _ => {}
    }
    let Some(spec) = header.spec else { return Ok(()) };
    let mut mask = copy(header.effective_mask());
    check(header, spec, &mask, index)?;
    match header.layer {
        Layer::Eth => ethernet(rule, at, spec, &mut mask, header.followed),
        Layer::Vlan => vlan(rule, at, spec, &mut mask, header.followed),
        Layer::Ipv4 => fragment(rule, at, spec, &mut mask),
        Layer::Ipv6 => {
            if let Some(fragment) = header.followed {
                at.shape(rule, stack::FRAGMENT, if fragment { stack::FRAGMENT } else { 0 });
            }
        }
        _ => {}
    }
    scatter(header.layer, &mask, &place::ALL, at, &mut rule.mask);
    scatter(header.layer, spec, &mask, at, &mut rule.value);
    Ok(())
}

/// A header's mask, with room for the longest header.
pub(super) fn copy(mask: &[u8]) -> [u8; HEADER_MAX] {
    let mut copy = [0; HEADER_MAX];
    copy.iter_mut().zip(mask).for_each(|(to, &from)| *to = from);
    copy
}

fn check(header: &Header<'_>, spec: &[u8], mask: &[u8], index: usize) -> Result<(), Refusal> {
    if spec.len() < header.layer.bytes() {
        return Err(Refusal::new(Errno::Inval, Cause::ItemSpec(index), "header cut short"));
    }
    if masked_elsewhere(header.layer, mask) {
        return Err(Refusal::new(Errno::Notsup, Cause::ItemMask(index), "field not supported"));
    }
    let Some(last) = header.last else { return Ok(()) };
    let ranged = |at: &usize| header.layer != Layer::Ipv4 || !(6..8).contains(at);
    let differs = |at: usize| last.get(at).is_some_and(|last| (last ^ spec[at]) & mask[at] != 0);
    if (0..header.layer.bytes()).filter(ranged).any(differs) {
        return Err(Refusal::new(Errno::Notsup, Cause::ItemLast(index), "range not supported"));
    }
    Ok(())
}

fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

const FIRST_TAG: u64 = stack::TAGGED | stack::SERVICE;

/// A tag item: the first says that there is a customer tag, unless a service tag has been asked for. mlx5
/// refuses a second; here it says that there are two tags of any kind.
fn tagged(rule: &mut Match, at: Place) {
    if at.second_tag {
        at.shape(rule, stack::TAGGED2, stack::TAGGED2);
        free(rule, layout::SHAPE, stack::SERVICE << at.shift);
    } else if rule.value.words[layout::SHAPE] >> at.shift & stack::SERVICE == 0 {
        at.shape(rule, FIRST_TAG, stack::TAGGED);
    }
}

/// Takes the type's bits out of a header's mask: the caller deals with them.
fn take_type(mask: &mut [u8; HEADER_MAX], at: usize) -> u16 {
    let bits = be16(mask, at);
    mask[at..at + 2].fill(0);
    bits
}

fn set_type(rule: &mut Match, at: Place, ethertype: u16, mask: u16) {
    free(rule, at.base + layout::ETH_DST, 0xffff);
    set(rule, at.base + layout::ETH_DST, u64::from(mask), u64::from(ethertype));
}

/// IP's EtherTypes are matched as the IP version. Whether it was one.
fn set_ip_version(rule: &mut Match, at: Place, ethertype: u16) -> bool {
    let l3 = match ethertype {
        IPV4 => L3::Ipv4,
        IPV6 => L3::Ipv6,
        _ => return false,
    };
    at.shape(rule, stack::L3_MASK, layout::l3_bits(l3));
    free(rule, at.base + layout::ETH_DST, 0xffff);
    true
}

/// A full type mask says which tags there are: none, unless the type is a tag's.
fn ethernet(rule: &mut Match, at: Place, spec: &[u8], mask: &mut [u8; HEADER_MAX], has_vlan: Option<bool>) {
    let (ethertype, bits) = (be16(spec, 12), take_type(mask, 12));
    if bits == 0xffff {
        let tags = match ethertype {
            VLAN => stack::TAGGED,
            QINQ => FIRST_TAG,
            _ => 0,
        };
        at.shape(rule, FIRST_TAG, tags);
        if tags != 0 || set_ip_version(rule, at, ethertype) {
            return;
        }
    }
    if let Some(tagged) = has_vlan {
        at.shape(rule, FIRST_TAG, if tagged { stack::TAGGED } else { 0 });
    }
    if has_vlan != Some(true) {
        set_type(rule, at, ethertype, bits);
    }
}

fn vlan(rule: &mut Match, at: Place, spec: &[u8], mask: &mut [u8; HEADER_MAX], has_more: Option<bool>) {
    let (ethertype, bits) = (be16(spec, 2), take_type(mask, 2));
    let tag_follows = bits == 0xffff && ethertype == VLAN;
    if !tag_follows && bits == 0xffff && set_ip_version(rule, at, ethertype) {
        return;
    }
    if at.second_tag {
        return set_type(rule, at, ethertype, bits);
    }
    match has_more {
        _ if tag_follows => at.shape(rule, FIRST_TAG, FIRST_TAG),
        Some(true) => at.shape(rule, FIRST_TAG, FIRST_TAG),
        Some(false) | None => set_type(rule, at, ethertype, bits),
    }
}

/// Any mask over fragment bits asks whether the packet is a fragment.
fn fragment(rule: &mut Match, at: Place, spec: &[u8], mask: &mut [u8; HEADER_MAX]) {
    let bits = take_type(mask, 6);
    if bits != 0 {
        at.shape(rule, stack::FRAGMENT, if be16(spec, 6) & bits != 0 { stack::FRAGMENT } else { 0 });
    }
}
