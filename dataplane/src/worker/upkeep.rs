//! Between bursts: ageing, neighbour upkeep, announcements, a new snapshot, and what `show` asks for.
//! Every call does a bounded amount of work.

use super::local;
use super::offload::revoke_gone;
use super::partition::Told;
use super::transit::WIRE;
use super::tunnel_port::{Aside, send_or_set_aside};
use super::{Env, State, Walk, Worker};
use crate::addr::{Ip, MacAddr};
use crate::conntrack::{ConnectionRow, Slot};
use crate::counters::WorkerCounters;
use crate::drops::DropReason;
use crate::ids::{PortId, WorkerId};
use crate::neighbour::{Action, LearnOutcome, NeighbourUpdate, NeighbourView};
use crate::offload::Revocation;
use crate::packet::PacketBuf;
use crate::rewrite::{self, Station};
use crate::snapshot::{Hop, Snapshot};
use crate::time::Tick;
use arrayvec::ArrayVec;
use std::sync::Arc;

/// Connections looked at per call of the ageing wheel: more than a burst can open, and about as much work as
/// one, as those of a quarter of a second fall due together.
const EXPIRE_BUDGET: usize = 64;
/// Slots looked at per call while the connections of removed backends are taken out,
const SWEEP_BUDGET: u32 = 256;
/// and connections taken out: about as much work as a burst.
const SWEEP_ENDS_MAX: u32 = 32;
/// Time that ends of connections that are to be reset have to send a packet and get a RST for it.
pub(super) const SWEEP_AFTER_MS: u32 = 5_000;
/// When to look again for those that hardware had not let go of.
const SWEEP_AGAIN_MS: u32 = 1_000;
/// Neighbours looked at per call.
const NEIGHBOUR_BUDGET: usize = 64;
/// Next hops of a new snapshot that are made known per call.
const MEET_BUDGET: usize = 32;
/// Addresses announced per call.
const ANNOUNCE_BUDGET: usize = 8;

/// The worker that announces addresses: one is enough.
pub(super) const ANNOUNCER: WorkerId = WorkerId(0);

/// How far the long jobs have come.
#[derive(Debug)]
pub(super) struct Cursors {
    /// Next address to announce by gratuitous ARP or unsolicited NA; `None` when all have been.
    announce: Option<usize>,
    /// Next hop of the snapshot to make known; `None` when all have been.
    meet: Option<usize>,
    /// The sweep for connections of removed backends, if there is one.
    sweep: Option<Sweep>,
    /// Whom hardware has been told of.
    pub(super) told: Told,
    /// The tenant counted last.
    pub(super) tenant: usize,
}

/// Connections of backends removed with policy `reset` are reset at their next packet; those that stay
/// silent for [`SWEEP_AFTER_MS`] are swept out.
#[derive(Clone, Copy, Debug)]
struct Sweep {
    begins: Tick,
    /// The next slot to look at.
    next: u32,
    /// Whether another one has to follow: hardware may still forward for a connection that was looked at, or
    /// more backends were removed since.
    again: bool,
}

impl Sweep {
    fn new(begins: Tick) -> Sweep {
        Sweep { begins, next: 0, again: false }
    }
}

impl Cursors {
    /// At start every address is announced: neighbours that knew an earlier owner of a VIP update their
    /// caches.
    pub(super) fn new(worker: WorkerId) -> Cursors {
        Cursors {
            announce: (worker == ANNOUNCER).then_some(0),
            meet: None,
            sweep: None,
            told: Told::default(),
            tenant: 0,
        }
    }
}

impl<B: PacketBuf> Worker<B> {
    /// Bounded upkeep; call it once per turn of the worker's loop.
    pub fn on_tick<E: Env<Buf = B>>(&mut self, now: Tick, env: &mut E) {
        let mut walk = self.walk(now, env);
        walk.expire();
        walk.sweep();
        walk.sweep_policy();
        walk.sweep_captured();
        walk.review_offload();
        walk.meet();
        walk.tell_reached();
        walk.tend_neighbours();
        walk.tend_fragments();
        walk.announce_addresses();
        self.state.count_held();
        self.state.count_tenants(self.snapshot.tenants.len());
        self.state.count_offload();
    }

    /// Learns what another worker was told about a neighbour.
    pub fn learn<E: Env<Buf = B>>(&mut self, now: Tick, update: &NeighbourUpdate, env: &mut E) {
        self.walk(now, env).learn(update, false);
        self.state.count_held();
    }

    /// Takes in a neighbour that is known from elsewhere, as if it had answered.
    pub fn introduce<E: Env<Buf = B>>(&mut self, now: Tick, update: &NeighbourUpdate, env: &mut E) {
        self.walk(now, env).learn(update, true);
        self.state.count_held();
    }

    /// Changes to another snapshot; gives the old one back, to be freed elsewhere. Takes no longer than a
    /// burst, unless static neighbours change: what has to be done for each backend or connection is left to
    /// [`Worker::on_tick`].
    pub fn adopt<E: Env<Buf = B>>(
        &mut self,
        now: Tick,
        snapshot: Arc<Snapshot>,
        env: &mut E,
    ) -> Arc<Snapshot> {
        if snapshot.static_neighbours != self.snapshot.static_neighbours {
            let counters = Arc::clone(&self.state.counters);
            let mut aside = std::mem::take(&mut self.state.aside);
            self.state.set_statics(now, &snapshot, |port, mut packet, mac| {
                rewrite::set_destination(packet.data_mut(), mac);
                send_or_set_aside(env, (&snapshot, &counters), &mut aside, (port, packet));
            });
            self.state.aside = aside;
        }
        if snapshot.tenants != self.snapshot.tenants {
            self.state.share_out(&snapshot.tenants);
        }
        self.state.meet_policy(self.snapshot.policy(), snapshot.policy());
        self.state.upkeep.meet = Some(0);
        if snapshot.resets() {
            match &mut self.state.upkeep.sweep {
                // Put off by every change, it would never begin where they are frequent.
                Some(sweep) => sweep.again = true,
                none => *none = Some(Sweep::new(now.after_ms(SWEEP_AFTER_MS))),
            }
        }
        if self.state.id == ANNOUNCER && snapshot.announced() != self.snapshot.announced() {
            self.state.upkeep.announce = Some(0);
        }
        let old = std::mem::replace(&mut self.snapshot, snapshot);
        self.walk(now, env).put_in_aside();
        old
    }

    /// The generation of the snapshot this worker forwards by.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.snapshot.generation
    }

    /// Copies connections into `rows` until its capacity or `slots` slots are used up; `cursor` goes from
    /// 0 to `None` at the end of the table.
    pub fn dump_connections(
        &self,
        now: Tick,
        cursor: &mut Option<u32>,
        slots: usize,
        rows: &mut Vec<ConnectionRow>,
    ) {
        self.state.table.dump(now, cursor, slots, rows);
    }

    /// Copies the neighbour table into `rows`, up to its capacity.
    pub fn dump_neighbours(&self, rows: &mut Vec<NeighbourView>) {
        let room = rows.capacity() - rows.len();
        rows.extend(self.state.neighbours.iter().take(room));
    }

    /// Connections the table can hold, and the bytes it takes.
    #[must_use]
    pub fn table_size(&self) -> (usize, usize) {
        (self.state.table.capacity(), self.state.table.memory_bytes())
    }

    /// The end: packets still held are dropped and counted.
    pub fn shutdown(&mut self) {
        let (snapshot, counters) = (&self.snapshot, &self.state.counters);
        let dropped = |packet: B| {
            count_drop(snapshot, counters, &packet, DropReason::Shutdown);
            drop(packet);
        };
        self.state.neighbours.drain(dropped);
        self.state.fragments.drain(dropped);
        self.state.count_held();
    }
}

impl<B: PacketBuf> State<B> {
    /// Gauges that follow from the tables.
    pub(super) fn count_held(&self) {
        let WorkerCounters { held, entries, half_open, .. } = &*self.counters;
        held.set((self.neighbours.held() + self.fragments.held()) as u64);
        entries.set(self.table.len() as u64);
        half_open.set(self.table.half_open() as u64);
    }

    pub(super) fn count_offload(&self) {
        let counters = &self.counters;
        let [_, requested, installed, removing, declined] = self.table.by_offload().map(u64::from);
        counters.offload_requested.set(requested);
        counters.offload_installed.set(installed);
        counters.offload_removing.set(removing);
        counters.offload_declined_now.set(declined);
    }

    /// Makes a snapshot's static neighbours known; those that find no room are asked for like others.
    pub(super) fn set_statics(
        &mut self,
        now: Tick,
        snapshot: &Snapshot,
        released: impl FnMut(PortId, B, MacAddr),
    ) {
        let _ = self.neighbours.set_statics(now, &snapshot.static_neighbours, released);
    }

    /// Makes gateways and backends known, which are asked for before the first packet needs them.
    pub(super) fn meet(&mut self, now: Tick, hops: &[Hop]) {
        for hop in hops {
            // A full table is no reason to fail: the first packet asks again, and counts what happens.
            let _ = self.neighbours.id_of(now, hop.port, hop.next_hop);
        }
    }
}

impl<E: Env> Walk<'_, E> {
    /// Connections whose time is up.
    fn expire(&mut self) {
        let (snapshot, counters, env) = (self.snapshot, &self.state.counters, &mut *self.env);
        let mut held = ArrayVec::<Slot, EXPIRE_BUDGET>::new();
        self.state.table.expire(
            self.now,
            EXPIRE_BUDGET,
            |service, state| snapshot.timeouts(service).timeout_ms(state),
            |gone| {
                counters.expired.add(1);
                snapshot.connection_closed(gone.service);
                if let Some(backend) = counters.backend(gone.backend) {
                    backend.live.sub(1);
                    backend.unanswered.add(u64::from(local::went_unanswered(snapshot, &gone)));
                }
                revoke_gone(env, counters, &gone);
            },
            |slot| _ = held.try_push(slot),
        );
        for slot in held {
            self.take_back(slot, Revocation::Gone);
        }
    }

    /// Connections that a removed backend has left behind leave the table; their clients' next segment
    /// finds no entry and is reset by whichever backend it is scheduled to. Those that hardware may still
    /// forward for stay until it has let go of them.
    fn sweep(&mut self) {
        let Some(mut sweep) = self.state.upkeep.sweep else { return };
        if !self.now.reached(sweep.begins) {
            return;
        }
        let slots = self.state.table.slots() as u32;
        let mut end = slots.min(sweep.next + SWEEP_BUDGET);
        let mut ended = 0;
        for number in sweep.next..end {
            if ended == SWEEP_ENDS_MAX {
                end = number;
                break;
            }
            let Some((slot, backend)) = self.state.table.backend_at(number) else { continue };
            if backend == WIRE || self.snapshot.keeps_connections(backend) {
                continue;
            }
            ended += 1;
            if self.state.table.entry(slot).is_pending() {
                self.take_back(slot, Revocation::Policy);
                sweep.again = true;
            } else {
                self.end(slot);
            }
        }
        sweep.next = end;
        self.state.upkeep.sweep = match () {
            () if end < slots => Some(sweep),
            () if sweep.again => Some(Sweep::new(self.now.after_ms(SWEEP_AGAIN_MS))),
            () => None,
        };
    }

    /// The next few next hops of a new snapshot.
    fn meet(&mut self) {
        let Some(start) = self.state.upkeep.meet else { return };
        let hops = self.snapshot.next_hops();
        let end = hops.len().min(start + MEET_BUDGET);
        self.state.meet(self.now, hops.get(start..end).unwrap_or_default());
        self.state.upkeep.meet = (end < hops.len()).then_some(end);
    }

    /// Solicitations that are due, and packets that waited in vain.
    fn tend_neighbours(&mut self) {
        let Walk { now, snapshot, state: State { neighbours, counters, aside, .. }, env, .. } = self;
        neighbours.tick(*now, NEIGHBOUR_BUDGET, |action| match action {
            Action::Solicit { port, ip, unicast_to } => {
                let Some(from) = station(snapshot, port, ip) else { return };
                // Without a buffer this question goes unasked; the next one follows.
                originate_link(*env, (snapshot, counters), aside, port, |packet| {
                    if ip.is_v4() {
                        rewrite::write_arp_request(packet, &from, ip, unicast_to)
                    } else {
                        rewrite::write_neighbour_solicitation(packet, &from, ip, unicast_to)
                    }
                });
            }
            Action::Expired(packet) => {
                count_drop(snapshot, counters, &packet, DropReason::NeighbourUnreachable);
                drop(packet);
            }
        });
        self.put_in_aside();
    }

    fn tend_fragments(&mut self) {
        let (State { fragments, counters, .. }, snapshot) = (&mut *self.state, self.snapshot);
        fragments.expire(self.now, |packet| {
            count_drop(snapshot, counters, &packet, DropReason::FragmentUnknown);
            drop(packet);
        });
    }

    /// Gratuitous ARP and unsolicited NA for our addresses and VIPs.
    fn announce_addresses(&mut self) {
        let Some(start) = self.state.upkeep.announce else { return };
        let mut next = None;
        for (index, &(port_id, ip)) in self.snapshot.announced().iter().enumerate().skip(start) {
            if index >= start + ANNOUNCE_BUDGET {
                next = Some(index);
                break;
            }
            let Some(port) = self.snapshot.port(port_id) else { continue };
            let from = Station { mac: port.mac, ip, vlan: port.vlan };
            let State { counters, aside, .. } = &mut *self.state;
            let announced = originate_link(self.env, (self.snapshot, counters), aside, port_id, |packet| {
                if ip.is_v4() {
                    rewrite::write_gratuitous_arp(packet, &from)
                } else {
                    rewrite::write_unsolicited_advertisement(packet, &from)
                }
            });
            if !announced {
                next = Some(index);
                break;
            }
        }
        self.state.upkeep.announce = next;
        self.put_in_aside();
    }

    /// Takes in a neighbour's address; packets that waited for it leave. `create` when the neighbour
    /// spoke to us first, which proves that it is there and that we shall answer it.
    pub(super) fn learn(&mut self, update: &NeighbourUpdate, create: bool) -> LearnOutcome {
        let Walk { now, snapshot, state: State { neighbours, counters, aside, .. }, env, .. } = self;
        let outcome = neighbours.learn(*now, update, create, |mut packet, mac| {
            rewrite::set_destination(packet.data_mut(), mac);
            send_or_set_aside(*env, (snapshot, counters), aside, (update.port, packet));
        });
        self.put_in_aside();
        outcome
    }
}

/// Counts the end of a packet, for the tenant on whose port it came, too.
pub(super) fn count_drop(
    snapshot: &Snapshot,
    counters: &WorkerCounters,
    packet: &impl PacketBuf,
    reason: DropReason,
) {
    let tenant = snapshot.port(packet.port()).map(|port| port.tenant);
    counters.drop_packet_of(tenant.unwrap_or_default(), reason);
}

/// Who we are when we ask for `ip` on a port.
fn station(snapshot: &Snapshot, port_id: PortId, ip: Ip) -> Option<Station> {
    let port = snapshot.port(port_id)?;
    Some(Station { mac: port.mac, ip: snapshot.source_for(port_id, ip)?, vlan: port.vlan })
}

/// Sends a frame of our own, link header included; `false` if there was no free buffer for it.
fn originate_link<E: Env>(
    env: &mut E,
    (snapshot, counters): (&Snapshot, &WorkerCounters),
    aside: &mut Aside<E::Buf>,
    port: PortId,
    write: impl FnOnce(&mut E::Buf) -> Result<(), DropReason>,
) -> bool {
    let Some(mut packet) = env.alloc(port) else { return false };
    counters.generated.add(1);
    match write(&mut packet) {
        Ok(()) => send_or_set_aside(env, (snapshot, counters), aside, (port, packet)),
        Err(reason) => counters.drop_packet(reason),
    }
    true
}
