//! Flow rules: safe owners of what a port's device holds on request.
//!
//! ```text
//! Port (started) ── FlowPort            counters, aged rules, flush; exists once per port
//!                      ├── Flows        rules one by one, each call blocks        (software steering)
//!                      └── FlowQueue    templates, tables, one asynchronous queue (hardware steering)
//! ```
//!
//! Rules, counters and tables are held by the owner and named by keys. A key that outlived what it named (a
//! flush takes everything at once) is recognised and refused, where the driver would follow a dangling
//! pointer. The owner borrows its started port, so a port cannot be stopped under its rules.
//!
//! [`spec`] is what patterns and actions can say; [`sync`] and [`queue`] carry rules out; [`meter`] is about
//! the meters that rules of software steering name, [`mark`] about those of hardware steering.

mod error;
pub mod mark;
pub mod meter;
pub mod queue;
pub mod spec;
mod store;
pub mod sync;

use std::sync::atomic::{AtomicBool, Ordering};

use crate::errno::Errno;
use crate::port::Port;
use error::Failure;
use store::{Key, Store};

pub use error::FlowError;
pub use mark::MeterKey;
pub use meter::{MeterDrops, MeterRate};
pub use queue::{Done, End, FlowQueue, FlowQueueConfig, QueueLimits, TableKey};
pub use spec::{ACTIONS_MAX, Actions, Attr, HEADERS_MAX, ITEMS_MAX, Pattern};
pub use sync::Flows;

/// Names a rule.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RuleKey(Key);

/// Names a counter.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct CounterKey(Key);

/// What a counter has counted so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CounterValue {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// A counter as the driver knows it.
#[derive(Debug)]
struct Counter(*mut dpdk_sys::rte_flow_action_handle);

// SAFETY: rte_flow objects belong to a port, not to a thread; the pointer is only ever handed back to DPDK.
unsafe impl Send for Counter {}

/// A port's flow rules cannot be taken.
pub(crate) fn refused(port: u16, errno: Errno) -> FlowError {
    Failure::new("taking its flow rules").because(port, errno)
}

/// The port on which rules of a port's eSwitch are made.
pub(crate) fn transfer_proxy(port: u16) -> Result<u16, FlowError> {
    let mut failure = Failure::new("asking for its transfer proxy");
    let mut proxy = 0;
    // SAFETY: the caller's port is valid; `proxy` and `failure` are writable.
    let ret = unsafe { dpdk_sys::rte_flow_pick_transfer_proxy(port, &mut proxy, failure.as_mut()) };
    failure.check(port, ret)?;
    Ok(proxy)
}

/// The right to a started port's flow rules, which exists once and returns when dropped; with it, the
/// port's counters.
#[derive(Debug)]
pub struct FlowPort<'port> {
    port: &'port Port<'port>,
    taken: &'port AtomicBool,
    counters: Store<Counter>,
}

impl<'port> FlowPort<'port> {
    /// Takes the right, unless somebody has it.
    pub(crate) fn take(
        port: &'port Port<'port>,
        taken: &'port AtomicBool,
    ) -> Result<FlowPort<'port>, FlowError> {
        if taken.swap(true, Ordering::Acquire) {
            return Err(refused(port.number(), Errno::BUSY));
        }
        Ok(FlowPort { port, taken, counters: Store::new() })
    }

    /// DPDK's number for the port.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.port.number()
    }

    /// A counter for rules of the eSwitch (`transfer`), or else of the port's receive side. It outlives the
    /// rules it is used in.
    pub fn create_counter(&mut self, transfer: bool) -> Result<CounterKey, FlowError> {
        let mut failure = Failure::new("creating a counter");
        // SAFETY: the port is started and stays so for `'port`; `failure` is writable.
        let counter = unsafe { dpdk_sys::millrace_counter_create(self.number(), transfer, failure.as_mut()) };
        if counter.is_null() {
            return Err(failure.last(self.number()));
        }
        Ok(CounterKey(self.counters.insert(Counter(counter))))
    }

    /// What it has counted, as of the driver's last look.
    pub fn count(&self, counter: CounterKey) -> Result<CounterValue, FlowError> {
        let mut failure = Failure::new("reading a counter");
        let Some(Counter(handle)) = self.counters.get(counter.0) else {
            return Err(failure.because(self.number(), Errno::NOENT));
        };
        let mut count = dpdk_sys::millrace_count::default();
        // SAFETY: the handle is the port's and has not been destroyed: then it would not be in the store.
        let ret =
            unsafe { dpdk_sys::millrace_counter_query(self.number(), *handle, &mut count, failure.as_mut()) };
        failure.check(self.number(), ret)?;
        Ok(CounterValue { packets: count.packets, bytes: count.bytes })
    }

    /// Destroys a counter that no rule uses any more. On an error it stays.
    pub fn destroy_counter(&mut self, counter: CounterKey) -> Result<(), FlowError> {
        let mut failure = Failure::new("destroying a counter");
        let Some(Counter(handle)) = self.counters.get(counter.0) else {
            return Err(failure.because(self.number(), Errno::NOENT));
        };
        // SAFETY: as for `count`; after success it leaves the store.
        let ret =
            unsafe { dpdk_sys::rte_flow_action_handle_destroy(self.number(), *handle, failure.as_mut()) };
        failure.check(self.number(), ret)?;
        self.counters.remove(counter.0);
        Ok(())
    }

    /// Counters that exist.
    #[must_use]
    pub fn counters(&self) -> usize {
        self.counters.len()
    }

    /// Writes the contexts of rules that have aged into `contexts`; how many.
    pub fn aged(&mut self, contexts: &mut [u64]) -> Result<usize, FlowError> {
        let mut failure = Failure::new("asking for aged rules");
        let room = u32::try_from(contexts.len()).unwrap_or(u32::MAX);
        // SAFETY: the port is started; there is room for so many contexts, which are integers.
        let ret =
            unsafe { dpdk_sys::millrace_aged(self.number(), contexts.as_mut_ptr(), room, failure.as_mut()) };
        failure.check(self.number(), ret)?;
        Ok(ret as usize)
    }

    /// Removes all rules that were created on the port, then its counters.
    fn flush(&mut self) -> Result<(), FlowError> {
        let mut failure = Failure::new("flushing its rules");
        // SAFETY: the port is started. The caller forgets all rules of the port, whatever the answer.
        let ret = unsafe { dpdk_sys::rte_flow_flush(self.number(), failure.as_mut()) };
        let flushed = failure.check(self.number(), ret);
        let counters = self.destroy_counters();
        flushed.and(counters)
    }

    /// Destroys all counters. Those that the driver keeps stay, and the first reason is told; those that it
    /// knows nothing of, as the device was reset, are gone.
    fn destroy_counters(&mut self) -> Result<(), FlowError> {
        let mut first = Ok(());
        for key in self.counters.keys() {
            match self.destroy_counter(CounterKey(key)) {
                Err(error) if matches!(error.errno, Errno::INVAL | Errno::NOENT) => {
                    self.counters.remove(key);
                }
                destroyed => first = first.and(destroyed),
            }
        }
        first
    }

    /// The driver's handle of the counter in a list of actions; null if there is none in it.
    fn counter_in(
        &self,
        actions: &Actions,
        failure: &mut Failure,
    ) -> Result<*mut dpdk_sys::rte_flow_action_handle, FlowError> {
        let Some(key) = actions.counter() else { return Ok(core::ptr::null_mut()) };
        match self.counters.get(key.0) {
            Some(Counter(handle)) => Ok(*handle),
            None => Err(failure.because(self.number(), Errno::NOENT)),
        }
    }
}

impl Drop for FlowPort<'_> {
    fn drop(&mut self) {
        // What the driver will not give up goes when the port is closed.
        let _ = self.destroy_counters();
        self.taken.store(false, Ordering::Release);
    }
}
