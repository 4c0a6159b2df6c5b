//! A BlueField eSwitch in software.
//!
//! Three rooms:
//!
//! * [`model`]: what the silicon and its firmware do, pure: tables, matching, header rewrite, counters,
//!   ageing, meters, limits and lateness. Time is an argument, randomness is seeded; no FFI, no threads.
//! * `pmd` (feature `pmd`): a DPDK poll-mode driver, `net_eswitch`, around the model. A plugin that any
//!   DPDK program loads with `-d`.
//! * [`testbed`]: what a device was measured in, in virtual time: wires, queues, loss and delay around it.
//!
//! What is modelled is mlx5 as DPDK 22.11 drives it: *SWS*, software steering (`dv_flow_en=1`, the
//! synchronous flow API), and *HWS*, hardware steering (`dv_flow_en=2`, templates and flow queues).
//! Everything this crate computes is a MODEL of such a device, never a measurement of one.

pub mod model;
#[cfg(feature = "pmd")]
mod pmd;
pub mod testbed;
