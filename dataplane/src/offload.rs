//! The vocabulary spoken between a worker, which owns every connection, and the offload engine.
//!
//! Nothing here talks to hardware: the `offload` crate does. The two sides exchange small copies of
//! these types and never pointers.

use crate::ids::WorkerId;

/// The name of a connection: the worker that owns it, its slot there and the slot's generation. A name
/// outlives its connection harmlessly: once the slot is recycled the generation no longer matches.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FlowRef {
    /// The owner.
    pub worker: WorkerId,
    /// Index into the owner's table.
    pub slot: u32,
    /// How often the slot had been taken when this name was given.
    pub generation: u32,
}

/// A request under way, chosen by the worker, returned in the completion.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Token(pub u32);

/// A rule pair in hardware, as the offload engine numbers it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RuleId(pub u32);

/// Why a connection stays in software.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Declined {
    /// No engine: the ports have no usable rte_flow.
    NoEngine,
    /// The budget of rules or insertions is spent.
    Budget,
    /// The hardware table is full.
    TableFull,
    /// The driver refused the rule.
    Refused,
    /// The hardware reported an error after accepting the rule.
    Failed,
}

/// The hardware half of a connection, owned by the worker's entry.
///
/// ```text
/// Software --request--> Requested --completion ok--> Installed
///                           |                            |
///                    refused/failed            fin/rst/age/evict/policy
///                           v                            v
///                   Declined(reason)                 Removing --completion--> Software
/// ```
///
/// Only a completion makes `Installed`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OffloadState {
    /// Forwarded by software; nothing asked for.
    #[default]
    Software,
    /// Asked for, not yet answered.
    Requested(Token),
    /// Forwarded by hardware.
    Installed(RuleId),
    /// Being taken out; hardware may still forward.
    Removing(RuleId),
    /// Tried or considered, and refused.
    Declined(Declined),
}

const _: () = assert!(core::mem::size_of::<OffloadState>() == 8);
