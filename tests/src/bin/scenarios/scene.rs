//! What scenarios share (the world) and what each has of its own (the scene).

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rig::client::Endpoint;
use rig::controlplane::{self, ControlPlane};
use rig::gateway::{Gateway, Options};
use rig::issuer::Issuer;
use rig::kubectl::{Kubectl, Versions};
use rig::process::Output;
use rig::tools::Tools;
use rig::wait::{Level, until};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::streams::Cluster;

/// Users of the issuer and their groups; what the groups may do in the cluster is in the rig's `access`.
pub(crate) const USERS: [(&str, &[&str]); 8] = [
    ("alice", &["sre"]),
    ("bob", &["agents"]),
    ("carol", &["agents", "agents:shop"]),
    ("dave", &["readers"]),
    ("erin", &["platform"]),
    ("frank", &["break-glass"]),
    ("agent-7", &["agents"]),
    ("nobody", &[]),
];

/// One control plane and one issuer for all scenarios that do not harm them.
pub(crate) struct World {
    pub(crate) tools: Tools,
    pub(crate) versions: Versions,
    pub(crate) plane: ControlPlane,
    pub(crate) issuer: Issuer,
    cluster: OnceCell<Rc<Cluster>>,
    root: PathBuf,
}

impl World {
    pub(crate) async fn start(root: &Path, tools: Tools, versions: Versions) -> Result<Self> {
        let plane = ControlPlane::start(&tools, root, controlplane::Options::default()).await?;
        let issuer = Issuer::start(&root.join("issuer"), &USERS, HOUR).await?;
        let (cluster, root) = (OnceCell::new(), root.to_owned());
        Ok(Self { tools, versions, plane, issuer, cluster, root })
    }

    /// A control plane with a node, started by the first scenario that asks for it.
    pub(crate) async fn cluster(&self) -> Result<Rc<Cluster>> {
        let directory = self.root.join("cluster");
        let start = async || {
            let options = controlplane::Options::default();
            Cluster::start(&self.tools, &directory, options).await.map(Rc::new)
        };
        let cluster = self.cluster.get_or_try_init(start).await;
        cluster.map(Rc::clone).context("start a cluster with a node")
    }
}

/// One scenario's own directory, and the texts that must not be found in it afterwards.
pub(crate) struct Scene {
    pub(crate) world: Rc<World>,
    directory: PathBuf,
    secrets: RefCell<Vec<String>>,
}

impl Scene {
    pub(crate) fn new(world: Rc<World>, name: &str) -> Result<Self> {
        let directory = world.root.join("scenarios").join(name);
        std::fs::create_dir_all(directory.join("home"))?;
        Ok(Self { world, directory, secrets: RefCell::default() })
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn plane(&self) -> &ControlPlane {
        &self.world.plane
    }

    pub(crate) fn issuer(&self) -> &Issuer {
        &self.world.issuer
    }

    /// The pinned kubectl.
    pub(crate) fn kubectl(&self) -> &Kubectl {
        self.world.versions.newest()
    }

    /// A gateway of its own on the shared control plane and issuer.
    pub(crate) async fn gateway(&self, options: &Options) -> Result<Gateway> {
        Gateway::start(&self.directory, self.plane(), &[self.issuer()], options).await
    }

    /// An issuer of its own, to be stopped, rotated and made to fail.
    pub(crate) async fn own_issuer(&self, name: &str, token_ttl: Duration) -> Result<Issuer> {
        Issuer::start(&self.directory.join(name), &USERS, token_ttl).await
    }

    /// A control plane of its own.
    pub(crate) async fn own_plane(&self, options: controlplane::Options) -> Result<ControlPlane> {
        ControlPlane::start(&self.world.tools, &self.directory, options).await
    }

    /// A token of the shared issuer; it must not be found on disk afterwards.
    pub(crate) async fn token(&self, user: &str) -> Result<String> {
        let token = self.issuer().token(user).await?;
        Ok(self.secret(token))
    }

    /// Registers a text that no store, log or metric may hold.
    pub(crate) fn secret(&self, text: String) -> String {
        self.secrets.borrow_mut().push(text.clone());
        text
    }

    pub(crate) fn secrets(&self) -> Vec<String> {
        self.secrets.borrow().clone()
    }

    /// The gateway with this user's token.
    pub(crate) async fn as_user(&self, gateway: &Gateway, user: &str) -> Result<Endpoint> {
        Ok(gateway.endpoint().bearer(self.token(user).await?))
    }

    /// kubectl's arguments, run with this kubeconfig.
    pub(crate) async fn run(&self, kubeconfig: &Path, arguments: &[&str]) -> Result<Output> {
        self.run_with(self.kubectl(), kubeconfig, arguments).await
    }

    /// As [`Scene::run`] with a given kubectl.
    pub(crate) async fn run_with(
        &self,
        kubectl: &Kubectl,
        kubeconfig: &Path,
        arguments: &[&str],
    ) -> Result<Output> {
        kubectl.run(&self.directory.join("home"), kubeconfig, arguments).await
    }

    /// As [`Scene::run`]; fails unless kubectl succeeds, and gives its standard output.
    pub(crate) async fn kubectl_ok(&self, kubeconfig: &Path, arguments: &[&str]) -> Result<String> {
        let output = self.run(kubeconfig, arguments).await?;
        let output = rig::kubectl::succeeded(output);
        Ok(output.with_context(|| format!("kubectl {}", arguments.join(" ")))?.stdout)
    }

    /// A manifest in a file.
    pub(crate) fn manifest(&self, name: &str, object: &Value) -> Result<String> {
        let path = self.directory.join(name);
        std::fs::write(&path, object.to_string())?;
        Ok(path.display().to_string())
    }
}

/// The exchanges that `recorder search` finds, once `enough` says so: outcomes become durable within
/// 200 ms of the response's end, and the index follows.
pub(crate) async fn search_until(
    gateway: &Gateway,
    arguments: &[&str],
    enough: impl Fn(&[Value]) -> bool,
) -> Result<Vec<Value>> {
    let recorder = gateway.recorder()?;
    until("the record shows it", RECORD_LIMIT, async || {
        let rows = recorder.search(arguments).await?;
        Ok(if enough(&rows) {
            Level::Reached(rows)
        } else {
            let rows: Vec<_> = rows.iter().map(Value::to_string).collect();
            Level::NotYet(format!("{} rows:\n{}", rows.len(), rows.join("\n")))
        })
    })
    .await
}

/// A deployment without anybody to run its pods.
pub(crate) fn deployment(name: &str, replicas: u32) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "web", "image": "example.test/web:1"}]},
            },
        },
    })
}

pub(crate) const HOUR: Duration = Duration::from_secs(3600);
pub(crate) const RECORD_LIMIT: Duration = Duration::from_secs(10);
