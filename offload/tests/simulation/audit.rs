//! Audits while it is calm: whether hardware, the machine and the workers agree on what is where, and
//! whether what could be in hardware gets there.

use crate::nic::{Nic, pair_name};
use crate::scenario::{MS, SECOND};
use crate::trace::Checker;
use crate::world::{Audit, Phase, World};
use dataplane::conntrack::{ConnectionRow, State};
use dataplane::flow::Protocol;
use dataplane::offload::OffloadState;
use offload::counters::EngineState;
use offload::engine::FlowEngine;
use offload::machine::RuleRow;
use std::collections::BTreeMap;

/// What the faults left behind is gone after so long.
const SETTLED_NS: u64 = 5 * SECOND / 2;
/// How long a rule may stay that its connection does not want, with nothing in the way.
const LEAVE_MAX_NS: u64 = 2 * SECOND;
/// The device may still be giving back what it has said is out.
const DIFFER_MAX_NS: u64 = 100 * MS;
/// How long a connection that could be in hardware may not be asked for, though packets come.
const OVERLOOKED_MAX_NS: u64 = 2 * SECOND;
/// Longest time between them: after a pause its next hop may have to be asked for, and until then nobody
/// can ask for it.
const PAUSE_MS: u32 = 500;
/// Packets that come meanwhile.
const OVERLOOKED_PACKETS: u64 = 20;

type Entries = BTreeMap<(u16, u32, u32), ConnectionRow>;

impl World {
    /// From time to time, most of it while there are no faults.
    pub(crate) fn check_audit(&mut self) {
        let Some(nic) = &self.nic else { return };
        if nic.machine.state() != EngineState::Running || !nic.device.engine.is_ready() {
            self.audit = Audit::default();
            return;
        }
        let rows = nic.rows();
        if self.phase > Phase::Load || self.scenario.faults.breakdowns == 0 {
            self.audit_rules(&rows);
        }
        if self.now < self.scenario.load_ns + SETTLED_NS {
            return;
        }
        let entries: Entries = self
            .rows()
            .into_iter()
            .map(|row| ((row.flow.worker.0, row.flow.slot, row.flow.generation), row))
            .collect();
        self.audit_totals(&entries);
        self.audit_pairs(&rows, &entries);
        self.audit_overlooked(&entries);
    }

    /// Rules in the device are those the machine believes in.
    fn audit_rules(&mut self, rows: &[RuleRow]) {
        let Some(nic) = &self.nic else { return };
        if nic.machine.counters().in_flight.get() > 0 {
            // What these operations give back is another matter than what differed before them.
            self.audit.rules_differ = None;
            return;
        }
        let legs = rows.iter().flat_map(|row| row.legs.iter().flatten());
        let pairs = legs.filter(|leg| matches!(leg.state, "installed" | "leaving")).count();
        let drops = nic.machine.denial_rows();
        let drops = drops.iter().filter(|row| matches!(row.state, "installed" | "leaving")).count();
        let there = (pairs + drops) as u64;
        let rules = nic.device.engine.connection_rules();
        let since = *self.audit.rules_differ.get_or_insert(self.now);
        if rules == there {
            self.audit.rules_differ = None;
        } else if self.now - since > DIFFER_MAX_NS {
            self.trace.fail(Checker::Orphans, || {
                format!("{rules} rules are in the device, {there} in the machine: {rows:?}")
            });
        }
    }

    /// What the machine has installed and what entries say is the same, once all messages have arrived.
    fn audit_pairs(&mut self, rows: &[RuleRow], entries: &Entries) {
        let under_way = self.seats.iter().any(|seat| {
            !seat.env.answers.is_empty() || !seat.env.asks.is_empty() || !seat.env.revokes.is_empty()
        });
        let now = self.now;
        let Some(nic) = &mut self.nic else { return };
        let owing = nic.machine.counters().owing.get() > 0;
        let mut unwanted = BTreeMap::new();
        for row in rows.iter().filter(|row| row.state == "installed") {
            let flow = row.ask.flow;
            let entry = entries.get(&(flow.worker.0, flow.slot, flow.generation));
            let wanted = entry.is_some_and(|entry| {
                let state = matches!(entry.state, State::Established | State::Replied);
                state && entry.offload == OffloadState::Installed(row.rule)
            });
            if wanted || under_way || owing {
                continue;
            }
            let since = nic.unwanted.get(&pair_name(row)).copied().unwrap_or(now);
            unwanted.insert(pair_name(row), since);
            if now - since > LEAVE_MAX_NS {
                self.trace.fail(Checker::Liveness, || format!("{row:?} stays, its entry is {entry:?}"));
            }
        }
        nic.unwanted = unwanted;
        if under_way || owing {
            return;
        }
        for entry in entries.values() {
            let (OffloadState::Installed(rule) | OffloadState::Removing(rule)) = entry.offload else {
                continue;
            };
            if !rows.iter().any(|row| row.rule == rule && row.ask.flow == entry.flow) {
                self.trace.fail(Checker::Orphans, || format!("{entry:?} has no rules"));
            }
        }
    }

    /// No entry has counted more packets than its client has sent.
    fn audit_totals(&mut self, entries: &Entries) {
        for row in entries.values() {
            let client = (row.key.src, row.key.src_port);
            let id = self.ends.find(client, row.key.protocol == Protocol::Tcp);
            let Some(conn) = id.and_then(|id| self.ends.conns.get(id as usize)) else { continue };
            let sent = conn.sent;
            if row.totals.original.packets > sent && !conn.reused && !self.malformed {
                self.trace.fail(Checker::Accounting, || format!("its client sent {sent}: {row:?}"));
            }
        }
    }

    /// Connections whose packets keep coming to workers are asked for.
    fn audit_overlooked(&mut self, entries: &Entries) {
        let Some(nic) = &self.nic else { return };
        let price = u64::from(nic.machine.price());
        let mut overlooked = BTreeMap::new();
        for (name, row) in entries {
            let client = (row.key.src, row.key.src_port);
            let tcp = row.key.protocol == Protocol::Tcp;
            let conn = self.ends.find(client, tcp).and_then(|id| self.ends.conns.get(id as usize));
            // Workers go by the packets that they have seen, not by those that rules have counted, and not by
            // those of an entry before this one.
            let counted = row.totals.original.packets + row.totals.reply.packets;
            let packets = conn.map_or(0, |conn| conn.software).min(counted);
            let open = matches!(row.state, State::Established | State::Replied);
            let allowed = self.snapshot.allows_offload(row.service, row.backend);
            let busy = row.idle_ms < PAUSE_MS;
            if !busy || !open || !allowed || row.offload != OffloadState::Software || packets < price {
                continue;
            }
            let (since, then) = self.audit.overlooked.get(name).copied().unwrap_or((self.now, packets));
            overlooked.insert(*name, (since, then));
            if self.now - since > OVERLOOKED_MAX_NS && packets > then + OVERLOOKED_PACKETS {
                self.trace.fail(Checker::Liveness, || format!("nobody asks for {row:?} at price {price}"));
            }
        }
        self.audit.overlooked = overlooked;
    }

    /// For the table at the end.
    pub(crate) fn rules_installed(&self) -> u64 {
        self.nic.as_ref().map_or(0, |nic: &Nic| nic.machine.counters().insertions.get())
    }

    /// Milliseconds of the world's time.
    pub(crate) fn now_ms(&self) -> u64 {
        self.now / MS
    }
}
