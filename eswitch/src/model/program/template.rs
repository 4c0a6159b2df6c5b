//! Actions templates: what hardware steering fixes when a table is made, and what each rule brings.

use super::Program;
use super::build::Builder;
use crate::model::action::{Action, FieldRef, FieldSource, ModifyOp};
use crate::model::refusal::{Cause, Errno, Refusal};
use crate::model::types::Topology;

/// A template: action kinds for all rules, with constants for some.
///
/// An action is a constant if its mask has any bit (`drivers/net/mlx5/mlx5_flow_hw.c` of DPDK 22.11,
/// `__flow_hw_actions_translate`), or if there is nothing to configure. What a `modify_field` does, to which
/// bits, is always the template's; only an immediate value can be the rule's.
#[derive(Clone, Debug)]
pub struct ActionsTemplate {
    steps: Box<[Step]>,
}

/// One action.
#[derive(Clone, Debug)]
enum Step {
    /// As the template has it, whatever the rule says.
    Constant(Owned),
    /// An immediate value from the rule; without one, the template's.
    Modify { op: ModifyOp, dst: FieldRef, width: u32, src: Option<FieldSource> },
    /// As the rule has it; it must be of this kind.
    Rule(Action<'static>),
}

/// An action that borrows nothing.
#[derive(Clone, Debug)]
enum Owned {
    Plain(Action<'static>),
    Rss(Box<[u16]>),
    VxlanEncap(Box<[u8]>),
    RawEncap(Box<[u8]>),
    RawDecap(Box<[u8]>),
}

impl Owned {
    fn new(action: &Action<'_>, index: usize) -> Result<Owned, Refusal> {
        Ok(match *action {
            Action::Rss { queues } => Owned::Rss(queues.into()),
            Action::VxlanEncap(bytes) => Owned::VxlanEncap(bytes.into()),
            Action::RawEncap(bytes) => Owned::RawEncap(bytes.into()),
            Action::RawDecap(bytes) => Owned::RawDecap(bytes.into()),
            Action::Sample { .. } => {
                let message = "no sample in a template";
                return Err(Refusal::new(Errno::Notsup, Cause::Action(index), message));
            }
            ref plain => Owned::Plain(detach(plain)),
        })
    }

    fn action(&self) -> Action<'_> {
        match self {
            Owned::Plain(action) => *action,
            Owned::Rss(queues) => Action::Rss { queues },
            Owned::VxlanEncap(bytes) => Action::VxlanEncap(bytes),
            Owned::RawEncap(bytes) => Action::RawEncap(bytes),
            Owned::RawDecap(bytes) => Action::RawDecap(bytes),
        }
    }
}

impl ActionsTemplate {
    /// A template of these actions and as many masks, validated already.
    ///
    /// # Errors
    /// EINVAL if there are not as many, if a mask is of another kind than its action, or if a constant is
    /// missing; ENOTSUP for a sample.
    pub fn new(actions: &[Action<'_>], masks: &[Action<'_>]) -> Result<ActionsTemplate, Refusal> {
        if actions.len() != masks.len() {
            return Err(Refusal::new(Errno::Inval, Cause::ActionNum, "as many masks as actions"));
        }
        let pairs = actions.iter().zip(masks).enumerate();
        let steps = pairs.map(|(index, (action, mask))| step(action, mask, index));
        Ok(ActionsTemplate { steps: steps.collect::<Result<_, _>>()? })
    }

    /// A rule's program: the template's constants, and `actions` for the rest, one for one.
    ///
    /// # Errors
    /// EINVAL if `actions` are not the template's kinds, or lack what the template does not have; else as
    /// [`Program::compile`].
    #[inline]
    pub fn program(&self, actions: &[Action<'_>], topology: &Topology) -> Result<Program, Refusal> {
        if actions.len() != self.steps.len() {
            return Err(Refusal::new(Errno::Inval, Cause::ActionNum, "not the template's actions"));
        }
        let mut builder = Builder::new(topology);
        for (index, (step, action)) in self.steps.iter().zip(actions).enumerate() {
            match step {
                Step::Modify { op, dst, width, src } => {
                    let src = match action {
                        Action::ModifyField { src: Some(own @ FieldSource::Value(_)), .. } => Some(own),
                        Action::ModifyField { .. } => src.as_ref(),
                        _ => return Err(mismatch(index)),
                    };
                    builder.modify(index, *op, *dst, src, *width)?;
                }
                Step::Constant(Owned::Plain(action)) => builder.take(index, action)?,
                Step::Constant(owned) => builder.take(index, &owned.action())?,
                Step::Rule(kind) if same_kind(kind, action) => builder.take(index, action)?,
                Step::Rule(_) => return Err(mismatch(index)),
            }
        }
        Ok(builder.finish())
    }
}

const fn mismatch(index: usize) -> Refusal {
    Refusal::new(Errno::Inval, Cause::Action(index), "not the template's action")
}

fn step(action: &Action<'_>, mask: &Action<'_>, index: usize) -> Result<Step, Refusal> {
    if !same_kind(action, mask) {
        return Err(Refusal::new(Errno::Inval, Cause::Action(index), "a mask of another kind"));
    }
    let constant = is_constant(action, mask);
    Ok(match *action {
        Action::ModifyField { op, dst, src, width } if !constant => Step::Modify { op, dst, width, src },
        _ if !constant => Step::Rule(detach(action)),
        _ if lacks_configuration(action) => {
            let message = "a constant without a value";
            return Err(Refusal::new(Errno::Inval, Cause::ActionConf(index), message));
        }
        _ => Step::Constant(Owned::new(action, index)?),
    })
}

#[inline]
fn same_kind(one: &Action<'_>, other: &Action<'_>) -> bool {
    std::mem::discriminant(one) == std::mem::discriminant(other)
}

/// The same action without what it borrows.
fn detach(action: &Action<'_>) -> Action<'static> {
    match *action {
        Action::Rss { .. } => Action::Rss { queues: &[] },
        Action::VxlanEncap(_) => Action::VxlanEncap(&[]),
        Action::RawEncap(_) => Action::RawEncap(&[]),
        Action::RawDecap(_) => Action::RawDecap(&[]),
        Action::Sample { ratio, .. } => Action::Sample { ratio, actions: &[] },
        Action::RepresentedPort(port) => Action::RepresentedPort(port),
        Action::PortId(port) => Action::PortId(port),
        Action::PortRepresentor(port) => Action::PortRepresentor(port),
        Action::Jump(group) => Action::Jump(group),
        Action::Drop => Action::Drop,
        Action::Queue(queue) => Action::Queue(queue),
        Action::Mark(id) => Action::Mark(id),
        Action::Flag => Action::Flag,
        Action::Count => Action::Count,
        Action::Age { timeout_s, context } => Action::Age { timeout_s, context },
        Action::SetTag { index, data, mask } => Action::SetTag { index, data, mask },
        Action::SetMeta { data, mask } => Action::SetMeta { data, mask },
        Action::SetMacSrc(mac) => Action::SetMacSrc(mac),
        Action::SetMacDst(mac) => Action::SetMacDst(mac),
        Action::SetIpv4Src(address) => Action::SetIpv4Src(address),
        Action::SetIpv4Dst(address) => Action::SetIpv4Dst(address),
        Action::SetIpv6Src(address) => Action::SetIpv6Src(address),
        Action::SetIpv6Dst(address) => Action::SetIpv6Dst(address),
        Action::SetTpSrc(port) => Action::SetTpSrc(port),
        Action::SetTpDst(port) => Action::SetTpDst(port),
        Action::SetTtl(ttl) => Action::SetTtl(ttl),
        Action::DecTtl => Action::DecTtl,
        Action::SetIpv4Dscp(dscp) => Action::SetIpv4Dscp(dscp),
        Action::SetIpv6Dscp(dscp) => Action::SetIpv6Dscp(dscp),
        Action::AddTcpSeq(difference) => Action::AddTcpSeq(difference),
        Action::AddTcpAck(difference) => Action::AddTcpAck(difference),
        Action::ModifyField { op, dst, src, width } => Action::ModifyField { op, dst, src, width },
        Action::PopVlan => Action::PopVlan,
        Action::PushVlan(ethertype) => Action::PushVlan(ethertype),
        Action::SetVlanVid(vid) => Action::SetVlanVid(vid),
        Action::SetVlanPcp(pcp) => Action::SetVlanPcp(pcp),
        Action::VxlanDecap => Action::VxlanDecap,
        Action::Meter(id) => Action::Meter(id),
        Action::MeterMark { profile, colour_aware } => Action::MeterMark { profile, colour_aware },
        Action::Indirect(handle) => Action::Indirect(handle),
        Action::Other(kind) => Action::Other(kind),
    }
}

fn lacks_configuration(action: &Action<'_>) -> bool {
    matches!(
        action,
        Action::RepresentedPort(None)
            | Action::PortId(None)
            | Action::PortRepresentor(None)
            | Action::Jump(None)
            | Action::Queue(None)
            | Action::Mark(None)
            | Action::Indirect(None)
            | Action::ModifyField { src: None, .. }
    )
}

/// Whether the template's value stands for all rules.
fn is_constant(action: &Action<'_>, mask: &Action<'_>) -> bool {
    match *mask {
        Action::RepresentedPort(mask) | Action::PortRepresentor(mask) | Action::Queue(mask) => {
            mask.is_some_and(|mask| mask != 0)
        }
        Action::PortId(mask) | Action::Jump(mask) | Action::Mark(mask) => mask.is_some_and(|mask| mask != 0),
        Action::Rss { queues } => !queues.is_empty(),
        Action::VxlanEncap(mask) | Action::RawEncap(mask) => !mask.is_empty(),
        // Only the length counts, and that decides what the device is set up to do.
        Action::RawDecap(_) => true,
        Action::PushVlan(mask) | Action::SetVlanVid(mask) => mask != 0,
        Action::SetVlanPcp(mask) => mask != 0,
        Action::ModifyField { src: mask, .. } => match (action, mask) {
            (Action::ModifyField { src: Some(FieldSource::Field(_)), .. }, _) => true,
            (_, Some(FieldSource::Value(mask))) => mask != [0; 16],
            _ => false,
        },
        Action::MeterMark { profile, .. } => profile != 0,
        Action::Indirect(mask) => mask.is_some(),
        Action::Drop
        | Action::Flag
        | Action::Count
        | Action::DecTtl
        | Action::PopVlan
        | Action::VxlanDecap
        | Action::Sample { .. } => true,
        _ => false,
    }
}
