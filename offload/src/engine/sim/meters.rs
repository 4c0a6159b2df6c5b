//! The simulated device's meters under software steering, call for call as the synchronous engine makes and
//! changes them.

use super::{Count, EngineError, SimEngine};
use crate::engine::Meter;
use eswitch::model::action::Action;
use eswitch::model::objects::meters::{
    Algorithm, MeterParams, MtrRefusal, Profile, STATS_BYTES_DROPPED, STATS_PACKETS_DROPPED,
};
use eswitch::model::refusal::Errno;
use eswitch::model::types::Vport;
use std::collections::BTreeMap;

/// The number of the policy that does nothing but drop red.
const POLICY: u32 = 1;

/// The profile that each meter has.
pub(super) type Profiles = BTreeMap<(u16, u32), u32>;

const GONE: EngineError = EngineError::Lost(Errno::Noent as i32);

fn refused(refusal: MtrRefusal) -> EngineError {
    match refusal.errno {
        Errno::Nomem => EngineError::TableFull,
        errno => EngineError::Refused(errno as i32),
    }
}

/// A meter's rate in the model's words.
pub(super) fn profile_of(meter: &Meter) -> Profile {
    let algorithm = Algorithm::Rfc2697 { cir: meter.per_second, cbs: meter.burst, ebs: 0 };
    Profile { algorithm, packet_mode: meter.packets }
}

impl SimEngine {
    pub(super) fn set(&mut self, port: u16, number: u32, meter: &Meter) -> Result<(), EngineError> {
        let vport = self.vport(port).ok_or(GONE)?;
        let known = self.profiles.get(&(port, number)).copied();
        let next = known.map_or(2 * number, |profile| profile ^ 1);
        let profile = profile_of(meter);
        let topology = self.device.context().topology.clone();
        let meters = self.device.meters();
        match meters.policy_add(&topology, vport, POLICY, &[&[], &[], &[Action::Drop]]) {
            Err(refusal) if refusal.errno != Errno::Exist => return Err(refused(refusal)),
            _ => {}
        }
        meters.profile_add(vport, next, profile).map_err(refused)?;
        let set = match known {
            Some(_) => meters.profile_update(self.now, vport, number, next),
            None => {
                let params = MeterParams {
                    profile: next,
                    policy: POLICY,
                    enabled: true,
                    colour_aware: false,
                    statistics: STATS_PACKETS_DROPPED | STATS_BYTES_DROPPED,
                    shared: true,
                };
                meters.create(self.now, vport, number, &params).map(drop)
            }
        };
        if let Err(refusal) = set {
            // Nobody uses it.
            let _ = meters.profile_delete(vport, next);
            return Err(refused(refusal));
        }
        if let Some(old) = known {
            let _ = meters.profile_delete(vport, old);
        }
        self.profiles.insert((port, number), next);
        Ok(())
    }

    pub(super) fn drops(&mut self, port: u16, number: u32) -> Result<Count, EngineError> {
        let vport = self.vport(port).ok_or(GONE)?;
        let read = self.device.meters().statistics(vport, number, false).map_err(|_| GONE)?;
        Ok(Count { packets: read.packets_dropped, bytes: read.bytes_dropped })
    }

    pub(super) fn unset(&mut self, port: u16, number: u32) {
        let (profile, vport) = (self.profiles.remove(&(port, number)), self.vport(port));
        if let Some((profile, vport)) = profile.zip(vport) {
            destroy(self.device.meters(), vport, number, profile);
        }
    }

    /// Gives up all meters: no rules are left.
    pub(super) fn unset_all(&mut self) {
        for ((port, number), profile) in std::mem::take(&mut self.profiles) {
            if let Some(vport) = self.vport(port) {
                destroy(self.device.meters(), vport, number, profile);
            }
        }
    }
}

/// After a reset they are gone already, which is as good.
fn destroy(meters: &mut eswitch::model::objects::meters::Meters, port: Vport, number: u32, profile: u32) {
    let _ = meters.destroy(port, number);
    let _ = meters.profile_delete(port, profile);
}
