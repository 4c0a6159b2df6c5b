//! Longest-prefix match.
//!
//! Prefixes nest or are disjoint, so a set of them cuts the address space into ranges that each have
//! one answer. The table is those ranges' first addresses in order; a look-up is one binary search,
//! whatever the prefix lengths are. Tenants and both families share the table: the order is by tenant
//! first, and IPv4 has its own ranges inside IPv6's `::ffff:0:0/96`.

use super::{Hop, Route};
use crate::addr::{Ip, Prefix};
use crate::ids::{PortId, TenantId};

/// The routes of all tenants, flattened.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Routes {
    /// The first address of each range, in order.
    starts: Box<[(TenantId, u128)]>,
    /// What each range is routed to.
    targets: Box<[Option<Target>]>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Target {
    port: PortId,
    via: Option<Ip>,
}

/// A prefix in 128-bit form on its way into the table.
#[derive(Clone, Copy)]
struct Cut {
    tenant: TenantId,
    first: u128,
    last: u128,
    target: Option<Target>,
}

impl Routes {
    /// Flattens `routes`; of several routes to the same prefix the first counts.
    pub(super) fn new(routes: impl Iterator<Item = (TenantId, Route)>) -> Routes {
        let mut cuts = Vec::new();
        for (tenant, route) in routes {
            let (first, last) = bounds(&route.to);
            let target = Some(Target { port: route.port, via: route.via });
            // IPv6 routes, the default route above all, must not catch IPv4 in its mapped form.
            cuts.push(Cut { tenant, first: V4_FIRST, last: V4_LAST, target: None });
            cuts.push(Cut { tenant, first, last, target });
        }
        // Outer before inner. The sort is stable, and of equals the one to be kept must come first:
        // an IPv4 default route has the very bounds of the barrier against IPv6.
        cuts.sort_by_key(|cut| (cut.tenant, cut.first, core::cmp::Reverse(cut.last), cut.target.is_none()));
        cuts.dedup_by_key(|cut| (cut.tenant, cut.first, cut.last));
        flatten(&cuts)
    }

    /// The gateways of all routes, some of them more than once.
    pub(super) fn gateways(&self) -> impl Iterator<Item = Hop> {
        let via = |target: &Target| Some(Hop { port: target.port, next_hop: target.via? });
        self.targets.iter().flatten().filter_map(via)
    }

    /// The route of the longest prefix of `tenant` that contains `ip`.
    #[inline]
    pub(super) fn lookup(&self, tenant: TenantId, ip: Ip) -> Option<Hop> {
        let address = u128::from_be_bytes(ip.octets());
        let index = self.starts.partition_point(|&start| start <= (tenant, address)).checked_sub(1)?;
        if self.starts[index].0 != tenant {
            return None;
        }
        self.targets[index].map(|target| Hop { port: target.port, next_hop: target.via.unwrap_or(ip) })
    }
}

const V4_FIRST: u128 = 0xffff_0000_0000;
const V4_LAST: u128 = V4_FIRST | 0xffff_ffff;

/// The first and the last address of a prefix.
fn bounds(prefix: &Prefix) -> (u128, u128) {
    let bits = u32::from(prefix.length) + if prefix.address.is_v4() { 96 } else { 0 };
    let host = u128::MAX.checked_shr(bits).unwrap_or(0);
    let address = u128::from_be_bytes(prefix.address.octets());
    (address & !host, address | host)
}

/// Sweeps over nested cuts in order, outer before inner, keeping the open ones on a stack.
fn flatten(cuts: &[Cut]) -> Routes {
    let mut ranges: Vec<((TenantId, u128), Option<Target>)> = Vec::new();
    let mut open: Vec<Cut> = Vec::new();
    for cut in cuts {
        close_before(&mut open, &mut ranges, Some((cut.tenant, cut.first)));
        push(&mut ranges, (cut.tenant, cut.first), cut.target);
        open.push(*cut);
    }
    close_before(&mut open, &mut ranges, None);
    let (starts, targets): (Vec<_>, Vec<_>) = ranges.into_iter().unzip();
    Routes { starts: starts.into(), targets: targets.into() }
}

/// Closes the cuts that end before `limit`: behind each, its parent's answer holds again.
fn close_before(
    open: &mut Vec<Cut>,
    ranges: &mut Vec<((TenantId, u128), Option<Target>)>,
    limit: Option<(TenantId, u128)>,
) {
    let ends = |cut: &Cut| limit.is_none_or(|limit| (cut.tenant, cut.last) < limit);
    while let Some(cut) = open.last().copied().filter(ends) {
        open.pop();
        let parent = open.last().filter(|parent| parent.tenant == cut.tenant);
        if let Some(next) = cut.last.checked_add(1) {
            push(ranges, (cut.tenant, next), parent.and_then(|parent| parent.target));
        }
    }
}

/// Appends a range; one that would begin where the last one does replaces it.
fn push(
    ranges: &mut Vec<((TenantId, u128), Option<Target>)>,
    start: (TenantId, u128),
    target: Option<Target>,
) {
    match ranges.last_mut() {
        Some(last) if last.0 == start => last.1 = target,
        _ => ranges.push((start, target)),
    }
}
