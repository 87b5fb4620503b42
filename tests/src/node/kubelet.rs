//! The kubelet: its certificates, its configuration, and when its node is ready.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};

use super::cgroup::Cgroup;
use super::containerd;
use super::link::Link;
use super::realm::{self, Realm};
use crate::controlplane::ControlPlane;
use crate::pki::{Files, write_private};
use crate::port::Port;
use crate::process::{Process, tail};
use crate::tools::NodeTools;
use crate::wait::{Level, until};

/// Its cgroup's name, below the node's.
const CGROUP: &str = "kubelet.service";

/// Starts it; its node is ready for pods when this returns.
pub(super) async fn start(
    realm: &Realm,
    directory: &Path,
    plane: &ControlPlane,
    place: (&Link, &Cgroup, &Port),
    tools: &NodeTools,
) -> Result<Process> {
    let (link, cgroup, port) = place;
    let name = link.name();
    let user = format!("system:node:{name}");
    let names = [name.as_str(), &link.address().to_string()];
    let server = plane.signer().server(&user, &names)?.write(directory, "kubelet-server")?;
    let kubeconfig = plane.kubeconfig(directory, "kubelet", (&user, "system:nodes"))?;
    let file = directory.join("kubelet.json");
    let configuration = configuration(directory, plane, &server, (link, cgroup, port));
    write_private(&file, &configuration.to_string())?;
    let flag = |name: &str, path: &Path| format!("--{name}={}", path.display());
    let mut command = Command::new(&tools.kubelet);
    command
        .arg(flag("config", &file))
        .arg(flag("kubeconfig", &kubeconfig))
        .arg(flag("root-dir", &Path::new(realm::HOME).join("kubelet")))
        .arg(flag("cert-dir", &directory.join("kubelet-pki")))
        .arg(format!("--hostname-override={name}"))
        .arg(format!("--node-ip={}", link.address()));
    let log = directory.join("kubelet.log");
    let mut process = realm.start("kubelet", command, &log)?;
    // As systemd does it, so that what it does is told from what others of the host do.
    cgroup.put(CGROUP, process.id())?;
    until("the node is ready", READY_LIMIT, async || {
        process.check()?;
        let reply = plane.admin().get(&format!("/api/v1/nodes/{name}")).await?;
        if !reply.status.is_success() {
            return Ok(Level::NotYet(reply.text()));
        }
        let node = reply.json()?;
        Ok(Level::when(is_ready(&node), || node["status"]["conditions"].to_string()))
    })
    .await
    .with_context(|| format!("{} ends:\n{}", log.display(), tail(&log)))?;
    Ok(process)
}

fn configuration(
    directory: &Path,
    plane: &ControlPlane,
    server: &Files,
    place: (&Link, &Cgroup, &Port),
) -> Value {
    let (link, cgroup, port) = place;
    let gates: Map<String, Value> = plane
        .options()
        .feature_gates
        .iter()
        .map(|(gate, on)| ((*gate).to_owned(), json!(on)))
        .collect();
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "featureGates": gates,
        "address": link.address(),
        "port": port.number(),
        "healthzPort": 0,
        "tlsCertFile": server.certificate,
        "tlsPrivateKeyFile": server.key,
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": plane.authority_file()},
        },
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": format!("unix://{}", containerd::SOCKET),
        // Both versions of cgroups will do, each without systemd, and none but our own is tidied up.
        "failCgroupV1": false,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroup.path(),
        "failSwapOn": false,
        // A full disk is the machine's affair: nobody's pods shall be put out for it.
        "evictionHard": {"nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "podLogsDir": directory.join("pod-logs"),
        "volumePluginDir": directory.join("volume-plugins"),
        // There is no DNS; with an address the kubelet has no reason to warn with each pod.
        "clusterDomain": "cluster.local",
        "clusterDNS": ["10.96.0.10"],
        "resolvConf": "",
        "makeIPTablesUtilChains": false,
    })
}

/// Ready, and the controllers have seen it: until then nothing is scheduled there.
fn is_ready(node: &Value) -> bool {
    let conditions = node["status"]["conditions"].as_array();
    let ready = conditions
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
    ready && node["spec"]["taints"].is_null()
}

/// With two busy cores and a cold page cache; a few seconds when nothing else runs.
const READY_LIMIT: Duration = Duration::from_secs(120);
