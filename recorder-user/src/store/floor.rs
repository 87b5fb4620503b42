//! The floor under the free space: below it nothing new begins, so that what is under way still fits.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    disk::{Disk, Space},
    queue::lock,
    recorder::AppendError,
};
use crate::model::{Decision, Record};

/// Looks at the space on the store's file system.
pub(super) struct Floor {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    /// Asked for; none for the default.
    bytes: Option<u64>,
    low: AtomicBool,
    seen: Mutex<Seen>,
}

#[derive(Clone, Copy, Default)]
struct Seen {
    space: Option<Space>,
    floor_bytes: u64,
    when: Option<Instant>,
}

impl Floor {
    pub(super) fn new(disk: Arc<dyn Disk>, directory: PathBuf, bytes: Option<u64>) -> Self {
        let floor =
            Self { disk, directory, bytes, low: AtomicBool::new(false), seen: Mutex::default() };
        floor.look(Duration::ZERO);
        floor
    }

    /// Looks, if the last look is older than this.
    pub(super) fn look(&self, age: Duration) {
        let now = Instant::now();
        if lock(&self.seen).when.is_some_and(|when| now.saturating_duration_since(when) < age) {
            return;
        }
        let space = self.disk.space(&self.directory);
        let floor_bytes = self.bytes.unwrap_or_else(|| {
            space.map_or(FLOOR_BYTES_MAX, |space| (space.bytes / FLOOR_PART).min(FLOOR_BYTES_MAX))
        });
        *lock(&self.seen) = Seen { space, floor_bytes, when: Some(now) };
        // Where it cannot be told, a write will.
        let Some(Space { free_bytes, .. }) = space else { return };
        let low = free_bytes < floor_bytes;
        if low != self.low.swap(low, Ordering::Relaxed) {
            if low {
                tracing::error!(
                    free_bytes,
                    floor_bytes,
                    "too little free space for the store: nothing new is forwarded; make room"
                );
            } else {
                tracing::info!(free_bytes, floor_bytes, "there is free space for the store again");
            }
        }
    }

    /// Refuses what would begin something that is forwarded.
    pub(super) fn admit(&self, records: &[Record]) -> Result<(), AppendError> {
        if self.is_low() && records.iter().any(begins) {
            let Seen { space, floor_bytes, .. } = *lock(&self.seen);
            let free_bytes = space.map_or(0, |space| space.free_bytes);
            return Err(AppendError::LowSpace { free_bytes, floor_bytes });
        }
        Ok(())
    }

    pub(super) fn is_low(&self) -> bool {
        self.low.load(Ordering::Relaxed)
    }

    /// The space when it was last looked at, and the floor.
    pub(super) fn seen(&self) -> (Option<Space>, u64) {
        let Seen { space, floor_bytes, .. } = *lock(&self.seen);
        (space, floor_bytes)
    }
}

/// The intent of an exchange that may pass. A refusal is recorded as long as there is any.
fn begins(record: &Record) -> bool {
    match record {
        Record::ExchangeOpened(opened) => {
            opened.verdict.as_ref().is_some_and(|verdict| verdict.decision != Decision::Deny)
        }
        _ => false,
    }
}

/// The default floor: a twentieth of the file system, and no more than 1 GiB.
const FLOOR_PART: u64 = 20;
const FLOOR_BYTES_MAX: u64 = 1 << 30;
