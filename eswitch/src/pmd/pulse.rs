//! The device's pulse: what must go on although nobody polls, and what the application is told on the EAL's
//! interrupt thread, as by a hardware driver.
//!
//! A beat lets the model do what is due (operations of flow queues, ageing, counters), looks at the wires'
//! links, and reports. It forwards no packets: that is for those who poll. Both kinds of alarm end with the
//! device: [`Pulse::end`] waits for one that is running, unless it is called from it; then the alarm's own
//! reference keeps the device until it is done.

use std::ffi::c_void;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};

use super::device::Switch;
use super::wire::State;
use super::{border, ffi, port};
use crate::model::switch::Event;

/// Microseconds between two beats.
const PERIOD_US: u64 = 100_000;

/// Microseconds until a report that cannot wait for the next beat.
const AT_ONCE_US: u64 = 1;

/// Nanoseconds that a beat spends on the model at most.
const BUDGET_NS: u64 = 5_000_000;

/// Times that a beat tries to find nobody driving the device; a later beat will.
const ATTEMPTS: usize = 64;

type Alarm = unsafe extern "C" fn(*mut c_void);

/// Whether alarms may be set.
#[derive(Default)]
pub(super) struct Pulse {
    ended: Mutex<bool>,
}

fn argument(switch: &Switch) -> *mut c_void {
    std::ptr::from_ref(switch).cast_mut().cast()
}

impl Pulse {
    /// Begins to beat.
    pub(super) fn start(&self, switch: &Switch) {
        self.set(switch, PERIOD_US, on_beat);
    }

    /// Has the interrupt thread report soon.
    #[cold]
    pub(super) fn hurry(&self, switch: &Switch) {
        self.set(switch, AT_ONCE_US, on_report);
    }

    /// Waits for an alarm that is running, unless this is called from it; then goes on.
    pub(super) fn pause(&self, switch: &Switch) {
        cancel(switch);
        self.start(switch);
    }

    /// No alarm runs after this, but the one that this may be called from.
    pub(super) fn end(&self, switch: &Switch) {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
        cancel(switch);
    }

    /// Sets an alarm, unless the pulse has ended: under the lock, so that [`Pulse::end`] finds it.
    fn set(&self, switch: &Switch, delay_us: u64, alarm: Alarm) {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        if !*ended {
            // SAFETY: `end` cancels the alarm before the switch goes.
            unsafe { ffi::rte_eal_alarm_set(delay_us, Some(alarm), argument(switch)) };
        }
    }
}

/// Takes back all alarms, and waits for one that is running on another thread.
fn cancel(switch: &Switch) {
    for alarm in [on_beat as Alarm, on_report] {
        // SAFETY: looks for this very pair.
        unsafe { ffi::rte_eal_alarm_cancel(Some(alarm), argument(switch)) };
    }
}

unsafe extern "C" fn on_beat(argument: *mut c_void) {
    border::guard("pulse", (), || {
        // SAFETY: the switch is there when its alarm begins, see `Pulse::end`; from then on the reference
        // keeps it.
        let Some(switch) = unsafe { &*argument.cast::<Switch>() }.this.upgrade() else { return };
        border::guard("beat", (), || switch.beat());
        switch.pulse.start(&switch);
    });
}

unsafe extern "C" fn on_report(argument: *mut c_void) {
    border::guard("report", (), || {
        // SAFETY: as in `on_beat`.
        let Some(switch) = unsafe { &*argument.cast::<Switch>() }.this.upgrade() else { return };
        switch.report();
    });
}

impl Switch {
    fn beat(&self) {
        let begin = self.clock.now();
        let mut more = true;
        while more
            && self.clock.now().since(begin) < BUDGET_NS
            && !self.presence.is_remembered(self.clock.now())
        {
            let mut eswitch = self.eswitch.lock();
            more = eswitch.advance(self.clock.now());
            let events = eswitch.take_events();
            drop(eswitch);
            self.note(&events);
        }
        self.watch_links();
        self.report();
    }

    /// Tells the application of the model's events, soon.
    #[cold]
    pub(super) fn announce(&self, events: &[Event]) {
        self.note(events);
        self.pulse.hurry(self);
    }

    /// Notes what is to be reported.
    fn note(&self, events: &[Event]) {
        for event in events {
            let (Event::FlowAged(vport) | Event::LinkDown(vport)) = event;
            let Some(port) = self.ports.get(usize::from(vport.0)) else { continue };
            match event {
                Event::FlowAged(_) => port.aged.store(true, Ordering::Release),
                Event::LinkDown(_) => port.cut.store(true, Ordering::Release),
            }
        }
    }

    /// Takes over the state of the wires' links.
    fn watch_links(&self) {
        let attempt = || {
            let plumbing = self.plumbing.try_lock();
            if plumbing.is_none() {
                std::thread::yield_now();
            }
            plumbing
        };
        // Nobody is waited for: a wire's own callbacks may need this thread. While the lock is held, a wire
        // that runs stays.
        let Some(plumbing) = (0..ATTEMPTS).find_map(|_| attempt()) else { return };
        for (port, end) in self.ports.iter().zip(&plumbing.ends) {
            let State::Running { port: wire, .. } = end.wire.state else { continue };
            let device = port.device();
            let shown = port.started.load(Ordering::Acquire) && !port.cut.load(Ordering::Acquire);
            if shown && !device.is_null() && port::show_link(device, &port::link_of(wire)) {
                port.turned.store(true, Ordering::Release);
            }
        }
    }

    /// Tells the application what was noted.
    fn report(&self) {
        for port in &self.ports {
            // A callback may close any port.
            let tell = |event| {
                let device = port.device();
                if !device.is_null() {
                    // SAFETY: an ethdev of this driver that is not closed, nor will be meanwhile: closing
                    // waits for this thread, or is done by it.
                    unsafe { ffi::rte_eth_dev_callback_process(device, event, std::ptr::null_mut()) };
                }
            };
            if port.aged.swap(false, Ordering::AcqRel) {
                tell(ffi::RTE_ETH_EVENT_FLOW_AGED);
            }
            let device = port.device();
            if port.cut.load(Ordering::Acquire)
                && !port.cut_told.swap(true, Ordering::AcqRel)
                && !device.is_null()
            {
                port::show_link(device, &ffi::rte_eth_link::default());
                port.turned.store(true, Ordering::Release);
            }
            if port.turned.swap(false, Ordering::AcqRel) {
                tell(ffi::RTE_ETH_EVENT_INTR_LSC);
            }
        }
    }
}
