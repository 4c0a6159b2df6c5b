//! A little world around the walk: ports that collect what is sent, hosts that answer ARP and ND, and
//! workers that hand packets to each other. One thread, virtual time. Every call into the walk is watched
//! for allocations, and the conservation of packets is checked whenever things have settled.

mod shadowed;

use super::alloc::forbidden;
use dataplane::addr::{Ip, MacAddr};
use dataplane::config::Config;
use dataplane::conntrack::ConnectionRow;
use dataplane::counters::WorkerCounters;
use dataplane::ids::{BackendId, PortId, WorkerId};
use dataplane::limits;
use dataplane::neighbour::NeighbourUpdate;
use dataplane::offload::{Answer, Ask, Denied, Revoke};
use dataplane::owner::{DEFAULT_KEY, Owners};
use dataplane::packet::{Burst, PacketBuf, TestPacket};
use dataplane::policy::{LogEvent, Source};
use dataplane::snapshot::{Overrides, PortFacts, Snapshot};
use dataplane::time::Tick;
use dataplane::worker::{Env, Note, Sizes, Worker, WorkerSetup};
use std::collections::VecDeque;
use std::sync::Arc;

pub(crate) const FRONT: PortId = PortId(0);
pub(crate) const BACK: PortId = PortId(1);
/// MAC addresses of Millrace's ports.
pub(crate) const PORT_MACS: [MacAddr; 2] = [MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2])];

/// What a worker sees of the world during one call.
pub(crate) struct TestEnv {
    pub(crate) counters: Arc<WorkerCounters>,
    pub(crate) sent: Vec<(PortId, TestPacket)>,
    pub(crate) handed: Vec<(WorkerId, TestPacket)>,
    pub(crate) announced: Vec<NeighbourUpdate>,
    /// What hardware was asked to take, and told to give back.
    pub(crate) asks: Vec<Ask>,
    pub(crate) revokes: Vec<Revoke>,
    /// and would better drop.
    pub(crate) denied: Vec<Denied>,
    /// What the walk said of each packet.
    pub(crate) notes: Vec<Note>,
    /// Verdicts to be logged.
    pub(crate) logged: Vec<LogEvent>,
    /// Refuse both, as full rings do.
    pub(crate) asks_full: bool,
    pub(crate) revokes_full: bool,
    /// Refuse hand-offs, as a full ring does.
    pub(crate) ring_full: bool,
    /// Answers to probes; and refuse them, as a full ring does.
    pub(crate) delivered: Vec<Vec<u8>>,
    pub(crate) checker_busy: bool,
    /// Which probe the last answer was said to be about: from which port, and to whom.
    pub(crate) asked: Option<(u16, Ip)>,
    /// Where their bytes go, as the walk must not allocate.
    answers: Vec<Vec<u8>>,
    /// Refuse allocations, as an empty pool does.
    pub(crate) pool_empty: bool,
    /// Buffers for packets of Millrace's own, made outside the walk, which must not allocate.
    pool: Vec<TestPacket>,
}

impl TestEnv {
    fn new(counters: &Arc<WorkerCounters>) -> TestEnv {
        TestEnv {
            counters: Arc::clone(counters),
            sent: Vec::with_capacity(256),
            handed: Vec::with_capacity(256),
            announced: Vec::with_capacity(256),
            asks: Vec::new(),
            revokes: Vec::new(),
            denied: Vec::new(),
            notes: Vec::new(),
            logged: Vec::new(),
            asks_full: false,
            revokes_full: false,
            ring_full: false,
            delivered: Vec::new(),
            checker_busy: false,
            asked: None,
            answers: Vec::new(),
            pool_empty: false,
            pool: Vec::new(),
        }
    }

    /// Makes room, so that nothing that one call of the walk does needs an allocation.
    pub(crate) fn prepare(&mut self) {
        self.pool.resize_with(128, || TestPacket::new(PortId(0), &[]));
        self.sent.reserve(512);
        self.handed.reserve(512);
        self.announced.reserve(512);
        self.answers.resize_with(128, || Vec::with_capacity(2048));
        self.delivered.reserve(512);
        self.asks.reserve(512);
        self.revokes.reserve(512);
        self.denied.reserve(512);
        self.notes.reserve(4096);
        self.logged.reserve(512);
    }
}

impl Env for TestEnv {
    type Buf = TestPacket;

    fn alloc(&mut self, port: PortId) -> Option<TestPacket> {
        let mut packet = if self.pool_empty { None } else { self.pool.pop() }?;
        packet.port = port;
        Some(packet)
    }

    fn send(&mut self, port: PortId, packet: TestPacket) {
        self.counters.sent.add(1);
        self.sent.push((port, packet));
    }

    fn hand_off(&mut self, to: WorkerId, packet: TestPacket) -> Result<(), TestPacket> {
        if self.ring_full {
            return Err(packet);
        }
        self.handed.push((to, packet));
        Ok(())
    }

    fn announce(&mut self, update: &NeighbourUpdate) {
        self.announced.push(*update);
    }

    fn ask(&mut self, ask: &Ask) -> bool {
        if !self.asks_full {
            self.asks.push(*ask);
        }
        !self.asks_full
    }

    fn revoke(&mut self, revoke: &Revoke) -> bool {
        if !self.revokes_full {
            self.revokes.push(*revoke);
        }
        !self.revokes_full
    }

    fn denied(&mut self, denied: &Denied) -> bool {
        self.denied.push(*denied);
        true
    }

    fn note(&mut self, note: Note) {
        self.notes.push(note);
    }

    fn log(&mut self, event: &LogEvent) -> bool {
        self.logged.push(*event);
        true
    }

    fn deliver_local(&mut self, from: u16, to: Ip, packet: &[u8]) -> bool {
        self.asked = Some((from, to));
        let room = if self.checker_busy { None } else { self.answers.pop() };
        let Some(mut bytes) = room else { return false };
        bytes.extend_from_slice(packet);
        self.delivered.push(bytes);
        true
    }
}

/// Millrace with some workers, and everything it has sent so far.
pub(crate) struct World {
    pub(crate) now: Tick,
    pub(crate) workers: Vec<Worker<TestPacket>>,
    pub(crate) envs: Vec<TestEnv>,
    pub(crate) snapshot: Arc<Snapshot>,
    /// Of so many packets that come alone, one's fate is told by a shadow beforehand.
    pub(crate) foretell_every: u64,
    /// Packets that came alone, and those whose fate was told.
    alone: u64,
    pub(crate) foretold: u64,
    owners: Owners,
    config: Config,
    overrides: Overrides,
    /// Instead of the configuration's.
    policy: Option<Source>,
}

impl World {
    /// Starts Millrace from configuration text.
    pub(crate) fn new(config: &str, workers: usize) -> World {
        let config = parse(config);
        let snapshot = Arc::new(build(&config, &Overrides::default(), None, &|_| 0));
        let owners = Owners::new(&DEFAULT_KEY, workers as u16, 128).expect("a worker");
        let mut world = World {
            now: Tick(1_000),
            workers: Vec::new(),
            envs: Vec::new(),
            snapshot,
            foretell_every: 5,
            alone: 0,
            foretold: 0,
            owners,
            config,
            overrides: Overrides::default(),
            policy: None,
        };
        for id in 0..workers {
            let counters = WorkerCounters::new(limits::SERVICES_MAX.min(64), limits::BACKENDS_MAX.min(256))
                .with_rules(64)
                .with_tenants(4);
            let counters = Arc::new(counters);
            let setup = WorkerSetup {
                id: WorkerId(id as u16),
                owners: world.owners.clone(),
                seed: [1, 2, 3, 4],
                sizes: Sizes::of(&world.config.limits),
            };
            world.workers.push(Worker::new(
                world.now,
                &setup,
                Arc::clone(&world.snapshot),
                Arc::clone(&counters),
            ));
            world.envs.push(TestEnv::new(&counters));
        }
        world
    }

    /// Changes the configuration, as a reload does.
    pub(crate) fn reload(&mut self, config: &str) {
        self.reload_with(config, &Overrides::default());
    }

    /// Changes the configuration and what was said beside it.
    pub(crate) fn reload_with(&mut self, config: &str, overrides: &Overrides) {
        self.config = parse(config);
        self.overrides = overrides.clone();
        self.adopt_all();
    }

    /// Changes the policy, as a reload does.
    pub(crate) fn govern(&mut self, policy: Source) {
        self.publish(policy);
        self.adopt_all();
    }

    /// Changes the policy, and leaves it to [`World::adopt`] who takes it up when.
    pub(crate) fn publish(&mut self, policy: Source) {
        self.policy = Some(policy);
        self.rebuild();
    }

    fn adopt_all(&mut self) {
        self.rebuild();
        (0..self.workers.len()).for_each(|worker| self.adopt(worker));
        self.settle();
        self.take_sent();
    }

    /// A worker takes up what was published.
    pub(crate) fn adopt(&mut self, worker: usize) {
        let (worker, env) = (&mut self.workers[worker], &mut self.envs[worker]);
        worker.adopt(self.now, Arc::clone(&self.snapshot), env);
    }

    fn rebuild(&mut self) {
        if let Some(policy) = &self.policy {
            self.config.policy = policy.clone();
        }
        let envs = &self.envs;
        let live = |id: BackendId| {
            envs.iter().filter_map(|env| env.counters.backend(id)).map(|backend| backend.live.get()).sum()
        };
        self.snapshot = Arc::new(build(&self.config, &self.overrides, Some(&self.snapshot), &live));
    }

    /// Lets a worker receive frames in one burst, then lets everything settle; returns what was sent.
    pub(crate) fn receive_on(
        &mut self,
        worker: usize,
        port: PortId,
        frames: &[Vec<u8>],
    ) -> Vec<(PortId, Vec<u8>)> {
        self.envs.iter_mut().for_each(|env| env.notes.clear());
        for chunk in frames.chunks(32) {
            let mut burst: Burst<TestPacket> =
                chunk.iter().map(|frame| TestPacket::new(port, frame)).collect();
            let (worker, env) = (&mut self.workers[worker], &mut self.envs[worker]);
            env.prepare();
            let by = (&self.snapshot, &self.owners, &self.config.limits);
            self.alone += u64::from(chunk.len() == 1);
            // A shadow goes by what was published last.
            let adopted = worker.generation() == self.snapshot.generation;
            let foretold = match chunk {
                // A shadow is charged for nothing, so it does not know whom meters stop.
                [frame]
                    if adopted && self.alone % self.foretell_every == 0 && !self.snapshot.has_meters() =>
                {
                    shadowed::foretell((worker, env), by, (self.now, port, frame))
                }
                _ => None,
            };
            forbidden(|| worker.on_burst(self.now, &mut burst, env));
            assert!(burst.is_empty());
            if let Some(foretold) = foretold {
                self.foretold += 1;
                foretold.comes_true(self.now, worker, env);
            }
        }
        self.settle();
        self.take_sent()
    }

    /// One frame into worker 0.
    pub(crate) fn receive(&mut self, port: PortId, frame: &[u8]) -> Vec<(PortId, Vec<u8>)> {
        self.receive_on(0, port, &[frame.to_vec()])
    }

    /// One frame in, exactly one out.
    pub(crate) fn exchange(&mut self, port: PortId, frame: &[u8]) -> (PortId, Vec<u8>) {
        let mut sent = self.receive(port, frame);
        assert_eq!(sent.len(), 1, "expected one frame out, got {sent:02x?}");
        sent.remove(0)
    }

    /// Time passes in steps of `step_ms`, with upkeep after each.
    pub(crate) fn pass_ms(&mut self, ms: u32, step_ms: u32) -> Vec<(PortId, Vec<u8>)> {
        for _ in 0..ms.div_ceil(step_ms) {
            self.now = self.now.after_ms(step_ms);
            self.settle();
        }
        self.take_sent()
    }

    /// Delivers hand-offs and announcements and runs upkeep until nothing moves.
    pub(crate) fn settle(&mut self) {
        for _ in 0..4 {
            let mut handed = VecDeque::new();
            let mut announced = Vec::new();
            for (id, (worker, env)) in self.workers.iter_mut().zip(&mut self.envs).enumerate() {
                env.prepare();
                forbidden(|| worker.on_tick(self.now, env));
                handed.extend(env.handed.drain(..));
                announced.extend(env.announced.drain(..).map(|update| (id, update)));
            }
            while let Some((to, packet)) = handed.pop_front() {
                let mut burst: Burst<TestPacket> = [packet].into_iter().collect();
                let (worker, env) = (&mut self.workers[to.index()], &mut self.envs[to.index()]);
                env.prepare();
                forbidden(|| worker.on_handed_off(self.now, &mut burst, env));
            }
            for (from, update) in announced {
                for (id, (worker, env)) in self.workers.iter_mut().zip(&mut self.envs).enumerate() {
                    if id != from {
                        env.prepare();
                        forbidden(|| worker.learn(self.now, &update, env));
                    }
                }
            }
        }
        self.assert_conserved();
    }

    fn take_sent(&mut self) -> Vec<(PortId, Vec<u8>)> {
        let sent = self.envs.iter_mut().flat_map(|env| env.sent.drain(..));
        sent.map(|(port, packet)| (port, packet.data().to_vec())).collect()
    }

    /// Millrace stops: what it held is dropped and counted.
    pub(crate) fn shut_down(&mut self) {
        self.workers.iter_mut().for_each(Worker::shutdown);
        self.assert_conserved();
        assert!(self.envs.iter().all(|env| env.counters.held.get() == 0));
    }

    /// Worker 0 hears from the offload engine.
    pub(crate) fn answer(&mut self, answer: &Answer) {
        let (worker, env) = (&mut self.workers[0], &mut self.envs[0]);
        env.prepare();
        forbidden(|| worker.on_answer(self.now, answer, env));
    }

    /// Worker 0's connections.
    pub(crate) fn rows(&self) -> Vec<ConnectionRow> {
        let mut rows = Vec::with_capacity(self.workers[0].table_size().0);
        self.workers[0].dump_connections(self.now, &mut Some(0), usize::MAX, &mut rows);
        rows
    }

    /// Connections that are counted as a backend's.
    pub(crate) fn live(&self, id: u16) -> u64 {
        let backends = self.envs.iter().filter_map(|env| env.counters.backend(BackendId(id)));
        backends.map(|backend| backend.live.get()).sum()
    }

    /// `received + handed in + generated = sent + consumed + dropped + handed out + held`, per worker.
    pub(crate) fn assert_conserved(&self) {
        for (id, env) in self.envs.iter().enumerate() {
            assert_eq!(env.counters.imbalance(), 0, "worker {id}: {:#?}", self.report());
        }
    }

    /// The counters that are not zero, summed over workers: `name=value`, for whole-state assertions.
    pub(crate) fn report(&self) -> Vec<String> {
        let sum = |get: fn(&WorkerCounters) -> u64| self.envs.iter().map(|env| get(&env.counters)).sum();
        let plain: [(&str, u64); 11] = [
            ("received", sum(|c| c.received.get())),
            ("sent", sum(|c| c.sent.get())),
            ("generated", sum(|c| c.generated.get())),
            ("consumed", sum(|c| c.consumed.get())),
            ("handed", sum(|c| c.handed_out.get())),
            ("held", sum(|c| c.held.get())),
            ("entries", sum(|c| c.entries.get())),
            ("half_open", sum(|c| c.half_open.get())),
            ("expired", sum(|c| c.expired.get())),
            ("evicted_half_open", sum(|c| c.evicted_half_open.get())),
            ("evicted_idle", sum(|c| c.evicted_idle.get())),
        ];
        let plain = plain.into_iter().map(|(name, value)| (name.to_owned(), value));
        let drops = dataplane::drops::DropReason::ALL.iter().map(|reason| {
            let count = self.envs.iter().map(|env| env.counters.dropped[*reason as usize].get()).sum();
            (format!("drop.{}", reason.label()), count)
        });
        plain.chain(drops).filter(|(_, n)| *n != 0).map(|(name, n)| format!("{name}={n}")).collect()
    }

    /// Makes a host known to all workers, as if it had been asked for.
    pub(crate) fn know(&mut self, port: PortId, ip: &str, mac: MacAddr) {
        let ip: Ip = ip.parse::<std::net::IpAddr>().expect("test address").into();
        let update = NeighbourUpdate { port, ip, mac, solicited: true, overrides: true };
        for (worker, env) in self.workers.iter_mut().zip(&mut self.envs) {
            worker.introduce(self.now, &update, env);
        }
    }
}

fn parse(config: &str) -> Config {
    Config::parse("test.toml", config).unwrap_or_else(|faults| panic!("{faults}"))
}

fn build(
    config: &Config,
    overrides: &Overrides,
    previous: Option<&Snapshot>,
    live: &dyn Fn(BackendId) -> u64,
) -> Snapshot {
    let fact = |(index, port): (usize, &dataplane::config::Port)| {
        let mac = PORT_MACS[config.device_port(port).map_or(index, PortId::index)];
        PortFacts { mac, mtu: port.mtu.unwrap_or(1500) }
    };
    let facts: Vec<PortFacts> = config.ports.iter().enumerate().map(fact).collect();
    Snapshot::build(config, &facts, overrides, previous, live).expect("test configuration builds")
}
