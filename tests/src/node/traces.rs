//! What a node is known by from outside, to see that nothing of it is left.

use std::fs::{self, File};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// Where a node's traces are; good for looking after it is gone, too.
#[derive(Debug)]
pub struct Traces {
    /// Held open: the kernel gives its number to no other namespace meanwhile.
    pid_namespace: File,
    /// Its cgroup's directory in each hierarchy; unknown for another run's node.
    pub cgroups: Vec<PathBuf>,
    /// Its network interface; unknown for another run's node.
    pub interface: String,
}

impl Traces {
    /// Those of a node whose first process is `init`.
    pub(super) fn new(init: u32, cgroups: &[PathBuf], interface: String) -> Result<Self> {
        let path = format!("/proc/{init}/ns/pid");
        let pid_namespace = File::open(&path).with_context(|| format!("open {path}"))?;
        Ok(Self { pid_namespace, cgroups: cgroups.to_vec(), interface })
    }

    /// Those of the node that another run has, once it has one; `run` is its process id.
    ///
    /// # Errors
    /// When that process is gone.
    pub fn of_run(run: u32) -> Result<Option<Self>> {
        let own = fs::read_link("/proc/self/ns/pid").context("read the pid namespace")?;
        for task in fs::read_dir(format!("/proc/{run}/task")).context("read the run's threads")? {
            let children = fs::read_to_string(task?.path().join("children")).unwrap_or_default();
            for child in children.split_whitespace() {
                let namespace = fs::read_link(format!("/proc/{child}/ns/pid"));
                if namespace.is_ok_and(|namespace| namespace != own) {
                    let child = child.parse().context("read a process id")?;
                    // It may have ended since; then there is another, or there will be.
                    return Ok(Self::new(child, &[], String::new()).ok());
                }
            }
        }
        Ok(None)
    }

    /// All processes in the node's pid namespace and in those of its containers.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn processes(&self) -> Result<Vec<Member>> {
        let node = self.pid_namespace.metadata().context("look at the pid namespace")?.ino();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").context("read /proc")? {
            let process = entry?.path();
            let id = process.file_name().and_then(|name| name.to_str()?.parse().ok());
            let Some(id) = id else { continue };
            if is_within(&process.join("ns/pid"), node) {
                let command = fs::read(process.join("cmdline")).unwrap_or_default();
                let command = String::from_utf8_lossy(&command).replace('\0', " ");
                found.push(Member { id, command });
            }
        }
        Ok(found)
    }
}

/// A process of a node.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its id here, outside.
    pub id: u32,
    /// Its command line.
    pub command: String,
}

/// Whether a pid namespace is `node`'s or one below; no, for what ends while we look.
fn is_within(namespace: &Path, node: u64) -> bool {
    let mut next = File::open(namespace).ok();
    while let Some(namespace) = next {
        if namespace.metadata().is_ok_and(|namespace| namespace.ino() == node) {
            return true;
        }
        next = parent(&namespace);
    }
    false
}

/// The namespace above (ioctl_ns(2)); none above our own.
fn parent(namespace: &File) -> Option<File> {
    // SAFETY: no pointers; the result is checked before it is owned.
    let descriptor = unsafe { libc::ioctl(namespace.as_raw_fd(), libc::NS_GET_PARENT) };
    if descriptor < 0 {
        return None;
    }
    // SAFETY: a descriptor that was just made and that nobody else owns.
    Some(unsafe { OwnedFd::from_raw_fd(descriptor) }.into())
}
