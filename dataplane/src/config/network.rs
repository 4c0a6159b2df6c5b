//! What must hold within and between ports and tenants.

use super::fault::{At, Place, Sink};
use super::lans;
use super::raw::{RawConfig, RawNeighbour, RawPort, RawRoute, RawTenant};
use super::suggest::nearest;
use super::tunnel_ports;
use super::values::network;
use super::{DEFAULT_TENANT, Limits, Neighbour, Port, Route, Tenant};
use crate::addr::{Ip, Prefix};
use crate::ids::{PortId, TenantId};
use crate::limits;
use crate::snapshot;
use core::hash::Hash;
use std::collections::HashMap;

/// Reports every value that an earlier one equals. `what` completes "… is already …".
pub(super) fn check_unique<'a, K: Hash + Eq + Clone + 'a>(
    values: impl IntoIterator<Item = &'a At<K>>,
    what: &str,
    remedy: &str,
    sink: &Sink<'_>,
) {
    let mut seen: HashMap<K, &Place> = HashMap::new();
    for At { value, place } in values {
        match seen.get(value) {
            Some(first) => {
                sink.error(place, format!("is already {what} on line {}", sink.line(first)), remedy);
            }
            None => drop(seen.insert(value.clone(), place)),
        }
    }
}

/// Finds `name` among the names that are known, or says which one may have been meant.
pub(super) fn find_name<'a>(
    name: &At<String>,
    what: &str,
    known: impl Iterator<Item = &'a str> + Clone,
    sink: &Sink<'_>,
) -> Option<u16> {
    if let Some(index) = known.clone().position(|known| known == name.value) {
        return u16::try_from(index).ok();
    }
    let remedy = match nearest(&name.value, known) {
        Some(near) => format!("did you mean {near:?}?"),
        None => format!("add a [[{what}]] of that name, or name one that exists"),
    };
    sink.error(&name.place, format!("there is no {what} {:?}", name.value), remedy);
    None
}

/// The tenants, the default one first: with limits if it is written.
pub(super) fn tenants(raw: &[RawTenant], sink: &Sink<'_>) -> Vec<Tenant> {
    let names = raw.iter().filter_map(|tenant| tenant.name.as_ref());
    check_unique(names.clone(), "the name of a tenant", "give each tenant a name of its own", sink);
    if let Some(excess) = names.filter(|name| name.value != DEFAULT_TENANT).nth(limits::TENANTS_MAX - 1) {
        sink.error(&excess.place, "too many tenants", format!("have at most {}", limits::TENANTS_MAX - 1));
    }
    let default =
        Tenant { name: DEFAULT_TENANT.to_owned(), limits: snapshot::Tenant::default(), limit: None };
    let mut tenants = vec![default];
    for RawTenant { name, limits, limit } in raw {
        let Some(name) = name else { continue };
        let tenant = Tenant { name: name.value.clone(), limits: *limits, limit: *limit };
        match name.value.as_str() {
            DEFAULT_TENANT => tenants[0] = tenant,
            _ => tenants.push(tenant),
        }
    }
    tenants
}

/// The tenant of a port or service: the default one unless it names another.
pub(super) fn tenant_id(name: Option<&At<String>>, tenants: &[Tenant], sink: &Sink<'_>) -> TenantId {
    let Some(name) = name else { return TenantId(0) };
    let known = tenants.iter().map(|tenant| tenant.name.as_str());
    TenantId(find_name(name, "tenant", known, sink).unwrap_or(0))
}

/// The ports that are complete; all of them unless an error was reported.
pub(super) fn ports(raw: &[RawPort], tenants: &[Tenant], limits: &Limits, sink: &Sink<'_>) -> Vec<Port> {
    let top = Place::new("port", 0..0);
    if raw.is_empty() && !sink.has_errors_in("port") {
        sink.error(&top, "there are no ports", "add a [[port]] with a name, a device and addresses");
    }
    let raw = &lans::devices_first(raw)[..];
    lans::check_counts(raw, sink);
    let names = raw.iter().filter_map(|port| port.name.as_ref());
    check_unique(names, "the name of a port", "give each port a name of its own", sink);
    let devices = raw.iter().filter_map(|port| port.device.as_ref());
    check_unique(
        devices,
        "the device of a port",
        "give each port a device of its own, or that one as its parent and a vlan",
        sink,
    );

    let built: Vec<(&RawPort, TenantId, Option<Port>)> = raw
        .iter()
        .map(|&port| {
            let tenant = tenant_id(port.tenant.as_ref(), tenants, sink);
            (port, tenant, build_port(port, tenant, raw, limits, sink))
        })
        .collect();
    check_addresses_unique(&built, sink);
    check_destinations_unique(&built, sink);
    lans::check_tags(raw, sink);
    tunnel_ports::check_networks(raw, sink);
    let mut ports: Vec<Port> = built.into_iter().filter_map(|(_, _, port)| port).collect();
    if !sink.has_errors_in("port") {
        lans::inherit(&mut ports);
    }
    ports
}

fn build_port(
    raw: &RawPort,
    tenant: TenantId,
    all: &[&RawPort],
    limits: &Limits,
    sink: &Sink<'_>,
) -> Option<Port> {
    check_gateway(raw, raw.gateway.as_ref(), true, sink);
    check_gateway(raw, raw.gateway6.as_ref(), false, sink);
    let pass_to = raw.pass_to.as_ref().and_then(|to| find_pass_to(raw, to, all, sink));
    let attachment = lans::attachment(raw, all, sink);
    check_presence(raw, all, sink);
    let routes = check_routes(raw, sink);
    let neighbours = check_neighbours(raw, limits, sink);
    if let Some(outer) = raw.outer_vlan.as_ref().filter(|_| !raw.has_vlan) {
        let remedy = "set vlan to the inner tag, or, for a single tag, use vlan instead of outer_vlan";
        sink.error(&outer.place, "an outer tag without an inner one", remedy);
    }
    let value = |at: &Option<At<Ip>>| at.as_ref().map(|at| at.value);
    Some(Port {
        name: raw.name.as_ref()?.value.clone(),
        attachment: attachment?,
        tenant,
        addresses: raw.addresses.iter().map(|address| address.value).collect(),
        gateway: value(&raw.gateway),
        gateway6: value(&raw.gateway6),
        mtu: raw.mtu.as_ref().map(|mtu| mtu.value),
        vlan: raw.tags(),
        pass_to,
        rx_descriptors: raw.rx_descriptors,
        tx_descriptors: raw.tx_descriptors,
        // What passes through is addressed to others.
        promiscuous: raw.promiscuous || pass_to.is_some(),
        hairpin: raw.hairpin,
        faces: raw.faces,
        neighbours,
        routes,
    })
}

fn find_pass_to(raw: &RawPort, to: &At<String>, all: &[&RawPort], sink: &Sink<'_>) -> Option<PortId> {
    if raw.name.as_ref().is_some_and(|name| name.value == to.value) {
        sink.error(&to.place, "a port cannot pass frames to itself", "name the port on the other side");
        return None;
    }
    let index = find_name(to, "port", lans::names(all), sink)?;
    let target = all.get(usize::from(index))?;
    if raw.has_tunnel || target.has_tunnel {
        let remedy = "remove it: services, and what they answer, do go from tunnel to link";
        sink.error(&to.place, "frames are not passed on into tunnels, nor out of them", remedy);
        return None;
    }
    if (raw.has_parent || target.has_parent) && raw.tags() != target.tags() {
        let remedy = "give both ports the same vlan and outer_vlan, or pass to the one that has them";
        sink.error(&to.place, "frames are passed on as they are, and its tags are others", remedy);
    }
    Some(PortId(index))
}

/// A port without addresses is of use only where frames pass through.
fn check_presence(raw: &RawPort, all: &[&RawPort], sink: &Sink<'_>) {
    let Some(name) = &raw.name else { return };
    let named = |by: fn(&RawPort) -> Option<&At<String>>| {
        all.iter().filter_map(|port| by(port)).any(|found| found.value == name.value)
    };
    let passed_to = named(|port| port.pass_to.as_ref()) || named(|port| port.parent.as_ref());
    let refused = sink.has_errors_in(&raw.place.path);
    if raw.addresses.is_empty() && raw.pass_to.is_none() && !passed_to && !refused {
        let remedy = "add addresses = [\"ADDRESS/LENGTH\"], or pass_to on either side of it";
        sink.warning(&raw.place, "has no addresses: no neighbour can be resolved here", remedy);
    }
}

pub(super) fn is_link_local(ip: Ip) -> bool {
    !ip.is_v4() && ip.words()[0] >> 54 == 0xfe80 >> 6
}

/// What is wrong with `ip` as the next hop of a port, if anything.
fn next_hop_fault(raw: &RawPort, ip: Ip) -> Option<(String, String)> {
    if raw.addresses.iter().any(|own| own.value.address == ip) {
        return Some((format!("{ip} is this port's own address"), "give the router's address".to_owned()));
    }
    let routes = raw.routes.iter().filter(|route| !route.has_via).filter_map(|route| route.to.as_ref());
    let mut on_link = raw.addresses.iter().chain(routes);
    if is_link_local(ip) || on_link.any(|prefix| prefix.value.contains(ip)) {
        return None;
    }
    let links: Vec<String> = raw
        .addresses
        .iter()
        .filter(|own| own.value.address.is_v4() == ip.is_v4())
        .map(|own| network(own.value).to_string())
        .collect();
    let remedy = if links.is_empty() {
        format!("add an IPv{} address of the same network to this port", if ip.is_v4() { 4 } else { 6 })
    } else {
        format!("choose an address within {}, or add one to this port", links.join(" or "))
    };
    Some((format!("{ip} is not on this port's link"), remedy))
}

fn check_gateway(raw: &RawPort, gateway: Option<&At<Ip>>, is_v4: bool, sink: &Sink<'_>) {
    let Some(gateway) = gateway else { return };
    if gateway.value.is_v4() != is_v4 {
        let (family, other) = if is_v4 { ("IPv4", "gateway6") } else { ("IPv6", "gateway") };
        sink.error(&gateway.place, format!("is not an {family} address"), format!("use `{other}` for it"));
        return;
    }
    check_next_hop(raw, gateway, sink);
}

fn check_next_hop(raw: &RawPort, hop: &At<Ip>, sink: &Sink<'_>) {
    // A refused address is missing from the list, and may be the very one.
    if sink.has_errors_in(&raw.place.path.key("addresses")) {
        return;
    }
    if let Some((message, remedy)) = next_hop_fault(raw, hop.value) {
        sink.error(&hop.place, message, remedy);
    }
}

fn check_routes(raw: &RawPort, sink: &Sink<'_>) -> Vec<Route> {
    if raw.routes.len() > limits::ROUTES_MAX {
        let message = format!("{} routes are too many", raw.routes.len());
        sink.error(&raw.place, message, format!("have at most {}", limits::ROUTES_MAX));
    }
    raw.routes.iter().filter_map(|route| build_route(raw, route, sink)).collect()
}

fn build_route(raw: &RawPort, route: &RawRoute, sink: &Sink<'_>) -> Option<Route> {
    let to = route.to.as_ref()?;
    if let Some(via) = &route.via {
        if via.value.is_v4() != to.value.address.is_v4() {
            let message = format!("{} is of another family than {}", via.value, to.value);
            sink.error(&via.place, message, "give a gateway of the destination's family");
        } else {
            check_next_hop(raw, via, sink);
        }
    }
    Some(Route { to: to.value, via: route.via.as_ref().map(|via| via.value) })
}

fn check_neighbours(raw: &RawPort, limits: &Limits, sink: &Sink<'_>) -> Vec<Neighbour> {
    let addresses = raw.neighbours.iter().filter_map(|neighbour| neighbour.address.as_ref());
    check_unique(addresses, "the address of a neighbour", "keep one of the two", sink);
    if raw.neighbours.len() > limits.neighbours as usize {
        let message = format!("{} static neighbours are too many", raw.neighbours.len());
        sink.error(&raw.place, message, format!("raise limits.neighbours above {}", limits.neighbours));
    }
    raw.neighbours.iter().filter_map(|neighbour| build_neighbour(raw, neighbour, sink)).collect()
}

fn build_neighbour(raw: &RawPort, neighbour: &RawNeighbour, sink: &Sink<'_>) -> Option<Neighbour> {
    let address = neighbour.address.as_ref()?;
    check_next_hop(raw, address, sink);
    Some(Neighbour { address: address.value, mac: neighbour.mac.as_ref()?.value })
}

/// A queue whose descriptors find no buffers loses packets, or does not even start.
pub(super) fn check_buffers(raw: &RawConfig, sink: &Sink<'_>) {
    let port = |port: &RawPort| usize::from(port.rx_descriptors) + usize::from(port.tx_descriptors);
    let devices = raw.ports.iter().filter(|port| !port.has_parent);
    let held = raw.workers.cores.len() * devices.map(port).sum::<usize>();
    if held > raw.dpdk.mbufs as usize && !sink.has_errors() {
        let message = format!("the queues alone can hold {held} buffers, but there are {}", raw.dpdk.mbufs);
        let remedy = format!(
            "set dpdk.mbufs to {} or more, or have fewer descriptors",
            (held + 1).next_power_of_two()
        );
        sink.warning(&raw.mbufs, message, remedy);
    }
}

type Built<'a> = [(&'a RawPort, TenantId, Option<Port>)];

fn check_addresses_unique(ports: &Built<'_>, sink: &Sink<'_>) {
    let mut seen: HashMap<(TenantId, Ip), &Place> = HashMap::new();
    for (port, tenant, _) in ports {
        for address in &port.addresses {
            if let Some(first) = seen.insert((*tenant, address.value.address), &address.place) {
                let message =
                    format!("{} is ours already, on line {}", address.value.address, sink.line(first));
                sink.error(
                    &address.place,
                    message,
                    "give each port addresses of its own, or remove this one",
                );
            }
        }
    }
}

/// Two ways out for one prefix would leave the choice to chance.
fn check_destinations_unique(ports: &Built<'_>, sink: &Sink<'_>) {
    let mut seen: HashMap<(TenantId, Prefix), (usize, &Place)> = HashMap::new();
    for (index, (port, tenant, _)) in ports.iter().enumerate() {
        for (to, place, on_link) in destinations(port) {
            let Some((first_port, first)) = seen.insert((*tenant, to), (index, place)) else { continue };
            // Two addresses of one network on one link are one way out.
            if on_link && first_port == index {
                continue;
            }
            let line = sink.line(first);
            if to.length == 0 {
                let remedy =
                    "keep one for each family and tenant, and reach other networks by [[port.route]]";
                sink.error(place, format!("a second default route; the first is on line {line}"), remedy);
            } else {
                let message = format!("there is another way to {to}, on line {line}");
                sink.error(place, message, "keep one way to each prefix of a tenant");
            }
        }
    }
}

/// What a port leads to: prefix, where that is written, and whether it is the link itself.
fn destinations(port: &RawPort) -> impl Iterator<Item = (Prefix, &Place, bool)> {
    let links = port.addresses.iter().map(|own| (network(own.value), &own.place, true));
    let routes = port.routes.iter().filter_map(|route| route.to.as_ref());
    let routes = routes.map(|to| (to.value, &to.place, false));
    // A gateway of the wrong family has been reported as such.
    let gateway = port.gateway.iter().filter(|gateway| gateway.value.is_v4());
    let gateways = gateway.chain(port.gateway6.iter().filter(|gateway| !gateway.value.is_v4()));
    let gateways = gateways.map(|gateway| (default_prefix(gateway.value), &gateway.place, false));
    links.filter(|(network, ..)| !is_link_local(network.address)).chain(routes).chain(gateways)
}

fn default_prefix(gateway: Ip) -> Prefix {
    network(Prefix { address: gateway, length: 0 })
}

/// How a packet gets to an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reach {
    /// It is on one of our links.
    OnLink,
    /// A gateway leads there.
    Routed,
}

/// The prefixes that one tenant's ports lead to, and whether the port has an address of their family.
pub(super) struct Reachable(Vec<(Prefix, Reach, bool)>);

impl Reachable {
    pub(super) fn new(ports: &[Port], tenant: TenantId) -> Reachable {
        let mut prefixes = Vec::new();
        for port in ports.iter().filter(|port| port.tenant == tenant) {
            let own_family =
                |to: Prefix| port.addresses.iter().any(|own| own.address.is_v4() == to.address.is_v4());
            let with = |to: Prefix, reach| (to, reach, own_family(to));
            prefixes.extend(port.addresses.iter().map(|own| with(*own, Reach::OnLink)));
            let reach = |via: Option<Ip>| if via.is_some() { Reach::Routed } else { Reach::OnLink };
            prefixes.extend(port.routes.iter().map(|route| with(route.to, reach(route.via))));
            let gateways = port.gateway.iter().chain(&port.gateway6);
            prefixes.extend(gateways.map(|gateway| with(default_prefix(*gateway), Reach::Routed)));
        }
        prefixes.sort_by_key(|(prefix, ..)| core::cmp::Reverse(prefix.length));
        Reachable(prefixes)
    }

    /// By the longest prefix: how, and whether we have an address of the family there.
    pub(super) fn find(&self, ip: Ip) -> Option<(Reach, bool)> {
        self.0.iter().find(|(prefix, ..)| prefix.contains(ip)).map(|&(_, reach, own)| (reach, own))
    }
}

/// Whether an address means something on one link only, so that no service can be built on it.
pub(super) fn check_not_link_local(ip: Ip, place: &Place, sink: &Sink<'_>) {
    if is_link_local(ip) {
        let remedy = "give a global or unique local address (fd00::/8)";
        sink.error(place, format!("{ip} is link-local: it says nothing of the port it is on"), remedy);
    }
}
