//! Fragments follow the first fragment's decision.
//!
//! Only the first fragment of a packet carries ports. What was decided for it is remembered here under
//! what all fragments have in common, for the time the destination would wait for them; fragments that
//! overtook their first one wait for it, a few of them and briefly. Nothing is reassembled.

use crate::addr::Ip;
use crate::drops::DropReason;
use crate::flow::FlowHasher;
use crate::ids::TenantId;
use crate::packet::PacketBuf;
use crate::time::Tick;
use std::collections::VecDeque;

/// What the fragments of one packet have in common (RFC 791 §3.2, RFC 8200 §4.5).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FragmentKey {
    /// Source address.
    pub src: Ip,
    /// Destination address.
    pub dst: Ip,
    /// Identification: 16 bits for IPv4, 32 for IPv6.
    pub id: u32,
    /// Whose address space the addresses are of.
    pub tenant: TenantId,
    /// IP protocol of the fragmented packet. For IPv6 the identification alone tells packets apart and
    /// fragments may disagree about this (RFC 8200 §4.5): give 0.
    pub protocol: u8,
}

/// Bounds and timers of [`Fragments`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FragmentLimits {
    /// Decisions remembered; the oldest makes way.
    pub decisions_max: usize,
    /// How long a decision is remembered.
    pub decision_ms: u32,
    /// Fragments that wait for their first one.
    pub held_max: usize,
    /// How long they wait.
    pub held_ms: u32,
}

impl Default for FragmentLimits {
    /// 30 s, as RFC 4963 §2 reports of reassembly timers; reordering on a path is a matter of
    /// milliseconds.
    fn default() -> FragmentLimits {
        FragmentLimits { decisions_max: 4096, decision_ms: 30_000, held_max: 64, held_ms: 200 }
    }
}

const NONE: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Remembered<D> {
    key: FragmentKey,
    at: Tick,
    /// The next record of the same hash.
    chain: u32,
    decision: D,
}

struct Waiting<B> {
    key: FragmentKey,
    at: Tick,
    packet: B,
}

/// The fragments one worker is in the middle of. `D` is what was decided for a first fragment.
pub struct Fragments<B: PacketBuf, D: Copy> {
    /// A ring in the order of arrival: `oldest` and the `used` records that follow it. Of two records of
    /// the same key the later one is found, since it comes first in its chain, and outlives the other.
    ring: Box<[Option<Remembered<D>>]>,
    oldest: usize,
    used: usize,
    /// First record of each hash; a power of two of them.
    buckets: Box<[u32]>,
    waiting: VecDeque<Waiting<B>>,
    limits: FragmentLimits,
    hasher: FlowHasher,
}

impl<B: PacketBuf, D: Copy> Fragments<B, D> {
    /// An empty cache. The only allocation.
    #[must_use]
    pub fn new(limits: &FragmentLimits, hasher: FlowHasher) -> Fragments<B, D> {
        let decisions_max = limits.decisions_max.clamp(1, 1 << 20);
        Fragments {
            ring: vec![None; decisions_max].into(),
            oldest: 0,
            used: 0,
            buckets: vec![NONE; (decisions_max * 2).next_power_of_two()].into(),
            waiting: VecDeque::with_capacity(limits.held_max),
            limits: FragmentLimits { decisions_max, ..*limits },
            hasher,
        }
    }

    /// Remembers what was decided for a first fragment. Then take out what waited for it:
    /// [`Fragments::take_released`].
    pub fn insert(&mut self, now: Tick, key: &FragmentKey, decision: D) {
        if self.used == self.ring.len() {
            self.clear_oldest();
        }
        let at = (self.oldest + self.used) % self.ring.len();
        let bucket = self.bucket(key);
        let chain = core::mem::replace(&mut self.buckets[bucket], at as u32);
        self.ring[at] = Some(Remembered { key: *key, at: now, chain, decision });
        self.used += 1;
    }

    /// What was decided for the first fragment of this packet.
    #[must_use]
    pub fn get(&self, now: Tick, key: &FragmentKey) -> Option<D> {
        let record = self.ring[self.find(key)?].as_ref()?;
        (now.since(record.at) < self.limits.decision_ms).then_some(record.decision)
    }

    /// Keeps a fragment whose first one was not seen yet.
    ///
    /// # Errors
    /// The fragment, with [`DropReason::FragmentUnknown`], if too many wait already.
    pub fn hold(&mut self, now: Tick, key: &FragmentKey, packet: B) -> Result<(), (B, DropReason)> {
        if self.waiting.len() >= self.limits.held_max {
            return Err((packet, DropReason::FragmentUnknown));
        }
        self.waiting.push_back(Waiting { key: *key, at: now, packet });
        Ok(())
    }

    /// Takes out one fragment that waited for this first one, in the order they came; call it until it
    /// returns `None`.
    #[must_use]
    pub fn take_released(&mut self, key: &FragmentKey) -> Option<B> {
        let index = self.waiting.iter().position(|waiting| waiting.key == *key)?;
        self.waiting.remove(index).map(|waiting| waiting.packet)
    }

    /// Takes out, through `expired`, fragments that waited long enough
    /// ([`DropReason::FragmentUnknown`]), and forgets decisions that are too old, a few at a time.
    pub fn expire(&mut self, now: Tick, mut expired: impl FnMut(B)) {
        const DECISIONS_PER_CALL: usize = 32;
        while let Some(waiting) = self.waiting.front() {
            if now.since(waiting.at) < self.limits.held_ms {
                break;
            }
            if let Some(waiting) = self.waiting.pop_front() {
                expired(waiting.packet);
            }
        }
        for _ in 0..DECISIONS_PER_CALL.min(self.used) {
            let record = self.ring[self.oldest].as_ref();
            if record.is_some_and(|record| now.since(record.at) < self.limits.decision_ms) {
                break;
            }
            self.clear_oldest();
        }
    }

    /// Takes out every fragment that waits, at shutdown.
    pub fn drain(&mut self, mut dropped: impl FnMut(B)) {
        while let Some(waiting) = self.waiting.pop_front() {
            dropped(waiting.packet);
        }
    }

    /// Fragments that wait now.
    #[must_use]
    pub fn held(&self) -> usize {
        self.waiting.len()
    }

    fn find(&self, key: &FragmentKey) -> Option<usize> {
        let mut at = self.buckets[self.bucket(key)];
        while let Some(Some(record)) = self.ring.get(at as usize) {
            if record.key == *key {
                return Some(at as usize);
            }
            at = record.chain;
        }
        None
    }

    /// Forgets the oldest record and takes it out of its chain.
    fn clear_oldest(&mut self) {
        let at = self.oldest;
        self.oldest = (at + 1) % self.ring.len();
        self.used -= 1;
        let Some(record) = self.ring[at].take() else { return };
        let bucket = self.bucket(&record.key);
        if self.buckets[bucket] == at as u32 {
            self.buckets[bucket] = record.chain;
            return;
        }
        let mut before = self.buckets[bucket];
        while let Some(Some(other)) = self.ring.get_mut(before as usize) {
            if other.chain == at as u32 {
                other.chain = record.chain;
                return;
            }
            before = other.chain;
        }
    }

    fn bucket(&self, key: &FragmentKey) -> usize {
        let rest = u64::from(key.id) | u64::from(key.tenant.0) << 32 | u64::from(key.protocol) << 48;
        let [hi, lo] = key.dst.words();
        let src = self.hasher.ip(key.src);
        let hash = self.hasher.ip(Ip::from_words([hi ^ src, lo ^ rest]));
        (hash >> 32) as usize & (self.buckets.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::PortId;
    use crate::packet::TestPacket;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const HASHER: FlowHasher = FlowHasher::new([1, 2, 3, 4]);

    fn key(id: u32) -> FragmentKey {
        FragmentKey { src: Ip::v4(1), dst: Ip::v4(2), id, tenant: TenantId(0), protocol: 17 }
    }

    fn packet(tag: u8) -> TestPacket {
        TestPacket::new(PortId(0), &[tag])
    }

    fn tag(packet: &TestPacket) -> u8 {
        packet.data()[0]
    }

    fn cache(decisions_max: usize, held_max: usize) -> Fragments<TestPacket, u32> {
        let limits = FragmentLimits { decisions_max, held_max, ..FragmentLimits::default() };
        Fragments::new(&limits, HASHER)
    }

    #[test]
    fn every_field_of_the_key_counts() {
        let mut cache = cache(16, 4);
        let one = key(1);
        cache.insert(Tick(0), &one, 7);
        assert_eq!(cache.get(Tick(0), &one), Some(7));
        for other in [
            FragmentKey { src: Ip::v4(9), ..one },
            FragmentKey { dst: Ip::v4(9), ..one },
            FragmentKey { id: 9, ..one },
            FragmentKey { tenant: TenantId(9), ..one },
            FragmentKey { protocol: 6, ..one },
        ] {
            assert_eq!(cache.get(Tick(0), &other), None, "{other:?}");
        }
    }

    #[test]
    fn fragments_that_overtook_the_first_wait_for_it_in_order_and_not_for_long() {
        let mut cache = cache(16, 4);
        let start = Tick(u32::MAX - 100);
        for (id, number) in [(1, 10), (2, 20), (1, 11), (3, 30)] {
            assert!(cache.hold(start, &key(id), packet(number)).is_ok());
        }
        let refused = cache.hold(start, &key(1), packet(12)).map_err(|(packet, why)| (tag(&packet), why));
        assert_eq!(refused, Err((12, DropReason::FragmentUnknown)));
        let mut released = Vec::new();
        while let Some(packet) = cache.take_released(&key(1)) {
            released.push(tag(&packet));
        }
        assert_eq!((released, cache.held()), (vec![10, 11], 2));
        let mut expired = Vec::new();
        cache.expire(start.after_ms(199), |packet| expired.push(tag(&packet)));
        assert_eq!(expired, []);
        cache.expire(start.after_ms(200), |packet| expired.push(tag(&packet)));
        assert_eq!((expired, cache.held()), (vec![20, 30], 0));
    }

    #[test]
    fn decisions_are_forgotten_in_time() {
        let mut cache = cache(16, 4);
        let start = Tick(u32::MAX - 100);
        cache.insert(start, &key(1), 7);
        assert_eq!(cache.get(start.after_ms(29_999), &key(1)), Some(7));
        assert_eq!(cache.get(start.after_ms(30_000), &key(1)), None);
        cache.expire(start.after_ms(30_000), |_| {});
        assert_eq!(cache.used, 0);
    }

    #[derive(Clone, Debug)]
    enum Op {
        Pass(u32),
        Insert(u32, u32),
        Hold(u32),
        Release(u32),
        Expire,
    }

    fn ops() -> impl Strategy<Value = Op> {
        prop_oneof![
            2 => prop_oneof![0..100_u32, 0..20_000_u32].prop_map(Op::Pass),
            4 => (0..12_u32, any::<u32>()).prop_map(|(id, decision)| Op::Insert(id, decision)),
            2 => (0..12_u32).prop_map(Op::Hold),
            1 => (0..12_u32).prop_map(Op::Release),
            1 => Just(Op::Expire),
        ]
    }

    proptest! {
        /// Against a map that forgets nothing: what is remembered is right and in date, the latest
        /// `decisions_max` first fragments are always remembered, and packets are conserved.
        #[test]
        fn what_is_remembered_is_right(
            ops in prop::collection::vec(ops(), 1..300),
            (decisions_max, held_max) in (1..8_usize, 0..5_usize),
            start: u32,
        ) {
            let mut cache = cache(decisions_max, held_max);
            let mut ms = 0_u32;
            let mut decided: BTreeMap<u32, (u32, u32, usize)> = BTreeMap::new();
            let mut inserts = 0_usize;
            let (mut given, mut taken) = (0, 0);
            for op in ops {
                let now = Tick(start.wrapping_add(ms));
                match op {
                    Op::Pass(step) => ms += step,
                    Op::Insert(id, decision) => {
                        cache.insert(now, &key(id), decision);
                        inserts += 1;
                        decided.insert(id, (decision, ms, inserts));
                    }
                    Op::Hold(id) => {
                        let fits = cache.held() < held_max;
                        given += usize::from(fits);
                        prop_assert_eq!(cache.hold(now, &key(id), packet(id as u8)).is_ok(), fits);
                    }
                    Op::Release(id) => {
                        while let Some(packet) = cache.take_released(&key(id)) {
                            prop_assert_eq!(u32::from(tag(&packet)), id);
                            taken += 1;
                        }
                    }
                    Op::Expire => cache.expire(now, |_| taken += 1),
                }
                prop_assert_eq!(cache.held(), given - taken);
                let now = Tick(start.wrapping_add(ms));
                for id in 0..12 {
                    let expected = decided.get(&id).filter(|(_, at, _)| ms - at < 30_000);
                    match (cache.get(now, &key(id)), expected) {
                        (Some(got), Some((decision, ..))) => prop_assert_eq!(got, *decision),
                        (Some(_), None) => prop_assert!(false, "remembered too long"),
                        (None, Some((.., number))) => prop_assert!(inserts - number >= decisions_max),
                        (None, None) => {}
                    }
                }
            }
            cache.drain(|_| taken += 1);
            prop_assert_eq!(given, taken);
        }
    }
}
