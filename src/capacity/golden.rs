//! Golden cases: what `plan` says gives way first, and where, against what does.
//!
//! Each is a configuration, a profile and traffic, small enough to be driven to the limit: see
//! [`super::drive`].

use super::drive::{self, Churned, Gave};
use super::traffic::{Load, Traffic};
use super::{Limit, Verdict, judge};
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

/// Of each service: live connections, and new ones a second; none: they live for ever.
fn traffic(config: &Config, connections: f64, new_per_second: f64) -> Traffic {
    let load = |service: &dataplane::config::Service| Load {
        service: service.name.clone(),
        connections,
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
