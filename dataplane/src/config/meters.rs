//! `limit` of services and tenants: what a meter lets through.

use super::fault::{At, Sink};
use super::reader::Section;
use super::values::integer;
use crate::meter::Limit;

/// The keys of `[service.limit]`.
pub(super) const SERVICE_KEYS: &[&str] = &[
    "packets_per_second",
    "bits_per_second",
    "new_connections_per_second",
    "connections",
    "burst_ms",
    "excess_ms",
    "peak_packets_per_second",
    "peak_bits_per_second",
    "yellow_dscp",
];

/// The keys of `[tenant.limit]`.
pub(super) const TENANT_KEYS: &[&str] = &[
    "packets_per_second",
    "bits_per_second",
    "new_connections_per_second",
    "burst_ms",
    "excess_ms",
    "peak_packets_per_second",
    "peak_bits_per_second",
    "yellow_dscp",
];

const PACKETS_MAX: i64 = 10_000_000_000;
const BITS_MAX: i64 = 10_000_000_000_000;
/// A byte rate is kept in whole bytes, which must not be far from what was asked for.
const BITS_MIN: i64 = 8_000;
const BURST_MS_MAX: i64 = 10_000;

/// What is limited of a service, if anything.
pub(super) fn of_service(section: &Section<'_>, sink: &Sink<'_>) -> Option<Limit> {
    let connections = section.optional("connections", integer::<u64>(1..=PACKETS_MAX));
    read(section, value(&connections), sink)
}

/// What is limited of a tenant, if anything.
pub(super) fn of_tenant(section: &Section<'_>, sink: &Sink<'_>) -> Option<Limit> {
    read(section, None, sink)
}

fn read(section: &Section<'_>, connections: Option<u64>, sink: &Sink<'_>) -> Option<Limit> {
    if !section.is_present() {
        return None;
    }
    let packets = |key| section.optional(key, integer::<u64>(1..=PACKETS_MAX));
    let bits = |key| section.optional(key, integer::<u64>(BITS_MIN..=BITS_MAX));
    let of_packets = (packets("packets_per_second"), packets("peak_packets_per_second"));
    let of_bits = (bits("bits_per_second"), bits("peak_bits_per_second"));
    let excess = section.optional("excess_ms", integer::<u32>(1..=BURST_MS_MAX));
    let dscp = section.optional("yellow_dscp", integer::<u8>(0..=63));
    let limit = Limit {
        packets_per_second: value(&of_packets.0),
        bits_per_second: value(&of_bits.0),
        new_connections_per_second: value(&packets("new_connections_per_second")),
        connections,
        burst_ms: section.default("burst_ms", Limit::BURST_MS, integer(1..=BURST_MS_MAX)),
        excess_ms: value(&excess),
        peak_packets_per_second: value(&of_packets.1),
        peak_bits_per_second: value(&of_bits.1),
        yellow_dscp: value(&dscp),
    };
    check_peak(&of_packets, "packets_per_second", sink);
    check_peak(&of_bits, "bits_per_second", sink);
    let peak = of_packets.1.is_some() || of_bits.1.is_some();
    if let Some(excess) = excess.as_ref().filter(|_| peak) {
        let remedy = "remove one of them: peak_… allows a second rate (RFC 2698), excess_ms what the first \
                      one left unused (RFC 2697)";
        sink.error(&excess.place, "excess_ms and peak_… are two ways to say what is yellow", remedy);
    }
    if let Some(excess) = excess.as_ref().filter(|_| !limit.has_rates()) {
        let remedy = "add packets_per_second or bits_per_second";
        sink.error(&excess.place, "there is no rate that could be exceeded", remedy);
    }
    if let Some(dscp) = dscp.as_ref().filter(|_| excess.is_none() && !peak) {
        sink.error(&dscp.place, "no packet is ever yellow", "add excess_ms or peak_…, or remove yellow_dscp");
    }
    check_some(section, &limit, sink);
    Some(limit)
}

fn value<T: Copy>(at: &Option<At<T>>) -> Option<T> {
    at.as_ref().map(|at| at.value)
}

/// A peak rate is one beyond another rate of its kind.
fn check_peak((rate, peak): &(Option<At<u64>>, Option<At<u64>>), key: &str, sink: &Sink<'_>) {
    let Some(peak) = peak else { return };
    let remedy = format!("set {key} to the rate that is green, and peak_{key} to a higher one");
    match rate {
        None => sink.error(&peak.place, format!("there is no {key} below it"), remedy),
        Some(rate) if rate.value > peak.value => {
            sink.error(&peak.place, format!("is below {key}, which is {}", rate.value), remedy);
        }
        Some(_) => {}
    }
}

fn check_some(section: &Section<'_>, limit: &Limit, sink: &Sink<'_>) {
    let limits = [limit.new_connections_per_second, limit.connections];
    let has_any = limit.has_rates() || limits.iter().any(Option::is_some);
    if !has_any && !sink.has_errors_in(&section.place.path) {
        let remedy =
            "add packets_per_second, bits_per_second or new_connections_per_second, or remove the table";
        sink.error(&section.place, "limits nothing", remedy);
    }
}
