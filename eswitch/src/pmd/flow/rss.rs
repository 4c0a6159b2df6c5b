//! What mlx5 asks of an `rss` action besides its queues.

use crate::model::refusal::Errno;
use crate::pmd::ffi;

/// Queues of one action at most: the largest indirection table of the ConnectX family.
const QUEUES_MAX: u32 = 512;

/// Bytes of a Toeplitz key.
const KEY_BYTES: u32 = 40;

/// Checks hash function, level and key. The model hashes in its own way; what is refused here is what an
/// application could not use on the device.
///
/// # Errors
/// The errno and why.
pub(super) fn check(conf: &ffi::rte_flow_action_rss) -> Result<(), (Errno, &'static str)> {
    if !matches!(conf.func, ffi::RTE_ETH_HASH_FUNCTION_DEFAULT | ffi::RTE_ETH_HASH_FUNCTION_TOEPLITZ) {
        return Err((Errno::Notsup, "RSS hash function not supported"));
    }
    if conf.level > 2 {
        return Err((Errno::Notsup, "tunnel RSS is not supported"));
    }
    // No key means the default one.
    if !conf.key.is_null() && conf.key_len < KEY_BYTES {
        return Err((Errno::Notsup, "RSS hash key too small"));
    }
    if conf.key_len > KEY_BYTES {
        return Err((Errno::Notsup, "RSS hash key too large"));
    }
    if conf.queue_num > QUEUES_MAX {
        return Err((Errno::Notsup, "number of queues too large"));
    }
    if conf.queue_num == 0 {
        return Err((Errno::Inval, "No queues configured"));
    }
    Ok(())
}
