//! Phase accept: TLS, HTTP version by ALPN, bounds on everything, and the socket under witness before its
//! first byte.

mod gather;
mod tls;

use std::{convert::Infallible, net::SocketAddr, sync::Arc};

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use recorder_user::witness::Role;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_rustls::TlsAcceptor;

use gather::Gather;
pub use tls::{Certificate, LoadCertificateError};

use crate::{
    bounds::{
        CLIENT_CONNECTION_WINDOW, CLIENT_STREAM_WINDOW, CLIENT_STREAMS_MAX, CONNECTIONS_MAX,
        HANDSHAKE_TIMEOUT, HEAD_BYTES_MAX, HEAD_TIMEOUT, HEADERS_MAX, SHORT_TARGET_BYTES_MAX,
    },
    connection::{Connection, Plaintext, WitnessedTcp},
    exchange,
    gateway::{Gateway, Wiring},
    runtime::{Tasks, after_others},
    upgrade::long_target::{self, Prefixed},
};

/// Accepts clients on `listener` until the gateway stops.
pub async fn serve(
    gateway: Arc<Gateway>,
    wiring: Wiring,
    listener: TcpListener,
    certificate: Arc<Certificate>,
) {
    let acceptor = TlsAcceptor::from(certificate.server_config());
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        let accepted = tokio::select! {
            // cancel-safe: accept is, by its documentation.
            () = gateway.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, most likely: waiting a little lets connections end.
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                continue;
            }
        };
        let (gateway, wiring, acceptor) = (Arc::clone(&gateway), wiring.clone(), acceptor.clone());
        let tasks = gateway.tasks.clone();
        tasks.spawn(async move {
            connection(gateway, wiring, acceptor, stream, peer).await;
            drop(place);
        });
    }
}

async fn connection(
    gateway: Arc<Gateway>,
    wiring: Wiring,
    acceptor: TlsAcceptor,
    stream: TcpStream,
    peer: SocketAddr,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "TCP_NODELAY not set");
    }
    (wiring.on_open)("client");
    let tcp = WitnessedTcp::adopt(
        stream,
        peer,
        Role::Client,
        &wiring.witness,
        &wiring.recorder,
        Arc::clone(&wiring.on_close),
    );
    let connection = tcp.connection();
    let tls = match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(tcp)).await {
        Ok(Ok(tls)) => tls,
        Ok(Err(error)) => return tracing::debug!(%peer, %error, "TLS handshake failed"),
        Err(_) => return tracing::debug!(%peer, "TLS handshake took too long"),
    };
    connection.begins();
    let http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
    let plaintext = Plaintext::new(tls, Arc::clone(&connection));
    let result = if http2 {
        serve_http2(&gateway, connection, TokioIo::new(Gather::new(plaintext))).await
    } else {
        let taking = long_target::take(plaintext, gateway.upgrades.long_targets());
        let taken = tokio::select! {
            // cancel-safe: a connection without a request is closed.
            () = gateway.stop.cancelled() => return,
            taken = tokio::time::timeout(HEAD_TIMEOUT, taking) => taken,
        };
        match taken {
            Ok(Ok((stream, target))) => {
                connection.begins_with(target);
                serve_http1(&gateway, connection, TokioIo::new(stream)).await
            }
            Ok(Err(error)) => return tracing::debug!(%peer, %error, "no request line"),
            Err(_) => return tracing::debug!(%peer, "the request line took too long"),
        }
    };
    if let Err(error) = result {
        tracing::debug!(%peer, %error, "client connection ended");
    }
}

type Tls = Plaintext<tokio_rustls::server::TlsStream<WitnessedTcp>>;

/// A client's connection over HTTP/1.1, which an upgrade may take over.
pub type ClientIo = TokioIo<Prefixed<Tls>>;

async fn serve_http2(
    gateway: &Arc<Gateway>,
    connection: Arc<Connection>,
    io: TokioIo<Gather<Tls>>,
) -> Result<(), hyper::Error> {
    let serving = hyper::server::conn::http2::Builder::new(Tasks(gateway.tasks.clone()))
        .timer(TokioTimer::new())
        .max_concurrent_streams(CLIENT_STREAMS_MAX)
        .initial_stream_window_size(CLIENT_STREAM_WINDOW)
        .initial_connection_window_size(CLIENT_CONNECTION_WINDOW)
        .max_header_list_size(u32::try_from(HEAD_BYTES_MAX).unwrap_or(u32::MAX))
        .keep_alive_interval(std::time::Duration::from_secs(30))
        .keep_alive_timeout(std::time::Duration::from_secs(20))
        .serve_connection(io, service(Arc::clone(gateway), connection));
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        // cancel-safe: the connection is polled on below.
        result = after_others(serving.as_mut()) => return result,
        () = gateway.stop.cancelled() => serving.as_mut().graceful_shutdown(),
    }
    after_others(serving).await
}

async fn serve_http1(
    gateway: &Arc<Gateway>,
    connection: Arc<Connection>,
    io: ClientIo,
) -> Result<(), hyper::Error> {
    let serving = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX + SHORT_TARGET_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(io, service(Arc::clone(gateway), connection))
        .with_upgrades();
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        // cancel-safe: the connection is polled on below.
        result = serving.as_mut() => return result,
        () = gateway.stop.cancelled() => serving.as_mut().graceful_shutdown(),
    }
    serving.await
}

fn service(
    gateway: Arc<Gateway>,
    connection: Arc<Connection>,
) -> impl hyper::service::Service<
    http::Request<hyper::body::Incoming>,
    Response = http::Response<crate::body::Body>,
    Error = Infallible,
    Future = impl Future<Output = Result<http::Response<crate::body::Body>, Infallible>> + Send,
> {
    service_fn(move |request| {
        let serving = exchange::serve(Arc::clone(&gateway), Arc::clone(&connection), request);
        // Boxed: hyper keeps this future's place for as long as the body flows, for a watch hours.
        let serving = Box::pin(serving);
        async move { Ok(serving.await) }
    })
}
