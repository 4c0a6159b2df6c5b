//! The connection table against a model, by random operations. See `support/table_model.rs`.

use crate::support::table_model::World;
use proptest::prelude::*;

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

/// Found by the fuzz target: a table of eight connections refused the eighth, as all of them had only one
/// and the same bucket of the index's two to go to.
#[test]
fn a_table_of_eight_takes_eight() {
    let mut world = World::new([247, 46, 122, 208]);
    let operations = [
        [0, 208, 19, 19],
        [19, 19, 19, 208],
        [22, 19, 19, 19],
        [19, 42, 4, 0],
        [0, 6, 0, 0],
        [0, 0, 104, 137],
        [47, 45, 255, 251],
        [251, 1, 9, 242],
        [128, 122, 208, 122],
        [208, 22, 0, 0],
        [118, 1, 32, 100],
        [4, 255, 246, 88],
        [0, 254, 0, 255],
        [255, 254, 255, 255],
        [116, 155, 50, 255],
        [255, 255, 255, 255],
        [255, 255, 255, 0],
        [0, 255, 255, 255],
        [0, 155, 191, 100],
        [0, 0, 0, 0],
    ];
    operations.into_iter().for_each(|operation| world.step(operation));
    world.compare_all();
}

/// Found by chance: hardware kept a connection while time leapt by 80 minutes, and let go of it afterwards.
#[test]
fn what_was_put_off_in_a_leap_of_time_goes_a_little_later() {
    let mut world = World::new([158, 81, 3, 61]);
    let operations = [
        [171, 48, 183, 0],
        [48, 94, 0, 0],
        [189, 94, 0, 66],
        [75, 26, 184, 0],
        [27, 0, 0, 0],
        [235, 146, 207, 0],
        [205, 94, 0, 34],
        [107, 32, 23, 0],
    ];
    operations.into_iter().for_each(|operation| world.step(operation));
    world.compare_all();
}
