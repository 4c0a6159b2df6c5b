//! Rules one by one: each call blocks until the device has done it.

use super::error::Failure;
use super::meter::Meters;
use super::store::Store;
use super::{Actions, Attr, FlowError, FlowPort, Pattern, RuleKey};
use crate::errno::Errno;

/// A rule as the driver knows it.
#[derive(Debug)]
struct Rule(*mut dpdk_sys::rte_flow);

// SAFETY: rte_flow objects belong to a port, not to a thread; the pointer is only ever handed back to DPDK.
unsafe impl Send for Rule {}

/// A port's rules, made one by one. Dropping it removes them all.
#[derive(Debug)]
pub struct Flows<'port> {
    port: FlowPort<'port>,
    rules: Store<Rule>,
    pub(super) meters: Meters,
}

impl<'port> Flows<'port> {
    /// Of the port of which this is the right.
    pub(crate) fn new(port: FlowPort<'port>) -> Flows<'port> {
        Flows { port, rules: Store::new(), meters: Meters::default() }
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

    /// Rules that exist.
    #[must_use]
    pub fn rules(&self) -> usize {
        self.rules.len()
    }

    /// Whether such a rule could be made, were there room.
    pub fn validate(&self, attr: Attr, pattern: &Pattern, actions: &Actions) -> Result<(), FlowError> {
        let mut failure = Failure::new("validating a rule");
        let counter = self.port.counter_in(actions, &mut failure)?;
        let number = self.port.number();
        // SAFETY: the port is started. All lists are as long as they say and outlive the call; the handle in
        // the actions is of a live counter.
        let ret = unsafe {
            let (pattern, actions) = (pattern.c(), actions.c(counter, core::ptr::null_mut()));
            dpdk_sys::millrace_flow_validate(number, &attr.c(), &pattern, &actions, failure.as_mut())
        };
        failure.check(number, ret)
    }

    /// Makes a rule; it is in force when the call returns.
    pub fn create(&mut self, attr: Attr, pattern: &Pattern, actions: &Actions) -> Result<RuleKey, FlowError> {
        let mut failure = Failure::new("creating a rule");
        let counter = self.port.counter_in(actions, &mut failure)?;
        let number = self.port.number();
        // SAFETY: as for `validate`; drivers copy what they need.
        let flow = unsafe {
            let (pattern, actions) = (pattern.c(), actions.c(counter, core::ptr::null_mut()));
            dpdk_sys::millrace_flow_create(number, &attr.c(), &pattern, &actions, failure.as_mut())
        };
        if flow.is_null() {
            return Err(failure.last(number));
        }
        Ok(RuleKey(self.rules.insert(Rule(flow))))
    }

    /// Removes a rule; packets miss it when the call returns. On an error it stays.
    pub fn destroy(&mut self, rule: RuleKey) -> Result<(), FlowError> {
        let mut failure = Failure::new("destroying a rule");
        let number = self.port.number();
        let Some(Rule(flow)) = self.rules.get(rule.0) else {
            return Err(failure.because(number, Errno::NOENT));
        };
        // SAFETY: the handle is the port's and has not been destroyed: then it would not be in the store.
        let ret = unsafe { dpdk_sys::rte_flow_destroy(number, *flow, failure.as_mut()) };
        failure.check(number, ret)?;
        self.rules.remove(rule.0);
        Ok(())
    }

    /// Removes all rules of the port, all counters and all meters. On an error there may be some left in the
    /// device; here all are forgotten, but for counters and meters that it would not give up.
    pub fn flush(&mut self) -> Result<(), FlowError> {
        let flushed = self.port.flush();
        self.rules.clear();
        let forgotten = self.forget_meters();
        flushed.and(forgotten)
    }
}

impl Drop for Flows<'_> {
    fn drop(&mut self) {
        // What the driver will not give up goes when the port stops.
        let _ = self.flush();
    }
}
