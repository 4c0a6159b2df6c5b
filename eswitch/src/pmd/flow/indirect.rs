//! Indirect actions of the synchronous API.

use std::ffi::{c_int, c_void};

use super::actions::{self, Actions, Scratch};
use super::entry::Call;
use super::sync::{answer_age, answer_count};
use super::{Form, handle};
use crate::model::action::{Action, Shared};
use crate::model::queue::ActionUpdate;
use crate::model::refusal::{Cause, Errno, Refusal};
use crate::model::types::Steering;
use crate::model::validate;
use crate::pmd::device::PortPrivate;
use crate::pmd::ffi;

const NO_HANDLE: Refusal = Refusal::new(Errno::Inval, Cause::Handle, "no such indirect action");

const NOT_SUPPORTED: Refusal = Refusal::new(Errno::Notsup, Cause::Unspecified, "action type not supported");

pub(super) unsafe extern "C" fn create(
    device: *mut ffi::rte_eth_dev,
    _conf: *const ffi::rte_flow_indir_action_conf,
    action: *const ffi::rte_flow_action,
    error: *mut ffi::rte_flow_error,
) -> *mut ffi::rte_flow_action_handle {
    // SAFETY: as `rte_flow_action_handle_create` is called: one action.
    unsafe {
        Call::new("flow action_handle_create", device, error)
            .object(|port| with_action(port, action, |action| make(port, action)))
    }
}

pub(super) unsafe extern "C" fn destroy(
    device: *mut ffi::rte_eth_dev,
    action: *mut ffi::rte_flow_action_handle,
    error: *mut ffi::rte_flow_error,
) -> c_int {
    // SAFETY: as `rte_flow_action_handle_destroy` is called; the handle is not followed.
    unsafe {
        Call::new("flow action_handle_destroy", device, error)
            .status(|port| remove(port, known(port, action)?))
    }
}

pub(super) unsafe extern "C" fn update(
    device: *mut ffi::rte_eth_dev,
    action: *mut ffi::rte_flow_action_handle,
    change: *const c_void,
    error: *mut ffi::rte_flow_error,
) -> c_int {
    // SAFETY: as `rte_flow_action_handle_update` is called: the structure that the handle's type asks for.
    unsafe {
        Call::new("flow action_handle_update", device, error).status(|port| {
            let shared = known(port, action)?;
            let switch = &port.switch;
            if let Shared::Rss(_) = shared {
                return with_action(port, change.cast(), |action| change_queues(port, shared, action));
            }
            let change = read_update(port, shared, change)?;
            switch.ask(|eswitch| eswitch.indirect_update(switch.clock.now(), shared, change))
        })
    }
}

pub(super) unsafe extern "C" fn query(
    device: *mut ffi::rte_eth_dev,
    action: *const ffi::rte_flow_action_handle,
    data: *mut c_void,
    error: *mut ffi::rte_flow_error,
) -> c_int {
    // SAFETY: as `rte_flow_action_handle_query` is called.
    unsafe { Call::new("flow action_handle_query", device, error).status(|port| answer(port, action, data)) }
}

/// What the application's handle means.
pub(super) fn known(
    port: &PortPrivate,
    handle: *const ffi::rte_flow_action_handle,
) -> Result<Shared, Refusal> {
    port.switch.flow.lives.find(handle).ok_or(NO_HANDLE)
}

/// Makes an indirect action; its handle.
pub(super) fn make(
    port: &PortPrivate,
    action: &Action<'_>,
) -> Result<*mut ffi::rte_flow_action_handle, Refusal> {
    let switch = &port.switch;
    let now = switch.clock.now();
    let shared = switch.ask(|eswitch| eswitch.indirect_create(now, port.vport, action))?;
    switch.flow.lives.begin(shared).inspect_err(|_| {
        // Nobody uses it yet, so that this cannot be refused.
        let _ = switch.ask(|eswitch| eswitch.indirect_destroy(now, shared));
    })
}

/// Destroys an indirect action at once.
pub(super) fn remove(port: &PortPrivate, shared: Shared) -> Result<(), Refusal> {
    let switch = &port.switch;
    // Its number may be another's as soon as the device is left.
    switch.ask(|eswitch| {
        eswitch.indirect_destroy(switch.clock.now(), shared)?;
        switch.flow.lives.end(shared);
        Ok(())
    })
}

/// Answers a query into the application's structure.
///
/// # Safety
/// `data` is null or has room for what the query of the handle's type answers.
pub(super) unsafe fn answer(
    port: &PortPrivate,
    action: *const ffi::rte_flow_action_handle,
    data: *mut c_void,
) -> Result<(), Refusal> {
    let shared = known(port, action)?;
    if data.is_null() {
        return Err(Refusal::new(Errno::Inval, Cause::Unspecified, "NULL data"));
    }
    let switch = &port.switch;
    let now = switch.clock.now();
    match shared {
        Shared::Counter(counter) => {
            let data = data.cast::<ffi::rte_flow_query_count>();
            // SAFETY: the caller's promise.
            let reset = unsafe { (*data).reset() } != 0;
            let value = switch.ask(|eswitch| eswitch.indirect_count(now, counter, reset))?;
            // SAFETY: the caller's promise.
            unsafe { answer_count(data, value) };
        }
        Shared::Age(age) => {
            let value = switch.ask(|eswitch| eswitch.indirect_age(now, age))?;
            // SAFETY: the caller's promise.
            unsafe { answer_age(data.cast(), value) };
        }
        Shared::Meter(_) | Shared::Rss(_) => return Err(NOT_SUPPORTED),
    }
    Ok(())
}

/// Gives an indirect `rss` other queues.
pub(super) fn change_queues(port: &PortPrivate, shared: Shared, action: &Action<'_>) -> Result<(), Refusal> {
    match (shared, *action) {
        (Shared::Rss(set), Action::Rss { queues }) => port.switch.eswitch.lock().indirect_rss(set, queues),
        _ => Err(NOT_SUPPORTED),
    }
}

/// Translates and judges one action, and does something with it.
///
/// # Safety
/// `action` is null or points to an action as `rte_flow_action_handle_create` describes it.
pub(super) unsafe fn with_action<T>(
    port: &PortPrivate,
    action: *const ffi::rte_flow_action,
    body: impl FnOnce(&Action<'_>) -> Result<T, Refusal>,
) -> Result<T, Refusal> {
    if action.is_null() {
        return Err(Refusal::new(Errno::Inval, Cause::Actions, "NULL action"));
    }
    // SAFETY: the caller's promise; the list of one gets an end.
    let list = unsafe { [*action, ffi::rte_flow_action::default()] };
    let scratch = Scratch::new(&port.switch.flow.lives);
    let mut typed = Actions::new();
    // SAFETY: a list with an end; what its action points to is the caller's promise.
    unsafe { actions::translate(list.as_ptr(), Form::Rule, &scratch, &mut typed) }.map_err(unlisted)?;
    let typed = typed.first().ok_or(NOT_SUPPORTED)?;
    let pools = port.flow.pools();
    validate::indirect(&port.switch.context, typed, pools).map_err(unlisted)?;
    body(typed)
}

/// The cause is the whole, since the application gave no list.
fn unlisted(refusal: Refusal) -> Refusal {
    Refusal { cause: Cause::Actions, ..refusal }
}

/// What is to change, as the application writes it. mlx5 22.11 changes ages and meters under HWS only.
///
/// # Safety
/// `change` is null or points to the structure that the handle's type asks for.
pub(super) unsafe fn read_update(
    port: &PortPrivate,
    shared: Shared,
    change: *const c_void,
) -> Result<ActionUpdate, Refusal> {
    if change.is_null() {
        return Err(Refusal::new(Errno::Inval, Cause::Unspecified, "NULL update"));
    }
    let hardware = port.switch.context.steering == Steering::Hardware;
    match shared {
        Shared::Age(_) if hardware => {
            // SAFETY: the caller's promise.
            let change = unsafe { change.cast::<ffi::rte_flow_update_age>().read_unaligned() };
            let timeout_s = (change.timeout_valid() != 0).then(|| change.timeout());
            Ok(ActionUpdate::Age { timeout_s, touch: change.touch() != 0 })
        }
        Shared::Meter(_) if hardware => {
            // SAFETY: the caller's promise.
            let change = unsafe { change.cast::<ffi::rte_flow_update_meter_mark>().read_unaligned() };
            let meter = &change.meter_mark;
            if change.profile_valid() != 0 && meter.profile.is_null() {
                return Err(Refusal::new(Errno::Inval, Cause::Unspecified, "NULL meter profile"));
            }
            // Now: by the time that the device does it, the profile may say something else, or be gone.
            let profile = (change.profile_valid() != 0).then(|| {
                port.switch.eswitch.lock().meters().profile_of(handle::meter_profile(meter.profile))
            });
            Ok(ActionUpdate::Meter {
                profile: profile.transpose()?,
                colour_aware: (change.color_mode_valid() != 0).then_some(meter.color_mode != 0),
                enabled: (change.state_valid() != 0).then_some(meter.state != 0),
            })
        }
        _ => Err(Refusal::new(Errno::Notsup, Cause::Unspecified, "action type update not supported")),
    }
}
