//! What a connection's entry knows of its hardware half, and what hardware has counted for it.

use super::{COLD_CONFIRMED, COLD_OFFLOAD, Cold, Count, Slot, Table, Totals, cold_packets};
use crate::conntrack::entry::OFFLOAD_KINDS;
use crate::flow::Direction;
use crate::offload::{FlowRef, OffloadState};
use crate::time::Tick;

impl Table {
    /// The name of a connection, for other threads.
    #[inline]
    #[must_use]
    pub fn flow_ref(&self, slot: Slot) -> FlowRef {
        FlowRef { worker: self.worker, slot: slot.0, generation: self.entries[slot.index()].generation() }
    }

    /// The connection of a name, unless it is gone.
    #[inline]
    #[must_use]
    pub fn resolve(&self, flow: FlowRef) -> Option<Slot> {
        let entry = self.entries.get(flow.slot as usize)?;
        let lives = entry.is_live() && entry.generation() == flow.generation && flow.worker == self.worker;
        lives.then_some(Slot(flow.slot))
    }

    /// A connection's offload state.
    #[inline]
    #[must_use]
    pub fn offload(&self, slot: Slot) -> OffloadState {
        self.entries[slot.index()].offload(|| self.cold[slot.index()][COLD_OFFLOAD] as u32)
    }

    /// Changes a connection's offload state. `tick` goes with it: since when it is so, or of
    /// [`OffloadState::Declined`] until when.
    pub fn set_offload(&mut self, slot: Slot, state: OffloadState, tick: Tick) {
        let entry = &mut self.entries[slot.index()];
        let before = entry.offload_kind();
        let number = entry.set_offload(state);
        let after = entry.offload_kind();
        self.by_offload[before] -= 1;
        self.by_offload[after] += 1;
        if state != OffloadState::Software {
            let cold = self.cold(slot);
            cold[COLD_OFFLOAD] = u64::from(tick.0) << 32 | u64::from(number.unwrap_or(0));
            cold[COLD_CONFIRMED] = u64::from(tick.0);
        }
    }

    /// The tick that [`Table::set_offload`] was last given; any if the connection is in software.
    #[must_use]
    pub fn offload_tick(&self, slot: Slot) -> Tick {
        Tick((self.cold[slot.index()][COLD_OFFLOAD] >> 32) as u32)
    }

    /// The offload engine has confirmed the offload state.
    pub fn confirm_offload(&mut self, slot: Slot, now: Tick) {
        self.cold(slot)[COLD_CONFIRMED] = u64::from(now.0);
    }

    /// When the offload state was last known to be true; any if the connection is in software.
    #[must_use]
    pub fn offload_confirmed(&self, slot: Slot) -> Tick {
        Tick(self.cold[slot.index()][COLD_CONFIRMED] as u32)
    }

    /// Notes which directions of a connection in hardware should no longer come to software.
    pub fn settle_offload(&mut self, slot: Slot, legs: [bool; 2]) {
        self.entries[slot.index()].settle(legs);
    }

    /// Connections by the kind of their offload state, in the order of its declaration.
    #[must_use]
    pub fn by_offload(&self) -> [u32; OFFLOAD_KINDS] {
        self.by_offload
    }

    /// The connection in this slot, if any, unless it is in software: for sweeps that go through all slots.
    #[inline]
    #[must_use]
    pub fn offloaded_at(&self, number: u32) -> Option<Slot> {
        let entry = self.entries.get(number as usize)?;
        (entry.is_live() && entry.offload_kind() != 0).then_some(Slot(number))
    }

    /// The connection in this slot, if any, unless the policy of this generation has allowed it: for sweeps
    /// that go through all slots, or (`pending`) through those that hardware may forward for.
    #[inline]
    #[must_use]
    pub fn unjudged_at(&self, number: u32, generation: u8, pending: bool) -> Option<Slot> {
        let entry = self.entries.get(number as usize)?;
        let asked = entry.is_live() && entry.judged() != generation && (!pending || entry.is_pending());
        asked.then_some(Slot(number))
    }

    /// Adds what hardware has forwarded since the last report. If that is anything, the connection is
    /// alive.
    pub fn add_hardware(&mut self, slot: Slot, direction: Direction, now: Tick, count: Count) {
        if count.packets == 0 {
            return;
        }
        self.entries[slot.index()].touch(now);
        let cold = self.cold(slot);
        cold[cold_packets(direction)] += count.packets;
        cold[cold_packets(direction) + 1] += count.bytes;
    }

    /// The cold part of a connection, to be written.
    pub(super) fn cold(&mut self, slot: Slot) -> &mut Cold {
        self.entries[slot.index()].set_cold();
        &mut self.cold[slot.index()]
    }

    /// What a connection has carried.
    #[must_use]
    pub fn totals(&self, slot: Slot) -> Totals {
        let entry = &self.entries[slot.index()];
        let count = |direction| {
            let (packets, bytes) = entry.low_counts(direction);
            let (mut packets, mut bytes) = (u64::from(packets), u64::from(bytes));
            if entry.is_cold() {
                let cold = &self.cold[slot.index()];
                packets += cold[cold_packets(direction)];
                bytes += cold[cold_packets(direction) + 1];
            }
            Count { packets, bytes }
        };
        Totals { original: count(Direction::Original), reply: count(Direction::Reply) }
    }
}
