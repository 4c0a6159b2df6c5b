//! From a request to something the device can install: all that needs no device.

use super::super::action::Action;
use super::super::item::Item;
use super::super::pattern::lower;
use super::super::profile::Profile;
use super::super::program::Program;
use super::super::refusal::Refusal;
use super::super::types::{Attr, Domain, Topology};
use super::super::validate::{self, Context, Limits, Port};
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
        let narrow = if self.ipv6_five_tuple { Limits::default() } else { Limits::bluefield2() };
        let table_rules = if self.table_rules_max == 0 { u32::MAX } else { self.table_rules_max };
        let limits = Limits {
            max_actions: self.actions_max,
            max_modify: self.modify_max,
            max_encap: self.encap_bytes_max,
            match_dwords: self.match_dwords_max,
            ipv6_5tuple: self.ipv6_five_tuple,
            max_table_rules: table_rules,
            ..narrow
        };
        Context { limits, ..Context::new(self.steering, topology) }
    }
}

/// Whether an item says where packets come from.
const fn names_source(item: &Item<'_>) -> bool {
    matches!(item, Item::RepresentedPort { .. } | Item::PortRepresentor { .. } | Item::PortId { .. })
}
