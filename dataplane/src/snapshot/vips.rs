//! From (tenant, address, protocol, port) to something: one hash look-up, then a binary search among
//! the address's port ranges.

use crate::addr::Ip;
use crate::flow::Protocol;
use crate::ids::TenantId;
use core::ops::RangeInclusive;
use foldhash::fast::FixedState;
use hashbrown::HashMap;

/// A range of ports of an address, on its way into an [`Endpoints`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Endpoint<T> {
    pub(super) tenant: TenantId,
    pub(super) ip: Ip,
    pub(super) protocol: Protocol,
    pub(super) ports: RangeInclusive<u16>,
    pub(super) value: T,
}

/// A map from transport endpoints to `T`.
///
/// The hash is not seeded: keys come from the configuration, so nobody can crowd the map from outside.
#[derive(Clone, Debug)]
pub(super) struct Endpoints<T> {
    addresses: HashMap<(TenantId, Ip), Span, FixedState>,
    ranges: Box<[PortRange<T>]>,
}

/// A slice of `ranges`.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: u32,
    end: u32,
}

#[derive(Clone, Copy, Debug)]
struct PortRange<T> {
    protocol: Protocol,
    first: u16,
    last: u16,
    value: T,
}

impl<T: Copy> Endpoints<T> {
    /// Builds the map; `Err` has the values of two endpoints that overlap.
    pub(super) fn new(mut endpoints: Vec<Endpoint<T>>) -> Result<Endpoints<T>, (T, T)> {
        endpoints.sort_by_key(|end| (end.tenant, end.ip, end.protocol, *end.ports.start()));
        let scope = |end: &Endpoint<T>| (end.tenant, end.ip, end.protocol);
        for pair in endpoints.windows(2) {
            if scope(&pair[0]) == scope(&pair[1]) && pair[0].ports.end() >= pair[1].ports.start() {
                return Err((pair[0].value, pair[1].value));
            }
        }
        Ok(Endpoints::index(&endpoints))
    }

    /// Builds the map without the endpoints that overlap another one.
    pub(super) fn unambiguous(mut endpoints: Vec<Endpoint<T>>) -> Endpoints<T> {
        endpoints.sort_by_key(|end| (end.tenant, end.ip, end.protocol, *end.ports.start()));
        let mut overlaps = vec![false; endpoints.len()];
        // Of those so far in a group, the one that reaches farthest: whoever overlaps any overlaps it.
        let mut farthest = 0;
        for index in 1..endpoints.len() {
            let (before, this) = (&endpoints[farthest], &endpoints[index]);
            let scope = |end: &Endpoint<T>| (end.tenant, end.ip, end.protocol);
            let same_scope = scope(before) == scope(this);
            if same_scope && before.ports.end() >= this.ports.start() {
                (overlaps[farthest], overlaps[index]) = (true, true);
            }
            if !same_scope || this.ports.end() > before.ports.end() {
                farthest = index;
            }
        }
        let mut overlaps = overlaps.into_iter();
        endpoints.retain(|_| overlaps.next() == Some(false));
        Endpoints::index(&endpoints)
    }

    /// Indexes endpoints that are sorted and do not overlap.
    fn index(endpoints: &[Endpoint<T>]) -> Endpoints<T> {
        let mut addresses = HashMap::with_hasher(FixedState::default());
        let mut ranges: Vec<PortRange<T>> = Vec::with_capacity(endpoints.len());
        for group in endpoints.chunk_by(|a, b| (a.tenant, a.ip) == (b.tenant, b.ip)) {
            let start = ranges.len() as u32;
            ranges.extend(group.iter().map(|end| PortRange {
                protocol: end.protocol,
                first: *end.ports.start(),
                last: *end.ports.end(),
                value: end.value,
            }));
            let span = Span { start, end: ranges.len() as u32 };
            addresses.insert((group[0].tenant, group[0].ip), span);
        }
        Endpoints { addresses, ranges: ranges.into() }
    }

    /// The value of the range that has this endpoint.
    #[inline]
    pub(super) fn get(&self, tenant: TenantId, ip: Ip, protocol: Protocol, port: u16) -> Option<T> {
        let span = self.addresses.get(&(tenant, ip))?;
        let ranges = &self.ranges[span.start as usize..span.end as usize];
        let index = ranges.partition_point(|range| (range.protocol, range.first) <= (protocol, port));
        let range = ranges.get(index.checked_sub(1)?)?;
        (range.protocol == protocol && port <= range.last).then_some(range.value)
    }
}
