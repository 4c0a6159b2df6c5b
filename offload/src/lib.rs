//! The hardware room: what to offload and when, how it is spelled as `rte_flow`, and the engines that
//! carry it out.
//!
//! So far only the vocabulary exists, in [`dataplane::offload`], because every connection already
//! carries its offload state. Nothing is offloaded yet.

pub use dataplane::offload::{Declined, FlowRef, OffloadState, RuleId, Token};
