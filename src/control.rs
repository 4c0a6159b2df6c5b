//! The control API: HTTP with JSON on a Unix socket, and the metrics pages on TCP.
//!
//! Nothing is decided here. Each handler turns its request into a [`Request`], gives it to the manager
//! (the main thread, which owns everything) and waits for the answer, for a bounded time.

use crate::api::WorkerRow;
use crate::api::{BackendName, BackendRow, Changed, ConnectionQuery, Connections, DropRow, NeighbourRow};
use crate::api::{OffloadRow, PortRow, Refusal, RefusalKind, RuleQuery, Rules, ServiceRow, VersionInfo};
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::oneshot;

/// How long a request waits for the manager. Longer than the manager waits for workers.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Where an answer goes.
pub(crate) type Reply<T> = oneshot::Sender<T>;

/// What the manager is asked to do.
#[derive(Debug)]
pub(crate) enum Request {
    Services(Reply<Vec<ServiceRow>>),
    Backends(Reply<Vec<BackendRow>>),
    Connections(ConnectionQuery, Reply<Result<Connections, Refusal>>),
    Ports(Reply<Vec<PortRow>>),
    Workers(Reply<Vec<WorkerRow>>),
    Drops(Reply<Vec<DropRow>>),
    Neighbours(Reply<Result<Vec<NeighbourRow>, Refusal>>),
    Offload(Reply<OffloadRow>),
    Rules(RuleQuery, Reply<Result<Rules, Refusal>>),
    Version(Reply<VersionInfo>),
    Drain(BackendName, Reply<Result<Changed, Refusal>>),
    Undrain(BackendName, Reply<Result<Changed, Refusal>>),
    Reload(Reply<Result<Changed, Refusal>>),
    /// The text of the metrics page.
    Metrics(Reply<String>),
    /// What is wrong with the process; empty when it is healthy.
    Health(Reply<Vec<String>>),
    /// What keeps traffic from being served; empty when ready.
    Readiness(Reply<Vec<String>>),
}

/// What wakes the manager.
#[derive(Debug)]
pub(crate) enum Event {
    /// Somebody asks.
    Request(Request),
    /// SIGHUP.
    Reload,
    /// SIGINT or SIGTERM.
    Stop,
}

/// The way to the manager.
pub(crate) type Events = mpsc::Sender<Event>;

/// Why a socket cannot be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BindError {
    /// Another Millrace answers there.
    #[error("control socket {0}: another Millrace is listening there already")]
    InUse(PathBuf),
    /// Something that is not a socket is in the way.
    #[error("control socket {0}: exists and is not a socket; remove it or configure another path")]
    NotASocket(PathBuf),
    /// The operating system refused.
    #[error("control socket {path}: {source}; --socket or [control] socket names another")]
    Unix {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The operating system refused.
    #[error("metrics address {address}: {source}; see [metrics] listen")]
    Tcp {
        /// `[metrics] listen`.
        address: std::net::SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

/// The control socket, removed when dropped.
#[derive(Debug)]
pub(crate) struct ControlSocket {
    listener: std::os::unix::net::UnixListener,
    path: SocketPath,
}

/// A path whose file goes when the owner goes.
#[derive(Debug)]
pub(crate) struct SocketPath {
    path: PathBuf,
    /// Device and number of our file. Another process may have put its own in this place meanwhile.
    file: Option<(u64, u64)>,
}

impl SocketPath {
    /// Owns the file at `path`.
    fn of(path: &Path) -> SocketPath {
        SocketPath { path: path.to_owned(), file: file_at(path) }
    }
}

/// Device and number of what is at `path`.
fn file_at(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

impl Drop for SocketPath {
    fn drop(&mut self) {
        if self.file.is_none() || self.file != file_at(&self.path) {
            return;
        }
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "control socket not removed");
        }
    }
}

impl ControlSocket {
    /// Listens at `path`, for those whom `mode` (permission bits) lets in. A socket that a dead process
    /// left behind is replaced; a live one, or a file of another kind, is not touched.
    pub(crate) fn bind(path: &Path, mode: u32) -> Result<ControlSocket, BindError> {
        let unix = |source| BindError::Unix { path: path.to_owned(), source };
        if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            std::fs::create_dir_all(directory).map_err(unix)?;
        }
        remove_stale(path)?;
        // Bound under another name and with its final mode before it appears at `path`: nobody can
        // connect in between with permissions that were never meant.
        let draft = path.with_extension(format!("{}.tmp", std::process::id()));
        let listener = std::os::unix::net::UnixListener::bind(&draft).map_err(unix)?;
        let publish = || {
            std::fs::set_permissions(&draft, std::fs::Permissions::from_mode(mode))?;
            listener.set_nonblocking(true)?;
            std::fs::rename(&draft, path)
        };
        if let Err(error) = publish() {
            let _ = std::fs::remove_file(&draft);
            return Err(unix(error));
        }
        Ok(ControlSocket { listener, path: SocketPath::of(path) })
    }
}

/// Makes room at `path` for a socket if what is there is a socket nobody listens to.
fn remove_stale(path: &Path) -> Result<(), BindError> {
    use std::io::ErrorKind::{ConnectionRefused, NotFound};
    use std::os::unix::fs::FileTypeExt;
    let unix = |source| BindError::Unix { path: path.to_owned(), source };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == NotFound => return Ok(()),
        Err(error) => return Err(unix(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(BindError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(BindError::InUse(path.to_owned())),
        Err(error) if error.kind() == ConnectionRefused => std::fs::remove_file(path).map_err(unix),
        Err(error) => Err(unix(error)),
    }
}

/// Serves both until `stop` resolves.
pub(crate) async fn serve(
    control: ControlSocket,
    metrics: Option<std::net::TcpListener>,
    events: Events,
    stop: oneshot::Receiver<()>,
) -> std::io::Result<()> {
    let ControlSocket { listener, path } = control;
    let api = axum::serve(UnixListener::from_std(listener)?, api_router(events.clone()));
    let pages = async {
        match metrics {
            Some(listener) => axum::serve(TcpListener::from_std(listener)?, metrics_router(events)).await,
            None => std::future::pending().await,
        }
    };
    let result = tokio::select! {
        result = async { api.await } => result,
        result = pages => result,
        _ = stop => Ok(()),
    };
    drop(path);
    result
}

/// Listens for scrapes at `address`.
pub(crate) fn bind_metrics(address: std::net::SocketAddr) -> Result<std::net::TcpListener, BindError> {
    let bind = || {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    bind().map_err(|source| BindError::Tcp { address, source })
}

fn api_router(events: Events) -> Router {
    Router::new()
        .route("/v1/services", get(|State(events): State<Events>| ask(events, Request::Services)))
        .route("/v1/backends", get(|State(events): State<Events>| ask(events, Request::Backends)))
        .route("/v1/connections", get(connections))
        .route("/v1/ports", get(|State(events): State<Events>| ask(events, Request::Ports)))
        .route("/v1/workers", get(|State(events): State<Events>| ask(events, Request::Workers)))
        .route("/v1/drops", get(|State(events): State<Events>| ask(events, Request::Drops)))
        .route("/v1/neighbours", get(|State(events): State<Events>| try_ask(events, Request::Neighbours)))
        .route("/v1/offload", get(|State(events): State<Events>| ask(events, Request::Offload)))
        .route("/v1/rules", get(rules))
        .route("/v1/version", get(|State(events): State<Events>| ask(events, Request::Version)))
        .route("/v1/drain", post(drain))
        .route("/v1/undrain", post(undrain))
        .route("/v1/reload", post(|State(events): State<Events>| try_ask(events, Request::Reload)))
        .fallback(|| async { Refusal::new(RefusalKind::NotFound, "no such page; see docs/operations.md") })
        .with_state(events)
}

fn metrics_router(events: Events) -> Router {
    Router::new()
        .route("/metrics", get(metrics_page))
        .route("/healthz", get(|State(events): State<Events>| probe(events, Request::Health)))
        .route("/readyz", get(|State(events): State<Events>| probe(events, Request::Readiness)))
        .with_state(events)
}

async fn connections(
    State(events): State<Events>,
    query: Result<Query<ConnectionQuery>, QueryRejection>,
) -> Response {
    match query {
        Ok(Query(query)) => try_ask(events, |reply| Request::Connections(query, reply)).await,
        Err(rejection) => Refusal::new(RefusalKind::Malformed, rejection.body_text()).into_response(),
    }
}

async fn rules(State(events): State<Events>, query: Result<Query<RuleQuery>, QueryRejection>) -> Response {
    match query {
        Ok(Query(query)) => try_ask(events, |reply| Request::Rules(query, reply)).await,
        Err(rejection) => Refusal::new(RefusalKind::Malformed, rejection.body_text()).into_response(),
    }
}

async fn drain(State(events): State<Events>, name: Result<Json<BackendName>, JsonRejection>) -> Response {
    match name {
        Ok(Json(name)) => try_ask(events, |reply| Request::Drain(name, reply)).await,
        Err(rejection) => Refusal::new(RefusalKind::Malformed, rejection.body_text()).into_response(),
    }
}

async fn undrain(State(events): State<Events>, name: Result<Json<BackendName>, JsonRejection>) -> Response {
    match name {
        Ok(Json(name)) => try_ask(events, |reply| Request::Undrain(name, reply)).await,
        Err(rejection) => Refusal::new(RefusalKind::Malformed, rejection.body_text()).into_response(),
    }
}

async fn metrics_page(State(events): State<Events>) -> Response {
    const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
    match answer(&events, Request::Metrics).await {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

/// 200 when nothing is wrong, else 503 with a line for each thing that is.
async fn probe(events: Events, request: impl FnOnce(Reply<Vec<String>>) -> Request) -> Response {
    let problems = answer(&events, request).await.unwrap_or_else(|refusal| vec![refusal.error]);
    if problems.is_empty() {
        (StatusCode::OK, "ok\n").into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, problems.join("\n") + "\n").into_response()
    }
}

async fn ask<T: serde::Serialize>(events: Events, request: impl FnOnce(Reply<T>) -> Request) -> Response {
    match answer(&events, request).await {
        Ok(value) => Json(value).into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

async fn try_ask<T: serde::Serialize>(
    events: Events,
    request: impl FnOnce(Reply<Result<T, Refusal>>) -> Request,
) -> Response {
    match answer(&events, request).await {
        Ok(Ok(value)) => Json(value).into_response(),
        Ok(Err(refusal)) | Err(refusal) => refusal.into_response(),
    }
}

/// The manager's answer, or why there is none.
async fn answer<T>(events: &Events, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, Refusal> {
    let (reply, answer) = oneshot::channel();
    let stopping = || Refusal::new(RefusalKind::Failed, "Millrace is stopping");
    events.send(Event::Request(request(reply))).map_err(|_| stopping())?;
    match tokio::time::timeout(ANSWER_TIMEOUT, answer).await {
        Ok(answer) => answer.map_err(|_| stopping()),
        Err(_) => Err(Refusal::new(RefusalKind::Failed, "the main thread does not answer")),
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match self.kind {
            RefusalKind::Malformed => StatusCode::BAD_REQUEST,
            RefusalKind::NotFound => StatusCode::NOT_FOUND,
            RefusalKind::Faulty => StatusCode::UNPROCESSABLE_ENTITY,
            RefusalKind::Failed => StatusCode::SERVICE_UNAVAILABLE,
        };
        (status, Json(self)).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{Client, ClientError};
    use std::io::{Read, Write};

    /// A served socket with a manager of canned answers behind it.
    struct Served {
        directory: tempfile::TempDir,
        stop: Option<oneshot::Sender<()>>,
        server: Option<std::thread::JoinHandle<()>>,
        metrics: std::net::SocketAddr,
    }

    impl Served {
        fn start() -> Served {
            let directory = tempfile::tempdir().expect("temporary directory");
            let control = ControlSocket::bind(&directory.path().join("sock"), 0o600).expect("bound");
            let listener = bind_metrics("127.0.0.1:0".parse().expect("address")).expect("bound");
            let metrics = listener.local_addr().expect("address");
            let (events, requests) = mpsc::channel();
            let (stop, stopped) = oneshot::channel();
            std::thread::spawn(move || requests.iter().for_each(answer_from_a_can));
            let server = std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let runtime = runtime.expect("runtime");
                runtime.block_on(serve(control, Some(listener), events, stopped)).expect("served");
            });
            Served { directory, stop: Some(stop), server: Some(server), metrics }
        }

        fn socket(&self) -> PathBuf {
            self.directory.path().join("sock")
        }

        fn page(&self, path: &str) -> String {
            let mut stream = std::net::TcpStream::connect(self.metrics).expect("connected");
            write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("sent");
            let mut page = String::new();
            stream.read_to_string(&mut page).expect("answered");
            page
        }
    }

    impl Drop for Served {
        fn drop(&mut self) {
            drop(self.stop.take());
            let served = self.server.take().map(std::thread::JoinHandle::join);
            assert!(served.is_some_and(|result| result.is_ok()) || std::thread::panicking());
            assert!(!self.socket().exists() || std::thread::panicking(), "the socket outlives its server");
        }
    }

    fn answer_from_a_can(event: Event) {
        let Event::Request(request) = event else { return };
        match request {
            Request::Services(reply) => {
                let _ = reply.send(vec![ServiceRow { name: "web".into(), ..ServiceRow::default() }]);
            }
            Request::Connections(query, reply) => {
                let service = query.service.unwrap_or_default();
                let row = crate::api::ConnectionRow { service, ..Default::default() };
                let connections = vec![row; query.limit.unwrap_or(0)];
                let _ = reply.send(Ok(Connections { connections, truncated: false, entries: 7 }));
            }
            Request::Drain(name, reply) => {
                let unknown = Refusal::new(RefusalKind::NotFound, format!("no service {}", name.service));
                let _ = reply.send(Err(unknown));
            }
            Request::Reload(reply) => {
                let mut refusal = Refusal::new(RefusalKind::Faulty, "2 faults");
                refusal.faults = vec!["one".into(), "two".into()];
                let _ = reply.send(Err(refusal));
            }
            Request::Metrics(reply) => drop(reply.send("up 1\n".into())),
            Request::Health(reply) => drop(reply.send(Vec::new())),
            Request::Readiness(reply) => drop(reply.send(vec!["port wan: no link".into()])),
            // Dropped unanswered, as by a manager that stops.
            _ => {}
        }
    }

    #[test]
    fn rows_and_queries_travel() {
        let served = Served::start();
        let socket = served.socket();
        let client = Client::new(&socket);
        let services: Vec<ServiceRow> = client.get("/v1/services").expect("answered");
        assert_eq!(services[0].name, "web");
        let found: Connections =
            client.get("/v1/connections?service=a%26b&client=2001:db8::1&limit=2").expect("answered");
        assert_eq!((found.connections.len(), found.connections[0].service.as_str()), (2, "a&b"));
    }

    #[test]
    fn refusals_keep_their_kind_and_their_faults() {
        let served = Served::start();
        let socket = served.socket();
        let client = Client::new(&socket);
        let name = BackendName { service: "web".into(), backend: "10.0.0.1".into() };
        let Err(ClientError::Refused(refusal)) = client.post::<Changed>("/v1/drain", &name) else {
            panic!("not refused");
        };
        assert_eq!((refusal.kind, refusal.error.as_str()), (RefusalKind::NotFound, "no service web"));
        let Err(ClientError::Refused(refusal)) = client.post::<Changed>("/v1/reload", &()) else {
            panic!("not refused");
        };
        assert_eq!((refusal.kind, refusal.faults.len()), (RefusalKind::Faulty, 2));
    }

    #[test]
    fn wrong_requests_are_explained() {
        let served = Served::start();
        let socket = served.socket();
        let client = Client::new(&socket);
        let reason = |result: Result<Connections, ClientError>| match result {
            Err(ClientError::Refused(refusal)) => refusal.error,
            other => panic!("{other:?}"),
        };
        assert!(reason(client.get("/v1/connections?sirvice=web")).contains("sirvice"));
        assert!(reason(client.get("/v1/connections?client=somebody")).contains("client"));
        assert!(reason(client.get("/v2/connections")).contains("docs/operations.md"));
        assert!(reason(client.get("/v1/version")).contains("stopping"));
    }

    #[test]
    fn pages_for_prometheus_and_probes() {
        let served = Served::start();
        let metrics = served.page("/metrics");
        assert!(metrics.contains("text/plain; version=0.0.4") && metrics.ends_with("up 1\n"), "{metrics}");
        assert!(served.page("/healthz").starts_with("HTTP/1.1 200"));
        let ready = served.page("/readyz");
        assert!(ready.starts_with("HTTP/1.1 503") && ready.ends_with("port wan: no link\n"), "{ready}");
    }

    #[test]
    fn a_socket_that_took_our_place_stays() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("sock");
        let ours = ControlSocket::bind(&path, 0o600).expect("bound");
        std::fs::remove_file(&path).expect("removed by somebody");
        let theirs = ControlSocket::bind(&path, 0o600).expect("bound");
        drop(ours);
        assert!(path.exists());
        drop(theirs);
        assert!(!path.exists());
    }

    #[test]
    fn a_socket_is_replaced_only_when_nobody_listens() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("deep/sock");
        let first = ControlSocket::bind(&path, 0o640).expect("bound");
        let mode = std::fs::metadata(&path).expect("exists").permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        assert!(matches!(ControlSocket::bind(&path, 0o640), Err(BindError::InUse(_))));
        // A process that died leaves the file and closes the listener.
        let ControlSocket { listener, path: kept } = first;
        drop(listener);
        std::mem::forget(kept);
        let second = ControlSocket::bind(&path, 0o600).expect("the stale one is replaced");
        drop(second);
        assert!(!path.exists());
        std::fs::write(&path, "precious").expect("written");
        assert!(matches!(ControlSocket::bind(&path, 0o600), Err(BindError::NotASocket(_))));
        assert_eq!(std::fs::read_to_string(&path).expect("still there"), "precious");
    }

    #[test]
    fn nobody_listening_is_said_plainly() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let socket = directory.path().join("sock");
        let error = Client::new(&socket).get::<VersionInfo>("/v1/version").expect_err("nobody");
        assert!(error.to_string().starts_with("Millrace is not running"), "{error}");
    }
}
