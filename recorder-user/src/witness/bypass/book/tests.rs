use std::net::SocketAddr;

use super::*;
use crate::{
    model::{Origin, PodFacts, SessionKind},
    witness::{
        bypass::{Pattern, Whose},
        origin::Subject,
    },
};

const NOW: Timestamp = Timestamp::from_micros(1_790_000_000_000_000);

fn sighting(happened: Happened, cookie: u64) -> Sighting {
    let address = |text: &str| -> Option<SocketAddr> { Some(text.parse().expect("an address")) };
    let is_closed = happened == Happened::Closed;
    Sighting {
        happened,
        whose: Whose::Foreign,
        subject: Subject { tgid: 7, comm: "curl".into(), cgroup_id: 70 },
        cookie,
        at: NOW,
        begun: Some(NOW),
        local: address("10.1.0.5:40000").filter(|_| happened != Happened::Opening),
        remote: address("10.96.0.1:443"),
        sent_bytes: is_closed.then_some(1_000),
        received_bytes: is_closed.then_some(50_000),
        ..Sighting::default()
    }
}

fn found(cgroup_id: u64, namespace: &str) -> Option<FoundOrigin> {
    let pod = PodFacts {
        uid: "u".into(),
        namespace: Some(namespace.into()),
        name: Some("agent-0".into()),
        ..PodFacts::default()
    };
    let origin = Origin { cgroup_id, pod: Some(pod), ..Origin::default() };
    Some(FoundOrigin { origin, on_host_files: false })
}

fn nothing(_: u64) -> Option<SocketTotals> {
    None
}

fn after(start: Instant, seconds: u64) -> Instant {
    start + Duration::from_secs(seconds)
}

/// The kinds of records, a letter each: o(pened), s(een), S(een again), e(nded).
fn shape(records: &[Record]) -> String {
    let letter = |record: &Record| match record {
        Record::SessionOpened(opened) => {
            assert_eq!((opened.kind, opened.key.cluster.as_str()), (SessionKind::Bypass, "prod"));
            'o'
        }
        Record::ConnectionSeen(seen) if seen.again => 'S',
        Record::ConnectionSeen(_) => 's',
        Record::SessionChanged(changed) => {
            assert!(changed.ended.is_some());
            'e'
        }
        other => panic!("{other:?}"),
    };
    records.iter().map(letter).collect()
}

fn last_seen(records: &[Record]) -> &ConnectionSeen {
    let seen = records.iter().rev().find_map(|record| match record {
        Record::ConnectionSeen(seen) => Some(&**seen),
        _ => None,
    });
    seen.expect("a connection")
}

struct Desk {
    book: Book,
    start: Instant,
}

impl Desk {
    fn new(rules: Vec<AllowRule>) -> Self {
        Self { book: Book::new(rules), start: Instant::now() }
    }

    fn sighted(&mut self, happened: Happened, cookie: u64, seconds: u64) -> Told {
        let now = after(self.start, seconds);
        self.book.sighted(&sighting(happened, cookie), found(70, "shop"), "prod", now)
    }

    fn tick(&mut self, seconds: u64, totals: impl Fn(u64) -> Option<SocketTotals>) -> Told {
        let time = NOW.plus_micros(i64::try_from(seconds).expect("small") * 1_000_000);
        self.book.tick(after(self.start, seconds), time, totals)
    }
}

#[test]
fn a_short_connection_is_a_session_when_it_ends() {
    let mut desk = Desk::new(vec![]);
    assert!(desk.sighted(Happened::Opening, 5, 0).alerts.is_empty(), "it may fail");
    let told = desk.sighted(Happened::Established, 5, 0);
    assert_eq!((told.alerts.len(), told.records.len()), (1, 0));
    assert_eq!(desk.book.counts().reported_open, 1);
    let told = desk.sighted(Happened::Closed, 5, 0);
    assert!(told.alerts.is_empty(), "one alarm for one connection");
    assert_eq!(shape(&told.records), "ose");
    let seen = last_seen(&told.records);
    assert_eq!((seen.sent_bytes, seen.received_bytes), (Some(1_000), Some(50_000)));
    assert_eq!(seen.remote.as_deref(), Some("10.96.0.1:443"));
    assert_eq!(seen.origin.pod.as_ref().and_then(|pod| pod.name.as_deref()), Some("agent-0"));
    let counts = desk.book.counts();
    assert_eq!((counts.reported, counts.reported_open), (1, 0));
    assert_eq!((counts.reported_sent_bytes, counts.reported_received_bytes), (1_000, 50_000));
}

#[test]
fn a_long_connection_is_on_record_before_it_ends() {
    let mut desk = Desk::new(vec![]);
    desk.sighted(Happened::Established, 5, 0);
    let open = |_| Some(SocketTotals { sent_bytes: 7, received_bytes: 8, ..Default::default() });
    assert_eq!(shape(&desk.tick(0, open).records), "");
    let begun = desk.tick(1, open).records;
    assert_eq!((shape(&begun).as_str(), last_seen(&begun).sent_bytes), ("os", Some(7)));
    assert_eq!(shape(&desk.tick(2, open).records), "", "once");
    let over = desk.sighted(Happened::Closed, 5, 3).records;
    assert_eq!(shape(&over), "Se");
    assert_eq!(last_seen(&over).session, last_seen(&begun).session);
}

#[test]
fn what_failed_is_counted_and_no_session() {
    let mut desk = Desk::new(vec![]);
    desk.sighted(Happened::Opening, 5, 0);
    assert!(desk.sighted(Happened::Failed, 5, 1).records.is_empty());
    desk.sighted(Happened::Opening, 6, 0);
    desk.tick(181, nothing);
    assert_eq!((desk.book.counts().failed, desk.book.open.len()), (2, 0));
}

#[test]
fn allowed_connections_are_counted_and_neither_recorded_nor_alarming() {
    let namespace = Some(Pattern::new("shop").expect("a pattern"));
    let mut desk = Desk::new(vec![AllowRule { namespace, ..AllowRule::default() }]);
    for happened in [Happened::Opening, Happened::Established] {
        let told = desk.sighted(happened, 5, 0);
        assert!(told.alerts.is_empty() && told.records.is_empty());
    }
    assert!(desk.tick(9, |_| Some(SocketTotals::default())).records.is_empty());
    assert!(desk.sighted(Happened::Closed, 5, 9).records.is_empty());
    let counts = desk.book.counts();
    assert_eq!((counts.allowed, counts.reported), (1, 0));
    assert_eq!((counts.allowed_sent_bytes, counts.allowed_received_bytes), (1_000, 50_000));
}

#[test]
fn a_flood_is_counted_in_one_session_per_cgroup() {
    let mut desk = Desk::new(vec![]);
    let flood = u64::from(RECORDS_BURST) + 500;
    let mut alone = 0;
    for cookie in 1..=flood {
        desk.sighted(Happened::Established, cookie, 0);
        alone += desk.sighted(Happened::Closed, cookie, 0).records.len() / 3;
    }
    assert_eq!(alone, RECORDS_BURST as usize);
    let told = desk.tick(1, nothing).records;
    assert_eq!(shape(&told), "os");
    let crowd = last_seen(&told);
    assert_eq!((crowd.connections, crowd.sent_bytes), (500, Some(500_000)));
    assert_eq!(desk.book.counts().aggregated, 500);
    assert_eq!(desk.book.counts().reported, flood, "none is missing");
    assert_eq!(shape(&desk.tick(30, nothing).records), "", "nothing new");
    assert_eq!(shape(&desk.tick(61, nothing).records), "Se");
}

#[test]
fn long_connections_of_a_flood_are_counted_once() {
    let mut desk = Desk::new(vec![]);
    let flood = u64::from(RECORDS_BURST) + 10;
    for cookie in 1..=flood {
        desk.sighted(Happened::Established, cookie, 0);
    }
    let told = desk.tick(1, |_| Some(SocketTotals::default())).records;
    assert_eq!(shape(&told).matches('o').count(), RECORDS_BURST as usize + 1);
    for cookie in 1..=flood {
        desk.sighted(Happened::Closed, cookie, 2);
    }
    let told = desk.tick(90, nothing).records;
    let crowd = last_seen(&told);
    assert_eq!((crowd.connections, crowd.sent_bytes), (10, Some(10_000)));
}

#[test]
fn cgroups_beyond_the_bound_share_one_crowd() {
    let mut desk = Desk::new(vec![]);
    let now = desk.start;
    for cookie in 0..u64::from(RECORDS_BURST) {
        desk.sighted(Happened::Closed, cookie, 0);
    }
    for number in 0..CROWDS_MAX as u64 + 5 {
        let closed = sighting(Happened::Closed, 10_000 + number);
        desk.book.sighted(&closed, found(number, "shop"), "prod", now);
    }
    assert_eq!(desk.book.crowds.len(), CROWDS_MAX + 1);
    let told = desk.book.stop(now, NOW, nothing).records;
    let connections: u64 = told
        .iter()
        .filter_map(|record| match record {
            Record::ConnectionSeen(seen) => Some(seen.connections),
            _ => None,
        })
        .sum();
    assert_eq!(connections, CROWDS_MAX as u64 + 5);
}

#[test]
fn a_lost_end_is_found_in_the_table() {
    let mut desk = Desk::new(vec![]);
    desk.sighted(Happened::Established, 5, 0);
    let closed = Some(NOW);
    let totals = move |_| Some(SocketTotals { sent_bytes: 9, closed, ..Default::default() });
    assert_eq!(shape(&desk.tick(1, totals).records), "os", "its notice may still come");
    let told = desk.tick(5, totals).records;
    assert_eq!(shape(&told), "Se");
    assert_eq!((last_seen(&told).ended, last_seen(&told).sent_bytes), (Some(NOW), Some(9)));
    assert_eq!(desk.book.counts().unseen_ends, 1);
}

#[test]
fn one_that_the_kernel_forgot_is_over_at_an_unknown_time() {
    let mut desk = Desk::new(vec![]);
    desk.sighted(Happened::Established, 5, 0);
    desk.tick(1, nothing);
    let told = desk.tick(6, nothing).records;
    assert_eq!((shape(&told).as_str(), last_seen(&told).ended), ("Se", None));
}

#[test]
fn an_end_without_a_beginning_is_told_whole() {
    let mut desk = Desk::new(vec![]);
    let told = desk.sighted(Happened::Closed, 5, 0);
    assert_eq!((shape(&told.records).as_str(), told.alerts.len()), ("ose", 1));
}

#[test]
fn a_stranger_on_the_gateways_socket_is_told_at_once_and_followed() {
    let mut desk = Desk::new(vec![]);
    let told = desk.sighted(Happened::Intruded, 5, 0);
    assert_eq!((shape(&told.records).as_str(), told.alerts.len()), ("os", 1));
    assert_eq!(last_seen(&told.records).relation, Relation::Intruder);
    assert!(desk.sighted(Happened::Intruded, 5, 0).records.is_empty(), "the same one");
    let other = |bytes, closed| {
        move |_| Some(SocketTotals { other_bytes: bytes, closed, ..SocketTotals::default() })
    };
    assert_eq!(shape(&desk.tick(10, other(42, None)).records), "S");
    let told = desk.tick(11, other(43, Some(NOW))).records;
    assert_eq!((shape(&told).as_str(), last_seen(&told).sent_bytes), ("Se", Some(43)));
    assert_eq!(desk.book.counts().intruders, 1);
}

#[test]
fn the_bind_and_the_listen_of_one_socket_are_one() {
    let mut desk = Desk::new(vec![]);
    let told = desk.sighted(Happened::TookPort, 5, 0);
    assert_eq!((shape(&told.records).as_str(), told.alerts.len()), ("ose", 1));
    assert_eq!(last_seen(&told.records).relation, Relation::Port);
    assert!(desk.sighted(Happened::TookPort, 5, 0).records.is_empty());
    assert_eq!(desk.book.counts().ports, 1);
}

#[test]
fn sockets_of_the_list_are_over_when_it_lacks_them() {
    let mut desk = Desk::new(vec![]);
    let now = desk.start;
    let listed = Sighting {
        seen_by: SeenBy::SocketList,
        begun: None,
        sent_bytes: Some(1),
        received_bytes: Some(2),
        ..sighting(Happened::Established, 5)
    };
    let told = desk.book.sighted(&listed, found(70, "shop"), "prod", now);
    assert_eq!(told.alerts.len(), 1);
    assert!(desk.book.follows_listed());
    assert_eq!(shape(&desk.tick(1, nothing).records), "os");
    let there = HashMap::from([(5, (10, 20))]);
    assert!(desk.book.listed(&there, now, NOW).records.is_empty());
    assert_eq!(shape(&desk.tick(60, nothing).records), "", "only the list tells of it");
    let told = desk.book.listed(&HashMap::new(), now, NOW).records;
    assert_eq!((shape(&told).as_str(), last_seen(&told).sent_bytes), ("Se", Some(10)));
    assert_eq!(last_seen(&told).begun, None);
}

#[test]
fn what_is_open_when_the_gateway_stops_says_so() {
    let mut desk = Desk::new(vec![]);
    desk.sighted(Happened::Established, 5, 0);
    desk.sighted(Happened::Opening, 6, 0);
    let now = desk.start;
    let told = desk.book.stop(now, NOW, nothing).records;
    assert_eq!(shape(&told), "ose");
    assert_eq!(last_seen(&told).ended, None);
    assert!(last_seen(&told).remark.as_deref().is_some_and(|remark| remark.contains("stopped")));
}
