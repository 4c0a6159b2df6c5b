//! Telemetry: what a person asks a running device, over DPDK's telemetry socket (`dpdk-telemetry.py`).
//!
//! | command                            | answer                                                        |
//! |------------------------------------|---------------------------------------------------------------|
//! | `/eswitch/list`                    | the devices                                                   |
//! | `/eswitch/rules,<dev>[,<from>]`    | tables and rules; in pages, `next` asks for the following one |
//! | `/eswitch/stats,<dev>`             | what it did, and why it dropped                               |
//! | `/eswitch/faults,<dev>[,<faults>]` | the faults in force; with `<faults>` (`none`: none) sets them |
//! | `/eswitch/profile,<dev>`           | what it is modelled after                                     |
//!
//! `<dev>` may be left out where there is one device.

use std::ffi::{CStr, CString, c_char, c_int};
use std::sync::Arc;

use super::device::{self, Switch};
use super::{border, ffi, log, show};
use crate::model::faults::Faults;
use crate::model::switch::DropReason;

/// Linux's EINVAL and ENODEV.
const EINVAL: c_int = 22;
const ENODEV: c_int = 19;

/// Bytes that a string in an array or dictionary may have, with its end.
const STRING_BYTES: usize = ffi::RTE_TEL_MAX_STRING_LEN as usize;

type Command = unsafe extern "C" fn(*const c_char, *const c_char, *mut ffi::rte_tel_data) -> c_int;

/// Name, handler, help.
const COMMANDS: [(&CStr, Command, &CStr); 5] = [
    (c"/eswitch/list", list, c"Software eSwitches. No parameters"),
    (c"/eswitch/rules", rules, c"Tables and rules, in pages. Parameters: device[,from]"),
    (c"/eswitch/stats", stats, c"What a device did, and why it dropped. Parameters: device"),
    (c"/eswitch/faults", faults, c"Shows or sets faults. Parameters: device[,none|reset|refuse=0.01,...]"),
    (c"/eswitch/profile", profile, c"What a device is modelled after. Parameters: device"),
];

/// Makes the commands known; more than once does no harm.
pub(super) fn register() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        for (name, handler, help) in COMMANDS {
            // SAFETY: terminated strings, which are copied; the handler lives as long as the process.
            let status =
                unsafe { ffi::rte_telemetry_register_cmd(name.as_ptr(), Some(handler), help.as_ptr()) };
            if status != 0 {
                log::info(&format!("no telemetry command {} ({status})", name.to_string_lossy()));
            }
        }
    });
}

/// A dictionary or array being filled in for DPDK. What does not fit is left out: the page says so.
struct Answer(*mut ffi::rte_tel_data);

impl Answer {
    fn dictionary(data: *mut ffi::rte_tel_data) -> Answer {
        // SAFETY: DPDK's structure, or one that we allocated.
        unsafe { ffi::rte_tel_data_start_dict(data) };
        Answer(data)
    }

    fn strings(data: *mut ffi::rte_tel_data) -> Answer {
        // SAFETY: as above.
        unsafe { ffi::rte_tel_data_start_array(data, ffi::RTE_TEL_STRING_VAL) };
        Answer(data)
    }

    fn push(&self, text: &str) {
        if let Ok(text) = CString::new(text) {
            // SAFETY: a started array; the string is copied.
            unsafe { ffi::rte_tel_data_add_array_string(self.0, text.as_ptr()) };
        }
    }

    fn number(&self, name: &str, value: u64) {
        if let Ok(name) = CString::new(name) {
            // SAFETY: a started dictionary; the string is copied.
            unsafe { ffi::rte_tel_data_add_dict_u64(self.0, name.as_ptr(), value) };
        }
    }

    fn text(&self, name: &str, value: &str) {
        if let (Ok(name), Ok(value)) = (CString::new(name), CString::new(value)) {
            // SAFETY: as above.
            unsafe { ffi::rte_tel_data_add_dict_string(self.0, name.as_ptr(), value.as_ptr()) };
        }
    }

    /// A member that has members itself; `fill` gets an empty structure.
    fn member(&self, name: &str, fill: impl FnOnce(*mut ffi::rte_tel_data)) {
        // SAFETY: allocates; null is checked.
        let inner = unsafe { ffi::rte_tel_data_alloc() };
        let Ok(name) = CString::new(name) else { return };
        if inner.is_null() {
            return;
        }
        fill(inner);
        // SAFETY: both are ours to fill in; with `keep` 0, DPDK frees the inner one, unless it refuses it.
        unsafe {
            if ffi::rte_tel_data_add_dict_container(self.0, name.as_ptr(), inner, 0) != 0 {
                ffi::rte_tel_data_free(inner);
            }
        }
    }
}

/// The device that the parameters name, and what follows its name.
fn parse(parameters: &str) -> Result<(Arc<Switch>, &str), c_int> {
    let (name, rest) = parameters.split_once(',').unwrap_or((parameters, ""));
    let devices = device::all();
    let found = match (name, &devices[..]) {
        ("", [only]) => Some(only),
        _ => devices.iter().find(|switch| switch.name == name),
    };
    found.cloned().map(|switch| (switch, rest)).ok_or(-ENODEV)
}

/// Runs a handler with its parameters.
///
/// # Safety
/// `parameters` is null or a C string.
unsafe fn handle(parameters: *const c_char, body: impl FnOnce(&str) -> Result<(), c_int>) -> c_int {
    let parameters = if parameters.is_null() {
        String::new()
    } else {
        // SAFETY: not null, so a C string (the caller's promise).
        unsafe { CStr::from_ptr(parameters) }.to_string_lossy().into_owned()
    };
    border::guard("telemetry", -border::EIO, || body(&parameters).map_or_else(|errno| errno, |()| 0))
}

unsafe extern "C" fn list(
    _command: *const c_char,
    parameters: *const c_char,
    data: *mut ffi::rte_tel_data,
) -> c_int {
    // SAFETY: as telemetry calls it.
    unsafe {
        handle(parameters, |_| {
            let answer = Answer::strings(data);
            device::all().iter().for_each(|switch| answer.push(&switch.name));
            Ok(())
        })
    }
}

unsafe extern "C" fn rules(
    _command: *const c_char,
    parameters: *const c_char,
    data: *mut ffi::rte_tel_data,
) -> c_int {
    // SAFETY: as telemetry calls it.
    unsafe {
        handle(parameters, |parameters| {
            let (switch, from) = parse(parameters)?;
            let from = if from.is_empty() { 0 } else { from.parse().map_err(|_| -EINVAL)? };
            let page = show::page(&switch, from);
            let answer = Answer::dictionary(data);
            if from == 0 {
                answer.member("tables", |inner| lines(inner, &page.tables));
            }
            answer.member("rules", |inner| lines(inner, &page.rules));
            if let Some(next) = page.next {
                answer.text("next", &format!("/eswitch/rules,{},{next}", switch.name));
            }
            Ok(())
        })
    }
}

/// Fills in an array of lines; long ones go on, indented, in further ones.
fn lines(data: *mut ffi::rte_tel_data, text: &str) {
    let answer = Answer::strings(data);
    for line in text.lines() {
        for part in show::fold(line, STRING_BYTES - 1) {
            answer.push(&part);
        }
    }
}

unsafe extern "C" fn stats(
    _command: *const c_char,
    parameters: *const c_char,
    data: *mut ffi::rte_tel_data,
) -> c_int {
    // SAFETY: as telemetry calls it.
    unsafe {
        handle(parameters, |parameters| {
            let (switch, _) = parse(parameters)?;
            let statistics = switch.eswitch.lock().statistics().clone();
            let answer = Answer::dictionary(data);
            answer.number("rules", statistics.rules);
            answer.number("installed", statistics.installed);
            answer.number("removed", statistics.removed);
            answer.number("refused", statistics.refused);
            answer.number("internal_errors", border::caught());
            answer.number("lock_contended", switch.eswitch.contended());
            answer.number("queue_misuse", switch.flow.misuse());
            answer.member("drops", |inner| {
                let drops = Answer::dictionary(inner);
                for reason in DropReason::ALL {
                    drops.number(reason.name(), statistics.drops[reason as usize]);
                }
            });
            for (port, vport) in switch.ports.iter().zip(&statistics.vports) {
                answer.member(&format!("port{}", port.port_id), |inner| {
                    let answer = Answer::dictionary(inner);
                    for (name, value) in show::counts(vport) {
                        answer.number(name, value);
                    }
                });
            }
            Ok(())
        })
    }
}

unsafe extern "C" fn faults(
    _command: *const c_char,
    parameters: *const c_char,
    data: *mut ffi::rte_tel_data,
) -> c_int {
    // SAFETY: as telemetry calls it.
    unsafe {
        handle(parameters, |parameters| {
            let (switch, wanted) = parse(parameters)?;
            let answer = Answer::dictionary(data);
            if !wanted.is_empty() {
                match Faults::parse(if wanted == "none" { "" } else { wanted }) {
                    Ok(faults) => {
                        log::notice(&format!("{}: faults set to {wanted}", switch.name));
                        switch.set_faults(faults);
                    }
                    Err(error) => answer.text("error", &clip(&error.to_string())),
                }
            }
            let faults = switch.eswitch.lock().faults().clone();
            let text = if faults.is_clear() { "none".to_owned() } else { faults.to_string() };
            answer.text("faults", &clip(&text));
            Ok(())
        })
    }
}

/// As much of a text as a member can hold.
fn clip(text: &str) -> String {
    show::fold(text, STRING_BYTES - 1).next().unwrap_or_default()
}

unsafe extern "C" fn profile(
    _command: *const c_char,
    parameters: *const c_char,
    data: *mut ffi::rte_tel_data,
) -> c_int {
    // SAFETY: as telemetry calls it.
    unsafe {
        handle(parameters, |parameters| {
            let (switch, _) = parse(parameters)?;
            lines(data, &show::profile(&switch.profile));
            Ok(())
        })
    }
}
