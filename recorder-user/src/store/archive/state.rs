//! What is known of the copies: a small file per segment, which can be deleted and is found out again.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{super::disk, rows::Carried};
use crate::model::{SegmentId, Timestamp};

/// A state file could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{step} {}", path.display())]
pub struct ArchiveStateError {
    /// What was tried.
    step: &'static str,
    /// On what.
    path: PathBuf,
    /// What the system says.
    #[source]
    source: io::Error,
}

/// A segment's copy: it was read back and is the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Copied {
    /// The segment.
    pub segment: SegmentId,
    /// Its length, here and there.
    pub bytes: u64,
    /// BLAKE3 of all its bytes, here and there, in hexadecimal.
    pub blake3: String,
    /// The URL of the copy.
    pub object: String,
    /// When the copy was read back and compared.
    pub verified: Timestamp,
    /// The version of the tables that were derived from it and stored; none while they are not.
    pub tables: Option<u32>,
}

/// The state files of a store, in `STORE/archive/`.
#[derive(Clone, Debug)]
pub struct ArchiveState {
    directory: PathBuf,
}

impl ArchiveState {
    /// Those of the store in `directory`.
    #[must_use]
    pub fn of(store: &Path) -> Self {
        Self { directory: store.join(DIRECTORY) }
    }

    /// Keeps other archivers from the store until it is dropped; none if another has it.
    ///
    /// # Errors
    /// When the lock's file cannot be made.
    pub fn lock(&self) -> Result<Option<ArchiveLock>, ArchiveStateError> {
        let path = self.directory.join("lock");
        let failed = |source| ArchiveStateError { step: "lock", path: path.clone(), source };
        disk::make_directory(&self.directory).map_err(failed)?;
        let options = fs::File::options().create(true).truncate(false).write(true).open(&path);
        let file = options.map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(ArchiveLock(file))),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    /// What is known of a segment's copy; none if nothing is, or the file cannot be understood: then it is
    /// found out again.
    #[must_use]
    pub fn copied(&self, segment: SegmentId) -> Option<Copied> {
        let text = fs::read(self.file(segment)).ok()?;
        let copied: Copied = serde_json::from_slice(&text).ok()?;
        (copied.segment == segment).then_some(copied)
    }

    /// All copies that are known of, also of segments that are gone from here.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn all(&self) -> Result<BTreeMap<SegmentId, Copied>, ArchiveStateError> {
        let failed =
            |source| ArchiveStateError { step: "list", path: self.directory.clone(), source };
        let mut all = BTreeMap::new();
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(all),
            entries => entries.map_err(failed)?,
        };
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            if let Some(segment) = stem.and_then(|stem| stem.parse().ok())
                && let Some(copied) = self.copied(segment)
            {
                all.insert(segment, copied);
            }
        }
        Ok(all)
    }

    /// Notes a copy; durable when it returns.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn note(&self, copied: &Copied) -> Result<(), ArchiveStateError> {
        self.replace(&self.file(copied.segment), copied)
    }

    /// What derived rows carry from one segment to the next, and after which segment it was kept.
    #[must_use]
    pub fn carried(&self) -> Option<(SegmentId, Carried)> {
        let text = fs::read(self.carried_file()).ok()?;
        let kept: Kept<Carried> = serde_json::from_slice(&text).ok()?;
        Some((kept.after, kept.carried))
    }

    /// Keeps what derived rows carry beyond this segment, in place of what was kept before.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn keep_carried(
        &self,
        after: SegmentId,
        carried: &Carried,
    ) -> Result<(), ArchiveStateError> {
        self.replace(&self.carried_file(), &Kept { after, carried })
    }

    fn file(&self, segment: SegmentId) -> PathBuf {
        self.directory.join(format!("{segment}.json"))
    }

    /// Whether anything was ever archived from the store, or tried.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.directory.is_dir()
    }

    fn carried_file(&self) -> PathBuf {
        self.directory.join("carried.json")
    }

    fn replace(&self, path: &Path, what: &impl Serialize) -> Result<(), ArchiveStateError> {
        let failed = |step| move |source| ArchiveStateError { step, path: path.into(), source };
        disk::make_directory(&self.directory).map_err(failed("make the directory of"))?;
        let text = serde_json::to_vec(what).map_err(|error| failed("encode")(error.into()))?;
        disk::replace_file(path, &text).map_err(failed("write"))
    }
}

/// The right to archive a store; given back when dropped, or by the kernel.
#[derive(Debug)]
pub struct ArchiveLock(#[expect(dead_code, reason = "held, not used")] fs::File);

#[derive(Serialize, Deserialize)]
struct Kept<T> {
    after: SegmentId,
    carried: T,
}

/// Whether a copy of this segment in an archive was read back and was the same as the local file is long.
///
/// Retention asks this before it deletes anything that has to be archived.
#[must_use]
pub fn is_archived(store: &Path, segment: SegmentId) -> bool {
    let bytes = fs::metadata(super::super::scan::segment_path(store, segment)).map(|m| m.len());
    let copied = ArchiveState::of(store).copied(segment);
    copied.is_some_and(|copied| bytes.is_ok_and(|bytes| bytes == copied.bytes))
}

const DIRECTORY: &str = "archive";
