use std::{fs, os::unix::fs::MetadataExt as _};

use super::*;

const UID: &str = "0b7f2c1e-5a51-4f0e-9b8e-6f1f0c2f8e11";
const ID: &str = "3f2a9c0d4e5b6a7f8091a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f7";

/// A node's directories, made by hand.
struct Node {
    root: tempfile::TempDir,
}

impl Node {
    fn new() -> Self {
        Self { root: tempfile::tempdir().expect("a directory") }
    }

    /// Makes a cgroup and gives its number.
    fn cgroup(&self, path: &str) -> u64 {
        let directory = self.root.path().join("cgroup").join(path.trim_start_matches('/'));
        fs::create_dir_all(&directory).expect("writable");
        fs::metadata(directory).expect("it is there").ino()
    }

    fn process(&self, pid: u32, cgroups: &str) {
        let directory = self.root.path().join("proc").join(pid.to_string());
        fs::create_dir_all(&directory).expect("writable");
        let stat = format!("{pid} (curl) S 1 7 7 0 -1 0 1 0 0 0 0 0 0 0 20 0 1 0 100 1 2");
        fs::write(directory.join("stat"), stat).expect("writable");
        fs::write(directory.join("cgroup"), cgroups).expect("writable");
        std::os::unix::fs::symlink("/usr/bin/curl", directory.join("exe")).expect("writable");
        fs::write(self.root.path().join("proc/uptime"), "100.00 1.00\n").expect("writable");
        // By this thread the host's processes are told from those of a container.
        fs::create_dir_all(self.root.path().join("proc/2")).expect("writable");
        let stat = "2 (kthreadd) S 0 0 0 0 -1 0 1 0 0 0 0 0 0 0 20 0 1 0 100 1 2";
        fs::write(self.root.path().join("proc/2/stat"), stat).expect("writable");
    }

    fn logs(&self) {
        let logs = self.root.path().join("log");
        fs::create_dir_all(logs.join(format!("pods/shop_agent-0_{UID}/main"))).expect("writable");
        fs::create_dir_all(logs.join("containers")).expect("writable");
        fs::write(logs.join(format!("containers/agent-0_shop_main-{ID}.log")), "")
            .expect("writable");
    }

    fn origins(&self) -> Origins {
        let root = self.root.path();
        Origins::new(OriginPaths {
            proc: root.join("proc"),
            cgroups: Some(root.join("cgroup")),
            pod_logs: root.join("log/pods"),
            container_logs: root.join("log/containers"),
        })
    }
}

fn pod() -> PodFacts {
    PodFacts {
        uid: UID.into(),
        namespace: Some("shop".into()),
        name: Some("agent-0".into()),
        container: Some("main".into()),
        container_id: Some(ID.into()),
    }
}

#[test]
fn a_pod_is_found_by_its_cgroup_when_its_process_is_gone() {
    let node = Node::new();
    let path = format!("/kubepods/burstable/pod{UID}/{ID}");
    let cgroup_id = node.cgroup(&path);
    node.logs();
    let subject = Subject { tgid: 7, comm: "curl".into(), cgroup_id };
    let mut origins = node.origins();
    for _ in 0..2 {
        let found = origins.find(&subject, Timestamp::now()).origin;
        assert_eq!((found.pod, found.cgroup.as_deref()), (Some(pod()), Some(path.as_str())));
        assert_eq!((found.process.pid, found.process.comm.as_str()), (7, "curl"));
        assert_eq!(found.process.executable, None);
        // What was found stays also when the cgroup goes.
        let _ = fs::remove_dir_all(node.root.path().join("cgroup/kubepods"));
    }
}

#[test]
fn beside_cgroup1_the_process_tells_its_pod() {
    let node = Node::new();
    let cgroup_id = node.cgroup("/");
    let v1 = format!("4:memory:/node/kubepods/pod{UID}/{ID}\n0::/\n");
    node.process(7, &v1);
    node.logs();
    let subject = Subject { tgid: 7, comm: String::new(), cgroup_id };
    let found = node.origins().find(&subject, Timestamp::now());
    assert_eq!(found.origin.pod, Some(pod()));
    assert_eq!(found.origin.process.executable.as_deref(), Some("/usr/bin/curl"));
    assert_eq!(found.origin.process.comm, "curl");
    assert!(!found.on_host_files, "a pod's files are its own");
}

#[test]
fn what_is_no_pods_has_its_path() {
    let node = Node::new();
    let cgroup_id = node.cgroup("/system.slice/kubelet.service");
    let found = node.origins().find(&Subject { cgroup_id, ..Subject::default() }, Timestamp::now());
    assert_eq!(found.origin.cgroup.as_deref(), Some("/system.slice/kubelet.service"));
    assert_eq!(found.origin.pod, None);
}

#[test]
fn a_pod_without_logs_has_its_uid() {
    let node = Node::new();
    let cgroup_id = node.cgroup(&format!("/kubepods/pod{UID}/{ID}"));
    let found = node.origins().find(&Subject { cgroup_id, ..Subject::default() }, Timestamp::now());
    let pod = found.origin.pod.expect("a pod");
    assert_eq!((pod.uid.as_str(), pod.name, pod.container), (UID, None, None));
}
