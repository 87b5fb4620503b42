//! Protocols that no kubectl speaks: older and base64 channels, tokens among subprotocols.

use std::rc::Rc;

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use rig::gateway::Options;
use rig::node::pods::{Pod, manifest};
use rig::websocket::{self, BINARY, CLOSE, TEXT, WebSocket};

use super::visit::Visit;
use crate::scene::Scene;

const TYPED: &[u8] = b"typed\n";

/// Each WebSocket form of exec carries the same bytes, and they are on record decoded.
pub(super) async fn every_channel_protocol(scene: Rc<Scene>) -> Result<()> {
    let visit = Visit::start(&scene, "protocols", &Options::default()).await?;
    let pod = visit.pod("box").await?;
    let token = scene.token("alice").await?;
    let target = format!(
        "{}/exec?stdin=1&stdout=1&stderr=1&container=box&container=other&tty=0\
         &command=sh&command=-c&command=read+line%3B+echo+got+%24line%3B+exit+4",
        pod.path()
    );
    let protocols = [
        "channel.k8s.io",
        "base64.channel.k8s.io",
        "v4.channel.k8s.io",
        "v4.base64.channel.k8s.io",
        "v5.channel.k8s.io",
    ];
    for protocol in protocols {
        let endpoint = visit.gateway.endpoint();
        let socket = WebSocket::open(endpoint, &target, &[protocol], Some(&token)).await?;
        converse(socket, protocol).await.context(protocol)?;
    }
    let rows = visit.streams("exec", protocols.len()).await?;
    for (row, protocol) in rows.iter().zip(protocols) {
        let shown = visit.shown(row).await?;
        ensure!(
            shown["stream"]["facts"]["protocol"] == protocol,
            "{protocol}: {}",
            shown["stream"]
        );
        ensure!(shown["stream"]["request"]["container"] == "box", "{}", shown["stream"]["request"]);
        ensure!(shown["stream"]["facts"]["exitCode"] == 4, "{protocol}: {}", shown["stream"]);
        for (channel, expected) in [("stdin", "typed\n"), ("stdout", "got typed\n")] {
            let raw = visit.exported(row, &["--format", "raw", "--channel", channel]).await?;
            ensure!(raw == expected, "{protocol} {channel}: {raw:?}");
        }
    }
    pod.delete().await
}

async fn converse(mut socket: WebSocket, protocol: &str) -> Result<()> {
    ensure!(socket.protocol == protocol, "the server chose {:?}", socket.protocol);
    let base64 = protocol.contains("base64");
    if base64 {
        let text = format!("0{}", BASE64_STANDARD.encode(TYPED));
        socket.send(TEXT, text.as_bytes()).await?;
    } else {
        // The servers of Kubernetes take each fragment for a message, so nobody sends any.
        socket.send(BINARY, &[&[0], TYPED].concat()).await?;
    }
    let mut stdout = Vec::new();
    while let Some((opcode, payload)) = socket.receive().await? {
        match (opcode, payload.split_first()) {
            (CLOSE, _) => break,
            (TEXT, Some((b'1', text))) if base64 => stdout.extend(BASE64_STANDARD.decode(text)?),
            (BINARY, Some((1, data))) if !base64 => stdout.extend(data),
            _ => {}
        }
    }
    ensure!(stdout == b"got typed\n", "stdout: {:?}", String::from_utf8_lossy(&stdout));
    Ok(())
}

/// port-forward over numbered channels, as clients had it before it was tunnelled SPDY: what goes to the pod
/// comes back, and is on record as a connection.
pub(super) async fn numbered_forward(scene: Rc<Scene>) -> Result<()> {
    let visit = Visit::start(&scene, "numbered", &Options::default()).await?;
    let echo = manifest("echo", &["echod"]);
    let pod = Pod::run(&visit.cluster.plane, &visit.namespace, &echo).await?;
    let token = scene.token("alice").await?;
    let target = format!("{}/portforward?ports={ECHO_PORT}", pod.path());
    let protocols = ["v4.channel.k8s.io", "v4.base64.channel.k8s.io"];
    for protocol in protocols {
        let endpoint = visit.gateway.endpoint();
        let socket = WebSocket::open(endpoint, &target, &[protocol], Some(&token)).await?;
        ensure!(socket.protocol == protocol, "the server chose {:?}", socket.protocol);
        echoes(socket, protocol.contains("base64")).await.context(protocol)?;
    }
    let rows = visit.streams("portforward", protocols.len()).await?;
    ensure!(rows.len() == protocols.len(), "{rows:?}");
    for (row, protocol) in rows.iter().zip(protocols) {
        ensure!(row["account"]["state"] == "complete", "{protocol}: {row}");
        let shown = visit.shown(row).await?;
        let (stream, ending) = (&shown["stream"], &shown["ending"]);
        ensure!(ending == "finished", "{protocol}: {ending}");
        let facts = &stream["facts"];
        ensure!(facts["protocol"] == protocol && facts["undecodable"].is_null(), "{facts}");
        let listed = stream["connections"].as_array().context("no connections in show")?;
        ensure!(listed.len() == 1, "{protocol}: {listed:?}");
        let connection = &listed[0];
        ensure!(
            connection["port"] == ECHO_PORT
                && connection["sentBytes"] == TYPED.len()
                && connection["receivedBytes"] == TYPED.len(),
            "{protocol}: {connection}"
        );
    }
    pod.delete().await
}

/// Where `echod` listens.
const ECHO_PORT: u16 = 7000;

/// Says something on the first port's channel; the server begins that with the port's number.
async fn echoes(mut socket: WebSocket, base64: bool) -> Result<()> {
    if base64 {
        let text = format!("0{}", BASE64_STANDARD.encode(TYPED));
        socket.send(TEXT, text.as_bytes()).await?;
    } else {
        socket.send(BINARY, &[&[0], TYPED].concat()).await?;
    }
    let expected = [&ECHO_PORT.to_le_bytes(), TYPED].concat();
    let mut heard = Vec::new();
    while heard.len() < expected.len() {
        let (opcode, payload) = socket.receive().await?.context("closed before the echo")?;
        match (opcode, payload.split_first()) {
            (TEXT, Some((b'0', text))) if base64 => heard.extend(BASE64_STANDARD.decode(text)?),
            (BINARY, Some((0, data))) if !base64 => heard.extend(data),
            (CLOSE, _) => bail!("closed after {heard:?}"),
            _ => {}
        }
    }
    ensure!(heard == expected, "heard {heard:?}");
    socket.send(CLOSE, &NORMAL_CLOSURE.to_be_bytes()).await
}

/// RFC 6455 §7.4.1.
const NORMAL_CLOSURE: u16 = 1000;

/// Browsers put the token among the subprotocols: it authenticates, goes no further, and is on no record.
pub(super) async fn token_among_subprotocols(scene: Rc<Scene>) -> Result<()> {
    let visit = Visit::start(&scene, "subprotocol", &Options::default()).await?;
    let pod = visit.pod("box").await?;
    let token = scene.token("alice").await?;
    let encoded = BASE64_URL_SAFE_NO_PAD.encode(&token);
    let carrier = scene.secret(format!("base64url.bearer.authorization.k8s.io.{encoded}"));
    let target = format!("{}/exec?stdout=1&command=id", pod.path());
    let endpoint = visit.gateway.endpoint();
    let offered = [carrier.as_str(), "v5.channel.k8s.io"];
    let mut socket = WebSocket::open(endpoint, &target, &offered, None).await?;
    ensure!(socket.protocol == "v5.channel.k8s.io", "the server chose {:?}", socket.protocol);
    let mut said = Vec::new();
    while let Some((opcode, payload)) = socket.receive().await? {
        if opcode == websocket::CLOSE {
            break;
        }
        said.extend(payload);
    }
    drop(socket);
    ensure!(String::from_utf8_lossy(&said).contains("uid=0"), "{}", String::from_utf8_lossy(&said));
    for (offered, bearer, why) in [
        (vec![carrier.as_str()], None, "nothing for the server to choose"),
        (vec![carrier.as_str(), "v5.channel.k8s.io"], Some(token.as_str()), "two tokens"),
        (vec![carrier.as_str(), carrier.as_str(), "v5.channel.k8s.io"], None, "two carriers"),
    ] {
        let refused = WebSocket::open(endpoint, &target, &offered, bearer).await;
        let error = refused.err().with_context(|| format!("accepted: {why}"))?.to_string();
        ensure!(error.contains("HTTP/1.1 401"), "{why}: {error}");
    }
    let rows = visit.streams("exec", 1).await?;
    ensure!(rows[0]["username"] == "alice", "{}", rows[0]);
    pod.delete().await
}
