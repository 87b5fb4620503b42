//! How long a typed line takes to come back: to `cat` in the pod, one at a time.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use hdrhistogram::Histogram;
use rig::websocket::{BINARY, WebSocket};

use super::Ground;
use crate::measure::{histogram, microseconds};
use crate::world::Target;

/// `count` echoes through one exec.
pub(super) async fn run(
    ground: &Ground<'_>,
    target: &Target,
    count: u32,
) -> Result<Histogram<u64>> {
    let mut socket = open(ground, target, &ground.cat()).await?;
    // The first come while the command still starts.
    for _ in 0..FIRST {
        echo(&mut socket).await?;
    }
    let mut latencies = histogram();
    for _ in 0..count {
        let sent = Instant::now();
        echo(&mut socket).await?;
        latencies.saturating_record(microseconds(sent.elapsed()));
    }
    Ok(latencies)
}

/// An exec in the newest protocol.
pub(super) async fn open(ground: &Ground<'_>, target: &Target, path: &str) -> Result<WebSocket> {
    WebSocket::open(&target.endpoint, path, &["v5.channel.k8s.io"], Some(ground.token)).await
}

/// Sends a line and waits until all of it has come back.
pub(super) async fn echo(socket: &mut WebSocket) -> Result<()> {
    socket.send(BINARY, &[&[STDIN], LINE].concat()).await?;
    let mut back = Vec::new();
    while back.len() < LINE.len() {
        let (_, payload) = socket.receive().await?.context("closed before the echo")?;
        match payload.split_first() {
            Some((&STDOUT, data)) => back.extend(data),
            // A channel may be opened by an empty message.
            Some((_, [])) | None => {}
            Some((channel, data)) => {
                anyhow::bail!("channel {channel}: {}", String::from_utf8_lossy(data));
            }
        }
    }
    ensure!(back == LINE, "the echo is {:?}", String::from_utf8_lossy(&back));
    Ok(())
}

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const LINE: &[u8] = b"a typed line\n";
const FIRST: u32 = 20;
