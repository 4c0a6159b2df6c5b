//! Floods and full tables.

use super::support::{HASHER, T0, established, key, new, table, timeout};
use crate::conntrack::{Candidates, Count, InsertError, New, Outcome, Shape, Share, State, Table};
use crate::flow::Direction;
use crate::ids::{TenantId, WorkerId};
use crate::offload::{OffloadState, RuleId, Token};
use crate::time::Tick;
use crate::wire::parse::TcpFlags;

fn is_there(table: &Table, n: u32) -> bool {
    table.find(&key(n), table.hash(&key(n)), Candidates::default()).is_some()
}

#[test]
fn at_the_bound_the_oldest_half_open_one_goes() {
    let mut table = table(100, 4);
    for n in 0..4 {
        table.insert(T0.after_ms(n), &new(n), timeout).expect("room");
    }
    // The oldest completes its handshake, so it is no longer among them.
    established(&mut table, 0, T0.after_ms(4));
    assert_eq!(table.half_open(), 3);
    assert_eq!(table.insert(T0.after_ms(5), &new(4), timeout).expect("room").evicted, None);
    for (newcomer, oldest) in [(5, 1), (6, 2), (7, 3), (8, 4)] {
        let inserted = table.insert(T0.after_ms(newcomer), &new(newcomer), timeout).expect("room");
        assert!(inserted.evicted.is_some_and(|gone| gone.half_open));
        assert!(!is_there(&table, oldest) && is_there(&table, 0));
        assert_eq!((table.len(), table.half_open()), (5, 4));
    }
}

/// One that uses a client's port again is half-open, and hardware may still forward for the one before.
#[test]
fn half_open_ones_that_hardware_may_forward_for_go_last() {
    let mut table = table(100, 4);
    for n in 0..4 {
        table.insert(T0.after_ms(n), &new(n), timeout).expect("room");
    }
    for n in 0..2 {
        let slot = table.find(&key(n), table.hash(&key(n)), Candidates::default()).expect("there").0;
        table.set_offload(slot, OffloadState::Removing(RuleId(n)), T0);
    }
    table.insert(T0.after_ms(5), &new(4), timeout).expect("room");
    table.insert(T0.after_ms(6), &new(5), timeout).expect("room");
    assert_eq!([0, 1, 2, 3, 4, 5].map(|n| is_there(&table, n)), [true, true, false, false, true, true]);
}

#[test]
fn within_their_grace_the_young_are_kept_and_newcomers_refused() {
    let shape = Shape { connections: 100, half_open_max: 2, half_open_grace_ms: 200 };
    let mut table = Table::new(WorkerId(0), shape, HASHER, T0);
    table.insert(T0, &new(0), timeout).expect("room");
    table.insert(T0, &new(1), timeout).expect("room");
    assert_eq!(table.insert(T0.after_ms(199), &new(2), timeout), Err(InsertError::HalfOpenLimit));
    assert_eq!(table.refuses_newcomers(T0.after_ms(199), TenantId(0)), Some(InsertError::HalfOpenLimit));
    assert_eq!(table.refuses_newcomers(T0.after_ms(200), TenantId(0)), None);
    assert!(table.insert(T0.after_ms(200), &new(2), timeout).is_ok_and(|i| i.evicted.is_some()));
    assert_eq!((is_there(&table, 0), is_there(&table, 1)), (false, true));
}

fn of(tenant: u16, n: u32) -> New {
    let new = new(n);
    New { key: crate::flow::FlowKey { tenant: TenantId(tenant), ..new.key }, ..new }
}

/// Whoever has fewest half-open connections gets another, at the cost of who has most, however young.
#[test]
fn one_tenants_flood_does_not_keep_another_out() {
    let shape = Shape { connections: 100, half_open_max: 8, half_open_grace_ms: 200 };
    let mut table = Table::new(WorkerId(0), shape, HASHER, T0);
    for n in 0..8 {
        table.insert(T0, &of(1, n), timeout).expect("room");
    }
    assert_eq!(table.insert(T0, &of(1, 8), timeout), Err(InsertError::HalfOpenLimit));
    for n in 0..4 {
        let evicted = table.insert(T0, &of(2, n), timeout).expect("its part").evicted;
        assert!(evicted.is_some_and(|gone| gone.half_open));
    }
    assert_eq!((table.held_by(TenantId(1)), table.held_by(TenantId(2))), ((4, 4), (4, 4)));
    assert_eq!(table.insert(T0, &of(2, 4), timeout), Err(InsertError::HalfOpenLimit));
}

#[test]
fn a_tenant_at_its_limit_makes_room_by_its_own() {
    let shape = Shape { connections: 16, half_open_max: 16, half_open_grace_ms: 200 };
    let mut table = Table::new(WorkerId(0), shape, HASHER, T0);
    table.set_shares([Share::ALL, Share { connections: 4, half_open: 2 }]);
    for n in 0..4 {
        table.insert(T0, &of(0, n), timeout).expect("room");
    }
    let later = T0.after_ms(300);
    for n in 0..2 {
        table.insert(later, &of(1, n), timeout).expect("room");
    }
    assert_eq!(table.insert(later, &of(1, 2), timeout), Err(InsertError::HalfOpenLimit));
    let much_later = T0.after_ms(600);
    for n in 2..20 {
        let inserted = table.insert(much_later.after_ms(n * 200), &of(1, n), timeout).expect("its own go");
        assert!(inserted.evicted.is_some());
    }
    assert_eq!((table.held_by(TenantId(0)), table.held_by(TenantId(1))), ((4, 4), (2, 2)));
    table.insert(much_later.after_ms(3_900), &of(1, 20), timeout).expect("the older of two goes");
    let at_once = much_later.after_ms(3_950);
    assert_eq!(table.insert(at_once, &of(1, 21), timeout), Err(InsertError::HalfOpenLimit));
    table.set_shares([Share::ALL, Share { connections: 2, half_open: 9 }]);
    assert_eq!(table.insert(at_once, &of(1, 21), timeout), Err(InsertError::TenantLimit));
}

/// Opens a tenant's connection and completes its handshake.
fn establish(table: &mut Table, new: &New, now: Tick) {
    let slot = table.insert(now, new, timeout).expect("room").slot;
    let syn_ack = TcpFlags::SYN.with(TcpFlags::ACK);
    for (direction, flags) in [(Direction::Reply, syn_ack), (Direction::Original, TcpFlags::ACK)] {
        let _: Outcome = table.account(slot, direction, now, 40, flags, |_| 60_000);
    }
}

/// However long they have been idle: who has less than its part of a full table loses none to a flood towards
/// another tenant.
#[test]
fn one_tenants_flood_ends_none_of_anothers_connections() {
    let shape = Shape { connections: 1_000, half_open_max: 160, half_open_grace_ms: 0 };
    for shares in
        [vec![Share::ALL; 3], vec![Share::ALL, Share { connections: 400, half_open: 40 }, Share::ALL]]
    {
        let mut table = Table::new(WorkerId(0), shape, HASHER, T0);
        table.set_shares(shares);
        (0..300).for_each(|n| establish(&mut table, &of(1, n), T0));
        (0..700).for_each(|n| establish(&mut table, &of(2, n), T0.after_ms(1_000 + n)));
        for n in 700..5_000 {
            table.insert(T0.after_ms(5_000 + n), &of(2, n), timeout).expect("at its own cost");
        }
        assert_eq!((table.held_by(TenantId(1)), table.held_by(TenantId(2))), ((300, 0), (700, 20)));
    }
}

/// In a large table full of others', and where it was given its limit after they had come.
#[test]
fn a_small_tenant_at_its_limit_finds_its_own() {
    let others = if cfg!(miri) { 500 } else { 9_000 };
    let shape = Shape { connections: others + 1_000, half_open_max: 400, half_open_grace_ms: 0 };
    let shares = [Share::ALL, Share { connections: 16, half_open: 16 }];
    for late in [false, true] {
        let mut table = Table::new(WorkerId(0), shape, HASHER, T0);
        if !late {
            table.set_shares(shares);
        }
        (0..others).for_each(|n| establish(&mut table, &of(0, n), T0));
        (0..16).for_each(|n| establish(&mut table, &of(1, n), T0.after_ms(n)));
        table.set_shares(shares);
        for _ in 0..others / 100 {
            table.expire(T0.after_ms(20), 1, timeout, |_| panic!("too early"), |_| ());
        }
        for n in 16..600 {
            establish(&mut table, &of(1, n), T0.after_ms(n));
            assert_eq!((table.held_by(TenantId(0)), table.held_by(TenantId(1))), ((others, 0), (16, 0)));
        }
    }
}

/// A flood of every kind of first packet, ten times the table's size, costs a full table of established
/// connections an eighth of the half-open share.
#[test]
fn established_connections_survive_a_flood() {
    let (size, share) = if cfg!(miri) { (100, 16) } else { (10_000, 800) };
    for flags in [TcpFlags::SYN, TcpFlags::ACK, TcpFlags::RST, TcpFlags::SYN.with(TcpFlags::ACK)] {
        let mut table = table(size, share);
        for n in 0..size {
            table.insert(T0, &new(n), timeout).expect("room");
            established(&mut table, n, T0);
        }
        for n in size..11 * size {
            let spoofed = New { flags, ..new(n) };
            let now = T0.after_ms(n / 10);
            let slot = table.insert(now, &spoofed, timeout).expect("the oldest goes").slot;
            // The attacker may send more, but does not hear what the backend says.
            for flags in [flags, TcpFlags::ACK, TcpFlags::RST, TcpFlags::ACK] {
                let _: Outcome = table.account(slot, Direction::Original, now, 40, flags, |_| 5_000);
            }
        }
        let survivors = (0..size).filter(|&n| is_there(&table, n)).count();
        println!("{flags:?}: {survivors} of {size} established connections survive");
        assert_eq!(survivors as u32, size - share / 8);
    }
}

#[test]
fn a_full_table_gives_up_the_ended_first_and_then_the_most_idle() {
    let mut table = table(8, 2);
    for n in 0..8 {
        table.insert(T0, &new(n), timeout).expect("room");
        established(&mut table, n, T0.after_ms(100 - n));
    }
    let inserted = table.insert(T0.after_ms(200), &new(8), timeout).expect("room");
    assert!(inserted.evicted.is_some_and(|gone| !gone.half_open && gone.state == State::Established));
    assert!(!is_there(&table, 7), "the one silent for longest");
    established(&mut table, 8, T0.after_ms(200));

    let slot = table.find(&key(2), table.hash(&key(2)), Candidates::default()).expect("there").0;
    let reset = table.account(slot, Direction::Reply, T0.after_ms(201), 40, TcpFlags::RST, |_| 5_000);
    assert_eq!(reset, Outcome::Changed(State::ResetBackend));
    let inserted = table.insert(T0.after_ms(202), &new(9), timeout).expect("room");
    assert_eq!(inserted.evicted.map(|gone| gone.state), Some(State::ResetBackend));
}

/// Their clients' ports may be used again, and meet rules that are still there.
#[test]
fn a_full_table_keeps_the_ended_that_hardware_has_not_let_go_of() {
    for offload in [
        OffloadState::Requested(Token(1)),
        OffloadState::Installed(RuleId(1)),
        OffloadState::Removing(RuleId(1)),
    ] {
        let mut table = table(8, 2);
        for n in 0..8 {
            table.insert(T0, &new(n), timeout).expect("room");
            established(&mut table, n, T0.after_ms(n));
        }
        let slot = table.find(&key(0), table.hash(&key(0)), Candidates::default()).expect("there").0;
        let reset = table.account(slot, Direction::Reply, T0, 40, TcpFlags::RST, |_| 5_000);
        assert_eq!(reset, Outcome::Changed(State::ResetBackend));
        table.set_offload(slot, offload, T0);
        table.insert(T0.after_ms(200), &new(8), timeout).expect("room");
        assert!(is_there(&table, 0) && !is_there(&table, 1), "{offload:?}");
    }
}

/// A million connections expire at once: every call does what its budget says, and all go in the end.
#[test]
fn mass_expiry_is_done_in_bounded_steps() {
    let size = if cfg!(miri) { 500 } else { 200_000 };
    let mut table = table(size, size);
    for n in 0..size {
        table.insert(T0, &new(n), timeout).expect("room");
    }
    let now = T0.after_ms(11_000);
    let (mut calls, mut gone) = (0, 0);
    while !table.is_empty() {
        let looked_at = table.expire(now, 64, timeout, |_| gone += 1, |_| ());
        assert!(looked_at <= 64);
        calls += 1;
    }
    assert_eq!((calls, gone), (size.div_ceil(64), size));
    assert_eq!(table.half_open(), 0);
}

/// Hardware speaks for a connection that software sees no packets of.
#[test]
fn hardware_counters_keep_a_connection_alive_and_add_up() {
    let mut table = table(4, 4);
    table.insert(T0, &new(0), timeout).expect("room");
    let slot = established(&mut table, 0, T0);
    let before = table.totals(slot);
    let two_hours = 7_440_000;
    let later = T0.after_ms(two_hours - 1_000);
    table.add_hardware(slot, Direction::Reply, later, Count { packets: 1 << 40, bytes: 1 << 50 });
    table.add_hardware(slot, Direction::Reply, later.after_ms(900), Count::default());
    table.expire(T0.after_ms(two_hours + 600_000), 100, timeout, |_| (), |_| ());
    assert_eq!(table.len(), 1);
    assert_eq!(table.totals(slot).reply.packets, before.reply.packets + (1 << 40));
    assert_eq!(table.totals(slot).reply.bytes, before.reply.bytes + (1 << 50));
    table.expire(later.after_ms(two_hours + two_hours / 20), 100, timeout, |_| (), |_| ());
    assert_eq!(table.len(), 0);
}
