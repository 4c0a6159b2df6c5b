//! One end of a TCP connection: enough of RFC 9293 to notice when the network between the ends does
//! something to a connection that it must not. Go-back-N, a fixed window, paced.

use crate::frames::{ACK, End, FIN, PSH, RST, SYN, Segment, Transport};

const RTO_NS: u64 = 300_000_000;
const RTO_MAX_NS: u64 = 2_000_000_000;
const RETRIES_MAX: u32 = 12;
/// How far a sequence number may be off to be taken seriously.
const NEAR: u32 = 1 << 20;

/// How an end leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Leave {
    /// Sends FIN as soon as all is sent and received.
    First,
    /// Sends FIN once the other has.
    Second,
    /// Sends RST as soon as all is sent and received.
    Reset,
    /// Says nothing any more.
    Vanish,
}

/// What an end is going to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Bytes it sends,
    pub(crate) sends: u32,
    /// and gets.
    pub(crate) expects: u32,
    pub(crate) leave: Leave,
    /// Bytes per segment.
    pub(crate) segment: u16,
    /// Segments under way at most.
    pub(crate) window: u32,
    /// Time between two of its segments.
    pub(crate) gap_ns: u64,
}

/// How it ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Over {
    /// Both directions are closed, or it left as it wanted to.
    Well,
    /// The other end, or somebody in its name, sent RST.
    Reset,
    /// Nobody answered.
    TimedOut,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    SynSent,
    SynReceived,
    Open,
    Over(Over),
}

/// One end.
#[derive(Clone, Debug)]
pub(crate) struct Tcp {
    me: End,
    peer: End,
    plan: Plan,
    state: State,
    /// Sequence numbers before the first byte.
    mine: u32,
    theirs: u32,
    /// In bytes from the first one; FIN counts as one.
    acked: u32,
    next: u32,
    highest: u32,
    got: u32,
    peer_closed: bool,
    retries: u32,
    retransmit_at: Option<u64>,
    send_at: u64,
    /// It has ended, with a RST, what the other end remembered of this port.
    cleared: bool,
}

impl Tcp {
    /// A client; its first segment is a SYN.
    pub(crate) fn connect(
        now: u64,
        (me, peer): (End, End),
        plan: Plan,
        mine: u32,
        out: &mut Vec<Segment>,
    ) -> Tcp {
        let mut tcp = Tcp::new((me, peer), plan, mine, State::SynSent);
        tcp.send(SYN, 0, 0, out);
        tcp.arm(now);
        tcp
    }

    /// A server, which has got a SYN.
    pub(crate) fn accept(now: u64, syn: &Segment, plan: Plan, mine: u32, out: &mut Vec<Segment>) -> Tcp {
        let mut tcp = Tcp::new((syn.to, syn.from), plan, mine, State::SynReceived);
        let Transport::Tcp { seq, .. } = syn.transport else { unreachable!("a SYN is TCP") };
        tcp.theirs = seq;
        tcp.send(SYN | ACK, 0, 0, out);
        tcp.arm(now);
        tcp
    }

    fn new((me, peer): (End, End), plan: Plan, mine: u32, state: State) -> Tcp {
        Tcp {
            me,
            peer,
            plan,
            state,
            mine,
            theirs: 0,
            acked: 0,
            next: 0,
            highest: 0,
            got: 0,
            peer_closed: false,
            retries: 0,
            retransmit_at: None,
            send_at: 0,
            cleared: false,
        }
    }

    pub(crate) fn over(&self) -> Option<Over> {
        if let State::Over(how) = self.state { Some(how) } else { None }
    }

    /// Whether its next SYN may be the first that is heard of it: by a RST it has ended what there was.
    pub(crate) fn begins_anew(&self) -> bool {
        self.state == State::SynSent && self.cleared
    }

    /// Whether it answers at all.
    pub(crate) fn is_alive(&self) -> bool {
        self.plan.leave != Leave::Vanish || !self.is_satisfied()
    }

    fn is_satisfied(&self) -> bool {
        self.state == State::Open && self.acked >= self.plan.sends && self.got >= self.plan.expects
    }

    /// When it wants to be woken.
    pub(crate) fn wake_at(&self) -> Option<u64> {
        if !self.is_alive() {
            return None;
        }
        let more = self.state == State::Open && self.next < self.limit();
        let send_at = more.then_some(self.send_at);
        [self.retransmit_at, send_at].into_iter().flatten().min()
    }

    /// Bytes it may have sent by now: FIN is the last.
    fn limit(&self) -> u32 {
        let closes = match self.plan.leave {
            Leave::First => self.is_satisfied(),
            Leave::Second => self.peer_closed,
            Leave::Reset | Leave::Vanish => false,
        };
        let window = self.acked + self.plan.window * u32::from(self.plan.segment);
        (self.plan.sends + u32::from(closes)).min(window.max(self.acked + 1))
    }

    fn arm(&mut self, now: u64) {
        let timeout = (RTO_NS << self.retries.min(3)).min(RTO_MAX_NS);
        self.retransmit_at = Some(now + timeout);
    }

    fn send(&self, flags: u8, offset: u32, payload_len: u16, out: &mut Vec<Segment>) {
        let seq = if flags & SYN != 0 { self.mine } else { self.mine.wrapping_add(1).wrapping_add(offset) };
        let received = self.got + u32::from(self.peer_closed);
        let ack = if flags & ACK != 0 { self.theirs.wrapping_add(1).wrapping_add(received) } else { 0 };
        let transport = Transport::Tcp { seq, ack, flags };
        out.push(Segment { from: self.me, to: self.peer, transport, payload_len, ttl: 64 });
    }

    /// Sends what may be sent now.
    fn pump(&mut self, now: u64, out: &mut Vec<Segment>) {
        if self.plan.leave == Leave::Reset && self.is_satisfied() {
            self.send(RST | ACK, self.next, 0, out);
            self.finish(Over::Well);
            return;
        }
        while self.state == State::Open && self.next < self.limit() && now >= self.send_at {
            let left = self.plan.sends - self.next.min(self.plan.sends);
            if left == 0 {
                self.send(FIN | ACK, self.next, 0, out);
                self.next += 1;
            } else {
                let len = left.min(u32::from(self.plan.segment));
                self.send(ACK | PSH, self.next, len as u16, out);
                self.next += len;
                self.send_at = now + self.plan.gap_ns;
            }
            self.highest = self.highest.max(self.next);
            if self.retransmit_at.is_none() {
                self.arm(now);
            }
        }
    }

    fn finish(&mut self, how: Over) {
        self.state = State::Over(how);
        self.retransmit_at = None;
    }

    /// Time has come for something.
    pub(crate) fn on_timer(&mut self, now: u64, out: &mut Vec<Segment>) {
        if !self.is_alive() {
            return;
        }
        if self.retransmit_at.is_some_and(|at| at <= now) {
            self.retries += 1;
            if self.retries > RETRIES_MAX {
                return self.finish(Over::TimedOut);
            }
            self.arm(now);
            match self.state {
                State::SynSent => self.send(SYN, 0, 0, out),
                State::SynReceived => self.send(SYN | ACK, 0, 0, out),
                State::Open => self.next = self.acked,
                State::Over(_) => self.retransmit_at = None,
            }
        }
        self.pump(now, out);
    }

    /// A segment has come.
    pub(crate) fn on_segment(&mut self, now: u64, segment: &Segment, out: &mut Vec<Segment>) {
        let Transport::Tcp { seq, ack, flags } = segment.transport else { return };
        if !self.is_alive() {
            return;
        }
        if flags & RST != 0 {
            return self.on_reset(seq, ack);
        }
        match self.state {
            State::SynSent if flags & (SYN | ACK) == SYN | ACK && ack == self.mine.wrapping_add(1) => {
                self.theirs = seq;
                self.open();
                self.send(ACK, 0, 0, out);
            }
            State::SynSent => {
                // The other end remembers an earlier connection from this port.
                self.cleared = true;
                let transport = Transport::Tcp { seq: ack, ack: 0, flags: RST };
                out.push(Segment { from: self.me, to: self.peer, transport, payload_len: 0, ttl: 64 });
                return;
            }
            State::SynReceived if flags & SYN != 0 => return self.send(SYN | ACK, 0, 0, out),
            State::SynReceived if ack != self.mine.wrapping_add(1) => {}
            State::SynReceived => self.open(),
            State::Over(how) if how != Over::Well || self.plan.leave == Leave::Reset => {
                out.extend(refusal(segment));
                return;
            }
            State::Open | State::Over(_) => {}
        }
        if flags & SYN != 0 && (self.theirs != seq || segment.from == self.peer && flags & ACK != 0) {
            self.send(ACK, self.next, 0, out);
            return self.pump(now, out);
        }
        self.on_ack(now, ack);
        self.on_data(seq, flags, segment.payload_len, out);
        if self.state == State::Open && self.peer_closed && self.acked > self.plan.sends {
            self.finish(Over::Well);
        }
        self.pump(now, out);
    }

    fn open(&mut self) {
        self.state = State::Open;
        self.retransmit_at = None;
        self.retries = 0;
    }

    fn on_reset(&mut self, seq: u32, ack: u32) {
        let expected = match self.state {
            State::SynSent => ack == self.mine.wrapping_add(1),
            State::Over(_) => false,
            _ => seq.wrapping_sub(self.theirs.wrapping_add(1).wrapping_add(self.got)) < NEAR,
        };
        if expected {
            self.finish(Over::Reset);
        }
    }

    fn on_ack(&mut self, now: u64, ack: u32) {
        let offset = ack.wrapping_sub(self.mine.wrapping_add(1));
        if self.state != State::Open || offset > self.highest || offset <= self.acked {
            return;
        }
        self.acked = offset;
        self.next = self.next.max(offset);
        self.retries = 0;
        self.retransmit_at = None;
        if self.acked < self.next {
            self.arm(now);
        }
    }

    fn on_data(&mut self, seq: u32, flags: u8, len: u16, out: &mut Vec<Segment>) {
        if len == 0 && flags & FIN == 0 {
            return;
        }
        let offset = seq.wrapping_sub(self.theirs.wrapping_add(1));
        if offset == self.got && !self.peer_closed && self.state != State::SynReceived {
            self.got += u32::from(len);
            self.peer_closed = flags & FIN != 0;
        }
        self.send(ACK, self.next, 0, out);
    }
}

/// What a host answers to a segment of a connection that it does not know.
pub(crate) fn refusal(segment: &Segment) -> Option<Segment> {
    let Transport::Tcp { ack, flags, .. } = segment.transport else { return None };
    if flags & RST != 0 {
        return None;
    }
    let transport = Transport::Tcp { seq: ack, ack: 0, flags: RST };
    Some(Segment { from: segment.to, to: segment.from, transport, payload_len: 0, ttl: 64 })
}
