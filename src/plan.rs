//! What a change of the configuration changes, told in the file's own terms.
//!
//! The texts are compared and not what they mean: an operator knows the former, and no key can be forgotten.
//! Members of an array of tables are told apart by what names them (`name`, `address`, `to`), others by
//! their content. Whether the change can take effect is [`crate::reload`]'s business.

use crate::api::{Change, ChangeRow, KeyRow};
use std::collections::{BTreeMap, HashMap, HashSet};
use toml::{Table, Value};

/// What names a member of an array of tables: the first of these that it has.
const NAMES: [&str; 3] = ["name", "address", "to"];
/// Arrays whose order means something.
const ORDERED: [&str; 1] = ["policy"];

/// The differences between two configurations, in the order of their keys.
///
/// # Errors
///
/// If one of them is no TOML, or has numbers that nothing can hold where nobody reads them.
pub(crate) fn changes(old: &str, new: &str) -> Result<Vec<ChangeRow>, toml::de::Error> {
    let mut rows = Vec::new();
    compare_inner(&At::default(), &old.parse::<Table>()?, &new.parse::<Table>()?, &mut rows);
    Ok(rows)
}

/// What is in a list of changes, in a few words: `service: 1 changed; service backend: 2 added, 1 removed`.
pub(crate) fn summary(rows: &[ChangeRow]) -> String {
    let mut kinds: BTreeMap<&str, [usize; 4]> = BTreeMap::new();
    for row in rows {
        kinds.entry(&row.kind).or_default()[row.change as usize] += 1;
    }
    let counted = |(kind, counts): (&str, [usize; 4])| {
        let told = Change::ALL.iter().zip(counts).filter(|(_, count)| *count > 0);
        let told: Vec<String> = told.map(|(change, count)| format!("{count} {}", change.name())).collect();
        format!("{kind}: {}", told.join(", "))
    };
    let told: Vec<String> = kinds.into_iter().map(counted).collect();
    if told.is_empty() { "nothing has changed".to_owned() } else { told.join("; ") }
}

/// Where something is: `service "web" backend "10.0.0.3"`, of the kind `service backend`.
#[derive(Clone, Default)]
struct At {
    name: String,
    kind: String,
}

impl At {
    fn inside(&self, key: &str, name: Option<&str>) -> At {
        let join = |outer: &str, inner: String| {
            if outer.is_empty() { inner } else { format!("{outer} {inner}") }
        };
        let own = name.map_or_else(|| key.to_owned(), |name| format!("{key} \"{name}\""));
        At { name: join(&self.name, own), kind: join(&self.kind, key.to_owned()) }
    }

    fn row(&self, change: Change, keys: Vec<KeyRow>) -> ChangeRow {
        ChangeRow { change, kind: self.kind.clone(), name: self.name.clone(), keys }
    }
}

fn members(value: Option<&Value>) -> Option<Vec<&Table>> {
    let items = value?.as_array()?;
    (!items.is_empty()).then(|| items.iter().map(Value::as_table).collect::<Option<Vec<_>>>()).flatten()
}

/// Whether a value is told as something of its own, and not as a key of what it is in.
fn is_nested(value: &Value) -> bool {
    value.is_table() || members(Some(value)).is_some()
}

/// Compares the tables in two tables.
fn compare_inner(at: &At, old: &Table, new: &Table, rows: &mut Vec<ChangeRow>) {
    let none = Table::new();
    let keys = old.iter().chain(new.iter()).filter(|(_, value)| is_nested(value)).map(|(key, _)| key);
    let mut seen = HashSet::new();
    for key in keys.filter(|key| seen.insert(key.as_str())) {
        let (before, after) = (old.get(key), new.get(key));
        match (members(before), members(after)) {
            (None, None) => {
                let table = |value: Option<&Value>| value.and_then(Value::as_table).cloned();
                let pair = (table(before), table(after));
                let change = change_of(pair.0.is_some(), pair.1.is_some());
                let (before, after) = (pair.0.unwrap_or_default(), pair.1.unwrap_or_default());
                compare_table(&at.inside(key, None), change, &before, &after, rows);
            }
            (before, after) => {
                let (before, after) = (named(before), named(after));
                compare_members(at, key, &before, &after, &none, rows);
            }
        }
    }
}

fn change_of(before: bool, after: bool) -> Change {
    match (before, after) {
        (false, _) => Change::Added,
        (_, false) => Change::Removed,
        _ => Change::Changed,
    }
}

/// Each member with what names it; equal names are numbered.
fn named(members: Option<Vec<&Table>>) -> Vec<(String, &Table)> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let name = |member: &Table| {
        let named = NAMES.iter().find_map(|key| member.get(*key)?.as_str());
        named.map_or_else(|| inline(member), str::to_owned)
    };
    let number = |member| {
        let name = name(member);
        let count = seen.entry(name.clone()).or_default();
        *count += 1;
        (if *count > 1 { format!("{name} #{count}") } else { name }, member)
    };
    members.unwrap_or_default().into_iter().map(number).collect()
}

fn inline(table: &Table) -> String {
    let one = |(key, value): (&String, &Value)| format!("{key} = {value}");
    table.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn compare_members(
    at: &At,
    key: &str,
    before: &[(String, &Table)],
    after: &[(String, &Table)],
    none: &Table,
    rows: &mut Vec<ChangeRow>,
) {
    let old: HashMap<&str, &Table> = before.iter().map(|(name, member)| (name.as_str(), *member)).collect();
    let new: HashSet<&str> = after.iter().map(|(name, _)| name.as_str()).collect();
    for (name, member) in before.iter().filter(|(name, _)| !new.contains(name.as_str())) {
        compare_table(&at.inside(key, Some(name)), Change::Removed, member, none, rows);
    }
    for (name, member) in after {
        let found = old.get(name.as_str());
        let change = change_of(found.is_some(), true);
        compare_table(&at.inside(key, Some(name)), change, found.unwrap_or(&none), member, rows);
    }
    if ORDERED.contains(&key) {
        let moved = moved(before, after);
        rows.extend(moved.into_iter().map(|name| at.inside(key, Some(name)).row(Change::Moved, Vec::new())));
    }
}

/// Of the members that both have, those that others have overtaken: all but a longest run that is still in
/// order.
fn moved<'a>(before: &'a [(String, &Table)], after: &[(String, &Table)]) -> Vec<&'a str> {
    let position: HashMap<&str, usize> =
        before.iter().enumerate().map(|(index, (name, _))| (name.as_str(), index)).collect();
    let order: Vec<usize> =
        after.iter().filter_map(|(name, _)| position.get(name.as_str()).copied()).collect();
    // `tails[n]` ends a run of n + 1, `previous` leads back along it; both by index into `order`.
    let mut tails: Vec<usize> = Vec::new();
    let mut previous = vec![None; order.len()];
    for (index, value) in order.iter().enumerate() {
        let length = tails.partition_point(|&tail| order[tail] < *value);
        previous[index] = length.checked_sub(1).map(|shorter| tails[shorter]);
        if length == tails.len() { tails.push(index) } else { tails[length] = index }
    }
    let mut stayed = HashSet::new();
    let mut next = tails.last().copied();
    while let Some(index) = next {
        stayed.insert(order[index]);
        next = previous[index];
    }
    order.iter().filter(|value| !stayed.contains(value)).map(|&value| before[value].0.as_str()).collect()
}

/// Compares two tables' own keys, then what is in them.
fn compare_table(at: &At, change: Change, old: &Table, new: &Table, rows: &mut Vec<ChangeRow>) {
    let mut keys = Vec::new();
    let all = old.iter().chain(new.iter().filter(|(key, _)| !old.contains_key(key.as_str())));
    for (key, _) in all {
        let flat = |value: &&Value| !is_nested(value);
        let (before, after) = (old.get(key).filter(flat), new.get(key).filter(flat));
        if before != after {
            let text = |value: Option<&Value>| value.map(ToString::to_string);
            keys.push(KeyRow { key: key.clone(), old: text(before), new: text(after) });
        }
    }
    if change != Change::Changed || !keys.is_empty() {
        rows.push(at.row(change, keys));
    }
    compare_inner(at, old, new, rows);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OLD: &str = r#"
[maglev]
table_size = 251
[[policy]]
name = "a"
[[policy]]
action = "deny"
[[policy]]
name = "c"
[[service]]
name = "web"
mode = "nat"
[service.timeouts]
tcp_reset_s = 5
[[service.backend]]
address = "10.0.0.2"
weight = 1
[[service.backend]]
address = "10.0.0.3"
"#;

    fn told(old: &str, new: &str) -> Vec<String> {
        let key = |key: &KeyRow| {
            let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
            format!(" {}: {} > {}", key.key, text(&key.old), text(&key.new))
        };
        let row = |row: &ChangeRow| {
            let keys: String = row.keys.iter().map(key).collect();
            format!("{} {}{keys}", row.change.name(), row.name)
        };
        changes(old, new).expect("TOML").iter().map(row).collect()
    }

    #[test]
    fn changes_are_told_by_name_and_key() {
        assert!(changes(OLD, OLD).expect("TOML").is_empty());
        let new = OLD.replace("weight = 1", "weight = 2").replace("251", "65537").replace("s = 5", "s = 6");
        let expected = [
            "changed maglev table_size: 251 > 65537",
            "changed service \"web\" backend \"10.0.0.2\" weight: 1 > 2",
            "changed service \"web\" timeouts tcp_reset_s: 5 > 6",
        ];
        assert_eq!(told(OLD, &new), expected);
        assert_eq!(
            summary(&changes(OLD, &new).expect("TOML")),
            "maglev: 1 changed; service backend: 1 changed; service timeouts: 1 changed"
        );
    }

    #[test]
    fn what_comes_and_goes_is_told_with_all_it_has() {
        let more = format!("{OLD}[[service]]\nname = \"dns\"\n[[service.backend]]\naddress = \"10.0.0.9\"\n");
        let added = told(OLD, &more);
        let expected = [
            "added service \"dns\" name: - > \"dns\"",
            "added service \"dns\" backend \"10.0.0.9\" address: - > \"10.0.0.9\"",
        ];
        assert_eq!(added, expected);
        let removed = told(&more, OLD);
        assert_eq!(removed[0], "removed service \"dns\" name: \"dns\" > -");
        assert_eq!(
            summary(&changes(&more, OLD).expect("TOML")),
            "service: 1 removed; service backend: 1 removed"
        );
        assert_eq!(summary(&[]), "nothing has changed");
    }

    #[test]
    fn rules_without_a_name_are_told_by_their_content_and_order_matters() {
        let changed = told(OLD, &OLD.replace("\"deny\"", "\"reject\""));
        assert_eq!(changed.len(), 2);
        assert!(changed[0].starts_with("removed policy \"action = \"deny\"\""), "{changed:?}");
        let swapped = OLD.replace("\"a\"", "\"x\"").replace("\"c\"", "\"a\"").replace("\"x\"", "\"c\"");
        assert_eq!(told(OLD, &swapped).len(), 2, "two of three are out of order");
        assert!(told(OLD, &swapped).iter().all(|row| row.starts_with("moved policy")));
    }

    proptest! {
        /// Whoever is not moved is in order, and nobody is moved needlessly: moving one moves one.
        #[test]
        fn one_that_moves_is_one_that_moved(count in 2usize..30, from in 0usize..30, to in 0usize..30) {
            let (from, to) = (from % count, to % count);
            let names: Vec<String> = (0..count).map(|n| n.to_string()).collect();
            let mut shuffled = names.clone();
            let one = shuffled.remove(from);
            shuffled.insert(to, one);
            let table = Table::new();
            let list = |names: Vec<String>| names.into_iter().map(|name| (name, &table)).collect::<Vec<_>>();
            let (before, after) = (list(names), list(shuffled));
            prop_assert_eq!(moved(&before, &after).len(), usize::from(from != to));
        }
    }
}
