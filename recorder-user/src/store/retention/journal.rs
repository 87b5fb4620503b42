//! What a deletion has in hand, so that the next start can finish it or put it aside.
//!
//! The order is: thinner segments, journal, tombstone, then the files, then the journal goes. A tombstone that
//! is durable is carried out; without it everything stays as it was.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    gone::Gone,
    thin::{self, THINNER_EXTENSION},
};
use crate::{
    model::SegmentId,
    store::{
        disk::{self, Disk},
        index,
        queue::chain,
        scan::{self, Scan, ScanError},
        signing::Trust,
    },
};

/// A deletion could not be finished.
#[derive(Debug, thiserror::Error)]
pub enum FinishError {
    /// A segment could not be read.
    #[error("read the segments")]
    Scan(#[from] ScanError),
    /// A file operation failed.
    #[error("{step} {}", path.display())]
    Io {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// What is being deleted.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Journal {
    /// The tombstone is in this segment or a later one.
    pub(super) after: Option<SegmentId>,
    /// Segments that go.
    pub(super) whole: Vec<SegmentId>,
    /// Segments that are replaced by thinner ones.
    pub(super) thin: Vec<SegmentId>,
}

impl Journal {
    /// Notes it, durable.
    pub(super) fn write(&self, disk: &dyn Disk, store: &Path) -> Result<(), FinishError> {
        let directory = scan::segments_directory(store);
        disk.sync_directory(&directory).map_err(failed("sync", &directory))?;
        let path = journal_path(store);
        let json = serde_json::to_vec(self).expect("plain data");
        disk::replace_on(disk, &path, &json).map_err(failed("write", &path))
    }

    fn read(store: &Path) -> Result<Option<Self>, FinishError> {
        let path = journal_path(store);
        match fs::read(&path) {
            Ok(json) => Ok(Some(serde_json::from_slice(&json).unwrap_or_else(|error| {
                // Only whole files get this name. Without it nothing more is deleted, which is safe.
                tracing::warn!(%error, path = %path.display(), "the journal of a deletion is not understood");
                Self::default()
            }))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(failed("read", &path)(source)),
        }
    }

    /// Puts the thinner segments in their places.
    pub(super) fn replace(
        disk: &dyn Disk,
        store: &Path,
        segments: &[SegmentId],
    ) -> Result<(), FinishError> {
        for segment in segments {
            let path = scan::segment_path(store, *segment);
            let thinner = thin::thinner_path(&path);
            disk::publish(disk, &thinner, &path).map_err(failed("replace", &path))?;
        }
        Ok(())
    }

    /// Deletes segments, durable.
    pub(super) fn delete(
        disk: &dyn Disk,
        store: &Path,
        segments: &[SegmentId],
    ) -> Result<(), FinishError> {
        for segment in segments {
            let path = scan::segment_path(store, *segment);
            remove(disk, &path)?;
        }
        let directory = scan::segments_directory(store);
        disk.sync_directory(&directory).map_err(failed("sync", &directory))
    }

    /// Nothing is in hand any more: what was not put in its place is not wanted.
    pub(super) fn clear(disk: &dyn Disk, store: &Path) -> Result<(), FinishError> {
        let directory = scan::segments_directory(store);
        for entry in fs::read_dir(&directory).map_err(failed("read", &directory))? {
            let path = entry.map_err(failed("read", &directory))?.path();
            if path.extension().is_some_and(|extension| extension == THINNER_EXTENSION) {
                remove(disk, &path)?;
            }
        }
        remove(disk, &journal_path(store))
    }
}

/// Finishes what a crash interrupted; false if there was nothing. The segments must be in order: what is not
/// durable was cut off.
pub(in crate::store) fn finish(
    disk: &dyn Disk,
    store: &Path,
    trust: &Trust,
) -> Result<bool, FinishError> {
    let journal = Journal::read(store)?;
    let interrupted = journal.is_some();
    if let Some(journal) = journal {
        let gone = Gone::read(store, trust)?;
        let said = |found: SegmentId| journal.after.is_none_or(|after| found >= after);
        let whole = journal.whole.iter().copied().filter(|segment| {
            let tombstones = gone.tombstones.iter().filter(|found| said(found.segment));
            let mut runs = tombstones.flat_map(|found| &found.statement.segments);
            runs.any(|run| run.spans(*segment))
        });
        let whole: Vec<_> = whole.collect();
        let thin = journal.thin.iter().copied().filter(|segment| {
            is_said(store, *segment, &gone).unwrap_or_else(|error| {
                tracing::warn!(%segment, error = %chain(&error), "a thinner segment is put aside");
                false
            })
        });
        let thin: Vec<_> = thin.collect();
        tracing::info!(
            whole = whole.len(),
            thin = thin.len(),
            "finishing a deletion that was interrupted"
        );
        index::distrust(store);
        Journal::replace(disk, store, &thin)?;
        Journal::delete(disk, store, &whole)?;
    }
    Journal::clear(disk, store)?;
    Ok(interrupted)
}

/// Whether a thinner segment is there, sound, and what a tombstone says of it.
fn is_said(store: &Path, segment: SegmentId, gone: &Gone) -> Result<bool, ScanError> {
    let path = scan::segment_path(store, segment);
    let thinner = thin::thinner_path(&path);
    if !thinner.exists() {
        return Ok(false);
    }
    let (mut scan, _) = Scan::open(&path)?;
    while scan.next()?.is_some() {}
    let missing = thin::check(&thinner, scan.mark().hash)?;
    Ok(missing.is_some_and(|missing| gone.says(segment, missing).is_some()))
}

fn remove(disk: &dyn Disk, path: &Path) -> Result<(), FinishError> {
    disk::remove_any(disk, path).map_err(failed("remove", path))
}

fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FinishError {
    let path = path.to_owned();
    move |source| FinishError::Io { step, path, source }
}

fn journal_path(store: &Path) -> PathBuf {
    store.join("deleting")
}
