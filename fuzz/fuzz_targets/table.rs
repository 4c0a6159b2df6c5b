//! Sequences of operations on the connection table beside its model: the first four bytes choose the
//! sizes, each further four are one operation.

#![no_main]

#[path = "../../dataplane/tests/suite/support/table_model.rs"]
mod table_model;

use libfuzzer_sys::fuzz_target;
use table_model::World;

fuzz_target!(|data: &[u8]| {
    let mut chunks = data.chunks_exact(4).map(|chunk| [chunk[0], chunk[1], chunk[2], chunk[3]]);
    let Some(shape) = chunks.next() else { return };
    let mut world = World::new(shape);
    chunks.for_each(|operation| world.step(operation));
    world.compare_all();
});
