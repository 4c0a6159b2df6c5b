//! Sequences of operations on an eSwitch: rules, tables, queues, objects, faults, time and packets. What
//! holds after each, and what must be left after all, is the machine's business.

#![no_main]

#[path = "../../eswitch/tests/suite/support/machine.rs"]
mod machine;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // The first byte also decides the seed, so that an input says it all.
    let seed = u64::from(data.first().copied().unwrap_or(0));
    machine::run(data, seed);
});
