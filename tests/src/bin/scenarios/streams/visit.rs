//! An agent's visit to the node's cluster through a gateway.

use std::path::PathBuf;
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rig::dialogue::Dialogue;
use rig::gateway::{Gateway, Options};
use rig::kubectl::{Kubectl, succeeded};
use rig::node::pods::{Pod, manifest};
use rig::process::{self, Output};
use serde_json::Value;

use super::Cluster;
use crate::scene::{Scene, search_until};

/// One user, one gateway, and pods in a namespace of the scenario's own.
pub(super) struct Visit {
    pub(super) scene: Rc<Scene>,
    pub(super) cluster: Rc<Cluster>,
    pub(super) gateway: Gateway,
    pub(super) kubeconfig: PathBuf,
    pub(super) namespace: String,
}

impl Visit {
    /// alice through a gateway of her own.
    pub(super) async fn start(
        scene: &Rc<Scene>,
        namespace: &str,
        options: &Options,
    ) -> Result<Self> {
        let cluster = scene.world.cluster().await?;
        Self::at(scene, cluster, namespace, options).await
    }

    /// As [`Visit::start`], at another cluster than the shared one.
    pub(super) async fn at(
        scene: &Rc<Scene>,
        cluster: Rc<Cluster>,
        namespace: &str,
        options: &Options,
    ) -> Result<Self> {
        let issuers = [scene.issuer()];
        let gateway = Gateway::start(scene.directory(), &cluster.plane, &issuers, options).await?;
        let kubeconfig = gateway.kubeconfig("alice", &scene.token("alice").await?, Some("T-1"))?;
        let (scene, namespace) = (Rc::clone(scene), namespace.to_owned());
        Ok(Self { scene, cluster, gateway, kubeconfig, namespace })
    }

    /// A pod that waits to be visited.
    pub(super) async fn pod(&self, name: &str) -> Result<Pod<'_>> {
        Pod::run(&self.cluster.plane, &self.namespace, &manifest(name, &["sleep", "3600"])).await
    }

    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        self.command_of(self.scene.kubectl(), arguments)
    }

    pub(super) fn command_of(&self, kubectl: &Kubectl, arguments: &[&str]) -> Command {
        let home = self.scene.directory().join("home");
        let arguments = [&["--namespace", &self.namespace], arguments].concat();
        kubectl.command(&home, &self.kubeconfig, &arguments)
    }

    pub(super) async fn run(&self, arguments: &[&str]) -> Result<Output> {
        process::run(self.command(arguments), LIMIT).await
    }

    pub(super) async fn ok(&self, arguments: &[&str]) -> Result<Output> {
        let output = succeeded(self.run(arguments).await?);
        output.with_context(|| format!("kubectl {}", arguments.join(" ")))
    }

    /// As [`Visit::run`], with something to read.
    pub(super) async fn with_input(
        &self,
        kubectl: &Kubectl,
        arguments: &[&str],
        input: &str,
    ) -> Result<Output> {
        let mut dialogue = Dialogue::start(self.command_of(kubectl, arguments))?;
        dialogue.say(input)?;
        dialogue.end_input();
        dialogue.end(LIMIT).await
    }

    /// Runs a shell script in which `kubectl` is the one of this visit, in its namespace.
    pub(super) async fn script(&self, script: &str, limit: Duration) -> Result<Output> {
        let kubectl = self.command(&[]);
        let mut shell = Command::new("sh");
        let program = kubectl.get_program().to_string_lossy();
        let function =
            format!("kubectl() {{ '{program}' --namespace '{}' \"$@\"; }}\n", self.namespace);
        shell.env_clear().args(["-euc", &format!("{function}{script}")]);
        for (name, value) in kubectl.get_envs() {
            shell.env(name, value.unwrap_or_default());
        }
        shell.current_dir(self.scene.directory().join("home"));
        succeeded(process::run(shell, limit).await?).with_context(|| script.to_owned())
    }

    /// The streams of this subresource that are on record with their outcome, once there are `count`.
    pub(super) async fn streams(&self, subresource: &str, count: usize) -> Result<Vec<Value>> {
        let resource = format!("pods/{subresource}");
        let rows = search_until(&self.gateway, &["--resource", &resource], |rows| {
            rows.iter().filter(|row| row["status"] == 101 && row["effect"] == "executed").count()
                >= count
        })
        .await?;
        let streams: Vec<_> = rows.into_iter().filter(|row| row["status"] == 101).collect();
        for stream in &streams {
            ensure!(stream["verdict"] == "allow", "{stream}");
        }
        Ok(streams)
    }

    /// What `recorder show` says of an exchange.
    pub(super) async fn shown(&self, row: &Value) -> Result<Value> {
        let id = row["exchange"].as_str().context("a row without an exchange")?;
        let mut shown = self.gateway.recorder()?.json(&["show", id]).await?;
        ensure!(shown.len() == 1, "show {id} gives {} objects", shown.len());
        Ok(shown.remove(0))
    }

    /// What `recorder export` makes of an exchange.
    pub(super) async fn exported(&self, row: &Value, arguments: &[&str]) -> Result<String> {
        let id = row["exchange"].as_str().context("a row without an exchange")?;
        let all = [&["export", id], arguments].concat();
        Ok(succeeded(self.gateway.recorder()?.run(&all).await?)?.stdout)
    }
}

pub(super) const LIMIT: Duration = Duration::from_secs(60);
