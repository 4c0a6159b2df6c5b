//! Which flow comes next: a queue's share of the flow numbers, each once before any comes again.
//!
//! The shuffled order is computed, not stored: it touches no memory, whatever the number of flows.

/// Flow numbers there are when every packet is of a new flow.
pub const NUMBERS: u64 = 1 << 32;

/// Endless flow numbers of one queue: those of `0..flows` that are `queue` modulo `queues`.
#[derive(Clone, Debug)]
pub struct Order {
    /// The index of the next one within the share.
    at: u32,
    /// The last index.
    last: u32,
    queues: u32,
    queue: u32,
    shuffle: Option<Shuffle>,
}

impl Order {
    /// The share of `queue` of `queues` in `flows` numbers (at most [`NUMBERS`]); `None` if it is empty.
    pub fn new(flows: u64, queue: u32, queues: u32, shuffled: bool, seed: u64) -> Option<Order> {
        let count = flows.min(NUMBERS).checked_sub(u64::from(queue))?.div_ceil(u64::from(queues.max(1)));
        let last = u32::try_from(count.checked_sub(1)?).ok()?;
        let shuffle = shuffled.then(|| Shuffle::new(count, seed));
        Some(Order { at: 0, last, queues, queue, shuffle })
    }

    /// The next flow numbers. On its own, and without what each would owe to the one before, so that
    /// compilers make several at once.
    #[inline(never)]
    pub fn fill(&mut self, mut flows: &mut [u32]) {
        while !flows.is_empty() {
            let left = u64::from(self.last - self.at) + 1;
            let (now, later) = flows.split_at_mut(left.min(flows.len() as u64) as usize);
            let indices =
                now.iter_mut().enumerate().map(|(at, flow)| (flow, self.at.wrapping_add(at as u32)));
            let number = |index: u32| index.wrapping_mul(self.queues).wrapping_add(self.queue);
            match &self.shuffle {
                Some(shuffle) => indices.for_each(|(flow, index)| *flow = number(shuffle.of(index))),
                None => indices.for_each(|(flow, index)| *flow = number(index)),
            }
            self.at = if now.len() as u64 == left { 0 } else { self.at + now.len() as u32 };
            flows = later;
        }
    }
}

/// A pseudo-random permutation of `0..count`.
///
/// Two rounds of what permutes a power of two (fold, multiply) on the largest one that fits, first at the low
/// end, then at the high end, so that each number is in at least one.
#[derive(Clone, Debug)]
struct Shuffle {
    /// One less than the largest power of two that fits.
    mask: u32,
    /// The count without that power.
    rest: u32,
    fold: u32,
    factors: [u32; 2],
    offset: u32,
}

impl Shuffle {
    /// For a count from 1 to 2^32.
    fn new(count: u64, seed: u64) -> Shuffle {
        let bits = count.max(1).ilog2();
        let mut state = seed;
        let factors = [(); 2].map(|()| splitmix(&mut state) as u32 | 1);
        Shuffle {
            mask: ((1_u64 << bits) - 1) as u32,
            rest: (count.max(1) - (1 << bits)) as u32,
            fold: bits.div_ceil(2).max(1),
            factors,
            offset: splitmix(&mut state) as u32,
        }
    }

    #[inline]
    fn of(&self, index: u32) -> u32 {
        let [first, second] = self.factors;
        let low = self.round(index, first);
        // The whole by the rest, around the end.
        let turned = if low < self.rest { low + self.mask + 1 } else { low - self.rest };
        self.round(turned, second)
    }

    /// A permutation of the numbers below the power of two; others stay.
    #[inline]
    fn round(&self, number: u32, factor: u32) -> u32 {
        let mixed = number.wrapping_add(self.offset) & self.mask;
        let mixed = (mixed ^ mixed >> self.fold).wrapping_mul(factor) & self.mask;
        if number <= self.mask { mixed } else { number }
    }
}

/// A step of SplitMix64: a seed becomes well-mixed numbers.
fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn take(order: &mut Order, count: usize) -> Vec<u32> {
        let mut flows = vec![0; count];
        flows.chunks_mut(7).for_each(|flows| order.fill(flows));
        flows
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn queues_share_all_flows_and_each_comes_once(
            flows in 1..5000_u64, queues in 1..9_u32, shuffled: bool, seed: u64,
        ) {
            let mut all = Vec::new();
            for queue in 0..queues {
                let share = flows.saturating_sub(u64::from(queue)).div_ceil(u64::from(queues)) as usize;
                match Order::new(flows, queue, queues, shuffled, seed) {
                    None => prop_assert_eq!(share, 0),
                    Some(mut order) => {
                        let first = take(&mut order, share);
                        prop_assert!(first.iter().all(|flow| flow % queues == queue));
                        prop_assert_eq!(&first, &take(&mut order, share), "the second round is the first one");
                        all.extend(first);
                    }
                }
            }
            all.sort_unstable();
            prop_assert!(all.iter().copied().eq(0..flows as u32));
        }
    }

    #[test]
    fn a_million_flows_come_once_each() {
        for flows in [1 << 20, 1_000_000, (1 << 20) - 1, (1 << 20) + 1] {
            let mut order = Order::new(flows, 0, 1, true, 3).unwrap();
            let mut seen = vec![false; flows as usize];
            for flow in take(&mut order, flows as usize) {
                assert!(!std::mem::replace(&mut seen[flow as usize], true), "{flow} of {flows} came twice");
            }
        }
    }

    #[test]
    fn shuffled_is_no_order_of_use() {
        let mut order = Order::new(1_000_000, 0, 1, true, 1).unwrap();
        let flows = take(&mut order, 10_000);
        let near = flows.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) < 1000).count();
        assert!(near < 100, "{near} of 10000 steps lead to a neighbour");
        let rising = flows.windows(2).filter(|pair| pair[0] < pair[1]).count();
        assert!((4000..6000).contains(&rising), "{rising} of 10000 steps lead up");
        let mut steps: Vec<_> = flows.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
        steps.sort_unstable();
        steps.dedup();
        assert!(steps.len() > 1000, "only {} different steps", steps.len());
    }

    #[test]
    fn fresh_numbers_do_not_repeat_soon() {
        let mut all = Vec::new();
        for queue in 0..3 {
            all.extend(take(&mut Order::new(NUMBERS, queue, 3, true, 9).unwrap(), 100_000));
        }
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 300_000);
    }
}
