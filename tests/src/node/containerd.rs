//! containerd, with runc and the CNI plugins behind it.
//!
//! Its sockets and its state are where they always are, in `/run`, which is the realm's own.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::images::{Images, PAUSE};
use super::link::Link;
use super::packages::Distribution;
use super::realm::Realm;
use crate::process::{Process, tail};
use crate::tools::NodeTools;
use crate::wait::{Level, until};

/// Starts it, and gives it the rig's images.
pub(super) async fn start(
    realm: &Realm,
    directory: &Path,
    link: &Link,
    programs: (&NodeTools, &Distribution),
    images: &Images,
) -> Result<Process> {
    let (tools, distribution) = programs;
    let network = directory.join("cni");
    fs::create_dir_all(&network).with_context(|| format!("make {}", network.display()))?;
    fs::write(network.join("10-ptp.conflist"), network_list(link)).context("write the network")?;
    let file = directory.join("containerd.toml");
    fs::write(&file, configuration(directory, &network, tools, distribution))
        .context("write containerd's configuration")?;
    let mut command = Command::new(&tools.containerd);
    command.arg("--config").arg(&file);
    let log = directory.join("containerd.log");
    let mut process = realm.start("containerd", command, &log)?;
    until("containerd answers", START_LIMIT, async || {
        process.check()?;
        let output = realm.run(ctr(tools, &["version"]), START_LIMIT).await?;
        Ok(Level::when(output.success(), || output.stderr))
    })
    .await
    .with_context(|| format!("{} ends:\n{}", log.display(), tail(&log)))?;
    import(realm, tools, &images.archive).await?;
    Ok(process)
}

/// Gives a running containerd the images of an archive.
pub(super) async fn import(realm: &Realm, tools: &NodeTools, archive: &Path) -> Result<()> {
    let mut import = ctr(tools, &["--namespace", "k8s.io", "images", "import"]);
    import.arg(archive);
    let output = realm.run(import, IMPORT_LIMIT).await?;
    ensure!(output.success(), "import {}: {}", archive.display(), output.stderr);
    Ok(())
}

fn ctr(tools: &NodeTools, arguments: &[&str]) -> Command {
    let mut command = Command::new(&tools.ctr);
    command.args(["--address", SOCKET]).args(arguments);
    command
}

/// Version 3 of the configuration: containerd 2.
fn configuration(
    directory: &Path,
    network: &Path,
    tools: &NodeTools,
    distribution: &Distribution,
) -> String {
    format!(
        r#"version = 3
root = "{root}"
state = "/run/containerd"
[grpc]
  address = "{SOCKET}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{opt}"
[plugins."io.containerd.nri.v1.nri"]
  disable = true
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{PAUSE}"
[plugins."io.containerd.cri.v1.runtime"]
  # Lowering a score needs CAP_SYS_RESOURCE, which root in a container or a sandbox may lack.
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["{plugins}"]
  conf_dir = "{network}"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
  runtime_path = "{shim}"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
  BinaryName = "{runc}"
"#,
        root = directory.join("containerd").display(),
        opt = directory.join("opt").display(),
        plugins = distribution.cni.display(),
        network = network.display(),
        shim = tools.shim.display(),
        runc = distribution.runc.display(),
    )
}

/// A veth pair per pod, with routes instead of a bridge or address translation: pods reach each other and
/// the node, and nothing else is there to be reached.
fn network_list(link: &Link) -> String {
    let subnet = link.pod_subnet();
    json!({
        "cniVersion": "1.0.0", "name": "pods",
        "plugins": [{
            "type": "ptp", "ipMasq": false,
            "ipam": {
                "type": "host-local", "dataDir": "/run/cni",
                "ranges": [[{"subnet": subnet}]], "routes": [{"dst": "0.0.0.0/0"}],
            },
        }],
    })
    .to_string()
}

/// Where the kubelet finds it.
pub(super) const SOCKET: &str = "/run/containerd/containerd.sock";
const START_LIMIT: Duration = Duration::from_secs(60);
const IMPORT_LIMIT: Duration = Duration::from_secs(120);
