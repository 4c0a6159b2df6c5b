//! DPDK's hash table, `rte_hash`: what people reach for first, and so what Millrace's own tables are
//! measured against. The program itself does not use it.

use std::ffi::CString;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};

use crate::eal::Eal;
use crate::errno::Errno;

/// Bytes of a key: a length that `rte_hash` compares without a call of `memcmp`.
pub const KEY_BYTES: usize = 16;

/// Function that keys are hashed with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Function {
    /// Bob Jenkins's, `rte_jhash`.
    Jenkins,
    /// CRC32, `rte_hash_crc`: an instruction of most processors.
    Crc,
}

/// A set of keys, each of which has a position.
#[derive(Debug)]
pub struct Hash<'eal> {
    raw: NonNull<dpdk_sys::rte_hash>,
    eal: PhantomData<&'eal Eal>,
    /// A burst of lookups is not safe beside an insertion from another thread.
    thread_bound: PhantomData<*const ()>,
}

/// Why there is no table.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    /// The name has a NUL byte in it.
    #[error("hash name {0:?} contains a NUL byte")]
    NulInName(String),
    /// DPDK refused: no memory, the name is taken, or an impossible size.
    #[error("creating hash {name} of {entries} entries: {errno}")]
    Create {
        /// Its name.
        name: String,
        /// Entries asked for.
        entries: u32,
        /// What DPDK answered.
        errno: Errno,
    },
}

impl<'eal> Hash<'eal> {
    /// Makes a table for `entries` keys, for one thread, on any NUMA socket.
    ///
    /// # Errors
    /// See [`HashError`].
    pub fn create(
        _eal: &'eal Eal,
        name: &str,
        entries: u32,
        function: Function,
    ) -> Result<Hash<'eal>, HashError> {
        let c_name = CString::new(name).map_err(|_| HashError::NulInName(name.to_owned()))?;
        let crc = function == Function::Crc;
        // SAFETY: the EAL is running by `'eal`; the name is NUL-terminated and copied by the callee.
        let raw = unsafe { dpdk_sys::millrace_hash_create(c_name.as_ptr(), entries, KEY_BYTES as u32, crc) };
        match NonNull::new(raw) {
            Some(raw) => Ok(Hash { raw, eal: PhantomData, thread_bound: PhantomData }),
            None => Err(HashError::Create { name: name.to_owned(), entries, errno: Errno::last() }),
        }
    }

    /// Adds a key, if it is new. Returns its position, which stays, and is at most the number of entries.
    ///
    /// # Errors
    /// [`Errno`] 28, `ENOSPC`: both of its buckets are full and nothing could be moved.
    pub fn add(&mut self, key: &[u8; KEY_BYTES]) -> Result<u32, Errno> {
        // SAFETY: the table is alive and made for keys of this length; the key is copied.
        let position = unsafe { dpdk_sys::rte_hash_add_key(self.raw.as_ptr(), key.as_ptr().cast()) };
        u32::try_from(position).map_err(|_| Errno(-position))
    }

    /// Looks for many keys at a time. A position is negative where there is no such key.
    #[inline]
    #[must_use]
    pub fn find_burst<const N: usize>(&self, keys: &[[u8; KEY_BYTES]; N]) -> [i32; N] {
        const { assert!(N > 0 && N <= dpdk_sys::RTE_HASH_LOOKUP_BULK_MAX as usize) };
        let mut pointers = [ptr::null(); N];
        for (pointer, key) in pointers.iter_mut().zip(keys) {
            *pointer = key.as_ptr().cast();
        }
        let mut positions = [0; N];
        // SAFETY: the table is alive; N pointers to keys of its length and room for N positions, N being
        // in the range that the callee takes.
        unsafe {
            dpdk_sys::rte_hash_lookup_bulk(
                self.raw.as_ptr(),
                pointers.as_mut_ptr(),
                N as u32,
                positions.as_mut_ptr(),
            );
        }
        positions
    }
}

impl Drop for Hash<'_> {
    fn drop(&mut self) {
        // SAFETY: made by rte_hash_create, freed once; the EAL is still running by `'eal`.
        unsafe { dpdk_sys::rte_hash_free(self.raw.as_ptr()) };
    }
}
