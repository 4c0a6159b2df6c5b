//! `[service.tunnel]`: how packets are wrapped for backends.

use super::fault::{At, Place, Sink};
use super::raw::RawService;
use super::reader::Section;
use super::values::{Complaint, Value, boolean, integer, mac};
use crate::addr::MacAddr;
use crate::snapshot::{Encapsulation, Mode, Tunnel};
use crate::wire::vxlan::VNI_MAX;

/// What of a tunnel is written down.
pub(super) struct RawTunnel {
    place: Option<Place>,
    port: Option<At<u16>>,
    vni: Option<At<u32>>,
    inner_mac: Option<At<MacAddr>>,
    dscp: Option<At<Option<u8>>>,
    udp6_checksum: Option<At<bool>>,
}

/// The modes that have a tunnel, by name.
pub(super) fn modes() -> impl Iterator<Item = (&'static str, Mode)> {
    Encapsulation::ALL.into_iter().map(|kind| (kind.name(), Mode::Tunnel(Tunnel::new(kind))))
}

pub(super) fn read(section: &Section<'_>) -> RawTunnel {
    RawTunnel {
        place: section.is_present().then(|| section.place.clone()),
        port: section.optional("port", integer(1..=65535)),
        vni: section.optional("vni", integer(0..=i64::from(VNI_MAX))),
        inner_mac: section.optional("inner_mac", mac),
        dscp: section.optional("dscp", dscp),
        udp6_checksum: section.optional("udp6_checksum", boolean),
    }
}

/// `"copy"`, or a code point.
fn dscp(value: &Value<'_>) -> Result<Option<u8>, Complaint> {
    match value.as_str() {
        Some("copy") => Ok(None),
        Some(text) => {
            let remedy =
                "write \"copy\", or a number from 0 to 63 without quotes: 46 is expedited forwarding";
            Err(Complaint::new(format!("unknown value {text:?}"), remedy))
        }
        None => integer(0..=63)(value).map(Some),
    }
}

/// The mode of a service, with what its tunnel is told.
pub(super) fn mode(raw: &RawService, sink: &Sink<'_>) -> Option<Mode> {
    let mode = raw.mode.as_ref()?.value;
    let Mode::Tunnel(default) = mode else {
        if let Some(place) = &raw.tunnel.place {
            let remedy = "set mode to \"ipip\", \"gue\", \"vxlan\" or \"geneve\", or remove the section";
            sink.error(place, "a tunnel for a mode that has none", remedy);
        }
        return Some(mode);
    };
    check_needless(raw, default.encapsulation, sink);
    check_missing(raw, default.encapsulation, sink);
    let RawTunnel { port, vni, inner_mac, dscp, udp6_checksum, .. } = &raw.tunnel;
    Some(Mode::Tunnel(Tunnel {
        encapsulation: default.encapsulation,
        port: port.as_ref().map_or(default.port, |at| at.value),
        vni: vni.as_ref().map_or(default.vni, |at| at.value),
        inner_mac: inner_mac.as_ref().map_or(default.inner_mac, |at| at.value),
        dscp: dscp.as_ref().map_or(default.dscp, |at| at.value),
        udp6_checksum: udp6_checksum.as_ref().map_or(default.udp6_checksum, |at| at.value),
    }))
}

/// Reports keys of what the encapsulation does not have.
fn check_needless(raw: &RawService, encapsulation: Encapsulation, sink: &Sink<'_>) {
    let place = |at: Option<&Place>, what: &'static str| at.cloned().map(|place| (place, what));
    let RawTunnel { port, vni, inner_mac, udp6_checksum, .. } = &raw.tunnel;
    let mut needless = Vec::new();
    if encapsulation.default_port().is_none() {
        needless.extend(place(port.as_ref().map(|at| &at.place), "UDP"));
        needless.extend(place(udp6_checksum.as_ref().map(|at| &at.place), "UDP"));
    }
    if !encapsulation.has_ethernet() {
        needless.extend(place(vni.as_ref().map(|at| &at.place), "network number"));
        needless.extend(place(inner_mac.as_ref().map(|at| &at.place), "Ethernet header"));
    }
    for (place, what) in needless {
        sink.error(&place, format!("{} has no {what}", encapsulation.name()), "remove the key");
    }
}

/// Reports keys that the encapsulation cannot do without.
fn check_missing(raw: &RawService, encapsulation: Encapsulation, sink: &Sink<'_>) {
    let tunnel = &raw.tunnel;
    let path = raw.place.path.key("tunnel");
    if !encapsulation.has_ethernet() || sink.has_errors_in(&path) {
        return;
    }
    let span = tunnel.place.as_ref().unwrap_or(&raw.place).span.clone();
    let place = Place { path, span };
    let name = encapsulation.name();
    if tunnel.vni.is_none() {
        let remedy = format!("add [service.tunnel] with vni = NUMBER: that of the backends' {name} devices");
        sink.error(&place, format!("{name} needs a vni"), remedy);
    }
    if tunnel.inner_mac.is_none() {
        let remedy = format!(
            "add inner_mac = \"02:00:00:00:00:01\" to [service.tunnel] and give the backends' {name} devices \
             that address"
        );
        sink.error(&place, format!("{name} needs an inner_mac"), remedy);
    }
}
