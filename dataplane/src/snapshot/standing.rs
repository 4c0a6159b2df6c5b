//! What health says of backends, and how a snapshot takes it in.

use super::{BackendState, OnRemove};
use crate::addr::Ip;
use crate::config::Health;
use std::collections::HashMap;

/// How a backend's new connections are given, as far as its health has a say.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Standing {
    /// Whether it gets any.
    pub up: bool,
    /// Of those that its weight promises, percent: below 100 while it starts slowly.
    pub share_percent: u8,
}

impl Default for Standing {
    /// A backend that nothing is wrong with.
    fn default() -> Standing {
        Standing { up: true, share_percent: 100 }
    }
}

impl Standing {
    /// That of a backend that nothing is known of yet.
    #[must_use]
    pub fn initial(health: &Health) -> Standing {
        Standing { up: health.initially_up, ..Standing::default() }
    }
}

/// The standing of the backends that are checked: by service's name, backend's address and port.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Standings {
    by_service: HashMap<String, HashMap<(Ip, Option<u16>), Standing>>,
}

impl Standings {
    /// Sets what holds for all of a service's backends; [`Standing::initial`] for those that are not named.
    pub fn set(
        &mut self,
        service: &str,
        health: &Health,
        backends: impl IntoIterator<Item = ((Ip, Option<u16>), Standing)>,
    ) {
        let initial = Standing::initial(health);
        let unlike = backends.into_iter().filter(|(_, standing)| *standing != initial);
        let unlike: HashMap<_, _> = unlike.collect();
        if unlike.is_empty() {
            self.by_service.remove(service);
        } else {
            self.by_service.insert(service.to_owned(), unlike);
        }
    }

    /// What holds for a backend of a service that is checked so, or not at all.
    pub(super) fn of(
        &self,
        service: &str,
        health: Option<&Health>,
        address: Ip,
        port: Option<u16>,
    ) -> (Standing, Option<BackendState>) {
        let Some(health) = health else { return (Standing::default(), None) };
        let standing = self.by_service.get(service).and_then(|backends| backends.get(&(address, port)));
        let standing = standing.copied().unwrap_or_else(|| Standing::initial(health));
        (standing, (!standing.up).then_some(BackendState::Down(health.on_down)))
    }
}

impl BackendState {
    /// Whether its live connections are ended at their next packet.
    #[inline]
    #[must_use]
    pub const fn resets(self) -> bool {
        matches!(self, BackendState::Removed(OnRemove::Reset) | BackendState::Down(OnRemove::Reset))
    }
}
