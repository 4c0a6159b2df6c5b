//! Templates and tables of HWS: made, kept by number, destroyed. Their handles are integers.

use std::ffi::c_int;
use std::ptr;
use std::slice;
use std::sync::Arc;

use super::Form;
use super::actions::{self, Actions, Scratch};
use super::entry::Call;
use super::items::{self, ELEMENTS_MAX, Items};
use super::sync::attributes;
use crate::model::action::Action;
use crate::model::pattern;
use crate::model::program;
use crate::model::refusal::{Cause, Errno, Refusal};
use crate::model::switch::Table;
use crate::model::validate::{self, ActionsFacts, PatternFacts, TableAttr, TemplateAttr};
use crate::pmd::device::PortPrivate;
use crate::pmd::ffi;

const STALE: Refusal = Refusal::new(Errno::Inval, Cause::Unspecified, "no such template or table");
const IN_USE: Refusal = Refusal::new(Errno::Busy, Cause::Unspecified, "template in using");
const NO_ATTR: Refusal = Refusal::new(Errno::Inval, Cause::Attr, "NULL template attribute");

struct PatternTemplate {
    facts: PatternFacts,
    template: Arc<pattern::PatternTemplate>,
    /// Tables that use it.
    users: u32,
}

struct ActionsTemplate {
    facts: ActionsFacts,
    template: Arc<program::ActionsTemplate>,
    /// Tables that use it.
    users: u32,
}

/// A table and the handles of its templates.
struct Entry {
    table: Arc<Table>,
    patterns: Vec<usize>,
    actions: Vec<usize>,
}

/// A port's templates and tables.
#[derive(Default)]
pub(in crate::pmd) struct Registry {
    patterns: Shelf<PatternTemplate>,
    actions: Shelf<ActionsTemplate>,
    tables: Shelf<Entry>,
}

impl Registry {
    /// Notes that a table uses these templates, or no more does.
    fn count_users(&mut self, patterns: &[usize], actions: &[usize], change: i32) {
        for handle in patterns {
            if let Some(template) = self.patterns.get_mut(*handle) {
                template.users = template.users.saturating_add_signed(change);
            }
        }
        for handle in actions {
            if let Some(template) = self.actions.get_mut(*handle) {
                template.users = template.users.saturating_add_signed(change);
            }
        }
    }

    /// The table with this handle.
    pub(super) fn table(&self, handle: usize) -> Option<Arc<Table>> {
        self.tables.get(handle).map(|entry| Arc::clone(&entry.table))
    }
}

/// Objects by number. A handle is number + 1, and a generation above it, so that a stale one is recognised.
pub(super) struct Shelf<T> {
    places: Vec<(u32, Option<T>)>,
}

impl<T> Default for Shelf<T> {
    fn default() -> Shelf<T> {
        Shelf { places: Vec::new() }
    }
}

impl<T> Shelf<T> {
    pub(super) fn insert(&mut self, object: T) -> usize {
        let at = self.places.iter().position(|(_, place)| place.is_none()).unwrap_or_else(|| {
            self.places.push((0, None));
            self.places.len() - 1
        });
        let (generation, place) = &mut self.places[at];
        *generation = generation.wrapping_add(1);
        *place = Some(object);
        (*generation as usize) << 32 | (at + 1)
    }

    fn place(&self, handle: usize) -> Option<usize> {
        let at = (handle & 0xffff_ffff).checked_sub(1)?;
        (self.places.get(at)?.0 as usize == handle >> 32).then_some(at)
    }

    pub(super) fn get(&self, handle: usize) -> Option<&T> {
        self.places[self.place(handle)?].1.as_ref()
    }

    fn get_mut(&mut self, handle: usize) -> Option<&mut T> {
        let at = self.place(handle)?;
        self.places[at].1.as_mut()
    }

    pub(super) fn remove(&mut self, handle: usize) -> Option<T> {
        let at = self.place(handle)?;
        self.places[at].1.take()
    }
}

pub(super) unsafe extern "C" fn pattern_create(
    device: *mut ffi::rte_eth_dev,
    attr: *const ffi::rte_flow_pattern_template_attr,
    pattern: *const ffi::rte_flow_item,
    error: *mut ffi::rte_flow_error,
) -> *mut ffi::rte_flow_pattern_template {
    // SAFETY: as `rte_flow_pattern_template_create` is called.
    unsafe {
        Call::new("flow pattern_template_create", device, error).about(pattern, ptr::null()).object(|port| {
            let attr = attr.as_ref().ok_or(NO_ATTR)?;
            let attr = TemplateAttr {
                ingress: attr.ingress() != 0,
                egress: attr.egress() != 0,
                transfer: attr.transfer() != 0,
                relaxed: attr.relaxed_matching() != 0,
            };
            let mut typed = Items::new();
            items::translate(pattern, Form::Template, &mut typed)?;
            let facts = validate::pattern_template(&port.switch.context, port.vport, &attr, &typed)?;
            // Only the FDB sees the packets of more than one port.
            let source = (!attr.transfer).then_some(port.vport);
            let template = Arc::new(pattern::PatternTemplate::new(&typed, attr.relaxed, source)?);
            let handle = port.flow.registry().patterns.insert(PatternTemplate { facts, template, users: 0 });
            Ok(ptr::without_provenance_mut(handle))
        })
    }
}

pub(super) unsafe extern "C" fn pattern_destroy(
    device: *mut ffi::rte_eth_dev,
    template: *mut ffi::rte_flow_pattern_template,
    error: *mut ffi::rte_flow_error,
) -> c_int {
    // SAFETY: as `rte_flow_pattern_template_destroy` is called; the handle is not followed.
    unsafe {
        Call::new("flow pattern_template_destroy", device, error).status(|port| {
            let mut registry = port.flow.registry();
            let found = registry.patterns.get(template.addr()).ok_or(STALE)?;
            if found.users > 0 {
                return Err(IN_USE);
            }
            registry.patterns.remove(template.addr());
            Ok(())
        })
    }
}

pub(super) unsafe extern "C" fn actions_create(
    device: *mut ffi::rte_eth_dev,
    attr: *const ffi::rte_flow_actions_template_attr,
    actions: *const ffi::rte_flow_action,
    masks: *const ffi::rte_flow_action,
    error: *mut ffi::rte_flow_error,
) -> *mut ffi::rte_flow_actions_template {
    // SAFETY: as `rte_flow_actions_template_create` is called.
    unsafe {
        Call::new("flow actions_template_create", device, error).about(ptr::null(), actions).object(|port| {
            let attr = attr.as_ref().ok_or(NO_ATTR)?;
            let attr = TemplateAttr {
                ingress: attr.ingress() != 0,
                egress: attr.egress() != 0,
                transfer: attr.transfer() != 0,
                relaxed: false,
            };
            let handle = make_actions(port, &attr, actions, masks)?;
            Ok(ptr::without_provenance_mut(handle))
        })
    }
}

/// Makes an actions template; its handle.
///
/// # Safety
/// Both lists are as `rte_flow_actions_template_create` describes them.
unsafe fn make_actions(
    port: &PortPrivate,
    attr: &TemplateAttr,
    actions: *const ffi::rte_flow_action,
    masks: *const ffi::rte_flow_action,
) -> Result<usize, Refusal> {
    let lives = &port.switch.flow.lives;
    let (scratch, mask_scratch) = (Scratch::new(lives), Scratch::new(lives));
    let (mut typed, mut typed_masks) = (Actions::new(), Actions::new());
    // SAFETY: the caller's promise.
    unsafe {
        actions::translate(actions, Form::Template, &scratch, &mut typed)?;
        actions::translate(masks, Form::Mask, &mask_scratch, &mut typed_masks)?;
    }
    let (context, pools) = (&port.switch.context, port.flow.pools());
    let facts = validate::actions_template(context, port.vport, attr, &typed, &typed_masks, pools)?;
    // The mask of an indirect action is of the type that the handle stands for; the same handle serves all
    // rules if both the action and its mask have a configuration.
    for (index, (action, mask)) in typed.iter().zip(&mut typed_masks).enumerate() {
        if let Action::Indirect(shared) = *action {
            // SAFETY: the list has been read up to its end.
            let constant = unsafe { has_conf(masks, index) };
            *mask = Action::Indirect(shared.filter(|_| constant));
        }
    }
    let template = Arc::new(program::ActionsTemplate::new(&typed, &typed_masks)?);
    Ok(port.flow.registry().actions.insert(ActionsTemplate { facts, template, users: 0 }))
}

/// Whether the `index`-th element that is not `void` has a configuration.
///
/// # Safety
/// `raw` is a list with an end.
unsafe fn has_conf(raw: *const ffi::rte_flow_action, index: usize) -> bool {
    // SAFETY: the iteration stops at the end (the caller's promise).
    (0..ELEMENTS_MAX)
        .map(|at| unsafe { &*raw.add(at) })
        .take_while(|element| element.type_ != ffi::RTE_FLOW_ACTION_TYPE_END)
        .filter(|element| element.type_ != ffi::RTE_FLOW_ACTION_TYPE_VOID)
        .nth(index)
        .is_some_and(|element| !element.conf.is_null())
}

pub(super) unsafe extern "C" fn actions_destroy(
    device: *mut ffi::rte_eth_dev,
    template: *mut ffi::rte_flow_actions_template,
    error: *mut ffi::rte_flow_error,
) -> c_int {
    // SAFETY: as `rte_flow_actions_template_destroy` is called; the handle is not followed.
    unsafe {
        Call::new("flow actions_template_destroy", device, error).status(|port| {
            let mut registry = port.flow.registry();
            let found = registry.actions.get(template.addr()).ok_or(STALE)?;
            if found.users > 0 {
                return Err(IN_USE);
            }
            registry.actions.remove(template.addr());
            Ok(())
        })
    }
}

pub(super) unsafe extern "C" fn table_create(
    device: *mut ffi::rte_eth_dev,
    attr: *const ffi::rte_flow_template_table_attr,
    patterns: *mut *mut ffi::rte_flow_pattern_template,
    patterns_count: u8,
    actions: *mut *mut ffi::rte_flow_actions_template,
    actions_count: u8,
    error: *mut ffi::rte_flow_error,
) -> *mut ffi::rte_flow_template_table {
    // SAFETY: as `rte_flow_template_table_create` is called.
    unsafe {
        Call::new("flow template_table_create", device, error).object(|port| {
            let attr = attr.as_ref().ok_or(NO_ATTR)?;
            let attr = TableAttr { attr: attributes(&raw const attr.flow_attr)?, nb_flows: attr.nb_flows };
            let patterns = handles(patterns, patterns_count)?;
            let actions = handles(actions, actions_count)?;
            let handle = make_table(port, &attr, patterns, actions)?;
            Ok(ptr::without_provenance_mut(handle))
        })
    }
}

/// The application's array of handles.
///
/// # Safety
/// `array` is null or has `count` elements.
unsafe fn handles<T>(array: *mut *mut T, count: u8) -> Result<Vec<usize>, Refusal> {
    if array.is_null() || count == 0 {
        return Err(Refusal::new(Errno::Inval, Cause::Unspecified, "a table needs templates of both kinds"));
    }
    // SAFETY: not null, so it has `count` elements (the caller's promise).
    let handles = unsafe { slice::from_raw_parts(array, usize::from(count)) };
    Ok(handles.iter().map(|handle| handle.addr()).collect())
}

/// Makes a table; its handle.
fn make_table(
    port: &PortPrivate,
    attr: &TableAttr,
    patterns: Vec<usize>,
    actions: Vec<usize>,
) -> Result<usize, Refusal> {
    let mut registry = port.flow.registry();
    let templates = patterns.iter().map(|handle| {
        let found = registry.patterns.get(*handle)?;
        Some((Arc::clone(&found.template), found.facts))
    });
    let pattern_templates: Vec<_> = templates.collect::<Option<_>>().ok_or(STALE)?;
    let templates = actions.iter().map(|handle| {
        let found = registry.actions.get(*handle)?;
        Some((Arc::clone(&found.template), found.facts))
    });
    let actions_templates: Vec<_> = templates.collect::<Option<_>>().ok_or(STALE)?;
    let mut eswitch = port.switch.eswitch.lock();
    let table = eswitch.create_table(port.vport, attr, &pattern_templates, &actions_templates)?;
    drop(eswitch);
    let table = Arc::new(table);
    registry.count_users(&patterns, &actions, 1);
    Ok(registry.tables.insert(Entry { table, patterns, actions }))
}

pub(super) unsafe extern "C" fn table_destroy(
    device: *mut ffi::rte_eth_dev,
    table: *mut ffi::rte_flow_template_table,
    error: *mut ffi::rte_flow_error,
) -> c_int {
    // SAFETY: as `rte_flow_template_table_destroy` is called; the handle is not followed.
    unsafe {
        Call::new("flow template_table_destroy", device, error).status(|port| {
            let mut registry = port.flow.registry();
            let found = registry.tables.get(table.addr()).ok_or(STALE)?;
            port.switch.eswitch.lock().destroy_table(&found.table)?;
            if let Some(Entry { patterns, actions, .. }) = registry.tables.remove(table.addr()) {
                registry.count_users(&patterns, &actions, -1);
            }
            port.flow.forget_tables();
            Ok(())
        })
    }
}
