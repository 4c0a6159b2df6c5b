//! One asynchronous flow queue, and the template tables whose rules go through it.
//!
//! ```text
//! enqueue_create ─▶ (push) ─▶ pull: Created ─▶ enqueue_destroy ─▶ (push) ─▶ pull: Destroyed
//!                       └───▶ pull: CreateFailed ──┘  (a failed rule is destroyed, too)
//! ```

use dpdk_sys::{rte_flow_actions_template, rte_flow_pattern_template, rte_flow_template_table};

use super::error::Failure;
use super::mark::Marks;
use super::store::{Key, Store};
use super::{Actions, Attr, FlowError, FlowPort, Pattern, RuleKey};
use crate::errno::Errno;

/// What a port's flow queues can be; 0 where the driver names no bound.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct QueueLimits {
    /// Flow queues.
    pub queues: u32,
    /// Operations under way in a queue.
    pub queue_size: u32,
    /// Counters.
    pub counters: u32,
    /// Ages.
    pub ages: u32,
    /// Meters; 0 is none.
    pub meters: u32,
}

/// What is set aside on a port before it starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FlowQueueConfig {
    /// Operations under way at most.
    pub size: u32,
    /// Counters.
    pub counters: u32,
    /// Ages; they need counters.
    pub ages: u32,
    /// Meters.
    pub meters: u32,
}

/// Reads the limits of a port that is not started.
pub(crate) fn limits(port: u16) -> Result<QueueLimits, FlowError> {
    let mut failure = Failure::new("asking for its flow queues");
    let mut limits = dpdk_sys::millrace_queue_limits::default();
    // SAFETY: the caller's port is valid; `limits` and `failure` are writable.
    let ret = unsafe { dpdk_sys::millrace_queue_limits(port, &mut limits, failure.as_mut()) };
    failure.check(port, ret)?;
    let dpdk_sys::millrace_queue_limits { queues, queue_size, counters, ages, meters } = limits;
    Ok(QueueLimits { queues, queue_size, counters, ages, meters })
}

/// Sets a flow queue up on a port that is configured and not started.
pub(crate) fn configure(port: u16, config: &FlowQueueConfig) -> Result<(), FlowError> {
    let FlowQueueConfig { size, counters, ages, meters } = *config;
    let mut failure = Failure::new("setting up a flow queue");
    let attr = dpdk_sys::millrace_queue_attr { size, counters, ages, meters };
    // SAFETY: the caller's port is valid; drivers copy the attributes.
    let ret = unsafe { dpdk_sys::millrace_queue_configure(port, &attr, failure.as_mut()) };
    failure.check(port, ret)
}

/// Names a template table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TableKey(usize);

/// How an operation ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// The rule is in force.
    Created,
    /// It is not; it must be destroyed all the same.
    CreateFailed,
    /// The rule is gone, and its key names nothing any more.
    Destroyed,
    /// The rule is still there.
    DestroyFailed,
}

/// An operation that has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Done {
    /// Of this rule.
    pub rule: RuleKey,
    /// What the rule was created with.
    pub tag: u64,
    /// How.
    pub end: End,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Creating,
    /// Its creation has ended, well or not.
    Settled,
    Destroying,
}

#[derive(Debug)]
struct Rule {
    flow: *mut dpdk_sys::rte_flow,
    tag: u64,
    state: State,
}

#[derive(Debug)]
struct Table {
    table: *mut rte_flow_template_table,
    pattern: *mut rte_flow_pattern_template,
    actions: Vec<*mut rte_flow_actions_template>,
}

// SAFETY: rte_flow objects belong to a port, not to a thread; the pointers are only ever handed back to DPDK,
// by whoever has the queue exclusively.
unsafe impl Send for Rule {}
// SAFETY: as above.
unsafe impl Send for Table {}

/// A port's flow queue, its rules and its tables. Dropping it removes them all.
#[derive(Debug)]
pub struct FlowQueue<'port> {
    pub(super) port: FlowPort<'port>,
    size: u32,
    /// Operations under way.
    pub(super) outstanding: u32,
    rules: Store<Rule>,
    tables: Vec<Table>,
    pub(super) marks: Marks,
}

/// Set in the user data of a destruction.
const DESTRUCTION: u64 = 1 << 62;

/// Completions taken from the driver in one call.
const CHUNK: usize = 64;

impl<'port> FlowQueue<'port> {
    pub(crate) fn new(port: FlowPort<'port>, config: &FlowQueueConfig) -> FlowQueue<'port> {
        let marks = Marks::new(config.meters);
        FlowQueue { port, size: config.size, outstanding: 0, rules: Store::new(), tables: Vec::new(), marks }
    }

    /// Counters, and rules that have aged.
    pub fn port(&mut self) -> &mut FlowPort<'port> {
        &mut self.port
    }

    /// DPDK's number for the port.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.port.number()
    }

    /// Rules whose destruction has not been pulled.
    #[must_use]
    pub fn rules(&self) -> usize {
        self.rules.len()
    }

    /// Operations that still fit.
    #[must_use]
    pub fn room(&self) -> u32 {
        self.size - self.outstanding
    }

    /// Operations that have been enqueued and not pulled.
    #[must_use]
    pub fn under_way(&self) -> u32 {
        self.outstanding
    }

    /// A table for so many rules which compare the same bits as `pattern` and do the same things as one of
    /// `actions`, of which there are at most [`FlowQueue::TEMPLATES_MAX`].
    pub fn create_table(
        &mut self,
        attr: Attr,
        rules: u32,
        pattern: &Pattern,
        actions: &[Actions],
    ) -> Result<TableKey, FlowError> {
        let number = self.port.number();
        let mut table =
            Table { table: core::ptr::null_mut(), pattern: core::ptr::null_mut(), actions: Vec::new() };
        let made = make_table(number, &mut table, attr, rules, pattern, actions);
        if made.is_err() {
            destroy_table(number, &table);
        }
        made?;
        self.tables.push(table);
        Ok(TableKey(self.tables.len() - 1))
    }

    /// Actions that a table can have.
    pub const TEMPLATES_MAX: usize = dpdk_sys::MILLRACE_TEMPLATES_MAX as usize;

    /// Enqueues a rule for a table, which does what the table's `template`-th actions do.
    ///
    /// # Errors
    /// EBUSY when the queue is full, before the driver is asked; else what it says. Nothing is enqueued.
    pub fn enqueue_create(
        &mut self,
        table: TableKey,
        pattern: &Pattern,
        actions: &Actions,
        template: u8,
        tag: u64,
    ) -> Result<RuleKey, FlowError> {
        let (number, mut failure) = (self.port.number(), Failure::new("enqueuing a rule"));
        let counter = self.port.counter_in(actions, &mut failure)?;
        let meter = self.meter_in(actions, &mut failure)?;
        let Some(Table { table, .. }) = self.tables.get(table.0) else {
            return Err(failure.because(number, Errno::INVAL));
        };
        if self.room() == 0 {
            return Err(failure.because(number, Errno::BUSY));
        }
        let rule = Rule { flow: core::ptr::null_mut(), tag, state: State::Creating };
        let key = self.rules.insert(rule);
        // SAFETY: the port is started and has a queue 0, which `&mut self` makes ours alone. The table is the
        // port's and lives as long as `self`. All lists are as long as they say and outlive the call; the
        // handles in the actions are of a live counter and a live meter.
        let flow = unsafe {
            let (pattern, actions, failure) = (pattern.c(), actions.c(counter, meter), failure.as_mut());
            dpdk_sys::millrace_enqueue_create(
                number,
                *table,
                &pattern,
                &actions,
                template,
                key.bits(),
                failure,
            )
        };
        match self.rules.get_mut(key) {
            Some(rule) if !flow.is_null() => rule.flow = flow,
            _ => {
                self.rules.remove(key);
                return Err(failure.last(number));
            }
        }
        self.outstanding += 1;
        Ok(RuleKey(key))
    }

    /// Enqueues a rule's end.
    ///
    /// # Errors
    /// EBUSY when the queue is full or the rule's creation, or another destruction, is under way; ENOENT for
    /// a rule that is gone; else what the driver says. Nothing is enqueued.
    pub fn enqueue_destroy(&mut self, rule: RuleKey) -> Result<(), FlowError> {
        let (number, mut failure) = (self.port.number(), Failure::new("enqueuing a rule's end"));
        let full = self.room() == 0;
        let Some(known) = self.rules.get_mut(rule.0) else {
            return Err(failure.because(number, Errno::NOENT));
        };
        if full || known.state != State::Settled {
            return Err(failure.because(number, Errno::BUSY));
        }
        // SAFETY: as for `enqueue_create`; the handle is the port's, its creation has been pulled, and it has
        // not been destroyed.
        let ret = unsafe {
            let user_data = rule.0.bits() | DESTRUCTION;
            dpdk_sys::millrace_enqueue_destroy(number, known.flow, user_data, failure.as_mut())
        };
        failure.check(number, ret)?;
        known.state = State::Destroying;
        self.outstanding += 1;
        Ok(())
    }

    /// Lets the device begin with everything enqueued so far.
    pub fn push(&mut self) -> Result<(), FlowError> {
        let (number, mut failure) = (self.port.number(), Failure::new("pushing its flow queue"));
        // SAFETY: as for `enqueue_create`.
        let ret = unsafe { dpdk_sys::rte_flow_push(number, 0, failure.as_mut()) };
        failure.check(number, ret)
    }

    /// Appends operations that have ended, up to the vector's capacity.
    pub fn pull(&mut self, done: &mut Vec<Done>) -> Result<(), FlowError> {
        let (number, mut failure) = (self.port.number(), Failure::new("pulling from its flow queue"));
        loop {
            let mut ended = [dpdk_sys::millrace_done::default(); CHUNK];
            let room = (done.capacity() - done.len()).min(CHUNK);
            if room == 0 {
                return Ok(());
            }
            // SAFETY: as for `enqueue_create`; there is room for so many answers.
            let ret =
                unsafe { dpdk_sys::millrace_pull(number, ended.as_mut_ptr(), room as u16, failure.as_mut()) };
            failure.check(number, ret)?;
            let count = (ret as usize).min(room);
            done.extend(ended[..count].iter().filter_map(|ended| self.settle(ended)));
            if count < room {
                return Ok(());
            }
        }
    }

    /// Takes note of an answer; `None` if it is about a rule that has been flushed, or a meter.
    fn settle(&mut self, ended: &dpdk_sys::millrace_done) -> Option<Done> {
        if self.settle_meter(ended) {
            return None;
        }
        let key = Key::from_bits(ended.user_data);
        let rule = self.rules.get_mut(key)?;
        let tag = rule.tag;
        let end = match (ended.user_data & DESTRUCTION != 0, ended.ok) {
            (false, true) => End::Created,
            (false, false) => End::CreateFailed,
            (true, true) => End::Destroyed,
            (true, false) => End::DestroyFailed,
        };
        rule.state = State::Settled;
        if end == End::Destroyed {
            self.rules.remove(key);
        }
        self.outstanding = self.outstanding.saturating_sub(1);
        Some(Done { rule: RuleKey(key), tag, end })
    }

    /// Removes all rules of the port, whatever their state, all counters and all meters; tables stay. On an
    /// error there may be some left in the device; here all are forgotten, but for counters and meters that
    /// it would not give up.
    pub fn flush(&mut self) -> Result<(), FlowError> {
        let flushed = self.port.flush();
        self.rules.clear();
        self.outstanding = 0;
        let forgotten = self.forget_meters();
        flushed.and(forgotten)
    }
}

impl Drop for FlowQueue<'_> {
    fn drop(&mut self) {
        // What the driver will not give up goes when the port is closed.
        let _ = self.flush();
        for table in &self.tables {
            destroy_table(self.port.number(), table);
        }
    }
}

/// Makes a table step by step; what was made before a failure is in `table`.
fn make_table(
    port: u16,
    table: &mut Table,
    attr: Attr,
    rules: u32,
    pattern: &Pattern,
    actions: &[Actions],
) -> Result<(), FlowError> {
    let mut failure = Failure::new("creating a pattern template");
    // SAFETY: the caller's port is started; the list is as long as it says and outlives the call.
    table.pattern =
        unsafe { dpdk_sys::millrace_pattern_template(port, attr.transfer, &pattern.c(), failure.as_mut()) };
    if table.pattern.is_null() {
        return Err(failure.last(port));
    }
    for actions in actions.iter().take(FlowQueue::TEMPLATES_MAX) {
        let mut failure = Failure::new("creating an actions template");
        // SAFETY: as above.
        let template = unsafe {
            dpdk_sys::millrace_actions_template(
                port,
                attr.transfer,
                &actions.c(core::ptr::null_mut(), core::ptr::null_mut()),
                failure.as_mut(),
            )
        };
        if template.is_null() {
            return Err(failure.last(port));
        }
        table.actions.push(template);
    }
    let mut failure = Failure::new("creating a template table");
    let count = table.actions.len() as u8;
    // SAFETY: the templates are the port's; there are so many, and the driver copies the array.
    table.table = unsafe {
        let actions = table.actions.as_mut_ptr();
        dpdk_sys::millrace_table(port, &attr.c(), rules, table.pattern, actions, count, failure.as_mut())
    };
    if table.table.is_null() { Err(failure.last(port)) } else { Ok(()) }
}

/// Destroys as much of a table as there is. What the driver will not give up goes when the port is closed.
fn destroy_table(port: u16, table: &Table) {
    let mut failure = Failure::new("destroying a template table");
    // SAFETY: the port is started; table and templates are its own and not used again; the table, which
    // refers to the templates, goes first.
    unsafe {
        if !table.table.is_null() {
            dpdk_sys::rte_flow_template_table_destroy(port, table.table, failure.as_mut());
        }
        for actions in &table.actions {
            dpdk_sys::rte_flow_actions_template_destroy(port, *actions, failure.as_mut());
        }
        if !table.pattern.is_null() {
            dpdk_sys::rte_flow_pattern_template_destroy(port, table.pattern, failure.as_mut());
        }
    }
}
