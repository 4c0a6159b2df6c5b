//! What a rule says, and whether a subject matches it.

use super::Action;
use crate::addr::{Ip, Prefix};
use crate::flow::{FlowKey, Protocol};
use crate::ids::TenantId;
use crate::wire::{tcp, udp};
use core::ops::RangeInclusive;
use std::sync::Arc;

/// Which way a connection was opened.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Way {
    /// By a packet to a virtual address, or one received on a port that faces clients.
    Ingress,
    /// By anything else: from backends and hosts behind us.
    Egress,
}

/// What is known of the connection that a [`Subject`] belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Standing {
    /// This packet opens it; also every packet that belongs to no connection.
    New,
    /// Its opening was not seen: a TCP segment without SYN.
    Midstream,
    /// It was let in, and is judged again because the policy has changed.
    Established,
}

/// What is judged: a connection as its first packet has it, or a packet that belongs to none.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Subject {
    /// Whose.
    pub tenant: TenantId,
    /// Opened from where.
    pub way: Way,
    /// Where it comes from.
    pub src: Ip,
    /// Where it goes: the VIP, before translation.
    pub dst: Ip,
    /// 0 for protocols without ports.
    pub src_port: u16,
    /// 0 for protocols without ports.
    pub dst_port: u16,
    /// The IANA protocol number.
    pub protocol: u8,
    /// Type and code of an ICMP or ICMPv6 message.
    pub icmp: Option<(u8, u8)>,
    /// What is known of its connection.
    pub state: Standing,
}

impl Subject {
    /// A connection to a virtual address; `key` is that of its client's packets.
    #[must_use]
    pub fn connection(key: &FlowKey, state: Standing) -> Subject {
        Subject {
            tenant: key.tenant,
            way: Way::Ingress,
            src: key.src,
            dst: key.dst,
            src_port: key.src_port,
            dst_port: key.dst_port,
            protocol: match key.protocol {
                Protocol::Tcp => tcp::PROTOCOL,
                Protocol::Udp => udp::PROTOCOL,
            },
            icmp: None,
            state,
        }
    }
}

/// How a connection came to be known, as a rule asks for it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Opening {
    /// By a packet that opens connections.
    New,
    /// By a TCP segment without SYN.
    Midstream,
}

/// Ports from the first to the last, both included.
pub type PortRange = RangeInclusive<u16>;

/// ICMP messages: of one type, and of one code or of any.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct IcmpTypes {
    /// This type,
    pub kind: u8,
    /// and this code, or any.
    pub code: Option<u8>,
}

/// What a rule is about. Whatever is `None` or an empty list does not matter, but for a list of prefixes:
/// an empty one (of a set that has none just now) matches nothing.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Matches {
    /// This tenant's traffic.
    pub tenant: Option<TenantId>,
    /// Opened this way.
    pub way: Option<Way>,
    /// From an address in one of these.
    pub from: Option<Arc<[Prefix]>>,
    /// To an address in one of these.
    pub to: Option<Arc<[Prefix]>>,
    /// Of this IANA protocol.
    pub protocol: Option<u8>,
    /// From one of these ports.
    pub from_ports: Vec<PortRange>,
    /// To one of these ports. Not together with `icmp`.
    pub ports: Vec<PortRange>,
    /// One of these ICMP messages.
    pub icmp: Vec<IcmpTypes>,
    /// Opened so. Of connections that are judged again, an allow rule then covers all and other rules
    /// none: what was let in goes on until a rule without this, or the default, refuses it.
    pub opening: Option<Opening>,
}

/// A rule as the configuration has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Statement {
    /// Its name, unique.
    pub name: Option<String>,
    /// The line of the file where it begins.
    pub line: usize,
    /// What happens to what it matches.
    pub action: Action,
    /// Whether that is logged.
    pub log: bool,
    /// What it is about.
    pub matches: Matches,
}

impl Statement {
    /// Whether this rule is about `subject`.
    #[must_use]
    pub fn decides(&self, subject: &Subject) -> bool {
        let Matches { tenant, way, from, to, protocol, from_ports, ports, icmp, opening } = &self.matches;
        tenant.is_none_or(|only| only == subject.tenant)
            && way.is_none_or(|only| only == subject.way)
            && within(from.as_deref(), subject.src)
            && within(to.as_deref(), subject.dst)
            && protocol.is_none_or(|only| only == subject.protocol)
            && (from_ports.is_empty() || from_ports.iter().any(|range| range.contains(&subject.src_port)))
            && (ports.is_empty()
                || subject.icmp.is_none() && ports.iter().any(|range| range.contains(&subject.dst_port)))
            && (icmp.is_empty() || icmp.iter().any(|types| subject.icmp.is_some_and(|it| types.cover(it))))
            && opening.is_none_or(|only| only.covers(self.action, subject.state))
    }

    /// All that matters to what is decided.
    pub(super) fn judgement(&self) -> (Action, &Matches) {
        (self.action, &self.matches)
    }
}

fn within(prefixes: Option<&[Prefix]>, ip: Ip) -> bool {
    prefixes.is_none_or(|prefixes| prefixes.iter().any(|prefix| prefix.contains(ip)))
}

impl IcmpTypes {
    fn cover(self, (kind, code): (u8, u8)) -> bool {
        self.kind == kind && self.code.is_none_or(|only| only == code)
    }
}

impl Opening {
    /// Whether a rule with this action that asks for this opening is about connections of such standing.
    ///
    /// What was let in under a policy must stay in while that policy holds, and it is not remembered how
    /// it was opened.
    pub(super) fn covers(self, action: Action, standing: Standing) -> bool {
        match standing {
            Standing::New => self == Opening::New,
            Standing::Midstream => self == Opening::Midstream,
            Standing::Established => action == Action::Allow,
        }
    }
}
