//! What the record says: sessions, exchanges, restarts, the index.

use std::rc::Rc;

use anyhow::{Context as _, Result, ensure};
use http::Request;
use rig::client::{full, json_request};
use rig::gateway::Options;
use serde_json::{Value, json};

use crate::runner::{Scenario, scenario};
use crate::scene::{Scene, deployment, search_until};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!("visit-is-recorded-and-replayed", visit_is_recorded_and_replayed),
        scenario!("session-survives-a-restart", session_survives_a_restart),
        scenario!("two-gateways-side-by-side", two_gateways_side_by_side),
        scenario!("two-agents-on-one-connection", two_agents_on_one_connection),
        scenario!("tampering-is-found", tampering_is_found),
    ]
}

async fn visit_is_recorded_and_replayed(scene: Rc<Scene>) -> Result<()> {
    let gateway = scene.gateway(&Options::default()).await?;
    scene.plane().namespace("visited").await?;
    let kubeconfig = gateway.kubeconfig("agent-7", &scene.token("agent-7").await?, Some("T-42"))?;
    let manifest = scene.manifest("web.json", &deployment("web", 1))?;
    for arguments in [
        &["apply", "-f", &manifest][..],
        &["scale", "deployment/web", "--replicas=2"],
        &["get", "deployments"],
        &["delete", "deployment/web", "--wait=false"],
    ] {
        let mut all = vec!["-n", "visited"];
        all.extend(arguments);
        scene.kubectl_ok(&kubeconfig, &all).await?;
    }
    let rows = search_until(&gateway, &["--task", "T-42"], |rows| {
        rows.iter().any(|row| row["verb"] == "delete" && row["effect"] == "deleted")
    })
    .await?;
    let created =
        rows.iter().find(|row| row["effect"] == "created").context("nothing was created")?;
    let object = &created["objects"][0];
    ensure!(
        object["kind"] == "Deployment"
            && object["name"] == "web"
            && object["namespace"] == "visited",
        "{object}"
    );
    ensure!(object["uid"].as_str().is_some_and(|uid| uid.len() == 36), "{object}");
    ensure!(created["auditId"].as_str().is_some_and(|id| !id.is_empty()), "{created}");
    for key in ["open", "upstream", "total"] {
        ensure!(created["timingUs"][key].as_u64().is_some_and(|us| us > 0), "{key}: {created}");
    }
    ensure!(created["policySet"].as_str().is_some_and(|hash| !hash.is_empty()), "{created}");

    let recorder = gateway.recorder()?;
    let sessions = recorder.sessions().await?;
    let session =
        sessions.iter().find(|session| session["task"] == "T-42").context("no session")?;
    ensure!(
        session["state"] == "open" && session["principal"]["username"] == "agent-7",
        "{session}"
    );
    ensure!(session["effects"] == json!({"created": 1, "modified": 1, "deleted": 1}), "{session}");
    ensure!(session["exchanges"] == rows.len(), "{session}: {} rows", rows.len());

    let id = session["session"].as_str().context("an id")?;
    let replay = recorder.run(&["replay", id, "--at-once"]).await?;
    ensure!(replay.success(), "{replay:?}");
    for text in
        ["agent-7", "web", "visited", "created", "deleted", object["uid"].as_str().unwrap_or("?")]
    {
        ensure!(replay.stdout.contains(text), "no {text:?} in the replay:\n{}", replay.stdout);
    }
    let exchange = created["exchange"].as_str().context("an id")?;
    let shown = recorder.run(&["show", exchange, "--json"]).await?;
    ensure!(shown.stdout.contains("example.test/web:1"), "the body is not shown: {shown:?}");
    ensure!(recorder.run(&["show", "ffffffffffff"]).await?.code == Some(1), "an absent id is no 1");
    recorder.verify().await
}

/// A session goes on after an orderly stop; the index deleted and rebuilt gives the same answers.
async fn session_survives_a_restart(scene: Rc<Scene>) -> Result<()> {
    let mut gateway = scene.gateway(&Options::default()).await?;
    let token = scene.token("bob").await?;
    let bob = gateway.endpoint().bearer(token);
    bob.get("/tasks/T-1/api/v1/namespaces").await?.success()?;
    gateway.stop().await?;
    let log = std::fs::read_to_string(gateway.log())?;
    ensure!(!log.contains("requests cut"), "nothing was in flight, yet the stop cut something");
    let recorder = gateway.recorder()?;
    recorder.verify().await?;
    let before = recorder.sessions().await?;
    ensure!(before.len() == 1 && before[0]["state"] == "open", "{before:?}");
    gateway.resume().await?;
    bob.get("/tasks/T-1/api/v1/namespaces").await?.success()?;
    let rows = search_until(&gateway, &["--task", "T-1"], |rows| rows.len() == 2).await?;
    ensure!(rows[0]["session"] == rows[1]["session"], "the restart made a new session: {rows:?}");
    gateway.stop().await?;
    let answers = async || -> Result<(Vec<Value>, Vec<Value>)> {
        Ok((recorder.sessions().await?, recorder.search(&[]).await?))
    };
    let before = answers().await?;
    let output = recorder.run(&["reindex"]).await?;
    ensure!(output.success(), "{output:?}");
    ensure!(before == answers().await?, "the rebuilt index answers otherwise");
    Ok(())
}

async fn two_gateways_side_by_side(scene: Rc<Scene>) -> Result<()> {
    let named = |name: &str| Options { name: name.into(), ..Options::default() };
    let (one, two) = (scene.gateway(&named("one")).await?, scene.gateway(&named("two")).await?);
    for (gateway, user) in [(&one, "alice"), (&two, "bob")] {
        scene.as_user(gateway, user).await?.get("/api/v1/namespaces").await?.success()?;
    }
    for (gateway, user) in [(&one, "alice"), (&two, "bob")] {
        let rows = search_until(gateway, &[], |rows| !rows.is_empty()).await?;
        ensure!(rows.iter().all(|row| row["username"] == user), "{rows:?}");
        gateway.recorder()?.verify().await?;
    }
    Ok(())
}

/// Identity is per request: on one HTTP/2 connection, interleaved, nobody gets another's rights or session.
async fn two_agents_on_one_connection(scene: Rc<Scene>) -> Result<()> {
    let gateway = scene.gateway(&Options::default()).await?;
    scene.plane().namespace("shared").await?;
    let (bob, dave) = (scene.token("bob").await?, scene.token("dave").await?);
    let connection = gateway.endpoint().connect(rig::client::Protocol::Http2).await?;
    let mut tasks = tokio::task::JoinSet::new();
    for round in 0..20 {
        for (user, token, created) in [("bob", bob.clone(), 201), ("dave", dave.clone(), 403)] {
            let mut connection = connection.share().context("HTTP/2")?;
            tasks.spawn_local(async move {
                let object = json!({
                    "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("{user}-{round}")},
                });
                let mut request = json_request("POST", "/api/v1/namespaces/shared/configmaps", &object)?;
                request.headers_mut().insert("authorization", format!("Bearer {token}").parse()?);
                let reply = connection.call(request).await?;
                ensure!(reply.status == created, "{user}: {} {}", reply.status, reply.text());
                let list = Request::get("/api/v1/namespaces/shared/configmaps")
                    .header("authorization", format!("Bearer {token}"));
                connection.call(list.body(full(""))?).await?.success()?;
                Ok(())
            });
        }
    }
    while let Some(result) = tasks.join_next().await {
        result??;
    }
    let rows = search_until(&gateway, &[], |rows| rows.len() == 80).await?;
    for row in &rows {
        let expected = match (row["username"].as_str(), row["verb"].as_str()) {
            (Some("bob"), Some("create")) => 201,
            (Some("dave"), Some("create")) => 403,
            (Some("bob" | "dave"), Some("list")) => 200,
            _ => anyhow::bail!("{row}"),
        };
        ensure!(row["status"] == expected, "{row}");
    }
    let sessions = gateway.recorder()?.sessions().await?;
    ensure!(sessions.len() == 2, "{sessions:?}");
    ensure!(sessions.iter().all(|session| session["exchanges"] == 40), "{sessions:?}");
    Ok(())
}

/// One flipped byte, anywhere in a segment, is found and named.
async fn tampering_is_found(scene: Rc<Scene>) -> Result<()> {
    let mut gateway = scene.gateway(&Options::default()).await?;
    let bob = scene.as_user(&gateway, "bob").await?;
    for _ in 0..10 {
        bob.get("/api/v1/namespaces").await?.success()?;
    }
    gateway.stop().await?;
    let recorder = gateway.recorder()?;
    recorder.verify().await?;
    let segment = segments(&gateway.store())?.pop().context("no segment")?;
    let whole = std::fs::read(&segment)?;
    for at in [whole.len() / 4, whole.len() / 2, whole.len() - 40] {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        std::fs::write(&segment, &changed)?;
        let output = recorder.run(&["verify"]).await?;
        ensure!(output.code == Some(1), "byte {at} flipped: {output:?}");
        let said = format!("{}{}", output.stdout, output.stderr);
        let name = segment.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        ensure!(said.contains(name), "verify does not name the file: {said}");
    }
    std::fs::write(&segment, &whole[..whole.len() - 100])?;
    ensure!(
        recorder.run(&["verify"]).await?.code == Some(1),
        "a truncated sealed segment verifies"
    );
    std::fs::write(&segment, &whole)?;
    recorder.verify().await
}

/// The segment files of a store: they begin with the format's magic.
fn segments(store: &std::path::Path) -> Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    let mut directories = vec![store.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory)? {
            let path = entry?.path();
            if path.is_dir() {
                directories.push(path);
            } else if std::fs::read(&path)?.starts_with(b"DECKLOG\0") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}
