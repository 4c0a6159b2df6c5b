//! `modify_field` becomes [`Action::ModifyField`].

use crate::model::action::{Action, Field, FieldRef, FieldSource, ModifyOp};
use crate::model::refusal::{Cause, Errno, Refusal};
use crate::pmd::ffi;

use super::Form;

/// Translates one `modify_field`. Values are as on the wire: registers, which the application writes as
/// numbers of its CPU, are turned here, as mlx5 does for the same three.
///
/// # Errors
/// EINVAL: an operation that is none; `POINTER` without a pointer in a rule.
///
/// # Safety
/// In a rule or a template, the `pvalue` of a source `POINTER` is null or points to the destination field's
/// bytes.
pub(super) unsafe fn translate<'a>(
    conf: ffi::rte_flow_action_modify_field,
    form: Form,
    index: usize,
) -> Result<Action<'a>, Refusal> {
    let op = match conf.operation {
        ffi::RTE_FLOW_MODIFY_SET => ModifyOp::Set,
        ffi::RTE_FLOW_MODIFY_ADD => ModifyOp::Add,
        ffi::RTE_FLOW_MODIFY_SUB => ModifyOp::Sub,
        _ => {
            return Err(Refusal::new(Errno::Inval, Cause::Action(index), "unknown modify_field operation"));
        }
    };
    let dst = reference(&conf.dst);
    let src = match conf.src.field {
        ffi::RTE_FLOW_FIELD_VALUE => {
            // SAFETY: of the union's members the one that `VALUE` selects; any bytes are legal.
            let value = unsafe { conf.src.__bindgen_anon_1.value };
            Some(FieldSource::Value(if form == Form::Mask { value } else { to_wire(dst.field, value) }))
        }
        ffi::RTE_FLOW_FIELD_POINTER => {
            // SAFETY: of the union's members the one that `POINTER` selects.
            let from = unsafe { conf.src.__bindgen_anon_1.pvalue }.cast_const().cast::<u8>();
            // SAFETY: the caller's promise.
            unsafe { pointed(from, dst.field, form, index) }?
        }
        _ => Some(FieldSource::Field(reference(&conf.src))),
    };
    Ok(Action::ModifyField { op, dst, src, width: conf.width })
}

/// The value behind a `POINTER`.
///
/// # Safety
/// `from` is null or points to as many bytes as `field` has; in a mask it may be anything.
unsafe fn pointed(
    from: *const u8,
    field: Field,
    form: Form,
    index: usize,
) -> Result<Option<FieldSource>, Refusal> {
    if form == Form::Mask {
        // Whether the value is the template's.
        return Ok(Some(FieldSource::Value(if from.is_null() { [0; 16] } else { [0xff; 16] })));
    }
    if from.is_null() {
        return match form {
            Form::Rule => {
                Err(Refusal::new(Errno::Inval, Cause::ActionConf(index), "modify_field pointer is NULL"))
            }
            _ => Ok(None),
        };
    }
    let mut value = [0; 16];
    let bytes = field_bytes(field);
    // SAFETY: not null, so `bytes` are there (the caller's promise), at most 16.
    value[..bytes].copy_from_slice(unsafe { std::slice::from_raw_parts(from, bytes) });
    Ok(Some(FieldSource::Value(to_wire(field, value))))
}

/// A place, with its level and offset. Meaningless, but no harm, for `VALUE` and `POINTER`.
fn reference(data: &ffi::rte_flow_action_modify_data) -> FieldRef {
    // SAFETY: two plain numbers; any bytes are legal, and the union is always 16 bytes long.
    let place = unsafe { data.__bindgen_anon_1.__bindgen_anon_1 };
    FieldRef { field: field(data.field), level: place.level, offset: place.offset }
}

/// Numbers in these registers are the CPU's.
fn to_wire(field: Field, mut value: [u8; 16]) -> [u8; 16] {
    if cfg!(target_endian = "little") && matches!(field, Field::Tag | Field::Meta | Field::MeterColour) {
        value[..4].reverse();
    }
    value
}

/// Bytes of a field as the application lays it out: those of its place in `rte_flow_item_*`.
const fn field_bytes(field: Field) -> usize {
    match field {
        Field::Start | Field::Other(_) => 0,
        Field::MacDst | Field::MacSrc => 6,
        Field::Ipv6Src | Field::Ipv6Dst => 16,
        Field::VlanType
        | Field::VlanId
        | Field::MacType
        | Field::TcpPortSrc
        | Field::TcpPortDst
        | Field::UdpPortSrc
        | Field::UdpPortDst => 2,
        Field::Ipv4Dscp
        | Field::Ipv6Dscp
        | Field::Ipv4Ttl
        | Field::Ipv6HopLimit
        | Field::Ipv4Ecn
        | Field::Ipv6Ecn
        | Field::TcpFlags => 1,
        Field::VxlanVni | Field::GeneveVni => 3,
        Field::Ipv4Src
        | Field::Ipv4Dst
        | Field::TcpSeqNum
        | Field::TcpAckNum
        | Field::Tag
        | Field::Mark
        | Field::Meta
        | Field::MeterColour => 4,
    }
}

/// `rte_flow_field_id`.
const fn field(id: ffi::rte_flow_field_id) -> Field {
    match id {
        ffi::RTE_FLOW_FIELD_START => Field::Start,
        ffi::RTE_FLOW_FIELD_MAC_DST => Field::MacDst,
        ffi::RTE_FLOW_FIELD_MAC_SRC => Field::MacSrc,
        ffi::RTE_FLOW_FIELD_VLAN_TYPE => Field::VlanType,
        ffi::RTE_FLOW_FIELD_VLAN_ID => Field::VlanId,
        ffi::RTE_FLOW_FIELD_MAC_TYPE => Field::MacType,
        ffi::RTE_FLOW_FIELD_IPV4_DSCP => Field::Ipv4Dscp,
        ffi::RTE_FLOW_FIELD_IPV4_TTL => Field::Ipv4Ttl,
        ffi::RTE_FLOW_FIELD_IPV4_SRC => Field::Ipv4Src,
        ffi::RTE_FLOW_FIELD_IPV4_DST => Field::Ipv4Dst,
        ffi::RTE_FLOW_FIELD_IPV6_DSCP => Field::Ipv6Dscp,
        ffi::RTE_FLOW_FIELD_IPV6_HOPLIMIT => Field::Ipv6HopLimit,
        ffi::RTE_FLOW_FIELD_IPV6_SRC => Field::Ipv6Src,
        ffi::RTE_FLOW_FIELD_IPV6_DST => Field::Ipv6Dst,
        ffi::RTE_FLOW_FIELD_TCP_PORT_SRC => Field::TcpPortSrc,
        ffi::RTE_FLOW_FIELD_TCP_PORT_DST => Field::TcpPortDst,
        ffi::RTE_FLOW_FIELD_TCP_SEQ_NUM => Field::TcpSeqNum,
        ffi::RTE_FLOW_FIELD_TCP_ACK_NUM => Field::TcpAckNum,
        ffi::RTE_FLOW_FIELD_TCP_FLAGS => Field::TcpFlags,
        ffi::RTE_FLOW_FIELD_UDP_PORT_SRC => Field::UdpPortSrc,
        ffi::RTE_FLOW_FIELD_UDP_PORT_DST => Field::UdpPortDst,
        ffi::RTE_FLOW_FIELD_VXLAN_VNI => Field::VxlanVni,
        ffi::RTE_FLOW_FIELD_GENEVE_VNI => Field::GeneveVni,
        ffi::RTE_FLOW_FIELD_TAG => Field::Tag,
        ffi::RTE_FLOW_FIELD_MARK => Field::Mark,
        ffi::RTE_FLOW_FIELD_META => Field::Meta,
        ffi::RTE_FLOW_FIELD_IPV4_ECN => Field::Ipv4Ecn,
        ffi::RTE_FLOW_FIELD_IPV6_ECN => Field::Ipv6Ecn,
        ffi::RTE_FLOW_FIELD_METER_COLOR => Field::MeterColour,
        other => Field::Other(other),
    }
}
