//! Words that are not EAL's: a process of its own, because the EAL starts before it is known.

mod common;

use dpdk::{Eal, EalError};

#[test]
fn a_word_that_is_no_option_is_reported() {
    let mut args = common::EAL_ARGS.to_vec();
    args.extend(["--", "extra"]);
    match Eal::init(&args) {
        Err(EalError::UnknownArgument(argument)) => assert_eq!(argument, "extra"),
        other => panic!("{other:?}"),
    }
}
