//! The same bench under hardware steering: templates, a table, a flow queue.

use std::sync::Arc;

use eswitch::model::action::Action;
use eswitch::model::item::{Header, Item, Layer};
use eswitch::model::pattern::PatternTemplate;
use eswitch::model::profile::Profile;
use eswitch::model::program::ActionsTemplate;
use eswitch::model::queue::Completion;
use eswitch::model::refusal::{Errno, Refusal};
use eswitch::model::switch::{ConfigureAttr, Eswitch, FlowQueue, PROXY, RxConfig, Table};
use eswitch::model::types::{RuleHandle, Steering, Tick, Topology};
use eswitch::model::validate::{Pools, TableAttr, TemplateAttr, actions_template, pattern_template};

use super::{Bench, HOST, WIRE, WIRE2, any, transfer, vports};

/// A profile without any delay of its own.
pub(crate) fn ideal() -> Profile {
    Profile::named("ideal").expect("a built-in profile")
}

/// Sixteen of each object, one queue of eight.
pub(crate) const SMALL: ConfigureAttr = ConfigureAttr {
    counters: 16,
    ages: 16,
    meters: 16,
    strict_queue: false,
    queues: 1,
    size: 8,
    full_errno: None,
};

const EVERYTHING: Pools = Pools { counters: true, ages: true, meters: true };

/// A bench, and a flow queue of the proxy.
pub(crate) struct Queued {
    pub(crate) bench: Bench,
    pub(crate) queue: FlowQueue,
    pub(crate) profile: Profile,
}

impl Queued {
    pub(crate) fn new(profile: Profile, attr: &ConfigureAttr) -> Queued {
        let mut context = profile.context(Topology::new(vports()));
        context.steering = Steering::Hardware;
        let mut device = Eswitch::new(Arc::new(context), &profile, 1);
        let now = Tick(Tick::SECOND);
        let mut queues = device.configure(now, PROXY, attr, &profile, 1).expect("within bounds");
        for vport in [WIRE, HOST, WIRE2] {
            let config = RxConfig { promiscuous: true, queues: 1, ..RxConfig::default() };
            device.start(vport, config).expect("starts");
        }
        Queued { bench: Bench { device, now }, queue: queues.remove(0), profile }
    }

    /// A transfer table whose pattern is `eth / ipv4 dst` and whose rules bring all that `masks` leaves open.
    pub(crate) fn table(
        &mut self,
        group: u32,
        rules: u32,
        actions: &[Action<'_>],
        masks: &[Action<'_>],
    ) -> Result<Table, Refusal> {
        let context = Arc::clone(self.bench.device.context());
        let attr = TemplateAttr { transfer: true, ..TemplateAttr::default() };
        let mask = destination([0xff; 4]);
        let items = [any(Layer::Eth), Item::Header(Header::masked(Layer::Ipv4, &mask, &mask))];
        let facts = pattern_template(&context, PROXY, &attr, &items)?;
        let pattern = Arc::new(PatternTemplate::new(&items, false, None)?);
        let actions_facts = actions_template(&context, PROXY, &attr, actions, masks, EVERYTHING)?;
        let actions = Arc::new(ActionsTemplate::new(actions, masks)?);
        let attr = TableAttr { attr: transfer(group, 0), nb_flows: rules };
        self.bench.device.create_table(PROXY, &attr, &[(pattern, facts)], &[(actions, actions_facts)])
    }

    /// A table of `... / represented_port`, the port to be brought, after these actions.
    pub(crate) fn table_to_port(&mut self, rules: u32, before: &[Action<'_>]) -> Table {
        let with = |port| [before, &[Action::RepresentedPort(Some(port))]].concat();
        self.table(0, rules, &with(0), &with(0)).expect("a good table")
    }

    /// Enqueues a rule for packets to this address.
    pub(crate) fn create(
        &mut self,
        table: &Table,
        to: [u8; 4],
        actions: &[Action<'_>],
        postpone: bool,
    ) -> Result<RuleHandle, Errno> {
        let context = Arc::clone(self.bench.device.context());
        let (spec, mask) = (destination(to), destination([0xff; 4]));
        let items = [any(Layer::Eth), Item::Header(Header::masked(Layer::Ipv4, &spec, &mask))];
        let (queue, topology) = (&mut self.queue, &context.topology);
        table
            .enqueue(self.bench.now, queue, topology, (0, &items), (0, actions), 7, postpone)
            .map_err(|refusal| refusal.errno)
    }

    pub(crate) fn destroy(&mut self, rule: RuleHandle) -> Result<(), Errno> {
        self.queue.destroy(self.bench.now, rule, 8, false).map_err(|refusal| refusal.errno)
    }

    /// Time passes; the device does all that is due.
    pub(crate) fn pass(&mut self, ns: u64) {
        self.bench.now = self.bench.now.after(ns);
        while self.bench.device.advance(self.bench.now) {}
    }

    /// What can be pulled: user data and success.
    pub(crate) fn pull(&mut self) -> Vec<(u64, bool)> {
        let mut out = [Completion::default(); 16];
        let pulled = self.queue.pull(&mut out);
        out[..pulled].iter().map(|done| (done.user_data, done.ok)).collect()
    }

    /// A rule that is there, its completion pulled.
    pub(crate) fn rule(&mut self, table: &Table, to: [u8; 4], actions: &[Action<'_>]) -> RuleHandle {
        let rule = self.create(table, to, actions, false).expect("enqueued");
        self.pass(1_000_000);
        assert_eq!(self.pull(), [(7, true)]);
        rule
    }

    /// Destroys a rule, and sees to it that everything of it is free but what waits for a refresh.
    pub(crate) fn end(&mut self, rule: RuleHandle) {
        self.destroy(rule).expect("enqueued");
        self.pass(1_000_000);
        assert_eq!(self.pull(), [(8, true)]);
        self.pass(0);
    }
}

/// An IPv4 header with nothing but this destination.
fn destination(to: [u8; 4]) -> [u8; 20] {
    let mut header = [0; 20];
    header[16..].copy_from_slice(&to);
    header
}
