//! What a configuration allows of a connection in hardware.
//!
//! Workers judge connections, too, and want those back that are denied; but each has a share of them, other
//! work, and bounds. Here a new configuration is put to every pair at once.

use super::Machine;
use super::fence::group_of;
use super::pair::{DIRECTIONS, Phase};
use super::rounds::Sweep;
use crate::lower;
use dataplane::flow::Direction;
use dataplane::offload::{Ask, Leg, Removal, Revocation};
use dataplane::policy::{Action, Standing, Subject};
use dataplane::rewrite;
use dataplane::snapshot::{Mode, Snapshot};
use std::sync::Arc;

/// Pairs judged in one step: as many as policy lookups take about 300 us for,
const JUDGED_PER_STEP: u32 = 2048;
/// and slots looked at, most of which may be free.
const SLOTS_PER_STEP: u32 = 16_384;

impl Machine {
    /// Takes a new configuration, and begins to take out what it does not allow. Returns the old one, to be
    /// freed where there is time for it.
    pub fn adopt(&mut self, now_ns: u64, snapshot: Arc<Snapshot>) -> Arc<Snapshot> {
        let now_ns = self.clock.at(now_ns);
        self.adopted_ns = now_ns;
        self.partitions.replan();
        let before = std::mem::replace(&mut self.snapshot, snapshot);
        self.meters.rehome(&self.snapshot);
        self.prove_denials(now_ns, &before);
        let changed = before.policy().generation() != self.snapshot.policy().generation();
        // A sweep that is under way goes on from where it is: however often configurations come, each pair
        // has its turn.
        let (cursor, judges) = self.sweep.as_ref().map_or((0, false), |sweep| (sweep.cursor, sweep.judges));
        self.sweep = Some(Sweep { cursor, left: self.slab.slots(), judges: judges || changed });
        before
    }

    /// Goes on with the sweep that a new configuration began.
    pub(super) fn sweep_some(&mut self, now_ns: u64) {
        let Some(mut sweep) = self.sweep.take() else { return };
        let slots = self.slab.slots();
        let (mut looked, mut judged) = (0, 0);
        while looked < sweep.left.min(SLOTS_PER_STEP) && judged < JUDGED_PER_STEP {
            judged += u32::from(self.enforce_on(now_ns, sweep.cursor, sweep.judges));
            sweep.cursor = (sweep.cursor + 1) % slots;
            looked += 1;
        }
        sweep.left -= looked;
        self.sweep = (sweep.left > 0).then_some(sweep);
    }

    /// Takes a pair out if the present configuration does not allow it; `false`: there is none.
    fn enforce_on(&mut self, now_ns: u64, index: u32, judges: bool) -> bool {
        let Some(pair) = self.slab.get(index) else { return false };
        if matches!(pair.phase, Phase::Settling { .. }) {
            return false;
        }
        let (ask, meter) = (pair.ask, pair.meter);
        let denied = judges && self.denies(&ask);
        let refused = denied || self.is_metered_wrongly(&ask, meter);
        let why = if refused { Some(Revocation::Policy) } else { self.snapshot_objects(&ask) };
        if let Some(why) = why {
            self.enforce(now_ns, index, denied);
            self.close(now_ns, index, Removal::Revoked(why), 0);
        }
        true
    }

    /// Notes that the configuration does not allow this pair, once; `denied`: by its policy.
    pub(super) fn enforce(&mut self, now_ns: u64, index: u32, denied: bool) {
        let Some(pair) = self.slab.get_mut(index) else { return };
        let may_be_in = !matches!(pair.phase, Phase::Free | Phase::Settling { .. });
        if !may_be_in {
            return;
        }
        if !pair.enforced {
            pair.enforced = true;
            self.enforcing += 1;
        }
        if denied && !pair.denied {
            pair.denied = true;
            if pair.queued {
                // It waits for a lesser reason, and goes first now. Who comes to it there will find it gone.
                self.denied.push_back(index);
            }
            self.fence.note_denied(now_ns, group_of(&self.topology, &pair.ask));
        }
    }

    /// Whether the present policy refuses a connection.
    pub(super) fn denies(&self, ask: &Ask) -> bool {
        let policy = self.snapshot.policy();
        let subject = || Subject::connection(&ask.key, Standing::Established);
        policy.concerns(ask.key.tenant) && policy.judge(&subject()).action != Action::Allow
    }

    /// Why the present configuration does not allow this connection in hardware, its policy apart; `None` if
    /// it does.
    pub(super) fn snapshot_objects(&self, ask: &Ask) -> Option<Revocation> {
        let known = lower::ports::are_known(&self.topology, &self.snapshot, ask);
        if known { objection(&self.snapshot, ask) } else { Some(Revocation::Policy) }
    }
}

/// Whether software would put the same around its packets.
fn keeps_tunnel(snapshot: &Snapshot, ask: &Ask) -> bool {
    let by_port = |direction: Direction| {
        let port = ask.legs[direction as usize]?.egress;
        snapshot.is_behind_tunnel(port).then_some((direction, port))
    };
    let (outer, entropy) = match DIRECTIONS.into_iter().find_map(by_port) {
        Some((direction, port)) => (snapshot.into_tunnel(port).map(|way| &way.outer), ask.entropy(direction)),
        None => (snapshot.tunnel(ask.backend), rewrite::entropy(&ask.key)),
    };
    match (&ask.tunnel, outer) {
        (None, None) => true,
        (Some(around), Some(outer)) => {
            let fresh = outer.around(around.class().0, entropy);
            let fresh = fresh.map(|fresh| around.below().map_or(fresh, |below| fresh.sent_to(below)));
            fresh.as_ref() == Some(around)
        }
        _ => false,
    }
}

fn objection(snapshot: &Snapshot, ask: &Ask) -> Option<Revocation> {
    let (Some(service), Some(backend)) = (snapshot.service(ask.service), snapshot.backend(ask.backend))
    else {
        return Some(Revocation::Policy);
    };
    // Whom a tunnel leads to is in its headers; an entry may have no room for an address of that family.
    let same = backend.service == ask.service
        && (ask.tunnel.is_some() && !ask.nat || backend.address == ask.backend_end.0)
        && service.tenant == ask.key.tenant
        && (service.mode == Mode::Nat) == ask.nat
        && keeps_tunnel(snapshot, ask);
    // What comes in by a port of another tenant's is looked up among that one's services.
    let whose = |port| snapshot.port(port).map(|port| port.tenant);
    let same = same && ask.legs.iter().flatten().all(|leg| whose(leg.ingress) == Some(ask.key.tenant));
    if !same || !snapshot.allows_offload(ask.service, ask.backend) {
        return Some(Revocation::Policy);
    }
    let to_backend = backend.hop.map(|hop| hop.port);
    let to_client = snapshot.route(ask.key.tenant, ask.key.src).map(|hop| hop.port);
    let stays = |leg: Option<Leg>, port| leg.is_none_or(|leg| Some(leg.egress) == port);
    let ways = stays(ask.legs[0], to_backend) && stays(ask.legs[1], to_client);
    (!ways).then_some(Revocation::Moved)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataplane::addr::{Ip, MacAddr};
    use dataplane::config::Config;
    use dataplane::flow::{FlowKey, Protocol};
    use dataplane::ids::{BackendId, PortId, ServiceId, TenantId, WorkerId};
    use dataplane::offload::{FlowRef, Token};
    use dataplane::snapshot::{Overrides, PortFacts};

    /// One service, whose backend is behind a tunnel over IPv6.
    fn snapshot(mode: &str) -> Snapshot {
        snapshot_of(&text(mode))
    }

    fn snapshot_of(text: &str) -> Snapshot {
        let config = Config::parse("test.toml", text).unwrap_or_else(|faults| panic!("{faults}"));
        let facts = [1, 2].map(|last| PortFacts { mac: MacAddr([2, 0, 0, 0, 0, last]), mtu: 1500 });
        Snapshot::build(&config, &facts, &Overrides::default(), None, &|_| 0).expect("it builds")
    }

    fn text(mode: &str) -> String {
        format!(
            r#"
            [[port]]
            name = "front"
            device = "net_null0"
            addresses = ["10.0.0.1/24"]
            gateway = "10.0.0.254"
            [[port]]
            name = "back"
            device = "net_null1"
            addresses = ["fd00:2::1/64"]
            [[service]]
            name = "service"
            vip = "192.0.2.80"
            protocol = "tcp"
            ports = [80]
            {mode}
            [[service.backend]]
            address = "fd00:2::11"
            "#
        )
    }

    const GUE: &str = "mode = \"gue\"\ntunnel = { udp6_checksum = false }";

    /// A connection in the direction of its backend.
    fn ask(now: &Snapshot) -> Ask {
        let key = FlowKey {
            src: Ip::v4(0xc633_6407),
            dst: Ip::v4(0xc000_0250),
            src_port: 40_000,
            dst_port: 80,
            tenant: TenantId(0),
            protocol: Protocol::Tcp,
        };
        let outer = now.tunnel(BackendId(0)).expect("it has a tunnel");
        let there = Leg { ingress: PortId(0), egress: PortId(1), next_hop: MacAddr::default() };
        Ask {
            flow: FlowRef { worker: WorkerId(0), slot: 1, generation: 1 },
            token: Token(1),
            key,
            // No room for the backend's.
            backend_end: (key.dst, 80),
            nat: false,
            tunnel: outer.around(0x28, rewrite::entropy(&key)),
            service: ServiceId(0),
            backend: BackendId(0),
            legs: [Some(there), None],
            packets: 10,
            age_ms: 100,
        }
    }

    #[test]
    fn a_port_that_is_anothers_now_takes_its_connections_out() {
        let ask = ask(&snapshot(GUE));
        let given = text(GUE).replacen("name = \"front\"", "name = \"front\"\ntenant = \"other\"", 1);
        let now = snapshot_of(&format!("{given}\n[[tenant]]\nname = \"other\""));
        assert_eq!(objection(&now, &ask), Some(Revocation::Policy));
    }

    #[test]
    fn a_tunnel_that_has_changed_is_not_the_connections() {
        let now = snapshot(GUE);
        let ask = ask(&now);
        assert!(ask.tunnel.is_some());
        assert_eq!(objection(&now, &ask), None);
        let untunnelled = Ask { tunnel: None, ..ask };
        assert_eq!(objection(&now, &untunnelled), Some(Revocation::Policy));
        for other in [GUE.replace("false", "false, port = 6081"), GUE.replace("false", "false, dscp = 46")] {
            assert_eq!(objection(&snapshot(&other), &ask), Some(Revocation::Policy));
        }
        let summed = GUE.replace("false", "true");
        assert_eq!(objection(&snapshot(&summed), &ask), Some(Revocation::Policy));
        assert_eq!(objection(&snapshot("mode = \"ipip\""), &ask), Some(Revocation::Policy));
    }
}
