//! What the index costs and how fast it answers, for each database that it can be kept in.
//!
//! ```text
//! cargo run --release -p recorder-user --example index_cost -- [--quick] [--directory DIR]
//! ```
//!
//! A million exchanges (`--quick`: 100,000) are recorded through the real recorder; then, in a process of its own
//! for each step, the index is built from the segments, opened, and asked. Each kind of search is asked with
//! several values, for a page of 1000 and the one after it. CPU is of the mean, by the clock are p50 and most.

mod made;

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use recorder_user::{
    model::{Decision, Effect, SessionId, Timestamp},
    store::{Catalog, IndexBackend, Need, Query, Reader, Store, StoreOptions, system_clock},
};

use made::Maker;

const PAGE: usize = 1000;
const ROUNDS: u64 = 15;

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["step-fill", store, count] => fill(Path::new(store), number(count)),
        ["step-build", store, backend] => build(Path::new(store), parse(backend)),
        ["step-open", store, backend] => open(Path::new(store), parse(backend)),
        ["step-search", store, count] => search(Path::new(store), number(count)),
        _ => all(&words),
    }
}

fn number(text: &str) -> u64 {
    text.parse().expect("a number")
}

fn parse(text: &str) -> IndexBackend {
    text.parse().expect("a database")
}

/// Every step in a process of its own, so that memory is its own.
fn all(words: &[&str]) {
    let count = if words.contains(&"--quick") { "100000" } else { "1000000" };
    let given = words.iter().skip_while(|word| **word != "--directory").nth(1).map(PathBuf::from);
    let temporary = tempfile::tempdir().expect("a directory");
    let directory = given.unwrap_or_else(|| temporary.path().to_owned());
    let store = directory.join("store");
    let step = |words: &[&str]| {
        let this = env::current_exe().expect("this program");
        let status = Command::new(this).args(words).status().expect("it starts");
        assert!(status.success(), "{words:?}");
    };
    let store = store.to_str().expect("a path in UTF-8");
    step(&["step-fill", store, count]);
    for backend in IndexBackend::ALL.map(IndexBackend::as_str) {
        println!("\n{backend}");
        step(&["step-build", store, backend]);
        step(&["step-open", store, backend]);
        step(&["step-search", store, count]);
    }
}

fn options(store: &Path, index: IndexBackend) -> StoreOptions {
    StoreOptions { index, ..StoreOptions::new(store.to_owned()) }
}

fn with_store<T>(options: StoreOptions, run: impl AsyncFnOnce(&Store) -> T) -> (T, Option<String>) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let (store, recovered) = Store::open(options, system_clock()).expect("it opens");
        let done = run(&store).await;
        store.close().await.expect("it closes");
        (done, recovered.index_rebuilt)
    })
}

/// Records the exchanges. The index follows as it can; its delay at the end is told.
fn fill(directory: &Path, count: u64) {
    let began = Instant::now();
    let written = with_store(options(directory, IndexBackend::default()), async |store| {
        let recorder = store.recorder();
        let mut maker = Maker::new();
        let sessions: Vec<_> = maker.sessions().collect();
        recorder.append_all(sessions, Need::Written).await.expect("a good disk");
        for _ in 0..count / 100 {
            let records = (0..100).flat_map(|_| maker.exchange()).collect();
            recorder.append_all(records, Need::Written).await.expect("a good disk");
        }
        began.elapsed()
    });
    println!(
        "recorded    {count} exchanges in {:.1} s, the index done {:.1} s later; segments {} MiB",
        written.0.as_secs_f64(),
        (began.elapsed() - written.0).as_secs_f64(),
        disk_bytes(&directory.join("segments")) >> 20,
    );
}

fn build(directory: &Path, backend: IndexBackend) {
    std::fs::remove_dir_all(directory.join("index")).expect("there is an index");
    let began = Instant::now();
    let ((built, cpu), rebuilt) =
        with_store(options(directory, backend), async |_| (began.elapsed(), cpu_seconds()));
    assert!(rebuilt.is_some(), "it was built");
    let rows = Reader::open(directory).expect("a store").catalog().expect("rows");
    assert!(rows.is_indexed());
    println!(
        "build       {:.1} s, {:.1} s of CPU; on disk {} MiB; most memory {} MiB",
        built.as_secs_f64(),
        cpu,
        disk_bytes(&directory.join("index")) >> 20,
        peak_memory_kib() >> 10,
    );
}

fn open(directory: &Path, backend: IndexBackend) {
    let began = Instant::now();
    let (opened, rebuilt) = with_store(options(directory, backend), async |_| began.elapsed());
    assert_eq!(rebuilt, None);
    println!(
        "open        {} ms; with what its closing reads most memory {} MiB",
        opened.as_millis(),
        peak_memory_kib() >> 10
    );
}

type Ask = fn(&mut Query, &Known, u64);

/// What the questions need to know of what is there.
struct Known {
    count: u64,
    session: SessionId,
}

/// Kinds of searches; the number varies the values.
const KINDS: [(&str, Ask); 24] = [
    ("first page of everything", |_, _, _| {}),
    ("session", |query, known, _| query.session = Some(known.session)),
    ("principal", |query, _, i| query.principal = Some(format!("agent-{}@example.com", i * 13))),
    ("principal, none such", |query, _, i| query.principal = Some(format!("nobody-{i}"))),
    ("task", |query, _, i| query.task = Some(format!("TASK-{}", i * 31 + 1))),
    ("verb", |query, _, i| query.verb = Some(["get", "delete", "watch"][i as usize % 3].into())),
    ("resource/subresource", |query, _, _| query.resource = Some("pods/exec".into())),
    ("resource, none such", |query, _, _| query.resource = Some("nodes/proxy".into())),
    ("API group", |query, _, _| query.api_group = Some("networking.k8s.io".into())),
    ("namespace", |query, _, i| query.namespace = Some(format!("ns-{}", i * 19))),
    ("name", |query, _, i| query.name = Some(format!("dep-{}", i * 1_301))),
    ("uid, one or none such", |query, known, i| {
        query.uid = Some(made::uid(known.count / ROUNDS * i + i));
    }),
    ("verdict", |query, _, _| query.verdict = Some(Decision::Deny)),
    ("verdict, none such", |query, _, _| query.verdict = Some(Decision::Hold)),
    ("effect", |query, _, i| {
        query.effect = Some([Effect::Deleted, Effect::Executed, Effect::Unknown][i as usize % 3]);
    }),
    ("status", |query, _, i| {
        query.status = ["404", "4xx", "409", "5xx"][i as usize % 4].parse().ok();
    }),
    ("user agent", |query, _, i| {
        query.user_agent = Some(["helm", "v3.7", "curl", "ython"][i as usize % 4].into());
    }),
    ("command line", |query, _, i| {
        query.command = Some(["rm -rf", "psql -c", "HUP", "nc -e /bin/sh"][i as usize % 4].into());
    }),
    ("command id", |query, known, i| {
        query.command = Some(format!("{:016x}-4f0e-9b8e-6f1f0c2f8e11", known.count / 64 * i));
    }),
    ("two letters of a command", |query, _, i| {
        query.command = Some(["rm", "zq", "ls"][i as usize % 3].into());
    }),
    ("an hour", |query, known, i| {
        let from = made::START + (known.count / ROUNDS * i) as i64 * made::STEP_US;
        query.since = Some(Timestamp::from_micros(from));
        query.until = Some(Timestamp::from_micros(from + 3_600_000_000));
    }),
    ("a second", |query, known, i| {
        let from = made::START + (known.count / ROUNDS * i) as i64 * made::STEP_US;
        query.since = Some(Timestamp::from_micros(from));
        query.until = Some(Timestamp::from_micros(from + 1_000_000));
    }),
    ("common ones that never meet", |query, _, _| {
        query.verb = Some("get".into());
        query.effect = Some(Effect::Deleted);
    }),
    ("five conditions", |query, _, i| {
        query.principal = Some(format!("agent-{}@example.com", i * 13));
        query.verb = Some("delete".into());
        query.resource = Some("deployments.apps".into());
        query.status = "2xx".parse().ok();
        query.user_agent = Some("kubectl".into());
    }),
];

fn search(directory: &Path, count: u64) {
    let reader = Reader::open(directory).expect("a store");
    let began = Instant::now();
    let catalog = reader.catalog().expect("rows");
    assert!(catalog.is_indexed());
    println!("reader      opens it in {} ms", began.elapsed().as_millis());
    let middle = &catalog.sessions().expect("rows")[made::SESSIONS as usize / 2];
    let known = Known { count, session: middle.session };
    println!("{:<30} {:>10} {:>10} {:>10} {:>10}", "search", "rows", "CPU ms", "p50 ms", "most ms");
    for (kind, ask) in KINDS {
        measure(&catalog, &known, kind, ask);
    }
    println!("most memory {} MiB", peak_memory_kib() >> 10);
}

fn measure(catalog: &Catalog, known: &Known, kind: &str, ask: Ask) {
    let (mut times, mut rows) = (Vec::new(), Vec::new());
    let cpu_before = cpu_seconds();
    for i in 0..ROUNDS {
        let mut query = Query { limit: PAGE, ..Query::default() };
        ask(&mut query, known, i);
        let began = Instant::now();
        let found = catalog.search(&query).expect("rows");
        times.push(began.elapsed());
        rows.push(found.len());
        // The page after it, where there is one.
        if let Some(last) = found.last().filter(|_| found.len() == PAGE) {
            query.after = Some(last.exchange);
            let began = Instant::now();
            catalog.search(&query).expect("rows");
            times.push(began.elapsed());
        }
    }
    let cpu = cpu_seconds() - cpu_before;
    times.sort_unstable();
    rows.sort_unstable();
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    println!(
        "{kind:<30} {:>10} {:>10.2} {:>10.2} {:>10.2}",
        format!("{}..{}", rows[0], rows[rows.len() - 1]),
        cpu * 1e3 / times.len() as f64,
        ms(times[times.len() / 2]),
        ms(times[times.len() - 1]),
    );
}

fn disk_bytes(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).expect("a directory");
    let bytes = entries.map(|entry| {
        let path = entry.expect("an entry").path();
        if path.is_dir() { disk_bytes(&path) } else { path.metadata().map_or(0, |file| file.len()) }
    });
    bytes.sum()
}

/// CPU time of all threads that there are, so far: it tells more than the clock where the machine has other things to do.
fn cpu_seconds() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").expect("procfs");
    let nanos = tasks.filter_map(|task| {
        let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    });
    nanos.sum::<u64>() as f64 / 1e9
}

/// The most memory that this process had.
fn peak_memory_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
