//! Rows as tables for people. Machines take `--json`, which prints the rows as they came.

use crate::api::{BackendRow, Connections, DropRow, HardwareRow, NeighbourRow, OffloadRow, PortRow, Rules};
use crate::api::{Change, HistoryRow, KeyRow, MeterRow, Reloaded};
use crate::api::{ServiceRow, TrafficRow, VersionInfo, WorkerRow};
use crate::policy::PolicyRow;
use crate::tenants::TenantRow;
use crate::trace::{StepRow, TraceRow};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// A table whose columns are as wide as they need to be.
pub(crate) struct Table {
    /// Titles; one that starts with `>` makes its column right-aligned.
    titles: &'static [&'static str],
    cells: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(titles: &'static [&'static str]) -> Table {
        Table { titles, cells: Vec::new() }
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        debug_assert_eq!(cells.len(), self.titles.len());
        self.cells.push(cells.into());
    }

    pub(crate) fn cells(&self) -> &[Vec<String>] {
        &self.cells
    }

    pub(crate) fn titles(&self) -> Vec<String> {
        self.titles.iter().map(|title| title.trim_start_matches('>').to_owned()).collect()
    }

    pub(crate) fn is_right(&self, column: usize) -> bool {
        self.titles.get(column).is_some_and(|title| title.starts_with('>'))
    }

    /// How many characters each column needs.
    pub(crate) fn widths(&self) -> Vec<usize> {
        let width = |(column, title): (usize, String)| {
            let cells = self.cells.iter().map(|row| row[column].chars().count());
            cells.chain([title.chars().count()]).max().unwrap_or(0)
        };
        self.titles().into_iter().enumerate().map(width).collect()
    }

    /// The table as text; `nothing` instead if it has no rows.
    pub(crate) fn render(&self, nothing: &str) -> String {
        if self.cells.is_empty() {
            return format!("{nothing}\n");
        }
        let (titles, widths) = (self.titles(), self.widths());
        let mut text = String::new();
        for row in std::iter::once(&titles).chain(&self.cells) {
            let mut line = String::new();
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let gap = if column == 0 { "" } else { "  " };
                let _ = if self.is_right(column) {
                    write!(line, "{gap}{cell:>width$}")
                } else {
                    write!(line, "{gap}{cell:<width$}")
                };
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// `1.40M`: three significant digits of a rate, exact below 1000.
pub(crate) fn scaled(n: u64) -> String {
    const UNITS: [&str; 6] = ["k", "M", "G", "T", "P", "E"];
    if n < 1000 {
        return n.to_string();
    }
    let exponent = (n.ilog10() / 3) as usize;
    let value = n as f64 / 1000f64.powi(exponent as i32);
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.digits$}{}", UNITS[exponent - 1])
}

/// `1.4 MiB`: three significant digits, exact below 1 KiB.
fn bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    let exponent = (n.ilog2() / 10) as usize;
    let value = n as f64 / (1u64 << (10 * exponent)) as f64;
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.digits$} {}", UNITS[exponent - 1])
}

/// `trace`: the steps, and what comes of them.
pub(crate) fn trace(row: &TraceRow) -> String {
    let mut steps = Table::new(&["STEP", "WHAT", "LINE"]);
    for StepRow { step, text, line } in &row.steps {
        steps.row([step.clone(), text.clone(), line.map_or_else(String::new, |line| line.to_string())]);
    }
    let mut text = steps.render("nothing was decided");
    let _ = writeln!(text, "\nverdict   {}\nhardware  {}", row.verdict, row.hardware);
    for rule in &row.rules {
        let _ = writeln!(
            text,
            "rule      {} ({} packets): {}",
            rule.direction,
            rule.packets,
            one_line(&rule.rule)
        );
    }
    for frame in &row.sent {
        let _ = writeln!(text, "sent      {}: {}", frame.port, frame.frame);
    }
    text
}

/// `850ms`, `12s`, `3m05s`, `2h04m`, `5d06h`.
fn duration(ms: u64) -> String {
    let (s, m, h, d) = (ms / 1000, ms / 60_000, ms / 3_600_000, ms / 86_400_000);
    match ms {
        0..=999 => format!("{ms}ms"),
        1000..=59_999 => format!("{s}s"),
        60_000..=3_599_999 => format!("{m}m{:02}s", s % 60),
        3_600_000..=86_399_999 => format!("{h}h{:02}m", m % 60),
        _ => format!("{d}d{:02}h", h % 24),
    }
}

pub(crate) fn percent(part: u64, whole: u64) -> String {
    if whole == 0 { "-".to_owned() } else { format!("{:.1}%", part as f64 * 100.0 / whole as f64) }
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

fn traffic(original: TrafficRow, reply: TrafficRow) -> [String; 4] {
    [original.packets.to_string(), bytes(original.bytes), reply.packets.to_string(), bytes(reply.bytes)]
}

/// The share of packets that hardware forwarded.
fn in_hardware(original: TrafficRow, reply: TrafficRow, hardware: HardwareRow) -> String {
    percent((hardware.original + hardware.reply).packets, (original + reply).packets)
}

/// `show policy`.
pub(crate) fn policy(rows: &[PolicyRow]) -> String {
    let mut table = Table::new(&["RULE", ">LINE", "ACTION", "LOG", ">MATCHED"]);
    for row in rows {
        table.row([
            row.rule.clone(),
            if row.line == 0 { "-".to_owned() } else { row.line.to_string() },
            row.action.clone(),
            if row.log { "yes" } else { "no" }.to_owned(),
            row.matched.to_string(),
        ]);
    }
    table.render("no rules")
}

/// `show tenants`.
pub(crate) fn tenants(rows: &[TenantRow]) -> String {
    let mut table = Table::new(&[
        "TENANT",
        ">CONNS",
        ">MAX",
        ">HALF-OPEN",
        ">OPENED",
        ">REFUSED",
        ">DROPPED",
        ">PKTS IN",
        ">IN",
        ">PKTS OUT",
        ">OUT",
        ">HW",
        ">HW SHARE",
    ]);
    for row in rows {
        let [packets_in, bytes_in, packets_out, bytes_out] = traffic(row.original, row.reply);
        table.row([
            row.name.clone(),
            row.connections.to_string(),
            row.connections_max.map_or_else(|| "-".to_owned(), |most| most.to_string()),
            row.half_open.to_string(),
            (row.opened + row.picked_up).to_string(),
            row.refused.to_string(),
            row.drops.values().sum::<u64>().to_string(),
            packets_in,
            bytes_in,
            packets_out,
            bytes_out,
            in_hardware(row.original, row.reply, row.hardware),
            format!("{} %", row.offload_share_percent),
        ]);
    }
    table.render("no tenants")
}

/// `show services`.
pub(crate) fn services(rows: &[ServiceRow]) -> String {
    let mut table = Table::new(&[
        "SERVICE",
        "VIP",
        "PROTO",
        "PORTS",
        "MODE",
        "AFFINITY",
        ">BACKENDS",
        ">CONNS",
        ">OPENED",
        ">PKTS IN",
        ">BYTES IN",
        ">PKTS OUT",
        ">BYTES OUT",
        ">IN HW",
        ">DROPPED",
    ]);
    for row in rows {
        let [packets_in, bytes_in, packets_out, bytes_out] = traffic(row.original, row.reply);
        table.row([
            row.name.clone(),
            row.vip.clone(),
            row.protocol.clone(),
            row.ports.join(","),
            row.mode.clone(),
            match row.imbalance_percent {
                Some(percent) => format!("{} ({percent} %)", row.affinity),
                None => row.affinity.clone(),
            },
            format!("{}/{}", row.backends_active, row.backends),
            row.connections.to_string(),
            (row.opened + row.picked_up).to_string(),
            packets_in,
            bytes_in,
            packets_out,
            bytes_out,
            in_hardware(row.original, row.reply, row.hardware),
            row.dropped.to_string(),
        ]);
    }
    table.render("no services")
}

/// `show backends`.
pub(crate) fn backends(rows: &[BackendRow]) -> String {
    let mut table = Table::new(&[
        "SERVICE",
        "BACKEND",
        "STATE",
        "HEALTH",
        "LAST ERROR",
        ">WEIGHT",
        ">SHARE",
        ">CONNS",
        ">OPENED",
        ">PKTS IN",
        ">BYTES IN",
        ">PKTS OUT",
        ">BYTES OUT",
        ">IN HW",
        "NEXT HOP",
    ]);
    for row in rows {
        let [packets_in, bytes_in, packets_out, bytes_out] = traffic(row.original, row.reply);
        let health = row.health.as_ref();
        table.row([
            row.service.clone(),
            row.backend.clone(),
            row.state.clone(),
            health.map_or_else(
                || "-".to_owned(),
                |health| format!("{} {}", health.state, duration(health.age_ms)),
            ),
            or_dash(health.map_or("", |health| &health.last_error)),
            row.weight.to_string(),
            percent(u64::from(row.share.parts_per_million), 1_000_000),
            row.connections.to_string(),
            row.opened.to_string(),
            packets_in,
            bytes_in,
            packets_out,
            bytes_out,
            in_hardware(row.original, row.reply, row.hardware),
            if row.next_hop.is_empty() { "no route".to_owned() } else { row.next_hop.clone() },
        ]);
    }
    table.render("no backends")
}

/// `reload`, or what it would do.
pub(crate) fn reloaded(reloaded: &Reloaded) -> String {
    let mut text = String::new();
    for row in &reloaded.changes {
        let sign = match row.change {
            Change::Added => '+',
            Change::Removed => '-',
            Change::Changed => '~',
            Change::Moved => '>',
        };
        let key = |row: &KeyRow| match (&row.old, &row.new) {
            (Some(old), Some(new)) => format!("{} {old} -> {new}", row.key),
            (None, Some(new)) => format!("{} = {new}", row.key),
            (Some(old), None) => format!("{} {old} -> default", row.key),
            (None, None) => row.key.clone(),
        };
        // What goes is not told key by key.
        let told = row.keys.iter().filter(|_| row.change != Change::Removed);
        let keys: Vec<String> = told.map(key).collect();
        let colon = if keys.is_empty() { "" } else { ": " };
        let _ = writeln!(text, "{sign} {}{colon}{}", row.name, keys.join(", "));
    }
    for effect in &reloaded.effects {
        let _ = writeln!(text, "! {effect}");
    }
    let _ = writeln!(text, "{} (generation {})", reloaded.message, reloaded.generation);
    text
}

/// `history`.
pub(crate) fn history(rows: &[HistoryRow]) -> String {
    let mut table = Table::new(&["WHEN", ">GENERATION", "CAUSE", "BY", "WHAT"]);
    for row in rows {
        let generation = row.generation.map_or_else(|| "refused".to_owned(), |number| number.to_string());
        let cells = [row.at.clone(), generation, row.cause.clone(), row.by.clone(), row.summary.clone()];
        table.row(cells);
    }
    table.render("no history")
}

/// `show connections`.
pub(crate) fn connections(found: &Connections) -> String {
    let mut table = Table::new(&[
        "SERVICE",
        "PROTO",
        "CLIENT",
        "VIP",
        "BACKEND",
        "STATE",
        "PATH",
        ">AGE",
        ">IDLE",
        ">EXPIRES",
        ">PKTS IN",
        ">BYTES IN",
        ">PKTS OUT",
        ">BYTES OUT",
        ">WORKER",
    ]);
    for row in &found.connections {
        let [packets_in, bytes_in, packets_out, bytes_out] = traffic(row.original, row.reply);
        table.row([
            row.service.clone(),
            row.protocol.clone(),
            row.client.clone(),
            row.vip.clone(),
            row.backend.clone(),
            row.state.clone(),
            row.path.clone(),
            duration(row.age_ms),
            duration(row.idle_ms),
            duration(row.expires_ms),
            packets_in,
            bytes_in,
            packets_out,
            bytes_out,
            row.worker.to_string(),
        ]);
    }
    let mut text = table.render("no connections");
    let shown = found.connections.len();
    if found.truncated {
        let _ = writeln!(text, "the first {shown}; {} in all tables; --limit shows more", found.entries);
    } else {
        let _ = writeln!(text, "{shown} shown, {} in all tables", found.entries);
    }
    text
}

/// `show ports`.
pub(crate) fn ports(rows: &[PortRow]) -> String {
    let mut table = Table::new(&[
        "PORT",
        "DEVICE",
        "DRIVER",
        "MAC",
        ">MTU",
        "LINK",
        "STEERING",
        "HAIRPINS",
        ">RX PKTS",
        ">RX BYTES",
        ">RX MISSED",
        ">RX ERRORS",
        ">TX PKTS",
        ">TX BYTES",
        ">TX ERRORS",
    ]);
    for row in rows {
        let link = match (row.link_up, row.speed_mbps) {
            (false, _) => "down".to_owned(),
            (true, 0) => "up".to_owned(),
            (true, mbps) if mbps % 1000 == 0 => format!("up {}G", mbps / 1000),
            (true, mbps) => format!("up {mbps}M"),
        };
        let has_device = row.parent.is_empty();
        let count = |count: String| if has_device { count } else { "-".to_owned() };
        table.row([
            row.name.clone(),
            if has_device { row.device.clone() } else { format!("on {}", row.parent) },
            match &row.tunnel[..] {
                "" if has_device => row.driver.clone(),
                "" => format!("vlan {}", row.vlan),
                tunnel => tunnel.to_owned(),
            },
            row.mac.clone(),
            row.mtu.to_string(),
            link,
            row.steering.clone(),
            if row.hairpins.is_empty() { "-".to_owned() } else { row.hairpins.join(" ") },
            count(row.rx_packets.to_string()),
            count(bytes(row.rx_bytes)),
            count(row.rx_missed.to_string()),
            count((row.rx_errors + row.rx_no_buffer).to_string()),
            count(row.tx_packets.to_string()),
            count(bytes(row.tx_bytes)),
            count(row.tx_errors.to_string()),
        ]);
    }
    table.render("no ports")
}

/// `show workers`.
pub(crate) fn workers(rows: &[WorkerRow]) -> String {
    let mut table = Table::new(&[
        ">WORKER",
        ">CORE",
        ">CONNS",
        ">HALF-OPEN",
        ">TABLE",
        ">RECEIVED",
        ">SENT",
        ">GENERATED",
        ">CONSUMED",
        ">DROPPED",
        ">HELD",
        ">HANDED OUT",
        ">HANDED IN",
        ">BUSY POLLS",
        ">CYCLES/PKT",
        ">GENERATION",
    ]);
    for row in rows {
        table.row([
            row.worker.to_string(),
            row.core.to_string(),
            row.entries.to_string(),
            row.half_open.to_string(),
            percent(row.entries, row.capacity),
            row.received.to_string(),
            row.sent.to_string(),
            row.generated.to_string(),
            row.consumed.to_string(),
            row.dropped.to_string(),
            row.held.to_string(),
            row.handed_out.to_string(),
            row.handed_in.to_string(),
            percent(row.polls.saturating_sub(row.polls_empty), row.polls),
            row.cycles_per_packet.to_string(),
            row.generation.to_string(),
        ]);
    }
    table.render("no workers")
}

/// `show meters`.
pub(crate) fn meters(rows: &[MeterRow]) -> String {
    let or_dash = |limit: Option<u64>| limit.map_or_else(|| "-".to_owned(), |limit| limit.to_string());
    let mut table = Table::new(&[
        "SCOPE",
        "NAME",
        ">PKTS/S",
        ">BITS/S",
        ">NEW/S",
        ">CONNS",
        ">MAX",
        ">IN HW",
        ">GREEN",
        ">YELLOW",
        ">RED",
        ">BYTES PASSED",
        ">REFUSED",
    ]);
    for row in rows {
        table.row([
            row.scope.clone(),
            row.name.clone(),
            or_dash(row.packets_per_second),
            or_dash(row.bits_per_second),
            or_dash(row.new_connections_per_second),
            or_dash(row.connections),
            or_dash(row.connections_max),
            row.hardware_percent.map_or_else(|| "-".to_owned(), |percent| format!("{percent}%")),
            row.green.packets.to_string(),
            row.yellow.packets.to_string(),
            row.red.packets.to_string(),
            bytes(row.green.bytes.saturating_add(row.yellow.bytes)),
            row.refused.to_string(),
        ]);
    }
    table.render("no meters")
}

/// `show drops`: the reasons that occurred, most frequent first; with `all`, every reason.
pub(crate) fn drops(rows: &[DropRow], all: bool) -> String {
    let mut rows: Vec<&DropRow> = rows.iter().filter(|row| all || row.packets > 0).collect();
    rows.sort_by(|a, b| b.packets.cmp(&a.packets).then_with(|| a.reason.cmp(&b.reason)));
    let mut table = Table::new(&[">PACKETS", "REASON", "MEANING"]);
    for row in rows {
        table.row([row.packets.to_string(), row.reason.clone(), row.description.clone()]);
    }
    table.render("nothing dropped")
}

/// `show neighbours`.
pub(crate) fn neighbours(rows: &[NeighbourRow]) -> String {
    let mut table = Table::new(&["PORT", "ADDRESS", "MAC", "STATE", ">HELD", ">WORKER"]);
    for row in rows {
        table.row([
            row.port.clone(),
            row.address.clone(),
            or_dash(&row.mac),
            row.state.clone(),
            row.held.to_string(),
            row.worker.to_string(),
        ]);
    }
    table.render("no neighbours")
}

/// `show offload`: a line for each thing, and what is zero only where that says something.
pub(crate) fn offload(row: &OffloadRow) -> String {
    let mut table = Table::new(&["OFFLOAD", ""]);
    let mut line = |name: &str, value: String| table.row([name.to_owned(), value]);
    line("engine", row.engine.clone());
    line("state", row.state.clone());
    for problem in &row.problems {
        line("problem", problem.clone());
    }
    let (hardware, all) = (row.hardware, row.hardware + row.software);
    let share = percent(hardware.packets, all.packets);
    line("traffic in hardware", format!("{share}: {} packets, {}", hardware.packets, bytes(hardware.bytes)));
    if row.engine == "none" {
        return table.render("");
    }
    line("rules", format!("{} of {}", row.rules, row.capacity));
    line("connections", tally(&row.connections));
    line("partitions", tally(&row.partitions));
    let price = row.price_packets.map_or_else(|| "none is asked for".to_owned(), |n| format!("{n} packets"));
    line("price", price);
    if row.denials + row.denied_packets > 0 {
        line("dropping", format!("{} rules, {} packets", row.denials, row.denied_packets));
    }
    line("insertions", format!("{}, at most {}/s now", row.insertions, row.insertions_per_second));
    line("under way", tally(&row.queues));
    line("counts are", format!("{} old", duration(row.stats_age_ms)));
    line("missed", format!("{} packets, and {} under way when hardware took over", row.misses, row.late));
    line("requests", tally(&row.requests));
    line("left hardware", tally(&row.removals));
    line("made room", tally(&row.evictions));
    line("wanted back", tally(&row.revocations));
    line("recoveries", format!("{} ({} connections lost)", row.recoveries, row.lost));
    line("orphans", row.orphans.to_string());
    line("fences", format!("{}{}", row.fences, if row.fenced { ", one of them now" } else { "" }));
    table.render("")
}

/// `12 ok, 3 full`; what did not occur is left out.
fn tally(counts: &BTreeMap<String, u64>) -> String {
    let mut counts: Vec<_> = counts.iter().filter(|(_, count)| **count > 0).collect();
    counts.sort_by(|a, b| b.1.cmp(a.1));
    let words: Vec<String> = counts.iter().map(|(name, count)| format!("{count} {name}")).collect();
    if words.is_empty() { "none".to_owned() } else { words.join(", ") }
}

/// A rule that takes several commands, in a line.
fn one_line(rule: &str) -> String {
    rule.replace('\n', "; ")
}

/// `show rules`.
pub(crate) fn rules(found: &Rules) -> String {
    let mut table = Table::new(&[
        ">ID",
        "DIRECTION",
        "SERVICE",
        "CLIENT",
        "BACKEND",
        "STATE",
        ">AGE",
        ">PACKETS",
        ">BYTES",
        "RULE",
    ]);
    for row in &found.rules {
        table.row([
            row.id.to_string(),
            row.direction.clone(),
            row.service.clone(),
            row.client.clone(),
            row.backend.clone(),
            row.state.clone(),
            duration(row.age_ms),
            row.packets.to_string(),
            bytes(row.bytes),
            one_line(&row.rule),
        ]);
    }
    let mut text = table.render("no rules");
    let shown = found.rules.len();
    if found.truncated {
        let _ = writeln!(text, "the first {shown}; {} in force; --limit shows more", found.total);
    } else {
        let _ = writeln!(text, "{shown} shown, {} in force", found.total);
    }
    text
}

/// `version`, the running one's half.
pub(crate) fn version(info: &VersionInfo) -> String {
    format!(
        "running: millrace {} ({}), {}, for {}, configuration {} generation {}\n",
        info.version,
        info.commit,
        info.dpdk,
        duration(info.uptime_ms),
        info.config,
        info.generation
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::HealthRow;
    use crate::api::{RuleRow, Share};

    #[test]
    fn quantities_read_well() {
        let bytes: Vec<String> =
            [0, 1023, 1024, 1_500_000, 10 << 30, u64::MAX].into_iter().map(bytes).collect();
        assert_eq!(bytes, ["0 B", "1023 B", "1.00 KiB", "1.43 MiB", "10.0 GiB", "16.0 EiB"]);
        let durations: Vec<String> =
            [999, 59_999, 185_000, 7_440_000, 453_600_000].into_iter().map(duration).collect();
        assert_eq!(durations, ["999ms", "59s", "3m05s", "2h04m", "5d06h"]);
    }

    #[test]
    fn columns_are_aligned() {
        let row = BackendRow {
            service: "web".into(),
            backend: "10.0.0.3:8080".into(),
            weight: 10,
            state: "active".into(),
            share: Share::of(1, 3),
            health: Some(HealthRow {
                state: "up".into(),
                age_ms: 185_000,
                last_error: "timeout".into(),
                ..HealthRow::default()
            }),
            next_hop: "lan via 10.0.0.3".into(),
            connections: 12,
            opened: 3456,
            original: TrafficRow { packets: 100, bytes: 6400 },
            reply: TrafficRow { packets: 99, bytes: 148_500 },
            hardware: HardwareRow {
                original: TrafficRow { packets: 50, bytes: 3200 },
                reply: TrafficRow { packets: 99, bytes: 148_500 },
            },
        };
        let draining = BackendRow {
            backend: "10.0.0.4:8080".into(),
            state: "draining".into(),
            share: Share::default(),
            health: None,
            next_hop: String::new(),
            ..row.clone()
        };
        insta::assert_snapshot!(backends(&[row, draining]), @r"
        SERVICE  BACKEND        STATE     HEALTH    LAST ERROR  WEIGHT  SHARE  CONNS  OPENED  PKTS IN  BYTES IN  PKTS OUT  BYTES OUT  IN HW  NEXT HOP
        web      10.0.0.3:8080  active    up 3m05s  timeout         10  33.3%     12    3456      100  6.25 KiB        99    145 KiB  74.9%  lan via 10.0.0.3
        web      10.0.0.4:8080  draining  -         -               10   0.0%     12    3456      100  6.25 KiB        99    145 KiB  74.9%  no route
        ");
    }

    #[test]
    fn meters_show_limits_and_colours() {
        let row = MeterRow {
            scope: "service".to_owned(),
            name: "web".to_owned(),
            bits_per_second: Some(1_000_000),
            burst_ms: 100,
            hardware_percent: Some(70),
            green: TrafficRow { packets: 2, bytes: 3_000 },
            red: TrafficRow { packets: 1, bytes: 1_500 },
            ..MeterRow::default()
        };
        insta::assert_snapshot!(meters(&[row]), @r"
        SCOPE    NAME  PKTS/S   BITS/S  NEW/S  CONNS  MAX  IN HW  GREEN  YELLOW  RED  BYTES PASSED  REFUSED
        service  web        -  1000000      -      -    -    70%      2       0    1      2.93 KiB        0
        ");
        assert_eq!(meters(&[]), "no meters\n");
    }

    #[test]
    fn drops_show_what_occurred_most_frequent_first() {
        let row = |reason: &str, packets| DropRow {
            reason: reason.into(),
            packets,
            description: format!("About {reason}."),
        };
        let rows = [row("no_route", 3), row("too_big", 0), row("no_service", 20)];
        insta::assert_snapshot!(drops(&rows, false), @r"
        PACKETS  REASON      MEANING
             20  no_service  About no_service.
              3  no_route    About no_route.
        ");
        assert_eq!(drops(&rows, true).lines().count(), 4);
        assert_eq!(drops(&rows[1..2], false), "nothing dropped\n");
    }

    #[test]
    fn the_engine_reads_well() {
        let tally =
            |counts: &[(&str, u64)]| counts.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect();
        let row = OffloadRow {
            engine: "template".into(),
            state: "recovering".into(),
            problems: vec!["the offload engine is recovering".into()],
            rules: 2000,
            capacity: 65536,
            connections: tally(&[("declined", 1), ("installed", 1000), ("requested", 0)]),
            hardware: TrafficRow { packets: 990, bytes: 1 << 20 },
            software: TrafficRow { packets: 10, bytes: 640 },
            insertions: 2400,
            insertions_per_second: 300_000,
            stats_age_ms: 512,
            requests: tally(&[("budget", 3), ("ok", 1200)]),
            removals: tally(&[("closing", 200)]),
            ..OffloadRow::default()
        };
        insta::assert_snapshot!(offload(&row), @r"
        OFFLOAD
        engine               template
        state                recovering
        problem              the offload engine is recovering
        traffic in hardware  99.0%: 990 packets, 1.00 MiB
        rules                2000 of 65536
        connections          1000 installed, 1 declined
        partitions           none
        price                none is asked for
        insertions           2400, at most 300000/s now
        under way            none
        counts are           512ms old
        missed               0 packets, and 0 under way when hardware took over
        requests             1200 ok, 3 budget
        left hardware        200 closing
        made room            none
        wanted back          none
        recoveries           0 (0 connections lost)
        orphans              0
        fences               0
        ");
        let none = OffloadRow {
            engine: "none".into(),
            state: "off".into(),
            problems: vec!["no port takes rules".into()],
            ..OffloadRow::default()
        };
        insta::assert_snapshot!(offload(&none), @r"
        OFFLOAD
        engine               none
        state                off
        problem              no port takes rules
        traffic in hardware  -: 0 packets, 0 B
        ");
    }

    #[test]
    fn rules_are_shown_one_a_line() {
        let row = RuleRow {
            id: 7,
            direction: "reply".into(),
            service: "web".into(),
            client: "198.51.100.7:5000".into(),
            backend: "10.0.0.3:8080".into(),
            state: "installed".into(),
            age_ms: 65_000,
            packets: 12_345,
            bytes: 1_500_000,
            rule: "flow create 0 transfer group 1 pattern eth / end actions drop / end".into(),
        };
        let found = Rules { rules: vec![row], truncated: false, total: 2 };
        insta::assert_snapshot!(rules(&found), @r"
        ID  DIRECTION  SERVICE  CLIENT             BACKEND        STATE        AGE  PACKETS     BYTES  RULE
         7  reply      web      198.51.100.7:5000  10.0.0.3:8080  installed  1m05s    12345  1.43 MiB  flow create 0 transfer group 1 pattern eth / end actions drop / end
        1 shown, 2 in force
        ");
    }

    #[test]
    fn every_table_takes_a_row() {
        assert_eq!(services(&[ServiceRow::default()]).lines().count(), 2);
        assert_eq!(ports(&[PortRow::default()]).lines().count(), 2);
        assert_eq!(workers(&[WorkerRow::default()]).lines().count(), 2);
        assert_eq!(neighbours(&[NeighbourRow::default()]).lines().count(), 2);
        let found = Connections { connections: vec![Default::default()], truncated: true, entries: 9 };
        assert!(connections(&found).ends_with("the first 1; 9 in all tables; --limit shows more\n"));
    }
}
