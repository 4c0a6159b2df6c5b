//! A worker's loop: poll, walk, learn, hear, obey, tend, send.

use crate::capture::{Recorder, Tape};
use crate::clock::Clock;
use crate::runtime::env::Outside;
use crate::runtime::idle::Rest;
use crate::runtime::mailbox::{Command, ConnectionPage, Mailbox, Report};
use crate::runtime::offload_rings::WorkerEnd;
use crate::runtime::probe_rings::ProbeRings;
use crate::runtime::rings::Rings;
use arrayvec::ArrayVec;
use dataplane::counters::WorkerCounters;
use dataplane::ids::WorkerId;
use dataplane::limits::DEVICES_MAX;
use dataplane::packet::Burst;
use dataplane::time::Tick;
use dataplane::worker::{Excerpt, Worker};
use dpdk::{Mbuf, RxQueue, ThreadGuard};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Bursts taken over from other workers per turn, so that one worker's clients cannot starve the ports.
const TAKEN_OVER_MAX: usize = 8;
/// Neighbour updates from other workers per turn.
const UPDATES_MAX: usize = 32;
/// Answers of the offload thread per turn: about as much work as a burst of packets.
const ANSWERS_MAX: usize = 64;
/// Table slots looked at per turn while connections are copied for `show`: some microseconds.
const DUMP_SLOTS: usize = 256;

/// Everything a packet thread owns.
pub(crate) struct Thread<'a> {
    pub(crate) id: WorkerId,
    pub(crate) clock: Clock,
    pub(crate) rest: Rest,
    pub(crate) counters: Arc<WorkerCounters>,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) rings: &'a Rings<Mbuf>,
    pub(crate) rx: ArrayVec<RxQueue<'a>, DEVICES_MAX>,
    pub(crate) outside: Outside<'a>,
    /// The way to and from the offload thread, if there is one.
    pub(crate) offload: Option<WorkerEnd<'a>>,
    /// The way to and from the health checker.
    pub(crate) probes: &'a ProbeRings,
    pub(crate) worker: Worker<Mbuf>,
    /// A question for connections that is being answered, a part each turn.
    pub(crate) page: Option<ConnectionPage>,
    /// Likewise an excerpt that is being filled.
    pub(crate) excerpt: Option<Box<Excerpt>>,
    /// What is taken down, while there is a capture.
    pub(crate) tape: Option<Box<Tape>>,
    /// Last, so that everything above is gone before DPDK forgets the thread.
    pub(crate) _registration: ThreadGuard<'a>,
}

impl Thread<'_> {
    /// Forwards packets until `stop`, then accounts for those it still holds.
    pub(crate) fn run(mut self, stop: &AtomicBool) {
        let mut burst = Burst::new();
        let mut started = dpdk::clock::rdtsc();
        while !stop.load(Relaxed) {
            self.outside.cycles = started;
            let packets = self.turn(self.clock.tick(started), &mut burst);
            let ended = dpdk::clock::rdtsc();
            self.counters.polls.add(1);
            if packets == 0 {
                self.counters.polls_empty.add(1);
            } else {
                self.counters.busy_cycles.add(ended.wrapping_sub(started));
            }
            let asked = self.page.is_some() || self.excerpt.is_some();
            self.rest.after(packets > 0 || asked || self.worker.is_sweeping());
            started = if packets > 0 { ended } else { dpdk::clock::rdtsc() };
        }
        self.outside.flush();
        self.worker.shutdown();
    }

    /// One turn; gives the number of packets taken.
    #[inline]
    fn turn(&mut self, now: Tick, burst: &mut Burst<Mbuf>) -> usize {
        if self.tape.is_some() {
            return self.recorded_turn(now, burst);
        }
        let packets = self.receive(now, burst) + self.take_over(now, burst);
        self.learn(now);
        self.hear(now);
        self.obey(now);
        self.probe(now);
        self.worker.on_tick(now, &mut self.outside);
        self.outside.flush();
        packets
    }

    #[inline]
    fn receive(&mut self, now: Tick, burst: &mut Burst<Mbuf>) -> usize {
        let mut packets = 0;
        for queue in &mut self.rx {
            queue.burst(burst);
            if !burst.is_empty() {
                packets += burst.len();
                expect_diverted(&mut self.worker, self.offload);
                self.worker.on_burst(now, burst, &mut self.outside);
            }
        }
        packets
    }

    #[inline]
    fn take_over(&mut self, now: Tick, burst: &mut Burst<Mbuf>) -> usize {
        let mut packets = 0;
        for _ in 0..TAKEN_OVER_MAX {
            self.rings.take_packets(self.id, burst);
            if burst.is_empty() {
                break;
            }
            packets += burst.len();
            expect_diverted(&mut self.worker, self.offload);
            self.worker.on_handed_off(now, burst, &mut self.outside);
        }
        packets
    }

    #[inline]
    fn learn(&mut self, now: Tick) {
        for _ in 0..UPDATES_MAX {
            let Some(update) = self.rings.take_update(self.id) else { break };
            self.worker.learn(now, &update, &mut self.outside);
        }
    }

    /// What the offload thread says, and what it asks of connections that want to be in hardware.
    #[inline]
    fn hear(&mut self, now: Tick) {
        let Some(offload) = self.offload else { return };
        self.worker.set_price(offload.price());
        for _ in 0..ANSWERS_MAX {
            let Some(answer) = offload.take_answer() else { break };
            self.worker.on_answer(now, &answer, &mut self.outside);
        }
    }

    /// What the health checker has to send.
    #[inline]
    fn probe(&mut self, now: Tick) {
        let (worker, outside) = (&mut self.worker, &mut self.outside);
        self.probes.drain(self.id, |backend, packet| worker.send_probe(now, backend, packet, outside));
    }

    /// What the manager wants, and the next part of what it wanted before.
    #[inline]
    fn obey(&mut self, now: Tick) {
        if let Some(page) = self.page.take() {
            self.copy_connections(now, page);
        }
        if let Some(excerpt) = self.excerpt.take() {
            self.fill_excerpt(now, excerpt);
        }
        match self.mailbox.command() {
            None => {}
            Some(Command::Adopt(snapshot)) => {
                let generation = snapshot.generation;
                self.tape.iter_mut().for_each(|tape| tape.follow(&snapshot));
                let old = self.worker.adopt(now, snapshot, &mut self.outside);
                self.mailbox.adopted(generation, old);
            }
            Some(Command::Connections(page)) => self.page = Some(page),
            Some(Command::Neighbours(mut rows)) => {
                self.worker.dump_neighbours(&mut rows);
                self.mailbox.report(Report::Neighbours(rows));
            }
            Some(Command::Excerpt(excerpt)) => self.excerpt = Some(excerpt),
            Some(Command::Capture(tape)) => self.record(tape),
        }
    }

    /// Begins to take down what is received and sent, or ends that.
    #[cold]
    fn record(&mut self, tape: Option<Box<Tape>>) {
        let recalled = tape.as_ref().and_then(|tape| tape.capture().recalled());
        let before = self.worker.set_captured(recalled);
        self.mailbox.report(Report::Capture(std::mem::replace(&mut self.tape, tape), before));
    }

    /// A turn of which what is chosen is taken down, as long as the capture is not over. Packets are walked
    /// one by one: what is noted is about the packet at hand.
    #[cold]
    #[inline(never)]
    fn recorded_turn(&mut self, now: Tick, burst: &mut Burst<Mbuf>) -> usize {
        let Some(mut tape) = self.tape.take() else { return 0 };
        let mut packets = 0;
        let recorder = &mut Recorder { outside: &mut self.outside, tape: &mut tape };
        let mut alone = Burst::new();
        for queue in &mut self.rx {
            queue.burst(burst);
            if burst.is_empty() {
                continue;
            }
            packets += burst.len();
            expect_diverted(&mut self.worker, self.offload);
            for packet in burst.drain(..) {
                recorder.begin(&packet);
                alone.push(packet);
                self.worker.on_burst(now, &mut alone, recorder);
                recorder.end();
            }
        }
        for _ in 0..TAKEN_OVER_MAX {
            self.rings.take_packets(self.id, burst);
            if burst.is_empty() {
                break;
            }
            packets += burst.len();
            expect_diverted(&mut self.worker, self.offload);
            for packet in burst.drain(..) {
                recorder.begin(&packet);
                alone.push(packet);
                self.worker.on_handed_off(now, &mut alone, recorder);
                recorder.end();
            }
        }
        for _ in 0..UPDATES_MAX {
            let Some(update) = self.rings.take_update(self.id) else { break };
            self.worker.learn(now, &update, recorder);
        }
        let worker = &mut self.worker;
        self.probes.drain(self.id, |backend, packet| worker.send_probe(now, backend, packet, recorder));
        worker.on_tick(now, recorder);
        tape.rest();
        self.tape = Some(tape);
        self.hear(now);
        self.obey(now);
        self.outside.flush();
        packets
    }

    #[cold]
    fn fill_excerpt(&mut self, now: Tick, mut excerpt: Box<Excerpt>) {
        self.worker.excerpt(now, &mut excerpt, DUMP_SLOTS);
        if excerpt.is_complete() {
            self.mailbox.report(Report::Excerpt(excerpt));
        } else {
            self.excerpt = Some(excerpt);
        }
    }

    #[cold]
    fn copy_connections(&mut self, now: Tick, mut page: ConnectionPage) {
        self.worker.dump_connections(now, &mut page.cursor, DUMP_SLOTS, &mut page.rows);
        if page.cursor.is_none() || page.rows.len() == page.rows.capacity() {
            self.mailbox.report(Report::Connections(page));
        } else {
            self.page = Some(page);
        }
    }
}

/// Asks whether there is a fence, for packets that have just been taken: they may be the first that it has
/// kept from their rules.
#[inline]
fn expect_diverted(worker: &mut Worker<Mbuf>, offload: Option<WorkerEnd<'_>>) {
    if let Some(offload) = offload {
        worker.set_fenced(offload.is_fenced());
    }
}
