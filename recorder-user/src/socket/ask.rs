//! One request over the socket, and its answer.

use std::{
    fs, io,
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

/// A gateway did not give what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens, or the socket's mode keeps us out.
    #[error("connect to {}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// No answer in time.
    #[error("the gateway does not answer in time")]
    Timeout,
    /// The connection ended without an answer, as it does for other users.
    #[error("the gateway closes the connection; it answers its own user and root")]
    Closed(#[source] hyper::Error),
    /// The answer broke off, or is too long.
    #[error("the answer cannot be read")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It refuses, or cannot.
    #[error("the gateway answers {status}: {said}")]
    Refused {
        /// The HTTP status.
        status: StatusCode,
        /// What it says.
        said: String,
    },
    /// Its rows are not ours.
    #[error("the gateway is of another version")]
    OtherVersion,
    /// The answer has another form.
    #[error("the gateway's answer is not understood")]
    NotUnderstood(#[from] serde_json::Error),
    /// The answer has no end.
    #[error("the gateway's answer is not complete")]
    Incomplete,
    /// This process cannot talk to anybody.
    #[error("prepare to ask")]
    Prepare(#[source] io::Error),
}

/// Sends a request and waits for the whole answer, for at most `patience` and `answer_bytes_max` bytes.
///
/// # Errors
/// When no answer came. An answer with any status is none.
pub fn ask(
    socket: &Path,
    request: Request<Bytes>,
    patience: Duration,
    answer_bytes_max: usize,
) -> Result<Response<Bytes>, AskError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(AskError::Prepare)?;
    runtime.block_on(async {
        tokio::time::timeout(patience, exchange(socket, request, answer_bytes_max))
            .await
            .map_err(|_| AskError::Timeout)?
    })
}

async fn exchange(
    socket: &Path,
    request: Request<Bytes>,
    answer_bytes_max: usize,
) -> Result<Response<Bytes>, AskError> {
    let connected = short(socket, |short| std::os::unix::net::UnixStream::connect(short));
    let stream = connected
        .and_then(|stream| {
            stream.set_nonblocking(true)?;
            UnixStream::from_std(stream)
        })
        .map_err(|source| AskError::Connect { path: socket.to_owned(), source })?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(AskError::Closed)?;
    let (mut head, body) = request.into_parts();
    head.headers.insert(http::header::HOST, http::HeaderValue::from_static("gateway"));
    let answered = async {
        let request = Request::from_parts(head, Full::new(body));
        let response = sender.send_request(request).await.map_err(AskError::Closed)?;
        let (head, body) = response.into_parts();
        let whole = Limited::new(body, answer_bytes_max).collect().await.map_err(AskError::Body)?;
        drop(sender);
        Ok(Response::from_parts(head, whole.to_bytes()))
    };
    // The connection moves the bytes. What it fails with, the request fails with too; after the answer
    // nothing is left to fail.
    let (answered, _) = tokio::join!(answered, connection);
    answered
}

/// Uses a socket under a name that is short whatever the path is: the kernel takes 107 bytes.
///
/// # Errors
/// When the directory cannot be opened, or the use fails.
pub fn short<T>(path: &Path, use_it: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = fs::File::open(parent.unwrap_or(Path::new(".")))?;
    use_it(&PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name))
}
