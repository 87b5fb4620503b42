//! How the archive is doing: what metrics, logs and `recorder archive status` show.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use recorder_user::model::Timestamp;

use crate::failure::{Class, Failure, chain};

/// What an archiver counts; read at any time.
#[derive(Debug, Default)]
pub struct Health {
    view: Mutex<HealthView>,
}

/// A look at it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealthView {
    /// Finished segments that are not archived yet.
    pub pending_segments: u64,
    /// Their bytes.
    pub pending_bytes: u64,
    /// When the oldest of them was finished.
    pub oldest_pending: Option<Timestamp>,
    /// Segments archived since the start.
    pub archived_segments: u64,
    /// Their bytes.
    pub archived_bytes: u64,
    /// Table files stored since the start.
    pub table_files: u64,
    /// Failed attempts since the start.
    pub failures: BTreeMap<Class, u64>,
    /// When a segment was last archived, or nothing was left to be.
    pub last_success: Option<Timestamp>,
    /// The last failure, in words, while it lasts.
    pub failing: Option<(Class, String)>,
    /// Whether somebody has to act.
    pub alarm: bool,
}

impl Health {
    /// How it is now.
    #[must_use]
    pub fn view(&self) -> HealthView {
        self.lock().clone()
    }

    pub(crate) fn pending(&self, segments: u64, bytes: u64, oldest: Option<Timestamp>) {
        let mut view = self.lock();
        view.pending_segments = segments;
        view.pending_bytes = bytes;
        view.oldest_pending = oldest;
    }

    pub(crate) fn archived(&self, bytes: u64) {
        let mut view = self.lock();
        view.archived_segments += 1;
        view.archived_bytes += bytes;
    }

    pub(crate) fn table_files(&self, files: u64) {
        self.lock().table_files += files;
    }

    pub(crate) fn failed(&self, failure: &Failure) {
        let mut view = self.lock();
        *view.failures.entry(failure.class).or_default() += 1;
        view.failing = Some((failure.class, chain(failure)));
    }

    /// Nothing new, but some segments still need help.
    pub(crate) fn goes_on_failing(&self, class: Class, error: String) {
        self.lock().failing = Some((class, error));
    }

    /// Everything that can be archived is, as of `now`.
    pub(crate) fn succeeded(&self, now: Timestamp) {
        let mut view = self.lock();
        view.last_success = Some(now);
        view.failing = None;
    }

    /// Whether the alarm changed.
    pub(crate) fn set_alarm(&self, alarm: bool) -> bool {
        std::mem::replace(&mut self.lock().alarm, alarm) != alarm
    }

    /// Plain values behind a lock stay usable after a panic elsewhere.
    fn lock(&self) -> MutexGuard<'_, HealthView> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
