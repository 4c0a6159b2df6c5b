//! Which ethdev is meant by a port's `device`.
//!
//! A device string names an ethdev that exists (made by `--vdev` in `[dpdk] eal_args`, or brought along by
//! the device of an earlier port: a representor), or it is probed with its arguments. What is probed may
//! bring several ethdevs; the port takes the one with the device's own name, and later ports take the
//! others by theirs.

use dataplane::config::{self, Config};
use dpdk::{Device, Eal, ProbeError};

/// Why a port has no ethdev.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeviceError {
    /// Probing failed.
    #[error("port \"{port}\": {source}; see DPDK's own messages above{}", others(.free))]
    Probe {
        /// Its name.
        port: String,
        /// Why.
        source: ProbeError,
        /// Ethdevs that no port has.
        free: Vec<String>,
    },
    /// The device stands for several ethdevs, none of which has its name.
    #[error("port \"{port}\": device `{device}` is several ports; name one of them: {}", brought.join(", "))]
    Ambiguous {
        /// Its name.
        port: String,
        /// Its device.
        device: String,
        /// What it brought.
        brought: Vec<String>,
    },
}

/// What else there is to name, as the end of a sentence.
fn others(free: &[String]) -> String {
    if free.is_empty() { String::new() } else { format!("; there are, by name: {}", free.join(", ")) }
}

/// The ethdev of each port, in their order.
pub(crate) fn find<'eal>(eal: &'eal Eal, config: &Config) -> Result<Vec<Device<'eal>>, DeviceError> {
    let devices = config.ports.iter().filter_map(|port| Some((port, port.device()?)));
    devices.map(|(port, device)| find_one(eal, port, device)).collect()
}

fn find_one<'eal>(eal: &'eal Eal, port: &config::Port, wanted: &str) -> Result<Device<'eal>, DeviceError> {
    // Whatever is not taken here is dropped, and by that given up for the next port.
    if let Some(device) = eal.devices().into_iter().find(|device| device.name() == wanted) {
        return Ok(device);
    }
    let brought = eal.probe(wanted).map_err(|source| {
        let free = eal.devices().iter().map(|device| device.name().to_owned()).collect();
        DeviceError::Probe { port: port.name.clone(), source, free }
    })?;
    let names: Vec<String> = brought.iter().map(|device| device.name().to_owned()).collect();
    let device = meant(wanted, &names).and_then(|index| brought.into_iter().nth(index));
    device.ok_or_else(|| DeviceError::Ambiguous {
        port: port.name.clone(),
        device: wanted.to_owned(),
        brought: names,
    })
}

/// Which of the ethdevs that a device has brought is the one meant by its string: the only one, or the one
/// with the device's name.
fn meant(device: &str, brought: &[String]) -> Option<usize> {
    let name = device.split(',').next().unwrap_or_default();
    let name = ["pci:", "vdev:"].iter().find_map(|bus| name.strip_prefix(bus)).unwrap_or(name);
    match brought {
        [_] => Some(0),
        // PCI functions may be written without their domain, which is 0 then.
        _ => brought.iter().position(|found| found == name || found.strip_prefix("0000:") == Some(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn brought(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_device_s_own_name_is_meant_among_what_it_brings() {
        let eswitch = brought(&["net_eswitch0", "net_eswitch0_representor_vf65535"]);
        assert_eq!(meant("net_eswitch0,uplink=net_tap0,host=net_tap1", &eswitch), Some(0));
        let nic = brought(&["0000:03:00.0_representor_vf0", "0000:03:00.0"]);
        for device in ["0000:03:00.0,representor=vf0", "03:00.0,dv_flow_en=2", "pci:0000:03:00.0"] {
            assert_eq!(meant(device, &nic), Some(1), "{device}");
        }
    }

    #[test]
    fn a_single_one_is_meant_whatever_its_name() {
        let representor = brought(&["0000:03:00.0_representor_vf65535"]);
        assert_eq!(meant("0000:03:00.0,representor=pf0vf65535", &representor), Some(0));
    }

    #[test]
    fn several_strangers_are_not_guessed_among() {
        let two = brought(&["0000:03:00.0_representor_vf0", "0000:03:00.0_representor_vf1"]);
        assert_eq!(meant("0000:03:00.0,representor=vf[0-1]", &two), None);
    }

    #[test]
    fn what_there_is_follows_what_is_missing() {
        let source = ProbeError::NoNewPort { device: "net_eswitch0_representor_vf1".into() };
        let free = brought(&["net_eswitch0_representor_vf65535"]);
        let error = DeviceError::Probe { port: "host".into(), source, free };
        assert!(
            error.to_string().ends_with("; there are, by name: net_eswitch0_representor_vf65535"),
            "{error}"
        );
    }
}
