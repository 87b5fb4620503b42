//! The real gateway binary with a generated configuration.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};

use crate::client::Endpoint;
use crate::confined::confine;
use crate::controlplane::ControlPlane;
use crate::controlplane::access::Impersonation;
use crate::issuer::Issuer;
use crate::pki::{Authority, write_private};
use crate::policy::ALLOW_ALL;
use crate::port::Port;
use crate::process::{Process, tail};
use crate::prometheus::plain_get;
use crate::recorder::{Recorder, sibling};
use crate::wait::{Level, until};

/// What differs between gateways.
#[derive(Clone, Debug)]
pub struct Options {
    /// Names its directory, so that several can run beside each other.
    pub name: String,
    /// Cedar files: name and text.
    pub access: Vec<(String, String)>,
    /// Cedar files of the recording set.
    pub recording: Vec<(String, String)>,
    /// `witness.mode`.
    pub witness: String,
    /// Which ServiceAccount it forwards with.
    pub impersonation: Impersonation,
    /// Changes to the generated configuration, merged into it (objects deeply, null removes, all else replaced).
    pub config: Value,
    /// Further environment variables.
    pub environment: Vec<(String, String)>,
    /// Without any capability, and killed when it calls bpf(2).
    pub confined: bool,
    /// Another build of the gateway than the one beside the test's own program.
    pub program: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            name: "gateway".into(),
            access: vec![("all.cedar".into(), ALLOW_ALL.into())],
            recording: Vec::new(),
            witness: "auto".into(),
            impersonation: Impersonation::default(),
            config: json!({}),
            environment: Vec::new(),
            confined: false,
            program: None,
        }
    }
}

impl Options {
    /// One access policy instead of "anybody may do anything".
    #[must_use]
    pub fn access(text: impl Into<String>) -> Self {
        Self { access: vec![("access.cedar".into(), text.into())], ..Self::default() }
    }
}

/// What a gateway stands in front of.
#[derive(Clone, Copy, Debug)]
pub enum Cluster<'a> {
    /// The rig's own control plane, with the ServiceAccount that the options name.
    Plane(&'a ControlPlane),
    /// The current context of somebody's kubeconfig.
    Kubeconfig(&'a Path),
}

impl<'a> From<&'a ControlPlane> for Cluster<'a> {
    fn from(plane: &'a ControlPlane) -> Self {
        Self::Plane(plane)
    }
}

impl Cluster<'_> {
    fn config(self, impersonation: Impersonation) -> Value {
        match self {
            Self::Plane(plane) => json!({
                "name": "rig",
                "server": plane.url(),
                "certificateAuthority": plane.authority_file(),
                "credential": {"tokenFile": plane.gateway_token_file(impersonation)},
            }),
            Self::Kubeconfig(file) => json!({"name": "own", "credential": {"kubeconfig": file}}),
        }
    }
}

/// A gateway: running, or stopped with its store and ports kept.
#[derive(Debug)]
pub struct Gateway {
    directory: PathBuf,
    listen: Port,
    health: Port,
    endpoint: Endpoint,
    environment: Vec<(String, String)>,
    confined: bool,
    program: PathBuf,
    process: Option<Process>,
}

impl Gateway {
    /// Writes a configuration for one cluster and these issuers, and starts the gateway.
    ///
    /// # Errors
    /// When the binary is missing or does not become ready.
    pub async fn start<'a>(
        directory: &Path,
        cluster: impl Into<Cluster<'a>>,
        issuers: &[&Issuer],
        options: &Options,
    ) -> Result<Self> {
        let mut gateway = Self::prepare(directory, cluster, issuers, options)?;
        gateway.resume().await?;
        Ok(gateway)
    }

    /// As [`Gateway::start`], without starting it.
    ///
    /// # Errors
    /// When files cannot be written.
    pub fn prepare<'a>(
        directory: &Path,
        cluster: impl Into<Cluster<'a>>,
        issuers: &[&Issuer],
        options: &Options,
    ) -> Result<Self> {
        let directory = directory.join(&options.name);
        for (set, files) in [("access", &options.access), ("recording", &options.recording)] {
            let set = directory.join("policy").join(set);
            std::fs::create_dir_all(&set)?;
            for (name, text) in files {
                std::fs::write(set.join(name), text)?;
            }
        }
        let authority = Authority::new("rig gateway")?;
        let tls = authority.server("gateway", &[])?.write(&directory, "tls")?;
        write_private(&directory.join("ca.crt"), authority.certificate())?;
        let (listen, health) = (Port::reserve()?, Port::reserve()?);
        let mut config = json!({
            "listen": listen.address().to_string(),
            "tls": {"certificate": tls.certificate, "key": tls.key},
            "health": {"listen": health.address().to_string()},
            // As on a machine of three processors, whatever this one has.
            "threads": 2,
            "store": {"directory": directory.join("store")},
            "clusters": [cluster.into().config(options.impersonation)],
            "authentication": {"jwt": issuers.iter().map(|issuer| jwt(issuer)).collect::<Vec<_>>()},
            "policy": {
                "access": directory.join("policy/access"), "recording": directory.join("policy/recording"),
            },
            // The rig itself speaks with the API server; what looks for that names its own rules.
            "witness": {"mode": options.witness, "allow": [{"cgroup": "**"}]},
        });
        merge(&mut config, &options.config);
        write_private(&directory.join("gateway.yaml"), &serde_json::to_string_pretty(&config)?)?;
        let endpoint = Endpoint::new(listen.address(), authority.certificate(), None)?;
        let program = options.program.clone().map_or_else(|| sibling("gateway"), Ok)?;
        let (environment, confined) = (options.environment.clone(), options.confined);
        let process = None;
        Ok(Self { directory, listen, health, endpoint, environment, confined, program, process })
    }

    /// Where it listens for clients; without a token.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.listen.address())
    }

    /// The health listener's address.
    #[must_use]
    pub fn health_address(&self) -> String {
        self.health.address().to_string()
    }

    /// `GET` on the health listener.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn health(&self, path: &str) -> Result<(u16, String)> {
        plain_get(&self.health_address(), path).await
    }

    /// Its own directory: `gateway.yaml`, `policy/`, `store/`, `gateway.log`.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The store's directory.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.directory.join("store")
    }

    /// Its log: one JSON object a line.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.directory.join("gateway.log")
    }

    /// The configuration file.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.directory.join("gateway.yaml")
    }

    /// The `recorder` command over its store.
    ///
    /// # Errors
    /// When the binary is missing.
    pub fn recorder(&self) -> Result<Recorder> {
        Recorder::over(&self.store())
    }

    /// Its process id while it runs.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// A kubeconfig with a bearer token, under this file name; `task` becomes part of the server's URL.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn kubeconfig(&self, name: &str, token: &str, task: Option<&str>) -> Result<PathBuf> {
        let prefix = task.map_or(String::new(), |task| format!("/tasks/{task}"));
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "decklog", "cluster": {
                "server": format!("{}{prefix}", self.url()),
                "certificate-authority": self.directory.join("ca.crt"),
            }}],
            "users": [{"name": name, "user": {"token": token}}],
            "contexts": [{"name": "decklog", "context": {"cluster": "decklog", "user": name}}],
            "current-context": "decklog",
        });
        let path = self.directory.join(format!("{name}.kubeconfig"));
        write_private(&path, &config.to_string())?;
        Ok(path)
    }

    /// Starts it (again) on the same ports and store, and waits until it is ready.
    ///
    /// # Errors
    /// When it ends or does not become ready.
    pub async fn resume(&mut self) -> Result<()> {
        self.launch()?;
        self.ready().await
    }

    /// Starts it without waiting.
    ///
    /// # Errors
    /// When the binary is missing.
    pub fn launch(&mut self) -> Result<()> {
        let mut command = Command::new(&self.program);
        command
            .arg("serve")
            .arg("--config")
            .arg(self.config_file())
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        if self.confined {
            confine(&mut command);
        }
        self.process = Some(Process::start("gateway", command, &self.log())?);
        Ok(())
    }

    /// Waits until `/readyz` answers 200.
    ///
    /// # Errors
    /// When the process ends or the time is up.
    pub async fn ready(&mut self) -> Result<()> {
        let log = self.log();
        let address = self.health_address();
        let process = self.process.as_mut().context("the gateway is not running")?;
        until("the gateway is ready", START_LIMIT, async || {
            process.check()?;
            Ok(match plain_get(&address, "/readyz").await {
                Ok((200, _)) => Level::Reached(()),
                Ok((status, body)) => Level::NotYet(format!("{status} {body}")),
                Err(error) => Level::NotYet(format!("{error:#}")),
            })
        })
        .await
        .with_context(|| format!("{} ends:\n{}", log.display(), tail(&log)))
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it is not running.
    pub fn signal(&self, signal: libc::c_int) -> Result<()> {
        self.process.as_ref().context("the gateway is not running")?.signal(signal)
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// When it is not running.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().context("the gateway is not running")?.kill()
    }

    /// `SIGTERM`, and waits for an orderly end.
    ///
    /// # Errors
    /// When it does not end in time or not with 0.
    pub async fn stop(&mut self) -> Result<()> {
        let process = self.process.take().context("the gateway is not running")?;
        let status = tokio::task::spawn_blocking(move || process.stop(STOP_LIMIT)).await??;
        anyhow::ensure!(status.success(), "the gateway ended with {status} after SIGTERM");
        Ok(())
    }

    /// Fails when it runs no more.
    ///
    /// # Errors
    /// With the end of its log.
    pub fn check(&mut self) -> Result<()> {
        self.process.as_mut().context("the gateway is not running")?.check()
    }
}

/// How a gateway is told of this issuer.
#[must_use]
pub fn jwt(issuer: &Issuer) -> Value {
    json!({
        "issuer": {
            "url": issuer.url(), "audiences": ["decklog"], "certificateAuthority": issuer.authority(),
        },
        "claimMappings": {
            "username": {"claim": "sub", "prefix": ""},
            "groups": {"claim": "groups", "prefix": ""},
        },
    })
}

fn merge(into: &mut Value, changes: &Value) {
    match (into, changes) {
        (Value::Object(into), Value::Object(changes)) => {
            for (key, change) in changes {
                if change.is_null() {
                    into.remove(key);
                    continue;
                }
                merge(into.entry(key.clone()).or_insert(Value::Object(Map::new())), change);
            }
        }
        (into, changes) => *into = changes.clone(),
    }
}

const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_merge_deeply() {
        let mut config = json!({"a": {"b": 1, "c": 2}, "l": [1]});
        merge(&mut config, &json!({"a": {"b": 3}, "l": [2], "n": {"x": 1}}));
        assert_eq!(config, json!({"a": {"b": 3, "c": 2}, "l": [2], "n": {"x": 1}}));
        merge(&mut config, &json!({"a": {"b": null, "z": null}, "l": null}));
        assert_eq!(config, json!({"a": {"c": 2}, "n": {"x": 1}}));
    }
}
