//! A pool: the least busy connection takes a request; a full one opens another, and nothing queues.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use http::{Request, Response, Version, header};
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1, http2},
};

use super::{SendError, dial::Dialer};
use crate::{
    bounds::{
        UPSTREAM_CONNECTION_WINDOW, UPSTREAM_CONNECTIONS_MAX, UPSTREAM_SPREAD_CONNECTIONS,
        UPSTREAM_SPREAD_STREAMS, UPSTREAM_STREAM_WINDOW, UPSTREAM_STREAMS_MAX,
        WATCH_CONNECTION_WINDOW, WATCH_STREAM_WINDOW,
    },
    connection::Connection,
    passage::Passage,
    tap::RequestBody,
};

/// Windows of a pool's connections. A connection's is never smaller than those of all its streams.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) stream_window: u32,
    pub(super) connection_window: u32,
    /// Whether load is spread before connections are full.
    spread: bool,
}

impl Shape {
    pub(super) const fn ordinary() -> Self {
        Self {
            stream_window: UPSTREAM_STREAM_WINDOW,
            connection_window: UPSTREAM_CONNECTION_WINDOW,
            spread: true,
        }
    }

    pub(super) const fn watch() -> Self {
        Self {
            stream_window: WATCH_STREAM_WINDOW,
            connection_window: WATCH_CONNECTION_WINDOW,
            spread: false,
        }
    }
}

/// The sending half of a connection.
pub(super) enum Protocol {
    Http2(http2::SendRequest<RequestBody>),
    /// Taken out while a request is on its way: one at a time.
    Http1(Option<http1::SendRequest<RequestBody>>),
}

struct Member {
    connection: Arc<Connection>,
    protocol: Mutex<Protocol>,
    /// Streams in use.
    streams: AtomicUsize,
    /// It takes no new streams (GOAWAY), while those in use may go on to their end.
    retired: AtomicBool,
}

impl Member {
    fn protocol(&self) -> MutexGuard<'_, Protocol> {
        self.protocol.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_closed(&self) -> bool {
        // A connection that a lost probe counted is unwitnessed to its end; a new one need not be.
        if self.retired.load(Ordering::Acquire) || self.connection.is_superseded() {
            return true;
        }
        match &*self.protocol() {
            Protocol::Http2(send) => send.is_closed(),
            Protocol::Http1(send) => send.as_ref().is_some_and(http1::SendRequest::is_closed),
        }
    }

    fn capacity(&self) -> usize {
        match &*self.protocol() {
            Protocol::Http2(_) => UPSTREAM_STREAMS_MAX,
            Protocol::Http1(_) => 1,
        }
    }
}

/// A stream's place on a connection; dropping it gives the place back.
pub struct Lease {
    member: Arc<Member>,
    http1: Option<http1::SendRequest<RequestBody>>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(send) = self.http1.take() {
            *self.member.protocol() = Protocol::Http1(Some(send));
        }
        self.member.streams.fetch_sub(1, Ordering::Release);
    }
}

/// What became of a request given to a connection.
pub(super) enum Sent {
    Answered(Response<Incoming>, Lease, Passage),
    /// The connection closed first; here is the request back.
    Never(Request<RequestBody>),
}

/// Connections of one kind to one API server.
pub(super) struct Pool {
    dialer: Arc<Dialer>,
    shape: Shape,
    members: Mutex<Vec<Arc<Member>>>,
    /// One dials at a time: who waits may find room on the connection just made.
    dialing: tokio::sync::Mutex<()>,
}

impl Pool {
    pub(super) fn new(dialer: Arc<Dialer>, shape: Shape) -> Self {
        Self { dialer, shape, members: Mutex::default(), dialing: tokio::sync::Mutex::default() }
    }

    pub(super) async fn send(&self, request: Request<RequestBody>) -> Result<Sent, SendError> {
        let mut lease = self.lease().await?;
        let http2 = match &*lease.member.protocol() {
            Protocol::Http2(send) => Some(send.clone()),
            Protocol::Http1(_) => None,
        };
        let passage = Passage::sending(&lease.member.connection);
        let result = match (http2, lease.http1.as_mut()) {
            (Some(mut send), _) => send.try_send_request(request).await,
            (None, Some(send)) => {
                if send.ready().await.is_err() {
                    return Ok(Sent::Never(request));
                }
                send.try_send_request(origin_form(request)).await
            }
            (None, None) => return Ok(Sent::Never(request)),
        };
        match result {
            Ok(response) => Ok(Sent::Answered(response, lease, passage)),
            Err(error) => {
                // Whatever it was, the next request is better off elsewhere.
                lease.member.retired.store(true, Ordering::Release);
                unsent(error)
            }
        }
    }

    /// Lets go of all connections.
    pub(super) fn close(&self) {
        self.members().clear();
    }

    /// Whether a connection is there, or can be made.
    pub(super) async fn ready(&self) -> Result<(), String> {
        match self.lease().await {
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn lease(&self) -> Result<Lease, SendError> {
        if let Some(lease) = self.pick() {
            return Ok(lease);
        }
        let _dialing = self.dialing.lock().await;
        if let Some(lease) = self.pick() {
            return Ok(lease);
        }
        if self.members().len() >= UPSTREAM_CONNECTIONS_MAX {
            let why = format!("all {UPSTREAM_CONNECTIONS_MAX} connections are full");
            return Err(SendError::Unreachable(why));
        }
        let (mut protocol, connection) =
            self.dialer.dial(self.shape).await.map_err(SendError::Unreachable)?;
        let http1 = match &mut protocol {
            Protocol::Http1(send) => send.take(),
            Protocol::Http2(_) => None,
        };
        let member = Arc::new(Member {
            connection,
            protocol: Mutex::new(protocol),
            streams: AtomicUsize::new(1),
            retired: AtomicBool::new(false),
        });
        self.members().push(Arc::clone(&member));
        Ok(Lease { member, http1 })
    }

    /// The least busy connection, unless a further one is due.
    fn pick(&self) -> Option<Lease> {
        let mut members = self.members();
        members.retain(|member| !member.is_closed());
        let least = members.iter().min_by_key(|member| member.streams.load(Ordering::Acquire))?;
        let streams = least.streams.load(Ordering::Acquire);
        let spread = self.shape.spread
            && streams >= UPSTREAM_SPREAD_STREAMS
            && members.len() < UPSTREAM_SPREAD_CONNECTIONS;
        if streams >= least.capacity() || spread {
            return None;
        }
        let http1 = match &mut *least.protocol() {
            Protocol::Http1(send) => Some(send.take()?),
            Protocol::Http2(_) => None,
        };
        least.streams.fetch_add(1, Ordering::AcqRel);
        Some(Lease { member: Arc::clone(least), http1 })
    }

    fn members(&self) -> MutexGuard<'_, Vec<Arc<Member>>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// HTTP/1.1 wants the authority in `Host` and only the path in the request line.
pub(super) fn origin_form<B>(mut request: Request<B>) -> Request<B> {
    let uri = request.uri();
    let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    if let Some(host) = uri.authority().and_then(|host| host.as_str().parse().ok()) {
        request.headers_mut().insert(header::HOST, host);
    }
    if let Ok(path) = path.parse() {
        *request.uri_mut() = path;
    }
    *request.version_mut() = Version::HTTP_11;
    request
}

fn unsent(mut error: TrySendError<Request<RequestBody>>) -> Result<Sent, SendError> {
    if let Some(request) = error.take_message() {
        return Ok(Sent::Never(request));
    }
    let error = error.into_error();
    let why = chain(&error);
    if not_processed(&error) {
        Err(SendError::NotProcessed(why))
    } else {
        Err(SendError::Lost(why))
    }
}

/// RFC 9113 §6.8 and §8.7: streams above a GOAWAY's last id, and refused ones, were not processed.
fn not_processed(error: &hyper::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(h2) = cause.downcast_ref::<h2::Error>() {
            return h2.is_remote()
                && (h2.reason() == Some(h2::Reason::REFUSED_STREAM)
                    || (h2.is_go_away() && h2.reason() == Some(h2::Reason::NO_ERROR)));
        }
        source = cause.source();
    }
    false
}

pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
