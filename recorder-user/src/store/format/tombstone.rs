//! The statement that takes the place of what was deleted.

use serde::{Deserialize, Serialize};

use super::{ChainHash, Previous};
use crate::{
    model::{SegmentId, Timestamp},
    store::signing::KeyId,
};

/// Why something was deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeletionCause {
    /// It was older than the configuration keeps.
    Age,
    /// The store was larger than the configuration allows.
    Size,
    /// It was of a scope that is kept for a shorter time.
    Scope,
    /// Somebody asked for it.
    Request,
}

impl DeletionCause {
    /// Its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Age => "age",
            Self::Size => "size",
            Self::Scope => "scope",
            Self::Request => "request",
        }
    }
}

/// A run of segments that follow each other and were deleted whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeletedSegments {
    /// The first of them.
    pub first: SegmentId,
    /// The last of them.
    pub last: SegmentId,
    /// The last hash of `last`: what its successor's header says.
    pub hash: ChainHash,
    /// What `first` said of the segment before it.
    pub previous: Option<Previous>,
    /// How many they were.
    pub segments: u64,
    /// How many records they had.
    pub records: u64,
    /// How many bytes they had.
    pub bytes: u64,
    /// When `first` was made.
    pub from: Timestamp,
    /// When the last record of `last` was written.
    pub to: Timestamp,
    /// When the latest of them was deleted.
    pub deleted: Timestamp,
    /// Why, each cause once.
    pub by: Vec<DeletionCause>,
    /// Who asked for it, where somebody did; at most eight.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub who: Vec<String>,
}

/// All records of one segment that were deleted so far, also by earlier tombstones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeletedRecords {
    /// The segment.
    pub segment: SegmentId,
    /// How many.
    pub count: u64,
    /// The hash of their digests, in their order.
    pub digest_of: ChainHash,
    /// How many bytes their payloads had.
    pub bytes: u64,
    /// When the latest of them was deleted.
    pub deleted: Timestamp,
    /// Why, each cause once.
    pub by: Vec<DeletionCause>,
    /// Who asked for it, where somebody did; at most eight.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub who: Vec<String>,
}

/// What was deleted, signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tombstone {
    /// When it was made.
    pub time: Timestamp,
    /// The key that signs it; the writer puts it in.
    pub key: Option<KeyId>,
    /// Runs of segments that are gone.
    pub segments: Vec<DeletedSegments>,
    /// Records that are gone from segments that are there.
    pub records: Vec<DeletedRecords>,
}

impl DeletedSegments {
    /// Takes in the run that follows this one; false if it does not.
    pub(in crate::store) fn join(&mut self, next: &Self) -> bool {
        let end = Previous { segment: self.last, hash: self.hash };
        if next.previous != Some(end) {
            return false;
        }
        (self.last, self.hash) = (next.last, next.hash);
        self.segments += next.segments;
        self.records += next.records;
        self.bytes += next.bytes;
        self.to = self.to.max(next.to);
        self.deleted = self.deleted.max(next.deleted);
        union(&mut self.by, &next.by, usize::MAX);
        union(&mut self.who, &next.who, WHO_MAX);
        true
    }

    /// Whether the segment is one of those between the ends.
    pub(in crate::store) fn spans(&self, segment: SegmentId) -> bool {
        self.first <= segment && segment <= self.last
    }
}

impl DeletedRecords {
    /// Takes over why and by whom the records were deleted that an earlier tombstone spoke of.
    pub(in crate::store) fn follow(&mut self, earlier: &Self) {
        let (by, who) = (std::mem::take(&mut self.by), std::mem::take(&mut self.who));
        (self.by, self.who) = (earlier.by.clone(), earlier.who.clone());
        union(&mut self.by, &by, usize::MAX);
        union(&mut self.who, &who, WHO_MAX);
    }
}

fn union<T: Clone + PartialEq>(into: &mut Vec<T>, from: &[T], max: usize) {
    for value in from {
        if into.len() < max && !into.contains(value) {
            into.push(value.clone());
        }
    }
}

/// More names are not kept when runs are joined.
const WHO_MAX: usize = 8;
