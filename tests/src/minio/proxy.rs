//! A proxy with TLS before a plain HTTP server, and the weather on the way.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::pki::{Authority, write_private};
use crate::port::Port;

/// How requests fare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Weather {
    /// They pass.
    #[default]
    Fair,
    /// Connections are closed at once.
    Down,
    /// Each is answered 503 with `SlowDown`, and never reaches the server.
    Busy,
    /// Each waits for so long before it passes.
    Slow(Duration),
    /// They reach the server, and connections are closed instead of the answers.
    AnswersLost,
}

/// A running proxy.
#[derive(Debug)]
pub struct Proxy {
    port: Port,
    authority_file: PathBuf,
    sky: Arc<Sky>,
    /// Ends with the proxy, and with it the connections.
    _task: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Sky(Mutex<Weather>);

impl Sky {
    fn weather(&self) -> Weather {
        *self.0.lock().expect("nobody panicked")
    }
}

impl Proxy {
    /// Starts one before `server` (host:port).
    ///
    /// # Errors
    /// When certificates cannot be made or the port not be bound.
    pub async fn start(directory: &Path, server: &str) -> Result<Self> {
        let authority = Authority::new("rig object store")?;
        let authority_file = directory.join("object-store-ca.crt");
        write_private(&authority_file, authority.certificate())?;
        let pair = authority.server("object-store", &[])?;
        let chain = CertificateDer::pem_slice_iter(pair.certificate.as_bytes());
        let chain = chain.collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes())?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        let port = Port::reserve()?;
        let listener = TcpListener::bind(port.address()).await.context("bind the proxy")?;
        let (sky, server) = (Arc::<Sky>::default(), server.to_owned());
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let mut task = JoinSet::new();
        task.spawn(serve(listener, acceptor, Arc::clone(&sky), server));
        Ok(Self { port, authority_file, sky, _task: task })
    }

    /// `https://HOST:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.port.address())
    }

    /// The PEM file of its certificate's authority.
    #[must_use]
    pub fn authority_file(&self) -> &Path {
        &self.authority_file
    }

    /// Changes the weather, for what comes from now on.
    pub fn set(&self, weather: Weather) {
        *self.sky.0.lock().expect("nobody panicked") = weather;
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, sky: Arc<Sky>, server: String) {
    // Connections end with the proxy.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        if sky.weather() == Weather::Down {
            continue;
        }
        let (acceptor, sky, server) = (acceptor.clone(), Arc::clone(&sky), server.clone());
        connections.spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let answer = service_fn(|request| pass(request, &sky, &server));
            // An error is the weather's.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), answer)
                .await;
        });
    }
}

async fn pass(
    request: Request<Incoming>,
    sky: &Sky,
    server: &str,
) -> Result<Response<Full<Bytes>>> {
    let weather = sky.weather();
    match weather {
        Weather::Down => anyhow::bail!("down"),
        Weather::Busy => {
            request.into_body().collect().await?;
            let body = "<Error><Code>SlowDown</Code><Message>please wait</Message></Error>";
            let mut response = Response::new(Full::from(body));
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            return Ok(response);
        }
        Weather::Slow(wait) => tokio::time::sleep(wait).await,
        Weather::Fair | Weather::AnswersLost => {}
    }
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let stream = TcpStream::connect(server).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // A server may answer and close before it has the whole body: the answer counts.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let response = sender.send_request(Request::from_parts(head, Full::new(body))).await?;
    let (head, body) = response.into_parts();
    let response = Response::from_parts(head, Full::new(body.collect().await?.to_bytes()));
    if weather == Weather::AnswersLost {
        anyhow::bail!("the answer is lost");
    }
    Ok(response)
}
