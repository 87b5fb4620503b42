//! The node's own processes and mounts: a pid namespace and a mount namespace.
//!
//! A container's processes are children of a shim, and the shim is nobody's: whoever starts it lets it go,
//! so that containers outlive their daemon. Here they must not outlive anything. In a pid namespace the
//! kernel ends all of them with the first process, which in turn dies with us ([`process`]), even when
//! we are killed; and mounts in a namespace of their own vanish with the last process that sees them.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::process::{self, Output, Process, Spawner};

/// Namespaces for a node's processes; they end when this is dropped.
#[derive(Debug)]
pub(super) struct Realm {
    // In this order: the thread's end would not be waited for by the process.
    init: Process,
    spawner: Arc<Spawner>,
}

impl Realm {
    /// New namespaces with `init` as their first process. `directory` is what the node will work in.
    pub(super) fn new(init: &Path, directory: &Path) -> Result<Self> {
        for hidden in HIDDEN {
            ensure!(
                !directory.starts_with(hidden),
                "{} cannot be below {hidden}, which a node has of its own (set TMPDIR)",
                directory.display()
            );
        }
        fs::create_dir_all(CNI_CACHE).with_context(|| format!("make {CNI_CACHE}"))?;
        let home = directory.to_owned();
        let spawner = Spawner::new(move || enter(&home));
        let spawner = spawner.context("make namespaces for a node (needs root)")?;
        let mut command = Command::new(init);
        command.current_dir("/");
        let mounts = mounts_of_init();
        // SAFETY: the closure runs between fork and exec and makes system calls only (async-signal-safe).
        unsafe { command.pre_exec(move || mounts.iter().try_for_each(Mount::make)) };
        let init =
            Process::start_from(&spawner, "the node's init", command, &directory.join("init.log"))?;
        Ok(Self { init, spawner: Arc::new(spawner) })
    }

    /// Starts a server in it.
    pub(super) fn start(&self, name: &str, command: Command, log: &Path) -> Result<Process> {
        Process::start_from(&self.spawner, name, command, log)
    }

    /// Runs a command in it to its end.
    pub(super) async fn run(&self, command: Command, limit: Duration) -> Result<Output> {
        let spawner = Arc::clone(&self.spawner);
        tokio::task::spawn_blocking(move || process::run_from(&spawner, command, limit))
            .await
            .context("join")?
    }

    /// Kills everything in it. The namespace is gone when those that we started have been waited for too,
    /// that is when their [`Process`] and then this value are dropped.
    pub(super) fn kill(&self) {
        // An error means that it is dead already.
        let _ = self.init.signal(libc::SIGKILL);
    }

    /// The process id of its first process.
    pub(super) fn init_id(&self) -> u32 {
        self.init.id()
    }
}

/// Moves this thread into a mount namespace, and its children into a pid namespace, and gives them private
/// ones of the directories where container runtimes leave things.
fn enter(home: &Path) -> io::Result<()> {
    // SAFETY: no pointers; mounts and the working directory become this thread's own.
    if unsafe { libc::unshare(libc::CLONE_NEWNS | libc::CLONE_NEWPID) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Mount::new(None, "/", None, libc::MS_REC | libc::MS_PRIVATE).make()?;
    for hidden in HIDDEN {
        Mount::new(Some(b"tmpfs"), hidden, Some("tmpfs"), SAFE).make()?;
    }
    for directory in ["/run/lock", HOME, KERNEL_PARAMETERS] {
        fs::create_dir_all(directory)?;
    }
    Mount::new(Some(home.as_os_str().as_bytes()), HOME, None, libc::MS_BIND).make()?;
    for (index, (_, wanted)) in WANTED_PARAMETERS.iter().enumerate() {
        fs::write(parameter_file(index), format!("{wanted}\n"))?;
    }
    Ok(())
}

/// What only a process of the pid namespace can mount: its `/proc`. On that, the parameters that the kubelet
/// would set for the whole machine unless it finds them as it wants them: it shall find them so, and the
/// machine stay as it is.
fn mounts_of_init() -> Vec<Mount> {
    let proc = Mount::new(Some(b"proc"), "/proc", Some("proc"), SAFE);
    let parameter = |(index, (parameter, _)): (usize, &(&str, u32))| {
        let target = format!("/proc/sys/{parameter}");
        Mount::new(Some(parameter_file(index).as_bytes()), &target, None, libc::MS_BIND)
    };
    [proc].into_iter().chain(WANTED_PARAMETERS.iter().enumerate().map(parameter)).collect()
}

fn parameter_file(index: usize) -> String {
    format!("{KERNEL_PARAMETERS}/{index}")
}

/// The arguments of a mount(2).
struct Mount {
    source: Option<CString>,
    target: CString,
    kind: Option<CString>,
    flags: libc::c_ulong,
}

impl Mount {
    fn new(source: Option<&[u8]>, target: &str, kind: Option<&str>, flags: libc::c_ulong) -> Self {
        let text = |text: &[u8]| CString::new(text).expect("no path here has a NUL");
        Self {
            source: source.map(text),
            target: text(target.as_bytes()),
            kind: kind.map(|kind| text(kind.as_bytes())),
            flags,
        }
    }

    /// One system call and no allocation.
    fn make(&self) -> io::Result<()> {
        let pointer =
            |text: &Option<CString>| text.as_ref().map_or(ptr::null(), |text| text.as_ptr());
        let (source, kind) = (pointer(&self.source), pointer(&self.kind));
        // SAFETY: each pointer is null where mount(2) allows it, or a NUL-terminated text that outlives
        // the call.
        let done =
            unsafe { libc::mount(source, self.target.as_ptr(), kind, self.flags, ptr::null()) };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

const SAFE: libc::c_ulong = libc::MS_NOSUID | libc::MS_NODEV;
/// Where the CNI library notes what it did: a constant in it. (The empty directory stays behind.)
const CNI_CACHE: &str = "/var/lib/cni";
/// `/run`: sockets of shims, state of runc; `/var/log`: the kubelet's links to the logs of containers.
const HIDDEN: [&str; 3] = ["/run", "/var/log", CNI_CACHE];
/// The node's directory in its own mount namespace: the path of a socket has 107 bytes at most.
pub(super) const HOME: &str = "/run/node";
const KERNEL_PARAMETERS: &str = "/run/decklog-kernel-parameters";
/// Below `/proc/sys`; the kubelet's `setupKernelTunables`.
const WANTED_PARAMETERS: [(&str, u32); 6] = [
    ("vm/overcommit_memory", 1),
    ("vm/panic_on_oom", 0),
    ("kernel/panic", 10),
    ("kernel/panic_on_oops", 1),
    ("kernel/keys/root_maxkeys", 1_000_000),
    ("kernel/keys/root_maxbytes", 25_000_000),
];
