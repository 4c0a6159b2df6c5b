//! Pools of packet buffers.

use std::ffi::CString;
use std::ptr::NonNull;

use arrayvec::ArrayVec;

use crate::eal::Eal;
use crate::errno::Errno;
use crate::mbuf::Mbuf;

/// What a pool is made of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PoolConfig<'a> {
    /// Its name, unique in the process, at most 26 bytes.
    pub name: &'a str,
    /// Buffers in all. A power of two less one wastes no memory.
    pub count: u32,
    /// Buffers each registered thread may keep to itself; at most 512, and two thirds of `count`.
    pub cache: u32,
    /// Bytes per buffer, headroom included.
    pub data_room_bytes: u16,
    /// The NUMA socket its memory is on; `None` for any.
    pub socket: Option<u32>,
}

impl PoolConfig<'_> {
    /// Headroom in front of a received frame.
    pub const HEADROOM_BYTES: u16 = dpdk_sys::RTE_PKTMBUF_HEADROOM as u16;
    /// What DPDK itself proposes: headroom and 2 KiB, enough for a 1500-byte MTU.
    pub const DATA_ROOM_BYTES: u16 = Self::HEADROOM_BYTES + 2048;
}

/// A pool of packet buffers.
///
/// [`Mbuf`]s carry no lifetime, so one may outlive the pool it came from. That is sound: a pool that
/// still has buffers out when it is dropped is leaked instead of freed, and the [`Eal`] then keeps its
/// memory mapped. It shows as memory not returned at shutdown, never as a dangling packet.
///
/// Allocating and freeing is safe from any thread. Threads with an lcore id
/// ([`Eal::register_thread`]) have a cache of their own; others work on the shared ring, where one that
/// is descheduled half-way holds up everyone else, so packet threads register.
#[derive(Debug)]
pub struct Mempool<'eal> {
    raw: NonNull<dpdk_sys::rte_mempool>,
    data_room_bytes: u16,
    eal: &'eal Eal,
}

/// Why a pool could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MempoolError {
    /// The name has a NUL byte in it.
    #[error("pool name {0:?} contains a NUL byte")]
    NulInName(String),
    /// Buffers smaller than the headroom.
    #[error(
        "pool {name}: {data_room_bytes} bytes per buffer do not hold the headroom of {}",
        PoolConfig::HEADROOM_BYTES
    )]
    DataRoom {
        /// The pool.
        name: String,
        /// What was asked for.
        data_room_bytes: u16,
    },
    /// DPDK refused: no memory, the name is taken, or an impossible size.
    #[error("creating pool {name} of {count} buffers: {errno}")]
    Create {
        /// The pool.
        name: String,
        /// Buffers asked for.
        count: u32,
        /// What DPDK answered.
        errno: Errno,
    },
}

// SAFETY: a mempool is DPDK's shared object: allocation and freeing are multi-producer, multi-consumer,
// per-thread caches are found through the calling thread's own lcore id, and counting only reads.
unsafe impl Send for Mempool<'_> {}
// SAFETY: as above.
unsafe impl Sync for Mempool<'_> {}

impl<'eal> Mempool<'eal> {
    /// Makes a pool.
    pub fn create(eal: &'eal Eal, config: &PoolConfig<'_>) -> Result<Mempool<'eal>, MempoolError> {
        let name = || config.name.to_owned();
        let c_name = CString::new(config.name).map_err(|_| MempoolError::NulInName(name()))?;
        let data_room_bytes = config.data_room_bytes;
        if data_room_bytes < PoolConfig::HEADROOM_BYTES {
            return Err(MempoolError::DataRoom { name: name(), data_room_bytes });
        }
        // SOCKET_ID_ANY is -1, and so is a socket number no machine has.
        let socket = config.socket.map_or(-1, |socket| i32::try_from(socket).unwrap_or(-1));
        // SAFETY: the EAL is running by `'eal`; the name is NUL-terminated and copied by the callee.
        let raw = unsafe {
            dpdk_sys::rte_pktmbuf_pool_create(
                c_name.as_ptr(),
                config.count,
                config.cache,
                0,
                data_room_bytes,
                socket,
            )
        };
        match NonNull::new(raw) {
            Some(raw) => {
                eal.pool_created();
                Ok(Mempool { raw, data_room_bytes, eal })
            }
            None => Err(MempoolError::Create { name: name(), count: config.count, errno: Errno::last() }),
        }
    }

    /// An empty packet, or `None` if the pool is exhausted.
    #[inline]
    #[must_use]
    pub fn alloc(&self) -> Option<Mbuf> {
        // SAFETY: the pool is alive. A buffer from it is initialised, unshared, and owned by nobody else.
        unsafe { Mbuf::from_raw(dpdk_sys::millrace_pktmbuf_alloc(self.raw.as_ptr())) }
    }

    /// Fills `packets` up with empty packets; all of the missing ones, or none and `false`.
    #[must_use]
    pub fn alloc_bulk<const N: usize>(&self, packets: &mut ArrayVec<Mbuf, N>) -> bool {
        let missing = packets.remaining_capacity();
        let len = packets.len();
        // SAFETY: the pool is alive; behind `len` there is room for `missing` pointers, and `Mbuf` is a
        // transparent pointer. On success all of them are written with unshared buffers that now have
        // their one owner; on failure none is, and the length stays.
        unsafe {
            let tail = packets.as_mut_ptr().add(len).cast();
            let filled = dpdk_sys::millrace_pktmbuf_alloc_bulk(self.raw.as_ptr(), tail, missing as u32) == 0;
            if filled {
                packets.set_len(len + missing);
            }
            filled
        }
    }

    /// Buffers that somebody holds: packets in the program, and descriptors in devices' queues. Walks all
    /// caches, so it is for control paths; exact only while nobody allocates or frees.
    #[must_use]
    pub fn in_use(&self) -> u32 {
        // SAFETY: the pool is alive; counting only reads.
        unsafe { dpdk_sys::rte_mempool_in_use_count(self.raw.as_ptr()) }
    }

    /// Buffers that can still be allocated, threads' caches included. As exact as [`Mempool::in_use`].
    #[must_use]
    pub fn available(&self) -> u32 {
        // SAFETY: the pool is alive; counting only reads.
        unsafe { dpdk_sys::rte_mempool_avail_count(self.raw.as_ptr()) }
    }

    /// Bytes per buffer, headroom included.
    #[must_use]
    pub fn data_room_bytes(&self) -> u16 {
        self.data_room_bytes
    }

    pub(crate) fn as_ptr(&self) -> *mut dpdk_sys::rte_mempool {
        self.raw.as_ptr()
    }
}

impl Drop for Mempool<'_> {
    fn drop(&mut self) {
        // Nobody can allocate any more: that takes a borrow of the pool. Frees may still be under way on
        // other threads, and can only make the count too high: a buffer moves from its holder to a
        // thread's cache to the ring, and the count reads the ring first.
        if self.in_use() != 0 {
            return;
        }
        // SAFETY: ours since creation, every buffer is back, and by the borrows no queue refers to it.
        unsafe { dpdk_sys::rte_mempool_free(self.raw.as_ptr()) };
        self.eal.pool_freed();
    }
}
