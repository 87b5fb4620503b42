//! What streams cost that only wait: the gateway's memory, its connections on both sides included.

use std::time::Duration;

use anyhow::{Context as _, Result};
use rig::websocket::WebSocket;

use super::{Ground, echo};
use crate::measure;
use crate::world::Target;

/// What idle execs came to.
pub(crate) struct Idle {
    pub(crate) target: &'static str,
    pub(crate) streams: u64,
    /// Bytes that the proxy's resident memory grew by, for each.
    pub(crate) resident_per_stream: f64,
}

pub(super) async fn run(ground: &Ground<'_>, target: &Target, count: usize) -> Result<Idle> {
    let process = target.process.context("idle streams are held by a proxy")?;
    // What a process allocates once is not the streams'.
    drop(open(ground, target, 0).await?);
    tokio::time::sleep(SETTLE).await;
    let before = measure::resident(process)?;
    let mut sockets = Vec::with_capacity(count);
    while sockets.len() < count {
        let next = sockets.len();
        // A hundred containers' processes at once would only queue: each takes 50 ms of a processor.
        let (one, other) = tokio::join!(open(ground, target, next), open(ground, target, next + 1));
        sockets.extend([one?, other?]);
    }
    sockets.truncate(count);
    tokio::time::sleep(SETTLE).await;
    let after = measure::resident(process)?;
    // They were all there, and still work.
    for (number, socket) in sockets.iter_mut().enumerate() {
        echo::echo(socket).await.with_context(|| format!("stream {number} of {count}"))?;
    }
    Ok(Idle {
        target: target.name,
        streams: count as u64,
        resident_per_stream: after.saturating_sub(before) as f64 / count as f64,
    })
}

/// One that has carried a line, so that its command runs.
async fn open(ground: &Ground<'_>, target: &Target, number: usize) -> Result<WebSocket> {
    // The gateway bounds the streams of a session, and a task makes a session.
    let task = target.segments.is_some().then(|| format!("/tasks/idle-{}", number / PER_SESSION));
    let path = task.unwrap_or_default() + &ground.cat();
    let mut socket = echo::open(ground, target, &path).await?;
    echo::echo(&mut socket).await?;
    Ok(socket)
}

const PER_SESSION: usize = 250;
const SETTLE: Duration = Duration::from_secs(1);
