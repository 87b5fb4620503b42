//! The socket itself: made, found again, and closed to everybody else.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use recorder_user::socket::short;
use thiserror::Error;
use tokio::net::{UnixListener, UnixStream, unix::UCred};

/// Why there is no admin socket.
#[derive(Debug, Error)]
pub enum OpenSocketError {
    /// Something else than a socket has the name.
    #[error("{} is there and is no socket: remove it, or set admin.socket", .0.display())]
    NotASocket(PathBuf),
    /// Somebody answers on it.
    #[error("another process answers on {}: set admin.socket", .0.display())]
    InUse(PathBuf),
    /// The system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The listening socket; its file goes when this is dropped.
#[derive(Debug)]
pub struct AdminSocket {
    listener: UnixListener,
    path: PathBuf,
    own_user: u32,
}

impl AdminSocket {
    /// Makes the socket with mode 0600, in the place of one that a gateway left behind.
    ///
    /// # Errors
    /// When it cannot be made, or is in use.
    pub fn bind(path: &Path) -> Result<Self, OpenSocketError> {
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(OpenSocketError::NotASocket(path.to_owned()));
            }
            Ok(_) => {
                if short(path, |short| std::os::unix::net::UnixStream::connect(short)).is_ok() {
                    return Err(OpenSocketError::InUse(path.to_owned()));
                }
                fs::remove_file(path)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
        let listener = short(path, |short| UnixListener::bind(short))?;
        // Until here others may connect, but none of them is answered: see `accept`.
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        Ok(Self { listener, path: path.to_owned(), own_user: own_user()? })
    }

    /// The next connection of root or of the gateway's own user; others are closed.
    // cancel-safe: accept is, and nothing waits behind it.
    pub(super) async fn accept(&self) -> io::Result<(UnixStream, UCred)> {
        loop {
            let (stream, _) = self.listener.accept().await?;
            let user = stream.peer_cred()?;
            if user.uid() == 0 || user.uid() == self.own_user {
                return Ok((stream, user));
            }
            tracing::warn!(uid = user.uid(), "admin connection of another user refused");
        }
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, "the admin socket stays behind");
        }
    }
}

/// The user that this process acts as: the owner of its own entry in /proc.
fn own_user() -> io::Result<u32> {
    Ok(fs::metadata("/proc/self")?.uid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_is_private_and_replaces_one_left_behind() {
        let directory = tempfile::tempdir().expect("a directory");
        let deep = directory.path().join("d".repeat(120));
        fs::create_dir(&deep).expect("a directory");
        let path = deep.join("gateway.sock");
        let socket = AdminSocket::bind(&path).expect("bound");
        let found = fs::metadata(&path).expect("a socket");
        assert_eq!(found.permissions().mode() & 0o777, 0o600);
        assert!(matches!(AdminSocket::bind(&path), Err(OpenSocketError::InUse(_))));
        let client = short(&path, |short| std::os::unix::net::UnixStream::connect(short));
        let client = client.expect("connected");
        let (_, user) = socket.accept().await.expect("our own user");
        assert_eq!(user.uid(), own_user().expect("a user"));
        drop((client, socket));
        assert!(!path.exists());

        drop(std::os::unix::net::UnixListener::bind(directory.path().join("left")).expect("bound"));
        assert!(AdminSocket::bind(&directory.path().join("left")).is_ok());
        fs::write(directory.path().join("file"), "x").expect("written");
        let file = AdminSocket::bind(&directory.path().join("file"));
        assert!(matches!(file, Err(OpenSocketError::NotASocket(_))));
    }
}
