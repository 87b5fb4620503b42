//! Processes that stand still for a while.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

/// A process that stands still until this is dropped.
#[derive(Debug)]
pub struct Stopped(libc::pid_t);

impl Stopped {
    /// Stops process `pid`, and waits until every thread of it stands still.
    ///
    /// # Errors
    /// When it does not.
    pub fn new(pid: u32) -> Result<Self> {
        let stopped = Self(libc::pid_t::try_from(pid).context("a process id")?);
        stopped.signal(libc::SIGSTOP)?;
        wait_stopped(pid)?;
        Ok(stopped)
    }

    fn signal(&self, signal: libc::c_int) -> Result<()> {
        // SAFETY: kill takes no pointers.
        let sent = unsafe { libc::kill(self.0, signal) };
        ensure!(sent == 0, "signal {signal}: {}", std::io::Error::last_os_error());
        Ok(())
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // It may be gone, which its owner finds out by itself.
        drop(self.signal(libc::SIGCONT));
    }
}

fn wait_stopped(pid: u32) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    loop {
        let mut stopped = true;
        for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
            let stat = fs::read_to_string(thread?.path().join("stat"))?;
            // The state follows the name, which is in parentheses and may hold anything.
            stopped &= stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'));
        }
        if stopped {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "process {pid} did not stop");
        std::thread::yield_now();
    }
}

const LIMIT: Duration = Duration::from_secs(10);
