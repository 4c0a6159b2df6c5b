//! `sample` in SWS rules: mirroring, and what it may be combined with.

use super::actions::{State, check_encap, check_mark, check_queues, no_queues, port};
use super::layers::done;
use super::{invalid, unsupported};
use crate::model::action::Action;
use crate::model::refusal::{Cause, Refusal};
use crate::model::types::Vport;

/// A mirror in the FDB: where copies go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Mirror {
    to: Option<Vport>,
    encapsulates: bool,
}

/// The action itself, where it stands. Faults inside it are blamed on it.
pub(super) fn check(
    state: &mut State<'_, '_>,
    ratio: u32,
    actions: &[Action<'_>],
    at: usize,
) -> Result<(), Refusal> {
    if ratio == 0 {
        return Err(invalid(Cause::Action(at), "a sample's ratio is 1 or more"));
    }
    if state.has(done::SAMPLE) {
        return Err(invalid(Cause::Action(at), "only one sample in a rule"));
    }
    if state.has(done::METER) {
        return Err(invalid(Cause::Action(at), "a sample comes before a meter"));
    }
    if state.has(done::JUMP) {
        return Err(invalid(Cause::Action(at), "a sample comes before a jump"));
    }
    let (sub, to) = inner(state, actions, at)?;
    if state.request.attr.transfer {
        if !actions.is_empty() {
            mirror(sub, ratio, at)?;
            state.mirror = Some(Mirror { to, encapsulates: sub & done::ENCAP != 0 });
        }
    } else {
        if sub & (done::QUEUE | done::RSS) == 0 {
            return Err(invalid(
                Cause::Action(at),
                "a sample in an ingress rule needs a queue or rss of its own",
            ));
        }
        if sub & done::ENCAP != 0 {
            return Err(unsupported(Cause::Action(at), "an encapsulation does not go with ingress"));
        }
    }
    state.done |= done::SAMPLE | (sub & done::COUNT);
    state.actions += 1;
    state.sequence.split();
    Ok(())
}

/// The copies' own actions.
fn inner(state: &State<'_, '_>, actions: &[Action<'_>], at: usize) -> Result<(u32, Option<Vport>), Refusal> {
    let request = state.request;
    let mut sub = 0;
    let mut to = None;
    let mut count = 0;
    for action in actions {
        if count >= request.context.limits.max_actions {
            return Err(unsupported(Cause::Action(at), "too many actions in a sample: 8"));
        }
        count += 1;
        sub |= match *action {
            Action::Queue(queue) => {
                check_queues(request, queue.as_slice(), sub, at)?;
                done::QUEUE
            }
            Action::Rss { queues: [] } => return Err(no_queues(at)),
            Action::Rss { queues } => {
                check_queues(request, queues, sub, at)?;
                done::RSS
            }
            Action::Mark(_) => check_mark(request, action, sub, at)?,
            Action::Count if (state.done | sub) & done::COUNT != 0 => {
                return Err(invalid(Cause::Action(at), "only one count in a rule, its sample included"));
            }
            Action::Count => done::COUNT,
            Action::RepresentedPort(id) => {
                to = Some(port(request, id.map(u32::from), sub, at)?);
                done::PORT
            }
            Action::PortId(id) => {
                to = Some(port(request, id, sub, at)?);
                done::PORT
            }
            Action::RawEncap(headers) if headers.len() <= super::actions::SMALL && !headers.is_empty() => {
                return Err(unsupported(
                    Cause::Action(at),
                    "raw_encap is too short for a tunnel: over 34 bytes",
                ));
            }
            Action::RawEncap(headers) | Action::VxlanEncap(headers) => {
                check_encap(request, headers, sub, at)?;
                // mlx5 counts a raw encapsulation twice here.
                count += u32::from(matches!(action, Action::RawEncap(_)));
                done::ENCAP
            }
            _ => return Err(unsupported(Cause::Action(at), "a sample cannot contain this action")),
        };
    }
    Ok((sub, to))
}

/// A sample with actions in a transfer rule is a mirror.
fn mirror(sub: u32, ratio: u32, at: usize) -> Result<(), Refusal> {
    if ratio > 1 {
        return Err(unsupported(Cause::Action(at), "the eSwitch mirrors all packets or none: ratio 1"));
    }
    if sub & (done::QUEUE | done::RSS) != 0 {
        return Err(unsupported(
            Cause::Action(at),
            "copies cannot go to queues from a transfer rule: name a port",
        ));
    }
    if sub & done::PORT == 0 {
        return Err(invalid(Cause::Action(at), "a mirror needs a port for the copies"));
    }
    Ok(())
}

/// What only the whole list shows.
pub(super) fn finish(state: &State<'_, '_>, mirror: Mirror) -> Result<(), Refusal> {
    let is_representor =
        |to: Option<Vport>| to.is_some_and(|to| !state.request.context.topology.is_uplink(to));
    let counted = state.has(done::AGE) && state.has(done::COUNT);
    if state.aso_after_sample && (!counted || state.has(done::METER)) {
        return Err(unsupported(Cause::Actions, "an age without a count comes before the sample"));
    }
    if mirror.to.is_some() {
        if is_representor(mirror.to) {
            if mirror.encapsulates {
                return Err(unsupported(
                    Cause::Actions,
                    "copies to a host's function cannot be encapsulated",
                ));
            }
        } else if !mirror.encapsulates && state.has(done::JUMP) {
            return Err(unsupported(
                Cause::Actions,
                "a rule that jumps can mirror to the wire with an encapsulation only",
            ));
        }
    }
    if state.has(done::ENCAP) && is_representor(state.to) {
        return Err(unsupported(
            Cause::Actions,
            "a mirroring rule cannot encapsulate towards a host's function",
        ));
    }
    Ok(())
}
