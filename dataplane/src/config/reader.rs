//! Strict reading of TOML tables that goes on after a fault.
//!
//! A [`Section`] is one table with the keys it may have ([`SECTIONS`]); opening it reports the keys it
//! may not have. Its getters take a function from [`super::values`] and report what that refuses, so the
//! caller sees values or their absence and never has to stop.

use super::fault::{At, Path, Place, Sink};
use super::suggest::nearest;
use super::values::{Complaint, Value};
use crate::limits;
use core::ops::Range;
use toml::Spanned;
use toml::de::{DeString, DeTable};

/// Every section by its dotted name, with its keys; the documentation is tested against it.
pub(super) const SECTIONS: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "dpdk",
            "workers",
            "log",
            "metrics",
            "control",
            "limits",
            "timeouts",
            "maglev",
            "offload",
            "tenant",
            "port",
            "service",
            "set",
            "policy",
            "policy_default",
        ],
    ),
    ("dpdk", &["eal_args", "file_prefix", "hugepages", "memory_mb", "mbufs"]),
    ("workers", &["cores", "idle", "idle_sleep_us", "hand_off_ring"]),
    ("log", &["level", "format"]),
    ("metrics", &["listen"]),
    ("control", &["socket", "mode", "group", "listen", "token_file"]),
    (
        "limits",
        &[
            "connections",
            "half_open_percent",
            "neighbours",
            "neighbour_queue",
            "fragments",
            "icmp_per_second",
        ],
    ),
    ("timeouts", TIMEOUT_KEYS),
    ("maglev", &["table_size"]),
    (
        "offload",
        &[
            "engine",
            "rules_max",
            "deny_rules",
            "insertions_per_second",
            "price_min",
            "idle_s",
            "tenant_share_percent",
            "poll_ms",
            "core",
            "draining",
        ],
    ),
    ("tenant", &["name", "connections", "half_open_percent", "offload_share_percent", "limit"]),
    ("tenant.limit", super::meters::TENANT_KEYS),
    (
        "port",
        &[
            "name",
            "device",
            "parent",
            "tenant",
            "addresses",
            "gateway",
            "gateway6",
            "mtu",
            "vlan",
            "outer_vlan",
            "tunnel",
            "mac",
            "pass_to",
            "rx_descriptors",
            "tx_descriptors",
            "promiscuous",
            "hairpin",
            "faces",
            "neighbour",
            "route",
        ],
    ),
    ("port.tunnel", &["kind", "vni", "remote", "port"]),
    ("port.neighbour", &["address", "mac"]),
    ("port.route", &["to", "via"]),
    (
        "service",
        &[
            "name",
            "tenant",
            "vip",
            "protocol",
            "ports",
            "mode",
            "scheduler",
            "partitions",
            "affinity",
            "strict",
            "on_remove",
            "offload",
            "health",
            "limit",
            "timeouts",
            "tunnel",
            "backend",
        ],
    ),
    ("service.health", HEALTH_KEYS),
    ("service.limit", super::meters::SERVICE_KEYS),
    ("service.timeouts", TIMEOUT_KEYS),
    ("service.tunnel", &["port", "vni", "inner_mac", "dscp", "udp6_checksum"]),
    ("service.backend", &["address", "weight"]),
    ("set", &["name", "prefixes"]),
    (
        "policy",
        &[
            "name",
            "action",
            "log",
            "tenant",
            "direction",
            "from",
            "to",
            "protocol",
            "from_ports",
            "ports",
            "icmp_types",
            "state",
        ],
    ),
    ("policy_default", &["tenant", "ingress", "egress"]),
];

const HEALTH_KEYS: &[&str] = &[
    "type",
    "port",
    "interval_ms",
    "timeout_ms",
    "rise",
    "fall",
    "initial",
    "passive",
    "panic_percent",
    "slow_start_s",
    "on_down",
    "path",
    "host",
    "expect",
    "query",
    "payload",
];

const TIMEOUT_KEYS: &[&str] = &[
    "tcp_half_open_s",
    "tcp_established_s",
    "tcp_closing_s",
    "tcp_time_wait_s",
    "tcp_reset_s",
    "udp_unreplied_s",
    "udp_replied_s",
];

/// Sections of which there may be several, written `[[name]]`.
const REPEATED: &[&str] = &[
    "tenant",
    "port",
    "port.neighbour",
    "port.route",
    "service",
    "service.backend",
    "set",
    "policy",
    "policy_default",
];

/// A section's name as it is written in a file.
fn header(name: &str) -> String {
    if REPEATED.contains(&name) { format!("[[{name}]]") } else { format!("[{name}]") }
}

fn keys_of(name: &str) -> &'static [&'static str] {
    SECTIONS.iter().find(|(section, _)| *section == name).map_or(&[], |(_, keys)| keys)
}

/// One table; without a `table`, one that is not in the file.
pub(super) struct Section<'a> {
    name: &'static str,
    pub(super) place: Place,
    table: Option<&'a DeTable<'a>>,
    sink: &'a Sink<'a>,
}

impl<'a> Section<'a> {
    /// The whole file.
    pub(super) fn root(table: &'a DeTable<'a>, sink: &'a Sink<'a>) -> Section<'a> {
        Section::open("", Place::new("", 0..0), Some(table), sink)
    }

    fn open(
        name: &'static str,
        place: Place,
        table: Option<&'a DeTable<'a>>,
        sink: &'a Sink<'a>,
    ) -> Section<'a> {
        let section = Section { name, place, table, sink };
        let known = keys_of(name);
        for key in table.into_iter().flat_map(|table| table.keys()) {
            if !known.contains(&key.get_ref().as_ref()) {
                section.report_unknown(key);
            }
        }
        section
    }

    /// Whether the table itself is in the file.
    pub(super) fn is_present(&self) -> bool {
        self.table.is_some()
    }

    /// Whether the key is in the file, well-formed or not.
    pub(super) fn has(&self, key: &str) -> bool {
        self.item(key).is_some()
    }

    /// A value that may be absent. `None` also when it was refused.
    pub(super) fn optional<T>(
        &self,
        key: &'static str,
        read: impl Fn(&Value<'_>) -> Result<T, Complaint>,
    ) -> Option<At<T>> {
        let item = self.item(key)?;
        let value = item.get_ref();
        let outcome = match is_section(value) {
            false => read(value),
            true => Err(Complaint::wrong_type("a value", value.type_str(), "write `key = value`")),
        };
        self.accept(outcome, self.place_at(key, item))
    }

    /// A value that must be there.
    pub(super) fn required<T>(
        &self,
        key: &'static str,
        example: &str,
        read: impl Fn(&Value<'_>) -> Result<T, Complaint>,
    ) -> Option<At<T>> {
        self.require(key, example);
        self.optional(key, read)
    }

    /// A list that must be there.
    pub(super) fn required_list<T>(
        &self,
        key: &'static str,
        example: &str,
        read: impl Fn(&Value<'_>) -> Result<T, Complaint>,
    ) -> Option<Vec<At<T>>> {
        self.require(key, example);
        self.list(key, read)
    }

    fn require(&self, key: &'static str, example: &str) {
        if !self.has(key) {
            self.sink.error(&self.place_of(key), "is missing", format!("add `{key} = {example}`"));
        }
    }

    /// A value with a default, and its place. `None` only when it was refused.
    pub(super) fn default_at<T>(
        &self,
        key: &'static str,
        default: T,
        read: impl Fn(&Value<'_>) -> Result<T, Complaint>,
    ) -> Option<At<T>> {
        if self.has(key) {
            return self.optional(key, read);
        }
        Some(At { value: default, place: self.place_of(key) })
    }

    /// A value with a default, where its place does not matter.
    pub(super) fn default<T>(
        &self,
        key: &'static str,
        default: T,
        read: impl Fn(&Value<'_>) -> Result<T, Complaint>,
    ) -> T {
        self.optional(key, read).map_or(default, |at| at.value)
    }

    /// The elements of an array that were not refused; `None` if there is no array.
    pub(super) fn list<T>(
        &self,
        key: &'static str,
        read: impl Fn(&Value<'_>) -> Result<T, Complaint>,
    ) -> Option<Vec<At<T>>> {
        let item = self.item(key)?;
        let place = self.place_at(key, item);
        let Some(array) = item.get_ref().as_array().filter(|_| !is_section(item.get_ref())) else {
            let found = if item.get_ref().is_array() { "array of tables" } else { item.get_ref().type_str() };
            self.complain(&place, Complaint::wrong_type("an array", found, "write the values in brackets"));
            return None;
        };
        let elements = array.iter().enumerate().filter_map(|(index, value)| {
            let place = Place { path: place.path.element(index), span: value.span() };
            self.accept(read(value.get_ref()), place)
        });
        Some(elements.collect())
    }

    /// A table below this one, present or not.
    pub(super) fn table(&self, key: &'static str, name: &'static str) -> Section<'a> {
        let table = self.item(key).map(Spanned::get_ref).and_then(|item| {
            let table = item.as_table();
            if table.is_none() {
                let remedy = format!("write `{}` and its keys below", header(name));
                self.complain(
                    &self.place_of(key),
                    Complaint::wrong_type("a table", item.type_str(), &remedy),
                );
            }
            table
        });
        Section::open(name, self.place_of(key), table, self.sink)
    }

    /// The tables of an array of tables below this one.
    pub(super) fn tables(&self, key: &'static str, name: &'static str) -> Vec<Section<'a>> {
        let Some(item) = self.item(key) else { return Vec::new() };
        let table = |value: &'a Spanned<Value<'a>>| Some((value.get_ref().as_table()?, value.span()));
        let array = item.get_ref().as_array();
        let tables = array.and_then(|array| array.iter().map(table).collect::<Option<Vec<_>>>());
        let Some(tables) = tables else {
            let remedy = format!("write `{}`, in double brackets: there may be several", header(name));
            let complaint = Complaint::wrong_type("an array of tables", item.get_ref().type_str(), &remedy);
            self.complain(&self.place_of(key), complaint);
            return Vec::new();
        };
        let path = self.place.path.key(key);
        let open = |(index, (table, span)): (usize, (&'a DeTable<'a>, Range<usize>))| {
            let path = Path::table(path.clone(), index, name_of(table));
            Section::open(name, Place { path, span }, Some(table), self.sink)
        };
        tables.into_iter().enumerate().map(open).collect()
    }

    fn item(&self, key: &str) -> Option<&'a Spanned<Value<'a>>> {
        debug_assert!(keys_of(self.name).contains(&key), "{key} is not in SECTIONS under {:?}", self.name);
        self.table?.get(key)
    }

    /// Where a key's value stands; where its section stands if the key is absent.
    pub(super) fn place_of(&self, key: &'static str) -> Place {
        let item = self.table.and_then(|table| table.get(key));
        item.map_or_else(|| self.place.key(key), |item| self.place_at(key, item))
    }

    /// Where this key stands, with its value.
    fn place_at(&self, key: &'static str, item: &Spanned<Value<'_>>) -> Place {
        Place { path: self.place.path.key(key), span: item.span() }
    }

    fn accept<T>(&self, outcome: Result<T, Complaint>, place: Place) -> Option<At<T>> {
        match outcome {
            Ok(value) => Some(At { value, place }),
            Err(complaint) => {
                self.complain(&place, complaint);
                None
            }
        }
    }

    fn complain(&self, place: &Place, complaint: Complaint) {
        self.sink.error(place, complaint.message, complaint.remedy);
    }

    fn report_unknown(&self, key: &Spanned<DeString<'_>>) {
        let (span, key) = (key.span(), key.get_ref());
        let path = &self.place.path;
        let dot = if self.name.is_empty() { "" } else { "." };
        let place = Place::new(format!("{path}{dot}{key}"), span);
        let here = if self.name.is_empty() {
            "at the top level".to_owned()
        } else {
            format!("in {}", header(self.name))
        };
        self.sink.error(&place, format!("unknown key {here}"), self.remedy_for_unknown(key));
    }

    /// A key that is right elsewhere is usually one that came after the next table's header.
    fn remedy_for_unknown(&self, key: &str) -> String {
        if let Some(near) = nearest(key, keys_of(self.name).iter().copied()) {
            return format!("did you mean `{near}`?");
        }
        let elsewhere = SECTIONS.iter().filter(|(name, keys)| !name.is_empty() && keys.contains(&key));
        let elsewhere: Vec<String> = elsewhere.map(|(name, _)| format!("`{}`", header(name))).collect();
        if elsewhere.is_empty() {
            return format!("remove it; the keys here are {}", keys_of(self.name).join(", "));
        }
        format!("`{key}` belongs to {}: move it there, before any table below it", elsewhere.join(" or "))
    }
}

/// Whether it was written as a section of its own, `[key]` or `[[key]]`, or as what stands for one.
fn is_section(value: &Value<'_>) -> bool {
    let is_table = |value: &Spanned<Value<'_>>| value.get_ref().is_table();
    value.is_table() || value.as_array().and_then(|array| array.iter().next()).is_some_and(is_table)
}

/// The table's name, so that a person need not count; none that would make a fault hard to read.
fn name_of<'a>(table: &'a DeTable<'_>) -> Option<&'a str> {
    let fit = |name: &&str| {
        name.len() <= limits::NAME_LENGTH_MAX && !name.contains(|c: char| c.is_control() || c == '"')
    };
    table.get("name").and_then(|name| name.get_ref().as_str()).filter(fit)
}
