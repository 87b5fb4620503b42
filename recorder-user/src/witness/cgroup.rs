//! Where cgroup2 is mounted, and what number a cgroup has.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// The inode of the root of cgroup2. A mount that shows another one is of a part of the tree: programs that
/// are attached there see that part only.
const ROOT_INODE: u64 = 1;

/// The directory of the whole tree of cgroup2: `/sys/fs/cgroup`, or `/sys/fs/cgroup/unified` beside cgroup1.
///
/// # Errors
/// When it is not mounted where this process can see it, or only a part of it is.
pub fn root() -> io::Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let found: Vec<PathBuf> = mount_points(&mounts).collect();
    let whole = |path: &&PathBuf| fs::metadata(path).is_ok_and(|at| at.ino() == ROOT_INODE);
    if let Some(root) = found.iter().find(whole) {
        return Ok(root.clone());
    }
    let why = match found.first() {
        Some(part) => format!(
            "{} shows only a part of cgroup2: mount the host's /sys/fs/cgroup into this container",
            part.display()
        ),
        None => "cgroup2 is not mounted".to_owned(),
    };
    Err(io::Error::new(io::ErrorKind::NotFound, why))
}

/// The number by which the programs know a cgroup: its directory's inode.
///
/// # Errors
/// When there is no such directory.
pub fn id(directory: &Path) -> io::Result<u64> {
    Ok(fs::metadata(directory)?.ino())
}

/// The mount points of cgroup2 in the text of `/proc/PID/mountinfo`.
fn mount_points(mountinfo: &str) -> impl Iterator<Item = PathBuf> {
    mountinfo.lines().filter_map(|line| {
        // Six fields, any number of optional ones, `-`, the type, the source, and options.
        let (mount, filesystem) = line.split_once(" - ")?;
        let point = mount.split(' ').nth(4)?;
        (filesystem.split(' ').next()? == "cgroup2").then(|| unescape(point).into())
    })
}

/// Spaces and the like are written as `\040`.
fn unescape(text: &str) -> String {
    let mut plain = String::new();
    let mut parts = text.split('\\');
    plain.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let code = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match (code, part.get(3..)) {
            (Some(code), Some(rest)) => {
                plain.push(code.into());
                plain.push_str(rest);
            }
            _ => {
                plain.push('\\');
                plain.push_str(part);
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup2_is_found_wherever_it_is_mounted() {
        let hybrid = "32 31 0:28 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
        let found: Vec<_> = mount_points(hybrid).collect();
        assert_eq!(found, [PathBuf::from("/sys/fs/cgroup/unified")]);
        let escaped = "41 31 0:38 /../.. /mnt/a\\040b rw - cgroup2 none rw\n";
        assert_eq!(mount_points(escaped).collect::<Vec<_>>(), [PathBuf::from("/mnt/a b")]);
        assert_eq!(mount_points("nonsense\n\n1 2 3 - cgroup2\n").count(), 0);
    }

    #[test]
    fn the_root_of_this_host_is_the_real_one() {
        match root() {
            Ok(path) => assert_eq!(id(&path).expect("it is there"), ROOT_INODE),
            Err(error) => assert!(error.to_string().contains("cgroup2"), "{error}"),
        }
    }
}
