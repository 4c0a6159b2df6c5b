//! Meters in the walk: what a packet or a connection of a service is charged, and what happens to those that
//! are too many. [`crate::meter`] says how it is counted.
//!
//! A packet is charged once it is known whose it is and that policy allows it, before anything is changed for
//! it: one that is dropped here was never seen by its connection. Each packet is charged once, ICMP errors
//! like what they are about. A connection is charged for when it is opened or picked up, whichever end's
//! packet does it. What is passed on of a bump in the wire is its tenant's, and charged as it leaves.

use super::egress::Translation;
use super::{Env, MeterOf, Note, Walk};
use crate::conntrack::Count;
use crate::drops::DropReason;
use crate::ids::{BackendId, ServiceId, TenantId};
use crate::limits::{SERVICES_MAX, TENANTS_MAX};
use crate::meter::{Account, Colour, Meter, Nanos};
use crate::packet::PacketBuf;
use crate::rewrite;
use crate::snapshot::Metered;
use crate::time::Tick;
use crate::wire::Parsed;

/// What a worker holds of all meters' tokens, and a clock for where there is no finer one.
pub(super) struct Accounts {
    /// By [`ServiceId`].
    services: Box<[Account]>,
    /// By [`crate::ids::TenantId`].
    tenants: Box<[Account]>,
    last: Tick,
    ms: u64,
}

impl Accounts {
    pub(super) fn new(now: Tick) -> Accounts {
        let accounts = |most: usize| vec![Account::default(); most].into_boxed_slice();
        Accounts {
            services: accounts(SERVICES_MAX),
            tenants: accounts(TENANTS_MAX),
            last: now,
            ms: now.0.into(),
        }
    }

    /// Those of a worker that only looks what would happen: it is charged for nothing.
    pub(super) fn none(now: Tick) -> Accounts {
        Accounts { services: Box::new([]), tenants: Box::new([]), last: now, ms: now.0.into() }
    }

    /// The time by ticks, which wrap and this does not.
    fn clock(&mut self, now: Tick) -> Nanos {
        self.ms += u64::from(now.since(self.last));
        self.last = now;
        Nanos(self.ms * 1_000_000)
    }
}

impl<E: Env> Walk<'_, E> {
    fn nanos(&mut self) -> Nanos {
        let (env, accounts, now) = (&*self.env, &mut self.state.accounts, self.now);
        *self.nanos.get_or_insert_with(|| env.nanos().unwrap_or_else(|| accounts.clock(now)))
    }

    /// Charges for a packet of a service; gives it back unless it is one too many.
    #[inline(always)]
    pub(super) fn metered(&mut self, packet: E::Buf, parsed: &Parsed, service: ServiceId) -> Option<E::Buf> {
        if self.snapshot.has_meters() { self.charge(packet, parsed, service) } else { Some(packet) }
    }

    /// Charges the meters of a service and its tenant for a packet; gives it back unless it is one too many.
    #[inline(never)] // Packets that nobody meters are not to pay for it.
    fn charge(&mut self, mut packet: E::Buf, parsed: &Parsed, service: ServiceId) -> Option<E::Buf> {
        let snapshot = self.snapshot;
        let Some(metered) = snapshot.metered(service) else { return Some(packet) };
        let (now, bytes) = (self.nanos(), u32::from(parsed.packet_len()));
        if !self.is_charged() {
            self.foretell(metered, service, bytes);
            return Some(packet);
        }
        let (accounts, counters) = (&mut self.state.accounts, &self.state.counters);
        let own = metered.service.as_deref().zip(accounts.services.get_mut(service.index()));
        let own = own.map(|(meter, account)| (meter.charge(now, account, bytes), meter, account));
        let own_colour = own.as_ref().map(|(charge, ..)| charge.colour());
        let shared = metered.tenant.as_ref().filter(|_| own_colour != Some(Colour::Red));
        let shared = shared.and_then(|(tenant, meter)| {
            let account = accounts.tenants.get_mut(tenant.index())?;
            Some((meter.charge(now, account, bytes).colour(), *tenant, meter))
        });
        let stopped_by_tenant = shared.as_ref().is_some_and(|(colour, ..)| *colour == Colour::Red);
        let mut mark = None;
        if let Some((charge, meter, account)) = own {
            if stopped_by_tenant {
                meter.refund(account, bytes, charge);
            } else {
                counters.service_meter(service, charge.colour(), bytes);
                mark = meter.limit.yellow_dscp.filter(|_| charge.colour() == Colour::Yellow);
            }
        }
        if let Some((colour, tenant, meter)) = shared {
            counters.tenant_meter(tenant, colour, bytes);
            mark = mark.or(meter.limit.yellow_dscp.filter(|_| colour == Colour::Yellow));
        }
        if stopped_by_tenant || own_colour == Some(Colour::Red) {
            self.stop(packet, service, DropReason::MeterRate);
            return None;
        }
        if let Some(dscp) = mark {
            rewrite::set_dscp(packet.data_mut(), parsed, dscp);
        }
        Some(packet)
    }

    /// Notes what meters would say of a packet, and charges for nothing.
    fn foretell(&mut self, metered: &Metered, service: ServiceId, bytes: u32) {
        let now = self.nanos();
        let own = metered.service.iter().map(|meter| (MeterOf::Service(service), meter));
        let shared = metered.tenant.iter().map(|(tenant, meter)| (MeterOf::Tenant(*tenant), meter));
        for (of, meter) in own.chain(shared).filter(|(_, meter)| meter.limit.has_rates()) {
            self.env.note(Note::Metered { of, colour: meter.foretell(now, bytes) });
        }
    }

    /// Charges a tenant for a packet that is passed on as it is; gives it back unless it is one too many.
    #[inline]
    pub(super) fn metered_in_passing(&mut self, packet: E::Buf, bytes: u16) -> Option<E::Buf> {
        let snapshot = self.snapshot;
        let tenant = snapshot.port(packet.port()).map(|port| port.tenant).unwrap_or_default();
        match snapshot.tenant_meter(tenant).filter(|meter| meter.limit.has_rates()) {
            None => Some(packet),
            Some(meter) => self.charge_tenant(packet, tenant, meter, bytes.into()),
        }
    }

    #[inline(never)] // Packets that nobody meters are not to pay for it.
    fn charge_tenant(
        &mut self,
        packet: E::Buf,
        tenant: TenantId,
        meter: &Meter,
        bytes: u32,
    ) -> Option<E::Buf> {
        let now = self.nanos();
        let Some(account) = self.state.accounts.tenants.get_mut(tenant.index()) else {
            let (of, colour) = (MeterOf::Tenant(tenant), meter.foretell(now, bytes));
            self.env.note(Note::Metered { of, colour });
            return Some(packet);
        };
        let colour = meter.charge(now, account, bytes).colour();
        self.state.counters.tenant_meter(tenant, colour, bytes);
        if colour == Colour::Red {
            self.drop(packet, DropReason::MeterRate);
            return None;
        }
        Some(packet)
    }

    /// What hardware has forwarded its meters found green there.
    pub(super) fn count_green(&self, backend: BackendId, counts: [Count; 2]) {
        let Some(service) = self.snapshot.backend(backend).map(|backend| backend.service) else { return };
        let Some(metered) = self.snapshot.metered(service) else { return };
        let counters = &self.state.counters;
        let own = metered.service.as_ref().and_then(|_| counters.service_meters.get(service.index()));
        let tenant = metered.tenant.as_ref();
        let shared = tenant.and_then(|(tenant, _)| counters.tenant_meters.get(tenant.index()));
        for meter in own.into_iter().chain(shared) {
            for count in counts {
                meter.colours[Colour::Green as usize].count_all(count);
            }
        }
    }

    fn stop(&mut self, packet: E::Buf, service: ServiceId, reason: DropReason) {
        if let Some(counters) = self.state.counters.service(service) {
            counters.dropped.add(1);
        }
        self.drop(packet, reason);
    }

    /// Why no connection may be opened for a service now, if none may.
    pub(super) fn too_many(&mut self, service: ServiceId) -> Option<DropReason> {
        self.refused(service, Meter::admits)
    }

    /// The same of one that takes the place of another, which counts until then.
    pub(super) fn too_soon(&mut self, service: ServiceId) -> Option<DropReason> {
        self.refused(service, Meter::admits_instead)
    }

    fn refused(&mut self, service: ServiceId, admits: fn(&Meter, Nanos) -> bool) -> Option<DropReason> {
        if !self.is_charged() {
            return None;
        }
        let (snapshot, now) = (self.snapshot, self.nanos());
        let metered = snapshot.metered(service)?;
        let counters = &self.state.counters;
        if metered.service.as_ref().is_some_and(|meter| !admits(meter, now)) {
            counters.service_refusal(service);
            return Some(DropReason::MeterConnections);
        }
        if let Some((tenant, _)) = metered.tenant.as_ref().filter(|(_, meter)| !admits(meter, now)) {
            if let Some(meter) = &metered.service {
                meter.not_opened();
            }
            counters.tenant_refusal(*tenant);
            return Some(DropReason::MeterConnections);
        }
        None
    }

    /// A connection that was not too many for its meters came to nothing all the same.
    pub(super) fn not_opened(&self, service: ServiceId) {
        if let Some(metered) = self.snapshot.metered(service).filter(|_| self.is_charged()) {
            metered.meters().for_each(Meter::not_opened);
        }
    }

    /// Whether anybody is charged here: not by a worker that only looks what would happen.
    fn is_charged(&self) -> bool {
        self.snapshot.has_meters() && !self.state.accounts.services.is_empty()
    }

    /// A later fragment goes where the first one went, and is charged like it.
    pub(super) fn deliver_later(&mut self, packet: E::Buf, parsed: &Parsed, translation: &Translation) {
        if let Some(packet) = self.metered(packet, parsed, translation.service) {
            self.deliver_one(packet, parsed, translation);
        }
    }
}
