//! The way of health checks' packets: from the checker to the first worker, and from any worker back.
//!
//! Packets are copied: they are few and small, and the checker has no buffers of DPDK's.

use crossbeam::queue::ArrayQueue;
use dataplane::addr::Ip;
use dataplane::ids::{BackendId, WorkerId};
use dataplane::worker::{PROBE_PORTS, Sent};
use health::prober::PACKET_MAX;
use std::sync::atomic::{
    AtomicBool, AtomicU32, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};

/// Packets of either way that may wait.
const PACKETS_MAX: usize = 1024;
/// Probes that a worker sends per turn: about as much work as a burst.
const SENT_PER_TURN: usize = 32;
/// The worker that sends probes: one is enough.
pub(crate) const SENDER: WorkerId = WorkerId(0);
/// No probe is under way from this port.
const NOBODY: u32 = 0;

/// See the module's header.
pub(crate) struct ProbeRings {
    outward: ArrayQueue<Outward>,
    inward: ArrayQueue<Packet>,
    /// By [`PROBE_PORTS`].
    probes: Box<[Probe]>,
    /// The number of the checker's last packet: only the checker changes it.
    numbered: AtomicU64,
    /// Probes that a worker has sent.
    taken: AtomicU64,
    /// Packets of either way for which there was no room, or no buffer.
    losses: AtomicU64,
}

/// The probe from a port.
struct Probe {
    /// To whom it is under way, or [`NOBODY`]: what others send there, by the million perhaps, goes no
    /// further. Who answers without being asked would have to guess both.
    to: AtomicU32,
    /// Its last packet waits for its next hop to be found.
    waits: AtomicBool,
}

struct Outward {
    number: u64,
    backend: BackendId,
    port: u16,
    packet: Packet,
}

/// An IP packet.
pub(crate) struct Packet {
    length: usize,
    bytes: [u8; PACKET_MAX],
}

impl Packet {
    /// A copy; `None` if it is too long.
    fn copy(from: &[u8]) -> Option<Packet> {
        let mut bytes = [0; PACKET_MAX];
        bytes.get_mut(..from.len())?.copy_from_slice(from);
        Some(Packet { length: from.len(), bytes })
    }
}

impl AsRef<[u8]> for Packet {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

impl ProbeRings {
    /// Empty rings.
    pub(crate) fn new() -> ProbeRings {
        ProbeRings {
            outward: ArrayQueue::new(PACKETS_MAX),
            inward: ArrayQueue::new(PACKETS_MAX),
            probes: PROBE_PORTS.map(|_| Probe { to: NOBODY.into(), waits: false.into() }).collect(),
            numbered: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            losses: AtomicU64::new(0),
        }
    }

    /// The checker sends a packet of the probe from `port`; gives its number, or `None` if there is no room.
    pub(crate) fn push(&self, backend: BackendId, port: u16, packet: &[u8]) -> Option<u64> {
        let packet = Packet::copy(packet)?;
        let number = self.numbered.load(Relaxed) + 1;
        self.outward.push(Outward { number, backend, port, packet }).ok()?;
        self.numbered.store(number, Relaxed);
        Some(number)
    }

    /// Another checker takes over, which has no probe under way.
    pub(crate) fn forget(&self) {
        self.probes.iter().for_each(|probe| probe.to.store(NOBODY, Relaxed));
        // What comes meanwhile, it is told of, and does not know.
        for _ in 0..PACKETS_MAX {
            if self.inward.pop().is_none() {
                return;
            }
        }
    }

    /// The number of the last packet that a worker has sent.
    pub(crate) fn taken(&self) -> u64 {
        self.taken.load(Acquire)
    }

    /// Whether the last packet that a worker has sent of the probe from `port` had to wait for its next hop.
    pub(crate) fn waits(&self, port: u16) -> bool {
        self.probe(port).is_some_and(|probe| probe.waits.load(Relaxed))
    }

    /// Packets lost on our own side.
    pub(crate) fn losses(&self) -> u64 {
        self.losses.load(Relaxed)
    }

    /// The checker looks for an answer.
    pub(crate) fn answer(&self) -> Option<Packet> {
        self.inward.pop()
    }

    /// A worker sends what waits, if it is the one to; `send` says what became of it. Two loads if nothing
    /// waits.
    #[inline]
    pub(crate) fn drain(&self, worker: WorkerId, mut send: impl FnMut(BackendId, &[u8]) -> Sent) {
        if worker != SENDER || self.outward.is_empty() {
            return;
        }
        for _ in 0..SENT_PER_TURN {
            let Some(next) = self.outward.pop() else { return };
            let sent = send(next.backend, next.packet.as_ref());
            if sent == Sent::Lost {
                self.losses.fetch_add(1, Relaxed);
            }
            if let Some(probe) = self.probe(next.port) {
                probe.waits.store(sent == Sent::Waits, Relaxed);
            }
            self.taken.store(next.number, Release);
        }
    }

    /// From now on a probe is under way from this port to this address, or none is.
    pub(crate) fn expect(&self, port: u16, to: Option<Ip>) {
        if let Some(probe) = self.probe(port) {
            probe.to.store(to.map_or(NOBODY, mark), Relaxed);
        }
    }

    fn probe(&self, port: u16) -> Option<&Probe> {
        self.probes.get(usize::from(port.checked_sub(*PROBE_PORTS.start())?))
    }

    /// A worker has a packet that may answer the probe `from` a port of ours `to` that address; `false` if
    /// there is no room.
    pub(crate) fn deliver(&self, from: u16, to: Ip, packet: &[u8]) -> bool {
        if self.probe(from).is_none_or(|probe| probe.to.load(Relaxed) != mark(to)) {
            // Too late, or nobody has asked: it is taken, and ignored.
            return true;
        }
        let room = !self.inward.is_full();
        let delivered = room && Packet::copy(packet).is_some_and(|packet| self.inward.push(packet).is_ok());
        if !delivered {
            self.losses.fetch_add(1, Relaxed);
        }
        delivered
    }
}

/// An address in short, and never [`NOBODY`].
fn mark(ip: Ip) -> u32 {
    let [high, low] = ip.words();
    let mixed = (high ^ low.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32) as u32 | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_go_both_ways_and_what_is_lost_is_counted() {
        let rings = ProbeRings::new();
        let push = |number, backend, packet| rings.push(BackendId(backend), 50_000, packet) == Some(number);
        assert!(push(1, 7, b"one") && push(2, 8, b"two") && !rings.waits(50_000));
        rings.drain(WorkerId(1), |_, _| panic!("not its business"));
        let mut sent = Vec::new();
        rings.drain(SENDER, |backend, bytes| {
            sent.push((backend, bytes.to_vec()));
            if backend == BackendId(7) { Sent::Waits } else { Sent::Lost }
        });
        assert_eq!(sent, [(BackendId(7), b"one".to_vec()), (BackendId(8), b"two".to_vec())]);
        assert_eq!((rings.taken(), rings.losses(), rings.waits(50_000)), (2, 1, false));
        assert!(push(3, 7, b"three"));
        rings.drain(SENDER, |_, _| Sent::Waits);
        assert!(rings.waits(50_000) && !rings.waits(50_001) && !rings.waits(80));
        let (asked, other) = (Ip::v4(0x0a00_0001), Ip::v4(0x0a00_0002));
        let deliver = |bytes: &[u8]| rings.deliver(50_000, asked, bytes);
        assert!(deliver(b"nobody has asked") && rings.answer().is_none());
        rings.expect(50_000, Some(asked));
        for _ in 0..PACKETS_MAX {
            assert!(deliver(b"answer"));
            assert!(rings.deliver(50_000, other, b"forged") && rings.deliver(50_001, asked, b"forged"));
        }
        assert!(!deliver(b"one too many"));
        assert_eq!(rings.losses(), 2);
        while let Some(answer) = rings.answer() {
            assert_eq!(answer.as_ref(), b"answer");
        }
        rings.expect(50_000, None);
        assert!(deliver(b"too late") && rings.answer().is_none());
        assert!(rings.deliver(80, asked, b"not a port of probes"));
        assert_eq!(rings.push(BackendId(0), 50_000, &[0; PACKET_MAX + 1]), None);
        rings.expect(50_000, Some(asked));
        assert!(deliver(b"answer"));
        rings.forget();
        assert!(rings.answer().is_none() && deliver(b"too late") && rings.answer().is_none());
    }
}
