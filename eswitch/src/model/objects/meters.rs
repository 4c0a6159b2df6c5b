//! Meters, and the objects of `rte_mtr` around them.
//!
//! SWS: an application makes a *profile* (rates), a *policy* (what happens to each colour) and a *meter* of
//! the two; rules name the meter by its identifier (`METER`). HWS: profiles only; meters are made from them
//! by rules or indirect handles (`METER_MARK`), and what happens to a colour is up to rules in a later group.
//! Identifiers belong to a port.
//!
//! Refusals follow `mlx5_flow_meter.c`, with their errno and `rte_mtr_error_type`. One difference: mlx5
//! counts dropped packets with an ordinary counter, which is read late; here statistics are exact at once.

use std::collections::BTreeMap;

use dataplane::prefetch::prefetch;

use super::refuse_flow;
use crate::model::action::Action;
use crate::model::refusal::{Errno, Refusal};
use crate::model::types::{Colour, MeterId, Steering, Tick, Topology, Vport};

mod bucket;
mod error;
mod policy;
mod profiles;

use bucket::Buckets;
pub use bucket::{Algorithm, Profile};
use error::refuse;
pub use error::{Cause, MtrRefusal};
use policy::{Checked, NextMeter, NextPolicy, Policy};
pub use policy::{FDB, NIC_RX, NIC_TX, PolicyActions};
pub use profiles::Capabilities;
use profiles::Profiles;

/// `RTE_MTR_STATS_N_PKTS_DROPPED`
pub const STATS_PACKETS_DROPPED: u64 = 1 << 3;
/// `RTE_MTR_STATS_N_BYTES_DROPPED`
pub const STATS_BYTES_DROPPED: u64 = 1 << 7;

/// Meters for which memory is taken at once.
const CHUNK: usize = 256;
const NONE: u32 = u32::MAX;
/// Neither a policy nor a profile can have it (`MLX5_INVALID_POLICY_ID`).
const INVALID: u32 = u32::MAX;
/// Largest policy identifier (`MLX5_MAX_SUB_POLICY_TBL_NUM`).
const POLICY_ID_MAX: u32 = 0x3f_ffff;

/// `rte_mtr_params`, as far as mlx5 heeds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MeterParams {
    /// The profile.
    pub profile: u32,
    /// The policy.
    pub policy: u32,
    /// Whether it meters from the start; else all pass.
    pub enabled: bool,
    /// `use_prev_mtr_color`: whether the packet's colour counts.
    pub colour_aware: bool,
    /// [`STATS_PACKETS_DROPPED`] and [`STATS_BYTES_DROPPED`]; other bits are ignored.
    pub statistics: u64,
    /// Whether more than one rule may use it.
    pub shared: bool,
}

/// `rte_flow_action_meter_mark`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MarkParams {
    /// What [`Meters::profile_get`] answered.
    pub profile: u32,
    /// Whether the packet's colour counts.
    pub colour_aware: bool,
    /// `state`: whether it meters; else all pass.
    pub enabled: bool,
}

/// `rte_flow_update_meter_mark`: what is `None` stays.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MarkUpdate {
    /// Another profile.
    pub profile: Option<Profile>,
    /// Another colour mode.
    pub colour_aware: Option<bool>,
    /// On or off.
    pub enabled: Option<bool>,
}

/// `rte_mtr_stats`, as far as mlx5 fills it, and its mask.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MeterStatistics {
    /// Red packets; 0 unless [`STATS_PACKETS_DROPPED`] is on.
    pub packets_dropped: u64,
    /// Their bytes; 0 unless [`STATS_BYTES_DROPPED`] is on.
    pub bytes_dropped: u64,
    /// Which of the two are on.
    pub mask: u64,
}

/// What a rule that uses a meter depends on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MeterInfo {
    /// Green and yellow packets go on in the rule: the default policy. If not, the meter ends the rule.
    pub default_policy: bool,
    /// Where rules may use it: [`FDB`], [`NIC_RX`], [`NIC_TX`].
    pub domains: u8,
    /// It counts drops; then a transfer rule that matches all ports may not use it.
    pub counts_drops: bool,
    /// The meter that its policy sends packets to.
    pub next_meter: Option<u32>,
}

/// What a meter is, beside its buckets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Role {
    Free {
        next: u32,
    },
    /// Without a policy of its own it has the default one.
    Mtr {
        port: u16,
        profile: u32,
        policy: Option<u32>,
        shared: bool,
    },
    Mark,
}

#[derive(Clone, Debug)]
struct Meter {
    buckets: Buckets,
    enabled: bool,
    colour_aware: bool,
    role: Role,
    /// Rules (and, for a mark, its handle) that use it.
    references: u32,
    statistics: u64,
    packets_dropped: u64,
    bytes_dropped: u64,
}

/// The meters of a device.
#[derive(Debug)]
pub struct Meters {
    steering: Steering,
    capacity: u32,
    /// Fault: no more than so many.
    limit: u32,
    chunks: Vec<Vec<Meter>>,
    free_head: u32,
    live: u32,
    profiles: Profiles,
    policies: BTreeMap<(u16, u32), Policy>,
    /// The policy that changes nothing but to drop red: one for the whole switch, and its users.
    default_policy: Option<u32>,
    default_references: u32,
    ids: BTreeMap<(u16, u32), MeterId>,
}

impl Meters {
    /// None yet; `capacity` at most.
    #[must_use]
    pub fn new(capacity: u32, steering: Steering) -> Meters {
        Meters {
            steering,
            capacity,
            limit: u32::MAX,
            chunks: Vec::with_capacity((capacity as usize).div_ceil(CHUNK)),
            free_head: NONE,
            live: 0,
            profiles: Profiles::new(steering),
            policies: BTreeMap::new(),
            default_policy: None,
            default_references: 0,
            ids: BTreeMap::new(),
        }
    }

    /// HWS: `rte_flow_configure` asked for meters on this port. It has profiles below `profiles_max` from now
    /// on; in 22.11 that is 1.
    pub fn configure(&mut self, port: Vport, profiles_max: u32) {
        self.profiles.configure(port, profiles_max);
    }

    /// `rte_mtr_capabilities_get`.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        Capabilities::of(self.capacity)
    }

    /// `rte_mtr_meter_profile_add`.
    ///
    /// # Errors
    /// EEXIST; EINVAL (identifier); ENOTSUP (rates out of range; HWS: no meters configured).
    pub fn profile_add(&mut self, port: Vport, id: u32, profile: Profile) -> Result<(), MtrRefusal> {
        self.profiles.add(port, id, profile)
    }

    /// `rte_mtr_meter_profile_delete`.
    ///
    /// # Errors
    /// ENOENT; EBUSY while a meter uses it. Meters of `METER_MARK` do not count.
    pub fn profile_delete(&mut self, port: Vport, id: u32) -> Result<(), MtrRefusal> {
        self.profiles.delete(port, id)
    }

    /// `rte_mtr_meter_profile_get`: an index that `METER_MARK` takes, never 0. `None`: no such profile.
    #[must_use]
    pub fn profile_get(&self, port: Vport, id: u32) -> Option<u32> {
        self.profiles.handle(port, id)
    }

    /// What the profile of a [`Meters::profile_get`] says now.
    ///
    /// # Errors
    /// EINVAL: it is no more.
    pub fn profile_of(&self, handle: u32) -> Result<Profile, Refusal> {
        self.profiles.by_handle(handle).ok_or(refuse_flow(Errno::Inval, "no such profile"))
    }

    /// `rte_mtr_meter_policy_validate`.
    ///
    /// # Errors
    /// HWS: ENOSYS, there are no policies. Else what mlx5 has against the actions, mostly ENOTSUP.
    pub fn policy_validate(
        &self,
        topology: &Topology,
        port: Vport,
        actions: &PolicyActions<'_>,
    ) -> Result<(), MtrRefusal> {
        self.check_policy(topology, port, actions).map(|_| ())
    }

    /// `rte_mtr_meter_policy_add`.
    ///
    /// # Errors
    /// As [`Meters::policy_validate`]; ENOTSUP (identifier); EEXIST, also for a second policy that only drops
    /// red.
    pub fn policy_add(
        &mut self,
        topology: &Topology,
        port: Vport,
        id: u32,
        actions: &PolicyActions<'_>,
    ) -> Result<(), MtrRefusal> {
        self.software()?;
        if id > POLICY_ID_MAX {
            return Err(refuse(Errno::Notsup, Cause::MeterPolicyId, "not a policy identifier"));
        }
        let exists = refuse(Errno::Exist, Cause::MeterPolicyId, "the policy exists");
        if self.default_policy == Some(id) || self.policies.contains_key(&(port.0, id)) {
            return Err(exists);
        }
        let checked = self.check_policy(topology, port, actions)?;
        if checked.is_default() {
            if self.default_policy.is_some() {
                return Err(exists);
            }
            self.default_policy = Some(id);
            return Ok(());
        }
        if let Some(next) = checked.next_meter.and_then(|next| self.find(port, next)) {
            self.hold(next);
        }
        self.policies.insert((port.0, id), Policy::new(actions, checked));
        Ok(())
    }

    /// `rte_mtr_meter_policy_delete`.
    ///
    /// # Errors
    /// ENOTSUP if there is none; in use: ENOTSUP for the default policy, EBUSY for others.
    pub fn policy_delete(&mut self, port: Vport, id: u32) -> Result<(), MtrRefusal> {
        self.software()?;
        let refuse = |errno, message| Err(refuse(errno, Cause::MeterPolicyId, message));
        if self.default_policy == Some(id) {
            if self.default_references > 0 {
                return refuse(Errno::Notsup, "the policy is in use");
            }
            self.default_policy = None;
            return Ok(());
        }
        match self.policies.get(&(port.0, id)) {
            None => return refuse(Errno::Notsup, "no such policy"),
            Some(policy) if policy.references > 0 => return refuse(Errno::Busy, "the policy is in use"),
            Some(_) => {}
        }
        let policy = self.policies.remove(&(port.0, id));
        let next = policy.and_then(|policy| policy.next_meter);
        if let Some(next) = next.and_then(|next| self.find(port, next)) {
            self.detach(next);
        }
        Ok(())
    }

    /// `rte_mtr_create`.
    ///
    /// # Errors
    /// EEXIST; ENOENT (profile or policy); ENOTSUP (the policy has nothing for a colour that the profile
    /// gives); ENOMEM.
    pub fn create(
        &mut self,
        now: Tick,
        port: Vport,
        id: u32,
        params: &MeterParams,
    ) -> Result<MeterId, MtrRefusal> {
        self.software()?;
        let no_policy = refuse(Errno::Noent, Cause::MeterPolicyId, "no such policy");
        if params.policy == INVALID {
            return Err(no_policy);
        }
        if self.ids.contains_key(&(port.0, id)) {
            return Err(refuse(Errno::Exist, Cause::MtrId, "the meter exists"));
        }
        let profile = self.profiles.get(port, params.profile)?;
        let own_policy = Some(params.policy).filter(|id| self.default_policy != Some(*id));
        if own_policy.is_some() {
            let policy = self.policies.get(&(port.0, params.policy)).ok_or(no_policy)?;
            if policy.green_empty {
                return Err(refuse(Errno::Notsup, Cause::MeterPolicyId, "the policy has nothing for green"));
            }
            if policy.yellow_empty && profiles::gives_yellow(&profile) {
                return Err(refuse(Errno::Notsup, Cause::MeterPolicyId, "the policy has nothing for yellow"));
            }
        }
        let meter = Meter {
            buckets: Buckets::new(now, &profile),
            enabled: params.enabled,
            colour_aware: params.colour_aware,
            role: Role::Mtr {
                port: port.0,
                profile: params.profile,
                policy: own_policy,
                shared: params.shared,
            },
            references: 0,
            statistics: params.statistics & (STATS_PACKETS_DROPPED | STATS_BYTES_DROPPED),
            packets_dropped: 0,
            bytes_dropped: 0,
        };
        let no_memory = refuse(Errno::Nomem, Cause::Unspecified, "no meter is free");
        let meter = self.place(meter).ok_or(no_memory)?;
        self.profiles.retain(port, params.profile);
        *self.policy_references(port, own_policy) += 1;
        self.ids.insert((port.0, id), meter);
        Ok(meter)
    }

    /// `rte_mtr_destroy`.
    ///
    /// # Errors
    /// ENOENT; EBUSY while rules, or policies, use it.
    pub fn destroy(&mut self, port: Vport, id: u32) -> Result<(), MtrRefusal> {
        let meter = self.require(port, id)?;
        let (role, references) =
            self.get(meter).map_or((Role::Mark, 0), |meter| (meter.role, meter.references));
        if references > 0 {
            return Err(refuse(Errno::Busy, Cause::Unspecified, "the meter is in use"));
        }
        if let Role::Mtr { profile, policy, .. } = role {
            self.profiles.release(port, profile);
            let references = self.policy_references(port, policy);
            *references = references.saturating_sub(1);
        }
        self.ids.remove(&(port.0, id));
        self.release(meter);
        Ok(())
    }

    /// `rte_mtr_meter_enable` and `rte_mtr_meter_disable`. A disabled meter colours nothing.
    ///
    /// # Errors
    /// ENOENT
    pub fn enable(&mut self, port: Vport, id: u32, enabled: bool) -> Result<(), MtrRefusal> {
        let meter = self.require(port, id)?;
        if let Some(meter) = self.get_mut(meter) {
            meter.enabled = enabled;
        }
        Ok(())
    }

    /// `rte_mtr_meter_profile_update`.
    ///
    /// # Errors
    /// ENOENT, for either.
    pub fn profile_update(&mut self, now: Tick, port: Vport, id: u32, new: u32) -> Result<(), MtrRefusal> {
        let profile = self.profiles.get(port, new)?;
        let meter = self.require(port, id)?;
        let Some(meter) = self.get_mut(meter) else { return Ok(()) };
        if let Role::Mtr { profile: old, .. } = &mut meter.role {
            let old = std::mem::replace(old, new);
            if old != new {
                meter.buckets.change(now, &profile);
                self.profiles.release(port, old);
                self.profiles.retain(port, new);
            }
        }
        Ok(())
    }

    /// `rte_mtr_stats_update`: which of the two are on. With none on, they start again from 0.
    ///
    /// # Errors
    /// ENOENT
    pub fn statistics_update(&mut self, port: Vport, id: u32, mask: u64) -> Result<(), MtrRefusal> {
        let meter = self.require(port, id)?;
        if let Some(meter) = self.get_mut(meter) {
            meter.statistics = mask & (STATS_PACKETS_DROPPED | STATS_BYTES_DROPPED);
            if meter.statistics == 0 {
                (meter.packets_dropped, meter.bytes_dropped) = (0, 0);
            }
        }
        Ok(())
    }

    /// `rte_mtr_stats_read`, and with `clear` from 0 on.
    ///
    /// # Errors
    /// ENOENT
    pub fn statistics(&mut self, port: Vport, id: u32, clear: bool) -> Result<MeterStatistics, MtrRefusal> {
        let meter = self.require(port, id)?;
        let Some(meter) = self.get_mut(meter) else { return Ok(MeterStatistics::default()) };
        let mask = meter.statistics;
        let shown = |bit, value| if mask & bit == 0 { 0 } else { value };
        let statistics = MeterStatistics {
            packets_dropped: shown(STATS_PACKETS_DROPPED, meter.packets_dropped),
            bytes_dropped: shown(STATS_BYTES_DROPPED, meter.bytes_dropped),
            mask,
        };
        if clear {
            (meter.packets_dropped, meter.bytes_dropped) = (0, 0);
        }
        Ok(statistics)
    }

    /// The meter that this port's rules call `id`.
    #[must_use]
    pub fn find(&self, port: Vport, id: u32) -> Option<MeterId> {
        self.ids.get(&(port.0, id)).copied()
    }

    /// What its port calls a meter; for people: it looks through all of them.
    #[must_use]
    pub fn name(&self, id: MeterId) -> Option<u32> {
        self.ids.iter().find_map(|((_, name), known)| (*known == id).then_some(*name))
    }

    /// What a rule that uses it must know. `None`: no such meter, or made by `METER_MARK`.
    #[must_use]
    pub fn info(&self, id: MeterId) -> Option<MeterInfo> {
        let meter = self.get(id)?;
        let Role::Mtr { port, policy, .. } = meter.role else { return None };
        let counts_drops = meter.statistics != 0;
        let all = FDB | NIC_RX | NIC_TX;
        Some(match policy.and_then(|policy| self.policies.get(&(port, policy))) {
            Some(&Policy { domains, next_meter, .. }) => {
                MeterInfo { default_policy: false, domains, counts_drops, next_meter }
            }
            None => MeterInfo { default_policy: true, domains: all, counts_drops, next_meter: None },
        })
    }

    /// What its policy does with a colour. Empty: go on in the rule, or, for red, drop. It stays so for as
    /// long as the meter lives.
    pub fn actions(&self, id: MeterId, colour: Colour) -> impl Iterator<Item = Action<'_>> {
        let policy = self.get(id).and_then(|meter| match meter.role {
            Role::Mtr { port, policy, .. } => self.policies.get(&(port, policy?)),
            _ => None,
        });
        let green = policy.filter(|_| colour == Colour::Green).into_iter().flat_map(Policy::green);
        let yellow = policy.filter(|_| colour == Colour::Yellow).into_iter().flat_map(Policy::yellow);
        green.chain(yellow)
    }

    /// A rule of this port starts to use a meter. Undone by [`Meters::detach`].
    ///
    /// # Errors
    /// EINVAL if there is no such meter, or it is not shared and in use.
    pub fn attach(&mut self, port: Vport, id: u32) -> Result<MeterId, Refusal> {
        let none = refuse_flow(Errno::Inval, "no such meter");
        let meter_id = self.find(port, id).ok_or(none)?;
        let meter = self.get_mut(meter_id).ok_or(none)?;
        if meter.references > 0 && !matches!(meter.role, Role::Mtr { shared: true, .. }) {
            return Err(refuse_flow(Errno::Inval, "the meter is not shared, and in use"));
        }
        meter.references = meter.references.saturating_add(1);
        Ok(meter_id)
    }

    /// A meter for `METER_MARK`, with one reference.
    ///
    /// # Errors
    /// SWS: ENOTSUP. EINVAL: no such profile. ENOMEM.
    pub fn mark(&mut self, now: Tick, params: &MarkParams) -> Result<MeterId, Refusal> {
        if self.steering == Steering::Software {
            return Err(refuse_flow(Errno::Notsup, "meter_mark needs hardware steering"));
        }
        let none = refuse_flow(Errno::Inval, "no such profile");
        let profile = self.profiles.by_handle(params.profile).ok_or(none)?;
        let meter = Meter {
            buckets: Buckets::new(now, &profile),
            enabled: params.enabled,
            colour_aware: params.colour_aware,
            role: Role::Mark,
            references: 1,
            statistics: 0,
            packets_dropped: 0,
            bytes_dropped: 0,
        };
        self.place(meter).ok_or(refuse_flow(Errno::Nomem, "no meter is free"))
    }

    /// Changes the meter of an indirect `METER_MARK`.
    ///
    /// # Errors
    /// EINVAL: no such meter.
    pub fn mark_update(&mut self, now: Tick, id: MeterId, update: &MarkUpdate) -> Result<(), Refusal> {
        let none = refuse_flow(Errno::Inval, "no such meter");
        let meter = self.get_mut(id).filter(|meter| meter.role == Role::Mark).ok_or(none)?;
        if let Some(profile) = &update.profile {
            meter.buckets.change(now, profile);
        }
        meter.colour_aware = update.colour_aware.unwrap_or(meter.colour_aware);
        meter.enabled = update.enabled.unwrap_or(meter.enabled);
        Ok(())
    }

    /// Fault: no more than so many may be in use from now on; `None`: as many as there are.
    pub fn set_limit(&mut self, limit: Option<u32>) {
        self.limit = limit.unwrap_or(u32::MAX);
    }

    /// One more reference, from a rule that uses an indirect `METER_MARK`; whether there is such a meter.
    #[must_use]
    pub fn retain(&mut self, id: MeterId) -> bool {
        let used = self.get(id).is_some_and(|meter| meter.role == Role::Mark);
        if used {
            self.hold(id);
        }
        used
    }

    fn hold(&mut self, id: MeterId) {
        if let Some(meter) = self.get_mut(id) {
            meter.references = meter.references.saturating_add(1);
        }
    }

    /// Destroys an indirect `METER_MARK`: gives up its handle's reference. It goes with its last rule.
    ///
    /// # Errors
    /// EINVAL if there is no such meter.
    pub fn destroy_mark(&mut self, id: MeterId) -> Result<(), Refusal> {
        if self.get_mut(id).is_none_or(|meter| meter.role != Role::Mark) {
            return Err(refuse_flow(Errno::Inval, "no such indirect meter"));
        }
        self.detach(id);
        Ok(())
    }

    /// One reference less. A `METER_MARK`'s meter goes with the last one.
    pub fn detach(&mut self, id: MeterId) {
        let Some(meter) = self.get_mut(id) else { return };
        meter.references = meter.references.saturating_sub(1);
        if meter.references == 0 && meter.role == Role::Mark {
            self.release(id);
        }
    }

    /// The colour of a packet of `bytes` bytes that came with the colour `arrived`. A disabled meter, or one
    /// that does not exist, leaves the colour alone; green, if it is colour-blind. Red packets are counted as
    /// dropped.
    #[inline]
    pub fn colour(&mut self, now: Tick, id: MeterId, bytes: u32, arrived: Colour) -> Colour {
        let Some(meter) = self.get_mut(id) else { return arrived };
        let arrived = if meter.colour_aware { arrived } else { Colour::Green };
        if !meter.enabled {
            return arrived;
        }
        let colour = meter.buckets.colour(now, bytes, arrived);
        if colour == Colour::Red && meter.statistics != 0 {
            meter.packets_dropped += 1;
            meter.bytes_dropped += u64::from(bytes);
        }
        colour
    }

    /// Asks for the first cache line that [`Meters::colour`] will touch.
    #[inline]
    pub fn prefetch(&self, id: MeterId) {
        if let Some(meter) = self.get(id) {
            prefetch(&meter.buckets);
        }
    }

    /// Meters in use, of both kinds.
    #[must_use]
    pub fn live(&self) -> u32 {
        self.live
    }

    fn software(&self) -> Result<(), MtrRefusal> {
        match self.steering {
            Steering::Software => Ok(()),
            Steering::Hardware => Err(refuse(Errno::Nosys, Cause::Unspecified, "not with hardware steering")),
        }
    }

    fn check_policy(
        &self,
        topology: &Topology,
        port: Vport,
        actions: &PolicyActions<'_>,
    ) -> Result<Checked, MtrRefusal> {
        self.software()?;
        policy::check(topology, actions, &|id| {
            let meter = self.get(self.find(port, id)?)?;
            let Role::Mtr { policy, shared, .. } = meter.role else { return None };
            let policy = policy.and_then(|policy| self.policies.get(&(port.0, policy)));
            let policy =
                policy.map(|policy| NextPolicy { domains: policy.domains, next_meter: policy.next_meter });
            Some(NextMeter { shared, policy })
        })
    }

    fn policy_references(&mut self, port: Vport, own: Option<u32>) -> &mut u32 {
        match own.and_then(|id| self.policies.get_mut(&(port.0, id))) {
            Some(policy) => &mut policy.references,
            None => &mut self.default_references,
        }
    }

    /// # Errors
    /// HWS: ENOSYS. ENOENT.
    fn require(&self, port: Vport, id: u32) -> Result<MeterId, MtrRefusal> {
        self.software()?;
        self.find(port, id).ok_or(refuse(Errno::Noent, Cause::MtrId, "no such meter"))
    }

    #[inline]
    fn get(&self, id: MeterId) -> Option<&Meter> {
        let meter = self.chunks.get(id.0 as usize / CHUNK)?.get(id.0 as usize % CHUNK)?;
        (!matches!(meter.role, Role::Free { .. })).then_some(meter)
    }

    #[inline]
    fn get_mut(&mut self, id: MeterId) -> Option<&mut Meter> {
        let meter = self.chunks.get_mut(id.0 as usize / CHUNK)?.get_mut(id.0 as usize % CHUNK)?;
        (!matches!(meter.role, Role::Free { .. })).then_some(meter)
    }

    fn place(&mut self, meter: Meter) -> Option<MeterId> {
        if self.live >= self.capacity.min(self.limit) {
            return None;
        }
        let id = self.free_head;
        let freed =
            self.chunks.get_mut(id as usize / CHUNK).and_then(|chunk| chunk.get_mut(id as usize % CHUNK));
        let id = match freed {
            Some(slot) => {
                if let Role::Free { next } = slot.role {
                    self.free_head = next;
                }
                *slot = meter;
                id
            }
            None => {
                // Nothing was freed, so all identifiers below `live` are in use.
                if self.live as usize % CHUNK == 0 {
                    self.chunks.push(Vec::with_capacity(CHUNK));
                }
                self.chunks.last_mut()?.push(meter);
                self.live
            }
        };
        self.live += 1;
        Some(MeterId(id))
    }

    fn release(&mut self, id: MeterId) {
        let next = self.free_head;
        if let Some(meter) = self.get_mut(id) {
            meter.role = Role::Free { next };
            self.free_head = id.0;
            self.live -= 1;
        }
    }
}

#[cfg(test)]
mod tests;
