//! What was counted: the standard counters are the application's queues; the extended ones are the device.
//!
//! Nothing is lost silently. Of a device at rest, all ports together, what entered the model,
//! `wire_rx_packets + tx_taken + mirrored_packets`, equals what left it,
//! `wire_tx_packets + wire_tx_full + wire_tx_down + rx_delivered + rx_full + dropped_*`; `wire_waiting` is
//! still before its door, and `wire_lost` was when its wire went away. (A hairpin's packet leaves once,
//! however often it comes round.)

use std::ffi::{c_int, c_uint};
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use super::device::{PortPrivate, Switch, port_of};
use super::{border, copy_name, ffi, queues};
use crate::model::switch::{DropReason, Statistics};

/// A name and a value.
type Row = (String, u64);

fn row(name: &str, value: u64) -> Row {
    (name.to_owned(), value)
}

/// What the application's queues saw.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Totals {
    rx_packets: u64,
    rx_bytes: u64,
    rx_nobuf: u64,
    tx_packets: u64,
    tx_bytes: u64,
    tx_failed: u64,
}

fn totals(data: &ffi::rte_eth_dev_data) -> Totals {
    let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let mut totals = Totals::default();
    for queue in queues::receive(data) {
        totals.rx_packets += get(&queue.stats.packets);
        totals.rx_bytes += get(&queue.stats.bytes);
        totals.rx_nobuf += get(&queue.stats.failed);
    }
    for queue in queues::transmit(data) {
        totals.tx_packets += get(&queue.stats.packets);
        totals.tx_bytes += get(&queue.stats.bytes);
        totals.tx_failed += get(&queue.stats.failed);
    }
    totals
}

/// All rows of a port, in an order that never changes: first those of the standard counters.
fn rows(port: &PortPrivate, data: &ffi::rte_eth_dev_data) -> Vec<Row> {
    let at = usize::from(port.vport.0);
    let totals = totals(data);
    let (ring, wire, waiting) = port.switch.ask_plumbing(|plumbing| {
        let end = &plumbing.ends[at];
        (end.stats, end.wire.stats, end.wire.waiting())
    });
    let model = port.switch.ask(|eswitch| eswitch.statistics().clone());
    let mut rows = vec![
        row("app_rx_packets", totals.rx_packets),
        row("app_rx_bytes", totals.rx_bytes),
        row("app_rx_nobuf", totals.rx_nobuf),
        row("app_tx_packets", totals.tx_packets),
        row("app_tx_bytes", totals.tx_bytes),
        row("app_tx_failed", totals.tx_failed),
        row("rx_full", ring.rx_full),
        row("rx_delivered", ring.delivered),
        row("tx_taken", ring.taken),
        row("lost_on_stop", ring.lost_on_stop),
        row("wire_rx_packets", wire.rx_packets),
        row("wire_rx_bytes", wire.rx_bytes),
        row("wire_rx_nobuf", wire.rx_nobuf),
        row("wire_waiting", waiting as u64),
        row("wire_tx_packets", wire.tx_packets),
        row("wire_tx_bytes", wire.tx_bytes),
        row("wire_tx_full", wire.tx_full),
        row("wire_tx_down", wire.tx_down),
        row("wire_lost", wire.lost),
    ];
    vport_rows(&model, at, &mut rows);
    if Switch::is_proxy(port.vport) {
        device_rows(&port.switch, &model, &mut rows);
    }
    rows
}

/// What the model did with this vport's packets.
fn vport_rows(model: &Statistics, at: usize, rows: &mut Vec<Row>) {
    let vport = model.vports.get(at).copied().unwrap_or_default();
    rows.extend([
        row("vport_in_packets", vport.in_packets),
        row("vport_in_bytes", vport.in_bytes),
        row("vport_manager_packets", vport.manager_packets),
        row("vport_manager_bytes", vport.manager_bytes),
        row("vport_out_packets", vport.out_packets),
        row("vport_out_bytes", vport.out_bytes),
        row("vport_manager_default_packets", vport.manager_default_packets),
        // By rules, without software.
        row("vport_offloaded_packets", vport.out_packets.saturating_sub(vport.manager_default_packets)),
        row("vport_miss_packets", vport.miss_packets),
        row("vport_received_packets", vport.received_packets),
        row("vport_hairpin_packets", vport.hairpin_packets),
    ]);
}

/// What concerns the whole device, shown by the proxy.
fn device_rows(switch: &Switch, model: &Statistics, rows: &mut Vec<Row>) {
    rows.extend(
        DropReason::ALL.iter().map(|reason| row(&format!("dropped_{}", reason.name()), model.drops(*reason))),
    );
    let (rounds, busy) = switch.ask_plumbing(|plumbing| (plumbing.rounds, plumbing.busy));
    rows.extend([
        row("mirrored_packets", model.mirrored),
        row("mirror_failed_packets", model.mirror_failed),
        row("rules_installed", model.installed),
        row("rules_removed", model.removed),
        row("rules_refused", model.refused),
        row("jumps", model.jumps),
        row("lock_contended_model", switch.eswitch.contended()),
        row("lock_contended_drive", switch.plumbing.contended()),
        row("flow_queue_misuse", switch.flow.misuse()),
        row("drive_rounds", rounds),
        row("drive_rounds_busy", busy),
        row("internal_errors", border::caught()),
    ]);
}

/// The rows since the last reset.
fn since_reset(port: &PortPrivate, data: &ffi::rte_eth_dev_data) -> Vec<Row> {
    let mut rows = rows(port, data);
    let baseline = port.baseline.lock().unwrap_or_else(PoisonError::into_inner);
    for ((_, value), base) in rows.iter_mut().zip(baseline.iter()) {
        // A queue set up anew starts from 0.
        *value = value.checked_sub(*base).unwrap_or(*value);
    }
    rows
}

pub(super) unsafe extern "C" fn get(device: *mut ffi::rte_eth_dev, stats: *mut ffi::rte_eth_stats) -> c_int {
    border::status("stats_get", || {
        // SAFETY: ethdev passes an open port of this driver and a structure to fill in.
        let (port, data, stats) = unsafe { (port_of(device), &*(*device).data, &mut *stats) };
        let rows = since_reset(port, data);
        let value = |at: usize| rows.get(at).map_or(0, |row| row.1);
        stats.ipackets = value(0);
        stats.ibytes = value(1);
        stats.rx_nombuf = value(2);
        stats.opackets = value(3);
        stats.obytes = value(4);
        stats.oerrors = value(5);
        stats.imissed = value(6);
        Ok(())
    })
}

pub(super) unsafe extern "C" fn reset(device: *mut ffi::rte_eth_dev) -> c_int {
    border::status("stats_reset", || {
        // SAFETY: ethdev passes an open port of this driver.
        let (port, data) = unsafe { (port_of(device), &*(*device).data) };
        let values = rows(port, data).into_iter().map(|row| row.1).collect();
        *port.baseline.lock().unwrap_or_else(PoisonError::into_inner) = values;
        Ok(())
    })
}

pub(super) unsafe extern "C" fn xstats_get(
    device: *mut ffi::rte_eth_dev,
    stats: *mut ffi::rte_eth_xstat,
    room: c_uint,
) -> c_int {
    border::guard("xstats_get", -border::EIO, || {
        // SAFETY: ethdev passes an open port of this driver.
        let (port, data) = unsafe { (port_of(device), &*(*device).data) };
        let rows = since_reset(port, data);
        if !stats.is_null() && room as usize >= rows.len() {
            // SAFETY: there is room for as many.
            let stats = unsafe { std::slice::from_raw_parts_mut(stats, rows.len()) };
            for (at, (stat, (_, value))) in stats.iter_mut().zip(&rows).enumerate() {
                *stat = ffi::rte_eth_xstat { id: at as u64, value: *value };
            }
        }
        rows.len() as c_int
    })
}

pub(super) unsafe extern "C" fn xstats_names(
    device: *mut ffi::rte_eth_dev,
    names: *mut ffi::rte_eth_xstat_name,
    room: c_uint,
) -> c_int {
    border::guard("xstats_get_names", -border::EIO, || {
        // SAFETY: ethdev passes an open port of this driver.
        let (port, data) = unsafe { (port_of(device), &*(*device).data) };
        let rows = rows(port, data);
        if !names.is_null() && room as usize >= rows.len() {
            // SAFETY: there is room for as many.
            let names = unsafe { std::slice::from_raw_parts_mut(names, rows.len()) };
            for (to, (name, _)) in names.iter_mut().zip(&rows) {
                *to = ffi::rte_eth_xstat_name::default();
                copy_name(&mut to.name, name);
            }
        }
        rows.len() as c_int
    })
}
