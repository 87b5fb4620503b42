//! sled 0.34.7 as a table: the only place that names it. What is odd here is so for a reason in its source, or
//! in what others lost to it (`docs/store.md`).

use std::{
    fs, io,
    ops::Bound,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use sled::{
    Transactional as _,
    transaction::{TransactionError, UnabortableTransactionError},
};

use super::{
    disk,
    table::{Put, Table, TableError, Tree, Visit, check_bounds, guarded, let_go},
};

/// The rows in a sled database.
pub(super) struct SledTable {
    directory: PathBuf,
    open: Option<Open>,
}

struct Open {
    db: sled::Db,
    /// In the order of [`Tree::ALL`].
    trees: Vec<sled::Tree>,
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

    fn opened(&self) -> Result<&Open, TableError> {
        self.open.as_ref().ok_or(TableError::Suspect("the database could not be opened again"))
    }

    fn tree(&self, tree: Tree) -> Result<&sled::Tree, TableError> {
        Ok(&self.opened()?.trees[tree as usize])
    }
}

impl Table for SledTable {
    fn put_many(&self, puts: &[Put]) -> Result<(), TableError> {
        check_bounds(puts)?;
        let trees = &self.opened()?.trees[..];
        // Plain batches are per tree and not atomic across them. The closure may run again, so it is pure.
        let put_all = |trees: &Vec<sled::transaction::TransactionalTree>| {
            for put in puts {
                let tree = &trees[put.tree as usize];
                let changed: Result<_, UnabortableTransactionError> = match &put.value {
                    Some(value) => tree.insert(&put.key[..], &value[..]),
                    None => tree.remove(&put.key[..]),
                };
                changed?;
            }
            Ok(())
        };
        guarded(|| {
            trees.transaction(put_all).map_err(|error: TransactionError<()>| match error {
                TransactionError::Storage(error) => TableError::database(error),
                TransactionError::Abort(()) => TableError::Suspect("a transaction was aborted"),
            })
        })
    }

    fn get(&self, tree: Tree, key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
        let tree = self.tree(tree)?;
        guarded(|| {
            let value = tree.get(key).map_err(TableError::database)?;
            Ok(value.map(|value| value.to_vec()))
        })
    }

    fn range(&self, tree: Tree, after: Option<&[u8]>, visit: Visit<'_>) -> Result<(), TableError> {
        let tree = self.tree(tree)?;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rows = guarded(|| Ok(tree.range::<&[u8], _>((from, Bound::Unbounded))))?;
        while let Some((key, value)) =
            guarded(|| rows.next().transpose().map_err(TableError::database))?
        {
            if visit(&key, &value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn durable(&self) -> Result<(), TableError> {
        let open = self.opened()?;
        guarded(|| open.db.flush().map(drop).map_err(TableError::database))?;
        let io = |source| TableError::Io { path: self.directory.clone(), source };
        open.log.sync_all().map_err(io)
    }

    fn stats(&self) -> Result<u64, TableError> {
        let open = self.opened()?;
        guarded(|| open.db.size_on_disk().map_err(TableError::database))
    }

    /// What sled reads when it opens is all that was written since it was last opened.
    fn reopen(&mut self) -> Result<(), TableError> {
        self.durable()?;
        if let Some(open) = self.open.take() {
            let_go(open);
        }
        let give_up = Instant::now() + CLOSE_PATIENCE;
        loop {
            // sled's own threads may hold the lock for a moment after the last handle is gone.
            match open(&self.directory) {
                Err(TableError::Database(error)) if is_io(&*error) && Instant::now() < give_up => {
                    thread::sleep(CLOSE_RETRY);
                }
                opened => {
                    self.open = Some(opened?);
                    return Ok(());
                }
            }
        }
    }
}

impl Drop for SledTable {
    fn drop(&mut self) {
        if let Some(open) = self.open.take() {
            let_go(open);
        }
    }
}

fn is_io(error: &(dyn std::error::Error + 'static)) -> bool {
    matches!(error.downcast_ref(), Some(sled::Error::Io(_)))
}

fn open(directory: &Path) -> Result<Open, TableError> {
    prepare(directory)?;
    let config = sled::Config::new()
        .path(directory)
        .mode(sled::Mode::LowSpace)
        .cache_capacity(CACHE_BYTES)
        .flush_every_ms(Some(200))
        .use_compression(false);
    let (db, trees) = guarded(|| {
        let db = config.open().map_err(TableError::database)?;
        let open_tree = |tree: Tree| db.open_tree(tree.name()).map_err(TableError::database);
        let trees = Tree::ALL.into_iter().map(open_tree).collect::<Result<Vec<_>, _>>()?;
        Ok((db, trees))
    })?;
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
            return disk::make_directory(directory).map_err(io);
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
