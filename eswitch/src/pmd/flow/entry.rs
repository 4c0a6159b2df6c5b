//! What every flow operation does first and last: find the port, keep panics in, tell what went wrong.

use std::ffi::c_int;
use std::ptr;

use super::error::{Lists, report};
use crate::model::refusal::{Cause, Errno, Refusal};
use crate::pmd::device::{PortPrivate, port_of};
use crate::pmd::{border, ffi};

const INTERNAL: Refusal = Refusal::new(Errno::Io, Cause::Unspecified, "internal error in the driver");

/// Where an operation's complaints go, and what they are about.
#[derive(Clone, Copy)]
pub(super) struct Call {
    /// For panics.
    pub(super) name: &'static str,
    pub(super) device: *mut ffi::rte_eth_dev,
    pub(super) error: *mut ffi::rte_flow_error,
    pub(super) lists: Lists,
}

impl Call {
    /// A call without lists.
    pub(super) const fn new(
        name: &'static str,
        device: *mut ffi::rte_eth_dev,
        error: *mut ffi::rte_flow_error,
    ) -> Call {
        Call { name, device, error, lists: Lists::NONE }
    }

    /// With the lists that a refusal's indices count in.
    pub(super) const fn about(
        mut self,
        pattern: *const ffi::rte_flow_item,
        actions: *const ffi::rte_flow_action,
    ) -> Call {
        self.lists = Lists { pattern, actions };
        self
    }

    /// Runs the operation.
    ///
    /// # Errors
    /// The negative errno that was reported.
    ///
    /// # Safety
    /// `device` is a live ethdev of this driver; `error` is null or may be written; the lists are null or as
    /// [`report`] needs them.
    unsafe fn run<T>(self, body: impl FnOnce(&PortPrivate) -> Result<T, Refusal>) -> Result<T, c_int> {
        // SAFETY: the caller's promise.
        let port = unsafe { port_of(self.device) };
        let result = border::guard(self.name, Err(INTERNAL), || body(port));
        // SAFETY: the caller's promise.
        result.map_err(|refusal| unsafe { report(self.error, refusal, self.lists) })
    }

    /// Runs an operation that returns 0 or a negative errno.
    ///
    /// # Safety
    /// As for [`Call::run`].
    pub(super) unsafe fn status(self, body: impl FnOnce(&PortPrivate) -> Result<(), Refusal>) -> c_int {
        // SAFETY: the caller's promise.
        unsafe { self.run(body) }.map_or_else(|errno| errno, |()| 0)
    }

    /// Runs an operation that returns a number or a negative errno.
    ///
    /// # Safety
    /// As for [`Call::run`].
    pub(super) unsafe fn number(self, body: impl FnOnce(&PortPrivate) -> Result<usize, Refusal>) -> c_int {
        // SAFETY: the caller's promise.
        match unsafe { self.run(body) } {
            Ok(number) => c_int::try_from(number).unwrap_or(c_int::MAX),
            Err(errno) => errno,
        }
    }

    /// Runs an operation that returns an object or null.
    ///
    /// # Safety
    /// As for [`Call::run`].
    pub(super) unsafe fn object<T>(
        self,
        body: impl FnOnce(&PortPrivate) -> Result<*mut T, Refusal>,
    ) -> *mut T {
        // SAFETY: the caller's promise.
        unsafe { self.run(body) }.unwrap_or(ptr::null_mut())
    }
}
