//! A configured port: its life, and its control path. How it is configured is in [`configure`].

use std::ffi::CStr;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, MutexGuard, PoisonError};

use dataplane::ids::PortId;
use dataplane::owner::KEY_LEN;

use crate::configure::{self, ConfigureError, Granted, PortConfig};
use crate::device::Device;
use crate::errno::Errno;
use crate::flow::{self, FlowError, FlowPort, FlowQueue, FlowQueueConfig, Flows, QueueLimits};
use crate::mempool::Mempool;
use crate::queue::{Claim, OnlyFrom, QueueError, RxQueue, TxQueue};
use crate::rss::{self, Rss, RssTable};

/// The port would not start.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("port {port}: starting it: {errno}")]
pub struct StartError {
    /// The port.
    pub port: String,
    /// What it answered.
    pub errno: Errno,
}

/// The port would not stop.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("port {port}: stopping it: {errno}")]
pub struct StopError {
    /// The port.
    pub port: String,
    /// What it answered.
    pub errno: Errno,
}

/// Why a question to a port, or a change at run time, failed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ControlError {
    /// Reading its MAC address.
    #[error("port {port}: reading its MAC address: {errno}")]
    Mac {
        /// The port.
        port: String,
        /// What it answered.
        errno: Errno,
    },
    /// Reading its MTU.
    #[error("port {port}: reading its MTU: {errno}")]
    Mtu {
        /// The port.
        port: String,
        /// What it answered.
        errno: Errno,
    },
    /// Reading its link.
    #[error("port {port}: reading its link: {errno}")]
    Link {
        /// The port.
        port: String,
        /// What it answered.
        errno: Errno,
    },
    /// Reading its statistics.
    #[error("port {port}: reading its statistics: {errno}")]
    Stats {
        /// The port.
        port: String,
        /// What it answered.
        errno: Errno,
    },
    /// Binding hairpin queues to those of another port.
    #[error("port {port}: binding its hairpin queues to port {receiver}: {errno}")]
    Hairpin {
        /// The port, which transmits.
        port: String,
        /// DPDK's number of the other one, which receives.
        receiver: u16,
        /// What it answered.
        errno: Errno,
    },
    /// Reading or writing the RSS key or redirection table; `ENOTSUP` where the device has none.
    #[error("port {port}: its RSS key and redirection table: {errno}")]
    Rss {
        /// The port.
        port: String,
        /// What it answered.
        errno: Errno,
    },
    /// A redirection table of another length than the device's, or with a queue that does not exist.
    #[error("port {port}: a redirection table needs {size} entries below {queues}")]
    Reta {
        /// The port.
        port: String,
        /// Entries the device has.
        size: u16,
        /// Receive queues of the port.
        queues: u16,
    },
}

/// What a link is like now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Link {
    /// Whether there is carrier.
    pub up: bool,
    /// Megabits per second, if known.
    pub speed_mbps: Option<u32>,
    /// Whether both directions work at once.
    pub full_duplex: bool,
}

/// What a port has counted since it was started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PortStats {
    /// Packets received.
    pub rx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets the device dropped because rx queues were full.
    pub rx_missed: u64,
    /// Packets received in error.
    pub rx_errors: u64,
    /// Packets that failed to be sent.
    pub tx_errors: u64,
    /// Packets lost because the pool was exhausted.
    pub rx_no_buffers: u64,
}

/// A configured port. Stopped and closed on drop.
///
/// Workers hold its queues; everything else here is control path, callable from any thread: a lock
/// keeps callers apart, as ethdev's control calls are not safe against each other.
#[derive(Debug)]
pub struct Port<'pool> {
    device: Device<'pool>,
    pool: &'pool Mempool<'pool>,
    wanted: PortConfig,
    granted: Granted,
    driver: String,
    started: bool,
    rx_taken: Box<[AtomicBool]>,
    tx_taken: Box<[AtomicBool]>,
    flows_taken: AtomicBool,
    /// Its flow queue's size, if it has one.
    flow_queue: Option<FlowQueueConfig>,
    control: Mutex<()>,
}

impl<'pool> Port<'pool> {
    pub(crate) fn configure(
        device: Device<'pool>,
        config: &PortConfig,
        pool: &'pool Mempool<'_>,
    ) -> Result<Port<'pool>, ConfigureError> {
        let (info, granted) = configure::apply(&device, config, pool)?;
        let driver = if info.driver_name.is_null() {
            String::new()
        } else {
            // SAFETY: not null, so a string constant of the driver.
            unsafe { CStr::from_ptr(info.driver_name) }.to_string_lossy().into_owned()
        };
        let untaken = |queues: u16| (0..queues).map(|_| AtomicBool::new(false)).collect();
        Ok(Port {
            pool,
            wanted: config.clone(),
            granted,
            driver,
            started: false,
            rx_taken: untaken(config.rx_queues),
            tx_taken: untaken(config.tx_queues),
            flows_taken: AtomicBool::new(false),
            flow_queue: None,
            control: Mutex::new(()),
            device,
        })
    }

    /// Starts the device, without its hairpin queues if they keep it from starting. Then there are queues to
    /// take.
    pub fn start(&mut self) -> Result<(), StartError> {
        let number = self.device.number();
        if let Err(refused) = self.try_start() {
            let (wanted, granted) = (&self.wanted, &self.granted);
            let has_hairpins = granted.hairpins_refused.is_none()
                && !(wanted.hairpin_rx.is_empty() && wanted.hairpin_tx.is_empty());
            if !has_hairpins {
                return Err(refused);
            }
            let why = refused.to_string();
            let plain = configure::apply_without_hairpins(&self.device, wanted, self.pool, why);
            self.granted = plain.map_err(|_| refused)?.1;
            self.try_start()?;
        }
        self.started = true;
        // Neighbour solicitations are sent to groups that depend on the addresses asked for (RFC 4291
        // §2.7.1), all VIPs among them. A device that cannot do this is trusted to filter nothing.
        // SAFETY: the port is valid and exclusively borrowed.
        self.granted.all_multicast = unsafe { dpdk_sys::rte_eth_allmulticast_enable(number) } == 0;
        if self.wanted.promiscuous {
            // SAFETY: the port is valid and exclusively borrowed.
            self.granted.promiscuous = unsafe { dpdk_sys::rte_eth_promiscuous_enable(number) } == 0;
        }
        if self.granted.rss != Rss::None {
            self.granted.rss_key = self.ensure_rss_key().is_ok_and(|as_wanted| as_wanted);
        }
        Ok(())
    }

    fn try_start(&self) -> Result<(), StartError> {
        // SAFETY: the port is configured, queues and all, and not started; nobody has a queue of it.
        Errno::check(unsafe { dpdk_sys::rte_eth_dev_start(self.number()) })
            .map_err(|errno| StartError { port: self.name().to_owned(), errno })
    }

    /// Whether the device hashes with the wanted key. Some drivers take it from the configuration, others
    /// only when told again.
    fn ensure_rss_key(&self) -> Result<bool, Errno> {
        let (in_use, _, types) = self.rss_key()?;
        let mut wanted = rss::key_of_len(&self.wanted.rss_key, in_use.len() as u8);
        if in_use == wanted {
            return Ok(true);
        }
        let mut conf = rss::hash_conf(&mut wanted, types);
        // SAFETY: the port is valid; `conf` points at a key of the device's length.
        Errno::check(unsafe { dpdk_sys::rte_eth_dev_rss_hash_update(self.number(), &mut conf) })?;
        Ok(self.rss_key()?.0 == wanted)
    }

    /// The key in use, the size of the redirection table, and the hashed types.
    fn rss_key(&self) -> Result<(Vec<u8>, u16, u64), Errno> {
        let info = self.device.info()?;
        let mut key = rss::key_of_len(&[0; KEY_LEN], info.hash_key_size);
        let mut conf = rss::hash_conf(&mut key, 0);
        // SAFETY: the port is valid; `conf` points at room for a key of the device's length.
        Errno::check(unsafe { dpdk_sys::rte_eth_dev_rss_hash_conf_get(self.number(), &mut conf) })?;
        Ok((key, info.reta_size, conf.rss_hf))
    }

    /// Stops the device. Nobody has a queue any more, by the exclusive borrow.
    pub fn stop(&mut self) -> Result<(), StopError> {
        if !self.started {
            return Ok(());
        }
        // SAFETY: the port is started, and nobody is in one of its queues.
        Errno::check(unsafe { dpdk_sys::rte_eth_dev_stop(self.device.number()) })
            .map_err(|errno| StopError { port: self.name().to_owned(), errno })?;
        self.started = false;
        // A queue that was forgotten rather than dropped has left its mark.
        for taken in self.rx_taken.iter_mut().chain(&mut self.tx_taken) {
            *taken.get_mut() = false;
        }
        *self.flows_taken.get_mut() = false;
        Ok(())
    }

    /// The port on which rules of this port's eSwitch are made under hardware steering, by DPDK's number.
    ///
    /// # Errors
    /// There is no eSwitch, or its proxy has not been probed.
    pub fn transfer_proxy(&self) -> Result<u16, FlowError> {
        flow::transfer_proxy(self.number())
    }

    /// What flow queues the port could have.
    ///
    /// # Errors
    /// ENOTSUP, ENOSYS: hardware steering is off, or unknown to the driver.
    pub fn flow_queue_limits(&self) -> Result<QueueLimits, FlowError> {
        flow::queue::limits(self.number())
    }

    /// Gives the port, which is not started yet, a flow queue.
    ///
    /// # Errors
    /// What the driver says; EINVAL if it is started.
    pub fn configure_flow_queue(&mut self, config: &FlowQueueConfig) -> Result<(), FlowError> {
        flow::queue::configure(self.number(), config)?;
        self.flow_queue = Some(*config);
        Ok(())
    }

    /// Takes the port's flow rules, made one by one; they return when dropped.
    ///
    /// # Errors
    /// ENODEV if the port is not started, EBUSY if somebody has them.
    pub fn flows(&self) -> Result<Flows<'_>, FlowError> {
        Ok(Flows::new(self.flow_port()?))
    }

    /// Takes the port's flow queue; it returns when dropped.
    ///
    /// # Errors
    /// As [`Port::flows`]; EINVAL if it was given none.
    pub fn flow_queue(&self) -> Result<FlowQueue<'_>, FlowError> {
        let config = self.flow_queue.ok_or_else(|| flow::refused(self.number(), Errno::INVAL))?;
        Ok(FlowQueue::new(self.flow_port()?, &config))
    }

    fn flow_port(&self) -> Result<FlowPort<'_>, FlowError> {
        if !self.started {
            return Err(flow::refused(self.number(), Errno::NODEV));
        }
        FlowPort::take(self, &self.flows_taken)
    }

    /// Binds the hairpin queues that lead from `receiver`, by DPDK's number, to this port: both have started.
    pub fn bind_hairpins(&self, receiver: u16) -> Result<(), ControlError> {
        let _lock = self.control();
        // SAFETY: both numbers are looked up by the callee.
        Errno::check(unsafe { dpdk_sys::rte_eth_hairpin_bind(self.number(), receiver) })
            .map_err(|errno| ControlError::Hairpin { port: self.name().to_owned(), receiver, errno })
    }

    /// Takes a receive queue; it returns when dropped.
    pub fn rx_queue(&self, queue: u16) -> Result<RxQueue<'_>, QueueError> {
        Ok(RxQueue { claim: self.claim(&self.rx_taken, queue)?, id: self.id() })
    }

    /// Takes a transmit queue; it returns when dropped.
    pub fn tx_queue(&self, queue: u16) -> Result<TxQueue<'_>, QueueError> {
        let only_from = self.granted.fast_free.then(|| OnlyFrom(self.pool.as_ptr()));
        Ok(TxQueue { claim: self.claim(&self.tx_taken, queue)?, only_from })
    }

    fn claim<'port>(
        &'port self,
        queues: &'port [AtomicBool],
        queue: u16,
    ) -> Result<Claim<'port>, QueueError> {
        let port = || self.name().to_owned();
        if !self.started {
            return Err(QueueError::NotStarted { port: port() });
        }
        let taken =
            queues.get(usize::from(queue)).ok_or_else(|| QueueError::NoSuchQueue { port: port(), queue })?;
        Claim::take(taken, self.device.number(), queue)
            .ok_or_else(|| QueueError::Taken { port: port(), queue })
    }

    /// What the device made of the configuration.
    #[must_use]
    pub fn granted(&self) -> &Granted {
        &self.granted
    }

    /// What packets received here carry as their port.
    #[must_use]
    pub fn id(&self) -> PortId {
        self.wanted.id
    }

    /// DPDK's number for the port.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.device.number()
    }

    /// DPDK's name for the port.
    #[must_use]
    pub fn name(&self) -> &str {
        self.device.name()
    }

    /// The driver's name (`mlx5_pci`, `net_af_packet`).
    #[must_use]
    pub fn driver_name(&self) -> &str {
        &self.driver
    }

    /// The switch that the port is one of; see [`Device::switch_domain`].
    #[must_use]
    pub fn switch_domain(&self) -> Option<u16> {
        self.device.switch_domain()
    }

    /// The NUMA socket the device is on, if it is on one.
    #[must_use]
    pub fn socket(&self) -> Option<u32> {
        self.device.socket()
    }

    /// The device's first MAC address.
    pub fn mac(&self) -> Result<[u8; 6], ControlError> {
        let _lock = self.control();
        let mut mac = dpdk_sys::rte_ether_addr::default();
        // SAFETY: the port is valid; `mac` is writable.
        Errno::check(unsafe { dpdk_sys::rte_eth_macaddr_get(self.number(), &mut mac) })
            .map_err(|errno| ControlError::Mac { port: self.name().to_owned(), errno })?;
        Ok(mac.addr_bytes)
    }

    /// The largest IP packet it takes.
    pub fn mtu(&self) -> Result<u16, ControlError> {
        let _lock = self.control();
        let mut mtu = 0;
        // SAFETY: the port is valid; `mtu` is writable.
        Errno::check(unsafe { dpdk_sys::rte_eth_dev_get_mtu(self.number(), &mut mtu) })
            .map_err(|errno| ControlError::Mtu { port: self.name().to_owned(), errno })?;
        Ok(mtu)
    }

    /// The link as it is now, without waiting for a negotiation to end.
    pub fn link(&self) -> Result<Link, ControlError> {
        let _lock = self.control();
        let mut link = dpdk_sys::millrace_link::default();
        // SAFETY: the port is valid; `link` is writable.
        Errno::check(unsafe { dpdk_sys::millrace_link_get(self.number(), &mut link) })
            .map_err(|errno| ControlError::Link { port: self.name().to_owned(), errno })?;
        let speed_mbps = (link.speed_mbps != u32::MAX).then_some(link.speed_mbps);
        Ok(Link { up: link.up, speed_mbps, full_duplex: link.full_duplex })
    }

    /// The counters every driver has.
    pub fn stats(&self) -> Result<PortStats, ControlError> {
        let _lock = self.control();
        let mut stats = dpdk_sys::rte_eth_stats::default();
        // SAFETY: the port is valid; `stats` is writable.
        Errno::check(unsafe { dpdk_sys::rte_eth_stats_get(self.number(), &mut stats) })
            .map_err(|errno| ControlError::Stats { port: self.name().to_owned(), errno })?;
        Ok(PortStats {
            rx_packets: stats.ipackets,
            rx_bytes: stats.ibytes,
            tx_packets: stats.opackets,
            tx_bytes: stats.obytes,
            rx_missed: stats.imissed,
            rx_errors: stats.ierrors,
            tx_errors: stats.oerrors,
            rx_no_buffers: stats.rx_nombuf,
        })
    }

    /// Every counter the driver has, by its own name.
    pub fn xstats(&self) -> Result<Vec<(String, u64)>, ControlError> {
        let _lock = self.control();
        let failed = |errno| ControlError::Stats { port: self.name().to_owned(), errno };
        let port = self.number();
        // SAFETY: a null array of size zero asks for the number of counters.
        let count = unsafe { dpdk_sys::rte_eth_xstats_get_names(port, core::ptr::null_mut(), 0) };
        Errno::check(count).map_err(failed)?;
        let mut names = vec![dpdk_sys::rte_eth_xstat_name::default(); count as usize];
        let mut values = vec![dpdk_sys::rte_eth_xstat::default(); count as usize];
        // SAFETY: both arrays have `count` writable entries, which is what the callees are told.
        let (named, valued) = unsafe {
            (
                dpdk_sys::rte_eth_xstats_get_names(port, names.as_mut_ptr(), count as u32),
                dpdk_sys::rte_eth_xstats_get(port, values.as_mut_ptr(), count as u32),
            )
        };
        Errno::check(named).map_err(failed)?;
        Errno::check(valued).map_err(failed)?;
        // A larger number than was asked for means that the counters have just become more.
        let valued = values.iter().take(valued as usize);
        let with_name = |value: &dpdk_sys::rte_eth_xstat| {
            let name = names.get(value.id as usize)?;
            // SAFETY: names are NUL-terminated within their array, which was zeroed.
            let name = unsafe { CStr::from_ptr(name.name.as_ptr()) };
            Some((name.to_string_lossy().into_owned(), value.value))
        };
        Ok(valued.filter_map(with_name).collect())
    }

    /// The key and the redirection table the device uses.
    pub fn rss_table(&self) -> Result<RssTable, ControlError> {
        let _lock = self.control();
        let failed = |errno| ControlError::Rss { port: self.name().to_owned(), errno };
        let (key, size, _) = self.rss_key().map_err(failed)?;
        let mut groups = reta_groups(size);
        // SAFETY: the port is valid; `groups` has room for the device's table.
        let ret = unsafe { dpdk_sys::rte_eth_dev_rss_reta_query(self.number(), groups.as_mut_ptr(), size) };
        Errno::check(ret).map_err(failed)?;
        let reta = groups.iter().flat_map(|group| group.reta).take(usize::from(size)).collect();
        Ok(RssTable { key, reta })
    }

    /// Replaces the redirection table: queues by hash, as many as the device has entries.
    pub fn set_reta(&self, reta: &[u16]) -> Result<(), ControlError> {
        let _lock = self.control();
        let port = || self.name().to_owned();
        let info = self.device.info().map_err(|errno| ControlError::Rss { port: port(), errno })?;
        let (size, queues) = (info.reta_size, self.rx_taken.len() as u16);
        if reta.len() != usize::from(size) || reta.iter().any(|queue| *queue >= queues) {
            return Err(ControlError::Reta { port: port(), size, queues });
        }
        let mut groups = reta_groups(size);
        for (group, queues) in groups.iter_mut().zip(reta.chunks(RETA_GROUP)) {
            group.reta[..queues.len()].copy_from_slice(queues);
        }
        // SAFETY: the port is valid; `groups` holds the device's number of entries.
        let ret = unsafe { dpdk_sys::rte_eth_dev_rss_reta_update(self.number(), groups.as_mut_ptr(), size) };
        Errno::check(ret).map_err(|errno| ControlError::Rss { port: port(), errno })
    }

    fn control(&self) -> MutexGuard<'_, ()> {
        // It guards no data of ours, so a panic elsewhere spoils nothing.
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Port<'_> {
    fn drop(&mut self) {
        // A device that will not stop is closed all the same; there is nobody left to tell.
        let _ = self.stop();
        // SAFETY: the port is ours and going away, and by the borrows nobody is in one of its queues.
        unsafe { self.device.close() };
    }
}

const RETA_GROUP: usize = dpdk_sys::MILLRACE_RETA_GROUP_SIZE as usize;

/// Space for a redirection table, every entry of it marked as asked for.
fn reta_groups(size: u16) -> Vec<dpdk_sys::rte_eth_rss_reta_entry64> {
    let group = dpdk_sys::rte_eth_rss_reta_entry64 { mask: u64::MAX, ..Default::default() };
    vec![group; usize::from(size).div_ceil(RETA_GROUP)]
}
