//! What a worker forwards by: an immutable value, built on the control thread from a validated
//! [`crate::config::Config`], shared by all workers and replaced as a whole at a burst boundary.

use crate::addr::{Ip, MacAddr, Prefix};
use crate::flow::Protocol;
use crate::ids::{BackendId, PortId, ServiceId, TenantId};
use core::ops::RangeInclusive;

/// How a packet gets from us to its backend.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Mode {
    /// Direct server return: only the destination MAC changes; the backend has the VIP on its loopback
    /// and answers the client without us.
    Dsr,
    /// Destination NAT: the backend's address and port replace the VIP's, and replies come back
    /// through us.
    Nat,
}

/// What keeps going to the same backend.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Affinity {
    /// A connection (5-tuple).
    Connection,
    /// All connections of a client address.
    Client,
    /// Nothing: each UDP datagram is scheduled on its own and no connection is kept.
    None,
}

/// What happens to the live connections of a backend that the configuration no longer names.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum OnRemove {
    /// They go on until they end.
    Drain,
    /// They are ended: TCP clients get a RST at their next packet.
    Reset,
}

/// Idle timeouts by state, milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Timeouts {
    /// TCP, SYN seen but handshake not complete.
    pub tcp_half_open_ms: u32,
    /// TCP, established.
    pub tcp_established_ms: u32,
    /// TCP, one or both sides have sent FIN, not all of it acknowledged.
    pub tcp_closing_ms: u32,
    /// TCP, closed by both sides.
    pub tcp_time_wait_ms: u32,
    /// TCP, after a RST.
    pub tcp_reset_ms: u32,
    /// UDP, only the client has sent.
    pub udp_unreplied_ms: u32,
    /// UDP, both have sent (under `dsr`: the client has sent more than once).
    pub udp_replied_ms: u32,
}

impl Default for Timeouts {
    /// Established: 2 h 4 min (RFC 5382 REQ-5). UDP: 2 min (RFC 4787 REQ-5). Others as peers do.
    fn default() -> Timeouts {
        Timeouts {
            tcp_half_open_ms: 10_000,
            tcp_established_ms: 7_440_000,
            tcp_closing_ms: 120_000,
            tcp_time_wait_ms: 10_000,
            tcp_reset_ms: 5_000,
            udp_unreplied_ms: 30_000,
            udp_replied_ms: 120_000,
        }
    }
}

/// The VLAN tags frames carry on a port: none, one 802.1Q VID, or an 802.1ad outer VID and an inner one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct VlanTags {
    /// Outer service tag (TPID 0x88a8). Only with `inner`.
    pub outer: Option<u16>,
    /// Customer tag (TPID 0x8100).
    pub inner: Option<u16>,
}

/// One port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Port {
    /// Name in the configuration.
    pub name: String,
    /// The MAC address we send from and listen to.
    pub mac: MacAddr,
    /// Largest IP packet that fits, bytes.
    pub mtu: u16,
    /// Our addresses on the link, each with its on-link prefix.
    pub addresses: Vec<Prefix>,
    /// The tags our frames carry.
    pub vlan: VlanTags,
    /// The tenant of everything received here.
    pub tenant: TenantId,
    /// Where frames go, unchanged, that are none of our business (bump in the wire); dropped otherwise.
    pub pass_to: Option<PortId>,
}

/// A neighbour that is not asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StaticNeighbour {
    /// On this port,
    pub port: PortId,
    /// this address
    pub address: Ip,
    /// is at this MAC.
    pub mac: MacAddr,
}

/// Where a packet leaves, and whom it is handed to on that link.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Hop {
    /// The egress port.
    pub port: PortId,
    /// The neighbour whose MAC is needed: a gateway, or the destination itself.
    pub next_hop: Ip,
}

/// One route.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Route {
    /// Destinations.
    pub to: Prefix,
    /// Egress port.
    pub port: PortId,
    /// The gateway; `None` when the destination is on the link.
    pub via: Option<Ip>,
}

/// Whether a backend takes new connections, and what becomes of its old ones.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum BackendState {
    /// In the Maglev table.
    Active,
    /// Weight 0 or drained by the operator: keeps its connections, gets no new ones.
    Draining,
    /// No longer configured; its connections are treated as the service's [`OnRemove`] said.
    Removed(OnRemove),
}

/// One backend of one service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Backend {
    /// Its slot.
    pub id: BackendId,
    /// The service it serves.
    pub service: ServiceId,
    /// Address.
    pub address: Ip,
    /// Port; `None` keeps the VIP's port (always under `dsr`).
    pub port: Option<u16>,
    /// Configured weight.
    pub weight: u32,
    /// See [`BackendState`].
    pub state: BackendState,
    /// How to get there; `None` without a route.
    pub hop: Option<Hop>,
}

/// One service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Service {
    /// Its slot.
    pub id: ServiceId,
    /// Unique name.
    pub name: String,
    /// Whose.
    pub tenant: TenantId,
    /// The virtual address.
    pub vip: Ip,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Ports, disjoint.
    pub ports: Vec<RangeInclusive<u16>>,
    /// Forwarding mode.
    pub mode: Mode,
    /// Affinity.
    pub affinity: Affinity,
    /// Refuse TCP segments without SYN that belong to no connection.
    pub strict: bool,
    /// For backends that go.
    pub on_remove: OnRemove,
    /// Idle timeouts.
    pub timeouts: Timeouts,
    /// The Maglev lookup table: hash modulo its length gives a backend. Empty when no backend takes new
    /// connections.
    pub lookup: Box<[BackendId]>,
}
