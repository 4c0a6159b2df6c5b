//! A trace in words.

use super::{FrameRow, Lines, StepRow};
use crate::rows;
use dataplane::conntrack::ConnectionRow;
use dataplane::ids::{BackendId, PortId, ServiceId};
use dataplane::meter::Colour;
use dataplane::offload::{Declined, OffloadState};
use dataplane::policy::Verdict;
use dataplane::rewrite::IcmpError;
use dataplane::snapshot::{Affinity, Snapshot};
use dataplane::worker::{Hardware, MeterOf, Note, Walked};
use std::fmt::Write as _;

/// Notes in words.
pub(super) struct Words<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) lines: &'a Lines,
}

impl Words<'_> {
    fn port(&self, id: PortId) -> &str {
        self.snapshot.port(id).map_or("?", |port| port.name.as_str())
    }

    fn backend(&self, id: BackendId) -> String {
        self.snapshot
            .backend(id)
            .map_or_else(String::new, |found| rows::backend_name(found.address, found.port))
    }

    fn service(&self, id: ServiceId) -> String {
        rows::service_name(self.snapshot, id)
    }

    pub(super) fn frame(&self, port: PortId, frame: &[u8]) -> FrameRow {
        let mut hex = String::with_capacity(2 * frame.len());
        frame.iter().for_each(|byte| _ = write!(hex, "{byte:02x}"));
        FrameRow { port: self.port(port).to_owned(), frame: hex }
    }

    /// What became of the packet, in a line.
    pub(super) fn verdict(&self, walked: &Walked) -> String {
        let ended = walked.notes.iter().rev().find_map(|note| match note {
            Note::Dropped(reason) => Some(format!("dropped: {}", reason.label())),
            Note::Waits => Some("held until its next hop answers".to_owned()),
            Note::Consumed => Some("consumed: it was for Millrace itself".to_owned()),
            Note::Answered => Some("answered by Millrace itself".to_owned()),
            Note::PassedOn { port, .. } => Some(format!("passed on unchanged to {}", self.port(*port))),
            _ => None,
        });
        let sent = || walked.sent.first().map(|(port, _)| format!("forwarded to {}", self.port(*port)));
        ended.or_else(sent).unwrap_or_else(|| "nothing is sent".to_owned())
    }

    /// One note: which step it is of, and what it says.
    pub(super) fn step(&self, note: &Note) -> StepRow {
        let (step, line) = (step_of(note), self.line(note));
        StepRow { step: step.to_owned(), text: self.text(note), line }
    }

    /// The line of the configuration that decided.
    fn line(&self, note: &Note) -> Option<usize> {
        match *note {
            Note::Judged(verdict) => Some(self.snapshot.policy().rule(verdict.rule?)?.statement.line),
            Note::Classified(id) | Note::Known { service: id, .. } => self.lines.service(&self.service(id)),
            Note::Metered { of: MeterOf::Service(id), .. } => self.lines.service(&self.service(id)),
            Note::ReplyFrom { backend: id, .. } | Note::Picked { backend: id, .. } => {
                let service = self.snapshot.backend(id)?.service;
                self.lines.backend(&self.service(service), &self.backend(id))
            }
            _ => None,
        }
    }

    fn text(&self, note: &Note) -> String {
        match *note {
            Note::Parsed { port, kind, key } => {
                format!("{key} ({kind:?}), received on {}, tenant {}", self.port(port), key.tenant)
            }
            Note::Unwrapped { port } => format!("out of a tunnel, as a frame of {}", self.port(port)),
            Note::Judged(verdict) => self.judged(&verdict),
            Note::Known { slot, direction, state, service, backend } => format!(
                "of a connection of {} with {}: {}, {direction:?}, slot {}",
                self.service(service),
                self.backend(backend),
                state.name(),
                slot.number()
            ),
            Note::Classified(id) => format!("service {}", self.service(id)),
            Note::ReplyFrom { service, backend } => {
                format!(
                    "from {}, a backend of {}, and of no connection",
                    self.backend(backend),
                    self.service(service)
                )
            }
            Note::Picked { hash, backend } => {
                let service =
                    self.snapshot.backend(backend).and_then(|found| self.snapshot.service(found.service));
                let len = service.map_or(0, |service| service.lookup.len() as u64);
                let place = hash.checked_rem(len).unwrap_or(0);
                if let Some(Affinity::Partition { bits }) = service.map(|service| service.affinity) {
                    let whose = self.backend(backend);
                    return format!("partition {place} of {len}, the address's last {bits} bits: {whose}");
                }
                format!("place {place} of {len} in the lookup table: {}", self.backend(backend))
            }
            Note::Leaves { hop, mtu } => {
                format!("by {} to {}, where {mtu} bytes fit", self.port(hop.port), hop.next_hop)
            }
            Note::NextHop(Some(mac)) => format!("the next hop is at {mac}"),
            Note::NextHop(None) => "where the next hop is, is not known".to_owned(),
            Note::Rewritten { end, ip, port } => {
                format!("its {} becomes {}", format!("{end:?}").to_lowercase(), rows::endpoint(ip, port))
            }
            Note::Wrapped(id) => {
                let service =
                    self.snapshot.backend(id).and_then(|found| self.snapshot.service(found.service));
                let how = service.map_or("a tunnel", |service| rows::mode_name(service.mode));
                format!("put into {how} to {}", self.backend(id))
            }
            Note::AnsweredError(error) => format!("its sender is told: {}", error_text(error)),
            Note::Becomes(state) => format!("the connection is {} now", state.name()),
            Note::ErrorAbout(key) => format!("an ICMP error about {key}"),
            Note::PassedOn { port, why } => format!("to {}, unchanged ({})", self.port(port), why.label()),
            Note::Dropped(reason) => format!("{}: {}", reason.label(), reason.description().trim()),
            Note::Hardware(hardware) => hardware_text(hardware).to_owned(),
            Note::Metered { of, colour } => self.metered(of, colour),
            ref other => fixed_text(other).to_owned(),
        }
    }

    fn metered(&self, of: MeterOf, colour: Colour) -> String {
        let (whose, meter) = match of {
            MeterOf::Service(id) => (
                format!("service {}", self.service(id)),
                self.snapshot.metered(id).and_then(|metered| metered.service.as_deref()),
            ),
            MeterOf::Tenant(id) => (format!("tenant {id}"), self.snapshot.tenant_meter(id)),
        };
        let limit = meter.map(|meter| meter.limit).unwrap_or_default();
        let rate = |rate: Option<u64>, of: &str| rate.map(|rate| format!("{rate} {of}/s"));
        let rates = [rate(limit.packets_per_second, "packets"), rate(limit.bits_per_second, "bit")];
        let rates = rates.into_iter().flatten().collect::<Vec<_>>().join(" and ");
        let red = if colour == Colour::Red { ", so workers drop such packets (meter_rate)" } else { "" };
        format!("{} now for the limit of {whose}, {rates}{red}", colour.name())
    }

    fn judged(&self, verdict: &Verdict) -> String {
        let action = verdict.action.name();
        let log = if verdict.log { ", and logged" } else { "" };
        match verdict.rule.and_then(|number| self.snapshot.policy().rule(number)) {
            Some(rule) => {
                let name = rule.statement.name.as_deref().unwrap_or("without a name");
                format!("{action} by rule {} ({name}){log}", rule.number.0)
            }
            None => format!("{action}, as no rule matches{log}"),
        }
    }

    /// Whether hardware forwards such packets, and why or why not.
    pub(super) fn hardware(&self, walked: &Walked, row: Option<&ConnectionRow>, price: u32) -> String {
        let noted = walked.notes.iter().find_map(|note| match note {
            Note::Hardware(hardware) => Some(hardware_text(*hardware).to_owned()),
            _ => None,
        });
        let Some(row) = row else {
            return noted.unwrap_or_else(|| "not of a connection: software's".to_owned());
        };
        if let Some(noted) = noted {
            return noted;
        }
        let packets = row.totals.original.packets + row.totals.reply.packets;
        match row.offload {
            OffloadState::Installed(_) => "hardware forwards for the connection".to_owned(),
            OffloadState::Requested(_) => "hardware was asked, and has not answered yet".to_owned(),
            OffloadState::Removing(_) => "hardware is giving the connection back".to_owned(),
            OffloadState::Declined(why) => format!("refused ({}); asked again later", why.name()),
            OffloadState::Software if price == u32::MAX => {
                "in software: there is no offload engine, or it takes nothing now".to_owned()
            }
            OffloadState::Software if packets < u64::from(price) => {
                format!("in software: {packets} packets so far, and hardware is asked from {price} on")
            }
            OffloadState::Software => format!("in software, as its state is {}", row.state.name()),
        }
    }
}

/// The part of the walk that a note is of.
fn step_of(note: &Note) -> &'static str {
    match note {
        Note::Parsed { .. } | Note::InPassing | Note::Unwrapped { .. } => "parse",
        Note::Judged(_) => "policy",
        Note::Classified(_) | Note::ReplyFrom { .. } => "service",
        Note::Picked { .. } | Note::ReplyCollision => "backend",
        Note::Rewritten { .. } | Note::Wrapped(_) => "rewrite",
        Note::Leaves { .. } => "route",
        Note::NextHop(_) | Note::Waits => "neighbour",
        Note::Hardware(_) => "hardware",
        Note::Metered { .. } => "meter",
        Note::Dropped(_) => "drop",
        Note::AnsweredError(_) | Note::AnsweredReset | Note::Answered | Note::Consumed => "answer",
        Note::PassedOn { .. } => "pass",
        Note::WaitsForFirst => "fragment",
        _ => "connection",
    }
}

/// What notes without particulars say.
fn fixed_text(note: &Note) -> &'static str {
    match note {
        Note::InPassing => "addressed to another station",
        Note::Plain => "changes nothing about it: the shortcut",
        Note::ReplyCollision => "the client talks to it from this port already: the next one",
        Note::Opened { picked_up: false, .. } => "opens a connection",
        Note::Opened { picked_up: true, .. } => "picks a connection up in its middle",
        Note::Evicted { half_open: true } => "for which a half-open one makes room",
        Note::Evicted { half_open: false } => "for which an idle one makes room",
        Note::Stateless => "forwarded without a connection",
        Note::Reused => "the connection is over, and its client uses its port again",
        Note::BackendGone => "the connection's backend was removed",
        Note::Waits => "waits until the next hop has answered",
        Note::WaitsForFirst => "waits for the first fragment",
        Note::AnsweredReset => "an end of the connection is told in a reset",
        Note::Answered => "a question to us, answered",
        Note::Consumed => "for us, and ends here",
        _ => "goes on",
    }
}

fn error_text(error: IcmpError) -> String {
    match error {
        IcmpError::TtlExceeded => "its TTL ran out".to_owned(),
        IcmpError::FragmentationNeeded { mtu } | IcmpError::PacketTooBig { mtu } => {
            format!("too big, {mtu} bytes fit")
        }
        IcmpError::Unreachable { code } => format!("unreachable (code {code})"),
    }
}

fn hardware_text(hardware: Hardware) -> &'static str {
    match hardware {
        Hardware::Waits(Declined::Mtu) | Hardware::Cannot(Declined::Mtu) => {
            "hardware is not asked: the way out's MTU, less what a tunnel adds, is below the way in's"
        }
        Hardware::Waits(Declined::Tunnel) | Hardware::Cannot(Declined::Tunnel) => {
            "hardware is not asked: only software knows this tunnel, or its outer checksum"
        }
        Hardware::Missed => "hardware has the connection, and should have forwarded this packet",
        Hardware::Late => "hardware has taken the connection, and such packets, just now",
        Hardware::Fenced => {
            "hardware has the connection, and leaves it to software while a policy is enforced"
        }
        Hardware::NotSuch => "hardware has the connection, but leaves such packets to software",
        Hardware::TakenBack(_) => "hardware is told to give the connection back",
        Hardware::Waits(_) => "hardware has refused; it is asked again later",
        Hardware::Barred => "kept in software by the configuration: its service, or a backend that drains",
        Hardware::Captured => "kept in software while it is captured",
        Hardware::NoOccasion => "no rule could match such a packet, so hardware is not asked for it",
        Hardware::NextBurst => "hardware is asked with one of the next packets",
        Hardware::WayUnknown => "hardware is not asked while a next hop is not known",
        Hardware::Cannot(_) => "hardware cannot take this way",
        Hardware::Asked => "hardware is asked to take the connection",
        Hardware::AskRefused => "the offload thread has no room for more requests",
    }
}
