//! What the index asks of a database: a few trees of small rows that change all or nothing.

use std::{
    io,
    ops::ControlFlow,
    panic::{self, AssertUnwindSafe},
    path::PathBuf,
};

/// The most bytes that a key has.
pub(super) const KEY_BYTES_MAX: usize = 256;
/// The most bytes that a value has.
pub(super) const VALUE_BYTES_MAX: usize = 4096;

/// The database does not work.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// What the database says.
    #[error("the database refused")]
    Database(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A file of the database could not be used.
    #[error("{}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The files are in a state that the database is known to take wrongly.
    #[error("{0}")]
    Suspect(&'static str),
    /// The database panicked, as it may on damage.
    #[error("the database panicked, as it may on damaged files")]
    Panicked,
    /// A row over the bounds could not be kept safely by every database.
    #[error(
        "a row with a key of {key} and a value of {value} bytes is over the bounds of {KEY_BYTES_MAX} \
         and {VALUE_BYTES_MAX}"
    )]
    RowTooLarge {
        /// The key's length.
        key: usize,
        /// The value's length.
        value: usize,
    },
}

impl TableError {
    pub(super) fn database(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Database(Box::new(error))
    }
}

/// The trees of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Tree {
    /// Session id → session entry.
    Sessions,
    /// Exchange id → ordinal and exchange row.
    Exchanges,
    /// Session id → nothing, for sessions that have not ended.
    Active,
    /// Ordinal → exchange id and time.
    Slots,
    /// Block → the ids and times that it spans.
    Blocks,
    /// Block and term → the slots of the block that have it.
    Postings,
    /// What the index knows of itself.
    Meta,
}

impl Tree {
    pub(super) const ALL: [Self; 7] = [
        Self::Sessions,
        Self::Exchanges,
        Self::Active,
        Self::Slots,
        Self::Blocks,
        Self::Postings,
        Self::Meta,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Sessions => "sessions",
            Self::Exchanges => "exchanges",
            Self::Active => "active",
            Self::Slots => "slots",
            Self::Blocks => "blocks",
            Self::Postings => "postings",
            Self::Meta => "meta",
        }
    }
}

/// A change of one row; none removes it.
#[derive(Clone, Debug)]
pub(super) struct Put {
    pub(super) tree: Tree,
    pub(super) key: Vec<u8>,
    pub(super) value: Option<Vec<u8>>,
}

impl Put {
    pub(super) fn bytes(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Vec::len)
    }
}

/// What visits rows.
pub(super) type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>;

/// All that the index asks of a database, so that one can take another's place.
pub(super) trait Table: Send {
    /// Applies all changes or none. After a crash some of the last calls may be gone, but only whole ones,
    /// and none of which a later one is still there.
    fn put_many(&self, puts: &[Put]) -> Result<(), TableError>;
    fn get(&self, tree: Tree, key: &[u8]) -> Result<Option<Vec<u8>>, TableError>;
    /// Visits rows in the order of keys, from the one that follows `after`.
    fn range(&self, tree: Tree, after: Option<&[u8]>, visit: Visit<'_>) -> Result<(), TableError>;
    /// Returns when all changes survive a power cut.
    fn durable(&self) -> Result<(), TableError>;
    /// Bytes on disk.
    fn stats(&self) -> Result<u64, TableError>;
    /// Closes and opens the database, where that bounds what the next opening costs.
    fn reopen(&mut self) -> Result<(), TableError>;
}

/// Refuses what not every database keeps safely.
pub(super) fn check_bounds(puts: &[Put]) -> Result<(), TableError> {
    for put in puts {
        let (key, value) = (put.key.len(), put.value.as_ref().map_or(0, Vec::len));
        if key > KEY_BYTES_MAX || value > VALUE_BYTES_MAX {
            return Err(TableError::RowTooLarge { key, value });
        }
    }
    Ok(())
}

/// Runs the database's code: damaged files may make it panic, which is an error like any other here.
pub(super) fn guarded<T>(run: impl FnOnce() -> Result<T, TableError>) -> Result<T, TableError> {
    panic::catch_unwind(AssertUnwindSafe(run)).unwrap_or(Err(TableError::Panicked))
}

/// Drops a database; one that panicked may do so again.
pub(super) fn let_go<T>(database: T) {
    let dropped = guarded(|| {
        drop(database);
        Ok(())
    });
    if dropped.is_err() {
        tracing::warn!("the index database panicked while it was closed");
    }
}
