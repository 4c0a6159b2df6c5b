//! What one queue receives: the packets of its flows, over and over, and among them connections that come and
//! go.

use crate::args::{Args, Flags, Protocol};
use crate::frame::{Kind, Template};
use crate::order::{NUMBERS, Order};
use crate::pace::Pace;

/// Flow numbers for connections that come and go: this many from `flows` on, then again.
const NEW_NUMBERS: u64 = 1 << 31;

/// Bursts that make a turn. The next segment of a connection is sent one to two turns after the one before:
/// until then, answers can be back.
const TURN_BURSTS: u32 = 16;

/// Connections that are late, at most. A device that is slower than they come does not get them all at once
/// when it is faster again.
const LATE_MAX: u64 = 1024;

/// Flow numbers that are made at once.
const BATCH: usize = 32;

/// What a connection sends in its life.
const LIFE: [Kind; 4] = [Kind::Syn, Kind::Ack, Kind::Fin, Kind::LastAck];

/// The packets of one queue.
#[derive(Debug)]
pub struct Source {
    data: Option<(Template, Order)>,
    /// Whether every packet of the data is of a new flow.
    fresh: bool,
    /// `None`: as many as are asked for.
    pace: Option<Pace>,
    /// Packets of the flows still to be sent; `None`: no end, or `pace` knows it.
    left: Option<u64>,
    churn: Option<Churn>,
    /// Packets of connections that come and go, in the burst that was asked about last.
    planned: usize,
    started: u64,
}

impl Source {
    /// What `queue` of `queues` receives, with `to` for its MAC address. `hz`: ticks of time per second.
    pub fn new(args: &Args, queue: u16, queues: u16, to: [u8; 6], hz: u64) -> Source {
        let kind = match (args.protocol, args.flags) {
            (Protocol::Udp, _) => Kind::Datagram,
            (Protocol::Tcp, Flags::Syn) => Kind::Syn,
            (Protocol::Tcp, Flags::Ack) => Kind::Data,
        };
        let numbers = if args.fresh && args.flows > 0 { NUMBERS } else { u64::from(args.flows) };
        let order = Order::new(numbers, queue.into(), queues.into(), args.shuffled, args.seed);
        let data = order.map(|order| (Template::new(args, kind, args.size, to), order));
        let churn = Churn::new(args, queue, queues, to, hz);
        let left = share(args.count, queue, queues);
        let pace = (args.rate > 0).then(|| Pace::new(args.rate, left.unwrap_or(u64::MAX), queues, hz));
        let left = left.filter(|_| pace.is_none());
        Source { data, fresh: args.fresh, pace, left, churn, planned: 0, started: 0 }
    }

    /// Bytes that a buffer must have.
    pub fn room(&self) -> usize {
        let data = self.data.as_ref().map_or(0, |(template, _)| template.room());
        let churn = self.churn.iter().flat_map(|churn| &churn.templates).map(Template::room);
        churn.fold(data, usize::max)
    }

    /// How many packets there are for a burst of at most `room`.
    #[inline]
    pub fn ready(&mut self, now: u64, room: usize) -> usize {
        if let Some(churn) = &mut self.churn {
            // Data goes on, however many connections come.
            let most = if self.data.is_some() { room / 2 } else { room };
            self.planned = churn.plan(now, most);
        }
        if self.data.is_none() {
            return self.planned;
        }
        let most = room - self.planned;
        let most = self.left.map_or(most, |left| usize::try_from(left).map_or(most, |left| left.min(most)));
        self.planned + self.pace.as_mut().map_or(most, |pace| pace.due(now, most))
    }

    /// The packets of such a burst, some at a time: `write` gets the number, from 0 on, of the first of them,
    /// their template and their flows.
    #[inline]
    pub fn take(&mut self, count: usize, mut write: impl FnMut(usize, &Template, &[u32])) {
        let planned = self.planned.min(count);
        if let Some(churn) = &mut self.churn {
            let before = churn.sent[0];
            churn.take(planned, &mut write);
            self.started += churn.sent[0] - before;
            self.planned = 0;
        }
        let Some((template, order)) = &mut self.data else { return };
        let mut flows = [0; BATCH];
        let mut at = planned;
        while at < count {
            let flows = &mut flows[..BATCH.min(count - at)];
            order.fill(flows);
            write(at, template, flows);
            at += flows.len();
        }
        if self.fresh {
            self.started += (count - planned) as u64;
        }
        if let Some(pace) = &mut self.pace {
            pace.sent(count - planned);
        }
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub((count - planned) as u64);
        }
    }

    /// Connections begun so far that come and go, or flows that were not there before.
    pub fn started(&self) -> u64 {
        self.started
    }
}

/// A queue's part of a count; `None`: there is none.
fn share(count: u64, queue: u16, queues: u16) -> Option<u64> {
    let queues = u64::from(queues.max(1));
    (count > 0).then(|| count / queues + u64::from(u64::from(queue) < count % queues))
}

/// Connections that come and go. None is stored: the `n`th of a stage is the `n`th of the stage before.
#[derive(Debug)]
struct Churn {
    /// By stage of life.
    templates: Vec<Template>,
    /// Connections that have been through each stage.
    sent: [u64; LIFE.len()],
    /// As `sent` was at the end of the last turn.
    before: [u64; LIFE.len()],
    /// How far each may go now.
    allowed: [u64; LIFE.len()],
    bursts: u32,
    /// When it began; `None` before the first burst.
    origin: Option<u64>,
    /// Connections per tick, with 64 bits behind the point.
    scale: u64,
    /// Connections given up for being late.
    skipped: u64,
    /// Connections after which none begins.
    most: u64,
    first: u32,
    queue: u64,
    queues: u64,
}

impl Churn {
    fn new(args: &Args, queue: u16, queues: u16, to: [u8; 6], hz: u64) -> Option<Churn> {
        if args.new == 0 {
            return None;
        }
        let life: &[Kind] = if args.protocol == Protocol::Udp { &[Kind::Datagram] } else { &LIFE };
        let scale = (u128::from(args.new) << 64) / (u128::from(queues.max(1)) * u128::from(hz.max(1)));
        Some(Churn {
            templates: life.iter().map(|kind| Template::new(args, *kind, 0, to)).collect(),
            sent: [0; LIFE.len()],
            before: [0; LIFE.len()],
            allowed: [0; LIFE.len()],
            bursts: 0,
            origin: None,
            scale: u64::try_from(scale).unwrap_or(u64::MAX),
            skipped: 0,
            most: share(args.count, queue, queues).unwrap_or(u64::MAX),
            first: args.flows,
            queue: queue.into(),
            queues: queues.into(),
        })
    }

    /// How many packets are due, up to `most`.
    #[inline]
    fn plan(&mut self, now: u64, most: usize) -> usize {
        self.bursts += 1;
        if self.bursts >= TURN_BURSTS {
            self.bursts = 0;
            for stage in (1..self.templates.len()).rev() {
                self.allowed[stage] = self.before[stage - 1];
                self.before[stage - 1] = self.sent[stage - 1];
            }
        }
        let elapsed = now.wrapping_sub(*self.origin.get_or_insert(now));
        let due = ((u128::from(elapsed) * u128::from(self.scale) >> 64) as u64).min(self.most);
        let late = due.saturating_sub(self.skipped + self.sent[0]);
        self.skipped += late.saturating_sub(LATE_MAX);
        self.allowed[0] = due.saturating_sub(self.skipped);
        let open =
            self.allowed.iter().zip(&self.sent).map(|(to, from)| to.saturating_sub(*from)).sum::<u64>();
        usize::try_from(open).map_or(most, |open| open.min(most))
    }

    /// Sends so many: ends before beginnings.
    fn take(&mut self, count: usize, mut write: impl FnMut(usize, &Template, &[u32])) {
        let mut at = 0;
        for (stage, template) in self.templates.iter().enumerate().rev() {
            while at < count && self.sent[stage] < self.allowed[stage] {
                let number = (self.sent[stage] * self.queues + self.queue) % NEW_NUMBERS;
                write(at, template, &[self.first.wrapping_add(number as u32)]);
                self.sent[stage] += 1;
                at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    const HZ: u64 = 1_000_000;

    fn source(args: &str, queue: u16, queues: u16) -> Source {
        Source::new(&Args::parse(args).unwrap(), queue, queues, [2; 6], HZ)
    }

    /// Flow and TCP flags of each packet of a burst.
    fn burst(source: &mut Source, now: u64, room: usize) -> Vec<(u32, u8)> {
        let count = source.ready(now, room);
        let mut packets = Vec::new();
        source.take(count, |at, template, flows| {
            assert_eq!(at, packets.len());
            for flow in flows {
                let mut frame = vec![0; template.room()];
                template.write(*flow, &mut frame);
                packets.push((*flow, frame[47]));
            }
        });
        assert_eq!(packets.len(), count);
        packets
    }

    #[test]
    fn without_flows_there_is_nothing() {
        assert!(burst(&mut source("flows=0", 0, 1), 1, 32).is_empty());
        assert!(burst(&mut source("flows=0,fresh=1", 0, 1), 1, 32).is_empty());
        assert!(burst(&mut source("flows=2", 2, 3), 1, 32).is_empty(), "a queue without a share");
        assert_eq!(burst(&mut source("flows=2", 1, 3), 1, 32).len(), 32);
    }

    #[test]
    fn a_rate_is_of_the_flows_alone() {
        let mut source = source("rate=1000,flows=8,new=500", 0, 1);
        let packets: Vec<_> = (0..=HZ / 100).flat_map(|at| burst(&mut source, at * 100, 32)).collect();
        let count = packets.iter().filter(|(flow, _)| *flow < 8).count();
        assert!((999..=1000).contains(&count), "{count}");
    }

    #[test]
    fn a_count_ends_it() {
        for queue in 0..3 {
            let mut flows = source("rate=100000,flows=8,count=10", queue, 3);
            let sent = (0..1000).map(|now| burst(&mut flows, now, 32).len()).sum::<usize>();
            assert_eq!(sent, if queue == 0 { 4 } else { 3 });
            let mut flows = source("flows=8,count=10", queue, 3);
            let sent = (0..9).map(|now| burst(&mut flows, now, 2).len()).sum::<usize>();
            assert_eq!(sent, if queue == 0 { 4 } else { 3 });
        }
        let mut churn = source("flows=0,new=1000,count=7", 0, 1);
        let sent: Vec<_> = (0..1000).flat_map(|at| burst(&mut churn, at * 100, 32)).collect();
        assert_eq!((sent.len(), churn.started()), (28, 7));
    }

    #[test]
    fn a_flood_is_of_ever_new_flows() {
        let mut source = source("flags=syn,fresh=1", 0, 1);
        let mut flows: Vec<_> = (0..100).flat_map(|now| burst(&mut source, now, 32)).collect();
        assert!(flows.iter().all(|(_, flags)| *flags == 2));
        flows.sort_unstable();
        flows.dedup();
        assert_eq!((flows.len(), source.started()), (3200, 3200));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn connections_live_in_order_and_at_their_rate(
            new in 1..2000_u64, queues in 1..4_u16, udp: bool, flows in 0..2_u32, step in 200..2000_u64,
        ) {
            let args = format!("flows={},new={new},protocol={}", flows * 100, if udp { "udp" } else { "tcp" });
            let mut lives: HashMap<u32, Vec<(usize, u8)>> = HashMap::new();
            // A second's worth, and some turns for those that began last.
            let bursts = (HZ / step) as usize + 100;
            for queue in 0..queues {
                let mut source = source(&args, queue, queues);
                for number in 0..bursts {
                    let now = 77 + (number as u64 * step).min(HZ);
                    for (flow, flags) in burst(&mut source, now, 64) {
                        if flow >= flows * 100 {
                            lives.entry(flow).or_default().push((number, flags));
                        }
                    }
                }
            }
            let late = LATE_MAX * u64::from(queues);
            prop_assert!(lives.len() as u64 <= new && lives.len() as u64 + late.min(new) + 3 >= new);
            if new * step < HZ * 8 {
                prop_assert!(lives.len() as u64 + 3 >= new, "{} of {}", lives.len(), new);
            }
            for life in lives.values() {
                let flags: Vec<u8> = life.iter().map(|(_, flags)| *flags).collect();
                prop_assert!(udp || [0x02, 0x10, 0x11, 0x10].starts_with(&flags), "{:x?}", flags);
                prop_assert!(life.windows(2).all(|pair| pair[1].0 - pair[0].0 >= TURN_BURSTS as usize));
            }
            if !udp && new * step < HZ * 8 {
                prop_assert!(lives.values().all(|life| life.len() == 4));
            }
        }
    }
}
