//! Golden cases: what `plan` says gives way first, and where, against what does.
//!
//! Each is a configuration, a profile and traffic, small enough to be driven to the limit: see
//! [`super::drive`].

use super::drive::{self, Churned, Gave};
use super::traffic::{Load, Traffic};
use super::{Limit, Plan, Verdict, judge, text};
use dataplane::config::Config;
use eswitch::model::profile::Profile;

const PORTS: &str = r#"
[workers]
cores = [1]
[[port]]
name = "front"
device = "net_eswitch0"
addresses = ["10.0.0.1/24", "fd00:1::1/64"]
gateway = "10.0.0.254"
gateway6 = "fd00:1::fe"
[[port]]
name = "back"
device = "net_eswitch0_representor_vf65535"
addresses = ["10.0.1.1/24", "fd00:2::1/64"]
"#;

/// `nat` over IPv4 and TCP, beside further keys of the service.
fn web(name: &str, vip: &str, more: &str) -> String {
    format!(
        "[[service]]\nname = \"{name}\"\nvip = \"{vip}\"\nprotocol = \"tcp\"\nports = [80]\n{more}\n\
         [[service.backend]]\naddress = \"10.0.1.11:8080\"\n"
    )
}

/// `dsr`, one rule for each connection.
fn direct() -> String {
    "[[service]]\nname = \"web\"\nvip = \"192.0.2.80\"\nprotocol = \"tcp\"\nports = [80]\nmode = \"dsr\"\n\
     [[service.backend]]\naddress = \"10.0.1.11\"\n"
        .into()
}

fn config(sections: &str, services: &str) -> Config {
    let text = format!("{sections}\n{PORTS}\n{services}");
    Config::parse("golden", &text).unwrap_or_else(|faults| panic!("{faults}"))
}

fn profile(name: &str, change: impl FnOnce(&mut Profile)) -> Profile {
    let mut profile = Profile::named(name).expect("a built-in profile");
    change(&mut profile);
    profile
}

/// A service by 256 source partitions, to so many ports.
fn names(ports: u16) -> String {
    let ports: Vec<String> = (0..ports).map(|n| (5300 + n).to_string()).collect();
    format!(
        "[[service]]\nname = \"dns\"\nvip = \"192.0.2.53\"\nprotocol = \"udp\"\nports = [{}]\nmode = \"dsr\"\n\
         scheduler = \"source-partition\"\npartitions = 256\n[[service.backend]]\naddress = \"10.0.1.12\"\n",
        ports.join(", ")
    )
}

/// Of each service that keeps any: live connections, and new ones a second; none: they live for ever.
fn traffic(config: &Config, connections: f64, new_per_second: f64) -> Traffic {
    let load = |service: &dataplane::config::Service| Load {
        service: service.name.clone(),
        connections: if service.affinity.keeps_connections() { connections } else { 0.0 },
        new_per_second,
        packets_per_second: 1000.0,
        frame_bytes: 512,
        handshake_ms: 0.0,
        unanswered_per_second: 0.0,
        client: None,
    };
    Traffic { services: config.services.iter().map(load).collect(), said: Vec::new(), entries: false }
}

fn verdict(config: &Config, profile: &Profile, traffic: &Traffic) -> (Verdict, Limit) {
    let verdict = judge(config, profile, traffic).unwrap_or_else(|failure| panic!("{failure}"));
    let first = verdict.first_limit.clone().expect("a limit");
    (verdict, first)
}

/// Connections that live for ever: the plan's first limit is what gives way, at the number it says.
#[track_caller]
fn fills(config: &Config, profile: &Profile, limit: &str) {
    let (verdict, first) = verdict(config, profile, &traffic(config, 100.0, 0.0));
    let gave = drive::fill(config, profile);
    assert_eq!((first.limit.as_str(), gave.limit.as_str()), (limit, limit), "{:#?}", verdict.limits);
    let planned = first.reached.expect("it grows").connections;
    let off = (planned - f64::from(gave.connections)).abs() / planned;
    assert!(off <= 0.03, "planned {planned}, {gave:?}");
}

#[test]
fn rules_of_the_configuration() {
    let config = config("[offload]\nrules_max = 1000", &web("web", "192.0.2.80", ""));
    fills(&config, &profile("bf3-hws", |_| ()), "rules_max");
}

#[test]
fn counters_of_the_device() {
    let config = config("[offload]\nrules_max = 4000", &web("web", "192.0.2.80", ""));
    fills(&config, &profile("bf3-hws", |profile| profile.counters_max = 900), "counters");
}

#[test]
fn ages_of_the_device() {
    let config = config("[offload]\nrules_max = 4000", &web("web", "192.0.2.80", ""));
    fills(&config, &profile("bf3-hws", |profile| profile.ages_max = 700), "ages");
}

#[test]
fn rules_of_the_device() {
    let config = config("[offload]\nrules_max = 4000", &direct());
    fills(&config, &profile("bf3-hws", |profile| profile.rules_max = 600), "device_rules");
}

#[test]
fn a_tenants_share() {
    let tenants = "[offload]\nrules_max = 2000\n[[tenant]]\nname = \"default\"\noffload_share_percent = 30\n";
    let config = config(tenants, &web("web", "192.0.2.80", ""));
    fills(&config, &profile("bf3-hws", |_| ()), "tenant_share:default");
}

/// More and more rules of source partitions: the limit that the plan names for them gives way, at the number
/// that it says; with so many ports they exceed it, with one fewer they fit.
#[track_caller]
fn parts(sections: &str, profile: &Profile, limit: &str) {
    let of = |ports: u16| {
        let config = config(sections, &names(ports));
        judge(&config, profile, &traffic(&config, 0.0, 0.0)).unwrap_or_else(|failure| panic!("{failure}"))
    };
    let planned = of(1).partitions.expect("rules of partitions");
    let (gave, ports) = drive::part(profile, |ports| config(sections, &names(ports)));
    assert_eq!((planned.first_limit, gave.limit.as_str()), (limit, limit), "{planned:#?}");
    let off = (planned.rules_max - f64::from(gave.connections)).abs() / planned.rules_max;
    assert!(off <= 0.03, "planned {planned:#?}, {gave:?}");
    let (last, beyond) = (of(ports - 1), of(ports));
    assert!(last.fits && !beyond.fits, "{ports} ports are too many: {:#?}", last.limits);
    assert_eq!(beyond.first_limit.map(|limit| limit.limit).as_deref(), Some(limit));
}

#[test]
fn rules_of_partitions_that_are_planned() {
    parts("", &profile("bf3-hws", |_| ()), "partition_rules");
}

#[test]
fn rules_of_partitions_in_the_configurations() {
    parts("[offload]\nrules_max = 600", &profile("bf3-hws", |_| ()), "rules_max");
    parts("[offload]\nrules_max = 600", &profile("bf2-sws", |_| ()), "rules_max");
}

#[test]
fn counters_of_partitions() {
    parts("", &profile("bf3-hws", |profile| profile.counters_max = 700), "counters");
}

#[test]
fn rules_of_partitions_in_the_device() {
    parts("", &profile("bf3-hws", |profile| profile.rules_max = 400), "device_rules");
}

#[test]
fn connections_beside_partitions() {
    let services = names(1) + &web("web", "192.0.2.80", "");
    fills(&config("[offload]\nrules_max = 1000", &services), &profile("bf3-hws", |_| ()), "rules_max");
    let tight = profile("bf3-hws", |profile| profile.counters_max = 900);
    fills(&config("[offload]\nrules_max = 4000", &services), &tight, "counters");
}

/// What is counted of a service by source partition, and that nothing of it is a connection's.
#[test]
fn partitions_are_counted() {
    let judged = |services: &str| {
        let config = config("", services);
        let mut traffic = traffic(&config, 100.0, 0.0);
        traffic.services.iter_mut().for_each(|load| load.connections = 100.0);
        judge(&config, &profile("bf3-hws", |_| ()), &traffic).unwrap_or_else(|failure| panic!("{failure}"))
    };
    let alone = judged(&names(2));
    let row = &alone.services[0];
    assert_eq!(
        (row.verdict, row.directions.as_slice(), row.sample.len()),
        ("hardware", &["original"][..], 1)
    );
    let parted = alone.partitions.clone().expect("rules of partitions");
    assert_eq!((parted.rules, parted.counters, parted.insertions_at_start), (512, 512, 512));
    assert_eq!((parted.masks, parted.groups, parted.templates), (1, 1, 1));
    assert!(parted.start_ms > 0.0 && (parted.headroom_percent - 75.0).abs() < 0.01, "{parted:?}");
    assert_eq!((alone.needs.rules, alone.needs.counters, alone.needs.connections), (0.0, 0.0, 0.0));
    assert_eq!(alone.needs.hardware_packets_per_second, 100_000.0);
    assert!(alone.limits.iter().all(|limit| limit.limit != "connections"), "{:#?}", alone.limits);
    let connections = judged(&direct());
    let both = judged(&(names(2) + &direct()));
    assert_eq!(both.needs.masks, connections.needs.masks + 1);
    assert_eq!(both.needs.rules, connections.needs.rules);
    let rules_max = |verdict: &Verdict| {
        verdict.limits.iter().find(|limit| limit.limit == "rules_max").expect("it is needed").need
    };
    assert_eq!(rules_max(&both), rules_max(&connections) + 512.0);
    let traffic = Traffic { services: Vec::new(), said: Vec::new(), entries: false };
    let plan = Plan { version: 1, configuration: "names".into(), traffic, profiles: vec![alone] };
    let text = text::render(&plan);
    for part in [
        "512 in all",
        "256 partitions x 2 ports x 1 way in",
        "partitions: 512 rules, 512 counters; 1 of the groups, 1 of the masks, 1 of the templates; 512 insertions",
        "of partitions alone the first limit is partition_rules, at 2048 rules (75 % left)",
        "fits, whatever the traffic",
    ] {
        assert!(text.contains(part), "no {part}:\n{text}");
    }
}

/// Partitions that hardware is not to have, or cannot have: the plan says why, and the machine agrees.
#[test]
fn partitions_that_stay_in_software() {
    let limited = names(1).replace("= 256", "= 256\nlimit = { packets_per_second = 1000 }");
    let policed = names(1) + "[[policy]]\naction = \"deny\"\nfrom = [\"198.51.100.0/30\"]\n";
    let barred = names(1).replace("= 256", "= 256\noffload = false");
    let hws = profile("bf3-hws", |_| ());
    for (services, limit) in [(limited, Some("metered:dns")), (policed, Some("policy:dns")), (barred, None)] {
        let config = config("", &services);
        let verdict = judge(&config, &hws, &traffic(&config, 0.0, 0.0));
        let verdict = verdict.unwrap_or_else(|failure| panic!("{failure}"));
        let first = verdict.first_limit.as_ref().map(|limit| limit.limit.as_str());
        assert_eq!((first, verdict.fits, &verdict.partitions), (limit, limit.is_none(), &None));
        assert_eq!(drive::parted(&config, &hws), 0);
    }
}

/// Connections that come and go: at 5 % below what the plan says nobody is turned away, at 5 % above somebody
/// is, once as many go as come.
#[track_caller]
fn churns(config: &Config, profile: &Profile, limit: &str) {
    const LIFE_S: f64 = 1.0;
    let (verdict, first) = verdict(config, profile, &traffic(config, 10.0, 10.0));
    assert_eq!(first.limit, limit, "{:#?}", verdict.limits);
    let planned = first.reached.expect("it grows").new_per_second;
    let turned_away = |share: f64| drive::churn(config, profile, share * planned, LIFE_S);
    assert_eq!(turned_away(0.95), Churned::default(), "planned {planned}");
    let churned = turned_away(1.05);
    let why = [churned.settling, churned.budget].map(|count| count > 0);
    assert_eq!(why, [limit == "settling", limit != "settling"], "planned {planned}: {churned:?}");
}

/// One rule for each connection and short lives: there is room for their rules, and none for what is still
/// being counted of those that are over.
#[test]
fn connections_that_are_still_counted() {
    let config = config("[offload]\nrules_max = 1000", &direct());
    churns(&config, &profile("bf3-hws", |_| ()), "settling");
}

#[test]
fn insertions_of_the_configuration() {
    let offload = "[offload]\nrules_max = 20000\ninsertions_per_second = 400";
    let config = config(offload, &web("web", "192.0.2.80", ""));
    churns(&config, &profile("bf3-hws", |_| ()), "insertions_per_second");
}

#[test]
fn insertions_of_the_device() {
    let config = config("[offload]\nrules_max = 100000", &web("web", "192.0.2.80", ""));
    churns(&config, &profile("bf2-sws", |_| ()), "insertion_rate");
}

/// The device does not take the last service at all, for this key of its profile: with the key alone as it is
/// in `loose`, it does.
#[track_caller]
fn refuses(config: &Config, tight: &Profile, loose: &Profile, key: &str) {
    let (verdict, first) = verdict(config, tight, &traffic(config, 100.0, 0.0));
    let last = config.services.last().map(|service| service.name.clone()).unwrap_or_default();
    assert_eq!(first.limit, format!("{key}:{last}"), "{:#?}", verdict.limits);
    assert!(!verdict.fits && first.reached.is_some_and(|reached| reached.connections == 0.0));
    assert_eq!([tight, loose].map(|profile| drive::takes(config, profile)), [false, true]);
}

#[test]
fn a_match_that_is_too_wide() {
    let web6 = "[[service]]\nname = \"web6\"\nvip = \"2001:db8::80\"\nprotocol = \"tcp\"\nports = [80]\n\
                [[service.backend]]\naddress = \"[fd00:2::11]:8080\"\n";
    let config = config("", web6);
    let tight = profile("bf3-hws", |profile| profile.ipv6_five_tuple = false);
    refuses(&config, &tight, &profile("bf3-hws", |_| ()), "ipv6_five_tuple");
}

#[test]
fn headers_that_are_too_long() {
    let tunnel = "[[service]]\nname = \"web\"\nvip = \"192.0.2.80\"\nprotocol = \"tcp\"\nports = [80]\n\
                  mode = \"vxlan\"\ntunnel = { vni = 7, inner_mac = \"02:00:00:00:00:77\" }\n\
                  [[service.backend]]\naddress = \"10.0.1.11\"\n";
    let mut config = config("", tunnel);
    config.ports[1].mtu = Some(1600);
    let tight = profile("bf3-hws", |profile| profile.encap_bytes_max = 48);
    refuses(&config, &tight, &profile("bf3-hws", |_| ()), "encap_bytes_max");
}

#[test]
fn a_table_that_is_too_large() {
    let config = config("", &web("web", "192.0.2.80", ""));
    let loose = profile("bf3-xenoflow", |profile| profile.table_rules_max = 100_000);
    refuses(&config, &profile("bf3-xenoflow", |_| ()), &loose, "table_rules_max");
    // The remedy is one, and not by more than is needed.
    for (rules_max, fits) in [(6553, true), (6556, false)] {
        let mut config = config.clone();
        config.offload.rules_max = rules_max;
        let xenoflow = profile("bf3-xenoflow", |_| ());
        let (verdict, _) = verdict(&config, &xenoflow, &traffic(&config, 100.0, 0.0));
        assert_eq!((verdict.fits, drive::takes(&config, &xenoflow)), (fits, fits), "{rules_max}");
    }
}

/// Connections do not fill a table: it is made with room for a quarter more of them than there may be.
#[test]
fn a_table_that_is_just_large_enough() {
    let config = config("[offload]\nrules_max = 1000", &direct());
    let just = profile("bf3-hws", |profile| profile.table_rules_max = 1250);
    fills(&config, &just, "rules_max");
    let short = profile("bf3-hws", |profile| profile.table_rules_max = 1249);
    refuses(&config, &short, &just, "table_rules_max");
}

/// Nor is it taken for large enough because a rehearsal needs a smaller one.
#[test]
fn a_table_that_is_too_large_in_truth() {
    let config = config("[offload]\nrules_max = 40000", &direct());
    let tight = profile("bf3-hws", |profile| profile.table_rules_max = 45_000);
    refuses(&config, &tight, &profile("bf3-hws", |_| ()), "table_rules_max");
}

#[test]
fn a_table_of_partitions_that_is_too_large() {
    // Their tables have room for 5120 rules at most, and connections' ones for 81,920.
    let config = config("", &(names(1) + &web("web", "192.0.2.80", "")));
    let hws = profile("bf3-hws", |_| ());
    let between = profile("bf3-hws", |profile| profile.table_rules_max = 6000);
    refuses(&config, &between, &hws, "table_rules_max");
    assert_eq!(drive::parted(&config, &between), 256);
    let tight = profile("bf3-hws", |profile| profile.table_rules_max = 4000);
    let (verdict, first) = verdict(&config, &tight, &traffic(&config, 100.0, 0.0));
    assert_eq!((first.limit.as_str(), verdict.fits), ("table_rules_max:dns", false));
    assert_eq!(drive::parted(&config, &tight), 0);
    // The remedy is one.
    let mut config = config;
    config.offload.rules_max = 3200;
    let (verdict, _) = self::verdict(&config, &tight, &traffic(&config, 100.0, 0.0));
    assert_eq!((verdict.fits, drive::parted(&config, &tight)), (true, 256));
}

#[test]
fn tables_that_are_too_many() {
    let tight = profile("bf3-hws", |profile| profile.tables_max = 6);
    refuses(&config("", &direct()), &tight, &profile("bf3-hws", |_| ()), "tables_max");
}

#[test]
fn meters_that_are_too_many() {
    let limit = "limit = { packets_per_second = 10000, burst_ms = 100 }";
    let service = |n: u32| web(&format!("web{n}"), &format!("192.0.2.{}", 80 + n), limit);
    let config = config("", &(0..4).map(service).collect::<String>());
    let tight = profile("bf2-sws", |profile| profile.meters_max = 3);
    let (verdict, first) = verdict(&config, &tight, &traffic(&config, 100.0, 0.0));
    assert_eq!(first.limit, "meters_max:web3", "{:#?}", verdict.limits);
    assert_eq!(verdict.needs.meters, 3);
    assert_eq!(drive::fill(&config, &tight), Gave { limit: "meters".into(), connections: 3 });
}

/// Connections that stay: the tables' first limit is what the walk runs into, where the plan says.
#[track_caller]
fn crowds(config: &Config, limit: &str) {
    let (verdict, first) = verdict(config, &profile("bf3-hws", |_| ()), &traffic(config, 100.0, 0.0));
    let gave = drive::crowd(config, 3, 200, 20).expect("it gives way");
    assert_eq!((first.limit.as_str(), gave.limit.as_str()), (limit, limit), "{verdict:#?}");
    let planned = first.reached.expect("it grows").connections;
    assert!((planned - f64::from(gave.connections)).abs() <= 0.03 * planned, "planned {planned}, {gave:?}");
}

#[test]
fn entries_of_the_connection_table() {
    let limits = "[limits]\nconnections = 1000\nhalf_open_percent = 50";
    crowds(&config(limits, &web("web", "192.0.2.80", "")), "connections");
}

#[test]
fn entries_of_a_tenant() {
    let limits = "[limits]\nconnections = 4000\nhalf_open_percent = 50\n\
                  [[tenant]]\nname = \"default\"\nconnections = 800\n";
    crowds(&config(limits, &web("web", "192.0.2.80", "")), "tenant_connections:default");
}

/// Hardware would take the service, and by the traffic gets none of it: that is as wanted, and says why.
#[test]
fn hardware_that_is_not_used() {
    let config = config("[offload]\nprice_min = 50\nidle_s = 10", &web("web", "192.0.2.80", ""));
    let of = |packets_per_second: f64, new_per_second: f64| {
        let mut traffic = traffic(&config, 100.0, new_per_second);
        traffic.services[0].packets_per_second = packets_per_second;
        let (verdict, _) = verdict(&config, &profile("bf3-hws", |_| ()), &traffic);
        let service = &verdict.services[0];
        let named = ["price_min", "idle_s"].map(|key| service.text.contains(key));
        (service.verdict, service.reason.clone(), named, service.connections_in_hardware > 0.0, verdict.fits)
    };
    let said = |reason: &str| Some(reason.to_owned());
    // A second of life: 49 packets, 51, and for ever one in twenty seconds.
    assert_eq!(of(49.0, 100.0), ("unused", said("short"), [true, false], false, true));
    assert_eq!(of(51.0, 100.0), ("hardware", None, [false, false], true, true));
    assert_eq!(of(0.05, 0.0), ("unused", said("idle"), [false, true], false, true));
}

#[test]
fn half_open_connections_under_a_flood() {
    let limits = "[limits]\nconnections = 20000\nhalf_open_percent = 10";
    let config = config(limits, &web("web", "192.0.2.80", ""));
    let mut flood = traffic(&config, 10.0, 0.0);
    flood.services[0].unanswered_per_second = 10.0;
    let (verdict, first) = verdict(&config, &profile("bf3-hws", |_| ()), &flood);
    assert_eq!(first.limit, "half_open", "{:#?}", verdict.limits);
    let per_second = 10.0 * first.reached.expect("it grows").times;
    let driven = |share: f64| drive::crowd(&config, 1, (per_second * share) as u32, 25);
    assert_eq!(driven(0.97), None, "planned {per_second}");
    assert_eq!(driven(1.03).map(|gave| gave.limit).as_deref(), Some("half_open"), "planned {per_second}");
}

#[test]
fn packets_of_the_device() {
    let services = web("short", "192.0.2.80", "") + &web("long", "192.0.2.81", "");
    let config = config("[offload]\nrules_max = 20000", &services);
    let ceilings = profile("bf3-hws", |profile| {
        (profile.packets_per_second, profile.short_packets_per_second) = (400_000, 1_000_000);
        (profile.short_bytes_max, profile.burst_ns) = (64, 50_000);
    });
    let mut mix = traffic(&config, 10.0, 0.0);
    mix.services[0].frame_bytes = 60;
    let (verdict, first) = verdict(&config, &ceilings, &mix);
    assert_eq!(first.limit, "packets_per_second", "{:#?}", verdict.limits);
    let times = first.reached.expect("it grows").times;
    let poured = |share: f64| {
        let of = |load: &Load| load.connections * load.packets_per_second * times * share;
        let streams: Vec<(f64, usize)> =
            mix.services.iter().map(|load| (of(load), load.frame_bytes as usize)).collect();
        drive::pour(&ceilings, &streams)
    };
    assert_eq!(poured(0.97), 0, "planned {times} times");
    assert!(poured(1.03) > 0, "planned {times} times");
}
