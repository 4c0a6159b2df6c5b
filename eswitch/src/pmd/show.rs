//! The device as text, a slice at a time, so that packets flow while someone reads.

use super::device::Switch;
use crate::model::profile::Profile;
use crate::model::refusal::Refusal;
use crate::model::switch::VportStatistics;
use crate::model::types::{RuleHandle, Vport};

/// Rules printed under one hold of the model's lock.
const SLICE: usize = 16;

/// Bytes of a telemetry page's rules: with JSON around them they fit an answer (16 KiB).
const PAGE_BYTES: usize = 9_000;

/// Rules of a page at most, so that its lines fit an answer's array (512).
const PAGE_RULES: usize = 96;

/// A page of a long list.
pub(super) struct Page {
    /// Ports, groups and matchers, on the first page.
    pub(super) tables: String,
    /// Rules.
    pub(super) rules: String,
    /// Where the next page begins.
    pub(super) next: Option<u32>,
}

/// Ports, groups and matchers.
fn overview(switch: &Switch) -> String {
    let mut text = format!("{}: profile {}\n", switch.name, switch.profile.name);
    // Writing into a string does not fail.
    let _ = switch.eswitch.lock().dump_tables(&mut text);
    text
}

/// Everything, in pieces.
pub(super) fn tables(switch: &Switch, write: &mut impl FnMut(&str)) {
    write(&overview(switch));
    let mut from = 0;
    let mut more = true;
    while more {
        let mut text = String::new();
        more = slice(switch, &mut from, &mut text);
        write(&text);
    }
}

/// Some rules; whether there are more.
fn slice(switch: &Switch, from: &mut u32, text: &mut String) -> bool {
    switch.eswitch.lock().dump_rules(switch.clock.now(), from, SLICE, text)
}

/// One rule.
///
/// # Errors
/// ENOENT for a stale handle.
pub(super) fn rule(switch: &Switch, port: Vport, handle: RuleHandle) -> Result<String, Refusal> {
    let mut text = String::new();
    switch.eswitch.lock().dump_handle(switch.clock.now(), port, handle, &mut text)?;
    Ok(text)
}

/// The page that begins with this slot.
pub(super) fn page(switch: &Switch, from: u32) -> Page {
    let tables = if from == 0 { overview(switch) } else { String::new() };
    let (mut rules, mut next, mut more) = (String::new(), from, true);
    let mut slices = 0;
    while more && rules.len() < PAGE_BYTES && slices < PAGE_RULES / SLICE {
        more = slice(switch, &mut next, &mut rules);
        // Empty slots make no lines.
        slices = rules.lines().count() / SLICE;
    }
    Page { tables, rules, next: more.then_some(next) }
}

/// What was counted at a vport, with names.
pub(super) fn counts(vport: &VportStatistics) -> [(&'static str, u64); 10] {
    [
        ("in_packets", vport.in_packets),
        ("in_bytes", vport.in_bytes),
        ("manager_packets", vport.manager_packets),
        ("manager_bytes", vport.manager_bytes),
        ("out_packets", vport.out_packets),
        ("out_bytes", vport.out_bytes),
        ("manager_default_packets", vport.manager_default_packets),
        ("miss_packets", vport.miss_packets),
        ("received_packets", vport.received_packets),
        ("hairpin_packets", vport.hairpin_packets),
    ]
}

/// A profile, key by key, one a line.
pub(super) fn profile(profile: &Profile) -> String {
    let debug = format!("{profile:#?}");
    let mut text = String::new();
    // Nested structures go on one line.
    for line in debug.lines().skip(1).filter(|line| *line != "}") {
        let nested = line.starts_with("        ") || line.starts_with("    }");
        if nested && text.ends_with('\n') {
            text.pop();
            text.push(' ');
        }
        text.push_str(line.trim());
        text.push('\n');
    }
    text
}

/// Cuts a line into pieces of at most `bytes` bytes, between words if it can; all but the first are indented.
pub(super) fn fold(line: &str, bytes: usize) -> impl Iterator<Item = String> {
    const INDENT: &str = "      ";
    let mut rest = line;
    let mut first = true;
    std::iter::from_fn(move || {
        if rest.is_empty() && !first {
            return None;
        }
        let indent = if first { "" } else { INDENT };
        first = false;
        let room = bytes.saturating_sub(indent.len()).max(4);
        let piece = if rest.len() <= room {
            rest
        } else {
            let end = (0..=room).rev().find(|at| rest.is_char_boundary(*at)).unwrap_or(rest.len());
            let end = rest[..end].rfind(' ').filter(|at| *at > 0).unwrap_or(end);
            &rest[..end]
        };
        rest = rest[piece.len()..].trim_start();
        Some(format!("{indent}{piece}"))
    })
}

#[cfg(test)]
mod tests {
    use super::fold;

    #[test]
    fn lines_are_cut_between_words() {
        let all = |line, bytes| fold(line, bytes).collect::<Vec<_>>();
        assert_eq!(all("short", 20), ["short"]);
        assert_eq!(all("", 20), [""]);
        assert_eq!(all("one two three four", 12), ["one two", "      three", "      four"]);
        assert_eq!(all("unbreakablyLongWord", 10), ["unbreakabl", "      yLon", "      gWor", "      d"]);
        assert_eq!(all("äöüäöü", 5), ["äö", "      üä", "      öü"]);
        for bytes in 11..40 {
            assert!(fold("a ab abc abcd abcdefghi äöüß", bytes).all(|piece| piece.len() <= bytes), "{bytes}");
        }
    }
}
