//! Services by source partition in hardware: the model of a device, under both steerings, forwards what
//! the table says, or leaves it to software, whatever happens in between.

use crate::frames::{Fragment, Frame};
use dataplane::addr::{Ip, MacAddr};
use dataplane::config::Config;
use dataplane::flow::Protocol;
use dataplane::ids::{BackendId, PortId, ServiceId};
use dataplane::offload::{Answer, Reached};
use dataplane::packet::{Burst, PacketBuf, TestPacket};
use dataplane::partition;
use dataplane::snapshot::{Overrides, PortFacts as Facts, Snapshot, VlanTags};
use eswitch::model::profile::Profile;
use eswitch::model::switch::{DropReason, Fabric, RxMeta};
use eswitch::model::types::{Role, Vport, VportInfo};
use offload::engine::FlowEngine;
use offload::engine::sim::{SimEngine, SimSetup};
use offload::lower::{PortFacts, Topology};
use offload::machine::{Absent, Machine, Outbox, PartitionRow, Settings};
use offload::rule::Item;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const MS: u64 = 1_000_000;
const PARTITIONS: u32 = 16;
const FRAGMENTS: [Fragment; 2] = [Fragment::First, Fragment::Later];
const PROFILES: [&str; 2] = ["bf2-sws", "bf3-xenoflow"];

const CONFIG: &str = r#"
[[port]]
name = "front"
device = "a"
addresses = ["10.0.0.1/24", "fd00:1::1/64"]
gateway = "10.0.0.254"
[[port]]
name = "back"
device = "b"
addresses = ["10.0.1.1/24", "fd00:2::1/64"]
[[service]]
name = "dns"
vip = "192.0.2.53"
protocol = "udp"
ports = [53]
mode = "dsr"
scheduler = "source-partition"
partitions = 16
[[service.backend]]
address = "10.0.1.11"
[[service.backend]]
address = "10.0.1.12"
[[service.backend]]
address = "10.0.1.13"
"#;

fn mac(port: u16) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, port as u8])
}

/// Where the last packet went.
#[derive(Default)]
struct Doors {
    sent: Option<Vec<u8>>,
}

impl Fabric<TestPacket> for Doors {
    fn transmit(&mut self, _: Vport, packet: TestPacket) {
        self.sent = Some(packet.data().to_vec());
    }

    fn receive(&mut self, _: Vport, _: RxMeta, _: TestPacket) {
        self.sent = None;
    }

    fn copy(&mut self, _: &TestPacket) -> Option<TestPacket> {
        None
    }

    fn discard(&mut self, reason: DropReason, _: TestPacket) {
        panic!("dropped: {reason:?}");
    }
}

/// What workers are told, by backend. Refuses now and then.
#[derive(Default)]
struct Told {
    offers: u32,
    packets: BTreeMap<BackendId, u64>,
    bytes: u64,
}

impl Outbox for Told {
    fn answer(&mut self, answer: Answer) -> Result<(), Answer> {
        self.offers += 1;
        let Answer::Counted { rule: None, backend, counts, .. } = answer else { panic!("{answer:?}") };
        if self.offers % 3 == 0 {
            return Err(answer);
        }
        *self.packets.entry(backend).or_default() += counts[0].packets;
        self.bytes += counts[0].bytes;
        Ok(())
    }
}

struct Bed {
    engine: SimEngine,
    machine: Machine,
    snapshot: Arc<Snapshot>,
    told: Told,
    now: u64,
    forwarded: u64,
    macs: BTreeMap<u8, MacAddr>,
}

fn build(text: &str, drained: &[u8], previous: Option<&Snapshot>) -> Arc<Snapshot> {
    let config = Config::parse("test.toml", text).unwrap_or_else(|faults| panic!("{faults}"));
    let facts = [0, 1].map(|port| Facts { mac: mac(port), mtu: 1500 });
    let mut overrides = Overrides::default();
    for number in drained {
        overrides.drained.insert(("dns".into(), Ip::v4(0x0a00_0100 + u32::from(*number)), None));
    }
    Arc::new(Snapshot::build(&config, &facts, &overrides, previous, &|_| 0).expect("a snapshot"))
}

impl Bed {
    fn new(profile: &str, rules_max: u32) -> Bed {
        Bed::with(profile, &Settings { rules_max, ..Settings::default() })
    }

    fn with(profile: &str, settings: &Settings) -> Bed {
        let port = |ethdev: u16| PortFacts {
            ethdev,
            proxy: 0,
            domain: Some(0),
            mac: mac(ethdev),
            any_mac: false,
            mtu: 1500,
            vlan: VlanTags::default(),
            tunnel: None,
            hairpins: Vec::new(),
        };
        let topology = Arc::new(Topology { ports: vec![port(0), port(1)] });
        let profile = Profile::named(profile).expect("a built-in profile");
        let vport = |role, port_id| VportInfo { role, port_id };
        let setup = SimSetup {
            steering: profile.steering,
            profile,
            vports: vec![vport(Role::Uplink(0), 0), vport(Role::Host(0), 1)],
            topology: Arc::clone(&topology),
            rx_queues: 1,
            rules_max: 1000,
            operations_max: 60,
            seed: 1,
        };
        let engine = SimEngine::new(0, setup);
        let snapshot = build(CONFIG, &[], None);
        let machine = Machine::new(0, settings, engine.traits(), topology, Arc::clone(&snapshot));
        let macs = (11..=13).map(|number| (number, MacAddr([2, 0, 0, 0, 9, number]))).collect();
        Bed { engine, machine, snapshot, told: Told::default(), now: 0, forwarded: 0, macs }
    }

    fn turn(&mut self) {
        self.now += MS.max(self.engine.take_spent_ns());
        self.engine.set_now(self.now);
        self.machine.step(self.now, &mut self.engine, &mut self.told);
    }

    fn pass_ms(&mut self, ms: u64) {
        let end = self.now + ms * MS;
        while self.now < end {
            self.turn();
        }
    }

    /// Workers tell who is at the next hops.
    fn tell(&mut self) {
        for hop in self.snapshot.parted_hops() {
            let mac = self.macs[&(hop.next_hop.low32() as u8)];
            self.machine.reached(&Reached { hop: *hop, mac });
        }
    }

    fn adopt(&mut self, text: &str, drained: &[u8]) {
        self.snapshot = build(text, drained, Some(&self.snapshot));
        self.machine.adopt(self.now, Arc::clone(&self.snapshot));
        self.tell();
    }

    fn frame(client: u32, ttl: u8, fragment: Fragment) -> Vec<u8> {
        Frame {
            dst_mac: mac(0),
            src_mac: MacAddr([2, 0, 0, 0, 8, 8]),
            tags: Vec::new(),
            src: (Ip::v4(0xc633_6400 + client), 4000),
            dst: (Ip::v4(0xc000_0235), 53),
            protocol: Protocol::Udp,
            ttl,
            class: 0,
            flags: 0,
            options: 0,
            fragment,
            checksum: None,
            payload: vec![0; 10],
            padding: 0,
        }
        .bytes()
    }

    /// The MAC address to which hardware sends a frame, if it does.
    fn send(&mut self, bytes: &[u8]) -> Option<MacAddr> {
        let mut burst: Burst<TestPacket> = [TestPacket::new(PortId(0), bytes)].into_iter().collect();
        let mut doors = Doors::default();
        self.engine.forward(0, false, &mut burst, &mut doors);
        let sent = doors.sent?;
        assert_eq!((sent[22], &sent[6..12]), (bytes[22] - 1, &mac(1).0[..]), "as the worker does it");
        self.forwarded += 1;
        Some(MacAddr([sent[0], sent[1], sent[2], sent[3], sent[4], sent[5]]))
    }

    fn whose(&mut self, client: u32) -> Option<MacAddr> {
        self.send(&Bed::frame(client, 60, Fragment::None))
    }

    /// What software would do.
    fn due(&self, client: u32) -> MacAddr {
        let service = self.snapshot.service(ServiceId(0)).expect("the service");
        let id = service.pick(u64::from(partition::of(Ip::v4(client), 4))).expect("a backend");
        self.macs[&(self.snapshot.backend(id).expect("it").address.low32() as u8)]
    }

    /// Hardware forwards all as software would.
    #[track_caller]
    fn assert_all_there(&mut self) {
        for client in 0..2 * PARTITIONS {
            assert_eq!(self.whose(client), Some(self.due(client)), "client {client}");
        }
        assert_eq!(self.machine.counters().partitions.get(), u64::from(PARTITIONS));
        assert_eq!(self.engine.connection_rules(), u64::from(PARTITIONS));
    }

    /// Until nothing changes any more, packets go where they did before or are to go now, or to software.
    #[track_caller]
    fn watch_change(&mut self, before: &[MacAddr]) {
        for _ in 0..200 {
            for client in 0..PARTITIONS {
                let due = [before[client as usize], self.due(client)];
                let whose = self.whose(client);
                assert!(whose.is_none_or(|mac| due.contains(&mac)), "client {client}: {whose:?}");
            }
            self.turn();
        }
        self.pass_ms(1000);
    }
}

fn ready(profile: &str) -> Bed {
    let mut bed = Bed::new(profile, 1000);
    bed.pass_ms(600);
    assert_eq!(bed.whose(1), None, "nobody knows the way yet");
    let absent = &bed.machine.counters().partitions_absent[Absent::Neighbour as usize];
    assert_eq!(absent.get(), u64::from(PARTITIONS));
    bed.tell();
    bed.pass_ms(1000);
    bed
}

#[test]
fn all_partitions_are_forwarded_and_counted() {
    for profile in PROFILES {
        let mut bed = ready(profile);
        bed.assert_all_there();
        assert_eq!(bed.send(&Bed::frame(1, 1, Fragment::None)), None, "it expires");
        for fragment in FRAGMENTS {
            assert_eq!(bed.send(&Bed::frame(1, 60, fragment)), None, "{fragment:?} is software's");
        }
        assert_eq!(bed.machine.partition_rows().len(), PARTITIONS as usize);
        bed.pass_ms(3000);
        assert_eq!(bed.told.packets.values().sum::<u64>(), bed.forwarded, "{profile}");
        assert_eq!(bed.told.bytes, bed.forwarded * (20 + 8 + 10), "bytes of IP packet");
    }
}

#[test]
fn who_is_drained_or_moves_changes_its_own_rules() {
    for profile in PROFILES {
        let mut bed = ready(profile);
        let before: Vec<MacAddr> = (0..PARTITIONS).map(|client| bed.due(client)).collect();
        let insertions = bed.machine.counters().insertions.get();
        bed.adopt(CONFIG, &[12]);
        bed.watch_change(&before);
        bed.assert_all_there();
        let moved =
            (0..PARTITIONS).filter(|client| bed.due(*client) != before[*client as usize]).count() as u64;
        assert_eq!(bed.machine.counters().insertions.get() - insertions, moved, "no other is touched");

        let before: Vec<MacAddr> = (0..PARTITIONS).map(|client| bed.due(client)).collect();
        bed.macs.insert(13, MacAddr([2, 0, 0, 0, 9, 99]));
        bed.tell();
        bed.watch_change(&before);
        bed.assert_all_there();
        bed.pass_ms(4000);
        assert_eq!(bed.told.packets.values().sum::<u64>(), bed.forwarded, "{profile}: none is lost");
    }
}

#[test]
fn a_policy_a_limit_or_the_end_of_the_service_takes_all_out() {
    let limited = CONFIG.replace("partitions = 16", "partitions = 16\nlimit = { packets_per_second = 1000 }");
    let policed = format!("{CONFIG}[[policy]]\naction = \"deny\"\nfrom = [\"198.51.100.0/30\"]\n");
    let ended = CONFIG.replace("name = \"dns\"", "name = \"other\"").replace("192.0.2.53", "192.0.2.54");
    for profile in PROFILES {
        for (text, absent) in
            [(&policed, Some(Absent::Policy)), (&limited, Some(Absent::Metered)), (&ended, None)]
        {
            let mut bed = ready(profile);
            bed.adopt(text, &[]);
            assert!(bed.machine.enforcing());
            let mut turns = 0;
            while bed.machine.enforcing() {
                bed.turn();
                turns += 1;
                assert!(turns < 1000, "it does not end");
            }
            assert!((0..PARTITIONS).all(|client| bed.whose(client).is_none()));
            bed.pass_ms(3000);
            if let Some(absent) = absent {
                let counter = &bed.machine.counters().partitions_absent[absent as usize];
                assert_eq!(counter.get(), u64::from(PARTITIONS), "{profile}");
                assert_eq!((bed.engine.connection_rules(), bed.machine.counters().rules.get()), (0, 0));
            }
            bed.adopt(CONFIG, &[]);
            bed.pass_ms(3000);
            bed.assert_all_there();
        }
    }
}

#[test]
fn a_device_that_was_reset_gets_all_of_them_again() {
    for profile in PROFILES {
        let mut bed = ready(profile);
        bed.engine.reset(0);
        bed.pass_ms(20_000);
        bed.assert_all_there();
        assert_eq!(bed.machine.counters().rules.get(), u64::from(PARTITIONS));
    }
}

/// The rate that the configuration allows is theirs, too; all of them get there.
#[test]
fn rules_come_no_faster_than_allowed() {
    for profile in PROFILES {
        let settings = Settings { rules_max: 1000, insertions_per_second: 10, ..Settings::default() };
        let mut bed = Bed::with(profile, &settings);
        bed.tell();
        for second in 1..=3 {
            bed.pass_ms(1000);
            // A pair is what the bucket holds at this rate.
            let rules = bed.machine.counters().insertions.get();
            assert!(rules <= 10 * second + 2, "{profile}: {rules} rules in {second} s");
        }
        bed.assert_all_there();
    }
}

#[test]
fn what_finds_no_room_stays_in_software() {
    let mut bed = Bed::new("bf3-xenoflow", 10);
    bed.tell();
    bed.pass_ms(3000);
    let counters = Arc::clone(bed.machine.counters());
    assert_eq!(counters.partitions.get(), 10);
    assert_eq!(counters.partitions_absent[Absent::Full as usize].get(), 6);
    for client in 0..PARTITIONS {
        let whose = bed.whose(client);
        assert!(whose.is_none_or(|mac| mac == bed.due(client)));
    }
}

#[test]
fn tallies_say_how_the_rules_of_each_service_stand() {
    let service = &CONFIG[CONFIG.find("[[service]]").expect("a service")..];
    let other = |name: &str, vip: &str| service.replace("dns", name).replace("192.0.2.53", vip);
    let limited = other("time", "192.0.2.55").replace("= 16", "= 16\nlimit = { packets_per_second = 1000 }");
    let mut bed = Bed::new("bf3-xenoflow", 20);
    bed.adopt(&format!("{CONFIG}{}{limited}", other("names", "192.0.2.54")), &[]);
    bed.pass_ms(3000);
    let tallies = bed.machine.partition_tallies();
    let of = |service: u16| {
        let tally = tallies[&ServiceId(service)];
        let full = tally.put_off[Absent::Full as usize];
        let metered = tally.unplanned[Absent::Metered as usize];
        assert!(tally.is_settled());
        [tally.planned, tally.installed, full, metered]
    };
    assert_eq!([of(0), of(1), of(2)], [[16, 16, 0, 0], [16, 4, 12, 0], [0, 0, 0, 16]]);
    let counters = bed.machine.counters();
    let absent = |why: Absent| counters.partitions_absent[why as usize].get();
    assert_eq!([counters.partitions.get(), absent(Absent::Full), absent(Absent::Metered)], [20, 12, 16]);
    // What is on its way is neither.
    let mut bed = Bed::new("bf3-xenoflow", 1000);
    bed.tell();
    while bed.machine.partition_tallies().is_empty() {
        bed.turn();
    }
    assert!(!bed.machine.partition_tallies()[&ServiceId(0)].is_settled());
}

/// Neither a name nor a number of partitions has rules meet of which both match.
#[test]
fn rules_of_one_port_with_other_names_or_bits_never_meet() {
    let coarse = CONFIG.replace("partitions = 16", "partitions = 4");
    let renamed = CONFIG.replace("name = \"dns\"", "name = \"names\"");
    for profile in PROFILES {
        for text in [&coarse, &renamed] {
            let mut bed = ready(profile);
            for text in [text.as_str(), CONFIG] {
                bed.adopt(text, &[]);
                for _ in 0..3000 {
                    let rows = bed.machine.partition_rows();
                    let from = |row: &PartitionRow| {
                        let from = row.rule.items.iter().find_map(|item| match item {
                            Item::Ipv4From { src, .. } => Some((src.mask, src.value)),
                            _ => None,
                        });
                        from.expect("a partition")
                    };
                    let patterns: BTreeSet<(u32, u32)> = rows.iter().map(from).collect();
                    assert_eq!(patterns.len(), rows.len(), "{profile}: two with one pattern");
                    let masks: BTreeSet<u32> = patterns.iter().map(|(mask, _)| *mask).collect();
                    assert!(masks.len() <= 1, "{profile}: one within the other");
                    bed.turn();
                }
                let all = bed.machine.partition_rows();
                assert_eq!(
                    all.len(),
                    if text == coarse.as_str() { 4 } else { PARTITIONS as usize },
                    "{profile}"
                );
            }
        }
    }
}
