//! What a driver says when it does not do something.

use std::ffi::CStr;

use crate::errno::Errno;

/// A refusal, as the driver explains it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("port {port}: {what}: {}{errno}", message.as_ref().map_or(String::new(), |text| format!("{text}: ")))]
pub struct FlowError {
    /// DPDK's number for the port.
    pub port: u16,
    /// What was asked for.
    pub what: &'static str,
    /// Why not; 0 if the driver did not say.
    pub errno: Errno,
    /// The driver's own words, if they say more than the errno.
    pub message: Option<String>,
}

/// Room for a driver's answer to one call.
pub(super) struct Failure {
    what: &'static str,
    error: dpdk_sys::rte_flow_error,
}

impl Failure {
    pub(super) fn new(what: &'static str) -> Failure {
        Failure { what, error: dpdk_sys::rte_flow_error::default() }
    }

    /// For the driver to fill in.
    pub(super) fn as_mut(&mut self) -> *mut dpdk_sys::rte_flow_error {
        &raw mut self.error
    }

    /// The result of a call that answers with a negative error number, or something else.
    pub(super) fn check(&mut self, port: u16, ret: i32) -> Result<(), FlowError> {
        Errno::check(ret).map_err(|errno| self.because(port, errno))
    }

    /// A call has answered with a null pointer.
    pub(super) fn last(&mut self, port: u16) -> FlowError {
        self.because(port, Errno::last())
    }

    pub(super) fn because(&mut self, port: u16, errno: Errno) -> FlowError {
        let message = (!self.error.message.is_null()).then(|| {
            // SAFETY: not null, so the driver has set it: a string that lives at least until its next call.
            let text = unsafe { CStr::from_ptr(self.error.message) };
            text.to_string_lossy().into_owned()
        });
        // Where a driver has no such operation, ethdev's message is the errno's own text.
        let message = message.filter(|text| !errno.to_string().starts_with(text.as_str()));
        FlowError { port, what: self.what, errno, message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_s_words_are_told_if_they_say_more_than_the_errno() {
        let mut failure = Failure::new("creating a rule");
        failure.error.message = c"cannot match on flags".as_ptr();
        let told = failure.because(3, Errno::NOTSUP).to_string();
        assert_eq!(
            told,
            "port 3: creating a rule: cannot match on flags: Operation not supported (errno 95)"
        );
        failure.error.message = c"Operation not supported".as_ptr();
        let told = failure.because(3, Errno::NOTSUP).to_string();
        assert_eq!(told, "port 3: creating a rule: Operation not supported (errno 95)");
    }
}
