//! Who may use the control API: on the Unix socket by whom the peer runs as, on TCP by a token.

use crate::api::{Refusal, RefusalKind};
use crate::http;
use crate::lobby::Guest;
use axum::extract::{Request, State};
use axum::http::header;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use subtle::ConstantTimeEq;
use tokio::net::UnixStream;

/// Shortest token: what 12 random bytes are in base64.
const TOKEN_MIN: usize = 16;
/// Largest token file, bytes.
const TOKEN_FILE_MAX: u64 = 4096;

/// Who is at the other end of the control socket, as the kernel knew it when it connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    user: u32,
    group: u32,
    process: Option<i32>,
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "user {}", self.user)?;
        self.process.map_or(Ok(()), |process| write!(f, ", process {process}"))
    }
}

impl Caller {
    /// Somebody who asks for a test.
    #[cfg(test)]
    pub(crate) fn nobody() -> Caller {
        Caller { user: 65_534, group: 65_534, process: None }
    }

    /// The peer of a connection.
    pub(crate) fn of(stream: &UnixStream) -> std::io::Result<Caller> {
        let peer = stream.peer_cred()?;
        Ok(Caller { user: peer.uid(), group: peer.gid(), process: peer.pid() })
    }

    /// Whether it belongs to `group`, supplementary groups included. Those are read from /proc: should the
    /// process have gone and its number be another's, the socket's mode is what lets people in.
    fn is_in(&self, group: u32) -> bool {
        let status = || std::fs::read_to_string(format!("/proc/{}/status", self.process?)).ok();
        self.group == group || status().is_some_and(|status| groups(&status).any(|one| one == group))
    }
}

/// The supplementary groups in a process's status, proc(5).
fn groups(status: &str) -> impl Iterator<Item = u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap_or("");
    line.split_whitespace().filter_map(|group| group.parse().ok())
}

/// Whom the control socket is for: root, whoever Millrace runs as, and a group if one is configured. The
/// socket's mode keeps others from connecting; this holds when the mode does not.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gate {
    own: u32,
    group: Option<u32>,
}

impl Gate {
    /// The gate of this process.
    pub(crate) fn new(group: Option<u32>) -> std::io::Result<Gate> {
        Ok(Gate { own: std::fs::metadata("/proc/self")?.uid(), group })
    }

    /// The group that is let in besides.
    pub(crate) fn group(&self) -> Option<u32> {
        self.group
    }

    /// Whether this one may ask.
    pub(crate) fn admits(&self, caller: &Caller) -> bool {
        let known = caller.user == 0 || caller.user == self.own;
        known || self.group.is_some_and(|group| caller.is_in(group))
    }
}

/// The number of a group, which may be its name or the number itself.
pub(crate) fn group_number(name: &str) -> Option<u32> {
    let named = |line: &str| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok()).flatten()
    };
    let listed = || std::fs::read_to_string("/etc/group").ok()?.lines().find_map(named);
    name.parse().ok().or_else(listed)
}

/// What lets a request on TCP in.
#[derive(Clone)]
pub(crate) struct Token(Arc<[u8]>);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

impl Token {
    /// The token in `file`, which must not be for everyone to read.
    ///
    /// # Errors
    ///
    /// What is wrong with the file, for a person.
    pub(crate) fn read(file: &Path) -> Result<Token, String> {
        let metadata = std::fs::metadata(file).map_err(|error| error.to_string())?;
        if metadata.mode() & 0o007 != 0 {
            return Err("everyone may read it; chmod o= it".to_owned());
        }
        if metadata.len() > TOKEN_FILE_MAX {
            return Err(format!("{} bytes are no token", metadata.len()));
        }
        let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
        let token = text.trim();
        if token.len() < TOKEN_MIN || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            let remedy = "`openssl rand -hex 32` makes one";
            return Err(format!("has no token of {TOKEN_MIN} or more printable characters; {remedy}"));
        }
        Ok(Token(token.as_bytes().into()))
    }

    /// Whether a header has it. Takes as long for a token that is nearly right as for any other.
    fn opens(&self, authorization: &[u8]) -> bool {
        let (scheme, token) = authorization.split_at(authorization.len().min(7));
        scheme.eq_ignore_ascii_case(b"bearer ") && bool::from(token.ct_eq(&self.0))
    }
}

/// Lets requests pass that have the token.
pub(crate) async fn need_token(State(token): State<Token>, request: Request, next: Next) -> Response {
    let header = request.headers().get(header::AUTHORIZATION);
    if header.is_some_and(|header| token.opens(header.as_bytes())) {
        request.extensions().get::<Guest>().into_iter().for_each(Guest::welcome);
        return next.run(request).await;
    }
    let error = "this needs the token of [control] token_file: `Authorization: Bearer …`";
    // A place that somebody keeps who may not ask is one less for those who may.
    http::last(Refusal::new(RefusalKind::Unauthorised, error).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn caller(user: u32, group: u32) -> Caller {
        Caller { user, group, process: None }
    }

    #[test]
    fn root_the_own_user_and_the_group_are_let_in() {
        let gate = Gate { own: 7, group: None };
        assert!(gate.admits(&caller(0, 9)) && gate.admits(&caller(7, 9)));
        assert!(!gate.admits(&caller(8, 0)) && !gate.admits(&caller(8, 7)));
        let gate = Gate { own: 7, group: Some(5) };
        assert!(gate.admits(&caller(8, 5)) && !gate.admits(&caller(8, 6)));
    }

    #[test]
    fn supplementary_groups_count() {
        assert_eq!(groups("Name:\tx\nGroups:\t4 24 \nVmPeak: 9\n").collect::<Vec<_>>(), [4, 24]);
        assert_eq!(groups("Name:\tx\n").count(), 0);
        assert_eq!((group_number("root"), group_number("17")), (Some(0), Some(17)));
        assert_eq!(group_number("no-such-group-here"), None);
    }

    #[test]
    fn a_token_opens_and_nothing_else_does() {
        let token = Token(b"0123456789abcdef".as_slice().into());
        assert!(token.opens(b"Bearer 0123456789abcdef") && token.opens(b"bearer 0123456789abcdef"));
        let wrong = ["", "Bearer", "Bearer ", "0123456789abcdef", "Basic 0123456789abcdef"];
        let near = ["Bearer 0123456789abcdeF", "Bearer 0123456789abcdef0", "Bearer 0123456789abcde"];
        for header in wrong.into_iter().chain(near) {
            assert!(!token.opens(header.as_bytes()), "{header}");
        }
    }

    #[test]
    fn token_files_are_looked_at() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let file = directory.path().join("token");
        let read = |text: &str, mode| {
            std::fs::write(&file, text).expect("written");
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).expect("set");
            Token::read(&file).map(|token| token.0.to_vec())
        };
        assert_eq!(read("0123456789abcdef\n", 0o640), Ok(b"0123456789abcdef".to_vec()));
        assert!(read("0123456789abcdef\n", 0o644).is_err_and(|error| error.contains("chmod")));
        assert!(read("short\n", 0o600).is_err_and(|error| error.contains("openssl")));
        assert!(Token::read(&directory.path().join("none")).is_err());
    }
}
