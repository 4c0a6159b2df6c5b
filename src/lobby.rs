//! A listener for those who have a token, which anyone can connect to: strangers, who have yet to show one,
//! keep no place from those who have.

use crate::http::{self, Accepted, Peer};
use axum::{Extension, Router};
use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;

/// Connections at once of those who have shown a token,
const KNOWN_MAX: usize = 32;
/// and of strangers; for one more, the one that came first has to go.
const STRANGERS_MAX: usize = 128;

/// Whoever is at the other end of a connection, in the extensions of its requests.
#[derive(Clone)]
pub(crate) struct Guest(Arc<Seat>);

struct Seat {
    places: Arc<Semaphore>,
    taken: OnceLock<OwnedSemaphorePermit>,
}

impl Guest {
    fn new(places: &Arc<Semaphore>) -> Guest {
        Guest(Arc::new(Seat { places: Arc::clone(places), taken: OnceLock::new() }))
    }

    /// It has shown the token: nobody takes its place any more, if there is still one.
    pub(crate) fn welcome(&self) {
        let Seat { places, taken } = &*self.0;
        if let (None, Ok(place)) = (taken.get(), Arc::clone(places).try_acquire_owned()) {
            let _ = taken.set(place);
        }
    }

    fn is_stranger(&self) -> bool {
        self.0.taken.get().is_none()
    }
}

/// Serves whoever connects, for ever.
pub(crate) async fn serve(listener: TcpListener, router: Router) {
    let places = Arc::new(Semaphore::new(KNOWN_MAX));
    let mut strangers: VecDeque<(Guest, AbortHandle)> = VecDeque::new();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                http::rest_after(&error).await;
                continue;
            }
        };
        strangers.retain(|(guest, connection)| guest.is_stranger() && !connection.is_finished());
        if strangers.len() == STRANGERS_MAX {
            strangers.pop_front().iter().for_each(|(_, connection)| connection.abort());
        }
        let guest = Guest::new(&places);
        let router = router.clone().layer(Extension(guest.clone()));
        let accepted = Accepted { stream, peer: Peer::unknown(), router, life: http::LIFE };
        let connection = tokio::spawn(http::converse(accepted));
        strangers.push_back((guest, connection.abort_handle()));
    }
}
