//! Packets that change nothing but counters: nearly all of them.

use super::{Candidates, Table};
use crate::conntrack::entry::{Entry, Slot};
use crate::conntrack::index::Reference;
use crate::conntrack::tcp::State;
use crate::flow::Direction;
use crate::wire::parse::TcpFlags;
use crate::wire::plain::{Address, Plain};

/// Flags that may change a connection's state.
const TELLING: u8 = TcpFlags::SYN.0 | TcpFlags::FIN.0 | TcpFlags::RST.0;

const fn bits<const N: usize>(states: [State; N]) -> u16 {
    let (mut bits, mut at) = (0, 0);
    while at < N {
        bits |= 1 << states[at] as u16;
        at += 1;
    }
    bits
}

/// By state, the packets that leave it as it is if they are datagrams or segments without [`TELLING`] flags,
/// whatever else is true of them: bit `2 * nat + direction`, `nat` being whether replies pass Millrace. Other
/// packets may leave it, too; that takes [`State::next`] to see.
const SETTLED: [u8; 16] = {
    use State::{
        Answered, Established, FinWaitBackend, FinWaitClient, LastAckBackend, LastAckClient, PickedUp,
        Replied, ResetBackend, ResetClient, SynReceived, SynSent, TimeWait, Unreplied,
    };
    let always = bits([Established, FinWaitClient, FinWaitBackend, TimeWait, Replied]);
    let original = always | bits([SynSent, PickedUp, LastAckBackend, ResetBackend, Unreplied]);
    let reply = always | bits([SynSent, SynReceived, LastAckClient, ResetClient, Answered]);
    let (mut settled, mut state) = ([0; 16], 0);
    while state < 16 {
        settled[state] =
            (always >> state & 1 | (original >> state & 1) << 2 | (reply >> state & 1) << 3) as u8;
        state += 1;
    }
    settled
};

impl Table {
    /// As [`Table::find`], for plain packets.
    #[inline(always)] // As every packet comes here.
    #[must_use]
    pub fn recognise<A: Address>(
        &self,
        plain: &Plain<A>,
        hash: u64,
        candidates: Candidates,
    ) -> Option<(Slot, Direction)> {
        let first = candidates.first;
        if self.holds_plain(first, plain) {
            return Some((Slot(first.slot()), first.direction()));
        }
        self.recognise_closely(plain, hash, candidates)
    }

    /// As `holds`. Of IPv4 an entry's line says all: nobody is called, who would want the key in memory.
    #[inline(always)]
    fn holds_plain<A: Address>(&self, reference: Reference, plain: &Plain<A>) -> bool {
        let (slot, direction) = (reference.slot() as usize, reference.direction());
        let Some(entry) = self.entries.get(slot) else { return false };
        entry.matches(&plain.key(), direction)
            && entry.is_live()
            && (!A::IS_V6 || self.holds_v6(slot, direction, &plain.key()))
    }

    /// Not inlined, so that nobody else keeps a key at hand for it.
    #[inline(never)]
    fn recognise_closely<A: Address>(
        &self,
        plain: &Plain<A>,
        hash: u64,
        candidates: Candidates,
    ) -> Option<(Slot, Direction)> {
        self.find(&plain.key(), hash, candidates)
    }

    /// An entry's line, to count a packet in it.
    #[inline(always)]
    #[must_use]
    pub fn entry_mut(&mut self, slot: Slot) -> &mut Entry {
        &mut self.entries[slot.index()]
    }
}

impl Entry {
    /// Whether a packet leaves the connection's state as it is; `false` if that is not certain at a glance.
    #[inline(always)] // As every packet comes here.
    #[must_use]
    pub fn stays(&self, direction: Direction, flags: TcpFlags) -> bool {
        let packets = 2 * u32::from(self.has_reply_key()) + direction as u32;
        let settled = SETTLED[self.state_number() as usize & 15] >> packets;
        settled & 1 != 0 && flags.0 & TELLING == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conntrack::Segment;

    /// Whatever the bits claim is what the state machine does.
    #[test]
    fn settled_states_stay() {
        let mut claims = 0;
        for (state, nat, direction, other) in all() {
            let one_way = !nat;
            if !is_settled(state, nat, direction) {
                continue;
            }
            let [half_open, later] = [other & 1 != 0, other & 2 != 0];
            for flags in (1..=0x3f).map(TcpFlags).filter(|flags| flags.0 & TELLING == 0) {
                let segment = Segment { direction, flags, one_way, half_open, later };
                assert_eq!(state.next(&segment), Some(state), "{segment:?}");
                claims += 1;
            }
        }
        assert!(claims > 0);
    }

    /// And the states that matter are claimed.
    #[test]
    fn common_states_are_settled() {
        for direction in [Direction::Original, Direction::Reply] {
            for state in [State::Established, State::Replied] {
                assert!(is_settled(state, true, direction));
            }
        }
        assert!(is_settled(State::Established, false, Direction::Original));
    }

    fn is_settled(state: State, nat: bool, direction: Direction) -> bool {
        SETTLED[state as usize] >> (2 * u32::from(nat) + direction as u32) & 1 != 0
    }

    fn all() -> impl Iterator<Item = (State, bool, Direction, u8)> {
        State::ALL.into_iter().flat_map(|state| {
            [Direction::Original, Direction::Reply].into_iter().flat_map(move |direction| {
                [false, true]
                    .into_iter()
                    .flat_map(move |nat| (0..4).map(move |other| (state, nat, direction, other)))
            })
        })
    }
}
