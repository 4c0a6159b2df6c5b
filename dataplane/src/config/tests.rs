//! The reader, its table of keys and the documentation say the same.

use super::reader::SECTIONS;
use super::*;
use std::collections::{BTreeMap, BTreeSet};
use toml::de::DeTable;

const DOCUMENTATION: &str = include_str!("../../../docs/configuration.md");

/// Every key there is, with values that differ from the defaults.
const EVERY_KEY: &str = include_str!("../../tests/config/every-key.toml");

/// The documented keys: section, key, default.
fn documented() -> Vec<(String, String, String)> {
    let mut section = String::new();
    let mut found = Vec::new();
    for line in DOCUMENTATION.lines() {
        if let Some(header) =
            line.strip_prefix("##").and_then(|rest| rest.trim_matches(['#', ' ']).strip_prefix("`["))
        {
            section = header.trim_matches(['[', ']', '`']).to_owned();
        } else if let Some(row) = line.strip_prefix("| `") {
            let cells: Vec<&str> = row.split(" | ").collect();
            assert_eq!(cells.len(), 4, "{line}");
            found.push((section.clone(), cells[0].trim_matches('`').to_owned(), cells[2].to_owned()));
        }
    }
    found
}

fn parse(text: &str) -> Config {
    Config::parse("test.toml", text).unwrap_or_else(|faults| panic!("{faults}"))
}

#[test]
fn the_documentation_lists_exactly_the_keys_there_are() {
    let documented: BTreeSet<(String, String)> =
        documented().into_iter().map(|(section, key, _)| (section, key)).collect();
    let is_section =
        |section: &str, key: &str| SECTIONS.iter().any(|(name, _)| *name == format!("{section}.{key}"));
    let known: BTreeSet<(String, String)> = SECTIONS
        .iter()
        .filter(|(section, _)| !section.is_empty())
        .flat_map(|(section, keys)| keys.iter().map(move |key| (*section, *key)))
        .filter(|(section, key)| !is_section(section, key))
        .map(|(section, key)| (section.to_owned(), key.to_owned()))
        .collect();
    assert_eq!(documented, known);
}

#[test]
fn every_section_is_a_key_of_the_one_above_it() {
    for (name, _) in SECTIONS.iter().filter(|(name, _)| !name.is_empty()) {
        let (parent, key) = name.rsplit_once('.').unwrap_or(("", name));
        let (_, keys) = SECTIONS.iter().find(|(name, _)| *name == parent).expect("a parent");
        assert!(keys.contains(&key), "{name}");
    }
}

/// Writes each documented default into the file: nothing may change.
#[test]
fn documented_defaults_are_the_defaults() {
    let minimal = "[[port]]\nname = \"p\"\ndevice = \"d\"\naddresses = [\"10.0.0.1/24\"]\n#port\n\
                   [[service]]\nname = \"s\"\nvip = \"192.0.2.1\"\nprotocol = \"tcp\"\nports = [80]\n#service\n\
                   [service.health]\ntype = \"http\"\n#service.health\n\
                   [[service.backend]]\naddress = \"10.0.0.2\"\n#service.backend\n\
                   [[policy]]\naction = \"deny\"\n#policy\n\
                   [[service]]\nname = \"t\"\nvip = \"192.0.2.1\"\nprotocol = \"tcp\"\nports = [81]\n\
                   mode = \"gue\"\n[service.tunnel]\n#service.tunnel\n";
    let expected = parse(minimal);
    let mut checked = 0;
    for (section, key, default) in documented() {
        let literal = default.trim_matches('`');
        if literal == default || literal == "[timeouts]" || key == "tenant" || key == "addresses" {
            continue;
        }
        let setting = format!("{key} = {literal}\n");
        let marker = format!("#{section}\n");
        let text = match minimal.contains(&marker) {
            true => minimal.replace(&marker, &setting),
            false => format!("[{section}]\n{setting}{minimal}"),
        };
        let mut config = Config { warnings: expected.warnings.clone(), ..parse(&text) };
        // The setting has moved it down.
        for (rule, expected) in config.policy.rules.iter_mut().zip(&expected.policy.rules) {
            rule.line = expected.line;
        }
        assert_eq!(config, expected, "{section}.{key} = {literal}");
        checked += 1;
    }
    assert!(checked > 30, "{checked}");
}

/// The leaves of a parsed file by section name, each with the byte range of its value.
fn leaves(
    section: &str,
    table: &DeTable<'_>,
    into: &mut BTreeMap<(String, String), core::ops::Range<usize>>,
) {
    for (key, item) in table {
        let key = key.get_ref();
        let name = if section.is_empty() { key.to_string() } else { format!("{section}.{key}") };
        let members = item.get_ref().as_array().into_iter().flat_map(|array| array.iter());
        let mut tables = members.chain([item]).filter_map(|value| value.get_ref().as_table()).peekable();
        if tables.peek().is_none() {
            into.insert((section.to_owned(), key.to_string()), item.span());
        }
        tables.for_each(|table| leaves(&name, table, into));
    }
}

/// A key that is known but not read would be ignored in silence.
#[test]
fn every_known_key_is_read() {
    parse(EVERY_KEY);
    let document = DeTable::parse(EVERY_KEY).expect("TOML");
    let mut leaf = BTreeMap::new();
    leaves("", document.get_ref(), &mut leaf);
    let documented: BTreeSet<_> = documented().into_iter().map(|(section, key, _)| (section, key)).collect();
    assert_eq!(leaf.keys().cloned().collect::<BTreeSet<_>>(), documented);
    for ((section, key), span) in leaf {
        let mut text = EVERY_KEY.to_owned();
        text.replace_range(span, "1979-05-27");
        let faults = Config::parse("test.toml", &text).expect_err("a date is nowhere right");
        let at_key =
            |fault: &Fault| fault.path.ends_with(&format!(".{key}")) && fault.message.starts_with("expected");
        assert!(faults.faults.iter().any(at_key), "{section}.{key}:\n{faults}");
    }
}
