//! What happened, counted per worker.
//!
//! One [`WorkerCounters`] per worker, written by that worker alone and read by anyone: an increment is a
//! relaxed load and a relaxed store, no locked instruction. Readers may see a packet counted in one
//! place and not yet in another; at rest the sums are exact:
//!
//! ```text
//! received + handed_in + generated = sent + consumed + Σ dropped + handed_out + held
//! ```

use crate::conntrack::Count;
use crate::drops::{DROP_REASONS, DropReason};
use crate::ids::{BackendId, ServiceId, TenantId};
use crate::limits::TENANTS_MAX;
use crate::meter::Colour;
use crate::offload::Revocation;
use crate::policy::{Verdict, Way};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A counter with one writer.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the owning worker may call this.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Subtracts `n`: for gauges.
    #[inline]
    pub fn sub(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(n), Relaxed);
    }

    /// Sets the value: for gauges.
    #[inline]
    pub fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    /// The value now.
    #[inline]
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Packets and bytes of one direction.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Packets.
    pub packets: Counter,
    /// Bytes of IP packet: L2 headers, padding and FCS excluded.
    pub bytes: Counter,
}

impl Traffic {
    /// Counts one packet.
    #[inline]
    pub fn count(&self, bytes: u64) {
        self.packets.add(1);
        self.bytes.add(bytes);
    }

    /// Counts what hardware has counted.
    pub fn count_all(&self, count: Count) {
        self.packets.add(count.packets);
        self.bytes.add(count.bytes);
    }
}

/// What is counted for a backend.
///
/// What packets write comes first, in a line of its own.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct BackendCounters {
    /// Client to backend, forwarded by software.
    pub original: Traffic,
    /// Backend to client, forwarded by software; stays 0 under `dsr`.
    pub reply: Traffic,
    /// Connections opened.
    pub connections: Counter,
    /// Connections in the table now (gauge).
    pub live: Counter,
    /// Forwarded by hardware, by [`crate::flow::Direction`]: as far as it has been reported.
    pub hardware: [Traffic; 2],
    /// Clients' SYNs that it answered by a RST.
    pub refused: Counter,
    /// Clients' SYNs that came again before it had answered.
    pub asked_again: Counter,
    /// Connections whose time ran out before it had answered the SYN.
    pub unanswered: Counter,
}

/// What is counted for a service.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct ServiceCounters {
    /// Connections opened by a SYN or a first datagram.
    pub opened: Counter,
    /// Connections picked up in the middle: a segment without SYN and without an entry.
    pub picked_up: Counter,
    /// Packets dropped after they were known to be this service's.
    pub dropped: Counter,
}

/// Why a live connection's packets went to another backend than before (per-connection consistency was
/// violated), as far as a worker can know.
///
/// What none of them can see: a connection that was evicted or lost in a restart, and was picked up again
/// after the set of backends had changed. Nothing is remembered of it that its new backend could be
/// compared with.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum PccCause {
    /// Its backend's slot is empty, though its service did not want it reset. Exact.
    BackendGone,
    /// Hardware forwarded by rules that are still in force for a connection which the table no longer
    /// has: if its client has opened another one with the same ports, that one's packets went to the old
    /// backend. Reports are counted, and this is an upper bound: the packets may have been the old
    /// connection's last.
    StaleRule,
}

impl PccCause {
    /// All causes, in declaration order.
    pub const ALL: [PccCause; 2] = [PccCause::BackendGone, PccCause::StaleRule];

    /// The name used in labels and output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            PccCause::BackendGone => "backend_gone",
            PccCause::StaleRule => "stale_rule",
        }
    }
}

/// What was judged by policy.
#[derive(Debug, Default)]
pub struct PolicyCounters {
    /// Connections, and packets without one, that a rule decided: by [`crate::policy::RuleNumber`].
    pub rules: Box<[Counter]>,
    /// Those that no rule matched, by [`Way`].
    pub defaults: [Counter; 2],
}

impl PolicyCounters {
    /// Counts one judgement of something that came this way.
    pub fn count(&self, verdict: Verdict, way: Way) {
        let counter = match verdict.rule {
            Some(number) => self.rules.get(number.index()),
            None => self.defaults.get(way as usize),
        };
        if let Some(counter) = counter {
            counter.add(1);
        }
    }
}

/// What is counted for a tenant besides what its services and their backends say. Nothing of it is written
/// for a packet that is forwarded.
#[derive(Debug)]
#[repr(align(64))]
pub struct TenantCounters {
    /// Connections in the table (gauge), a moment ago: see [`crate::conntrack::Table::held_by`].
    pub live: Counter,
    /// Of these, half-open (gauge).
    pub half_open: Counter,
    /// Packets dropped that arrived on the tenant's ports, by [`DropReason`]: those that still were on their
    /// way through a worker, not what it held and gave up later.
    pub dropped: [Counter; DROP_REASONS],
}

impl Default for TenantCounters {
    fn default() -> TenantCounters {
        let dropped = [const { Counter(AtomicU64::new(0)) }; DROP_REASONS];
        TenantCounters { live: Counter::default(), half_open: Counter::default(), dropped }
    }
}

/// What a meter said of packets, and of new connections.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct MeterCounters {
    /// Packets by [`Colour`]; red ones were dropped.
    pub colours: [Traffic; Colour::ALL.len()],
    /// Connections that were not opened.
    pub refused: Counter,
}

/// Everything one worker counts.
#[derive(Debug)]
#[repr(align(128))]
pub struct WorkerCounters {
    /// Packets taken from ports.
    pub received: Counter,
    /// Packets given to ports' transmit queues and accepted.
    pub sent: Counter,
    /// Packets Millrace made itself (ARP, ND, ICMP errors, RST).
    pub generated: Counter,
    /// Packets that were for Millrace itself and ended here (ARP and ND for the neighbour table).
    pub consumed: Counter,
    /// Packets given to another worker.
    pub handed_out: Counter,
    /// Packets taken over from another worker.
    pub handed_in: Counter,
    /// Packets waiting for a neighbour (gauge).
    pub held: Counter,
    /// Packets dropped, by [`DropReason`].
    pub dropped: [Counter; DROP_REASONS],

    /// Connections in the table now (gauge).
    pub entries: Counter,
    /// Of these, half-open (gauge).
    pub half_open: Counter,
    /// Connections that ran out their timeout.
    pub expired: Counter,
    /// Half-open connections evicted for a newer one.
    pub evicted_half_open: Counter,
    /// Other connections evicted for a newer one.
    pub evicted_idle: Counter,
    /// Live connections whose packets went to another backend, by [`PccCause`].
    pub pcc: [Counter; PccCause::ALL.len()],

    /// Connections that ended because the policy had changed.
    pub policy_ended: Counter,
    /// Verdicts that were to be logged and are not: there were too many, or nobody took them.
    pub policy_log_lost: Counter,
    /// All connections have been judged by the policy of this generation, or one after it (gauge; see
    /// [`crate::policy::Policy::generation`]).
    pub policy_swept: Counter,

    /// Connections that hardware was asked to take.
    pub offload_asked: Counter,
    /// Connections that it could not be asked to take, because the ring was full.
    pub offload_ask_refused: Counter,
    /// Connections that hardware was told to give back, by [`Revocation`].
    pub offload_revoked: [Counter; Revocation::ALL.len()],
    /// Revocations that found the ring full and wait for the next occasion.
    pub offload_revoke_refused: Counter,
    /// Packets that came to software although hardware has had their connection for a while.
    pub offload_miss: Counter,
    /// Packets that came to software just after their connection went to hardware: they were under way.
    pub offload_late: Counter,
    /// Connections in hardware now (gauge),
    pub offload_installed: Counter,
    /// asked for (gauge),
    pub offload_requested: Counter,
    /// on their way out (gauge),
    pub offload_removing: Counter,
    /// and not to be asked for again before some time has passed (gauge).
    pub offload_declined_now: Counter,

    /// Polls of the rx queues, and of these the ones that returned nothing.
    pub polls: Counter,
    /// See [`WorkerCounters::polls`].
    pub polls_empty: Counter,
    /// Time-stamp counter cycles spent on polls that returned packets.
    pub busy_cycles: Counter,

    /// By [`ServiceId`].
    pub services: Box<[ServiceCounters]>,
    /// By [`BackendId`].
    pub backends: Box<[BackendCounters]>,
    /// What was judged.
    pub policy: PolicyCounters,
    /// By [`TenantId`].
    pub tenants: Box<[TenantCounters]>,
    /// Meters of services by [`ServiceId`],
    pub service_meters: Box<[MeterCounters]>,
    /// and of tenants by [`TenantId`].
    pub tenant_meters: Box<[MeterCounters]>,
}

impl WorkerCounters {
    /// Counters for this many services and backends (see [`crate::limits`]).
    #[must_use]
    pub fn new(services: usize, backends: usize) -> WorkerCounters {
        WorkerCounters {
            received: Counter::default(),
            sent: Counter::default(),
            generated: Counter::default(),
            consumed: Counter::default(),
            handed_out: Counter::default(),
            handed_in: Counter::default(),
            held: Counter::default(),
            dropped: [const { Counter(AtomicU64::new(0)) }; DROP_REASONS],
            entries: Counter::default(),
            half_open: Counter::default(),
            expired: Counter::default(),
            evicted_half_open: Counter::default(),
            evicted_idle: Counter::default(),
            pcc: Default::default(),
            policy_ended: Counter::default(),
            policy_log_lost: Counter::default(),
            policy_swept: Counter::default(),
            offload_asked: Counter::default(),
            offload_ask_refused: Counter::default(),
            offload_revoked: Default::default(),
            offload_revoke_refused: Counter::default(),
            offload_miss: Counter::default(),
            offload_late: Counter::default(),
            offload_installed: Counter::default(),
            offload_requested: Counter::default(),
            offload_removing: Counter::default(),
            offload_declined_now: Counter::default(),
            polls: Counter::default(),
            polls_empty: Counter::default(),
            busy_cycles: Counter::default(),
            services: (0..services).map(|_| ServiceCounters::default()).collect(),
            backends: (0..backends).map(|_| BackendCounters::default()).collect(),
            policy: PolicyCounters::default(),
            tenants: Box::default(),
            service_meters: (0..services).map(|_| MeterCounters::default()).collect(),
            tenant_meters: (0..TENANTS_MAX).map(|_| MeterCounters::default()).collect(),
        }
    }

    /// The same with counters for policy rules of this many numbers (see [`crate::limits`]).
    #[must_use]
    pub fn with_rules(mut self, rules: usize) -> WorkerCounters {
        self.policy.rules = (0..rules).map(|_| Counter::default()).collect();
        self
    }

    /// The same with counters for this many tenants (see [`crate::limits`]).
    #[must_use]
    pub fn with_tenants(mut self, tenants: usize) -> WorkerCounters {
        self.tenants = (0..tenants).map(|_| TenantCounters::default()).collect();
        self
    }

    /// Counts one dropped packet of a tenant.
    pub fn drop_packet_of(&self, tenant: TenantId, reason: DropReason) {
        self.drop_packet(reason);
        if let Some(counters) = self.tenants.get(tenant.index()) {
            counters.dropped[reason as usize].add(1);
        }
    }

    /// Counts one dropped packet.
    #[inline]
    pub fn drop_packet(&self, reason: DropReason) {
        self.dropped[reason as usize].add(1);
    }

    /// Live connections whose packets went to another backend for this cause.
    #[must_use]
    pub fn pcc(&self, cause: PccCause) -> &Counter {
        &self.pcc[cause as usize]
    }

    /// The counters of a service; `None` for a number out of range.
    #[inline]
    #[must_use]
    pub fn service(&self, id: ServiceId) -> Option<&ServiceCounters> {
        self.services.get(id.index())
    }

    /// The counters of a backend; `None` for a number out of range.
    #[inline]
    #[must_use]
    pub fn backend(&self, id: BackendId) -> Option<&BackendCounters> {
        self.backends.get(id.index())
    }

    /// Counts a packet that the meter of a service gave this colour.
    #[inline]
    pub fn service_meter(&self, id: ServiceId, colour: Colour, bytes: u32) {
        if let Some(meter) = self.service_meters.get(id.index()) {
            meter.colours[colour as usize].count(bytes.into());
        }
    }

    /// Counts a packet that the meter of a tenant gave this colour.
    #[inline]
    pub fn tenant_meter(&self, id: TenantId, colour: Colour, bytes: u32) {
        if let Some(meter) = self.tenant_meters.get(id.index()) {
            meter.colours[colour as usize].count(bytes.into());
        }
    }

    /// Counts a connection that the meter of a service did not admit.
    pub fn service_refusal(&self, id: ServiceId) {
        if let Some(meter) = self.service_meters.get(id.index()) {
            meter.refused.add(1);
        }
    }

    /// Counts a connection that the meter of a tenant did not admit.
    pub fn tenant_refusal(&self, id: TenantId) {
        if let Some(meter) = self.tenant_meters.get(id.index()) {
            meter.refused.add(1);
        }
    }

    /// Left side minus right side of the conservation law in the module's header: 0 at rest.
    #[must_use]
    pub fn imbalance(&self) -> i128 {
        let dropped: u64 = self.dropped.iter().map(Counter::get).sum();
        let taken = [&self.received, &self.handed_in, &self.generated].map(|c| i128::from(c.get()));
        let given = [&self.sent, &self.consumed, &self.handed_out, &self.held].map(|c| i128::from(c.get()));
        taken.iter().sum::<i128>() - given.iter().sum::<i128>() - i128::from(dropped)
    }
}
