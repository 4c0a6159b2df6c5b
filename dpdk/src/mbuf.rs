//! A packet buffer with one owner.

use std::ptr::NonNull;

use dataplane::ids::PortId;
use dataplane::packet::PacketBuf;
use dataplane::prefetch::prefetch;
use dpdk_sys::{millrace_mbuf_head as Head, rte_mbuf};

/// A packet in a DPDK buffer. Moving it moves a pointer; dropping it returns the buffer to its pool.
///
/// Its `port` is Millrace's own [`PortId`], not DPDK's number: [`RxQueue`](crate::RxQueue) writes it on
/// receive, into the cache line the driver has just written, so the dataplane needs no table.
///
/// May be moved to another thread and freed there; see [`Mempool`](crate::Mempool) for what a thread
/// needs to do that fast.
#[repr(transparent)]
#[derive(Debug)]
pub struct Mbuf(NonNull<rte_mbuf>);

// SAFETY: an `Mbuf` is the only owner of its buffer (reference count one, never cloned), and returning
// a buffer to its pool is safe on any thread.
unsafe impl Send for Mbuf {}

impl Mbuf {
    /// Takes over a buffer; `None` for null.
    ///
    /// # Safety
    ///
    /// `raw` is null, or an initialised mbuf with reference count one that nobody else will use or free,
    /// and whose bytes up to `data_off + data_len` were once written or zeroed by the pool's creation.
    #[inline]
    pub(crate) unsafe fn from_raw(raw: *mut rte_mbuf) -> Option<Mbuf> {
        NonNull::new(raw).map(Mbuf)
    }

    #[inline]
    fn head(&self) -> &Head {
        // SAFETY: the mbuf is alive and ours alone, and starts with the fields of `Head`, as the shim
        // asserts when it is compiled.
        unsafe { self.0.cast().as_ref() }
    }

    #[inline]
    fn head_mut(&mut self) -> &mut Head {
        // SAFETY: as in `head`, and `self` is borrowed exclusively.
        unsafe { self.0.cast().as_mut() }
    }

    /// The hash by which the NIC chose the rx queue, if it delivered one.
    #[inline]
    #[must_use]
    pub fn rss_hash(&self) -> Option<u32> {
        let head = self.head();
        (head.ol_flags & dpdk_sys::MILLRACE_MBUF_F_RX_RSS_HASH != 0).then_some(head.rss_hash)
    }

    /// Bytes in all segments together; the same as `data().len()` for a contiguous packet.
    #[inline]
    #[must_use]
    pub fn pkt_len(&self) -> usize {
        self.head().pkt_len as usize
    }

    /// Whether a device may put the buffer back into `pool` without looking at it: it is from there, and
    /// its bytes are its own (a driver may have attached memory of the device's instead).
    #[inline]
    pub(crate) fn is_plainly_from(&self, pool: *const dpdk_sys::rte_mempool) -> bool {
        const ELSEWHERE: u64 = dpdk_sys::MILLRACE_MBUF_F_INDIRECT | dpdk_sys::MILLRACE_MBUF_F_EXTERNAL;
        let head = self.head();
        core::ptr::eq(head.pool, pool) && head.ol_flags & ELSEWHERE == 0
    }
}

impl Drop for Mbuf {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: we are the only owner, and the pool is not freed while a buffer is out.
        unsafe { dpdk_sys::millrace_pktmbuf_free(self.0.as_ptr()) };
    }
}

impl PacketBuf for Mbuf {
    #[inline]
    fn port(&self) -> PortId {
        PortId(self.head().port)
    }

    #[inline]
    fn set_port(&mut self, port: PortId) {
        self.head_mut().port = port.0;
    }

    #[inline]
    fn is_contiguous(&self) -> bool {
        self.head().nb_segs == 1
    }

    #[inline]
    fn data(&self) -> &[u8] {
        let head = self.head();
        // SAFETY: `data_off + data_len <= buf_len` holds for every mbuf a driver delivers and is kept by
        // every method here; the buffer is ours alone for as long as `self` is borrowed.
        unsafe {
            let start = head.buf_addr.cast::<u8>().add(usize::from(head.data_off));
            core::slice::from_raw_parts(start, usize::from(head.data_len))
        }
    }

    #[inline]
    fn data_mut(&mut self) -> &mut [u8] {
        let head = self.head();
        // SAFETY: as in `data`, and `self` is borrowed exclusively.
        unsafe {
            let start = head.buf_addr.cast::<u8>().add(usize::from(head.data_off));
            core::slice::from_raw_parts_mut(start, usize::from(head.data_len))
        }
    }

    #[inline]
    fn grow_front(&mut self, n: usize) -> bool {
        let head = self.head_mut();
        let fits = n <= usize::from(head.data_off);
        if fits {
            // `data_off + data_len` stays, so neither can leave the buffer.
            head.data_off -= n as u16;
            head.data_len += n as u16;
            head.pkt_len += n as u32;
        }
        fits
    }

    #[inline]
    fn trim_front(&mut self, n: usize) -> bool {
        let head = self.head_mut();
        let fits = n <= usize::from(head.data_len);
        if fits {
            head.data_off += n as u16;
            head.data_len -= n as u16;
            head.pkt_len -= n as u32;
        }
        fits
    }

    #[inline]
    fn set_len(&mut self, len: usize) -> bool {
        let head = self.head_mut();
        let room = usize::from(head.buf_len) - usize::from(head.data_off);
        let fits = head.nb_segs == 1 && len <= room;
        if fits {
            head.data_len = len as u16;
            head.pkt_len = len as u32;
        }
        fits
    }

    #[inline]
    fn prefetch(&self) {
        if let Some(first) = self.data().first() {
            prefetch(first);
        }
    }
}
