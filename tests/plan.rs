//! `millrace plan` as a shell sees it: exit codes, and what machines read.

use serde_json::Value;
use std::io::Write as _;
use std::process::{Command, Output};

fn plan(arguments: &[&str]) -> Output {
    let root = env!("CARGO_MANIFEST_DIR");
    let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
    command
        .current_dir(root)
        .env_remove("MILLRACE_SOCKET")
        .arg("plan")
        .args(arguments)
        .output()
        .expect("runs")
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn file(content: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("temporary file");
    file.write_all(content.as_bytes()).expect("written");
    file
}

#[test]
fn exit_codes_tell_what_fits_from_what_does_not_and_from_nonsense() {
    let example = "examples/eswitch.toml";
    let fits = plan(&[example, "--profile", "bf3-hws"]);
    assert_eq!((fits.status.code(), fits.stderr.as_slice()), (Some(0), &b""[..]));
    let more = ["--connections", "40000", "--new-per-second", "100"];
    let exceeded = plan(&[&[example, "--profile", "bf3-hws"][..], &more].concat());
    assert_eq!((exceeded.status.code(), exceeded.stderr.as_slice()), (Some(3), &b""[..]));
    for nonsense in [
        &[example][..],
        &[example, "--profile", "bf9"],
        &["none.toml", "--profile", "ideal"],
        &[example, "--profile", "ideal", "--connections", "-1"],
        &[example, "--profile", "ideal", "--mix", "examples/eswitch.toml"],
        &[example, "--profile", "ideal", "--snapshot", "examples/eswitch.toml"],
    ] {
        let refused = plan(nonsense);
        assert_eq!(refused.status.code(), Some(2), "{nonsense:?}");
        assert!(!refused.stderr.is_empty(), "{nonsense:?}");
    }
}

#[test]
fn several_profiles_are_compared() {
    let output = plan(&["examples/eswitch.toml", "--profile", "bf3-hws", "--profile", "bf3-xenoflow"]);
    assert_eq!(output.status.code(), Some(3), "one of them is exceeded");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(text.contains("PROFILE") && text.contains("table_rules_max:web"), "{text}");
}

#[test]
fn machines_get_a_stable_shape() {
    let arguments = ["examples/eswitch.toml", "--profile", "bf3-hws", "--profile", "bf2-sws", "--json"];
    let plan = json(&plan(&arguments));
    assert_eq!(plan["version"], 1);
    let keys = |value: &Value| value.as_object().map(|object| object.keys().cloned().collect::<Vec<_>>());
    let wanted = |words: &str| Some(words.split(' ').map(str::to_owned).collect::<Vec<_>>());
    assert_eq!(keys(&plan), wanted("configuration profiles traffic version"));
    let verdict = &plan["profiles"][0];
    assert_eq!(
        keys(verdict),
        wanted("first_limit fits limits needs notes partitions profile services steering summary")
    );
    let limit = &verdict["limits"][0];
    assert_eq!(keys(limit), wanted("exceeded headroom_percent limit need of reached remedy room unit"));
    assert_eq!(keys(&limit["reached"]), wanted("connections new_per_second times"));
    assert_eq!(limit, &verdict["first_limit"]);
    let service = &verdict["services"][0];
    assert_eq!(service["rules_per_connection"], 2);
    let rule = service["sample"][0].as_str().unwrap_or_default();
    assert!(rule.contains("represented_port") && rule.contains("count"), "{rule}");
    [&plan, verdict, limit, &limit["reached"], service, &verdict["needs"], &plan["traffic"]["services"][0]]
        .into_iter()
        .for_each(assert_described);
}

/// The page says what the keys of an object are.
#[track_caller]
fn assert_described(value: &Value) {
    let page =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/plan.md")).expect("the page");
    for key in value.as_object().expect("an object").keys() {
        assert!(page.contains(&format!("`{key}`")), "docs/plan.md should say what `{key}` is");
    }
}

/// On the example, by each profile that docs speak of.
#[test]
fn source_partitions_are_planned() {
    let example = "examples/source-partition.toml";
    let profiles = ["--profile", "bf2-sws", "--profile", "bf3-hws", "--profile", "bf3-xenoflow", "--json"];
    let output = plan(&[&[example][..], &profiles].concat());
    assert_eq!(output.status.code(), Some(0));
    let plan_of_all = json(&output);
    for verdict in plan_of_all["profiles"].as_array().expect("profiles") {
        let (parted, service) = (&verdict["partitions"], &verdict["services"][0]);
        let counted = ["rules", "counters", "insertions_at_start", "masks"].map(|key| parted[key].as_u64());
        assert_eq!(counted, [Some(64), Some(64), Some(64), Some(1)], "{verdict}");
        assert_eq!(parted["first_limit"], "partition_rules");
        assert_eq!((&service["verdict"], &service["partitions"]["rules"]), (&"hardware".into(), &64.into()));
        [parted, service, &service["partitions"]].into_iter().for_each(assert_described);
    }
    // No connections are counted of such a service; its packets are.
    let page = file("lb_packets_total{service=\"dns\",backend=\"b\",path=\"sw\"} 4000000\n");
    let path = page.path().to_str().expect("UTF-8");
    let seen = ["--snapshot", path, "--snapshot-seconds", "100"];
    let plan = json(&plan(&[&[example, "--profile", "bf3-hws", "--json"][..], &seen].concat()));
    assert_eq!(plan["profiles"][0]["needs"]["hardware_packets_per_second"], 40_000.0);
}

#[test]
fn a_mix_says_what_each_service_carries() {
    let mix = file("[[service]]\nname = \"web\"\nnew_per_second = 1000\nmean_life_s = 30\n");
    let path = mix.path().to_str().expect("UTF-8");
    let plan = json(&plan(&["examples/eswitch.toml", "--profile", "ideal", "--mix", path, "--json"]));
    let load = &plan["traffic"]["services"][0];
    assert_eq!(
        (load["connections"].as_f64(), load["new_per_second"].as_f64()),
        (Some(30_000.0), Some(1000.0))
    );
}

#[test]
fn a_page_of_metrics_is_traffic() {
    let page = file(
        "# TYPE lb_connections gauge\n\
         lb_connections{service=\"web\",backend=\"10.0.0.1:80\"} 300\n\
         lb_connections{service=\"web\",backend=\"10.0.0.2:80\"} 100\n\
         lb_opened_total{service=\"web\"} 5000\n\
         lb_packets_total{vip=\"v\",service=\"web\",backend=\"b\",direction=\"original\",path=\"sw\"} 4000000\n",
    );
    let path = page.path().to_str().expect("UTF-8");
    let arguments = ["examples/eswitch.toml", "--profile", "ideal", "--snapshot", path, "--json"];
    assert_eq!(plan(&arguments).status.code(), Some(2), "nothing says over what time");
    let plan = json(&plan(&[&arguments[..], &["--snapshot-seconds", "100"]].concat()));
    let load = &plan["traffic"]["services"][0];
    let figures = ["connections", "new_per_second", "packets_per_second"].map(|key| load[key].as_f64());
    assert_eq!(figures, [Some(400.0), Some(50.0), Some(100.0)]);
}
