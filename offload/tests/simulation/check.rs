//! The checkers that look at the whole: after each step, and at the end.

use crate::hosts::Client;
use crate::nic::Nic;
use crate::scenario::SECOND;
use crate::tcp::{Leave, Over};
use crate::trace::Checker;
use crate::world::{Phase, World};
use dataplane::conntrack::Count;
use dataplane::counters::PccCause;
use dataplane::drops::DropReason;
use dataplane::ids::BackendId;

/// How long connections may take to end once no new ones come.
const DRAIN_MAX_NS: u64 = 90 * SECOND;
/// How long it may take until nothing is left of them.
const QUIET_MAX_NS: u64 = 40 * SECOND;

impl World {
    /// After each step.
    pub(crate) fn check_step(&mut self) {
        let mut received = 0;
        let mut held = 0;
        for number in 0..self.seats.len() {
            let seat = &self.seats[number];
            let counters = &seat.env.counters;
            received += counters.received.get() + seat.rx.len() as u64;
            held += counters.held.get() as usize + seat.rx.len() + seat.handed.len();
            let imbalance = counters.imbalance();
            if imbalance != 0 {
                self.trace.fail(Checker::Conservation, || format!("worker {number}: {imbalance} packets"));
            }
            let entries = seat.env.counters.entries.get();
            if entries > u64::from(self.scenario.connections_max) {
                self.trace.fail(Checker::Bounds, || format!("worker {number} has {entries} entries"));
            }
        }
        let (delivered, live) = (self.delivered, self.pool.live());
        if received != delivered {
            self.trace.fail(Checker::Conservation, || {
                format!("{delivered} packets were given to workers, who know of {received}")
            });
        }
        let rules = self.nic.as_ref().map_or(0, |nic| nic.machine.counters().rules.get());
        if rules > u64::from(self.scenario.rules_max) {
            self.trace.fail(Checker::Bounds, || format!("{rules} rules are in force"));
        }
        let in_device = self.nic.as_ref().map_or(0, Nic::live);
        let ends = self.delivered + self.crossed + self.discarded + self.happened.rx_full;
        let arrived = self.arrived;
        if in_device != 0 || ends != arrived {
            self.trace.fail(Checker::Conservation, || format!("{arrived} came in, {ends} are known of"));
        }
        if live != held {
            self.trace.fail(Checker::Conservation, || format!("{live} buffers live, {held} are held"));
        }
    }

    /// Lets everything happen, from the first packet to the last.
    pub(crate) fn run(&mut self) {
        let load = self.scenario.load_ns;
        let calm = load + self.scenario.calm_ns;
        self.steps_until(load, |_| false);
        self.phase = Phase::Calm;
        self.trace.note("faults stop", [0; 3]);
        self.stop_faults();
        self.steps_until(calm, |_| false);
        self.phase = Phase::Drain;
        self.trace.note("no new connections", [0; 3]);
        let end = calm + DRAIN_MAX_NS;
        if !self.steps_until(end, |world| world.ends.are_silent()) {
            let left = self.ends.conns.iter().filter(|conn| !conn.is_over() && conn.wake_at().is_some());
            let first = left.clone().next().map(|conn| format!("{conn:?}"));
            let count = left.count();
            let mut servers = self.ends.servers.values().filter(|server| server.tcp.wake_at().is_some());
            let first = first.or(servers.next().map(|server| format!("{server:?}")));
            self.trace.fail(Checker::Liveness, || format!("{count} connections do not end: {first:?}"));
        }
        self.phase = Phase::Quiet;
        self.trace.note("all ends are silent", [0; 3]);
        let end = self.now + QUIET_MAX_NS;
        let settled = self.steps_until(end, |world| world.is_empty());
        if !settled {
            let rows: Vec<_> = self.rows().into_iter().take(3).collect();
            let pairs: Vec<_> = self.nic.iter().flat_map(Nic::rows).take(3).collect();
            let rules = self.nic.as_ref().map_or(0, Nic::rules);
            let text = format!("{rules} rules, pairs {pairs:?}, entries {rows:?} stay");
            let checker = if rows.is_empty() { Checker::Orphans } else { Checker::Liveness };
            self.trace.fail(checker, || text);
        }
        self.check_end();
    }

    /// Steps until `done`, for so long at most; whether it was.
    fn steps_until(&mut self, end: u64, done: impl Fn(&World) -> bool) -> bool {
        let mut steps = 0_u32;
        while self.now < end {
            if self.trace.failure().is_some() {
                return true;
            }
            steps += 1;
            // Close by while rules differ: two moments far apart are not the time between them.
            if steps % 32 == 0 || self.audit.rules_differ.is_some() {
                self.check_audit();
            }
            if steps % 16 == 0 && done(self) {
                return true;
            }
            self.step();
        }
        done(self)
    }

    fn stop_faults(&mut self) {
        for seat in &mut self.seats {
            seat.env.faults = crate::scenario::FaultPlan::default();
        }
        self.nic.iter_mut().for_each(|nic| nic.set_faults(""));
    }

    /// Whether nothing is left of any connection, and nobody has a packet to look at.
    fn is_empty(&self) -> bool {
        if self.seats.iter().any(|seat| !seat.rx.is_empty() || !seat.handed.is_empty()) {
            return false;
        }
        let rules = self
            .nic
            .as_ref()
            .map_or(0, |nic| nic.rules() as usize + nic.rows().len() + nic.machine.denial_rows().len());
        rules == 0 && self.sum(|counters| &counters.entries) == 0 && self.sum(|c| &c.held) == 0
    }

    /// When everything is over.
    fn check_end(&mut self) {
        self.check_ends();
        self.check_books();
        self.check_denials();
        self.check_pcc();
        let live = self.pool.live();
        if live != 0 {
            self.trace.fail(Checker::Conservation, || format!("{live} buffers are never given back"));
        }
        let backends: Vec<BackendId> = self.oracle.ids.values().copied().collect();
        for id in backends {
            let live = self.sum_backend(id, |backend| &backend.live);
            if live != 0 {
                self.trace.fail(Checker::Accounting, || format!("backend {id} has {live} connections"));
            }
        }
    }

    /// Every connection ended as its ends wanted, or for a reason.
    fn check_ends(&mut self) {
        let drops = [
            DropReason::TableFull,
            DropReason::HalfOpenLimit,
            DropReason::NatTupleInUse,
            DropReason::NoBackend,
        ];
        let refused: u64 = drops.iter().map(|why| self.sum(|c| &c.dropped[*why as usize])).sum();
        if refused > 0 || self.oracle.pcc.evicted > 0 || self.malformed {
            return;
        }
        for conn in &self.ends.conns {
            let Client::Tcp(tcp) = &conn.side else { continue };
            let meant = matches!(conn.server.leave, Leave::Reset | Leave::Vanish);
            let broken = matches!(tcp.over(), Some(Over::Reset | Over::TimedOut));
            if broken && !meant && !conn.excused && !self.policies.was_denied(conn.client.0) {
                self.trace.fail(Checker::Affinity, || format!("a connection broke: {conn:?}"));
            }
        }
    }

    /// What workers know of violations themselves. A removed backend keeps its slot while it has connections,
    /// so that none finds its backend gone; and each violation by a stale rule is among those suspected.
    fn check_pcc(&mut self) {
        let gone = self.sum(|counters| counters.pcc(PccCause::BackendGone));
        let suspected = self.sum(|counters| counters.pcc(PccCause::StaleRule));
        let stale = self.oracle.pcc.stale_rule;
        if gone > 0 || suspected < stale {
            self.trace.fail(Checker::Affinity, || {
                format!("workers know of {gone} backends gone and {suspected} stale rules, of {stale}")
            });
        }
    }

    /// What was counted is what left.
    fn check_books(&mut self) {
        // A dropped packet may have been another backend's than its connection's by then: all are in one pot.
        let slack = self.oracle.books.values().map(|book| book.slack[0] + book.slack[1]);
        let dropped = self.oracle.slack + slack.sum::<u64>();
        let mut spare = dropped;
        let mut ids: Vec<BackendId> = self.oracle.ids.values().copied().collect();
        ids.sort_unstable();
        ids.dedup();
        for id in ids {
            let book = self.oracle.books.get(&id).copied().unwrap_or_default();
            for way in [0, 1] {
                self.check_hardware_book(id, way, book.seen[way][1]);
                let seen = book.seen[way][0];
                let (packets, bytes) = self.software_count(id, way);
                let over = packets.saturating_sub(seen.packets);
                let mutants = self.oracle.mutants;
                let exact = dropped + mutants == 0;
                let wrong =
                    packets + mutants < seen.packets || over > spare || (exact && bytes != seen.bytes);
                spare = spare.saturating_sub(over);
                if wrong {
                    self.trace.fail(Checker::Accounting, || {
                        let counted = Count { packets, bytes };
                        format!("backend {id}, way {way}: counted {counted:?}, left {seen:?}, spare {spare}")
                    });
                }
            }
        }
    }

    /// What rules counted has been reported to the last packet, unless the device was lost with it.
    fn check_hardware_book(&mut self, id: BackendId, way: usize, seen: Count) {
        let packets = self.sum_backend(id, |backend| &backend.hardware[way].packets);
        let bytes = self.sum_backend(id, |backend| &backend.hardware[way].bytes);
        let recovered = self.nic.as_ref().is_some_and(|nic| nic.machine.counters().recoveries.get() > 0);
        let faults = &self.scenario.faults;
        // A device that was reset may have had nothing but a counter that was still to be read once more.
        let lost = recovered || faults.breakdowns > 0 || faults.device.contains("lose_counters");
        let exact = packets == seen.packets && bytes == seen.bytes;
        let less = lost && packets <= seen.packets && bytes <= seen.bytes;
        let strange = self.oracle.strange;
        let most = strange > 0 && packets <= seen.packets + strange;
        if !exact && !less && !(most && (lost || packets >= seen.packets)) {
            self.trace.fail(Checker::Accounting, || {
                let counted = Count { packets, bytes };
                format!("backend {id}, way {way}: hardware counted {counted:?}, and forwarded {seen:?}")
            });
        }
    }

    fn software_count(&self, id: BackendId, way: usize) -> (u64, u64) {
        if way == 0 {
            let packets = self.sum_backend(id, |backend| &backend.original.packets);
            (packets, self.sum_backend(id, |backend| &backend.original.bytes))
        } else {
            let packets = self.sum_backend(id, |backend| &backend.reply.packets);
            (packets, self.sum_backend(id, |backend| &backend.reply.bytes))
        }
    }
}
