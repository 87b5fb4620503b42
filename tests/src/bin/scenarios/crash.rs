//! `kill -9` at random moments under load: what the API server did, the record knows.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use http::Request;
use rig::client::{Endpoint, Protocol, full, json_request};
use rig::gateway::{Gateway, Options};
use rig::recorder::Recorder;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::runner::{Scenario, scenario};
use crate::scene::Scene;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![scenario!("kill-9-twenty-times", kill_nine_twenty_times, 600)]
}

const KILLS: u64 = 20;

async fn kill_nine_twenty_times(scene: Rc<Scene>) -> Result<()> {
    let mut gateway = scene.gateway(&Options::default()).await?;
    scene.plane().namespace("crash").await?;
    let token = scene.token("bob").await?;
    let bob = gateway.endpoint().bearer(token);
    let before = scene.plane().audit_events()?.len();
    for kill in 0..KILLS {
        let mut load = JoinSet::new();
        for worker in 0..4 {
            load.spawn_local(mutate(bob.clone(), kill, worker));
        }
        load.spawn_local(read(bob.clone()));
        // A different moment each time, spread over what a request takes; the process id varies the runs.
        let moment = (kill * 7919 + u64::from(std::process::id()) * 104_729) % 400;
        tokio::time::sleep(Duration::from_millis(150 + moment)).await;
        gateway.kill()?;
        load.abort_all();
        while load.join_next().await.is_some() {}
        let recorder = gateway.recorder()?;
        sound_but_for_its_end(&recorder)
            .await
            .with_context(|| format!("after kill {kill}, before the restart"))?;
        gateway.resume().await.with_context(|| format!("after kill {kill}"))?;
        recorder.verify().await.with_context(|| format!("after kill {kill} and restart"))?;
    }
    // The API server may still be finishing what it was sent: a request that waits for it ends after.
    scene.plane().get("/readyz").await?;
    let events = scene.plane().audit_events()?;
    let reached = reached(&events[before..]);
    let recorder = gateway.recorder()?;
    let rows = recorder.search(&["--namespace", "crash"]).await?;
    let recorded: BTreeSet<_> =
        rows.iter().filter_map(|row| row["exchange"].as_str()).map(str::to_owned).collect();
    ensure!(reached.len() > 100, "too little load to tell: {} mutations", reached.len());
    let missing: Vec<_> = reached.difference(&recorded).collect();
    ensure!(
        missing.is_empty(),
        "{} of {} mutations that reached the API server are not in the store: {missing:?}",
        missing.len(),
        reached.len()
    );
    println!("      {} mutations reached the API server; all are recorded", reached.len());
    sessions_are_closed(&gateway).await?;
    same_without_index(&mut gateway).await
}

/// A write is cut at the end of a page where the kill meets it: the start keeps that aside.
async fn sound_but_for_its_end(recorder: &Recorder) -> Result<()> {
    let output = recorder.run(&["verify"]).await?;
    let torn = output.code == Some(1) && output.stdout.contains("the file ends within the record");
    ensure!(output.success() || torn, "verify: {output:?}");
    Ok(())
}

/// What the API server's own audit log says was asked of it. Its audit ids are our exchanges' ids.
fn reached(events: &[Value]) -> BTreeSet<String> {
    let mutating = ["create", "patch", "update", "delete"];
    events
        .iter()
        .filter(|event| event["user"]["username"] == "system:serviceaccount:decklog:gateway")
        .filter(|event| event["verb"].as_str().is_some_and(|verb| mutating.contains(&verb)))
        .filter(|event| {
            event["requestURI"].as_str().is_some_and(|uri| uri.contains("/namespaces/crash/"))
        })
        .filter_map(|event| event["auditID"].as_str().map(str::to_owned))
        .collect()
}

/// Creates, patches and deletes without end.
async fn mutate(bob: Endpoint, kill: u64, worker: u64) -> Result<()> {
    let collection = "/api/v1/namespaces/crash/configmaps";
    let protocol = if worker.is_multiple_of(2) { Protocol::Http1 } else { Protocol::Http2 };
    let mut connection = bob.connect(protocol).await?;
    for round in 0_u64.. {
        let name = format!("note-{kill}-{worker}-{round}");
        let manager = format!("fieldManager=rig-{kill}-{worker}-{round}");
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name},
            "data": {"text": "x".repeat(usize::try_from(round % 7)? * 3000)},
        });
        connection.call(json_request("POST", &format!("{collection}?{manager}"), &object)?).await?;
        let patch = Request::patch(format!("{collection}/{name}?{manager}"))
            .header("content-type", "application/merge-patch+json")
            .body(full(json!({"data": {"more": "y"}}).to_string()))?;
        connection.call(patch).await?;
        let delete = Request::delete(format!("{collection}/{name}?gracePeriodSeconds={round}"));
        connection.call(delete.body(full(""))?).await?;
    }
    Ok(())
}

/// Lists and a watch, so that streams are open when the end comes.
async fn read(bob: Endpoint) -> Result<()> {
    let mut watching = bob.connect(Protocol::Http2).await?;
    let request = Request::get("/api/v1/namespaces/crash/configmaps?watch=true").body(full(""))?;
    let _watch = watching.send(request).await?;
    let mut listing = bob.connect(Protocol::Http2).await?;
    loop {
        listing.get("/api/v1/namespaces/crash/configmaps").await?;
    }
}

/// Every session but the running gateway's own ended as `gateway_lost`.
async fn sessions_are_closed(gateway: &Gateway) -> Result<()> {
    let sessions = gateway.recorder()?.sessions().await?;
    ensure!(sessions.len() as u64 >= KILLS, "{} sessions after {KILLS} kills", sessions.len());
    for session in &sessions {
        ensure!(
            session["state"] == "incomplete" && session["reason"] == "gateway_lost",
            "an unfinished session: {session}"
        );
        ensure!(session["ended"].is_string(), "{session}");
    }
    Ok(())
}

async fn same_without_index(gateway: &mut Gateway) -> Result<()> {
    gateway.stop().await?;
    let recorder = gateway.recorder()?;
    let answers =
        async || -> Result<_> { Ok((recorder.sessions().await?, recorder.search(&[]).await?)) };
    let before = answers().await?;
    let output = recorder.run(&["reindex"]).await?;
    ensure!(output.success(), "{output:?}");
    ensure!(before == answers().await?, "the rebuilt index answers otherwise");
    recorder.verify().await
}
