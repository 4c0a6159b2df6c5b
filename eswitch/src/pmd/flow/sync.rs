//! The synchronous API: rules one by one, each call as long as the hardware's.
//!
//! A rule is judged and translated without the device's lock. Then the caller is kept as long as the profile
//! says, one caller of a device at a time, as mlx5's lock of the steering domain does; packets flow
//! meanwhile. The device itself is entered only to put the rule in its place.

use std::ffi::{c_int, c_void};

use super::actions::{self, Actions, Scratch};
use super::entry::Call;
use super::items::{self, Items};
use super::{Form, handle};
use crate::model::objects::{AgeValue, CountValue};
use crate::model::refusal::{Cause, Errno, Refusal};
use crate::model::switch::{Eswitch, Prepared};
use crate::model::types::{Attr, RuleHandle, Tick};
use crate::model::validate;
use crate::pmd::device::{PortPrivate, Switch};
use crate::pmd::ffi;

const NO_RULE: Refusal = Refusal::new(Errno::Inval, Cause::Handle, "NULL flow");
const NOT_STARTED: Refusal = Refusal::new(Errno::Nodev, Cause::Unspecified, "port not started");

pub(super) unsafe extern "C" fn validate(
    device: *mut ffi::rte_eth_dev,
    attr: *const ffi::rte_flow_attr,
    pattern: *const ffi::rte_flow_item,
    actions: *const ffi::rte_flow_action,
    error: *mut ffi::rte_flow_error,
) -> c_int {
    // SAFETY: as `rte_flow_validate` is called.
    unsafe {
        Call::new("flow validate", device, error)
            .about(pattern, actions)
            .status(|port| judge(port, attr, pattern, actions))
    }
}

pub(super) unsafe extern "C" fn create(
    device: *mut ffi::rte_eth_dev,
    attr: *const ffi::rte_flow_attr,
    pattern: *const ffi::rte_flow_item,
    actions: *const ffi::rte_flow_action,
    error: *mut ffi::rte_flow_error,
) -> *mut ffi::rte_flow {
    // SAFETY: as `rte_flow_create` is called.
    unsafe {
        Call::new("flow create", device, error).about(pattern, actions).object(|port| {
            let begin = port.switch.clock.now();
            install(port, begin, prepare(port, attr, pattern, actions)?).map(handle::of_rule)
        })
    }
}

pub(super) unsafe extern "C" fn destroy(
    device: *mut ffi::rte_eth_dev,
    flow: *mut ffi::rte_flow,
    error: *mut ffi::rte_flow_error,
) -> c_int {
    // SAFETY: as `rte_flow_destroy` is called; the handle is not followed.
    unsafe {
        Call::new("flow destroy", device, error).status(|port| {
            let rule = handle::rule(flow).ok_or(NO_RULE)?;
            let switch = &port.switch;
            let begin = switch.clock.now();
            in_turn(switch, begin, Eswitch::destroy_cost, |eswitch| {
                eswitch.destroy(switch.clock.now(), port.vport, rule)
            })
        })
    }
}

pub(super) unsafe extern "C" fn flush(
    device: *mut ffi::rte_eth_dev,
    error: *mut ffi::rte_flow_error,
) -> c_int {
    // SAFETY: as `rte_flow_flush` is called.
    unsafe {
        Call::new("flow flush", device, error).status(|port| {
            port.switch.eswitch.lock().answers(port.switch.clock.now())?;
            remove_all(port);
            Ok(())
        })
    }
}

/// Removes the rules of a port, a slice at a time, so that packets flow in between.
pub(in crate::pmd) fn remove_all(port: &PortPrivate) {
    let switch = &port.switch;
    let mut from = 0;
    while switch.eswitch.lock().flush(switch.clock.now(), port.vport, &mut from) {}
    port.flow.queues.notice_restart();
}

pub(super) unsafe extern "C" fn query(
    device: *mut ffi::rte_eth_dev,
    flow: *mut ffi::rte_flow,
    action: *const ffi::rte_flow_action,
    data: *mut c_void,
    error: *mut ffi::rte_flow_error,
) -> c_int {
    // SAFETY: as `rte_flow_query` is called: one action, and room for what its query answers.
    unsafe {
        Call::new("flow query", device, error).status(|port| {
            let rule = handle::rule(flow).ok_or(NO_RULE)?;
            if action.is_null() || data.is_null() {
                return Err(Refusal::new(Errno::Inval, Cause::Actions, "NULL action or data"));
            }
            let switch = &port.switch;
            let now = switch.clock.now();
            match (*action).type_ {
                ffi::RTE_FLOW_ACTION_TYPE_COUNT => {
                    let data = data.cast::<ffi::rte_flow_query_count>();
                    let reset = (*data).reset() != 0;
                    let vport = port.vport;
                    let value = switch.ask(|eswitch| eswitch.query_count(now, vport, rule, reset))?;
                    answer_count(data, value);
                }
                ffi::RTE_FLOW_ACTION_TYPE_AGE => {
                    let vport = port.vport;
                    let value = switch.ask(|eswitch| eswitch.query_age(now, vport, rule))?;
                    answer_age(data.cast(), value);
                }
                _ => return Err(Refusal::new(Errno::Notsup, Cause::Actions, "action not supported")),
            }
            Ok(())
        })
    }
}

/// Fills in the answer about a counter.
///
/// # Safety
/// `data` is the application's structure.
pub(super) unsafe fn answer_count(data: *mut ffi::rte_flow_query_count, value: CountValue) {
    // SAFETY: the caller's promise.
    let data = unsafe { &mut *data };
    data.set_hits_set(1);
    data.set_bytes_set(1);
    data.hits = value.hits;
    data.bytes = value.bytes;
}

/// Fills in the answer about ageing.
///
/// # Safety
/// `data` is the application's structure.
pub(super) unsafe fn answer_age(data: *mut ffi::rte_flow_query_age, value: AgeValue) {
    // SAFETY: the caller's promise.
    let data = unsafe { &mut *data };
    data.set_aged(u32::from(value.aged));
    data.set_sec_since_last_hit_valid(u32::from(value.sec_since_last_hit.is_some()));
    data.set_sec_since_last_hit(value.sec_since_last_hit.unwrap_or(0));
}

pub(super) unsafe extern "C" fn isolate(
    device: *mut ffi::rte_eth_dev,
    enable: c_int,
    error: *mut ffi::rte_flow_error,
) -> c_int {
    // SAFETY: as `rte_flow_isolate` is called.
    unsafe {
        Call::new("flow isolate", device, error).status(|port| {
            if port.is_started() {
                return Err(Refusal::new(Errno::Busy, Cause::Unspecified, "port must be stopped first"));
            }
            port.set_isolated(enable != 0);
            Ok(())
        })
    }
}

pub(super) unsafe extern "C" fn pick_transfer_proxy(
    device: *mut ffi::rte_eth_dev,
    proxy: *mut u16,
    error: *mut ffi::rte_flow_error,
) -> c_int {
    // SAFETY: as `rte_flow_pick_transfer_proxy` is called.
    unsafe {
        Call::new("flow pick_transfer_proxy", device, error).status(|port| {
            if proxy.is_null() {
                return Err(Refusal::new(Errno::Inval, Cause::Unspecified, "NULL port"));
            }
            *proxy = port.switch.context.topology.proxy();
            Ok(())
        })
    }
}

/// The application's attributes.
///
/// # Safety
/// `attr` is null or points to attributes.
pub(super) unsafe fn attributes(attr: *const ffi::rte_flow_attr) -> Result<Attr, Refusal> {
    // SAFETY: the caller's promise.
    let attr = unsafe { attr.as_ref() };
    let attr = attr.ok_or(Refusal::new(Errno::Inval, Cause::Attr, "NULL attribute"))?;
    Ok(Attr {
        group: attr.group,
        priority: attr.priority,
        ingress: attr.ingress() != 0,
        egress: attr.egress() != 0,
        transfer: attr.transfer() != 0,
    })
}

/// A request in the model's words, and the port as far as it matters to it.
///
/// # Safety
/// The pointers are as `rte_flow_validate` describes them.
unsafe fn translated<T>(
    port: &PortPrivate,
    attr: *const ffi::rte_flow_attr,
    pattern: *const ffi::rte_flow_item,
    actions: *const ffi::rte_flow_action,
    body: impl FnOnce(&validate::Port<'_>, &Attr, &Items<'_>, &Actions<'_>) -> Result<T, Refusal>,
) -> Result<T, Refusal> {
    let scratch = Scratch::new(&port.switch.flow.lives);
    let (mut typed_items, mut typed_actions) = (Items::new(), Actions::new());
    // SAFETY: the caller's promise.
    let attr = unsafe {
        let attr = attributes(attr)?;
        items::translate(pattern, Form::Rule, &mut typed_items)?;
        actions::translate(actions, Form::Rule, &scratch, &mut typed_actions)?;
        attr
    };
    let meters = |id| meter_policy(port, id);
    let known = validate::Port {
        vport: port.vport,
        started: port.is_started(),
        queues: port.receive_queues(),
        meters: Some(&meters),
    };
    body(&known, &attr, &typed_items, &typed_actions)
}

/// What the meter with this id does after its verdict; asked only about rules with meters.
fn meter_policy(port: &PortPrivate, id: u32) -> Option<validate::MeterPolicy> {
    let mut eswitch = port.switch.eswitch.lock();
    let meters = eswitch.meters();
    let info = meters.info(meters.find(port.vport, id)?)?;
    Some(if info.default_policy {
        validate::MeterPolicy::Default
    } else {
        validate::MeterPolicy::Terminating
    })
}

/// Whether a rule could be made.
///
/// # Safety
/// The pointers are as `rte_flow_validate` describes them.
unsafe fn judge(
    port: &PortPrivate,
    attr: *const ffi::rte_flow_attr,
    pattern: *const ffi::rte_flow_item,
    actions: *const ffi::rte_flow_action,
) -> Result<(), Refusal> {
    let context = &port.switch.context;
    // SAFETY: the caller's promise.
    unsafe {
        translated(port, attr, pattern, actions, |known, attr, items, actions| {
            validate::dry_run(context, known, attr, items, actions).map(drop)
        })
    }
}

/// Judges and translates, without the device.
///
/// # Safety
/// The pointers are as `rte_flow_create` describes them.
unsafe fn prepare(
    port: &PortPrivate,
    attr: *const ffi::rte_flow_attr,
    pattern: *const ffi::rte_flow_item,
    actions: *const ffi::rte_flow_action,
) -> Result<Prepared, Refusal> {
    let context = &port.switch.context;
    // SAFETY: the caller's promise.
    unsafe {
        translated(port, attr, pattern, actions, |known, attr, items, actions| {
            context.prepare(known, attr, items, actions)
        })
    }
}

/// Keeps the caller as long as the hardware would since the call's beginning, or since it was done with
/// another caller; then lets it into the device. It enters once, unless there is time to wait for.
fn in_turn<T: Send>(
    switch: &Switch,
    begin: Tick,
    cost: fn(&mut Eswitch) -> u64,
    body: impl FnOnce(&mut Eswitch) -> Result<T, Refusal> + Send,
) -> Result<T, Refusal> {
    let mut turn = switch.flow.alone.lock();
    let (until, body) = switch.ask(|eswitch| {
        let until = turn.until(begin, cost(eswitch));
        (until, if switch.clock.now() < until { Err(body) } else { Ok(body(eswitch)) })
    });
    let done = body.unwrap_or_else(|body| {
        switch.clock.wait(until);
        switch.ask(body)
    });
    turn.end(until, switch.clock.now());
    done
}

/// Puts a rule in its place.
fn install(port: &PortPrivate, begin: Tick, rule: Prepared) -> Result<RuleHandle, Refusal> {
    let switch = &port.switch;
    in_turn(switch, begin, Eswitch::create_cost, |eswitch| {
        // The port may have been stopped, and its rules removed, since the rule was judged.
        if !eswitch.is_started(port.vport) {
            return Err(NOT_STARTED);
        }
        eswitch.install(switch.clock.now(), rule)
    })
}
