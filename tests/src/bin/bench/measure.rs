//! What the kernel knows of a process.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use hdrhistogram::Histogram;

/// The CPU time of a process so far, in nanoseconds' resolution: `/proc/PID/stat` counts ticks of 10 ms,
/// and the tasks' `schedstat` forgets threads that have ended.
pub(crate) fn cpu(process: u32) -> Result<Duration> {
    let process = libc::pid_t::try_from(process).context("a process id")?;
    let mut clock: libc::clockid_t = 0;
    // SAFETY: the pointer is to a local of the right type.
    let failed = unsafe { libc::clock_getcpuclockid(process, &raw mut clock) };
    if failed != 0 {
        bail!("no CPU clock of process {process}: {}", std::io::Error::from_raw_os_error(failed));
    }
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: as above.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return Err(std::io::Error::last_os_error())
            .with_context(|| format!("read the CPU clock of process {process}"));
    }
    Ok(Duration::new(u64::try_from(time.tv_sec)?, u32::try_from(time.tv_nsec)?))
}

/// The resident memory of a process, in bytes.
pub(crate) fn resident(process: u32) -> Result<u64> {
    let path = format!("/proc/{process}/status");
    let status = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kibibytes: u64 = kibibytes.with_context(|| format!("no VmRSS in {path}"))?.parse()?;
    Ok(kibibytes * 1024)
}

/// The bytes of the files in a directory: of a store's segments, what its records took.
pub(crate) fn bytes_in(directory: &Path) -> Result<u64> {
    let read = || format!("read {}", directory.display());
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory).with_context(read)? {
        bytes += entry.and_then(|entry| entry.metadata()).with_context(read)?.len();
    }
    Ok(bytes)
}

/// Microseconds up to a minute, to three digits.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("the bounds are good")
}

pub(crate) fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
