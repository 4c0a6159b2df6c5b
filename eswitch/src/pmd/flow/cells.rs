//! Flow queues in their places. One thread at a time uses a queue, says `rte_flow.h`; here a second one is
//! turned away and counted, where on the hardware anything may happen.

use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use arrayvec::ArrayVec;
use crossbeam::utils::CachePadded;

use super::state::DeviceFlows;
use crate::model::refusal::{Cause, Errno, Refusal};
use crate::model::switch::{FlowQueue, Table};

/// Numbers that queues can have: a rule's handle has eight bits for them, one value of which says "none".
const QUEUES_MAX: usize = 255;

/// Tables that a queue remembers.
const RECENT: usize = 8;

const NO_QUEUE: Refusal =
    Refusal::new(Errno::Inval, Cause::Unspecified, "no such flow queue: see rte_flow_configure");
const MISUSED: Refusal =
    Refusal::new(Errno::Busy, Cause::Unspecified, "another thread is using this flow queue");

/// A queue, and the tables it has lately put rules into, so that finding one takes no lock.
pub(super) struct Lane {
    pub(super) queue: FlowQueue,
    recent: ArrayVec<(usize, Arc<Table>), RECENT>,
    /// The registry's version that `recent` is of.
    version: u32,
}

impl Lane {
    /// The table with this handle, found by `find` if it is not among the recent ones.
    pub(super) fn table(
        &mut self,
        handle: usize,
        version: u32,
        find: impl FnOnce() -> Option<Arc<Table>>,
    ) -> Option<(&mut FlowQueue, &Table)> {
        if self.version != version {
            self.recent.clear();
            self.version = version;
        }
        let at = match self.recent.iter().position(|(known, _)| *known == handle) {
            Some(at) => at,
            None => {
                let table = find()?;
                if self.recent.is_full() {
                    self.recent.remove(0);
                }
                self.recent.push((handle, table));
                self.recent.len() - 1
            }
        };
        Some((&mut self.queue, &self.recent[at].1))
    }
}

#[derive(Default)]
struct Cell {
    busy: AtomicBool,
    lane: UnsafeCell<Option<Lane>>,
}

// SAFETY: the lane is only reached by who set `busy`, which is set and cleared with acquire and release.
unsafe impl Sync for Cell {}

/// A port's queues by number. The places are made with the first configuration and stay.
#[derive(Default)]
pub(super) struct Cells(OnceLock<Box<[CachePadded<Cell>]>>);

/// The right to use a place, until dropped.
pub(super) struct Entered<'a> {
    cell: &'a Cell,
}

/// The right to use a queue, until dropped.
pub(super) struct InUse<'a>(Entered<'a>);

impl Cells {
    /// Enters a queue.
    ///
    /// # Errors
    /// EINVAL if there is none; EBUSY, which is counted, if another thread is in.
    #[inline]
    pub(super) fn enter(&self, device: &DeviceFlows, number: u32) -> Result<InUse<'_>, Refusal> {
        let cell = self.0.get().and_then(|cells| cells.get(number as usize)).ok_or(NO_QUEUE)?;
        let Some(entered) = cell.enter() else {
            device.misuse.fetch_add(1, Ordering::Relaxed);
            return Err(MISUSED);
        };
        if entered.lane().is_none() {
            return Err(NO_QUEUE);
        }
        Ok(InUse(entered))
    }

    /// Replaces all queues by what `make` makes; if it refuses, they stay. No thread may be in one.
    ///
    /// # Errors
    /// EBUSY if a thread is, or operations are outstanding, or rules exist; what `make` refuses.
    pub(super) fn replace(
        &self,
        make: impl FnOnce() -> Result<Vec<FlowQueue>, Refusal>,
    ) -> Result<(), Refusal> {
        let cells = self.0.get_or_init(|| (0..QUEUES_MAX).map(|_| CachePadded::default()).collect());
        let mut entered: Vec<Entered<'_>> = Vec::with_capacity(cells.len());
        for cell in cells {
            entered.push(cell.enter().ok_or(MISUSED)?);
        }
        for queue in entered.iter_mut().filter_map(|entered| entered.lane_mut().as_mut()) {
            queue.queue.notice_restart();
            if queue.queue.outstanding() > 0 || queue.queue.rules() > 0 {
                let why = "the flow queues still have operations or rules: destroy them and pull";
                return Err(Refusal::new(Errno::Busy, Cause::Unspecified, why));
            }
        }
        let mut made = make()?.into_iter();
        for entered in &mut entered {
            *entered.lane_mut() =
                made.next().map(|queue| Lane { queue, recent: ArrayVec::new(), version: 0 });
        }
        Ok(())
    }

    /// Lets the queues that nobody uses notice that their port was stopped.
    pub(super) fn notice_restart(&self) {
        for cell in self.0.get().into_iter().flatten() {
            if let Some(mut entered) = cell.enter() {
                if let Some(lane) = entered.lane_mut() {
                    lane.queue.notice_restart();
                }
            }
        }
    }
}

impl Cell {
    #[inline]
    fn enter(&self) -> Option<Entered<'_>> {
        // Not made unless entered: dropping it leaves.
        (!self.busy.swap(true, Ordering::Acquire)).then(|| Entered { cell: self })
    }
}

impl Entered<'_> {
    #[inline]
    fn lane(&self) -> &Option<Lane> {
        // SAFETY: who has entered is alone.
        unsafe { &*self.cell.lane.get() }
    }

    #[inline]
    fn lane_mut(&mut self) -> &mut Option<Lane> {
        // SAFETY: who has entered is alone, and borrows mutably.
        unsafe { &mut *self.cell.lane.get() }
    }
}

impl Drop for Entered<'_> {
    #[inline]
    fn drop(&mut self) {
        self.cell.busy.store(false, Ordering::Release);
    }
}

impl Deref for InUse<'_> {
    type Target = Lane;

    #[inline]
    fn deref(&self) -> &Lane {
        match self.0.lane() {
            Some(lane) => lane,
            None => unreachable!("looked at when entering"),
        }
    }
}

impl DerefMut for InUse<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut Lane {
        match self.0.lane_mut() {
            Some(lane) => lane,
            None => unreachable!("looked at when entering"),
        }
    }
}
