//! Packets: owned mbufs, each one piece and nobody else's.

use std::ptr::NonNull;

use dataplane::ids::PortId;
use dataplane::packet::PacketBuf;

use super::ffi;

/// An mbuf that this driver owns; dropping it frees it.
#[repr(transparent)]
pub(super) struct Packet(NonNull<ffi::rte_mbuf>);

impl Packet {
    /// Takes over an mbuf; `None` for null.
    ///
    /// # Safety
    /// A valid mbuf that the caller owns and gives up.
    #[inline]
    pub(super) unsafe fn from_raw(mbuf: *mut ffi::rte_mbuf) -> Option<Packet> {
        NonNull::new(mbuf).map(Packet)
    }

    /// Takes over an mbuf of a wire as one unshared piece, copied into `pool` if it was not; `None` (and it
    /// is freed) without a buffer for that.
    ///
    /// # Safety
    /// As [`Packet::from_raw`]; `pool` is a pool of mbufs.
    #[inline]
    pub(super) unsafe fn own(mbuf: *mut ffi::rte_mbuf, pool: *mut ffi::rte_mempool) -> Option<Packet> {
        // SAFETY: the caller owns the mbuf and gives it up; the function returns it, or another, or frees it.
        NonNull::new(unsafe { ffi::eswitch_mbuf_own(mbuf, pool) }).map(Packet)
    }

    /// A copy in a buffer of `pool`; `None` without one.
    ///
    /// # Safety
    /// `pool` is a pool of mbufs.
    pub(super) unsafe fn copy(&self, pool: *mut ffi::rte_mempool) -> Option<Packet> {
        // SAFETY: the mbuf is valid and only read; the copy is new.
        NonNull::new(unsafe { ffi::rte_pktmbuf_copy(self.0.as_ptr(), pool, 0, u32::MAX) }).map(Packet)
    }

    /// Gives the mbuf away; the caller owns it.
    #[inline]
    pub(super) fn into_raw(self) -> *mut ffi::rte_mbuf {
        let mbuf = self.0.as_ptr();
        std::mem::forget(self);
        mbuf
    }

    #[inline]
    fn mbuf(&self) -> &ffi::rte_mbuf {
        // SAFETY: valid as long as this owner exists; nobody else writes to it.
        unsafe { self.0.as_ref() }
    }

    #[inline]
    fn mbuf_mut(&mut self) -> &mut ffi::rte_mbuf {
        // SAFETY: valid as long as this owner exists, which is borrowed mutably.
        unsafe { self.0.as_mut() }
    }

    /// Dresses it for a representor's receive queue.
    #[inline]
    pub(super) fn deliver(&mut self, port: u16, mark: Option<u32>, metadata: u32) {
        let mbuf = self.mbuf_mut();
        mbuf.port = port;
        mbuf.ol_flags = 0;
        if let Some(mark) = mark {
            mbuf.ol_flags = ffi::ESWITCH_RX_FDIR | ffi::ESWITCH_RX_FDIR_ID;
            mbuf.__bindgen_anon_2.hash.fdir.hi = mark;
        }
        if metadata != 0 {
            // SAFETY: the mbuf is valid and this owner's.
            unsafe { ffi::eswitch_mbuf_set_metadata(self.0.as_ptr(), metadata) };
        }
    }

    /// Bytes of the whole frame, in however many pieces.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.mbuf().pkt_len as usize
    }

    fn tailroom(&self) -> usize {
        let mbuf = self.mbuf();
        usize::from(mbuf.buf_len).saturating_sub(usize::from(mbuf.data_off) + usize::from(mbuf.data_len))
    }

    /// Moves the frame towards the end of its buffer. The usual headroom (128) is less than the longest
    /// encapsulation that mlx5 takes (132).
    #[cold]
    fn move_back(&mut self, n: usize) -> bool {
        if n > self.tailroom() {
            return false;
        }
        let mbuf = self.mbuf_mut();
        // SAFETY: source and destination (`tailroom` was checked) are within the buffer.
        unsafe {
            let start = mbuf.buf_addr.cast::<u8>().add(usize::from(mbuf.data_off));
            std::ptr::copy(start, start.add(n), usize::from(mbuf.data_len));
        }
        mbuf.data_off += n as u16;
        true
    }

    fn set_lengths(&mut self, offset: usize, len: usize) {
        let mbuf = self.mbuf_mut();
        mbuf.data_off = offset as u16;
        mbuf.data_len = len as u16;
        mbuf.pkt_len = len as u32;
    }
}

impl Drop for Packet {
    fn drop(&mut self) {
        // SAFETY: this owner's, and last used here.
        unsafe { ffi::eswitch_mbuf_free(self.0.as_ptr()) };
    }
}

impl PacketBuf for Packet {
    #[inline]
    fn port(&self) -> PortId {
        PortId(self.mbuf().port)
    }

    #[inline]
    fn set_port(&mut self, port: PortId) {
        self.mbuf_mut().port = port.0;
    }

    #[inline]
    fn is_contiguous(&self) -> bool {
        self.mbuf().nb_segs == 1
    }

    #[inline]
    fn data(&self) -> &[u8] {
        let mbuf = self.mbuf();
        // SAFETY: DPDK keeps `data_off + data_len` within the segment's buffer, and so do we.
        unsafe {
            let start = mbuf.buf_addr.cast::<u8>().add(usize::from(mbuf.data_off));
            std::slice::from_raw_parts(start, usize::from(mbuf.data_len))
        }
    }

    #[inline]
    fn data_mut(&mut self) -> &mut [u8] {
        let mbuf = self.mbuf();
        // SAFETY: as in `data`; the owner is borrowed mutably, and the mbuf is not shared (see `own`).
        unsafe {
            let start = mbuf.buf_addr.cast::<u8>().add(usize::from(mbuf.data_off));
            std::slice::from_raw_parts_mut(start, usize::from(mbuf.data_len))
        }
    }

    fn grow_front(&mut self, n: usize) -> bool {
        let (offset, len) = (usize::from(self.mbuf().data_off), usize::from(self.mbuf().data_len));
        if len + n > usize::from(u16::MAX) || (n > offset && !self.move_back(n - offset)) {
            return false;
        }
        self.set_lengths(usize::from(self.mbuf().data_off) - n, len + n);
        true
    }

    fn trim_front(&mut self, n: usize) -> bool {
        let (offset, len) = (usize::from(self.mbuf().data_off), usize::from(self.mbuf().data_len));
        let fits = n <= len;
        if fits {
            self.set_lengths(offset + n, len - n);
        }
        fits
    }

    fn set_len(&mut self, len: usize) -> bool {
        let (offset, old) = (usize::from(self.mbuf().data_off), usize::from(self.mbuf().data_len));
        let fits = len <= old + self.tailroom();
        if fits {
            self.set_lengths(offset, len);
        }
        fits
    }

    #[inline]
    fn prefetch(&self) {
        if let Some(first) = self.data().first() {
            dataplane::prefetch::prefetch(first);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An mbuf on the heap: enough for everything but freeing.
    fn packet(room: usize, offset: u16, frame: &[u8]) -> (std::mem::ManuallyDrop<Packet>, Vec<u8>) {
        let mut buffer = vec![0; room];
        buffer[usize::from(offset)..usize::from(offset) + frame.len()].copy_from_slice(frame);
        let mbuf = Box::leak(Box::new(ffi::rte_mbuf {
            buf_addr: buffer.as_mut_ptr().cast(),
            buf_len: room as u16,
            data_off: offset,
            data_len: frame.len() as u16,
            pkt_len: frame.len() as u32,
            nb_segs: 1,
            ..ffi::rte_mbuf::default()
        }));
        (std::mem::ManuallyDrop::new(Packet(NonNull::from(mbuf))), buffer)
    }

    #[test]
    fn edits_stay_within_the_buffer() {
        let (mut packet, _buffer) = packet(200, 128, &[7; 60]);
        assert!(packet.grow_front(50));
        packet.data_mut()[..50].fill(1);
        assert_eq!(packet.data(), [[1; 50].as_slice(), &[7; 60]].concat());
        assert!(packet.trim_front(50));
        assert!(!packet.trim_front(61));
        assert!(packet.set_len(72));
        assert!(!packet.set_len(73));
        assert!(packet.set_len(60));
        assert_eq!(packet.data(), [7; 60]);
        assert_eq!(packet.mbuf().pkt_len, 60);
    }

    #[test]
    fn the_longest_encapsulation_fits_without_headroom_for_it() {
        let (mut packet, _buffer) = packet(200, 128, &[7; 60]);
        assert!(packet.grow_front(132));
        assert_eq!(packet.data().len(), 192);
        assert_eq!(packet.data()[132..], [7; 60]);
        assert_eq!(packet.mbuf().data_off, 0);
        assert!(!packet.grow_front(9), "8 bytes are left behind the frame");
        assert!(packet.grow_front(8));
        assert_eq!(packet.data()[140..], [7; 60]);
    }

    #[test]
    fn delivery_leaves_no_stale_flags() {
        let (mut packet, _buffer) = packet(200, 128, &[7; 60]);
        packet.deliver(3, Some(0xabc), 0);
        assert_eq!(packet.mbuf().ol_flags, ffi::ESWITCH_RX_FDIR | ffi::ESWITCH_RX_FDIR_ID);
        // SAFETY: any bits are a number.
        assert_eq!(unsafe { packet.mbuf().__bindgen_anon_2.hash.fdir.hi }, 0xabc);
        packet.deliver(4, None, 0);
        assert_eq!((packet.mbuf().ol_flags, packet.mbuf().port), (0, 4));
    }
}
