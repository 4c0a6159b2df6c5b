//! Huge pages for large tables: a global allocator.
//!
//! A table of a million connections in 4 KiB pages misses the TLB at every look-up, which costs about as
//! much as the cache miss it comes with. From [`LARGE_BYTES`] on, memory is therefore mapped by itself, at a
//! multiple of 2 MiB, and the kernel is asked for transparent huge pages (`MADV_HUGEPAGE`, see madvise(2)).
//! What it cannot give, it gives in small pages: nothing depends on them but speed. The pages are taken when
//! the block is (`MADV_POPULATE_WRITE`), not when a packet first touches them. Everything smaller is the
//! system allocator's.
//!
//! Where the kernel's huge pages are larger than 2 MiB (512 MiB with base pages of 64 KiB), only blocks of
//! twice their size are sure to hold one.
//!
//! Which of the two a block came from follows from its [`Layout`] alone, so blocks need no headers.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr::null_mut;

/// Blocks of at least this many bytes are mapped.
pub const LARGE_BYTES: usize = 4 << 20;

/// What mapped blocks are aligned to: a huge page of x86-64, and of aarch64 with base pages of 4 KiB.
pub const HUGE_BYTES: usize = 2 << 20;

/// Lengths are multiples of this, and so of any base page that Linux has on the machines we know.
const PAGE_BYTES: usize = 64 << 10;

/// The allocator. In the root of a binary or bench:
///
/// ```
/// #[global_allocator]
/// static ALLOCATOR: dpdk::HugePages = dpdk::HugePages;
/// ```
#[derive(Clone, Copy, Default, Debug)]
pub struct HugePages;

/// Whether blocks of this layout are mapped.
fn is_large(layout: Layout) -> bool {
    layout.size() >= LARGE_BYTES && layout.align() <= HUGE_BYTES
}

/// The length of the mapping of a large block. Does not wrap: a layout's size is at most `isize::MAX`.
fn mapped_len(size: usize) -> usize {
    size.next_multiple_of(PAGE_BYTES)
}

/// Maps `len` bytes of zeros at a multiple of [`HUGE_BYTES`]; null if there is no room for them. Touches no
/// page.
fn map(len: usize) -> *mut u8 {
    let room = len + HUGE_BYTES;
    let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new private mapping at an address of the kernel's choice overlaps nothing.
    let start = unsafe { libc::mmap(null_mut(), room, access, kind, -1, 0) };
    if start == libc::MAP_FAILED {
        return null_mut();
    }
    let start = start.cast::<u8>();
    let before = start.addr().next_multiple_of(HUGE_BYTES) - start.addr();
    // SAFETY: `before` is less than HUGE_BYTES, so these are three parts of the mapping above, one after the
    // other, which nobody knows of yet; the outer two go.
    unsafe {
        let block = start.add(before);
        unmap(start, before);
        unmap(block.add(len), HUGE_BYTES - before);
        // Refused by kernels without huge pages; then small ones have to do.
        libc::madvise(block.cast(), len, libc::MADV_HUGEPAGE);
        block
    }
}

/// Gives pages back to the kernel.
///
/// # Safety
/// They are part of a mapping made here, and nobody uses them any more.
unsafe fn unmap(start: *mut u8, len: usize) {
    if len > 0 {
        // SAFETY: the caller's promise. It fails only where the kernel cannot split a mapping for want of
        // memory: then the pages are lost, which nobody here could help.
        unsafe { libc::munmap(start.cast(), len) };
    }
}

/// Makes a mapping longer or shorter where it is.
///
/// # Safety
/// `block` is a mapping of `old` bytes made here, of which those past `new` are used by nobody any more.
unsafe fn resize(block: *mut u8, old: usize, new: usize) -> bool {
    // SAFETY: the caller's promise; without MREMAP_MAYMOVE it stays where it is or is left as it was.
    old == new || unsafe { libc::mremap(block.cast(), old, new, 0) } != libc::MAP_FAILED
}

/// From now on the kernel gives this process no transparent huge pages (`PR_SET_THP_DISABLE`, see
/// prctl(2)): for comparisons with what has none either.
pub fn refuse_to_this_process() {
    let (yes, unused): (libc::c_ulong, libc::c_ulong) = (1, 0);
    // SAFETY: sets a flag of the process that no memory already mapped depends on.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, yes, unused, unused, unused) };
}

// SAFETY: every block comes from `map` or from `System` and goes back where it came from, which `is_large`
// tells from the layout that both calls are given. Blocks of `map` are at least as long as their layout says,
// aligned to HUGE_BYTES, and are nobody else's until they are unmapped. Nothing here panics or allocates.
unsafe impl GlobalAlloc for HugePages {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_large(layout) {
            let len = mapped_len(layout.size());
            let block = map(len);
            if !block.is_null() {
                // What is not asked for as zeroes will be written, perhaps little by little: a page of 2 MiB
                // is not to be found and cleared then, in the middle of something. Only a hint, too.
                // SAFETY: a mapping of ours of that length.
                unsafe { libc::madvise(block.cast(), len, libc::MADV_POPULATE_WRITE) };
            }
            return block;
        }
        // SAFETY: the caller keeps `GlobalAlloc::alloc`'s contract, which is `System`'s.
        unsafe { System.alloc(layout) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_large(layout) {
            return map(mapped_len(layout.size()));
        }
        // SAFETY: as for `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if is_large(layout) {
            // SAFETY: a block of this layout is a whole mapping of this length, given back by its owner.
            return unsafe { unmap(block, mapped_len(layout.size())) };
        }
        // SAFETY: the block came from this allocator, hence from `System`, with this layout.
        unsafe { System.dealloc(block, layout) }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller promises a size that makes a layout.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (is_large(layout), is_large(wanted)) {
            // SAFETY: the block came from `System` with this layout, and goes on being one of its blocks.
            (false, false) => unsafe { System.realloc(block, layout, size) },
            (true, true) => {
                let (old, new) = (mapped_len(layout.size()), mapped_len(size));
                // SAFETY: the block is a whole mapping of `old` bytes; its owner keeps the first `size`.
                let resized = unsafe { resize(block, old, new) };
                // SAFETY: if it stayed as it was, it is still a block of `layout`.
                if resized { block } else { unsafe { self.copy(block, layout, wanted) } }
            }
            // SAFETY: the block is one of `layout`.
            _ => unsafe { self.copy(block, layout, wanted) },
        }
    }
}

impl HugePages {
    /// Moves a block's bytes to a block of another size; null, and nothing done, if there is none.
    ///
    /// # Safety
    /// As for [`GlobalAlloc::realloc`].
    unsafe fn copy(&self, block: *mut u8, layout: Layout, wanted: Layout) -> *mut u8 {
        // SAFETY: its size is not zero, as the caller of `realloc` promised.
        let other = unsafe { self.alloc(wanted) };
        if !other.is_null() {
            let len = layout.size().min(wanted.size());
            // SAFETY: both blocks are at least this long, and the new one overlaps nothing.
            unsafe { block.copy_to_nonoverlapping(other, len) };
            // SAFETY: the block is one of `layout`, and its owner gets the other one instead.
            unsafe { self.dealloc(block, layout) };
        }
        other
    }
}

#[cfg(test)]
mod tests;
