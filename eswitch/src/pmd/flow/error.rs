//! A [`Refusal`] becomes `rte_flow_error`, `rte_errno` and the number that a call returns.

use std::ffi::{CStr, CString, c_int, c_void};
use std::ptr;
use std::sync::OnceLock;

use super::items::ELEMENTS_MAX;
use crate::model::refusal::{Cause, Refusal};
use crate::pmd::ffi;

/// The lists that a refusal's indices count in; null where a call has none.
#[derive(Clone, Copy)]
pub(super) struct Lists {
    pub(super) pattern: *const ffi::rte_flow_item,
    pub(super) actions: *const ffi::rte_flow_action,
}

impl Lists {
    /// No lists.
    pub(super) const NONE: Lists = Lists { pattern: ptr::null(), actions: ptr::null() };
}

/// Tells the application; returns the negative errno.
///
/// # Safety
/// `error` is null or may be written. `lists` are null or the lists that the refused call was given, alive,
/// and read up to the element that the refusal's cause counts or up to their end.
pub(super) unsafe fn report(error: *mut ffi::rte_flow_error, refusal: Refusal, lists: Lists) -> c_int {
    // SAFETY: the caller's promise.
    let (kind, cause) = unsafe { locate(refusal.cause, lists) };
    let message = c_message(refusal.message).as_ptr();
    // SAFETY: `error` is null or may be written; the message lives as long as the driver.
    unsafe { ffi::rte_flow_error_set(error, refusal.errno as c_int, kind, cause, message) }
}

/// `rte_flow_error`'s type and the object at fault: the part if there is one, else the whole.
///
/// # Safety
/// As for [`report`].
unsafe fn locate(cause: Cause, lists: Lists) -> (ffi::rte_flow_error_type, *const c_void) {
    type Part = fn(&ffi::rte_flow_item) -> *const c_void;
    let item = |index, part: Part| {
        // SAFETY: the caller's promise.
        unsafe { nth_item(lists.pattern, index) }.map_or(ptr::null(), |item| part_or_whole(part(item), item))
    };
    // SAFETY: the caller's promise.
    let action = |index| unsafe { nth_action(lists.actions, index) };
    match cause {
        Cause::Unspecified => (ffi::RTE_FLOW_ERROR_TYPE_UNSPECIFIED, ptr::null()),
        Cause::Handle => (ffi::RTE_FLOW_ERROR_TYPE_HANDLE, ptr::null()),
        Cause::Group => (ffi::RTE_FLOW_ERROR_TYPE_ATTR_GROUP, ptr::null()),
        Cause::Priority => (ffi::RTE_FLOW_ERROR_TYPE_ATTR_PRIORITY, ptr::null()),
        Cause::Ingress => (ffi::RTE_FLOW_ERROR_TYPE_ATTR_INGRESS, ptr::null()),
        Cause::Egress => (ffi::RTE_FLOW_ERROR_TYPE_ATTR_EGRESS, ptr::null()),
        Cause::Transfer => (ffi::RTE_FLOW_ERROR_TYPE_ATTR_TRANSFER, ptr::null()),
        Cause::Attr => (ffi::RTE_FLOW_ERROR_TYPE_ATTR, ptr::null()),
        Cause::ItemNum => (ffi::RTE_FLOW_ERROR_TYPE_ITEM_NUM, lists.pattern.cast()),
        Cause::ItemSpec(index) => (ffi::RTE_FLOW_ERROR_TYPE_ITEM_SPEC, item(index, |item| item.spec)),
        Cause::ItemLast(index) => (ffi::RTE_FLOW_ERROR_TYPE_ITEM_LAST, item(index, |item| item.last)),
        Cause::ItemMask(index) => (ffi::RTE_FLOW_ERROR_TYPE_ITEM_MASK, item(index, |item| item.mask)),
        Cause::Item(index) => (ffi::RTE_FLOW_ERROR_TYPE_ITEM, item(index, |_| ptr::null())),
        Cause::ActionNum => (ffi::RTE_FLOW_ERROR_TYPE_ACTION_NUM, lists.actions.cast()),
        Cause::Actions => (ffi::RTE_FLOW_ERROR_TYPE_ACTION, lists.actions.cast()),
        Cause::ActionConf(index) => (
            ffi::RTE_FLOW_ERROR_TYPE_ACTION_CONF,
            action(index).map_or(ptr::null(), |action| part_or_whole(action.conf, action)),
        ),
        Cause::Action(index) => (
            ffi::RTE_FLOW_ERROR_TYPE_ACTION,
            action(index).map_or(ptr::null(), |action| ptr::from_ref(action).cast()),
        ),
    }
}

fn part_or_whole<T>(part: *const c_void, whole: &T) -> *const c_void {
    if part.is_null() { ptr::from_ref(whole).cast() } else { part }
}

/// The `index`-th element that is not `void`.
///
/// # Safety
/// `raw` is null or a list that exists up to that element or its end.
unsafe fn nth_item<'a>(raw: *const ffi::rte_flow_item, index: usize) -> Option<&'a ffi::rte_flow_item> {
    if raw.is_null() {
        return None;
    }
    // SAFETY: the iteration goes no further than the list (the caller's promise).
    (0..ELEMENTS_MAX)
        .map(|at| unsafe { &*raw.add(at) })
        .take_while(|element| element.type_ != ffi::RTE_FLOW_ITEM_TYPE_END)
        .filter(|element| element.type_ != ffi::RTE_FLOW_ITEM_TYPE_VOID)
        .nth(index)
}

/// The `index`-th element that is not `void`.
///
/// # Safety
/// `raw` is null or a list that exists up to that element or its end.
unsafe fn nth_action<'a>(raw: *const ffi::rte_flow_action, index: usize) -> Option<&'a ffi::rte_flow_action> {
    if raw.is_null() {
        return None;
    }
    // SAFETY: the iteration goes no further than the list (the caller's promise).
    (0..ELEMENTS_MAX)
        .map(|at| unsafe { &*raw.add(at) })
        .take_while(|element| element.type_ != ffi::RTE_FLOW_ACTION_TYPE_END)
        .filter(|element| element.type_ != ffi::RTE_FLOW_ACTION_TYPE_VOID)
        .nth(index)
}

/// Messages kept as C strings at most. The crate has far fewer.
const MESSAGES_MAX: usize = 1024;

/// One literal of the program and its copy with a zero at the end.
struct Interned {
    literal: &'static str,
    text: CString,
}

/// The copies, found by the literal's address. Written once each, read without a lock.
static MESSAGES: [OnceLock<Interned>; MESSAGES_MAX] = [const { OnceLock::new() }; MESSAGES_MAX];

/// A message as C wants it. It lives as long as the driver.
pub(in crate::pmd) fn c_message(message: &'static str) -> &'static CStr {
    let start = message.as_ptr().addr().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    for probe in 0..64 {
        let interned = MESSAGES[(start + probe) % MESSAGES_MAX].get_or_init(|| Interned {
            literal: message,
            text: CString::new(message).unwrap_or_else(|_| c"refused".to_owned()),
        });
        if ptr::eq(interned.literal, message) {
            return &interned.text;
        }
    }
    c"refused"
}

/// Reads a message back.
///
/// # Safety
/// `message` is null or a C string that lives for `'a`.
#[cfg(test)]
pub(super) unsafe fn text<'a>(message: *const std::ffi::c_char) -> &'a str {
    if message.is_null() {
        return "";
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(message) }.to_str().unwrap_or("not UTF-8")
}
