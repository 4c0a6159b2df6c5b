//! Whatever happens to a single packet, a shadow of the worker is asked first what will: the two must
//! agree on every byte and every count.

use super::TestEnv;
use dataplane::addr::Ip;
use dataplane::config::Limits;
use dataplane::conntrack::ConnectionRow;
use dataplane::counters::WorkerCounters;
use dataplane::ids::{PortId, TenantId};
use dataplane::offload::{Ask, FlowRef};
use dataplane::owner::Owners;
use dataplane::packet::{PacketBuf, TestPacket};
use dataplane::rewrite;
use dataplane::snapshot::{Encapsulation, Snapshot};
use dataplane::time::Tick;
use dataplane::wire::{self, FragmentRole, IcmpMessage};
use dataplane::worker::{Excerpt, Note, Shadow, Sizes, Walked, Worker};
use std::sync::Arc;

/// What a shadow said before the worker had the packet, and what had been counted by then.
pub(super) struct Foretold {
    shadow: Shadow,
    walked: Walked,
    before: Vec<u64>,
    sent: usize,
    asks: usize,
    revokes: usize,
}

/// What a packet can be counted as.
fn counts(counters: &WorkerCounters) -> Vec<u64> {
    let WorkerCounters { consumed, generated, handed_out, offload_miss, offload_late, .. } = counters;
    let plain = [consumed, generated, handed_out, offload_miss, offload_late];
    plain.into_iter().chain(&counters.dropped).map(|counter| counter.get()).collect()
}

/// Between whom a frame's connection is; `None` of fragments, whose past a shadow does not know.
fn ends_of(snapshot: &Snapshot, port: PortId, frame: &[u8]) -> Option<(TenantId, [Ip; 2])> {
    let port = snapshot.lan(port, frame).unwrap_or(port);
    let (port, frame) = inside(snapshot, port, frame).unwrap_or((port, frame));
    let tenant = snapshot.port(port)?.tenant;
    let nobody = Some((tenant, [Ip::v4(0); 2]));
    let Ok(parsed) = wire::parse(frame, tenant) else { return nobody };
    if parsed.fragment != FragmentRole::Whole {
        return None;
    }
    let key = match wire::icmp_message(frame, &parsed) {
        Ok(IcmpMessage::Error(quoted)) => quoted.key,
        _ => parsed.key,
    };
    Some((tenant, [key.src, key.dst]))
}

/// The frame inside of one that came through a tunnel, and the port behind that.
fn inside<'f>(snapshot: &Snapshot, port: PortId, frame: &'f [u8]) -> Option<(PortId, &'f [u8])> {
    let parsed = wire::parse(frame, TenantId(0)).ok()?;
    let payload = rewrite::datagram(frame, &parsed).get(8..)?;
    let (vni, at) = match snapshot.tunnel_at(port, parsed.key.dst_port)? {
        Encapsulation::Geneve => wire::geneve::parse(payload).ok()?,
        _ => (wire::vxlan::parse(payload).ok()?, 8),
    };
    let port = snapshot.tunnel_port(port, parsed.key.dst_port, vni, parsed.key.src).ok()?;
    Some((port, payload.get(at..)?))
}

/// Asks a shadow of `worker` what will become of a frame.
pub(super) fn foretell(
    (worker, env): (&Worker<TestPacket>, &TestEnv),
    (snapshot, owners, limits): (&Arc<Snapshot>, &Owners, &Limits),
    (now, port, frame): (Tick, PortId, &[u8]),
) -> Option<Foretold> {
    let (tenant, ends) = ends_of(snapshot, port, frame)?;
    if env.ring_full || env.asks_full || env.revokes_full || env.pool_empty {
        return None;
    }
    let mut excerpt = Excerpt::new(tenant, ends, 128, limits.neighbours as usize);
    while !excerpt.is_complete() {
        super::forbidden(|| worker.excerpt(now, &mut excerpt, 37));
    }
    let mut shadow = Shadow::new(Arc::clone(snapshot), owners.clone(), &Sizes::of(limits), &excerpt);
    let walked = shadow.receive(port, [frame]);
    let before = counts(&env.counters);
    let (sent, asks, revokes) = (env.sent.len(), env.asks.len(), env.revokes.len());
    Some(Foretold { shadow, walked, before, sent, asks, revokes })
}

impl Foretold {
    /// Holds what the worker did against what was said.
    pub(super) fn comes_true(self, now: Tick, worker: &Worker<TestPacket>, env: &TestEnv) {
        let Foretold { shadow, walked, before, sent, asks, revokes } = self;
        let notes = &walked.notes;
        let after = counts(&env.counters);
        let counted: Vec<u64> = after.iter().zip(before).map(|(after, before)| after - before).collect();
        assert_eq!(counts(shadow.counters()), counted, "{notes:?}");
        let really = env.sent[sent..].iter().map(|(port, packet)| (*port, packet.data().to_vec()));
        let really: Vec<_> = really.collect();
        // What has waited there is not at hand here: an empty frame stands in for it.
        let mut pairs = walked.sent.iter().zip(&really);
        let same = walked.sent.len() == really.len()
            && pairs.all(|(one, other)| one == other || (one.0 == other.0 && one.1.is_empty()));
        assert!(same, "{notes:?}\n{:02x?}\n{really:02x?}", walked.sent);
        let handed: Vec<_> = env.handed.iter().map(|(to, _)| *to).collect();
        assert_eq!(walked.handed, handed, "{notes:?}");
        // A new connection has a name of its own here.
        let opened = notes.iter().any(|note| matches!(note, Note::Opened { .. }));
        let unnamed = |ask: &Ask| if opened { Ask { flow: NO_NAME, ..*ask } } else { *ask };
        let asked = |asks: &[Ask]| asks.iter().map(unnamed).collect::<Vec<_>>();
        assert_eq!(asked(&walked.asks), asked(&env.asks[asks..]), "{notes:?}");
        assert_eq!(walked.revokes, env.revokes[revokes..], "{notes:?}");
        let same = |shadow: &Note, real: &Note| match (shadow, real) {
            // Slots are the shadow's own.
            (Note::Opened { picked_up: one, .. }, Note::Opened { picked_up: other, .. }) => one == other,
            (Note::Known { state: one, backend: of, .. }, Note::Known { state: other, backend, .. }) => {
                (one, of) == (other, backend)
            }
            _ => shadow == real,
        };
        // The shadow has room where the worker may have had to make some.
        let mut told = env.notes.iter().filter(|note| !matches!(note, Note::Evicted { .. }));
        let agree = notes.iter().all(|note| told.next().is_some_and(|real| same(note, real)));
        assert!(agree && told.next().is_none(), "{notes:?}\n{:?}", env.notes);
        for note in notes {
            let Note::Known { slot, .. } = note else { continue };
            let ours = shadow.connection(*slot);
            let theirs = ours.and_then(|row| connection(now, worker, &row));
            let unnamed = |row: ConnectionRow| ConnectionRow { flow: NO_NAME, ..row };
            assert_eq!(ours.map(unnamed), theirs.map(unnamed), "{notes:?}");
        }
    }
}

const NO_NAME: FlowRef = FlowRef { worker: dataplane::ids::WorkerId(0), slot: 0, generation: 0 };

fn connection(now: Tick, worker: &Worker<TestPacket>, like: &ConnectionRow) -> Option<ConnectionRow> {
    let mut rows = Vec::with_capacity(worker.table_size().0);
    worker.dump_connections(now, &mut Some(0), usize::MAX, &mut rows);
    rows.into_iter().find(|row| row.key == like.key)
}
