//! Faults under load from the MODEL, as JSON on standard output: `faults [SEED [MILLISECONDS]]`, a seed (1)
//! and how long a fault lasts (200); a backend stays dead for 1.4 seconds at least.

use std::process::ExitCode;

use eswitch::model::profile::Profile;
use eswitch::model::refusal::Refusal;
use eswitch::testbed::{Checks, Course, Fault, Histogram, Part, Plan, Software, Testbed};
use serde_json::{Value, json};

const PROFILE: &str = "bf3-xenoflow";
const MS: u64 = 1_000_000;
/// Before and after a fault.
const CALM_NS: u64 = 50 * MS;
/// Millrace's defaults (docs/configuration.md), and what the checker puts together.
const CHECKS: Checks = Checks { interval_ns: 250 * MS, timeout_ns: 200 * MS, fall: 3, batch_ns: 50 * MS };
/// No source has these: an Arm core's time for a packet, the way to it and back, a queue of 4096 packets.
const SOFTWARE: Software = Software { packet_ns: 100, passage_ns: 8_000, room_packets: 4096 };
const PACKETS_PER_SECOND: u64 = 10_000_000;
const SOFTWARE_PERCENT: u64 = 10;
const CONNECTIONS: u32 = 10_000;
const PAYLOAD: u64 = 64;
const UPDATES_PER_SECOND: u64 = 100_000;
/// What if an update kept the pipeline for so long? No source says that it does: picoseconds.
const STALLS_PS: [u64; 5] = [0, 10_000, 100_000, 1_000_000, 8_000_000];

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u64>());
    let (seed, ms) = match (arguments.next().unwrap_or(Ok(1)), arguments.next().unwrap_or(Ok(200))) {
        (Ok(seed), Ok(ms)) if (1..=10_000).contains(&ms) => (seed, ms),
        _ => return fail("usage: faults [SEED [MILLISECONDS]], 1 to 10000 milliseconds"),
    };
    match courses(seed, ms) {
        Ok(Some(found)) => {
            println!("{found}");
            ExitCode::SUCCESS
        }
        Ok(None) => fail("the profile cannot be read, or has no testbed"),
        Err(refusal) => fail(&refusal.to_string()),
    }
}

fn fail(why: &str) -> ExitCode {
    eprintln!("faults: {why}");
    ExitCode::FAILURE
}

fn courses(seed: u64, ms: u64) -> Result<Option<Value>, Refusal> {
    let Some(profile) = Profile::named(PROFILE) else { return Ok(None) };
    let Some(testbed) = Testbed::new(&profile)? else { return Ok(None) };
    let storm = |stall_ps| Fault::RuleStorm { updates_per_second: UPDATES_PER_SECOND, stall_ps };
    let detection_ns = CHECKS.detection_ns(seed);
    let faults = [
        ("link-flap", Fault::LinkFlap),
        ("rule-storm", storm(0)),
        ("spike", Fault::Spike { times: 8 }),
        ("backend-death", Fault::BackendDeath { detection_ns }),
        ("spike-beyond", Fault::Spike { times: 12 }),
    ];
    let run = |fault, ms| {
        let plan = plan(fault, ms);
        describe(&plan, &testbed.suffer(&profile, plan, seed))
    };
    let length = |fault| if matches!(fault, Fault::BackendDeath { .. }) { ms.max(1_000) + 400 } else { ms };
    let runs: Vec<Value> = faults
        .map(|(name, fault)| {
            let mut run = run(fault, length(fault));
            run["fault"] = name.into();
            run
        })
        .to_vec();
    // What is asked of the pipeline is the same at any moment: a tenth of the time says it.
    let stalls: Vec<Value> = STALLS_PS
        .map(|stall_ps| {
            let run = run(storm(stall_ps), ms.div_ceil(10));
            json!({ "stall_ps": stall_ps, "hits": run["hits"]["during"] })
        })
        .to_vec();
    Ok(Some(json!({
        "kind": "MODEL", "profile": PROFILE, "seed": seed, "runs": runs, "stalls": stalls,
        "detection_ns": detection_ns, "packets_per_second": PACKETS_PER_SECOND,
        "connections": CONNECTIONS, "software_percent": SOFTWARE_PERCENT, "payload": PAYLOAD,
        "updates_per_second": UPDATES_PER_SECOND,
        "assumed": { "packet_ns": SOFTWARE.packet_ns, "passage_ns": SOFTWARE.passage_ns,
                     "room_packets": SOFTWARE.room_packets },
    })))
}

fn plan(fault: Fault, ms: u64) -> Plan {
    let end_ns = CALM_NS + ms * MS;
    Plan {
        fault,
        begin_ns: CALM_NS,
        end_ns,
        until_ns: end_ns + CALM_NS,
        payload: PAYLOAD,
        packets_per_second: PACKETS_PER_SECOND,
        software_percent: SOFTWARE_PERCENT,
        connections: CONNECTIONS,
        software: SOFTWARE,
    }
}

fn describe(plan: &Plan, course: &Course) -> Value {
    let parts = |parts: &[Part; 3]| {
        let [before, during, after] = parts.each_ref().map(part);
        json!({ "before": before, "during": during, "after": after })
    };
    let from_begin = |at: Option<u64>| at.map(|at| at.saturating_sub(plan.begin_ns));
    json!({
        "begin_ns": plan.begin_ns, "end_ns": plan.end_ns, "until_ns": plan.until_ns, "offered": course.offered,
        "hits": parts(&course.hits), "misses": parts(&course.misses),
        "updates": histogram(&course.updates), "updates_refused": course.updates_refused,
        "first_lost_ns": from_begin(course.lost_ns.map(|(first, _)| first)),
        "last_lost_ns": from_begin(course.lost_ns.map(|(_, last)| last)),
        "revoked_ns": from_begin(course.revoked_ns), "reinstalled_ns": from_begin(course.reinstalled_ns),
    })
}

fn part(part: &Part) -> Value {
    json!({
        "latency": histogram(&part.latency), "lost": part.lost(), "lost_on_link": part.lost_on_link,
        "lost_in_queue": part.lost_in_queue, "lost_in_software": part.lost_in_software,
        "lost_to_dead": part.lost_to_dead,
    })
}

/// Quantiles in nanoseconds, and buckets: each with its largest value.
fn histogram(of: &Histogram) -> Value {
    json!({
        "count": of.total(), "p50_ns": of.quantile(500_000), "p99_ns": of.quantile(990_000),
        "p999_ns": of.quantile(999_000), "buckets": of.buckets().collect::<Vec<_>>(),
    })
}
