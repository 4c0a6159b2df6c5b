//! The rules in a form in which the first that matches is found quickly, however many there are.
//!
//! Each field of a subject (tenant, kind, source, destination, source port, and what it is for) is looked
//! up by itself: that gives the set of rules that ask for this field and are content with its value. Rules
//! that ask for the same fields stand together, in their order, so that within such a group the first rule
//! in all sets of its fields is the first that matches; of the groups, the one whose find comes first in
//! the file wins. A look-up takes a search in each field and then, at worst, one word in 64 rules and
//! field; memory is bounded, and rules that would need more are refused.

use super::intervals::{Bounds, Builder, Head, Intervals, NONE, SetId, Sets, TooLarge, WORD};
use super::rule::{Matches, Standing, Statement, Subject, Way};
use super::{PolicyError, PortRange};
use crate::addr::{Ip, Prefix};
use crate::limits::{POLICY_BOUNDS_MAX, POLICY_BYTES_MAX};

/// The fields that are looked up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Field {
    Tenant,
    /// Direction, standing and protocol together.
    Kind,
    From,
    To,
    FromPort,
    /// Destination port, or type and code of an ICMP message.
    Aim,
}

const FIELDS: [Field; 6] = [Field::Tenant, Field::Kind, Field::From, Field::To, Field::FromPort, Field::Aim];

const STANDINGS: [Standing; 3] = [Standing::New, Standing::Midstream, Standing::Established];
const WAYS: [Way; 2] = [Way::Ingress, Way::Egress];
const PROTOCOLS: usize = 256;
const KINDS: usize = WAYS.len() * STANDINGS.len() * PROTOCOLS;

/// Where ICMP messages begin among the values of [`Field::Aim`], behind the ports.
const ICMP: u32 = 1 << 16;

impl Field {
    /// The field as it is told to a person.
    const fn name(self) -> &'static str {
        match self {
            Field::Tenant => "tenant",
            Field::Kind => "protocol",
            Field::From => "from",
            Field::To => "to",
            Field::FromPort => "from_ports",
            Field::Aim => "ports",
        }
    }

    /// Whether a rule asks for this field.
    fn asked(self, matches: &Matches) -> bool {
        match self {
            Field::Tenant => matches.tenant.is_some(),
            Field::Kind => matches.way.is_some() || matches.protocol.is_some() || matches.opening.is_some(),
            Field::From => matches.from.is_some(),
            Field::To => matches.to.is_some(),
            Field::FromPort => !matches.from_ports.is_empty(),
            Field::Aim => !matches.ports.is_empty() || !matches.icmp.is_empty(),
        }
    }
}

/// Rules that ask for the same fields.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Group {
    /// These, as bits by [`FIELDS`].
    fields: u8,
    /// Their bits' words: first, and one behind the last.
    words: (u16, u16),
    /// The position of its first rule.
    first: u16,
}

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Classifier {
    /// By the position of their first rule.
    groups: Vec<Group>,
    /// A rule's position by its bit.
    positions: Vec<u16>,
    /// By [`Field`].
    sets: [Sets; FIELDS.len()],
    tenants: Vec<SetId>,
    kinds: Vec<SetId>,
    from: Addresses,
    to: Addresses,
    from_ports: Intervals<u32>,
    aims: Intervals<u32>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Addresses {
    v4: Intervals<u32>,
    v6: Intervals<u128>,
}

impl Addresses {
    #[inline]
    fn find(&self, ip: Ip) -> SetId {
        if ip.is_v4() { self.v4.find(ip.low32()) } else { self.v6.find(u128::from_be_bytes(ip.octets())) }
    }
}

impl Classifier {
    /// # Errors
    ///
    /// If the rules would need too much memory.
    pub(super) fn new(rules: &[Statement]) -> Result<Classifier, PolicyError> {
        let Layout { groups, bits, positions } = Layout::of(rules);
        let compile = Compile { rules, bits: &bits, total: positions.len() };
        let tenants = compile.tenants()?;
        let kinds = compile.kinds()?;
        let from = compile.addresses(Field::From, |matches| matches.from.as_deref())?;
        let to = compile.addresses(Field::To, |matches| matches.to.as_deref())?;
        let from_ports = compile.ports(Field::FromPort, |matches| ranges(&matches.from_ports))?;
        let aims = compile.ports(Field::Aim, aims)?;
        Ok(Classifier {
            groups,
            positions,
            sets: [tenants.1, kinds.1, from.1, to.1, from_ports.1, aims.1],
            tenants: tenants.0,
            kinds: kinds.0,
            from: from.0,
            to: to.0,
            from_ports: from_ports.0,
            aims: aims.0,
        })
    }

    /// The position of the first rule that matches.
    pub(super) fn find(&self, subject: &Subject) -> Option<u16> {
        let aim = match subject.icmp {
            Some((kind, code)) => ICMP + u32::from(u16::from_be_bytes([kind, code])),
            None => u32::from(subject.dst_port),
        };
        let ids = [
            self.tenants.get(subject.tenant.index()).copied().unwrap_or(NONE),
            self.kinds.get(kind(subject.way, subject.state, subject.protocol)).copied().unwrap_or(NONE),
            self.from.find(subject.src),
            self.to.find(subject.dst),
            self.from_ports.find(u32::from(subject.src_port)),
            self.aims.find(aim),
        ];
        let sets = core::array::from_fn(|field| self.sets[field].heads(ids[field]));
        let mut best = None;
        for group in &self.groups {
            if best.is_some_and(|best| best < group.first) {
                break;
            }
            let found = self.first_of(group, &sets).into_iter();
            best = found.chain(best).min();
        }
        best
    }

    /// The position of the first rule of a group that is in all of these sets.
    #[inline]
    fn first_of(&self, group: &Group, sets: &Heads<'_>) -> Option<u16> {
        let (first, end) = (usize::from(group.words.0), usize::from(group.words.1));
        for at in first / WORD..end.div_ceil(WORD) {
            let base = at * WORD;
            let mut words = u64::MAX << first.saturating_sub(base) & up_to(end - base);
            let mut fields = group.fields;
            while fields != 0 {
                words &= sets[fields.trailing_zeros() as usize].get(at).map_or(0, |head| head.bits);
                fields &= fields - 1;
            }
            while words != 0 {
                let word = words.trailing_zeros();
                let in_a_row = (!(words >> word)).trailing_zeros() as usize;
                let (count, found) = if in_a_row >= ROW {
                    let count = in_a_row - in_a_row % ROW;
                    (count, self.first_in_row(group.fields, sets, at, word, count))
                } else {
                    (1, self.first_in_word(group.fields, sets, at, word))
                };
                if let Some(bit) = found {
                    return self.positions.get(base * WORD + bit).copied();
                }
                words &= !(up_to(count) << word);
            }
        }
        None
    }

    /// The first rule that is in all sets of these fields, of those in one of a head's words: its bit,
    /// counted from the head's first word.
    #[inline]
    fn first_in_word(&self, mut fields: u8, sets: &Heads<'_>, at: usize, word: u32) -> Option<usize> {
        let mut rules = u64::MAX;
        while fields != 0 {
            let field = fields.trailing_zeros() as usize;
            rules &= self.sets[field].word(*sets[field].get(at)?, word);
            fields &= fields - 1;
        }
        (rules != 0).then(|| word as usize * WORD + rules.trailing_zeros() as usize)
    }

    /// The same of `count` words in a row, all of which all sets have, [`ROW`] at a time: where many rules
    /// are content with each field, and none with all of them, there is nothing to be skipped.
    #[inline(never)] // The usual few words are not to pay for it.
    fn first_in_row(
        &self,
        mut fields: u8,
        sets: &Heads<'_>,
        at: usize,
        word: u32,
        count: usize,
    ) -> Option<usize> {
        let (mut rows, mut asked): ([&[u64]; FIELDS.len()], _) = (Default::default(), 0);
        while fields != 0 {
            let field = fields.trailing_zeros() as usize;
            rows[asked] = self.sets[field].words(*sets[field].get(at)?, word, count);
            (asked, fields) = (asked + 1, fields & (fields - 1));
        }
        let Some((first, others)) = rows[..asked].split_first() else {
            // They ask for nothing.
            return Some(word as usize * WORD);
        };
        for (number, words) in first.chunks_exact(ROW).enumerate() {
            let mut rules: [u64; ROW] = *words.first_chunk()?;
            for row in others {
                let words: &[u64; ROW] = row.get(number * ROW..)?.first_chunk()?;
                rules.iter_mut().zip(words).for_each(|(rules, word)| *rules &= word);
            }
            if rules.iter().fold(0, |any, rules| any | rules) != 0 {
                let (at, rules) = rules.iter().enumerate().find(|(_, rules)| **rules != 0)?;
                return Some((word as usize + number * ROW + at) * WORD + rules.trailing_zeros() as usize);
            }
        }
        None
    }
}

/// The heads of a set for each field.
type Heads<'a> = [&'a [Head]; FIELDS.len()];

/// Words that are looked at at once, where so many stand in a row.
const ROW: usize = 8;

/// The lowest `count` bits; all of them from 64 on.
#[inline]
fn up_to(count: usize) -> u64 {
    if count >= WORD { u64::MAX } else { (1 << count) - 1 }
}

#[inline]
fn kind(way: Way, standing: Standing, protocol: u8) -> usize {
    (way as usize * STANDINGS.len() + standing as usize) * PROTOCOLS + usize::from(protocol)
}

/// Which bit each rule has, and the groups these make.
struct Layout {
    groups: Vec<Group>,
    /// By a rule's position.
    bits: Vec<u16>,
    /// By bit.
    positions: Vec<u16>,
}

impl Layout {
    fn of(rules: &[Statement]) -> Layout {
        let fields = |statement: &Statement| {
            let asked = FIELDS.iter().zip(0..).filter(|(field, _)| field.asked(&statement.matches));
            asked.fold(0u8, |fields, (_, bit)| fields | 1 << bit)
        };
        let mut order: Vec<(u8, u16)> = rules.iter().zip(0..).map(|(rule, at)| (fields(rule), at)).collect();
        order.sort_unstable();
        let (mut groups, mut bits, mut positions) = (Vec::new(), vec![0; rules.len()], Vec::new());
        for group in order.chunk_by(|a, b| a.0 == b.0) {
            let start = positions.len();
            for &(_, position) in group {
                bits[usize::from(position)] = positions.len() as u16;
                positions.push(position);
            }
            // Each group has words of its own; nobody asks for the bits that this leaves over.
            positions.resize(positions.len().next_multiple_of(WORD), 0);
            let words = ((start / WORD) as u16, (positions.len() / WORD) as u16);
            groups.push(Group { fields: group[0].0, words, first: group[0].1 });
        }
        groups.sort_unstable_by_key(|group| group.first);
        Layout { groups, bits, positions }
    }
}

/// What the fields are compiled from.
struct Compile<'a> {
    rules: &'a [Statement],
    /// By position.
    bits: &'a [u16],
    /// Bits of a set.
    total: usize,
}

impl Compile<'_> {
    /// Rules that ask for `field`, with their bits.
    fn asking(&self, field: Field) -> impl Iterator<Item = (&Statement, u16)> {
        let all = self.rules.iter().zip(self.bits).map(|(rule, bit)| (rule, *bit));
        all.filter(move |(rule, _)| field.asked(&rule.matches))
    }

    fn builder(&self) -> Builder {
        Builder::new(self.total, POLICY_BYTES_MAX / FIELDS.len())
    }

    fn tenants(&self) -> Result<(Vec<SetId>, Sets), PolicyError> {
        let rules: Vec<_> = self.asking(Field::Tenant).collect();
        let tenants = rules.iter().filter_map(|(rule, _)| rule.matches.tenant);
        let count = tenants.map(|tenant| tenant.index() + 1).max().unwrap_or(0);
        let mut of: Vec<Vec<u16>> = vec![Vec::new(); count];
        for (rule, bit) in rules {
            if let Some(of) = rule.matches.tenant.and_then(|tenant| of.get_mut(tenant.index())) {
                of.push(bit);
            }
        }
        self.table(Field::Tenant, of)
    }

    fn kinds(&self) -> Result<(Vec<SetId>, Sets), PolicyError> {
        // Protocols that no rule names are all alike.
        let mut named = [false; PROTOCOLS];
        let protocols = self.asking(Field::Kind).filter_map(|(rule, _)| rule.matches.protocol);
        protocols.for_each(|protocol| named[usize::from(protocol)] = true);
        let other = named.iter().position(|named| !named);
        let apart = |protocol: &u8| named[usize::from(*protocol)] || Some(usize::from(*protocol)) == other;
        let mut of: Vec<Vec<u16>> = vec![Vec::new(); KINDS];
        for (rule, bit) in self.asking(Field::Kind) {
            let Matches { way, protocol, opening, .. } = &rule.matches;
            for (asked, standing) in WAYS.into_iter().flat_map(|way| STANDINGS.map(|s| (way, s))) {
                let covers = opening.is_none_or(|opening| opening.covers(rule.action, standing));
                if !covers || way.is_some_and(|way| way != asked) {
                    continue;
                }
                let protocols = protocol.map_or(0..=u8::MAX, |only| only..=only);
                protocols.filter(apart).for_each(|protocol| of[kind(asked, standing, protocol)].push(bit));
            }
        }
        let (mut ids, sets) = self.table(Field::Kind, of)?;
        for all in ids.chunks_exact_mut(PROTOCOLS) {
            for protocol in (0..PROTOCOLS).filter(|protocol| !named[*protocol]) {
                all[protocol] = other.map_or(NONE, |other| all[other]);
            }
        }
        Ok((ids, sets))
    }

    /// A field whose few values have their rules written out.
    fn table(&self, field: Field, of: Vec<Vec<u16>>) -> Result<(Vec<SetId>, Sets), PolicyError> {
        let mut sets = self.builder();
        let mut ids = Vec::with_capacity(of.len());
        for rules in of {
            rules.iter().for_each(|&rule| sets.toggle(rule));
            ids.push(sets.intern().map_err(|TooLarge| too_large(field))?);
            rules.iter().for_each(|&rule| sets.toggle(rule));
        }
        Ok((ids, sets.finish()))
    }

    fn addresses(
        &self,
        field: Field,
        of: impl Fn(&Matches) -> Option<&[Prefix]>,
    ) -> Result<(Addresses, Sets), PolicyError> {
        let (mut v4, mut v6) = (Bounds::new(), Bounds::new());
        for (rule, bit) in self.asking(field) {
            let prefixes = of(&rule.matches).unwrap_or_default();
            v4.add(bit, prefixes.iter().filter_map(range_v4).collect());
            v6.add(bit, prefixes.iter().filter_map(range_v6).collect());
            if v4.len() + v6.len() > POLICY_BOUNDS_MAX {
                return Err(PolicyError::TooManyPrefixes { field: field.name() });
            }
        }
        let mut sets = self.builder();
        let v4 = v4.intervals(&mut sets).map_err(|TooLarge| too_large(field))?;
        let v6 = v6.intervals(&mut sets).map_err(|TooLarge| too_large(field))?;
        Ok((Addresses { v4, v6 }, sets.finish()))
    }

    fn ports(
        &self,
        field: Field,
        of: impl Fn(&Matches) -> Vec<(u32, u32)>,
    ) -> Result<(Intervals<u32>, Sets), PolicyError> {
        let mut bounds = Bounds::new();
        self.asking(field).for_each(|(rule, bit)| bounds.add(bit, of(&rule.matches)));
        let mut sets = self.builder();
        let intervals = bounds.intervals(&mut sets).map_err(|TooLarge| too_large(field))?;
        Ok((intervals, sets.finish()))
    }
}

fn too_large(field: Field) -> PolicyError {
    PolicyError::TooLarge { field: field.name() }
}

fn ranges(ports: &[PortRange]) -> Vec<(u32, u32)> {
    let range = |range: &PortRange| (u32::from(*range.start()), u32::from(*range.end()));
    ports.iter().filter(|range| !range.is_empty()).map(range).collect()
}

/// A rule that asks for ports and for ICMP messages at once matches nothing.
fn aims(matches: &Matches) -> Vec<(u32, u32)> {
    if !matches.ports.is_empty() && !matches.icmp.is_empty() {
        return Vec::new();
    }
    let messages = matches.icmp.iter().map(|types| {
        let at = |code| ICMP + u32::from(u16::from_be_bytes([types.kind, code]));
        (at(types.code.unwrap_or(0)), at(types.code.unwrap_or(u8::MAX)))
    });
    ranges(&matches.ports).into_iter().chain(messages).collect()
}

fn range_v4(prefix: &Prefix) -> Option<(u32, u32)> {
    let host = u32::MAX.checked_shr(prefix.length.into()).unwrap_or(0);
    prefix.address.is_v4().then(|| (prefix.address.low32() & !host, prefix.address.low32() | host))
}

fn range_v6(prefix: &Prefix) -> Option<(u128, u128)> {
    let host = u128::MAX.checked_shr(prefix.length.into()).unwrap_or(0);
    let address = u128::from_be_bytes(prefix.address.octets());
    (!prefix.address.is_v4()).then_some((address & !host, address | host))
}
