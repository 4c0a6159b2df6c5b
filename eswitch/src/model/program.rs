//! What a rule does to a packet that it matches.
//!
//! [`Program::compile`] turns an action list into a [`Program`], once, away from any packet: what is
//! counted, how the rule ages, what happens to the bytes ([`Edits`]) and where the packet goes ([`Fate`]).
//! Templates fix part of that beforehand: [`ActionsTemplate`]. Legality is [`validate`](super::validate)'s
//! business; whatever is compiled here without having been validated is refused or does something harmless.
//!
//! The edits are done in mlx5's order. Hardware steering: decapsulate, pop tags, push tags, rewrite,
//! encapsulate (`drivers/net/mlx5/hws/mlx5dr_action.c` of DPDK 22.11). Software steering makes all rewrites
//! one action at the place of the first (`flow_dv_translate`), which rdma-core's `providers/mlx5/dr_action.c`
//! takes before pushed tags only: there, rewrites come before pushes, wherever they stand in the list.

mod build;
mod checksum;
mod command;
mod describe;
mod edits;
mod entropy;
mod place;
mod reshape;
mod rewrite;
mod template;
#[cfg(test)]
mod tests;

pub use edits::Edits;
pub use reshape::ENCAP_MAX;
pub use template::ActionsTemplate;

use super::action::Action;
use super::refusal::Refusal;
use super::types::{AgeId, CounterId, MeterId, Topology, Vport};

/// What [`Action::Flag`] leaves in the mark register. mlx5's driver does the same, and delivers such a packet
/// flagged but without a mark's value (`MLX5_FLOW_MARK_DEFAULT`, `drivers/common/mlx5/mlx5_prm.h`).
pub const FLAG_MARK: u32 = 0xff_ffff;

/// Which counter.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum CounterUse {
    /// None.
    #[default]
    None,
    /// One of the rule's own, to be had at insertion.
    Own,
    /// An indirect handle's.
    Is(CounterId),
}

/// Which age context.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum AgeUse {
    /// None.
    #[default]
    None,
    /// One of the rule's own, to be had at insertion.
    Own {
        /// Seconds without a hit.
        timeout_s: u32,
        /// What to report; 0: what the engine falls back on.
        context: u64,
    },
    /// An indirect handle's.
    Is(AgeId),
}

/// Which meter.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum MeterUse {
    /// None.
    #[default]
    None,
    /// One of `rte_mtr`, by the application's id.
    Mtr(u32),
    /// One of the rule's own, to be had at insertion (`METER_MARK`).
    Mark {
        /// The profile's number.
        profile: u32,
        /// Whether the packet's colour is taken into account.
        colour_aware: bool,
    },
    /// An indirect handle's.
    Is(MeterId),
}

/// Where the packet goes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Fate {
    /// The list has none: legal in a mirror's place only.
    #[default]
    None,
    /// To what a port represents.
    Vport(Vport),
    /// On to this group.
    Jump(u32),
    /// Nowhere.
    Drop,
    /// To one of these receive queues, at least one.
    Queues(Box<[u16]>),
    /// To one of an indirect RSS object's queues.
    SharedQueues(u32),
}

/// A copy of some packets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mirror {
    /// One packet in this many is copied; 1: each.
    pub ratio: u32,
    /// What happens to the copy of the packet as it came in: the edits that precede the `sample` in the
    /// list, then its own, and its own fate.
    pub program: Program,
}

/// A compiled action list. A NAT rule's takes 96 bytes with IPv4, 152 with IPv6.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Program {
    /// What happens to the bytes and registers.
    pub edits: Edits,
    /// What is counted.
    pub counter: CounterUse,
    /// How the rule ages.
    pub age: AgeUse,
    /// What is metered.
    pub meter: MeterUse,
    /// What is copied.
    pub mirror: Option<Box<Mirror>>,
    /// Where the packet goes.
    pub fate: Fate,
}

impl Program {
    /// Compiles an action list that has been validated.
    ///
    /// # Errors
    /// EINVAL for what names nothing, is missing, or is there twice; ENOTSUP for what no device does.
    pub fn compile(actions: &[Action<'_>], topology: &Topology) -> Result<Program, Refusal> {
        build::compile(actions, topology)
    }
}

#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Program>() == 96);
