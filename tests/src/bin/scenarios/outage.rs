//! The API server is gone, or the client is.

use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use http::{Request, StatusCode};
use rig::client::{Protocol, full};
use rig::controlplane;
use rig::gateway::{Gateway, Options};
use rig::wait::{Level, until};
use serde_json::json;

use crate::runner::{Scenario, scenario};
use crate::scene::{Scene, search_until};
use crate::watch::Watch;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!("api-server-stops-and-returns", api_server_stops_and_returns, 240),
        scenario!("client-gone-mid-list", client_gone_mid_list),
    ]
}

async fn api_server_stops_and_returns(scene: Rc<Scene>) -> Result<()> {
    let plane = scene.own_plane(controlplane::Options::default()).await?;
    let gateway =
        Gateway::start(scene.directory(), &plane, &[scene.issuer()], &Options::default()).await?;
    let alice = scene.as_user(&gateway, "alice").await?;
    alice.get("/api/v1/namespaces").await?.success()?;
    let mut watch =
        Watch::open(&alice, Protocol::Http2, "/api/v1/namespaces/default/configmaps?watch=true")
            .await?;
    plane.stop_api_server()?;
    // However it ends, it ends: a client that waits for events that cannot come would wait forever.
    while let Ok(Some(_)) = watch.next(Duration::from_secs(20)).await {}
    let reply = alice.get("/api/v1/namespaces").await?;
    ensure!(
        [StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE].contains(&reply.status),
        "{}: {}",
        reply.status,
        reply.text()
    );
    ensure!(reply.json()?["kind"] == "Status", "{}", reply.text());
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "lost"}});
    let reply = alice.json("POST", "/api/v1/namespaces/default/configmaps", &object).await?;
    ensure!(reply.status.is_server_error(), "a create without an API server: {}", reply.status);
    // Upstreams do not gate readiness: the gateway still refuses and records.
    ensure!(gateway.health("/readyz").await?.0 == 200, "not ready without an API server");
    plane.start_api_server().await?;
    until("it works again", Duration::from_secs(20), async || {
        let reply = alice.get("/api/v1/namespaces").await?;
        Ok(Level::when(reply.status == StatusCode::OK, || {
            format!("{}: {}", reply.status, reply.text())
        }))
    })
    .await?;
    let recorder = gateway.recorder()?;
    until("the session says why", Duration::from_secs(10), async || {
        let sessions = recorder.sessions().await?;
        let cut = sessions.iter().any(|session| session["reason"] == "upstream_lost");
        Ok(Level::when(cut, || format!("{sessions:?}")))
    })
    .await?;
    recorder.verify().await
}

async fn client_gone_mid_list(scene: Rc<Scene>) -> Result<()> {
    let mut gateway = scene.gateway(&Options::default()).await?;
    scene.plane().namespace("left").await?;
    for index in 0..20 {
        let data = json!({"text": "x".repeat(800_000)});
        scene.plane().config_map("left", &format!("large-{index}"), &data).await?;
    }
    let alice = scene.as_user(&gateway, "alice").await?;
    let path = "/tasks/T-gone/api/v1/namespaces/left/configmaps";
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let mut connection = alice.connect(protocol).await?;
        let mut response = connection.send(Request::get(path).body(full(""))?).await?;
        let first =
            http_body_util::BodyExt::frame(response.body_mut()).await.context("no body")??;
        ensure!(first.is_data(), "the first frame is no data");
        // Both dropped here, with nearly all of 16 MB unread.
    }
    let rows = search_until(&gateway, &["--task", "T-gone"], |rows| {
        rows.len() == 2
            && rows.iter().all(|row| row["responseBytes"].as_u64().is_some_and(|bytes| bytes > 0))
    })
    .await?;
    ensure!(rows.iter().all(|row| row["status"] == 200), "{rows:?}");
    let sessions = gateway.recorder()?.sessions().await?;
    let session =
        sessions.iter().find(|session| session["task"] == "T-gone").context("no session")?;
    ensure!(session["state"] == "incomplete" && session["reason"] == "client_lost", "{session}");
    gateway.check()?;
    alice.get("/api/v1/namespaces/left/configmaps").await?.success()?;
    gateway.recorder()?.verify().await
}
