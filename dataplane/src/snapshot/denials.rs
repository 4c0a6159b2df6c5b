//! What hardware may drop because the policy denies it.

use super::Snapshot;
use crate::flow::FlowKey;
use crate::ids::{PortId, ServiceId};
use crate::policy::RuleNumber;

/// Why all packets of a tuple are dropped, and what they are counted under.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Denial {
    /// The service that they are for.
    pub service: ServiceId,
    /// The rule that says so; `None`: the default of their tenant and direction.
    pub rule: Option<RuleNumber>,
}

impl Snapshot {
    /// Why a worker would drop every packet of this tuple that comes in by `ingress`, whatever connections
    /// there are, if it would do nothing else with any: see [`crate::policy::Policy::denies_all`].
    ///
    /// Not for what comes out of a tunnel, where the tuple is not the one that hardware sees, and not for
    /// what a backend sends, which may be an answer, nor for our own addresses.
    #[must_use]
    pub fn denies_all(&self, ingress: PortId, key: &FlowKey) -> Option<Denial> {
        let port = self.port(ingress)?;
        if port.tunnel.is_some() || port.tenant != key.tenant {
            return None;
        }
        let service = self.classify(key.tenant, key.dst, key.protocol, key.dst_port)?;
        let answers = self.reply_of(key.tenant, key.src, key.src_port, key.protocol).is_some();
        if answers || self.probes_from(key.tenant, key.src) {
            return None;
        }
        let verdict = self.policy().denies_all(key)?;
        Some(Denial { service: service.id, rule: verdict.rule })
    }
}
