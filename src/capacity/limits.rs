//! What there is a bound to: how much is needed of it, how much there is, and when it is reached.
//!
//! Bounds come from where they are kept to: the configuration, the device's profile, and the sizes and rates
//! that the program derives from them. What is needed of each comes from the rehearsal (see `stage`) and the
//! traffic. All needs but those of sorts (meters, tables) grow with the traffic: so the first bound to be
//! reached as traffic grows in proportion is that with the smallest quotient of room and need.

use super::parted::{Parted, Rehearsal};
use super::stage;
use super::traffic::{Load, Traffic};
use crate::engine;
use dataplane::config::Config;
use dataplane::flow::Protocol;
use dataplane::limits::{PARTITION_RULES_MAX, PARTITION_RULES_PLANNED_MAX};
use dataplane::offload::Ask;
use dataplane::snapshot::{Mode, Service, Snapshot};
use dataplane::worker::Sizes;
use eswitch::model::profile::Profile;
use eswitch::model::types::Steering;
use offload::admission::Budget;
use offload::engine::table_rules;
use offload::machine::{Settings, pairs_max, tenant_rules_max};
use offload::rule::Rule;
use serde::Serialize;
use std::collections::BTreeSet;

/// A bound.
#[derive(Serialize, Clone, Debug, PartialEq)]
pub(crate) struct Limit {
    /// Its name: a key of the configuration or of the profile, or `insertion_rate`, `half_open`, `settling`.
    pub(crate) limit: String,
    /// Whose it is: `configuration`, `profile`, or `engine` for what follows from the two.
    pub(crate) of: &'static str,
    /// What is counted.
    pub(crate) unit: &'static str,
    /// How much of it the traffic needs.
    pub(crate) need: f64,
    /// How much there is.
    pub(crate) room: f64,
    /// What is left, percent of what there is; negative: so much is missing.
    pub(crate) headroom_percent: f64,
    /// Whether more is needed than there is.
    pub(crate) exceeded: bool,
    /// Where it is reached, if it ever is.
    pub(crate) reached: Option<Reached>,
    /// What to do about it.
    pub(crate) remedy: String,
}

/// Where a bound is reached as the traffic grows, its mix staying as it is.
#[derive(Serialize, Clone, Copy, Debug, PartialEq)]
pub(crate) struct Reached {
    /// At so many times the traffic.
    pub(crate) times: f64,
    /// That is so many live connections,
    pub(crate) connections: f64,
    /// and so many new ones per second.
    pub(crate) new_per_second: f64,
}

/// A service as it was rehearsed, with what it carries.
pub(super) struct Cast<'a> {
    pub(super) service: &'a Service,
    pub(super) load: &'a Load,
    /// What hardware is asked for, and takes.
    pub(super) taken: Option<Taken>,
    /// Its rules, if it is by source partition and hardware may have it.
    pub(super) parted: Option<&'a Parted>,
}

/// Why none of a service's connections is in hardware that would take them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unused {
    /// They send so seldom that their rules would be idle.
    Idle,
    /// They are over before they have carried enough to be asked for.
    Short,
}

/// What a connection takes of the device.
#[derive(Clone, Debug)]
pub(super) struct Taken {
    pub(super) ask: Ask,
    pub(super) rules: Vec<Rule>,
    /// Counters and age contexts.
    pub(super) objects: [u64; 2],
    /// The meter's number, which connections share.
    pub(super) meter: Option<u32>,
}

/// What all services together want of the device and of the tables.
#[derive(Serialize, Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Needs {
    /// Connections in hardware.
    pub(crate) connections: f64,
    /// Their rules.
    pub(crate) rules: f64,
    /// Rules that lead to them.
    pub(crate) base_rules: usize,
    /// Different patterns, values apart: matchers under software steering, tables under hardware steering.
    pub(crate) masks: usize,
    /// Groups.
    pub(crate) groups: usize,
    /// Kinds of actions: actions templates under hardware steering.
    pub(crate) templates: usize,
    /// Counters, those included whose last figures are waited for.
    pub(crate) counters: f64,
    /// Age contexts.
    pub(crate) ages: f64,
    /// Meters.
    pub(crate) meters: usize,
    /// Kinds of tunnel headers: connections of which bring their own.
    pub(crate) encapsulations: f64,
    /// Rules put in force per second, and as many taken out.
    pub(crate) insertions_per_second: f64,
    /// Packets per second that hardware forwards,
    pub(crate) hardware_packets_per_second: f64,
    /// and software.
    pub(crate) software_packets_per_second: f64,
}

/// What the rules of source partitions take, whatever the traffic.
#[derive(Serialize, Clone, Debug, Default, PartialEq)]
pub(crate) struct PartitionNeeds {
    /// Rules: one for each partition, port of a service and way in.
    pub(crate) rules: u64,
    /// Of these, those that the machine plans for.
    #[serde(skip)]
    pub(crate) planned: u64,
    /// Counters.
    pub(crate) counters: u64,
    /// Masks, groups and kinds of actions, as of connections' rules.
    pub(crate) masks: usize,
    pub(crate) groups: usize,
    pub(crate) templates: usize,
    /// Rules put in force when the program starts,
    pub(crate) insertions_at_start: u64,
    /// and for how long that goes on, milliseconds.
    pub(crate) start_ms: f64,
    /// What more and more of them would reach first, without any connections,
    pub(crate) first_limit: &'static str,
    /// how many there would be then,
    pub(crate) rules_max: f64,
    /// and what is left of that, percent; negative: so much is missing.
    pub(crate) headroom_percent: f64,
}

impl Cast<'_> {
    /// New connections per second that hardware gets, and how long each is there, seconds.
    pub(super) fn flow(&self, config: &Config) -> (f64, f64) {
        let Load { connections, new_per_second, packets_per_second, .. } = *self.load;
        if self.taken.is_none() || connections <= 0.0 || self.unused(config).is_some() {
            return (0.0, 0.0);
        }
        let until_asked = f64::from(config.offload.price_min) / packets_per_second;
        // Nothing says that UDP is over; its rules stay until they are idle.
        let after = match self.service.protocol {
            Protocol::Udp => f64::from(config.offload.idle_s),
            Protocol::Tcp => 0.0,
        };
        self.load.life_s().map_or((0.0, f64::INFINITY), |life| (new_per_second, life - until_asked + after))
    }

    /// Why none of its connections is in hardware, though that would take them, if none is.
    pub(super) fn unused(&self, config: &Config) -> Option<Unused> {
        let packets_per_second = self.load.packets_per_second;
        if packets_per_second <= 0.0 || packets_per_second * f64::from(config.offload.idle_s) < 1.0 {
            return Some(Unused::Idle);
        }
        let until_asked = f64::from(config.offload.price_min) / packets_per_second;
        self.load.life_s().filter(|life| *life <= until_asked).map(|_| Unused::Short)
    }

    /// Connections in hardware at a time.
    pub(super) fn in_hardware(&self, config: &Config) -> f64 {
        match self.flow(config) {
            (_, stay) if stay == f64::INFINITY => self.load.connections,
            (new, stay) => new * stay,
        }
    }

    fn rules(&self) -> f64 {
        self.taken.as_ref().map_or(0.0, |taken| taken.rules.len() as f64)
    }

    fn packets(&self) -> f64 {
        self.load.connections * self.load.packets_per_second
    }

    /// Of these, what hardware forwards: one direction only, where the other one never comes here.
    fn hardware_packets(&self, config: &Config) -> f64 {
        if let Some(parted) = self.parted {
            return self.packets() * parted.share();
        }
        let Some(taken) = &self.taken else { return 0.0 };
        let ways = taken.ask.legs.iter().flatten().count() as f64;
        let seen = if self.service.mode == Mode::Nat { 2.0 } else { 1.0 };
        let share = (self.in_hardware(config) / self.load.connections.max(1e-9)).min(1.0);
        self.packets() * share * (ways / seen).min(1.0)
    }
}

/// What the cast needs in all.
pub(super) fn needs(
    config: &Config,
    base: &[Rule],
    cast: &[Cast<'_>],
    parted: &Rehearsal,
    settle_s: f64,
) -> Needs {
    let mut needs = Needs { base_rules: base.len(), ..Needs::default() };
    let (mut masks, mut groups, mut templates) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let mut meters = BTreeSet::new();
    let rules = cast.iter().filter_map(|cast| cast.taken.as_ref()).flat_map(|taken| &taken.rules);
    for shape in base.iter().chain(rules).chain(parted.rules()).map(Rule::shape) {
        masks.insert(format!("{} {:?} {:?}", shape.port, shape.attr, shape.items));
        groups.insert(format!("{} {:?} {}", shape.port, shape.attr.domain, shape.attr.group));
        templates.insert(format!("{:?} {:?} {:?}", shape.attr, shape.items, shape.actions));
    }
    (needs.masks, needs.groups, needs.templates) = (masks.len(), groups.len(), templates.len());
    for cast in cast {
        let (new, _) = cast.flow(config);
        let live = cast.in_hardware(config);
        let hardware = cast.hardware_packets(config);
        needs.hardware_packets_per_second += hardware;
        needs.software_packets_per_second += cast.packets() - hardware + cast.load.unanswered_per_second;
        let Some(taken) = &cast.taken else { continue };
        needs.connections += live;
        needs.rules += live * cast.rules();
        needs.insertions_per_second += new * cast.rules();
        needs.counters += (live + new * settle_s) * taken.objects[0] as f64;
        needs.ages += live * taken.objects[1] as f64;
        meters.extend(taken.meter);
        if taken.rules.iter().any(|rule| !rule.headers.is_empty()) {
            needs.encapsulations += live;
        }
    }
    needs.meters = meters.len();
    needs
}

/// What is known of the device and of the engine that drives it.
pub(super) struct Device<'a> {
    pub(super) profile: &'a Profile,
    pub(super) steering: Steering,
    /// How long after a rule's removal its counter is kept, seconds.
    pub(super) settle_s: f64,
}

/// All bounds there are, whatever is needed of them.
pub(super) struct Bounds<'a> {
    pub(super) config: &'a Config,
    pub(super) snapshot: &'a Snapshot,
    pub(super) device: Device<'a>,
    pub(super) cast: &'a [Cast<'a>],
    pub(super) traffic: &'a Traffic,
    pub(super) needs: Needs,
    /// Of source partitions.
    pub(super) parted: PartitionNeeds,
}

impl Bounds<'_> {
    /// Bounds of which something is needed, the one that is reached first at the front.
    pub(super) fn limits(&self) -> Vec<Limit> {
        let mut limits = self.tables();
        limits.extend(self.shares());
        limits.extend(self.budget());
        limits.extend(self.objects());
        limits.extend(self.kinds());
        limits.extend(self.packets());
        limits.extend(self.partitions());
        limits.retain(|limit| limit.need > 0.0);
        let order = |limit: &Limit| match limit.reached {
            Some(reached) => reached.times,
            None if limit.exceeded => 0.0,
            None => f64::INFINITY,
        };
        // Of those that no traffic reaches, the one with the least left.
        let left = |limit: &Limit| limit.headroom_percent;
        limits.sort_by(|a, b| order(a).total_cmp(&order(b)).then(left(a).total_cmp(&left(b))));
        limits
    }

    /// Something whose need grows with the traffic.
    fn grows(&self, limit: &str, of: &'static str, unit: &'static str, need: f64, room: f64) -> Limit {
        self.grows_beside(0, (limit, of, unit), need, room)
    }

    /// Something of which so much is needed whatever the traffic, and the rest grows with it.
    fn grows_beside(
        &self,
        fixed: u64,
        (limit, of, unit): (&str, &'static str, &'static str),
        growing: f64,
        room: f64,
    ) -> Limit {
        let fixed = fixed as f64;
        let need = fixed + growing;
        let times = (room - fixed) / growing.max(f64::MIN_POSITIVE);
        let reached = Reached {
            times,
            connections: times * self.traffic.connections(),
            new_per_second: times * self.traffic.new_per_second(),
        };
        Limit {
            limit: limit.to_owned(),
            of,
            unit,
            need,
            room,
            headroom_percent: 100.0 * (1.0 - need / room.max(f64::MIN_POSITIVE)),
            exceeded: need > room,
            reached: (growing > 0.0 && fixed <= room).then_some(reached),
            remedy: String::new(),
        }
    }

    /// Something whose need does not.
    fn stays(&self, limit: &str, of: &'static str, unit: &'static str, need: f64, room: f64) -> Limit {
        Limit { reached: None, ..self.grows(limit, of, unit, need, room) }
    }

    /// The connection tables.
    fn tables(&self) -> Vec<Limit> {
        let workers = self.config.workers.cores.len() as f64;
        let sizes = Sizes::of(&self.config.limits).connections;
        let tenant = |of: u16| self.cast.iter().filter(move |cast| cast.service.tenant.0 == of);
        let mut limits = vec![
            self.grows(
                "connections",
                "configuration",
                "connections",
                self.cast.iter().map(|cast| self.entries(cast)).sum(),
                f64::from(sizes.connections) * workers,
            )
            .remedy("raise [limits] connections (of each worker), or [workers] cores"),
            self.grows(
                "half_open",
                "configuration",
                "half-open connections",
                self.cast.iter().map(half_open).sum(),
                f64::from(sizes.half_open_max) * workers,
            )
            .remedy("raise [limits] half_open_percent, or lower the service's tcp_half_open timeout"),
        ];
        for (number, held) in (0u16..).zip(self.snapshot.tenants.iter()) {
            let name = self.tenant(number);
            if let Some(most) = held.connections {
                let need = tenant(number).map(|cast| self.entries(cast)).sum();
                let limit = format!("tenant_connections:{name}");
                let limit = self.grows(&limit, "configuration", "connections", need, f64::from(most));
                limits.push(limit.remedy("raise the tenant's connections"));
            }
        }
        limits
    }

    fn tenant(&self, number: u16) -> &str {
        self.config.tenants.get(usize::from(number)).map_or("default", |tenant| tenant.name.as_str())
    }

    /// Entries of the tables that a service has: live ones, those that are over, those that never began.
    fn entries(&self, cast: &Cast<'_>) -> f64 {
        if !cast.service.affinity.keeps_connections() {
            return 0.0;
        }
        let load = cast.load;
        let times = &cast.service.timeouts;
        let after_ms = match (cast.service.protocol, cast.service.mode) {
            _ if self.traffic.entries => 0,
            (Protocol::Udp, _) => times.udp_replied_ms,
            (Protocol::Tcp, Mode::Nat) => times.tcp_time_wait_ms,
            (Protocol::Tcp, _) => times.tcp_closing_ms,
        };
        load.connections + load.new_per_second * f64::from(after_ms) / 1000.0 + unanswered(cast)
    }

    /// `[offload]`'s shares and sizes.
    fn shares(&self) -> Vec<Limit> {
        let (needs, settings) = (&self.needs, self.settings());
        let rules_max = f64::from(settings.rules_max);
        let leaving: f64 = self.cast.iter().map(|cast| cast.flow(self.config).0).sum();
        let mut limits = vec![
            self.grows_beside(
                self.parted.planned,
                ("rules_max", "configuration", "rules"),
                needs.rules,
                rules_max,
            )
            .remedy("raise [offload] rules_max, or price_min, which keeps short connections in software"),
            self.grows(
                "settling",
                "engine",
                "connections",
                needs.connections + leaving * self.device.settle_s,
                f64::from(pairs_max(settings.rules_max)),
            )
            .remedy("raise [offload] rules_max: rules taken out lately are still being counted"),
        ];
        for (number, tenant) in (0u16..).zip(self.snapshot.tenants.iter()) {
            let percent = tenant.offload_share_percent.unwrap_or(settings.tenant_share_percent);
            let room = tenant_rules_max(settings.rules_max, percent);
            if room < settings.rules_max {
                let of_tenant = self.cast.iter().filter(|cast| cast.service.tenant.0 == number);
                let need = of_tenant.map(|cast| cast.in_hardware(self.config) * cast.rules()).sum();
                let limit = format!("tenant_share:{}", self.tenant(number));
                let limit = self.grows(&limit, "configuration", "rules", need, f64::from(room));
                limits.push(limit.remedy("raise the tenant's offload_share_percent, or [offload] rules_max"));
            }
        }
        limits
    }

    fn settings(&self) -> Settings {
        engine::settings(&self.config.offload)
    }

    /// Insertions per second.
    fn budget(&self) -> Vec<Limit> {
        let (settings, profile) = (self.settings(), self.device.profile);
        let need = self.needs.insertions_per_second;
        let (create, destroy) = (profile.create_cost_ns.mean_ns(), profile.destroy_cost_ns.mean_ns());
        let both = (create + destroy).max(1);
        let measured = match settings.insertions_per_second {
            0 => settled(create, destroy, self.operations()),
            _ => 1e9 / both as f64,
        };
        let mut limits = vec![
            self.grows("insertion_rate", "profile", "insertions/s", need, measured)
                .remedy("raise [offload] price_min: connections then have to carry more to earn a rule"),
        ];
        if settings.insertions_per_second > 0 {
            let room = Budget::new(0, settings.insertions_per_second, self.operations()).rate() as f64;
            limits.push(
                self.grows("insertions_per_second", "configuration", "insertions/s", need, room)
                    .remedy("raise [offload] insertions_per_second, or price_min"),
            );
        }
        limits
    }

    fn operations(&self) -> u32 {
        match self.device.steering {
            Steering::Software => 1,
            Steering::Hardware => stage::operations(self.device.profile),
        }
    }

    /// What rules refer to.
    fn objects(&self) -> Vec<Limit> {
        let (needs, profile) = (&self.needs, self.device.profile);
        let ((counters, counters_of), (ages, ages_of)) =
            (self.pool(profile.counters_max), self.pool(profile.ages_max));
        let smaller = "lower [offload] rules_max to what the device has room for, or use a larger device";
        let of_pool =
            |of| if of == "engine" { "raise [offload] rules_max: there are two for each" } else { smaller };
        vec![
            self.grows_beside(
                self.parted.planned,
                ("device_rules", "profile", "rules"),
                needs.rules,
                self.device_rules(),
            )
            .remedy(smaller),
            self.grows_beside(
                self.parted.counters,
                ("counters", counters_of, "counters"),
                needs.counters,
                f64::from(counters),
            )
            .remedy(of_pool(counters_of)),
            self.grows("ages", ages_of, "age contexts", needs.ages, f64::from(ages)).remedy(of_pool(ages_of)),
        ]
    }

    /// Objects that there are, and whose bound that is: under hardware steering pools are made at the start,
    /// two for each rule that there may be.
    fn pool(&self, most: u32) -> (u32, &'static str) {
        match self.device.steering {
            Steering::Software => (most, "profile"),
            Steering::Hardware => {
                let pool = self.settings().rules_max.saturating_mul(2);
                if pool < most { (pool, "engine") } else { (most, "profile") }
            }
        }
    }

    /// Rules that the device has room for, besides those that lead to others.
    fn device_rules(&self) -> f64 {
        self.device.profile.rules_max.saturating_sub(self.needs.base_rules as u64) as f64
    }

    /// What rules of source partitions alone are bounded by.
    fn partitions(&self) -> Option<Limit> {
        let (need, room) = (self.parted.rules as f64, f64::from(PARTITION_RULES_PLANNED_MAX));
        (need > 0.0).then(|| {
            let limit = self.stays("partition_rules", "engine", "rules of partitions", need, room);
            limit.remedy("use fewer partitions, or ports of such services; beyond that software forwards")
        })
    }

    /// Which bound the rules of source partitions would reach first if there were more and more of them and
    /// no connections.
    pub(super) fn partition_needs(&self) -> Option<PartitionNeeds> {
        let parted = &self.parted;
        let rules_of = |objects: u32| {
            let each = parted.counters as f64 / parted.planned.max(1) as f64;
            f64::from(objects) / each.max(f64::MIN_POSITIVE)
        };
        let rooms = [
            ("partition_rules", f64::from(PARTITION_RULES_PLANNED_MAX)),
            ("rules_max", f64::from(self.settings().rules_max)),
            ("device_rules", self.device_rules()),
            ("counters", rules_of(self.pool(self.device.profile.counters_max).0)),
        ];
        let (first_limit, room) = rooms.into_iter().min_by(|a, b| a.1.total_cmp(&b.1))?;
        let headroom_percent = 100.0 * (1.0 - parted.rules as f64 / room.max(f64::MIN_POSITIVE));
        let needs = PartitionNeeds { first_limit, rules_max: room, headroom_percent, ..parted.clone() };
        (parted.rules > 0).then_some(needs)
    }

    /// What there are as many of as there are kinds of rules.
    fn kinds(&self) -> Vec<Limit> {
        let (needs, profile) = (&self.needs, self.device.profile);
        let meters =
            self.stays("meters", "profile", "meters", needs.meters as f64, f64::from(profile.meters_max));
        let mut limits = vec![meters.remedy("meter tenants instead of services, or leave some unmetered")];
        if self.device.steering == Steering::Hardware {
            if profile.tables_max > 0 {
                let room = f64::from(profile.tables_max);
                // A table of partitions knows one kind of actions.
                let tables = needs.masks + (self.parted.templates - self.parted.masks);
                limits.push(
                    self.stays("tables", "profile", "tables", tables as f64, room)
                        .remedy("use fewer kinds of ports and tunnels"),
                );
            }
            let rules_max = self.settings().rules_max;
            let largest = match needs.rules > 0.0 {
                true => table_rules(rules_max),
                false if self.parted.planned > 0 => table_rules(rules_max.min(PARTITION_RULES_MAX)),
                false => 0,
            };
            if profile.table_rules_max > 0 {
                let (need, room) = (largest, profile.table_rules_max);
                let most = u64::from(room) * 4 / 5;
                limits.push(
                    self.stays(
                        "table_rules",
                        "profile",
                        "rules of a table",
                        f64::from(need),
                        f64::from(room),
                    )
                    .remedy(&format!(
                        "lower [offload] rules_max to {most}: tables have room for a quarter more than that"
                    )),
                );
            }
        }
        limits
    }

    /// Packets per second that the device forwards.
    fn packets(&self) -> Vec<Limit> {
        let profile = self.device.profile;
        if profile.packets_per_second == 0 {
            return Vec::new();
        }
        let (mut packets, mut use_of) = (0.0, 0.0);
        for cast in self.cast {
            let short = cast.load.frame_bytes <= profile.short_bytes_max;
            let ceiling = if short { profile.short_packets_per_second } else { profile.packets_per_second };
            let hardware = cast.hardware_packets(self.config);
            packets += hardware;
            use_of += hardware / ceiling.max(1) as f64;
        }
        let room = if use_of > 0.0 { packets / use_of } else { profile.packets_per_second as f64 };
        vec![
            self.grows("packets_per_second", "profile", "packets/s", packets, room)
                .remedy("share the traffic out over more devices"),
        ]
    }
}

impl Limit {
    pub(super) fn remedy(mut self, remedy: &str) -> Limit {
        remedy.clone_into(&mut self.remedy);
        self
    }
}

/// Half-open connections of a service at a time. UDP's are so until the client is heard again after an
/// answer, which it never is where there is one question and one answer.
fn half_open(cast: &Cast<'_>) -> f64 {
    if !cast.service.affinity.keeps_connections() {
        return 0.0;
    }
    let load = cast.load;
    let short = |life| life * load.packets_per_second < 3.0;
    let opening_s = match (cast.service.protocol, load.life_s()) {
        (Protocol::Udp, Some(life)) if short(life) => {
            life + f64::from(cast.service.timeouts.udp_unreplied_ms) / 1000.0
        }
        _ => load.handshake_ms / 1000.0,
    };
    load.new_per_second * opening_s + unanswered(cast)
}

/// Connections that never got beyond their first packet, until they are forgotten.
fn unanswered(cast: &Cast<'_>) -> f64 {
    let timeouts = &cast.service.timeouts;
    let ms = match cast.service.protocol {
        Protocol::Tcp => timeouts.tcp_half_open_ms,
        Protocol::Udp => timeouts.udp_unreplied_ms,
    };
    cast.load.unanswered_per_second * f64::from(ms) / 1000.0
}

/// Insertions per second that the machine settles at if it measures the engine, each followed by a removal.
fn settled(create_ns: u64, destroy_ns: u64, operations_max: u32) -> f64 {
    const SAMPLE: u64 = 32;
    let mut budget = Budget::new(0, 0, operations_max);
    for _ in 0..256 {
        budget.measure(SAMPLE * (create_ns + destroy_ns).max(2) / 2, SAMPLE, true);
    }
    budget.rate() as f64
}
