//! The device's end of a flow queue.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::super::faults::Faults;
use super::super::profile::Profile;
use super::super::timing::{Rng, Timing};
use super::super::types::{RuleHandle, RuleId, Tick};
use super::{Command, Credits, Done, DoneKind, Installer, Joint, Needs, Operation, Owner, QueueAttr, Word};

/// How far a completion can overtake others, on request.
const REORDER_WINDOW: usize = 16;

/// Tables up to so many rules have no collisions (`MLX5DR_MATCHER_ASSURED_RULES_TH`, mlx5dr_matcher.h:
/// 2^10).
const ASSURED_RULES: u32 = 1 << 10;

/// Slots in a piece of the rules' index.
const PIECE: usize = 1024;

/// What a queue has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct QueueStatistics {
    /// Rules installed.
    pub created: u64,
    /// Rules removed.
    pub destroyed: u64,
    /// Creations that the device refused.
    pub refused: u64,
    /// Creations that found no place in their table.
    pub collided: u64,
    /// Creations failed on request.
    pub failed: u64,
    /// Completions lost on request.
    pub lost: u64,
    /// Completions that overtook others on request.
    pub reordered: u64,
}

/// The device's end of a flow queue.
#[derive(Debug)]
pub struct QueueEngine<R> {
    attr: QueueAttr,
    joint: Arc<Joint<R>>,
    credits: Arc<Credits>,
    timing: Timing,
    /// For collisions.
    rng: Rng,
    collide_from_percent: u32,
    collide_full_percent: u32,
    epoch: u32,
    /// Commands that may be taken, and since when.
    allowed: u32,
    allowed_at: Tick,
    /// When the operation before will have been executed, and the next can begin.
    free_at: Tick,
    /// When the operation before takes effect, or took: none overtakes another, however seldom or often the
    /// device is asked to step.
    active_at: Tick,
    /// Executed, but packets have not noticed. In order.
    in_flight: VecDeque<(Tick, u64, Command<R>)>,
    /// Took effect, and the completion is on its way. In order of time.
    late: VecDeque<Late>,
    /// Destructions that were reported, in order: what to free when they are pulled.
    removed: VecDeque<(Option<RuleId>, Needs)>,
    /// How many of those were freed.
    released: u32,
    rules: Index,
    /// Rules installed and not removed.
    live: u32,
    statistics: QueueStatistics,
}

#[derive(Clone, Copy, Debug)]
struct Late {
    visible_at: Tick,
    done: Done,
    rule: Option<RuleId>,
    needs: Needs,
}

impl<R> QueueEngine<R> {
    /// With memory for so many rules.
    pub(in crate::model) fn reserving(mut self, rules: u32) -> QueueEngine<R> {
        self.rules.0.resize_with((rules as usize).div_ceil(PIECE), empty_piece);
        self
    }

    pub(super) fn new(
        attr: QueueAttr,
        joint: Arc<Joint<R>>,
        credits: Arc<Credits>,
        profile: &Profile,
        seed: u64,
    ) -> QueueEngine<R> {
        QueueEngine {
            attr,
            epoch: joint.word().epoch,
            joint,
            credits,
            timing: Timing::new(profile, seed),
            rng: Rng::new(seed.rotate_left(32)),
            collide_from_percent: profile.collide_from_percent,
            collide_full_percent: profile.collide_full_percent,
            allowed: 0,
            allowed_at: Tick(0),
            free_at: Tick(0),
            active_at: Tick(0),
            in_flight: VecDeque::new(),
            late: VecDeque::new(),
            removed: VecDeque::new(),
            released: 0,
            rules: Index::default(),
            live: 0,
            statistics: QueueStatistics::default(),
        }
    }

    /// What it was made as.
    #[must_use]
    pub fn attr(&self) -> QueueAttr {
        self.attr
    }

    /// What it has done.
    #[must_use]
    pub fn statistics(&self) -> QueueStatistics {
        self.statistics
    }

    /// The rule that a handle names; `None` if it is not installed, or not of this queue.
    #[must_use]
    pub fn rule(&self, handle: RuleHandle) -> Option<RuleId> {
        if handle.queue() != Some(self.attr.queue) {
            return None;
        }
        let entry = self.rules.get(handle.slot()?)?;
        (entry.epoch == self.epoch && entry.generation == handle.generation()).then_some(entry.rule?)
    }

    /// When something is due next; `None` if nothing is under way. Now, or in the past: step.
    #[must_use]
    pub fn next_due(&self) -> Option<Tick> {
        let released = Word { epoch: self.epoch, pulled: self.released };
        let at_once = self.joint.word() != released;
        let waiting = (self.allowed > 0 || !self.joint.doorbells.is_empty()).then_some(self.free_at);
        let in_flight = self.in_flight.front().map(|(active_at, ..)| *active_at);
        let late = self.late.front().map(|late| late.visible_at);
        [at_once.then_some(Tick(0)), waiting, in_flight, late].into_iter().flatten().min()
    }

    /// Whether nothing is left of what came through it: no rule, no operation that was enqueued and has not
    /// been pulled. First does what pulling has made possible.
    pub fn is_idle(&mut self, now: Tick, device: &mut impl Installer<R>) -> bool {
        while self.release(now, device) {}
        let under_way = self.in_flight.iter().any(|(_, _, command)| command.epoch == self.epoch)
            || self.late.iter().any(|late| late.done.epoch == self.epoch);
        let Joint { commands, doorbells, completions, .. } = &*self.joint;
        let waiting = !commands.is_empty() || !doorbells.is_empty() || !completions.is_empty();
        self.live == 0 && !under_way && !waiting
    }

    /// Carries out what is due, in at most `budget` pieces of work; an operation is up to five: allowed,
    /// taken, put into force, reported, and (after it was pulled) released. True: there may be more that is
    /// due.
    pub fn step(
        &mut self,
        now: Tick,
        budget: usize,
        device: &mut impl Installer<R>,
        faults: &mut Faults,
    ) -> bool {
        self.work(now, budget, device, faults).1
    }

    /// As [`QueueEngine::step`]; also tells how many pieces of work it did.
    pub fn work(
        &mut self,
        now: Tick,
        budget: usize,
        device: &mut impl Installer<R>,
        faults: &mut Faults,
    ) -> (usize, bool) {
        self.joint.refuse.store(faults.refuse.parts(), Ordering::Relaxed);
        for done in 0..budget {
            // Releasing comes first, so that what was pulled before an operation was enqueued is free when
            // that operation is carried out.
            let worked = self.release(now, device)
                || self.put_in_force(now, device, faults)
                || self.take(now, device, faults)
                || self.report(now);
            if !worked {
                return (done, false);
            }
        }
        (budget, true)
    }

    /// The port stops: forgets all rules and operations, and lets the application's end know. The device
    /// frees the rules itself: all those that it installed for this queue and has not been told to release.
    pub fn invalidate(&mut self, now: Tick) {
        let epoch = self.epoch.wrapping_add(1);
        let ended = loop {
            let word = self.joint.word();
            if self.joint.advance(word, Word { epoch, pulled: 0 }) {
                break word;
            }
        };
        // Pulled, hence no more the application's to give back, but not yet released.
        let pulled = ended.pulled.wrapping_sub(self.released) as usize;
        for (_, needs) in self.removed.drain(..).take(pulled) {
            self.credits.give(needs);
        }
        self.epoch = epoch;
        self.live = 0;
        self.released = 0;
        self.allowed = 0;
        self.free_at = now;
        self.active_at = now;
    }

    /// Nothing more takes effect or is reported before then: the device hangs.
    pub fn stall(&mut self, until: Tick) {
        self.free_at = self.free_at.max(until);
        self.active_at = self.active_at.max(until);
        self.in_flight.iter_mut().for_each(|(active_at, ..)| *active_at = (*active_at).max(until));
        self.late.iter_mut().for_each(|late| late.visible_at = late.visible_at.max(until));
    }

    fn release(&mut self, now: Tick, device: &mut impl Installer<R>) -> bool {
        if self.joint.word().pulled == self.released {
            return false;
        }
        self.released = self.released.wrapping_add(1);
        if let Some((rule, needs)) = self.removed.pop_front() {
            match rule {
                Some(rule) => {
                    device.release(now, rule);
                    self.credits.retire(needs);
                }
                // It has never been there, so its counter has not counted.
                None => self.credits.give(needs),
            }
        }
        true
    }

    /// Takes the next command, when the one before has been executed.
    fn take(&mut self, now: Tick, device: &mut impl Installer<R>, faults: &mut Faults) -> bool {
        if self.free_at > now {
            return false;
        }
        if self.allowed == 0 {
            let Some(doorbell) = self.joint.doorbells.pop() else { return false };
            if doorbell.epoch == self.epoch {
                (self.allowed, self.allowed_at) = (doorbell.commands, doorbell.at);
            }
            return true;
        }
        let Some(command) = self.joint.commands.pop() else { return false };
        self.allowed -= 1;
        let [cost, latency, completion] = match command.operation {
            Operation::Create { .. } => self.timing.creation(),
            Operation::Destroy { .. } => self.timing.destruction(),
            Operation::Action(_) | Operation::Completed => self.timing.action(),
        };
        self.free_at = self.free_at.max(self.allowed_at).after(cost);
        let active_at = self.free_at.after(latency).after(faults.delay_ns()).max(self.active_at);
        self.active_at = active_at;
        if active_at <= now && self.in_flight.is_empty() {
            self.execute(now, active_at.after(completion), command, device, faults);
        } else {
            self.in_flight.push_back((active_at, completion, command));
        }
        true
    }

    fn put_in_force(&mut self, now: Tick, device: &mut impl Installer<R>, faults: &mut Faults) -> bool {
        let Some((active_at, _, command)) = self.in_flight.front() else { return false };
        let stale = command.epoch != self.epoch;
        if *active_at > now && !stale {
            return false;
        }
        if let Some((active_at, completion, command)) = self.in_flight.pop_front() {
            if !stale {
                self.execute(now, active_at.after(completion), command, device, faults);
            }
        }
        true
    }

    fn execute(
        &mut self,
        now: Tick,
        visible_at: Tick,
        command: Command<R>,
        device: &mut impl Installer<R>,
        faults: &mut Faults,
    ) {
        let Command { epoch, user_data, operation, .. } = command;
        let (mut removed, mut freed) = (None, Needs::default());
        let (kind, ok) = match operation {
            Operation::Create { handle, slot, fill, rule } => {
                let rule = self.create(now, handle, fill, rule, device, faults);
                let generation = handle.generation();
                self.rules.set(slot, Entry { epoch, generation, rule });
                (DoneKind::Created(slot), rule.is_some())
            }
            Operation::Destroy { slot, needs } => {
                removed = self.rules.take(slot, epoch);
                freed = needs;
                if let Some(rule) = removed {
                    device.remove(now, rule);
                    self.live -= 1;
                    self.statistics.destroyed += 1;
                }
                (DoneKind::Destroyed(slot), true)
            }
            Operation::Action(operation) => (DoneKind::Other, device.act(now, operation).is_ok()),
            Operation::Completed => (DoneKind::Other, true),
        };
        if faults.loses_completion() {
            self.statistics.lost += 1;
            return;
        }
        let latest = self.late.back().map_or(Tick(0), |late| late.visible_at);
        let done = Done { epoch, user_data, ok, kind };
        self.late.push_back(Late { visible_at: visible_at.max(latest), done, rule: removed, needs: freed });
        if self.late.len() > 1 && faults.reorders() {
            self.reorder(faults);
        }
    }

    /// The rule, if it could be installed.
    fn create(
        &mut self,
        now: Tick,
        handle: RuleHandle,
        fill: (u32, u32),
        rule: R,
        device: &mut impl Installer<R>,
        faults: &mut Faults,
    ) -> Option<RuleId> {
        if faults.fails() {
            self.statistics.failed += 1;
            return None;
        }
        if self.collides(fill) {
            self.statistics.collided += 1;
            return None;
        }
        let owner = Owner { port: self.attr.port, queue: self.attr.queue, handle };
        let installed = device.install(now, rule, owner).ok();
        match installed {
            Some(_) => {
                self.live += 1;
                self.statistics.created += 1;
            }
            None => self.statistics.refused += 1,
        }
        installed
    }

    /// Whether an insertion finds both its row and the collision table taken: seldom, and more often the
    /// fuller the table is. See `collide_full_percent` in the profile.
    fn collides(&mut self, (used, capacity): (u32, u32)) -> bool {
        if self.collide_full_percent == 0 || capacity <= ASSURED_RULES {
            return false;
        }
        let from = u64::from(capacity) * u64::from(self.collide_from_percent) / 100;
        let (beyond, room) = (u64::from(used).saturating_sub(from), u64::from(capacity) - from);
        if beyond == 0 || room == 0 {
            return false;
        }
        let way = beyond.min(room) * 1000 / room;
        // (way / 1000)^2 * percent / 100, in a million.
        self.rng.per_million((way * way * u64::from(self.collide_full_percent) / 100) as u32)
    }

    /// Exchanges the newest completion with an earlier one; the times stay.
    fn reorder(&mut self, faults: &mut Faults) {
        let newest = self.late.len() - 1;
        let other = newest - 1 - faults.below(newest.min(REORDER_WINDOW));
        self.late.swap(newest, other);
        let visible_at = self.late[newest].visible_at;
        self.late[newest].visible_at = self.late[other].visible_at;
        self.late[other].visible_at = visible_at;
        self.statistics.reordered += 1;
    }

    fn report(&mut self, now: Tick) -> bool {
        let Some(late) = self.late.front().copied() else { return false };
        let stale = late.done.epoch != self.epoch;
        if !stale && (late.visible_at > now || self.joint.completions.is_full()) {
            return false;
        }
        self.late.pop_front();
        if stale {
            return true;
        }
        if matches!(late.done.kind, DoneKind::Destroyed(_)) {
            self.removed.push_back((late.rule, late.needs));
        }
        // There is room: this end alone adds to it.
        let _ = self.joint.completions.push(late.done);
        true
    }
}

/// The rules of a queue by slot, in pieces of a fixed size, so that growing copies nothing.
#[derive(Debug, Default)]
struct Index(Vec<Box<[Entry]>>);

fn empty_piece() -> Box<[Entry]> {
    vec![NONE; PIECE].into_boxed_slice()
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    epoch: u32,
    generation: u32,
    rule: Option<RuleId>,
}

/// No rule.
const NONE: Entry = Entry { epoch: 0, generation: 0, rule: None };

impl Index {
    fn get(&self, slot: u32) -> Option<&Entry> {
        self.0.get(slot as usize / PIECE)?.get(slot as usize % PIECE)
    }

    fn set(&mut self, slot: u32, entry: Entry) {
        let piece = slot as usize / PIECE;
        while self.0.len() <= piece {
            self.0.push(empty_piece());
        }
        self.0[piece][slot as usize % PIECE] = entry;
    }

    fn take(&mut self, slot: u32, epoch: u32) -> Option<RuleId> {
        let entry = self.0.get_mut(slot as usize / PIECE)?.get_mut(slot as usize % PIECE)?;
        let rule = entry.rule.take();
        if entry.epoch == epoch { rule } else { None }
    }
}
