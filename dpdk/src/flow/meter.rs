//! Meters (`rte_mtr`) that rules of software steering name: one rate for all rules that name the meter.
//! Packets within it go on in their rule; the others are dropped, and counted.
//!
//! A rate is a *profile* to drivers. To change a meter's, a second profile is made, the meter given that, and
//! the first deleted; so each meter has two profile numbers of its own. All meters have the one policy that
//! drivers know to do nothing but drop red packets.

use std::collections::BTreeMap;

use super::error::Failure;
use super::{FlowError, Flows};
use crate::errno::Errno;

/// The number of the policy. Not 0, which drivers may not tell from none.
const POLICY: u32 = 1;

/// How fast, and in what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MeterRate {
    /// Packets a second, or bytes of whole frames.
    pub per_second: u64,
    /// How many of them at once.
    pub burst: u64,
    /// Whether they are packets.
    pub packets: bool,
}

/// What a meter has dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MeterDrops {
    /// Packets.
    pub packets: u64,
    /// Their bytes, of whole frames.
    pub bytes: u64,
}

/// A port's meters: which of its two profiles each uses.
#[derive(Debug, Default)]
pub(super) struct Meters {
    profiles: BTreeMap<u32, u32>,
    has_policy: bool,
}

impl Flows<'_> {
    /// Makes a meter, or changes the rate of one that there is. Whether that keeps what it holds of a burst
    /// then, or is full again, is the device's affair: mlx5's request to change a meter leaves the tokens
    /// to hardware, and its mask covers them (mlx5_flow_aso.c, 22.11). Nobody has tried it here.
    ///
    /// # Errors
    /// The driver refuses, and the meter is as it was.
    pub fn set_meter(&mut self, meter: u32, rate: &MeterRate) -> Result<(), FlowError> {
        let number = self.number();
        let old = self.meters.profiles.get(&meter).copied();
        if old.is_none() {
            self.make_policy()?;
        }
        let profile = old.map_or(meter.wrapping_mul(2), |old| old ^ 1);
        match self.add_profile(profile, rate) {
            // One that could not be deleted once.
            Err(error) if error.errno == Errno::EXIST => {
                self.delete_profile(profile);
                self.add_profile(profile, rate)?;
            }
            added => added?,
        }
        let mut failure = Failure::new("setting a meter");
        // SAFETY: the port is started; `failure` is writable. A driver refuses numbers it does not know.
        let ret = unsafe {
            match old {
                None => dpdk_sys::millrace_meter_create(number, meter, profile, POLICY, failure.as_mut()),
                Some(_) => dpdk_sys::millrace_meter_change(number, meter, profile, failure.as_mut()),
            }
        };
        if let Err(error) = failure.check(number, ret) {
            self.delete_profile(profile);
            return Err(error);
        }
        self.meters.profiles.insert(meter, profile);
        if let Some(old) = old {
            self.delete_profile(old);
        }
        Ok(())
    }

    /// What a meter has dropped since it was made.
    ///
    /// # Errors
    /// The driver knows no such meter, or cannot say.
    pub fn meter_drops(&self, meter: u32) -> Result<MeterDrops, FlowError> {
        let mut failure = Failure::new("reading a meter");
        let mut drops = dpdk_sys::millrace_meter_drops::default();
        // SAFETY: the port is started; `drops` and `failure` are writable.
        let ret =
            unsafe { dpdk_sys::millrace_meter_drops(self.number(), meter, &mut drops, failure.as_mut()) };
        failure.check(self.number(), ret)?;
        Ok(MeterDrops { packets: drops.packets, bytes: drops.bytes })
    }

    /// Destroys a meter that no rule names any more.
    ///
    /// # Errors
    /// It stays; a rule may use it yet.
    pub fn destroy_meter(&mut self, meter: u32) -> Result<(), FlowError> {
        let mut failure = Failure::new("destroying a meter");
        if !self.meters.profiles.contains_key(&meter) {
            return Err(failure.because(self.number(), Errno::NOENT));
        }
        // SAFETY: the port is started; `failure` is writable.
        let ret = unsafe { dpdk_sys::millrace_meter_destroy(self.number(), meter, failure.as_mut()) };
        failure.check(self.number(), ret)?;
        self.drop_meter(meter);
        Ok(())
    }

    /// Destroys all meters, whose rules are gone, and the policy.
    ///
    /// # Errors
    /// The first that the driver has not given up. It is known still: the next flush tries again.
    pub(super) fn forget_meters(&mut self) -> Result<(), FlowError> {
        let mut forgotten = Ok(());
        let meters: Vec<u32> = self.meters.profiles.keys().copied().collect();
        for meter in meters {
            let destroyed = match self.destroy_meter(meter) {
                Err(error) if matches!(error.errno, Errno::NOENT | Errno::INVAL) => {
                    self.drop_meter(meter);
                    Ok(())
                }
                destroyed => destroyed,
            };
            forgotten = forgotten.and(destroyed);
        }
        if self.meters.profiles.is_empty() && std::mem::take(&mut self.meters.has_policy) {
            let mut failure = Failure::new("deleting the meters' policy");
            // SAFETY: the port is started; `failure` is writable.
            unsafe { dpdk_sys::millrace_meter_policy_delete(self.number(), POLICY, failure.as_mut()) };
        }
        forgotten
    }

    /// A meter that the driver has no more.
    fn drop_meter(&mut self, meter: u32) {
        if let Some(profile) = self.meters.profiles.remove(&meter) {
            self.delete_profile(profile);
        }
    }

    fn make_policy(&mut self) -> Result<(), FlowError> {
        if self.meters.has_policy {
            return Ok(());
        }
        let mut failure = Failure::new("adding the meters' policy");
        // SAFETY: the port is started; `failure` is writable.
        let ret = unsafe { dpdk_sys::millrace_meter_policy_add(self.number(), POLICY, failure.as_mut()) };
        match failure.check(self.number(), ret) {
            // A flush that failed has left it.
            Err(error) if error.errno != Errno::EXIST => Err(error),
            _ => {
                self.meters.has_policy = true;
                Ok(())
            }
        }
    }

    fn add_profile(&self, profile: u32, rate: &MeterRate) -> Result<(), FlowError> {
        let MeterRate { per_second, burst, packets } = *rate;
        let raw = dpdk_sys::millrace_meter_rate { per_second, burst, packets };
        let mut failure = Failure::new("adding a meter profile");
        let number = self.number();
        // SAFETY: the port is started; the structures outlive the call, and drivers copy what they need.
        let ret = unsafe { dpdk_sys::millrace_meter_profile_add(number, profile, &raw, failure.as_mut()) };
        failure.check(number, ret)
    }

    /// Of a profile that nobody uses. Where a driver keeps it all the same, whoever adds it next tries again.
    fn delete_profile(&self, profile: u32) {
        let mut failure = Failure::new("deleting a meter profile");
        // SAFETY: the port is started; `failure` is writable.
        unsafe { dpdk_sys::millrace_meter_profile_delete(self.number(), profile, failure.as_mut()) };
    }
}
