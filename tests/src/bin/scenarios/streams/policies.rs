//! What policy and limits say of streams: which command, how much of stdin, how long.

use std::rc::Rc;

use anyhow::{Result, ensure};
use rig::gateway::Options;
use rig::node::pods::{Pod, manifest};
use rig::terminal::Terminal;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::visit::{LIMIT, Visit};
use crate::scene::{Scene, search_until};

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
        ensure!(
            !output.success() && output.stderr.contains("no policy permits it"),
            "{denied:?}: {output:?}"
        );
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
    ensure!(stdin.is_empty(), "stdin on record: {stdin:?}");
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
    named(&scene).await
}

const PROXIES: &str = r#"
@id("proxies") permit(principal, action, resource is k8s::Resource)
when { resource has subresource && resource.subresource == "proxy" };
"#;

/// Answers an upgrade to a protocol of its own, and then says everything back.
const ECHO: &str = "while read -r line; do case \"$line\" in ?) break;; esac; done
printf 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo/1\r\n\r\n'; cat";

/// Where one names them, they pass, whatever is spoken behind them, and are recorded as streams.
async fn named(scene: &Rc<Scene>) -> Result<()> {
    let options = Options { name: "named".into(), ..Options::access(PROXIES) };
    let visit = Visit::start(scene, "policy-proxies", &options).await?;
    let server = ["nc", "-ll", "-p", "8080", "-e", "sh", "-c", ECHO];
    let pod = Pod::run(&visit.cluster.plane, &visit.namespace, &manifest("echo", &server)).await?;
    let target = format!("{}:8080/proxy/", pod.path());
    let token = scene.token("alice").await?;
    let mut stream = visit.gateway.endpoint().tls(&[b"http/1.1"]).await?;
    let request = format!(
        "GET {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
         Connection: Upgrade\r\nUpgrade: echo/1\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let got = timeout(LIMIT, stream.read_buf(&mut answer)).await??;
        ensure!(got > 0, "closed: {}", String::from_utf8_lossy(&answer));
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    ensure!(answer.starts_with("HTTP/1.1 101") && answer.contains("echo/1"), "{answer}");
    let spoken = b"neither HTTP nor anything else";
    stream.write_all(spoken).await?;
    let mut echoed = vec![0; spoken.len()];
    timeout(LIMIT, stream.read_exact(&mut echoed)).await??;
    ensure!(echoed == spoken, "{:?}", String::from_utf8_lossy(&echoed));
    drop(stream);
    let rows = search_until(&visit.gateway, &["--resource", "pods/proxy"], |rows| {
        rows.iter().any(|row| row["status"] == 101 && row["effect"] == "executed")
    })
    .await?;
    let bytes = spoken.len();
    ensure!(rows[0]["requestBytes"] == bytes && rows[0]["responseBytes"] == bytes, "{}", rows[0]);
    pod.delete().await
}
