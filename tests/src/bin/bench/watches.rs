//! Many watches of one object: what an idle one costs, and what an event to all of them costs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use hdrhistogram::Histogram;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use rig::client::{Connection, Protocol, full};
use rig::wait::{Level, until};
use tokio::task::JoinSet;

use crate::cases::collection;
use crate::measure::{self, histogram, microseconds};
use crate::world::{PATCHED_NAMESPACE, Target, WATCHED, World};

pub(crate) const NAME: &str = "watch fan-out";

/// What the watches through one target came to.
pub(crate) struct Watched {
    pub(crate) target: &'static str,
    pub(crate) watches: u64,
    /// Bytes of the proxy's resident memory, its connections included.
    pub(crate) resident_per_watch: Option<f64>,
    pub(crate) events: u64,
    /// From before the patch is sent to the event's arrival.
    pub(crate) latencies: Histogram<u64>,
    pub(crate) cpu: Option<Duration>,
}

pub(crate) async fn run(world: &World, target: &Target, watches: usize) -> Result<Watched> {
    // What a process allocates once is not the watches'.
    target.endpoint.get(&object()).await?.success()?;
    let admin = &world.plane.admin();
    let current = admin.get(&object()).await?.success()?.json()?;
    let version = current["metadata"]["resourceVersion"].as_str().context("a version")?;
    let path = format!(
        "{}?watch=true&resourceVersion={version}&fieldSelector=metadata.name%3D{WATCHED}",
        collection(PATCHED_NAMESPACE),
    );
    let resident = target.process.map(measure::resident).transpose()?;
    let fan = Arc::new(Fan::default());
    let mut readers = open(target, watches, &path, &fan).await?;
    tokio::time::sleep(SETTLE).await;
    let grown = target.process.map(measure::resident).transpose()?.zip(resident);

    let before = target.process.map(measure::cpu).transpose()?;
    let mut patcher = admin.connect(Protocol::Http2).await?;
    let mut expected = 0;
    for patch in &fan.sent {
        patch.set(Instant::now()).expect("set once");
        change(&mut patcher, target.name, expected).await?;
        expected += watches as u64;
        until("the event is with all watches", EVENT_LIMIT, async || {
            if let Some(ended) = readers.try_join_next() {
                ended.context("a reader")??;
            }
            let arrived = fan.arrived.load(Ordering::Relaxed);
            Ok(Level::when(arrived >= expected, || format!("{arrived} of {expected}")))
        })
        .await?;
    }
    tokio::time::sleep(SETTLE).await;
    let after = target.process.map(measure::cpu).transpose()?;
    // Their connections end with them; what that costs falls on nobody's measurement.
    readers.shutdown().await;
    tokio::time::sleep(SETTLE).await;
    let latencies = fan.latencies.lock().expect("no reader panics").clone();
    Ok(Watched {
        target: target.name,
        watches: watches as u64,
        resident_per_watch: grown
            .map(|(after, before)| after.saturating_sub(before) as f64 / watches as f64),
        events: fan.arrived.load(Ordering::Relaxed),
        latencies,
        cpu: after.zip(before).map(|(after, before)| after.saturating_sub(before)),
    })
}

async fn change(connection: &mut Connection, target: &str, nonce: u64) -> Result<()> {
    let patch = format!("{{\"data\":{{\"nonce\":\"{target}-{nonce}\"}}}}");
    let request = Request::patch(object())
        .header("content-type", "application/merge-patch+json")
        .body(full(patch))?;
    connection.call(request).await?.success()?;
    Ok(())
}

/// Opens all, connection beside connection.
async fn open(
    target: &Target,
    watches: usize,
    path: &str,
    fan: &Arc<Fan>,
) -> Result<JoinSet<Result<()>>> {
    let mut connecting = JoinSet::new();
    for first in (0..watches).step_by(STREAMS) {
        let (endpoint, path) = (target.endpoint.clone(), path.to_owned());
        let streams = STREAMS.min(watches - first);
        connecting.spawn(async move {
            let connection = endpoint.connect(Protocol::Http2).await?;
            let mut opened = Vec::new();
            for _ in 0..streams {
                let mut stream = connection.share().context("an HTTP/2 connection is shared")?;
                let response = stream.send(Request::get(&path).body(full(""))?).await?;
                ensure!(response.status().is_success(), "a watch: {}", response.status());
                opened.push((stream, response));
            }
            anyhow::Ok(opened)
        });
    }
    let mut readers = JoinSet::new();
    while let Some(opened) = connecting.join_next().await {
        for (stream, response) in opened.context("open watches")?? {
            readers.spawn(read(stream, response, Arc::clone(fan)));
        }
    }
    Ok(readers)
}

async fn read(stream: Connection, mut response: Response<Incoming>, fan: Arc<Fan>) -> Result<()> {
    let mut events = fan.sent.iter();
    while let Some(frame) = response.body_mut().frame().await {
        let now = Instant::now();
        let Ok(data) = frame.context("a watch broke off")?.into_data() else { continue };
        // One line is one event.
        for _ in data.iter().filter(|&&byte| byte == b'\n') {
            let sent = events.next().and_then(OnceLock::get).context("an event too many")?;
            let late = microseconds(now.saturating_duration_since(*sent));
            fan.latencies.lock().expect("no reader panics").saturating_record(late);
            fan.arrived.fetch_add(1, Ordering::Relaxed);
        }
    }
    // Keeps the connection open until here.
    drop(stream);
    bail!("a watch ended")
}

/// What the readers share.
struct Fan {
    /// When each patch was sent.
    sent: [OnceLock<Instant>; PATCHES],
    arrived: AtomicU64,
    latencies: Mutex<Histogram<u64>>,
}

impl Default for Fan {
    fn default() -> Self {
        Self {
            sent: std::array::from_fn(|_| OnceLock::new()),
            arrived: AtomicU64::new(0),
            latencies: Mutex::new(histogram()),
        }
    }
}

fn object() -> String {
    format!("{}/{WATCHED}", collection(PATCHED_NAMESPACE))
}

const PATCHES: usize = 20;
/// Watches of one connection: as many streams as any server allows.
const STREAMS: usize = 100;
const SETTLE: Duration = Duration::from_millis(700);
const EVENT_LIMIT: Duration = Duration::from_secs(20);
