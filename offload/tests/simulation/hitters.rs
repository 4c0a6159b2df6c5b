//! Who sends much of what is denied, and whether rules that drop keep to what the policy says.
//!
//! How workers find out is not simulated: here, a few packets are many. Nor are they believed: they tell of
//! whomever, denied or not.

use crate::frames::{self, What};
use crate::packet::{Origin, Way};
use crate::policy::Denied;
use crate::scenario::MS;
use crate::trace::Checker;
use crate::world::World;
use dataplane::addr::Ip;
use dataplane::drops::DropReason;
use dataplane::flow::{FlowKey, Protocol};
use dataplane::ids::TenantId;
use dataplane::offload;
use std::collections::{BTreeMap, BTreeSet};

/// One packet in so many is told of.
const TOLD: u64 = 3;

/// Who may be dropped without a word.
#[derive(Debug, Default)]
pub(crate) struct Silent {
    /// By what was published last.
    now: BTreeSet<Ip>,
    /// Of those that might be once, since when they may not,
    since: BTreeMap<Ip, u64>,
    /// and since which turn of the offload thread it knows.
    taken_up: BTreeMap<Ip, u64>,
    /// Packets that rules have dropped.
    pub(crate) dropped: u64,
}

/// Every other one is to be told: see [`crate::policy::rules`].
fn silent(denied: &Denied) -> BTreeSet<Ip> {
    denied.iter().step_by(2).copied().collect()
}

impl Silent {
    pub(crate) fn publish(&mut self, now: u64, denied: &Denied) {
        let next = silent(denied);
        for ip in self.now.difference(&next) {
            self.since.entry(*ip).or_insert(now);
        }
        for ip in &next {
            self.since.remove(ip);
            self.taken_up.remove(ip);
        }
        self.now = next;
    }

    /// The offload thread has taken up the latest.
    pub(crate) fn take_up(&mut self, turn: u64) {
        for ip in self.since.keys() {
            self.taken_up.entry(*ip).or_insert(turn);
        }
    }
}

impl World {
    /// A worker gets a packet from a client, and perhaps finds that there are many like it.
    pub(crate) fn note_heavy(&mut self, origin: &Origin) {
        let told = origin.id % TOLD == 0 && !origin.mutated && origin.way == Way::There;
        let Some(id) = origin.conn.filter(|_| told) else { return };
        let tcp = self.services[self.ends.conns[id as usize].service].tcp;
        let Some(read) = frames::read(&origin.frame) else { return };
        let (What::Segment(segment), Some(nic)) = (&read.what, &mut self.nic) else { return };
        let key = FlowKey {
            src: segment.from.0,
            dst: segment.to.0,
            src_port: segment.from.1,
            dst_port: segment.to.1,
            tenant: TenantId(0),
            protocol: if tcp { Protocol::Tcp } else { Protocol::Udp },
        };
        nic.denied.push(offload::Denied { ingress: origin.port, key, per_second: 1000 });
    }

    /// A rule has dropped a packet: the policy denies it without a word, or did until a moment ago.
    pub(crate) fn check_dropped(&mut self, origin: &Origin) {
        self.policies.silent.dropped += 1;
        let Some(read) = frames::read(&origin.frame) else { return };
        let What::Segment(segment) = &read.what else { return };
        let client = segment.from.0;
        self.trace.note("dropped by a rule", [origin.id, 0, 0]);
        let silent = &self.policies.silent;
        if silent.now.contains(&client) {
            return;
        }
        let Some(&at) = silent.since.get(&client) else {
            return self.trace.fail(Checker::Policy, || format!("a rule drops what is {client}'s"));
        };
        let known = silent.taken_up.get(&client).copied();
        if self.is_overdue(at) {
            self.trace.fail(Checker::Policy, || {
                format!("a rule drops what is {client}'s, who was let in {} ms ago", (self.now - at) / MS)
            });
        }
        let Some(nic) = self.nic.as_ref().filter(|_| self.scenario.faults.are_none()) else { return };
        let (turns, most) = (known.map_or(0, |known| nic.turns - known), self.scenario.turns_to_enforce());
        if turns > most {
            self.trace.fail(Checker::Policy, || {
                format!("a rule drops what is {client}'s, let in {turns} turns ago; {most} are enough")
            });
        }
    }

    /// What rules have dropped is counted to the last packet, unless the device was lost with it.
    pub(crate) fn check_denials(&mut self) {
        let Some(nic) = &self.nic else { return };
        let counted = nic.machine.denials().dropped[DropReason::PolicyDenied as usize].get();
        let dropped = self.policies.silent.dropped;
        let recovered = nic.machine.counters().recoveries.get() > 0;
        let faults = &self.scenario.faults;
        let lost = recovered || faults.breakdowns > 0 || faults.device.contains("lose_counters");
        if counted > dropped || (!lost && counted < dropped) {
            self.trace.fail(Checker::Accounting, || format!("{dropped} were dropped, {counted} counted"));
        }
    }
}
