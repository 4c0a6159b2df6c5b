//! `[port.tunnel]`: ports whose frames travel inside those of another.

use super::fault::{At, Place, Sink};
use super::network::is_link_local;
use super::raw::RawPort;
use super::reader::Section;
use super::values::{choice, host, integer};
use crate::addr::Ip;
use crate::ids::PortId;
use crate::snapshot::{Encapsulation, TunnelEnd};
use crate::wire::vxlan::VNI_MAX;
use std::collections::HashMap;

/// What of a tunnel is written down.
pub(super) struct RawTunnelEnd {
    place: Place,
    kind: Option<At<Encapsulation>>,
    vni: Option<At<u32>>,
    remote: Option<At<Ip>>,
    port: Option<At<u16>>,
}

const KINDS: [(&str, Encapsulation); 2] = [
    (Encapsulation::Vxlan.name(), Encapsulation::Vxlan),
    (Encapsulation::Geneve.name(), Encapsulation::Geneve),
];

/// `None` if there is no such table.
pub(super) fn read(section: &Section<'_>) -> Option<RawTunnelEnd> {
    section.is_present().then(|| RawTunnelEnd {
        place: section.place.clone(),
        kind: section.required("kind", "\"vxlan\"", choice(&KINDS)),
        vni: section.required("vni", "100", integer(0..=i64::from(VNI_MAX))),
        remote: section.optional("remote", host),
        port: section.optional("port", integer(1..=65535)),
    })
}

impl RawTunnelEnd {
    /// The UDP port, if the kind is known.
    fn udp_port(&self) -> Option<u16> {
        let default = || self.kind.as_ref()?.value.default_port();
        self.port.as_ref().map(|port| port.value).or_else(default)
    }
}

/// The tunnel of `raw` by the port `link`, whose number is `id`.
pub(super) fn end(
    raw: &RawPort,
    tunnel: &RawTunnelEnd,
    link: &RawPort,
    id: PortId,
    sink: &Sink<'_>,
) -> Option<TunnelEnd> {
    for tag in [&raw.vlan, &raw.outer_vlan].into_iter().flatten() {
        let remedy = "remove it: the tunnel's vni tells its frames from others";
        sink.error(&tag.place, "frames inside of a tunnel have no tags", remedy);
    }
    match &tunnel.remote {
        Some(remote) => check_remote(remote, link, sink),
        None => check_one_way(raw, tunnel, sink),
    }
    let end = TunnelEnd {
        link: id,
        encapsulation: tunnel.kind.as_ref()?.value,
        port: tunnel.udp_port()?,
        vni: tunnel.vni.as_ref()?.value,
        remote: tunnel.remote.as_ref().map(|remote| remote.value),
    };
    check_mtu(raw, &end, link, sink);
    Some(end)
}

/// What is about a tunnel on a port that is not behind one.
pub(super) fn check_none(raw: &RawPort, sink: &Sink<'_>) {
    if let Some(tunnel) = raw.tunnel.as_ref().filter(|_| !raw.has_parent) {
        let remedy = "name the port that the far end is reached through as its parent, instead of a device";
        sink.error(&tunnel.place, "a tunnel does not end at a device", remedy);
    }
    if let Some(mac) = raw.mac.as_ref().filter(|_| raw.tunnel.is_none()) {
        let remedy = "remove it, or give the address to the device";
        sink.error(&mac.place, "a port that is not behind a tunnel has its device's", remedy);
    }
}

/// Packets for the far end must have a way, and an address to come from.
fn check_remote(remote: &At<Ip>, link: &RawPort, sink: &Sink<'_>) {
    let ip = remote.value;
    let name = link.name.as_ref().map_or("its parent", |name| name.value.as_str());
    // What was refused may be the very way.
    if sink.has_errors_in(&link.place.path) {
        return;
    }
    if is_link_local(ip) {
        let remedy = "give a global or unique local address (fd00::/8)";
        return sink.error(&remote.place, format!("{ip} is link-local"), remedy);
    }
    if link.addresses.iter().any(|own| own.value.address == ip) {
        return sink.error(&remote.place, format!("{ip} is our own address"), "give the far end's");
    }
    if !link.addresses.iter().any(|own| own.value.address.is_v4() == ip.is_v4()) {
        let family = if ip.is_v4() { "IPv4" } else { "IPv6" };
        let remedy = format!("add an {family} address to port {name:?}");
        return sink.error(&remote.place, format!("there is no {family} address to send from"), remedy);
    }
    let routes = link.routes.iter().filter_map(|route| route.to.as_ref());
    let on_way = link.addresses.iter().chain(routes).any(|prefix| prefix.value.contains(ip));
    let gateway = if ip.is_v4() { &link.gateway } else { &link.gateway6 };
    if !on_way && gateway.is_none() {
        let remedy = format!("give port {name:?} a gateway or a [[port.route]] that leads there");
        sink.error(&remote.place, format!("{ip} is not reached through port {name:?}"), remedy);
    }
}

/// Without a far end nothing can be sent.
fn check_one_way(raw: &RawPort, tunnel: &RawTunnelEnd, sink: &Sink<'_>) {
    let gateways = [&raw.gateway, &raw.gateway6].into_iter().flatten().map(|at| &at.place);
    for place in gateways.chain(raw.routes.iter().filter_map(|route| Some(&route.to.as_ref()?.place))) {
        let remedy = format!("add remote = \"ADDRESS\" to {}, or remove this", tunnel.place.path);
        sink.error(place, "nothing can be sent: the tunnel's far end is not known", remedy);
    }
}

fn check_mtu(raw: &RawPort, end: &TunnelEnd, link: &RawPort, sink: &Sink<'_>) {
    let (Some(own), Some(link)) = (&raw.mtu, &link.mtu) else { return };
    let most = link.value.saturating_sub(end.overhead());
    if own.value > most {
        let message = format!("{} does not fit into packets of {} bytes", own.value, link.value);
        sink.error(&own.place, message, format!("lower it to {most}, or raise the parent's"));
    }
}

/// What comes out of a tunnel must say which port it is for.
pub(super) fn check_networks(all: &[&RawPort], sink: &Sink<'_>) {
    let mut kinds: HashMap<(&str, u16), (Encapsulation, &Place)> = HashMap::new();
    let mut networks: HashMap<(&str, u16, u32, Option<Ip>), &Place> = HashMap::new();
    for &raw in all {
        let (Some(tunnel), Some(link)) = (&raw.tunnel, &raw.parent) else { continue };
        let (Some(kind), Some(port)) = (&tunnel.kind, tunnel.udp_port()) else { continue };
        let (first, place) = *kinds.entry((&link.value, port)).or_insert((kind.value, &tunnel.place));
        if first != kind.value {
            let message =
                format!("UDP port {port} is that of {}, on line {}", first.name(), sink.line(place));
            sink.error(&kind.place, message, "give each kind of tunnel a port of its own");
        }
        let Some(vni) = &tunnel.vni else { continue };
        let remote = tunnel.remote.as_ref().map(|remote| remote.value);
        if let Some(first) = networks.insert((&link.value, port, vni.value, remote), &vni.place) {
            let message = format!("is the network of the port on line {}", sink.line(first));
            sink.error(&vni.place, message, "give each port a vni, or a remote, of its own");
        }
    }
}
