//! Rows as tables for people. Machines take `--json`, which prints the rows as they came.

use crate::api::{BackendRow, Connections, DropRow, NeighbourRow, PortRow, ServiceRow, TrafficRow};
use crate::api::{VersionInfo, WorkerRow};
use std::fmt::Write as _;

/// A table whose columns are as wide as they need to be.
struct Table {
    /// Titles; one that starts with `>` makes its column right-aligned.
    titles: &'static [&'static str],
    cells: Vec<Vec<String>>,
}

impl Table {
    fn new(titles: &'static [&'static str]) -> Table {
        Table { titles, cells: Vec::new() }
    }

    fn row<const N: usize>(&mut self, cells: [String; N]) {
        debug_assert_eq!(cells.len(), self.titles.len());
        self.cells.push(cells.into());
    }

    /// The table as text; `nothing` instead if it has no rows.
    fn render(&self, nothing: &str) -> String {
        if self.cells.is_empty() {
            return format!("{nothing}\n");
        }
        let title = |column: usize| self.titles[column].trim_start_matches('>');
        let width = |column: usize| {
            let cells = self.cells.iter().map(|row| row[column].chars().count());
            cells.chain([title(column).chars().count()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.titles.len()).map(width).collect();
        let titles: Vec<String> = (0..self.titles.len()).map(|column| title(column).to_owned()).collect();
        let mut text = String::new();
        for row in std::iter::once(&titles).chain(&self.cells) {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let gap = if column == 0 { "" } else { "  " };
                let width = widths[column];
                let _ = if self.titles[column].starts_with('>') {
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

fn percent(part: u64, whole: u64) -> String {
    if whole == 0 { "-".to_owned() } else { format!("{:.1}%", part as f64 * 100.0 / whole as f64) }
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

fn traffic(original: TrafficRow, reply: TrafficRow) -> [String; 4] {
    [original.packets.to_string(), bytes(original.bytes), reply.packets.to_string(), bytes(reply.bytes)]
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
            row.affinity.clone(),
            format!("{}/{}", row.backends_active, row.backends),
            row.connections.to_string(),
            (row.opened + row.picked_up).to_string(),
            packets_in,
            bytes_in,
            packets_out,
            bytes_out,
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
        ">WEIGHT",
        ">SHARE",
        ">CONNS",
        ">OPENED",
        ">PKTS IN",
        ">BYTES IN",
        ">PKTS OUT",
        ">BYTES OUT",
        "NEXT HOP",
    ]);
    for row in rows {
        let [packets_in, bytes_in, packets_out, bytes_out] = traffic(row.original, row.reply);
        table.row([
            row.service.clone(),
            row.backend.clone(),
            row.state.clone(),
            row.weight.to_string(),
            percent(u64::from(row.share.parts_per_million), 1_000_000),
            row.connections.to_string(),
            row.opened.to_string(),
            packets_in,
            bytes_in,
            packets_out,
            bytes_out,
            if row.next_hop.is_empty() { "no route".to_owned() } else { row.next_hop.clone() },
        ]);
    }
    table.render("no backends")
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
        table.row([
            row.name.clone(),
            row.device.clone(),
            row.driver.clone(),
            row.mac.clone(),
            row.mtu.to_string(),
            link,
            row.steering.clone(),
            row.rx_packets.to_string(),
            bytes(row.rx_bytes),
            row.rx_missed.to_string(),
            (row.rx_errors + row.rx_no_buffer).to_string(),
            row.tx_packets.to_string(),
            bytes(row.tx_bytes),
            row.tx_errors.to_string(),
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
    use crate::api::Share;

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
            next_hop: "lan via 10.0.0.3".into(),
            connections: 12,
            opened: 3456,
            original: TrafficRow { packets: 100, bytes: 6400 },
            reply: TrafficRow { packets: 99, bytes: 148_500 },
        };
        let draining = BackendRow {
            backend: "10.0.0.4:8080".into(),
            state: "draining".into(),
            share: Share::default(),
            next_hop: String::new(),
            ..row.clone()
        };
        insta::assert_snapshot!(backends(&[row, draining]), @r"
        SERVICE  BACKEND        STATE     WEIGHT  SHARE  CONNS  OPENED  PKTS IN  BYTES IN  PKTS OUT  BYTES OUT  NEXT HOP
        web      10.0.0.3:8080  active        10  33.3%     12    3456      100  6.25 KiB        99    145 KiB  lan via 10.0.0.3
        web      10.0.0.4:8080  draining      10   0.0%     12    3456      100  6.25 KiB        99    145 KiB  no route
        ");
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
    fn every_table_takes_a_row() {
        assert_eq!(services(&[ServiceRow::default()]).lines().count(), 2);
        assert_eq!(ports(&[PortRow::default()]).lines().count(), 2);
        assert_eq!(workers(&[WorkerRow::default()]).lines().count(), 2);
        assert_eq!(neighbours(&[NeighbourRow::default()]).lines().count(), 2);
        let found = Connections { connections: vec![Default::default()], truncated: true, entries: 9 };
        assert!(connections(&found).ends_with("the first 1; 9 in all tables; --limit shows more\n"));
    }
}
