//! A real control plane on loopback: etcd, kube-apiserver, kube-controller-manager. Nodes can join it
//! ([`node`](crate::node)).
//!
//! The gateway's credential is a ServiceAccount that may impersonate and nothing else ([`access`]). The
//! API server's audit log (Metadata for every request) is the independent account that tests compare with.

pub mod access;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use http::StatusCode;
use serde_json::{Value, json};

use crate::client::{Endpoint, Reply};
use crate::network;
use crate::pki::{self, Authority, Files, Pair, SigningKey, write_private};
use crate::port::Port;
use crate::process::{Process, tail};
use crate::tools::Tools;
use crate::wait::{Level, until};

/// What differs between control planes.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `--goaway-chance`: HTTP/2 connections are told to go away with this probability per request (≤ 0.02).
    pub goaway_chance: Option<f64>,
    /// Feature gate `ConstrainedImpersonation` (KEP-5284): on by default in 1.36.
    pub constrained_impersonation: Option<bool>,
    /// Feature gates of the API server and of the nodes that join it.
    pub feature_gates: Vec<(&'static str, bool)>,
    /// Further flags of kube-apiserver.
    pub api_server_flags: Vec<String>,
}

/// A running control plane.
#[derive(Debug)]
pub struct ControlPlane {
    directory: PathBuf,
    tools: Tools,
    options: Options,
    etcd_port: Port,
    api_port: Port,
    files: PkiFiles,
    signer: Authority,
    admin: Endpoint,
    // Dropped in this order: clients of a server before the server.
    controller_manager: Option<Process>,
    api_server: Mutex<Option<Process>>,
    _etcd: Process,
}

#[derive(Debug)]
struct PkiFiles {
    authority: Files,
    front_proxy: PathBuf,
    server: Files,
    service_accounts: SigningKey,
    admin: Files,
    controller_manager: Files,
    kubelet_client: Files,
}

impl ControlPlane {
    /// Starts one with its state in `directory`; ready for requests when this returns.
    ///
    /// # Errors
    /// When a server does not come up.
    pub async fn start(tools: &Tools, directory: &Path, options: Options) -> Result<Self> {
        let directory = directory.join("controlplane");
        std::fs::create_dir_all(&directory)?;
        let (files, signer, admin) = make_pki(&directory)?;
        write_private(&directory.join("audit.yaml"), AUDIT_POLICY)?;
        let (etcd_port, api_port) = (Port::reserve()?, Port::reserve()?);
        let admin = Endpoint::new(api_port.address(), signer.certificate(), Some(&admin))?;
        let etcd = start_etcd(tools, &directory, &etcd_port)?;
        let mut plane = Self {
            directory,
            tools: tools.clone(),
            options,
            etcd_port,
            api_port,
            files,
            signer,
            admin,
            controller_manager: None,
            api_server: Mutex::default(),
            _etcd: etcd,
        };
        plane.start_api_server().await?;
        plane.controller_manager = Some(plane.start_controller_manager()?);
        access::install(&plane).await?;
        Ok(plane)
    }

    /// The API server's URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.api_port.address())
    }

    /// The API server as pods reach it.
    #[must_use]
    pub fn address_for_pods(&self) -> SocketAddr {
        (network::HOST, self.api_port.number()).into()
    }

    /// The cluster's authority, PEM.
    #[must_use]
    pub fn authority(&self) -> &str {
        self.signer.certificate()
    }

    /// The cluster's authority itself.
    #[must_use]
    pub fn signer(&self) -> &Authority {
        &self.signer
    }

    /// The cluster's authority in a file.
    #[must_use]
    pub fn authority_file(&self) -> &Path {
        &self.files.authority.certificate
    }

    /// The API server with the administrator's certificate: the direct way, for set-up and comparison.
    #[must_use]
    pub fn admin(&self) -> &Endpoint {
        &self.admin
    }

    /// The API server without any credential.
    ///
    /// # Errors
    /// Never in practice: the authority is our own.
    pub fn anonymous(&self) -> Result<Endpoint> {
        Endpoint::new(self.api_port.address(), self.authority(), None)
    }

    /// The API server's audit log: one JSON event a line, stage `ResponseComplete` for each request
    /// (`ResponseStarted` too for long-running ones).
    #[must_use]
    pub fn audit_log(&self) -> PathBuf {
        self.directory.join("audit.log")
    }

    /// The whole lines of the audit log so far.
    ///
    /// # Errors
    /// When it cannot be read or a line is not JSON.
    pub fn audit_events(&self) -> Result<Vec<Value>> {
        let path = self.audit_log();
        let text = std::fs::read_to_string(&path);
        let text = text.with_context(|| format!("read {}", path.display()))?;
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let event = |line| serde_json::from_str(line).with_context(|| format!("audit line {line}"));
        whole.lines().map(event).collect()
    }

    /// What it was started with.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The API server's process id while it runs.
    #[must_use]
    pub fn api_server_id(&self) -> Option<u32> {
        self.api_server_slot().as_ref().map(Process::id)
    }

    /// The token file of the gateway's ServiceAccount under this kind of impersonation.
    #[must_use]
    pub fn gateway_token_file(&self, impersonation: access::Impersonation) -> PathBuf {
        self.directory.join(format!("{}.token", impersonation.service_account()))
    }

    /// A kubeconfig with the administrator's certificate: the direct way for kubectl.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn admin_kubeconfig(&self) -> Result<PathBuf> {
        self.write_kubeconfig(&self.directory, "admin", &self.files.admin)
    }

    /// A kubeconfig in `directory` for a component, by its certificate's common name and organization.
    ///
    /// # Errors
    /// When the certificate cannot be made or a file cannot be written.
    pub fn kubeconfig(
        &self,
        directory: &Path,
        name: &str,
        (common_name, organization): (&str, &str),
    ) -> Result<PathBuf> {
        let files = self.signer.client(common_name, organization)?.write(directory, name)?;
        self.write_kubeconfig(directory, name, &files)
    }

    /// Creates an object by `POST`; that it exists already is fine.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn ensure(&self, collection: &str, object: &Value) -> Result<()> {
        let reply = self.admin.json("POST", collection, object).await?;
        if reply.status == StatusCode::CONFLICT {
            return Ok(());
        }
        reply.success().with_context(|| format!("create in {collection}")).map(drop)
    }

    /// A namespace, made when absent.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn namespace(&self, name: &str) -> Result<()> {
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        self.ensure("/api/v1/namespaces", &object).await
    }

    /// A config map, made when absent.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn config_map(&self, namespace: &str, name: &str, data: &Value) -> Result<()> {
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data,
        });
        self.ensure(&format!("/api/v1/namespaces/{namespace}/configmaps"), &object).await
    }

    /// `GET` as administrator.
    ///
    /// # Errors
    /// When the request fails or is refused.
    pub async fn get(&self, path: &str) -> Result<Reply> {
        self.admin.get(path).await?.success()
    }

    /// Ends the API server alone: etcd and its data stay. `SIGKILL`: at once.
    ///
    /// # Errors
    /// When it is not running.
    pub fn stop_api_server(&self) -> Result<()> {
        self.api_server_slot().take().context("the API server is not running")?.kill()
    }

    /// Starts the API server (again), on the same port and data.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start_api_server(&self) -> Result<()> {
        if self.api_server_id().is_some() {
            bail!("the API server runs already");
        }
        let log = self.directory.join("kube-apiserver.log");
        let mut process = Process::start("kube-apiserver", self.api_server_command(), &log)?;
        until("the API server is ready", START_LIMIT, async || {
            process.check()?;
            Ok(match self.admin.get("/readyz").await {
                Ok(reply) => Level::when(reply.status.is_success(), || reply.text()),
                Err(error) => Level::NotYet(format!("{error:#}")),
            })
        })
        .await
        .with_context(|| format!("{} ends:\n{}", log.display(), tail(&log)))?;
        *self.api_server_slot() = Some(process);
        Ok(())
    }

    /// Never held across a wait; whoever panicked meanwhile left it as it was.
    fn api_server_slot(&self) -> MutexGuard<'_, Option<Process>> {
        self.api_server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn api_server_command(&self) -> Command {
        let files = &self.files;
        let mut command = Command::new(&self.tools.api_server);
        command
            .arg(format!("--etcd-servers=http://{}", self.etcd_port.address()))
            .arg(format!("--secure-port={}", self.api_port.number()))
            .arg(format!("--bind-address={}", bind_address()))
            .arg("--advertise-address=127.0.0.1")
            // A loopback address cannot be an endpoint of the `kubernetes` service: leave it without.
            .arg("--endpoint-reconciler-type=none")
            .arg("--service-cluster-ip-range=10.96.0.0/16")
            .args(["--authorization-mode=Node,RBAC", "--anonymous-auth=true"])
            .args(["--enable-admission-plugins=NodeRestriction", "--allow-privileged=true"])
            .arg(flag("client-ca-file", &files.authority.certificate))
            .arg(flag("tls-cert-file", &files.server.certificate))
            .arg(flag("tls-private-key-file", &files.server.key))
            .arg(flag("service-account-key-file", &files.service_accounts.public))
            .arg(flag("service-account-signing-key-file", &files.service_accounts.private))
            .arg(flag("kubelet-client-certificate", &files.kubelet_client.certificate))
            .arg(flag("kubelet-client-key", &files.kubelet_client.key))
            .arg(flag("kubelet-certificate-authority", &files.authority.certificate))
            .arg("--kubelet-preferred-address-types=InternalIP")
            .arg("--service-account-issuer=https://kubernetes.default.svc.cluster.local")
            .arg(flag("requestheader-client-ca-file", &files.front_proxy))
            .arg("--requestheader-allowed-names=front-proxy-client")
            .arg("--requestheader-username-headers=X-Remote-User")
            .arg("--requestheader-group-headers=X-Remote-Group")
            .arg("--requestheader-extra-headers-prefix=X-Remote-Extra-")
            .arg(flag("audit-policy-file", &self.directory.join("audit.yaml")))
            .arg(flag("audit-log-path", &self.audit_log()))
            // Every event is in the file before the response ends: tests compare with it right after.
            .arg("--audit-log-mode=blocking")
            .args(["--max-requests-inflight=800", "--max-mutating-requests-inflight=400"])
            .arg("--shutdown-delay-duration=0s");
        if let Some(chance) = self.options.goaway_chance {
            command.arg(format!("--goaway-chance={chance}"));
        }
        if let Some(on) = self.options.constrained_impersonation {
            command.arg(format!("--feature-gates=ConstrainedImpersonation={on}"));
        }
        for (gate, on) in &self.options.feature_gates {
            command.arg(format!("--feature-gates={gate}={on}"));
        }
        command.args(&self.options.api_server_flags);
        command
    }

    fn start_controller_manager(&self) -> Result<Process> {
        let kubeconfig = self.write_kubeconfig(
            &self.directory,
            "controller-manager",
            &self.files.controller_manager,
        )?;
        let mut command = Command::new(&self.tools.controller_manager);
        command
            .arg(flag("kubeconfig", &kubeconfig))
            .arg(flag("service-account-private-key-file", &self.files.service_accounts.private))
            .arg(flag("root-ca-file", &self.files.authority.certificate))
            .args(["--use-service-account-credentials=true", "--leader-elect=false"])
            // It would serve health and metrics; nobody asks, and a port would have to be reserved.
            .arg("--secure-port=0");
        Process::start(
            "controller-manager",
            command,
            &self.directory.join("controller-manager.log"),
        )
    }

    fn write_kubeconfig(&self, directory: &Path, name: &str, files: &Files) -> Result<PathBuf> {
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "rig", "cluster": {
                "server": self.url(), "certificate-authority": self.files.authority.certificate,
            }}],
            "users": [{"name": name, "user": {
                "client-certificate": files.certificate, "client-key": files.key,
            }}],
            "contexts": [{"name": "rig", "context": {"cluster": "rig", "user": name}}],
            "current-context": "rig",
        });
        let path = directory.join(format!("{name}.kubeconfig"));
        write_private(&path, &config.to_string())?;
        Ok(path)
    }
}

fn start_etcd(tools: &Tools, directory: &Path, port: &Port) -> Result<Process> {
    let peer = Port::reserve()?;
    let mut command = Command::new(&tools.etcd);
    let (client, peers) =
        (format!("http://{}", port.address()), format!("http://{}", peer.address()));
    command
        .arg(flag("data-dir", &directory.join("etcd")))
        .args(["--name=rig", "--log-level=warn", "--unsafe-no-fsync"])
        .arg(format!("--listen-client-urls={client}"))
        .arg(format!("--advertise-client-urls={client}"))
        .arg(format!("--listen-peer-urls={peers}"))
        .arg(format!("--initial-advertise-peer-urls={peers}"))
        .arg(format!("--initial-cluster=rig={peers}"));
    // etcd binds the peer port within its first second and nobody else looks there: the kernel's own
    // check is enough after this lock is gone.
    Process::start("etcd", command, &directory.join("etcd.log"))
}

/// In a namespace of our own there are pods and nobody else.
fn bind_address() -> Ipv4Addr {
    if network::isolated() { Ipv4Addr::UNSPECIFIED } else { Ipv4Addr::LOCALHOST }
}

fn make_pki(directory: &Path) -> Result<(PkiFiles, Authority, Pair)> {
    let (authority, front_proxy) =
        (Authority::new("rig cluster")?, Authority::new("rig front proxy")?);
    let admin = authority.client("admin", "system:masters")?;
    let own = Pair { certificate: authority.certificate().to_owned(), key: authority.key() };
    let front_proxy_file = directory.join("front-proxy.crt");
    write_private(&front_proxy_file, front_proxy.certificate())?;
    let host = network::HOST.to_string();
    let names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", &host];
    let files = PkiFiles {
        authority: own.write(directory, "cluster")?,
        front_proxy: front_proxy_file,
        server: authority.server("kube-apiserver", &names)?.write(directory, "kube-apiserver")?,
        service_accounts: pki::signing_key(directory, "service-accounts")?,
        admin: admin.write(directory, "admin")?,
        controller_manager: authority
            .client("system:kube-controller-manager", "rig")?
            .write(directory, "controller-manager")?,
        kubelet_client: authority
            .client("kube-apiserver-kubelet-client", "system:masters")?
            .write(directory, "kubelet-client")?,
    };
    Ok((files, authority, admin))
}

fn flag(name: &str, path: &Path) -> String {
    format!("--{name}={}", path.display())
}

const AUDIT_POLICY: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules: [{level: Metadata}]
";

/// Two busy cores and a cold page cache: a start takes 3 s when nothing else runs.
const START_LIMIT: Duration = Duration::from_secs(90);
