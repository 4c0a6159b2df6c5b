//! Template tables, made when the first rule needs one.
//!
//! A table's rules compare the same bits and do one of the things that the table knows when it is made. So
//! it is made with all that a connection's rule could want of it: the rules of a group stay in one table,
//! and packets look into one; a second if there are rules with meters, which are in a table of their own.

use super::spell;
use super::{EngineError, base_table_rules, table_rules};
use crate::colours::COLOURS;
use crate::rule::{Action, Item, Rule};
use dataplane::addr::{Ip, MacAddr};
use dataplane::limits::{DENY_RULES_MAX, PARTITION_RULES_MAX};
use dpdk::flow::{Actions, Attr, FlowError, FlowQueue, Pattern, TableKey};

/// Room in tables whose rules decide by colour; there is one for each meter.
const DECIDING_RULES_MAX: u32 = 2 * super::open::METERS_MAX;

#[derive(Debug)]
struct Table {
    attr: Attr,
    pattern: Pattern,
    actions: Vec<Actions>,
    /// Or why there is none: what was refused once will be again.
    made: Result<TableKey, EngineError>,
}

/// The tables of a flow queue.
#[derive(Debug)]
pub(super) struct Tables {
    tables: Vec<Table>,
    rules_max: u32,
    base_rules_max: u32,
    /// Whether a table of so many rules was refused since that was last asked.
    refused: bool,
}

impl Tables {
    /// For so many rules of connections, all of which may be in one table, and so many that lead to these.
    pub(super) fn new(rules_max: u32, base_rules: usize) -> Tables {
        let (rules_max, base_rules_max) = (table_rules(rules_max), base_table_rules(base_rules));
        Tables { tables: Vec::new(), rules_max, base_rules_max, refused: false }
    }

    /// The table for a rule, and which of its actions are the rule's.
    pub(super) fn find_or_make(
        &mut self,
        queue: &mut FlowQueue<'_>,
        rule: &Rule,
        (attr, pattern, actions): (Attr, &Pattern, &Actions),
    ) -> Result<(TableKey, u8), (EngineError, Option<FlowError>)> {
        let alike = |table: &&Table| table.attr == attr && table.pattern.is_alike(pattern);
        for table in self.tables.iter().filter(alike) {
            if let Some(at) = table.actions.iter().position(|known| known.is_alike(actions)) {
                return table.made.map(|key| (key, at as u8)).map_err(|means| (means, None));
            }
        }
        let known = alternatives(rule, actions);
        let rules_max = match rule.attr.group {
            COLOURS => DECIDING_RULES_MAX,
            _ if is_base(rule) => self.base_rules_max,
            _ if drops(rule) => table_rules(DENY_RULES_MAX).min(self.rules_max),
            _ if rule.is_of_partition() => table_rules(PARTITION_RULES_MAX).min(self.rules_max),
            _ => self.rules_max,
        };
        let made = queue.create_table(attr, rules_max, pattern, &known);
        let made = made.map_err(|error| (spell::of_creation(&error), error));
        self.refused |= made.is_err() && rules_max == self.rules_max;
        // Room may come; what cannot be, cannot be.
        if !matches!(made, Err((EngineError::TableFull | EngineError::Lost(_), _))) {
            let made = made.as_ref().map(|key| *key).map_err(|(means, _)| *means);
            self.tables.push(Table { attr, pattern: pattern.clone(), actions: known, made });
        }
        made.map(|key| (key, 0)).map_err(|(means, error)| (means, Some(error)))
    }

    /// What to do about it if a table for connections was refused since this was last asked: nothing but the
    /// driver's words, which need not name it, tells whether its size was the reason.
    pub(super) fn remedy(&mut self) -> Option<String> {
        std::mem::take(&mut self.refused).then(|| {
            let room = self.rules_max;
            format!(
                "a table for {room} rules was refused, and what it is for stays in software; if it is too large for \
                 the device, lower [offload] rules_max: tables have room for a quarter more than that"
            )
        })
    }

    /// Lets what was refused be tried again.
    pub(super) fn forgive(&mut self) {
        self.tables.retain(|table| table.made.is_ok());
    }
}

/// Whether it leads to connections' rules, which count.
fn is_base(rule: &Rule) -> bool {
    !spell::counts(rule) && rule.actions.iter().any(|action| matches!(action, Action::Jump(_)))
}

/// Rules that drop have tables of their own, behind those of connections.
fn drops(rule: &Rule) -> bool {
    rule.actions.contains(&Action::Drop)
}

/// What rules of the same table may do: first what this one does, then what others could.
fn alternatives(rule: &Rule, own: &Actions) -> Vec<Actions> {
    let mut all = vec![own.clone()];
    // Rules of tunnels have a pattern of their own. With each actions template of a table, mlx5 sets memory
    // for the headers of all its rules aside (mlx5_flow_hw.c, `mlx5dr_action_create_reformat`).
    let alone = is_base(rule) || drops(rule) || rule.attr.group == COLOURS || rule.is_of_partition();
    if alone || rule.actions.contains(&Action::RawEncap) {
        return all;
    }
    // A tag outside of a tunnel goes with that.
    let tagged = rule.innermost().iter().any(|item| matches!(item, Item::Vlan(_)));
    let v4 = rule.innermost().iter().any(|item| matches!(item, Item::Ipv4 { .. }));
    let [before, after]: [&[&[Action]]; 2] = if tagged {
        [&[&[], &[Action::PopVlan], &[Action::SetVlanVid(0)]], &[&[]]]
    } else {
        [&[&[]], &[&[], &[Action::PushVlan, Action::SetVlanVid(0)]]]
    };
    for (before, after) in before.iter().flat_map(|before| after.iter().map(move |after| (before, after))) {
        for translation in translations(v4) {
            let rule = Rule { actions: connection(rule, before, translation, after), ..rule.clone() };
            let actions = spell::actions(&rule, &rule.with_tags_first(), spell::Objects::default());
            if all.len() < FlowQueue::TEMPLATES_MAX && !all.iter().any(|known| known.is_alike(&actions)) {
                all.push(actions);
            }
        }
    }
    all
}

/// What the lowering may write into a packet besides MAC addresses.
fn translations(v4: bool) -> [[Option<Action>; 2]; 7] {
    let ip = if v4 { Ip::v4(0) } else { Ip::v6([0; 16]) };
    let (to, to_port) = (Some(Action::SetIpDst(ip)), Some(Action::SetPortDst(0)));
    let (from, from_port) = (Some(Action::SetIpSrc(ip)), Some(Action::SetPortSrc(0)));
    [
        [None, None],
        [to, None],
        [None, to_port],
        [to, to_port],
        [from, None],
        [None, from_port],
        [from, from_port],
    ]
}

/// Actions as the lowering orders them; taken out of a tunnel, counted, metered and aged as `rule` is, with
/// its fate.
fn connection(
    rule: &Rule,
    before: &[Action],
    translation: [Option<Action>; 2],
    after: &[Action],
) -> arrayvec::ArrayVec<Action, { crate::rule::ACTIONS_MAX }> {
    let counted = |action: &Action| matches!(action, Action::Decap(_) | Action::Count | Action::Age { .. });
    let metered = |action: &Action| matches!(action, Action::MeterMark(_) | Action::SetTag(_));
    let kept = |action: &&Action| counted(action) || metered(action);
    let pop = |action: &&Action| **action == Action::PopVlan;
    let mut actions: arrayvec::ArrayVec<_, { crate::rule::ACTIONS_MAX }> =
        before.iter().filter(pop).copied().collect();
    actions.extend(rule.actions.iter().filter(kept).copied());
    actions.extend(before.iter().filter(|action| !pop(action)).copied());
    actions.extend([Action::SetMacDst(MacAddr::default()), Action::SetMacSrc(MacAddr::default())]);
    actions.extend(translation.into_iter().flatten());
    actions.push(Action::DecTtl);
    actions.extend(after.iter().copied());
    actions.extend(rule.actions.last().copied());
    actions
}
