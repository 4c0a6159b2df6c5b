//! A SWS rule's attributes.

use super::{Context, LOWEST_PRIORITY, invalid, unsupported};
use crate::model::refusal::{Cause, Refusal};
use crate::model::types::Attr;

/// Checks them in mlx5's order; tells whether the rule goes into a root table.
pub(super) fn check(context: &Context, attr: &Attr) -> Result<bool, Refusal> {
    let root = is_root(context, attr.transfer, attr.group)?;
    let lowest = if root { context.limits.max_priority_root } else { context.limits.max_priority };
    if attr.priority != LOWEST_PRIORITY && attr.priority > lowest {
        return Err(unsupported(
            Cause::Priority,
            "no such priority: 0 to 21843, in a root table (group 0 of ingress) 0 to 3",
        ));
    }
    if attr.transfer && !context.options.esw {
        return Err(unsupported(Cause::Unspecified, "transfer rules are switched off (dv_esw_en=0)"));
    }
    if u32::from(attr.ingress) + u32::from(attr.egress) + u32::from(attr.transfer) != 1 {
        return Err(invalid(Cause::Attr, "give exactly one of ingress, egress and transfer"));
    }
    if attr.egress {
        return Err(egress());
    }
    Ok(root)
}

/// Egress is not modelled; said wherever it turns up.
pub(super) fn egress() -> Refusal {
    unsupported(Cause::Egress, "egress rules are not modelled by this device: use transfer rules")
}

/// Whether a group is a root table. The default rule moves the groups of transfer up by one.
pub(super) fn is_root(context: &Context, transfer: bool, group: u32) -> Result<bool, Refusal> {
    if !(transfer && context.options.fdb_def_rule) {
        return Ok(group == 0);
    }
    if group == u32::MAX {
        return Err(invalid(Cause::Group, "the highest group number is not available to transfer rules"));
    }
    Ok(false)
}
