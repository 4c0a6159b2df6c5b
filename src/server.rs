//! The two threads beside the manager and the workers: one serves HTTP, one waits for signals.

use crate::Failure;
use crate::control::{self, Event, Events, Listeners};
use crate::panics;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::oneshot;

/// How long the process may take to stop before it ends without ceremony.
const STOP_MAX: Duration = Duration::from_secs(5);

/// The HTTP thread.
pub(crate) struct Server {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

/// Serves the control API and the metrics pages.
pub(crate) fn start(listeners: Listeners, events: Events) -> Result<Server, Failure> {
    let system = |source| Failure::System { what: "starting the HTTP thread", source };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(system)?;
    let (stop, stopped) = oneshot::channel();
    let serve = move || {
        panics::vital();
        if let Err(error) = runtime.block_on(control::serve(listeners, events, stopped)) {
            tracing::error!(%error, "control API and metrics are gone");
        }
        // Requests that wait for an answer must not delay the end.
        runtime.shutdown_background();
    };
    let thread = std::thread::Builder::new().name("http".into()).spawn(serve).map_err(system)?;
    Ok(Server { stop, thread })
}

impl Server {
    /// Stops serving; the control socket is gone afterwards.
    pub(crate) fn stop(self) {
        drop(self.stop);
        let _ = self.thread.join();
    }
}

/// Turns signals into events: SIGHUP reloads, SIGINT and SIGTERM stop. A second one of these, or a stop
/// that takes too long, ends the process at once.
pub(crate) fn watch_signals(events: Events) -> Result<(), Failure> {
    let system = |source| Failure::System { what: "installing signal handlers", source };
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM]).map_err(system)?;
    let watch = move || {
        panics::vital();
        let mut stopping = false;
        for signal in signals.forever() {
            let event = if signal == SIGHUP { Event::Reload } else { Event::Stop };
            if matches!(event, Event::Stop) && std::mem::replace(&mut stopping, true) {
                tracing::error!("second signal: leaving at once");
                signal_hook::low_level::exit(1);
            }
            if matches!(event, Event::Stop) {
                end_after(STOP_MAX);
            }
            // Nobody listens any more once the manager has stopped.
            let _ = events.send(event);
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(watch).map_err(system)?;
    Ok(())
}

/// Ends the process if it is still there after `limit`.
fn end_after(limit: Duration) {
    let end = move || {
        std::thread::sleep(limit);
        tracing::error!("not stopped after {limit:?}: leaving at once");
        signal_hook::low_level::exit(1);
    };
    // Without this thread a stuck stop needs a second signal; that is no reason not to stop.
    let _ = std::thread::Builder::new().name("end".into()).spawn(end);
}
