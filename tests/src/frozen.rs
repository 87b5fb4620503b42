//! Threads that stand still for a while, while the rest of their process goes on.

use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::{fs, io, ptr};

use anyhow::{Context as _, Result, ensure};

/// A thread of another process that stands still until this is dropped: held by `ptrace`, which stops single threads
/// where signals stop whole processes.
#[derive(Debug)]
pub struct Frozen {
    /// Dropped to let it go.
    hold: Option<mpsc::Sender<()>>,
    tracer: Option<JoinHandle<()>>,
}

impl Frozen {
    /// Stops the thread of process `pid` that has this name (its first 15 bytes count).
    ///
    /// # Errors
    /// When there is none, or the kernel does not allow it.
    pub fn thread(pid: u32, name: &str) -> Result<Self> {
        let thread = find(pid, name)?;
        let (hold, released) = mpsc::channel();
        let (told, hears) = mpsc::channel();
        // The kernel takes orders for a tracee from the one thread that traces it.
        let tracer = thread::Builder::new().name("tracer".into()).spawn(move || {
            let stopped = stop(thread);
            let holds = stopped.is_ok();
            if told.send(stopped).is_ok() && holds {
                // Nothing is ever sent: it ends when the other end is dropped.
                let _ = released.recv();
                let_go(thread);
            }
        })?;
        let frozen = Self { hold: Some(hold), tracer: Some(tracer) };
        hears.recv().context("the tracer ended")?.with_context(|| format!("stop {name}"))?;
        Ok(frozen)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        drop(self.hold.take());
        if let Some(Err(_)) = self.tracer.take().map(JoinHandle::join) {
            eprintln!("the thread that froze another panicked");
        }
    }
}

fn find(pid: u32, name: &str) -> Result<libc::pid_t> {
    let short = &name[..name.len().min(15)];
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        let entry = entry?;
        // A thread may end while we look.
        let found = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if found.trim_end() == short {
            return Ok(entry.file_name().to_string_lossy().parse()?);
        }
    }
    anyhow::bail!("process {pid} has no thread {name}")
}

fn stop(thread: libc::pid_t) -> Result<()> {
    ptrace(libc::PTRACE_SEIZE, thread).context("seize it")?;
    // From here on the kernel lets it go when this thread ends.
    ptrace(libc::PTRACE_INTERRUPT, thread).context("interrupt it")?;
    let mut status = 0;
    // SAFETY: the status is ours to be written to.
    let waited = unsafe { libc::waitpid(thread, &raw mut status, libc::__WALL) };
    ensure!(waited == thread, "wait for it: {}", io::Error::last_os_error());
    ensure!(libc::WIFSTOPPED(status), "it ended");
    Ok(())
}

fn let_go(thread: libc::pid_t) {
    if let Err(error) = ptrace(libc::PTRACE_DETACH, thread) {
        eprintln!("a frozen thread was not let go: {error:#}");
    }
}

fn ptrace(request: libc::c_uint, thread: libc::pid_t) -> Result<()> {
    let nothing = ptr::null_mut::<libc::c_void>();
    // SAFETY: none of the requests here follows a pointer.
    let done = unsafe { libc::ptrace(request, thread, nothing, nothing) };
    ensure!(done == 0, "ptrace: {}", io::Error::last_os_error());
    Ok(())
}
