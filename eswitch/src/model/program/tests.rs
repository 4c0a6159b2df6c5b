//! Programs on packets, against packets built from scratch.

mod agreement;
mod compile;
mod fields;
mod oracle;
mod refusals;
mod shapes;

use dataplane::ids::PortId;
use dataplane::packet::{PacketBuf, TestPacket};

use super::{Edits, Program};
use crate::model::action::Action;
use crate::model::key::{Registers, parse};
use crate::model::switch::DropReason;
use crate::model::types::{Role, Topology, Vport, VportInfo};

/// Uplink (ethdev 4) and host (ethdev 5).
fn topology() -> Topology {
    let uplink = VportInfo { role: Role::Uplink(0), port_id: 4 };
    let host = VportInfo { role: Role::Host(0), port_id: 5 };
    Topology::new(vec![uplink, host])
}

fn compiled(actions: &[Action<'_>]) -> Program {
    Program::compile(actions, &topology()).expect("compiles")
}

fn registers() -> Registers {
    Registers::from(Vport(0), false)
}

/// The frame and registers after these edits. The headers kept must be those of the new frame.
fn edited(edits: &Edits, frame: &[u8]) -> Result<(Vec<u8>, Registers), DropReason> {
    let mut packet = TestPacket::new(PortId(0), frame);
    let (mut headers, mut registers) = (parse(frame), registers());
    edits.apply(&mut packet, &mut headers, &mut registers)?;
    Ok((packet.data().to_vec(), registers))
}

fn applied(actions: &[Action<'_>], frame: &[u8]) -> Result<Vec<u8>, DropReason> {
    edited(&compiled(actions).edits, frame).map(|(frame, _)| frame)
}
