//! The index: derived rows in a database, over the segments that are the truth.
//!
//! It is never on the way of an acknowledgement, and can be deleted at any time. On any doubt it is built
//! anew from the segments: another generation or version than `FORMAT` says, a power cut since it was last
//! closed, a covered position that the segments do not confirm, another database than configured, leftovers
//! or damage that the database is known to trip over. When it fails at run time the gateway goes on without it,
//! and the next start rebuilds it. The database is behind `table`: one file for each names it, and no other does.

mod backend;
mod feed;
mod overlay;
mod redb;
mod search;
mod sled;
mod slots;
mod table;
mod take;
mod terms;

use std::{
    fs, io,
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    disk,
    fold::{Fold, SessionEntry},
    format::ChainHash,
    lock::{Lock, LockError},
    rows::{ExchangeRow, Position, SessionView},
    scan::{self, Scan, ScanError},
};
use crate::model::{BootId, ExchangeId, SegmentId, SessionId};

pub use backend::{IndexBackend, ParseIndexBackendError};
pub use feed::IndexHealth;
pub(super) use feed::{Feed, Item};
use overlay::Overlay;
use slots::Ordinal;
use table::{Put, Table, TableError, Tree};

/// The index could not be opened, built or read.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// Another process uses it.
    #[error("take the index")]
    Lock(#[from] LockError),
    /// A file of it could not be read, written or removed.
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
    /// The database does not work.
    #[error("the index database does not work")]
    Table(#[from] TableError),
    /// The segments could not be read.
    #[error("read the segments")]
    Scan(#[from] ScanError),
    /// It is not what the segments need; the text says why.
    #[error("the index is doubtful: {0}")]
    Doubtful(String),
}

/// How far rows go: the end of a record and the chain's hash there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Covered {
    pub(super) segment: SegmentId,
    pub(super) offset: u64,
    pub(super) hash: ChainHash,
}

/// The index's own small file: what the database must say too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Format {
    version: u32,
    /// Which database it is in; the first version knew only one.
    #[serde(default)]
    backend: IndexBackend,
    generation: String,
    boot: BootId,
    clean: bool,
}

/// The open index: rows, and how far they go.
pub(super) struct Index {
    store: PathBuf,
    table: Box<dyn Table>,
    format: Format,
    covered: Option<Covered>,
    /// The ordinal of the next new exchange: how many there are.
    next: Ordinal,
    fold: Fold,
    /// Put since the database was opened, and since it was last made durable.
    put_bytes: u64,
    volatile_bytes: u64,
    _lock: Lock,
}

/// An index and why it had to be built anew, if it had.
pub(super) struct Opened {
    pub(super) index: Index,
    pub(super) rebuilt: Option<String>,
}

impl Index {
    /// Opens the index for writing, builds it anew on any doubt, and takes in what it lacks.
    pub(super) fn open(
        store: &Path,
        boot: BootId,
        backend: IndexBackend,
    ) -> Result<Opened, IndexError> {
        let lock = take_lock(store, READER_PATIENCE)?;
        let is_new = !directory(store).exists();
        match Self::open_existing(store, boot, lock, Purpose::Write(backend)) {
            Ok(mut index) => {
                index.catch_up(None)?;
                Ok(Opened { index, rebuilt: None })
            }
            Err((lock, error)) => {
                let index = Self::build(store, boot, lock, backend)?;
                let has_records = !scan::list_segments(store)?.is_empty();
                let reason = super::queue::chain(&error);
                Ok(Opened { index, rebuilt: (has_records || !is_new).then_some(reason) })
            }
        }
    }

    /// Opens an index to read rows, if it is complete and nobody uses it; never builds or repairs.
    pub(super) fn open_to_read(store: &Path, end: Covered) -> Result<Self, IndexError> {
        let doubt = |text: &str| IndexError::Doubtful(text.into());
        if !is_ours(&directory(store)) {
            // Databases make files: those of another user would be in the gateway's way.
            return Err(doubt("it belongs to another user"));
        }
        let format = read_format(store)?;
        if !format.clean {
            return Err(doubt("it was not closed"));
        }
        let lock = take_lock(store, Duration::ZERO)?;
        let opened = Self::open_existing(store, format.boot, lock, Purpose::Read);
        let index = opened.map_err(|(_, error)| error)?;
        if index.covered != Some(end) {
            return Err(doubt("it does not cover all records"));
        }
        Ok(index)
    }

    /// Deletes the index and builds it from the segments, in the database that it was in.
    pub(super) fn rebuild(store: &Path, boot: BootId) -> Result<Self, IndexError> {
        let lock = take_lock(store, READER_PATIENCE)?;
        let backend = read_format(store).map(|format| format.backend).unwrap_or_default();
        Self::build(store, boot, lock, backend)
    }

    /// Builds it anew while it is open.
    fn renew(self) -> Result<Self, IndexError> {
        let Self { store, table, format, _lock: lock, .. } = self;
        drop(table);
        Self::build(&store, format.boot, lock, format.backend)
    }

    fn build(
        store: &Path,
        boot: BootId,
        lock: Lock,
        backend: IndexBackend,
    ) -> Result<Self, IndexError> {
        let path = directory(store);
        let io = |step| {
            let path = path.clone();
            move |source| IndexError::Io { step, path, source }
        };
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io("remove")(error));
            }
            _ => {}
        }
        disk::make_directory(&path).map_err(io("make"))?;
        let table = backend.open(&path)?;
        let generation = uuid::Uuid::now_v7().simple().to_string();
        let (key, value) = (GENERATION.to_vec(), Some(generation.clone().into_bytes()));
        table.put_many(&[Put { tree: Tree::Meta, key, value }])?;
        table.durable()?;
        let format = Format { version: VERSION, backend, generation, boot, clean: false };
        write_format(store, &format)?;
        let mut index = Self {
            store: store.to_owned(),
            table,
            format,
            covered: None,
            next: Ordinal(0),
            fold: Fold::default(),
            put_bytes: 0,
            volatile_bytes: 0,
            _lock: lock,
        };
        index.catch_up(None)?;
        Ok(index)
    }

    fn open_existing(
        store: &Path,
        boot: BootId,
        lock: Lock,
        purpose: Purpose,
    ) -> Result<Self, (Lock, IndexError)> {
        let opened = (|| {
            let mut format = read_format(store)?;
            let doubt = |text: String| Err(IndexError::Doubtful(text));
            if format.version != VERSION {
                return doubt(format!("its version is {}, not {VERSION}", format.version));
            }
            if let Purpose::Write(backend) = purpose
                && format.backend != backend
            {
                return doubt(format!("it is kept in {}, not in {backend}", format.backend));
            }
            if !format.clean && format.boot != boot {
                // Not every database's flush reaches the platter: after a power cut anything may be lost.
                return doubt("the machine went down while it was open".into());
            }
            let table = format.backend.open(&directory(store))?;
            if table.get(Tree::Meta, GENERATION)?.as_deref() != Some(format.generation.as_bytes()) {
                return doubt("database and FORMAT are of different generations".into());
            }
            let covered = match table.get(Tree::Meta, COVERED)? {
                Some(json) => Some(parse(&json)?),
                None => None,
            };
            let next = match table.get(Tree::Meta, EXCHANGES)? {
                Some(key) => Ordinal::parse(&key)?,
                None => Ordinal(0),
            };
            if let Some(covered) = &covered {
                confirm(store, covered)?;
            }
            if purpose != Purpose::Read {
                format.clean = false;
                format.boot = boot;
                write_format(store, &format)?;
            }
            Ok((table, format, covered, next))
        })();
        match opened {
            Ok((table, format, covered, next)) => Ok(Self {
                store: store.to_owned(),
                table,
                format,
                covered,
                next,
                fold: Fold::default(),
                put_bytes: 0,
                volatile_bytes: 0,
                _lock: lock,
            }),
            Err(error) => Err((lock, error)),
        }
    }

    pub(super) fn close(mut self) -> Result<(), IndexError> {
        self.table.durable()?;
        self.format.clean = true;
        let Self { store, table, format, .. } = self;
        drop(table);
        write_format(&store, &format)
    }

    /// The sessions that have not ended.
    pub(super) fn active_sessions(&self) -> Result<Vec<SessionView>, IndexError> {
        let mut ids = Vec::new();
        self.table.range(Tree::Active, None, &mut |key, _| {
            ids.push(key.to_vec());
            ControlFlow::Continue(())
        })?;
        let mut views = Vec::new();
        for id in ids {
            if let Some(json) = self.table.get(Tree::Sessions, &id)? {
                views.push(parse::<SessionEntry>(&json)?.view);
            }
        }
        Ok(views)
    }

    /// One session.
    pub(super) fn session(&self, id: SessionId) -> Result<Option<SessionView>, IndexError> {
        let json = self.table.get(Tree::Sessions, id.as_bytes())?;
        json.map(|json| parse::<SessionEntry>(&json).map(|entry| entry.view)).transpose()
    }

    /// All sessions, by id.
    pub(super) fn sessions(&self) -> Result<Vec<SessionView>, IndexError> {
        let mut views = Vec::new();
        self.sessions_after(None, |view| {
            views.push(view);
            ControlFlow::Continue(())
        })?;
        Ok(views)
    }

    /// Sessions by id, from the one that follows `after`, until the visitor has enough.
    pub(super) fn sessions_after(
        &self,
        after: Option<SessionId>,
        mut visit: impl FnMut(SessionView) -> ControlFlow<()>,
    ) -> Result<(), IndexError> {
        let after = after.as_ref().map(|id| &id.as_bytes()[..]);
        self.visit(Tree::Sessions, after, parse, |entry: SessionEntry| visit(entry.view))
    }

    /// The ids of sessions, without their rows.
    pub(super) fn session_ids(
        &self,
        after: Option<SessionId>,
        mut visit: impl FnMut(SessionId) -> ControlFlow<()>,
    ) -> Result<(), IndexError> {
        let after = after.as_ref().map(|id| &id.as_bytes()[..]);
        self.ids(Tree::Sessions, after, |id| visit(SessionId::from_bytes(id)))
    }

    /// The ids of exchanges, without their rows.
    pub(super) fn exchange_ids(
        &self,
        after: Option<ExchangeId>,
        mut visit: impl FnMut(ExchangeId) -> ControlFlow<()>,
    ) -> Result<(), IndexError> {
        let after = after.as_ref().map(|id| &id.as_bytes()[..]);
        self.ids(Tree::Exchanges, after, |id| visit(ExchangeId::from_bytes(id)))
    }

    fn ids(
        &self,
        tree: Tree,
        after: Option<&[u8]>,
        mut visit: impl FnMut([u8; 16]) -> ControlFlow<()>,
    ) -> Result<(), IndexError> {
        let mut bad = false;
        self.table.range(tree, after, &mut |key, _| match key.try_into() {
            Ok(id) => visit(id),
            Err(_) => {
                bad = true;
                ControlFlow::Break(())
            }
        })?;
        if bad { Err(IndexError::Doubtful("a row's key is no id".into())) } else { Ok(()) }
    }

    /// One exchange.
    pub(super) fn exchange(&self, id: ExchangeId) -> Result<Option<ExchangeRow>, IndexError> {
        let stored = self.table.get(Tree::Exchanges, id.as_bytes())?;
        stored.map(|stored| parse_exchange(&stored).map(|(_, row)| row)).transpose()
    }

    /// How many exchanges there are.
    pub(super) const fn exchange_count(&self) -> u64 {
        self.next.0
    }

    /// All exchanges by id, from the one that follows `after`, until the visitor has enough.
    pub(super) fn exchanges(
        &self,
        after: Option<ExchangeId>,
        mut visit: impl FnMut(ExchangeRow) -> ControlFlow<()>,
    ) -> Result<(), IndexError> {
        let after = after.as_ref().map(|id| &id.as_bytes()[..]);
        self.visit(Tree::Exchanges, after, parse_exchange, |(_, row)| visit(row))
    }

    fn visit<T>(
        &self,
        tree: Tree,
        after: Option<&[u8]>,
        parse: impl Fn(&[u8]) -> Result<T, IndexError>,
        mut visit: impl FnMut(T) -> ControlFlow<()>,
    ) -> Result<(), IndexError> {
        let mut bad = None;
        self.table.range(tree, after, &mut |_, json| match parse(json) {
            Ok(row) => visit(row),
            Err(error) => {
                bad = Some(error);
                ControlFlow::Break(())
            }
        })?;
        bad.map_or(Ok(()), Err)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Read,
    /// In this database.
    Write(IndexBackend),
}

/// The segments must have the record where the rows end, or the rows are of another history.
fn confirm(store: &Path, covered: &Covered) -> Result<(), IndexError> {
    let path = scan::segment_path(store, covered.segment);
    match Scan::open_at(&path, covered.offset) {
        Ok(scan) if scan.mark().hash == covered.hash => Ok(()),
        _ => Err(IndexError::Doubtful("it covers records that the segments do not have".into())),
    }
}

fn take_lock(store: &Path, patience: Duration) -> Result<Lock, LockError> {
    Lock::take(&store.join(LOCK_FILE), patience)
}

pub(super) fn directory(store: &Path) -> PathBuf {
    store.join("index")
}

/// Whether the process' own user owns it.
pub(super) fn is_ours(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    // The owner of a process' own /proc entry is its effective user.
    let own = fs::metadata("/proc/self").map(|metadata| metadata.uid());
    let theirs = fs::metadata(path).map(|metadata| metadata.uid());
    matches!((own, theirs), (Ok(own), Ok(theirs)) if own == theirs)
}

fn format_path(store: &Path) -> PathBuf {
    directory(store).join("FORMAT")
}

fn read_format(store: &Path) -> Result<Format, IndexError> {
    let path = format_path(store);
    let json = fs::read(&path).map_err(|source| IndexError::Io { step: "read", path, source })?;
    parse(&json)
}

fn write_format(store: &Path, format: &Format) -> Result<(), IndexError> {
    let path = format_path(store);
    let json = serde_json::to_vec(format).expect("plain data");
    disk::replace_file(&path, &json).map_err(|source| IndexError::Io {
        step: "write",
        path,
        source,
    })
}

/// Makes the next start build the index anew.
pub(super) fn distrust(store: &Path) {
    let path = format_path(store);
    if let Err(error) = fs::remove_file(&path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, path = %path.display(), "the failed index could not be marked");
    }
}

fn parse<T: for<'a> Deserialize<'a>>(json: &[u8]) -> Result<T, IndexError> {
    serde_json::from_slice(json)
        .map_err(|error| IndexError::Doubtful(format!("a row is not the expected JSON: {error}")))
}

/// The value of an exchange: its ordinal, and its row as JSON.
fn parse_exchange(stored: &[u8]) -> Result<(Ordinal, ExchangeRow), IndexError> {
    let (ordinal, json) = stored
        .split_at_checked(Ordinal::BYTES)
        .ok_or_else(|| IndexError::Doubtful("the row of an exchange is too short".into()))?;
    Ok((Ordinal::parse(ordinal)?, parse(json)?))
}

/// The version of the rows: an index with another one is rebuilt, and a gateway with another one is not asked.
pub const VERSION: u32 = 4;
const GENERATION: &[u8] = b"generation";
const COVERED: &[u8] = b"covered";
/// How many exchanges there are.
const EXCHANGES: &[u8] = b"exchanges";
const LOCK_FILE: &str = "index.lock";
/// A CLI that reads rows is done sooner than this.
const READER_PATIENCE: Duration = Duration::from_secs(30);

#[cfg(test)]
pub(super) mod tests;
