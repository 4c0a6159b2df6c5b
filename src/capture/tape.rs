//! The workers' side: what a worker takes down while there is a capture, and the way of it to whoever reads.
//!
//! Without a capture none of this exists for a worker. With one, it walks packets one by one, in a world
//! outside that listens: what is noted of a packet decides whether it is wanted. Frames are copied into
//! buffers that came empty, and go back when they have been read; without an empty one the frame is lost, and
//! counted.

use super::Capture;
use super::filter::ARP;
use crate::runtime::env::Outside;
use arrayvec::ArrayVec;
use crossbeam::queue::ArrayQueue;
use dataplane::addr::Ip;
use dataplane::capture::Subject;
use dataplane::drops::DropReason;
use dataplane::flow::{Direction, FlowKey};
use dataplane::ids::{BackendId, PortId, ServiceId, TenantId, WorkerId};
use dataplane::meter::Nanos;
use dataplane::neighbour::NeighbourUpdate;
use dataplane::offload::{Ask, Revoke};
use dataplane::packet::PacketBuf;
use dataplane::policy::LogEvent;
use dataplane::snapshot::Snapshot;
use dataplane::wire::{self, Kind};
use dataplane::worker::{Env, Note};
use dpdk::Mbuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

/// Frames that one packet may make leave and that are told in the order of their times; beyond that, sooner.
const SENT_MAX: usize = 16;
/// Ends of a packet: as it came, within a tunnel, quoted, and rewritten.
const ENDS_MAX: usize = 8;

/// A frame that was seen.
#[derive(Debug)]
pub(super) struct Frame {
    /// What the time-stamp counter showed.
    pub(super) cycles: u64,
    pub(super) port: PortId,
    /// Received, or else sent.
    pub(super) inbound: bool,
    pub(super) fate: Fate,
    /// Bytes of the whole frame.
    pub(super) length: u32,
    /// As many of them as are wanted.
    pub(super) bytes: Vec<u8>,
}

/// What became of a frame, where that is not seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Fate {
    #[default]
    Usual,
    /// It waits for who is at its next hop, or for the first fragment of its packet.
    Waits,
    Dropped(DropReason),
}

/// The way of one worker's frames.
pub(super) struct Reel {
    blank: ArrayQueue<Box<Frame>>,
    filled: ArrayQueue<Box<Frame>>,
    /// By port.
    lost: Box<[AtomicU64]>,
    /// Nothing more comes.
    closed: AtomicBool,
    /// Its tape is gone.
    returned: AtomicBool,
}

impl Reel {
    /// Room for so many frames of so many bytes, of so many ports.
    pub(super) fn new(frames: usize, bytes: usize, ports: usize) -> Reel {
        let reel = Reel {
            blank: ArrayQueue::new(frames),
            filled: ArrayQueue::new(frames),
            lost: (0..ports).map(|_| AtomicU64::new(0)).collect(),
            closed: AtomicBool::new(false),
            returned: AtomicBool::new(false),
        };
        for _ in 0..frames {
            let bytes = Vec::with_capacity(bytes);
            let frame =
                Frame { cycles: 0, port: PortId(0), inbound: false, fate: Fate::Usual, length: 0, bytes };
            // As many as there is room for.
            let _ = reel.blank.push(Box::new(frame));
        }
        reel
    }

    /// The next frame, to be read.
    pub(super) fn next(&self) -> Option<Box<Frame>> {
        self.filled.pop()
    }

    /// Gives back a frame that has been read.
    pub(super) fn give_back(&self, frame: Box<Frame>) {
        let _ = self.blank.push(frame);
    }

    /// Frames of a port that were wanted and not taken down.
    pub(super) fn lost(&self, port: usize) -> u64 {
        self.lost.get(port).map_or(0, |lost| lost.load(Relaxed))
    }

    /// Whether nothing more comes: what is read after that is all there is.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Acquire)
    }

    /// Whether the worker has given its tape back, and takes connections for no longer than any other.
    pub(super) fn is_returned(&self) -> bool {
        self.returned.load(Acquire)
    }

    fn lose(&self, port: PortId) {
        if let Some(lost) = self.lost.get(port.index()) {
            lost.fetch_add(1, Relaxed);
        }
    }

    fn keep(&self, frame: Box<Frame>) {
        // There are no more frames than places.
        let _ = self.filled.push(frame);
    }

    /// A copy of a frame; `None` if no buffer is empty.
    fn copy(&self, cycles: u64, port: PortId, inbound: bool, bytes: &[u8]) -> Option<Box<Frame>> {
        let mut frame = self.blank.pop()?;
        let wanted = bytes.len().min(frame.bytes.capacity());
        frame.bytes.clear();
        frame.bytes.extend_from_slice(bytes.get(..wanted).unwrap_or_default());
        (frame.cycles, frame.port, frame.inbound, frame.length) = (cycles, port, inbound, bytes.len() as u32);
        frame.fate = Fate::Usual;
        Some(frame)
    }
}

/// What a worker has while there is a capture.
pub(crate) struct Tape {
    capture: Arc<Capture>,
    worker: WorkerId,
    /// What the worker forwards by.
    snapshot: Arc<Snapshot>,
    /// The packet at hand.
    seen: Option<Seen>,
    /// Frames that it has made leave.
    sent: ArrayVec<Box<Frame>, SENT_MAX>,
}

impl Tape {
    /// For this worker.
    pub(crate) fn new(capture: Arc<Capture>, worker: WorkerId, snapshot: Arc<Snapshot>) -> Tape {
        Tape { capture, worker, snapshot, seen: None, sent: ArrayVec::new() }
    }

    /// Whose it is.
    pub(crate) fn capture(&self) -> &Arc<Capture> {
        &self.capture
    }

    /// The worker forwards by this from now on.
    pub(crate) fn follow(&mut self, snapshot: &Arc<Snapshot>) {
        self.snapshot = Arc::clone(snapshot);
    }

    fn reel(&self) -> Option<&Reel> {
        self.capture.reels.get(self.worker.index())
    }

    /// Between two packets: whether there is no more to be taken down. Then whoever reads is told. A packet
    /// at hand is taken down to its end, whatever happens meanwhile.
    fn is_over(&self) -> bool {
        let over = self.capture.is_over();
        if let (true, Some(reel)) = (over, self.reel()) {
            reel.closed.store(true, Release);
        }
        over
    }

    /// No packet is at hand.
    pub(crate) fn rest(&self) {
        self.is_over();
    }

    /// A packet comes.
    fn begin(&mut self, packet: &impl PacketBuf) {
        if self.is_over() {
            return;
        }
        let (cycles, port) = (dpdk::clock::rdtsc(), packet.port());
        let frame = self.reel().and_then(|reel| reel.copy(cycles, port, true, packet.data()));
        self.seen = Some(Seen { frame, ..Seen::of(&self.snapshot, port, packet.data()) });
    }

    /// It has gone.
    fn end(&mut self) {
        let Some(mut seen) = self.seen.take() else { return };
        let sent = std::mem::take(&mut self.sent);
        let Some(reel) = self.reel() else { return };
        let wanted = !seen.handed && self.wants(&seen, Some(seen.port), seen.fate);
        match seen.frame.take() {
            Some(mut frame) if wanted => {
                (frame.port, frame.fate) = (seen.port, seen.fate);
                reel.keep(frame);
            }
            Some(frame) => reel.give_back(frame),
            None if wanted => reel.lose(seen.port),
            None => {}
        }
        sent.into_iter().for_each(|frame| reel.keep(frame));
    }

    /// A frame leaves.
    fn send(&mut self, port: PortId, bytes: &[u8]) {
        if self.seen.is_none() && self.is_over() {
            return;
        }
        let cycles = dpdk::clock::rdtsc();
        let wanted = match &self.seen {
            Some(seen) if !seen.is_upkeep() => self.wants(seen, Some(port), Fate::Usual),
            // What had waited leaves when something else happens.
            _ => {
                let mut own = Seen::of(&self.snapshot, port, bytes);
                own.infer(&self.snapshot);
                self.wants(&own, Some(port), Fate::Usual)
            }
        };
        let Some(reel) = self.capture.reels.get(self.worker.index()).filter(|_| wanted) else { return };
        match reel.copy(cycles, port, false, bytes) {
            None => reel.lose(port),
            Some(frame) => {
                if self.seen.is_none() || self.sent.is_full() {
                    reel.keep(frame);
                } else {
                    self.sent.push(frame);
                }
            }
        }
    }

    /// Whether the filter wants a frame at this port.
    fn wants(&self, seen: &Seen, port: Option<PortId>, fate: Fate) -> bool {
        let filter = &self.capture.filter;
        let of_port = filter.ports.is_empty() || port.is_some_and(|port| filter.ports.contains(&port));
        let of_fate = filter.dropped.as_ref().is_none_or(|reasons| match fate {
            Fate::Dropped(reason) => reasons.is_empty() || reasons.contains(&reason),
            _ => false,
        });
        of_port && of_fate && (filter.choice.is_any() || seen.is_wanted(filter, &self.snapshot))
    }
}

impl Drop for Tape {
    fn drop(&mut self) {
        let Some(reel) = self.reel() else { return };
        reel.closed.store(true, Release);
        reel.returned.store(true, Release);
    }
}

/// What is known of a packet.
struct Seen {
    /// The copy of it as it came, if there was an empty buffer.
    frame: Option<Box<Frame>>,
    port: PortId,
    tenant: TenantId,
    kind: Option<Kind>,
    protocol: u16,
    /// First source and destination, if it has them.
    ends: ArrayVec<(Ip, u16), ENDS_MAX>,
    unwrapped: bool,
    key: Option<FlowKey>,
    direction: Option<Direction>,
    service: Option<ServiceId>,
    backend: Option<BackendId>,
    fate: Fate,
    /// Another worker has it.
    handed: bool,
}

impl Seen {
    /// What the frame itself says.
    fn of(snapshot: &Snapshot, port: PortId, bytes: &[u8]) -> Seen {
        let tenant = snapshot.port(port).map(|port| port.tenant).unwrap_or_default();
        let mut seen = Seen {
            frame: None,
            port,
            tenant,
            kind: None,
            protocol: u16::MAX,
            ends: ArrayVec::new(),
            unwrapped: false,
            key: None,
            direction: None,
            service: None,
            backend: None,
            fate: Fate::Usual,
            handed: false,
        };
        if let Ok(parsed) = wire::parse(bytes, tenant) {
            seen.take_key(parsed.kind, &parsed.key);
            if parsed.kind != Kind::Arp {
                seen.protocol = parsed.protocol.into();
            }
        }
        seen
    }

    fn take_key(&mut self, kind: Kind, key: &FlowKey) {
        self.kind = Some(kind);
        self.protocol = match kind {
            Kind::Tcp => 6,
            Kind::Udp => 17,
            Kind::Icmp => 1,
            Kind::Icmpv6 => 58,
            Kind::Arp => ARP,
            Kind::Fragment => self.protocol,
        };
        self.ends.clear();
        self.ends.push((key.src, key.src_port));
        self.ends.push((key.dst, key.dst_port));
        self.key = matches!(kind, Kind::Tcp | Kind::Udp).then_some(*key);
    }

    fn add_end(&mut self, end: (Ip, u16)) {
        // More than a packet has.
        let _ = self.ends.try_push(end);
    }

    /// Whether what leaves now may be something else that has waited: neighbours have spoken.
    fn is_upkeep(&self) -> bool {
        let about_nothing = self.service.is_none() && self.backend.is_none() && self.direction.is_none();
        matches!(self.kind, Some(Kind::Arp | Kind::Icmpv6)) && about_nothing && self.ends.len() <= 2
    }

    /// What is noted of the packet.
    fn hear(&mut self, note: Note) {
        match note {
            Note::Unwrapped { .. } => self.unwrapped = true,
            Note::Parsed { kind, key, .. } if self.unwrapped => {
                // What was in the tunnel matters. The frame is what came by the tunnel's own port.
                self.tenant = key.tenant;
                self.take_key(kind, &key);
            }
            Note::Parsed { port, key, .. } => (self.port, self.tenant) = (port, key.tenant),
            Note::Known { direction, service, backend, .. } => {
                (self.direction, self.service) = (Some(direction), Some(service));
                self.backend = Some(backend);
            }
            Note::Classified(service) => {
                (self.direction, self.service) = (Some(Direction::Original), Some(service));
            }
            Note::ReplyFrom { service, backend } => {
                (self.direction, self.service) = (Some(Direction::Reply), Some(service));
                self.backend = Some(backend);
            }
            Note::Picked { backend, .. } => self.backend = Some(backend),
            Note::ErrorAbout(key) => {
                self.add_end((key.src, key.src_port));
                self.add_end((key.dst, key.dst_port));
            }
            Note::Rewritten { ip, port, .. } => self.add_end((ip, port)),
            Note::Waits | Note::WaitsForFirst => self.fate = Fate::Waits,
            // What has waited for longer may be dropped for it.
            Note::Dropped(reason) if self.fate != Fate::Waits => self.fate = Fate::Dropped(reason),
            _ => {}
        }
    }

    /// Finds whose packet it is by its ends, where nobody says.
    fn infer(&mut self, snapshot: &Snapshot) {
        let Some(key) = self.key else { return };
        if let Some(service) = snapshot.classify(self.tenant, key.dst, key.protocol, key.dst_port) {
            (self.service, self.direction) = (Some(service.id), Some(Direction::Original));
            return;
        }
        let backends = || snapshot.backends.iter().flatten();
        let at = |end: (Ip, u16)| {
            backends().find(|one| one.address == end.0 && one.port.is_none_or(|port| port == end.1))
        };
        let found = at((key.dst, key.dst_port)).map(|one| (one, Direction::Original));
        if let Some((backend, direction)) =
            found.or_else(|| at((key.src, key.src_port)).map(|one| (one, Direction::Reply)))
        {
            (self.backend, self.service) = (Some(backend.id), Some(backend.service));
            self.direction = Some(direction);
        }
    }

    fn is_wanted(&self, filter: &super::filter::Filter, snapshot: &Snapshot) -> bool {
        let by_key = || {
            let key = self.key?;
            snapshot.classify(self.tenant, key.dst, key.protocol, key.dst_port).map(|service| service.id)
        };
        let id = self.service.or_else(by_key);
        let service = id.and_then(|id| snapshot.service(id));
        let backend = self.backend.and_then(|id| snapshot.backend(id));
        // An end at this address, or the address with what is known of its port.
        let at = |ip: Ip, port: Option<u16>| {
            let found = self.ends.iter().find(|(end, _)| *end == ip).copied();
            found.unwrap_or((ip, port.unwrap_or(0)))
        };
        let vip = service.map(|service| [at(service.vip, service.ports.first().map(|ports| *ports.start()))]);
        let server = backend.map(|backend| [at(backend.address, backend.port)]);
        let client = match self.direction {
            Some(Direction::Original) => self.ends.get(0..1),
            Some(Direction::Reply) => self.ends.get(1..2),
            None => None,
        };
        let unserved: &[(Ip, u16)] = if service.is_none() { &self.ends } else { &[] };
        filter.choice.takes(&Subject {
            tenant: self.tenant,
            protocol: self.protocol,
            service: id,
            clients: client.unwrap_or(&self.ends),
            vips: vip.as_ref().map_or(&self.ends, |vip| vip),
            backends: server.as_ref().map_or(unserved, |server| server),
        })
    }
}

/// The outside world, listened to.
pub(crate) struct Recorder<'r, 'a> {
    pub(crate) outside: &'r mut Outside<'a>,
    pub(crate) tape: &'r mut Tape,
}

impl Recorder<'_, '_> {
    /// A packet is about to be walked, alone.
    pub(crate) fn begin(&mut self, packet: &Mbuf) {
        self.tape.begin(packet);
    }

    /// It has been.
    pub(crate) fn end(&mut self) {
        self.tape.end();
    }
}

impl Env for Recorder<'_, '_> {
    type Buf = Mbuf;

    fn alloc(&mut self, port: PortId) -> Option<Mbuf> {
        self.outside.alloc(port)
    }

    fn send(&mut self, port: PortId, packet: Mbuf) {
        self.tape.send(port, packet.data());
        self.outside.send(port, packet);
    }

    fn hand_off(&mut self, to: WorkerId, packet: Mbuf) -> Result<(), Mbuf> {
        let handed = self.outside.hand_off(to, packet);
        if let (Ok(()), Some(seen)) = (&handed, &mut self.tape.seen) {
            seen.handed = true;
        }
        handed
    }

    fn announce(&mut self, update: &NeighbourUpdate) {
        self.outside.announce(update);
    }

    fn ask(&mut self, ask: &Ask) -> bool {
        self.outside.ask(ask)
    }

    fn nanos(&self) -> Option<Nanos> {
        self.outside.nanos()
    }

    fn revoke(&mut self, revoke: &Revoke) -> bool {
        self.outside.revoke(revoke)
    }

    fn note(&mut self, note: Note) {
        if let Some(seen) = &mut self.tape.seen {
            seen.hear(note);
        }
    }

    fn log(&mut self, event: &LogEvent) -> bool {
        self.outside.log(event)
    }

    fn deliver_local(&mut self, from: u16, to: Ip, packet: &[u8]) -> bool {
        self.outside.deliver_local(from, to, packet)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Capture, End};
    use super::*;
    use dataplane::packet::TestPacket;
    use dataplane::snapshot::Parts;

    fn nothing() -> Arc<Snapshot> {
        Arc::new(Snapshot::assemble(Parts::default()).expect("empty"))
    }

    fn packet(bytes: &[u8]) -> TestPacket {
        TestPacket::new(PortId(0), bytes)
    }

    /// What it has taken down so far: whether it came in, and its last byte.
    fn taken(capture: &Capture) -> Vec<(bool, u8)> {
        let frames = std::iter::from_fn(|| capture.reels[0].next());
        frames.map(|frame| (frame.inbound, frame.bytes[frame.bytes.len() - 1])).collect()
    }

    #[test]
    fn a_packet_is_taken_down_as_a_whole_or_not_at_all() {
        let capture = Arc::new(Capture::of_everything(1));
        let mut tape = Tape::new(Arc::clone(&capture), WorkerId(0), nothing());
        tape.begin(&packet(&[1; 60]));
        capture.end(End::Stopped);
        tape.send(PortId(1), &[2; 60]);
        assert!(!capture.reels[0].is_closed());
        tape.end();
        assert_eq!(taken(&capture), [(true, 1), (false, 2)]);
        tape.begin(&packet(&[3; 60]));
        assert!(capture.reels[0].is_closed() && !capture.reels[0].is_returned());
        tape.send(PortId(1), &[4; 60]);
        tape.end();
        tape.send(PortId(1), &[5; 60]);
        assert_eq!(taken(&capture), []);
        drop(tape);
        assert!(capture.reels[0].is_returned());
    }

    #[test]
    fn a_file_ends_after_what_the_last_worker_has_taken_down() {
        let capture = Arc::new(Capture::of_everything(2));
        let tape = |id| Tape::new(Arc::clone(&capture), WorkerId(id), nothing());
        let (mut first, second) = (tape(0), tape(1));
        first.begin(&packet(&[1; 60]));
        capture.end(End::Stopped);
        second.rest();
        let now = crate::clock::monotonic();
        assert!(!capture.page(now).expect("a page").is_empty(), "the file's head");
        assert_eq!(capture.page(now), Ok(Vec::new()));
        first.end();
        assert_eq!(super::super::pcapng::blocks(&capture.page(now).expect("a page")).count(), 1);
        first.rest();
        assert!(!capture.page(now).expect("a page").is_empty(), "the file's end");
        assert!(capture.page(now).is_err());
        drop((first, second));
    }

    #[test]
    fn a_file_ends_without_a_worker_that_hangs() {
        let capture = Arc::new(Capture::of_everything(1));
        let tape = Tape::new(Arc::clone(&capture), WorkerId(0), nothing());
        capture.end(End::Stopped);
        let now = crate::clock::monotonic();
        assert!(!capture.page(now).expect("a page").is_empty(), "the file's head");
        assert_eq!(capture.page(now), Ok(Vec::new()));
        let later = now + super::super::CLOSING_MAX;
        assert!(!capture.page(later).expect("a page").is_empty(), "the file's end");
        assert!(capture.page(later).is_err());
        drop(tape);
    }
}
