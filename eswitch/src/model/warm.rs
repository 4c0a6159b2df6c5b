//! Memory that a packet thread need not be the first to touch.
//!
//! The kernel gives a page when it is touched first, which takes the one who does a microsecond, and tens of
//! them in a virtual machine. Hardware has its memory from the beginning; so has the model what it is likely
//! to need.

/// An empty vector, in memory that has been touched, with room for so many values.
pub(super) fn touched<T>(room: usize, value: impl FnMut() -> T) -> Vec<T> {
    let mut values = Vec::with_capacity(room);
    values.resize_with(room, value);
    // Or what nobody reads need not be written.
    std::hint::black_box(values.as_mut_slice());
    values.clear();
    values
}
