//! Packets through real queues of software devices: every byte arrives, and every buffer is accounted for.

mod common;

use common::{POOL, device, eal, frame, packet, pool, receive_all, send_until_refused};
use dataplane::ids::PortId;
use dataplane::owner::{self, Owners};
use dataplane::packet::{BURST, Burst, PacketBuf};
use dpdk::{ConfigureError, ControlError, Granted, Mbuf, PoolConfig, Port, PortConfig, QueueError, Rss};

/// What is in use, and that nothing else is missing.
fn in_use(pool: &dpdk::Mempool<'_>) -> u32 {
    assert_eq!(pool.in_use() + pool.available(), POOL);
    pool.in_use()
}

#[test]
fn a_ring_returns_what_was_sent_and_refuses_what_does_not_fit() {
    let pool = pool(eal(), "ring");
    let config = PortConfig { id: PortId(7), ..PortConfig::default() };
    let mut port = device(eal(), "net_ring_full").configure(&config, &pool).expect("configures");
    port.start().expect("starts");
    assert!(port.granted().all_multicast && !port.granted().promiscuous);
    let (mut rx, mut tx) = (port.rx_queue(0).expect("rx"), port.tx_queue(0).expect("tx"));

    let (sent, refused) = send_until_refused(&mut tx, |i| packet(&pool, &frame(i, 60 + i % 1400)));
    assert!(sent >= BURST && sent % BURST != 0, "the ring fills in the middle of a burst: {sent}");
    assert_eq!(in_use(&pool) as usize, sent + refused.len());
    for (i, packet) in refused.iter().enumerate() {
        assert_eq!(packet.data(), frame(sent + i, 60 + (sent + i) % 1400), "refused packets stay in order");
    }
    let mut again = refused;
    let offered = again.len();
    assert_eq!(tx.burst(&mut again), 0);
    assert_eq!(again.len(), offered);
    drop(again);
    assert_eq!(in_use(&pool) as usize, sent);

    let received = receive_all(&mut rx);
    assert_eq!(received.len(), sent);
    for (i, packet) in received.iter().enumerate() {
        assert_eq!(packet.data(), frame(i, 60 + i % 1400));
        assert_eq!(packet.port(), PortId(7));
        assert_eq!(packet.pkt_len(), packet.data().len());
        assert!(packet.is_contiguous());
        assert_eq!(packet.rss_hash(), None);
    }
    drop(received);
    assert_eq!(in_use(&pool), 0);

    let stats = port.stats().expect("stats");
    assert_eq!((stats.rx_packets, stats.tx_packets), (sent as u64, sent as u64));
}

#[test]
fn a_burst_is_appended_up_to_the_capacity() {
    let pool = pool(eal(), "append");
    let mut port =
        device(eal(), "net_ring_append").configure(&PortConfig::default(), &pool).expect("configures");
    port.start().expect("starts");
    let (mut rx, mut tx) = (port.rx_queue(0).expect("rx"), port.tx_queue(0).expect("tx"));

    let mut out: Burst<Mbuf> = (0..10).map(|i| packet(&pool, &frame(i, 64))).collect();
    assert_eq!(tx.burst(&mut out), 10);
    assert!(out.is_empty());
    assert_eq!(tx.burst(&mut out), 0, "an empty burst sends nothing");

    let mut small = arrayvec::ArrayVec::<Mbuf, 4>::new();
    small.push(packet(&pool, &frame(99, 64)));
    assert_eq!(rx.burst(&mut small), 3);
    assert_eq!(rx.burst(&mut small), 0, "a full vector receives nothing");
    assert_eq!(small[0].data(), frame(99, 64));
    assert_eq!(small[0].port(), PortId(u16::MAX), "made here, received nowhere");
    assert_eq!(small[3].data(), frame(2, 64));
    assert_eq!(receive_all(&mut rx).len(), 7);
    drop(small);
    assert_eq!(in_use(&pool), 0);
}

#[test]
fn packets_keep_within_their_buffer() {
    let pool = pool(eal(), "limits");
    let room = usize::from(PoolConfig::DATA_ROOM_BYTES - PoolConfig::HEADROOM_BYTES);
    let headroom = usize::from(PoolConfig::HEADROOM_BYTES);
    let mut packet = packet(&pool, &frame(1, 100));
    packet.prefetch();

    assert!(!packet.grow_front(headroom + 1));
    assert!(!packet.grow_front(usize::MAX));
    assert!(!packet.trim_front(101));
    assert!(!packet.set_len(room + 1));
    assert!(!packet.set_len(usize::MAX));
    assert_eq!(packet.data(), frame(1, 100), "what does not fit changes nothing");

    assert!(packet.grow_front(headroom));
    assert_eq!(packet.data().len(), 100 + headroom);
    assert_eq!(packet.data()[headroom..], frame(1, 100));
    assert!(!packet.grow_front(1));
    assert!(packet.set_len(room + headroom));
    packet.data_mut().fill(0xa5);
    assert!(packet.trim_front(room + headroom - 1));
    assert_eq!(packet.data(), [0xa5]);
    assert!(!packet.set_len(2));
    assert!(packet.trim_front(1));
    assert_eq!((packet.data().len(), packet.pkt_len()), (0, 0));

    packet.set_port(PortId(3));
    assert_eq!(packet.port(), PortId(3));
    assert_eq!(in_use(&pool), 1);
    drop(packet);
    assert_eq!(in_use(&pool), 0);
}

#[test]
fn an_exhausted_pool_says_so() {
    let pool = pool(eal(), "exhausted");
    let mut all: Vec<Mbuf> = std::iter::from_fn(|| pool.alloc()).collect();
    assert_eq!(all.len() as u32, POOL);
    assert!(pool.alloc().is_none());
    all.truncate(all.len() - 10);
    let mut burst = Burst::new();
    assert!(!pool.alloc_bulk(&mut burst), "ten are fewer than a burst");
    assert!(burst.is_empty());
    assert_eq!(in_use(&pool), POOL - 10);
    all.truncate(all.len() - BURST + 10);
    assert!(pool.alloc_bulk(&mut burst));
    assert_eq!((burst.len(), in_use(&pool)), (BURST, POOL));
    drop((all, burst));
    assert_eq!(in_use(&pool), 0);
}

#[test]
fn packets_are_freed_on_whatever_thread_they_end() {
    let pool = pool(eal(), "threads");
    std::thread::scope(|scope| {
        for _ in 0..3 {
            let handed_over: Vec<Mbuf> = (0..500).map(|i| packet(&pool, &frame(i, 64))).collect();
            scope.spawn(move || {
                let _registered = eal().register_thread().expect("registers");
                assert_eq!(handed_over[499].data(), frame(499, 64));
                drop(handed_over);
            });
        }
    });
    assert_eq!(in_use(&pool), 0);
}

/// A capture file, as its format is documented: microseconds, Ethernet.
fn pcap(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [0xa1b2_c3d4_u32, 4 << 16 | 2, 0, 0, 65535, 1] {
        bytes.extend(word.to_le_bytes());
    }
    for frame in frames {
        for word in [0, 0, frame.len() as u32, frame.len() as u32] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(frame);
    }
    bytes
}

/// The frames of a capture file.
fn pcap_frames(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    bytes = &bytes[24..];
    while let Some((header, rest)) = bytes.split_at_checked(16) {
        let len = u32::from_le_bytes(header[8..12].try_into().expect("four bytes")) as usize;
        let (frame, rest) = rest.split_at(len);
        frames.push(frame.to_vec());
        bytes = rest;
    }
    frames
}

#[test]
fn captures_go_through_byte_by_byte() {
    let dir = tempfile::tempdir().expect("a directory");
    let (input, output) = (dir.path().join("in.pcap"), dir.path().join("out.pcap"));
    let frames: Vec<Vec<u8>> = (0..200).map(|i| frame(i, 60 + i * 7)).collect();
    std::fs::write(&input, pcap(&frames)).expect("written");

    let pool = pool(eal(), "pcap");
    let devargs = format!("net_pcap_capture,rx_pcap={},tx_pcap={}", input.display(), output.display());
    let mut port = device(eal(), &devargs).configure(&PortConfig::default(), &pool).expect("configures");
    assert_eq!(port.driver_name(), "net_pcap");
    port.start().expect("starts");
    {
        let (mut rx, mut tx) = (port.rx_queue(0).expect("rx"), port.tx_queue(0).expect("tx"));
        let mut burst: Burst<Mbuf> = Burst::new();
        let mut seen = 0;
        while rx.burst(&mut burst) > 0 {
            for packet in &burst {
                assert_eq!(packet.data(), frames[seen]);
                seen += 1;
            }
            tx.burst(&mut burst);
            assert!(burst.is_empty());
        }
        assert_eq!(seen, frames.len());
    }
    drop(port);
    assert_eq!(in_use(&pool), 0);
    assert_eq!(pcap_frames(&std::fs::read(&output).expect("read")), frames);
}

#[test]
fn a_scattered_frame_is_recognised() {
    let dir = tempfile::tempdir().expect("a directory");
    let input = dir.path().join("in.pcap");
    std::fs::write(&input, pcap(&[frame(1, 5000)])).expect("written");
    let pool = pool(eal(), "scattered");
    let devargs = format!("net_pcap_scattered,rx_pcap={}", input.display());
    let mut port = device(eal(), &devargs).configure(&PortConfig::default(), &pool).expect("configures");
    port.start().expect("starts");
    let mut rx = port.rx_queue(0).expect("rx");
    let mut received = receive_all(&mut rx);
    assert_eq!(received.len(), 1);
    let packet = &mut received[0];
    assert!(!packet.is_contiguous());
    assert_eq!(packet.pkt_len(), 5000);
    assert_eq!(packet.data(), &frame(1, 5000)[..packet.data().len()]);
    assert!(!packet.set_len(100), "its end is elsewhere");
    assert!(in_use(&pool) > 1);
    drop(received);
    assert_eq!(in_use(&pool), 0);
}

#[test]
fn null_ports_receive_and_discard_endlessly() {
    let pool = pool(eal(), "null");
    let config = PortConfig { id: PortId(1), ..PortConfig::default() };
    let mut port = device(eal(), "net_null_endless,size=64").configure(&config, &pool).expect("configures");
    port.start().expect("starts");
    assert_eq!(port.id(), PortId(1));
    assert_eq!(port.name(), "net_null_endless");
    assert_eq!(port.mac().expect("a MAC address").len(), 6);
    assert!(port.link().expect("a link").up);
    let (mut rx, mut tx) = (port.rx_queue(0).expect("rx"), port.tx_queue(0).expect("tx"));
    let mut burst: Burst<Mbuf> = Burst::new();
    for _ in 0..1000 {
        assert_eq!(rx.burst(&mut burst), BURST);
        assert_eq!(burst[0].data().len(), 64);
        assert_eq!(tx.burst(&mut burst), BURST);
    }
    assert_eq!(in_use(&pool), 0);
    let stats = port.stats().expect("stats");
    assert_eq!((stats.rx_packets, stats.tx_packets), (32_000, 32_000));
    let xstats = port.xstats().expect("xstats");
    assert!(xstats.contains(&("rx_good_packets".to_owned(), 32_000)), "{xstats:?}");
}

#[test]
fn queues_are_taken_once_and_return() {
    let pool = pool(eal(), "claims");
    let config = PortConfig { rx_queues: 2, tx_queues: 2, ..PortConfig::default() };
    let mut port = device(eal(), "net_null_claims").configure(&config, &pool).expect("configures");
    let name = || "net_null_claims".to_owned();
    assert_eq!(port.rx_queue(0).err(), Some(QueueError::NotStarted { port: name() }));
    port.start().expect("starts");
    {
        let _first = port.rx_queue(0).expect("the first");
        let _second = port.rx_queue(1).expect("the second");
        let _other = port.tx_queue(0).expect("tx is another queue");
        assert_eq!(port.rx_queue(0).err(), Some(QueueError::Taken { port: name(), queue: 0 }));
        assert_eq!(port.tx_queue(2).err(), Some(QueueError::NoSuchQueue { port: name(), queue: 2 }));
    }
    std::mem::forget(port.rx_queue(0).expect("it has returned"));
    port.stop().expect("stops");
    port.start().expect("starts again");
    assert!(port.rx_queue(0).is_ok(), "stopping takes back what was forgotten");
}

#[test]
fn spreading_is_granted_as_far_as_the_device_can() {
    let pool = pool(eal(), "rss");
    let config = PortConfig { rx_queues: 4, rss: Rss::L3SrcOnly, promiscuous: true, ..PortConfig::default() };
    let mut port = device(eal(), "net_null_rss").configure(&config, &pool).expect("configures");
    port.start().expect("starts");
    let Granted { rss, rss_key, reta_entries, .. } = *port.granted();
    assert!(rss_key);
    assert_eq!(rss, Rss::L3, "it hashes both addresses or none");

    let size = usize::from(reta_entries);
    let owners = Owners::new(&owner::DEFAULT_KEY, 4, reta_entries).expect("a table for four workers");
    let reta: Vec<u16> = owners.reta(size).expect("of this size").iter().map(|worker| worker.0).collect();
    port.set_reta(&reta).expect("set");
    let table = port.rss_table().expect("a table");
    assert_eq!(table.reta, reta);
    assert_eq!(table.key, owners.key(40).expect("an ordinary length"));

    let wrong = ControlError::Reta { port: "net_null_rss".to_owned(), size: size as u16, queues: 4 };
    assert_eq!(port.set_reta(&reta[1..]), Err(wrong.clone()));
    assert_eq!(port.set_reta(&vec![4; size]), Err(wrong));
}

#[test]
fn impossible_configurations_are_refused_by_name() {
    let pool = pool(eal(), "absurd");
    let configure = |devargs: &str, config: PortConfig| -> Result<Port<'_>, ConfigureError> {
        device(eal(), devargs).configure(&config, &pool)
    };
    let queues = |rx_queues| PortConfig { rx_queues, ..PortConfig::default() };
    for (name, asked) in [("net_ring_q0", 0), ("net_ring_q9999", 9999)] {
        let error = configure(name, queues(asked)).expect_err("no device has so many");
        assert!(matches!(&error, ConfigureError::Queues { asked: a, .. } if *a == asked), "{error}");
        assert!(error.to_string().contains(name), "{error}");
    }
    let mtu = |mtu| PortConfig { mtu: Some(mtu), ..PortConfig::default() };
    let error = configure("net_ring_mtu", mtu(9000)).expect_err("it does not fit");
    assert!(matches!(error, ConfigureError::BufferTooSmall { room_bytes: 2176, .. }), "{error}");
    let error = configure("net_ring_mtu0", mtu(0)).expect_err("no packet is that small");
    assert!(matches!(error, ConfigureError::Mtu { mtu: 0, .. }), "{error}");
    let port = configure("net_ring_mtu1400", mtu(1400)).expect("an ordinary MTU");
    assert_eq!(port.mtu(), Ok(1400));
}
