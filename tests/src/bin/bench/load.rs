//! A slice of load: workers that ask again as soon as they are answered.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use hdrhistogram::Histogram;
use rig::client::{Connection, Protocol};
use tokio::task::JoinSet;

use crate::cases::Case;
use crate::measure::{self, histogram, microseconds};
use crate::world::Target;

/// What one slice came to.
pub(crate) struct Slice {
    pub(crate) latencies: Histogram<u64>,
    pub(crate) elapsed: Duration,
    /// Of the proxy; none for direct access.
    pub(crate) cpu: Option<Duration>,
    /// Of the API server: a proxy may make it work more, or less.
    pub(crate) api_cpu: Duration,
    /// What the store grew by; none without one.
    pub(crate) stored: Option<u64>,
}

pub(crate) async fn run(
    target: &Target,
    api_server: u32,
    case: &Arc<Case>,
    length: Duration,
    round: u32,
) -> Result<Slice> {
    let mut connections = connections(target, case).await?;
    // Nonces of two slices never meet: a patch that changes nothing is not written.
    let first = u64::from(round) << 44 | u64::from(target.process.unwrap_or(0)) << 20;
    for (worker, connection) in connections.iter_mut().enumerate() {
        connection.call(case.request(worker, first)?).await?.success()?;
    }
    let before = Reading::take(target, api_server)?;
    let started = Instant::now();
    let deadline = started + length;
    let mut workers = JoinSet::new();
    for (worker, connection) in connections.into_iter().enumerate() {
        workers.spawn(ask(connection, Arc::clone(case), worker, first, deadline));
    }
    let mut latencies = histogram();
    while let Some(done) = workers.join_next().await {
        latencies.add(done.context("a worker")??)?;
    }
    let elapsed = started.elapsed();
    // What is still to be written belongs to these requests.
    tokio::time::sleep(SETTLE).await;
    let after = Reading::take(target, api_server)?;
    Ok(Slice {
        latencies,
        elapsed,
        cpu: after.cpu.zip(before.cpu).map(|(after, before)| after.saturating_sub(before)),
        api_cpu: after.api_cpu.saturating_sub(before.api_cpu),
        stored: after.stored.zip(before.stored).map(|(after, before)| after.saturating_sub(before)),
    })
}

/// What the processes have used, and the store has taken, so far.
pub(crate) struct Reading {
    pub(crate) cpu: Option<Duration>,
    api_cpu: Duration,
    pub(crate) stored: Option<u64>,
}

impl Reading {
    pub(crate) fn take(target: &Target, api_server: u32) -> Result<Self> {
        Ok(Self {
            cpu: target.process.map(measure::cpu).transpose()?,
            api_cpu: measure::cpu(api_server)?,
            stored: target.segments.as_deref().map(measure::bytes_in).transpose()?,
        })
    }
}

async fn connections(target: &Target, case: &Case) -> Result<Vec<Connection>> {
    let mut all: Vec<Connection> = Vec::new();
    for worker in 0..case.concurrency {
        let connection = match case.protocol {
            Protocol::Http2 if worker >= CONNECTIONS_MAX => {
                all[worker % CONNECTIONS_MAX].share().context("an HTTP/2 connection is shared")?
            }
            protocol => target.endpoint.connect(protocol).await?,
        };
        all.push(connection);
    }
    Ok(all)
}

async fn ask(
    mut connection: Connection,
    case: Arc<Case>,
    worker: usize,
    first: u64,
    deadline: Instant,
) -> Result<Histogram<u64>> {
    let mut latencies = histogram();
    for nonce in first + 1.. {
        let request = case.request(worker, nonce)?;
        let started = Instant::now();
        if started >= deadline {
            break;
        }
        connection.call(request).await?.success()?;
        latencies.saturating_record(microseconds(started.elapsed()));
    }
    // Kept until here: the end of a connection is no part of the latency.
    drop(connection);
    Ok(latencies)
}

const CONNECTIONS_MAX: usize = 8;
/// The gateway writes what it holds within 200 ms.
const SETTLE: Duration = Duration::from_millis(250);
