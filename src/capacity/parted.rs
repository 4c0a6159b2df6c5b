//! Services by source partition: what their rules take, which are the configuration's and not connections'.
//!
//! The machine hears who is at each next hop and puts the rules in, on a model of the device, as it does when
//! it starts. How many there are, and what becomes of each, is its word.

use super::limits::PartitionNeeds;
use super::stage::{self, REHEARSAL_RULES, Scene};
use super::{ServicePlan, obstacles};
use dataplane::config::Config;
use dataplane::ids::ServiceId;
use dataplane::snapshot::{Affinity, Service};
use eswitch::model::profile::Profile;
use eswitch::model::types::Steering;
use offload::machine::{Absent, PartitionTally};
use offload::rule::Rule;
use offload::testpmd::Dialect;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// The rules of one service.
#[derive(Clone, Debug)]
pub(super) struct Parted {
    tally: PartitionTally,
    /// Those in force.
    rules: Vec<Rule>,
}

/// The rules of all of them.
#[derive(Default)]
pub(super) struct Rehearsal {
    by_service: BTreeMap<ServiceId, Parted>,
    /// Counters that they hold.
    counters: u64,
    /// How long it takes until they are in, nanoseconds.
    start_ns: u64,
}

/// A service's rules, for people and machines.
#[derive(Serialize, Clone, Copy, Debug, PartialEq)]
pub(super) struct PartitionPlan {
    /// Partitions, and rules that there would be, one for each, port and way in.
    partitions: u64,
    pub(super) rules: u64,
    /// Of these, what the device takes.
    pub(super) rules_in_hardware: u64,
}

impl Parted {
    /// Rules that the device has to have room for: none of a service that it would have none of anyway.
    fn planned(&self) -> u64 {
        let hopeless = self.tally.installed == 0 && self.tally.put_off[Absent::Full as usize] == 0;
        if hopeless { 0 } else { self.tally.planned }
    }

    /// These, and those beyond what the machine plans.
    fn wanted(&self) -> u64 {
        self.planned() + self.tally.unplanned[Absent::Full as usize]
    }

    fn all(&self) -> u64 {
        self.tally.planned + self.tally.unplanned.iter().sum::<u64>()
    }

    /// Of the packets, those that hardware forwards, if each partition has as many.
    pub(super) fn share(&self) -> f64 {
        self.tally.installed as f64 / self.all().max(1) as f64
    }

    /// Why most of those that are not in hardware are not.
    fn absent(&self) -> Option<Absent> {
        let of =
            |absent: &Absent| self.tally.put_off[*absent as usize] + self.tally.unplanned[*absent as usize];
        Absent::ALL.into_iter().filter(|absent| of(absent) > 0).max_by_key(of)
    }
}

/// Has the machine put in all there are.
pub(super) fn rehearse(scene: &Scene, config: &Config, profile: &Profile) -> Result<Rehearsal, String> {
    let is_parted = |service: &Service| matches!(service.affinity, Affinity::Partition { .. });
    if scene.no_engine.is_some() || !scene.snapshot.services.iter().flatten().any(is_parted) {
        return Ok(Rehearsal::default());
    }
    let mut device = scene.device(config, profile, config.offload.rules_max.min(REHEARSAL_RULES))?;
    let (begun_ns, [_, before, ..]) = (device.now_ns, device.holds());
    device.put_partitions_in(&scene.snapshot);
    let start_ns = device.now_ns - begun_ns;
    let counters = device.holds()[1] - before;
    let rows = device.machine.partition_rows();
    let of_service = |(service, tally)| {
        let own = rows.iter().filter(|row| row.service == service && row.state == "installed");
        (service, Parted { tally, rules: own.map(|row| row.rule.clone()).collect() })
    };
    let by_service = device.machine.partition_tallies().into_iter().map(of_service).collect();
    Ok(Rehearsal { by_service, counters, start_ns })
}

impl Rehearsal {
    pub(super) fn of(&self, service: ServiceId) -> Option<&Parted> {
        self.by_service.get(&service)
    }

    /// Rules of them that are in force.
    pub(super) fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.by_service.values().flat_map(|parted| &parted.rules)
    }

    /// What they take, whatever the traffic.
    pub(super) fn needs(&self) -> PartitionNeeds {
        let (mut masks, mut groups, mut templates) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for shape in self.rules().map(Rule::shape) {
            masks.insert(format!("{} {:?} {:?}", shape.port, shape.attr, shape.items));
            groups.insert(format!("{} {:?} {}", shape.port, shape.attr.domain, shape.attr.group));
            templates.insert(format!("{:?} {:?} {:?}", shape.attr, shape.items, shape.actions));
        }
        let sum = |of: fn(&Parted) -> u64| self.by_service.values().map(of).sum::<u64>();
        let installed = sum(|parted| parted.tally.installed);
        let planned = sum(Parted::planned);
        PartitionNeeds {
            rules: sum(Parted::wanted),
            planned,
            // Those that found no room would have one each, too.
            counters: (self.counters * planned).checked_div(installed).unwrap_or(planned),
            masks: masks.len(),
            groups: groups.len(),
            templates: templates.len(),
            insertions_at_start: installed,
            start_ms: self.start_ns as f64 / 1e6,
            ..PartitionNeeds::default()
        }
    }
}

impl ServicePlan {
    /// What the device makes of a service by source partition.
    pub(super) fn parted(
        mut self,
        (scene, config, profile): (&Scene, &Config, &Profile),
        service: &Service,
        parted: Option<&Parted>,
    ) -> ServicePlan {
        let (Affinity::Partition { bits }, Some(parted)) = (service.affinity, parted) else {
            return self.stays(service, scene, "timeout", "the device did not get ready".into());
        };
        let plan = PartitionPlan {
            partitions: 1 << bits,
            rules: parted.all(),
            rules_in_hardware: parted.tally.installed,
        };
        self.partitions = Some(plan);
        if plan.rules_in_hardware > 0 {
            return self.in_hardware(scene, service, plan, parted);
        }
        let why = parted.absent().unwrap_or(Absent::Path);
        let takes = |relaxed: &Profile| {
            let again = rehearse(scene, config, relaxed);
            again.is_ok_and(|again| again.of(service.id).is_some_and(|parted| parted.tally.installed > 0))
        };
        let keys = if why == Absent::Refused { obstacles(profile, takes) } else { Vec::new() };
        match keys.first() {
            Some(key) => {
                let text = format!("{} ({} of the profile)", text(why), keys.join(", "));
                self.stays(service, scene, key, text)
            }
            None => self.stays(service, scene, word(why), text(why).to_owned()),
        }
    }

    fn in_hardware(
        mut self,
        scene: &Scene,
        service: &Service,
        plan: PartitionPlan,
        parted: &Parted,
    ) -> ServicePlan {
        let dialect = if scene.steering == Steering::Hardware { Dialect::Template } else { Dialect::Sync };
        self.sample.extend(parted.rules.first().map(|rule| rule.testpmd(dialect).to_string()));
        (self.verdict, self.directions) = ("hardware", vec!["original"]);
        let ports: u64 = service.ports.iter().map(|ports| ports.len() as u64).sum();
        let ways = plan.rules / (plan.partitions * ports).max(1);
        let count = |count: u64, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        self.text = format!(
            "{} x {} x {} in, whatever the traffic",
            count(plan.partitions, "partition"),
            count(ports, "port"),
            count(ways, "way")
        );
        if let Some(why) = parted.absent() {
            let missing = plan.rules - plan.rules_in_hardware;
            self.text = format!("{}; {missing} of these rules are missing: {}", self.text, text(why));
            self.reason = Some(word(why).to_owned());
        }
        self
    }
}

/// A reason as plans name it.
fn word(why: Absent) -> &'static str {
    why.name().trim_start_matches("declined:")
}

/// What it means.
fn text(why: Absent) -> &'static str {
    match why {
        Absent::Policy => "the policy has something to say of its tenant, and rules of partitions know none",
        Absent::Metered => "its packets are limited, and rules of partitions know no meter",
        Absent::Path => "hardware joins no way in with a backend's port, or no backend takes traffic",
        Absent::Mtu => stage::declined_text("mtu"),
        Absent::Neighbour => "nobody answers at the next hop",
        Absent::Full => "there is no room for them",
        Absent::Refused => stage::declined_text("refused"),
    }
}

/// What can be done about it, where that differs from what helps connections.
pub(super) fn remedy_of(reason: &str) -> Option<&'static str> {
    match reason {
        "policy" => Some("let no [[policy]] or default concern its tenant"),
        "metered" => Some("take the service's and its tenant's limit away"),
        _ => None,
    }
}
