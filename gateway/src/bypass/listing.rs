//! Connections that the kernel's list of sockets tells of: those that were there before the programs, and all of the
//! gateway's network namespace where there are no programs.

use std::collections::{HashMap, HashSet};

use recorder_user::{
    model::{SeenBy, Timestamp},
    witness::{
        ListedSocket,
        bypass::{Happened, Sighting, Suspects, Whose},
        origin::{SocketOwners, Subject},
    },
};

use super::Endpoints;

/// A look at the list.
pub(super) struct Look {
    /// Bytes sent and received, by cookie, of all connections to API servers.
    pub(super) totals: HashMap<u64, (u64, u64)>,
    /// Connections that were not known before and are not the gateway's.
    pub(super) new: Vec<Sighting>,
}

/// Takes the list apart. `is_known` tells which connections are followed already, `chosen` which the programs know:
/// those are told of by notices, and the gateway's own are among them.
pub(super) fn look(
    list: &[ListedSocket],
    endpoints: &Endpoints,
    owners: &SocketOwners,
    suspects: &mut Suspects,
    is_known: impl Fn(u64) -> bool,
    chosen: &HashSet<u64>,
) -> Look {
    let candidates: Vec<&ListedSocket> =
        list.iter().filter(|socket| endpoints.api.contains_key(&socket.remote)).collect();
    let totals = candidates.iter().filter_map(|socket| Some((socket.cookie, socket.totals?)));
    let totals = totals.collect();
    let is_new = |socket: &&&ListedSocket| {
        !is_known(socket.cookie) && !chosen.contains(&socket.cookie) && socket.inode != 0
    };
    let unknown: Vec<&ListedSocket> = candidates.iter().filter(is_new).copied().collect();
    if unknown.is_empty() {
        suspects.confirm(HashSet::new());
        return Look { totals, new: Vec::new() };
    }
    let holders = owners.find(&unknown.iter().map(|socket| socket.inode).collect());
    // After the list was read: a socket of ours that is in it is among these, or was closed since.
    let own = SocketOwners::own();
    let not_ours = unknown.into_iter().filter(|socket| !own.contains(&socket.inode));
    let (held, orphans): (Vec<&ListedSocket>, Vec<&ListedSocket>) =
        not_ours.partition(|socket| holders.contains_key(&socket.inode));
    let confirmed = suspects.confirm(orphans.iter().map(|socket| socket.cookie).collect());
    let orphans = orphans.into_iter().filter(|socket| confirmed.contains(&socket.cookie));
    let now = Timestamp::now();
    let sighting = |socket: &ListedSocket| Sighting {
        happened: Happened::Established,
        whose: Whose::Foreign,
        subject: Subject {
            tgid: holders.get(&socket.inode).copied().unwrap_or(0),
            comm: String::new(),
            cgroup_id: socket.cgroup_id.unwrap_or(0),
        },
        cookie: socket.cookie,
        at: now,
        local: Some(socket.local),
        remote: Some(socket.remote),
        sent_bytes: socket.totals.map(|(sent, _)| sent),
        received_bytes: socket.totals.map(|(_, received)| received),
        seen_by: SeenBy::SocketList,
        ..Sighting::default()
    };
    let new = held.into_iter().chain(orphans).map(sighting).collect();
    Look { totals, new }
}
