//! Hairpin queues: how hardware forwards between ports that no eSwitch joins, and out of the port it came by.
//!
//! A rule of the receive side puts packets into a receive queue whose other end is a transmit queue, of the
//! same port or another. Such a pair leads one way; it is set up
//!
//! * between ports that no eSwitch joins, each way;
//! * from a port to itself, if it is the only one, or clients and backends are both behind it;
//!
//! and on the port of an eSwitch only if the configuration says so: mlx5 knows no hairpin queues in switchdev
//! mode (guide of 22.11, *Limitations*). Some devices have them nevertheless; on one that accepted rules and
//! lost packets, connections would break.
//!
//! Pairs come behind the workers' queues, in the order of the ports at their other ends. Workers do not poll
//! them, and nothing is spread into them. Whatever does not work out leaves the packets to software.

use crate::ports::OpenPort;
use dataplane::config::{self, Config, EngineChoice, Faces};
use dataplane::ids::PortId;
use dpdk::{Device, HairpinPeer, PortConfig};
use offload::lower::Hairpin;

/// The hairpin queues of one port.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Queues {
    /// Those that receive, in their order: the port that sends what they get, and its queue.
    rx: Vec<(PortId, HairpinPeer)>,
    /// Those that send: the port that receives for them, and its queue.
    tx: Vec<(PortId, HairpinPeer)>,
}

/// What matters of a device.
#[derive(Clone, Copy, Debug)]
struct End {
    number: u16,
    domain: Option<u16>,
    /// Whether it can have hairpin queues, and enough of them.
    able: bool,
    /// Whether packets may have to leave by the port they came in by.
    returns: bool,
}

/// The hairpin queues of each port: those it may have and needs.
pub(crate) fn plan(config: &Config, devices: &[Device<'_>]) -> Vec<Queues> {
    let workers = config.workers.cores.len() as u16;
    if matches!(config.offload.engine, EngineChoice::None | EngineChoice::Template) {
        return vec![Queues::default(); devices.len()];
    }
    let end = |((port, device), at): ((&config::Port, &Device<'_>), u16)| {
        let (rx_max, tx_max) = device.queues_max().unwrap_or((0, 0));
        let room = usize::from(rx_max.min(tx_max)) >= usize::from(workers) + devices.len();
        let domain = device.switch_domain();
        let able = port.hairpin.unwrap_or(domain.is_none()) && room && device.has_hairpins();
        End {
            number: device.number(),
            domain,
            able,
            returns: devices.len() == 1 || has_both_sides(config, PortId(at)),
        }
    };
    let ends: Vec<End> = config.ports.iter().zip(devices).zip(0u16..).map(end).collect();
    join(&ends, workers)
}

/// The hairpin queues that ports would have as rules see them, if each device, of this number and behind this
/// eSwitch, can have any.
pub(crate) fn foreseen(config: &Config, devices: &[(u16, Option<u16>)]) -> Vec<Vec<Hairpin>> {
    let workers = config.workers.cores.len() as u16;
    if matches!(config.offload.engine, EngineChoice::None | EngineChoice::Template) {
        return vec![Vec::new(); devices.len()];
    }
    let attached = config.ports.iter().zip(devices).enumerate();
    let attached = attached.filter(|(_, (port, _))| port.device().is_some());
    let attached: Vec<_> = attached.collect();
    let end = |(at, (port, (number, domain))): &(usize, (&config::Port, &(u16, Option<u16>)))| End {
        number: *number,
        domain: *domain,
        able: port.hairpin.unwrap_or(domain.is_none()),
        returns: attached.len() == 1 || has_both_sides(config, PortId(*at as u16)),
    };
    let ends: Vec<End> = attached.iter().map(end).collect();
    join(&ends, workers).iter().map(|queues| queues.facts(workers)).collect()
}

/// Whether a backend is reached through this port's device, and clients may be, too.
fn has_both_sides(config: &Config, id: PortId) -> bool {
    let on_device = config.ports.iter().enumerate();
    // What is behind a tunnel is no way for hardware.
    let on_device = on_device.filter(|(_, port)| port.tunnel().is_none());
    let mut on_device = on_device.filter(|(at, port)| *at == id.index() || port.parent() == Some(id));
    on_device.any(|(_, port)| port.faces != Faces::Backends && leads_to_backend(config, port))
}

fn leads_to_backend(config: &Config, port: &config::Port) -> bool {
    let leads_to = |ip| {
        let routes = port.routes.iter().map(|route| &route.to);
        port.addresses.iter().chain(routes).any(|prefix| prefix.contains(ip))
    };
    let mut services = config.services.iter().filter(|service| service.tenant == port.tenant);
    services.any(|service| service.backends.iter().any(|backend| leads_to(backend.address)))
}

/// Pairs of queues for every way that needs one. `first`: the number of the first, on all ports.
fn join(ends: &[End], first: u16) -> Vec<Queues> {
    let leads = |from: usize, to: usize| {
        let (a, b) = (&ends[from], &ends[to]);
        let needed = if from == to { a.returns } else { a.domain.is_none() || a.domain != b.domain };
        needed && a.able && b.able
    };
    let others = |has: &dyn Fn(usize) -> bool| (0..ends.len()).filter(|at| has(*at)).collect::<Vec<_>>();
    let egresses: Vec<_> = (0..ends.len()).map(|from| others(&|to| leads(from, to))).collect();
    let ingresses: Vec<_> = (0..ends.len()).map(|to| others(&|from| leads(from, to))).collect();
    // The queue of `port` in a list of those ports' that are at its other ends.
    let queue = |mates: &[usize], port: usize| {
        first + mates.iter().position(|mate| *mate == port).unwrap_or_default() as u16
    };
    let peers = |own: usize, mates: &[usize], back: &[Vec<usize>]| {
        let peer = |mate: &usize| {
            let peer = HairpinPeer { port: ends[*mate].number, queue: queue(&back[*mate], own) };
            (PortId(*mate as u16), peer)
        };
        mates.iter().map(peer).collect()
    };
    (0..ends.len())
        .map(|at| Queues {
            rx: peers(at, &egresses[at], &ingresses),
            tx: peers(at, &ingresses[at], &egresses),
        })
        .collect()
}

impl Queues {
    /// Adds the queues to what is asked of the port.
    pub(crate) fn ask_for(&self, wanted: &mut PortConfig) {
        let peers = |queues: &[(PortId, HairpinPeer)]| queues.iter().map(|(_, peer)| *peer).collect();
        (wanted.hairpin_rx, wanted.hairpin_tx) = (peers(&self.rx), peers(&self.tx));
    }

    /// The queues as rules see them, behind so many ordinary ones.
    pub(crate) fn facts(&self, rx_queues: u16) -> Vec<Hairpin> {
        (rx_queues..).zip(&self.rx).map(|(queue, (egress, _))| Hairpin { egress: *egress, queue }).collect()
    }

    /// The ports that they lead to.
    pub(crate) fn egresses(&self) -> impl Iterator<Item = PortId> {
        self.rx.iter().map(|(egress, _)| *egress)
    }
}

/// Ties the queues of different ports together, which have started. All are used or none: software forwards
/// what hardware cannot. Under `templates`, none: no rule leads to them.
pub(crate) fn bind(ports: &mut [OpenPort<'_>], templates: bool) {
    if ports.iter().all(|open| open.hairpins == Queues::default()) {
        return;
    }
    if templates {
        tracing::info!("hairpin queues are not used: under hardware steering no rule leads to them");
        return forgo(ports);
    }
    let refused = |open: &OpenPort<'_>| open.port.granted().hairpins_refused.clone();
    let untied = |open: &OpenPort<'_>| {
        let own = open.port.number();
        let mut receivers = open.hairpins.tx.iter().map(|(_, peer)| peer.port).filter(|port| *port != own);
        receivers.find_map(|port| open.port.bind_hairpins(port).err()).map(|error| error.to_string())
    };
    match ports.iter().find_map(refused).or_else(|| ports.iter().find_map(untied)) {
        Some(why) => {
            tracing::warn!("hairpin queues are not used, software forwards instead: {why}");
            forgo(ports);
        }
        None => {
            for open in ports.iter().filter(|open| !open.hairpins.rx.is_empty()) {
                let to = open.hairpins.egresses().map(|egress| ports[egress.index()].name.as_str());
                let to: Vec<&str> = to.collect();
                tracing::info!(port = open.name, to = to.join(", "), "hairpin queues are set up");
            }
        }
    }
}

/// Leaves the queues unused.
fn forgo(ports: &mut [OpenPort<'_>]) {
    ports.iter_mut().for_each(|open| open.hairpins = Queues::default());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(number: u16, domain: Option<u16>) -> End {
        End { number, domain, able: true, returns: false }
    }

    fn to(port: u16, number: u16, queue: u16) -> (PortId, HairpinPeer) {
        (PortId(port), HairpinPeer { port: number, queue })
    }

    #[test]
    fn one_port_is_joined_to_itself() {
        let joined = join(&[End { returns: true, ..end(7, Some(0)) }], 2);
        assert_eq!(joined, [Queues { rx: vec![to(0, 7, 2)], tx: vec![to(0, 7, 2)] }]);
        let mut wanted = PortConfig { rx_queues: 2, tx_queues: 2, ..PortConfig::default() };
        joined[0].ask_for(&mut wanted);
        let peer = HairpinPeer { port: 7, queue: 2 };
        assert_eq!((wanted.hairpin_rx, wanted.hairpin_tx), (vec![peer], vec![peer]));
        assert_eq!(joined[0].facts(2), [Hairpin { egress: PortId(0), queue: 2 }]);
    }

    #[test]
    fn two_ports_are_joined_unless_an_eswitch_does_that() {
        let across = [
            Queues { rx: vec![to(1, 8, 4)], tx: vec![to(1, 8, 4)] },
            Queues { rx: vec![to(0, 7, 4)], tx: vec![to(0, 7, 4)] },
        ];
        assert_eq!(join(&[end(7, Some(0)), end(8, Some(1))], 4), across);
        assert_eq!(join(&[end(7, None), end(8, None)], 4), across);
        assert_eq!(join(&[end(7, Some(0)), end(8, Some(0))], 4), vec![Queues::default(); 2]);
        // Back out of one of them is not what the eSwitch does.
        let back = join(&[End { returns: true, ..end(7, Some(0)) }, end(8, Some(0))], 4);
        assert_eq!(back, [Queues { rx: vec![to(0, 7, 4)], tx: vec![to(0, 7, 4)] }, Queues::default()]);
    }

    #[test]
    fn devices_that_cannot_are_left_alone() {
        let unable = End { able: false, returns: true, ..end(8, None) };
        assert_eq!(join(&[unable], 1), [Queues::default()]);
        assert_eq!(join(&[end(7, None), unable], 1), vec![Queues::default(); 2]);
    }

    /// Both ends of every pair name one another, whatever the ports are.
    #[test]
    fn ends_of_pairs_find_each_other() {
        for able in 0..16_u16 {
            let ends: Vec<End> = (0..4)
                .map(|at| End {
                    able: able & 1 << at != 0,
                    returns: at % 2 == 0,
                    ..end(20 + at, (at < 2).then_some(5))
                })
                .collect();
            let joined = join(&ends, 3);
            for (at, queues) in joined.iter().enumerate() {
                for (queue, (egress, peer)) in (3..).zip(&queues.rx) {
                    let mate = &joined[egress.index()].tx[usize::from(peer.queue - 3)];
                    assert_eq!(peer.port, ends[egress.index()].number);
                    assert_eq!(*mate, to(at as u16, ends[at].number, queue));
                }
            }
            let all = |count: fn(&Queues) -> usize| joined.iter().map(count).sum::<usize>();
            assert_eq!(all(|queues| queues.rx.len()), all(|queues| queues.tx.len()));
        }
    }

    #[test]
    fn backends_behind_the_clients_port_are_seen() {
        let config = |faces: &str, backend: &str| {
            let text = format!(
                "[workers]\ncores = [0]\n\
                 [[port]]\nname = \"lan\"\ndevice = \"net_null0\"\naddresses = [\"10.0.0.5/24\"]\nfaces = {faces:?}\n\
                 [[port.route]]\nto = \"10.2.0.0/16\"\nvia = \"10.0.0.9\"\n\
                 [[port]]\nname = \"far\"\ndevice = \"net_null1\"\naddresses = [\"10.1.0.5/24\"]\n\
                 [[service]]\nname = \"web\"\nvip = \"192.0.2.1\"\nprotocol = \"tcp\"\nports = [80]\n\
                 [[service.backend]]\naddress = {backend:?}\n"
            );
            Config::parse("test", &text).unwrap()
        };
        for (faces, backend, both) in [
            ("both", "10.0.0.7", true),
            ("clients", "10.0.0.7", true),
            ("clients", "10.2.3.4", true),
            ("backends", "10.0.0.7", false),
            ("both", "10.1.0.7", false),
        ] {
            let config = config(faces, backend);
            assert_eq!(has_both_sides(&config, PortId(0)), both, "{faces} {backend}");
        }
    }
}
