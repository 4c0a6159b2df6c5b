//! `[[policy]]`, `[[set]]` and `[[policy_default]]`: what is let through.

use super::Tenant;
use super::fault::{At, Place, Sink};
use super::network::{check_unique, find_name, tenant_id};
use super::reader::Section;
use super::values::{
    Complaint, Value, boolean, choice, destination, host, integer, name, port_range, string,
};
use crate::addr::Prefix;
use crate::ids::TenantId;
use crate::limits;
use crate::policy::{
    Action, ByWay, Defaults, IcmpTypes, Matches, Opening, PortRange, Source, Statement, Way,
};
use foldhash::fast::FixedState;
use std::collections::HashMap;
use std::sync::Arc;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

/// The three sections as read.
pub(super) struct RawPolicy {
    rules: Vec<RawRule>,
    sets: Vec<RawSet>,
    defaults: Vec<RawDefault>,
}

struct RawRule {
    place: Place,
    name: Option<At<String>>,
    action: Option<At<Action>>,
    log: bool,
    tenant: Option<At<String>>,
    way: Option<Way>,
    from: Option<Vec<At<Addresses>>>,
    to: Option<Vec<At<Addresses>>>,
    protocol: Option<At<Option<u8>>>,
    from_ports: Option<Vec<At<PortRange>>>,
    ports: Option<Vec<At<PortRange>>>,
    icmp: Option<Vec<At<IcmpTypes>>>,
    opening: Option<At<Opening>>,
}

struct RawSet {
    place: Place,
    name: Option<At<String>>,
    prefixes: Vec<At<Prefix>>,
}

struct RawDefault {
    place: Place,
    tenant: Option<At<String>>,
    by_way: [Option<Action>; 2],
}

/// One element of `from` or `to`.
enum Addresses {
    Prefix(Prefix),
    Set(String),
}

pub(super) fn read(root: &Section<'_>) -> RawPolicy {
    RawPolicy {
        rules: root.tables("policy", "policy").iter().map(read_rule).collect(),
        sets: root.tables("set", "set").iter().map(read_set).collect(),
        defaults: root.tables("policy_default", "policy_default").iter().map(read_default).collect(),
    }
}

fn actions() -> impl Fn(&Value<'_>) -> Result<Action, Complaint> {
    let words = Action::ALL.map(|action| (action.name(), action));
    move |value| choice(&words)(value)
}

fn read_rule(section: &Section<'_>) -> RawRule {
    let ways = [("ingress", Way::Ingress), ("egress", Way::Egress)];
    let openings = [("new", Opening::New), ("midstream", Opening::Midstream)];
    RawRule {
        place: section.place.clone(),
        name: section.optional("name", name),
        action: section.required("action", "\"deny\"", actions()),
        log: section.default("log", false, boolean),
        tenant: section.optional("tenant", name),
        way: section.optional("direction", choice(&ways)).map(|at| at.value),
        from: section.list("from", addresses),
        to: section.list("to", addresses),
        protocol: section.optional("protocol", protocol),
        from_ports: section.list("from_ports", port_range),
        ports: section.list("ports", port_range),
        icmp: section.list("icmp_types", icmp_types),
        opening: section.optional("state", choice(&openings)),
    }
}

fn read_set(section: &Section<'_>) -> RawSet {
    RawSet {
        place: section.place.clone(),
        name: section.required("name", "\"offices\"", name),
        prefixes: section.required_list("prefixes", "[\"198.51.100.0/24\"]", prefix).unwrap_or_default(),
    }
}

fn read_default(section: &Section<'_>) -> RawDefault {
    let action = |key| section.optional(key, actions()).map(|at| at.value);
    RawDefault {
        place: section.place.clone(),
        tenant: section.optional("tenant", name),
        by_way: [action("ingress"), action("egress")],
    }
}

/// A prefix, or an address for the prefix that holds it alone.
fn prefix(value: &Value<'_>) -> Result<Prefix, Complaint> {
    if string(value)?.contains('/') {
        return destination(value);
    }
    let address = host(value)?;
    Ok(Prefix { address, length: if address.is_v4() { 32 } else { 128 } })
}

fn addresses(value: &Value<'_>) -> Result<Addresses, Complaint> {
    match string(value)?.strip_prefix('@') {
        Some(set) => Ok(Addresses::Set(set.to_owned())),
        None => prefix(value).map(Addresses::Prefix),
    }
}

/// `None` is any.
fn protocol(value: &Value<'_>) -> Result<Option<u8>, Complaint> {
    if value.is_integer() {
        return integer(0..=255)(value).map(Some);
    }
    let words = [
        ("tcp", Some(TCP)),
        ("udp", Some(UDP)),
        ("icmp", Some(ICMP)),
        ("icmpv6", Some(ICMPV6)),
        ("any", None),
    ];
    choice(&words)(value)
}

/// A type, `8`, or a type and a code, `"3/4"`.
fn icmp_types(value: &Value<'_>) -> Result<IcmpTypes, Complaint> {
    let remedy = "give a type from 0 to 255, or a type and a code like \"3/4\"";
    if value.is_integer() {
        return Ok(IcmpTypes { kind: integer(0..=255)(value)?, code: None });
    }
    let text =
        value.as_str().ok_or_else(|| Complaint::wrong_type("an ICMP type", value.type_str(), remedy))?;
    let (kind, code) = text.split_once('/').map_or((text, None), |(kind, code)| (kind, Some(code)));
    let number = |text: &str| {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u8>().ok().filter(|_| digits)
    };
    let parsed = number(kind).zip(code.map_or(Some(None), |code| number(code).map(Some)));
    let refuse = || Complaint::new(format!("{text:?} is not an ICMP type"), remedy);
    parsed.map(|(kind, code)| IcmpTypes { kind, code }).ok_or_else(refuse)
}

/// The prefixes of each set, by its name.
type Sets = Vec<(String, Arc<[Prefix]>)>;

/// The rules and defaults that are complete; all of them unless an error was reported.
pub(super) fn source(raw: &RawPolicy, tenants: &[Tenant], sink: &Sink<'_>) -> Source {
    check_totals(raw, sink);
    let names = raw.rules.iter().filter_map(|rule| rule.name.as_ref());
    check_unique(names, "the name of a rule", "give each rule a name of its own, or none", sink);
    let sets = sets(&raw.sets, sink);
    let built: Vec<(&RawRule, Option<Statement>)> =
        raw.rules.iter().map(|rule| (rule, statement(rule, &sets, tenants, sink))).collect();
    check_shadowed(&built, sink);
    Source {
        rules: built.into_iter().filter_map(|(_, statement)| statement).collect(),
        defaults: defaults(&raw.defaults, tenants, sink),
    }
}

fn check_totals(raw: &RawPolicy, sink: &Sink<'_>) {
    if let Some(excess) = raw.rules.get(limits::RULES_MAX) {
        let remedy =
            format!("have at most {}; one rule with a [[set]] can stand for many", limits::RULES_MAX);
        sink.error(&excess.place, "too many policy rules", remedy);
    }
    if let Some(excess) = raw.sets.get(limits::SETS_MAX) {
        sink.error(&excess.place, "too many sets", format!("have at most {}", limits::SETS_MAX));
    }
}

fn sets(raw: &[RawSet], sink: &Sink<'_>) -> Sets {
    let names = raw.iter().filter_map(|set| set.name.as_ref());
    check_unique(names, "the name of a set", "give each set a name of its own", sink);
    let set = |set: &RawSet| {
        if set.prefixes.len() > limits::SET_PREFIXES_MAX {
            let message = format!("{} prefixes are too many", set.prefixes.len());
            let remedy = format!("have at most {} in a set", limits::SET_PREFIXES_MAX);
            sink.error(&set.place, message, remedy);
        }
        let name = set.name.as_ref().map_or_else(String::new, |name| name.value.clone());
        (name, canonical(set.prefixes.iter().map(|at| at.value).collect()))
    };
    raw.iter().map(set).collect()
}

/// The same addresses by the fewest prefixes of these, in order: so that lists that differ in nothing
/// that matters are equal.
fn canonical(mut prefixes: Vec<Prefix>) -> Arc<[Prefix]> {
    prefixes.sort_by_key(|prefix| (!prefix.address.is_v4(), prefix.address, prefix.length));
    let mut kept: Vec<Prefix> = Vec::with_capacity(prefixes.len());
    for prefix in prefixes {
        if !kept.last().is_some_and(|last| last.length <= prefix.length && last.contains(prefix.address)) {
            kept.push(prefix);
        }
    }
    kept.into()
}

fn statement(raw: &RawRule, sets: &Sets, tenants: &[Tenant], sink: &Sink<'_>) -> Option<Statement> {
    check_lists(raw, sink);
    check_protocol(raw, sink);
    let tenant = raw.tenant.as_ref().map(|name| tenant_id(Some(name), tenants, sink));
    let from = prefixes(raw.from.as_deref(), sets, sink);
    let to = prefixes(raw.to.as_deref(), sets, sink);
    check_families(raw, from.as_deref(), to.as_deref(), sink);
    Some(Statement {
        name: raw.name.as_ref().map(|name| name.value.clone()),
        line: sink.line(&raw.place),
        action: raw.action.as_ref()?.value,
        log: raw.log,
        matches: Matches {
            tenant,
            way: raw.way,
            from,
            to,
            protocol: raw.protocol.as_ref().and_then(|protocol| protocol.value),
            from_ports: values(raw.from_ports.as_deref()),
            ports: values(raw.ports.as_deref()),
            icmp: values(raw.icmp.as_deref()),
            opening: raw.opening.as_ref().map(|opening| opening.value),
        },
    })
}

fn values<T: Clone>(list: Option<&[At<T>]>) -> Vec<T> {
    list.into_iter().flatten().map(|at| at.value.clone()).collect()
}

fn prefixes(list: Option<&[At<Addresses>]>, sets: &Sets, sink: &Sink<'_>) -> Option<Arc<[Prefix]>> {
    let list = list?;
    let find = |at: &At<Addresses>, set: &str| {
        let name = At { value: set.to_owned(), place: at.place.clone() };
        let known = sets.iter().map(|(name, _)| name.as_str());
        find_name(&name, "set", known, sink).and_then(|index| sets.get(usize::from(index)))
    };
    if let [at @ At { value: Addresses::Set(set), .. }] = list {
        return Some(find(at, set).map_or_else(|| Arc::from([]), |(_, prefixes)| Arc::clone(prefixes)));
    }
    let mut all = Vec::new();
    for at in list {
        match &at.value {
            Addresses::Prefix(prefix) => all.push(*prefix),
            Addresses::Set(set) => all.extend(find(at, set).iter().flat_map(|(_, prefixes)| prefixes.iter())),
        }
    }
    Some(canonical(all))
}

/// A list that is written and empty is a rule that never matches.
fn check_lists(raw: &RawRule, sink: &Sink<'_>) {
    fn long<T>(list: Option<&Vec<T>>) -> Option<usize> {
        list.map(Vec::len)
    }
    let lists = [
        ("from", long(raw.from.as_ref()), limits::SET_PREFIXES_MAX),
        ("to", long(raw.to.as_ref()), limits::SET_PREFIXES_MAX),
        ("from_ports", long(raw.from_ports.as_ref()), limits::PORT_RANGES_MAX),
        ("ports", long(raw.ports.as_ref()), limits::PORT_RANGES_MAX),
        ("icmp_types", long(raw.icmp.as_ref()), limits::PORT_RANGES_MAX),
    ];
    for (key, length, most) in lists {
        let place = || raw.place.key(key);
        if length == Some(0) && !sink.has_errors_in(&place().path) {
            let remedy = "fill it, or leave the key out for any";
            sink.error(&place(), "is empty, so the rule never matches", remedy);
        } else if length.is_some_and(|length| length > most) {
            sink.error(&place(), "is too long", format!("list at most {most}, or split the rule"));
        }
    }
}

fn check_protocol(raw: &RawRule, sink: &Sink<'_>) {
    let protocol = raw.protocol.as_ref().and_then(|at| at.value);
    let (ported, spoken) = ([TCP, UDP], [ICMP, ICMPV6]);
    let ports = raw.from_ports.iter().chain(&raw.ports).flatten().next();
    if let Some(port) = ports.filter(|_| protocol.is_some_and(|protocol| !ported.contains(&protocol))) {
        let remedy = "remove the ports, or set protocol to \"tcp\", \"udp\" or \"any\"";
        sink.error(&port.place, "only TCP and UDP have ports", remedy);
    }
    let types = raw.icmp.iter().flatten().next();
    if let Some(types) = types.filter(|_| protocol.is_none_or(|protocol| !spoken.contains(&protocol))) {
        let remedy = "set protocol to \"icmp\" or \"icmpv6\": the same number means another message in each";
        sink.error(&types.place, "only ICMP messages have such types", remedy);
    }
    let midstream = raw.opening.as_ref().filter(|at| at.value == Opening::Midstream);
    if let Some(at) = midstream.filter(|_| protocol.is_some_and(|protocol| protocol != TCP)) {
        sink.warning(&at.place, "only TCP connections are found midstream", "set protocol to \"tcp\"");
    }
}

fn check_families(raw: &RawRule, from: Option<&[Prefix]>, to: Option<&[Prefix]>, sink: &Sink<'_>) {
    let all = |list: Option<&[Prefix]>, v4: bool| {
        list.is_some_and(|list| !list.is_empty() && list.iter().all(|prefix| prefix.address.is_v4() == v4))
    };
    let protocol = raw.protocol.as_ref().and_then(|at| at.value);
    let needs = |v4: bool| protocol == Some(if v4 { ICMP } else { ICMPV6 });
    let mixed = |v4: bool| {
        let other = all(from, !v4) || all(to, !v4);
        other && (all(from, v4) || all(to, v4) || needs(v4))
    };
    if mixed(true) || mixed(false) {
        let remedy = "use addresses of one family, and icmp with IPv4, icmpv6 with IPv6";
        sink.warning(&raw.place, "asks for IPv4 and IPv6 at once, so it never matches", remedy);
    }
}

/// Rules that an earlier one leaves nothing to.
fn check_shadowed(built: &[(&RawRule, Option<Statement>)], sink: &Sink<'_>) {
    let mut seen: HashMap<&Matches, usize, FixedState> =
        HashMap::with_capacity_and_hasher(built.len(), FixedState::default());
    let any = Matches::default();
    for (raw, statement) in built {
        let Some(statement) = statement else { continue };
        match seen.get(&statement.matches).or_else(|| seen.get(&any)) {
            Some(line) => {
                let message = format!("is never asked: the rule on line {line} matches all of it");
                sink.warning(&raw.place, message, "remove it, or move it up");
            }
            None => drop(seen.insert(&statement.matches, statement.line)),
        }
    }
}

fn defaults(raw: &[RawDefault], tenants: &[Tenant], sink: &Sink<'_>) -> Defaults {
    let mut seen: HashMap<Option<TenantId>, &Place> = HashMap::new();
    let mut found: Vec<(Option<TenantId>, &RawDefault)> = Vec::new();
    for default in raw {
        let tenant = default.tenant.as_ref().map(|name| tenant_id(Some(name), tenants, sink));
        if let Some(first) = seen.insert(tenant, &default.place) {
            let message =
                format!("is a second default of the same; the first is on line {}", sink.line(first));
            sink.error(&default.place, message, "keep one for each tenant, and one without a tenant");
        }
        found.push((tenant, default));
    }
    let over = |default: &RawDefault, base: ByWay| {
        let [ingress, egress] = default.by_way;
        [ingress.unwrap_or(base[0]), egress.unwrap_or(base[1])]
    };
    let general = found.iter().find(|(tenant, _)| tenant.is_none());
    let all = general.map_or_else(ByWay::default, |(_, default)| over(default, ByWay::default()));
    let own = |(tenant, default): &(Option<TenantId>, &RawDefault)| Some(((*tenant)?, over(default, all)));
    let mut tenants: Vec<(TenantId, ByWay)> = found.iter().filter_map(own).collect();
    tenants.sort_by_key(|(tenant, _)| *tenant);
    Defaults { all, tenants }
}
