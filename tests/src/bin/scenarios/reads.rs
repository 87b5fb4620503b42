//! Reading while writing: rows of the running gateway, who may have them, and the record of who had.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use recorder_user::socket;
use rig::client::{Endpoint, Protocol, full, json_request};
use rig::gateway::{Gateway, Options};
use rig::process::Output;
use rig::recorder::sibling;
use rig::wait::{Level, until};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;

use crate::runner::{Scenario, scenario};
use crate::scene::{Scene, search_until};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!("reads-three-ways", reads_three_ways),
        scenario!("reads-are-recorded", reads_are_recorded),
        scenario!("reads-unrecorded-on-request", reads_unrecorded_on_request),
        scenario!("reads-of-another-user", reads_of_another_user),
        scenario!("reads-under-load", reads_under_load),
    ]
}

/// The gateway's rows, a scan of the segments and the closed index give the same bytes.
async fn reads_three_ways(scene: Rc<Scene>) -> Result<()> {
    let mut gateway = scene.gateway(&Options::default()).await?;
    scene.plane().namespace("read").await?;
    for user in ["alice", "bob"] {
        let endpoint = scene.as_user(&gateway, user).await?;
        for round in 0..3 {
            change(&endpoint, "read", &format!("{user}-{round}")).await?;
            endpoint.get("/tasks/T-1/api/v1/namespaces/read/configmaps").await?.success()?;
        }
    }
    let rows = search_until(&gateway, &["--effect", "deleted"], |rows| rows.len() == 6).await?;
    let exchange = rows[0]["exchange"].as_str().context("an id")?.to_owned();
    let session = rows[0]["session"].as_str().context("an id")?.to_owned();
    let (last, short) = (&exchange[20..], &session[22..]);
    let verbs: Vec<Vec<&str>> = vec![
        vec!["ls"],
        vec!["search", "--limit", "0"],
        vec!["search", "--verb", "delete", "--limit", "2"],
        vec!["search", "--session", short, "--status", "2xx"],
        vec!["search", "--name", "no such name"],
        vec!["show", &exchange],
        vec!["show", last],
        vec!["show", &session],
        vec!["replay", short],
    ];
    let by_files = Some("/nowhere/gateway.sock");
    for verb in &verbs {
        // What closes a connection is recorded when it closes: that may be between the two.
        until("both ways agree", SOON, async || {
            let (asked, scanned) =
                (read(&gateway, verb, None).await?, read(&gateway, verb, by_files).await?);
            ensure!(!asked.stderr.contains("note: "), "{verb:?} was not asked: {}", asked.stderr);
            ensure!(scanned.stderr.contains("note: "), "{verb:?}: {scanned:?}");
            let told = || format!("{verb:?}:\n{}\n{}", asked.stdout, scanned.stdout);
            Ok(Level::when(asked.stdout == scanned.stdout && asked.code == Some(0), told))
        })
        .await?;
    }
    gateway.stop().await?;
    let index = gateway.store().join("index");
    let away = gateway.directory().join("index");
    for verb in &verbs {
        let indexed = read(&gateway, verb, None).await?;
        std::fs::rename(&index, &away)?;
        let scanned = read(&gateway, verb, None).await?;
        std::fs::rename(&away, &index)?;
        ensure!(indexed.stdout == scanned.stdout, "{verb:?}: {indexed:?} {scanned:?}");
        ensure!(indexed.success() && !indexed.stderr.contains("note: "), "{indexed:?}");
    }
    Ok(())
}

async fn reads_are_recorded(scene: Rc<Scene>) -> Result<()> {
    let mut gateway = scene.gateway(&Options::default()).await?;
    let alice = scene.as_user(&gateway, "alice").await?;
    alice.get("/api/v1/namespaces").await?.success()?;
    let recorder = gateway.recorder()?;
    let sessions = recorder.sessions().await?;
    let session = sessions[0]["session"].as_str().context("an id")?;
    let rows = recorder.search(&["--principal", "alice", "--status", "2xx"]).await?;
    let exchange = rows[0]["exchange"].as_str().context("an id")?;
    for verb in [
        &["show", &exchange[20..]][..],
        &["replay", session, "--at-once"],
        &["verify", session],
        &["verify"],
    ] {
        let output = recorder.run(verb).await?;
        ensure!(output.success() && output.stderr.is_empty(), "{verb:?}: {output:?}");
    }
    ensure!(recorder.run(&["show", "ffffffffffff"]).await?.code == Some(1), "it is not there");
    let accesses = recorder.json(&["accesses"]).await?;
    let told: Vec<_> = accesses
        .iter()
        .map(|access| (access["verb"].clone(), access["through"].clone(), access["what"].clone()))
        .collect();
    let query = json!({"query": "principal=alice&status=2xx"});
    let expected = [
        (json!("ls"), json!("socket"), json!({})),
        (json!("search"), json!("socket"), query),
        (json!("show"), json!("files"), json!({"exchanges": [exchange]})),
        (json!("replay"), json!("files"), json!({"sessions": [session]})),
        (json!("verify"), json!("files"), json!({"sessions": [session]})),
        (json!("verify"), json!("files"), json!({})),
        (json!("accesses"), json!("files"), json!({})),
    ];
    ensure!(told == expected, "on record is {told:?}");
    let own = std::fs::metadata("/proc/self")?.uid();
    for access in &accesses {
        let by = &access["by"];
        ensure!(by["uid"] == own && by["pid"].as_i64().is_some_and(|pid| pid > 1), "{access}");
        ensure!(own != 0 || by["user"] == "root", "{access}");
    }
    let listed = recorder.run(&["accesses", "--since", "1h"]).await?;
    ensure!(listed.stdout.contains("exchange ") && listed.stdout.contains("VERB"), "{listed:?}");

    // Nobody gets a row without saying what for.
    let (status, body) = raw(&gateway, "GET /rows/sessions HTTP/1.1", "").await?;
    ensure!(status == 403 && body.contains("POST /accesses"), "{status} {body}");
    let header = format!("decklog-access: {}", "0".repeat(32));
    let (status, _) = raw(&gateway, "GET /rows/exchanges HTTP/1.1", &header).await?;
    ensure!(status == 403, "an access that nobody announced: {status}");

    // They are part of the chain, also after a crash, and stand when no gateway runs.
    gateway.kill()?;
    recorder.verify().await?;
    ensure!(recorder.json(&["accesses"]).await?.len() == expected.len() + 1, "some are lost");
    gateway.resume().await?;
    recorder.verify().await
}

async fn reads_unrecorded_on_request(scene: Rc<Scene>) -> Result<()> {
    let config = json!({"store": {"recordAccess": false}});
    let gateway = scene.gateway(&Options { config, ..Options::default() }).await?;
    scene.as_user(&gateway, "alice").await?.get("/api/v1/namespaces").await?.success()?;
    let listed = read(&gateway, &["ls"], None).await?;
    ensure!(
        listed.success() && listed.stderr.is_empty() && !listed.stdout.is_empty(),
        "{listed:?}"
    );
    let accesses = gateway.recorder()?.run(&["accesses"]).await?;
    ensure!(accesses.stderr.contains("no reading of recordings is on record"), "{accesses:?}");
    let (status, _) = raw(&gateway, "GET /rows/sessions HTTP/1.1", "").await?;
    ensure!(status == 403, "the question is the same, recorded or not: {status}");
    Ok(())
}

/// Somebody else is not answered, and reads the files if they are open to him.
async fn reads_of_another_user(scene: Rc<Scene>) -> Result<()> {
    if std::fs::metadata("/proc/self")?.uid() != 0 {
        return Ok(());
    }
    let public = tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir()?;
    let binary = public.path().join("recorder");
    std::fs::copy(sibling("recorder")?, &binary)?;
    let store = public.path().join("store");
    let config = json!({"store": {"directory": store}});
    let gateway = scene.gateway(&Options { config, ..Options::default() }).await?;
    scene.as_user(&gateway, "alice").await?.get("/api/v1/namespaces").await?.success()?;
    let as_nobody = async || -> Result<Output> {
        let mut command = Command::new(&binary);
        command.args(["search", "--json", "--store"]).arg(&store).current_dir("/");
        command.uid(NOBODY).gid(NOBODY);
        rig::process::run(command, SOON).await
    };
    let closed = as_nobody().await?;
    ensure!(closed.code == Some(2) && closed.stdout.is_empty(), "the store is open: {closed:?}");

    let segments = std::fs::read_dir(store.join("segments"))?;
    let files: Vec<_> = segments.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    for (path, mode) in [(store.clone(), 0o755), (store.join("segments"), 0o755)]
        .into_iter()
        .chain(files.into_iter().map(|file| (file, 0o644)))
        .chain([(store.join("lock"), 0o644), (store.join("gateway.sock"), 0o666)])
    {
        std::fs::set_permissions(path, Permissions::from_mode(mode))?;
    }
    let refused = as_nobody().await?;
    ensure!(refused.success(), "{refused:?}");
    ensure!(refused.stderr.contains("answers its own user and root"), "{refused:?}");
    let mut command = Command::new(&binary);
    command.args(["search", "--json", "--store"]).arg(&store);
    let asked = rig::process::run(command, SOON).await?;
    ensure!(asked.stderr.is_empty() && asked.stdout == refused.stdout, "{asked:?} {refused:?}");
    until("the refusal is in the log", SOON, async || {
        let log = std::fs::read_to_string(gateway.log())?;
        Ok(Level::when(log.contains("admin connection of another user refused"), || log))
    })
    .await
}

/// Under load, a row is there as soon as its request was answered; and nobody's request suffers.
async fn reads_under_load(scene: Rc<Scene>) -> Result<()> {
    let gateway = scene.gateway(&Options::default()).await?;
    scene.plane().namespace("busy").await?;
    let bob = scene.as_user(&gateway, "bob").await?;
    let mut load = JoinSet::new();
    for worker in 0..4 {
        let bob = bob.clone();
        load.spawn_local(async move {
            for round in 0_u64.. {
                change(&bob, "busy", &format!("load-{worker}-{round}")).await?;
            }
            Ok(())
        });
    }
    let alice = scene.as_user(&gateway, "alice").await?;
    let recorder = gateway.recorder()?;
    for round in 0..20 {
        let name = format!("seen-{round}");
        change(&alice, "busy", &name).await?;
        let rows = recorder.search(&["--namespace", "busy", "--principal", "alice"]).await?;
        let of_name = rows.iter().filter(|row| row["objects"][0]["name"] == name.as_str());
        let effects: Vec<_> = of_name.map(|row| row["effect"].clone()).collect();
        ensure!(effects == ["created", "deleted"], "{name}: {effects:?}");
        ensure!(rows.len() == 2 * (round + 1), "{} rows", rows.len());
        let all = read(&gateway, &["search", "--limit", "0"], None).await?;
        ensure!(all.success() && all.stderr.is_empty(), "not answered: {}", all.stderr);
        if let Some(ended) = load.try_join_next() {
            let error: Result<Result<()>, _> = ended;
            error?.context("the load met an error")?;
        }
    }
    load.abort_all();
    while load.join_next().await.is_some() {}
    let accesses = recorder.json(&["accesses"]).await?;
    ensure!(accesses.len() == 41, "{} accesses are on record", accesses.len());
    recorder.verify().await
}

/// Creates and deletes an object.
async fn change(endpoint: &Endpoint, namespace: &str, name: &str) -> Result<()> {
    let collection = format!("/api/v1/namespaces/{namespace}/configmaps");
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
    let mut connection = endpoint.connect(Protocol::Http2).await?;
    connection.call(json_request("POST", &collection, &object)?).await?.success()?;
    let delete = http::Request::delete(format!("{collection}/{name}")).body(full(""))?;
    connection.call(delete).await?.success()?;
    Ok(())
}

/// Runs a verb of `recorder` with `--json`, and with this socket if one is given.
async fn read(gateway: &Gateway, verb: &[&str], socket: Option<&str>) -> Result<Output> {
    let mut arguments = verb.to_vec();
    arguments.push("--json");
    if let Some(socket) = socket {
        arguments.extend(["--socket", socket]);
    }
    gateway.recorder()?.run(&arguments).await
}

/// Sends a request to the admin socket by hand; gives status and body.
async fn raw(gateway: &Gateway, line: &str, header: &str) -> Result<(u16, String)> {
    let path = &gateway.store().join("gateway.sock");
    let stream = socket::short(path, |short| std::os::unix::net::UnixStream::connect(short))?;
    stream.set_nonblocking(true)?;
    let mut stream = tokio::net::UnixStream::from_std(stream)?;
    let header = if header.is_empty() { String::new() } else { format!("{header}\r\n") };
    let request = format!("{line}\r\nHost: x\r\nConnection: close\r\n{header}\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok((status.context("a status")?, body.to_owned()))
}

const SOON: Duration = Duration::from_secs(20);
const NOBODY: u32 = 65_534;
