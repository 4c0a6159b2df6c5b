//! How big and how fast a device is: named profiles.
//!
//! A profile is a TOML text of keys and numbers, each with a comment that says where it comes from: `source:`
//! or `assumed:`. The built-in ones are in `eswitch/profiles/`. A profile describes a MODEL; where hardware
//! is at hand, measure it and write another one.
//!
//! All times are nanoseconds. A time that varies is given by its median and its 99th percentile, see
//! [`Spread`]; its mean follows from the two, so that a measured rate can be compared with the profile.

#[cfg(test)]
mod tests;

use serde::Deserialize;

use super::timing::Spread;
use super::types::{Steering, Tick};
use super::validate::Limits;

/// The built-in profiles' names and texts.
const BUILT_IN: [(&str, &str); 5] = [
    ("ideal", include_str!("../../profiles/ideal.toml")),
    ("bf2-sws", include_str!("../../profiles/bf2-sws.toml")),
    ("bf3-hws", include_str!("../../profiles/bf3-hws.toml")),
    ("bf3-xenoflow", include_str!("../../profiles/bf3-xenoflow.toml")),
    ("cx6dx", include_str!("../../profiles/cx6dx.toml")),
];

/// Flow queues that a rule's handle can tell apart: 8 bits, one value for the synchronous API.
pub const QUEUES_MAX: u32 = 255;

/// The longest flow queue: its memory is allocated when it is made.
pub const QUEUE_DEPTH_MAX: u32 = 65_536;

/// The longest time a profile may name: an hour.
const TIME_MAX_NS: u64 = 3_600_000_000_000;

/// A device's size and speed.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// What it is called.
    pub name: String,
    /// What it stands for, in a sentence.
    pub summary: String,
    /// Which engine it is meant for: the default of `dv_flow_en`.
    #[serde(deserialize_with = "steering")]
    pub steering: Steering,

    /// 32-bit words of a packet that one HWS pattern may match; 0: no bound.
    pub match_dwords_max: u32,
    /// Further ones, for the commonest headers only.
    pub match_dwords_near_max: u32,
    /// Whether one HWS rule may match both IPv6 addresses.
    pub ipv6_five_tuple: bool,
    /// Whether the IPv4 header's length can be matched.
    pub ipv4_ihl: bool,
    /// Actions of a rule; all header edits count as one.
    pub actions_max: u32,
    /// Header modification commands of a rule.
    pub modify_max: u32,
    /// Bytes of an encapsulation's headers.
    pub encap_bytes_max: u32,

    /// Rules in the whole device.
    pub rules_max: u64,
    /// Rules in one HWS table; 0: no bound but `rules_max`.
    pub table_rules_max: u32,
    /// HWS tables; 0: no bound.
    pub tables_max: u32,
    /// A table's fill, in per cent of its power of two, from which on insertions can collide.
    pub collide_from_percent: u32,
    /// How many insertions in a hundred collide when the table is full; between the two, the share rises with
    /// the square of the way.
    pub collide_full_percent: u32,

    /// Counters.
    pub counters_max: u32,
    /// Age contexts.
    pub ages_max: u32,
    /// Meters.
    pub meters_max: u32,
    /// How old a counter's value may be; 0: never old.
    pub counter_refresh_ns: u64,
    /// How often the device looks for aged rules.
    pub age_tick_ns: u64,
    /// SWS: whether `rte_flow_get_aged_flows` can answer with more than there was room for, as mlx5's does.
    pub aged_overlong: bool,

    /// How long a creation occupies its flow queue, or keeps the caller of the synchronous API.
    pub create_cost_ns: Spread,
    /// How long after that packets hit the rule. Operations overlap in it; it delays, and limits no rate.
    pub create_latency_ns: Spread,
    /// How long after that the completion can be pulled.
    pub create_completion_ns: Spread,
    /// As `create_cost_ns`, for a destruction.
    pub destroy_cost_ns: Spread,
    /// How long after that packets still hit.
    pub destroy_latency_ns: Spread,
    /// How long after that the completion can be pulled.
    pub destroy_completion_ns: Spread,
    /// What an indirect action's operation costs its queue.
    pub action_cost_ns: Spread,

    /// Flow queues of a port.
    pub queues_max: u32,
    /// Operations of a flow queue that may be outstanding.
    pub queue_depth_max: u32,

    /// Packets a second that the device forwards at most; 0: no ceiling.
    pub packets_per_second: u64,
    /// The same for short frames.
    pub short_packets_per_second: u64,
    /// How long a short frame is at most, in bytes without FCS; 0: there are none.
    pub short_bytes_max: u32,
    /// How much time's worth of packets may pass at once after a pause.
    pub burst_ns: u64,

    /// What was around the device when it was measured; see [`crate::testbed`].
    #[serde(default)]
    pub testbed: Option<Surroundings>,
}

/// A testbed around a device: generator, switch, backends, and the one who measures.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Surroundings {
    /// Every wire's rate.
    pub wire_bits_per_second: u64,
    /// What a frame takes on a wire beyond its bytes without FCS.
    pub wire_extra_bytes: u64,
    /// What an entry's counter counts of a frame beyond its bytes without FCS.
    pub counted_extra_bytes: u64,
    /// One passage of the switch.
    pub switch_ns: u64,
    /// How long a packet may have to wait for a wire before it is lost instead.
    pub wire_buffer_ns: u64,
    /// How many packets the generator sends back to back.
    pub burst_packets: u64,
    /// From request to answer where nothing balances.
    pub baseline_rtt_ns: Spread,
    /// What the device takes for a packet, apart from waiting.
    pub forward_ns: u64,
    /// What a host takes for a packet that an eBPF program forwards.
    pub ebpf_forward_ns: Spread,
    /// What a name server takes to answer, all in all.
    pub dns_rtt_ns: u64,
}

fn steering<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Steering, D::Error> {
    let name = String::deserialize(from)?;
    match name.as_str() {
        "software" => Ok(Steering::Software),
        "hardware" => Ok(Steering::Hardware),
        _ => Err(serde::de::Error::unknown_variant(&name, &["software", "hardware"])),
    }
}

/// What is wrong with a profile's text.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("line {line}: {key}: {message}; {remedy}")]
pub struct ProfileError {
    /// Where, from 1.
    pub line: usize,
    /// Which key; "profile" when it is none in particular.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

impl Profile {
    /// A built-in profile; `None` if there is none of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Profile> {
        Profile::text(name).and_then(|text| Profile::parse(text).ok())
    }

    /// The names of the built-in profiles.
    pub fn names() -> impl ExactSizeIterator<Item = &'static str> {
        BUILT_IN.iter().map(|(name, _)| *name)
    }

    /// The text of a built-in profile, comments and all: something to start one's own from.
    #[must_use]
    pub fn text(name: &str) -> Option<&'static str> {
        BUILT_IN.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
    }

    /// Reads a profile.
    ///
    /// # Errors
    /// The first fault: not TOML, a key missing, unknown or of the wrong type, a number out of its range.
    pub fn parse(text: &str) -> Result<Profile, ProfileError> {
        let profile: Profile = toml::from_str(text).map_err(|error| not_read(text, &error))?;
        profile.check().map_err(|(key, message, remedy)| ProfileError {
            line: line_of(text, key),
            key: key.to_owned(),
            message: message.to_owned(),
            remedy: remedy.to_owned(),
        })?;
        Ok(profile)
    }

    /// What validation asks of it.
    #[must_use]
    pub fn limits(&self) -> Limits {
        Limits {
            max_actions: self.actions_max,
            max_modify: self.modify_max,
            max_encap: self.encap_bytes_max,
            match_dwords: self.match_dwords_max,
            match_dwords_near: self.match_dwords_near_max,
            ipv6_5tuple: self.ipv6_five_tuple,
            ipv4_ihl: self.ipv4_ihl,
            max_table_rules: self.table_rules_max,
            ..Limits::default()
        }
    }

    /// Ranges. What is wrong: key, message, remedy.
    fn check(&self) -> Result<(), (&'static str, &'static str, &'static str)> {
        let percents = [
            ("collide_from_percent", self.collide_from_percent),
            ("collide_full_percent", self.collide_full_percent),
        ];
        if let Some((key, _)) = percents.into_iter().find(|(_, percent)| *percent > 100) {
            return Err((key, "more than all", "use 0 to 100"));
        }
        if self.queues_max == 0 || self.queues_max > QUEUES_MAX {
            return Err(("queues_max", "too many for a rule's handle, or none", "use 1 to 255"));
        }
        if self.queue_depth_max == 0 || self.queue_depth_max > QUEUE_DEPTH_MAX {
            return Err(("queue_depth_max", "a queue needs memory for each operation", "use 1 to 65536"));
        }
        let once = [("rules_max", self.rules_max), ("age_tick_ns", self.age_tick_ns)];
        if let Some((key, _)) = once.into_iter().find(|(_, value)| *value == 0) {
            return Err((key, "0 leaves nothing", "use 1 or more"));
        }
        if self.rules_max > u64::from(u32::MAX) {
            return Err(("rules_max", "more than a rule's number can tell apart", "use up to 4294967295"));
        }
        if self.short_bytes_max > 0 && self.short_packets_per_second == 0 && self.packets_per_second > 0 {
            return Err(("short_packets_per_second", "0 for short frames only", "name the ceiling of both"));
        }
        self.check_testbed()?;
        self.check_times()
    }

    fn check_testbed(&self) -> Result<(), (&'static str, &'static str, &'static str)> {
        let Some(testbed) = &self.testbed else { return Ok(()) };
        if testbed.wire_bits_per_second == 0 || testbed.wire_bits_per_second > 10_000_000_000_000 {
            return Err(("wire_bits_per_second", "no rate of a wire", "use 1 to 10000000000000"));
        }
        if testbed.burst_packets == 0 || testbed.burst_packets > 10_000 {
            return Err(("burst_packets", "no burst of packets", "use 1 to 10000"));
        }
        let bytes = [
            ("wire_extra_bytes", testbed.wire_extra_bytes),
            ("counted_extra_bytes", testbed.counted_extra_bytes),
        ];
        if let Some((key, _)) = bytes.into_iter().find(|(_, bytes)| *bytes > 1000) {
            return Err((key, "more than a packet", "use 0 to 1000"));
        }
        let times = [
            ("switch_ns", testbed.switch_ns),
            ("wire_buffer_ns", testbed.wire_buffer_ns),
            ("forward_ns", testbed.forward_ns),
            ("dns_rtt_ns", testbed.dns_rtt_ns),
            ("baseline_rtt_ns", testbed.baseline_rtt_ns.p99),
            ("ebpf_forward_ns", testbed.ebpf_forward_ns.p99),
        ];
        if let Some((key, _)) = times.into_iter().find(|(_, ns)| *ns > Tick::SECOND) {
            return Err((key, "longer than a second", "nanoseconds are meant"));
        }
        Ok(())
    }

    fn check_times(&self) -> Result<(), (&'static str, &'static str, &'static str)> {
        let plain = [
            ("counter_refresh_ns", self.counter_refresh_ns),
            ("age_tick_ns", self.age_tick_ns),
            ("burst_ns", self.burst_ns),
        ];
        if let Some((key, _)) = plain.into_iter().find(|(_, ns)| *ns > TIME_MAX_NS) {
            return Err((key, "longer than an hour", "nanoseconds are meant"));
        }
        for (key, spread) in self.spreads() {
            if spread.p99 < spread.median {
                return Err((key, "p99 below the median", "let p99 be the median or more"));
            }
            if spread.p99 > TIME_MAX_NS {
                return Err((key, "longer than an hour", "nanoseconds are meant"));
            }
            // Beyond this the shape's tail has no mean to speak of.
            if spread.median > 0 && spread.p99 / spread.median >= 50 {
                return Err((key, "p99 is 50 times the median or more", "use a narrower spread"));
            }
            if spread.median == 0 && spread.p99 > 0 {
                return Err((
                    key,
                    "a median of 0 with a p99 above it",
                    "use 0 for both, or a median above 0",
                ));
            }
        }
        Ok(())
    }

    fn spreads(&self) -> [(&'static str, Spread); 7] {
        [
            ("create_cost_ns", self.create_cost_ns),
            ("create_latency_ns", self.create_latency_ns),
            ("create_completion_ns", self.create_completion_ns),
            ("destroy_cost_ns", self.destroy_cost_ns),
            ("destroy_latency_ns", self.destroy_latency_ns),
            ("destroy_completion_ns", self.destroy_completion_ns),
            ("action_cost_ns", self.action_cost_ns),
        ]
    }
}

/// The line (from 1) on which a key is given; 1 if it is not.
fn line_of(text: &str, key: &str) -> usize {
    let at = text.lines().position(|line| key_of(line) == Some(key));
    at.map_or(1, |index| index + 1)
}

/// The key that a line gives a value to.
fn key_of(line: &str) -> Option<&str> {
    let (key, _) = line.split_once('=')?;
    let key = key.trim();
    (!key.is_empty() && !key.starts_with('#')).then_some(key)
}

/// A parser's error, in our words.
fn not_read(text: &str, error: &toml::de::Error) -> ProfileError {
    let at = error.span().map_or(0, |span| span.start.min(text.len()));
    let line = text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
    let message = error.message().lines().next().unwrap_or("not a profile").to_owned();
    let missing = message.strip_prefix("missing field `").and_then(|rest| rest.split('`').next());
    let key = match missing {
        Some(key) => key,
        None => text.lines().nth(line - 1).and_then(key_of).unwrap_or("profile"),
    };
    let remedy = match (missing, message.starts_with("unknown field")) {
        (Some(_), _) => "add it; a built-in profile shows how",
        (None, true) => "remove it, or correct its name",
        (None, false) => "correct the value; a built-in profile shows how",
    };
    ProfileError { line, key: key.to_owned(), message, remedy: remedy.to_owned() }
}
