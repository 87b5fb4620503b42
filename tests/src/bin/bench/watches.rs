//! Many watches of one object: what an idle one costs, and what an event to all of them costs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use hdrhistogram::Histogram;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use rig::client::{Connection, Endpoint, Protocol, full};
use rig::wait::{Level, until};
use tokio::task::JoinSet;

use crate::cases::collection;
use crate::measure::{self, histogram, microseconds};
use crate::world::{PATCHED_NAMESPACE, Target, WATCHED};

/// How the watches share connections.
#[derive(Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    /// Also the name of the directory of its proxies.
    pub(crate) slug: &'static str,
    protocol: Protocol,
    streams: usize,
}

pub(crate) const KINDS: [Kind; 2] = [
    // As many streams as any server allows.
    Kind { name: "watch h2 100/conn", slug: "watch-h2", protocol: Protocol::Http2, streams: 100 },
    Kind { name: "watch h1", slug: "watch-h1", protocol: Protocol::Http1, streams: 1 },
];

/// What the watches through one target came to.
pub(crate) struct Watched {
    pub(crate) case: &'static str,
    pub(crate) target: &'static str,
    pub(crate) watches: u64,
    /// Bytes of the proxy's resident memory, its connections included.
    pub(crate) resident_per_watch: Option<f64>,
    pub(crate) events: u64,
    /// From before the patch is sent to the event's arrival.
    pub(crate) latencies: Histogram<u64>,
    /// From before the patch is sent until all have the event.
    pub(crate) last: Histogram<u64>,
    pub(crate) cpu: Option<Duration>,
}

pub(crate) async fn run(
    admin: &Endpoint,
    target: &Target,
    kind: Kind,
    watches: usize,
) -> Result<Watched> {
    // What a process allocates once is not the watches'.
    target.endpoint.get(&object()).await?.success()?;
    let current = admin.get(&object()).await?.success()?.json()?;
    let version = current["metadata"]["resourceVersion"].as_str().context("a version")?;
    let path = format!(
        "{}?watch=true&resourceVersion={version}&fieldSelector=metadata.name%3D{WATCHED}",
        collection(PATCHED_NAMESPACE),
    );
    let resident = target.process.map(measure::resident).transpose()?;
    let fan = Arc::new(Fan::default());
    let mut readers = open(target, kind, watches, &path, &fan).await?;
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
    let mut last = histogram();
    for late in &fan.last {
        last.saturating_record(late.load(Ordering::Relaxed));
    }
    Ok(Watched {
        case: kind.name,
        target: target.name,
        watches: watches as u64,
        resident_per_watch: grown
            .map(|(after, before)| after.saturating_sub(before) as f64 / watches as f64),
        events: fan.arrived.load(Ordering::Relaxed),
        latencies,
        last,
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

/// Opens all, some connections at a time.
async fn open(
    target: &Target,
    kind: Kind,
    watches: usize,
    path: &str,
    fan: &Arc<Fan>,
) -> Result<JoinSet<Result<()>>> {
    let mut connecting = JoinSet::new();
    let mut readers = JoinSet::new();
    for first in (0..watches).step_by(kind.streams) {
        if connecting.len() >= CONNECTING_MAX {
            let opened = connecting.join_next().await.expect("there are some");
            start(&mut readers, opened.context("open watches")??, fan);
        }
        let streams = kind.streams.min(watches - first);
        connecting.spawn(connect(target.endpoint.clone(), kind.protocol, streams, path.to_owned()));
    }
    while let Some(opened) = connecting.join_next().await {
        start(&mut readers, opened.context("open watches")??, fan);
    }
    Ok(readers)
}

type Opened = Vec<(Arc<Connection>, Response<Incoming>)>;

async fn connect(
    endpoint: Endpoint,
    protocol: Protocol,
    streams: usize,
    path: String,
) -> Result<Opened> {
    let mut connection = endpoint.connect(protocol).await?;
    let mut responses = Vec::new();
    for _ in 0..streams {
        let response = connection.send(Request::get(&path).body(full(""))?).await?;
        ensure!(response.status().is_success(), "a watch: {}", response.status());
        responses.push(response);
    }
    let connection = Arc::new(connection);
    Ok(responses.into_iter().map(|response| (Arc::clone(&connection), response)).collect())
}

fn start(readers: &mut JoinSet<Result<()>>, opened: Opened, fan: &Arc<Fan>) {
    for (connection, response) in opened {
        readers.spawn(read(connection, response, Arc::clone(fan)));
    }
}

async fn read(
    connection: Arc<Connection>,
    mut response: Response<Incoming>,
    fan: Arc<Fan>,
) -> Result<()> {
    let mut events = fan.sent.iter().zip(&fan.last);
    while let Some(frame) = response.body_mut().frame().await {
        let now = Instant::now();
        let Ok(data) = frame.context("a watch broke off")?.into_data() else { continue };
        // One line is one event.
        for _ in data.iter().filter(|&&byte| byte == b'\n') {
            let (sent, last) = events.next().context("an event too many")?;
            let sent = sent.get().context("an event before its patch")?;
            let late = microseconds(now.saturating_duration_since(*sent));
            last.fetch_max(late, Ordering::Relaxed);
            fan.latencies.lock().expect("no reader panics").saturating_record(late);
            fan.arrived.fetch_add(1, Ordering::Relaxed);
        }
    }
    // Keeps the connection open until here.
    drop(connection);
    bail!("a watch ended")
}

/// What the readers share.
struct Fan {
    /// When each patch was sent.
    sent: [OnceLock<Instant>; PATCHES],
    /// How long each took to the last watch, in microseconds.
    last: [AtomicU64; PATCHES],
    arrived: AtomicU64,
    latencies: Mutex<Histogram<u64>>,
}

impl Default for Fan {
    fn default() -> Self {
        Self {
            sent: std::array::from_fn(|_| OnceLock::new()),
            last: std::array::from_fn(|_| AtomicU64::new(0)),
            arrived: AtomicU64::new(0),
            latencies: Mutex::new(histogram()),
        }
    }
}

fn object() -> String {
    format!("{}/{WATCHED}", collection(PATCHED_NAMESPACE))
}

const PATCHES: usize = 20;
/// A thousand handshakes at once would only queue.
const CONNECTING_MAX: usize = 16;
const SETTLE: Duration = Duration::from_millis(700);
const EVENT_LIMIT: Duration = Duration::from_secs(20);
