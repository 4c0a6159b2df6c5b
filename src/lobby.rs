//! Listeners that anyone can connect to: strangers keep no place from whoever has business there, which is
//! those who have shown a token, or those whose page is being made.

use crate::http::{self, Accepted, Peer};
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use axum::{Extension, Router};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;

/// Connections of a listener at once.
#[derive(Clone, Copy)]
pub(crate) struct Room {
    /// With business,
    pub(crate) business: usize,
    /// and of strangers; for one more, the one that has been idle for longest has to go.
    pub(crate) strangers: usize,
}

/// Whoever is at the other end of a connection, in the extensions of its requests.
#[derive(Clone)]
pub(crate) struct Guest(Arc<Seat>);

struct Seat {
    hall: Arc<Hall>,
    /// A place for as long as the connection lives,
    kept: OnceLock<OwnedSemaphorePermit>,
    /// or while it is being answered.
    attended: AtomicBool,
    /// When it last did something, by [`Hall::order`].
    active: AtomicU64,
}

/// What the connections of a listener share.
struct Hall {
    places: Arc<Semaphore>,
    /// Grows with whatever a connection does.
    order: AtomicU64,
}

impl Guest {
    fn new(hall: &Arc<Hall>) -> Guest {
        let (kept, attended, active) = Default::default();
        let guest = Guest(Arc::new(Seat { hall: Arc::clone(hall), kept, attended, active }));
        guest.stir();
        guest
    }

    fn stir(&self) {
        self.0.active.store(self.0.hall.order.fetch_add(1, Relaxed), Relaxed);
    }

    fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0.hall.places).try_acquire_owned().ok()
    }

    /// It has shown the token: nobody takes its place any more, if there is still one.
    pub(crate) fn welcome(&self) {
        self.stir();
        if let (None, Some(place)) = (self.0.kept.get(), self.place()) {
            let _ = self.0.kept.set(place);
        }
    }

    /// It has asked for something: likewise, until it is answered.
    fn attend(&self) -> Attended {
        self.stir();
        let place = self.place();
        self.0.attended.store(place.is_some(), Relaxed);
        Attended { guest: self.clone(), _place: place }
    }

    fn is_stranger(&self) -> bool {
        self.0.kept.get().is_none() && !self.0.attended.load(Relaxed)
    }
}

/// See [`Guest::attend`].
struct Attended {
    guest: Guest,
    _place: Option<OwnedSemaphorePermit>,
}

impl Drop for Attended {
    fn drop(&mut self) {
        self.guest.0.attended.store(false, Relaxed);
        self.guest.stir();
    }
}

/// Answers requests that have come as a whole, of guests who keep their places meanwhile.
pub(crate) async fn attend(Extension(guest): Extension<Guest>, request: Request, next: Next) -> Response {
    let _attended = guest.attend();
    next.run(request).await
}

/// Serves whoever connects, for ever.
pub(crate) async fn serve(listener: TcpListener, router: Router, room: Room) {
    let places = Arc::new(Semaphore::new(room.business));
    let hall = Arc::new(Hall { places, order: AtomicU64::new(0) });
    let mut guests: Vec<(Guest, AbortHandle)> = Vec::new();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                http::rest_after(&error).await;
                continue;
            }
        };
        guests.retain(|(_, connection)| !connection.is_finished());
        make_room(&mut guests, room.strangers);
        let guest = Guest::new(&hall);
        let router = router.clone().layer(Extension(guest.clone()));
        let accepted = Accepted { stream, peer: Peer::unknown(), router, life: http::LIFE };
        let connection = tokio::spawn(http::converse(accepted));
        guests.push((guest, connection.abort_handle()));
    }
}

/// Sees the stranger out who has been idle for longest, if there are so many.
fn make_room(guests: &mut Vec<(Guest, AbortHandle)>, strangers_max: usize) {
    let strangers = || guests.iter().enumerate().filter(|(_, (guest, _))| guest.is_stranger());
    if strangers().count() < strangers_max {
        return;
    }
    let idlest = strangers().min_by_key(|(_, (guest, _))| guest.0.active.load(Relaxed));
    if let Some((index, _)) = idlest {
        guests.swap_remove(index).1.abort();
    }
}
