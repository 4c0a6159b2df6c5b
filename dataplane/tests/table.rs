//! The connection table against a model, by random operations. See `support/table_model.rs`.

#[path = "support/table_model.rs"]
mod table_model;

use proptest::prelude::*;
use table_model::World;

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 4 } else { 1024 }, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_its_model(
        shape: [u8; 4],
        operations in prop::collection::vec(any::<[u8; 4]>(), 0..400),
    ) {
        let mut world = World::new(shape);
        operations.into_iter().for_each(|operation| world.step(operation));
        world.compare_all();
    }
}
