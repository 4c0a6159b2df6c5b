//! From started ports to an engine that has rules carried out, and the unit that drives it.

use crate::clock::Clock;
use crate::offloading;
use crate::ports::OpenPort;
use crate::runtime::offload::Unit;
use crate::runtime::offload_rings::OffloadRings;
use dataplane::config::{self, Config};
use dataplane::ids::PortId;
use dataplane::snapshot::Snapshot;
use dpdk::Port;
use offload::admission::Policy;
use offload::engine::FlowEngine;
use offload::engine::open::{self, Engine, Prepared};
use offload::lower::{self, PortFacts, Topology};
use offload::machine::{Machine, Settings};
use std::sync::Arc;

/// How long an operation of the engine may take.
const OPERATION_TIMEOUT_MS: u32 = 3000;

/// What has to be asked of ports, and set aside on them, before they start.
pub(crate) fn prepare(config: &Config, ports: &mut [OpenPort<'_>]) -> Prepared {
    let mut devices: Vec<&mut Port<'_>> = ports.iter_mut().map(|open| &mut open.port).collect();
    open::prepare(config.offload.engine, config.offload.rules_max, &mut devices)
}

/// The unit that drives the engine the ports have, and what the manager sees of it; or why there is none.
pub(crate) fn start<'a>(
    config: &Config,
    prepared: &Prepared,
    ports: &'a [OpenPort<'a>],
    snapshot: &Arc<Snapshot>,
    clock: Clock,
    main_core: usize,
) -> Result<(Unit<Engine<'a>>, offloading::Engine), String> {
    let wanted = &config.offload;
    let topology = Arc::new(topology(config, ports, snapshot));
    let base = lower::base_rules(&topology);
    let devices: Vec<&Port<'_>> = ports.iter().map(|open| &open.port).collect();
    let engine = open::open(prepared, &devices, base);
    let engine = engine.map_err(|none| none.to_string())?;
    let (traits, settings) = (engine.traits(), settings(wanted));
    let now_ns = clock.nanoseconds(dpdk::clock::rdtsc());
    let machine = Machine::new(now_ns, &settings, traits, Arc::clone(&topology), Arc::clone(snapshot));
    let rings = Arc::new(OffloadRings::new(config.workers.cores.len()));
    let core = wanted.core.map_or(main_core, usize::from);
    let unit = Unit::new(engine, machine, clock, core, rings, snapshot.generation);
    let seen = offloading::Engine {
        shared: Arc::clone(unit.shared()),
        topology,
        age_s: traits.ages.then_some(wanted.idle_s),
        settle_ms: traits.settle_ms,
    };
    Ok((unit, seen))
}

/// What the machine is told of `[offload]`.
pub(crate) fn settings(wanted: &config::Offload) -> Settings {
    Settings {
        rules_max: wanted.rules_max,
        deny_rules: wanted.deny_rules,
        insertions_per_second: wanted.insertions_per_second,
        price_min: wanted.price_min,
        idle_ms: wanted.idle_s.saturating_mul(1000),
        tenant_share_percent: wanted.tenant_share_percent,
        poll_ms: wanted.poll_ms,
        operation_timeout_ms: OPERATION_TIMEOUT_MS,
        policy: Policy::Earned,
    }
}

/// The ports as rules see them. Those on one device differ in their tags, or in the tunnels that they are
/// behind.
fn topology(config: &Config, ports: &[OpenPort<'_>], snapshot: &Snapshot) -> Topology {
    let facts = config.ports.iter().zip(&snapshot.ports).enumerate().map(|(index, (configured, port))| {
        let open = &ports[port.parent.map_or(index, PortId::index)];
        let number = open.port.number();
        PortFacts {
            ethdev: number,
            proxy: open.port.transfer_proxy().unwrap_or(number),
            domain: open.port.switch_domain(),
            mac: port.mac,
            any_mac: configured.pass_to.is_some(),
            mtu: port.mtu,
            vlan: port.vlan,
            tunnel: lower::ports::tunnel_of(snapshot, PortId(index as u16)),
            hairpins: match port.tunnel {
                None => open.hairpins.facts(open.rx_queues),
                Some(_) => Vec::new(),
            },
        }
    });
    Topology { ports: facts.collect() }
}
