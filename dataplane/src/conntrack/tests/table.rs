//! Scenarios, one at a time.

use super::support::{T0, key, new, reply, table, timeout};
use crate::conntrack::{Candidates, InsertError, Slot, State, Table};
use crate::flow::{Direction, FlowKey};
use crate::ids::TenantId;

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
