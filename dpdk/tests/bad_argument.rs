//! An EAL that refuses its arguments: a process of its own, because it cannot be started again.

use dpdk::{Eal, EalError};

#[test]
fn a_refused_start_says_why_and_is_final() {
    let args = ["--no-huge", "--no-shconf", "--no-pci", "--log-level=*:critical", "-l", "9999"];
    match Eal::init(&args) {
        Err(EalError::Init { arguments, errno }) => {
            assert_eq!(arguments, args);
            assert_eq!(errno, dpdk::Errno::INVAL);
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(Eal::init(&["--no-huge"]), Err(EalError::AlreadyStarted)));
}
