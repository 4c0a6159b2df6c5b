//! `rte_flow_item[]` becomes [`Item`]s: borrowed, bounded, without a heap.
//!
//! What is checked here is only what must be known to read the list: its length, its pointers, and bits the
//! typed form has no place for. Whether the device likes the pattern is the validator's business.

use std::ffi::c_void;
use std::slice;

use arrayvec::ArrayVec;

use super::Form;
use crate::model::item::{Header, Item, Layer};
use crate::model::refusal::{Cause, Errno, Refusal};
use crate::pmd::ffi;

/// Items of a pattern at most; a device's parser sees far fewer headers.
pub(super) const ITEMS_MAX: usize = 32;

/// Elements of a list that are looked at in search of its end, `void` and all.
pub(super) const ELEMENTS_MAX: usize = 256;

/// A pattern, translated.
pub(super) type Items<'a> = ArrayVec<Item<'a>, ITEMS_MAX>;

/// Translates a pattern into `out`, whose contents are replaced. Indices of a refusal's cause count items,
/// not `void`s.
///
/// # Errors
/// EINVAL: no list, or an item that lacks what its kind needs. ENOTSUP: longer than [`ITEMS_MAX`], no end
/// within [`ELEMENTS_MAX`], or bits set that mean nothing here.
///
/// # Safety
/// `raw` is null, or points to a list as `rte_flow_validate` describes it: elements up to `END`, whose
/// `spec`, `last` and `mask` are null or point to the structure of the element's type. All of it stays put
/// and unchanged for `'a`.
pub(super) unsafe fn translate<'a>(
    raw: *const ffi::rte_flow_item,
    form: Form,
    out: &mut Items<'a>,
) -> Result<(), Refusal> {
    out.clear();
    if raw.is_null() {
        return Err(Refusal::new(Errno::Inval, Cause::ItemNum, "NULL pattern"));
    }
    for at in 0..ELEMENTS_MAX {
        // SAFETY: no element so far was the last, so this one exists (the caller's promise).
        let element = unsafe { &*raw.add(at) };
        match element.type_ {
            ffi::RTE_FLOW_ITEM_TYPE_END => return Ok(()),
            ffi::RTE_FLOW_ITEM_TYPE_VOID => continue,
            _ => {}
        }
        // SAFETY: the caller promises what the pointers point to.
        let item = unsafe { one(element, form, out.len()) }?;
        if out.try_push(item).is_err() {
            return Err(Refusal::new(Errno::Notsup, Cause::ItemNum, "too many items"));
        }
    }
    Err(Refusal::new(Errno::Notsup, Cause::ItemNum, "pattern without an end"))
}

/// The header that this item type is about.
const fn layer_of(kind: ffi::rte_flow_item_type) -> Option<Layer> {
    Some(match kind {
        ffi::RTE_FLOW_ITEM_TYPE_ETH => Layer::Eth,
        ffi::RTE_FLOW_ITEM_TYPE_VLAN => Layer::Vlan,
        ffi::RTE_FLOW_ITEM_TYPE_IPV4 => Layer::Ipv4,
        ffi::RTE_FLOW_ITEM_TYPE_IPV6 => Layer::Ipv6,
        ffi::RTE_FLOW_ITEM_TYPE_TCP => Layer::Tcp,
        ffi::RTE_FLOW_ITEM_TYPE_UDP => Layer::Udp,
        ffi::RTE_FLOW_ITEM_TYPE_ICMP => Layer::Icmp,
        ffi::RTE_FLOW_ITEM_TYPE_ICMP6 => Layer::Icmp6,
        ffi::RTE_FLOW_ITEM_TYPE_VXLAN => Layer::Vxlan,
        ffi::RTE_FLOW_ITEM_TYPE_GENEVE => Layer::Geneve,
        ffi::RTE_FLOW_ITEM_TYPE_GRE => Layer::Gre,
        ffi::RTE_FLOW_ITEM_TYPE_GRE_KEY => Layer::GreKey,
        _ => return None,
    })
}

/// One element. `index` is its place among the items.
///
/// # Safety
/// As for [`translate`].
unsafe fn one<'a>(element: &ffi::rte_flow_item, form: Form, index: usize) -> Result<Item<'a>, Refusal> {
    if form == Form::Rule && element.spec.is_null() && !(element.mask.is_null() && element.last.is_null()) {
        return Err(Refusal::new(
            Errno::Inval,
            Cause::Item(index),
            "mask/last without a spec is not supported",
        ));
    }
    if let Some(layer) = layer_of(element.type_) {
        // SAFETY: the caller's promise.
        return unsafe { header(element, layer, form, index) }.map(Item::Header);
    }
    // SAFETY: the caller's promise, for each kind the structure that `rte_flow.h` names.
    unsafe {
        match element.type_ {
            ffi::RTE_FLOW_ITEM_TYPE_REPRESENTED_PORT => {
                let (port_id, mask) = port(element, index)?;
                Ok(Item::RepresentedPort { port_id, mask })
            }
            ffi::RTE_FLOW_ITEM_TYPE_PORT_REPRESENTOR => {
                let (port_id, mask) = port(element, index)?;
                Ok(Item::PortRepresentor { port_id, mask })
            }
            ffi::RTE_FLOW_ITEM_TYPE_PORT_ID => {
                let register = register(element, Form::Rule, u32::MAX, index)?;
                let port_id = (!element.spec.is_null()).then_some(register.value);
                Ok(Item::PortId { port_id, mask: register.mask })
            }
            ffi::RTE_FLOW_ITEM_TYPE_TAG => tag(element, form, index),
            ffi::RTE_FLOW_ITEM_TYPE_META => {
                needs_spec(element, form, index)?;
                let Register { value: data, mask } = register(element, form, u32::MAX, index)?;
                Ok(Item::Meta { data, mask })
            }
            ffi::RTE_FLOW_ITEM_TYPE_MARK => {
                needs_spec(element, form, index)?;
                let Register { value: id, mask } = register(element, form, u32::MAX, index)?;
                Ok(Item::Mark { id, mask })
            }
            ffi::RTE_FLOW_ITEM_TYPE_METER_COLOR => {
                needs_spec(element, form, index)?;
                let Register { value, mask } = register(element, form, ffi::RTE_COLORS, index)?;
                // Colours are two bits; anything above must not be lost, lest it seem a colour.
                Ok(Item::MeterColour {
                    colour: value.min(u32::from(u8::MAX)) as u8,
                    mask: mask.min(u32::from(u8::MAX)) as u8,
                })
            }
            other => Ok(Item::Other(other as i32)),
        }
    }
}

/// A header's bytes, and the bit that stands behind them.
///
/// # Safety
/// As for [`translate`].
unsafe fn header<'a>(
    element: &ffi::rte_flow_item,
    layer: Layer,
    form: Form,
    index: usize,
) -> Result<Header<'a>, Refusal> {
    // SAFETY: the structures of these types begin with the header itself, `layer.bytes()` long and packed.
    let bytes = |at: *const c_void| unsafe {
        (!at.is_null()).then(|| slice::from_raw_parts(at.cast::<u8>(), layer.bytes()))
    };
    // SAFETY: the caller's promise.
    let followed = unsafe { followed(element, layer, form, index) }?;
    Ok(Header {
        layer,
        spec: bytes(element.spec),
        last: bytes(element.last),
        mask: bytes(element.mask),
        followed,
    })
}

/// `has_vlan`, `has_more_vlan`, `has_frag_ext`: [`Header::followed`].
///
/// # Safety
/// As for [`translate`].
unsafe fn followed(
    element: &ffi::rte_flow_item,
    layer: Layer,
    form: Form,
    index: usize,
) -> Result<Option<bool>, Refusal> {
    // Where in the structure the bits are, and which is ours.
    let (offset, bit) = match layer {
        Layer::Eth => (std::mem::offset_of!(ffi::rte_flow_item_eth, _bitfield_1), 1),
        Layer::Vlan => (std::mem::offset_of!(ffi::rte_flow_item_vlan, _bitfield_1), 1),
        Layer::Ipv6 => (std::mem::offset_of!(ffi::rte_flow_item_ipv6, _bitfield_1), 1 << 2),
        _ => return Ok(None),
    };
    // SAFETY: the offset is that of a 32-bit member of this item type's structure.
    let bits = |at: *const c_void| unsafe { at.cast::<u8>().add(offset).cast::<u32>().read_unaligned() };
    let set = |at: *const c_void| !at.is_null() && bits(at) & bit != 0;
    if form == Form::Insertion {
        // The template's mask tells whether it counts.
        return Ok((!element.spec.is_null()).then(|| set(element.spec)));
    }
    if element.mask.is_null() {
        return Ok(None);
    }
    let mask = bits(element.mask);
    if mask & !bit != 0 {
        return Err(Refusal::new(Errno::Notsup, Cause::Item(index), "mask enables non supported bits"));
    }
    Ok((mask != 0).then(|| set(element.spec)))
}

/// The ethdev and the mask of `represented_port` and `port_representor`.
///
/// # Safety
/// `element`'s pointers are null or point to `rte_flow_item_ethdev`s.
unsafe fn port(element: &ffi::rte_flow_item, index: usize) -> Result<(Option<u16>, u16), Refusal> {
    // SAFETY: the caller's promise.
    let read = |at: *const c_void| unsafe {
        (!at.is_null()).then(|| at.cast::<ffi::rte_flow_item_ethdev>().read_unaligned().port_id)
    };
    let (spec, mask) = (read(element.spec), read(element.mask).unwrap_or(u16::MAX));
    no_range(spec.map(u32::from), read(element.last).map(u32::from), u32::from(mask), index)?;
    Ok((spec, mask))
}

/// A 32-bit value and the bits of it that count.
struct Register {
    value: u32,
    mask: u32,
}

/// Reads the items whose structure is one `u32`.
///
/// # Safety
/// `element`'s pointers are null or point to a structure that begins with a `u32`.
unsafe fn register(
    element: &ffi::rte_flow_item,
    form: Form,
    default_mask: u32,
    index: usize,
) -> Result<Register, Refusal> {
    // SAFETY: the caller's promise.
    let read = |at: *const c_void| unsafe { (!at.is_null()).then(|| at.cast::<u32>().read_unaligned()) };
    let (spec, mask) = (read(element.spec), read(element.mask));
    // A template says with its masks what will count; one that it leaves out leaves everything out.
    let mask = mask.unwrap_or(if form == Form::Template { 0 } else { default_mask });
    no_range(spec, read(element.last), mask, index)?;
    Ok(Register { value: spec.unwrap_or(0), mask })
}

/// `tag`: a register with an index.
///
/// # Safety
/// `element`'s pointers are null or point to `rte_flow_item_tag`s.
unsafe fn tag<'a>(element: &ffi::rte_flow_item, form: Form, index: usize) -> Result<Item<'a>, Refusal> {
    if element.spec.is_null() {
        return Err(Refusal::new(Errno::Inval, Cause::ItemSpec(index), "data cannot be empty"));
    }
    // SAFETY: not null, so it points to an `rte_flow_item_tag` (the caller's promise).
    let spec = unsafe { element.spec.cast::<ffi::rte_flow_item_tag>().read_unaligned() };
    if form == Form::Rule && !element.mask.is_null() {
        // SAFETY: as above.
        let mask = unsafe { element.mask.cast::<ffi::rte_flow_item_tag>().read_unaligned() };
        if mask.index != u8::MAX {
            return Err(Refusal::new(
                Errno::Inval,
                Cause::ItemMask(index),
                "partial mask for tag index is not supported",
            ));
        }
    }
    // SAFETY: the structure begins with `data`.
    let Register { value: data, mask } = unsafe { register(element, form, u32::MAX, index) }?;
    Ok(Item::Tag { index: spec.index, data, mask })
}

/// Metadata items of a rule bring a value.
fn needs_spec(element: &ffi::rte_flow_item, form: Form, index: usize) -> Result<(), Refusal> {
    if form == Form::Rule && element.spec.is_null() {
        return Err(Refusal::new(Errno::Inval, Cause::ItemSpec(index), "data cannot be empty"));
    }
    Ok(())
}

/// Refuses a `last` that makes a range of something that is no number on the wire.
fn no_range(spec: Option<u32>, last: Option<u32>, mask: u32, index: usize) -> Result<(), Refusal> {
    match (spec, last) {
        (Some(spec), Some(last)) if (spec ^ last) & mask != 0 => {
            Err(Refusal::new(Errno::Inval, Cause::ItemLast(index), "range is not valid"))
        }
        _ => Ok(()),
    }
}
