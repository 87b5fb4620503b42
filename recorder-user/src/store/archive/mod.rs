//! What the store offers to whoever copies it away: which segments are finished, what is known of their
//! copies, and the rows that one segment adds.
//!
//! Nothing here speaks to a network: the crate `archive` does, and retention asks [`is_archived`].

mod finished;
mod rows;
mod state;

pub use finished::{FinishedSegment, SegmentEnd};
pub use rows::{Carried, RowSink, SegmentRows};
pub use state::{ArchiveLock, ArchiveState, ArchiveStateError, Copied, is_archived};
