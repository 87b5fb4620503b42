//! The rows of a store, from wherever they can be had.

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use super::{
    fold::Fold,
    index::{Covered, Index, IndexError},
    lock::{self, Lock, LockError},
    memory::MemoryRows,
    open::{LOCK_FILE, boot_id},
    reader::{ReadError, Reader},
    rows::{ExchangeRow, Query, SessionView},
    scan::{self, Scan, ScanError},
};
use crate::model::{ExchangeId, SessionId};

/// Rows could not be read.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The segments could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The index could not be read.
    #[error("read the index")]
    Index(#[from] IndexError),
    /// A gateway that was asked did not answer.
    #[error("ask the gateway")]
    Asked(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// All rows of a store at one time.
///
/// While it is held a gateway that starts may have to wait for the index: let go of it soon.
pub struct Catalog {
    reader: Reader,
    rows: Rows,
    damage: Vec<ReadError>,
}

enum Rows {
    Index(Box<Index>),
    Memory(MemoryRows),
}

impl Catalog {
    pub(super) fn load(reader: &Reader) -> Result<Self, CatalogError> {
        let store = reader.directory();
        if let Some(index) = current_index(store) {
            let rows = Rows::Index(Box::new(index));
            return Ok(Self { reader: reader.clone(), rows, damage: Vec::new() });
        }
        let mut rows = MemoryRows::default();
        let mut fold = Fold::default();
        let mut damage = Vec::new();
        for stored in reader.records() {
            match stored {
                Ok(stored) => fold.apply(&mut rows, stored.position, &stored.record),
                Err(error @ ReadError::Scan(ScanError::Io { .. })) => return Err(error.into()),
                // Deleted on purpose: `verify` says so.
                Err(ReadError::Payload { source, .. }) if source.is_deletion() => {}
                Err(error) => {
                    if damage.len() < DAMAGE_MAX {
                        damage.push(error);
                    }
                }
            }
        }
        Ok(Self { reader: reader.clone(), rows: Rows::Memory(rows), damage })
    }

    /// Whether the rows come from the index.
    #[must_use]
    pub const fn is_indexed(&self) -> bool {
        matches!(self.rows, Rows::Index(_))
    }

    /// What could not be read on the way, at most 16: rows go as far as records can be trusted.
    #[must_use]
    pub fn damage(&self) -> &[ReadError] {
        &self.damage
    }

    /// All sessions in the order in which they began.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn sessions(&self) -> Result<Vec<SessionView>, CatalogError> {
        Ok(match &self.rows {
            Rows::Index(index) => index.sessions()?,
            Rows::Memory(rows) => rows.sessions.values().map(|entry| entry.view.clone()).collect(),
        })
    }

    /// One session.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn session(&self, id: SessionId) -> Result<Option<SessionView>, CatalogError> {
        Ok(match &self.rows {
            Rows::Index(index) => index.session(id)?,
            Rows::Memory(rows) => rows.sessions.get(&id).map(|entry| entry.view.clone()),
        })
    }

    /// One exchange.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn exchange(&self, id: ExchangeId) -> Result<Option<ExchangeRow>, CatalogError> {
        Ok(match &self.rows {
            Rows::Index(index) => index.exchange(id)?,
            Rows::Memory(rows) => rows.exchanges.get(&id).cloned(),
        })
    }

    /// The exchanges that the query selects, in the order in which they were received.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn search(&self, query: &Query) -> Result<Vec<ExchangeRow>, CatalogError> {
        let mut found = Vec::new();
        let mut take = |row: ExchangeRow| {
            found.push(row);
            if query.limit != 0 && found.len() >= query.limit {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        match &self.rows {
            Rows::Index(index) => index.search(query, take)?,
            Rows::Memory(rows) => {
                for row in rows.exchanges.values() {
                    let selected = query.selects(row, || self.reader.ends_at(row));
                    if selected && take(row.clone()).is_break() {
                        break;
                    }
                }
            }
        }
        Ok(found)
    }
}

impl Catalog {
    /// The ids of all sessions, until the visitor has enough.
    pub(super) fn session_ids(
        &self,
        mut visit: impl FnMut(SessionId) -> ControlFlow<()>,
    ) -> Result<(), CatalogError> {
        match &self.rows {
            Rows::Index(index) => index.session_ids(None, visit)?,
            Rows::Memory(rows) => {
                for id in rows.sessions.keys() {
                    if visit(*id).is_break() {
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// The ids of all exchanges, until the visitor has enough.
    pub(super) fn exchange_ids(
        &self,
        mut visit: impl FnMut(ExchangeId) -> ControlFlow<()>,
    ) -> Result<(), CatalogError> {
        match &self.rows {
            Rows::Index(index) => index.exchange_ids(None, visit)?,
            Rows::Memory(rows) => {
                for id in rows.exchanges.keys() {
                    if visit(*id).is_break() {
                        break;
                    }
                }
            }
        }
        Ok(())
    }
}

/// The index, if no gateway has it and it covers everything.
fn current_index(store: &Path) -> Option<Index> {
    if lock::is_held(&store.join(LOCK_FILE)) {
        return None;
    }
    let (segment, path) = scan::list_segments(store).ok()?.pop()?;
    let bytes = std::fs::metadata(&path).ok()?.len();
    let hash = Scan::open_at(&path, bytes).ok()?.mark().hash;
    Index::open_to_read(store, Covered { segment, offset: bytes, hash }).ok()
}

/// The index could not be built.
#[derive(Debug, thiserror::Error)]
pub enum ReindexError {
    /// There is no store.
    #[error("{} is not a store: it has no directory `segments`", path.display())]
    NotAStore {
        /// The directory.
        path: PathBuf,
    },
    /// A gateway uses the store.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The index could not be made.
    #[error("build the index")]
    Index(#[from] IndexError),
}

/// What was built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReindexReport {
    /// Rows of sessions.
    pub sessions: u64,
    /// Rows of exchanges.
    pub exchanges: u64,
}

/// Deletes the index and builds it from the segments. No gateway may run.
///
/// # Errors
/// When a gateway runs, or the index cannot be written.
pub fn reindex(store: &Path) -> Result<ReindexReport, ReindexError> {
    if !scan::segments_directory(store).is_dir() {
        return Err(ReindexError::NotAStore { path: store.to_owned() });
    }
    let _lock = Lock::take(&store.join(LOCK_FILE), std::time::Duration::ZERO)?;
    let index = Index::rebuild(store, boot_id())?;
    let sessions = index.sessions()?.len() as u64;
    let exchanges = index.exchange_count();
    index.close()?;
    Ok(ReindexReport { sessions, exchanges })
}

/// More damage than this is not listed.
const DAMAGE_MAX: usize = 16;
