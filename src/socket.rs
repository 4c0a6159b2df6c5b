//! The sockets that are listened to, and the control socket's file.

use crate::access::{Gate, Token, group_number};
use dataplane::config::Control;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

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
    /// There is no such group.
    #[error("[control] group: there is no group `{0}`; name one of /etc/group, or give its number")]
    Group(String),
    /// The token cannot be used.
    #[error("[control] token_file {file}: {reason}")]
    Token {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The operating system refused.
    #[error("address {address}: {source}; see {key}")]
    Tcp {
        /// What is to be listened to,
        address: std::net::SocketAddr,
        /// and what says so.
        key: &'static str,
        /// Why.
        source: std::io::Error,
    },
}

/// The control socket, removed when dropped.
#[derive(Debug)]
pub(crate) struct ControlSocket {
    pub(crate) listener: std::os::unix::net::UnixListener,
    pub(crate) path: SocketPath,
    /// Who may ask.
    pub(crate) gate: Gate,
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
    /// Listens at `path`, for those whom both `mode` (permission bits) and `gate` let in; the gate's group
    /// owns the file. A socket that a dead process left behind is replaced; a live one, or a file of another
    /// kind, is not touched.
    pub(crate) fn bind(path: &Path, mode: u32, gate: Gate) -> Result<ControlSocket, BindError> {
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
            if let Some(group) = gate.group() {
                std::os::unix::fs::chown(&draft, None, Some(group))?;
            }
            std::fs::set_permissions(&draft, std::fs::Permissions::from_mode(mode))?;
            listener.set_nonblocking(true)?;
            std::fs::rename(&draft, path)
        };
        if let Err(error) = publish() {
            let _ = std::fs::remove_file(&draft);
            return Err(unix(error));
        }
        Ok(ControlSocket { listener, path: SocketPath::of(path), gate })
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

/// Listens where `[control]` says, or at another path.
pub(crate) fn bind_control(control: &Control, path: Option<&Path>) -> Result<ControlSocket, BindError> {
    let group = control.group.as_ref();
    let number = |name: &String| group_number(name).ok_or_else(|| BindError::Group(name.clone()));
    let path = path.unwrap_or(&control.socket);
    let gate = Gate::new(group.map(number).transpose()?);
    let gate = gate.map_err(|source| BindError::Unix { path: path.to_owned(), source })?;
    ControlSocket::bind(path, control.mode, gate)
}

/// Listens for readers, if `[control]` says so, with the token that they need.
pub(crate) fn bind_reader(control: &Control) -> Result<Option<(std::net::TcpListener, Token)>, BindError> {
    let Some(reader) = &control.reader else { return Ok(None) };
    let file = &reader.token_file;
    let token = Token::read(file).map_err(|reason| BindError::Token { file: file.clone(), reason })?;
    Ok(Some((bind_tcp(reader.listen, "[control] listen")?, token)))
}

/// Listens at `address`, which is the value of `key`.
pub(crate) fn bind_tcp(
    address: std::net::SocketAddr,
    key: &'static str,
) -> Result<std::net::TcpListener, BindError> {
    let bind = || {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    bind().map_err(|source| BindError::Tcp { address, key, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate() -> Gate {
        Gate::new(None).expect("a gate")
    }

    #[test]
    fn a_socket_that_took_our_place_stays() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("sock");
        let ours = ControlSocket::bind(&path, 0o600, gate()).expect("bound");
        std::fs::remove_file(&path).expect("removed by somebody");
        let theirs = ControlSocket::bind(&path, 0o600, gate()).expect("bound");
        drop(ours);
        assert!(path.exists());
        drop(theirs);
        assert!(!path.exists());
    }

    #[test]
    fn a_socket_is_replaced_only_when_nobody_listens() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("deep/sock");
        let first = ControlSocket::bind(&path, 0o640, gate()).expect("bound");
        let mode = std::fs::metadata(&path).expect("exists").permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        assert!(matches!(ControlSocket::bind(&path, 0o640, gate()), Err(BindError::InUse(_))));
        // A process that died leaves the file and closes the listener.
        let ControlSocket { listener, path: kept, .. } = first;
        drop(listener);
        std::mem::forget(kept);
        let second = ControlSocket::bind(&path, 0o600, gate()).expect("the stale one is replaced");
        drop(second);
        assert!(!path.exists());
        std::fs::write(&path, "precious").expect("written");
        assert!(matches!(ControlSocket::bind(&path, 0o600, gate()), Err(BindError::NotASocket(_))));
        assert_eq!(std::fs::read_to_string(&path).expect("still there"), "precious");
    }
}
