use super::*;

#[test]
fn every_built_in_profile_reads() {
    for name in Profile::names() {
        let text = Profile::text(name).unwrap();
        let profile = Profile::parse(text).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(profile.name, name);
        assert_eq!(Profile::named(name), Some(profile));
    }
    assert_eq!(Profile::names().len(), 5);
    assert_eq!(Profile::named("bf4"), None);
}

/// A number without a source is a number made up: it must say so.
#[test]
fn every_number_has_a_source_or_is_assumed() {
    let mut numbers = 0;
    for name in Profile::names() {
        for (index, line) in Profile::text(name).unwrap().lines().enumerate() {
            let Some((_, rest)) = key_of(line).and(line.split_once('=')) else { continue };
            if rest.trim_start().starts_with('"') {
                continue;
            }
            let comment = rest.split_once('#').map_or("", |(_, comment)| comment.trim());
            let says = |prefix: &str| comment.strip_prefix(prefix).is_some_and(|rest| rest.trim().len() >= 8);
            let line = index + 1;
            assert!(says("source:") || says("assumed:"), "{name}.toml, line {line}: whence? {comment:?}");
            numbers += 1;
        }
    }
    assert_eq!(numbers, 5 * 31 + 10, "and one testbed");
}

/// What the sources say, per second.
#[test]
fn mean_costs_are_the_sources_rates() {
    let rate = |name: &str, pick: fn(&Profile) -> Spread| {
        1_000_000_000 / pick(&Profile::named(name).unwrap()).mean_ns()
    };
    assert!((2900..=3300).contains(&rate("bf2-sws", |profile| profile.create_cost_ns)));
    assert!((1_000_000..=1_100_000).contains(&rate("cx6dx", |profile| profile.create_cost_ns)));
    assert!((4_460_000..=4_580_000).contains(&rate("bf3-hws", |profile| profile.create_cost_ns)));
    assert!((7_700_000..=7_950_000).contains(&rate("bf3-hws", |profile| profile.destroy_cost_ns)));
    // The whole run made 108,700 a second, the program's own time between the calls included.
    assert!((108_700..=119_000).contains(&rate("bf3-xenoflow", |profile| profile.create_cost_ns)));
}

#[test]
fn the_ideal_device_takes_no_time() {
    let ideal = Profile::named("ideal").unwrap();
    assert!(ideal.spreads().iter().all(|(_, spread)| *spread == Spread::always(0)));
    assert_eq!(ideal.packets_per_second, 0);
    assert_eq!(ideal.collide_full_percent, 0);
}

#[test]
fn limits_are_the_chips() {
    let limits = |name: &str| Profile::named(name).unwrap().limits();
    assert_eq!(limits("bf2-sws"), Limits::bluefield2());
    assert_eq!(limits("cx6dx"), Limits::bluefield2());
    assert_eq!(limits("bf3-hws"), Limits::default());
    assert_eq!(limits("bf3-xenoflow"), Limits { max_table_rules: 8192, ..Limits::default() });
    assert_eq!(limits("ideal"), Limits { match_dwords: 0, ..Limits::default() });
}

fn fault(change: impl Fn(&str) -> String) -> String {
    Profile::parse(&change(Profile::text("ideal").unwrap())).unwrap_err().to_string()
}

#[test]
fn faults_name_line_key_and_remedy() {
    let line = |key: &str| line_of(Profile::text("ideal").unwrap(), key);
    assert_eq!(
        fault(|text| text.replace("rules_max = 67_108_864", "rules_max = 0")),
        format!("line {}: rules_max: 0 leaves nothing; use 1 or more", line("rules_max")),
    );
    assert_eq!(
        fault(|text| text.replace("queues_max = 255", "queues_max = 256")),
        format!(
            "line {}: queues_max: too many for a rule's handle, or none; use 1 to 255",
            line("queues_max")
        ),
    );
    let unknown = fault(|text| format!("{text}speed = 3\n"));
    assert!(unknown.contains("speed: unknown field `speed`"), "{unknown}");
    assert!(unknown.ends_with("remove it, or correct its name"), "{unknown}");
    let missing = fault(|text| text.replace("burst_ns = 0", "# burst_ns = 0"));
    assert_eq!(missing, "line 1: burst_ns: missing field `burst_ns`; add it; a built-in profile shows how");
    let kind = fault(|text| text.replace("modify_max = 32", "modify_max = \"many\""));
    assert!(kind.starts_with(&format!("line {}: modify_max: invalid type", line("modify_max"))), "{kind}");
    let steering = fault(|text| text.replace("\"hardware\"", "\"firmware\""));
    assert!(
        steering.starts_with(&format!("line {}: steering: unknown variant", line("steering"))),
        "{steering}"
    );
    let broken = fault(|text| text.replace("modify_max = 32", "modify_max 32"));
    assert!(broken.starts_with(&format!("line {}: ", line("modify_max"))), "{broken}");
}

#[test]
fn spreads_are_checked() {
    let with = |value: &str| {
        fault(|text| {
            text.replace("create_cost_ns = { median = 0, p99 = 0 }", &format!("create_cost_ns = {value}"))
        })
    };
    assert!(with("{ median = 5, p99 = 4 }").contains("create_cost_ns: p99 below the median"));
    assert!(with("{ median = 5, p99 = 250 }").contains("create_cost_ns: p99 is 50 times"));
    assert!(with("{ median = 0, p99 = 1 }").contains("create_cost_ns: a median of 0"));
    assert!(with("{ median = 1, p99 = 9_000_000_000_000 }").contains("longer than an hour"));
    assert!(with("{ median = 1, p99 = 1, mean = 1 }").contains("unknown field"));
    assert!(with("{ median = -1, p99 = 1 }").contains("create_cost_ns: invalid value"));
}
