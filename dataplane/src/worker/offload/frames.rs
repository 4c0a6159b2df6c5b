//! Connections of ports behind tunnels: what hardware takes out of a tunnel, and what it puts into one.
//!
//! Of the outer header a rule compares all that software would look at but the checksum of UDP, which
//! hardware
//! does not verify. Marks of congestion stay with software (RFC 6040): a rule copies none. On the way in it
//! takes packets whose outer mark changes nothing; on the way out such as cannot be marked.

use super::{NoWay, Sight, Walk};
use crate::conntrack::Slot;
use crate::flow::Direction;
use crate::offload::{Ask, Declined};
use crate::rewrite;
use crate::worker::Env;

/// The traffic class of a direction is learnt from a packet of it; after so many packets, guessed from one of
/// the other direction.
const GUESS_PACKETS: u64 = 32;

/// The bit of the ECN field that is set where a router has met congestion (CE), or says what senders of
/// another kind do (ECT(1)). An outer header without it leaves the inner one as it is (RFC 6040, figure 4).
const MARKED: u8 = 0x01;

impl<E: Env> Walk<'_, E> {
    /// Whether a rule could match such a packet, as far as tunnels of ports have a say in it.
    pub(super) fn fits_ports(&self, sight: Sight, slot: Slot, direction: Direction) -> bool {
        if !self.snapshot.has_tunnel_ports() {
            return true;
        }
        if self.snapshot.is_behind_tunnel(sight.port) {
            // Its mark may have been that of the outer header.
            return sight.class & MARKED == 0;
        }
        let leaves = self.way(slot, direction).is_ok_and(|hop| self.snapshot.is_behind_tunnel(hop.port));
        !(leaves && rewrite::carries_ecn(sight.class))
    }

    /// What is asked for, given that a packet of `direction` is at hand: with what goes around its frames, if
    /// those of a direction leave by a port behind a tunnel. That direction is left out if only software can
    /// put them there.
    pub(super) fn with_frames(&mut self, ask: Ask, sight: Sight, direction: Direction) -> Result<Ask, NoWay> {
        let into = |way: &Direction| {
            let leg = ask.legs[*way as usize]?;
            self.snapshot.is_behind_tunnel(leg.egress).then_some((*way, leg.egress))
        };
        let Some((leaving, port)) = [Direction::Original, Direction::Reply].iter().find_map(into) else {
            return Ok(ask);
        };
        let at_hand = leaving == direction;
        if !at_hand && ask.packets < GUESS_PACKETS {
            return Err(NoWay::Unknown);
        }
        let class = if at_hand { sight.class } else { sight.class & !rewrite::ECN };
        let way = self.snapshot.into_tunnel(port).ok_or(NoWay::Unknown)?;
        let mut ask = ask;
        match way.outer.around(class, ask.entropy(leaving)) {
            Some(around) => {
                let below = self.state.neighbours.find(self.now, way.hop.port, way.hop.next_hop);
                ask.tunnel = Some(around.sent_to(below.ok_or(NoWay::Unknown)?));
            }
            None => ask.legs[leaving as usize] = None,
        }
        if ask.legs == [None, None] { Err(NoWay::Cannot(Declined::Tunnel)) } else { Ok(ask) }
    }
}
