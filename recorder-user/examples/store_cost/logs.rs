//! The logs that are compared. Each makes sure that a record survives a power cut before the next one comes, but
//! sled alone, whose flush does not reach the platter.

use std::{
    fs::File,
    io::Write as _,
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use recorder_user::{
    model::{Record, SessionId},
    store::{Need, Store, StoreOptions, system_clock},
};

use crate::{
    measure::{self, Case},
    records::intent,
};

type Run = fn(&Path, usize, Duration) -> Result<Case>;

pub(crate) const ALL: [(&str, Run); 4] = [
    ("decklog", decklog),
    ("fsynced log", plain),
    ("SQLite WAL", sqlite),
    ("sled alone", sled_alone),
];

fn decklog(directory: &Path, writers: usize, time: Duration) -> Result<Case> {
    let mut options = StoreOptions::new(directory.join("store"));
    options.keys = directory.join("keys");
    let (store, _) = Store::open(options, system_clock())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_time().build()?;
    let (cpu, begun) = (measure::cpu(), Instant::now());
    let until = begun + time;
    let tasks: Vec<_> = (0..writers)
        .map(|_| {
            let recorder = store.recorder();
            runtime.spawn(async move {
                let (session, mut latencies) = (SessionId::new(), Vec::new());
                while Instant::now() < until {
                    let record = intent(session);
                    let begun = Instant::now();
                    recorder.append(record, Need::Durable).await?;
                    latencies.push(begun.elapsed());
                }
                anyhow::Ok(latencies)
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.append(&mut runtime.block_on(task)??);
    }
    let (took, flushes) = (begun.elapsed(), store.recorder().health().sync.count);
    let cpu = measure::cpu().saturating_sub(cpu);
    runtime.block_on(store.close())?;
    let bytes = measure::bytes(&directory.join("store/segments"))?;
    Ok(Case { latencies, took, cpu, bytes, flushes: Some(flushes) })
}

fn plain(directory: &Path, writers: usize, time: Duration) -> Result<Case> {
    let file = Mutex::new(File::create(directory.join("log"))?);
    let flushes = AtomicU64::new(0);
    let case = threads(directory, writers, time, |bytes| {
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(bytes)?;
        flushes.fetch_add(1, Ordering::Relaxed);
        Ok(file.sync_data()?)
    })?;
    Ok(Case { flushes: Some(flushes.into_inner()), ..case })
}

fn sqlite(directory: &Path, writers: usize, time: Duration) -> Result<Case> {
    let connection = rusqlite::Connection::open(directory.join("log.db"))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.execute("CREATE TABLE log (id INTEGER PRIMARY KEY, record BLOB)", ())?;
    let connection = Mutex::new(connection);
    threads(directory, writers, time, |bytes| {
        let connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
        let mut insert = connection.prepare_cached("INSERT INTO log (record) VALUES (?1)")?;
        insert.execute([bytes])?;
        Ok(())
    })
}

fn sled_alone(directory: &Path, writers: usize, time: Duration) -> Result<Case> {
    let db = sled::Config::new().path(directory.join("db")).flush_every_ms(None).open()?;
    threads(directory, writers, time, |bytes| {
        db.insert(db.generate_id()?.to_be_bytes(), bytes)?;
        db.flush()?;
        Ok(())
    })
}

/// Runs as many threads as there are writers, each appending one record after the other.
fn threads(
    directory: &Path,
    writers: usize,
    time: Duration,
    append: impl Fn(&[u8]) -> Result<()> + Sync,
) -> Result<Case> {
    let (cpu, begun) = (measure::cpu(), Instant::now());
    let until = begun + time;
    let latencies = thread::scope(|scope| {
        let writer = || {
            let session = SessionId::new();
            let mut bytes = Vec::new();
            measure::repeat(until, || {
                bytes.clear();
                Record::encode(&intent(session), &mut bytes);
                append(&bytes)
            })
        };
        let threads: Vec<_> = (0..writers).map(|_| scope.spawn(writer)).collect();
        let mut latencies = Vec::new();
        for thread in threads {
            latencies.append(&mut thread.join().map_err(|_| anyhow!("a writer panicked"))??);
        }
        anyhow::Ok(latencies)
    })?;
    let took = begun.elapsed();
    let cpu = measure::cpu().saturating_sub(cpu);
    let bytes = measure::bytes(directory).context("look at the files")?;
    Ok(Case { latencies, took, cpu, bytes, flushes: None })
}
