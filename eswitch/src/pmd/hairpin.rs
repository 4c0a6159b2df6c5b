//! Binding hairpin queues of two ports. Those of one port are bound when it starts; the others carry nothing
//! until the application binds the ports, as on mlx5 (`mlx5_hairpin_bind`).

use std::ffi::c_int;
use std::sync::atomic::Ordering;

use super::device::{EINVAL, PortPrivate, port_of};
use super::{border, ffi, log, queues};
use crate::model::types::Vport;

const EBUSY: i32 = 16;
const ENODEV: i32 = 19;

/// The application's word for "all peers".
const ALL: u16 = ffi::RTE_MAX_ETHPORTS as u16;

/// The receiving ports of this port's hairpin queues, each once.
fn receivers(data: &ffi::rte_eth_dev_data) -> Vec<Vport> {
    let peers = queues::transmit(data).into_iter().filter_map(|queue| queue.hairpin).map(|(peer, _)| peer);
    distinct(peers)
}

/// The transmitting ports of this port's hairpin queues, each once.
fn transmitters(data: &ffi::rte_eth_dev_data) -> Vec<Vport> {
    let peers = queues::receive(data).into_iter().filter_map(|queue| queue.hairpin).map(|(peer, _)| peer);
    distinct(peers)
}

fn distinct(peers: impl Iterator<Item = Vport>) -> Vec<Vport> {
    let mut all = Vec::new();
    for peer in peers {
        if !all.contains(&peer) {
            all.push(peer);
        }
    }
    all
}

/// The ports that a call is about.
fn wanted(port: &PortPrivate, data: &ffi::rte_eth_dev_data, receiver: u16) -> Result<Vec<Vport>, i32> {
    if receiver == ALL {
        return Ok(receivers(data));
    }
    port.switch.topology.vport_of(receiver).map(|vport| vec![vport]).ok_or(ENODEV)
}

/// Binds or unbinds the queues that lead from this port to another one.
fn couple(port: &PortPrivate, data: &ffi::rte_eth_dev_data, receiver: Vport, bind: bool) -> Result<(), i32> {
    let shared = port.switch.ports.get(usize::from(receiver.0)).ok_or(ENODEV)?;
    let device = shared.device();
    if device.is_null() {
        return Err(ENODEV);
    }
    if bind && !shared.started.load(Ordering::Acquire) {
        log::error(&format!("port {}: start port {} before binding to it", port.port_id, shared.port_id));
        return Err(EBUSY);
    }
    // SAFETY: an open port of this driver, whose control path is the application's one control thread's.
    let (other, other_data) = unsafe { (port_of(device), &*(*device).data) };
    let receive = queues::receive(other_data);
    let mut mates = Vec::new();
    for (number, queue) in queues::transmit(data).iter().enumerate() {
        let Some((peer, peer_queue)) = queue.hairpin else { continue };
        if peer != receiver {
            continue;
        }
        let mate = receive.get(usize::from(peer_queue));
        let Some(mate) = mate.filter(|mate| mate.hairpin == Some((port.vport, number as u16))) else {
            log::error(&format!(
                "port {}: hairpin Tx queue {number} has no Rx queue {peer_queue} of port {} bound to it",
                port.port_id, shared.port_id
            ));
            return Err(EINVAL);
        };
        mates.push(mate);
    }
    mates.iter().for_each(|mate| mate.bound.store(bind, Ordering::Release));
    other.reconfigure(device);
    Ok(())
}

/// `hairpin_bind`: from this port, which transmits, to `receiver`.
pub(super) unsafe extern "C" fn bind(device: *mut ffi::rte_eth_dev, receiver: u16) -> c_int {
    border::status("hairpin_bind", || {
        // SAFETY: ethdev passes an open port of this driver.
        let (port, data) = unsafe { (port_of(device), &*(*device).data) };
        wanted(port, data, receiver)?.into_iter().try_for_each(|vport| couple(port, data, vport, true))
    })
}

/// `hairpin_unbind`
pub(super) unsafe extern "C" fn unbind(device: *mut ffi::rte_eth_dev, receiver: u16) -> c_int {
    border::status("hairpin_unbind", || {
        // SAFETY: ethdev passes an open port of this driver.
        let (port, data) = unsafe { (port_of(device), &*(*device).data) };
        wanted(port, data, receiver)?.into_iter().try_for_each(|vport| couple(port, data, vport, false))
    })
}

/// `hairpin_get_peer_ports`: how many; `direction` is 0 if this port receives.
pub(super) unsafe extern "C" fn peers(
    device: *mut ffi::rte_eth_dev,
    ports: *mut u16,
    room: usize,
    direction: u32,
) -> c_int {
    border::guard("hairpin_get_peer_ports", -border::EIO, || {
        // SAFETY: ethdev passes an open port of this driver.
        let (port, data) = unsafe { (port_of(device), &*(*device).data) };
        let peers = if direction == 0 { transmitters(data) } else { receivers(data) };
        if ports.is_null() || peers.len() > room {
            return -EINVAL;
        }
        for (at, peer) in peers.iter().enumerate() {
            let number = port.switch.topology.get(*peer).map_or(u16::MAX, |info| info.port_id);
            // SAFETY: there is room for so many.
            unsafe { *ports.add(at) = number };
        }
        peers.len() as c_int
    })
}
