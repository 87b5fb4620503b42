//! What `/proc` tells of a process, best effort: it may be gone, or another one by now.

use std::{
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use crate::model::Timestamp;

/// A process as it was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) comm: Option<String>,
    pub(super) executable: Option<String>,
    pub(super) started: Option<Timestamp>,
    pub(super) uid: Option<u32>,
    /// The path of its cgroup2, then those of cgroup1, below our own cgroup namespace's root or, with `..` taken off,
    /// the host's.
    pub(super) cgroups: Vec<String>,
    /// Whether it sees the files of the host, or of the reader, so that the path of its executable means what it says.
    pub(super) on_host_files: bool,
}

/// Looks at the processes below a mount of proc.
pub(super) struct Processes {
    /// None where it is not the host's: there the kernel's process ids would name others.
    root: Option<PathBuf>,
    /// The mount namespaces of the host and of the reader, in which a path means what it says.
    trusted: Vec<PathBuf>,
}

impl Processes {
    pub(super) fn new(root: PathBuf) -> Self {
        if is_hosts(&root) {
            // A host that hides its first process is told by our own files: who shares them is one of us.
            let trusted = [root.join("1/ns/mnt"), "/proc/self/ns/mnt".into()];
            let trusted = trusted.iter().filter_map(|link| fs::read_link(link).ok()).collect();
            return Self { root: Some(root), trusted };
        }
        tracing::info!(
            proc = %root.display(),
            "not the host's: who is behind a connection is told by name and cgroup alone"
        );
        Self { root: None, trusted: Vec::new() }
    }

    pub(super) fn root(&self) -> Option<&Path> {
        self.root.as_deref()
    }

    /// The process with this id, if it was there at `at` already. `now` is the wall clock.
    pub(super) fn look(&self, pid: u32, at: Timestamp, now: Timestamp) -> Option<Found> {
        let root = self.root.as_ref()?;
        let directory = root.join(pid.to_string());
        let stat = text(&directory.join("stat"))?;
        let (comm, ticks) = parse_stat(&stat)?;
        let uptime = text(&root.join("uptime"));
        let started = uptime.and_then(|uptime| started(now, parse_uptime(&uptime)?, ticks));
        // Another process has the id by now: nothing of it is the other's.
        if started.is_some_and(|started| started.micros_since(at) > CLOCK_SLACK_US) {
            return None;
        }
        let link = |name: &str| fs::read_link(directory.join(name)).ok();
        let executable = link("exe").map(|path| shown(path.as_os_str()));
        let namespace = link("ns/mnt");
        let cgroups = text(&directory.join("cgroup")).map(|text| parse_cgroups(&text));
        Some(Found {
            comm: Some(comm.to_owned()),
            executable,
            started,
            uid: fs::metadata(&directory).ok().map(|metadata| metadata.uid()),
            cgroups: cgroups.unwrap_or_default(),
            on_host_files: namespace.is_some_and(|it| self.trusted.contains(&it)),
        })
    }
}

/// Whether these are the processes of the initial pid namespace, in which the kernel numbers processes for its programs:
/// it has the threads of the kernel, the first of which is `kthreadd`.
fn is_hosts(root: &Path) -> bool {
    let stat = text(&root.join("2/stat"));
    stat.as_deref().and_then(parse_stat).is_some_and(|(comm, _)| comm == "kthreadd")
}

/// Command name, and start in ticks since boot. The name may hold anything, also `)` and spaces.
fn parse_stat(text: &str) -> Option<(&str, u64)> {
    let (head, rest) = text.rsplit_once(')')?;
    let (_, comm) = head.split_once('(')?;
    // `rest` begins with field 3, the state; the start is field 22.
    let ticks = rest.split_ascii_whitespace().nth(22 - 3)?.parse().ok()?;
    Some((comm, ticks))
}

/// Microseconds since boot: `12345.67 …`.
fn parse_uptime(text: &str) -> Option<i64> {
    let (seconds, rest) = text.split_ascii_whitespace().next()?.split_once('.')?;
    let fraction = rest.get(..2)?.parse::<i64>().ok()?;
    seconds.parse::<i64>().ok()?.checked_mul(1_000_000)?.checked_add(fraction * 10_000)
}

fn started(now: Timestamp, uptime_us: i64, ticks: u64) -> Option<Timestamp> {
    let since_boot_us = i64::try_from(ticks).ok()?.checked_mul(1_000_000 / TICKS_PER_SECOND)?;
    Some(now.plus_micros(since_boot_us.checked_sub(uptime_us)?))
}

/// Lines `ID:CONTROLLERS:PATH`; cgroup2 is `0::PATH` and comes first.
fn parse_cgroups(text: &str) -> Vec<String> {
    let mut found: Vec<(bool, String)> = text
        .lines()
        .take(CGROUPS_MAX)
        .filter_map(|line| {
            let (id, rest) = line.split_once(':')?;
            let (_, path) = rest.split_once(':')?;
            // Outside of the reader's cgroup namespace the path begins with `/..`.
            let mut path = path;
            while let Some(rest) = path.strip_prefix("/..") {
                path = rest;
            }
            let path = if path.is_empty() { "/" } else { path };
            (path.len() <= PATH_BYTES_MAX).then(|| (id != "0", path.to_owned()))
        })
        .collect();
    found.sort_by_key(|(is_first_version, _)| *is_first_version);
    found.into_iter().map(|(_, path)| path).collect()
}

fn shown(path: &OsStr) -> String {
    let text = String::from_utf8_lossy(path.as_bytes());
    text.chars().take(PATH_BYTES_MAX).collect()
}

/// A file of proc as text, as much of it as anybody needs.
fn text(path: &Path) -> Option<String> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    fs::File::open(path).ok()?.take(FILE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// `USER_HZ`, which every architecture that we run on has.
const TICKS_PER_SECOND: i64 = 100;
/// Two readings of hundredths of a second, and the pause between them.
const CLOCK_SLACK_US: i64 = 100_000;
const FILE_BYTES_MAX: u64 = 64 * 1024;
const PATH_BYTES_MAX: usize = 4096;
/// Hierarchies of a process; there are a dozen.
const CGROUPS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_stat_is_read_behind_any_name() {
        let rest = "S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 1 2";
        for name in ["curl", "a) S 1 2 (b", "", "( )"] {
            let stat = format!("7 ({name}) {rest}");
            assert_eq!(parse_stat(&stat), Some((name, 4711)), "{name}");
        }
        assert_eq!(parse_stat("7 (curl) S 1 2"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn processes_of_another_pid_namespace_are_not_taken_for_the_hosts() {
        let directory = tempfile::tempdir().expect("a directory");
        let now = Timestamp::now();
        let as_second = |comm: &str| {
            let stat = format!("2 ({comm}) S 0 0 0 0 -1 2129984 0 0 0 0 0 0 0 0 20 0 1 0 4711 1 2");
            std::fs::create_dir_all(directory.path().join("2")).expect("a process");
            std::fs::write(directory.path().join("2/stat"), stat).expect("a process");
            let processes = Processes::new(directory.path().to_owned());
            (processes.root().is_some(), processes.look(2, now, now).is_some())
        };
        assert_eq!(as_second("sleep"), (false, false));
        assert_eq!(as_second("kthreadd"), (true, true));
    }

    #[test]
    fn a_start_is_told_from_the_uptime() {
        let now = Timestamp::from_micros(1_790_000_000_000_000);
        let uptime = parse_uptime("100.25 7.00\n").expect("an uptime");
        assert_eq!(uptime, 100_250_000);
        let began = started(now, uptime, 9_025).expect("a start");
        assert_eq!(now.micros_since(began), 10_000_000);
        assert_eq!(started(now, uptime, u64::MAX), None);
        assert_eq!(parse_uptime("nonsense"), None);
    }

    #[test]
    fn cgroup2_comes_first_and_namespaces_do_not_hide_the_path() {
        let text = "9:name=systemd:/a\n4:memory:/b:c\n0::/../../kubepods/x\nnonsense\n";
        assert_eq!(parse_cgroups(text), ["/kubepods/x", "/a", "/b:c"]);
        assert_eq!(parse_cgroups("0::/../.."), ["/"]);
    }

    #[test]
    fn this_process_is_found_and_its_id_is_not_taken_for_an_older_one() {
        let processes = Processes::new("/proc".into());
        let now = Timestamp::now();
        let found = processes.look(std::process::id(), now, now).expect("this process");
        let own = std::env::current_exe().expect("an executable");
        assert_eq!(found.executable.as_deref(), own.to_str());
        assert!(found.started.is_some_and(|started| started <= now) && !found.cgroups.is_empty());
        assert!(found.on_host_files, "its files are the reader's own");
        assert_eq!(processes.look(std::process::id(), Timestamp::EPOCH, now), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(text in "\\PC{0,200}") {
            parse_stat(&text);
            parse_uptime(&text);
            parse_cgroups(&text);
        }
    }
}
