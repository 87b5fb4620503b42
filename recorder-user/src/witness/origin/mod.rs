//! Who is behind a connection: from the process and cgroup that the kernel names to executable, pod and container.
//!
//! Everything here is best effort: a process may have ended, a cgroup be gone, a mount be missing. What cannot be
//! found is absent. Pods are told by their cgroups, which a container cannot choose, and by directories that the
//! kubelet makes; a process's name and executable are its own choice.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::Instant,
};

use crate::model::{Origin, PodFacts, ProcessFacts, Timestamp};

mod cgroup_paths;
mod owners;
mod pod_cgroup;
mod pod_logs;
mod process;

pub use owners::SocketOwners;

use cgroup_paths::CgroupPaths;
use pod_logs::PodLogs;
use process::Processes;

/// Where to look; in a container these are mounts of the host's.
#[derive(Clone, Debug)]
pub struct OriginPaths {
    /// The host's `/proc`.
    pub proc: PathBuf,
    /// The root of cgroup2; none when it is not mounted.
    pub cgroups: Option<PathBuf>,
    /// The host's `/var/log/pods`.
    pub pod_logs: PathBuf,
    /// The host's `/var/log/containers`.
    pub container_logs: PathBuf,
}

impl Default for OriginPaths {
    fn default() -> Self {
        let cgroups = super::cgroup::root().ok();
        Self {
            proc: "/proc".into(),
            cgroups,
            pod_logs: "/var/log/pods".into(),
            container_logs: "/var/log/containers".into(),
        }
    }
}

/// What the kernel tells of who is at it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// Thread group, in the initial pid namespace; 0 when unknown.
    pub tgid: u32,
    /// Command name.
    pub comm: String,
    /// The cgroup's number; 0 when unknown.
    pub cgroup_id: u64,
}

/// Who was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoundOrigin {
    /// For the record.
    pub origin: Origin,
    /// Whether the executable's path is one of the host's or the gateway's own files: another container may call its
    /// files anything.
    pub on_host_files: bool,
}

/// Finds out who is behind connections.
pub struct Origins {
    processes: Processes,
    cgroups: CgroupPaths,
    logs: PodLogs,
    /// By cgroup, since a cgroup's pod never changes. Only pods whose name is known are kept.
    pods: HashMap<u64, (String, PodFacts)>,
}

impl Origins {
    /// Looks below these paths.
    #[must_use]
    pub fn new(paths: OriginPaths) -> Self {
        Self {
            processes: Processes::new(paths.proc),
            cgroups: CgroupPaths::new(paths.cgroups),
            logs: PodLogs::new(paths.pod_logs, paths.container_logs),
            pods: HashMap::new(),
        }
    }

    /// Who `subject` is, who was seen at `at`.
    pub fn find(&mut self, subject: &Subject, at: Timestamp) -> FoundOrigin {
        let (now, instant) = (Timestamp::now(), Instant::now());
        let process = match subject.tgid {
            0 => None,
            tgid => self.processes.look(tgid, at, now),
        };
        let process = process.unwrap_or_default();
        let (cgroup, pod) = self.pod(subject.cgroup_id, &process.cgroups, instant);
        let comm = match subject.comm.as_str() {
            "" => process.comm.unwrap_or_default(),
            comm => comm.to_owned(),
        };
        let on_host_files = process.on_host_files && pod.is_none();
        let facts = ProcessFacts {
            pid: subject.tgid,
            comm,
            executable: process.executable,
            started: process.started,
            uid: process.uid,
        };
        let origin = Origin { process: facts, cgroup_id: subject.cgroup_id, cgroup, pod };
        FoundOrigin { origin, on_host_files }
    }

    /// The cgroup's path and pod. Where pods have no cgroup2 of their own (cgroup1 beside it), the process's
    /// other cgroups tell.
    fn pod(
        &mut self,
        cgroup_id: u64,
        of_process: &[String],
        now: Instant,
    ) -> (Option<String>, Option<PodFacts>) {
        if let Some((path, pod)) = self.pods.get(&cgroup_id) {
            return (Some(path.clone()), Some(pod.clone()));
        }
        let path = self.cgroups.path(cgroup_id, now);
        let own = path.as_ref().and_then(|path| Some((path.clone(), pod_cgroup::parse(path)?)));
        let is_own = own.is_some();
        let other =
            || of_process.iter().find_map(|path| Some((path.clone(), pod_cgroup::parse(path)?)));
        let Some((path, cgroup)) = own.or_else(other) else {
            return (path.or_else(|| of_process.first().cloned()), None);
        };
        let name = self.logs.pod(&cgroup.pod_uid, now);
        let id = cgroup.container_id.as_deref();
        let container = id
            .zip(name.as_ref())
            .and_then(|(id, name)| self.logs.container(id, (name, &cgroup.pod_uid), now));
        let is_known = name.is_some() && container.is_some();
        let (namespace, name) = name.map(|name| (name.namespace, name.name)).unzip();
        let pod = PodFacts {
            uid: cgroup.pod_uid,
            namespace,
            name,
            container,
            container_id: cgroup.container_id,
        };
        if is_own && is_known {
            if self.pods.len() >= PODS_MAX {
                self.pods.clear();
            }
            self.pods.insert(cgroup_id, (path.clone(), pod.clone()));
        }
        (Some(path), Some(pod))
    }

    /// Where processes are looked at.
    #[must_use]
    pub fn socket_owners(&self) -> SocketOwners {
        SocketOwners::new(self.processes.root().map(Path::to_owned))
    }
}

/// Containers of a node; when there are more they are looked up anew.
const PODS_MAX: usize = 4096;

#[cfg(test)]
mod tests;
