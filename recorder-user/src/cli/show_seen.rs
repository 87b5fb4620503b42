//! The part of `recorder show SESSION` about connections that are not the gateway's.

use super::{
    CliError,
    screen::{Ink, Screen},
    seen, text, units,
};
use crate::{
    model::{ConnectionSeen, SeenBy, SessionKind},
    replay::Connections,
    store::SessionView,
};

/// Prints what the witness recorded with a session: of one that went round the gateway everything, of
/// others a line for each connection.
pub(super) fn print(
    view: &SessionView,
    connections: &Connections,
    screen: &mut Screen<'_>,
) -> Result<(), CliError> {
    let Connections { seen: connections, left_out, .. } = connections;
    if view.kind == SessionKind::Bypass {
        for connection in connections {
            screen.line("")?;
            for (key, value) in facts(connection) {
                screen.line(&format!("{key:10} {value}"))?;
            }
        }
    } else if !connections.is_empty() {
        screen.line("")?;
        let header = ["AT", "WHAT", "WHO", "EXECUTABLE", "CONNECTION"];
        screen.table(&header, connections.iter().map(|seen| cells(view, seen)).collect())?;
    }
    if *left_out > 0 {
        screen.line(&format!("and {left_out} more connections"))?;
    }
    Ok(())
}

fn cells(view: &SessionView, seen: &ConnectionSeen) -> Vec<(String, Ink)> {
    let begun = seen.begun.unwrap_or(seen.time);
    let executable = seen.origin.process.executable.as_deref().unwrap_or("-");
    vec![
        (units::offset(begun.micros_since(view.started)), Ink::Plain),
        (seen.relation.as_str().to_owned(), Ink::Plain),
        (seen::who(&seen.origin), Ink::Plain),
        (text::short(executable, 48), Ink::Plain),
        (seen::record(seen), Ink::Plain),
    ]
}

fn facts(seen: &ConnectionSeen) -> Vec<(&'static str, String)> {
    let origin = &seen.origin;
    let process = &origin.process;
    let mut facts = vec![("connection", seen::record(seen))];
    let mut add = |key, value: Option<&str>| {
        if let Some(value) = value {
            facts.push((key, text::short(value, 400)));
        }
    };
    add("process", Some(&format!("{}[{}]", process.comm, process.pid)));
    add("executable", process.executable.as_deref());
    add("started", process.started.map(|time| time.to_string()).as_deref());
    add("user", process.uid.map(|uid| format!("uid {uid}")).as_deref());
    if let Some(pod) = &origin.pod {
        add("namespace", pod.namespace.as_deref());
        add("pod", pod.name.as_deref());
        add("pod uid", Some(&pod.uid));
        add("container", pod.container.as_deref());
        add("id", pod.container_id.as_deref());
    }
    add("cgroup", origin.cgroup.as_deref());
    add("from", seen.local.as_deref());
    add("to", seen.remote.as_deref());
    let time = |time: Option<crate::model::Timestamp>, else_what: &str| {
        time.map_or_else(|| else_what.to_owned(), |time| time.to_string())
    };
    add("began", Some(&time(seen.begun, "not seen")));
    add("ended", Some(&time(seen.ended, "not seen, or it goes on")));
    add("sent", Some(&exact(seen.sent_bytes)));
    add("received", Some(&exact(seen.received_bytes)));
    if seen.seen_by == SeenBy::SocketList {
        add("found", Some("in the kernel's list of sockets: its beginning was not seen"));
    }
    facts
}

fn exact(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "not counted".to_owned(), |bytes| format!("{bytes} B"))
}
