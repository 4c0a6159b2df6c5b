//! `scheduler` and `partitions` of a service: how a packet finds its backend.

use super::fault::{At, Place, Sink};
use super::raw::RawService;
use super::reader::Section;
use super::values::{Complaint, Value, choice, integer};
use super::{Service, Tenant};
use crate::limits::{PARTITION_RULES_PLANNED_MAX, PARTITIONS_MAX};
use crate::maglev::Identity;
use crate::partition;
use crate::policy::Source;
use crate::snapshot::{Affinity, Mode};

/// Partitions unless the configuration says otherwise,
const PARTITIONS: u32 = 256;
/// and with more backends than this, as many as there may be.
const FEW_BACKENDS: usize = 64;
/// How far a backend's partitions may be from what its weight says, percent, before it is worth a word.
const SKEW_PERCENT: u64 = 10;

/// How backends are chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Scheduler {
    Maglev,
    SourcePartition,
}

/// What of it is written down.
pub(super) struct RawSchedule {
    scheduler: Option<At<Scheduler>>,
    partitions: Option<At<u32>>,
    /// Keys that are written down and mean nothing where no connections are kept.
    affinity: Option<Place>,
    strict: Option<Place>,
    limit: Option<Place>,
    timeouts: Option<Place>,
}

pub(super) fn read(section: &Section<'_>) -> RawSchedule {
    let schedulers = [("maglev", Scheduler::Maglev), ("source-partition", Scheduler::SourcePartition)];
    let given = |key: &'static str| section.has(key).then(|| section.place_of(key));
    RawSchedule {
        scheduler: section.default_at("scheduler", Scheduler::Maglev, choice(&schedulers)),
        partitions: section.optional("partitions", power_of_two),
        affinity: given("affinity"),
        strict: given("strict"),
        limit: given("limit"),
        timeouts: given("timeouts"),
    }
}

fn power_of_two(value: &Value<'_>) -> Result<u32, Complaint> {
    let number = integer(2..=i64::from(PARTITIONS_MAX))(value)?;
    if u32::is_power_of_two(number) {
        return Ok(number);
    }
    let remedy = format!("write {}: partitions are the low bits of an address", number.next_power_of_two());
    Err(Complaint::new(format!("{number} is not a power of two"), remedy))
}

impl RawSchedule {
    /// Whether the service has a Maglev table.
    pub(super) fn is_maglev(&self) -> bool {
        self.scheduler.as_ref().is_none_or(|at| at.value == Scheduler::Maglev)
    }
}

/// What keeps going to the same backend.
pub(super) fn affinity(raw: &RawService, sink: &Sink<'_>) -> Option<Affinity> {
    let schedule = &raw.schedule;
    if schedule.scheduler.as_ref()?.value == Scheduler::Maglev {
        if let Some(partitions) = &schedule.partitions {
            let remedy = "set scheduler = \"source-partition\", or remove the key";
            sink.error(&partitions.place, "partitions of a service that has none", remedy);
        }
        return Some(raw.affinity.as_ref()?.value);
    }
    check_keys(raw, sink);
    let many = raw.backends.len() > FEW_BACKENDS;
    let default = if many { PARTITIONS_MAX } else { PARTITIONS };
    let partitions = schedule.partitions.as_ref().map_or(default, |at| at.value);
    check_shares(raw, partitions, sink);
    Some(Affinity::Partition { bits: partitions.trailing_zeros() as u8 })
}

/// Reports what does not go together with partitions.
fn check_keys(raw: &RawService, sink: &Sink<'_>) {
    let schedule = &raw.schedule;
    if let Some(mode) = raw.mode.as_ref().filter(|mode| mode.value != Mode::Dsr) {
        let remedy = "set mode = \"dsr\", or scheduler = \"maglev\": only the destination MAC can be rewritten \
                      without keeping connections";
        sink.error(&mode.place, "source-partition is for dsr only", remedy);
    }
    if let Some(place) = &schedule.affinity {
        let remedy = "remove it, or set scheduler = \"maglev\": partitions keep a client where it is, by its \
                      address";
        sink.error(place, "an affinity beside source-partition", remedy);
    }
    if raw.strict.as_ref().is_some_and(|strict| strict.value) {
        let place = schedule.strict.as_ref().unwrap_or(&raw.place);
        let remedy = "remove it, or set scheduler = \"maglev\": no connections are kept to be strict about";
        sink.error(place, "strict beside source-partition", remedy);
    }
    if let Some(place) = &schedule.limit {
        let remedy = "remove it to have the service in hardware: its rules share no meter";
        sink.warning(place, "a limit keeps a source-partition service in software", remedy);
    }
    if let Some(place) = &schedule.timeouts {
        sink.warning(place, "has no effect where no connections are kept", "remove it");
    }
}

/// Says what keeps partitions in software, of these services, that hardware could have.
pub(super) fn check_offload<'a>(
    services: impl Iterator<Item = (&'a RawService, &'a Service)>,
    tenants: &[Tenant],
    policy: &Source,
    sink: &Sink<'_>,
) {
    let mut rules = 0;
    for (raw, service) in services {
        let Affinity::Partition { bits } = service.affinity else { continue };
        let Some(scheduler) = raw.schedule.scheduler.as_ref().filter(|_| service.offload) else { continue };
        let tenant = tenants.get(service.tenant.index());
        let warn = |message: String, remedy: &str| sink.warning(&scheduler.place, message, remedy);
        if policy.concerns(service.tenant) {
            let remedy = "give the service a tenant that no rule and no default is about, or set offload = false: \
                          its rules know no policy";
            warn("the policy keeps a source-partition service in software".to_owned(), remedy);
        } else if let Some(tenant) = tenant.filter(|tenant| tenant.limit.is_some()) {
            let remedy =
                "give the service a tenant without one, or set offload = false: its rules share no meter";
            warn(
                format!(
                    "the limit of tenant \"{}\" keeps a source-partition service in software",
                    tenant.name
                ),
                remedy,
            );
        } else if service.limit.is_none() {
            let before = rules;
            rules += service.ports.iter().map(|ports| ports.len() << bits).sum::<usize>();
            let most = PARTITION_RULES_PLANNED_MAX as usize;
            if before <= most && rules > most {
                let message = format!(
                    "partitions up to here take {rules} rules for each way in; hardware gets {most} at most"
                );
                warn(message, "use fewer partitions, or fewer ports; what is too many stays in software");
            }
        }
    }
}

/// Whether the partitions can be shared out as weights say.
fn check_shares(raw: &RawService, partitions: u32, sink: &Sink<'_>) {
    let weight = |at: usize| raw.backends[at].weight.as_ref().map_or(0, |weight| u64::from(weight.value));
    let of = |at: usize| {
        let (address, port) = raw.backends[at].endpoint.as_ref()?.value;
        Some((Identity { address, port }, weight(at))).filter(|(_, weight)| *weight > 0)
    };
    let weights: Vec<(Identity, u64)> = (0..raw.backends.len()).filter_map(of).collect();
    let sum: u64 = weights.iter().map(|(_, weight)| weight).sum();
    let place = raw.schedule.partitions.as_ref().map_or(&raw.place, |at| &at.place);
    if weights.len() > partitions as usize {
        let message = format!("{} backends do not fit into {partitions} partitions", weights.len());
        let remedy =
            format!("set partitions to a power of two of at most {PARTITIONS_MAX}, or split the service");
        return sink.error(place, message, remedy);
    }
    let quotas = partition::quotas(partitions, &weights);
    let skewed = quotas.iter().zip(&weights).any(|(quota, (_, weight))| {
        // In 1/sum of a partition.
        let (due, has) = (u64::from(partitions) * weight, u64::from(*quota) * sum);
        due.abs_diff(has) * 100 > due * SKEW_PERCENT
    });
    if skewed {
        let message = format!("{partitions} partitions share the weights out unevenly");
        let remedy = "set partitions to a larger power of two, or weights that are closer to each other";
        sink.warning(place, message, remedy);
    }
}

const _: () = assert!(PARTITIONS_MAX.is_power_of_two() && PARTITIONS <= PARTITIONS_MAX);

#[cfg(test)]
mod tests {
    use crate::config::Config;
    use crate::snapshot::Affinity;

    fn text(service: &str) -> String {
        format!(
            "[[port]]\nname = \"p\"\ndevice = \"d\"\naddresses = [\"10.0.0.1/24\"]\n[[service]]\nname = \"s\"\n\
             vip = \"192.0.2.1\"\nprotocol = \"tcp\"\nports = [80]\n{service}\n\
             [[service.backend]]\naddress = \"10.0.0.2\"\n[[service.backend]]\naddress = \"10.0.0.3\"\n"
        )
    }

    fn affinity(service: &str) -> Affinity {
        let config = Config::parse("test.toml", &text(service));
        let config = config.unwrap_or_else(|faults| panic!("{faults}"));
        assert_eq!(config.warnings.faults, [], "{service}");
        config.services[0].affinity
    }

    #[track_caller]
    fn fault(service: &str) -> String {
        Config::parse("test.toml", &text(service)).expect_err(service).to_string()
    }

    const PARTED: &str = "mode = \"dsr\"\nscheduler = \"source-partition\"\n";

    #[test]
    fn partitions_are_bits() {
        assert_eq!(affinity(PARTED), Affinity::Partition { bits: 8 });
        assert_eq!(affinity(&format!("{PARTED}partitions = 2")), Affinity::Partition { bits: 1 });
        assert_eq!(affinity("scheduler = \"maglev\""), Affinity::Connection);
    }

    #[test]
    fn what_does_not_go_together_is_told_with_a_remedy() {
        let nat = fault("scheduler = \"source-partition\"");
        assert!(
            nat.contains("source-partition is for dsr only") && nat.contains("set mode = \"dsr\""),
            "{nat}"
        );
        let clients = fault(&format!("{PARTED}affinity = \"client\""));
        assert!(clients.contains("an affinity beside source-partition"), "{clients}");
        assert!(fault(&format!("{PARTED}strict = true")).contains("no connections are kept to be strict"));
        assert!(fault(&format!("{PARTED}partitions = 6")).contains("write 8"));
        assert!(fault("partitions = 4").contains("set scheduler = \"source-partition\""));
        let crowd: String =
            (4..8).map(|n| format!("[[service.backend]]\naddress = \"10.0.0.{n}\"\n")).collect();
        let crowd = Config::parse("test.toml", &(text(&format!("{PARTED}partitions = 4")) + &crowd));
        assert!(crowd.expect_err("six in four").to_string().contains("6 backends do not fit into 4"));
    }

    #[track_caller]
    fn warnings(text: &str) -> String {
        let config = Config::parse("test.toml", text).unwrap_or_else(|faults| panic!("{faults}"));
        config.warnings.faults.iter().map(|fault| fault.message.clone()).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn what_is_uneven_or_stays_in_software_is_warned_of() {
        let warnings = |service: &str| warnings(&text(service));
        let limited = warnings(&format!("{PARTED}limit = {{ packets_per_second = 1000 }}"));
        assert!(limited.contains("keeps a source-partition service in software"), "{limited}");
        assert!(warnings(&format!("{PARTED}timeouts = {{ tcp_reset_s = 5 }}")).contains("has no effect"));
        let third =
            format!("{PARTED}partitions = 2\n[[service.backend]]\naddress = \"10.0.0.9\"\nweight = 3");
        let third = Config::parse("test.toml", &text(&third));
        assert!(third.is_err(), "three in two");
    }

    #[test]
    fn what_keeps_partitions_out_of_hardware_is_warned_of() {
        let limited = "[[tenant]]\nname = \"default\"\nlimit = { packets_per_second = 1000 }\n";
        let denying = "[[policy_default]]\ningress = \"deny\"\n";
        let of_another = "[[tenant]]\nname = \"blue\"\n[[policy]]\naction = \"deny\"\ntenant = \"blue\"\n";
        let parted = |more: &str| text(&format!("{PARTED}{more}"));
        let by_tenant = warnings(&(parted("") + limited));
        assert_eq!(by_tenant, "the limit of tenant \"default\" keeps a source-partition service in software");
        let by_policy = "the policy keeps a source-partition service in software";
        assert_eq!(warnings(&(parted("") + denying)), by_policy);
        // Said once, and not where it is meant, or where hardware is asked for nothing.
        assert_eq!(warnings(&(parted("") + denying + limited)), by_policy);
        assert_eq!(warnings(&(parted("offload = false\n") + denying)), "");
        assert_eq!(warnings(&(parted("") + denying + "[offload]\nengine = \"none\"\n")), "");
        assert_eq!(warnings(&(parted("") + of_another)), "");
        assert_eq!(warnings(&(text("") + denying)), "");
    }

    #[test]
    fn more_partitions_than_hardware_is_given_are_warned_of() {
        let parted = |partitions: u32, ports: &str| {
            text(&format!("{PARTED}partitions = {partitions}\n")).replace("[80]", ports)
        };
        assert_eq!(warnings(&parted(1024, "[80, 443]")), "");
        let three = warnings(&parted(1024, "[80, 443, 8080]"));
        assert_eq!(
            three,
            "partitions up to here take 3072 rules for each way in; hardware gets 2048 at most"
        );
        assert!(warnings(&parted(2, "[\"1000-2999\"]")).contains("take 4000 rules"));
    }
}
