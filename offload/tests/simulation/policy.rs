//! Who may talk and who may not: the operator's changes of mind, and whether workers and rules keep to them.

use crate::frames::{self, RST, What};
use crate::hitters::Silent;
use crate::oracle::Via;
use crate::packet::{Origin, Way};
use crate::scenario::MS;
use crate::trace::Checker;
use crate::world::World;
use dataplane::addr::Ip;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fmt::Write;

/// What is denied by one configuration: clients.
pub(crate) type Denied = BTreeSet<Ip>;

/// All that was ever in force, and what a worker or a rule may still go by.
#[derive(Debug)]
pub(crate) struct Policies {
    /// By number, from the first on.
    published: Vec<Denied>,
    /// Of those denied now, since when.
    since: BTreeMap<Ip, u64>,
    /// Of those denied by what the offload thread goes by, since which of its turns.
    taken_up: BTreeMap<Ip, u64>,
    /// Whoever was denied once: its connections may end at any time.
    ever: Denied,
    /// Who may be dropped by rules.
    pub(crate) silent: Silent,
    /// Packets that were not forwarded because of it are none to wonder about; those that were, are counted.
    pub(crate) checked: u64,
}

/// The number of the policy that a worker had when it took a packet.
pub(crate) type TakenUnder = Cell<usize>;

impl Policies {
    pub(crate) fn new() -> Policies {
        Policies {
            published: vec![Denied::new()],
            since: BTreeMap::new(),
            taken_up: BTreeMap::new(),
            ever: Denied::new(),
            silent: Silent::default(),
            checked: 0,
        }
    }

    /// The number of what is to be in force now.
    pub(crate) fn latest(&self) -> usize {
        self.published.len() - 1
    }

    pub(crate) fn now(&self) -> &Denied {
        &self.published[self.latest()]
    }

    pub(crate) fn publish(&mut self, now: u64, denied: Denied) {
        self.silent.publish(now, &denied);
        self.since.retain(|ip, _| denied.contains(ip));
        for ip in &denied {
            self.since.entry(*ip).or_insert(now);
            self.ever.insert(*ip);
        }
        self.published.push(denied);
    }

    /// The offload thread has taken up the latest, in this turn of its.
    pub(crate) fn take_up(&mut self, turn: u64) {
        self.silent.take_up(turn);
        let denied = &self.published[self.latest()];
        self.taken_up.retain(|ip, _| denied.contains(ip));
        for ip in denied {
            self.taken_up.entry(*ip).or_insert(turn);
        }
    }

    pub(crate) fn was_denied(&self, client: Ip) -> bool {
        self.ever.contains(&client)
    }
}

/// As a configuration says it.
pub(crate) fn rules(denied: &Denied) -> String {
    let mut text = String::new();
    for (number, ip) in denied.iter().enumerate() {
        let length = if ip.is_v4() { 32 } else { 128 };
        let action = ["deny", "reject"][number % 2];
        let _ = writeln!(text, "[[policy]]\naction = \"{action}\"\nfrom = [\"{ip}/{length}\"]");
    }
    text
}

impl World {
    /// The operator denies a client, or lets it in again.
    pub(crate) fn change_policy(&mut self) {
        let mut denied = self.policies.now().clone();
        let clients: Vec<Ip> = self.ends.conns.iter().map(|conn| conn.client.0).collect();
        if clients.is_empty() || !denied.is_empty() && self.rng.percent(40) {
            denied.clear();
        } else {
            let client = self.rng.pick(&clients);
            if !denied.remove(&client) {
                denied.insert(client);
            }
        }
        let many = denied.len() as u64;
        if self.reconfigure_with(self.services.clone(), Some(denied)) {
            self.trace.note("policy changed: clients denied", [many, 0, 0]);
        }
    }

    /// No packet is forwarded by a worker against the policy that it had when it took it, nor for long by a
    /// rule against the one that was wanted.
    pub(crate) fn check_policy(&mut self, origin: &Origin, frame: &[u8], via: Via) {
        let Some((client, is_reset)) = client_of(origin, frame) else { return };
        let denied = &self.policies.published[origin.taken_under.get()];
        self.policies.checked += 1;
        match via {
            Via::Software if denied.contains(&client) && !is_reset => {
                let number = origin.taken_under.get();
                self.trace.fail(Checker::Policy, || {
                    format!("a worker forwards for {client}, which policy {number} denies")
                });
            }
            Via::Hardware => {
                let overdue = |at: u64| self.is_overdue(at);
                if let Some(at) = self.policies.since.get(&client).copied().filter(|at| overdue(*at)) {
                    self.trace.fail(Checker::Policy, || {
                        format!("a rule forwards for {client}, denied since {} ms", at / MS)
                    });
                }
                self.check_turns(client);
            }
            Via::Software => {}
        }
    }
}

impl World {
    /// A device that does what it is told forwards for nobody any more for whose rules the offload thread has
    /// had as many turns as it may need, however long these took.
    fn check_turns(&mut self, client: Ip) {
        let Some(nic) = self.nic.as_ref().filter(|_| self.scenario.faults.are_none()) else { return };
        let Some(since) = self.policies.taken_up.get(&client) else { return };
        let (turns, most) = (nic.turns - since, self.scenario.turns_to_enforce());
        if turns > most {
            self.trace.fail(Checker::Policy, || {
                format!("a rule forwards for {client}, denied {turns} turns ago; {most} are enough")
            });
        }
    }
}

/// The client of a forwarded packet that an end has sent, and whether it is Millrace's own reset.
fn client_of(origin: &Origin, frame: &[u8]) -> Option<(Ip, bool)> {
    let (was, is) = (frames::read(&origin.frame)?, frames::read(frame)?);
    let (What::Segment(before), What::Segment(after)) = (&was.what, &is.what) else { return None };
    origin.conn.filter(|_| !origin.mutated)?;
    let client = match origin.way {
        Way::There => before.from.0,
        Way::Back => before.to.0,
    };
    Some((client, after.flags() & RST != 0 && before.flags() & RST == 0))
}
