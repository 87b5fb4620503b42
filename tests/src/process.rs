//! Processes that die with their owner: when the value is dropped, on panic, and when this process is
//! killed by anything, since the kernel then signals them (`PR_SET_PDEATHSIG`).

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{OnceLock, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// A server that the rig started, with its output in a log file.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`; stdout and stderr are appended to `log`.
    ///
    /// # Errors
    /// When the log cannot be opened or the program cannot be started.
    pub fn start(name: &str, command: Command, log: &Path) -> Result<Self> {
        Self::start_from(spawner(), name, command, log)
    }

    /// As [`Process::start`], from the thread of `spawner`.
    ///
    /// # Errors
    /// As [`Process::start`].
    pub fn start_from(
        spawner: &Spawner,
        name: &str,
        mut command: Command,
        log: &Path,
    ) -> Result<Self> {
        let open = || {
            let file = File::options().create(true).append(true).open(log);
            file.with_context(|| format!("open {}", log.display()))
        };
        command.stdin(Stdio::null()).stdout(open()?).stderr(open()?);
        let program = command.get_program().to_owned();
        let child = spawner.spawn(command);
        let child = child.with_context(|| format!("start {}", program.display()))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its name, for messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Fails with the end of the log when the process has already ended.
    ///
    /// # Errors
    /// When it is not running.
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait().with_context(|| format!("look at {}", self.name))? {
            None => Ok(()),
            Some(status) => {
                bail!(
                    "{} ended ({status}); {} ends:\n{}",
                    self.name,
                    self.log.display(),
                    tail(&self.log)
                )
            }
        }
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn signal(&self, signal: libc::c_int) -> Result<()> {
        let pid = libc::pid_t::try_from(self.child.id()).context("a process id")?;
        // SAFETY: kill takes no pointers; the child is not reaped before `wait`, so the id is still its own.
        if unsafe { libc::kill(pid, signal) } != 0 {
            return Err(io::Error::last_os_error())
                .with_context(|| format!("signal {}", self.name));
        }
        Ok(())
    }

    /// Asks the process to end and waits; after `limit` it is killed.
    ///
    /// # Errors
    /// When it had to be killed, or cannot be waited for.
    pub fn stop(mut self, limit: Duration) -> Result<ExitStatus> {
        if self.child.try_wait()?.is_none() {
            self.signal(libc::SIGTERM)?;
        }
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("{} did not end within {limit:?} of SIGTERM", self.name);
            }
            std::thread::sleep(POLL);
        }
    }

    /// Kills the process at once (`SIGKILL`).
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill().with_context(|| format!("kill {}", self.name))?;
        self.child.wait().with_context(|| format!("wait for {}", self.name))?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Errors mean that it is gone already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a finished command said.
#[derive(Clone, Debug)]
pub struct Output {
    /// Its exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// Whether it exited with 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.code == Some(0)
    }
}

/// Runs `command` to its end, at most for `limit`.
///
/// # Errors
/// When it cannot be started or takes longer (it is killed then).
pub async fn run(command: Command, limit: Duration) -> Result<Output> {
    tokio::task::spawn_blocking(move || run_blocking(command, limit)).await.context("join")?
}

/// [`run`] for callers without a runtime.
///
/// # Errors
/// As [`run`].
pub fn run_blocking(command: Command, limit: Duration) -> Result<Output> {
    run_from(spawner(), command, limit)
}

/// As [`run_blocking`], from the thread of `spawner`.
///
/// # Errors
/// As [`run`].
pub fn run_from(spawner: &Spawner, mut command: Command, limit: Duration) -> Result<Output> {
    let shown = format!("{command:?}");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = spawner.spawn(command).with_context(|| format!("start {shown}"))?;
    let stdout = read_aside(child.stdout.take().expect("piped"));
    let stderr = read_aside(child.stderr.take().expect("piped"));
    let deadline = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            let (out, err) = (stdout.join().unwrap_or_default(), stderr.join().unwrap_or_default());
            bail!("{shown} took longer than {limit:?}; it said:\n{out}{err}");
        }
        std::thread::sleep(POLL);
    };
    Ok(Output {
        code: status.code(),
        stdout: stdout.join().unwrap_or_default(),
        stderr: stderr.join().unwrap_or_default(),
    })
}

fn read_aside(mut from: impl io::Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before an error is still worth showing.
        let _ = from.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Starts a process that the kernel kills when this one ends.
///
/// # Errors
/// As [`Command::spawn`].
pub fn spawn(command: Command) -> io::Result<Child> {
    spawner().spawn(command)
}

/// A thread that starts processes, and lives as long as this value: the kernel sends the death signal when
/// the *thread* that started a process ends, and the threads of a runtime come and go.
#[derive(Debug)]
pub struct Spawner {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

type Job = (Command, mpsc::SyncSender<io::Result<Child>>);

impl Spawner {
    /// One whose thread does `prepare` first: namespaces that it enters are those of its processes.
    ///
    /// # Errors
    /// When `prepare` fails.
    pub fn new(prepare: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (reply, prepared) = mpsc::sync_channel(1);
        let thread = std::thread::spawn(move || {
            let ready = prepare();
            let go_on = ready.is_ok();
            // Whoever made this waits for the reply, so it is there; and so is the asker of a job.
            let _ = reply.send(ready);
            for (mut command, reply) in queue.iter().take_while(|_| go_on) {
                let _ = reply.send(command.spawn());
            }
        });
        prepared.recv().expect("the spawning thread answers")?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Starts a process that the kernel kills when this thread, or all of this process, ends.
    ///
    /// # Errors
    /// As [`Command::spawn`].
    pub fn spawn(&self, mut command: Command) -> io::Result<Child> {
        let parent = own_pidfd()?;
        // SAFETY: the closure runs between fork and exec and makes system calls only (async-signal-safe).
        unsafe {
            command.pre_exec(move || {
                if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                    return Err(io::Error::last_os_error());
                }
                // The parent may have died before prctl: then nobody would ever signal. Its id would not
                // tell, since to a process of another pid namespace it has none.
                let mut ended =
                    libc::pollfd { fd: parent.as_raw_fd(), events: libc::POLLIN, revents: 0 };
                if libc::poll(&raw mut ended, 1, 0) != 0 {
                    return Err(io::Error::from(io::ErrorKind::Interrupted));
                }
                Ok(())
            });
        }
        let (reply, answer) = mpsc::sync_channel(1);
        let jobs = self.jobs.as_ref().expect("only a drop takes it");
        jobs.send((command, reply)).expect("the thread ends with this value");
        answer.recv().expect("the spawning thread answers")
    }
}

impl Drop for Spawner {
    fn drop(&mut self) {
        // The end of the queue is the end of the thread.
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            // It panicked already, then.
            let _ = thread.join();
        }
    }
}

/// A descriptor that becomes readable when this process ends (Linux 5.3).
fn own_pidfd() -> io::Result<OwnedFd> {
    // SAFETY: no pointers; the result is checked before it is owned.
    let descriptor = unsafe { libc::syscall(libc::SYS_pidfd_open, libc::getpid(), 0) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    let descriptor = i32::try_from(descriptor).expect("a descriptor is an int");
    // SAFETY: a descriptor that was just made (close-on-exec) and that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Where everything is started that needs no namespace of its own; its thread is never ended.
fn spawner() -> &'static Spawner {
    static SPAWNER: OnceLock<Spawner> = OnceLock::new();
    SPAWNER.get_or_init(|| Spawner::new(|| Ok(())).expect("nothing to prepare, nothing to fail"))
}

/// The end of a log file, for messages.
#[must_use]
pub fn tail(log: &Path) -> String {
    let text = std::fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let text = text.unwrap_or_else(|error| error.to_string());
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

const POLL: Duration = Duration::from_millis(5);
const TAIL_LINES: usize = 15;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_process_is_gone() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut command = Command::new("sleep");
        command.arg("60");
        let mut process = Process::start("sleep", command, log.path()).unwrap();
        process.check().unwrap();
        let proc = PathBuf::from(format!("/proc/{}", process.id()));
        assert!(proc.exists());
        drop(process);
        assert!(!proc.exists());
    }

    #[test]
    fn run_reports_code_and_both_outputs() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo out; echo err >&2; exit 3"]);
        let output = run_blocking(command, Duration::from_secs(10)).unwrap();
        assert_eq!((output.code, &*output.stdout, &*output.stderr), (Some(3), "out\n", "err\n"));
    }

    #[test]
    fn run_ends_what_takes_too_long() {
        let mut command = Command::new("sleep");
        command.arg("60");
        assert!(run_blocking(command, Duration::from_millis(50)).is_err());
    }
}
