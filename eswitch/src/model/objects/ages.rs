//! Age contexts: how long a rule, or the rules that share one, has not been hit.
//!
//! mlx5 does not time packets. At every check (SWS: each second; HWS: each counter cycle) it looks whether
//! there was a hit since the check before. If so, the idle time becomes 0; else the seconds between the two
//! checks are added to it. More than the timeout, strictly, and the context has aged: with checks each
//! second, between `timeout` and `timeout + 2` seconds after the last hit.
//!
//! ```text
//!  alloc ──> Candidate ──check: idle > timeout──> Aged ──aged(), HWS──> Reported
//!                ^                                 │ (SWS stays here)      │
//!                └──────── update(), HWS only ─────┴───────────────────────┘
//! ```
//!
//! Aged is sticky: later hits do not bring a context back.
//!
//! A hit stores the time, no more. [`Ages::advance`] walks over all contexts once per check, as many in a
//! call as it is allowed to. It knows when the checks would have been, so a walk that comes late answers like
//! one in time; what it cannot see is idleness that ended before it came.

use dataplane::prefetch::prefetch;

use super::refuse_flow;
use crate::model::refusal::{Cause, Errno, Refusal};
use crate::model::types::{AgeId, Steering, Tick, Vport};
use crate::model::warm;

/// Contexts for which memory is taken at once.
const CHUNK: usize = 1024;
const NONE: u32 = u32::MAX;
/// No hit since the last check.
const NO_HIT: u64 = u64::MAX;

/// How ageing behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AgeTiming {
    /// Nanoseconds between two checks. 0 counts as 1.
    pub tick_ns: u64,
    /// HWS: how many aged contexts a port (or a queue of its own) can hold until they are fetched; those
    /// beyond wait for a later check. mlx5 has a hundredth of the counters. 0: no limit.
    pub list_max: u32,
    /// SWS: answer like mlx5 when contexts of [`HitSource::Bit`] fill the caller's array exactly, which is
    /// a number larger than the array. Off: the number written.
    pub overlong_return: bool,
}

/// How hits are noticed. Both kinds age alike; SWS reports them from two lists.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HitSource {
    /// SWS, AGE without COUNT: a bit that packets set.
    Bit,
    /// AGE with COUNT, and all of HWS: the rule's counter has changed.
    Counter,
}

/// What a query answers: `rte_flow_query_age`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AgeValue {
    /// It has aged.
    pub aged: bool,
    /// Seconds without a hit; `None` once it has aged.
    pub sec_since_last_hit: Option<u32>,
}

/// How far the aged contexts of a port have been fetched.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AgedCursor(Option<(HitSource, u32)>);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Free,
    /// Under observation.
    Candidate,
    /// In a list of its port.
    Aged,
    /// HWS: handed to the application.
    Reported,
    /// HWS: destroyed by the application while rules use it.
    Retired,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    context: u64,
    /// 0: does not age.
    timeout_s: u32,
    /// Candidate: the seconds' count at the check that the idle time counts from. Aged: the idle time,
    /// frozen.
    since_s: u32,
    /// Neighbours in the list of aged contexts, or the next free one.
    next: u32,
    previous: u32,
    references: u32,
    port: u16,
    queue: u16,
    state: State,
    source: HitSource,
}

const FREE: Slot = Slot {
    context: 0,
    timeout_s: 0,
    since_s: 0,
    next: NONE,
    previous: NONE,
    references: 0,
    port: 0,
    queue: 0,
    state: State::Free,
    source: HitSource::Bit,
};

/// The contexts of a chunk that have been in use, with room for the others. Hit times are apart from the
/// rest, since packets touch nothing else.
#[derive(Debug)]
struct Chunk {
    hits: Vec<u64>,
    slots: Vec<Slot>,
    live: u32,
}

/// Aged contexts, doubly linked through their slots.
#[derive(Clone, Copy, Debug)]
struct List {
    head: u32,
    tail: u32,
    len: u32,
}

const EMPTY: List = List { head: NONE, tail: NONE, len: 0 };

#[derive(Debug)]
struct Port {
    bits: List,
    counted: List,
    /// STRICT_QUEUE: a list per queue instead.
    queues: Option<Vec<List>>,
    /// The next context that ages raises an event.
    armed: bool,
}

impl Port {
    const fn new() -> Port {
        Port { bits: EMPTY, counted: EMPTY, queues: None, armed: true }
    }

    fn list(&mut self, source: HitSource, queue: u16) -> &mut List {
        if let Some(queues) = &mut self.queues {
            if let Some(list) = queues.get_mut(usize::from(queue)) {
                return list;
            }
        }
        match source {
            HitSource::Bit => &mut self.bits,
            HitSource::Counter => &mut self.counted,
        }
    }
}

/// The moment of the latest check.
#[derive(Clone, Copy, Debug)]
struct Check {
    number: u64,
    seconds: u32,
}

/// The age contexts of a device.
#[derive(Debug)]
pub struct Ages {
    steering: Steering,
    timing: AgeTiming,
    capacity: u32,
    chunks: Vec<Chunk>,
    /// Chunks for later.
    spare: Vec<Chunk>,
    /// Identifiers below this have been used before.
    fresh: u32,
    free_head: u32,
    live: u32,
    ports: Vec<Port>,
    events: Vec<Vport>,
    /// Fault: no more than so many in use.
    limit: u32,
    /// The walk: where it is, and the check it started for. `None`: it is complete for `walked`.
    cursor: Option<u32>,
    walked: u64,
}

impl Ages {
    /// `capacity` contexts, none in use.
    #[must_use]
    pub fn new(capacity: u32, timing: AgeTiming, steering: Steering) -> Ages {
        Ages {
            steering,
            timing: AgeTiming { tick_ns: timing.tick_ns.max(1), ..timing },
            capacity,
            chunks: Vec::with_capacity((capacity as usize).div_ceil(CHUNK)),
            spare: Vec::new(),
            fresh: 0,
            free_head: NONE,
            live: 0,
            ports: Vec::new(),
            events: Vec::new(),
            limit: u32::MAX,
            cursor: None,
            walked: 0,
        }
    }

    /// Has memory ready for so many contexts, or for all.
    pub fn reserve(&mut self, contexts: u32) {
        let chunks = (contexts.min(self.capacity) as usize).div_ceil(CHUNK);
        while self.chunks.len() + self.spare.len() < chunks {
            let (hits, slots) = (warm::touched(CHUNK, || NO_HIT), warm::touched(CHUNK, || FREE));
            self.spare.push(Chunk { hits, slots, live: 0 });
        }
    }

    /// HWS: how this port's aged contexts are fetched. `strict_queues`: the number of flow queues, if the
    /// port was configured with STRICT_QUEUE. `list_max`: as in [`AgeTiming`], from now on. Call it before
    /// the port's first context.
    pub fn configure(&mut self, port: Vport, strict_queues: Option<u16>, list_max: u32) {
        self.timing.list_max = list_max;
        self.port(port.0).queues = strict_queues.map(|queues| vec![EMPTY; usize::from(queues)]);
    }

    /// A context with one reference, not idle yet. `queue`: the flow queue on which its rule was made, or
    /// `None` (SWS, and an indirect action made synchronously).
    ///
    /// # Errors
    /// ENOMEM if none is left.
    pub fn alloc(
        &mut self,
        now: Tick,
        timeout_s: u32,
        context: u64,
        owner: Vport,
        queue: Option<u16>,
        source: HitSource,
    ) -> Result<AgeId, Refusal> {
        let full = Refusal::new(Errno::Nomem, Cause::Actions, "no age context is free");
        let id = match self.free_head {
            _ if self.live >= self.limit => return Err(full),
            NONE if self.fresh < self.capacity => self.unused(),
            NONE => return Err(full),
            id => id,
        };
        let since_s = self.check(now).seconds;
        self.port(owner.0);
        let Some((chunk, at)) = self.place(id) else { return Err(full) };
        let next = chunk.slots[at].next;
        chunk.hits[at] = NO_HIT;
        chunk.slots[at] = Slot {
            context,
            timeout_s,
            since_s,
            references: 1,
            port: owner.0,
            queue: queue.unwrap_or(u16::MAX),
            state: State::Candidate,
            source,
            ..FREE
        };
        chunk.live += 1;
        if self.free_head == id {
            self.free_head = next;
        }
        self.live += 1;
        Ok(AgeId(id))
    }

    /// One more reference, from a rule that uses an indirect context; whether there is such a context.
    #[must_use]
    pub fn retain(&mut self, id: AgeId) -> bool {
        let Some(slot) = self.slot(id.0) else { return false };
        let used = !matches!(slot.state, State::Free | State::Retired);
        if used {
            slot.references = slot.references.saturating_add(1);
        }
        used
    }

    /// One reference less; with the last one the context is gone, and no longer reported.
    pub fn free(&mut self, id: AgeId) {
        let Some(slot) = self.slot(id.0) else { return };
        match (slot.state, slot.references) {
            (State::Free, _) => return,
            (_, 0 | 1) => {}
            (_, more) => {
                slot.references = more - 1;
                return;
            }
        }
        self.unlink(id.0);
        let head = std::mem::replace(&mut self.free_head, id.0);
        if let Some((chunk, at)) = self.place(id.0) {
            chunk.slots[at] = Slot { next: head, ..FREE };
            chunk.live -= 1;
        }
        self.live -= 1;
    }

    /// Destroys an indirect context, also one in use. SWS: it lives on until its last rule goes, and is
    /// reported until then. HWS: it is not reported from now on.
    ///
    /// # Errors
    /// EINVAL if it is not in use, or (HWS) has been destroyed.
    pub fn destroy(&mut self, id: AgeId) -> Result<(), Refusal> {
        if self.slot(id.0).is_none_or(|slot| matches!(slot.state, State::Free | State::Retired)) {
            return Err(Refusal::new(Errno::Inval, Cause::Handle, "no such indirect age context"));
        }
        if self.steering == Steering::Hardware {
            self.unlink(id.0);
            if let Some(slot) = self.slot(id.0) {
                slot.state = State::Retired;
            }
        }
        self.free(id);
        Ok(())
    }

    /// Fault: no more than so many may be in use from now on; `None`: as many as there are.
    pub fn set_limit(&mut self, limit: Option<u32>) {
        self.limit = limit.unwrap_or(u32::MAX);
    }

    /// A packet hit it. One store.
    #[inline]
    pub fn hit(&mut self, now: Tick, id: AgeId) {
        let chunk = self.chunks.get_mut(id.0 as usize / CHUNK);
        if let Some(hit) = chunk.and_then(|chunk| chunk.hits.get_mut(id.0 as usize % CHUNK)) {
            *hit = now.0;
        }
    }

    /// Asks for the cache line that [`Ages::hit`] will touch.
    #[inline]
    pub fn prefetch(&self, id: AgeId) {
        let chunk = self.chunks.get(id.0 as usize / CHUNK);
        if let Some(hit) = chunk.and_then(|chunk| chunk.hits.get(id.0 as usize % CHUNK)) {
            prefetch(hit);
        }
    }

    /// Goes on looking for contexts that have aged: `budget` steps at most, each one context, or 1,024
    /// places for one that are all empty. True if there is more to do for the latest check. To find all in
    /// time, `budget` times the calls in a tick must exceed the number of contexts.
    pub fn advance(&mut self, now: Tick, budget: usize) -> bool {
        self.advance_with(now, budget, |_| false)
    }

    /// As [`Ages::advance`], with a fault: contexts for which `early` says so age although they are not idle.
    pub fn advance_with(&mut self, now: Tick, budget: usize, mut early: impl FnMut(AgeId) -> bool) -> bool {
        let check = self.check(now);
        for _ in 0..budget {
            let id = match self.cursor {
                Some(id) => id,
                None if self.walked < check.number => {
                    self.walked = check.number;
                    0
                }
                None => return false,
            };
            if id >= self.fresh {
                self.cursor = None;
                continue;
            }
            self.cursor = Some(id + 1);
            if self.chunks[id as usize / CHUNK].live == 0 {
                self.cursor = Some((id / CHUNK as u32 + 1) * CHUNK as u32);
                continue;
            }
            self.examine(check, id);
            if self.is_candidate(id) && early(AgeId(id)) {
                self.expire(AgeId(id));
            }
        }
        self.cursor.is_some() || self.walked < check.number
    }

    /// Fault: it ages now, idle or not.
    pub fn expire(&mut self, id: AgeId) {
        if self.is_candidate(id.0) {
            let timeout_s = self.slot(id.0).map_or(0, |slot| slot.timeout_s);
            self.age(id.0, timeout_s.wrapping_add(1));
        }
    }

    /// Contexts of this port that have aged, into `out`; how many there were. With an empty `out`: how many
    /// there are.
    ///
    /// SWS: those that packets mark first, latest first, then those with a counter, oldest first, the same on
    /// each call until they are freed. HWS: oldest first, each once.
    ///
    /// The next context to age raises an event again.
    ///
    /// # Errors
    /// `queue` (`rte_flow_get_q_aged_flows`) with SWS: ENOTSUP. HWS: ENOENT if there are no contexts at all;
    /// EINVAL without a queue, or with one that does not exist, on a port with STRICT_QUEUE.
    pub fn aged(&mut self, port: Vport, queue: Option<u16>, out: &mut [u64]) -> Result<usize, Refusal> {
        if self.steering == Steering::Software && out.is_empty() && queue.is_none() {
            let state = self.port(port.0);
            state.armed = true;
            return Ok((state.bits.len + state.counted.len) as usize);
        }
        let written = self.aged_slice(port, queue, &mut AgedCursor::default(), out)?;
        Ok(self.aged_answer(port, out.len(), written))
    }

    /// As [`Ages::aged`], for those who fetch many and do not want to keep others waiting: what `from` has
    /// not seen yet, as far as there is room. Fewer than that: there are no more. The answer to the whole is
    /// [`Ages::aged_answer`].
    ///
    /// # Errors
    /// As [`Ages::aged`].
    pub fn aged_slice(
        &mut self,
        port: Vport,
        queue: Option<u16>,
        from: &mut AgedCursor,
        out: &mut [u64],
    ) -> Result<usize, Refusal> {
        if self.steering == Steering::Software {
            if queue.is_some() {
                return Err(refuse_flow(Errno::Notsup, "there are no flow queues"));
            }
            self.port(port.0).armed = true;
            return Ok(self.aged_again(port, from, out));
        }
        if self.capacity == 0 {
            return Err(refuse_flow(Errno::Noent, "no age contexts were configured"));
        }
        let state = self.port(port.0);
        let queue = match (&state.queues, queue) {
            (None, _) => u16::MAX,
            (Some(_), None) => return Err(refuse_flow(Errno::Inval, "with STRICT_QUEUE, name the queue")),
            (Some(queues), Some(queue)) if usize::from(queue) >= queues.len() => {
                return Err(refuse_flow(Errno::Inval, "no such queue"));
            }
            (Some(_), Some(queue)) => queue,
        };
        state.armed |= state.queues.is_none();
        if out.is_empty() {
            return Ok(state.list(HitSource::Counter, queue).len as usize);
        }
        Ok(self.aged_once(port, queue, out))
    }

    /// What to answer when so many were written where there was so much room: more, if it is to be overlong.
    pub fn aged_answer(&mut self, port: Vport, room: usize, written: usize) -> usize {
        let overlong = self.steering == Steering::Software && self.timing.overlong_return && room > 0;
        let Port { bits, counted, .. } = *self.port(port.0);
        if overlong && bits.len as usize >= room { room + counted.len as usize } else { written }
    }

    /// The state of one context. Up to date, whether or not the walk has come by.
    ///
    /// # Errors
    /// EINVAL if it is not in use, or does not age (a timeout of 0).
    pub fn query(&mut self, now: Tick, id: AgeId) -> Result<AgeValue, Refusal> {
        let check = self.check(now);
        self.catch_up(check, id.0);
        match self.slot(id.0) {
            Some(slot) if slot.timeout_s > 0 => match slot.state {
                State::Candidate => Ok(AgeValue {
                    aged: false,
                    sec_since_last_hit: Some(check.seconds.wrapping_sub(slot.since_s)),
                }),
                State::Aged | State::Reported => Ok(AgeValue { aged: true, sec_since_last_hit: None }),
                State::Free | State::Retired => Err(refuse_flow(Errno::Inval, "the age context is gone")),
            },
            _ => Err(refuse_flow(Errno::Inval, "there is no age to read")),
        }
    }

    /// Its timeout, in seconds; 0 if it is not in use or does not age.
    #[must_use]
    pub fn timeout(&mut self, id: AgeId) -> u32 {
        self.slot(id.0).map_or(0, |slot| slot.timeout_s)
    }

    /// Changes an indirect context: `rte_flow_update_age`. A longer timeout, 0 (which turns ageing off) or
    /// `touch` brings an aged one back; `touch`, or a first timeout, also sets the idle time to 0.
    ///
    /// # Errors
    /// SWS: ENOTSUP. EINVAL if it is not in use.
    pub fn update(
        &mut self,
        now: Tick,
        id: AgeId,
        timeout_s: Option<u32>,
        touch: bool,
    ) -> Result<(), Refusal> {
        if self.steering == Steering::Software {
            return Err(Refusal::new(Errno::Notsup, Cause::Actions, "this action cannot be updated"));
        }
        let check = self.check(now);
        self.catch_up(check, id.0);
        let slot = match self.slot(id.0) {
            Some(slot) if !matches!(slot.state, State::Free | State::Retired) => slot,
            _ => return Err(refuse_flow(Errno::Inval, "the age context is gone")),
        };
        let old = slot.timeout_s;
        let new = timeout_s.unwrap_or(old);
        slot.timeout_s = new;
        let reset = touch || (timeout_s.is_some() && old == 0);
        let revive = touch || (timeout_s.is_some() && old != 0 && (new > old || new == 0));
        let aged = slot.state != State::Candidate;
        match (aged, reset) {
            (false, false) => return Ok(()),
            (false, true) => slot.since_s = check.seconds,
            (true, true) => slot.since_s = 0,
            (true, false) => {}
        }
        if aged && revive {
            self.unlink(id.0);
            if let Some(slot) = self.slot(id.0) {
                slot.state = State::Candidate;
                slot.since_s = check.seconds.wrapping_sub(slot.since_s);
            }
        }
        Ok(())
    }

    /// Ports on which contexts have aged since [`Ages::aged`] was last called there: one event each
    /// (`RTE_ETH_EVENT_FLOW_AGED`).
    pub fn take_events(&mut self) -> Vec<Vport> {
        std::mem::take(&mut self.events)
    }

    /// Those in use, by number.
    pub fn in_use(&self) -> impl Iterator<Item = AgeId> {
        let used = |(at, slot): (usize, &Slot)| (slot.state != State::Free).then_some(at);
        self.chunks.iter().enumerate().flat_map(move |(chunk, slots)| {
            let ids = slots.slots.iter().enumerate().filter_map(used);
            ids.map(move |at| AgeId((chunk * CHUNK + at) as u32))
        })
    }

    /// Contexts in use.
    #[must_use]
    pub fn live(&self) -> u32 {
        self.live
    }

    /// Contexts in all.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    fn check(&self, now: Tick) -> Check {
        let number = now.0 / self.timing.tick_ns;
        Check { number, seconds: seconds(number, self.timing.tick_ns) }
    }

    #[inline]
    fn place(&mut self, id: u32) -> Option<(&mut Chunk, usize)> {
        let (chunk, at) = (self.chunks.get_mut(id as usize / CHUNK)?, id as usize % CHUNK);
        (at < chunk.slots.len()).then_some((chunk, at))
    }

    fn slot(&mut self, id: u32) -> Option<&mut Slot> {
        self.place(id).map(|(chunk, at)| &mut chunk.slots[at])
    }

    fn is_candidate(&mut self, id: u32) -> bool {
        self.slot(id).is_some_and(|slot| slot.state == State::Candidate && slot.timeout_s > 0)
    }

    fn port(&mut self, port: u16) -> &mut Port {
        let index = usize::from(port);
        if index >= self.ports.len() {
            self.ports.resize_with(index + 1, Port::new);
        }
        &mut self.ports[index]
    }

    fn unused(&mut self) -> u32 {
        let id = self.fresh;
        self.fresh += 1;
        if id as usize / CHUNK == self.chunks.len() {
            let new = || Chunk { hits: Vec::with_capacity(CHUNK), slots: Vec::with_capacity(CHUNK), live: 0 };
            self.chunks.push(self.spare.pop().unwrap_or_else(new));
        }
        if let Some(chunk) = self.chunks.last_mut() {
            chunk.hits.push(NO_HIT);
            chunk.slots.push(FREE);
        }
        id
    }

    /// Does to one context what the checks up to this one would have done.
    fn examine(&mut self, check: Check, id: u32) {
        let tick_ns = self.timing.tick_ns;
        let Some((chunk, at)) = self.place(id) else { return };
        let slot = &mut chunk.slots[at];
        if slot.state != State::Candidate {
            return;
        }
        let hit = std::mem::replace(&mut chunk.hits[at], NO_HIT);
        if hit != NO_HIT {
            // A hit after the check, but before the walk came by, may have covered one before it.
            let seen = (hit / tick_ns + 1).min(check.number);
            slot.since_s = seconds(seen, tick_ns);
        }
        let idle = check.seconds.wrapping_sub(slot.since_s);
        if slot.timeout_s > 0 && idle > slot.timeout_s {
            self.age(id, idle);
        }
    }

    /// Examines one context out of turn, unless the walk has been there since the last check: between checks
    /// nothing is learnt.
    fn catch_up(&mut self, check: Check, id: u32) {
        let visited = self.walked == check.number && self.cursor.is_none_or(|cursor| cursor > id);
        if !visited {
            self.examine(check, id);
        }
    }

    /// Candidate to aged, if there is room in the list.
    fn age(&mut self, id: u32, idle: u32) {
        let Some(&mut Slot { port, queue, source, .. }) = self.slot(id) else { return };
        let hardware = self.steering == Steering::Hardware;
        let source = if hardware { HitSource::Counter } else { source };
        let list_max = if hardware { self.timing.list_max } else { 0 };
        let state = self.port(port);
        let strict = state.queues.is_some();
        let list = state.list(source, queue);
        if list_max > 0 && list.len >= list_max {
            return;
        }
        // mlx5 has a stack for the one kind, a queue for the other.
        let at_head = source == HitSource::Bit;
        let (previous, next) = if at_head { (NONE, list.head) } else { (list.tail, NONE) };
        list.len += 1;
        if previous == NONE {
            list.head = id;
        }
        if next == NONE {
            list.tail = id;
        }
        let event = !strict && std::mem::take(&mut state.armed);
        if event && !self.events.contains(&Vport(port)) {
            self.events.push(Vport(port));
        }
        self.neighbours(previous, next, id, id);
        if let Some(slot) = self.slot(id) {
            *slot = Slot { state: State::Aged, since_s: idle, source, previous, next, ..*slot };
        }
    }

    /// Takes it out of its list, if it is in one; it is then as good as reported.
    fn unlink(&mut self, id: u32) {
        let Some(&mut Slot { state, port, queue, source, previous, next, .. }) = self.slot(id) else {
            return;
        };
        if state != State::Aged {
            return;
        }
        let list = self.port(port).list(source, queue);
        list.len -= 1;
        if previous == NONE {
            list.head = next;
        }
        if next == NONE {
            list.tail = previous;
        }
        self.neighbours(previous, next, next, previous);
        if let Some(slot) = self.slot(id) {
            *slot = Slot { state: State::Reported, previous: NONE, next: NONE, ..*slot };
        }
    }

    /// Makes `after` follow `previous`, and `before` precede `next`.
    fn neighbours(&mut self, previous: u32, next: u32, after: u32, before: u32) {
        if previous != NONE {
            if let Some(slot) = self.slot(previous) {
                slot.next = after;
            }
        }
        if next != NONE {
            if let Some(slot) = self.slot(next) {
                slot.previous = before;
            }
        }
    }

    fn aged_again(&mut self, port: Vport, from: &mut AgedCursor, out: &mut [u64]) -> usize {
        let Port { bits, counted, .. } = *self.port(port.0);
        let (mut source, mut id) = from.0.unwrap_or((HitSource::Bit, bits.head));
        let mut written = 0;
        while written < out.len() {
            if source == HitSource::Bit && id == NONE {
                (source, id) = (HitSource::Counter, counted.head);
            }
            let listed =
                |slot: &&mut Slot| (slot.state, slot.source, slot.port) == (State::Aged, source, port.0);
            // One that was freed since the last slice ends the answer: the next call tells of the others.
            let Some(slot) = self.slot(id).filter(listed) else { break };
            out[written] = slot.context;
            id = slot.next;
            written += 1;
        }
        from.0 = Some((source, id));
        written
    }

    fn aged_once(&mut self, port: Vport, queue: u16, out: &mut [u64]) -> usize {
        for (written, to) in out.iter_mut().enumerate() {
            let id = self.port(port.0).list(HitSource::Counter, queue).head;
            let Some(slot) = self.slot(id) else { return written };
            *to = slot.context;
            self.unlink(id);
        }
        out.len()
    }
}

/// The seconds' count at a check: mlx5 adds differences of a clock that shows whole seconds.
const fn seconds(check: u64, tick_ns: u64) -> u32 {
    (check.saturating_mul(tick_ns) / Tick::SECOND) as u32
}

#[cfg(test)]
mod tests;
