//! What was counted.

use std::ffi::{c_char, c_int, c_uint};
use std::sync::PoisonError;

use super::port::port_of;
use super::{ffi, queues};
use crate::histogram::Snapshot;

/// The extended statistics, in their order.
const NAMES: [&str; 14] = [
    "rx_turn_p50_ns",
    "rx_turn_p99_ns",
    "rx_turn_p999_ns",
    "rx_turn_max_ns",
    "rx_turns",
    "fresh",
    "answers",
    "answers_dropped",
    "tx_bad_checksum",
    "tx_latency_p50_ns",
    "tx_latency_p99_ns",
    "tx_latency_p999_ns",
    "tx_latency_max_ns",
    "tx_latencies",
];

/// Counters of a queue: packets, bytes, failures.
type Row = [u64; 3];

/// What a port's queues have counted.
#[derive(Clone, Default)]
pub(super) struct Totals {
    rx: Vec<Row>,
    tx: Vec<Row>,
    /// `fresh`, `answers`, `answers_dropped`, `tx_bad_checksum`
    others: [u64; 4],
    turns: Snapshot,
    latencies: Snapshot,
}

impl Totals {
    /// # Safety
    /// An open port of this driver, whose queues are not released meanwhile.
    unsafe fn now(device: *mut ffi::rte_eth_dev) -> Totals {
        let mut totals = Totals::default();
        // SAFETY: the caller's promise.
        for queue in unsafe { queues::receive(device) } {
            totals.rx.push([queue.packets.get(), queue.bytes.get(), queue.failed.get()]);
            totals.others[0] += queue.fresh.get();
            queue.turns.add_to(&mut totals.turns);
        }
        // SAFETY: as above.
        for queue in unsafe { queues::transmit(device) } {
            totals.tx.push([queue.packets.get(), queue.bytes.get(), 0]);
            let counters = [&queue.answers, &queue.answers_dropped, &queue.bad_checksums];
            queue.latencies.add_to(&mut totals.latencies);
            totals.others[1..].iter_mut().zip(counters).for_each(|(sum, counter)| *sum += counter.get());
        }
        totals
    }

    /// Since the last reset.
    ///
    /// # Safety
    /// As for [`Totals::now`].
    unsafe fn since_reset(device: *mut ffi::rte_eth_dev) -> Totals {
        // SAFETY: the caller's promise.
        let (mut totals, port) = unsafe { (Totals::now(device), port_of(device)) };
        let baseline = port.baseline.lock().unwrap_or_else(PoisonError::into_inner);
        let rows = totals.rx.iter_mut().zip(&baseline.rx).chain(totals.tx.iter_mut().zip(&baseline.tx));
        rows.for_each(|(row, base)| {
            row.iter_mut().zip(base).for_each(|(value, base)| subtract(value, *base))
        });
        totals.others.iter_mut().zip(&baseline.others).for_each(|(value, base)| subtract(value, *base));
        totals.turns = totals.turns.since(&baseline.turns);
        totals.latencies = totals.latencies.since(&baseline.latencies);
        totals
    }

    /// As [`NAMES`].
    fn extended(&self) -> [u64; NAMES.len()] {
        // SAFETY: reads a number that the EAL has measured.
        let hz = u128::from(unsafe { ffi::rte_get_tsc_hz() }.max(1));
        let ns = |snapshot: &Snapshot| {
            [500, 990, 999, 1000]
                .map(|thousandths| (u128::from(snapshot.quantile(thousandths)) * 1_000_000_000 / hz) as u64)
        };
        let [fresh, answers, dropped, bad] = self.others;
        let [p50, p99, p999, max] = ns(&self.turns);
        let [late50, late99, late999, latest] = ns(&self.latencies);
        let turns = [p50, p99, p999, max, self.turns.count()];
        let latencies = [late50, late99, late999, latest, self.latencies.count()];
        let mut values = [0; NAMES.len()];
        let all = turns.into_iter().chain([fresh, answers, dropped, bad]).chain(latencies);
        values.iter_mut().zip(all).for_each(|(to, from)| *to = from);
        values
    }
}

/// A queue set up anew starts from 0.
fn subtract(value: &mut u64, base: u64) {
    *value = value.checked_sub(base).unwrap_or(*value);
}

pub(super) unsafe extern "C" fn get(device: *mut ffi::rte_eth_dev, stats: *mut ffi::rte_eth_stats) -> c_int {
    // SAFETY: ethdev passes an open port of this driver and a structure to fill in.
    let (totals, stats) = unsafe { (Totals::since_reset(device), &mut *stats) };
    for (at, [packets, bytes, failed]) in totals.rx.iter().enumerate() {
        stats.ipackets += packets;
        stats.ibytes += bytes;
        stats.rx_nombuf += failed;
        if let (Some(to_packets), Some(to_bytes)) = (stats.q_ipackets.get_mut(at), stats.q_ibytes.get_mut(at))
        {
            (*to_packets, *to_bytes) = (*packets, *bytes);
        }
    }
    for (at, [packets, bytes, _]) in totals.tx.iter().enumerate() {
        stats.opackets += packets;
        stats.obytes += bytes;
        if let (Some(to_packets), Some(to_bytes)) = (stats.q_opackets.get_mut(at), stats.q_obytes.get_mut(at))
        {
            (*to_packets, *to_bytes) = (*packets, *bytes);
        }
    }
    0
}

/// Resets the standard counters.
pub(super) unsafe extern "C" fn reset(device: *mut ffi::rte_eth_dev) -> c_int {
    // SAFETY: ethdev passes an open port of this driver.
    let (now, port) = unsafe { (Totals::now(device), port_of(device)) };
    let mut baseline = port.baseline.lock().unwrap_or_else(PoisonError::into_inner);
    (baseline.rx, baseline.tx) = (now.rx, now.tx);
    0
}

/// Resets all.
pub(super) unsafe extern "C" fn xstats_reset(device: *mut ffi::rte_eth_dev) -> c_int {
    // SAFETY: ethdev passes an open port of this driver.
    let (now, port) = unsafe { (Totals::now(device), port_of(device)) };
    *port.baseline.lock().unwrap_or_else(PoisonError::into_inner) = now;
    0
}

pub(super) unsafe extern "C" fn xstats_get(
    device: *mut ffi::rte_eth_dev,
    stats: *mut ffi::rte_eth_xstat,
    room: c_uint,
) -> c_int {
    if !stats.is_null() && room as usize >= NAMES.len() {
        // SAFETY: ethdev passes an open port of this driver; there is room for as many.
        let (totals, stats) =
            unsafe { (Totals::since_reset(device), std::slice::from_raw_parts_mut(stats, NAMES.len())) };
        for (at, (stat, value)) in stats.iter_mut().zip(totals.extended()).enumerate() {
            *stat = ffi::rte_eth_xstat { id: at as u64, value };
        }
    }
    NAMES.len() as c_int
}

pub(super) unsafe extern "C" fn xstats_names(
    _device: *mut ffi::rte_eth_dev,
    names: *mut ffi::rte_eth_xstat_name,
    room: c_uint,
) -> c_int {
    if !names.is_null() && room as usize >= NAMES.len() {
        // SAFETY: there is room for as many.
        let names = unsafe { std::slice::from_raw_parts_mut(names, NAMES.len()) };
        for (to, name) in names.iter_mut().zip(NAMES) {
            *to = ffi::rte_eth_xstat_name::default();
            for (to, from) in to.name.iter_mut().zip(name.bytes()) {
                *to = from as c_char;
            }
        }
    }
    NAMES.len() as c_int
}
