//! Rules that drop what the policy denies, as they are shown.

use crate::api::{RuleQuery, RuleRow};
use crate::offloading::{Engine, Offloading};
use crate::rows::{self, ConnectionFilter};
use crate::runtime::mailbox::Silent;
use crate::runtime::offload::{OffloadCommand, OffloadReport};
use dataplane::counters::WorkerCounters;
use dataplane::flow::FlowKey;
use dataplane::ids::PortId;
use dataplane::snapshot::Snapshot;
use offload::lower;
use offload::machine::DenialRow;
use std::sync::Arc;

impl Engine {
    /// All of them.
    fn denials(&self) -> Result<Vec<DenialRow>, Silent> {
        self.shared.mailbox.ask(0, OffloadCommand::Denials, |report| match report {
            OffloadReport::Denials(rows) => Some(rows),
            OffloadReport::Adopted(_) | OffloadReport::Rules(..) | OffloadReport::Partitions(_) => None,
        })
    }

    fn denial_row(&self, snapshot: &Snapshot, row: &DenialRow) -> Option<RuleRow> {
        let rule = lower::denial(&self.topology, row.denied.ingress, &row.denied.key).ok()?;
        Some(RuleRow {
            id: row.rule.0,
            direction: "denied".to_owned(),
            service: rows::service_name(snapshot, row.denial.service),
            client: rows::endpoint(row.denied.key.src, row.denied.key.src_port),
            backend: String::new(),
            state: row.state.to_owned(),
            age_ms: row.installed_ms,
            packets: row.dropped.packets,
            bytes: row.dropped.bytes,
            rule: rule.testpmd(self.dialect()).to_string(),
        })
    }

    /// Those in hardware, or on their way in or out, that are meant.
    pub(crate) fn denial_rows(
        &self,
        query: &RuleQuery,
        filter: &ConnectionFilter,
        snapshot: &Snapshot,
    ) -> Result<Vec<RuleRow>, Silent> {
        if query.backend.is_some() || self.shared.counters.denials_installed.get() == 0 {
            return Ok(Vec::new());
        }
        let rows = self.denials()?;
        let key = |row: &DenialRow| row.denied.key;
        let meant = |row: &&DenialRow| filter.means(row.denial.service, &key(row), key(row).dst);
        let there = rows.iter().filter(|row| row.state != "out").filter(meant);
        Ok(there.filter_map(|row| self.denial_row(snapshot, row)).collect())
    }
}

impl Offloading {
    /// What rules have dropped, counted as by a worker; `None` without an engine.
    pub(crate) fn dropped(&self) -> Option<Arc<WorkerCounters>> {
        self.engine().map(|engine| Arc::clone(&engine.shared.denials))
    }

    /// The rule that drops packets of this tuple which come in by this port, if one does now.
    pub(crate) fn denial_of(&self, port: PortId, key: &FlowKey, snapshot: &Snapshot) -> Option<RuleRow> {
        let engine = self.engine().filter(|engine| engine.shared.counters.denials.get() > 0)?;
        let rows = engine.denials().ok()?;
        let drops = |row: &&DenialRow| {
            (row.denied.ingress, row.denied.key) == (port, *key) && row.state == "installed"
        };
        engine.denial_row(snapshot, rows.iter().find(drops)?)
    }
}
