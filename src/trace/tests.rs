use super::*;

const CONFIG: &str = r#"
[[port]]
name = "front"
device = "net_null0"
addresses = ["10.0.0.1/24", "fd00:1::1/64"]
gateway = "10.0.0.254"
gateway6 = "fd00:1::fe"

[[port]]
name = "back"
device = "net_null1"
addresses = ["10.0.1.1/24"]
[[port.neighbour]]
address = "10.0.1.11"
mac = "02:00:00:00:07:07"

[[service]]
name = "web"
vip = "192.0.2.80"
protocol = "tcp"
ports = [80]
mode = "nat"
[[service.backend]]
address = "10.0.1.11:8080"

[[service]]
name = "tunnelled"
vip = "192.0.2.90"
protocol = "udp"
ports = [443]
mode = "ipip"
[[service.backend]]
address = "10.0.1.11"

[[tenant]]
name = "blue"
[[port]]
name = "blue-front"
parent = "front"
vlan = 10
tenant = "blue"
addresses = ["10.0.0.1/24"]
gateway = "10.0.0.254"
[[service]]
name = "blue-web"
tenant = "blue"
vip = "192.0.2.80"
protocol = "tcp"
ports = [80]
[[service.backend]]
address = "10.0.0.11:8080"

[[policy]]
name = "no-guests"
action = "deny"
from = ["203.0.113.0/24"]
"#;

fn trace(flow: &str) -> TraceRow {
    trace_of(&TraceQuery { flow: flow.to_owned(), ..TraceQuery::default() })
}

fn trace_of(query: &TraceQuery) -> TraceRow {
    let config = Config::parse("test", CONFIG).unwrap_or_else(|faults| panic!("{faults}"));
    offline(&config, CONFIG, query).unwrap_or_else(|refusal| panic!("{refusal}"))
}

/// The first line of the configuration that says so.
fn line_of(text: &str) -> usize {
    1 + CONFIG.lines().position(|line| line == text).expect("in the configuration")
}

fn step<'a>(row: &'a TraceRow, name: &str) -> &'a StepRow {
    row.steps.iter().find(|step| step.step == name).unwrap_or_else(|| panic!("no {name}: {row:?}"))
}

fn steps(row: &TraceRow) -> Vec<&str> {
    row.steps.iter().map(|step| step.step.as_str()).collect()
}

#[test]
fn a_newcomer_is_followed_to_its_backend() {
    let row = trace("198.51.100.7:5555 -> 192.0.2.80:80/tcp");
    assert_eq!(row.verdict, "forwarded to back");
    let all = ["parse", "policy", "service", "backend", "connection", "connection", "route", "rewrite"];
    let mut told = steps(&row);
    assert_eq!(told.pop(), Some("neighbour"));
    told.sort_unstable();
    let mut all = all.to_vec();
    all.sort_unstable();
    assert_eq!(told, all);
    assert!(row.sent[0].frame.starts_with("020000000707"), "{}", row.sent[0].frame);
    assert_eq!(row.connection.map(|found| found.backend), Some("10.0.1.11:8080".to_owned()));
}

#[test]
fn a_rule_is_named_with_its_line() {
    let row = trace("203.0.113.9:5555 -> 192.0.2.80:80/tcp");
    assert_eq!(row.verdict, "dropped: policy_denied");
    let judged = row.steps.iter().find(|step| step.step == "policy").expect("judged");
    assert_eq!(
        (judged.text.as_str(), judged.line),
        ("deny by rule 0 (no-guests)", Some(line_of("[[policy]]")))
    );
}

#[test]
fn services_and_backends_are_named_with_their_lines() {
    let row = trace("198.51.100.7:5555 -> 192.0.2.80:80/tcp");
    assert_eq!(step(&row, "service").line, Some(line_of("name = \"web\"")));
    assert_eq!(step(&row, "backend").line, Some(line_of("address = \"10.0.1.11:8080\"")));
    assert_eq!(step(&row, "policy").text, "allow, as no rule matches");
}

/// The meters of a service and its tenant, by the last of whose tokens such a packet could pass or not.
#[test]
fn meters_are_named_with_their_colours_and_rates() {
    let limits = CONFIG
        .replace(
            "name = \"blue\"\n",
            "name = \"blue\"\nlimit = { packets_per_second = 1000, excess_ms = 1 }\n",
        )
        .replace("name = \"blue-web\"\n", "name = \"blue-web\"\nlimit = { bits_per_second = 8000 }\n");
    let config = Config::parse("test", &limits).unwrap_or_else(|faults| panic!("{faults}"));
    let flow = "198.51.100.7:5555 -> 192.0.2.80:80/tcp".to_owned();
    let query = TraceQuery { flow, port: Some("blue-front".to_owned()), ..TraceQuery::default() };
    let row = offline(&config, &limits, &query).unwrap_or_else(|refusal| panic!("{refusal}"));
    let told: Vec<_> = row.steps.iter().filter(|step| step.step == "meter").collect();
    let texts: Vec<_> = told.iter().map(|step| step.text.as_str()).collect();
    assert_eq!(
        texts,
        [
            "green now for the limit of service blue-web, 8000 bit/s",
            "green now for the limit of tenant 1, 1000 packets/s"
        ]
    );
    let line = 1 + limits.lines().position(|line| line == "name = \"blue-web\"").expect("there");
    assert_eq!((told[0].line, told[1].line), (Some(line), None));
}

#[test]
fn a_tunnel_is_named() {
    let row = trace("198.51.100.7:5555 -> 192.0.2.90:443/udp");
    assert_eq!(row.verdict, "forwarded to back");
    let told = row.steps.iter().any(|step| step.text == "put into ipip to 10.0.1.11");
    assert!(told, "{:?}", row.steps);
}

/// A port on another's device: its tag, its tenant, and that tenant's service.
#[test]
fn tenants_have_their_own_ways() {
    let flow = "198.51.100.7:5555 -> 192.0.2.80:80/tcp".to_owned();
    let query = TraceQuery { flow, port: Some("blue-front".to_owned()), ..TraceQuery::default() };
    let row = trace_of(&query);
    assert!(step(&row, "parse").text.ends_with("received on blue-front, tenant 1"), "{row:?}");
    assert_eq!(step(&row, "service").line, Some(line_of("name = \"blue-web\"")));
    assert_eq!(step(&row, "backend").line, Some(line_of("address = \"10.0.0.11:8080\"")));
}

#[test]
fn pings_and_strangers() {
    assert_eq!(trace("10.0.0.254 -> 192.0.2.80/icmp").verdict, "held until its next hop answers");
    assert_eq!(trace("fd00:1::7 -> fd00:1::1/icmp").steps[0].step, "parse");
    assert_eq!(trace("198.51.100.7:53 -> 192.0.2.99:53/udp").verdict, "dropped: no_service");
}

#[test]
fn wrong_words_are_explained() {
    for flow in
        ["", "10.0.0.1:1", "10.0.0.1:1 -> 10.0.0.2:2", "x -> 10.0.0.2:2/tcp", "10.0.0.1 -> fd00::1/icmp"]
    {
        let query = TraceQuery { flow: flow.to_owned(), ..TraceQuery::default() };
        let refusal = Packet::new(&query).expect_err(flow);
        assert!(refusal.error.contains("192.0.2.53:53/udp"), "{}", refusal.error);
    }
}

/// What is made up is what the walk takes for sound, whatever is asked for.
#[test]
fn every_packet_is_sound() {
    let config = Config::parse("test", CONFIG).unwrap_or_else(|faults| panic!("{faults}"));
    for flow in ["198.51.100.7:5 -> 192.0.2.80:80/", "[2001:db8::7]:5 -> [2001:db8::80]:80/"] {
        for (protocol, size) in [("tcp", 1200), ("udp", 1201), ("icmp", 77)] {
            let flow = format!("{flow}{protocol}");
            let query = TraceQuery { flow, size: Some(size), ..TraceQuery::default() };
            let row = offline(&config, CONFIG, &query).unwrap_or_else(|refusal| panic!("{refusal}"));
            assert_eq!(row.steps.first().map(|step| step.step.as_str()), Some("parse"), "{row:?}");
        }
    }
}
