//! XenoFlow's figures 4 to 8 from the MODEL, as JSON on standard output: `xenoflow [SEED [PACKETS]]`, a seed
//! (1) and how many packets each point of a figure has (200000).
//!
//! What was fitted and what is predicted is told apart: `fitted` names the numbers that the profile has from
//! the paper's text; all other points follow from them.

use std::process::ExitCode;

use eswitch::model::profile::Profile;
use eswitch::testbed::{Load, Testbed, frame_bytes};
use serde_json::{Value, json};

const PROFILE: &str = "bf3-xenoflow";
/// Figure 7's measurements.
const MEASUREMENTS: usize = 2_700;
const PAYLOADS: [u64; 27] = [
    0, 2, 4, 8, 12, 16, 18, 20, 21, 22, 23, 24, 26, 28, 32, 48, 64, 69, 80, 96, 128, 192, 256, 512, 768,
    1024, 1472,
];
/// Small datagrams, for the figures about load.
const PAYLOAD: u64 = 18;
/// In a hundred, to the first backend, which answers who measures.
const SPLITS: [(&str, u64); 4] =
    [("single endpoint (100/0)", 100), ("75/25", 75), ("50/50", 50), ("all to the sink (0/100)", 0)];

struct Run {
    testbed: Testbed,
    seed: u64,
    packets: u64,
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u64>());
    let (seed, packets) = match (arguments.next().unwrap_or(Ok(1)), arguments.next().unwrap_or(Ok(200_000))) {
        (Ok(seed), Ok(packets)) if (1_000..=100_000_000).contains(&packets) => (seed, packets),
        _ => return fail("usage: xenoflow [SEED [PACKETS]], 1000 to 100000000 packets"),
    };
    let Some(profile) = Profile::named(PROFILE) else { return fail("the profile cannot be read") };
    let testbed = match Testbed::new(&profile) {
        Ok(Some(testbed)) => testbed,
        Ok(None) => return fail("the profile has no testbed"),
        Err(refusal) => return fail(&refusal.to_string()),
    };
    let run = Run { testbed, seed, packets };
    let figures = json!({
        "kind": "MODEL", "profile": PROFILE, "seed": seed, "packets": packets,
        "fitted": ["short_packets_per_second", "packets_per_second", "short_bytes_max", "forward_ns",
                   "ebpf_forward_ns"],
        "throughput": run.throughput(), "loss": run.loss(), "latency": run.latency(), "load": run.load(),
    });
    println!("{figures}");
    ExitCode::SUCCESS
}

fn fail(why: &str) -> ExitCode {
    eprintln!("xenoflow: {why}");
    ExitCode::FAILURE
}

impl Run {
    fn full(&self, payload: u64) -> Load {
        Load {
            payload,
            packets_per_second: u64::MAX,
            first_percent: 50,
            packets: self.packets,
            probe_every: 0,
        }
    }

    /// Figures 4 and 6: as much as a wire brings.
    fn throughput(&self) -> Vec<Value> {
        let around = self.testbed.around();
        let point = |payload: u64| {
            let outcome = self.testbed.run(self.full(payload), self.seed);
            let (rate, frame) = (outcome.packets_per_second(), frame_bytes(payload));
            let gbit = |bytes: u64| rate * bytes as f64 * 8.0 / 1e9;
            let counted = outcome.counted_bytes as f64 / outcome.counted_packets.max(1) as f64;
            json!({
                "payload": payload, "packets_per_second": rate, "loss": outcome.loss(),
                "offered_packets_per_second": self.testbed.wire_packets_per_second(payload),
                "wire_gbit": gbit(frame + around.wire_extra_bytes), "counted_gbit": rate * counted * 8.0 / 1e9,
                "goodput_gbit": gbit(payload),
            })
        };
        PAYLOADS.map(point).to_vec()
    }

    /// Figure 5: short and longer datagrams, against what is offered.
    fn loss(&self) -> Vec<Value> {
        let mut points = Vec::new();
        for payload in [18, 23] {
            for million in (60..=140).step_by(5).chain([92, 93, 94, 96, 97, 98]) {
                let load = Load { packets_per_second: million * 1_000_000, ..self.full(payload) };
                let outcome = self.testbed.run(load, self.seed);
                points.push(json!({
                    "payload": payload, "offered_packets_per_second": million * 1_000_000,
                    "packets_per_second": outcome.packets_per_second(), "loss": outcome.loss(),
                }));
            }
        }
        points
    }

    /// Figure 7: round trips of one request after the other, without load.
    fn latency(&self) -> Value {
        let waits: Vec<u64> =
            self.testbed.lone_wait_ps(PAYLOAD).into_iter().cycle().take(MEASUREMENTS).collect();
        // Other dice for each, as for other measurements.
        let seed = self.seed.wrapping_mul(3);
        json!({
            "baseline": summary(self.testbed.baseline_round_trips(MEASUREMENTS, seed)),
            "balanced": summary(self.testbed.round_trips(&waits, seed.wrapping_add(1))),
            "ebpf": summary(self.testbed.ebpf_round_trips(MEASUREMENTS, seed.wrapping_add(2))),
            "dns_ns": self.testbed.around().dns_rtt_ns,
        })
    }

    /// Figure 8: round trips under load, for each split.
    fn load(&self) -> Vec<Value> {
        let mut points = Vec::new();
        for (name, first_percent) in SPLITS {
            for million in [1, 10, 20, 30, 40, 50, 60, 70, 80, 85, 90, 94, 96] {
                let load = Load {
                    packets_per_second: million * 1_000_000,
                    first_percent,
                    probe_every: 101,
                    ..self.full(PAYLOAD)
                };
                let outcome = self.testbed.run(load, self.seed);
                let trips =
                    self.testbed.round_trips(&outcome.probe_waits_ps, self.seed.wrapping_add(million));
                let waits: Vec<u64> = outcome.probe_waits_ps.iter().map(|wait| wait / 1000).collect();
                points.push(json!({
                    "split": name, "offered_packets_per_second": million * 1_000_000,
                    "loss": outcome.loss(), "round_trip": summary(trips), "waiting": summary(waits),
                }));
            }
        }
        points
    }
}

/// Quantiles and deviation, in nanoseconds.
fn summary(mut values: Vec<u64>) -> Value {
    values.sort_unstable();
    let at =
        |per_mille: usize| values.get((values.len() * per_mille / 1000).min(values.len().saturating_sub(1)));
    let count = values.len().max(1) as f64;
    let mean = values.iter().sum::<u64>() as f64 / count;
    let square = values.iter().map(|value| (*value as f64 - mean).powi(2)).sum::<f64>() / count;
    json!({
        "count": values.len(), "p50_ns": at(500), "p99_ns": at(990), "p999_ns": at(999),
        "deviation_ns": square.sqrt(),
    })
}
