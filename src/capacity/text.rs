//! A plan as text for people. Machines take `--json`.

use super::limits::PartitionNeeds;
use super::{Limit, Plan, Verdict};
use crate::output::Table;
use std::fmt::Write as _;

/// Limits shown for each profile.
const LIMITS: usize = 10;

/// The whole page.
pub(super) fn render(plan: &Plan) -> String {
    let mut text = format!("{}: {}\n", plan.configuration, totals(plan));
    for said in &plan.traffic.said {
        let _ = writeln!(text, "  {said}");
    }
    if plan.profiles.len() > 1 {
        let _ = write!(text, "\n{}", side_by_side(plan));
    }
    for verdict in &plan.profiles {
        let _ = write!(text, "\n{}", one(verdict));
    }
    text
}

fn totals(plan: &Plan) -> String {
    let connections = amount(plan.traffic.connections());
    format!(
        "planned for {connections} connections, {} new ones a second",
        amount(plan.traffic.new_per_second())
    )
}

/// The profiles, one beside the other.
fn side_by_side(plan: &Plan) -> String {
    let titles = &[
        "PROFILE",
        ">OFFLOADED",
        ">RULES",
        ">INSERTIONS/S",
        ">MASKS",
        "FIRST LIMIT",
        "REACHED AT",
        "VERDICT",
    ];
    let mut table = Table::new(titles);
    for verdict in &plan.profiles {
        let offloaded = verdict.services.iter().filter(|row| row.verdict == "hardware").count();
        table.row([
            verdict.profile.clone(),
            format!("{offloaded} of {}", verdict.services.len()),
            amount(
                verdict.needs.rules + verdict.partitions.as_ref().map_or(0.0, |parted| parted.rules as f64),
            ),
            amount(verdict.needs.insertions_per_second),
            verdict.needs.masks.to_string(),
            verdict.first_limit.as_ref().map_or("none".into(), |limit| limit.limit.clone()),
            verdict.first_limit.as_ref().map_or(String::new(), reached),
            word(verdict).into(),
        ]);
    }
    table.render("")
}

fn word(verdict: &Verdict) -> &'static str {
    if verdict.fits { "fits" } else { "exceeded" }
}

fn one(verdict: &Verdict) -> String {
    let mut text = format!("{}: {} (MODEL)\n", verdict.profile, verdict.summary);
    for note in &verdict.notes {
        let _ = writeln!(text, "  {note}");
    }
    let titles = &[
        "SERVICE",
        "MODE",
        "WHERE",
        "DIRECTIONS",
        ">RULES",
        ">ENCAP",
        ">IN HARDWARE",
        ">INSERTIONS/S",
        "WHY",
    ];
    let mut services = Table::new(titles);
    for row in &verdict.services {
        services.row([
            row.service.clone(),
            row.mode.clone(),
            row.verdict.into(),
            row.directions.join("+"),
            match row.partitions {
                Some(parted) => format!("{} in all", parted.rules),
                None => row.rules_per_connection.to_string(),
            },
            if row.encap_bytes > 0 { format!("{} B", row.encap_bytes) } else { "-".into() },
            row.partitions.map_or_else(|| amount(row.connections_in_hardware), |_| "-".into()),
            row.partitions.map_or_else(|| amount(row.insertions_per_second), |_| "-".into()),
            row.text.clone(),
        ]);
    }
    let _ = write!(text, "\n{}\n{}", services.render("no services"), needs(verdict));
    let mut limits = Table::new(&["LIMIT", "OF", ">NEEDED", ">THERE IS", "UNIT", ">LEFT", "REACHED AT"]);
    for limit in verdict.limits.iter().take(LIMITS) {
        limits.row([
            limit.limit.clone(),
            limit.of.into(),
            amount(limit.need),
            amount(limit.room),
            limit.unit.into(),
            format!("{:.0} %", limit.headroom_percent.max(-999.0)),
            reached(limit),
        ]);
    }
    let _ = write!(text, "\n{}\n{}", limits.render("nothing is needed"), conclusion(verdict));
    text
}

fn needs(verdict: &Verdict) -> String {
    let needs = &verdict.needs;
    format!(
        "hardware:   {} connections, {} rules and {} that lead to them; {} groups, {} masks, {} templates of actions; \
         {} counters, {} ages, {} meters, {} tunnel headers; {} insertions/s\n\
         {}\
         packets:    {}/s in hardware, {}/s in software\n",
        amount(needs.connections),
        amount(needs.rules),
        needs.base_rules,
        needs.groups,
        needs.masks,
        needs.templates,
        amount(needs.counters),
        amount(needs.ages),
        needs.meters,
        amount(needs.encapsulations),
        amount(needs.insertions_per_second),
        verdict.partitions.as_ref().map(partitions).unwrap_or_default(),
        amount(needs.hardware_packets_per_second),
        amount(needs.software_packets_per_second),
    )
}

fn partitions(needs: &PartitionNeeds) -> String {
    format!(
        "partitions: {} rules, {} counters; {} of the groups, {} of the masks, {} of the templates; {} insertions at \
         the start, {} ms; of partitions alone the first limit is {}, at {} rules ({:.0} % left)\n",
        needs.rules,
        needs.counters,
        needs.groups,
        needs.masks,
        needs.templates,
        needs.insertions_at_start,
        amount(needs.start_ms),
        needs.first_limit,
        amount(needs.rules_max),
        needs.headroom_percent.max(-999.0),
    )
}

fn conclusion(verdict: &Verdict) -> String {
    match &verdict.first_limit {
        None if verdict.limits.is_empty() => "no limit in sight\n".into(),
        None => "fits, whatever the traffic\n".into(),
        Some(limit) if verdict.fits => {
            format!("fits; the first limit is {}, {}: {}\n", limit.limit, reached(limit), limit.remedy)
        }
        Some(limit) => {
            format!("EXCEEDED; the first limit is {}, {}: {}\n", limit.limit, reached(limit), limit.remedy)
        }
    }
}

fn reached(limit: &Limit) -> String {
    match limit.reached {
        None => "whatever the traffic".into(),
        Some(reached) if reached.times == 0.0 => "its first connection".into(),
        Some(reached) => format!(
            "{} connections, {} new/s (x{})",
            amount(reached.connections),
            amount(reached.new_per_second),
            amount(reached.times)
        ),
    }
}

/// A number with as many digits as mean something.
fn amount(value: f64) -> String {
    let scaled = |divisor: f64, unit: &str| format!("{}{unit}", digits(value / divisor));
    match value.abs() {
        size if size >= 999_500_000.0 => scaled(1e9, "G"),
        size if size >= 999_500.0 => scaled(1e6, "M"),
        size if size >= 9_999.5 => scaled(1e3, "k"),
        _ => digits(value),
    }
}

fn digits(value: f64) -> String {
    match value.abs() {
        size if size >= 99.95 || value == value.round() => format!("{value:.0}"),
        size if size >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
