use std::{
    collections::HashSet,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
};

use tokio::task::JoinSet;

use recorder_user::{
    model::{ExchangeId, IncompleteReason, Record, SessionId},
    store::{Need, Query, Reader, Store, StoreOptions, reindex},
};

use crate::support::*;

const CHILD: &str = "DECKLOG_STORE_TEST_CHILD";
const KILLS: u64 = 20;

/// Not a test: what the next test runs in a process of its own, to kill it.
#[test]
fn child_that_writes_until_it_is_killed() {
    let Some(directory) = std::env::var_os(CHILD) else { return };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let directory = Path::new(&directory);
        let options = StoreOptions { segment_bytes_max: 256 << 10, ..options(directory) };
        let (store, _) = Store::open(options, clock()).expect("it opens");
        let recorder = store.recorder();
        recorder.append(gateway_started(store.gateway_id()), Need::Queued).await.expect("good");
        let mut tasks = JoinSet::<()>::new();
        for task in 0..4 {
            let recorder = recorder.clone();
            tasks.spawn(async move {
                let session = SessionId::new();
                recorder.append(session_opened(session), Need::Written).await.expect("good");
                let need = if task % 2 == 0 { Need::Written } else { Need::Durable };
                loop {
                    let id = ExchangeId::new();
                    let mut records = exchange(session, id, "a");
                    let settled = records.pop().expect("three records");
                    recorder.append_all(records, Need::Queued).await.expect("good");
                    recorder.append(settled, need).await.expect("good");
                    // Only what was acknowledged is named, in one write, so that a line is whole.
                    let line = format!("ack {id}\n");
                    std::io::stdout().write_all(line.as_bytes()).expect("someone listens");
                }
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended.expect("it writes");
        }
    });
}

/// Runs the writer and kills it after so many acknowledgements; gives those that it named.
fn write_and_kill(directory: &Path, after: u64) -> HashSet<ExchangeId> {
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "crash::child_that_writes_until_it_is_killed", "--nocapture"])
        .env(CHILD, directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("this program runs");
    let output = BufReader::new(child.stdout.take().expect("piped"));
    let (mut named, mut killed) = (HashSet::new(), false);
    for line in output.lines() {
        let line = line.expect("text");
        // The test harness' own words may stand before the first.
        let Some((_, id)) = line.split_once("ack ") else { continue };
        named.insert(id.parse().expect("a whole line"));
        if named.len() as u64 >= after && !killed {
            child.kill().expect("it still runs");
            killed = true;
        }
    }
    child.wait().expect("it ends");
    assert!(killed, "it ended by itself");
    named
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut named = HashSet::new();
    // The moments differ from kill to kill by an arithmetic that hits all phases, not by chance.
    for kill in 0..KILLS {
        named.extend(write_and_kill(directory.path(), 1 + kill * 37 % 211));
        let mut settled = HashSet::new();
        for stored in Reader::open(directory.path()).expect("a store").records() {
            // A record cut short by the kill is the end, not damage, so that nothing is missed.
            if let Record::ExchangeSettled(record) = stored.expect("never damage").record {
                settled.insert(record.exchange);
            }
        }
        let missing: Vec<_> = named.difference(&settled).collect();
        assert!(missing.is_empty(), "after kill {kill}: {missing:?}");
    }
    let (store, recovered) = open(directory.path());
    assert!(!recovered.clean);
    assert!(recovered.lost_sessions.len() <= 4, "earlier ones were settled by earlier starts");
    drop(store);
    let report = verify(directory.path()).expect("readable");
    assert!(report.is_ok(), "{report:?}");

    let catalog = |why: &str| {
        let catalog = Reader::open(directory.path()).expect("a store").catalog().expect("rows");
        let sessions = catalog.sessions().expect("rows");
        for view in &sessions {
            assert_eq!(view.reason, Some(IncompleteReason::GatewayLost), "{why}");
            assert!(view.ended.is_some(), "{why}");
        }
        let exchanges = catalog.search(&Query::default()).expect("rows");
        let found: HashSet<_> = exchanges.iter().map(|row| row.exchange).collect();
        assert!(named.is_subset(&found), "{why}");
        (catalog.is_indexed(), sessions, exchanges)
    };
    let (_, sessions, exchanges) = catalog("after recovery");
    std::fs::remove_dir_all(directory.path().join("index")).expect("writable");
    let scanned = catalog("without an index");
    assert_eq!(scanned, (false, sessions.clone(), exchanges.clone()));
    reindex(directory.path()).expect("no gateway runs");
    assert_eq!(catalog("rebuilt"), (true, sessions, exchanges));
}
