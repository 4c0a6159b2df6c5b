//! The sockets that are listened to, and the control socket's file.

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
    pub(crate) listener: std::os::unix::net::UnixListener,
    pub(crate) path: SocketPath,
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

/// Listens for scrapes at `address`.
pub(crate) fn bind_metrics(address: std::net::SocketAddr) -> Result<std::net::TcpListener, BindError> {
    let bind = || {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    bind().map_err(|source| BindError::Tcp { address, source })
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
