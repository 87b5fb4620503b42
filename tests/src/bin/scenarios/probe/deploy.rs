//! The shipped manifests: what they say, and what becomes of them on a real node.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rig::client::Endpoint;
use rig::gateway::jwt;
use rig::issuer::Issuer;
use rig::network;
use rig::node::pods::{Pod, manifest};
use rig::pki::{Authority, write_private};
use rig::policy::ALLOW_ALL;
use rig::process::{self, Output};
use rig::product;
use rig::recorder::{Recorder, sibling};
use rig::wait::{Level, until};
use serde_json::{Value, json};

use super::rollout;
use crate::bypass;
use crate::scene::{Scene, USERS};
use crate::streams::Cluster;

/// Which overlay of `deploy/kustomize`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Overlay {
    Privileged,
    Split,
}

impl Overlay {
    const fn name(self) -> &'static str {
        match self {
            Self::Privileged => "privileged",
            Self::Split => "split",
        }
    }
}

pub(super) async fn privileged(scene: Rc<Scene>) -> Result<()> {
    on_a_node(&scene, Overlay::Privileged).await
}

pub(super) async fn split(scene: Rc<Scene>) -> Result<()> {
    on_a_node(&scene, Overlay::Split).await
}

/// Both overlays render, and give what they promise and no more.
pub(super) async fn renders(scene: Rc<Scene>) -> Result<()> {
    for overlay in [Overlay::Privileged, Overlay::Split] {
        let directory = shipped().join("kustomize/overlays").join(overlay.name());
        let directory = directory.display().to_string();
        let kubeconfig = scene.plane().admin_kubeconfig()?;
        let text = scene.kubectl_ok(&kubeconfig, &["kustomize", &directory]).await?;
        let file = scene.manifest("rendered.json", &Value::Null)?;
        fs::write(&file, &text)?;
        // The API server reads YAML and answers in JSON; nothing is made.
        let dry = ["apply", "--dry-run=client", "--output=json", "-f", &file];
        let listed: Value = serde_json::from_str(&scene.kubectl_ok(&kubeconfig, &dry).await?)?;
        let objects = listed["items"].as_array().context("a list")?;
        let set = objects.iter().find(|object| object["kind"] == "DaemonSet");
        let pod = &set.context("a DaemonSet")?["spec"]["template"]["spec"];
        ensure!(!text.contains("image: decklog/") && !text.contains(".io/decklog"), "{text}");
        check_pod(pod, overlay).with_context(|| pod.to_string())?;
        let role = objects.iter().find(|object| object["kind"] == "ClusterRole");
        for rule in role.context("a ClusterRole")?["rules"].as_array().into_iter().flatten() {
            ensure!(rule["verbs"] == json!(["impersonate"]), "{rule}");
        }
    }
    Ok(())
}

fn check_pod(pod: &Value, overlay: Overlay) -> Result<()> {
    let containers: Vec<&Value> = ["containers", "initContainers"]
        .iter()
        .flat_map(|kind| pod[*kind].as_array().into_iter().flatten())
        .collect();
    for container in &containers {
        ensure!(container["image"] == product::IMAGE, "another image than this version's");
        ensure!(container["securityContext"]["readOnlyRootFilesystem"] == true, "{container}");
    }
    let named = |name: &str| {
        let found = containers.iter().find(|container| container["name"] == name);
        found.map(|container| &container["securityContext"]).context("a container")
    };
    ensure!(pod["automountServiceAccountToken"] == false, "every container has the token");
    if overlay == Overlay::Privileged {
        ensure!(containers.len() == 1 && named("gateway")?["privileged"] == true, "one container");
        return Ok(());
    }
    ensure!(pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault", "seccomp");
    let gateway = named("gateway")?;
    ensure!(gateway["capabilities"] == json!({"drop": ["ALL"]}), "the gateway has rights");
    ensure!(gateway["runAsNonRoot"] == true, "the gateway may be root");
    let rights = json!({"drop": ["ALL"], "add": ["BPF", "PERFMON", "NET_ADMIN"]});
    ensure!(named("probe")?["capabilities"] == rights, "the probe has other rights");
    for name in ["gateway", "probe", "prepare"] {
        ensure!(named(name)?["allowPrivilegeEscalation"] == false, "{name} may gain rights");
    }
    Ok(())
}

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

/// A deployment of an overlay, as a user would make one: a directory with an overlay of one's own.
pub(super) struct Deployment<'s> {
    pub(super) scene: &'s Scene,
    pub(super) cluster: Rc<Cluster>,
    pub(super) admin: PathBuf,
    authority: Authority,
    /// Which pods reach: that of the other scenarios is on loopback.
    issuer: Issuer,
    overlay: Overlay,
    /// Two directories of the node: the gateway's, and that of the client's pod.
    home: PathBuf,
    client: PathBuf,
}

async fn on_a_node(scene: &Scene, overlay: Overlay) -> Result<()> {
    let deployment = Deployment::apply(scene, overlay).await?;
    let checked = deployment.check().await;
    let logs = deployment.logs().await;
    // What the runner searches for secrets.
    fs::write(deployment.home.join("gateway.log"), &logs)?;
    let removed = deployment.remove().await;
    checked.with_context(|| logs)?;
    removed
}

impl<'s> Deployment<'s> {
    async fn apply(scene: &'s Scene, overlay: Overlay) -> Result<Self> {
        let cluster = scene.world.cluster().await?;
        let archive = scene.directory().join("decklog.tar");
        let binaries = sibling("gateway")?;
        let binaries = binaries.parent().context("a program in a directory")?.to_owned();
        let built = archive.clone();
        tokio::task::spawn_blocking(move || product::write(&binaries, &built)).await??;
        cluster.node.import(&archive).await?;
        fs::remove_file(&archive)?;
        let issuer = scene.directory().join("issuer");
        let deployment = Self {
            scene,
            admin: cluster.plane.admin_kubeconfig()?,
            cluster,
            authority: Authority::new("decklog")?,
            issuer: Issuer::start_on(network::HOST, &issuer, &USERS, TOKEN_TTL).await?,
            overlay,
            home: scene.directory().join("node"),
            client: scene.directory().join("client"),
        };
        fs::create_dir_all(&deployment.client)?;
        let directory = deployment.write()?.display().to_string();
        deployment.kubectl(&["apply", "-k", &directory]).await?;
        deployment.rolled_out().await?;
        Ok(deployment)
    }

    /// The shipped files, and beside their overlays one of our own.
    fn write(&self) -> Result<PathBuf> {
        let copy = self.scene.directory().join("deploy");
        copy_tree(&shipped(), &copy)?;
        let own = copy.join("kustomize/overlays/rig");
        fs::create_dir_all(&own)?;
        let tls = self.authority.server("decklog", &[SERVICE])?;
        write_private(&own.join("tls.crt"), &tls.certificate)?;
        write_private(&own.join("tls.key"), &tls.key)?;
        fs::write(own.join("gateway.yaml"), self.config().to_string())?;
        fs::write(own.join("all.cedar"), ALLOW_ALL)?;
        let pod = json!({
            "volumes": [
                {"name": "store", "hostPath": {"path": self.home}},
                {"name": "pod-logs", "hostPath": {"path": self.cluster.pod_logs()}},
            ],
        });
        let patch = json!({
            "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "decklog"},
            "spec": {"template": {"spec": pod}},
        });
        let replaced =
            |name: &str, file: &str| json!({"name": name, "behavior": "replace", "files": [file]});
        let kustomization = json!({
            "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization",
            "namespace": "decklog",
            "resources": [format!("../{}", self.overlay.name())],
            "configMapGenerator": [
                replaced("decklog-gateway", "gateway.yaml"), replaced("decklog-access", "all.cedar"),
            ],
            "secretGenerator": [{
                "name": "decklog-tls", "type": "kubernetes.io/tls", "files": ["tls.crt", "tls.key"],
            }],
            "patches": [{"patch": patch.to_string()}],
        });
        fs::write(own.join("kustomization.yaml"), kustomization.to_string())?;
        Ok(own)
    }

    fn config(&self) -> Value {
        let account = "/var/run/secrets/kubernetes.io/serviceaccount";
        // The kubelet and the rig itself, which is in the root cgroup, have another address of the API server.
        let local = self.cluster.plane.url();
        let local = local.trim_start_matches("https://");
        let mut witness = json!({
            "mode": "ebpf",
            "endpoints": [local],
            "host": {"proc": "/host/proc"},
            "allow": [{"cgroup": "/"}, {"cgroup": "/decklog-node-*/kubelet.service"}],
        });
        if self.overlay == Overlay::Split {
            witness["probe"] = json!("/run/decklog/probe.sock");
        }
        json!({
            "listen": "0.0.0.0:8443",
            "tls": {"certificate": "/etc/decklog-tls/tls.crt", "key": "/etc/decklog-tls/tls.key"},
            "health": {"listen": "0.0.0.0:9080"},
            "store": {"directory": "/var/lib/decklog/store"},
            "clusters": [{
                "name": "rig",
                "server": format!("https://{}", self.cluster.plane.address_for_pods()),
                "certificateAuthority": format!("{account}/ca.crt"),
                "credential": {"tokenFile": format!("{account}/token")},
            }],
            "authentication": {"jwt": [jwt(&self.issuer)]},
            "policy": {
                "access": "/etc/decklog-policy/access",
                "recording": "/etc/decklog-policy/recording",
            },
            "witness": witness,
        })
    }

    /// Where the pods of clients are.
    fn namespace(&self) -> String {
        format!("deploy-{}", self.overlay.name())
    }

    /// The overlay's name.
    pub(super) fn name(&self) -> &'static str {
        self.overlay.name()
    }

    /// kubectl as administrator, straight to the API server.
    pub(super) async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let home = self.scene.directory().join("home");
        let command = self.scene.kubectl().command(&home, &self.admin, arguments);
        succeeded(command).await
    }

    /// Waits until the node runs the newest version of the pod, and it is ready.
    pub(super) async fn rolled_out(&self) -> Result<()> {
        let path = "/apis/apps/v1/namespaces/decklog/daemonsets/decklog";
        let plane = &self.cluster.plane;
        let rolled = until("the DaemonSet is rolled out", ROLLOUT_LIMIT, async || {
            let set = plane.get(path).await?.json()?;
            let (status, generation) = (&set["status"], &set["metadata"]["generation"]);
            let done = status["observedGeneration"] == *generation
                && status["updatedNumberScheduled"] == 1
                && status["numberAvailable"] == 1;
            Ok(Level::when(done, || status.to_string()))
        })
        .await;
        match rolled {
            Ok(()) => Ok(()),
            Err(error) => {
                let seen = self.kubectl(&["describe", "pods", "-n", "decklog"]).await;
                let logs = self.logs().await;
                bail!("{error:#}\n{}\n{logs}", seen.unwrap_or_else(|error| error.to_string()))
            }
        }
    }

    async fn logs(&self) -> String {
        let labels = "app.kubernetes.io/name=decklog";
        let all = ["logs", "-n", "decklog", "-l", labels, "--all-containers", "--tail=-1"];
        self.kubectl(&all).await.unwrap_or_else(|error| format!("{error:#}"))
    }

    /// The Service's one endpoint, when it is ready. The rig's node has no kube-proxy (it takes netfilter), so clients
    /// follow the Service's EndpointSlices themselves.
    pub(super) async fn endpoint(&self) -> Result<Endpoint> {
        let path = "/apis/discovery.k8s.io/v1/namespaces/decklog/endpointslices\
                    ?labelSelector=kubernetes.io/service-name%3Ddecklog";
        let slices = self.cluster.plane.get(path).await?.json()?;
        let endpoints = slices["items"].as_array().into_iter().flatten();
        let endpoints = endpoints.flat_map(|slice| slice["endpoints"].as_array()).flatten();
        let ready = endpoints.into_iter().find(|it| it["conditions"]["ready"] == true);
        let address = ready.and_then(|it| it["addresses"][0].as_str()).context("none is ready")?;
        let address: IpAddr = address.parse().context("an address")?;
        Endpoint::new((address, PORT).into(), self.authority.certificate(), None)?.named(SERVICE)
    }

    /// A token of the deployment's issuer.
    pub(super) async fn token(&self, user: &str) -> Result<String> {
        self.issuer.token(user).await
    }

    pub(super) fn recorder(&self) -> Result<Recorder> {
        Recorder::over(&self.home.join("store"))
    }

    async fn check(&self) -> Result<()> {
        self.visit().await.context("a client in a pod")?;
        self.kernel_verified().await?;
        self.reports_a_bypass().await.context("a pod that goes round the gateway")?;
        rollout::under_load(self).await.context("a rolling restart")?;
        let sessions = self.recorder()?.json(&["ls", "--kind", "api"]).await?;
        ensure!(!sessions.is_empty(), "no sessions");
        for session in &sessions {
            ensure!(session["state"] != "incomplete", "{session}");
            ensure!(session["account"]["state"] == "complete", "{session}");
        }
        self.recorder()?.verify().await
    }

    /// kubectl in a pod of its own, which knows nothing but the gateway.
    async fn visit(&self) -> Result<()> {
        let namespace = self.namespace();
        let plane = &self.cluster.plane;
        let mut client = manifest("client", &["sleep", "3600"]);
        // What DNS would tell.
        let gateway = self.endpoint().await?.address().ip();
        client["spec"]["hostAliases"] = json!([{"ip": gateway, "hostnames": [SERVICE]}]);
        client["spec"]["volumes"] = json!([{"name": "client", "hostPath": {"path": self.client}}]);
        client["spec"]["containers"][0]["volumeMounts"] =
            json!([{"name": "client", "mountPath": "/client"}]);
        fs::copy(self.scene.kubectl().binary(), self.client.join("kubectl"))?;
        write_private(&self.client.join("ca.crt"), self.authority.certificate())?;
        let token = self.token("alice").await?;
        write_private(&self.client.join("kubeconfig"), &self.kubeconfig(&token).to_string())?;
        let client = Pod::run(plane, &namespace, &client).await?;
        let target = Pod::run(plane, &namespace, &manifest("target", &["sleep", "3600"])).await?;
        let listed = self.in_pod(&namespace, &["get", "pods", "-o", "name"]).await?;
        ensure!(listed.contains("pod/target"), "{listed}");
        let said =
            self.in_pod(&namespace, &["exec", "target", "--", "echo", "from the pod"]).await?;
        ensure!(said == "from the pod\n", "{said:?}");
        self.in_pod(&namespace, &["delete", "pod", "target", "--wait=false"]).await?;
        let deleted = plane.get(&target.path()).await;
        let going =
            deleted.is_err() || deleted?.json()?["metadata"]["deletionTimestamp"].is_string();
        ensure!(going, "the pod is still there");
        client.delete().await
    }

    fn kubeconfig(&self, token: &str) -> Value {
        let server = format!("https://{SERVICE}:{PORT}");
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "decklog",
            "clusters": [{"name": "decklog", "cluster": {
                "server": server, "certificate-authority": "/client/ca.crt",
            }}],
            "users": [{"name": "alice", "user": {"token": token}}],
            "contexts": [{"name": "decklog", "context": {"cluster": "decklog", "user": "alice"}}],
        })
    }

    async fn in_pod(&self, namespace: &str, arguments: &[&str]) -> Result<String> {
        let client = ["exec", "-n", namespace, "client", "--", "/client/kubectl"];
        let own = ["--kubeconfig=/client/kubeconfig", "--cache-dir=/tmp/cache", "-n", namespace];
        self.kubectl(&[&client[..], &own[..], arguments].concat()).await
    }

    /// What was done in the pod is on record, and the kernel of the node confirms it.
    async fn kernel_verified(&self) -> Result<()> {
        let recorder = self.recorder()?;
        until("the visit is on record", RECORD_LIMIT, async || {
            let rows = recorder.search(&[]).await?;
            let exec = rows
                .iter()
                .any(|row| row["subresource"] == "exec" && row["account"]["state"] == "complete");
            let deleted = rows.iter().any(|row| row["verb"] == "delete" && row["status"] == 200);
            let settled = rows.iter().all(|row| row["account"]["state"] == "complete");
            Ok(Level::when(exec && deleted && settled, || format!("{rows:?}")))
        })
        .await?;
        let sessions = recorder.json(&["ls", "--kind", "api"]).await?;
        let session = sessions.first().context("a session")?;
        // After the session. A machine with too much to do may keep a thread of the witness waiting, which is told, and
        // costs the word.
        let lines = recorder.json(&["witness"]).await?;
        let witness = &lines.first().context("a line")?["witness"];
        ensure!(witness["tier"] == "T1" && witness["selfTest"] == true, "{witness}");
        let told = lines.iter().filter_map(|line| line["changes"].as_array());
        let is_undisturbed = told.into_iter().all(Vec::is_empty);
        let is_verified = session["account"]["kernelVerified"] == true;
        ensure!(is_verified || !is_undisturbed, "{session}, {lines:?}");
        let pod = &session["client"]["origin"]["pod"];
        ensure!(pod["name"] == "client" && pod["namespace"] == self.namespace(), "{session}");
        let shown = recorder.run(&["show", session["session"].as_str().context("an id")?]).await?;
        let says = shown.stdout.contains("kernel-verified") || !is_undisturbed;
        ensure!(shown.success() && says, "{}", shown.stdout);
        Ok(())
    }

    /// A pod that speaks with the API server itself is named, and nobody else: neither the kubelet nor this gateway.
    async fn reports_a_bypass(&self) -> Result<()> {
        let namespace = self.namespace();
        let plane = &self.cluster.plane;
        let rogue = bypass::rogue(plane.address_for_pods(), "");
        let rogue = Pod::run(plane, &namespace, &rogue).await?;
        let recorder = self.recorder()?;
        let found = until("the bypass is on record", RECORD_LIMIT, async || {
            let found = recorder.json(&["search", "--kind", "bypass", "--limit", "0"]).await?;
            let ended = found.iter().any(|session| session["state"] == "ended");
            Ok(if ended { Level::Reached(found) } else { Level::NotYet(format!("{found:?}")) })
        })
        .await?;
        for session in &found {
            let pod = &session["bypass"]["origin"]["pod"];
            ensure!(pod["name"] == rogue.name() && pod["namespace"] == namespace, "{session}");
            ensure!(pod["container"] == "box", "{session}");
            ensure!(session["bypass"]["sentBytes"] == bypass::PLAIN.len(), "{session}");
        }
        rogue.delete().await
    }

    async fn remove(&self) -> Result<()> {
        let path = "/apis/apps/v1/namespaces/decklog/daemonsets/decklog";
        self.kubectl(&["delete", "daemonset", "decklog", "-n", "decklog", "--wait=false"]).await?;
        let plane = &self.cluster.plane;
        until("its pods are gone", ROLLOUT_LIMIT, async || {
            let pods = plane.get("/api/v1/namespaces/decklog/pods").await?.json()?;
            let none = pods["items"].as_array().is_some_and(Vec::is_empty);
            let set = plane.admin().get(path).await?;
            Ok(Level::when(none && !set.status.is_success(), || pods.to_string()))
        })
        .await
    }
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("make {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("read {}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

async fn succeeded(command: Command) -> Result<String> {
    let shown = format!("{command:?}");
    let output: Output = process::run(command, COMMAND_LIMIT).await?;
    ensure!(output.success(), "{shown}: {}{}", output.stdout, output.stderr);
    Ok(output.stdout)
}

/// What clients call the gateway, and its certificate says.
const SERVICE: &str = "decklog.decklog.svc";
const PORT: u16 = 8443;
const TOKEN_TTL: Duration = Duration::from_secs(3600);
const ROLLOUT_LIMIT: Duration = Duration::from_secs(180);
const COMMAND_LIMIT: Duration = Duration::from_secs(120);
const RECORD_LIMIT: Duration = Duration::from_secs(20);
