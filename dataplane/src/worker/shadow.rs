//! A worker that stands in for another: what would become of a packet, and why, without sending it.
//!
//! The worker hands out an [`Excerpt`] of its state: whatever the verdict on packets between two addresses
//! can depend on. Whoever has it makes a [`Shadow`] of it, on a thread of their own, and lets the walk, the
//! same code, forward a packet there. What the walk comes to depend on has to go into the excerpt, or the
//! shadow's verdicts are not the worker's: tests hold each packet's against it. What it does not have:
//! fragments that were seen before.

use super::capture::Captured;
use super::meter::Accounts;
use super::{
    Env, Note, Rates, Sizes, State, Steering, Worker, WorkerSetup, offload, policy, tunnel_port, upkeep,
};
use crate::addr::Ip;
use crate::capture::Choice;
use crate::conntrack::{ConnectionCopy, ConnectionRow, Shape, Shut, Slot, Table};
use crate::counters::WorkerCounters;
use crate::flow::FlowHasher;
use crate::fragments::{FragmentLimits, Fragments};
use crate::ids::{PortId, TenantId, WorkerId};
use crate::neighbour::{NeighbourCopy, NeighbourUpdate, Neighbours};
use crate::offload::{Ask, FlowRef, Revoke};
use crate::owner::Owners;
use crate::packet::{Burst, PacketBuf, TestPacket};
use crate::snapshot::Snapshot;
use crate::time::Tick;
use std::sync::Arc;

/// Connections that a shadow may open.
const CONNECTIONS_SPARE: u32 = 64;

/// What a worker's verdict on packets between two addresses depends on, besides the snapshot.
///
/// Made by whoever asks, filled by the worker, which allocates nothing.
pub struct Excerpt {
    tenant: TenantId,
    /// Whose connections, as a client.
    ends: [Ip; 2],
    cursor: Option<u32>,
    connections: Vec<ConnectionCopy>,
    neighbours: Vec<NeighbourCopy>,
    rest: Option<Rest>,
}

/// What there is one of.
struct Rest {
    now: Tick,
    generation: u64,
    worker: WorkerId,
    shut: Option<Shut>,
    rates: Rates,
    price: u32,
    fenced: bool,
    token: u32,
    captured: Option<Arc<Choice>>,
    datagrams: u64,
}

impl Excerpt {
    /// Of the connections that one of these is the client of. Room for so many, and for so many neighbours.
    #[must_use]
    pub fn new(tenant: TenantId, ends: [Ip; 2], connections: usize, neighbours: usize) -> Excerpt {
        Excerpt {
            tenant,
            ends,
            cursor: Some(0),
            connections: Vec::with_capacity(connections),
            neighbours: Vec::with_capacity(neighbours),
            rest: None,
        }
    }

    /// Whether the worker has nothing more to add.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.rest.is_some()
    }

    /// The generation of the snapshot that the worker forwarded by; 0 before it is complete.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.rest.as_ref().map_or(0, |rest| rest.generation)
    }

    /// When it was completed, by the worker's clock; `None` if it was not.
    #[must_use]
    pub fn taken_at(&self) -> Option<Tick> {
        self.rest.as_ref().map(|rest| rest.now)
    }
}

impl<B: PacketBuf> Worker<B> {
    /// Adds to an excerpt what is found in so many slots of the table. To be called until it is complete.
    pub fn excerpt(&self, now: Tick, excerpt: &mut Excerpt, slots: usize) {
        let state = &self.state;
        let Excerpt { tenant, ends, cursor, connections, neighbours, rest } = excerpt;
        state.table.copy_clients(*tenant, ends, cursor, slots, connections);
        if cursor.is_some() || rest.is_some() {
            return;
        }
        let room = neighbours.capacity() - neighbours.len();
        neighbours.extend(state.neighbours.copies().take(room));
        *rest = Some(Rest {
            now,
            generation: self.snapshot.generation,
            worker: state.id,
            shut: state.table.shut(now, *tenant),
            rates: state.rates,
            price: state.offload.price,
            fenced: state.offload.fenced,
            token: state.offload.token,
            captured: state.captured.choice.clone(),
            datagrams: state.datagrams,
        });
    }
}

/// See the module's header.
pub struct Shadow {
    worker: Worker<TestPacket>,
    now: Tick,
    /// The worker's names of connections, by the shadow's slots.
    names: Vec<(Slot, FlowRef)>,
}

/// What became of packets, and why.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Walked {
    /// All that the walk said.
    pub notes: Vec<Note>,
    /// Frames that left, in order, and by which port.
    pub sent: Vec<(PortId, Vec<u8>)>,
    /// Workers that packets were handed to.
    pub handed: Vec<WorkerId>,
    /// What hardware was asked to take,
    pub asks: Vec<Ask>,
    /// and told to give back.
    pub revokes: Vec<Revoke>,
}

impl Shadow {
    /// A shadow of the worker that filled `excerpt`, which forwards by `snapshot`. Without a complete
    /// excerpt: of a worker that has just started.
    #[must_use]
    pub fn new(snapshot: Arc<Snapshot>, owners: Owners, sizes: &Sizes, excerpt: &Excerpt) -> Shadow {
        let (services, backends) = (snapshot.services.len(), snapshot.backends.len());
        let rules = snapshot.policy().rules().len();
        let counters = Arc::new(WorkerCounters::new(services, backends).with_rules(rules));
        let now = excerpt.taken_at().unwrap_or_default();
        let id = excerpt.rest.as_ref().map_or(WorkerId(0), |rest| rest.worker);
        let sizes = Sizes { connections: shape(&sizes.connections, excerpt), ..*sizes };
        let fragments = FragmentLimits { decisions_max: 16, ..sizes.fragments };
        let setup = WorkerSetup { id, owners, seed: [0; 4], sizes: Sizes { fragments, ..sizes } };
        let Some(rest) = &excerpt.rest else {
            let mut worker = Worker::new(now, &setup, snapshot, counters);
            worker.state.accounts = Accounts::none(now);
            return Shadow { worker, now, names: Vec::new() };
        };
        let hasher = FlowHasher::seeded(setup.seed);
        let mut state = State {
            id,
            steering: if setup.owners.is_single() { Steering::Here } else { Steering::ByOwner },
            owners: setup.owners,
            counters,
            table: Table::new(id, sizes.connections, hasher, now),
            neighbours: Neighbours::new(&sizes.neighbours, hasher),
            fragments: Fragments::new(&fragments, hasher),
            accounts: Accounts::none(now),
            rates: rest.rates,
            upkeep: upkeep::Cursors::new(id),
            offload: offload::Bargain::new(now),
            captured: Captured::default(),
            judging: policy::Judging::new(),
            hitters: None,
            aside: tunnel_port::Aside::new(),
            datagrams: rest.datagrams,
        };
        (state.offload.price, state.offload.token) = (rest.price, rest.token);
        state.offload.fenced = rest.fenced;
        state.captured.choice = rest.captured.clone();
        let table = &mut state.table;
        let take = |copy: &ConnectionCopy| Some((table.imitate(copy)?, copy.flow));
        let names = excerpt.connections.iter().filter_map(take).collect();
        if let Some(shut) = rest.shut {
            state.table.set_shut(shut);
        }
        for neighbour in &excerpt.neighbours {
            state.neighbours.imitate(neighbour, || TestPacket::new(PortId(0), &[]));
        }
        Shadow { worker: Worker { snapshot, state }, now, names }
    }

    /// What would become of frames received by a port in one burst.
    pub fn receive<'f>(&mut self, port: PortId, frames: impl IntoIterator<Item = &'f [u8]>) -> Walked {
        let mut burst: Burst<TestPacket> = Burst::new();
        let packets = frames.into_iter().map(|frame| TestPacket::new(port, frame));
        packets.take(burst.capacity()).for_each(|packet| burst.push(packet));
        let mut listener = Listener { walked: Walked::default() };
        self.worker.on_burst(self.now, &mut burst, &mut listener);
        let mut walked = listener.walked;
        let names = &self.names;
        let real = |flow: FlowRef| {
            names.iter().find(|(slot, _)| slot.number() == flow.slot).map_or(flow, |(_, real)| *real)
        };
        walked.asks.iter_mut().for_each(|ask| ask.flow = real(ask.flow));
        walked.revokes.iter_mut().for_each(|revoke| revoke.flow = real(revoke.flow));
        walked
    }

    /// The connection in a slot that the walk has named, under its real name if it has one.
    #[must_use]
    pub fn connection(&self, slot: Slot) -> Option<ConnectionRow> {
        let row = self.worker.state.table.row(slot, self.now)?;
        let name = self.names.iter().find(|(at, _)| *at == slot).map(|(_, flow)| *flow);
        Some(ConnectionRow { flow: name.unwrap_or(row.flow), ..row })
    }

    /// Packets that a connection must have carried for hardware to be asked; `u32::MAX` is never.
    #[must_use]
    pub fn price(&self) -> u32 {
        self.worker.state.offload.price
    }

    /// What the shadow has counted.
    #[must_use]
    pub fn counters(&self) -> &WorkerCounters {
        &self.worker.state.counters
    }
}

/// Room for what is copied, and some more.
fn shape(real: &Shape, excerpt: &Excerpt) -> Shape {
    let connections = excerpt.connections.len() as u32 + CONNECTIONS_SPARE;
    Shape { connections, half_open_max: connections, ..*real }
}

/// The world outside of a shadow: everything is taken, and written down.
struct Listener {
    walked: Walked,
}

impl Env for Listener {
    type Buf = TestPacket;

    fn alloc(&mut self, port: PortId) -> Option<TestPacket> {
        Some(TestPacket::new(port, &[]))
    }

    fn send(&mut self, port: PortId, packet: TestPacket) {
        self.walked.sent.push((port, packet.data().to_vec()));
    }

    fn hand_off(&mut self, to: WorkerId, _packet: TestPacket) -> Result<(), TestPacket> {
        self.walked.handed.push(to);
        Ok(())
    }

    fn announce(&mut self, _update: &NeighbourUpdate) {}

    fn ask(&mut self, ask: &Ask) -> bool {
        self.walked.asks.push(*ask);
        true
    }

    fn revoke(&mut self, revoke: &Revoke) -> bool {
        self.walked.revokes.push(*revoke);
        true
    }

    fn note(&mut self, note: Note) {
        self.walked.notes.push(note);
    }
}
