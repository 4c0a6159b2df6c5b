//! Nothing on the packet path allocates after construction.

use crate::common::alloc::{forbidden, watched};
use dataplane::addr::{Ip, MacAddr};
use dataplane::flow::FlowHasher;
use dataplane::fragments::{FragmentKey, FragmentLimits, Fragments};
use dataplane::ids::{PortId, TenantId};
use dataplane::neighbour::{Hold, NeighbourLimits, NeighbourUpdate, Neighbours};
use dataplane::packet::TestPacket;
use dataplane::rate::RateLimit;
use dataplane::time::Tick;
use std::hint::black_box;

const HASHER: FlowHasher = FlowHasher::new([1, 2, 3, 4]);
const PORT: PortId = PortId(0);
const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

/// The canary: the watch sees what it is there to see.
#[test]
fn the_watch_sees_every_kind_of_allocation() {
    let (_, boxed) = watched(|| black_box(Box::new(1_u64)));
    assert_eq!((boxed.taken, boxed.given_back), (1, 0));
    let (_, zeroed) = watched(|| drop(black_box(vec![0_u8; 100])));
    assert_eq!((zeroed.taken, zeroed.given_back), (1, 1));
    let mut grown = Vec::with_capacity(1);
    let (_, grew) = watched(|| black_box(&mut grown).extend([1_u8, 2, 3]));
    assert_eq!(grew.taken, 1);
    let (_, nothing) = watched(|| black_box(1 + 1));
    assert_eq!((nothing.taken, nothing.given_back), (0, 0));
    assert!(std::panic::catch_unwind(|| forbidden(|| black_box(Box::new(1)))).is_err());
    forbidden(|| ());
}

/// A scan, answers, failures, evictions and overflowing queues.
#[test]
fn neighbours_do_not_allocate() {
    let limits = NeighbourLimits { neighbours_max: 64, unresolved_max: 16, ..NeighbourLimits::default() };
    let mut table: Neighbours<TestPacket> = Neighbours::new(&limits, HASHER);
    let mut packets: Vec<_> = (0..4000).map(|_| TestPacket::new(PORT, &[0; 64])).collect();
    let (mut released, mut expired, mut dropped) = (0, 0, 0);
    forbidden(|| {
        for (step, packet) in (0_u32..).zip(packets.drain(..)) {
            let (now, ip) = (Tick(step * 20), Ip::v4(step % 300));
            match table.hold(now, PORT, ip, packet) {
                Hold::Held => {}
                Hold::Send(..) => released += 1,
                Hold::Drop(..) => dropped += 1,
            }
            let answer = NeighbourUpdate { port: PORT, ip, mac: MAC, solicited: true, overrides: true };
            if step % 3 == 0 {
                table.learn(now, &answer, step % 2 == 0, |_, _| released += 1);
            }
            let id = table.id_of(now, PORT, Ip::v4(step % 40));
            black_box(id.map(|id| table.mac(id, now)).ok());
            table.tick(now, 32, |action| {
                expired += usize::from(matches!(action, dataplane::neighbour::Action::Expired(_)));
            });
        }
    });
    assert!(released > 0 && expired > 0 && dropped > 0, "{released} {expired} {dropped}");
    assert_eq!(released + expired + dropped + table.held(), 4000);
}

#[test]
fn fragments_do_not_allocate() {
    let limits = FragmentLimits { decisions_max: 64, held_max: 16, ..FragmentLimits::default() };
    let mut cache: Fragments<TestPacket, u32> = Fragments::new(&limits, HASHER);
    let mut packets: Vec<_> = (0..4000).map(|_| TestPacket::new(PORT, &[0; 64])).collect();
    let (mut refused, mut released, mut expired) = (0, 0, 0);
    forbidden(|| {
        for (step, packet) in (0_u32..).zip(packets.drain(..)) {
            let now = Tick(step * 10);
            let key =
                |id| FragmentKey { src: Ip::v4(1), dst: Ip::v4(2), id, tenant: TenantId(0), protocol: 17 };
            refused += usize::from(cache.hold(now, &key(step), packet).is_err());
            let first = key(step.saturating_sub(step % 25));
            cache.insert(now, &first, step);
            while cache.take_released(&first).is_some() {
                released += 1;
            }
            black_box(cache.get(now, &first));
            if step % 20 == 0 {
                cache.expire(now, |_| expired += 1);
            }
        }
    });
    assert!(refused > 0 && released > 0 && expired > 0, "{refused} {released} {expired}");
    assert_eq!(refused + released + expired + cache.held(), 4000);
}

#[test]
fn rate_limits_do_not_allocate() {
    let mut limit = RateLimit::new(100, 10);
    let allowed = forbidden(|| (0..10_000).filter(|ms| limit.allow(Tick(*ms))).count());
    assert!(allowed >= 1000);
}
