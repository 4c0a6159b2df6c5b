//! The control API: HTTP with JSON on a Unix socket, and the metrics pages on TCP.
//!
//! Nothing is decided here. Each handler turns its request into a [`Request`], gives it to the manager
//! (the main thread, which owns everything) and waits for the answer, for a bounded time.

use crate::api::WorkerRow;
use crate::api::{BackendName, BackendRow, Changed, ConnectionQuery, Connections, DropRow, NeighbourRow};
use crate::api::{OffloadRow, PortRow, Refusal, RefusalKind, RuleQuery, Rules, ServiceRow, VersionInfo};
use crate::pages::Pages;
use crate::policy::PolicyRow;
use crate::socket::ControlSocket;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
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
    Policy(Reply<Vec<PolicyRow>>),
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

/// Serves both until `stop` resolves.
pub(crate) async fn serve(
    control: ControlSocket,
    metrics: Option<std::net::TcpListener>,
    events: Events,
    stop: oneshot::Receiver<()>,
) -> std::io::Result<()> {
    let ControlSocket { listener, path } = control;
    let api = axum::serve(UnixListener::from_std(listener)?, api_pages().router(events.clone()));
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

/// What can be asked. A page is added by a line here: its path, what it is for, and the [`Request`] that it
/// becomes, whose types derive `JsonSchema`. With that it is served, refuses what it should, and is in
/// `/v1/openapi.json` with its types' documentation.
fn api_pages() -> Pages {
    Pages::new()
        .get("/v1/policy", "Policy rules: actions, and how often each has decided", Request::Policy)
        .get("/v1/services", "Services: VIPs, modes and how much they carry", Request::Services)
        .get("/v1/backends", "Backends: weights, states, live connections and traffic", Request::Backends)
        .find("/v1/connections", "Connections, as the workers' tables hold them", Request::Connections)
        .get("/v1/ports", "Ports: link, MAC address, counters of the device", Request::Ports)
        .get("/v1/workers", "Workers: cores, load, table use, conservation of packets", Request::Workers)
        .get("/v1/drops", "Packets that were not sent, by reason", Request::Drops)
        .try_get("/v1/neighbours", "The neighbour table (ARP and neighbour discovery)", Request::Neighbours)
        .get("/v1/offload", "The offload engine, and what became of what it was asked", Request::Offload)
        .find("/v1/rules", "Rules in hardware, as testpmd would be told to make them", Request::Rules)
        .get("/v1/version", "The version of the running program", Request::Version)
        .post("/v1/drain", "Stop giving a backend new connections; the ones it has go on", Request::Drain)
        .post("/v1/undrain", "End a drain", Request::Undrain)
        .act(
            "/v1/reload",
            "Read the configuration file again; refused as a whole if it has a fault",
            Request::Reload,
        )
}

fn metrics_router(events: Events) -> Router {
    Router::new()
        .route("/metrics", get(metrics_page))
        .route("/healthz", get(|State(events): State<Events>| probe(events, Request::Health)))
        .route("/readyz", get(|State(events): State<Events>| probe(events, Request::Readiness)))
        .with_state(events)
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

/// The manager's answer, or why there is none.
pub(crate) async fn answer<T>(
    events: &Events,
    request: impl FnOnce(Reply<T>) -> Request,
) -> Result<T, Refusal> {
    let (reply, answer) = oneshot::channel();
    let stopping = || Refusal::new(RefusalKind::Failed, "Millrace is stopping");
    events.send(Event::Request(request(reply))).map_err(|_| stopping())?;
    match tokio::time::timeout(ANSWER_TIMEOUT, answer).await {
        Ok(answer) => answer.map_err(|_| stopping()),
        Err(_) => Err(Refusal::new(RefusalKind::Failed, "the main thread does not answer")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{Client, ClientError};
    use crate::socket::bind_metrics;
    use std::io::{Read, Write};
    use std::path::{Path, PathBuf};

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
                let connections = vec![row; query.limit.map_or(0, |limit| limit.rows())];
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
        assert!(ready.starts_with("HTTP/1.1 503") && ready.ends_with("port wan: no link\n"), "{ready}");
    }

    #[test]
    fn nobody_listening_is_said_plainly() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let socket = directory.path().join("sock");
        let error = Client::new(&socket).get::<VersionInfo>("/v1/version").expect_err("nobody");
        assert!(error.to_string().starts_with("Millrace is not running"), "{error}");
    }
}
