//! What a reload may change, and what takes a restart.
//!
//! Everything a worker forwards by is in the snapshot and changes at a burst boundary: services, backends,
//! addresses, routes, neighbours, Maglev tables. What was allocated, opened or pinned at start stays.

use crate::{Failure, commands};
use dataplane::config::{Config, Offload, Port};
use std::path::PathBuf;

/// Where a new configuration comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Source {
    /// The file that was named at the start.
    File(PathBuf),
    /// Whoever asks has sent it. No file knows of it.
    Upload(String),
}

impl Source {
    /// What this is called, in the log and in history.
    pub(crate) fn cause(&self) -> &'static str {
        match self {
            Source::File(_) => "reload",
            Source::Upload(_) => "upload",
        }
    }

    /// What has been done with it, or would be.
    pub(crate) fn done(&self, dry_run: bool) -> String {
        match (self, dry_run) {
            (Source::File(file), true) => format!("would reload {}", file.display()),
            (Source::File(file), false) => format!("reloaded {}", file.display()),
            (Source::Upload(_), true) => "would apply the upload".to_owned(),
            (Source::Upload(_), false) => "applied the upload".to_owned(),
        }
    }

    /// The configuration that it has, and its text.
    pub(crate) fn read(&self) -> Result<(Config, String), Failure> {
        match self {
            Source::File(file) => commands::read(file),
            Source::Upload(text) => {
                let config = Config::parse("upload", text).map_err(Failure::Faulty)?;
                Ok((config, text.clone()))
            }
        }
    }
}

/// The keys in which the new configuration differs where a running process cannot follow; empty if it can.
pub(crate) fn fixed_keys_changed(old: &Config, new: &Config) -> Vec<String> {
    let mut keys = Vec::new();
    let mut fixed = |key: &str, same: bool| {
        if !same {
            keys.push(key.to_owned());
        }
    };
    fixed("[dpdk]", old.dpdk == new.dpdk);
    fixed("[workers]", old.workers == new.workers);
    fixed("[log]", old.log == new.log);
    fixed("[metrics]", old.metrics == new.metrics);
    fixed("[control]", old.control == new.control);
    fixed("[limits]", old.limits == new.limits);
    fixed_offload_keys(&old.offload, &new.offload, &mut fixed);
    // A tenant's number is its position, and is in the keys of live connections: were positions to change,
    // one tenant's connections would answer to another's packets.
    let mut names = new.tenants.iter().map(|tenant| &tenant.name);
    let stay = old.tenants.iter().all(|tenant| names.next() == Some(&tenant.name));
    fixed("[[tenant]]: their order, except for new ones at the end", stay);
    fixed("[[port]]: how many there are", old.ports.len() == new.ports.len());
    for (index, (old, new)) in old.ports.iter().zip(&new.ports).enumerate() {
        fixed_port_keys(index, old, new, &mut fixed);
    }
    keys
}

/// The keys in which the new configuration differs where rules in hardware cannot follow.
pub(crate) fn rule_keys_changed(old: &Config, new: &Config) -> Vec<String> {
    let ports = old.ports.iter().zip(&new.ports).enumerate();
    let changed = ports.flat_map(|(index, (old, new))| {
        let keys = [("vlan", old.vlan == new.vlan), ("pass_to", old.pass_to == new.pass_to)];
        let changed = keys.into_iter().filter(|(_, same)| !same);
        changed.map(move |(key, _)| {
            format!("port[{index}] \"{}\".{key} (while connections are offloaded)", old.name)
        })
    });
    changed.collect()
}

fn fixed_offload_keys(old: &Offload, new: &Offload, fixed: &mut impl FnMut(&str, bool)) {
    let mut key = |name: &str, same| fixed(&format!("[offload] {name}"), same);
    key("engine", old.engine == new.engine);
    key("rules_max", old.rules_max == new.rules_max);
    key("deny_rules", old.deny_rules == new.deny_rules);
    key("insertions_per_second", old.insertions_per_second == new.insertions_per_second);
    key("price_min", old.price_min == new.price_min);
    key("idle_s", old.idle_s == new.idle_s);
    key("tenant_share_percent", old.tenant_share_percent == new.tenant_share_percent);
    key("poll_ms", old.poll_ms == new.poll_ms);
    key("core", old.core == new.core);
}

fn fixed_port_keys(index: usize, old: &Port, new: &Port, fixed: &mut impl FnMut(&str, bool)) {
    let mut key = |name: &str, same| fixed(&format!("port[{index}] \"{}\".{name}", old.name), same);
    key("name", old.name == new.name);
    key("device", old.device() == new.device());
    key("parent", old.parent() == new.parent());
    key("mtu", old.mtu == new.mtu);
    key("rx_descriptors", old.rx_descriptors == new.rx_descriptors);
    key("tx_descriptors", old.tx_descriptors == new.tx_descriptors);
    key("promiscuous", old.promiscuous == new.promiscuous);
    key("hairpin", old.hairpin == new.hairpin);
    key("faces", old.faces == new.faces);
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
[workers]
cores = [0]
[[port]]
name = "wan"
device = "net_null0"
mtu = 1500
addresses = ["10.0.0.1/24"]
[[service]]
name = "web"
vip = "192.0.2.1"
protocol = "tcp"
ports = [80]
[[service.backend]]
address = "10.0.0.2"
"#;

    fn config(text: &str) -> Config {
        Config::parse("test", text).unwrap_or_else(|faults| panic!("{faults}"))
    }

    fn changed(from: &str, to: &str) -> Vec<String> {
        assert!(TEXT.contains(from), "{from}");
        fixed_keys_changed(&config(TEXT), &config(&TEXT.replace(from, to)))
    }

    #[test]
    fn rules_in_hardware_keep_what_they_match() {
        let tagged = config(&TEXT.replace("mtu = 1500", "mtu = 1500\nvlan = 5"));
        assert!(fixed_keys_changed(&config(TEXT), &tagged).is_empty());
        let key = "port[0] \"wan\".vlan (while connections are offloaded)";
        assert_eq!(rule_keys_changed(&config(TEXT), &tagged), [key]);
    }

    #[test]
    fn what_the_snapshot_holds_may_change() {
        assert!(changed("10.0.0.2", "10.0.0.3").is_empty());
        assert!(changed("192.0.2.1", "192.0.2.2").is_empty());
        assert!(changed("10.0.0.1/24", "10.0.0.9/24").is_empty());
        assert!(changed("ports = [80]", "ports = [80, 443]").is_empty());
        assert!(changed("ports = [80]", "ports = [80]\noffload = false").is_empty());
        let offload = "[offload]\ndraining = \"hardware\"\n[[port]]";
        assert!(changed("[[port]]", offload).is_empty());
    }

    #[test]
    fn tenants_keep_their_positions() {
        let with = |names: &[&str]| {
            let tenants = names.iter().map(|name| format!("[[tenant]]\nname = \"{name}\"\n"));
            config(&(TEXT.to_owned() + &tenants.collect::<String>()))
        };
        let refused = ["[[tenant]]: their order, except for new ones at the end"];
        let old = with(&["a", "b"]);
        assert!(fixed_keys_changed(&old, &with(&["a", "b", "c"])).is_empty());
        for names in [&["b", "a"][..], &["a"], &["b"], &["a", "c"], &["c", "a", "b"]] {
            assert_eq!(fixed_keys_changed(&old, &with(names)), refused, "{names:?}");
        }
    }

    #[test]
    fn what_was_set_up_at_start_is_named() {
        assert_eq!(changed("net_null0", "net_null1"), ["port[0] \"wan\".device"]);
        assert_eq!(changed("1500", "1400"), ["port[0] \"wan\".mtu"]);
        assert_eq!(changed("cores = [0]", "cores = [0, 1]"), ["[workers]"]);
        let offload = "[offload]\nengine = \"sync\"\nrules_max = 16\ncore = 1\n[[port]]";
        let keys = ["[offload] engine", "[offload] rules_max", "[offload] core"];
        assert_eq!(changed("[[port]]", offload), keys);
        let others = "[offload]\nprice_min = 9\nidle_s = 9\npoll_ms = 99\n[[port]]";
        let keys = ["[offload] price_min", "[offload] idle_s", "[offload] poll_ms"];
        assert_eq!(changed("[[port]]", others), keys);
        let two = "[[port]]\nname = \"lan\"\ndevice = \"net_null1\"\naddresses = [\"10.0.1.1/24\"]\n[[port]]";
        let keys = changed("[[port]]", two);
        assert!(keys.contains(&"[[port]]: how many there are".to_owned()), "{keys:?}");
        assert!(keys.contains(&"port[0] \"wan\".name".to_owned()), "{keys:?}");
    }
}
