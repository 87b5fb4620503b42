//! The real writer on the real disk, in a process that is killed.

use std::{
    collections::HashSet,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use tokio::task::JoinSet;

use recorder_user::{
    model::{ExchangeId, IncompleteReason, Record, SessionId},
    store::{Need, Query, Reader, Store, StoreOptions, reindex},
};

use crate::{chance::Chance, number, support::*};

const CHILD: &str = "DECKLOG_STORE_TEST_CHILD";
const KILLS: &str = "DECKLOG_CRASH_KILLS";
/// So many in one store; then a new one, for every check reads all of it.
const KILLS_OF_ONE: u64 = 20;

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

/// When a child is killed.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// So long after its start, whatever it has come to: mostly in recovery.
    Early(Duration),
    /// As soon as it has named so many, and a little later.
    Acknowledged(u64, Duration),
}

impl Moment {
    fn of(kill: u64) -> Self {
        let mut chance = Chance::of(&[kill]);
        if chance.one_in(4) {
            return Self::Early(Duration::from_micros(chance.below(60_000)));
        }
        Self::Acknowledged(1 + chance.below(100), Duration::from_micros(chance.below(2000)))
    }
}

/// Runs the writer until it is killed; gives what it named as acknowledged.
fn write_and_kill(directory: &Path, moment: Moment) -> HashSet<ExchangeId> {
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "killed::child_that_writes_until_it_is_killed", "--nocapture"])
        .env(CHILD, directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("this program runs");
    let output = BufReader::new(child.stdout.take().expect("piped"));
    let (mut named, mut killed) = (HashSet::new(), false);
    if let Moment::Early(after) = moment {
        std::thread::sleep(after);
        child.kill().expect("it still runs");
        killed = true;
    }
    for line in output.lines() {
        let line = line.expect("text");
        // The test harness' own words may stand before the first.
        let Some((_, id)) = line.split_once("ack ") else { continue };
        named.insert(id.parse().expect("a whole line"));
        if let Moment::Acknowledged(count, more) = moment
            && named.len() as u64 >= count
            && !killed
        {
            std::thread::sleep(more);
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
    let kills = number(KILLS).unwrap_or(40);
    for first in (0..kills).step_by(usize::try_from(KILLS_OF_ONE).expect("small")) {
        one_store(first..kills.min(first + KILLS_OF_ONE));
    }
}

fn one_store(kills: std::ops::Range<u64>) {
    let directory = tempfile::tempdir().expect("a directory");
    let mut named = HashSet::new();
    for kill in kills {
        let moment = Moment::of(kill);
        named.extend(write_and_kill(directory.path(), moment));
        if !directory.path().join("segments").is_dir() {
            assert!(named.is_empty(), "after kill {kill} ({moment:?})");
            continue;
        }
        let mut settled = HashSet::new();
        for stored in Reader::open(directory.path()).expect("a store").records() {
            // A record cut short by the kill is the end, not damage, so that nothing is missed.
            if let Record::ExchangeSettled(record) = stored.expect("never damage").record {
                settled.insert(record.exchange);
            }
        }
        let missing: Vec<_> = named.difference(&settled).collect();
        assert!(missing.is_empty(), "after kill {kill} ({moment:?}): {missing:?}");
    }
    let (store, recovered) = open(directory.path());
    assert!(!recovered.clean || recovered.segments == 0);
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
