//! A source and sink of packets in memory, to measure a dataplane without a NIC.
//!
//! The pure part, in reading order: [`args`], what the user asks for; [`order`], which flow comes next;
//! [`frame`], its packet; [`pace`], how many are due; [`source`], these together, with connections that
//! come and go; [`stamp`], the time in a packet; [`answer`], what the far end says to a packet; [`check`],
//! whether a packet's checksums are right; [`histogram`], how long things took. No FFI, no clock: time is an
//! argument.
//!
//! `pmd` (feature `pmd`): a DPDK poll-mode driver, `net_traffic`, around it. A plugin that any DPDK program
//! loads with `-d`.

pub mod answer;
pub mod args;
pub mod check;
pub mod frame;
pub mod histogram;
pub mod order;
pub mod pace;
#[cfg(feature = "pmd")]
mod pmd;
pub mod source;
pub mod stamp;
