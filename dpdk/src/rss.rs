//! Receive-side scaling: what decides the queue the NIC puts a packet in.
//!
//! Computing the same in software is [`dataplane::owner`]'s; here its key and table reach the device.

use dataplane::owner::KEY_LEN;

/// What the NIC hashes to choose an rx queue. Asked for, and then granted as far as the NIC can.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Rss {
    /// Nothing: everything arrives in queue 0, or wherever the driver likes.
    #[default]
    None,
    /// Both IP addresses. Spreads load; the directions of a translated connection part ways.
    L3,
    /// The source address alone, for ports towards clients.
    L3SrcOnly,
    /// The destination address alone, for ports towards backends.
    L3DstOnly,
}

/// What to grant of a request, with the hash types to configure: exactly it, else both addresses so that
/// load spreads at least, else nothing.
pub(crate) fn grant(request: Rss, supported: u64) -> (Rss, u64) {
    let types = dpdk_sys::MILLRACE_RSS_IP & supported;
    // SAFETY: both return a constant.
    let (src_only, dst_only) =
        unsafe { (dpdk_sys::millrace_rss_l3_src_only(), dpdk_sys::millrace_rss_l3_dst_only()) };
    let can = |only: u64| only != 0 && supported & only == only;
    match request {
        _ if types == 0 => (Rss::None, 0),
        Rss::None => (Rss::None, 0),
        Rss::L3SrcOnly if can(src_only) => (Rss::L3SrcOnly, types | src_only),
        Rss::L3DstOnly if can(dst_only) => (Rss::L3DstOnly, types | dst_only),
        Rss::L3 | Rss::L3SrcOnly | Rss::L3DstOnly => (Rss::L3, types),
    }
}

/// The part of `key` that a device takes, whose driver says how long its key is; zero says 40 bytes. None
/// is known to take more than [`KEY_LEN`]; repeating would keep a hash of addresses the same.
pub(crate) fn key_of_len(key: &[u8; KEY_LEN], len: u8) -> Vec<u8> {
    let len = if len == 0 { 40 } else { usize::from(len) };
    key.iter().copied().cycle().take(len).collect()
}

/// What a driver is told, or tells about itself. Points at `key`.
#[allow(clippy::needless_update, reason = "newer releases have more fields, whose default is zero")]
pub(crate) fn hash_conf(key: &mut [u8], types: u64) -> dpdk_sys::rte_eth_rss_conf {
    dpdk_sys::rte_eth_rss_conf {
        rss_key: key.as_mut_ptr(),
        rss_key_len: key.len() as u8,
        rss_hf: types,
        ..Default::default()
    }
}

/// A port's key and redirection table, as the device reports them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RssTable {
    /// The Toeplitz key.
    pub key: Vec<u8>,
    /// Queues, by hash modulo length.
    pub reta: Vec<u16>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_the_length_the_device_takes() {
        let key = core::array::from_fn(|i| i as u8);
        assert_eq!(key_of_len(&key, 0), key[..40]);
        assert_eq!(key_of_len(&key, 40), key[..40]);
        assert_eq!(key_of_len(&key, 52), key);
        assert_eq!(key_of_len(&key, 53)[52], key[0]);
    }

    #[test]
    fn requests_are_granted_as_far_as_supported() {
        let ip = dpdk_sys::MILLRACE_RSS_IP;
        // SAFETY: returns a constant.
        let src = unsafe { dpdk_sys::millrace_rss_l3_src_only() };
        assert_eq!(grant(Rss::L3SrcOnly, ip | src), (Rss::L3SrcOnly, ip | src));
        assert_eq!(grant(Rss::L3DstOnly, ip | src), (Rss::L3, ip));
        assert_eq!(grant(Rss::L3SrcOnly, ip), (Rss::L3, ip));
        assert_eq!(grant(Rss::L3SrcOnly, src), (Rss::None, 0));
        assert_eq!(grant(Rss::L3, 0), (Rss::None, 0));
        assert_eq!(grant(Rss::None, ip | src), (Rss::None, 0));
    }
}
