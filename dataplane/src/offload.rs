//! The vocabulary spoken between a worker, which owns every connection, and the offload engine.
//!
//! Nothing here talks to hardware: the `offload` crate does. The two sides exchange small copies of
//! these types on bounded rings and never pointers. A worker *asks* for a connection to be forwarded by
//! hardware, and *revokes* what hardware must no longer do; it gets *answers*. Whatever is lost on the
//! way is noticed: see [`Answer::Counted`].

use crate::addr::{Ip, MacAddr};
use crate::conntrack::Count;
use crate::flow::{Direction, FlowKey};
use crate::ids::{BackendId, PortId, ServiceId, TenantId, WorkerId};
use crate::rewrite::{self, Around};
use crate::snapshot::Hop;

/// The name of a connection: the worker that owns it, its slot there and the slot's generation. A name
/// outlives its connection harmlessly: once the slot is recycled the generation no longer matches.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FlowRef {
    /// The owner.
    pub worker: WorkerId,
    /// Index into the owner's table.
    pub slot: u32,
    /// How often the slot had been taken when this name was given.
    pub generation: u32,
}

/// A request under way, chosen by the worker, returned in the answer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Token(pub u32);

/// The rules of one connection in hardware, one per direction, as the offload engine numbers them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RuleId(pub u32);

/// Why a connection stays in software for now.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Declined {
    /// No engine: the ports have no usable `rte_flow`.
    NoEngine,
    /// The budget of insertions is spent on connections that save more.
    Budget,
    /// The hardware table is full of connections that save more.
    TableFull,
    /// The driver refused the rule.
    Refused,
    /// The hardware reported an error after accepting the rule.
    Failed,
    /// The tenant's share of the rules is used up.
    TenantShare,
    /// Hardware cannot take this way: back out of the same wire, or between ports that it does not join.
    Path,
    /// The engine did not answer in time.
    Timeout,
    /// Its packets are metered, in a way that is left to software.
    Metered,
    /// A packet that came in may be too big for the way out, which only software could tell its sender.
    Mtu,
    /// The tunnel is one that only software can put packets into, or take them out of.
    Tunnel,
}

impl Declined {
    /// All reasons, in declaration order.
    pub const ALL: [Declined; 11] = [
        Declined::NoEngine,
        Declined::Budget,
        Declined::TableFull,
        Declined::Refused,
        Declined::Failed,
        Declined::TenantShare,
        Declined::Path,
        Declined::Timeout,
        Declined::Metered,
        Declined::Mtu,
        Declined::Tunnel,
    ];

    /// The name used in labels and output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Declined::NoEngine => "no_engine",
            Declined::Budget => "budget",
            Declined::TableFull => "table_full",
            Declined::Refused => "refused",
            Declined::Failed => "failed",
            Declined::TenantShare => "tenant_share",
            Declined::Path => "path",
            Declined::Timeout => "timeout",
            Declined::Metered => "metered",
            Declined::Mtu => "mtu",
            Declined::Tunnel => "tunnel",
        }
    }
}

/// The hardware half of a connection, owned by the worker's entry.
///
/// ```text
/// Software --ask--> Requested --completion ok--> Installed
///    ^                  |                            |
///    |           refused/failed            fin/rst/age/evict/policy
///    |                  v                            v
///    +---retry--- Declined(reason)                Removing --completion--> Software
/// ```
///
/// Only a completion makes `Installed`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OffloadState {
    /// Forwarded by software; nothing asked for.
    #[default]
    Software,
    /// Asked for, not yet answered.
    Requested(Token),
    /// Forwarded by hardware.
    Installed(RuleId),
    /// Being taken out; hardware may still forward.
    Removing(RuleId),
    /// Tried or considered, and refused; asked for again at a later time.
    Declined(Declined),
}

const _: () = assert!(core::mem::size_of::<OffloadState>() == 8);

/// One direction of a connection on the link layer: where its packets come in, and where and to whom
/// they go out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leg {
    /// Where the packets of this direction are received.
    pub ingress: PortId,
    /// Where they are sent.
    pub egress: PortId,
    /// The MAC address of the next hop there.
    pub next_hop: MacAddr,
}

/// A connection that a worker would like hardware to forward, and all that is needed for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ask {
    /// Whose.
    pub flow: FlowRef,
    /// To be returned in the answer.
    pub token: Token,
    /// Client to VIP.
    pub key: FlowKey,
    /// The backend's address and port, of the key's family.
    pub backend_end: (Ip, u16),
    /// Whether addresses and ports are translated (`nat`), in both directions.
    pub nat: bool,
    /// What is put around its packets in the direction that leaves into a tunnel, if one does: to the backend
    /// if its service has a tunnel, or by a port behind one. There are never both.
    pub tunnel: Option<Around>,
    /// Its service.
    pub service: ServiceId,
    /// Its backend.
    pub backend: BackendId,
    /// By [`Direction`]; `None` where this direction stays in software (or never passes us).
    pub legs: [Option<Leg>; 2],
    /// Packets of both directions so far,
    pub packets: u64,
    /// in so many milliseconds.
    pub age_ms: u32,
}

impl Ask {
    /// The key that packets of one direction carry when they come in.
    #[must_use]
    pub fn incoming(&self, direction: Direction) -> FlowKey {
        match direction {
            Direction::Original => self.key,
            Direction::Reply => {
                let (src, src_port) = self.backend_end;
                FlowKey { src, src_port, dst: self.key.src, dst_port: self.key.src_port, ..self.key }
            }
        }
    }

    /// The key that packets of one direction carry when they go out.
    #[must_use]
    pub fn outgoing(&self, direction: Direction) -> FlowKey {
        match direction {
            Direction::Original if self.nat => self.incoming(Direction::Reply).reversed(),
            Direction::Original => self.key,
            Direction::Reply => self.key.reversed(),
        }
    }

    /// What tells its outer packets from those of others where its frames go into a tunnel.
    #[must_use]
    pub fn entropy(&self, direction: Direction) -> u16 {
        rewrite::entropy(&FlowKey { tenant: TenantId(0), ..self.outgoing(direction) })
    }
}

/// A tuple of which the policy denies every packet, and of which many come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Denied {
    /// Where they come in.
    pub ingress: PortId,
    /// Client to VIP.
    pub key: FlowKey,
    /// About so many a second.
    pub per_second: u32,
}

/// Whom packets for a next hop are handed to: told of those that partitions go by, again and again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reached {
    /// The next hop,
    pub hop: Hop,
    /// and its MAC address.
    pub mac: MacAddr,
}

/// Why hardware must give a connection back.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Revocation {
    /// FIN or RST was seen: the end of the connection is software's business.
    Closing,
    /// The entry left the table: expired, evicted or taken over.
    Gone,
    /// The configuration no longer allows it: its backend was removed or drains, or its way changed.
    Policy,
    /// The next hop has another MAC address now.
    Moved,
    /// No entry knows of it.
    Orphan,
    /// Somebody wants to see its packets.
    Captured,
}

impl Revocation {
    /// All reasons, in declaration order.
    pub const ALL: [Revocation; 6] = [
        Revocation::Closing,
        Revocation::Gone,
        Revocation::Policy,
        Revocation::Moved,
        Revocation::Orphan,
        Revocation::Captured,
    ];

    /// The name used in labels and output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Revocation::Closing => "closing",
            Revocation::Gone => "gone",
            Revocation::Policy => "policy",
            Revocation::Moved => "moved",
            Revocation::Orphan => "orphan",
            Revocation::Captured => "captured",
        }
    }
}

/// A worker wants a connection back from hardware.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Revoke {
    /// Which connection; a rule that belongs to another one by now is left alone.
    pub flow: FlowRef,
    /// Its rules.
    pub rule: RuleId,
    /// Why.
    pub why: Revocation,
}

/// Why rules were taken out.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Removal {
    /// A worker, or a new configuration, wanted it.
    Revoked(Revocation),
    /// Neither direction was used for as long as rules may idle.
    Idle,
    /// To make room for a connection that saves more.
    Evicted,
    /// The device lost them: it was reset, its port was stopped, or it stopped answering.
    Lost,
}

/// What the offload engine tells the worker that owns a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// All rules of the connection are in force.
    Installed {
        /// Whose.
        flow: FlowRef,
        /// Of the request.
        token: Token,
        /// The rules.
        rule: RuleId,
    },
    /// There are none, and there is no use asking again before `retry_ms` are over.
    Declined {
        /// Whose.
        flow: FlowRef,
        /// Of the request.
        token: Token,
        /// Why.
        reason: Declined,
        /// When to ask again.
        retry_ms: u32,
    },
    /// What hardware has forwarded since the last report. Sent from time to time for every connection
    /// in hardware, even if that is nothing: a worker that does not know the connection, or no longer
    /// wants it there, revokes it. So no rule outlives its entry for long, whatever was lost on the way.
    /// The last report comes after [`Answer::Removed`], with `rule: None`, as counters lag behind.
    Counted {
        /// Whose. The connection may be gone; its backend's totals take the counts all the same.
        flow: FlowRef,
        /// The rules; `None` if they are gone.
        rule: Option<RuleId>,
        /// The backend.
        backend: BackendId,
        /// By [`Direction`], bytes of IP packet.
        counts: [Count; 2],
        /// The MAC addresses the rules send to, by [`Direction`].
        next_hops: [Option<MacAddr>; 2],
        /// Of the direction that leaves by a port behind a tunnel: whom the outer packets are sent to.
        below: Option<MacAddr>,
    },
    /// The rules are out, all packets come to software again, and there is no use asking again before
    /// `retry_ms` are over.
    Removed {
        /// Whose.
        flow: FlowRef,
        /// The rules that were.
        rule: RuleId,
        /// Why.
        why: Removal,
        /// When to ask again.
        retry_ms: u32,
    },
}

impl Answer {
    /// The connection it is about.
    #[must_use]
    pub fn flow(&self) -> FlowRef {
        match *self {
            Answer::Installed { flow, .. }
            | Answer::Declined { flow, .. }
            | Answer::Counted { flow, .. }
            | Answer::Removed { flow, .. } => flow,
        }
    }
}
