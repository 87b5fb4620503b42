//! The way of the notices: kernel ring → drain thread → `ringbuf` → correlator thread.
//!
//! Two threads, so that the kernel's ring is emptied at its pace whatever the correlator waits for. The
//! programs never wake anybody (a wake-up costs more than the send that it tells of): the drain thread
//! looks on a timer. Only the kernel's ring can lose a notice, and it counts each one: when the queue
//! between the threads is full, what follows stays in the ring.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle, Thread},
    time::Duration,
};

use recorder_ebpf::RingRecord;
use ringbuf::{
    HeapCons, HeapProd, HeapRb,
    traits::{Consumer as _, Observer as _, Producer as _, Split as _},
};

use super::{
    clock::monotonic_ns,
    notices::Correlator,
    probe::{FlushLog, NoticeRing},
};

/// Records between the two threads (1.4 MB). When full, the drain thread waits for the correlator.
const QUEUE_RECORDS_MAX: usize = 8_192;

/// Records taken in under one lock.
const BATCH_MAX: usize = 512;

/// How long the drain thread leaves the correlator to make room.
const ROOM_INTERVAL: Duration = Duration::from_millis(1);

/// The two threads. Dropping it ends and joins them.
pub(super) struct Drain {
    stop: Arc<AtomicBool>,
    drain: Option<JoinHandle<()>>,
    correlate: Option<JoinHandle<()>>,
}

/// What the drain thread works on.
pub(super) struct Source {
    pub(super) ring: NoticeRing,
    pub(super) log: Option<FlushLog>,
    /// When the drain thread last looked, by `CLOCK_MONOTONIC`.
    pub(super) pulse_ns: Arc<AtomicU64>,
    /// Counts ring records that are not of our ABI.
    pub(super) malformed: Arc<AtomicU64>,
    pub(super) interval: Duration,
}

impl Drain {
    /// Starts both threads.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn start(source: Source, correlator: Arc<Correlator>) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (producer, consumer) = HeapRb::new(QUEUE_RECORDS_MAX).split();
        let mut threads = Self { stop: Arc::clone(&stop), drain: None, correlate: None };
        let correlate = thread::Builder::new().name("witness-correlate".to_owned()).spawn({
            let stop = Arc::clone(&stop);
            move || correlate(consumer, &correlator, &stop)
        })?;
        let wake = correlate.thread().clone();
        threads.correlate = Some(correlate);
        let drain = thread::Builder::new()
            .name("witness-drain".to_owned())
            .spawn(move || drain(source, producer, &wake, &stop))?;
        threads.drain = Some(drain);
        Ok(threads)
    }

    /// Has the drain thread look now.
    pub(super) fn hurry(&self) {
        if let Some(drain) = &self.drain {
            drain.thread().unpark();
        }
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        for thread in [self.drain.take(), self.correlate.take()].into_iter().flatten() {
            thread.thread().unpark();
            if thread.join().is_err() {
                tracing::error!("a thread of the witness panicked");
            }
        }
    }
}

fn drain(
    mut source: Source,
    mut queue: HeapProd<RingRecord>,
    correlator: &Thread,
    stop: &AtomicBool,
) {
    loop {
        source.pulse_ns.store(monotonic_ns(), Ordering::Relaxed);
        // Read before draining: what came before the stop is still taken.
        let last = stop.load(Ordering::Acquire);
        let room = queue.vacant_len();
        let taken = source.ring.drain(room, |record| match record {
            // There is room: this is the queue's only producer.
            Some(record) => drop(queue.try_push(record)),
            None => drop(source.malformed.fetch_add(1, Ordering::Relaxed)),
        });
        if taken > 0 {
            correlator.unpark();
        }
        if let Some(flush) = &mut source.log {
            flush();
        }
        let more = taken == room;
        if last && !more {
            return;
        }
        thread::park_timeout(if more { ROOM_INTERVAL } else { source.interval });
    }
}

fn correlate(mut queue: HeapCons<RingRecord>, correlator: &Correlator, stop: &AtomicBool) {
    loop {
        while !queue.is_empty() {
            correlator.observe(queue.pop_iter().take(BATCH_MAX));
        }
        // The drain thread ends first (it is joined first), and unparks at every batch.
        if stop.load(Ordering::Acquire) && queue.is_empty() && !queue.write_is_held() {
            return;
        }
        thread::park();
    }
}
