//! The account: what the kernel counted equals what was recorded.

use std::rc::Rc;
use std::time::Duration;

use anyhow::{Result, ensure};
use rig::client::Protocol;
use rig::gateway::Options;
use rig::wait::{Level, until};
use serde_json::json;

use crate::runner::{Scenario, scenario};
use crate::scene::{Scene, search_until};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!("account-is-complete", account_is_complete),
        scenario!("account-without-ebpf", account_without_ebpf),
        scenario!("injected-loss-is-a-gap", injected_loss_is_a_gap),
    ]
}

async fn account_is_complete(scene: Rc<Scene>) -> Result<()> {
    let gateway = scene.gateway(&Options::default()).await?;
    busy_visit(&scene, &gateway).await?;
    all_complete(&gateway).await
}

async fn account_without_ebpf(scene: Rc<Scene>) -> Result<()> {
    let options = Options { witness: "tcp-info".into(), ..Options::default() };
    let gateway = scene.gateway(&options).await?;
    busy_visit(&scene, &gateway).await?;
    all_complete(&gateway).await?;
    let off = Options { name: "off".into(), witness: "off".into(), ..Options::default() };
    let gateway = scene.gateway(&off).await?;
    busy_visit(&scene, &gateway).await?;
    let rows = search_until(&gateway, &[], |rows| rows.len() > 10).await?;
    for row in rows {
        let account = &row["account"];
        ensure!(account["state"] == "unwitnessed" && account["reason"].is_string(), "{row}");
    }
    Ok(())
}

/// Small and large, both protocols, refused and allowed, on shared and on single connections.
async fn busy_visit(scene: &Scene, gateway: &rig::gateway::Gateway) -> Result<()> {
    scene.plane().namespace("counted").await?;
    for index in 0..20 {
        let data = json!({"text": "x".repeat(20_000)});
        scene.plane().config_map("counted", &format!("note-{index}"), &data).await?;
    }
    let alice = scene.as_user(gateway, "alice").await?;
    let nobody = scene.as_user(gateway, "nobody").await?;
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let mut connection = alice.connect(protocol).await?;
        for _ in 0..5 {
            connection.get("/api/v1/namespaces/counted/configmaps").await?.success()?;
            connection.get("/api/v1/namespaces/counted/configmaps/note-1").await?.success()?;
        }
        nobody.connect(protocol).await?.get("/api/v1/namespaces/counted/configmaps").await?;
    }
    let kubeconfig = gateway.kubeconfig("alice", &scene.token("alice").await?, None)?;
    scene.kubectl_ok(&kubeconfig, &["get", "configmaps", "-n", "counted"]).await.map(drop)
}

async fn all_complete(gateway: &rig::gateway::Gateway) -> Result<()> {
    let rows = search_until(gateway, &[], |rows| rows.len() > 20).await?;
    for row in &rows {
        ensure!(row["account"]["state"] == "complete", "{row}");
    }
    let recorder = gateway.recorder()?;
    until("every session's account is complete", Duration::from_secs(10), async || {
        let sessions = recorder.sessions().await?;
        let complete = sessions.iter().all(|session| session["account"]["state"] == "complete");
        Ok(Level::when(complete && !sessions.is_empty(), || format!("{sessions:?}")))
    })
    .await
}

/// The gateway's own fault injection drops recorded bytes: the account must not call that complete.
async fn injected_loss_is_a_gap(scene: Rc<Scene>) -> Result<()> {
    let options = Options {
        environment: vec![("DECKLOG_DANGER_LOSE_BYTES".into(), "100".into())],
        ..Options::default()
    };
    let gateway = scene.gateway(&options).await?;
    let alice = scene.as_user(&gateway, "alice").await?;
    alice.get("/api/v1/namespaces").await?.success()?;
    let rows = search_until(&gateway, &[], |rows| !rows.is_empty()).await?;
    ensure!(
        rows.iter()
            .any(|row| row["account"]["state"] == "gap" && row["account"]["gapBytes"] == 100),
        "no gap of 100 bytes: {rows:?}"
    );
    Ok(())
}
