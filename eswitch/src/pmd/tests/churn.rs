//! Two flow queues, each used by a thread of its own, at full speed and at random, while packets flow.

use super::rules::{FRAME, Rule, Tables, frame, hits};
use super::{BURST, Lab, Registered, Shuffle, ffi, say, setting};
use crate::model::types::Tick;
use crate::pmd::clock::Clock;

/// Hardware steering at no cost.
const FREE: &str = "profile=ideal,dv_flow_en=2";

/// Connections of one thread.
const CONNECTIONS: u32 = 4096;

/// Operations that a queue holds.
const DEPTH: u32 = 1024;

/// How far a connection's rule has come; with the number of its latest operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Absent,
    Creating(usize, *mut ffi::rte_flow),
    Live(*mut ffi::rte_flow),
    Destroying(usize),
}

/// A thread's connections: those whose number is its own modulo two.
struct Churn<'a> {
    queue: u32,
    tables: &'a Tables,
    to: u16,
    states: Vec<State>,
    operations: usize,
    outstanding: usize,
    refused: usize,
}

// SAFETY: a rule's handle is a number; it is used by whoever has the churn, one thread at a time.
unsafe impl Send for Churn<'_> {}

impl<'a> Churn<'a> {
    fn new(queue: u32, tables: &'a Tables, to: u16) -> Churn<'a> {
        let states = vec![State::Absent; CONNECTIONS as usize];
        Churn { queue, tables, to, states, operations: 0, outstanding: 0, refused: 0 }
    }

    fn connection(&self, at: usize) -> u32 {
        2 * at as u32 + self.queue
    }

    /// An operation's number, and whose it is, as user data.
    fn tag(&self, at: usize) -> usize {
        self.operations << 16 | at
    }

    /// Creates or destroys the rule of one connection, unless an operation on it is outstanding.
    fn operate(&mut self, at: usize, postpone: bool) {
        let tag = self.tag(at);
        let next = match self.states[at] {
            State::Absent => {
                let rule = Rule::new(self.connection(at), self.to);
                let flow = self.tables.create(self.queue, &rule, tag, postpone);
                flow.map(|flow| State::Creating(tag, flow))
            }
            State::Live(flow) => {
                self.tables.destroy(self.queue, flow, tag, postpone).then_some(State::Destroying(tag))
            }
            State::Creating(..) | State::Destroying(_) => return,
        };
        match next {
            Some(state) => {
                self.states[at] = state;
                self.operations += 1;
                self.outstanding += 1;
            }
            None => {
                // Only a full queue refuses.
                assert!(self.outstanding >= DEPTH as usize / 2, "refused at {}", self.outstanding);
                self.refused += 1;
                self.tables.push(self.queue);
            }
        }
    }

    /// Takes completions; each must be of the operation that its connection waits for.
    fn pull(&mut self) -> usize {
        let (states, outstanding) = (&mut self.states, &mut self.outstanding);
        self.tables.pull(self.queue, |tag, ok| {
            assert!(ok, "operation {tag:x} failed");
            let state = &mut states[tag & 0xffff];
            *state = match *state {
                State::Creating(expected, flow) if expected == tag => State::Live(flow),
                State::Destroying(expected) if expected == tag => State::Absent,
                other => panic!("completion {tag:x}, but the connection is {other:?}"),
            };
            *outstanding -= 1;
        })
    }

    fn run(&mut self, clock: Clock, until: Tick) {
        let mut shuffle = Shuffle(u64::from(self.queue) + 7);
        while clock.now().0 < until.0 {
            for _ in 0..BURST {
                self.operate(shuffle.below(CONNECTIONS) as usize, shuffle.below(4) != 0);
            }
            if shuffle.below(2) == 0 {
                self.tables.push(self.queue);
            }
            if self.pull() == 0 {
                std::thread::yield_now();
            }
        }
        self.tables.push(self.queue);
        while self.outstanding > 0 {
            if self.pull() == 0 {
                std::thread::yield_now();
            }
        }
        assert_eq!(self.pull(), 0, "nothing completes twice");
    }
}

/// Packets meanwhile: how many were offered, and how many came out of wire 1 and of port 0.
fn packets(lab: &mut Lab, frames: &[[u8; FRAME]], done: impl Fn() -> bool) -> (usize, [usize; 2]) {
    let mut shuffle = Shuffle(3);
    let (mut offered, mut seen) = (0, [0; 2]);
    while !done() {
        offered +=
            lab.offer((0..BURST).map(|_| frames[shuffle.below(frames.len() as u32) as usize].as_slice()));
        seen[1] += lab.poll(0);
        seen[0] += lab.collect();
    }
    lab.drain(offered, &mut seen);
    (offered, seen)
}

/// Churns for so long, then checks that everything is as the threads believe it to be.
fn churn(milliseconds: u64) {
    let mut lab = Lab::new(FREE);
    Tables::configure(lab.ports[0], 2, DEPTH, 4 * CONNECTIONS);
    lab.start();
    let tables = Tables::new(lab.ports[0], lab.ports[1], 4 * CONNECTIONS);
    let frames: Vec<[u8; FRAME]> = (0..2 * CONNECTIONS).map(frame).collect();
    let (clock, begin) = (lab.switch.clock, lab.switch.clock.now());
    let until = begin.after(milliseconds * 1_000_000);
    let mut churns = [0, 1].map(|queue| Churn::new(queue, &tables, lab.ports[1]));
    let (offered, seen) = std::thread::scope(|scope| {
        let threads = churns.each_mut().map(|churn| {
            scope.spawn(move || {
                let _registered = Registered::new();
                churn.run(clock, until);
            })
        });
        packets(&mut lab, &frames, || threads.iter().all(std::thread::ScopedJoinHandle::is_finished))
    });
    assert_eq!(seen[0] + seen[1], offered, "no packet is lost");
    let seconds = clock.now().since(begin) as f64 / 1e9;
    let (rate, second) = (churns[0].operations as f64 / seconds, churns[1].operations as f64 / seconds);
    say(&format!(
        "churn, {seconds:.1} s: {rate:.0} and {second:.0} operations a second on the two queues, {:.0} \
         packets a second, {:.0} % of them by a rule; refused for lack of room {} and {} times",
        offered as f64 / seconds,
        100.0 * seen[0] as f64 / offered.max(1) as f64,
        churns[0].refused,
        churns[1].refused,
    ));
    settle(&mut lab, &churns, &frames);
}

/// The device has the rules that the threads have, no more, and each counts its packets.
fn settle(lab: &mut Lab, churns: &[Churn<'_>; 2], frames: &[[u8; FRAME]]) {
    let mut live = Vec::new();
    for churn in churns {
        for (at, state) in churn.states.iter().enumerate() {
            match state {
                State::Live(flow) => live.push((churn.connection(at), *flow)),
                State::Absent => {}
                other => panic!("{other:?} after everything has completed"),
            }
        }
    }
    let rules = lab.switch.eswitch.lock().statistics().rules;
    assert_eq!(rules, live.len() as u64, "the device has the rules that the threads have");
    let port = lab.ports[0];
    let before: Vec<u64> = live.iter().map(|(_, flow)| hits(port, *flow)).collect();
    let seen = lab.pass(frames.iter().map(<[u8; FRAME]>::as_slice));
    assert_eq!(seen, [live.len(), frames.len() - live.len()], "a packet hits if its rule is there");
    let after: Vec<u64> = live.iter().map(|(_, flow)| hits(port, *flow)).collect();
    assert!(before.iter().zip(&after).all(|(before, after)| before + 1 == *after), "one packet, one count");
}

#[test]
fn two_queues_under_load_complete_everything_once() {
    churn(1_500);
}

#[test]
#[ignore = "takes a minute"]
fn bench_churn() {
    churn(u64::from(setting("ESWITCH_BENCH_SECONDS", 60)) * 1000);
}
