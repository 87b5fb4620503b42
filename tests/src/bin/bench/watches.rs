//! Many watches of one object: what an idle one costs, and what an event to all of them costs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use hdrhistogram::Histogram;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use rig::client::{Connection, Endpoint, Protocol, full, json_request};
use rig::wait::{Level, until};
use serde_json::json;
use tokio::task::JoinSet;

use crate::cases::collection;
use crate::measure::{self, histogram, microseconds};
use crate::turns;
use crate::world::{PATCHED_NAMESPACE, Side, Target, config_map};

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

/// Opens the watches of each target, of an object of its own, and changes the objects in turns: what the machine does
/// meanwhile falls on all targets alike.
pub(crate) async fn run(
    admin: &Endpoint,
    side: &Side,
    kind: Kind,
    watches: usize,
    rounds: u32,
) -> Result<Vec<Watched>> {
    let mut all = Vec::new();
    for target in &side.targets {
        eprintln!("bench: {}, {watches} watches, {}", kind.name, target.name);
        let watching = Watching::open(admin, target, kind, watches, rounds).await;
        all.push(watching.with_context(|| format!("watches, {}", target.name))?);
    }
    for round in 1..=rounds {
        eprintln!("bench: {}, round {round} of {rounds}", kind.name);
        for turn in turns(round, all.len()) {
            let watching = &mut all[turn];
            let name = watching.target.name;
            watching.round().await.with_context(|| format!("watches, {name}"))?;
        }
    }
    let mut watched = Vec::new();
    for watching in all {
        watched.push(watching.end().await);
    }
    Ok(watched)
}

/// The open watches of one target.
struct Watching<'a> {
    target: &'a Target,
    kind: Kind,
    watches: u64,
    /// The path of what they watch.
    object: String,
    patcher: Connection,
    resident: Option<u64>,
    fan: Arc<Fan>,
    /// The changes that were made.
    changes: usize,
    cpu: Option<Duration>,
    readers: JoinSet<Result<()>>,
}

impl<'a> Watching<'a> {
    async fn open(
        admin: &Endpoint,
        target: &'a Target,
        kind: Kind,
        watches: usize,
        rounds: u32,
    ) -> Result<Self> {
        let mut patcher = admin.connect(Protocol::Http2).await?;
        let name = format!("{}-{}", kind.slug, target.name);
        let objects = collection(PATCHED_NAMESPACE);
        let made = config_map(&name, &json!({"nonce": ""}));
        let made = patcher.call(json_request("POST", &objects, &made)?).await?.success()?.json()?;
        let version = made["metadata"]["resourceVersion"].as_str().context("a version")?;
        // What a process allocates once is not the watches'.
        let object = format!("{objects}/{name}");
        target.endpoint.get(&object).await?.success()?;
        let resident = || target.process.map(measure::resident).transpose();
        let before = resident()?;
        let path = format!(
            "{objects}?watch=true&resourceVersion={version}&fieldSelector=metadata.name%3D{name}",
        );
        let fan = Arc::new(Fan::new(rounds as usize * CHANGES));
        let readers = open(target, kind, watches, &path, &fan).await?;
        tokio::time::sleep(SETTLE).await;
        let grown = resident()?.zip(before).map(|(after, before)| after.saturating_sub(before));
        Ok(Self {
            target,
            kind,
            watches: watches as u64,
            object,
            patcher,
            resident: grown,
            fan,
            changes: 0,
            cpu: target.process.map(|_| Duration::ZERO),
            readers,
        })
    }

    /// Makes some changes, each when the last is with all watches.
    async fn round(&mut self) -> Result<()> {
        let before = self.target.process.map(measure::cpu).transpose()?;
        for _ in 0..CHANGES {
            self.fan.sent[self.changes].set(Instant::now()).expect("set once");
            change(&mut self.patcher, &self.object, self.changes).await?;
            self.changes += 1;
            let expected = self.changes as u64 * self.watches;
            until("the event is with all watches", EVENT_LIMIT, async || {
                if let Some(ended) = self.readers.try_join_next() {
                    ended.context("a reader")??;
                }
                let arrived = self.fan.arrived.load(Ordering::Relaxed);
                Ok(Level::when(arrived >= expected, || format!("{arrived} of {expected}")))
            })
            .await?;
        }
        tokio::time::sleep(WRITTEN).await;
        let after = self.target.process.map(measure::cpu).transpose()?;
        if let (Some(sum), Some(before), Some(after)) = (&mut self.cpu, before, after) {
            *sum += after.saturating_sub(before);
        }
        Ok(())
    }

    async fn end(mut self) -> Watched {
        // Their connections end with them.
        self.readers.shutdown().await;
        let latencies = self.fan.latencies.lock().expect("no reader panics").clone();
        let mut last = histogram();
        for late in &self.fan.last {
            last.saturating_record(late.load(Ordering::Relaxed));
        }
        Watched {
            case: self.kind.name,
            target: self.target.name,
            watches: self.watches,
            resident_per_watch: self.resident.map(|bytes| bytes as f64 / self.watches as f64),
            events: self.fan.arrived.load(Ordering::Relaxed),
            latencies,
            last,
            cpu: self.cpu,
        }
    }
}

async fn change(connection: &mut Connection, object: &str, nonce: usize) -> Result<()> {
    let patch = format!("{{\"data\":{{\"nonce\":\"{nonce}\"}}}}");
    let request = Request::patch(object)
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
    sent: Vec<OnceLock<Instant>>,
    /// How long each took to the last watch, in microseconds.
    last: Vec<AtomicU64>,
    arrived: AtomicU64,
    latencies: Mutex<Histogram<u64>>,
}

impl Fan {
    fn new(changes: usize) -> Self {
        Self {
            sent: (0..changes).map(|_| OnceLock::new()).collect(),
            last: (0..changes).map(|_| AtomicU64::new(0)).collect(),
            arrived: AtomicU64::new(0),
            latencies: Mutex::new(histogram()),
        }
    }
}

/// In each round.
const CHANGES: usize = 10;
/// A thousand handshakes at once would only queue.
const CONNECTING_MAX: usize = 16;
/// Records are written after 20 ms and durable after 200 ms: that belongs to the events.
const WRITTEN: Duration = Duration::from_millis(300);
const SETTLE: Duration = Duration::from_millis(700);
const EVENT_LIMIT: Duration = Duration::from_secs(20);
