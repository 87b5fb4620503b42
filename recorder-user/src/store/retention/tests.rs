mod crash;
mod encrypted;
mod holds;
mod random;
mod rules;
mod tampering;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use super::{PruneOrder, PruneReport, Retention, RetentionRules};
use crate::{
    model::*,
    store::{
        Catalog, Need, Position, Query, Reader, Store, StoreOptions, VerifyReport,
        encryption::KeySource, index::tests::indexed, reindex, signing, verify,
    },
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const START: i64 = 1_790_000_000_000_000;

/// A store whose clock is set by hand.
struct World {
    directory: tempfile::TempDir,
    clock: Arc<AtomicI64>,
    open: Option<(Store, Arc<Retention>)>,
    encryption: Option<KeySource>,
    runtime: tokio::runtime::Runtime,
}

impl World {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let directory = tempfile::tempdir().expect("a directory");
        let clock = Arc::new(AtomicI64::new(START));
        Self { directory, clock, open: None, encryption: None, runtime }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("store")
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.clock.load(Ordering::Relaxed))
    }

    fn pass(&self, time: Duration) {
        let micros = i64::try_from(time.as_micros()).expect("short");
        self.clock.fetch_add(micros, Ordering::Relaxed);
    }

    /// Opens the store if it is not open. Each write ends its segment.
    fn store(&mut self) -> &(Store, Arc<Retention>) {
        let (path, clock) = (self.path(), Arc::clone(&self.clock));
        let encryption = self.encryption.clone();
        self.open.get_or_insert_with(|| {
            let options = StoreOptions {
                segment_bytes_max: 1,
                sync_interval: Duration::from_millis(5),
                encryption,
                ..StoreOptions::new(path)
            };
            let now = move || Timestamp::from_micros(clock.load(Ordering::Relaxed));
            let (store, _) = Store::open(options, Arc::new(now)).expect("the store opens");
            let retention = Arc::new(store.retention(None));
            (store, retention)
        })
    }

    /// Writes records into a segment of their own.
    fn write(&mut self, records: Vec<Record>) -> SegmentId {
        let (store, _) = self.store();
        let recorder = store.recorder();
        let segment = recorder.health().segment;
        self.runtime.block_on(recorder.append_all(records, Need::Durable)).expect("a good disk");
        self.rotated(segment);
        segment
    }

    fn rotated(&self, from: SegmentId) {
        let (store, _) = self.open.as_ref().expect("an open store");
        while store.recorder().health().segment == from {
            std::thread::yield_now();
        }
    }

    fn prune(&mut self, rules: RetentionRules) -> PruneReport {
        self.try_prune(rules).expect("it prunes")
    }

    fn try_prune(&mut self, rules: RetentionRules) -> Result<PruneReport, super::PruneError> {
        let (store, retention) = self.store();
        let segment = store.recorder().health().segment;
        let order = PruneOrder { rules, who: Some("uid 7".into()), dry_run: false };
        let report = retention.prune(&order);
        if report.as_ref().is_ok_and(|report| !report.is_empty()) {
            self.rotated(segment);
        }
        report
    }

    fn hold(&mut self, on: HoldOn) -> HoldId {
        let (store, retention) = self.store();
        let segment = store.recorder().health().segment;
        let hold = retention.add_hold(on, "a case".into(), "uid 0".into()).expect("recorded").hold;
        self.rotated(segment);
        hold
    }

    fn close(&mut self) {
        if let Some((store, retention)) = self.open.take() {
            drop(retention);
            self.runtime.block_on(store.close()).expect("a good disk");
        }
    }

    fn verify(&self) -> VerifyReport {
        check(&self.path())
    }

    fn sound(&self) -> VerifyReport {
        let report = self.verify();
        assert_eq!(report.first_bad, None);
        report
    }

    fn segments(&self) -> BTreeSet<SegmentId> {
        let reader = Reader::open(&self.path()).expect("a store");
        reader.segments().expect("good headers").into_iter().map(|info| info.segment).collect()
    }

    /// All records that can be read, and where they are.
    fn records(&self) -> Vec<(Position, Record)> {
        let records = Reader::open(&self.path()).expect("a store").records();
        records.map(|stored| stored.expect("good")).map(|s| (s.position, s.record)).collect()
    }

    /// The rows of the index as it is left must be those of one that is built anew.
    fn index_is_as_rebuilt(&mut self) {
        self.close();
        let rows = || {
            let catalog = self.indexed();
            let exchanges = catalog.search(&Query { limit: 0, ..Query::default() });
            (catalog.sessions().expect("rows"), exchanges.expect("rows"))
        };
        let kept = rows();
        reindex(&self.path()).expect("it builds");
        assert_eq!(kept, rows());
    }

    fn indexed(&self) -> Catalog {
        indexed(&Reader::open(&self.path()).expect("a store"))
    }
}

fn check(store: &Path) -> VerifyReport {
    let trust = signing::trusted(&signing::keys_directory(store)).expect("good keys");
    verify(store, trust).expect("readable")
}

fn age(days: u32) -> RetentionRules {
    RetentionRules { age: Some(days * DAY), ..RetentionRules::default() }
}

/// One who works.
#[derive(Clone)]
struct Agent {
    session: SessionId,
    name: String,
    task: Option<String>,
}

impl Agent {
    fn new(name: &str) -> Self {
        let task = Some(format!("task-{name}"));
        Self { session: SessionId::new(), name: name.into(), task }
    }

    fn principal(&self) -> Principal {
        let subject = format!("sub-{}", self.name);
        Principal { subject, username: self.name.clone(), ..Principal::default() }
    }

    fn begins(&self, time: Timestamp) -> Record {
        let principal = self.principal();
        Record::SessionOpened(SessionOpened {
            session: self.session,
            time,
            key: SessionKey {
                issuer: principal.issuer.clone(),
                subject: principal.subject.clone(),
                cluster: "prod".into(),
                task: self.task.clone(),
            },
            principal,
            kind: crate::model::SessionKind::Api,
        })
    }

    fn ends(&self, time: Timestamp) -> Record {
        Record::SessionChanged(SessionChanged {
            session: self.session,
            time,
            state: SessionState::Ended,
            ended: Some(time),
            by: None,
            why: None,
            account: None,
        })
    }

    fn asks(&self, exchange: ExchangeId, time: Timestamp) -> Record {
        Record::ExchangeOpened(Box::new(ExchangeOpened {
            exchange,
            session: Some(self.session),
            time,
            cluster: "prod".into(),
            task: self.task.clone(),
            principal: Some(Arc::new(self.principal())),
            ..ExchangeOpened::default()
        }))
    }

    fn is_answered(
        &self,
        exchange: ExchangeId,
        time: Timestamp,
        effect: Effect,
        body: &[u8],
    ) -> Record {
        Record::ExchangeSettled(Box::new(ExchangeSettled {
            exchange,
            session: Some(self.session),
            time,
            status: 200,
            effect,
            response: BodyFacts {
                bytes: body.len() as u64,
                stored_bytes: body.len() as u64,
                hash: blake3::hash(body).to_hex().to_string(),
                ..BodyFacts::default()
            },
            ..ExchangeSettled::default()
        }))
    }

    /// A whole exchange.
    fn exchange(&self, time: Timestamp, effect: Effect, body: &[u8]) -> Vec<Record> {
        let exchange = ExchangeId::new();
        vec![
            self.asks(exchange, time),
            chunk(exchange, 0, body),
            self.is_answered(exchange, time, effect, body),
        ]
    }

    /// A whole session.
    fn visit(&self, time: Timestamp, effect: Effect) -> Vec<Record> {
        let body = format!("{} does something at {time}", self.name).repeat(3);
        let exchange = self.exchange(time, effect, body.as_bytes());
        [vec![self.begins(time)], exchange, vec![self.ends(time)]].concat()
    }
}

fn chunk(exchange: ExchangeId, offset: u64, data: &[u8]) -> Record {
    let data = bytes::Bytes::copy_from_slice(data);
    Record::Chunk(Chunk { exchange, direction: Direction::Response, at_us: 5, offset, data })
}

fn segment_file(world: &World, segment: SegmentId) -> PathBuf {
    super::scan::segment_path(&world.path(), segment)
}

/// A copy of a store with its keys' public halves.
fn copy(world: &World) -> tempfile::TempDir {
    let to = tempfile::tempdir().expect("a directory");
    let copy_all = |from: &Path, to: &Path| {
        fs::create_dir_all(to).expect("writable");
        for entry in fs::read_dir(from).expect("readable") {
            let path = entry.expect("an entry").path();
            if path.is_file() {
                let name = path.file_name().expect("a name");
                fs::copy(&path, to.join(name)).expect("writable");
            }
        }
    };
    let store = to.path().join("store");
    copy_all(&world.path().join("segments"), &store.join("segments"));
    let keys = |store: &Path| signing::keys_directory(store).join("signing");
    copy_all(&keys(&world.path()), &keys(&store));
    to
}
