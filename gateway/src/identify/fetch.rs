//! Asking an issuer for its keys: discovery, then the key set, over HTTPS.
//!
//! `openidconnect` reads the key set. Its reader of the metadata is not used: it wants an
//! authorization endpoint, which a Kubernetes API server as an issuer of service account tokens
//! does not have. The two members that matter are read here, as the API server itself does.

use std::{sync::Arc, time::Duration};

use http::{Request, Response, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use openidconnect::{
    DiscoveryError, HttpRequest, HttpResponse, JsonWebKeySetUrl, core::CoreJsonWebKeySet,
};
use rustls::pki_types::ServerName;
use rustls_platform_verifier::BuilderVerifierExt as _;
use serde::Deserialize;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;
use url::Url;

use crate::config::{Issuer, tls_builder};

/// Keys cannot be fetched. The text may hold URLs, never what was answered.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("the certificate authority cannot be used: {0}")]
    Roots(String),
    #[error("{url} is not an https:// URL with a host")]
    Url { url: String },
    #[error("no answer from {host} within {} s", FETCH_TIMEOUT.as_secs())]
    TimedOut { host: String },
    #[error("cannot connect to {host}")]
    Connect {
        host: String,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot read the answer of {host}")]
    Exchange {
        host: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("{url} answered {status}")]
    Status { url: String, status: u16 },
    #[error("{url} is not OpenID provider metadata: {reason}")]
    Metadata { url: String, reason: String },
    #[error("{url} is not a key set")]
    Keys { url: String },
}

impl FetchError {
    /// The error and its sources on one line, for the log.
    pub(super) fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            text.push_str(": ");
            text.push_str(&error.to_string());
            source = error.source();
        }
        text
    }
}

/// The members of OpenID provider metadata that are used.
#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    jwks_uri: String,
}

/// Fetches one issuer's keys.
pub(super) struct Fetcher {
    issuer: String,
    discovery_url: Url,
    tls: Result<TlsConnector, String>,
}

impl Fetcher {
    pub(super) fn new(issuer: &Issuer) -> Self {
        Self {
            issuer: issuer.url.clone(),
            discovery_url: issuer.discovery_url.clone(),
            tls: connector(issuer),
        }
    }

    pub(super) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The issuer's key set, asked for anew, the metadata too: both may move.
    pub(super) async fn fetch(&self) -> Result<CoreJsonWebKeySet, FetchError> {
        let tls = self.tls.as_ref().map_err(|message| FetchError::Roots(message.clone()))?;
        let keys_url = self.keys_url(tls).await?;
        let url = keys_url.to_string();
        let tls = tls.clone();
        let client = move |request: HttpRequest| {
            let tls = tls.clone();
            async move { send(&tls, request).await }
        };
        CoreJsonWebKeySet::fetch_async(&JsonWebKeySetUrl::from_url(keys_url), &client)
            .await
            .map_err(|error| match error {
                DiscoveryError::Request(error) => error,
                DiscoveryError::Response(status, ..) if status != 200 => {
                    FetchError::Status { url, status: status.as_u16() }
                }
                // The library's other errors may quote the body.
                _ => FetchError::Keys { url },
            })
    }

    async fn keys_url(&self, tls: &TlsConnector) -> Result<Url, FetchError> {
        let url = self.discovery_url.as_str();
        let request = Request::get(url)
            .header(header::ACCEPT, "application/json")
            .body(Vec::new())
            .map_err(|_| FetchError::Url { url: url.into() })?;
        let response = send(tls, request).await?;
        if response.status() != 200 {
            let status = response.status().as_u16();
            return Err(FetchError::Status { url: url.into(), status });
        }
        let wrong = |reason: &str| FetchError::Metadata { url: url.into(), reason: reason.into() };
        let metadata: Metadata = serde_json::from_slice(response.body())
            .map_err(|_| wrong("it is not JSON with `issuer` and `jwks_uri`"))?;
        if metadata.issuer != self.issuer {
            return Err(wrong("its `issuer` is not the configured URL, to the letter"));
        }
        let keys_url = Url::parse(&metadata.jwks_uri).ok().filter(|url| url.scheme() == "https");
        keys_url.ok_or_else(|| wrong("its `jwks_uri` is not an https:// URL"))
    }
}

fn connector(issuer: &Issuer) -> Result<TlsConnector, String> {
    let builder = tls_builder()?;
    let builder = match &issuer.certificate_authority {
        Some(authority) => builder.with_root_certificates(authority.store()?),
        None => builder.with_platform_verifier().map_err(|error| error.to_string())?,
    };
    let mut config = builder.with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// One request on a connection of its own, bounded in time and size. A redirect is an answer like
/// any other, and nobody follows it.
async fn send(tls: &TlsConnector, request: HttpRequest) -> Result<HttpResponse, FetchError> {
    let url = || FetchError::Url { url: request.uri().to_string() };
    if request.uri().scheme_str() != Some("https") {
        return Err(url());
    }
    let host = request.uri().host().ok_or_else(url)?.trim_matches(['[', ']']).to_owned();
    let port = request.uri().port_u16().unwrap_or(443);
    let exchange = exchange(tls, &host, port, request);
    timeout(FETCH_TIMEOUT / 2, exchange)
        .await
        .unwrap_or_else(|_| Err(FetchError::TimedOut { host: host.clone() }))
}

async fn exchange(
    tls: &TlsConnector,
    host: &str,
    port: u16,
    request: HttpRequest,
) -> Result<HttpResponse, FetchError> {
    let connect = |source| FetchError::Connect { host: host.into(), source };
    let failed = |source| FetchError::Exchange { host: host.into(), source };
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| FetchError::Url { url: request.uri().to_string() })?;
    let socket = TcpStream::connect((host, port)).await.map_err(connect)?;
    let stream = tls.connect(name, socket).await.map_err(connect)?;
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(HEAD_BYTES_MAX)
        .handshake::<_, Full<bytes::Bytes>>(TokioIo::new(stream))
        .await
        .map_err(|error| failed(error.into()))?;
    let request = origin_form(request);
    let answer = async move {
        let response = sender.send_request(request).await?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, BODY_BYTES_MAX).collect().await?.to_bytes();
        Ok(Response::from_parts(head, body.to_vec()))
    };
    // The connection ends when the answer was read and its sender is gone; what it says then is of
    // no interest, because the answer is complete or an error already.
    let (answer, _) = tokio::join!(answer, connection);
    answer.map_err(failed)
}

/// The request as HTTP/1.1 sends it to a server: path and `Host`.
fn origin_form(request: HttpRequest) -> Request<Full<bytes::Bytes>> {
    let (mut head, body) = request.into_parts();
    if let Some(host) =
        head.uri.authority().and_then(|a| header::HeaderValue::from_str(a.as_str()).ok())
    {
        head.headers.insert(header::HOST, host);
    }
    head.headers.insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    head.uri = path.parse().unwrap_or_default();
    Request::from_parts(head, Full::new(body.into()))
}

/// Both requests together; each may take half of it. Then the fetch has failed.
pub(super) const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
/// A longer head is an error. Metadata and keys are far smaller than their bound, too.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// A longer body is an error.
const BODY_BYTES_MAX: usize = 1 << 20;
