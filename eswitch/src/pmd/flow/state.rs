//! What flow operations keep beside the model: by device, who may create; by port, templates and queues.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::cells::Cells;
use super::lives::Lives;
use super::template::Registry;
use super::turn::Turn;
use crate::model::validate::Pools;
use crate::pmd::lock::Fair;

const COUNTERS: u8 = 1;
const AGES: u8 = 2;
const METERS: u8 = 4;

/// Of a device.
pub(in crate::pmd) struct DeviceFlows {
    /// Held while a synchronous call takes as long as the hardware's would: one at a time.
    pub(super) alone: Fair<Turn>,
    /// Times that two threads were found on one flow queue.
    pub(super) misuse: AtomicU64,
    /// Which indirect actions exist.
    pub(super) lives: Lives,
}

impl DeviceFlows {
    pub(in crate::pmd) fn new() -> DeviceFlows {
        DeviceFlows { alone: Fair::new(Turn::NONE), misuse: AtomicU64::new(0), lives: Lives::new() }
    }

    /// The device has been reset: handles of counters and ages are stale.
    pub(in crate::pmd) fn forget(&self) {
        self.lives.end_counters_and_ages();
    }

    /// Times that two threads were found on one flow queue.
    pub(in crate::pmd) fn misuse(&self) -> u64 {
        self.misuse.load(Ordering::Relaxed)
    }
}

/// Of a port.
#[derive(Default)]
pub(in crate::pmd) struct PortFlows {
    /// Templates and tables.
    registry: Mutex<Registry>,
    /// Flow queues.
    pub(super) queues: Cells,
    /// Goes up when a table goes, so that queues forget it.
    tables_version: AtomicU32,
    /// What `rte_flow_configure` set aside.
    pools: AtomicU8,
}

impl PortFlows {
    /// Templates and tables.
    pub(super) fn registry(&self) -> MutexGuard<'_, Registry> {
        // Nothing is left half done in it.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A table is gone: queues must not remember it.
    pub(super) fn forget_tables(&self) {
        self.tables_version.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn tables_version(&self) -> u32 {
        self.tables_version.load(Ordering::Acquire)
    }

    /// What `rte_flow_configure` set aside.
    pub(super) fn pools(&self) -> Pools {
        let bits = self.pools.load(Ordering::Acquire);
        Pools { counters: bits & COUNTERS != 0, ages: bits & AGES != 0, meters: bits & METERS != 0 }
    }

    pub(super) fn set_pools(&self, pools: Pools) {
        let bit = |set: bool, bit: u8| u8::from(set) * bit;
        let bits = bit(pools.counters, COUNTERS) | bit(pools.ages, AGES) | bit(pools.meters, METERS);
        self.pools.store(bits, Ordering::Release);
    }
}
