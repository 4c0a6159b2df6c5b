//! The packets that wait for neighbours: one pool, one FIFO per neighbour threaded through it.

/// No place.
const NONE: u32 = u32::MAX;

/// One neighbour's packets, oldest first; the packets themselves are in the [`WaitingRoom`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Queue {
    head: u32,
    tail: u32,
    len: u16,
}

impl Queue {
    pub(super) const EMPTY: Queue = Queue { head: NONE, tail: NONE, len: 0 };

    pub(super) fn len(&self) -> u16 {
        self.len
    }
}

struct Place<B> {
    packet: Option<B>,
    /// The next place of the same queue, or of the free ones.
    next: u32,
}

/// Places for a fixed number of packets.
pub(super) struct WaitingRoom<B> {
    places: Box<[Place<B>]>,
    free: u32,
    len: usize,
}

impl<B> WaitingRoom<B> {
    pub(super) fn new(capacity: usize) -> WaitingRoom<B> {
        let next_of = |place: usize| if place + 1 < capacity { place as u32 + 1 } else { NONE };
        let places: Box<[_]> =
            (0..capacity).map(|place| Place { packet: None, next: next_of(place) }).collect();
        let free = if places.is_empty() { NONE } else { 0 };
        WaitingRoom { places, free, len: 0 }
    }

    /// Packets in all queues.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Appends a packet. If the queue or the room is full, the queue's oldest packet makes way and is
    /// returned; if the queue has none, `packet` itself is.
    pub(super) fn push(&mut self, queue: &mut Queue, queue_max: u16, packet: B) -> Option<B> {
        let full = queue.len >= queue_max || self.free == NONE;
        let displaced = if full { self.pop(queue) } else { None };
        let at = self.free;
        let Some(place) = self.places.get_mut(at as usize) else { return Some(packet) };
        self.free = place.next;
        *place = Place { packet: Some(packet), next: NONE };
        match self.places.get_mut(queue.tail as usize) {
            Some(last) => last.next = at,
            None => queue.head = at,
        }
        queue.tail = at;
        queue.len += 1;
        self.len += 1;
        displaced
    }

    /// Takes the oldest packet of a queue.
    pub(super) fn pop(&mut self, queue: &mut Queue) -> Option<B> {
        let at = queue.head;
        let place = self.places.get_mut(at as usize)?;
        let packet = place.packet.take();
        queue.head = place.next;
        if queue.head == NONE {
            queue.tail = NONE;
        }
        place.next = self.free;
        self.free = at;
        queue.len -= 1;
        self.len -= 1;
        packet
    }
}
