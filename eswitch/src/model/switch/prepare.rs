//! From a request to something the device can install: all that needs no device.

use super::super::action::Action;
use super::super::item::Item;
use super::super::pattern::lower;
use super::super::profile::Profile;
use super::super::program::Program;
use super::super::refusal::Refusal;
use super::super::types::{Attr, Domain, Topology};
use super::super::validate::{self, Context, Port};
use super::install::Prepared;

impl Context {
    /// Judges a rule of the synchronous API and translates it, without touching the device.
    ///
    /// Under SWS a transfer rule that names no port is one for packets from the port it is made on
    /// (`flow_dv_translate_item_port_id` at the end of `flow_dv_translate`).
    ///
    /// # Errors
    /// Whatever mlx5 refuses; see [`validate::rule_on`].
    pub fn prepare(
        &self,
        port: &Port<'_>,
        attr: &Attr,
        items: &[Item<'_>],
        actions: &[Action<'_>],
    ) -> Result<Prepared, Refusal> {
        let domain = validate::rule_on(self, port, attr, items, actions)?;
        let implicit_source =
            (domain == Domain::Fdb && !items.iter().any(names_source)).then_some(port.vport);
        Ok(Prepared {
            port: port.vport,
            domain,
            group: attr.group,
            priority: validate::matcher_priority(self, attr, items),
            matching: lower(items, &self.topology, implicit_source)?,
            program: Program::compile(actions, &self.topology)?,
            matcher: None,
        })
    }
}

impl Profile {
    /// What requests to a device of this profile are judged by, with the driver's default options.
    #[must_use]
    pub fn context(&self, topology: Topology) -> Context {
        Context { limits: self.limits(), ..Context::new(self.steering, topology) }
    }
}

/// Whether an item says where packets come from.
const fn names_source(item: &Item<'_>) -> bool {
    matches!(item, Item::RepresentedPort { .. } | Item::PortRepresentor { .. } | Item::PortId { .. })
}
