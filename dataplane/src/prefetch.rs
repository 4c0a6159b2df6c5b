//! The one instruction the dataplane needs that safe Rust does not have: a hint that a cache line will
//! be read soon.

#![allow(unsafe_code)]

/// Asks for the cache line that holds the start of `target`. Only a hint: no result, no fault, no
/// change of state that a program could observe.
#[inline(always)]
pub fn prefetch<T>(target: &T) {
    let address = core::ptr::from_ref(target);
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: PREFETCHT0 never faults, whatever the address, and SSE is part of every x86-64.
    unsafe {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(all(target_arch = "aarch64", not(miri)))]
    // SAFETY: PRFM never faults, whatever the address; it writes neither memory, flags nor stack.
    unsafe {
        core::arch::asm!("prfm pldl1keep, [{0}]", in(reg) address, options(nostack, preserves_flags, readonly));
    }
    let _ = address;
}
