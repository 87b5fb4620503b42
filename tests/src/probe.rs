//! The real `recorder probe`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::process::{Process, tail};
use crate::recorder::sibling;
use crate::wait::{Level, until};

/// A probe: running, or stopped.
#[derive(Debug)]
pub struct Probe {
    directory: PathBuf,
    process: Option<Process>,
}

impl Probe {
    /// Starts one with its socket and log in a directory; it serves when this returns.
    ///
    /// # Errors
    /// When the binary is missing, or it does not serve.
    pub async fn start(directory: &Path) -> Result<Self> {
        let mut probe = Self { directory: directory.to_owned(), process: None };
        probe.resume().await?;
        Ok(probe)
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.directory.join("probe.sock")
    }

    fn log_file(&self) -> PathBuf {
        self.directory.join("probe.log")
    }

    /// Its log so far.
    ///
    /// # Errors
    /// When it cannot be read or a line is no JSON.
    pub fn log(&self) -> Result<Vec<Value>> {
        let text = std::fs::read_to_string(self.log_file()).context("read the probe's log")?;
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let object = |line| serde_json::from_str(line).with_context(|| format!("not JSON: {line}"));
        whole.lines().map(object).collect()
    }

    /// Starts it (again).
    ///
    /// # Errors
    /// When it does not serve.
    pub async fn resume(&mut self) -> Result<()> {
        let before = if self.log_file().exists() { self.attachments()? } else { 0 };
        let mut command = Command::new(sibling("recorder")?);
        command.arg("probe").arg("--listen").arg(self.socket());
        let mut process = Process::start("recorder probe", command, &self.log_file())?;
        until("the probe serves", LIMIT, async || {
            process.check()?;
            Ok(Level::when(self.attachments()? > before, || tail(&self.log_file())))
        })
        .await?;
        self.process = Some(process);
        Ok(())
    }

    fn attachments(&self) -> Result<usize> {
        let attached = |line: &&Value| line["message"] == ATTACHED;
        Ok(self.log()?.iter().filter(attached).count())
    }

    /// Kills it (`SIGKILL`).
    ///
    /// # Errors
    /// When it is not running.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().context("the probe is not running")?.kill()
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it is not running.
    pub fn signal(&self, signal: libc::c_int) -> Result<()> {
        self.process.as_ref().context("the probe is not running")?.signal(signal)
    }

    /// `SIGTERM`, and waits for an orderly end.
    ///
    /// # Errors
    /// When it does not end in time or not with 0.
    pub async fn stop(&mut self) -> Result<()> {
        let process = self.process.take().context("the probe is not running")?;
        let status = tokio::task::spawn_blocking(move || process.stop(LIMIT)).await??;
        ensure!(status.success(), "the probe ended with {status} after SIGTERM");
        Ok(())
    }

    /// Fails when any of its threads has a capability.
    ///
    /// # Errors
    /// With the thread's status.
    pub fn has_no_rights(&self) -> Result<()> {
        let id = self.process.as_ref().context("the probe is not running")?.id();
        for task in std::fs::read_dir(format!("/proc/{id}/task"))? {
            let status = std::fs::read_to_string(task?.path().join("status"))?;
            for set in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
                ensure!(status.contains(&format!("{set}:\t0000000000000000\n")), "{status}");
            }
            ensure!(status.contains("NoNewPrivs:\t1\n"), "{status}");
        }
        Ok(())
    }
}

const ATTACHED: &str = "the programs are attached, the rights given up";
const LIMIT: Duration = Duration::from_secs(60);
