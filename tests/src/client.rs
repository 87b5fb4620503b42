//! A small HTTPS client for protocol tests: one connection at a time, HTTP/1.1 or HTTP/2, and a mode
//! that sends any bytes over TLS. It hides nothing: no retries, no pool, no redirects.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST};
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::pki::Pair;

/// A request body.
pub type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// A whole body.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// Where to connect, whom to trust, and who we are there.
#[derive(Clone, Debug)]
pub struct Endpoint {
    address: SocketAddr,
    /// Of the server's certificate; the address, unless it has one.
    name: ServerName<'static>,
    tls: Arc<ClientConfig>,
    /// Sent with each request of [`Connection::call`] and [`Connection::send`] that has none.
    bearer: Option<String>,
}

/// The version of HTTP to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

impl Endpoint {
    /// A server on loopback whose certificate `authority` (PEM) signed.
    ///
    /// # Errors
    /// When a PEM text is not one.
    pub fn new(address: SocketAddr, authority: &str, identity: Option<&Pair>) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(authority.as_bytes()) {
            roots.add(certificate.context("read the authority")?)?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let tls = match identity {
            None => config.with_no_client_auth(),
            Some(pair) => {
                let certificate = CertificateDer::from_pem_slice(pair.certificate.as_bytes())?;
                let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes())?;
                config.with_client_auth_cert(vec![certificate], key)?
            }
        };
        let name = ServerName::from(address.ip());
        Ok(Self { address, name, tls: Arc::new(tls), bearer: None })
    }

    /// As [`Endpoint::new`] with the authority in a file.
    ///
    /// # Errors
    /// When the file cannot be read or is not PEM.
    pub fn with_authority_file(address: SocketAddr, authority: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(authority)
            .with_context(|| format!("read {}", authority.display()))?;
        Self::new(address, &text, None)
    }

    /// The same place with a bearer token.
    #[must_use]
    pub fn bearer(&self, token: impl Into<String>) -> Self {
        Self { bearer: Some(token.into()), ..self.clone() }
    }

    /// The same place, whose certificate has this name.
    ///
    /// # Errors
    /// When it is none.
    pub fn named(&self, name: &str) -> Result<Self> {
        Ok(Self { name: ServerName::try_from(name.to_owned())?, ..self.clone() })
    }

    /// The address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connects.
    ///
    /// # Errors
    /// When connection or handshake fails, or the server does not speak `protocol`.
    pub async fn connect(&self, protocol: Protocol) -> Result<Connection> {
        let stream = self.tls(&[protocol.alpn()]).await?;
        let agreed = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
        if protocol == Protocol::Http2 && agreed.as_deref() != Some(b"h2") {
            bail!("{} does not speak HTTP/2", self.address);
        }
        let io = TokioIo::new(stream);
        let mut tasks = JoinSet::new();
        let sender = match protocol {
            Protocol::Http1 => {
                let (sender, connection) = http1::handshake(io).await?;
                tasks.spawn(async move { drop(connection.await) });
                Sender::Http1(sender)
            }
            Protocol::Http2 => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
                tasks.spawn(async move { drop(connection.await) });
                Sender::Http2(sender)
            }
        };
        Ok(Connection {
            sender,
            authority: self.address.to_string(),
            bearer: self.bearer.clone(),
            _tasks: Arc::new(tasks),
        })
    }

    /// A bare TLS stream for requests that no HTTP library would send.
    ///
    /// # Errors
    /// When connection or handshake fails.
    pub async fn tls(&self, protocols: &[&[u8]]) -> Result<TlsStream<TcpStream>> {
        let mut config = (*self.tls).clone();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        let tcp = TcpStream::connect(self.address).await;
        let tcp = tcp.with_context(|| format!("connect to {}", self.address))?;
        tcp.set_nodelay(true)?;
        let stream = TlsConnector::from(Arc::new(config)).connect(self.name.clone(), tcp).await;
        stream.with_context(|| format!("TLS handshake with {}", self.address))
    }

    /// One request on a connection of its own.
    ///
    /// # Errors
    /// As [`Endpoint::connect`] and [`Connection::call`].
    pub async fn call(&self, request: Request<Body>) -> Result<Reply> {
        self.connect(Protocol::Http1).await?.call(request).await
    }

    /// `GET` on a connection of its own.
    ///
    /// # Errors
    /// As [`Endpoint::call`].
    pub async fn get(&self, path: &str) -> Result<Reply> {
        self.call(Request::get(path).body(full(""))?).await
    }

    /// A JSON request on a connection of its own.
    ///
    /// # Errors
    /// As [`Endpoint::call`].
    pub async fn json(&self, method: &str, path: &str, body: &Value) -> Result<Reply> {
        self.call(json_request(method, path, body)?).await
    }
}

/// A request with a JSON body.
///
/// # Errors
/// When method or path are none.
pub fn json_request(method: &str, path: &str, body: &Value) -> Result<Request<Body>> {
    let request =
        Request::builder().method(method).uri(path).header("content-type", "application/json");
    Ok(request.body(full(body.to_string()))?)
}

impl Protocol {
    fn alpn(self) -> &'static [u8] {
        match self {
            Self::Http1 => b"http/1.1",
            Self::Http2 => b"h2",
        }
    }
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    sender: Sender,
    authority: String,
    bearer: Option<String>,
    _tasks: Arc<JoinSet<()>>,
}

#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

impl Connection {
    /// Another handle to the same HTTP/2 connection; none over HTTP/1.1.
    #[must_use]
    pub fn share(&self) -> Option<Self> {
        let Sender::Http2(sender) = &self.sender else { return None };
        Some(Self {
            sender: Sender::Http2(sender.clone()),
            authority: self.authority.clone(),
            bearer: self.bearer.clone(),
            _tasks: Arc::clone(&self._tasks),
        })
    }

    /// Sends a request; its URI may be a path. The response's body streams.
    ///
    /// # Errors
    /// When the connection fails before the response's head.
    pub async fn send(&mut self, mut request: Request<Body>) -> Result<Response<Incoming>> {
        if let (Some(token), false) = (&self.bearer, request.headers().contains_key(AUTHORIZATION))
        {
            request.headers_mut().insert(AUTHORIZATION, format!("Bearer {token}").parse()?);
        }
        let response = match &mut self.sender {
            Sender::Http1(sender) => {
                if !request.headers().contains_key(HOST) {
                    request.headers_mut().insert(HOST, self.authority.parse()?);
                }
                sender.ready().await?;
                sender.send_request(request).await
            }
            Sender::Http2(sender) => {
                if request.uri().authority().is_none() {
                    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
                    let uri: Uri = format!("https://{}{path}", self.authority).parse()?;
                    *request.uri_mut() = uri;
                }
                sender.ready().await?;
                sender.send_request(request).await
            }
        };
        response.context("send the request")
    }

    /// Sends a request and reads the response to its end.
    ///
    /// # Errors
    /// When the connection fails, or nothing is heard for a minute.
    pub async fn call(&mut self, request: Request<Body>) -> Result<Reply> {
        let whole = async {
            let (head, body) = self.send(request).await?.into_parts();
            let body = body.collect().await.context("read the response")?;
            let (trailers, body) = (body.trailers().cloned(), body.to_bytes());
            Ok(Reply { status: head.status, headers: head.headers, body, trailers })
        };
        tokio::time::timeout(CALL_LIMIT, whole).await.context("no response in time")?
    }

    /// `GET`.
    ///
    /// # Errors
    /// As [`Connection::call`].
    pub async fn get(&mut self, path: &str) -> Result<Reply> {
        self.call(Request::get(path).body(full(""))?).await
    }
}

/// A whole response.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// The trailers, where there were any.
    pub trailers: Option<HeaderMap>,
}

impl Reply {
    /// The body as JSON.
    ///
    /// # Errors
    /// When it is not.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("not JSON: {}", self.text()))
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Fails unless the status is 2xx.
    ///
    /// # Errors
    /// With status and body.
    pub fn success(self) -> Result<Self> {
        if !self.status.is_success() {
            bail!("{}: {}", self.status, self.text());
        }
        Ok(self)
    }
}

const CALL_LIMIT: Duration = Duration::from_secs(60);
