//! Policies for tests, made without a configuration file.

use dataplane::addr::{Ip, Prefix};
use dataplane::policy::{Action, Defaults, Matches, Source, Statement};
use std::sync::Arc;

/// Everything.
pub(crate) fn everything() -> Matches {
    Matches::default()
}

/// What comes from addresses in a prefix.
pub(crate) fn from(prefix: &str) -> Matches {
    let (ip, len) = prefix.split_once('/').expect("a prefix");
    let address: Ip = ip.parse::<std::net::IpAddr>().expect("an address").into();
    let prefix = Prefix { address, length: len.parse().expect("a length") };
    Matches { from: Some(Arc::from([prefix])), ..everything() }
}

/// What comes from a port.
pub(crate) fn from_port(port: u16) -> Matches {
    Matches { from_ports: vec![port..=port], ..everything() }
}

pub(crate) fn rule(action: Action, matches: Matches) -> Statement {
    Statement { name: None, line: 1, action, log: false, matches }
}

/// These rules, and what holds without one.
pub(crate) fn policy(rules: impl Into<Vec<Statement>>, default: Action) -> Source {
    Source { rules: rules.into(), defaults: Defaults { all: [default; 2], tenants: Vec::new() } }
}
