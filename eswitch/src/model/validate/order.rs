//! The order of actions that the steering library accepts: decapsulate, pop, edit, push, encapsulate, fate.
//!
//! mlx5's driver hands a rule's actions to rdma-core in the application's order, the edits together at the
//! place of the first, counters and receive queues at the end. There each half of the FDB, from the wire
//! and from the vports, has a state machine. What it refuses is ENOTSUP ("hardware refuses to create flow").
//! A meter, and a sample, split a rule in two; each part starts afresh.

use super::items::{Source, Walk};
use super::{Request, unsupported};
use crate::model::refusal::{Cause, Refusal};

/// An action as the steering library knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Op {
    Drop,
    Queue,
    Table,
    Vport,
    Tag,
    Count,
    FirstHit,
    Decap,
    Encap,
    Modify,
    Pop,
    Push,
    /// Not an action: the rule goes on as another.
    Split,
}

/// More than the longest list: `Limits::max_actions` and what is put at the end.
const LENGTH: usize = 24;

/// The actions of one rule, in the order in which the library gets them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sequence {
    ops: [Op; LENGTH],
    length: usize,
    modified: bool,
    count: bool,
    fate: Option<Op>,
}

impl Default for Sequence {
    fn default() -> Sequence {
        Sequence { ops: [Op::Count; LENGTH], length: 0, modified: false, count: false, fate: None }
    }
}

impl Sequence {
    pub(super) fn push(&mut self, op: Op) {
        if let Some(slot) = self.ops.get_mut(self.length) {
            *slot = op;
            self.length += 1;
        }
    }

    /// An edit: only the first has a place.
    pub(super) fn modify(&mut self) {
        if !self.modified {
            self.modified = true;
            self.push(Op::Modify);
        }
    }

    pub(super) fn count(&mut self) {
        self.count = true;
    }

    pub(super) fn split(&mut self) {
        self.modified = false;
        self.push(Op::Split);
    }

    /// A fate that goes last wherever it stands.
    pub(super) fn fate(&mut self, op: Op) {
        self.fate = Some(op);
    }

    /// With a count, an age is the counter's business.
    pub(super) fn age_by_counter(&mut self) {
        for op in self.ops.iter_mut().filter(|op| **op == Op::FirstHit) {
            *op = Op::Count;
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Side {
    NicRx,
    FromWire,
    FromVport,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Start,
    Decap,
    Modify,
    Pop,
    Push,
    Encap,
    Aso,
    End,
}

/// Runs the machines of the halves that the rule goes into.
pub(super) fn check(request: &Request<'_>, walk: &Walk<'_>, sequence: &Sequence) -> Result<(), Refusal> {
    if !request.attr.transfer {
        return run(Side::NicRx, sequence);
    }
    let (wire, vport) = match walk.source {
        Source::Any => (true, true),
        Source::Manager => (false, true),
        Source::Vport(vport) => {
            let wire = request.context.topology.is_uplink(vport);
            (wire, !wire)
        }
    };
    if wire {
        run(Side::FromWire, sequence)?;
    }
    if vport {
        run(Side::FromVport, sequence)?;
    }
    Ok(())
}

fn run(side: Side, sequence: &Sequence) -> Result<(), Refusal> {
    let tail = [sequence.count.then_some(Op::Count), sequence.fate];
    let ops = sequence.ops[..sequence.length].iter().copied().chain(tail.into_iter().flatten());
    let mut state = State::Start;
    for op in ops {
        state = next(side, state, op).ok_or_else(|| refused(side, state, op))?;
    }
    Ok(())
}

fn refused(side: Side, state: State, op: Op) -> Refusal {
    let message = match (side, op, state) {
        (Side::FromVport, Op::Decap, State::Start) => {
            "hardware refuses the rule: packets from a host's function cannot be decapsulated"
        }
        (Side::FromWire | Side::FromVport, Op::Tag, _) => {
            "hardware refuses the rule: mark and flag need dv_xmeta_en=1 or 2 in transfer rules"
        }
        (_, Op::FirstHit, State::End) => {
            "hardware refuses the rule: put the age before the fate, or add a count"
        }
        (_, _, State::End) => "hardware refuses the rule: nothing but a count may follow the port or jump",
        _ => "hardware refuses the rule: the order is decapsulate, pop, edit, push, encapsulate, fate",
    };
    unsupported(Cause::Unspecified, message)
}

/// rdma-core's table, condensed. `None`: refused.
fn next(side: Side, state: State, op: Op) -> Option<State> {
    let fdb = side != Side::NicRx;
    let from_vport = side == Side::FromVport;
    match (op, state) {
        (Op::Split, _) => Some(State::Start),
        (Op::Count, _) => Some(state),
        (_, State::End) => None,
        (Op::FirstHit, State::Encap) if !from_vport => Some(State::Aso),
        (Op::FirstHit, _) => Some(state),
        (Op::Drop, State::Start) => Some(State::End),
        (Op::Drop, _) => None,
        (Op::Table, _) => Some(State::End),
        (Op::Vport, _) => fdb.then_some(State::End),
        (Op::Queue, _) => (!fdb).then_some(State::End),
        (Op::Tag, State::Aso) => None,
        (Op::Tag, _) => (!fdb).then_some(state),
        (Op::Decap, State::Start) => (!from_vport).then_some(State::Decap),
        (Op::Modify, State::Start | State::Decap | State::Pop) => Some(State::Modify),
        (Op::Pop, State::Start | State::Decap | State::Pop) => Some(State::Pop),
        (Op::Push, State::Start | State::Decap | State::Modify | State::Push) => Some(State::Push),
        (Op::Push, State::Pop) => from_vport.then_some(State::Push),
        (Op::Encap, State::Start | State::Decap | State::Modify | State::Pop | State::Push) => {
            Some(State::Encap)
        }
        _ => None,
    }
}
