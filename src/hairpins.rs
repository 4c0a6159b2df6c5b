//! Hairpin queues: how hardware forwards between ports that no eSwitch joins, and out of the port it came by.
//!
//! A rule of the receive side puts packets into a receive queue whose other end is a transmit queue, of the
//! same port or another. One pair leads each way: where there is a single port, and between two.

use crate::ports::OpenPort;
use dataplane::config::{Config, EngineChoice};
use dataplane::ids::PortId;
use dpdk::{Device, HairpinPeer, PortConfig};
use offload::lower::Hairpin;

/// The pair of queues of one port: one receives for `egress` to send, one sends what that receives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Pair {
    egress: PortId,
    /// DPDK's number for the port at the other end,
    peer: u16,
    /// and its ordinary receive queues.
    peer_rx_queues: u16,
}

/// What matters of a device.
#[derive(Clone, Copy, Debug)]
struct End {
    number: u16,
    domain: Option<u16>,
    rx_max: u16,
    /// Whether it can have hairpin queues, and has one queue more than there are workers.
    able: bool,
}

/// The pair of each port, where it may have one and needs it.
pub(crate) fn plan(config: &Config, devices: &[Device<'_>]) -> Vec<Option<Pair>> {
    let workers = config.workers.cores.len() as u16;
    let end = |device: &Device<'_>| {
        let (rx_max, tx_max) = device.queues_max().unwrap_or((0, 0));
        let able = device.has_hairpins() && rx_max > workers && tx_max > workers;
        End { number: device.number(), domain: device.switch_domain(), rx_max, able }
    };
    let ends: Vec<End> = devices.iter().map(end).collect();
    match config.offload.engine {
        EngineChoice::None => vec![None; ends.len()],
        EngineChoice::Auto | EngineChoice::Sync | EngineChoice::Template => pairs(&ends, workers),
    }
}

fn pairs(ends: &[End], workers: u16) -> Vec<Option<Pair>> {
    let to = |index: u16, end: &End| {
        Some(Pair { egress: PortId(index), peer: end.number, peer_rx_queues: workers.min(end.rx_max) })
    };
    match ends {
        [one] if one.able => vec![to(0, one)],
        [a, b] if a.able && b.able && (a.domain.is_none() || a.domain != b.domain) => {
            vec![to(1, b), to(0, a)]
        }
        _ => vec![None; ends.len()],
    }
}

impl Pair {
    /// Adds the queues to what is asked of the port.
    pub(crate) fn ask_for(&self, wanted: &mut PortConfig) {
        // They come behind the ordinary queues, of which there are as many to send on as on every port.
        wanted.hairpin_rx = vec![HairpinPeer { port: self.peer, queue: wanted.tx_queues }];
        wanted.hairpin_tx = vec![HairpinPeer { port: self.peer, queue: self.peer_rx_queues }];
    }

    /// The pair as rules see it.
    pub(crate) fn facts(&self, rx_queues: u16) -> Hairpin {
        Hairpin { egress: self.egress, queue: rx_queues }
    }
}

/// Ties the queues of different ports together, which have started. All are used or none: software forwards
/// what hardware cannot.
pub(crate) fn bind(ports: &mut [OpenPort<'_>]) {
    let refused =
        |open: &OpenPort<'_>| open.port.granted().hairpins_refused.as_ref().map(ToString::to_string);
    let untied = |open: &OpenPort<'_>| match open.hairpin {
        Some(pair) if pair.peer != open.port.number() => {
            open.port.bind_hairpins(pair.peer).err().map(|error| error.to_string())
        }
        _ => None,
    };
    let why = ports.iter().find_map(refused).or_else(|| ports.iter().find_map(untied));
    if let Some(why) = why {
        tracing::info!("hairpin queues are not used: {why}");
        ports.iter_mut().for_each(|open| open.hairpin = None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(number: u16, domain: Option<u16>) -> End {
        End { number, domain, rx_max: 16, able: true }
    }

    #[test]
    fn one_port_is_joined_to_itself() {
        let pair = Pair { egress: PortId(0), peer: 7, peer_rx_queues: 2 };
        assert_eq!(pairs(&[end(7, Some(0))], 2), [Some(pair)]);
        let mut wanted = PortConfig { rx_queues: 2, tx_queues: 2, ..PortConfig::default() };
        pair.ask_for(&mut wanted);
        let peer = HairpinPeer { port: 7, queue: 2 };
        assert_eq!((wanted.hairpin_rx, wanted.hairpin_tx), (vec![peer], vec![peer]));
        assert_eq!(pair.facts(2), Hairpin { egress: PortId(0), queue: 2 });
    }

    #[test]
    fn two_ports_are_joined_unless_an_eswitch_does_that() {
        let to = |egress, peer| Some(Pair { egress: PortId(egress), peer, peer_rx_queues: 4 });
        let across = [to(1, 8), to(0, 7)];
        assert_eq!(pairs(&[end(7, Some(0)), end(8, Some(1))], 4), across);
        assert_eq!(pairs(&[end(7, None), end(8, None)], 4), across);
        assert_eq!(pairs(&[end(7, Some(0)), end(8, Some(0))], 4), [None, None]);
    }

    #[test]
    fn devices_that_cannot_are_left_alone() {
        let unable = End { able: false, ..end(8, None) };
        assert_eq!(pairs(&[unable], 1), [None]);
        assert_eq!(pairs(&[end(7, None), unable], 1), [None, None]);
        assert_eq!(pairs(&[end(7, None), end(8, None), end(9, None)], 1), [None, None, None]);
    }
}
