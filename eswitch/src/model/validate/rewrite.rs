//! Header edits of SWS rules: the legacy `set_*` actions and `modify_field`.

use super::actions::State;
use super::layers::{INNER, OUTER_IPV4, OUTER_IPV6, OUTER_L2, OUTER_L3, OUTER_L4, OUTER_TCP, done};
use super::{Options, invalid, unsupported};
use crate::model::action::{Action, Field, FieldRef, FieldSource, ModifyOp};
use crate::model::refusal::{Cause, Refusal};

/// One edit, after the walk's own actions have been sorted out.
pub(super) fn check(state: &mut State<'_, '_>, action: &Action<'_>, at: usize) -> Result<(), Refusal> {
    let commands = match *action {
        Action::SetTag { index, mask, .. } => set_tag(state, index, mask, at)?,
        Action::SetMeta { mask, .. } => set_meta(state, mask, at)?,
        Action::ModifyField { op, dst, src, width } => {
            before_encap(state, at)?;
            modify_field(state, op, dst, src, width, at)?
        }
        _ => legacy(state, action, at)?,
    };
    state.edit(commands);
    Ok(())
}

fn before_encap(state: &State<'_, '_>, at: usize) -> Result<(), Refusal> {
    if state.has(done::ENCAP) {
        return Err(invalid(
            Cause::Action(at),
            "header edits cannot follow an encapsulation: put them before",
        ));
    }
    Ok(())
}

/// `set_*`, `dec_ttl` and TCP's; tells how many modify commands.
fn legacy(state: &mut State<'_, '_>, action: &Action<'_>, at: usize) -> Result<u32, Refusal> {
    before_encap(state, at)?;
    let (layer, missing, commands) = match action {
        Action::SetMacSrc(_) | Action::SetMacDst(_) => (OUTER_L2, "needs an eth item in the pattern", 2),
        Action::SetIpv4Src(_) | Action::SetIpv4Dst(_) | Action::SetIpv4Dscp(_) => (OUTER_IPV4, NO_IPV4, 1),
        Action::SetIpv6Dscp(_) => (OUTER_IPV6, NO_IPV6, 1),
        Action::SetIpv6Src(_) | Action::SetIpv6Dst(_) => (OUTER_IPV6, NO_IPV6, 4),
        Action::SetTpSrc(_) | Action::SetTpDst(_) => (OUTER_L4, "needs a tcp or udp item in the pattern", 1),
        Action::SetTtl(_) | Action::DecTtl => (OUTER_L3, "needs an ipv4 or ipv6 item in the pattern", 1),
        Action::AddTcpSeq(_) | Action::AddTcpAck(_) => (OUTER_TCP, "needs a tcp item in the pattern", 1),
        _ => return Err(unsupported(Cause::Action(at), "this action is not supported")),
    };
    // Either side of a tunnel will do for these; for the others, the side that is outermost by then.
    let either = matches!(
        action,
        Action::SetMacSrc(_) | Action::SetMacDst(_) | Action::SetIpv4Dscp(_) | Action::SetIpv6Dscp(_)
    );
    let wanted = match (either, state.has(done::DECAP)) {
        (true, _) => layer | layer << INNER,
        (false, true) => layer << INNER,
        (false, false) => layer,
    };
    if state.walk.seen & wanted == 0 {
        return Err(invalid(Cause::Action(at), missing));
    }
    match *action {
        Action::SetIpv6Src(_) | Action::SetIpv6Dst(_) if state.walk.seen & super::layers::ICMP6 != 0 => {
            Err(unsupported(Cause::Action(at), "the addresses of ICMPv6 cannot be rewritten"))
        }
        Action::AddTcpSeq(by) => direction(state, by, done::INC_SEQ, done::DEC_SEQ, at),
        Action::AddTcpAck(by) => direction(state, by, done::INC_ACK, done::DEC_ACK, at),
        _ => Ok(commands),
    }
}

const NO_IPV4: &str = "needs an ipv4 item in the pattern";
const NO_IPV6: &str = "needs an ipv6 item in the pattern";

/// TCP's numbers go one way only.
fn direction(state: &mut State<'_, '_>, by: i64, up: u32, down: u32, at: usize) -> Result<u32, Refusal> {
    let (this, other) = if by < 0 { (down, up) } else { (up, down) };
    if state.has(other) {
        return Err(invalid(Cause::Action(at), "one number cannot go up and down in one rule"));
    }
    state.done |= this;
    Ok(1)
}

fn set_tag(state: &State<'_, '_>, index: u8, mask: u32, at: usize) -> Result<u32, Refusal> {
    if mask == 0 {
        return Err(invalid(Cause::Action(at), "a mask of 0 changes nothing"));
    }
    if index >= state.request.context.limits.tags_software {
        return Err(no_tag(at));
    }
    if !state.request.attr.transfer && state.has(done::DROP | done::QUEUE | done::RSS) {
        return Err(invalid(Cause::Action(at), "set_tag has no effect after a fate"));
    }
    Ok(1)
}

/// mlx5 blames an item for this (`RTE_FLOW_ERROR_TYPE_ITEM`); the action is the one at fault.
fn no_tag(at: usize) -> Refusal {
    invalid(Cause::Action(at), "there is no tag register of this index")
}

fn set_meta(state: &State<'_, '_>, mask: u32, at: usize) -> Result<u32, Refusal> {
    let options = &state.request.context.options;
    if options.xmeta == 0 && state.request.attr.transfer {
        return Err(unsupported(Cause::Action(at), "META needs dv_xmeta_en=1 or 2 in transfer rules"));
    }
    if mask == 0 {
        return Err(invalid(Cause::Action(at), "a mask of 0 changes nothing"));
    }
    if mask & !options.meta_mask() != 0 {
        return Err(invalid(Cause::Action(at), "META has 16 bits with dv_xmeta_en=1"));
    }
    Ok(1)
}

/// Bits of a field; 0 for one that is not known.
pub(super) fn field_width(options: &Options, field: Field) -> u32 {
    match field {
        Field::MacDst | Field::MacSrc => 48,
        Field::VlanId => 12,
        Field::VlanType
        | Field::MacType
        | Field::TcpPortSrc
        | Field::TcpPortDst
        | Field::UdpPortSrc
        | Field::UdpPortDst => 16,
        Field::Ipv4Dscp | Field::Ipv6Dscp => 6,
        Field::Ipv4Ttl | Field::Ipv6HopLimit => 8,
        Field::Start | Field::Ipv4Src | Field::Ipv4Dst | Field::TcpSeqNum | Field::TcpAckNum | Field::Tag => {
            32
        }
        Field::Ipv6Src | Field::Ipv6Dst => 128,
        Field::TcpFlags => 9,
        Field::VxlanVni | Field::GeneveVni => 24,
        Field::Mark => options.mark_mask().count_ones(),
        Field::Meta => options.meta_mask().count_ones(),
        Field::Ipv4Ecn | Field::Ipv6Ecn | Field::MeterColour => 2,
        Field::Other(_) => 0,
    }
}

fn modify_field(
    state: &State<'_, '_>,
    op: ModifyOp,
    dst: FieldRef,
    src: Option<FieldSource>,
    width: u32,
    at: usize,
) -> Result<u32, Refusal> {
    let options = &state.request.context.options;
    let source = match src {
        None => return Err(super::actions::no_configuration(Cause::ActionConf(at))),
        Some(FieldSource::Value(_)) => None,
        Some(FieldSource::Field(source)) => Some(source),
    };
    if matches!(dst.field, Field::Other(_))
        || source.is_some_and(|source| matches!(source.field, Field::Other(_)))
    {
        return Err(unsupported(Cause::Action(at), "modify_field does not know this field"));
    }
    let room = field_width(options, dst.field);
    let given = source.map_or(room, |source| field_width(options, source.field));
    if width == 0 {
        return Err(invalid(Cause::Action(at), "modify_field of no bits"));
    }
    if width > room || width > given {
        return Err(invalid(Cause::Action(at), "modify_field of more bits than the field has"));
    }
    place(dst, width, room, at)?;
    if let Some(source) = source {
        if op != ModifyOp::Set {
            return Err(unsupported(Cause::ActionConf(at), "only a value can be added, not another field"));
        }
        if state.request.root {
            return Err(unsupported(Cause::Action(at), "fields cannot be copied in a root table"));
        }
        place(source, width, given, at)?;
        if (source.field, source.level) == (dst.field, dst.level) {
            return Err(invalid(Cause::Action(at), "a field cannot be copied to itself"));
        }
    }
    usable(state, dst, source, at)?;
    if op == ModifyOp::Sub {
        return Err(unsupported(Cause::Action(at), "modify_field cannot subtract: add the complement"));
    }
    Ok(width.div_ceil(32))
}

fn place(place: FieldRef, width: u32, room: u32, at: usize) -> Result<(), Refusal> {
    if place.offset.saturating_add(width) > room {
        return Err(invalid(Cause::Action(at), "modify_field goes beyond the field's end"));
    }
    if place.level != 0 && place.field != Field::Tag {
        return Err(unsupported(Cause::Action(at), "modify_field reaches outermost headers only (level 0)"));
    }
    Ok(())
}

/// Which fields can be written or read at all.
fn usable(state: &State<'_, '_>, dst: FieldRef, source: Option<FieldRef>, at: usize) -> Result<(), Refusal> {
    let context = state.request.context;
    if dst.field == Field::Mark {
        return Err(invalid(Cause::Action(at), "modify_field cannot write MARK: use mark"));
    }
    for FieldRef { field, level, .. } in [Some(dst), source].into_iter().flatten() {
        match field {
            Field::Start | Field::VlanType | Field::VxlanVni | Field::GeneveVni => {
                return Err(unsupported(Cause::Action(at), "modify_field cannot touch this field"));
            }
            Field::Mark if context.options.xmeta == 0 => {
                return Err(unsupported(Cause::Action(at), "MARK can be read with dv_xmeta_en=1 or 2 only"));
            }
            Field::Meta if context.options.xmeta == 0 && state.request.attr.transfer => {
                return Err(unsupported(
                    Cause::Action(at),
                    "META needs dv_xmeta_en=1 or 2 in transfer rules",
                ));
            }
            Field::Tag if level >= u32::from(context.limits.tags_software) => return Err(no_tag(at)),
            _ => {}
        }
    }
    Ok(())
}
