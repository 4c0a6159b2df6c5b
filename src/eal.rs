//! The EAL's arguments, from the configuration.

use crate::beside;
use dataplane::config::{Config, Dpdk, Port};

/// Bytes a packet buffer takes in a pool besides its data room: `rte_mbuf`, the element's header, padding.
const MBUF_OVERHEAD: usize = 256;
/// What memory is made of without huge pages.
const PAGE_BYTES: usize = 4096;
/// MiB for everything that is not packet buffers: rings, device queues, DPDK's own tables.
const BASE_MIB: usize = 128;

/// Arguments for this configuration; `main_core` is where EAL's own thread is at home.
///
/// `--in-memory` leaves no files behind and lets several instances run side by side; without huge pages,
/// where EAL refuses it, `--no-shconf` does the same. Devices are probed one by one later, with their
/// arguments, so EAL's own scan must not take any.
pub(crate) fn arguments(config: &Config, main_core: usize, pools_bytes: usize) -> Vec<String> {
    let Dpdk { eal_args, file_prefix, hugepages, memory_mb, .. } = &config.dpdk;
    let mut arguments = vec![format!("--file-prefix={file_prefix}")];
    arguments.extend(["-l".to_owned(), main_core.to_string()]);
    if config.ports.iter().filter_map(Port::device).any(is_pci) {
        arguments.extend(["-a".to_owned(), "0000:00:00.0".to_owned()]);
    } else {
        arguments.push("--no-pci".to_owned());
    }
    let memory = match (hugepages, memory_mb) {
        (_, Some(mib)) => Some(*mib as usize),
        (false, None) => Some(BASE_MIB + pools_bytes.div_ceil(1 << 20)),
        (true, None) => None,
    };
    let modes: &[&str] = if *hugepages { &["--in-memory"] } else { &["--no-huge", "--no-shconf"] };
    arguments.extend(modes.iter().map(|mode| (*mode).to_owned()));
    if let Some(mib) = memory {
        arguments.extend(["-m".to_owned(), mib.to_string()]);
    }
    arguments.extend(eal_args.iter().cloned());
    arguments
}

/// Bytes that EAL needs without huge pages for a pool with so many buffers of this data room. No buffer
/// crosses a page that it fits into, so most take one each; and EAL 22.11 was seen to refuse anything less
/// than twice what the buffers then take.
pub(crate) fn pool_bytes(count: u32, data_room_bytes: u16) -> usize {
    let (count, bytes) = (count as usize, usize::from(data_room_bytes) + MBUF_OVERHEAD);
    let pages = match PAGE_BYTES / bytes {
        0 => count * bytes.div_ceil(PAGE_BYTES),
        per_page => count.div_ceil(per_page),
    };
    2 * pages * PAGE_BYTES
}

/// A core for everything that is not a packet thread: the first that no worker has; if there is none, the
/// first.
fn main_core(available: &[usize], workers: &[u16]) -> usize {
    let free = available.iter().find(|core| !workers.iter().any(|worker| usize::from(*worker) == **core));
    free.or(available.first()).copied().unwrap_or(0)
}

/// Binds the calling thread to the main core, unless a worker has it, and with it every thread started from
/// here on that does not bind itself. Before EAL starts: it gives its interrupt and telemetry threads all
/// cores of this thread but the main one, which otherwise are the workers'. Returns the main core.
pub(crate) fn leave_workers_cores(available: &[usize], workers: &[u16]) -> usize {
    let main_core = main_core(available, workers);
    if workers.iter().any(|worker| usize::from(*worker) == main_core) {
        tracing::warn!("workers have all cores; they will be interrupted by everything else");
    } else if !core_affinity::set_for_current(core_affinity::CoreId { id: main_core }) {
        tracing::warn!(core = main_core, "control threads could not be bound; they may interrupt workers");
    } else {
        beside::apart();
    }
    main_core
}

/// Whether devargs name a PCI function, `0000:03:00.0` or `03:00.0`.
fn is_pci(device: &str) -> bool {
    let name = device.split(',').next().unwrap_or_default();
    let name = name.strip_prefix("pci:").unwrap_or(name);
    let parts: Vec<&str> = name.split([':', '.']).collect();
    let hexadecimal = |part: &&str| !part.is_empty() && part.chars().all(|c| c.is_ascii_hexdigit());
    matches!(parts.len(), 3 | 4) && name.contains(':') && parts.iter().all(hexadecimal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(dpdk: &str, device: &str) -> Config {
        let text = format!(
            "[dpdk]\n{dpdk}\n[[port]]\nname = \"wan\"\ndevice = \"{device}\"\naddresses = [\"10.0.0.1/24\"]\n\
             [[service]]\nname = \"web\"\nvip = \"192.0.2.1\"\nprotocol = \"tcp\"\nports = [80]\n\
             [[service.backend]]\naddress = \"10.0.0.2\"\n"
        );
        Config::parse("test", &text).unwrap_or_else(|faults| panic!("{faults}"))
    }

    #[test]
    fn virtual_devices_without_huge_pages_get_memory_for_their_pools() {
        let config = config("hugepages = false", "net_null0");
        let arguments = arguments(&config, 3, pool_bytes(16384, 2176));
        let expected =
            ["--file-prefix=millrace", "-l", "3", "--no-pci", "--no-huge", "--no-shconf", "-m", "256"];
        assert_eq!(arguments, expected);
    }

    #[test]
    fn nics_keep_the_pci_bus_but_not_its_scan() {
        let config = config("memory_mb = 2048\neal_args = [\"--iova-mode=va\"]", "0000:03:00.0,dv_flow_en=2");
        let arguments = arguments(&config, 0, 0);
        let expected = [
            "--file-prefix=millrace",
            "-l",
            "0",
            "-a",
            "0000:00:00.0",
            "--in-memory",
            "-m",
            "2048",
            "--iova-mode=va",
        ];
        assert_eq!(arguments, expected);
    }

    #[test]
    fn pci_functions_are_told_from_virtual_devices() {
        for device in ["0000:03:00.0", "03:00.1,representor=vf0", "pci:0000:03:00.0"] {
            assert!(is_pci(device), "{device}");
        }
        for device in ["net_af_packet0,iface=eth0", "net_pcap0,rx_pcap=a:b.c", "net_memif", "net_tap0.1"] {
            assert!(!is_pci(device), "{device}");
        }
    }

    #[test]
    fn the_main_core_is_left_by_the_workers() {
        assert_eq!(main_core(&[0, 1, 2, 3], &[0, 1]), 2);
        assert_eq!(main_core(&[0, 1], &[0, 1]), 0);
        assert_eq!(main_core(&[4, 5], &[4]), 5);
        assert_eq!(main_core(&[], &[0]), 0);
    }
}
