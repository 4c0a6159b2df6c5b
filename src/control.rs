//! The control API: HTTP with JSON on a Unix socket, and the metrics pages on TCP.
//!
//! Nothing is decided here. Each handler turns its request into a [`Request`], gives it to the manager
//! (the main thread, which owns everything) and waits for the answer, for a bounded time.

use crate::access::{self, Caller, Gate, Token};
use crate::api::{BackendName, BackendRow, Changed, ConnectionQuery, Connections, DropRow, NeighbourRow};
use crate::api::{HistoryRow, MeterRow, ReloadQuery, Reloaded, WorkerRow};
use crate::api::{OffloadRow, PortRow, Refusal, RefusalKind, RuleQuery, Rules, ServiceRow, VersionInfo};
use crate::capture::{self, Capture, CaptureId, CaptureQuery, CaptureRow};
use crate::http::{self, Accepted, BodyMax, Peer};
use crate::lobby::{self, Room};
use crate::pages::Pages;
use crate::policy::PolicyRow;
use crate::socket::{self, BindError, ControlSocket};
use crate::tenants::TenantRow;
use crate::trace::{TraceQuery, TraceRow};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use dataplane::config::Config;
use std::path::Path;
use std::sync::{Arc, Weak, mpsc};
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::oneshot;

/// How long a request waits for the manager. Longer than the manager waits for workers.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Where configurations are sent to,
const CONFIG: &str = "/v1/config";
/// and how large they may be, bytes: some 100,000 policy rules.
const CONFIG_MAX: usize = 16 << 20;

/// Readers with the token, and others.
const READERS: Room = Room { business: 32, strangers: 128 };
/// Of the metrics pages: those that are being answered, and others. Each may have a page that nobody reads.
const SCRAPERS: Room = Room { business: 8, strangers: 32 };

/// How large the body of a request for a page may be.
pub(crate) fn body_max(page: &str) -> usize {
    if page == CONFIG { CONFIG_MAX } else { http::small(page) }
}

/// Where an answer goes.
pub(crate) type Reply<T> = oneshot::Sender<T>;

/// What `/readyz` says.
#[derive(Debug, Default)]
pub(crate) struct Readiness {
    /// What is missing.
    pub(crate) problems: Vec<String>,
    /// What somebody should know of, though traffic goes on.
    pub(crate) notes: Vec<String>,
}

/// What the manager is asked to do.
#[derive(Debug)]
pub(crate) enum Request {
    Services(Reply<Vec<ServiceRow>>),
    Policy(Reply<Vec<PolicyRow>>),
    Tenants(Reply<Vec<TenantRow>>),
    Backends(Reply<Vec<BackendRow>>),
    Connections(ConnectionQuery, Reply<Result<Connections, Refusal>>),
    Ports(Reply<Vec<PortRow>>),
    Workers(Reply<Vec<WorkerRow>>),
    Drops(Reply<Vec<DropRow>>),
    /// `GET /v1/meters`
    Meters(Reply<Vec<MeterRow>>),
    Neighbours(Reply<Result<Vec<NeighbourRow>, Refusal>>),
    Offload(Reply<OffloadRow>),
    Rules(RuleQuery, Reply<Result<Rules, Refusal>>),
    Trace(TraceQuery, Reply<Result<TraceRow, Refusal>>),
    Version(Reply<VersionInfo>),
    Capture(Caller, CaptureQuery, Reply<Result<CaptureRow, Refusal>>),
    CaptureStop(CaptureId, Reply<Result<CaptureRow, Refusal>>),
    /// The capture, to be read by whoever asks.
    CapturePage(CaptureId, Reply<Result<Arc<Capture>, Refusal>>),
    Drain(Caller, BackendName, Reply<Result<Changed, Refusal>>),
    Undrain(Caller, BackendName, Reply<Result<Changed, Refusal>>),
    Reload(Caller, ReloadQuery, Reply<Result<Reloaded, Refusal>>),
    /// The text of a configuration to be put in force.
    Config(Caller, ReloadQuery, String, Reply<Result<Reloaded, Refusal>>),
    History(Reply<Vec<HistoryRow>>),
    /// The text of the metrics page.
    Metrics(Reply<String>),
    /// What is wrong with the process; empty when it is healthy.
    Health(Reply<Vec<String>>),
    /// What keeps traffic from being served; empty when ready.
    Readiness(Reply<Readiness>),
}

impl Request {
    /// How long it may wait.
    pub(crate) fn urgency(&self) -> Urgency {
        match self {
            Request::Drain(..) | Request::Undrain(..) | Request::Reload(..) | Request::Config(..) => {
                Urgency::Change
            }
            Request::Health(_) | Request::Readiness(_) => Urgency::Urgent,
            _ => Urgency::Question,
        }
    }
}

/// How long a request may wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Urgency {
    /// A late answer is taken for trouble.
    Urgent,
    /// More than an answer may come of it: not while another change is being made.
    Change,
    /// Until there is nothing else to do.
    Question,
}

/// What wakes the manager.
#[derive(Debug)]
pub(crate) enum Event {
    /// Somebody asks, and has left once this leads nowhere.
    Request(Request, Weak<()>),
    /// Health checks have something new.
    Health,
    /// SIGHUP.
    Reload,
    /// SIGINT or SIGTERM.
    Stop,
}

/// The way to the manager.
pub(crate) type Events = mpsc::Sender<Event>;

/// What is listened to.
#[derive(Debug)]
pub(crate) struct Listeners {
    pub(crate) control: ControlSocket,
    /// The control API for whoever has the token, without what changes anything.
    pub(crate) reader: Option<(std::net::TcpListener, Token)>,
    pub(crate) metrics: Option<std::net::TcpListener>,
}

impl Listeners {
    /// Listens where the configuration says; the control socket may be at another `path`.
    pub(crate) fn bind(config: &Config, path: Option<&Path>) -> Result<Listeners, BindError> {
        let metrics = config.metrics.map(|metrics| socket::bind_tcp(metrics.listen, "[metrics] listen"));
        Ok(Listeners {
            control: socket::bind_control(&config.control, path)?,
            reader: socket::bind_reader(&config.control)?,
            metrics: metrics.transpose()?,
        })
    }
}

/// Serves them until `stop` resolves.
pub(crate) async fn serve(
    listeners: Listeners,
    events: Events,
    stop: oneshot::Receiver<()>,
) -> std::io::Result<()> {
    let ControlSocket { listener, path, gate } = listeners.control;
    let listener = UnixListener::from_std(listener)?;
    let api = api_pages(false).router(events.clone());
    let api = http::serve(async move || {
        let (stream, _) = listener.accept().await?;
        admit(stream, &gate, &api)
    });
    let reader = async {
        let Some((listener, token)) = listeners.reader else { return std::future::pending().await };
        let pages = api_pages(true).router(events.clone());
        let pages = pages.layer(from_fn_with_state(token, access::need_token));
        lobby::serve(TcpListener::from_std(listener)?, pages, READERS).await;
        Ok(())
    };
    let pages = async {
        let Some(listener) = listeners.metrics else { return std::future::pending().await };
        lobby::serve(TcpListener::from_std(listener)?, metrics_router(events.clone()), SCRAPERS).await;
        Ok(())
    };
    let result = tokio::select! {
        () = api => Ok(()),
        result = reader => result,
        result = pages => result,
        _ = stop => Ok(()),
    };
    drop(path);
    result
}

/// What serves a connection to the control socket: everything if its peer may ask, else a refusal.
fn admit(stream: UnixStream, gate: &Gate, api: &Router) -> std::io::Result<Accepted<UnixStream>> {
    let caller = Caller::of(&stream)?;
    let peer = Peer::of(&stream);
    if gate.admits(&caller) {
        let router = api.clone().layer(Extension(caller));
        return Ok(Accepted { stream, peer, router, life: http::LIFE });
    }
    tracing::warn!(by = %caller, "refused at the control socket");
    let refusal =
        Refusal::new(RefusalKind::Forbidden, format!("{caller}: not root, not us, not in [control] group"));
    let router = Router::new().fallback(async move || http::last(refusal.clone().into_response()));
    Ok(Accepted { stream, peer, router, life: Duration::from_secs(1) })
}

/// What can be asked. A page is added by a line here: its path, what it is for, and the [`Request`] that it
/// becomes, whose types derive `JsonSchema`. With that it is served, refuses what it should, and is in
/// `/v1/openapi.json` with its types' documentation.
fn api_pages(read_only: bool) -> Pages {
    Pages::new(read_only)
        .get("/v1/policy", "Policy rules: actions, and how often each has decided", Request::Policy)
        .get("/v1/tenants", "Tenants: connections, traffic and what was dropped of it", Request::Tenants)
        .get("/v1/services", "Services: VIPs, modes and how much they carry", Request::Services)
        .get("/v1/backends", "Backends: weights, states, live connections and traffic", Request::Backends)
        .find("/v1/connections", "Connections, as the workers' tables hold them", Request::Connections)
        .get("/v1/ports", "Ports: link, MAC address, counters of the device", Request::Ports)
        .get("/v1/workers", "Workers: cores, load, table use, conservation of packets", Request::Workers)
        .get("/v1/meters", "Meters: limits, and what became of packets by colour", Request::Meters)
        .get("/v1/drops", "Packets that were not sent, by reason", Request::Drops)
        .try_get("/v1/neighbours", "The neighbour table (ARP and neighbour discovery)", Request::Neighbours)
        .get("/v1/offload", "The offload engine, and what became of what it was asked", Request::Offload)
        .find("/v1/rules", "Rules in hardware, as testpmd would be told to make them", Request::Rules)
        .find("/v1/trace", "What becomes of a packet, and why; nothing is sent", Request::Trace)
        .get("/v1/version", "The version of the running program", Request::Version)
        .post("/v1/drain", "Stop giving a backend new connections; the ones it has go on", Request::Drain)
        .post("/v1/undrain", "End a drain", Request::Undrain)
        .post("/v1/capture", "Begin to capture packets; `packets` has them", Request::Capture)
        .download(
            "/v1/capture/packets",
            "What has been captured since this was asked last, as part of a pcapng file",
            "application/x-pcapng",
            capture_page,
        )
        .post("/v1/capture/stop", "End a capture, or ask what has come of it", |_, id, reply| {
            Request::CaptureStop(id, reply)
        })
        .get("/v1/history", "The last changes of the configuration in force, oldest first", Request::History)
        .act(
            "/v1/reload",
            "Read the configuration file again; refused as a whole if it has a fault",
            Request::Reload,
        )
        .upload(
            CONFIG,
            "Put this configuration in force, as a reload would; the file stays as it is",
            "application/toml",
            Request::Config,
        )
}

async fn capture_page(events: Events, id: CaptureId) -> Result<Vec<u8>, Refusal> {
    let capture = answer(&events, |reply| Request::CapturePage(id, reply)).await??;
    capture::next_page(&capture).await
}

fn metrics_router(events: Events) -> Router {
    Router::new()
        .route("/metrics", get(metrics_page))
        .route("/healthz", get(liveness))
        .route("/readyz", get(readiness))
        .layer(from_fn(lobby::attend))
        .layer(from_fn_with_state(http::small as BodyMax, http::whole))
        .layer(from_fn(http::in_time))
        .with_state(events)
}

async fn metrics_page(State(events): State<Events>) -> Response {
    const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
    match answer(&events, Request::Metrics).await {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

async fn liveness(State(events): State<Events>) -> Response {
    let problems = answer(&events, Request::Health).await.unwrap_or_else(|refusal| vec![refusal.error]);
    Readiness { problems, notes: Vec::new() }.into_response()
}

async fn readiness(State(events): State<Events>) -> Response {
    let none = |refusal: Refusal| Readiness { problems: vec![refusal.error], notes: Vec::new() };
    answer(&events, Request::Readiness).await.unwrap_or_else(none).into_response()
}

impl IntoResponse for Readiness {
    /// 200 when nothing is wrong, else 503 with a line for each thing that is; then what is worth a note.
    fn into_response(self) -> Response {
        let well = self.problems.is_empty();
        let status = if well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let lines =
            self.problems.into_iter().chain(self.notes.into_iter().map(|note| format!("note: {note}")));
        let lines: Vec<String> = well.then(|| "ok".to_owned()).into_iter().chain(lines).collect();
        (status, lines.join("\n") + "\n").into_response()
    }
}

/// The manager's answer, or why there is none.
pub(crate) async fn answer<T>(
    events: &Events,
    request: impl FnOnce(Reply<T>) -> Request,
) -> Result<T, Refusal> {
    let (reply, answer) = oneshot::channel();
    let stopping = || Refusal::new(RefusalKind::Failed, "Millrace is stopping");
    // Lives as long as somebody waits here.
    let asker = Arc::new(());
    events.send(Event::Request(request(reply), Arc::downgrade(&asker))).map_err(|_| stopping())?;
    match tokio::time::timeout(ANSWER_TIMEOUT, answer).await {
        Ok(answer) => answer.map_err(|_| stopping()),
        Err(_) => Err(Refusal::new(RefusalKind::Failed, "the main thread does not answer")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{Client, ClientError};
    use crate::socket::bind_tcp;
    use std::io::{BufRead, Read, Write};
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    /// A served socket with a manager of canned answers behind it.
    struct Served {
        directory: tempfile::TempDir,
        stop: Option<oneshot::Sender<()>>,
        server: Option<std::thread::JoinHandle<()>>,
        metrics: std::net::SocketAddr,
        readers: std::net::SocketAddr,
    }

    impl Served {
        fn start() -> Served {
            let directory = tempfile::tempdir().expect("temporary directory");
            let gate = Gate::new(None).expect("a gate");
            let control = ControlSocket::bind(&directory.path().join("sock"), 0o600, gate).expect("bound");
            let reader =
                bind_tcp("127.0.0.1:0".parse().expect("address"), "[control] listen").expect("bound");
            let readers = reader.local_addr().expect("address");
            let file = directory.path().join("token");
            std::fs::write(&file, "0123456789abcdef").expect("written");
            std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).expect("set");
            let token = Token::read(&file).expect("a token");
            let listener =
                bind_tcp("127.0.0.1:0".parse().expect("address"), "[metrics] listen").expect("bound");
            let metrics = listener.local_addr().expect("address");
            let (events, requests) = mpsc::channel();
            let (stop, stopped) = oneshot::channel();
            std::thread::spawn(move || requests.iter().for_each(answer_from_a_can));
            let server = std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let runtime = runtime.expect("runtime");
                let listeners = Listeners { control, reader: Some((reader, token)), metrics: Some(listener) };
                runtime.block_on(serve(listeners, events, stopped)).expect("served");
                runtime.shutdown_background();
            });
            Served { directory, stop: Some(stop), server: Some(server), metrics, readers }
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
        let Event::Request(request, _) = event else { return };
        match request {
            Request::Services(reply) => {
                let _ = reply.send(vec![ServiceRow { name: "web".into(), ..ServiceRow::default() }]);
            }
            Request::Connections(query, reply) => {
                let service = query.service.unwrap_or_default();
                let row = crate::api::ConnectionRow { service, ..Default::default() };
                let connections = vec![row; query.limit.map_or(0, |limit| limit.rows())];
                let _ = reply.send(Ok(Connections { connections, truncated: false, entries: 7 }));
            }
            Request::Drain(_, name, reply) => {
                let unknown = Refusal::new(RefusalKind::NotFound, format!("no service {}", name.service));
                let _ = reply.send(Err(unknown));
            }
            Request::Reload(_, _, reply) => {
                let mut refusal = Refusal::new(RefusalKind::Faulty, "2 faults");
                refusal.faults = vec!["one".into(), "two".into()];
                let _ = reply.send(Err(refusal));
            }
            Request::Metrics(reply) => drop(reply.send("up 1\n".into())),
            Request::Health(reply) => drop(reply.send(Vec::new())),
            Request::Readiness(reply) => drop(reply.send(Readiness {
                problems: vec!["port wan: no link".into()],
                notes: vec!["health of web is ignored".into()],
            })),
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
        assert!(reason(client.get("/v1/connections?limit=100001")).contains("give 0 to 100000"));
        assert!(reason(client.get("/v2/connections")).contains("/v1/openapi.json"));
        assert!(reason(client.get("/v1/version")).contains("stopping"));
    }

    /// One exchange as written: the answer's status, head and body.
    fn say(socket: &Path, request: &str, body: &[u8]) -> (u16, String, serde_json::Value) {
        let mut stream = std::os::unix::net::UnixStream::connect(socket).expect("connected");
        let length = body.len();
        let head =
            format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
        let head = head.replace(" JSON HTTP/1.1", " HTTP/1.1\r\nContent-Type: application/json");
        stream.write_all(head.as_bytes()).expect("sent");
        // What is refused early is not read to its end.
        let _ = stream.write_all(body);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8(answer).expect("text");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        (status, head.to_ascii_lowercase(), serde_json::from_str(body).unwrap_or_default())
    }

    #[test]
    fn what_is_refused_leaves_the_connection_as_it_was() {
        let served = Served::start();
        let mut stream = std::os::unix::net::UnixStream::connect(served.socket()).expect("connected");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("set");
        let mut answers = std::io::BufReader::new(stream.try_clone().expect("cloned"));
        let mut status = || {
            let lines = std::io::BufRead::lines(&mut answers);
            let head: Vec<String> =
                lines.map(|line| line.expect("a head")).take_while(|line| !line.is_empty()).collect();
            let length =
                head.iter().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
            answers.read_exact(&mut vec![0; length.parse().expect("a number")]).expect("a body");
            head[0][9..12].to_owned()
        };
        for _ in 0..20 {
            // Of a kind that is refused without a look at the body, which comes later.
            let head =
                "POST /v1/drain HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 9\r\n\r\n";
            stream.write_all(head.as_bytes()).expect("sent");
            std::thread::sleep(Duration::from_millis(5));
            stream.write_all(b"something").expect("sent");
            assert_eq!(status(), "415");
        }
        stream.write_all(b"GET /v1/services HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
        assert_eq!(status(), "200");
    }

    #[test]
    fn every_refusal_is_a_problem_with_the_right_status() {
        let served = Served::start();
        let socket = served.socket();
        let large = format!("{{\"service\": \"{}\"}}", "x".repeat(100_000));
        let cases: [(u16, &str, &str); 10] = [
            (404, "GET /v1/nothing", ""),
            (405, "DELETE /v1/services", ""),
            (405, "GET /v1/drain", ""),
            (400, "GET /v1/services?verbose=1", ""),
            (400, "POST /v1/drain JSON", "{\"service\""),
            (415, "POST /v1/drain", "{}"),
            (422, "POST /v1/drain JSON", "{\"service\": 1, \"backend\": \"b\"}"),
            (422, "POST /v1/drain JSON", "{\"service\": \"a\", \"backend\": \"b\", \"c\": 0}"),
            (413, "POST /v1/drain JSON", &large),
            (503, "GET /v1/version", ""),
        ];
        for (status, request, body) in cases {
            let (found, head, problem) = say(&socket, request, body.as_bytes());
            assert_eq!(
                (found, problem["status"].as_u64()),
                (status, Some(status.into())),
                "{request}: {head}"
            );
            assert!(head.contains("content-type: application/problem+json"), "{request}: {head}");
            assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{request}");
            assert_eq!(head.contains("\r\nallow: "), status == 405, "{request}: {head}");
        }
    }

    /// One exchange with the read-only listener.
    fn read(served: &Served, request: &str, authorization: &str) -> String {
        let mut stream = std::net::TcpStream::connect(served.readers).expect("connected");
        write!(stream, "{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{authorization}\r\n")
            .expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answered");
        answer
    }

    #[test]
    fn readers_need_the_token_and_can_only_read() {
        let served = Served::start();
        let right = "Authorization: Bearer 0123456789abcdef\r\n";
        for wrong in ["", "Authorization: Bearer 0123456789abcdeg\r\n"] {
            for page in ["/v1/services", "/v1/openapi.json", "/nothing"] {
                let answer = read(&served, &format!("GET {page}"), wrong);
                assert!(
                    answer.starts_with("HTTP/1.1 401") && answer.contains("www-authenticate: Bearer"),
                    "{answer}"
                );
            }
        }
        assert!(read(&served, "GET /v1/services", right).starts_with("HTTP/1.1 200"));
        assert!(read(&served, "POST /v1/services", right).starts_with("HTTP/1.1 405"));
        for page in ["/v1/drain", "/v1/undrain", "/v1/reload"] {
            assert!(read(&served, &format!("POST {page}"), right).starts_with("HTTP/1.1 404"), "{page}");
            assert!(!read(&served, "GET /v1/openapi.json", right).contains(page));
        }
    }

    /// As many as there is room for, and more, who say nothing: whoever has the token is answered all the
    /// same, and keeps the connection.
    #[test]
    fn strangers_keep_no_place_from_readers() {
        let served = Served::start();
        let connect = || std::net::TcpStream::connect(served.readers).expect("connected");
        let crowd = || (0..200).map(|_| connect()).collect::<Vec<_>>();
        let mut reader = std::io::BufReader::new(connect());
        let mut ask = || {
            let token = "Authorization: Bearer 0123456789abcdef";
            write!(reader.get_mut(), "GET /v1/services HTTP/1.1\r\nHost: x\r\n{token}\r\n\r\n")
                .expect("sent");
            let head: Vec<String> = std::iter::from_fn(|| {
                let mut line = String::new();
                reader.read_line(&mut line).expect("answered");
                Some(line.trim().to_ascii_lowercase()).filter(|line| !line.is_empty())
            })
            .collect();
            let length =
                head.iter().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
            let mut body = vec![0; length.parse().expect("a number")];
            reader.read_exact(&mut body).expect("answered");
            head[0].clone()
        };
        assert_eq!(ask(), "http/1.1 200 ok");
        let silent = crowd();
        assert_eq!(ask(), "http/1.1 200 ok");
        let right = "Authorization: Bearer 0123456789abcdef\r\n";
        assert!(read(&served, "GET /v1/services", right).starts_with("HTTP/1.1 200"));
        drop(silent);
    }

    #[test]
    fn the_description_has_every_page() {
        let served = Served::start();
        let (status, head, description) = say(&served.socket(), "GET /v1/openapi.json", b"");
        assert_eq!(status, 200);
        assert!(head.contains("content-type: application/json"), "{head}");
        assert_eq!(description["openapi"], "3.1.0");
        for path in ["/v1/services", "/v1/connections", "/v1/drain", "/v1/reload", "/v1/openapi.json"] {
            assert!(description["paths"][path].is_object(), "{path}");
        }
    }

    #[test]
    fn pages_for_prometheus_and_probes() {
        let served = Served::start();
        let metrics = served.page("/metrics");
        assert!(metrics.contains("text/plain; version=0.0.4") && metrics.ends_with("up 1\n"), "{metrics}");
        assert!(served.page("/healthz").starts_with("HTTP/1.1 200"));
        let ready = served.page("/readyz");
        assert!(
            ready.starts_with("HTTP/1.1 503")
                && ready.ends_with("port wan: no link\nnote: health of web is ignored\n"),
            "{ready}"
        );
    }

    /// Far more than there is room for: before the last of them gave up, a minute would pass.
    #[test]
    fn strangers_keep_no_place_from_scrapers() {
        let served = Served::start();
        let connect = || std::net::TcpStream::connect(served.metrics).expect("connected");
        let silent: Vec<_> = (0..200).map(|_| connect()).collect();
        let mut scraper = connect();
        scraper.set_read_timeout(Some(Duration::from_secs(30))).expect("set");
        write!(scraper, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("sent");
        let mut page = String::new();
        scraper.read_to_string(&mut page).expect("answered");
        assert!(page.ends_with("up 1\n"), "{page}");
        drop(silent);
    }

    #[test]
    fn nobody_listening_is_said_plainly() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let socket = directory.path().join("sock");
        let error = Client::new(&socket).get::<VersionInfo>("/v1/version").expect_err("nobody");
        assert!(error.to_string().starts_with("Millrace is not running"), "{error}");
    }
}
