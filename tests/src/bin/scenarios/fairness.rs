//! One client's trouble is not another's: slow readers and many idle watches.

use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use http::Request;
use rig::client::{Connection, Endpoint, Protocol, full};
use rig::gateway::Options;
use serde_json::json;

use crate::runner::{Scenario, scenario};
use crate::scene::Scene;
use crate::watch::Watch;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![scenario!("slow-reader-and-idle-watches-delay-nobody", delay_nobody, 300)]
}

async fn delay_nobody(scene: Rc<Scene>) -> Result<()> {
    let one_thread = Options { config: json!({"threads": 1}), ..Options::default() };
    let gateway = scene.gateway(&one_thread).await?;
    scene.plane().namespace("fair").await?;
    for index in 0..40 {
        let data = json!({"text": "x".repeat(800_000)});
        scene.plane().config_map("fair", &format!("large-{index}"), &data).await?;
    }
    let (alice, bob) =
        (scene.as_user(&gateway, "alice").await?, scene.as_user(&gateway, "bob").await?);
    let alone = worst_of_fifty(&bob).await?;

    // Three slow readers of 32 MB: each stream's window fills, and they read no more.
    let mut slow = Vec::new();
    for protocol in [Protocol::Http1, Protocol::Http2, Protocol::Http2] {
        let mut connection = alice.connect(protocol).await?;
        let request = Request::get("/api/v1/namespaces/fair/configmaps").body(full(""))?;
        let response = connection.send(request).await?;
        ensure!(response.status() == 200, "{}", response.status());
        slow.push((connection, response));
    }
    let beside_readers = worst_of_fifty(&bob).await.context("beside slow readers")?;

    let watches = open_watches(&alice, 1000).await?;
    let (_, metrics) = gateway.health("/metrics").await?;
    let open =
        metrics.lines().find(|line| line.starts_with("decklog_streams_open ")).unwrap_or_default();
    ensure!(open == "decklog_streams_open 1000", "{open:?}");
    let beside_all = worst_of_fifty(&bob).await.context("beside slow readers and 1,000 watches")?;
    println!(
        "      worst of 50: alone {alone:?}, slow readers {beside_readers:?}, 1,000 watches {beside_all:?}"
    );

    // The slow ones get everything in the end, and the watches still work.
    for (_connection, response) in slow {
        let body = http_body_util::BodyExt::collect(response.into_body()).await?.to_bytes();
        ensure!(body.len() > 32_000_000, "a slow reader got {} bytes", body.len());
    }
    scene.plane().config_map("fair", "news", &json!({})).await?;
    for mut watch in watches {
        watch.about("news", Duration::from_secs(60)).await?;
    }
    Ok(())
}

/// Fifty gets by another principal, each on a new connection; none may hang. The bound is that of a
/// stall (seconds), not a measurement of speed.
async fn worst_of_fifty(endpoint: &Endpoint) -> Result<Duration> {
    let mut worst = Duration::ZERO;
    for round in 0..50 {
        let protocol = if round % 2 == 0 { Protocol::Http1 } else { Protocol::Http2 };
        let started = Instant::now();
        let asked =
            async { endpoint.connect(protocol).await?.get("/api/v1/namespaces/default").await };
        let reply =
            tokio::time::timeout(STALL, asked).await.context("another principal waited")??;
        reply.success()?;
        worst = worst.max(started.elapsed());
    }
    Ok(worst)
}

/// Idle watches, fifty to a connection.
async fn open_watches(endpoint: &Endpoint, count: usize) -> Result<Vec<Watch>> {
    let mut watches = Vec::new();
    let mut connection: Option<Connection> = None;
    for index in 0..count {
        if index % 50 == 0 {
            connection = Some(endpoint.connect(Protocol::Http2).await?);
        }
        let shared = connection.as_ref().and_then(Connection::share).context("HTTP/2")?;
        let path =
            "/api/v1/namespaces/fair/configmaps?watch=true&fieldSelector=metadata.name%3Dnews";
        watches.push(Watch::over(shared, path).await?);
    }
    Ok(watches)
}

const STALL: Duration = Duration::from_secs(5);
