//! Scenarios, one at a time.

use super::support::{T0, established, key, new, reply, table, timeout};
use crate::addr::Ip;
use crate::conntrack::table::V6_BYTES;
use crate::conntrack::{Candidates, Count, InsertError, New, Outcome, Slot, State, Table, Totals};
use crate::flow::{Direction, FlowKey};
use crate::ids::{ServiceId, TenantId};
use crate::wire::parse::TcpFlags;

fn find(table: &Table, key: &FlowKey) -> Option<(Slot, Direction)> {
    let hash = table.hash(key);
    let found = table.find(key, hash, Candidates::default());
    assert_eq!(found, table.find(key, hash, table.probe(hash)), "probing changes nothing");
    found
}

#[test]
fn both_directions_are_found_and_forgotten() {
    let mut table = table(8, 8);
    let slot = table.insert(T0, &new(1), timeout).expect("room").slot;
    assert_eq!(find(&table, &key(1)), Some((slot, Direction::Original)));
    assert_eq!(find(&table, &reply(&new(1))), Some((slot, Direction::Reply)));
    assert_eq!(find(&table, &FlowKey { tenant: TenantId(1), ..key(1) }), None);
    assert_eq!(table.insert(T0, &new(1), timeout), Err(InsertError::Duplicate(slot)));
    let flow = table.flow_ref(slot);
    assert_eq!(table.resolve(flow), Some(slot));

    let gone = table.remove(slot).expect("it was there");
    assert_eq!((gone.flow, gone.state, gone.half_open), (flow, State::SynSent, true));
    assert_eq!((find(&table, &key(1)), find(&table, &reply(&new(1)))), (None, None));
    assert_eq!((table.len(), table.half_open(), table.resolve(flow)), (0, 0, None));
    assert_eq!(table.remove(slot), None);
}

/// Newcomers of one burst are prepared and looked for together, then opened one after the other.
#[test]
fn what_was_prepared_or_probed_may_be_stale() {
    let mut table = table(8, 8);
    let hash = table.hash(&key(1));
    let stale = table.probe(hash);
    assert_eq!(table.find(&key(1), hash, stale), None);
    let other_vip = New { key: FlowKey { dst: Ip::v4(0xc000_0202), ..key(1) }, ..new(1) };
    let news = [new(1), new(1), other_vip, new(2)];
    let prepared = news.each_ref().map(|new| table.prepare(new, table.hash(&new.key)));
    let slot = table.insert_prepared(T0, &news[0], &prepared[0], timeout).expect("room").slot;
    assert_eq!(table.find(&key(1), hash, stale), Some((slot, Direction::Original)));
    let results = [1, 2, 3].map(|at| table.insert_prepared(T0, &news[at], &prepared[at], timeout));
    assert_eq!(results[..2], [Err(InsertError::Duplicate(slot)), Err(InsertError::ReplyCollision)]);
    assert!(results[2].is_ok());
}

/// Two VIPs in front of one backend, and a client that uses one source port towards both.
#[test]
fn replies_that_could_not_be_told_apart_are_refused() {
    let mut table = table(8, 8);
    let first = table.insert(T0, &new(1), timeout).expect("room").slot;
    let other_vip = New { key: FlowKey { dst: Ip::v4(0xc000_0202), ..key(1) }, ..new(1) };
    assert_eq!(table.insert(T0, &other_vip, timeout), Err(InsertError::ReplyCollision));
    assert_eq!(find(&table, &other_vip.key), None);
    assert_eq!(find(&table, &reply(&new(1))), Some((first, Direction::Reply)));
    let other_backend = New { backend_port: 8081, ..other_vip };
    assert!(table.insert(T0, &other_backend, timeout).is_ok());

    // A backend that is itself a client, whose first packet looks like a reply.
    let key = reply(&new(1));
    let backwards = New { key, backend_ip: Ip::v4(9), ..new(1) };
    assert_eq!(table.insert(T0, &backwards, timeout), Err(InsertError::ReplyCollision));
    // A client that is its own backend behind its own address.
    let own = FlowKey { dst: key.src, dst_port: key.src_port, ..key };
    let mirror = New { key: own, backend_ip: own.src, backend_port: own.src_port, ..new(1) };
    assert_eq!(table.insert(T0, &mirror, timeout), Err(InsertError::ReplyCollision));
    let mixed = New { backend_ip: Ip::v6([0x20; 16]), ..new(2) };
    assert_eq!(table.insert(T0, &mixed, timeout), Err(InsertError::MixedFamilies));
}

#[test]
fn counters_go_on_past_32_bits() {
    let mut table = table(4, 4);
    table.insert(T0, &new(0), timeout).expect("room");
    let slot = established(&mut table, 0, T0);
    for _ in 0..5 {
        let outcome = table.account(slot, Direction::Reply, T0, u32::MAX, TcpFlags::ACK, |_| 0);
        assert_eq!(outcome, Outcome::Unchanged);
    }
    let totals = table.totals(slot);
    assert_eq!(totals.original, Count { packets: 1, bytes: 40 });
    assert_eq!(totals.reply, Count { packets: 6, bytes: 40 + 5 * u64::from(u32::MAX) });
    // The next connection in this slot starts from nothing.
    table.remove(slot).expect("it was there");
    let next = table.insert(T0, &new(1), timeout).expect("room").slot;
    assert_eq!((next, table.totals(next)), (slot, Totals::default()));
}

/// From an established connection's two hours to a reset one's five seconds.
#[test]
fn a_shorter_timeout_takes_hold_at_once() {
    let mut table = table(4, 4);
    table.insert(T0, &new(0), timeout).expect("room");
    let slot = established(&mut table, 0, T0);
    // Looked at after the half-open timeout, and put off for two hours.
    assert_eq!(table.expire(T0.after_ms(20_000), 9, timeout, |_| panic!("too early"), |_| ()), 1);
    let now = T0.after_ms(21_000);
    let outcome = table.account(slot, Direction::Reply, now, 40, TcpFlags::RST, |s| timeout(ServiceId(0), s));
    assert_eq!(outcome, Outcome::Changed(State::ResetBackend));
    assert_eq!(table.expire(now.after_ms(4_900), 9, timeout, |_| panic!("too early"), |_| ()), 0);
    table.expire(now.after_ms(6_000), 9, timeout, |_| (), |_| ());
    assert!(table.is_empty());
}

/// What a tracked NAT connection costs, both directions and the index included, with the default tenth of
/// the table for half-open connections.
#[test]
fn memory_per_connection() {
    let size = if cfg!(miri) { 2_000 } else { 1_000_000 };
    let mut table = table(size, size / 10);
    for n in 0..size {
        table.insert(T0, &new(n), timeout).expect("room for all");
        established(&mut table, n, T0);
    }
    assert_eq!(table.len(), size as usize);
    let each = table.memory_bytes() as f64 / f64::from(size);
    println!("{size} IPv4 NAT connections: {each:.2} bytes each, IPv6: {:.2}", each + V6_BYTES as f64);
    assert!(cfg!(miri) || each <= 80.0 && each + V6_BYTES as f64 <= 128.0, "{each}");
}
