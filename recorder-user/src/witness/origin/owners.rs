//! Which process holds a socket: a walk over the descriptors of all processes. Slow (some ms per thousand
//! processes), so it is done for many sockets at once and only where nobody else tells.

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::{Path, PathBuf},
};

/// Finds the holders of sockets by their inodes.
pub struct SocketOwners {
    /// None where it is not the host's.
    proc: Option<PathBuf>,
}

impl SocketOwners {
    pub(super) fn new(proc: Option<PathBuf>) -> Self {
        Self { proc }
    }

    /// The first process found that holds each of these sockets. What is not found was closed meanwhile, or may not
    /// be looked at.
    #[must_use]
    pub fn find(&self, inodes: &HashSet<u64>) -> HashMap<u64, u32> {
        let mut found = HashMap::new();
        let Some(Ok(entries)) = self.proc.as_ref().map(fs::read_dir) else { return found };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            for inode in sockets(&entry.path().join("fd")) {
                if inodes.contains(&inode) {
                    found.entry(inode).or_insert(pid);
                }
            }
            if found.len() == inodes.len() {
                break;
            }
        }
        found
    }

    /// The sockets that this process holds now.
    #[must_use]
    pub fn own() -> HashSet<u64> {
        sockets(Path::new("/proc/self/fd")).collect()
    }
}

fn sockets(directory: &Path) -> impl Iterator<Item = u64> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| socket_inode(fs::read_link(entry.path()).ok()?.to_str()?))
}

/// `socket:[4711]`.
fn socket_inode(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, os::fd::AsRawFd as _};

    use super::*;

    #[test]
    fn a_socket_of_this_process_is_found_here() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let link = fs::read_link(format!("/proc/self/fd/{}", listener.as_raw_fd())).expect("open");
        let inode = socket_inode(link.to_str().expect("text")).expect("a socket");
        let found = SocketOwners::new(Some("/proc".into())).find(&HashSet::from([inode, u64::MAX]));
        assert_eq!(found, HashMap::from([(inode, std::process::id())]));
        assert!(SocketOwners::own().contains(&inode));
    }

    #[test]
    fn other_links_are_no_sockets() {
        for link in
            ["", "pipe:[7]", "socket:[", "socket:[x]", "/etc/passwd", "socket:[7] (deleted)"]
        {
            assert_eq!(socket_inode(link), None, "{link}");
        }
    }
}
