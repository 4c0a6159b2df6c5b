//! Connections that are captured: software forwards them for the time, so that all of their packets come by.

use super::{Env, Walk, Worker};
use crate::capture::{Choice, Subject};
use crate::conntrack::Slot;
use crate::offload::{OffloadState, Revocation};
use crate::packet::PacketBuf;
use std::sync::Arc;

/// Slots looked at per call for connections to be taken back.
const LOOKS: u32 = 1024;

/// Which connections are captured.
#[derive(Default)]
pub(super) struct Captured {
    pub(super) choice: Option<Arc<Choice>>,
    /// The next slot to look at, until all have been.
    next: Option<u32>,
}

impl<B: PacketBuf> Worker<B> {
    /// Keeps these connections in software from now on, and takes those back that hardware has; none with
    /// `None`. Gives back the choice before, to be freed elsewhere.
    pub fn set_captured(&mut self, choice: Option<Arc<Choice>>) -> Option<Arc<Choice>> {
        let next = choice.as_ref().map(|_| 0);
        std::mem::replace(&mut self.state.captured, Captured { choice, next }).choice
    }
}

impl<E: Env> Walk<'_, E> {
    /// Whether software has to forward a connection for those who watch it.
    pub(super) fn is_captured(&self, slot: Slot) -> bool {
        let Some(choice) = &self.state.captured.choice else { return false };
        let (entry, ends) = (self.state.table.entry(slot), self.state.table.ends(slot));
        choice.takes(&Subject {
            tenant: entry.tenant(),
            protocol: entry.protocol() as u16,
            service: Some(entry.service()),
            clients: &[ends.client],
            vips: &[ends.vip],
            backends: &[ends.backend],
        })
    }

    /// Goes on looking for connections that hardware has and that are captured. Those that it is about to
    /// take are taken back when they are there.
    pub(super) fn sweep_captured(&mut self) {
        let Some(begin) = self.state.captured.next else { return };
        let slots = self.state.table.slots_taken();
        let end = slots.min(begin.saturating_add(LOOKS));
        for number in begin..end {
            let Some(slot) = self.state.table.offloaded_at(number) else { continue };
            if !self.is_captured(slot) {
                continue;
            }
            self.take_back(slot, Revocation::Captured);
            if matches!(self.state.table.offload(slot), OffloadState::Installed(_)) {
                // There was no room for the message.
                self.state.captured.next = Some(number);
                return;
            }
        }
        self.state.captured.next = (end < slots).then_some(end);
    }
}
