//! Any frames through a device whose rules do all there is to do to a frame.

#![no_main]

#[path = "../../eswitch/tests/suite/support/rich.rs"]
mod rich;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    rich::forward(data);
});
