//! What the walk says of a packet to whoever wants to know why it did with it what it did.
//!
//! A note is made where the decision is, by the code that decides, so that an explanation cannot differ
//! from what happens. Nobody listens on a packet's real way: there [`super::Env::note`] is empty and
//! inlined, and making a note must cost nothing then. So a note has copies of what is at hand, and no call
//! that could be seen from outside is made for one.

use crate::addr::{Ip, MacAddr};
use crate::conntrack::{Slot, State};
use crate::drops::DropReason;
use crate::flow::{Direction, FlowKey};
use crate::ids::{BackendId, PortId, ServiceId, TenantId};
use crate::meter::Colour;
use crate::offload::{Declined, Revocation};
use crate::policy::Verdict;
use crate::rewrite::{End, IcmpError};
use crate::snapshot::Hop;
use crate::wire::Kind;

/// One thing that the walk found or decided, in the order in which it did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Note {
    /// The packet's headers are in order.
    Parsed {
        /// Where it came in.
        port: PortId,
        /// What it is.
        kind: Kind,
        /// Its ends, and whose they are; ports are 0 where it has none.
        key: FlowKey,
    },
    /// It came out of a tunnel, as a frame of this port. Nothing was said of what was around it.
    Unwrapped {
        /// The port behind the tunnel.
        port: PortId,
    },
    /// It is addressed to another station, on a port that is a bump in the wire.
    InPassing,
    /// It belongs to a connection.
    Known {
        /// Its place in the owner's table.
        slot: Slot,
        /// Which way the packet travels.
        direction: Direction,
        /// What was believed of the connection before this packet.
        state: State,
        /// The connection's service,
        service: ServiceId,
        /// and backend.
        backend: BackendId,
    },
    /// It changes nothing about its connection and has a plain way: the shortcut forwards it.
    Plain,
    /// It is sent to this service, and of no connection.
    Classified(ServiceId),
    /// It is a reply from this backend, and of no connection.
    ReplyFrom {
        /// The backend's service.
        service: ServiceId,
        /// The backend.
        backend: BackendId,
    },
    /// The service schedules it to this backend.
    Picked {
        /// Modulo the length of the service's lookup table: the place in it.
        hash: u64,
        /// What stands there.
        backend: BackendId,
    },
    /// What the policy says of it: of its connection, if it has one that was let in by another policy.
    Judged(Verdict),
    /// That backend has a connection of the same client whose replies would look the same.
    ReplyCollision,
    /// A connection was opened.
    Opened {
        /// Its place in the table.
        slot: Slot,
        /// Whether this is not its first packet, but the first that came here.
        picked_up: bool,
    },
    /// A connection made room for it.
    Evicted {
        /// Whether that was half-open.
        half_open: bool,
    },
    /// It is forwarded without a connection.
    Stateless,
    /// The connection's state is this now.
    Becomes(State),
    /// The connection is over, and its client uses its port again.
    Reused,
    /// The connection's backend takes no more packets.
    BackendGone,
    /// It is an error about a packet of a connection, and travels like a reply to that packet.
    ErrorAbout(FlowKey),
    /// One of its ends becomes this.
    Rewritten {
        /// Which.
        end: End,
        /// The address,
        ip: Ip,
        /// and port.
        port: u16,
    },
    /// It is put into the tunnel to this backend.
    Wrapped(BackendId),
    /// It leaves this way.
    Leaves {
        /// The port and next hop.
        hop: Hop,
        /// The largest packet that fits there, bytes; within a tunnel if it goes by one.
        mtu: u16,
    },
    /// The next hop is at this address; `None` if that is not known.
    NextHop(Option<MacAddr>),
    /// It waits until the next hop has answered.
    Waits,
    /// It waits for the first fragment of its packet.
    WaitsForFirst,
    /// What a meter would say of it now. Only told of packets that are not charged: of a worker that looks
    /// what would happen.
    Metered {
        /// Whose.
        of: MeterOf,
        /// Its colour; a red one would be dropped.
        colour: Colour,
    },
    /// What hardware has to do with it.
    Hardware(Hardware),
    /// Its sender is told, in an ICMP error.
    AnsweredError(IcmpError),
    /// An end of its connection is told, in a reset.
    AnsweredReset,
    /// It was a question to us, and is answered.
    Answered,
    /// It was for us, and ends here.
    Consumed,
    /// It is none of our business, and passed on unchanged.
    PassedOn {
        /// By this port.
        port: PortId,
        /// What it would have been dropped for on a port that passes nothing on.
        why: DropReason,
    },
    /// It is dropped.
    Dropped(DropReason),
}

/// Whose meter it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MeterOf {
    /// A service's.
    Service(ServiceId),
    /// A tenant's.
    Tenant(TenantId),
}

/// What hardware has to do with a packet of a connection that it has, or may be asked to take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hardware {
    /// Hardware should have forwarded it.
    Missed,
    /// It was under way when hardware took the connection.
    Late,
    /// Rules are kept from their packets while a new policy is enforced.
    Fenced,
    /// Hardware has the connection, but no rule of it matches such a packet.
    NotSuch,
    /// Hardware is told to give the connection back.
    TakenBack(Revocation),
    /// Refused before, for this reason; asked again later.
    Waits(Declined),
    /// The configuration keeps the connection in software: its service, or its backend, which drains.
    Barred,
    /// It is captured, which takes software.
    Captured,
    /// No rule could match such a packet, so it is no occasion to ask.
    NoOccasion,
    /// Enough connections were asked for in this burst.
    NextBurst,
    /// The way of one direction, or who is at its next hop, is not known now.
    WayUnknown,
    /// Hardware cannot take the way of either direction.
    Cannot(Declined),
    /// Hardware is asked to take it.
    Asked,
    /// There was no room for asking.
    AskRefused,
}
