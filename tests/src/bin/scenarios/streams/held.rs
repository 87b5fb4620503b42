//! What a gateway holds for its streams is let go with them: counted by the kernel, and by the gateway itself.

use std::fs;
use std::path::PathBuf;
use std::rc::Rc;

use anyhow::{Context as _, Result, ensure};
use rig::gateway::{Gateway, Options};
use rig::wait::{Level, until};
use rig::websocket::WebSocket;

use super::visit::{LIMIT, Visit};
use crate::scene::Scene;

const STREAMS: usize = 50;
/// The allocator keeps some of what it had; a leak of one stream's buffers would be more than this.
const GROWTH_KIB_MAX: u64 = 8 << 10;

/// Rounds of streams that their client aborts: each leaves no more than there was before.
pub(super) async fn aborted(scene: Rc<Scene>) -> Result<()> {
    let visit = Visit::start(&scene, "held", &Options::default()).await?;
    let pod = visit.pod("box").await?;
    let target = format!(
        "{}/exec?stdin=1&stdout=1&command=sh&command=-c&command=echo+on%3B+cat",
        pod.path()
    );
    // One command first: what the gateway opens once stays open.
    visit.ok(&["exec", "box", "--", "true"]).await?;
    let before = Held::idle(&visit.gateway, None).await?;
    let mut resident = Vec::new();
    for round in 1..=3 {
        abort(&visit, &target).await?;
        let idle = Held::idle(&visit.gateway, Some(&before)).await;
        idle.with_context(|| format!("after round {round}"))?;
        resident.push(resident_kib(&visit.gateway)?);
    }
    let grown = resident[2].saturating_sub(resident[1]);
    ensure!(grown < GROWTH_KIB_MAX, "resident KiB after each round: {resident:?}");
    let rows = visit.streams("exec", 3 * STREAMS + 1).await?;
    ensure!(rows.len() == 3 * STREAMS + 1, "{} streams on record", rows.len());
    pod.delete().await
}

/// Commands that all run at the same time when their client goes.
async fn abort(visit: &Visit, target: &str) -> Result<()> {
    let token = visit.scene.token("alice").await?;
    let endpoint = visit.gateway.endpoint();
    let mut sockets = Vec::new();
    for _ in 0..STREAMS {
        let protocols = ["v5.channel.k8s.io"];
        let mut socket = WebSocket::open(endpoint, target, &protocols, Some(&token)).await?;
        loop {
            let (_, payload) = socket.receive().await?.context("closed before it ran")?;
            if payload == b"\x01on\n" {
                break;
            }
        }
        sockets.push(socket);
    }
    let open = Held::now(&visit.gateway).await?;
    let all = u64::try_from(STREAMS)?;
    ensure!(open.streams == all && open.clients >= all && open.upstream >= all, "{open:?}");
    ensure!(open.descriptors >= 2 * STREAMS, "{open:?}");
    Ok(())
}

/// What a gateway holds at one moment.
#[derive(Debug)]
struct Held {
    streams: u64,
    clients: u64,
    upstream: u64,
    descriptors: usize,
    threads: usize,
}

impl Held {
    async fn now(gateway: &Gateway) -> Result<Self> {
        let (_, metrics) = gateway.health("/metrics").await?;
        let value = |name: &str| -> Result<u64> {
            let line = metrics.lines().find(|line| line.starts_with(name));
            // A label that nobody has used yet is absent.
            Ok(line.and_then(|line| line.rsplit(' ').next()).unwrap_or("0").parse()?)
        };
        Ok(Self {
            streams: value("decklog_streams_open")?,
            clients: value("decklog_connections_open{role=\"client\"}")?,
            upstream: value("decklog_connections_open{role=\"upstream\"}")?,
            descriptors: fs::read_dir(process(gateway)?.join("fd"))?.count(),
            threads: fs::read_dir(process(gateway)?.join("task"))?.count(),
        })
    }

    /// Once there are no streams and no clients, and no more of anything else than before.
    async fn idle(gateway: &Gateway, before: Option<&Self>) -> Result<Self> {
        until("the gateway has let go of everything", LIMIT, async || {
            let now = Self::now(gateway).await?;
            let idle = now.streams == 0 && now.clients == 0;
            let same = before.is_none_or(|before| {
                now.upstream <= before.upstream
                    && now.descriptors <= before.descriptors
                    && now.threads <= before.threads + BLOCKING_THREADS
            });
            Ok(if idle && same {
                Level::Reached(now)
            } else {
                Level::NotYet(format!("{now:?}, before {before:?}"))
            })
        })
        .await
    }
}

fn resident_kib(gateway: &Gateway) -> Result<u64> {
    let status = fs::read_to_string(process(gateway)?.join("status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let number = line.split_whitespace().next().context("VmRSS without a number")?;
    Ok(number.parse()?)
}

fn process(gateway: &Gateway) -> Result<PathBuf> {
    let id = gateway.id().context("the gateway is not running")?;
    Ok(PathBuf::from(format!("/proc/{id}")))
}

/// Names are looked up on threads that come and go with need, whatever streams there were; a thread for each
/// stream would be fifty.
const BLOCKING_THREADS: usize = 4;
