//! Retention of the real gateway: what is old goes, what is held stays, and the store verifies all the while.

use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rig::gateway::{Gateway, Options};
use rig::wait::{Level, until};
use serde_json::{Value, json};

use crate::runner::{Scenario, scenario};
use crate::scene::{Scene, search_until};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!("retention-by-age", retention_by_age),
        scenario!("retention-on-request", retention_on_request),
    ]
}

const SOON: Duration = Duration::from_secs(60);

/// The gateway deletes by itself, at short ages, while it serves.
async fn retention_by_age(scene: Rc<Scene>) -> Result<()> {
    let retention = json!({"age": "12s", "bodiesOfReads": "2s", "interval": "1s"});
    let config = json!({
        "store": {"segmentAge": "10s", "retention": retention}, "sessions": {"idle": "10s"},
    });
    let mut gateway = scene.gateway(&Options { config, ..Options::default() }).await?;
    scene.plane().namespace("kept").await?;
    let recorder = gateway.recorder()?;
    let (alice, bob) =
        (scene.as_user(&gateway, "alice").await?, scene.as_user(&gateway, "bob").await?);
    let held =
        recorder.json(&["hold", "add", "--principal", "alice", "--reason", "case 17"]).await?;
    ensure!(held[0]["on"]["principal"] == "alice", "{held:?}");
    for endpoint in [&alice, &bob] {
        endpoint.get("/api/v1/namespaces/kept/configmaps").await?.success()?;
    }
    let of = async |name: &str| recorder.search(&["--principal", name]).await;
    search_until(&gateway, &["--principal", "bob"], |rows| rows.len() == 1).await?;
    until("bob's records are gone", SOON, async || {
        recorder.verify().await?;
        let rows = of("bob").await?;
        Ok(Level::when(rows.is_empty(), || format!("{rows:?}")))
    })
    .await?;
    let rows = of("alice").await?;
    ensure!(rows.len() == 1, "a hold keeps alice's: {rows:?}");
    let exchange = rows[0]["exchange"].as_str().context("an id")?;
    let shown = recorder.json(&["show", exchange]).await?;
    let body = shown[0]["responseBody"]["text"].as_str().context("a body")?;
    ensure!(body.contains("ConfigMapList"), "her bodies are there: {body}");
    let report = gone(&gateway).await?;
    ensure!(
        !report["deletedSegments"].as_array().context("a list")?.is_empty()
            || report["prunedRecords"] != 0,
        "verify says what is gone: {report}"
    );
    let (_, metrics) = gateway.health("/metrics").await?;
    ensure!(metrics.contains("decklog_store_held_sessions 1"), "{metrics}");

    // After a kill as after a stop.
    gateway.kill()?;
    recorder.verify().await?;
    gateway.resume().await?;
    recorder.verify().await?;
    ensure!(of("alice").await?.len() == 1, "the hold outlives the gateway");
    Ok(())
}

/// `recorder prune` asks the gateway that runs, and does it itself when none does.
async fn retention_on_request(scene: Rc<Scene>) -> Result<()> {
    let mut gateway = scene.gateway(&Options::default()).await?;
    scene.plane().namespace("asked").await?;
    let recorder = gateway.recorder()?;
    let alice = scene.as_user(&gateway, "alice").await?;
    alice.get("/api/v1/namespaces/asked/configmaps").await?.success()?;
    search_until(&gateway, &["--principal", "alice"], |rows| rows.len() == 1).await?;
    // A restart ends the segment.
    gateway.stop().await?;
    gateway.resume().await?;
    let prune = ["prune", "--older-than", "0s", "--scope", "read-bodies"];
    let dry = recorder.json(&[&prune[..], &["--dry-run"]].concat()).await?;
    ensure!(dry[0]["dryRun"] == true && dry[0]["records"] == 1, "{dry:?}");
    let hold = recorder.json(&["hold", "add", "--task", "T-9", "--reason", "another case"]).await?;
    let done = recorder.json(&prune).await?;
    ensure!(done[0]["dryRun"] == false && done[0]["records"] == 1, "{done:?}");
    let report = gone(&gateway).await?;
    ensure!(report["prunedRecords"] == 1 && report["partialBodies"] == 1, "{report}");
    let rows = recorder.search(&["--principal", "alice"]).await?;
    let exchange = rows[0]["exchange"].as_str().context("an id")?;
    let shown = recorder.run(&["show", exchange]).await?;
    ensure!(shown.stdout.contains("not there any more"), "{shown:?}");
    let text = recorder.run(&["verify"]).await?;
    ensure!(text.stdout.contains("deleted  1 record") && text.success(), "{text:?}");
    gateway.stop().await?;

    // The session may go on, so that its beginning stays; the rest of it goes.
    let done = recorder.json(&["prune", "--older-than", "0s"]).await?;
    ensure!(done[0]["sessionCount"] == 1, "{done:?}");
    let hold = hold[0]["hold"].as_str().context("an id")?;
    recorder.json(&["hold", "release", hold]).await?;
    let holds = recorder.json(&["hold", "ls"]).await?;
    ensure!(holds.len() == 1 && !holds[0]["released"].is_null(), "{holds:?}");
    recorder.verify().await?;
    ensure!(recorder.search(&["--principal", "alice"]).await?.is_empty(), "rows are left");
    gateway.resume().await?;
    alice.get("/api/v1/namespaces/asked/configmaps").await?.success()?;
    search_until(&gateway, &["--principal", "alice"], |rows| rows.len() == 1).await?;
    recorder.verify().await
}

async fn gone(gateway: &Gateway) -> Result<Value> {
    let mut report = gateway.recorder()?.json(&["verify"]).await?;
    report.pop().context("a report")
}
