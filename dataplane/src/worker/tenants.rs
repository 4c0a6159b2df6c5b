//! What tenants may hold of a worker's table, and what they do hold.

use super::State;
use crate::conntrack::Share;
use crate::ids::TenantId;
use crate::packet::PacketBuf;
use crate::snapshot::Tenant;

/// Tenants counted per call.
const COUNTED_PER_CALL: usize = 8;

impl<B: PacketBuf> State<B> {
    /// Puts tenants' limits in force. Clients are spread over the workers, so each has as large a part of
    /// what a tenant may hold as another.
    pub(super) fn share_out(&mut self, tenants: &[Tenant]) {
        let workers = u64::from(self.owners.workers());
        let capacity = self.table.capacity() as u64;
        let narrow = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        let share = |tenant: &Tenant| {
            let connections = tenant.connections.map_or(u64::MAX, |all| u64::from(all).div_ceil(workers));
            let half_open = tenant
                .half_open_percent
                .map_or(u64::MAX, |percent| connections.min(capacity) * u64::from(percent) / 100);
            Share { connections: narrow(connections), half_open: narrow(half_open) }
        };
        self.table.set_shares(tenants.iter().map(share));
    }

    /// Says what a few tenants have in the table: all have their turn within a few calls, and a call costs
    /// the same however many there are.
    pub(super) fn count_tenants(&mut self, tenants: usize) {
        let tenants = tenants.min(self.counters.tenants.len());
        for _ in 0..tenants.min(COUNTED_PER_CALL) {
            let next = (self.upkeep.tenant + 1) % tenants;
            let (live, half_open) = self.table.held_by(TenantId(next as u16));
            let counters = &self.counters.tenants[next];
            counters.live.set(live.into());
            counters.half_open.set(half_open.into());
            self.upkeep.tenant = next;
        }
    }
}
