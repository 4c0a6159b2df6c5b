//! Meters of hardware steering (`METER_MARK`): each colours the packets of all rules that name it, and it is
//! for rules of a later group to drop the red ones.
//!
//! What the source of mlx5 22.11 says of them (`mlx5_flow_hw.c`, `mlx5_flow_meter.c`, `mlx5_flow_aso.c`,
//! `hws/mlx5dr_definer.c`; nothing of it was tried on a device):
//!
//! * There are as many as `rte_flow_configure` sets aside (`nb_meters`), on the port that has the
//!   templates; in the eSwitch they exist on the transfer proxy only. Of the operations of `rte_mtr` only
//!   those on profiles are there: no meters by number, no policies (the action's `policy` is not looked
//!   at), no statistics. So red packets are dropped, and counted, by rules that match the `METER_COLOR`.
//! * A port has one profile, number 0. What it says is copied into the work request as an operation on a
//!   meter is enqueued, and deleting it asks nothing of meters. So each operation here lends the profile
//!   its own rate, and takes it back: any number of meters have a rate of their own.
//! * The colour is in one register for meters and connection tracking, and red is 0 there: of packets that no
//!   meter has seen, that may be what rules find. A mask on the colour other than all its bits is translated
//!   as if it were a colour itself, and may compare nothing.
//! * An indirect meter may be named by rules of transfer templates, whose mask tells that the handle, which
//!   comes with each rule, is a meter's. In a rule it comes after COUNT, wherever it is named: what is
//!   counted there is what arrived, red or not.
//! * Its creation by `rte_flow_action_handle_create` waits for the device, for up to a second. Changes are
//!   operations of a flow queue like those on rules, and end by `rte_flow_pull`. The request leaves out the
//!   tokens that the meter holds; its mask covers them, so they may start anew (see `meter`).
//! * Its end without a queue frees the meter's index twice. Where there are no more than 4096 meters the
//!   second time does nothing; with more, each thread caches free indices, and two meters might become one.
//!   So no more are asked for ([`METERS_MAX`]).

use super::error::Failure;
use super::meter::MeterRate;
use super::queue::FlowQueue;
use super::store::{Key, Store};
use super::{Actions, FlowError};
use crate::errno::Errno;

/// Meters that a flow queue can be given at most: see the module's header.
pub const METERS_MAX: u32 = 4096;

/// Set in the user data of a change of a meter.
const CHANGE: u64 = 1 << 63;

/// Names a meter.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct MeterKey(Key);

/// A meter as the driver knows it.
#[derive(Debug)]
struct Mark {
    handle: *mut dpdk_sys::rte_flow_action_handle,
    /// Changes under way.
    changing: u32,
}

// SAFETY: rte_flow objects belong to a port, not to a thread; the pointer is only ever handed back to DPDK.
unsafe impl Send for Mark {}

/// The meters of a flow queue's port.
#[derive(Debug)]
pub(super) struct Marks {
    max: u32,
    held: Store<Mark>,
    /// Those that the device would not change.
    unchanged: Vec<MeterKey>,
}

impl Marks {
    pub(super) fn new(max: u32) -> Marks {
        Marks { max, held: Store::new(), unchanged: Vec::new() }
    }
}

fn raw(rate: &MeterRate) -> dpdk_sys::millrace_meter_rate {
    let MeterRate { per_second, burst, packets } = *rate;
    dpdk_sys::millrace_meter_rate { per_second, burst, packets }
}

impl FlowQueue<'_> {
    /// Meters that it was given.
    #[must_use]
    pub fn meters_max(&self) -> u32 {
        self.marks.max
    }

    /// Makes a meter, full of its burst. The call returns once the device has it.
    ///
    /// # Errors
    /// What the driver says: ENOTSUP without meters, or for a rate that is out of range.
    pub fn create_meter(&mut self, rate: &MeterRate) -> Result<MeterKey, FlowError> {
        let (number, mut failure) = (self.number(), Failure::new("making a meter"));
        // SAFETY: the port is started; the structures outlive the call, and drivers copy what they need.
        let handle = unsafe { dpdk_sys::millrace_mark_create(number, &raw(rate), failure.as_mut()) };
        if handle.is_null() {
            return Err(failure.last(number));
        }
        Ok(MeterKey(self.marks.held.insert(Mark { handle, changing: 0 })))
    }

    /// Enqueues another rate for a meter; [`FlowQueue::take_unchanged`] tells if the device would not have
    /// it.
    ///
    /// # Errors
    /// EBUSY when the queue is full, before the driver is asked; ENOENT for a meter that is gone; else what
    /// the driver says. The meter is as it was.
    pub fn enqueue_meter_change(&mut self, meter: MeterKey, rate: &MeterRate) -> Result<(), FlowError> {
        let (number, mut failure) = (self.number(), Failure::new("changing a meter"));
        let full = self.room() == 0;
        let Some(mark) = self.marks.held.get_mut(meter.0) else {
            return Err(failure.because(number, Errno::NOENT));
        };
        if full {
            return Err(failure.because(number, Errno::BUSY));
        }
        // SAFETY: the port is started and has a queue 0, which `&mut self` makes ours alone; the handle is
        // the port's and has not been destroyed: then it would not be in the store. Drivers copy the rate.
        let ret = unsafe {
            let user_data = meter.0.bits() | CHANGE;
            dpdk_sys::millrace_mark_change(number, mark.handle, &raw(rate), user_data, failure.as_mut())
        };
        failure.check(number, ret)?;
        mark.changing += 1;
        self.outstanding += 1;
        Ok(())
    }

    /// A meter whose change has ended badly, each once: it is as it was.
    pub fn take_unchanged(&mut self) -> Option<MeterKey> {
        self.marks.unchanged.pop()
    }

    /// Destroys a meter that no rule names any more.
    ///
    /// # Errors
    /// EBUSY while a change is under way; else what the driver says. It stays.
    pub fn destroy_meter(&mut self, meter: MeterKey) -> Result<(), FlowError> {
        let (number, mut failure) = (self.number(), Failure::new("destroying a meter"));
        let Some(mark) = self.marks.held.get(meter.0) else {
            return Err(failure.because(number, Errno::NOENT));
        };
        if mark.changing > 0 {
            return Err(failure.because(number, Errno::BUSY));
        }
        // SAFETY: as for a change; after success it leaves the store.
        let ret = unsafe { dpdk_sys::rte_flow_action_handle_destroy(number, mark.handle, failure.as_mut()) };
        failure.check(number, ret)?;
        self.marks.held.remove(meter.0);
        Ok(())
    }

    /// Destroys all meters, whose rules are gone and whose changes nobody waits for.
    ///
    /// # Errors
    /// The first that the driver has not given up. It is known still: the next flush tries again.
    pub(super) fn forget_meters(&mut self) -> Result<(), FlowError> {
        self.marks.unchanged.clear();
        let mut forgotten = Ok(());
        for key in self.marks.held.keys() {
            if let Some(mark) = self.marks.held.get_mut(key) {
                mark.changing = 0;
            }
            match self.destroy_meter(MeterKey(key)) {
                // The device was reset, and knows nothing of it.
                Err(error) if matches!(error.errno, Errno::NOENT | Errno::INVAL) => {
                    self.marks.held.remove(key);
                }
                destroyed => forgotten = forgotten.and(destroyed),
            }
        }
        forgotten
    }

    /// Takes note of an answer, if it is about a change of a meter.
    pub(super) fn settle_meter(&mut self, ended: &dpdk_sys::millrace_done) -> bool {
        if ended.user_data & CHANGE == 0 {
            return false;
        }
        let key = Key::from_bits(ended.user_data & !CHANGE);
        if let Some(mark) = self.marks.held.get_mut(key).filter(|mark| mark.changing > 0) {
            mark.changing -= 1;
            self.outstanding = self.outstanding.saturating_sub(1);
            if !ended.ok {
                self.marks.unchanged.push(MeterKey(key));
            }
        }
        true
    }

    /// The driver's handle of the meter in a list of actions; null if there is none in it.
    pub(super) fn meter_in(
        &self,
        actions: &Actions,
        failure: &mut Failure,
    ) -> Result<*mut dpdk_sys::rte_flow_action_handle, FlowError> {
        let Some(key) = actions.meter_key() else { return Ok(core::ptr::null_mut()) };
        match self.marks.held.get(key.0) {
            Some(mark) => Ok(mark.handle),
            None => Err(failure.because(self.number(), Errno::NOENT)),
        }
    }
}
