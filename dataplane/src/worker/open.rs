//! First packets: whose they are, which backend takes them, and the entry that remembers it.

use super::egress::{Target, Translation};
use super::offload::revoke_gone;
use super::{Env, Headers, Lane, Note, Toll, Walk};
use crate::addr::Ip;
use crate::conntrack::{Gone, InsertError, New, Prepared, Slot, State};
use crate::counters::PccCause;
use crate::drops::DropReason;
use crate::flow::{Direction, FlowKey, Protocol};
use crate::ids::BackendId;
use crate::maglev;
use crate::offload::Revocation;
use crate::packet::{BURST, PacketBuf};
use crate::partition;
use crate::rewrite::{self, End};
use crate::snapshot::{Affinity, Backend, BackendState, Mode, Service};
use crate::wire::{Parsed, TcpFlags};
use arrayvec::ArrayVec;

/// Backends tried when the chosen one's reply tuple is in use by another connection of this client.
const PICKS_MAX: u64 = 8;

/// What a packet without an entry is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum First {
    /// It begins a connection: a SYN, or a datagram.
    Opens,
    /// It is from the middle of one that this worker does not know: another node's, or an earlier run's.
    PicksUp,
    /// A RST: passed to the backend it would have gone to, without an entry.
    Resets,
}

fn first(parsed: &Parsed) -> First {
    first_of(parsed.key.protocol, parsed.tcp_flags)
}

fn first_of(protocol: Protocol, flags: TcpFlags) -> First {
    match protocol {
        Protocol::Udp => First::Opens,
        Protocol::Tcp if flags.rst() => First::Resets,
        Protocol::Tcp if flags.syn() && !flags.ack() => First::Opens,
        Protocol::Tcp => First::PicksUp,
    }
}

/// The choices for a connection that a packet will open, and the lines that this takes asked for.
pub(super) struct Foreseen<'a> {
    service: &'a Service,
    backend: &'a Backend,
    prepared: Prepared,
}

/// Opening is foreseen for all newcomers of a burst before the first is opened: what they read of the table,
/// and the connections that they evict from it, is far away, and comes together rather than one by one.
impl<'a, E: Env> Walk<'a, E> {
    /// Foresees what packets without an entry, so many of these, will need.
    #[inline(never)] // Nearly all bursts have none.
    pub(super) fn foresee(
        &mut self,
        newcomers: usize,
        lanes: &mut [Lane],
        foreseen: &mut ArrayVec<Foreseen<'a>, BURST>,
    ) {
        // Most bursts are one tenant's, and nothing is lost but time where one is not.
        let tenant = lanes.iter().filter(|lane| lane.candidates.is_empty()).find_map(Lane::tenant);
        let tenant = tenant.unwrap_or_default();
        if self.state.table.refuses_newcomers(self.now, tenant).is_some() {
            return;
        }
        self.state.table.prefetch_oldest(tenant, newcomers);
        for lane in lanes.iter_mut().filter(|lane| lane.candidates.is_empty()) {
            let opening = match &lane.headers {
                Headers::V4(plain) => self.foresee_one(plain.key(), plain.tcp_flags, lane.hash),
                Headers::V6(plain) => self.foresee_one(plain.key(), plain.tcp_flags, lane.hash),
                Headers::Parsed(_) => None,
            };
            if let Some(opening) = opening {
                lane.foreseen = foreseen.len() as u8;
                foreseen.push(opening);
            }
        }
        self.state.table.prefetch_leaving(tenant, newcomers);
    }

    fn foresee_one(&mut self, key: FlowKey, flags: TcpFlags, hash: u64) -> Option<Foreseen<'a>> {
        let snapshot = self.snapshot;
        let service = self.classify(&key)?;
        if !service.affinity.keeps_connections() || first_of(key.protocol, flags) == First::Resets {
            return None;
        }
        let backend = snapshot.backend(service.pick(flow_hash(&key, service))?)?;
        let prepared =
            self.state.table.prepare(&newcomer(key, service, backend, flags, self.judged_by), hash);
        Some(Foreseen { service, backend, prepared })
    }
}

/// What a connection is opened with.
#[inline] // Asked for twice for each, and put together in place.
fn newcomer(key: FlowKey, service: &Service, backend: &Backend, flags: TcpFlags, judged: u8) -> New {
    // An entry has room for one family. The way of a packet that keeps its address is the backend's.
    let one_family = backend.address.is_v4() == key.dst.is_v4();
    New {
        key,
        service: service.id,
        backend: backend.id,
        backend_ip: if one_family { backend.address } else { key.dst },
        backend_port: backend.port.unwrap_or(key.dst_port),
        nat: service.mode == Mode::Nat,
        flags,
        judged,
    }
}

impl<'a, E: Env> Walk<'a, E> {
    /// A packet without an entry.
    pub(super) fn open(&mut self, packet: E::Buf, parsed: &Parsed, foreseen: Option<&Foreseen<'a>>) {
        let service = match foreseen {
            Some(foreseen) => Some(foreseen.service),
            None => self.classify(&parsed.key),
        };
        match service {
            Some(service) => {
                self.env.note(Note::Classified(service.id));
                self.open_from_client(packet, parsed, service, foreseen);
            }
            None => self.open_from_backend(packet, parsed),
        }
    }

    /// The service that a packet from a client is for.
    fn classify(&mut self, key: &FlowKey) -> Option<&'a Service> {
        let endpoint = (key.tenant, key.dst, key.protocol, key.dst_port);
        match self.last_service {
            Some((last, service)) if last == endpoint => Some(service),
            _ => {
                let snapshot = self.snapshot;
                let service = snapshot.classify(key.tenant, key.dst, key.protocol, key.dst_port)?;
                self.last_service = Some((endpoint, service));
                Some(service)
            }
        }
    }

    fn open_from_client(
        &mut self,
        packet: E::Buf,
        parsed: &Parsed,
        service: &Service,
        foreseen: Option<&Foreseen<'a>>,
    ) {
        if self.snapshot.probes_from(parsed.key.tenant, parsed.key.src) {
            // Its answers would be taken for those to probes, or the other way round.
            self.count_service_drop(service);
            return self.drop(packet, DropReason::SourceAddressInvalid);
        }
        let port = packet.port();
        let Some(packet) = self.admit(packet, parsed, &parsed.key) else {
            self.note_refused(port, &parsed.key);
            return self.count_service_drop(service);
        };
        let Some(packet) = self.metered(packet, parsed, service.id) else { return };
        if !service.affinity.keeps_connections() {
            return self.forward_datagram(packet, parsed, service);
        }
        match first(parsed) {
            First::Resets => self.forward_stateless(packet, parsed, service, flow_hash(&parsed.key, service)),
            First::PicksUp if service.strict => {
                self.count_service_drop(service);
                self.answer_reset(packet, parsed, DropReason::NoConnection);
            }
            first => self.schedule(packet, parsed, service, first, foreseen),
        }
    }

    /// Picks a backend and makes the entry. There is none for the packet's key, as the caller has seen.
    fn schedule(
        &mut self,
        packet: E::Buf,
        parsed: &Parsed,
        service: &Service,
        first: First,
        mut foreseen: Option<&Foreseen<'a>>,
    ) {
        // A flood is refused before anything is worked out for it.
        let full = self.state.table.refuses_newcomers(self.now, parsed.key.tenant).map(refusal);
        if let Some(reason) = full.or_else(|| self.too_many(service.id)) {
            self.count_service_drop(service);
            return self.drop(packet, reason);
        }
        let mut hash = flow_hash(&parsed.key, service);
        let mut reason = DropReason::NatTupleInUse;
        for _ in 0..PICKS_MAX {
            let (table, snapshot) = (&self.state.table, self.snapshot);
            let choice = match foreseen.take() {
                Some(foreseen) => Some((foreseen.backend, table.confirm(&foreseen.prepared))),
                None => service.pick(hash).and_then(|id| snapshot.backend(id)).map(|backend| {
                    let new = newcomer(parsed.key, service, backend, parsed.tcp_flags, self.judged_by);
                    (backend, table.prepare(&new, table.hash(&parsed.key)))
                }),
            };
            let Some((backend, prepared)) = choice else {
                reason = DropReason::NoBackend;
                break;
            };
            self.env.note(Note::Picked { hash, backend: backend.id });
            match self.insert(parsed.key, service, backend, first, parsed.tcp_flags, Some(&prepared)) {
                Ok(slot) => {
                    return self.forward_entry(packet, parsed, slot, Direction::Original, Toll::Paid);
                }
                Err(InsertError::ReplyCollision) => {
                    self.env.note(Note::ReplyCollision);
                    hash = next_hash(hash);
                }
                Err(error) => {
                    reason = refusal(error);
                    break;
                }
            }
        }
        self.not_opened(service.id);
        self.count_service_drop(service);
        self.drop(packet, reason);
    }

    /// Makes an entry for the connection whose client-to-VIP key is `key`.
    fn insert(
        &mut self,
        key: FlowKey,
        service: &Service,
        backend: &Backend,
        first: First,
        flags: TcpFlags,
        prepared: Option<&Prepared>,
    ) -> Result<Slot, InsertError> {
        let new = newcomer(key, service, backend, flags, self.judged_by);
        let timeouts = |service, state| self.snapshot.timeouts(service).timeout_ms(state);
        let inserted = match prepared {
            Some(prepared) => self.state.table.insert_prepared(self.now, &new, prepared, timeouts)?,
            None => self.state.table.insert(self.now, &new, timeouts)?,
        };
        self.env.note(Note::Opened { slot: inserted.slot, picked_up: first == First::PicksUp });
        if let Some(gone) = &inserted.evicted {
            self.end_evicted(gone);
        }
        self.count_opened(service, backend.id, first);
        Ok(inserted.slot)
    }

    fn count_opened(&self, service: &Service, backend: BackendId, first: First) {
        self.snapshot.connection_opened(service.id);
        let counters = &self.state.counters;
        if let Some(backend) = counters.backend(backend) {
            backend.connections.add(1);
            backend.live.add(1);
        }
        if let Some(service) = counters.service(service.id) {
            match first {
                First::PicksUp => service.picked_up.add(1),
                _ => service.opened.add(1),
            }
        }
    }

    /// A packet towards no service. If it comes from a NAT backend it is a reply: of a datagram scheduled
    /// without affinity, or of a connection this worker does not know yet, which is picked up from this
    /// side, so that a download survives a restart even though its client only listens.
    pub(super) fn open_from_backend(&mut self, packet: E::Buf, parsed: &Parsed) {
        let FlowKey { tenant, src, src_port, protocol, .. } = parsed.key;
        if let Some(probe) = self.answers_probe(&parsed.key) {
            return self.deliver_locally(packet, parsed, probe);
        }
        let snapshot = self.snapshot;
        let Some((service, backend, vip_port)) = snapshot.reply_of(tenant, src, src_port, protocol) else {
            return self.refuse(packet, DropReason::NoService);
        };
        self.env.note(Note::ReplyFrom { service: service.id, backend: backend.id });
        if !service.affinity.keeps_connections() {
            return self.forward_datagram_reply(packet, parsed, service, backend, vip_port);
        }
        let picks_up = protocol == Protocol::Tcp && first(parsed) == First::PicksUp;
        // Clients are stations: the shortcut forwards whatever has a connection.
        let to_client = rewrite::is_station(parsed.key.dst);
        // What is passed on comes to the worker of either of its ends.
        let is_ours = self.state.owners.owner(parsed.key.dst) == self.state.id;
        if !picks_up || !to_client || !is_ours || parsed.tcp_flags.syn() || service.strict {
            return self.refuse(packet, DropReason::NoConnection);
        }
        let original = FlowKey { dst: service.vip, dst_port: vip_port, ..parsed.key.reversed() };
        let Some(packet) = self.admit_reply(packet, parsed, &original) else {
            return self.count_service_drop(service);
        };
        let Some(packet) = self.metered(packet, parsed, service.id) else { return };
        if let Some(reason) = self.too_many(service.id) {
            self.count_service_drop(service);
            return self.drop(packet, reason);
        }
        match self.insert(original, service, backend, First::PicksUp, parsed.tcp_flags, None) {
            Ok(slot) => self.forward_entry(packet, parsed, slot, Direction::Reply, Toll::Paid),
            // Its client has been given to another backend since: this one's part in it is over.
            Err(InsertError::Duplicate(_)) => {
                self.not_opened(service.id);
                self.refuse(packet, DropReason::NoConnection);
            }
            Err(error) => {
                self.not_opened(service.id);
                self.count_service_drop(service);
                self.drop(packet, refusal(error));
            }
        }
    }

    /// `affinity = "none"`: each datagram goes to the next place in the Maglev table, so weights hold. Of a
    /// partition, each packet goes to its backend.
    fn forward_datagram(&mut self, packet: E::Buf, parsed: &Parsed, service: &Service) {
        if let Affinity::Partition { .. } = service.affinity {
            return self.forward_stateless(packet, parsed, service, flow_hash(&parsed.key, service));
        }
        self.state.datagrams = self.state.datagrams.wrapping_add(1);
        let hash = spread(self.state.datagrams);
        self.forward_stateless(packet, parsed, service, hash);
    }

    fn forward_stateless(&mut self, packet: E::Buf, parsed: &Parsed, service: &Service, hash: u64) {
        let Some(backend) = service.pick(hash).and_then(|id| self.snapshot.backend(id)) else {
            self.count_service_drop(service);
            return self.drop(packet, DropReason::NoBackend);
        };
        self.env.note(Note::Picked { hash, backend: backend.id });
        self.env.note(Note::Stateless);
        if let Some(counters) = self.state.counters.backend(backend.id) {
            counters.original.count(u64::from(parsed.packet_len()));
        }
        let translation = match service.mode {
            Mode::Nat => {
                let port = backend.port.unwrap_or(parsed.key.dst_port);
                let rewrite = Some((End::Destination, backend.address, port));
                Translation { rewrite, target: Target::Backend(backend.id), service: service.id }
            }
            Mode::Dsr | Mode::Tunnel(_) => self.unchanged(backend.id, || parsed.key),
        };
        self.deliver(packet, parsed, &translation);
    }

    fn forward_datagram_reply(
        &mut self,
        packet: E::Buf,
        parsed: &Parsed,
        service: &Service,
        backend: &Backend,
        vip_port: u16,
    ) {
        let original = FlowKey { dst: service.vip, dst_port: vip_port, ..parsed.key.reversed() };
        let Some(packet) = self.admit(packet, parsed, &original) else {
            return self.count_service_drop(service);
        };
        let Some(packet) = self.metered(packet, parsed, service.id) else { return };
        self.env.note(Note::Stateless);
        if let Some(counters) = self.state.counters.backend(backend.id) {
            counters.reply.count(u64::from(parsed.packet_len()));
        }
        let translation = Translation {
            rewrite: Some((End::Source, service.vip, vip_port)),
            target: Target::Address(parsed.key.dst),
            service: service.id,
        };
        self.deliver(packet, parsed, &translation);
    }

    /// A SYN for an entry whose connection is over: the client's port is used again.
    pub(super) fn reopen(&mut self, packet: E::Buf, parsed: &Parsed, slot: Slot) {
        self.env.note(Note::Reused);
        if self.state.table.entry(slot).is_pending() {
            return self.reopen_in_place(packet, parsed, slot);
        }
        self.end(slot);
        self.open(packet, parsed, None);
    }

    /// As long as hardware may forward for the connection before, its packets and the new one's look the
    /// same: the new one stays with the same backend, or has to wait.
    fn reopen_in_place(&mut self, packet: E::Buf, parsed: &Parsed, slot: Slot) {
        let Some(packet) = self.admit(packet, parsed, &parsed.key) else { return };
        self.take_back(slot, Revocation::Closing);
        let FlowKey { tenant, dst, dst_port, protocol, .. } = parsed.key;
        let (snapshot, entry) = (self.snapshot, self.state.table.entry(slot));
        let service = snapshot.classify(tenant, dst, protocol, dst_port).filter(|s| s.id == entry.service());
        let backend = snapshot.backend(entry.backend()).filter(|b| b.state == BackendState::Active);
        let Some((service, backend)) = service.zip(backend) else {
            return self.drop(packet, DropReason::OffloadPending);
        };
        let Some(packet) = self.metered(packet, parsed, service.id) else { return };
        // As many are open as before.
        if let Some(reason) = self.too_soon(service.id) {
            self.count_service_drop(service);
            return self.drop(packet, reason);
        }
        let timeout_ms = snapshot.timeouts(service.id).timeout_ms(State::SynSent);
        match self.state.table.reopen(self.now, slot, timeout_ms) {
            Ok(evicted) => {
                self.state.count_left(backend.id);
                self.env.note(Note::Opened { slot, picked_up: false });
                snapshot.connection_closed(service.id);
                self.count_opened(service, backend.id, First::Opens);
                if let Some(gone) = evicted {
                    self.end_evicted(&gone);
                }
                self.forward_entry(packet, parsed, slot, Direction::Original, Toll::Paid);
            }
            Err(error) => {
                self.not_opened(service.id);
                self.count_service_drop(service);
                self.drop(packet, refusal(error));
            }
        }
    }

    /// The connection's backend takes no more packets: it was removed with policy `reset`. Whichever end
    /// is heard first, the client is told; a new connection is opened with another backend.
    pub(super) fn backend_gone(&mut self, packet: E::Buf, parsed: &Parsed, slot: Slot, direction: Direction) {
        self.env.note(Note::BackendGone);
        let resets = parsed.key.protocol == Protocol::Tcp && first(parsed) != First::Opens;
        if resets && !self.state.rates.resets.allow(self.now) {
            // The entry stays for the next segment, which may get its reset.
            return self.drop(packet, DropReason::BackendRemoved);
        }
        let vip = self.state.table.ends(slot).vip;
        let pending = self.state.table.entry(slot).is_pending();
        if pending {
            // It stays until hardware has let go of it, so that no other backend gets half of its packets.
            self.take_back(slot, Revocation::Policy);
        } else {
            self.count_backend_gone(slot);
            self.end(slot);
        }
        match direction {
            _ if !resets && pending => self.drop(packet, DropReason::OffloadPending),
            _ if !resets => self.open(packet, parsed, None),
            Direction::Original => self.reset_sender(packet, parsed, DropReason::BackendRemoved),
            Direction::Reply => self.reset_receiver(packet, parsed, vip, DropReason::BackendRemoved),
        }
    }

    fn count_backend_gone(&self, slot: Slot) {
        let backend = self.snapshot.backend(self.state.table.entry(slot).backend());
        if backend.is_none_or(|backend| !backend.state.resets()) {
            self.state.counters.pcc(PccCause::BackendGone).add(1);
        }
    }

    /// Drops a segment and, within the rate, resets its sender's connection.
    pub(super) fn answer_reset(&mut self, packet: E::Buf, parsed: &Parsed, reason: DropReason) {
        if self.state.rates.resets.allow(self.now) {
            self.reset_sender(packet, parsed, reason);
        } else {
            self.drop(packet, reason);
        }
    }

    /// Drops a segment from a backend and, within the rate, resets its client's connection to the VIP, and
    /// its own. A client that only listens would never hear of it otherwise.
    pub(super) fn answer_resets(
        &mut self,
        packet: E::Buf,
        parsed: &Parsed,
        vip: (Ip, u16),
        reason: DropReason,
    ) {
        if self.state.rates.resets.allow(self.now) {
            self.reset_ends(packet, parsed, vip, reason);
        } else {
            self.drop(packet, reason);
        }
    }

    /// Drops a segment from a backend, and resets its client's connection to the VIP and its own.
    pub(super) fn reset_ends(&mut self, packet: E::Buf, parsed: &Parsed, vip: (Ip, u16), reason: DropReason) {
        let copy = self.env.alloc(packet.port()).and_then(|mut copy| {
            let fits = copy.set_len(packet.data().len());
            fits.then(|| {
                copy.data_mut().copy_from_slice(packet.data());
                copy
            })
        });
        if let Some(mut copy) = copy {
            if rewrite::into_reset_of_receiver(&mut copy, parsed, vip).is_ok() {
                self.originate_to(copy, self.snapshot.route(parsed.key.tenant, parsed.key.dst));
            }
        }
        self.reset_sender(packet, parsed, reason);
    }

    /// Drops a segment and, in its buffer, resets its sender's connection.
    pub(super) fn reset_sender(&mut self, mut packet: E::Buf, parsed: &Parsed, reason: DropReason) {
        match rewrite::into_tcp_reset(&mut packet, parsed) {
            Ok(()) => {
                self.count_answered(&packet, Note::AnsweredReset, reason);
                self.originate(packet, parsed);
            }
            Err(_) => self.drop(packet, reason),
        }
    }

    /// Drops a segment from a backend and, in its buffer, resets the client's connection to the VIP.
    fn reset_receiver(&mut self, mut packet: E::Buf, parsed: &Parsed, vip: (Ip, u16), reason: DropReason) {
        match rewrite::into_reset_of_receiver(&mut packet, parsed, vip) {
            Ok(()) => {
                self.count_answered(&packet, Note::AnsweredReset, reason);
                self.originate_to(packet, self.snapshot.route(parsed.key.tenant, parsed.key.dst));
            }
            Err(_) => self.drop(packet, reason),
        }
    }

    /// Ends a connection.
    pub(super) fn end(&mut self, slot: Slot) {
        if let Some(gone) = self.state.table.remove(slot) {
            self.bury(&gone);
        }
    }

    /// An entry that is no more.
    fn bury(&mut self, gone: &Gone) {
        self.state.count_left(gone.backend);
        self.snapshot.connection_closed(gone.service);
        revoke_gone(self.env, &self.state.counters, gone);
    }

    /// An entry that made room for another.
    pub(super) fn end_evicted(&mut self, gone: &Gone) {
        self.env.note(Note::Evicted { half_open: gone.half_open });
        self.bury(gone);
        let counters = &self.state.counters;
        if gone.half_open {
            counters.evicted_half_open.add(1);
        } else {
            counters.evicted_idle.add(1);
        }
    }

    fn count_service_drop(&self, service: &Service) {
        if let Some(counters) = self.state.counters.service(service.id) {
            counters.dropped.add(1);
        }
    }
}

impl<B: PacketBuf> super::State<B> {
    /// A connection of this backend is no more.
    pub(super) fn count_left(&self, backend: BackendId) {
        if let Some(backend) = self.counters.backend(backend) {
            backend.live.sub(1);
        }
    }
}

/// What a packet is dropped for whose connection could not be opened.
pub(super) fn refusal(error: InsertError) -> DropReason {
    match error {
        InsertError::ReplyCollision => DropReason::NatTupleInUse,
        InsertError::HalfOpenLimit => DropReason::HalfOpenLimit,
        InsertError::TenantLimit => DropReason::TenantLimit,
        InsertError::Full | InsertError::Duplicate(_) | InsertError::MixedFamilies => DropReason::TableFull,
    }
}

/// The hash a flow is scheduled by: fixed across nodes and restarts.
pub(super) fn flow_hash(key: &FlowKey, service: &Service) -> u64 {
    match service.affinity {
        Affinity::Client => maglev::client_hash(key.src),
        // Its table has a place for each partition.
        Affinity::Partition { bits } => u64::from(partition::of(key.src, bits)),
        Affinity::Connection | Affinity::None => maglev::flow_hash(key),
    }
}

/// The next place to try, far from the last one and the same on every node.
fn next_hash(hash: u64) -> u64 {
    (hash ^ (hash >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

/// Consecutive numbers to hashes that are far apart, so that datagrams visit the whole table evenly.
fn spread(number: u64) -> u64 {
    next_hash(number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}
