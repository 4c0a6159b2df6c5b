//! Lines in the application's log, of type `pmd.net.eswitch`.

use std::ffi::CString;

use super::ffi;

/// Something the user asked for will not happen.
pub(super) fn error(text: &str) {
    write(ffi::ESWITCH_LOG_ERR, text);
}

/// Something works, but not as one might expect.
pub(super) fn warning(text: &str) {
    write(ffi::ESWITCH_LOG_WARNING, text);
}

/// Something happened that is worth a line by default.
pub(super) fn notice(text: &str) {
    write(ffi::ESWITCH_LOG_NOTICE, text);
}

/// Something for `--log-level pmd.net.eswitch:info`.
pub(super) fn info(text: &str) {
    write(ffi::ESWITCH_LOG_INFO, text);
}

fn write(level: u32, text: &str) {
    let bytes: Vec<u8> = text.bytes().filter(|byte| *byte != 0).collect();
    if let Ok(text) = CString::new(bytes) {
        // SAFETY: the text is terminated and outlives the call, which copies it.
        unsafe { ffi::eswitch_log(level, text.as_ptr()) };
    }
}
