//! A table of small rows, and sled as one: the only place that names it.

use std::{
    fs, io,
    ops::{Bound, ControlFlow},
    os::unix::fs::PermissionsExt as _,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use sled::{
    Transactional as _,
    transaction::{TransactionError, UnabortableTransactionError},
};

use crate::store::rows::ROW_BYTES_MAX;

/// The database does not work.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// What sled says.
    #[error("sled")]
    Sled(#[from] sled::Error),
    /// A file beside the database could not be used.
    #[error("{}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The files are in a state that sled is known to take wrongly.
    #[error("{0}")]
    Suspect(&'static str),
    /// sled panicked, as it does on some damage.
    #[error("sled panicked while it was opened")]
    Panicked,
    /// A row over the bound would put pages into files that sled never makes durable.
    #[error("a row of {bytes} bytes is over the bound of {ROW_BYTES_MAX}")]
    RowTooLarge {
        /// Its length.
        bytes: usize,
    },
}

/// The trees of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Tree {
    /// Session id → session entry.
    Sessions,
    /// Exchange id → exchange row.
    Exchanges,
    /// Session id → nothing, for sessions that have not ended.
    Active,
    /// What the index knows of itself.
    Meta,
}

const TREES: [(Tree, &str); 4] = [
    (Tree::Sessions, "sessions"),
    (Tree::Exchanges, "exchanges"),
    (Tree::Active, "active"),
    (Tree::Meta, "meta"),
];

/// A change of one row; none removes it.
#[derive(Clone, Debug)]
pub(super) struct Put {
    pub(super) tree: Tree,
    pub(super) key: Vec<u8>,
    pub(super) value: Option<Vec<u8>>,
}

/// What visits rows.
pub(super) type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>;

/// All that the index asks of a database, so that another one can take sled's place.
pub(super) trait Table {
    /// Applies all changes or none.
    fn put_many(&self, puts: &[Put]) -> Result<(), TableError>;
    fn get(&self, tree: Tree, key: &[u8]) -> Result<Option<Vec<u8>>, TableError>;
    /// Visits rows in the order of keys, from the one that follows `after`.
    fn range(&self, tree: Tree, after: Option<&[u8]>, visit: Visit<'_>) -> Result<(), TableError>;
    /// Returns when all changes survive a power cut.
    fn durable(&self) -> Result<(), TableError>;
    /// Bytes on disk.
    fn stats(&self) -> Result<u64, TableError>;
}

/// sled 0.34.7. `reference` for every line here: its own source, and what others lost to it.
pub(super) struct SledTable {
    directory: PathBuf,
    open: Option<Open>,
}

struct Open {
    db: sled::Db,
    trees: [sled::Tree; 4],
    /// `Db::flush` ends in `sync_file_range`; only fsync on a descriptor of our own is durable. Locks are
    /// per open file description, so that this one does not touch sled's.
    log: fs::File,
}

impl SledTable {
    pub(super) fn open(index: &Path) -> Result<Self, TableError> {
        let directory = index.join("db");
        let open = Some(open(&directory)?);
        Ok(Self { directory, open })
    }

    /// Closes and opens the database.
    pub(super) fn reopen(&mut self) -> Result<(), TableError> {
        self.durable()?;
        self.open = None;
        let give_up = Instant::now() + CLOSE_PATIENCE;
        loop {
            // sled's own threads may hold the lock for a moment after the last handle is gone.
            match open(&self.directory) {
                Err(TableError::Sled(sled::Error::Io(_))) if Instant::now() < give_up => {
                    thread::sleep(CLOSE_RETRY);
                }
                opened => {
                    self.open = Some(opened?);
                    return Ok(());
                }
            }
        }
    }

    pub(super) fn put_meta(&self, key: &[u8], value: &[u8]) -> Result<(), TableError> {
        let (key, value) = (key.to_vec(), Some(value.to_vec()));
        self.put_many(&[Put { tree: Tree::Meta, key, value }])
    }

    fn opened(&self) -> Result<&Open, TableError> {
        self.open.as_ref().ok_or(TableError::Suspect("the database could not be opened again"))
    }

    fn tree(&self, tree: Tree) -> Result<&sled::Tree, TableError> {
        Ok(&self.opened()?.trees[tree as usize])
    }
}

impl Table for SledTable {
    fn put_many(&self, puts: &[Put]) -> Result<(), TableError> {
        for put in puts {
            let bytes = put.value.as_ref().map_or(0, Vec::len);
            if bytes > ROW_BYTES_MAX {
                return Err(TableError::RowTooLarge { bytes });
            }
        }
        let [sessions, exchanges, active, meta] = &self.opened()?.trees;
        let trees = (sessions, exchanges, active, meta);
        // Plain batches are per tree and not atomic across them. The closure may run again, so it is pure.
        let done = trees.transaction(|(sessions, exchanges, active, meta)| {
            for put in puts {
                let tree = match put.tree {
                    Tree::Sessions => sessions,
                    Tree::Exchanges => exchanges,
                    Tree::Active => active,
                    Tree::Meta => meta,
                };
                let changed: Result<_, UnabortableTransactionError> = match &put.value {
                    Some(value) => tree.insert(&put.key[..], &value[..]),
                    None => tree.remove(&put.key[..]),
                };
                changed?;
            }
            Ok(())
        });
        done.map_err(|error: TransactionError<()>| match error {
            TransactionError::Storage(error) => TableError::Sled(error),
            TransactionError::Abort(()) => TableError::Suspect("a transaction was aborted"),
        })
    }

    fn get(&self, tree: Tree, key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
        Ok(self.tree(tree)?.get(key)?.map(|value| value.to_vec()))
    }

    fn range(&self, tree: Tree, after: Option<&[u8]>, visit: Visit<'_>) -> Result<(), TableError> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        for row in self.tree(tree)?.range::<&[u8], _>((from, Bound::Unbounded)) {
            let (key, value) = row?;
            if visit(&key, &value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn durable(&self) -> Result<(), TableError> {
        let open = self.opened()?;
        open.db.flush()?;
        open.log.sync_all().map_err(|source| self.io(source))
    }

    fn stats(&self) -> Result<u64, TableError> {
        Ok(self.opened()?.db.size_on_disk()?)
    }
}

impl SledTable {
    fn io(&self, source: io::Error) -> TableError {
        TableError::Io { path: self.directory.clone(), source }
    }
}

fn open(directory: &Path) -> Result<Open, TableError> {
    prepare(directory)?;
    let config = sled::Config::new()
        .path(directory)
        .mode(sled::Mode::LowSpace)
        .cache_capacity(CACHE_BYTES)
        .flush_every_ms(Some(200))
        .use_compression(false);
    let opened = panic::catch_unwind(AssertUnwindSafe(|| -> Result<_, sled::Error> {
        let db = config.open()?;
        let mut trees = Vec::new();
        for (_, name) in TREES {
            trees.push(db.open_tree(name)?);
        }
        Ok((db, trees))
    }));
    let (db, trees) = opened.map_err(|_| TableError::Panicked)??;
    let trees = trees.try_into().map_err(|_| TableError::Suspect("a tree is missing"))?;
    let io = |source| TableError::Io { path: directory.to_owned(), source };
    let log =
        fs::OpenOptions::new().read(true).write(true).open(directory.join("db")).map_err(io)?;
    let mut blobs = fs::read_dir(directory.join("blobs")).map_err(io)?;
    if blobs.next().is_some() {
        return Err(TableError::Suspect("there are blobs, which sled never makes durable"));
    }
    for entry in fs::read_dir(directory).map_err(io)? {
        let entry = entry.map_err(io)?;
        if entry.file_type().map_err(io)?.is_file() {
            let owner_only = fs::Permissions::from_mode(0o600);
            fs::set_permissions(entry.path(), owner_only).map_err(io)?;
        }
    }
    Ok(Open { db, trees, log })
}

/// Removes or refuses what sled would take wrongly.
fn prepare(directory: &Path) -> Result<(), TableError> {
    let io = |source| TableError::Io { path: directory.to_owned(), source };
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return super::disk::make_directory(directory).map_err(io);
        }
        entries => entries.map_err(io)?,
    };
    for entry in entries {
        let path = entry.map_err(io)?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        // A crash while opening leaves this, and the next opening would read it as damage.
        if name.is_some_and(|name| name.starts_with("snap.") && name.ends_with(".generating")) {
            fs::remove_file(&path).map_err(io)?;
        }
    }
    // A torn `conf` is read as a new database: everything would be gone without a word.
    let conf_bytes = fs::metadata(directory.join("conf")).map_or(0, |metadata| metadata.len());
    if conf_bytes <= 8 && directory.join("db").exists() {
        return Err(TableError::Suspect("its configuration file is missing or torn"));
    }
    Ok(())
}

/// sled uses about ten times this in the worst case that others measured.
const CACHE_BYTES: u64 = 32 << 20;
/// How long sled's threads may hold its lock after it is closed.
const CLOSE_PATIENCE: Duration = Duration::from_secs(10);
const CLOSE_RETRY: Duration = Duration::from_millis(10);
