//! `gateway serve`: starts the parts in order, and stops them in the reverse one.

use std::{collections::HashMap, path::Path, sync::Arc};

use anyhow::Context as _;
use recorder_user::{
    model::{GatewayStarted, GatewayStopped, Record, Timestamp},
    store::{
        MayGo, Need, Recorder, Recovered, Store, StoreOptions, archive::is_archived,
        signing::keys_directory,
    },
    witness::{Mode, Witness, WitnessOptions},
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    accept, admin,
    archiving::Archiving,
    bounds::{CLOSE_TIMEOUT, DRAIN_TIMEOUT, PROBE_PATIENCE},
    bypass,
    config::{Config, WitnessMode},
    gateway::{Cluster, Gateway, Wiring},
    health,
    identify::Identifier,
    late::LateOutcomes,
    live::LiveStreams,
    metrics::Metrics,
    placing,
    policy::{PolicySource, PolicyStore},
    pruning, redact_key,
    refusals::Refusals,
    sessions::Sessions,
    unrecorded::Unrecorded,
    upgrade::Upgrades,
    upstream::Upstream,
    witnessing::Witnessing,
};

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// When something cannot start, with what to do.
pub async fn serve(config: &Config) -> anyhow::Result<()> {
    let witness = start_witness(config)?;
    let (store, recovered) = open_store(config)?;
    let started = start(config, &store, recovered, witness).await;
    let result = match started {
        Ok(running) => running.until_signal().await,
        Err(error) => Err(error),
    };
    // The store is closed in order on every way out, so that nothing looks like a crash.
    store.close().await.context("close the store")?;
    result
}

fn start_witness(config: &Config) -> anyhow::Result<Witness> {
    let mode = match config.witness.mode {
        WitnessMode::Auto => Mode::Auto,
        WitnessMode::Ebpf => Mode::Ebpf,
        WitnessMode::TcpInfo => Mode::TcpInfo,
        WitnessMode::Off => Mode::Off,
    };
    let witness = match &config.witness.probe {
        Some(socket) => over_probe(socket, mode)?,
        None => {
            let ring_bytes = config.witness.ring_bytes;
            let options = WitnessOptions { ring_bytes, ..WitnessOptions::default() };
            Witness::start(mode, &options).context("start the witness")?
        }
    };
    let capability = witness.capability();
    tracing::info!(
        tier = ?capability.tier,
        kernel = capability.kernel,
        self_test = capability.self_test,
        reason = capability.reason,
        "witness started"
    );
    Ok(witness)
}

/// A gateway beside a probe never loads programs itself, also when the probe does not come.
fn over_probe(socket: &Path, mode: Mode) -> anyhow::Result<Witness> {
    match Witness::over_probe(socket, PROBE_PATIENCE) {
        Ok(witness) => Ok(witness),
        Err(error) if mode == Mode::Auto => {
            tracing::warn!(%error, "no probe: TCP_INFO witnesses until the gateway is started again");
            Witness::start(Mode::TcpInfo, &WitnessOptions::default()).context("start the witness")
        }
        Err(error) => Err(error).context("start the witness"),
    }
}

fn open_store(config: &Config) -> anyhow::Result<(Store, Recovered)> {
    let options = StoreOptions {
        directory: config.store.directory.clone(),
        segment_bytes_max: config.store.segment_bytes_max,
        queue_bytes_max: config.store.queue_bytes_max,
        sync_interval: config.store.sync_interval,
        free_floor_bytes: config.store.free_floor_bytes,
        index: config.store.index,
        segment_age_max: config.store.segment_age_max,
        checkpoint_interval: config.store.checkpoint_interval,
        encryption: config.store.encryption.clone(),
        keys: keys_directory(&config.store.directory),
    };
    let (store, recovered) = Store::open(options, Arc::new(Timestamp::now))
        .with_context(|| format!("open the store {}", config.store.directory.display()))?;
    tracing::info!(
        directory = %config.store.directory.display(),
        gateway = %store.gateway_id(),
        clean = recovered.clean,
        torn_bytes = recovered.torn_bytes,
        open_sessions = recovered.open_sessions.len(),
        index_rebuilt = recovered.index_rebuilt,
        "store opened"
    );
    Ok((store, recovered))
}

/// A gateway that serves, and what its stop needs.
struct Running {
    gateway: Arc<Gateway>,
    listen: std::net::SocketAddr,
    gateway_id: recorder_user::model::GatewayId,
    recorder: Recorder,
    health_stop: CancellationToken,
    connections: TaskTracker,
}

async fn start(
    config: &Config,
    store: &Store,
    recovered: Recovered,
    witness: Witness,
) -> anyhow::Result<Running> {
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let recorder = store.recorder();
    let metrics = Arc::new(Metrics::new()?);
    let wiring = wiring(&witness, &recorder, &metrics);
    let connections = wiring.connections.clone();

    let certificate = accept::Certificate::load(&config.tls)?;
    let redact_key = redact_key::load_or_create(&config.store.directory)?;
    let source = PolicySource {
        access: config.policy.access.clone(),
        recording: config.policy.recording.clone(),
    };
    let policies = PolicyStore::open(source).context("load the policies")?;
    let mut clusters = HashMap::new();
    for cluster in &config.clusters {
        let upstream = Upstream::new(cluster, &wiring)
            .with_context(|| format!("set up cluster {:?}", cluster.name))?;
        let name = cluster.name.clone();
        clusters.insert(name.clone(), Arc::new(Cluster { name, upstream }));
    }
    let default = config.clusters.iter().find(|cluster| cluster.default);
    let default_cluster = default.and_then(|cluster| clusters.get(&cluster.name)).cloned();

    placing::about_to_listen(&witness, config.listen);
    let listener = listen(config.listen).await?;
    placing::listening(&witness, &listener);
    let health_listener = match &config.health {
        Some(health) => Some(listen(health.listen).await?),
        None => None,
    };
    let admin_socket = admin::AdminSocket::bind(&config.admin.socket)
        .with_context(|| format!("open the admin socket {}", config.admin.socket.display()))?;
    let policy_set = policies.current().hash().to_owned();
    let mut names: Vec<_> = clusters.keys().cloned().collect();
    names.sort_unstable();
    let started = GatewayStarted {
        gateway: store.gateway_id(),
        time: Timestamp::now(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        witness: witness.capability().clone(),
        clusters: names,
        policy_set: policy_set.clone(),
    };
    recorder
        .append(Record::GatewayStarted(started), Need::Durable)
        .await
        .context("record the start")?;

    let late = Arc::new(LateOutcomes::default());
    if let Some(changes) = witness.take_health() {
        let witnessing = Witnessing::new(&witness, &recorder, &metrics, &late);
        tasks.spawn(witnessing.follow(changes, stop.clone()));
    }

    let archiving = Archiving::start(config, &tasks, &stop).context("set up the archive")?;
    let identifier = Identifier::start(&config.authentication, &tasks, &stop);
    let sessions =
        Arc::new(Sessions::resume(recovered.open_sessions, config.sessions.idle, recorder.clone()));
    let policies = Arc::new(policies);
    let live = LiveStreams::new(Arc::clone(&policies), Arc::clone(&identifier), recorder.clone());
    let (bypass, mut watching) = bypass::prepare(&bypass::Needs {
        config,
        witness: &witness,
        recorder: &recorder,
        late: &late,
        sessions: &sessions,
    });
    watching.begin().await;
    tasks.spawn(watching.run(stop.clone()));
    let retention = Arc::new(store.retention(archived_only(config)));
    let gateway = Arc::new(Gateway {
        id: store.gateway_id().to_string(),
        clusters,
        default_cluster,
        identifier,
        policies,
        recorder: recorder.clone(),
        rows: store.rows(),
        accesses: admin::Accesses::new(config.store.record_access),
        witness,
        bypass,
        sessions,
        upgrades: Upgrades::new(config.sessions.streams),
        live,
        late,
        retention: Arc::clone(&retention),
        redact_key,
        metrics,
        refusals: Refusals::default(),
        unrecorded: Arc::new(Unrecorded::default()),
        archiving,
        tasks: tasks.clone(),
        stop: stop.clone(),
    });
    spawn_background(&gateway, &certificate);
    if let Some(kept) = config.store.retention {
        let pruning = pruning::prune_at_intervals(retention, tasks.clone(), kept, stop.clone());
        tasks.spawn(pruning);
    }
    let health_stop = CancellationToken::new();
    if let Some(listener) = health_listener {
        tasks.spawn(health::serve(Arc::clone(&gateway), listener, health_stop.clone()));
    }
    tasks.spawn(admin::serve(Arc::clone(&gateway), admin_socket, health_stop.clone()));
    tasks.spawn(accept::serve(Arc::clone(&gateway), wiring, listener, certificate));
    tracing::info!(listen = %config.listen, policy_set, "serving");
    Ok(Running {
        gateway,
        listen: config.listen,
        gateway_id: store.gateway_id(),
        recorder,
        health_stop,
        connections,
    })
}

/// Where there is an archive only what is in it may be deleted.
fn archived_only(config: &Config) -> Option<MayGo> {
    config.archive.as_ref()?;
    let store = config.store.directory.clone();
    Some(Arc::new(move |segment| is_archived(&store, segment)))
}

fn wiring(witness: &Witness, recorder: &Recorder, metrics: &Arc<Metrics>) -> Wiring {
    let (closing, opening) = (Arc::clone(metrics), Arc::clone(metrics));
    Wiring {
        witness: witness.clone(),
        recorder: recorder.clone(),
        on_close: Arc::new(move |closed| closing.connection_closed(closed)),
        on_open: Arc::new(move |role| opening.connection_opened(role)),
        connections: TaskTracker::new(),
    }
}

async fn listen(address: std::net::SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("listen on {address}: is another gateway running, or is the port not allowed?")
    })
}

fn spawn_background(gateway: &Arc<Gateway>, certificate: &Arc<accept::Certificate>) {
    let (tasks, stop) = (&gateway.tasks, &gateway.stop);
    let sessions = Arc::clone(&gateway.sessions);
    let sweeping = stop.clone();
    tasks.spawn(async move { sessions.sweep(sweeping).await });
    tasks.spawn(Arc::clone(certificate).follow(stop.clone()));
    let policies = Arc::clone(&gateway.policies);
    let following = stop.clone();
    tasks.spawn(async move { policies.watch(following).await });
    let live = Arc::clone(&gateway.live);
    tasks.spawn(live.follow(stop.clone()));
    let (unrecorded, recorder) = (Arc::clone(&gateway.unrecorded), gateway.recorder.clone());
    let reporting = stop.clone();
    tasks.spawn(async move { unrecorded.report(recorder, reporting).await });
    let (late, recorder) = (Arc::clone(&gateway.late), gateway.recorder.clone());
    let retrying = stop.clone();
    tasks.spawn(async move { late.record(recorder, retrying).await });
    let pruned = Arc::clone(gateway);
    tasks.spawn(async move {
        let mut tick = tokio::time::interval(std::time::Duration::from_secs(60));
        loop {
            tokio::select! {
                // cancel-safe: both only wait.
                () = pruned.stop.cancelled() => return,
                _ = tick.tick() => pruned.refusals.prune(),
            }
        }
    });
}

impl Running {
    async fn until_signal(self) -> anyhow::Result<()> {
        let mut terminate = signal(SignalKind::terminate()).context("wait for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("wait for SIGINT")?;
        tokio::select! {
            // cancel-safe: signals are kept until they are received.
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        self.stop().await
    }

    /// Stops accepting, lets requests finish, ends live streams with a written reason, and seals.
    async fn stop(self) -> anyhow::Result<()> {
        tracing::info!("stopping");
        placing::no_longer(&self.gateway.witness, self.listen);
        self.gateway.stop.cancel();
        self.health_stop.cancel();
        self.gateway.tasks.close();
        if tokio::time::timeout(DRAIN_TIMEOUT, self.gateway.tasks.wait()).await.is_err() {
            tracing::warn!(open = self.gateway.tasks.len(), "requests cut: they took too long");
        }
        // Their accounts are part of the record.
        self.gateway.clusters.values().for_each(|cluster| cluster.upstream.close());
        self.connections.close();
        if tokio::time::timeout(CLOSE_TIMEOUT, self.connections.wait()).await.is_err() {
            tracing::warn!(open = self.connections.len(), "upstream connections cut");
        }
        let stopped = GatewayStopped { gateway: self.gateway_id, time: Timestamp::now() };
        self.recorder
            .append(Record::GatewayStopped(stopped), Need::Durable)
            .await
            .context("record the stop")
    }
}
