//! The cgroup below which a node's kubelet and pods live, in every hierarchy of the machine.
//!
//! Cgroups are shared by all of the machine, whatever namespaces there are, and outlive who made them. So
//! each node takes the first name of a small number that nobody holds: the lock is on the cgroup's own
//! directory, and what is found below it then was left by a run that was killed.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};

/// A cgroup of our own, removed when dropped.
#[derive(Debug)]
pub(super) struct Cgroup {
    name: String,
    directories: Vec<PathBuf>,
    _lock: File,
}

impl Cgroup {
    /// Takes the first free name, and removes what killed runs have left under all of them.
    pub(super) fn reserve() -> Result<Self> {
        let hierarchies = hierarchies()?;
        let first = hierarchies.first().context("this machine has no cgroups")?;
        let (mut taken, mut failure) = (None, None);
        for slot in 0..NODES_MAX {
            let name = format!("{PREFIX}{slot}");
            if taken.is_some() && !first.join(&name).exists() {
                continue;
            }
            let Some(lock) = hold(&first.join(&name))? else { continue };
            let directories = hierarchies.iter().map(|root| root.join(&name)).collect();
            let cgroup = Self { name, directories, _lock: lock };
            // One that is not taken is dropped, and that removes it.
            if taken.is_none() {
                match cgroup.renew(&hierarchies) {
                    Ok(()) => taken = Some(cgroup),
                    Err(error) => failure = Some(error),
                }
            }
        }
        taken.ok_or_else(|| {
            failure.unwrap_or_else(|| anyhow!("{NODES_MAX} nodes run on this machine already"))
        })
    }

    fn renew(&self, hierarchies: &[PathBuf]) -> Result<()> {
        let deadline = Instant::now() + REMOVE_LIMIT;
        for (root, directory) in hierarchies.iter().zip(&self.directories) {
            empty(directory, deadline)
                .with_context(|| format!("remove what is left in {}", directory.display()))?;
            make(root, directory).with_context(|| format!("make {}", directory.display()))?;
        }
        Ok(())
    }

    /// Its path from the root of each hierarchy.
    pub(super) fn path(&self) -> String {
        format!("/{}", self.name)
    }

    /// Its directory in each hierarchy.
    pub(super) fn directories(&self) -> &[PathBuf] {
        &self.directories
    }

    /// Moves a process into a cgroup of its own below this one.
    pub(super) fn put(&self, name: &str, process: u32) -> Result<()> {
        for directory in &self.directories {
            let own = directory.join(name);
            make_below(directory, &own).with_context(|| format!("make {}", own.display()))?;
            fs::write(own.join("cgroup.procs"), process.to_string())
                .with_context(|| format!("move {process} to {}", own.display()))?;
        }
        Ok(())
    }

    /// Removes it everywhere; its processes must have ended.
    pub(super) fn remove(mut self) -> Result<()> {
        let directories = std::mem::take(&mut self.directories);
        remove_all(&directories)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next run.
        let _ = remove_all(&self.directories);
    }
}

/// The first, which is locked, goes last: nobody else takes a half-removed one.
fn remove_all(directories: &[PathBuf]) -> Result<()> {
    let deadline = Instant::now() + REMOVE_LIMIT;
    for directory in directories.iter().rev() {
        remove(directory, deadline).with_context(|| format!("remove {}", directory.display()))?;
    }
    Ok(())
}

/// The roots of all hierarchies: one with cgroup v2, one per controller with v1.
fn hierarchies() -> Result<Vec<PathBuf>> {
    let mount = Path::new(MOUNT);
    if mount.join("cgroup.controllers").exists() {
        return Ok(vec![mount.to_owned()]);
    }
    let mut roots = Vec::new();
    for entry in fs::read_dir(mount).context("read the hierarchies")? {
        let entry = entry?;
        // Links are second names of controllers that share a hierarchy.
        if entry.file_type()?.is_dir() && entry.path().join("cgroup.procs").exists() {
            roots.push(entry.path());
        }
    }
    roots.sort();
    Ok(roots)
}

/// The lock on this cgroup, made when absent; none when another run has it.
fn hold(directory: &Path) -> Result<Option<File>> {
    loop {
        make_directory(directory).with_context(|| format!("make {}", directory.display()))?;
        // It may have been removed since by the one who had it.
        let Ok(lock) = File::open(directory) else { continue };
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("lock {}", directory.display()));
            }
        }
        let same = |found: fs::Metadata| lock.metadata().is_ok_and(|own| own.ino() == found.ino());
        if fs::metadata(directory).is_ok_and(same) {
            return Ok(Some(lock));
        }
    }
}

fn make_directory(directory: &Path) -> io::Result<()> {
    match fs::create_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn make(root: &Path, directory: &Path) -> Result<()> {
    // v2: a cgroup has the controllers that its parent hands down.
    if root == Path::new(MOUNT) {
        let available = fs::read_to_string(root.join("cgroup.controllers"))?;
        for controller in available.split_whitespace().filter(|name| CONTROLLERS.contains(name)) {
            fs::write(root.join("cgroup.subtree_control"), format!("+{controller}"))
                .with_context(|| format!("hand down {controller}"))?;
        }
    }
    make_below(root, directory)
}

fn make_below(root: &Path, directory: &Path) -> Result<()> {
    make_directory(directory)?;
    // v1: a new cpuset is empty, and nothing could run in it.
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let (from, to) = (root.join(file), directory.join(file));
        if from.exists() && to.exists() && fs::read_to_string(&to)?.trim().is_empty() {
            fs::write(&to, fs::read(from)?)?;
        }
    }
    Ok(())
}

/// Removes all cgroups below this one.
fn empty(directory: &Path, deadline: Instant) -> Result<()> {
    if !directory.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path(), deadline)?;
        }
    }
    Ok(())
}

/// Removes a cgroup and all below it. The kernel may need a moment to let go of processes that have ended.
fn remove(directory: &Path, deadline: Instant) -> Result<()> {
    empty(directory, deadline)?;
    loop {
        match fs::remove_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                ensure!(Instant::now() < deadline, "{} is in use", directory.display());
                std::thread::sleep(POLL);
            }
            other => return Ok(other?),
        }
    }
}

const MOUNT: &str = "/sys/fs/cgroup";
const PREFIX: &str = "decklog-node-";
const NODES_MAX: u32 = 32;
/// What the kubelet wants of a v2 hierarchy.
const CONTROLLERS: [&str; 6] = ["cpuset", "cpu", "io", "memory", "hugetlb", "pids"];
const REMOVE_LIMIT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(5);
