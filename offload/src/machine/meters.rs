//! Meters in hardware: one for each of the configuration's whose connections are there.
//!
//! A device meters what its rules forward, and drops what is red; workers meter the rest. The rate is shared
//! out between the two by [`crate::share`], again in every period; and what hardware may have had since the
//! last step, and a burst each time it was told a rate, is reserved in the meter's own bucket, so both
//! together stay within the rate whatever happens. Of a burst each half has one half.
//!
//! Connections whose meter no device here can apply, or which are under several, stay in software.
//!
//! Where rules count what their meter finds red, too ([`Metering::counts_red`]), that is taken from the
//! counts of all its connections, each in proportion, as it is told: so their sum is exact, and each nearly
//! so.

use super::{MS, Machine};
use crate::engine::{EngineError, FlowEngine, Meter as Wanted, Metering};
use crate::rule::{Domain, Rule};
use crate::share::{News, PERIOD_NS, Seen, Share};
use dataplane::conntrack::Count;
use dataplane::ids::ServiceId;
use dataplane::meter::{Bucket, Meter, Nanos, Tokens};
use dataplane::offload::{Ask, Declined};
use dataplane::snapshot::Snapshot;
use dataplane::wire::ether;
use std::collections::HashMap;
use std::sync::Arc;

/// How often what hardware had is reserved, nanoseconds: more often than workers notice.
const RESERVE_NS: u64 = MS;
/// A meter that no rule names is kept for so long, nanoseconds, for those that come.
const UNUSED_NS: u64 = 5_000 * MS;
/// A meter that the device has refused is not asked for again for so long, nanoseconds.
const REFUSED_NS: u64 = 1_000 * MS;
/// The frames of a device's bytes are taken to be as large as ever unless they differ by more than this
/// fraction.
const COARSE: u64 = 64;
/// A small burst is of so many packets at least, of a tunnel's largest size.
const LEAST_PACKETS: u64 = 16;
const LARGE: u64 = 2048;

/// Of what is known of red packets, so much fades in a period.
const FADING: f64 = 0.03;

/// The number of a meter in hardware. Never 0.
pub(super) type Number = u32;

/// Whether there is a meter for a connection.
pub(super) enum Found {
    /// There is.
    Ready(Number),
    /// It is being made.
    Soon,
    /// There will be none, for a while.
    Never,
}

/// One meter in hardware.
#[derive(Debug)]
struct Held {
    meter: Arc<Meter>,
    /// The ethdev whose rules it is for.
    port: u16,
    /// Pairs whose rules name it, and since when there are none.
    users: u32,
    unused_ns: u64,
    /// Tokens a second that the device has now, and as it counts; `None`: it has no such meter.
    told: Option<(u64, u64)>,
    /// Whether it was told anything: it may have made a meter without saying so.
    asked: bool,
    /// Until when it is not told again, having refused.
    refused_until_ns: u64,
    share: Share,
    /// Of a token: what has not been reserved yet, in 10^-9.
    part: u64,
    /// What had been drawn by software when it was looked at last,
    drawn: u64,
    /// and dropped by hardware.
    dropped: Count,
    /// What has passed in this period.
    passed: u64,
    /// Bytes of IP packet lately, and of the frames that they were in.
    sizes: (f64, f64),
    /// Packets lately, and bytes around them as the red ones are counted.
    around: (f64, f64),
    /// Red packets, and bytes of IP packet, that are in rules' counts.
    red: [Debt; 2],
}

/// What is to be taken from the counts of many, each in proportion.
#[derive(Clone, Copy, Debug, Default)]
struct Debt {
    /// What has not been taken yet.
    owed: u64,
    /// What was owed anew lately, and what there was to take it from.
    lately: (f64, f64),
    /// What should have been taken last time beyond whole ones.
    part: f64,
}

impl Debt {
    fn owe(&mut self, more: u64) {
        self.owed += more;
        self.lately.0 += more as f64;
    }

    /// What is left of a count.
    fn pay(&mut self, count: u64) -> u64 {
        self.lately.1 += count as f64;
        // A little more than lately, for as long as something is left of before.
        let share = (self.lately.0 + self.owed as f64 / 4.0) / self.lately.1.max(1.0);
        let wanted = count as f64 * share.min(1.0) + self.part;
        let taken = (wanted as u64).min(self.owed).min(count);
        self.part = (wanted - taken as f64).clamp(0.0, 1.0);
        self.owed -= taken;
        count - taken
    }

    fn fade(&mut self) {
        self.lately = (self.lately.0 * (1.0 - FADING), self.lately.1 * (1.0 - FADING));
    }
}

/// All meters in hardware.
#[derive(Debug)]
pub(super) struct Meters {
    held: Vec<Option<Held>>,
    by_serial: HashMap<u32, Number>,
    reserved_ns: u64,
    period_ns: u64,
}

impl Held {
    fn new(meter: &Arc<Meter>, (tokens, bucket): (Tokens, &Bucket), port: u16, now_ns: u64) -> Held {
        let least = least_burst(tokens);
        Held {
            meter: Arc::clone(meter),
            port,
            users: 0,
            unused_ns: now_ns,
            told: None,
            asked: false,
            refused_until_ns: now_ns,
            share: Share::new(bucket.per_second(), bucket.depth(), least),
            part: 0,
            drawn: bucket.drawn(),
            dropped: Count::default(),
            passed: 0,
            sizes: (0.0, 0.0),
            around: (0.0, 0.0),
            red: [Debt::default(); 2],
        }
    }

    /// Its limit has changed: the device's meter stays, and is told what it has of the new one.
    fn rehome(&mut self, meter: &Arc<Meter>, (tokens, bucket): (Tokens, &Bucket)) {
        self.share = self.share.resized(bucket.per_second(), bucket.depth(), least_burst(tokens));
        (self.drawn, self.part) = (bucket.drawn(), 0);
        self.meter = Arc::clone(meter);
    }

    /// Whether the device goes by a limit that is no more.
    fn is_outdated(&self) -> bool {
        self.told.is_some() && self.share.last_told().is_none()
    }

    fn is_used(&self) -> bool {
        self.users > 0 && self.told.is_some()
    }

    /// Tells the device its share, if there is news.
    fn tell<E: FlowEngine>(
        &mut self,
        now_ns: u64,
        engine: &mut E,
        number: Number,
    ) -> Result<(), EngineError> {
        let Some((tokens, bucket)) = self.meter.for_hardware() else { return Err(EngineError::Refused(0)) };
        let Some(news) = self.news(now_ns, tokens) else { return Ok(()) };
        let as_counted = self.as_counted(tokens, news.per_second);
        let wanted = Wanted {
            packets: tokens == Tokens::Packets,
            per_second: as_counted.max(1),
            burst: news.burst.max(1),
        };
        self.asked = true;
        engine.set_meter(self.port, number, &wanted)?;
        // It begins with a full burst, or may.
        bucket.reserve(wanted.burst);
        if self.told.is_none() {
            self.dropped = Count::default();
        }
        self.share.told(now_ns, news);
        self.told = Some((news.per_second, as_counted));
        self.meter.in_hardware().set_rate(news.per_second);
        Ok(())
    }

    /// What the device is to be told: its share, or that its frames are of other sizes by now.
    fn news(&self, now_ns: u64, tokens: Tokens) -> Option<News> {
        let changed = self.told.is_some_and(|(told, counted)| {
            let now = self.as_counted(tokens, told);
            now.abs_diff(counted) > counted / COARSE
        });
        self.share.news(now_ns, changed)
    }

    /// A share of tokens as the device counts.
    fn as_counted(&self, tokens: Tokens, share: u64) -> u64 {
        let (ip, frames) = self.sizes;
        match tokens {
            Tokens::Bytes if ip > 0.0 => (share as f64 * (frames / ip).max(1.0)) as u64,
            Tokens::Bytes | Tokens::Packets => share,
        }
    }

    /// Counts what the device has dropped; so many packets are new. What it does not tell now it tells the
    /// next time.
    fn count_drops<E: FlowEngine>(&mut self, engine: &mut E, number: Number) -> u64 {
        let total = engine.meter_drops(self.port, number).unwrap_or(self.dropped);
        let packets = total.packets.saturating_sub(self.dropped.packets);
        let bytes = total.bytes.saturating_sub(self.dropped.bytes);
        self.dropped = total;
        let (counted, around) = self.around;
        let each = if counted > 0.0 { around / counted } else { ether::LEN as f64 };
        let bytes = bytes.saturating_sub((packets as f64 * each) as u64);
        self.meter.in_hardware().count_red(packets, bytes);
        let [red_packets, red_bytes] = &mut self.red;
        red_packets.owe(packets);
        red_bytes.owe(bytes);
        packets
    }

    /// What became of the period, and what comes of it.
    fn reconsider<E: FlowEngine>(
        &mut self,
        (now, now_ns): (Nanos, u64),
        engine: &mut E,
        number: Number,
        elapsed_ns: u64,
    ) {
        let dropped = self.count_drops(engine, number);
        let Some((_, bucket)) = self.meter.for_hardware() else { return };
        let hardware = self.meter.in_hardware();
        let drawn = bucket.drawn();
        let seen = Seen {
            elapsed_ns,
            drawn: drawn.wrapping_sub(self.drawn),
            level: bucket.level(now),
            short: hardware.take_short(),
            passed: std::mem::take(&mut self.passed),
            dropped: dropped > 0,
        };
        self.drawn = drawn;
        self.sizes = (self.sizes.0 * 0.9, self.sizes.1 * 0.9);
        self.around = (self.around.0 * 0.9, self.around.1 * 0.9);
        self.red.iter_mut().for_each(Debt::fade);
        self.share.reconsider(&seen);
        // What fails now is tried again in the next period.
        let _ = self.tell(now_ns, engine, number);
    }

    /// Takes what hardware may have had in this time out of the bucket.
    fn reserve(&mut self, elapsed_ns: u64) {
        let Some((told, _)) = self.told else { return };
        let owed = u128::from(told) * u128::from(elapsed_ns) + u128::from(self.part);
        self.part = (owed % u128::from(Nanos::SECOND)) as u64;
        if let Some((_, bucket)) = self.meter.for_hardware() {
            bucket.reserve((owed / u128::from(Nanos::SECOND)) as u64);
        }
    }
}

fn least_burst(tokens: Tokens) -> u64 {
    if tokens == Tokens::Packets { LEAST_PACKETS } else { LEAST_PACKETS * LARGE }
}

fn same_place(one: &Meter, other: &Meter) -> bool {
    std::ptr::eq(one.in_hardware(), other.in_hardware())
}

impl Meters {
    pub(super) fn new(now_ns: u64) -> Meters {
        Meters { held: Vec::new(), by_serial: HashMap::new(), reserved_ns: now_ns, period_ns: now_ns }
    }

    fn get_mut(&mut self, number: Number) -> Option<&mut Held> {
        self.held.get_mut((number as usize).checked_sub(1)?)?.as_mut()
    }

    fn serial(&self, number: Number) -> Option<u32> {
        let held = self.held.get((number as usize).checked_sub(1)?)?.as_ref();
        held.map(|held| held.meter.serial())
    }

    /// The meter in hardware, which is made if there is none, for so many rules more.
    fn find_or_make<E: FlowEngine>(
        &mut self,
        now_ns: u64,
        engine: &mut E,
        meter: &Arc<Meter>,
        (port, rules): (u16, u32),
        metering: &Metering,
    ) -> Found {
        let number = match self.by_serial.get(&meter.serial()) {
            Some(&number) => number,
            None => match self.place(now_ns, meter, port, metering.meters_max) {
                Some(number) => number,
                None => return Found::Never,
            },
        };
        let Some(held) = self.get_mut(number).filter(|held| held.port == port) else { return Found::Never };
        if held.users.saturating_mul(2).saturating_add(rules) > metering.rules_max {
            return Found::Never;
        }
        if held.told.is_none() {
            if now_ns < held.refused_until_ns {
                return Found::Never;
            }
            match held.tell(now_ns, engine, number) {
                Ok(()) => {}
                Err(EngineError::QueueFull) => return Found::Soon,
                Err(_) => {
                    held.refused_until_ns = now_ns + REFUSED_NS;
                    return Found::Never;
                }
            }
        }
        Found::Ready(number)
    }

    fn place(&mut self, now_ns: u64, meter: &Arc<Meter>, port: u16, meters_max: u32) -> Option<Number> {
        let tokens = meter.for_hardware()?;
        let at = match self.held.iter().position(Option::is_none) {
            Some(at) => at,
            None if self.held.len() < meters_max as usize => {
                self.held.push(None);
                self.held.len() - 1
            }
            None => return None,
        };
        let number = at as Number + 1;
        self.held[at] = Some(Held::new(meter, tokens, port, now_ns));
        self.by_serial.insert(meter.serial(), number);
        Some(number)
    }

    /// One more pair names it.
    pub(super) fn retain(&mut self, number: Number) {
        if let Some(held) = self.get_mut(number) {
            held.users += 1;
        }
    }

    /// One less does.
    pub(super) fn release(&mut self, now_ns: u64, number: Number) {
        if let Some(held) = self.get_mut(number) {
            held.users = held.users.saturating_sub(1);
            held.unused_ns = now_ns;
        }
    }

    /// A pair's rule has counted these packets, bytes of IP packet, in frames of so many bytes; `around`:
    /// bytes on each where red ones are counted. Returns those that passed.
    pub(super) fn passed(
        &mut self,
        number: Number,
        new: Count,
        (frame_bytes, around): (u64, u64),
        counts_red: bool,
    ) -> Count {
        let Some(held) = self.get_mut(number) else { return new };
        held.sizes.0 += new.bytes as f64;
        held.sizes.1 += frame_bytes as f64;
        held.around.0 += new.packets as f64;
        held.around.1 += new.packets as f64 * around as f64;
        let [packets, bytes] = &mut held.red;
        let passed = if counts_red {
            Count { packets: packets.pay(new.packets), bytes: bytes.pay(new.bytes) }
        } else {
            new
        };
        match held.meter.for_hardware() {
            Some((Tokens::Packets, _)) => held.passed += passed.packets,
            Some((Tokens::Bytes, _)) => held.passed += passed.bytes,
            None => {}
        }
        passed
    }

    /// Counts what the device has dropped, which it will not know when it has been emptied.
    pub(super) fn count_drops<E: FlowEngine>(&mut self, engine: &mut E) {
        for (at, held) in self.held.iter_mut().enumerate() {
            if let Some(held) = held.as_mut().filter(|held| held.told.is_some()) {
                held.count_drops(engine, at as Number + 1);
            }
        }
    }

    /// A new configuration has come: meters whose limits have changed go on where they are, if they count the
    /// same things. The others go with their rules.
    pub(super) fn rehome(&mut self, snapshot: &Snapshot) {
        let services = (0..snapshot.services.len()).filter_map(|at| u16::try_from(at).ok());
        for meter in services.filter_map(|at| snapshot.hardware_meter(ServiceId(at)).ok().flatten()) {
            let Some((tokens, bucket)) = meter.for_hardware() else { continue };
            if self.by_serial.contains_key(&meter.serial()) {
                continue;
            }
            let alike = |held: &Held| {
                let counts = held.meter.for_hardware().map(|(tokens, _)| tokens);
                counts == Some(tokens) && same_place(&held.meter, meter)
            };
            let found = self.held.iter().position(|held| held.as_ref().is_some_and(alike));
            let Some((at, held)) = found.and_then(|at| Some((at, self.held[at].as_mut()?))) else { continue };
            self.by_serial.remove(&held.meter.serial());
            self.by_serial.insert(meter.serial(), at as Number + 1);
            held.rehome(meter, (tokens, bucket));
        }
    }

    /// Gives one up.
    fn give_up<E: FlowEngine>(&mut self, engine: &mut E, at: usize) {
        let Some(held) = self.held.get_mut(at).and_then(Option::take) else { return };
        if held.asked {
            engine.unset_meter(held.port, at as Number + 1);
        }
        self.by_serial.remove(&held.meter.serial());
        // One that counts other things may have taken its place.
        if !self.held.iter().flatten().any(|other| same_place(&other.meter, &held.meter)) {
            held.meter.in_hardware().set_rate(0);
        }
    }

    /// The device was emptied: it has no meters. They are made again when rules come that name them.
    pub(super) fn forget(&mut self) {
        for held in self.held.iter_mut().flatten() {
            (held.told, held.asked) = (None, false);
            held.share.forget();
            held.red = [Debt::default(); 2];
            held.meter.in_hardware().set_rate(0);
        }
    }
}

impl Machine {
    /// The meter that the rules of a connection have to name, if any; [`Found::Never`] is an error.
    pub(super) fn meter_for<E: FlowEngine>(
        &mut self,
        now_ns: u64,
        engine: &mut E,
        ask: &Ask,
        rules: &[Option<Rule>; 2],
    ) -> Result<Option<Found>, Declined> {
        let Some(meter) = self.snapshot.hardware_meter(ask.service)? else { return Ok(None) };
        // What has no rule that a meter can be put into must not cost the limit a meter, either.
        let crosses = |rule: &Rule| rule.attr.domain == Domain::Transfer && !rule.decaps();
        let rules = || rules.iter().flatten();
        let (port, count) = (rules().map(|rule| rule.port).next(), rules().count() as u32);
        let port = port.filter(|_| rules().all(crosses)).ok_or(Declined::Metered)?;
        let metering = self.traits.meters.as_ref().ok_or(Declined::Metered)?;
        match self.meters.find_or_make(now_ns, engine, meter, (port, count), metering) {
            Found::Never => Err(Declined::Metered),
            found => Ok(Some(found)),
        }
    }

    /// Whether the rules of a connection name another meter than the present configuration has for it.
    pub(super) fn is_metered_wrongly(&self, ask: &Ask, meter: Option<Number>) -> bool {
        let wanted = self.snapshot.hardware_meter(ask.service).ok().flatten().map(|meter| meter.serial());
        wanted != meter.and_then(|number| self.meters.serial(number))
    }

    /// Gives up a pair, and its meter with it.
    pub(super) fn release_pair(&mut self, now_ns: u64, index: u32) {
        if let Some(number) = self.slab.get(index).and_then(|pair| pair.meter) {
            self.meters.release(now_ns, number);
        }
        self.slab.release(index);
    }

    /// Takes what hardware may have had since the last step out of the buckets: whatever its state, as long
    /// as its rules may be in force.
    pub(super) fn reserve_meters(&mut self, now_ns: u64) {
        let elapsed_ns = now_ns - self.meters.reserved_ns;
        if elapsed_ns < RESERVE_NS {
            return;
        }
        self.meters.reserved_ns = now_ns;
        for held in self.meters.held.iter_mut().flatten().filter(|held| held.is_used()) {
            held.reserve(elapsed_ns);
        }
    }

    /// Shares the rates out anew, and gives up what nobody uses.
    pub(super) fn tend_meters<E: FlowEngine>(&mut self, now_ns: u64, engine: &mut E) {
        // Buckets go by the clock itself.
        let now = Nanos(self.clock.last_ns);
        let period_ns = now_ns - self.meters.period_ns;
        let over = period_ns >= PERIOD_NS;
        if over {
            self.meters.period_ns = now_ns;
        }
        for at in 0..self.meters.held.len() {
            let number = at as Number + 1;
            let Some(held) = self.meters.held[at].as_mut() else { continue };
            if held.is_outdated() {
                // What fails now is tried again in the next step.
                let _ = held.tell(now_ns, engine, number);
            }
            if over && held.is_used() {
                held.reconsider((now, now_ns), engine, number, period_ns);
            } else if over && held.users == 0 && now_ns - held.unused_ns >= UNUSED_NS {
                self.meters.give_up(engine, at);
            }
        }
    }
}
