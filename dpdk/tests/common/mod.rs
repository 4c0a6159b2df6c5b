//! One EAL per test process, without hugepages, PCI or files.

#![allow(dead_code, reason = "each test process uses its part")]

use std::sync::OnceLock;

use dataplane::packet::{BURST, Burst, PacketBuf};
use dpdk::{Device, Eal, Mbuf, Mempool, PoolConfig, RxQueue, TxQueue};

/// Works as any user that may lock memory, and leaves nothing behind.
pub(crate) const EAL_ARGS: &[&str] = &[
    "--no-huge",
    "--no-shconf",
    "-m",
    "256",
    "--no-pci",
    "--no-telemetry",
    "-l",
    "0",
    "--log-level=*:error",
];

/// The process's EAL, for tests that run side by side and never end it.
pub(crate) fn eal() -> &'static Eal {
    static EAL: OnceLock<Eal> = OnceLock::new();
    EAL.get_or_init(|| Eal::init(EAL_ARGS).expect("the EAL starts"))
}

/// Buffers in [`pool`].
pub(crate) const POOL: u32 = 4095;

/// A pool of [`POOL`] ordinary buffers.
pub(crate) fn pool<'eal>(eal: &'eal Eal, name: &str) -> Mempool<'eal> {
    let config = PoolConfig {
        name,
        count: POOL,
        cache: 64,
        data_room_bytes: PoolConfig::DATA_ROOM_BYTES,
        socket: None,
    };
    Mempool::create(eal, &config).expect("there is memory for a pool")
}

/// Probes a device that brings one port.
pub(crate) fn device<'eal>(eal: &'eal Eal, devargs: &str) -> Device<'eal> {
    let mut devices = eal.probe(devargs).expect("the device probes");
    assert_eq!(devices.len(), 1, "{devargs} brings one port");
    devices.remove(0)
}

/// A frame of `len` bytes that no other `seed` gives.
pub(crate) fn frame(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|i| (seed.wrapping_mul(31) + i * 7 + (i >> 8)) as u8).collect()
}

/// A packet with these bytes.
pub(crate) fn packet(pool: &Mempool<'_>, bytes: &[u8]) -> Mbuf {
    let mut packet = pool.alloc().expect("the pool has buffers");
    assert!(packet.set_len(bytes.len()), "{} bytes fit", bytes.len());
    packet.data_mut().copy_from_slice(bytes);
    packet
}

/// Receives until nothing more arrives.
pub(crate) fn receive_all(rx: &mut RxQueue<'_>) -> Vec<Mbuf> {
    let mut all = Vec::new();
    let mut burst = Burst::new();
    while rx.burst(&mut burst) > 0 {
        all.extend(burst.drain(..));
    }
    all
}

/// Sends what `next` makes, by its number, until a packet is refused; returns how many were sent, and
/// what stayed behind.
pub(crate) fn send_until_refused(
    tx: &mut TxQueue<'_>,
    mut next: impl FnMut(usize) -> Mbuf,
) -> (usize, Burst<Mbuf>) {
    let mut sent = 0;
    loop {
        let mut burst: Burst<Mbuf> = (sent..sent + BURST).map(&mut next).collect();
        sent += tx.burst(&mut burst);
        if !burst.is_empty() {
            return (sent, burst);
        }
    }
}
