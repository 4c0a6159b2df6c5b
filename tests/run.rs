//! The whole program, started, asked, changed and stopped, on devices that deliver packets without end and
//! without privileges or hardware (`net_null`).

#![allow(clippy::disallowed_methods, reason = "tests wait for other processes by the clock")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

const BACKENDS: &str = "
[[service.backend]]
address = \"10.0.1.2:8080\"
[[service.backend]]
address = \"10.0.1.3:8080\"
weight = 3
";

fn configuration(directory: &Path, metrics_port: u16) -> String {
    format!(
        r#"
[dpdk]
hugepages = false
mbufs = 8192
file_prefix = "millrace-test"
[log]
format = "json"
[control]
socket = "{}/sock"
[metrics]
listen = "127.0.0.1:{metrics_port}"
[limits]
connections = 10000
[[port]]
name = "wan"
device = "net_null0"
addresses = ["10.0.0.1/24"]
[[port]]
name = "lan"
device = "net_null1"
addresses = ["10.0.1.1/24", "2001:db8:1::1/64"]
[[service]]
name = "web"
vip = "192.0.2.1"
protocol = "tcp"
ports = [80]
{BACKENDS}"#,
        directory.display()
    )
}

/// A running Millrace and its log.
struct Millrace {
    directory: tempfile::TempDir,
    metrics_port: u16,
    child: Child,
    log: mpsc::Receiver<String>,
}

impl Millrace {
    fn start() -> Millrace {
        Millrace::with(|configuration| configuration)
    }

    /// Starts with the configuration changed.
    fn with(change: impl FnOnce(String) -> String) -> Millrace {
        let directory = tempfile::tempdir().expect("temporary directory");
        // The kernel names a free port; nobody else asks in the instant before it is used.
        let probe = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
        let metrics_port = probe.local_addr().expect("address").port();
        drop(probe);
        let text = change(configuration(directory.path(), metrics_port));
        std::fs::write(directory.path().join("m.toml"), text).expect("written");
        let mut child = Command::new(env!("CARGO_BIN_EXE_millrace"))
            .args(["run", "--config"])
            .arg(directory.path().join("m.toml"))
            .env("RUST_LOG", "")
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        let stderr = child.stderr.take().expect("piped");
        let (lines, log) = mpsc::channel();
        std::thread::spawn(move || {
            BufReader::new(stderr).lines().map_while(Result::ok).try_for_each(|line| lines.send(line))
        });
        let millrace = Millrace { directory, metrics_port, child, log };
        millrace.wait_for("\"ready\"");
        millrace
    }

    /// Reads the log up to a line with `text` in it.
    fn wait_for(&self, text: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut seen = String::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.log.recv_timeout(left) {
                Ok(line) if line.contains(text) => return line,
                Ok(line) => seen = seen + &line + "\n",
                Err(_) => panic!("no {text} in the log:\n{seen}"),
            }
        }
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("m.toml")
    }

    /// Runs a command against it: exit code, standard output, standard error.
    fn tell(&self, words: &[&str]) -> (Option<i32>, String, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_millrace"))
            .arg("--socket")
            .arg(self.directory.path().join("sock"))
            .args(words)
            .output()
            .expect("runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    }

    fn json(&self, words: &[&str]) -> serde_json::Value {
        let (code, stdout, stderr) = self.tell(&[words, &["--json"]].concat());
        assert_eq!(code, Some(0), "{words:?}: {stderr}");
        serde_json::from_str(&stdout).expect("JSON")
    }

    fn page(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.metrics_port)).expect("connected");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("sent");
        let mut page = String::new();
        stream.read_to_string(&mut page).expect("answered");
        page
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().expect("kill runs").success());
    }
}

impl Drop for Millrace {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_life() {
    let mut millrace = Millrace::start();
    only_workers_use_their_cores(&millrace);
    questions_are_answered(&millrace);
    backends_are_drained(&millrace);
    reloads_take_effect_or_are_refused(&millrace);
    it_stops_at_once_and_accounts_for_every_packet(&mut millrace);
}

/// Every thread but the worker itself keeps off its core, DPDK's own included, if there is another core.
/// Packets of the first IPv6 connections wait for no page to be cleared, and without them none is taken.
#[test]
fn memory_for_ipv6_is_taken_at_the_start() {
    const CONNECTIONS: u64 = 500_000;
    let resident = |services: &str| {
        let connections = format!("connections = {CONNECTIONS}");
        let millrace = Millrace::with(|text| text.replace("connections = 10000", &connections) + services);
        let status = std::fs::read_to_string(format!("/proc/{}/status", millrace.child.id())).expect("runs");
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("in every status");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    };
    let without = resident("");
    let with = resident(
        r#"
[[service]]
name = "web6"
vip = "2001:db8::1"
protocol = "tcp"
ports = [80]
[[service.backend]]
address = "[2001:db8:1::2]:8080"
"#,
    );
    let each = with.saturating_sub(without) / CONNECTIONS;
    assert!((40..60).contains(&each), "{each} bytes for each connection: {with} and {without}");
}

fn only_workers_use_their_cores(millrace: &Millrace) {
    let alone = std::thread::available_parallelism().is_ok_and(|cores| cores.get() == 1);
    let tasks = std::fs::read_dir(format!("/proc/{}/task", millrace.child.id())).expect("listed");
    for task in tasks.map(|task| task.expect("listed").path()) {
        // A thread may end while we look.
        let Ok(status) = std::fs::read_to_string(task.join("status")) else { continue };
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.map_or_else(String::new, |value| value.trim().to_owned())
        };
        let (name, cores) = (field("Name:"), field("Cpus_allowed_list:"));
        let on_core_0 = cores.starts_with('0');
        assert!(on_core_0 == name.starts_with("worker") || alone, "{name} runs on {cores}");
    }
}

fn questions_are_answered(millrace: &Millrace) {
    assert!(millrace.page("/healthz").starts_with("HTTP/1.1 200"));
    assert!(millrace.page("/readyz").starts_with("HTTP/1.1 200"));
    let metrics = millrace.page("/metrics");
    assert!(metrics.contains("\nlb_backends{service=\"web\",state=\"active\"} 2\n"), "{metrics}");
    assert_eq!(millrace.json(&["show", "ports"])[1]["driver"], "net_null");
    assert_eq!(millrace.json(&["show", "services"])[0]["vip"], "192.0.2.1");
    assert_eq!(millrace.json(&["show", "connections"])["entries"], 0);
    assert!(millrace.json(&["show", "workers"])[0]["received"].as_u64() > Some(0));
    // No port takes flow rules, which is no failure.
    assert_eq!(millrace.json(&["show", "offload"])["engine"], "none");
    assert_eq!(millrace.json(&["show", "rules", "--service", "web"])["total"], 0);
    assert!(metrics.contains("\noffload_info{engine=\"none\"} 1\n"), "{metrics}");
    let whats = ["services", "backends", "connections", "ports", "workers", "drops", "neighbours", "offload"];
    for what in whats.into_iter().chain(["rules"]) {
        let (code, stdout, stderr) = millrace.tell(&["show", what]);
        assert!(code == Some(0) && !stdout.is_empty(), "{what}: {stderr}");
    }
    assert!(millrace.tell(&["version"]).1.contains("running: millrace"));
    let (code, _, stderr) = millrace.tell(&["show", "connections", "--service", "wob"]);
    assert!(code == Some(1) && stderr.contains("there is no service `wob`"), "{stderr}");
}

/// A backend's state and its share of new connections, in percent.
fn backend(millrace: &Millrace, name: &str) -> (String, u32) {
    let rows = millrace.json(&["show", "backends"]);
    let row = rows.as_array().and_then(|rows| rows.iter().find(|row| row["backend"] == name));
    let row = row.unwrap_or_else(|| panic!("{name} is not in {rows}"));
    let share = row["share"].as_f64().expect("a number") * 100.0;
    (row["state"].as_str().expect("a string").to_owned(), share.round() as u32)
}

fn backends_are_drained(millrace: &Millrace) {
    assert_eq!(backend(millrace, "10.0.1.3:8080"), ("active".into(), 75));
    assert_eq!(millrace.tell(&["drain", "web", "10.0.1.3:8080"]).0, Some(0));
    assert_eq!(backend(millrace, "10.0.1.3:8080"), ("draining".into(), 0));
    assert_eq!(backend(millrace, "10.0.1.2:8080"), ("active".into(), 100));
    // By address alone, where it is clear; a reload does not end it.
    assert_eq!(millrace.tell(&["reload"]).0, Some(0));
    assert_eq!(backend(millrace, "10.0.1.3:8080"), ("draining".into(), 0));
    assert_eq!(millrace.tell(&["undrain", "web", "10.0.1.3"]).0, Some(0));
    assert_eq!(backend(millrace, "10.0.1.3:8080"), ("active".into(), 75));
    let (code, _, stderr) = millrace.tell(&["drain", "web", "10.0.1.9"]);
    assert!(code == Some(1) && stderr.contains("10.0.1.2:8080, 10.0.1.3:8080"), "{stderr}");
}

fn reloads_take_effect_or_are_refused(millrace: &Millrace) {
    let original = std::fs::read_to_string(millrace.file()).expect("read");
    let reload = |from: &str, to: &str| {
        assert!(original.contains(from));
        std::fs::write(millrace.file(), original.replace(from, to)).expect("written");
        millrace.tell(&["reload"])
    };
    assert_eq!(reload("weight = 3", "weight = 1").0, Some(0));
    assert_eq!(backend(millrace, "10.0.1.3:8080"), ("active".into(), 50));

    let (code, _, stderr) = reload("weight = 3", "weight = -3");
    assert!(code == Some(2) && stderr.contains("weight"), "{stderr}");
    let (code, _, stderr) = reload("net_null1", "net_null7");
    assert!(code == Some(2) && stderr.contains("port[1] \"lan\".device"), "{stderr}");
    assert_eq!(backend(millrace, "10.0.1.3:8080"), ("active".into(), 50), "what was refused changed nothing");

    std::fs::write(millrace.file(), &original).expect("written");
    millrace.signal("HUP");
    let deadline = Instant::now() + Duration::from_secs(10);
    while backend(millrace, "10.0.1.3:8080").1 != 75 {
        assert!(Instant::now() < deadline, "SIGHUP did not reload");
    }
    let metrics = millrace.page("/metrics");
    assert!(metrics.contains("config_reload_total{result=\"failure\"} 2"), "{metrics}");
}

fn it_stops_at_once_and_accounts_for_every_packet(millrace: &mut Millrace) {
    let start = Instant::now();
    millrace.signal("TERM");
    let status = millrace.child.wait().expect("waited for");
    assert!(start.elapsed() < Duration::from_secs(2), "took {:?}", start.elapsed());
    assert!(status.success(), "{status}");
    let line = millrace.wait_for("worker stopped");
    let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!((&line["unaccounted"], &line["held"]), (&"0".into(), &0.into()));
    assert!(line["received"].as_u64() > Some(0));
    assert!(!millrace.directory.path().join("sock").exists(), "the socket outlives the process");
}
