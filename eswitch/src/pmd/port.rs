//! The ethdevs: one for each vport, its representor. The first is the uplink's, and the transfer proxy.

use std::ffi::{CString, c_int};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::device::{EINVAL, ENOMEM, FRAME_MAX, PortPrivate, Switch, port_of};
use super::drive::Rings;
use super::flow;
use super::rxtx;
use super::{border, copy_name, ffi, hairpin, log, mtr, queues, stats, wire};
use crate::model::switch::RxConfig;
use crate::model::types::{Role, Steering, Vport};

const EAGAIN: i32 = 11;
const EBUSY: i32 = 16;
const ENOTSUP: i32 = 95;

/// An Ethernet header with two VLAN tags.
const OVERHEAD: u16 = 14 + 8;

/// The longest RSS key taken: mlx5's.
const RSS_KEY: usize = 40;

/// mlx5's ids of representors: 2 bits physical function, 2 bits type, 12 bits number.
const fn representor_id(function: u16, kind: u32, number: u16) -> u16 {
    function << 14 | (kind as u16) << 12 | number & 0xfff
}

/// What the application set of RSS. The model spreads by its own hash; see `RxConfig`.
#[derive(Default)]
pub(super) struct Rss {
    types: u64,
    key: Vec<u8>,
}

/// How mlx5 names and numbers a vport's ethdev; no number for the switch's master.
fn identity(name: &str, role: Role) -> (String, Option<u16>) {
    match role {
        Role::Uplink(0) => (name.to_owned(), None),
        Role::Uplink(number) => {
            let id = representor_id(number, ffi::RTE_ETH_REPRESENTOR_PF, 0xfff);
            (format!("{name}_representor_pf{number}"), Some(id))
        }
        // The host's PF is "VF -1".
        Role::Host(0) => {
            let id = representor_id(0, ffi::RTE_ETH_REPRESENTOR_VF, 0xfff);
            (format!("{name}_representor_vf65535"), Some(id))
        }
        Role::Host(number) => {
            let id = representor_id(0, ffi::RTE_ETH_REPRESENTOR_VF, number - 1);
            (format!("{name}_representor_vf{}", number - 1), Some(id))
        }
    }
}

/// Allocates the ethdevs, so that their numbers are known.
pub(super) fn allocate(name: &str, roles: &[Role]) -> Result<Vec<*mut ffi::rte_eth_dev>, i32> {
    let mut devices = Vec::new();
    for role in roles {
        let (port_name, _) = identity(name, *role);
        let c_name = CString::new(port_name.as_str()).map_err(|_| EINVAL)?;
        // SAFETY: a terminated name, which is copied.
        let device = unsafe { ffi::rte_eth_dev_allocate(c_name.as_ptr()) };
        if device.is_null() {
            log::error(&format!("{name}: no ethdev left for {port_name}, or its name is taken or too long"));
            release(&devices);
            return Err(ENOMEM);
        }
        devices.push(device);
    }
    Ok(devices)
}

/// Takes back what [`allocate`] and [`fill`] did.
pub(super) fn release(devices: &[*mut ffi::rte_eth_dev]) {
    for device in devices {
        // SAFETY: allocated, and not announced, so nobody else uses it.
        unsafe {
            drop_private(*device);
            ffi::rte_eth_dev_release_port(*device);
        }
    }
}

/// # Safety
/// An ethdev of this driver that nobody uses any more.
unsafe fn drop_private(device: *mut ffi::rte_eth_dev) {
    // SAFETY: the caller's promise; the box was leaked by `fill`, and ethdev must not free it.
    unsafe {
        let data = &mut *(*device).data;
        let private = std::mem::replace(&mut data.dev_private, std::ptr::null_mut());
        if !private.is_null() {
            drop(Box::from_raw(private.cast::<PortPrivate>()));
        }
    }
}

/// Makes allocated ethdevs ours.
pub(super) fn fill(
    vdev: *mut ffi::rte_vdev_device,
    switch: &Arc<Switch>,
    devices: &[*mut ffi::rte_eth_dev],
) -> Result<(), i32> {
    for ((vport, info), device) in switch.topology.iter().zip(devices) {
        // SAFETY: allocated, and not announced: nobody else uses it; the vdev outlives its ports.
        let (device, data, parent) =
            unsafe { (&mut **device, &mut *(**device).data, &raw mut (*vdev).device) };
        // SAFETY: ethdev frees the address.
        let address = unsafe { ffi::rte_zmalloc(c"eswitch".as_ptr(), 6, 0) }.cast::<ffi::rte_ether_addr>();
        if address.is_null() {
            return Err(ENOMEM);
        }
        // SAFETY: allocated just now.
        unsafe { (*address).addr_bytes = own_address(&switch.name, vport) };
        data.mac_addrs = address;
        data.dev_private = Box::into_raw(Box::new(PortPrivate {
            switch: Arc::clone(switch),
            vport,
            port_id: data.port_id,
            isolated: AtomicBool::new(false),
            promiscuous: AtomicBool::new(false),
            all_multicast: AtomicBool::new(false),
            baseline: Mutex::default(),
            rss: Mutex::default(),
            flow: flow::PortFlows::default(),
        }))
        .cast();
        data.dev_flags |= ffi::ESWITCH_DEV_INTR_LSC;
        if switch.steering == Steering::Software {
            data.dev_flags |= ffi::ESWITCH_DEV_FLOW_OPS_THREAD_SAFE;
        }
        if let (_, Some(id)) = identity(&switch.name, info.role) {
            data.dev_flags |= ffi::ESWITCH_DEV_REPRESENTOR;
            data.representor_id = id;
            data.backer_port_id = switch.topology.proxy();
        }
        device.device = parent;
        // SAFETY: as above.
        data.numa_node = unsafe { (*parent).numa_node };
        device.dev_ops = &raw const OPS;
        device.rx_pkt_burst = Some(rxtx::rx_burst);
        device.tx_pkt_burst = Some(rxtx::tx_burst);
    }
    Ok(())
}

/// Lets applications see the ports.
pub(super) fn announce(devices: &[*mut ffi::rte_eth_dev]) {
    for device in devices {
        // SAFETY: complete, and allocated by us.
        unsafe { ffi::rte_eth_dev_probing_finish(*device) };
    }
}

/// Closes and releases ports that the application left open.
pub(super) fn close_all(devices: &[*mut ffi::rte_eth_dev]) {
    // Representors first: the proxy stops last.
    for device in devices.iter().rev() {
        // SAFETY: open ports of this driver; the device is being removed, so the application is done.
        unsafe {
            close(*device);
            ffi::rte_eth_dev_release_port(*device);
        }
    }
}

/// A locally administered address, always the same one for the same device name and vport.
fn own_address(name: &str, vport: Vport) -> [u8; 6] {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let [.., a, b, c, d] = (hash >> 32 ^ hash).to_be_bytes();
    [0x02, a, b, c, d, vport.0 as u8]
}

/// Whether an ethdev, perhaps still being probed, is of this driver.
pub(super) fn is_ours(port: u16) -> bool {
    // SAFETY: checks the number.
    std::ptr::eq(unsafe { ffi::eswitch_port_ops(port) }, &raw const OPS)
}

/// Gives a representor the address of a wire.
pub(super) fn copy_address(wire: u16, device: *mut ffi::rte_eth_dev) {
    let mut address = ffi::rte_ether_addr::default();
    // SAFETY: asks an ethdev that is being probed or is there, see `eswitch_port_address`; `device`, if not
    // null, is open and has an address.
    unsafe {
        if !device.is_null() && ffi::eswitch_port_address(wire, &raw mut address) == 0 {
            *(*(*device).data).mac_addrs = address;
        }
    }
}

/// What a representor shows of its wire's link.
pub(super) fn link_of(wire: u16) -> ffi::rte_eth_link {
    let mut link = ffi::rte_eth_link::default();
    link.set_link_duplex(1);
    link.set_link_autoneg(1);
    // SAFETY: checks the number and fills in the structure.
    unsafe { ffi::rte_eth_link_get_nowait(wire, &raw mut link) };
    link
}

/// Shows this link at an open port; whether it went up or down.
pub(super) fn show_link(device: *mut ffi::rte_eth_dev, link: &ffi::rte_eth_link) -> bool {
    // SAFETY: an open port of this driver; the link is written in one piece.
    unsafe { ffi::eswitch_set_link(device, link) == 0 }
}

impl PortPrivate {
    /// How it receives, as configured now.
    pub(super) fn rx_config(&self, device: *mut ffi::rte_eth_dev) -> RxConfig {
        // SAFETY: an open port has data and an address.
        let (mac, queues) = unsafe {
            let data = &*(*device).data;
            ((*data.mac_addrs).addr_bytes, queues::receive(data))
        };
        RxConfig {
            mac,
            promiscuous: self.promiscuous.load(Ordering::Relaxed),
            all_multicast: self.all_multicast.load(Ordering::Relaxed),
            // Without representor matching mlx5 cannot make default rules (mlx5_os.c).
            isolated: self.isolated.load(Ordering::Relaxed) || !self.switch.args.repr_matching,
            queues: queues.iter().filter(|queue| queue.hairpin.is_none()).count() as u16,
            hairpin: queues
                .iter()
                .enumerate()
                .filter(|(_, queue)| queue.bound.load(Ordering::Acquire))
                .filter_map(|(number, queue)| queue.hairpin.map(|(peer, _)| (number as u16, peer)))
                .collect(),
        }
    }

    /// Isolated mode, from the next start on.
    pub(super) fn set_isolated(&self, isolated: bool) {
        self.isolated.store(isolated, Ordering::Relaxed);
    }

    /// Tells the model of a change, if the port runs.
    pub(super) fn reconfigure(&self, device: *mut ffi::rte_eth_dev) {
        if self.is_started() {
            let config = self.rx_config(device);
            // The port is one of this switch's.
            let _ = self.switch.eswitch.lock().configure_rx(self.vport, config);
        }
    }

    /// In HWS the proxy starts first and stops last (`mlx5_dev_start`, `mlx5_hw_proxy_port_allowed_stop`).
    fn check_order(&self, starting: bool) -> Result<(), i32> {
        if self.switch.steering == Steering::Software {
            return Ok(());
        }
        let ports = &self.switch.ports;
        let is_proxy = Switch::is_proxy(self.vport);
        if starting && !is_proxy && !ports[0].started.load(Ordering::Acquire) {
            log::error(&format!("port {}: start the proxy, port {}, first", self.port_id, ports[0].port_id));
            return Err(EAGAIN);
        }
        let others = || ports[1..].iter().any(|port| port.started.load(Ordering::Acquire));
        if !starting && is_proxy && others() {
            log::error(&format!("port {}: the proxy stops last; stop the other ports first", self.port_id));
            return Err(EBUSY);
        }
        Ok(())
    }

    fn start(&self, device: *mut ffi::rte_eth_dev) -> Result<(), i32> {
        self.check_order(true)?;
        self.switch.attend();
        if self.shared().wire().is_none() {
            let name = self.switch.args.wire(self.vport);
            log::warning(&format!("port {}: no wire {name} (yet): its link is down", self.port_id));
        }
        // SAFETY: ethdev starts a configured port, whose queues are set up.
        let data = unsafe { &*(*device).data };
        queues::check(self, data)?;
        let rings = Rings {
            rx: queues::receive(data).iter().map(|queue| queue.ring).collect(),
            tx: queues::transmit(data)
                .iter()
                .map(|queue| queue.ring)
                .filter(|ring| !ring.is_null())
                .collect(),
        };
        {
            let mut plumbing = self.switch.plumbing.lock();
            let config = self.rx_config(device);
            self.switch.eswitch.lock().start(self.vport, config).map_err(|refusal| refusal.errno as i32)?;
            plumbing.ends[usize::from(self.vport.0)].rings = rings;
        }
        // SAFETY: as above.
        unsafe { queues::set_state(device, ffi::RTE_ETH_QUEUE_STATE_STARTED) };
        self.shared().started.store(true, Ordering::Release);
        self.shared().cut.store(false, Ordering::Release);
        self.shared().cut_told.store(false, Ordering::Release);
        self.update_link(device);
        Ok(())
    }

    fn stop(&self, device: *mut ffi::rte_eth_dev) -> Result<(), i32> {
        if !self.is_started() {
            return Ok(());
        }
        self.check_order(false)?;
        self.halt(device)
    }

    /// Stops, whatever the order: on the way to being closed, whose queues go next.
    fn halt(&self, device: *mut ffi::rte_eth_dev) -> Result<(), i32> {
        self.shared().started.store(false, Ordering::Release);
        // SAFETY: an open port has data, and ethdev stops it on one thread.
        unsafe { queues::set_state(device, ffi::RTE_ETH_QUEUE_STATE_STOPPED) };
        let stopped = {
            let mut plumbing = self.switch.plumbing.lock();
            plumbing.detach(self.vport);
            let now = self.switch.clock.now();
            self.switch.eswitch.lock().stop(now, self.vport)
        };
        flow::remove_all(self);
        stopped.map_err(|refusal| refusal.errno as i32)
    }

    /// The link is the wire's.
    fn update_link(&self, device: *mut ffi::rte_eth_dev) {
        let wire = self.shared().wire().filter(|_| !self.shared().cut.load(Ordering::Acquire));
        show_link(device, &wire.map(link_of).unwrap_or_default());
    }

    /// What the wire takes at most, in bytes of payload.
    fn mtu_max(&self) -> u16 {
        let wire = self.shared().wire().and_then(wire::info_of);
        wire.map_or(u16::MAX, |info| info.max_mtu).min(FRAME_MAX - OVERHEAD)
    }

    fn set_mtu(&self, mtu: u16) -> Result<(), i32> {
        let Some(wire) = self.shared().wire() else { return Ok(()) };
        let mut current = 0;
        let _plumbing = self.switch.plumbing.lock();
        // SAFETY: the wire runs; nobody polls it while its configuration changes, for we hold the drive lock.
        let status = unsafe {
            if ffi::rte_eth_dev_get_mtu(wire, &raw mut current) == 0 && current == mtu {
                return Ok(());
            }
            match ffi::rte_eth_dev_set_mtu(wire, mtu) {
                status if status == -EBUSY => {
                    ffi::rte_eth_dev_stop(wire);
                    let status = ffi::rte_eth_dev_set_mtu(wire, mtu);
                    ffi::rte_eth_dev_start(wire);
                    status
                }
                status => status,
            }
        };
        match status {
            0 => Ok(()),
            // A wire without an MTU of its own carries any frame.
            status if status == -ENOTSUP => Ok(()),
            status => {
                log::error(&format!(
                    "port {}: its wire refuses an MTU of {mtu} (errno {})",
                    self.port_id, -status
                ));
                Err(-status)
            }
        }
    }

    fn describe(&self, info: &mut ffi::rte_eth_dev_info) {
        let wire = self.shared().wire().and_then(wire::info_of).unwrap_or_default();
        info.if_index = wire.if_index;
        info.min_mtu = 68;
        info.max_mtu = self.mtu_max();
        info.max_rx_pktlen = u32::from(info.max_mtu) + u32::from(OVERHEAD);
        info.min_rx_bufsize = 32;
        info.max_rx_queues = queues::MAX;
        info.max_tx_queues = queues::MAX;
        info.max_mac_addrs = 1;
        info.tx_offload_capa = ffi::ESWITCH_TX_OFFLOADS;
        info.flow_type_rss_offloads = ffi::ESWITCH_RSS_TYPES;
        info.hash_key_size = RSS_KEY as u8;
        info.speed_capa = wire.speed_capa;
        for limits in [&mut info.rx_desc_lim, &mut info.tx_desc_lim] {
            *limits = ffi::rte_eth_desc_lim {
                nb_max: queues::DESCRIPTORS_MAX,
                nb_min: 32,
                nb_align: 1,
                nb_seg_max: u16::MAX,
                nb_mtu_seg_max: u16::MAX,
            };
        }
        for defaults in [&mut info.default_rxportconf, &mut info.default_txportconf] {
            *defaults = ffi::rte_eth_dev_portconf { burst_size: 32, ring_size: 1024, nb_queues: 1 };
        }
        let switch = &self.switch;
        // SAFETY: the proxy's name stays as long as the process: ethdev keeps its data.
        info.switch_info.name = unsafe { ffi::eswitch_port_name(switch.topology.proxy()) };
        info.switch_info.domain_id = switch.domain_id;
        let role = switch.topology.get(self.vport).map(|info| info.role);
        let id = role.and_then(|role| identity(&switch.name, role).1);
        info.switch_info.port_id = id.unwrap_or(u16::MAX);
    }
}

/// Defines an operation of an ethdev: through the border, with the port looked up.
macro_rules! operation {
    ($name:ident, |$port:ident, $device:ident $(, $argument:ident: $type:ty)*| $body:expr) => {
        unsafe extern "C" fn $name($device: *mut ffi::rte_eth_dev $(, $argument: $type)*) -> c_int {
            border::status(stringify!($name), || {
                // SAFETY: ethdev passes an open port of this driver, on one control thread at a time.
                let $port = unsafe { port_of($device) };
                // Not borrowed: other threads look at the ethdev meanwhile.
                let _ = (&$port, $device);
                $body
            })
        }
    };
}

operation!(configure, |port, _device| {
    port.switch.attend();
    Ok(())
});
operation!(start, |port, device| port.start(device));
operation!(stop, |port, device| port.stop(device));
operation!(link_update, |port, device, _wait: c_int| {
    port.switch.attend();
    port.update_link(device);
    Ok(())
});
operation!(promiscuous_enable, |port, device| {
    port.promiscuous.store(true, Ordering::Relaxed);
    port.reconfigure(device);
    Ok(())
});
operation!(promiscuous_disable, |port, device| {
    port.promiscuous.store(false, Ordering::Relaxed);
    port.reconfigure(device);
    Ok(())
});
operation!(allmulticast_enable, |port, device| {
    port.all_multicast.store(true, Ordering::Relaxed);
    port.reconfigure(device);
    Ok(())
});
operation!(allmulticast_disable, |port, device| {
    port.all_multicast.store(false, Ordering::Relaxed);
    port.reconfigure(device);
    Ok(())
});
operation!(mac_addr_set, |port, device, address: *mut ffi::rte_ether_addr| {
    // SAFETY: ethdev passes a valid address, and stores it itself after this.
    let mac = unsafe { (*address).addr_bytes };
    if port.is_started() {
        let config = RxConfig { mac, ..port.rx_config(device) };
        // The port is one of this switch's.
        let _ = port.switch.eswitch.lock().configure_rx(port.vport, config);
    }
    Ok(())
});
operation!(mtu_set, |port, _device, mtu: u16| port.set_mtu(mtu));
operation!(infos_get, |port, _device, info: *mut ffi::rte_eth_dev_info| {
    port.switch.attend();
    // SAFETY: ethdev passes a structure to fill in.
    port.describe(unsafe { &mut *info });
    Ok(())
});
operation!(rss_hash_update, |port, _device, config: *mut ffi::rte_eth_rss_conf| {
    // SAFETY: ethdev passes a valid structure.
    let config = unsafe { &*config };
    if config.rss_hf & !ffi::ESWITCH_RSS_TYPES != 0 || usize::from(config.rss_key_len) > RSS_KEY {
        return Err(EINVAL);
    }
    let mut rss = port.rss.lock().unwrap_or_else(PoisonError::into_inner);
    rss.types = config.rss_hf;
    if !config.rss_key.is_null() {
        // SAFETY: the application says how long its key is.
        rss.key =
            unsafe { std::slice::from_raw_parts(config.rss_key, usize::from(config.rss_key_len)) }.to_vec();
    }
    Ok(())
});
operation!(rss_hash_conf_get, |port, _device, config: *mut ffi::rte_eth_rss_conf| {
    // SAFETY: ethdev passes a valid structure.
    let config = unsafe { &mut *config };
    let rss = port.rss.lock().unwrap_or_else(PoisonError::into_inner);
    config.rss_hf = rss.types;
    if !config.rss_key.is_null() && usize::from(config.rss_key_len) >= rss.key.len() {
        // SAFETY: the application says how much room there is.
        unsafe { std::ptr::copy_nonoverlapping(rss.key.as_ptr(), config.rss_key, rss.key.len()) };
    }
    config.rss_key_len = rss.key.len() as u8;
    Ok(())
});
operation!(rx_metadata_negotiate, |_port, _device, features: *mut u64| {
    // SAFETY: ethdev passes the features to choose from.
    unsafe { *features &= ffi::ESWITCH_RX_METADATA };
    Ok(())
});
operation!(flow_ops_get, |_port, _device, ops: *mut *const ffi::rte_flow_ops| {
    // SAFETY: ethdev passes a place for the answer.
    unsafe { *ops = flow::flow_ops() };
    Ok(())
});
operation!(mtr_ops_get, |port, _device, ops: *mut std::ffi::c_void| {
    // SAFETY: ethdev passes a place for the answer, whose type the operation leaves open.
    unsafe { *ops.cast::<*const ffi::rte_mtr_ops>() = mtr::mtr_ops(port.switch.steering) };
    Ok(())
});

unsafe extern "C" fn close(device: *mut ffi::rte_eth_dev) -> c_int {
    border::status("close", || {
        // SAFETY: ethdev passes an open port of this driver, which nobody uses after this.
        unsafe {
            let port = port_of(device);
            let stopped = if port.is_started() { port.halt(device) } else { Ok(()) };
            port.switch.forget(port.vport);
            queues::release_all(device);
            drop_private(device);
            stopped
        }
    })
}

unsafe extern "C" fn supported_ptypes(_device: *mut ffi::rte_eth_dev) -> *const u32 {
    packet_types().as_ptr()
}

/// What `rte_net_get_ptype` finds.
fn packet_types() -> &'static [u32] {
    const TYPES: &[u32] = &[
        ffi::RTE_PTYPE_L2_ETHER,
        ffi::RTE_PTYPE_L2_ETHER_VLAN,
        ffi::RTE_PTYPE_L2_ETHER_QINQ,
        ffi::RTE_PTYPE_L3_IPV4,
        ffi::RTE_PTYPE_L3_IPV4_EXT,
        ffi::RTE_PTYPE_L3_IPV6,
        ffi::RTE_PTYPE_L3_IPV6_EXT,
        ffi::RTE_PTYPE_L4_FRAG,
        ffi::RTE_PTYPE_L4_TCP,
        ffi::RTE_PTYPE_L4_UDP,
        ffi::RTE_PTYPE_L4_SCTP,
        ffi::RTE_PTYPE_TUNNEL_GRE,
        ffi::RTE_PTYPE_TUNNEL_IP,
        ffi::RTE_PTYPE_UNKNOWN,
    ];
    TYPES
}

/// Ranges of representor ids, as mlx5 reports them for one physical function.
unsafe extern "C" fn representor_info(
    device: *mut ffi::rte_eth_dev,
    info: *mut ffi::rte_eth_representor_info,
) -> c_int {
    const RANGES: [(u16, u16, &str); 2] = [(0, 0xffe, "pf0vf"), (u16::MAX, 0xfff, "pf0vf")];
    border::guard("representor_info_get", -border::EIO, || {
        if info.is_null() {
            return RANGES.len() as c_int;
        }
        let _ = device;
        // SAFETY: the caller allocated room for as many ranges as it says.
        let ranges = unsafe {
            let count = ((*info).nb_ranges_alloc as usize).min(RANGES.len());
            std::slice::from_raw_parts_mut((&raw mut (*info).ranges).cast(), count)
        };
        for (range, (first, last, name)) in ranges.iter_mut().zip(RANGES) {
            *range = ffi::rte_eth_representor_range::default();
            range.type_ = ffi::RTE_ETH_REPRESENTOR_VF;
            range.__bindgen_anon_1.vf = c_int::from(first);
            range.id_base = u32::from(representor_id(0, ffi::RTE_ETH_REPRESENTOR_VF, first));
            range.id_end = u32::from(representor_id(0, ffi::RTE_ETH_REPRESENTOR_VF, last));
            copy_name(&mut range.name, name);
        }
        // SAFETY: as above.
        unsafe {
            (*info).controller = 0;
            (*info).pf = 0;
            (*info).nb_ranges = ranges.len() as u32;
        }
        RANGES.len() as c_int
    })
}

/// The operations. What is missing, ethdev answers with ENOTSUP.
static OPS: ffi::eth_dev_ops = ffi::eth_dev_ops {
    dev_configure: Some(configure),
    dev_start: Some(start),
    dev_stop: Some(stop),
    dev_close: Some(close),
    link_update: Some(link_update),
    promiscuous_enable: Some(promiscuous_enable),
    promiscuous_disable: Some(promiscuous_disable),
    allmulticast_enable: Some(allmulticast_enable),
    allmulticast_disable: Some(allmulticast_disable),
    mac_addr_set: Some(mac_addr_set),
    mtu_set: Some(mtu_set),
    stats_get: Some(stats::get),
    stats_reset: Some(stats::reset),
    xstats_get: Some(stats::xstats_get),
    xstats_get_names: Some(stats::xstats_names),
    xstats_reset: Some(stats::reset),
    dev_infos_get: Some(infos_get),
    dev_supported_ptypes_get: Some(supported_ptypes),
    rx_queue_setup: Some(queues::rx_setup),
    rx_queue_release: Some(queues::rx_release),
    tx_queue_setup: Some(queues::tx_setup),
    tx_queue_release: Some(queues::tx_release),
    rxq_info_get: Some(queues::rx_info),
    txq_info_get: Some(queues::tx_info),
    rss_hash_update: Some(rss_hash_update),
    rss_hash_conf_get: Some(rss_hash_conf_get),
    flow_ops_get: Some(flow_ops_get),
    mtr_ops_get: Some(mtr_ops_get),
    hairpin_cap_get: Some(queues::hairpin_capability),
    rx_hairpin_queue_setup: Some(queues::rx_hairpin_setup),
    tx_hairpin_queue_setup: Some(queues::tx_hairpin_setup),
    hairpin_bind: Some(hairpin::bind),
    hairpin_unbind: Some(hairpin::unbind),
    hairpin_get_peer_ports: Some(hairpin::peers),
    representor_info_get: Some(representor_info),
    rx_metadata_negotiate: Some(rx_metadata_negotiate),
    // SAFETY: a structure of optional functions; all zero is none.
    ..unsafe { std::mem::zeroed() }
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_named_and_numbered_as_by_mlx5() {
        let of = |role| identity("net_eswitch0", role);
        assert_eq!(of(Role::Uplink(0)), ("net_eswitch0".into(), None));
        assert_eq!(of(Role::Uplink(1)), ("net_eswitch0_representor_pf1".into(), Some(0x7fff)));
        assert_eq!(of(Role::Host(0)), ("net_eswitch0_representor_vf65535".into(), Some(0x1fff)));
        assert_eq!(of(Role::Host(1)), ("net_eswitch0_representor_vf0".into(), Some(0x1000)));
        assert_eq!(of(Role::Host(4)), ("net_eswitch0_representor_vf3".into(), Some(0x1003)));
    }

    #[test]
    fn addresses_are_stable_local_and_distinct() {
        let address = own_address("net_eswitch0", Vport(1));
        assert_eq!(address, own_address("net_eswitch0", Vport(1)));
        assert_eq!(address[0] & 3, 2, "local, unicast");
        assert_ne!(address, own_address("net_eswitch0", Vport(2)));
        assert_ne!(address, own_address("net_eswitch1", Vport(1)));
    }
}
