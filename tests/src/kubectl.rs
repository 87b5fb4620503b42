//! The real kubectl: the pinned one from the cache, and older ones where the machine has them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::process::{self, Output};

/// One kubectl binary.
#[derive(Clone, Debug)]
pub struct Kubectl {
    binary: PathBuf,
    minor: u32,
}

/// The kubectl binaries of this machine.
#[derive(Clone, Debug)]
pub struct Versions {
    /// The pinned one, and one of each older minor version that was found, newest first.
    pub found: Vec<Kubectl>,
    /// Minor versions that were looked for and are absent.
    pub absent: Vec<u32>,
}

impl Kubectl {
    /// A binary whose version is asked of it.
    ///
    /// # Errors
    /// When it does not run or says no version.
    pub fn at(binary: &Path) -> Result<Self> {
        let mut command = Command::new(binary);
        command.env_clear().args(["version", "--client", "--output=json"]);
        let output = process::run_blocking(command, VERSION_LIMIT)?;
        let version: Value = serde_json::from_str(&output.stdout)
            .with_context(|| format!("{}: {}", binary.display(), output.stderr))?;
        let minor = version["clientVersion"]["minor"].as_str().unwrap_or_default();
        let minor = minor.trim_end_matches('+').parse();
        let minor = minor.with_context(|| format!("{}: no minor version", binary.display()))?;
        Ok(Self { binary: binary.to_owned(), minor })
    }

    /// Its version, as `1.36`.
    #[must_use]
    pub fn version(&self) -> String {
        format!("1.{}", self.minor)
    }

    /// Its minor version.
    #[must_use]
    pub fn minor(&self) -> u32 {
        self.minor
    }

    /// Where it is.
    #[must_use]
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// A command with its environment cut off from the user's: no kubeconfig, cache or plugins but those in `home`.
    #[must_use]
    pub fn command(&self, home: &Path, kubeconfig: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", home)
            .env("KUBECACHEDIR", home.join("cache"))
            .env("KUBECONFIG", kubeconfig)
            .current_dir(home)
            .args(arguments);
        command
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// When it does not start or takes longer than a minute.
    pub async fn run(&self, home: &Path, kubeconfig: &Path, arguments: &[&str]) -> Result<Output> {
        process::run(self.command(home, kubeconfig, arguments), RUN_LIMIT).await
    }
}

impl Versions {
    /// The pinned kubectl and what the machine has besides: `kubectl`, `kubectl.1.NN` and `kubectl-1.NN`
    /// on PATH, and every file in `DECKLOG_KUBECTL_DIR` and where Debian's google-cloud-cli keeps them.
    ///
    /// # Errors
    /// When the pinned one cannot be built or run.
    pub fn find(pinned: &Path) -> Result<Self> {
        let newest = Kubectl::at(pinned)?;
        let mut by_minor = BTreeMap::from([(newest.minor, newest)]);
        for candidate in candidates() {
            // A file that is no kubectl is not our concern.
            if let Ok(kubectl) = Kubectl::at(&candidate) {
                by_minor.entry(kubectl.minor).or_insert(kubectl);
            }
        }
        let absent = WANTED_MINORS.into_iter().filter(|minor| !by_minor.contains_key(minor));
        let absent = absent.collect();
        Ok(Self { found: by_minor.into_values().rev().collect(), absent })
    }

    /// The pinned kubectl.
    #[must_use]
    pub fn newest(&self) -> &Kubectl {
        self.found.first().expect("the pinned one is always there")
    }
}

/// Fails unless the command succeeded, showing what it said.
///
/// # Errors
/// With the command's output.
pub fn succeeded(output: Output) -> Result<Output> {
    if !output.success() {
        bail!("exit {:?}: {}{}", output.code, output.stdout, output.stderr);
    }
    Ok(output)
}

fn candidates() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let packaged = PathBuf::from(CLOUD_SDK);
    let named = std::env::split_paths(&path)
        .chain([packaged])
        .flat_map(files)
        .filter(|file| name(file).is_some_and(|name| is_kubectl_name(&name)));
    let own = std::env::var_os("DECKLOG_KUBECTL_DIR").map(PathBuf::from);
    own.into_iter().flat_map(files).chain(named).collect()
}

fn files(directory: PathBuf) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut files: Vec<_> =
        entries.map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    files.sort();
    files
}

fn name(file: &Path) -> Option<String> {
    Some(file.file_name()?.to_str()?.to_owned())
}

fn is_kubectl_name(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("kubectl") else { return false };
    let version = rest.trim_start_matches(['.', '-']);
    rest.is_empty()
        || (version.starts_with("1.") && version[2..].chars().all(|c| c.is_ascii_digit()))
}

/// Where Debian's google-cloud-cli keeps a kubectl of each minor version.
const CLOUD_SDK: &str = "/usr/lib/google-cloud-sdk/bin";
/// Versions that take part where the machine has them: up to 1.29 exec speaks SPDY, then WebSocket.
const WANTED_MINORS: [u32; 9] = [35, 34, 33, 32, 31, 30, 29, 28, 27];
const VERSION_LIMIT: Duration = Duration::from_secs(20);
const RUN_LIMIT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::is_kubectl_name;

    #[test]
    fn only_kubectls_are_tried() {
        for name in ["kubectl", "kubectl.1.29", "kubectl-1.34"] {
            assert!(is_kubectl_name(name), "{name}");
        }
        for name in ["kubectl-login", "kubectl_complete", "kubectx", "kubectl.1.x"] {
            assert!(!is_kubectl_name(name), "{name}");
        }
    }
}
