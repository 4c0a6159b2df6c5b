//! Choices out of a string of bytes: a fuzzer's, or a generator's.

/// What is left of the string. When it is used up, every choice is the first.
pub(crate) struct Bytes<'a>(pub(crate) &'a [u8]);

/// What a slice is when too few bytes are left.
static NOTHING: [u8; 256] = [0; 256];

impl<'a> Bytes<'a> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    /// So many bytes, at most 256.
    pub(crate) fn take(&mut self, len: usize) -> &'a [u8] {
        match self.0.split_at_checked(len) {
            Some((bytes, rest)) => {
                self.0 = rest;
                bytes
            }
            None => {
                self.0 = &[];
                &NOTHING[..len.min(256)]
            }
        }
    }

    pub(crate) fn word(&mut self) -> u32 {
        let bytes = self.take(4);
        u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }

    /// Below `bound`, which is at most 256.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    pub(crate) fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }
}
