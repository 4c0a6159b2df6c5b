//! Packets that know where they came from, out of a pool that counts them.

use crate::policy::TakenUnder;
use dataplane::ids::PortId;
use dataplane::packet::PacketBuf;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

const HEADROOM: usize = 128;
const ROOM: usize = 1792;

/// Which way a packet of a connection is meant to travel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    /// Client to backend.
    There = 0,
    /// Backend to client.
    Back = 1,
}

/// What a packet was when it came in by a port.
#[derive(Debug)]
pub(crate) struct Origin {
    /// Counts up, over all packets.
    pub(crate) id: u64,
    /// The connection that an end sent it for; `None` for noise and for what hosts say to each other.
    pub(crate) conn: Option<u32>,
    pub(crate) way: Way,
    /// Its bytes are not what an end would send.
    pub(crate) mutated: bool,
    pub(crate) port: PortId,
    pub(crate) frame: Vec<u8>,
    pub(crate) taken_under: TakenUnder,
}

/// Where buffers come from, and what became of those that nobody sent.
#[derive(Debug)]
pub(crate) struct Pool {
    size: usize,
    live: Cell<usize>,
    free: RefCell<Vec<Box<[u8]>>>,
    dropped: RefCell<Vec<Rc<Origin>>>,
}

impl Pool {
    pub(crate) fn new(size: usize) -> Rc<Pool> {
        Rc::new(Pool {
            size,
            live: Cell::new(0),
            free: RefCell::new(Vec::new()),
            dropped: RefCell::new(Vec::new()),
        })
    }

    /// Buffers that somebody holds.
    pub(crate) fn live(&self) -> usize {
        self.live.get()
    }

    /// Packets dropped by their holder since the last call.
    pub(crate) fn take_dropped(&self) -> Vec<Rc<Origin>> {
        std::mem::take(&mut self.dropped.borrow_mut())
    }
}

/// A packet.
#[derive(Debug)]
pub(crate) struct SimPacket {
    port: PortId,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    pool: Rc<Pool>,
    origin: Option<Rc<Origin>>,
}

impl SimPacket {
    /// An empty packet, unless the pool is exhausted.
    pub(crate) fn empty(pool: &Rc<Pool>, port: PortId) -> Option<SimPacket> {
        if pool.live.get() >= pool.size {
            return None;
        }
        pool.live.set(pool.live.get() + 1);
        let buffer = pool.free.borrow_mut().pop().unwrap_or_else(|| vec![0; HEADROOM + ROOM].into());
        Some(SimPacket { port, buffer, start: HEADROOM, end: HEADROOM, pool: Rc::clone(pool), origin: None })
    }

    /// A packet that came in.
    pub(crate) fn arrived(pool: &Rc<Pool>, origin: Rc<Origin>) -> Option<SimPacket> {
        let mut packet = SimPacket::empty(pool, origin.port)?;
        packet.end = HEADROOM + origin.frame.len();
        packet.buffer[HEADROOM..packet.end].copy_from_slice(&origin.frame);
        packet.origin = Some(origin);
        Some(packet)
    }

    /// A worker takes it that goes by this policy.
    pub(crate) fn taken_under(&self, policy: usize) {
        if let Some(origin) = &self.origin {
            origin.taken_under.set(policy);
        }
    }

    /// What it was; from now on its end is not a drop.
    pub(crate) fn take_origin(&mut self) -> Option<Rc<Origin>> {
        self.origin.take()
    }
}

impl Drop for SimPacket {
    fn drop(&mut self) {
        self.pool.live.set(self.pool.live.get() - 1);
        self.pool.free.borrow_mut().push(std::mem::take(&mut self.buffer));
        if let Some(origin) = self.origin.take() {
            self.pool.dropped.borrow_mut().push(origin);
        }
    }
}

impl PacketBuf for SimPacket {
    fn port(&self) -> PortId {
        self.port
    }

    fn set_port(&mut self, port: PortId) {
        self.port = port;
    }

    fn is_contiguous(&self) -> bool {
        true
    }

    fn data(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    fn data_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[self.start..self.end]
    }

    fn grow_front(&mut self, n: usize) -> bool {
        let fits = n <= self.start;
        self.start -= if fits { n } else { 0 };
        fits
    }

    fn trim_front(&mut self, n: usize) -> bool {
        let fits = n <= self.end - self.start;
        self.start += if fits { n } else { 0 };
        fits
    }

    fn set_len(&mut self, len: usize) -> bool {
        let fits = self.start + len <= self.buffer.len();
        self.end = if fits { self.start + len } else { self.end };
        fits
    }
}
