//! THE WALK: one burst in, one burst out.
//!
//! ```text
//! rx burst ── parse ── steer ── lookup ──┬─ hit ─────────────── account ── rewrite ── next hop ── tx
//!               │        │               └─ miss ── open ──────────┘
//!               │        └─ another worker owns the client: hand off
//!               └─ not a plain TCP/UDP packet: punt (ARP, ND, ICMP, later fragments)
//! ```
//!
//! [`Walk::run`] is that picture as code, in stages over the burst so that the cache misses of
//! neighbouring packets overlap: while one packet's connection is being fetched, the next one's index
//! bucket is. Everything else hangs off it: `express` (the shortcut for what nearly every packet is),
//! `open` (first packets), `egress` (rewrite, next hop, the link header), `punt` (everything that is not a
//! plain forwarded packet), `policy` (what is let through), `transit` (what is passed on under it),
//! `tunnel_port` (what comes out of tunnels, and goes into them), `upkeep` (ageing, neighbour upkeep,
//! announcements), `offload` (what hardware takes over, and gives back), `hitters` (what hardware had better
//! drop).
//!
//! A packet is moved, never copied, and ends in exactly one way, counted once: sent, dropped under a
//! [`DropReason`], consumed, handed to another worker, or held for a neighbour.

mod capture;
mod egress;
mod express;
mod hitters;
mod local;
mod meter;
mod notes;
mod offload;
mod open;
mod partition;
mod policy;
mod punt;
mod shadow;
mod tenants;
mod transit;
mod tunnel;
mod tunnel_port;
mod upkeep;

use crate::addr::Ip;
use crate::config::Limits;
use crate::conntrack::{self, Candidates, Outcome, Shape, Slot, Table};
use crate::counters::WorkerCounters;
use crate::drops::DropReason;
use crate::flow::{Direction, FlowHasher, FlowKey, Protocol};
use crate::fragments::{FragmentLimits, Fragments};
use crate::ids::{BackendId, PortId, TenantId, WorkerId};
use crate::meter::Nanos;
use crate::neighbour::{NeighbourLimits, NeighbourUpdate, Neighbours};
use crate::offload::{Ask, Denied, Reached, Revoke};
use crate::owner::Owners;
use crate::packet::{BURST, Burst, PacketBuf};
use crate::policy::LogEvent;
use crate::rate::RateLimit;
use crate::snapshot::{Port, Service, Snapshot};
use crate::time::Tick;
use crate::wire::plain::{Address, Family, Link, Plain, V4, V6};
use crate::wire::{self, Kind, Parsed};
use arrayvec::ArrayVec;
use egress::Translation;
pub use local::{PROBE_PORTS, Sent};
use open::Foreseen;
use std::sync::Arc;

pub use notes::{Hardware, MeterOf, Note};
pub use shadow::{Excerpt, Shadow, Walked};

/// How long a half-open connection is safe from eviction by another one. Longer than a handshake takes
/// within a continent, and short enough that a flood does not lock new clients out for long: at the
/// default share of 100 000 it takes a million spoofed SYNs per second to fill it within the grace.
const HALF_OPEN_GRACE_MS: u32 = 100;

/// ARP and neighbour discovery answers per second.
const NEIGHBOUR_ANSWERS_PER_SECOND: u32 = 10_000;

/// What a worker needs from outside: transmit queues, other workers, fresh buffers.
pub trait Env {
    /// The packets.
    type Buf: PacketBuf;

    /// An empty packet to write into, or `None` if the pool is exhausted.
    fn alloc(&mut self, port: PortId) -> Option<Self::Buf>;

    /// Queues a packet for transmission. The environment counts it: `sent` once the port has taken it,
    /// [`DropReason::TxRingFull`] if it does not.
    fn send(&mut self, port: PortId, packet: Self::Buf);

    /// Gives a packet to another worker; returned if that worker's ring is full.
    ///
    /// # Errors
    /// The packet itself, when there is no room.
    fn hand_off(&mut self, to: WorkerId, packet: Self::Buf) -> Result<(), Self::Buf>;

    /// Tells all other workers what was learnt about a neighbour. May be lost: they ask themselves.
    fn announce(&mut self, update: &NeighbourUpdate);

    /// Asks the offload engine to take a connection over. `false` if there is no room for the request (or
    /// no engine): the connection stays in software, and may be asked for again.
    fn ask(&mut self, ask: &Ask) -> bool;

    /// The time more finely than ticks tell it, if there is such a clock. It must go with the ticks: meters
    /// that several workers share go by it.
    fn nanos(&self) -> Option<Nanos> {
        None
    }

    /// Tells the offload engine to give a connection back, ahead of anything that is asked for. `false` if
    /// there is no room; then it is told again later.
    fn revoke(&mut self, revoke: &Revoke) -> bool;

    /// Tells the offload engine of a tuple that comes in at a high rate, and of which the policy denies all.
    /// `false` if there is no room, or no engine; then it is told again a while later.
    fn denied(&mut self, denied: &Denied) -> bool {
        let _ = denied;
        false
    }

    /// Tells the offload engine who is at a next hop. `false` if there is no room (or no engine).
    fn reached(&mut self, reached: &Reached) -> bool {
        let _ = reached;
        false
    }

    /// Hears what the walk found or decided about the packet at hand. Nobody listens by default.
    #[inline(always)]
    fn note(&mut self, _note: Note) {}

    /// Tells of a verdict that is to be logged. `false` if there is no room, or nobody who listens.
    fn log(&mut self, event: &LogEvent) -> bool {
        let _ = event;
        false
    }

    /// Gives the checker an IP packet that may answer the probe `from` this port of ours `to` that address,
    /// if there is one. `false` if there is no checker, or no room.
    fn deliver_local(&mut self, from: u16, to: Ip, packet: &[u8]) -> bool {
        let _ = (from, to, packet);
        false
    }
}

/// The sizes of a worker's tables.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// The connection table.
    pub connections: Shape,
    /// The neighbour table.
    pub neighbours: NeighbourLimits,
    /// Fragmented packets followed at a time.
    pub fragments: FragmentLimits,
    /// ICMP errors sent per second; as many echo replies, and as many resets.
    pub icmp_per_second: u32,
}

impl Sizes {
    /// The sizes a configuration asks for.
    #[must_use]
    pub fn of(limits: &Limits) -> Sizes {
        let half_open_max = u64::from(limits.connections) * u64::from(limits.half_open_percent) / 100;
        Sizes {
            connections: Shape {
                connections: limits.connections,
                half_open_max: half_open_max as u32,
                half_open_grace_ms: HALF_OPEN_GRACE_MS,
            },
            neighbours: NeighbourLimits {
                neighbours_max: limits.neighbours as usize,
                queue_per_neighbour: limits.neighbour_queue,
                ..NeighbourLimits::default()
            },
            fragments: FragmentLimits {
                decisions_max: limits.fragments as usize,
                ..FragmentLimits::default()
            },
            icmp_per_second: limits.icmp_per_second,
        }
    }
}

/// What makes a worker.
#[derive(Clone, Debug)]
pub struct WorkerSetup {
    /// Its number.
    pub id: WorkerId,
    /// Which worker owns which client; the same for all workers.
    pub owners: Owners,
    /// Random seed of the connection table's hash.
    pub seed: [u64; 4],
    /// Table sizes.
    pub sizes: Sizes,
}

/// One worker's state: it alone touches any of it.
pub struct Worker<B: PacketBuf> {
    snapshot: Arc<Snapshot>,
    state: State<B>,
}

/// Everything of a worker that changes while it walks.
struct State<B: PacketBuf> {
    id: WorkerId,
    owners: Owners,
    /// What is left to do about packets from ports: nothing, if this worker owns all clients.
    steering: Steering,
    counters: Arc<WorkerCounters>,
    table: Table,
    neighbours: Neighbours<B>,
    /// What was decided for first fragments, and by the policy of which generation.
    fragments: Fragments<B, (u8, Translation)>,
    rates: Rates,
    accounts: meter::Accounts,
    upkeep: upkeep::Cursors,
    offload: offload::Bargain,
    captured: capture::Captured,
    judging: policy::Judging,
    /// Who sends most of what the policy denies; `None`: nobody wants to know.
    hitters: Option<hitters::Hitters>,
    /// Frames that are yet to be put into tunnels.
    aside: tunnel_port::Aside<B>,
    /// Datagrams scheduled without affinity so far: the walk over the Maglev table.
    datagrams: u64,
}

/// How often Millrace speaks by itself. Each kind has an allowance of its own, so that a flood that asks
/// for one kind does not silence the others: pings must not stop path MTU discovery, nor make the routers
/// around us forget our addresses.
#[derive(Clone, Copy)]
struct Rates {
    /// ICMP errors.
    errors: RateLimit,
    /// Echo replies.
    echoes: RateLimit,
    /// TCP resets.
    resets: RateLimit,
    /// ARP and neighbour discovery answers.
    neighbours: RateLimit,
}

impl Rates {
    fn new(icmp_per_second: u32) -> Rates {
        let limit = |per_second: u32| RateLimit::new(per_second, per_second.div_ceil(10));
        Rates {
            errors: limit(icmp_per_second),
            echoes: limit(icmp_per_second),
            resets: limit(icmp_per_second),
            neighbours: limit(NEIGHBOUR_ANSWERS_PER_SECOND),
        }
    }
}

/// One burst's journey: the snapshot it is judged by, the state it changes, the outside world.
struct Walk<'a, E: Env> {
    now: Tick,
    snapshot: &'a Snapshot,
    state: &'a mut State<E::Buf>,
    env: &'a mut E,
    /// Connections that hardware may still be asked to take.
    asks_left: u8,
    /// The generation of the snapshot's policy.
    judged_by: u8,
    /// The time by which meters go, once one has asked.
    nanos: Option<Nanos>,
    /// The service that was looked up last: that of the next newcomer, too, as a rule.
    last_service: Option<(Endpoint, &'a Service)>,
}

/// Where a packet is sent to: whose address, protocol and port.
type Endpoint = (TenantId, Ip, Protocol, u16);

/// What is known of a packet between two stages.
struct Lane {
    hash: u64,
    candidates: Candidates,
    /// Its place in [`Context::foreseen`], if it is there.
    foreseen: u8,
    headers: Headers,
}

impl Lane {
    /// Whose packet it is, if that is known at a glance.
    fn tenant(&self) -> Option<TenantId> {
        match &self.headers {
            Headers::V4(plain) => Some(plain.tenant),
            Headers::V6(plain) => Some(plain.tenant),
            Headers::Parsed(_) => None,
        }
    }
}

/// What is known of some packets of a burst besides their lanes.
struct Context<'c, 'a> {
    /// What the full parse said.
    parsed: &'c [(Parsed, Addressee)],
    /// What will be needed to open connections.
    foreseen: ArrayVec<Foreseen<'a>, BURST>,
}

/// What is known of a packet's headers.
enum Headers {
    /// All that matters, at a glance.
    V4(Plain<V4>),
    /// Likewise.
    V6(Plain<V6>),
    /// The result of a full parse: its place among those of the burst.
    Parsed(u8),
}

/// The packets of a burst that are to be looked up, in their order; as many lanes; and what the full parse
/// said of those that are not plain. Apart, so that only what a stage needs is moved.
struct Lanes<B> {
    packets: ArrayVec<B, BURST>,
    lanes: ArrayVec<Lane, BURST>,
    parsed: ArrayVec<(Parsed, Addressee), BURST>,
}

impl<B: PacketBuf> Worker<B> {
    /// A worker with empty tables. All memory it will ever use is allocated here.
    #[must_use]
    pub fn new(
        now: Tick,
        setup: &WorkerSetup,
        snapshot: Arc<Snapshot>,
        counters: Arc<WorkerCounters>,
    ) -> Worker<B> {
        let hasher = FlowHasher::seeded(setup.seed);
        let sizes = &setup.sizes;
        let mut state = State {
            id: setup.id,
            owners: setup.owners.clone(),
            steering: if setup.owners.is_single() { Steering::Here } else { Steering::ByOwner },
            counters,
            table: Table::new(setup.id, sizes.connections, hasher, now),
            neighbours: Neighbours::new(&sizes.neighbours, hasher),
            fragments: Fragments::new(&sizes.fragments, hasher),
            rates: Rates::new(sizes.icmp_per_second),
            accounts: meter::Accounts::new(now),
            upkeep: upkeep::Cursors::new(setup.id),
            offload: offload::Bargain::new(now),
            captured: capture::Captured::default(),
            judging: policy::Judging::new(),
            hitters: None,
            aside: tunnel_port::Aside::new(),
            datagrams: 0,
        };
        state.share_out(&snapshot.tenants);
        if snapshot.serves_ipv6() {
            state.table.settle_v6();
        }
        state.counters.policy_swept.set(snapshot.policy().generation().into());
        state.set_statics(now, &snapshot, |_, _, _| {});
        state.meet(now, snapshot.next_hops());
        Worker { snapshot, state }
    }

    /// Takes the memory at once that connections need in hardware: for a start, when no packet waits.
    pub fn expect_hardware(&mut self) {
        self.state.table.settle_hardware();
    }

    /// Takes a burst received from a port; leaves it empty.
    pub fn on_burst<E: Env<Buf = B>>(&mut self, now: Tick, burst: &mut Burst<B>, env: &mut E) {
        self.state.counters.received.add(burst.len() as u64);
        self.state.judging.note_burst(burst.len());
        let steering = self.state.steering;
        self.walk(now, env).run(burst, steering);
        self.state.count_held();
    }

    /// Takes packets that another worker handed over because this one owns their client.
    pub fn on_handed_off<E: Env<Buf = B>>(&mut self, now: Tick, burst: &mut Burst<B>, env: &mut E) {
        self.state.counters.handed_in.add(burst.len() as u64);
        self.state.judging.note_burst(burst.len());
        self.walk(now, env).run(burst, Steering::Here);
        self.state.count_held();
    }

    fn walk<'a, E: Env<Buf = B>>(&'a mut self, now: Tick, env: &'a mut E) -> Walk<'a, E> {
        Walk {
            now,
            snapshot: &self.snapshot,
            state: &mut self.state,
            env,
            asks_left: offload::ASKS_PER_BURST,
            judged_by: self.snapshot.policy().generation(),
            nanos: None,
            last_service: None,
        }
    }
}

/// Whether a packet may still be handed to another worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Steering {
    /// It goes to the worker that owns its client.
    ByOwner,
    /// It has arrived there.
    Here,
}

impl<'a, E: Env> Walk<'a, E> {
    /// The walk. Each stage goes over the whole burst before the next one begins.
    fn run(&mut self, burst: &mut Burst<E::Buf>, steering: Steering) {
        burst.iter().for_each(PacketBuf::prefetch);

        let mut lanes = Lanes { packets: ArrayVec::new(), lanes: ArrayVec::new(), parsed: ArrayVec::new() };
        for packet in burst.drain(..) {
            self.take(packet, steering, &mut lanes);
        }
        // Where they are, as to move them would be to copy room for a whole burst of each.
        let Lanes { packets, lanes, parsed } = &mut lanes;
        let mut newcomers = 0;
        for lane in lanes.iter_mut() {
            lane.candidates = self.state.table.probe(lane.hash);
            newcomers += usize::from(lane.candidates.is_empty());
        }
        let mut context = Context { parsed, foreseen: ArrayVec::new() };
        if newcomers > 0 {
            self.foresee(newcomers, lanes, &mut context.foreseen);
        }
        for (packet, lane) in packets.drain(..).zip(lanes.iter()) {
            self.forward(packet, lane, &context);
        }
    }

    /// Parse and steer: what goes on is TCP or UDP whose client is ours, and its index line is on its way.
    #[inline(always)]
    fn take(&mut self, packet: E::Buf, steering: Steering, lanes: &mut Lanes<E::Buf>) {
        // Each kind has a call of its own below: joined, they would have to agree on registers first.
        match self.family(&packet) {
            Some((Family::V4, link)) => {
                if let Some(plain) = V4::glance(packet.data(), link) {
                    return self.line_up_plain(packet, steering, plain, Headers::V4, lanes);
                }
            }
            Some((Family::V6, link)) => {
                if let Some(plain) = V6::glance(packet.data(), link) {
                    return self.line_up_plain(packet, steering, plain, Headers::V6, lanes);
                }
            }
            None => {}
        }
        self.take_closely(packet, steering, lanes);
    }

    #[inline(always)]
    fn line_up_plain<A: Address>(
        &mut self,
        packet: E::Buf,
        steering: Steering,
        plain: Plain<A>,
        headers: impl FnOnce(Plain<A>) -> Headers,
        lanes: &mut Lanes<E::Buf>,
    ) {
        let key = plain.key();
        self.env.note(Note::Parsed { port: packet.port(), kind: Kind::of(key.protocol), key });
        let packet = match steering {
            Steering::Here => packet,
            Steering::ByOwner => match self.steer(packet, steering, |walk| walk.client_of(&plain.key())) {
                Some(packet) => packet,
                None => return,
            },
        };
        let hash = self.state.table.hash(&plain.key());
        self.line_up(packet, hash, headers(plain), lanes);
    }

    #[inline(always)]
    fn line_up(&mut self, packet: E::Buf, hash: u64, headers: Headers, lanes: &mut Lanes<E::Buf>) {
        self.state.table.prefetch_index(hash);
        lanes.packets.push(packet);
        lanes.lanes.push(Lane { hash, candidates: Candidates::default(), foreseen: u8::MAX, headers });
    }

    /// Parse and steer of a packet that is not a plain one.
    #[inline(never)] // The plain ones are not to pay for it.
    fn take_closely(&mut self, mut packet: E::Buf, steering: Steering, lanes: &mut Lanes<E::Buf>) {
        if let Some(port) = self.snapshot.lan(packet.port(), packet.data()) {
            packet.set_port(port);
        }
        if self.snapshot.link(packet.port()).is_some_and(Link::has_tunnels) {
            packet = match self.take_out(packet, steering, lanes) {
                Some(packet) => packet,
                None => return,
            };
        }
        let (parsed, addressee) = match self.parse(&packet) {
            Ok(parsed) => parsed,
            Err(reason) => {
                return self.refuse(packet, reason);
            }
        };
        self.env.note(Note::Parsed { port: packet.port(), kind: parsed.kind, key: parsed.key });
        if addressee == Addressee::Other {
            self.env.note(Note::InPassing);
        }
        match (parsed.kind, addressee) {
            (Kind::Tcp | Kind::Udp, _) => {}
            (_, Addressee::Us) => return self.punt(packet, &parsed, steering),
            (_, Addressee::Other) => return self.punt_in_passing(packet, &parsed, steering),
        }
        let steered = self.steer(packet, steering, |walk| walk.client_of(&parsed.key));
        let Some(packet) = steered else { return };
        let hash = self.state.table.hash(&parsed.key);
        let headers = Headers::Parsed(lanes.parsed.len() as u8);
        lanes.parsed.push((parsed, addressee));
        self.line_up(packet, hash, headers, lanes);
    }

    /// Lookup, then account, translate and send; or open a connection.
    #[inline(always)]
    fn forward(&mut self, packet: E::Buf, lane: &Lane, context: &Context<'_, 'a>) {
        match &lane.headers {
            Headers::V4(plain) => self.forward_plain(packet, plain, lane, context),
            Headers::V6(plain) => self.forward_plain(packet, plain, lane, context),
            Headers::Parsed(index) => {
                let Some((parsed, addressee)) = context.parsed.get(usize::from(*index)) else { return };
                let found = self.state.table.find(&parsed.key, lane.hash, lane.candidates);
                self.forward_parsed(packet, parsed, *addressee, found, None);
            }
        }
    }

    fn forward_parsed(
        &mut self,
        packet: E::Buf,
        parsed: &Parsed,
        addressee: Addressee,
        found: Option<(Slot, Direction)>,
        foreseen: Option<&Foreseen<'a>>,
    ) {
        match (found, addressee) {
            (Some((slot, _)), _) if self.is_in_passing(slot) => {
                self.meet_in_passing(packet, parsed, slot, addressee);
            }
            (Some((_, Direction::Original)), Addressee::Other) => self.refuse(packet, DropReason::NotOurMac),
            (Some((slot, direction)), _) => self.forward_known(packet, parsed, slot, direction),
            (None, Addressee::Us) => self.open(packet, parsed, foreseen),
            (None, Addressee::Other) => self.open_from_backend(packet, parsed),
        }
    }

    /// The established path: one entry's line is all that is touched.
    fn forward_known(&mut self, packet: E::Buf, parsed: &Parsed, slot: Slot, direction: Direction) {
        self.forward_entry(packet, parsed, slot, direction, Toll::Due);
    }

    fn forward_entry(
        &mut self,
        mut packet: E::Buf,
        parsed: &Parsed,
        slot: Slot,
        direction: Direction,
        toll: Toll,
    ) {
        if !self.is_judged(slot) {
            packet = match self.readmit(packet, parsed, slot, direction) {
                Some(packet) => packet,
                None => return,
            };
        }
        let entry = self.state.table.entry(slot);
        let (backend, service) = (entry.backend(), entry.service());
        let state = entry.state();
        let later = self.now.since(entry.last_seen()) > 0;
        self.env.note(Note::Known { slot, direction, state, service, backend });
        if !self.snapshot.keeps_connections(backend) {
            return self.backend_gone(packet, parsed, slot, direction);
        }
        if toll == Toll::Due && self.snapshot.has_meters() {
            if self.state.table.is_reuse(slot, direction, self.now, parsed.tcp_flags) {
                // It is charged as what it opens.
                return self.reopen(packet, parsed, slot);
            }
            packet = match self.metered(packet, parsed, service) {
                Some(packet) => packet,
                None => return,
            };
        }
        let bytes = u32::from(parsed.packet_len());
        let outcome = self.state.table.account(slot, direction, self.now, bytes, parsed.tcp_flags, |state| {
            self.snapshot.timeouts(service).timeout_ms(state)
        });
        match outcome {
            Outcome::Reuse => return self.reopen(packet, parsed, slot),
            Outcome::Changed(state) => self.env.note(Note::Becomes(state)),
            Outcome::Unchanged => {}
        }
        if state == conntrack::State::SynSent {
            self.state.count_hint(backend, outcome, later && parsed.tcp_flags.syn());
        }
        self.count_traffic(backend, direction, parsed.packet_len());
        if self.state.table.entry(slot).concerns_hardware(self.state.offload.price) {
            self.tend_hardware(offload::Sight::of(&packet, parsed), slot, direction);
        }
        let translation = self.translation(slot, direction);
        self.deliver(packet, parsed, &translation);
    }

    #[inline(always)]
    fn count_traffic(&self, backend: BackendId, direction: Direction, bytes: u16) {
        if let Some(counters) = self.state.counters.backend(backend) {
            let traffic = match direction {
                Direction::Original => &counters.original,
                Direction::Reply => &counters.reply,
            };
            traffic.count(u64::from(bytes));
        }
    }

    /// Checks the link layer and reads the packet's headers.
    fn parse(&self, packet: &E::Buf) -> Result<(Parsed, Addressee), DropReason> {
        if !packet.is_contiguous() {
            return Err(DropReason::Scattered);
        }
        let port = self.snapshot.port(packet.port()).ok_or(DropReason::NoRoute)?;
        let parsed = wire::parse(packet.data(), port.tenant)?;
        let addressee = check_link(packet.data(), &parsed, port)?;
        Ok((parsed, addressee))
    }

    /// The address whose owner must see the packet. Towards a VIP that is the source; everything else
    /// that can concern a connection is on its way to the client.
    fn client_of(&self, key: &FlowKey) -> Ip {
        if self.snapshot.is_vip(key.tenant, key.dst) { key.src } else { key.dst }
    }

    /// Keeps the packet if this worker owns its client, hands it over otherwise.
    fn steer(
        &mut self,
        packet: E::Buf,
        steering: Steering,
        client: impl FnOnce(&Self) -> Ip,
    ) -> Option<E::Buf> {
        if steering == Steering::Here {
            return Some(packet);
        }
        let owner = self.state.owners.owner(client(self));
        if owner == self.state.id {
            return Some(packet);
        }
        match self.env.hand_off(owner, packet) {
            Ok(()) => self.state.counters.handed_out.add(1),
            Err(packet) => self.drop(packet, DropReason::HandOffRingFull),
        }
        None
    }

    /// Where the packet's port passes on what is none of our business.
    fn pass_to(&self, packet: &E::Buf) -> Option<PortId> {
        self.snapshot.port(packet.port())?.pass_to
    }

    /// The end of a packet that goes nowhere.
    fn drop(&mut self, packet: E::Buf, reason: DropReason) {
        self.env.note(Note::Dropped(reason));
        self.count_drop(&packet, reason);
        drop(packet);
    }

    fn count_drop(&self, packet: &E::Buf, reason: DropReason) {
        upkeep::count_drop(self.snapshot, &self.state.counters, packet, reason);
    }

    /// A packet that is none of our business: passed on unchanged where the port is a bump in the wire,
    /// else dropped. What is wrong with another station's frame is for that station to judge.
    fn refuse(&mut self, packet: E::Buf, reason: DropReason) {
        match self.pass_to(&packet) {
            Some(port) if reason.is_someone_elses() || self.is_for_another(&packet, reason) => {
                self.pass_on(packet, port, reason);
            }
            _ => self.drop(packet, reason),
        }
    }

    /// Whether a whole frame is from one other station to another.
    fn is_for_another(&self, packet: &E::Buf, reason: DropReason) -> bool {
        let whole = !matches!(reason, DropReason::Scattered | DropReason::EthernetTruncated);
        let stations = wire::ether::Header::new(packet.data()).zip(self.snapshot.port(packet.port()));
        whole
            && stations.is_some_and(|(header, port)| {
                let (to, from) = (header.dst(), header.src());
                !to.is_multicast() && to != port.mac && from != port.mac
            })
    }
}

/// Whether a packet is still to be charged by its service's meters.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Toll {
    Due,
    Paid,
}

/// Whose MAC address a frame has as its destination.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Addressee {
    /// Ours, or a group's that we belong to.
    Us,
    /// Another station's, on a port that is a bump in the wire. A backend behind it sends its replies to
    /// its own gateway: those of `nat` connections are ours to translate, the rest is passed on.
    Other,
}

/// Frames from ourselves, from another VLAN, or (unless the port is a bump in the wire) for others are
/// not looked at further.
fn check_link(frame: &[u8], parsed: &Parsed, port: &Port) -> Result<Addressee, DropReason> {
    let (Some(dst), Some(src)) = (frame.get(0..6), frame.get(6..12)) else {
        return Err(DropReason::EthernetTruncated);
    };
    if parsed.vlan != port.vlan {
        return Err(DropReason::VlanMismatch);
    }
    if src == port.mac.0 {
        return Err(DropReason::OwnFrame);
    }
    if dst == port.mac.0 {
        return Ok(Addressee::Us);
    }
    // Only what may legitimately be sent to a group reaches the punt; TCP and UDP never do.
    let to_group = dst.first().is_some_and(|first| first & 1 != 0);
    match (to_group, parsed.kind) {
        (true, Kind::Arp | Kind::Icmpv6) => Ok(Addressee::Us),
        (false, _) if port.pass_to.is_some() => Ok(Addressee::Other),
        _ => Err(DropReason::NotOurMac),
    }
}
