//! The reference eSwitch: rules in a list, searched from end to end for every packet.

use eswitch::model::action::Action;
use eswitch::model::action::Shared;
use eswitch::model::switch::{DropReason, HOPS_MAX, RxConfig};
use eswitch::model::types::{Domain, Steering, Topology, Vport};

use crate::edit::{Act, Parcel, Sums, apply};
use crate::pattern::{Luggage, Name, Pattern};

/// Where a packet, or a copy, should leave.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Exit {
    Wire(Vport, Vec<u8>),
    /// To one of these queues.
    Rx(Vport, Vec<u16>, Option<u32>, u32, Vec<u8>),
    Drop(DropReason),
}

/// Which of overlapping rules of one priority wins: by matcher, then by rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct MatcherId(pub(crate) usize);

#[derive(Clone, Debug)]
struct Matcher {
    domain: Domain,
    group: u32,
    priority: u32,
    /// `None`: a template table's own.
    bits: Option<Vec<(Name, u128)>>,
    rules: usize,
}

/// What a rule, or an indirect handle, counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) hits: u64,
    pub(crate) bytes: u64,
}

/// How idle something is, in the bounds that the document leaves: it ages between one and two seconds after
/// its timeout.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Idle {
    /// Where it is reported.
    pub(crate) port: Vport,
    pub(crate) timeout_s: u64,
    pub(crate) context: u64,
    pub(crate) last: u64,
    pub(crate) may: bool,
    pub(crate) must: bool,
}

const SECOND: u64 = 1_000_000_000;

impl Idle {
    fn look(&mut self, now: u64) {
        let idle = now - self.last;
        self.may |= idle > self.timeout_s * SECOND;
        self.must |= idle > (self.timeout_s + 2) * SECOND;
    }

    fn hit(&mut self, now: u64) {
        self.look(now);
        self.last = now;
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Rule {
    /// Goes up with every rule.
    pub(crate) number: usize,
    pub(crate) port: Vport,
    pub(crate) matcher: MatcherId,
    pub(crate) pattern: Pattern,
    pub(crate) acts: Vec<Act>,
    pub(crate) tally: Option<usize>,
    pub(crate) idle: Option<usize>,
}

/// What is wrong on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Canary {
    pub(crate) swapped_priority: bool,
    pub(crate) swapped_age: bool,
    pub(crate) swapped_duplicates: bool,
    pub(crate) fragments_match: bool,
    pub(crate) sums: Sums,
}

pub(crate) struct World {
    pub(crate) steering: Steering,
    pub(crate) topology: Topology,
    pub(crate) crossing: bool,
    pub(crate) duplicates: bool,
    pub(crate) wire_to_wire: bool,
    pub(crate) rx: Vec<(bool, RxConfig)>,
    pub(crate) rules: Vec<Rule>,
    matchers: Vec<Matcher>,
    pub(crate) tallies: Vec<Tally>,
    pub(crate) idles: Vec<Idle>,
    pub(crate) canary: Canary,
    /// Lookups that found something, and those with more than one candidate.
    pub(crate) hits: u64,
    pub(crate) contests: u64,
    made: usize,
    headroom: usize,
}

/// A rule to be made.
pub(crate) struct Order {
    pub(crate) port: Vport,
    pub(crate) domain: Domain,
    pub(crate) group: u32,
    pub(crate) priority: u32,
    pub(crate) pattern: Pattern,
    pub(crate) acts: Vec<Act>,
    /// HWS: the table's.
    pub(crate) matcher: Option<MatcherId>,
}

impl World {
    pub(crate) fn new(steering: Steering, topology: Topology, rx: Vec<RxConfig>) -> World {
        World {
            steering,
            topology,
            crossing: false,
            duplicates: true,
            wire_to_wire: false,
            rx: rx.into_iter().map(|config| (true, config)).collect(),
            rules: Vec::new(),
            matchers: Vec::new(),
            tallies: Vec::new(),
            idles: Vec::new(),
            canary: Canary::default(),
            hits: 0,
            contests: 0,
            made: 0,
            headroom: 128,
        }
    }

    /// A template table's own matcher.
    pub(crate) fn matcher(&mut self, domain: Domain, group: u32, priority: u32) -> MatcherId {
        self.matchers.push(Matcher { domain, group, priority, bits: None, rules: 0 });
        MatcherId(self.matchers.len() - 1)
    }

    fn shared_matcher(&mut self, order: &Order) -> MatcherId {
        let bits = Some(order.pattern.bits());
        let found = self.matchers.iter().position(|matcher| {
            matcher.rules > 0
                && (matcher.domain, matcher.group, matcher.priority)
                    == (order.domain, order.group, order.priority)
                && matcher.bits == bits
        });
        found.map(MatcherId).unwrap_or_else(|| {
            let Order { domain, group, priority, .. } = *order;
            self.matchers.push(Matcher { domain, group, priority, bits, rules: 0 });
            MatcherId(self.matchers.len() - 1)
        })
    }

    /// Makes a rule; its number, or `None` if it is a duplicate where there must be none.
    pub(crate) fn install(&mut self, now: u64, order: Order) -> Option<usize> {
        let matcher = order.matcher.unwrap_or_else(|| self.shared_matcher(&order));
        let twin = |rule: &Rule| rule.matcher == matcher && rule.pattern == order.pattern;
        if !self.duplicates && self.rules.iter().any(twin) {
            return None;
        }
        self.matchers[matcher.0].rules += 1;
        let (mut tally, mut idle) = (None, None);
        for act in &order.acts {
            match *act {
                Act::Plain(Action::Count) => {
                    self.tallies.push(Tally::default());
                    tally = Some(self.tallies.len() - 1);
                }
                Act::Plain(Action::Age { timeout_s, context }) => {
                    self.idles.push(Idle {
                        port: order.port,
                        timeout_s: timeout_s.into(),
                        context,
                        last: now,
                        may: false,
                        must: false,
                    });
                    idle = Some(self.idles.len() - 1);
                }
                // The harness makes indirect objects first, so that their numbers are those of the tallies.
                Act::Plain(Action::Indirect(Some(Shared::Counter(id)))) => tally = Some(id.0 as usize),
                Act::Plain(Action::Indirect(Some(Shared::Age(id)))) => idle = Some(id.0 as usize),
                _ => {}
            }
        }
        self.made += 1;
        let Order { port, pattern, acts, .. } = order;
        self.rules.push(Rule { number: self.made, port, matcher, pattern, acts, tally, idle });
        Some(self.made)
    }

    pub(crate) fn rule(&self, number: usize) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.number == number)
    }

    pub(crate) fn remove(&mut self, number: usize) {
        let at = self.rules.iter().position(|rule| rule.number == number).expect("a rule to remove");
        let rule = self.rules.remove(at);
        self.matchers[rule.matcher.0].rules -= 1;
    }

    /// Ages are looked at.
    pub(crate) fn look(&mut self, now: u64) {
        self.idles.iter_mut().for_each(|idle| idle.look(now));
    }

    fn beats(&self, one: &Rule, other: &Rule) -> bool {
        let (a, b) = (&self.matchers[one.matcher.0], &self.matchers[other.matcher.0]);
        let software = self.steering == Steering::Software;
        if a.priority != b.priority {
            return (a.priority < b.priority) != self.canary.swapped_priority;
        }
        if one.matcher != other.matcher {
            // SWS puts a new matcher before those of its priority, HWS behind them.
            return ((one.matcher.0 > other.matcher.0) == software) != self.canary.swapped_age;
        }
        // Of duplicates SWS keeps to the first, HWS takes the last.
        ((one.number < other.number) == software) != self.canary.swapped_duplicates
    }

    /// The rule that a packet takes in a group.
    pub(crate) fn lookup(&mut self, domain: Domain, group: u32, parcel: &Parcel) -> Option<usize> {
        let mut anatomy = parcel.anatomy;
        if self.canary.fragments_match {
            anatomy.outer.piece = crate::anatomy::Piece::Whole;
        }
        let mut best: Option<usize> = None;
        let mut candidates = 0;
        for (at, rule) in self.rules.iter().enumerate() {
            let matcher = &self.matchers[rule.matcher.0];
            if (matcher.domain, matcher.group) != (domain, group)
                || !rule.pattern.matches(&parcel.frame, &anatomy, &parcel.luggage)
            {
                continue;
            }
            candidates += 1;
            if best.is_none_or(|best| self.beats(rule, &self.rules[best])) {
                best = Some(at);
            }
        }
        self.hits += u64::from(best.is_some());
        self.contests += u64::from(candidates > 1);
        best
    }

    /// Sends a packet through the switch: where it and its copies leave, copies first.
    pub(crate) fn send(&mut self, now: u64, source: Vport, manager: bool, frame: &[u8]) -> Vec<Exit> {
        let parcel = Parcel::new(frame, Luggage::new(source, manager), self.headroom);
        let mut exits = Vec::new();
        let last = self.walk(now, parcel, &mut exits);
        exits.push(last);
        exits
    }

    fn walk(&mut self, now: u64, mut parcel: Parcel, exits: &mut Vec<Exit>) -> Exit {
        let (mut domain, mut group, mut at_root, mut hops) = (Domain::Fdb, 0, true, 0);
        loop {
            let fate = match self.lookup(domain, group, &parcel) {
                Some(at) => match self.act(now, at, &mut parcel, exits) {
                    Ok(fate) => fate,
                    Err(reason) => return Exit::Drop(reason),
                },
                None => self.miss(domain, at_root, &mut parcel),
            };
            match fate {
                Fate::Leave(exit) => return exit,
                Fate::Jump(to) => {
                    group = to;
                    at_root = false;
                    hops += 1;
                }
                Fate::Representor(at) => {
                    domain = Domain::NicRx(at);
                    group = 0;
                    at_root = true;
                    // Without any rule ever made there, there is nothing to look up.
                    let named = |m: &Matcher| m.domain == domain && m.group == 0;
                    hops += u8::from(self.matchers.iter().any(named));
                }
                Fate::Queues(queues) => match self.queue(domain, queues, &mut parcel) {
                    Some(exit) => return exit,
                    None => {
                        domain = Domain::Fdb;
                        group = 0;
                        at_root = true;
                        hops += 1;
                    }
                },
            }
            if hops > HOPS_MAX {
                return Exit::Drop(DropReason::Loop);
            }
        }
    }

    /// Counts, mirrors, edits; where the packet goes next.
    fn act(
        &mut self,
        now: u64,
        at: usize,
        parcel: &mut Parcel,
        exits: &mut Vec<Exit>,
    ) -> Result<Fate, DropReason> {
        let rule = self.rules[at].clone();
        if let Some(tally) = rule.tally {
            self.tallies[tally].hits += 1;
            self.tallies[tally].bytes += parcel.frame.len() as u64;
        }
        if let Some(idle) = rule.idle {
            self.idles[idle].hit(now);
        }
        let hardware = self.steering == Steering::Hardware;
        let sample = rule.acts.iter().position(|act| matches!(act, Act::Sample(_)));
        if let Some((at, Act::Sample(inner))) = sample.map(|at| (at, &rule.acts[at])) {
            let mut copy = parcel.clone();
            let acts: Vec<&Act> = rule.acts[..at].iter().chain(inner).collect();
            exits.push(match apply(&acts, &mut copy, hardware, self.canary.sums) {
                Ok(()) => Exit::Wire(self.port(inner).expect("mirrors have a port"), copy.frame),
                Err(reason) => Exit::Drop(reason),
            });
        }
        let acts: Vec<&Act> = rule.acts.iter().collect();
        apply(&acts, parcel, hardware, self.canary.sums)?;
        Ok(self.fate(&rule.acts, parcel))
    }

    fn port(&self, acts: &[Act]) -> Option<Vport> {
        acts.iter().find_map(|act| match *act {
            Act::Plain(Action::RepresentedPort(Some(id))) => self.topology.vport_of(id),
            Act::Plain(Action::PortId(Some(id))) => self.topology.vport_of(id as u16),
            _ => None,
        })
    }

    fn fate(&self, acts: &[Act], parcel: &Parcel) -> Fate {
        if let Some(to) = self.port(acts) {
            let Luggage { source, manager, .. } = parcel.luggage;
            let same_wire = to == source && !manager && self.topology.is_uplink(to);
            return Fate::Leave(if same_wire && !self.wire_to_wire {
                Exit::Drop(DropReason::WireToSameWire)
            } else {
                Exit::Wire(to, parcel.frame.clone())
            });
        }
        for act in acts {
            match act {
                Act::Plain(Action::Jump(Some(to))) => return Fate::Jump(*to),
                Act::Plain(Action::Drop) => return Fate::Leave(Exit::Drop(DropReason::Rule)),
                Act::Plain(Action::Queue(Some(queue))) => return Fate::Queues(vec![*queue]),
                Act::Rss(queues) => return Fate::Queues(queues.clone()),
                _ => {}
            }
        }
        panic!("a rule without a fate was accepted: {acts:?}")
    }

    fn miss(&self, domain: Domain, at_root: bool, parcel: &mut Parcel) -> Fate {
        let Luggage { source, manager, .. } = parcel.luggage;
        match domain {
            // The default rule of the representor's transmit queue.
            Domain::Fdb if manager && at_root => Fate::Leave(Exit::Wire(source, parcel.frame.clone())),
            Domain::Fdb if !self.rx[usize::from(source.0)].0 => {
                Fate::Leave(Exit::Drop(DropReason::RxStopped))
            }
            Domain::Fdb => {
                if !self.crossing {
                    parcel.luggage.mark = None;
                    parcel.luggage.meta = 0;
                }
                Fate::Representor(source)
            }
            // The default rules are in the root; elsewhere the default is to drop.
            Domain::NicRx(_) if !at_root => Fate::Leave(Exit::Drop(DropReason::RxFilter)),
            Domain::NicRx(at) => {
                let config = &self.rx[usize::from(at.0)].1;
                if takes(config, &parcel.frame) {
                    Fate::Queues((0..config.queues.max(1)).collect())
                } else {
                    Fate::Leave(Exit::Drop(DropReason::RxFilter))
                }
            }
        }
    }

    /// To one of these queues: out, or `None` if a hairpin queue sends the packet on.
    fn queue(&self, domain: Domain, queues: Vec<u16>, parcel: &mut Parcel) -> Option<Exit> {
        let Domain::NicRx(at) = domain else { panic!("queues in the FDB were accepted") };
        let config = &self.rx[usize::from(at.0)].1;
        let peer = config.hairpin.iter().find(|(queue, _)| queues == [*queue]);
        if let Some((_, peer)) = peer {
            parcel.luggage = Luggage::new(*peer, true);
            return None;
        }
        if queues.iter().any(|queue| *queue >= config.queues) {
            return Some(Exit::Drop(DropReason::RxStopped));
        }
        let Luggage { mark, meta, .. } = parcel.luggage;
        Some(Exit::Rx(at, queues, mark, meta, parcel.frame.clone()))
    }
}

enum Fate {
    Leave(Exit),
    Jump(u32),
    Representor(Vport),
    Queues(Vec<u16>),
}

/// What a representor's default rules take.
fn takes(config: &RxConfig, frame: &[u8]) -> bool {
    let Some(to) = frame.get(..6) else { return false };
    let group_bit = to[0] & 1 == 1;
    let wanted = to == config.mac
        || to == [0xff; 6]
        || (to[0], to[1]) == (0x33, 0x33)
        || config.promiscuous
        || config.all_multicast && group_bit;
    wanted && !config.isolated
}
