//! What is to be carried: assumptions of a person, or what a running Millrace carries.
//!
//! Everything that was not said is assumed, and what is assumed is said: [`Traffic::said`] goes into the
//! output.

use crate::Failure;
use crate::api::ServiceRow;
use crate::cli::PlanArgs;
use crate::client::Client;
use crate::clock;
use crate::commands;
use dataplane::config::{Config, Service};
use dataplane::snapshot::Affinity;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

/// Live connections of all services together, unless said otherwise;
const CONNECTIONS: f64 = 10_000.0;
/// new ones per second;
const NEW_PER_SECOND: f64 = 200.0;
/// packets per second of each, both directions;
const PACKETS_PER_SECOND: f64 = 100.0;
/// bytes of each frame, without FCS;
const FRAME_BYTES: u32 = 512;
/// and how long a handshake takes.
const HANDSHAKE_MS: f64 = 50.0;
/// How long a running Millrace is looked at.
const LOOK: Duration = Duration::from_secs(2);

/// What one service carries.
#[derive(Serialize, Clone, Debug, PartialEq)]
pub(crate) struct Load {
    /// Its name.
    pub(crate) service: String,
    /// Live connections.
    pub(crate) connections: f64,
    /// New connections per second.
    pub(crate) new_per_second: f64,
    /// Packets per second of each, both directions.
    pub(crate) packets_per_second: f64,
    /// Bytes of each frame, without FCS.
    pub(crate) frame_bytes: u32,
    /// How long a handshake takes, milliseconds.
    pub(crate) handshake_ms: f64,
    /// Connections per second that never get beyond their first packet: a flood.
    pub(crate) unanswered_per_second: f64,
    /// A client that may connect; found if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client: Option<IpAddr>,
}

impl Load {
    /// How long a connection lives on average (Little's law), seconds; `None`: for ever.
    pub(crate) fn life_s(&self) -> Option<f64> {
        (self.new_per_second > 0.0).then(|| self.connections / self.new_per_second)
    }
}

/// What all carry, in the services' order.
#[derive(Serialize, Clone, Debug, PartialEq)]
pub(crate) struct Traffic {
    /// By service.
    pub(crate) services: Vec<Load>,
    /// Where the figures are from.
    pub(crate) said: Vec<String>,
    /// Whether `connections` are entries of tables, those included that are over and not forgotten yet.
    #[serde(skip)]
    pub(crate) entries: bool,
}

impl Traffic {
    /// All live connections.
    pub(crate) fn connections(&self) -> f64 {
        self.services.iter().map(|load| load.connections).sum()
    }

    /// All new connections per second.
    pub(crate) fn new_per_second(&self) -> f64 {
        self.services.iter().map(|load| load.new_per_second).sum()
    }
}

/// `--mix`: traffic by service.
#[derive(Deserialize, Default, Debug)]
#[serde(deny_unknown_fields)]
struct Mix {
    #[serde(default)]
    service: Vec<Part>,
}

/// `[[service]]` of a mix.
#[derive(Deserialize, Default, Debug, Clone)]
#[serde(deny_unknown_fields)]
struct Part {
    name: String,
    connections: Option<f64>,
    new_per_second: Option<f64>,
    mean_life_s: Option<f64>,
    packets_per_second: Option<f64>,
    frame_bytes: Option<u32>,
    handshake_ms: Option<f64>,
    unanswered_per_second: Option<f64>,
    client: Option<IpAddr>,
}

impl Part {
    fn check(&self) -> Result<(), String> {
        let given = [
            ("connections", self.connections),
            ("new_per_second", self.new_per_second),
            ("mean_life_s", self.mean_life_s),
            ("packets_per_second", self.packets_per_second),
            ("handshake_ms", self.handshake_ms),
            ("unanswered_per_second", self.unanswered_per_second),
        ];
        let odd = |value: &f64| !value.is_finite() || *value < 0.0 || *value > 1e12;
        match given.into_iter().find(|(_, value)| value.as_ref().is_some_and(odd)) {
            Some((key, _)) => Err(format!("{key}: use a number from 0 to 1e12")),
            None if given[..3].iter().all(|(_, value)| value.is_some()) => {
                Err("connections, new_per_second and mean_life_s: give two of the three, the other follows"
                    .into())
            }
            None => Ok(()),
        }
    }

    /// Connections and new ones per second, as far as they are told.
    fn flow(&self) -> (Option<f64>, Option<f64>) {
        match (self.connections, self.new_per_second, self.mean_life_s) {
            (None, Some(new), Some(life)) => (Some(new * life), Some(new)),
            (Some(live), None, Some(life)) if life > 0.0 => (Some(live), Some(live / life)),
            (live, new, _) => (live, new),
        }
    }
}

/// The traffic that the command line asks to plan for.
pub(crate) fn assume(config: &Config, args: &PlanArgs) -> Result<Traffic, Failure> {
    if let Some(socket) = &args.live {
        return live(config, socket, args);
    }
    if let Some(file) = &args.snapshot {
        let text = commands::text_of(file).map_err(|error| unreadable(file, &error))?;
        let written = std::fs::metadata(file).ok().and_then(|about| about.modified().ok());
        let written = written.and_then(|at| at.duration_since(UNIX_EPOCH).ok()).map(|at| at.as_secs_f64());
        return snapshot(config, &text, written, args);
    }
    let mix = match &args.mix {
        Some(file) => {
            let text = commands::text_of(file).map_err(|error| unreadable(file, &error))?;
            toml::from_str(&text).map_err(|error| unreadable(file, error.to_string().trim_end()))?
        }
        None => Mix::default(),
    };
    mixed(config, &mix, args)
}

fn unreadable(file: &Path, error: &str) -> Failure {
    Failure::Config(format!("{}: {error}", file.display()))
}

/// Flags for all together, and a mix by service. What the mix leaves open is shared out evenly.
fn mixed(config: &Config, mix: &Mix, args: &PlanArgs) -> Result<Traffic, Failure> {
    for part in &mix.service {
        let known = config.services.iter().any(|service| service.name == part.name);
        let twice = mix.service.iter().filter(|other| other.name == part.name).count() > 1;
        let wrong =
            if !known { Err("the configuration has no such service".to_owned()) } else { part.check() };
        let wrong = if twice { Err("it is there twice".to_owned()) } else { wrong };
        wrong.map_err(|why| Failure::Config(format!("mix: service \"{}\": {why}", part.name)))?;
    }
    let open = |told: fn(&Part) -> Option<f64>| {
        let told = mix.service.iter().filter(|part| told(part).is_some()).count();
        (config.services.len() - told).max(1) as f64
    };
    let connections = args.connections.unwrap_or(CONNECTIONS) / open(|part| part.flow().0);
    let new = args.new_per_second.unwrap_or(NEW_PER_SECOND) / open(|part| part.flow().1);
    let load = |name: &str| {
        let part = mix.service.iter().find(|part| part.name == name).cloned().unwrap_or_default();
        let (live, opened) = part.flow();
        Load {
            service: name.to_owned(),
            connections: live.unwrap_or(connections),
            new_per_second: opened.unwrap_or(new),
            packets_per_second: part.packets_per_second.unwrap_or(args.packets_per_second()),
            frame_bytes: part.frame_bytes.unwrap_or(args.frame_bytes()),
            handshake_ms: part.handshake_ms.unwrap_or(HANDSHAKE_MS),
            unanswered_per_second: part.unanswered_per_second.unwrap_or(0.0),
            client: part.client,
        }
    };
    let services = config.services.iter().map(|service| load(&service.name)).collect();
    let mut said = Vec::new();
    let assumed = |given: bool| if given { "given" } else { "assumed" };
    if open_services(config, mix) {
        said.push(format!(
            "{} connections ({}) and {} new ones a second ({}), shared out evenly over services that no mix speaks of",
            args.connections.unwrap_or(CONNECTIONS),
            assumed(args.connections.is_some()),
            args.new_per_second.unwrap_or(NEW_PER_SECOND),
            assumed(args.new_per_second.is_some()),
        ));
    }
    said.push(habits(args));
    said.extend(parted(config));
    Ok(Traffic { services, said, entries: false })
}

fn open_services(config: &Config, mix: &Mix) -> bool {
    let told = |name: &str| {
        let part = mix.service.iter().find(|part| part.name == name);
        part.is_some_and(|part| part.flow().0.is_some() && part.flow().1.is_some())
    };
    config.services.iter().any(|service| !told(&service.name))
}

/// What every connection is taken to be like.
fn habits(args: &PlanArgs) -> String {
    format!(
        "where nothing else is said: {} packets a second of each connection, frames of {} bytes, handshakes of \
         {HANDSHAKE_MS} ms, no flood",
        args.packets_per_second(),
        args.frame_bytes(),
    )
}

/// What stands for connections where none are kept.
fn parted(config: &Config) -> Option<String> {
    let mut affinities = config.services.iter().map(|service| service.affinity);
    affinities.any(|affinity| matches!(affinity, Affinity::Partition { .. })).then(|| {
        "services by source partition keep no connections: theirs only say how many packets there are"
            .to_owned()
    })
}

impl PlanArgs {
    fn packets_per_second(&self) -> f64 {
        self.packets_per_second.unwrap_or(PACKETS_PER_SECOND)
    }

    fn frame_bytes(&self) -> u32 {
        self.frame_bytes.unwrap_or(FRAME_BYTES)
    }
}

/// What was counted of a service: live connections, and opened ones and packets within some seconds.
#[derive(Clone, Copy, Default, Debug)]
struct Counted {
    connections: f64,
    opened: f64,
    packets: f64,
}

fn observed(
    config: &Config,
    counted: &BTreeMap<String, Counted>,
    seconds: f64,
    args: &PlanArgs,
) -> Vec<Load> {
    let load = |service: &Service| {
        let name = &service.name;
        let mut counted = counted.get(name).copied().unwrap_or_default();
        if matches!(service.affinity, Affinity::Partition { .. }) {
            // Its packets are taken for those of one.
            counted.connections = 1.0;
        }
        let each = counted.packets / seconds / counted.connections.max(1.0);
        Load {
            service: name.to_owned(),
            connections: counted.connections,
            new_per_second: counted.opened / seconds,
            packets_per_second: args.packets_per_second.unwrap_or(each),
            frame_bytes: args.frame_bytes(),
            handshake_ms: HANDSHAKE_MS,
            unanswered_per_second: 0.0,
            client: None,
        }
    };
    config.services.iter().map(load).collect()
}

/// `--live`: two looks at a running Millrace.
fn live(config: &Config, socket: &Path, args: &PlanArgs) -> Result<Traffic, Failure> {
    let client = Client::new(socket);
    let (begun, before) = (clock::monotonic(), client.get::<Vec<ServiceRow>>("/v1/services")?);
    std::thread::sleep(LOOK);
    let (ended, after) = (clock::monotonic(), client.get::<Vec<ServiceRow>>("/v1/services")?);
    let packets = |row: &ServiceRow| row.original.packets + row.reply.packets;
    let counted = after.iter().map(|row| {
        let old = before.iter().find(|old| old.name == row.name);
        let since = |of: &dyn Fn(&ServiceRow) -> u64| of(row).saturating_sub(old.map_or(0, of)) as f64;
        let opened = since(&|row| row.opened + row.picked_up);
        (row.name.clone(), Counted { connections: row.connections as f64, opened, packets: since(&packets) })
    });
    let seconds = ended.duration_since(begun).as_secs_f64().max(0.001);
    let services = observed(config, &counted.collect(), seconds, args);
    let said = vec![
        format!("traffic as seen in {seconds:.1} s at {}", socket.display()),
        "connections are entries of the tables, those included that are over and not forgotten yet".into(),
        habits(args),
    ];
    Ok(Traffic { services, said, entries: true })
}

/// `--snapshot`: a page of `/metrics`, whose rates are averages since the process started.
fn snapshot(config: &Config, text: &str, written: Option<f64>, args: &PlanArgs) -> Result<Traffic, Failure> {
    let mut counted: BTreeMap<String, Counted> = BTreeMap::new();
    let (mut started, mut found) = (None, false);
    for (name, labels, value) in text.lines().filter_map(sample) {
        if name == "process_start_time_seconds" {
            started = Some(value);
        }
        let Some(service) = label(labels, "service") else { continue };
        let of = counted.entry(service).or_default();
        match name {
            "lb_connections" => of.connections += value,
            "lb_opened_total" | "lb_picked_up_total" => of.opened += value,
            "lb_packets_total" => of.packets += value,
            _ => continue,
        }
        found = true;
    }
    let seconds = match (args.snapshot_seconds, written, started) {
        (Some(seconds), ..) => seconds,
        (None, Some(written), Some(started)) if written > started => written - started,
        _ => {
            return Err(Failure::Config(
                "snapshot: no time since the process started is known (process_start_time_seconds, and the \
                 file's own); say it with --snapshot-seconds"
                    .into(),
            ));
        }
    };
    if !found {
        return Err(Failure::Config(
            "snapshot: no lb_connections, lb_opened_total or lb_packets_total in it; save the page of /metrics".into(),
        ));
    }
    let said = vec![
        format!("traffic of a metrics page; rates are averages over {seconds:.0} s"),
        "connections are entries of the tables, those included that are over and not forgotten yet".into(),
        habits(args),
    ];
    Ok(Traffic { services: observed(config, &counted, seconds.max(0.001), args), said, entries: true })
}

/// A sample of Prometheus' text format: name, labels, value.
fn sample(line: &str) -> Option<(&str, &str, f64)> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let (series, rest) = match line.rfind('}') {
        Some(at) => (line.get(..at)?, line.get(at + 1..)?),
        None => line.split_once(' ')?,
    };
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    let value: f64 = rest.split_whitespace().next()?.parse().ok()?;
    value.is_finite().then_some((name.trim(), labels, value))
}

/// A label's value. Names of services need no escapes.
fn label(labels: &str, wanted: &str) -> Option<String> {
    let mut pairs = labels.split(',').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(name, _)| name.trim() == wanted)?;
    Some(value.trim().trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn samples_are_read_and_the_rest_is_not() {
        let read = sample("lb_connections{service=\"web\",backend=\"10.0.0.1:80\"} 17 1700000000");
        assert_eq!(read, Some(("lb_connections", "service=\"web\",backend=\"10.0.0.1:80\"", 17.0)));
        assert_eq!(label("backend=\"x\",service=\"web\"", "service").as_deref(), Some("web"));
        assert_eq!(
            sample("process_start_time_seconds 1.5e9"),
            Some(("process_start_time_seconds", "", 1.5e9))
        );
        for nothing in ["", "# TYPE x gauge", "x", "x{a=\"b\"}", "x NaN", "x{ +Inf"] {
            assert_eq!(sample(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn two_of_three_give_the_third() {
        let part = |connections, new_per_second, mean_life_s| Part {
            connections,
            new_per_second,
            mean_life_s,
            ..Part::default()
        };
        assert_eq!(part(None, Some(10.0), Some(3.0)).flow(), (Some(30.0), Some(10.0)));
        assert_eq!(part(Some(30.0), None, Some(3.0)).flow(), (Some(30.0), Some(10.0)));
        assert!(part(Some(1.0), Some(1.0), Some(1.0)).check().is_err());
        assert!(part(Some(-1.0), None, None).check().is_err());
        assert!(part(None, None, None).check().is_ok());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn no_text_is_too_odd(line in ".{0,60}") {
            if let Some((_, labels, value)) = sample(&line) {
                prop_assert!(value.is_finite());
                let _ = label(labels, "service");
            }
        }
    }
}
