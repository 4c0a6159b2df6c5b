//! The rule that drops all packets of a tuple, which the policy denies.
//!
//! It is in the group of such packets' connections, and behind the rules of these: so where both are in force
//! for a moment, what was let in comes first, under either steering. TCP's flags do not matter to it, as
//! they do to a connection's rule: what is dropped are SYNs above all.
//!
//! There is none for what comes in by a port whose packets no base rule leads on, nor for IPv6 where the port
//! is a bump in the wire: there it would have to compare a MAC address, and be too wide; nor for what comes
//! out of a tunnel.

use super::{Topology, connection, group_of};
use crate::lower::Way;
use crate::rule::{Action, Attr, Domain, Headers, Item, Rule};
use dataplane::flow::FlowKey;
use dataplane::ids::PortId;
use dataplane::offload::Declined;

/// Behind the rules of connections.
const PRIORITY: u32 = 1;

/// The rule.
///
/// # Errors
/// [`Declined::Path`]: hardware cannot do it, and will not until ports change.
pub fn denial(topology: &Topology, ingress: PortId, key: &FlowKey) -> Result<Rule, Declined> {
    let port = topology.port(ingress).ok_or(Declined::Path)?;
    let is_v4 = key.dst.is_v4();
    let led_to = topology.crosses(ingress) && port.vlan.outer.is_none() && port.tunnel.is_none();
    if !led_to || key.src.is_v4() != is_v4 || (port.any_mac && !is_v4) {
        return Err(Declined::Path);
    }
    let mut items = connection(port, Way::Eswitch, key, None);
    for item in &mut items {
        match item {
            Item::Eth { dst } => *dst = port.any_mac.then_some(port.mac),
            Item::Tcp { flags, .. } => *flags = None,
            _ => {}
        }
    }
    Ok(Rule {
        port: port.proxy,
        attr: Attr { domain: Domain::Transfer, group: group_of(key), priority: PRIORITY },
        items,
        actions: [Action::Count, Action::Drop].into_iter().collect(),
        headers: Headers::new(),
    })
}
