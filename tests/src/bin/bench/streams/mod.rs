//! Streams into a pod on a real node: bytes through kubectl; echoes, and streams that only wait, through
//! a WebSocket.

mod bulk;
mod echo;
mod idle;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use hdrhistogram::Histogram;
use rig::kubectl::Kubectl;
use rig::node::Node;
use rig::node::pods::{Pod, manifest};

pub(crate) use self::idle::Idle;
use crate::load::Reading;
use crate::measure::histogram;
use crate::turns;
use crate::world::{GATEWAY, PATCHED_NAMESPACE, Side, Target, World};

/// What is done with a stream.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `kubectl exec box -- cat FILE`.
    Down,
    /// `kubectl exec -i box -- sh -c 'cat >/dev/null; :' < FILE`.
    Up,
    /// A line at a time to `cat`, and back.
    Echo,
    /// Many of `cat` at once, with nothing to do.
    Idle,
}

/// A case and its name.
pub(crate) type Case = (&'static str, Kind);

pub(crate) const CASES: [Case; 4] = [
    ("exec down", Kind::Down),
    ("exec up", Kind::Up),
    ("exec echo", Kind::Echo),
    ("exec idle", Kind::Idle),
];

/// How much of it.
#[derive(Clone, Copy)]
pub(crate) struct Amount {
    pub(crate) rounds: u32,
    /// That go one way in one transfer.
    pub(crate) bytes: u64,
    /// Messages of one round.
    pub(crate) echoes: u32,
    /// Idle streams.
    pub(crate) idle: usize,
}

/// All rounds of one case through one target.
pub(crate) struct Carried {
    pub(crate) case: Case,
    pub(crate) target: &'static str,
    pub(crate) streams: u64,
    pub(crate) bytes: u64,
    pub(crate) elapsed: Duration,
    /// Of each echo.
    pub(crate) latencies: Histogram<u64>,
    /// Of the proxy; none for direct access.
    pub(crate) cpu: Option<Duration>,
    /// What the store grew by; none without one.
    pub(crate) stored: Option<u64>,
}

/// What the streams of this run came to.
pub(crate) struct Streams {
    /// By case, and in each direct access first.
    pub(crate) carried: Vec<Vec<Carried>>,
    /// Through each proxy.
    pub(crate) idle: Vec<Idle>,
    /// How many of them must be on record.
    pub(crate) recorded: u64,
}

/// Measures `cases` in interleaved rounds; the idle ones at the end, since their memory stays.
pub(crate) async fn run(
    world: &World,
    side: &Side,
    cases: &[Case],
    amount: Amount,
) -> Result<Streams> {
    let ground = Ground::prepare(world, side, amount.bytes).await?;
    let api_server = world.plane.api_server_id().context("the API server runs")?;
    let targets = ground.targets();
    let rounds = cases.iter().filter(|(_, kind)| *kind != Kind::Idle);
    let new = |case: &Case| targets.iter().map(|target| Carried::new(*case, target)).collect();
    let mut carried: Vec<Vec<Carried>> = rounds.map(new).collect();
    for round in 1..=amount.rounds {
        eprintln!("bench: streams, round {round} of {}", amount.rounds);
        for case in &mut carried {
            for turn in turns(round, targets.len()) {
                let (target, carried) = (&targets[turn], &mut case[turn]);
                let before = Reading::take(target, api_server)?;
                let done = ground.once(carried, turn, amount.echoes).await;
                done.with_context(|| format!("{}, {}", carried.case.0, target.name))?;
                // What is still to be written belongs to this stream.
                tokio::time::sleep(SETTLE).await;
                carried.count(&before, &Reading::take(target, api_server)?);
            }
        }
    }
    let own = |carried: &&Carried| carried.target == GATEWAY;
    let mut recorded = carried.iter().flatten().filter(own).map(|carried| carried.streams).sum();
    let mut idle = Vec::new();
    if cases.iter().any(|(_, kind)| *kind == Kind::Idle) {
        eprintln!("bench: {} idle streams", amount.idle);
        for target in targets.iter().filter(|target| target.process.is_some()) {
            idle.push(idle::run(&ground, target, amount.idle).await.context("idle streams")?);
        }
        recorded += amount.idle as u64;
    }
    Ok(Streams { carried, idle, recorded })
}

impl Carried {
    fn new(case: Case, target: &Target) -> Self {
        Self {
            case,
            target: target.name,
            streams: 0,
            bytes: 0,
            elapsed: Duration::ZERO,
            latencies: histogram(),
            cpu: None,
            stored: None,
        }
    }

    fn count(&mut self, before: &Reading, after: &Reading) {
        self.streams += 1;
        if let Some((after, before)) = after.cpu.zip(before.cpu) {
            *self.cpu.get_or_insert_default() += after.saturating_sub(before);
        }
        if let Some((after, before)) = after.stored.zip(before.stored) {
            *self.stored.get_or_insert_default() += after.saturating_sub(before);
        }
    }

    /// Bytes a second.
    pub(crate) fn rate(&self) -> f64 {
        self.bytes as f64 / self.elapsed.as_secs_f64()
    }
}

/// A node with one pod, and what kubectl needs to visit it.
struct Ground<'a> {
    side: &'a Side,
    kubectl: Kubectl,
    home: PathBuf,
    /// One for each target.
    kubeconfigs: Vec<PathBuf>,
    token: &'a str,
    pod: Pod<'a>,
    /// The same bytes as in the pod at [`IN_POD`].
    payload: PathBuf,
    bytes: u64,
    _node: Node,
}

impl<'a> Ground<'a> {
    async fn prepare(world: &'a World, side: &'a Side, bytes: u64) -> Result<Self> {
        let home = world.place().join("streams");
        std::fs::create_dir_all(&home).with_context(|| format!("make {}", home.display()))?;
        let node = Node::start(&world.plane, &home).await?;
        let kubectl = tokio::task::spawn_blocking(|| Kubectl::at(&rig::tools::kubectl()?));
        let kubectl = kubectl.await.context("join")??;
        let pod = manifest(POD, &["sleep", "86400"]);
        let pod = Pod::run(&world.plane, PATCHED_NAMESPACE, &pod).await?;
        let kubeconfigs = world.kubeconfigs(side, &home)?;
        let (token, payload) = (world.token(), home.join("payload"));
        let ground =
            Self { side, kubectl, home, kubeconfigs, token, pod, payload, bytes, _node: node };
        ground.fill().await.context("make the bytes that are carried")?;
        Ok(ground)
    }

    fn targets(&self) -> &'a [Target] {
        &self.side.targets
    }

    async fn once(&self, carried: &mut Carried, turn: usize, echoes: u32) -> Result<()> {
        let kubeconfig = &self.kubeconfigs[turn];
        match carried.case.1 {
            Kind::Down => carried.elapsed += bulk::down(self, kubeconfig).await?,
            Kind::Up => carried.elapsed += bulk::up(self, kubeconfig).await?,
            Kind::Echo => {
                let latencies = echo::run(self, &self.targets()[turn], echoes).await?;
                carried.latencies.add(latencies)?;
                return Ok(());
            }
            Kind::Idle => anyhow::bail!("idle streams have no rounds"),
        }
        carried.bytes += self.bytes;
        Ok(())
    }

    /// The path of an exec of `cat` in the pod.
    fn cat(&self) -> String {
        format!("{}/exec?stdin=1&stdout=1&container=box&command=cat", self.pod.path())
    }

    fn kubectl(&self, kubeconfig: &Path, arguments: &[&str]) -> std::process::Command {
        let arguments = [&["--namespace", PATCHED_NAMESPACE, "exec"], arguments].concat();
        self.kubectl.command(&self.home, kubeconfig, &arguments)
    }
}

const POD: &str = "box";
/// The carried bytes in the pod: a program over and over, which compresses as programs do.
const IN_POD: &str = "/tmp/payload";
/// The gateway writes what it holds within 200 ms.
const SETTLE: Duration = Duration::from_millis(300);
