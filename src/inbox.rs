//! What waits for the manager, in the order in which it matters, without what nobody waits for any more.
//!
//! The end comes first; then whoever asks after the process's health, and acts on a late answer; then
//! changes, in the order in which they were asked for; then questions, which may be many and take long.
//! Signals to reload that come before one is followed are one.

use crate::control::{Event, Request, Urgency};
use std::collections::VecDeque;
use std::sync::Weak;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

/// A request, and whether somebody still waits for its answer.
type Asked = (Request, Weak<()>);

/// See the module's header.
pub(crate) struct Inbox {
    events: Receiver<Event>,
    stop: bool,
    reload: bool,
    health: bool,
    /// As many of each as can be connected to the control API, at most.
    urgent: VecDeque<Asked>,
    changes: VecDeque<Asked>,
    questions: VecDeque<Asked>,
}

impl Inbox {
    /// Of what comes this way.
    pub(crate) fn new(events: Receiver<Event>) -> Inbox {
        let (urgent, changes, questions) = Default::default();
        Inbox { events, stop: false, reload: false, health: false, urgent, changes, questions }
    }

    /// What is to be done next, if there is something within `patience`.
    pub(crate) fn next(&mut self, patience: Duration) -> Result<Event, RecvTimeoutError> {
        self.wait(patience, Inbox::take)
    }

    /// The next question if there is one within `patience`: nothing that changes anything. The end is told
    /// only by [`Inbox::next`].
    pub(crate) fn next_question(&mut self, patience: Duration) -> Result<Request, RecvTimeoutError> {
        self.wait(patience, |inbox| wanted(&mut inbox.urgent).or_else(|| wanted(&mut inbox.questions)))
    }

    fn wait<T>(
        &mut self,
        patience: Duration,
        take: impl Fn(&mut Inbox) -> Option<T>,
    ) -> Result<T, RecvTimeoutError> {
        while let Ok(event) = self.events.try_recv() {
            self.put(event);
        }
        if let Some(taken) = take(self) {
            return Ok(taken);
        }
        let event = self.events.recv_timeout(patience)?;
        self.put(event);
        take(self).ok_or(RecvTimeoutError::Timeout)
    }

    fn put(&mut self, event: Event) {
        match event {
            Event::Stop => self.stop = true,
            Event::Reload => self.reload = true,
            Event::Health => self.health = true,
            Event::Request(request, asker) => {
                let queue = match request.urgency() {
                    Urgency::Urgent => &mut self.urgent,
                    Urgency::Change => &mut self.changes,
                    Urgency::Question => &mut self.questions,
                };
                queue.push_back((request, asker));
            }
        }
    }

    fn take(&mut self) -> Option<Event> {
        if self.stop {
            return Some(Event::Stop);
        }
        let asked = |request| Event::Request(request, Weak::new());
        if let Some(request) = wanted(&mut self.urgent) {
            return Some(asked(request));
        }
        if std::mem::take(&mut self.health) {
            return Some(Event::Health);
        }
        if std::mem::take(&mut self.reload) {
            return Some(Event::Reload);
        }
        wanted(&mut self.changes).or_else(|| wanted(&mut self.questions)).map(asked)
    }
}

/// The first request whose answer somebody waits for. Whoever left was told that there is no answer: to do
/// then what was asked would surprise them.
fn wanted(queue: &mut VecDeque<Asked>) -> Option<Request> {
    loop {
        let (request, asker) = queue.pop_front()?;
        if asker.strong_count() > 0 {
            return Some(request);
        }
        tracing::debug!(?request, "nobody waits for the answer any more");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, mpsc};
    use tokio::sync::oneshot;

    fn name(event: &Event) -> String {
        let text = format!("{event:?}");
        text.split_once("Sender").map_or(text.clone(), |(name, _)| name.to_owned())
    }

    fn drain(inbox: &mut Inbox) -> Vec<String> {
        std::iter::from_fn(|| inbox.next(Duration::ZERO).ok()).map(|event| name(&event)).collect()
    }

    #[test]
    fn what_matters_comes_first_and_what_nobody_waits_for_not_at_all() {
        let (events, receiver) = mpsc::channel();
        let mut inbox = Inbox::new(receiver);
        let (here, gone) = (Arc::new(()), Weak::new());
        let send = |request, asker: &Weak<()>| {
            events.send(Event::Request(request, asker.clone())).expect("received");
        };
        let here = &Arc::downgrade(&here);
        send(Request::Version(oneshot::channel().0), here);
        send(Request::Ports(oneshot::channel().0), &gone);
        send(Request::Metrics(oneshot::channel().0), here);
        events.send(Event::Reload).expect("received");
        events.send(Event::Reload).expect("received");
        send(Request::Readiness(oneshot::channel().0), here);
        events.send(Event::Health).expect("received");
        assert!(matches!(inbox.next_question(Duration::ZERO), Ok(Request::Readiness(_))));
        assert!(matches!(inbox.next_question(Duration::ZERO), Ok(Request::Version(_))));
        send(Request::Health(oneshot::channel().0), here);
        let order = ["Request(Health(", "Health", "Reload", "Request(Metrics("];
        assert_eq!(drain(&mut inbox), order);
        events.send(Event::Stop).expect("received");
        assert!(inbox.next_question(Duration::ZERO).is_err(), "the end is no question");
        assert!(matches!(inbox.next(Duration::ZERO), Ok(Event::Stop)));
    }
}
