//! The store: append-only segments are the truth, an index over them can be deleted at any time.
//!
//! A [`Recorder`] queues records for one writer thread, which encodes them, continues the hash chain and
//! writes each batch at once; a flusher thread makes written bytes durable, one `fdatasync` for all who
//! wait; an index thread derives rows behind them. What is acknowledged has reached what was asked for,
//! [`Need::Written`] or [`Need::Durable`]. When a write or flush fails, all who wait hear of it, and nothing
//! is taken until a new segment file has proven writable. A [`Reader`] needs no lock and no index.
//!
//! This module never drops a record silently, never overwrites one, and never lets the index stand between
//! a record and its acknowledgement. The gateway calls [`Store`] and [`Recorder`]; the command line calls
//! [`Reader`], [`verify()`] and [`reindex`]. The format is in `docs/format.md`.

pub mod archive;
mod bundle;
mod catalog;
mod clip;
mod copies;
mod disk;
pub mod encryption;
mod erasure;
mod floor;
mod fold;
mod format;
mod head;
mod id_part;
mod index;
mod live_rows;
mod lock;
mod memory;
mod open;
mod queue;
mod reader;
mod recorder;
mod records_of;
mod recovery;
mod retention;
pub mod rows;
mod salvage;
mod scan;
mod schedule;
mod segment;
pub mod signing;
mod source;
mod space;
mod stub;
mod sync;
mod verify;
mod writer;

use std::sync::Arc;

use crate::model::Timestamp;

pub use bundle::{
    BundleError, BundleOf, BundledSegment, KEYS_DIRECTORY, Manifest as BundleManifest,
    export_bundle,
};
pub use catalog::{Catalog, CatalogError, ReindexError, ReindexReport, reindex};
pub use copies::join_copies;
pub use disk::{Disk, DiskFile, Space, SystemDisk};
pub use erasure::{EraseError, erase_session};
pub use format::{
    BadHeader, ChainHash, Checkpoint, DecodePayloadError, DeletedRecords, DeletedSegments,
    DeletionCause, Header, PAYLOAD_BYTES_MAX, Previous, RecordTooLarge, Seal, SealedBy, Tombstone,
};
pub use head::{Head, ReadHeadError, head_file};
pub use id_part::{ID_PART_CHARS_MIN, IdPart, MATCHING_IDS_MAX, MatchingIds, ParseIdPartError};
pub use index::{
    IndexBackend, IndexError, IndexHealth, ParseIndexBackendError, VERSION as ROWS_VERSION,
};
pub use live_rows::{LiveRows, LiveRowsError, RowPage};
pub use lock::LockError;
pub use open::{CloseStoreError, OpenStoreError, Recovered, Store, StoreOptions};
pub use reader::{
    EXCHANGE_BYTES_MAX, ExchangeEnds, ExchangeRecords, ReadError, Reader, Records, SegmentInfo,
    StoredRecord,
};
pub use recorder::{Ack, AppendError, Need, RESERVE_BYTES, Recorder, StoreHealth};
pub use records_of::{RecordsOf, RunEnd};
pub use recovery::{RecoverError, TornTail};
pub use retention::{
    FinishError, HeldBack, MayGo, OpenRetentionError, PruneError, PruneOrder, PruneReport,
    Retention, RetentionHealth, RetentionRules, Untouched, archived_only, holds, open_to_prune,
    preview,
};
pub use rows::{
    AccountRow, ConnectionRow, EffectCounts, ExchangeRow, ParseStatusFilterError, Position,
    PrincipalRow, Query, RefusalRow, SessionView, StateWord, StatusFilter,
};
pub use scan::{BadRecord, ScanError};
pub use source::RowSource;
pub use sync::{SYNC_BOUNDS, SyncHealth};
pub use verify::{
    Check, FirstBad, HeadFound, Scope, SegmentReport, VerifyError, VerifyReport, verify,
};

/// The wall clock, given by the caller so that tests can set it.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The system's wall clock.
#[must_use]
pub fn system_clock() -> Clock {
    Arc::new(Timestamp::now)
}
