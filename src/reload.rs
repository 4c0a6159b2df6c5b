//! What a reload may change, and what takes a restart.
//!
//! Everything a worker forwards by is in the snapshot and changes at a burst boundary: services, backends,
//! addresses, routes, neighbours, Maglev tables. What was allocated, opened or pinned at start stays.

use dataplane::config::{Config, Port};

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
    fixed("[offload] engine", old.offload.engine == new.offload.engine);
    fixed("[offload] rules_max", old.offload.rules_max == new.offload.rules_max);
    fixed("[offload] core", old.offload.core == new.offload.core);
    // A tenant's number is its position, and is in the keys of live connections: were positions to change,
    // one tenant's connections would answer to another's packets.
    fixed("[[tenant]]: their order, except for new ones at the end", new.tenants.starts_with(&old.tenants));
    fixed("[[port]]: how many there are", old.ports.len() == new.ports.len());
    for (index, (old, new)) in old.ports.iter().zip(&new.ports).enumerate() {
        fixed_port_keys(index, old, new, &mut fixed);
    }
    keys
}

fn fixed_port_keys(index: usize, old: &Port, new: &Port, fixed: &mut impl FnMut(&str, bool)) {
    let mut key = |name: &str, same| fixed(&format!("port[{index}] \"{}\".{name}", old.name), same);
    key("name", old.name == new.name);
    key("device", old.device == new.device);
    key("mtu", old.mtu == new.mtu);
    key("rx_descriptors", old.rx_descriptors == new.rx_descriptors);
    key("tx_descriptors", old.tx_descriptors == new.tx_descriptors);
    key("promiscuous", old.promiscuous == new.promiscuous);
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
    fn what_the_snapshot_holds_may_change() {
        assert!(changed("10.0.0.2", "10.0.0.3").is_empty());
        assert!(changed("192.0.2.1", "192.0.2.2").is_empty());
        assert!(changed("10.0.0.1/24", "10.0.0.9/24").is_empty());
        assert!(changed("ports = [80]", "ports = [80, 443]").is_empty());
        assert!(changed("ports = [80]", "ports = [80]\noffload = false").is_empty());
        let offload = "[offload]\nprice_min = 9\nidle_s = 9\npoll_ms = 99\ndraining = \"hardware\"\n[[port]]";
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
        let two = "[[port]]\nname = \"lan\"\ndevice = \"net_null1\"\naddresses = [\"10.0.1.1/24\"]\n[[port]]";
        let keys = changed("[[port]]", two);
        assert!(keys.contains(&"[[port]]: how many there are".to_owned()), "{keys:?}");
        assert!(keys.contains(&"port[0] \"wan\".name".to_owned()), "{keys:?}");
    }
}
