//! What should have happened: a second opinion on every packet that leaves, and books of who got what.
//!
//! The oracle knows the scenario, what the operator did, and the bytes that went in and came out. It knows
//! nothing of tables, rules or states.

use crate::frames::{self, End, Link, RST, Read, Segment, Shadow, What};
use crate::hosts::{Conn, Station, Stations, Who};
use crate::packet::{Origin, Way};
use crate::policy::Policies;
use crate::scenario::{BackendPlan, Mode, SECOND, Scenario, ServicePlan, port_mac};
use crate::trace::{Checker, Trace};
use dataplane::conntrack::Count;
use dataplane::ids::BackendId;
use std::collections::BTreeMap;

/// Within so long every worker has taken up a snapshot, and every packet judged by the one before is out.
const ADOPT_MAX_NS: u64 = SECOND;

/// How long a rule may stay whose backend may not have one: without faults,
pub(crate) const ENFORCE_MAX_NS: u64 = 3 * SECOND / 2;
/// and if operations do not end, and the device is given up first.
pub(crate) const ENFORCE_ANYWAY_NS: u64 = 12 * SECOND;
/// No rule can be taken out of a device that hangs, and hangs may follow one another. Once it answers it is
/// flushed: the machine tries that every second, and its thread may stand still for nearly another.
pub(crate) const FLUSHED_NS: u64 = 2 * SECOND;

/// Who forwarded a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Via {
    /// A worker.
    Software = 0,
    /// A rule.
    Hardware = 1,
}

/// Violations of per-connection consistency, by cause.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Pcc {
    /// The backend was removed, or drained away: the operator's wish.
    pub(crate) backend_gone: u64,
    /// A rule of an earlier connection, or of an earlier backend, forwarded it.
    pub(crate) stale_rule: u64,
    /// The table had forgotten it: for want of room, or after silence.
    pub(crate) evicted: u64,
    /// A rule sent it to a MAC address that its next hop has given up.
    pub(crate) moved: u64,
    /// Millrace had reset it for the operator's wish, and its client did not take that: more of the backend's
    /// data was on its way, so that the reset had a sequence number of the past. The next segment of such a
    /// connection finds no entry.
    pub(crate) reset: u64,
    /// No reason is known.
    pub(crate) unknown: u64,
}

impl Pcc {
    pub(crate) fn add(&mut self, other: Pcc) {
        self.backend_gone += other.backend_gone;
        self.stale_rule += other.stale_rule;
        self.evicted += other.evicted;
        self.moved += other.moved;
        self.reset += other.reset;
        self.unknown += other.unknown;
    }
}

/// A packet went to another backend than the ones before it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mismatch {
    pub(crate) conn: u32,
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) via: Via,
}

/// Packets and bytes of a backend, by [`Way`] and [`Via`], and packets that may or may not be in them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Book {
    pub(crate) seen: [[Count; 2]; 2],
    pub(crate) slack: [u64; 2],
}

/// The books, and what was found.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    pub(crate) books: BTreeMap<BackendId, Book>,
    /// Packets dropped whose backend is not known.
    pub(crate) slack: u64,
    /// The number that the snapshots gave to a place of a service.
    pub(crate) ids: BTreeMap<(usize, usize), BackendId>,
    pub(crate) pcc: Pcc,
    /// What Millrace said by itself, to hosts.
    pub(crate) own: u64,
    pub(crate) forwarded: [u64; 2],
    /// Packets with changed bytes, of whatever connection they seem to be.
    pub(crate) mutants: u64,
    /// Packets that rules forwarded and that nobody else can read: they were malformed.
    pub(crate) strange: u64,
}

/// What a packet is judged by.
pub(crate) struct View<'a> {
    pub(crate) now: u64,
    pub(crate) scenario: &'a Scenario,
    pub(crate) services: &'a [ServicePlan],
    pub(crate) stations: &'a Stations,
    /// When the device last did not answer.
    pub(crate) silent_at: Option<u64>,
    pub(crate) policies: &'a Policies,
}

/// A packet that leaves.
pub(crate) struct Leaving<'a> {
    pub(crate) origin: &'a Origin,
    pub(crate) port: usize,
    pub(crate) frame: &'a [u8],
    pub(crate) via: Via,
}

/// Where a packet belongs.
#[derive(Clone, Copy, Debug)]
struct Place {
    way: Way,
    service: usize,
    backend: usize,
}

impl View<'_> {
    /// Whether it is too late for a rule to forward what has had to stop by `until`.
    fn is_overdue(&self, until: u64) -> bool {
        let flushed = self.silent_at.map_or(0, |at| at + FLUSHED_NS);
        self.now > until.max(flushed)
    }

    /// The service with this address.
    fn service_at(&self, end: End, tcp: bool) -> Option<usize> {
        self.services.iter().position(|s| (s.vip, s.port) == end && s.tcp == tcp)
    }

    /// The place of a service that a packet has been sent to.
    fn backend_at(&self, service: usize, read: &Read, to: &Segment, port: usize) -> Option<usize> {
        let plan = &self.services[service];
        match plan.mode {
            Mode::Nat => {
                let end = |b: &BackendPlan| (b.ip, b.port.unwrap_or(plan.port));
                plan.backends.iter().position(|backend| end(backend) == to.to)
            }
            Mode::Dsr => {
                let mac = read.link.dst;
                let is = |s: &&Station| {
                    let before = s.before.is_some_and(|(old, _)| old == mac);
                    s.link == port && (s.mac == mac || before)
                };
                let Who::Backend(host) = self.stations.0.iter().find(is)?.who else { return None };
                plan.backends.iter().position(|backend| backend.host == host)
            }
        }
    }

    /// The service and place that a reply comes from.
    fn reply_from(&self, end: End, tcp: bool) -> Option<(usize, usize)> {
        self.services.iter().enumerate().find_map(|(number, plan)| {
            let is = |b: &BackendPlan| (b.ip, b.port.unwrap_or(plan.port)) == end;
            let place = plan.backends.iter().position(is)?;
            (plan.mode == Mode::Nat && plan.tcp == tcp).then_some((number, place))
        })
    }

    /// Where a packet belongs, by what came in and what went out.
    fn place(&self, was: &Segment, is: &Read, to: &Segment, port: usize) -> Option<Place> {
        let tcp = was.protocol() == frames::TCP;
        if let Some(service) = self.service_at(was.to, tcp) {
            let backend = self.backend_at(service, is, to, port)?;
            return Some(Place { way: Way::There, service, backend });
        }
        let (service, backend) = self.reply_from(was.from, tcp)?;
        Some(Place { way: Way::Back, service, backend })
    }

    /// The frame that must leave for the one that came, to the station as it is known now.
    fn expected(&self, place: Place, was: &Segment) -> (Shadow, Option<(dataplane::addr::MacAddr, u64)>) {
        let plan = &self.services[place.service];
        let backend = &plan.backends[place.backend];
        let (station, from, to) = match place.way {
            Way::There => {
                let end = (backend.ip, backend.port.unwrap_or(plan.port));
                let station = self.stations.by_ip(backend.ip).unwrap_or(&self.stations.0[0]);
                (station, None, (plan.mode == Mode::Nat).then_some(end))
            }
            Way::Back => (self.stations.towards_client(was.to.0), Some((plan.vip, plan.port)), None),
        };
        let link =
            Link { dst: station.mac, src: port_mac(station.link), vlan: self.scenario.vlans[station.link] };
        (Shadow { link, from, to }, station.before)
    }
}

impl Oracle {
    /// A packet leaves that came in: judges and books it. Returns a change of backend, to be explained.
    pub(crate) fn judge(
        &mut self,
        view: &View<'_>,
        leaving: &Leaving<'_>,
        conns: &mut [Conn],
        trace: &mut Trace,
    ) -> Option<Mismatch> {
        let via = leaving.via;
        let booked = self.forwarded[via as usize];
        let mismatch = self.judge_segment(view, leaving, conns, trace);
        if via == Via::Hardware && self.forwarded[via as usize] == booked {
            self.strange += 1;
        }
        mismatch
    }

    fn judge_segment(
        &mut self,
        view: &View<'_>,
        leaving: &Leaving<'_>,
        conns: &mut [Conn],
        trace: &mut Trace,
    ) -> Option<Mismatch> {
        let Leaving { origin, port, frame, via } = *leaving;
        let (was, is) = (frames::read(&origin.frame), frames::read(frame));
        let (What::Segment(before), What::Segment(after)) =
            (&was.as_ref()?.what, &is.as_ref().map_or(&What::Other, |read| &read.what))
        else {
            self.judge_others(leaving, trace);
            self.dropped(origin, conns);
            return None;
        };
        if after.flags() & RST != 0 && before.flags() & RST == 0 && !origin.mutated {
            self.judge_reset(view, origin, conns, trace);
            self.dropped(origin, conns);
            return None;
        }
        let Some(place) = view.place(before, is.as_ref()?, after, port) else {
            if !origin.mutated {
                trace.fail(Checker::Agreement, || format!("{before:?} became {after:?}, for nobody we know"));
            }
            self.own += 1;
            return None;
        };
        let was = was.as_ref()?;
        // A device counts frames, whatever their headers say of lengths.
        let bytes = if via == Via::Hardware { origin.frame.len() - was.l3 } else { was.ip_len };
        self.book(place, via, bytes);
        if origin.mutated {
            self.mutants += 1;
            return None;
        }
        self.compare(view, leaving, place, before, trace);
        let backend = &view.services[place.service].backends[place.backend];
        let faultless = view.scenario.faults.are_none();
        let enforced_ns = if faultless { ENFORCE_MAX_NS } else { ENFORCE_ANYWAY_NS };
        let barred = backend.barred_at;
        if via == Via::Hardware && barred.is_some_and(|at| view.is_overdue(at + enforced_ns)) {
            trace.fail(Checker::Liveness, || {
                let since = barred.unwrap_or(0) / 1_000_000;
                format!("a rule still forwards {before:?} for {backend:?}, barred since {since} ms")
            });
        }
        let conn = origin.conn.filter(|_| place.way == Way::There)?;
        owned(view.now, conn, place.backend, via, conns)
    }

    fn book(&mut self, place: Place, via: Via, bytes: usize) {
        self.forwarded[via as usize] += 1;
        let Some(id) = self.ids.get(&(place.service, place.backend)) else { return };
        let count = &mut self.books.entry(*id).or_default().seen[place.way as usize][via as usize];
        count.packets += 1;
        count.bytes += bytes as u64;
    }

    /// Fragments, errors, answers to pings and questions.
    fn judge_others(&mut self, leaving: &Leaving<'_>, trace: &mut Trace) {
        if leaving.via == Via::Hardware && !leaving.origin.mutated {
            trace.fail(Checker::Agreement, || format!("a rule took {:02x?}", leaving.origin.frame));
        }
        self.own += 1;
    }

    /// Millrace ended a connection: only for a backend that is gone.
    fn judge_reset(&mut self, view: &View<'_>, origin: &Origin, conns: &mut [Conn], trace: &mut Trace) {
        self.own += 1;
        let Some(conn) = origin.conn.and_then(|id| conns.get_mut(id as usize)) else { return };
        let backends = &view.services[conn.service].backends;
        let there = |backend: &BackendPlan| {
            backend.configured && backend.back_at.is_none_or(|at| view.now > at + ADOPT_MAX_NS)
        };
        let denied = view.policies.was_denied(conn.client.0);
        let for_nothing = !denied && conn.owner.is_none_or(|owner| there(&backends[owner]));
        conn.reset |= !for_nothing;
        if std::mem::replace(&mut conn.excused, true) {
            return; // It has moved already; this reset waited for its next hop.
        }
        if for_nothing {
            let client = conn.client;
            trace.fail(Checker::Affinity, || format!("{client:?} was reset though its backend is there"));
        }
    }

    /// What came out must be what the translation makes of what came in.
    fn compare(
        &mut self,
        view: &View<'_>,
        leaving: &Leaving<'_>,
        place: Place,
        before: &Segment,
        trace: &mut Trace,
    ) {
        let (mut shadow, old) = view.expected(place, before);
        let out_to = frames::read(leaving.frame).map(|read| read.link.dst);
        if let Some((mac, until)) = old.filter(|(mac, _)| Some(*mac) == out_to) {
            let late = if leaving.via == Via::Hardware { view.is_overdue(until) } else { view.now > until };
            if late {
                self.pcc.moved += u64::from(leaving.via == Via::Hardware);
                trace.fail(Checker::Liveness, || {
                    format!("{before:?} still goes to {mac} ({:?}), which moved", leaving.via)
                });
            }
            shadow.link.dst = mac;
        }
        let control = before.flags() & (frames::SYN | frames::FIN | RST) != 0;
        let read = frames::read(&leaving.origin.frame);
        let software_only = control || before.ttl <= 1 || read.is_some_and(|read| read.fragment);
        if leaving.via == Via::Hardware && software_only {
            trace.fail(Checker::Agreement, || format!("a rule took {before:?}, which is software's"));
        }
        let want = frames::translate(&leaving.origin.frame, &shadow);
        if !want.as_ref().is_some_and(|want| frames::same(leaving.frame, want)) {
            let (got, via) = (leaving.frame, leaving.via);
            trace.fail(Checker::Agreement, || {
                format!("{via:?} made of {before:?}\n  {got:02x?}\n  but it should be\n  {want:02x?}")
            });
        }
    }

    /// A packet was dropped by its holder, or became something else: it may be in the counters.
    pub(crate) fn dropped(&mut self, origin: &Origin, conns: &[Conn]) {
        if !matches!(frames::read(&origin.frame), Some(Read { what: What::Segment(_), .. })) {
            return;
        }
        let place = origin.conn.filter(|_| !origin.mutated).and_then(|id| {
            let conn = conns.get(id as usize)?;
            Some((conn.service, conn.owner?))
        });
        match place.and_then(|place| self.ids.get(&place)) {
            Some(id) => self.books.entry(*id).or_default().slack[origin.way as usize] += 1,
            None => self.slack += 1,
        }
    }
}

/// Remembers the first backend of a connection; a change is returned.
fn owned(now: u64, id: u32, backend: usize, via: Via, conns: &mut [Conn]) -> Option<Mismatch> {
    let conn = conns.get_mut(id as usize)?;
    conn.software += u64::from(via == Via::Software);
    let Some(from) = conn.owner else {
        (conn.owner, conn.owned_since) = (Some(backend), now);
        return None;
    };
    (from != backend).then_some(Mismatch { conn: id, from, to: backend, via })
}
