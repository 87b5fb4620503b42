//! Phrases about connections that are not the gateway's. A process chooses its own name, and a container what its
//! executable is called: everything leaves here escaped and cut.

use super::{text, units};
use crate::{
    model::{ConnectionSeen, Origin, Relation},
    store::ConnectionRow,
};

/// `pod shop/agent-0 (main) curl[4711]`, or `curl[4711]` where it is no pod's.
pub(super) fn who(origin: &Origin) -> String {
    let process = match (origin.process.comm.as_str(), origin.process.pid) {
        ("", 0) => "unknown process".to_owned(),
        ("", pid) => format!("process {pid}"),
        (comm, 0) => text::short(comm, COMM_CHARS_MAX),
        (comm, pid) => format!("{}[{pid}]", text::short(comm, COMM_CHARS_MAX)),
    };
    let Some(pod) = &origin.pod else { return process };
    let name = match (&pod.namespace, &pod.name) {
        (Some(namespace), Some(name)) => format!("{namespace}/{name}"),
        _ => format!("uid {}", pod.uid),
    };
    let container = match &pod.container {
        Some(container) => format!(" ({})", text::short(container, NAME_CHARS_MAX)),
        None => String::new(),
    };
    format!("pod {}{container} {process}", text::short(&name, 2 * NAME_CHARS_MAX))
}

/// `to 10.0.0.1:6443, 1.2 KiB out, 3 KiB in`.
pub(super) fn row(row: &ConnectionRow) -> String {
    let what = what(row.relation, row.remote.as_deref(), row.local.as_deref());
    let many = many(row.connections);
    format!("{what}{many}, {}", bytes(row.sent_bytes, row.received_bytes))
}

/// The same of a record, with what it remarks.
pub(super) fn record(seen: &ConnectionSeen) -> String {
    let what = what(seen.relation, seen.remote.as_deref(), seen.local.as_deref());
    let remark = match &seen.remark {
        Some(remark) => format!("; {}", text::short(remark, 160)),
        None => String::new(),
    };
    let bytes = bytes(seen.sent_bytes, seen.received_bytes);
    format!("{what}{}, {bytes}{remark}", many(seen.connections))
}

/// `1.2 KiB`, or `?` where nobody counted.
pub(super) fn count(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "?".to_owned(), units::bytes)
}

fn what(relation: Relation, remote: Option<&str>, local: Option<&str>) -> String {
    let address = |address: Option<&str>| text::short(address.unwrap_or("?"), ADDRESS_CHARS_MAX);
    match relation {
        Relation::Direct | Relation::Egress => format!("to {}", address(remote)),
        Relation::Intruder => format!("through the gateway's socket to {}", address(remote)),
        Relation::Port => format!("took the gateway's port {}", address(local)),
        Relation::Client => format!("from {}", address(local)),
    }
}

fn many(connections: u64) -> String {
    if connections == 1 { String::new() } else { format!(", {connections} connections") }
}

fn bytes(sent: Option<u64>, received: Option<u64>) -> String {
    match (sent, received) {
        (None, None) => "bytes not counted".to_owned(),
        (sent, received) => format!("{} out, {} in", count(sent), count(received)),
    }
}

/// The kernel keeps 15.
const COMM_CHARS_MAX: usize = 16;
const NAME_CHARS_MAX: usize = 40;
const ADDRESS_CHARS_MAX: usize = 56;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{PodFacts, ProcessFacts};

    fn origin(pod: Option<PodFacts>) -> Origin {
        let process =
            ProcessFacts { pid: 7, comm: "cu\u{1b}[2Jrl".into(), ..ProcessFacts::default() };
        Origin { process, pod, ..Origin::default() }
    }

    #[test]
    fn names_that_a_process_chose_are_escaped() {
        let pod = PodFacts { uid: "u\n1".into(), ..PodFacts::default() };
        for text in [who(&origin(None)), who(&origin(Some(pod)))] {
            assert!(!text.contains(['\u{1b}', '\n']), "{text:?}");
            assert!(text.ends_with("[7]"), "{text:?}");
        }
        assert_eq!(who(&Origin::default()), "unknown process");
    }

    #[test]
    fn a_pod_is_named_with_its_container() {
        let pod = PodFacts {
            uid: "u".into(),
            namespace: Some("shop".into()),
            name: Some("agent-0".into()),
            container: Some("main".into()),
            container_id: None,
        };
        let process = ProcessFacts { pid: 7, comm: "curl".into(), ..ProcessFacts::default() };
        let origin = Origin { process, pod: Some(pod), ..Origin::default() };
        assert_eq!(who(&origin), "pod shop/agent-0 (main) curl[7]");
    }

    #[test]
    fn what_nobody_counted_is_not_zero() {
        let seen = ConnectionSeen {
            remote: Some("10.0.0.1:6443".into()),
            received_bytes: Some(2048),
            connections: 3,
            ..ConnectionSeen::default()
        };
        assert_eq!(record(&seen), "to 10.0.0.1:6443, 3 connections, ? out, 2.0 KiB in");
        let seen = ConnectionSeen { received_bytes: None, connections: 1, ..seen };
        assert_eq!(record(&seen), "to 10.0.0.1:6443, bytes not counted");
    }
}
