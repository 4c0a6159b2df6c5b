//! The connection table beside a model of it made of standard collections: a sequence of bytes becomes a
//! sequence of operations on both, and after each the two must agree. Driven by proptest in
//! `tests/table.rs` and by the fuzz target `table`.

use std::collections::{HashMap, VecDeque};

use dataplane::addr::Ip;
use dataplane::conntrack::{
    Candidates, ConnectionRow, Count, Gone, InsertError, New, Outcome, Segment, Shape, Share, Slot, State,
    Table, Totals,
};
use dataplane::flow::{Direction, FlowHasher, FlowKey, Protocol};
use dataplane::ids::{BackendId, ServiceId, TenantId, WorkerId};
use dataplane::limits::HARDWARE_STALE_MS;
use dataplane::offload::{Declined, FlowRef, OffloadState, RuleId, Token};
use dataplane::snapshot::Timeouts;
use dataplane::time::Tick;
use dataplane::wire::parse::TcpFlags;

const HASHER: FlowHasher = FlowHasher::new([
    0x243f_6a88_85a3_08d3,
    0x1319_8a2e_0370_7344,
    0xa409_3822_299f_31d0,
    0x082e_fa98_ec4e_6c89,
]);

/// A seed under which nearly all IPv6 keys of this small world have the same hash: only comparing whole keys
/// tells them apart, and the index is full early.
const WEAK_HASHER: FlowHasher = FlowHasher::new([1, 0, 0, 0x2000_0000_0000_0000]);

/// This fraction of the half-open share may be taken from established connections.
const HALF_OPEN_FLOOR: u32 = 8;
/// Half-open connections compared when one has to go.
const SAMPLE: usize = 16;
/// Keys probed before they are looked for again.
const PROBED: usize = 32;

fn timeout(service: ServiceId, state: State) -> u32 {
    let ms = Timeouts::default().timeout_ms(state);
    if service.0 == 0 { ms } else { ms / 3 }
}

#[derive(Clone, Debug)]
struct Connection {
    new: New,
    slot: Slot,
    flow: FlowRef,
    state: State,
    half_open: bool,
    born: Tick,
    last_seen: Tick,
    totals: Totals,
    offload: OffloadState,
    /// When hardware was last known to have let go of it.
    released: Tick,
    /// How far the table was behind with its work when it put this one off, milliseconds.
    behind_ms: u32,
    /// Order of opening.
    serial: u64,
}

impl Connection {
    fn deadline(&self) -> Tick {
        self.last_seen.after_ms(timeout(self.new.service, self.state))
    }

    /// Whether hardware may forward for it, so that it must not go.
    fn is_pending(&self) -> bool {
        use OffloadState::{Installed, Removing, Requested};
        matches!(self.offload, Requested(_) | Installed(_) | Removing(_))
    }

    fn reply_key(&self) -> FlowKey {
        reply_key(&self.new)
    }
}

fn reply_key(new: &New) -> FlowKey {
    FlowKey {
        src: new.backend_ip,
        src_port: new.backend_port,
        dst: new.key.src,
        dst_port: new.key.src_port,
        ..new.key
    }
}

/// The table and its model.
pub(crate) struct World {
    table: Table,
    /// Whether all hashes are alike.
    weak: bool,
    shape: Shape,
    /// What either tenant may hold.
    shares: [Share; 2],
    now: Tick,
    /// When the table had last looked at all that was due.
    swept: Tick,
    serial: u64,
    live: HashMap<u64, Connection>,
    keys: HashMap<FlowKey, (u64, Direction)>,
    dead: Vec<FlowRef>,
    /// What the index said of some keys a while ago, as it does at the beginning of a burst.
    probed: VecDeque<(FlowKey, Candidates)>,
}

impl World {
    /// Both empty; the first bytes choose sizes and the time.
    pub(crate) fn new([connections, half_open, grace, start]: [u8; 4]) -> World {
        let connections = 1 + u32::from(connections % 24);
        let shape = Shape {
            connections,
            half_open_max: 1 + u32::from(half_open) % connections,
            half_open_grace_ms: [0, 0, 50, 2_000][usize::from(grace % 4)],
        };
        // Some runs cross the wrap of the clock.
        let now = if start % 2 == 0 { Tick(u32::from(start) * 1000) } else { Tick(u32::MAX - 20_000) };
        let weak = start % 4 >= 2;
        let some = Share { connections: 1 + u32::from(grace >> 3) % 8, half_open: 1 + u32::from(grace >> 6) };
        let shares = [Share::ALL, if grace & 4 == 0 { Share::ALL } else { some }];
        let mut table = Table::new(WorkerId(3), shape, if weak { WEAK_HASHER } else { HASHER }, now);
        table.set_shares(shares);
        World {
            table,
            weak,
            shape,
            shares,
            now,
            swept: now,
            serial: 0,
            live: HashMap::new(),
            keys: HashMap::new(),
            dead: Vec::new(),
            probed: VecDeque::new(),
        }
    }

    /// Carries out one operation and compares.
    pub(crate) fn step(&mut self, [kind, a, b, c]: [u8; 4]) {
        self.probe(&new(a, b, c));
        match kind % 16 {
            0..=4 => self.insert(&new(a, b, c)),
            5..=9 => self.packet(&new(a, b, c), b, c),
            10 => self.remove(&new(a, b, c).key),
            11 => self.pass(u32::from(a) << (b % 16), usize::MAX),
            12 => self.pass(u32::from(a), usize::from(b % 4)),
            13 => self.set_offload(&new(a, b, c).key, c),
            14 => self.add_hardware(&new(a, b, c).key, b, c),
            _ => self.compare_all(),
        }
        self.find_probed();
        assert_eq!(self.table.len(), self.live.len());
        let half_open = self.live.values().filter(|connection| connection.half_open).count();
        assert_eq!(self.table.half_open(), half_open);
        assert!(half_open <= self.shape.half_open_max as usize && self.live.len() <= self.table.capacity());
    }

    fn find(&self, key: &FlowKey) -> Option<(Slot, Direction)> {
        let hash = self.table.hash(key);
        self.table.prefetch_index(hash);
        let found = self.table.find(key, hash, self.table.probe(hash));
        assert_eq!(found, self.table.find(key, hash, Candidates::default()), "{key}");
        let expected = self.keys.get(key).map(|(id, direction)| (self.live[id].slot, *direction));
        assert_eq!(found, expected, "{key}");
        found
    }

    fn probe(&mut self, new: &New) {
        for key in [new.key, reply_key(new)] {
            self.probed.push_back((key, self.table.probe(self.table.hash(&key))));
        }
        self.probed.drain(..self.probed.len().saturating_sub(PROBED));
    }

    /// What has changed since a key was probed makes no difference to who is found.
    fn find_probed(&self) {
        for (key, candidates) in &self.probed {
            let found = self.table.find(key, self.table.hash(key), *candidates);
            let expected = self.keys.get(key).map(|(id, direction)| (self.live[id].slot, *direction));
            assert_eq!(found, expected, "{key}");
        }
    }

    fn insert(&mut self, new: &New) {
        let tenant = new.key.tenant;
        let yields = self.who_yields(tenant);
        let oldest = self.oldest_half_open(yields);
        let at_limit = self.count(tenant, false) >= self.share(tenant).connections;
        let expected = self.expected(new);
        let hash = self.table.hash(&new.key);
        let result = match self.table.find(&new.key, hash, Candidates::default()) {
            None if self.serial % 2 == 0 => {
                let prepared = self.table.prepare(new, hash);
                self.table.insert_prepared(self.now, new, &prepared, timeout)
            }
            _ => self.table.insert(self.now, new, timeout),
        };
        let inserted = match (result, expected) {
            (Err(InsertError::Full), Ok(())) if self.weak && self.keys.len() >= 10 => return,
            (Err(error), expected) => {
                assert_eq!(Err(error), expected);
                self.find(&new.key);
                return;
            }
            (Ok(inserted), Ok(())) => inserted,
            (Ok(_), Err(error)) => panic!("inserted in spite of {error}"),
        };
        if let Some(gone) = inserted.evicted {
            let whose = self.live[&self.id_of(&gone)].new.key.tenant;
            let most = self.has_most(tenant);
            let id = self.bury(&gone);
            assert!(!gone.half_open || Some(id) == oldest, "the oldest half-open one goes");
            let (all, half_open) = (self.shape.half_open_max, |whose: &Connection| whose.half_open);
            if gone.half_open {
                assert_eq!(whose, yields);
            } else if at_limit {
                assert_eq!(whose, tenant);
                let room = all.min(self.share(tenant).half_open) / HALF_OPEN_FLOOR;
                assert!(self.count(tenant, true) < room.max(1), "half-open ones go first");
            } else {
                assert_eq!(whose, most);
                let half_open = self.live.values().filter(|whose| half_open(whose)).count();
                assert!(half_open < (all / HALF_OPEN_FLOOR).max(1) as usize, "half-open ones go first");
            }
        }
        self.serial += 1;
        let connection = Connection {
            new: *new,
            slot: inserted.slot,
            flow: self.table.flow_ref(inserted.slot),
            state: State::opening(new.key.protocol, new.flags),
            half_open: true,
            born: self.now,
            last_seen: self.now,
            totals: Totals::default(),
            offload: OffloadState::Software,
            released: self.now,
            behind_ms: 0,
            serial: self.serial,
        };
        self.keys.insert(new.key, (self.serial, Direction::Original));
        if new.nat {
            self.keys.insert(connection.reply_key(), (self.serial, Direction::Reply));
        }
        self.live.insert(self.serial, connection);
        self.find(&new.key);
        self.find(&reply_key(new));
    }

    fn expected(&self, new: &New) -> Result<(), InsertError> {
        if let Some(error) = self.refusal(new.key.tenant) {
            return Err(error);
        }
        match self.keys.get(&new.key) {
            Some((id, Direction::Original)) => return Err(InsertError::Duplicate(self.live[id].slot)),
            Some((_, Direction::Reply)) => return Err(InsertError::ReplyCollision),
            None => {}
        }
        if new.nat && (self.keys.contains_key(&reply_key(new)) || reply_key(new) == new.key) {
            return Err(InsertError::ReplyCollision);
        }
        Ok(())
    }

    fn share(&self, tenant: TenantId) -> Share {
        self.shares[tenant.index()]
    }

    /// Connections of a tenant, all of them or the half-open ones.
    fn count(&self, tenant: TenantId, half_open: bool) -> u32 {
        let own = self.live.values().filter(|whose| whose.new.key.tenant == tenant);
        own.filter(|whose| whose.half_open || !half_open).count() as u32
    }

    /// Whose half-open connection goes for a newcomer, if one has to.
    fn who_yields(&self, tenant: TenantId) -> TenantId {
        let Share { connections, half_open } = self.share(tenant);
        let own = self.count(tenant, true);
        let is_full = self.table.half_open() as u32 == self.shape.half_open_max;
        if own >= half_open || (!is_full && self.count(tenant, false) >= connections) {
            return tenant;
        }
        let other = TenantId(1 - tenant.0);
        if self.count(other, true) > own { other } else { tenant }
    }

    /// Why a newcomer is refused: the one to go is too young to, and the tenant's own.
    fn refusal(&self, tenant: TenantId) -> Option<InsertError> {
        let (own, half_open) = (self.count(tenant, true), self.table.half_open() as u32);
        let (share, yields) = (self.share(tenant), self.who_yields(tenant));
        let is_young = |id| self.now.since(self.live[&id].born) < self.shape.half_open_grace_ms;
        let stays = yields == tenant && self.oldest_half_open(yields).is_some_and(is_young);
        let live = self.count(tenant, false);
        if own >= share.half_open || half_open == self.shape.half_open_max {
            return stays.then_some(InsertError::HalfOpenLimit);
        }
        if live >= share.connections {
            let floor = (share.half_open.min(self.shape.half_open_max) / HALF_OPEN_FLOOR).max(1);
            let idle_may_go = own < floor && live > own;
            return (!idle_may_go && (stays || own == 0)).then_some(InsertError::TenantLimit);
        }
        let full = self.live.len() == self.table.capacity();
        let floor = (self.shape.half_open_max / HALF_OPEN_FLOOR).max(1);
        let most = self.has_most(tenant);
        let established = self.count(most, false) > self.count(most, true);
        (full && !(half_open < floor && established) && stays).then_some(InsertError::HalfOpenLimit)
    }

    /// Who has most in proportion to its part of the table: what it may have, or half of it.
    fn has_most(&self, tenant: TenantId) -> TenantId {
        let weight = |tenant: TenantId| {
            let share = self.share(tenant).connections;
            let all = self.shape.connections;
            let part = if share == u32::MAX { (all / 2).max(1) } else { share.min(all) };
            u64::from(self.count(tenant, false)) * ((1 << 32) / u64::from(part))
        };
        let other = TenantId(1 - tenant.0);
        if weight(other) > weight(tenant) { other } else { tenant }
    }

    /// A tenant's half-open connection to go first: of the few oldest, one that hardware does not forward
    /// for.
    fn oldest_half_open(&self, tenant: TenantId) -> Option<u64> {
        let half_open = self.live.values().filter(|whose| whose.half_open && whose.new.key.tenant == tenant);
        let mut oldest: Vec<(u64, bool)> = half_open.map(|one| (one.serial, one.is_pending())).collect();
        oldest.sort_unstable();
        let free = oldest.iter().take(SAMPLE).find(|(_, pending)| !pending);
        free.or(oldest.first()).map(|(serial, _)| *serial)
    }

    /// A packet of an existing connection, in the direction that `way` says.
    fn packet(&mut self, new: &New, way: u8, size: u8) {
        let key = if way & 0x40 == 0 { new.key } else { reply_key(new) };
        let Some((slot, direction)) = self.find(&key) else { return };
        let (id, _) = self.keys[&key];
        let Some(connection) = self.live.get_mut(&id) else { return };
        let segment = Segment {
            direction,
            flags: new.flags,
            one_way: !connection.new.nat,
            half_open: connection.half_open,
            later: self.now.since(connection.last_seen) > 0,
        };
        let bytes = if size & 0x80 == 0 { u32::from(size) } else { u32::MAX - u32::from(size) };
        let service = connection.new.service;
        let outcome =
            self.table.account(slot, direction, self.now, bytes, new.flags, |state| timeout(service, state));
        let Some(next) = connection.state.next(&segment) else {
            assert_eq!(outcome, Outcome::Reuse);
            return;
        };
        let changed = next != connection.state;
        assert_eq!(outcome, if changed { Outcome::Changed(next) } else { Outcome::Unchanged });
        connection.state = next;
        connection.half_open &= !next.confirms();
        connection.last_seen = self.now;
        let count = match direction {
            Direction::Original => &mut connection.totals.original,
            Direction::Reply => &mut connection.totals.reply,
        };
        count.packets += 1;
        count.bytes += u64::from(bytes);
        assert_eq!(self.table.totals(slot), connection.totals);
    }

    fn remove(&mut self, key: &FlowKey) {
        let Some((slot, _)) = self.find(key) else { return };
        let gone = self.table.remove(slot).expect("it was found");
        self.bury(&gone);
        self.find(key);
        assert_eq!(self.table.remove(slot), None);
    }

    /// Lets time pass. With `budget` to spare, no connection may outlive its timeout by more than a
    /// second or a twentieth.
    fn pass(&mut self, ms: u32, budget: usize) {
        self.now = self.now.after_ms(ms);
        let (mut gone, mut held) = (Vec::new(), Vec::new());
        let on_held = |slot| held.push(slot);
        let looked_at = self.table.expire(self.now, budget, timeout, |g| gone.push(g), on_held);
        for slot in held {
            let entry = self.table.entry(slot);
            let silence_ms = timeout(entry.service(), entry.state()) + HARDWARE_STALE_MS;
            assert!(entry.is_pending() && self.now.since(entry.last_seen()) >= silence_ms);
            let behind_ms = self.now.since(self.swept);
            self.live.values_mut().filter(|one| one.slot == slot).for_each(|one| one.behind_ms = behind_ms);
        }
        assert!(looked_at <= budget && gone.len() <= looked_at);
        for gone in gone {
            let id = self.id_of(&gone);
            let connection = &self.live[&id];
            assert!(self.now.reached(connection.deadline()), "nobody goes early");
            assert!(!connection.is_pending(), "hardware may act on it: {connection:?}");
            self.bury(&gone);
        }
        if looked_at < budget {
            self.swept = self.now;
            for connection in self.live.values().filter(|connection| !connection.is_pending()) {
                let slack = (timeout(connection.new.service, connection.state) / 20).max(1_000);
                // It may have been in hardware when it was looked at last.
                let slack = slack + HARDWARE_STALE_MS;
                // Where time leaps, or there is too much to do, the wheel files by how far it has got.
                let slack = slack + connection.behind_ms / 30;
                let late = |since: Tick| self.now.reached(since.after_ms(slack));
                let late = late(connection.deadline()) && late(connection.released);
                assert!(!late, "late: {connection:?}");
            }
        }
    }

    fn set_offload(&mut self, key: &FlowKey, which: u8) {
        let Some((slot, _)) = self.find(key) else { return };
        let number = u32::from(which) * 0x0101_0101;
        let state = match which % 5 {
            0 => OffloadState::Software,
            1 => OffloadState::Requested(Token(number)),
            2 => OffloadState::Installed(RuleId(number)),
            3 => OffloadState::Removing(RuleId(number)),
            _ => OffloadState::Declined(Declined::Budget),
        };
        self.table.set_offload(slot, state, self.now);
        let (id, _) = self.keys[key];
        if let Some(connection) = self.live.get_mut(&id) {
            if connection.is_pending() {
                connection.released = self.now;
            }
            connection.offload = state;
        }
        assert_eq!(self.table.offload(slot), state);
    }

    fn add_hardware(&mut self, key: &FlowKey, packets: u8, bytes: u8) {
        let Some((slot, direction)) = self.find(key) else { return };
        let count = Count { packets: u64::from(packets) << 28, bytes: u64::from(bytes) << 34 };
        self.table.add_hardware(slot, direction, self.now, count);
        let (id, _) = self.keys[key];
        let Some(connection) = self.live.get_mut(&id) else { return };
        if packets > 0 {
            connection.last_seen = self.now;
            let total = match direction {
                Direction::Original => &mut connection.totals.original,
                Direction::Reply => &mut connection.totals.reply,
            };
            total.packets += count.packets;
            total.bytes += count.bytes;
        }
        assert_eq!(self.table.totals(slot), connection.totals);
    }

    fn id_of(&self, gone: &Gone) -> u64 {
        let found = self.live.iter().find(|(_, connection)| connection.flow == gone.flow);
        *found.expect("only the living go").0
    }

    /// Takes a connection out of the model; what the table said of it must be true.
    fn bury(&mut self, gone: &Gone) -> u64 {
        let id = self.id_of(gone);
        let connection = self.live.remove(&id).expect("just found");
        assert_eq!(
            *gone,
            Gone {
                flow: connection.flow,
                service: connection.new.service,
                backend: connection.new.backend,
                state: connection.state,
                half_open: connection.half_open,
                totals: connection.totals,
                offload: connection.offload,
            }
        );
        self.keys.retain(|_, (owner, _)| *owner != id);
        self.dead.push(connection.flow);
        id
    }

    /// Compares everything there is to see.
    pub(crate) fn compare_all(&mut self) {
        for key in self.keys.keys() {
            self.find(key);
        }
        assert!(self.dead.iter().all(|flow| self.table.resolve(*flow).is_none()), "names of the dead");
        let mut rows = Vec::with_capacity(3);
        let (mut seen, mut by_offload) = (0, [0; 5]);
        let mut cursor = Some(0);
        while cursor.is_some() {
            rows.clear();
            self.table.dump(self.now, &mut cursor, 5, &mut rows);
            seen += rows.len();
            rows.iter().for_each(|row| self.compare_row(row));
            rows.iter().for_each(|row| by_offload[kind(row.offload)] += 1);
        }
        assert_eq!(self.table.by_offload(), by_offload);
        assert_eq!(seen, self.live.len());
    }

    fn compare_row(&self, row: &ConnectionRow) {
        let (id, direction) = self.keys[&row.key];
        let connection = &self.live[&id];
        assert_eq!(direction, Direction::Original);
        assert_eq!(self.table.resolve(row.flow), Some(connection.slot));
        let expected = ConnectionRow {
            flow: connection.flow,
            key: connection.new.key,
            backend_ip: connection.new.backend_ip,
            backend_port: connection.new.backend_port,
            nat: connection.new.nat,
            service: connection.new.service,
            backend: connection.new.backend,
            state: connection.state,
            picked_up: State::opening(connection.new.key.protocol, connection.new.flags) == State::PickedUp,
            half_open: connection.half_open,
            age_ms: self.now.since(connection.born),
            idle_ms: self.now.since(connection.last_seen),
            totals: connection.totals,
            offload: connection.offload,
        };
        assert_eq!(*row, expected);
    }
}

/// A connection out of a small world, in which keys and replies collide often. IPv6 addresses share
/// their low bits with IPv4 ones and with one another.
fn new(a: u8, b: u8, c: u8) -> New {
    let v6 = a & 0x80 != 0;
    let ip = |high: u8, low: u32| {
        let mut octets = [0; 16];
        octets[0] = 0x20;
        octets[7] = high;
        octets[12..].copy_from_slice(&low.to_be_bytes());
        if v6 { Ip::v6(octets) } else { Ip::v4(low) }
    };
    let backend = b >> 1 & 1;
    let key = FlowKey {
        src: ip(a & 1, 0x0a00_0000 + u32::from(a >> 1 & 1)),
        // The second VIP is also the second backend.
        dst: ip(0, if a & 4 == 0 { 0xc000_0201 } else { 0xac10_0001 }),
        src_port: [80, 5000][usize::from(a >> 3 & 1)] + u16::from(a >> 4 & 1),
        dst_port: 80,
        tenant: TenantId(u16::from(a >> 5 & 1)),
        protocol: if a & 0x40 == 0 { Protocol::Tcp } else { Protocol::Udp },
    };
    New {
        key,
        service: ServiceId(u16::from(a >> 2 & 1)),
        backend: BackendId(u16::from(backend)),
        backend_ip: ip(0, 0xac10_0000 + u32::from(backend)),
        backend_port: 80,
        nat: b & 1 == 0,
        judged: a,
        flags: [
            TcpFlags::SYN,
            TcpFlags::SYN.with(TcpFlags::ACK),
            TcpFlags::ACK,
            TcpFlags::ACK,
            TcpFlags::FIN.with(TcpFlags::ACK),
            TcpFlags::RST,
            TcpFlags::SYN,
            TcpFlags::ACK.with(TcpFlags::PSH),
        ][usize::from(c % 8)],
    }
}

/// The position of an offload state in the order of their declaration.
fn kind(state: OffloadState) -> usize {
    match state {
        OffloadState::Software => 0,
        OffloadState::Requested(_) => 1,
        OffloadState::Installed(_) => 2,
        OffloadState::Removing(_) => 3,
        OffloadState::Declined(_) => 4,
    }
}
