//! What policy and limits say of streams: which command, how much of stdin, how long.

use std::rc::Rc;

use anyhow::{Result, ensure};
use rig::gateway::Options;
use rig::terminal::Terminal;
use serde_json::json;

use super::visit::Visit;
use crate::scene::Scene;

/// `echo` whole, `sha256sum` with the sizes of what it is given, and nothing else.
const COMMANDS: &str = r#"
@id("reads") permit(principal, action in [k8s::Action::"get", k8s::Action::"list"], resource);
@id("echo") permit(principal, action == k8s::Action::"create", resource is k8s::Resource)
when { context has stream && context.stream has program && context.stream.program == "echo"
    && context.stream has container && context.stream.container == "box" };
@id("sums") @stdin("sizes") permit(principal, action == k8s::Action::"create", resource is k8s::Resource)
when { context has stream && context.stream.commandLine == "sha256sum" };
"#;

pub(super) async fn commands(scene: Rc<Scene>) -> Result<()> {
    let visit = Visit::start(&scene, "policy-commands", &Options::access(COMMANDS)).await?;
    let pod = visit.pod("box").await?;
    let output = visit.ok(&["exec", "box", "-c", "box", "--", "echo", "allowed"]).await?;
    ensure!(output.stdout == "allowed\n", "{output:?}");
    for denied in [
        &["exec", "box", "-c", "box", "--", "sh", "-c", "echo sly"][..],
        &["exec", "-it", "box", "--", "sh"],
        &["attach", "box"],
        &["port-forward", "box", ":80"],
    ] {
        let output = visit.run(denied).await?;
        ensure!(!output.success() && output.stderr.contains("orbidden"), "{denied:?}: {output:?}");
    }
    // What was typed is nowhere afterwards: the runner searches for it.
    let typed = scene.secret("correct horse battery staple".to_owned());
    let sums = ["exec", "-i", "box", "--", "sha256sum"];
    let output = visit.with_input(scene.kubectl(), &sums, &typed).await?;
    let sum = "c4bbcb1fbec99d65bf59d85c8cb62ee2db963f0fe106f483d9afa73bd4e39a8a";
    ensure!(output.stdout.starts_with(sum), "{output:?}");
    let rows = visit.streams("exec", 2).await?;
    let shown = visit.shown(&rows[1]).await?;
    ensure!(shown["stream"]["facts"]["stdinMaskedBytes"] == typed.len(), "{}", shown["stream"]);
    let stdin = visit.exported(&rows[1], &["--format", "raw", "--channel", "stdin"]).await?;
    ensure!(stdin.as_bytes() == vec![0; typed.len()], "stdin on record: {stdin:?}");
    let stdout = visit.exported(&rows[1], &["--format", "raw"]).await?;
    ensure!(stdout == output.stdout, "stdout on record: {stdout:?}");
    pod.delete().await
}

/// A stream without data is ended, and its client is told; its pings are no data.
pub(super) async fn limits(scene: Rc<Scene>) -> Result<()> {
    let config = json!({"sessions": {"streamIdle": "2s", "streamLongest": "8s"}});
    let options = Options { config, ..Options::default() };
    let visit = Visit::start(&scene, "policy-limits", &options).await?;
    let pod = visit.pod("box").await?;
    let talk = "while true; do echo talk; sleep 0.3; done";
    for (what, arguments) in [
        ("idle", &["exec", "-i", "box", "--", "cat"][..]),
        ("too long", &["exec", "box", "--", "sh", "-c", talk]),
    ] {
        let mut terminal = Terminal::start(visit.command(arguments), 80, 24)?;
        let status = terminal.ended().await?;
        let shown = terminal.shown();
        ensure!(!status.success() && shown.contains("idle or lasted longer"), "{what}: {shown}");
    }
    for row in visit.streams("exec", 2).await? {
        let shown = visit.shown(&row).await?;
        ensure!(shown["ending"] == "limit_reached", "{shown}");
    }
    pod.delete().await
}

/// The kubelet's own API runs commands too: a proxied request passes only where a policy names proxies.
pub(super) async fn proxies(scene: Rc<Scene>) -> Result<()> {
    let visit = Visit::start(&scene, "policy-proxies", &Options::default()).await?;
    let pod = visit.pod("box").await?;
    let token = scene.token("alice").await?;
    let node = visit.cluster.node();
    for tail in ["exec", "run", "attach", "portForward", "containerLogs"] {
        let target = format!(
            "/api/v1/nodes/{node}/proxy/{tail}/{}/box/box?command=id&output=1",
            visit.namespace
        );
        let opened = rig::websocket::WebSocket::open(
            visit.gateway.endpoint(),
            &target,
            &["v4.channel.k8s.io"],
            Some(&token),
        );
        let refused = opened.await.err().map(|error| error.to_string()).unwrap_or_default();
        ensure!(refused.contains("HTTP/1.1 403"), "{tail}: {refused}");
        ensure!(refused.contains("proxy-must-be-named"), "{tail}: {refused}");
    }
    named(&scene).await?;
    pod.delete().await
}

const PROXIES: &str = r#"
@id("proxies") permit(principal, action, resource is k8s::Resource)
when { resource has subresource && resource.subresource == "proxy" };
"#;

/// Where one names them, they pass, and are recorded as streams.
async fn named(scene: &Rc<Scene>) -> Result<()> {
    let options = Options { name: "named".into(), ..Options::access(PROXIES) };
    let visit = Visit::start(scene, "policy-proxies", &options).await?;
    let token = scene.token("alice").await?;
    let target = format!(
        "/api/v1/nodes/{}/proxy/exec/policy-proxies/box/box?command=id&output=1",
        visit.cluster.node()
    );
    let mut socket = rig::websocket::WebSocket::open(
        visit.gateway.endpoint(),
        &target,
        &["v4.channel.k8s.io"],
        Some(&token),
    )
    .await?;
    let mut said = Vec::new();
    while let Some((_, payload)) = socket.receive().await? {
        said.extend(payload);
    }
    ensure!(String::from_utf8_lossy(&said).contains("uid=0"), "{}", String::from_utf8_lossy(&said));
    drop(socket);
    let rows = crate::scene::search_until(&visit.gateway, &["--resource", "nodes/proxy"], |rows| {
        rows.iter().any(|row| row["status"] == 101 && row["effect"] == "executed")
    })
    .await?;
    ensure!(rows[0]["responseBytes"].as_u64() > Some(0), "{}", rows[0]);
    Ok(())
}
