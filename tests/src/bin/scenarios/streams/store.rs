//! The store fails under streams: they end, their clients are told, and all works again afterwards.

use std::rc::Rc;

use anyhow::{Context as _, Result, ensure};
use rig::gateway::Options;
use rig::node::pods::{Pod, manifest};
use rig::recorder::Recorder;
use rig::terminal::Terminal;
use rig::wait::{Level, until};
use rig::websocket::WebSocket;
use serde_json::{Value, json};

use super::visit::{LIMIT, Visit};
use crate::disk::{SmallDisk, use_up_what_was_set_aside};
use crate::scene::Scene;

const TALK: &str = "while true; do echo talk; sleep 0.2; done";

/// A stream that talks and one that is idle end when the disk is full.
pub(super) async fn recorder_fails(scene: Rc<Scene>) -> Result<()> {
    let disk = SmallDisk::mount(&scene.directory().join("disk"))?;
    let store = disk.path().join("store");
    let config = json!({"store": {"directory": store}});
    let options = Options { config, ..Options::default() };
    let mut visit = Visit::start(&scene, "recorder-fails", &options).await?;
    let cluster = Rc::clone(&visit.cluster);
    let pod =
        Pod::run(&cluster.plane, &visit.namespace, &manifest("box", &["sleep", "3600"])).await?;
    visit.ok(&["exec", "box", "--", "echo", "before"]).await?;
    let mut running = Vec::new();
    for (what, arguments, sign) in [
        ("talking", &["exec", "box", "--", "sh", "-c", TALK][..], "talk"),
        ("idle", &["exec", "-i", "box", "--", "sh", "-c", "echo idle; cat"], "idle"),
    ] {
        let terminal = Terminal::start(visit.command(arguments), 100, 30)?;
        terminal.shows(sign).await.context(what)?;
        running.push((what, terminal));
    }

    disk.fill()?;
    let alice = scene.as_user(&visit.gateway, "alice").await?;
    let collection = format!("/api/v1/namespaces/{}/configmaps", visit.namespace);
    use_up_what_was_set_aside(&alice, &collection).await?;
    for (what, terminal) in &mut running {
        let status = terminal.ended().await.with_context(|| format!("the end of {what}"))?;
        let shown = terminal.shown();
        let told = shown.contains("the gateway cannot record any more");
        ensure!(!status.success() && told, "{what}: {status}: {shown}");
    }
    refused(&visit, &pod.path()).await?;

    disk.free()?;
    until("the store works again", LIMIT, async || {
        let (status, body) = visit.gateway.health("/readyz").await?;
        Ok(Level::when(status == 200, || format!("{status} {body}")))
    })
    .await?;
    let output = visit.ok(&["exec", "box", "--", "echo", "after"]).await?;
    ensure!(output.stdout == "after\n", "{output:?}");
    recorded(&Recorder::over(&store)?).await?;
    // Before the disk goes away.
    visit.gateway.stop().await?;
    pod.delete().await
}

/// A new exec does not reach the API server.
async fn refused(visit: &Visit, pod: &str) -> Result<()> {
    let token = visit.scene.token("alice").await?;
    let target = format!("{pod}/exec?stdout=1&command=id");
    let protocols = ["v5.channel.k8s.io"];
    let opened = WebSocket::open(visit.gateway.endpoint(), &target, &protocols, Some(&token)).await;
    let refused = opened.err().map(|error| error.to_string()).unwrap_or_default();
    ensure!(refused.contains("HTTP/1.1 503"), "a new exec: {refused}");
    let output = visit.run(&["exec", "box", "--", "id"]).await?;
    ensure!(!output.success() && output.stdout.is_empty(), "a new exec: {output:?}");
    Ok(())
}

/// What was on record before verifies, and the streams that were cut have an outcome: it came when nothing could
/// be written, and was kept until the store worked again.
async fn recorded(recorder: &Recorder) -> Result<()> {
    recorder.verify().await?;
    let rows = until("the streams are on record", LIMIT, async || {
        let rows = recorder.search(&["--resource", "pods/exec"]).await?;
        let told = rows.iter().filter(|row| row["status"] == 101 && row["effect"] == "executed");
        Ok(if told.count() >= 4 {
            Level::Reached(rows)
        } else {
            Level::NotYet(format!("{rows:?}"))
        })
    })
    .await?;
    ensure!(rows.len() == 4, "{rows:?}");
    for (row, (ending, said)) in rows.iter().zip([
        (json!("finished"), "before\n"),
        (json!("recorder_failed"), "talk\n"),
        (json!("recorder_failed"), "idle\n"),
        (json!("finished"), "after\n"),
    ]) {
        let id = row["exchange"].as_str().context("a row without an exchange")?;
        let shown = recorder.json(&["show", id]).await?;
        let exported = recorder.run(&["export", id, "--format", "raw"]).await?;
        ensure!(exported.stdout.starts_with(said), "not {said:?}: {exported:?}");
        ensure!(shown[0]["ending"] == ending, "not {ending}: {}", shown[0]);
    }
    let sessions = recorder.sessions().await?;
    let told = |session: &Value| {
        session["state"] == "incomplete" && session["reason"] == "recorder_failed"
    };
    ensure!(sessions.iter().any(told), "{sessions:?}");
    Ok(())
}
