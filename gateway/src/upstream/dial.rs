//! Makes connections to an API server: TCP, TLS, HTTP handshake.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::rt::{TokioIo, TokioTimer};
use recorder_user::{
    store::Recorder,
    witness::{Role, Witness},
};
use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::task::TaskTracker;

use super::pool::{Protocol, Shape};
use crate::{
    bounds::{
        HEAD_BYTES_MAX, UPSTREAM_CONNECT_TIMEOUT, UPSTREAM_PING_INTERVAL, UPSTREAM_PING_TIMEOUT,
    },
    config,
    connection::{Connection, Plaintext, WitnessedTcp},
    gateway::{OnClose, OnOpen, Wiring},
    runtime::Tasks,
    upgrade::long_target::Retargeted,
};

type Tls = Plaintext<TlsStream<WitnessedTcp>>;
type Io = TokioIo<Tls>;

/// A connection that an upgrade may take over.
pub type UpgradeIo = TokioIo<Retargeted<Tls>>;

/// The sending half of a connection that carries one request, without a body.
pub(super) type Once = hyper::client::conn::http1::SendRequest<Empty<Bytes>>;

/// Where and how to connect.
pub(super) struct Dialer {
    name: ServerName<'static>,
    host: String,
    port: u16,
    tls: TlsConnector,
    /// Offers HTTP/1.1 only: HTTP/2 has no upgrades.
    tls_http1: TlsConnector,
    witness: Witness,
    recorder: Recorder,
    on_close: OnClose,
    on_open: OnOpen,
    tasks: TaskTracker,
}

impl Dialer {
    /// For one cluster.
    pub(super) fn new(access: &config::ClusterAccess, wiring: &Wiring) -> anyhow::Result<Self> {
        let name = access.server.certificate_name().to_owned();
        let name = ServerName::try_from(name.clone())
            .with_context(|| format!("{name:?} is not a server name"))?;
        Ok(Self {
            name,
            host: access.server.host.clone(),
            port: access.server.port,
            tls: TlsConnector::from(Arc::new(access.tls(&["h2", "http/1.1"]))),
            tls_http1: TlsConnector::from(Arc::new(access.tls(&["http/1.1"]))),
            witness: wiring.witness.clone(),
            recorder: wiring.recorder.clone(),
            on_close: Arc::clone(&wiring.on_close),
            on_open: Arc::clone(&wiring.on_open),
            tasks: wiring.connections.clone(),
        })
    }

    /// A new connection, ready for requests.
    pub(super) async fn dial(&self, shape: Shape) -> Result<(Protocol, Arc<Connection>), String> {
        bounded(self.connect(shape)).await
    }

    /// A connection of its own for one request that may be upgraded; `long_target` goes in the place
    /// of its target.
    pub(super) async fn dial_once(
        &self,
        long_target: Option<String>,
    ) -> Result<(Once, Arc<Connection>), String> {
        bounded(self.connect_once(long_target)).await
    }

    async fn connect_once(
        &self,
        long_target: Option<String>,
    ) -> anyhow::Result<(Once, Arc<Connection>)> {
        let (tls, connection) = self.secure(&self.tls_http1).await?;
        let io: UpgradeIo = TokioIo::new(Retargeted::new(tls, long_target));
        let (send, serving) =
            hyper::client::conn::http1::handshake(io).await.context("HTTP/1.1 handshake")?;
        self.tasks.spawn(async move {
            if let Err(error) = serving.with_upgrades().await {
                tracing::debug!(%error, "upstream connection ended");
            }
        });
        Ok((send, connection))
    }

    async fn connect(&self, shape: Shape) -> anyhow::Result<(Protocol, Arc<Connection>)> {
        let (tls, connection) = self.secure(&self.tls).await?;
        let http2 = tls.stream().get_ref().1.alpn_protocol() == Some(b"h2");
        let io = TokioIo::new(tls);
        let protocol = if http2 { self.http2(io, shape).await? } else { self.http1(io).await? };
        Ok((protocol, connection))
    }

    /// TCP, under witness before its first byte, and TLS.
    async fn secure(&self, connector: &TlsConnector) -> anyhow::Result<(Tls, Arc<Connection>)> {
        let stream =
            self.open().await.with_context(|| format!("connect to {}:{}", self.host, self.port))?;
        stream.set_nodelay(true).context("set TCP_NODELAY")?;
        let peer: SocketAddr = stream.peer_addr().context("peer address")?;
        let tcp = WitnessedTcp::adopt(
            stream,
            peer,
            Role::Upstream,
            &self.witness,
            &self.recorder,
            Arc::clone(&self.on_close),
        );
        let connection = tcp.connection();
        (self.on_open)("upstream");
        let tls = connector.connect(self.name.clone(), tcp).await.context("TLS handshake")?;
        Ok((Plaintext::new(tls, Arc::clone(&connection)), connection))
    }

    /// The programs of a probe must know an address before it is connected to.
    async fn open(&self) -> std::io::Result<TcpStream> {
        if !self.witness.is_over_probe() {
            return TcpStream::connect((self.host.as_str(), self.port)).await;
        }
        let found: Vec<_> = lookup_host((self.host.as_str(), self.port)).await?.collect();
        let (witness, addresses) = (self.witness.clone(), found.clone());
        let told = move || addresses.into_iter().for_each(|address| witness.expect(address));
        tokio::task::spawn_blocking(told).await?;
        TcpStream::connect(&*found).await
    }

    async fn http2(&self, io: Io, shape: Shape) -> anyhow::Result<Protocol> {
        let (send, connection) =
            hyper::client::conn::http2::Builder::new(Tasks(self.tasks.clone()))
                .timer(TokioTimer::new())
                .initial_stream_window_size(shape.stream_window)
                .initial_connection_window_size(shape.connection_window)
                .max_header_list_size(u32::try_from(HEAD_BYTES_MAX).unwrap_or(u32::MAX))
                .keep_alive_interval(UPSTREAM_PING_INTERVAL)
                .keep_alive_timeout(UPSTREAM_PING_TIMEOUT)
                .keep_alive_while_idle(true)
                .handshake(io)
                .await
                .context("HTTP/2 handshake")?;
        self.tasks.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "upstream connection ended");
            }
        });
        Ok(Protocol::Http2(send))
    }

    async fn http1(&self, io: Io) -> anyhow::Result<Protocol> {
        let (send, connection) = hyper::client::conn::http1::Builder::new()
            .handshake(io)
            .await
            .context("HTTP/1.1 handshake")?;
        self.tasks.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "upstream connection ended");
            }
        });
        Ok(Protocol::Http1(Some(send)))
    }
}

async fn bounded<T>(dialing: impl Future<Output = anyhow::Result<T>>) -> Result<T, String> {
    match tokio::time::timeout(UPSTREAM_CONNECT_TIMEOUT, dialing).await {
        Ok(result) => result.map_err(|error| format!("{error:#}")),
        Err(_) => Err(format!("no connection within {UPSTREAM_CONNECT_TIMEOUT:?}")),
    }
}
