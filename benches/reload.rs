//! Where the time of a large reload goes: 1,000 services with 10 backends each, on the control thread. What
//! is left then, the workers' change from one snapshot to the next, is an exchange of pointers.

use criterion::Criterion;
use dataplane::addr::MacAddr;
use dataplane::config::Config;
use dataplane::snapshot::{Overrides, PortFacts, Snapshot};
use std::fmt::Write as _;

const SERVICES: u32 = 1000;
const BACKENDS: u32 = 10;
const FACTS: [PortFacts; 1] = [PortFacts { mac: MacAddr([2, 0, 0, 0, 0, 1]), mtu: 1500 }];

/// Backends of each service start at this number, so that two files can differ in all of them.
fn file(first: u32) -> String {
    let mut text = String::from(
        "[[port]]\nname = \"p0\"\ndevice = \"net_null0\"\naddresses = [\"192.0.2.1/24\", \"10.0.0.1/8\"]\n\
         gateway = \"192.0.2.254\"\n",
    );
    for service in 0..SERVICES {
        let (high, low) = (service / 250, service % 250);
        let header = format!(
            "[[service]]\nname = \"s{service}\"\nvip = \"198.51.{high}.{low}\"\nprotocol = \"tcp\"\n\
             ports = [80]\nmode = \"nat\"\n"
        );
        text += &header;
        for backend in first..first + BACKENDS {
            writeln!(text, "[[service.backend]]\naddress = \"10.{}.{low}.{backend}:8080\"", 1 + high)
                .expect("writing to a string");
        }
    }
    text
}

fn parse(text: &str) -> Config {
    Config::parse("bench.toml", text).unwrap_or_else(|faults| panic!("{faults}"))
}

fn build(config: &Config, previous: Option<&Snapshot>) -> Snapshot {
    Snapshot::build(config, &FACTS, &Overrides::default(), previous, &|_| 0).expect("snapshot")
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("reload_1000_services_10_backends");
    group.sample_size(10);
    let text = file(1);
    let (before, all_changed) = (parse(&text), parse(&file(2)));
    let mut one_changed = before.clone();
    one_changed.services[500].backends[5].weight = 2;
    let snapshot = build(&before, None);
    group.bench_function("parse", |b| b.iter(|| parse(&text)));
    group.bench_function("build_first", |b| b.iter_with_large_drop(|| build(&before, None)));
    group.bench_function("build_unchanged", |b| b.iter_with_large_drop(|| build(&before, Some(&snapshot))));
    group.bench_function("build_one_changed", |b| {
        b.iter_with_large_drop(|| build(&one_changed, Some(&snapshot)));
    });
    group.bench_function("build_all_changed", |b| {
        b.iter_with_large_drop(|| build(&all_changed, Some(&snapshot)));
    });
    group.finish();
    criterion.final_summary();
}
