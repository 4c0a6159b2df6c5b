//! The table: entries, index, wheel and half-open list kept in step.

mod copy;
mod hardware;
mod memory;
mod plain;
mod turnover;

pub(crate) use copy::{ConnectionCopy, Shut};

use super::entry::{Entry, NIL, OFFLOAD_KINDS, Slot};
use super::half_open::HalfOpen;
use super::index::{Index, Reference};
use super::leader::Leader;
use super::rings::Rings;
use super::tcp::{Outcome, Segment, State};
use super::wheel::Wheel;
use crate::addr::Ip;
use crate::flow::{Direction, FlowHasher, FlowKey};
use crate::ids::{BackendId, ServiceId, TenantId, WorkerId};
use crate::limits::{CONNECTIONS_MAX, TENANTS_MAX};
use crate::offload::{FlowRef, OffloadState};
use crate::prefetch::prefetch;
use crate::time::Tick;
use crate::wire::parse::TcpFlags;

/// Sizes of a table, fixed when it is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// Connections it can hold.
    pub connections: u32,
    /// How many of them may be half-open; at least 1.
    pub half_open_max: u32,
    /// Age under which a half-open connection is not given up for another one.
    pub half_open_grace_ms: u32,
}

/// How much of a table a tenant may hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Share {
    /// Connections; at least 1.
    pub connections: u32,
    /// Half-open ones among them; at least 1.
    pub half_open: u32,
}

impl Share {
    /// All of it.
    pub const ALL: Share = Share { connections: u32::MAX, half_open: u32::MAX };
}

/// A tenant's share, and what it holds.
#[derive(Clone, Copy, Debug)]
struct Account {
    share: Share,
    live: u32,
    /// What a connection weighs: [`WHOLE`] shared by all that make up the tenant's part of the table.
    weight: u64,
}

/// Slots looked at per call of [`Table::expire`] where rings begin late.
const RINGED_PER_CALL: u32 = 256;
/// What the connections of a tenant weigh together that has all of its part.
const WHOLE: u64 = 1 << 32;

/// What a connection is opened with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct New {
    /// Client to VIP.
    pub key: FlowKey,
    /// Its service.
    pub service: ServiceId,
    /// The backend chosen for it,
    pub backend: BackendId,
    /// that backend's address, of the key's family,
    pub backend_ip: Ip,
    /// and port.
    pub backend_port: u16,
    /// Whether replies pass Millrace, from the backend to the client, and must find the connection.
    pub nat: bool,
    /// TCP flags of its first packet.
    pub flags: TcpFlags,
    /// The generation of the policy that has allowed it.
    pub judged: u8,
}

impl New {
    /// The key of the packets that the backend sends.
    fn reply_key(&self) -> FlowKey {
        let FlowKey { src: client, src_port: client_port, tenant, protocol, .. } = self.key;
        FlowKey {
            src: self.backend_ip,
            dst: client,
            src_port: self.backend_port,
            dst_port: client_port,
            tenant,
            protocol,
        }
    }

    fn is_one_family(&self) -> bool {
        let v4 = self.key.src.is_v4();
        v4 == self.key.dst.is_v4() && v4 == self.backend_ip.is_v4()
    }
}

/// A connection was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Inserted {
    /// Where it is.
    pub slot: Slot,
    /// The connection that made room for it.
    pub evicted: Option<Gone>,
}

/// Why a connection was not opened. Nothing has changed then. What concerns every newcomer,
/// [`InsertError::HalfOpenLimit`] and [`InsertError::Full`], comes before what concerns this one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InsertError {
    /// A connection with this key exists.
    #[error("the connection exists already")]
    Duplicate(Slot),
    /// Another connection of the same client has the same backend address and port: their replies could
    /// not be told apart. Another backend may do.
    #[error("another connection's replies look the same")]
    ReplyCollision,
    /// The half-open share is used up by connections within their grace.
    #[error("too many young half-open connections")]
    HalfOpenLimit,
    /// The tenant's share is used up, and nothing of its own may be evicted.
    #[error("the tenant's share of the connection table is used up")]
    TenantLimit,
    /// No room, and nothing that may be evicted.
    #[error("the connection table is full")]
    Full,
    /// Client, VIP and backend are not all IPv4 or all IPv6.
    #[error("address families differ")]
    MixedFamilies,
}

/// Packets and bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Bytes of IP packet.
    pub bytes: u64,
}

/// What a connection has carried, software and hardware together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Client to backend.
    pub original: Count,
    /// Backend to client.
    pub reply: Count,
}

/// A connection that has left the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gone {
    /// Its name while it lived.
    pub flow: FlowRef,
    /// Its service.
    pub service: ServiceId,
    /// Its backend.
    pub backend: BackendId,
    /// Its last state.
    pub state: State,
    /// Whether it was half-open.
    pub half_open: bool,
    /// What it carried.
    pub totals: Totals,
    /// Its hardware half, which may have to be taken down.
    pub offload: OffloadState,
}

/// The ends of a connection: what rewriting needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ends {
    /// The client's address and port.
    pub client: (Ip, u16),
    /// The VIP's.
    pub vip: (Ip, u16),
    /// The backend's.
    pub backend: (Ip, u16),
    /// The backend.
    pub backend_id: BackendId,
    /// Whether replies pass Millrace.
    pub nat: bool,
}

/// A connection as shown to people.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConnectionRow {
    /// Its name.
    pub flow: FlowRef,
    /// Client to VIP.
    pub key: FlowKey,
    /// The backend's address,
    pub backend_ip: Ip,
    /// and port.
    pub backend_port: u16,
    /// Whether replies pass Millrace.
    pub nat: bool,
    /// Its service.
    pub service: ServiceId,
    /// Its backend.
    pub backend: BackendId,
    /// Its state.
    pub state: State,
    /// Whether it was met in its middle.
    pub picked_up: bool,
    /// Whether it counts as half-open.
    pub half_open: bool,
    /// Milliseconds since it was opened (modulo 49 days).
    pub age_ms: u32,
    /// Milliseconds since its last packet.
    pub idle_ms: u32,
    /// What it has carried.
    pub totals: Totals,
    /// Its hardware half.
    pub offload: OffloadState,
}

/// What [`Table::prepare`] found out about a connection that may be opened.
#[derive(Clone, Copy, Debug)]
pub struct Prepared {
    original: u64,
    /// Hash of the replies' key, if there will be any.
    reply: Option<u64>,
    /// [`Table::opened`] when nothing was found under the original key.
    missed_at: u32,
}

/// What [`Table::probe`] saw: the entry that [`Table::find`] should look at first.
#[derive(Clone, Copy, Debug)]
pub struct Candidates {
    /// [`Reference::NONE`] if there is none.
    first: Reference,
    /// [`Table::opened`] when the index was looked at; `None` if it was not.
    probed_at: Option<u32>,
}

impl Candidates {
    /// Whether the index has nothing under the hash: the packet is the first of its connection.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.first == Reference::NONE
    }
}

impl Default for Candidates {
    fn default() -> Candidates {
        Candidates { first: Reference::NONE, probed_at: None }
    }
}

/// Client, VIP and backend of an IPv6 connection, two words each.
type V6 = [u64; 6];
/// Bytes that an IPv6 connection needs beyond [`Table::memory_bytes`].
#[cfg(test)]
pub(super) const V6_BYTES: usize = core::mem::size_of::<V6>();
/// What few connections need: see [`Table::cold`].
type Cold = [u64; 6];
/// Where [`Cold`] keeps the packets (and one further on the bytes) of a direction that the entry does
/// not: what hardware counted, and 2^32 for each time the entry's own counter wrapped.
const fn cold_packets(direction: Direction) -> usize {
    2 * direction as usize
}
/// Where [`Cold`] keeps the number of an offload request or rule, low half, and the tick that goes with
/// the offload state, high half.
const COLD_OFFLOAD: usize = 4;
/// Where [`Cold`] keeps the tick at which the offload state was last known to be true.
const COLD_CONFIRMED: usize = 5;

/// One worker's connections.
pub struct Table {
    worker: WorkerId,
    shape: Shape,
    hasher: FlowHasher,
    /// One more than the table may hold: a newcomer is made sure of its place in the index before
    /// anyone is evicted for it.
    entries: Box<[Entry]>,
    index: Index,
    wheel: Wheel,
    half_open: HalfOpen,
    /// By [`TenantId`].
    accounts: Box<[Account]>,
    /// What each tenant's connections weigh,
    weights: Leader,
    /// and those that are established.
    rings: Rings,
    /// Connections opened so far (modulo 2^32).
    opened: u32,
    /// Zeroed pages: those that no IPv6 connection touches take no memory, unless [`Table::settle_v6`] is
    /// called. Likewise `cold`.
    v6: Box<[V6]>,
    cold: Box<[Cold]>,
    /// Slots given back, each naming the next; slots from `fresh` on were never taken.
    free: u32,
    fresh: u32,
    len: usize,
    /// The hand of the clock that eviction goes by.
    hand: usize,
    /// Connections by the kind of their offload state.
    by_offload: [u32; OFFLOAD_KINDS],
    /// Set where a table stands in for one that takes no newcomers; asked where there is no room only.
    shut: Option<Shut>,
}

impl Table {
    /// An empty table. Sizes out of range are brought into it: 1 to [`CONNECTIONS_MAX`] less two
    /// connections, of which 1 to all may be half-open.
    #[must_use]
    pub fn new(worker: WorkerId, shape: Shape, hasher: FlowHasher, now: Tick) -> Table {
        let connections = shape.connections.clamp(1, CONNECTIONS_MAX as u32 - 2);
        let shape = Shape { connections, half_open_max: shape.half_open_max.clamp(1, connections), ..shape };
        let slots = connections as usize + 1;
        Table {
            worker,
            shape,
            hasher,
            entries: vec![Entry::default(); slots].into_boxed_slice(),
            index: Index::new(2 * slots),
            wheel: Wheel::new(now),
            half_open: HalfOpen::new(shape.half_open_max),
            accounts: vec![Account { share: Share::ALL, live: 0, weight: 1 }; TENANTS_MAX].into_boxed_slice(),
            weights: Leader::new(),
            rings: Rings::new(slots),
            opened: 0,
            v6: vec![[0; 6]; slots].into_boxed_slice(),
            cold: vec![Cold::default(); slots].into_boxed_slice(),
            free: NIL,
            fresh: 0,
            len: 0,
            hand: 0,
            by_offload: [0; OFFLOAD_KINDS],
            shut: None,
        }
    }
}

/// Tenants.
impl Table {
    /// Says how much of the table each tenant may hold, by [`TenantId`]; all of it those that are not named.
    /// One that holds more keeps what it has, and gets nothing more.
    pub fn set_shares(&mut self, shares: impl IntoIterator<Item = Share>) {
        let mut tenants = 0;
        let shares = shares.into_iter().inspect(|_| tenants += 1).chain(core::iter::repeat(Share::ALL));
        for (account, share) in self.accounts.iter_mut().zip(shares) {
            account.share =
                Share { connections: share.connections.max(1), half_open: share.half_open.max(1) };
        }
        let equal = (self.shape.connections / tenants.max(1)).max(1);
        for (account, tenant) in self.accounts.iter_mut().zip(0u16..) {
            let share = account.share.connections;
            let part = if share == u32::MAX { equal } else { share.min(self.shape.connections) };
            account.weight = WHOLE / u64::from(part);
            self.weights.set(TenantId(tenant), u64::from(account.live) * account.weight);
        }
        if tenants > 1 {
            self.rings.begin(self.fresh);
            if self.fresh == 0 {
                self.rings.settle();
            }
        }
    }

    /// A tenant has so many connections.
    fn set_live(&mut self, tenant: TenantId, live: impl FnOnce(u32) -> u32) {
        let account = &mut self.accounts[tenant.index()];
        account.live = live(account.live);
        self.weights.set(tenant, u64::from(account.live) * account.weight);
    }

    /// Takes some of the connections into their tenants' rings that were opened before there were any.
    #[cold]
    fn catch_up(&mut self) {
        for slot in self.rings.next_behind(RINGED_PER_CALL) {
            let entry = &self.entries[slot as usize];
            if entry.is_live() && !entry.is_half_open() {
                self.rings.link(slot, entry.tenant());
            }
        }
    }

    /// Connections that a tenant has, and how many of them are half-open.
    #[must_use]
    pub fn held_by(&self, tenant: TenantId) -> (u32, u32) {
        let live = self.accounts.get(tenant.index()).map_or(0, |account| account.live);
        (live, self.half_open.len_of(tenant))
    }
}

/// How late, milliseconds, a connection may be looked at whose timeout this is, before it is worth linking
/// anew.
fn late_max_ms(timeout_ms: u32) -> u32 {
    (timeout_ms / 32).max(512)
}

/// Looking up.
impl Table {
    /// The hash of a key, for the calls below.
    #[inline]
    #[must_use]
    pub fn hash(&self, key: &FlowKey) -> u64 {
        self.hasher.local_key(key)
    }

    /// Stage one: asks for the index line that [`Table::probe`] reads.
    #[inline]
    pub fn prefetch_index(&self, hash: u64) {
        self.index.prefetch(hash);
    }

    /// Stage two: asks for the entry that [`Table::find`] reads, going by the index alone.
    #[inline]
    #[must_use]
    pub fn probe(&self, hash: u64) -> Candidates {
        let first = self.index.find(hash, |_| true).unwrap_or(Reference::NONE);
        if let Some(entry) = self.entries.get(first.slot() as usize) {
            prefetch(entry);
        }
        Candidates { first, probed_at: Some(self.opened) }
    }

    /// Stage three: the connection of a packet, and which way the packet travels.
    ///
    /// `candidates` may be stale or [`Candidates::default`]: it only saves work.
    #[inline(always)]
    #[must_use]
    pub fn find(&self, key: &FlowKey, hash: u64, candidates: Candidates) -> Option<(Slot, Direction)> {
        let first = candidates.first;
        if self.holds(first, key) {
            return Some((Slot(first.slot()), first.direction()));
        }
        // Where there was nothing there still is nothing, unless a connection was opened since.
        if first == Reference::NONE && candidates.probed_at == Some(self.opened) {
            return None;
        }
        self.search(key, hash)
    }

    #[inline(never)]
    fn search(&self, key: &FlowKey, hash: u64) -> Option<(Slot, Direction)> {
        let reference = self.index.find(hash, |reference| self.holds(reference, key))?;
        Some((Slot(reference.slot()), reference.direction()))
    }

    /// An entry's line.
    #[inline]
    #[must_use]
    pub fn entry(&self, slot: Slot) -> &Entry {
        &self.entries[slot.index()]
    }

    /// The ends of a connection.
    #[inline(always)] // As every packet comes here, and a call would return them in memory.
    #[must_use]
    pub fn ends(&self, slot: Slot) -> Ends {
        let entry = &self.entries[slot.index()];
        let [client, vip, backend] = if entry.is_v6() {
            let [c_hi, c_lo, v_hi, v_lo, b_hi, b_lo] = self.v6[slot.index()];
            [[c_hi, c_lo], [v_hi, v_lo], [b_hi, b_lo]].map(Ip::from_words)
        } else {
            entry.inline_addresses()
        };
        let [client_port, vip_port, backend_port] = entry.ports();
        Ends {
            client: (client, client_port),
            vip: (vip, vip_port),
            backend: (backend, backend_port),
            backend_id: entry.backend(),
            nat: entry.has_reply_key(),
        }
    }

    #[inline(always)]
    fn holds(&self, reference: Reference, key: &FlowKey) -> bool {
        let (slot, direction) = (reference.slot() as usize, reference.direction());
        let Some(entry) = self.entries.get(slot) else { return false };
        entry.matches(key, direction)
            && entry.is_live()
            && (!entry.is_v6() || self.holds_v6(slot, direction, key))
    }

    #[cold]
    fn holds_v6(&self, slot: usize, direction: Direction, key: &FlowKey) -> bool {
        let [c_hi, c_lo, v_hi, v_lo, b_hi, b_lo] = self.v6[slot];
        let (src, dst) = (key.src.words(), key.dst.words());
        match direction {
            Direction::Original => src == [c_hi, c_lo] && dst == [v_hi, v_lo],
            Direction::Reply => src == [b_hi, b_lo] && dst == [c_hi, c_lo],
        }
    }

    /// The key that packets of one direction carry.
    #[must_use]
    pub fn key(&self, slot: Slot, direction: Direction) -> FlowKey {
        let Ends { client, vip, backend, .. } = self.ends(slot);
        let (src, dst) = match direction {
            Direction::Original => (client, vip),
            Direction::Reply => (backend, client),
        };
        let entry = &self.entries[slot.index()];
        FlowKey {
            src: src.0,
            dst: dst.0,
            src_port: src.1,
            dst_port: dst.1,
            tenant: entry.tenant(),
            protocol: entry.protocol(),
        }
    }
}

/// What packets do.
impl Table {
    /// Counts a packet of a connection, moves its state and its last-seen tick.
    ///
    /// `flags` are the packet's TCP flags (ignored for UDP), `bytes` its IP length. `timeout_of` is asked
    /// only when the state changes: if the new state's timeout is shorter, the connection will be looked
    /// at sooner.
    #[inline]
    pub fn account(
        &mut self,
        slot: Slot,
        direction: Direction,
        now: Tick,
        bytes: u32,
        flags: TcpFlags,
        timeout_of: impl FnOnce(State) -> u32,
    ) -> Outcome {
        let entry = &mut self.entries[slot.index()];
        let state = entry.state();
        let Some(next) = state.next(&segment(entry, direction, now, flags)) else { return Outcome::Reuse };
        entry.touch(now);
        let wrapped = entry.count(direction, bytes);
        if wrapped != (false, false) {
            self.spill(slot, direction, wrapped);
        }
        if next == state {
            return Outcome::Unchanged;
        }
        self.enter_state(slot, next, now, timeout_of(next));
        Outcome::Changed(next)
    }

    /// Whether [`Table::account`] would say [`Outcome::Reuse`] of such a packet.
    #[must_use]
    pub fn is_reuse(&self, slot: Slot, direction: Direction, now: Tick, flags: TcpFlags) -> bool {
        let entry = &self.entries[slot.index()];
        entry.state().next(&segment(entry, direction, now, flags)).is_none()
    }

    /// A counter of the entry wrapped: its carry goes to the cold array.
    #[cold]
    fn spill(&mut self, slot: Slot, direction: Direction, (packets, bytes): (bool, bool)) {
        let cold = self.cold(slot);
        cold[cold_packets(direction)] += u64::from(packets) << 32;
        cold[cold_packets(direction) + 1] += u64::from(bytes) << 32;
    }

    fn enter_state(&mut self, slot: Slot, state: State, now: Tick, timeout_ms: u32) {
        let entry = &mut self.entries[slot.index()];
        entry.set_state(state);
        if entry.is_half_open() && state.confirms() {
            entry.set_half_open(false);
            entry.born_or_node = self.half_open.remove(entry.born_or_node, entry.tenant()).0;
            self.rings.link(slot.0, entry.tenant());
        }
        let deadline = now.after_ms(timeout_ms);
        self.wheel.schedule(&mut self.entries, slot.0, deadline, late_max_ms(timeout_ms));
    }
}

/// Looking in from outside.
impl Table {
    /// Connections now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Connections that are half-open now.
    #[must_use]
    pub fn half_open(&self) -> usize {
        self.half_open.len()
    }

    /// Slots from this number on were never taken.
    #[must_use]
    pub fn slots_taken(&self) -> u32 {
        self.fresh
    }

    /// Connections it can hold.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.shape.connections as usize
    }

    /// Slot numbers are below this; see [`Table::backend_at`].
    #[must_use]
    pub fn slots(&self) -> usize {
        self.entries.len()
    }

    /// The connection in this slot, if any, and its backend: for sweeps that go through all slots.
    #[must_use]
    pub fn backend_at(&self, number: u32) -> Option<(Slot, BackendId)> {
        let entry = self.entries.get(number as usize)?;
        entry.is_live().then(|| (Slot(number), entry.backend()))
    }

    /// Milliseconds since a connection was opened (modulo 49 days).
    #[must_use]
    pub fn age_ms(&self, slot: Slot, now: Tick) -> u32 {
        now.0.wrapping_sub(self.born(slot).0)
    }

    fn born(&self, slot: Slot) -> Tick {
        let entry = &self.entries[slot.index()];
        if entry.is_half_open() { self.half_open.born(entry.born_or_node) } else { Tick(entry.born_or_node) }
    }

    /// A connection as shown to people; `None` if the slot holds none.
    #[must_use]
    pub fn row(&self, slot: Slot, now: Tick) -> Option<ConnectionRow> {
        let entry = self.entries.get(slot.index()).filter(|entry| entry.is_live())?;
        let ends = self.ends(slot);
        Some(ConnectionRow {
            flow: self.flow_ref(slot),
            key: self.key(slot, Direction::Original),
            backend_ip: ends.backend.0,
            backend_port: ends.backend.1,
            nat: ends.nat,
            service: entry.service(),
            backend: entry.backend(),
            state: entry.state(),
            picked_up: entry.is_picked_up(),
            half_open: entry.is_half_open(),
            age_ms: self.age_ms(slot, now),
            idle_ms: now.since(entry.last_seen()),
            totals: self.totals(slot),
            offload: self.offload(slot),
        })
    }

    /// Copies connections into `rows` until `rows` is at its capacity or `slots` slots were looked at.
    /// `cursor` says where to go on; it starts as `Some(0)` and is `None` at the end of the table.
    pub fn dump(&self, now: Tick, cursor: &mut Option<u32>, slots: usize, rows: &mut Vec<ConnectionRow>) {
        let Some(start) = *cursor else { return };
        for number in (start..self.fresh).take(slots) {
            if rows.len() == rows.capacity() {
                *cursor = Some(number);
                return;
            }
            rows.extend(self.row(Slot(number), now));
        }
        let end = (start as usize).saturating_add(slots);
        *cursor = (end < self.fresh as usize).then_some(end as u32);
    }
}

/// A packet as the state machine sees it that decides about the entry's next state.
#[inline(always)]
fn segment(entry: &Entry, direction: Direction, now: Tick, flags: TcpFlags) -> Segment {
    Segment {
        direction,
        flags,
        one_way: !entry.has_reply_key(),
        half_open: entry.is_half_open(),
        later: now.since(entry.last_seen()) > 0,
    }
}
