//! What the application is told.

use std::ffi::c_int;
use std::ptr;

use super::super::error::{Lists, c_message, report, text};
use crate::model::refusal::{Cause, Errno, Refusal};
use crate::pmd::ffi;

fn told(refusal: Refusal, lists: Lists) -> (c_int, ffi::rte_flow_error) {
    let mut error = ffi::rte_flow_error::default();
    // SAFETY: the lists end.
    let code = unsafe { report(&raw mut error, refusal, lists) };
    (code, error)
}

#[test]
fn the_cause_is_the_element_itself() {
    let (spec, mask) = ([0_u8; 14], [0_u8; 14]);
    let void = ffi::rte_flow_item { type_: ffi::RTE_FLOW_ITEM_TYPE_VOID, ..Default::default() };
    let eth = ffi::rte_flow_item {
        type_: ffi::RTE_FLOW_ITEM_TYPE_ETH,
        spec: spec.as_ptr().cast(),
        last: ptr::null(),
        mask: mask.as_ptr().cast(),
    };
    let pattern = [void, eth, void, eth, ffi::rte_flow_item::default()];
    let conf = 0_u32;
    let actions = [
        ffi::rte_flow_action { type_: ffi::RTE_FLOW_ACTION_TYPE_VOID, conf: ptr::null() },
        ffi::rte_flow_action { type_: ffi::RTE_FLOW_ACTION_TYPE_JUMP, conf: (&raw const conf).cast() },
        ffi::rte_flow_action { type_: ffi::RTE_FLOW_ACTION_TYPE_QUEUE, conf: ptr::null() },
        ffi::rte_flow_action::default(),
    ];
    let lists = Lists { pattern: pattern.as_ptr(), actions: actions.as_ptr() };
    let whole = |place: &ffi::rte_flow_item| ptr::from_ref(place).cast();
    let cases = [
        (Cause::Item(1), ffi::RTE_FLOW_ERROR_TYPE_ITEM, whole(&pattern[3])),
        (Cause::ItemSpec(0), ffi::RTE_FLOW_ERROR_TYPE_ITEM_SPEC, spec.as_ptr().cast()),
        (Cause::ItemMask(1), ffi::RTE_FLOW_ERROR_TYPE_ITEM_MASK, mask.as_ptr().cast()),
        (Cause::ItemLast(1), ffi::RTE_FLOW_ERROR_TYPE_ITEM_LAST, whole(&pattern[3])),
        (Cause::Item(2), ffi::RTE_FLOW_ERROR_TYPE_ITEM, ptr::null()),
        (Cause::ActionConf(0), ffi::RTE_FLOW_ERROR_TYPE_ACTION_CONF, (&raw const conf).cast()),
        (Cause::ActionConf(1), ffi::RTE_FLOW_ERROR_TYPE_ACTION_CONF, (&raw const actions[2]).cast()),
        (Cause::Action(1), ffi::RTE_FLOW_ERROR_TYPE_ACTION, (&raw const actions[2]).cast()),
        (Cause::Attr, ffi::RTE_FLOW_ERROR_TYPE_ATTR, ptr::null()),
    ];
    for (cause, kind, object) in cases {
        let (code, error) = told(Refusal::new(Errno::Inval, cause, "no"), lists);
        assert_eq!((code, error.type_, error.cause), (-22, kind, object), "{cause:?}");
        // SAFETY: the driver's own string.
        assert_eq!(unsafe { text(error.message) }, "no");
    }
    // SAFETY: it only reads a thread's number.
    assert_eq!(unsafe { ffi::eswitch_errno() }, 22);
}

#[test]
fn no_error_structure_is_no_error() {
    // SAFETY: null is legal for all three.
    let code =
        unsafe { report(ptr::null_mut(), Refusal::new(Errno::Notsup, Cause::Item(3), "no"), Lists::NONE) };
    assert_eq!(code, -95);
}

#[test]
fn a_message_is_kept_once() {
    let first = c_message("a message");
    assert_eq!(first.to_str(), Ok("a message"));
    assert!(ptr::eq(first, c_message("a message")) || first == c_message("a message"));
    let literal = "another, of which a part is taken";
    assert_eq!(c_message(&literal[..7]).to_str(), Ok("another"));
    assert_eq!(c_message(literal).to_str(), Ok(literal));
    assert!(ptr::eq(c_message(literal), c_message(literal)));
}
