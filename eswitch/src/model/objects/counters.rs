//! Counters: what an application reads is not what was counted, but what the last refresh found.
//!
//! mlx5 never asks the silicon when a counter is queried. A background job copies counters into host memory,
//! and queries read the copy:
//!
//! * SWS: pools of 512 counters, one after the other, each about once a second (`mlx5_flow_query_alarm`).
//!   Here pools fall into [`PHASES_MAX`] classes whose refreshes are spread evenly over the period.
//! * HWS: all counters together, once a cycle of 500 ms (`mlx5_hws_cnt_svc`).
//!
//! No job runs here. A counter keeps its value at the start of the refresh period in which it was last hit,
//! and what has been added since. As soon as its class has been refreshed again, the latter is part of the
//! former; a hit or a query that notices settles the two. So a refresh of 16.7 million counters costs
//! nothing.
//!
//! A freed counter may still be counting what is in flight, so it becomes usable again only after a refresh.
//! Memory is taken in pools of 512, when a counter of the pool is first needed.

use dataplane::prefetch::prefetch;

use crate::model::refusal::{Cause, Errno, Refusal};
use crate::model::types::{CounterId, Steering, Tick};
use crate::model::warm;

/// Counters in a pool (`MLX5_COUNTERS_PER_POOL`).
pub const POOL: usize = 512;

/// Most classes of pools with a refresh time of their own.
pub const PHASES_MAX: usize = 64;

/// Refreshes of one class that a fault is asked about in one call.
const DRAWS_MAX: usize = 16;

const NONE: u32 = u32::MAX;

/// When values become visible, and when freed counters become usable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CounterTiming {
    /// Nanoseconds between two refreshes of a counter. 0: queries are exact, and reuse is immediate.
    pub refresh_ns: u64,
    /// Over how many points in time the refreshes of the pools are spread: a power of two up to
    /// [`PHASES_MAX`]; anything else is rounded down to one. 1: all at once.
    pub phases: u32,
    /// How many refreshes a freed counter waits for. 0 counts as 1.
    pub reuse_cycles: u32,
}

impl CounterTiming {
    /// SWS: pools take turns.
    #[must_use]
    pub const fn software(refresh_ns: u64) -> CounterTiming {
        CounterTiming { refresh_ns, phases: PHASES_MAX as u32, reuse_cycles: 1 }
    }

    /// HWS: all at once.
    #[must_use]
    pub const fn hardware(refresh_ns: u64) -> CounterTiming {
        CounterTiming { refresh_ns, phases: 1, reuse_cycles: 1 }
    }
}

/// What a query answers: `rte_flow_query_count`. mlx5 always sets both.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CountValue {
    /// Packets.
    pub hits: u64,
    /// Bytes of these packets.
    pub bytes: u64,
}

/// One counter, in half a cache line: what a packet touches.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(32))]
struct Slot {
    /// As of the start of refresh period `epoch`, less what a reset has taken off.
    seen: CountValue,
    /// Added since; not visible before the next refresh.
    pending_bytes: u64,
    pending_hits: u32,
    /// The refresh period of the last hit; for a free counter, of the time when it was freed.
    epoch: u32,
}

impl Slot {
    /// Makes visible what is pending.
    #[inline]
    fn settle(&mut self) {
        self.seen.hits = self.seen.hits.wrapping_add(u64::from(self.pending_hits));
        self.seen.bytes = self.seen.bytes.wrapping_add(self.pending_bytes);
        self.pending_hits = 0;
        self.pending_bytes = 0;
    }
}

/// What packets do not touch.
#[derive(Clone, Copy, Debug)]
struct Link {
    /// The next in the list of freed counters.
    next: u32,
    /// 0: free.
    references: u32,
}

const UNUSED: Link = Link { next: NONE, references: 0 };

/// The counters of a pool that have been in use, with room for the others: so that memory which was never
/// needed is never touched, and no call has to touch a whole pool's.
#[derive(Debug)]
struct Pool {
    slots: Vec<Slot>,
    links: Vec<Link>,
}

/// Freed counters of one class, oldest first: their refreshes come due in this order.
#[derive(Clone, Copy, Debug)]
struct Freed {
    head: u32,
    tail: u32,
}

/// The counters of a device, or of an HWS port's pool.
#[derive(Debug)]
pub struct Counters {
    steering: Steering,
    timing: CounterTiming,
    capacity: u32,
    /// The pools in use so far; identifiers are handed out in order.
    pools: Vec<Pool>,
    /// Pools for later.
    spare: Vec<Pool>,
    /// Identifiers below this have been used before.
    fresh: u32,
    live: u32,
    waiting: u32,
    /// By class: refreshes so far. Only compared for equality and distance, so it may wrap.
    epochs: [u32; PHASES_MAX],
    /// By class: when the next refresh is due.
    due: [u64; PHASES_MAX],
    /// The earliest of `due`.
    next_due: u64,
    freed: [Freed; PHASES_MAX],
    /// A bit per class: the oldest freed counter is usable again.
    ready: u64,
    /// Refreshes that will be lost.
    losing: u32,
    /// Fault: no more than so many in use.
    limit: u32,
}

impl Counters {
    /// `capacity` counters, none in use. Takes memory for the table of pools only.
    #[must_use]
    pub fn new(capacity: u32, timing: CounterTiming, steering: Steering) -> Counters {
        let phases = timing.phases.clamp(1, PHASES_MAX as u32);
        let phases = 1 << phases.ilog2();
        let timing = CounterTiming { phases, reuse_cycles: timing.reuse_cycles.max(1), ..timing };
        let mut counters = Counters {
            steering,
            timing,
            capacity,
            pools: Vec::with_capacity((capacity as usize).div_ceil(POOL)),
            spare: Vec::new(),
            fresh: 0,
            live: 0,
            waiting: 0,
            epochs: [0; PHASES_MAX],
            due: [u64::MAX; PHASES_MAX],
            next_due: u64::MAX,
            freed: [Freed { head: NONE, tail: NONE }; PHASES_MAX],
            ready: 0,
            losing: 0,
            limit: u32::MAX,
        };
        if timing.refresh_ns > 0 {
            for class in 0..phases {
                counters.due[class as usize] = first_refresh(class, phases, timing.refresh_ns);
            }
            counters.next_due = counters.due.iter().copied().min().unwrap_or(u64::MAX);
        }
        counters
    }

    /// Has memory ready for so many counters, or for all.
    pub fn reserve(&mut self, counters: u32) {
        let pools = (counters.min(self.capacity) as usize).div_ceil(POOL);
        while self.pools.len() + self.spare.len() < pools {
            let (slots, links) = (warm::touched(POOL, Slot::default), warm::touched(POOL, || UNUSED));
            self.spare.push(Pool { slots, links });
        }
    }

    /// A counter with one reference, at zero.
    ///
    /// # Errors
    /// None left. SWS: EAGAIN. HWS: EAGAIN if one will be usable after the next cycle, else ENOENT.
    pub fn alloc(&mut self, now: Tick) -> Result<CounterId, Refusal> {
        self.refresh(now);
        if self.live >= self.limit {
            return Err(self.exhausted());
        }
        let id = match self.reusable() {
            Some(id) => id,
            None if self.fresh < self.capacity => self.unused(),
            None => return Err(self.exhausted()),
        };
        let epoch = self.epochs[self.class(id)];
        let Some((pool, at)) = self.place(id) else { return Err(self.exhausted()) };
        pool.slots[at] = Slot { epoch, ..Slot::default() };
        pool.links[at].references = 1;
        self.live += 1;
        Ok(CounterId(id))
    }

    /// One more reference, from a rule that uses an indirect counter; whether there is such a counter.
    #[must_use]
    pub fn retain(&mut self, id: CounterId) -> bool {
        let Some((pool, at)) = self.place(id.0) else { return false };
        let used = pool.links[at].references > 0;
        if used {
            pool.links[at].references = pool.links[at].references.saturating_add(1);
        }
        used
    }

    /// One reference less. With the last one the counter is freed, to be used again after a refresh. A
    /// counter that is not in use is left alone.
    pub fn free(&mut self, now: Tick, id: CounterId) {
        self.refresh(now);
        let class = self.class(id.0);
        let epoch = self.epochs[class];
        let Some((pool, at)) = self.place(id.0) else { return };
        match pool.links[at].references {
            0 => return,
            1 => pool.links[at].references = 0,
            more => {
                pool.links[at].references = more - 1;
                return;
            }
        }
        pool.links[at].next = NONE;
        pool.slots[at].epoch = epoch;
        self.live -= 1;
        self.waiting += 1;
        let tail = std::mem::replace(&mut self.freed[class].tail, id.0);
        match self.place(tail) {
            Some((pool, at)) if tail != NONE => pool.links[at].next = id.0,
            _ => self.freed[class].head = id.0,
        }
        self.note_ready(class);
    }

    /// Destroys an indirect counter: gives up its handle's reference.
    ///
    /// # Errors
    /// EINVAL if it is not in use; EBUSY (SWS) if a rule uses it. HWS does not look; there the counter goes
    /// with its last rule.
    pub fn destroy(&mut self, now: Tick, id: CounterId) -> Result<(), Refusal> {
        let references = self.place(id.0).map_or(0, |(pool, at)| pool.links[at].references);
        if references == 0 {
            return Err(Refusal::new(Errno::Inval, Cause::Handle, "no such indirect counter"));
        }
        if references > 1 && self.steering == Steering::Software {
            return Err(Refusal::new(Errno::Busy, Cause::Actions, "the indirect counter is used by rules"));
        }
        self.free(now, id);
        Ok(())
    }

    /// Counts a packet of `bytes` bytes. Touches one cache line besides what is always in cache.
    #[inline]
    pub fn hit(&mut self, now: Tick, id: CounterId, bytes: u32) {
        if now.0 >= self.next_due {
            self.refresh(now);
        }
        let epoch = self.epochs[self.class(id.0)];
        let Some((pool, at)) = self.place(id.0) else { return };
        let slot = &mut pool.slots[at];
        // The second case only happens when time stands still for four billion packets.
        if slot.epoch != epoch || slot.pending_hits == u32::MAX {
            slot.settle();
            slot.epoch = epoch;
        }
        slot.pending_hits += 1;
        slot.pending_bytes = slot.pending_bytes.wrapping_add(u64::from(bytes));
    }

    /// Asks for the cache line that [`Counters::hit`] will touch.
    #[inline]
    pub fn prefetch(&self, id: CounterId) {
        let pool = self.pools.get(id.0 as usize / POOL);
        if let Some(slot) = pool.and_then(|pool| pool.slots.get(id.0 as usize % POOL)) {
            prefetch(slot);
        }
    }

    /// The value as of the last refresh, less what earlier resets took off. With `reset`, later answers start
    /// from this value; what came after the last refresh is not lost.
    ///
    /// # Errors
    /// EINVAL if the counter is not in use.
    pub fn query(&mut self, now: Tick, id: CounterId, reset: bool) -> Result<CountValue, Refusal> {
        self.refresh(now);
        let epoch = self.epochs[self.class(id.0)];
        let exact = self.timing.refresh_ns == 0;
        let slot = match self.place(id.0) {
            Some((pool, at)) if pool.links[at].references > 0 => &mut pool.slots[at],
            _ => return Err(Refusal::new(Errno::Inval, Cause::Unspecified, "the counter is not available")),
        };
        if slot.epoch != epoch || exact {
            slot.settle();
            slot.epoch = epoch;
        }
        let value = slot.seen;
        if reset {
            // mlx5 remembers a baseline and subtracts it from then on, which is the same.
            slot.seen = CountValue::default();
        }
        Ok(value)
    }

    /// Fault: the next `refreshes` refreshes (each of one class) are lost. What they would have shown, the
    /// ones after them show.
    pub fn lose_updates(&mut self, now: Tick, refreshes: u32) {
        self.refresh(now);
        self.losing = self.losing.saturating_add(refreshes);
    }

    /// Fault: no more than so many may be in use from now on; `None`: as many as there are.
    pub fn set_limit(&mut self, limit: Option<u32>) {
        self.limit = limit.unwrap_or(u32::MAX);
    }

    /// Does the refreshes that are due, with a fault: one for which `lose` says so is lost. It is only asked
    /// about those that no other call has done before, so call this first when time has passed.
    pub fn refresh_with(&mut self, now: Tick, lose: impl FnMut() -> bool) {
        if now.0 >= self.next_due {
            self.refresh_due(now.0, lose);
        }
    }

    /// Those in use, by number.
    pub fn in_use(&self) -> impl Iterator<Item = CounterId> {
        let used = |(at, link): (usize, &Link)| (link.references > 0).then_some(at);
        self.pools.iter().enumerate().flat_map(move |(pool, slots)| {
            let ids = slots.links.iter().enumerate().filter_map(used);
            ids.map(move |at| CounterId((pool * POOL + at) as u32))
        })
    }

    /// Counters in use.
    #[must_use]
    pub fn live(&self) -> u32 {
        self.live
    }

    /// Freed counters that are not in use again yet.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        self.waiting
    }

    /// Counters in all.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Refreshes so far, of the first pools (HWS: of all). Only whether it changes means something.
    #[must_use]
    pub fn cycle(&self) -> u32 {
        self.epochs[0]
    }

    /// When the last refresh of this counter was due; `Tick(0)` if there has been none, or if queries are
    /// exact. For tests and dumps.
    #[must_use]
    pub fn last_refresh(&self, now: Tick, id: CounterId) -> Tick {
        let (class, phases) = (self.class(id.0) as u32, self.timing.phases);
        let period = self.timing.refresh_ns;
        if period == 0 {
            return Tick(0);
        }
        let first = first_refresh(class, phases, period);
        if now.0 < first { Tick(0) } else { Tick(now.0 - (now.0 - first) % period) }
    }

    #[inline]
    fn class(&self, id: u32) -> usize {
        (id as usize / POOL) & (self.timing.phases as usize - 1) & (PHASES_MAX - 1)
    }

    #[inline]
    fn place(&mut self, id: u32) -> Option<(&mut Pool, usize)> {
        let (pool, at) = (self.pools.get_mut(id as usize / POOL)?, id as usize % POOL);
        (at < pool.slots.len()).then_some((pool, at))
    }

    /// Brings the classes' refreshes up to date.
    #[inline]
    fn refresh(&mut self, now: Tick) {
        if now.0 >= self.next_due {
            self.refresh_due(now.0, || false);
        }
    }

    #[cold]
    fn refresh_due(&mut self, now: u64, mut lose: impl FnMut() -> bool) {
        let period = self.timing.refresh_ns;
        self.next_due = u64::MAX;
        for class in 0..self.timing.phases as usize {
            if self.due[class] <= now {
                let passed = (now - self.due[class]) / period + 1;
                self.due[class] = self.due[class].saturating_add(passed.saturating_mul(period));
                let ordered = passed.min(u64::from(self.losing));
                self.losing -= ordered as u32;
                // After a long pause a few draws tell whether any refresh has come through.
                let drawn = (ordered..passed).take(DRAWS_MAX).filter(|_| lose()).count();
                let lost = ordered + drawn as u64;
                if passed > lost {
                    self.epochs[class] = self.epochs[class].wrapping_add(((passed - lost) as u32).max(1));
                    self.note_ready(class);
                }
            }
            self.next_due = self.next_due.min(self.due[class]);
        }
    }

    /// Finds out whether the oldest freed counter of this class is usable.
    fn note_ready(&mut self, class: usize) {
        let (epoch, cycles) = (self.epochs[class], self.timing.reuse_cycles);
        let immediate = self.timing.refresh_ns == 0;
        let ready = match (self.freed[class].head, self.place(self.freed[class].head)) {
            (NONE, _) | (_, None) => false,
            (_, Some((pool, at))) => immediate || epoch.wrapping_sub(pool.slots[at].epoch) >= cycles,
        };
        self.ready = self.ready & !(1 << class) | u64::from(ready) << class;
    }

    fn reusable(&mut self) -> Option<u32> {
        if self.ready == 0 {
            return None;
        }
        let class = self.ready.trailing_zeros() as usize;
        let id = self.freed[class].head;
        let next = self.place(id).map(|(pool, at)| pool.links[at].next)?;
        self.freed[class].head = next;
        if next == NONE {
            self.freed[class].tail = NONE;
        }
        self.waiting -= 1;
        self.note_ready(class);
        Some(id)
    }

    fn unused(&mut self) -> u32 {
        let id = self.fresh;
        self.fresh += 1;
        if id as usize / POOL == self.pools.len() {
            let new = || Pool { slots: Vec::with_capacity(POOL), links: Vec::with_capacity(POOL) };
            self.pools.push(self.spare.pop().unwrap_or_else(new));
        }
        if let Some(pool) = self.pools.last_mut() {
            pool.slots.push(Slot::default());
            pool.links.push(UNUSED);
        }
        id
    }

    fn exhausted(&self) -> Refusal {
        let errno = match self.steering {
            Steering::Hardware if self.waiting == 0 => Errno::Noent,
            _ => Errno::Again,
        };
        Refusal::new(errno, Cause::Unspecified, "no counter is free")
    }
}

/// When a class is first refreshed. Bit reversal spreads the first few classes, too.
fn first_refresh(class: u32, phases: u32, period: u64) -> u64 {
    let reversed = match phases.trailing_zeros() {
        0 => 0,
        bits => class.reverse_bits() >> (32 - bits),
    };
    match (u128::from(period) * u128::from(reversed) / u128::from(phases)) as u64 {
        0 => period,
        phase => phase,
    }
}

const _: () = assert!(size_of::<Slot>() == 32 && align_of::<Slot>() == 32);

#[cfg(test)]
mod tests;
