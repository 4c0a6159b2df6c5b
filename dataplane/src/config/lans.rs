//! Ports on the devices of others: what must hold between them and those.

use super::fault::{At, Sink};
use super::network::find_name;
use super::raw::RawPort;
use super::{Attachment, Port, tunnel_ports};
use crate::ids::PortId;
use crate::limits;
use crate::snapshot::VlanTags;
use std::collections::HashMap;

/// The order in which ports are numbered: those with devices first, so that a device's number is its port's,
/// and those behind tunnels last, behind the ports that their packets go by.
pub(super) fn devices_first(raw: &[RawPort]) -> Vec<&RawPort> {
    let mut ports: Vec<&RawPort> = raw.iter().collect();
    ports.sort_by_key(|port| (port.has_parent, port.has_tunnel));
    ports
}

/// The names of ports, to find one by. One without a name keeps its index: no valid name is empty.
pub(super) fn names<'a>(all: &'a [&RawPort]) -> impl Iterator<Item = &'a str> + Clone {
    all.iter().map(|port| port.name.as_ref().map_or("", |name| name.value.as_str()))
}

impl RawPort {
    /// The tags of its frames.
    pub(super) fn tags(&self) -> VlanTags {
        let value = |at: &Option<At<u16>>| at.as_ref().map(|at| at.value);
        VlanTags { outer: value(&self.outer_vlan), inner: value(&self.vlan) }
    }
}

pub(super) fn check_counts(ports: &[&RawPort], sink: &Sink<'_>) {
    if let Some(excess) = ports.get(limits::PORTS_MAX) {
        let remedy = format!("have at most {}", limits::PORTS_MAX);
        sink.error(&excess.place, "too many ports", remedy);
    }
    let devices = ports.iter().filter(|port| !port.has_parent);
    if let Some(excess) = devices.clone().nth(limits::DEVICES_MAX) {
        let remedy = format!("have at most {}; others may have one of them as parent", limits::DEVICES_MAX);
        sink.error(&excess.place, "too many ports with devices", remedy);
    }
}

/// What a port's frames travel by.
pub(super) fn attachment(raw: &RawPort, all: &[&RawPort], sink: &Sink<'_>) -> Option<Attachment> {
    tunnel_ports::check_none(raw, sink);
    if !raw.has_parent {
        return raw.device.as_ref().map(|device| Attachment::Device(device.value.clone()));
    }
    for (key, place) in &raw.of_device {
        let remedy = "remove it here, and set it there if it is to hold";
        sink.error(place, format!("`{key}` is the business of the port whose device this is"), remedy);
    }
    if !raw.has_vlan && !raw.has_tunnel {
        let remedy = "give it a vlan of its own, or a tunnel";
        sink.error(&raw.place, "nothing tells its frames from its parent's", remedy);
    }
    let parent = raw.parent.as_ref()?;
    let index = find_name(parent, "port", names(all), sink)?;
    let found = all.get(usize::from(index))?;
    if raw.has_tunnel && found.has_tunnel {
        let remedy = "name a port that has a device or a vlan";
        sink.error(&parent.place, format!("{:?} is behind a tunnel itself", parent.value), remedy);
        return None;
    }
    if let Some(tunnel) = &raw.tunnel {
        let mac = raw.mac.as_ref().map(|mac| mac.value);
        let end = tunnel_ports::end(raw, tunnel, found, PortId(index), sink)?;
        return Some(Attachment::Tunnel { end, mac });
    }
    if found.has_parent {
        let remedy = "name the port that has the device";
        sink.error(&parent.place, format!("{:?} has no device of its own", parent.value), remedy);
        return None;
    }
    if let (Some(own), Some(most)) = (&raw.mtu, &found.mtu) {
        if own.value > most.value {
            let message = format!("{} is more than its parent's {}", own.value, most.value);
            sink.error(&own.place, message, "lower this one, or raise that one");
        }
    }
    Some(Attachment::Vlan(PortId(index)))
}

/// Frames of one device must say which port they are for.
pub(super) fn check_tags(all: &[&RawPort], sink: &Sink<'_>) {
    let mut seen: HashMap<(&str, VlanTags), &RawPort> = HashMap::new();
    for &port in all.iter().filter(|port| !port.has_tunnel) {
        let device = if port.has_parent { &port.parent } else { &port.name };
        let Some(device) = device else { continue };
        let Some(first) = seen.insert((&device.value, port.tags()), port) else { continue };
        // Ports of one name, and those without tags, have been reported as such.
        if port.has_parent && port.has_vlan {
            let place = port.vlan.as_ref().map_or(&port.place, |vlan| &vlan.place);
            let message = format!("has the tags of the port on line {}", sink.line(&first.place));
            sink.error(place, message, "give each port of a device tags of its own");
        }
    }
}

/// What ports on the devices of others have from those, and the other way round.
pub(super) fn inherit(ports: &mut [Port]) {
    for index in 0..ports.len() {
        let Some(parent) = ports[index].parent() else { continue };
        let child_passes = ports[index].pass_to.is_some();
        let Some(parent) = ports.get_mut(parent.index()) else { continue };
        parent.promiscuous |= child_passes;
        let Port { rx_descriptors, tx_descriptors, hairpin, faces, .. } = *parent;
        let port = &mut ports[index];
        (port.rx_descriptors, port.tx_descriptors) = (rx_descriptors, tx_descriptors);
        (port.hairpin, port.faces) = (hairpin, faces);
    }
}
