//! Time as the dataplane sees it: an argument.

/// Milliseconds since the process started, wrapping after 49.7 days.
///
/// Differences are taken modulo 2^32, so they are right as long as two ticks that are compared lie less
/// than 24.8 days apart. Every structure that stores a tick is visited by the ageing wheel far sooner:
/// [`crate::limits::TIMEOUT_MAX_MS`] is asserted to be below half the range.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
#[repr(transparent)]
pub struct Tick(pub u32);

impl Tick {
    /// Milliseconds from `earlier` to `self`; 0 if `earlier` is in fact later.
    #[inline]
    #[must_use]
    pub fn since(self, earlier: Tick) -> u32 {
        let elapsed = self.0.wrapping_sub(earlier.0);
        if elapsed > u32::MAX / 2 { 0 } else { elapsed }
    }

    /// The tick `ms` milliseconds after this one.
    #[inline]
    #[must_use]
    pub fn after_ms(self, ms: u32) -> Tick {
        Tick(self.0.wrapping_add(ms))
    }

    /// Whether `self` is at or past `deadline`.
    #[inline]
    #[must_use]
    pub fn reached(self, deadline: Tick) -> bool {
        self.0.wrapping_sub(deadline.0) <= u32::MAX / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_survive_the_wrap() {
        let before = Tick(u32::MAX - 9);
        let after = before.after_ms(20);
        assert_eq!(after, Tick(10));
        assert_eq!(after.since(before), 20);
        assert_eq!(before.since(after), 0);
        assert!(after.reached(before) && after.reached(after) && !before.reached(after));
    }
}
