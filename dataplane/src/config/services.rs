//! What must hold within and between services, and between them and the ports.

use super::fault::{At, Place, Sink};
use super::network::{Reach, Reachable, check_not_link_local, check_unique, is_link_local, tenant_id};
use super::raw::{RawBackend, RawConfig, RawService};
use super::schedule;
use super::tunnels;
use super::values::next_prime;
use super::{Backend, EngineChoice, Port, Service, Tenant};
use crate::addr::Ip;
use crate::flow::Protocol;
use crate::ids::TenantId;
use crate::limits;
use crate::policy::Source;
use crate::snapshot::{Affinity, Mode, Timeouts};
use core::ops::RangeInclusive;
use std::collections::{HashMap, HashSet};

/// What every service is checked against.
struct Context<'a> {
    sink: &'a Sink<'a>,
    timeouts: Timeouts,
    table_size: u32,
    /// By [`TenantId`]; empty when ports are faulty, so that nothing is said of routes.
    reachable: Vec<Reachable>,
    /// Our own addresses.
    own: HashSet<(TenantId, Ip)>,
    /// VIPs, and the service that was first to have it.
    vips: HashMap<(TenantId, Ip), &'a Place>,
}

/// A service as far as it could be built.
struct Checked<'a> {
    raw: &'a RawService,
    tenant: TenantId,
    service: Option<Service>,
}

/// The services that are complete; all of them unless an error was reported.
pub(super) fn services(
    raw: &RawConfig,
    tenants: &[Tenant],
    ports: &[Port],
    policy: &Source,
    sink: &Sink<'_>,
) -> Vec<Service> {
    check_totals(raw, sink);
    let names = raw.services.iter().filter_map(|service| service.name.as_ref());
    check_unique(names, "the name of a service", "give each service a name of its own", sink);

    let with_tenants: Vec<(&RawService, TenantId)> = raw
        .services
        .iter()
        .map(|service| (service, tenant_id(service.tenant.as_ref(), tenants, sink)))
        .collect();
    let context = context(raw, &with_tenants, tenants, ports, sink);
    let checked: Vec<Checked<'_>> = with_tenants
        .into_iter()
        .map(|(raw, tenant)| Checked { raw, tenant, service: build_service(raw, tenant, &context) })
        .collect();
    check_vip_ports(&checked, sink);
    check_stateless_replies(&checked, sink);
    if raw.offload.engine != EngineChoice::None {
        let complete = checked.iter().filter_map(|checked| Some((checked.raw, checked.service.as_ref()?)));
        schedule::check_offload(complete, tenants, policy, sink);
    }
    checked.into_iter().filter_map(|checked| checked.service).collect()
}

fn check_totals(raw: &RawConfig, sink: &Sink<'_>) {
    let top = Place::new("service", 0..0);
    if raw.services.is_empty() && !sink.has_errors_in("service") {
        sink.warning(&top, "there are no services", "add a [[service]], or nothing will be balanced");
    }
    if let Some(excess) = raw.services.get(limits::SERVICES_MAX) {
        sink.error(&excess.place, "too many services", format!("have at most {}", limits::SERVICES_MAX));
    }
    let backends: usize = raw.services.iter().map(|service| service.backends.len()).sum();
    if backends > limits::BACKENDS_MAX {
        let message = format!("{backends} backends in all are too many");
        sink.error(&top, message, format!("have at most {}", limits::BACKENDS_MAX));
    }
}

fn context<'a>(
    raw: &RawConfig,
    services: &[(&'a RawService, TenantId)],
    tenants: &[Tenant],
    ports: &[Port],
    sink: &'a Sink<'a>,
) -> Context<'a> {
    let own = |port: &Port| {
        let tenant = port.tenant;
        port.addresses.iter().map(move |own| (tenant, own.address)).collect::<Vec<_>>()
    };
    let mut vips = HashMap::new();
    for (service, tenant) in services {
        if let Some(vip) = &service.vip {
            vips.entry((*tenant, vip.value)).or_insert(&service.place);
        }
    }
    let ids = (0..tenants.len()).filter_map(|index| u16::try_from(index).ok()).map(TenantId);
    let ids = ids.filter(|_| !sink.has_errors_in("port"));
    Context {
        sink,
        timeouts: raw.timeouts.over(Timeouts::default()),
        table_size: raw.maglev.table_size,
        reachable: ids.map(|id| Reachable::new(ports, id)).collect(),
        own: ports.iter().flat_map(own).collect(),
        vips,
    }
}

fn build_service(raw: &RawService, tenant: TenantId, context: &Context<'_>) -> Option<Service> {
    if let Some(vip) = &raw.vip {
        check_not_link_local(vip.value, &vip.place, context.sink);
    }
    let ports = raw.ports.as_ref().and_then(|ports| check_ports(raw, ports, context.sink));
    check_protocol(raw, context.sink);
    let mode = tunnels::mode(raw, context.sink);
    let affinity = schedule::affinity(raw, context.sink);
    let backends = check_backends(raw, tenant, ports.as_deref(), context);
    check_weights(raw, context);
    check_health(raw, tenant, context);
    Some(Service {
        name: raw.name.as_ref()?.value.clone(),
        tenant,
        vip: raw.vip.as_ref()?.value,
        protocol: raw.protocol.as_ref()?.value,
        ports: ports?,
        mode: mode?,
        affinity: affinity?,
        strict: raw.strict.as_ref()?.value,
        on_remove: raw.on_remove,
        offload: raw.offload,
        health: raw.health.clone(),
        limit: raw.limit,
        timeouts: raw.timeouts.over(context.timeouts),
        backends,
    })
}

/// The ports in ascending order.
fn check_ports(
    raw: &RawService,
    ports: &[At<RangeInclusive<u16>>],
    sink: &Sink<'_>,
) -> Option<Vec<RangeInclusive<u16>>> {
    let place = raw.place.key("ports");
    if ports.is_empty() {
        if !sink.has_errors_in(&place.path) {
            sink.error(&place, "no ports", "list at least one port or range");
        }
        return None;
    }
    if ports.len() > limits::PORT_RANGES_MAX {
        let message = format!("{} ports and ranges are too many", ports.len());
        sink.error(&place, message, format!("join them to at most {} ranges", limits::PORT_RANGES_MAX));
        return None;
    }
    for (index, port) in ports.iter().enumerate() {
        if let Some(other) = ports[..index].iter().find(|other| overlap(&other.value, &port.value)) {
            let message = format!("overlaps with {} in the same list", shown(&other.value));
            sink.error(&port.place, message, "list each port once");
        }
    }
    let mut sorted: Vec<_> = ports.iter().map(|port| port.value.clone()).collect();
    sorted.sort_by_key(|range| *range.start());
    Some(sorted)
}

fn overlap(a: &RangeInclusive<u16>, b: &RangeInclusive<u16>) -> bool {
    a.start() <= b.end() && b.start() <= a.end()
}

fn shown(ports: &RangeInclusive<u16>) -> String {
    if ports.start() == ports.end() {
        format!("port {}", ports.start())
    } else {
        format!("ports {}-{}", ports.start(), ports.end())
    }
}

/// Settings that make sense for one of the protocols only.
fn check_protocol(raw: &RawService, sink: &Sink<'_>) {
    let Some(protocol) = raw.protocol.as_ref().map(|at| at.value) else { return };
    let name = protocol.name();
    let is_udp = protocol == Protocol::Udp;
    if let Some(affinity) = raw.affinity.as_ref().filter(|at| at.value == Affinity::None && !is_udp) {
        let remedy = "use \"connection\" or \"client\": the segments of a TCP connection must stay together";
        sink.error(&affinity.place, "\"none\" is for UDP only", remedy);
    }
    if let Some(strict) = raw.strict.as_ref().filter(|at| at.value && is_udp) {
        sink.warning(&strict.place, "has no effect on UDP", "remove it");
    }
    for (timeout, at) in &raw.timeouts.set {
        if timeout.protocol != protocol {
            let remedy = format!("remove it, or set the {name}_… timeout that is meant");
            sink.warning(&at.place, format!("has no effect on a {name} service"), remedy);
        }
    }
}

fn check_backends(
    raw: &RawService,
    tenant: TenantId,
    ports: Option<&[RangeInclusive<u16>]>,
    context: &Context<'_>,
) -> Vec<Backend> {
    let mut seen: HashMap<(Ip, Option<u16>), &Place> = HashMap::new();
    let mut backends = Vec::new();
    for backend in &raw.backends {
        let Some(endpoint) = &backend.endpoint else { continue };
        check_backend_address(raw, tenant, endpoint, context);
        let port = check_backend_port(raw, endpoint, ports, context.sink);
        let (address, place) = (endpoint.value.0, &endpoint.place);
        if let Some(first) = seen.get(&(address, port)) {
            let message =
                format!("is already a backend of this service, on line {}", context.sink.line(first));
            context.sink.error(place, message, "list each backend once and use its weight to give it more");
            continue;
        }
        seen.insert((address, port), place);
        backends.extend(backend.weight.as_ref().map(|at| Backend { address, port, weight: at.value }));
    }
    backends
}

fn check_backend_address(
    raw: &RawService,
    tenant: TenantId,
    endpoint: &At<(Ip, Option<u16>)>,
    context: &Context<'_>,
) {
    let (sink, place, address) = (context.sink, &endpoint.place, endpoint.value.0);
    check_not_link_local(address, place, sink);
    let other_family = raw.vip.as_ref().filter(|vip| vip.value.is_v4() != address.is_v4());
    if let Some(vip) = other_family.filter(|_| !has_tunnel(raw)) {
        let family = if vip.value.is_v4() { "IPv4" } else { "IPv6" };
        let message = format!("{address} is of another family than the VIP {}", vip.value);
        let remedy =
            format!("give the backend's {family} address; only a tunnel can lead to the other family");
        sink.error(place, message, remedy);
        return;
    }
    if let Some(owner) = context.vips.get(&(tenant, address)) {
        let message = format!("{address} is the VIP of {}", owner.path);
        sink.error(place, message, "give the server's own address; to a VIP the packets would come back");
    } else if context.own.contains(&(tenant, address)) {
        let message = format!("{address} is our own address");
        sink.error(place, message, "give the server's address");
    } else {
        check_reach(raw, tenant, endpoint, context);
    }
}

/// Probes come from an address of ours: without one none leaves, and no backend is ever found to be down.
/// They ask a backend, or the VIP where that is what it answers for, which are of one family.
fn check_health(raw: &RawService, tenant: TenantId, context: &Context<'_>) {
    let (Some(_), Some(vip)) = (&raw.health, &raw.vip) else { return };
    let (is_v4, sink) = (vip.value.is_v4(), context.sink);
    let fits = |&(of, ip): &(TenantId, Ip)| of == tenant && ip.is_v4() == is_v4 && !is_link_local(ip);
    if sink.has_errors_in("port") || raw.backends.is_empty() || context.own.iter().any(fits) {
        return;
    }
    let place = raw.place.key("health");
    let family = if is_v4 { "IPv4" } else { "IPv6" };
    let message = format!("no port of the service's tenant has an {family} address for probes to come from");
    let remedy = format!(
        "give a port of that tenant an {family} address that the backends can answer to, or leave health out"
    );
    sink.error(&place, message, remedy);
}

/// Whether packets reach the backends in tunnels.
fn has_tunnel(raw: &RawService) -> bool {
    raw.mode.as_ref().is_some_and(|mode| matches!(mode.value, Mode::Tunnel(_)))
}

fn check_reach(raw: &RawService, tenant: TenantId, endpoint: &At<(Ip, Option<u16>)>, context: &Context<'_>) {
    let Some(reachable) = context.reachable.get(tenant.index()) else { return };
    let (place, address) = (&endpoint.place, endpoint.value.0);
    let is_dsr = raw.mode.as_ref().is_some_and(|mode| mode.value == Mode::Dsr);
    match reachable.find(address) {
        Some((_, source)) if has_tunnel(raw) && !source => {
            let family = if address.is_v4() { "IPv4" } else { "IPv6" };
            let message = format!("the port that leads to {address} has no {family} address");
            let remedy = format!("give that port an {family} address: tunnels begin at it");
            context.sink.error(place, message, remedy);
        }
        Some((Reach::OnLink, _)) => {}
        Some((Reach::Routed, _)) if !is_dsr => {}
        Some((Reach::Routed, _)) => {
            let message = format!("{address} is behind a gateway, which dsr cannot pass");
            let remedy = "use mode = \"nat\" or \"ipip\", or put a port on the backend's link: dsr rewrites the \
                          MAC only";
            context.sink.error(place, message, remedy);
        }
        None => {
            let gateway = if address.is_v4() { "gateway" } else { "gateway6" };
            let remedy = format!(
                "give a port of the service's tenant an address on {address}'s network, a [[port.route]] or a {gateway}"
            );
            context.sink.error(place, format!("no port leads to {address}"), remedy);
        }
    }
}

/// The port as the dataplane wants it: `None` where it is the VIP's anyway.
fn check_backend_port(
    raw: &RawService,
    endpoint: &At<(Ip, Option<u16>)>,
    ports: Option<&[RangeInclusive<u16>]>,
    sink: &Sink<'_>,
) -> Option<u16> {
    let port = endpoint.value.1?;
    let single = match ports? {
        [range] if range.start() == range.end() => Some(*range.start()),
        _ => None,
    };
    if single == Some(port) {
        return None;
    }
    let keeps_port = match raw.mode.as_ref().map(|mode| mode.value) {
        Some(Mode::Dsr) => Some("dsr"),
        Some(Mode::Tunnel(tunnel)) => Some(tunnel.encapsulation.name()),
        Some(Mode::Nat) | None => None,
    };
    if let Some(mode) = keeps_port {
        let remedy = "write the address without a port and let the server listen on the VIP's";
        sink.error(&endpoint.place, format!("{mode} cannot change the port to {port}"), remedy);
    } else if single.is_none() {
        let message = format!("several ports cannot all become port {port}");
        let remedy = "write the address without a port to keep the VIP's, or split the service, a port each";
        sink.error(&endpoint.place, message, remedy);
    }
    Some(port)
}

/// Whether anybody gets connections, and shares them fairly.
fn check_weights(raw: &RawService, context: &Context<'_>) {
    let sink = context.sink;
    let place = raw.place.key("backend");
    let is_active = |backend: &&RawBackend| backend.weight.as_ref().is_none_or(|weight| weight.value > 0);
    let active = raw.backends.iter().filter(is_active).count();
    if active == 0 && !sink.has_errors_in(&place.path) {
        let (message, remedy) = if raw.backends.is_empty() {
            ("there are no backends", "add a [[service.backend]] below; until then, clients are refused")
        } else {
            ("every weight is 0", "give a backend a weight above 0; until then, new clients are refused")
        };
        sink.warning(&place, message, remedy);
    }
    if !raw.schedule.is_maglev() {
        return;
    }
    let size = context.table_size as usize;
    let remedy = || {
        let entries = u32::try_from(active * 100).ok().and_then(next_prime);
        format!("set maglev.table_size to {} or a larger prime", entries.unwrap_or(limits::MAGLEV_TABLE_MAX))
    };
    if active > size {
        let message = format!("{active} backends do not fit into a Maglev table of {size} entries");
        sink.error(&place, message, remedy());
    } else if active * 100 > size {
        let message = format!("{active} backends share a Maglev table of {size} entries unevenly");
        sink.warning(&place, message, remedy());
    }
}

/// Ports of an address that one service needs for itself.
struct Claim<'a> {
    key: (TenantId, Ip, Protocol),
    ports: RangeInclusive<u16>,
    owner: &'a RawService,
    place: &'a Place,
}

/// The claims that collide with one before them in the file, each with that one.
fn collisions<'a>(mut claims: Vec<Claim<'a>>) -> Vec<(Claim<'a>, &'a RawService, RangeInclusive<u16>)> {
    claims.sort_by_key(|claim| (claim.key, *claim.ports.start(), *claim.ports.end(), claim.place.span.start));
    let mut found = Vec::new();
    let mut widest: Option<Claim<'a>> = None;
    for claim in claims {
        let Some(other) = widest.take().filter(|other| other.key == claim.key) else {
            widest = Some(claim);
            continue;
        };
        let collide = overlap(&other.ports, &claim.ports) && !core::ptr::eq(other.owner, claim.owner);
        let (keep, give) =
            if claim.ports.end() > other.ports.end() { (claim, other) } else { (other, claim) };
        if collide {
            let (earlier, later) =
                if keep.place.span.start < give.place.span.start { (&keep, &give) } else { (&give, &keep) };
            let copy = Claim { ports: later.ports.clone(), ..*later };
            found.push((copy, earlier.owner, earlier.ports.clone()));
        }
        widest = Some(keep);
    }
    found
}

/// No VIP and port may belong to two services of a tenant.
fn check_vip_ports(services: &[Checked<'_>], sink: &Sink<'_>) {
    let mut claims = Vec::new();
    for checked in services {
        let raw = checked.raw;
        let (Some(vip), Some(protocol), Some(ports)) = (&raw.vip, &raw.protocol, &raw.ports) else {
            continue;
        };
        claims.extend(ports.iter().map(|port| Claim {
            key: (checked.tenant, vip.value, protocol.value),
            ports: port.value.clone(),
            owner: raw,
            place: &port.place,
        }));
    }
    for (claim, other, ports) in collisions(claims) {
        let (_, vip, protocol) = claim.key;
        let message = format!(
            "{vip}, {} {}, is taken by {} on line {}",
            protocol.name(),
            shown(&ports),
            other.place.path,
            sink.line(&other.place)
        );
        sink.error(claim.place, message, "give each service ports, or a VIP, of its own");
    }
}

/// With affinity "none", NAT translates replies by the backend's address and port alone, so these must
/// tell the service.
fn check_stateless_replies(services: &[Checked<'_>], sink: &Sink<'_>) {
    let mut claims = Vec::new();
    for checked in services {
        let Some(service) = &checked.service else { continue };
        if service.affinity != Affinity::None || service.mode != Mode::Nat {
            continue;
        }
        for endpoint in checked.raw.backends.iter().filter_map(|backend| backend.endpoint.as_ref()) {
            let ports = match endpoint.value.1 {
                Some(port) => vec![port..=port],
                None => service.ports.clone(),
            };
            claims.extend(ports.into_iter().map(|ports| Claim {
                key: (checked.tenant, endpoint.value.0, service.protocol),
                ports,
                owner: checked.raw,
                place: &endpoint.place,
            }));
        }
    }
    for (claim, other, ports) in collisions(claims) {
        let (_, address, _) = claim.key;
        let message = format!("{address} {} also answers for {}", shown(&ports), other.place.path);
        let remedy = "with affinity \"none\" a reply must tell its service: use another port of the backend for one \
                      of them, or affinity \"connection\"";
        sink.error(claim.place, message, remedy);
    }
}
