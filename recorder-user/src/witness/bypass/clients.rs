//! The processes on this node that are the gateway's clients: the two ends of a connection, joined by the client's address.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{Happened, Sighting};
use crate::{
    model::{ConnectionSeen, Relation, SessionId, Timestamp},
    witness::origin::FoundOrigin,
};

/// A session came through a connection that the gateway accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    /// The session.
    pub session: SessionId,
    /// The other end's address, as the gateway sees it.
    pub peer: SocketAddr,
}

/// The clients' ends of connections to the gateway, and sessions that wait to learn of theirs.
pub struct Clients {
    netns_cookie: u64,
    opening: HashMap<u64, End>,
    ends: HashMap<SocketAddr, End>,
    waiting: HashMap<SocketAddr, Vec<(SessionId, Instant)>>,
    told: HashSet<(SessionId, u64)>,
}

struct End {
    seen: ConnectionSeen,
    touched: Instant,
    is_closed: bool,
}

impl Clients {
    /// For a gateway whose sockets are in this network namespace; 0 when that is unknown.
    #[must_use]
    pub fn new(netns_cookie: u64) -> Self {
        Self {
            netns_cookie,
            opening: HashMap::new(),
            ends: HashMap::new(),
            waiting: HashMap::new(),
            told: HashSet::new(),
        }
    }

    /// Takes in what was seen of a client's end. Gives what sessions learn from it.
    pub fn sighted(
        &mut self,
        sighting: &Sighting,
        found: Option<FoundOrigin>,
        now: Instant,
    ) -> Vec<ConnectionSeen> {
        match sighting.happened {
            Happened::Opening if self.opening.len() < ENDS_MAX => {
                let end = End { seen: seen(sighting, found), touched: now, is_closed: false };
                self.opening.insert(sighting.cookie, end);
            }
            Happened::Established => {
                let known = self.opening.remove(&sighting.cookie).map(|end| end.seen);
                let mut seen = known.unwrap_or_else(|| seen(sighting, found));
                let Some(local) = sighting.local.filter(|local| self.is_near(*local, sighting))
                else {
                    return Vec::new();
                };
                let local = canonical(local);
                seen.local = Some(local.to_string());
                let waiting = self.waiting.remove(&local).unwrap_or_default();
                let told = waiting.into_iter().filter_map(|(session, _)| self.tell(session, &seen));
                let told = told.collect();
                if self.ends.len() < ENDS_MAX {
                    self.ends.insert(local, End { seen, touched: now, is_closed: false });
                }
                return told;
            }
            Happened::Closed => {
                let end = sighting.local.and_then(|local| self.ends.get_mut(&canonical(local)));
                // Another connection may have the address by now.
                if let Some(end) = end.filter(|end| end.seen.cookie == sighting.cookie) {
                    (end.is_closed, end.touched) = (true, now);
                }
            }
            Happened::Failed => drop(self.opening.remove(&sighting.cookie)),
            _ => {}
        }
        Vec::new()
    }

    /// A session came through a connection. Gives what it learns, now or, from `sighted`, later: the two ends are told
    /// of in any order.
    pub fn used(&mut self, used: Use, now: Instant) -> Option<ConnectionSeen> {
        let peer = canonical(used.peer);
        if let Some(end) = self.ends.get(&peer) {
            let seen = end.seen.clone();
            return self.tell(used.session, &seen);
        }
        if self.waiting.len() < WAITING_MAX {
            let waiting = self.waiting.entry(peer).or_default();
            if waiting.len() < SESSIONS_MAX {
                waiting.push((used.session, now));
            }
        }
        None
    }

    /// Forgets what nobody will ask for.
    pub fn tick(&mut self, now: Instant) {
        let age = |touched: Instant| now.saturating_duration_since(touched);
        self.opening.retain(|_, end| age(end.touched) < OPENING_MAX);
        self.ends.retain(|_, end| !end.is_closed || age(end.touched) < CLOSED_MAX);
        self.waiting.retain(|_, waiting| {
            waiting.retain(|(_, since)| age(*since) < WAIT_MAX);
            !waiting.is_empty()
        });
        let open: HashSet<u64> = self.ends.values().map(|end| end.seen.cookie).collect();
        self.told.retain(|(_, cookie)| open.contains(cookie));
    }

    fn tell(&mut self, session: SessionId, seen: &ConnectionSeen) -> Option<ConnectionSeen> {
        let time = Timestamp::now();
        let is_new = self.told.insert((session, seen.cookie));
        is_new.then(|| ConnectionSeen { session, time, ..seen.clone() })
    }

    /// A loopback address means another host in each network namespace.
    fn is_near(&self, local: SocketAddr, sighting: &Sighting) -> bool {
        let is_same = self.netns_cookie == 0 || sighting.netns_cookie == self.netns_cookie;
        is_same || !local.ip().to_canonical().is_loopback()
    }
}

fn seen(sighting: &Sighting, found: Option<FoundOrigin>) -> ConnectionSeen {
    ConnectionSeen {
        time: sighting.at,
        relation: Relation::Client,
        origin: found.unwrap_or_default().origin,
        cookie: sighting.cookie,
        remote: sighting.remote.map(|remote| remote.to_string()),
        begun: sighting.begun.or(Some(sighting.at)),
        connections: 1,
        ..ConnectionSeen::default()
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Client connections of this node, as many as the gateway takes; of further ones the process is not known.
const ENDS_MAX: usize = 16_384;
/// Addresses that sessions wait for; most are of clients on other nodes, whose process nobody tells.
const WAITING_MAX: usize = 4_096;
/// Sessions that wait for one address.
const SESSIONS_MAX: usize = 64;
/// The kernel tells of a client's end within some tens of ms.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// A request may be read after its client has closed.
const CLOSED_MAX: Duration = Duration::from_secs(30);
/// A handshake takes no longer: the kernel gives up after 127 s.
const OPENING_MAX: Duration = Duration::from_secs(180);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::PodFacts, witness::origin::Subject};

    const NETNS: u64 = 9;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    fn sighting(happened: Happened, cookie: u64, local: &str, netns_cookie: u64) -> Sighting {
        Sighting {
            happened,
            subject: Subject { tgid: 7, comm: "kubectl".into(), cgroup_id: 70 },
            cookie,
            netns_cookie,
            local: (happened != Happened::Opening).then(|| address(local)),
            remote: Some(address("10.0.0.9:8443")),
            ..Sighting::default()
        }
    }

    fn pod() -> Option<FoundOrigin> {
        let mut found = FoundOrigin::default();
        found.origin.pod = Some(PodFacts { uid: "u".into(), ..PodFacts::default() });
        Some(found)
    }

    fn used(session: SessionId, peer: &str) -> Use {
        Use { session, peer: address(peer) }
    }

    #[test]
    fn both_orders_join_the_two_ends() {
        let (mut clients, now) = (Clients::new(NETNS), Instant::now());
        let (early, late) = (SessionId::new(), SessionId::new());
        assert_eq!(clients.used(used(early, "10.1.0.5:40000"), now), None);
        let opening = sighting(Happened::Opening, 5, "", NETNS);
        assert!(clients.sighted(&opening, pod(), now).is_empty());
        let established = sighting(Happened::Established, 5, "10.1.0.5:40000", 77);
        let told = clients.sighted(&established, None, now);
        assert_eq!((told.len(), told[0].session, told[0].cookie), (1, early, 5));
        assert_eq!(told[0].origin.pod.as_ref().map(|pod| pod.uid.as_str()), Some("u"));
        let told = clients.used(used(late, "[::ffff:10.1.0.5]:40000"), now).expect("known");
        assert_eq!((told.session, told.local.as_deref()), (late, Some("10.1.0.5:40000")));
        assert_eq!(clients.used(used(late, "10.1.0.5:40000"), now), None, "told once");
    }

    #[test]
    fn loopback_is_of_one_namespace() {
        let (mut clients, now) = (Clients::new(NETNS), Instant::now());
        let session = SessionId::new();
        let stranger = sighting(Happened::Established, 5, "127.0.0.1:40000", NETNS + 1);
        clients.sighted(&stranger, pod(), now);
        assert_eq!(clients.used(used(session, "127.0.0.1:40000"), now), None);
        let own = sighting(Happened::Established, 6, "127.0.0.1:40000", NETNS);
        assert_eq!(clients.sighted(&own, pod(), now)[0].cookie, 6);
    }

    #[test]
    fn an_address_that_is_used_again_is_the_new_ones() {
        let (mut clients, now) = (Clients::new(0), Instant::now());
        let later = now + CLOSED_MAX;
        for cookie in [5, 6] {
            let made = sighting(Happened::Established, cookie, "10.1.0.5:40000", 1);
            clients.sighted(&made, pod(), now);
        }
        // The end of the first is told late: it must not end the second.
        clients.sighted(&sighting(Happened::Closed, 5, "10.1.0.5:40000", 1), None, now);
        clients.tick(later);
        let session = SessionId::new();
        assert_eq!(clients.used(used(session, "10.1.0.5:40000"), later).expect("open").cookie, 6);
        clients.sighted(&sighting(Happened::Closed, 6, "10.1.0.5:40000", 1), None, later);
        clients.tick(later + CLOSED_MAX);
        assert_eq!(clients.used(used(session, "10.1.0.5:40000"), later), None);
    }

    #[test]
    fn who_waits_is_forgotten_after_a_while() {
        let (mut clients, now) = (Clients::new(0), Instant::now());
        clients.used(used(SessionId::new(), "10.2.0.1:1"), now);
        clients.tick(now + WAIT_MAX);
        let made = sighting(Happened::Established, 5, "10.2.0.1:1", 1);
        assert!(clients.sighted(&made, pod(), now).is_empty());
    }
}
