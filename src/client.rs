//! The other end of the control socket: one request, one answer.

use crate::api::{Problem, Refusal, RefusalKind};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;

/// Longer than the server makes anyone wait, so that its explanation arrives.
const TIMEOUT: Duration = Duration::from_secs(15);

const JSON: &str = "application/json";

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// Nobody listens.
    #[error(
        "Millrace is not running, or its control socket is not {}\n\
         start it with `millrace run`, or name the socket with --socket (`[control] socket` in its configuration)",
        .0.display()
    )]
    NotRunning(PathBuf),
    /// The socket's mode keeps us out.
    #[error("no permission to use the control socket {}; try as root, or see `[control] mode`", .0.display())]
    NotAllowed(PathBuf),
    /// The connection broke or the answer makes no sense.
    #[error("control socket {}: {reason}", path.display())]
    Broken {
        /// The socket.
        path: PathBuf,
        /// What went wrong.
        reason: String,
    },
    /// Millrace said no.
    #[error("{0}")]
    Refused(Refusal),
}

/// A running Millrace, by its control socket.
#[derive(Debug)]
pub(crate) struct Client<'a> {
    socket: &'a Path,
}

impl<'a> Client<'a> {
    /// Speaks to whoever listens at `socket`; connects only when asked something.
    pub(crate) fn new(socket: &'a Path) -> Client<'a> {
        Client { socket }
    }

    /// `GET path`.
    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.request(Method::GET, path, Bytes::new())
    }

    /// `POST path` with `body` as JSON.
    pub(crate) fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| self.broken(error))?;
        self.request(Method::POST, path, body.into())
    }

    /// `POST path` with a configuration.
    pub(crate) fn upload<T: DeserializeOwned>(&self, path: &str, text: String) -> Result<T, ClientError> {
        let body = self.bytes(Method::POST, path, "application/toml", text.into())?;
        serde_json::from_slice(&body).map_err(|error| self.broken(error))
    }

    /// `POST path` with `body` as JSON, for an answer that is none.
    pub(crate) fn fetch(&self, path: &str, body: &impl Serialize) -> Result<Bytes, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| self.broken(error))?;
        self.bytes(Method::POST, path, JSON, body.into())
    }

    fn request<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, ClientError> {
        serde_json::from_slice(&self.bytes(method, path, JSON, body)?).map_err(|error| self.broken(error))
    }

    fn bytes(&self, method: Method, path: &str, kind: &str, body: Bytes) -> Result<Bytes, ClientError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| self.broken(error))?;
        let exchange = async {
            tokio::time::timeout(TIMEOUT, self.exchange(method, path, kind, body))
                .await
                .unwrap_or_else(|_| Err(self.broken("no answer")))
        };
        let (status, body) = runtime.block_on(exchange)?;
        if status.is_success() {
            return Ok(body);
        }
        let text = || String::from_utf8_lossy(&body).trim().to_owned();
        let kind = RefusalKind::of_status(status.as_u16());
        let refusal = match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => Refusal { kind, error: problem.detail, faults: problem.faults },
            Err(_) => Refusal::new(kind, format!("{status}: {}", text())),
        };
        Err(ClientError::Refused(refusal))
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        kind: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let stream = UnixStream::connect(self.socket).await.map_err(|error| self.unreachable(&error))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.broken(error))?;
        let connection = tokio::spawn(connection);
        let request = hyper::Request::builder()
            .method(method)
            .uri(path)
            .header(hyper::header::HOST, "millrace")
            .header(hyper::header::CONTENT_TYPE, kind)
            .body(Full::new(body))
            .map_err(|error| self.broken(error))?;
        let response = sender.send_request(request).await.map_err(|error| self.broken(error))?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(|error| self.broken(error))?.to_bytes();
        connection.abort();
        Ok((status, body))
    }

    fn unreachable(&self, error: &std::io::Error) -> ClientError {
        use std::io::ErrorKind::{ConnectionRefused, NotFound, PermissionDenied};
        match error.kind() {
            NotFound | ConnectionRefused => ClientError::NotRunning(self.socket.to_owned()),
            PermissionDenied => ClientError::NotAllowed(self.socket.to_owned()),
            _ => self.broken(error),
        }
    }

    fn broken(&self, reason: impl ToString) -> ClientError {
        ClientError::Broken { path: self.socket.to_owned(), reason: reason.to_string() }
    }
}
