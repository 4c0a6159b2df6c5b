//! What the tests share: keys, tables, timeouts.

use crate::addr::Ip;
use crate::conntrack::{Candidates, New, Outcome, Shape, Slot, State, Table};
use crate::flow::{Direction, FlowHasher, FlowKey, Protocol};
use crate::ids::{BackendId, ServiceId, TenantId, WorkerId};
use crate::snapshot::Timeouts;
use crate::time::Tick;
use crate::wire::parse::TcpFlags;

pub(super) const HASHER: FlowHasher = FlowHasher::new([
    0x243f_6a88_85a3_08d3,
    0x1319_8a2e_0370_7344,
    0xa409_3822_299f_31d0,
    0x082e_fa98_ec4e_6c89,
]);

pub(in crate::conntrack) const T0: Tick = Tick(1_000);

/// A table without grace.
pub(in crate::conntrack) fn table(connections: u32, half_open_max: u32) -> Table {
    let shape = Shape { connections, half_open_max, half_open_grace_ms: 0 };
    Table::new(WorkerId(3), shape, HASHER, T0)
}

/// The default timeouts, for every service.
pub(in crate::conntrack) fn timeout(_: ServiceId, state: State) -> u32 {
    Timeouts::default().timeout_ms(state)
}

/// The `n`th client's connection to port 80 of 192.0.2.1.
pub(super) fn key(n: u32) -> FlowKey {
    FlowKey {
        src: Ip::v4(0x0a00_0000 + n / 60_000),
        dst: Ip::v4(0xc000_0201),
        src_port: 1024 + (n % 60_000) as u16,
        dst_port: 80,
        tenant: TenantId(0),
        protocol: Protocol::Tcp,
    }
}

/// That connection through NAT to 172.16.0.1:8080.
pub(in crate::conntrack) fn new(n: u32) -> New {
    New {
        key: key(n),
        service: ServiceId(1),
        backend: BackendId(2),
        backend_ip: Ip::v4(0xac10_0001),
        backend_port: 8080,
        nat: true,
        flags: TcpFlags::SYN,
        judged: 0,
    }
}

/// The key of its replies.
pub(super) fn reply(new: &New) -> FlowKey {
    FlowKey {
        dst: new.key.src,
        dst_port: new.key.src_port,
        src: new.backend_ip,
        src_port: new.backend_port,
        ..new.key
    }
}

/// Completes the handshake of the `n`th client's connection, which is in the table.
pub(super) fn established(table: &mut Table, n: u32, now: Tick) -> Slot {
    let hash = table.hash(&key(n));
    let (slot, _) = table.find(&key(n), hash, Candidates::default()).expect("it was inserted");
    let syn_ack = TcpFlags::SYN.with(TcpFlags::ACK);
    for (direction, flags) in [(Direction::Reply, syn_ack), (Direction::Original, TcpFlags::ACK)] {
        let outcome = table.account(slot, direction, now, 40, flags, |state| timeout(ServiceId(1), state));
        assert_ne!(outcome, Outcome::Unchanged);
    }
    slot
}
