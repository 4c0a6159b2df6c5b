//! What runs came to, in a small table; and how to have a failure again.

use crate::env::FaultCounts;
use crate::oracle::Pcc;
use crate::world::World;
use dataplane::counters::PccCause;
use std::fmt;

/// Sums over runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Totals {
    seeds: u64,
    seconds: u64,
    connections: u64,
    arrived: u64,
    software: u64,
    hardware: u64,
    own: u64,
    rules: u64,
    recoveries: u64,
    faults: FaultCounts,
    pcc: Pcc,
    suspected: u64,
}

impl Totals {
    pub(crate) fn of(world: &World) -> Totals {
        let mut faults = world.happened;
        for seat in &world.seats {
            faults.add(&seat.env.happened);
        }
        Totals {
            seeds: 1,
            seconds: world.now_ms() / 1000,
            connections: world.ends.conns.len() as u64,
            arrived: world.arrived,
            software: world.oracle.forwarded[0],
            hardware: world.oracle.forwarded[1],
            own: world.oracle.own,
            rules: world.rules_installed(),
            recoveries: world.nic.as_ref().map_or(0, |nic| nic.machine.counters().recoveries.get()),
            faults,
            pcc: world.oracle.pcc,
            suspected: world.sum(|counters| counters.pcc(PccCause::StaleRule)),
        }
    }

    pub(crate) fn add(&mut self, other: &Totals) {
        self.seeds += other.seeds;
        self.seconds += other.seconds;
        self.connections += other.connections;
        self.arrived += other.arrived;
        self.software += other.software;
        self.hardware += other.hardware;
        self.own += other.own;
        self.rules += other.rules;
        self.recoveries += other.recoveries;
        self.faults.add(&other.faults);
        self.pcc.add(other.pcc);
        self.suspected += other.suspected;
    }
}

impl FaultCounts {
    fn add(&mut self, other: &FaultCounts) {
        for (mine, theirs) in self.fields().into_iter().zip(other.clone().fields()) {
            *mine.1 += *theirs.1;
        }
    }

    fn fields(&mut self) -> [(&'static str, &mut u64); 10] {
        [
            ("ask ring full", &mut self.ask_full),
            ("revoke ring full", &mut self.revoke_full),
            ("answer ring full", &mut self.answer_full),
            ("hand-off ring full", &mut self.hand_off_full),
            ("announcement lost", &mut self.announce_lost),
            ("tx refused", &mut self.tx_refused),
            ("pool exhausted", &mut self.pool_exhausted),
            ("lost on the wire", &mut self.wire_lost),
            ("rx queue full", &mut self.rx_full),
            ("device", &mut self.device),
        ]
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows = vec![
            ("seeds", self.seeds),
            ("virtual seconds", self.seconds),
            ("connections", self.connections),
            ("packets in", self.arrived),
            ("forwarded by workers", self.software),
            ("forwarded by rules", self.hardware),
            ("Millrace's own", self.own),
            ("rules installed", self.rules),
            ("recoveries", self.recoveries),
        ];
        let mut faults = self.faults;
        rows.extend(faults.fields().into_iter().map(|(name, count)| (name, *count)));
        rows.extend([
            ("pcc: backend gone", self.pcc.backend_gone),
            ("pcc: stale rule", self.pcc.stale_rule),
            ("pcc: evicted", self.pcc.evicted),
            ("pcc: moved", self.pcc.moved),
            ("pcc: reset", self.pcc.reset),
            ("pcc: unknown", self.pcc.unknown),
            ("pcc: suspected by workers", self.suspected),
        ]);
        rows.iter().try_for_each(|(name, count)| writeln!(f, "  {name:<26} {count:>14}"))
    }
}

/// How to have it again.
pub(crate) fn repro(seed: u64) -> String {
    let commit = std::process::Command::new("git").args(["rev-parse", "--short", "HEAD"]).output();
    let commit = commit.map_or(String::new(), |output| String::from_utf8_lossy(&output.stdout).into_owned());
    format!(
        "seed {seed}, commit {}\n  SIM_SEED={seed} cargo test -p offload --features sim --test simulation \
         one_seed -- --nocapture",
        commit.trim()
    )
}
