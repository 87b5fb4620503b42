//! `fdatasync` on its own thread: the writer never waits for the platter, and one call serves all.

use std::{
    io,
    sync::{
        Arc, Condvar, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    disk::DiskFile,
    floor::Floor,
    format::Mark,
    head::{Head, HeadFile},
    queue::{Shared, Waiter, lock},
    recorder::AppendError,
};

/// The flushes since the start.
#[derive(Clone, Copy, Debug, Default)]
pub struct SyncHealth {
    /// How many.
    pub count: u64,
    /// Their time in all.
    pub total: Duration,
    /// The last one's time.
    pub last: Duration,
    /// The longest one's time.
    pub longest: Duration,
    /// How many took at most as long as each of [`SYNC_BOUNDS`].
    pub within: [u64; SYNC_BOUNDS.len()],
}

impl SyncHealth {
    fn took(&mut self, took: Duration) {
        self.count += 1;
        self.total += took;
        self.last = took;
        self.longest = self.longest.max(took);
        for (bound, count) in SYNC_BOUNDS.iter().zip(&mut self.within) {
            *count += u64::from(took <= *bound);
        }
    }
}

/// From what a battery-backed cache does to what a dying disk does.
pub const SYNC_BOUNDS: [Duration; 16] = {
    let us = [
        50, 100, 200, 400, 800, 1_500, 3_000, 6_000, 12_000, 25_000, 50_000, 100_000, 250_000,
        1_000_000, 5_000_000, 30_000_000,
    ];
    let mut bounds = [Duration::ZERO; 16];
    let mut i = 0;
    while i < bounds.len() {
        bounds[i] = Duration::from_micros(us[i]);
        i += 1;
    }
    bounds
};

struct State {
    file: Option<Arc<dyn DiskFile>>,
    /// The chain up to where the file is written, and up to where it is durable.
    written: Mark,
    durable: Mark,
    waiters: Vec<Waiter>,
    /// Since when there is something that is not durable.
    dirty: Option<Instant>,
    /// Someone waits for everything written so far.
    flush: bool,
    failed: Option<Arc<io::Error>>,
    /// The newest signed state, until it is durable and noted.
    head: Option<Head>,
    stop: bool,
    idle: bool,
    running: bool,
    health: SyncHealth,
}

/// Makes written bytes durable, at once for waiters and at an interval for the rest.
pub(super) struct Syncer {
    state: Mutex<State>,
    wake: Condvar,
    done: Condvar,
    interval: Duration,
    failed: AtomicBool,
    head: HeadFile,
}

impl Syncer {
    pub(super) fn new(interval: Duration, head: HeadFile) -> Self {
        let state = State {
            file: None,
            written: Mark::NONE,
            durable: Mark::NONE,
            waiters: Vec::new(),
            dirty: None,
            flush: false,
            failed: None,
            head: None,
            stop: false,
            idle: false,
            running: false,
            health: SyncHealth::default(),
        };
        Self {
            state: Mutex::new(state),
            wake: Condvar::new(),
            done: Condvar::new(),
            interval: interval.min(INTERVAL_MAX),
            failed: AtomicBool::new(false),
            head,
        }
    }

    /// Goes on with another file, of which everything up to `mark` is durable.
    pub(super) fn begin(&self, file: Arc<dyn DiskFile>, mark: Mark) {
        let mut state = lock(&self.state);
        state.file = Some(file);
        (state.written, state.durable) = (mark, mark);
        (state.dirty, state.failed, state.head) = (None, None, None);
        self.failed.store(false, Ordering::Release);
    }

    /// The file will be signed up to here: to be noted outside the store once that is durable.
    pub(super) fn announce(&self, head: Head) {
        lock(&self.state).head = Some(head);
    }

    /// The file is written up to here; the waiters wait until that is durable.
    pub(super) fn wrote(&self, mark: Mark, waiters: &mut Vec<Waiter>) {
        let mut state = lock(&self.state);
        let was_clean = state.dirty.is_none();
        state.written = mark;
        state.dirty.get_or_insert_with(Instant::now);
        let wanted = !waiters.is_empty();
        state.waiters.append(waiters);
        if state.idle && (wanted || was_clean) {
            drop(state);
            self.wake.notify_one();
        }
    }

    /// Whether the current file's last flush failed.
    pub(super) fn is_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Waits until everything written is durable.
    pub(super) fn flush(&self) -> Result<(), Arc<io::Error>> {
        let mut state = lock(&self.state);
        loop {
            if let Some(error) = &state.failed {
                return Err(Arc::clone(error));
            }
            if state.durable.offset >= state.written.offset {
                return Ok(());
            }
            state.flush = true;
            self.wake.notify_one();
            state = self.done.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Lets go of the file after a failure: gives back what is certainly durable and who still waits.
    pub(super) fn abandon(&self) -> (Mark, Vec<Waiter>) {
        let mut state = lock(&self.state);
        // A flush that still runs must not be taken for one of the next file.
        while state.running {
            state = self.done.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.file = None;
        (state.dirty, state.head) = (None, None);
        (state.durable, std::mem::take(&mut state.waiters))
    }

    /// Ends the thread after a last flush.
    pub(super) fn stop(&self) {
        lock(&self.state).stop = true;
        self.wake.notify_one();
    }

    pub(super) fn health(&self) -> SyncHealth {
        lock(&self.state).health
    }

    /// The thread. It ends when the writer has stopped it and everything is durable or has failed.
    pub(super) fn run(&self, shared: &Weak<Shared>, floor: &Floor) {
        let mut state = lock(&self.state);
        loop {
            drop(state);
            floor.look(LOOK_INTERVAL);
            state = lock(&self.state);
            let now = Instant::now();
            let dirty = state.file.is_some() && state.failed.is_none() && state.dirty.is_some();
            let due = state.dirty.map(|since| since + self.interval);
            let wanted = state.stop || state.flush || !state.waiters.is_empty();
            if !dirty || !(wanted || due.is_some_and(|due| due <= now)) {
                if state.stop {
                    return;
                }
                state.idle = true;
                // Also when there is nothing to flush the disk may fill, or have room again.
                let wait = due.filter(|_| dirty).map(|due| due.saturating_duration_since(now));
                let wait = wait.map_or(LOOK_INTERVAL, |wait| wait.min(LOOK_INTERVAL));
                let woken = self.wake.wait_timeout(state, wait);
                state = woken.unwrap_or_else(PoisonError::into_inner).0;
                state.idle = false;
                continue;
            }
            let Some(file) = state.file.clone() else { continue };
            let (target, waiters) = (state.written, std::mem::take(&mut state.waiters));
            state.flush = false;
            state.dirty = None;
            state.running = true;
            drop(state);
            let result = file.sync_data();
            let took = now.elapsed();
            self.settle(result.map(|()| target), took, waiters, shared);
            state = lock(&self.state);
        }
    }

    fn settle(
        &self,
        result: io::Result<Mark>,
        took: Duration,
        waiters: Vec<Waiter>,
        shared: &Weak<Shared>,
    ) {
        let mut state = lock(&self.state);
        state.health.took(took);
        match result {
            Ok(target) => {
                state.durable = target;
                state.running = false;
                let head = state.head.take_if(|head| head.state.bytes <= target.offset);
                drop(state);
                self.done.notify_all();
                for waiter in waiters {
                    waiter.settle(Ok(()));
                }
                if let Some(head) = head {
                    self.head.keep(&head);
                }
            }
            Err(source) => {
                let source = Arc::new(source);
                self.failed.store(true, Ordering::Release);
                state.failed = Some(Arc::clone(&source));
                let late = std::mem::take(&mut state.waiters);
                drop(state);
                // The writer first: when the waiters hear of it nothing is acknowledged any more.
                if let Some(shared) = shared.upgrade() {
                    shared.sync_failed(Arc::clone(&source));
                }
                // Only now may the writer go on, or it would take this failure for one of the next file.
                lock(&self.state).running = false;
                self.done.notify_all();
                for waiter in waiters.into_iter().chain(late) {
                    let source = Arc::clone(&source);
                    waiter.settle(Err(AppendError::Failed { step: "fdatasync", source }));
                }
            }
        }
    }
}

/// Design: everything is durable within 200 ms, of which the flush itself needs a part.
const INTERVAL_MAX: Duration = Duration::from_millis(150);
/// How often the room on the disk is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
