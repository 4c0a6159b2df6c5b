//! What moves packets: wires and application rings on one side, the model on the other.
//!
//! Whoever polls drives. The state is behind one lock that packet threads only try; the model has its own,
//! taken for one burst at a time, so that a rule waits for 32 packets at most.

use std::sync::atomic::Ordering;

use dataplane::packet::{BURST, Burst};

use super::device::Switch;
use super::ffi;
use super::lock::Guard;
use super::mbuf::Packet;
use super::wire::Wire;
use crate::model::switch::{DropReason, Eswitch, Event, Fabric, RxMeta};
use crate::model::types::Vport;

/// Bursts for which the model's lock may be found taken before the packet thread queues up for it.
const PATIENCE: u32 = 16;

/// Pieces of work of flow queues between two looks for packets, which wait as long: some microseconds. An
/// operation is one to five.
const PIECES: usize = 8;

/// Rounds of one poll while no packet comes: who polls may sleep until the next one.
const ROUNDS: u32 = 16;

/// Borrowed rings of a started port: they live until it is stopped.
#[derive(Default)]
pub(super) struct Rings {
    /// By receive queue; null for a hairpin queue.
    pub(super) rx: Vec<*mut ffi::rte_ring>,
    /// By transmit queue.
    pub(super) tx: Vec<*mut ffi::rte_ring>,
}

/// What happens to packets between the model and a representor's queues.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct RingStats {
    /// Put into receive rings.
    pub(super) delivered: u64,
    /// Dropped: the ring was full.
    pub(super) rx_full: u64,
    /// Dropped: still in a ring when the port was stopped.
    pub(super) lost_on_stop: u64,
    /// Taken from transmit rings.
    pub(super) taken: u64,
}

/// One vport's end of the device.
pub(super) struct End {
    pub(super) wire: Wire,
    pub(super) rings: Rings,
    pub(super) stats: RingStats,
    /// The representor.
    pub(super) port_id: u16,
}

/// Everything that the driving thread needs.
pub(super) struct Drive {
    pub(super) ends: Vec<End>,
    pool: *mut ffi::rte_mempool,
    impatience: u32,
    /// Rounds in which something moved.
    pub(super) busy: u64,
    /// Rounds.
    pub(super) rounds: u64,
}

// SAFETY: the pointers are to a pool and to rings, which any thread may use; that only one at a time does is
// the drive lock's business.
unsafe impl Send for Drive {}

/// Where packets come from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Wire,
    Manager,
}

impl Drive {
    pub(super) fn new(ends: Vec<End>, pool: *mut ffi::rte_mempool) -> Drive {
        Drive { ends, pool, impatience: 0, busy: 0, rounds: 0 }
    }

    /// Rounds until there is nothing to do but for packets that have moved, or [`ROUNDS`]. True if something
    /// was done; events are for the caller to report, after the lock.
    pub(super) fn rounds(&mut self, switch: &Switch) -> (bool, Vec<Event>) {
        let (mut done, mut events) = (false, Vec::new());
        for _ in 0..ROUNDS {
            let (moved, more) = self.round(switch, &mut events);
            done |= moved | more;
            if moved || !more {
                break;
            }
        }
        (done, events)
    }

    /// A burst from every wire and every transmit ring, and a slice of the model's own work. Whether packets
    /// moved, and whether there is more of that work.
    fn round(&mut self, switch: &Switch, events: &mut Vec<Event>) -> (bool, bool) {
        let mut moved = false;
        for at in 0..self.ends.len() {
            moved |= self.drain_wire(switch, at);
            for queue in 0..self.ends[at].rings.tx.len() {
                moved |= self.drain_ring(switch, at, queue);
            }
        }
        self.rounds += 1;
        self.busy += u64::from(moved);
        let Some(mut eswitch) = self.enter(switch) else { return (moved, false) };
        switch.requests.visit(&mut eswitch);
        let more = eswitch.advance_by(switch.clock.now(), PIECES);
        events.append(&mut eswitch.take_events());
        (moved, more)
    }

    fn drain_wire(&mut self, switch: &Switch, at: usize) -> bool {
        let pool = self.pool;
        let wire = &mut self.ends[at].wire;
        wire.cut = switch.ports[at].cut.load(Ordering::Relaxed);
        wire.receive(pool);
        if wire.held.is_empty() {
            return false;
        }
        let Some(mut eswitch) = self.enter(switch) else { return false };
        let held = &mut self.ends[at].wire.held;
        let admitted = eswitch.admit(switch.clock.now(), held.len()).min(held.len());
        let mut burst: Burst<Packet> = held.drain(..admitted).collect();
        self.forward(switch, &mut eswitch, at, Source::Wire, &mut burst);
        drop(eswitch);
        self.flush();
        admitted > 0
    }

    fn drain_ring(&mut self, switch: &Switch, at: usize, queue: usize) -> bool {
        let ring = self.ends[at].rings.tx[queue];
        // SAFETY: the ring lives until the port is stopped, which takes the drive lock that our caller holds.
        let waiting = unsafe { ffi::eswitch_ring_count(ring) } as usize;
        if waiting == 0 {
            return false;
        }
        let Some(mut eswitch) = self.enter(switch) else { return false };
        let admitted = eswitch.admit(switch.clock.now(), waiting.min(BURST)).min(BURST);
        let mut mbufs = [std::ptr::null_mut(); BURST];
        // SAFETY: as above; who holds the drive lock is the ring's one consumer, and there is room.
        let count = unsafe { ffi::eswitch_ring_dequeue(ring, mbufs.as_mut_ptr(), admitted as u32) } as usize;
        // SAFETY: the application gave these mbufs up, and `tx_burst` made each one unshared piece.
        let mut burst: Burst<Packet> =
            mbufs[..count].iter().filter_map(|mbuf| unsafe { Packet::from_raw(*mbuf) }).collect();
        self.ends[at].stats.taken += count as u64;
        self.forward(switch, &mut eswitch, at, Source::Manager, &mut burst);
        drop(eswitch);
        self.flush();
        count > 0
    }

    fn forward(
        &mut self,
        switch: &Switch,
        eswitch: &mut Eswitch,
        at: usize,
        source: Source,
        burst: &mut Burst<Packet>,
    ) {
        let mut outlet = Outlet { ends: &mut self.ends, pool: self.pool };
        eswitch.forward(switch.clock.now(), Vport(at as u16), source == Source::Manager, burst, &mut outlet);
    }

    fn flush(&mut self) {
        for end in &mut self.ends {
            end.wire.flush();
        }
    }

    /// The model, unless a control thread is in it; after [`PATIENCE`] vain tries it is waited for.
    #[inline]
    fn enter<'a>(&mut self, switch: &'a Switch) -> Option<Guard<'a, Eswitch>> {
        if let Some(eswitch) = switch.eswitch.try_lock() {
            self.impatience = 0;
            return Some(eswitch);
        }
        self.impatience += 1;
        if self.impatience < PATIENCE {
            return None;
        }
        self.impatience = 0;
        Some(switch.eswitch.lock())
    }

    /// Takes a stopped port's rings out of service and frees what is in them.
    pub(super) fn detach(&mut self, vport: Vport) {
        let Some(end) = self.ends.get_mut(usize::from(vport.0)) else { return };
        let rings = std::mem::take(&mut end.rings);
        for ring in rings.rx.into_iter().chain(rings.tx).filter(|ring| !ring.is_null()) {
            let mut mbuf = std::ptr::null_mut();
            // SAFETY: the rings live until their queues are released, after this; the port is stopped, so
            // the application neither fills nor empties them.
            while unsafe { ffi::eswitch_ring_dequeue(ring, &raw mut mbuf, 1) } == 1 {
                // SAFETY: what was in a ring is ours.
                drop(unsafe { Packet::from_raw(mbuf) });
                end.stats.lost_on_stop += 1;
            }
        }
    }
}

/// Where packets leave the model.
struct Outlet<'a> {
    ends: &'a mut [End],
    pool: *mut ffi::rte_mempool,
}

impl Fabric<Packet> for Outlet<'_> {
    fn transmit(&mut self, to: Vport, packet: Packet) {
        if let Some(end) = self.ends.get_mut(usize::from(to.0)) {
            end.wire.send(packet);
        }
    }

    fn receive(&mut self, at: Vport, meta: RxMeta, mut packet: Packet) {
        let Some(end) = self.ends.get_mut(usize::from(at.0)) else { return };
        let ring = end.rings.rx.get(usize::from(meta.queue)).copied().unwrap_or(std::ptr::null_mut());
        if ring.is_null() {
            end.stats.rx_full += 1;
            return;
        }
        packet.deliver(end.port_id, meta.mark, meta.meta);
        let mut mbuf = packet.into_raw();
        // SAFETY: the ring lives until the port is stopped, and who holds the drive lock is its one producer.
        if unsafe { ffi::eswitch_ring_enqueue(ring, &raw mut mbuf, 1) } == 1 {
            end.stats.delivered += 1;
        } else {
            end.stats.rx_full += 1;
            // SAFETY: the ring did not take it, so it is still ours.
            drop(unsafe { Packet::from_raw(mbuf) });
        }
    }

    fn copy(&mut self, packet: &Packet) -> Option<Packet> {
        // SAFETY: the device's pool of mbufs.
        unsafe { packet.copy(self.pool) }
    }

    fn discard(&mut self, _reason: DropReason, packet: Packet) {
        drop(packet);
    }
}
