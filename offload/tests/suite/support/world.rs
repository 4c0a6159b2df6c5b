//! Workers, as far as the machine sees them, a small network, and what must always hold between them, the
//! machine and the device.

use super::device::{Device, Random, State};
use dataplane::addr::{Ip, MacAddr, Prefix};
use dataplane::conntrack::Count;
use dataplane::flow::{Direction, FlowKey, Protocol};
use dataplane::ids::{BackendId, PortId, ServiceId, TenantId, WorkerId};
use dataplane::offload::{Answer, Ask, FlowRef, Leg, OffloadState, Removal, Revocation, Revoke, Token};
use dataplane::snapshot::{
    Affinity, Backend, BackendState, Mode, OnRemove, Parts, Port, Service, Snapshot, Tenant, Timeouts,
    VlanTags, link_local,
};
use offload::engine::LegId;
use offload::lower::{PortFacts, Topology};
use offload::machine::{Machine, Outbox, Settings};
use std::collections::HashMap;
use std::sync::Arc;

pub(crate) const MS: u64 = 1_000_000;
pub(crate) const SECOND: u64 = 1000 * MS;
pub(crate) const BACKENDS: u16 = 4;
const FRONT: PortId = PortId(0);
const BACK: PortId = PortId(1);
const NEXT: MacAddr = MacAddr([2, 0, 0, 0, 9, 9]);

fn mac(port: u16) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, port as u8])
}

/// Two ports of one eSwitch, and one on each for the second tenant.
pub(crate) fn topology() -> Arc<Topology> {
    let port = |ethdev: u16, vlan: Option<u16>| PortFacts {
        ethdev,
        proxy: 0,
        domain: Some(0),
        mac: mac(ethdev),
        any_mac: false,
        mtu: 1500,
        vlan: VlanTags { outer: None, inner: vlan },
        tunnel: None,
        hairpins: Vec::new(),
    };
    Arc::new(Topology { ports: vec![port(0, None), port(1, None), port(0, Some(10)), port(1, Some(10))] })
}

/// One `nat` service with [`BACKENDS`] backends, of which those in `draining` drain.
pub(crate) fn snapshot(draining: &[u16]) -> Arc<Snapshot> {
    Arc::new(Snapshot::assemble(parts(0, draining)).expect("a snapshot"))
}

/// The same for two tenants with the same addresses, each with such a share of the rules.
pub(crate) fn two_tenants(shares: [Option<u8>; 2]) -> Arc<Snapshot> {
    let (mut first, second) = (parts(0, &[]), parts(1, &[]));
    first.ports.extend(second.ports);
    first.services.extend(second.services);
    first.backends.extend(second.backends);
    let tenant = |share| Tenant { offload_share_percent: share, ..Tenant::default() };
    first.tenants = shares.map(tenant).into();
    Arc::new(Snapshot::assemble(first).expect("a snapshot"))
}

/// Makes a request one of the second tenant's.
pub(crate) fn of_second(ask: &mut Ask) {
    (ask.key.tenant, ask.service) = (TenantId(1), ServiceId(1));
    ask.backend.0 += BACKENDS;
    for leg in ask.legs.iter_mut().flatten() {
        (leg.ingress.0, leg.egress.0) = (leg.ingress.0 + 2, leg.egress.0 + 2);
    }
}

/// A tenant's part of a snapshot.
fn parts(tenant: u16, draining: &[u16]) -> Parts {
    let port = |id: u16, address: u32, length: u8| Port {
        name: format!("p{id}"),
        mac: mac(id),
        mtu: 1500,
        addresses: vec![Prefix { address: Ip::v4(address), length }],
        link_local: link_local(mac(id)),
        vlan: VlanTags { outer: None, inner: (tenant > 0).then_some(10) },
        tenant: TenantId(tenant),
        pass_to: None,
        opens: dataplane::policy::Way::Ingress,
        parent: (tenant > 0).then_some(PortId(id)),
        tunnel: None,
    };
    let service = Service {
        id: ServiceId(tenant),
        name: format!("web{tenant}"),
        tenant: TenantId(tenant),
        vip: Ip::v4(0xc000_0250),
        protocol: Protocol::Tcp,
        ports: vec![80..=80],
        mode: Mode::Nat,
        affinity: Affinity::Connection,
        strict: false,
        on_remove: OnRemove::Drain,
        removed: false,
        offload: true,
        health: None,
        timeouts: Timeouts::default(),
        lookup: Arc::new([]),
    };
    let backend = |id: u16| Backend {
        id: BackendId(tenant * BACKENDS + id),
        service: ServiceId(tenant),
        address: backend_ip(id),
        port: Some(8080),
        weight: 1,
        share_percent: 100,
        state: if draining.contains(&id) { BackendState::Draining } else { BackendState::Active },
        hop: None,
    };
    Parts {
        ports: vec![port(0, 0x0a00_0001, 8), port(1, 0xc0a8_0101, 24)],
        services: vec![Some(service)],
        backends: (0..BACKENDS).map(|id| Some(backend(id))).collect(),
        ..Parts::default()
    }
}

fn backend_ip(id: u16) -> Ip {
    Ip::v4(0xc0a8_0110 + u32::from(id))
}

/// A request of connection number `client` for its `generation`th time.
pub(crate) fn ask(client: u32, generation: u32, token: u32) -> Ask {
    let backend = (client % u32::from(BACKENDS)) as u16;
    Ask {
        flow: FlowRef { worker: WorkerId((client % 2) as u16), slot: client, generation },
        token: Token(token),
        key: FlowKey {
            src: Ip::v4(0x0a01_0000 + client),
            dst: Ip::v4(0xc000_0250),
            src_port: 40_000,
            dst_port: 80,
            tenant: TenantId(0),
            protocol: Protocol::Tcp,
        },
        backend_end: (backend_ip(backend), 8080),
        nat: true,
        tunnel: None,
        service: ServiceId(0),
        backend: BackendId(backend),
        legs: [
            Some(Leg { ingress: FRONT, egress: BACK, next_hop: NEXT }),
            Some(Leg { ingress: BACK, egress: FRONT, next_hop: NEXT }),
        ],
        packets: 100,
        age_ms: 100,
    }
}

/// What the workers know.
#[derive(Debug, Default)]
pub(crate) struct Workers {
    /// By client: the connection's generation and state.
    pub(crate) flows: HashMap<u32, (u32, OffloadState)>,
    /// By token: requests not answered yet.
    pub(crate) asked: HashMap<u32, FlowRef>,
    /// Rules that were removed, and whose last count has not come yet.
    pub(crate) last_due: HashMap<FlowRef, u32>,
    pub(crate) backends: [Count; 2 * BACKENDS as usize],
    /// Answers, by kind: installed, declined, counted, removed.
    pub(crate) answers: [u32; 4],
    pub(crate) removals: HashMap<Removal, u32>,
    /// After how many milliseconds each of them may be asked for again.
    pub(crate) retries: Vec<u32>,
    /// Rules of connections that are gone, to be revoked.
    orphans: Vec<Revoke>,
    /// The last refusal.
    pub(crate) declined: Option<Answer>,
    /// Of 1000 answers, so many find the ring full.
    pub(crate) full_permille: u32,
    pub(crate) random: Option<Random>,
}

impl Workers {
    pub(crate) fn state(&self, client: u32) -> OffloadState {
        self.flows.get(&client).map_or(OffloadState::Software, |flow| flow.1)
    }

    fn set(&mut self, flow: FlowRef, state: OffloadState) {
        if let Some(known) = self.flows.get_mut(&flow.slot).filter(|known| known.0 == flow.generation) {
            known.1 = state;
        }
    }

    fn knows(&self, flow: FlowRef) -> Option<OffloadState> {
        self.flows.get(&flow.slot).filter(|known| known.0 == flow.generation).map(|known| known.1)
    }

    fn take(&mut self, answer: Answer) {
        if let Answer::Installed { flow, rule, .. } | Answer::Counted { flow, rule: Some(rule), .. } = answer
        {
            if self.knows(flow).is_none() {
                self.orphans.push(Revoke { flow, rule, why: Revocation::Orphan });
            }
        }
        match answer {
            Answer::Installed { flow, token, rule } => {
                assert_eq!(self.asked.remove(&token.0), Some(flow), "nobody asked: {answer:?}");
                self.answers[0] += 1;
                self.set(flow, OffloadState::Installed(rule));
            }
            Answer::Declined { flow, token, reason, .. } => {
                assert_eq!(self.asked.remove(&token.0), Some(flow), "nobody asked: {answer:?}");
                self.answers[1] += 1;
                self.declined = Some(answer);
                self.set(flow, OffloadState::Declined(reason));
            }
            Answer::Counted { flow, rule, backend, counts, next_hops, .. } => {
                self.answers[2] += 1;
                assert!(next_hops.iter().flatten().all(|mac| *mac == NEXT) && next_hops[0].is_some());
                for count in counts {
                    self.backends[backend.index()].packets += count.packets;
                    self.backends[backend.index()].bytes += count.bytes;
                }
                match rule {
                    None => {
                        let due = self.last_due.entry(flow).or_default();
                        *due = due.saturating_sub(1);
                    }
                    Some(rule) => {
                        let known = self.knows(flow);
                        let there = [OffloadState::Installed(rule), OffloadState::Removing(rule)];
                        assert!(known.is_none_or(|state| there.contains(&state)), "{answer:?} {known:?}");
                    }
                }
            }
            Answer::Removed { flow, rule, why, retry_ms } => {
                self.answers[3] += 1;
                self.retries.push(retry_ms);
                *self.removals.entry(why).or_default() += 1;
                *self.last_due.entry(flow).or_default() += 1;
                let known = self.knows(flow);
                let there = [OffloadState::Installed(rule), OffloadState::Removing(rule)];
                assert!(known.is_none_or(|state| there.contains(&state)), "{answer:?} {known:?}");
                self.set(flow, OffloadState::Software);
            }
        }
    }
}

impl Outbox for Workers {
    fn answer(&mut self, answer: Answer) -> Result<(), Answer> {
        let permille = self.full_permille;
        if self.random.as_mut().is_some_and(|random| random.permille(permille)) {
            return Err(answer);
        }
        self.take(answer);
        Ok(())
    }
}

/// All of it.
pub(crate) struct World {
    pub(crate) now_ns: u64,
    pub(crate) machine: Machine,
    pub(crate) device: Device,
    pub(crate) workers: Workers,
    pub(crate) token: u32,
    /// Packets and bytes of IP that hit rules.
    pub(crate) hit: Count,
    /// How often hardware refreshes its counters.
    pub(crate) refresh_ns: u64,
    refreshed_ns: u64,
}

impl World {
    pub(crate) fn new(settings: &Settings, device: Device) -> World {
        let now_ns = 5 * SECOND;
        let mut workers = Workers { random: Some(Random(device.random.0 ^ 77)), ..Workers::default() };
        workers.full_permille = 0;
        World {
            now_ns,
            machine: Machine::new(now_ns, settings, device.traits, topology(), snapshot(&[])),
            device,
            workers,
            token: 0,
            hit: Count::default(),
            refresh_ns: 20 * MS,
            refreshed_ns: now_ns,
        }
    }

    /// Asks for a client's connection, unless it is asked for or in hardware already.
    pub(crate) fn ask(&mut self, client: u32, edit: impl Fn(&mut Ask)) -> bool {
        let (generation, state) = *self.workers.flows.entry(client).or_insert((1, OffloadState::Software));
        if !matches!(state, OffloadState::Software | OffloadState::Declined(_)) || self.machine.room() == 0 {
            return false;
        }
        self.token += 1;
        let mut ask = ask(client, generation, self.token);
        edit(&mut ask);
        self.workers.asked.insert(self.token, ask.flow);
        self.workers.set(ask.flow, OffloadState::Requested(ask.token));
        self.machine.ask(self.now_ns, &ask);
        true
    }

    /// Wants a connection back, if it is in hardware.
    pub(crate) fn revoke(&mut self, client: u32, why: Revocation) -> bool {
        let Some(&(generation, OffloadState::Installed(rule))) = self.workers.flows.get(&client) else {
            return false;
        };
        let flow = ask(client, generation, 0).flow;
        self.workers.set(flow, OffloadState::Removing(rule));
        self.machine.revoke(self.now_ns, &Revoke { flow, rule, why });
        true
    }

    /// The client's connection is replaced by a new one of the same addresses and ports.
    pub(crate) fn replace(&mut self, client: u32) {
        self.revoke(client, Revocation::Gone);
        let (generation, _) = *self.workers.flows.entry(client).or_insert((1, OffloadState::Software));
        self.workers.flows.insert(client, (generation + 1, OffloadState::Software));
    }

    /// Packets of a client's connection; those that hit no rule go to software.
    pub(crate) fn traffic(&mut self, client: u32, direction: Direction, packets: u64) -> bool {
        let items =
            offload::lower::leg(&topology(), &ask(client, 0, 0), direction, None).map(|rule| rule.items);
        let items = items.expect("a rule");
        let leg =
            self.device.legs.iter().find(|(_, held)| held.state != State::Out && held.rule.items == items);
        let Some(leg) = leg.map(|(&leg, _)| leg) else { return false };
        let hit = self.device.hit(leg, packets);
        if hit {
            self.hit.packets += packets;
            self.hit.bytes += packets * 100;
        }
        hit
    }

    pub(crate) fn step(&mut self) {
        self.device.now_ns = self.now_ns;
        // Hardware is no later with its counters than it says.
        if self.now_ns - self.refreshed_ns >= self.refresh_ns {
            self.refreshed_ns = self.now_ns;
            self.device.refresh(true);
        }
        self.machine.step(self.now_ns, &mut self.device, &mut self.workers);
        for revoke in self.workers.orphans.drain(..) {
            self.machine.revoke(self.now_ns, &revoke);
        }
    }

    /// Steps every `step_ns` for so long.
    pub(crate) fn run(&mut self, ns: u64, step_ns: u64) {
        let end = self.now_ns + ns;
        while self.now_ns < end {
            self.now_ns += step_ns;
            self.step();
        }
    }

    /// What must hold after every step.
    pub(crate) fn check(&self) {
        let (rows, more) = self.machine.rows(0, usize::MAX);
        assert_eq!(more, None);
        let known: HashMap<LegId, &str> = rows
            .iter()
            .flat_map(|row| {
                let leg = |direction: Direction| {
                    let state = row.legs[direction as usize]?.state;
                    Some((LegId { rule: row.rule, direction }, state))
                };
                [leg(Direction::Original), leg(Direction::Reply)].into_iter().flatten()
            })
            .collect();
        for (leg, held) in &self.device.legs {
            let state = known.get(leg).copied();
            let fits = match held.state {
                State::Installing => state == Some("installing"),
                State::In => matches!(state, Some("installing" | "installed" | "leaving")),
                State::Removing => state == Some("removing"),
                State::Out => matches!(state, Some("removing" | "out")),
            };
            assert!(fits, "{leg:?} is {:?} there and {state:?} here", held.state);
        }
        assert!(self.device.rules() <= self.device.traits.rules_max as usize);
        let used = known.values().filter(|state| !matches!(**state, "out" | "none" | "software")).count();
        assert!(used as u64 <= self.machine.counters().capacity.get());
    }

    /// Nothing goes wrong any more and nothing new comes: everything must come to rest.
    pub(crate) fn settle(&mut self) {
        self.device.faults = Default::default();
        self.workers.full_permille = 0;
        for _ in 0..200 {
            self.run(SECOND, 20 * MS);
            if self.at_rest() {
                break;
            }
        }
        assert!(self.workers.asked.is_empty(), "not answered: {:?}", self.workers.asked);
        self.check();
        let installed = self.installed();
        assert_eq!(self.device.rules(), 2 * installed, "rules and connections that are installed");
        assert_eq!(self.machine.counters().pairs.get(), installed as u64);
        assert_eq!(self.machine.counters().rules.get(), 2 * installed as u64);
        assert!(!self.machine.enforcing());
    }

    pub(crate) fn installed(&self) -> usize {
        self.workers.flows.values().filter(|flow| matches!(flow.1, OffloadState::Installed(_))).count()
    }

    fn at_rest(&self) -> bool {
        let counters = self.machine.counters();
        let queues = [&counters.waiting, &counters.in_flight, &counters.leaving, &counters.owing];
        queues.iter().all(|queue| queue.get() == 0)
            && counters.settling.get() == 0
            && counters.state.get() == 0
            && self.workers.asked.is_empty()
    }
}
