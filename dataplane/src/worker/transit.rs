//! What is none of our business and passed on, where the policy has a say in it.
//!
//! * TCP and UDP are followed as connections of their own: the same ends back and forth, no service, no
//!   backend but the wire. So a connection is judged as its first packet has it, and what answers it passes
//!   with it.
//! * An ICMP error passes with the connection that it is about. All else is judged packet by packet.
//! * IP packets behind what is not read here (MPLS, PPPoE, other tags) are judged as packets of which nothing
//!   is known: by rules that name neither ends nor protocol, and the default. Else a label would be enough to
//!   get past a deny.
//! * Frames that are not IP pass, and so does neighbour discovery, as far as it is what it claims to be.
//! * Frames pass as they are, as far as their tenant's limit lets them. Hardware is never asked to take them.
//!
//! Either end's packets are looked for where those of the other are: by the owner of the smaller address.
//! What would have been a client's of ours has come to another worker before, and is handed over once more.

use super::egress::{Target, Translation, fragment_key};
use super::open::refusal;
use super::policy::{prohibited, standing};
use super::{Addressee, Env, Note, Steering, Walk};
use crate::addr::{Ip, MacAddr};
use crate::conntrack::{Candidates, New, Outcome, Slot, State};
use crate::drops::DropReason;
use crate::flow::{Direction, FlowKey, Protocol};
use crate::ids::{BackendId, PortId, ServiceId, TenantId};
use crate::limits::SERVICES_MAX;
use crate::packet::PacketBuf;
use crate::policy::{Action, Standing, Subject, Way};
use crate::rewrite::{self, ORIGINATED_L3};
use crate::wire::{self, IcmpMessage, Kind, Parsed, Quoted, ether};

/// The backend of connections that are passed on.
pub(super) const WIRE: BackendId = BackendId(u16::MAX);
/// Their service: which way they were opened.
const INGRESS: ServiceId = ServiceId(u16::MAX);
const EGRESS: ServiceId = ServiceId(u16::MAX - 1);

/// No station's address, and no protocol's number (RFC 6890, IANA): what is judged by these is not known.
const NOBODY: Ip = Ip::v4(0);
const NO_PROTOCOL: u8 = 255;

const _: () = assert!(SERVICES_MAX < u16::MAX as usize, "these are nobody's");

/// Where a packet goes that is passed on, and what it would have been dropped for otherwise.
#[derive(Clone, Copy)]
struct Onward {
    port: PortId,
    why: DropReason,
}

impl Onward {
    fn translation(self) -> Translation {
        Translation { rewrite: None, target: Target::Wire(self.port, self.why), service: INGRESS }
    }
}

/// The way that a connection of this service was opened.
pub(super) fn way(service: ServiceId) -> Way {
    if service == EGRESS { Way::Egress } else { Way::Ingress }
}

impl<E: Env> Walk<'_, E> {
    /// Passes on a packet that is none of our business, if the policy lets it through.
    pub(super) fn pass_on(&mut self, packet: E::Buf, port: PortId, why: DropReason) {
        let snapshot = self.snapshot;
        let tenant = snapshot.port(packet.port()).map(|port| port.tenant);
        match tenant.filter(|tenant| snapshot.policy().concerns(*tenant)) {
            None => self.pass_unjudged(packet, tenant, Onward { port, why }),
            Some(tenant) => match wire::parse(packet.data(), tenant) {
                Ok(parsed) => self.pass_parsed(packet, &parsed, Onward { port, why }),
                Err(DropReason::EtherTypeUnknown) if wire::may_hide_ip(packet.data()) => {
                    self.pass_hidden(packet, tenant, Onward { port, why });
                }
                Err(DropReason::EtherTypeUnknown) => self.pass(packet, port, why),
                Err(reason) => self.pass_unread(packet, reason, tenant, Onward { port, why }),
            },
        }
    }

    /// Passes on a packet that the policy has no say in, if it is not one too many for its tenant.
    fn pass_unjudged(&mut self, packet: E::Buf, tenant: Option<TenantId>, onward: Onward) {
        let metered = tenant.filter(|tenant| self.snapshot.meters_tenant(*tenant));
        let bytes = metered.and_then(|tenant| match wire::parse(packet.data(), tenant) {
            Ok(parsed) if parsed.kind == Kind::Arp || wire::parse::is_discovery(packet.data(), &parsed) => {
                None
            }
            Ok(parsed) => Some(parsed.packet_len()),
            Err(DropReason::EtherTypeUnknown) => None,
            Err(_) => Some(payload_len(packet.data())),
        });
        let passes = match bytes {
            Some(bytes) => self.metered_in_passing(packet, bytes),
            None => Some(packet),
        };
        if let Some(packet) = passes {
            self.pass(packet, onward.port, onward.why);
        }
    }

    /// Passes on a packet as it is.
    pub(super) fn pass(&mut self, packet: E::Buf, port: PortId, why: DropReason) {
        self.env.note(Note::PassedOn { port, why });
        self.env.send(port, packet);
    }

    /// Whether a connection is none of ours, but passed on.
    pub(super) fn is_in_passing(&self, slot: Slot) -> bool {
        self.state.table.entry(slot).backend() == WIRE
    }

    /// A packet of a connection that was passed on. Should it be for a service by now, that one begins anew.
    pub(super) fn meet_in_passing(
        &mut self,
        packet: E::Buf,
        parsed: &Parsed,
        slot: Slot,
        addressee: Addressee,
    ) {
        match addressee {
            Addressee::Us if self.is_for_service(&parsed.key) => {
                self.end(slot);
                self.open(packet, parsed, None);
            }
            Addressee::Us => self.open_from_backend(packet, parsed),
            Addressee::Other => self.refuse(packet, DropReason::NotOurMac),
        }
    }

    /// Whether a packet is for a service, or from a backend of one.
    fn is_for_service(&self, key: &FlowKey) -> bool {
        let FlowKey { tenant, src, dst, src_port, dst_port, protocol } = *key;
        self.snapshot.classify(tenant, dst, protocol, dst_port).is_some()
            || self.snapshot.reply_of(tenant, src, src_port, protocol).is_some()
    }

    /// Whose packets these ends' are.
    fn meet_ends(&mut self, packet: E::Buf, key: &FlowKey) -> Option<E::Buf> {
        self.steer(packet, Steering::ByOwner, |_| key.src.min(key.dst))
    }

    fn pass_parsed(&mut self, packet: E::Buf, parsed: &Parsed, onward: Onward) {
        if parsed.kind == Kind::Arp || wire::parse::is_discovery(packet.data(), parsed) {
            // Without these nothing passes at all.
            return self.pass(packet, onward.port, onward.why);
        }
        let quoted = match wire::icmp_message(packet.data(), parsed) {
            Ok(IcmpMessage::Error(quoted)) => Some(quoted),
            _ => None,
        };
        let key = quoted.as_ref().map_or(parsed.key, |quoted| quoted.key);
        let Some(packet) = self.meet_ends(packet, &key) else { return };
        match (parsed.kind, quoted) {
            (Kind::Tcp | Kind::Udp, _) => self.pass_segment(packet, parsed, onward),
            (Kind::Fragment, _) => self.pass_fragment(packet, parsed),
            (_, Some(quoted)) => self.pass_error(packet, parsed, &quoted, onward),
            _ => self.pass_alone(packet, parsed, onward),
        }
    }

    /// A packet of which only the addresses and the protocol's number are known, or nothing. What cannot be
    /// judged does not pass.
    fn pass_unread(&mut self, packet: E::Buf, reason: DropReason, tenant: TenantId, onward: Onward) {
        let known = reason == DropReason::ProtocolUnsupported;
        let Some(outside) = wire::envelope(packet.data()).filter(|_| known) else {
            return self.drop(packet, reason);
        };
        let (src, dst) = (outside.src, outside.dst);
        let key = FlowKey { src, dst, src_port: 0, dst_port: 0, tenant, protocol: Protocol::Tcp };
        self.pass_of(packet, &key, outside.protocol, onward);
    }

    /// A packet of which nothing is known but that it may be IP.
    fn pass_hidden(&mut self, packet: E::Buf, tenant: TenantId, onward: Onward) {
        let (src, dst) = (NOBODY, NOBODY);
        let key = FlowKey { src, dst, src_port: 0, dst_port: 0, tenant, protocol: Protocol::Tcp };
        self.pass_of(packet, &key, NO_PROTOCOL, onward);
    }

    /// A packet between these, of some protocol, that is not to be answered.
    fn pass_of(&mut self, packet: E::Buf, key: &FlowKey, protocol: u8, onward: Onward) {
        let subject = Subject { protocol, ..self.subject(&packet, key, Standing::New) };
        match self.judge(&subject) {
            Action::Allow => {
                let bytes = payload_len(packet.data());
                if let Some(packet) = self.metered_in_passing(packet, bytes) {
                    self.pass(packet, onward.port, onward.why);
                }
            }
            Action::Deny => self.drop(packet, DropReason::PolicyDenied),
            Action::Reject => self.drop(packet, DropReason::PolicyRejected),
        }
    }

    /// What the policy is asked about a packet that no connection is known of.
    fn subject(&self, packet: &E::Buf, key: &FlowKey, state: Standing) -> Subject {
        let way = self.snapshot.port(packet.port()).map_or(Way::Ingress, |port| port.opens);
        Subject { way, ..Subject::connection(key, state) }
    }

    fn pass_segment(&mut self, packet: E::Buf, parsed: &Parsed, onward: Onward) {
        let key = &parsed.key;
        let found = self.state.table.find(key, self.state.table.hash(key), Candidates::default());
        match found {
            Some((slot, direction)) if self.is_in_passing(slot) => {
                self.pass_known(packet, parsed, slot, direction, onward);
            }
            // Replies of a backend of ours may become a connection's of ours again.
            None if onward.why != DropReason::NoConnection && has_two_ends(key) => {
                self.pass_newcomer(packet, parsed, onward);
            }
            _ => self.pass_alone(packet, parsed, onward),
        }
    }

    fn pass_known(
        &mut self,
        mut packet: E::Buf,
        parsed: &Parsed,
        slot: Slot,
        direction: Direction,
        onward: Onward,
    ) {
        if !self.is_judged(slot) {
            packet = match self.readmit_in_passing(packet, parsed, slot) {
                Some(packet) => packet,
                None => return,
            };
        }
        let entry = self.state.table.entry(slot);
        let (state, service, backend) = (entry.state(), entry.service(), entry.backend());
        self.env.note(Note::Known { slot, direction, state, service, backend });
        let over = matches!(state, State::TimeWait | State::ResetClient | State::ResetBackend);
        if over && direction == Direction::Reply && parsed.tcp_flags.syn() && !parsed.tcp_flags.ack() {
            // The other end opens one now, which is judged as its own.
            return self.pass_next(packet, parsed, slot, onward);
        }
        let bytes = u32::from(parsed.packet_len());
        let outcome = self.state.table.account(slot, direction, self.now, bytes, parsed.tcp_flags, |state| {
            self.snapshot.timeouts(service).timeout_ms(state)
        });
        match outcome {
            Outcome::Reuse => return self.pass_next(packet, parsed, slot, onward),
            Outcome::Changed(state) => self.env.note(Note::Becomes(state)),
            Outcome::Unchanged => {}
        }
        self.deliver(packet, parsed, &onward.translation());
    }

    /// A packet that opens another connection between the ends of one that is over.
    fn pass_next(&mut self, packet: E::Buf, parsed: &Parsed, slot: Slot, onward: Onward) {
        self.env.note(Note::Reused);
        self.end(slot);
        self.pass_newcomer(packet, parsed, onward);
    }

    fn readmit_in_passing(&mut self, packet: E::Buf, parsed: &Parsed, slot: Slot) -> Option<E::Buf> {
        let verdict = self.judge_again(slot);
        self.env.note(Note::Judged(verdict));
        if verdict.action != Action::Allow {
            self.end_refused(slot);
        }
        self.admitted(packet, parsed, verdict.action)
    }

    fn pass_newcomer(&mut self, packet: E::Buf, parsed: &Parsed, onward: Onward) {
        let key = parsed.key;
        let subject = self.subject(&packet, &key, standing(parsed, key.protocol));
        let action = self.judge(&subject);
        let Some(packet) = self.admitted(packet, parsed, action) else { return };
        if parsed.tcp_flags.rst() {
            self.env.note(Note::Stateless);
            return self.deliver(packet, parsed, &onward.translation());
        }
        let new = New {
            key,
            service: if subject.way == Way::Egress { EGRESS } else { INGRESS },
            backend: WIRE,
            backend_ip: key.dst,
            backend_port: key.dst_port,
            nat: true,
            flags: parsed.tcp_flags,
            judged: self.judged_by,
        };
        let timeouts = |service, state| self.snapshot.timeouts(service).timeout_ms(state);
        match self.state.table.insert(self.now, &new, timeouts) {
            Ok(inserted) => {
                let picked_up = subject.state == Standing::Midstream;
                self.env.note(Note::Opened { slot: inserted.slot, picked_up });
                if let Some(gone) = &inserted.evicted {
                    self.end_evicted(gone);
                }
                self.pass_known(packet, parsed, inserted.slot, Direction::Original, onward);
            }
            Err(error) => self.drop(packet, refusal(error)),
        }
    }

    /// A later fragment shares the first one's fate, or waits for it.
    fn pass_fragment(&mut self, packet: E::Buf, parsed: &Parsed) {
        if let Some(translation) = self.decided(parsed) {
            return self.deliver_one(packet, parsed, &translation);
        }
        match self.state.fragments.hold(self.now, &fragment_key(parsed), packet) {
            Ok(()) => self.env.note(Note::WaitsForFirst),
            Err((packet, reason)) => self.drop(packet, reason),
        }
    }

    fn pass_error(&mut self, packet: E::Buf, parsed: &Parsed, quoted: &Quoted, onward: Onward) {
        let key = quoted.key.reversed();
        let found = self.state.table.find(&key, self.state.table.hash(&key), Candidates::default());
        // One that is not for whom it quotes belongs to no connection, whatever it says.
        let belongs = quoted.key.src == parsed.key.dst;
        let Some((slot, _)) = found.filter(|(slot, _)| belongs && self.is_in_passing(*slot)) else {
            return self.pass_alone(packet, parsed, onward);
        };
        self.env.note(Note::ErrorAbout(quoted.key));
        let packet = match self.is_judged(slot) {
            true => packet,
            false => match self.readmit_in_passing(packet, parsed, slot) {
                Some(packet) => packet,
                None => return,
            },
        };
        self.deliver(packet, parsed, &onward.translation());
    }

    /// A packet that belongs to no connection.
    fn pass_alone(&mut self, packet: E::Buf, parsed: &Parsed, onward: Onward) {
        let subject = match parsed.kind {
            Kind::Tcp | Kind::Udp => {
                self.subject(&packet, &parsed.key, standing(parsed, parsed.key.protocol))
            }
            _ => {
                let message = parsed.transport(packet.data()).first_chunk::<2>();
                let (protocol, icmp) = (parsed.protocol, message.map(|&[kind, code]| (kind, code)));
                Subject { protocol, icmp, ..self.subject(&packet, &parsed.key, Standing::New) }
            }
        };
        let action = self.judge(&subject);
        let Some(packet) = self.admitted(packet, parsed, action) else { return };
        self.env.note(Note::Stateless);
        self.deliver(packet, parsed, &onward.translation());
    }

    /// Gives back a packet that is allowed.
    fn admitted(&mut self, packet: E::Buf, parsed: &Parsed, action: Action) -> Option<E::Buf> {
        match action {
            Action::Allow => return Some(packet),
            Action::Deny => self.drop(packet, DropReason::PolicyDenied),
            Action::Reject => self.reject_in_passing(packet, parsed),
        }
        None
    }

    /// Drops a packet and, within the rate, tells its sender, in the name of whom it was sent to: we may have
    /// no address on this wire, nor a way back but the one it came by.
    fn reject_in_passing(&mut self, mut packet: E::Buf, parsed: &Parsed) {
        let reason = DropReason::PolicyRejected;
        let ends = ether::Header::new(packet.data()).map(|header| (header.src(), header.dst()));
        let Some((to, from)) = ends.filter(|(_, from): &(MacAddr, MacAddr)| !from.is_multicast()) else {
            return self.drop(packet, reason);
        };
        let (answer, written) = match (parsed.kind, prohibited(parsed.key.src)) {
            (Kind::Tcp, _) if !self.state.rates.resets.allow(self.now) => (Note::AnsweredReset, false),
            (Kind::Tcp, _) => (Note::AnsweredReset, rewrite::into_tcp_reset(&mut packet, parsed).is_ok()),
            (_, error) if !self.state.rates.errors.allow(self.now) => (Note::AnsweredError(error), false),
            (_, error) => {
                let written = rewrite::into_icmp_error(&mut packet, parsed, error, parsed.key.dst);
                (Note::AnsweredError(error), written.is_ok())
            }
        };
        if !written {
            return self.drop(packet, reason);
        }
        self.count_answered(&packet, answer, reason);
        self.state.counters.generated.add(1);
        match rewrite::set_link(&mut packet, ORIGINATED_L3, to, from, parsed.vlan) {
            Ok(()) => self.env.send(packet.port(), packet),
            Err(reason) => self.drop(packet, reason),
        }
    }
}

/// Whether packets between these can be told to go one way or the other, each between two stations.
fn has_two_ends(key: &FlowKey) -> bool {
    let apart = (key.src, key.src_port) != (key.dst, key.dst_port);
    apart && rewrite::is_station(key.src) && rewrite::is_station(key.dst)
}

/// Bytes of a frame that was not read any further.
fn payload_len(frame: &[u8]) -> u16 {
    u16::try_from(frame.len().saturating_sub(ether::LEN)).unwrap_or(u16::MAX)
}
