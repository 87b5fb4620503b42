//! One seed: a store that is opened, written, and lost, several times over.

use std::{path::PathBuf, sync::Arc, time::Duration};

use recorder_user::{
    model::Timestamp,
    store::{Ack, Clock, Need, Recorder, Store, StoreOptions, signing, verify},
};

use crate::{
    book::{Book, Group},
    chance::Chance,
    disk::SimulatedDisk,
    plan::{End, Lie, Plan},
};

/// What a seed has shown: what went wrong, and what was done before.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) seed: u64,
    pub(crate) what: String,
    trace: Vec<String>,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { seed, what, trace } = self;
        let shown = &trace[trace.len().saturating_sub(TRACE_SHOWN)..];
        for line in shown {
            writeln!(f, "    {line}")?;
        }
        writeln!(f, "seed {seed}: {what}")?;
        write!(f, "repeat with: cargo xtask crash --seed {seed}")
    }
}

/// Sums over a run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) lives: u64,
    pub(crate) power_cuts: u64,
    pub(crate) faults: u64,
    pub(crate) records: u64,
}

/// Runs a seed on a disk that is honest, or lies.
pub(crate) fn run(seed: u64, lie: Option<Lie>) -> Result<Tally, Failure> {
    let root = tempfile::tempdir().expect("a directory");
    let store = root.path().join("state/store");
    let disk = SimulatedDisk::new(root.path(), &store, Plan::of(seed, 0), lie);
    let mut lives = Lives {
        seed,
        chance: Chance::of(&[seed]),
        disk: disk.clone(),
        store,
        keys: root.path().join("keys"),
        book: Book::default(),
        tally: Tally::default(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let done = runtime.expect("a runtime").block_on(lives.all());
    let mut world = disk.world();
    let violation = world.violations.first().cloned().map_or(Ok(()), Err);
    let trace = std::mem::take(&mut world.trace);
    done.and(violation).map_err(|what| Failure { seed, what, trace })?;
    Ok(lives.tally)
}

struct Lives {
    seed: u64,
    chance: Chance,
    disk: SimulatedDisk,
    store: PathBuf,
    keys: PathBuf,
    book: Book,
    tally: Tally,
}

impl Lives {
    async fn all(&mut self) -> Result<(), String> {
        let lives = 2 + self.chance.below(5);
        for life in 0..lives {
            self.disk.world().begin(Plan::of(self.seed, life));
            self.life().await?;
            self.end_of_life()?;
        }
        // After all that the store must open, hold what was promised, and close.
        self.disk.world().begin(Plan::calm(self.seed, lives));
        let store = self.open().await?.ok_or("a good disk does not open")?;
        store.close().await.map_err(|error| format!("a good disk does not close: {error}"))?;
        self.verify("closed")
    }

    async fn life(&mut self) -> Result<(), String> {
        let Some(store) = self.open().await? else { return Ok(()) };
        let recorder = store.recorder();
        let rounds = self.chance.below(14);
        // One append at a time is repeated exactly; several at a time batch as the threads meet.
        let at_once = if self.chance.one_in(2) { 1 } else { 5 };
        for _ in 0..rounds {
            self.round(&recorder, at_once).await?;
            if self.disk.world().over {
                break;
            }
        }
        if self.chance.one_in(3) {
            let closed = within("close", store.close()).await?;
            if closed.is_ok() && self.disk.world().failed_flushes == 0 {
                self.book.closed(recorder.epoch());
            }
        }
        Ok(())
    }

    /// Opens the store and checks all that a start promises; none when it may not open.
    async fn open(&mut self) -> Result<Option<Store>, String> {
        let options = StoreOptions {
            // Small, so that rotation is hit.
            segment_bytes_max: 2000 + self.chance.below(6000),
            sync_interval: Duration::from_millis(150),
            // On the real disk: a key that is lost is another thing.
            keys: self.keys.clone(),
            ..StoreOptions::new(self.store.clone())
        };
        let clock: Clock = Arc::new(|| Timestamp::from_micros(1_790_000_000_000_000));
        self.tally.lives += 1;
        self.disk.world().starting = true;
        let opened = Store::open_on(Arc::new(self.disk.clone()), options, clock);
        let mut world = self.disk.world();
        world.starting = false;
        let (over, faults) = (world.over, world.faults());
        drop(world);
        match opened {
            Ok((store, _)) => {
                if !over {
                    let found = self.book.read(&self.store, false)?;
                    self.book.check(&found)?;
                    self.book.shown(&found);
                    self.verify("opened")?;
                }
                Ok(Some(store))
            }
            Err(_) if over || faults > 0 => Ok(None),
            Err(error) => Err(format!("it does not open: {:#}", anyhow::Error::from(error))),
        }
    }

    /// Appends of several writers, and their answers.
    async fn round(&mut self, recorder: &Recorder, at_once: u64) -> Result<(), String> {
        let (failed, proven) = (!recorder.health().writable, self.disk.world().proven);
        let mut waiting: Vec<(Group, Need, Ack)> = Vec::new();
        for _ in 0..=self.chance.below(at_once) {
            let need = [Need::Queued, Need::Written, Need::Durable][self.chance.index(3)];
            let (group, records) = self.book.group(&mut self.chance, recorder.epoch());
            self.tally.records += records.len() as u64;
            waiting.push((group, need, recorder.enqueue(records, need)));
        }
        for (group, need, answer) in waiting {
            if within("an answer", answer).await?.is_err() {
                self.book.failed(group, need);
                continue;
            }
            let world = self.disk.world();
            if failed && need > Need::Queued && world.proven == proven {
                return Err("acknowledged after a failure, without a new segment".into());
            }
            drop(world);
            self.book.acknowledged(group, need, recorder.epoch());
        }
        // The disk may be good again: a probe makes the writer try at once.
        if !recorder.health().writable {
            drop(within("a probe", recorder.probe()).await?);
        }
        Ok(())
    }

    fn end_of_life(&mut self) -> Result<(), String> {
        let mut world = self.disk.world();
        self.tally.faults += world.faults();
        let flush_failed = world.failed_flushes > 0;
        let end = world.end(&mut self.chance);
        drop(world);
        if end == End::Power {
            self.tally.power_cuts += 1;
        }
        if end == End::Power || flush_failed {
            self.book.forget_written();
        }
        // What a reader sees that comes before the next start.
        if self.store.join("segments").is_dir() {
            let found = self.book.read(&self.store, true)?;
            self.book.check(&found).map_err(|what| format!("before the next start: {what}"))?;
        }
        Ok(())
    }

    fn verify(&self, when: &str) -> Result<(), String> {
        let trust = signing::trusted(&self.keys).map_err(|error| format!("{when}: {error}"))?;
        let report = verify(&self.store, trust).map_err(|error| format!("{when}: {error}"))?;
        report.first_bad.map_or(Ok(()), |bad| Err(format!("{when}, and does not verify: {bad:?}")))
    }
}

/// Nobody may wait for an answer that never comes.
async fn within<T>(what: &str, answer: impl Future<Output = T>) -> Result<T, String> {
    let answer = tokio::time::timeout(PATIENCE, answer).await;
    answer.map_err(|_| format!("{what} never came"))
}

const PATIENCE: Duration = Duration::from_secs(60);
const TRACE_SHOWN: usize = 400;
