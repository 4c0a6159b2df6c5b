//! Flow queues of HWS: configure, enqueue, push, pull. The application's end of a queue is reached without
//! the device's lock; the device does its part when someone drives it, and who pulls in vain drives it.

use std::ffi::{c_int, c_void};
use std::ptr;
use std::slice;

use super::actions::{self, Actions, Scratch};
use super::cells::InUse;
use super::entry::Call;
use super::indirect;
use super::items::{self, Items};
use super::{Form, handle};
use crate::model::action::Shared;
use crate::model::queue::{ActionOp, Completion};
use crate::model::refusal::{Cause, Errno, Refusal};
use crate::model::switch::ConfigureAttr;
use crate::model::types::Steering;
use crate::model::validate::{self, Pools};
use crate::pmd::device::PortPrivate;
use crate::pmd::ffi;

/// `RTE_FLOW_PORT_FLAG_STRICT_QUEUE`, a macro.
const STRICT_QUEUE: u32 = 1;

/// Meter profiles of a port: in 22.11 `flow_hw_configure` asks for one.
const METER_PROFILES: u32 = 1;

/// Completions taken from the model in one go.
const CHUNK: usize = 64;

const WRONG_MODE: Refusal =
    Refusal::new(Errno::Notsup, Cause::Unspecified, "needs hardware steering (dv_flow_en=2)");
const NO_TABLE: Refusal = Refusal::new(Errno::Inval, Cause::Unspecified, "no such template table");

fn hardware(port: &PortPrivate) -> Result<(), Refusal> {
    if port.switch.context.steering == Steering::Hardware { Ok(()) } else { Err(WRONG_MODE) }
}

pub(super) unsafe extern "C" fn info_get(
    device: *mut ffi::rte_eth_dev,
    port_info: *mut ffi::rte_flow_port_info,
    queue_info: *mut ffi::rte_flow_queue_info,
    error: *mut ffi::rte_flow_error,
) -> c_int {
    // SAFETY: as `rte_flow_info_get` is called.
    unsafe {
        Call::new("flow info_get", device, error).status(|port| {
            hardware(port)?;
            let profile = &port.switch.profile;
            if !port_info.is_null() {
                *port_info = ffi::rte_flow_port_info {
                    max_nb_queues: profile.queues_max,
                    max_nb_counters: profile.counters_max,
                    max_nb_aging_objects: profile.ages_max,
                    max_nb_meters: profile.meters_max,
                    max_nb_conn_tracks: 0,
                    supported_flags: STRICT_QUEUE,
                };
            }
            if !queue_info.is_null() {
                (*queue_info).max_size = profile.queue_depth_max;
            }
            Ok(())
        })
    }
}

pub(super) unsafe extern "C" fn configure(
    device: *mut ffi::rte_eth_dev,
    attr: *const ffi::rte_flow_port_attr,
    queues: u16,
    queue_attr: *mut *const ffi::rte_flow_queue_attr,
    error: *mut ffi::rte_flow_error,
) -> c_int {
    // SAFETY: as `rte_flow_configure` is called.
    unsafe {
        Call::new("flow configure", device, error).status(|port| {
            let null = Refusal::new(Errno::Inval, Cause::Unspecified, "NULL port or queue attributes");
            let attr = attr.as_ref().ok_or(null)?;
            if queue_attr.is_null() {
                return Err(null);
            }
            let sizes = slice::from_raw_parts(queue_attr, usize::from(queues)).iter();
            let sizes: Option<Vec<u32>> = sizes.map(|attr| attr.as_ref().map(|attr| attr.size)).collect();
            set_up(port, attr, &sizes.ok_or(null)?)
        })
    }
}

fn set_up(port: &PortPrivate, attr: &ffi::rte_flow_port_attr, sizes: &[u32]) -> Result<(), Refusal> {
    let switch = &port.switch;
    let pools =
        Pools { counters: attr.nb_counters > 0, ages: attr.nb_aging_objects > 0, meters: attr.nb_meters > 0 };
    validate::configure(&switch.context, port.is_started(), sizes, pools)?;
    let wanted = ConfigureAttr {
        counters: attr.nb_counters,
        ages: attr.nb_aging_objects,
        meters: attr.nb_meters,
        strict_queue: attr.flags & STRICT_QUEUE != 0,
        queues: u16::try_from(sizes.len()).unwrap_or(u16::MAX),
        size: sizes.first().copied().unwrap_or(0),
        full_errno: None,
    };
    port.flow.queues.replace(|| {
        let mut eswitch = switch.eswitch.lock();
        let queues =
            eswitch.configure(switch.clock.now(), port.vport, &wanted, &switch.profile, switch.seed())?;
        if pools.meters {
            eswitch.meters().configure(port.vport, METER_PROFILES);
        }
        Ok(queues)
    })?;
    port.flow.set_pools(pools);
    Ok(())
}

/// Enters a queue of a port.
fn enter(port: &PortPrivate, number: u32) -> Result<InUse<'_>, Refusal> {
    hardware(port)?;
    port.flow.queues.enter(&port.switch.flow, number)
}

/// Whether an operation waits for a push.
///
/// # Safety
/// `attr` is null or points to attributes.
unsafe fn postponed(attr: *const ffi::rte_flow_op_attr) -> bool {
    // SAFETY: the caller's promise.
    unsafe { attr.as_ref() }.is_some_and(|attr| attr.postpone() != 0)
}

pub(super) unsafe extern "C" fn async_create(
    device: *mut ffi::rte_eth_dev,
    queue: u32,
    attr: *const ffi::rte_flow_op_attr,
    table: *mut ffi::rte_flow_template_table,
    pattern: *const ffi::rte_flow_item,
    pattern_index: u8,
    actions: *const ffi::rte_flow_action,
    actions_index: u8,
    user_data: *mut c_void,
    error: *mut ffi::rte_flow_error,
) -> *mut ffi::rte_flow {
    // SAFETY: as `rte_flow_async_create` is called.
    unsafe {
        Call::new("flow async_create", device, error).about(pattern, actions).object(|port| {
            let mut lane = enter(port, queue)?;
            let scratch = Scratch::new(&port.switch.flow.lives);
            let (mut typed_items, mut typed_actions) = (Items::new(), Actions::new());
            items::translate(pattern, Form::Insertion, &mut typed_items)?;
            actions::translate(actions, Form::Insertion, &scratch, &mut typed_actions)?;
            let find = || port.flow.registry().table(table.addr());
            let found = lane.table(table.addr(), port.flow.tables_version(), find);
            let (queue, table) = found.ok_or(NO_TABLE)?;
            let rule = table.enqueue(
                port.switch.clock.now(),
                queue,
                &port.switch.context.topology,
                (pattern_index, &typed_items),
                (actions_index, &typed_actions),
                user_data.expose_provenance() as u64,
                postponed(attr),
            )?;
            Ok(handle::of_rule(rule))
        })
    }
}

pub(super) unsafe extern "C" fn async_destroy(
    device: *mut ffi::rte_eth_dev,
    queue: u32,
    attr: *const ffi::rte_flow_op_attr,
    flow: *mut ffi::rte_flow,
    user_data: *mut c_void,
    error: *mut ffi::rte_flow_error,
) -> c_int {
    // SAFETY: as `rte_flow_async_destroy` is called; the handle is not followed.
    unsafe {
        Call::new("flow async_destroy", device, error).status(|port| {
            let mut lane = enter(port, queue)?;
            let rule = handle::rule(flow).ok_or(Refusal::new(Errno::Inval, Cause::Handle, "NULL flow"))?;
            let user_data = user_data.expose_provenance() as u64;
            lane.queue.destroy(port.switch.clock.now(), rule, user_data, postponed(attr))
        })
    }
}

pub(super) unsafe extern "C" fn push(
    device: *mut ffi::rte_eth_dev,
    queue: u32,
    error: *mut ffi::rte_flow_error,
) -> c_int {
    // SAFETY: as `rte_flow_push` is called.
    unsafe {
        Call::new("flow push", device, error).status(|port| {
            enter(port, queue)?.queue.push(port.switch.clock.now());
            Ok(())
        })
    }
}

pub(super) unsafe extern "C" fn pull(
    device: *mut ffi::rte_eth_dev,
    queue: u32,
    results: *mut ffi::rte_flow_op_result,
    count: u16,
    error: *mut ffi::rte_flow_error,
) -> c_int {
    // SAFETY: as `rte_flow_pull` is called: room for `count` results.
    unsafe {
        Call::new("flow pull", device, error).number(|port| {
            let mut lane = enter(port, queue)?;
            if results.is_null() || count == 0 {
                return Ok(0);
            }
            let results = slice::from_raw_parts_mut(results, usize::from(count));
            let pulled = take(&mut lane, results);
            if pulled > 0 {
                return Ok(pulled);
            }
            // Nothing yet. Perhaps nobody else drives the device.
            if port.switch.presence.is_remembered(port.switch.clock.now()) {
                return Ok(0);
            }
            if let Some(mut eswitch) = port.switch.eswitch.try_lock() {
                eswitch.advance(port.switch.clock.now());
            }
            Ok(take(&mut lane, results))
        })
    }
}

/// Takes completions; how many.
fn take(lane: &mut InUse<'_>, results: &mut [ffi::rte_flow_op_result]) -> usize {
    let mut pulled = 0;
    let mut completions = [Completion::default(); CHUNK];
    while pulled < results.len() {
        let room = CHUNK.min(results.len() - pulled);
        let count = lane.queue.pull(&mut completions[..room]);
        for (result, completion) in results[pulled..].iter_mut().zip(&completions[..count]) {
            result.status = if completion.ok { ffi::RTE_FLOW_OP_SUCCESS } else { ffi::RTE_FLOW_OP_ERROR };
            result.user_data = ptr::with_exposed_provenance_mut(completion.user_data as usize);
        }
        pulled += count;
        if count < room {
            break;
        }
    }
    pulled
}

pub(super) unsafe extern "C" fn action_create(
    device: *mut ffi::rte_eth_dev,
    queue: u32,
    attr: *const ffi::rte_flow_op_attr,
    _conf: *const ffi::rte_flow_indir_action_conf,
    action: *const ffi::rte_flow_action,
    user_data: *mut c_void,
    error: *mut ffi::rte_flow_error,
) -> *mut ffi::rte_flow_action_handle {
    // SAFETY: as `rte_flow_async_action_handle_create` is called: one action.
    unsafe {
        Call::new("flow async_action_handle_create", device, error).object(|port| {
            let mut lane = enter(port, queue)?;
            let now = port.switch.clock.now();
            let user_data = user_data.expose_provenance() as u64;
            indirect::with_action(port, action, |action| {
                lane.queue.act_now(now, user_data, postponed(attr), || indirect::make(port, action))
            })
        })
    }
}

pub(super) unsafe extern "C" fn action_destroy(
    device: *mut ffi::rte_eth_dev,
    queue: u32,
    attr: *const ffi::rte_flow_op_attr,
    action: *mut ffi::rte_flow_action_handle,
    user_data: *mut c_void,
    error: *mut ffi::rte_flow_error,
) -> c_int {
    // SAFETY: as `rte_flow_async_action_handle_destroy` is called; the handle is not followed.
    unsafe {
        Call::new("flow async_action_handle_destroy", device, error).status(|port| {
            let mut lane = enter(port, queue)?;
            let shared = indirect::known(port, action)?;
            let now = port.switch.clock.now();
            let user_data = user_data.expose_provenance() as u64;
            if let Shared::Rss(_) = shared {
                // Rules may still use it; then the handle stays, and mlx5 says so at once.
                return lane
                    .queue
                    .act_now(now, user_data, postponed(attr), || indirect::remove(port, shared));
            }
            lane.queue.act_later(now, ActionOp::Destroy(shared), user_data, postponed(attr))?;
            port.switch.flow.lives.end(shared);
            Ok(())
        })
    }
}

pub(super) unsafe extern "C" fn action_update(
    device: *mut ffi::rte_eth_dev,
    queue: u32,
    attr: *const ffi::rte_flow_op_attr,
    action: *mut ffi::rte_flow_action_handle,
    change: *const c_void,
    user_data: *mut c_void,
    error: *mut ffi::rte_flow_error,
) -> c_int {
    // SAFETY: as `rte_flow_async_action_handle_update` is called.
    unsafe {
        Call::new("flow async_action_handle_update", device, error).status(|port| {
            let mut lane = enter(port, queue)?;
            let shared = indirect::known(port, action)?;
            let now = port.switch.clock.now();
            let user_data = user_data.expose_provenance() as u64;
            if let Shared::Rss(_) = shared {
                return indirect::with_action(port, change.cast(), |action| {
                    lane.queue.act_now(now, user_data, postponed(attr), || {
                        indirect::change_queues(port, shared, action)
                    })
                });
            }
            let change = indirect::read_update(port, shared, change)?;
            lane.queue.act_later(now, ActionOp::Update(shared, change), user_data, postponed(attr))
        })
    }
}

pub(super) unsafe extern "C" fn action_query(
    device: *mut ffi::rte_eth_dev,
    queue: u32,
    attr: *const ffi::rte_flow_op_attr,
    action: *const ffi::rte_flow_action_handle,
    data: *mut c_void,
    user_data: *mut c_void,
    error: *mut ffi::rte_flow_error,
) -> c_int {
    // SAFETY: as `rte_flow_async_action_handle_query` is called.
    unsafe {
        Call::new("flow async_action_handle_query", device, error).status(|port| {
            let mut lane = enter(port, queue)?;
            let user_data = user_data.expose_provenance() as u64;
            lane.queue.act_now(port.switch.clock.now(), user_data, postponed(attr), || {
                indirect::answer(port, action, data)
            })
        })
    }
}
