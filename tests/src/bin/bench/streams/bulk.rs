//! Many bytes one way, through kubectl: what somebody who waits for it sees, with kubectl's own start.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::{Ground, IN_POD, POD};

/// Gets the pod's bytes, and drops them.
pub(super) async fn down(ground: &Ground<'_>, kubeconfig: &Path) -> Result<Duration> {
    let mut command = ground.kubectl(kubeconfig, &[POD, "--", "cat", IN_POD]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let expected = ground.bytes;
    timed(command, expected).await
}

/// Sends the same bytes; the pod drops them.
pub(super) async fn up(ground: &Ground<'_>, kubeconfig: &Path) -> Result<Duration> {
    // A command that closes its stdout loses its stdin (Kubernetes 1.36, also without a gateway): the shell
    // stays, and holds it open.
    let script = "cat >/dev/null; :";
    let mut command = ground.kubectl(kubeconfig, &["-i", POD, "--", "sh", "-c", script]);
    let payload = File::open(&ground.payload).context("open the payload")?;
    command.stdin(payload).stdout(Stdio::piped());
    timed(command, 0).await
}

/// Runs `command` to its end, which is a good one and has said `expected` bytes.
async fn timed(command: Command, expected: u64) -> Result<Duration> {
    let run = move || {
        let started = Instant::now();
        let mut child = rig::process::spawn(command).context("start kubectl")?;
        let mut stdout = child.stdout.take().context("stdout is a pipe")?;
        let (mut buffer, mut bytes) = (vec![0; SINK_BYTES], 0);
        loop {
            match stdout.read(&mut buffer).context("read from kubectl")? {
                0 => break,
                read => bytes += read as u64,
            }
        }
        let status = child.wait().context("wait for kubectl")?;
        let elapsed = started.elapsed();
        ensure!(status.success(), "kubectl ended with {status}");
        ensure!(bytes == expected, "{bytes} bytes came of {expected}");
        Ok(elapsed)
    };
    tokio::task::spawn_blocking(run).await.context("join")?
}

impl Ground<'_> {
    /// Makes the bytes in the pod, and fetches them for the way back.
    pub(super) async fn fill(&self) -> Result<()> {
        let script = format!(
            "while cat /bin/busybox; do :; done 2>/dev/null | head -c {} > {IN_POD}",
            self.bytes
        );
        let direct = &self.kubeconfigs[0];
        let mut command = self.kubectl(direct, &[POD, "--", "sh", "-c", &script]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        timed(command, 0).await?;
        let mut command = self.kubectl(direct, &[POD, "--", "cat", IN_POD]);
        let payload = File::create(&self.payload).context("make the payload")?;
        command.stdin(Stdio::null()).stdout(payload);
        let fetched = tokio::task::spawn_blocking(|| rig::process::spawn(command)?.wait());
        let status = fetched.await.context("join")?.context("fetch the payload")?;
        ensure!(status.success(), "kubectl ended with {status}");
        let bytes = self.payload.metadata().context("look at the payload")?.len();
        ensure!(bytes == self.bytes, "the payload has {bytes} bytes, not {}", self.bytes);
        Ok(())
    }
}

const SINK_BYTES: usize = 256 << 10;
