//! An agent's visit to a real API server, through the gateway: `cargo xtask demo`.
//!
//! Starts a control plane (or uses your cluster), an issuer on loopback, and the gateway; plays the visit
//! with the real kubectl; and shows what the record says of it.

mod visit;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Parser;
use rig::controlplane::{ControlPlane, Options as PlaneOptions};
use rig::gateway::{Cluster, Gateway, Options};
use rig::issuer::Issuer;
use rig::kubectl::Kubectl;
use rig::tools::{self, Tools};
use tokio::signal::unix::{SignalKind, signal};

/// Shows an agent's visit: what it does, what it is refused, and what the record says.
#[derive(Parser)]
struct Arguments {
    /// Leave everything running afterwards, with a kubeconfig ready for use; Ctrl-C ends it.
    #[arg(long)]
    keep: bool,
    /// Use this cluster (the file's current context) instead of starting a control plane. The visit makes
    /// the namespace `decklog-demo` there and removes it again.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = tokio::runtime::Runtime::new()
        .context("start the runtime")
        .and_then(|runtime| runtime.block_on(demo(&arguments)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn demo(arguments: &Arguments) -> Result<()> {
    let place = tempfile::Builder::new().prefix("decklog-demo-").tempdir()?;
    let started = Instant::now();
    let own = match &arguments.kubeconfig {
        Some(file) => {
            Some(file.canonicalize().with_context(|| format!("find {}", file.display()))?)
        }
        None => None,
    };
    let world = tokio::select! {
        world = World::start(place.path(), own.as_deref()) => world?,
        () = stopped() => return Ok(()),
    };
    println!("demo: all is up after {:.0} s\n", started.elapsed().as_secs_f64());
    let result = tokio::select! {
        result = visit(&world, arguments.keep) => result,
        () = stopped() => {
            println!("\ndemo: stopped");
            Ok(())
        }
    };
    // On every way out: somebody's own cluster is left as it was.
    visit::tidy(&world).await?;
    result
}

async fn visit(world: &World, keep: bool) -> Result<()> {
    visit::prepare(world).await?;
    visit::play(world).await?;
    visit::show_record(world).await?;
    if keep {
        say_how_to_go_on(world).await?;
        std::future::pending::<()>().await;
    }
    Ok(())
}

/// Ctrl-C or SIGTERM.
async fn stopped() {
    let mut terminate = signal(SignalKind::terminate()).expect("SIGTERM can be caught");
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

/// Everything that the demo started.
pub(crate) struct World {
    pub(crate) kubectl: Kubectl,
    pub(crate) home: PathBuf,
    /// The administrator's way to the cluster, round the gateway.
    pub(crate) admin: PathBuf,
    /// The agent's way: the gateway's URL and the agent's token.
    pub(crate) agent: PathBuf,
    pub(crate) own_cluster: bool,
    pub(crate) gateway: Gateway,
    issuer: Issuer,
    _plane: Option<ControlPlane>,
}

impl World {
    async fn start(place: &Path, own: Option<&Path>) -> Result<Self> {
        println!("demo: building or finding what it needs (minutes, the first time)");
        let (kubectl, plane) = match own {
            Some(_) => (tokio::task::spawn_blocking(tools::kubectl).await??, None),
            None => {
                let tools = tokio::task::spawn_blocking(Tools::build).await??;
                println!("demo: starting etcd, kube-apiserver and kube-controller-manager");
                let plane = ControlPlane::start(&tools, place, PlaneOptions::default()).await?;
                (tools.kubectl, Some(plane))
            }
        };
        println!("demo: starting an OIDC issuer and the gateway");
        let issuer =
            Issuer::start(&place.join("issuer"), &[("agent-7", &["agents"])], TOKEN_TTL).await?;
        let options = Options::access(visit::POLICY);
        let (cluster, admin) = match (&plane, own) {
            (Some(plane), _) => (Cluster::Plane(plane), plane.admin_kubeconfig()?),
            (None, Some(file)) => (Cluster::Kubeconfig(file), file.to_owned()),
            (None, None) => anyhow::bail!("no cluster"),
        };
        let gateway = Gateway::start(place, cluster, &[&issuer], &options).await?;
        let agent =
            gateway.kubeconfig("agent-7", &issuer.login("agent-7").await?, Some(visit::TASK))?;
        let home = place.join("home");
        std::fs::create_dir_all(&home)?;
        Ok(Self {
            kubectl: Kubectl::at(&kubectl)?,
            home,
            admin,
            agent,
            own_cluster: own.is_some(),
            gateway,
            issuer,
            _plane: plane,
        })
    }
}

async fn say_how_to_go_on(world: &World) -> Result<()> {
    let token = world.issuer.login("agent-7").await?;
    let kubeconfig = world.gateway.kubeconfig("agent-7", &token, Some(visit::TASK))?;
    let recorder = rig::recorder::sibling("recorder")?;
    println!("\nAll of it goes on until Ctrl-C. In another terminal:\n");
    println!("  export KUBECONFIG={}", kubeconfig.display());
    println!("  export DECKLOG_STORE={}", world.gateway.store().display());
    println!("  {} get configmaps -n {}", world.kubectl.binary().display(), visit::NAMESPACE);
    println!("  {} ls", recorder.display());
    println!("  curl http://{}/metrics", world.gateway.health_address());
    println!("\nThe agent's token is good for {} h.", TOKEN_TTL.as_secs() / 3600);
    Ok(())
}

const TOKEN_TTL: Duration = Duration::from_secs(12 * 3600);
