//! All workers together: which cores, from the first packet to the last.

use crate::Failure;
use crate::clock::Clock;
use crate::manager::WorkerHandle;
use crate::panics;
use crate::ports::{OpenPort, Pool};
use crate::runtime::env::{Outlet, Outside};
use crate::runtime::idle::Rest;
use crate::runtime::mailbox::Mailbox;
use crate::runtime::offload_rings::OffloadRings;
use crate::runtime::probe_rings::ProbeRings;
use crate::runtime::rings::Rings;
use crate::runtime::worker::Thread;
use crate::verdicts::Verdicts;
use arrayvec::ArrayVec;
use core_affinity::CoreId;
use dataplane::config::{Config, Workers};
use dataplane::counters::WorkerCounters;
use dataplane::ids::WorkerId;
use dataplane::limits::{BACKEND_SLOTS_MAX, DEVICES_MAX, RULE_NUMBERS_MAX, SERVICES_MAX, TENANTS_MAX};
use dataplane::owner::Owners;
use dataplane::packet::Burst;
use dataplane::snapshot::Snapshot;
use dataplane::worker::{Sizes, Worker, WorkerSetup};
use dpdk::{Eal, Mbuf, RxQueue};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, mpsc};

/// Why workers could not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CrewError {
    /// A core that this process may not use.
    #[error("[workers] cores: core {core} is not available to this process; available are {available:?}")]
    NoSuchCore {
        /// The core asked for.
        core: u16,
        /// The cores there are.
        available: Vec<usize>,
    },
    /// The thread could not be bound to its core.
    #[error("worker {worker}: pinning to core {core} failed")]
    Pin {
        /// The worker.
        worker: usize,
        /// Its core.
        core: usize,
    },
    /// The thread could not become one of DPDK's.
    #[error("worker {worker}: {source}")]
    Register {
        /// The worker.
        worker: usize,
        /// Why.
        source: dpdk::EalError,
    },
    /// A queue of a port could not be taken.
    #[error("worker {worker}: {source}")]
    Queue {
        /// The worker.
        worker: usize,
        /// Why.
        source: dpdk::QueueError,
    },
    /// The thread could not be started.
    #[error("worker {worker}: {source}")]
    Spawn {
        /// The worker.
        worker: usize,
        /// Why.
        source: std::io::Error,
    },
    /// There is no randomness to seed hash tables with.
    #[error("seeding the connection tables: {0}")]
    Seed(getrandom::Error),
}

/// The cores this process may use, once those for the workers are known to be among them.
pub(crate) fn cores(workers: &Workers) -> Result<Vec<usize>, CrewError> {
    let available: Vec<usize> =
        core_affinity::get_core_ids().unwrap_or_default().iter().map(|core| core.id).collect();
    match workers.cores.iter().find(|core| !available.contains(&usize::from(**core))) {
        Some(&core) => Err(CrewError::NoSuchCore { core, available }),
        None => Ok(available),
    }
}

/// The workers before they start: what they share with the manager.
pub(crate) struct Crew {
    members: Vec<Member>,
    sizes: Sizes,
    idle: Rest,
    hand_off_ring: usize,
    /// Whether hardware is to drop what many denied packets are of.
    tells_denied: bool,
    verdicts: Arc<Verdicts>,
}

struct Member {
    core: usize,
    mailbox: Arc<Mailbox>,
    counters: Arc<WorkerCounters>,
}

/// What all workers work with.
pub(crate) struct Equipment<'a> {
    pub(crate) eal: &'a Eal,
    pub(crate) clock: Clock,
    pub(crate) owners: &'a Owners,
    pub(crate) ports: &'a [OpenPort<'a>],
    pub(crate) pools: &'a [Pool<'a>],
    pub(crate) snapshot: Arc<Snapshot>,
    /// The way to the offload thread, if there is one.
    pub(crate) offload: Option<Arc<OffloadRings>>,
    /// The way to the health checker.
    pub(crate) probes: Arc<ProbeRings>,
}

impl Crew {
    /// A crew as configured.
    pub(crate) fn new(config: &Config, snapshot: &Snapshot) -> Crew {
        let counters = || {
            let counters = WorkerCounters::new(SERVICES_MAX, BACKEND_SLOTS_MAX);
            counters.with_rules(RULE_NUMBERS_MAX).with_tenants(TENANTS_MAX)
        };
        let member = |core: &u16| Member {
            core: usize::from(*core),
            mailbox: Arc::new(Mailbox::new(snapshot.generation)),
            counters: Arc::new(counters()),
        };
        Crew {
            members: config.workers.cores.iter().map(member).collect(),
            sizes: Sizes::of(&config.limits),
            idle: Rest::new(config.workers.idle),
            hand_off_ring: config.workers.hand_off_ring as usize,
            tells_denied: config.offload.deny_rules > 0,
            verdicts: Arc::new(Verdicts::new()),
        }
    }

    /// The manager's side of each worker.
    pub(crate) fn handles(&self) -> Vec<WorkerHandle> {
        let handle = |member: &Member| WorkerHandle {
            core: member.core,
            mailbox: Arc::clone(&member.mailbox),
            counters: Arc::clone(&member.counters),
            capacity: self.sizes.connections.connections.into(),
            neighbours_max: self.sizes.neighbours.neighbours_max,
        };
        self.members.iter().map(handle).collect()
    }

    /// What each worker counts.
    pub(crate) fn counters(&self) -> Vec<Arc<WorkerCounters>> {
        self.members.iter().map(|member| Arc::clone(&member.counters)).collect()
    }

    /// Verdicts of all workers that are to be logged.
    pub(crate) fn verdicts(&self) -> Arc<Verdicts> {
        Arc::clone(&self.verdicts)
    }

    /// Starts the workers, calls `meanwhile`, and stops them when it returns. Afterwards every packet is
    /// accounted for and every queue has been given back.
    pub(crate) fn run(
        &self,
        equipment: &Equipment<'_>,
        meanwhile: impl FnOnce() -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let rings = Rings::new(self.members.len(), self.hand_off_ring);
        let stop = AtomicBool::new(false);
        let seed = random_seed()?;
        let result = std::thread::scope(|scope| {
            let (ready, started) = mpsc::channel();
            for index in 0..self.members.len() {
                let (report, rings, stop) = (ready.clone(), &rings, &stop);
                let work = move || match self.prepare(index, equipment, rings, seed) {
                    Ok(thread) => {
                        let _ = report.send(Ok(()));
                        drop(report);
                        thread.run(stop);
                    }
                    Err(error) => drop(report.send(Err(error))),
                };
                let builder = std::thread::Builder::new().name(format!("worker-{index}"));
                if let Err(source) = builder.spawn_scoped(scope, work) {
                    let _ = ready.send(Err(CrewError::Spawn { worker: index, source }));
                }
            }
            drop(ready);
            let started: Result<(), CrewError> = started.iter().collect();
            let result = started.map_err(Failure::from).and_then(|()| meanwhile());
            stop.store(true, Relaxed);
            result
        });
        for (index, member) in self.members.iter().enumerate() {
            rings.discard(WorkerId(index as u16), &member.counters);
        }
        result
    }

    /// On the worker's own thread: pins it, makes it known to DPDK, takes its queues, allocates its tables
    /// (here, so that their memory is near).
    fn prepare<'a>(
        &self,
        index: usize,
        equipment: &'a Equipment<'a>,
        rings: &'a Rings<Mbuf>,
        seed: [u64; 4],
    ) -> Result<Thread<'a>, CrewError> {
        panics::vital();
        let Member { core, mailbox, counters } = &self.members[index];
        if !core_affinity::set_for_current(CoreId { id: *core }) {
            return Err(CrewError::Pin { worker: index, core: *core });
        }
        let register = |source| CrewError::Register { worker: index, source };
        let registration = equipment.eal.register_thread().map_err(register)?;
        let id = WorkerId(index as u16);
        let queue = |source| CrewError::Queue { worker: index, source };
        let (rx, outlets) = queues(id, equipment).map_err(queue)?;
        let setup = WorkerSetup { id, owners: equipment.owners.clone(), seed, sizes: self.sizes };
        let now = equipment.clock.tick(dpdk::clock::rdtsc());
        let snapshot = Arc::clone(&equipment.snapshot);
        let parents = snapshot.ports.iter().filter_map(|port| port.parent).collect();
        let offload = equipment.offload.as_ref().and_then(|rings| rings.worker(id));
        let mut worker = Worker::new(now, &setup, snapshot, Arc::clone(counters));
        if offload.is_some() {
            worker.expect_hardware();
        }
        if offload.is_some() && self.tells_denied {
            worker.expect_denials(now);
        }
        Ok(Thread {
            id,
            clock: equipment.clock,
            rest: self.idle,
            counters: Arc::clone(counters),
            mailbox: Arc::clone(mailbox),
            rings,
            rx,
            outside: Outside {
                id,
                counters: Arc::clone(counters),
                outlets,
                parents,
                rings,
                offload,
                verdicts: self.verdicts(),
                probes: &equipment.probes,
                clock: equipment.clock,
                cycles: 0,
            },
            probes: &equipment.probes,
            offload,
            worker,
            page: None,
            excerpt: None,
            tape: None,
            _registration: registration,
        })
    }
}

type Queues<'a> = (ArrayVec<RxQueue<'a>, DEVICES_MAX>, ArrayVec<Outlet<'a>, DEVICES_MAX>);

/// A worker's queues on every port. A port may have fewer receive queues than there are workers.
fn queues<'a>(id: WorkerId, equipment: &'a Equipment<'a>) -> Result<Queues<'a>, dpdk::QueueError> {
    let (mut rx, mut outlets) = (ArrayVec::new(), ArrayVec::new());
    for port in equipment.ports {
        if id.0 < port.rx_queues {
            rx.push(port.port.rx_queue(id.0)?);
        }
        let pool = &equipment.pools[port.pool].mempool;
        outlets.push(Outlet { queue: port.port.tx_queue(id.0)?, waiting: Burst::new(), pool });
    }
    Ok((rx, outlets))
}

fn random_seed() -> Result<[u64; 4], CrewError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(CrewError::Seed)?;
    let mut words = bytes.chunks_exact(8);
    Ok(std::array::from_fn(|_| {
        words.next().map_or(0, |word| word.iter().fold(0, |n, b| n << 8 | u64::from(*b)))
    }))
}
