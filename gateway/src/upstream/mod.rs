//! Connections to API servers: pools of HTTP/2 connections, ordinary and long-running calls apart, and
//! HTTP/1.1 where the server offers nothing else. Shared between principals: identity is per request.

mod dial;
mod pool;

use std::{fmt, sync::Arc};

use bytes::Bytes;
pub use dial::UpgradeIo;
use http::{HeaderValue, Request, Response, Uri, uri};
use http_body_util::Empty;
use hyper::body::Incoming;
pub use pool::Lease;
use pool::{Pool, Sent};

use crate::{
    bounds::UPGRADE_TIMEOUT,
    config,
    gateway::Wiring,
    passage::Passage,
    tap::RequestBody,
    upstream::{dial::Dialer, pool::Shape},
};

/// How long a call is expected to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Ends by itself soon.
    Ordinary,
    /// A watch or a followed log.
    LongRunning,
}

/// Why there is no response.
#[derive(Debug)]
pub enum SendError {
    /// No connection could be made, or all are full: nothing was sent.
    Unreachable(String),
    /// The API server said that it did not process the request (GOAWAY, `REFUSED_STREAM`).
    NotProcessed(String),
    /// It is not known what became of the request.
    Lost(String),
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Unreachable(why) | Self::NotProcessed(why) | Self::Lost(why)) = self;
        f.write_str(why)
    }
}

/// One cluster's API server.
pub struct Upstream {
    scheme: uri::Scheme,
    authority: uri::Authority,
    /// Prefix of the server's own URL, without a trailing slash.
    base: String,
    credential: Option<config::TokenSource>,
    dialer: Arc<Dialer>,
    ordinary: Pool,
    long_running: Pool,
}

impl Upstream {
    /// For a configured cluster; connects when first needed.
    ///
    /// # Errors
    /// When the certificate authority or the client certificate cannot be read.
    pub fn new(cluster: &config::Cluster, wiring: &Wiring) -> anyhow::Result<Self> {
        let access = config::ClusterAccess::load(cluster)?;
        let authority: uri::Authority = access.server.authority().parse()?;
        let base = access.server.base_path.clone();
        let dialer = Arc::new(Dialer::new(&access, wiring)?);
        Ok(Self {
            scheme: uri::Scheme::HTTPS,
            authority,
            base,
            credential: access.token,
            ordinary: Pool::new(Arc::clone(&dialer), Shape::ordinary()),
            long_running: Pool::new(Arc::clone(&dialer), Shape::watch()),
            dialer,
        })
    }

    /// The gateway's own credential, as an `Authorization` value; none where it is a certificate.
    #[must_use]
    pub fn credential(&self) -> Option<HeaderValue> {
        self.credential.as_ref().map(config::TokenSource::authorization)
    }

    /// The absolute URI of a path and query of this API server.
    ///
    /// # Errors
    /// When the path is no path.
    pub fn uri(&self, path_and_query: &str) -> Result<Uri, http::Error> {
        Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(self.path(path_and_query))
            .build()
    }

    /// A path and query of this API server, behind the prefix of its URL.
    #[must_use]
    pub fn path(&self, path_and_query: &str) -> String {
        format!("{}{path_and_query}", self.base)
    }

    /// Sends `request` and waits for the response's head. A request that was never sent goes over
    /// another connection; one that may have been is not repeated here.
    ///
    /// # Errors
    /// See [`SendError`].
    pub async fn send(
        &self,
        mut request: Request<RequestBody>,
        class: Class,
    ) -> Result<(Response<Incoming>, Lease, Passage), SendError> {
        let pool = match class {
            Class::Ordinary => &self.ordinary,
            Class::LongRunning => &self.long_running,
        };
        for _ in 1..crate::bounds::FORWARD_TRIES {
            match pool.send(request).await? {
                Sent::Answered(response, lease, passage) => {
                    return Ok((response, lease, passage));
                }
                Sent::Never(unsent) => request = unsent,
            }
        }
        Err(SendError::Unreachable("every connection closed before the request was sent".into()))
    }

    /// Sends a request that asks for an upgrade over a connection of its own, and waits for the
    /// response's head. It is sent at most once. `long_target`, if there is one, goes in the place of
    /// the URI's path and query, which must end with
    /// [`crate::upgrade::long_target::STAND_IN`].
    ///
    /// # Errors
    /// See [`SendError`].
    pub async fn upgrade(
        &self,
        request: Request<Empty<Bytes>>,
        long_target: Option<String>,
    ) -> Result<(Response<Incoming>, Passage), SendError> {
        let dialed = self.dialer.dial_once(long_target).await;
        let (mut send, connection) = dialed.map_err(SendError::Unreachable)?;
        let passage = Passage::sending(&connection);
        let sending = send.send_request(pool::origin_form(request));
        match tokio::time::timeout(UPGRADE_TIMEOUT, sending).await {
            Ok(Ok(response)) => Ok((response, passage)),
            Ok(Err(error)) => Err(SendError::Lost(pool::chain(&error))),
            Err(_) => Err(SendError::Lost(format!("no answer within {UPGRADE_TIMEOUT:?}"))),
        }
    }

    /// Lets go of all connections; each ends with its last stream.
    pub fn close(&self) {
        self.ordinary.close();
        self.long_running.close();
    }

    /// Whether an API server answers at this address now (for `/readyz?verbose`).
    pub async fn reachable(&self) -> Result<(), String> {
        self.ordinary.ready().await
    }
}
