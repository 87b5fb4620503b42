//! Upgraded streams that are ended from outside: a kill, a policy, a withdrawn key. Whoever is at their other
//! end is told why, and so is the record.

use std::net::Ipv4Addr;
use std::rc::Rc;

use anyhow::{Context as _, Result, ensure};
use rig::dialogue::Dialogue;
use rig::gateway::{Gateway, Options};
use rig::issuer::OldKeys;
use rig::node::pods::{Pod, manifest};
use rig::terminal::Terminal;
use rig::wait::{Level, until};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Cluster;
use super::visit::{LIMIT, Visit};
use crate::ended;
use crate::scene::{HOUR, Scene};

pub(super) async fn ended_from_outside(scene: Rc<Scene>) -> Result<()> {
    killed(&scene).await.context("a killed session")?;
    policy_changed(&scene).await.context("a policy that changes")?;
    key_withdrawn(&scene).await.context("a key that is withdrawn")
}

const TALK: &str = "while true; do echo talk; sleep 0.2; done";

/// A pod to attach to, with a server to connect to.
async fn talker<'a>(cluster: &'a Cluster, namespace: &str) -> Result<Pod<'a>> {
    let mut object = manifest("talker", &["sh", "-c", &format!("echod & {TALK}")]);
    object["spec"]["containers"][0]["stdin"] = json!(true);
    Pod::run(&cluster.plane, namespace, &object).await
}

/// A stream of each kind that leaves HTTP, each run as a person would run it.
struct Upgraded {
    running: Vec<(&'static str, Terminal)>,
    /// Through the forwarded port: without one, nothing of the port-forward has a place for a reason.
    _connection: TcpStream,
}

impl Upgraded {
    async fn open(visit: &Visit) -> Result<Self> {
        let mut running = Vec::new();
        for (what, arguments, sign) in [
            ("exec", &["exec", "talker", "--", "sh", "-c", TALK][..], "talk\r\n"),
            ("exec on a terminal", &["exec", "-it", "talker", "--", "sh"], "# "),
            ("attach", &["attach", "talker"], "talk\r\n"),
            ("port-forward", &["port-forward", "talker", ":7000"], "-> 7000"),
        ] {
            let terminal = Terminal::start(visit.command(arguments), 100, 30)?;
            terminal.shows(sign).await.context(what)?;
            running.push((what, terminal));
        }
        let (_, forward) = running.last().context("the port-forward is the last")?;
        let connection = connect(&forward.shown()).await?;
        Ok(Self { running, _connection: connection })
    }

    /// Each ends with an error, and shows `reason`.
    async fn end_with(mut self, reason: &str) -> Result<()> {
        for (what, terminal) in &mut self.running {
            let status = terminal.ended().await.with_context(|| format!("the end of {what}"))?;
            let shown = terminal.shown();
            // With its connections open, kubectl may see the end of a port-forward before it has printed why.
            let lost = *what == "port-forward" && shown.contains("lost connection to pod");
            let told = shown.contains(reason) || lost;
            ensure!(!status.success() && told, "{what}: {status}: {shown}");
        }
        Ok(())
    }
}

/// A connection through a port-forward that has said where it listens, once something has echoed there.
async fn connect(shown: &str) -> Result<TcpStream> {
    let rest = shown.split("Forwarding from 127.0.0.1:").nth(1);
    let port = rest.and_then(|rest| rest.split_once(" -> ")).context("no port")?.0.parse()?;
    let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    connection.write_all(b"anybody?").await?;
    let mut echoed = [0; 8];
    timeout(LIMIT, connection.read_exact(&mut echoed)).await??;
    ensure!(&echoed == b"anybody?", "echoed: {echoed:?}");
    Ok(connection)
}

/// The record says of each stream of [`Upgraded`] how it ended, and the session is incomplete for it.
async fn recorded(visit: &Visit, ending: &str) -> Result<()> {
    for (subresource, count) in [("exec", 2), ("attach", 1), ("portforward", 1)] {
        let rows = visit.streams(subresource, count).await?;
        ensure!(rows.len() == count, "{subresource}: {rows:?}");
        for row in rows {
            ends_as(visit, &row, ending).await?;
        }
    }
    incomplete(&visit.gateway, ending).await
}

async fn ends_as(visit: &Visit, row: &Value, ending: &str) -> Result<()> {
    let shown = visit.shown(row).await?;
    ensure!(shown["ending"] == ending, "not {ending}: {shown}");
    Ok(())
}

async fn incomplete(gateway: &Gateway, reason: &str) -> Result<()> {
    let recorder = gateway.recorder()?;
    until("the session says why", LIMIT, async || {
        let sessions = recorder.sessions().await?;
        let told =
            |session: &Value| session["state"] == "incomplete" && session["reason"] == reason;
        Ok(Level::when(sessions.iter().any(told), || format!("{sessions:?}")))
    })
    .await
}

async fn killed(scene: &Rc<Scene>) -> Result<()> {
    let visit = Visit::start(scene, "outside-kill", &Options::default()).await?;
    let pod = talker(&visit.cluster, &visit.namespace).await?;
    let streams = Upgraded::open(&visit).await?;
    let sessions = ended::listed(&visit.gateway).await?;
    ensure!(sessions.len() == 1, "{sessions:?}");
    let open = sessions[0]["streams"].as_array().context("no streams")?.len();
    ensure!(open == streams.running.len(), "{sessions:?}");
    let id = sessions[0]["session"].as_str().context("a session without an id")?;
    let order = ["kill", id, "--reason", "it leaves the agreed path"];
    let output = ended::command(&visit.gateway, &order).await?;
    let told = format!("live streams ended: {open}");
    ensure!(output.success() && output.stdout.contains(&told), "{output:?}");
    streams.end_with("an operator of the gateway killed the session").await?;
    recorded(&visit, "killed").await?;
    pod.delete().await
}

/// Two programs may run; after the change one.
const BOTH: &str = r#"
@id("reads") permit(principal, action in [k8s::Action::"get", k8s::Action::"list"], resource);
@id("cat") permit(principal, action == k8s::Action::"create", resource is k8s::Resource)
when { context has stream && context.stream has program && context.stream.program == "cat" };
"#;
const SHELL: &str = r#"
@id("sh") permit(principal, action == k8s::Action::"create", resource is k8s::Resource)
when { context has stream && context.stream has program && context.stream.program == "sh" };
"#;

async fn policy_changed(scene: &Rc<Scene>) -> Result<()> {
    let options = Options { name: "changed".into(), ..Options::access(format!("{BOTH}{SHELL}")) };
    let visit = Visit::start(scene, "outside-policy", &options).await?;
    let pod = talker(&visit.cluster, &visit.namespace).await?;
    let mut other = Dialogue::start(visit.command(&["exec", "-i", "talker", "--", "cat"]))?;
    other.say("before\n")?;
    other.hears("before\n", LIMIT).await?;
    let mut ended = Vec::new();
    for (what, arguments, sign) in [
        ("exec", &["exec", "talker", "--", "sh", "-c", TALK][..], "talk\r\n"),
        ("exec on a terminal", &["exec", "-it", "talker", "--", "sh"], "# "),
    ] {
        let terminal = Terminal::start(visit.command(arguments), 100, 30)?;
        terminal.shows(sign).await.context(what)?;
        ended.push((what, terminal));
    }
    let file = visit.gateway.directory().join("policy/access/access.cedar");
    let new = visit.gateway.directory().join("new.cedar");
    // Renamed into place, as a configuration tool does.
    std::fs::write(&new, BOTH)?;
    std::fs::rename(&new, &file)?;
    for (what, terminal) in &mut ended {
        let status = terminal.ended().await.with_context(|| format!("the end of {what}"))?;
        let shown = terminal.shown();
        let told = shown.contains("policy does not permit this any more");
        ensure!(!status.success() && told, "{what}: {status}: {shown}");
    }
    other.say("after\n")?;
    other.hears("after\n", LIMIT).await?;
    other.end_input();
    let output = other.end(LIMIT).await?;
    ensure!(output.success() && output.stdout == "before\nafter\n", "the other: {output:?}");
    for row in visit.streams("exec", 3).await? {
        let request = visit.shown(&row).await?["stream"]["request"]["command"].take();
        let ending = if request[0] == "cat" { "finished" } else { "grant_ended" };
        ends_as(&visit, &row, ending).await?;
    }
    incomplete(&visit.gateway, "grant_ended").await?;
    pod.delete().await
}

async fn key_withdrawn(scene: &Rc<Scene>) -> Result<()> {
    let cluster = scene.world.cluster().await?;
    let issuer = scene.own_issuer("issuer", HOUR).await?;
    let config = json!({"authentication": {"keys": {"refresh": "10s"}}});
    let options = Options { name: "withdrawn".into(), config, ..Options::default() };
    let gateway = Gateway::start(scene.directory(), &cluster.plane, &[&issuer], &options).await?;
    let token = scene.secret(issuer.token("alice").await?);
    let kubeconfig = gateway.kubeconfig("alice", &token, Some("T-1"))?;
    let (scene, namespace) = (Rc::clone(scene), "outside-key".to_owned());
    let visit = Visit { scene, cluster, gateway, kubeconfig, namespace };
    let pod = talker(&visit.cluster, &visit.namespace).await?;
    let streams = Upgraded::open(&visit).await?;
    issuer.rotate(OldKeys::Drop).await?;
    streams.end_with("the token's issuer withdrew its key").await?;
    recorded(&visit, "token_revoked").await?;
    pod.delete().await
}
