//! The control API's vocabulary: what travels as JSON between the running Millrace and whoever asks.
//!
//! Both ends use these types: `control` writes them, `client` reads them. Their documentation is the API's:
//! `pages` describes them by it. Every number of packets or bytes is a total since the start of the process.

use clap::ValueEnum;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Packets and bytes of one direction.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TrafficRow {
    pub(crate) packets: u64,
    /// Bytes of IP packet.
    pub(crate) bytes: u64,
}

impl std::ops::Add for TrafficRow {
    type Output = TrafficRow;

    fn add(self, other: TrafficRow) -> TrafficRow {
        TrafficRow {
            packets: self.packets.wrapping_add(other.packets),
            bytes: self.bytes.wrapping_add(other.bytes),
        }
    }
}

impl std::ops::AddAssign for TrafficRow {
    fn add_assign(&mut self, other: TrafficRow) {
        *self = *self + other;
    }
}

/// What hardware forwarded, as far as it has been counted.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct HardwareRow {
    pub(crate) original: TrafficRow,
    pub(crate) reply: TrafficRow,
}

/// A service.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ServiceRow {
    pub(crate) name: String,
    pub(crate) vip: String,
    pub(crate) protocol: String,
    /// Ports and ranges, `80` or `8000-8099`.
    pub(crate) ports: Vec<String>,
    pub(crate) mode: String,
    pub(crate) affinity: String,
    pub(crate) tenant: String,
    pub(crate) backends: usize,
    /// Of these, how many take new connections.
    pub(crate) backends_active: usize,
    pub(crate) connections: u64,
    pub(crate) opened: u64,
    pub(crate) picked_up: u64,
    pub(crate) dropped: u64,
    pub(crate) original: TrafficRow,
    pub(crate) reply: TrafficRow,
    /// Of these two, what hardware forwarded.
    pub(crate) hardware: HardwareRow,
    /// By source partition: packets of the busiest backend, percent of what its weight says; 100 is even.
    /// Absent elsewhere, and while there were none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) imbalance_percent: Option<u64>,
}

/// A backend of a service.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct BackendRow {
    pub(crate) service: String,
    /// `address` or `address:port`, as `drain` takes it.
    pub(crate) backend: String,
    pub(crate) weight: u32,
    /// `active`, `draining` or `removed`.
    pub(crate) state: String,
    /// Share of the Maglev table, 0 to 1.
    pub(crate) share: Share,
    /// What its health checks say; absent if there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) health: Option<HealthRow>,
    /// `port via next hop`; empty without a route.
    pub(crate) next_hop: String,
    pub(crate) connections: u64,
    pub(crate) opened: u64,
    pub(crate) original: TrafficRow,
    pub(crate) reply: TrafficRow,
    /// Of these two, what hardware forwarded.
    pub(crate) hardware: HardwareRow,
}

/// What health checks say of a backend.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HealthRow {
    /// `unknown`, `up` or `down`.
    pub(crate) state: String,
    /// For how long it has been so.
    pub(crate) age_ms: u64,
    /// The cause of the last failure; empty if there was none.
    pub(crate) last_error: String,
    /// How often the state changed, by cause.
    pub(crate) transitions: BTreeMap<String, u64>,
}

/// A share of a whole in parts per million, written as a number from 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) parts_per_million: u32,
}

impl Share {
    /// `part` of `whole`; 0 of nothing.
    pub(crate) fn of(part: usize, whole: usize) -> Share {
        let parts = (part as u128 * 1_000_000).checked_div(whole as u128).unwrap_or(0);
        Share { parts_per_million: parts.min(1_000_000) as u32 }
    }
}

impl Serialize for Share {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(f64::from(self.parts_per_million) / 1e6)
    }
}

impl JsonSchema for Share {
    fn schema_name() -> Cow<'static, str> {
        "Share".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "number", "minimum": 0, "maximum": 1 })
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Share, D::Error> {
        let value = f64::deserialize(deserializer)?;
        Ok(Share { parts_per_million: (value.clamp(0.0, 1.0) * 1e6).round() as u32 })
    }
}

/// An IPv4 or IPv6 address, for the description of those who have one in a query.
struct Address;

impl JsonSchema for Address {
    fn schema_name() -> Cow<'static, str> {
        "Address".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let version = |format| serde_json::json!({ "type": "string", "format": format });
        schemars::json_schema!({ "anyOf": [version("ipv4"), version("ipv6")] })
    }
}

/// How many rows an answer may have: some tens of megabytes at the most.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(try_from = "u64")]
pub(crate) struct Limit(usize);

impl Limit {
    const MAX: u64 = 100_000;

    /// As many rows as there may be.
    pub(crate) fn most() -> Limit {
        Limit(Limit::MAX as usize)
    }

    /// The number of rows.
    pub(crate) fn rows(self) -> usize {
        self.0
    }
}

impl Default for Limit {
    fn default() -> Limit {
        Limit(100)
    }
}

impl TryFrom<u64> for Limit {
    type Error = String;

    fn try_from(rows: u64) -> Result<Limit, String> {
        let fits = usize::try_from(rows).ok().filter(|_| rows <= Limit::MAX);
        fits.map(Limit).ok_or_else(|| format!("limit {rows} is too large; give 0 to {}", Limit::MAX))
    }
}

impl std::str::FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Limit, String> {
        Limit::try_from(text.parse::<u64>().map_err(|error| error.to_string())?)
    }
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl JsonSchema for Limit {
    fn schema_name() -> Cow<'static, str> {
        "Limit".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "integer", "minimum": 0, "maximum": Limit::MAX })
    }
}

/// A protocol that services have.
#[derive(Serialize, Deserialize, JsonSchema, ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(crate) enum Transport {
    Tcp,
    Udp,
}

/// What to look for among connections; everything given must match.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConnectionQuery {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) service: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Address>")]
    pub(crate) client: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Address>")]
    pub(crate) backend: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) protocol: Option<Transport>,
    /// Rows at most; 100 if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) limit: Option<Limit>,
}

/// Connections that matched.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Connections {
    pub(crate) connections: Vec<ConnectionRow>,
    /// Whether the limit cut the list.
    pub(crate) truncated: bool,
    /// Entries in all tables, matching or not.
    pub(crate) entries: u64,
}

/// A connection.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ConnectionRow {
    pub(crate) worker: u16,
    pub(crate) service: String,
    pub(crate) protocol: String,
    /// `address:port` of the client.
    pub(crate) client: String,
    /// `address:port` the client talks to.
    pub(crate) vip: String,
    /// `address:port` of the backend.
    pub(crate) backend: String,
    pub(crate) state: String,
    /// Where it is forwarded: `software`, `requested`, `hardware`, `removing`, or `declined:` and why
    /// hardware does not take it.
    pub(crate) path: String,
    pub(crate) age_ms: u64,
    pub(crate) idle_ms: u64,
    /// Until it expires if nothing more is seen.
    pub(crate) expires_ms: u64,
    pub(crate) original: TrafficRow,
    pub(crate) reply: TrafficRow,
}

/// A port.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PortRow {
    pub(crate) name: String,
    /// Empty if it is on the device of another port.
    pub(crate) device: String,
    /// The port on whose device it is; empty if it has its own.
    #[serde(default)]
    pub(crate) parent: String,
    /// The VLAN that tells its frames from its parent's: `10`, or `100.10` with an outer tag.
    #[serde(default)]
    pub(crate) vlan: String,
    /// The tunnel that it is behind: `vxlan 100 to 10.0.0.9`. Without a far end it only receives.
    #[serde(default)]
    pub(crate) tunnel: String,
    pub(crate) driver: String,
    pub(crate) mac: String,
    pub(crate) mtu: u16,
    pub(crate) link_up: bool,
    /// Mbit/s; 0 where the driver does not know.
    pub(crate) speed_mbps: u32,
    /// How received packets reach their worker: `rss` or `hand-off`.
    pub(crate) steering: String,
    /// The ports that its hairpin queues lead to.
    pub(crate) hairpins: Vec<String>,
    pub(crate) rx_packets: u64,
    pub(crate) rx_bytes: u64,
    /// Dropped by the device because no buffer or descriptor was free.
    pub(crate) rx_missed: u64,
    pub(crate) rx_errors: u64,
    pub(crate) rx_no_buffer: u64,
    pub(crate) tx_packets: u64,
    pub(crate) tx_bytes: u64,
    pub(crate) tx_errors: u64,
}

/// A worker.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct WorkerRow {
    pub(crate) worker: u16,
    pub(crate) core: usize,
    pub(crate) generation: u64,
    pub(crate) entries: u64,
    pub(crate) half_open: u64,
    pub(crate) capacity: u64,
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) generated: u64,
    pub(crate) consumed: u64,
    pub(crate) dropped: u64,
    pub(crate) held: u64,
    pub(crate) handed_out: u64,
    pub(crate) handed_in: u64,
    pub(crate) polls: u64,
    pub(crate) polls_empty: u64,
    pub(crate) busy_cycles: u64,
    /// Busy cycles per packet received or taken over; 0 before the first.
    pub(crate) cycles_per_packet: u64,
}

/// A meter of a service or a tenant: what it limits, and what became of packets and connections.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MeterRow {
    /// `service` or `tenant`.
    pub(crate) scope: String,
    pub(crate) name: String,
    pub(crate) packets_per_second: Option<u64>,
    pub(crate) bits_per_second: Option<u64>,
    pub(crate) new_connections_per_second: Option<u64>,
    /// Connections there may be,
    pub(crate) connections_max: Option<u64>,
    /// and there are, if they are limited.
    pub(crate) connections: Option<u64>,
    pub(crate) burst_ms: u32,
    /// Of the rate, what hardware has of it now, percent; `null` if it has none.
    pub(crate) hardware_percent: Option<u8>,
    /// Within the rate.
    pub(crate) green: TrafficRow,
    /// Beyond it, but within the peak or excess.
    pub(crate) yellow: TrafficRow,
    /// Dropped.
    pub(crate) red: TrafficRow,
    /// New connections that were not admitted.
    pub(crate) refused: u64,
}

/// One reason for which packets were dropped.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DropRow {
    pub(crate) reason: String,
    pub(crate) packets: u64,
    pub(crate) description: String,
}

/// The offload engine, and what became of connections that were to be forwarded by hardware.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct OffloadRow {
    /// `sync`, `template`, or `none`.
    pub(crate) engine: String,
    /// `running`, `recovering`, `resting`, `stuck`, or `off`.
    pub(crate) state: String,
    /// Why there is no engine, or what is wrong with it; empty if nothing is.
    pub(crate) problems: Vec<String>,
    /// Rules in force, one per direction of a connection.
    pub(crate) rules: u64,
    pub(crate) capacity: u64,
    /// Connections by state: `installed`, `requested`, `removing`, `declined`.
    pub(crate) connections: BTreeMap<String, u64>,
    /// Rules of source partitions: `installed`, `moving` (on their way in or out), and those left to
    /// software by why: `declined:policy`, `declined:metered`, `declined:path`, `declined:mtu`,
    /// `declined:neighbour`, `declined:full`, `declined:refused`.
    #[serde(default)]
    pub(crate) partitions: BTreeMap<String, u64>,
    /// Packets a connection must have carried to be asked for; `null`: none is.
    pub(crate) price_packets: Option<u64>,
    /// Of the rules, those that drop what the policy denies.
    pub(crate) denials: u64,
    /// Times one of them came in force,
    pub(crate) denials_installed: u64,
    /// or could not.
    pub(crate) denials_failed: u64,
    /// Packets that they have dropped, as of their last counts.
    pub(crate) denied_packets: u64,
    /// Rules that the budget allows per second now.
    pub(crate) insertions_per_second: u64,
    pub(crate) insertions: u64,
    /// What is under way, by kind.
    pub(crate) queues: BTreeMap<String, u64>,
    /// Age of the oldest count that the figures rest on.
    pub(crate) stats_age_ms: u64,
    /// Forwarded by hardware, both directions.
    pub(crate) hardware: TrafficRow,
    /// Forwarded by workers, both directions.
    pub(crate) software: TrafficRow,
    /// Packets of connections in hardware that came to workers all the same.
    pub(crate) misses: u64,
    /// Packets that were under way to a worker when hardware took over.
    pub(crate) late: u64,
    /// Requests by result.
    pub(crate) requests: BTreeMap<String, u64>,
    /// Connections that left hardware, by reason.
    pub(crate) removals: BTreeMap<String, u64>,
    /// Connections that had to make room, by reason.
    pub(crate) evictions: BTreeMap<String, u64>,
    /// Connections that workers wanted back, by reason.
    pub(crate) revocations: BTreeMap<String, u64>,
    /// Times everything was taken out because what hardware held was no longer certain.
    pub(crate) recoveries: u64,
    /// Connections that the device lost.
    pub(crate) lost: u64,
    /// Rules found without a connection that wants them.
    pub(crate) orphans: u64,
    /// Whether packets are kept from rules, as those that a new policy denies take long to remove.
    pub(crate) fenced: bool,
    /// Times that began.
    pub(crate) fences: u64,
    /// Times a rule that leads packets to those of connections could not be put in, or taken out for that.
    pub(crate) base_failures: u64,
}

/// What to look for among rules; everything given must match.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct RuleQuery {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) service: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Address>")]
    pub(crate) client: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Address>")]
    pub(crate) backend: Option<IpAddr>,
    /// Rules at most; 100 if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) limit: Option<Limit>,
}

/// Rules that matched.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rules {
    pub(crate) rules: Vec<RuleRow>,
    /// Whether the limit cut the list.
    pub(crate) truncated: bool,
    /// Rules in force, matching or not.
    pub(crate) total: u64,
}

/// A rule: one direction of a connection in hardware, or what is dropped there.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RuleRow {
    /// The number of the connection's rules.
    pub(crate) id: u32,
    /// `original` or `reply`; `denied`: it drops what the policy denies.
    pub(crate) direction: String,
    pub(crate) service: String,
    /// `address:port` of the client.
    pub(crate) client: String,
    /// `address:port` of the backend; empty if it drops.
    pub(crate) backend: String,
    pub(crate) state: String,
    /// Since the connection's rules were installed.
    pub(crate) age_ms: u64,
    pub(crate) packets: u64,
    /// Bytes of IP packet.
    pub(crate) bytes: u64,
    /// As testpmd's commands would make it, a line each.
    pub(crate) rule: String,
}

/// A neighbour.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NeighbourRow {
    pub(crate) worker: u16,
    pub(crate) port: String,
    pub(crate) address: String,
    /// Empty while it is being resolved.
    pub(crate) mac: String,
    pub(crate) state: String,
    /// Packets waiting for it.
    pub(crate) held: u64,
}

/// A backend of a service, for `drain` and `undrain`.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct BackendName {
    pub(crate) service: String,
    pub(crate) backend: String,
}

/// A change that every worker forwards by now.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changed {
    /// Generation of the configuration in force.
    pub(crate) generation: u64,
    /// What happened, for a person.
    pub(crate) message: String,
}

/// What to do about a reload.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReloadQuery {
    /// Only tell what would happen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dry_run: Option<bool>,
}

/// A reload, or what one would do.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reloaded {
    /// Generation of the configuration in force.
    pub(crate) generation: u64,
    /// Whether nothing was done.
    pub(crate) dry_run: bool,
    /// What happened, or would, for a person.
    pub(crate) message: String,
    /// What the file changes.
    pub(crate) changes: Vec<ChangeRow>,
    /// What becomes of live connections.
    pub(crate) effects: Vec<String>,
}

/// A table of the configuration that differs.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
pub(crate) struct ChangeRow {
    pub(crate) change: Change,
    /// Its headers in the file: `service`, `service backend`.
    pub(crate) kind: String,
    /// The same with names: `service "web" backend "10.0.0.3"`.
    pub(crate) name: String,
    /// Keys whose values differ.
    pub(crate) keys: Vec<KeyRow>,
}

/// What happened to a table of the configuration.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(crate) enum Change {
    Added,
    Removed,
    Changed,
    /// It has another place among its kind, which matters.
    Moved,
}

impl Change {
    /// All of them, in order.
    pub(crate) const ALL: [Change; 4] = [Change::Added, Change::Removed, Change::Changed, Change::Moved];

    /// The name as serialised.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Change::Added => "added",
            Change::Removed => "removed",
            Change::Changed => "changed",
            Change::Moved => "moved",
        }
    }
}

/// A key that differs, with its values as TOML.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyRow {
    pub(crate) key: String,
    /// `null` if it was not given.
    pub(crate) old: Option<String>,
    /// `null` if it is not given any more.
    pub(crate) new: Option<String>,
}

/// A change of what is in force, or an attempt at it.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HistoryRow {
    /// When, as RFC 3339 has it, UTC.
    pub(crate) at: String,
    /// The generation that it brought; `null` if it was refused.
    pub(crate) generation: Option<u64>,
    /// `start`, `reload`, `drain` or `undrain`.
    pub(crate) cause: String,
    /// Who wanted it: a process by its user and number, or `SIGHUP`.
    pub(crate) by: String,
    /// What it changed, or why it was refused.
    pub(crate) summary: String,
}

/// The version of the running program.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct VersionInfo {
    pub(crate) version: String,
    pub(crate) commit: String,
    pub(crate) dpdk: String,
    pub(crate) generation: u64,
    pub(crate) config: String,
    pub(crate) uptime_ms: u64,
}

/// Why a request is not carried out, for the code that decides it. It travels as a [`Problem`].
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub(crate) struct Refusal {
    pub(crate) kind: RefusalKind,
    pub(crate) error: String,
    /// What `check` would say of the configuration.
    pub(crate) faults: Vec<String>,
}

impl Refusal {
    /// A refusal in one sentence.
    pub(crate) fn new(kind: RefusalKind, error: impl Into<String>) -> Refusal {
        Refusal { kind, error: error.into(), faults: Vec::new() }
    }
}

/// Why a request was refused; becomes the HTTP status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum RefusalKind {
    /// The request cannot be understood.
    Malformed,
    /// The token is missing or wrong.
    Unauthorised,
    /// Whoever asks may not.
    Forbidden,
    /// The request names something that does not exist.
    NotFound,
    /// It cannot be done while something else is.
    Conflict,
    /// What is there cannot be asked in this way.
    Method,
    /// The request did not come to its end.
    Slow,
    /// The request is larger than any that makes sense.
    TooLarge,
    /// The request's body is of another kind than what is asked for.
    MediaType,
    /// The configuration is faulty or cannot take effect without a restart, or a body is well-formed and
    /// makes no sense.
    Faulty,
    /// It should have worked.
    #[default]
    Failed,
}

impl RefusalKind {
    /// All of them, with their HTTP status.
    const STATUSES: [(RefusalKind, u16); 11] = [
        (RefusalKind::Malformed, 400),
        (RefusalKind::Unauthorised, 401),
        (RefusalKind::Forbidden, 403),
        (RefusalKind::NotFound, 404),
        (RefusalKind::Method, 405),
        (RefusalKind::Slow, 408),
        (RefusalKind::Conflict, 409),
        (RefusalKind::TooLarge, 413),
        (RefusalKind::MediaType, 415),
        (RefusalKind::Faulty, 422),
        (RefusalKind::Failed, 503),
    ];

    /// The HTTP status.
    pub(crate) fn status(self) -> u16 {
        let found = RefusalKind::STATUSES.iter().find(|(kind, _)| *kind == self);
        found.map_or(500, |(_, status)| *status)
    }

    /// What an HTTP status stands for.
    pub(crate) fn of_status(status: u16) -> RefusalKind {
        let found = RefusalKind::STATUSES.iter().find(|(_, known)| *known == status);
        found.map_or(RefusalKind::Failed, |(kind, _)| *kind)
    }
}

/// A refusal as it travels: the members of RFC 9457, without a `type` of its own, and the configuration's
/// faults.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Problem {
    /// The status in words.
    pub(crate) title: String,
    /// The HTTP status.
    pub(crate) status: u16,
    /// What is wrong with this request, for a person.
    pub(crate) detail: String,
    /// What `check` would say of the configuration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) faults: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_survive_json() {
        for (part, whole) in [(0, 0), (0, 7), (1, 3), (7, 7)] {
            let share = Share::of(part, whole);
            let text = serde_json::to_string(&share).expect("serialises");
            assert_eq!(serde_json::from_str::<Share>(&text).expect("parses"), share, "{text}");
        }
    }
}
