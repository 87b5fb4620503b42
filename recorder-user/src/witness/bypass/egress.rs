//! Where else a session's client connected to while the session was open.

use std::collections::{HashMap, HashSet};

use super::{Happened, Sighting};
use crate::{
    model::{ConnectionSeen, Record, Relation, SessionId, Timestamp},
    witness::origin::FoundOrigin,
};

/// The cgroups of clients, the sessions that they have, and their connections.
#[derive(Default)]
pub struct Egress {
    sessions: HashMap<u64, HashSet<SessionId>>,
    recorded: HashMap<SessionId, Recorded>,
    open: HashMap<u64, (ConnectionSeen, Vec<SessionId>)>,
}

/// How much of a session is on record.
#[derive(Default)]
struct Recorded {
    connections: usize,
    /// Above the bound and not yet told.
    left_out: u64,
    /// The latest of those.
    last: ConnectionSeen,
}

impl Egress {
    /// From now on what this cgroup connects to belongs to the session too. False when there are too many cgroups.
    pub fn watch(&mut self, session: SessionId, cgroup_id: u64) -> bool {
        if self.sessions.len() >= CGROUPS_MAX && !self.sessions.contains_key(&cgroup_id) {
            return false;
        }
        self.sessions.entry(cgroup_id).or_default().insert(session);
        true
    }

    /// The cgroups to be watched.
    #[must_use]
    pub fn cgroups(&self) -> Vec<u64> {
        self.sessions.keys().copied().collect()
    }

    /// Forgets sessions that are over; true when other cgroups are to be watched now. Tells how many connections were
    /// not recorded one by one.
    pub fn keep(
        &mut self,
        is_open: impl Fn(SessionId) -> bool,
        time: Timestamp,
    ) -> (bool, Vec<Record>) {
        let before = self.sessions.len();
        self.sessions.retain(|_, sessions| {
            sessions.retain(|session| is_open(*session));
            !sessions.is_empty()
        });
        let mut records = Vec::new();
        self.recorded.retain(|session, recorded| {
            if recorded.left_out > 0 {
                let connections = std::mem::take(&mut recorded.left_out);
                records.push(Record::ConnectionSeen(Box::new(ConnectionSeen {
                    session: *session,
                    time,
                    cookie: 0,
                    local: None,
                    remote: None,
                    connections,
                    remark: Some("more than are recorded one by one: counted".into()),
                    ..recorded.last.clone()
                })));
            }
            is_open(*session)
        });
        (before != self.sessions.len(), records)
    }

    /// Takes in what was seen of a connection of a watched cgroup.
    pub fn sighted(&mut self, sighting: &Sighting, found: Option<FoundOrigin>) -> Vec<Record> {
        match sighting.happened {
            Happened::Opening => self.opening(sighting, found),
            Happened::Closed => self.over(sighting, sighting.remark),
            Happened::Failed => self.over(sighting, Some("it was never made")),
            Happened::Established => {
                if let Some((seen, _)) = self.open.get_mut(&sighting.cookie) {
                    seen.local = sighting.local.map(|local| local.to_string());
                }
                Vec::new()
            }
            Happened::TookPort | Happened::Intruded => Vec::new(),
        }
    }

    /// The attempt is on record at once: a connection that fails tells of intent too.
    fn opening(&mut self, sighting: &Sighting, found: Option<FoundOrigin>) -> Vec<Record> {
        let Some(sessions) = self.sessions.get(&sighting.subject.cgroup_id) else {
            return Vec::new();
        };
        let seen = ConnectionSeen {
            time: sighting.at,
            relation: Relation::Egress,
            origin: found.unwrap_or_default().origin,
            cookie: sighting.cookie,
            remote: sighting.remote.map(|remote| remote.to_string()),
            begun: sighting.begun.or(Some(sighting.at)),
            connections: 1,
            ..ConnectionSeen::default()
        };
        let mut records = Vec::new();
        let mut follow = Vec::new();
        for session in sessions {
            let recorded = self.recorded.entry(*session).or_default();
            if recorded.connections < RECORDED_MAX {
                recorded.connections += 1;
                follow.push(*session);
                let seen = ConnectionSeen { session: *session, ..seen.clone() };
                records.push(Record::ConnectionSeen(Box::new(seen)));
            } else {
                recorded.left_out += 1;
                recorded.last = seen.clone();
            }
        }
        if !follow.is_empty() && self.open.len() < OPEN_MAX {
            self.open.insert(sighting.cookie, (seen, follow));
        }
        records
    }

    fn over(&mut self, sighting: &Sighting, remark: Option<&str>) -> Vec<Record> {
        let Some((mut seen, sessions)) = self.open.remove(&sighting.cookie) else {
            return Vec::new();
        };
        seen.local = sighting.local.map(|local| local.to_string()).or(seen.local);
        (seen.sent_bytes, seen.received_bytes) = (sighting.sent_bytes, sighting.received_bytes);
        (seen.time, seen.ended, seen.again) = (sighting.at, Some(sighting.at), true);
        seen.remark = remark.map(str::to_owned);
        let record =
            |session| Record::ConnectionSeen(Box::new(ConnectionSeen { session, ..seen.clone() }));
        sessions.into_iter().map(record).collect()
    }
}

/// As many as the programs can watch.
const CGROUPS_MAX: usize = recorder_ebpf::bound::WATCHED;
/// Connections of a session that are recorded one by one.
const RECORDED_MAX: usize = 256;
/// Connections that are followed to their end.
const OPEN_MAX: usize = 8_192;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::witness::origin::Subject;

    fn sighting(happened: Happened, cookie: u64) -> Sighting {
        Sighting {
            happened,
            subject: Subject { tgid: 7, comm: "curl".into(), cgroup_id: 70 },
            cookie,
            remote: Some("203.0.113.7:443".parse().expect("an address")),
            sent_bytes: (happened == Happened::Closed).then_some(10),
            ..Sighting::default()
        }
    }

    fn seen(records: &[Record]) -> Vec<&ConnectionSeen> {
        fn seen(record: &Record) -> &ConnectionSeen {
            match record {
                Record::ConnectionSeen(seen) => seen,
                other => panic!("{other:?}"),
            }
        }
        records.iter().map(seen).collect()
    }

    #[test]
    fn a_connection_is_told_to_each_session_of_its_cgroup() {
        let mut egress = Egress::default();
        let (one, two) = (SessionId::new(), SessionId::new());
        assert!(egress.watch(one, 70) && egress.watch(two, 70) && egress.watch(two, 71));
        let records = egress.sighted(&sighting(Happened::Opening, 5), None);
        assert_eq!(
            seen(&records).iter().map(|seen| seen.session).collect::<HashSet<_>>(),
            HashSet::from([one, two])
        );
        let records = egress.sighted(&sighting(Happened::Closed, 5), None);
        assert!(seen(&records).iter().all(|seen| seen.again && seen.sent_bytes == Some(10)));
        assert!(egress.sighted(&sighting(Happened::Closed, 5), None).is_empty());
    }

    #[test]
    fn what_is_over_the_bound_is_counted() {
        let mut egress = Egress::default();
        let session = SessionId::new();
        egress.watch(session, 70);
        let all = RECORDED_MAX as u64 + 3;
        let recorded: usize = (0..all)
            .map(|cookie| egress.sighted(&sighting(Happened::Opening, cookie), None).len())
            .sum();
        assert_eq!(recorded, RECORDED_MAX);
        let (changed, records) = egress.keep(|_| true, Timestamp::EPOCH);
        assert!(!changed);
        assert_eq!((seen(&records)[0].connections, seen(&records)[0].cookie), (3, 0));
        assert_eq!(egress.keep(|_| true, Timestamp::EPOCH), (false, vec![]), "told once");
        assert_eq!(egress.keep(|_| false, Timestamp::EPOCH), (true, vec![]));
        assert!(egress.cgroups().is_empty());
        assert!(egress.sighted(&sighting(Happened::Opening, 9_999), None).is_empty());
    }
}
