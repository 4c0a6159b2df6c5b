//! Wires: the ethdevs of other drivers behind the vports. They are found by name, whether they were probed
//! before or after the device, and owned, so that applications do not see them among their ports.

use std::ffi::{CStr, CString};

use arrayvec::ArrayVec;
use dataplane::packet::{BURST, Burst};

use super::ffi;
use super::mbuf::Packet;

/// Descriptors asked of a wire's queues.
const DESCRIPTORS: u16 = 1024;

/// A burst and as many mirror copies.
pub(super) const OUT: usize = 2 * BURST;

/// How far a wire has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// No ethdev of that name.
    Missing,
    /// It is there and ours, but not started.
    Owned(u16),
    /// It runs; `rx`, `tx`: which directions it has.
    Running {
        /// The ethdev.
        port: u16,
        /// It receives.
        rx: bool,
        /// It transmits.
        tx: bool,
    },
    /// It is there, but unusable; the reason was logged.
    Failed(u16),
    /// It is there, but not to be ours; the reason was logged.
    Foreign(u16),
}

/// What passed between the device and the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct WireStats {
    pub(super) rx_packets: u64,
    pub(super) rx_bytes: u64,
    /// Received, but there was no buffer to make it one piece.
    pub(super) rx_nobuf: u64,
    pub(super) tx_packets: u64,
    pub(super) tx_bytes: u64,
    /// The wire did not take it, twice.
    pub(super) tx_full: u64,
    /// There is no wire, or it does not run.
    pub(super) tx_down: u64,
    /// Received or to be sent when the wire went away.
    pub(super) lost: u64,
}

/// One wire. Only who drives the device touches it.
pub(super) struct Wire {
    pub(super) name: String,
    pub(super) state: State,
    /// A fault keeps it down.
    pub(super) cut: bool,
    /// Received, but not yet let into the device.
    pub(super) held: Burst<Packet>,
    out: ArrayVec<Packet, OUT>,
    pub(super) stats: WireStats,
}

impl State {
    /// The ethdev, if there is one.
    pub(super) const fn port(self) -> Option<u16> {
        match self {
            State::Missing => None,
            State::Owned(port) | State::Running { port, .. } | State::Failed(port) | State::Foreign(port) => {
                Some(port)
            }
        }
    }

    /// The ethdev, if it is ours.
    pub(super) fn owned(self) -> Option<u16> {
        self.port().filter(|_| !matches!(self, State::Foreign(_)))
    }
}

impl Wire {
    pub(super) fn new(name: &str) -> Wire {
        Wire {
            name: name.to_owned(),
            state: State::Missing,
            cut: false,
            held: Burst::new(),
            out: ArrayVec::new(),
            stats: WireStats::default(),
        }
    }

    /// Fills `held`, if it is empty, from the wire.
    #[inline]
    pub(super) fn receive(&mut self, pool: *mut ffi::rte_mempool) {
        let State::Running { port, rx: true, .. } = self.state else { return };
        if self.cut || !self.held.is_empty() {
            return;
        }
        let mut mbufs = [std::ptr::null_mut(); BURST];
        // SAFETY: the port runs with one queue, which only the holder of the drive lock, the caller, polls;
        // there is room for BURST pointers.
        let count = unsafe { ffi::eswitch_rx_burst(port, 0, mbufs.as_mut_ptr(), BURST as u16) };
        for mbuf in &mbufs[..usize::from(count)] {
            // SAFETY: the burst gave these mbufs to us.
            match unsafe { Packet::own(*mbuf, pool) } {
                Some(packet) => {
                    self.stats.rx_packets += 1;
                    self.stats.rx_bytes += packet.len() as u64;
                    self.held.push(packet);
                }
                None => self.stats.rx_nobuf += 1,
            }
        }
    }

    /// Keeps a packet for the next [`Wire::flush`].
    #[inline]
    pub(super) fn send(&mut self, packet: Packet) {
        if self.out.is_full() {
            self.flush();
        }
        self.out.push(packet);
    }

    /// Hands what was kept to the wire; what it does not take, asked twice, is dropped and counted.
    #[inline]
    pub(super) fn flush(&mut self) {
        if self.out.is_empty() {
            return;
        }
        let port = match self.state {
            State::Running { port, tx: true, .. } if !self.cut => port,
            _ => {
                self.stats.tx_down += self.out.len() as u64;
                return self.out.clear();
            }
        };
        let mut mbufs = [std::ptr::null_mut(); OUT];
        let mut sizes = [0_u32; OUT];
        let count = self.out.len();
        for (at, packet) in self.out.drain(..).enumerate() {
            sizes[at] = packet.len() as u32;
            mbufs[at] = packet.into_raw();
        }
        let mut sent = 0;
        for _ in 0..2 {
            if sent < count {
                // SAFETY: the port runs with one queue, which only the holder of the drive lock uses; the
                // slice holds mbufs that we own, and the first `sent` of them are not passed again.
                sent += usize::from(unsafe {
                    ffi::eswitch_tx_burst(port, 0, mbufs[sent..].as_mut_ptr(), (count - sent) as u16)
                });
            }
        }
        self.stats.tx_packets += sent as u64;
        self.stats.tx_bytes += sizes[..sent].iter().map(|size| u64::from(*size)).sum::<u64>();
        self.stats.tx_full += (count - sent) as u64;
        for mbuf in &mbufs[sent..count] {
            // SAFETY: the wire did not take them, so they are still ours.
            drop(unsafe { Packet::from_raw(*mbuf) });
        }
    }

    /// Packets that are neither in the device nor on the wire.
    pub(super) fn waiting(&self) -> usize {
        self.held.len() + self.out.len()
    }

    /// Drops what waits: the wire goes away.
    pub(super) fn clear(&mut self) {
        self.stats.lost += self.waiting() as u64;
        self.held.clear();
        self.out.clear();
    }
}

/// The ethdev of this name, if it has been probed.
pub(super) fn find(name: &str) -> Option<u16> {
    let name = CString::new(name).ok()?;
    let mut port = 0;
    // SAFETY: a terminated name and a place for the answer.
    (unsafe { ffi::rte_eth_dev_get_port_by_name(name.as_ptr(), &raw mut port) } == 0).then_some(port)
}

/// An ethdev's name; also while it is being probed.
pub(super) fn name_of(port: u16) -> Option<String> {
    // SAFETY: checks the number; the name is terminated and stays while its port is probed or released,
    // which is when this is asked.
    let name = unsafe { ffi::eswitch_port_name(port) };
    if name.is_null() {
        return None;
    }
    // SAFETY: as above.
    Some(unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned())
}

/// What an ethdev says of itself.
pub(super) fn info_of(port: u16) -> Option<ffi::rte_eth_dev_info> {
    let mut info = ffi::rte_eth_dev_info::default();
    // SAFETY: checks the number and fills the structure.
    (unsafe { ffi::rte_eth_dev_info_get(port, &raw mut info) } == 0).then_some(info)
}

/// Configures and starts a wire: one queue each way, everything received.
///
/// # Errors
/// What was asked, and the errno with which the wire declined.
pub(super) fn start(port: u16, pool: *mut ffi::rte_mempool) -> Result<State, (&'static str, i32)> {
    let check = |what, status: i32| if status < 0 { Err((what, -status)) } else { Ok(()) };
    let info = info_of(port).ok_or(("rte_eth_dev_info_get", 19))?;
    let (rx, tx) = (info.max_rx_queues.min(1), info.max_tx_queues.min(1));
    let mut config = ffi::rte_eth_conf::default();
    let mut mtu = 0;
    let (mut rx_descriptors, mut tx_descriptors) = (DESCRIPTORS, DESCRIPTORS);
    // SAFETY: the port is ours and stopped; all pointers are to live structures, and null where the function
    // takes null for its defaults.
    unsafe {
        if ffi::rte_eth_dev_get_mtu(port, &raw mut mtu) == 0 {
            config.rxmode.mtu = u32::from(mtu);
        }
        check("rte_eth_dev_configure", ffi::rte_eth_dev_configure(port, rx, tx, &raw const config))?;
        let adjusted =
            ffi::rte_eth_dev_adjust_nb_rx_tx_desc(port, &raw mut rx_descriptors, &raw mut tx_descriptors);
        check("rte_eth_dev_adjust_nb_rx_tx_desc", adjusted)?;
        let socket = ffi::rte_eth_dev_socket_id(port) as u32;
        if rx > 0 {
            let status = ffi::rte_eth_rx_queue_setup(port, 0, rx_descriptors, socket, std::ptr::null(), pool);
            check("rte_eth_rx_queue_setup", status)?;
        }
        if tx > 0 {
            let status = ffi::rte_eth_tx_queue_setup(port, 0, tx_descriptors, socket, std::ptr::null());
            check("rte_eth_tx_queue_setup", status)?;
        }
        check("rte_eth_dev_start", ffi::rte_eth_dev_start(port))?;
        // A wire that cannot be asked takes everything anyway.
        ffi::rte_eth_promiscuous_enable(port);
        ffi::rte_eth_allmulticast_enable(port);
    }
    Ok(State::Running { port, rx: rx > 0, tx: tx > 0 })
}
