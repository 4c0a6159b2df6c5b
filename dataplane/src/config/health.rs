//! `[service.health]`: how a service's backends are checked.

use super::fault::Sink;
use super::reader::Section;
use super::values::{Complaint, Value, boolean, choice, integer, string, whole};
use crate::snapshot::OnRemove;
use core::ops::RangeInclusive;

/// Bytes of an HTTP path, of a host name, and of a datagram's payload, at most.
const TEXT_MAX: usize = 255;
/// Bytes of one label of a domain name (RFC 1035 §2.3.4).
const LABEL_MAX: usize = 63;

/// `[service.health]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Health {
    /// What is sent, and what is expected.
    pub probe: Probe,
    /// The backends' port that is probed; `None` is the one that they serve.
    pub port: Option<u16>,
    /// From the beginning of one probe to the beginning of the next, milliseconds.
    pub interval_ms: u32,
    /// How long an answer may take, milliseconds.
    pub timeout_ms: u32,
    /// Answers in a row after which a backend that was down is up.
    pub rise: u8,
    /// Failures in a row after which a backend is down.
    pub fall: u8,
    /// Whether a backend of which nothing is known yet takes new connections.
    pub initially_up: bool,
    /// Whether refused connections of clients count as failures.
    pub passive: bool,
    /// Below this share of backends that are up, health is ignored; also if none is.
    pub panic_percent: u8,
    /// Over what time a backend that comes back gets its full share of new connections, seconds.
    pub slow_start_s: u16,
    /// What becomes of the live connections of a backend that is down.
    pub on_down: OnRemove,
}

/// What is sent to a backend, and what is expected of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Probe {
    /// It accepts a TCP connection.
    Tcp,
    /// It answers a GET request.
    Http(Http),
    /// It does not answer a datagram by "port unreachable"; if this is not empty, it answers by another one.
    Udp(Vec<u8>),
    /// It answers a DNS question for the addresses of this name, whatever they are.
    Dns(String),
    /// It answers an echo request.
    Icmp,
}

/// A GET request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Http {
    /// What is asked for.
    pub path: String,
    /// The `Host` header; `None` is the address and port that are asked.
    pub host: Option<String>,
    /// The status codes of a backend that is well.
    pub expect: RangeInclusive<u16>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    None,
    Tcp,
    Http,
    Udp,
    Dns,
    Icmp,
}

/// Reads the section; `None` if it is absent, or says `none`.
pub(super) fn read(section: &Section<'_>, sink: &Sink<'_>) -> Option<Health> {
    if !section.is_present() {
        return None;
    }
    let kinds = [
        ("tcp", Kind::Tcp),
        ("http", Kind::Http),
        ("udp", Kind::Udp),
        ("dns", Kind::Dns),
        ("icmp", Kind::Icmp),
        ("none", Kind::None),
    ];
    let on_down = [("keep", OnRemove::Drain), ("reset", OnRemove::Reset)];
    let kind = section.required("type", "\"tcp\"", choice(&kinds)).map(|at| at.value);
    let interval = section.default("interval_ms", 250, integer(50..=3_600_000));
    let timeout = section.default_at("timeout_ms", 200.min(interval), integer(10..=60_000))?;
    if timeout.value > interval {
        let message = format!("{} is longer than the interval of {interval}", timeout.value);
        let remedy = "a backend has one probe at a time: give a longer interval_ms, or a shorter time-out";
        sink.error(&timeout.place, message, remedy);
    }
    let port = section.optional("port", integer(1..=65535)).map(|at| at.value);
    let probe = kind.and_then(|kind| read_probe(section, kind, sink));
    if probe == Some(Probe::Icmp) && port.is_some() {
        sink.warning(&section.place_of("port"), "has no effect on an echo request", "remove it");
    }
    Some(Health {
        port,
        interval_ms: interval,
        timeout_ms: timeout.value,
        rise: section.default("rise", 2, integer(1..=100)),
        fall: section.default("fall", 3, integer(1..=100)),
        initially_up: section.default("initial", true, choice(&[("up", true), ("down", false)])),
        passive: section.default("passive", false, boolean),
        panic_percent: section.default("panic_percent", 0, integer(0..=100)),
        slow_start_s: section.default("slow_start_s", 0, integer(0..=3600)),
        on_down: section.default("on_down", OnRemove::Drain, choice(&on_down)),
        probe: probe?,
    })
}

/// What is sent; keys of another kind are warned of.
fn read_probe(section: &Section<'_>, kind: Kind, sink: &Sink<'_>) -> Option<Probe> {
    let keys = [
        ("path", Kind::Http, "http"),
        ("host", Kind::Http, "http"),
        ("expect", Kind::Http, "http"),
        ("query", Kind::Dns, "dns"),
        ("payload", Kind::Udp, "udp"),
    ];
    for (key, of, name) in keys {
        if section.has(key) && of != kind {
            let message = format!("has an effect on type = \"{name}\" only");
            sink.warning(&section.place_of(key), message, "remove it");
        }
    }
    match kind {
        Kind::None => None,
        Kind::Tcp => Some(Probe::Tcp),
        Kind::Icmp => Some(Probe::Icmp),
        Kind::Udp => {
            let payload = section.optional("payload", text).map(|at| at.value.into_bytes());
            Some(Probe::Udp(payload.unwrap_or_default()))
        }
        Kind::Dns => section.required("query", "\"example.org\"", domain).map(|at| Probe::Dns(at.value)),
        Kind::Http => Some(Probe::Http(Http {
            path: section.default("path", "/".to_owned(), path),
            host: section.optional("host", word).map(|at| at.value),
            expect: section.default("expect", 200..=399, statuses),
        })),
    }
}

fn text(value: &Value<'_>) -> Result<String, Complaint> {
    let text = string(value)?;
    if text.len() > TEXT_MAX {
        return Err(Complaint::new(
            format!("{} bytes are too many", text.len()),
            format!("give at most {TEXT_MAX}"),
        ));
    }
    Ok(text.to_owned())
}

/// Printable characters without spaces: what may stand in a request line or header.
fn word(value: &Value<'_>) -> Result<String, Complaint> {
    let text = text(value)?;
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        let remedy = "use printable ASCII characters without spaces, others as %XX";
        return Err(Complaint::new(format!("{text:?} cannot stand in a request"), remedy));
    }
    Ok(text)
}

fn path(value: &Value<'_>) -> Result<String, Complaint> {
    let path = word(value)?;
    if path.starts_with('/') {
        return Ok(path);
    }
    Err(Complaint::new(format!("{path:?} is not a path"), format!("begin it with a slash: \"/{path}\"")))
}

fn domain(value: &Value<'_>) -> Result<String, Complaint> {
    let name = word(value)?;
    let labels = name.strip_suffix('.').unwrap_or(&name).split('.');
    if labels.clone().all(|label| (1..=LABEL_MAX).contains(&label.len())) && name.len() < TEXT_MAX {
        return Ok(name);
    }
    let remedy = format!("give a domain name: labels of 1 to {LABEL_MAX} characters, joined by dots");
    Err(Complaint::new(format!("{name:?} cannot be asked for"), remedy))
}

/// A status, or a range of them.
fn statuses(value: &Value<'_>) -> Result<RangeInclusive<u16>, Complaint> {
    let known = 100..=599;
    let parse = |text: &str| text.trim().parse::<u16>().ok().filter(|status| known.contains(status));
    let remedy = "give a status such as 204, or a range such as \"200-399\"";
    let range = match value {
        Value::Integer(_) => whole(value)
            .and_then(|number| u16::try_from(number).ok())
            .filter(|status| known.contains(status))
            .map(|status| status..=status),
        Value::String(text) => text
            .split_once('-')
            .and_then(|(first, last)| Some(parse(first)?..=parse(last)?))
            .filter(|range| !range.is_empty()),
        _ => return Err(Complaint::wrong_type("a status", value.type_str(), remedy)),
    };
    range.ok_or_else(|| Complaint::new("is not an HTTP status, nor a range of them", remedy))
}
