//! The raw room: DPDK's C interface as Rust sees it, generated at build time from the headers that are
//! installed. No opinions; `dpdk` owns those.
//!
//! Three things live here: functions and types bound as they are (the list is in `build.rs`), `millrace_`
//! functions for what DPDK's headers only inline, and `MILLRACE_` constants for macros that are
//! expressions (both in `shim.h`; for flow rules, in `flow.h`).

mod bindings {
    // Some of the lints below are younger than our oldest compiler.
    #![allow(unknown_lints)]
    // Generated: C's names, C's documentation, and accessors for C's bit fields.
    #![allow(
        missing_docs,
        non_camel_case_types,
        non_snake_case,
        non_upper_case_globals,
        unnecessary_transmutes,
        unreachable_pub,
        unsafe_op_in_unsafe_fn,
        clippy::all,
        clippy::pedantic,
        clippy::undocumented_unsafe_blocks
    )]

    include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
}

pub use bindings::*;
