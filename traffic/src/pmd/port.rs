//! The ethdev: how it comes and goes, and its operations.

use std::ffi::{CStr, c_int};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use super::stats::{self, Totals};
use super::{EINVAL, ENOMEM, ffi, log, queues, status};
use crate::args::{Args, Protocol, SIZE_MAX};
use crate::check::Layers;

/// The longest payload of a frame, bytes.
const MTU_MAX: u16 = 9000;

/// A device, as its operations and its queues know it.
pub(super) struct Port {
    pub(super) name: String,
    pub(super) args: Args,
    pub(super) port_id: u16,
    /// What the frames that it makes are, as DPDK puts it.
    pub(super) packet_type: u32,
    /// Packets sent to it so far, while that decides who is answered.
    pub(super) given: AtomicU64,
    /// What had been counted at the last reset.
    pub(super) baseline: Mutex<Totals>,
}

/// What an ethdev of this driver stands for.
///
/// # Safety
/// A live ethdev of this driver: one that ethdev passed to an operation of it.
pub(super) unsafe fn port_of<'a>(device: *mut ffi::rte_eth_dev) -> &'a Arc<Port> {
    // SAFETY: the caller's promise; the private data is set before the port is announced, and goes with it.
    unsafe { &*(*(*device).data).dev_private.cast::<Arc<Port>>() }
}

/// Makes the device that the user wants.
pub(super) fn probe(vdev: *mut ffi::rte_vdev_device, name: &CStr, arguments: &str) -> Result<(), i32> {
    let text = name.to_string_lossy();
    let args = Args::parse(arguments).map_err(|error| {
        log(ffi::TRAFFIC_LOG_ERR, &format!("{text}: {error}"));
        EINVAL
    })?;
    // SAFETY: a terminated name, which is copied.
    let device = unsafe { ffi::rte_eth_dev_allocate(name.as_ptr()) };
    if device.is_null() {
        log(ffi::TRAFFIC_LOG_ERR, &format!("{text}: no ethdev left, or its name is taken or too long"));
        return Err(ENOMEM);
    }
    // SAFETY: ethdev frees the address.
    let address = unsafe { ffi::rte_zmalloc(c"traffic".as_ptr(), 6, 0) }.cast::<ffi::rte_ether_addr>();
    if address.is_null() {
        // SAFETY: allocated above, and not announced.
        unsafe { ffi::rte_eth_dev_release_port(device) };
        return Err(ENOMEM);
    }
    // SAFETY: allocated, and not announced: nobody else uses it; the vdev outlives its port.
    unsafe {
        (*address).addr_bytes = args.mac.unwrap_or_else(|| own_address(&text));
        let data = &mut *(*device).data;
        data.mac_addrs = address;
        data.numa_node = (*vdev).device.numa_node;
        data.dev_flags |= ffi::TRAFFIC_AUTOFILL_QUEUE_XSTATS;
        let port = Port {
            name: text.into_owned(),
            packet_type: packet_type(Layers {
                vlan: false,
                ipv6: args.vip.is_ipv6(),
                udp: args.protocol == Protocol::Udp,
            }),
            args,
            port_id: data.port_id,
            given: AtomicU64::new(0),
            baseline: Mutex::default(),
        };
        data.dev_private = Box::into_raw(Box::new(Arc::new(port))).cast();
        (*device).device = &raw mut (*vdev).device;
        (*device).dev_ops = &raw const OPS;
        (*device).rx_pkt_burst = Some(queues::rx_burst);
        (*device).tx_pkt_burst = Some(queues::tx_burst);
        show_link(device);
        ffi::rte_eth_dev_probing_finish(device);
    }
    Ok(())
}

/// Takes the device away, unless the application has closed it already.
pub(super) fn remove(name: &CStr) {
    // SAFETY: a terminated name. The device is being removed, so the application is done with its port.
    unsafe {
        let device = ffi::rte_eth_dev_allocated(name.as_ptr());
        if !device.is_null() {
            close(device);
            ffi::rte_eth_dev_release_port(device);
        }
    }
}

/// A locally administered address, always the same one for the same device name.
fn own_address(name: &str) -> [u8; 6] {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let [.., a, b, c, d] = (hash >> 32 ^ hash).to_be_bytes();
    [0x02, 0x00, a, b, c, d]
}

/// As DPDK puts it. What the driver makes has no options.
pub(super) fn packet_type(layers: Layers) -> u32 {
    let l2 = if layers.vlan { ffi::RTE_PTYPE_L2_ETHER_VLAN } else { ffi::RTE_PTYPE_L2_ETHER };
    let l3 = if layers.ipv6 { ffi::RTE_PTYPE_L3_IPV6 } else { ffi::RTE_PTYPE_L3_IPV4 };
    let l4 = if layers.udp { ffi::RTE_PTYPE_L4_UDP } else { ffi::RTE_PTYPE_L4_TCP };
    l2 | l3 | l4
}

/// The link is always up.
///
/// # Safety
/// An ethdev of this driver.
unsafe fn show_link(device: *mut ffi::rte_eth_dev) {
    let mut link = ffi::rte_eth_link { link_speed: ffi::TRAFFIC_SPEED, ..Default::default() };
    link.set_link_duplex(1);
    link.set_link_status(1);
    // SAFETY: the caller's promise; the link is written in one piece.
    unsafe { ffi::traffic_set_link(device, &raw const link) };
}

unsafe extern "C" fn infos_get(device: *mut ffi::rte_eth_dev, info: *mut ffi::rte_eth_dev_info) -> c_int {
    let _ = device;
    // SAFETY: ethdev passes a structure to fill in.
    let info = unsafe { &mut *info };
    info.min_mtu = 68;
    info.max_mtu = MTU_MAX;
    info.max_rx_pktlen = u32::from(SIZE_MAX);
    info.min_rx_bufsize = 64;
    info.max_rx_queues = queues::MAX;
    info.max_tx_queues = queues::MAX;
    info.max_mac_addrs = 1;
    info.speed_capa = ffi::TRAFFIC_SPEED_CAPA;
    for limits in [&mut info.rx_desc_lim, &mut info.tx_desc_lim] {
        *limits = ffi::rte_eth_desc_lim {
            nb_max: 32_768,
            nb_min: 1,
            nb_align: 1,
            nb_seg_max: u16::MAX,
            nb_mtu_seg_max: u16::MAX,
        };
    }
    for defaults in [&mut info.default_rxportconf, &mut info.default_txportconf] {
        *defaults = ffi::rte_eth_dev_portconf { burst_size: 32, ring_size: 1024, nb_queues: 1 };
    }
    0
}

unsafe extern "C" fn start(device: *mut ffi::rte_eth_dev) -> c_int {
    // SAFETY: ethdev starts a configured port of this driver.
    status(unsafe { queues::start(device) })
}

unsafe extern "C" fn stop(device: *mut ffi::rte_eth_dev) -> c_int {
    // SAFETY: ethdev stops a port of this driver, on one control thread.
    unsafe { queues::stop(device) };
    0
}

unsafe extern "C" fn close(device: *mut ffi::rte_eth_dev) -> c_int {
    // SAFETY: an open port of this driver, which nobody uses after this; the box was leaked by `probe`, and
    // ethdev must not free it.
    unsafe {
        queues::release_all(device);
        let private = std::mem::replace(&mut (*(*device).data).dev_private, std::ptr::null_mut());
        if !private.is_null() {
            drop(Box::from_raw(private.cast::<Arc<Port>>()));
        }
    }
    0
}

unsafe extern "C" fn link_update(device: *mut ffi::rte_eth_dev, _wait: c_int) -> c_int {
    // SAFETY: ethdev passes an open port of this driver.
    unsafe { show_link(device) };
    0
}

/// For what makes no difference here.
unsafe extern "C" fn accept(_device: *mut ffi::rte_eth_dev) -> c_int {
    0
}

/// Frames go to the new address from the next start on.
unsafe extern "C" fn mac_addr_set(
    _device: *mut ffi::rte_eth_dev,
    _address: *mut ffi::rte_ether_addr,
) -> c_int {
    0
}

/// Frames have the size that the user gave, whatever the MTU.
unsafe extern "C" fn mtu_set(_device: *mut ffi::rte_eth_dev, _mtu: u16) -> c_int {
    0
}

unsafe extern "C" fn supported_ptypes(_device: *mut ffi::rte_eth_dev) -> *const u32 {
    static TYPES: [u32; 7] = [
        ffi::RTE_PTYPE_L2_ETHER,
        ffi::RTE_PTYPE_L2_ETHER_VLAN,
        ffi::RTE_PTYPE_L3_IPV4,
        ffi::RTE_PTYPE_L3_IPV6,
        ffi::RTE_PTYPE_L4_TCP,
        ffi::RTE_PTYPE_L4_UDP,
        ffi::RTE_PTYPE_UNKNOWN,
    ];
    TYPES.as_ptr()
}

/// The operations. What is missing, ethdev answers with ENOTSUP.
static OPS: ffi::eth_dev_ops = ffi::eth_dev_ops {
    dev_configure: Some(accept),
    dev_start: Some(start),
    dev_stop: Some(stop),
    dev_close: Some(close),
    link_update: Some(link_update),
    promiscuous_enable: Some(accept),
    promiscuous_disable: Some(accept),
    allmulticast_enable: Some(accept),
    allmulticast_disable: Some(accept),
    mac_addr_set: Some(mac_addr_set),
    mtu_set: Some(mtu_set),
    stats_get: Some(stats::get),
    stats_reset: Some(stats::reset),
    xstats_get: Some(stats::xstats_get),
    xstats_get_names: Some(stats::xstats_names),
    xstats_reset: Some(stats::xstats_reset),
    dev_infos_get: Some(infos_get),
    dev_supported_ptypes_get: Some(supported_ptypes),
    rx_queue_setup: Some(queues::rx_setup),
    rx_queue_release: Some(queues::rx_release),
    tx_queue_setup: Some(queues::tx_setup),
    tx_queue_release: Some(queues::tx_release),
    // SAFETY: a structure of optional functions; all zero is none.
    ..unsafe { std::mem::zeroed() }
};
