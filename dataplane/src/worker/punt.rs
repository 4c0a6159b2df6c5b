//! The one door out of the walk for everything that is not a plain TCP or UDP packet: ARP, neighbour
//! discovery, pings, ICMP errors, later fragments.

use super::egress::{Target, Translation, fragment_key};
use super::open::flow_hash;
use super::{Env, Note, Steering, Walk};
use crate::addr::{Ip, MacAddr};
use crate::conntrack::{Candidates, Slot};
use crate::drops::DropReason;
use crate::flow::{Direction, FlowKey};
use crate::neighbour::NeighbourUpdate;
use crate::packet::PacketBuf;
use crate::rewrite::{self, End};
use crate::snapshot::{Affinity, Mode, Port, Service};
use crate::wire::{self, IcmpMessage, Kind, Parsed, Quoted, arp, ether, nd};

impl<E: Env> Walk<'_, E> {
    /// Sorts what the walk does not take.
    pub(super) fn punt(&mut self, packet: E::Buf, parsed: &Parsed, steering: Steering) {
        match parsed.kind {
            Kind::Arp => self.arp(packet, parsed),
            Kind::Icmp | Kind::Icmpv6 => self.icmp(packet, parsed, steering),
            Kind::Fragment => self.later_fragment(packet, parsed, steering),
            Kind::Tcp | Kind::Udp => self.refuse(packet, DropReason::NoService),
        }
    }

    /// Sorts the same when it is addressed to another station on a port that is a bump in the wire. What
    /// belongs to a `nat` connection's way back is translated like the rest of it: fragments whose first
    /// one has passed, and errors about what a client sent. All else is passed on.
    pub(super) fn punt_in_passing(&mut self, packet: E::Buf, parsed: &Parsed, steering: Steering) {
        let to_client = !self.snapshot.is_vip(parsed.key.tenant, parsed.key.dst);
        match parsed.kind {
            Kind::Fragment if to_client => {
                let Some(packet) = self.steer(packet, steering, |_| parsed.key.dst) else { return };
                match self.decided(parsed) {
                    Some(translation) => self.deliver_later(packet, parsed, &translation),
                    None => self.refuse(packet, DropReason::NotOurMac),
                }
            }
            Kind::Icmp | Kind::Icmpv6 if to_client => match wire::icmp_message(packet.data(), parsed) {
                Ok(IcmpMessage::Error(quoted)) => self.icmp_error(packet, parsed, &quoted, steering),
                _ => self.refuse(packet, DropReason::NotOurMac),
            },
            _ => self.refuse(packet, DropReason::NotOurMac),
        }
    }

    /// Whether we answer for `ip` on the packet's port: an address of the port, or a VIP.
    fn is_ours(&self, packet: &E::Buf, ip: Ip) -> bool {
        let port = packet.port();
        let is_vip = |port: &Port| self.snapshot.is_vip(port.tenant, ip);
        self.snapshot.is_local(port, ip) || self.snapshot.port(port).is_some_and(is_vip)
    }

    /// The packet was for us and ends here.
    pub(super) fn consume(&mut self, packet: E::Buf) {
        self.env.note(Note::Consumed);
        self.state.counters.consumed.add(1);
        drop(packet);
    }

    fn arp(&mut self, packet: E::Buf, parsed: &Parsed) {
        let Some(message) = arp::Packet::parse(parsed.transport(packet.data())) else {
            return self.drop(packet, DropReason::ArpMalformed);
        };
        let asks_us = message.operation == arp::Operation::Request && self.is_ours(&packet, message.target);
        let answers_us = message.operation == arp::Operation::Reply && self.is_ours(&packet, message.target);
        let update = NeighbourUpdate {
            port: packet.port(),
            ip: message.sender,
            mac: message.sender_mac,
            solicited: answers_us,
            overrides: true,
        };
        self.hear(&update, asks_us);
        if !asks_us {
            return self.pass_or_consume(packet);
        }
        self.answer(packet, |packet, port| rewrite::into_arp_reply(packet, parsed, port.mac, port.vlan));
    }

    /// Answers a question about who we are, in its own buffer; the link header is part of the answer.
    fn answer(
        &mut self,
        mut packet: E::Buf,
        write: impl FnOnce(&mut E::Buf, &Port) -> Result<(), DropReason>,
    ) {
        if !self.state.rates.neighbours.allow(self.now) {
            return self.drop(packet, DropReason::RateLimited);
        }
        let port_id = packet.port();
        let Some(port) = self.snapshot.port(port_id) else {
            return self.drop(packet, DropReason::NoRoute);
        };
        match write(&mut packet, port) {
            Ok(()) => {
                self.env.note(Note::Answered);
                self.state.counters.consumed.add(1);
                self.state.counters.generated.add(1);
                self.emit(port_id, packet);
            }
            Err(reason) => self.drop(packet, reason),
        }
    }

    /// Takes in who is where, and tells the other workers if it is news.
    fn hear(&mut self, update: &NeighbourUpdate, create: bool) {
        let believable = self.snapshot.is_on_link(update.port, update.ip)
            && !self.snapshot.is_local(update.port, update.ip);
        if believable && self.learn(update, create).worth_telling() {
            self.env.announce(update);
        }
    }

    /// What is spoken to a group of stations is passed on where the port is a bump in the wire.
    fn pass_or_consume(&mut self, packet: E::Buf) {
        let to_group = ether::Header::new(packet.data()).is_some_and(|header| header.dst().is_multicast());
        match self.pass_to(&packet) {
            Some(port) if to_group => {
                self.env.note(Note::PassedOn { port, why: DropReason::NotOurMac });
                self.env.send(port, packet);
            }
            _ => self.consume(packet),
        }
    }

    fn icmp(&mut self, packet: E::Buf, parsed: &Parsed, steering: Steering) {
        match wire::icmp_message(packet.data(), parsed) {
            Ok(IcmpMessage::EchoRequest) if self.is_ours(&packet, parsed.key.dst) => {
                self.echo(packet, parsed);
            }
            Ok(message) => match self.concerns_probe(&packet, parsed, &message) {
                Some(probe) => self.deliver_locally(packet, parsed, probe),
                None => self.icmp_message(packet, parsed, message, steering),
            },
            Err(reason) => self.refuse(packet, reason),
        }
    }

    fn icmp_message(&mut self, packet: E::Buf, parsed: &Parsed, message: IcmpMessage, steering: Steering) {
        match message {
            IcmpMessage::Error(quoted) => self.icmp_error(packet, parsed, &quoted, steering),
            IcmpMessage::NeighbourSolicitation(question) => self.solicited(packet, parsed, &question),
            IcmpMessage::NeighbourAdvertisement(answer) => self.advertised(packet, &answer),
            _ => self.refuse(packet, DropReason::IcmpUnhandled),
        }
    }

    /// A ping for an address of ours.
    fn echo(&mut self, packet: E::Buf, parsed: &Parsed) {
        let to_vip = self.snapshot.is_vip(parsed.key.tenant, parsed.key.dst);
        let admitted = if to_vip { self.admit_echo(packet, parsed) } else { Some(packet) };
        let Some(mut packet) = admitted else { return };
        if !self.state.rates.echoes.allow(self.now) {
            return self.drop(packet, DropReason::RateLimited);
        }
        match rewrite::into_echo_reply(&mut packet, parsed) {
            Ok(()) => {
                self.env.note(Note::Answered);
                self.state.counters.consumed.add(1);
                self.originate(packet, parsed);
            }
            Err(reason) => self.drop(packet, reason),
        }
    }

    /// A neighbour solicitation: the asker is learnt, and answered if it asks for us.
    fn solicited(&mut self, packet: E::Buf, parsed: &Parsed, question: &nd::Solicitation) {
        let asks_us = self.is_ours(&packet, question.target);
        if let Some(mac) = question.source_mac {
            let (port, ip) = (packet.port(), parsed.key.src);
            self.hear(&NeighbourUpdate { port, ip, mac, solicited: false, overrides: true }, asks_us);
        }
        if !asks_us {
            return self.pass_or_consume(packet);
        }
        self.answer(packet, |packet, port| {
            rewrite::into_neighbour_advertisement(packet, parsed, question, port.mac, port.vlan)
        });
    }

    fn advertised(&mut self, packet: E::Buf, answer: &nd::Advertisement) {
        let nd::Advertisement { target: ip, target_mac, solicited, overrides, .. } = *answer;
        let port = packet.port();
        let (mac, overrides) = match target_mac {
            Some(mac) => (Some(mac), overrides),
            None if solicited => (self.still_at(&packet, ip), false),
            None => (None, false),
        };
        if let Some(mac) = mac {
            self.hear(&NeighbourUpdate { port, ip, mac, solicited, overrides }, false);
        }
        self.pass_or_consume(packet);
    }

    /// Where a neighbour is that does not say so. One that was asked alone need not, as it got the question
    /// (RFC 4861 §7.2.4): it is where it was, or, if another worker knows that, where its answer came from.
    fn still_at(&mut self, packet: &E::Buf, ip: Ip) -> Option<MacAddr> {
        let sender = || ether::Header::new(packet.data()).map(|header| header.src());
        self.state.neighbours.find(self.now, packet.port(), ip).or_else(sender)
    }

    /// An ICMP error goes where the packet it quotes came from, translated as that packet was.
    fn icmp_error(&mut self, packet: E::Buf, parsed: &Parsed, quoted: &Quoted, steering: Steering) {
        if quoted.key.src != parsed.key.dst {
            // It is not for whom it quotes, so it belongs to no connection, whatever it says.
            return self.refuse(packet, DropReason::IcmpNoConnection);
        }
        let towards_vip = self.snapshot.is_vip(parsed.key.tenant, parsed.key.dst);
        let client = if towards_vip { quoted.key.dst } else { quoted.key.src };
        let Some(packet) = self.steer(packet, steering, |_| client) else { return };

        // The error travels like a reply to the packet it quotes.
        let key = quoted.key.reversed();
        self.env.note(Note::ErrorAbout(quoted.key));
        let hash = self.state.table.hash(&key);
        match self.state.table.find(&key, hash, Candidates::default()) {
            Some((slot, _)) if self.is_in_passing(slot) => self.refuse(packet, DropReason::IcmpNoConnection),
            Some((slot, direction)) => self.deliver_error(packet, parsed, quoted, slot, direction),
            None if towards_vip => self.deliver_unknown_error(packet, parsed, quoted, &key),
            None => self.deliver_unknown_error_to_client(packet, parsed, quoted),
        }
    }

    /// `direction` is the way this error travels: `Original` towards the backend.
    fn deliver_error(
        &mut self,
        mut packet: E::Buf,
        parsed: &Parsed,
        quoted: &Quoted,
        slot: Slot,
        direction: Direction,
    ) {
        if !self.is_judged(slot) {
            packet = match self.readmit(packet, parsed, slot, direction) {
                Some(packet) => packet,
                None => return,
            };
        }
        let ends = self.state.table.ends(slot);
        let entry = self.state.table.entry(slot);
        let (state, service, backend) = (entry.state(), entry.service(), entry.backend());
        self.env.note(Note::Known { slot, direction, state, service, backend });
        // It is charged like what it is about: a flood of errors is a flood, too.
        let Some(mut packet) = self.metered(packet, parsed, service) else { return };
        let translation = self.translation(slot, direction);
        if ends.nat {
            let frame = packet.data_mut();
            match direction {
                Direction::Original => rewrite::translate_quoted(
                    frame,
                    parsed,
                    quoted,
                    End::Source,
                    ends.backend.0,
                    ends.backend.1,
                ),
                Direction::Reply => {
                    rewrite::translate_quoted(frame, parsed, quoted, End::Destination, ends.vip.0, ends.vip.1)
                }
            }
        }
        self.deliver_one(packet, parsed, &Translation { rewrite: None, ..translation });
    }

    /// An error about a connection this worker has no entry for: sent to the backend its packets would be
    /// scheduled to, so that path MTU discovery works after a restart and behind ECMP.
    fn deliver_unknown_error(&mut self, packet: E::Buf, parsed: &Parsed, quoted: &Quoted, key: &FlowKey) {
        let snapshot = self.snapshot;
        let scheduled = snapshot
            .classify(key.tenant, key.dst, key.protocol, key.dst_port)
            .filter(|service| service.affinity != Affinity::None)
            .and_then(|service: &Service| {
                let hash = flow_hash(key, service);
                Some((service, snapshot.backend(service.pick(hash)?)?))
            });
        let Some((service, backend)) = scheduled else {
            return self.drop(packet, DropReason::IcmpNoConnection);
        };
        self.env.note(Note::Classified(service.id));
        self.env.note(Note::Picked { hash: flow_hash(key, service), backend: backend.id });
        let Some(packet) = self.admit(packet, parsed, key) else { return };
        let Some(mut packet) = self.metered(packet, parsed, service.id) else { return };
        if service.mode == Mode::Nat {
            let port = backend.port.unwrap_or(key.dst_port);
            rewrite::translate_quoted(packet.data_mut(), parsed, quoted, End::Source, backend.address, port);
        }
        let translation = match service.mode {
            Mode::Nat => {
                Translation { rewrite: None, target: Target::Backend(backend.id), service: service.id }
            }
            Mode::Dsr | Mode::Tunnel(_) => self.unchanged(backend.id, || *key),
        };
        self.deliver_one(packet, parsed, &translation);
    }

    /// The other way: an error about what a client was scheduled to send to a `nat` backend, of which there
    /// is no entry (any more, or because the service keeps none).
    fn deliver_unknown_error_to_client(&mut self, packet: E::Buf, parsed: &Parsed, quoted: &Quoted) {
        let FlowKey { tenant, src, dst, dst_port, protocol, .. } = quoted.key;
        let Some((service, backend, port)) = self.snapshot.reply_of(tenant, dst, dst_port, protocol) else {
            return self.refuse(packet, DropReason::IcmpNoConnection);
        };
        self.env.note(Note::ReplyFrom { service: service.id, backend: backend.id });
        let original = FlowKey { dst: service.vip, dst_port: port, ..quoted.key };
        let Some(packet) = self.admit(packet, parsed, &original) else { return };
        let Some(mut packet) = self.metered(packet, parsed, service.id) else { return };
        rewrite::translate_quoted(packet.data_mut(), parsed, quoted, End::Destination, service.vip, port);
        let translation = Translation { rewrite: None, target: Target::Address(src), service: service.id };
        self.deliver_one(packet, parsed, &translation);
    }

    /// A fragment without a transport header follows the one that had it, or waits for it.
    fn later_fragment(&mut self, packet: E::Buf, parsed: &Parsed, steering: Steering) {
        let Some(packet) = self.steer(packet, steering, |walk| walk.client_of(&parsed.key)) else { return };
        if let Some(translation) = self.decided(parsed) {
            return self.deliver_later(packet, parsed, &translation);
        }
        match self.state.fragments.hold(self.now, &fragment_key(parsed), packet) {
            Ok(()) => self.env.note(Note::WaitsForFirst),
            Err((packet, reason)) => self.drop(packet, reason),
        }
    }

    /// What was decided for the first fragment of this one's packet, by the policy that holds now.
    pub(super) fn decided(&self, parsed: &Parsed) -> Option<Translation> {
        let (judged_by, translation) = self.state.fragments.get(self.now, &fragment_key(parsed))?;
        (judged_by == self.judged_by).then_some(translation)
    }
}
