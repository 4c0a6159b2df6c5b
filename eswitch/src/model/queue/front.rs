//! The application's end of a flow queue.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::super::template::Occupancy;
use super::super::timing::Rng;
use super::super::types::{RuleHandle, Tick};
use super::slots::{Slots, State};
use super::{
    ActionOp, Command, Completion, Credits, Done, DoneKind, Doorbell, Joint, Needs, Operation, QueueAttr,
    Word,
};
use super::{Cause, Errno, Refusal};

/// The application's end of a flow queue. One thread at a time uses it.
#[derive(Debug)]
pub struct FlowQueue<R> {
    attr: QueueAttr,
    joint: Arc<Joint<R>>,
    credits: Arc<Credits>,
    slots: Slots,
    /// Commands in the ring that no doorbell has allowed yet: postponed.
    postponed: u32,
    outstanding: u32,
    /// The shared word as it was last seen or written here.
    word: Word,
    /// For refusals on request.
    rng: Rng,
}

const GONE: Refusal =
    Refusal::new(Errno::Noent, Cause::Handle, "no such rule: destroyed, or its port was stopped");

impl<R> FlowQueue<R> {
    pub(super) fn new(
        attr: QueueAttr,
        joint: Arc<Joint<R>>,
        credits: Arc<Credits>,
        seed: u64,
    ) -> FlowQueue<R> {
        FlowQueue {
            attr,
            word: joint.word(),
            joint,
            credits,
            slots: Slots::default(),
            postponed: 0,
            outstanding: 0,
            // Another sequence than the engine's, which has the same seed.
            rng: Rng::new(!seed),
        }
    }

    /// What it was made as.
    #[must_use]
    pub fn attr(&self) -> QueueAttr {
        self.attr
    }

    /// Operations enqueued and not yet pulled.
    #[must_use]
    pub fn outstanding(&self) -> u32 {
        self.outstanding
    }

    /// Rules whose handles are valid: created, and not destroyed with the completion pulled.
    #[must_use]
    pub fn rules(&self) -> u32 {
        self.slots.used()
    }

    /// Counters, age contexts and meters that rules of the port's queues can still take.
    #[must_use]
    pub fn credits(&self) -> [u32; 3] {
        self.credits.left()
    }

    /// Enqueues a rule that is ready to be installed, for a place in `table`. Its handle is valid at once.
    ///
    /// # Errors
    /// The queue's full errno; ENOMEM when the table is full or a fault refuses; ENOENT without a counter,
    /// ENOMEM without an age context or a meter.
    pub fn enqueue(
        &mut self,
        now: Tick,
        table: &Arc<Occupancy>,
        needs: Needs,
        rule: R,
        user_data: u64,
        postpone: bool,
    ) -> Result<RuleHandle, Refusal> {
        self.check_room()?;
        if self.rng.per_million(self.joint.refuse.load(Ordering::Relaxed)) {
            return Err(Refusal::new(Errno::Nomem, Cause::Unspecified, "refused (injected fault)"));
        }
        let Some(used) = table.take() else {
            return Err(Refusal::new(Errno::Nomem, Cause::Unspecified, "the template table is full"));
        };
        if let Err(refusal) = self.credits.take(needs) {
            table.give();
            return Err(refusal);
        }
        let slot = self.slots.allocate(table, needs);
        let named = slot.and_then(|(slot, generation)| {
            RuleHandle::new(Some(self.attr.queue), generation, slot).map(|handle| (slot, handle))
        });
        let Some((slot, handle)) = named else {
            table.give();
            self.credits.give(needs);
            return Err(Refusal::new(Errno::Nomem, Cause::Unspecified, "out of rule handles"));
        };
        let fill = (used, table.capacity());
        self.send(now, Operation::Create { handle, slot, fill, rule }, user_data, postpone);
        Ok(handle)
    }

    /// Enqueues a rule's destruction.
    ///
    /// # Errors
    /// The queue's full errno; EINVAL for a rule of another queue; ENOENT for one that is not, or no more, a
    /// rule, or that is being destroyed; EBUSY when its creation has not been pulled yet.
    pub fn destroy(
        &mut self,
        now: Tick,
        handle: RuleHandle,
        user_data: u64,
        postpone: bool,
    ) -> Result<(), Refusal> {
        self.check_room()?;
        if handle.queue() != Some(self.attr.queue) {
            let why = "a rule is destroyed through the queue that created it";
            return Err(Refusal::new(Errno::Inval, Cause::Handle, why));
        }
        let at = handle.slot().ok_or(GONE)?;
        let slot =
            self.slots.get_mut(at).filter(|slot| slot.generation == handle.generation()).ok_or(GONE)?;
        match slot.state {
            State::Free(_) => return Err(GONE),
            State::Creating => {
                let why = "its creation has not completed yet: pull first";
                return Err(Refusal::new(Errno::Busy, Cause::Handle, why));
            }
            State::Destroying => return Err(Refusal::new(Errno::Noent, Cause::Handle, "is being destroyed")),
            State::Live | State::Failed => slot.state = State::Destroying,
        }
        let needs = slot.needs;
        self.send(now, Operation::Destroy { slot: at, needs }, user_data, postpone);
        Ok(())
    }

    /// Does something with an indirect action at once (create, query: they answer the caller, and mlx5 does
    /// them when they are enqueued), and enqueues its completion.
    ///
    /// # Errors
    /// The queue's full errno, then nothing has been done; or what `act` says, then nothing is enqueued.
    pub fn act_now<T>(
        &mut self,
        now: Tick,
        user_data: u64,
        postpone: bool,
        act: impl FnOnce() -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        self.check_room()?;
        let answer = act()?;
        self.send(now, Operation::Completed, user_data, postpone);
        Ok(answer)
    }

    /// Enqueues a change or the end of an indirect action, to be carried out in the queue's order. A handle
    /// that is wrong, or still in use, is an error of the completion.
    ///
    /// # Errors
    /// The queue's full errno.
    pub fn act_later(
        &mut self,
        now: Tick,
        operation: ActionOp,
        user_data: u64,
        postpone: bool,
    ) -> Result<(), Refusal> {
        self.check_room()?;
        self.send(now, Operation::Action(operation), user_data, postpone);
        Ok(())
    }

    /// Hands everything postponed to the device.
    pub fn push(&mut self, now: Tick) {
        self.notice_restart();
        self.ring(now);
    }

    /// Takes completions; how many. What destroyed rules occupied comes free.
    pub fn pull(&mut self, out: &mut [Completion]) -> usize {
        self.notice_restart();
        let mut pulled = 0;
        while pulled < out.len() {
            let Some(done) = self.joint.completions.pop() else { break };
            if done.epoch != self.word.epoch {
                continue;
            }
            if !self.complete(done) {
                // The port has been stopped this moment: all that was outstanding is gone.
                self.notice_restart();
                break;
            }
            out[pulled] = Completion { user_data: done.user_data, ok: done.ok };
            pulled += 1;
        }
        pulled
    }

    /// Notices at once, not at the next call, that the port was stopped: frees what its rules occupied in
    /// their tables. In time proportional to the rules.
    pub fn notice_restart(&mut self) {
        let word = self.joint.word();
        if word.epoch == self.word.epoch {
            return;
        }
        self.word = word;
        self.postponed = 0;
        self.outstanding = 0;
        // The device leaves alone what this end has not allowed in the new life.
        while self.joint.commands.pop().is_some() {}
        while self.joint.doorbells.pop().is_some() {}
        for at in 0..self.slots.end() {
            self.credits.give(self.slots.free(at));
        }
        while let Some(done) = self.joint.completions.pop() {
            debug_assert!(done.epoch != word.epoch, "nothing of this life has been enqueued yet");
        }
    }

    /// ENOMEM or EBUSY if as many operations are outstanding as may be.
    fn check_room(&mut self) -> Result<(), Refusal> {
        self.notice_restart();
        if self.outstanding < self.attr.size {
            return Ok(());
        }
        Err(Refusal::new(self.attr.full_errno, Cause::Unspecified, "the flow queue is full: pull first"))
    }

    fn send(&mut self, now: Tick, operation: Operation<R>, user_data: u64, postpone: bool) {
        let command = Command { epoch: self.word.epoch, user_data, operation };
        // There is room: no more commands are in the ring than operations are outstanding.
        let sent = self.joint.commands.push(command);
        debug_assert!(sent.is_ok(), "outstanding operations are bounded by the ring's length");
        self.outstanding += 1;
        self.postponed += 1;
        // One that is not postponed takes all before it along, as a doorbell of mlx5 does.
        if !postpone {
            self.ring(now);
        }
    }

    fn ring(&mut self, now: Tick) {
        if self.postponed > 0 {
            let doorbell = Doorbell { epoch: self.word.epoch, commands: self.postponed, at: now };
            let rung = self.joint.doorbells.push(doorbell);
            debug_assert!(rung.is_ok(), "each doorbell is for a command at least");
            self.postponed = 0;
        }
    }

    /// Takes note of a completion; false if the port's life ended meanwhile.
    fn complete(&mut self, done: Done) -> bool {
        match done.kind {
            DoneKind::Created(at) => {
                if let Some(slot) = self.slots.get_mut(at) {
                    slot.state = if done.ok { State::Live } else { State::Failed };
                }
            }
            DoneKind::Destroyed(at) => {
                // First tell the device, which then gives the credits back; it counts them by this word.
                let word = Word { pulled: self.word.pulled.wrapping_add(1), ..self.word };
                if !self.joint.advance(self.word, word) {
                    return false;
                }
                self.word = word;
                self.slots.free(at);
            }
            DoneKind::Other => {}
        }
        self.outstanding -= 1;
        true
    }
}
