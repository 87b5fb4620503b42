//! The health listener: `/livez`, `/readyz`, `/metrics`. Plain HTTP; names no people and no objects.

use std::{convert::Infallible, fmt::Write as _, sync::Arc};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use recorder_user::model::Timestamp;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{bounds::HEAD_TIMEOUT, gateway::Gateway};

/// Answers on `listener` until `stop`.
pub async fn serve(gateway: Arc<Gateway>, listener: TcpListener, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            // cancel-safe: accept is, by its documentation.
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            continue;
        };
        let tasks = gateway.tasks.clone();
        let (gateway, stop) = (Arc::clone(&gateway), stop.clone());
        tasks.spawn(async move {
            let answer = hyper::service::service_fn(move |request| {
                let gateway = Arc::clone(&gateway);
                async move { Ok::<_, Infallible>(answer(&gateway, &request).await) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(TokioIo::new(stream), answer);
            tokio::select! {
                // cancel-safe: a health answer may be lost when the gateway stops.
                () = stop.cancelled() => {}
                _ = connection => {}
            }
        });
    }
}

async fn answer(gateway: &Gateway, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".into());
    }
    let verbose = request.uri().query().is_some_and(|query| query.contains("verbose"));
    match request.uri().path() {
        "/livez" => text(StatusCode::OK, "ok\n".into()),
        "/readyz" => ready(gateway, verbose).await,
        "/metrics" => {
            refresh(gateway);
            let mut response = Response::new(Full::new(gateway.metrics.text().into()));
            response.headers_mut().insert(
                header::CONTENT_TYPE,
                header::HeaderValue::from_static("text/plain; version=0.0.4"),
            );
            response
        }
        _ => text(StatusCode::NOT_FOUND, "try /livez, /readyz?verbose or /metrics\n".into()),
    }
}

/// The store writable, with room on its disk, and the keys of at least one issuer usable. Upstreams are shown, not gating: one
/// cluster's outage is no reason to stop serving the others.
async fn ready(gateway: &Gateway, verbose: bool) -> Response<Full<Bytes>> {
    let store = gateway.recorder.health();
    let why = if store.writable { "too little free space" } else { "the recorder cannot write" };
    let checks = [
        ("store", store.writable && !store.low_space, why),
        (
            "identity",
            gateway.identifier.ready(Timestamp::now()),
            "no issuer's keys could be fetched yet",
        ),
    ];
    let ready = checks.iter().all(|(_, ok, _)| *ok);
    let mut body = String::new();
    for (name, ok, why) in checks {
        let line = if ok { format!("[+]{name} ok") } else { format!("[-]{name} failed: {why}") };
        if verbose || !ok {
            writeln!(body, "{line}").expect("a String takes any text");
        }
    }
    if verbose {
        for (name, cluster) in &gateway.clusters {
            let reachable = cluster.upstream.reachable().await;
            gateway.metrics.upstream_up(name, reachable.is_ok());
            let state = match reachable {
                Ok(()) => "[+]".to_owned() + "upstream/" + name + " ok",
                Err(why) => format!("[-]upstream/{name} not reachable (not gating): {why}"),
            };
            writeln!(body, "{state}").expect("a String takes any text");
        }
    }
    let (status, word) =
        if ready { (StatusCode::OK, "ok") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready") };
    writeln!(body, "{word}").expect("a String takes any text");
    text(status, body)
}

/// Gauges that others keep are read when they are asked for.
fn refresh(gateway: &Gateway) {
    gateway.metrics.set_sessions(gateway.sessions.count());
    gateway.metrics.set_store(&gateway.recorder.health());
    gateway.metrics.set_retention(&gateway.retention.health());
    gateway.metrics.set_witness(&gateway.witness.stats());
    gateway.metrics.set_bypass(&gateway.bypass.stats());
    gateway.metrics.set_identity(&gateway.identifier.stats(Timestamp::now()));
    gateway.archiving.count(&gateway.metrics);
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
}
