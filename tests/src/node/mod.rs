//! A real node: containerd, runc, CNI and kubelet of the control plane's own version, and a scheduler.
//!
//! Pods run there, so that exec, attach, logs, cp, port-forward and debug have something to talk to. What
//! the node makes is in places of its own, and goes with it: processes and mounts (`realm`), cgroups
//! (`cgroup`), addresses (`link`), files (its directory).

mod cgroup;
mod containerd;
pub mod images;
mod kubelet;
mod link;
mod packages;
pub mod pods;
mod realm;
mod traces;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use self::cgroup::Cgroup;
use self::images::Images;
use self::link::Link;
use self::packages::Distribution;
use self::realm::Realm;
pub use self::traces::{Member, Traces};
use crate::controlplane::ControlPlane;
use crate::network;
use crate::port::Port;
use crate::process::Process;
use crate::tools::NodeTools;

/// A node of a control plane; it and all that ran on it is gone when this is dropped.
#[derive(Debug)]
pub struct Node {
    pod_logs: PathBuf,
    link: Link,
    tools: NodeTools,
    _port: Port,
    // Dropped in this order. Whoever is our own child is waited for before the realm, which is not gone
    // before that; and a cgroup can be removed when nobody is in it.
    scheduler: Process,
    kubelet: Process,
    containerd: Process,
    realm: Realm,
    cgroup: Cgroup,
}

impl Node {
    /// Adds one to `plane`, with its files in `directory`; ready for pods when this returns. Builds and
    /// installs what is missing: minutes with a cold cache, with progress on stderr.
    ///
    /// # Errors
    /// Without root, when this process did not [`network::isolate`] itself, or when a part does not come up.
    pub async fn start(plane: &ControlPlane, directory: &Path) -> Result<Self> {
        anyhow::ensure!(network::isolated(), "{NEEDS_ROOT}");
        let (tools, distribution, images) = tokio::task::spawn_blocking(|| {
            let distribution = Distribution::find_or_install()?;
            anyhow::Ok((NodeTools::build()?, distribution, Images::build()?))
        })
        .await??;
        let directory = directory.join("node");
        std::fs::create_dir_all(&directory)
            .with_context(|| format!("make {}", directory.display()))?;
        let cgroup = Cgroup::reserve().context("take a cgroup")?;
        let realm = Realm::new(&images.pause, &directory)?;
        let (link, port) = (Link::new()?, Port::reserve()?);
        let scheduler = start_scheduler(plane, &directory, &tools)?;
        let containerd =
            containerd::start(&realm, &directory, &link, (&tools, &distribution), &images).await?;
        let place = (&link, &cgroup, &port);
        let kubelet = kubelet::start(&realm, &directory, plane, place, &tools).await?;
        let pod_logs = directory.join("pod-logs");
        Ok(Self {
            pod_logs,
            link,
            tools,
            _port: port,
            scheduler,
            kubelet,
            containerd,
            realm,
            cgroup,
        })
    }

    /// Its name in the cluster.
    #[must_use]
    pub fn name(&self) -> String {
        self.link.name()
    }

    /// Where the kubelet keeps the logs of pods.
    #[must_use]
    pub fn pod_logs(&self) -> &Path {
        &self.pod_logs
    }

    /// Its address, which its pods reach.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.link.address()
    }

    /// Gives its container runtime the images of an archive, as `docker save` writes one.
    ///
    /// # Errors
    /// When the runtime refuses.
    pub async fn import(&self, archive: &Path) -> Result<()> {
        containerd::import(&self.realm, &self.tools, archive).await
    }

    /// What must be gone after [`Node::stop`].
    ///
    /// # Errors
    /// When it is gone already.
    pub fn traces(&self) -> Result<Traces> {
        Traces::new(self.realm.init_id(), self.cgroup.directories(), self.link.name())
    }

    /// Fails with the end of its log when one of the servers has ended.
    ///
    /// # Errors
    /// When one is not running.
    pub fn check(&mut self) -> Result<()> {
        self.scheduler.check()?;
        self.containerd.check()?;
        self.kubelet.check()
    }

    /// Ends it and all that runs on it at once.
    ///
    /// # Errors
    /// When something is left.
    pub fn stop(self) -> Result<()> {
        let Self {
            pod_logs: _,
            link,
            tools: _,
            _port,
            scheduler,
            kubelet,
            containerd,
            realm,
            cgroup,
        } = self;
        scheduler.kill()?;
        realm.kill();
        kubelet.kill()?;
        containerd.kill()?;
        drop(realm);
        drop(link);
        cgroup.remove()
    }
}

fn start_scheduler(plane: &ControlPlane, directory: &Path, tools: &NodeTools) -> Result<Process> {
    let kubeconfig = plane.kubeconfig(directory, "scheduler", ("system:kube-scheduler", "rig"))?;
    let mut command = Command::new(&tools.scheduler);
    command
        .arg(format!("--kubeconfig={}", kubeconfig.display()))
        // It would serve health and metrics; nobody asks.
        .args(["--leader-elect=false", "--secure-port=0"]);
    Process::start("kube-scheduler", command, &directory.join("kube-scheduler.log"))
}

const NEEDS_ROOT: &str = "pods need a node, and a node needs root: it makes namespaces and cgroups";
