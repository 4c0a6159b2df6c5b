//! Who sends most of what the policy denies: those whom hardware could drop.
//!
//! A sketch of fixed size counts denied packets by their tuple. It is divided into sets, and a tuple belongs
//! to one of them. Where a set is full, a newcomer takes the place of the one that was seen least and
//! inherits its count as an error (space-saving; Metwally et al., 2005): so whoever sends much is in the
//! sketch however many others send a little, and what is certain of its packets is the count without the
//! error. All of a set is forgotten after each window.
//!
//! Nothing is allocated, nobody waits, and only packets that are dropped pay for it.

use super::{Env, Walk, Worker};
use crate::flow::FlowKey;
use crate::ids::PortId;
use crate::offload::Denied;
use crate::packet::PacketBuf;
use crate::time::Tick;

/// Sets,
const SETS: usize = 256;
/// and tuples in each.
const WAYS: usize = 4;
/// What is counted for so long,
const WINDOW_MS: u32 = 1_000;
/// and this many packets in it are worth a rule.
const PACKETS: u32 = 1_000;

#[derive(Clone, Copy, Default)]
struct Cell {
    /// `None`: free.
    tuple: Option<(PortId, FlowKey)>,
    /// Packets, and at most so many of them were others'.
    count: u32,
    error: u32,
}

#[derive(Clone, Copy, Default)]
struct Set {
    since: Tick,
    cells: [Cell; WAYS],
}

/// See the module's header.
pub(super) struct Hitters {
    sets: Box<[Set]>,
}

impl Hitters {
    fn new(now: Tick) -> Hitters {
        Hitters { sets: vec![Set { since: now, ..Set::default() }; SETS].into() }
    }

    /// Counts a packet. Once in a window, when it is certain that there were [`PACKETS`] of these: how many
    /// come per second.
    fn note(&mut self, now: Tick, hash: u64, port: PortId, key: &FlowKey) -> Option<u32> {
        let set = &mut self.sets[hash as usize % SETS];
        if now.since(set.since) >= WINDOW_MS {
            *set = Set { since: now, ..Set::default() };
        }
        let tuple = Some((port, *key));
        let elapsed_ms = now.since(set.since);
        if let Some(cell) = set.cells.iter_mut().find(|cell| cell.tuple == tuple) {
            cell.count = cell.count.saturating_add(1);
            let certain = cell.count - cell.error;
            return (certain == PACKETS).then(|| PACKETS * 1_000 / elapsed_ms.max(1));
        }
        let least = set.cells.iter_mut().min_by_key(|cell| cell.count)?;
        let error = least.count;
        *least = Cell { tuple, count: error.saturating_add(1), error };
        None
    }
}

impl<B: PacketBuf> Worker<B> {
    /// From now on, looks for those who send most of what the policy denies. For a start: it takes memory.
    pub fn expect_denials(&mut self, now: Tick) {
        self.state.hitters = Some(Hitters::new(now));
    }
}

impl<E: Env> Walk<'_, E> {
    /// The policy has refused a packet of this tuple, as it came in by `port`. Should there be many of these,
    /// and nothing else become of any, then the offload engine hears of it.
    pub(super) fn note_refused(&mut self, port: PortId, key: &FlowKey) {
        let Some(hitters) = &mut self.state.hitters else { return };
        let hash = self.state.table.hash(key);
        let Some(per_second) = hitters.note(self.now, hash, port, key) else { return };
        if self.snapshot.denies_all(port, key).is_some() {
            // Should there be no room, the next window tells of it again.
            let _ = self.env.denied(&Denied { ingress: port, key: *key, per_second });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Ip;
    use crate::flow::{FlowHasher, Protocol};
    use crate::ids::TenantId;

    const PORT: PortId = PortId(0);

    fn key(src: u32, src_port: u16) -> FlowKey {
        let (src, dst) = (Ip::v4(src), Ip::v4(0xc000_0250));
        FlowKey { src, dst, src_port, dst_port: 80, tenant: TenantId(0), protocol: Protocol::Udp }
    }

    fn note(hitters: &mut Hitters, now: u32, key: &FlowKey) -> Option<u32> {
        let hash = FlowHasher::seeded([1, 2, 3, 4]).local_key(key);
        hitters.note(Tick(now), hash, PORT, key)
    }

    #[test]
    fn a_tuple_is_told_once_in_a_window_and_only_if_there_are_many() {
        let mut hitters = Hitters::new(Tick(0));
        let many: Vec<u32> = (0..3_500).filter_map(|n| note(&mut hitters, n / 4, &key(1, 5))).collect();
        assert_eq!(many, [4016], "1000 packets in 249 ms; the rest of the window says nothing new");
        assert_eq!((0..1_000).filter_map(|n| note(&mut hitters, 1_000 + n, &key(1, 5))).count(), 1);
        let few = (0..9_990).filter_map(|n| note(&mut hitters, 3_000 + n + n / 100, &key(1, 6)));
        assert_eq!(few.count(), 0, "990 a second are not worth it");
    }

    #[test]
    fn one_who_sends_much_is_found_among_many_who_do_not() {
        let mut hitters = Hitters::new(Tick(0));
        let mut told = Vec::new();
        // 20 000 packets in all, one in eight of them the heavy one's.
        for n in 0..20_000_u32 {
            let sender = if n % 8 == 0 { key(7, 7) } else { key(n, n as u16) };
            if note(&mut hitters, n / 40, &sender).is_some() {
                told.push(sender);
            }
        }
        assert_eq!(told, [key(7, 7)]);
    }

    #[test]
    fn what_others_left_behind_makes_nobody_heavy() {
        let mut hitters = Hitters::new(Tick(0));
        // All sets are full of high counts, just below what would be told.
        for n in 0..u32::from(u16::MAX) * 8 {
            assert_eq!(note(&mut hitters, 0, &key(n % 4096, 1)), None, "128 each");
        }
        for n in 0..999 {
            assert_eq!(note(&mut hitters, 1, &key(9_999_999, 1)), None, "{n}");
        }
    }
}
