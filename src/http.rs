//! HTTP on whatever is accepted: so many connections at once, none of them for ever, and nobody waits for
//! those who are slow.

use crate::api::{Refusal, RefusalKind};
use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, Interest};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;

/// Connections of a listener at once; others wait to be accepted.
const CONNECTIONS_MAX: usize = 32;
/// How long a request's head may take, idle time before it included.
const HEAD_MAX: Duration = Duration::from_secs(10);
/// How long a request may take from its head to its answer, its body included. Longer than the manager.
const REQUEST_MAX: Duration = Duration::from_secs(12);
/// How long a connection is kept; whoever wants more makes a new one.
pub(crate) const LIFE: Duration = Duration::from_secs(60);
/// How long it has then to end what it is doing.
const GRACE: Duration = Duration::from_secs(15);
/// Bytes of a request's head.
const HEAD_BYTES: usize = 64 << 10;
/// How long to wait after nothing could be accepted: no file descriptors, mostly.
const REST: Duration = Duration::from_millis(100);

/// A connection, what serves it, and how long it is kept.
pub(crate) struct Accepted<S> {
    pub(crate) stream: S,
    pub(crate) peer: Peer,
    pub(crate) router: Router,
    pub(crate) life: Duration,
}

/// Serves what `accept` gives, for ever.
pub(crate) async fn serve<S>(accept: impl AsyncFn() -> std::io::Result<Accepted<S>>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    // Nobody closes it.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        match accept().await {
            Ok(accepted) => {
                tokio::spawn(async move {
                    converse(accepted).await;
                    drop(place);
                });
            }
            Err(error) => rest_after(&error).await,
        }
    }
}

/// Waits a little, as nothing could be accepted.
pub(crate) async fn rest_after(error: &std::io::Error) {
    tracing::debug!(%error, "connection not accepted");
    tokio::time::sleep(REST).await;
}

/// Serves a connection until it ends, has lived long enough, or has nobody at its other end: what is being
/// done for it then ends, too.
pub(crate) async fn converse<S>(accepted: Accepted<S>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Accepted { stream, peer, router, life } = accepted;
    let mut builder = http1::Builder::new();
    // Whoever has said all and closes that half still waits for the answer.
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_MAX).max_buf_size(HEAD_BYTES).half_close(true);
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    // How a connection ends is its peer's business, and shows there.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = peer.gone() => return,
        () = tokio::time::sleep(life) => {}
    }
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        _ = tokio::time::timeout(GRACE.min(life), connection) => {}
        () = peer.gone() => {}
    }
}

/// Whoever is at the other end of a stream, watched by a descriptor of its own: who serves the stream waits
/// for other things.
pub(crate) struct Peer(Option<UnixStream>);

impl Peer {
    /// Without a descriptor to spare nobody is watched, and who leaves is noticed late.
    pub(crate) fn of(stream: &UnixStream) -> Peer {
        let own = stream.as_fd().try_clone_to_owned();
        Peer(own.and_then(|own| UnixStream::from_std(own.into())).ok())
    }

    /// TCP does not tell who has left from who has said all and waits for the answer.
    pub(crate) fn unknown() -> Peer {
        Peer(None)
    }

    /// Comes back when nobody reads the stream any more: all of it was closed, not just the half that the
    /// peer writes.
    async fn gone(&self) {
        let Some(watched) = &self.0 else { return std::future::pending().await };
        while let Ok(state) = watched.ready(Interest::WRITABLE).await {
            if state.is_write_closed() {
                return;
            }
            // Nothing is to be written here: only the next change matters.
            let _ = watched.try_io(Interest::WRITABLE, || Err::<(), _>(ErrorKind::WouldBlock.into()));
        }
        // There is no way to tell.
        std::future::pending().await
    }
}

/// Ends requests that take too long, which are those whose bodies do not come.
pub(crate) async fn in_time(request: Request, next: Next) -> Response {
    let slow =
        || last(Refusal::new(RefusalKind::Slow, "the request's body did not come in time").into_response());
    tokio::time::timeout(REQUEST_MAX, next.run(request)).await.unwrap_or_else(|_| slow())
}

/// Bytes that the body of a request for a page may have.
pub(crate) type BodyMax = fn(&str) -> usize;

/// Enough for a few names.
pub(crate) fn small(_page: &str) -> usize {
    64 << 10
}

/// Reads a request's body to its end before anything is answered. Who is answered sooner has a connection
/// that cannot be used again, without knowing it, and may lose the answer: what nobody reads resets it.
pub(crate) async fn whole(State(max): State<BodyMax>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let max = max(parts.uri.path());
    let refuse = |kind, error: String| last(Refusal::new(kind, error).into_response());
    let too_large = || refuse(RefusalKind::TooLarge, format!("the request's body has more than {max} bytes"));
    if body.size_hint().lower() > max as u64 {
        return too_large();
    }
    match Limited::new(body, max).collect().await {
        Ok(body) => next.run(Request::from_parts(parts, Body::from(body.to_bytes()))).await,
        Err(error) if error.is::<LengthLimitError>() => too_large(),
        Err(error) => refuse(RefusalKind::Malformed, format!("the request's body: {error}")),
    }
}

/// An answer after which the connection ends.
pub(crate) fn last(mut response: Response) -> Response {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use std::io::{Read, Write};
    use std::net::Shutdown;
    use std::os::unix::net::UnixStream as Client;
    use std::sync::Weak;
    use tokio::sync::Notify;

    /// Nothing may take longer.
    const PATIENCE: Duration = Duration::from_secs(20);

    /// A client of a page that is answered when it may be; and whether that is still being waited for.
    async fn client(may: Arc<Notify>) -> (Client, Weak<()>) {
        let (mut client, stream) = Client::pair().expect("a pair");
        stream.set_nonblocking(true).expect("set");
        let stream = UnixStream::from_std(stream).expect("a stream");
        let (waits, begun): (Arc<()>, Arc<Notify>) = Default::default();
        let (waited_for, asked) = (Arc::downgrade(&waits), Arc::clone(&begun));
        let page = get(move || {
            let (waits, may) = (Arc::clone(&waits), Arc::clone(&may));
            begun.notify_one();
            async move {
                may.notified().await;
                drop(waits);
                "done"
            }
        });
        let router = Router::new().route("/", page);
        tokio::spawn(converse(Accepted { peer: Peer::of(&stream), stream, router, life: LIFE }));
        client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
        asked.notified().await;
        (client, waited_for)
    }

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async { tokio::time::timeout(PATIENCE, test).await }).expect("in time");
    }

    #[test]
    fn what_is_done_for_somebody_ends_when_they_leave() {
        run(async {
            let (client, waited_for) = client(Arc::default()).await;
            assert!(waited_for.strong_count() > 0);
            drop(client);
            while waited_for.strong_count() > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
    }

    #[test]
    fn who_has_said_all_is_answered() {
        run(async {
            let may: Arc<Notify> = Arc::default();
            let (mut client, waited_for) = client(Arc::clone(&may)).await;
            client.shutdown(Shutdown::Write).expect("half closed");
            // Long enough to be noticed.
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert!(waited_for.strong_count() > 0);
            may.notify_one();
            let mut answer = String::new();
            let read = move || client.read_to_string(&mut answer).map(|_| answer);
            let answer = tokio::task::spawn_blocking(read).await.expect("read").expect("answered");
            assert!(answer.ends_with("done"), "{answer}");
        });
    }
}
