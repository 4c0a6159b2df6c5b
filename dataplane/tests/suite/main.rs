//! Tests of the dataplane from outside, in one program: it is built once, and its files share what they need.

mod common {
    pub(crate) mod alloc;
    pub(crate) mod frames;
    pub(crate) mod rules;
    pub(crate) mod world;
}
mod frames;
mod support {
    pub(crate) mod offload_engine;
    pub(crate) mod table_model;
}

mod adopt;
mod capture;
mod config;
mod denials;
mod health;
mod meters;
mod no_alloc;
mod notes;
mod offload;
mod parse;
mod partition;
mod policy;
mod rewrite;
mod shortcut;
mod table;
mod tenants;
mod transit;
mod tunnel_ports;
mod tunnels;
mod walk;

#[global_allocator]
static ALLOCATOR: common::alloc::Watched = common::alloc::Watched(std::alloc::System);
