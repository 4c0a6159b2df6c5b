//! HWS: `mlx5dr_definer.c`.

use super::place::{HEADER_MAX, Place, present};
use super::software::{copy, tag_at};
use super::*;

/// What to take from one item of a rule.
#[derive(Clone, Debug)]
enum Step {
    /// Nothing: what is to be said about it is constant.
    Nothing,
    Header {
        layer: Layer,
        at: Place,
        mask: [u8; HEADER_MAX],
        flag: Flag,
    },
    Source,
    Tag {
        word: usize,
        shift: u32,
        mask: u32,
    },
    Meta {
        mask: u32,
    },
    Mark {
        mask: u32,
    },
    Colour {
        mask: u8,
    },
}

/// What a header says besides its fields.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Flag {
    Nothing,
    /// `has_vlan`: a customer tag, or none.
    Tagged,
    /// `has_more_vlan`: a service tag, or a customer's.
    Service,
    /// IPv4: whether any of these bits (0x3fff) is set.
    FragmentBits,
    /// `has_frag_ext`.
    FragmentHeader,
}

/// A pattern whose masks are known and whose values come with each rule.
#[derive(Clone, Debug)]
pub struct PatternTemplate {
    steps: Vec<Step>,
    mask: Key,
    /// What every rule's value has: the layers.
    constant: Key,
}

const FIRST_TAG: u64 = stack::TAGGED | stack::SERVICE;

impl PatternTemplate {
    /// Fixes the masks. Items' values do not count, but for the index of tag items.
    ///
    /// `relaxed`: headers in the pattern do not say that the packet has them. `implicit_source`: where
    /// packets must come from if no item says so (`ingress` templates); `None`: anywhere.
    ///
    /// # Errors
    /// For a pattern that validation refuses, too: an item that no key has or out of order (EINVAL), a field
    /// that no key has or a range (ENOTSUP).
    pub fn new(
        items: &[Item<'_>],
        relaxed: bool,
        implicit_source: Option<Vport>,
    ) -> Result<PatternTemplate, Refusal> {
        let mut steps = Vec::with_capacity(items.len());
        let mut rule = Match::default();
        let mut walk = Walk::default();
        for (index, item) in items.iter().enumerate() {
            let step = match item {
                Item::Header(item) => header(&mut rule, &mut walk, &mut steps, relaxed, index, item)?,
                _ => other(&mut rule, index, item)?,
            };
            steps.push(step);
        }
        let source_said = items.iter().any(|item| matches!(item, Item::RepresentedPort { .. }));
        if let (Some(vport), false) = (implicit_source, source_said) {
            set_source(&mut rule, vport);
        }
        for step in &mut steps {
            settle(step, &mut rule.mask);
        }
        Ok(PatternTemplate { steps, mask: rule.mask, constant: rule.value })
    }

    /// The bits that count, of every rule.
    #[must_use]
    pub fn mask(&self) -> &Key {
        &self.mask
    }

    /// The value of a rule with these items: of each only `spec` counts, whatever its own mask, and of eth,
    /// vlan and ipv6 `followed` as `spec` has it (`None` is `false`).
    ///
    /// A port outside the switch is no error: the rule never matches.
    ///
    /// # Errors
    /// EINVAL: the items are not the template's, or lack a `spec` that the template has a mask for.
    #[inline]
    pub fn value(&self, items: &[Item<'_>], topology: &Topology) -> Result<Key, Refusal> {
        if items.len() != self.steps.len() {
            return Err(Refusal::new(Errno::Inval, Cause::ItemNum, "not the template's items"));
        }
        let mut key = self.constant;
        for (index, (step, item)) in self.steps.iter().zip(items).enumerate() {
            match (step, item) {
                (Step::Nothing, _) => {}
                (Step::Header { layer, at, mask, flag }, Item::Header(item)) if item.layer == *layer => {
                    let spec = item.spec.ok_or(lacking(index))?;
                    if !scatter(*layer, spec, mask, *at, &mut key) {
                        return Err(lacking(index));
                    }
                    key.words[layout::SHAPE] |= flag_bits(*flag, item, spec) << at.shift;
                }
                (Step::Header { .. }, _) => return Err(unlike(index)),
                _ => register(step, item, topology, &mut key).ok_or(unlike(index))?,
            }
        }
        // Two tags may be of any kind, whatever the first one's item says.
        key.words[layout::SHAPE] &= self.mask.words[layout::SHAPE];
        Ok(key)
    }
}

const fn lacking(index: usize) -> Refusal {
    Refusal::new(Errno::Inval, Cause::ItemSpec(index), "no value for a mask")
}

const fn unlike(index: usize) -> Refusal {
    Refusal::new(Errno::Inval, Cause::Item(index), "not the template's item")
}

/// Puts the field bits of a step into the mask. A header without any needs no `spec`.
fn settle(step: &mut Step, key: &mut Key) {
    let Step::Header { layer, at, mask, flag } = step else { return };
    scatter(*layer, mask, &place::ALL, *at, key);
    if *flag == Flag::Nothing && mask.iter().all(|&bits| bits == 0) {
        *step = Step::Nothing;
    }
}

#[inline]
fn flag_bits(flag: Flag, header: &Header<'_>, spec: &[u8]) -> u64 {
    let followed = header.followed == Some(true);
    match flag {
        Flag::Nothing => 0,
        Flag::Tagged => u64::from(followed) * stack::TAGGED,
        Flag::Service if followed => FIRST_TAG,
        Flag::Service => stack::TAGGED,
        Flag::FragmentBits => u64::from(spec[6] & 0x3f | spec[7] != 0) * stack::FRAGMENT,
        Flag::FragmentHeader => u64::from(followed) * stack::FRAGMENT,
    }
}

#[inline]
fn register(step: &Step, item: &Item<'_>, topology: &Topology, key: &mut Key) -> Option<()> {
    match (step, *item) {
        (Step::Source, Item::RepresentedPort { port_id, .. }) => {
            // No vport has this number.
            let vport = port_id.and_then(|port_id| topology.vport_of(port_id)).map_or(u16::MAX, |it| it.0);
            key.words[layout::SHAPE] |= u64::from(vport);
        }
        (Step::Tag { word, shift, mask }, Item::Tag { data, .. }) => {
            key.words[*word] |= u64::from(data & mask) << shift;
        }
        (Step::Meta { mask }, Item::Meta { data, .. }) => {
            key.words[layout::META] |= u64::from(data & mask) << 32;
        }
        (Step::Mark { mask }, Item::Mark { id, .. }) => key.words[layout::META] |= u64::from(id & mask),
        (Step::Colour { mask }, Item::MeterColour { colour, .. }) => {
            key.words[layout::SHAPE] |= u64::from(colour & mask) << layout::COLOUR_SHIFT;
        }
        _ => return None,
    }
    Some(())
}

fn other(rule: &mut Match, index: usize, item: &Item<'_>) -> Result<Step, Refusal> {
    Ok(match *item {
        Item::RepresentedPort { mask: 0, .. } => Step::Nothing,
        Item::RepresentedPort { .. } => {
            set(rule, layout::SHAPE, layout::SOURCE_MASK | layout::MANAGER, 0);
            Step::Source
        }
        Item::Tag { index: tag, mask, .. } => {
            let (word, shift) = tag_at(tag, index)?;
            set(rule, word, u64::from(mask) << shift, 0);
            Step::Tag { word, shift, mask }
        }
        Item::Meta { mask, .. } => {
            set(rule, layout::META, u64::from(mask) << 32, 0);
            Step::Meta { mask }
        }
        Item::Mark { mask, .. } => {
            set(rule, layout::META, u64::from(mask), 0);
            Step::Mark { mask }
        }
        Item::MeterColour { mask, .. } => {
            let mask = mask & 3;
            set(rule, layout::SHAPE, u64::from(mask) << layout::COLOUR_SHIFT, 0);
            Step::Colour { mask }
        }
        _ => return Err(Refusal::new(Errno::Inval, Cause::Item(index), "item not supported")),
    })
}

fn header(
    rule: &mut Match,
    walk: &mut Walk,
    before: &mut [Step],
    relaxed: bool,
    index: usize,
    header: &Header<'_>,
) -> Result<Step, Refusal> {
    let at = walk.enter(header.layer, index)?;
    if header.last.is_some() {
        return Err(Refusal::new(Errno::Notsup, Cause::ItemLast(index), "range not supported"));
    }
    let mut mask = copy(header.mask.unwrap_or(&[]));
    if masked_elsewhere(header.layer, &mask) {
        return Err(Refusal::new(Errno::Notsup, Cause::ItemMask(index), "field not supported"));
    }
    if !relaxed {
        present(rule, header.layer, at);
        implied(rule, before, header.layer, at);
    }
    if header.layer == Layer::Vlan && (mask[2] | mask[3]) != 0 {
        forget_type(before, at);
    }
    let flag = flag(header, &mut mask);
    let counts = match flag {
        Flag::Nothing => 0,
        Flag::Tagged | Flag::Service => FIRST_TAG,
        Flag::FragmentBits | Flag::FragmentHeader => stack::FRAGMENT,
    };
    if counts != 0 {
        // Unlike what the header's presence says, this is the rule's to say.
        at.shape(rule, counts, 0);
    }
    Ok(Step::Header { layer: header.layer, at, mask, flag })
}

/// What a header's presence says about the headers before it.
fn implied(rule: &mut Match, before: &mut [Step], layer: Layer, at: Place) {
    match layer {
        Layer::Vlan if at.second_tag => {
            at.shape(rule, stack::TAGGED2, stack::TAGGED2);
            free(rule, layout::SHAPE, stack::SERVICE << at.shift);
        }
        Layer::Vlan => at.shape(rule, FIRST_TAG, stack::TAGGED),
        // The IP version stands for the EtherType,
        Layer::Ipv4 | Layer::Ipv6 => forget_type(before, at),
        // and the kind of transport for the protocol.
        Layer::Tcp | Layer::Udp | Layer::Icmp | Layer::Icmp6 | Layer::Gre => {
            forget(before, at, Layer::Ipv4, 9..10);
            forget(before, at, Layer::Ipv6, 6..7);
        }
        _ => {}
    }
}

fn forget_type(before: &mut [Step], at: Place) {
    forget(before, at, Layer::Eth, 12..14);
    forget(before, at, Layer::Vlan, 2..4);
}

fn forget(before: &mut [Step], stack: Place, forgotten: Layer, bytes: std::ops::Range<usize>) {
    for step in before {
        if let Step::Header { layer, at, mask, .. } = step {
            if *layer == forgotten && at.base == stack.base {
                mask[bytes.clone()].fill(0);
            }
        }
    }
}

fn flag(header: &Header<'_>, mask: &mut [u8; HEADER_MAX]) -> Flag {
    match header.layer {
        Layer::Eth if header.followed.is_some() => Flag::Tagged,
        Layer::Vlan if header.followed.is_some() => Flag::Service,
        Layer::Ipv6 if header.followed.is_some() => Flag::FragmentHeader,
        Layer::Ipv4 if mask[6..8] == [0x3f, 0xff] => {
            mask[6..8].fill(0);
            Flag::FragmentBits
        }
        _ => Flag::Nothing,
    }
}
