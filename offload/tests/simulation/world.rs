//! The world: Millrace with all its workers, the wires, and everybody at their ends, under one clock.

use crate::canary::Canary;
use crate::env::{FaultCounts, SimEnv};
use crate::frames::{self, Segment};
use crate::hosts::{Client, Ends, ServerKey, Stations};
use crate::nic::{Fate, Nic};
use crate::oracle;
use crate::oracle::{Leaving, Mismatch, Oracle, Via, View};
use crate::packet::{Origin, Pool, SimPacket, Way};
use crate::policy::{self, Denied, Policies};
use crate::rng::Rng;
use crate::scenario::{MS, Scenario, ServicePlan, port_mac};
use crate::trace::{Checker, Trace};
use dataplane::config::Config;
use dataplane::conntrack::ConnectionRow;
use dataplane::counters::{Counter, WorkerCounters};
use dataplane::ids::{BackendId, PortId, ServiceId, WorkerId};
use dataplane::neighbour::NeighbourUpdate;
use dataplane::offload::Answer;
use dataplane::owner::{DEFAULT_KEY, Owners};
use dataplane::packet::{BURST, Burst, PacketBuf};
use dataplane::snapshot::{Overrides, PortFacts, Snapshot};
use dataplane::time::Tick;
use dataplane::worker::{Sizes, Worker, WorkerSetup};
use eswitch::model::switch::DropReason;
use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

/// Worker time at the beginning of a run: before it wraps.
const TICK_OFFSET: u32 = u32::MAX - 4_000;
/// Services and backends that counters have room for.
const COUNTED: (usize, usize) = (16, 128);

/// Something that is due at some time.
#[derive(Debug)]
pub(crate) enum Item {
    /// A frame reaches one of Millrace's ports.
    Arrive(Rc<Origin>),
    /// A frame that Millrace sent reaches a link.
    Land(usize, Vec<u8>, Option<u32>),
    /// A backend's answer reaches a client without Millrace.
    Direct(Segment),
    /// A client, or a server, wanted to be woken.
    Client(u32),
    Server(ServerKey),
    /// A connection begins; a spoofed SYN is sent; the operator does something; a station speaks up.
    Open,
    Flood,
    Operate,
    Govern,
    Gratuitous(usize),
    /// The device's faults begin; it breaks down.
    DeviceFaults,
    BreakDown,
}

/// Where the run is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Phase {
    /// Connections, faults, operator.
    Load,
    /// Connections only.
    Calm,
    /// No new ones.
    Drain,
    /// Nobody speaks any more.
    Quiet,
}

/// One worker and what only it touches.
pub(crate) struct Seat {
    pub(crate) worker: Worker<SimPacket>,
    pub(crate) env: SimEnv,
    pub(crate) rx: VecDeque<SimPacket>,
    pub(crate) handed: VecDeque<SimPacket>,
    pub(crate) learnt: VecDeque<NeighbourUpdate>,
    /// The snapshot it has not taken up yet.
    pub(crate) next: Option<Arc<Snapshot>>,
    /// The number of the policy that it goes by.
    pub(crate) policy: usize,
}

/// What the audits of the calm have found so far.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    /// Connections that could be in hardware and are not asked for: since when, and their packets then.
    pub(crate) overlooked: BTreeMap<(u16, u32, u32), (u64, u64)>,
    /// Since when the device and the machine do not have the same rules.
    pub(crate) rules_differ: Option<u64>,
}

/// The world.
pub(crate) struct World {
    pub(crate) scenario: Scenario,
    /// As the operator wants them now.
    pub(crate) services: Vec<ServicePlan>,
    pub(crate) stations: Stations,
    pub(crate) ends: Ends,
    pub(crate) oracle: Oracle,
    pub(crate) trace: Trace,
    pub(crate) rng: Rng,
    pub(crate) now: u64,
    pub(crate) phase: Phase,
    pub(crate) seats: Vec<Seat>,
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) pool: Rc<Pool>,
    pub(crate) nic: Option<Nic>,
    pub(crate) canary: Option<Canary>,
    pub(crate) audit: Audit,
    pub(crate) policies: Policies,
    pub(crate) happened: FaultCounts,
    /// Packets that came in by ports; of these those given to workers, those that rules forwarded, and
    /// those that the device dropped.
    pub(crate) arrived: u64,
    pub(crate) delivered: u64,
    pub(crate) crossed: u64,
    pub(crate) discarded: u64,
    pub(crate) malformed: bool,
    items: BTreeMap<(u64, u64), Item>,
    next_item: u64,
    next_packet: u64,
}

impl World {
    pub(crate) fn new(scenario: Scenario, canary: Option<Canary>) -> World {
        let mut rng = Rng::new(scenario.seed ^ 0xabcd);
        let services = scenario.services.clone();
        let pool = Pool::new(scenario.pool);
        let config = parse(&scenario.config(&services));
        let snapshot = Arc::new(build(&scenario, &config, &services, None, &|_| 0));
        let owners = Owners::new(&DEFAULT_KEY, scenario.workers as u16, 128).expect("there is a worker");
        let seats = (0..scenario.workers)
            .map(|id| seat(&scenario, id, &owners, &config, &snapshot, &pool, &mut rng))
            .collect();
        let nic = scenario.engine.then(|| Nic::new(&scenario, Arc::clone(&snapshot), canary));
        let mut world = World {
            nic,
            canary,
            audit: Audit::default(),
            policies: Policies::new(),
            stations: Stations::of(&scenario),
            services,
            ends: Ends::default(),
            oracle: Oracle::default(),
            trace: Trace::new(),
            rng,
            now: 0,
            phase: Phase::Load,
            seats,
            snapshot,
            pool,
            happened: FaultCounts::default(),
            arrived: 0,
            delivered: 0,
            crossed: 0,
            discarded: 0,
            malformed: scenario.malformed_percent > 0,
            items: BTreeMap::new(),
            next_item: 0,
            next_packet: 0,
            scenario,
        };
        world.seats.iter_mut().for_each(|seat| seat.env.canary = canary);
        world.learn_ids();
        world.later(5 * MS, Item::Open);
        if let Some(gap) = world.scenario.flood_ns {
            world.later(gap, Item::Flood);
        }
        if let Some(gap) = world.scenario.operator_ns {
            world.later(gap, Item::Operate);
        }
        if let Some(gap) = world.scenario.policy_ns {
            world.later(gap, Item::Govern);
        }
        world.later(200 * MS, Item::DeviceFaults);
        for _ in 0..world.scenario.faults.breakdowns {
            let at = world.rng.between(300 * MS, world.scenario.load_ns);
            world.later(at, Item::BreakDown);
        }
        world
    }

    pub(crate) fn tick(&self) -> Tick {
        Tick(TICK_OFFSET.wrapping_add((self.now / MS) as u32))
    }

    /// So many nanoseconds from now.
    pub(crate) fn later(&mut self, ns: u64, item: Item) {
        self.next_item += 1;
        self.items.insert((self.now + ns, self.next_item), item);
    }

    /// The numbers that the snapshot gave to places of services.
    fn learn_ids(&mut self) {
        for backend in self.snapshot.backends.iter().flatten() {
            let Some(service) = self.snapshot.service(backend.service) else { continue };
            let Some(number) = self.services.iter().position(|plan| plan.name == service.name) else {
                continue;
            };
            let same = |b: &crate::scenario::BackendPlan| b.ip == backend.address && b.port == backend.port;
            if let Some(place) = self.services[number].backends.iter().position(same) {
                self.oracle.ids.insert((number, place), backend.id);
            }
        }
    }

    /// The operator wants something else: a new snapshot, which workers take up one after the other.
    pub(crate) fn reconfigure(&mut self, services: Vec<ServicePlan>) -> bool {
        self.reconfigure_with(services, None)
    }

    /// The same with another policy, if there is one.
    pub(crate) fn reconfigure_with(&mut self, services: Vec<ServicePlan>, denied: Option<Denied>) -> bool {
        let busy = self.nic.as_ref().is_some_and(|nic| nic.next.is_some());
        if busy || self.seats.iter().any(|seat| seat.next.is_some()) {
            return false;
        }
        let denied = denied.unwrap_or_else(|| self.policies.now().clone());
        let heard = self.canary != Some(Canary::IgnoresPolicy);
        let rules = if heard { policy::rules(&denied) } else { String::new() };
        let config = parse(&(self.scenario.config(&services) + &rules));
        let live = |id: BackendId| self.sum_backend(id, |backend| &backend.live);
        let snapshot = build(&self.scenario, &config, &services, Some(&self.snapshot), &live);
        self.snapshot = Arc::new(snapshot);
        self.services = services;
        self.policies.publish(self.now, denied);
        for seat in &mut self.seats {
            seat.next = Some(Arc::clone(&self.snapshot));
        }
        if let Some(nic) = &mut self.nic {
            nic.next = Some(Arc::clone(&self.snapshot));
        }
        self.learn_ids();
        true
    }

    /// A counter, summed over workers.
    pub(crate) fn sum(&self, get: impl Fn(&WorkerCounters) -> &Counter) -> u64 {
        self.seats.iter().map(|seat| get(&seat.env.counters).get()).sum()
    }

    /// The same of a backend's.
    pub(crate) fn sum_backend(
        &self,
        id: BackendId,
        get: impl Fn(&dataplane::counters::BackendCounters) -> &Counter,
    ) -> u64 {
        self.seats.iter().filter_map(|seat| Some(get(seat.env.counters.backend(id)?).get())).sum()
    }

    /// One step: time passes, what is due happens, everybody has a turn in some order.
    pub(crate) fn step(&mut self) {
        let reach = if self.phase == Phase::Quiet { 25 * MS } else { self.rng.between(MS / 10, 3 * MS) };
        let next = self.items.first_key_value().map_or(u64::MAX, |((at, _), _)| *at);
        let least = self.rng.between(10_000, 100_000);
        self.now += next.saturating_sub(self.now).clamp(least, reach.max(least));
        self.trace.set_now(self.now);
        if let Some(nic) = &mut self.nic {
            nic.device.engine.set_now(self.now);
            nic.listen(self.now);
        }
        while let Some(entry) = self.items.first_entry() {
            if entry.key().0 > self.now {
                break;
            }
            let item = entry.remove();
            self.happen(item);
        }
        let mut order: Vec<usize> = (0..=self.seats.len()).collect();
        self.rng.shuffle(&mut order);
        for seat in order {
            match self.rng.percent(95) {
                true if seat == self.seats.len() => self.offload_turn(),
                true => self.turn(seat),
                false => {}
            }
        }
        self.settle_drops();
        self.check_step();
    }

    /// A turn of the offload thread.
    fn offload_turn(&mut self) {
        let Some(nic) = &mut self.nic else { return };
        if self.canary == Some(Canary::Stops) && self.now > 1_000 * MS {
            return;
        }
        if self.phase == Phase::Load && self.rng.chance(self.scenario.faults.stalls) {
            nic.busy_until = self.now + self.rng.between(10, 800) * MS;
        }
        let mut answers = Vec::new();
        let wanted = nic.next.is_some();
        nic.turn(self.now, &mut self.rng, &mut self.seats, &mut answers);
        if wanted && nic.next.is_none() {
            self.policies.take_up(nic.turns);
        }
        for answer in answers {
            let flow = answer.flow();
            let what = match answer {
                Answer::Installed { .. } => "installed: worker, slot, generation",
                Answer::Declined { .. } => "declined: worker, slot, generation",
                Answer::Counted { counts: [a, b], .. } if a.packets + b.packets == 0 => continue,
                Answer::Counted { .. } => "counted: worker, slot, generation",
                Answer::Removed { .. } => "removed: worker, slot, generation",
            };
            let name = [u64::from(flow.worker.0), u64::from(flow.slot), u64::from(flow.generation)];
            self.trace.note(what, name);
        }
    }

    /// A turn of a worker's loop.
    fn turn(&mut self, number: usize) {
        let tick = self.tick();
        let ring = self.scenario.rx_queue;
        let room = self.seats.iter().map(|seat| ring.saturating_sub(seat.handed.len())).collect();
        let seat = &mut self.seats[number];
        seat.env.hand_off_room = room;
        if seat.next.is_some() && self.rng.percent(30) {
            let next = seat.next.take().expect("there is one");
            seat.worker.adopt(tick, next, &mut seat.env);
            seat.policy = self.policies.latest();
        }
        while let Some(update) = seat.learnt.pop_front() {
            seat.worker.learn(tick, &update, &mut seat.env);
        }
        if let Some(nic) = &self.nic {
            seat.worker.set_price(nic.machine.price());
            hear_answers(seat, tick, self.canary);
        }
        if !seat.rx.is_empty() {
            let many = seat.rx.len().min(BURST);
            let mut burst: Burst<SimPacket> = seat.rx.drain(..many).collect();
            burst.iter().for_each(|packet| packet.taken_under(seat.policy));
            seat.worker.on_burst(tick, &mut burst, &mut seat.env);
        }
        if !seat.handed.is_empty() {
            let many = seat.handed.len().min(BURST);
            let mut burst: Burst<SimPacket> = seat.handed.drain(..many).collect();
            burst.iter().for_each(|packet| packet.taken_under(seat.policy));
            seat.worker.on_handed_off(tick, &mut burst, &mut seat.env);
        }
        seat.worker.on_tick(tick, &mut seat.env);
        self.after_turn(number);
    }

    /// What a worker did leaves it.
    fn after_turn(&mut self, number: usize) {
        let handed = std::mem::take(&mut self.seats[number].env.handed);
        for (to, packet) in handed {
            self.seats[to.index()].handed.push_back(packet);
        }
        let announced = std::mem::take(&mut self.seats[number].env.announced);
        for update in announced {
            for (other, seat) in self.seats.iter_mut().enumerate() {
                if other != number {
                    seat.learnt.push_back(update);
                }
            }
        }
        let sent = std::mem::take(&mut self.seats[number].env.sent);
        for (port, packet) in sent {
            self.emit(port.index(), packet, Via::Software);
        }
    }

    /// A frame comes in by a port, unless the wire loses it.
    pub(crate) fn arrive(&mut self, conn: Option<u32>, way: Way, mutated: bool, port: usize, frame: Vec<u8>) {
        if let Some(conn) = conn.filter(|_| way == Way::There) {
            self.ends.conns[conn as usize].sent += 1;
        }
        if self.loses() {
            return;
        }
        self.next_packet += 1;
        let port_id = PortId(port as u16);
        let origin = Origin {
            id: self.next_packet,
            conn,
            way,
            mutated,
            port: port_id,
            frame,
            taken_under: Cell::new(0),
        };
        let latency = self.scenario.latency_ns[port];
        self.later(latency, Item::Arrive(Rc::new(origin)));
    }

    fn loses(&mut self) -> bool {
        let lost = self.phase == Phase::Load && self.rng.chance(self.scenario.faults.wire_lost);
        self.happened.wire_lost += u64::from(lost);
        lost
    }

    /// A frame has come in: a rule, or a worker, takes it.
    pub(crate) fn receive(&mut self, origin: Rc<Origin>) {
        self.arrived += 1;
        let fate = self.nic.as_mut().map(|nic| nic.forward(&self.scenario, &origin));
        match fate {
            Some(Fate::Out(port, packet)) => {
                self.crossed += 1;
                self.emit(port, packet, Via::Hardware);
            }
            Some(Fate::Lost(reason)) => {
                self.discarded += 1;
                if reason == DropReason::Rule {
                    self.check_dropped(&origin);
                }
            }
            Some(Fate::Up(mut packet)) => {
                packet.take_origin();
                if packet.data() != origin.frame {
                    self.trace.fail(Checker::Agreement, || format!("a miss changed {:02x?}", origin.frame));
                }
                self.deliver(&origin);
            }
            None => self.deliver(&origin),
        }
    }

    /// To a worker's queue, chosen by the addresses: not always that of the client's owner.
    fn deliver(&mut self, origin: &Rc<Origin>) {
        let Some(mut packet) = SimPacket::arrived(&self.pool, Rc::clone(origin)) else {
            self.happened.rx_full += 1;
            return;
        };
        let frame = packet.data();
        let spread =
            frame.iter().skip(14).take(40).fold(0_u32, |sum, byte| sum * 31 % 65_521 + u32::from(*byte));
        let number = spread as usize % self.seats.len();
        let seat = &mut self.seats[number];
        if seat.rx.len() >= self.scenario.rx_queue {
            self.happened.rx_full += 1;
            packet.take_origin();
            return;
        }
        self.delivered += 1;
        seat.rx.push_back(packet);
        self.note_heavy(origin);
    }

    /// A packet leaves by a port: it is judged, and travels on.
    pub(crate) fn emit(&mut self, port: usize, mut packet: SimPacket, via: Via) {
        let origin = packet.take_origin();
        self.trace.mix_bytes(packet.data());
        self.trace.note(
            if via == Via::Software { "sent" } else { "forwarded by a rule" },
            [port as u64, origin.as_ref().map_or(0, |origin| origin.id), packet.data().len() as u64],
        );
        match &origin {
            None => self.oracle.own += 1,
            Some(origin) => {
                self.check_policy(origin, packet.data(), via);
                let view = View {
                    now: self.now,
                    scenario: &self.scenario,
                    services: &self.services,
                    stations: &self.stations,
                    silent_at: self.nic.as_ref().and_then(|nic| nic.silent_at),
                    policies: &self.policies,
                };
                let leaving = Leaving { origin, port, frame: packet.data(), via };
                let judged = self.oracle.judge(&view, &leaving, &mut self.ends.conns, &mut self.trace);
                if let Some(mismatch) = judged {
                    self.explain(mismatch);
                }
            }
        }
        if !self.loses() {
            let conn = origin.as_ref().and_then(|origin| origin.conn);
            let latency = self.scenario.latency_ns[port];
            self.later(latency, Item::Land(port, packet.data().to_vec(), conn));
        }
    }

    /// Whether a rule should have gone that was not wanted from `at` on.
    pub(crate) fn is_overdue(&self, at: u64) -> bool {
        let faultless = self.scenario.faults.are_none();
        let enforced = if faultless { oracle::ENFORCE_MAX_NS } else { oracle::ENFORCE_ANYWAY_NS };
        let silent_at = self.nic.as_ref().and_then(|nic| nic.silent_at);
        self.now > (at + enforced).max(silent_at.map_or(0, |at| at + oracle::FLUSHED_NS))
    }

    /// Why a connection's packets go to another backend now.
    fn explain(&mut self, mismatch: Mismatch) {
        let Mismatch { conn: id, from, to, via } = mismatch;
        let conn = &self.ends.conns[id as usize];
        let tcp = self.services[conn.service].tcp;
        if self.ends.find(conn.client, tcp) != Some(id) || conn.is_ended() {
            return; // The client has forgotten it, or only resets what still comes.
        }
        if matches!(&conn.side, Client::Tcp(tcp) if tcp.begins_anew()) {
            let conn = &mut self.ends.conns[id as usize];
            (conn.owner, conn.owned_since, conn.reset) = (Some(to), self.now, false);
            return;
        }
        let gone = !self.services[conn.service].backends[from].configured;
        let pushed_out = via == Via::Hardware && self.is_pushed_out(conn.client, conn.vip);
        let held_ms = (self.now - conn.owned_since) / MS;
        let (client, vip) = (conn.client, conn.vip);
        let row = self.row_of(client, vip);
        let forgotten = row.as_ref().is_none_or(|row| u64::from(row.age_ms) + 2 < held_ms);
        let denied = self.policies.was_denied(conn.client.0);
        let ended = (conn.reset || denied) && forgotten && via == Via::Software;
        let pcc = &mut self.oracle.pcc;
        let counted = match () {
            () if gone => &mut pcc.backend_gone,
            () if pushed_out => &mut pcc.evicted,
            () if ended => &mut pcc.reset,
            () if via == Via::Hardware => &mut pcc.stale_rule,
            () if forgotten => &mut pcc.evicted,
            () => &mut pcc.unknown,
        };
        *counted += 1;
        self.trace.note("connection, backend, another", [u64::from(id), from as u64, to as u64]);
        let pressed = self.may_forget();
        if !gone && !pushed_out && !ended && (via == Via::Hardware || !forgotten || !pressed) {
            self.trace.fail(Checker::Affinity, || {
                format!("{client:?} to {vip:?} moved from backend {from} to {to} by {via:?}: {row:?}")
            });
        }
        let conn = &mut self.ends.conns[id as usize];
        (conn.owner, conn.owned_since, conn.excused) = (Some(to), self.now, true);
        conn.reset = false;
    }

    /// Connections that left a full table.
    fn evictions(&self) -> u64 {
        self.sum(|c| &c.evicted_idle) + self.sum(|c| &c.evicted_half_open)
    }

    /// Whether the rules between two ends are of a connection that a full table may have given up, though
    /// they were there. While they cannot be taken out, or nobody can be told to, the next one meets them.
    fn is_pushed_out(&self, client: frames::End, vip: frames::End) -> bool {
        let entries = self.rows();
        let rules = self.nic.iter().flat_map(Nic::rows).map(|row| row.ask);
        let mut rules =
            rules.filter(|ask| (ask.key.src, ask.key.src_port, ask.key.dst) == (client.0, client.1, vip.0));
        self.evictions() > 0 && rules.all(|ask| entries.iter().all(|entry| entry.flow != ask.flow))
    }

    /// Whether the table may have forgotten a connection that lives.
    fn may_forget(&self) -> bool {
        let evicted = self.evictions();
        let forgetful = self.scenario.faults.device.contains("lose_counters");
        forgetful
            || self.scenario.faults.breakdowns > 0
            || evicted > 0
            || self.malformed
            || !self.scenario.is_lossless()
            || self.happened.rx_full > 0
    }

    /// The entry of a connection.
    pub(crate) fn row_of(&self, client: frames::End, vip: frames::End) -> Option<ConnectionRow> {
        let rows = self.rows();
        rows.into_iter()
            .find(|row| (row.key.src, row.key.src_port) == client && (row.key.dst, row.key.dst_port) == vip)
    }

    /// All entries.
    pub(crate) fn rows(&self) -> Vec<ConnectionRow> {
        let mut rows = Vec::with_capacity(self.seats.len() * self.scenario.connections_max as usize * 2);
        for seat in &self.seats {
            let mut cursor = Some(0);
            while cursor.is_some() {
                seat.worker.dump_connections(self.tick(), &mut cursor, usize::MAX / 2, &mut rows);
            }
        }
        rows
    }

    /// Packets that somebody dropped are perhaps in the counters.
    fn settle_drops(&mut self) {
        for origin in self.pool.take_dropped() {
            self.oracle.dropped(&origin, &self.ends.conns);
        }
    }
}

/// A worker hears what the offload thread has to say to it.
fn hear_answers(seat: &mut Seat, tick: Tick, canary: Option<Canary>) {
    for _ in 0..64 {
        let Some(mut answer) = seat.env.answers.pop_front() else { return };
        if canary == Some(Canary::IgnoresGeneration) {
            let mut rows = Vec::with_capacity(4096);
            seat.worker.dump_connections(tick, &mut Some(0), usize::MAX / 2, &mut rows);
            let now_there = rows.iter().find(|row| row.flow.slot == answer.flow().slot);
            if let Some(row) = now_there {
                let (Answer::Installed { flow, .. }
                | Answer::Declined { flow, .. }
                | Answer::Counted { flow, .. }
                | Answer::Removed { flow, .. }) = &mut answer;
                *flow = row.flow;
            }
        }
        seat.worker.on_answer(tick, &answer, &mut seat.env);
    }
}

fn seat(
    scenario: &Scenario,
    id: usize,
    owners: &Owners,
    config: &Config,
    snapshot: &Arc<Snapshot>,
    pool: &Rc<Pool>,
    rng: &mut Rng,
) -> Seat {
    let counters = Arc::new(WorkerCounters::new(COUNTED.0, COUNTED.1));
    let mut sizes = Sizes::of(&config.limits);
    sizes.neighbours.reachable_ms = 4_000;
    sizes.neighbours.retry_ms = 300;
    sizes.neighbours.failed_hold_ms = 300;
    let seed = [rng.next(), rng.next(), rng.next(), rng.next()];
    let setup = WorkerSetup { id: WorkerId(id as u16), owners: owners.clone(), seed, sizes };
    let env = SimEnv {
        counters: Arc::clone(&counters),
        pool: Rc::clone(pool),
        rng: rng.fork(),
        faults: scenario.faults.clone(),
        happened: FaultCounts::default(),
        ring: scenario.ring,
        engine: scenario.engine,
        canary: None,
        sent: Vec::new(),
        handed: Vec::new(),
        hand_off_room: Vec::new(),
        announced: Vec::new(),
        asks: VecDeque::new(),
        revokes: VecDeque::new(),
        answers: VecDeque::new(),
    };
    Seat {
        worker: Worker::new(Tick(TICK_OFFSET), &setup, Arc::clone(snapshot), counters),
        env,
        rx: VecDeque::new(),
        handed: VecDeque::new(),
        learnt: VecDeque::new(),
        next: None,
        policy: 0,
    }
}

fn parse(config: &str) -> Config {
    Config::parse("simulation.toml", config).unwrap_or_else(|faults| panic!("{faults}\n{config}"))
}

fn build(
    scenario: &Scenario,
    config: &Config,
    services: &[ServicePlan],
    previous: Option<&Snapshot>,
    live: &dyn Fn(BackendId) -> u64,
) -> Snapshot {
    let facts: Vec<PortFacts> =
        (0..scenario.ports).map(|port| PortFacts { mac: port_mac(port), mtu: 1500 }).collect();
    let mut overrides = Overrides::default();
    for service in services {
        for backend in service.backends.iter().filter(|backend| backend.drained) {
            overrides.drained.insert((service.name.clone(), backend.ip, backend.port));
        }
    }
    let snapshot = Snapshot::build(config, &facts, &overrides, previous, live).expect("it can be built");
    assert!(snapshot.service(ServiceId(0)).is_some());
    snapshot
}
