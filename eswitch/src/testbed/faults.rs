//! Faults during steady load, in virtual time: a MODEL of who is late, who is lost, and for how long.
//!
//! ```text
//!           ┌──────────────── again, to the wire ───────────────┐
//!           ▼                                                   │
//! wire ─► pipeline ─┬─ hit ─► wire ─► backend                   │
//!                   └─ miss ─► (passage) ─► software, one core ─┘ (passage)
//! ```
//!
//! To the testbed's boxes comes software: what no rule takes misses to it, waits for it, and enters the
//! device again, as packets of a representor do. Connections in hardware are hits, short ones are misses.
//! What a fault does:
//!
//! * link flap: nothing comes in by the wire. Rules outlive it: a port that loses its link is not stopped.
//! * rule-update storm: a flow queue takes each update's time, and connections' first packets are misses. No
//!   source gives updates a price in the pipeline, so it is nothing, unless `stall_ps` asks what if.
//! * traffic spike: the offered load is a multiple.
//! * backend death: its packets are lost until health checks tell; then its rules are taken out one by one,
//!   and their connections' packets are misses, until another backend's rules take them.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use super::histogram::Histogram;
use super::{Station, Stations, Testbed, frame_bytes};
use crate::model::profile::Profile;
use crate::model::timing::{Rng, Sampler};

const PS: u64 = 1_000;
/// How many packets a connection has before it asks for rules; of a storm's connection, all there are.
const PRICE: u32 = 8;
/// Rules of a connection, one for each direction.
const RULES: u32 = 2;
/// The backend that dies.
const DEAD: usize = 1;

/// What goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The wire in is down.
    LinkFlap,
    /// Rules come and go, as many of each.
    RuleStorm {
        /// Of both kinds.
        updates_per_second: u64,
        /// How long each keeps packets from being looked up: picoseconds.
        stall_ps: u64,
    },
    /// More is offered.
    Spike {
        /// Times what is offered otherwise.
        times: u64,
    },
    /// The second backend takes nothing.
    BackendDeath {
        /// Until health checks tell: nanoseconds.
        detection_ns: u64,
    },
}

/// What takes a packet that no rule takes.
#[derive(Clone, Copy, Debug)]
pub struct Software {
    /// What it costs a core.
    pub packet_ns: u64,
    /// The way to the core and back, without waiting.
    pub passage_ns: u64,
    /// How many packets may wait.
    pub room_packets: u64,
}

/// A fault, and what surrounds it.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// What goes wrong.
    pub fault: Fault,
    /// From when.
    pub begin_ns: u64,
    /// Until when.
    pub end_ns: u64,
    /// When the load ends.
    pub until_ns: u64,
    /// Bytes of UDP payload.
    pub payload: u64,
    /// The load but for a spike.
    pub packets_per_second: u64,
    /// How many packets in a hundred are of connections that are not in hardware.
    pub software_percent: u64,
    /// Connections in hardware.
    pub connections: u32,
    /// What takes what misses.
    pub software: Software,
}

/// When health checks with these settings find a death, for one that happens at no particular moment.
#[derive(Clone, Copy, Debug)]
pub struct Checks {
    /// From one probe to the next.
    pub interval_ns: u64,
    /// How long an answer may take; the next probe follows.
    pub timeout_ns: u64,
    /// Failures until it is believed.
    pub fall: u64,
    /// Within which findings are put in force together.
    pub batch_ns: u64,
}

impl Checks {
    /// Nanoseconds from the death on.
    #[must_use]
    pub fn detection_ns(&self, seed: u64) -> u64 {
        let mut rng = Rng::new(seed);
        rng.below(self.interval_ns + 1) + self.fall * self.timeout_ns + rng.below(self.batch_ns + 1)
    }
}

/// What became of the packets of one stage, by one way.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Part {
    /// From before the device's wire to the backend: nanoseconds.
    pub latency: Histogram,
    /// On a link that was down.
    pub lost_on_link: u64,
    /// In the pipeline, or before a wire: no room.
    pub lost_in_queue: u64,
    /// Before software: no room.
    pub lost_in_software: u64,
    /// To a backend that was dead.
    pub lost_to_dead: u64,
}

impl Part {
    /// All that was lost.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost_on_link + self.lost_in_queue + self.lost_in_software + self.lost_to_dead
    }
}

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Course {
    /// Packets that were offered.
    pub offered: u64,
    /// What rules took: before, during and after the fault. A packet is of the time at which it was offered.
    pub hits: [Part; 3],
    /// What software took.
    pub misses: [Part; 3],
    /// From an update's request until it was in force: nanoseconds.
    pub updates: Histogram,
    /// Updates that found no room.
    pub updates_refused: u64,
    /// When the first and the last packet was lost from the fault's begin on; `None`: none was.
    pub lost_ns: Option<(u64, u64)>,
    /// When the last rule of the dead backend was out of force.
    pub revoked_ns: Option<u64>,
    /// When the last connection of the dead backend was in hardware again.
    pub reinstalled_ns: Option<u64>,
}

/// One connection's rules, after its backend died.
#[derive(Clone, Copy, Default)]
struct Moved {
    /// Packets in software since.
    packets: u32,
    /// When rules to the other backend are in force; 0: not asked for.
    installed_ps: u64,
}

/// A packet on its way.
#[derive(Clone, Copy)]
struct Packet {
    /// When it was offered.
    at: u64,
    backend: usize,
    stage: usize,
}

/// A run under way.
struct Running<'a> {
    testbed: &'a Testbed,
    plan: Plan,
    stations: Stations,
    software: Station,
    /// On the way back from software: when they come, in this order.
    returning: VecDeque<(u64, Packet)>,
    queue: Station,
    create: Sampler,
    destroy: Sampler,
    latency: Sampler,
    rng: Rng,
    /// When each connection's old rules are out of force, if they ever are.
    revoked_ps: Vec<u64>,
    moved: Vec<Moved>,
    wire_ps: u64,
    cost_ps: u64,
    next_update_ps: u64,
    course: Course,
}

impl Testbed {
    /// Has a fault during a load. `profile` is the testbed's own.
    #[must_use]
    pub fn suffer(&self, profile: &Profile, plan: Plan, seed: u64) -> Course {
        let mut running = Running::new(self, profile, plan, seed);
        running.revoke();
        running.load();
        running.returns_until(u64::MAX);
        running.course
    }
}

impl<'a> Running<'a> {
    fn new(testbed: &'a Testbed, profile: &Profile, plan: Plan, seed: u64) -> Running<'a> {
        let short = frame_bytes(plan.payload) <= testbed.short_bytes_max;
        let depth = u64::from(profile.queue_depth_max) * profile.create_cost_ns.median;
        let connections = plan.connections as usize;
        Running {
            testbed,
            plan,
            stations: testbed.stations(),
            software: Station::new(plan.software.room_packets * plan.software.packet_ns * PS),
            returning: VecDeque::new(),
            queue: Station::new(depth * PS),
            create: Sampler::new(profile.create_cost_ns),
            destroy: Sampler::new(profile.destroy_cost_ns),
            latency: Sampler::new(profile.create_latency_ns),
            rng: Rng::new(seed),
            revoked_ps: vec![u64::MAX; connections],
            moved: vec![Moved::default(); connections],
            wire_ps: testbed.wire_ps(plan.payload).max(1),
            cost_ps: if short { testbed.short_cost_ps } else { testbed.cost_ps },
            next_update_ps: plan.begin_ns * PS,
            course: Course::default(),
        }
    }

    fn is_during(&self, at: u64) -> bool {
        (self.plan.begin_ns * PS..self.plan.end_ns * PS).contains(&at)
    }

    /// Bursts at the load's rate, each somewhere in its time, and what else happens until then.
    fn load(&mut self) {
        let (burst, until) = (self.testbed.around.burst_packets, self.plan.until_ns * PS);
        let mut start = 0;
        while start < until {
            let times = match self.plan.fault {
                Fault::Spike { times } if self.is_during(start) => times,
                _ => 1,
            };
            let rate = (self.plan.packets_per_second * times).max(1);
            let slot = (burst * super::PICOSECONDS / rate).max(burst * self.wire_ps);
            let mut at = start + self.rng.below(slot - burst * self.wire_ps + 1);
            for _ in 0..burst {
                self.updates_until(at);
                self.offer(at);
                at += self.wire_ps;
            }
            start += slot;
        }
    }

    /// One packet of the steady load.
    fn offer(&mut self, at: u64) {
        if self.rng.below(100) < self.plan.software_percent {
            let dead = self.tells(at) && self.is_during(at);
            let backend = if dead { 1 - DEAD } else { self.rng.below(2) as usize };
            return self.enter(at, backend, false);
        }
        let connection = self.rng.below(u64::from(self.plan.connections)) as u32;
        let Some(backend) = self.testbed.verdicts[(connection % super::SOURCES) as usize] else { return };
        if self.revoked_ps[connection as usize] > at {
            return self.enter(at, usize::from(backend), true);
        }
        let mut moved = self.moved[connection as usize];
        moved.packets += 1;
        if moved.installed_ps == 0 && moved.packets % PRICE == 0 {
            // Refused: it asks again as late as the first time.
            moved.installed_ps = self.create_rules(at).unwrap_or(0);
        }
        self.moved[connection as usize] = moved;
        self.enter(at, 1 - DEAD, moved.installed_ps != 0 && moved.installed_ps <= at);
    }

    /// A connection asks for its rules: when they are in force.
    fn create_rules(&mut self, at: u64) -> Option<u64> {
        let cost = (0..RULES).map(|_| self.create.draw(&mut self.rng)).sum::<u64>() * PS;
        let Some(done) = self.queue.pass(at, cost) else {
            self.course.updates_refused += u64::from(RULES);
            return None;
        };
        let installed = done + self.latency.draw(&mut self.rng) * PS;
        self.course.updates.add((installed - at) / PS);
        let last = self.course.reinstalled_ns.unwrap_or(0).max(installed / PS);
        self.course.reinstalled_ns = Some(last);
        Some(installed)
    }

    /// Whether health checks have told of a death.
    fn tells(&self, at: u64) -> bool {
        match self.plan.fault {
            Fault::BackendDeath { detection_ns } => at >= (self.plan.begin_ns + detection_ns) * PS,
            _ => false,
        }
    }

    /// Decides when the dead backend's rules go: one after the other, once its death is known.
    fn revoke(&mut self) {
        let Fault::BackendDeath { detection_ns } = self.plan.fault else { return };
        let mut at = (self.plan.begin_ns + detection_ns) * PS;
        for connection in 0..self.plan.connections {
            if self.testbed.verdicts[(connection % super::SOURCES) as usize] != Some(DEAD as u8) {
                continue;
            }
            at += (0..RULES).map(|_| self.destroy.draw(&mut self.rng)).sum::<u64>() * PS;
            let out = at + self.latency.draw(&mut self.rng) * PS;
            self.revoked_ps[connection as usize] = out;
            self.course.revoked_ns = Some(self.course.revoked_ns.unwrap_or(0).max(out / PS));
        }
        // Until then the flow queue has no time for anything else.
        self.queue.delay(at, 0);
    }

    /// A storm's updates that are due: every other one is a new connection's, with its packets.
    fn updates_until(&mut self, at: u64) {
        let Fault::RuleStorm { updates_per_second, stall_ps } = self.plan.fault else { return };
        let between = (super::PICOSECONDS / updates_per_second.max(1)).max(1);
        while self.next_update_ps <= at && self.next_update_ps < self.plan.end_ns * PS {
            let due = self.next_update_ps;
            let number = (due - self.plan.begin_ns * PS) / between;
            let creation = number % 2 == 0;
            let cost = if creation { &self.create } else { &self.destroy }.draw(&mut self.rng) * PS;
            match self.queue.pass(due, cost) {
                Some(done) => {
                    let late = done - due + self.latency.draw(&mut self.rng) * PS;
                    self.course.updates.add(late / PS);
                }
                None => self.course.updates_refused += 1,
            }
            if stall_ps > 0 {
                self.returns_until(due);
                self.stations.pipeline.delay(due, stall_ps);
            }
            if creation {
                (0..PRICE).for_each(|_| self.enter(due, (number / 2 % 2) as usize, false));
            }
            self.next_update_ps += between;
        }
    }

    /// A packet comes by the wire; `hit`: rules take it.
    fn enter(&mut self, at: u64, backend: usize, hit: bool) {
        self.course.offered += 1;
        let stage = usize::from(at >= self.plan.begin_ns * PS) + usize::from(at >= self.plan.end_ns * PS);
        let packet = Packet { at, backend, stage };
        if self.plan.fault == Fault::LinkFlap && self.is_during(at) {
            self.lost(&packet);
            return self.part(stage, hit).lost_on_link += 1;
        }
        let Some(came) = self.stations.wire_in.pass(at, self.wire_ps) else {
            self.lost(&packet);
            return self.part(stage, hit).lost_in_queue += 1;
        };
        self.returns_until(came);
        let Some(looked_up) = self.stations.pipeline.pass(came, self.cost_ps) else {
            self.lost(&packet);
            return self.part(stage, hit).lost_in_queue += 1;
        };
        if hit {
            return self.leave(looked_up, &packet, true);
        }
        let half = self.plan.software.passage_ns * PS / 2;
        match self.software.pass(looked_up + half, self.plan.software.packet_ns * PS) {
            Some(sent) => self.returning.push_back((sent + half, packet)),
            None => {
                self.lost(&packet);
                self.part(stage, false).lost_in_software += 1;
            }
        }
    }

    /// What software has sent until then enters the device again.
    fn returns_until(&mut self, now: u64) {
        while let Some((at, packet)) = self.returning.front().copied().filter(|(at, _)| *at <= now) {
            self.returning.pop_front();
            match self.stations.pipeline.pass(at, self.cost_ps) {
                Some(looked_up) => self.leave(looked_up, &packet, false),
                None => {
                    self.lost(&packet);
                    self.part(packet.stage, false).lost_in_queue += 1;
                }
            }
        }
    }

    /// A packet goes to its backend.
    fn leave(&mut self, at: u64, packet: &Packet, hit: bool) {
        let wire_ps = self.wire_ps;
        let sent = self.stations.wire_out.pass(at, wire_ps);
        let arrived = sent.and_then(|sent| self.stations.backends[packet.backend].pass(sent, wire_ps));
        let Some(arrived) = arrived else {
            self.lost(packet);
            return self.part(packet.stage, hit).lost_in_queue += 1;
        };
        let dies = matches!(self.plan.fault, Fault::BackendDeath { .. });
        if dies && packet.backend == DEAD && self.is_during(packet.at) {
            self.lost(packet);
            return self.part(packet.stage, hit).lost_to_dead += 1;
        }
        let around = &self.testbed.around;
        // Through the device twice, if it was in software.
        let passages = around.forward_ns * if hit { 1 } else { 2 } + around.switch_ns;
        self.part(packet.stage, hit).latency.add((arrived - packet.at) / PS + passages);
    }

    fn part(&mut self, stage: usize, hit: bool) -> &mut Part {
        if hit { &mut self.course.hits[stage] } else { &mut self.course.misses[stage] }
    }

    /// Remembers when, from the fault on.
    fn lost(&mut self, packet: &Packet) {
        let at = packet.at / PS;
        if at >= self.plan.begin_ns {
            let (first, last) = self.course.lost_ns.unwrap_or((at, at));
            self.course.lost_ns = Some((first.min(at), last.max(at)));
        }
    }
}
