//! What cuts streams: each leaves a recording up to the cut, with the right state and reason, and nothing
//! behind in the gateway.

use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rig::gateway::{Gateway, Options};
use rig::node::pods::{Pod, manifest};
use rig::process::Process;
use rig::wait::{Level, until};
use serde_json::{Value, json};

use super::Cluster;
use super::visit::{LIMIT, Visit};
use crate::ended;
use crate::scene::{Scene, search_until};

/// A stream of each kind that lasts until something ends it.
struct Streams {
    running: Vec<(&'static str, Process)>,
}

const KINDS: [&str; 5] = ["exec", "attach", "portforward", "log", "watch"];

impl Streams {
    async fn open(visit: &Visit) -> Result<Self> {
        let mut running = Vec::new();
        for (kind, arguments, sign) in [
            ("exec", &["exec", "talker", "--", "sh", "-c", TALK][..], "talk"),
            ("attach", &["attach", "talker"], "talk"),
            ("portforward", &["port-forward", "talker", ":8080"], "Forwarding"),
            ("log", &["logs", "-f", "talker"], "talk"),
            ("watch", &["get", "pods", "-w"], "talker"),
        ] {
            let log = visit.scene.directory().join(format!("{kind}.log"));
            let mut process = Process::start(kind, visit.command(arguments), &log)?;
            until(&format!("{kind} is under way"), LIMIT, async || {
                process.check()?;
                let said = std::fs::read_to_string(&log)?;
                Ok(Level::when(said.contains(sign), || said.clone()))
            })
            .await?;
            running.push((kind, process));
        }
        watched(&visit.gateway).await?;
        Ok(Self { running })
    }

    /// Each has ended within the time, and gives what it said.
    async fn ended(
        mut self,
        scene: &Scene,
        limit: Duration,
    ) -> Result<Vec<(&'static str, String)>> {
        let mut said = Vec::new();
        for (kind, process) in &mut self.running {
            until(&format!("{kind} ends"), limit, async || {
                Ok(Level::when(process.check().is_err(), || "it runs".to_owned()))
            })
            .await?;
            let log = scene.directory().join(format!("{kind}.log"));
            said.push((*kind, std::fs::read_to_string(log)?));
        }
        Ok(said)
    }
}

/// kubectl prints the list before it asks for the watch.
async fn watched(gateway: &Gateway) -> Result<()> {
    until("the watch is under way", LIMIT, async || {
        let sessions = ended::listed(gateway).await?;
        let streams = |session: &Value| session["streams"].as_array().cloned().unwrap_or_default();
        let watched = sessions.iter().flat_map(streams).any(|stream| stream["verb"] == "watch");
        Ok(Level::when(watched, || format!("{sessions:?}")))
    })
    .await
}

const TALK: &str = "while true; do echo talk; sleep 0.2; done";

async fn talker<'a>(cluster: &'a Cluster, namespace: &str) -> Result<Pod<'a>> {
    let mut object = manifest("talker", &["sh", "-c", TALK]);
    object["spec"]["containers"][0]["stdin"] = json!(true);
    Pod::run(&cluster.plane, namespace, &object).await
}

/// The rows of the five streams, with their endings, once all are settled.
async fn endings(gateway: &Gateway) -> Result<Vec<(String, Value)>> {
    let rows = search_until(gateway, &[], |rows| {
        KINDS.iter().all(|kind| rows.iter().any(|row| is(row, kind) && !row["status"].is_null()))
    })
    .await?;
    let of = |kind: &&str| {
        let row = rows.iter().find(|row| is(row, kind));
        row.map(|row| ((*kind).to_owned(), row.clone()))
    };
    KINDS.iter().map(|kind| of(kind).with_context(|| format!("no {kind} in {rows:?}"))).collect()
}

fn is(row: &Value, kind: &str) -> bool {
    let streams = row["status"] == 101 || row["status"] == 200;
    streams && (row["subresource"] == kind || (kind == "watch" && row["verb"] == "watch"))
}

async fn session(gateway: &Gateway, reason: &str) -> Result<()> {
    let recorder = gateway.recorder()?;
    until("the session says why", LIMIT, async || {
        let sessions = recorder.sessions().await?;
        let told = sessions.iter().any(|session| session["reason"] == reason);
        Ok(Level::when(told, || format!("{sessions:?}")))
    })
    .await
}

/// Nothing is left of a stream: no place taken, no socket, no task.
async fn nothing_left(gateway: &Gateway) -> Result<()> {
    until("the gateway has let go of everything", LIMIT, async || {
        let (_, metrics) = gateway.health("/metrics").await?;
        let value = |name: &str| {
            let line = metrics.lines().find(|line| line.starts_with(name));
            // A label that nobody has used yet is absent.
            line.and_then(|line| line.rsplit(' ').next()).unwrap_or("0").to_owned()
        };
        let streams = value("decklog_streams_open");
        let clients = value("decklog_connections_open{role=\"client\"}");
        let left = format!("streams {streams}, client connections {clients}");
        Ok(Level::when(streams == "0" && clients == "0", || left.clone()))
    })
    .await
}

/// A token that expires ends each kind of stream within two seconds, and its client is told.
pub(super) async fn token_expires(scene: Rc<Scene>) -> Result<()> {
    let visit = Visit::start(&scene, "fault-token", &Options::default()).await?;
    let cluster = Rc::clone(&visit.cluster);
    let pod = talker(&cluster, &visit.namespace).await?;
    let lifetime = 12;
    let now = jiff::Timestamp::now().as_second();
    let claims = json!({"claims": {"sub": "alice", "exp": now + lifetime}});
    let token = scene.secret(scene.issuer().mint(&claims).await?);
    let kubeconfig = visit.gateway.kubeconfig("short", &token, Some("T-2"))?;
    let short = Visit { kubeconfig, ..visit };
    let streams = Streams::open(&short).await?;
    let left = now + lifetime - jiff::Timestamp::now().as_second();
    let limit = Duration::from_secs(u64::try_from(left.max(0)).unwrap_or_default() + 4);
    for (kind, said) in streams.ended(&scene, limit).await? {
        let told = said.contains("the token expired");
        // A log has no place for it.
        ensure!(told || matches!(kind, "log" | "portforward"), "{kind} said {said}");
    }
    for (kind, row) in endings(&short.gateway).await? {
        let shown = short.shown(&row).await?;
        ensure!(shown["ending"] == "token_expired", "{kind}: {shown}");
        // Nothing happens to the pod, and nobody connects.
        let silent = matches!(&*kind, "portforward" | "watch");
        ensure!(row["responseBytes"].as_u64() > Some(0) || silent, "{kind}: {row}");
    }
    session(&short.gateway, "token_expired").await?;
    nothing_left(&short.gateway).await?;
    pod.delete().await
}

/// A client that is killed leaves commands without a status, and has ended what only it can end.
pub(super) async fn client_gone(scene: Rc<Scene>) -> Result<()> {
    let visit = Visit::start(&scene, "fault-client", &Options::default()).await?;
    let pod = talker(&visit.cluster, &visit.namespace).await?;
    for (_, process) in Streams::open(&visit).await?.running {
        process.kill()?;
    }
    for (kind, row) in endings(&visit.gateway).await? {
        let ending = visit.shown(&row).await?["ending"].take();
        let expected = if matches!(&*kind, "exec" | "attach") { "client_lost" } else { "finished" };
        ensure!(ending == expected, "{kind} ended {ending}");
    }
    session(&visit.gateway, "client_lost").await?;
    nothing_left(&visit.gateway).await?;
    pod.delete().await
}

/// A pod that goes ends its streams; whoever ran a command there is told.
pub(super) async fn pod_deleted(scene: Rc<Scene>) -> Result<()> {
    let visit = Visit::start(&scene, "fault-pod", &Options::default()).await?;
    let pod = talker(&visit.cluster, &visit.namespace).await?;
    let streams = Streams::open(&visit).await?;
    pod.delete().await?;
    for (kind, process) in streams.running {
        // A watch goes on, and so may a port-forward.
        if matches!(kind, "watch" | "portforward") {
            process.kill()?;
        } else {
            drop(process);
        }
    }
    for (kind, row) in endings(&visit.gateway).await? {
        let shown = visit.shown(&row).await?;
        ensure!(shown["ending"] == "finished", "{kind}: {shown}");
        if kind == "exec" {
            ensure!(shown["stream"]["facts"]["exitCode"] == 137, "{}", shown["stream"]);
        }
    }
    nothing_left(&visit.gateway).await
}

/// The API server goes down under all of them.
pub(super) async fn api_server_restarts(scene: Rc<Scene>) -> Result<()> {
    let visit = Visit::start(&scene, "fault-upstream", &Options::default()).await?;
    let pod = talker(&visit.cluster, &visit.namespace).await?;
    let streams = Streams::open(&visit).await?;
    visit.cluster.plane.stop_api_server()?;
    let said = streams.ended(&scene, LIMIT).await;
    visit.cluster.plane.start_api_server().await?;
    for (kind, said) in said? {
        let told = said.contains("the API server left");
        ensure!(told || kind != "exec", "{kind} said {said}");
    }
    for (kind, row) in endings(&visit.gateway).await? {
        let shown = visit.shown(&row).await?;
        ensure!(shown["ending"] == "upstream_lost", "{kind}: {shown}");
    }
    session(&visit.gateway, "upstream_lost").await?;
    nothing_left(&visit.gateway).await?;
    pod.delete().await
}

/// kill -9: what was carried up to then replays, and says why it stops.
pub(super) async fn gateway_killed(scene: Rc<Scene>) -> Result<()> {
    let mut visit = Visit::start(&scene, "fault-gateway", &Options::default()).await?;
    let cluster = Rc::clone(&visit.cluster);
    let pod = talker(&cluster, &visit.namespace).await?;
    let streams = Streams::open(&visit).await?;
    // What the client has seen must be on record a moment later.
    let seen = scene.directory().join("exec.log");
    let before = std::fs::read_to_string(&seen)?.lines().count();
    tokio::time::sleep(DURABLE_LAG).await;
    visit.gateway.kill()?;
    drop(streams);
    visit.gateway.resume().await?;
    session(&visit.gateway, "gateway_lost").await?;
    visit.gateway.recorder()?.verify().await?;
    let rows = search_until(&visit.gateway, &["--resource", "pods/exec"], |rows| !rows.is_empty());
    let rows = rows.await?;
    let stdout = visit.exported(&rows[0], &["--format", "raw"]).await?;
    ensure!(stdout.lines().count() >= before, "seen {before} lines, on record {stdout:?}");
    nothing_left(&visit.gateway).await?;
    pod.delete().await
}

/// Frames are durable within 200 ms: the stated lag, not a wait for something to happen.
const DURABLE_LAG: Duration = Duration::from_millis(300);
