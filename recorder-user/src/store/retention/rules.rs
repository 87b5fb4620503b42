//! What is to be kept for how long, and what came of it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::{HoldId, SegmentId, SessionId};

/// How long and how much is kept. Without any of these everything stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RetentionRules {
    /// Segments whose last record is older go.
    #[serde(with = "seconds", skip_serializing_if = "Option::is_none")]
    pub age: Option<Duration>,
    /// The oldest segments go until the store takes no more bytes of the disk than this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Exchanges that only read go from segments whose last record is older.
    #[serde(with = "seconds", skip_serializing_if = "Option::is_none")]
    pub reads: Option<Duration>,
    /// The bodies of such exchanges go from segments whose last record is older.
    #[serde(with = "seconds", skip_serializing_if = "Option::is_none")]
    pub bodies_of_reads: Option<Duration>,
}

impl RetentionRules {
    /// Whether everything stays.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Durations as seconds.
mod seconds {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer};

    #[expect(clippy::ref_option, reason = "serde passes the field by reference")]
    pub(super) fn serialize<S: Serializer>(
        value: &Option<Duration>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => to.serialize_f64(value.as_secs_f64()),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Duration>, D::Error> {
        let seconds = Option::<f64>::deserialize(from)?;
        let duration =
            |seconds| Duration::try_from_secs_f64(seconds).map_err(serde::de::Error::custom);
        seconds.map(duration).transpose()
    }
}

/// How much a hold kept that would have gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldBack {
    /// The hold.
    pub hold: HoldId,
    /// Records that stay because of it.
    pub records: u64,
    /// Segments that have such records.
    pub segments: u64,
}

/// A segment that should have gone and was not touched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Untouched {
    /// The segment.
    pub segment: SegmentId,
    /// Why.
    pub why: String,
}

/// What went, or on a dry run what would go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PruneReport {
    /// Whether nothing was done.
    pub dry_run: bool,
    /// Segments that go whole.
    pub segments: Vec<SegmentId>,
    /// Records in them.
    pub segment_records: u64,
    /// Bytes of the disk that they take.
    pub segment_bytes: u64,
    /// Segments that lose some of their records.
    pub thinned: Vec<SegmentId>,
    /// Records that go from these.
    pub records: u64,
    /// Bytes of their payloads; what that frees of the disk is a little less.
    pub record_bytes: u64,
    /// How many sessions lose records.
    pub session_count: u64,
    /// The first 1000 of them, by id.
    pub sessions: Vec<SessionId>,
    /// What legal holds kept.
    pub held: Vec<HeldBack>,
    /// Segments that should have gone and were not touched.
    pub untouched: Vec<Untouched>,
    /// Bytes of the disk that all segments took before.
    pub store_bytes: u64,
}

impl PruneReport {
    /// Whether nothing goes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.segments.is_empty() && self.thinned.is_empty()
    }
}
