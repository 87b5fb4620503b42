//! What the node takes from the distribution: Debian's packages, installed when something is missing.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail, ensure};

use crate::{cache, network, process};

/// Programs of the distribution, by their paths.
#[derive(Clone, Debug)]
pub(super) struct Distribution {
    /// The container runtime: it needs libseccomp, which a build without cgo would not have.
    pub(super) runc: PathBuf,
    /// The directory of the CNI plugins.
    pub(super) cni: PathBuf,
}

impl Distribution {
    /// Finds what a node needs, and installs what is missing.
    ///
    /// # Errors
    /// When something is missing and cannot be installed.
    pub(super) fn find_or_install() -> Result<Self> {
        require(&[
            ("runc", "runc"),
            (CNI_PLUGIN, "containernetworking-plugins"),
            ("ip", "iproute2"),
        ])?;
        let cni = Path::new(CNI_PLUGIN).parent().expect("a file in a directory").to_owned();
        Ok(Self { runc: find("runc").expect("just required"), cni })
    }
}

/// Installs the packages of those programs (by name or path) that are missing.
///
/// # Errors
/// When one is missing, and this is not root on a machine with apt-get or the installation fails.
pub(super) fn require(programs: &[(&str, &str)]) -> Result<()> {
    let missing = || {
        let missing = programs.iter().filter(|(program, _)| find(program).is_none());
        missing.map(|&(_, package)| package).collect::<Vec<_>>()
    };
    if missing().is_empty() {
        return Ok(());
    }
    let _lock = cache::lock("packages")?;
    let packages = missing();
    if packages.is_empty() {
        return Ok(());
    }
    let root = std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
    ensure!(
        root && find("apt-get").is_some(),
        "a node needs `{}`, and only root with apt-get can install that from here",
        packages.join(" ")
    );
    eprintln!("rig: installing {}", packages.join(", "));
    apt_get(&["update", "-qq"])?;
    apt_get(&[&["install", "-y", "-qq", "--no-install-recommends"], &packages[..]].concat())?;
    match missing() {
        missing if missing.is_empty() => Ok(()),
        missing => bail!("{} is installed but not where it is looked for", missing.join(", ")),
    }
}

/// A program by its path, or by its name on `PATH` and where root's programs are.
pub(super) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    // Joined with a path from the root, a directory does not matter.
    directories.map(|directory| directory.join(program)).find(|file| file.is_file())
}

fn apt_get(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    network::outside(&mut command);
    let output = process::run_blocking(command, APT_LIMIT)?;
    ensure!(output.success(), "apt-get {}: {}", arguments.join(" "), output.stderr.trim());
    Ok(())
}

const CNI_PLUGIN: &str = "/usr/lib/cni/ptp";
const APT_LIMIT: Duration = Duration::from_secs(600);
