//! One server with a queue before it.

/// Serves packets one after the other, as they come. A packet that would have to wait longer than there is
/// room for is lost.
#[derive(Clone, Debug)]
pub struct Station {
    free_ps: u64,
    room_ps: u64,
}

impl Station {
    /// An idle station; how much work may wait in it, in picoseconds.
    #[must_use]
    pub fn new(room_ps: u64) -> Station {
        Station { free_ps: 0, room_ps }
    }

    /// When a packet leaves that comes at `at` and takes `cost_ps`; `None` if it is lost. Packets must come
    /// in the order of time.
    #[inline]
    pub fn pass(&mut self, at: u64, cost_ps: u64) -> Option<u64> {
        if self.free_ps.saturating_sub(at) > self.room_ps {
            return None;
        }
        self.free_ps = self.free_ps.max(at) + cost_ps;
        Some(self.free_ps)
    }

    /// Serves nothing for so long; what comes meanwhile waits.
    pub fn delay(&mut self, at: u64, for_ps: u64) {
        self.free_ps = self.free_ps.max(at) + for_ps;
    }

    /// When all that has come has left.
    #[must_use]
    pub fn free_ps(&self) -> u64 {
        self.free_ps
    }
}
