//! A device worked by bytes: each few are an operation of an application, of time, of the wire, or a fault.
//! After each, what always holds is checked; at the end everything is taken down, and nothing may be left.
//!
//! Driven by the fuzz targets and by `tests/determinism.rs`. What the device does goes into a hash.

#[path = "bytes.rs"]
mod bytes;
#[path = "wishes.rs"]
mod wishes;

use std::fmt::Debug;
use std::sync::Arc;

use dataplane::ids::PortId;
use dataplane::packet::{BURST, Burst, PacketBuf, TestPacket};
use eswitch::model::action::{Action, FieldRef, FieldSource, Shared};
use eswitch::model::faults::Faults;
use eswitch::model::item::Item;
use eswitch::model::objects::meters::{Algorithm, MeterParams, Profile as MeterProfile};
use eswitch::model::pattern::PatternTemplate;
use eswitch::model::profile::Profile;
use eswitch::model::program::ActionsTemplate;
use eswitch::model::queue::{ActionOp, ActionUpdate, Completion};
use eswitch::model::refusal::{Errno, Refusal};
use eswitch::model::switch::{
    ConfigureAttr, DropReason, Eswitch, Fabric, FlowQueue, RxConfig, RxMeta, Table, VportStatistics,
};
use eswitch::model::types::{Attr, Role, RuleHandle, Steering, Tick, Topology, Vport, VportInfo};
use eswitch::model::validate::{self, Context, Pools, Port, TableAttr, TemplateAttr};

pub(crate) use bytes::Bytes;

const VPORTS: usize = 4;
const PROFILES: [&str; 5] = ["ideal", "bf3-hws", "cx6dx", "bf2-sws", "bf3-xenoflow"];
const FAULTS: [&str; 12] = [
    "",
    "refuse=0.1,seed=1",
    "fail=0.3,reorder=0.3,seed=2",
    "delay_us=300",
    "lose_counters=0.5,age_early=0.1,seed=3",
    "full_at=9",
    "stop_port=1",
    "full_at=3,counters_at=2,ages_at=1,meters_at=0",
    "lose_completions=0.2,refuse=0.05,fail=0.1,reorder=0.5,seed=4",
    "reset",
    "miss=0.5,seed=5",
    "hang_ms=3,delay_us=5",
];

/// FNV-1a, over whatever is to be compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Trace(pub(crate) u64);

impl Trace {
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
    }

    fn note(&mut self, what: &impl Debug) {
        self.add(format!("{what:?}").as_bytes());
    }
}

/// Counts what leaves, and what it was.
struct Doors<'t> {
    trace: &'t mut Trace,
    copies: u64,
    left: u64,
}

impl Fabric<TestPacket> for Doors<'_> {
    fn transmit(&mut self, to: Vport, packet: TestPacket) {
        self.left += 1;
        self.trace.note(&to);
        self.trace.add(packet.data());
    }

    fn receive(&mut self, at: Vport, meta: RxMeta, packet: TestPacket) {
        self.left += 1;
        self.trace.note(&(at, meta));
        self.trace.add(packet.data());
    }

    fn copy(&mut self, packet: &TestPacket) -> Option<TestPacket> {
        self.copies += 1;
        Some(packet.clone())
    }

    fn discard(&mut self, reason: DropReason, _packet: TestPacket) {
        self.left += 1;
        self.trace.note(&reason);
    }
}

/// A rule of a flow queue, as the application knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Creating,
    Settled,
    Destroying,
}

#[derive(Debug)]
struct Queued {
    handle: RuleHandle,
    stage: Stage,
    /// Of the operation that is outstanding.
    user_data: u64,
}

pub(crate) struct Machine {
    device: Eswitch,
    context: Arc<Context>,
    profile: Profile,
    seed: u64,
    now: Tick,
    /// Of the synchronous API; those that are gone stay, to be tried again.
    rules: Vec<(Vport, RuleHandle, bool)>,
    /// Each with the bytes that its templates were made of, which make rules for it, too.
    tables: Vec<(Table, Vec<u8>)>,
    queues: Vec<FlowQueue>,
    /// By queue.
    queued: Vec<Vec<Queued>>,
    /// Outstanding operations without a rule.
    acts: Vec<(usize, u64)>,
    shared: Vec<Shared>,
    /// Whose destruction may have come to nothing.
    doubtful: Vec<Shared>,
    operations: u64,
    entered: u64,
    /// Of those, how many came from a wire whose link a fault had cut.
    offline: u64,
    cut: [bool; VPORTS],
    copies: u64,
    left: u64,
    pub(crate) trace: Trace,
}

/// Runs a string of bytes under a seed; the trace of what the device did, and how many rules it had.
pub(crate) fn run(input: &[u8], seed: u64) -> (Trace, u64) {
    let mut bytes = Bytes(input);
    let mut machine = Machine::new(&mut bytes, seed);
    while !bytes.is_empty() {
        machine.step(&mut bytes);
        machine.check();
    }
    machine.take_down();
    (machine.trace, machine.device.statistics().installed)
}

impl Machine {
    pub(crate) fn new(bytes: &mut Bytes<'_>, seed: u64) -> Machine {
        let (choice, options) = (bytes.byte(), bytes.byte());
        let steering = if choice & 1 == 0 { Steering::Software } else { Steering::Hardware };
        let mut profile = Profile::named(PROFILES[usize::from(choice >> 1) % 5]).expect("a built-in profile");
        (profile.counters_max, profile.ages_max, profile.meters_max) = (64, 32, 8);
        profile.rules_max = 100;
        let roles = [(Role::Uplink(0), 0), (Role::Uplink(1), 2), (Role::Host(0), 1), (Role::Host(1), 7)];
        let vports = roles.map(|(role, port_id)| VportInfo { role, port_id }).to_vec();
        let mut context = profile.context(Topology::new(vports));
        context.steering = steering;
        context.options.xmeta =
            if steering == Steering::Hardware { [0, 4] } else { [0, 1] }[usize::from(options & 1)];
        context.options.allow_duplicate_pattern = options & 2 == 0;
        context.options.wire_to_wire = options & 4 != 0;
        context.options.fdb_def_rule = options & 0x38 != 0;
        let context = Arc::new(context);
        let device = Eswitch::new(Arc::clone(&context), &profile, seed);
        let mut machine = Machine {
            device,
            context,
            profile,
            seed,
            now: Tick(1_000_000),
            rules: Vec::new(),
            tables: Vec::new(),
            queues: Vec::new(),
            queued: Vec::new(),
            acts: Vec::new(),
            shared: Vec::new(),
            doubtful: Vec::new(),
            operations: 0,
            entered: 0,
            offline: 0,
            cut: [false; VPORTS],
            copies: 0,
            left: 0,
            trace: Trace(0xcbf2_9ce4_8422_2325),
        };
        if steering == Steering::Hardware {
            machine.configure(options);
        }
        for port in 0..VPORTS {
            machine.start(port, 3);
        }
        machine
    }

    fn step(&mut self, bytes: &mut Bytes<'_>) {
        let operation = bytes.byte();
        self.trace.note(&operation);
        match operation % 32 {
            0..5 if self.hardware() && operation < 224 => self.enqueue(bytes),
            0..5 => self.create(bytes),
            5 => self.destroy(bytes),
            6 => self.query(bytes),
            7 => self.aged(bytes),
            8 => self.flush(Vport(u16::from(operation >> 5) % 4)),
            9 => self.stop_or_start(bytes),
            10 => self.inject(bytes),
            11 => self.pass(u64::from(bytes.byte()) * 977),
            12 => self.pass(u64::from(bytes.byte()) * 40_000_003),
            13 => self.indirect(bytes),
            14 => self.change_indirect(bytes),
            15 => self.meter(bytes),
            16 => self.make_table(bytes),
            17..20 => self.enqueue(bytes),
            20 => self.dequeue(bytes),
            21 => self.push(bytes),
            22 => self.pull(),
            23 if operation >= 128 => self.drop_table(bytes),
            23 => self.configure(operation),
            24 if operation >= 192 => self.dump(),
            24 => self.act_later(bytes),
            _ => self.send(bytes),
        }
    }

    fn hardware(&self) -> bool {
        self.context.steering == Steering::Hardware
    }

    fn port(&self, bytes: &mut Bytes<'_>) -> Vport {
        Vport(u16::from(bytes.byte() % 8).saturating_sub(4))
    }

    fn start(&mut self, port: usize, choice: u8) {
        let config = RxConfig {
            mac: [2, 0, 0, 0, 0, 1],
            promiscuous: choice & 1 != 0,
            all_multicast: choice & 4 != 0,
            isolated: choice & 8 != 0,
            queues: u16::from(choice % 4),
            hairpin: vec![(4, Vport(u16::from(choice) % 5))],
        };
        let answer = self.device.start(Vport(port as u16), config);
        self.cut[port] &= answer.is_err();
        self.trace.note(&answer);
    }

    fn create(&mut self, bytes: &mut Bytes<'_>) {
        let port = self.port(bytes);
        let choice = bytes.byte();
        let attr = Attr {
            group: u32::from(choice >> 4) % 5,
            priority: u32::from(choice >> 2) & 3,
            ingress: choice & 3 == 3,
            transfer: choice & 3 != 3,
            egress: choice == 77,
        };
        let items = wishes::pattern(bytes);
        let actions = wishes::actions(bytes, attr.transfer, self.hardware(), &self.shared);
        let started = self.device.is_started(port);
        let cost = self.device.create_cost();
        let made = self.context.prepare(&Port::new(port, started), &attr, &items, &actions);
        let made = made.and_then(|prepared| self.device.install(self.now, prepared));
        self.trace.note(&(cost, errno(&made)));
        match made {
            Ok(handle) => {
                assert_eq!(self.context.steering, Steering::Software, "no synchronous rules in HWS");
                let fresh = self.rules.iter().all(|(_, other, live)| !live || *other != handle);
                assert!(fresh, "a handle twice");
                self.rules.push((port, handle, true));
            }
            Err(refusal) => assert_ne!(refusal.errno, Errno::Io),
        }
    }

    fn destroy(&mut self, bytes: &mut Bytes<'_>) {
        if self.rules.is_empty() {
            return;
        }
        let at = bytes.below(self.rules.len().min(256));
        let (port, handle, live) = self.rules[at];
        let cost = self.device.destroy_cost();
        let answer = self.device.destroy(self.now, port, handle);
        self.trace.note(&(cost, errno(&answer)));
        if answer.is_err_and(|refusal| refusal.errno == Errno::Timedout) {
            return;
        }
        assert_eq!(answer.is_ok(), live, "{handle:?}: {answer:?}");
        self.rules[at].2 = false;
        let elsewhere = Vport((port.0 + 1) % 4);
        assert!(self.device.destroy(self.now, elsewhere, handle).is_err(), "another port's rule");
    }

    fn query(&mut self, bytes: &mut Bytes<'_>) {
        let choice = bytes.byte();
        let all = self.rules.iter().map(|(port, handle, _)| (*port, *handle));
        let queued = self.queued.iter().flatten().map(|queued| (Vport(0), queued.handle));
        let all: Vec<_> = all.chain(queued).collect();
        if all.is_empty() {
            return;
        }
        let (port, handle) = all[usize::from(choice) % all.len()];
        let count = self.device.query_count(self.now, port, handle, choice >= 200);
        let age = self.device.query_age(self.now, port, handle);
        self.trace.note(&(count, age));
    }

    fn aged(&mut self, bytes: &mut Bytes<'_>) {
        let port = self.port(bytes);
        let mut out = vec![0; bytes.below(40)];
        let queue = bytes.flag().then_some(u16::from(bytes.byte() % 3));
        let aged = self.device.aged(port, queue, &mut out);
        if let Ok(aged) = aged {
            assert!(out.is_empty() || aged <= out.len());
        }
        self.trace.note(&(errno(&aged), aged.unwrap_or(0), out));
    }

    fn flush(&mut self, port: Vport) {
        if self.context.steering == Steering::Hardware {
            // Rules of flow queues go when their port stops only.
            return;
        }
        self.flush_all(port);
    }

    fn flush_all(&mut self, port: Vport) {
        let mut from = 0;
        while self.device.flush(self.now, port, &mut from) {}
        self.rules.iter_mut().filter(|(of, ..)| *of == port).for_each(|rule| rule.2 = false);
    }

    fn stop_or_start(&mut self, bytes: &mut Bytes<'_>) {
        let (port, choice) = (self.port(bytes), bytes.byte());
        if self.device.is_started(port) {
            if choice < 100 {
                self.stop(port);
            }
        } else {
            self.start(usize::from(port.0), choice);
        }
    }

    /// As the driver does: the port stops, and its rules go.
    fn stop(&mut self, port: Vport) {
        let answer = self.device.stop(self.now, port);
        self.trace.note(&errno(&answer));
        if answer.is_err() {
            return;
        }
        self.flush_all(port);
        if port == Vport(0) {
            self.queues.iter_mut().for_each(FlowQueue::notice_restart);
            self.queued.iter_mut().for_each(Vec::clear);
            self.acts.clear();
        }
    }

    fn inject(&mut self, bytes: &mut Bytes<'_>) {
        let text = bytes.pick(&FAULTS);
        let faults = Faults::parse(text).expect("faults");
        self.cut[1] |= text.starts_with("stop_port=1");
        if faults.reset {
            self.forgotten();
        }
        self.device.set_faults(self.now, faults);
    }

    /// The device is about to forget everything.
    fn forgotten(&mut self) {
        self.rules.iter_mut().for_each(|rule| rule.2 = false);
        self.queued.iter_mut().for_each(Vec::clear);
        self.acts.clear();
        self.shared.retain(|shared| !matches!(shared, Shared::Counter(_) | Shared::Age(_)));
    }

    fn pass(&mut self, ns: u64) {
        self.now = self.now.after(ns);
        // Not always to the end: that must make no difference but for when.
        let _ = ns % 3 == 0 || self.device.advance(self.now);
        let mut slices = 0;
        while ns % 2 == 0 && self.device.advance(self.now) {
            slices += 1;
            assert!(slices < 10_000, "never done");
        }
        let events = self.device.take_events();
        self.trace.note(&(self.now, events));
    }

    fn indirect(&mut self, bytes: &mut Bytes<'_>) {
        let action = match bytes.below(5) {
            0 => Action::Count,
            1 => Action::Age { timeout_s: u32::from(bytes.byte() % 6), context: 5 },
            2 => Action::MeterMark { profile: u32::from(bytes.byte() % 4), colour_aware: false },
            3 => Action::Rss { queues: &[0, 1] },
            _ => Action::Drop,
        };
        let port = self.port(bytes);
        if validate::indirect(&self.context, &action, POOLS).is_err() {
            return;
        }
        let made = self.device.indirect_create(self.now, port, &action);
        self.trace.note(&made);
        if let Ok(shared) = made {
            self.shared.push(shared);
        }
    }

    fn change_indirect(&mut self, bytes: &mut Bytes<'_>) {
        if self.shared.is_empty() {
            return;
        }
        let at = bytes.below(self.shared.len().min(256));
        let shared = self.shared[at];
        let choice = bytes.byte();
        if choice % 2 == 0 {
            let answer = self.device.indirect_destroy(self.now, shared);
            self.trace.note(&errno(&answer));
            if answer.is_ok() {
                self.shared.swap_remove(at);
            }
            return;
        }
        let answer = self.device.indirect_update(self.now, shared, update(choice));
        self.trace.note(&errno(&answer));
        match shared {
            Shared::Counter(id) => {
                let value = self.device.indirect_count(self.now, id, choice >= 128);
                self.trace.note(&value);
                assert!(value.is_ok(), "a counter that has not been destroyed");
            }
            Shared::Age(id) => {
                let value = self.device.indirect_age(self.now, id);
                self.trace.note(&value);
            }
            Shared::Rss(set) => {
                let answer = self.device.indirect_rss(set, &[1, 2, 0]);
                self.trace.note(&errno(&answer));
            }
            Shared::Meter(_) => {}
        }
    }

    fn meter(&mut self, bytes: &mut Bytes<'_>) {
        let (choice, id, port) = (bytes.byte(), u32::from(bytes.byte() % 4), self.port(bytes));
        let (cir, cbs) = (1000, 2000);
        let algorithm = match choice >> 6 {
            0 => Algorithm::Rfc2697 { cir, cbs, ebs: 500 },
            1 => Algorithm::Rfc2698 { cir, cbs, pir: 3000, pbs: 4000 },
            _ => Algorithm::Rfc4115 { cir, cbs, eir: 500, ebs: 900 },
        };
        let profile = MeterProfile { algorithm, packet_mode: choice & 32 != 0 };
        let to_second = [Action::RepresentedPort(Some(2))];
        let jump = [Action::SetTag { index: 0, data: 1, mask: 3 }, Action::Jump(Some(2))];
        let (drop, none) = ([Action::Drop], []);
        let policies: [&[Action<'_>]; 3] = [&none, &to_second, &jump];
        let policy =
            [policies[usize::from(choice >> 3) % 3], policies[usize::from(choice >> 5) % 3], &drop[..]];
        let (now, topology) = (self.now, self.context.topology.clone());
        let params = MeterParams {
            profile: id,
            policy: id,
            enabled: choice & 8 == 0,
            colour_aware: choice & 16 == 0,
            statistics: 3,
            shared: choice & 32 == 0,
        };
        let meters = self.device.meters();
        let answer = match choice % 8 {
            0 => meters.profile_add(port, id, profile),
            1 => meters.policy_add(&topology, port, id, &policy),
            2..5 => meters.create(now, port, id, &params).map(|_| ()),
            5 => meters.destroy(port, id),
            6 => meters.enable(port, id, choice >= 128),
            _ => meters.profile_delete(port, id).and_then(|()| meters.policy_delete(port, id)),
        };
        self.trace.note(&answer);
    }

    fn send(&mut self, bytes: &mut Bytes<'_>) {
        let choice = bytes.byte();
        let number = if choice >= 240 { BURST } else { 1 + usize::from(choice >> 4) % 4 };
        let (source, manager) = (Vport(u16::from(choice % 4)), choice & 8 != 0);
        self.send_frames(source, manager, (0..number).map(|_| wishes::frame(bytes)).collect());
    }

    pub(crate) fn send_frames(&mut self, source: Vport, manager: bool, frames: Vec<Vec<u8>>) {
        let admitted = self.device.admit(self.now, frames.len());
        assert!(admitted <= frames.len());
        let mut burst: Burst<TestPacket> =
            frames.iter().map(|frame| TestPacket::new(PortId(0), frame)).collect();
        let mut doors = Doors { trace: &mut self.trace, copies: 0, left: 0 };
        self.device.forward(self.now, source, manager, &mut burst, &mut doors);
        assert!(burst.is_empty(), "the device takes whole bursts");
        assert_eq!(doors.left, frames.len() as u64 + doors.copies, "every packet leaves by one door");
        self.entered += frames.len() as u64;
        if self.cut[usize::from(source.0)] && !manager {
            self.offline += frames.len() as u64;
        }
        self.copies += doors.copies;
        self.left += doors.left;
    }

    fn dump(&mut self) {
        let mut text = String::new();
        self.device.dump_tables(&mut text).expect("a string takes all");
        let mut from = 0;
        while self.device.dump_rules(self.now, &mut from, 7, &mut text) {}
        self.trace.add(text.as_bytes());
    }

    /// What always holds.
    fn check(&self) {
        let statistics = self.device.statistics();
        let sum = |of: fn(&VportStatistics) -> u64| statistics.vports.iter().map(of).sum::<u64>();
        assert_eq!(sum(|vport| vport.in_packets + vport.manager_packets) + self.offline, self.entered);
        let dropped: u64 = statistics.drops.iter().sum();
        assert_eq!(sum(|vport| vport.out_packets + vport.received_packets) + dropped, self.left);
        assert_eq!(self.entered + self.copies, self.left);
        let live = self.rules.iter().filter(|(.., live)| *live).count() as u64;
        if self.context.steering == Steering::Software {
            assert_eq!(statistics.rules, live);
            assert_eq!(statistics.rules, statistics.installed - statistics.removed);
        } else {
            assert!(statistics.rules >= statistics.installed - statistics.removed);
        }
        assert!(statistics.rules <= self.profile.rules_max);
    }

    /// Everything stops and goes; then nothing is in use.
    pub(crate) fn take_down(&mut self) {
        self.dump();
        self.device.set_faults(self.now, Faults::default());
        // Should the device hang, let it come back.
        self.now = self.now.after(Tick::SECOND);
        for port in (0..VPORTS).rev() {
            self.stop(Vport(port as u16));
        }
        for (table, _) in std::mem::take(&mut self.tables) {
            assert_eq!(table.occupancy().used(), 0, "places of a table");
            self.device.destroy_table(&table).expect("an empty table");
        }
        for shared in self.shared.drain(..).chain(self.doubtful.drain(..)) {
            let _ = self.device.indirect_destroy(self.now, shared);
        }
        for _ in 0..20 {
            self.now = self.now.after(Tick::SECOND);
            while self.device.advance(self.now) {}
        }
        for (port, id) in (0..VPORTS as u16).flat_map(|port| (0..4).map(move |id| (Vport(port), id))) {
            let _ = self.device.meters().destroy(port, id);
        }
        self.check();
        let statistics = self.device.statistics();
        assert_eq!((statistics.rules, statistics.installed), (0, statistics.removed), "rules");
        assert_eq!(self.device.objects_in_use(), [0; 3], "counters, ages, meters");
        for queue in &self.queues {
            assert_eq!((queue.rules(), queue.outstanding()), (0, 0), "a flow queue's slots");
            assert_eq!(queue.credits(), [30, 20, 4], "a flow queue's credits");
        }
        self.trace.note(statistics);
    }
}

const POOLS: Pools = Pools { counters: true, ages: true, meters: true };

/// A refusal's errno; 0 if there is none.
fn errno<T>(answer: &Result<T, Refusal>) -> i32 {
    answer.as_ref().err().map_or(0, |refusal| refusal.errno as i32)
}

fn update(choice: u8) -> ActionUpdate {
    match choice >> 1 & 3 {
        0 => ActionUpdate::Age { timeout_s: Some(u32::from(choice >> 4)), touch: false },
        1 => ActionUpdate::Age { timeout_s: None, touch: true },
        2 => {
            let algorithm = Algorithm::Rfc2697 { cir: u64::from(choice >> 5), cbs: 100, ebs: 0 };
            let profile = Some(MeterProfile { algorithm, packet_mode: choice & 1 != 0 });
            ActionUpdate::Meter { profile, colour_aware: None, enabled: None }
        }
        _ => ActionUpdate::Meter { profile: None, colour_aware: Some(true), enabled: Some(choice >= 128) },
    }
}

/// HWS.
impl Machine {
    fn configure(&mut self, choice: u8) {
        if self.context.steering == Steering::Software || self.device.is_started(Vport(0)) {
            return;
        }
        let attr = ConfigureAttr {
            counters: 30,
            ages: 20,
            meters: 4,
            strict_queue: choice & 64 != 0,
            queues: 2,
            size: 8,
            full_errno: (choice & 128 != 0).then_some(Errno::Busy),
        };
        match self.device.configure(self.now, Vport(0), &attr, &self.profile, self.seed) {
            Ok(queues) => {
                self.queues = queues;
                self.queued = (0..2).map(|_| Vec::new()).collect();
                self.acts.clear();
            }
            Err(refusal) => self.trace.note(&refusal.errno),
        }
    }

    fn make_table(&mut self, bytes: &mut Bytes<'_>) {
        if self.tables.len() >= 12 {
            return;
        }
        let choice = bytes.byte();
        let transfer = choice & 3 != 3;
        let template = TemplateAttr { ingress: !transfer, egress: false, transfer, relaxed: choice & 4 != 0 };
        let attr = Attr {
            group: u32::from(choice >> 4) % 4,
            priority: u32::from(choice >> 3) & 1,
            ingress: !transfer,
            transfer,
            egress: false,
        };
        let before = bytes.0;
        let items = wishes::pattern(bytes);
        let actions = wishes::actions(bytes, transfer, true, &self.shared);
        let made_of = before[..before.len() - bytes.0.len()].to_vec();
        let constants = bytes.word();
        let made = self.try_table(&template, &attr, &items, &actions, constants);
        self.trace.note(&errno(&made));
        if let Ok(table) = made {
            self.tables.push((table, made_of));
        }
    }

    fn try_table(
        &mut self,
        template: &TemplateAttr,
        attr: &Attr,
        items: &[Item<'_>],
        actions: &[Action<'_>],
        constants: u32,
    ) -> Result<Table, Refusal> {
        let context = Arc::clone(&self.context);
        let port = Vport(0);
        let facts = validate::pattern_template(&context, port, template, items)?;
        let implicit = (!template.transfer).then_some(port);
        let pattern = Arc::new(PatternTemplate::new(items, template.relaxed, implicit)?);
        let masks: Vec<Action<'_>> = actions
            .iter()
            .enumerate()
            .map(|(at, action)| mask(action, constants >> (at % 32) & 1 == 1))
            .collect();
        let kinds: Vec<Action<'_>> =
            actions.iter().zip(&masks).map(|(action, mask)| kind(action, mask)).collect();
        let judged = validate::actions_template(&context, port, template, actions, &kinds, POOLS)?;
        let compiled = Arc::new(ActionsTemplate::new(actions, &masks)?);
        let attr = TableAttr { attr: *attr, nb_flows: 1 + constants % 40 };
        self.device.create_table(port, &attr, &[(pattern, facts)], &[(compiled, judged)])
    }

    fn drop_table(&mut self, bytes: &mut Bytes<'_>) {
        if self.tables.is_empty() {
            return;
        }
        let at = bytes.below(self.tables.len());
        let answer = self.device.destroy_table(&self.tables[at].0);
        assert_eq!(answer.is_err(), self.tables[at].0.occupancy().used() > 0);
        if answer.is_ok() {
            self.tables.swap_remove(at);
        }
    }

    fn enqueue(&mut self, bytes: &mut Bytes<'_>) {
        let choice = bytes.byte();
        if self.tables.is_empty() || self.queues.is_empty() {
            return;
        }
        let (table, made_of) = &self.tables[usize::from(choice >> 2) % self.tables.len()];
        let queue = usize::from(choice & 1);
        // Mostly what fits.
        let mut from = Bytes(if choice % 8 == 7 { bytes.0 } else { made_of });
        let items = wishes::pattern(&mut from);
        let actions = wishes::actions(&mut from, true, true, &self.shared);
        self.operations += 1;
        let topology = &self.context.topology;
        let made = table.enqueue(
            self.now,
            &mut self.queues[queue],
            topology,
            (u8::from(choice == 255), &items),
            (0, &actions),
            self.operations,
            choice & 2 != 0,
        );
        self.trace.note(&errno(&made));
        if let Ok(handle) = made {
            assert!(self.queued[queue].iter().all(|queued| queued.handle != handle), "a handle twice");
            self.queued[queue].push(Queued { handle, stage: Stage::Creating, user_data: self.operations });
        }
    }

    fn dequeue(&mut self, bytes: &mut Bytes<'_>) {
        let choice = bytes.byte();
        let queue = usize::from(choice & 1);
        let Some(queued) = self.queued.get_mut(queue).filter(|queued| !queued.is_empty()) else { return };
        let at = bytes.below(queued.len().min(256));
        let queued = &mut queued[at];
        self.operations += 1;
        let full = self.queues[queue].outstanding() >= 8;
        let answer = self.queues[queue].destroy(self.now, queued.handle, self.operations, choice & 2 != 0);
        self.trace.note(&errno(&answer));
        let expected = match queued.stage {
            _ if full => answer.is_err(),
            Stage::Creating => errno(&answer) == Errno::Busy as i32,
            Stage::Settled => answer.is_ok(),
            Stage::Destroying => errno(&answer) == Errno::Noent as i32,
        };
        assert!(expected, "{queued:?}: {answer:?}");
        if answer.is_ok() {
            *queued = Queued { stage: Stage::Destroying, user_data: self.operations, ..*queued };
        }
    }

    fn act_later(&mut self, bytes: &mut Bytes<'_>) {
        let choice = bytes.byte();
        let queue = usize::from(choice & 1);
        if self.shared.is_empty() || queue >= self.queues.len() {
            return;
        }
        let at = bytes.below(self.shared.len().min(256));
        let shared = self.shared[at];
        let destroys = choice & 2 != 0;
        let operation =
            if destroys { ActionOp::Destroy(shared) } else { ActionOp::Update(shared, update(choice)) };
        self.operations += 1;
        let answer = self.queues[queue].act_later(self.now, operation, self.operations, choice & 4 != 0);
        self.trace.note(&errno(&answer));
        if answer.is_ok() {
            self.acts.push((queue, self.operations));
            if destroys {
                self.doubtful.push(self.shared.swap_remove(at));
            }
        }
    }

    fn push(&mut self, bytes: &mut Bytes<'_>) {
        let queue = bytes.below(2);
        if let Some(queue) = self.queues.get_mut(queue) {
            queue.push(self.now);
        }
    }

    /// Every completion is of something outstanding, and comes once.
    fn pull(&mut self) {
        let mut out = [Completion::default(); 5];
        for queue in 0..self.queues.len() {
            let pulled = self.queues[queue].pull(&mut out);
            for completion in &out[..pulled] {
                self.trace.note(&(queue, completion, self.now));
                let user_data = completion.user_data;
                let act = self.acts.iter().position(|act| *act == (queue, user_data));
                if let Some(at) = act {
                    self.acts.swap_remove(at);
                    continue;
                }
                let of = self.queued[queue].iter().position(|queued| queued.user_data == user_data);
                let at = of.expect("a completion of something outstanding");
                match self.queued[queue][at].stage {
                    Stage::Creating => self.queued[queue][at].stage = Stage::Settled,
                    Stage::Destroying => drop(self.queued[queue].swap_remove(at)),
                    Stage::Settled => panic!("a completion twice: {completion:?}"),
                }
            }
        }
    }
}

/// The mask of an action in a template.
fn mask<'a>(action: &Action<'a>, constant: bool) -> Action<'a> {
    let word = if constant { u32::MAX } else { 0 };
    let wholly = |place: FieldRef| FieldRef { level: u32::MAX, offset: u32::MAX, ..place };
    match *action {
        Action::RepresentedPort(_) => Action::RepresentedPort(Some(word as u16)),
        Action::Jump(_) => Action::Jump(Some(word)),
        Action::Queue(_) => Action::Queue(Some(word as u16)),
        Action::Mark(_) => Action::Mark(Some(word)),
        Action::VxlanEncap(bytes) => Action::VxlanEncap(if constant { bytes } else { &[] }),
        Action::RawEncap(bytes) => Action::RawEncap(if constant { bytes } else { &[] }),
        Action::PushVlan(_) => Action::PushVlan(word as u16),
        Action::SetVlanVid(_) => Action::SetVlanVid(word as u16),
        Action::SetVlanPcp(_) => Action::SetVlanPcp(word as u8),
        Action::MeterMark { .. } => Action::MeterMark { profile: word, colour_aware: false },
        Action::Indirect(_) if !constant => Action::Indirect(None),
        Action::ModifyField { op, dst, src, .. } => {
            let src = src.map(|src| match src {
                FieldSource::Value(_) => FieldSource::Value([word as u8; 16]),
                FieldSource::Field(place) => FieldSource::Field(wholly(place)),
            });
            Action::ModifyField { op, dst: wholly(dst), src, width: u32::MAX }
        }
        other => other,
    }
}

/// As [`mask`]; of an indirect action, what kind it is.
fn kind<'a>(action: &Action<'a>, mask: &Action<'a>) -> Action<'a> {
    match *action {
        Action::Indirect(Some(Shared::Counter(_))) => Action::Count,
        Action::Indirect(Some(Shared::Age(_))) => Action::Age { timeout_s: 0, context: 0 },
        Action::Indirect(Some(Shared::Meter(_))) => Action::MeterMark { profile: 0, colour_aware: false },
        Action::Indirect(Some(Shared::Rss(_))) => Action::Rss { queues: &[] },
        _ => *mask,
    }
}
