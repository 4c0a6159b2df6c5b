//! Meters: what `rte_mtr.h` asks of a driver. Profiles, policies and meters live in the model; here they are
//! read from the application's structures.

use std::ffi::{c_int, c_void};
use std::ptr;

use super::device::{PortPrivate, port_of};
use super::flow::{self, PolicyLists};
use super::{border, ffi};
use crate::model::objects::meters::{Algorithm, Cause, MeterParams, MtrRefusal, Profile};
use crate::model::refusal::{Errno, Refusal};
use crate::model::types::Steering;

const INTERNAL: MtrRefusal =
    MtrRefusal { errno: Errno::Io, cause: Cause::Unspecified, message: "internal error in the driver" };

const fn invalid(cause: Cause, message: &'static str) -> MtrRefusal {
    MtrRefusal { errno: Errno::Inval, cause, message }
}

/// SWS: meters of the `meter` action.
static SOFTWARE: ffi::rte_mtr_ops = ffi::rte_mtr_ops {
    create: Some(create),
    destroy: Some(destroy),
    meter_enable: Some(enable),
    meter_disable: Some(disable),
    stats_update: Some(stats_update),
    stats_read: Some(stats_read),
    meter_policy_validate: Some(policy_validate),
    meter_policy_add: Some(policy_add),
    meter_policy_delete: Some(policy_delete),
    ..HARDWARE
};

/// HWS: only the profiles of `meter_mark`.
static HARDWARE_OPERATIONS: ffi::rte_mtr_ops = HARDWARE;

const HARDWARE: ffi::rte_mtr_ops = ffi::rte_mtr_ops {
    capabilities_get: Some(capabilities_get),
    meter_profile_add: Some(profile_add),
    meter_profile_delete: Some(profile_delete),
    create: None,
    destroy: None,
    meter_enable: None,
    meter_disable: None,
    meter_profile_update: Some(profile_update),
    meter_dscp_table_update: None,
    meter_vlan_table_update: None,
    in_proto_set: None,
    in_proto_get: None,
    in_proto_prio_get: None,
    stats_update: None,
    stats_read: None,
    meter_policy_validate: None,
    meter_policy_add: None,
    meter_policy_delete: None,
    meter_policy_update: None,
    meter_profile_get: Some(profile_get),
    meter_policy_get: None,
};

/// The driver's meter operations.
pub(super) fn mtr_ops(steering: Steering) -> *const ffi::rte_mtr_ops {
    match steering {
        Steering::Software => &raw const SOFTWARE,
        Steering::Hardware => &raw const HARDWARE_OPERATIONS,
    }
}

/// Runs an operation; 0 or a negative errno.
///
/// # Safety
/// `device` is a live ethdev of this driver; `error` is null or may be written.
unsafe fn status(
    name: &'static str,
    device: *mut ffi::rte_eth_dev,
    error: *mut ffi::rte_mtr_error,
    body: impl FnOnce(&PortPrivate) -> Result<(), MtrRefusal>,
) -> c_int {
    // SAFETY: the caller's promise.
    let port = unsafe { port_of(device) };
    match border::guard(name, Err(INTERNAL), || body(port)) {
        Ok(()) => 0,
        // SAFETY: the caller's promise.
        Err(refusal) => unsafe { report(error, refusal) },
    }
}

/// Tells the application; returns the negative errno.
///
/// # Safety
/// `error` is null or may be written.
unsafe fn report(error: *mut ffi::rte_mtr_error, refusal: MtrRefusal) -> c_int {
    let errno = refusal.errno as c_int;
    // SAFETY: the caller's promise; the message lives as long as the driver.
    unsafe {
        if let Some(error) = error.as_mut() {
            error.type_ = refusal.cause as ffi::rte_mtr_error_type;
            error.cause = ptr::null::<c_void>();
            error.message = flow::c_message(refusal.message).as_ptr();
        }
        ffi::eswitch_set_errno(errno);
    }
    -errno
}

unsafe extern "C" fn capabilities_get(
    device: *mut ffi::rte_eth_dev,
    out: *mut ffi::rte_mtr_capabilities,
    error: *mut ffi::rte_mtr_error,
) -> c_int {
    // SAFETY: as `rte_mtr_capabilities_get` is called.
    unsafe {
        status("mtr capabilities_get", device, error, |port| {
            let can = port.switch.eswitch.lock().meters().capabilities();
            let both = c_int::from(can.byte_and_packet_mode);
            let out = out.as_mut().ok_or(invalid(Cause::Unspecified, "NULL capabilities"))?;
            *out = ffi::rte_mtr_capabilities {
                n_max: can.meters_max,
                n_shared_max: can.meters_max,
                identical: c_int::from(can.identical),
                shared_identical: c_int::from(can.identical),
                shared_n_flows_per_mtr_max: can.rules_per_meter_max,
                chaining_n_mtrs_per_flow_max: can.meters_per_rule_max,
                meter_srtcm_rfc2697_n_max: can.meters_max,
                meter_trtcm_rfc2698_n_max: can.meters_max,
                meter_trtcm_rfc4115_n_max: can.meters_max,
                meter_rate_max: can.rate_max,
                meter_policy_n_max: u64::from(can.meters_max),
                srtcm_rfc2697_byte_mode_supported: both,
                srtcm_rfc2697_packet_mode_supported: both,
                trtcm_rfc2698_byte_mode_supported: both,
                trtcm_rfc2698_packet_mode_supported: both,
                trtcm_rfc4115_byte_mode_supported: both,
                trtcm_rfc4115_packet_mode_supported: both,
                stats_mask: can.statistics,
                ..Default::default()
            };
            Ok(())
        })
    }
}

unsafe extern "C" fn profile_add(
    device: *mut ffi::rte_eth_dev,
    id: u32,
    profile: *mut ffi::rte_mtr_meter_profile,
    error: *mut ffi::rte_mtr_error,
) -> c_int {
    // SAFETY: as `rte_mtr_meter_profile_add` is called.
    unsafe {
        status("mtr meter_profile_add", device, error, |port| {
            let profile = profile.as_ref().ok_or(invalid(Cause::MeterProfile, "Meter profile is null."))?;
            let profile = read_profile(profile)?;
            port.switch.eswitch.lock().meters().profile_add(port.vport, id, profile)
        })
    }
}

fn read_profile(raw: &ffi::rte_mtr_meter_profile) -> Result<Profile, MtrRefusal> {
    // SAFETY: of the union's members the one that the algorithm selects; all are plain numbers.
    let algorithm = unsafe {
        match raw.alg {
            ffi::RTE_MTR_SRTCM_RFC2697 => {
                let it = raw.__bindgen_anon_1.srtcm_rfc2697;
                Algorithm::Rfc2697 { cir: it.cir, cbs: it.cbs, ebs: it.ebs }
            }
            ffi::RTE_MTR_TRTCM_RFC2698 => {
                let it = raw.__bindgen_anon_1.trtcm_rfc2698;
                Algorithm::Rfc2698 { cir: it.cir, pir: it.pir, cbs: it.cbs, pbs: it.pbs }
            }
            ffi::RTE_MTR_TRTCM_RFC4115 => {
                let it = raw.__bindgen_anon_1.trtcm_rfc4115;
                Algorithm::Rfc4115 { cir: it.cir, eir: it.eir, cbs: it.cbs, ebs: it.ebs }
            }
            _ => {
                return Err(MtrRefusal {
                    errno: Errno::Notsup,
                    cause: Cause::MeterProfile,
                    message: "algorithm not supported",
                });
            }
        }
    };
    Ok(Profile { algorithm, packet_mode: raw.packet_mode != 0 })
}

unsafe extern "C" fn profile_delete(
    device: *mut ffi::rte_eth_dev,
    id: u32,
    error: *mut ffi::rte_mtr_error,
) -> c_int {
    // SAFETY: as `rte_mtr_meter_profile_delete` is called.
    unsafe {
        status("mtr meter_profile_delete", device, error, |port| {
            port.switch.eswitch.lock().meters().profile_delete(port.vport, id)
        })
    }
}

unsafe extern "C" fn profile_get(
    device: *mut ffi::rte_eth_dev,
    id: u32,
    error: *mut ffi::rte_mtr_error,
) -> *mut ffi::rte_flow_meter_profile {
    let mut found = ptr::null_mut();
    // SAFETY: as `rte_mtr_meter_profile_get` is called.
    unsafe {
        status("mtr meter_profile_get", device, error, |port| {
            let number = port.switch.eswitch.lock().meters().profile_get(port.vport, id);
            let none =
                MtrRefusal { errno: Errno::Noent, cause: Cause::MeterProfileId, message: "no such profile" };
            found = flow::handle::of_meter_profile(number.ok_or(none)?);
            Ok(())
        });
    }
    found
}

unsafe extern "C" fn profile_update(
    device: *mut ffi::rte_eth_dev,
    id: u32,
    profile: u32,
    error: *mut ffi::rte_mtr_error,
) -> c_int {
    // SAFETY: as `rte_mtr_meter_profile_update` is called.
    unsafe {
        status("mtr meter_profile_update", device, error, |port| {
            let now = port.switch.clock.now();
            port.switch.eswitch.lock().meters().profile_update(now, port.vport, id, profile)
        })
    }
}

/// Translates a policy's lists and does something with them.
///
/// # Safety
/// `policy` is null or as `rte_mtr_meter_policy_add` describes it.
unsafe fn with_policy(
    policy: *const ffi::rte_mtr_meter_policy_params,
    body: impl FnOnce(&[&[crate::model::action::Action<'_>]; 3]) -> Result<(), MtrRefusal>,
) -> Result<(), MtrRefusal> {
    // SAFETY: the caller's promise.
    let policy = unsafe { policy.as_ref() }.ok_or(invalid(Cause::MeterPolicy, "NULL policy"))?;
    let lists = PolicyLists::default();
    // SAFETY: the caller's promise.
    let actions = unsafe { lists.translate(&policy.actions) };
    let refused = |Refusal { errno, message, .. }| MtrRefusal { errno, cause: Cause::MeterPolicy, message };
    body(&actions.map_err(refused)?.each_ref().map(|list| &list[..]))
}

unsafe extern "C" fn policy_validate(
    device: *mut ffi::rte_eth_dev,
    policy: *mut ffi::rte_mtr_meter_policy_params,
    error: *mut ffi::rte_mtr_error,
) -> c_int {
    // SAFETY: as `rte_mtr_meter_policy_validate` is called.
    unsafe {
        status("mtr meter_policy_validate", device, error, |port| {
            with_policy(policy, |actions| {
                let topology = &port.switch.context.topology;
                port.switch.eswitch.lock().meters().policy_validate(topology, port.vport, actions)
            })
        })
    }
}

unsafe extern "C" fn policy_add(
    device: *mut ffi::rte_eth_dev,
    id: u32,
    policy: *mut ffi::rte_mtr_meter_policy_params,
    error: *mut ffi::rte_mtr_error,
) -> c_int {
    // SAFETY: as `rte_mtr_meter_policy_add` is called.
    unsafe {
        status("mtr meter_policy_add", device, error, |port| {
            with_policy(policy, |actions| {
                let topology = &port.switch.context.topology;
                port.switch.eswitch.lock().meters().policy_add(topology, port.vport, id, actions)
            })
        })
    }
}

unsafe extern "C" fn policy_delete(
    device: *mut ffi::rte_eth_dev,
    id: u32,
    error: *mut ffi::rte_mtr_error,
) -> c_int {
    // SAFETY: as `rte_mtr_meter_policy_delete` is called.
    unsafe {
        status("mtr meter_policy_delete", device, error, |port| {
            port.switch.eswitch.lock().meters().policy_delete(port.vport, id)
        })
    }
}

unsafe extern "C" fn create(
    device: *mut ffi::rte_eth_dev,
    id: u32,
    params: *mut ffi::rte_mtr_params,
    shared: c_int,
    error: *mut ffi::rte_mtr_error,
) -> c_int {
    // SAFETY: as `rte_mtr_create` is called.
    unsafe {
        status("mtr create", device, error, |port| {
            let params = params.as_ref().ok_or(invalid(Cause::MtrParams, "NULL meter params"))?;
            let params = MeterParams {
                profile: params.meter_profile_id,
                policy: params.meter_policy_id,
                enabled: params.meter_enable != 0,
                colour_aware: params.use_prev_mtr_color != 0,
                shared: shared != 0,
                statistics: params.stats_mask,
            };
            let now = port.switch.clock.now();
            port.switch.eswitch.lock().meters().create(now, port.vport, id, &params).map(drop)
        })
    }
}

unsafe extern "C" fn destroy(
    device: *mut ffi::rte_eth_dev,
    id: u32,
    error: *mut ffi::rte_mtr_error,
) -> c_int {
    // SAFETY: as `rte_mtr_destroy` is called.
    unsafe {
        status("mtr destroy", device, error, |port| {
            port.switch.eswitch.lock().meters().destroy(port.vport, id)
        })
    }
}

unsafe extern "C" fn enable(device: *mut ffi::rte_eth_dev, id: u32, error: *mut ffi::rte_mtr_error) -> c_int {
    // SAFETY: as `rte_mtr_meter_enable` is called.
    unsafe {
        status("mtr meter_enable", device, error, |port| {
            port.switch.eswitch.lock().meters().enable(port.vport, id, true)
        })
    }
}

unsafe extern "C" fn disable(
    device: *mut ffi::rte_eth_dev,
    id: u32,
    error: *mut ffi::rte_mtr_error,
) -> c_int {
    // SAFETY: as `rte_mtr_meter_disable` is called.
    unsafe {
        status("mtr meter_disable", device, error, |port| {
            port.switch.eswitch.lock().meters().enable(port.vport, id, false)
        })
    }
}

unsafe extern "C" fn stats_update(
    device: *mut ffi::rte_eth_dev,
    id: u32,
    mask: u64,
    error: *mut ffi::rte_mtr_error,
) -> c_int {
    // SAFETY: as `rte_mtr_stats_update` is called.
    unsafe {
        status("mtr stats_update", device, error, |port| {
            port.switch.eswitch.lock().meters().statistics_update(port.vport, id, mask)
        })
    }
}

unsafe extern "C" fn stats_read(
    device: *mut ffi::rte_eth_dev,
    id: u32,
    stats: *mut ffi::rte_mtr_stats,
    mask: *mut u64,
    clear: c_int,
    error: *mut ffi::rte_mtr_error,
) -> c_int {
    // SAFETY: as `rte_mtr_stats_read` is called: either place may be null.
    unsafe {
        status("mtr stats_read", device, error, |port| {
            let value = port.switch.eswitch.lock().meters().statistics(port.vport, id, clear != 0)?;
            if let Some(mask) = mask.as_mut() {
                *mask = value.mask;
            }
            if let Some(stats) = stats.as_mut() {
                *stats = ffi::rte_mtr_stats {
                    n_pkts_dropped: value.packets_dropped,
                    n_bytes_dropped: value.bytes_dropped,
                    ..Default::default()
                };
            }
            Ok(())
        })
    }
}
