//! `plan`: what a device will forward by itself, what that needs, and which limit is reached first.
//!
//! ```text
//! stage:    configuration ─▶ walk ─▶ lowering ─▶ machine ─▶ model of the device: of each service, what one
//!                    connection takes of rules, counters, ages and meters, or why it stays in software
//! traffic:  how many of each ─▶ needs, which limits holds against the bounds of configuration and profile
//! ```

mod limits;
mod parted;
mod stage;
mod text;
mod traffic;

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod drive;
#[cfg(test)]
mod golden;

use crate::Failure;
use crate::cli::{Cli, PlanArgs};
use crate::commands;
use crate::rows;
use dataplane::addr::Ip;
use dataplane::config::{Config, EngineChoice};
use dataplane::flow::Direction;
use dataplane::offload::{Answer, Ask};
use dataplane::snapshot::Service;
use eswitch::model::profile::Profile;
use eswitch::model::types::Steering;
use limits::{Bounds, Cast, Limit, Needs, PartitionNeeds, Reached, Taken, Unused};
use offload::engine::FlowEngine;
use offload::lower;
use offload::testpmd::Dialect;
use parted::PartitionPlan;
use serde::Serialize;
use stage::{REHEARSAL_RULES, Rehearsed, Scene, declined_text};
use std::path::Path;
use traffic::Traffic;

/// A plan.
#[derive(Serialize, Clone, Debug, PartialEq)]
pub(crate) struct Plan {
    /// Of this description; it only grows while this number stays.
    version: u32,
    /// The file.
    configuration: String,
    /// What is to be carried.
    traffic: Traffic,
    /// By profile, in the order asked for.
    profiles: Vec<Verdict>,
}

/// What one device makes of it.
#[derive(Serialize, Clone, Debug, PartialEq)]
pub(crate) struct Verdict {
    /// The profile's name,
    profile: String,
    /// and what it stands for.
    summary: String,
    /// `software` (one by one) or `hardware` (templates).
    steering: &'static str,
    /// Whether nothing is exceeded, and all is offloaded that should be.
    fits: bool,
    /// What is reached first.
    first_limit: Option<Limit>,
    /// What becomes of each service's connections.
    services: Vec<ServicePlan>,
    /// What they need in all.
    needs: Needs,
    /// What the rules of source partitions need beside these.
    partitions: Option<PartitionNeeds>,
    /// All that something is needed of, what is reached first at the front.
    limits: Vec<Limit>,
    /// What was taken for granted.
    notes: Vec<String>,
}

/// What becomes of a service's connections.
#[derive(Serialize, Clone, Debug, PartialEq)]
pub(crate) struct ServicePlan {
    service: String,
    mode: String,
    /// `hardware`, `unused` (hardware would take them, and by the traffic gets none), `software` (as
    /// configured), or `refused`.
    verdict: &'static str,
    /// Directions that hardware forwards: `original`, `reply`.
    directions: Vec<&'static str>,
    /// Why not, in a word: see docs/plan.md.
    reason: Option<String>,
    /// Why not, and what else is to be known.
    text: String,
    /// Of each connection.
    rules_per_connection: usize,
    counters_per_connection: u64,
    ages_per_connection: u64,
    /// Whether its rules name a meter.
    metered: bool,
    /// Bytes that its rules put before a frame.
    encap_bytes: usize,
    /// Connections in hardware at a time.
    connections_in_hardware: f64,
    /// Rules put in force per second.
    insertions_per_second: f64,
    /// The client whose connection was rehearsed: `address`, and the port that leads there.
    sample_client: String,
    /// That connection's rules, as testpmd would be told to make them.
    sample: Vec<String>,
    /// By source partition: its rules, which are not connections'.
    #[serde(skip_serializing_if = "Option::is_none")]
    partitions: Option<PartitionPlan>,
}

/// `plan`.
pub(crate) fn plan(cli: &Cli, args: &PlanArgs) -> Result<(), Failure> {
    let (config, _) = commands::read(&args.config)?;
    let profiles = args.profile.iter().map(|name| profile(name)).collect::<Result<Vec<_>, _>>()?;
    let traffic = traffic::assume(&config, args)?;
    let plan = Plan {
        version: 1,
        configuration: args.config.display().to_string(),
        profiles: profiles
            .iter()
            .map(|profile| judge(&config, profile, &traffic))
            .collect::<Result<_, _>>()?,
        traffic,
    };
    commands::table(cli, &plan, |plan| text::render(plan));
    if plan.profiles.iter().all(|verdict| verdict.fits) { Ok(()) } else { Err(Failure::Exceeded) }
}

/// A built-in profile, or the one in a file.
fn profile(name: &str) -> Result<Profile, Failure> {
    if let Some(profile) = Profile::named(name) {
        return Ok(profile);
    }
    let names = Profile::names().collect::<Vec<_>>().join(", ");
    let unknown = |error: String| {
        Failure::Config(format!(
            "profile {name}: {error}; built in are {names}; anything else is a file's name"
        ))
    };
    let text = commands::text_of(Path::new(name)).map_err(unknown)?;
    Profile::parse(&text).map_err(|error| Failure::Config(format!("profile {name}: {error}")))
}

/// What a device makes of a configuration and its traffic.
pub(crate) fn judge(config: &Config, profile: &Profile, traffic: &Traffic) -> Result<Verdict, Failure> {
    let scene = Scene::new(config, profile).map_err(Failure::Config)?;
    let mut services = Vec::new();
    let mut cast = Vec::new();
    let mut device = scene
        .device(config, profile, config.offload.rules_max.min(REHEARSAL_RULES))
        .map_err(Failure::Config)?;
    let parted = parted::rehearse(&scene, config, profile).map_err(Failure::Config)?;
    for service in scene.snapshot.services.iter().flatten() {
        let Some(load) = traffic.services.iter().find(|load| load.service == service.name) else { continue };
        let client = load.client.map(Ip::from);
        let mut row = ServicePlan::new(service);
        if let Some((ip, port)) = scene.client(config, service, client) {
            let port = scene.snapshot.port(port).map_or("", |port| port.name.as_str());
            row.sample_client = format!("{ip} behind {port}");
        }
        let (row, taken) = match scene.rehearse(config, service, client) {
            Rehearsed::Stays(reason, text) => (row.stays(service, &scene, reason, text), None),
            Rehearsed::Asks(_) | Rehearsed::Parted if scene.no_engine.is_some() => {
                let why = scene.no_engine.clone().unwrap_or_default();
                let row = row.stays(service, &scene, "no_engine", why);
                let wanted = config.offload.engine != EngineChoice::None;
                (ServicePlan { verdict: if wanted { "refused" } else { "software" }, ..row }, None)
            }
            Rehearsed::Parted => {
                (row.parted((&scene, config, profile), service, parted.of(service.id)), None)
            }
            Rehearsed::Asks(ask) => row.tried(config, profile, &scene, &mut device, &ask),
        };
        services.push(row);
        cast.push(Cast { service, load, taken, parted: parted.of(service.id) });
    }
    let settle_s = f64::from(device.engine.traits().settle_ms) / 1000.0;
    let base = base_rules(&scene);
    let needs = limits::needs(config, &base, &cast, &parted, settle_s);
    for (row, cast) in services.iter_mut().zip(&cast) {
        row.connections_in_hardware = cast.in_hardware(config);
        row.insertions_per_second = cast.flow(config).0 * row.rules_per_connection as f64;
        row.note_unused(config, cast);
    }
    let steering = scene.steering;
    let of_device = limits::Device { profile, steering, settle_s };
    let bounds = Bounds {
        config,
        snapshot: &scene.snapshot,
        device: of_device,
        cast: &cast,
        traffic,
        needs,
        parted: parted.needs(),
    };
    let mut all: Vec<Limit> = services.iter().filter_map(|row| row.limit(traffic)).collect();
    all.extend(bounds.limits());
    // What no growth reaches and nothing exceeds is no first limit.
    let first = all.first().filter(|limit| limit.exceeded || limit.reached.is_some()).cloned();
    Ok(Verdict {
        profile: profile.name.clone(),
        summary: profile.summary.clone(),
        steering: if steering == Steering::Hardware { "hardware" } else { "software" },
        fits: !all.iter().any(|limit| limit.exceeded),
        first_limit: first,
        services,
        needs,
        partitions: bounds.partition_needs(),
        limits: all,
        notes: scene.notes,
    })
}

/// The rules that lead to connections' ones, as far as the engine has them.
fn base_rules(scene: &Scene) -> Vec<offload::rule::Rule> {
    let mut base = lower::base_rules(&scene.topology);
    if scene.no_engine.is_some() {
        base.clear();
    }
    if scene.steering == Steering::Hardware {
        base.retain(|rule| rule.attr.domain == offload::rule::Domain::Transfer);
    }
    base
}

impl ServicePlan {
    fn new(service: &Service) -> ServicePlan {
        ServicePlan {
            service: service.name.clone(),
            mode: rows::mode_name(service.mode).to_owned(),
            verdict: "software",
            directions: Vec::new(),
            reason: None,
            text: String::new(),
            rules_per_connection: 0,
            counters_per_connection: 0,
            ages_per_connection: 0,
            metered: false,
            encap_bytes: 0,
            connections_in_hardware: 0.0,
            insertions_per_second: 0.0,
            sample_client: String::new(),
            sample: Vec::new(),
            partitions: None,
        }
    }

    /// It is not offloaded; if it should be, that is a limit.
    fn stays(mut self, service: &Service, scene: &Scene, reason: &str, text: String) -> ServicePlan {
        let wanted = service.offload && scene.no_engine.is_none() && reason != "barred";
        self.verdict = if wanted { "refused" } else { "software" };
        (self.reason, self.text) = (Some(reason.to_owned()), text);
        self
    }

    /// The machine has the device try.
    fn tried(
        mut self,
        config: &Config,
        profile: &Profile,
        scene: &Scene,
        device: &mut stage::Device,
        ask: &Ask,
    ) -> (ServicePlan, Option<Taken>) {
        let before = device.holds();
        let ask = stage::numbered(ask, before[0] as u32);
        let declined = match device.ask(&ask) {
            Some(Answer::Installed { .. }) => None,
            Some(Answer::Declined { reason, .. }) => Some(reason.name()),
            Some(Answer::Removed { .. } | Answer::Counted { .. }) | None => Some("timeout"),
        };
        if let Some(reason) = declined {
            let keys = match exhausted(&device.holds(), profile) {
                Some(key) => vec![key],
                None => obstacles(profile, |relaxed| {
                    let device = scene.device(config, relaxed, config.offload.rules_max.min(REHEARSAL_RULES));
                    device.is_ok_and(|mut device| matches!(device.ask(&ask), Some(Answer::Installed { .. })))
                }),
            };
            self.verdict = "refused";
            (self.reason, self.text) = match keys.first() {
                Some(key) => {
                    let text = format!("{} ({} of the profile)", declined_text(reason), keys.join(", "));
                    (Some((*key).to_owned()), text)
                }
                None => (Some(reason.to_owned()), declined_text(reason).to_owned()),
            };
            return (self, None);
        }
        let after = device.holds();
        let rows = device.machine.rows(0, usize::MAX).0;
        let meter = rows.iter().find(|row| row.ask.flow == ask.flow).and_then(|row| row.meter);
        let age_s = device.engine.traits().ages.then_some(config.offload.idle_s);
        let dialect = if scene.steering == Steering::Hardware { Dialect::Template } else { Dialect::Sync };
        let mut rules = Vec::new();
        for (direction, name) in [(Direction::Original, "original"), (Direction::Reply, "reply")] {
            let rule = ask.legs[direction as usize]
                .and_then(|_| lower::leg(&scene.topology, &ask, direction, age_s).ok());
            let Some(rule) = rule.and_then(|rule| rule.metered(meter)) else { continue };
            self.directions.push(name);
            self.sample.push(rule.testpmd(dialect).to_string());
            rules.push(rule);
        }
        self.verdict = "hardware";
        // What comes with a meter is there once, however many connections share it.
        let another = stage::numbered(&ask, before[0] as u32 + 1);
        let (before, after) = match meter.and_then(|_| device.ask(&another)) {
            Some(Answer::Installed { .. }) => (after, device.holds()),
            _ => (before, after),
        };
        self.rules_per_connection = (after[0] - before[0]) as usize;
        self.counters_per_connection = after[1] - before[1];
        self.ages_per_connection = after[2] - before[2];
        self.metered = meter.is_some();
        self.encap_bytes = rules.iter().map(|rule| rule.headers.len()).max().unwrap_or_default();
        let objects = [self.counters_per_connection, self.ages_per_connection];
        (self, Some(Taken { ask, rules, objects, meter }))
    }

    /// Says so if hardware would take its connections, and by the traffic gets none of them.
    fn note_unused(&mut self, config: &Config, cast: &Cast<'_>) {
        if cast.taken.is_none() || cast.load.connections <= 0.0 {
            return;
        }
        let offload = &config.offload;
        let (reason, why) = match cast.unused(config) {
            None => return,
            Some(Unused::Idle) => {
                let why = format!("each sends less than a packet in [offload] idle_s = {} s", offload.idle_s);
                ("idle", why)
            }
            Some(Unused::Short) => {
                let least = offload.price_min;
                ("short", format!("none carries [offload] price_min = {least} packets in its life"))
            }
        };
        self.verdict = "unused";
        self.reason = Some(reason.to_owned());
        self.text = format!("hardware would take its connections, but {why}");
    }

    /// A service that should be offloaded and is not.
    fn limit(&self, traffic: &Traffic) -> Option<Limit> {
        // What finds no room is exceeding a limit of sizes, which says so.
        if self.verdict != "refused" || self.partitions.is_some() && self.reason.as_deref() == Some("full") {
            return None;
        }
        let load = traffic.services.iter().find(|load| load.service == self.service)?;
        // Connections bring it about, or rules that are there without any.
        let reached = Reached { times: 0.0, connections: 0.0, new_per_second: 0.0 };
        let (unit, need, reached) = match self.partitions {
            Some(parted) => ("rules", parted.rules as f64, None),
            None => ("connections", load.connections.max(1.0), Some(reached)),
        };
        let reason = self.reason.as_deref().unwrap_or("refused");
        let limit = Limit {
            limit: format!("{reason}:{}", self.service),
            of: if Profile::text("ideal").is_some_and(|keys| keys.contains(reason)) {
                "profile"
            } else {
                "engine"
            },
            unit,
            need,
            room: 0.0,
            headroom_percent: -100.0,
            exceeded: true,
            reached,
            remedy: String::new(),
        };
        let own = self.partitions.and_then(|_| parted::remedy_of(reason));
        let remedy = own.unwrap_or_else(|| remedy_of(reason));
        Some(limit.remedy(&format!("{remedy}; or set the service's offload = false")))
    }
}

/// What can be done for a service that hardware does not take.
fn remedy_of(reason: &str) -> &'static str {
    match reason {
        "path" => "let clients and backends be behind different ports of one eSwitch, or use hairpin queues",
        "mtu" => "raise the way out's MTU, or lower the way in's",
        "metered" => {
            "meter it once, by the service or by its tenant, in one colour, on a profile that has meters"
        }
        "no_engine" => "let [offload] engine be \"auto\", or start the device with the other dv_flow_en",
        "dropped" | "no_route" => {
            "name a client that may connect in the mix (client = ...), or correct the routes"
        }
        "table_rules_max" => "lower [offload] rules_max: tables have room for a quarter more than that",
        "encap_bytes_max" => "use a tunnel with shorter headers",
        "ipv6_five_tuple" | "match_dwords_max" => "use a device that compares more of a packet, or IPv4",
        _ => "use another device or mode",
    }
}

/// What the device has no more of.
fn exhausted(&[_, counters, ages, meters]: &[u64; 4], profile: &Profile) -> Option<&'static str> {
    let most = [
        ("counters_max", counters, profile.counters_max),
        ("ages_max", ages, profile.ages_max),
        ("meters_max", meters, profile.meters_max),
    ];
    most.into_iter().find(|(_, held, most)| *held > 0 && *held >= u64::from(*most)).map(|(key, ..)| key)
}

/// Which keys of the profile stand in the way of something that profiles take or not: those of which each
/// alone, all others being relaxed, has it refused.
fn obstacles(profile: &Profile, takes: impl Fn(&Profile) -> bool) -> Vec<&'static str> {
    type Relax = fn(&mut Profile);
    let keys: [(&'static str, Relax); 11] = [
        ("ipv6_five_tuple", |profile| profile.ipv6_five_tuple = true),
        ("match_dwords_max", |profile| (profile.match_dwords_max, profile.match_dwords_near_max) = (0, 0)),
        ("ipv4_ihl", |profile| profile.ipv4_ihl = true),
        ("actions_max", |profile| profile.actions_max = 64),
        ("modify_max", |profile| profile.modify_max = 1024),
        ("encap_bytes_max", |profile| profile.encap_bytes_max = 4096),
        ("table_rules_max", |profile| profile.table_rules_max = 0),
        ("tables_max", |profile| profile.tables_max = 0),
        ("counters_max", |profile| profile.counters_max = profile.counters_max.max(1 << 20)),
        ("ages_max", |profile| profile.ages_max = profile.ages_max.max(1 << 20)),
        ("meters_max", |profile| profile.meters_max = profile.meters_max.max(1 << 20)),
    ];
    let takes_but = |tight: Option<&str>| {
        let mut relaxed = profile.clone();
        for (key, relax) in keys.iter().filter(|(key, _)| Some(*key) != tight) {
            let _ = key;
            relax(&mut relaxed);
        }
        takes(&relaxed)
    };
    if !takes_but(None) {
        return Vec::new();
    }
    keys.iter().map(|(key, _)| *key).filter(|key| !takes_but(Some(key))).collect()
}
