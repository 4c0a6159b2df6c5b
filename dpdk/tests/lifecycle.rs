//! The EAL from start to end, in the one process it has: order, ownership and errors.

mod common;

use common::{EAL_ARGS, POOL, frame, packet, pool};
use dataplane::packet::PacketBuf;
use dpdk::hash::{self, Hash, HashError};
use dpdk::{Eal, EalError, Mempool, MempoolError, PoolConfig, PortConfig, ProbeError, clock};

/// One test, because a process has one EAL.
#[test]
fn the_eal_starts_once_and_ends_after_everything_else() {
    let with_nul = Eal::init(&["-l\0"]).expect_err("no C string");
    assert!(matches!(with_nul, EalError::NulInArgument(_)), "and the EAL was not touched: {with_nul}");

    let mut args = EAL_ARGS.to_vec();
    args.push("--vdev=net_null_at_start");
    let affinity = allowed_cpus();
    let eal = Eal::init(&args).expect("starts");
    assert_eq!(allowed_cpus(), affinity, "the starting thread keeps its affinity");
    assert!(matches!(Eal::init(EAL_ARGS), Err(EalError::AlreadyStarted)));

    devices_are_owned_once(&eal);
    probing_reports_what_is_wrong(&eal);
    threads_register_once(&eal);
    pools_report_what_is_wrong(&eal);
    hashes_find_what_they_were_given(&eal);
    the_clock_runs(&eal);
    let survivor = a_packet_may_outlive_its_pool(&eal);

    drop(eal);
    assert_eq!(survivor.data(), frame(1, 1500), "its memory is still there");
    drop(survivor);
    assert!(matches!(Eal::init(EAL_ARGS), Err(EalError::AlreadyStarted)));
}

fn devices_are_owned_once(eal: &Eal) {
    let mut found = eal.devices();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].name(), "net_null_at_start");
    assert!(eal.devices().is_empty(), "it is owned");
    let device = found.remove(0);
    let number = device.number();
    drop(device);
    assert_eq!(eal.devices()[0].number(), number, "given up, found again");

    let pool = pool(eal, "owned_once");
    let port = eal.devices().remove(0).configure(&PortConfig::default(), &pool).expect("configures");
    assert!(eal.devices().is_empty(), "the port owns it");
    drop(port);
    assert!(eal.devices().is_empty(), "closed is gone");
}

fn probing_reports_what_is_wrong(eal: &Eal) {
    for devargs in ["net_there_is_no_such_driver", "net_pcap9,rx_pcap=/nonexistent", "0000:ff:1f.7", ""] {
        match eal.probe(devargs) {
            Err(ProbeError::Refused { device, .. }) => assert_eq!(device, devargs),
            other => panic!("{devargs}: {other:?}"),
        }
    }
    assert!(matches!(eal.probe("net\0null"), Err(ProbeError::NulInDevice(_))));
    let first = eal.probe("net_null_twice").expect("probes");
    assert_eq!(first.len(), 1);
    let error = eal.probe("net_null_twice").expect_err("it exists");
    assert!(matches!(error, ProbeError::NoNewPort { .. }), "{error}");
    let second = eal.probe("net_ring_another").expect("probes");
    assert_ne!(first[0].number(), second[0].number());
}

fn threads_register_once(eal: &Eal) {
    assert!(matches!(eal.register_thread(), Err(EalError::ThreadRegistered)), "it started the EAL");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let first = eal.register_thread().expect("registers");
            assert!(matches!(eal.register_thread(), Err(EalError::ThreadRegistered)));
            drop(first);
            drop(eal.register_thread().expect("registers again"));
        });
    });
}

fn hashes_find_what_they_were_given(eal: &Eal) {
    let key = |n: u8| [n; hash::KEY_BYTES];
    for (name, function) in [("jenkins", hash::Function::Jenkins), ("crc", hash::Function::Crc)] {
        let mut set = Hash::create(eal, name, 64, function).expect("there is room");
        assert!(matches!(Hash::create(eal, name, 64, function), Err(HashError::Create { .. })), "same name");
        let first = set.add(&key(1)).expect("there is room");
        let second = set.add(&key(2)).expect("there is room");
        assert_eq!(set.add(&key(1)), Ok(first));
        let [a, b, c] = set.find_burst(&[key(2), key(3), key(1)]);
        assert_eq!((a, c), (second as i32, first as i32));
        assert!(b < 0 && first <= 64 && second <= 64 && first != second);
        let added = (3..=255).filter(|&n| set.add(&key(n)).is_ok()).count();
        assert!((40..=64).contains(&added), "{added}");
    }
    assert!(matches!(Hash::create(eal, "\0", 64, hash::Function::Crc), Err(HashError::NulInName(_))));
}

fn pools_report_what_is_wrong(eal: &Eal) {
    let config = PoolConfig {
        name: "p",
        count: 1023,
        cache: 0,
        data_room_bytes: PoolConfig::DATA_ROOM_BYTES,
        socket: None,
    };
    let error = |config: PoolConfig<'_>| Mempool::create(eal, &config).expect_err("impossible");
    let huge = error(PoolConfig { count: 1 << 30, ..config.clone() });
    assert!(matches!(huge, MempoolError::Create { .. }), "{huge}");
    let cache = error(PoolConfig { cache: 4096, ..config.clone() });
    assert_eq!(cache.to_string(), "creating pool p of 1023 buffers: Invalid argument (errno 22)");
    let room = error(PoolConfig { data_room_bytes: 64, ..config.clone() });
    assert!(matches!(room, MempoolError::DataRoom { .. }), "{room}");

    let first = Mempool::create(eal, &config).expect("an ordinary pool");
    let taken = error(config.clone());
    assert_eq!(taken.to_string(), "creating pool p of 1023 buffers: File exists (errno 17)");
    drop(first);
    Mempool::create(eal, &config).expect("dropped is freed, and so is its name");
}

fn the_clock_runs(eal: &Eal) {
    let hz = clock::tsc_hz(eal);
    assert!(hz > 1_000_000, "{hz}");
    let before = clock::rdtsc();
    std::thread::sleep(std::time::Duration::from_millis(20));
    let elapsed = clock::rdtsc() - before;
    assert!(elapsed >= hz / 100, "20 ms are at least 10 ms: {elapsed} of {hz}");
}

fn a_packet_may_outlive_its_pool(eal: &Eal) -> dpdk::Mbuf {
    let pool = pool(eal, "outlived");
    let survivor = packet(&pool, &frame(1, 1500));
    assert_eq!(pool.available(), POOL - 1);
    drop(pool);
    survivor
}

/// The CPUs this thread may run on, as the kernel writes them.
fn allowed_cpus() -> String {
    let status = std::fs::read_to_string("/proc/thread-self/status").expect("the kernel says");
    status.lines().find(|line| line.starts_with("Cpus_allowed_list")).expect("in every status").to_owned()
}
