//! Profiles: rates under a name, per port. And what the device can do at most.

use std::collections::BTreeMap;

use super::error::{Cause, MtrRefusal, refuse};
use super::{Algorithm, INVALID, Profile, STATS_BYTES_DROPPED, STATS_PACKETS_DROPPED};
use crate::model::refusal::Errno;
use crate::model::types::{Steering, Vport};

/// Largest committed or excess rate (`MLX5_SRTCM_XIR_MAX`), and burst (`MLX5_SRTCM_XBS_MAX`), in bytes; peak
/// ones may be twice that.
const RATE_MAX: u128 = 8 * (1 << 30) * 0xff;
const BURST_MAX: u128 = 0xff << 0x1f;
/// To mlx5 a packet is as 128 bytes (`MLX5_MTRS_PPS_MAP_BPS_SHIFT`).
const PACKET_SHIFT: u32 = 7;

/// `rte_mtr_capabilities`, with the numbers of `mlx5_flow_mtr_cap_get`; what is not here is 0 there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capabilities {
    /// `n_max`, and as many of them shared; also the number of each algorithm and of policies.
    pub meters_max: u32,
    /// `identical`, `shared_identical`
    pub identical: bool,
    /// `shared_n_flows_per_mtr_max`
    pub rules_per_meter_max: u32,
    /// `chaining_n_mtrs_per_flow_max`
    pub meters_per_rule_max: u32,
    /// `meter_rate_max`: a trillion tokens a second.
    pub rate_max: u64,
    /// Byte mode and packet mode of all three algorithms.
    pub byte_and_packet_mode: bool,
    /// `stats_mask`
    pub statistics: u64,
}

impl Capabilities {
    pub(super) const fn of(meters_max: u32) -> Capabilities {
        Capabilities {
            meters_max,
            identical: true,
            rules_per_meter_max: 4 << 20,
            meters_per_rule_max: 1,
            rate_max: 1 << 40,
            byte_and_packet_mode: true,
            statistics: STATS_PACKETS_DROPPED | STATS_BYTES_DROPPED,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    profile: Profile,
    handle: u32,
    references: u32,
}

/// All profiles.
#[derive(Debug)]
pub(super) struct Profiles {
    steering: Steering,
    entries: BTreeMap<(u16, u32), Entry>,
    handles: BTreeMap<u32, (u16, u32)>,
    next_handle: u32,
    /// HWS: by port, how many there can be.
    maxima: BTreeMap<u16, u32>,
}

impl Profiles {
    pub(super) fn new(steering: Steering) -> Profiles {
        let (entries, handles, maxima) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Profiles { steering, entries, handles, next_handle: 1, maxima }
    }

    pub(super) fn configure(&mut self, port: Vport, profiles_max: u32) {
        self.maxima.insert(port.0, profiles_max);
    }

    pub(super) fn add(&mut self, port: Vport, id: u32, profile: Profile) -> Result<(), MtrRefusal> {
        self.check_id(port, id)?;
        if self.entries.contains_key(&(port.0, id)) {
            return Err(refuse(Errno::Exist, Cause::MeterProfileId, "the profile exists"));
        }
        if !in_range(&profile) {
            return Err(refuse(Errno::Notsup, Cause::MtrParams, "a rate or a burst is out of range"));
        }
        let handle = self.next_handle;
        if self.handles.contains_key(&handle) {
            return Err(refuse(Errno::Nomem, Cause::Unspecified, "too many profiles"));
        }
        self.next_handle = handle.checked_add(1).unwrap_or(1);
        self.handles.insert(handle, (port.0, id));
        self.entries.insert((port.0, id), Entry { profile, handle, references: 0 });
        Ok(())
    }

    pub(super) fn delete(&mut self, port: Vport, id: u32) -> Result<(), MtrRefusal> {
        if self.steering == Steering::Hardware {
            self.check_id(port, id)?;
        }
        match self.entries.get(&(port.0, id)) {
            None => Err(missing()),
            Some(entry) if entry.references > 0 => {
                Err(refuse(Errno::Busy, Cause::MeterProfileId, "the profile is in use"))
            }
            Some(entry) => {
                self.handles.remove(&entry.handle);
                self.entries.remove(&(port.0, id));
                Ok(())
            }
        }
    }

    pub(super) fn get(&self, port: Vport, id: u32) -> Result<Profile, MtrRefusal> {
        self.entries.get(&(port.0, id)).map(|entry| entry.profile).ok_or(missing())
    }

    pub(super) fn handle(&self, port: Vport, id: u32) -> Option<u32> {
        self.entries.get(&(port.0, id)).map(|entry| entry.handle)
    }

    pub(super) fn by_handle(&self, handle: u32) -> Option<Profile> {
        self.handles.get(&handle).and_then(|key| self.entries.get(key)).map(|entry| entry.profile)
    }

    pub(super) fn retain(&mut self, port: Vport, id: u32) {
        if let Some(entry) = self.entries.get_mut(&(port.0, id)) {
            entry.references = entry.references.saturating_add(1);
        }
    }

    pub(super) fn release(&mut self, port: Vport, id: u32) {
        if let Some(entry) = self.entries.get_mut(&(port.0, id)) {
            entry.references = entry.references.saturating_sub(1);
        }
    }

    fn check_id(&self, port: Vport, id: u32) -> Result<(), MtrRefusal> {
        let bad = refuse(Errno::Inval, Cause::MeterProfileId, "not a profile identifier");
        match (self.steering, self.maxima.get(&port.0)) {
            (Steering::Software, _) if id == INVALID => Err(bad),
            (Steering::Software, _) => Ok(()),
            (Steering::Hardware, None) => {
                Err(refuse(Errno::Notsup, Cause::Unspecified, "no meters were configured"))
            }
            (Steering::Hardware, Some(&max)) if id >= max => Err(bad),
            (Steering::Hardware, Some(_)) => Ok(()),
        }
    }
}

/// Whether a meter of this profile ever answers yellow: mlx5 looks whether there is an excess (or peak) part.
pub(super) fn gives_yellow(profile: &Profile) -> bool {
    match profile.algorithm {
        Algorithm::Rfc2697 { ebs, .. } => ebs > 0,
        Algorithm::Rfc2698 { pir, pbs, .. } => pir > 0 || pbs > 0,
        Algorithm::Rfc4115 { eir, ebs, .. } => eir > 0 || ebs > 0,
    }
}

fn in_range(profile: &Profile) -> bool {
    let scaled = |value: u64| u128::from(value) << if profile.packet_mode { PACKET_SHIFT } else { 0 };
    let rate = |value, times: u128| scaled(value) <= RATE_MAX * times;
    let burst = |value, times: u128| scaled(value) <= BURST_MAX * times;
    let committed = |cir: u64, cbs: u64| cir > 0 && cbs > 0 && rate(cir, 1) && burst(cbs, 1);
    match profile.algorithm {
        Algorithm::Rfc2697 { cir, cbs, ebs } => committed(cir, cbs) && burst(ebs, 1),
        Algorithm::Rfc2698 { cir, pir, cbs, pbs } => {
            committed(cir, cbs) && pir >= cir && pbs >= cbs && rate(pir, 2) && burst(pbs, 2)
        }
        Algorithm::Rfc4115 { cir, eir, cbs, ebs } => committed(cir, cbs) && rate(eir, 1) && burst(ebs, 1),
    }
}

const fn missing() -> MtrRefusal {
    refuse(Errno::Noent, Cause::MeterProfileId, "no such profile")
}
