//! `follow`: the real binary reads while records are written.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, ChildStdout, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use recorder_user::{
    model::{GatewayStopped, Record, SessionChanged, SessionState},
    store::{Store, StoreOptions, system_clock},
};
use tempfile::TempDir;

use crate::{
    cli_support::{
        ADDED, Fixture, Made, Part, START, alice, block_on, command, exec, opened, said, session,
        status,
    },
    script::made,
};

/// A running `recorder follow`, and its lines as they come.
struct Following {
    child: Child,
    lines: mpsc::Receiver<String>,
    seen: Vec<String>,
}

/// How long a line may take. Far more than it needs: the machine may be busy.
const LIMIT: Duration = Duration::from_secs(60);

impl Following {
    fn start(directory: &Path, args: &[&str]) -> Self {
        let mut command = command(&[&["follow"][..], args].concat());
        command.env("DECKLOG_STORE", directory.join("store")).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the binary runs");
        let out: ChildStdout = child.stdout.take().expect("piped");
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(out).lines() {
                if sender.send(line.expect("text")).is_err() {
                    return;
                }
            }
        });
        Self { child, lines, seen: Vec::new() }
    }

    /// Waits for a line that holds this.
    fn until(&mut self, text: &str) {
        loop {
            let line = self.lines.recv_timeout(LIMIT);
            let line = line.unwrap_or_else(|_| panic!("{text:?} did not come: {:?}", self.seen));
            self.seen.push(line);
            if self.seen.last().is_some_and(|line| line.contains(text)) {
                return;
            }
        }
    }

    /// Waits for its end; gives all its lines.
    fn finish(mut self) -> Vec<String> {
        while let Ok(line) = self.lines.recv_timeout(LIMIT) {
            self.seen.push(line);
        }
        assert_eq!(self.child.wait().expect("ends").code(), Some(0), "{:?}", self.seen);
        std::mem::take(&mut self.seen)
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        // Gone already where the test passed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A stream in the making: what was appended so far, and the rest.
fn growing(parts: &[Part], tty: bool) -> (Vec<Record>, Vec<Record>, Record) {
    let mut records = made(exec(tty, &["sh"]), parts).into_records();
    let settled = records.pop().expect("an outcome");
    let chunks = records.split_off(2);
    (records, chunks, settled)
}

#[test]
fn an_exec_is_followed_to_its_end() {
    let parts = [
        said(10_000, 1, b"first\n"),
        said(20_000, 1, b"sec"),
        said(30_000, 1, b"ond\n"),
        said(40_000, 2, b"warning\n"),
        said(50_000, 3, &status(3)),
    ];
    let (begun, chunks, settled) = growing(&parts, false);
    let fixture = Fixture::new();
    fixture.append(vec![opened(1, alice(), None)]);
    fixture.append(begun);
    let mut chunks = chunks.into_iter();
    fixture.append(chunks.by_ref().take(2).collect());
    let mut following = Following::start(fixture.directory.path(), &["ec01"]);
    following.until("stdout  first");
    fixture.append(chunks.by_ref().take(1).collect());
    following.until("stdout  ");
    fixture.append(chunks.by_ref().take(1).collect());
    following.until("stderr  warning");
    fixture.append(chunks.collect());
    fixture.append(vec![settled]);
    let lines = following.finish();
    assert!(lines.iter().any(|line| line.ends_with("exit code 3")), "{lines:?}");
    drop(fixture.close());
}

#[test]
fn the_past_of_a_stream_is_cut_and_counted() {
    let mut parts: Vec<_> =
        (0..200_u64).map(|n| said(n * 1000, 1, format!("line {n}\n").as_bytes())).collect();
    parts.push(said(300_000, 3, &status(0)));
    let (begun, chunks, settled) = growing(&parts, false);
    let fixture = Fixture::new();
    fixture.append(begun);
    fixture.append(chunks);
    let mut following = Following::start(fixture.directory.path(), &["ec01"]);
    following.until("line 199");
    fixture.append(vec![settled]);
    let lines = following.finish();
    assert!(lines.iter().any(|line| line == "… 160 lines before"), "{lines:?}");
    assert!(lines.iter().any(|line| line.ends_with("line 160")), "{lines:?}");
    assert!(!lines.iter().any(|line| line.ends_with("line 159")), "{lines:?}");
}

/// Records so large that each segment holds a few.
fn small_segments() -> (TempDir, Store) {
    let directory = TempDir::new().expect("a directory");
    let mut options = StoreOptions::new(directory.path().join("store"));
    options.segment_bytes_max = 4096;
    let (store, _) = Store::open(options, system_clock()).expect("a store");
    (directory, store)
}

#[test]
fn a_follow_goes_on_into_new_segments() {
    let noise = |n: u64| blake3::hash(&n.to_le_bytes()).to_hex().to_string();
    let parts: Vec<_> =
        (0..200).map(|n| said(n, 1, format!("{n} {}\n", noise(n)).as_bytes())).collect();
    let (begun, chunks, settled) = growing(&parts, false);
    let (directory, store) = small_segments();
    let recorder = store.recorder();
    let append = |records| {
        block_on(recorder.append_all(records, recorder_user::store::Need::Written))
            .expect("appended");
    };
    append(begun);
    let mut following = Following::start(directory.path(), &["ec01", "--json"]);
    following.until("\"event\":\"stream\"");
    for chunk in chunks {
        append(vec![chunk]);
    }
    append(vec![settled]);
    let lines = following.finish();
    let segments = std::fs::read_dir(directory.path().join("store/segments")).expect("segments");
    assert!(segments.count() > 3, "the segment was changed");
    let frames: Vec<_> = lines.iter().filter(|line| line.contains("\"event\":\"frame\"")).collect();
    assert!(frames.last().expect("frames").contains(&noise(199)), "{frames:?}");
    block_on(store.close()).expect("closed");
}

#[test]
fn a_gateway_that_stops_ends_a_follow() {
    let (begun, chunks, _) = growing(&[said(10_000, 1, b"first\n")], false);
    let fixture = Fixture::new();
    fixture.append(begun);
    fixture.append(chunks);
    let mut following = Following::start(fixture.directory.path(), &["ec01"]);
    following.until("stdout  first");
    let gateway = fixture.store.gateway_id();
    fixture.append(vec![Record::GatewayStopped(GatewayStopped { gateway, time: START })]);
    let lines = following.finish();
    assert!(lines.iter().any(|line| line.contains("the gateway ended")), "{lines:?}");
}

#[test]
fn a_session_is_followed_to_its_end() {
    let fixture = Fixture::new();
    fixture.append(vec![opened(1, alice(), None)]);
    for number in 1..=30 {
        let made = Made::new(number, i64::from(number), "kubectl get", "get", "/version");
        fixture.append(made.into_records());
    }
    let mut following = Following::start(fixture.directory.path(), &["a501"]);
    following.until(" … 10 exchanges before");
    following.until("00:00.030  kubectl get");
    let pods = "/api/v1/namespaces/shop/pods?watch=1";
    let mut watch = Made::new(31, 2000, "kubectl get", "watch", pods)
        .response("application/json;stream=watch", &[(500_000, ADDED)])
        .into_records();
    let outcome = watch.pop().expect("an outcome");
    fixture.append(watch);
    following
        .until("00:02.000  ~ watch v1 pods in shop begins; see it with: recorder follow 1f00ec1f");
    following.until("00:02.500  ~ ADDED Pod shop/web-0");
    fixture.append(vec![outcome]);
    following.until("watch v1 pods in shop");
    let exec = made(exec(false, &["sh"]), &[said(1, 1, b"x")]).into_records();
    fixture.append(exec);
    following.until("create v1 pods/exec shop/web-0");
    fixture.append(vec![Record::SessionChanged(SessionChanged {
        session: session(1),
        time: START,
        state: SessionState::Ended,
        ended: Some(START),
        by: None,
        why: None,
        account: None,
    })]);
    let lines = following.finish();
    assert_eq!(lines.last().map(String::as_str), Some("session ended"));
    // What is over is told, and the follow ends at once.
    let lines = Following::start(fixture.directory.path(), &["a501"]).finish();
    assert_eq!(lines.last().map(String::as_str), Some("session ended"));
}
