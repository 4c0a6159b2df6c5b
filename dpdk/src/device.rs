//! Devices as the EAL finds them: ethdev ports that nobody has configured yet.

use std::ffi::{CStr, CString, c_char};

use crate::configure::{ConfigureError, PortConfig};
use crate::eal::Eal;
use crate::errno::Errno;
use crate::mempool::Mempool;
use crate::port::Port;

/// A port of a probed device, owned once and not configured yet. Dropping it gives up the ownership; the
/// device stays, and [`Eal::devices`] finds it again.
#[derive(Debug)]
pub struct Device<'eal> {
    number: u16,
    name: String,
    /// Whether the number is still in the EAL's claims: until the port is closed.
    claimed: bool,
    eal: &'eal Eal,
}

/// Why probing a device produced no port.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The string has a NUL byte in it.
    #[error("device {0:?} contains a NUL byte")]
    NulInDevice(String),
    /// No bus knows such a device, no driver takes it, or the driver refused its arguments. The driver's
    /// log says more.
    #[error("probing device {device}: {errno}")]
    Refused {
        /// The device, with its arguments.
        device: String,
        /// What the EAL answered.
        errno: Errno,
    },
    /// Nothing new appeared. The EAL answers alike for a device that was probed before, whose arguments
    /// are fixed by then ([`Eal::devices`] may have it), and for one that is no Ethernet device.
    #[error("device {device} brings no new port: it was probed before, or it has no Ethernet port")]
    NoNewPort {
        /// The device, with its arguments.
        device: String,
    },
}

impl Eal {
    /// Probes a device by its devargs (`net_af_packet0,iface=eth0`, `0000:03:00.0,dv_flow_en=2`) and
    /// returns the ports it brought: several for a NIC with representors.
    pub fn probe(&self, devargs: &str) -> Result<Vec<Device<'_>>, ProbeError> {
        let device = || devargs.to_owned();
        let c_devargs = CString::new(devargs).map_err(|_| ProbeError::NulInDevice(device()))?;
        // Held across the probe: the ports that are new afterwards are this call's.
        let mut claims = self.claims();
        let before = free_ports();
        // SAFETY: the EAL is running; the string is NUL-terminated and copied by the callee.
        let ret = unsafe { dpdk_sys::rte_dev_probe(c_devargs.as_ptr()) };
        match Errno::check(ret) {
            // Without secondary processes, what exists already counts as success.
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(ProbeError::Refused { device: device(), errno }),
        }
        let new: Vec<u16> = free_ports().into_iter().filter(|port| !before.contains(port)).collect();
        if new.is_empty() {
            return Err(ProbeError::NoNewPort { device: device() });
        }
        claims.extend(&new);
        drop(claims);
        Ok(new.into_iter().map(|number| Device::claimed(self, number)).collect())
    }

    /// All ports that are not owned yet, here or by another DPDK device: those found when the EAL
    /// started, and those given up since.
    #[must_use]
    pub fn devices(&self) -> Vec<Device<'_>> {
        let mut claims = self.claims();
        let unclaimed: Vec<u16> = free_ports().into_iter().filter(|port| claims.insert(*port)).collect();
        drop(claims);
        unclaimed.into_iter().map(|number| Device::claimed(self, number)).collect()
    }
}

/// Valid ports that no DPDK component (a bonding device, an eSwitch) has for itself.
fn free_ports() -> Vec<u16> {
    let next = |from: u16| {
        // SAFETY: walks ethdev's own table, under its own lock, and bounds the start itself.
        let found = unsafe { dpdk_sys::rte_eth_find_next_owned_by(from, dpdk_sys::MILLRACE_DEV_NO_OWNER) };
        u16::try_from(found).ok().filter(|port| u32::from(*port) < dpdk_sys::RTE_MAX_ETHPORTS)
    };
    std::iter::successors(next(0), |port| next(port + 1)).collect()
}

impl<'eal> Device<'eal> {
    /// The port's owner; its number is in the EAL's claims.
    fn claimed(eal: &'eal Eal, number: u16) -> Device<'eal> {
        let mut name: [c_char; dpdk_sys::RTE_ETH_NAME_MAX_LEN as usize] =
            [0; dpdk_sys::RTE_ETH_NAME_MAX_LEN as usize];
        // SAFETY: the buffer has the size the callee assumes; the array is zeroed, so a failure leaves an
        // empty string.
        let name = unsafe {
            dpdk_sys::rte_eth_dev_get_name_by_port(number, name.as_mut_ptr());
            CStr::from_ptr(name.as_ptr()).to_string_lossy().into_owned()
        };
        Device { number, name, claimed: true, eal }
    }

    /// DPDK's number for the port.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }

    /// DPDK's name for the port: the device's (`net_ring0`, `0000:03:00.0`), with a suffix for
    /// representors.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The NUMA socket the device is on, if it is on one: the best place for its packet buffers.
    #[must_use]
    pub fn socket(&self) -> Option<u32> {
        // SAFETY: the port is valid while it is claimed; reads its data.
        u32::try_from(unsafe { dpdk_sys::rte_eth_dev_socket_id(self.number) }).ok()
    }

    /// How many receive and transmit queues it can have.
    pub fn queues_max(&self) -> Result<(u16, u16), ConfigureError> {
        let info = self.info();
        let info = info.map_err(|errno| ConfigureError::Info { port: self.name.clone(), errno })?;
        Ok((info.max_rx_queues, info.max_tx_queues))
    }

    /// Whether it can have hairpin queues.
    #[must_use]
    pub fn has_hairpins(&self) -> bool {
        let mut limits = dpdk_sys::rte_eth_hairpin_cap::default();
        // SAFETY: the port is valid while it is claimed, and `limits` is writable.
        let ret = unsafe { dpdk_sys::rte_eth_dev_hairpin_capability_get(self.number, &mut limits) };
        ret == 0 && limits.max_nb_queues > 0
    }

    /// The switch that the port is one of, as a number that its other ports have, too; `None` where there is
    /// none.
    #[must_use]
    pub fn switch_domain(&self) -> Option<u16> {
        let domain = self.info().ok()?.switch_info.domain_id;
        (domain != dpdk_sys::MILLRACE_SWITCH_DOMAIN_NONE).then_some(domain)
    }

    /// What the driver says of the port, before or after its configuration.
    pub(crate) fn info(&self) -> Result<dpdk_sys::rte_eth_dev_info, Errno> {
        let mut info = dpdk_sys::rte_eth_dev_info::default();
        // SAFETY: the port is valid while it is claimed, and `info` is a writable structure of the
        // headers' own layout.
        Errno::check(unsafe { dpdk_sys::rte_eth_dev_info_get(self.number, &mut info) })?;
        Ok(info)
    }

    /// Closes the port, after which its number may become another's.
    ///
    /// # Safety
    ///
    /// The port is stopped, or cannot be, and nobody uses it or its queues from here on.
    pub(crate) unsafe fn close(&mut self) {
        // In one step with giving up the claim: the next probe may get the same number.
        let mut claims = self.eal.claims();
        // SAFETY: the port is valid while it is claimed; the caller answers for its users. A failure has
        // no remedy: the port is as gone as it gets.
        let _ = unsafe { dpdk_sys::rte_eth_dev_close(self.number) };
        claims.remove(&self.number);
        self.claimed = false;
    }

    /// Configures the port, with queues whose packets come from `pool`.
    pub fn configure<'pool>(
        self,
        config: &PortConfig,
        pool: &'pool Mempool<'_>,
    ) -> Result<Port<'pool>, ConfigureError>
    where
        'eal: 'pool,
    {
        Port::configure(self, config, pool)
    }
}

impl Drop for Device<'_> {
    fn drop(&mut self) {
        if self.claimed {
            self.eal.claims().remove(&self.number);
        }
    }
}
