//! Queues: what is received is made here, what is sent ends here.

use std::cell::UnsafeCell;
use std::ffi::{c_int, c_void};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::port::{Port, packet_type, port_of};
use super::{EINVAL, ENOMEM, ffi, log};
use crate::answer::answer;
use crate::check::{checksums_are_right, layers};
use crate::histogram::Histogram;
use crate::source::Source;
use crate::stamp;

/// Queues a port has at most, each way.
pub(super) const MAX: u16 = 256;

/// Bytes before a frame in its buffer, as the allocation leaves them.
const HEADROOM: usize = ffi::RTE_PKTMBUF_HEADROOM as usize;

/// Answers that wait in a queue, at most: one less.
const ANSWERS: u32 = 1024;

/// A counter. One thread writes it, so that it needs no atomic addition.
#[derive(Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    #[inline]
    fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed) + n, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A receive queue.
pub(super) struct RxQueue {
    port: Arc<Port>,
    pool: *mut ffi::rte_mempool,
    /// Answers; null without `answers=`.
    ring: *mut ffi::rte_ring,
    own: UnsafeCell<Own>,
    pub(super) packets: Counter,
    pub(super) bytes: Counter,
    /// Packets that found no buffer.
    pub(super) failed: Counter,
    /// Flows that were not there before.
    pub(super) fresh: Counter,
    /// Cycles from the start of a burst to the start of the next call.
    pub(super) turns: Histogram,
}

/// What only the thread that receives touches, and starting while none does.
#[derive(Default)]
struct Own {
    source: Option<Source>,
    /// When the last call began, if it returned packets; 0 otherwise.
    last: u64,
}

/// A transmit queue.
pub(super) struct TxQueue {
    port: Arc<Port>,
    /// The receive queue's that gets the answers; null without `answers=`.
    ring: *mut ffi::rte_ring,
    pub(super) packets: Counter,
    pub(super) bytes: Counter,
    pub(super) answers: Counter,
    /// Answers that found their queue full, or were to be written into a packet that others also hold.
    pub(super) answers_dropped: Counter,
    pub(super) bad_checksums: Counter,
    /// Cycles from the making of a packet that carries the time until it was sent here.
    pub(super) latencies: Histogram,
}

impl Drop for RxQueue {
    fn drop(&mut self) {
        if !self.ring.is_null() {
            // SAFETY: made by the set-up of this queue; nobody sends or receives while it is released.
            unsafe { ffi::traffic_ring_free(self.ring) };
        }
    }
}

impl RxQueue {
    fn receive(&self, out: &mut [*mut ffi::rte_mbuf]) -> u16 {
        // SAFETY: the application polls a queue from one thread at a time, and not while it starts or stops.
        let own = unsafe { &mut *self.own.get() };
        // SAFETY: reads a counter.
        let now = unsafe { ffi::traffic_tsc() };
        if own.last != 0 && self.packets.get() >= self.port.args.turns_after {
            self.turns.record(now.saturating_sub(own.last));
        }
        let answers = self.answers(out, own.source.is_some());
        let made = match &mut own.source {
            Some(source) => self.make(source, now, &mut out[answers..]),
            None => 0,
        };
        let count = answers + made;
        own.last = if count > 0 { now } else { 0 };
        self.packets.add(count as u64);
        count as u16
    }

    /// Takes answers that wait.
    #[inline]
    fn answers(&self, out: &mut [*mut ffi::rte_mbuf], has_source: bool) -> usize {
        if self.ring.is_null() {
            return 0;
        }
        let most = if has_source { out.len().div_ceil(2) } else { out.len() };
        // SAFETY: the one thread that receives.
        let count = unsafe { ffi::traffic_ring_take(self.ring, out.as_mut_ptr(), most as u32) } as usize;
        // SAFETY: they came out of the ring, valid, and ours until we return.
        let bytes = out[..count].iter().map(|packet| u64::from(unsafe { (**packet).pkt_len })).sum();
        self.bytes.add(bytes);
        count
    }

    /// Makes what the source has to say.
    #[inline]
    fn make(&self, source: &mut Source, now: u64, out: &mut [*mut ffi::rte_mbuf]) -> usize {
        let count = source.ready(now, out.len());
        if count == 0 {
            return 0;
        }
        let port = &self.port;
        // SAFETY: the application's pool of packets, and room for as many pointers.
        let got = unsafe {
            ffi::traffic_alloc(self.pool, out.as_mut_ptr(), count as u32, port.port_id, port.packet_type)
        };
        if got == 0 {
            self.failed.add(count as u64);
            return 0;
        }
        let room = source.room();
        let (mut bytes, before, stamped) = (0, source.started(), port.args.stamp);
        source.take(count, |at, template, flows| {
            for (packet, flow) in out[at..].iter().zip(flows) {
                // SAFETY: just allocated, so nobody else knows them; starting made sure that each has that
                // much room behind the headroom, which the allocation left.
                unsafe {
                    let packet = &mut **packet;
                    let data = packet.buf_addr.cast::<u8>().add(HEADROOM);
                    let frame = std::slice::from_raw_parts_mut(data, room);
                    template.write(*flow, frame);
                    if stamped {
                        stamp::write(&mut frame[..template.size().into()], now);
                    }
                    packet.pkt_len = template.size().into();
                    packet.data_len = template.size();
                }
            }
            bytes += u64::from(template.size()) * flows.len() as u64;
        });
        self.bytes.add(bytes);
        self.fresh.add(source.started() - before);
        count
    }
}

impl TxQueue {
    /// Takes all, always.
    #[inline]
    fn send(&self, packets: &mut [*mut ffi::rte_mbuf]) -> u16 {
        let count = packets.len();
        self.packets.add(count as u64);
        if self.port.args.stamp {
            self.read_stamps(packets);
        }
        let left = if self.ring.is_null() && !self.port.args.check { count } else { self.look_at(packets) };
        // SAFETY: the application gave these up; those before `left` are still here.
        let bytes = unsafe { ffi::traffic_free(packets.as_mut_ptr(), left as u32) };
        self.bytes.add(bytes);
        count as u16
    }

    /// How long packets that carry the time were on their way.
    fn read_stamps(&self, packets: &[*mut ffi::rte_mbuf]) {
        // SAFETY: reads a counter.
        let now = unsafe { ffi::traffic_tsc() };
        for packet in packets {
            let mut length = 0;
            // SAFETY: a packet that the application gave up.
            let frame = unsafe { ffi::traffic_frame(*packet, &raw mut length) };
            if frame.is_null() {
                continue;
            }
            // SAFETY: a frame of that length, which nobody changes meanwhile.
            let frame = unsafe { std::slice::from_raw_parts(frame, length as usize) };
            if let Some(then) = stamp::read(frame) {
                self.latencies.record(now.saturating_sub(then));
            }
        }
    }

    /// Checks and answers what is asked for; how many packets, at the front, are left to be freed.
    fn look_at(&self, packets: &mut [*mut ffi::rte_mbuf]) -> usize {
        let args = &self.port.args;
        let mut given = self.port.given.load(Ordering::Relaxed);
        if given < args.answers {
            given = self.port.given.fetch_add(packets.len() as u64, Ordering::Relaxed);
        }
        let mut left = 0;
        for at in 0..packets.len() {
            let packet = packets[at];
            let all = given < args.answers;
            given = given.saturating_add(1);
            if !self.look_at_one(packet, all) {
                packets[left] = packet;
                left += 1;
            }
        }
        left
    }

    /// Whether the packet went back as an answer.
    fn look_at_one(&self, packet: *mut ffi::rte_mbuf, all: bool) -> bool {
        let args = &self.port.args;
        let mut length = 0;
        // SAFETY: a packet that the application gave up.
        let frame = unsafe { ffi::traffic_frame(packet, &raw mut length) };
        if frame.is_null() {
            return false;
        }
        if args.check {
            // SAFETY: a frame of that length; others that hold it do not write either.
            let frame = unsafe { std::slice::from_raw_parts(frame, length as usize) };
            self.bad_checksums.add(u64::from(checksums_are_right(frame) == Some(false)));
        }
        if self.ring.is_null() {
            return false;
        }
        // SAFETY: as above.
        if unsafe { ffi::traffic_is_own(packet) } == 0 {
            self.answers_dropped.add(u64::from(all));
            return false;
        }
        // SAFETY: a frame of that length, which nobody else holds.
        let frame = unsafe { std::slice::from_raw_parts_mut(frame, length as usize) };
        let Some(answered) = answer(frame, (args.vip, args.port), all) else { return false };
        let packet_type = layers(frame).map_or(ffi::RTE_PTYPE_UNKNOWN, packet_type);
        // SAFETY: ours, and in one segment; the ring lives as long as its receive queue, which is not
        // released while somebody sends. What it takes, it owns.
        let queued = unsafe {
            ffi::traffic_turn(packet, self.port.port_id, packet_type, answered as u16);
            ffi::traffic_ring_put(self.ring, packet) != 0
        };
        self.bytes.add(if queued { u64::from(length) } else { 0 });
        if queued {
            self.answers.add(1)
        } else {
            self.answers_dropped.add(1)
        }
        queued
    }
}

/// The application's array of a burst. One of none may be null.
///
/// # Safety
/// An array of `count` pointers, which nobody else uses for `'a`.
#[inline]
unsafe fn array<'a>(packets: *mut *mut ffi::rte_mbuf, count: u16) -> &'a mut [*mut ffi::rte_mbuf] {
    if count == 0 {
        return &mut [];
    }
    // SAFETY: not empty, so it is there (the caller's promise).
    unsafe { std::slice::from_raw_parts_mut(packets, usize::from(count)) }
}

/// `rx_pkt_burst`
pub(super) unsafe extern "C" fn rx_burst(
    queue: *mut c_void,
    packets: *mut *mut ffi::rte_mbuf,
    count: u16,
) -> u16 {
    // SAFETY: ethdev passes what the set-up of the queue stored, and an array of so many pointers.
    let (queue, packets) = unsafe { (&*queue.cast::<RxQueue>(), array(packets, count)) };
    queue.receive(packets)
}

/// `tx_pkt_burst`
pub(super) unsafe extern "C" fn tx_burst(
    queue: *mut c_void,
    packets: *mut *mut ffi::rte_mbuf,
    count: u16,
) -> u16 {
    // SAFETY: as in `rx_burst`.
    let (queue, packets) = unsafe { (&*queue.cast::<TxQueue>(), array(packets, count)) };
    queue.send(packets)
}

/// The receive queues that are set up.
///
/// # Safety
/// An open port of this driver, whose queues are not released meanwhile.
pub(super) unsafe fn receive<'a>(device: *mut ffi::rte_eth_dev) -> impl Iterator<Item = &'a RxQueue> {
    // SAFETY: the caller's promise; ethdev's array has an element for each queue, null or what was set up.
    unsafe {
        let data = (*device).data;
        let (queues, count) = ((*data).rx_queues, (*data).nb_rx_queues);
        let count = if queues.is_null() { 0 } else { usize::from(count) };
        (0..count).filter_map(move |at| (*queues.add(at)).cast::<RxQueue>().as_ref())
    }
}

/// As [`receive`], the transmit queues.
///
/// # Safety
/// As there.
pub(super) unsafe fn transmit<'a>(device: *mut ffi::rte_eth_dev) -> impl Iterator<Item = &'a TxQueue> {
    // SAFETY: as in `receive`.
    unsafe {
        let data = (*device).data;
        let (queues, count) = ((*data).tx_queues, (*data).nb_tx_queues);
        let count = if queues.is_null() { 0 } else { usize::from(count) };
        (0..count).filter_map(move |at| (*queues.add(at)).cast::<TxQueue>().as_ref())
    }
}

pub(super) unsafe extern "C" fn rx_setup(
    device: *mut ffi::rte_eth_dev,
    queue: u16,
    _descriptors: u16,
    socket: u32,
    _config: *const ffi::rte_eth_rxconf,
    pool: *mut ffi::rte_mempool,
) -> c_int {
    // SAFETY: ethdev passes a configured port of this driver.
    let port = unsafe { port_of(device) };
    if pool.is_null() {
        log(ffi::TRAFFIC_LOG_ERR, &format!("{}: Rx queue {queue} has no pool of packets", port.name));
        return -EINVAL;
    }
    let ring = match port.args.answers {
        0 => std::ptr::null_mut(),
        // SAFETY: allocates; null is checked.
        _ => unsafe { ffi::traffic_ring_new(ANSWERS, socket as i32) },
    };
    if ring.is_null() && port.args.answers > 0 {
        return -ENOMEM;
    }
    let made = RxQueue {
        port: Arc::clone(port),
        pool,
        ring,
        own: UnsafeCell::default(),
        packets: Counter::default(),
        bytes: Counter::default(),
        failed: Counter::default(),
        fresh: Counter::default(),
        turns: Histogram::default(),
    };
    // SAFETY: ethdev's array has an element for each queue.
    unsafe {
        rx_release(device, queue);
        *(*(*device).data).rx_queues.add(usize::from(queue)) = Box::into_raw(Box::new(made)).cast();
    }
    0
}

pub(super) unsafe extern "C" fn tx_setup(
    device: *mut ffi::rte_eth_dev,
    queue: u16,
    _descriptors: u16,
    _socket: u32,
    _config: *const ffi::rte_eth_txconf,
) -> c_int {
    // SAFETY: ethdev passes a configured port of this driver.
    let port = unsafe { port_of(device) };
    let made = TxQueue {
        port: Arc::clone(port),
        ring: std::ptr::null_mut(),
        packets: Counter::default(),
        bytes: Counter::default(),
        answers: Counter::default(),
        answers_dropped: Counter::default(),
        bad_checksums: Counter::default(),
        latencies: Histogram::default(),
    };
    // SAFETY: ethdev's array has an element for each queue.
    unsafe {
        tx_release(device, queue);
        *(*(*device).data).tx_queues.add(usize::from(queue)) = Box::into_raw(Box::new(made)).cast();
    }
    0
}

pub(super) unsafe extern "C" fn rx_release(device: *mut ffi::rte_eth_dev, number: u16) {
    // SAFETY: a stopped port of this driver; what is stored is a leaked box or null.
    unsafe {
        let queues = (*(*device).data).rx_queues;
        if !queues.is_null() {
            let queue = std::mem::replace(&mut *queues.add(usize::from(number)), std::ptr::null_mut());
            if !queue.is_null() {
                drop(Box::from_raw(queue.cast::<RxQueue>()));
            }
        }
    }
}

pub(super) unsafe extern "C" fn tx_release(device: *mut ffi::rte_eth_dev, number: u16) {
    // SAFETY: as in `rx_release`.
    unsafe {
        let queues = (*(*device).data).tx_queues;
        if !queues.is_null() {
            let queue = std::mem::replace(&mut *queues.add(usize::from(number)), std::ptr::null_mut());
            if !queue.is_null() {
                drop(Box::from_raw(queue.cast::<TxQueue>()));
            }
        }
    }
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

/// Gives every receive queue its source, from the beginning, and every transmit queue where its answers go.
///
/// # Safety
/// A configured port of this driver that does not run.
pub(super) unsafe fn start(device: *mut ffi::rte_eth_dev) -> Result<(), i32> {
    // SAFETY: the caller's promise: nobody polls the queues; an open port has data and an address.
    unsafe {
        let (port, data) = (port_of(device), (*device).data);
        let (mac, hz) = ((*(*data).mac_addrs).addr_bytes, ffi::rte_get_tsc_hz());
        let (rx, tx) = ((*data).nb_rx_queues, (*data).nb_tx_queues);
        if receive(device).count() != usize::from(rx) || transmit(device).count() != usize::from(tx) {
            log(
                ffi::TRAFFIC_LOG_ERR,
                &format!("{}: set up every configured queue before starting", port.name),
            );
            return Err(EINVAL);
        }
        for (number, queue) in receive(device).enumerate() {
            let source = Source::new(&port.args, number as u16, rx, mac, hz);
            let (room, needed) = (usize::from(ffi::traffic_room(queue.pool)), source.room());
            if room < needed {
                let name = &port.name;
                let text =
                    format!("{name}: packets of Rx queue {number} hold {room} bytes, frames need {needed}");
                log(ffi::TRAFFIC_LOG_ERR, &format!("{text}; use larger ones, or a smaller size="));
                return Err(EINVAL);
            }
            let source = Some(source).filter(|source| source.room() > 0);
            *queue.own.get() = Own { source, last: 0 };
        }
        for number in 0..tx {
            let queue = (*(*data).tx_queues.add(usize::from(number))).cast::<TxQueue>();
            let answers = receive(device).nth(usize::from(number.checked_rem(rx).unwrap_or(0)));
            (*queue).ring = answers.map_or(std::ptr::null_mut(), |queue| queue.ring);
        }
        port.given.store(0, Ordering::Relaxed);
        set_state(device, ffi::RTE_ETH_QUEUE_STATE_STARTED);
    }
    Ok(())
}

/// Frees the answers that nobody has received.
///
/// # Safety
/// A port of this driver, whose queues nobody polls any more.
pub(super) unsafe fn stop(device: *mut ffi::rte_eth_dev) {
    // SAFETY: the caller's promise.
    unsafe {
        for queue in receive(device).filter(|queue| !queue.ring.is_null()) {
            ffi::traffic_ring_empty(queue.ring);
        }
        set_state(device, ffi::RTE_ETH_QUEUE_STATE_STOPPED);
    }
}

/// Records whether the queues run; applications skip those that do not.
///
/// # Safety
/// An open port of this driver, which is being started or stopped.
unsafe fn set_state(device: *mut ffi::rte_eth_dev, state: u32) {
    // SAFETY: the caller's promise; only starting and stopping write these fields, on one thread.
    unsafe {
        let data = &mut *(*device).data;
        let (rx, tx) = (usize::from(data.nb_rx_queues), usize::from(data.nb_tx_queues));
        data.rx_queue_state.iter_mut().take(rx).for_each(|queue| *queue = state as u8);
        data.tx_queue_state.iter_mut().take(tx).for_each(|queue| *queue = state as u8);
    }
}
