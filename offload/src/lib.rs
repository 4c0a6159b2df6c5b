//! The hardware room: what to offload and when, how it is spelled as `rte_flow`, and the engines that
//! carry it out.
//!
//! The life of a rule:
//!
//! ```text
//! worker: ask ─▶ admission ─▶ lowering ─▶ engine: install ─▶ completion ─▶ worker: Installed
//!                    │            │               │
//!                    └────────────┴───────────────┴─▶ worker: Declined(reason, retry)
//!
//! worker: revoke ─┐
//! idle, evicted ──┼─▶ engine: remove ─▶ completion ─▶ worker: Removed ─▶ last counts ─▶ release
//! configuration ──┘
//! ```

pub mod admission;
pub mod colours;
pub mod counters;
pub mod engine;
pub mod lower;
pub mod machine;
pub mod rule;
pub mod share;
pub mod testpmd;

pub use dataplane::offload::{
    Answer, Ask, Declined, FlowRef, Leg, OffloadState, Removal, Revocation, Revoke, RuleId, Token,
};
