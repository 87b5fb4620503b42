//! The names of pods and containers, from the directories in which the kubelet keeps their logs.
//!
//! ```text
//! /var/log/pods/NAMESPACE_POD_UID/CONTAINER/0.log
//! /var/log/containers/POD_NAMESPACE_CONTAINER-ID.log -> /var/log/pods/…
//! ```
//!
//! Namespaces, pods and containers have no `_` in their names. The kubelet makes the directory before the container
//! starts. Nothing is read of the logs themselves.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::pod_cgroup::is_container_id;

/// What the name of a pod's directory says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PodName {
    pub(super) namespace: String,
    pub(super) name: String,
}

/// Reads `NAMESPACE_POD_UID`.
pub(super) fn pod_directory(text: &str) -> Option<(String, PodName)> {
    let mut parts = text.split('_');
    let (namespace, name, uid) = (parts.next()?, parts.next()?, parts.next()?);
    let is_uid = !uid.is_empty() && uid.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    if parts.next().is_some() || !is_name(namespace) || !is_name(name) || !is_uid {
        return None;
    }
    let named = PodName { namespace: namespace.to_owned(), name: name.to_owned() };
    Some((uid.to_ascii_lowercase(), named))
}

/// Reads `POD_NAMESPACE_CONTAINER-ID.log`: the container's name and id.
pub(super) fn container_link(text: &str) -> Option<(String, String)> {
    let mut parts = text.strip_suffix(".log")?.split('_');
    let (pod, namespace, rest) = (parts.next()?, parts.next()?, parts.next()?);
    let (container, id) = rest.rsplit_once('-')?;
    let fits = parts.next().is_none()
        && is_name(pod)
        && is_name(namespace)
        && is_name(container)
        && is_container_id(id);
    fits.then(|| (id.to_owned(), container.to_owned()))
}

/// A name as Kubernetes takes them (RFC 1123): it goes into records and is compared with an allow-list.
fn is_name(text: &str) -> bool {
    (1..=NAME_CHARS_MAX).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.')
}

const NAME_CHARS_MAX: usize = 253;

/// The names that were found, read anew when one is not among them.
pub(super) struct PodLogs {
    pod_logs: PathBuf,
    container_logs: PathBuf,
    pods: HashMap<String, PodName>,
    containers: HashMap<String, String>,
    read: Option<Instant>,
}

impl PodLogs {
    /// In these directories, `/var/log/pods` and `/var/log/containers` of the node.
    pub(super) fn new(pod_logs: PathBuf, container_logs: PathBuf) -> Self {
        let (pods, containers) = (HashMap::new(), HashMap::new());
        Self { pod_logs, container_logs, pods, containers, read: None }
    }

    /// The pod with this uid.
    pub(super) fn pod(&mut self, uid: &str, now: Instant) -> Option<PodName> {
        if !self.pods.contains_key(uid) {
            self.renew(now);
        }
        self.pods.get(uid).cloned()
    }

    /// The name of the container with this id. Where no link tells, of a pod with a single container it is that one's.
    pub(super) fn container(
        &mut self,
        id: &str,
        (pod, uid): (&PodName, &str),
        now: Instant,
    ) -> Option<String> {
        if !self.containers.contains_key(id) {
            self.renew(now);
        }
        self.containers.get(id).cloned().or_else(|| self.only_container(pod, uid))
    }

    fn only_container(&self, pod: &PodName, uid: &str) -> Option<String> {
        let directory = self.pod_logs.join(format!("{}_{}_{uid}", pod.namespace, pod.name));
        let mut entries = fs::read_dir(directory).ok()?;
        let name = entries.next()?.ok()?.file_name().into_string().ok()?;
        (entries.next().is_none() && is_name(&name)).then_some(name)
    }

    /// Reads the directories, unless that was done a moment ago: who opens many connections from cgroups without a
    /// pod must not keep us busy.
    fn renew(&mut self, now: Instant) {
        if self.read.is_some_and(|read| now.saturating_duration_since(read) < RENEW_AFTER) {
            return;
        }
        self.read = Some(now);
        self.pods = names(&self.pod_logs, pod_directory);
        self.containers = names(&self.container_logs, container_link);
    }
}

fn names<V>(directory: &Path, parse: fn(&str) -> Option<(String, V)>) -> HashMap<String, V> {
    let read = || -> io::Result<HashMap<String, V>> {
        let mut found = HashMap::new();
        for entry in fs::read_dir(directory)?.take(ENTRIES_MAX) {
            found.extend(entry?.file_name().to_str().and_then(parse));
        }
        Ok(found)
    };
    read().unwrap_or_else(|error| {
        tracing::debug!(directory = %directory.display(), %error, "names of pods not read");
        HashMap::new()
    })
}

/// More than a node has; what is beyond has no name.
const ENTRIES_MAX: usize = 16_384;
const RENEW_AFTER: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "3f2a9c0d4e5b6a7f8091a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f7";

    #[test]
    fn directories_name_pods_and_links_name_containers() {
        let (uid, name) = pod_directory("kube-system_coredns-66bc_0B7F-11").expect("a pod's");
        assert_eq!((uid.as_str(), name.namespace.as_str()), ("0b7f-11", "kube-system"));
        assert_eq!(name.name, "coredns-66bc");
        let link = format!("agent-0_shop_side-car-{ID}.log");
        assert_eq!(container_link(&link), Some((ID.to_owned(), "side-car".to_owned())));
    }

    #[test]
    fn other_names_are_passed_over() {
        for text in ["", "a_b", "a_b_c_d", "a_b_xyz", "A_b_12", "../etc_b_12", "a__12", "a_b_"] {
            assert_eq!(pod_directory(text), None, "{text}");
        }
        for text in
            ["", ".log", "a_b_c.log", "a_b_c-12.log", "a_b_c-zzzzzzzzzzzzzzzz.log", "a_b.log"]
        {
            assert_eq!(container_link(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "\\PC{0,200}") {
            pod_directory(&text);
            container_link(&text);
        }
    }

    #[test]
    fn a_pod_that_came_later_is_found_and_misses_do_not_read_again() {
        let root = tempfile::tempdir().expect("a directory");
        let pods = root.path().join("pods");
        fs::create_dir(&pods).expect("writable");
        let mut logs = PodLogs::new(pods.clone(), root.path().join("containers"));
        let start = Instant::now();
        assert_eq!(logs.pod("0b", start), None);
        fs::create_dir(pods.join("shop_agent-0_0b")).expect("writable");
        assert_eq!(logs.pod("0b", start), None, "it was read a moment ago");
        let found = logs.pod("0b", start + RENEW_AFTER).expect("read again");
        assert_eq!(found, PodName { namespace: "shop".into(), name: "agent-0".into() });
        let directory = pods.join("shop_agent-0_0b");
        for (container, only) in [("main", Some("main".to_owned())), ("side-car", None)] {
            fs::create_dir(directory.join(container)).expect("writable");
            assert_eq!(logs.container(ID, (&found, "0b"), start), only);
        }
        fs::remove_dir_all(&pods).expect("writable");
        assert!(
            logs.pod("0b", start + 9 * RENEW_AFTER).is_some(),
            "what is known is not asked again"
        );
    }
}
