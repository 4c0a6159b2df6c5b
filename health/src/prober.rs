//! The probes themselves: packets out, packets in, and how each went.
//!
//! TCP is smoltcp's, an interface and a socket for each probe under way; datagrams and echo requests are one
//! packet each way. A probe is known by the port that it comes from (an echo request by its identifier),
//! of which each is used again as late as possible. Nothing here waits, and nothing grows beyond
//! [`Prober::new`]'s bound.

mod message;
mod tcp;
#[cfg(test)]
mod tests;

use crate::machine::{Cause, Outcome, TargetId};
use dataplane::addr::Ip;
use dataplane::config::{Health, Probe};
use dataplane::ids::BackendId;
use dataplane::worker::PROBE_PORTS;
use message::{Asked, Heard};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use tcp::Tcp;

/// Bytes of the longest packet that is sent or understood: fits every link.
pub const PACKET_MAX: usize = dataplane::limits::MTU_MIN as usize;

/// Where packets go.
pub trait Wire {
    /// From now on a probe is under way from this port to this address, or none is: what else comes need not
    /// be brought here.
    fn expect(&mut self, port: u16, to: Option<Ip>);

    /// Sends an IP packet of the probe from `port` by the way of a backend's packets; gives a number that
    /// grows with each, or `None` if there is no room.
    fn send(&mut self, backend: BackendId, port: u16, packet: &[u8]) -> Option<u64>;

    /// How many packets to or from a backend may have been lost on our own side so far. If that need not be
    /// `exact`, as of shortly before.
    fn losses(&mut self, backend: BackendId, exact: bool) -> u64;

    /// What became of the last packet of the probe from `port`, which has this number.
    fn fate(&self, backend: BackendId, port: u16, number: u64) -> Fate;
}

/// What became of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It has left, and an answer to it can arrive.
    Left,
    /// It waits, or waited, until its next hop is found.
    Waits,
    /// It is still on our side, or no answer can arrive.
    Stuck,
}

/// A probe to be made.
#[derive(Clone, Debug)]
pub struct Job {
    /// For whom.
    pub target: TargetId,
    /// Whose way its packets take.
    pub backend: BackendId,
    /// Our address.
    pub local: Ip,
    /// The address that is asked.
    pub remote: Ip,
    /// The port that is asked.
    pub port: u16,
    /// What is asked, and how long an answer may take.
    pub health: Arc<Health>,
}

/// A probe under way.
struct Flight {
    job: Job,
    /// Where it comes from.
    port: u16,
    deadline_ms: u64,
    /// When to look after it.
    alarm_ms: u64,
    /// What our side had lost when it began.
    losses: u64,
    /// The last packet sent; `None` if one could not be.
    sent: Option<u64>,
    tcp: Option<Box<Tcp>>,
}

/// See the module's header.
pub struct Prober {
    /// By the port that they come from.
    flights: HashMap<u16, Flight>,
    flights_max: usize,
    next_port: u16,
    seed: u64,
    /// When to look after whom. Each has one that counts, [`Flight::alarm_ms`], which only comes nearer until
    /// it is due; others are passed over.
    alarms: BinaryHeap<Reverse<(u64, u16)>>,
}

impl Prober {
    /// A prober with at most `flights_max` probes under way.
    #[must_use]
    pub fn new(seed: u64, flights_max: usize) -> Prober {
        let ports = PROBE_PORTS.len();
        Prober {
            flights: HashMap::new(),
            flights_max: flights_max.min(ports / 2),
            next_port: PROBE_PORTS.start() + (seed % ports as u64) as u16,
            seed,
            alarms: BinaryHeap::new(),
        }
    }

    /// Whether one more probe may begin.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.flights.len() < self.flights_max
    }

    /// Probes under way.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.flights.len()
    }

    /// Begins a probe; only if [`Prober::has_room`]. Ends it at once if nothing can be sent.
    pub fn begin(&mut self, now_ms: u64, job: Job, wire: &mut impl Wire) -> Option<(TargetId, Outcome)> {
        let local_port = self.free_port();
        self.seed = self.seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        let tcp = matches!(job.health.probe, Probe::Tcp | Probe::Http(_))
            .then(|| Tcp::connect(now_ms, &job, local_port, self.seed).map(Box::new));
        let deadline_ms = now_ms + u64::from(job.health.timeout_ms);
        let (losses, target) = (wire.losses(job.backend, false), job.target);
        wire.expect(local_port, Some(job.remote));
        let port = local_port;
        let mut flight =
            Flight { job, port, deadline_ms, alarm_ms: deadline_ms, losses, sent: None, tcp: None };
        match tcp {
            Some(Some(tcp)) => {
                flight.tcp = Some(tcp);
                flight.step(now_ms, wire);
            }
            Some(None) => {}
            None => {
                let packet = message::question(&flight.job, local_port);
                flight.sent = packet.and_then(|packet| wire.send(flight.job.backend, port, &packet));
            }
        }
        if flight.sent.is_none() {
            wire.expect(local_port, None);
            return Some((target, Outcome::Void));
        }
        flight.alarm_ms = flight.next_ms(now_ms);
        self.alarms.push(Reverse((flight.alarm_ms, local_port)));
        self.flights.insert(local_port, flight);
        None
    }

    /// A probe is over.
    fn end(&mut self, port: u16, outcome: Outcome, wire: &mut impl Wire) -> Option<(TargetId, Outcome)> {
        wire.expect(port, None);
        Some((self.flights.remove(&port)?.job.target, outcome))
    }

    /// The port unused for longest. There is one: at most half of them are in use.
    fn free_port(&mut self) -> u16 {
        loop {
            let port = self.next_port;
            self.next_port = port.checked_add(1).unwrap_or(*PROBE_PORTS.start());
            if !self.flights.contains_key(&port) {
                return port;
            }
        }
    }

    /// Takes a packet in; gives the outcome if it ends a probe.
    pub fn on_packet(
        &mut self,
        now_ms: u64,
        packet: &[u8],
        wire: &mut impl Wire,
    ) -> Option<(TargetId, Outcome)> {
        let (port, heard) = message::read(packet, |port| self.flights.get(&port).map(Flight::asked))?;
        let flight = self.flights.get_mut(&port)?;
        let outcome = match (heard, &mut flight.tcp) {
            (Heard::Segment, Some(tcp)) => {
                tcp.take(packet);
                flight.step(now_ms, wire)
            }
            (Heard::Answer(outcome), _) => Some(outcome),
            (Heard::Segment, None) => None,
        };
        if let Some(outcome) = outcome {
            return self.end(port, outcome, wire);
        }
        let next_ms = flight.next_ms(now_ms);
        if next_ms < flight.alarm_ms {
            flight.alarm_ms = next_ms;
            self.alarms.push(Reverse((next_ms, port)));
        }
        None
    }

    /// Gives the outcome of the next probe whose time is up, and sends again what is due to be.
    pub fn poll(&mut self, now_ms: u64, wire: &mut impl Wire) -> Option<(TargetId, Outcome)> {
        while let Some(&Reverse((at, port))) = self.alarms.peek() {
            if at > now_ms {
                return None;
            }
            self.alarms.pop();
            let flight = self.flights.get_mut(&port).filter(|flight| flight.alarm_ms == at);
            let Some(flight) = flight else { continue };
            let outcome = match now_ms < flight.deadline_ms {
                true => flight.step(now_ms, wire),
                false => Some(flight.give_up(wire)),
            };
            if let Some(outcome) = outcome {
                return self.end(port, outcome, wire);
            }
            flight.alarm_ms = flight.next_ms(now_ms).max(now_ms + 1);
            self.alarms.push(Reverse((flight.alarm_ms, port)));
        }
        None
    }

    /// When [`Prober::poll`] may next have something to do.
    #[must_use]
    pub fn next_ms(&self) -> Option<u64> {
        self.alarms.peek().map(|Reverse((at, _))| *at)
    }

    /// Nothing is known of the probes under way: the checker was not there when answers may have come.
    pub fn give_up_all(&mut self, wire: &mut impl Wire) -> Vec<TargetId> {
        self.alarms.clear();
        self.flights.keys().for_each(|port| wire.expect(*port, None));
        self.flights.drain().map(|(_, flight)| flight.job.target).collect()
    }
}

impl Flight {
    fn asked(&self) -> Asked<'_> {
        Asked { job: &self.job, syn: self.tcp.as_ref().and_then(|tcp| tcp.unanswered()) }
    }

    /// Lets TCP do what it has to; gives the outcome if there is one.
    fn step(&mut self, now_ms: u64, wire: &mut impl Wire) -> Option<Outcome> {
        let Flight { job, port, sent, tcp, .. } = self;
        let tcp = tcp.as_mut()?;
        let outcome = tcp.step(now_ms, job);
        for packet in tcp.sent() {
            *sent = wire.send(job.backend, *port, &packet);
        }
        outcome
    }

    fn next_ms(&mut self, now_ms: u64) -> u64 {
        let again = self.tcp.as_mut().and_then(|tcp| tcp.next_ms(now_ms));
        again.map_or(self.deadline_ms, |again| again.min(self.deadline_ms))
    }

    /// No answer in time.
    fn give_up(&self, wire: &mut impl Wire) -> Outcome {
        let backend = self.job.backend;
        let fate = self.sent.map_or(Fate::Stuck, |number| wire.fate(backend, self.port, number));
        if fate == Fate::Stuck {
            return Outcome::Void;
        }
        if wire.losses(backend, true) != self.losses {
            return Outcome::Unclear;
        }
        match &self.job.health.probe {
            _ if fate == Fate::Waits => Outcome::Unfound,
            Probe::Udp(payload) if payload.is_empty() => Outcome::Good,
            _ => Outcome::Bad(Cause::Timeout),
        }
    }
}
