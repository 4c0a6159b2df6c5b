//! XenoFlow's two entries, as rules of the software eSwitch: by the lowest bit of the source address, another
//! destination MAC, out of the other port, and a counter for each.

use std::sync::Arc;

use dataplane::ids::PortId;
use dataplane::packet::{Burst, PacketBuf, TestPacket};

use crate::model::action::Action;
use crate::model::item::{Header, Item, Layer};
use crate::model::profile::Profile;
use crate::model::refusal::Refusal;
use crate::model::switch::{DropReason, Eswitch, Fabric, RxMeta};
use crate::model::types::{Attr, Role, Steering, Tick, Topology, Vport, VportInfo};
use crate::model::validate::Port;

/// The backends' MAC addresses.
const BACKENDS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 0x10], [2, 0, 0, 0, 0, 0x11]];

/// A device with both rules.
pub struct Balancer {
    device: Eswitch,
}

/// What left the second port: the destination MAC addresses.
#[derive(Default)]
struct Left(Vec<[u8; 6]>);

impl Fabric<TestPacket> for Left {
    fn transmit(&mut self, to: Vport, packet: TestPacket) {
        if let (Vport(1), Some(mac)) = (to, packet.data().first_chunk()) {
            self.0.push(*mac);
        }
    }

    fn receive(&mut self, _: Vport, _: RxMeta, _: TestPacket) {}

    fn copy(&mut self, _: &TestPacket) -> Option<TestPacket> {
        None
    }

    fn discard(&mut self, _: DropReason, _: TestPacket) {}
}

impl Balancer {
    /// Makes the rules, on a device with this profile's limits.
    ///
    /// # Errors
    /// What the device refuses.
    pub fn new(profile: &Profile) -> Result<Balancer, Refusal> {
        let ports = [(Role::Uplink(0), 0), (Role::Uplink(1), 1)];
        let ports = ports.map(|(role, port_id)| VportInfo { role, port_id });
        let mut context = profile.context(Topology::new(ports.to_vec()));
        // One after the other, before there is any traffic: the synchronous API.
        context.steering = Steering::Software;
        let mut device = Eswitch::new(Arc::new(context), profile, 1);
        let mut mask = [0; 20];
        mask[15] = 1;
        for (number, mac) in BACKENDS.iter().enumerate() {
            let mut address = [0; 20];
            address[15] = number as u8;
            let items = [
                Item::Header(Header::any(Layer::Eth)),
                Item::Header(Header::masked(Layer::Ipv4, &address, &mask)),
            ];
            let actions = [Action::SetMacDst(*mac), Action::Count, Action::RepresentedPort(Some(1))];
            let attr = Attr { transfer: true, ..Attr::default() };
            let rule = device.context().prepare(&Port::new(Vport(0), true), &attr, &items, &actions)?;
            device.install(Tick(1), rule)?;
        }
        Ok(Balancer { device })
    }

    /// Which backend the rules send this source's packets to; `None` if to none.
    pub fn backend(&mut self, source: u32) -> Option<u8> {
        let mut burst: Burst<TestPacket> = Burst::new();
        burst.push(TestPacket::new(PortId(0), &frame(source)));
        let mut left = Left::default();
        self.device.forward(Tick(Tick::SECOND), Vport(0), false, &mut burst, &mut left);
        let mac = left.0.first()?;
        BACKENDS.iter().position(|known| known == mac).map(|at| at as u8)
    }
}

/// A DNS client's datagram without a question: from 10.0.0.0 and on.
fn frame(source: u32) -> [u8; 60] {
    let mut frame = [0; 60];
    frame[..12].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
    frame[12..14].copy_from_slice(&[8, 0]);
    frame[14..24].copy_from_slice(&[0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17]);
    frame[26..30].copy_from_slice(&(0x0a00_0000 | source).to_be_bytes());
    frame[30..34].copy_from_slice(&[192, 0, 2, 53]);
    frame[34..42].copy_from_slice(&[0x80, 0, 0, 53, 0, 8, 0, 0]);
    frame
}
