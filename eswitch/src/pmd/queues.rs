//! Queues of a representor: set-up, release, and hairpin pairs.

use std::ffi::c_int;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::device::{EINVAL, ENOMEM, PortPrivate, port_of};
use super::rxtx::{self, RxQueue, TxQueue};
use super::{border, ffi, log};

/// Queues a port has at most, each way.
pub(super) const MAX: u16 = 256;

/// Descriptors a queue has at most.
pub(super) const DESCRIPTORS_MAX: u16 = 32_768;

/// The receive queues that are set up.
pub(super) fn receive(data: &ffi::rte_eth_dev_data) -> Vec<&RxQueue> {
    pointers(data.rx_queues, data.nb_rx_queues)
        // SAFETY: what the set-up stored: a queue that lives until its release, which ethdev does not call
        // meanwhile.
        .filter_map(|queue| unsafe { queue.cast::<RxQueue>().as_ref() })
        .collect()
}

/// The transmit queues that are set up.
pub(super) fn transmit(data: &ffi::rte_eth_dev_data) -> Vec<&TxQueue> {
    // SAFETY: as above.
    pointers(data.tx_queues, data.nb_tx_queues)
        .filter_map(|queue| unsafe { queue.cast::<TxQueue>().as_ref() })
        .collect()
}

fn pointers(queues: *mut *mut std::ffi::c_void, count: u16) -> impl Iterator<Item = *mut std::ffi::c_void> {
    let count = if queues.is_null() { 0 } else { usize::from(count) };
    // SAFETY: ethdev's array has an element for each queue.
    (0..count).map(move |at| unsafe { *queues.add(at) })
}

/// Every queue is set up, and every hairpin queue has its other end in this switch.
pub(super) fn check(port: &PortPrivate, data: &ffi::rte_eth_dev_data) -> Result<(), i32> {
    let (rx, tx) = (receive(data), transmit(data));
    if rx.len() != usize::from(data.nb_rx_queues) || tx.len() != usize::from(data.nb_tx_queues) {
        log::error(&format!("port {}: set up every configured queue before starting", port.port_id));
        return Err(EINVAL);
    }
    for (number, queue) in rx.iter().enumerate() {
        let Some((peer, peer_queue)) = queue.hairpin else { continue };
        let mate = (port.vport, number as u16);
        // The other end of another port may be set up later.
        let missing = tx.get(usize::from(peer_queue)).is_none_or(|queue| queue.hairpin != Some(mate));
        if peer == port.vport && missing {
            log::error(&format!(
                "port {}: hairpin Rx queue {number} has no Tx queue {peer_queue} bound to it",
                port.port_id
            ));
            return Err(EINVAL);
        }
    }
    Ok(())
}

/// Records whether the queues run; applications skip those that do not. A hairpin queue's state stays.
///
/// # Safety
/// An open port of this driver, which is being started or stopped.
pub(super) unsafe fn set_state(device: *mut ffi::rte_eth_dev, state: u32) {
    // SAFETY: the caller's promise; only starting and stopping write these fields, on one thread.
    let (rx, tx, rx_states, tx_states) = unsafe {
        let data = (*device).data;
        let counts = ((*data).nb_rx_queues, (*data).nb_tx_queues);
        (counts.0, counts.1, &mut (*data).rx_queue_state, &mut (*data).tx_queue_state)
    };
    let hairpin = ffi::RTE_ETH_QUEUE_STATE_HAIRPIN as u8;
    let (rx, tx) = (usize::from(rx), usize::from(tx));
    let queues = rx_states.iter_mut().take(rx).chain(tx_states.iter_mut().take(tx));
    queues.filter(|queue| **queue != hairpin).for_each(|queue| *queue = state as u8);
}

pub(super) unsafe extern "C" fn rx_setup(
    device: *mut ffi::rte_eth_dev,
    queue: u16,
    descriptors: u16,
    socket: u32,
    _config: *const ffi::rte_eth_rxconf,
    pool: *mut ffi::rte_mempool,
) -> c_int {
    border::status("rx_queue_setup", || {
        // SAFETY: ethdev passes a configured port of this driver.
        let port = unsafe { port_of(device) };
        let ring = rxtx::new_ring(descriptors, socket);
        if ring.is_null() {
            log::error(&format!("port {}: no memory for Rx queue {queue}", port.port_id));
            return Err(ENOMEM);
        }
        // SAFETY: the application's pool of mbufs; without a private area of its own, it cannot tell ours
        // from its own.
        let copies = !pool.is_null() && unsafe { ffi::eswitch_pool_private_size(pool) } > 0;
        let switch = Arc::clone(&port.switch);
        let made = RxQueue {
            switch,
            ring,
            hairpin: None,
            bound: AtomicBool::new(false),
            pool,
            copies,
            descriptors,
            stats: Default::default(),
            heard: Default::default(),
        };
        // SAFETY: as above.
        unsafe { store_rx(device, queue, made) };
        Ok(())
    })
}

pub(super) unsafe extern "C" fn tx_setup(
    device: *mut ffi::rte_eth_dev,
    queue: u16,
    descriptors: u16,
    socket: u32,
    _config: *const ffi::rte_eth_txconf,
) -> c_int {
    border::status("tx_queue_setup", || {
        // SAFETY: ethdev passes a configured port of this driver.
        let port = unsafe { port_of(device) };
        let ring = rxtx::new_ring(descriptors, socket);
        if ring.is_null() {
            log::error(&format!("port {}: no memory for Tx queue {queue}", port.port_id));
            return Err(ENOMEM);
        }
        let switch = Arc::clone(&port.switch);
        let made = TxQueue {
            switch,
            ring,
            hairpin: None,
            descriptors,
            stats: Default::default(),
            heard: Default::default(),
        };
        // SAFETY: as above.
        unsafe { store_tx(device, queue, made) };
        Ok(())
    })
}

/// Puts a queue in its place; an earlier one goes.
///
/// # Safety
/// A configured, stopped port of this driver with such a queue.
unsafe fn store_rx(device: *mut ffi::rte_eth_dev, number: u16, queue: RxQueue) {
    // SAFETY: the caller's promise; ethdev's array has an element for each queue.
    unsafe {
        rx_release(device, number);
        *(*(*device).data).rx_queues.add(usize::from(number)) = Box::into_raw(Box::new(queue)).cast();
    }
}

/// As [`store_rx`].
///
/// # Safety
/// As there.
unsafe fn store_tx(device: *mut ffi::rte_eth_dev, number: u16, queue: TxQueue) {
    // SAFETY: as in `store_rx`.
    unsafe {
        tx_release(device, number);
        *(*(*device).data).tx_queues.add(usize::from(number)) = Box::into_raw(Box::new(queue)).cast();
    }
}

pub(super) unsafe extern "C" fn rx_release(device: *mut ffi::rte_eth_dev, number: u16) {
    border::guard("rx_queue_release", (), || {
        // SAFETY: a stopped port of this driver; what is stored is a leaked box or null.
        unsafe {
            let data = &mut *(*device).data;
            if !data.rx_queues.is_null() {
                let slot = &mut *data.rx_queues.add(usize::from(number));
                let queue = std::mem::replace(slot, std::ptr::null_mut()).cast::<RxQueue>();
                if !queue.is_null() {
                    drop(Box::from_raw(queue));
                }
            }
        }
    });
}

pub(super) unsafe extern "C" fn tx_release(device: *mut ffi::rte_eth_dev, number: u16) {
    border::guard("tx_queue_release", (), || {
        // SAFETY: as in `rx_release`.
        unsafe {
            let data = &mut *(*device).data;
            if !data.tx_queues.is_null() {
                let slot = &mut *data.tx_queues.add(usize::from(number));
                let queue = std::mem::replace(slot, std::ptr::null_mut()).cast::<TxQueue>();
                if !queue.is_null() {
                    drop(Box::from_raw(queue));
                }
            }
        }
    });
}

/// Frees all queues of a port that is closed.
///
/// # Safety
/// A stopped port of this driver, whose queues nobody uses any more.
pub(super) unsafe fn release_all(device: *mut ffi::rte_eth_dev) {
    // SAFETY: the caller's promise.
    unsafe {
        let (rx, tx) = ((*(*device).data).nb_rx_queues, (*(*device).data).nb_tx_queues);
        (0..rx).for_each(|number| rx_release(device, number));
        (0..tx).for_each(|number| tx_release(device, number));
    }
}

pub(super) unsafe extern "C" fn rx_info(
    device: *mut ffi::rte_eth_dev,
    number: u16,
    info: *mut ffi::rte_eth_rxq_info,
) {
    border::guard("rxq_info_get", (), || {
        // SAFETY: ethdev checked the number and passes a structure to fill in.
        let (data, info) = unsafe { (&*(*device).data, &mut *info) };
        let queue = pointers(data.rx_queues, data.nb_rx_queues).nth(usize::from(number));
        // SAFETY: as in `receive`.
        if let Some(queue) = queue.and_then(|queue| unsafe { queue.cast::<RxQueue>().as_ref() }) {
            info.mp = queue.pool;
            info.nb_desc = queue.descriptors;
        }
    });
}

pub(super) unsafe extern "C" fn tx_info(
    device: *mut ffi::rte_eth_dev,
    number: u16,
    info: *mut ffi::rte_eth_txq_info,
) {
    border::guard("txq_info_get", (), || {
        // SAFETY: ethdev checked the number and passes a structure to fill in.
        let (data, info) = unsafe { (&*(*device).data, &mut *info) };
        let queue = pointers(data.tx_queues, data.nb_tx_queues).nth(usize::from(number));
        // SAFETY: as in `receive`.
        if let Some(queue) = queue.and_then(|queue| unsafe { queue.cast::<TxQueue>().as_ref() }) {
            info.nb_desc = queue.descriptors;
        }
    });
}

pub(super) unsafe extern "C" fn hairpin_capability(
    _device: *mut ffi::rte_eth_dev,
    capability: *mut ffi::rte_eth_hairpin_cap,
) -> c_int {
    border::status("hairpin_cap_get", || {
        // SAFETY: ethdev passes a structure to fill in. The numbers are mlx5's (`mlx5_hairpin_cap_get`).
        let capability = unsafe { &mut *capability };
        capability.max_nb_queues = MAX;
        capability.max_rx_2_tx = 1;
        capability.max_tx_2_rx = 1;
        capability.max_nb_desc = 8192;
        Ok(())
    })
}

/// The one peer of a hairpin queue, as vport and queue.
fn peer(
    port: &PortPrivate,
    config: &ffi::rte_eth_hairpin_conf,
) -> Result<(crate::model::types::Vport, u16), i32> {
    if config.peer_count() != 1 {
        log::error(&format!("port {}: a hairpin queue has one peer", port.port_id));
        return Err(EINVAL);
    }
    let peer = config.peers[0];
    let vport = port.switch.topology.vport_of(peer.port).ok_or_else(|| {
        log::error(&format!("port {}: hairpin peer {} is of another switch", port.port_id, peer.port));
        EINVAL
    })?;
    Ok((vport, peer.queue))
}

pub(super) unsafe extern "C" fn rx_hairpin_setup(
    device: *mut ffi::rte_eth_dev,
    queue: u16,
    descriptors: u16,
    config: *const ffi::rte_eth_hairpin_conf,
) -> c_int {
    border::status("rx_hairpin_queue_setup", || {
        // SAFETY: ethdev passes a configured port of this driver, and a configuration that it checked.
        let (port, config) = unsafe { (port_of(device), &*config) };
        let peer = peer(port, config)?;
        let made = RxQueue {
            switch: Arc::clone(&port.switch),
            ring: std::ptr::null_mut(),
            hairpin: Some(peer),
            // Between two ports, mlx5 wants the application to bind them.
            bound: AtomicBool::new(peer.0 == port.vport),
            pool: std::ptr::null_mut(),
            copies: false,
            descriptors,
            stats: Default::default(),
            heard: Default::default(),
        };
        // SAFETY: as above.
        unsafe { store_rx(device, queue, made) };
        Ok(())
    })
}

pub(super) unsafe extern "C" fn tx_hairpin_setup(
    device: *mut ffi::rte_eth_dev,
    queue: u16,
    descriptors: u16,
    config: *const ffi::rte_eth_hairpin_conf,
) -> c_int {
    border::status("tx_hairpin_queue_setup", || {
        // SAFETY: as in `rx_hairpin_setup`.
        let (port, config) = unsafe { (port_of(device), &*config) };
        let made = TxQueue {
            switch: Arc::clone(&port.switch),
            ring: std::ptr::null_mut(),
            hairpin: Some(peer(port, config)?),
            descriptors,
            stats: Default::default(),
            heard: Default::default(),
        };
        // SAFETY: as above.
        unsafe { store_tx(device, queue, made) };
        Ok(())
    })
}
