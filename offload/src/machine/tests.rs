//! What only the inside shows: no queue ever grows beyond what it was made with. All else is tried from the
//! outside, in `tests/machine.rs`.

use super::*;
use crate::engine::{EngineError, Kind};
use crate::lower::PortFacts;
use crate::rule::Rule;
use dataplane::addr::{Ip, MacAddr, Prefix};
use dataplane::conntrack::Count;
use dataplane::flow::Protocol;
use dataplane::ids::{BackendId, PortId, ServiceId, TenantId, WorkerId};
use dataplane::offload::{FlowRef, Leg, RuleId, Token};
use dataplane::snapshot::{
    Affinity, Backend, BackendState, Mode, OnRemove, Parts, Port, Service, Timeouts, VlanTags, link_local,
};

const TRAITS: Traits = Traits {
    kind: Kind::Simulated,
    rules_max: 64,
    operations_max: 16,
    settle_ms: 5,
    ages: false,
    meters: None,
};

/// Does as it is told, one push later.
#[derive(Default)]
struct Obedient(Vec<Completion>);

impl FlowEngine for Obedient {
    fn traits(&self) -> Traits {
        TRAITS
    }
    fn install(&mut self, leg: LegId, _: &Rule) -> Result<(), EngineError> {
        self.0.push(Completion::Installed(leg));
        Ok(())
    }
    fn remove(&mut self, leg: LegId) -> Result<(), EngineError> {
        self.0.push(Completion::Removed(leg));
        Ok(())
    }
    fn push(&mut self) {}
    fn pull(&mut self, completions: &mut Vec<Completion>) {
        completions.append(&mut self.0);
    }
    fn count(&mut self, _: LegId) -> Result<Count, EngineError> {
        Ok(Count::default())
    }
    fn release(&mut self, _: LegId) {}
    fn aged(&mut self, _: &mut Vec<LegId>) {}
    fn flush(&mut self) -> Result<(), EngineError> {
        Ok(())
    }
}

/// Takes an answer only every third time.
#[derive(Default)]
struct Slow {
    offers: u32,
    installed: Vec<(FlowRef, RuleId)>,
}

impl Outbox for Slow {
    fn answer(&mut self, answer: Answer) -> Result<(), Answer> {
        self.offers += 1;
        if self.offers % 3 != 0 {
            return Err(answer);
        }
        if let Answer::Installed { flow, rule, .. } = answer {
            self.installed.push((flow, rule));
        }
        Ok(())
    }
}

fn snapshot() -> Arc<Snapshot> {
    let service = Service {
        id: ServiceId(0),
        name: "s".into(),
        tenant: TenantId(0),
        vip: Ip::v4(1),
        protocol: Protocol::Udp,
        ports: vec![53..=53],
        mode: Mode::Dsr,
        affinity: Affinity::Connection,
        strict: false,
        on_remove: OnRemove::Drain,
        removed: false,
        offload: true,
        health: None,
        timeouts: Timeouts::default(),
        lookup: Arc::new([]),
    };
    let backend = Backend {
        id: BackendId(0),
        service: ServiceId(0),
        address: Ip::v4(2),
        port: None,
        weight: 1,
        share_percent: 100,
        state: BackendState::Active,
        hop: None,
    };
    let ports = [0, 1].map(|id| Port {
        name: format!("p{id}"),
        mac: MacAddr([2; 6]),
        mtu: 1500,
        // Everybody is on the second one's link.
        addresses: vec![Prefix { address: Ip::v4(9), length: if id == 0 { 32 } else { 0 } }],
        link_local: link_local(MacAddr([2; 6])),
        vlan: VlanTags::default(),
        tenant: TenantId(0),
        pass_to: None,
        opens: dataplane::policy::Way::Ingress,
        parent: None,
        tunnel: None,
    });
    let (services, backends) = (vec![Some(service)], vec![Some(backend)]);
    let parts = Parts { ports: ports.into(), services, backends, ..Parts::default() };
    Arc::new(Snapshot::assemble(parts).expect("a snapshot"))
}

fn request(number: u32) -> Ask {
    let (egress, next_hop) = (PortId(1), MacAddr([2; 6]));
    Ask {
        flow: FlowRef { worker: WorkerId(0), slot: number, generation: 0 },
        token: Token(number),
        key: FlowKey {
            src: Ip::v4(number),
            dst: Ip::v4(1),
            src_port: 1,
            dst_port: 53,
            tenant: TenantId(0),
            protocol: Protocol::Udp,
        },
        backend_end: (Ip::v4(2), 53),
        nat: false,
        tunnel: None,
        service: ServiceId(0),
        backend: BackendId(0),
        legs: [None, Some(Leg { ingress: PortId(0), egress, next_hop })],
        packets: 100,
        age_ms: 1,
    }
}

fn topology() -> Arc<Topology> {
    let port = |ethdev| PortFacts {
        ethdev,
        proxy: 0,
        domain: Some(0),
        mac: MacAddr([2; 6]),
        any_mac: false,
        mtu: 1500,
        vlan: VlanTags::default(),
        tunnel: None,
        hairpins: Vec::new(),
    };
    Arc::new(Topology { ports: vec![port(0), port(1)] })
}

fn capacities(machine: &Machine) -> Vec<usize> {
    let queues = [&machine.opening, &machine.denied, &machine.leaving, &machine.owing, &machine.settling];
    let mut capacities: Vec<usize> = queues.iter().map(|queue| queue.capacity()).collect();
    capacities.extend([
        machine.waiting.capacity(),
        machine.refused.capacity(),
        machine.by_key.capacity(),
        machine.completions.capacity(),
        machine.timings.capacity(),
        machine.aged.capacity(),
    ]);
    capacities
}

/// The map may show a smaller capacity while removed keys still hold places in it, never a larger one.
#[test]
fn nothing_grows() {
    let mut machine = Machine::new(0, &Settings::default(), TRAITS, topology(), snapshot());
    let before = capacities(&machine);
    let (mut engine, mut outbox, mut number) = (Obedient::default(), Slow::default(), 0);
    for step in 1..20_000u64 {
        while machine.room() > 0 && number < 3 * step as u32 {
            number += 1;
            machine.ask(step * MS, &request(number));
        }
        if step % 7 == 0 {
            for (flow, rule) in outbox.installed.drain(..) {
                machine.revoke(step * MS, &Revoke { flow, rule, why: Revocation::Closing });
            }
        }
        if step % 5000 == 0 {
            machine.begin_recovery(dataplane::offload::Declined::Failed);
        }
        machine.step(step * MS, &mut engine, &mut outbox);
        let grown = capacities(&machine).iter().zip(&before).any(|(now, before)| now > before);
        assert!(!grown, "step {step}");
    }
    assert!(machine.counters().requests[0].get() > 1000);
    assert!(machine.counters().recoveries.get() > 2);
}
