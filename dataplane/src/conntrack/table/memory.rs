//! What a table takes, and when it takes it.

use core::hint::black_box;

use super::{Entry, Table};

impl Table {
    /// Bytes that IPv4 connections need at full capacity. IPv6 ones add 48 each, those with hardware
    /// counters or more than 4 GiB add 48, and all of them 8 where there is more than one tenant.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        core::mem::size_of_val::<[Entry]>(&self.entries)
            + self.index.memory_bytes()
            + self.half_open.memory_bytes()
            + self.wheel.memory_bytes()
    }

    /// Takes the memory for IPv6 connections at once. Otherwise the packet that opens the first one in a page
    /// waits for the kernel to clear the page, which for a huge one is as long as many bursts.
    pub fn settle_v6(&mut self) {
        settle(&mut self.v6);
    }

    /// Likewise the memory for what hardware has of connections.
    pub fn settle_hardware(&mut self) {
        settle(&mut self.cold);
    }
}

/// Writes to every page of an array what is there.
#[inline(never)]
fn settle(array: &mut [[u64; 6]]) {
    /// Elements in the smallest page: not so many that one is skipped.
    const STRIDE: usize = 4096 / size_of::<[u64; 6]>();
    let touch = |element: &mut [u64; 6]| element[0] = black_box(element[0]);
    array.iter_mut().step_by(STRIDE).for_each(touch);
    array.last_mut().into_iter().for_each(touch);
}

#[cfg(all(test, target_os = "linux", not(miri)))]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use crate::conntrack::tests::support::{T0, new, table, timeout};

    const CONNECTIONS: u32 = 200_000;

    /// Of an array's pages, how many the kernel has given so far, and how many there are: those which nothing
    /// else has a part in.
    fn resident(array: &[[u64; 6]]) -> (usize, usize) {
        let range = array.as_ptr_range();
        let (first, end) = (range.start.addr().div_ceil(4096), range.end.addr() / 4096);
        let mut words = vec![0; 8 * (end - first)];
        let pages = File::open("/proc/self/pagemap").expect("every process may read its own");
        pages.read_exact_at(&mut words, 8 * first as u64).expect("a word for each page");
        // In memory, or swapped out.
        let given = |word: &&[u8]| word[7] & 0xc0 != 0;
        (words.chunks_exact(8).filter(given).count(), end - first)
    }

    fn all_of(array: &[[u64; 6]]) -> bool {
        let (given, all) = resident(array);
        given == all && all > 2000
    }

    #[test]
    fn what_is_settled_is_there_and_nothing_else() {
        let mut table = table(CONNECTIONS, CONNECTIONS);
        // An allocator may have had some from elsewhere; all of it hardly.
        assert!(!all_of(&table.v6) && !all_of(&table.cold));
        table.settle_v6();
        assert!(all_of(&table.v6) && !all_of(&table.cold));
        table.settle_hardware();
        assert!(all_of(&table.cold));
    }

    /// What is promised per IPv4 connection is all that they take.
    #[test]
    fn ipv4_connections_touch_no_memory_but_the_promised() {
        let mut table = table(CONNECTIONS, CONNECTIONS);
        let before = (resident(&table.v6), resident(&table.cold));
        for n in 0..CONNECTIONS {
            table.insert(T0, &new(n), timeout).expect("room");
        }
        assert_eq!((resident(&table.v6), resident(&table.cold)), before);
    }
}
