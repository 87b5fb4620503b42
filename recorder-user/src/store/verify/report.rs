//! What a check found.

use std::path::PathBuf;

use serde::Serialize;

use crate::{
    model::SegmentId,
    store::{
        DeletedRecords, DeletedSegments, ScanError, bundle::Manifest, rows::Position,
        signing::KeyId,
    },
};

/// A store could not be checked at all.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// There is no store.
    #[error("{} is not a store: it has no directory `segments`", path.display())]
    NotAStore {
        /// The directory.
        path: PathBuf,
    },
    /// It says that it is a bundle, and what it says cannot be read.
    #[error("{} is not what a bundle says of itself", path.display())]
    NotABundle {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: std::io::Error,
    },
    /// A file could not be read.
    #[error(transparent)]
    Scan(#[from] ScanError),
}

/// A segment that was checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SegmentReport {
    /// Its file.
    pub file: PathBuf,
    /// The segment.
    pub segment: SegmentId,
    /// Good records in it.
    pub records: u64,
    /// Good bytes in it.
    pub bytes: u64,
    /// Whether it was ended in order; the one that a gateway writes is not.
    pub sealed: bool,
    /// The key that signs it; none in segments of version 1.
    pub key: Option<KeyId>,
}

/// The first thing that is not as a writer wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FirstBad {
    /// The file.
    pub file: PathBuf,
    /// Offset of the record's first byte; 0 for the header.
    pub offset: u64,
    /// What is wrong.
    pub why: String,
}

/// What was checked, and what was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VerifyReport {
    /// The segments in order, up to the first bad one.
    pub segments: Vec<SegmentReport>,
    /// Good records.
    pub records: u64,
    /// Whether signatures were checked: a public key was at hand.
    pub signatures_checked: bool,
    /// Good signatures of checkpoints and seals.
    pub signatures: u64,
    /// Good records after the last good signature: whoever can write the store could have put others there.
    pub unsigned_records: u64,
    /// Records of which only the digest is left.
    pub pruned_records: u64,
    /// Runs of segments that are gone, as tombstones say.
    pub deleted_segments: Vec<DeletedSegments>,
    /// What tombstones say of deleted records, by segment.
    pub deleted_records: Vec<DeletedRecords>,
    /// Bodies that could not be compared, since some of each was deleted.
    pub partial_bodies: u64,
    /// Records of sessions that were erased: their key is gone.
    pub erased_records: u64,
    /// Encrypted records whose key is not here: their chain was checked, their bodies were not.
    pub locked_records: u64,
    /// Links to segments that are not here: in a bundle, or where one segment was checked alone.
    pub absent_links: u64,
    /// Bodies whose stored bytes were compared with the hash in their outcome.
    pub bodies: u64,
    /// Whether a gateway was writing meanwhile.
    pub live: bool,
    /// What a bundle says of itself; none for a store.
    pub bundle: Option<Manifest>,
    /// The newest signed state that was known from outside.
    pub head: HeadFound,
    /// Whether the session, exchange or record that was asked for is there.
    pub found: bool,
    /// The first good signature after the record that was asked for.
    pub covered_by: Option<Position>,
    /// None if everything is as it was written.
    pub first_bad: Option<FirstBad>,
}

impl VerifyReport {
    /// Whether the store verifies.
    #[must_use]
    pub const fn is_ok(&self) -> bool {
        self.first_bad.is_none()
    }
}

/// What came of the head that was noted elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum HeadFound {
    /// None was given.
    #[default]
    Absent,
    /// The store reaches it.
    Reached,
    /// It says nothing about this store, and why.
    Unusable(String),
}
