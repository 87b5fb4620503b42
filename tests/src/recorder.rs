//! The `recorder` command line, as a user or a script calls it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::process::{self, Output};

/// The `recorder` binary over one store, or none.
#[derive(Clone, Debug)]
pub struct Recorder {
    binary: PathBuf,
    store: Option<PathBuf>,
    environment: Vec<(String, String)>,
}

impl Recorder {
    /// The binary beside this one, over the store in `directory`.
    ///
    /// # Errors
    /// When it is not built.
    pub fn over(directory: &Path) -> Result<Self> {
        let store = Some(directory.to_owned());
        Ok(Self { binary: sibling("recorder")?, store, environment: Vec::new() })
    }

    /// The same with other variables in its environment.
    #[must_use]
    pub fn with(self, environment: Vec<(String, String)>) -> Self {
        Self { environment, ..self }
    }

    /// The same over no store.
    #[must_use]
    pub fn without_store(self) -> Self {
        Self { store: None, ..self }
    }

    /// Runs it to its end, whatever its exit code.
    ///
    /// # Errors
    /// When it does not start or end.
    pub async fn run(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(&self.binary);
        command.args(arguments).env_remove("DECKLOG_STORE").envs(self.environment.iter().cloned());
        if let Some(store) = &self.store {
            command.arg("--store").arg(store);
        }
        process::run(command, LIMIT).await
    }

    /// Runs it with `--json` and reads one object a line.
    ///
    /// # Errors
    /// When it fails or prints anything else.
    pub async fn json(&self, arguments: &[&str]) -> Result<Vec<Value>> {
        let mut all = arguments.to_vec();
        all.push("--json");
        let output = self.run(&all).await?;
        if !output.success() {
            bail!("recorder {}: exit {:?}: {}", all.join(" "), output.code, output.stderr);
        }
        let object = |line| serde_json::from_str(line).with_context(|| format!("not JSON: {line}"));
        output.stdout.lines().filter(|line| !line.is_empty()).map(object).collect()
    }

    /// `recorder ls`.
    ///
    /// # Errors
    /// As [`Recorder::json`].
    pub async fn sessions(&self) -> Result<Vec<Value>> {
        self.json(&["ls"]).await
    }

    /// `recorder search` without a limit.
    ///
    /// # Errors
    /// As [`Recorder::json`].
    pub async fn search(&self, arguments: &[&str]) -> Result<Vec<Value>> {
        let mut all = vec!["search", "--limit", "0"];
        all.extend(arguments);
        self.json(&all).await
    }

    /// `recorder verify` of the whole store; fails unless it verifies.
    ///
    /// # Errors
    /// When it does not verify.
    pub async fn verify(&self) -> Result<()> {
        let output = self.run(&["verify"]).await?;
        if !output.success() {
            bail!("verify: exit {:?}: {}{}", output.code, output.stdout, output.stderr);
        }
        Ok(())
    }
}

/// A binary of this workspace: in `DECKLOG_BIN_DIR`, or beside the running one.
///
/// # Errors
/// When it is not there.
pub fn sibling(name: &str) -> Result<PathBuf> {
    let directory = match std::env::var_os("DECKLOG_BIN_DIR") {
        Some(directory) => PathBuf::from(directory),
        None => {
            let own = std::env::current_exe().context("find this binary")?;
            own.parent().context("this binary is in a directory")?.to_owned()
        }
    };
    let path = directory.join(name);
    if !path.exists() {
        bail!("{} is not built: run `cargo build --bin {name}`", path.display());
    }
    Ok(path)
}

const LIMIT: Duration = Duration::from_secs(120);
