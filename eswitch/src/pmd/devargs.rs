//! What the user writes behind `--vdev net_eswitch0,`.

use crate::model::types::{Steering, Vport};

/// The keys, for the message that turns down another one.
const KEYS: &str = "uplink, host, profile, dv_flow_en, fdb_def_rule_en, allow_duplicate_pattern, dv_xmeta_en, \
                    repr_matching_en, wire_to_wire, seed, faults, mbufs, service";

/// Wires that one device has at most: half of what DPDK has room for, the rest is representors.
const WIRES_MAX: usize = 16;

/// Buffers for packets from the wires, unless `mbufs` says otherwise.
const MBUFS: u32 = 32_768;

/// A device as the user wants it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Devargs {
    /// Names of the ethdevs behind the physical ports, in order.
    pub(super) uplinks: Vec<String>,
    /// Names of the ethdevs behind the host's functions: its PF, then VF 0 and on.
    pub(super) hosts: Vec<String>,
    /// Name or path of the profile; `None`: that which suits the steering.
    pub(super) profile: Option<String>,
    /// `dv_flow_en`; `None`: the profile's.
    pub(super) steering: Option<Steering>,
    /// `fdb_def_rule_en`
    pub(super) fdb_def_rule: bool,
    /// `allow_duplicate_pattern`
    pub(super) allow_duplicate_pattern: bool,
    /// `dv_xmeta_en`: 0, 1, 2 or 4.
    pub(super) xmeta: u8,
    /// `repr_matching_en`
    pub(super) repr_matching: bool,
    /// Whether a rule may send a packet back to the wire it came from; `None`: as the profile.
    pub(super) wire_to_wire: Option<bool>,
    /// For everything random.
    pub(super) seed: u64,
    /// Faults to inject, as the model spells them.
    pub(super) faults: Option<String>,
    /// Buffers for packets from the wires.
    pub(super) mbufs: u32,
    /// Whether service cores drive the device; `None`: if there are any.
    pub(super) service: Option<bool>,
}

/// An argument that cannot be, and what could.
#[derive(PartialEq, Eq, Debug, thiserror::Error)]
#[error("bad argument {key}={value}: {remedy}")]
pub(super) struct DevargsError {
    pub(super) key: String,
    pub(super) value: String,
    pub(super) remedy: String,
}

impl Devargs {
    /// Parses `key=value,key=value`; a value with commas goes in brackets.
    pub(super) fn parse(text: &str) -> Result<Devargs, DevargsError> {
        let mut args = Devargs {
            uplinks: Vec::new(),
            hosts: Vec::new(),
            profile: None,
            steering: None,
            fdb_def_rule: true,
            allow_duplicate_pattern: true,
            xmeta: 0,
            repr_matching: true,
            wire_to_wire: None,
            seed: 1,
            faults: None,
            mbufs: MBUFS,
            service: None,
        };
        let mut seen = Vec::new();
        for pair in split(text) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            if seen.contains(&key) && !matches!(key, "uplink" | "host") {
                return Err(bad(key, value, "given twice; give it once"));
            }
            seen.push(key);
            args.set(key, value)?;
        }
        args.check()
    }

    /// The name of a vport's wire.
    pub(super) fn wire(&self, vport: Vport) -> &str {
        self.uplinks.iter().chain(&self.hosts).nth(usize::from(vport.0)).map_or("", String::as_str)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), DevargsError> {
        match key {
            "uplink" => self.uplinks.push(wire(key, value)?),
            "host" => self.hosts.push(wire(key, value)?),
            "profile" => self.profile = Some(nonempty(key, value, "name a profile, e.g. bf3-hws")?),
            "dv_flow_en" => {
                self.steering = Some(match value {
                    "1" => Steering::Software,
                    "2" => Steering::Hardware,
                    _ => return Err(bad(key, value, "1 (software steering) or 2 (hardware steering)")),
                });
            }
            "fdb_def_rule_en" => self.fdb_def_rule = switch(key, value)?,
            "allow_duplicate_pattern" => self.allow_duplicate_pattern = switch(key, value)?,
            "repr_matching_en" => self.repr_matching = switch(key, value)?,
            "wire_to_wire" => self.wire_to_wire = Some(switch(key, value)?),
            "service" => self.service = Some(switch(key, value)?),
            "dv_xmeta_en" => {
                self.xmeta = match value {
                    "0" | "1" | "2" | "4" => value.as_bytes()[0] - b'0',
                    _ => return Err(bad(key, value, "0, 1, 2 or 4 (3, tunnel offload, is not modelled)")),
                };
            }
            "seed" => self.seed = number(key, value, 0..=u64::MAX, "a number from 0 to 2^64-1")?,
            "mbufs" => {
                let mbufs = number(key, value, 1024..=1 << 24, "a number from 1024 to 16777216")?;
                self.mbufs = mbufs as u32;
            }
            "faults" => {
                let inner =
                    value.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(value);
                self.faults = Some(nonempty(key, inner, "e.g. faults=[refuse=0.01,delay_us=500]")?);
            }
            _ => return Err(bad(key, value, &format!("no such key; there are {KEYS}"))),
        }
        Ok(())
    }

    fn check(self) -> Result<Devargs, DevargsError> {
        if self.uplinks.is_empty() {
            return Err(bad("uplink", "", "name at least one ethdev, e.g. uplink=net_af_packet0"));
        }
        let wires: Vec<&String> = self.uplinks.iter().chain(&self.hosts).collect();
        for (at, wire) in wires.iter().enumerate() {
            if wires[..at].contains(wire) {
                let key = if at < self.uplinks.len() { "uplink" } else { "host" };
                return Err(bad(key, wire, "already a wire of this device; each needs its own ethdev"));
            }
        }
        if wires.len() > WIRES_MAX {
            return Err(bad("host", wires[WIRES_MAX], &format!("at most {WIRES_MAX} wires")));
        }
        Ok(self)
    }
}

/// The pairs: split at commas that are in no brackets.
fn split(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_i32;
    let pairs = text.split(move |character| {
        depth += i32::from(character == '[') - i32::from(character == ']');
        character == ',' && depth <= 0
    });
    pairs.filter(|pair| !pair.is_empty())
}

fn bad(key: &str, value: &str, remedy: &str) -> DevargsError {
    DevargsError { key: key.to_owned(), value: value.to_owned(), remedy: remedy.to_owned() }
}

fn nonempty(key: &str, value: &str, remedy: &str) -> Result<String, DevargsError> {
    if value.is_empty() { Err(bad(key, value, remedy)) } else { Ok(value.to_owned()) }
}

fn wire(key: &str, value: &str) -> Result<String, DevargsError> {
    // RTE_ETH_NAME_MAX_LEN, with the terminator.
    if value.len() >= 64 {
        return Err(bad(key, value, "a name of an ethdev has at most 63 bytes"));
    }
    nonempty(key, value, "name an ethdev, e.g. net_af_packet0")
}

fn switch(key: &str, value: &str) -> Result<bool, DevargsError> {
    match value {
        "0" => Ok(false),
        "1" => Ok(true),
        _ => Err(bad(key, value, "0 or 1")),
    }
}

fn number(
    key: &str,
    value: &str,
    range: std::ops::RangeInclusive<u64>,
    remedy: &str,
) -> Result<u64, DevargsError> {
    value.parse().ok().filter(|number| range.contains(number)).ok_or_else(|| bad(key, value, remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_can_be_said() {
        let text = "uplink=net_a,host=net_b,uplink=net_c,host=net_d,profile=bf3-hws,dv_flow_en=2,fdb_def_rule_en=0,\
                    allow_duplicate_pattern=0,dv_xmeta_en=4,repr_matching_en=0,seed=18446744073709551615,\
                    faults=[refuse=0.5,delay_us=3],mbufs=4096,service=0,wire_to_wire=1";
        let expected = Devargs {
            uplinks: vec!["net_a".into(), "net_c".into()],
            hosts: vec!["net_b".into(), "net_d".into()],
            profile: Some("bf3-hws".into()),
            steering: Some(Steering::Hardware),
            fdb_def_rule: false,
            allow_duplicate_pattern: false,
            xmeta: 4,
            repr_matching: false,
            wire_to_wire: Some(true),
            seed: u64::MAX,
            faults: Some("refuse=0.5,delay_us=3".into()),
            mbufs: 4096,
            service: Some(false),
        };
        assert_eq!(Devargs::parse(text), Ok(expected));
    }

    #[test]
    fn what_cannot_be_is_named_with_a_remedy() {
        let cases = [
            ("", "bad argument uplink=: name at least one"),
            ("host=a", "bad argument uplink=: name at least one"),
            ("uplink", "bad argument uplink=: name an ethdev"),
            ("uplink=a,uplnk=b", "bad argument uplnk=b: no such key; there are uplink, host,"),
            ("uplink=a,host=a", "bad argument host=a: already a wire"),
            ("uplink=a,dv_flow_en=0", "bad argument dv_flow_en=0: 1 (software"),
            ("uplink=a,dv_xmeta_en=3", "bad argument dv_xmeta_en=3: 0, 1, 2 or 4"),
            ("uplink=a,service=yes", "bad argument service=yes: 0 or 1"),
            ("uplink=a,mbufs=12", "bad argument mbufs=12: a number from 1024"),
            ("uplink=a,seed=-1", "bad argument seed=-1: a number"),
            ("uplink=a,seed=1,seed=2", "bad argument seed=2: given twice"),
            ("uplink=a,faults=[]", "bad argument faults=: e.g."),
        ];
        for (text, expected) in cases {
            let error = Devargs::parse(text).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
    }

    #[test]
    fn too_many_wires_are_refused() {
        let hosts: String = (0..WIRES_MAX).map(|at| format!(",host=h{at}")).collect();
        assert!(Devargs::parse(&format!("uplink=u{hosts}")).is_err());
    }
}
