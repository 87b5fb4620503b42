//! The stores of several gateways, read as one.

mod cli_support;

use std::{ffi::OsStr, path::PathBuf};

use cli_support::{Fixture, Made, Ran, alice, command, exchange, opened, ran, session};
use recorder_user::model::{GatewayId, Record, SessionId, SessionOpened};
use serde_json::Value;
use tempfile::TempDir;

const LIST: &str = "/api/v1/namespaces/shop/pods";

/// Alice's work through two gateways that know nothing of each other, and a later visit to one of them.
struct Two {
    directories: [TempDir; 2],
    gateways: [GatewayId; 2],
}

impl Two {
    fn new() -> Self {
        let (east, west) = (Fixture::new(), Fixture::new());
        let gateways = [&east, &west].map(|fixture| fixture.store.gateway_id());
        east.append(visit(1, 0, &[(1, 0), (3, 2000)]));
        // More than a pause later: another session.
        east.append(visit(3, 3_600_000, &[(5, 3_600_000)]));
        west.append(visit(2, 500, &[(2, 1000), (4, 3000)]));
        Self { directories: [east.close(), west.close()], gateways }
    }

    fn stores(&self) -> [PathBuf; 2] {
        self.directories.each_ref().map(|directory| directory.path().join("store"))
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        let mut command = command(arguments);
        for store in self.stores() {
            command.args([OsStr::new("--store"), store.as_os_str()]);
        }
        ran(command.output().expect("runs"))
    }
}

/// A session with requests at these times, in milliseconds.
fn visit(number: u8, at_ms: i64, requests: &[(u8, i64)]) -> Vec<Record> {
    let Record::SessionOpened(session_opened) = opened(number, alice(), Some("fix-123")) else {
        panic!("it opens a session")
    };
    let time = cli_support::START.plus_micros(at_ms * 1000);
    let mut records = vec![Record::SessionOpened(SessionOpened { time, ..session_opened })];
    for &(request, at_ms) in requests {
        let mut made = Made::new(request, at_ms, &format!("get {request}"), "list", LIST);
        made.opened.session = Some(session(number));
        made = made.settled(|settled| settled.session = Some(session(number)));
        records.extend(made.into_records());
    }
    records
}

fn text(value: &Value) -> &str {
    value.as_str().expect("text")
}

fn ids(lines: &[Value], key: &str) -> Vec<String> {
    lines.iter().filter_map(|line| line[key].as_str()).map(Into::into).collect()
}

#[test]
fn ls_puts_tracks_together() {
    let two = Two::new();
    let lines = two.run(&["ls", "--json"]).objects();
    let [both, later] = &lines[..] else { panic!("two sessions: {lines:?}") };
    assert_eq!(text(&both["session"]), session(1).to_string());
    assert_eq!((&both["exchanges"], &both["state"]), (&4.into(), &"open".into()));
    let tracks = both["tracks"].as_array().expect("tracks");
    let expected = [(two.gateways[0], session(1)), (two.gateways[1], session(2))];
    let found: Vec<_> = tracks.iter().map(|t| (text(&t["gateway"]), text(&t["session"]))).collect();
    let expected = expected.map(|(gateway, session)| (gateway.to_string(), session.to_string()));
    let expected: Vec<_> = expected.iter().map(|(a, b)| (&a[..], &b[..])).collect();
    assert_eq!(found, expected);
    assert!(tracks.iter().all(|track| track["exchanges"] == 2), "{tracks:?}");
    assert_eq!(text(&later["session"]), session(3).to_string());
    assert_eq!(later["tracks"].as_array().map(Vec::len), Some(1));
    let table = two.run(&["ls"]).out;
    assert!(table.contains("GATEWAYS"), "{table}");
    for gateway in two.gateways {
        assert!(table.contains(&gateway.to_string()[24..]), "{table}");
    }
}

#[test]
fn show_and_replay_tell_who_wrote_what() {
    let two = Two::new();
    let in_order = [1, 2, 3, 4].map(|number| exchange(number).to_string());
    let by = [0, 1, 0, 1].map(|which| two.gateways[which].to_string());
    // Any track's id names the session.
    for id in [session(1), session(2)].map(|id: SessionId| id.to_string()) {
        let shown = two.run(&["show", &id, "--json"]).objects().remove(0);
        let rows = shown["exchangeRows"].as_array().expect("rows").clone();
        assert_eq!(ids(&rows, "exchange"), in_order);
        assert_eq!(ids(&rows, "gateway"), by);
        let replayed = two.run(&["replay", &id, "--json"]).objects();
        let told: Vec<_> =
            replayed.into_iter().filter(|line| line["event"] == "exchange").collect();
        assert_eq!(ids(&told, "exchange"), in_order);
        assert_eq!(ids(&told, "gateway"), by);
        for verb in ["show", "replay"] {
            let out = two.run(&[verb, &id]).out;
            assert_eq!(out.matches("\ntrack   gateway ").count(), 2, "{out}");
            for gateway in &by[..2] {
                assert_eq!(out.matches(&gateway[24..]).count(), 3, "{verb}: {out}");
            }
        }
    }
    // One exchange is read where it is.
    for number in [1, 2] {
        let id = exchange(number).to_string();
        let shown = two.run(&["show", &id, "--json"]).objects().remove(0);
        assert_eq!(text(&shown["requestHead"]["target"]), LIST);
    }
}

#[test]
fn search_pages_through_all_stores() {
    let two = Two::new();
    let found = ids(&two.run(&["search", "--json"]).objects(), "exchange");
    assert_eq!(found, [1, 2, 3, 4, 5].map(|number| exchange(number).to_string()));
    let id = session(2).to_string();
    let of_session = two.run(&["search", "--session", &id, "--json"]).objects();
    assert_eq!(ids(&of_session, "exchange"), found[..4]);
    let page = two.run(&["search", "--limit", "2", "--after", &found[1], "--json"]);
    assert_eq!(ids(&page.objects(), "exchange"), found[2..4]);
    assert!(page.err.contains(&format!("--after {}", found[3])), "{}", page.err);
    assert!(two.run(&["search"]).out.contains("GATEWAY"));
}

#[test]
fn verify_checks_each_and_the_rest_takes_one() {
    let two = Two::new();
    let lines = two.run(&["verify", "--json"]).objects();
    let expected = two.stores().map(|store| store.display().to_string());
    assert_eq!(ids(&lines, "target"), expected);
    assert!(lines.iter().all(|line| line["ok"] == true), "{lines:?}");
    let [_, west] = two.stores();
    let segments = std::fs::read_dir(west.join("segments")).expect("readable");
    let segment = segments.map(|entry| entry.expect("readable").path()).next().expect("one");
    let mut bytes = std::fs::read(&segment).expect("readable");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&segment, bytes).expect("writable");
    let ran = two.run(&["verify", "--json"]);
    let lines = ran.objects();
    assert_eq!((ran.code, &lines[0]["ok"], &lines[1]["ok"]), (1, &true.into(), &false.into()));
    for verb in [&["head"][..], &["follow", "a501"], &["accesses"]] {
        let ran = two.run(verb);
        assert!(ran.code == 2 && ran.err.contains("one store"), "{verb:?}: {}", ran.err);
    }
    let twice = ran_on(&[&two.stores()[0], &two.stores()[0]], &["ls"]);
    assert!(twice.code == 2 && twice.err.contains(&two.gateways[0].to_string()), "{}", twice.err);
    let socket = two.run(&["ls", "--socket", "x.sock"]);
    assert!(socket.code == 2 && socket.err.contains("--socket"), "{}", socket.err);
}

fn ran_on(stores: &[&PathBuf], arguments: &[&str]) -> Ran {
    let mut command = command(arguments);
    for store in stores {
        command.arg("--store").arg(store);
    }
    ran(command.output().expect("runs"))
}
