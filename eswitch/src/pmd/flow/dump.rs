//! `rte_flow_dev_dump`: the tables as text.

use std::ffi::{c_int, c_void};

use super::entry::Call;
use super::handle;
use crate::model::refusal::{Cause, Errno, Refusal};
use crate::pmd::{ffi, show};

unsafe extern "C" {
    /// The C library's.
    fn fwrite(from: *const c_void, size: usize, count: usize, file: *mut ffi::FILE) -> usize;
}

pub(super) unsafe extern "C" fn dev_dump(
    device: *mut ffi::rte_eth_dev,
    flow: *mut ffi::rte_flow,
    file: *mut ffi::FILE,
    error: *mut ffi::rte_flow_error,
) -> c_int {
    // SAFETY: as `rte_flow_dev_dump` is called: an open file.
    unsafe {
        Call::new("flow dev_dump", device, error).status(|port| {
            if file.is_null() {
                return Err(Refusal::new(Errno::Inval, Cause::Unspecified, "NULL file"));
            }
            let mut written = true;
            let mut write = |text: &str| {
                // An open file, and as many bytes as there are.
                written &= fwrite(text.as_ptr().cast(), 1, text.len(), file) == text.len();
            };
            match handle::rule(flow) {
                Some(rule) => write(&show::rule(&port.switch, port.vport, rule)?),
                None => show::tables(&port.switch, &mut write),
            }
            if written { Ok(()) } else { Err(Refusal::new(Errno::Io, Cause::Unspecified, "cannot write")) }
        })
    }
}
