//! Patterns become masks and values over a [`Key`].
//!
//! [`lower`] does it for SWS, where each rule brings its masks; [`PatternTemplate`] for HWS, where the masks
//! are fixed beforehand and a rule brings values only. The two differ where mlx5 differs: in SWS a full
//! EtherType mask also says "untagged" and the EtherTypes of IP and of tags are not matched as such; in HWS a
//! fragment-offset mask other than 0x3fff is matched bit by bit.
//!
//! Where the model is stricter than mlx5: a transport in a pattern never matches fragments, even if it names
//! no port; a tunnel in a pattern only matches what the parser takes for that tunnel (VXLAN on port 4789).

use super::item::{Header, Item, Layer};
use super::key::layout::{self, stack};
use super::key::{Key, Match, TAGS};
use super::refusal::{Cause, Errno, Refusal};
use super::types::{Topology, Vport};
use place::{Walk, masked_elsewhere, scatter};

mod display;
mod place;
mod software;
mod template;
#[cfg(test)]
mod tests;

pub use display::Shown;
pub use template::PatternTemplate;

/// What a port item without `port_id` or with this id means to SWS: sent by the eSwitch manager.
const MANAGER_ID: u16 = u16::MAX;

/// Lowers a pattern of a rule of SWS.
///
/// `implicit_source`: where packets must come from if no item says so; `None`: anywhere.
///
/// # Errors
/// For a pattern that validation refuses, too: an item or a field that no key has (ENOTSUP), items in no
/// possible order or twice (EINVAL), an unknown port (EINVAL), a range other than IPv4's fragments (ENOTSUP).
pub fn lower(
    items: &[Item<'_>],
    topology: &Topology,
    implicit_source: Option<Vport>,
) -> Result<Match, Refusal> {
    software::lower(items, topology, implicit_source)
}

/// Matches packets from this vport; not those that its representor sends.
fn set_source(rule: &mut Match, source: Vport) {
    set(rule, layout::SHAPE, layout::SOURCE_MASK | layout::MANAGER, u64::from(source.0));
}

/// Matches packets from the eSwitch manager.
fn set_manager(rule: &mut Match) {
    free(rule, layout::SHAPE, layout::SOURCE_MASK);
    set(rule, layout::SHAPE, layout::MANAGER, layout::MANAGER);
}

/// Makes these bits of a word count, as `value` has them. The last word has it.
#[inline]
fn set(rule: &mut Match, word: usize, mask: u64, value: u64) {
    rule.mask.words[word] |= mask;
    rule.value.words[word] = rule.value.words[word] & !mask | value & mask;
}

/// Lets these bits of a word be anything.
#[inline]
fn free(rule: &mut Match, word: usize, mask: u64) {
    rule.mask.words[word] &= !mask;
    rule.value.words[word] &= !mask;
}
