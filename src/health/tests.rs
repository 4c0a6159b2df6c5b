//! The thread itself, without ports or workers: its probes go nowhere.

use super::*;
use dataplane::addr::MacAddr;
use dataplane::config::Config;
use dataplane::snapshot::{Overrides, PortFacts};
use std::sync::mpsc;
use std::time::Instant;

const CHECKED: &str = r#"
[[port]]
name = "lan"
device = "net_null0"
addresses = ["10.0.0.1/24"]
[[service]]
name = "web"
vip = "192.0.2.1"
protocol = "tcp"
ports = [80]
health = { type = "tcp" }
backend = [{ address = "10.0.0.2" }, { address = "10.0.0.3" }]
"#;

fn snapshot() -> Arc<Snapshot> {
    let config = Config::parse("test", CHECKED).unwrap_or_else(|faults| panic!("{faults}"));
    let facts = [PortFacts { mac: MacAddr([2, 0, 0, 0, 0, 1]), mtu: 1500 }];
    Arc::new(Snapshot::build(&config, &facts, &Overrides::default(), None, &|_| 0).expect("a snapshot"))
}

/// Waits until the findings are as they should be.
#[expect(clippy::disallowed_methods, reason = "a thread is waited for, not told the time")]
fn wait(shared: &Shared, what: &str, are: impl Fn(&Findings) -> bool) -> Arc<Findings> {
    let began = Instant::now();
    loop {
        let findings = shared.findings();
        if are(&findings) {
            return findings;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "not {what}: {findings:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_checker_that_panics_is_started_afresh_and_knows_what_it_knew() {
    let (events, inbox) = mpsc::channel();
    let checker = Checker::new(&[], Vec::new(), Clock::new(0, 1_000_000_000), events);
    let (shared, snapshot) = (checker.shared(), snapshot());
    // As if it had found one of them down before.
    let down = Memory {
        state: State::Down,
        since_ms: 7,
        last_error: Some(Cause::Refused),
        transitions: [1, 0, 1, 0, 0, 0, 0],
        share: 100,
    };
    let name = "10.0.0.3".to_owned();
    let known = [("web".into(), [(name.clone(), down.clone())].into_iter().collect())].into_iter().collect();
    shared.with(|board| board.findings = Arc::new(Findings { backends: known, ..Findings::default() }));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| checker.run(&stop));
        shared.publish(&snapshot);
        let first = wait(&shared, "probing", |found| found.probes[2] > 0);
        checker.fault.store(true, Relaxed);
        let after = wait(&shared, "started afresh", |found| found.restarts == 1);
        assert!(after.probes[2] >= first.probes[2] && after.standings == first.standings);
        let again = wait(&shared, "probing again", |found| found.probes[2] > after.probes[2]);
        assert_eq!(again.backends["web"][&name], down);
        assert_eq!(again.backends["web"]["10.0.0.2"].state, State::Unknown);
        assert_eq!((again.restarts, again.standings == first.standings), (1, true));
        stop.store(true, Relaxed);
    });
    let told = inbox.try_iter().count();
    assert_eq!(told, 1, "the manager hears of the first finding, and of nothing new since");
}
