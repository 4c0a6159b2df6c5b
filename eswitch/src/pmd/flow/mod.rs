//! Flow operations: what `rte_flow.h` asks of a driver.
//!
//! 1. [`items`], [`actions`] (with [`encap`], [`modify`], [`rss`]): the application's lists, made typed.
//! 2. [`handle`], [`lives`], [`error`]: what the application gets to hold and to read. [`entry`]: how each
//!    call begins and ends.
//! 3. [`sync`], [`indirect`], [`aging`], [`dump`]: the synchronous API.
//! 4. [`template`], [`queue`]: templates, tables and flow queues, with [`state`] and [`cells`] to keep them.

mod actions;
mod aging;
mod cells;
mod dump;
mod encap;
mod entry;
mod error;
pub(super) mod handle;
mod indirect;
mod items;
mod lives;
mod modify;
mod policy;
mod queue;
mod rss;
mod state;
mod sync;
mod template;
mod turn;

use super::ffi;

pub(super) use error::c_message;
pub(super) use policy::PolicyLists;
pub(super) use state::{DeviceFlows, PortFlows};
pub(super) use sync::remove_all;

/// In which call a list stands; it decides what may be missing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    /// A rule of the synchronous API: complete.
    Rule,
    /// A template: masks count; what comes with each rule may be missing.
    Template,
    /// The masks of an actions template: all-ones where the template's value is for every rule.
    Mask,
    /// A rule that is put into a template table: what the templates have may be missing.
    Insertion,
}

/// What is not here is not offered: tunnel offload, flex items, and what mlx5 22.11 lacks, too.
static OPERATIONS: ffi::rte_flow_ops = ffi::rte_flow_ops {
    validate: Some(sync::validate),
    create: Some(sync::create),
    destroy: Some(sync::destroy),
    flush: Some(sync::flush),
    query: Some(sync::query),
    isolate: Some(sync::isolate),
    dev_dump: Some(dump::dev_dump),
    get_aged_flows: Some(aging::get_aged_flows),
    get_q_aged_flows: Some(aging::get_q_aged_flows),
    action_handle_create: Some(indirect::create),
    action_handle_destroy: Some(indirect::destroy),
    action_handle_update: Some(indirect::update),
    action_handle_query: Some(indirect::query),
    tunnel_decap_set: None,
    tunnel_match: None,
    get_restore_info: None,
    tunnel_action_decap_release: None,
    tunnel_item_release: None,
    pick_transfer_proxy: Some(sync::pick_transfer_proxy),
    flex_item_create: None,
    flex_item_release: None,
    info_get: Some(queue::info_get),
    configure: Some(queue::configure),
    pattern_template_create: Some(template::pattern_create),
    pattern_template_destroy: Some(template::pattern_destroy),
    actions_template_create: Some(template::actions_create),
    actions_template_destroy: Some(template::actions_destroy),
    template_table_create: Some(template::table_create),
    template_table_destroy: Some(template::table_destroy),
    async_create: Some(queue::async_create),
    async_destroy: Some(queue::async_destroy),
    push: Some(queue::push),
    pull: Some(queue::pull),
    async_action_handle_create: Some(queue::action_create),
    async_action_handle_destroy: Some(queue::action_destroy),
    async_action_handle_update: Some(queue::action_update),
    async_action_handle_query: Some(queue::action_query),
};

/// The driver's flow operations.
pub(super) fn flow_ops() -> *const ffi::rte_flow_ops {
    &raw const OPERATIONS
}

#[cfg(test)]
mod tests;
