//! XenoFlow's testbed in virtual time: a MODEL of how fast, and how late, a device forwards.
//!
//! ```text
//! generator ─► switch ─► wire ─► [pipeline: rules] ─► wire ─► switch ─┬─► wire ─► first backend
//! who measures ──┘                                                   └─► wire ─► second backend
//! ```
//!
//! Every box that can be a bottleneck is a [`Station`]: one server, first come first served, with room for
//! so much work; what finds no room is lost there. Packets pass it one by one, in picoseconds. The first
//! backend answers who measures. All numbers are the profile's ([`Surroundings`]); where a packet goes,
//! rules of the software eSwitch say ([`Balancer`]). Equal seeds give equal results.

mod faults;
mod histogram;
mod rules;
mod station;
#[cfg(test)]
mod tests;

use crate::model::profile::{Profile, Surroundings};
use crate::model::refusal::Refusal;
use crate::model::timing::{Rng, Sampler};

pub use faults::{Checks, Course, Fault, Part, Plan, Software};
pub use histogram::Histogram;
pub use rules::Balancer;
pub use station::Station;

/// Ethernet, IPv4 and UDP headers.
pub const HEADER_BYTES: u64 = 42;
/// The shortest frame, without FCS.
pub const FRAME_BYTES_MIN: u64 = 60;
/// Sources that a load comes from.
pub const SOURCES: u32 = 256;
const PICOSECONDS: u64 = 1_000_000_000_000;

/// How long the frame of a datagram is, without FCS.
#[must_use]
pub fn frame_bytes(payload: u64) -> u64 {
    (HEADER_BYTES + payload).max(FRAME_BYTES_MIN)
}

/// What the generator sends.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Bytes of UDP payload.
    pub payload: u64,
    /// Packets a second that are asked for; a wire takes no more than it can.
    pub packets_per_second: u64,
    /// How many in a hundred come from sources that the rules give to the first backend.
    pub first_percent: u64,
    /// Packets of load.
    pub packets: u64,
    /// A probe beside every so many packets of load; 0: none.
    pub probe_every: u64,
}

/// What became of them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Outcome {
    /// Packets that came to the device, probes included.
    pub offered: u64,
    /// Those that the device had no time for.
    pub lost_in_pipeline: u64,
    /// Those that found no room before a wire, the device's or a backend's.
    pub lost_before_wire: u64,
    /// Those that no rule sent to a backend.
    pub unmatched: u64,
    /// Those that came to each backend.
    pub delivered: [u64; 2],
    /// Packets that the rules' entries counted.
    pub counted_packets: u64,
    /// Bytes that they counted.
    pub counted_bytes: u64,
    /// From the first packet's coming to the last one's leaving the device: picoseconds.
    pub took_ps: u64,
    /// How long each probe took from before the device's wire on: picoseconds, in order of time.
    pub probe_waits_ps: Vec<u64>,
}

impl Outcome {
    /// Packets a second that the device forwarded.
    #[must_use]
    pub fn packets_per_second(&self) -> f64 {
        self.counted_packets as f64 * PICOSECONDS as f64 / self.took_ps.max(1) as f64
    }

    /// The share of what was offered that the device lost.
    #[must_use]
    pub fn loss(&self) -> f64 {
        self.lost_in_pipeline as f64 / self.offered.max(1) as f64
    }
}

/// The testbed around one profile's device.
#[derive(Debug)]
pub struct Testbed {
    around: Surroundings,
    cost_ps: u64,
    short_cost_ps: u64,
    short_bytes_max: u64,
    room_ps: u64,
    /// Which backend the rules send each source's packets to.
    verdicts: Vec<Option<u8>>,
}

/// The queues of one run.
struct Stations {
    wire_in: Station,
    pipeline: Station,
    wire_out: Station,
    backends: [Station; 2],
}

impl Testbed {
    /// A testbed; `None` if the profile has none, or no packet rate.
    ///
    /// # Errors
    /// What the device says of the rules.
    pub fn new(profile: &Profile) -> Result<Option<Testbed>, Refusal> {
        let (Some(around), true) = (profile.testbed.clone(), profile.packets_per_second > 0) else {
            return Ok(None);
        };
        let mut balancer = Balancer::new(profile)?;
        let verdicts = (0..SOURCES).map(|source| balancer.backend(source)).collect();
        let short = profile.short_bytes_max > 0;
        let cost_ps = PICOSECONDS / profile.packets_per_second;
        Ok(Some(Testbed {
            around,
            cost_ps,
            short_cost_ps: if short { PICOSECONDS / profile.short_packets_per_second } else { cost_ps },
            short_bytes_max: u64::from(profile.short_bytes_max),
            room_ps: profile.burst_ns * 1000,
            verdicts,
        }))
    }

    /// What is around the device.
    #[must_use]
    pub fn around(&self) -> &Surroundings {
        &self.around
    }

    /// What a datagram takes on a wire: picoseconds.
    #[must_use]
    pub fn wire_ps(&self, payload: u64) -> u64 {
        let bits = (frame_bytes(payload) + self.around.wire_extra_bytes) * 8;
        (u128::from(bits) * u128::from(PICOSECONDS) / u128::from(self.around.wire_bits_per_second)) as u64
    }

    /// The most datagrams a second that a wire carries.
    #[must_use]
    pub fn wire_packets_per_second(&self, payload: u64) -> u64 {
        PICOSECONDS / self.wire_ps(payload).max(1)
    }

    /// Sends a load through.
    #[must_use]
    pub fn run(&self, load: Load, seed: u64) -> Outcome {
        let mut rng = Rng::new(seed);
        let wire_ps = self.wire_ps(load.payload).max(1);
        let burst = self.around.burst_packets;
        let slot_ps = (burst * PICOSECONDS / load.packets_per_second.max(1)).max(burst * wire_ps);
        let spare_ps = slot_ps - burst * wire_ps;
        let mut stations = self.stations();
        let mut outcome = Outcome::default();
        let (mut sent, mut start) = (0, 0);
        while sent < load.packets {
            // Bursts come at the load's rate, each somewhere in its time.
            let mut at = start + rng.below(spare_ps + 1);
            for _ in 0..burst.min(load.packets - sent) {
                let source = pick(&mut rng, load.first_percent);
                self.pass(at, source, load.payload, &mut stations, &mut outcome);
                sent += 1;
                if load.probe_every > 0 && sent % load.probe_every == 0 {
                    // Who measures asks at no particular moment: beside any packet, for the first backend.
                    if let Some(wait) = self.pass(at, 0, load.payload, &mut stations, &mut outcome) {
                        outcome.probe_waits_ps.push(wait);
                    }
                }
                at += wire_ps;
            }
            start += slot_ps;
        }
        outcome.took_ps = stations.pipeline.free_ps().max(start);
        outcome
    }

    /// How long a datagram takes through an idle device's queues: picoseconds; `None` if no rule takes it.
    #[must_use]
    pub fn lone_wait_ps(&self, payload: u64) -> Option<u64> {
        self.pass(0, 0, payload, &mut self.stations(), &mut Outcome::default())
    }

    /// From request to answer through the device, for each probe's wait: nanoseconds.
    #[must_use]
    pub fn round_trips(&self, waits_ps: &[u64], seed: u64) -> Vec<u64> {
        let (mut rng, base) = (Rng::new(seed), Sampler::new(self.around.baseline_rtt_ns));
        let passage = self.around.forward_ns + self.around.switch_ns;
        waits_ps.iter().map(|wait| base.draw(&mut rng) + passage + wait / 1000).collect()
    }

    /// The same where nothing balances.
    #[must_use]
    pub fn baseline_round_trips(&self, count: usize, seed: u64) -> Vec<u64> {
        let (mut rng, base) = (Rng::new(seed), Sampler::new(self.around.baseline_rtt_ns));
        (0..count).map(|_| base.draw(&mut rng)).collect()
    }

    /// The same where a host's eBPF program balances, idle.
    #[must_use]
    pub fn ebpf_round_trips(&self, count: usize, seed: u64) -> Vec<u64> {
        let mut rng = Rng::new(seed);
        let base = Sampler::new(self.around.baseline_rtt_ns);
        let host = Sampler::new(self.around.ebpf_forward_ns);
        let rest = self.around.switch_ns + 2 * self.wire_ps(0) / 1000;
        (0..count).map(|_| base.draw(&mut rng) + host.draw(&mut rng) + rest).collect()
    }

    fn stations(&self) -> Stations {
        let wire = Station::new(self.around.wire_buffer_ns * 1000);
        Stations {
            wire_in: wire.clone(),
            pipeline: Station::new(self.room_ps),
            wire_out: wire.clone(),
            backends: [wire.clone(), wire],
        }
    }

    /// One packet. How long it took beyond what a backend's wire takes it anyway: picoseconds; `None` if it
    /// did not arrive.
    fn pass(
        &self,
        at: u64,
        source: u32,
        payload: u64,
        stations: &mut Stations,
        outcome: &mut Outcome,
    ) -> Option<u64> {
        let (bytes, wire_ps) = (frame_bytes(payload), self.wire_ps(payload));
        outcome.offered += 1;
        let Some(came) = stations.wire_in.pass(at, wire_ps) else {
            outcome.lost_before_wire += 1;
            return None;
        };
        let cost_ps = if bytes <= self.short_bytes_max { self.short_cost_ps } else { self.cost_ps };
        let Some(looked_up) = stations.pipeline.pass(came, cost_ps) else {
            outcome.lost_in_pipeline += 1;
            return None;
        };
        let Some(backend) = self.verdicts[source as usize] else {
            outcome.unmatched += 1;
            return None;
        };
        outcome.counted_packets += 1;
        outcome.counted_bytes += bytes + self.around.counted_extra_bytes;
        let backend = usize::from(backend);
        let sent = stations.wire_out.pass(looked_up, wire_ps);
        let Some(arrived) = sent.and_then(|sent| stations.backends[backend].pass(sent, wire_ps)) else {
            outcome.lost_before_wire += 1;
            return None;
        };
        outcome.delivered[backend] += 1;
        Some(arrived - at - wire_ps)
    }
}

/// A source: even ones are the first backend's.
fn pick(rng: &mut Rng, first_percent: u64) -> u32 {
    let odd = rng.below(100) >= first_percent;
    rng.below(u64::from(SOURCES / 2)) as u32 * 2 + u32::from(odd)
}
