//! redb 4.6 as a table: the only place that names it.

use std::{
    fs, io,
    ops::Bound,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use redb::{Database, Durability, ReadableDatabase as _, TableDefinition};

use super::table::{Put, Table, TableError, Tree, Visit, check_bounds, guarded, let_go};

/// The rows in a redb database.
pub(super) struct RedbTable {
    path: PathBuf,
    open: Option<Database>,
}

type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;

const fn definition(tree: Tree) -> Definition {
    TableDefinition::new(tree.name())
}

impl RedbTable {
    pub(super) fn open(index: &Path) -> Result<Self, TableError> {
        let path = index.join("rows.redb");
        let open = Some(open(&path)?);
        Ok(Self { path, open })
    }

    fn opened(&self) -> Result<&Database, TableError> {
        self.open.as_ref().ok_or(TableError::Suspect("the database could not be opened again"))
    }

    fn commit(&self, puts: &[Put], durability: Durability) -> Result<(), TableError> {
        let db = self.opened()?;
        guarded(|| {
            let mut transaction = db.begin_write().map_err(TableError::database)?;
            transaction.set_durability(durability).map_err(TableError::database)?;
            for tree in Tree::ALL {
                let mut puts = puts.iter().filter(|put| put.tree == tree).peekable();
                if puts.peek().is_none() {
                    continue;
                }
                let mut table =
                    transaction.open_table(definition(tree)).map_err(TableError::database)?;
                for Put { key, value, .. } in puts {
                    match value {
                        Some(value) => table.insert(&key[..], &value[..]),
                        None => table.remove(&key[..]),
                    }
                    .map_err(TableError::database)?;
                }
            }
            transaction.commit().map_err(TableError::database)
        })
    }
}

impl Table for RedbTable {
    /// Not durable, so that it costs no flush: a crash goes back to the last durable call.
    fn put_many(&self, puts: &[Put]) -> Result<(), TableError> {
        check_bounds(puts)?;
        self.commit(puts, Durability::None)
    }

    fn get(&self, tree: Tree, key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
        let db = self.opened()?;
        guarded(|| {
            let transaction = db.begin_read().map_err(TableError::database)?;
            let table = transaction.open_table(definition(tree)).map_err(TableError::database)?;
            let value = table.get(key).map_err(TableError::database)?;
            Ok(value.map(|value| value.value().to_vec()))
        })
    }

    fn range(&self, tree: Tree, after: Option<&[u8]>, visit: Visit<'_>) -> Result<(), TableError> {
        let db = self.opened()?;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let (_table, mut rows) = guarded(|| {
            let transaction = db.begin_read().map_err(TableError::database)?;
            let table = transaction.open_table(definition(tree)).map_err(TableError::database)?;
            let rows =
                table.range::<&[u8]>((from, Bound::Unbounded)).map_err(TableError::database)?;
            Ok((table, rows))
        })?;
        while let Some((key, value)) =
            guarded(|| rows.next().transpose().map_err(TableError::database))?
        {
            if visit(key.value(), value.value()).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn durable(&self) -> Result<(), TableError> {
        self.commit(&[], Durability::Immediate)
    }

    fn stats(&self) -> Result<u64, TableError> {
        let io = |source| TableError::Io { path: self.path.clone(), source };
        fs::metadata(&self.path).map(|metadata| metadata.len()).map_err(io)
    }

    /// What redb reads when it opens does not grow: there is nothing to do but what makes it durable.
    fn reopen(&mut self) -> Result<(), TableError> {
        self.durable()
    }
}

impl Drop for RedbTable {
    fn drop(&mut self) {
        if let Some(open) = self.open.take() {
            let_go(open);
        }
    }
}

fn open(path: &Path) -> Result<Database, TableError> {
    let io = |source| TableError::Io { path: path.to_owned(), source };
    let made = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let is_new = match made {
        Ok(_) => true,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
        Err(error) => return Err(io(error)),
    };
    guarded(|| {
        let db = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(path)
            .map_err(TableError::database)?;
        if is_new {
            // Reading a table that was never written is an error.
            let transaction = db.begin_write().map_err(TableError::database)?;
            for tree in Tree::ALL {
                transaction.open_table(definition(tree)).map_err(TableError::database)?;
            }
            transaction.commit().map_err(TableError::database)?;
        }
        Ok(db)
    })
}

/// Pages that redb keeps in memory, read and written ones together.
const CACHE_BYTES: usize = 32 << 20;
