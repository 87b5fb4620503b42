//! One issuer's keys: held for everyone, fetched by one task.

use std::{
    collections::hash_map::RandomState,
    hash::BuildHasher as _,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use recorder_user::model::Timestamp;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    IdentifyError, IssuerStats,
    fetch::{FETCH_TIMEOUT, Fetcher},
    keys::{KeyHash, KeySet},
};
use crate::config::{Issuer, KeyOptions};

/// One issuer's keys.
pub(super) struct IssuerKeys {
    current: ArcSwapOption<KeySet>,
    options: KeyOptions,
    /// Wakes the task before its timer.
    wanted: Notify,
    /// How many fetches have ended, so that a request can wait for the next.
    ended: watch::Sender<u64>,
    progress: Mutex<Progress>,
    waiting: AtomicUsize,
    fetches: AtomicU64,
    failures: AtomicU64,
}

#[derive(Default)]
struct Progress {
    started: Option<Instant>,
    running: bool,
}

impl IssuerKeys {
    /// Starts the task, which fetches at once.
    pub(super) fn start(
        issuer: &Issuer,
        options: KeyOptions,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> Arc<Self> {
        let keys = Arc::new(Self {
            current: ArcSwapOption::empty(),
            options,
            wanted: Notify::new(),
            ended: watch::Sender::new(0),
            progress: Mutex::default(),
            waiting: AtomicUsize::new(0),
            fetches: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        });
        let task = Arc::clone(&keys);
        let fetcher = Fetcher::new(issuer);
        tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = task.run(&fetcher) => {}
            }
        });
        keys
    }

    /// The keys, unless there are none or they are too old to be believed.
    pub(super) fn usable(&self, now: Timestamp) -> Result<Arc<KeySet>, IdentifyError> {
        let keys = self.current.load_full().ok_or(IdentifyError::KeysUnavailable)?;
        let max_age = i64::try_from(self.options.max_stale.as_micros()).unwrap_or(i64::MAX);
        if keys.len() == 0 || now.micros_since(keys.fetched) > max_age {
            return Err(IdentifyError::KeysUnavailable);
        }
        Ok(keys)
    }

    /// Whether the newest published keys hold this one; also while there are none yet. A set without any key
    /// withdrew them all.
    pub(super) fn vouches(&self, key: &KeyHash) -> bool {
        self.current.load().as_ref().is_none_or(|keys| keys.contains(key))
    }

    /// Changes when the keys do; 0 while there are none.
    pub(super) fn generation(&self) -> u64 {
        self.current.load().as_ref().map_or(0, |keys| keys.generation)
    }

    /// Asks for newer keys and waits until the task has tried. False without waiting when it asked
    /// a moment ago, or too many wait already: what is known now is all there is.
    pub(super) async fn refresh_wanted(&self) -> bool {
        // Before the look at the progress, so that a fetch that ends in between is not missed.
        let mut ended = self.ended.subscribe();
        if !self.progress().running {
            if !self.may_ask() {
                return false;
            }
            self.wanted.notify_one();
        }
        let Some(_waiter) = Waiter::enter(&self.waiting) else { return false };
        matches!(timeout(FETCH_TIMEOUT, ended.changed()).await, Ok(Ok(())))
    }

    /// Waits until keys have come once.
    pub(super) async fn wait_fetched(&self) {
        let mut ended = self.ended.subscribe();
        while self.current.load().is_none() {
            if ended.changed().await.is_err() {
                return;
            }
        }
    }

    pub(super) fn stats(&self, url: &str, now: Timestamp) -> IssuerStats {
        let keys = self.current.load();
        let age = |keys: &Arc<KeySet>| now.micros_since(keys.fetched).max(0).unsigned_abs();
        IssuerStats {
            url: url.to_owned(),
            fetches: self.fetches.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            keys: keys.as_ref().map_or(0, |keys| keys.len() as u64),
            keys_age_seconds: keys.as_ref().map(|keys| age(keys) / 1_000_000),
        }
    }

    async fn run(&self, fetcher: &Fetcher) {
        let mut failures = 0_u32;
        loop {
            let fetched = self.fetch(fetcher).await;
            failures = if fetched { 0 } else { failures.saturating_add(1) };
            let due = Instant::now() + self.pause(failures);
            loop {
                tokio::select! {
                    () = sleep_until(due) => break,
                    () = self.wanted.notified() => if self.may_ask() { break },
                }
            }
        }
    }

    async fn fetch(&self, fetcher: &Fetcher) -> bool {
        *self.progress() = Progress { started: Some(Instant::now()), running: true };
        self.fetches.fetch_add(1, Ordering::Relaxed);
        let result = fetcher.fetch().await;
        let fetched = result.is_ok();
        match result {
            Ok(published) => {
                let last = self.current.load_full();
                let keys = KeySet::new(&published, Timestamp::now()).after(last.as_deref());
                if last.is_none_or(|last| last.generation != keys.generation) {
                    let (issuer, count) = (fetcher.issuer(), keys.len());
                    tracing::info!(issuer, count, "the issuer's keys are new");
                }
                self.current.store(Some(Arc::new(keys)));
            }
            Err(error) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                let (issuer, error) = (fetcher.issuer(), error.chain());
                tracing::warn!(issuer, error, "the issuer's keys cannot be fetched");
            }
        }
        self.progress().running = false;
        self.ended.send_modify(|count| *count += 1);
        fetched
    }

    /// Whether the cool-down since the last fetch began is over.
    fn may_ask(&self) -> bool {
        self.progress().started.is_none_or(|at| at.elapsed() >= self.options.cool_down)
    }

    /// The time until the next fetch: the interval, or after failures a second, two, four, ….
    fn pause(&self, failures: u32) -> Duration {
        let refresh = self.options.refresh;
        match failures {
            0 => jitter(refresh),
            failures => jitter(retry(failures).min(refresh)),
        }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        // A poisoned lock holds two plain values, which cannot be half-written.
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn retry(failures: u32) -> Duration {
    Duration::from_secs(1 << failures.saturating_sub(1).min(6)).min(RETRY_MAX)
}

/// A tenth less to a tenth more, so that gateways started together do not ask together.
fn jitter(pause: Duration) -> Duration {
    // The standard library's only source of randomness; it need not be a good one.
    let random = RandomState::new().hash_one(0) % 2001;
    let thousandths = 9000 + u32::try_from(random).unwrap_or(1000);
    pause.mul_f64(f64::from(thousandths) / 10_000.0)
}

/// A request that waits for a fetch; counted, so that there is a bound.
struct Waiter<'a>(&'a AtomicUsize);

impl<'a> Waiter<'a> {
    fn enter(count: &'a AtomicUsize) -> Option<Self> {
        if count.fetch_add(1, Ordering::Relaxed) >= WAITING_MAX {
            count.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Self(count))
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An issuer that is down is asked at least this often.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// So many requests wait for one issuer's keys; more are answered with what is known.
const WAITING_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_slow_down_to_a_minute() {
        let seconds: Vec<u64> = (1..9).map(|failures| retry(failures).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(retry(u32::MAX), RETRY_MAX);
    }

    #[test]
    fn jitter_is_a_tenth_either_way() {
        let all: Vec<Duration> = (0..1000).map(|_| jitter(Duration::from_secs(100))).collect();
        let tenth = Duration::from_secs(90)..=Duration::from_secs(110);
        assert!(all.iter().all(|pause| tenth.contains(pause)));
        assert!(all.iter().any(|pause| *pause != all[0]));
    }
}
