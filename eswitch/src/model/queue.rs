//! Flow queues: enqueue, push, pull; the application's end and the device's end.
//!
//! ```text
//!  application's thread                                               the device
//!  ┌ FlowQueue ───────────────┐      commands (ring)      ┌ QueueEngine ───────────────────────────┐
//!  │ create, destroy, actions │                           │ one after the other, each for its cost │
//!  │   push: ring a doorbell  │ ── doorbells (ring) ────► │   then its latency ─► install, remove  │
//!  │ pull ◄───────────────────┼────── completions (ring)  │   then its completion's delay ─► report│
//!  │   slots come free        │ ── how many were pulled ► │ counters, ages, meters come free       │
//!  └──────────────────────────┘                           └────────────────────────────────────────┘
//! ```
//!
//! * A rule's handle is valid as soon as its creation is enqueued, and it must be destroyed even if the
//!   completion is an error: until then it occupies its place in the table (as mlx5's do). Before the
//!   completion has been pulled it must not be destroyed (EBUSY).
//! * At most as many operations as the queue is long are outstanding: enqueued and not yet pulled.
//! * Packets hit a rule until its destruction is carried out, which may be long before its completion.
//! * What a destroyed rule occupied comes free when the completion is pulled, never before.
//! * A rule is destroyed through the queue that created it (rte_flow.h, `rte_flow_async_destroy`: the queue
//!   "must match"). mlx5 22.11 does not look; here another queue is refused with EINVAL.
//! * When its port stops, the device forgets a queue's rules and operations; the application's end notices
//!   at its next call, and old handles are refused from then on (ENOENT).
//!
//! Both ends may live on one thread (a simulation, in virtual time) or on two. There are no locks: three
//! bounded rings, and a word that says which life of the port this is and how many destructions were pulled.

mod credits;
mod engine;
mod front;
mod handle;
#[cfg(test)]
mod properties;
mod slots;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crossbeam::queue::ArrayQueue;
use crossbeam::utils::CachePadded;

use super::action::Shared;
use super::objects::meters::Profile as MeterProfile;
use super::profile::Profile;
use super::refusal::{Cause, Errno, Refusal};
use super::types::{RuleHandle, RuleId, Tick, Vport};

pub use credits::{Credits, Needs};
pub use engine::{QueueEngine, QueueStatistics};
pub use front::FlowQueue;

/// What was asked of the device has been done, or not.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Completion {
    /// As given when the operation was enqueued.
    pub user_data: u64,
    /// `RTE_FLOW_OP_SUCCESS`, or `RTE_FLOW_OP_ERROR`.
    pub ok: bool,
}

/// Whose a rule is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Owner {
    /// The port it was created on.
    pub port: Vport,
    /// The queue it was created through.
    pub queue: u8,
    /// What the application calls it.
    pub handle: RuleHandle,
}

/// An operation on an indirect action that the device carries out in the queue's order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ActionOp {
    /// `rte_flow_async_action_handle_destroy`.
    Destroy(Shared),
    /// `rte_flow_async_action_handle_update`.
    Update(Shared, ActionUpdate),
}

/// What to change about an indirect action; `None` stays as it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ActionUpdate {
    /// `rte_flow_update_age`.
    Age {
        /// Another timeout, in seconds.
        timeout_s: Option<u32>,
        /// Count as hit now.
        touch: bool,
    },
    /// `rte_flow_update_meter_mark`.
    Meter {
        /// Another profile: what it says now, as mlx5 copies it when the change is enqueued.
        profile: Option<MeterProfile>,
        /// Whether packets bring a colour.
        colour_aware: Option<bool>,
        /// Whether it meters at all.
        enabled: Option<bool>,
    },
}

/// The device, as a queue's engine sees it.
pub trait Installer<R> {
    /// Puts a rule where packets find it.
    ///
    /// # Errors
    /// Any refusal; the operation completes with an error.
    fn install(&mut self, now: Tick, rule: R, owner: Owner) -> Result<RuleId, Refusal>;

    /// Lets packets no longer find a rule. What it refers to stays until it is released.
    fn remove(&mut self, now: Tick, rule: RuleId);

    /// Frees a removed rule and what is its own: the application has pulled the completion.
    fn release(&mut self, now: Tick, rule: RuleId);

    /// Changes or frees an indirect action.
    ///
    /// # Errors
    /// Any refusal; the operation completes with an error.
    fn act(&mut self, now: Tick, operation: ActionOp) -> Result<(), Refusal>;
}

/// A flow queue to be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QueueAttr {
    /// The port it is configured on.
    pub port: Vport,
    /// Its number.
    pub queue: u8,
    /// Operations that may be outstanding.
    pub size: u32,
    /// What a full queue answers: ENOMEM as DPDK 22.11, or EBUSY as 24.11.
    pub full_errno: Errno,
}

/// Makes a queue: the application's end and the device's.
///
/// # Errors
/// EINVAL for a size of 0 or beyond the profile's, or a number beyond the profile's.
pub fn pair<R>(
    attr: QueueAttr,
    profile: &Profile,
    credits: &Arc<Credits>,
    seed: u64,
) -> Result<(FlowQueue<R>, QueueEngine<R>), Refusal> {
    let refusal = |message| Refusal::new(Errno::Inval, Cause::Unspecified, message);
    if attr.size == 0 || attr.size > profile.queue_depth_max {
        return Err(refusal("a flow queue's size is 1 to the profile's queue_depth_max"));
    }
    if u32::from(attr.queue) >= profile.queues_max.min(super::profile::QUEUES_MAX) {
        return Err(refusal("more flow queues than the profile's queues_max"));
    }
    let joint = Arc::new(Joint {
        commands: ArrayQueue::new(attr.size as usize),
        doorbells: ArrayQueue::new(attr.size as usize),
        completions: ArrayQueue::new(attr.size as usize),
        word: CachePadded::new(AtomicU64::new(Word { epoch: 0, pulled: 0 }.bits())),
        refuse: CachePadded::new(AtomicU32::new(0)),
    });
    let front = FlowQueue::new(attr, Arc::clone(&joint), Arc::clone(credits), seed);
    Ok((front, QueueEngine::new(attr, joint, Arc::clone(credits), profile, seed)))
}

/// What the two ends share.
#[derive(Debug)]
struct Joint<R> {
    /// The device takes of these as many as doorbells allow.
    commands: ArrayQueue<Command<R>>,
    /// Each allows at least one command, so there are never more than commands.
    doorbells: ArrayQueue<Doorbell>,
    completions: ArrayQueue<Done>,
    /// A [`Word`]. The device counts its epoch up, the application its pulled destructions; each by one
    /// atomic exchange, so that neither misses the other's.
    word: CachePadded<AtomicU64>,
    /// The chance, in a million, that a creation is refused at once: a fault.
    refuse: CachePadded<AtomicU32>,
}

/// Which life of the port this is, and how many completions of destructions the application has pulled in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Word {
    epoch: u32,
    pulled: u32,
}

impl Word {
    fn bits(self) -> u64 {
        u64::from(self.epoch) << 32 | u64::from(self.pulled)
    }

    fn of(bits: u64) -> Word {
        Word { epoch: (bits >> 32) as u32, pulled: bits as u32 }
    }
}

impl<R> Joint<R> {
    fn word(&self) -> Word {
        Word::of(self.word.load(Ordering::Acquire))
    }

    /// Replaces the word if it is still `from`; whether it was.
    fn advance(&self, from: Word, to: Word) -> bool {
        let exchanged =
            self.word.compare_exchange(from.bits(), to.bits(), Ordering::AcqRel, Ordering::Acquire);
        exchanged.is_ok()
    }
}

/// From the application to the device.
#[derive(Debug)]
struct Command<R> {
    epoch: u32,
    user_data: u64,
    operation: Operation<R>,
}

/// The device may take so many commands more.
#[derive(Clone, Copy, Debug)]
struct Doorbell {
    epoch: u32,
    commands: u32,
    at: Tick,
}

#[derive(Debug)]
enum Operation<R> {
    Create {
        handle: RuleHandle,
        slot: u32,
        /// How full the table is with this rule: rules and capacity.
        fill: (u32, u32),
        rule: R,
    },
    Destroy {
        slot: u32,
        needs: Needs,
    },
    Action(ActionOp),
    /// Something that was done when it was enqueued, and now has its completion.
    Completed,
}

/// From the device to the application.
#[derive(Clone, Copy, Debug)]
struct Done {
    epoch: u32,
    user_data: u64,
    ok: bool,
    kind: DoneKind,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum DoneKind {
    Created(u32),
    Destroyed(u32),
    Other,
}
