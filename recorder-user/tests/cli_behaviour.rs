//! How the binary behaves: exit codes, hints, hostile text, a store that is being written, damage.

mod cli_support;

use std::{
    fs, io,
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use cli_support::{
    Fixture, Made, alice, alices_session, alices_store, command, exchange, opened, ran, recorder,
    session,
};
use recorder_user::model::{Change, Principal};

#[test]
fn exit_codes_and_hints() {
    let store = alices_store();
    for (args, code, error, hint) in [
        (&["show", "ffff"][..], 1, "no session or exchange", "recorder ls"),
        (&["replay", "ffff"], 1, "no session or exchange", "recorder ls"),
        (&["verify", &"f".repeat(32)[..]], 1, "no session", "recorder ls"),
        (&["search", "--session", "ffff"], 1, "no session", "recorder ls"),
        (&["replay", "ec03"], 2, "is an exchange", &format!("recorder replay {}", session(1))[..]),
        (&["show", "01a0c4506c007000800000000"], 0, "", ""),
        (&["show", "xyzw"], 2, "is not an id", "recorder ls"),
        (&["show", "a50"], 2, "at least 4", "recorder ls"),
        (&["search", "--status", "6xx"], 2, "--status \"6xx\"", "recorder search --help"),
        (&["search", "--after", "ec03"], 2, "--after \"ec03\"", "recorder search --help"),
        (&["verify", "/no/such/store"], 2, "no store at /no/such/store", "DECKLOG_STORE"),
    ] {
        let ran = recorder(store.path(), args);
        assert_eq!(ran.code, code, "{args:?}: {}", ran.err);
        assert!(ran.err.contains(error), "{args:?}: {}", ran.err);
        assert!(code == 0 || ran.err.contains("hint: "), "{args:?}: {}", ran.err);
        assert!(ran.err.contains(hint), "{args:?}: {}", ran.err);
        assert!(code == 0 || ran.out.is_empty(), "{args:?}: {}", ran.out);
    }
}

#[test]
fn wrong_usage_is_two() {
    for args in [
        &["ls", "--no-such-flag"][..],
        &[],
        &["search", "--verdict", "maybe"],
        &["replay", "abcd", "--speed", "0"],
        &["replay", "abcd", "--max-wait", "2 parsecs"],
        &["search", "--since", "yesterday"],
    ] {
        assert_eq!(ran(command(args).output().expect("runs")).code, 2, "{args:?}");
    }
    let none = ran(command(&["ls"]).output().expect("runs"));
    assert!(none.code == 2 && none.err.contains("hint: give --store DIR"), "{}", none.err);
    let missing = ran(command(&["ls", "--store", "/no/such"]).output().expect("runs"));
    assert!(missing.code == 2 && missing.err.contains("/no/such"), "{}", missing.err);
    let empty = tempfile::TempDir::new().expect("a directory");
    let other = ran(command(&["ls", "--store"]).arg(empty.path()).output().expect("runs"));
    assert!(other.code == 2 && other.err.contains("is not a store"), "{}", other.err);
}

#[test]
fn nothing_found_is_fine() {
    let store = alices_store();
    let found = recorder(store.path(), &["search", "--principal", "nobody"]);
    assert_eq!((found.code, found.out.as_str(), found.err.as_str()), (0, "", "nothing found\n"));
    let empty = Fixture::new().close();
    let listed = recorder(empty.path(), &["ls"]);
    assert_eq!(
        (listed.code, listed.out.as_str(), listed.err.as_str()),
        (0, "", "no sessions yet\n")
    );
    let witness = recorder(empty.path(), &["witness"]);
    assert!(witness.code == 1 && witness.err.contains("hint: "), "{}", witness.err);
}

#[test]
fn a_reader_that_left_is_no_failure() {
    let store = alices_store();
    for args in [&["search", "--json"][..], &["ls"], &["replay", "a501", "--speed", "1000"]] {
        let (reader, writer) = io::pipe().expect("a pipe");
        drop(reader);
        let mut command = command(args);
        let command = command.env("DECKLOG_STORE", store.path().join("store")).stdout(writer);
        let ran = ran(command.output().expect("runs"));
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{args:?}");
    }
}

const HOSTILE: &str = "x\u{1b}[2J\u{1b}]0;owned\u{7}\u{9b}31m\u{202e}gnp\n\rroot";

#[test]
fn hostile_text_never_reaches_the_terminal_as_itself() {
    let fixture = Fixture::new();
    let principal = Principal { username: HOSTILE.into(), groups: vec![HOSTILE.into()], ..alice() };
    let mut records = vec![opened(1, principal.clone(), Some(HOSTILE))];
    let target = format!("/api/v1/namespaces/{HOSTILE}/configmaps/{HOSTILE}");
    let mut made = Made::new(1, 0, HOSTILE, "patch", &target)
        .request("application/json", &[(1, HOSTILE.as_bytes())])
        .response(HOSTILE, &[(2, format!("{{\"a\":\"{HOSTILE}\"}}").as_bytes())])
        .settled(|settled| {
            settled.objects =
                vec![cli_support::object(HOSTILE, HOSTILE, HOSTILE, Change::Modified)];
            settled.object_count = 1;
            settled.audit_id = Some(HOSTILE.into());
        });
    made.opened.principal = Some(Arc::new(principal));
    made.opened.peer = HOSTILE.into();
    let verdict = made.opened.verdict.as_mut().expect("has one");
    verdict.policies = vec![HOSTILE.into()];
    verdict.errors = vec![HOSTILE.into()];
    records.extend(made.into_records());
    fixture.append(records);
    let store = fixture.close();
    for args in [
        &["ls"][..],
        &["search"],
        &["show", "a501"],
        &["show", "ec01"],
        &["replay", "a501"],
        &["ls", "--json"],
        &["search", "--json"],
        &["show", "ec01", "--json"],
        &["show", "a501", "--json"],
        &["replay", "a501", "--json"],
        &["show", HOSTILE],
    ] {
        let ran = recorder(store.path(), args);
        let text = format!("{}{}", ran.out, ran.err);
        let bad = text.chars().find(|c| *c != '\n' && recorder_user::cli::escape::is_hostile(*c));
        assert_eq!(bad, None, "{args:?}: {text:?}");
        assert!(text.contains("1b"), "{args:?} shows it escaped: {text}");
    }
    let line = recorder(store.path(), &["ls", "--json"]).objects().remove(0);
    assert_eq!(line["principal"]["username"], HOSTILE, "in JSON the value stays the same");
}

#[test]
fn a_store_is_read_while_it_is_written() {
    let fixture = Fixture::new();
    fixture.append(vec![opened(1, alice(), None)]);
    let all = 100;
    let directory = fixture.directory.path().to_owned();
    let writer = thread::spawn(move || {
        for number in 1..=all {
            let made = Made::new(number, i64::from(number), "kubectl get", "get", "/version");
            fixture.append(made.into_records());
        }
        fixture
    });
    let deadline = Instant::now() + Duration::from_secs(60);
    let (mut seen, mut done) = (0, false);
    while !done {
        // Looked at before the store is: what was appended until then must be seen.
        done = writer.is_finished();
        let ran = recorder(&directory, &["search", "--json", "--limit", "0"]);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""));
        let lines = ran.objects().len();
        assert!(lines >= seen, "{lines} after {seen}");
        seen = lines;
        assert!(Instant::now() < deadline, "saw {seen}");
    }
    assert_eq!(seen, usize::from(all));
    let fixture = writer.join().expect("wrote");
    let live = recorder(&directory, &["verify", "--json"]).objects().remove(0);
    assert_eq!((&live["ok"], &live["live"]), (&true.into(), &true.into()));
    let refused = recorder(&directory, &["reindex"]);
    assert!(refused.code == 2 && refused.err.contains("hint: "), "{}", refused.err);
    drop(fixture.close());
}

fn only_segment(store: &std::path::Path) -> PathBuf {
    let segments = fs::read_dir(store.join("store/segments")).expect("segments");
    let mut paths: Vec<_> = segments.map(|entry| entry.expect("readable").path()).collect();
    paths.sort();
    assert_eq!(paths.len(), 1, "{paths:?}");
    paths.remove(0)
}

#[test]
fn damage_is_named_and_the_rest_is_shown() {
    let store = alices_store();
    let file = only_segment(store.path());
    let mut bytes = fs::read(&file).expect("readable");
    let place = bytes.len() * 2 / 3;
    bytes[place] ^= 1;
    fs::write(&file, &bytes).expect("writable");
    for args in [&["verify"][..], &["verify", &session(1).to_string()]] {
        let ran = recorder(store.path(), args);
        assert_eq!(ran.code, 1, "{}", ran.err);
        assert!(ran.out.starts_with("DOES NOT VERIFY"), "{}", ran.out);
        let name = file.file_name().and_then(|name| name.to_str()).expect("text");
        assert!(ran.out.contains(name) && ran.out.contains("at offset "), "{}", ran.out);
    }
    let line = recorder(store.path(), &["verify", "--json"]).objects().remove(0);
    assert_eq!(line["ok"], false);
    let offset = line["firstBad"]["offset"].as_u64().expect("an offset");
    assert!(offset > 0 && offset <= place as u64, "{line}");
    fs::remove_dir_all(store.path().join("store/index")).expect("there is an index");
    let ran = recorder(store.path(), &["search", "--json"]);
    assert_eq!(ran.code, 0);
    assert!(!ran.objects().is_empty(), "what comes before the damage is shown");
    assert!(ran.err.contains("warning: ") && ran.err.contains("recorder verify"), "{}", ran.err);
}

#[test]
fn ids_are_found_by_a_unique_part() {
    let fixture = Fixture::new();
    fixture.append(alices_session());
    let second = Principal { subject: "sub-2".into(), ..alice() };
    fixture.append(vec![opened(2, second, None)]);
    let store = fixture.close();
    let ambiguous = recorder(store.path(), &["show", "01a0"]);
    assert_eq!(ambiguous.code, 2);
    for number in [1, 2] {
        assert!(ambiguous.err.contains(&session(number).to_string()), "{}", ambiguous.err);
    }
    for id in ["A502", "0200a502", &session(2).to_string()] {
        let shown = recorder(store.path(), &["show", id, "--json"]).objects().remove(0);
        assert_eq!(shown["session"], session(2).to_string(), "{id}");
    }
    let shown = recorder(store.path(), &["show", "00ec03", "--json"]).objects().remove(0);
    assert_eq!(shown["exchange"], exchange(3).to_string());
}

/// The only public key of a store.
fn public_key(store: &std::path::Path) -> String {
    let keys = recorder(store, &["keys", "--json"]).objects();
    keys[0]["publicKeyFile"].as_str().expect("a file").to_owned()
}

#[test]
fn what_can_be_verified_is_named_in_many_ways() {
    let store = alices_store();
    let segments = store.path().join("store/segments");
    let segment = std::fs::read_dir(segments).expect("segments").next().expect("one");
    let segment = segment.expect("readable").path();
    let id = segment.file_stem().and_then(|id| id.to_str()).expect("an id").to_owned();
    let row = recorder(store.path(), &["search", "--json"]).objects().remove(0);
    let exchange = row["exchange"].as_str().expect("an id");
    let header = std::fs::read(&segment).expect("readable");
    let first = 18 + u32::from_le_bytes(header[10..14].try_into().expect("four"));
    let position = format!("{id}:{first}");
    let file = segment.to_str().expect("UTF-8");
    for target in [exchange, &exchange[26..], &session(1).to_string(), &position, file] {
        let ran = recorder(store.path(), &["verify", target]);
        assert_eq!(ran.code, 0, "{target}: {}{}", ran.out, ran.err);
    }
    let said = recorder(store.path(), &["verify", &position, "--json"]).objects().remove(0);
    assert_eq!(said["coveredBy"]["segment"], id.as_str());
    let ran = recorder(store.path(), &["verify", &format!("{id}:{}", first + 1)]);
    assert_eq!((ran.code, ran.err.contains("no record")), (1, true), "{}", ran.err);
    let ran = recorder(store.path(), &["verify", "abcd:x"]);
    assert_eq!(ran.code, 2, "{}", ran.err);
}

#[test]
fn a_session_is_bundled_checked_and_read() {
    let store = alices_store();
    let bundle = store.path().join("bundle");
    let to = bundle.to_str().expect("UTF-8");
    let id = session(1).to_string();
    let ran = recorder(store.path(), &["export", &id, "--format", "bundle", "--output", to]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let key = public_key(store.path());
    let ran = recorder(store.path(), &["verify", to, "--key", &key]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("of others withheld"), "{}", ran.out);
    // With the key that lies in it, it says that this proves little.
    let ran = recorder(store.path(), &["verify", to]);
    assert!(ran.code == 0 && ran.err.contains("came with the bundle"), "{}", ran.err);
    for verb in [&["ls", "--json"][..], &["search", "--json"], &["replay", &id, "--at-once"]] {
        let whole = recorder(store.path(), verb);
        let bundled = recorder(store.path(), &[verb, &["--store", to]].concat());
        assert_eq!((bundled.code, &bundled.out), (0, &whole.out), "{verb:?}: {}", bundled.err);
    }
    let again = recorder(store.path(), &["export", &id, "--format", "bundle", "--output", to]);
    assert!(again.code == 2 && again.err.contains("not empty"), "{}", again.err);
    let none = recorder(store.path(), &["export", &id, "--format", "bundle"]);
    assert!(none.code == 2 && none.err.contains("--output"), "{}", none.err);
    let row = recorder(store.path(), &["search", "--json"]).objects().remove(0);
    let exchange = row["exchange"].as_str().expect("an id");
    let wrong =
        recorder(store.path(), &["export", exchange, "--format", "bundle", "--output", "x"]);
    assert!(wrong.code == 2 && wrong.err.contains(&id), "{}", wrong.err);
}

#[test]
fn a_store_that_was_rolled_back_is_found_by_its_head() {
    let store = alices_store();
    let head = recorder(store.path(), &["head"]);
    assert_eq!(head.code, 0, "{}", head.err);
    let kept = store.path().join("head.json");
    std::fs::write(&kept, &head.out).expect("writable");
    let kept = kept.to_str().expect("UTF-8");
    let ran = recorder(store.path(), &["verify", "--head", kept]);
    assert!(ran.code == 0 && ran.out.contains("not behind its head"), "{}{}", ran.out, ran.err);
    // The last signature is cut off, which leaves a store that is good in itself.
    let file = std::fs::read_dir(store.path().join("store/segments")).expect("segments");
    let file = file.map(|entry| entry.expect("readable").path()).max().expect("one");
    let bytes = std::fs::read(&file).expect("readable");
    let seal = serde_json::from_str::<serde_json::Value>(&head.out).expect("JSON");
    assert_eq!(seal["bytes"], bytes.len());
    let says = bytes.windows(9).rposition(|part| part == b"{\"segment").expect("a seal");
    std::fs::write(&file, &bytes[..says - 64 - 12]).expect("writable");
    let ran = recorder(store.path(), &["verify"]);
    assert!(ran.code == 1 && ran.out.contains("rolled back"), "{}{}", ran.out, ran.err);
    // Without any head nothing speaks of it, and one that cannot be read is said.
    let beside = store.path().join("store.keys/head");
    std::fs::write(&beside, "{").expect("writable");
    let ran = recorder(store.path(), &["verify"]);
    assert!(ran.code == 0 && ran.err.contains("rolled back is unknown"), "{}", ran.err);
    std::fs::remove_file(&beside).expect("writable");
    assert_eq!(recorder(store.path(), &["head"]).code, 1);
    let ran = recorder(store.path(), &["verify", "--head", kept]);
    assert!(ran.code == 1 && ran.out.contains("rolled back"), "{}", ran.out);
}
