//! When each backend is probed, and what follows from the answers: a pure function of what it is told.
//!
//! ```text
//!            the first answer             `fall` failures in a row
//! Unknown ───────────────────────▶ Up ──────────────────────────────▶ Down
//!    │                              ▲                                  │
//!    │ `fall` failures              └── `rise` answers in a row ───────┘
//!    └──────────────────────────────────────────────────────────────▶ Down
//! ```
//!
//! A backend that goes up and down needs twice as many answers each time, up to eight times as many, until
//! it has been steady for a while. Where so few are up that the rest would drown, health is ignored: see
//! [`Machine::standing`]. What the checker itself could not do ([`Outcome::Void`]) says nothing of a backend.

mod random;
mod target;
#[cfg(test)]
mod tests;

use dataplane::addr::Ip;
use dataplane::config::Health;
use dataplane::snapshot::Standing;
use random::Random;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use target::Target;

/// How often new connections' share grows while a backend starts slowly.
const RAMP_STEPS: u64 = 10;
/// Clients cannot have a backend probed more often than that.
const HINT_GAP_MS: u64 = 50;
/// So long after a backend became known, it may be our side's fault that nobody knows where it is: time for
/// a question to be lost, and to be asked again a second later.
const FINDING_MS: u64 = 2_000;
/// Since a backend last answered, so many probes may have been lost on our own side.
const UNCLEAR_MAX: u32 = 2;
/// So long a backend may take to answer for the first time.
const DECIDED_MS: u64 = 5_000;

/// A backend being probed. Never used again for another one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TargetId(pub u64);

/// What is believed of a backend.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum State {
    /// No probe has been decisive yet.
    Unknown,
    /// It answers.
    Up,
    /// It does not.
    Down,
}

impl State {
    /// All states, in declaration order.
    pub const ALL: [State; 3] = [State::Unknown, State::Up, State::Down];

    /// The name in labels and output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            State::Unknown => "unknown",
            State::Up => "up",
            State::Down => "down",
        }
    }
}

/// What made a probe succeed or fail.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Cause {
    /// It answered as it should.
    Answered,
    /// No answer in time.
    Timeout,
    /// The port is closed.
    Refused,
    /// It closed the connection before it had answered.
    Closed,
    /// Something on the way says that it cannot be reached.
    Unreachable,
    /// An HTTP status, or a DNS answer, other than expected.
    WrongAnswer,
    /// Clients' connections were refused.
    Passive,
}

impl Cause {
    /// All causes, in declaration order.
    pub const ALL: [Cause; 7] = [
        Cause::Answered,
        Cause::Timeout,
        Cause::Refused,
        Cause::Closed,
        Cause::Unreachable,
        Cause::WrongAnswer,
        Cause::Passive,
    ];

    /// The name in labels and output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Cause::Answered => "answered",
            Cause::Timeout => "timeout",
            Cause::Refused => "refused",
            Cause::Closed => "closed",
            Cause::Unreachable => "unreachable",
            Cause::WrongAnswer => "wrong_answer",
            Cause::Passive => "passive",
        }
    }
}

/// How a probe went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The backend answered as it should.
    Good,
    /// It did not.
    Bad(Cause),
    /// The probe never left, or nobody was there to hear the answer: nothing is known.
    Void,
    /// No answer, while packets of others were lost on our own side: this may be one of them. See
    /// [`Machine::on_outcome`].
    Unclear,
    /// Nobody has said where the next hop is. At a start that may only take a while; see
    /// [`Machine::on_outcome`].
    Unfound,
}

/// A service whose backends are to be probed.
#[derive(Clone, PartialEq, Debug)]
pub struct ServiceSpec {
    /// Its name, unique.
    pub name: Arc<str>,
    /// How it is probed.
    pub health: Arc<Health>,
    /// Its backends.
    pub backends: Vec<BackendSpec>,
}

/// One of its backends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BackendSpec {
    /// Address.
    pub address: Ip,
    /// Configured port, if it has one.
    pub port: Option<u16>,
    /// Whether it would take new connections if it is well: it is not drained.
    pub counts: bool,
}

/// A change of state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transition {
    /// Whose.
    pub service: Arc<str>,
    /// The backend's address.
    pub address: Ip,
    /// Its port.
    pub port: Option<u16>,
    /// From now on.
    pub to: State,
    /// Why.
    pub cause: Cause,
}

/// What is known of a backend, and outlives the machine: see [`Machine::recall`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Memory {
    /// What is believed of it.
    pub state: State,
    /// When it became so, milliseconds.
    pub since_ms: u64,
    /// The last failure since it was configured.
    pub last_error: Option<Cause>,
    /// How often its state changed, by [`Cause`].
    pub transitions: [u64; Cause::ALL.len()],
    /// Of the new connections that its weight promises, percent: below 100 while it starts slowly.
    pub share: u8,
}

/// What a backend looks like from outside.
#[derive(Clone, Debug)]
pub struct View<'a> {
    /// The backend.
    pub spec: &'a BackendSpec,
    /// What is known of it.
    pub memory: &'a Memory,
    /// What new connections it gets: see [`Machine::standing`].
    pub standing: Standing,
}

struct Service {
    spec: ServiceSpec,
    targets: Vec<TargetId>,
    /// Too few are up: health is ignored.
    panic: bool,
    /// Until then that is not judged, as some have yet to answer for the first time; 0 if none has.
    decided_ms: u64,
    /// Something has changed since it was.
    stirred: bool,
}

/// See the module's header.
pub struct Machine {
    random: Random,
    next_id: u64,
    services: Vec<Service>,
    targets: HashMap<TargetId, Target>,
    /// When to look at whom; entries that the target has since overruled are passed over.
    due: BinaryHeap<Reverse<(u64, TargetId)>>,
    transitions: Vec<Transition>,
    /// Whose slow start goes on; some may be named twice, or be gone.
    slow: Vec<TargetId>,
    /// The services, by their places, that are stirred, or with a [`Service::decided_ms`] to come.
    unjudged: Vec<usize>,
    /// Whether some standing may have changed since it was last asked.
    changed: bool,
}

impl Machine {
    /// A machine without services.
    #[must_use]
    pub fn new(seed: u64) -> Machine {
        Machine {
            random: Random(seed),
            next_id: 0,
            services: Vec::new(),
            targets: HashMap::new(),
            due: BinaryHeap::new(),
            transitions: Vec::new(),
            slow: Vec::new(),
            unjudged: Vec::new(),
            changed: false,
        }
    }

    /// Probes these from now on. What is known of a backend stays while its service names it, however it is
    /// probed: it is not up merely because the configuration was touched.
    pub fn configure(&mut self, now_ms: u64, specs: Vec<ServiceSpec>) {
        let mut before: HashMap<Arc<str>, Service> =
            self.services.drain(..).map(|service| (Arc::clone(&service.spec.name), service)).collect();
        let mut old = std::mem::take(&mut self.targets);
        self.unjudged.clear();
        for (index, spec) in specs.into_iter().enumerate() {
            let same = before.remove(&spec.name);
            let mut known: HashMap<(Ip, Option<u16>), TargetId> = HashMap::new();
            for (backend, &id) in
                same.iter().flat_map(|service| service.spec.backends.iter().zip(&service.targets))
            {
                known.insert((backend.address, backend.port), id);
            }
            let mut targets = Vec::with_capacity(spec.backends.len());
            for backend in &spec.backends {
                let kept = known.remove(&(backend.address, backend.port));
                let (id, target) = match kept.and_then(|id| Some((id, old.remove(&id)?))) {
                    Some((id, mut target)) => {
                        target.service = index;
                        target.spec = *backend;
                        (id, target)
                    }
                    None => self.newcomer(now_ms, index, *backend),
                };
                targets.push(id);
                self.targets.insert(id, target);
            }
            let panic = same.is_some_and(|service| service.panic);
            self.services.push(Service { spec, targets, panic, decided_ms: 0, stirred: false });
            self.judge(now_ms, index);
        }
        self.changed = true;
    }

    /// A backend that nothing is known of is probed at once.
    fn newcomer(&mut self, now_ms: u64, service: usize, spec: BackendSpec) -> (TargetId, Target) {
        let id = TargetId(self.next_id);
        self.next_id += 1;
        self.due.push(Reverse((now_ms, id)));
        (id, Target::new(now_ms, service, spec))
    }

    /// A machine before this one knew that of a backend.
    pub fn recall(&mut self, id: TargetId, memory: &Memory) {
        let Some(target) = self.targets.get_mut(&id) else { return };
        target.born_ms = memory.since_ms;
        target.memory = memory.clone();
        self.stir(id);
    }

    /// The next backend whose probe is due; it counts as being probed until [`Machine::on_outcome`].
    pub fn take_due(&mut self, now_ms: u64) -> Option<TargetId> {
        while let Some(&Reverse((at, id))) = self.due.peek() {
            if at > now_ms {
                return None;
            }
            self.due.pop();
            let target = self.targets.get_mut(&id).filter(|target| target.due_ms == Some(at));
            if let Some(target) = target {
                target.due_ms = None;
                target.started_ms = now_ms;
                return Some(id);
            }
        }
        None
    }

    /// When [`Machine::take_due`] may next have something, milliseconds.
    #[must_use]
    pub fn next_due_ms(&self) -> Option<u64> {
        self.due.peek().map(|Reverse((at, _))| *at)
    }

    /// How the probe of a backend went; gives what that is taken for. One that is no longer configured is
    /// ignored. A few unclear ones say nothing; after these, it is the backend that does not answer: who
    /// floods us must not keep the dead in service.
    pub fn on_outcome(&mut self, now_ms: u64, id: TargetId, outcome: Outcome) -> Outcome {
        let target = self.targets.get_mut(&id).filter(|target| target.due_ms.is_none());
        let Some(target) = target else { return Outcome::Void };
        let outcome = match outcome {
            Outcome::Unfound if now_ms < target.born_ms + FINDING_MS => Outcome::Void,
            Outcome::Unfound => Outcome::Bad(Cause::Unreachable),
            Outcome::Unclear if target.unclear < UNCLEAR_MAX => {
                target.unclear += 1;
                Outcome::Void
            }
            Outcome::Unclear => Outcome::Bad(Cause::Timeout),
            Outcome::Good => {
                target.unclear = 0;
                Outcome::Good
            }
            other => other,
        };
        let health = Arc::clone(&self.services[target.service].spec.health);
        let change = match outcome {
            Outcome::Good => target.succeed(now_ms, &health),
            Outcome::Bad(cause) => target.fail(now_ms, &health, cause),
            Outcome::Void | Outcome::Unclear | Outcome::Unfound => None,
        };
        let next = target.next_ms(now_ms, &health, &mut self.random);
        target.due_ms = Some(next);
        self.due.push(Reverse((next, id)));
        self.note(id, change);
        outcome
    }

    /// Clients' connections fare badly: the backend is probed at once, or soon after the last probe; and, if
    /// its service counts that, it has failed so many times more.
    pub fn on_hint(&mut self, now_ms: u64, id: TargetId, failures: u64) {
        let Some(target) = self.targets.get_mut(&id) else { return };
        let health = &self.services[target.service].spec.health;
        let failures = if health.passive { failures.min(u64::from(health.fall)) } else { 0 };
        let mut change = None;
        for _ in 0..failures {
            change = target.fail(now_ms, health, Cause::Passive).or(change);
        }
        let soon = now_ms.max(target.started_ms + HINT_GAP_MS);
        if target.due_ms.is_some_and(|due| due > soon) && target.memory.state != State::Down {
            target.due_ms = Some(soon);
            self.due.push(Reverse((soon, id)));
        }
        self.note(id, change);
    }

    fn note(&mut self, id: TargetId, change: Option<(State, Cause)>) {
        let (Some((to, cause)), Some(target)) = (change, self.targets.get(&id)) else { return };
        let index = target.service;
        self.transitions.push(Transition {
            service: Arc::clone(&self.services[index].spec.name),
            address: target.spec.address,
            port: target.spec.port,
            to,
            cause,
        });
        self.stir(id);
    }

    /// A backend's state is another.
    fn stir(&mut self, id: TargetId) {
        let Some(target) = self.targets.get(&id) else { return };
        if target.memory.share < 100 {
            self.slow.push(id);
        }
        let service = &mut self.services[target.service];
        if !std::mem::replace(&mut service.stirred, true) && service.decided_ms == 0 {
            self.unjudged.push(target.service);
        }
        self.changed = true;
    }

    /// Whether so few of a service's backends are up that health is ignored. Who is not up only because its
    /// first answer is still to come is waited for.
    fn judge(&mut self, now_ms: u64, index: usize) {
        let Service { spec, targets, panic, decided_ms, .. } = &mut self.services[index];
        let counted = targets.iter().filter_map(|id| self.targets.get(id)).filter(|t| t.spec.counts);
        let (mut all, mut up) = (0u32, 0u32);
        *decided_ms = 0;
        for target in counted {
            all += 1;
            let is_up = target.is_up(&spec.health);
            up += u32::from(is_up);
            if target.memory.state == State::Unknown && !is_up {
                *decided_ms = (*decided_ms).max(target.born_ms + DECIDED_MS);
            }
        }
        let few = up == 0 || up * 100 < u32::from(spec.health.panic_percent) * all;
        *panic = all > 0 && few && *decided_ms <= now_ms;
        if *decided_ms > now_ms {
            self.unjudged.push(index);
        } else {
            *decided_ms = 0;
        }
    }

    /// Judges services of which something has changed, or has been waited for long enough, and moves slow
    /// starts on: once a turn.
    pub fn tick(&mut self, now_ms: u64) {
        for id in std::mem::take(&mut self.slow) {
            let Some(target) = self.targets.get_mut(&id) else { continue };
            self.changed |= target.ramp(now_ms, &self.services[target.service].spec.health);
            if target.memory.share < 100 {
                self.slow.push(id);
            }
        }
        for index in std::mem::take(&mut self.unjudged) {
            let service = &mut self.services[index];
            if std::mem::take(&mut service.stirred) || service.decided_ms <= now_ms {
                self.judge(now_ms, index);
                self.changed = true;
            } else {
                self.unjudged.push(index);
            }
        }
    }

    /// Whether some standing may have changed since the last call.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// The changes of state since the last call.
    pub fn take_transitions(&mut self) -> Vec<Transition> {
        std::mem::take(&mut self.transitions)
    }

    /// The backends, by service: which, whether its health is ignored, and each backend's number and view.
    pub fn views(&self) -> impl Iterator<Item = (&ServiceSpec, bool, Vec<(TargetId, View<'_>)>)> {
        self.services.iter().map(|service| {
            let view = |id: &TargetId| {
                let target = self.targets.get(id)?;
                Some((
                    *id,
                    View {
                        spec: &target.spec,
                        memory: &target.memory,
                        standing: Machine::standing(service, target),
                    },
                ))
            };
            (&service.spec, service.panic, service.targets.iter().filter_map(view).collect())
        })
    }

    /// How a backend's new connections are to be given: by health, unless so few are up that those would
    /// be overwhelmed, or none is. Then all count as well: a wrong check must not stop traffic.
    fn standing(service: &Service, target: &Target) -> Standing {
        if service.panic {
            return Standing::default();
        }
        Standing { up: target.is_up(&service.spec.health), share_percent: target.memory.share }
    }
}
