//! What a configuration allows of a connection in hardware.

use super::Machine;
use dataplane::offload::{Ask, Leg, Revocation};
use dataplane::snapshot::{Mode, Snapshot};

impl Machine {
    /// Why the present configuration does not allow this connection in hardware; `None` if it does.
    pub(super) fn snapshot_objects(&self, ask: &Ask) -> Option<Revocation> {
        objection(&self.snapshot, ask)
    }
}

fn objection(snapshot: &Snapshot, ask: &Ask) -> Option<Revocation> {
    let (Some(service), Some(backend)) = (snapshot.service(ask.service), snapshot.backend(ask.backend))
    else {
        return Some(Revocation::Policy);
    };
    let same = backend.service == ask.service
        && backend.address == ask.backend_end.0
        && service.tenant == ask.key.tenant
        && (service.mode == Mode::Nat) == ask.nat;
    if !same || !snapshot.allows_offload(ask.service, ask.backend) {
        return Some(Revocation::Policy);
    }
    let to_backend = backend.hop.map(|hop| hop.port);
    let to_client = snapshot.route(ask.key.tenant, ask.key.src).map(|hop| hop.port);
    let stays = |leg: Option<Leg>, port| leg.is_none_or(|leg| Some(leg.egress) == port);
    let ways = stays(ask.legs[0], to_backend) && stays(ask.legs[1], to_client);
    (!ways).then_some(Revocation::Moved)
}
