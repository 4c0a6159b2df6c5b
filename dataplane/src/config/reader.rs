//! Strict reading of TOML tables that goes on after a fault.
//!
//! A [`Section`] is one table with the keys it may have ([`SECTIONS`]); opening it reports the keys it
//! may not have. Its getters take a function from [`super::values`] and report what that refuses, so the
//! caller sees values or their absence and never has to stop.

use super::fault::{At, Place, Sink};
use super::suggest::nearest;
use super::values::Complaint;
use crate::limits;
use toml_edit::{Item, TableLike, Value};

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
    table: Option<&'a dyn TableLike>,
    sink: &'a Sink<'a>,
}

impl<'a> Section<'a> {
    /// The whole file.
    pub(super) fn root(table: &'a dyn TableLike, sink: &'a Sink<'a>) -> Section<'a> {
        Section::open("", Place { path: String::new(), span: 0..0 }, Some(table), sink)
    }

    fn open(
        name: &'static str,
        place: Place,
        table: Option<&'a dyn TableLike>,
        sink: &'a Sink<'a>,
    ) -> Section<'a> {
        let section = Section { name, place, table, sink };
        for (key, item) in table.into_iter().flat_map(TableLike::iter) {
            if !keys_of(name).contains(&key) {
                section.report_unknown(key, item);
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
        read: impl Fn(&Value) -> Result<T, Complaint>,
    ) -> Option<At<T>> {
        let item = self.item(key)?;
        let place = self.place_of(key);
        let outcome = match item.as_value() {
            Some(value) => read(value),
            None => Err(Complaint::wrong_type("a value", item.type_name(), "write `key = value`")),
        };
        self.accept(outcome, place)
    }

    /// A value that must be there.
    pub(super) fn required<T>(
        &self,
        key: &'static str,
        example: &str,
        read: impl Fn(&Value) -> Result<T, Complaint>,
    ) -> Option<At<T>> {
        self.require(key, example);
        self.optional(key, read)
    }

    /// A list that must be there.
    pub(super) fn required_list<T>(
        &self,
        key: &'static str,
        example: &str,
        read: impl Fn(&Value) -> Result<T, Complaint>,
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
        read: impl Fn(&Value) -> Result<T, Complaint>,
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
        read: impl Fn(&Value) -> Result<T, Complaint>,
    ) -> T {
        self.optional(key, read).map_or(default, |at| at.value)
    }

    /// The elements of an array that were not refused; `None` if there is no array.
    pub(super) fn list<T>(
        &self,
        key: &'static str,
        read: impl Fn(&Value) -> Result<T, Complaint>,
    ) -> Option<Vec<At<T>>> {
        let item = self.item(key)?;
        let Some(array) = item.as_array() else {
            let complaint =
                Complaint::wrong_type("an array", item.type_name(), "write the values in brackets");
            self.complain(&self.place_of(key), complaint);
            return None;
        };
        let elements = array.iter().enumerate().filter_map(|(index, value)| {
            let span = value.span().unwrap_or_else(|| self.place.span.clone());
            self.accept(read(value), Place { path: format!("{}[{index}]", self.path_of(key)), span })
        });
        Some(elements.collect())
    }

    /// A table below this one, present or not.
    pub(super) fn table(&self, key: &'static str, name: &'static str) -> Section<'a> {
        let table = self.item(key).and_then(|item| {
            let table = item.as_table_like();
            if table.is_none() {
                let remedy = format!("write `{}` and its keys below", header(name));
                self.complain(
                    &self.place_of(key),
                    Complaint::wrong_type("a table", item.type_name(), &remedy),
                );
            }
            table
        });
        Section::open(name, self.place_of(key), table, self.sink)
    }

    /// The tables of an array of tables below this one.
    pub(super) fn tables(&self, key: &'static str, name: &'static str) -> Vec<Section<'a>> {
        let Some(item) = self.item(key) else { return Vec::new() };
        let tables: Option<Vec<(&'a dyn TableLike, _)>> = match item {
            Item::ArrayOfTables(tables) => {
                Some(tables.iter().map(|table| (table as &dyn TableLike, table.span())).collect())
            }
            Item::Value(Value::Array(array)) => array
                .iter()
                .map(|value| Some((value.as_inline_table()? as &dyn TableLike, value.span())))
                .collect(),
            _ => None,
        };
        let Some(tables) = tables else {
            let remedy = format!("write `{}`, in double brackets: there may be several", header(name));
            let complaint = Complaint::wrong_type("an array of tables", item.type_name(), &remedy);
            self.complain(&self.place_of(key), complaint);
            return Vec::new();
        };
        let open = |(index, (table, span)): (usize, (&'a dyn TableLike, Option<_>))| {
            let path = format!("{}[{index}]{}", self.path_of(key), quoted_name(table));
            let span = span.unwrap_or_else(|| self.place.span.clone());
            Section::open(name, Place { path, span }, Some(table), self.sink)
        };
        tables.into_iter().enumerate().map(open).collect()
    }

    fn item(&self, key: &str) -> Option<&'a Item> {
        debug_assert!(keys_of(self.name).contains(&key), "{key} is not in SECTIONS under {:?}", self.name);
        self.table?.get(key)
    }

    fn path_of(&self, key: &str) -> String {
        if self.place.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.place.path) }
    }

    /// Where a key's value stands; where its section stands if the key is absent.
    pub(super) fn place_of(&self, key: &str) -> Place {
        let span = self.table.and_then(|table| table.get_key_value(key)).and_then(|(key, item)| match item {
            Item::Value(value) => value.span(),
            _ => item.span().or_else(|| key.span()),
        });
        Place { path: self.path_of(key), span: span.unwrap_or_else(|| self.place.span.clone()) }
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

    fn report_unknown(&self, key: &str, item: &Item) {
        let span = self.table.and_then(|table| table.get_key_value(key)).and_then(|(key, _)| key.span());
        let span = span.or_else(|| item.span()).unwrap_or_else(|| self.place.span.clone());
        let place = Place { path: self.path_of(key), span };
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

/// ` "web"` for a table with such a name, so that a person need not count.
fn quoted_name(table: &dyn TableLike) -> String {
    let name = table.get("name").and_then(Item::as_str);
    let fit = |name: &&str| {
        name.len() <= limits::NAME_LENGTH_MAX && !name.contains(|c: char| c.is_control() || c == '"')
    };
    name.filter(fit).map_or_else(String::new, |name| format!(" \"{name}\""))
}
