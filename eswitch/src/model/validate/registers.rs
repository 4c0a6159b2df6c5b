//! Items that are no headers: the source, and registers.

use super::items::{Source, Walk};
use super::layers::PORT;
use super::{Request, invalid, unsupported};
use crate::model::item::Item;
use crate::model::refusal::{Cause, Refusal};

/// One of them, in a SWS rule.
pub(super) fn item(
    request: &Request<'_>,
    walk: &mut Walk<'_>,
    item: &Item<'_>,
    at: usize,
) -> Result<(), Refusal> {
    match *item {
        Item::RepresentedPort { port_id, mask } => {
            source(request, walk, at, mask == u16::MAX)?;
            walk.source = match port_id {
                None | Some(u16::MAX) => Source::Any,
                Some(port_id) => find(request, at, u32::from(port_id))?,
            };
        }
        Item::PortId { port_id, mask } => {
            source(request, walk, at, mask == u32::MAX)?;
            walk.source = match port_id {
                None | Some(u32::MAX) => Source::Any,
                Some(port_id) => find(request, at, port_id)?,
            };
        }
        Item::PortRepresentor { port_id, mask } => {
            source(request, walk, at, mask == u16::MAX)?;
            if let Some(port_id) = port_id.filter(|&port_id| port_id != u16::MAX) {
                find(request, at, u32::from(port_id))?;
            }
            walk.source = Source::Manager;
        }
        Item::Tag { index, mask, .. } => tag(request, walk, at, index, mask)?,
        Item::Meta { mask, .. } => meta(request, at, mask)?,
        Item::Mark { id, mask } => mark(request, at, id, mask)?,
        Item::MeterColour { colour, mask } => colour_item(at, colour, mask)?,
        Item::Header(_) => {}
        Item::Other(_) => return Err(unsupported(Cause::Item(at), "this item is not supported")),
    }
    Ok(())
}

/// What holds for every item that names a source.
fn source(request: &Request<'_>, walk: &mut Walk<'_>, at: usize, full: bool) -> Result<(), Refusal> {
    if !request.attr.transfer {
        return Err(invalid(Cause::Item(at), "a source port can be matched in transfer rules only"));
    }
    if walk.seen & PORT != 0 {
        return Err(unsupported(Cause::Item(at), "only one source port in a pattern"));
    }
    if !full {
        return Err(unsupported(
            Cause::ItemMask(at),
            "mask the port's id wholly: part of it cannot be matched",
        ));
    }
    walk.seen |= PORT;
    Ok(())
}

fn find(request: &Request<'_>, at: usize, port_id: u32) -> Result<Source, Refusal> {
    u16::try_from(port_id)
        .ok()
        .and_then(|port_id| request.context.topology.vport_of(port_id))
        .map(Source::Vport)
        .ok_or_else(|| invalid(Cause::ItemSpec(at), "this port is not one of this eSwitch's"))
}

fn zero_mask(at: usize) -> Refusal {
    invalid(Cause::ItemSpec(at), "a mask of 0 matches anything: leave the item out")
}

fn tag(request: &Request<'_>, walk: &mut Walk<'_>, at: usize, index: u8, mask: u32) -> Result<(), Refusal> {
    if mask == 0 {
        return Err(zero_mask(at));
    }
    if index >= request.context.limits.tags_software {
        return Err(invalid(Cause::Item(at), "there is no tag register of this index"));
    }
    let bit = 1_u32.checked_shl(u32::from(index)).unwrap_or(0);
    if walk.tags & bit != 0 {
        return Err(invalid(Cause::ItemSpec(at), "this tag is matched twice"));
    }
    walk.tags |= bit;
    Ok(())
}

fn meta(request: &Request<'_>, at: usize, mask: u32) -> Result<(), Refusal> {
    let options = &request.context.options;
    if options.xmeta == 0 {
        return Err(unsupported(Cause::Item(at), "META needs dv_xmeta_en=1 or 2"));
    }
    if mask == 0 {
        return Err(zero_mask(at));
    }
    if mask & !options.meta_mask() != 0 {
        return Err(unsupported(Cause::Item(at), "META has 16 bits with dv_xmeta_en=1"));
    }
    Ok(())
}

fn mark(request: &Request<'_>, at: usize, id: u32, mask: u32) -> Result<(), Refusal> {
    let options = &request.context.options;
    if !matches!(options.xmeta, 1 | 2) {
        return Err(unsupported(Cause::Item(at), "the item MARK needs dv_xmeta_en=1 or 2"));
    }
    if id >= MARK_MAX & options.mark_mask() {
        return Err(invalid(Cause::ItemSpec(at), "no mark is that large"));
    }
    if mask == 0 {
        return Err(zero_mask(at));
    }
    if mask & !options.mark_mask() != 0 {
        return Err(unsupported(Cause::Item(at), "MARK has 24 bits, and 16 with dv_xmeta_en=2"));
    }
    Ok(())
}

/// `MLX5_FLOW_MARK_MAX`: the first mark that cannot be given.
pub(super) const MARK_MAX: u32 = 0x00ff_fff0;

fn colour_item(at: usize, colour: u8, mask: u8) -> Result<(), Refusal> {
    if colour > 3 {
        return Err(invalid(Cause::ItemSpec(at), "colours are 0, 1 and 2: green, yellow, red"));
    }
    if mask == 0 {
        return Err(zero_mask(at));
    }
    if mask & !3 != 0 {
        return Err(unsupported(Cause::Item(at), "the mask covers more than a colour's two bits"));
    }
    Ok(())
}
