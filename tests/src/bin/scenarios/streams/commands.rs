//! What one kubectl invocation does in several requests is one command: debug, run, the fallback from
//! WebSocket to SPDY. And logs and attach, which last.

use std::collections::BTreeSet;
use std::rc::Rc;

use anyhow::{Context as _, Result, ensure};
use rig::controlplane;
use rig::dialogue::Dialogue;
use rig::gateway::Options;
use rig::kubectl::succeeded;
use rig::node::images::BOX;
use rig::terminal::Terminal;
use serde_json::Value;

use super::Cluster;
use super::visit::{LIMIT, Visit};
use crate::scene::{Scene, search_until};

/// The rows of the command of this name, which must be one.
async fn command(visit: &Visit, name: &str, last: &str) -> Result<Vec<Value>> {
    let rows = search_until(&visit.gateway, &["--command", name], |rows| {
        rows.iter().any(|row| row["subresource"] == last && row["status"] == 101)
    })
    .await?;
    let ids: BTreeSet<_> = rows.iter().map(|row| row["command"].to_string()).collect();
    ensure!(ids.len() == 1, "{name} is {} commands: {rows:?}", ids.len());
    Ok(rows)
}

/// An ephemeral container is added by PATCH, and attached to: policy and record see both, as one command.
pub(super) async fn debug(scene: Rc<Scene>) -> Result<()> {
    let visit = Visit::start(&scene, "debug", &Options::default()).await?;
    let pod = visit.pod("box").await?;
    let image = ["--image", BOX, "--image-pull-policy=Never", "--target=box"];
    let arguments = [&["debug", "box", "-i", "--quiet"], &image[..], &["--", "sh"]].concat();
    let mut debug = Dialogue::start(visit.command(&arguments))?;
    debug.say("echo $((6 * 7))\n")?;
    debug.hears("42\n", LIMIT).await?;
    debug.say("exit\n")?;
    succeeded(debug.end(LIMIT).await?)?;
    let rows = command(&visit, "kubectl debug", "attach").await?;
    let patched = rows.iter().any(|row| {
        row["subresource"] == "ephemeralcontainers"
            && row["verb"] == "patch"
            && row["effect"] == "modified"
    });
    ensure!(patched, "no patch of ephemeralcontainers in {rows:?}");
    pod.delete().await
}

/// `run -it`: created, waited for, attached to with a terminal, deleted.
pub(super) async fn run(scene: Rc<Scene>) -> Result<()> {
    let visit = Visit::start(&scene, "run", &Options::default()).await?;
    visit.cluster.plane.namespace("run").await?;
    visit.pod("first").await?.delete().await?;
    let arguments = [
        "run",
        "fleeting",
        "-it",
        "--rm",
        "--restart=Never",
        "--image",
        BOX,
        "--image-pull-policy=Never",
        "--command",
        "--",
        "sh",
    ];
    let mut terminal = Terminal::start(visit.command(&arguments), 80, 24)?;
    // The prompt may have passed before it was attached.
    terminal.shows("If you don't see a command prompt").await?;
    terminal.types("\recho $((6 * 7))\r")?;
    terminal.shows("\n42").await?;
    terminal.types("exit\r")?;
    let status = terminal.ended().await?;
    ensure!(status.success(), "{status}: {}", terminal.shown());
    let rows = command(&visit, "kubectl run", "attach").await?;
    for (verb, effect) in [("create", "created"), ("delete", "deleted")] {
        let found = rows.iter().any(|row| row["verb"] == verb && row["effect"] == effect);
        ensure!(found, "no {verb} in {rows:?}");
    }
    let attach = rows.iter().find(|row| row["status"] == 101).context("no attach")?;
    let text = visit.exported(attach, &["--format", "text"]).await?;
    ensure!(text.contains("42"), "attach as text: {text:?}");
    Ok(())
}

/// A log that is followed is kept with the time of each piece, and ends with its container.
pub(super) async fn logs(scene: Rc<Scene>) -> Result<()> {
    let visit = Visit::start(&scene, "logs", &Options::default()).await?;
    let script = "for i in 1 2 3; do echo line $i; sleep 0.5; done";
    let manifest = rig::node::pods::manifest("speaker", &["sh", "-c", script]);
    let pod = rig::node::pods::Pod::run(&visit.cluster.plane, &visit.namespace, &manifest).await?;
    let output = visit.ok(&["logs", "-f", "speaker"]).await?;
    ensure!(output.stdout == "line 1\nline 2\nline 3\n", "{output:?}");
    let rows = search_until(&visit.gateway, &["--resource", "pods/log"], |rows| {
        rows.iter().any(|row| !row["status"].is_null())
    })
    .await?;
    let text = visit.exported(&rows[0], &["--format", "text"]).await?;
    ensure!(text == output.stdout, "the log as exported: {text:?}");
    pod.delete().await
}

/// A cluster that does not speak kubectl's WebSocket: kubectl asks twice, and that is one command.
pub(super) async fn fallback(scene: Rc<Scene>) -> Result<()> {
    let options = controlplane::Options {
        feature_gates: vec![
            ("TranslateStreamCloseWebsocketRequests", false),
            ("ExtendWebSocketsToKubelet", false),
        ],
        ..controlplane::Options::default()
    };
    let cluster = Rc::new(Cluster::start(&scene.world.tools, scene.directory(), options).await?);
    let mut visit = Visit::at(&scene, cluster, "fallback", &Options::default()).await?;
    visit.pod("box").await?;
    let token = scene.token("alice").await?;
    for kubectl in scene.world.versions.found.iter().filter(|kubectl| kubectl.minor() >= 30) {
        let task = format!("V{}", kubectl.minor());
        visit.kubeconfig = visit.gateway.kubeconfig(&task, &token, Some(&task))?;
        let arguments = ["exec", "-i", "box", "--", "cat"];
        let output = succeeded(visit.with_input(kubectl, &arguments, "all the same\n").await?)?;
        ensure!(output.stdout == "all the same\n", "kubectl {}: {output:?}", kubectl.version());
        let asked = ["--resource", "pods/exec", "--task", &task];
        let rows = search_until(&visit.gateway, &asked, |rows| {
            rows.iter().any(|row| row["status"] == 101)
        })
        .await?;
        let ids: BTreeSet<_> = rows.iter().map(|row| row["command"].to_string()).collect();
        ensure!(rows.len() == 2 && ids.len() == 1, "kubectl {}: {rows:?}", kubectl.version());
        ensure!(rows[0]["status"].as_u64() >= Some(400), "{}", rows[0]);
        let facts = visit.shown(&rows[1]).await?["stream"]["facts"].take();
        ensure!(facts["transport"] == "spdy/3.1", "{facts}");
    }
    Ok(())
}
