//! From a cgroup's path to the pod and container that it is of. Pure.
//!
//! The kubelet names cgroups in two ways, by its driver:
//!
//! ```text
//! cgroupfs  /kubepods/burstable/podUID/CONTAINER
//! systemd   /kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podUID.slice/cri-containerd-CONTAINER.scope
//! ```
//!
//! Guaranteed pods have no class in between, `--cgroup-root` goes in front (`/NODE/kubepods/…`, kind's
//! `/kubelet.slice/kubelet-kubepods.slice/…`), and systemd's form has `_` for the `-` of the UID. Whoever may make cgroups
//! of their own inside a container or a login session may give them such names: so the outermost match counts, and
//! nothing below `user.slice` does.

/// What a cgroup's path says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PodCgroup {
    /// The pod's uid, with `-` between its groups where it has any.
    pub(super) pod_uid: String,
    /// The container's id at the runtime; none for the pod's own cgroup.
    pub(super) container_id: Option<String>,
}

/// Reads a path below the root of a hierarchy; none when it is not of a pod.
pub(super) fn parse(path: &str) -> Option<PodCgroup> {
    if path.len() > PATH_BYTES_MAX {
        return None;
    }
    let mut parts = path.split('/').filter(|part| !part.is_empty()).peekable();
    if parts.peek() == Some(&"user.slice") {
        return None;
    }
    let mut inside = false;
    for _ in 0..DEPTH_MAX {
        let part = parts.next()?;
        if let Some(found) = runc_form(part) {
            return Some(found);
        }
        if inside && let Some(uid) = pod_uid(part) {
            let container_id = parts.next().and_then(container_id);
            return Some(PodCgroup { pod_uid: uid, container_id });
        }
        inside |=
            part == "kubepods" || part == "kubepods.slice" || part.ends_with("-kubepods.slice");
    }
    None
}

/// `podUID`, or `…-podUID.slice`.
fn pod_uid(part: &str) -> Option<String> {
    match part.strip_suffix(".slice") {
        Some(slice) => {
            let (class, uid) = slice.rsplit_once("-pod")?;
            class.contains("kubepods").then(|| uid_of(uid, '_')).flatten()
        }
        None => uid_of(part.strip_prefix("pod")?, '-'),
    }
}

/// A version 4 uid, or the hash that a static pod has for one.
fn uid_of(text: &str, between: char) -> Option<String> {
    let fits = (1..=UID_CHARS_MAX).contains(&text.len())
        && text.chars().all(|c| c.is_ascii_hexdigit() || c == between);
    fits.then(|| text.replace(between, "-").to_ascii_lowercase())
}

/// `ID`, `cri-containerd-ID.scope`, `crio-ID.scope`, `docker-ID.scope`.
fn container_id(part: &str) -> Option<String> {
    let id = match part.strip_suffix(".scope") {
        Some(scope) => scope.rsplit_once('-')?.1,
        None => part,
    };
    is_container_id(id).then(|| id.to_owned())
}

/// `kubepods-burstable-podUID.slice:cri-containerd:ID`: what runc makes of systemd's form where the runtime's
/// driver is cgroupfs.
fn runc_form(part: &str) -> Option<PodCgroup> {
    let mut parts = part.split(':');
    let (slice, _, id) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || !is_container_id(id) {
        return None;
    }
    Some(PodCgroup { pod_uid: pod_uid(slice)?, container_id: Some(id.to_owned()) })
}

pub(super) fn is_container_id(id: &str) -> bool {
    (CONTAINER_CHARS_MIN..=CONTAINER_CHARS_MAX).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_hexdigit())
}

/// The kernel's bound of a path.
const PATH_BYTES_MAX: usize = 4096;
/// The pod's own directory is among the first of them, however deep containers go.
const DEPTH_MAX: usize = 16;
const UID_CHARS_MAX: usize = 64;
/// Runtimes use 64 hexadecimal digits; `init.scope` and the like are no ids.
const CONTAINER_CHARS_MIN: usize = 12;
const CONTAINER_CHARS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UID: &str = "0b7f2c1e-5a51-4f0e-9b8e-6f1f0c2f8e11";
    const UNDERSCORED: &str = "0b7f2c1e_5a51_4f0e_9b8e_6f1f0c2f8e11";
    const ID: &str = "3f2a9c0d4e5b6a7f8091a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f7";

    fn check(path: &str, uid: &str, container: Option<&str>) {
        let found = parse(path).unwrap_or_else(|| panic!("{path} is of a pod"));
        assert_eq!(
            (found.pod_uid.as_str(), found.container_id.as_deref()),
            (uid, container),
            "{path}"
        );
    }

    #[test]
    fn both_drivers_name_pods() {
        for path in [
            format!("/kubepods/burstable/pod{UID}/{ID}"),
            format!("/kubepods/pod{UID}/{ID}"),
            format!("/decklog-node-0/kubepods/besteffort/pod{UID}/{ID}"),
            format!("/kubepods/besteffort/pod{UID}/{ID}/init.scope"),
            format!("/kubepods.slice/kubepods-pod{UNDERSCORED}.slice/cri-containerd-{ID}.scope"),
            format!(
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UNDERSCORED}.slice/crio-{ID}.scope"
            ),
            format!(
                "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/\
                 kubelet-kubepods-besteffort-pod{UNDERSCORED}.slice/docker-{ID}.scope/nested"
            ),
            format!("/system.slice/kubepods-burstable-pod{UNDERSCORED}.slice:cri-containerd:{ID}"),
        ] {
            check(&path, UID, Some(ID));
        }
        check(&format!("/kubepods/pod{UID}"), UID, None);
        check(&format!("/kubepods/pod{UID}/init.scope"), UID, None);
        check(
            "/kubepods/burstable/pod1234567890abcdef1234567890abcdef/x",
            "1234567890abcdef1234567890abcdef",
            None,
        );
    }

    #[test]
    fn what_is_no_pod_is_none() {
        for path in [
            "/",
            "",
            "/system.slice/kubelet.service",
            "/kubepods",
            "/kubepods/burstable",
            "/kubepods/podXYZ/abc",
            "/kubepods/pod",
            "/kubepods.slice/kubepods-pod.slice",
            "/kubepods.slice/evil-pod12.slice",
            "/podinfo/pod12",
            "a:b:c",
        ] {
            assert_eq!(parse(path), None, "{path}");
        }
        let login = format!("/user.slice/user-1000.slice/user@1000.service/kubepods/pod{UID}/{ID}");
        assert_eq!(parse(&login), None, "its owner chose the name");
    }

    #[test]
    fn names_made_inside_a_container_do_not_count() {
        let path = format!("/kubepods/podaaaa/{ID}/kubepods/pod{UID}/{ID}");
        check(&path, "aaaa", Some(ID));
        let sibling = format!("/docker/{ID}/a/b/c/d/e/f/g/h/i/j/k/l/m/n/kubepods/pod{UID}/{ID}");
        assert_eq!(parse(&sibling), None);
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(path in "\\PC{0,300}") {
            parse(&path);
        }

        #[test]
        fn what_is_found_is_harmless(path in "(/(kubepods|pod[a-f0-9_:.-]{0,70}|[a-z:./-]{0,20})){0,6}") {
            if let Some(found) = parse(&path) {
                let fits = |c: char| c.is_ascii_hexdigit() || c == '-';
                prop_assert!(found.pod_uid.chars().all(fits), "{found:?}");
                prop_assert!(found.pod_uid.len() <= UID_CHARS_MAX);
            }
        }
    }
}
