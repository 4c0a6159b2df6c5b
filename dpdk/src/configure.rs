//! Configuring a port: what is asked of it, what it grants, and why it may refuse.

use dataplane::ids::PortId;
use dataplane::owner;

use crate::device::Device;
use crate::errno::Errno;
use crate::mempool::{Mempool, PoolConfig};
use crate::rss::{self, Rss};

/// What is asked of a port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortConfig {
    /// What packets received here carry as their port.
    pub id: PortId,
    /// Receive queues, at least one.
    pub rx_queues: u16,
    /// Transmit queues, at least one.
    pub tx_queues: u16,
    /// Descriptors per receive queue; adjusted to what the device can do.
    pub rx_descriptors: u16,
    /// Descriptors per transmit queue; adjusted to what the device can do.
    pub tx_descriptors: u16,
    /// The largest IP packet. `None` is ethdev's 1500, whatever the interface had before.
    pub mtu: Option<u16>,
    /// What to spread packets over queues by.
    pub rss: Rss,
    /// The Toeplitz key, of which the device takes what it needs: the same on all ports, for one owner
    /// per client.
    pub rss_key: [u8; owner::KEY_LEN],
    /// Whether to receive frames for other MAC addresses.
    pub promiscuous: bool,
    /// Whether the device may return sent packets to the port's pool in bulk, without looking at each.
    /// Then only packets of that pool can be sent: ask for it when all ports share one.
    pub fast_free: bool,
    /// Receive queues behind the ordinary ones, whose packets the device sends by itself: each with the
    /// transmit queue, of this or another port, that it is tied to. Flow rules put packets there.
    pub hairpin_rx: Vec<HairpinPeer>,
    /// Transmit queues behind the ordinary ones, each with the receive queue that it is tied to.
    pub hairpin_tx: Vec<HairpinPeer>,
}

/// The other end of a hairpin queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HairpinPeer {
    /// DPDK's number for its port.
    pub port: u16,
    /// Its number there.
    pub queue: u16,
}

impl Default for PortConfig {
    fn default() -> PortConfig {
        PortConfig {
            id: PortId(0),
            rx_queues: 1,
            tx_queues: 1,
            rx_descriptors: 1024,
            tx_descriptors: 1024,
            mtu: None,
            rss: Rss::None,
            rss_key: owner::DEFAULT_KEY,
            promiscuous: false,
            fast_free: false,
            hairpin_rx: Vec::new(),
            hairpin_tx: Vec::new(),
        }
    }
}

/// What the device made of a [`PortConfig`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Granted {
    /// What packets are spread by, as far as the driver says. Some software devices say more than they
    /// do; a port is trusted to choose the owner's queue only with [`Granted::rss_key`] as well.
    pub rss: Rss,
    /// Whether it hashes with the key it was given; known once started.
    pub rss_key: bool,
    /// Entries of the redirection table; 0 where it cannot be set.
    pub reta_entries: u16,
    /// Whether packets carry their RSS hash.
    pub rss_hash_delivered: bool,
    /// Whether sent packets return to the pool in bulk.
    pub fast_free: bool,
    /// Whether frames for other MAC addresses are received; known once started.
    pub promiscuous: bool,
    /// Whether frames for all groups of stations are received, as neighbour discovery needs; known once
    /// started.
    pub all_multicast: bool,
    /// Descriptors per receive queue.
    pub rx_descriptors: u16,
    /// Descriptors per transmit queue.
    pub tx_descriptors: u16,
    /// Why it has none of the hairpin queues that were asked for.
    pub hairpins_refused: Option<String>,
}

/// Rx or tx, in errors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// Receive.
    Rx,
    /// Transmit.
    Tx,
}

impl std::fmt::Display for Direction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Direction::Rx => "rx",
            Direction::Tx => "tx",
        })
    }
}

/// Why a port could not be configured.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConfigureError {
    /// The driver would not describe the device.
    #[error("port {port}: reading its capabilities: {errno}")]
    Info {
        /// The port.
        port: String,
        /// What it answered.
        errno: Errno,
    },
    /// No queues, or more than the device has.
    #[error("port {port}: {asked} {direction} queues asked for, it has 1 to {max}")]
    Queues {
        /// The port.
        port: String,
        /// Which queues.
        direction: Direction,
        /// Queues asked for.
        asked: u16,
        /// Queues the device has.
        max: u16,
    },
    /// The device has no such MTU.
    #[error("port {port}: an MTU of {mtu} asked for, it can do {min} to {max}")]
    Mtu {
        /// The port.
        port: String,
        /// What was asked for.
        mtu: u16,
        /// The least it can do.
        min: u16,
        /// The most it can do.
        max: u16,
    },
    /// A frame of that MTU would not fit a buffer of the pool in one piece.
    #[error(
        "port {port}: an MTU of {mtu} needs buffers of {needed_bytes} bytes, the pool's have {room_bytes}"
    )]
    BufferTooSmall {
        /// The port.
        port: String,
        /// The MTU.
        mtu: u16,
        /// Headroom, link layer and packet.
        needed_bytes: u32,
        /// What the pool has.
        room_bytes: u16,
    },
    /// The device refused the configuration as a whole.
    #[error("port {port}: configuring it: {errno}")]
    Device {
        /// The port.
        port: String,
        /// What it answered.
        errno: Errno,
    },
    /// The device refused to have its MTU set.
    #[error("port {port}: setting its MTU to {mtu}: {errno}")]
    SetMtu {
        /// The port.
        port: String,
        /// The MTU.
        mtu: u16,
        /// What it answered.
        errno: Errno,
    },
    /// The device refused these numbers of descriptors, even adjusted.
    #[error("port {port}: {rx} rx and {tx} tx descriptors per queue: {errno}")]
    Descriptors {
        /// The port.
        port: String,
        /// Receive descriptors.
        rx: u16,
        /// Transmit descriptors.
        tx: u16,
        /// What it answered.
        errno: Errno,
    },
    /// A queue could not be set up.
    #[error("port {port}: setting up {direction} queue {queue}: {errno}")]
    QueueSetup {
        /// The port.
        port: String,
        /// Which kind.
        direction: Direction,
        /// Which one.
        queue: u16,
        /// What it answered.
        errno: Errno,
    },
}

/// Ethernet header and two VLAN tags.
const LINK_BYTES: u32 = 14 + 2 * 4;

/// Configures a device that is not started, queues and all.
pub(crate) fn apply(
    device: &Device<'_>,
    config: &PortConfig,
    pool: &Mempool<'_>,
) -> Result<(dpdk_sys::rte_eth_dev_info, Granted), ConfigureError> {
    let info =
        device.info().map_err(|errno| ConfigureError::Info { port: device.name().to_owned(), errno })?;
    let (rx_queues, tx_queues) = all_queues(config);
    check_queues(device, Direction::Rx, config.rx_queues, rx_queues, info.max_rx_queues)?;
    check_queues(device, Direction::Tx, config.tx_queues, tx_queues, info.max_tx_queues)?;
    check_mtu(device, config.mtu, &info, pool)?;

    let mut granted = configure_device(device, config, &info)?;
    adjust_descriptors(device, &mut granted)?;
    set_up_queues(device, config, &info, &granted, pool)?;
    if let Err(refused) = set_up_hairpins(device, config, &granted) {
        // Queues that are not set up would keep the port from starting.
        return apply_without_hairpins(device, config, pool, refused.to_string());
    }
    set_mtu(device, config.mtu)?;
    Ok((info, granted))
}

/// As [`apply`], without hairpin queues, for this reason.
pub(crate) fn apply_without_hairpins(
    device: &Device<'_>,
    config: &PortConfig,
    pool: &Mempool<'_>,
    why: String,
) -> Result<(dpdk_sys::rte_eth_dev_info, Granted), ConfigureError> {
    let plain = PortConfig { hairpin_rx: Vec::new(), hairpin_tx: Vec::new(), ..config.clone() };
    let (info, granted) = apply(device, &plain, pool)?;
    Ok((info, Granted { hairpins_refused: Some(why), ..granted }))
}

/// Receive and transmit queues, hairpin queues and all.
fn all_queues(config: &PortConfig) -> (u16, u16) {
    let all = |queues: u16, hairpins: &[HairpinPeer]| {
        queues.saturating_add(u16::try_from(hairpins.len()).unwrap_or(u16::MAX))
    };
    (all(config.rx_queues, &config.hairpin_rx), all(config.tx_queues, &config.hairpin_tx))
}

fn check_queues(
    device: &Device<'_>,
    direction: Direction,
    ordinary: u16,
    asked: u16,
    max: u16,
) -> Result<(), ConfigureError> {
    let max = max.min(dpdk_sys::RTE_MAX_QUEUES_PER_PORT as u16);
    if ordinary > 0 && asked <= max {
        return Ok(());
    }
    Err(ConfigureError::Queues { port: device.name().to_owned(), direction, asked, max })
}

/// The MTU must be one the device can do, and a full frame must fit one buffer: scattered frames are not
/// asked for.
fn check_mtu(
    device: &Device<'_>,
    asked: Option<u16>,
    info: &dpdk_sys::rte_eth_dev_info,
    pool: &Mempool<'_>,
) -> Result<(), ConfigureError> {
    let port = || device.name().to_owned();
    if let Some(mtu) = asked.filter(|mtu| !(info.min_mtu..=info.max_mtu).contains(mtu)) {
        return Err(ConfigureError::Mtu { port: port(), mtu, min: info.min_mtu, max: info.max_mtu });
    }
    let mtu = asked.unwrap_or(DEFAULT_MTU);
    let room_bytes = pool.data_room_bytes();
    let needed_bytes = u32::from(PoolConfig::HEADROOM_BYTES) + LINK_BYTES + u32::from(mtu);
    if needed_bytes > u32::from(room_bytes) {
        return Err(ConfigureError::BufferTooSmall { port: port(), mtu, needed_bytes, room_bytes });
    }
    Ok(())
}

/// What ethdev configures when no MTU is asked for.
const DEFAULT_MTU: u16 = 1500;

fn configure_device(
    device: &Device<'_>,
    config: &PortConfig,
    info: &dpdk_sys::rte_eth_dev_info,
) -> Result<Granted, ConfigureError> {
    let (rss, types) = rss::grant(config.rss, info.flow_type_rss_offloads);
    let spread = rss != Rss::None;
    let rss_hash_delivered = spread && info.rx_offload_capa & dpdk_sys::MILLRACE_RX_OFFLOAD_RSS_HASH != 0;
    let fast_free =
        config.fast_free && info.tx_offload_capa & dpdk_sys::MILLRACE_TX_OFFLOAD_MBUF_FAST_FREE != 0;

    let mut key = rss::key_of_len(&config.rss_key, info.hash_key_size);
    let mut conf = dpdk_sys::rte_eth_conf::default();
    conf.rxmode.mtu = config.mtu.map_or(0, u32::from);
    if spread {
        conf.rxmode.mq_mode = dpdk_sys::RTE_ETH_MQ_RX_RSS;
        conf.rx_adv_conf.rss_conf = rss::hash_conf(&mut key, types);
    }
    if rss_hash_delivered {
        conf.rxmode.offloads |= dpdk_sys::MILLRACE_RX_OFFLOAD_RSS_HASH;
    }
    if fast_free {
        conf.txmode.offloads |= dpdk_sys::MILLRACE_TX_OFFLOAD_MBUF_FAST_FREE;
    }
    let (rx_queues, tx_queues) = all_queues(config);
    // SAFETY: the port is valid and ours, not started; `conf` is zero where not set, which is ethdev's
    // default, and drivers copy the key it points at.
    let ret = unsafe { dpdk_sys::rte_eth_dev_configure(device.number(), rx_queues, tx_queues, &conf) };
    Errno::check(ret).map_err(|errno| ConfigureError::Device { port: device.name().to_owned(), errno })?;
    Ok(Granted {
        rss,
        rss_key: false,
        reta_entries: if spread { info.reta_size } else { 0 },
        rss_hash_delivered,
        fast_free,
        promiscuous: false,
        all_multicast: false,
        rx_descriptors: config.rx_descriptors,
        tx_descriptors: config.tx_descriptors,
        hairpins_refused: None,
    })
}

fn adjust_descriptors(device: &Device<'_>, granted: &mut Granted) -> Result<(), ConfigureError> {
    let (mut rx, mut tx) = (granted.rx_descriptors, granted.tx_descriptors);
    // SAFETY: the port is configured; both numbers are writable.
    let ret = unsafe { dpdk_sys::rte_eth_dev_adjust_nb_rx_tx_desc(device.number(), &mut rx, &mut tx) };
    Errno::check(ret).map_err(|errno| {
        let port = device.name().to_owned();
        ConfigureError::Descriptors { port, rx: granted.rx_descriptors, tx: granted.tx_descriptors, errno }
    })?;
    (granted.rx_descriptors, granted.tx_descriptors) = (rx, tx);
    Ok(())
}

fn set_up_queues(
    device: &Device<'_>,
    config: &PortConfig,
    info: &dpdk_sys::rte_eth_dev_info,
    granted: &Granted,
    pool: &Mempool<'_>,
) -> Result<(), ConfigureError> {
    let failed = |direction, queue| {
        let port = device.name().to_owned();
        move |errno| ConfigureError::QueueSetup { port, direction, queue, errno }
    };
    let (number, socket) = (device.number(), device.socket().unwrap_or(u32::MAX));
    // The driver's thresholds, but no offload that was not granted: some drivers default to fast free.
    let (mut rx, mut tx) = (info.default_rxconf, info.default_txconf);
    rx.offloads = 0;
    tx.offloads = 0;
    for queue in 0..config.rx_queues {
        // SAFETY: the port is configured with this queue and not started; the pool outlives the port by
        // `'pool`; `rx` is the driver's own proposal.
        let ret = unsafe {
            let descriptors = granted.rx_descriptors;
            dpdk_sys::rte_eth_rx_queue_setup(number, queue, descriptors, socket, &rx, pool.as_ptr())
        };
        Errno::check(ret).map_err(failed(Direction::Rx, queue))?;
    }
    for queue in 0..config.tx_queues {
        // SAFETY: as above.
        let ret =
            unsafe { dpdk_sys::rte_eth_tx_queue_setup(number, queue, granted.tx_descriptors, socket, &tx) };
        Errno::check(ret).map_err(failed(Direction::Tx, queue))?;
    }
    Ok(())
}

/// Queues of two ports are bound by hand, once both have started ([`Port::bind_hairpins`]), and what leaves
/// by them is then the application's business: mlx5 does not do it otherwise.
///
/// [`Port::bind_hairpins`]: crate::Port::bind_hairpins
fn set_up_hairpins(
    device: &Device<'_>,
    config: &PortConfig,
    granted: &Granted,
) -> Result<(), ConfigureError> {
    let number = device.number();
    let ends = [
        (Direction::Rx, config.rx_queues, &config.hairpin_rx),
        (Direction::Tx, config.tx_queues, &config.hairpin_tx),
    ];
    for (direction, first, peers) in ends {
        for (queue, peer) in (first..).zip(peers) {
            let mut conf = dpdk_sys::rte_eth_hairpin_conf::default();
            let by_hand = u32::from(peer.port != number);
            conf.set_peer_count(1);
            conf.set_manual_bind(by_hand);
            conf.set_tx_explicit(by_hand);
            (conf.peers[0].port, conf.peers[0].queue) = (peer.port, peer.queue);
            // SAFETY: the port is configured with this queue and not started; drivers copy `conf`.
            let ret = unsafe {
                match direction {
                    Direction::Rx => {
                        let descriptors = granted.rx_descriptors;
                        dpdk_sys::rte_eth_rx_hairpin_queue_setup(number, queue, descriptors, &conf)
                    }
                    Direction::Tx => {
                        let descriptors = granted.tx_descriptors;
                        dpdk_sys::rte_eth_tx_hairpin_queue_setup(number, queue, descriptors, &conf)
                    }
                }
            };
            let port = || device.name().to_owned();
            let failed = |errno| ConfigureError::QueueSetup { port: port(), direction, queue, errno };
            Errno::check(ret).map_err(failed)?;
        }
    }
    Ok(())
}

/// Tells the device its MTU, for drivers that do not take it from the configuration (a kernel interface's
/// is changed this way). A driver without the operation has none to change.
fn set_mtu(device: &Device<'_>, asked: Option<u16>) -> Result<(), ConfigureError> {
    let Some(mtu) = asked else { return Ok(()) };
    // SAFETY: the port is configured and ours.
    match Errno::check(unsafe { dpdk_sys::rte_eth_dev_set_mtu(device.number(), mtu) }) {
        Ok(()) | Err(Errno::NOTSUP) => Ok(()),
        Err(errno) => Err(ConfigureError::SetMtu { port: device.name().to_owned(), mtu, errno }),
    }
}
