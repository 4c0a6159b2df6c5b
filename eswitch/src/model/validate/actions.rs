//! A SWS rule's actions: each one, and which go together. As `flow_dv_validate`.

use super::items::Walk;
use super::layers::{INNER_VLAN, OUTER_VLAN, VXLAN, done};
use super::order::{Op, Sequence};
use super::registers::MARK_MAX;
use super::sample::Mirror;
use super::{MeterPolicy, Request, attr, invalid, rewrite, sample, shared_is_known, unsupported};
use crate::model::action::{Action, Shared};
use crate::model::refusal::{Cause, Refusal};
use crate::model::types::Vport;

/// `MLX5_ENCAPSULATION_DECISION_SIZE`: up to an Ethernet and an IPv4 header, a raw encapsulation or
/// decapsulation is the Ethernet half of a layer-3 tunnel.
pub(super) const SMALL: usize = 34;

/// `RTE_FLOW_ACTION_TYPE_SEND_TO_KERNEL`
const SEND_TO_KERNEL: i32 = 57;

/// What the walk over the actions has found.
#[derive(Debug)]
pub(super) struct State<'r, 'w> {
    pub request: &'r Request<'r>,
    pub walk: &'w Walk<'w>,
    /// Actions seen; see `layers::done`.
    pub done: u32,
    /// Actions so far, edits counting as one.
    pub actions: u32,
    /// Modify commands so far.
    pub commands: u32,
    pub sequence: Sequence,
    /// Where the rule sends packets, if to a vport.
    pub to: Option<Vport>,
    pub mirror: Option<Mirror>,
    /// An age that is not the counter's business came after a sample.
    pub aso_after_sample: bool,
}

/// Walks the actions in mlx5's order; gives what the steering library would be handed.
pub(super) fn check(
    request: &Request<'_>,
    walk: &Walk<'_>,
    actions: &[Action<'_>],
) -> Result<Sequence, Refusal> {
    let mut state = State {
        request,
        walk,
        done: 0,
        actions: 0,
        commands: 0,
        sequence: Sequence::default(),
        to: None,
        mirror: None,
        aso_after_sample: false,
    };
    let mut at = 0;
    while let Some(action) = actions.get(at) {
        if state.actions >= request.context.limits.max_actions {
            return Err(unsupported(Cause::Action(at), "too many actions: 8, all header edits being one"));
        }
        if state.has(done::METER_FATE) {
            return Err(unsupported(Cause::Action(at), "a meter with a policy of its own comes last"));
        }
        // A raw decapsulation and the raw encapsulation right after it are one action.
        match (action, actions.get(at + 1)) {
            (Action::RawDecap(bytes), Some(Action::RawEncap(encap))) => {
                at += 1;
                state.raw(Some(bytes), Some(encap), at)?;
            }
            _ => state.action(action, &actions[at + 1..], at)?,
        }
        at += 1;
    }
    state.finish()
}

impl State<'_, '_> {
    pub(super) fn has(&self, any: u32) -> bool {
        self.done & any != 0
    }

    /// Notes an action that is one of its own.
    fn note(&mut self, bit: u32, op: Option<Op>) {
        self.done |= bit;
        self.actions += 1;
        if let Some(op) = op {
            self.sequence.push(op);
        }
    }

    /// Notes an edit: all of them are one action, at the place of the first.
    pub(super) fn edit(&mut self, commands: u32) {
        if !self.has(done::MODIFIES) {
            self.actions += 1;
        }
        self.done |= done::MODIFY;
        self.commands += commands;
        self.sequence.modify();
    }

    fn transfer(&self) -> bool {
        self.request.attr.transfer
    }

    fn action(&mut self, action: &Action<'_>, rest: &[Action<'_>], at: usize) -> Result<(), Refusal> {
        match *action {
            Action::RepresentedPort(port_id) => self.port(port_id.map(u32::from), at),
            Action::PortId(port_id) => self.port(port_id, at),
            Action::Jump(group) => self.jump(group, at),
            Action::Drop => {
                self.note(done::DROP, None);
                self.sequence.fate(Op::Drop);
                Ok(())
            }
            Action::Queue(queue) => self.queue(queue.as_slice(), done::QUEUE, at),
            Action::Rss { queues: [] } => Err(no_queues(at)),
            Action::Rss { queues } => self.queue(queues, done::RSS, at),
            Action::Mark(_) | Action::Flag => self.mark(action, at),
            Action::Count => self.count(at),
            Action::Age { timeout_s, .. } => {
                age_timeout(timeout_s, at)?;
                self.age(done::AGE, at)
            }
            Action::Indirect(shared) => self.indirect(shared, at),
            Action::PopVlan => self.pop_vlan(at),
            Action::PushVlan(ether_type) => self.push_vlan(ether_type, rest, at),
            Action::SetVlanVid(vid) => self.set_vid(vid, at),
            Action::SetVlanPcp(priority) => self.set_pcp(priority, at),
            Action::VxlanEncap(headers) => {
                self.encap(headers, at)?;
                self.note(done::ENCAP, Some(Op::Encap));
                Ok(())
            }
            Action::VxlanDecap => {
                self.decap(at)?;
                if self.walk.seen & VXLAN == 0 {
                    return Err(unsupported(
                        Cause::Unspecified,
                        "vxlan_decap needs a vxlan item in the pattern",
                    ));
                }
                self.note(done::DECAP, Some(Op::Decap));
                Ok(())
            }
            Action::RawEncap(headers) => self.raw(None, Some(headers), at),
            Action::RawDecap(headers) => self.raw(Some(headers), None, at),
            Action::Meter(id) => self.meter(id, at),
            Action::Sample { ratio, actions } => sample::check(self, ratio, actions, at),
            Action::PortRepresentor(_) => Err(unsupported(
                Cause::Action(at),
                "port_representor is no action here: to reach the CPUs, leave packets unmatched",
            )),
            Action::MeterMark { .. } => {
                Err(unsupported(Cause::Action(at), "meter_mark needs hardware steering: use meter"))
            }
            // mlx5 takes it for no fate of the switch, and finds none. Beside one it would be taken.
            Action::Other(SEND_TO_KERNEL) if self.request.attr.transfer => {
                Err(invalid(Cause::Action(at), "send_to_kernel is no fate in the switch"))
            }
            Action::Other(_) => Err(unsupported(Cause::Action(at), "this action is not supported")),
            _ => rewrite::check(self, action, at),
        }
    }

    fn port(&mut self, port_id: Option<u32>, at: usize) -> Result<(), Refusal> {
        self.to = Some(port(self.request, port_id, self.done, at)?);
        self.note(done::PORT, Some(Op::Vport));
        Ok(())
    }

    fn jump(&mut self, group: Option<u32>, at: usize) -> Result<(), Refusal> {
        if self.has(done::FATES | done::FDB_FATES) {
            return Err(two_fates(at));
        }
        let group = group.ok_or_else(|| no_configuration(Cause::ActionConf(at)))?;
        if attr::is_root(self.request.context, self.transfer(), group)? {
            return Err(invalid(
                Cause::ActionConf(at),
                "a jump cannot lead to a root table: use group 1 or above",
            ));
        }
        self.note(done::JUMP, Some(Op::Table));
        Ok(())
    }

    fn queue(&mut self, queues: &[u16], bit: u32, at: usize) -> Result<(), Refusal> {
        check_queues(self.request, queues, self.done, at)?;
        self.note(bit, None);
        self.sequence.fate(Op::Queue);
        Ok(())
    }

    fn mark(&mut self, action: &Action<'_>, at: usize) -> Result<(), Refusal> {
        let bit = check_mark(self.request, action, self.done, at)?;
        if self.request.context.options.xmeta == 0 {
            self.note(bit, Some(Op::Tag));
            self.commands += 1;
        } else {
            self.edit(1);
            self.done |= bit;
        }
        Ok(())
    }

    fn count(&mut self, at: usize) -> Result<(), Refusal> {
        if self.has(done::COUNT) {
            return Err(invalid(Cause::Action(at), "only one count in a rule"));
        }
        self.note(done::COUNT, None);
        self.sequence.count();
        Ok(())
    }

    fn age(&mut self, bit: u32, at: usize) -> Result<(), Refusal> {
        if self.request.root && bit == done::SHARED_AGE {
            return Err(unsupported(Cause::Unspecified, "a shared age does not work in a root table"));
        }
        if self.has(done::AGE | done::SHARED_AGE) {
            return Err(invalid(Cause::Action(at), "only one age in a rule"));
        }
        self.aso_after_sample |= self.has(done::SAMPLE) && !self.request.root;
        self.note(bit, Some(Op::FirstHit));
        Ok(())
    }

    fn indirect(&mut self, shared: Option<Shared>, at: usize) -> Result<(), Refusal> {
        match shared {
            None => Err(no_configuration(Cause::Action(at))),
            Some(shared) if !shared_is_known(&shared) => Err(invalid(
                Cause::Action(at),
                "a handle of this kind cannot be used in a software-steered rule",
            )),
            Some(Shared::Counter(_)) => self.count(at),
            Some(Shared::Age(_)) => self.age(done::SHARED_AGE, at),
            Some(_) => self.queue(&[], done::RSS, at),
        }
    }

    fn pop_vlan(&mut self, at: usize) -> Result<(), Refusal> {
        if self.has(done::VLANS) {
            return Err(unsupported(
                Cause::Action(at),
                "only one of_pop_vlan, and it comes before of_push_vlan",
            ));
        }
        let needed = if self.has(done::DECAP) { INNER_VLAN } else { OUTER_VLAN };
        if self.walk.seen & needed == 0 {
            return Err(unsupported(Cause::Unspecified, "of_pop_vlan needs a vlan item in the pattern"));
        }
        self.before_port(at)?;
        self.not_on_representor()?;
        self.note(done::POP, Some(Op::Pop));
        Ok(())
    }

    fn push_vlan(&mut self, ether_type: u16, rest: &[Action<'_>], at: usize) -> Result<(), Refusal> {
        if !matches!(ether_type, 0x8100 | 0x88a8) {
            return Err(invalid(Cause::Action(at), "a VLAN tag's EtherType is 0x8100 or 0x88a8"));
        }
        self.before_port(at)?;
        self.not_on_representor()?;
        let partly = |bits: u16| {
            let mask = self.walk.vlan_mask.map_or(0, |mask| match *mask {
                [high, low, ..] => u16::from_be_bytes([high, low]) & bits,
                _ => 0,
            });
            mask != 0 && mask != bits
        };
        let later = |wanted: fn(&Action<'_>) -> bool| rest.iter().any(wanted);
        if partly(0xe000) && !later(|action| matches!(action, Action::SetVlanPcp(_))) {
            return Err(invalid(Cause::Action(at), "the new tag's PCP is unknown: add of_set_vlan_pcp"));
        }
        if partly(0x0fff)
            && !self.has(done::SET_VID)
            && !later(|action| matches!(action, Action::SetVlanVid(_)))
        {
            return Err(invalid(Cause::Action(at), "the new tag's VID is unknown: add of_set_vlan_vid"));
        }
        self.note(done::PUSH, Some(Op::Push));
        Ok(())
    }

    fn set_vid(&mut self, vid: u16, at: usize) -> Result<(), Refusal> {
        if vid > 0xffe {
            return Err(invalid(Cause::Action(at), "a VLAN's number is at most 4094"));
        }
        if !self.has(done::PUSH) && self.walk.seen & OUTER_VLAN == 0 {
            return Err(unsupported(
                Cause::Action(at),
                "of_set_vlan_vid needs of_push_vlan before it or a vlan item in the pattern",
            ));
        }
        if self.has(done::SET_VID) {
            return Err(unsupported(Cause::Action(at), "only one of_set_vlan_vid in a rule"));
        }
        self.before_port(at)?;
        self.done |= done::SET_VID;
        self.commands += 1;
        // After a push it is part of the tag pushed.
        if !self.has(done::PUSH) {
            self.sequence.modify();
        }
        Ok(())
    }

    fn set_pcp(&mut self, priority: u8, at: usize) -> Result<(), Refusal> {
        if priority > 7 {
            return Err(invalid(Cause::Action(at), "a VLAN's priority is at most 7"));
        }
        if !self.has(done::PUSH) {
            return Err(unsupported(Cause::Action(at), "of_set_vlan_pcp needs of_push_vlan before it"));
        }
        if self.has(done::SET_PCP) {
            return Err(unsupported(Cause::Action(at), "only one of_set_vlan_pcp in a rule"));
        }
        self.before_port(at)?;
        self.done |= done::SET_PCP;
        Ok(())
    }

    fn before_port(&self, at: usize) -> Result<(), Refusal> {
        if self.has(done::PORT) {
            return Err(invalid(Cause::Action(at), "VLAN actions come before the port"));
        }
        Ok(())
    }

    fn not_on_representor(&self) -> Result<(), Refusal> {
        not_on_representor(self.request)
    }

    fn encap(&self, headers: &[u8], at: usize) -> Result<(), Refusal> {
        check_encap(self.request, headers, self.done, at)
    }

    fn decap(&self, at: usize) -> Result<(), Refusal> {
        if self.has(done::DECAP) {
            return Err(unsupported(Cause::Action(at), "only one decapsulation in a rule"));
        }
        if self.has(done::ENCAP) {
            return Err(unsupported(Cause::Action(at), "a decapsulation cannot follow an encapsulation"));
        }
        if self.has(done::MODIFIES) {
            return Err(invalid(
                Cause::Action(at),
                "a decapsulation cannot follow header edits: put it first",
            ));
        }
        self.not_on_representor()
    }

    fn raw(&mut self, decap: Option<&[u8]>, encap: Option<&[u8]>, at: usize) -> Result<(), Refusal> {
        if encap.is_some_and(<[u8]>::is_empty) {
            return Err(invalid(Cause::Action(at), "raw_encap without bytes"));
        }
        let (decap, encap) = match (decap, encap) {
            (Some(from), Some(to)) => match (from.len() > SMALL, to.len() > SMALL) {
                (false, true) => (None, Some(to)),
                (true, false) => (Some(from), None),
                (true, true) => (Some(from), Some(to)),
                (false, false) => {
                    return Err(unsupported(
                        Cause::Action(at),
                        "raw_decap and raw_encap are both too short to tell a tunnel: one must exceed 34 bytes",
                    ));
                }
            },
            alone => alone,
        };
        if decap.is_some() {
            self.decap(at)?;
            self.note(done::DECAP, Some(Op::Decap));
        }
        if let Some(headers) = encap {
            if headers.len() <= SMALL {
                return Err(unsupported(
                    Cause::Action(at),
                    "raw_encap is too short for a tunnel: over 34 bytes",
                ));
            }
            self.encap(headers, at)?;
            self.note(done::ENCAP, Some(Op::Encap));
        }
        Ok(())
    }

    fn meter(&mut self, id: u32, at: usize) -> Result<(), Refusal> {
        if self.has(done::METER) {
            return Err(unsupported(Cause::Action(at), "only one meter in a rule"));
        }
        if self.has(done::JUMP) {
            return Err(unsupported(Cause::Action(at), "a meter cannot follow a jump: put it before"));
        }
        let policy = match self.request.port.meters {
            None => Some(MeterPolicy::Default),
            Some(meters) => meters(id),
        };
        let Some(policy) = policy else {
            return Err(invalid(Cause::Action(at), "there is no such meter on this port"));
        };
        if policy == MeterPolicy::Terminating {
            self.done |= done::METER_FATE;
        }
        self.note(done::METER, None);
        self.sequence.split();
        self.commands += 1;
        Ok(())
    }

    fn finish(mut self) -> Result<Sequence, Refusal> {
        if self.has(done::DROP) && self.done & !(done::DROP | done::WITH_DROP) != 0 {
            return Err(invalid(Cause::Actions, "drop goes with count, age and sample only"));
        }
        self.fates()?;
        self.headers()?;
        self.counted()?;
        if let Some(mirror) = self.mirror {
            sample::finish(&self, mirror)?;
        }
        if self.has(done::AGE) && self.has(done::COUNT) {
            self.sequence.age_by_counter();
        }
        Ok(self.sequence)
    }

    fn fates(&self) -> Result<(), Refusal> {
        if self.transfer() {
            if self.has(done::QUEUE) {
                return Err(unsupported(
                    Cause::Actions,
                    "queue does not go with transfer: leave packets unmatched to reach the CPUs",
                ));
            }
            if self.has(done::RSS) {
                return Err(unsupported(
                    Cause::Actions,
                    "rss does not go with transfer: leave packets unmatched to reach the CPUs",
                ));
            }
        }
        let fates = if self.transfer() { done::FDB_FATES } else { done::FATES };
        if !self.has(fates) {
            return Err(invalid(
                Cause::Actions,
                "no fate: end with a port, jump or drop (ingress: queue, rss)",
            ));
        }
        if self.has(done::METER_FATE) && !self.transfer() && self.has(done::FATES & !done::METER_FATE) {
            return Err(unsupported(Cause::Actions, "the meter's policy is a fate already"));
        }
        Ok(())
    }

    fn headers(&self) -> Result<(), Refusal> {
        if self.done & done::XCAPS == done::XCAPS {
            return Err(unsupported(
                Cause::Actions,
                "decapsulation and encapsulation in one rule: use two groups",
            ));
        }
        if self.transfer() {
            return Ok(());
        }
        if self.has(done::PUSH) {
            return Err(unsupported(Cause::Ingress, "of_push_vlan does not go with ingress"));
        }
        if self.has(done::ENCAP) {
            return Err(unsupported(Cause::Actions, "an encapsulation does not go with ingress"));
        }
        Ok(())
    }

    fn counted(&mut self) -> Result<(), Refusal> {
        let request = self.request;
        let below_root = request.attr.group != 0 || (self.transfer() && request.context.options.fdb_def_rule);
        let counted = self.has(done::AGE) && self.has(done::COUNT);
        if self.has(done::METER) && self.has(done::AGE | done::SHARED_AGE) && !counted && below_root {
            return Err(unsupported(
                Cause::Actions,
                "a meter and an age need a count as well to share a rule",
            ));
        }
        if request.context.options.xmeta != 0 {
            self.commands += 1;
        }
        let limits = &request.context.limits;
        if self.commands > if request.root { limits.max_modify_root } else { limits.max_modify } {
            return Err(unsupported(Cause::Actions, "too many header edits: 32 words, 16 in a root table"));
        }
        Ok(())
    }
}

impl std::fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request").field("attr", self.attr).field("root", &self.root).finish_non_exhaustive()
    }
}

/// A port as a fate. `done`: what precedes it.
pub(super) fn port(
    request: &Request<'_>,
    port_id: Option<u32>,
    done: u32,
    at: usize,
) -> Result<Vport, Refusal> {
    if !request.attr.transfer {
        return Err(unsupported(Cause::Unspecified, "a port is a fate of transfer rules only"));
    }
    let port_id = port_id.ok_or_else(|| unsupported(Cause::ActionConf(at), "name a port"))?;
    if done & (done::FATES | done::FDB_FATES) != 0 {
        return Err(two_fates(at));
    }
    u16::try_from(port_id)
        .ok()
        .and_then(|port_id| request.context.topology.vport_of(port_id))
        .ok_or_else(|| invalid(Cause::ActionConf(at), "this port is not one of this eSwitch's"))
}

/// Queues as a fate.
pub(super) fn check_queues(
    request: &Request<'_>,
    queues: &[u16],
    done: u32,
    at: usize,
) -> Result<(), Refusal> {
    if done & done::FATES != 0 {
        return Err(two_fates(at));
    }
    let beyond = |configured| queues.iter().any(|&queue| queue >= configured);
    if request.port.queues.is_some_and(beyond) {
        return Err(invalid(Cause::ActionConf(at), "the port has no receive queue of this number"));
    }
    Ok(())
}

/// `mark` and `flag`; gives the bit to note.
pub(super) fn check_mark(
    request: &Request<'_>,
    action: &Action<'_>,
    done: u32,
    at: usize,
) -> Result<u32, Refusal> {
    let options = &request.context.options;
    if let Action::Mark(id) = action {
        let id = id.ok_or_else(|| no_configuration(Cause::Action(at)))?;
        if id >= MARK_MAX & options.mark_mask() {
            return Err(invalid(Cause::ActionConf(at), "no mark can be that large"));
        }
    }
    if done & (done::MARK | done::FLAG) != 0 {
        return Err(invalid(Cause::Action(at), "only one mark or flag in a rule"));
    }
    Ok(if matches!(action, Action::Mark(_)) { done::MARK } else { done::FLAG })
}

/// Headers to put before a frame.
pub(super) fn check_encap(
    request: &Request<'_>,
    headers: &[u8],
    done: u32,
    at: usize,
) -> Result<(), Refusal> {
    if headers.is_empty() {
        return Err(no_configuration(Cause::Action(at)));
    }
    if done & done::ENCAP != 0 {
        return Err(invalid(Cause::Action(at), "only one encapsulation in a rule"));
    }
    if headers.len() > request.context.limits.max_encap as usize {
        return Err(invalid(Cause::Action(at), "the headers to add are too long: at most 132 bytes"));
    }
    not_on_representor(request)
}

fn not_on_representor(request: &Request<'_>) -> Result<(), Refusal> {
    if !request.attr.transfer && request.is_representor() {
        return Err(unsupported(
            Cause::Unspecified,
            "a representor's ingress rules cannot change headers' number: use a transfer rule",
        ));
    }
    Ok(())
}

pub(super) fn age_timeout(timeout_s: u32, at: usize) -> Result<(), Refusal> {
    if timeout_s == 0 || timeout_s > 0x00ff_ffff {
        return Err(invalid(Cause::Action(at), "an age's timeout is 1 to 16,777,215 seconds"));
    }
    Ok(())
}

pub(super) fn no_queues(at: usize) -> Refusal {
    invalid(Cause::ActionConf(at), "rss without queues")
}

pub(super) fn two_fates(at: usize) -> Refusal {
    invalid(Cause::Action(at), "only one fate in a rule")
}

pub(super) fn no_configuration(cause: Cause) -> Refusal {
    invalid(cause, "the action needs its configuration")
}
