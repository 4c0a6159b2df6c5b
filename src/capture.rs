//! `capture`: frames of chosen connections as workers receive and send them, as pcapng.
//!
//! One capture at a time. It is begun by a request, which tells the workers of it; it is read page by page,
//! by the thread that serves the control API, so that nobody else waits for that; and it ends by itself:
//! after so many packets, after so long, or when nobody reads. Connections in hardware that are chosen come
//! back to software for the time.

mod command;
mod desk;
mod file;
mod filter;
mod pcapng;
mod tape;

pub(crate) use command::capture;
pub(crate) use desk::Desk;
pub(crate) use tape::{Recorder, Tape};

use crate::access::Caller;
use crate::api::{Refusal, RefusalKind};
use crate::clock::{self, Clock};
use dataplane::capture::Choice;
use dataplane::ids::PortId;
use filter::{Filter, PATTERN};
use pcapng::Packet;
use schemars::JsonSchema;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tape::{Fate, Frame, Reel};

/// Bytes of a page, about.
const PAGE_BYTES: usize = 1 << 20;
/// How long a page waits for something to be in it,
const PAGE_WAIT: Duration = Duration::from_millis(500);
/// and how often it looks.
const PAGE_LOOK: Duration = Duration::from_millis(10);
/// A capture that nobody has read for so long has ended.
const ABANDONED: Duration = Duration::from_secs(5);

/// How long a worker may take to come to the end of the packet at hand: one that hangs must not keep the file
/// open.
const CLOSING_MAX: Duration = Duration::from_secs(2);

/// What is to be captured.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct CaptureQuery {
    /// Terms side by side, which must all hold: `client=`, `vip=`, `backend=`, `service=`, `port=`,
    /// `tenant=`, `protocol=`, `dropped`. All packets if not given.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(regex(pattern = PATTERN))]
    pub(crate) filter: String,
    /// At most so many packets; 10,000 if not given.
    #[serde(default, deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000_000))]
    pub(crate) count: Option<u64>,
    /// For so long; 30 if not given.
    #[serde(default, deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3600))]
    pub(crate) seconds: Option<u32>,
    /// Bytes of each frame; all of them if not given.
    #[serde(default, deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 14, max = 65535))]
    pub(crate) snaplen: Option<u32>,
    /// Connections that hardware has stay there, and are seen only as far as their packets come to software.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) leave_offloaded: Option<bool>,
}

/// Which capture.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct CaptureId {
    /// As the request was told that began it.
    #[serde(deserialize_with = "one_number")]
    pub(crate) id: u32,
}

/// A number as JSON Schema has integers: `30.0` is one.
fn number<'de, D, T>(from: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<u64>,
{
    let Some(number) = Option::<f64>::deserialize(from)? else { return Ok(None) };
    let whole = number.fract() == 0.0 && (0.0..=u32::MAX.into()).contains(&number);
    let found = whole.then(|| T::try_from(number as u64).ok()).flatten();
    found.map(Some).ok_or_else(|| D::Error::custom(format!("{number} is no such number")))
}

fn one_number<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    number(from)?.ok_or_else(|| D::Error::custom("a number is missing"))
}

/// A capture, and what has come of it so far.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CaptureRow {
    /// For those who read it.
    pub(crate) id: u32,
    /// Who began it.
    pub(crate) by: String,
    pub(crate) filter: String,
    /// At most so many packets,
    pub(crate) count: u64,
    /// for so long.
    pub(crate) seconds: u32,
    /// Bytes of each frame.
    pub(crate) snaplen: u32,
    /// Packets written,
    pub(crate) packets: u64,
    /// and what they had: bytes of frames.
    pub(crate) bytes: u64,
    /// Packets that came faster than they were read.
    pub(crate) lost: u64,
    /// Connections taken back from hardware for it.
    pub(crate) recalled: u64,
    /// Why it has ended: `count`, `seconds`, `stopped` or `abandoned` (nobody read it); absent until then.
    pub(crate) ended: Option<String>,
}

/// Why a capture has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum End {
    Count = 1,
    Seconds = 2,
    Stopped = 3,
    Abandoned = 4,
}

impl End {
    const NAMES: [&str; 5] = ["", "count", "seconds", "stopped", "abandoned"];
}

/// A capture: what workers fill, and readers empty.
pub(crate) struct Capture {
    id: u32,
    by: String,
    text: String,
    filter: Filter,
    count: u64,
    seconds: u32,
    snaplen: u32,
    /// Whether it takes connections back from hardware.
    recalls: bool,
    /// By worker.
    reels: Vec<Reel>,
    /// Names and devices, by port.
    ports: Vec<(String, String)>,
    clock: Clock,
    /// What the clock's start is since 1970, nanoseconds.
    epoch_ns: u64,
    until: Instant,
    /// An [`End`], or 0.
    ended: AtomicU8,
    reading: Mutex<Reading>,
}

/// How far it has been read.
struct Reading {
    at: Instant,
    begun: bool,
    finished: bool,
    /// Since when it is known to be over.
    over: Option<Instant>,
    /// Packets and bytes, by port.
    written: Vec<(u64, u64)>,
}

impl Reading {
    /// Nothing was read yet, of so many ports.
    fn new(at: Instant, ports: usize) -> Reading {
        Reading { at, begun: false, finished: false, over: None, written: vec![(0, 0); ports] }
    }
}

impl fmt::Debug for Capture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Capture {}", self.id)
    }
}

impl Capture {
    /// Whether nothing more is to be taken down.
    pub(crate) fn is_over(&self) -> bool {
        self.ended.load(Relaxed) != 0
    }

    /// Connections to be kept in software.
    pub(crate) fn recalled(&self) -> Option<Arc<Choice>> {
        self.recalls.then(|| Arc::clone(&self.filter.choice))
    }

    fn end(&self, why: End) {
        // The first reason stays.
        let _ = self.ended.compare_exchange(0, why as u8, Relaxed, Relaxed);
    }

    /// Ends it if its time has come, or its reader gone.
    fn look(&self, now: Instant) {
        if now >= self.until {
            self.end(End::Seconds);
        }
        if now.saturating_duration_since(self.reading().at) > ABANDONED {
            self.end(End::Abandoned);
        }
    }

    fn reading(&self) -> MutexGuard<'_, Reading> {
        // Numbers are all there is in it, and they are whole.
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next part of the file, if there is something new to be in it.
    ///
    /// # Errors
    ///
    /// The file has come to its end before.
    fn page(&self, now: Instant) -> Result<Vec<u8>, Refusal> {
        self.look(now);
        let mut reading = self.reading();
        if reading.finished {
            let error = format!("capture {} has been read to its end", self.id);
            return Err(Refusal::new(RefusalKind::NotFound, error));
        }
        reading.at = now;
        let mut out = Vec::new();
        if !std::mem::replace(&mut reading.begun, true) {
            self.begin(&mut out);
        }
        // Known before the frames are taken: then there is nothing more.
        let complete = self.is_over() && {
            let over = *reading.over.get_or_insert(now);
            let late = now.saturating_duration_since(over) >= CLOSING_MAX;
            late || self.reels.iter().all(Reel::is_closed)
        };
        let (frames, more) = self.take();
        let last_ns = frames.last().map_or(self.epoch_ns, |(_, frame)| self.unix_ns(frame));
        for (worker, frame) in frames {
            self.write(&frame, &mut reading, &mut out);
            if let Some(reel) = self.reels.get(worker) {
                reel.give_back(frame);
            }
        }
        if complete && !more {
            reading.finished = true;
            for (number, (packets, _)) in reading.written.iter().enumerate() {
                let lost = self.reels.iter().map(|reel| reel.lost(number)).sum();
                pcapng::statistics(&mut out, PortId(number as u16), last_ns, *packets, lost);
            }
        }
        Ok(out)
    }

    fn begin(&self, out: &mut Vec<u8>) {
        pcapng::section(out, &format!("millrace {}", crate::version::SHORT));
        for (name, device) in &self.ports {
            pcapng::interface(out, name, device, self.snaplen);
        }
    }

    /// About a page of frames, in the order of their times, with their workers; and whether there are more.
    fn take(&self) -> (Vec<(usize, Box<Frame>)>, bool) {
        let (mut frames, mut more) = (Vec::new(), false);
        for (worker, reel) in self.reels.iter().enumerate() {
            let mut bytes = 0;
            while bytes < PAGE_BYTES {
                let Some(frame) = reel.next() else { break };
                bytes += frame.bytes.len();
                frames.push((worker, frame));
            }
            more |= bytes >= PAGE_BYTES;
        }
        // Frames of one worker and one time stay as they were.
        frames.sort_by_key(|(_, frame)| frame.cycles);
        (frames, more)
    }

    fn write(&self, frame: &Frame, reading: &mut Reading, out: &mut Vec<u8>) {
        let so_far: u64 = reading.written.iter().map(|(packets, _)| packets).sum();
        let Some((packets, bytes)) = reading.written.get_mut(frame.port.index()) else { return };
        if so_far >= self.count {
            return;
        }
        *packets += 1;
        *bytes += u64::from(frame.length);
        let comment = match frame.fate {
            Fate::Usual => None,
            Fate::Waits => Some("waits".to_owned()),
            Fate::Dropped(reason) => Some(format!("dropped: {}", reason.label())),
        };
        pcapng::packet(
            out,
            &Packet {
                interface: frame.port,
                at_ns: self.unix_ns(frame),
                inbound: frame.inbound,
                length: frame.length,
                bytes: &frame.bytes,
                comment: comment.as_deref(),
            },
        );
        if so_far + 1 == self.count {
            self.end(End::Count);
        }
    }

    fn unix_ns(&self, frame: &Frame) -> u64 {
        self.epoch_ns + self.clock.nanoseconds(frame.cycles)
    }

    /// The first worker that has yet to give its tape back.
    fn lingers(&self) -> Option<usize> {
        self.reels.iter().position(|reel| !reel.is_returned())
    }

    /// Whether nobody will read it any more.
    fn is_read(&self, now: Instant) -> bool {
        let reading = self.reading();
        reading.finished || now.saturating_duration_since(reading.at) > ABANDONED
    }

    /// What has come of it; `recalled` are connections.
    fn row(&self, recalled: u64) -> CaptureRow {
        let reading = self.reading();
        let lost = |number| self.reels.iter().map(move |reel| reel.lost(number)).sum::<u64>();
        let ended = End::NAMES.get(usize::from(self.ended.load(Relaxed))).filter(|name| !name.is_empty());
        CaptureRow {
            id: self.id,
            by: self.by.clone(),
            filter: self.text.clone(),
            count: self.count,
            seconds: self.seconds,
            snaplen: self.snaplen,
            packets: reading.written.iter().map(|(packets, _)| packets).sum(),
            bytes: reading.written.iter().map(|(_, bytes)| bytes).sum(),
            lost: (0..self.ports.len()).map(lost).sum(),
            recalled,
            ended: ended.map(|name| (*name).to_owned()),
        }
    }
}

/// The next part of a capture's file: as soon as there is one, or empty after a while.
///
/// # Errors
///
/// See [`Capture::page`].
pub(crate) async fn next_page(capture: &Capture) -> Result<Vec<u8>, Refusal> {
    let begun = clock::monotonic();
    loop {
        let now = clock::monotonic();
        let page = capture.page(now)?;
        if !page.is_empty() || now.saturating_duration_since(begun) >= PAGE_WAIT {
            return Ok(page);
        }
        tokio::time::sleep(PAGE_LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Capture {
        /// A capture of all packets of so many workers, which come and go by two ports.
        pub(super) fn of_everything(workers: usize) -> Capture {
            let now = clock::monotonic();
            Capture {
                id: 1,
                by: "a test".into(),
                text: String::new(),
                filter: Filter::default(),
                count: 100,
                seconds: 3600,
                snaplen: 60,
                recalls: false,
                reels: (0..workers).map(|_| Reel::new(8, 60, 2)).collect(),
                ports: ["lan", "wan"].map(|name| (name.into(), String::new())).into(),
                clock: Clock::new(0, 1_000_000_000),
                epoch_ns: 0,
                until: now + Duration::from_secs(3600),
                ended: AtomicU8::new(0),
                reading: Mutex::new(Reading::new(now, 2)),
            }
        }
    }

    #[test]
    fn what_is_asked_for_is_read_as_its_schema_has_it() {
        let read = |text: &str| serde_json::from_str::<CaptureQuery>(text).map_err(|error| error.to_string());
        assert_eq!(read("{}"), Ok(CaptureQuery::default()));
        let query = read(r#"{"filter": "dropped", "count": 7, "seconds": 30.0}"#).expect("read");
        assert_eq!((query.count, query.seconds, query.snaplen), (Some(7), Some(30), None));
        for wrong in ["1.5", "-1", "1e99", "\"7\""] {
            assert!(read(&format!("{{\"count\": {wrong}}}")).is_err(), "{wrong}");
        }
        assert_eq!(serde_json::from_str::<CaptureId>("{\"id\": 7.0}").expect("read"), CaptureId { id: 7 });
    }
}
