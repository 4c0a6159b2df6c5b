//! The cycle counter, for those who turn it into the ticks that the dataplane takes as arguments.

use crate::eal::Eal;

/// The counter now: the TSC on x86, the virtual counter on ARM. Cheap, and monotonic across cores
/// wherever DPDK runs.
#[inline]
#[must_use]
pub fn rdtsc() -> u64 {
    // SAFETY: reads a CPU register; no precondition.
    unsafe { dpdk_sys::millrace_rdtsc() }
}

/// Counts per second, as measured when the EAL started; the argument is the proof that it did.
#[must_use]
pub fn tsc_hz(_eal: &Eal) -> u64 {
    // SAFETY: reads a number that rte_eal_init has set.
    unsafe { dpdk_sys::rte_get_tsc_hz() }
}
