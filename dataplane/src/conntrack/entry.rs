//! One connection in one cache line.

use crate::addr::Ip;
use crate::flow::{Direction, FlowKey, Protocol};
use crate::ids::{BackendId, ServiceId, TenantId};
use crate::limits::HARDWARE_STALE_MS;
use crate::offload::{Declined, OffloadState, RuleId, Token};
use crate::time::Tick;

use super::tcp::State;

/// A connection's place in its table. Valid until the connection is removed; what outlives that is
/// named by a [`crate::offload::FlowRef`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct Slot(pub(super) u32);

impl Slot {
    /// The number shown to people.
    #[inline]
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }

    #[inline]
    pub(super) const fn index(self) -> usize {
        self.0 as usize
    }
}

/// The kinds of [`OffloadState`].
pub(super) const OFFLOAD_KINDS: usize = 5;

/// "No slot" in a link.
pub(super) const NIL: u32 = u32::MAX;

const UDP: u8 = 1 << 0;
const V6: u8 = 1 << 1;
const REPLY_KEY: u8 = 1 << 2;
const PICKED_UP: u8 = 1 << 3;
const HALF_OPEN: u8 = 1 << 4;
const COLD: u8 = 1 << 5;
/// Packets of these directions are hardware's business by now: one that comes to software has missed it.
const IN_HARDWARE: [u8; 2] = [1 << 6, 1 << 7];

const STATE_BITS: u8 = 0x0f;
const KIND_SHIFT: u32 = 4;
const REQUESTED: u8 = 1;
const INSTALLED: u8 = 2;
const REMOVING: u8 = 3;
/// See [`Entry::concerns_hardware`].
const RETRY_PACKETS: u64 = 16;

/// The hot part of a connection, everything that a packet of an IPv4 connection reads and writes.
///
/// IPv6 addresses, the high halves of counters that wrapped, what hardware counted and the number of an
/// offload request or rule live in arrays beside it, which most connections never touch.
#[derive(Clone, Debug, Default)]
#[repr(C, align(64))]
pub struct Entry {
    // Backend, client, VIP: the ends of either direction stand side by side, see `first_end`. Addresses in
    // host order; of an IPv6 connection the low 32 bits, to tell most others apart.
    addresses: [u32; 3],
    ports: [u16; 3],
    tenant: u16,
    /// Low half: [`State`], 0 in a free slot. High half: the offload state's kind.
    state: u8,
    flags: u8,
    /// The wheel's bucket that the entry is linked in, also that of a free slot: see
    /// [`super::wheel::Wheel::schedule`].
    pub(super) wheel_bucket: u16,
    service: u16,
    backend_id: u16,
    /// Little-endian.
    generation: [u8; 3],
    /// The generation of the policy that allowed it last.
    judged: u8,
    last_seen: Tick,
    /// When the connection was opened; while it is half-open its node in the half-open list, which
    /// keeps that tick; of a free slot: the next free one.
    pub(super) born_or_node: u32,
    /// In the wheel's bucket.
    pub(super) next: u32,
    pub(super) prev: u32,
    packets: [u32; 2],
    bytes: [u32; 2],
}

const _: () = assert!(core::mem::size_of::<Entry>() == 64 && core::mem::align_of::<Entry>() == 64);

/// What a new entry is made of.
pub(super) struct Opening<'a> {
    pub(super) key: &'a FlowKey,
    pub(super) judged: u8,
    pub(super) service: ServiceId,
    pub(super) backend: (BackendId, Ip, u16),
    pub(super) reply_key: bool,
    pub(super) state: State,
}

impl Entry {
    /// Takes a free slot for a connection.
    pub(super) fn open(&mut self, opening: &Opening<'_>, now: Tick) {
        let key = opening.key;
        let (backend_id, backend, backend_port) = opening.backend;
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        *self = Entry {
            addresses: [backend, key.src, key.dst].map(Ip::low32),
            ports: [backend_port, key.src_port, key.dst_port],
            tenant: key.tenant.0,
            state: opening.state as u8,
            flags: flag(key.protocol == Protocol::Udp, UDP)
                | flag(!key.src.is_v4(), V6)
                | flag(opening.reply_key, REPLY_KEY)
                | flag(opening.state == State::PickedUp, PICKED_UP),
            service: opening.service.0,
            backend_id: backend_id.0,
            generation: next_generation(self.generation),
            judged: opening.judged,
            last_seen: now,
            born_or_node: now.0,
            ..self.vacated()
        };
    }

    /// Gives the slot up.
    pub(super) fn close(&mut self, next_free: u32) {
        *self = Entry { born_or_node: next_free, ..self.vacated() };
    }

    /// Takes the likeness of another table's connection. Its place in the wheel stays its own.
    pub(super) fn imitate(&mut self, other: &Entry) {
        let &mut Entry { wheel_bucket, next, prev, .. } = self;
        *self = Entry { wheel_bucket, next, prev, ..other.clone() };
    }

    /// What of an entry outlives its connection: the generation, so that names of this connection stop
    /// matching, and its place in the wheel.
    fn vacated(&self) -> Entry {
        let &Entry { generation, wheel_bucket, next, prev, .. } = self;
        Entry { generation, wheel_bucket, next, prev, ..Entry::default() }
    }

    /// Of a free slot: the next free one.
    pub(super) fn next_free(&self) -> u32 {
        self.born_or_node
    }

    /// Whether the slot holds a connection.
    #[inline]
    #[must_use]
    pub(super) fn is_live(&self) -> bool {
        self.state & STATE_BITS != 0
    }

    /// What is believed of the connection.
    #[inline]
    #[must_use]
    pub fn state(&self) -> State {
        match (self.state & STATE_BITS).checked_sub(1) {
            Some(index) if usize::from(index) < State::ALL.len() => State::ALL[usize::from(index)],
            _ => State::ResetClient,
        }
    }

    /// The state's number; 0 in a free slot.
    #[inline]
    pub(super) fn state_number(&self) -> u32 {
        u32::from(self.state & STATE_BITS)
    }

    #[inline]
    pub(super) fn set_state(&mut self, state: State) {
        self.state = self.state & !STATE_BITS | state as u8;
    }

    /// TCP or UDP.
    #[inline]
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        if self.flags & UDP != 0 { Protocol::Udp } else { Protocol::Tcp }
    }

    /// The service it belongs to.
    #[inline]
    #[must_use]
    pub fn service(&self) -> ServiceId {
        ServiceId(self.service)
    }

    /// The backend it was given to.
    #[inline]
    #[must_use]
    pub fn backend(&self) -> BackendId {
        BackendId(self.backend_id)
    }

    /// Whose address space it lives in.
    #[inline]
    #[must_use]
    pub fn tenant(&self) -> TenantId {
        TenantId(self.tenant)
    }

    /// Whether its addresses are IPv6.
    #[inline]
    #[must_use]
    pub fn is_v6(&self) -> bool {
        self.flags & V6 != 0
    }

    /// Whether replies pass Millrace and find it too.
    #[inline]
    #[must_use]
    pub fn has_reply_key(&self) -> bool {
        self.flags & REPLY_KEY != 0
    }

    /// Whether it was met in its middle.
    #[inline]
    #[must_use]
    pub fn is_picked_up(&self) -> bool {
        self.flags & PICKED_UP != 0
    }

    /// Whether it counts against the half-open share.
    #[inline]
    #[must_use]
    pub fn is_half_open(&self) -> bool {
        self.flags & HALF_OPEN != 0
    }

    pub(super) fn set_half_open(&mut self, half_open: bool) {
        self.flags = if half_open { self.flags | HALF_OPEN } else { self.flags & !HALF_OPEN };
    }

    /// Whether something of it is in the cold array.
    #[inline]
    pub(super) fn is_cold(&self) -> bool {
        self.flags & COLD != 0
    }

    pub(super) fn set_cold(&mut self) {
        self.flags |= COLD;
    }

    /// When its last packet came, of either direction.
    #[inline]
    #[must_use]
    pub fn last_seen(&self) -> Tick {
        self.last_seen
    }

    #[inline]
    pub(super) fn touch(&mut self, now: Tick) {
        self.last_seen = now;
    }

    /// How often the slot has been taken (modulo 2^24).
    #[inline]
    #[must_use]
    pub fn generation(&self) -> u32 {
        let [low, middle, high] = self.generation;
        u32::from_le_bytes([low, middle, high, 0])
    }

    /// The generation of the policy that allowed it last: see [`crate::policy::Policy::generation`].
    #[inline]
    #[must_use]
    pub fn judged(&self) -> u8 {
        self.judged
    }

    /// A policy of this generation allows it.
    pub fn set_judged(&mut self, generation: u8) {
        self.judged = generation;
    }

    /// Port of the client, of the VIP and of the backend.
    #[inline]
    pub(super) fn ports(&self) -> [u16; 3] {
        let [backend, client, vip] = self.ports;
        [client, vip, backend]
    }

    /// Addresses of the client, the VIP and the backend of an IPv4 connection.
    #[inline]
    pub(super) fn inline_addresses(&self) -> [Ip; 3] {
        let [backend, client, vip] = self.addresses;
        [client, vip, backend].map(Ip::v4)
    }

    /// Whether `key` names this connection in `direction`, as far as the line can tell: for certain if
    /// IPv4, else all but the high bits of the addresses.
    #[inline]
    pub(super) fn matches(&self, key: &FlowKey, direction: Direction) -> bool {
        let src = first_end(direction);
        // Whoever comes by an index that has changed since may ask for replies where there are none.
        let replies = if direction == Direction::Reply { REPLY_KEY } else { 0 };
        let mut kind = replies;
        if key.protocol == Protocol::Udp {
            kind |= UDP;
        }
        if !key.src.is_v4() {
            kind |= V6;
        }
        // Without a branch for each field: nearly always all of them are the same.
        let addresses = (self.addresses[src] ^ key.src.low32()) | (self.addresses[src + 1] ^ key.dst.low32());
        let ports = (self.ports[src] ^ key.src_port) | (self.ports[src + 1] ^ key.dst_port);
        let rest = (self.tenant ^ key.tenant.0) | u16::from(self.flags & (UDP | V6 | replies) ^ kind);
        addresses | u32::from(ports | rest) == 0
    }

    /// Adds one packet; returns whether the packet count and the byte count wrapped.
    #[inline]
    pub(super) fn count(&mut self, direction: Direction, bytes: u32) -> (bool, bool) {
        let way = direction as usize;
        let (packets, packets_wrapped) = self.packets[way].overflowing_add(1);
        let (sum, bytes_wrapped) = self.bytes[way].overflowing_add(bytes);
        self.packets[way] = packets;
        self.bytes[way] = sum;
        (packets_wrapped, bytes_wrapped)
    }

    /// As [`super::Table::account`], for a packet for which the connection [`stays`](Entry::stays) as it is;
    /// `false`, and no change, if a counter would wrap.
    #[inline(always)] // As every packet comes here.
    #[must_use]
    pub fn pass(&mut self, direction: Direction, bytes: u16, now: Tick) -> bool {
        let way = direction as usize;
        let packets = self.packets[way].checked_add(1);
        let bytes = self.bytes[way].checked_add(u32::from(bytes));
        let (Some(packets), Some(bytes)) = (packets, bytes) else { return false };
        (self.packets[way], self.bytes[way], self.last_seen) = (packets, bytes, now);
        true
    }

    /// The low halves of packets and bytes of one direction.
    pub(super) fn low_counts(&self, direction: Direction) -> (u32, u32) {
        (self.packets[direction as usize], self.bytes[direction as usize])
    }

    /// Whether it is in a state that hardware may forward.
    #[inline]
    #[must_use]
    pub fn may_be_offloaded(&self) -> bool {
        matches!(self.state(), State::Established | State::Replied)
    }

    /// Whether its ends, if it is to be reset, can be told at their next segment: it will come to software.
    #[must_use]
    pub fn waits_for_segment(&self) -> bool {
        use State::{Established, FinWaitBackend, FinWaitClient, LastAckBackend, LastAckClient, PickedUp};
        let open = [Established, PickedUp, FinWaitClient, FinWaitBackend, LastAckClient, LastAckBackend];
        open.contains(&self.state()) && !self.is_pending()
    }

    /// Whether the offload engine comes into it: hardware has the connection, or may be asked to take it
    /// now that it has carried `price` packets. Of one that was refused, every 16th packet: when to ask
    /// again is in the cold array.
    #[inline(always)] // As every packet comes here.
    #[must_use]
    pub fn concerns_hardware(&self, price: u32) -> bool {
        let kind = self.state >> KIND_SHIFT;
        if (REQUESTED..=REMOVING).contains(&kind) {
            return kind == INSTALLED;
        }
        let [original, reply] = self.packets;
        let packets = u64::from(original) + u64::from(reply);
        packets >= u64::from(price) && (kind == 0 || packets % RETRY_PACKETS == 0) && self.may_be_offloaded()
    }

    /// Whether hardware has it.
    #[inline]
    #[must_use]
    pub fn is_installed(&self) -> bool {
        self.state >> KIND_SHIFT == INSTALLED
    }

    /// Whether hardware may forward for it now or soon, whatever becomes of it.
    #[inline]
    #[must_use]
    pub fn is_pending(&self) -> bool {
        matches!(self.state >> KIND_SHIFT, REQUESTED | INSTALLED | REMOVING)
    }

    /// Whether it has been in hardware for long enough to know which packets should not come to software.
    #[inline]
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.flags & (IN_HARDWARE[0] | IN_HARDWARE[1]) != 0
    }

    /// Whether packets of this direction should not come to software.
    #[inline]
    #[must_use]
    pub fn is_in_hardware(&self, direction: Direction) -> bool {
        self.flags & IN_HARDWARE[direction as usize] != 0
    }

    pub(super) fn settle(&mut self, legs: [bool; 2]) {
        for (bit, _) in IN_HARDWARE.iter().zip(legs).filter(|(_, leg)| *leg) {
            self.flags |= bit;
        }
    }

    /// For how long it may be silent, milliseconds: longer than its timeout, as what hardware forwards is
    /// heard of late, and so is what became of a request.
    #[inline]
    pub(super) fn silence_ms(&self, timeout_ms: u32) -> u32 {
        match self.state >> KIND_SHIFT {
            REQUESTED | INSTALLED | REMOVING => timeout_ms.saturating_add(HARDWARE_STALE_MS),
            _ => timeout_ms,
        }
    }

    /// Takes the slot of a connection that has ended for another one between the same ends. The name and
    /// the hardware half stay.
    pub(super) fn reopen(&mut self, now: Tick) {
        self.flags &= !(PICKED_UP | IN_HARDWARE[0] | IN_HARDWARE[1]);
        self.set_state(State::SynSent);
        self.born_or_node = now.0;
        (self.last_seen, self.packets, self.bytes) = (now, [0; 2], [0; 2]);
    }

    /// Which of the kinds of [`OffloadState`], in declaration order.
    pub(super) fn offload_kind(&self) -> usize {
        usize::from(self.state >> KIND_SHIFT).min(OFFLOAD_KINDS - 1)
    }

    /// The offload state; `number` is what the cold array keeps of it.
    pub(super) fn offload(&self, number: impl FnOnce() -> u32) -> OffloadState {
        match self.state >> KIND_SHIFT {
            REQUESTED => OffloadState::Requested(Token(number())),
            INSTALLED => OffloadState::Installed(RuleId(number())),
            REMOVING => OffloadState::Removing(RuleId(number())),
            4 => OffloadState::Declined(Declined::NoEngine),
            5 => OffloadState::Declined(Declined::Budget),
            6 => OffloadState::Declined(Declined::TableFull),
            7 => OffloadState::Declined(Declined::Refused),
            8 => OffloadState::Declined(Declined::Failed),
            9 => OffloadState::Declined(Declined::TenantShare),
            10 => OffloadState::Declined(Declined::Path),
            11 => OffloadState::Declined(Declined::Timeout),
            12 => OffloadState::Declined(Declined::Metered),
            13 => OffloadState::Declined(Declined::Mtu),
            14 => OffloadState::Declined(Declined::Tunnel),
            _ => OffloadState::Software,
        }
    }

    /// Notes the kind of an offload state; returns the number to keep with it, if it has one.
    pub(super) fn set_offload(&mut self, state: OffloadState) -> Option<u32> {
        let (kind, number) = match state {
            OffloadState::Software => (0, None),
            OffloadState::Requested(Token(token)) => (REQUESTED, Some(token)),
            OffloadState::Installed(RuleId(rule)) => (INSTALLED, Some(rule)),
            OffloadState::Removing(RuleId(rule)) => (REMOVING, Some(rule)),
            OffloadState::Declined(Declined::NoEngine) => (4, None),
            OffloadState::Declined(Declined::Budget) => (5, None),
            OffloadState::Declined(Declined::TableFull) => (6, None),
            OffloadState::Declined(Declined::Refused) => (7, None),
            OffloadState::Declined(Declined::Failed) => (8, None),
            OffloadState::Declined(Declined::TenantShare) => (9, None),
            OffloadState::Declined(Declined::Path) => (10, None),
            OffloadState::Declined(Declined::Timeout) => (11, None),
            OffloadState::Declined(Declined::Metered) => (12, None),
            OffloadState::Declined(Declined::Mtu) => (13, None),
            OffloadState::Declined(Declined::Tunnel) => (14, None),
        };
        self.state = self.state & STATE_BITS | kind << KIND_SHIFT;
        if kind != INSTALLED {
            self.flags &= !(IN_HARDWARE[0] | IN_HARDWARE[1]);
        }
        number
    }
}

fn next_generation([low, middle, high]: [u8; 3]) -> [u8; 3] {
    let [low, middle, high, _] = u32::from_le_bytes([low, middle, high, 0]).wrapping_add(1).to_le_bytes();
    [low, middle, high]
}

/// Where the source of a direction stands; the destination is the next.
#[inline]
fn first_end(direction: Direction) -> usize {
    1 - direction as usize
}
