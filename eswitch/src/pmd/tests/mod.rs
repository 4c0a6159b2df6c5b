//! The driver under an EAL of its own, through DPDK's public functions only: what an application sees of it.
//!
//! A [`Lab`] is a device between two wires made of rings. One thread at a time plays both far ends and the
//! application:
//!
//! ```text
//!   offer() ──> ring ──> [wire 0] net_eswitch [wire 1] ──> ring ──> collect()
//!                             port 0   port 1
//! ```
//!
//! [`forward`]: packets through many rules. [`churn`]: flow queues of two threads. [`stall`]: how long rules
//! keep packets waiting. Each has a short test and, ignored by default, a bench that prints numbers;
//! `scripts/bench/driver.sh` runs those.

mod churn;
mod forward;
mod rules;
mod stall;

use std::ffi::{CString, c_char, c_int, c_uint};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::device::{self, Switch};
use super::ffi;

/// Packets that are handed over together.
const BURST: usize = 32;

/// Packets that a ring of a wire holds.
const RING: u16 = 1023;

/// How long packets under way are waited for, at most, nanoseconds.
const PATIENCE_NS: u64 = 10_000_000_000;

/// Buffers of the far ends.
const MBUFS: u32 = 4095;

/// What the EAL is started with, unless `ESWITCH_TEST_EAL` says otherwise.
const EAL: &str = "--no-huge -m 512 --no-pci --no-telemetry --no-shconf -l 0";

#[link(name = "rte_net_ring")]
unsafe extern "C" {
    fn rte_eth_from_rings(
        name: *const c_char,
        rx_queues: *const *mut ffi::rte_ring,
        rx_count: c_uint,
        tx_queues: *const *mut ffi::rte_ring,
        tx_count: c_uint,
        node: c_uint,
    ) -> c_int;
}

/// Starts the EAL once. It stays with the process.
fn eal() {
    static STARTED: OnceLock<()> = OnceLock::new();
    STARTED.get_or_init(|| {
        let words = std::env::var("ESWITCH_TEST_EAL").unwrap_or_else(|_| EAL.to_owned());
        // The EAL ties its caller to a core; that is to be none of the tests' threads.
        let started = std::thread::spawn(move || {
            let words: Vec<CString> =
                std::iter::once("eswitch").chain(words.split_whitespace()).map(text).collect();
            // It keeps the pointers, and exchanges them.
            let words: &'static mut [*mut c_char] =
                words.into_iter().map(CString::into_raw).collect::<Vec<_>>().leak();
            // SAFETY: terminated words that live as long as the process.
            unsafe { ffi::rte_eal_init(words.len() as c_int, words.as_mut_ptr()) }
        });
        assert!(started.join().expect("it returns") >= 0, "the EAL does not start");
    });
}

fn text(text: &str) -> CString {
    CString::new(text).expect("no NUL")
}

/// A device, its two wires' far ends, and their buffers.
struct Lab {
    switch: Arc<Switch>,
    /// The device's ports.
    ports: [u16; 2],
    name: String,
    /// Into wire 0, and out of wire 1.
    rings: [*mut ffi::rte_ring; 2],
    pool: *mut ffi::rte_mempool,
    /// Buffers that are neither on a wire nor in the device.
    free: Vec<*mut ffi::rte_mbuf>,
    /// Devices of one process come one after another.
    _alone: MutexGuard<'static, ()>,
}

impl Lab {
    /// A device with these arguments besides its wires, its ports configured.
    fn new(devargs: &str) -> Lab {
        static ALONE: Mutex<u32> = Mutex::new(0);
        static TURN: Mutex<()> = Mutex::new(());
        let alone = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        eal();
        let number = {
            let mut count = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
            *count += 1;
            *count
        };
        let pool_name = text(&format!("far{number}"));
        // SAFETY: a terminated name; the function checks the rest.
        let pool = unsafe { ffi::rte_pktmbuf_pool_create(pool_name.as_ptr(), MBUFS, 256, 0, 2304, 0) };
        assert!(!pool.is_null(), "no memory for the far ends' buffers");
        let wires = [wire(&format!("w{number}a")), wire(&format!("w{number}b"))];
        let name = format!("net_eswitch_t{number}");
        let ends = format!("uplink=net_ring_w{number}a,host=net_ring_w{number}b,mbufs=1024,{devargs}");
        // SAFETY: terminated strings.
        let status = unsafe { ffi::rte_vdev_init(text(&name).as_ptr(), text(&ends).as_ptr()) };
        assert_eq!(status, 0, "{name},{ends} does not come up");
        let switch = device::all().into_iter().find(|switch| switch.name == name).expect("it is there");
        let ports = [switch.ports[0].port_id, switch.ports[1].port_id];
        // SAFETY: the pool is live; these buffers are ours until they are sent.
        let free = (0..2 * RING).map(|_| unsafe { ffi::eswitch_mbuf_alloc(pool) }).collect();
        let rings = [wires[0].0, wires[1].1];
        let lab = Lab { switch, ports, name, rings, pool, free, _alone: alone };
        lab.configure();
        lab
    }

    /// Configures both ports.
    fn configure(&self) {
        for port in self.ports {
            let conf = ffi::rte_eth_conf::default();
            // SAFETY: a port of ours that is stopped; everything passed outlives the calls.
            let status = unsafe {
                [
                    ffi::rte_eth_dev_configure(port, 1, 1, &raw const conf),
                    ffi::rte_eth_rx_queue_setup(port, 0, 512, 0, std::ptr::null(), self.pool),
                    ffi::rte_eth_tx_queue_setup(port, 0, 512, 0, std::ptr::null()),
                ]
            };
            assert_eq!(status, [0; 3], "port {port} cannot be configured");
        }
    }

    /// Starts both ports.
    fn start(&self) {
        for port in self.ports {
            // SAFETY: a port of ours that is configured.
            let status = unsafe { [ffi::rte_eth_dev_start(port), ffi::rte_eth_promiscuous_enable(port)] };
            assert_eq!(status, [0; 2], "port {port} does not start");
        }
    }

    /// Puts frames onto wire 0 until it or the buffers are full; how many of them.
    fn offer<'a>(&mut self, frames: impl Iterator<Item = &'a [u8]>) -> usize {
        let mut mbufs = [std::ptr::null_mut(); BURST];
        let mut count = 0;
        for frame in frames.take(BURST) {
            let Some(mbuf) = self.free.pop() else { break };
            // SAFETY: the buffer is ours, of one segment, and longer than any of our frames.
            unsafe { write_frame(mbuf, frame) };
            mbufs[count] = mbuf;
            count += 1;
        }
        // SAFETY: this thread is the ring's one producer; what is not taken is still ours.
        let taken =
            unsafe { ffi::eswitch_ring_enqueue(self.rings[0], mbufs.as_mut_ptr(), count as u32) } as usize;
        self.free.extend(&mbufs[taken..count]);
        taken
    }

    /// Takes what has come out of wire 1; how many packets.
    fn collect(&mut self) -> usize {
        let mut mbufs = [std::ptr::null_mut(); 2 * BURST];
        // SAFETY: this thread is the ring's one consumer, and there is room.
        let count =
            unsafe { ffi::eswitch_ring_dequeue(self.rings[1], mbufs.as_mut_ptr(), mbufs.len() as u32) }
                as usize;
        self.free.extend(&mbufs[..count]);
        count
    }

    /// Takes what is on wire 0 to the end of wire 1 without the device.
    fn bypass(&mut self) {
        let mut mbufs = [std::ptr::null_mut(); BURST];
        // SAFETY: nobody drives the device meanwhile, so this thread alone is at these ends of the rings;
        // what came out of one, and does not fit the other, is ours.
        unsafe {
            let count = ffi::eswitch_ring_dequeue(self.rings[0], mbufs.as_mut_ptr(), BURST as u32);
            let passed = ffi::eswitch_ring_enqueue(self.rings[1], mbufs.as_mut_ptr(), count);
            self.free.extend(&mbufs[passed as usize..count as usize]);
        }
    }

    /// Polls a port, which drives the device, and takes what no rule caught; how many packets.
    fn poll(&mut self, port: usize) -> usize {
        let mut mbufs = [std::ptr::null_mut(); BURST];
        // SAFETY: a started port with one queue, which this thread alone polls.
        let count = usize::from(unsafe {
            ffi::eswitch_rx_burst(self.ports[port], 0, mbufs.as_mut_ptr(), BURST as u16)
        });
        self.free.extend(&mbufs[..count]);
        count
    }

    /// Passes frames through the device, burst by burst; how many came out of wire 1 and of port 0.
    fn pass<'a>(&mut self, frames: impl Iterator<Item = &'a [u8]>) -> [usize; 2] {
        let mut frames = frames.peekable();
        let (mut offered, mut seen) = (0, [0; 2]);
        while frames.peek().is_some() {
            offered += self.offer(frames.by_ref().take(BURST));
            self.drain(offered, &mut seen);
        }
        seen
    }

    /// Polls until as many packets have come out, of wire 1 and of port 0, as went in.
    ///
    /// A poll that finds the switch held by another thread moves nothing, and that thread may have been
    /// preempted: what ends the wait is the packets, not a number of polls. Packets that are lost end it too,
    /// late; it is for the caller to notice.
    fn drain(&mut self, offered: usize, seen: &mut [usize; 2]) {
        let clock = self.switch.clock;
        let patience = clock.now().after(PATIENCE_NS);
        loop {
            let moved = [self.collect(), self.poll(0)];
            seen[0] += moved[0];
            seen[1] += moved[1];
            if seen[0] + seen[1] >= offered || clock.now().0 >= patience.0 {
                return;
            }
            if moved == [0; 2] {
                std::thread::yield_now();
            }
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        while self.collect() > 0 {}
        // SAFETY: ports and a device of ours; nobody else uses them any more.
        unsafe {
            for port in [self.ports[1], self.ports[0]] {
                ffi::rte_eth_dev_stop(port);
            }
            let status = ffi::rte_vdev_uninit(text(&self.name).as_ptr());
            for mbuf in self.free.drain(..) {
                ffi::eswitch_mbuf_free(mbuf);
            }
            if !std::thread::panicking() {
                assert_eq!(status, 0, "{} does not go away", self.name);
            }
        }
    }
}

/// Makes a wire; returns the rings into and out of it, as the device sees them.
fn wire(name: &str) -> (*mut ffi::rte_ring, *mut ffi::rte_ring) {
    let (rx, tx) = (super::rxtx::new_ring(RING, 0), super::rxtx::new_ring(RING, 0));
    assert!(!rx.is_null() && !tx.is_null(), "no memory for a wire");
    // SAFETY: a terminated name and two rings, which the ethdev keeps; they are not freed before it.
    let port = unsafe { rte_eth_from_rings(text(name).as_ptr(), &raw const rx, 1, &raw const tx, 1, 0) };
    assert!(port >= 0, "wire {name} does not come up");
    (rx, tx)
}

/// Fills a buffer as a wire's driver would.
///
/// # Safety
/// The mbuf is the caller's, of one segment that has room for the frame behind 128 bytes.
unsafe fn write_frame(mbuf: *mut ffi::rte_mbuf, frame: &[u8]) {
    // SAFETY: the caller's promise.
    unsafe {
        (*mbuf).data_off = 128;
        (*mbuf).ol_flags = 0;
        (*mbuf).data_len = frame.len() as u16;
        (*mbuf).pkt_len = frame.len() as u32;
        let start = (*mbuf).buf_addr.cast::<u8>().add(128);
        std::ptr::copy_nonoverlapping(frame.as_ptr(), start, frame.len());
    }
}

/// Makes the calling thread known to DPDK, for the buffer pools' caches, until dropped.
struct Registered;

impl Registered {
    fn new() -> Registered {
        // SAFETY: the EAL runs; at worst the thread stays unknown.
        unsafe { ffi::rte_thread_register() };
        Registered
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        // SAFETY: undoes the registration; nothing happens without one.
        unsafe { ffi::rte_thread_unregister() };
    }
}

/// Numbers below a bound, in no order.
struct Shuffle(u64);

impl Shuffle {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        ((self.0 >> 32).wrapping_mul(u64::from(bound)) >> 32) as u32
    }
}

/// A number from the environment.
fn setting(name: &str, default: u32) -> u32 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// What a bench has to say: on lines of their own, marked.
fn say(line: &str) {
    println!("bench: {line}");
}
