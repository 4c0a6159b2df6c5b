//! Verdicts that the policy wants logged, on their way from the workers to the log.

use crossbeam::queue::ArrayQueue;
use dataplane::flow::Protocol;
use dataplane::policy::{LogEvent, Standing, Subject, Way};
use dataplane::snapshot::Snapshot;

/// Verdicts that may wait: those of several workers at their full rate until the manager looks next.
const VERDICTS_MAX: usize = 4096;

/// The way. Any worker may write to it; the manager reads.
pub(crate) struct Verdicts(ArrayQueue<LogEvent>);

impl Verdicts {
    pub(crate) fn new() -> Verdicts {
        Verdicts(ArrayQueue::new(VERDICTS_MAX))
    }

    /// Takes a verdict; `false` if there is no room.
    pub(crate) fn push(&self, event: &LogEvent) -> bool {
        self.0.push(*event).is_ok()
    }

    /// Prints what has come. Rules are named as `snapshot` has them; one that it no longer has is only
    /// numbered.
    pub(crate) fn print(&self, snapshot: &Snapshot) {
        // No more than were there at first, so that workers do not keep us.
        for _ in 0..self.0.len() {
            let Some(event) = self.0.pop() else { break };
            print(&event, snapshot);
        }
    }
}

fn print(event: &LogEvent, snapshot: &Snapshot) {
    let LogEvent { worker, subject, verdict, .. } = event;
    let statement =
        verdict.rule.and_then(|number| snapshot.policy().rule(number)).map(|rule| &rule.statement);
    let number = || verdict.rule.map_or_else(String::new, |number| format!("#{number}"));
    let rule = statement.and_then(|statement| statement.name.clone()).unwrap_or_else(number);
    tracing::info!(
        rule,
        line = statement.map(|statement| statement.line),
        action = verdict.action.name(),
        direction = match subject.way {
            Way::Ingress => "ingress",
            Way::Egress => "egress",
        },
        tenant = subject.tenant.0,
        protocol = protocol(subject),
        from = endpoint(subject.src, subject.src_port, subject),
        to = endpoint(subject.dst, subject.dst_port, subject),
        state = match subject.state {
            Standing::New => "new",
            Standing::Midstream => "midstream",
            Standing::Established => "established",
        },
        worker = worker.0,
        "policy"
    );
}

fn protocol(subject: &Subject) -> String {
    match (subject.protocol, subject.icmp) {
        (protocol, Some((kind, code))) => format!("{protocol} type {kind} code {code}"),
        (6, None) => Protocol::Tcp.name().to_owned(),
        (17, None) => Protocol::Udp.name().to_owned(),
        (protocol, None) => protocol.to_string(),
    }
}

fn endpoint(ip: dataplane::addr::Ip, port: u16, subject: &Subject) -> String {
    if subject.icmp.is_some() { ip.to_string() } else { crate::rows::endpoint(ip, port) }
}
