//! The states of a connection as seen from the middle of the path, and what moves between them.
//!
//! A pure function: [`State::next`] takes a state, a segment's flags and direction, and gives the next
//! state. It keeps no sequence numbers: Millrace does not judge segments, the two ends do (RFC 9293
//! §3.10.7); the state only decides how long silence is believed.

use crate::flow::{Direction, Protocol};
use crate::snapshot::Timeouts;
use crate::wire::parse::TcpFlags;

/// What is believed of a connection.
///
/// TCP whose both directions pass Millrace (`nat`); C: from the client, B: from the backend:
///
/// ```text
///       C SYN              B SYN|ACK             C ACK
///  (none) ---> SynSent -----------> SynReceived ------> Established <------------ PickedUp
///                                         |              |       |    any B         ^
///                                 C FIN   |        C FIN |       | B FIN            | C segment, no SYN,
///                                         v              v       v                  | no entry
///                                       FinWaitClient <--+       +--> FinWaitBackend  (none)
///                                             | B FIN                    | C FIN
///                                             v                          v
///                                        LastAckClient              LastAckBackend
///                                             | C ACK                    | B ACK
///                                             +--------> TimeWait <------+
///
///  every state above:   C RST --> ResetClient      B RST --> ResetBackend
///  ResetClient:   C sends on, no RST --> Established      (that RST was not the client's)
///  ResetBackend:  B sends on, no RST --> Established      (that RST was not the backend's)
///  TimeWait, LastAck*, Reset*:  C SYN --> the port is used again: Outcome::Reuse
/// ```
///
/// A connection that had not completed its handshake does not become `Established` out of `Reset*`;
/// only a backend's SYN|ACK brings it back, to `SynReceived`. A SYN in `Established` or `FinWait*`
/// changes nothing: the ends answer it with a challenge ACK (RFC 9293 §3.10.7.4), and if the client
/// really has forgotten the connection its RST follows.
///
/// TCP of which only the client's half passes Millrace (`dsr`):
///
/// ```text
///          C SYN            C ACK                C FIN
///  (none) ------> SynSent -------> Established --------> FinWaitClient --C SYN--> Outcome::Reuse
///  (none) --no SYN--> PickedUp --C, later than the first--> Established
///  every state:  C RST --> ResetClient --C sends on--> Established
/// ```
///
/// UDP:
///
/// ```text
///  nat:  (none) --C--> Unreplied --B--> Answered --C--> Replied
///  dsr:  (none) --C--> Unreplied --C, later than the first--> Replied
/// ```
///
/// An answer alone proves nothing of the client: backends answer spoofed datagrams, too.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum State {
    /// The client's SYN was seen.
    SynSent = 1,
    /// The backend's SYN|ACK was seen.
    SynReceived,
    /// The connection was met in its middle and so far only one side has spoken.
    PickedUp,
    /// The handshake is complete.
    Established,
    /// The client has sent FIN; under `dsr` this is all that is seen of the close.
    FinWaitClient,
    /// The backend has sent FIN.
    FinWaitBackend,
    /// Both have sent FIN, the client first; the backend's is not acknowledged yet.
    LastAckClient,
    /// Both have sent FIN, the backend first; the client's is not acknowledged yet.
    LastAckBackend,
    /// Closed by both sides.
    TimeWait,
    /// Ended by a RST from the client's side.
    ResetClient,
    /// Ended by a RST from the backend's side.
    ResetBackend,
    /// UDP, only the client has sent.
    Unreplied,
    /// UDP, the backend has answered, and the client has not been heard since.
    Answered,
    /// UDP, the client has sent again after an answer; under `dsr`: again.
    Replied,
}

/// One packet as the state machine sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// Which way it travels.
    pub direction: Direction,
    /// TCP flags; ignored for UDP.
    pub flags: TcpFlags,
    /// Whether replies never pass Millrace.
    pub one_way: bool,
    /// Whether the connection still counts as half-open.
    pub half_open: bool,
    /// Whether it came at a later tick than the packet before it.
    pub later: bool,
}

impl Segment {
    fn is_original(&self) -> bool {
        self.direction == Direction::Original
    }

    /// SYN without ACK from the client: it opens a connection.
    fn opens(&self) -> bool {
        self.is_original() && self.flags.syn() && !self.flags.ack()
    }

    /// SYN|ACK from the backend.
    fn accepts(&self) -> bool {
        !self.is_original() && self.flags.syn() && self.flags.ack()
    }
}

/// What a packet did to its connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Outcome {
    /// The state is as before.
    Unchanged,
    /// The state is now this one.
    Changed(State),
    /// A SYN on a connection that has ended: the client uses its port again. The packet was not
    /// counted; the caller removes the entry and schedules the packet as new.
    Reuse,
}

impl State {
    /// All states, in declaration order.
    pub const ALL: [State; 14] = [
        State::SynSent,
        State::SynReceived,
        State::PickedUp,
        State::Established,
        State::FinWaitClient,
        State::FinWaitBackend,
        State::LastAckClient,
        State::LastAckBackend,
        State::TimeWait,
        State::ResetClient,
        State::ResetBackend,
        State::Unreplied,
        State::Answered,
        State::Replied,
    ];

    /// The state a connection starts in, by the flags of its first packet. (A RST opens nothing that is
    /// worth an entry; the caller forwards it without.)
    #[inline]
    #[must_use]
    pub const fn opening(protocol: Protocol, flags: TcpFlags) -> State {
        match protocol {
            Protocol::Udp => State::Unreplied,
            Protocol::Tcp if flags.syn() && !flags.ack() => State::SynSent,
            Protocol::Tcp => State::PickedUp,
        }
    }

    /// Whether a connection that *starts* in this state counts against the half-open share. One that
    /// comes from such a state keeps counting until [`State::confirms`].
    #[inline]
    #[must_use]
    pub const fn is_opening(self) -> bool {
        use State::{Answered, PickedUp, SynReceived, SynSent, Unreplied};
        matches!(self, SynSent | SynReceived | PickedUp | Unreplied | Answered)
    }

    /// Whether reaching this state proves that both ends take part (or, one-way, suggests it).
    #[inline]
    #[must_use]
    pub const fn confirms(self) -> bool {
        !self.is_opening() && !self.is_reset()
    }

    /// Ended by a RST.
    #[inline]
    #[must_use]
    pub const fn is_reset(self) -> bool {
        matches!(self, State::ResetClient | State::ResetBackend)
    }

    /// Over, as far as can be seen: kept only to catch stragglers.
    #[inline]
    #[must_use]
    pub const fn is_closed(self) -> bool {
        matches!(self, State::TimeWait) || self.is_reset()
    }

    /// The lower-case name used in output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            State::SynSent => "syn_sent",
            State::SynReceived => "syn_received",
            State::PickedUp => "picked_up",
            State::Established => "established",
            State::FinWaitClient => "fin_wait_client",
            State::FinWaitBackend => "fin_wait_backend",
            State::LastAckClient => "last_ack_client",
            State::LastAckBackend => "last_ack_backend",
            State::TimeWait => "time_wait",
            State::ResetClient => "reset_client",
            State::ResetBackend => "reset_backend",
            State::Unreplied => "unreplied",
            State::Answered => "answered",
            State::Replied => "replied",
        }
    }

    /// The state after `segment`; `None` if the client uses its port again.
    #[inline]
    #[must_use]
    pub fn next(self, segment: &Segment) -> Option<State> {
        match self {
            State::Unreplied | State::Answered | State::Replied => Some(self.next_udp(segment)),
            State::Established if !segment.flags.fin() && !segment.flags.rst() => Some(self),
            _ => self.next_tcp(segment),
        }
    }

    fn next_udp(self, segment: &Segment) -> State {
        match (self, segment.direction) {
            (State::Unreplied, Direction::Reply) => State::Answered,
            (State::Unreplied, Direction::Original) if segment.one_way && segment.later => State::Replied,
            (State::Answered, Direction::Original) => State::Replied,
            (unchanged, _) => unchanged,
        }
    }

    fn next_tcp(self, segment: &Segment) -> Option<State> {
        if segment.flags.rst() {
            return Some(self.after_rst(segment));
        }
        if segment.flags.syn() {
            return self.after_syn(segment);
        }
        Some(match self {
            State::SynSent | State::SynReceived | State::PickedUp => self.while_opening(segment),
            State::Established => after_first_fin(segment),
            State::FinWaitClient if segment.flags.fin() && !segment.is_original() => State::LastAckClient,
            State::FinWaitBackend if segment.flags.fin() && segment.is_original() => State::LastAckBackend,
            State::LastAckClient if segment.is_original() && !segment.flags.fin() => State::TimeWait,
            State::LastAckBackend if !segment.is_original() && !segment.flags.fin() => State::TimeWait,
            State::ResetClient | State::ResetBackend => self.after_spoofed_rst(segment),
            unchanged => unchanged,
        })
    }

    fn after_rst(self, segment: &Segment) -> State {
        match (self, segment.direction) {
            // Closed by both sides already, or the first RST counts: the timeout is short either way.
            (State::TimeWait | State::ResetClient | State::ResetBackend, _) => self,
            (_, Direction::Original) => State::ResetClient,
            (_, Direction::Reply) => State::ResetBackend,
        }
    }

    fn after_syn(self, segment: &Segment) -> Option<State> {
        if segment.opens() {
            return match self {
                State::TimeWait
                | State::LastAckClient
                | State::LastAckBackend
                | State::ResetClient
                | State::ResetBackend => None,
                State::FinWaitClient if segment.one_way => None,
                State::PickedUp => Some(State::SynSent),
                unchanged => Some(unchanged),
            };
        }
        let handshake = self == State::SynSent || (self.is_reset() && segment.half_open);
        Some(if segment.accepts() && handshake { State::SynReceived } else { self })
    }

    fn while_opening(self, segment: &Segment) -> State {
        let complete = match self {
            State::SynReceived => segment.is_original() && segment.flags.ack(),
            State::SynSent => segment.one_way && segment.flags.ack(),
            _ => !segment.is_original() || (segment.one_way && segment.later),
        };
        if complete { after_first_fin(segment) } else { self }
    }

    fn after_spoofed_rst(self, segment: &Segment) -> State {
        let sender = if self == State::ResetClient { Direction::Original } else { Direction::Reply };
        if segment.direction == sender && !segment.half_open { after_first_fin(segment) } else { self }
    }
}

/// `Established`, or the first step out of it if the segment carries a FIN.
fn after_first_fin(segment: &Segment) -> State {
    match (segment.flags.fin(), segment.direction) {
        (false, _) => State::Established,
        (true, Direction::Original) => State::FinWaitClient,
        (true, Direction::Reply) => State::FinWaitBackend,
    }
}

impl Timeouts {
    /// How long a connection in `state` may be silent, milliseconds.
    #[inline]
    #[must_use]
    pub const fn timeout_ms(&self, state: State) -> u32 {
        match state {
            State::SynSent | State::SynReceived | State::PickedUp => self.tcp_half_open_ms,
            State::Established => self.tcp_established_ms,
            State::FinWaitClient | State::FinWaitBackend | State::LastAckClient | State::LastAckBackend => {
                self.tcp_closing_ms
            }
            State::TimeWait => self.tcp_time_wait_ms,
            State::ResetClient | State::ResetBackend => self.tcp_reset_ms,
            State::Unreplied | State::Answered => self.udp_unreplied_ms,
            State::Replied => self.udp_replied_ms,
        }
    }
}
