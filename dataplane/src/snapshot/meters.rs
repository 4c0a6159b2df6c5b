//! The meters of services and tenants. They outlive snapshots: what has not changed goes on as it was.

use super::{Backend, Service, Snapshot};
use crate::config::Config;
use crate::ids::{BackendId, ServiceId, TenantId};
use crate::meter::{Limit, Meter};
use crate::offload::Declined;
use std::collections::HashMap;
use std::sync::Arc;

/// All meters.
#[derive(Clone, Debug, Default)]
pub(super) struct Meters {
    tenants: Vec<Option<Arc<Meter>>>,
    /// By [`ServiceId`]; empty if nobody has a meter.
    services: Vec<Metered>,
}

/// The meters that a service's packets and connections pass.
#[derive(Clone, Debug, Default)]
pub struct Metered {
    /// Its own.
    pub service: Option<Arc<Meter>>,
    /// Its tenant's.
    pub tenant: Option<(TenantId, Arc<Meter>)>,
}

impl Metered {
    /// Both, as far as there are any.
    pub fn meters(&self) -> impl Iterator<Item = &Meter> {
        let tenant = self.tenant.as_ref().map(|(_, meter)| &**meter);
        self.service.as_deref().into_iter().chain(tenant)
    }
}

impl Meters {
    /// The meters of `config`, whose services and backends have their slots; `live` tells how many
    /// connections a backend of `previous` has.
    pub(super) fn build(
        config: &Config,
        services: &[Option<Service>],
        backends: &[Option<Backend>],
        previous: Option<&Snapshot>,
        live: &dyn Fn(BackendId) -> u64,
    ) -> Meters {
        let workers = config.workers.cores.len();
        let before = previous.map(|previous| &previous.meters);
        let tenants: Vec<_> = (0u16..)
            .zip(&config.tenants)
            .map(|(id, tenant)| renew(tenant.limit, before.and_then(|m| m.tenant(TenantId(id))), workers))
            .collect();
        let limits: HashMap<&str, Option<Limit>> =
            config.services.iter().map(|service| (service.name.as_str(), service.limit)).collect();
        let metered = |(id, slot): (u16, &Option<Service>)| {
            let Some(service) = slot else { return Metered::default() };
            let old = before.and_then(|meters| meters.of(ServiceId(id))).and_then(|m| m.service.as_ref());
            // What a removed service's connections may carry stays as it was.
            let limit = match limits.get(service.name.as_str()) {
                Some(limit) if !service.removed => *limit,
                _ => old.map(|meter| meter.limit),
            };
            let own = renew(limit, old, workers);
            if let Some(meter) = own.as_ref().filter(|_| old.is_none_or(|o| o.limit.connections.is_none())) {
                let of_service = backends.iter().flatten().filter(|backend| backend.service == service.id);
                meter.set_live(of_service.map(|backend| live(backend.id)).sum());
            }
            let tenant = tenants.get(service.tenant.index()).cloned().flatten();
            Metered { service: own, tenant: tenant.map(|meter| (service.tenant, meter)) }
        };
        let mut services: Vec<Metered> = (0u16..).zip(services).map(metered).collect();
        if services.iter().all(|metered| metered.meters().next().is_none()) {
            services.clear();
        }
        Meters { tenants, services }
    }

    fn of(&self, service: ServiceId) -> Option<&Metered> {
        self.services.get(service.index())
    }

    fn tenant(&self, tenant: TenantId) -> Option<&Arc<Meter>> {
        self.tenants.get(tenant.index())?.as_ref()
    }
}

/// The meter of a limit: the one before, if that has not changed.
fn renew(limit: Option<Limit>, before: Option<&Arc<Meter>>, workers: usize) -> Option<Arc<Meter>> {
    let limit = limit?;
    Some(match before {
        Some(meter) if meter.limit == limit => Arc::clone(meter),
        Some(meter) => Arc::new(meter.changed(limit, workers)),
        None => Arc::new(Meter::new(limit, workers)),
    })
}

impl Snapshot {
    /// Whether anybody has a meter.
    #[inline]
    #[must_use]
    pub fn has_meters(&self) -> bool {
        !self.meters.services.is_empty()
    }

    /// The meters that a service's packets pass; `None` if nobody has any.
    #[inline]
    #[must_use]
    pub fn metered(&self, service: ServiceId) -> Option<&Metered> {
        self.meters.of(service)
    }

    /// Whether every packet of a service is metered.
    #[inline]
    #[must_use]
    pub fn meters_packets(&self, service: ServiceId) -> bool {
        self.metered(service).is_some_and(|metered| metered.meters().any(|meter| meter.limit.has_rates()))
    }

    /// The meter that hardware must apply to a service's packets, if any. An error if it cannot: more than
    /// one meters them, or one that meters packets and bits, or knows yellow.
    ///
    /// # Errors
    /// [`Declined::Metered`].
    pub fn hardware_meter(&self, service: ServiceId) -> Result<Option<&Arc<Meter>>, Declined> {
        let Some(metered) = self.metered(service) else { return Ok(None) };
        let all = metered.service.iter().chain(metered.tenant.iter().map(|(_, meter)| meter));
        let mut all = all.filter(|meter| meter.limit.has_rates());
        match (all.next(), all.next()) {
            (None, _) => Ok(None),
            (Some(meter), None) if meter.for_hardware().is_some() => Ok(Some(meter)),
            _ => Err(Declined::Metered),
        }
    }

    /// A connection of a service was opened.
    #[inline]
    pub(crate) fn connection_opened(&self, service: ServiceId) {
        if let Some(Metered { service: Some(meter), .. }) = self.metered(service) {
            meter.opened();
        }
    }

    /// A connection of a service has ended.
    #[inline]
    pub(crate) fn connection_closed(&self, service: ServiceId) {
        if let Some(Metered { service: Some(meter), .. }) = self.metered(service) {
            meter.closed();
        }
    }

    /// Whether every packet of a tenant is metered.
    #[inline]
    #[must_use]
    pub fn meters_tenant(&self, tenant: TenantId) -> bool {
        self.tenant_meter(tenant).is_some_and(|meter| meter.limit.has_rates())
    }

    /// The meter of a tenant, if it has one.
    #[must_use]
    pub fn tenant_meter(&self, tenant: TenantId) -> Option<&Meter> {
        self.meters.tenant(tenant).map(|meter| &**meter)
    }
}
