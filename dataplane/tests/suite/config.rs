//! The configuration as its users meet it: files that work, files that do not, and what is said of them.

use dataplane::addr::{Ip, Prefix};
use dataplane::config::{Backend, Config, Fault, Faults, Idle, Severity};
use dataplane::ids::{PortId, TenantId};
use dataplane::snapshot::{Affinity, Mode, Timeouts};
use proptest::prelude::*;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// The TOML files of a directory below this package, in order.
fn files(directory: &str) -> Vec<(String, String)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    let entries = std::fs::read_dir(directory).expect("directory");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("entry").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    let name = |path: &Path| path.file_name().expect("a file").to_string_lossy().into_owned();
    paths.iter().map(|path| (name(path), std::fs::read_to_string(path).expect("text"))).collect()
}

fn parse(text: &str) -> Config {
    Config::parse("test.toml", text).unwrap_or_else(|faults| panic!("{faults}"))
}

fn ip(text: &str) -> Ip {
    text.parse::<IpAddr>().expect("an address").into()
}

const EVERY_KEY: &str = include_str!("../config/every-key.toml");
const ODD: &str = include_str!("../config/odd.toml");

#[test]
fn broken_files_are_explained() {
    let broken = files("tests/config/broken");
    assert!(broken.len() >= 15);
    for (name, text) in broken {
        let faults = Config::parse(&name, &text).expect_err(&name);
        assert!(faults.count(Severity::Error) > 0, "{name}");
        insta::assert_snapshot!(name.trim_end_matches(".toml"), faults);
    }
}

#[test]
fn examples_are_valid_without_a_warning() {
    let examples = files("../examples");
    assert!(examples.len() >= 4);
    for (name, text) in examples {
        let config = Config::parse(&name, &text).unwrap_or_else(|faults| panic!("{faults}"));
        assert!(config.warnings.is_empty(), "{}", config.warnings);
    }
}

#[test]
fn what_is_odd_is_warned_of_and_accepted() {
    let config = parse(ODD);
    assert_eq!(config.warnings.count(Severity::Error), 0);
    insta::assert_snapshot!("odd", config.warnings);
}

#[test]
fn every_value_arrives() {
    insta::assert_debug_snapshot!("every-key", parse(EVERY_KEY));
}

#[test]
fn defaults_are_filled_in() {
    let config = parse(include_str!("../../../examples/nat-two-arm.toml"));
    assert_eq!(config.workers.idle, Idle::Backoff { sleep_us: Idle::SLEEP_US });
    assert_eq!(config.limits.connections, 1_000_000);
    assert_eq!(config.control.mode, 0o600);
    assert_eq!(config.log, dataplane::config::Log::default());
    let [front, back] = &config.ports[..] else { panic!("two ports") };
    assert_eq!(front.addresses[0], Prefix { address: ip("10.0.0.1"), length: 24 });
    assert_eq!((back.mtu, back.tenant, back.gateway), (None, TenantId(0), None));
    let web = &config.services[0];
    assert_eq!((web.mode, web.affinity, web.strict), (Mode::Nat, Affinity::Connection, false));
    let expected = Timeouts { tcp_established_ms: 600_000, ..Timeouts::default() };
    assert_eq!(web.timeouts, expected);
    assert_eq!(web.backends[1], Backend { address: ip("10.0.1.12"), port: Some(8080), weight: 2 });
    assert_eq!(config.services[1].backends[0].port, None);
    assert_eq!(config.services[1].timeouts, Timeouts::default());
}

#[test]
fn a_port_that_passes_frames_is_promiscuous() {
    let config = parse(include_str!("../../../examples/bluefield-inline.toml"));
    let passes: Vec<_> = config.ports.iter().map(|port| (port.pass_to, port.promiscuous)).collect();
    assert_eq!(passes, [(Some(PortId(1)), true), (Some(PortId(0)), true)]);
}

/// The same backend must have the same identity however it is written.
#[test]
fn a_backend_port_that_is_the_vips_is_none() {
    let with = |address: &str| {
        let text = EVERY_KEY.replace("10.0.0.12:5353", address);
        parse(&text).services[2].backends[0]
    };
    assert_eq!(with("10.0.0.12:53"), with("10.0.0.12"));
    assert_ne!(with("10.0.0.12:54"), with("10.0.0.12"));
}

#[test]
fn tenants_may_use_the_same_addresses() {
    let port = |name: &str, device: &str, tenant: &str| {
        format!("[[port]]\nname = \"{name}\"\ndevice = \"{device}\"\n{tenant}addresses = [\"10.0.0.1/24\"]\n")
    };
    let service = |name: &str, tenant: &str| {
        format!(
            "[[service]]\nname = \"{name}\"\n{tenant}vip = \"192.0.2.80\"\nprotocol = \"tcp\"\nports = [80]\n\
             backend = [{{ address = \"10.0.0.11\" }}]\n"
        )
    };
    let blue = "tenant = \"blue\"\n";
    let two = |blue: &str| {
        ["[[tenant]]\nname = \"blue\"\n", &port("a", "x", ""), &port("b", "y", blue), &service("c", "")]
            .concat()
            + &service("d", blue)
    };
    let config = parse(&two(blue));
    assert_eq!(config.services[1].tenant, TenantId(1));
    assert_eq!(config.tenants[1].name, "blue");
    let faults = Config::parse("test.toml", &two("")).expect_err("one tenant");
    // The port's address, its network, and the service's VIP and port.
    assert_eq!(faults.count(Severity::Error), 3, "{faults}");
}

#[test]
fn faults_point_at_what_they_mean() {
    let text = EVERY_KEY.replace("weight = 1000", "weight = 1001");
    let faults = Config::parse("x.toml", &text).expect_err("too heavy");
    let [fault] = &faults.faults[..] else { panic!("one fault:\n{faults}") };
    let line = text.lines().nth(fault.line - 1).expect("the line");
    assert_eq!((line, fault.column), ("weight = 1001", 10));
    assert_eq!(fault.path, "service[0] \"web\".backend[0].weight");
    assert_eq!(fault.severity, Severity::Error);
}

/// What `millrace check --json` prints, and docs/configuration.md promises.
#[test]
fn faults_serialise_for_machines() {
    let text = EVERY_KEY.replace("mbufs = 8192", "mbufs = 1");
    let faults = Config::parse("x.toml", &text).expect_err("too few");
    let expected = serde_json::json!({
        "file": "x.toml",
        "faults": [{
            "severity": "error",
            "line": 8,
            "column": 9,
            "path": "dpdk.mbufs",
            "message": "1 is out of range",
            "remedy": "give a whole number from 512 to 16777216, without quotes",
        }],
    });
    assert_eq!(serde_json::to_value(&faults).expect("JSON"), expected);
}

/// Limits that would take thousands of lines to reach by hand.
#[test]
fn there_can_be_too_many() {
    let port = "[[port]]\nname = \"p\"\ndevice = \"d\"\naddresses = [\"10.0.0.1/8\"]\n";
    let service = |index: usize, backends: usize| {
        let backend = |n: usize| format!("{{ address = \"10.1.{}.{}\" }}", n / 250, n % 250 + 1);
        let backends: Vec<String> = (0..backends).map(backend).collect();
        format!(
            "[[service]]\nname = \"s{index}\"\nvip = \"192.0.2.1\"\nprotocol = \"tcp\"\nports = [{}]\n\
             backend = [{}]\n",
            index + 1,
            backends.join(", ")
        )
    };
    let fault = |text: String| {
        let faults = Config::parse("x.toml", &text).expect_err("too many");
        let errors: Vec<Fault> =
            faults.faults.into_iter().filter(|fault| fault.severity == Severity::Error).collect();
        assert_eq!(errors.len(), 1, "{errors:?}");
        errors[0].message.clone()
    };
    let services: String = (0..4097).map(|index| service(index, 1)).collect();
    assert_eq!(fault(format!("{port}{services}")), "too many services");
    let services: String = (0..2).map(|index| service(index, 8193)).collect();
    assert_eq!(fault(format!("{port}{services}")), "16386 backends in all are too many");
    let small = format!("[maglev]\ntable_size = 2\n{port}{}", service(0, 3));
    assert_eq!(fault(small), "3 backends do not fit into a Maglev table of 2 entries");
}

fn place_is_real(text: &str, fault: &Fault) -> bool {
    let line = text.split('\n').nth(fault.line - 1);
    line.is_some_and(|line| fault.column >= 1 && fault.column <= line.chars().count() + 2)
}

fn explain(text: &str) -> Faults {
    match Config::parse("x.toml", text) {
        Ok(config) => config.warnings,
        Err(faults) => faults,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_panics(text in any::<String>()) {
        let faults = explain(&text);
        prop_assert!(faults.faults.iter().all(|fault| place_is_real(&text, fault)), "{faults}");
    }

    /// Near misses: a good file with some of its text replaced.
    #[test]
    fn no_damage_panics(
        from in 0..EVERY_KEY.len(),
        length in 0..40_usize,
        instead in r#"(\PC{0,8}|[\[\]{}"=,.:/0-9\n\t-]{0,8}|-?[0-9]{1,20})"#,
    ) {
        let until = (from + length).min(EVERY_KEY.len());
        let mut text = EVERY_KEY.to_owned();
        prop_assume!(text.is_char_boundary(from) && text.is_char_boundary(until));
        text.replace_range(from..until, &instead);
        let faults = explain(&text);
        prop_assert!(faults.faults.iter().all(|fault| place_is_real(&text, fault)), "{faults}");
        let shown = faults.to_string();
        prop_assert!(faults.is_empty() || shown.contains("= help: "));
    }

    /// Whatever is taken out of a good file, what is left is either good or explained.
    #[test]
    fn removing_lines_is_explained(keep in prop::collection::vec(prop::bool::weighted(0.9), 130)) {
        let lines = EVERY_KEY.lines().zip(keep.into_iter().chain(std::iter::repeat(true)));
        let text: String = lines.filter(|(_, keep)| *keep).flat_map(|(line, _)| [line, "\n"]).collect();
        if let Err(faults) = Config::parse("x.toml", &text) {
            prop_assert!(faults.count(Severity::Error) > 0);
        }
    }
}
