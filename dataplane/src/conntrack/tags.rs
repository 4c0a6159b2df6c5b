//! Comparing a bucket's tags with one tag, all at once: the second thing, beside
//! [`crate::prefetch`], that the dataplane needs and safe Rust does not have.

#![allow(unsafe_code)]

/// References per bucket.
pub(super) const WAYS: usize = 10;
const ALL: u32 = (1 << WAYS) - 1;

/// Bit `i` is set if tag `i` is `tag`.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline(always)]
pub(super) fn ways_with(tags: &[u16; WAYS], tag: u16) -> u32 {
    use core::arch::x86_64::{
        _mm_cmpeq_epi16, _mm_cvtsi32_si128, _mm_loadu_si128, _mm_movemask_epi8, _mm_packs_epi16,
        _mm_set1_epi16,
    };
    let rest = u32::from(tags[8]) | u32::from(tags[9]) << 16;
    // SAFETY: SSE2 is part of every x86-64. The load reads 16 of the array's 20 bytes and asks for no
    // alignment.
    let ways = unsafe {
        let wanted = _mm_set1_epi16(tag as i16);
        let first = _mm_cmpeq_epi16(_mm_loadu_si128(tags.as_ptr().cast()), wanted);
        let rest = _mm_cmpeq_epi16(_mm_cvtsi32_si128(rest as i32), wanted);
        _mm_movemask_epi8(_mm_packs_epi16(first, rest))
    };
    // The lanes above the last tag are zeros, which a search for free ways would find.
    ways as u32 & ALL
}

/// Bit `i` is set if tag `i` is `tag`.
#[cfg(not(all(target_arch = "x86_64", not(miri))))]
#[inline(always)]
pub(super) fn ways_with(tags: &[u16; WAYS], tag: u16) -> u32 {
    ways_one_by_one(tags, tag) & ALL
}

/// The same without vectors of our own: in lanes of the tags' own width, so that the compiler's need no
/// widening.
#[cfg(any(test, miri, not(target_arch = "x86_64")))]
#[inline(always)]
pub(super) fn ways_one_by_one(tags: &[u16; WAYS], tag: u16) -> u32 {
    let mut ways = 0;
    for (way, &other) in tags.iter().enumerate() {
        ways |= u16::from(other == tag) << way;
    }
    u32::from(ways)
}
