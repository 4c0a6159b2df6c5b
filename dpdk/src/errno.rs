//! DPDK's error numbers, which are the C library's and a few of its own.

use core::ffi::CStr;
use core::fmt;

/// An error number as DPDK reports it. Shows its meaning and the number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Errno(pub i32);

impl Errno {
    /// `ENOENT`: there is no such thing.
    pub const NOENT: Errno = Errno(2);
    /// `EBUSY`: it is in use.
    pub const BUSY: Errno = Errno(16);
    /// `EEXIST`: it is already there.
    pub const EXIST: Errno = Errno(17);
    /// `EINVAL`: invalid argument.
    pub const INVAL: Errno = Errno(22);
    /// `ENODEV`: the port is not started, or not there.
    pub const NODEV: Errno = Errno(19);
    /// `ENOTSUP`: the driver has no such operation.
    pub const NOTSUP: Errno = Errno(95);

    /// The calling thread's `rte_errno`.
    pub(crate) fn last() -> Errno {
        // SAFETY: reads a thread-local integer; no precondition.
        Errno(unsafe { dpdk_sys::millrace_errno() })
    }

    /// The result of a call that answers with zero or a negative error number.
    pub(crate) fn check(ret: i32) -> Result<(), Errno> {
        if ret < 0 { Err(Errno(-ret)) } else { Ok(()) }
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // SAFETY: rte_strerror accepts any number and returns a NUL-terminated string that lives at
        // least until this thread calls it again, which is after the string has been written out.
        let text = unsafe { CStr::from_ptr(dpdk_sys::rte_strerror(self.0)) };
        write!(f, "{} (errno {})", text.to_string_lossy(), self.0)
    }
}

impl std::error::Error for Errno {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_number_shows_its_meaning() {
        assert_eq!(Errno::INVAL.to_string(), "Invalid argument (errno 22)");
        assert_eq!(Errno::check(-17), Err(Errno::EXIST));
        assert_eq!(Errno::check(0), Ok(()));
    }
}
