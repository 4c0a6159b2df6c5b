//! Which worker owns a client, as the NIC decides it: receive-side scaling (RSS) over one address.
//!
//! Both directions of a connection must reach the worker that has it, and the only thing that both have
//! in common under any forwarding mode is the client's address: the source on the way in, the
//! destination on the way back. So ports that face clients hash the source only
//! (`RTE_ETH_RSS_L3_SRC_ONLY`) and those that face backends the destination only
//! (`RTE_ETH_RSS_L3_DST_ONLY`); where a port cannot, workers compute the same here and hand packets over.
//!
//! The hash is Toeplitz's as Microsoft specifies it for RSS, looked up byte by byte; its low bits select
//! an entry of the redirection table (RETA), which has the worker.

use crate::addr::Ip;
use crate::ids::WorkerId;

/// Bytes of the longest key a NIC takes; the usual ones are the first 40 or all 52.
pub const KEY_LEN: usize = 52;

/// The default key: one 32-bit word over and over.
///
/// Its period makes the hash of an address independent of where the address stands in the hashed tuple,
/// so that NICs agree that leave a zero in place of the address they do not hash. The word is chosen so
/// that the hash of an IPv4 address is a permutation and that 256 addresses which differ in one byte
/// only spread perfectly over 128 entries (tests check both).
pub const DEFAULT_KEY: [u8; KEY_LEN] = periodic(0x6d5a_a3ca);

const fn periodic(word: u32) -> [u8; KEY_LEN] {
    let (bytes, mut key, mut index) = (word.to_be_bytes(), [0; KEY_LEN], 0);
    while index < KEY_LEN {
        key[index] = bytes[index % 4];
        index += 1;
    }
    key
}

/// Why there is no [`Owners`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OwnersError {
    /// Nobody to own anything.
    #[error("there must be at least one worker")]
    NoWorkers,
    /// The redirection table must have a power of two entries, at least one for each worker.
    #[error("a redirection table of {entries} entries does not fit {workers} workers")]
    Entries {
        /// Entries asked for.
        entries: u16,
        /// Workers.
        workers: u16,
    },
}

/// The function from a client's address to the worker that owns it.
#[derive(Clone, Debug)]
pub struct Owners {
    key: [u8; KEY_LEN],
    /// For each byte of an address, what each of its values contributes to the hash.
    bytes: Box<[[u32; 256]; 16]>,
    reta: Box<[WorkerId]>,
}

impl Owners {
    /// Spreads clients over `workers` by a redirection table of `entries`: the smallest that any of the
    /// ports has.
    ///
    /// # Errors
    ///
    /// If there is no worker, or `entries` is no power of two or less than `workers`.
    pub fn new(key: &[u8; KEY_LEN], workers: u16, entries: u16) -> Result<Owners, OwnersError> {
        if workers == 0 {
            return Err(OwnersError::NoWorkers);
        }
        if !entries.is_power_of_two() || entries < workers {
            return Err(OwnersError::Entries { entries, workers });
        }
        let reta = (0..entries).map(|entry| WorkerId(entry % workers)).collect();
        Ok(Owners { key: *key, bytes: byte_tables(key), reta })
    }

    /// How many workers there are.
    #[must_use]
    pub fn workers(&self) -> u16 {
        self.reta.iter().max().map_or(1, |last| last.0 + 1)
    }

    /// Whether one worker owns all clients.
    #[must_use]
    pub fn is_single(&self) -> bool {
        self.reta.iter().all(|owner| *owner == self.reta[0])
    }

    /// The worker that owns the client `ip`.
    #[inline]
    #[must_use]
    pub fn owner(&self, ip: Ip) -> WorkerId {
        // The table's length is a power of two, so this is in bounds.
        self.reta[self.hash(ip) as usize & (self.reta.len() - 1)]
    }

    /// The Toeplitz hash over `ip` alone: what a NIC puts into `rss_hash`.
    #[inline]
    #[must_use]
    pub fn hash(&self, ip: Ip) -> u32 {
        if ip.is_v4() {
            let octets = ip.low32().to_be_bytes();
            self.bytes.iter().zip(octets).fold(0, |hash, (table, byte)| hash ^ table[usize::from(byte)])
        } else {
            let octets = ip.octets();
            self.bytes.iter().zip(octets).fold(0, |hash, (table, byte)| hash ^ table[usize::from(byte)])
        }
    }

    /// The key to program a NIC with that takes `len` bytes of it (`hash_key_size`); `None` if that is
    /// too short for an IPv6 address or longer than [`KEY_LEN`].
    #[must_use]
    pub fn key(&self, len: usize) -> Option<&[u8]> {
        self.key.get(..len).filter(|key| key.len() >= 16 + 4)
    }

    /// The redirection table for a NIC with `size` entries (`reta_size`): ours, repeated, so that every
    /// port agrees. `None` unless `size` is a multiple of ours and a power of two.
    #[must_use]
    pub fn reta(&self, size: usize) -> Option<Vec<WorkerId>> {
        let fits = size.is_power_of_two() && size >= self.reta.len();
        fits.then(|| self.reta.iter().copied().cycle().take(size).collect())
    }
}

/// The contribution of byte value `v` at position `i`: for each of its set bits the 32 bits of the key
/// that begin at that bit's position.
fn byte_tables(key: &[u8; KEY_LEN]) -> Box<[[u32; 256]; 16]> {
    let mut tables = Box::new([[0; 256]; 16]);
    for (position, table) in tables.iter_mut().enumerate() {
        let window = key[position..position + 5].iter().fold(0u64, |bits, &b| bits << 8 | u64::from(b));
        for (value, entry) in table.iter_mut().enumerate() {
            let set = (0..8).filter(|bit| value & 0x80 >> bit != 0);
            *entry = set.fold(0, |hash, bit| hash ^ (window >> (8 - bit)) as u32);
        }
    }
    tables
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::IpAddr;

    /// The key of Microsoft's "Verifying the RSS hash calculation".
    const MICROSOFT: [u8; 40] = [
        0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0,
        0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42,
        0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
    ];

    fn ip(text: &str) -> Ip {
        text.parse::<IpAddr>().expect("test address").into()
    }

    fn octets(text: &str) -> Vec<u8> {
        match text.parse().expect("test address") {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        }
    }

    /// The specification's algorithm, bit by bit, over any input.
    fn toeplitz(key: &[u8], input: &[u8]) -> u32 {
        let bit =
            |bytes: &[u8], at: usize| bytes.get(at / 8).is_some_and(|byte| byte << (at % 8) & 0x80 != 0);
        let window = |at: usize| (0..32).fold(0u32, |bits, i| bits << 1 | u32::from(bit(key, at + i)));
        (0..input.len() * 8).filter(|&at| bit(input, at)).fold(0, |hash, at| hash ^ window(at))
    }

    fn padded(key: &[u8]) -> [u8; KEY_LEN] {
        core::array::from_fn(|index| key.get(index).copied().unwrap_or(0))
    }

    /// Microsoft's vectors, source and destination address without ports.
    #[test]
    fn the_model_is_the_published_hash() {
        let vectors = [
            ("66.9.149.187", "161.142.100.80", 0x323e_8fc2),
            ("199.92.111.2", "65.69.140.83", 0xd718_262a),
            ("24.19.198.95", "12.22.207.184", 0xd2d0_a5de),
            ("38.27.205.30", "209.142.163.6", 0x8298_9176),
            ("153.39.163.191", "202.188.127.2", 0x5d18_09c5),
            ("3ffe:2501:200:1fff::7", "3ffe:2501:200:3::1", 0x2cc1_8cd5),
            ("3ffe:501:8::260:97ff:fe40:efab", "ff02::1", 0x0f0c_461c),
            ("3ffe:1900:4545:3:200:f8ff:fe21:67cf", "fe80::200:f8ff:fe21:67cf", 0x4b61_e985),
        ];
        for (src, dst, expected) in vectors {
            let (src_octets, dst_octets) = (octets(src), octets(dst));
            assert_eq!(toeplitz(&MICROSOFT, &[src_octets.clone(), dst_octets.clone()].concat()), expected);
            // The hash is linear: it is that of the source alone, and that of the destination alone
            // under the key from where the destination begins.
            let of = |key: &[u8], address| Owners::new(&padded(key), 1, 1).expect("owners").hash(ip(address));
            assert_eq!(of(&MICROSOFT, src) ^ of(&MICROSOFT[src_octets.len()..], dst), expected, "{src}");
        }
    }

    #[test]
    fn tables_agree_with_the_model() {
        for key in [DEFAULT_KEY, padded(&MICROSOFT)] {
            let owners = Owners::new(&key, 3, 128).expect("owners");
            for text in ["0.0.0.0", "10.0.0.1", "255.255.255.255", "192.0.2.77", "::", "2001:db8::abcd:1"] {
                assert_eq!(owners.hash(ip(text)), toeplitz(&key, &octets(text)), "{text}");
            }
        }
    }

    #[test]
    fn it_does_not_matter_where_the_address_stands() {
        let owners = Owners::new(&DEFAULT_KEY, 4, 128).expect("owners");
        for text in ["10.1.2.3", "203.0.113.200", "2001:db8:1:2::abcd", "fd00::1"] {
            let address = octets(text);
            let zero = vec![0; address.len()];
            let behind_a_gap = toeplitz(&DEFAULT_KEY, &[zero, address].concat());
            assert_eq!(owners.hash(ip(text)), behind_a_gap, "{text}");
        }
    }

    /// Clients come in blocks of consecutive addresses: each block of 256 spreads perfectly.
    #[test]
    fn neighbouring_clients_spread_evenly() {
        for (entries, workers) in [(128u16, 2u16), (128, 8), (512, 4), (512, 64)] {
            let owners = Owners::new(&DEFAULT_KEY, workers, entries).expect("owners");
            for shift in [0, 8, 16, 24] {
                let mut clients = vec![0u32; usize::from(workers)];
                for value in 0..256u32 {
                    let client = 0x0a4d_a105 & !(0xff << shift) | value << shift;
                    clients[owners.owner(Ip::v4(client)).index()] += 1;
                }
                assert!(clients.iter().all(|&n| n == 256 / u32::from(workers)), "{shift}: {clients:?}");
            }
        }
        // As a permutation of 32 bits, the hash has full rank: only 0 goes to 0.
        let owners = Owners::new(&DEFAULT_KEY, 1, 1).expect("owners");
        let mut rows: Vec<u32> = (0..32).map(|bit| owners.hash(Ip::v4(1 << bit))).collect();
        while let Some(pivot) = rows.pop() {
            assert_ne!(pivot, 0);
            let low = pivot & pivot.wrapping_neg();
            rows.iter_mut().filter(|row| **row & low != 0).for_each(|row| *row ^= pivot);
        }
    }

    #[test]
    fn every_port_can_be_programmed_alike() {
        let owners = Owners::new(&DEFAULT_KEY, 3, 128).expect("owners");
        assert_eq!(owners.key(40), Some(&DEFAULT_KEY[..40]));
        assert_eq!(owners.key(52), Some(&DEFAULT_KEY[..]));
        assert_eq!((owners.key(19), owners.key(53)), (None, None));
        assert_eq!((owners.reta(64), owners.reta(192)), (None, None));
        for size in [128, 512] {
            let reta = owners.reta(size).expect("reta");
            for client in (0..10_000).map(|n| Ip::v4(0x0a00_0000 + n * 77)) {
                assert_eq!(reta[owners.hash(client) as usize % size], owners.owner(client));
            }
        }
    }

    #[test]
    fn what_cannot_be_spread_is_refused() {
        let refused = |workers, entries| Owners::new(&DEFAULT_KEY, workers, entries).err();
        assert_eq!(refused(0, 128), Some(OwnersError::NoWorkers));
        assert_eq!(refused(3, 100), Some(OwnersError::Entries { entries: 100, workers: 3 }));
        assert_eq!(refused(64, 32), Some(OwnersError::Entries { entries: 32, workers: 64 }));
    }
}
