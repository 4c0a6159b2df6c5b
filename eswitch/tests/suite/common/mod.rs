//! A device on a bench: frames in, doors out.

pub(crate) mod queues;

use std::sync::Arc;

use dataplane::ids::PortId;
use dataplane::packet::{Burst, PacketBuf, TestPacket};
use eswitch::model::action::Action;
use eswitch::model::item::{Header, Item, Layer};
use eswitch::model::profile::Profile;
use eswitch::model::refusal::Refusal;
use eswitch::model::switch::{DropReason, Eswitch, Fabric, RxConfig, RxMeta};
use eswitch::model::types::{Attr, Role, RuleHandle, Steering, Tick, Topology, Vport, VportInfo};
use eswitch::model::validate::{Context, Port};

/// The uplink, represented by ethdev 0.
pub(crate) const WIRE: Vport = Vport(0);
/// The host, represented by ethdev 1.
pub(crate) const HOST: Vport = Vport(1);
/// A second uplink, represented by ethdev 2.
pub(crate) const WIRE2: Vport = Vport(2);

/// Where a packet left.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Door {
    /// Onto a wire.
    Wire(Vport, Vec<u8>),
    /// To a receive queue.
    Rx(Vport, RxMeta, Vec<u8>),
    /// Nowhere.
    Drop(DropReason),
}

/// Collects what leaves.
#[derive(Default)]
pub(crate) struct Doors(pub(crate) Vec<Door>);

impl Fabric<TestPacket> for Doors {
    fn transmit(&mut self, to: Vport, packet: TestPacket) {
        self.0.push(Door::Wire(to, packet.data().to_vec()));
    }

    fn receive(&mut self, at: Vport, meta: RxMeta, packet: TestPacket) {
        self.0.push(Door::Rx(at, meta, packet.data().to_vec()));
    }

    fn copy(&mut self, packet: &TestPacket) -> Option<TestPacket> {
        Some(packet.clone())
    }

    fn discard(&mut self, reason: DropReason, _packet: TestPacket) {
        self.0.push(Door::Drop(reason));
    }
}

/// A device with two uplinks and a host, all started and promiscuous, and a clock.
pub(crate) struct Bench {
    pub(crate) device: Eswitch,
    pub(crate) now: Tick,
}

impl Bench {
    pub(crate) fn new(steering: Steering) -> Bench {
        Bench::with(steering, |_| {})
    }

    pub(crate) fn with(steering: Steering, change: impl FnOnce(&mut Context)) -> Bench {
        let profile = Profile::named("ideal").expect("a built-in profile");
        let mut context = profile.context(Topology::new(vports()));
        context.steering = steering;
        change(&mut context);
        let mut device = Eswitch::new(Arc::new(context), &profile, 1);
        for vport in [WIRE, HOST, WIRE2] {
            let config = RxConfig { promiscuous: true, queues: 1, ..RxConfig::default() };
            device.start(vport, config).expect("starts");
        }
        Bench { device, now: Tick(Tick::SECOND) }
    }

    /// A rule of the synchronous API.
    pub(crate) fn rule(
        &mut self,
        port: Vport,
        attr: Attr,
        items: &[Item<'_>],
        actions: &[Action<'_>],
    ) -> Result<RuleHandle, Refusal> {
        let prepared =
            self.device.context().clone().prepare(&Port::new(port, true), &attr, items, actions)?;
        self.device.install(self.now, prepared)
    }

    /// One frame from a vport's wire; where it left, and its copies.
    pub(crate) fn wire(&mut self, from: Vport, frame: &[u8]) -> Vec<Door> {
        self.send(from, false, &[frame])
    }

    /// One frame that the application transmits on a representor.
    pub(crate) fn manager(&mut self, on: Vport, frame: &[u8]) -> Vec<Door> {
        self.send(on, true, &[frame])
    }

    /// A burst.
    pub(crate) fn send(&mut self, from: Vport, manager: bool, frames: &[&[u8]]) -> Vec<Door> {
        let mut burst: Burst<TestPacket> =
            frames.iter().map(|frame| TestPacket::new(PortId(0), frame)).collect();
        let mut doors = Doors::default();
        self.device.forward(self.now, from, manager, &mut burst, &mut doors);
        assert!(burst.is_empty(), "the device takes whole bursts");
        doors.0
    }
}

/// Two uplinks and a host, in the order of the constants above.
pub(crate) fn vports() -> Vec<VportInfo> {
    let vports = [(Role::Uplink(0), 0), (Role::Host(0), 1), (Role::Uplink(1), 2)];
    vports.map(|(role, port_id)| VportInfo { role, port_id }).to_vec()
}

/// A transfer rule's attributes.
pub(crate) fn transfer(group: u32, priority: u32) -> Attr {
    Attr { group, priority, transfer: true, ..Attr::default() }
}

/// An ingress rule's attributes.
pub(crate) fn ingress(group: u32) -> Attr {
    Attr { group, ingress: true, ..Attr::default() }
}

/// Any header of this layer.
pub(crate) fn any(layer: Layer) -> Item<'static> {
    Item::Header(Header::any(layer))
}

/// From this ethdev's vport.
pub(crate) fn from(port_id: u16) -> Item<'static> {
    Item::RepresentedPort { port_id: Some(port_id), mask: u16::MAX }
}

/// The ones' complement sum of RFC 1071, over everything: slow and plain.
pub(crate) fn sum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// An IPv4 packet with this payload.
pub(crate) fn ipv4(source: [u8; 4], destination: [u8; 4], ttl: u8, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    packet.extend((20 + payload.len() as u16).to_be_bytes());
    packet.extend([0, 0, 0x40, 0, ttl, protocol, 0, 0]);
    packet.extend(source);
    packet.extend(destination);
    let checksum = sum(&packet);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet.extend(payload);
    packet
}

/// A TCP segment over IPv4, checksums right.
pub(crate) fn tcp4(from: ([u8; 4], u16), to: ([u8; 4], u16), ttl: u8, flags: u8, data: &[u8]) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(from.1.to_be_bytes());
    segment.extend(to.1.to_be_bytes());
    segment.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 0x10, 0, 0, 0, 0, 0]);
    segment.extend(data);
    let mut pseudo = [from.0.as_slice(), &to.0, &[0, 6]].concat();
    pseudo.extend((segment.len() as u16).to_be_bytes());
    pseudo.extend(&segment);
    let checksum = sum(&pseudo);
    segment[16..18].copy_from_slice(&checksum.to_be_bytes());
    ipv4(from.0, to.0, ttl, 6, &segment)
}

/// An Ethernet frame.
pub(crate) fn ether(destination: u8, source: u8, ether_type: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, destination, 2, 0, 0, 0, 0, source];
    frame.extend(ether_type.to_be_bytes());
    frame.extend(payload);
    frame
}
