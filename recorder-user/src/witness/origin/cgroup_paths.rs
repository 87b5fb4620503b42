//! From a cgroup's number to its path: a walk over the tree, which the programs' number is an inode of.

use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::{DirEntryExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// The paths of the cgroups below a root, read anew when one is not among them.
pub(super) struct CgroupPaths {
    root: Option<PathBuf>,
    paths: HashMap<u64, String>,
    read: Option<Instant>,
}

impl CgroupPaths {
    /// Below the mount of cgroup2; without one no number has a path.
    pub(super) fn new(root: Option<PathBuf>) -> Self {
        Self { root, paths: HashMap::new(), read: None }
    }

    /// The path of a cgroup from the root, which is `/`. Numbers are not used twice within a boot, so that
    /// what was found once stays.
    pub(super) fn path(&mut self, id: u64, now: Instant) -> Option<String> {
        if id == 0 {
            return None;
        }
        if !self.paths.contains_key(&id) {
            self.renew(now);
        }
        self.paths.get(&id).cloned()
    }

    fn renew(&mut self, now: Instant) {
        if self.read.is_some_and(|read| now.saturating_duration_since(read) < RENEW_AFTER) {
            return;
        }
        self.read = Some(now);
        let Some(root) = &self.root else { return };
        self.paths = walk(root).unwrap_or_else(|error| {
            tracing::debug!(root = %root.display(), %error, "cgroups not read");
            HashMap::new()
        });
    }
}

fn walk(root: &Path) -> io::Result<HashMap<u64, String>> {
    let mut paths = HashMap::from([(fs::metadata(root)?.ino(), "/".to_owned())]);
    let mut rest = vec![(root.to_owned(), String::new(), 0)];
    while let Some((directory, path, depth)) = rest.pop() {
        // One that went meanwhile is no error.
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let (Ok(kind), Some(name)) = (entry.file_type(), name.to_str()) else { continue };
            if !kind.is_dir() {
                continue;
            }
            if paths.len() >= CGROUPS_MAX {
                return Ok(paths);
            }
            let below = format!("{path}/{name}");
            if depth < DEPTH_MAX && below.len() < PATH_BYTES_MAX {
                rest.push((entry.path(), below.clone(), depth + 1));
                paths.insert(entry.ino(), below);
            }
        }
    }
    Ok(paths)
}

/// More than a node has (12 MB); what is beyond has no path.
const CGROUPS_MAX: usize = 65_536;
const DEPTH_MAX: usize = 32;
const PATH_BYTES_MAX: usize = 4096;
/// A walk takes some ms of a processor; who makes cgroups must not keep us walking.
const RENEW_AFTER: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_the_inode_of_a_directory() {
        let root = tempfile::tempdir().expect("a directory");
        let deep = root.path().join("kubepods/burstable");
        fs::create_dir_all(&deep).expect("writable");
        fs::write(deep.join("cgroup.procs"), "").expect("writable");
        let number = |path: &Path| fs::metadata(path).expect("it is there").ino();
        let mut paths = CgroupPaths::new(Some(root.path().to_owned()));
        let start = Instant::now();
        assert_eq!(paths.path(number(&deep), start).as_deref(), Some("/kubepods/burstable"));
        assert_eq!(paths.path(number(root.path()), start).as_deref(), Some("/"));
        assert_eq!(paths.path(number(&deep.join("cgroup.procs")), start), None, "no directory");

        let late = deep.join("pod7");
        fs::create_dir(&late).expect("writable");
        assert_eq!(paths.path(number(&late), start), None, "it was read a moment ago");
        let found = paths.path(number(&late), start + RENEW_AFTER);
        assert_eq!(found.as_deref(), Some("/kubepods/burstable/pod7"));
        assert_eq!(paths.path(0, start + 9 * RENEW_AFTER), None);
    }

    #[test]
    fn without_a_tree_nothing_has_a_path() {
        assert_eq!(CgroupPaths::new(None).path(7, Instant::now()), None);
        let gone = CgroupPaths::new(Some("/nonexistent".into())).path(7, Instant::now());
        assert_eq!(gone, None);
    }
}
